"""Scores of membership as columns: beside transformers one text at a time, and on a model that is known to have seen half."""

import argparse
import datetime
import decimal
import inspect
import json
import logging
import os
import shutil
import statistics
import subprocess
import textwrap
import unittest

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_oracle import llama, membership, notes
from tiny_models import texts as some_texts

from curate import audit
from curate.errors import RecipeError, StageError
from curate.lm import ngram
from curate.recipe import loads
from curate.stages.membership import Membership, first_words, percent
from curate.testing import check_stage, run_over

TEXTS = [*(text.capitalize() for text in some_texts(18, longest=60)), "", None, "short", "Zürich 👩‍👩‍👧‍👦 " * 20]
SHORT = "documents without scores: fewer than 32 tokens that the model predicts"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("model"), [t for t in TEXTS if t])


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("other"), [t for t in TEXTS if t], seed=1)


@pytest.fixture(scope="module")
def grams(tmp_path_factory):
    return ngram.train([pa.array(TEXTS)]).save(tmp_path_factory.mktemp("grams") / "model")


def docs(texts=TEXTS):
    return pa.table({"text": pa.array(texts, pa.string())})


def test_scores_are_those_of_the_definitions(model, other):
    stage = Membership(model=str(model), reference_model=str(other))
    found = stage(docs()).kept.to_pylist()
    short = 0
    for text, row in zip(TEXTS, found, strict=True):
        wanted = membership(model, text or "", TEXTS, other)
        names = [name for name in stage.writes().names if name != "membership_tokens"]
        if wanted is None:
            assert all(row[name] is None for name in names)
            short += 1
            continue
        assert {f"membership_{name}" for name in wanted} == set(names)
        for name, value in wanted.items():
            assert row[f"membership_{name}"] == pytest.approx(value, abs=1e-4, rel=1e-4), name
    assert 3 <= short < 12
    assert notes(stage, docs()) == {SHORT: short}


def test_frequencies_of_a_reference_corpus(tmp_path, model):
    pool = some_texts(30, seed=5)
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in pool))
    stage = Membership(model=str(model), reference=str(tmp_path / "pool.jsonl"), methods=("dc_pdd",))
    found = stage(docs()).kept["membership_dc_pdd"].to_pylist()
    own = Membership(model=str(model), methods=("dc_pdd",))(docs()).kept["membership_dc_pdd"].to_pylist()
    for text, score, without in zip(TEXTS, found, own, strict=True):
        wanted = membership(model, text or "", pool, model)
        assert (score is None) == (wanted is None)
        if wanted is not None:
            assert score == pytest.approx(wanted["dc_pdd"], rel=1e-4) != without


def test_only_the_first_tokens_of_the_reference_count(model):
    texts = TEXTS[:5]
    long = [text + " zzz" * 3000 for text in texts]
    stage = Membership(model=str(model), methods=("dc_pdd",), words=20, min_tokens=1, reference_tokens=30)
    cut = [text[:40] for text in texts]
    few = Membership(model=str(model), methods=("dc_pdd",), words=20, min_tokens=1, reference_tokens=10)
    one, again = (stage(docs(t)).kept["membership_dc_pdd"].to_pylist() for t in (long, [f"{t} zz" for t in long]))
    assert one == again
    assert few(docs(long)).kept["membership_dc_pdd"].to_pylist() != one
    assert few(docs(cut)).kept.num_rows == 5


def test_long_texts_are_cut(model):
    words = " ".join(f"w{i}" for i in range(60))
    stage = Membership(model=str(model), methods=("min_k", "zlib"), words=30, min_tokens=8)
    one, other = stage(docs([words, words + " and more"])).kept.drop_columns(["text", "id"]).to_pylist()
    assert {k: v for k, v in one.items() if "membership" in k} == {k: v for k, v in other.items() if "membership" in k}
    short = Membership(model=str(model), methods=("min_k",), max_tokens=9, min_tokens=8)
    assert short(docs([words])).kept["membership_tokens"].to_pylist() == [9]
    assert Membership(model=str(model), methods=("min_k",))(docs(["x y " * 2000])).kept["membership_tokens"].to_pylist() == [
        256
    ]


