"""What a page says of itself: each fact from each place, what is refused, and that nothing hostile gets through."""

from __future__ import annotations

import gzip
import json
import re
import sys
from datetime import date
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from curate.extract.page.metadata import LAST_YEAR, MAX_JSON, Metadata, iso_date, metadata

URL = "https://www.example.org/news/a.html"
FACTS = (
    "title, meta, link, script[type='application/ld+json'], time, a[rel], a[href*='creativecommons.org'], "
    "[itemprop~='author'], [itemprop~='datePublished'], [class*='byline'], [class*='author'], [class*='date'], "
    "[class*='Date'], .published"
)


def of(html: str, url: str | None = URL) -> Metadata:
    """The facts of a page, its elements found with CSS selectors."""
    document = HTMLTree.parse_from_bytes(html.encode(), "utf-8").document
    root = document.query_selector("html").html
    elements = [root[: root.index(">") + 1], *(e.html for e in document.query_selector_all(FACTS))]
    headings = [" ".join(e.text.split()) for e in document.query_selector_all("h1")]
    return metadata(elements, url, headings)


def ld(*nodes: dict | list) -> str:
    return "".join(f'<script type="application/ld+json">{json.dumps(node)}</script>' for node in nodes)


def test_nothing() -> None:
    nothing = Metadata(None, None, None, None, None, None)
    assert metadata([], None) == metadata([], URL) == of("") == of("<title> </title><meta name=author content=''>") == nothing


def test_a_whole_page() -> None:
    found = of(
        """<html lang="en-GB"><head><title>A plan &amp; a budget | The Example</title>
        <meta property="og:title" content="A plan &amp;amp; a budget"><meta property="og:site_name" content="The Example">
        <meta content="2024-03-05T10:00:00+0100" property="article:published_time">
        <meta data-x="1" name="author" content="By Jane Doe"><link rel="canonical" href="/news/a.html">
        </head><body><h1>A plan</h1><a rel="license nofollow" href="//creativecommons.org/licenses/by/4.0/">CC</a></body>"""
    )
    assert found == Metadata(
        title="A plan & a budget",
        author="Jane Doe",
        published="2024-03-05T10:00:00+01:00",
        language="en",
        licence_links=["https://creativecommons.org/licenses/by/4.0/"],
        canonical_url="https://www.example.org/news/a.html",
    )


# ------------------------------------------------------------------------------------------------ the order of trust

PLACES = [
    ld({"@type": "NewsArticle", "author": {"name": "Name 0"}, "datePublished": "2020-01-10"}),
    ld({"@type": "WebPage", "author": {"name": "Name 1"}, "datePublished": "2020-01-11"}),
    "<meta property='article:author' content='Name 2'><meta property='article:published_time' content='2020-01-12'>",
    "<meta name='DC.creator' content='Name 3'><meta name='DC.date.issued' content='2020-01-13'>",
    "<meta name='citation_author' content='Name 4'><meta name='citation_publication_date' content='2020/01/14'>",
    "<p itemprop='author'>Name 5</p><p itemprop='datePublished' content='2020-01-15'>yesterday</p>",
    "<meta name='author' content='Name 6'><meta name='date' content='2020-01-16'>",
    "<time datetime='2020-01-17T08:00'>today</time>",
    "<p class='byline'>By <b>Jane Doe</b></p><p class='pubDate'>18 January 2020</p>",
]


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_the_first_place_in_the_order_of_trust_is_believed(first: int) -> None:
    for places in (PLACES[first:], PLACES[first:][::-1]):  # wherever they stand
        found = of("".join(places))
        assert found.author == (f"Name {first}" if first < 7 else "Jane Doe")
        assert found.published == f"2020-01-1{first}" + ("T08:00:00" if first == 7 else "")


