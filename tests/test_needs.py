"""A stage that brings others along: what is dear to compute is a stage of its own, which a new decision leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from corpus import mixed, recipe

from curate import Annotator, Filter
from curate.errors import RecipeError
from curate.recipe import Recipe
from curate.run import Run, run
from curate.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Scored(Annotator):
    """Writes a score."""

    times: int = 1

    def writes(self) -> pa.Schema:
        return pa.schema([("score", pa.int64())])

    def annotate(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {"score": pc.multiply(pc.cast(pc.utf8_length(batch["text"]), pa.int64()), self.times)}


@dataclass(frozen=True, kw_only=True)
class Chosen(Filter):
    """Drops what scores too little."""

    least: int = 20
    times: int = 1

    def needs(self) -> Mapping[str, Stage]:
        return {"scores": Scored(times=self.times)}

    def reads(self) -> tuple[str, ...]:
        return ("score",)

    def reasons(self) -> tuple[str, ...]:
        return ("low",)

    def reject(self, batch: pa.RecordBatch) -> pa.Array:
        return pc.if_else(pc.less(batch["score"], self.least), "low", pa.scalar(None, pa.string()))


BODY = "name: x\nstages:\n  - word_count\n  - test_needs:Chosen: {least: %d, times: %d}\n    id: best\n"


def go(tmp_path: Path, body: str, **options: object) -> Run:
    data = tmp_path / "in"
    if not data.exists():
        mixed(data, 200)
    return run(Recipe.load(recipe(tmp_path, body)).with_inputs([str(data)]), tmp_path / "run", executor="inline", **options)  # type: ignore[arg-type]


def made(found: Run) -> dict[str, int]:
    """When each file of the layer of scores was made."""
    return {str(p): p.stat().st_mtime_ns for p in sorted(found.root.glob("attributes/best.scores-*/*"))}


def test_a_stage_that_is_needed_is_a_node_of_its_own(tmp_path: Path) -> None:
    first = go(tmp_path, BODY % (600, 1))
    assert [s["id"] for s in first.summary["stages"]][-3:] == ["best.scores", "best", "export"]
    before = made(first)
    kept = first.manifest.totals.documents
    assert before and 0 < kept < 200
    second = go(tmp_path, BODY % (700, 1))
    assert made(second) == before, "only the decision is new"
    assert second.manifest.totals.documents < kept
    assert set(made(go(tmp_path, BODY % (700, 2)))) > set(before), "what is handed on makes other scores"
    assert go(tmp_path, BODY % (700, 1), until="best.scores").summary["stages"][-1]["id"] == "best.scores"


def test_in_memory_it_runs_before() -> None:
    result = Chosen(least=3)(["a", "four"])
    assert result.kept["score"].to_pylist() == [4]
    assert result.dropped["score"].to_pylist() == [1]


def test_transient_columns_of_both_stay_out_of_the_output(tmp_path: Path) -> None:
    found = go(tmp_path, BODY % (600, 1) + "    transient: true\n")
    assert "score" not in found.manifest.columns


def test_an_id_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"two stages 'best\.scores'"):
        go(tmp_path, "name: x\nstages:\n  - {word_count: {}, id: best.scores}\n" + BODY.split("\n", 3)[3] % (1, 1))
