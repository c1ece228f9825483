"""Every kind of input becomes the same kind of documents."""

from __future__ import annotations

import datetime
import gzip
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus import rows, write_jsonl

import curate.sources as sources
from curate.errors import SourceError
from curate.ingest import IngestWork
from curate.phases import Context, Phase
from curate.recipe import Recipe
from curate.run import Inputs, run
from curate.sources import Source, document_schema, inventory, jsonl, parquet, splits
from curate.storage import read_table

PAGE = "<html lang='de-AT'><head><title>T</title></head><body><article>{}</article></body></html>".format(
    "<p>" + "Ein Satz über die Brücke am Fluss und das Wetter im Norden. " * 20 + "</p>"
)


def ingest(tmp_path: Path, *paths: Path, **options: Any) -> pl.DataFrame:
    """The documents of these inputs, in order."""
    recipe = Recipe(name="x", source=Source(paths=tuple(map(str, paths)), **options))
    inputs = Inputs.of(recipe, None)
    root = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
    work = IngestWork(recipe.source, inputs.files, inputs.splits, inputs.schema, "drops")
    phase = Phase(name="i", tasks=work.tasks, stages=(), fingerprint="", context=Context(root=root), work=work)
    for rank in range(work.tasks):
        phase(None, rank)
    names = [s["name"] for r in phase.records() for s in r["shards"]]
    return pl.DataFrame(pa.concat_tables([read_table(root / "documents" / n) for n in names]))


def test_every_kind_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    text = rows(5)
    write_jsonl(folder / "a.jsonl", text)
    raw = (folder / "a.jsonl").read_bytes()
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(raw))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(raw))
    pl.DataFrame(text).write_parquet(folder / "d.parquet")
    (folder / "e.txt").write_text("A text file about a bridge.\n")
    (folder / "f.html").write_text(PAGE)
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(text).save_to_disk(str(folder / "g"), num_shards=2)
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.jsonl").write_text("x")
    found = ingest(tmp_path, folder)
    count = found.group_by("file").len().sort("file").rows()
    expected = [("a.jsonl", 5), ("b.jsonl.gz", 5), ("c.jsonl.zst", 5), ("d.parquet", 5), ("e.txt", 1), ("f.html", 1)]
    assert count[:6] == expected and sum(n for _, n in count[6:]) == 5
    for file in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet"):
        part = found.filter(pl.col("file") == file)
        assert part["text"].to_list() == [d["text"] for d in text]
        assert part["id"].to_list() == [d["id"] for d in text]
        assert part["score"].to_list() == [d["score"] for d in text]
    assert set(found["corpus"]) == {"in"}
    page = found.filter(pl.col("file") == "f.html").row(0, named=True)
    assert page["declared_language"] == "de" and "Ein Satz über die Brücke" in page["text"]
    assert page["media_type"] == "text/html" and page["raw_bytes"] == len(PAGE.encode())
    assert page["text_bytes"] == len(page["text"].encode()) and page["tokens"] == (page["text_bytes"] + 3) // 4


def test_byte_ranges_read_every_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [{"text": f"{'x' * (i * 37 % 400)} line {i}", "n": i} for i in range(1000)]
    path = write_jsonl(tmp_path / "x.jsonl", documents)
    whole = ingest(tmp_path, path)
    raw = path.read_bytes()
    for size in (1000, 4096, 33_333):
        monkeypatch.setattr(sources, "SMALL_SPLIT", size)
        monkeypatch.setattr(sources, "LARGE_SPLIT", size)
        parts = ingest(tmp_path, path)
        assert parts["n"].to_list() == list(range(1000))
        assert parts.equals(whole)
    for at, n in zip(whole["record"], whole["n"], strict=True):
        assert json.loads(raw[at : raw.index(b"\n", at)])["n"] == n


def test_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame(rows(1000)).write_parquet(tmp_path / "x.parquet", row_group_size=90)
    whole = ingest(tmp_path, tmp_path / "x.parquet")
    monkeypatch.setattr(sources, "SMALL_SPLIT", 20_000)
    monkeypatch.setattr(sources, "LARGE_SPLIT", 20_000)
    source = Source(paths=(str(tmp_path / "x.parquet"),))
    assert len(splits(inventory(source), source)) > 5
    assert ingest(tmp_path, tmp_path / "x.parquet").equals(whole)
    assert whole["record"].to_list() == list(range(1000))


def test_splits_follow_the_inventory(tmp_path: Path) -> None:
    files = [sources.InputFile("c", f"{i:03d}.txt", f"/x/{i}", "text", 1 << 20, "") for i in range(100)]
    parts = splits(files, Source())
    assert [len(p) for p in parts] == [4] * 25  # 4 MB at least
    assert [p.file for s in parts for p in s] == list(range(100))


