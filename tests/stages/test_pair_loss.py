"""pair_loss: what models lose beside what they say one by one, how they are trained, and that nothing depends on shards."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpus import rows
from lm_oracle import llama, said, tokens_of

from curate import lm
from curate.errors import RecipeError, StageError
from curate.lm import ngram, pair
from curate.memory import as_table
from curate.plan import fingerprint_of
from curate.recipe import loads
from curate.selection import hashes_of
from curate.stages.pair_loss import PairLoss
from curate.testing import check_stage, run_over

TARGET = ("the nucleus of the cell divides", "a gene of the cell", "cells have a nucleus", "the cell and its genes")
COLUMNS = ["nll_prior", "nll_conditional", "loss_tokens"]


def pool(n=60, seed=0):
    found = [row["text"] for row in rows(n, seed)]
    return as_table(pa.table({"text": pa.array([*found, "", None, *TARGET[:2]], pa.string())}))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a prior and a conditional n-gram model."""
    texts = [row["text"] for row in rows(40, 1)]
    return pair.train_pair("ngram", [pa.array(texts)], [pa.array(TARGET)], tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def llamas(tmp_path_factory):
    """Two transformers of one tokenizer."""
    folder = tmp_path_factory.mktemp("llamas")
    texts = [row["text"] for row in rows(30, 1)]
    made = [llama(folder / name, texts, seed=seed) for seed, name in enumerate(("prior", "conditional"))]
    assert (made[0] / "tokenizer.json").read_bytes() == (made[1] / "tokenizer.json").read_bytes()
    return made


def test_columns_are_what_the_models_lose(models):
    table = pool(20)
    stage = PairLoss(prior=str(models[0]), conditional=str(models[1]), window=16)
    found = run_over(stage, table, shards=3, batch=5).rows
    for text, row in zip(table["text"].to_pylist(), found.to_pylist(), strict=True):
        if not text:
            assert {row[name] for name in stage.writes().names} == {None}
            continue
        for model, name in zip(models, ("prior", "conditional"), strict=True):
            losses = lm.load(str(model)).losses(pa.array([text]), 16)
            assert row[f"nll_{name}"] == pytest.approx(losses.nll.sum(), rel=1e-12)
            assert row[f"window_{name}"] == losses.nll.astype(np.float32).tolist()
        assert row["window_tokens"] == losses.tokens.tolist() and row["loss_tokens"] == losses.tokens.sum()
        assert row["window_ends"] == losses.ends.tolist() and row["window_ends"][-1] == len(text.encode())


def test_transformers_beside_a_slow_oracle(llamas):
    """One window at a time, by transformers."""
    table = as_table(pa.table({"text": [rows(3, 5)[i]["text"][:400] for i in range(3)]}))
    found = PairLoss(prior=str(llamas[0]), conditional=str(llamas[1]), window=32, device="cpu")(table).kept
    for i, text in enumerate(table["text"].to_pylist()):
        ids = tokens_of(llamas[0], text)
        assert found["loss_tokens"][i].as_py() == len(ids)
        for folder, name in zip(llamas, ("nll_prior", "nll_conditional"), strict=True):
            expected = 0.0
            for at in range(0, len(ids), 32):
                window = ids[at : at + 32]
                expected -= said(folder, window)[np.arange(len(window)), window].sum()
            assert abs(found[name][i].as_py() - expected) < 1e-4 * len(ids)


def test_it_does_not_depend_on_shards_batches_or_the_order_of_documents():
    table = pool()
    first = run_over(PairLoss(texts=TARGET), table)
    for shards, batch in ((3, 7), (5, 1)):
        assert run_over(PairLoss(texts=TARGET), table, shards=shards, batch=batch).rows.equals(first.rows)
    turned = table.take(pa.array(range(len(table))[::-1]))
    again = run_over(PairLoss(texts=TARGET), turned).rows.select(COLUMNS)
    assert again.take(pa.array(range(len(table))[::-1])).equals(first.rows.select(COLUMNS))


def test_a_target_lowers_the_loss_of_what_is_like_it():
    kept = PairLoss(texts=TARGET, folds=1)(pool(300)).kept
    gain = (kept["nll_prior"].to_numpy() - kept["nll_conditional"].to_numpy()) / kept["loss_tokens"].to_numpy()
    assert np.nanmin(gain[-2:]) > np.nanmax(gain[:-4]) and np.isnan(gain[-4:-2]).all()


@pytest.mark.parametrize("folds", [2, 3])
def test_no_document_is_scored_by_a_prior_that_has_counted_it(folds):
    """Each prior is one of the other parts alone, with the tokens of the first."""
    table = pool(40)
    stage = PairLoss(texts=TARGET, folds=folds)
    found = run_over(stage, table).rows
    hashes = hashes_of(table["id"].combine_chunks(), stage.seed, "pair_loss.fold")
    part = (hashes % np.uint64(folds)).astype(int)
    order = np.argsort(hashes_of(table["id"].combine_chunks(), stage.seed, "pair_loss.sample"), kind="stable")
    first = None
    for k in range(folds):
        texts = table["text"].combine_chunks().take(pa.array(order[part[order] != k]))
        prior = ngram.train([texts], units=first)
        first = first or prior
        mine = np.flatnonzero(part == k)
        losses = prior.losses(table["text"].combine_chunks().take(pa.array(mine)), lm.WINDOW)
        nll, tokens = losses.documents()
        np.testing.assert_allclose(found["nll_prior"].to_numpy()[mine], np.where(tokens, nll, np.nan), rtol=1e-9)


def test_the_sample_is_as_large_as_it_is_said_to_be(tmp_path):
    table = pool(400)
    pq.write_table(table.select(["id", "text"]), tmp_path / "in.parquet")
    body = "name: x\nsource: auto\nstages:\n  - pair_loss: {texts: [the cell], folds: 1, sample: %d}\n"
    mean = pc.mean(table["tokens"]).as_py()
    for sample in (40_000, 10_000_000):
        run = tmp_path / f"run{sample}"
        loads(body % sample).with_inputs([str(tmp_path / "in.parquet")]).run(run, executor="inline")
        notes = {k: v for s in json.loads((run / "summary.json").read_text())["stages"] for k, v in s.get("notes", {}).items()}
        learned = notes["documents of the pool that the prior learned from"]
        assert learned == pytest.approx(min(sample / mean, 402), rel=0.2)
        assert notes["texts of the target that the conditional model learned from"] == 1


def test_models_that_are_kept_can_be_given_to_another_run(tmp_path):
    table = pool(50).slice(0, 50)
    pq.write_table(table.select(["id", "text"]), tmp_path / "in.parquet")
    body = "name: x\nsource: auto\nstages:\n  - pair_loss: {%s}\n"
    found = []
    for name, given in (("a", "texts: [the cell divides], folds: 1"), ("b", "prior: %s, conditional: %s")):
        if name == "b":
            kept = next((tmp_path / "a" / "index").iterdir())
            assert sorted(p.name for p in kept.iterdir()) == ["conditional", "prior"]
            given = given % (kept / "prior", kept / "conditional")
        recipe = loads(body % given).with_inputs([str(tmp_path / "in.parquet")])
        recipe.run(tmp_path / name, executor="inline")
        found.append(pq.read_table(next((tmp_path / name / "output" / "data").glob("*.parquet"))).select(COLUMNS))
    assert found[0].equals(found[1]) and found[0]["nll_prior"].null_count == 0


def test_a_prior_alone_is_adapted(models):
    table = pool(30)
    given = PairLoss(prior=str(models[0]), conditional=str(models[1]))(table).kept.select(COLUMNS)
    assert PairLoss(prior=str(models[0]), texts=TARGET)(table).kept.select(COLUMNS).equals(given)
    alone = PairLoss(conditional=str(models[1]), score="conditional", prefix="t_")(table).kept
    assert alone["t_nll_conditional"].equals(given["nll_conditional"]) and "t_nll_prior" not in alone.column_names


def test_a_transformer_alone_is_adapted(llamas):
    table = pool(10)
    found = PairLoss(prior=str(llamas[0]), texts=TARGET, window=16, device="cpu")(table).kept
    both = PairLoss(prior=str(llamas[0]), conditional=str(llamas[1]), window=16, device="cpu")(table).kept
    assert found["nll_prior"].equals(both["nll_prior"])
    assert not found["nll_conditional"].equals(found["nll_prior"])


def test_what_does_not_decide_leaves_the_fingerprint_alone(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"text": "the cell"}\n')
    one, other = (fingerprint_of(PairLoss(target=str(tmp_path / name)), "") for name in ("a.jsonl", "b.jsonl"))
    assert one == other
    (tmp_path / "b.jsonl").write_text('{"text": "another"}\n')
    assert fingerprint_of(PairLoss(target=str(tmp_path / "b.jsonl")), "") != one


# --------------------------------------------------------------------------------------------- what cannot be


def test_targets_that_hold_nothing(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": " "}\n{"text": ""}\n')
    with pytest.raises(StageError, match=r"pair_loss: the target holds no text \(.*t\.jsonl"):
        PairLoss(target=str(tmp_path / "t.jsonl"))(pool(3))
    with pytest.raises(RecipeError, match="pair_loss: give `target`"):
        PairLoss()(pool(3))
    with pytest.raises(StageError, match="no document is left for the prior to learn from"):
        PairLoss(texts=("a",), folds=1)(pool(3).slice(0, 0))


def test_models_that_do_not_go_together(models, llamas, tmp_path):
    other = pair.train_pair("ngram", [pa.array(["other words altogether, other words"])], [pa.array(["words"])], tmp_path / "p")
    with pytest.raises(RecipeError, match="cut texts into different tokens"):
        PairLoss(prior=str(models[0]), conditional=str(other[1]))(pool(3))
    with pytest.raises(RecipeError, match="an n-gram model and a transformer cannot be compared"):
        PairLoss(prior=str(models[0]), conditional=str(llamas[1]))(pool(3))
    with pytest.raises(RecipeError, match=r"reads at most 256 tokens at a time, not 512"):
        PairLoss(prior=str(llamas[0]), conditional=str(llamas[1]))(pool(3))
    strange = llama(tmp_path / "strange", ["0123456789 " * 5, "zyxwvu zyx " * 9])
    with pytest.raises(RecipeError, match="cut texts into different tokens"):
        PairLoss(prior=str(llamas[0]), conditional=str(strange), window=64)(pool(3))


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"pair_loss: no such model: .*gone"):
        PairLoss(prior=str(tmp_path / "gone"), conditional=str(tmp_path / "gone"))(pool(3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": "2m"}, {"models": ""}, {"target": ""}, {"column": ""}, {"conditional": "x"}, {"sample": -1}, {"folds": -1},
        {"window": 0}, {"window": 1 << 16}, {"device": "tpu"}, {"prefix": "_x"}, {"score": "prior"},
    ],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="pair_loss: "):
        PairLoss(**{"texts": ("a",), **wrong})


@pytest.mark.parametrize(
    "stage", [PairLoss(texts=TARGET, folds=1, sample=50, prefix="p_"), PairLoss(texts=TARGET, score="conditional", window=8)]
)
def test_conformance(stage):
    check_stage(stage)