def test_what_cannot_be_a_name_or_a_date_is_passed_over() -> None:
    found = of(
        "<meta property='article:author' content='https://social.example/jane'><meta name='DC.creator' content='admin'>"
        "<meta name='author' content='{{ author }}'><meta name='author' content='jane@example.org'>"
        "<p class='author'>Jane Doe</p>"
        "<meta property='article:published_time' content='1970-01-01T00:00:00Z'><meta name='dc.date' content='2023-02-30'>"
        "<meta name='date' content='03/04/2023'><time datetime='0001-01-01'></time><time>4 March 2023</time>"
    )
    assert (found.author, found.published) == ("Jane Doe", "2023-03-04")


@pytest.mark.parametrize(
    "element",
    [
        "<time datetime='2024-05-05'>last Sunday</time>",
        "<time datetime='x'>May 5, 2024</time>",
        "<time title='5 May 2024'>last Sunday</time>",
        "<abbr class='published' title='2024-05-05'>last Sunday</abbr>",
        "<span itemprop='datePublished' content='2024-05-05'></span>",
        "<p class='post-date'>On <b>5</b> May <i>2024</i></p>",
        "<p class='articleDate'>05.05.2024</p>",
        "<p class='byline'>Jane Doe, May 5, 2024</p>",
    ],
)
def test_dates_that_readers_see(element: str) -> None:
    assert of(element).published == "2024-05-05"


def test_the_first_of_those_that_readers_see_is_meant() -> None:
    found = of(
        "<p class='post-author'>Posted by <a rel='author'>Jane Doe</a></p><time class='updated' datetime='2024-05-06'></time>"
        "<time class='published' datetime='2024-05-05'></time><div class='comment-author'>John Smith</div>"
        "<time class='comment-date' datetime='2024-05-04'></time><p>Related</p><a rel='author'>Max Müller</a>"
    )
    assert (found.author, found.published) == ("Jane Doe", "2024-05-05")
    start = "<time datetime='2024-05-05'></time>"
    assert of(start, "https://example.org/").published is None  # of some page that it links to
    assert of(start, "https://example.org/?p=1").published == "2024-05-05"


# ------------------------------------------------------------------------------------------------ JSON-LD

