# mypy: no-check-untyped-defs
# (the types of kernels are numba's)
"""Every signal of `curate.signals` in one pass over the bytes of a text.

The pass goes from whitespace to whitespace. A chunk of letters alone, of digits alone, or of letters and one mark behind them
is a word or two at once, and that is nine chunks of ten; the others go to `curate.kernels.tokens`. Words are kept as hashes,
lines as hashes of their chunks. What is asked of words in a row then works on numbers: equal words get the number of their
first place, and only places whose k-1 words repeat, and whose next place's do, can repeat with k words, so that each length
looks at a fraction of the one before. No Python object is made for a word or a line.
"""

from __future__ import annotations

import functools
import threading
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.kernels.c4 import (
    CITATION,
    CURLY,
    FEW_WORDS,
    JAVASCRIPT,
    LONG_WORD,
    LOREM_IPSUM,
    NO_END,
    POLICY,
    c4_clean,
    c4_ends,
    c4_line,
    c4_triggers,
    next_line,
    strip,
)
from curate.kernels.chars import (
    ALPHA,
    ASCII_LETTER,
    ASCII_PUNCT,
    BULLET,
    DIGIT,
    LINE_END,
    LOWER,
    NOT_ALPHA,
    NOT_DIGIT,
    NOT_PUNCT,
    NOT_SYMBOL,
    NUMERIC,
    PUNCT,
    QUOTE,
    SPACE,
    TERMINAL,
    UPPER,
    WORD,
    before,
    bits_of,
    decode,
    inline_kernel,
    kernel,
    tables,
)
from curate.kernels.chars import (
    UNSPACED as CUT_UNSPACED,
)
from curate.kernels.tokens import (
    ALL_PUNCT,
    BASE,
    ENDS_SENTENCE,
    FLAG_BITS,
    HAS_LETTER,
    IS_REAL,
    SEED,
    SPREAD,
    affix_words,
    cluster_words,
    exceptions,
    find,
    hash_between,
    hash_bytes,
    hash_range,
    table,
)
from curate.kernels.words import offsets_and_bytes
from curate.signals import ENGLISH, FAMILIES, GOPHER_STOP_WORDS, SIGNALS, UNSPACED

COUNTS = [s.name for s in SIGNALS if s.dtype != "float32"]
RATIOS = [s.name for s in SIGNALS if s.dtype == "float32"]
_C: Any = namedtuple("_C", COUNTS)(*range(len(COUNTS)))
_R: Any = namedtuple("_R", RATIOS)(*range(len(RATIOS)))
TOP2, DUP5 = _R.gopher_top_2gram_char_share, _R.gopher_dup_5gram_char_share
RPS_TOP2, RPS_DUP5 = _R.rps_doc_frac_chars_top_2gram, _R.rps_doc_frac_chars_dupe_5grams

# what a pass counts in `tally`
PLAIN, NO_LETTER, ALL_CAPS, STOP, SENTENCES, INSIDE, HASHES, ELLIPSES, FOUND, TEXT = range(10)
GOPHER_STOP, LISTED_STOP = 1, 2

# what a chunk is made of: letters or digits alone, one ASCII mark, both; or anything else
HARD, MARK_ALONE, WORD_ALONE, MARK_WORD, WORD_MARK, WORD_MARK_WORD, APOSTROPHE, POSSESSIVE = range(8)

_WS = np.uint64(0xD6E8FEB86659FD93)
_CHUNK = np.uint64(0xA0761D6478BD642F)
_JAVASCRIPT, _LOREM, _IPSUM = (np.uint64(hash_bytes(w)) for w in ("javascript", "lorem", "ipsum"))

# numbers and flags that are handed on: a bare 0 or True would have numba compile what gets it once more
ZERO, NO, YES = np.int64(0), np.int64(0), np.int64(1)

Scratch = namedtuple(
    "Scratch",
    "cps cls pos heads ends tally sizes met hashes infos bare bare_sizes ids counts here next times kept level sums "
    "slots sieve line_start line_end line_first line_last line_chars line_hash line_word line_size line clean",
)


def _scratch(size: int) -> Any:
    """Room for texts of up to `size` bytes. Pages that a text does not reach are never touched."""

    def some(dtype: Any, n: int = size + 16) -> np.ndarray:
        return np.empty(n, dtype)

    slots = 16
    while slots < 2 * (size + 16):
        slots *= 2
    i32, u32, i64, u64 = np.int32, np.uint32, np.int64, np.uint64
    return Scratch(
        cps=some(i32), cls=some(i64), pos=some(i32), heads=some(u64), ends=some(i32), tally=np.zeros(16, i64),
        sizes=np.zeros(16, i64), met=np.zeros(1 << 16, i64),
        hashes=some(u64), infos=some(i32), bare=some(u64), bare_sizes=some(i32),
        ids=some(u32), counts=some(i32), here=some(u32), next=some(u32), times=some(i32), kept=some(u32),
        level=some(np.uint8), sums=some(i32), slots=some(u32, slots), sieve=some(np.uint8, 4 * slots),
        line_start=some(i32), line_end=some(i32), line_first=some(i32), line_last=some(i32), line_chars=some(i32),
        line_hash=some(u64), line_word=some(i32), line_size=some(i32), line=some(i32), clean=some(np.uint8),
    )  # fmt: skip


Tables = namedtuple("Tables", "bits lower maybe keys cuts units")
Language = namedtuple("Language", "rule ends stop_maybe stop_keys stop_kinds")


# --------------------------------------------------------------------------------------------- words


@inline_kernel
def _meet(slot, kinds, met, tally):
    """Count a word that is a stop word, if Gopher's list has it and this text had it not."""
    tally[FOUND] += kinds[slot] & GOPHER_STOP & (met[slot] != tally[TEXT])
    met[slot] = tally[TEXT]


@inline_kernel
def _word(value, size, seen, words, hashes, infos):
    """Write one word with a letter or a digit."""
    hashes[words] = value
    infos[words] = size << FLAG_BITS | IS_REAL | (HAS_LETTER if seen & ALPHA else 0)
    return words + 1


