"""The scan of a page, beside a plain reading of the same markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from curate.extract.page import Page, scan_page
from curate.kernels import html as columns
from curate.kernels.tags import fnv

BLOCK = set(
    "p div h1 h2 h3 h4 h5 h6 ul ol li table tbody tr td th pre blockquote dl dt dd section body html hr head nav".split()
)
UNSEEN = {"script", "style", "select", "textarea", "svg", "iframe", "head"}
KINDS = {"li": columns.ITEM, "td": columns.DATA, "th": columns.HEADER, "dt": columns.TERM, "dd": columns.DEFINITION}
KINDS |= {f"h{n}": n for n in range(1, 7)} | {"ul": 0, "ol": 0, "table": 0}
VOID = {"br", "hr", "img"}


class Reading(HTMLParser):
    """Blocks as (text, kind, quote, list, ordinal, bytes in links): one small step per event."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[tuple] = []
        self.open: list[str] = []
        self.items: list[int] = []  # of the open <li>, the number to be given, -1 where it was
        self.counters: list[int] = []  # of the open lists
        self.text = ""
        self.begun: tuple | None = None
        self.linked = 0
        self.code = False
        self.after_link = False

    def kind(self) -> int:
        return next((KINDS[tag] for tag in reversed(self.open) if tag in KINDS), 0)

    def pre(self) -> bool:
        return "pre" in self.open

    def flush(self) -> None:
        text = self.text
        if self.code:
            text += chr(columns.CODE_CLOSE)
            self.code = False
        if self.begun:
            pre, kind, quote, depth, item = self.begun
            if pre:
                text = re.sub(r"^(?:[ \t]*\n)+", "", text.rstrip(" \t\n"))
            if text:
                ordinal = -1
                if item is not None:
                    ordinal, self.items[item] = self.items[item], -1
                self.blocks.append((text, columns.CODE if pre else kind, quote, depth, ordinal, self.linked))
        self.text, self.begun, self.linked, self.space, self.feeds = "", None, 0, False, 0
        self.hard = 0

    space = False
    feeds = hard = 0

    def handle_starttag(self, tag, attrs):
        if tag in BLOCK:
            if not self.pre():
                self.flush()
            elif self.begun and not self.text.endswith("\n") and tag not in ("td", "th") and not UNSEEN & set(self.open):
                self.text += "\n"
        if tag == "br" and not UNSEEN & set(self.open):
            self.hard = 0
            if self.pre():
                self.text += "\n" if self.begun else ""
            elif self.begun and "code" in self.open:
                self.feeds += 1
            elif self.begun and self.feeds:
                self.flush()
            elif self.begun:
                self.feeds = 1
        elif tag == "br" and self.begun and not self.pre():  # the scan does not look where it stands
            self.hard = 0
            self.feeds, _ = (self.feeds + 1, self.flush()) if self.feeds else (1, None)
        if tag in VOID:
            return
        if tag == "a" and self.after_link and self.begun and not self.pre():
            self.space = True
        if tag in ("ul", "ol"):
            self.counters.append(0)
        if tag == "li":
            # numbers count in the nearest list; bullets and stray items have none
            lists = [t for t in self.open if t in ("ul", "ol")]
            if lists and lists[-1] == "ol" and not self.pre():
                self.counters[-1] += 1
                self.items.append(self.counters[-1])
            else:
                self.items.append(0)
        self.open.append(tag)
        if tag == "li":
            number = None if "pre" in self.open else len(self.items) - 1
            self.item_at = {**getattr(self, "item_at", {}), len(self.open) - 1: number}

    def handle_endtag(self, tag):
        if tag in BLOCK:
            inside = self.pre() and not (tag == "pre" and self.open.count("pre") == 1)
            if not inside:
                self.flush()
            elif self.begun and not self.text.endswith("\n") and tag not in ("td", "th") and not UNSEEN & set(self.open):
                self.text += "\n"
        if tag == "a":
            self.after_link = self.begun is not None
        assert self.open[-1] == tag
        self.open.pop()
        if tag in ("ul", "ol"):
            self.counters.pop()
        if self.code and tag == "code" and "code" not in self.open:
            self.text += chr(columns.CODE_CLOSE)
            self.code = False

    def handle_data(self, data):
        if UNSEEN & set(self.open):
            return
        pre, links = self.pre(), "a" in self.open
        if pre and self.open[-1] in ("table", "tbody", "tr"):
            return
        for c in data:
            self.hard += c == "\u00a0"
            c = " " if c in "\u00a0\u2003\u3000" else c
            if c in "\u00ad\u200b\ufeff" or (ord(c) < 32 and c not in "\n\t\r\f") or c == "\x7f":
                continue
            if not pre and c in " \n\t\r\f":
                self.space = True
                continue
            add = ""
            if not self.begun:
                item = None
                for at in range(len(self.open) - 1, -1, -1):
                    if self.open[at] in ("td", "th"):
                        break
                    if self.open[at] == "li" and self.item_at[at] is not None:
                        item = self.item_at[at]
                        break
                before = self.open[: self.open.index("pre")] if pre else self.open  # items in there are lines of code
                depth = sum(t in ("ul", "ol") for t in before)
                add = " " * self.hard if self.hard > 1 and "code" in self.open else ""
                self.begun = (pre, self.kind(), self.open.count("blockquote"), depth, item)
            elif self.feeds:
                add = "\n" * self.feeds + (" " * self.hard if "code" in self.open else "")
            elif self.space:
                add = " " * (self.hard if self.hard > 1 and "code" in self.open else 1)
            self.space, self.feeds, self.hard = False, 0, 0
            if "code" in self.open and not self.code and not pre:
                add += chr(columns.CODE_OPEN)
                self.code = True
            self.text += add + c
            self.after_link = False
            if links:
                self.linked += len((add + c).encode())


