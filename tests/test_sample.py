"""The sample crawl is an answer sheet for other tests, so here its answers are checked against the bytes that were written."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import itertools
import json
import os
import re
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastwarc import ArchiveIterator
from fastwarc.warc import response
from resiliparse.parse.html import HTMLTree

from curate import sample
from curate.sample import DAMAGE, LAYOUTS, PASSAGES, SHARES, jaccard, shingles, write_sample

PAGES, FILES = 200, 4


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    counts = write_sample(out, pages=PAGES, files=FILES)
    assert counts == dict(Counter(row["kind"] for row in read_labels(out)))
    return out


@pytest.fixture(scope="module")
def labels(crawl) -> list[dict]:
    return read_labels(crawl)


@pytest.fixture(scope="module")
def bodies(crawl, labels) -> dict[str, bytes]:
    """Record id -> body without transfer and content encoding, for all records but the damaged one."""
    found = {}
    for row in labels:
        if row["kind"] != "damage.member":
            data = (crawl / "crawl" / row["file"]).read_bytes()[row["offset"] :]
            record = next(iter(read(data)))
            assert record.record_id == row["record_id"]
            found[row["record_id"]] = record.reader.read()
    return found


def read(data: bytes) -> ArchiveIterator:
    return ArchiveIterator(io.BytesIO(data), record_types=response, parse_http=True, auto_decode="all")


def read_labels(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "labels.jsonl").read_text("utf-8").splitlines()]


def main_text(body: bytes, charset: str = "utf-8") -> str:
    selectors = ", ".join(selector for selector, _ in LAYOUTS.values())
    nodes = HTMLTree.parse(body.decode(charset)).body.query_selector_all(selectors)
    assert len(nodes) == 1
    return nodes[0].text


def test_every_kind_is_there(crawl, labels):
    counts = Counter(row["kind"] for row in labels)
    assert set(counts) == {*SHARES, *DAMAGE}
    assert sum(counts.values()) == PAGES
    main = sum(counts[kind] for kind in ("article", "reference", "exact_duplicate", "near_duplicate"))
    assert 0.6 <= main / PAGES <= 0.8
    assert sorted(path.name for path in crawl.iterdir()) == ["crawl", "labels.jsonl"]
    assert {path.name for path in (crawl / "crawl").iterdir()} == {f"crawl-{n:05d}.warc.gz" for n in range(FILES)}


def test_files_open_up_to_the_damage(crawl, labels):
    for path in sorted((crawl / "crawl").iterdir()):
        rows = [row for row in labels if row["file"] == path.name]
        places = [n for n, row in enumerate(rows) if row["kind"] in ("damage.member", "damage.garbage")]
        seen = []
        try:
            for record in read(path.read_bytes()):
                seen.append((record.record_id, record.headers["WARC-Target-URI"], record.stream_pos))
                record.reader.read()
        except OSError:
            assert places, f"{path.name} was not damaged by us"
        wanted = rows[: places[0]] if places else rows
        assert seen[: len(wanted)] == [(row["record_id"], row["url"], row["offset"]) for row in wanted]
        assert places or len(seen) == len(rows)


def test_damage_is_where_the_labels_say(crawl, labels):
    damaged = {row["kind"]: row for row in labels if row["kind"] in DAMAGE}
    data = {kind: (crawl / "crawl" / row["file"]).read_bytes() for kind, row in damaged.items()}
    at = {kind: row["offset"] for kind, row in damaged.items()}
    with pytest.raises(zlib.error):
        zlib.decompress(data["damage.member"][at["damage.member"] :], wbits=31)
    cut = zlib.decompressobj(wbits=31)
    cut.decompress(data["damage.truncated"][at["damage.truncated"] :])
    assert not cut.eof
    assert labels[-1]["kind"] == "damage.truncated"
    whole = zlib.decompressobj(wbits=31)
    whole.decompress(data["damage.garbage"][at["damage.garbage"] :])
    assert whole.eof
    assert data["damage.garbage"][: at["damage.garbage"]].endswith(b"restarted --\n")


def test_labels_fit_the_replies(labels, bodies):
    assert len({row["record_id"] for row in labels}) == len({row["url"] for row in labels}) == PAGES
    by_kind = defaultdict(list)
    for row in labels:
        assert list(row) == ["file", "offset", "record_id", "url", "kind", "cluster", "language", "expected", "note"]
        rejected = row["kind"].startswith(("spam.", "boilerplate.", "reply.")) or row["kind"] in DAMAGE[::2]
        assert row["expected"] == ("reject" if rejected else "page")
        by_kind[row["kind"]].append(bodies.get(row["record_id"], b""))
    assert all(b"\0" in body for body in by_kind["bytes.nul"])
    assert all(len(main_text(body).split()) >= 60 for kind in ("bytes.gzip", "bytes.chunked") for body in by_kind[kind])
    assert all(len(main_text(body).split()) >= 60 for body in by_kind["article"])
    assert {row["language"] for row in labels} >= {"en", *PASSAGES}


def test_charset_pages_decode_with_their_true_codec(labels, bodies):
    for row in labels:
        if row["kind"].startswith("charset."):
            codec = row["note"].partition(",")[0]
            body = bodies[row["record_id"]]
            assert re.search("[^\\x00-\\x7f]", main_text(body, codec)), row
            if "header says utf-8" in row["note"]:
                with pytest.raises(UnicodeDecodeError):
                    body.decode("utf-8")


def test_clusters_are_near_duplicates_and_nothing_else_is(labels, bodies):
    kinds = {"article", "exact_duplicate", "near_duplicate", "foreign", "reference"}
    rows = [row for row in labels if row["kind"] in kinds]
    grams = {row["record_id"]: shingles(main_text(bodies[row["record_id"]])) for row in rows}
    together = 0
    for a, b in itertools.combinations(rows, 2):
        similarity = jaccard(grams[a["record_id"]], grams[b["record_id"]])
        if a["cluster"] and a["cluster"] == b["cluster"]:
            together += 1
            assert similarity >= 0.6, (a["url"], b["url"])
            if a["kind"] == b["kind"] == "article":
                pytest.fail("a cluster has one original")
        else:
            assert similarity < 0.5, (a["url"], b["url"])
    copies = [row for row in rows if row["kind"].endswith("_duplicate")]
    assert together >= len(copies) > 0
    assert all(row["cluster"] for row in copies)
    originals = {row["cluster"]: bodies[row["record_id"]] for row in rows if row["kind"] == "article" and row["cluster"]}
    for row in copies:
        assert (bodies[row["record_id"]] == originals[row["cluster"]]) == (row["kind"] == "exact_duplicate")


def test_same_seed_same_bytes_whatever_the_hash_seed(crawl, tmp_path):
    command = [sys.executable, "-m", "curate.sample", str(tmp_path), "--pages", str(PAGES), "--files", str(FILES)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "77"}, cwd=Path(sample.__file__).parents[1])
    for path in sorted(crawl.rglob("*.*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(crawl)).read_bytes()


def test_another_seed_is_another_sample_and_replaces_the_old_files(crawl, tmp_path):
    write_sample(tmp_path, pages=150, files=5, seed=1)
    urls = {row["url"] for row in read_labels(tmp_path)}
    result = CliRunner().invoke(sample.main, [str(tmp_path), "--pages", "100", "--files", "1", "--seed", "2"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.output)) == {*SHARES, *DAMAGE}
    assert [path.name for path in (tmp_path / "crawl").iterdir()] == ["crawl-00000.warc.gz"]
    assert len(urls & {row["url"] for row in read_labels(tmp_path)}) < 5


def test_a_bare_python_is_enough(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sample, "source_articles", lambda rng: iter(()))
    articles = list(itertools.islice(sample.english_articles(0, set()), 400))
    assert len(articles) == 400
    assert any(article.title.startswith("Digest no.") for article in articles)


def test_impossible_sizes_are_refused(tmp_path):
    for wrong in ({"pages": 50}, {"files": 0}, {"pages": 100, "files": 50}):
        with pytest.raises(ValueError, match="at least 100 pages"):
            write_sample(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_blocks_of_text():
    text = "A `word` of :func:`x`.\n\nHead\n====\n\n* one\n* two [link](http://a.test)\n\n>>> 1\n1\n\n```\ncode\n```"
    assert sample.blocks_of(text) == [
        ("p", "A word of x."), ("h", "Head"), ("li", "one"), ("li", "two link"), ("pre", ">>> 1\n1"), ("pre", "code"),
    ]  # fmt: skip
