"""Lines and paragraphs of texts as 64-bit keys of what is left of them when case and spacing are folded, and texts rebuilt
without some of them.

Lines are what "\\n" separates, as `str.split("\\n")` has it: what stays keeps its bytes, a "\\r" before the end included. A
line is blank if it holds nothing but whitespace. A unit is a line that is not blank, or a block: a run of such lines. Its key
is a chain of multiplications over its folded characters, eight bytes at a time (the first is the lowest), begun with the seed
of its text, so that units of texts with different seeds (hosts) are different; 0 stands for a unit that is left alone. Units
are numbered within their text.

All texts are valid UTF-8.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np

from curate.kernels.chars import ALPHA, LIMIT, MARK, NOT_PUNCT, NUMERIC, bits_of, decode, inline_kernel, kernel, tables
from curate.kernels.chars import SPACE as SPACE_BIT
from curate.kernels.hashes import finish
from curate.kernels.urls import hash_backward
from curate.kernels.words import SPACE, space_at

NOWHERE = np.uint64(0xFFFFFFFFFFFFFFFF)  # an address that no unit has
_ROW = np.uint64(32)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # those of splitmix64
_ZERO, _ONE, _TWO, _THREE, _SEVEN, _EIGHT, _S32 = (np.uint64(n) for n in (0, 1, 2, 3, 7, 8, 32))
KEEP, EMPTY, REMOVE, ASIDE, SURE = 0, 1, 2, 3, 4
SHORT = 16  # bytes of a heading, or less

# what `Folding.ascii` holds besides the folded byte: whether it counts towards `least`, and whether it is passed over
_WORTH, _SKIP, _WIDE = 1 << 8, 1 << 9, -1


class Folding(NamedTuple):
    """What counts as the same. ascii: what each byte counts as, with flags; -1 for those of longer characters.

    least: letters and marks that a unit must have, lest it be left alone. blocks: whether units are blocks.
    """

    ascii: np.ndarray
    bits: np.ndarray
    lower: np.ndarray
    case: bool
    digits: bool
    punctuation: bool
    blocks: bool
    least: int


@functools.lru_cache(maxsize=16)
def folding(case: bool, digits: bool, punctuation: bool, blocks: bool, least: int) -> Folding:
    """Whether to ignore case, which digit it is, punctuation; whether units are blocks; and `least`."""
    bits, lower = tables()
    fold = np.full(256, _WIDE, np.int64)
    for cp in range(128):
        c = chr(cp)
        folded = " " if c.isspace() else c.lower() if case else c
        folded = "0" if digits and c.isdigit() else folded
        skip = punctuation and not bits[cp] & NOT_PUNCT
        fold[cp] = ord(folded) + _WORTH * c.isalpha() + _SKIP * skip
    return Folding(fold, bits, lower, case, digits, punctuation, blocks, least)


@inline_kernel
def _key(data, start, end, seed, folding, words, folded):  # type: ignore[no-untyped-def]
    """The key of a unit, or 0. words, folded: the same memory, as uint64 and as bytes."""
    n, worth, space = np.uint64(0), 0, np.int64(1)  # space: whether one was written last, or nothing yet
    at = start
    while at < end:
        c = folding.ascii[data[np.uint64(at)]]
        if c >= 0:  # without branches, since one byte in five or so is a space
            worth += c >> 8 & 1
            skip, blank = c >> 9, np.int64(c & 255 == 32)
            folded[n] = c & 255
            n += np.uint64(1 - (skip | blank & space))
            space = space & skip | blank
            at += 1
            continue
        c, width = decode(data, at, end)
        at += width
        kind = bits_of(folding.bits, c)
        worth += kind & (ALPHA | MARK) != 0
        if folding.punctuation and not kind & NOT_PUNCT:
            continue
        if kind & SPACE_BIT or (folding.digits and kind & NUMERIC and not kind & ALPHA):
            blank = np.int64(kind & SPACE_BIT != 0)
            folded[n] = 32 if blank else 48
            n += np.uint64(1 - (blank & space))
            space = blank
            continue
        if folding.case and c < LIMIT:
            c = np.int64(folding.lower[c])
        space = np.int64(0)
        if c < 128:  # the Kelvin sign
            folded[n] = c
            n += _ONE
            continue
        folded[n] = 128 | c >> 16  # three bytes, of which the first is no ASCII
        folded[n + _ONE] = c >> 8 & 255
        folded[n + _TWO] = c & 255
        n += _THREE
    if worth < folding.least:
        return _ZERO
    if space and n:
        n -= _ONE
    for i in range(n, n + _EIGHT):
        folded[i] = 0
    h = seed ^ n * _M1
    for i in range((n + _SEVEN) >> _THREE):
        h = (h ^ words[i]) * _M2
        h ^= h >> _S32
    return max(finish(h), _ONE)


@kernel
def _lines(data, start, end, begins, stops, blank):  # type: ignore[no-untyped-def]
    """Writes begin, end and blankness of the lines of a text; returns how many there are."""
    n, at = 0, start
    while True:
        begins[n] = at
        while at < end:
            width = space_at(data, at, end) if SPACE[data[np.uint64(at)]] else 0
            if width == 0 or data[np.uint64(at)] == 10:
                break
            at += width
        blank[n] = at == end or data[np.uint64(at)] == 10
        while at < end:
            i = np.uint64(at)
            if at + 4 <= end and (data[i] != 10) & (data[i + _ONE] != 10) & (data[i + _TWO] != 10) & (data[i + _THREE] != 10):
                at += 4
            elif data[i] == 10:
                break
            else:
                at += 1
        stops[n] = at
        n += 1
        if at == end:
            return n
        at += 1


@kernel
def _most_lines(offsets, data):  # type: ignore[no-untyped-def]
    """(lines of all texts; lines of the text with the most; uint64 that the folded longest text fills at most)."""
    total, most, longest = 0, 0, 0
    for i in range(len(offsets) - 1):
        longest = max(longest, int(offsets[i + 1]) - int(offsets[i]))
        n = 1
        for at in range(offsets[i], offsets[i + 1]):
            n += data[np.uint64(at)] == 10
        total += n
        most = max(most, n)
    return total, most, (longest + longest // 2) // 8 + 2


@kernel
def _unit_end(blank, first, n, blocks):  # type: ignore[no-untyped-def]
    """Number of the line after a unit that begins with line `first`."""
    after = first + 1
    while blocks and after < n and not blank[after]:
        after += 1
    return after


@kernel
def _fresh(slots, stamps, stamp, key):  # type: ignore[no-untyped-def]
    """Whether a key is new under this stamp. The table has a power of two of slots, half of them free."""
    mask = np.uint64(len(slots) - 1)
    place = key & mask
    while stamps[place] == stamp:
        if slots[place] == key:
            return False
        place = (place + _ONE) & mask
    slots[place] = key
    stamps[place] = stamp
    return True


@numba.njit(cache=True, nogil=True)
def unit_keys(
    offsets: np.ndarray, data: np.ndarray, seeds: np.ndarray, wanted: np.ndarray, folding: Folding, distinct: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(uint64 key, uint32 text, uint32 unit) of all units with a key, in order.

    seeds: uint64 for each text. wanted: bool for each text, of which the others have no units. distinct: a key that repeats
    within a text is given once, where it stands first.
    """
    total, most, longest = _most_lines(offsets, data)
    words = np.empty(longest, np.uint64)
    folded = words.view(np.uint8)
    keys, texts, units = np.empty(total, np.uint64), np.empty(total, np.uint32), np.empty(total, np.uint32)
    begins, stops, blank = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.bool_)
    size = 4
    while distinct and size < 2 * most:
        size *= 2
    slots, stamps = np.empty(size, np.uint64), np.full(size, -1, np.int32)
    found = 0
    for i in range(len(offsets) - 1):
        if not wanted[i]:
            continue
        n = _lines(data, offsets[i], offsets[i + 1], begins, stops, blank)
        line, unit = 0, 0
        while line < n:
            if blank[line]:
                line += 1
                continue
            after = _unit_end(blank, line, n, folding.blocks)
            key = _key(data, begins[line], stops[after - 1], seeds[i], folding, words, folded)
            if key != 0 and (not distinct or _fresh(slots, stamps, i, key)):
                keys[found], texts[found], units[found] = key, i, unit
                found += 1
            unit += 1
            line = after
    return keys[:found], texts[:found], units[:found]


