"""Every signal of `curate.signals` in one pass over the bytes of a text.

The pass goes from whitespace to whitespace. A chunk of letters alone, of digits alone, or of letters and one mark behind them
is a word or two at once, and that is nine chunks of ten; the others go to `curate.kernels.tokens`. Words are kept as hashes,
lines as hashes of their chunks. What is asked of words in a row then works on numbers: equal words get the number of their
first place, and only places whose k-1 words repeat, and whose next place's do, can repeat with k words, so that each length
looks at a fraction of the one before. No Python object is made for a word or a line.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

import numba
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
    LINE_END,
    LOWER,
    NOT_ALPHA,
    NOT_DIGIT,
    NOT_SYMBOL,
    NUMERIC,
    SPACE,
    TERMINAL,
    UPPER,
    WORD,
    UNSPACED as CUT_UNSPACED,
    before,
    bits_of,
    decode,
    tables,
)
from curate.kernels.tokens import (
    ALL_PUNCT,
    ENDS_SENTENCE,
    FLAG_BITS,
    FNV,
    HAS_LETTER,
    IS_REAL,
    PRIME,
    SPREAD,
    affix_words,
    cluster_words,
    exceptions,
    find_exception,
    hash_bytes,
    hash_range,
    read_chunk,
)
from curate.kernels.words import offsets_and_bytes
from curate.signals import ENGLISH, FAMILIES, GOPHER_STOP_WORDS, SIGNALS, UNSPACED

COUNTS = [s.name for s in SIGNALS if s.dtype != "float32"]
RATIOS = [s.name for s in SIGNALS if s.dtype == "float32"]
_C = namedtuple("_C", COUNTS)(*range(len(COUNTS)))
_R = namedtuple("_R", RATIOS)(*range(len(RATIOS)))
TOP2, DUP5 = _R.gopher_top_2gram_char_share, _R.gopher_dup_5gram_char_share
RPS_TOP2, RPS_DUP5 = _R.rps_doc_frac_chars_top_2gram, _R.rps_doc_frac_chars_dupe_5grams

# what a pass counts in `tally`
PLAIN, NO_LETTER, ALL_CAPS, STOP, SENTENCES, INSIDE, HASHES, ELLIPSES, CURLIES = range(9)
GOPHER_STOP, LISTED_STOP = 1, 2

_WS = np.uint64(0xD6E8FEB86659FD93)
_CHUNK = np.uint64(0xA0761D6478BD642F)
_JAVASCRIPT, _LOREM, _IPSUM = (np.uint64(hash_bytes(w)) for w in ("javascript", "lorem", "ipsum"))

Scratch = namedtuple(
    "Scratch",
    "cps cls pos ends tally hashes infos bare bare_sizes ids counts here next times kept made level seen sums slots "
    "line_start line_end line_first line_last line_chars line_hash line_word line clean",
)


def _scratch(size: int) -> Any:
    """Room for texts of up to `size` bytes. Pages that a text does not reach are never touched."""

    def some(dtype: Any, n: int = size + 16) -> np.ndarray:
        return np.empty(n, dtype)

    slots = 16
    while slots < 2 * (size + 16):
        slots *= 2
    i32, i64, u64 = np.int32, np.int64, np.uint64
    return Scratch(
        cps=some(i32), cls=some(i64), pos=some(i32), ends=some(i32), tally=np.zeros(16, i64),
        hashes=some(u64), infos=some(i32), bare=some(u64), bare_sizes=some(i32),
        ids=some(i32), counts=some(i32), here=some(i32), next=some(i32), times=some(i32), kept=some(i32), made=some(i32),
        level=some(np.int8), seen=some(np.int8), sums=some(i64), slots=some(i32, slots),
        line_start=some(i32), line_end=some(i32), line_first=some(i32), line_last=some(i32), line_chars=some(i32),
        line_hash=some(u64), line_word=some(i32), line=some(i32), clean=some(np.uint8),
    )  # fmt: skip


Tables = namedtuple("Tables", "bits lower maybe keys cuts units")
Language = namedtuple("Language", "rule ends stop_keys stop_kinds")


# --------------------------------------------------------------------------------------------- words


@numba.njit(cache=True, nogil=True)
def _stop(value, keys, kinds):
    """Which stop word lists hold the word with this hash."""
    at = np.int64((value * SPREAD) >> np.uint64(50)) & (len(keys) - 1)
    while keys[at] != 0:
        if keys[at] == value:
            return np.int64(kinds[at])
        at = (at + 1) & (len(keys) - 1)
    return np.int64(0)


@numba.njit(cache=True, nogil=True)
def _characters(data, n, cps, cls, pos, tally, stop_keys, stop_kinds):
    """Count, over the characters of a chunk that is not plain, what is counted by characters or by plain words."""
    at = 0
    while at < n:
        begin, seen, word = at, np.int64(0), cls[at] & WORD
        while at < n and cls[at] & WORD == word:
            seen |= cls[at]
            at += 1
        tally[PLAIN] += 1
        if not seen & ASCII_LETTER:
            tally[NO_LETTER] += 1
        if seen & UPPER and not seen & LOWER:
            tally[ALL_CAPS] += 1
        if word and _stop(hash_range(data, pos[begin], pos[at]), stop_keys, stop_kinds) & LISTED_STOP:
            tally[STOP] += 1
    at = 0
    while at < n:
        c = cps[at]
        if c == 46 or c == 33 or c == 63:
            tally[INSIDE] = 0
        elif cls[at] & WORD:
            if not tally[INSIDE]:
                tally[INSIDE] = 1
                tally[SENTENCES] += 1
        elif c == 35:
            tally[HASHES] += 1
        elif c == 0x2026:
            tally[ELLIPSES] += 1
        elif c == 123 or c == 125:
            tally[CURLIES] += 1
        if c == 46 and at + 2 < n and cps[at + 1] == 46 and cps[at + 2] == 46:
            tally[ELLIPSES] += 1
            at += 2
        at += 1


@numba.njit(cache=True, nogil=True)
def _hard_chunk(
    data, start, end, rule, counting, bits, maybe, keys, cuts, units, stop_keys, stop_kinds,
    cps, cls, pos, ends, tally, words, hashes, infos,
):  # fmt: skip
    """Words of a chunk that is not plain."""
    n = read_chunk(data, start, end, bits, cps, cls, pos)
    if counting:
        _characters(data, n, cps, cls, pos, tally, stop_keys, stop_kinds)
    cut = rule == UNSPACED
    if rule != ENGLISH:
        for i in range(n):
            cut = cut or cls[i] & CUT_UNSPACED != 0
    if cut:
        return cluster_words(data, cps, cls, pos, n, words, hashes, infos)
    return affix_words(
        data, rule == ENGLISH, cps, cls, pos, n, ends, maybe, keys, cuts, units, words, hashes, infos
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
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
            data, begin, at, language.rule, False, t.bits, t.maybe, t.keys, t.cuts, t.units, language.stop_keys,
            language.stop_kinds, s.cps, s.cls, s.pos, s.ends, s.tally, words, s.hashes, s.infos,
        )  # fmt: skip
    return _count_sentences(s.infos, first, words)


# --------------------------------------------------------------------------------------------- repeats


@numba.njit(cache=True, nogil=True)
def _room(n):
    """(slots, shift) of a table for n entries."""
    slots, shift = 16, 60
    while slots < 2 * n:
        slots, shift = slots * 2, shift - 1
    return slots, np.uint64(shift)


@numba.njit(cache=True, nogil=True)
def _number(hashes, n, slots, ids, counts):
    """ids: the place where each word stood first; counts: how often the word of a first place stands. Returns how many differ."""
    room, shift = _room(n)
    slots[:room] = -1
    different = 0
    for i in range(n):
        value = hashes[i]
        at = np.int64((value * SPREAD) >> shift)
        while True:
            first = slots[at]
            if first < 0:
                slots[at] = i
                ids[i] = i
                counts[i] = 1
                different += 1
                break
            if hashes[first] == value:
                ids[i] = first
                counts[first] += 1
                break
            at = (at + 1) & (room - 1)
    return different


@numba.njit(cache=True, nogil=True)
def _in_a_row(n, s, gopher, top, dup):
    """Repeats of 2 to 10 words in a row. s.ids, s.counts: of `_number`; s.sums: characters before each word.

    top[k - 2], k = 2..4: characters of the most frequent k words times their count; dup[k - 5], k = 5..10: characters in
    repeats. gopher: as Gopher counts both; else as RedPajama does.
    """
    ids, here, nxt, times, level, seen, sums, slots = s.ids, s.here, s.next, s.times, s.level, s.seen, s.sums, s.slots
    kept, made, counts = s.kept, s.made, s.counts
    for k in range(3):
        top[k] = 0
    for k in range(6):
        dup[k] = 0
    if gopher:
        for k in range(2, 5):
            if n >= k:
                top[k - 2] = sums[k] + k - 1
    for i in range(n):
        here[i] = ids[i]
        level[i] = 1 if counts[ids[i]] > 1 else 0
        seen[i] = 0
    candidates = 0
    for i in range(n - 1):
        kept[candidates] = i
        candidates += level[i] & level[i + 1]
    for k in range(2, 11):
        if candidates == 0:
            return
        room, shift = _room(candidates)
        slots[:room] = -1
        inserted = 0
        for j in range(candidates):
            p = kept[j]
            if p + k > n or level[p + 1] < k - 1:
                continue
            last = ids[p + k - 1]
            key = np.uint64(here[p]) << np.uint64(32) | np.uint64(last)
            key = (key ^ (key >> np.uint64(29))) * SPREAD
            at = np.int64(key >> shift)
            while True:
                first = slots[at]
                if first < 0:
                    slots[at] = p
                    nxt[p] = p
                    times[p] = 1
                    break
                if here[first] == here[p] and ids[first + k - 1] == last:
                    nxt[p] = first
                    times[first] += 1
                    break
                at = (at + 1) & (room - 1)
            made[inserted] = p
            inserted += 1
        candidates = 0
        for j in range(inserted):
            p = made[j]
            if times[nxt[p]] > 1:
                kept[candidates] = p
                candidates += 1
                level[p] = k
        if candidates == 0:
            return
        if k < 5:
            best, where = 1, 0
            for j in range(candidates):
                p = kept[j]
                if times[nxt[p]] > best:
                    best, where = times[nxt[p]], p
            top[k - 2] = (sums[where + k] - sums[where] + (k - 1 if gopher else 0)) * best
        elif gopher:
            behind, chars = 0, 0
            for j in range(candidates):
                p = kept[j]
                if p < behind:
                    continue
                if seen[nxt[p]] == k:
                    chars += sums[p + k] - sums[p]
                    behind = p + k
                else:
                    seen[nxt[p]] = k
            dup[k - 5] = chars
        else:
            behind, chars = 0, 0
            for j in range(candidates):
                p = kept[j]
                chars += sums[p + k] - sums[max(p, behind)]
                behind = p + k
            dup[k - 5] = chars
        for j in range(candidates):
            here[kept[j]] = nxt[kept[j]]


@numba.njit(cache=True, nogil=True)
def _hash_line(data, start, end, bits):
    """The hash that the pass gives a line."""
    value, at = FNV, start
    while at < end:
        cp, width = decode(data, at, end)
        if bits_of(bits, cp) & SPACE:
            value = (value ^ np.uint64(cp)) * _WS
            at += width
            continue
        chunk = FNV
        while at < end:
            cp, width = decode(data, at, end)
            if bits_of(bits, cp) & SPACE:
                break
            chunk = (chunk ^ np.uint64(data[at])) * PRIME
            for i in range(at + 1, at + width):
                chunk = (chunk ^ np.uint64(data[i])) * PRIME
            at += width
        value = (value ^ chunk) * _CHUNK
        value ^= value >> np.uint64(31)
    return value


@numba.njit(cache=True, nogil=True)
def _chars_in(data, start, end):
    chars = 0
    for i in range(start, end):
        chars += data[i] & 0xC0 != 0x80
    return chars


@numba.njit(cache=True, nogil=True)
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
    n, inside = 0, False
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
    different = _number(bare, n, s.slots, s.ids, s.counts)
    chars = 0
    for i in range(n):
        if s.ids[i] != i:
            chars += bare_sizes[i]
    return n, n - different, chars


# --------------------------------------------------------------------------------------------- lines


@numba.njit(cache=True, nogil=True)
def _ends_in_ellipsis(data, start, end):
    if end - start < 3:
        return False
    c = data[end - 1]
    if c == 46:
        return data[end - 2] == 46 and data[end - 3] == 46
    return c == 0xA6 and data[end - 2] == 0x80 and data[end - 3] == 0xE2


@numba.njit(cache=True, nogil=True)
def _is_bullet(data, start, end):
    """Gopher's: a bullet or a hyphen."""
    if data[start] == 45:
        return True
    return end - start > 2 and data[start] == 0xE2 and data[start + 1] == 0x80 and data[start + 2] == 0xA2


