"""Excerpts of texts for language detection, made over UTF-8 bytes without decoding."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def excerpt(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, head: int, piece: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The head of each text and two pieces from a third and two thirds of the rest, with spaces between; short texts whole.

    head, piece: bytes; only whole characters are taken, so a little less is. Returns (int64 offsets, uint8 bytes, whether
    there is a byte above 127 in it).
    """
    n = len(starts)
    room = 0
    for i in range(n):
        room += min(ends[i] - starts[i], head + 2 * piece + 2)
    offsets = np.zeros(n + 1, np.int64)
    out = np.empty(room, np.uint8)
    wide = np.zeros(n, np.bool_)
    to = 0
    for i in range(n):
        start, size = starts[i], ends[i] - starts[i]
        high = np.uint8(0)
        if size <= head + 2 * piece:
            for at in range(start, ends[i]):
                out[to] = data[at]
                high |= data[at]
                to += 1
        else:
            rest = size - head
            for k in range(3):
                first = start if k == 0 else start + head + k * rest // 3
                last = min(first + (head if k == 0 else piece), ends[i])
                while first < last and data[first] & 0xC0 == 0x80:
                    first += 1
                while first < last < ends[i] and data[last] & 0xC0 == 0x80:
                    last -= 1
                if k:
                    out[to] = 32
                    to += 1
                for at in range(first, last):
                    out[to] = data[at]
                    high |= data[at]
                    to += 1
        offsets[i + 1] = to
        wide[i] = high >= 0x80
    return offsets, out[:to], wide


@numba.njit(cache=True, nogil=True)
def letters_only(starts: np.ndarray, ends: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts without digits, punctuation and controls of ASCII, with single spaces where there was whitespace.

    Returns (int64 offsets, uint8 bytes, characters of each text that are no space).
    """
    n = len(starts)
    bounds = np.zeros(n + 1, np.int64)
    out = np.empty((ends - starts).sum(), np.uint8)
    characters = np.zeros(n, np.int64)
    to = 0
    for i in range(n):
        begin, spaces, inside = to, False, 0
        for at in range(starts[i], ends[i]):
            byte = data[at]
            if byte == 32 or 9 <= byte <= 13:
                spaces = True
                continue
            if byte < 0x80 and not (97 <= byte <= 122 or 65 <= byte <= 90):
                continue
            if spaces and to > begin:
                out[to] = 32
                to += 1
            spaces = False
            out[to] = byte
            to += 1
            inside += byte & 0xC0 != 0x80
        bounds[i + 1] = to
        characters[i] = inside
    return bounds, out[:to], characters