@numba.njit(cache=True, nogil=True)
def host_keys(starts: np.ndarray, ends: np.ndarray, data: np.ndarray) -> np.ndarray:
    """uint64 for each host, in any case of letters and without a leading `www.`; 0 for one without a dot or colon."""
    keys = np.zeros(len(starts), np.uint64)
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        named = False
        for at in range(start, end):
            named |= data[at] == 46 or data[at] == 58
        if end - start > 4 and data[start + 3] == 46:
            first, second, third = data[start] | 32, data[start + 1] | 32, data[start + 2] | 32
            start += 4 * (first == 119 and second == 119 and third == 119)
        if named:
            keys[i] = max(hash_backward(data[start:end]), _ONE)
    return keys


class Removals(NamedTuple):
    """Keys of units that go: ascending uint64, no two alike; where each value of their top bits begins; and the address
    (row << 32 | unit) of the one that stays all the same, or NOWHERE."""

    keys: np.ndarray
    starts: np.ndarray
    shift: np.uint64
    stays: np.ndarray


def removals(keys: np.ndarray, stays: np.ndarray | None = None) -> Removals:
    """Keys (ascending) as `without` looks them up, about two to a place."""
    bits = max(len(keys).bit_length() - 1, 1)
    shift = np.uint64(64 - bits)
    starts = np.searchsorted(keys, np.arange(1 << bits, dtype=np.uint64) << shift)
    return Removals(
        keys,
        np.append(starts, len(keys)).astype(np.int64),
        shift,
        np.full(len(keys), NOWHERE) if stays is None else stays,
    )


