"""Words of a chunk (a stretch without whitespace) by the rules of `curate.lexicon`, over UTF-8 bytes.

Plain chunks (letters alone, digits alone, letters and one mark) are dealt with by the caller; what comes here is the tenth
with hyphens, apostrophes, brackets, URLs, units, or scripts without spaces. A word is written as its hash and a number
`characters << 4 | flags`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection

import numpy as np

from curate.kernels.chars import (
    ALNUM,
    ALPHA,
    BURMESE,
    CLUSTER,
    CURRENCY,
    DASH_LIKE,
    DIGIT,
    FOLLOWING,
    FORMAT,
    HAN,
    HIRAGANA,
    HYPHEN,
    ICON,
    KANA_MARK,
    KATAKANA,
    LEADING,
    LOWER,
    MARK,
    NOT_PUNCT,
    NOT_SYMBOL,
    PUNCT,
    QUOTE,
    SEGMENT_SHIFT,
    TERMINAL,
    TSHEG,
    UPPER,
    inline_kernel,
    kernel,
)

HAS_LETTER, IS_REAL, ENDS_SENTENCE, ALL_PUNCT = 1, 2, 4, 8
FLAG_BITS = 4

# A polynomial over bytes modulo 2^64: of any stretch of a chunk it follows from two heads of the chunk, without looking at it.
SEED, BASE = np.uint64(0xCBF29CE484222325), np.uint64(0xD6E8FEB86659FD93)
POWERS = np.array([pow(int(BASE), n, 1 << 64) for n in range(64)], np.uint64)
SPREAD = np.uint64(0x9E3779B97F4A7C15)
LONGEST = 32  # bytes: no exception is longer


def hash_bytes(text: str | bytes) -> int:
    """The hash that the kernels give a word."""
    value = int(SEED)
    for byte in text.encode() if isinstance(text, str) else text:
        value = (value * int(BASE) + byte) & (1 << 64) - 1
    return value


def table(hashes: Collection[int]) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """(filter, keys, slot of each hash) of a set of hashes, for `find`.

    filter: 2^16 bits in uint8, by the top bits of the hash, set where one may be; keys: uint64, open addressing, 0 for empty.
    """
    size = 16
    while size < 4 * len(hashes):
        size *= 2
    maybe, keys, slots = np.zeros(1 << 13, np.uint8), np.zeros(size, np.uint64), {}
    for value in hashes:
        spread = value * int(SPREAD) & (1 << 64) - 1
        maybe[spread >> 51] |= 1 << (spread >> 48 & 7)
        at = spread >> 32 & size - 1
        while keys[at]:
            at = at + 1 & size - 1
        keys[at] = value
        slots[value] = at
    return maybe, keys, slots


@inline_kernel
def find(value, maybe, keys):
    """Slot of a hash in a table, or -1."""
    spread = value * SPREAD
    if not maybe[spread >> np.uint64(51)] >> np.uint8((spread >> np.uint64(48)) & np.uint64(7)) & 1:
        return np.int64(-1)
    last = np.uint64(len(keys) - 1)
    at = (spread >> np.uint64(32)) & last
    while keys[at] != 0:
        if keys[at] == value:
            return np.int64(at)
        at = (at + np.uint64(1)) & last
    return np.int64(-1)


@functools.lru_cache(maxsize=1)
def exceptions() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(filter, keys, cuts, units): the table of English exceptions, and the hashes of units.

    cuts: (keys, 2) uint8, lengths in bytes of the first and second word, 0 for none; units: uint64, sorted.
    """
    from curate.lexicon import UNITS, english_exceptions

    listed = {hash_bytes(chunk): words for chunk, words in english_exceptions().items()}
    maybe, keys, slots = table(listed)
    cuts = np.zeros((len(keys), 2), np.uint8)
    for value, words in listed.items():
        cuts[slots[value], : len(words) - 1] = [len(word.encode()) for word in words[:-1]]
    return maybe, keys, cuts, np.array(sorted(map(hash_bytes, UNITS)), np.uint64)


@kernel
def is_letter(k):
    return k & (ALPHA | MARK) != 0


@kernel
def is_lower(k):
    """A letter that is not upper case: letters without case are both."""
    return k & (ALPHA | MARK) != 0 and k & UPPER == 0