@inline_kernel
def _mark(c, k, words, hashes, infos, tally):
    """Write an ASCII punctuation mark as a word, and count it as a plain one."""
    hashes[words] = SEED * BASE + np.uint64(c)
    flags = (IS_REAL if k & NOT_SYMBOL else 0) | (0 if k & NOT_PUNCT else ALL_PUNCT) | (ENDS_SENTENCE if k & TERMINAL else 0)
    infos[words] = 1 << FLAG_BITS | flags
    tally[PLAIN] += 1
    tally[NO_LETTER] += 1
    if c == 46 or c == 33 or c == 63:
        tally[INSIDE] = 0
    elif c == 35:
        tally[HASHES] += 1
    elif c == 95 and not tally[INSIDE]:  # the one mark that is a word character
        tally[INSIDE] = 1
        tally[SENTENCES] += 1
    return words + 1


@inline_kernel
def _plain(value, seen, is_word, tally, stop_maybe, stop_keys, stop_kinds, met):
    """Count one plain word of letters or digits. is_word: it is also a word."""
    tally[PLAIN] += 1
    if not seen & ASCII_LETTER:
        tally[NO_LETTER] += 1
    if seen & UPPER and not seen & LOWER:
        tally[ALL_CAPS] += 1
    slot = find(value, stop_maybe, stop_keys)
    if slot >= 0:
        tally[STOP] += stop_kinds[slot] >> 1
        if is_word:
            _meet(slot, stop_kinds, met, tally)
    if not tally[INSIDE]:
        tally[INSIDE] = 1
        tally[SENTENCES] += 1


@kernel
def _upper_and_numeric(data, start, end, bits):
    upper, numeric, at = 0, 0, start
    while at < end:
        cp, width = decode(data, at, end)
        k = bits_of(bits, cp)
        upper += k & UPPER != 0
        numeric += k & NUMERIC != 0
        at += width
    return upper, numeric


@kernel
def _tail(data, start, end, bits):
    """(hash, bits, characters) of a stretch."""
    value, seen, n, at = SEED, np.int64(0), 0, start
    while at < end:
        cp, width = decode(data, at, end)
        seen |= bits_of(bits, cp)
        n += 1
        for i in range(at, at + width):
            value = value * BASE + np.uint64(data[i])
        at += width
    return value, seen, n


@inline_kernel
def _read(data, start, end, counting, bits, cps, cls, pos, heads, tally, stop_maybe, stop_keys, stop_kinds):
    """Decode a chunk: code points, bits, byte offsets and heads of its hash; the last two one more. Returns its characters.

    counting: also count what is counted by characters or by plain words.
    """
    n, at, value, everything = 0, start, SEED, np.int64(0)
    # the plain word at hand, and the dots that stand before a character
    word, begin, seen, dots = np.int64(-1), 0, np.int64(0), 0
    while at < end:
        c = np.int64(data[at])
        pos[n] = at
        heads[n] = value
        if c < 0x80:
            k = np.int64(bits[c])
            value = value * BASE + np.uint64(c)
            at += 1
        else:
            c, width = decode(data, at, end)
            k = bits_of(bits, c)
            for i in range(at, at + width):
                value = value * BASE + np.uint64(data[i])
            at += width
        cps[n], cls[n] = c, k
        everything |= k
        if counting:
            if k & WORD != word:
                if word >= 0:
                    _count_plain(heads, pos, begin, n, word, seen, tally, stop_maybe, stop_keys, stop_kinds)
                word, begin, seen = k & WORD, n, np.int64(0)
            seen |= k
            if k & WORD:
                tally[SENTENCES] += 1 - tally[INSIDE]
                tally[INSIDE] = 1
            elif c == 46:
                tally[INSIDE] = 0
                tally[ELLIPSES] += dots % 3 == 2
            elif c == 33 or c == 63:
                tally[INSIDE] = 0
            elif c == 35:
                tally[HASHES] += 1
            elif c == 0x2026:
                tally[ELLIPSES] += 1
            dots = dots + 1 if c == 46 else 0
        n += 1
    pos[n] = end
    heads[n] = value
    if counting and n:
        _count_plain(heads, pos, begin, n, word, seen, tally, stop_maybe, stop_keys, stop_kinds)
    return n, everything


@kernel
def _count_plain(heads, pos, begin, end, word, seen, tally, stop_maybe, stop_keys, stop_kinds):
    tally[PLAIN] += 1
    tally[NO_LETTER] += seen & ASCII_LETTER == 0
    tally[ALL_CAPS] += seen & UPPER != 0 and seen & LOWER == 0
    if word:
        slot = find(hash_between(heads, pos, begin, end), stop_maybe, stop_keys)
        if slot >= 0:
            tally[STOP] += stop_kinds[slot] >> 1


@inline_kernel
def _hard_chunk(
    data, start, end, rule, counting, bits, maybe, keys, cuts, units, stop_maybe, stop_keys, stop_kinds,
    cps, cls, pos, heads, ends, tally, words, hashes, infos,
):  # fmt: skip
    """Words of a chunk that is not plain."""
    n, seen = _read(data, start, end, counting, bits, cps, cls, pos, heads, tally, stop_maybe, stop_keys, stop_kinds)
    if rule == UNSPACED or (rule != ENGLISH and seen & CUT_UNSPACED):
        return cluster_words(heads, cps, cls, pos, n, words, hashes, infos)
    return affix_words(
        heads, rule == ENGLISH, cps, cls, pos, n, ends, maybe, keys, cuts, units, words, hashes, infos
    )  # fmt: skip


@kernel
def _count_sentences(infos, low, high):
    """Sentences among the words low..high of one line, as spaCy's sentencizer finds them."""
    if high <= low:
        return 0
    sentences, ended = 1, False
    for i in range(low, high):
        info = infos[i]
        if info & ENDS_SENTENCE:
            ended = True
        elif ended and not info & ALL_PUNCT:
            sentences += 1
            ended = False
    return sentences


