"""The n-gram model against one in plain Python: the same probabilities, which sum to one."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st
from ngram_oracle import KneserNey

from curate import lm
from curate.lm import ngram

WORDS = ["the", "cat", "sat", "on", "mat", "dog", "ran"]
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
corpora = st.lists(sentences, min_size=1, max_size=12)


def corpus(seed, texts=60, words=40, length=30):
    """Random texts with some structure, of words by a power law."""
    rng = np.random.default_rng(seed)
    names = [f"w{i}" for i in range(words)]
    out = []
    for _ in range(texts):
        at, found = 0, []
        for _ in range(int(rng.integers(1, length))):
            at = int((at * 3 + rng.zipf(1.6)) % words)
            found.append(names[at])
        out.append(" ".join(found))
    return out


def arrays(texts, size=7):
    return [pa.array(texts[i : i + size], pa.string()) for i in range(0, len(texts), size)]


def runs_of(model, texts, window=ngram.WINDOW):
    ids, bounds = model.encode(pa.array(texts, pa.string()))
    found = []
    for a, b in itertools.pairwise(bounds.tolist()):
        found += [ids[i : min(i + window, b)].tolist() for i in range(a, b, window)]
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("least", [1, 2])
def test_probabilities_are_those_of_the_oracle_and_sum_to_one(order, least):
    texts = corpus(order)
    model = ngram.train(arrays(texts), order=order, vocabulary=300, least=least)
    oracle = KneserNey(runs_of(model, texts), order, model.vocabulary, least)
    everything = list(range(model.vocabulary))
    contexts = [run[:n] for run in runs_of(model, corpus(99, texts=4)) for n in (0, 1, 2, 5)] + [[3, 3], [7, 260, 7]]
    for context in contexts:
        ids = np.array([[*context, token] for token in everything], np.int32)
        runs = np.arange(len(ids) + 1) * ids.shape[1]
        chances = np.exp(model.logprobs(ids.ravel(), runs)[ids.shape[1] - 1 :: ids.shape[1]])
        assert chances.sum() == pytest.approx(1, abs=2e-6)
        assert chances == pytest.approx([oracle.chance(context, token) for token in everything], rel=1e-5)


def test_losses_are_sums_of_what_its_tokens_have():
    texts = corpus(1)
    model = ngram.train(arrays(texts), vocabulary=280)
    some = pa.array([texts[0], "", None, "unheard of: ünïcode 漢字 " * 9, "w1", *texts[1:4]])
    for window in (1, 4, 7, 512):
        found = model.losses(some, window)
        ids, bounds = model.encode(some)
        for i, text in enumerate(some.to_pylist()):
            mine = slice(found.bounds[i], found.bounds[i + 1])
            runs = [ids[a : min(a + window, bounds[i + 1])] for a in range(bounds[i], bounds[i + 1], window)]
            expected = [-model.logprobs(run, np.array([0, len(run)])).sum() for run in runs]
            assert found.nll[mine] == pytest.approx(expected)
            assert found.tokens[mine].tolist() == [len(run) for run in runs]
            raw = (text or "").encode()
            ends = found.ends[mine].tolist()
            assert ends == sorted(ends) and (ends or [0])[-1] == len(raw)
            assert all(raw[:end].decode() is not None for end in ends)  # between two characters
        together = found.documents()[0]
        alone = [model.losses(pa.array([text], pa.string()), window).documents()[0][0] for text in some.to_pylist()]
        assert together.tolist() == alone
    tokens = model.token_losses(some, 5)
    assert np.diff(tokens.bounds).tolist() == np.minimum(np.diff(bounds), 5).tolist()
    assert tokens.logprobs[:5] == pytest.approx(model.logprobs(ids[:5], np.array([0, 5])), rel=1e-6)
    assert tokens.mean is None


def test_a_saved_model_says_the_same(tmp_path):
    texts = corpus(2)
    model = ngram.train(arrays(texts)).adapted(arrays(corpus(3)), 0.3)
    model.save(tmp_path / "a")
    again = lm.load(str(tmp_path / "a"))
    assert again.losses(pa.array(texts)).nll.tolist() == model.losses(pa.array(texts)).nll.tolist()
    ngram.train(arrays(texts, 1)).adapted(arrays(corpus(3), 100), 0.3).save(tmp_path / "b")
    again.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