@kernel
def is_upper(k):
    return k & (ALPHA | MARK) != 0 and k & LOWER == 0


@kernel
def hash_range(data, start, end):
    value = SEED
    for i in range(start, end):
        value = value * BASE + np.uint64(data[i])
    return value


@kernel
def hash_between(heads, pos, low, high):
    """Hash of the characters low..high of a chunk."""
    size = pos[high] - pos[low]
    power = POWERS[size & 63]
    for _ in range(size >> 6):
        power *= POWERS[63] * BASE
    return heads[high] - (heads[low] - SEED) * power


@kernel
def _put(heads, cls, pos, low, high, words, hashes, infos):
    """Write the word of characters low..high."""
    seen = np.int64(0)
    for i in range(low, high):
        seen |= cls[i]
    flags = 0
    if seen & ALPHA:
        flags |= HAS_LETTER
    if seen & NOT_SYMBOL:
        flags |= IS_REAL
    if not seen & NOT_PUNCT:
        flags |= ALL_PUNCT
    if high - low == 1 and seen & TERMINAL:
        flags |= ENDS_SENTENCE
    hashes[words] = hash_between(heads, pos, low, high)
    infos[words] = (high - low) << FLAG_BITS | flags
    return words + 1


@kernel
def _exception(heads, pos, low, high, maybe, keys):
    if high == low or pos[high] - pos[low] > LONGEST:
        return -1
    return find(hash_between(heads, pos, low, high), maybe, keys)


@kernel
def _dots(cps, low, high):
    n = 0
    while low + n < high and cps[low + n] == 46:
        n += 1
    return n


@kernel
def _prefix(cps, cls, low, high):
    """Characters of the prefix of low..high."""
    c, k = cps[low], cls[low]
    if k & (PUNCT | QUOTE | ICON | CURRENCY | DASH_LIKE):
        return 1
    if c == 43:
        return 0 if low + 1 < high and cls[low + 1] & DIGIT else 1
    if c == 46:
        n = _dots(cps, low, high)
        return n if n > 1 else 0
    if c == 85 and low + 2 < high and cps[low + 1] == 83 and cps[low + 2] == 36:
        return 3
    if (c == 65 or c == 67) and low + 1 < high and cps[low + 1] == 36:
        return 2
    return 0


@kernel
def _suffix(heads, cps, cls, pos, low, high, units):
    """Characters of the suffix of low..high: of several that fit, the longest."""
    if low >= high:
        return 0
    c, k = cps[high - 1], cls[high - 1]
    longest = 0
    if c == 0x2026:
        return 2 if high - low > 1 and cps[high - 2] == 0x2026 else 1
    if k & (PUNCT | QUOTE | ICON) or c == 0x2014 or c == 0x2013:
        longest = 1
    second = cps[high - 2] if high - low > 1 else 0
    of_second = cls[high - 2] if high - low > 1 else 0
    if c == 46:
        if second == 46:
            n = 2
            while high - n > low and cps[high - n - 1] == 46:
                n += 1
            return n
        two_upper = high - low > 2 and is_upper(of_second) and is_upper(cls[high - 3])
        degrees = high - low > 2 and cps[high - 3] == 0xB0 and (second == 70 or second == 67 or second == 75)
        sign = second == 37 or second == 0xB2 or second == 43 or second == 45 or second == 124
        if is_lower(of_second) or of_second & (DIGIT | PUNCT | QUOTE) or two_upper or degrees or sign:
            longest = 1
    elif (c == 115 or c == 83) and (second == 39 or second == 0x2019):
        longest = 2
    elif c == 43 and of_second & DIGIT:
        longest = 1
    if k & CURRENCY:
        if of_second & DIGIT:
            longest = 1
        elif c == 36 and high - low > 2:
            if (second == 65 or second == 67) and cls[high - 3] & DIGIT:
                longest = 2
            elif second == 83 and cps[high - 3] == 85 and high - low > 3 and cls[high - 4] & DIGIT:
                longest = 3
    if not k & DIGIT:
        at = high - 1
        while at > low and high - at < 6 and not cls[at - 1] & DIGIT:
            at -= 1
        if at > low and cls[at - 1] & DIGIT and high - at > longest:
            tail = hash_between(heads, pos, at, high)
            i = np.searchsorted(units, tail)
            if i < len(units) and units[i] == tail:
                longest = high - at
    return longest


