"""The report page: its figures are the ledger's, nothing of a crawl gets out of its text, and any run has one."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from corpus import curate, recipe, rows, write_jsonl

from curate import report
from curate.errors import BlastRadiusError, ManifestError, StageError
from curate.recipe import Recipe
from curate.run import Run, run
from curate.show import funnel
from curate.stage import BatchFn, Filter, Task
from curate.storage import read_json, write_json

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}
EVIL = '<script>alert("1")</script>'
TURN = "\u202egnp.exe \u200f"
BODY = """\
name: small
source: auto
stages:
  - word_count
  - exact_dedup: {by: normalised}
  - where: {sql: "word_count > 10"}
    id: scraps
output: {validation: 0.02}
"""


@dataclass(frozen=True, kw_only=True)
class Odd(Filter):
    """Drops every tenth document for a reason that is markup."""

    def reads(self) -> tuple[str, ...]:
        return ("n",)

    def reasons(self) -> tuple[str, ...]:
        return (f"odd.{EVIL}",)

    def reject(self, batch: pa.RecordBatch) -> pa.Array:
        return pa.array([self.reasons()[0] if n % 10 == 0 else None for n in batch["n"].to_pylist()], pa.string())


class Page(HTMLParser):
    """Checks that tags are balanced and collects text, attributes, and tables as rows of cells."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert not self.open, self.open
        self.text = "".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if "caption" in self.open:
            self._caption += data
        elif self.open and {"td", "th"} & set(self.open):
            self._rows[-1][-1] += data

    def table(self, caption: str) -> list[dict[str, str]]:
        """Rows of the table whose caption begins so, by column heading."""
        (found,) = (t for c, t in self.tables.items() if c.startswith(caption))
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


def page(root: Path) -> Page:
    """The page of a run, with what must hold for every page."""
    path = report.write(root)
    source = path.read_text("utf-8")
    assert path == root / "report.html"
    assert len(source.encode()) < 300_000
    found = Page(source)
    assert source.startswith("<!doctype html>") and '<html lang="en">' in source
    assert not found.tags.keys() & {"script", "img", "link", "iframe", "object", "form", "base"}
    assert found.tags["h1"] == 1 and found.tags["table"] == found.tags["caption"]
    for tag, name, value in found.attributes:
        assert name not in ("src", "action", "srcset") and not name.startswith("on"), (tag, name, value)
        assert name != "href" or value.startswith("#"), (tag, value)
    anchors = {v for _, k, v in found.attributes if k == "id"}
    assert {v[1:] for _, k, v in found.attributes if k == "href"} <= anchors
    style = source.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in source and "prefers-color-scheme:dark" in style
    return found


def number(text: str) -> int:
    assert re.fullmatch(r"\d{1,3}(,\d{3})*|", text), text
    return int(text.replace(",", "") or 0)


def make(folder: Path, body: str = BODY, n: int = 1500, **options: Any) -> Path:
    if not (folder / "in").exists():
        documents = rows(n)
        half = n // 2
        write_jsonl(folder / "in" / "a.jsonl", documents[:half])
        pl.DataFrame(documents[half:]).write_parquet(folder / "in" / "b.parquet")
    loaded = Recipe.load(recipe(folder, body)).with_inputs([str(folder / "in")])
    run(loaded, folder / "run", executor="inline", **options)
    return folder / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("report"))


def test_run_writes_it(finished: Path) -> None:
    assert (finished / "report.html").stat().st_size > 5_000
    done = curate("report", finished, check=0)
    assert done.stdout.strip() == str(finished / "report.html")


