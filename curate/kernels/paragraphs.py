"""Lines of texts, and the pieces of some lines in which a language can be told."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def lines(starts: np.ndarray, ends: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What newlines separate, empty lines included, as `str.split("\\n")` has it: (int64 starts, int64 ends, int64 first).

    first: number of the first line of each text, one more than texts.
    """
    n = len(starts)
    first = np.zeros(n + 1, np.int64)
    count = 0
    for i in range(n):
        count += 1
        for at in range(starts[i], ends[i]):
            count += data[at] == 10
        first[i + 1] = count
    begins, stops = np.empty(count, np.int64), np.empty(count, np.int64)
    line = 0
    for i in range(n):
        begins[line] = starts[i]
        for at in range(starts[i], ends[i]):
            if data[at] == 10:
                stops[line] = at
                line += 1
                begins[line] = at + 1
        stops[line] = ends[i]
        line += 1
    return begins, stops, first


@numba.njit(cache=True, nogil=True)
def pieces(
    begins: np.ndarray, stops: np.ndarray, first: np.ndarray, letters: np.ndarray, script: np.ndarray, enough: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of lines, each up to a line without letters or in another script, or until it has enough letters: (int64 starts,
    int64 ends, int64 number of the text of each piece; int64 number of the piece of each line, -1 for one without letters).

    begins, stops, first: as `lines` gives them; letters, script: of each line.
    """
    piece = np.full(len(begins), -1, np.int64)
    begin, stop = np.empty(len(begins), np.int64), np.empty(len(begins), np.int64)
    text = np.empty(len(begins), np.int64)
    n = 0
    for i in range(len(first) - 1):
        gathered = -1  # no piece is open
        for line in range(first[i], first[i + 1]):
            if letters[line] == 0:
                gathered = -1
                continue
            if gathered < 0 or script[line] != script[line - 1]:
                begin[n], text[n] = begins[line], i
                n += 1
                gathered = 0
            piece[line] = n - 1
            stop[n - 1] = stops[line]
            gathered += letters[line]
            if gathered >= enough:
                gathered = -1
    return begin[:n], stop[:n], text[:n], piece