@inline_kernel
def _goes(removals, key, address):  # type: ignore[no-untyped-def]
    place = key >> removals.shift
    for i in range(removals.starts[place], removals.starts[place + _ONE]):
        if removals.keys[i] == key:
            return removals.stays[i] != address
    return False


class Sparing(NamedTuple):
    """What stays although it is frequent. run: a unit goes only in a run of so many that go, or at an end of its text.

    code: whether lines in fences, and those that look like code, stay; headings: whether headings of Markdown stay.
    """

    run: int
    code: bool
    headings: bool


@kernel
def _is_heading(data, at, end):  # type: ignore[no-untyped-def]
    """Whether a line is a heading of Markdown: up to six `#` and a space."""
    begin = at
    while at < end and data[at] == 35:
        at += 1
    return begin < at <= begin + 6 and at < end and data[at] == 32


@kernel
def _fence(data, at, end):  # type: ignore[no-untyped-def]
    """The character of a fence of Markdown that a line is, or 0."""
    while at < end and (data[at] == 32 or data[at] == 62):  # within a list or a quotation
        at += 1
    if at + 3 <= end and (data[at] == 96 or data[at] == 126) and data[at] == data[at + 1] == data[at + 2]:
        return data[at]
    return np.uint8(0)


_IMPORT = np.frombuffer(b"import ", np.uint8)


@kernel
def _begins(data, at, end, word):  # type: ignore[no-untyped-def]
    """Whether a word stands here."""
    k = 0
    while k < len(word) and at + k < end and data[at + k] == word[k]:
        k += 1
    return k == len(word)


@kernel
def _is_code(data, at, end):  # type: ignore[no-untyped-def]
    """Whether a line looks like one of a program, by how it ends, how it begins or a pair of signs in it."""
    while at < end and data[at] <= 32:
        at += 1
    while end > at and data[end - 1] <= 32:
        end -= 1
    if end - at < 2:
        return False
    first, second, last = data[at], data[at + 1], data[end - 1]
    if last in (123, 125, 59, 44, 40, 91, 92, 61):  # { } ; , ( [ \ =
        return True
    if first in (64, 92, 35) or (first == 47 and second == 47) or (first == 36 and second == 32):  # @ \ # // and a prompt
        return True
    if (first == 62 or first == 46) and second == first and at + 2 < end and data[at + 2] == first:  # >>>
        return True
    if second == 109 and first == 105 and _begins(data, at, end, _IMPORT):
        return True
    if last == 58 and data[end - 2] == 41:  # ):
        return True
    for i in range(at, end - 1):
        a, b = data[i], data[i + 1]
        if a == 32 and (
            (b == 61 and i + 2 < end and data[i + 2] == 32)
            or (b == 105 and first == 102 and _begins(data, i + 1, end, _IMPORT))
        ):
            return True  # an assignment; from … import
        if b == 62 and (a == 45 or a == 61):  # -> =>
            return True
        if (a == 40 and b == 41) or (a == 58 and b == 58) or (a == 60 and b == 47):  # () :: </
            return True
        if b == 61 and (a == 61 or a == 33 or a == 60 or a == 62):  # == != <= >=
            return True
    return False


