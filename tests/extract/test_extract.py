"""The extractors: what they return, what they refuse, and that no page takes one down."""

from __future__ import annotations

import gzip
import importlib
import json
import pickle
import re
import sys
import time
from collections import Counter

import pytest

from curate.errors import MissingExtra, RecipeError
from curate.extract import (
    COLUMNS,
    FORMATS,
    KEEP,
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_OPTIONS,
    MAX_TAGS,
    Extracted,
    Unextractable,
    check_size,
    columns,
    head_facts,
    load,
    names,
    primary_language,
)
from curate.sources.warc import Page, read_archive

SENTENCE = "The committee met on Tuesday to discuss the budget, and after a long debate it agreed on a smaller plan. "
ARTICLE = f"""<!doctype html><html lang="en-GB"><head><title> A  plan &amp; a
 budget</title><style>p {{color: red}}</style></head><body>
<nav><a href="/a">Home</a> <a href="/b">News</a> <a href="/c">Contact us</a></nav>
<article><h1>A plan and a budget</h1><p>{SENTENCE * 3}</p><script>var hidden = "in a script";</script>
<p>{SENTENCE.replace("Tuesday", "Wednesday") * 3}</p></article>
<footer>Copyright, all rights reserved, imprint</footer></body></html>"""


@pytest.fixture(params=names())
def engine(request) -> str:
    if request.param == "trafilatura":
        pytest.importorskip("trafilatura")
    return request.param


@pytest.fixture
def extractor(engine: str):
    return load(engine)


def test_all_text_where_no_main_content_is_found():
    html = "<html><body><div class='sidebar'><p>" + SENTENCE + "</p></div></body></html>"
    assert "committee" in load("resiliparse")(html.encode(), None, None).text


def module(name: str):
    if name == "trafilatura":
        pytest.importorskip("trafilatura")
    return importlib.import_module(f"curate.extract.{name}")


def test_names():
    assert set(names()) == {"curate", "resiliparse", "trafilatura"}  # and neither `charset` nor the folder `page`
    with pytest.raises(RecipeError, match="did you mean 'resiliparse'"):
        load("resiliparce")
    with pytest.raises(RecipeError):
        load("charset")


@pytest.mark.parametrize("name", names())
def test_each_says_what_it_can_do(name: str):
    """What it declares, it does; what it does not, is refused before any page, with what there is instead."""
    found = module(name)
    assert "main" in found.KEEP and "text" in found.FORMATS and "title" in found.COLUMNS
    assert set(found.KEEP) <= set(KEEP) and set(found.FORMATS) <= set(FORMATS)
    assert columns(name).names == [c for c in COLUMNS.names if c in found.COLUMNS]
    for keep in KEEP:
        for format in FORMATS:
            if keep in found.KEEP and format in found.FORMATS:
                page = load(name, keep=keep, format=format)(ARTICLE.encode(), "http://a.test/", None)
                assert "met on Tuesday" in page.text and ("Contact us" in page.text) == (keep == "all_text")
                assert all(getattr(page, c) is None for c in COLUMNS.names if c not in found.COLUMNS)
                continue
            with pytest.raises(RecipeError) as error:
                load(name, keep=keep, format=format)
            option, known = ("keep", found.KEEP) if keep not in found.KEEP else ("format", found.FORMATS)
            assert f"extractor {name!r} has no {option}: " in str(error.value)
            assert str(error.value).endswith(f"only {', '.join(map(repr, known))}")


def test_options_that_nothing_has():
    with pytest.raises(RecipeError, match="keep is 'coments'; did you mean 'comments'"):
        load("resiliparse", keep="coments")
    with pytest.raises(RecipeError, match="format is 'html'; known: markdown, text"):
        load("resiliparse", format="html")


@pytest.mark.parametrize("name", [n for n in names() if n != "resiliparse"])
def test_comments_and_markdown(name: str):
    module(name)
    comments = (
        f"<section id='comments' class='comments'><h3>Comments</h3><div class='comment'><p>{SENTENCE.replace('met', 'sat')}"
    )
    section = f"<h2>What was said</h2><p>{SENTENCE * 2}</p></article>"
    html = ARTICLE.replace("</article>", section).replace("<footer>", f"{comments}</p></div></section><footer>").encode()
    assert "committee sat" not in load(name)(html, None, None).text
    with_comments = load(name, keep="comments")(html, None, None).text
    assert "committee sat" in with_comments and "committee met" in with_comments
    assert "\n## What was said\n" in load(name, format="markdown")(html, None, None).text