def serialised(html: str) -> bytes:
    return HTMLTree.parse_from_bytes(html.encode(), "utf-8").document.html.encode()


def scanned(html: str) -> Page:
    return scan_page(serialised(html))


def texts(page: Page) -> list[str]:
    return [page.text[a:b].decode() for a, b in page.blocks[:, :2].tolist()]


def found(page: Page) -> list[tuple]:
    wanted = [columns.KIND, columns.QUOTE, columns.LIST, columns.ORDINAL, columns.LINK_BYTES]
    return [(text, *row) for text, row in zip(texts(page), page.blocks[:, wanted].tolist(), strict=True)]


def read(html: bytes) -> list[tuple]:
    reading = Reading()
    reading.feed(html.decode())
    reading.close()
    reading.flush()
    return reading.blocks


words = st.text(st.sampled_from("ab é.\u00a0\u3000漢&<>\u00ad\t\n"), max_size=6).map(
    lambda t: t.replace("&", "&amp;").replace("<", "&lt;")
)
tags = st.sampled_from("p div h2 ul ol li table tr td th pre blockquote dl dt dd a b code span section nav".split())
pieces = st.one_of(
    words,
    st.builds("<{}>".format, tags),
    st.builds("</{}>".format, tags),
    st.sampled_from(
        ["<br>", "<hr>", "<script>if (a<b) x</script>", "<!-- c -->", "<svg><p>no</svg>", "<textarea>t</textarea>"]
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=40))
def test_blocks_are_those_of_a_plain_reading(parts):
    html = serialised("<body>" + "".join(parts))
    page = scan_page(html)
    tables = page.blocks[:, columns.TABLE] >= 0
    expected = read(html)
    # cells of tables that only arrange the page are paragraphs
    cells = (columns.DATA, columns.HEADER)
    expected = [
        (t, 0 if k in cells and not (len(tables) == len(expected) and tables[n]) else k, *rest)
        for n, (t, k, *rest) in enumerate(expected)
    ]
    assert found(page) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, max_size=40))