def test_figures_are_the_ledgers(finished: Path) -> None:
    found, ledger = page(finished), pl.read_parquet(finished / "ledger.parquet")
    summary = read_json(finished / "summary.json")
    kept = ledger.filter(pl.col("stage") == "export", pl.col("reason").is_null())
    assert f"{kept['documents'].sum():,} of {summary['stages'][0]['rows_in']:,} records kept" in found.text
    assert f"{kept['tokens'].sum():,} estimated tokens" in found.text
    assert summary["digest"] in found.text
    lines = found.table("Documents in and out of each stage")
    stage = ""
    seen = Counter[str]()
    for line in lines:
        if line["In"]:
            stage = line["Stage"]
            out = ledger.filter(pl.col("stage") == stage, pl.col("reason").is_null())
            gone = ledger.filter(pl.col("stage") == stage, pl.col("reason").is_not_null())["documents"].sum()
            assert number(line["Out"]) == out["documents"].sum()
            assert number(line["Estimated tokens"]) == out["tokens"].sum()
            assert number(line["Dropped"]) == gone == number(line["In"]) - number(line["Out"])
        else:
            own = ledger.filter(pl.col("stage") == stage, pl.col("reason") == line["Stage"])["documents"].sum()
            assert number(line["Dropped"]) == own > 0
            seen[stage] += 1
    assert [r["Stage"] for r in lines if r["In"]] == ["ingest", "word_count", "exact_dedup", "scraps", "export"]
    assert seen == {"exact_dedup": 1, "scraps": 1}
    (corpus,) = found.table("Kept and dropped by corpus")
    assert corpus["Corpus"] == "in" and number(corpus["Kept"]) == kept["documents"].sum()
    drops = ledger.filter(pl.col("reason").is_not_null())
    assert number(corpus["Dropped"]) == drops["documents"].sum()
    assert number(corpus["Dropped estimated tokens"]) == drops["tokens"].sum()


def test_files_phases_and_samples(finished: Path) -> None:
    found, manifest = page(finished), read_json(finished / "output" / "manifest.json")
    outputs = found.table("Files below output/")
    assert [(r["File"], r["Split"], number(r["Documents"])) for r in outputs[:-1]] == [
        (s["path"], s["split"], s["documents"]) for s in manifest["shards"]
    ]
    assert number(outputs[-1]["Documents"]) == manifest["totals"]["documents"]
    inputs = found.table("Input files")
    assert [r["File"] for r in inputs] == ["a.jsonlin", "b.parquetin", "All"]
    assert [r["sha256"] for r in inputs[:-1]] == [i["sha256"][:12] for i in manifest["inputs"]]
    assert len(found.table("Phases")) == len(Run(finished).status()) + 1
    assert "6 kept documents" in found.text and "dropped documents and records" in found.text
    assert "exact_dedup.duplicate · duplicate of doc-" in found.text
    assert "where.false" in found.text and "too short" in found.text
    assert "sql: word_count > 10" in found.text
    assert f"curate inspect {finished.name} --stage exact_dedup --dropped" in found.text
    example = re.search(rf"curate why {finished.name} (\S+?)the life", found.text)
    assert example and Run(finished).why(example[1])


def test_hostile_input(tmp_path: Path) -> None:
    documents = rows(40)
    for i, document in enumerate(documents):
        evil = f"{EVIL} & 'quoted' {TURN} {i} \x00\x1b[31m</details></body>"
        document.update(id=f"{evil}-{i}", url=f'javascript:"{evil}', text=f"{document['text']} {i}")
        document["text"] = f"{EVIL}\u2067 {i} <img src=https://evil.test/x onerror=1>\n\n\n{document['text']}"
    corpus = tmp_path / "<b>corpus&"
    write_jsonl(corpus / "<i onload='x'>\u200f.jsonl", documents)
    body = "name: hostile\nsource: auto\nstages:\n  - word_count\n  - test_report:Odd\n"
    sys.modules.setdefault("test_report", sys.modules[__name__])
    loaded = Recipe.load(recipe(tmp_path, body)).with_inputs([str(corpus)])
    root = run(loaded, tmp_path / "run", executor="inline").root
    found = page(root)
    source = (root / "report.html").read_text("utf-8")
    assert "<script" not in source and "<img" not in source and "onerror=1>" not in source
    assert not re.search("[\x00-\x08\x0b-\x1f\u200e\u200f\u202a-\u202e\u2066-\u2069]", source)
    assert EVIL in found.text and "U+202E" in found.text and "U+200F" in found.text and "U+2067" in found.text
    assert {r["Stage"] for r in found.table("Documents in and out")} >= {f"odd.{EVIL}"}
    assert found.table("Kept and dropped by corpus")[0]["Corpus"] == "<b>corpus&"
    assert found.table("Input files")[0]["File"].startswith("<i onload='x'>U+200F.jsonl")
    assert "curate why run ID-OR-URL" in found.text  # no id here is fit for a command line