def test_missing_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    monkeypatch.delitem(sys.modules, "curate.extract.trafilatura", raising=False)
    with pytest.raises(MissingExtra, match=re.escape("curate-corpus[extract]")):
        load("trafilatura")


def test_main_text(extractor):
    found = extractor(ARTICLE.encode(), "http://a.test/", "utf-8")
    assert isinstance(found, Extracted)
    assert found.title == "A plan & a budget"
    assert found.language == "en"
    assert "met on Tuesday" in found.text and "met on Wednesday" in found.text
    for noise in ("Contact us", "in a script", "color: red", "Copyright"):
        assert noise not in found.text
    assert re.search(r"Tuesday.*\n+.*Wednesday", found.text)  # paragraphs stay apart


def test_same_for_every_packing_of_the_bytes(extractor):
    expected = extractor(ARTICLE.replace("budget", "büdget").encode(), None, None)
    assert "büdget" in expected.text
    for codec, charset in [("latin-1", "iso-8859-1"), ("utf-16", None), ("utf-16-be", "utf-16be"), ("utf-8", "latin1")]:
        assert extractor(ARTICLE.replace("budget", "büdget").encode(codec), None, charset) == expected


def test_depends_on_the_page_alone(extractor):
    """Trafilatura remembers what it saw before, to drop repeats: here it must not."""
    first = extractor(ARTICLE.encode(), None, None)
    for _ in range(8):
        assert extractor(ARTICLE.encode(), None, None) == first


@pytest.mark.parametrize(
    "body", [b"", b" ", b"<", b"</", b"<a", b"text", b"<html>", b"<html></html>", b"<p>x", b"\0\0", b"<!--", b"&#0;&#xD800;"]
)
def test_tiny_pages(extractor, body: bytes):
    found = extractor(body, None, None)
    found.text.encode()
    assert found.title is None and found.language is None


def test_title_and_language_can_be_missing(extractor):
    found = extractor(b"<html lang='{{ lang }}'><title> </title><p>" + SENTENCE.encode() * 5, None, None)
    assert (found.title, found.language) == (None, None)