def test_first_words():
    assert first_words("one two  three\n four", 3) == "one two  three"
    assert first_words(" one ", 1) == " one"
    assert first_words("one two", 2) == first_words("one two", 9) == "one two"
    assert first_words("時鐘敲了 十三下", 5) == "時鐘敲了 十"
    assert first_words("abc時def", 2) == "abc時"
    assert first_words("", 1) == "" and first_words(" " * 50, 3) == " " * 50


def test_names_of_ratios(model):
    assert [percent(r) for r in (*audit.RATIOS, 0.125, 1.0, 0.29)] == "5 10 20 30 40 50 60 12_5 100 29".split()
    stage = Membership(
        model=str(model), methods=("min_k_plus_plus", "min_k"), ratios=(0.125,), plus_ratios=(0.1, 1), prefix="m_"
    )
    assert stage.writes().names == ["m_min_k_12_5", "m_min_k_plus_plus_10", "m_min_k_plus_plus_100", "m_tokens"]
    assert set(stage.writes().types) == {pa.float64(), pa.int32()}


def test_an_ngram_model_says_nothing_of_other_tokens(grams):
    stage = Membership(model=str(grams))
    assert not [name for name in stage.writes().names if "plus" in name]
    found = stage(docs()).kept
    short = [n < 32 for n in found["membership_tokens"].to_pylist()]
    assert found["membership_min_k_20"].is_null().to_pylist() == found["membership_dc_pdd"].is_null().to_pylist() == short
    assert 0 < sum(short) < len(TEXTS)
    with pytest.raises(RecipeError, match="membership: an n-gram model says nothing of tokens that do not stand there"):
        Membership(model=str(grams), methods=("min_k_plus_plus",))(docs())


@pytest.mark.parametrize("which", ["model", "grams"])
def test_no_shard_or_batch_changes_a_bit(request, which, other):
    stage = Membership(model=str(request.getfixturevalue(which)), reference_model=str(other))
    whole = run_over(stage, docs()).rows
    for shards, batch in ((1, 1), (3, 7)):
        assert run_over(stage, docs(), shards, batch).rows.equals(whole)


def test_conformance_with_transformers(model, other):
    check_stage(Membership(model=str(model), reference_model=str(other), max_tokens=64), docs())


def test_runs_are_the_same_with_any_number_of_workers(tmp_path, grams):
    (tmp_path / "in").mkdir()
    for i in range(3):
        pq.write_table(docs(some_texts(60, seed=i)), tmp_path / "in" / f"{i}.parquet")
    recipe = loads(f"name: w\nsource: auto\nstages:\n  - membership: {{model: {grams}}}\noutput: {{validation: 0}}\n")
    found = []
    for workers in (1, 2):
        run = recipe.with_inputs([str(tmp_path / "in")])
        run.run(tmp_path / f"run{workers}", executor="inline" if workers == 1 else "local", workers=workers)
        layers = sorted((tmp_path / f"run{workers}" / "attributes").glob("membership-*/*.parquet"))
        found.append([path.read_bytes() for path in layers])
        assert layers
    assert found[0] == found[1]


# --------------------------------------------------------------------------------------------- what it is for


def prose(n):
    """English that is always at hand: what modules of the standard library say about their parts, 200 characters of each."""
    found = {}
    for module in (argparse, datetime, decimal, logging, os, shutil, statistics, subprocess, textwrap, unittest):
        for name in sorted(vars(module)):
            said = " ".join((inspect.getdoc(vars(module)[name]) or "").split())
            if len(said) >= 200:
                found.setdefault(said[:60], said[:200])
    assert len(found) >= n
    return list(found.values())[:n]


