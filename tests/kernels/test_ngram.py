"""Pieces, tokens, counts and sums of n-grams against plain Python."""

from collections import Counter
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngram_oracle import START, grams_of, index_of, pieces_of, tokens_of

from curate.kernels import ngram
from curate.langid import spans

ALPHABET = "aAbZ09_ .,!-\n\tÄéΣßİ\u0301\u0130漢字かな\u00a0\u2028€😀ก้"
texts = st.one_of(
    st.none(),
    st.text(alphabet=ALPHABET, max_size=40),
    st.text(alphabet=" \n\t\u00a0a.", max_size=60),
    st.lists(st.sampled_from(["the", "cat", "sat,", "2026", "19999", "!!", "-" * 40, " " * 20, "mat\n"]), max_size=20).map(
        " ".join
    ),
)
many = st.lists(texts, max_size=6)
words = st.lists(st.sampled_from(["the", " the", " cat", "at", " 2026", "漢", "ca", " ", "\n", "é", "!!", "sa"]), unique=True)


def strings(rows):
    return spans(pa.array(rows, pa.string()))


def found_in(pieces, letters):
    """{bytes: count} of the slots that `count_pieces` and `count_fragments` fill."""
    taken = pieces[0][pieces[0][:, 0] > 0]
    assert len(taken) == pieces[1]
    where = [(int(place) >> 8, int(place) & 0xFF) for place in taken[:, 2]]
    return {letters[at : at + size].tobytes(): int(n) for (at, size), n in zip(where, taken[:, 1], strict=True)}


@given(many)
def test_pieces_are_those_of_the_oracle(rows):
    expected = Counter(p.encode() for row in rows for p in pieces_of(row or "") if len(p.encode()) <= ngram.LONGEST)
    starts, ends, data = strings(rows)
    assert found_in(ngram.count_pieces(starts, ends, data, ngram.no_pieces(), 0), data) == expected
    half = len(rows) // 2
    first = ngram.count_pieces(starts[:half], ends[:half], data, ngram.no_pieces(), 0)
    assert found_in(ngram.count_pieces(starts[half:], ends[half:], data, first, 0), data) == expected


@given(texts)
def test_pieces_are_all_of_a_text(row):
    assert "".join(pieces_of(row or "")) == (row or "")


def test_what_pieces_are():
    text = "Don't  stop_me: 12345 km\n\n  x = [[漢字]]  "
    assert pieces_of(text) == [
        *["Don", "'", "t", " ", " stop_me", ":", " 1234", "5", " km", "\n\n ", " x", " =", " [[", "漢", "字", "]]", "  "]
    ]


def test_more_pieces_than_there_were_slots():
    row = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(5000))
    data = strings([row])
    assert found_in(ngram.count_pieces(*data, ngram.no_pieces(), 0), data[2]) == Counter(p.encode() for p in pieces_of(row))


@given(st.lists(st.text(alphabet="abé漢😀 ", min_size=1, max_size=12), max_size=8))
def test_fragments_are_those_of_the_oracle(rows):
    expected = Counter(
        row[a:b].encode()
        for row in rows
        for a in range(len(row))
        for b in range(a + 1, len(row) + 1)
        if 2 <= len(row[a:b].encode()) <= ngram.FRAGMENT
    )
    letters, bounds = index_of(rows)
    assert found_in(ngram.count_fragments(letters, bounds), letters) == expected


@given(many, words, st.sampled_from([1, 2, 3, 512]))
def test_tokens_are_those_of_the_oracle(rows, vocabulary, window):
    letters, bounds = index_of(vocabulary)
    ids, of_texts, cuts, of_cuts = ngram.encode(*strings(rows), *ngram.index_words(letters, bounds), window)
    for i, row in enumerate(rows):
        expected = tokens_of(row or "", vocabulary)
        mine = ids[of_texts[i] : of_texts[i + 1]].tolist()
        assert mine == expected
        raw = (row or "").encode()
        spelled = [bytes([t]) if t < 256 else vocabulary[t - 256].encode() for t in mine]
        assert b"".join(spelled) == raw
        ends = []
        for last in range(window, len(mine) + window, window):
            at = len(b"".join(spelled[:last]))
            while at < len(raw) and raw[at] & 0xC0 == 0x80:
                at += 1
            ends.append(at)
        assert cuts[of_cuts[i] : of_cuts[i + 1]].tolist() == ends


def counted(runs, order, vocabulary, room=5000, at_once=100):
    """(nodes, how many are taken) of runs."""
    base = vocabulary + 1
    nodes = np.zeros((base + room, ngram.COLUMNS), np.uint32)
    taken = base
    slots = ngram.slots_of(nodes, base, taken)
    for first in range(0, len(runs), at_once):
        part = runs[first : first + at_once]
        bounds = np.concatenate([[0], np.cumsum([len(run) for run in part])]).astype(np.int64)
        done, taken = ngram.count(np.array(list(chain(*part)), np.int32), bounds, 0, order, nodes, base, taken, slots)
        assert done == len(part)
    return nodes, taken