@kernel
def _sentences_of(data, start, end, language, t, s, words):
    """Sentences of a stretch that is cut into words for this alone, behind the words of the text."""
    first, at = words, start
    while at < end:
        cp, width = decode(data, at, end)
        if bits_of(t.bits, cp) & SPACE:
            at += width
            continue
        begin = at
        while at < end:
            cp, width = decode(data, at, end)
            if bits_of(t.bits, cp) & SPACE:
                break
            at += width
        words = _hard_chunk(
            data, begin, at, language.rule, NO, t.bits, t.maybe, t.keys, t.cuts, t.units, language.stop_maybe,
            language.stop_keys, language.stop_kinds, s.cps, s.cls, s.pos, s.heads, s.ends, s.tally, words, s.hashes, s.infos,
        )  # fmt: skip
    return _count_sentences(s.infos, first, words)


# --------------------------------------------------------------------------------------------- repeats


# Indices are unsigned from here on: for a signed one each access asks whether it counts from the end.
C_LN_C = np.array([0.0, *(c * np.log(c) for c in range(1, 1024))])
_0, _1, _2, _4, _5 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(5)


@kernel
def _room(n):
    """(slots, shift) of a table for n entries."""
    slots, shift = np.uint64(16), np.uint64(60)
    while slots < _2 * n:
        slots, shift = slots << _1, shift - _1
    return slots, shift


@kernel
def _pair(a, b):
    key = np.uint64(a) << np.uint64(32) | np.uint64(b)
    return (key ^ (key >> np.uint64(29))) * SPREAD


@kernel
def _number(hashes, n, slots, sieve, kept, ids, counts, repeats):
    """What repeats among n hashes: (how many differ, the sum of c ln c over the counts c).

    repeats: 1 where a hash stands elsewhere too; ids: the place where such a one stood first; counts: how often that of a
    first place stands. A sieve of counters, two cheap steps for each without a branch, first tells which cannot repeat.
    """
    n = np.uint64(n)
    room, shift = _room(_4 * n)
    sieve[:room] = 0
    for i in range(n):
        at = (hashes[i] * SPREAD) >> shift
        sieve[at] = sieve[at] << 1 | 1
    candidates = _0
    for i in range(n):
        repeats[i] = 0
        kept[candidates] = i
        candidates += np.uint64(sieve[(hashes[i] * SPREAD) >> shift] > 1)
    different = n
    room, shift = _room(candidates)
    slots[:room] = 0
    for j in range(candidates):
        i = kept[j]
        ids[i] = i
        counts[i] = 1
        value = hashes[i]
        at = (value * SPREAD) >> shift
        while True:
            slot = np.uint64(slots[at])
            if slot == _0:
                slots[at] = np.uint64(i) + _1
                break
            first = slot - _1
            if hashes[first] == value:
                ids[i] = first
                counts[first] += 1
                repeats[i] = 1
                repeats[first] = 1
                different -= _1
                break
            at = (at + _1) & (room - _1)
    spread = 0.0
    for j in range(candidates):
        count = counts[kept[j]]
        if count > 1:
            spread += C_LN_C[count] if count < 1024 else count * np.log(np.float64(count))
    return np.int64(different), spread


@kernel
def _in_a_row(words, ids, sums, here, nxt, times, kept, level, sieve, slots, gopher, top, dup):
    """Repeats of 2 to 10 words in a row. ids and level (`repeats`): of `_number`; sums: characters before each word.

    top[k - 2], k = 2..4: characters of the most frequent k words times their count; dup[k - 5], k = 5..10: characters in
    repeats. gopher: as Gopher counts both; else as RedPajama does. The rest is scratch; level ends as the longest repeat
    that begins at a word.
    """
    for i in range(3):
        top[i] = 0
    for i in range(6):
        dup[i] = 0
    if gopher:
        for k in range(2, 5):
            if words >= k:
                top[k - 2] = sums[k] + k - 1
    if words < 2:
        return
    n = np.uint64(words)
    candidates = _0
    for i in range(n - _1):
        kept[candidates] = i
        candidates += np.uint64(level[i] & level[i + _1])
    before = ids
    for k in range(np.uint64(2), np.uint64(11)):
        if k == _2:  # what cannot repeat is sieved out; with more words little is left that does not
            room, shift = _room(_4 * candidates)
            sieve[:room] = 0
            for j in range(candidates):
                p = np.uint64(kept[j])
                at = _pair(ids[p], ids[p + _1]) >> shift
                sieve[at] = sieve[at] << 1 | 1
                nxt[j] = at
            found = _0
            for j in range(candidates):
                kept[found] = kept[j]
                found += np.uint64(sieve[nxt[j]] > 1)
        else:
            found = _0
            for j in range(candidates):
                p = np.uint64(kept[j])
                kept[found] = p
                found += np.uint64(p + k <= n and level[p + _1] >= k - _1)
        candidates = found
        if candidates == _0:
            return
        room, shift = _room(candidates)
        slots[:room] = 0
        for j in range(candidates):
            p = np.uint64(kept[j])
            stem, last = before[p], ids[p + k - _1]
            at = _pair(stem, last) >> shift
            times[p] = 1
            while True:
                slot = np.uint64(slots[at])
                if slot == _0:
                    slots[at] = p + _1
                    nxt[p] = p
                    break
                first = slot - _1
                if before[first] == stem and ids[first + k - _1] == last:
                    nxt[p] = first
                    times[first] += 1
                    break
                at = (at + _1) & (room - _1)
        found = _0
        for j in range(candidates):
            p = np.uint64(kept[j])
            if times[nxt[p]] > 1:
                kept[found] = p
                found += _1
                level[p] = k
        candidates = found
        if candidates == _0:
            return
        if k < _5:
            best, where = 1, _0
            for j in range(candidates):
                p = np.uint64(kept[j])
                if times[nxt[p]] > best:
                    best, where = times[nxt[p]], p
            top[np.int64(k) - 2] = (sums[where + k] - sums[where] + (np.int64(k) - 1 if gopher else 0)) * best
        else:
            behind, chars = _0, 0
            for j in range(candidates):
                p = np.uint64(kept[j])
                if not gopher:
                    chars += sums[p + k] - sums[max(p, behind)]
                    behind = p + k
                elif p >= behind:
                    first = np.uint64(nxt[p])
                    if times[first] < 0:
                        chars += sums[p + k] - sums[p]
                        behind = p + k
                    else:
                        times[first] = -times[first]
            dup[np.int64(k) - 5] = chars
        for j in range(candidates):
            p = np.uint64(kept[j])
            here[p] = nxt[p]
        before = here