@kernel
def _spared(kind, begins, stops, n, run):  # type: ignore[no-untyped-def]
    """Leaves those lines to go that do so in a run, or at an end; returns how many stay after all.

    Lines that are never counted (blank ones, and those with too few letters) do not end a run. A short line that is alone at
    an end stays: a heading. From an end, one line that stays is passed if two that go follow it: a title below the menu.
    """
    line = 0
    while line < n:
        if kind[line] != REMOVE:
            line += 1
            continue
        after, going = line, 0
        while after < n and kind[after] != KEEP:
            going += kind[after] == REMOVE
            after += 1
        if going >= run:
            for k in range(line, after):
                if kind[k] == REMOVE:
                    kind[k] = SURE
        line = after
    for step in (1, -1):
        line = 0 if step > 0 else n - 1
        begun = False
        while 0 <= line < n:
            if kind[line] == KEEP or not begun:
                going, k, size = 0, line + step * (kind[line] == KEEP), np.int64(0)
                while 0 <= k < n and kind[k] != KEEP and going < 2:
                    if kind[k] == REMOVE or kind[k] == SURE:
                        going += 1
                        size += stops[k] - begins[k]
                    k += step
                if going < 2 and (kind[line] == KEEP or size < SHORT):
                    break
                begun = True
            if kind[line] == REMOVE:
                kind[line] = SURE
            line += step
    stay = 0
    for line in range(n):
        if kind[line] == REMOVE:
            kind[line] = KEEP
            stay += 1
        elif kind[line] == ASIDE:
            kind[line] = KEEP
        elif kind[line] == SURE:
            kind[line] = REMOVE
    return stay