ARTICLE = {"@type": "Article", "headline": "The headline", "datePublished": "2021-02-03", "author": {"name": "Jane Doe"}}
SHAPES = {
    "object": ARTICLE,
    "list": [{"@type": "BreadcrumbList"}, ARTICLE],
    "graph": {"@context": "https://schema.org", "@graph": [{"@type": "WebPage", "datePublished": "2000-01-01"}, ARTICLE]},
    "main entity": {"@type": "WebPage", "mainEntity": ARTICLE},
    "reference": {"@graph": [{**ARTICLE, "author": {"@id": "#p"}}, {"@type": "Person", "@id": "#p", "name": "Jane Doe"}]},
    "types": {**ARTICLE, "@type": ["Thing", "https://schema.org/BlogPosting"]},
    "list of authors": {**ARTICLE, "author": [{"@type": "Person", "name": "Jane Doe"}, {"@type": "Person"}]},
    "name alone": {**ARTICLE, "author": "Jane Doe"},
    "creator": {**{k: v for k, v in ARTICLE.items() if k != "author"}, "creator": ["Jane Doe"]},
    "another article below": [ARTICLE, {**ARTICLE, "headline": "Other", "author": "John Smith"}],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_json_ld(shape: str) -> None:
    found = of(ld(SHAPES[shape]))
    assert (found.title, found.author, found.published) == ("The headline", "Jane Doe", "2021-02-03")


@pytest.mark.parametrize(
    "body",
    ["<![CDATA[{}]]>", "//<![CDATA[\n{}\n//]]>", "{};", "\n {} \n", "{}".replace("{}", "{}")],
)
def test_wrappings_of_json_ld(body: str) -> None:
    text = json.dumps(ARTICLE)
    assert of(f'<script type="application/ld+json">{body.replace("{}", text)}</script>').author == "Jane Doe"
    broken_line = body.replace("{}", text.replace("The headline", "The\nheadline"))
    assert of(f'<script type="application/ld+json">{broken_line}</script>').title == "The headline"


@pytest.mark.parametrize(
    "body",
    ["", "{", "null", "7", '"text"', "[" * 5000, '{"@type":"Article","author":"\\ud800"}', '{"@type": 3, "author": "Jane Doe"}',
     '{"@type":"Article","author":{"name":{"a":1}},"datePublished":7,"headline":[],"license":{"url":3},"@id":[]}',
     '{"@type":"Review","author":"Jane Doe","datePublished":"2020-01-01"}'],
)  # fmt: skip
def test_json_ld_that_says_nothing(body: str) -> None:
    assert of(f'<script type="application/ld+json">{body}</script>') == of("")


def test_json_ld_is_bounded() -> None:
    pad = {"@type": "ImageObject", "x": "x" * (MAX_JSON // 2)}
    assert of(ld(pad, ARTICLE)).author == "Jane Doe"
    assert of(ld(pad, pad, ARTICLE)).author is None
    deep: dict = ARTICLE
    for _ in range(300):
        deep = {"@graph": [deep]}
    assert of(ld(deep)).author is None  # not looked for so far down


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("Jane Doe", "Jane Doe"),
        ("  by  Jane   Doe, ", "Jane Doe"),
        ("Written by: Jane Doe", "Jane Doe"),
        ("Von Jane Doe", "Jane Doe"),
        ("Par Jane Doe", "Jane Doe"),
        ("Jane Doe (jane.doe@example.org)", "Jane Doe"),
        ("mailto:jane@example.org", None),
        ("https://example.org/jane", None),
        ("www.example.org", None),
        ("Jane Doe https://example.org/jane", "Jane Doe"),
        ("Jane Doe, John Smith and Max von der Müller", "Jane Doe; John Smith; Max von der Müller"),
        ("Jane Doe; John Smith", "Jane Doe; John Smith"),
        ("Jane Doe & John Smith", "Jane Doe; John Smith"),
        ("Doe, Jane", "Doe, Jane"),
        ("Jane Doe, PhD", "Jane Doe, PhD"),
        ("Jane Doe, Jane Doe", "Jane Doe"),
        ("Jane Doe | The Example", "Jane Doe"),
        ("Department of Health and Human Services", "Department of Health and Human Services"),
        ("Barnes and Noble", "Barnes and Noble"),
        ("Werner von Braun", "Werner von Braun"),
        ("Jean-Luc O&#8217;Neill", "Jean-Luc O’Neill"),
        ("Jean-Luc O&amp;#8217;Neill", "Jean-Luc O’Neill"),
        ("村上春樹", "村上春樹"),
        ("Admin", None),
        ("  ", None),
        ("7", None),
        ("%author%", None),
        ("Jane\x07 Doe\u202e", "Jane Doe"),
        ("J" * 200, None),
        ("This is a whole sentence about what the author does all day", None),
    ],
)
def test_names(given: str, names: str | None) -> None:
    page = f'<meta property="og:site_name" content="The Example"><meta name="author" content="{given}">'
    assert of(page).author == names


def test_several_authors() -> None:
    page = "".join(f"<meta name=citation_author content='{n}'>" for n in ("Doe, Jane", "Smith, John", "doe, jane"))
    assert of(page).author == "Doe, Jane; Smith, John"
    assert of("<meta property='article:author' content='A B'><meta name='author' content='C D'>").author == "A B"


@pytest.mark.parametrize(
    ("line", "author"),
    [
        ("<p class='byline'>By Jane Doe, March 5, 2021</p>", "Jane Doe"),
        ("<p class='entry-byline'>Posted on March 5, 2021 by <a>Jane Doe</a> | 3 comments</p>", "Jane Doe"),
        ("<p class='byline'>Jane Doe · 5 min read</p>", "Jane Doe"),
        ("<p class='byline'>Jane Doe Mar 5, 2021</p>", "Jane Doe"),
        ("<p class='author'>About the author</p>", None),
        ("<p class='authority'>Jane Doe</p>", None),
        ("<p class='author'>Sun Dec 12, 2021</p>", None),
        ("<div itemprop='author'><img alt=x><span itemprop='name'> Jane <b>D.</b></span></div>", "Jane"),
        ("<div itemprop='author'><meta itemprop='name' content='Jane Doe'></div>", "Jane Doe"),
    ],
)
def test_bylines(line: str, author: str | None) -> None:
    assert of(line).author == author


# ------------------------------------------------------------------------------------------------ dates


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2024-03-05", "2024-03-05"),
        (" 2024-3-5 ", "2024-03-05"),
        ("2024/03/05", "2024-03-05"),
        ("20240305", "2024-03-05"),
        ("20240305T1004", "2024-03-05T10:04:00"),
        ("2024-03-05T10:04:05Z", "2024-03-05T10:04:05Z"),
        ("2024-03-05 10:04", "2024-03-05T10:04:00"),
        ("2024-03-05T10:04:05.123+0530", "2024-03-05T10:04:05.123+05:30"),
        ("2024-03-05T10:04:05-08", "2024-03-05T10:04:05-08:00"),
        ("2024-03-05 10:04:05 GMT", "2024-03-05T10:04:05Z"),
        ("2024-03-05 10:04 PM", "2024-03-05"),
        ("2024-03-05T25:00", "2024-03-05"),
        ("Tue, 05 Mar 2024 10:04:05 GMT", "2024-03-05"),
        ("Tue Mar  5 10:04:05 2024", "2024-03-05"),
        ("March 5th, 2024", "2024-03-05"),
        ("Published on 5 March 2024 at noon", "2024-03-05"),
        ("5. März 2024, 10:04 Uhr", "2024-03-05"),
        ("le 1er août 2024", "2024-08-01"),
        ("5 de marzo de 2024", "2024-03-05"),
        ("5 марта 2024 г.", "2024-03-05"),
        ("5-Mar-2024", "2024-03-05"),
        ("2024年3月5日", "2024-03-05"),
        ("05.03.2024", "2024-03-05"),
        ("25/03/2024", "2024-03-25"),
        ("03/25/2024", "2024-03-25"),
        ("03/03/2024", "2024-03-03"),
        ("1823-04-01", "1823-04-01"),
        ("05/03/2024", None),
        ("05.03.24", None),
        ("5 March 24", None),
        ("2024", None),
        ("2024-03", None),
        ("2023-02-29", None),
        ("2024-13-05", None),
        ("99999-01-01", None),
        ("0000-00-00", None),
        ("1970-01-01T00:00:00Z", None),
        (f"{LAST_YEAR + 1}-01-01", None),
        ("1200-01-01", None),
        ("version 1.2.2024.7", None),
        ("1709632800", None),
        ("3 Fooember 2024", None),
        ("", None),
    ],
)
def test_dates(text: str, iso: str | None) -> None:
    assert iso_date(text) == iso