@kernel
def _hash_line(data, start, end, bits):
    """The hash that the pass gives a line."""
    value, at = SEED, start
    while at < end:
        cp, width = decode(data, at, end)
        if bits_of(bits, cp) & SPACE:
            value = (value ^ np.uint64(cp)) * _WS
            at += width
            continue
        chunk = SEED
        while at < end:
            cp, width = decode(data, at, end)
            if bits_of(bits, cp) & SPACE:
                break
            chunk = chunk * BASE + np.uint64(data[at])
            for i in range(at + 1, at + width):
                chunk = chunk * BASE + np.uint64(data[i])
            at += width
        value = (value ^ chunk) * _CHUNK
        value ^= value >> np.uint64(31)
    return value


@kernel
def _chars_in(data, start, end):
    chars = 0
    for i in range(start, end):
        chars += data[i] & 0xC0 != 0x80
    return chars


@kernel
def _paragraphs(data, lines, t, s):
    """(paragraphs, those that stood earlier, their characters). Uses s.bare, s.ids, s.counts, s.bare_sizes."""
    line_first, line_last, line_start, line_end = s.line_first, s.line_last, s.line_start, s.line_end
    bare, bare_sizes, line_hash, line_chars = s.bare, s.bare_sizes, s.line_hash, s.line_chars
    first, last = 0, lines - 1
    while first < lines and line_first[first] < 0:
        first += 1
    if first == lines:
        return 1, 0, 0
    while line_first[last] < 0:
        last -= 1
    n, inside = ZERO, False
    for i in range(first, last + 1):
        start, end = line_start[i], line_end[i]
        if start == end:
            inside = False
            continue
        value, chars = line_hash[i], line_chars[i]
        if (i == first and line_first[i] != start) or (i == last and line_last[i] != end):
            start = line_first[i] if i == first else start
            end = line_last[i] if i == last else end
            value, chars = _hash_line(data, start, end, t.bits), _chars_in(data, start, end)
        if not inside:
            bare[n], bare_sizes[n] = value, chars
            n += 1
            inside = True
        else:
            bare[n - 1] = (bare[n - 1] * _CHUNK) ^ value
            bare_sizes[n - 1] += chars + 1
    if n < 2:
        return n, 0, 0
    different, _ = _number(bare, n, s.slots, s.sieve, s.kept, s.ids, s.counts, s.level)
    chars = 0
    for i in range(n):
        if s.level[i] and s.ids[i] != i:
            chars += bare_sizes[i]
    return n, n - different, chars


# --------------------------------------------------------------------------------------------- lines


@kernel
def _ends_in_ellipsis(data, start, end):
    if end - start < 3:
        return False
    c = data[end - 1]
    if c == 46:
        return data[end - 2] == 46 and data[end - 3] == 46
    return c == 0xA6 and data[end - 2] == 0x80 and data[end - 3] == 0xE2


@kernel
def _is_bullet(data, start, end):
    """Gopher's: a bullet or a hyphen."""
    if data[start] == 45:
        return True
    return end - start > 2 and data[start] == 0xE2 and data[start + 1] == 0x80 and data[start + 2] == 0xA2


@kernel
def _c4(data, start, end, words, lines, one_kind, language, t, s, u):
    """C4's lines. one_kind: lines end in "\\n" alone, so that those of the pass, and its words, can be taken."""
    triggers = c4_triggers(data, start, end)
    at, line = start, -1
    line_end, line_word, infos, ends = s.line_end, s.line_word, s.infos, language.ends
    line_first, line_last, line_size = s.line_first, s.line_last, s.line_size
    while at < end:
        line += 1
        if one_kind:
            stop = np.int64(line_end[line])
            after = stop + 1
        else:
            stop, after = next_line(data, at, end)
        if one_kind and (triggers == 0 or triggers & c4_triggers(data, at, stop) == 0):
            size = line_size[line]
            flags = LONG_WORD if size < 0 else 0
            if (size if size >= 0 else ~size) < 3:
                flags |= FEW_WORDS
            if not c4_ends(data, max(np.int64(line_first[line]), at), np.int64(line_last[line]), NO, ends):
                flags |= NO_END
        else:
            flags = c4_line(data, at, stop, triggers, ends)
        u[_C.c4_lines] += 1
        u[_C.c4_lines_long_word] += flags & LONG_WORD != 0
        u[_C.c4_lines_no_end] += flags & NO_END != 0
        u[_C.c4_lines_few_words] += flags & FEW_WORDS != 0
        u[_C.c4_lines_javascript] += flags & JAVASCRIPT != 0
        u[_C.c4_lines_policy] += flags & POLICY != 0
        if not flags & (LONG_WORD | FEW_WORDS):
            ended = not flags & NO_END
            if flags & LOREM_IPSUM:
                u[_C.c4_any_end_lorem_ipsum] += 1
                u[_C.c4_lorem_ipsum] += ended
            if not flags & JAVASCRIPT:
                if flags & CURLY:
                    u[_C.c4_any_end_curly_bracket] += 1
                    u[_C.c4_curly_bracket] += ended
                if not flags & POLICY:
                    if flags & CITATION:
                        size = c4_clean(data, at, stop, s.clean, ZERO)
                        sentences = _sentences_of(s.clean, ZERO, size, language, t, s, words)
                    elif one_kind:
                        sentences = _count_sentences(infos, line_word[line], line_word[line + 1] if line + 1 < lines else words)
                    else:
                        sentences = _sentences_of(data, at, stop, language, t, s, words)
                    u[_C.c4_any_end_lines_kept] += 1
                    u[_C.c4_any_end_sentences] += sentences
                    if ended:
                        u[_C.c4_lines_kept] += 1
                        u[_C.c4_sentences] += sentences
        at = after


