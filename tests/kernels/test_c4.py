"""C4's line rules: the kernel against Python's own string methods, and against datatrove's filter."""

import re
import string

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.kernels import c4

ALL = c4.JAVASCRIPT | c4.POLICY | c4.LOREM_IPSUM | c4.CURLY | c4.CITATION
PHRASES = ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"]
CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")
LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

PIECES = [
    *PHRASES, "javascript", "JavaScript", "java", "script", "lorem ipsum", "Lorem", " ipsum", "cookie", "use", "{", "}",
    "[", "]", "[1]", "[]", "[23]", "[edit]", "[citation needed]", "[citation", " needed]", "[edit", "[Edit]", "[1", "1",
    ".", "..", "...", "?", "!", '"', "'", "。", "…", "”",
    " ", "  ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e",
    "\x1f", "\x85", "\xa0", "\u1680", "\u2000", "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff",
    "a", "word", "Ünder", "字", "한국어", "🙂", "\x00", "\x10", "â", "Â", "\u2027", "\u1681", "\u3001",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=40).map("".join)


def data_of(text: str) -> np.ndarray:
    """The bytes between two whitespaces that belong to no text, so that a look outside shows."""
    return np.frombuffer(b" " + text.encode() + b" ", np.uint8)


def flags_of(line: str, triggers: int = ALL, min_words: int = 3, max_word_length: int = 1000) -> int:
    data = data_of(line)
    return c4.c4_line(data, 1, len(data) - 1, triggers, c4.END_MARKS, min_words, max_word_length)


def plain_flags(line: str, min_words: int = 3, max_word_length: int = 1000) -> int:
    line = line.strip()
    words = line.split()
    clean = CITATION.sub("", line)
    lower = clean.translate(LOWER)
    found = {
        c4.LONG_WORD: any(len(word) > max_word_length for word in words),
        c4.NO_END: not clean.endswith((".", "?", "!", '"', "'")) or clean.endswith("..."),
        c4.FEW_WORDS: len(words) < min_words,
        c4.JAVASCRIPT: "javascript" in lower,
        c4.POLICY: any(phrase in lower for phrase in PHRASES),
        c4.LOREM_IPSUM: "lorem ipsum" in lower,
        c4.CURLY: "{" in line,
        c4.CITATION: clean != line,
    }
    return sum(flag for flag, holds in found.items() if holds)


def lines_of(text: str) -> list[str]:
    data = data_of(text)
    lines, at = [], 1
    while at < len(data) - 1:
        stop, after = c4.next_line(data, at, len(data) - 1)
        lines.append(bytes(data[at:stop]).decode())
        at = after
    return lines


@given(texts)
def test_lines_are_those_of_splitlines(text):
    assert lines_of(text) == text.splitlines()


def test_every_character_as_a_line_break_and_as_whitespace():
    for code in (c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and (c < 0x4000 or c % 97 == 0)):
        character = chr(code)
        data = data_of(character)
        assert c4.space_at(data, 1, len(data) - 1) == (len(data) - 2 if character.isspace() else 0), hex(code)
        stop, after = c4.next_line(data, 1, len(data) - 1)
        assert (stop == 1 and after == len(data) - 1) == (character.splitlines() == [""]), hex(code)


@given(texts)
def test_strip(text):
    data = data_of(text)
    start, end = c4.strip(data, 1, len(data) - 1)
    assert bytes(data[start:end]).decode() == text.strip()


@given(texts, st.sampled_from([0, 1, 2, 3, 5]), st.sampled_from([1, 2, 4, 9, 1000]))
@example("It rained. [3]", 3, 1000)
@example("It rained.[3]", 3, 1000)
@example("It rained.[1].[2].[]", 3, 1000)
@example("use of java[1]script, use[2] coo[edit]kies.", 3, 1000)
@example("[[1]] [[edit] [citation needed", 3, 1000)
@example("x" * 1000 + " " + "字" * 1001, 3, 1000)
@example(("字" * 1000 + "\u3000") * 3, 3, 1000)
@example("é" * 1000 + "\u2028" + "y" * 1001, 3, 1000)
@example("", 0, 1000)
def test_flags_of_a_line(line, min_words, max_word_length):
    assert flags_of(line, ALL, min_words, max_word_length) == plain_flags(line, min_words, max_word_length)


