"""What bad input gets: a quarantined record with its place, or one clear line and an exit code. Never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus import curate, mixed, recipe, refused, rows, write_jsonl

from curate.recipe import Recipe
from curate.run import Run, run

EMPTY = "name: empty\nsource: auto\nstages: []\n"


def ran(tmp_path: Path, source: Path, body: str = EMPTY) -> Run:
    return run(Recipe.load(recipe(tmp_path, body)).with_inputs([str(source)]), tmp_path / "run", executor="inline")


def rejects(finished: Run) -> list[tuple[str, int, str]]:
    table = finished.drops("ingest")
    return [(r["file"], r["record"], r["_reason"]) for r in table.to_pylist()]


def response(url: str, body: bytes, headers: bytes = b"Content-Type: text/html; charset=utf-8") -> bytes:
    http = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{abs(hash(url)):032x}>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def page(words: str) -> bytes:
    paragraph = f"<p>{words} " + "A sentence about rivers, bridges and the weather of the north. " * 12 + "</p>"
    return f"<html lang=en><body><article>{paragraph * 3}</article></body></html>".encode()


def test_damaged_archive(tmp_path: Path) -> None:
    members = [gzip.compress(response(f"https://a.test/{i}", page(f"page {i}"))) for i in range(5)]
    members[1] = members[1][:200] + bytes(16) + members[1][216:]
    whole = members[0] + members[1] + b"not a record at all" + members[2] + members[3] + members[4][:-40]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.warc.gz").write_bytes(whole)
    finished = ran(tmp_path, tmp_path / "in")
    kept = sorted(b["url"] for batch in finished.dataset().read(0, ["url"]) for b in batch.to_pylist())
    assert kept == ["https://a.test/0", "https://a.test/2", "https://a.test/3"]
    found = rejects(finished)
    assert {r for _, _, r in found} <= {"quarantine.damaged", "quarantine.garbage", "quarantine.truncated"}
    assert "quarantine.truncated" in {r for _, _, r in found}
    assert {r for _, at, r in found if at == len(members[0])} == {"quarantine.damaged"}
    assert finished.summary["stages"][0]["rows_in"] == 3 + len(found)


def test_missing_headers_wrong_charset_null_bytes(tmp_path: Path) -> None:
    latin = "<html><body><article><p>" + "Die Straße führt nach Köln. " * 30 + "</p></article></body></html>"
    records = [
        response("https://a.test/latin", latin.encode("windows-1252")),  # declared as UTF-8
        response("https://a.test/nul", page("nul\0byte")),
        response("https://a.test/plain", page("no type"), b"X-Other: 1"),
        b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: abc\r\n\r\nbody\r\n\r\n",
    ]
    (tmp_path / "x.warc.gz").write_bytes(b"".join(gzip.compress(r) for r in records))
    finished = ran(tmp_path, tmp_path / "x.warc.gz")
    texts = {r["url"]: r["text"] for b in finished.dataset().read(0, ["url", "text"]) for r in b.to_pylist()}
    assert "Straße führt nach Köln" in texts["https://a.test/latin"]
    assert "\0" not in texts["https://a.test/nul"]
    assert "https://a.test/plain" in texts
    assert [r for _, _, r in rejects(finished)] == ["quarantine.header"]


def test_huge_page_is_too_large_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    body = b"<p>" + b"spam and eggs " * (200 * 1024 * 1024 // 14)
    with path.open("wb") as out:
        out.write(gzip.compress(response("https://a.test/huge", body), 1))
        out.write(gzip.compress(response("https://a.test/after", page("after"))))
    del body
    limit = 1600 << 20  # of address space; what the libraries reserve at import is most of it
    done = curate(
        "run", recipe(tmp_path, EMPTY), "-i", path, "-o", tmp_path / "run", "-w", 0, "--json", check=0,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    assert json.loads(done.stdout)["documents"] == 1
    assert [r for _, _, r in rejects(Run(tmp_path / "run"))] == ["too_large"]


def test_jsonl(tmp_path: Path) -> None:
    good = {"id": 1, "text": "a good line", "tags": ["x"], "n": 1}
    lines = [
        json.dumps(good),
        '{"text": "cut in the mid',
        "[1, 2]",
        '{"text": 5}',
        '{"other": 1}',
        '{"text": "   "}',
        '{"text": "lone \\ud800 surrogate"}',
        "",
        json.dumps({"text": "nul \0 byte", "n": "not a number", "late": 3}),
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff\xfe"}')
    finished = ran(tmp_path, path)
    table = finished.dataset().scan().collect()
    assert table["text"].to_list() == ["a good line", "nul \0 byte"]
    assert table["id"][0] == "1" and len(table["id"][1]) == 32
    assert json.loads(table["_extra"][1]) == {"n": "not a number"}
    offsets = [sum(len(x.encode()) + 1 for x in lines[:i]) for i in range(len(lines) + 1)]
    expected = {
        offsets[1]: "quarantine.malformed",
        offsets[2]: "quarantine.malformed",
        offsets[3]: "quarantine.malformed",
        offsets[4]: "empty_text",
        offsets[5]: "empty_text",
        offsets[6]: "quarantine.malformed",
        offsets[9]: "quarantine.malformed",
    }
    assert {at: reason for _, at, reason in rejects(finished)} == expected


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_jsonl_that_breaks_off(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """What comes before the end is kept, the cut line and the end are written down; several members are one file."""
    lines = [json.dumps(d).encode() + b"\n" for d in rows(800)]
    packed = pack(b"".join(lines[:300])) + pack(b"".join(lines[300:]))
    path = tmp_path / f"x.jsonl.{'gz' if pack is gzip.compress else 'zst'}"
    path.write_bytes(packed)
    assert ran(tmp_path, path).summary["documents"] == 800
    path.write_bytes(packed[:-1000])
    finished = run(Recipe.load(recipe(tmp_path, EMPTY)).with_inputs([str(path)]), tmp_path / "cut", executor="inline")
    assert 300 < finished.summary["documents"] < 800
    assert "quarantine.damaged" in {r for _, _, r in rejects(finished)}


def test_parquet_with_bad_utf8_and_nulls(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"\xff\xfebad", None, b""], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    pq.write_table(pa.table({"text": broken, "record": pa.array([1, 2, 3, 4])}), tmp_path / "x.parquet")
    finished = ran(tmp_path, tmp_path / "x.parquet")
    assert finished.dataset().scan().collect()["input_record"].to_list() == [1]
    assert rejects(finished) == [
        ("x.parquet", 1, "quarantine.encoding"), ("x.parquet", 2, "empty_text"), ("x.parquet", 3, "empty_text"),
    ]  # fmt: skip


def test_misuse_is_one_line(tmp_path: Path) -> None:
    small = recipe(tmp_path, EMPTY)
    out = tmp_path / "run"
    (tmp_path / "nothing").mkdir()
    refused("run", small, "-i", tmp_path / "nothing", "-o", out, says="holds no file")
    refused("run", small, "-i", tmp_path / "missing", "-o", out, says="does not exist")
    refused("run", small, "-o", out, says="no input")
    refused("run", "wep", "-i", tmp_path, "-o", out, says="did you mean 'web'?")
    pl.DataFrame({"texts": ["x"]}).write_parquet(tmp_path / "x.parquet")
    refused("run", small, "-i", tmp_path / "x.parquet", "-o", out, says="did you mean 'texts'?")
    (tmp_path / "y.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    refused("run", small, "-i", tmp_path / "y.parquet", "-o", out, says="y.parquet cannot be read")
    (tmp_path / "z.xyz").write_text("x")
    refused("run", small, "-i", tmp_path / "z.xyz", "-o", out, says="does not say what it is")
    pl.DataFrame({"text": ["x"], "n": [1]}).write_parquet(tmp_path / "p.parquet")
    pl.DataFrame({"text": ["x"], "n": ["one"]}).write_parquet(tmp_path / "q.parquet")
    says = refused("run", small, "-i", tmp_path / "p.parquet", "-i", tmp_path / "q.parquet", "-o", out)
    assert "p.parquet" in says and "q.parquet" in says
    jsonl = recipe(tmp_path, "name: j\nsource: jsonl\nstages: []\n", "j.yaml")
    refused("run", jsonl, "-i", tmp_path / "p.parquet", "-o", out, says="source is jsonl")
    assert not out.exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("name: x\nstages:\n  - word_cuont\n", "recipe.yaml:3: unknown stage 'word_cuont'; did you mean 'word_count'?"),
        (
            "name: x\nstages:\n  - where: {sgl: 'a > 1'}\n",
            "recipe.yaml:3: stage 'where': parameter 'sgl' is unknown; did you mean 'sql'?",
        ),
        ("name: x\nstages:\n  - where\n", "'sql' is missing"),
        ("name: x\nstages:\n  - word_count\n    max_drop: 1\n", "recipe.yaml:4: not YAML"),
        ("name: x\nstags: []\n", "recipe.yaml:2: unknown key 'stags'; did you mean 'stages'?"),
        ("name: x\noutput: {shard_mb: big}\n", "shard_mb"),
        ("name: x\noutput: {validation: 2}\n", "validation"),
        ("name: x\nname: y\n", "twice"),
        ("- a\n- b\n", "a recipe is a mapping"),
        ("name: x\nstages:\n  - where: {sql: 'qality > 1'}\n", "reads the column 'qality'"),
        ("name: x\nstages:\n  - where: {sql: 'word_count > 1'}\n", "the stage 'word_count' writes it"),
        ("name: x\nstages:\n  - where: {sql: 'word_count > 1'}\n  - word_count\n", "put it before"),
        ("name: x\nstages: [word_count, split, {where: {sql: 'word_count > 1'}}]\n", "before the text was last changed"),
        ("name: x\noutput: {columns: [txt]}\n", "txt"),
        ("name: x\nsource: {auto: {extract: tralifatura}}\n", "tralifatura"),
    ],
)  # fmt: skip
def test_recipe_mistakes_name_the_line(tmp_path: Path, body: str, says: str) -> None:
    refused("run", recipe(tmp_path, body), "-i", write_jsonl(tmp_path / "x.jsonl", rows(3)), "-o", tmp_path / "run", says=says)
    assert not (tmp_path / "run" / "documents").exists()


def test_stale_column_can_be_allowed(tmp_path: Path) -> None:
    body = "name: x\nstages:\n  - word_count\n  - split\n  - where: {sql: 'word_count > 1'}\n    stale: ok\n"
    assert ran(tmp_path, write_jsonl(tmp_path / "x.jsonl", rows(30)), body).summary["documents"] > 0


def test_set_addresses(tmp_path: Path) -> None:
    data, path, out = write_jsonl(tmp_path / "x.jsonl", rows(30)), recipe(tmp_path), tmp_path / "run"
    refused("run", path, "-i", data, "-o", out, "--set", "stages.wehre.sql=x", says="did you mean 'where'?")
    refused("run", path, "-i", data, "-o", out, "--set", "output.shard=1", says="output option 'shard' is unknown")
    refused("run", path, "-i", data, "-o", out, "--set", "nonsense", says="address=value")
    refused("run", path, "-i", data, "-o", out, "--accept", "exact_dedupe", says="did you mean 'exact_dedup'?")
    curate("run", path, "-i", data, "-o", out, "--set", "stages.word_count#2.nope=1", check=2)
    curate("run", path, "-i", data, "-o", out, "--set", "stages.where.sql=word_count > 50", "-w", 0, check=0)


def test_unreadable_file(tmp_path: Path) -> None:
    data = tmp_path / "in"
    write_jsonl(data / "good.jsonl", rows(20))
    (data / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (data / "bad.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    refused("run", recipe(tmp_path, EMPTY), "-i", data, "-o", tmp_path / "run", says="gone.jsonl cannot be read")
    skip = recipe(tmp_path, "name: s\nsource: {auto: {on_error: quarantine}}\nstages: []\n", "s.yaml")
    done = curate("run", skip, "-i", data, "-o", tmp_path / "run", "--json", check=0)
    assert json.loads(done.stdout)["documents"] == 20
    found = {(f, r) for f, _, r in rejects(Run(tmp_path / "run"))}
    assert found == {("gone.jsonl", "quarantine.unreadable"), ("bad.parquet", "quarantine.unreadable")}


def test_folder_of_another_recipe(tmp_path: Path) -> None:
    data, out = write_jsonl(tmp_path / "x.jsonl", rows(30)), tmp_path / "run"
    curate("run", recipe(tmp_path, EMPTY), "-i", data, "-o", out, "-w", 0, check=0)
    other = recipe(tmp_path, EMPTY.replace("empty", "other"), "other.yaml")
    refused("run", other, "-i", data, "-o", out, says="holds a run of 'empty'")
    refused("run", tmp_path / "recipe.yaml", "-i", data, "-o", out, "--limit", 5, says="--limit")
    write_jsonl(data, rows(31))
    refused("run", tmp_path / "recipe.yaml", "-i", data, "-o", out, says="another input")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    refused("run", other, "-i", data, "-o", tmp_path / "full", says="neither empty nor a run")
    refused("verify", tmp_path / "full", code=1)
    refused("status", tmp_path / "full", code=1, says="not a run folder")


def test_read_only_output(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", rows(30))
    refused("run", recipe(tmp_path, EMPTY), "-i", data, "-o", "/proc/curate-run", says="cannot write to")
    (tmp_path / "file").write_text("")
    refused("run", recipe(tmp_path, EMPTY), "-i", data, "-o", tmp_path / "file" / "run", says="cannot write to")


@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk(tmp_path: Path, workers: int) -> None:
    """The kernel refuses to let a file grow: one line, no half-written shard, and the run goes on when there is room."""
    data = mixed(tmp_path / "in", 3000)
    command = ["run", recipe(tmp_path), "-i", data, "-o", tmp_path / "run", "-w", workers]
    refused(*command, code=1, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert not list((tmp_path / "run").rglob("documents/*.parquet"))
    curate(*command, check=0)
    curate("verify", tmp_path / "run", check=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_no_space_left(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a file system")
    try:
        data = mixed(tmp_path / "in", 3000)
        refused("run", recipe(tmp_path), "-i", data, "-o", disk / "run", "-w", 0, code=1, says="No space left")
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        curate("run", recipe(tmp_path), "-i", data, "-o", disk / "run", "-w", 0, check=0)
        curate("verify", disk / "run", check=0)
    finally:
        subprocess.run(["umount", disk], check=True)
