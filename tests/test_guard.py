"""A page that hangs or crashes its worker is put aside, and the others come through."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from corpus import curate, recipe
from test_bad_input import page, response

from curate.run import Run


def test_a_page_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = b"<html><body>" + b"<div><p>many words in many paragraphs, one after the other</p></div>" * 100_000
    pages = [page("first"), slow, page("last")]
    path = tmp_path / "x.warc.gz"
    path.write_bytes(b"".join(gzip.compress(response(f"https://a.test/{i}", p)) for i, p in enumerate(pages)))
    monkeypatch.setenv("CURATE_PAGE_SECONDS", "0.02")
    body = "name: g\nsource: auto\nstages: []\n"
    done = curate("run", recipe(tmp_path, body), "-i", path, "-o", tmp_path / "run", "-w", 1, "--json", check=0)
    assert json.loads(done.stdout)["documents"] == 2
    finished = Run(tmp_path / "run")
    dropped = [(r["url"], r["_reason"]) for r in finished.drops("ingest").to_pylist()]
    assert dropped == [("https://a.test/1", "quarantine.timeout")]
    assert finished.manifest.deterministic is False
    strikes = json.loads(next((tmp_path / "run" / "phases").glob("*/guard/*.json")).read_text())
    assert list(strikes.values()) == [["timeout", "timeout"]]
    monkeypatch.delenv("CURATE_PAGE_SECONDS")
    curate("run", recipe(tmp_path, body), "-i", path, "-o", tmp_path / "patient", "-w", 1, check=0)
    assert Run(tmp_path / "patient").manifest.deterministic is True


def test_strikes(tmp_path: Path) -> None:
    from curate.guard import Guard, strike

    assert not strike(tmp_path, 0, -9), "nobody was reading a page"
    os.environ["CURATE_WORKER"] = "1"
    try:
        for expected in (True, True, False):
            guard = Guard(tmp_path, 0)
            with guard(3, 77):
                pass
            (tmp_path / "00000.here").write_text("3:77")
            assert strike(tmp_path, 0, -11) is expected
        with Guard(tmp_path, 0)(3, 77) as verdict:
            assert verdict == "crash"
        with Guard(tmp_path, 0)(3, 78) as verdict:
            assert verdict is None
    finally:
        del os.environ["CURATE_WORKER"]