BOMBS = {
    "nested": ("too_deep", "<div>" * 60_000 + "deep" + "</div>" * 60_000),
    "nested, not closed": ("too_deep", "<p>x" + "<span>" * (MAX_DEPTH + 1)),
    "nested, often": ("too_deep", ("<div>" * (MAX_DEPTH + 10) + "x" + "</div>" * (MAX_DEPTH + 10)) * 20),
    "hidden behind end tags": ("too_deep", "</p>" * 9_000 + "<div>" * (MAX_DEPTH + 1)),
    "tags": ("too_many_nodes", "<i>x</i>" * MAX_TAGS),
    "attributes": ("too_many_nodes", "<p " + " ".join(f"a{k}='{k}'" for k in range(MAX_ATTRIBUTES + 1)) + ">x"),
    "attributes without values": ("too_many_nodes", "<p " + " ".join(f"a{k}" for k in range(100_000)) + ">x"),
    "options": ("too_many_nodes", "<select>" + "<option>x" * (MAX_OPTIONS + 1)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(engine: str, extractor, name: str):
    reason, html = BOMBS[name]
    start = time.process_time()
    if engine == "curate" and name.startswith("attributes"):  # it does not give attributes to the parser that it does not read
        assert extractor(html.encode(), None, None).text == "x"
        return
    with pytest.raises(Unextractable) as error:
        extractor(html.encode(), None, None)
    assert error.value.reason == reason
    assert time.process_time() - start < 5
    assert pickle.loads(pickle.dumps(error.value)).reason == reason


@pytest.mark.parametrize(
    "html",
    [
        "<p>x" * 20_000,
        "x<br>" * 20_000,
        "<ul>" + "<li>x" * 20_000,
        "<table>" + "<tr><td>x" * 20_000,
        "<img src=x>" * 20_000,
        "<div><p>x</div>" * 20_000,
        ("<select>" + "<option>x" * 100 + "</select>") * 200,
        "<div>" * (MAX_DEPTH - 1) + "x",
        "<p data-x='" + "a=1 " * 50_000 + "'>x",
        "<script>" + "a=1; " * 50_000 + "</script><p>x",
        "<!-- " + "<div>" * 20_000 + " -->" + "<p>x",
        "<script>" + "s += '<div>'; " * 20_000 + "</script><p>x",
    ],
)
def test_long_pages_are_no_bombs(html: str):
    check_size(html.encode())


@pytest.mark.parametrize(
    ("tag", "language"),
    [("en-US", "en"), ("DE_at", "de"), (" fr ", "fr"), ("zh-Hant-TW", "zh"), ("gsw", "gsw"), ("", None), (None, None),
     ("lang=", None), ("{{ lang }}", None), ("english", None), ("e", None), ("en US", None)],
)  # fmt: skip
def test_primary_language(tag, language):
    assert primary_language(tag) == language


def test_head_facts():
    assert head_facts('<html class="a" lang="pt-BR"><title>a &lt; b</title>') == ("a < b", "pt")
    assert head_facts("<html><body>") == (None, None)


# ------------------------------------------------------------------------------------------------ shared data

NASTY = {
    "latin1-declared-utf8": "Straße führt nach Köln", "utf8-declared-latin1": "Straße führt nach Köln",
    "unknown-charset-x-foo": "Straße führt nach Köln", "meta-charset-conflict": "Straße führt nach Köln",
    "mixed-encodings": "Straße führt nach Köln", "unclosed-comment": "before",
}  # fmt: skip


def test_nasty_bodies(shared_data, engine: str, extractor):
    cases = [json.loads(line)["case"] for line in (shared_data / "nasty" / "bodies.expect.jsonl").open()]
    found, refused = {}, {}
    events = read_archive((shared_data / "nasty" / "bodies.warc.gz").open("rb"), max_body_bytes=16 << 20)
    for case, event in zip(cases, events, strict=True):
        if not isinstance(event, Page) or event.is_text:
            continue
        try:
            found[case] = extractor(event.body, event.url, event.charset)
        except Unextractable as error:
            refused[case] = error.reason
            continue
        found[case].text.encode()
        assert "\x00" not in found[case].text
    expected = {"deep-nesting-60000": "too_deep", "100k-attributes": "too_many_nodes"}
    if engine == "curate":
        del expected["100k-attributes"]  # see the bombs above
    assert refused == expected
    for case, text in NASTY.items():
        assert text in found[case].text, case
    assert found["utf16le-bom"] == found["utf16be-nobom-declared"] == found["http-chunked"]


def words(text: str) -> Counter:
    return Counter(re.findall(r"\w+", text.lower()))


def f1(text: str, gold: str) -> float:
    """Word-level F1: overlap of the two bags of words."""
    a, b = words(text), words(gold)
    both = (a & b).total()
    return 2 * both / (a.total() + b.total()) if both else 0.0


@pytest.mark.parametrize(
    ("name", "files", "bar"),
    [("curate", "readability*", 0.96), ("resiliparse", "*", 0.835), ("trafilatura", "readability*", 0.80)],
)
def test_quality(shared_data, name: str, files: str, bar: float):
    """Mean F1 against the gold text. The bars are a little under what was measured when they were set.

    The model of `curate` has seen these pages, so this only tells that it still works; how good it is on others is for the
    benchmark.
    """
    if name == "trafilatura":
        pytest.importorskip("trafilatura")
    gold = {}
    with gzip.open(shared_data / "crawl" / "pages.jsonl.gz") as lines:
        for line in lines:
            row = json.loads(line)
            if row.get("main_text"):
                gold[row["record_id"]] = row["main_text"]
    extract, scores = load(name), []
    for path in sorted((shared_data / "crawl").glob(f"{files}.warc.gz")):
        for page in read_archive(path.open("rb"), max_body_bytes=16 << 20):
            if isinstance(page, Page) and page.id in gold:
                scores.append(f1(extract(page.body, page.url, page.charset).text, gold[page.id]))
    assert scores
    assert sum(scores) / len(scores) > bar
