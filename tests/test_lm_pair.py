"""Pairs of a prior and a conditional model, of n-grams and of transformers."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from corpus import rows

from curate import lm
from curate.errors import RecipeError, SourceError
from curate.lm import ngram, pair

POOL = [pa.array([row["text"] for row in rows(12, seed)]) for seed in (1, 2)]
TARGET = [pa.array([f"the nucleus of cell {i} divides" for i in range(40)]), pa.array(["a gene of the cell"] * 20)]
LIKE = pa.array(["the nucleus of cell 77 divides", "the gene of a nucleus"])


def digest(folder):
    return [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(folder.iterdir()) if "training" not in p.name]


def mean_loss(folder, texts, window=64):
    found = lm.load(str(folder), device="cpu").losses(texts, window)
    return found.nll.sum() / found.tokens.sum()


def test_ngram(tmp_path):
    prior, conditional = pair.train_pair("ngram", POOL, TARGET, tmp_path / "a")
    assert (prior, conditional) == (tmp_path / "a" / "prior", tmp_path / "a" / "conditional")
    assert mean_loss(conditional, LIKE) < mean_loss(prior, LIKE) - 0.5
    assert mean_loss(conditional, POOL[0]) > mean_loss(prior, POOL[0])
    again = pair.train_pair("ngram", POOL, TARGET, tmp_path / "b")
    assert [digest(folder) for folder in again] == [digest(prior), digest(conditional)]
    expected = ngram.load(prior, "t").losses(LIKE).nll
    np.testing.assert_allclose(ngram.train(POOL).losses(LIKE).nll, expected)


def test_what_is_whole_is_not_trained_again(tmp_path, monkeypatch):
    before = [digest(folder) for folder in pair.train_pair("ngram", POOL, TARGET, tmp_path)]
    monkeypatch.setattr(ngram, "train", None)  # would raise
    assert [digest(folder) for folder in pair.train_pair("ngram", POOL, TARGET, tmp_path)] == before
    other = pair.train_pair("", [], TARGET, tmp_path / "b", prior=tmp_path / "prior")
    assert other[0] == tmp_path / "prior" and digest(other[1]) == before[1]


def test_the_tokens_of_another(tmp_path):
    first = pair.train_pair("ngram", POOL[:1], TARGET, tmp_path / "a")[0]
    second = pair.train_pair("ngram", POOL[1:], TARGET, tmp_path / "b", like=first)[0]
    assert ngram.load(first, "t").digest == ngram.load(second, "t").digest
    assert (
        ngram.load(first, "t").digest != ngram.load(pair.train_pair("ngram", POOL[1:], TARGET, tmp_path / "c")[0], "t").digest
    )


def test_transformers(tmp_path):
    pytest.importorskip("torch")
    prior, conditional = pair.train_pair("1m", POOL, TARGET, tmp_path, window=64, device="cpu", progress=False)
    assert (prior / "tokenizer.json").read_bytes() == (conditional / "tokenizer.json").read_bytes()
    assert mean_loss(conditional, LIKE) < mean_loss(prior, LIKE) - 0.5
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    pair.train_pair("1m", POOL, TARGET, tmp_path, window=64, device="cpu", progress=False)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}.items() <= stamps.items()


def test_what_cannot_be(tmp_path):
    with pytest.raises(RecipeError, match=r"models is '2m'; .*prior"):
        pair.train_pair("2m", POOL, TARGET, tmp_path)
    with pytest.raises(SourceError, match="empty"):
        pair.train_pair("ngram", [], TARGET, tmp_path / "a")
    with pytest.raises(SourceError, match="empty"):
        pair.train_pair("ngram", POOL, [pa.array(["", None])], tmp_path / "b")