@kernel
def _host_char(cp, k):
    return 0xA1 <= cp <= 0xFFFF or (cp < 128 and k & ALNUM != 0)


@kernel
def _is_host_and_path(cps, cls, low, high):
    at, label, labels = low, low, 0
    while at < high:
        c = cps[at]
        if c == 46:
            if at == label or cps[at - 1] == 45 or cps[at - 1] == 95:
                return False
            if cps[label] == 45 or cps[label] == 95:
                return False
            labels += 1
            label = at + 1
        elif not (_host_char(c, cls[at]) or c == 45 or c == 95):
            break
        at += 1
    if labels == 0 or at == label:
        return False
    name = at - label >= 2
    for i in range(label, at):
        name = name and is_lower(cls[i])
    if not name:  # four octets
        if labels != 3:
            return False
        value, digits = 0, 0
        for i in range(low, at):
            if cps[i] == 46:
                if digits == 0 or value > 255:
                    return False
                value, digits = 0, 0
            elif cls[i] & DIGIT and digits < 3:
                value, digits = value * 10 + cps[i] - 48, digits + 1
            else:
                return False
        if digits == 0 or value > 255:
            return False
    if at < high and cps[at] == 58:
        digits = 0
        at += 1
        while at < high and cls[at] & DIGIT:
            at, digits = at + 1, digits + 1
        if digits < 2 or digits > 5:
            return False
    return at == high or cps[at] == 47 or cps[at] == 63 or cps[at] == 35


@kernel
def _is_url(cps, cls, low, high):
    """Whether low..high is a URL or an address."""
    dot = False
    for i in range(low, high):
        dot = dot or cps[i] == 46
    if not dot:
        return False
    at = low
    while at < high and (cls[at] & ALNUM or cps[at] == 95 or cps[at] == 43 or cps[at] == 46 or cps[at] == 45):
        at += 1
    behind = low
    if at - low >= 2 and at + 2 < high and cps[at] == 58 and cps[at + 1] == 47 and cps[at + 2] == 47:
        behind = at + 3
    for begin in (behind, low):
        if _is_host_and_path(cps, cls, begin, high):
            return True
        for i in range(high - 1, begin, -1):
            if cps[i] == 64 and _is_host_and_path(cps, cls, i + 1, high):
                return True
        if behind == low:
            break
    return False


@kernel
def _infix(cps, cls, at, high):
    """Characters of the infix that begins at `at`; the first and last character of the stretch are no neighbours to it."""
    c, k = cps[at], cls[at]
    if c == 46:
        n = _dots(cps, at, high)
        if n > 1:
            return n
    if c == 0x2026 or k & ICON:
        return 1
    return 0


@kernel
def _infix_between(cps, cls, low, at, high):
    """Characters of the infix at `at` that its neighbours allow, within low..high."""
    n = _infix(cps, cls, at, high)
    if n or at == low or at + 1 >= high:
        return n
    c, before, after = cps[at], cls[at - 1], cls[at + 1]
    if (c == 43 or c == 45 or c == 42 or c == 94) and before & DIGIT and (after & DIGIT or cps[at + 1] == 45):
        return 1
    if c == 46 and (is_lower(before) or before & QUOTE) and (is_upper(after) or after & QUOTE):
        return 1
    if c == 44 and is_letter(before) and is_letter(after):
        return 1
    if cls[at] & HYPHEN and (is_letter(before) or before & DIGIT):
        if is_letter(after):
            return 1
        n = 1
        while n < 3 and at + n < high and cps[at + n] == c:
            n += 1
            if (c == 0x2014 and n > 2) or (c != 45 and c != 0x2014):
                break
            if at + n < high and is_letter(cls[at + n]):
                return n
        return 0
    if c == 58 or c == 60 or c == 62 or c == 61 or c == 47:
        return 1 if (is_letter(before) or before & DIGIT) and is_letter(after) else 0
    return 0