def named(nodes, base, taken):
    """The tokens of each node."""
    names = [(token,) for token in range(base - 1)] + [(START,)]
    for node in range(base, taken):
        names.append((*names[nodes[node, ngram.PARENT]], int(nodes[node, ngram.LAST])))
    return names


runs_of_tokens = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=20), max_size=8)


@given(runs_of_tokens, st.integers(1, 5))
def test_counts_are_those_of_the_oracle(runs, order):
    nodes, taken = counted(runs, order, 6)
    raw, used = grams_of(runs, order)
    names = named(nodes, 7, taken)
    assert len(set(names)) == taken
    assert {names[i]: n for i, n in enumerate(nodes[:taken, ngram.RAW].tolist()) if n} == {
        gram: n for by_order in raw for gram, n in by_order.items()
    }
    assert {names[i]: n for i, n in enumerate(nodes[:taken, ngram.USED].tolist()) if n} == {
        gram: n for by_order in used for gram, n in by_order.items()
    }
    for node in range(7, taken):
        assert names[nodes[node, ngram.SUFFIX]] == names[node][1:]
    assert ngram.levels_of(nodes, 7, taken).tolist() == [len(name) for name in names]


@given(runs_of_tokens, st.integers(2, 4))
def test_how_runs_are_cut_into_calls_changes_nothing(runs, order):
    nodes, taken = counted(runs, order, 6)
    others, as_many = counted(runs, order, 6, at_once=1)
    assert taken == as_many and np.array_equal(nodes, others)


def test_a_run_for_which_there_is_no_room_is_not_begun():
    nodes = np.zeros((7 + 10, ngram.COLUMNS), np.uint32)
    slots = ngram.slots_of(nodes, 7, 7)
    ids, bounds = np.array([0, 1, 2, 3, 4, 5], np.int32), np.array([0, 3, 6])
    assert ngram.count(ids, bounds, 0, 3, nodes, 7, 7, slots) == (1, 7 + 5)
    assert nodes[3:6, ngram.RAW].tolist() == [0, 0, 0]


@given(runs_of_tokens, st.integers(2, 4), st.integers(1, 3), st.integers(0, 2))
def test_what_is_forgotten_is_lost_to_its_context(runs, order, short, more):
    nodes, taken = counted(runs, order, 6)
    before, names = nodes[:taken].copy(), named(nodes, 7, taken)
    least = np.array([0, 0, *np.minimum(np.arange(order - 1) * more + short, 9)], np.int64)
    gone = np.zeros((order + 1, 6), np.int64)
    kept = ngram.forget(nodes, 7, taken, ngram.levels_of(nodes, 7, taken), least, gone)
    stay = [name for node, name in enumerate(names) if node < 7 or before[node, ngram.RAW] >= least[len(name)]]
    assert named(nodes, 7, kept) == stay
    number = {name: node for node, name in enumerate(names)}
    lost = Counter()
    for node, name in enumerate(names):
        if name not in stay:
            lost[name[:-1]] += int(before[node, ngram.USED])
            assert not any(other[1:] == name for other in stay if len(other) > len(name))
    for node, name in enumerate(stay):
        assert nodes[node, ngram.RAW] == before[number[name], ngram.RAW]
        assert nodes[node, ngram.LOST] == lost[name]
        if node >= 7:
            assert stay[nodes[node, ngram.SUFFIX]] == name[1:]
    assert gone.sum() == len(names) - len(stay)
    assert not nodes[kept:].any()
    levels = ngram.levels_of(nodes, 7, kept)
    tallies = ngram.tally(nodes, 7, kept, levels, gone)
    for level in range(2, order + 1):
        counts = [min(int(n), 5) for n, name in zip(before[:, ngram.USED], names, strict=True) if len(name) == level]
        assert tallies[level].tolist() == np.bincount(counts, minlength=6).tolist()


def test_sums_and_mixtures():
    values = np.log(np.array([0.5, 0.25, 0.125, 1e-300]))
    others = np.log(np.array([0.1, 0.2, 0.3, 1e-280]))
    assert ngram.sums(values, np.array([0, 2, 4])) == pytest.approx([values[:2].sum(), values[2:].sum()])
    assert ngram.mix(values, others, (0.25, 0.75))[:3] == pytest.approx(
        np.log(0.25 * np.exp(values) + 0.75 * np.exp(others))[:3]
    )
    assert ngram.mix(values, others, (0.25, 0.75))[3] == pytest.approx(np.log(0.75) - 280 * np.log(10))