# --------------------------------------------------------------------------------------------- a text


@kernel
def _measure(data, start, end, language, t, s, u, r):
    """All signals of one text, but for bad words, into u (counts) and r (ratios)."""
    cps, cls, pos, heads, suffixes, tally, _, met, hashes, infos, bare_hash, bare_sizes = s[:12]
    ids, counts, sums, kept, slots, sieve, level = s.ids, s.counts, s.sums, s.kept, s.slots, s.sieve, s.level
    starts, stops_at, firsts, lasts = s.line_start, s.line_end, s.line_first, s.line_last
    line_chars, line_hashes, line_words, full_lines = s.line_chars, s.line_hash, s.line_word, s.line
    line_sizes = s.line_size
    stop_maybe, stop_keys, stop_kinds = language.stop_maybe, language.stop_keys, language.stop_kinds
    maybe, keys, cuts, units = t.maybe, t.keys, t.cuts, t.units
    tally[:TEXT] = 0
    tally[TEXT] += 1
    words, bares, lines, chars, upper, numeric, newlines = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    odd_ends = False
    bits, lower, rule = t.bits, t.lower, language.rule
    english = rule == ENGLISH
    javascript, lorem, curlies = 0, 0, 0
    was_lorem = False
    # the line at hand
    line_start, line_first, line_last, line_word, line_at, line_hash = start, -1, start, 0, 0, SEED
    line_chunks, line_long = 0, False
    at = start
    while at < end:
        c = np.int64(data[at])
        width = 1
        if c < 0x80:
            k = np.int64(bits[c])
        else:
            c, width = decode(data, at, end)
            k = bits_of(bits, c)
        if k & SPACE:
            chars += 1
            at += width
            if c == 10:
                starts[lines], stops_at[lines] = line_start, at - 1
                firsts[lines], lasts[lines] = line_first, line_last
                line_chars[lines], line_hashes[lines] = chars - 1 - line_at, line_hash
                line_words[lines] = line_word
                lines += 1
                newlines += 1
                line_sizes[lines - 1] = ~line_chunks if line_long else line_chunks
                line_start, line_first, line_last, line_word, line_at, line_hash = at, -1, at, words, chars, SEED
                line_chunks, line_long = 0, False
                continue
            if k & LINE_END:
                odd_ends = True
            line_hash = (line_hash ^ np.uint64(c)) * _WS
            continue
        # a chunk
        begin, value, bare = at, SEED, SEED
        # bits of its characters but ASCII punctuation; the first mark of that, what came before it, and how many there are
        seen, seen_before, value_before = np.int64(0), np.int64(0), SEED
        mark, marks = begin, 0
        behind = 0
        here, stop = np.uint64(at), np.uint64(end)
        while here < stop:
            byte = data[here]
            if byte < 0x80:
                k = np.int64(bits[byte])
                if k & SPACE:
                    break
                if k & ASCII_PUNCT:
                    if marks == 0:
                        mark, value_before, seen_before = np.int64(here), value, seen
                    marks += 1
                    curlies += byte == 123 or byte == 125
                else:
                    bare = bare * BASE + np.uint64(lower[byte])
                    seen |= k
                value = value * BASE + np.uint64(byte)
                here += _1
            else:
                c, width = decode(data, np.int64(here), end)
                k = bits_of(bits, c)
                if k & SPACE:
                    break
                for i in range(np.int64(here), np.int64(here) + width):
                    value = value * BASE + np.uint64(data[i])
                bare = bare * BASE + np.uint64(lower[c] if c < len(lower) else c)
                behind += width - 1
                seen |= k
                here += np.uint64(width)
        at = np.int64(here)
        if seen & (UPPER | NUMERIC):
            more_upper, more_numeric = _upper_and_numeric(data, begin, at, bits)
            upper += more_upper
            numeric += more_numeric
        n = at - begin - behind
        n_bare = n - marks
        chars += n
        if line_first < 0:
            line_first = begin
        line_last = at
        line_chunks += 1
        line_long |= n > 1000
        line_hash = (line_hash ^ value) * _CHUNK
        line_hash ^= line_hash >> np.uint64(31)
        if n_bare:
            bare_hash[bares] = bare
            bare_sizes[bares] = n_bare
            bares += 1
            javascript += bare == _JAVASCRIPT
            lorem += was_lorem and bare == _IPSUM
            was_lorem = bare == _LOREM
        # its words
        letters = not seen & (NOT_ALPHA | CUT_UNSPACED)
        form, c, k = HARD, ZERO, ZERO
        tail, tail_seen, tail_size = value_before, ZERO, ZERO
        if letters or not seen & NOT_DIGIT:
            if marks == 0:
                form = WORD_ALONE
            elif marks == 1 and rule != UNSPACED:
                c = np.int64(data[mark])
                k = np.int64(bits[c])
                if n == 1:
                    form = MARK_ALONE
                elif mark == at - 1:
                    if k & (PUNCT | QUOTE) and c != 95:
                        form = WORD_MARK
                    if c == 46 and data[mark - 1] < 0x80 and bits[data[mark - 1]] & (LOWER | DIGIT):
                        form = WORD_MARK
                elif mark == begin:
                    if k & (PUNCT | QUOTE) and c != 95:
                        form = MARK_WORD
                        tail = hash_range(data, mark + 1, at)
                elif letters and (c == 45 or c == 47 or c == 39):
                    tail, tail_seen, tail_size = _tail(data, mark + 1, at, bits)
                    form = WORD_MARK_WORD
                    if c == 39:
                        possessive = tail_size == 1 and (data[mark + 1] == 115 or data[mark + 1] == 83)
                        form = POSSESSIVE if possessive else APOSTROPHE
        if english and form > MARK_ALONE:
            if find(value, maybe, keys) >= 0:
                form = HARD
            elif form not in (WORD_ALONE, WORD_MARK_WORD):
                stem = tail if form == MARK_WORD else value_before
                form = HARD if find(stem, maybe, keys) >= 0 else form
        if form != HARD:
            if form in (MARK_ALONE, MARK_WORD):
                words = _mark(c, k, words, hashes, infos, tally)
            if form == MARK_ALONE:
                continue
            stem, stem_seen, stem_size = value, seen, n
            if form == MARK_WORD:
                stem, stem_size = tail, n - 1
            elif form == WORD_MARK:
                stem, stem_size = value_before, n - 1
            elif form != WORD_ALONE:
                stem, stem_seen, stem_size = value_before, seen_before, n - 1 - tail_size
            _plain(stem, stem_seen, form != APOSTROPHE, tally, stop_maybe, stop_keys, stop_kinds, met)
            if form == APOSTROPHE:
                stem, stem_seen, stem_size = value, seen, n
            words = _word(stem, stem_size, stem_seen, words, hashes, infos)
            if form in (WORD_MARK, WORD_MARK_WORD):
                words = _mark(c, k, words, hashes, infos, tally)
            if form >= WORD_MARK_WORD:
                if form != WORD_MARK_WORD:
                    tally[PLAIN] += 1
                    tally[NO_LETTER] += 1
                _plain(tail, tail_seen, form == WORD_MARK_WORD, tally, stop_maybe, stop_keys, stop_kinds, met)
                if form == WORD_MARK_WORD:
                    words = _word(tail, tail_size, tail_seen, words, hashes, infos)
                elif form == POSSESSIVE:
                    words = _word(hash_range(data, mark, at), 2, tail_seen, words, hashes, infos)
            continue
        first = words
        words = _hard_chunk(
            data, begin, at, rule, YES, bits, maybe, keys, cuts, units, stop_maybe, stop_keys, stop_kinds,
            cps, cls, pos, heads, suffixes, tally, words, hashes, infos,
        )  # fmt: skip
        for i in range(first, words):
            slot = find(hashes[i], stop_maybe, stop_keys)
            if slot >= 0:
                _meet(slot, stop_kinds, met, tally)
    starts[lines], stops_at[lines] = line_start, end
    firsts[lines], lasts[lines] = line_first, line_last
    line_chars[lines], line_hashes[lines] = chars - line_at, line_hash
    line_words[lines] = line_word
    line_sizes[lines] = ~line_chunks if line_long else line_chunks
    lines += 1
    plain, no_letter, all_caps, stops, sentences = (
        tally[PLAIN],
        tally[NO_LETTER],
        tally[ALL_CAPS],
        tally[STOP],
        tally[SENTENCES],
    )
    numbers, ellipses = tally[HASHES], tally[ELLIPSES]

    u[_C.text_chars] = chars
    u[_C.word_rule] = rule
    u[_C.rps_doc_word_count] = bares
    u[_C.rps_doc_num_sentences] = sentences
    u[_C.rps_lines_javascript_counts] = javascript

    # ---- bare words
    bare_chars = 0
    for i in range(bares):
        sums[i] = bare_chars
        bare_chars += bare_sizes[i]
    sums[bares] = bare_chars
    different, entropy = _number(bare_hash, bares, slots, sieve, kept, ids, counts, level)
    top, dup = s.sizes[0:3], s.sizes[3:9]
    _in_a_row(bares, ids, sums, s.here, s.next, s.times, kept, level, sieve, slots, NO, top, dup)
    if bares:
        r[_R.rps_doc_mean_word_length] = bare_chars / bares
        r[_R.rps_doc_frac_unique_words] = different / bares
        r[_R.rps_doc_unigram_entropy] = np.log(np.float64(bares)) - entropy / bares if different > 1 else 0.0
        r[_R.rps_doc_lorem_ipsum] = lorem / (bare_chars + bares - 1)
        r[_R.rps_lines_numerical_chars_fraction] = numeric / (bare_chars + bares - 1)
        for k in range(3):
            r[RPS_TOP2 + k] = top[k] / bare_chars
        for k in range(6):
            r[RPS_DUP5 + k] = dup[k] / bare_chars
    if plain:
        r[_R.rps_doc_symbol_to_word_ratio] = (numbers + ellipses) / plain
        r[_R.rps_doc_frac_no_alph_words] = no_letter / plain
        r[_R.rps_doc_frac_all_caps_words] = all_caps / plain
        r[_R.rps_doc_stop_word_fraction] = stops / plain
    if chars:
        r[_R.rps_lines_uppercase_letter_fraction] = upper / chars

    # ---- lines at "\n"
    r_lines = lines - (1 if line_start == end else 0)
    blank_free, punctuated, short, ellipsis_lines, ended_lines, dots, bullets = 0, 0, 0, 0, 0, 0, 0
    full = ZERO
    for i in range(lines):
        a, b, first, last = starts[i], stops_at[i], firsts[i], lasts[i]
        if a == b:
            continue
        bare_hash[full] = line_hashes[i]  # the bare words are done with
        full_lines[full] = i
        full += 1
        if first < 0:
            continue
        blank_free += 1
        short += line_chars[i] <= 30
        back = before(data, a, b)
        c, width = decode(data, back, b)
        punctuated += bits_of(bits, c) & TERMINAL != 0
        if last != b:
            back = before(data, first, last)
            c, width = decode(data, back, last)
        ended_lines += c == 46 or c == 33 or c == 63 or c == 0x201D
        ellipsis_lines += _ends_in_ellipsis(data, first, last)
        c, width = decode(data, first, last)
        dots += bits_of(bits, c) & BULLET != 0
        bullets += c == 45 or c == 0x2022
    if r_lines:
        r[_R.rps_doc_frac_lines_end_with_ellipsis] = ellipsis_lines / r_lines
        r[_R.rps_lines_ending_with_terminal_punctuation_mark] = ended_lines / r_lines
        r[_R.rps_lines_num_words] = bares / r_lines
        r[_R.rps_lines_start_with_bulletpoint] = dots / r_lines
    if chars:
        r[_R.rps_doc_curly_bracket] = curlies / chars
    repeated, repeated_chars, repeated_blank = 0, 0, 0
    if full > 1:
        _number(bare_hash, full, slots, sieve, kept, ids, counts, level)
        for i in range(full):
            if level[i] and ids[i] != i:
                repeated += 1
                repeated_chars += line_chars[full_lines[i]]
                if firsts[full_lines[i]] < 0:
                    repeated_blank += line_chars[full_lines[i]]
    if blank_free:
        r[_R.fineweb_line_punct_ratio] = punctuated / blank_free
        r[_R.fineweb_short_line_ratio] = short / blank_free
    if chars > newlines:
        r[_R.fineweb_char_dup_ratio] = (repeated_chars - repeated_blank) / (chars - newlines)
    pieces = full
    if lines > 1:
        leading, trailing = starts[0] == stops_at[0], starts[lines - 1] == stops_at[lines - 1]
        pieces += leading + trailing
        repeated += leading and trailing
    if pieces:
        r[_R.gopher_dup_line_share] = repeated / pieces
    paragraphs, again, again_chars = _paragraphs(data, lines, t, s)
    r[_R.gopher_dup_para_share] = again / paragraphs
    if chars:
        r[_R.gopher_dup_line_char_share] = repeated_chars / chars
        r[_R.gopher_dup_para_char_share] = again_chars / chars

    # ---- lines as splitlines() has them
    if odd_ends:
        r_lines, bullets, ellipsis_lines = 0, 0, 0
        at = start
        while at < end:
            stop, after = next_line(data, at, end)
            first, last = strip(data, at, stop)
            r_lines += 1
            if first < last:
                bullets += _is_bullet(data, first, last)
                ellipsis_lines += _ends_in_ellipsis(data, first, last)
            at = after
    if r_lines:
        r[_R.gopher_bullet_line_share] = bullets / r_lines
        r[_R.gopher_ellipsis_line_share] = ellipsis_lines / r_lines
    _c4(data, start, end, words, lines, not odd_ends, language, t, s, u)

    # ---- words
    total, real, real_chars, with_letter = 0, 0, 0, 0
    for i in range(words):
        info = infos[i]
        size = info >> FLAG_BITS
        sums[i] = total
        total += size
        with_letter += info & HAS_LETTER
        if info & IS_REAL:
            real += 1
            real_chars += size
    sums[words] = total
    u[_C.gopher_words] = real
    if real:
        r[_R.gopher_mean_word_length] = real_chars / real
    _number(hashes, words, slots, sieve, kept, ids, counts, level)
    u[_C.gopher_stop_words] = tally[FOUND]
    if words:
        r[_R.gopher_hash_ratio] = numbers / words
        r[_R.gopher_ellipsis_ratio] = ellipses / words
        r[_R.gopher_alpha_word_share] = with_letter / words
        r[_R.fineweb_new_line_ratio] = newlines / words
    _in_a_row(words, ids, sums, s.here, s.next, s.times, kept, level, sieve, slots, YES, top, dup)
    if chars:
        for k in range(3):
            r[TOP2 + k] = top[k] / chars
        for k in range(6):
            r[DUP5 + k] = dup[k] / chars


