"""RHO-LOSS and RHO-down: what a learner still loses, less what an irreducible model loses, in steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from lm_oracle import llama

from curate.errors import CurateError, RecipeError, StageError
from curate.lm import ngram
from curate.recipe import Recipe
from curate.run import run
from curate.stages.color_filter import ColorFilter
from curate.stages.rho import Rho
from curate.stages.rho_loss import RhoLoss

WORDS = {
    "cell": "the cell divides and its nucleus holds genes that proteins read within a membrane".split(),
    "shop": "buy now and win a free phone with every order of our new summer offer today".split(),
    "court": "the court finds that no statute bars the claim and so the motion is denied".split(),
}


def texts(kind: str, n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng([seed, *kind.encode()])
    return [" ".join(rng.choice(WORDS[kind], 30)) + "." for _ in range(n)]


def pool(n: int = 80) -> pa.Table:
    kinds = [kind for kind in WORDS for _ in range(n)]
    found = [text for kind in WORDS for text in texts(kind, n)]
    order = np.random.default_rng(1).permutation(len(kinds))
    return pa.table({"id": [f"d{i}" for i in order], "text": [found[i] for i in order], "kind": [kinds[i] for i in order]})


TARGET = tuple(texts("cell", 20, seed=9))


def share(table: pa.Table, kind: str = "cell") -> float:
    return pc.mean(pc.equal(table["kind"], kind).cast(pa.float64())).as_py()


def weight(table: pa.Table) -> int:
    return pc.sum(table["tokens"]).as_py()


def test_it_finds_the_target() -> None:
    result = Rho(texts=TARGET, tau=4, rounds=2, start="prior")(pool())
    assert share(result.kept) > 0.95
    assert set(result.kept["step"].to_pylist()) == {1, 2}
    assert set(result.dropped["_reason"].to_pylist()) == {"rho.not_chosen"}


def test_the_first_block_is_chosen_at_random_where_nothing_was_learned() -> None:
    kept = Rho(texts=TARGET, tau=4, rounds=4)(pool()).kept
    first, second = (kept.filter(pc.equal(kept["step"], k)) for k in (1, 2))
    assert first["rho"].null_count == len(first) and first["loss_current"].null_count == len(first) > 0
    assert {"shop", "court"} & set(first["kind"].to_pylist())
    assert second["rho"].null_count == 0 < len(second)


def test_scores_are_the_losses_of_the_models_of_the_step(tmp_path: Path) -> None:
    docs = pool()
    irreducible = ngram.train([pa.array(TARGET)])
    irreducible.save(tmp_path / "irreducible")
    current = [ngram.train([pa.array(texts(kind, 40, seed=3))], units=irreducible) for kind in ("shop", "court")]
    for i, model in enumerate(current):
        model.save(tmp_path / f"c{i}")
    stage = Rho(irreducible=str(tmp_path / "irreducible"), current=(str(tmp_path / "c0"), str(tmp_path / "c1")), keep=0.5)
    result = stage(docs)
    both = pa.concat_tables([result.kept, result.dropped.select(result.kept.column_names)])
    for k, model in enumerate(current, 1):
        mine = both.filter(pc.equal(both["step"], k)).combine_chunks()
        text = mine["text"].combine_chunks()
        nll, tokens = model.losses(text).documents()
        least = irreducible.losses(text).documents()[0]
        np.testing.assert_allclose(mine["loss_current"].to_numpy(), nll)
        np.testing.assert_allclose(mine["loss_irreducible"].to_numpy(), least)
        np.testing.assert_allclose(mine["rho"].to_numpy(), (nll - least) / tokens, rtol=1e-5, atol=1e-6)
        kept = result.kept.filter(pc.equal(result.kept["step"], k))
        assert len(kept) == len(mine) // 2
        assert pc.min(kept["rho"]).as_py() >= np.sort(mine["rho"].to_numpy())[::-1][len(kept) - 1]


def test_each_step_has_its_part_of_a_budget() -> None:
    kept = Rho(texts=TARGET, tokens=1000, tau=3, rounds=4)(pool()).kept
    each = [weight(kept.filter(pc.equal(kept["step"], k))) for k in (1, 2, 3, 4)]
    longest = pc.max(kept["tokens"]).as_py()
    assert all(250 - longest < n <= 250 for n in each)


def test_candidates_are_drawn_before_anything_is_scored() -> None:
    result = Rho(texts=TARGET, tokens=600, tau=2, rounds=3)(pool())
    never = result.dropped.filter(pc.equal(result.dropped["_reason"], "rho.not_drawn"))
    looked_at = [result.kept, result.dropped.filter(pc.equal(result.dropped["_reason"], "rho.not_chosen"))]
    assert never["step"].null_count == never["loss_irreducible"].null_count == never["_value"].null_count == len(never)
    longest = pc.max(result.kept["tokens"]).as_py()
    assert 1200 - longest < sum(map(weight, looked_at)) <= 1200


def test_one_round_from_the_prior_is_color_filter() -> None:
    docs = pool()
    mine, other = Rho(texts=TARGET, tau=3, start="prior", rounds=1)(docs), ColorFilter(texts=TARGET, tau=3)(docs)
    assert mine.kept["id"].to_pylist() == other.kept["id"].to_pylist()
    np.testing.assert_allclose(mine.kept["rho"].to_numpy(), other.kept["color_score"].to_numpy())


def test_what_the_learner_has_learned_does_not_come_again() -> None:
    """Of two kinds that the irreducible model knows, a learner that starts with one of them takes the other first."""
    docs = pool()
    held_out = tuple(texts("cell", 40, seed=5) + texts("court", 40, seed=5))
    known = Rho(mode="loss", texts=held_out, tau=3, rounds=4)(docs).kept
    assert share(known, "shop") < 0.25 < share(known, "cell")


def test_a_learner_begins_with_a_model_that_is_there(tmp_path: Path) -> None:
    units = ngram.train([pa.array(texts(kind, 60, seed=7)) for kind in WORDS])
    ngram.train([pa.array(texts("cell", 60, seed=8))], units=units).save(tmp_path / "start")
    stage = Rho(mode="loss", texts=tuple(texts("cell", 40, seed=5) + texts("court", 40, seed=5)), tau=4, rounds=3)
    begun = replace(stage, start=str(tmp_path / "start"))(pool()).kept
    assert begun["rho"].null_count == 0
    first = begun.filter(pc.equal(begun["step"], 1))
    assert share(first, "court") > 0.9  # it knows cells already


def test_windows() -> None:
    long = pa.table({"text": [" ".join(texts("cell", 2, i) + texts("shop", 2, i)) for i in range(30)]})
    stage = Rho(texts=TARGET, tau=4, rounds=1, start="prior", by="window", window=32)
    kept = stage(long).kept
    cell, phone = (pc.sum(pc.count_substring(kept["text"], word)).as_py() for word in ("cell", "phone"))
    assert cell > 10 * max(phone, 1)
    assert max(map(len, kept["text"].to_pylist())) < min(map(len, long["text"].to_pylist()))
    whole = "\n".join(long["text"].to_pylist())
    steps = replace(stage, rounds=3)(long).kept  # a learner is given windows, too
    assert all(part in whole for text in steps["text"].to_pylist() for part in text.split("\n\n"))


def test_texts_without_tokens_are_counted_and_have_no_score() -> None:
    result = Rho(texts=TARGET, tau=2, rounds=2)(["", None, *texts("cell", 10), *texts("shop", 10)])
    gone = result.dropped.filter(pc.equal(result.dropped["_reason"], "rho.no_score"))
    assert gone["id"].to_pylist() == ["0", "1"] and gone["loss_tokens"].null_count == 2 and gone["step"].null_count == 0


def recipe(tmp_path: Path, name: str, **parameters: object) -> Recipe:
    body = "\n".join(f"      {key}: {value}" for key, value in parameters.items())
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: rho\nstages:\n  - rho:\n{body}\n    max_drop: null\n")
    return Recipe.load(path).with_inputs([str(tmp_path / "in")])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A pool in three files, a target, and two checkpoints of a learner."""
    docs = pool()
    (tmp_path / "in").mkdir()
    for i in range(3):
        pq.write_table(docs.slice(i * 80, 80), tmp_path / "in" / f"{i}.parquet")
    pq.write_table(pa.table({"text": list(TARGET)}), tmp_path / "target.parquet")
    units = ngram.train([pa.array(texts(kind, 60, seed=7)) for kind in WORDS])
    for i, kind in enumerate(("shop", "court")):
        ngram.train([pa.array(texts(kind, 40, seed=3))], units=units).save(tmp_path / f"c{i}")
    return tmp_path