def test_many_groups_and_long_names(tmp_path: Path) -> None:
    languages = [f"x{i:03d}" for i in range(65)]
    for i in range(70):
        name = f"{i:03d}" + "&" * 180
        documents = [
            {
                "id": f"{'<' * 400}{i}-{k}",
                "text": "too short" if i % 65 < 5 else f"{'&' * 50}\u202e" * 40,
                "language": languages[i % 65],
            }
            for k in range(12)
        ]
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", documents)
    body = 'name: wide\nsource: auto\nstages:\n  - where: {sql: "text_bytes > 100"}\noutput: {columns: [id, text]}\n'
    found = page(make(tmp_path, body))
    table = found.table("Kept and dropped by language")
    assert [r["Language"] for r in table][20:] == ["45 others", "All"]
    flagged = [r for r in table if "over half" in r["Drop rate"]]
    assert flagged and all(r["Language"] in languages[:5] for r in flagged)
    assert "5 languages (" in found.text and "was dropped, most by where.false" in found.text
    assert len(found.table("The first 50 of 70 input files")) == 51


def test_rejects_and_limit(tmp_path: Path) -> None:
    good = rows(30)
    path = write_jsonl(tmp_path / "in" / "a.jsonl", good)
    path.write_text(path.read_text().replace("\n", '\n{"text": ""}\n', 1) + '{"broken": \n')
    body = "name: bad\nsource: {jsonl: {on_error: quarantine}}\nstages: []\n"
    root = make(tmp_path, body)
    ledger = pl.read_parquet(root / "ledger.parquet").filter(pl.col("stage") == "ingest", pl.col("reason").is_not_null())
    found = page(root)
    expected = dict(ledger.group_by("reason").agg(pl.col("documents").sum()).rows())
    lines = {r["Reason"]: number(r["Records"]) for r in found.table("Records of the input that did not")}
    assert lines.pop("All") == sum(expected.values()) > 0
    assert lines == expected
    assert all(f"ingest: {reason}" in found.text for reason in expected)
    shutil.rmtree(root)
    limited = page(make(tmp_path, body, limit=7))
    assert "Only the first 7 documents" in limited.text


def test_expand(tmp_path: Path) -> None:
    body = BODY.replace("output:", "  - split: {max_bytes: 600}\noutput:")
    root = make(tmp_path, body, n=300)
    found = page(root)
    lines = found.table("Documents in and out")
    (made,) = (r for r in lines if r["Stage"] == "split")
    assert number(made["Made"]) == number(made["Out"]) - number(made["In"]) > 0
    totals = read_json(root / "output" / "manifest.json")["totals"]
    assert f"{totals['documents']:,} documents made of 300 records" in found.text


def test_stopped_by_the_blast_radius(tmp_path: Path) -> None:
    root = make(tmp_path)
    old = page(root)
    assert "has not finished" not in old.text
    changed = BODY.replace('sql: "word_count > 10"}', 'sql: "word_count > 150"}\n    max_drop: 0.1')
    with pytest.raises(BlastRadiusError):
        make(tmp_path, changed)
    found = page(root)
    assert "This run has not finished." in found.text and "no ledger has checked them" in found.text
    lines = {r["Stage"]: r for r in found.table("Documents in and out")}
    assert number(lines["where.false"]["Dropped"]) > 100 and "export" not in lines
    assert re.search(r"scraps dropped [\d.]+% of corpus=in", found.text)
    assert "records kept" not in found.text and not any(c.startswith("Files below") for c in found.tables)
    assert "scraps: where.false" in found.text
    make(tmp_path, changed, accept=["scraps"])
    done = page(root)
    assert "has not finished" not in done.text and "The blast radius of scraps was accepted" in done.text


def test_failed_stage(tmp_path: Path) -> None:
    with pytest.raises(StageError):
        make(tmp_path, BODY.replace("word_count > 10", "word_count > 'x'"), n=50)
    found = page(tmp_path / "run")
    assert "has not finished" in found.text and "have failed" in found.text and "Failure: phases/" in found.text


@dataclass(frozen=True, kw_only=True)
class Noted(Odd):
    """Odd, and a note that is markup."""

    def reasons(self) -> tuple[str, ...]:
        return ("odd",)

    def open(self, task: Task) -> BatchFn:
        def process(batch: pa.RecordBatch) -> pa.RecordBatch:
            task.count(f"documents {EVIL}", batch.num_rows)
            return self.process(batch)

        return process


