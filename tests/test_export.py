"""Export: a seeded global shuffle into Parquet files, the same whatever the layout of shards, buckets and pieces."""

from __future__ import annotations

import functools
import itertools
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import export, splice
from curate.dataset import Dataset, Shard, rebatch, write_generation
from curate.errors import ColumnError, ManifestError
from curate.phases import Context
from curate.recipe import Output
from curate.stage import ROW
from curate.storage import TableWriter, sha256_file, write_table

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("raw_bytes", pa.uint32()),
        ("text_bytes", pa.uint32()),
        ("tokens", pa.uint32()),
        ("corpus", pa.string()),
        ("file", pa.string()),
        ("record", pa.int64()),
        ("quality", pa.float64()),
    ]
)


def documents(n: int, words: int = 30, seed: int = 0) -> pa.Table:
    """n documents of about `words` words out of a Zipf-like vocabulary, so that they compress as text does."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array(["".join(rng.choice(list("etaoinshrdlu"), rng.integers(2, 9))) for _ in range(20_000)])
    texts = []
    for k in rng.integers(words // 2, words * 3 // 2 + 1, n):
        texts.append(" ".join(vocabulary[np.minimum(rng.zipf(1.3, k) - 1, len(vocabulary) - 1)]))
    sizes = [len(t) for t in texts]
    columns = {
        "id": [f"d{i}" for i in range(n)],
        "text": texts,
        "url": [f"https://example.org/{i}" for i in range(n)],
        "date": [None] * n,
        "raw_bytes": sizes,
        "text_bytes": sizes,
        "tokens": [s // 4 for s in sizes],
        "corpus": ["web"] * n,
        "file": [f"part-{i * 4 // max(1, n)}.jsonl" for i in range(n)],
        "record": list(range(n)),
        "quality": rng.random(n),
    }
    return pa.table(columns, schema=SCHEMA)


def corpus(root: Path, table: pa.Table, shards: int = 3, drops: dict[int, list[int]] | None = None) -> Dataset:
    """A run folder that holds the table as a generation, with `drops` (shard to rows) of one stage."""
    listed = []
    bounds = [i * table.num_rows // shards for i in range(shards + 1)]
    for i in range(shards):
        part = table.slice(bounds[i], bounds[i + 1] - bounds[i])
        path = root / "documents" / f"{i:05d}.parquet"
        with TableWriter(path, table.schema, codec="lz4") as writer:
            for batch in rebatch(part.combine_chunks().to_batches()):
                writer.write(batch)
        sums = [sum(part[c].to_pylist()) for c in ("text_bytes", "tokens")]
        listed.append(Shard(path.name, part.num_rows, *sums, sha256_file(path)))
        if drops is not None:
            gone = pa.table({ROW: pa.array(drops.get(i, []), pa.uint32())})
            write_table(root / "drops" / "x" / path.name, gone)
    write_generation(root, "documents", table.schema, listed)
    columns = dict.fromkeys(table.column_names, "")
    return Dataset(root, "documents", columns, ("drops/x",) if drops is not None else (), table.schema)


def run(
    data: Dataset, output: Output | None = None, key: str = "a", shuffled: bool = False
) -> tuple[list[export.ShardEntry], list[str]]:
    """Export; returns the entries and the names of the phases."""
    output = output or Output()
    columns = export.columns_of(data, output, set())
    context, done = Context(root=data.root), []
    for phase in export.phases(context, data, output, key * 64, columns):
        ranks = list(range(phase.tasks))
        if shuffled:
            random.Random(1).shuffle(ranks)
        for rank in ranks:
            phase(None, rank, phase.tasks)
        done.append(phase)
    return export.collect(context, done), [p.name.split(".")[1].split("-")[0] for p in done]


def read(data: Dataset, entries: list[export.ShardEntry], split: str = "train") -> pa.Table:
    return pa.concat_tables([pq.read_table(data.root / "output" / e.path) for e in entries if e.split == split])


def digests(entries: list[export.ShardEntry]) -> list[tuple[str, str]]:
    return [(e.path, e.sha256) for e in entries]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> functools.partial:
    """Set the sizes of buckets, pieces and chunks, so that a small corpus takes the way of a large one."""

    def set_sizes(bucket: int, piece: int, chunk: int, fan_out: int = 256) -> None:
        for name, value in (("BUCKET_BYTES", bucket), ("PIECE_BYTES", piece), ("FAN_OUT", fan_out)):
            monkeypatch.setattr(export, name, value)
        monkeypatch.setattr(export, "CHUNK_BYTES", chunk)
        monkeypatch.setattr(export.Layout, "row_group", 64)

    return set_sizes


# --------------------------------------------------------------------------------------------- the shuffle


def test_every_document_once_and_shuffled(tmp_path: Path) -> None:
    table = documents(3000)
    entries, names = run(corpus(tmp_path, table))
    assert names == ["census", "gather", "assemble"]
    assert [e.path for e in entries] == ["data/train-00000-of-00001.parquet"]
    out = read(tmp_path and corpus(tmp_path, table), entries)
    assert out.column_names == ["id", "text", "url", "date", "tokens", "quality", "corpus", "file", "record"]
    assert sorted(out["id"].to_pylist()) == sorted(table["id"].to_pylist())
    place = {d: i for i, d in enumerate(out["id"].to_pylist())}
    order = np.array([place[d] for d in table["id"].to_pylist()])
    assert abs(np.corrcoef(order, np.arange(3000))[0, 1]) < 0.06
    assert np.mean(np.abs(np.diff(order)) < 30) < 0.05  # neighbours do not stay neighbours
    whole = out.sort_by("record").select(table.schema.names[:3])
    assert whole.equals(table.sort_by("record").select(table.schema.names[:3]))


def test_entries_tell_what_the_files_hold(tmp_path: Path) -> None:
    data = corpus(tmp_path, documents(2500))
    entries, _ = run(data, Output(validation=0.1))
    for e in entries:
        held = pq.read_table(tmp_path / "output" / e.path)
        assert e.documents == held.num_rows
        assert e.bytes == sum(len(t.encode()) for t in held["text"].to_pylist())
        assert e.tokens == sum(held["tokens"].to_pylist())
        assert e.sha256 == sha256_file(tmp_path / "output" / e.path)


def test_order_depends_on_the_seed_alone(tmp_path: Path) -> None:
    table = documents(500)
    one, _ = run(corpus(tmp_path / "1", table, shards=1))
    three, _ = run(corpus(tmp_path / "3", table, shards=3))
    seven, _ = run(corpus(tmp_path / "7", table, shards=7), shuffled=True)
    other, _ = run(corpus(tmp_path / "s", table), Output(seed=7))
    assert digests(one) == digests(three) == digests(seven)
    assert digests(other) != digests(one)


@pytest.mark.parametrize(
    ("sizes", "way"),
    [
        ((1 << 30, 1 << 30, 1 << 30), ["census", "gather", "assemble"]),
        ((64 << 10, 1 << 30, 128 << 10), ["census", "scatter", "gather", "assemble"]),
        ((16 << 10, 16 << 10, 8 << 10), ["census", "scatter", "gather", "assemble"]),
        ((8 << 10, 24 << 10, 32 << 10, 3), ["census", "scatter", "sort", "gather", "assemble"]),
        ((2 << 10, 4 << 10, 8 << 10, 8), ["census", "scatter", "sort", "gather", "assemble"]),
    ],
)
def test_buckets_pieces_and_levels_cannot_be_seen(tmp_path: Path, tiny, sizes: tuple[int, ...], way: list[str]) -> None:
    data = corpus(tmp_path, documents(2000, seed=3), shards=5, drops={0: [0, 1, 5], 4: list(range(100, 300))})
    output = Output(validation=0.05)
    tiny(1 << 30, 1 << 30, 1 << 30)
    expected, _ = run(data, output, "a")
    before = [(tmp_path / "output" / e.path).read_bytes() for e in expected]
    tiny(*sizes)
    entries, names = run(data, output, "b", shuffled=True)
    assert names == way
    assert entries == expected
    assert [(tmp_path / "output" / e.path).read_bytes() for e in entries] == before
    kept = 2000 - 203
    assert sum(e.documents for e in entries) == kept
    assert len(set(read(data, entries)["id"].to_pylist() + read(data, entries, "validation")["id"].to_pylist())) == kept


def test_rows_are_sorted_by_their_keys(tmp_path: Path, tiny) -> None:
    tiny(8 << 10, 16 << 10, 8 << 10)
    data = corpus(tmp_path, documents(1000))
    entries, _ = run(data)
    job = export.Job(data, Output(), (), "state/x")
    keys = {}
    for shard in range(3):
        placed = export.place(job, shard)
        names = [i for b in data.read(shard, ["id"]) for i in b["id"].to_pylist()]
        keys.update(zip(names, placed.keys.tolist(), strict=True))
    found = [keys[d] for d in read(data, entries)["id"].to_pylist()]
    assert found == sorted(found)
    assert len(set(found)) == len(found)


def test_children_of_one_record_and_same_names_in_two_corpora_have_keys_of_their_own(tmp_path: Path) -> None:
    table = documents(400)
    table = table.set_column(9, "record", pa.array([i // 4 for i in range(400)], pa.int64()))
    table = table.set_column(8, "file", pa.array(["a.jsonl"] * 400))
    table = table.set_column(7, "corpus", pa.array(["x"] * 200 + ["y"] * 200))
    table = table.set_column(9, "record", pa.array([i % 200 // 4 for i in range(400)], pa.int64()))
    data = corpus(tmp_path, table, shards=1)
    placed = export.place(export.Job(data, Output(), (), "state/x"), 0)
    assert len(set(placed.keys.tolist())) == 400
    assert len(set(placed.units.tolist())) == 100  # what one record became stays on one side


def test_copies(tmp_path: Path, tiny) -> None:
    tiny(8 << 10, 8 << 10, 8 << 10)
    table = documents(600)
    times = [1 + i % 4 for i in range(600)]
    table = table.append_column("_copies", pa.array(times, pa.uint16()))
    data = corpus(tmp_path, table, drops={0: [3]})
    entries, _ = run(data, Output(validation=0.2))
    train, held = (Counter(read(data, entries, s)["id"].to_pylist()) for s in ("train", "validation"))
    assert "_copies" not in read(data, entries).column_names
    assert not train.keys() & held.keys()
    assert set(held.values()) == {1} and len(held) == 120  # of documents, not of copies
    assert train | {i: times[int(i[1:])] for i in held} == {f"d{i}": n for i, n in enumerate(times) if i != 3}
    order = read(data, entries)["id"].to_pylist()
    assert sum(a == b for a, b in itertools.pairwise(order)) < 15  # copies are spread, too


SIZES = [(1 << 30, 1 << 30, 1 << 30), (8 << 10, 24 << 10, 32 << 10, 3)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("validation", [0.0, 0.1])
def test_groups(tmp_path: Path, tiny, sizes: tuple[int, ...], validation: float) -> None:
    tiny(*sizes)
    table = documents(900)
    kind = pa.struct([("stable", pa.uint16()), ("anneal", pa.uint16()), ("never", pa.uint16())])
    times = [{"stable": int(i % 3 > 0), "anneal": 2 if i % 3 == 0 else i % 2, "never": 0} for i in range(900)]
    table = table.append_column("_groups", pa.array(times, kind))
    data = corpus(tmp_path, table, drops={1: [7]})
    entries, _ = run(data, Output(validation=validation))
    splits = ("train", "validation") if validation else ("train",)
    assert [(e.group, e.split) for e in entries] == [(g, s) for s in splits for g in ("stable", "anneal")]
    assert all(e.path == f"data/{e.group}/{e.split}-00000-of-00001.parquet" for e in entries)
    found = {(e.group, e.split): Counter(read(data, [e], e.split)["id"].to_pylist()) for e in entries}
    held = set().union(*(c for (_, split), c in found.items() if split == "validation"))
    assert len(held) == round(validation * 899)
    for group in ("stable", "anneal"):
        there = {f"d{i}": t[group] for i, t in enumerate(times) if t[group] and i != 307}
        assert found[group, "train"] == {i: n for i, n in there.items() if i not in held}
        if validation:
            assert found[group, "validation"] == dict.fromkeys(held & there.keys(), 1)
    for e in entries:
        own = read(data, [e], e.split)
        assert (e.documents, e.tokens) == (own.num_rows, sum(own["tokens"].to_pylist()))
    both = [i for i in found["stable", "train"] if i in found["anneal", "train"]]
    orders = [[i for i in read(data, [e], "train")["id"].to_pylist() if i in both] for e in entries[:2]]
    assert len(both) > 100 and orders[0] != orders[1]  # each group has an order of its own


def test_one_group_is_in_the_order_of_none(tmp_path: Path) -> None:
    table = documents(300)
    plain, _ = run(corpus(tmp_path / "a", table))
    grouped = table.append_column("_groups", pa.array([{"all": 1}] * 300, pa.struct([("all", pa.uint16())])))
    entries, _ = run(corpus(tmp_path / "b", grouped))
    assert [e.sha256 for e in entries] == [e.sha256 for e in plain]


@pytest.mark.parametrize("name", ["Anneal", "a/b", "", "..", "-x"])
def test_names_of_groups(tmp_path: Path, name: str) -> None:
    table = documents(3).append_column("_groups", pa.array([{name: 1}] * 3, pa.struct([(name, pa.uint16())])))
    with pytest.raises(ColumnError, match="no name for a group"):
        run(corpus(tmp_path, table, 1))


# --------------------------------------------------------------------------------------------- files


def test_row_groups_of_1024(tmp_path: Path, tiny) -> None:
    data = corpus(tmp_path, documents(5000, words=8))
    entries, _ = run(data, Output(shard_mb=0.05))
    assert len(entries) > 2
    for e in entries:
        meta = pq.read_metadata(tmp_path / "output" / e.path)
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        assert all(s == 1024 for s in sizes[:-1]) and 0 < sizes[-1] <= 1024
    assert max(e.documents for e in entries) - min(e.documents for e in entries) <= 1


def test_long_documents_get_smaller_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CHUNK_BYTES", 100_000)
    data = corpus(tmp_path, documents(1000, words=100))
    entries, _ = run(data)
    meta = pq.read_metadata(tmp_path / "output" / entries[0].path)
    assert meta.row_group(0).num_rows == 128


@pytest.mark.parametrize("shard_mb", [0.1, 0.25, 1])
def test_files_are_about_as_large_as_asked(tmp_path: Path, shard_mb: float) -> None:
    data = corpus(tmp_path, documents(20_000, words=60))
    entries, names = run(data, Output(shard_mb=shard_mb))
    assert "sample" in names
    assert len(entries) > 1
    for e in entries:
        size = (tmp_path / "output" / e.path).stat().st_size
        assert 0.7 < size / (shard_mb * 1e6) < 1.3
    n = len(entries)
    assert [e.path for e in entries] == [f"data/train-{i:05d}-of-{n:05d}.parquet" for i in range(n)]


def test_how_a_file_is_written(tmp_path: Path) -> None:
    entries, _ = run(corpus(tmp_path, documents(100)))
    file = pq.ParquetFile(tmp_path / "output" / entries[0].path)
    assert file.schema_arrow.field("text").type == pa.string()
    assert b"pandas" not in (file.metadata.metadata or {})
    group = file.metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert all(c.compression == "ZSTD" for c in columns.values())
    assert columns["record"].statistics.max == 99
    assert "RLE_DICTIONARY" in columns["file"].encodings and "RLE_DICTIONARY" not in columns["text"].encodings


def test_large_types_become_what_trainers_expect(tmp_path: Path) -> None:
    table = documents(50)
    table = table.set_column(1, "text", table["text"].cast(pa.large_string()))
    table = table.append_column("vector", pa.array([[1.0, 2.0]] * 50, pa.list_(pa.float16(), 2)))
    data = corpus(tmp_path, table)
    out = read(data, run(data)[0])
    assert out.schema.field("text").type == pa.string()
    assert out.schema.field("vector").type == pa.list_(pa.float16(), 2)


def test_no_documents(tmp_path: Path) -> None:
    for shards, table in ((1, documents(0)), (3, documents(9))):
        drops = {i: list(range(3)) for i in range(shards)} if table.num_rows else None
        entries, _ = run(corpus(tmp_path / str(shards), table, shards, drops), Output(validation=0.5))
        assert entries == []


def test_one_document_is_for_training(tmp_path: Path) -> None:
    entries, _ = run(corpus(tmp_path, documents(1), 1), Output(validation=0.5))
    assert [(e.split, e.documents) for e in entries] == [("train", 1)]


def test_splice_gives_the_file_that_one_writer_gives(tmp_path: Path) -> None:
    table = documents(1000)

    def write(name: str, part: pa.Table) -> Path:
        with pq.ParquetWriter(tmp_path / name, part.schema, compression="zstd", use_dictionary=["file"]) as writer:
            for start in range(0, part.num_rows, 64):
                writer.write_table(part.slice(start, 64), row_group_size=64)
        return tmp_path / name

    whole = write("whole", table)
    parts = [write("a", table.slice(0, 64)), write("b", table.slice(64, 640)), write("c", table.slice(704))]
    size, sha256 = splice.splice(parts, tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == whole.read_bytes()
    assert size == whole.stat().st_size and sha256 == sha256_file(whole)


def test_splice_refuses_what_is_not_whole(tmp_path: Path) -> None:
    pq.write_table(documents(10), tmp_path / "a")
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:-3])
    with pytest.raises(ManifestError, match="not a whole Parquet file"):
        splice.splice([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


# --------------------------------------------------------------------------------------------- columns


def test_columns_asked_for(tmp_path: Path) -> None:
    data = corpus(tmp_path, documents(20))
    assert export.columns_of(data, Output(columns=("quality", "file", "text")), set()) == (
        "quality", "file", "text", "corpus", "record",
    )  # fmt: skip
    assert "quality" not in export.columns_of(data, Output(), {"quality"})
    with pytest.raises(ColumnError, match=r"qualty.*did you mean 'quality'"):
        export.columns_of(data, Output(columns=("qualty",)), set())
    entries, _ = run(data, Output(columns=("text",)))
    assert read(data, entries).column_names == ["text", "corpus", "file", "record"]
    assert entries[0].tokens == sum(documents(20)["tokens"].to_pylist())


def test_columns_of_layers(tmp_path: Path) -> None:
    table = documents(300)
    data = corpus(tmp_path, table, shards=2, drops={1: [0, 149]})
    for shard in range(2):
        layer = pa.table({ROW: pa.array(range(150), pa.uint32()), "score": pa.array([shard + i / 1000 for i in range(150)])})
        write_table(tmp_path / "attributes" / "s" / f"{shard:05d}.parquet", layer)
    types = pa.schema([*data.types, ("score", pa.float64())])
    data = Dataset(tmp_path, "documents", {**data.columns, "score": "attributes/s"}, data.drops, types)
    out = read(data, run(data)[0])
    assert out.num_rows == 298
    for record, score in zip(out["record"].to_pylist(), out["score"].to_pylist(), strict=True):
        assert score == record // 150 + record % 150 / 1000


def test_a_row_leads_back_to_its_source(tmp_path: Path) -> None:
    table = documents(200)
    source = {(r["corpus"], r["file"], r["record"]): r["text"] for r in table.to_pylist()}
    data = corpus(tmp_path, table)
    for row in read(data, run(data)[0]).to_pylist():
        assert source[row["corpus"], row["file"], row["record"]] == row["text"]


# --------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("share", "cap", "expected"), [(0.1, 10_000, 200), (0.1, 50, 50), (0.0001, 10_000, 1), (0.0, 9, 0), (0.5, 0, 0)]
)
def test_validation_has_exactly_its_share(tmp_path: Path, share: float, cap: int, expected: int) -> None:
    data = corpus(tmp_path, documents(2000))
    entries, _ = run(data, Output(validation=share, validation_max=cap))
    held = [e for e in entries if e.split == "validation"]
    assert sum(e.documents for e in held) == expected
    assert sum(e.documents for e in entries) == 2000
    if expected:
        assert [e.path for e in held] == ["data/validation-00000-of-00001.parquet"]
        assert entries[-1] is held[-1] or entries[-1] == held[-1]  # validation sorts last
        assert sorted(e.path for e in entries) == [e.path for e in entries]
        ids = [set(read(data, entries, s)["id"].to_pylist()) for s in ("train", "validation")]
        assert not ids[0] & ids[1]


def test_validation_keeps_clusters_together(tmp_path: Path, tiny) -> None:
    tiny(8 << 10, 8 << 10, 8 << 10)
    clusters = pa.array([f"c{i % 300}" if i % 2 else None for i in range(3000)])
    table = documents(3000).append_column("duplicate_cluster", clusters)
    data = corpus(tmp_path, table, shards=4)
    entries, _ = run(data, Output(validation=0.1))
    train, held = (read(data, entries, s) for s in ("train", "validation"))
    assert 290 <= held.num_rows <= 300  # a cluster here has 10 documents
    assert not set(train["duplicate_cluster"].to_pylist()) & set(held["duplicate_cluster"].to_pylist()) - {None}
    assert any(held["duplicate_cluster"].to_pylist())


@pytest.mark.parametrize(
    ("sizes", "share", "expected"), [((90, 10), 0.05, {10}), ((100,), 0.1, {0}), ((97, 1, 2), 0.02, {1, 2})]
)
def test_validation_of_few_clusters(tmp_path: Path, sizes: tuple[int, ...], share: float, expected: set[int]) -> None:
    clusters = [c for c, n in enumerate(sizes) for _ in range(n)]
    table = documents(100).append_column("duplicate_cluster", pa.array(clusters, pa.uint64()))
    entries, _ = run(corpus(tmp_path, table), Output(validation=share))
    assert sum(e.documents for e in entries if e.split == "validation") in expected


# --------------------------------------------------------------------------------------------- again, and after a kill


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted((root / "output").rglob("*")) if p.is_file()}


def test_another_export_replaces_the_last(tmp_path: Path) -> None:
    data = corpus(tmp_path, documents(3000))
    run(data, Output(shard_mb=0.02), "a")
    many = files(tmp_path)
    assert len(many) > 3
    (tmp_path / "output" / "manifest.json").write_text("{}")
    entries, _ = run(data, Output(), "b")
    assert list(files(tmp_path)) == ["output/" + e.path for e in entries]
    run(data, Output(shard_mb=0.02), "a")  # and back: marks of the first time count for nothing
    assert files(tmp_path) == many


def test_the_manifest_goes_first(tmp_path: Path) -> None:
    data = corpus(tmp_path, documents(100))
    run(data)
    (tmp_path / "output" / "manifest.json").write_text("{}")
    next(export.phases(Context(root=tmp_path), data, Output(), "a" * 64, export.columns_of(data, Output(), set())))
    assert not (tmp_path / "output" / "manifest.json").exists()


def test_a_finished_export_is_not_done_again_unless_a_file_is_gone(tmp_path: Path) -> None:
    data = corpus(tmp_path, documents(100))
    entries, _ = run(data)
    before = files(tmp_path)
    path = tmp_path / "output" / entries[0].path
    stamp = path.stat().st_mtime_ns
    again, _ = run(data)
    assert again == entries and path.stat().st_mtime_ns == stamp
    path.unlink()
    again, _ = run(data)
    assert again == entries and files(tmp_path) == before


class Killed(Exception):
    pass


def test_killed_at_any_write_and_any_delete(tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before the n-th change of the file system, then run the same export, or the one before: always its bytes."""
    import os
    import shutil

    tiny(16 << 10, 16 << 10, 16 << 10, 3)
    table, output = documents(400), Output(validation=0.1, shard_mb=0.03)
    data = corpus(tmp_path / "whole", table)
    run(data, output, "b")
    expected = files(tmp_path / "whole")

    real = {"replace": os.replace, "rmtree": shutil.rmtree, "unlink": Path.unlink}
    for limit in range(0, 400, 7):
        root = tmp_path / "killed"
        data = corpus(root, table)
        run(data, Output(shard_mb=0.02), "a")
        earlier = files(root)
        (root / "output" / "manifest.json").write_text("{}")
        left = limit

        def guarded(name: str, *args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed(name)
            return real[name](*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", functools.partial(guarded, "replace"))
            patch.setattr(shutil, "rmtree", functools.partial(guarded, "rmtree"))
            patch.setattr(Path, "unlink", lambda self, missing_ok=False: guarded("unlink", self, missing_ok))
            try:
                run(data, output, "b")
                finished = True
            except Exception:
                finished = False
        if limit % 2:
            run(data, Output(shard_mb=0.02), "a")
            assert files(root) == earlier, limit
        run(data, output, "b")
        assert files(root) == expected, limit
        shutil.rmtree(root)
        if finished:
            return
    raise AssertionError("never ran through")


# --------------------------------------------------------------------------------------------- memory

_MEMORY = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from curate.dataset import Dataset, Generation
from test_export import SCHEMA, Output, run
root = Path({root!r})
entries, names = run(Dataset(root, "documents", {{n: "" for n in SCHEMA.names}}, (), SCHEMA), Output(validation=0.01))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(sum(e.bytes for e in entries), int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["short", "long", "very long", "a few very long"])
def test_memory_is_bounded(tmp_path: Path, sizes: str) -> None:
    """A corpus of 1 GB of short, long or very long documents in less than 600 MB."""
    part = documents(2000, {"short": 30, "long": 5000}.get(sizes, 300))
    if "very" in sizes:
        long = "".join(part["text"].to_pylist()) * 6
        texts = [long[i : i + (16 << 20)] for i in range(4)] + (part["text"].to_pylist() if "few" in sizes else [])
        part = part.slice(0, len(texts)) if len(texts) < 2000 else pa.concat_tables([part, part.slice(0, 4)])
        bytes_ = pa.array([len(t) for t in texts], pa.uint32())
        part = part.set_column(1, "text", pa.array(texts)).set_column(5, "text_bytes", bytes_)
    part = pa.concat_tables([part] * max(1, (64 << 20) // part.nbytes)).combine_chunks()
    part = part.set_column(9, "record", pa.array(range(part.num_rows), pa.int64()))
    listed = []
    for i in range((1 << 30) // sum(part["text_bytes"].to_pylist()) + 1):
        named = part.set_column(8, "file", pa.array([f"part-{i}"] * part.num_rows))
        info = corpus(tmp_path / "one", named, shards=1).generation.shards[0]
        (tmp_path / "documents").mkdir(exist_ok=True)
        (tmp_path / "one" / "documents" / info.name).rename(tmp_path / "documents" / f"{i}.parquet")
        listed.append(replace(info, name=f"{i}.parquet"))
    write_generation(tmp_path, "documents", SCHEMA, listed)
    script = _MEMORY.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    written, peak = map(int, done.stdout.split())
    print(f"{sizes}: {peak >> 20} MB")
    assert written > 900 << 20
    assert peak < 600 << 20