def test_collisions_types_and_ids(tmp_path: Path) -> None:
    when = datetime.datetime(2024, 5, 1, 12, 30)
    table = pa.table(
        {
            "text": pa.array(["one", "two"], pa.large_string()),
            "id": [7, 8],
            "date": [when, when],
            "tokens": [1.5, 2.5],
            "file": ["a", "b"],
            "tags": pa.array([["x"], []], pa.large_list(pa.large_string())),
            "kind": pa.array(["k", "k"]).dictionary_encode(),
            "language": ["en", None],
            "_row": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    found = ingest(tmp_path, tmp_path / "x.parquet")
    assert found["id"].to_list() == ["7", "8"] and found["date"][0].startswith("2024-05-01T12:30:00")
    assert found["input_tokens"].to_list() == [1.5, 2.5] and found["tokens"].to_list() == [1, 1]
    assert found["input_file"].to_list() == ["a", "b"] and found["file"].to_list() == ["x.parquet"] * 2
    assert found["input_row"].to_list() == [1, 2]
    assert found["tags"].to_list() == [["x"], []] and found["kind"].to_list() == ["k", "k"]
    assert found["language"].to_list() == ["en", None]
    pl.DataFrame({"body": ["one", "two"], "text": [1, 2]}).write_parquet(tmp_path / "y.parquet")
    other = ingest(tmp_path, tmp_path / "y.parquet", text="body")
    assert other["text"].to_list() == ["one", "two"]
    assert len(set(other["id"])) == 2 and all(len(i) == 32 for i in other["id"])
    assert other["id"].to_list() == ingest(tmp_path, tmp_path / "y.parquet", text="body")["id"].to_list()


def test_schemas_are_unified(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["a"], "x": pa.array([1], pa.int32()), "y": pa.nulls(1)}), folder / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "x": pa.array([2], pa.int64()), "y": ["s"]}), folder / "b.parquet")
    pq.write_table(pa.table({"text": ["c"], "x": pa.array([2.5]), "z": [True]}), folder / "c.parquet")
    found = ingest(tmp_path, folder)
    assert found["x"].to_list() == [1.0, 2.0, 2.5] and found["y"].to_list() == [None, "s", None]
    assert found["z"].to_list() == [None, None, True]
    pq.write_table(pa.table({"text": ["d"], "x": ["text"]}), folder / "d.parquet")
    source = Source(paths=(str(folder),))
    with pytest.raises(SourceError, match=r"column 'x' is double in .*c\.parquet but string in .*d\.parquet"):
        document_schema(inventory(source), source)


def test_jsonl_types_can_be_declared(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"text": "a", "n": 1}] * 2 + [{"text": "b", "n": 1.5, "late": {"deep": 1}}])
    found = ingest(tmp_path, path)
    assert found["n"].to_list() == [1.0, 1.0, 1.5]
    many = [{"text": "a", "n": 1}] * 1000 + [{"text": "b", "n": "text", "late": {"deep": 1}}]
    found = ingest(tmp_path, write_jsonl(tmp_path / "y.jsonl", many))
    assert json.loads(found["_extra"][1000]) == {"late": {"deep": 1}, "n": "text"} and found["n"][1000] is None
    found = ingest(tmp_path, tmp_path / "y.jsonl", columns={"n": "string"})
    assert found["n"][1000] == "text" and json.loads(found["_extra"][0]) == {"n": 1}


def test_text_that_is_too_long(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"text": "ä" * 3000}, {"text": "short"}])
    assert ingest(tmp_path, path, max_text_bytes=1001)["text"].to_list() == ["short"]
    assert ingest(tmp_path, path, max_text_bytes=1001, cut_text=True)["text"].to_list() == ["ä" * 500, "short"]