@numba.njit(cache=True, nogil=True)
def _c4(data, start, end, words, lines, one_kind, language, t, s, u):
    """C4's lines. one_kind: lines end in "\\n" alone, so that those of the pass, and its words, can be taken."""
    triggers = c4_triggers(data, start, end)
    at, line = start, -1
    line_end, line_word, infos, ends = s.line_end, s.line_word, s.infos, language.ends
    while at < end:
        line += 1
        if one_kind:
            stop = np.int64(line_end[line])
            after = stop + 1
        else:
            stop, after = next_line(data, at, end)
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
                        size = c4_clean(data, at, stop, s.clean, 0)
                        sentences = _sentences_of(s.clean, 0, size, language, t, s, words)
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


@numba.njit(cache=True, nogil=True)
def _measure(data, start, end, language, t, s, u, r):
    """All signals of one text, but for bad words, into u (counts) and r (ratios)."""
    cps, cls, pos, suffixes, tally, hashes, infos, bare_hash, bare_sizes = s[:9]
    ids, counts, sums = s.ids, s.counts, s.sums
    starts, stops_at, firsts, lasts = s.line_start, s.line_end, s.line_first, s.line_last
    line_chars, line_hashes, line_words, full_lines = s.line_chars, s.line_hash, s.line_word, s.line
    stop_keys, stop_kinds = language.stop_keys, language.stop_kinds
    maybe, keys, cuts, units = t.maybe, t.keys, t.cuts, t.units
    tally[:] = 0
    words, bares, lines, chars, upper, numeric, newlines = 0, 0, 0, 0, 0, 0, 0
    odd_ends = False
    bits, lower, rule = t.bits, t.lower, language.rule
    plain, no_letter, all_caps, stops, sentences = 0, 0, 0, 0, 0
    javascript, lorem = 0, 0
    was_lorem = False
    # the line at hand
    line_start, line_first, line_last, line_word, line_at, line_hash = start, -1, start, 0, 0, FNV
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
                line_start, line_first, line_last, line_word, line_at, line_hash = at, -1, at, words, chars, FNV
                continue
            if k & LINE_END:
                odd_ends = True
            line_hash = (line_hash ^ np.uint64(c)) * _WS
            continue
        # a chunk
        begin, value, bare = at, FNV, FNV
        seen, seen_before = np.int64(0), np.int64(0)
        value_before, mark = FNV, -1
        n, n_bare = 0, 0
        while at < end:
            c = np.int64(data[at])
            if c < 0x80:
                k = np.int64(bits[c])
                if k & SPACE:
                    break
                if k & ASCII_PUNCT:
                    if mark < 0:
                        mark, value_before, seen_before = at, value, seen
                else:
                    bare = (bare ^ np.uint64(lower[c])) * PRIME
                    n_bare += 1
                value = (value ^ np.uint64(c)) * PRIME
                at += 1
            else:
                c, width = decode(data, at, end)
                k = bits_of(bits, c)
                if k & SPACE:
                    break
                for i in range(at, at + width):
                    value = (value ^ np.uint64(data[i])) * PRIME
                bare = (bare ^ np.uint64(lower[c] if c < len(lower) else c)) * PRIME
                n_bare += 1
                at += width
            n += 1
            seen |= k
            upper += k & UPPER != 0
            numeric += k & NUMERIC != 0
        chars += n
        if line_first < 0:
            line_first = begin
        line_last = at
        line_hash = (line_hash ^ value) * _CHUNK
        line_hash ^= line_hash >> np.uint64(31)
        if n_bare:
            bare_hash[bares] = bare
            bare_sizes[bares] = n_bare
            bares += 1
            javascript += bare == _JAVASCRIPT
            lorem += was_lorem and bare == _IPSUM
            was_lorem = bare == _LOREM
        # its words: 1 letters or digits alone, 2 letters and a mark
        easy = 0
        if mark < 0:
            if not seen & NOT_ALPHA and not seen & CUT_UNSPACED:
                easy = 1
                if rule == ENGLISH and find_exception(value, maybe, keys) >= 0:
                    easy = 0
            elif not seen & NOT_DIGIT:
                easy = 1
            stem, stem_value, stem_seen = n, value, seen
        else:
            stem, stem_value, stem_seen = n - 1, value_before, seen_before
            if mark == at - 1 and n > 4 and not stem_seen & NOT_ALPHA and not stem_seen & CUT_UNSPACED:
                mark_of = data[mark]
                if mark_of == 44 or mark_of == 58 or mark_of == 59 or mark_of == 33 or mark_of == 63 or mark_of == 41:
                    easy = 2
                elif mark_of == 46:
                    before_it = data[mark - 1]
                    if before_it < 0x80 and bits[before_it] & LOWER:
                        easy = 2
                        if rule == ENGLISH and find_exception(value, maybe, keys) >= 0:
                            easy = 0
                if easy and rule == ENGLISH and find_exception(stem_value, maybe, keys) >= 0:
                    easy = 0
        if easy == 0:
            words = _hard_chunk(
                data, begin, at, rule, True, bits, maybe, keys, cuts, units, stop_keys, stop_kinds,
                cps, cls, pos, suffixes, tally, words, hashes, infos,
            )  # fmt: skip
            continue
        flags = 0
        if stem_seen & ALPHA:
            flags |= HAS_LETTER
        if stem_seen & NOT_SYMBOL:
            flags |= IS_REAL
        hashes[words], infos[words] = stem_value, stem << FLAG_BITS | flags
        words += 1
        plain += 1
        no_letter += not stem_seen & ASCII_LETTER
        all_caps += stem_seen & UPPER != 0 and not stem_seen & LOWER
        stops += _stop(stem_value, stop_keys, stop_kinds) & LISTED_STOP != 0
        if not tally[INSIDE]:
            tally[INSIDE] = 1
            sentences += 1
        if easy == 2:
            c = np.int64(data[mark])
            k = np.int64(bits[c])
            flags = ALL_PUNCT
            if k & TERMINAL:
                flags |= ENDS_SENTENCE
                tally[INSIDE] = 0
            hashes[words], infos[words] = (FNV ^ np.uint64(c)) * PRIME, 1 << FLAG_BITS | flags
            words += 1
            plain += 1
            no_letter += 1
    starts[lines], stops_at[lines] = line_start, end
    firsts[lines], lasts[lines] = line_first, line_last
    line_chars[lines], line_hashes[lines] = chars - line_at, line_hash
    line_words[lines] = line_word
    lines += 1
    plain += tally[PLAIN]
    no_letter += tally[NO_LETTER]
    all_caps += tally[ALL_CAPS]
    stops += tally[STOP]
    sentences += tally[SENTENCES]
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
    different = _number(bare_hash, bares, s.slots, ids, counts)
    top, dup = s.tally[0:3], s.tally[3:9]
    _in_a_row(bares, s, False, top, dup)
    if bares:
        r[_R.rps_doc_mean_word_length] = bare_chars / bares
        r[_R.rps_doc_frac_unique_words] = different / bares
        # over counts, not words: sums of the same terms, whatever the order of words
        entropy = 0.0
        for i in range(bares):
            if ids[i] == i:
                entropy += counts[i] * np.log(np.float64(counts[i]))
        r[_R.rps_doc_unigram_entropy] = max(np.log(np.float64(bares)) - entropy / bares, 0.0)
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
    full = 0
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
        r[_R.rps_doc_curly_bracket] = tally_curlies(data, start, end) / chars
    repeated, repeated_chars, repeated_blank = 0, 0, 0
    if full > 1:
        _number(bare_hash, full, s.slots, ids, counts)
        for i in range(full):
            if ids[i] != i:
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
    _number(hashes, words, s.slots, ids, counts)
    found = 0
    for i in range(words):
        if ids[i] == i and _stop(hashes[i], stop_keys, stop_kinds) & GOPHER_STOP:
            found += 1
    u[_C.gopher_stop_words] = found
    if words:
        r[_R.gopher_hash_ratio] = numbers / words
        r[_R.gopher_ellipsis_ratio] = ellipses / words
        r[_R.gopher_alpha_word_share] = with_letter / words
        r[_R.fineweb_new_line_ratio] = newlines / words
    _in_a_row(words, s, True, top, dup)
    if chars:
        for k in range(3):
            r[TOP2 + k] = top[k] / chars
        for k in range(6):
            r[DUP5 + k] = dup[k] / chars


