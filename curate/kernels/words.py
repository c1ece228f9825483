"""Words of a text as Python's `str.split()` sees them, counted over UTF-8 bytes without decoding."""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from curate.kernels.chars import kernel


def offsets_and_bytes(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(int32 offsets, one more than rows; uint8 bytes) of a string or binary array: views of its buffers, no copies."""
    _, offsets, data = text.buffers()
    if offsets is None:
        return np.zeros(len(text) + 1, np.int32), np.empty(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    return bounds, np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


# 1: whitespace; 2: first byte of a character that may be whitespace
SPACE = np.array(
    [1 if c < 128 and chr(c).isspace() else 2 if c in (0xC2, 0xE1, 0xE2, 0xE3) else 0 for c in range(256)], np.uint8
)


@kernel
def space_at(data: np.ndarray, at: int, end: int) -> int:
    """Width in bytes of the whitespace character that begins at `at`, as `str.isspace()` sees it; 0 if it is none."""
    byte = data[at]
    kind = SPACE[byte]
    if kind < 2:
        return kind
    if byte == 0xC2:  # U+0085, U+00A0
        return 2 if at + 1 < end and (data[at + 1] == 0x85 or data[at + 1] == 0xA0) else 0
    if at + 2 >= end:
        return 0
    second, third = data[at + 1], data[at + 2]
    if byte == 0xE1:  # U+1680
        return 3 if second == 0x9A and third == 0x80 else 0
    if byte == 0xE3:  # U+3000
        return 3 if second == 0x80 and third == 0x80 else 0
    if second == 0x80:  # U+2000..200A, U+2028, U+2029, U+202F
        return 3 if third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF else 0
    return 3 if second == 0x81 and third == 0x9F else 0  # U+205F


@numba.njit(cache=True, nogil=True)
def count_words(offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Whitespace-separated words of each text (uint32)."""
    counts = np.zeros(len(offsets) - 1, np.uint32)
    for i in range(len(counts)):
        at, end, inside, words = offsets[i], offsets[i + 1], False, 0
        while at < end:
            width = space_at(data, at, end)
            if width:
                inside = False
                at += width
            else:  # no byte inside of a character begins whitespace
                words += not inside
                inside = True
                at += 1
        counts[i] = words
    return counts
