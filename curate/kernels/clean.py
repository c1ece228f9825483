"""Which texts need normalising, and the part of it that is a matter of bytes: controls, invisible characters, whitespace."""

from __future__ import annotations

import sys
import unicodedata

import numba
import numpy as np

from curate.kernels.chars import decode

# what a character is, as bits of the table of `classes`
FORM, GONE, SPACE, BREAK, JOINER, JOINED = 1, 2, 4, 8, 16, 32
# what a text needs, as bits of the result of `survey`
NOT_ASCII, NEEDS_FORM, NEEDS_BYTES, ESCAPES = 1, 2, 4, 8

_SPACES = [0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F]  # U+3000 is as wide as a letter of its script: it stays
_BREAKS = [0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029]
_CONTROLS = [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0), *range(0x206A, 0x2070), *range(0xFFF9, 0xFFFD)]
_CONTROLS += [*range(0xFDD0, 0xFDF0), *(at + low for at in range(0, 0x110000, 0x10000) for low in (0xFFFE, 0xFFFF))]
_INVISIBLE = [0xAD, 0x180E, 0x2060, 0xFEFF]
_JOINERS = [0x200B, 0x200C, 0x200D]  # zero-width space, non-joiner, joiner


def classes(form: str, controls: bool, invisible: bool, breaks: bool, spaces: bool) -> np.ndarray:
    """The table of `survey` and `rewrite`: a uint8 of bits for each code point, by what is to be done."""
    table = np.zeros(sys.maxunicode + 1, np.uint8)
    if form != "none":
        table[_unsettled(form)] |= FORM
    if controls:
        table[_CONTROLS] |= GONE
    if invisible:
        table[_INVISIBLE] |= GONE
        table[_JOINERS] |= JOINER
        # letters of scripts whose words may be parted by U+200B, and all but ASCII for joiners: see `rewrite`
        for first, last in (
            (0x0E00, 0x0EFF),
            (0x1000, 0x109F),
            (0x1780, 0x17FF),
            (0x19E0, 0x1AAF),
            (0xA9E0, 0xA9FF),
            (0xAA60, 0xAADF),
        ):
            table[first : last + 1] |= JOINED
    if breaks:
        table[_BREAKS] = BREAK
    if spaces:
        table[_SPACES] |= SPACE
    return table


def _unsettled(form: str) -> list[int]:
    """Code points without which a text is in the form for sure: what it changes, marks, and what composes backwards."""
    found = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]  # vowels and finals of Hangul
    for c in range(0x80, sys.maxunicode + 1):
        char = chr(c)
        parts = unicodedata.decomposition(char)
        if parts or unicodedata.combining(char):
            if unicodedata.combining(char) or not unicodedata.is_normalized(form, char):  # type: ignore[arg-type]
                found.append(c)
            if parts and parts[0] != "<" and " " in parts:
                found.append(int(parts.split()[1], 16))
    return found


_BLOCK = 64


@numba.njit(cache=True, nogil=True)
def survey(
    offsets: np.ndarray, data: np.ndarray, table: np.ndarray, runs: bool, trailing: bool, blank_lines: int
) -> np.ndarray:
    """What each text needs (uint8 of bits). It may say NEEDS_BYTES or NEEDS_FORM of a text that stays as it is, never fail to.

    blank_lines: the most that may stand together, or -1.
    """
    needs = np.zeros(len(offsets) - 1, np.uint8)
    for row in range(len(needs)):
        at, end = int(offsets[row]), int(offsets[row + 1])
        found = 0
        if end > at:
            last = data[end - 1]
            if (blank_lines >= 0 and (data[at] == 10 or last == 10)) or (trailing and (last == 32 or last == 9)):
                found = NEEDS_BYTES
        while at < end:
            stop = min(at + _BLOCK, end)
            if at + _BLOCK + 2 <= end:  # most blocks are ASCII without anything of note: this loop becomes vector instructions
                noted = np.uint8(0)
                block = data[at : at + _BLOCK + 2]
                for i in range(_BLOCK):
                    byte, after = block[i], block[i + 1]
                    blank = (byte == 32) | (byte == 9)
                    noted |= (
                        (byte >= 127) | ((byte < 32) & (byte != 10) & (byte != 9)) | (blank & ((after == 32) | (after == 10)))
                    )
                    noted |= (byte == 10) & (after == 10) & ((block[i + 2] == 10) | (blank_lines == 0))
                if noted == 0:
                    at = stop
                    continue
            while at < stop:
                byte = data[at]
                if byte > 32 and byte < 127:
                    at += 1
                    continue
                if byte >= 0x80:
                    c, width = decode(data, at, end)
                    found |= NOT_ASCII
                    bits = table[c]
                    if bits & FORM:
                        found |= NEEDS_FORM
                    if bits & (GONE | SPACE | BREAK | JOINER):
                        found |= NEEDS_BYTES
                    at += width
                    continue
                at += 1
                if byte == 10:
                    if blank_lines >= 0 and at + blank_lines < end:
                        more = 0
                        while more <= blank_lines and data[at + more] == 10:
                            more += 1
                        if more > blank_lines:
                            found |= NEEDS_BYTES
                elif byte == 32 or byte == 9:
                    if at < end and ((trailing and data[at] == 10) or (runs and byte == 32 and data[at] == 32)):
                        found |= NEEDS_BYTES
                elif table[byte]:
                    found |= NEEDS_BYTES
                if byte == 27:
                    found |= ESCAPES
        needs[row] = found
    return needs