def test_keep_html_and_the_extract_stage(tmp_path: Path) -> None:
    from curate.stages.extract import Extract

    (tmp_path / "x.html").write_bytes(PAGE.encode("utf-16"))
    found = ingest(tmp_path, tmp_path / "x.html", keep_html=True, extract="none")
    assert found["text"].to_list() == [""] and found["html"][0].decode() == PAGE
    again = Extract()(found)
    assert again.kept["text"].to_pylist() == ingest(tmp_path, tmp_path / "x.html")["text"].to_list()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_wet(tmp_path: Path, packed: str) -> None:
    def record(i: int) -> bytes:
        body = f"Zeile {i}\nmit Text über Köln".encode()
        return (
            (
                f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://a.test/{i}\r\n"
                f"WARC-Date: 2024-01-02T03:04:05Z\r\nWARC-Record-ID: <urn:uuid:{i}>\r\n"
                f"WARC-Identified-Content-Language: deu\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
            + b"\r\n\r\n"
        )

    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    path = tmp_path / f"x.warc.wet{packed}"
    path.write_bytes(b"".join(pack(record(i)) for i in range(3)))
    found = ingest(tmp_path, path)
    assert found["url"].to_list() == [f"https://a.test/{i}" for i in range(3)]
    assert found["text"][1].splitlines() == ["Zeile 1", "mit Text über Köln"]
    assert found["id"].to_list() == [f"<urn:uuid:{i}>" for i in range(3)] and found["date"][0] == "2024-01-02T03:04:05Z"
    assert found["media_type"].to_list() == ["text/plain"] * 3


def test_globs_roots_and_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a" / "2.jsonl", [{"text": "two"}])
    write_jsonl(tmp_path / "a" / "1.jsonl", [{"text": "one"}])
    write_jsonl(tmp_path / "b" / "sub" / "3.jsonl", [{"text": "three"}])
    found = ingest(tmp_path, tmp_path / "b", tmp_path / "a" / "*.jsonl")
    assert found["text"].to_list() == ["three", "one", "two"]
    assert found["corpus"].to_list() == ["b", "a", "a"] and found["file"].to_list() == ["sub/3.jsonl", "1.jsonl", "2.jsonl"]
    single = ingest(tmp_path, tmp_path / "a" / "1.jsonl")
    assert single["corpus"].to_list() == ["1"] and single["file"].to_list() == ["1.jsonl"]
    assert ingest(tmp_path, tmp_path / "a", corpus="mine")["corpus"].to_list() == ["mine"] * 2


def test_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": f"http://{host.replace('0.0.0.0', '127.0.0.1')}:{port}",
        }.items():
            monkeypatch.setenv(name, value)
        documents = rows(50)
        local = tmp_path / "in"
        write_jsonl(local / "a.jsonl", documents)
        pl.DataFrame(documents).write_parquet(local / "b.parquet", row_group_size=10)
        (local / "c.jsonl.gz").write_bytes(gzip.compress((local / "a.jsonl").read_bytes()))
        fs = s3fs.S3FileSystem()
        fs.mkdir("bucket", region_name="eu-west-1")
        for path in local.iterdir():
            fs.put(str(path), f"bucket/in/{path.name}")
        remote = ingest(tmp_path, "s3://bucket/in")  # type: ignore[arg-type]
        assert remote.equals(ingest(tmp_path, local))
        with pytest.raises(SourceError, match="does not exist"):
            ingest(tmp_path, "s3://bucket/nothing")  # type: ignore[arg-type]
    finally:
        server.stop()


def test_no_input_column_is_lost(tmp_path: Path) -> None:
    rows_ = {"content": ["x"], "text": ["y"], "uuid": ["1"], "id": ["2"], "_extra": ["z"]}
    pl.DataFrame(rows_).write_parquet(tmp_path / "a.parquet")
    found = ingest(tmp_path, tmp_path / "a.parquet", text="content", id="uuid").row(0, named=True)
    assert (found["text"], found["id"]) == ("x", "1")
    assert (found["input_text"], found["input_id"], found["input_extra"]) == ("y", "2", "z")
    write_jsonl(tmp_path / "a.jsonl", [{k: v[0] for k, v in rows_.items()}])
    found = ingest(tmp_path, tmp_path / "a.jsonl", text="content", id="uuid").row(0, named=True)
    assert (found["text"], found["id"], found["input_text"], found["input_extra"]) == ("x", "1", "y", "z")


def test_columns_that_would_have_one_name(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["x"], "tokens": [5], "input_tokens": [7]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet has the column 'input_tokens' as well as 'tokens'"):
        ingest(tmp_path, tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 3, names=["text", "a", "a"]), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="the column 'a' twice"):
        ingest(tmp_path, tmp_path / "b.parquet")
    late = [{"text": "x", "tokens": 5}] * 1000 + [{"text": "y", "tokens": 6, "input_tokens": 7}]
    found = ingest(tmp_path, write_jsonl(tmp_path / "c.jsonl", late)).row(1000, named=True)
    assert found["input_tokens"] == 6 and json.loads(found["_extra"]) == {"input_tokens": 7}
    pl.DataFrame({"text": ["x"], "language": [["en"]]}).write_parquet(tmp_path / "d.parquet")
    with pytest.raises(SourceError, match="'language' is large_list"):
        ingest(tmp_path, tmp_path / "d.parquet")


