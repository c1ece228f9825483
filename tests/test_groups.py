"""Groups and copies through a whole run: what a stage asks for, the files, the manifest, the card and the report."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import mixed, recipe

from curate import Annotator, show
from curate.errors import ManifestError
from curate.manifest import Manifest
from curate.recipe import Recipe
from curate.run import Run, run
from curate.stage import Batches, BatchFn, GlobalStage, Step, Task, with_columns
from curate.storage import write_json, write_table

KIND = pa.struct([("stable", pa.uint16()), ("anneal", pa.uint16())])


@dataclass(frozen=True, kw_only=True)
class Phases(GlobalStage):
    """Every document once to `stable`, and every third one twice to `anneal`; leaves a file for the output."""

    outputs: ClassVar[tuple[str, ...]] = ("phases.json",)
    version: ClassVar[int] = 1

    def reads(self) -> tuple[str, ...]:
        return ("id",)

    def writes(self) -> pa.Schema:
        return pa.schema([("_groups", KIND)])

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [Step("leave", self.leave)]

    def leave(self, task: Task, batches: Batches | None = None) -> None:
        write_table(task.folder(self) / "state.parquet", pa.table({}))
        if task.root is not None:
            write_json(task.kept(self) / "phases.json", {"stable": 1})

    def open(self, task: Task) -> BatchFn:
        def process(batch: pa.RecordBatch) -> pa.RecordBatch:
            third = [sum(i.encode()) % 3 == 0 for i in batch["id"].to_pylist()]
            groups = [{"stable": 1, "anneal": 2 * yes} for yes in third]
            return with_columns(batch, {"_groups": pa.array(groups, KIND)})

        return process


@dataclass(frozen=True, kw_only=True)
class Copies(Annotator):
    """As many copies as are asked for."""

    n: int = 2

    def writes(self) -> pa.Schema:
        return pa.schema([("_copies", pa.uint16())])

    def annotate(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        return {"_copies": pa.array(np.full(batch.num_rows, self.n), pa.uint16())}


def go(tmp_path: Path, stage: str, output: str = "{}", folder: str = "run") -> Run:
    data = tmp_path / "in"
    if not data.exists():
        mixed(data, 300)
    body = f"name: x\nstages:\n  - test_groups:{stage}\noutput: {output}\n"
    return run(Recipe.load(recipe(tmp_path, body)).with_inputs([str(data)]), tmp_path / folder, executor="inline")


def test_groups_of_a_run(tmp_path: Path) -> None:
    found = go(tmp_path, "Phases", "{validation: 0.1}")
    made, out = found.manifest, tmp_path / "run" / "output"
    documents = found.summary["stages"][-1]["rows_out"]
    assert list(made.groups) == ["stable", "anneal"]
    assert made.groups["stable"].documents == documents
    assert {s.path.split("/")[1] for s in made.shards} == {"stable", "anneal"}
    assert "_groups" not in made.columns
    assert json.loads((out / "phases.json").read_text()) == {"stable": 1}
    assert "phases.json" in made.files
    assert found.verify()["ok"]
    card = (out / "README.md").read_text()
    assert "config_name: anneal" in card and "data/stable/train-*.parquet" in card and "| stable | train |" in card
    again = go(tmp_path, "Phases", "{validation: 0.1}", "again")
    assert again.manifest.digest == made.digest
    (out / "phases.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"phases\.json was changed"):
        Manifest.verify(out)
    assert go(tmp_path, "Phases", "{validation: 0.1}").verify()["ok"]  # running again mends it


def test_a_file_that_a_stage_did_not_leave(tmp_path: Path) -> None:
    found = go(tmp_path, "Phases")
    shutil.rmtree(found.root / "index")
    with pytest.raises(ManifestError, match=r"phases\.json is missing"):
        found.verify()


def test_groups_by_the_tools_of_others(tmp_path: Path) -> None:
    datasets, croissant = pytest.importorskip("datasets"), pytest.importorskip("mlcroissant")
    made, out = go(tmp_path, "Phases", "{validation: 0.1}").manifest, tmp_path / "run" / "output"
    for group in ("stable", "anneal"):
        loaded = datasets.load_dataset(str(out), group, cache_dir=str(tmp_path / "cache"))
        held = {s.split: s.documents for s in made.shards if s.group == group}
        assert {split: len(part) for split, part in loaded.items()} == held
    found = croissant.Dataset(jsonld=str(out / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    assert {r.uuid for r in found.metadata.record_sets} == {f"{g}-{s}" for g in made.groups for s in ("train", "validation")}


def test_copies_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = go(tmp_path, "Copies: {n: 3}")
    documents = found.summary["stages"][-1]["rows_out"]
    assert found.manifest.totals.documents == 3 * documents
    ids = [i for s in found.manifest.shards for i in pq.read_table(found.root / "output" / s.path)["id"].to_pylist()]
    assert set(Counter(ids).values()) == {3}
    assert found.verify()["ok"]
    assert "written" in (found.root / "report.html").read_text()
    show.funnel(found.summary | {"manifest": "", "digest": ""})
    said, records = f"{3 * documents:,} documents", found.summary["stages"][0]["rows_in"]
    assert f"{said} made of {records:,} records" in capsys.readouterr().out
    assert f"<strong>{said}</strong> made of {records:,} records" in (found.root / "report.html").read_text()


def test_a_document_without_copies_is_not_lost_in_silence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="export wrote 0 documents, the ledger has"):
        go(tmp_path, "Copies: {n: 0}")


def test_lists_of_the_input_have_one_name_for_their_values(tmp_path: Path) -> None:
    """What Parquet calls them differs by who wrote it, and by who has read it."""
    rows = {"text": [f"A text of number {i}." for i in range(50)], "tags": [["a", "b"][: i % 3] for i in range(50)]}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "in" / "x.parquet")
    found = Recipe.load(recipe(tmp_path, "name: x\n")).with_inputs([str(tmp_path / "in")])
    one = run(found, tmp_path / "one", executor="inline").manifest
    two = run(found, tmp_path / "two", executor="local", workers=2).manifest
    assert one.columns["tags"] == "list<item: string>"
    assert one.digest == two.digest