@numba.njit(cache=True, nogil=True)
def tally_curlies(data, start, end):
    """Curly brackets, in a loop that vectorises."""
    n = 0
    for i in range(start, end):
        n += (data[i] == 123) | (data[i] == 125)
    return n


@numba.njit(cache=True, nogil=True)
def _measure_all(data, offsets, which, rules, ends, ends_at, stop_keys, stop_kinds, stops_at, t, s, u, r):
    for i in range(len(offsets) - 1):
        k = which[i]
        language = Language(
            rules[k],
            ends[ends_at[k] : ends_at[k + 1]],
            stop_keys[stops_at[k] : stops_at[k + 1]],
            stop_kinds[stops_at[k] : stops_at[k + 1]],
        )
        _measure(data, np.int64(offsets[i]), np.int64(offsets[i + 1]), language, t, s, u[i], r[i])


# --------------------------------------------------------------------------------------------- from Python


@functools.lru_cache(maxsize=1)
def _tables() -> Any:
    return Tables(*tables(), *exceptions())


@functools.lru_cache(maxsize=512)
def _language(code: str | None) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, bool]:
    """(rule, end marks, stop word hashes, kinds of stop words, whether there is a list) of a language."""
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
    size = 16
    while size < 4 * len(kinds):
        size *= 2
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.uint8)
    for key, kind in kinds.items():
        at = (key * int(SPREAD) & (1 << 64) - 1) >> 50 & size - 1
        while keys[at]:
            at = at + 1 & size - 1
        keys[at], values[at] = key, kind
    return rule, ends, keys, values, bool(listed)


