"""Shingles of texts: 64-bit hashes of every n consecutive words, or characters, after a normalisation that does no harm.

A text becomes words, whose hashes are chained into prefixes; the hash of a shingle is a difference of two prefixes, so its
cost does not depend on n. What a code point becomes stands in one table: its folded form, or that it separates, is left out,
or is a word of its own (scripts without spaces). Accents are stripped for Latin, Greek and Cyrillic only: in Indic scripts,
Arabic or Thai the marks are letters in all but name.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import NamedTuple

import numba
import numpy as np

from curate.kernels.chars import LIMIT, MARK, SPACE, UNSPACED, WORD, bits_of, decode, inline_kernel, kernel, tables
from curate.kernels.hashes import SPREAD, mix

OTHER = 0x80  # in the table of bytes: not ASCII
LEFT_OUT, OWN, ATTACHED = 1 << 29, 1 << 30, 1 << 31  # beside the folded code point in the table of code points
FOLDED = (1 << 21) - 1
ZERO = ord("0")
# Diacritics for Latin, Greek and Cyrillic, where they stand as characters of their own.
DIACRITICS = ((0x300, 0x36F), (0x483, 0x487))

BASE = np.uint64(0xD6E8FEB86659FD93)


class Folding(NamedTuple):
    """What becomes of each character: `ascii` (256,) uint8, `points` (LIMIT + 1,) uint32.

    In `ascii`, 0 separates and `OTHER` begins a character of several bytes; in `points`, 0 separates. The last of `points` says
    whether those beyond the table that are neither letters nor marks are parts of words.
    """

    ascii: np.ndarray
    points: np.ndarray
    collapse: bool


@functools.lru_cache(maxsize=8)
def folding(lowercase: bool, strip_accents: bool, fold_digits: bool, strip_punctuation: bool) -> Folding:
    """The tables of a normalisation. fold_digits: a run of decimal digits becomes one zero."""
    bits, lower = tables()
    points = np.arange(LIMIT, dtype=np.uint32)
    stripped = np.zeros(LIMIT, bool)
    if strip_accents:
        for cp in range(0x80, LIMIT):
            whole = unicodedata.normalize("NFD", chr(cp))
            if whole != chr(cp) and _has_accents(whole[0]) and all(unicodedata.category(c) == "Mn" for c in whole[1:]):
                points[cp] = ord(whole[0])
        for low, high in DIACRITICS:
            stripped[low : high + 1] = True
    if lowercase:
        points = lower[points]
    if fold_digits:
        points[[cp for cp in range(LIMIT) if chr(cp).isdecimal()]] = ZERO
    within = bits & WORD != 0 if strip_punctuation else bits & SPACE == 0
    within[:0x20] = within[0x7F] = False
    own = (bits & UNSPACED != 0) & (bits & MARK == 0)
    points[bits & MARK != 0] |= np.uint32(ATTACHED)
    points[own] |= np.uint32(OWN)
    points[~within & ~own] = 0
    points[0] = 0  # which is what separates
    points[stripped] = LEFT_OUT
    points = np.append(points, np.uint32(not strip_punctuation))
    ascii = np.full(256, OTHER, np.uint8)
    ascii[:128] = points[:128]
    return Folding(ascii, points, fold_digits)


def _has_accents(base: str) -> bool:
    return unicodedata.name(base, "").startswith(("LATIN", "GREEK", "CYRILLIC"))


@kernel
def _beyond(cp, bits, points):
    """What the table of code points would say about one beyond it."""
    kind = bits_of(bits, cp)
    if kind & MARK:
        return np.uint32(cp | ATTACHED)
    if kind & UNSPACED:
        return np.uint32(cp | OWN)
    return np.uint32(cp) if points[LIMIT] else np.uint32(0)


@inline_kernel
def _folded(data, at, end, ascii, points, bits):
    """(what becomes of the character at `at`, where the next begins)."""
    c = ascii[data[at]]
    if c != OTHER:
        return np.uint32(c), at + 1
    cp, width = decode(data, at, end)
    return points[cp] if cp < LIMIT else _beyond(cp, bits, points), at + width


ONES, HIGHS, ZEROS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080), np.uint64(0x3030303030303030)
PADDING = 24  # zeros behind a folded text, so that eight bytes may be looked at from any of its bytes


@kernel
def _run(data, start, end, ascii, points, bits, collapse, words, prefixes):
    """Add the words of a run without ASCII separators, a character at a time; returns the number of words so far."""
    total = prefixes[words]
    held, size, value = np.uint64(0), np.uint64(0), np.uint64(0)
    zero = False  # the character before is a folded digit
    alone = False  # the word is a character of a script without spaces
    at = start
    while at < end:
        what, at = _folded(data, at, end, ascii, points, bits)
        if what & np.uint32(LEFT_OUT):
            continue
        own, attached = what & np.uint32(OWN) != np.uint32(0), what & np.uint32(ATTACHED) != np.uint32(0)
        c = np.uint64(what & np.uint32(FOLDED))
        if size and (own or c == np.uint64(0) or (alone and not attached)):
            total = total * BASE + mix(value ^ held ^ size * SPREAD)
            words += 1
            prefixes[words] = total
            held, size, value, alone, zero = np.uint64(0), np.uint64(0), np.uint64(0), False, False
        if c == np.uint64(0):
            continue
        if collapse and c == np.uint64(ZERO):
            if zero:
                continue
            zero = True
        else:
            zero = False
        alone = alone or own
        for down in (np.uint64(16), np.uint64(8), np.uint64(0)):
            if c >= np.uint64(0x80) or down == np.uint64(0):
                held |= (c >> down & np.uint64(0xFF)) << ((size & np.uint64(7)) << np.uint64(3))
                size += np.uint64(1)
                if size & np.uint64(7) == np.uint64(0):
                    value = mix(value ^ held)
                    held = np.uint64(0)
    if size:
        words += 1
        prefixes[words] = total * BASE + mix(value ^ held ^ size * SPREAD)
    return words


@inline_kernel
def _eight(wide, at):
    """Eight bytes from any byte on, the first in the lowest place."""
    shift = np.uint64(at & 7) << np.uint64(3)
    return wide[at >> 3] >> shift | (wide[(at >> 3) + 1] << np.uint64(1)) << (np.uint64(63) - shift)


@kernel
def _word_prefixes(data, start, end, ascii, points, bits, collapse, narrow, wide, edges, prefixes):
    """Chained hashes of the words of a text: `prefixes[k]` covers the first k words; returns the number of words.

    A word is hashed eight bytes at a time; a character beyond ASCII counts as three bytes, of which the first is its plane, so
    that it is no run of ASCII characters. The edges of runs without ASCII separators are found first, without a branch: words
    end where no processor would guess. A run of ASCII without folded digits, nearly all in most texts, is one word.
    narrow, wide: uint8 and uint64 views of room for the text and `PADDING`; edges: int32, room for two more than its bytes.
    """
    length = end - start
    within = np.uint8(0)
    found = np.int64(0)
    for i in range(length):
        c = ascii[data[start + i]]
        narrow[i] = c
        inside = np.uint8(c != 0)
        edges[found] = i
        found += np.int64(inside ^ within)
        within = inside
    edges[found] = length
    for i in range(length, length + PADDING):
        narrow[i] = 0
    words = 0
    total = np.uint64(0)
    prefixes[0] = total
    for k in range(0, found, 2):
        low, high = np.int64(edges[k]), np.int64(edges[k + 1])
        size = np.uint64(high - low)
        value = np.uint64(0)
        odd = np.uint64(0)  # high bits: characters beyond ASCII, or digits to be folded
        while low + 8 < high:
            held = _eight(wide, low)
            odd |= held | (_no_byte(held ^ ZEROS) if collapse else np.uint64(0))
            value = mix(value ^ held)
            low += 8
        held = _eight(wide, low) & (np.uint64(0xFFFFFFFFFFFFFFFF) >> (np.uint64(8 - (high - low)) << np.uint64(3)))
        odd |= held | (_no_byte(held ^ ZEROS) if collapse else np.uint64(0))
        if odd & HIGHS:
            words = _run(data, start + edges[k], start + high, ascii, points, bits, collapse, words, prefixes)
            total = prefixes[words]
            continue
        if high - low == 8:  # as if the next eight were looked at, and there were none
            value = mix(value ^ held)
            held = np.uint64(0)
        total = total * BASE + mix(value ^ held ^ size * SPREAD)
        words += 1
        prefixes[words] = total
    return words


@inline_kernel
def _no_byte(x):
    """Whether any byte is zero: its high bit, and maybe those of bytes above it."""
    return (x - ONES) & ~x & HIGHS


@kernel
def _char_prefixes(data, start, end, ascii, points, bits, collapse, prefixes):
    """Chained hashes of the characters of the words of a text, with one space where something separates them."""
    count = 0
    total = np.uint64(0)
    prefixes[0] = total
    zero = gap = False
    at = start
    while at < end:
        what, at = _folded(data, at, end, ascii, points, bits)
        if what & np.uint32(LEFT_OUT):
            continue
        c = np.uint64(what & np.uint32(FOLDED))
        if c == np.uint64(0):
            gap, zero = count > 0, False
            continue
        if collapse and c == np.uint64(ZERO):
            if zero:
                continue
            zero = True
        else:
            zero = False
        if gap:
            total = total * BASE + mix(np.uint64(32))
            count += 1
            prefixes[count] = total
            gap = False
        total = total * BASE + mix(c)
        count += 1
        prefixes[count] = total
    return count


@kernel
def shingles_of(data, start, end, ascii, points, bits, collapse, chars, ngram, power, narrow, wide, edges, prefixes, out):
    """Write the hashes of all shingles of a text to `out`, repeats included; returns how many.

    power: `BASE` to the n-th; narrow, wide: room for the text as uint8 and as uint64, the same; edges: int32; prefixes, out:
    uint64, longer than the text has units.
    """
    if chars:
        units = _char_prefixes(data, start, end, ascii, points, bits, collapse, prefixes)
    else:
        units = _word_prefixes(data, start, end, ascii, points, bits, collapse, narrow, wide, edges, prefixes)
    count = units - ngram + 1
    for i in range(count):
        out[i] = mix(prefixes[i + ngram] - prefixes[i] * power)
    return max(count, 0)


def power_of(ngram: int) -> np.uint64:
    """`BASE` to the n-th, modulo 2^64."""
    return np.uint64(pow(int(BASE), ngram, 1 << 64))


@inline_kernel
def room(size, chars):
    """Units that a text of so many bytes has at most, and one: two words have a byte between them, or are of three each."""
    return size + 2 if chars else size // 2 + 3


@inline_kernel
def longest_of(bounds):
    """Bytes of the longest text (int64)."""
    longest = np.int64(0)
    for i in range(len(bounds) - 1):
        longest = max(longest, np.int64(bounds[i + 1] - bounds[i]))
    return longest


@numba.njit(cache=True, nogil=True)
def _shingle_sets(bounds, data, ascii, points, bits, collapse, chars, ngram, power, out):
    n = len(bounds) - 1
    longest = longest_of(bounds)
    prefixes, found = np.empty(room(longest, chars), np.uint64), np.empty(room(longest, chars), np.uint64)
    wide = np.empty((longest + PADDING) // 8 + 1, np.uint64)
    narrow, edges = wide.view(np.uint8), np.empty(longest + 2, np.int32)
    slots = 16
    while slots < 2 * room(longest, chars):
        slots *= 2
    table, stamps = np.empty(slots, np.uint64), np.zeros(slots, np.uint32)
    ends = np.zeros(n + 1, np.int64)
    used = np.int64(0)
    for i in range(n):
        count = shingles_of(
            data, bounds[i], bounds[i + 1], ascii, points, bits, collapse, chars, ngram, power,
            narrow, wide, edges, prefixes, found,
        )  # fmt: skip
        used += distinct(found, count, table, stamps, np.uint32(i + 1), out[used:])
        ends[i + 1] = used
    return ends


@kernel
def distinct(values, count, table, stamps, stamp, out):
    """Write the distinct ones of the first `count` values to `out` in order; returns how many.

    table, stamps: a hash table with at least twice as many slots as values, a power of two; a slot is taken where its stamp is
    `stamp`, so that it need not be cleared.
    """
    slots = np.int64(16)
    while slots < 2 * count:
        slots *= 2
    last = np.uint64(slots - 1)
    used = 0
    for k in range(count):
        value = values[k]
        at = value & last
        while stamps[at] == stamp and table[at] != value:
            at = (at + np.uint64(1)) & last
        if stamps[at] != stamp:
            stamps[at], table[at] = stamp, value
            out[used] = value
            used += 1
    return used


def shingle_sets(
    bounds: np.ndarray, data: np.ndarray, fold: Folding, ngram: int, unit: str, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(int64 bounds, uint64 hashes): the distinct shingles of each text, in the order of their first place.

    bounds, data: int32 offsets and bytes of the texts (UTF-8). A text with fewer than `ngram` units has none. out: uint64, of
    which the hashes become a view if it has room for `most_shingles`.
    """
    chars = unit == "char"
    most = most_shingles(bounds, unit)
    if out is None or len(out) < most:
        out = np.empty(most, np.uint64)
    ends = _shingle_sets(bounds, data, *fold_arguments(fold), chars, ngram, power_of(ngram), out)
    return ends, out[: ends[-1]]


def most_shingles(bounds: np.ndarray, unit: str) -> int:
    """How many shingles these texts may have at most."""
    size, n = int(bounds[-1]) - int(bounds[0]), len(bounds) - 1
    return size + 2 * n if unit == "char" else size // 2 + 3 * n


def fold_arguments(fold: Folding) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """What kernels are handed for a normalisation."""
    return fold.ascii, fold.points, tables()[0], fold.collapse
