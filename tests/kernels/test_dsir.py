"""Hashed words and runs of words against a tokeniser and hashes in plain Python."""

import math

import numpy as np
import pyarrow as pa
import pytest
from dsir_oracle import features, words_of
from hypothesis import given
from hypothesis import strategies as st

from curate.kernels import dsir
from curate.langid import spans

texts = st.one_of(
    st.none(),
    st.text(alphabet="aAbZ09_ .,!-\n\tÄéΣßİ\u0301\u0130漢字かな\u00a0\u2028€😀", max_size=40),
    st.text(alphabet=st.characters(max_codepoint=0x24F), max_size=20),
    st.lists(st.sampled_from(["the", "cat", "sat,", "on", "THE", "mat!"]), max_size=60).map(" ".join),
)
many = st.lists(texts, max_size=6)


@given(many, st.integers(1, 4), st.sampled_from([2, 97, 10_000]))
def test_counts(rows, ngrams, buckets):
    expected = np.zeros(buckets, np.int64)
    for row in rows:
        np.add.at(expected, features(words_of(row), ngrams, buckets), 1)
    found = np.zeros(buckets, np.int64)
    total = dsir.count(*spans(pa.array(rows, pa.string())), ngrams, found)
    assert found.tolist() == expected.tolist()
    assert total == sum(len(words_of(row)) for row in rows)
    assert found.sum() == sum(dsir.features_of(len(words_of(row)), ngrams) for row in rows)


@given(many, st.integers(1, 3), st.sampled_from([dsir.ONE, dsir.NORMALISED, dsir.PIECES]), st.sampled_from([2, 5, 128]))
def test_weights(rows, ngrams, how, piece):
    table = np.random.default_rng(1).normal(size=97) * 10
    weights, lengths = dsir.weigh(*spans(pa.array(rows, pa.string())), table, ngrams, how, piece)
    full = sum(max(piece - k, 0) for k in range(ngrams))

    def mean(words):
        values = [table[b] for b in features(words, ngrams, 97)]
        return sum(values) / len(values) * full

    for row, weight, length in zip(rows, weights.tolist(), lengths.tolist(), strict=True):
        words = words_of(row)
        assert length == len(words)
        if not words:
            assert math.isnan(weight)
            continue
        if how == dsir.ONE:
            expected = sum(table[b] for b in features(words, ngrams, 97))
        elif how == dsir.NORMALISED:
            expected = mean(words)
        else:
            n = -(-len(words) // piece)
            parts = [mean(words[len(words) * p // n : len(words) * (p + 1) // n]) for p in range(n)]
            top = max(parts)
            expected = top + math.log(sum(math.exp(v - top) for v in parts) / n)
        assert weight == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(many)
def test_a_text_does_not_depend_on_its_neighbours(rows):
    table = np.random.default_rng(2).normal(size=50)
    together = dsir.weigh(*spans(pa.array(rows, pa.string())), table, 2, dsir.PIECES, 4)[0]
    alone = [dsir.weigh(*spans(pa.array([row], pa.string())), table, 2, dsir.PIECES, 4)[0][0] for row in rows]
    assert np.array_equal(together, np.array(alone, np.float64), equal_nan=True)


def test_words():
    assert words_of("Don't stop_me, 漢字!") == ["don", "'", "t", "stop_me", ",", "漢", "字", "!"]
    data = spans(pa.array(["Don't stop_me, 漢字!"]))
    assert dsir.weigh(*data, np.zeros(5), 1, dsir.ONE, 2)[1].tolist() == [8]