def _bad_words(
    data: np.ndarray,
    offsets: np.ndarray,
    which: np.ndarray,
    known: Sequence[str | None],
    listed: Mapping[str, Sequence[str]] | None,
) -> pa.Array:
    return pa.nulls(len(which), pa.uint32())


_ROOM: list[Any] = [None, 0]


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
    offsets, data = offsets_and_bytes(text)
    n = len(text)
    codes = pa.array(languages, pa.string()) if not isinstance(languages, pa.Array) else languages
    codes = codes.dictionary_encode(null_encoding="encode")
    known = codes.dictionary.to_pylist() or [None]
    rows = [_language(code) for code in known]
    which = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    ends_at = np.cumsum([0, *(len(row[1]) for row in rows)])
    stops_at = np.cumsum([0, *(len(row[2]) for row in rows)])
    longest = int(np.diff(offsets).max(initial=0))
    if _ROOM[1] < longest or _ROOM[0] is None:
        _ROOM[:] = [_scratch(max(longest, 1 << 16)), max(longest, 1 << 16)]
    u, r = np.zeros((n, len(COUNTS)), np.uint32), np.zeros((n, len(RATIOS)))
    _measure_all(
        data, offsets, which, np.array([row[0] for row in rows], np.int64), np.concatenate([row[1] for row in rows]), ends_at,
        np.concatenate([row[2] for row in rows]), np.concatenate([row[3] for row in rows]), stops_at, _tables(), _ROOM[0], u, r,
    )  # fmt: skip
    if longest > 1 << 22:  # one long document must not hold its room for the rest of a run
        _ROOM[:] = [None, 0]
    listed = np.array([row[4] for row in rows])[which]
    ruled = listed | (np.array([row[0] for row in rows])[which] == ENGLISH)
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
            values = r[:, RATIOS.index(signal.name)].astype(np.float32)
        else:
            values = u[:, COUNTS.index(signal.name)].astype(signal.dtype)
        columns[signal.name] = pa.array(values, mask=mask)
    return columns
