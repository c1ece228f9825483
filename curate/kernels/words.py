"""Words of a text as Python's `str.split()` sees them, counted over UTF-8 bytes without decoding."""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa


def offsets_and_bytes(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(int32 offsets, one more than rows; uint8 bytes) of a string or binary array: views of its buffers, no copies."""
    _, offsets, data = text.buffers()
    if offsets is None:
        return np.zeros(len(text) + 1, np.int32), np.empty(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    return bounds, np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


@numba.njit(cache=True, nogil=True)
def count_words(offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Whitespace-separated words of each text (uint32)."""
    counts = np.zeros(len(offsets) - 1, np.uint32)
    for i in range(len(counts)):
        at, end, inside, words = offsets[i], offsets[i + 1], False, 0
        while at < end:
            byte = data[at]
            width = 1
            if byte < 0x80:
                space = byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31
            else:
                width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                space = False
                if byte == 0xC2:  # U+0085, U+00A0
                    space = data[at + 1] == 0x85 or data[at + 1] == 0xA0
                elif 0xE1 <= byte <= 0xE3:
                    second, third = data[at + 1], data[at + 2]
                    if byte == 0xE2 and second == 0x80:  # U+2000..200A, U+2028, U+2029, U+202F
                        space = third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
                    elif byte == 0xE1:  # U+1680
                        space = second == 0x9A and third == 0x80
                    elif byte == 0xE2:  # U+205F
                        space = second == 0x81 and third == 0x9F
                    else:  # U+3000
                        space = second == 0x80 and third == 0x80
            if space:
                inside = False
            elif not inside:
                inside = True
                words += 1
            at += width
        counts[i] = words
    return counts