@given(st.dates(min_value=date(1971, 1, 1), max_value=date(LAST_YEAR, 12, 31)))
def test_every_day_in_every_form(day: date) -> None:
    for form in ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%d %B %Y", "%B %d, %Y", "%a, %d %b %Y", "%a %b %d 10:00:00 %Y"):
        assert iso_date(day.strftime(form)) == day.isoformat(), form
    swapped = iso_date(day.strftime("%d/%m/%Y"))
    assert swapped == (day.isoformat() if day.day > 12 or day.day == day.month else None)


@given(st.text(alphabet="0123456789-/.: TZ+年月日MayAprilmärz,", max_size=40))
def test_a_date_is_iso_or_nothing(text: str) -> None:
    found = iso_date(text)
    if found is not None:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?)?", found)
        date.fromisoformat(found[:10])


# ------------------------------------------------------------------------------------------------ titles, languages, links


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title>A  plan\n &amp; more</title>", "A plan & more"),
        ("<title>A plan - The Example</title><meta property=og:site_name content='the example'>", "A plan"),
        ("<title>The Example: A plan</title><meta property=og:site_name content='The Example'>", "A plan"),
        ("<title>A plan | www.example.org</title>", "A plan | www.example.org"),
        ("<title>A plan | example.org</title>", "A plan"),
        ("<title>A plan – Example</title>", "A plan"),
        ("<title>A plan | News | Example</title>", "A plan | News"),
        ("<title>A plan - Another site</title>", "A plan - Another site"),
        ("<title>A plan - Another site</title><h1>A Plan</h1>", "A plan"),
        ("<title>A plan: why it failed</title><h1>A Plan</h1>", "A plan: why it failed"),
        ("<title>Example</title>", "Example"),
        ("<title>Anti-Example</title>", "Anti-Example"),
        ("<title>B</title><meta property=og:title content='A'>", "A"),
        ("<title>B</title><meta property=og:title content='A'><h1>B</h1>", "B"),
        ("<title>B</title><meta property=og:title content='A'><h1>C</h1>", "A"),
        ("<title>B</title><meta name=citation_title content='A'>", "A"),
        ("<meta name=DC.title content='A'>", "A"),
        ("<title>Use of the &lt;b&gt; element</title>", "Use of the <b> element"),
        ("<meta property=og:title content='A <i>plan</i>'>", "A plan"),
        (f"<title>{'long ' * 300}</title>", ("long " * 100).strip()),
    ],
)
def test_titles(page: str, title: str) -> None:
    assert of(page).title == title