def test_elements_hold_their_blocks(parts):
    page = scanned("<body>" + "".join(parts))
    elements, blocks = page.elements, page.blocks
    assert elements[0, [columns.FIRST, columns.LAST]].tolist() == [0, len(blocks)]
    for e, row in enumerate(elements.tolist()):
        parent = row[columns.PARENT]
        assert (parent == -1) == (e == 0)
        if e:
            assert parent < e
            assert elements[parent, columns.FIRST] <= row[columns.FIRST] <= row[columns.LAST] <= elements[parent, columns.LAST]
    for k, e in enumerate(blocks[:, columns.ELEMENT].tolist()):
        assert elements[e, columns.FIRST] <= k < elements[e, columns.LAST]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.lists(pieces, max_size=10))
def test_any_bytes_are_read_to_the_end(noise, parts):
    """Not only what a serialiser writes: nothing outside the page is read, and the text is made of its bytes."""
    page = scan_page(noise + "".join(parts).encode() + noise[: len(noise) // 2])
    starts, ends = page.blocks[:, columns.START], page.blocks[:, columns.END]
    assert (starts < ends).all()
    assert (starts[1:] >= ends[:-1]).all()
    assert not len(ends) or ends[-1] <= len(page.text)


def test_text():
    page = scanned("<p> a&nbsp;b\n <b>c</b>d<br>e<br><br>f &lt;i&gt; &amp;amp; x\u00ad\u200by \x01z</p>")
    assert texts(page) == ["a b cd\ne", "f <i> &amp; xy z"]


def test_code_keeps_its_lines():
    page = scanned("<pre>\n\n  def f():\n\treturn 1 &lt; 2\n\n</pre><p>then <code>f()</code> and <kbd>x</kbd></p>")
    assert texts(page) == ["  def f():\n\treturn 1 < 2", "then \x03f()\x04 and \x03x\x04"]
    assert page.blocks[:, columns.KIND].tolist() == [columns.CODE, columns.PARAGRAPH]


@pytest.mark.parametrize(
    "html",
    [
        "<pre><div>a</div><div>b</div></pre>",
        "<pre>a<br>b</pre>",
        "<table class='js-file-line-container'><tr><td class='blob-num'>1</td><td>a</td></tr>\n"
        "<tr><td class='blob-num'>2<td>b</table>",
        "<pre><table><tr><td class='rouge-gutter'><pre>1\n2</pre></td><td><pre>a\nb</pre></td></tr></table></pre>",
        "<pre><span class='lineno'>1 </span>a\n<span class='lineno'>2 </span>b</pre>",
        "<pre>a\nb<button>Copy</button></pre>",
    ],
)
def test_lines_of_code_in_elements(html):
    assert texts(scanned(html)) == ["a\nb"]


def test_formulas_have_places_and_their_renderings_are_left_out():
    page = scanned(
        "<p>If <span class='katex'><span class='katex-mathml'><math><mi>x</mi></math></span><span class='katex-html'>x</span>"
        "</span>,"
        " <span class='MathJax_Preview'>y</span><span class='MathJax'>y</span><script type='math/tex'>y</script> and"
        " <span style='display: none'><math><mi>z</mi></math></span><img class='mwe-math-fallback-image-inline' alt='z'>"
        " <img class='latex' alt='w'>.</p>"
    )
    (text,) = texts(page)
    spans = [page.html[a:b].decode() for _, a, b in page.spans.tolist()]
    numbers = [int(n) for n in re.findall("\x05(\\d+)\x06", text)]
    assert re.sub("\x05\\d+\x06", "@", text) == "If @, @ and @ @."
    assert [spans[n] for n in numbers] == [
        "<math><mi>x</mi></math>",
        '<script type="math/tex">y</script>',
        "<math><mi>z</mi></math>",
        '<img class="latex" alt="w">',
    ]
    kinds = [columns.SPAN_MATH, columns.SPAN_TEX, columns.SPAN_MATH, columns.SPAN_IMAGE]
    assert [page.spans[n, 0] for n in numbers] == kinds


def test_data_tables_and_others():
    data = "<table><tr><th>a<th>b<tr><td colspan=2>c<td>d</table>"
    page = scanned(
        data
        + "<table><tr><td><p>one<p>two<p>three<td>x</table>"
        + "<table role=presentation><tr><td>1<td>2<tr><td>3<td>4</table>"
        + data
    )
    cells = page.blocks[:, [columns.TABLE, columns.ROW, columns.CELL, columns.KIND]].tolist()
    first = [[0, 0, 0, 10], [0, 0, 1, 10], [0, 1, 0, 9], [0, 1, 2, 9]]
    assert cells == [*first, *[[-1, -1, -1, 0]] * 8, *([1, *rest] for _, *rest in first)]


def test_places_with_metadata():
    page = scanned(
        "<html lang=en><head><title>t</title><meta name=a><link rel=stylesheet><link rel='canonical'>"
        "<script type='application/ld+json'>{}</script></head><body><svg><title>no</title></svg><time>1</time>"
        "<a rel='nofollow license'>l</a>"
        "<div class='post-byline'>b</div>"
        f"<div class=author>{'x' * columns.MAX_FACT}</div><a href='https://creativecommons.org/licenses/by/4.0/'>cc</a>"
    )
    facts = [page.html[a:b].decode() for kind, a, b in page.spans.tolist() if kind == columns.SPAN_FACT]
    assert [re.match(r"<\w+", f)[0] for f in facts] == "<html <title <meta <link <script <time <a <div <a".split()
    assert facts[0] == '<html lang="en">'
    assert facts[4] == '<script type="application/ld+json">{}</script>'


def test_hidden_parts_are_marked():
    page = scanned(
        "<div hidden>a</div><div style='color:red;display:none'>b</div><p>c<span hidden>no</span></p><noscript>d</noscript>"
    )
    assert texts(page) == ["a", "b", "c", "d"]
    bits = page.blocks[:, columns.BITS]
    assert (bits & columns.IN_HIDDEN > 0).tolist() == [True, True, False, False]
    assert (bits & columns.IN_NOSCRIPT > 0).tolist() == [False, False, False, True]


def test_words_are_counted():
    page = scanned("<title>big cats</title><p>The cat, big CATS: 12 is it? 漢字。</p>")
    row = page.blocks[0]
    names = ["WORDS", "UPPER", "DIGITS", "PUNCT", "STOPS", "UNSPACED", "TITLE"]
    assert [int(row[getattr(columns, n)]) for n in names] == [9, 5, 2, 4, 3, 2, 2]
    assert page.first_words[0].tolist()[:2] == [fnv("the"), fnv("cat")]


def test_a_block_belongs_to_the_element_around_all_of_it():
    page = scanned("<div><p><b class=x>a</b><i class=y></i></p><p><b class=x>a</b> b</p><a class=z><div>c</div></a></div>")
    tags = [columns.TAGS[page.elements[e, columns.TAG]] for e in page.blocks[:, columns.ELEMENT]]
    assert tags == ["b", "p", "div"]


def test_links_beside_headings():
    page = scanned(
        "<h2>One<a class=headerlink href='#one'>¶</a></h2><h2><a class=heading-anchor href='#two'><b>Two</b></a></h2>"
        "<h2><a class=heading-anchor href='#three'>三</a></h2><h2>Four<a class=anchorjs-link><i></i> #</a></h2>"
    )
    assert texts(page) == ["One", "Two", "三", "Four"]


def test_what_is_never_text():
    page = scanned(
        "<head><noscript>Shown</noscript><title>t</title><body><div><noscript>Please enable JavaScript.</noscript></div>"
        "<p>a\x85b\x93c<p style='DISPLAY : none'>d<dialog>e</dialog><dialog open>f</dialog>"
    )
    assert texts(page) == ["Shown", "a bc", "d", "e", "f"]
    assert (page.blocks[:, columns.BITS] & columns.IN_HIDDEN > 0).tolist() == [False, False, True, True, False]


def test_an_empty_page():
    page = scan_page(b"")
    assert page.blocks.shape == (0, columns.BLOCK_COLUMNS)
    assert page.elements.shape == (1, columns.ELEMENT_COLUMNS)
    assert page.features(np.zeros(4, np.float32), np.zeros(4, np.float32)).shape[0] == 0