def scored(tmp_path: Path, name: str) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted((tmp_path / name).glob("attributes/rho.losses-*/*"))}


def test_with_checkpoints_another_choice_scores_nothing_again(files: Path) -> None:
    given = {"target": files / "target.parquet", "current": f"[{files}/c0, {files}/c1]"}
    first = run(recipe(files, "a", **given, tau=4), files / "run", executor="inline")
    before, documents = scored(files, "run"), first.manifest.totals.documents
    assert before and documents
    second = run(recipe(files, "a", **given, tau=2, seed=42), files / "run", executor="inline")
    assert scored(files, "run") == before
    assert second.manifest.totals.documents > documents


def test_rounds_on_disk_are_those_in_memory(files: Path) -> None:
    found = run(recipe(files, "b", target=files / "target.parquet", tau=4, rounds=3), files / "run", executor="inline")
    kept = pa.concat_tables(pq.read_table(p) for p in sorted((files / "run/output/data").glob("*.parquet")))
    assert found.manifest.totals.documents == len(kept) > 0
    mine = Rho(target=str(files / "target.parquet"), tau=4, rounds=3)(pool()).kept
    assert sorted(mine["id"].to_pylist()) == sorted(kept["id"].to_pylist())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mode": "up"}, "mode is 'up'"),
        ({"rounds": 0}, "rounds is 0"),
        ({"tau": 0.5}, "tau is 0.5"),
        ({"tau": 2, "keep": 0.5}, "not both"),
        ({"current": ("a",), "start": "b"}, "give one of both"),
        ({"mode": "loss", "start": "prior"}, "name a folder"),
        ({"models": "2m"}, "models is '2m'"),
        ({"window": 0}, "window is 0"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_parameters_that_make_no_sense(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Rho(**{"texts": TARGET, **parameters})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Rho(tau=2), "give `target`, files of texts like those that are wanted"),
        (Rho(tau=2, mode="loss"), "files of texts that are held out"),
        (Rho(texts=TARGET), "trained on what is chosen"),
        (Rho(texts=("", " "), tau=2), "holds no text"),
        (Rho(texts=(" ",), tau=2, mode="loss"), "the hold-out set holds no text"),
        (Rho(irreducible="/nowhere/at/all", tau=2), "/nowhere/at/all"),
        (RhoLoss(texts=TARGET), "trained on what is chosen"),
    ],
)
def test_what_is_missing_is_said(stage: Rho, message: str) -> None:
    with pytest.raises(CurateError, match=message):
        stage(texts("cell", 3))


def test_models_with_different_tokens_cannot_be_compared(tmp_path: Path) -> None:
    for name, kind in (("a", "cell"), ("b", "shop")):
        ngram.train([pa.array(texts(kind, 40))]).save(tmp_path / name)
    with pytest.raises(StageError, match="different tokens"):
        Rho(irreducible=str(tmp_path / "a"), current=str(tmp_path / "b"), tau=2)(pool())


def test_transformers() -> None:
    pytest.importorskip("transformers")
    docs = pool(15)
    kept = Rho(texts=TARGET * 2, tau=3, rounds=2, models="1m", start="prior", device="cpu", window=64)(docs).kept
    assert set(kept["step"].to_pylist()) == {1, 2} and kept["rho"].null_count == 0
    assert share(kept) > 0.6


def test_checkpoints_say_what_kind_of_model_is_adapted(tmp_path: Path) -> None:
    made = llama(tmp_path / "learner", texts("cell", 5) + texts("shop", 5))
    stage = Rho(texts=tuple(texts("cell", 3)), current=(str(made),), tau=2, window=16, device="cpu")
    found = stage(pool(4)).kept
    assert found["loss_irreducible"].null_count == 0 and not found["loss_irreducible"].equals(found["loss_current"])