def test_a_model_gives_away_what_it_was_trained_on(tmp_path):
    """It reads half of some texts for twenty epochs; the other half is of the same kind."""
    texts = prose(60)
    model = llama(tmp_path / "model", texts[::2], epochs=20, known=texts)
    data = docs(texts).append_column("member", pa.array([i % 2 == 0 for i in range(60)]))
    stage = Membership(model=str(model), methods=("min_k", "min_k_plus_plus", "dc_pdd", "perplexity", "zlib"), ratios=(0.2,))
    found = audit.evaluate(stage(data).kept)
    assert [f.members for f in found] == [f.others for f in found] == [30] * 5
    for separation in found[:3]:
        assert separation.auc > 0.8 and separation.auc_low > 0.65 and separation.tpr > 0.2, str(separation)
    for separation in found[3:]:
        assert separation.auc > 0.6, str(separation)


def test_an_ngram_model_gives_away_what_it_was_trained_on():
    texts = some_texts(60, longest=80)
    seen = texts[::2]
    data = docs(texts).append_column("member", pa.array([i % 2 == 0 for i in range(60)]))
    stage = Membership(model="ngram", texts=tuple(seen), methods=("min_k", "perplexity"), min_tokens=16)
    for found in audit.evaluate(stage(data).kept, bootstraps=200):
        assert found.auc_low > 0.7, str(found)


def test_a_model_that_has_seen_neither_tells_nothing(tmp_path):
    """Untrained weights: intervals hold a half."""
    texts = some_texts(80, longest=60)
    model = llama(tmp_path / "model", texts)
    data = docs(texts).append_column("member", pa.array([i % 2 == 0 for i in range(80)]))
    for found in audit.evaluate(
        Membership(model=str(model), methods=("min_k", "dc_pdd"), ratios=(0.2,))(data).kept, level=0.99
    ):
        assert found.auc_low < 0.5 < found.auc_high, str(found)


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"model": ""}, "model is empty"),
        ({"texts": ("a",)}, "`texts` are what"),
        ({"methods": ("mink",)}, "methods holds 'mink'"),
        ({"methods": ("min_k", "min_k")}, "methods names one twice"),
        ({"methods": ("reference",)}, "the method `reference` needs `reference_model`"),
        ({"methods": ("min_k",), "reference_model": "x"}, "`reference_model` is for"),
        ({"ratios": ()}, "ratios is"),
        ({"ratios": (0.2, 0.2)}, "ratios is"),
        ({"plus_ratios": (1.2,)}, "plus_ratios is"),
        ({"clip": 0}, "clip is 0"),
        ({"reference": ("",)}, "reference is the name"),
        ({"words": 0}, "reference_tokens, words and min_tokens"),
        ({"max_tokens": -1}, "reference_tokens, words"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"prefix": "_m"}, "prefix is '_m'"),
    ],
)
def test_wrong_parameters(wrong, said):
    with pytest.raises(RecipeError, match=f"membership: {said}"):
        Membership(**{"model": "x", **wrong})


def test_what_is_known_before_anything_runs(tmp_path, model):
    with pytest.raises(RecipeError, match="membership: give `texts`"):
        Membership(model="ngram")(["a"])
    with pytest.raises(RecipeError, match="membership: no such model: nowhere"):
        Membership(model="nowhere")(["a"])
    with pytest.raises(RecipeError, match="membership: reference_model is a model that is there"):
        Membership(model=str(model), reference_model="ngram")(["a"])
    with pytest.raises(RecipeError, match="reads at most 256 tokens at a time, not 300"):
        Membership(model=str(model), max_tokens=300)(["a"])
    with pytest.raises(RecipeError, match="`reference` is for the method `dc_pdd`"):
        Membership(model=str(model), methods=("min_k",), reference="x")(["a"])
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(StageError, match="the reference holds no tokens"):
        Membership(model=str(model), reference=str(tmp_path / "empty.jsonl"))(["a"])


def test_nothing_is_there():
    stage = Membership(model="ngram", texts=("a text",))
    assert stage(docs([])).kept.num_rows == 0
    assert stage(docs([None, ""])).kept["membership_dc_pdd"].to_pylist() == [None, None]
    assert np.array_equal(stage(docs([None, ""])).kept["membership_tokens"].to_numpy(), [0, 0])
