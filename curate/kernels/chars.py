"""What a character is: one table of bits per code point, from Unicode's data as Python has them, made once per process.

Kernels look bytes below 0x80 up directly and decode the rest. From `LIMIT` on there are only ideographs to come, tags,
variation selectors and private use.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

import numba
import numpy as np

SPACE = 1 << 0  # str.isspace
ALPHA = 1 << 1  # str.isalpha
LOWER = 1 << 2  # str.islower
UPPER = 1 << 3  # str.isupper
DIGIT = 1 << 4  # 0-9
ALNUM = 1 << 5  # str.isalnum
MARK = 1 << 6  # category M
WORD = 1 << 7  # letters, digits, marks, "_"
# the word rule's prefixes and suffixes
PUNCT = 1 << 8
QUOTE = 1 << 9
ICON = 1 << 10  # category So
CURRENCY = 1 << 11
DASH_LIKE = 1 << 12  # § % = — –
HYPHEN = 1 << 13
NOT_ALPHA = 1 << 14
NOT_DIGIT = 1 << 15
NOT_SYMBOL = 1 << 16  # what makes a word of Gopher's count
NOT_PUNCT = 1 << 17  # not of category P
TERMINAL = 1 << 18  # Unicode's Sentence_Terminal
NUMERIC = 1 << 19  # str.isnumeric
LINE_END = 1 << 20  # where str.splitlines splits, but for "\n"
ASCII_PUNCT = 1 << 21  # string.punctuation
ASCII_LETTER = 1 << 22
BULLET = 1 << 23  # RedPajama's bullet points
FORMAT = 1 << 24  # category Cf
UNSPACED = 1 << 25  # a chunk with it is cut as one of a script without spaces
SEGMENT_SHIFT = 26  # what it is there
HAN, HIRAGANA, KATAKANA, KANA_MARK, CLUSTER, FOLLOWING, LEADING, BURMESE, TSHEG = range(1, 10)

LIMIT = 0x33480
_BEYOND = NOT_ALPHA | NOT_DIGIT | NOT_SYMBOL | NOT_PUNCT
_SELECTOR = _BEYOND | MARK | WORD
_TAG = _BEYOND | FORMAT
_IDEOGRAPH = _BEYOND | UNSPACED | HAN << SEGMENT_SHIFT

BULLETS = "•‣▶◀◦■□▪▫–"
_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


# Kernels that only look at the arrays they are given need no reference counts, and every count is an atomic operation: without
# them a call of a small function with ten arrays costs nanoseconds rather than a hundred of them.
kernel: Any = numba.njit(cache=True, nogil=True, _nrt=False)  # type: ignore[call-overload]
# for what is called for every word or chunk: handing its arrays over costs more than the call
inline_kernel: Any = numba.njit(cache=True, nogil=True, _nrt=False, forceinline=True)  # type: ignore[call-overload]


@functools.lru_cache(maxsize=1)
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(bits, lower): uint32 arrays of `LIMIT` entries; `lower` is the lower case where that is one code point."""
    from curate import lexicon

    bits = np.zeros(LIMIT, np.uint32)
    lower = np.arange(LIMIT, dtype=np.uint32)
    category = unicodedata.category
    for cp in range(LIMIT):
        c = chr(cp)
        kind = category(c)
        value = NOT_DIGIT | NOT_SYMBOL | (0 if kind[0] == "P" else NOT_PUNCT)
        if c.isalpha():
            value |= ALPHA | ALNUM | WORD
        else:
            value |= NOT_ALPHA
            if c.isalnum():
                value |= ALNUM | WORD
            elif kind[0] == "M":
                value |= MARK | WORD
            elif kind == "So":
                value |= ICON
            elif kind == "Cf":
                value |= FORMAT
            if c.isspace():
                value |= SPACE
            if c.isnumeric():
                value |= NUMERIC
        if c.islower():
            value |= LOWER
        else:
            value |= UPPER if c.isupper() else 0
            if len(small := c.lower()) == 1:
                lower[cp] = ord(small)
        if value & ALPHA and c.isnumeric():
            value |= NUMERIC
        bits[cp] = value

    def mark(characters: str, bit: int) -> None:
        bits[list(map(ord, characters))] |= np.uint32(bit)

    mark(lexicon.QUOTES, QUOTE)
    mark(lexicon.PUNCT, PUNCT)
    mark("".join(c for c in lexicon.CURRENCY if len(c) == 1), CURRENCY)
    mark("".join(c for c in lexicon.HYPHENS if len(c) == 1), HYPHEN)
    mark("§%=—–", DASH_LIKE)
    mark(lexicon.SENTENCE_TERMINALS, TERMINAL)
    mark(_LINE_ENDS, LINE_END)
    mark("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", ASCII_PUNCT)
    mark("_", WORD)
    mark(BULLETS, BULLET)
    mark("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", ASCII_LETTER)
    mark("0123456789", DIGIT)
    bits[48:58] &= ~np.uint32(NOT_DIGIT)
    bits[list(map(ord, lexicon.SYMBOLS))] &= ~np.uint32(NOT_SYMBOL)

    def segment(spans: lexicon.Spans, kind: int, letters: bool) -> None:
        for low, high in spans:
            at = np.arange(low, min(high + 1, LIMIT))
            at = at[bits[at] & ALPHA != 0] if letters else at
            bits[at] = bits[at] & np.uint32((1 << SEGMENT_SHIFT) - 1) | np.uint32(UNSPACED | kind << SEGMENT_SHIFT)

    def spans(characters: str) -> lexicon.Spans:
        return tuple((ord(c), ord(c)) for c in characters)

    segment(lexicon.HAN, HAN, letters=False)
    segment(lexicon.HIRAGANA, HIRAGANA, letters=False)
    segment(lexicon.KATAKANA, KATAKANA, letters=False)
    segment(spans(lexicon.KANA_MARKS), KANA_MARK, letters=False)
    segment(lexicon.CLUSTERS, CLUSTER, letters=True)
    segment(lexicon.BURMESE, BURMESE, letters=True)
    segment(spans(lexicon.FOLLOWING), FOLLOWING, letters=True)
    segment(spans(lexicon.LEADING), LEADING, letters=True)
    segment(lexicon.TIBETAN, 0, letters=True)
    bits[list(map(ord, lexicon.TSHEG))] |= np.uint32(TSHEG << SEGMENT_SHIFT)
    return bits, lower


@kernel
def decode(data, at, end):
    """(code point, bytes) of the character at `at`; what is cut off by `end` counts as one byte."""
    c = np.int64(data[at])
    if c < 0x80:
        return c, 1
    if c < 0xE0:
        if at + 1 < end:
            return (c & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, 2
    elif c < 0xF0:
        if at + 2 < end:
            return (c & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, 3
    elif at + 3 < end:
        high = (c & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
        return high | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F, 4
    return c, 1


@kernel
def bits_of(bits, cp):
    """The bits of a code point."""
    if cp < LIMIT:
        return np.int64(bits[cp])
    if cp <= 0x3FFFD:
        return np.int64(_IDEOGRAPH)
    if 0xE0100 <= cp <= 0xE01EF:
        return np.int64(_SELECTOR)
    if cp == 0xE0001 or 0xE0020 <= cp <= 0xE007F:
        return np.int64(_TAG)
    return np.int64(_BEYOND)


@kernel
def before(data, start, end):
    """Start of the character that ends at `end`."""
    at = end - 1
    while at > start and data[at] & 0xC0 == 0x80:
        at -= 1
    return at
