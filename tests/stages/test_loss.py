"""Losses as columns, beside transformers one text at a time."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_oracle import llama, notes, said, tokens_of
from tiny_models import texts as some_texts

from curate.errors import ColumnError, RecipeError
from curate.lm import ngram
from curate.recipe import loads
from curate.stages.loss import Loss
from curate.testing import check_stage, run_over

TEXTS = [*some_texts(25, longest=90), "", None, "a", "Zürich, 1999 👩‍👩‍👧‍👦!", " \n", some_texts(1, seed=1, longest=700)[0]]
UNREAD = "documents without a token to predict, and so without a loss"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("model"), TEXTS, longest=600)


@pytest.fixture(scope="module")
def grams(tmp_path_factory):
    return ngram.train([pa.array(TEXTS)]).save(tmp_path_factory.mktemp("grams") / "model")


def picked(logs, ids):
    return sum(logs[i, token] for i, token in enumerate(ids))


def docs(texts=TEXTS):
    return pa.table({"text": pa.array(texts, pa.string())})


def test_losses_are_those_of_transformers(model):
    stage = Loss(model=str(model), window=50, windows=True, per_token=40, mean=True, perplexity=True)
    rows = stage(docs()).kept
    for text, row in zip(TEXTS, rows.to_pylist(), strict=True):
        ids = tokens_of(model, text or "")
        if not ids:
            assert all(row[name] is None for name in stage.writes().names)
            continue
        cut = [ids[at : at + 50] for at in range(0, len(ids), 50)]
        each = [-picked(said(model, part), part) for part in cut]
        assert row["nll"] == pytest.approx(sum(each), abs=1e-4 * len(ids))
        assert row["nll_tokens"] == len(ids)
        assert row["nll_mean"] == row["nll"] / len(ids)
        assert row["nll_perplexity"] == pytest.approx(np.exp(sum(each) / len(ids)), rel=1e-4)
        assert row["nll_windows"] == pytest.approx(each, abs=1e-4 * 50)
        assert sum(row["nll_windows"]) == row["nll"]  # to the bit
        assert row["nll_window_tokens"] == [len(part) for part in cut]
        ends = row["nll_window_ends"]
        assert ends == sorted(ends) and ends[-1] == len(text.encode())
        for begin, end in zip([0, *ends], ends, strict=False):
            text.encode()[begin:end].decode()
        first = ids[:40]
        assert row["nll_token_ids"] == first
        logs = said(model, first)
        assert row["nll_token_logprobs"] == pytest.approx([logs[i, t] for i, t in enumerate(first)], abs=1e-4)


def test_types_and_names(model, grams):
    stage = Loss(model={"big": str(model), "small": str(grams)}, windows=True, per_token=3)
    result = stage(docs()).kept
    assert result.schema.field("nll_big").type == result.schema.field("nll_small").type == pa.float64()
    kinds = {
        "tokens": pa.int32(), "windows": pa.list_(pa.float64()), "window_tokens": pa.list_(pa.uint16()),
        "window_ends": pa.list_(pa.uint32()), "token_ids": pa.list_(pa.int32()), "token_logprobs": pa.list_(pa.float32()),
    }  # fmt: skip
    for name, kind in kinds.items():
        assert result.schema.field(f"nll_big_{name}").type == kind
        assert stage.writes().field(f"nll_small_{name}").type == kind
    alone = Loss(model=str(grams), into="nll_small", windows=True, per_token=3)(docs()).kept
    assert alone.column("nll_small_windows").equals(result.column("nll_small_windows"))


def test_an_ngram_model_that_is_there_and_one_that_is_trained(grams):
    given = Loss(model=str(grams))(docs()).kept["nll"]
    trained = Loss(model="ngram", texts=tuple(t for t in TEXTS if t))(docs()).kept["nll"]
    assert given.equals(trained)
    wanted = -ngram.load(grams, "test").token_losses(pa.array(TEXTS[:1]), 10_000).logprobs.astype(float).sum()
    assert given[0].as_py() == pytest.approx(wanted, rel=1e-5)


def test_a_model_of_reference_files_finds_what_is_like_them(tmp_path):
    (tmp_path / "cells.jsonl").write_text(json.dumps({"text": "The cell divides and its nucleus divides."}) + "\n")
    found = Loss(reference=str(tmp_path / "cells.jsonl"), mean=True)(["The nucleus divides.", "WIN a free phone!"]).kept
    assert found["nll_mean"][0].as_py() < found["nll_mean"][1].as_py()


def test_texts_without_tokens_are_null_and_counted(model, grams):
    table = docs(["a text", "", None])
    assert notes(Loss(model=str(model)), table) == {UNREAD: 2}
    assert notes(Loss(model={"a": str(model), "b": str(grams)}), table) == {f"{UNREAD} of nll_a": 2, f"{UNREAD} of nll_b": 2}
    found = Loss(model=str(model), windows=True, per_token=2)(table).kept
    for name in Loss(model=str(model), windows=True, per_token=2).writes().names:
        assert found[name].is_null().to_pylist() == [False, True, True]


def test_what_no_token_stands_before_is_not_predicted(tmp_path, model):
    folder = tmp_path / "bare"
    shutil.copytree(model, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        held = (folder / name).read_text().replace("<|endoftext|>", "<none>")
        if name != "tokenizer.json":
            kept = {k: v for k, v in json.loads(held).items() if k not in ("bos_token", "eos_token")}
            held = json.dumps(kept | ({"bos_token_id": None, "eos_token_id": None} if name == "config.json" else {}))
        (folder / name).write_text(held)
    stage = Loss(model=str(folder), window=20, windows=True)
    found = stage(docs()).kept.to_pylist()
    for text, row in zip(TEXTS, found, strict=True):
        ids = tokens_of(model, text or "")
        if len(ids) < 2:
            assert row["nll"] is None and row["nll_windows"] is None
            continue
        cut = [ids[at : at + 20] for at in range(0, len(ids), 20)]
        assert row["nll_window_tokens"] == [len(part) - 1 for part in cut]
        each = [-picked(said(model, part, separator=False), part[1:]) for part in cut]
        assert row["nll"] == pytest.approx(sum(each), abs=1e-4 * len(ids))
    assert notes(stage, docs()) == {UNREAD: sum(len(tokens_of(model, text or "")) < 2 for text in TEXTS)}


@pytest.mark.parametrize("more", [{}, {"windows": True, "per_token": 30}])
def test_no_shard_or_batch_changes_a_bit(model, grams, more):
    stage = Loss(model={"a": str(model), "b": str(grams)}, window=40, **more)
    whole = run_over(stage, docs()).rows
    for shards, batch in ((1, 1), (3, 7)):
        assert run_over(stage, docs(), shards, batch).rows.equals(whole)


def test_conformance_with_transformers(model):
    check_stage(Loss(model=str(model), windows=True, mean=True, perplexity=True), docs())


@pytest.mark.parametrize("trained", [True, False])
def test_runs_are_the_same_with_any_number_of_workers(tmp_path, grams, trained):
    (tmp_path / "in").mkdir()
    texts = some_texts(240)
    for i in range(3):
        pq.write_table(docs(texts[80 * i : 80 * i + 80]), tmp_path / "in" / f"{i}.parquet")
    pq.write_table(docs(some_texts(50, seed=3)), tmp_path / "reference.parquet")
    what = f"reference: {tmp_path / 'reference.parquet'}" if trained else f"model: {grams}"
    recipe = loads(
        f"name: w\nsource: auto\nstages:\n  - loss: {{{what}, windows: true}}\n"
        "  - loss_weights: {}\n  - where: {sql: nll / nll_tokens < 3}\noutput: {validation: 0}\n"
    )
    found = []
    for workers in (1, 2):
        run = recipe.with_inputs([str(tmp_path / "in")])
        run.run(tmp_path / f"run{workers}", executor="inline" if workers == 1 else "local", workers=workers)
        layers = sorted((tmp_path / f"run{workers}" / "attributes").glob("loss*/*.parquet"))
        found.append([path.read_bytes() for path in layers])
        assert len(layers) >= 2
    assert found[0] == found[1]
    kept = pa.concat_tables(pq.read_table(p) for p in (tmp_path / "run1" / "output").rglob("*.parquet"))
    assert 0 < len(kept) < 240
    assert all(n / t < 3 for n, t in zip(kept["nll"].to_pylist(), kept["nll_tokens"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"model": ""}, "model is empty"),
        ({"model": {}}, "model is empty"),
        ({"model": {"a": ""}}, "model is empty"),
        ({"model": "x", "texts": ("a",)}, "`reference` and `texts` are what `model: ngram`"),
        ({"window": 0}, "window is 0"),
        ({"window": 1 << 16}, "window is 65536"),
        ({"per_token": -1}, "per_token is -1"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"into": "_nll"}, "into is '_nll'"),
        ({"reference": ("",)}, "reference is the name"),
    ],
)
def test_wrong_parameters(wrong, said):
    with pytest.raises(RecipeError, match=f"loss: {said}"):
        Loss(**wrong)


def test_what_is_known_before_anything_runs(tmp_path, model):
    with pytest.raises(RecipeError, match="loss: give `reference`"):
        Loss()(["a"])
    with pytest.raises(RecipeError, match="loss: no such model: nowhere"):
        Loss(model="nowhere")(["a"])
    with pytest.raises(RecipeError, match=r"loss: .* reads at most 600 tokens at a time, not 700"):
        Loss(model=str(model), window=700)(["a"])
    with pytest.raises(RecipeError, match=r"at most 600 tokens at a time, not 1,000"):
        Loss(model=str(model), per_token=1000)(["a"])
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(RecipeError, match=r"loss: ngram: .*empty.*empty\.jsonl"):
        Loss(reference=str(tmp_path / "empty.jsonl"))(["a"])
    with pytest.raises(RecipeError, match="'nll_a_tokens' would be written twice"):
        Loss(model={"a": "x", "a_tokens": "y"}).writes()
    with pytest.raises(ColumnError):
        Loss(texts=("a",))(pa.table({"id": ["1"]}))