@inline_kernel
def affix_words(heads, english, cps, cls, pos, n, ends, maybe, keys, cuts, units, words, hashes, infos):
    """Words of a chunk of n characters by prefixes, suffixes, exceptions and infixes. ends: scratch for n numbers."""
    low, high, last, found, suffixes, known = 0, n, -1, -1, 0, False
    while low < high and high - low != last:
        if english and not known:
            found = _exception(heads, pos, low, high, maybe, keys)
            if found >= 0:
                break
        last = high - low
        pre = _prefix(cps, cls, low, high)
        if pre and english:
            found = _exception(heads, pos, low + pre, high, maybe, keys)
            if found >= 0:
                words = _put(heads, cls, pos, low, low + pre, words, hashes, infos)
                low += pre
                break
        suf = _suffix(heads, cps, cls, pos, low + pre, high, units)
        if suf and english:
            found = _exception(heads, pos, low, high - suf, maybe, keys)
            if found >= 0:
                ends[suffixes] = high
                suffixes += 1
                high -= suf
                break
        if pre:
            words = _put(heads, cls, pos, low, low + pre, words, hashes, infos)
            low += pre
        known = pre == 0 or suf == 0
        if suf and high - suf >= low:
            ends[suffixes] = high
            suffixes += 1
            high -= suf
    if low < high:
        if found >= 0:
            at = low
            for cut in range(2):
                length = np.int64(cuts[found, cut])
                if length:
                    stop = at
                    while pos[stop] - pos[at] < length:
                        stop += 1
                    words = _put(heads, cls, pos, at, stop, words, hashes, infos)
                    at = stop
            words = _put(heads, cls, pos, at, high, words, hashes, infos)
        elif _is_url(cps, cls, low, high):
            words = _put(heads, cls, pos, low, high, words, hashes, infos)
        else:
            start, at = low, low
            while at < high:
                if cls[at] & ALNUM:
                    at += 1
                    continue
                size = _infix_between(cps, cls, low, at, high)
                if size and at > low:
                    if at > start:
                        words = _put(heads, cls, pos, start, at, words, hashes, infos)
                    words = _put(heads, cls, pos, at, at + size, words, hashes, infos)
                    start = at + size
                at += max(size, 1)
            if start < high:
                words = _put(heads, cls, pos, start, high, words, hashes, infos)
    begin = high
    for i in range(suffixes - 1, -1, -1):
        words = _put(heads, cls, pos, begin, ends[i], words, hashes, infos)
        begin = ends[i]
    return words


_RUN, _CLOSED, _HAN, _HIRAGANA, _KATAKANA, _CLUSTER, _DOTS, _OTHER = range(8)


@kernel
def cluster_words(heads, cps, cls, pos, n, words, hashes, infos):
    """Words of a chunk with characters of scripts that are written without spaces."""
    start, kind = 0, -1
    for at in range(n):
        c, k = cps[at], cls[at]
        segment = k >> SEGMENT_SHIFT
        previous = cps[at - 1] if at else 0
        goes_on, now = False, _OTHER
        if k & (MARK | FORMAT):
            now = _RUN if at == 0 else _OTHER if kind == _DOTS else kind
            goes_on = True
        elif segment == HAN:
            now = _HAN
        elif segment == HIRAGANA:
            now, goes_on = _HIRAGANA, kind == _HIRAGANA
        elif segment == KATAKANA:
            now, goes_on = _KATAKANA, kind == _KATAKANA
        elif segment == KANA_MARK:
            goes_on = kind in (_HIRAGANA, _KATAKANA)
            now = kind if goes_on else _KATAKANA
        elif CLUSTER <= segment <= BURMESE:
            now = _CLUSTER
            if previous == 0x17D2 or previous == 0x1039:
                goes_on = True
            elif kind == _CLUSTER:
                goes_on = segment == FOLLOWING or cls[at - 1] >> SEGMENT_SHIFT == LEADING
                if segment == BURMESE and not goes_on and at + 1 < n:
                    after = cps[at + 1]
                    goes_on = after == 0x103A or (after == 0x1037 and at + 2 < n and cps[at + 2] == 0x103A)
        elif k & ALNUM:
            now, goes_on = _RUN, kind == _RUN
        elif segment == TSHEG:
            goes_on = kind == _RUN
            now = _CLOSED if goes_on else _OTHER
        elif c == 46:
            now, goes_on = _DOTS, kind == _DOTS
        if at and not goes_on:
            words = _put(heads, cls, pos, start, at, words, hashes, infos)
            start = at
        kind = now
    return _put(heads, cls, pos, start, n, words, hashes, infos)
