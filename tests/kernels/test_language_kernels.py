"""What detectors of languages are given, against plain Python over decoded text."""

from __future__ import annotations

import itertools
import re
import sys
import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.kernels.excerpts import excerpt, letters_only
from curate.kernels.paragraphs import lines, pieces
from curate.kernels.scripts import count_scripts, fits, main_scripts, scripts, table, together
from curate.langid import spans

MIXED = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("ab \n\t.,1éяß中あ한ไ"), max_size=60)
TEXTS = st.lists(MIXED | MIXED.map(lambda t: t * 7), max_size=5)


def unpacked(offsets: np.ndarray, data: np.ndarray) -> list[bytes]:
    return [data[a:b].tobytes() for a, b in itertools.pairwise(offsets)]


def excerpt_of(text: str, head: int, piece: int) -> str:
    raw = text.encode()
    if len(raw) <= head + 2 * piece:
        return text
    rest = len(raw) - head
    places = [(0, head), (head + rest // 3, piece), (head + 2 * rest // 3, piece)]
    return " ".join(raw[at : at + size].decode("utf-8", "ignore") for at, size in places)


@given(TEXTS, st.integers(1, 40), st.integers(1, 20))
@example(["中" * 30, "🙂" * 30, "x" * 30], 10, 5)
def test_excerpts(texts, head, piece):
    offsets, data, wide = excerpt(*spans(pa.array(texts, pa.string())), head, piece)
    expected = [excerpt_of(t, head, piece) for t in texts]
    assert [b.decode() for b in unpacked(offsets, data)] == expected
    assert wide.tolist() == [not t.isascii() for t in expected]


@given(TEXTS)
def test_letters_only(texts):
    bounds, data, characters = letters_only(*spans(pa.array(texts, pa.string())))
    expected = []
    for text in texts:
        kept = re.sub(r"[^a-zA-Z \t-\r\x80-\U0010ffff]", "", text).strip(" \t\n\v\f\r")
        expected.append(re.sub(r"[ \t-\r]+", " ", kept))
    assert [b.decode() for b in unpacked(bounds, data)] == expected
    assert characters.tolist() == [len(t) - t.count(" ") for t in expected]


def script_of(character: str) -> str | None:
    at = table()[ord(character)] if ord(character) < len(table()) else 0
    return scripts()[at - 1] if at else None


def group_of(character: str) -> int | None:
    script = script_of(character)
    if script is None:
        return None
    return 1 + scripts().index("Hani" if script in ("Hani", "Kana", "Hang", "Bopo") else script)


@given(TEXTS)
@example(["\U00010000\U0001d400\U00020000\U00033000\U000e0100\U0010ffff"])
def test_letters_by_script(texts):
    place = spans(pa.array(texts, pa.string()))
    found = count_scripts(*place, table(), len(scripts()))
    for text, row in zip(texts, found.tolist(), strict=True):
        expected = Counter(map(script_of, text))
        del expected[None]
        assert {s: n for s, n in zip(scripts(), row, strict=True) if n} == expected
    letters, group = main_scripts(*place, table(), together())
    assert letters.tolist() == found.sum(1, dtype=np.int64).tolist()
    for text, number in zip(texts, group.tolist(), strict=True):
        groups = Counter(group_of(c) for c in text)
        del groups[None]
        assert (number == 0) if not groups else groups[number] == max(groups.values())


@pytest.mark.parametrize(
    "name, script",
    [("LATIN", "Latn"), ("GREEK", "Grek"), ("CYRILLIC", "Cyrl"), ("ARMENIAN", "Armn"), ("HEBREW", "Hebr"), ("ARABIC", "Arab"),
     ("DEVANAGARI", "Deva"), ("BENGALI", "Beng"), ("GURMUKHI", "Guru"), ("GUJARATI", "Gujr"), ("ORIYA", "Orya"),
     ("TAMIL", "Taml"), ("TELUGU", "Telu"), ("KANNADA", "Knda"), ("MALAYALAM", "Mlym"), ("SINHALA", "Sinh"), ("THAI", "Thai"),
     ("LAO", "Laoo"), ("TIBETAN", "Tibt"), ("MYANMAR", "Mymr"), ("GEORGIAN", "Geor"), ("HANGUL", "Hang"), ("ETHIOPIC", "Ethi"),
     ("CHEROKEE", "Cher"), ("CANADIAN SYLLABICS", "Cans"), ("KHMER", "Khmr"), ("MONGOLIAN", "Mong"), ("OL CHIKI", "Olck"),
     ("TIFINAGH", "Tfng"), ("HIRAGANA", "Kana"), ("KATAKANA", "Kana"), ("CJK UNIFIED", "Hani"), ("BOPOMOFO", "Bopo"),
     ("YI SYLLABLE", "Yiii"), ("VAI", "Vaii"), ("THAANA", "Thaa"), ("SYRIAC", "Syrc"), ("NKO", "Nkoo"), ("ADLAM", "Adlm")],
)  # fmt: skip
def test_the_table_knows_letters_by_their_names(name, script):
    """Letters only: marks and letters that several scripts share have a name, but no script of their own."""
    found = Counter[str | None]()
    for point in range(sys.maxunicode):
        character = chr(point)
        if unicodedata.category(character)[0] == "L" and unicodedata.name(character, "").startswith(name + " "):
            found[script_of(character)] += 1
    shared = found.pop(None, 0)
    assert set(found) == {script} and shared <= 3 + found[script] // 50, (found, shared)


def test_what_is_no_letter():
    for character in "0٣५๓ .,;:!?—“”、。।॥\x00\x7f\u00a0\u3000€🙂ー\u0301\ufeff":
        assert script_of(character) is None, character


@pytest.mark.parametrize(
    "counts, allowed, fit",
    [
        ({"Latn": 100}, ["Latn"], True),
        ({"Cher": 100}, ["Latn"], False),
        ({"Cher": 70, "Latn": 30}, ["Latn"], False),
        ({"Hani": 33, "Latn": 67}, ["Latn"], True),
        ({"Hani": 34, "Latn": 66}, ["Latn"], False),
        ({"Cyrl": 50, "Hani": 40, "Latn": 10}, ["Latn", "Cyrl"], True),
        ({"Hani": 40, "Latn": 60}, ["Hani", "Kana"], True),
        ({"Hani": 5, "Latn": 95}, ["Hani", "Kana"], False),
        ({"Hani": 30, "Kana": 50}, ["Hani"], False),
        ({"Hani": 30, "Kana": 50}, ["Hani", "Kana"], True),
        ({}, ["Latn"], False),
    ],
)
def test_whether_an_answer_fits_the_letters(counts, allowed, fit):
    row = np.array([[counts.get(s, 0) for s in scripts()]], np.uint32)
    assert fits(row, np.array([[s in allowed for s in scripts()]])).tolist() == [fit]


@given(TEXTS, st.integers(1, 12))
def test_lines_and_pieces(texts, enough):
    starts, ends, data = spans(pa.array(texts, pa.string()))
    begins, stops, first = lines(starts, ends, data)
    found = [data[a:b].tobytes().decode() for a, b in zip(begins, stops, strict=True)]
    assert [found[a:b] for a, b in itertools.pairwise(first)] == [t.split("\n") for t in texts]
    letters, script = main_scripts(begins, stops, data, table(), together())
    piece_begins, piece_stops, text_of, piece = pieces(begins, stops, first, letters, script, enough)

    expected: list[str] = []
    of_line: list[int] = []
    owner: list[int] = []
    for number, text in enumerate(texts):
        gathered, before = None, 0
        for line in text.split("\n"):
            size = sum(script_of(c) is not None for c in line)
            main = script[len(of_line)]
            if not size:
                gathered = None
                of_line.append(-1)
                continue
            if gathered is None or main != before:
                expected.append(line)
                owner.append(number)
                gathered = 0
            else:
                expected[-1] += "\n" + line
            of_line.append(len(expected) - 1)
            gathered, before = gathered + size, main
            if gathered >= enough:
                gathered = None
    assert [data[a:b].tobytes().decode() for a, b in zip(piece_begins, piece_stops, strict=True)] == expected
    assert (piece.tolist(), text_of.tolist()) == (of_line, owner)