@numba.njit(cache=True, nogil=True)
def rewrite(
    offsets: np.ndarray,
    data: np.ndarray,
    needs: np.ndarray,
    table: np.ndarray,
    runs: bool,
    trailing: bool,
    blank_lines: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(int32 offsets, bytes) of all texts, those with NEEDS_BYTES rewritten; never longer than they were.

    Joiners stay after characters beyond ASCII, where scripts and emoji need them; a zero-width space stays after letters of
    the scripts of South-East Asia that part words by it. Indentation is no run of spaces.
    """
    bounds = np.zeros(len(offsets), np.int32)
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    controls = (table[27] & GONE) != 0
    n = 0
    for row in range(len(needs)):
        at, end = int(offsets[row]), int(offsets[row + 1])
        if not needs[row] & NEEDS_BYTES:
            out[n : n + end - at] = data[at:end]
            n += end - at
            bounds[row + 1] = n
            continue
        begin = line = solid = n  # where the text, the line, and the whitespace at the end of the line begin in the output
        breaks = 0  # line breaks that the output ends with
        before = 10  # the character that it ends with
        while at < end:
            start = at  # words of ASCII with one space between them: nothing happens there
            while at < end:
                byte = data[at]
                if byte == 32:
                    if at == start or at + 1 >= end or data[at + 1] <= 32 or data[at + 1] >= 127:
                        break
                elif byte < 32 or byte >= 127:
                    break
                out[n] = byte
                n += 1
                at += 1
            if at > start:
                solid, before = n, int(out[n - 1])
                if at >= end:
                    break
            c, width = decode(data, at, end)
            bits = table[c] & ~np.uint8(FORM | JOINED)
            if bits & JOINER and before >= 0x80 and (c != 0x200B or table[before] & JOINED):
                bits = np.uint8(0)
            if bits == 0 and c > 32:
                for k in range(width):
                    out[n + k] = data[at + k]
                n += width
                at += width
                solid, before = n, c
                continue
            if c == 27 and controls and at + 1 < end and data[at + 1] == 91:  # ESC [ digits letter: colours of a terminal
                i = at + 2
                while i < end and (48 <= data[i] <= 57 or data[i] == 59):
                    i += 1
                if i < end and (65 <= data[i] <= 90 or 97 <= data[i] <= 122):
                    at = i + 1
                    continue
            at += width
            if bits & (GONE | JOINER) or (c == 13 and bits & BREAK and at < end and data[at] == 10):
                continue
            if c == 10 or bits & BREAK:
                if trailing:
                    n = solid
                breaks = breaks + 1 if n == line else 1
                if blank_lines < 0 or (n > begin and breaks <= blank_lines + 1):
                    out[n] = 10
                    n += 1
                line = solid = n
                before = 10
            elif c == 32 or bits & SPACE:
                if not (runs and before == 32 and solid > line):
                    out[n] = 32
                    n += 1
                before = 32
            else:
                out[n] = np.uint8(c)
                n += 1
                before = c
                if c != 9:  # a control character that is let be
                    solid = n
        if trailing:
            n = solid
        if blank_lines >= 0:
            while n > begin and out[n - 1] == 10:
                n -= 1
        bounds[row + 1] = n
    return bounds, out[:n]
