"""Documents, layers and drops read together, against plain Python."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import dataset as module
from curate.dataset import Dataset, Generation, Rebatch, Shard, layer_rows, rebatch, write_generation
from curate.errors import ManifestError
from curate.stage import DROP_SCHEMA, ROW
from curate.storage import TableWriter, write_table

TYPES = pa.schema(
    [("text", pa.string()), ("n", pa.int64()), ("score", pa.float32()), ("label", pa.string()), ("ok", pa.bool_())]
)


def write(path: Path, table: pa.Table, cuts: list[int]) -> None:
    """A file with row groups that end at these rows."""
    with TableWriter(path, table.schema, codec="lz4") as writer:
        for start, stop in zip([0, *cuts], [*cuts, len(table)], strict=True):
            writer.write(table.slice(start, stop - start))


def cut(rng: random.Random, rows: int) -> list[int]:
    return sorted(rng.sample(range(rows + 1), min(rows, rng.randrange(12))))


def corpus(root: Path, rng: random.Random, rows: int = 300) -> tuple[Dataset, list[dict[str, object]]]:
    """One shard with a layer of numbers, a layer of strings and two stages that dropped rows; and the survivors as rows."""
    own = pa.table({"text": [f"text {i}" * rng.randrange(4) for i in range(rows)], "n": range(rows)})
    write(root / "documents" / "0.parquet", own, cut(rng, rows))
    write_generation(root, "documents", own.schema, [Shard("0.parquet", rows, 0, 0, "")])
    reached = list(range(rows))
    columns = {"text": "", "n": ""}
    expected = [{ROW: i, **row} for i, row in enumerate(own.to_pylist())]
    for name in ("numbers", "strings"):
        if name == "numbers":
            new = {
                "score": pa.array([float(i) / 2 for i in reached], pa.float32()),
                "ok": pa.array([i % 3 == 0 for i in reached]),
            }
        else:
            new = {"label": pa.array([None if i % 7 == 0 else f"label {i}" for i in reached], pa.string())}
        write(root / name / "0.parquet", pa.table({ROW: pa.array(reached, pa.uint32()), **new}), cut(rng, len(reached)))
        columns.update(dict.fromkeys(new, name))
        for k, values in new.items():
            for row, value in zip(expected, values.to_pylist(), strict=True):
                row[k] = value
        gone = set(rng.sample(reached, rng.randrange(len(reached))))
        drops = {f.name: pa.nulls(len(gone), f.type) for f in DROP_SCHEMA} | {ROW: pa.array(sorted(gone), pa.uint32())}
        write_table(root / f"drops-{name}" / "0.parquet", pa.table(drops))
        expected = [row for row in expected if row[ROW] not in gone]
        reached = [i for i in reached if i not in gone]
    return Dataset(root, "documents", columns, ("drops-numbers", "drops-strings"), TYPES), expected


COLUMNS = [["n", "score", "ok"], ["score"], ["n"], ["text", "score"], ["label", "n"], [], ["text", "n", "score", "label", "ok"]]


@pytest.mark.parametrize("seed", range(12))
def test_read(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the row groups of documents and layers are, and whatever makes a batch."""
    rng = random.Random(seed)
    monkeypatch.setattr(module, "MAX_ROWS", 5)
    data, expected = corpus(tmp_path, rng)
    some = sorted(rng.sample(range(len(expected)), len(expected) // 3))
    for columns in COLUMNS:
        shown = [{k: row[k] for k in (ROW, *columns)} for row in expected]
        for wide in (6, 50, 1000):
            monkeypatch.setattr(module, "WIDE_ROWS", wide)
            assert [row for batch in data.read(0, columns) for row in batch.to_pylist()] == shown
            rows = np.array([shown[i][ROW] for i in some], np.uint32)
            assert [row for batch in data.read(0, columns, rows) for row in batch.to_pylist()] == [shown[i] for i in some]
            parts = [batch.to_pylist() for batch in data.read(0, columns, pieces=3)]
            assert [row for part in parts for row in part] == shown and max(map(len, parts), default=0) <= 3


def test_only_columns_of_fixed_width_make_large_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 4000
    own = pa.table({"text": ["x"] * rows, "n": range(rows), "ok": [True] * rows})
    write(tmp_path / "documents" / "0.parquet", own, list(range(1024, rows, 1024)))
    write_generation(tmp_path, "documents", own.schema, [Shard("0.parquet", rows, 0, 0, "")])
    data = Dataset(tmp_path, "documents", dict.fromkeys(own.column_names, ""), (), own.schema)

    def sizes(*columns: str) -> list[int]:
        return [batch.num_rows for batch in data.read(0, columns)]

    assert sizes("text") == sizes("n", "text") == [1024, 1024, 1024, 928]
    assert sizes("n", "ok") == sizes() == [4000]
    monkeypatch.setattr(module, "WIDE_ROWS", 2050)
    assert sizes("n") == [2048, 1952]
    monkeypatch.setattr(module, "WIDE_ROWS", 65_536)
    monkeypatch.setattr(module, "MAX_BYTES", 3500 * (4 + 8))
    assert sizes("n") == [3072, 928]
    assert layer_rows(pa.schema([("n", pa.int64()), ("text", pa.string())])) == 1024
    assert layer_rows(pa.schema([("v", pa.list_(pa.float16(), 4))])) == 1024


def test_a_layer_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    data, expected = corpus(tmp_path, random.Random(1))
    last = expected[-1][ROW]
    short = pa.table({ROW: pa.array(range(last), pa.uint32()), "score": pa.array([0.0] * last, pa.float32())})
    write(tmp_path / "numbers" / "0.parquet", short, [])
    with pytest.raises(ManifestError, match="does not fit its documents"):
        list(data.read(0, ["score"]))
    assert Generation.load(tmp_path).documents == 300


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_rebatch_does_not_see_the_bounds_of_batches(sizes: list[int], rng: random.Random) -> None:
    whole = pa.RecordBatch.from_pydict({"text": ["x" * size for size in sizes], "n": list(range(len(sizes)))})

    def parts() -> list[pa.RecordBatch]:
        cuts = [0, *cut(rng, len(sizes)), len(sizes)]
        return [whole.slice(a, b - a) for a, b in itertools.pairwise(cuts)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_ROWS", 7)
        patch.setattr(module, "MAX_BYTES", 12)
        once, again = list(rebatch([whole])), list(rebatch(parts()))
        pushed = Rebatch(7)
        given_back = [b for part in parts() for b in pushed.push(part)] + list(pushed.rest())
    assert [b.to_pylist() for b in once] == [b.to_pylist() for b in again] == [b.to_pylist() for b in given_back]
    assert [row for b in once for row in b.to_pylist()] == whole.to_pylist()
    assert all(b.num_rows == 1 or (b.num_rows <= 7 and sum(len(t) for t in b["text"].to_pylist()) <= 12) for b in once)