NOTED = BODY.replace("  - exact", "  - test_report:Noted\n  - exact")


def test_notes_of_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, NOTED, n=300)
    says = f"Noted: 300 documents {EVIL}"
    assert says in page(root).text and says not in page(make(tmp_path / "other", n=300)).text
    edited = NOTED.replace("word_count > 10", "word_count > 20")
    assert says in page(make(tmp_path, edited)).text, "though the stage was not run again"
    make(tmp_path, edited, until="Noted")
    assert says in page(root).text
    funnel(Run(root).summary)
    assert f"note: {says}" in " ".join(capsys.readouterr().out.split())


def test_stopped_on_purpose(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.parent / "in", tmp_path / "in", copy_function=shutil.copy2)
    shutil.copytree(finished, tmp_path / "run")
    root = make(tmp_path, until="exact_dedup")
    assert not (root / "report.html").exists(), "a page of the run before"
    found, kept = page(root), Run(root).summary["documents"]
    assert f"This run stopped after exact_dedup, as it was to. {kept:,} documents are left of 1,500 records." in found.text
    assert "without --until" in found.text and "has not finished" not in found.text and "curate verify" not in found.text
    lines = found.table("Documents in and out")
    assert [r["Stage"] for r in lines if r["In"]] == ["ingest", "word_count", "exact_dedup"]
    assert not any(c.startswith("Files below") for c in found.tables), "the output is that of an earlier run"
    (corpus,) = found.table("Kept and dropped by corpus")
    assert number(corpus["Kept"]) == kept == 1500 - number(corpus["Dropped"]) and "6 kept" in found.text
    make(tmp_path)
    assert "stopped after" not in page(root).text


@pytest.mark.parametrize(
    "gone",
    [
        "summary.json",
        "output/manifest.json",
        "output",
        "ledger.parquet",
        "plan.json",
        "recipe.yaml",
        "drops",
        "attributes",
        "documents",
        "phases",
    ],
)
def test_half_a_run(finished: Path, tmp_path: Path, gone: str) -> None:
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    path = root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = page(root)
    if gone in ("summary.json", "output/manifest.json", "output", "ledger.parquet", "plan.json", "phases"):
        assert "This run has not finished." in found.text
    if gone == "plan.json":
        (root / "ledger.parquet").unlink()
        assert "No phase has begun." in page(root).text


def test_a_stale_ledger_is_not_read(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    plan = read_json(root / "plan.json")
    write_json(root / "plan.json", {**plan, "complete": False})
    assert "The ledger is closed" in page(root).text
    write_json(root / "plan.json", {**plan, "complete": False, "phases": plan["phases"][:3]})
    assert "no ledger has checked them" in page(root).text


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_cheap(finished: Path) -> None:
    report.write(finished)
    spent = []
    for _ in range(3):
        started = time.process_time()
        report.write(finished)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.25  # 0.04 on the machine that it was written on


def test_what_a_manifest_may_say(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    path = root / "output" / "manifest.json"
    manifest = read_json(path)
    kept = manifest["totals"]["documents"]
    manifest["totals"]["documents"] = 2 * kept
    manifest.update(tokenizer="some/hub-id", deterministic=False)
    manifest["shards"] = [{**manifest["shards"][0], "path": f"data/g/{i}.parquet", "group": "g"} for i in range(150)]
    write_json(path, manifest)
    found = page(root)
    assert "estimate" not in found.text and "by some/hub-id" in found.text
    assert "not deterministic" in found.text and "Not deterministic" in found.text
    assert f"{kept:,} documents are written {2 * kept:,} times" in found.text
    outputs = found.table("Files below output/")
    assert len(outputs) == 101 and outputs[0]["Group"] == "g" and "50 more files" in found.text


def test_samples_are_bounded(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "HUGE_BYTES", 0)
    read: list[int] = []
    inner = report._read
    monkeypatch.setattr(report, "_read", lambda data, shard, *rest: read.append(shard) or inner(data, shard, *rest))
    assert "6 kept documents" in page(finished).text
    assert len(read) <= 1 + report.DROPPED_SAMPLES
    monkeypatch.setattr(report, "MODEL_BYTES", -1)
    found = page(finished)
    assert "Not sampled: the models of this run are large" in found.text and "kept documents" not in found.text