def test_jsonl_values_that_no_column_can_hold(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"text": "a", "v": 0.5, "u": 2**62, "e": {}, "l": [], "deep": [{"x": {}}]}] * 1000
    lines += [{"text": "b", "v": 2**60 + 1, "u": 2**63, "e": {"k": 1}, "l": ["tag"]}, {"text": "c", "v": 3, "u": -1}]
    found = ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", lines))
    assert json.loads(found["_extra"][0]) == {"e": {}, "deep": [{"x": {}}]}
    assert json.loads(found["_extra"][1000]) == {"v": 2**60 + 1, "u": 2**63, "e": {"k": 1}, "l": ["tag"]}
    assert found["v"][1001] == 3.0 and found["u"][1001] == -1
    tags = [{"text": "a", "l": []}, {"text": "b", "l": ["tag"]}]
    assert ingest(tmp_path, write_jsonl(tmp_path / "b.jsonl", tags))["l"].to_list() == [[], ["tag"]]


def test_jsonl_from_windows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\r\n')
    assert ingest(tmp_path, tmp_path / "a.jsonl")["text"].to_list() == ["a", "b"]


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("size", [64 << 20, 1 << 20])
def test_jsonl_lines_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes, size: int) -> None:
    """They cost neither their neighbours nor memory, whole or divided."""
    monkeypatch.setattr(jsonl, "LONGEST", 1 << 20)
    monkeypatch.setattr(sources, "SMALL_SPLIT", size)
    good = [b'{"text": "%d"}\n' % i for i in range(4)]
    long = b'{"text": "' + b"x" * (9 << 20) + b'"}\n'
    raw = good[0] + long + good[1] + good[2] + long + long + good[3].strip() + end
    (tmp_path / "a.jsonl").write_bytes(raw)
    found = ingest(tmp_path, tmp_path / "a.jsonl")
    assert found["text"].to_list() == ["0", "1", "2", "3"]
    assert [raw[at : at + 13] for at in found["record"]] == [g[:13] for g in good]
    rejected = pa.concat_tables([read_table(p) for p in sorted((tmp_path / "run0" / "drops").iterdir())])
    assert rejected["_reason"].to_pylist() == ["too_large"] * 3


def test_one_name_for_one_input(tmp_path: Path) -> None:
    a, b = (write_jsonl(tmp_path / r / "in" / "x.jsonl", rows(3)) for r in "ab")
    assert set(ingest(tmp_path, tmp_path / "a" / "in" / "*.jsonl")["corpus"]) == {"in"}
    with pytest.raises(SourceError, match=r"x\.jsonl is given twice"):
        ingest(tmp_path, a, a.parent)
    with pytest.raises(SourceError, match=r"would both be 'x\.jsonl' of corpus 'in': give one folder"):
        ingest(tmp_path, a.parent, b.parent)
    found = ingest(tmp_path, tmp_path / "*" / "in" / "x.jsonl")
    assert found["id"].n_unique() == 3 and found["file"].unique().sort().to_list() == ["a/in/x.jsonl", "b/in/x.jsonl"]


def test_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "a b#c ü [1]" / "x#y z%20.jsonl"
    write_jsonl(path, [{"text": "t", "id": "a#b 1"}])
    assert ingest(tmp_path, path.parent)["file"].to_list() == [path.name]
    assert ingest(tmp_path, path)["corpus"].to_list() == ["x#y z%20"]
    (tmp_path / "raw").mkdir()
    with open(os.fsencode(tmp_path / "raw") + b"/\xff.jsonl", "w") as out:
        out.write("{}")
    with pytest.raises(SourceError, match="not UTF-8"):
        ingest(tmp_path, tmp_path / "raw")


def test_what_lies_beside_the_data_is_no_data(tmp_path: Path) -> None:
    """An output of Curate and a data set from a hub have a card; a run folder may lie in its own input."""
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "in" / "a.parquet", mkdir=True)
    (tmp_path / "in" / "README.md").write_text("A card.")
    (tmp_path / "in" / "notes.md").write_text("A text.")
    assert ingest(tmp_path, tmp_path / "in")["file"].to_list() == ["a.parquet", "notes.md"]
    assert ingest(tmp_path, tmp_path / "in" / "README.md")["text"].to_list() == ["A card."]
    recipe = Recipe(name="x", source=Source(paths=(str(tmp_path / "in"),)))
    first = run(recipe, tmp_path / "in" / "run", executor="inline")
    assert run(recipe, tmp_path / "in" / "run", executor="inline").manifest.digest == first.manifest.digest
    with pytest.raises(SourceError, match=r"a run folder; its documents are in .*/run/output"):
        ingest(tmp_path, first.root)
    assert len(ingest(tmp_path, first.root / "output")) == 2


def test_parquet_of_long_documents_is_read_in_small_batches(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["words " * 100_000] * 64}), tmp_path / "a.parquet", use_dictionary=False)
    file = inventory(Source(paths=(str(tmp_path / "a.parquet"),)))[0]
    sizes = [b.nbytes for b in parquet.read(sources.Reading(file, Source(), sources.BASE), 0, -1)]
    assert len(sizes) > 1 and max(sizes) <= sources.BYTES