def test_the_name_of_the_site_is_the_title_of_its_start_page() -> None:
    page = "<title>Example: all about examples</title><meta property=og:site_name content='Example'>"
    assert of(page, "https://example.org/").title == "Example: all about examples"
    assert of(page).title == of(page, "https://example.org/?id=1").title == "all about examples"


@pytest.mark.parametrize(
    ("page", "language"),
    [
        ("<html lang='de-AT'><meta property=og:locale content=en_US>", "de"),
        ("<html lang='{{ lang }}'><meta http-equiv='Content-Language' content='pt-BR, en'>", "pt"),
        ("<html xml:lang='fr'>", "fr"),
        ("<meta name='DC.language' content='es'><meta property=og:locale content=en_US>", "es"),
        (ld({"@type": "WebPage", "inLanguage": "it-IT"}), "it"),
        ("<meta property=og:locale content=ja_JP>", "ja"),
        ("<html lang=''>", None),
    ],
)
def test_languages(page: str, language: str | None) -> None:
    assert of(page).language == language


@pytest.mark.parametrize(
    ("page", "url", "canonical"),
    [
        ("<link rel=canonical href='/b?x=1&amp;y=2'>", URL, "https://www.example.org/b?x=1&y=2"),
        ("<link rel=canonical href='https://example.com/b'>", URL, "https://example.com/b"),
        ("<link rel=canonical href='https://example.com/'>", URL, None),  # the start page of another host
        ("<link rel=canonical href='https://example.org'>", URL, "https://example.org"),
        ("<link rel=canonical href='https://example.com'>", "https://example.org/", "https://example.com"),
        ("<link rel=canonical href='javascript:x'><meta property=og:url content='/c'>", URL, "https://www.example.org/c"),
        ("<link rel=canonical href=''><meta property=og:url content='https://www.example.org/'>", URL, None),
        ("<link rel=canonical href='/b'>", None, None),
        ("<link rel=canonical href='https://a.test/b'>", None, "https://a.test/b"),
        ("<link rel=canonical href='http://[bad/'><link rel=canonical href='http://a b/'>", URL, None),
        ("<link rel=canonical href='/b'>", "http://[bad/", None),
        ("<link rel=stylesheet href='/b'>", URL, None),
    ],
)
def test_canonical_urls(page: str, url: str | None, canonical: str | None) -> None:
    assert of(page, url).canonical_url == canonical