@kernel
def _measure_all(data, offsets, which, rules, ends, ends_at, stop_maybe, stop_keys, stop_kinds, stops_at, t, s, u, r):
    for i in range(len(offsets) - 1):
        k = which[i]
        language = Language(
            rules[k],
            ends[ends_at[k] : ends_at[k + 1]],
            stop_maybe[k],
            stop_keys[stops_at[k] : stops_at[k + 1]],
            stop_kinds[stops_at[k] : stops_at[k + 1]],
        )
        _measure(data, np.int64(offsets[i]), np.int64(offsets[i + 1]), language, t, s, u[i], r[i])


# --------------------------------------------------------------------------------------------- from Python


@functools.lru_cache(maxsize=1)
def _tables() -> Any:
    return Tables(*tables(), *exceptions())


@functools.lru_cache(maxsize=512)
def _language(code: str | None) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """(rule, end marks, filter, hashes and kinds of stop words, whether there is a list) of a language."""
    from curate import lexicon

    rule = lexicon.word_rule(code)
    ends = np.array(sorted(set(map(ord, lexicon.end_marks(code or "und")))), np.uint32)
    listed = lexicon.stop_words(code) if code else None
    kinds: dict[int, int] = {}
    for word in listed or ():
        kinds[hash_bytes(word)] = LISTED_STOP | (0 if rule == ENGLISH else GOPHER_STOP)
    if rule == ENGLISH:
        for word in GOPHER_STOP_WORDS:
            kinds[hash_bytes(word)] = kinds.get(hash_bytes(word), 0) | GOPHER_STOP
    maybe, keys, slots = table(kinds)
    values = np.zeros(len(keys), np.uint8)
    for key, kind in kinds.items():
        values[slots[key]] = kind
    return rule, ends, maybe, keys, values, bool(listed)


