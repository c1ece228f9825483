"""What pages say of themselves becomes columns: known at plan time, the same in every task, null where nothing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from corpus import write_jsonl

from curate.errors import RecipeError, SourceError
from curate.extract import COLUMNS
from curate.recipe import Recipe, loads
from curate.run import plan, run
from curate.sources import Source
from curate.stages.extract import Extract

ARTICLE = "<p>" + "Ein Satz über die Brücke am Fluss und das Wetter im Norden. " * 20 + "</p>"
PAGE = f"""<html lang="de-AT"><head><title>Die Brücke | Example</title><meta property="og:site_name" content="Example">
<meta name="author" content="Von Jane Doe"><meta property="article:published_time" content="2024-03-05T10:00:00+01:00">
<link rel="canonical" href="/bruecke"></head><body><article><h1>Die Brücke</h1>{ARTICLE}
<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC BY</a></article></body></html>"""
SAID = {
    "title": "Die Brücke",
    "author": "Jane Doe",
    "published": "2024-03-05T10:00:00+01:00",
    "canonical_url": "https://example.test/bruecke",
    "licence_links": ["https://creativecommons.org/licenses/by/4.0/"],
}


def write_warc(path: Path, *bodies: tuple[str, str], kind: str = "response") -> Path:
    """A WARC file of these (media type, body)."""
    with path.open("wb") as out:
        for n, (media, text) in enumerate(bodies):
            body = text.encode()
            if kind == "response":
                body = f"HTTP/1.1 200 OK\r\nContent-Type: {media}; charset=utf-8\r\n\r\n".encode() + body
            out.write(
                f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://example.test/{n}\r\n"
                f"WARC-Record-ID: <urn:uuid:{n}>\r\n"
                f"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: {'application/http' if kind == 'response' else media}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
                + b"\r\n\r\n"
            )
    return path


def documents(tmp_path: Path, *paths: Path, stages: str = "[]", **options: Any) -> pl.DataFrame:
    """What a run writes, in input order."""
    source = json.dumps({"auto": options})
    recipe = loads(f"name: x\nsource: {source}\nstages: {stages}\noutput: {{seed: 1}}").with_inputs([str(p) for p in paths])
    done = run(recipe, tmp_path / f"run{len(list(tmp_path.glob('run*')))}", executor="inline")
    return pl.read_parquet(done.root / "output" / "data" / "*.parquet").sort("corpus", "file", "record")


def test_all_of_it(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc", ("text/html", PAGE), ("text/plain", "A plain text."), ("text/html", ARTICLE))
    found = documents(tmp_path, path, extract="curate")
    assert found.schema["licence_links"] == pl.List(pl.String) and set(COLUMNS.names) < set(found.columns)
    first, plain, bare = found.rows(named=True)
    assert {name: first[name] for name in SAID} == SAID and first["page_type"] is not None
    assert all(plain[name] is None for name in COLUMNS.names) and plain["text"] == "A plain text."
    assert all(bare[name] is None for name in SAID)
    (tmp_path / "b.html").write_text(PAGE)
    (row,) = documents(tmp_path, tmp_path / "b.html", extract="curate").rows(named=True)
    assert row["title"] == "Die Brücke" and row["canonical_url"] is None  # relative, to an unknown address


def test_ingest_and_the_stage_write_the_same(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc", ("text/html", PAGE), ("text/html", ARTICLE), ("text/html", "<p></p>"))
    for engine in ("curate", "resiliparse"):
        at_once = documents(tmp_path, path, extract=engine)
        later = documents(tmp_path, path, extract="none", keep_html=True, stages=f"[extract: {{engine: {engine}}}]")
        assert later.select(at_once.columns).equals(at_once) and len(at_once) == 2


def test_which_columns_are_known_at_plan_time(tmp_path: Path) -> None:
    def columns(path: Path, **options: Any) -> list[str]:
        recipe = Recipe(name="x", source=Source(paths=(str(path),), **options))
        return [c["name"] for c in plan(recipe)["columns"] if c["name"] in COLUMNS.names]

    warc = write_warc(tmp_path / "a.warc", ("text/html", PAGE))
    assert columns(warc, extract="curate") == COLUMNS.names
    assert columns(warc, extract="resiliparse") == ["title"]
    assert columns(warc, extract="curate", metadata=False) == []
    assert columns(warc, extract="none", keep_html=True) == []
    wet = write_warc(tmp_path / "a.warc.wet", ("text/plain", "A text."), kind="conversion")
    assert columns(wet, extract="curate") == []
    assert columns(write_jsonl(tmp_path / "a.jsonl", [{"text": "A text."}]), extract="curate") == []


def test_inputs_that_have_such_columns_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_warc(folder / "b.warc", ("text/html", PAGE))
    write_jsonl(folder / "a.jsonl", [{"text": "A text.", "title": "A title", "licence_links": ["x"]}])
    found = documents(tmp_path, folder, extract="curate")
    assert found["title"].to_list() == ["A title", "Die Brücke"]
    assert found["licence_links"].to_list() == [["x"], SAID["licence_links"]] and found["author"].to_list() == [
        None,
        "Jane Doe",
    ]
    assert documents(tmp_path, folder, extract="curate", metadata=False)["title"].to_list() == ["A title", None]
    pl.DataFrame({"text": ["A text."], "title": [7]}).write_parquet(folder / "c.parquet")
    with pytest.raises(SourceError, match=r"column 'title' is .* in .* but .*; `source.metadata: false` leaves out what pages"):
        documents(tmp_path, folder, extract="resiliparse")
    (folder / "a.jsonl").unlink()
    assert documents(tmp_path, folder, extract="resiliparse", metadata=False)["title"].to_list() == [None, 7]


def test_what_is_kept_and_how(tmp_path: Path) -> None:
    menu = PAGE.replace("<body>", "<body><nav><a href='/'>To the start</a></nav>")
    path = write_warc(tmp_path / "a.warc", ("text/html", menu))
    assert "To the start" not in documents(tmp_path, path, extract="resiliparse")["text"][0]
    assert "To the start" in documents(tmp_path, path, extract="resiliparse", keep="all_text")["text"][0]
    path = write_warc(tmp_path / "b.warc", ("text/html", PAGE.replace("<a rel", f"<h2>Am Ufer</h2>{ARTICLE}<a rel")))
    assert "\n## Am Ufer\n" in documents(tmp_path, path, extract="curate", format="markdown")["text"][0]
    assert "\nAm Ufer\n" in documents(tmp_path, path, extract="curate")["text"][0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": "maim"}, "source.keep is 'maim'; did you mean 'main'?"),
        ({"format": "html"}, "source.format is 'html'; known: markdown, text"),
        (
            {"extract": "resiliparse", "keep": "comments"},
            "extractor 'resiliparse' has no keep: 'comments', only 'main', 'all_text'",
        ),
        ({"extract": "resiliparse", "format": "markdown"}, "extractor 'resiliparse' has no format: 'markdown', only 'text'"),
    ],
)
def test_options_that_are_not_there(tmp_path: Path, options: dict[str, str], says: str) -> None:
    path = write_warc(tmp_path / "a.warc", ("text/html", PAGE))
    with pytest.raises(RecipeError) as error:
        documents(tmp_path, path, **options)
    assert says in str(error.value) and not list(tmp_path.glob("run*"))


def test_pages_of_a_table(tmp_path: Path) -> None:
    """The stage finds the same in pages that came as a column."""
    table = pa.table({"html": [PAGE.encode()], "url": ["https://example.test/0"]})
    (row,) = Extract(engine="curate")(table).kept.to_pylist()
    assert {name: row[name] for name in SAID} == SAID and row["declared_language"] == "de"
