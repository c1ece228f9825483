"""C4's line rules over UTF-8 bytes, and the lines of a text as Python's `str.splitlines()` cuts them.

`c4_line` tells, by bit flags, what C4 has against one line; stages decide what follows from it. It goes by C4's code as
datatrove runs it: words are counted first, then citation marks (`[3]`, `[]`, `[edit]`, `[citation needed]`) are taken out, and
what is left is looked at, its end without stripping it anew. So "It rained. [3]" ends in a space there, and here.

Two things are kept to ASCII: digits in citation marks, and letters in phrases that count in any case (a Kelvin sign is no k).
All functions take valid UTF-8 and never read outside of [start, end).
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.chars import kernel
from curate.kernels.words import SPACE, space_at

# what c4_line says of a line; of a whole text, c4_triggers sets the bits from JAVASCRIPT on that its lines can have at all
LONG_WORD, NO_END, FEW_WORDS, JAVASCRIPT, POLICY, LOREM_IPSUM, CURLY, CITATION = 1, 2, 4, 8, 16, 32, 64, 128
_PHRASES = JAVASCRIPT | POLICY | LOREM_IPSUM

END_MARKS = np.array(sorted(map(ord, ".?!\"'")), np.uint32)


def _ascii(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


_JAVASCRIPT, _LOREM_IPSUM = _ascii("javascript"), _ascii("lorem ipsum")
_TERMS_OF_USE, _PRIVACY_POLICY, _COOKIE_POLICY = _ascii("terms of use"), _ascii("privacy policy"), _ascii("cookie policy")
_USES_COOKIES, _USE_OF_COOKIES, _USE_COOKIES = _ascii("uses cookies"), _ascii("use of cookies"), _ascii("use cookies")
_EDIT, _CITATION_NEEDED = _ascii("[edit]"), _ascii("[citation needed]")
_LOWER = np.array([ord(chr(c).lower()) if c < 128 else c for c in range(256)], np.uint8)
# first bytes of line breaks: the ASCII ones, U+0085, U+2028 and U+2029
_BREAK = np.array([c in (10, 11, 12, 13, 28, 29, 30, 0xC2, 0xE2) for c in range(256)], np.uint8)
_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)


@kernel
def strip(data: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """(start, end) without whitespace at both ends: `str.strip()`."""
    while start < end:
        width = space_at(data, start, end)
        if width == 0:
            break
        start += width
    while start < end:
        byte = data[end - 1]
        if byte < 0x80:
            if SPACE[byte] == 0:
                break
            end -= 1
        elif end - start >= 2 and data[end - 2] == 0xC2 and space_at(data, end - 2, end) == 2:
            end -= 2
        elif end - start >= 3 and data[end - 3] >= 0xE1 and space_at(data, end - 3, end) == 3:
            end -= 3
        else:
            break
    return start, end


@kernel
def next_line(data: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """(end of the line that begins at `at`, start of the next), the lines being those of `str.splitlines()`.

    The lines of a text: `at = start; while at < end: stop, after = next_line(data, at, end); …; at = after`.
    """
    while at < end:
        # unsigned, since numba would look for negative indices, byte by byte
        i = np.uint64(at)
        if at + 4 <= end and _BREAK[data[i]] | _BREAK[data[i + _ONE]] | _BREAK[data[i + _TWO]] | _BREAK[data[i + _THREE]] == 0:
            at += 4
            continue
        byte = data[i]
        if _BREAK[byte] == 0:
            at += 1
        elif byte < 0x20:
            return at, at + 2 if byte == 13 and at + 1 < end and data[at + 1] == 10 else at + 1
        elif byte == 0xC2:
            if at + 1 < end and data[at + 1] == 0x85:
                return at, at + 2
            at += 1
        else:
            if at + 2 < end and data[at + 1] == 0x80 and (data[at + 2] == 0xA8 or data[at + 2] == 0xA9):
                return at, at + 3
            at += 1
    return end, end


def _machine() -> tuple[np.ndarray, int, np.ndarray]:
    """Tables of a Shift-And automaton that follows several words at once, one bit a letter: masks, starts, ends by flag."""
    masks, starts, at = [0] * 256, 0, 0
    ends = {JAVASCRIPT: 0, POLICY: 0, LOREM_IPSUM: 0, CURLY: 0, CITATION: 0}
    for flag, word in (
        (JAVASCRIPT, "javascript"),
        (LOREM_IPSUM, "lorem ipsum"),
        (POLICY, "cookie"),
        (POLICY, "privacy policy"),
        (POLICY, "terms of use"),
        (CURLY, "{"),
        (CITATION, "["),
    ):
        starts |= 1 << at
        for letter in word:
            for c in {letter, letter.upper()}:
                masks[ord(c)] |= 1 << at
            at += 1
        ends[flag] |= 1 << (at - 1)
        at += 1  # a gap, so that a word's end does not begin the next one, and starts can be added rather than or-ed
    return np.array(masks, np.uint64), starts, np.array(list(ends.values()), np.uint64)


_MASKS, _starts, _ENDS = _machine()
_STARTS = np.uint64(_starts)
_EARLY = 16  # bytes: no phrase is longer


@kernel
def c4_triggers(data: np.ndarray, start: int, end: int) -> int:
    """Which of JAVASCRIPT, POLICY, LOREM_IPSUM, CURLY and CITATION the lines of a text can have at all, for `c4_line`.

    A set bit promises nothing: it stands for "[", for "cookie". A phrase with a citation mark in its middle goes unseen;
    `c4_line` searches lines with such marks whatever this says. One step of two cycles a byte, without branches.
    """
    seen = np.uint64(0)
    size = (end - start) >> 2
    if size > 64:  # four parts side by side, since each step waits for the one before it; each begins a phrase early
        second, third, fourth = start + size - _EARLY, start + 2 * size - _EARLY, end - size - _EARLY
        a, b, c, d = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
        for i in range(size + _EARLY):
            a = ((a << _ONE) + _STARTS) & _MASKS[data[start + i]]
            b = ((b << _ONE) + _STARTS) & _MASKS[data[second + i]]
            c = ((c << _ONE) + _STARTS) & _MASKS[data[third + i]]
            d = ((d << _ONE) + _STARTS) & _MASKS[data[fourth + i]]
            seen |= a | b | c | d
    else:
        state = np.uint64(0)
        for byte in data[start:end]:
            state = ((state << _ONE) + _STARTS) & _MASKS[byte]
            seen |= state
    found = 0
    for i in range(len(_ENDS)):
        if seen & _ENDS[i]:
            found |= JAVASCRIPT << i
    return found


@kernel
def citation_at(data: np.ndarray, at: int, end: int) -> int:
    """Length of the citation mark that begins at `at`: `[`, digits, `]`; `[edit]`; `[citation needed]`. 0 if there is none."""
    if data[at] != 91:
        return 0
    stop = at + 1
    while stop < end and 48 <= data[stop] <= 57:
        stop += 1
    if stop < end and data[stop] == 93:
        return stop + 1 - at
    if _is(data, at, end, _EDIT):
        return len(_EDIT)
    return len(_CITATION_NEEDED) if _is(data, at, end, _CITATION_NEEDED) else 0


@kernel
def _is(data: np.ndarray, at: int, end: int, word: np.ndarray) -> bool:
    if end - at < len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110
        if data[at + i] != word[i]:
            return False
    return True


@kernel
def _before(data: np.ndarray, start: int, end: int, cited: bool) -> int:
    """`end`, moved in front of the citation marks that end there."""
    while cited and end > start and data[end - 1] == 93:
        at = end - 2
        while at >= start and data[at] != 91 and data[at] != 93:
            at -= 1
        if at < start or citation_at(data, at, end) != end - at:
            break
        end = at
    return end


@kernel
def c4_ends(data: np.ndarray, start: int, end: int, cited: bool, end_marks: np.ndarray) -> bool:
    """Whether a stripped line ends as C4 wants it. cited: it may have citation marks, to be looked through."""
    end = _before(data, start, end, cited)
    if end == start:
        return False
    if data[end - 1] == 46:
        second = _before(data, start, end - 1, cited)
        if second > start and data[second - 1] == 46:
            third = _before(data, start, second - 1, cited)
            if third > start and data[third - 1] == 46:
                return False
    mark = np.uint32(0)
    shift = np.uint32(0)
    at = end - 1
    while at > start and data[at] & 0xC0 == 0x80:
        mark |= np.uint32(data[at] & 0x3F) << shift
        shift += np.uint32(6)
        at -= 1
    first = np.uint32(data[at])
    if shift:
        first &= np.uint32(0x1F) if shift == 6 else np.uint32(0x0F) if shift == 12 else np.uint32(0x07)
    mark |= first << shift
    low, high = 0, len(end_marks)
    while low < high:
        middle = (low + high) >> 1
        if end_marks[middle] < mark:
            low = middle + 1
        else:
            high = middle
    return low < len(end_marks) and end_marks[low] == mark


@kernel
def _few_words(data: np.ndarray, start: int, end: int, least: int) -> bool:
    """Fewer than `least` whitespace-separated words; looks no further than that."""
    words, gap = 0, True
    at = start
    while at < end:
        kind = SPACE[data[np.uint64(at)]]
        width = 1
        if kind == 2:
            width = max(space_at(data, at, end), 1)
        space = kind == 1 or width > 1
        words += gap and not space
        if words >= least:
            return False
        gap = space
        at += width
    return words < least


@kernel
def _long_word(data: np.ndarray, start: int, end: int, most: int) -> bool:
    """Whether a stripped line has a word of more than `most` characters.

    Jumps `most` bytes ahead and back to the last ASCII space: where there is one, no word from here on ends late. Only where
    there is none are characters counted.
    """
    at = start
    while end - at > most:
        back = at + most
        while back >= at and SPACE[data[back]] != 1:
            back -= 1
        if back >= at:
            at = back + 1
            continue
        length = 0
        while at < end:
            width = space_at(data, at, end)
            if width > 0:
                at += width
                break
            if data[at] & 0xC0 != 0x80:
                length += 1
                if length > most:
                    return True
            at += 1
    return False


@kernel
def _finds(data: np.ndarray, at: int, end: int, phrase: np.ndarray, cited: bool) -> bool:
    """Whether a phrase (lower case) begins at `at`, in any case of ASCII letters, citation marks left out."""
    for i in range(len(phrase)):
        while cited and i > 0 and at < end and data[at] == 91:
            width = citation_at(data, at, end)
            if width == 0:
                return False
            at += width
        if at >= end or _LOWER[data[at]] != phrase[i]:
            return False
        at += 1
    return True


@kernel
def _phrases(data: np.ndarray, start: int, end: int, cited: bool) -> int:
    # none begins inside a citation mark, since each mark ends in "]", which no phrase holds
    found = 0
    for at in range(start, end):
        byte = _LOWER[data[at]]
        if byte == 106:  # the first letters of the phrases
            if _finds(data, at, end, _JAVASCRIPT, cited):
                found |= JAVASCRIPT
        elif byte == 108:
            if _finds(data, at, end, _LOREM_IPSUM, cited):
                found |= LOREM_IPSUM
        elif byte == 116:
            if _finds(data, at, end, _TERMS_OF_USE, cited):
                found |= POLICY
        elif byte == 112:
            if _finds(data, at, end, _PRIVACY_POLICY, cited):
                found |= POLICY
        elif byte == 99:
            if _finds(data, at, end, _COOKIE_POLICY, cited):
                found |= POLICY
        elif byte == 117 and (
            _finds(data, at, end, _USES_COOKIES, cited)
            or _finds(data, at, end, _USE_OF_COOKIES, cited)
            or _finds(data, at, end, _USE_COOKIES, cited)
        ):
            found |= POLICY
    return found


@kernel
def c4_line(
    data: np.ndarray,
    start: int,
    end: int,
    triggers: int,
    end_marks: np.ndarray,
    min_words: int = 3,
    max_word_length: int = 1000,
) -> int:
    """What C4 has against one line, with or without the space around it: a sum of flags.

    triggers: what `c4_triggers` says of the text, or of a part of it that holds the line; without CITATION, citation marks
    are letters like others. end_marks: code points that end a line, ascending (`END_MARKS` for English); after "..." a line
    has no end whatever they are. LONG_WORD: more than `max_word_length` characters without whitespace. CITATION: the line
    has a citation mark, so that C4 would keep it changed.
    """
    start, end = strip(data, start, end)
    if triggers:
        triggers &= c4_triggers(data, start, end)
    flags = 0
    if triggers & CITATION:
        for at in range(start, end):
            if data[at] == 91 and citation_at(data, at, end) > 0:
                flags = CITATION
                break
    cited = np.int64(flags != 0)
    if _long_word(data, start, end, max_word_length):
        flags |= LONG_WORD
    if _few_words(data, start, end, min_words):
        flags |= FEW_WORDS
    if not c4_ends(data, start, end, cited, end_marks):
        flags |= NO_END
    if cited or triggers & _PHRASES:
        flags |= _phrases(data, start, end, cited)
    if triggers & CURLY:
        for at in range(start, end):
            if data[at] == 123:
                flags |= CURLY
                break
    return flags


@kernel
def c4_clean(data: np.ndarray, start: int, end: int, out: np.ndarray, at: int) -> int:
    """Append the line as C4 keeps it, stripped and without citation marks, to `out` at `at`; returns where it ends there."""
    start, end = strip(data, start, end)
    while start < end:
        byte = data[start]
        if byte == 91:
            width = citation_at(data, start, end)
            if width > 0:
                start += width
                continue
        out[at] = byte
        at += 1
        start += 1
    return at


@numba.njit(cache=True, nogil=True)
def clean_texts(
    offsets: np.ndarray,
    data: np.ndarray,
    dropped: int,
    cited: bool,
    end_marks: np.ndarray,
    min_words: int,
    max_word_length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Texts without the lines that have one of the flags `dropped`: (offsets int32, bytes, lines removed uint32, any changed).

    Lines that stay are stripped, freed of citation marks if `cited`, and joined by "\\n"; the whole is stripped.
    """
    n = len(offsets) - 1
    bounds = np.zeros(n + 1, np.int32)
    removed = np.zeros(n, np.uint32)
    out = np.empty(offsets[n] - offsets[0], np.uint8)
    changed = False
    to = 0
    for i in range(n):
        first, end = offsets[i], offsets[i + 1]
        triggers = c4_triggers(data, first, end)
        if not cited:
            triggers &= ~CITATION
        begin = to
        at, lines = first, 0
        while at < end:
            stop, after = next_line(data, at, end)
            flags = c4_line(data, at, stop, triggers, end_marks, min_words, max_word_length)
            if flags & dropped:
                removed[i] += 1
            else:
                if lines > 0:
                    out[to] = 10
                    to += 1
                if flags & CITATION:
                    to = c4_clean(data, at, stop, out, to)
                else:
                    start, stop = strip(data, at, stop)
                    out[to : to + stop - start] = data[start:stop]
                    to += stop - start
                lines += 1
            at = after
        start, stop = strip(out, begin, to)
        if start > begin:
            for k in range(stop - start):
                out[begin + k] = out[start + k]
        to = begin + stop - start
        bounds[i + 1] = to
        changed = changed or to - begin != end - first
        if not changed:
            for k in range(to - begin):
                changed |= out[begin + k] != data[first + k]
    return bounds, out[:to], removed, changed