def test_licences() -> None:
    page = (
        "<a rel='license' href='/terms'>terms</a><a href='http://creativecommons.org/licenses/by-sa/3.0/?x&amp;y'>CC</a>"
        "<link rel='license' href='https://creativecommons.org/publicdomain/zero/1.0/'><a href='https://creativecommons.org/'>x</a>"
        "<a rel='license' href='/terms'>again</a><a rel=license href='mailto:x@example.org'>ask</a>"
        "<meta name='DC.rights' content='© Jane Doe, see https://example.org/rights'>"
        + ld({"@type": "Article", "license": [{"@id": "https://example.org/l"}, "https://example.org/rights", "MIT"]})
    )
    assert of(page).licence_links == [
        "https://www.example.org/terms",
        "http://creativecommons.org/licenses/by-sa/3.0/?x&y",
        "https://creativecommons.org/publicdomain/zero/1.0/",
        "https://example.org/l",
        "https://example.org/rights",
        "https://www.example.org/news/MIT",
    ]
    assert of("<a rel=license href='/terms'>terms</a>", None).licence_links is None


# ------------------------------------------------------------------------------------------------ anything at all

PIECES = st.sampled_from(
    "<meta name=author content=' <meta property=og:title content=' <meta name=date content=' '> <time> </time> <title> "
    "</title> <p class=byline> </p> <a rel=license href=' by & &amp; &#0; &#xd800; \x00 : | - http:// // [ ] 2024-01-01 Doe "
    '<script type=application/ld+json> </script> { } " @graph @type Article author <svg> , ; <![CDATA[ ]]> %s \u202e'.split(" ")
)


@given(st.lists(PIECES | st.text(max_size=12), max_size=30), st.sampled_from([URL, None, "", "x", "https://"]))
def test_whatever_a_page_holds(pieces: list[str], url: str | None) -> None:
    found = of("".join(pieces).encode("utf-8", "ignore").decode(), url)
    for value in (
        found.title,
        found.author,
        found.published,
        found.language,
        found.canonical_url,
        *(found.licence_links or ()),
    ):
        if value is not None:
            value.encode()
            assert value.strip() == value and value and all(c.isprintable() or c in "\xa0\xad" for c in value if c < "\x80")
    for link in (found.canonical_url, *(found.licence_links or ())):
        if link is not None:
            assert urlsplit(link).scheme in ("http", "https") and urlsplit(link).hostname


def test_elements_of_any_size() -> None:
    many = ['<meta name="author" content="' + "a," * 100_000 + '">', '<meta name="date" content="' + "1 " * 100_000 + '">']
    many += ['<p class="byline">' + "<b>" * 100_000, '<span itemprop="author">' + ' itemprop="name" x' * 10_000 + "</span>"]
    many += ["<title>" + " | x" * 100_000 + "</title>", '<a rel="license" href="' + "/" * 100_000 + '">x</a>'] * 200
    found = metadata(many, URL)
    assert found.author is None and found.published is None and found.licence_links is None
    assert sys.getsizeof(found.title) < 3_000


def test_on_real_pages(shared_data) -> None:
    """Shares of pages with each fact, and titles against those that people wrote down: a little under what was measured."""
    from curate.extract.curate import facts_of, parse
    from curate.sources.warc import Page, read_archive

    gold = {}
    with gzip.open(shared_data / "crawl" / "pages.jsonl.gz") as lines:
        for line in lines:
            row = json.loads(line)
            gold[row["record_id"]] = row
    found, titles = [], []
    for page in read_archive((shared_data / "crawl" / "wcxb-dev-00001.warc.gz").open("rb"), max_body_bytes=16 << 20):
        if isinstance(page, Page):
            facts = metadata(facts_of(parse(page.body)), page.url)
            found.append(facts)
            titles.append(_words(facts.title) == _words(gold[page.id]["title"]))
    n = len(found)
    assert n == 311
    for name, least in (("title", 0.98), ("author", 0.4), ("published", 0.5), ("language", 0.9), ("canonical_url", 0.8)):
        assert sum(getattr(facts, name) is not None for facts in found) / n > least, name
    assert sum(titles) / n > 0.6


def _words(text: str | None) -> list[str]:
    return re.findall(r"\w+", (text or "").lower())
