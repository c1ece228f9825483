"""word_count against str.split."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curate.kernels.words import count_words, offsets_and_bytes
from curate.stages.word_count import WordCount
from curate.testing import hostile_texts

SPACES = [chr(c) for c in range(0x110000) if chr(c).isspace()]
text = st.lists(st.one_of(st.sampled_from(SPACES), st.characters(exclude_categories=["Cs"])), max_size=40).map("".join)


@given(st.lists(st.one_of(st.none(), text)))
def test_words_are_those_of_str_split(texts):
    counts = WordCount()(texts).kept["word_count"].to_pylist() if texts else []
    assert counts == [len((t or "").split()) for t in texts]


def test_every_kind_of_whitespace_ends_a_word():
    assert len(SPACES) == 29
    assert WordCount()(["a".join(SPACES)]).kept["word_count"].to_pylist() == [28]


def test_a_slice_counts_its_own_rows():
    texts = pa.array(hostile_texts())
    whole = count_words(*offsets_and_bytes(texts)).tolist()
    assert count_words(*offsets_and_bytes(texts.slice(5, 7))).tolist() == whole[5:12]