@kernel
def _count_bad_words(data, start, end, bits, lower, keys, pairs, singles, longest, anywhere):
    """Entries of a list in one text, from the left, the longest of those that begin at a place, without overlap."""
    at, inside, found = start, False, 0
    while at < end:
        c, width = decode(data, at, end)
        k = bits_of(bits, c)
        c = np.int64(lower[c]) if c < len(lower) else c
        if anywhere or not inside:
            second = np.int64(0)
            if at + width < end:
                second, _ = decode(data, at + width, end)
                second = np.int64(lower[second]) if second < len(lower) else second
            if pairs[(c * 31 + second) & 0xFFFF] or singles[c & 0xFFF]:
                value, there, behind, last = SEED, at, -1, np.int64(0)
                for _ in range(longest):
                    if there >= end:
                        break
                    cp, size = decode(data, there, end)
                    value = value * BASE + np.uint64(lower[cp] if cp < len(lower) else cp)
                    there += size
                    free = anywhere or there >= end
                    if not free:
                        following, _ = decode(data, there, end)
                        free = not bits_of(bits, following) & WORD
                    if free:
                        slot = np.searchsorted(keys, value)
                        if slot < len(keys) and keys[slot] == value:
                            behind, last = there, bits_of(bits, cp)
                if behind >= 0:
                    found += 1
                    at, inside = behind, last & WORD != 0
                    continue
        inside = k & WORD != 0
        at += width
    return found


