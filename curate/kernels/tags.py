"""What the passes over markup have in common: kinds of tags, names by their hashes, and where raw text ends."""

from __future__ import annotations

import numba
import numpy as np

VOIDS = "area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr"
RAW_TEXTS = "script style xmp iframe noembed noframes"  # what stands in them is no markup
ESCAPED_TEXTS = "title textarea"  # no markup either, but for character references
# Start tags that end a drawing or a formula that was left open.
BREAKERS = (
    "b big blockquote body br center code dd div dl dt em embed font h1 h2 h3 h4 h5 h6 head hr i img li listing menu meta nobr"
    " ol p pre ruby s small span strong strike sub sup table tt u ul var"
)

MASK = 0xFFFFFFFF
PRIME, BASIS = 16777619, 2166136261


def fnv(word: str | bytes) -> int:
    """FNV-1a of 32 bits, which the kernel chains byte by byte (Fowler, Noll and Vo)."""
    h = BASIS
    for b in word.encode() if isinstance(word, str) else word:
        h = (h ^ b) * PRIME & MASK
    return h


def hash_table(entries: dict[int, int], size: int) -> np.ndarray:
    """Open addressing: int64 [size, 2] of key and value, -1 where empty."""
    table = np.full((size, 2), -1, np.int64)
    for key, value in entries.items():
        at = key & (size - 1)
        while table[at, 0] >= 0:
            at = (at + 1) & (size - 1)
        table[at] = key, value
    return table


@numba.njit(cache=True, nogil=True, inline="never")
def find(table, key):
    """The value of a key, or -1."""
    mask = table.shape[0] - 1
    at = key & mask
    while table[at, 0] >= 0:
        if table[at, 0] == key:
            return table[at, 1]
        at = (at + 1) & mask
    return np.int64(-1)


@numba.njit(cache=True, nogil=True)
def hash_lower(h, start, end):
    """FNV of a value in lower case, white space around it left out."""
    while start < end and h[start] <= 0x20:
        start += 1
    while end > start and h[end - 1] <= 0x20:
        end -= 1
    key = np.int64(BASIS)
    for i in range(start, end):
        b = np.int64(h[i])
        key = (key ^ (b | 0x20 if 0x41 <= b <= 0x5A else b)) * PRIME & MASK
    return key


@numba.njit(cache=True, nogil=True)
def index_of(h, byte, start):
    """Where a byte comes next, the size of h where it does not."""
    n = h.size
    i = start
    byte = np.uint8(byte)
    while i + 64 <= n:
        block = h[i : i + 64]
        found = 0
        for k in range(64):  # which processors compare at once
            found += block[k] == byte
        if found:
            break
        i += 64
    while i < n and h[i] != byte:
        i += 1
    return i


@numba.njit(cache=True, nogil=True)
def raw_end(h, start, name_start, name_end):
    """Where the end tag of a script or the like begins. A script may hold a script in a comment, as browsers read it."""
    n = h.size
    m = name_end - name_start
    is_script = m == 6 and h[name_start] | 0x20 == 0x73 and h[name_start + 1] | 0x20 == 0x63
    in_comment = False
    inner = False
    i = start
    while i < n:
        if not in_comment:
            i = index_of(h, 0x3C, i)
            if i == n:
                break
        b = h[i]
        if b == 0x3C and i + 1 < n:
            closing = h[i + 1] == 0x2F
            if is_script and h[i + 1] == 0x21 and i + 3 < n and h[i + 2] == 0x2D and h[i + 3] == 0x2D:
                in_comment = True
                i += 4
                # "<!-->" closes at once
                i -= 2
                continue
            at = i + 2 if closing else i + 1
            k = 0
            while k < m and at + k < n and h[at + k] | 0x20 == h[name_start + k] | 0x20:
                k += 1
            if k == m and at + k < n:
                after = h[at + k]
                if after == 0x3E or after == 0x2F or after == 0x20 or after == 0x0A or after == 0x09 or after == 0x0C:
                    if closing:
                        if not inner:
                            return i
                        inner = False
                    elif in_comment:
                        inner = True
        elif is_script and in_comment and b == 0x2D and i + 2 < n and h[i + 1] == 0x2D and h[i + 2] == 0x3E:
            in_comment = False
            inner = False
        i += 1
    return n
