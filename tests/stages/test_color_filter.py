"""color_filter: scores, what is chosen by them, and that another choice costs nothing."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import rows, write_jsonl

from curate.errors import ColumnError, RecipeError
from curate.lm import ngram
from curate.memory import as_table
from curate.recipe import loads
from curate.stages.color_filter import ColorFilter
from curate.stages.pair_loss import PairLoss
from curate.testing import check_stage

TARGET = ("the nucleus of the cell divides", "a gene of the cell", "cells have a nucleus", "the cell and its genes")
PLAIN = [row["text"] for row in rows(130) if len(row["text"]) > 20][:120]
CELLS = [f"the nucleus of cell {i} divides and its gene {i % 7} is a gene of the cell" for i in range(30)]


def pool():
    return as_table(pa.table({"text": [*PLAIN, *CELLS, ""]}))


def test_scores_are_what_the_target_has_gained():
    table = pool()
    losses = PairLoss(texts=TARGET)(table).kept
    kept = ColorFilter(texts=TARGET, tau=1)(table).kept
    expected = [
        None if n is None else np.float32((a - b) / n)
        for a, b, n in zip(*(losses[c].to_pylist() for c in ("nll_prior", "nll_conditional", "loss_tokens")), strict=True)
    ]
    assert len(kept) == 150 and kept["color_score"].to_pylist() == expected[:-1]
    assert np.array(expected[120:150]).min() > np.array(expected[:120]).max()


def test_scores_once_and_chooses_often():
    scored = PairLoss(texts=TARGET, prefix="x_")(pool()).kept
    result = ColorFilter(scored=True, prefix="x_", keep=0.2)(scored)
    assert result.kept["text"].to_pylist() == CELLS
    reasons = dict(zip(result.dropped["text"].to_pylist(), result.dropped["_reason"].to_pylist(), strict=True))
    assert reasons[""] == "color_filter.no_score"
    values = result.dropped["_value"].to_pylist()
    assert values[-1] is None and max(values[:-1]) < min(result.kept["x_color_score"].to_pylist())
    with pytest.raises(ColumnError, match="'pair_loss' writes it"):
        ColorFilter(scored=True, keep=0.5)(pool())


def test_windows_of_a_long_text():
    """Of a text that has the target in its middle, the middle stays."""
    dull = " ".join(row["text"] for row in rows(9, 3))[:6000]
    table = as_table(pa.table({"text": [dull + "\n\n" + " ".join(CELLS) + "\n\n" + dull, *PLAIN]}))
    kept = ColorFilter(texts=TARGET, by="window", window=32, tokens=300)(table).kept
    assert len(kept) == 1 and 250 < kept["tokens"][0].as_py() <= 310  # tokens of a text are rounded up
    text = kept["text"][0].as_py()
    assert text.count("nucleus of cell") > 10 and len(text) < 1500


BODY = """\
name: color
source: auto
stages:
  - color_filter: {target: TARGET, sample: 20000, CHOICE}
output: {validation: 0}
"""


@pytest.fixture
def corpus(tmp_path):
    found = rows(150) + [{"id": f"cell-{i}", "text": text} for i, text in enumerate(CELLS)]
    for i in range(3):
        write_jsonl(tmp_path / "in" / f"{i}.jsonl", found[60 * i : 60 * i + 60])
    write_jsonl(tmp_path / "target.jsonl", [{"text": text} for text in TARGET])
    return tmp_path


def go(corpus, choice, run="run", **more):
    body = BODY.replace("TARGET", str(corpus / "target.jsonl")).replace("CHOICE", choice)
    return loads(body).with_inputs([str(corpus / "in")]).run(corpus / run, **{"executor": "inline", **more})


def dear(root):
    """When each file of the losses was made, and of the record of each phase that trains or scores."""
    found = [p for p in root.rglob("*") if p.is_file() and ".losses-" in str(p.relative_to(root)) and "phases" not in p.parts]
    found += [p for p in (root / "phases").rglob("records/*") if ".losses." in p.parts[-3]]
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in found}


def test_another_choice_neither_trains_nor_scores_again(corpus, monkeypatch):
    calls = []
    for name in ("train", "load"):
        real = getattr(ngram, name)
        monkeypatch.setattr(
            ngram, name, lambda *given, _real=real, _name=name, **more: calls.append(_name) or _real(*given, **more)
        )
    first = go(corpus, "tau: 4")
    assert calls.count("train") == 2 and len(list((first.root / "index").iterdir())) == 1
    before, sizes = dear(first.root), {first.manifest.totals.documents}
    assert any("window" in name or "attributes" in name for name in before)
    calls.clear()
    for choice in (
        "tau: 8",
        "keep: 0.3",
        "tokens: 900",
        "tokens: 300, tau: 4",
        "tokens: 300, tau: 4, seed: 7",
        "tau: 4, by: window",
    ):
        again = go(corpus, choice)
        now = dear(again.root)
        assert {name: now.get(name) for name in before} == before and not calls, choice
        assert set(now) == set(before), choice
        sizes.add(again.manifest.totals.documents)
    assert len(sizes) > 3
    assert go(corpus, "tau: 8, training_seed: 1") and calls.count("train") == 2


def test_runs_are_the_same_with_any_number_of_workers(corpus):
    found = []
    for workers in (1, 2):
        run = go(
            corpus, "tokens: 1500, tau: 3", f"run{workers}", executor="inline" if workers == 1 else "local", workers=workers
        )
        found.append([p.read_bytes() for p in sorted((run.root / "output").rglob("*.parquet"))])
    assert found[0] == found[1]
    kept = pq.read_table(next((corpus / "run1" / "output").rglob("*.parquet")))
    assert kept["tokens"].to_numpy().sum() <= 1500
    summary = json.loads((corpus / "run1" / "summary.json").read_text())
    ids = [stage["id"] for stage in summary["stages"]]
    assert ids[-3:] == ["color_filter.losses", "color_filter", "export"]


def test_questions_are_a_target(corpus):
    question = {"question": "What divides?", "choices": ["a phone", "the nucleus of the cell"], "answer": "B"}
    write_jsonl(corpus / "target.jsonl", [question, {**question, "answer": "a cell"}])
    run = go(corpus, "keep: 0.1")
    notes = {k: v for stage in run.summary["stages"] for k, v in stage.get("notes", {}).items()}
    assert notes["texts of the target that the conditional model learned from"] == 1
    assert notes["questions of the target whose answer is missing, or none of the choices"] == 1
    kept = pq.read_table(next((run.root / "output" / "data").glob("*.parquet")))
    assert sum(id_.startswith("cell-") for id_ in kept["id"].to_pylist()) > 0.8 * len(kept)


def test_what_is_missing_is_asked_for():
    with pytest.raises(RecipeError, match="color_filter: give `target`"):
        ColorFilter(tau=4)(["a"])
    with pytest.raises(RecipeError, match="color_filter: give `tau`"):
        ColorFilter(texts=TARGET)(["a"])
    with pytest.raises(RecipeError, match="models is '1b'"):
        ColorFilter(texts=TARGET, models="1b", tau=4)(["a"])


@pytest.mark.parametrize(
    "stage", [ColorFilter(texts=TARGET, tau=2, tokens=99), ColorFilter(texts=TARGET, keep=0.5, by="window")]
)
def test_conformance(stage):
    check_stage(stage)