@given(texts)
def test_triggers_leave_nothing_out(text):
    data = data_of(text)
    triggers = c4.c4_triggers(data, 1, len(data) - 1)
    assert [flags_of(line, triggers) for line in text.splitlines()] == [plain_flags(line) for line in text.splitlines()]


def test_triggers_of_ordinary_text_are_empty():
    data = data_of("It was a bright cold day (in April), and the clocks were striking thirteen. Scripts and policies use [no].")
    assert c4.c4_triggers(data, 1, len(data) - 1) == c4.CITATION
    assert c4.c4_triggers(data, 1, 80) == 0
    for text, flag in [("JAVASCRIPT", c4.JAVASCRIPT), ("Cookie", c4.POLICY), ("Terms of Use", c4.POLICY), ("a{", c4.CURLY)]:
        assert c4.c4_triggers(data_of(text), 1, len(text) + 1) == flag
        assert c4.c4_triggers(data_of(text), 1, len(text)) == 0
    assert c4.c4_triggers(data_of("loremxipsum privacy-policy"), 1, 27) == 0


def test_other_ends_than_english_ones():
    marks = np.array(sorted(map(ord, ".。！؟।𑁇")), np.uint32)
    for mark in ".。！؟।𑁇":
        assert not c4.c4_line(data_of(f"a b c{mark}"), 1, 6 + len(mark.encode()), 0, marks) & c4.NO_END
    for mark in "!?,、ａ𑁈":
        assert c4.c4_line(data_of(f"a b c{mark}"), 1, 6 + len(mark.encode()), 0, marks) & c4.NO_END


@given(texts)
def test_what_is_kept_of_a_line(line):
    data = data_of(line)
    out = np.zeros(len(data) + 5, np.uint8)
    at = c4.c4_clean(data, 1, len(data) - 1, out, 5)
    assert bytes(out[5:at]).decode() == CITATION.sub("", line.strip())


@given(st.lists(texts, max_size=30).map("\n".join))
def test_the_whole_against_datatrove(text):
    """What its filter keeps, and its verdict on lorem ipsum and curly brackets. Left out: what we keep to ASCII."""
    filters = pytest.importorskip("datatrove.pipeline.filters")
    data_module = pytest.importorskip("datatrove.data")
    text = "".join(c for c in text if c.isascii() or not (c.isdigit() or c.isdecimal() or any(map(str.isascii, c.lower()))))
    document = data_module.Document(text=text, id="0")
    verdict = filters.C4QualityFilter(min_num_sentences=-1).filter(document)

    data = data_of(text)
    triggers = c4.c4_triggers(data, 1, len(data) - 1)
    kept, ours = [], None
    dropped = c4.LONG_WORD | c4.NO_END | c4.FEW_WORDS
    for line in text.splitlines():
        flags = flags_of(line, triggers)
        if not flags & dropped and flags & c4.LOREM_IPSUM:
            ours = (False, "lorem_ipsum")
        elif not flags & (dropped | c4.JAVASCRIPT) and flags & c4.CURLY:
            ours = (False, "curly_bracket")
        if ours:
            break
        if not flags & (dropped | c4.JAVASCRIPT | c4.POLICY):
            line_data = data_of(line)
            out = np.empty(len(line_data), np.uint8)
            kept.append(bytes(out[: c4.c4_clean(line_data, 1, len(line_data) - 1, out, 0)]).decode())
    assert (ours or True) == verdict
    if verdict is True:
        assert "\n".join(kept).strip() == document.text


def test_kernels_are_compiled_for_offsets_of_arrow():
    @numba.njit
    def first(data, offsets):
        return c4.next_line(data, offsets[0], offsets[1])

    assert first(np.frombuffer(b"a\nb", np.uint8), np.array([0, 3], np.int32)) == (1, 2)
