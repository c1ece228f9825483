"""The cost of a page against what the parser makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from curate.kernels.markup import Cost, measure

NO_LIMITS = Cost(10**9, 5000, 10**9, 10**12, 10**9, 10**15, 10**9, 10**15, 10**15)


def built(html: str) -> tuple[int, int]:
    """(elements, depth) of the body as the parser builds it."""
    body = HTMLTree.parse_from_bytes(html.encode(), "utf-8").body
    depths = [0]
    for element in body.query_selector_all("*"):
        at, deep = element, 0
        while at is not None and at.tag != "body":
            at, deep = at.parent, deep + 1
        depths.append(deep)
    return len(depths) - 1, max(depths)


# A page, and how many elements its tags name, implied ones included, whose copies are to be counted.
CASES = {
    "nothing": ("", 0),
    "text": ("a < b & c", 0),
    "paragraphs": ("<p>x" * 20, 20),
    "a list": ("<ul>" + "<li>x" * 20 + "</ul>", 21),
    "a list in a list": ("<ul><li>x<ul><li>y</ul><li>z</ul>", 5),
    "nested": ("<div>" * 50 + "x" + "</div>" * 50, 50),
    "items do not nest": ("<dl>" + "<dt>x<dd>y" * 9, 19),
    "formatting left open": ("<p>" + "".join(f"<b id={k}>" for k in range(20)) + "</p>" + "<p>x</p>" * 30, 51),
    "no more than three alike": ("<p>" + "<b>" * 20 + "</p>" + "<p>x</p>" * 30, 51),
    "ends that come too late": ("<p><b>x</p></b><p>y" * 9, 27),
    "a link ends the one before": ("<p><a href=x>x" * 9, 18),
    "not out of a cell": ("<table><tr><td><b>x</td><td>y</td></table><p>z", 7),
    "into the next block": ("<div><i class=n>x</div><div>y</div></i><div>z</div>", 4),
    "misnested": ("<b>1<p>2</b>3</p>", 2),
    "a table between": ("<b><table><tr><td>x</b>y</table>z", 5),
    "tables end each other": ("<table><code>" * 9, 18),
    "rows without a body": ("<table><tr><td>x<tr><td>y</table>", 6),
    "rows without a table": ("<tr><td>x", 0),
    "forms do not nest": ("<form><form><div>x</form></form>y", 2),
    "headings end each other": ("<h1>a<h2>b<h3>c", 3),
    "buttons end each other": ("<button>a<button>b", 2),
    "foreign": ("<svg><g><path/><path/></g></svg><p>x", 5),
    "foreign, ended by HTML": ("<svg><g><g><p>x", 4),
    "CDATA": ("<svg><![CDATA[<g><g><g>]]></svg>x", 1),
    "scripts": ("<script>'<div><div>'</script><p>x", 1),
    "comments": ("<!-- <div><div> --><!--><!---><p>x<!-- <div> --!>y", 1),
    "a title": ("<title><b><b></title><p>x", 1),
    "an attribute": ("<p title='<b><b>' class=\"<i>\">x", 1),
    "end tags of nothing": ("</div></b></x-y>x", 0),
    "rubies": ("<ruby>a<rt>b<rt>c<rp>d</ruby><p>e", 5),
    "options": ("<select><option>a<option>b</select>", 3),
}


@pytest.mark.parametrize("name", CASES)
def test_as_the_parser_does(name: str):
    html, written = CASES[name]
    (made, depth), cost = built(html), measure(html.encode(), NO_LIMITS)
    assert made == written + cost.copies
    assert abs(depth - cost.depth) <= 1  # elements without content lie deeper but are never open; tables put text before them


NAMES = [
    "div",
    "p",
    "span",
    "b",
    "i",
    "a",
    "font",
    "li",
    "ul",
    "table",
    "tr",
    "td",
    "h2",
    "button",
    "svg",
    "g",
    "section",
    "br",
    "x-y",
]
tags = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 9)).map(lambda t: f"<{t[0]} id={t[1]}>"),
    st.sampled_from(NAMES).map(lambda name: f"</{name}>"),
    st.just("x"),
)


@given(st.lists(tags, max_size=60))
def test_never_far_below_what_is_made(soup: list[str]):
    html = "".join(soup)
    cost = measure(html.encode(), NO_LIMITS)
    assert built(html)[0] <= 3 * (cost.tags + cost.copies) + 3


@given(st.binary(max_size=200), st.sampled_from([b"", b"<svg>", b"<table>", b"<select>", b"<!--", b"<p a='", b"<b><i>"]))
def test_any_bytes(noise: bytes, before: bytes):
    cost = measure(before + noise.replace(b"\xff", b"<").replace(b"\xfe", b">"), NO_LIMITS)
    assert min(cost) >= 0


def test_what_adds_up():
    def cost(html: str) -> Cost:
        return measure(html.encode(), NO_LIMITS)

    assert cost("<p a b=1 c='2' d = \"3\" e>").attributes == 5
    assert cost("<p a b c><p a b c>").pairs == 6
    assert cost("<body a b><body c d>").attributes == 4
    assert cost("<select><option><option></select><select><option>").options == 2
    assert cost("<select>" + "<option>" * 4).option_pairs == 6
    assert cost("<x-a><x-b><x-c>").lookups == 6
    assert cost("<p><b title='" + "x" * 1000 + "'></p>" + "<p>x</p>" * 3).copied == 3 * 1012
    assert cost("<p>x</p><!-- --><br>").tags == 4


def test_counting_ends_at_a_limit():
    html = b"<div>" * 1000
    assert measure(html, NO_LIMITS._replace(depth=10)).depth == 11
    assert measure(html, NO_LIMITS._replace(tags=10)).tags == 11
    assert measure(b"<p " + b" ".join(b"a%d" % k for k in range(50)) + b"><p b>", NO_LIMITS._replace(attributes=10)).tags == 1
