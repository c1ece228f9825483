"""split: nothing but whitespace at the cuts is lost, and no piece is too long."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from curate.stages.split import Split
from curate.testing import hostile_texts

text = st.text(st.one_of(st.sampled_from(" \n\n\tab—中🙂"), st.characters(exclude_categories=["Cs"])), max_size=200)


def pieces(text, limit):
    return Split(max_bytes=limit)([text]).kept["text"].to_pylist()


@given(text, st.integers(4, 50))
def test_invariants(text, limit):
    found = pieces(text, limit)
    if len(text.encode()) <= limit:
        assert found == [text]
        return
    rest = text
    for piece in found:
        assert piece and len(piece.encode()) <= limit
        assert piece == piece.strip(" \t\n\r\v\f")
        before, _, rest = rest.partition(piece)
        assert not before.strip(" \t\n\r\v\f")
    assert not rest.strip(" \t\n\r\v\f")


@pytest.mark.parametrize(
    "text, limit, expected",
    [
        ("aaa\n\nbbb\nccc ddd", 12, ["aaa", "bbb\nccc ddd"]),  # a blank line rather than a later line break
        ("aaa\n \t\nbbb\nccc ddd", 12, ["aaa", "bbb\nccc ddd"]),
        ("aaa\n\nbbb\n\nccc", 9, ["aaa\n\nbbb", "ccc"]),  # the last that fits
        ("aaa\nbbb ccc", 8, ["aaa", "bbb ccc"]),  # a line break rather than a space
        ("aaa bbb ccc", 8, ["aaa bbb", "ccc"]),
        ("aaabbbccc", 4, ["aaab", "bbcc", "c"]),
        ("中中中", 4, ["中", "中", "中"]),  # never within a character
        ("aaaa\n\nbbbb", 4, ["aaaa", "bbbb"]),  # the cut may lie right behind the window
        ("\n\n\naaaa", 4, ["aaaa"]),
    ],
)
def test_where_it_cuts(text, limit, expected):
    assert pieces(text, limit) == expected


def test_ids_columns_and_sizes():
    docs = pa.table({"id": ["a", "b"], "text": ["one two", None], "url": ["u", "v"]})
    kept = Split(max_bytes=4)(docs).kept
    assert kept["id"].to_pylist() == ["a#split.0", "a#split.1", "b#split.0"]
    assert kept["url"].to_pylist() == ["u", "u", "v"]
    assert kept["text"].to_pylist() == ["one", "two", None]
    assert kept["text_bytes"].to_pylist() == [3, 3, 0]


def test_long_whitespace_has_no_piece():
    result = Split(max_bytes=4)([" " * 10])
    assert result.kept.num_rows == 0 and result.dropped["_reason"].to_pylist() == ["no_output"]


def test_hostile_texts_keep_their_words():
    for text in filter(None, hostile_texts()):
        joined = "".join(pieces(text, 1000)) if len(text.encode()) > 1000 else pieces(text, 1000)[0]
        assert re.sub(r"[ \t\n\r\v\f]+", "", joined) == re.sub(r"[ \t\n\r\v\f]+", "", text)


def test_a_limit_that_no_character_fits():
    with pytest.raises(RecipeError, match="max_bytes"):
        Split(max_bytes=3)