@kernel
def _count_all_bad_words(data, offsets, rows, bits, lower, keys, pairs, singles, longest, anywhere, out):
    for i in rows:
        out[i] = _count_bad_words(
            data, np.int64(offsets[i]), np.int64(offsets[i + 1]), bits, lower, keys, pairs, singles, longest, anywhere
        )


UNSPACED_LISTS = ("ja", "th", "zh")
"""Languages in whose texts C4 finds bad words anywhere, not only between other than word characters."""


@functools.lru_cache(maxsize=64)
def _list(entries: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(hashes, filter by the first two characters, filter of single characters, longest) of a list of bad words."""
    _, lower = tables()
    pairs, singles, keys, longest = np.zeros(1 << 16, np.uint8), np.zeros(1 << 12, np.uint8), set(), 0
    for entry in entries:
        points = [int(lower[cp]) if cp < len(lower) else cp for cp in map(ord, entry)]
        if not points:
            continue
        value = int(SEED)
        for cp in points:
            value = (value * int(BASE) + cp) & (1 << 64) - 1
        keys.add(value)
        longest = max(longest, len(points))
        if len(points) == 1:
            singles[points[0] & 0xFFF] = 1
        else:
            pairs[(points[0] * 31 + points[1]) & 0xFFFF] = 1
    return np.array(sorted(keys), np.uint64), pairs, singles, longest


def _bad_words(
    data: np.ndarray,
    offsets: np.ndarray,
    which: np.ndarray,
    known: Sequence[str | None],
    listed: Mapping[str, Sequence[str]] | None,
) -> pa.Array:
    """c4_bad_words: by the list of a document's language, else by that for all ("*"); null where there is neither."""
    found, missing = np.zeros(len(which), np.uint32), np.ones(len(which), bool)
    for k, code in enumerate(known):
        entries = (listed or {}).get(code or "", (listed or {}).get("*"))
        if entries is None:
            continue
        rows = np.flatnonzero(which == k)
        missing[rows] = False
        keys, pairs, singles, longest = _list(tuple(entries))
        bits, lower = tables()
        _count_all_bad_words(
            data, offsets, rows, bits, lower, keys, pairs, singles, longest, code in UNSPACED_LISTS, found
        )  # fmt: skip
    return pa.array(found, mask=missing)


class _Room(threading.local):
    """Room for the kernel to write in: one a thread, since it runs without the interpreter's lock."""

    scratch: Any = None
    size = 0


_ROOM = _Room()


def compute(
    text: pa.Array,
    languages: pa.Array | Sequence[str | None],
    sets: Sequence[str] = FAMILIES,
    bad_words: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, pa.Array]:
    """The signals of texts, by name, in the order of `curate.signals.SIGNALS`.

    text: string array; null counts as empty. languages: ISO 639-1, else 639-3 codes; null and `und` are unknown. sets:
    families to return. bad_words: words by language, without which `c4_bad_words` is null.
    """
    text = text.fill_null("") if text.null_count else text
    offsets, data = offsets_and_bytes(text)
    n = len(text)
    codes = pa.array(languages, pa.string()) if not isinstance(languages, pa.Array) else languages
    codes = codes.dictionary_encode(null_encoding="encode")
    known = codes.dictionary.to_pylist() or [None]
    rows = [_language(code) for code in known]
    which = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    ends_at = np.cumsum([0, *(len(row[1]) for row in rows)])
    stops_at = np.cumsum([0, *(len(row[3]) for row in rows)])
    longest = int(np.diff(offsets).max(initial=0))
    if _ROOM.scratch is None or _ROOM.size < longest:
        _ROOM.size = max(longest, 1 << 16)
        _ROOM.scratch = _scratch(_ROOM.size)
    u, r = np.zeros((n, len(COUNTS)), np.uint32), np.zeros((n, len(RATIOS)))
    _measure_all(
        data, offsets, which, np.array([row[0] for row in rows], np.int64), np.concatenate([row[1] for row in rows]), ends_at,
        np.stack([row[2] for row in rows]), np.concatenate([row[3] for row in rows]), np.concatenate([row[4] for row in rows]),
        stops_at, _tables(), _ROOM.scratch, u, r,
    )  # fmt: skip
    if longest > 1 << 22:  # one long document must not hold its room for the rest of a run
        _ROOM.scratch, _ROOM.size = None, 0
    listed = np.array([row[5] for row in rows])[which]
    ruled = listed | (np.array([row[0] for row in rows])[which] == ENGLISH)
    counts, ratios = np.asfortranarray(u), np.asfortranarray(r, np.float32)
    columns: dict[str, pa.Array] = {}
    for signal in SIGNALS:
        if signal.family != "base" and signal.family not in sets:
            continue
        mask = None
        if signal.name == "c4_bad_words":
            columns[signal.name] = _bad_words(data, offsets, which, known, bad_words)
            continue
        if signal.name == "gopher_stop_words":
            mask = ~ruled
        elif signal.name == "rps_doc_stop_word_fraction":
            mask = ~listed
        if signal.dtype == "float32":
            values = ratios[:, RATIOS.index(signal.name)]
        else:
            values = counts[:, COUNTS.index(signal.name)].astype(signal.dtype, copy=False)
        columns[signal.name] = pa.array(values, mask=mask)
    return columns