@numba.njit(cache=True, nogil=True)
def without(
    offsets: np.ndarray,
    data: np.ndarray,
    seeds: np.ndarray,
    rows: np.ndarray,
    removals: Removals,
    folding: Folding,
    sparing: Sparing,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(int32 offsets, uint8 bytes) of the texts without the units that go; uint32 units and uint32 bytes that went, by text.

    rows: uint32 for each text, its part in addresses. sparing: of lines, not of blocks. If no unit goes, the bytes are not
    copied, and empty. Where units went, of the runs of blank lines around them the first stays, none at the ends of the text.
    """
    texts = len(offsets) - 1
    _, most, longest = _most_lines(offsets, data)
    words = np.empty(longest, np.uint64)
    folded = words.view(np.uint8)
    begins, stops, kind = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.uint8)
    blank = np.empty(most, np.bool_)
    units_gone, bytes_gone = np.zeros(texts, np.uint32), np.zeros(texts, np.uint32)
    bounds = np.zeros(texts + 1, np.int32)
    out = np.empty(0, np.uint8)
    first = np.int64(offsets[0])
    written = np.int64(0)
    changed = False
    for i in range(texts):
        start, end = np.int64(offsets[i]), np.int64(offsets[i + 1])
        n = _lines(data, start, end, begins, stops, blank)
        line, unit, gone = 0, np.uint64(0), 0
        fence = np.uint8(0)
        while line < n:
            if blank[line]:
                kind[line] = EMPTY
                line += 1
                continue
            after = _unit_end(blank, line, n, folding.blocks)
            key = _key(data, begins[line], stops[after - 1], seeds[i], folding, words, folded)
            goes = key != 0 and _goes(removals, key, np.uint64(rows[i]) << _ROW | unit)
            spared = fence != 0 or (goes and sparing.headings and _is_heading(data, begins[line], stops[line]))
            if sparing.code:
                found = _fence(data, begins[line], stops[line])
                if found != 0 and (fence == 0 or fence == found):
                    fence, spared = (found if fence == 0 else np.uint8(0)), True
                spared = spared or (goes and _is_code(data, begins[line], stops[line]))
            goes = goes and not spared
            kind[line:after] = REMOVE if goes else ASIDE if key == 0 and not spared and sparing.run > 1 else KEEP
            gone += goes
            unit += _ONE
            line = after
        if gone and sparing.run > 1:
            gone -= _spared(kind, begins, stops, n, sparing.run)
        if gone and not changed:
            changed = True
            out = np.empty(offsets[texts] - first, np.uint8)
            written = start - first
            out[:written] = data[first:start]
        if gone:
            before = written
            written = _rebuilt(data, begins, stops, kind, n, out, written)
            units_gone[i], bytes_gone[i] = gone, end - start - (written - before)
        else:
            if changed:
                out[written : written + end - start] = data[start:end]
            written += end - start
        bounds[i + 1] = written
    return bounds, out[:written] if changed else out, units_gone, bytes_gone


@kernel
def _rebuilt(data, begins, stops, kind, n, out, written):  # type: ignore[no-untyped-def]
    """Writes the lines that stay; returns where the text ends."""
    start, line, any_line = written, 0, False
    while line < n:
        after = line + 1  # lines from `line` to before `after` are copied as they are
        following = after
        if kind[line] != KEEP:
            removed, low, high = False, -1, -1  # low, high: the first run of blank lines
            following = line
            while following < n and kind[following] != KEEP:
                if kind[following] == REMOVE:
                    removed = True
                elif low < 0:
                    low, high = following, following + 1
                elif high == following:
                    high += 1
                following += 1
            after = following
            if removed:
                if low < 0 or line == 0 or following == n:
                    line = following
                    continue
                line, after = low, high
        if any_line:
            out[written] = 10
            written += 1
        any_line = True
        begin, size = np.uint64(begins[line]), np.uint64(stops[after - 1] - begins[line])
        for k in range(size):
            out[np.uint64(written) + k] = data[begin + k]
        written += np.int64(size)
        line = following
    return max(written, start)


def order(keys: np.ndarray, low: int, high: int) -> np.ndarray:
    """Indices (int64) that sort uint64 keys, spread evenly from `low` to `high`, both included; equal ones as they come.

    One pass puts the keys into about half as many buckets as there are keys, where few are left to be put in order.
    """
    found, starts = _bucketed(keys, np.uint64(low), np.uint64(high))
    for b in np.flatnonzero(np.diff(starts) > _MANY):  # a key that stands in many places, mostly
        part = found[starts[b] : starts[b + 1]]
        found[starts[b] : starts[b + 1]] = part[np.argsort(keys[part], kind="stable")]
    return found


_MANY = 64


@numba.njit(cache=True, nogil=True)
def _bucketed(keys: np.ndarray, low: np.uint64, high: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the keys by bucket, in order in those with few; where each bucket begins)."""
    n = len(keys)
    span, shift = high - low, np.uint64(0)
    while span >> shift >= np.uint64(max(n // 2, 2)):  # so a shift is at most 63
        shift += _ONE
    starts = np.zeros(np.int64(span >> shift) + 2, np.int64)
    for i in range(n):
        starts[((keys[i] - low) >> shift) + _ONE] += 1
    for b in range(1, len(starts)):
        starts[b] += starts[b - 1]
    at, found = starts.copy(), np.empty(n, np.int64)
    for i in range(n):
        b = (keys[i] - low) >> shift
        found[at[b]] = i
        at[b] += 1
    for b in range(len(starts) - 1):
        begin, end = starts[b], starts[b + 1]
        if end - begin > _MANY:
            continue
        for i in range(begin + 1, end):
            moved = found[i]
            key, j = keys[moved], i
            while j > begin and keys[found[j - 1]] > key:
                found[j] = found[j - 1]
                j -= 1
            found[j] = moved
    return found, starts
