"""Structure of whole pages: lists, tables, quotations, code and formulas, from HTML to text and Markdown."""

from __future__ import annotations

import pytest
import structured

from curate.extract.curate import extract, parse
from curate.extract.page.render import render
from curate.kernels import html as kernel


def shown(markup: str, format: str = "text") -> str:
    """All of a page but its buttons, without a model's choice."""
    page = parse(markup.encode())
    blocks = page.blocks
    return render(page, blocks[:, kernel.BUTTON_BYTES] < blocks[:, kernel.END] - blocks[:, kernel.START], format)


def both(markup: str) -> tuple[str, str]:
    return shown(markup), shown(markup, "markdown")


# --- Lists and definitions ---


def test_nested_lists():
    markup = "<ul><li>A<ol start=3><li>B</li><li>C<ul><li>D</ul></ol></li><li><p>E<p>F</ul><p>G"
    assert both(markup) == ("A\nB\nC\nD\nE\n\nF\n\nG", "- A\n  3. B\n  4. C\n     - D\n- E\n\n  F\n\nG")


def test_values_of_items():
    assert shown("<ol><li>A<li value=7>B<li>C</ol>", "markdown") == "1. A\n7. B\n8. C"


def test_definitions():
    markup = "<dl><dt>T<dd>D<dd><p>E<p>F<dt>U<dd>V</dl>"
    assert both(markup) == ("T\nD\nE\n\nF\n\nU\nV", "T\n: D\n: E\n\nF\n\nU\n: V")


# --- Tables ---


def test_table_with_head_caption_and_column_spans():
    markup = """<table><caption>Sizes</caption><thead><tr><th>Name<th colspan=2>Size</thead>
    <tbody><tr><td>a</td><td>1</td><td>2</td></tr><tr><th scope=row>b</th><td></td><td>3<br>4</td></tr></tbody></table>"""
    assert both(markup) == (
        "Sizes\n\nName\tSize\na\t1\t2\nb\t\t3 4",
        "Sizes\n\n| Name | Size |  |\n| --- | --- | --- |\n| a | 1 | 2 |\n| b |  | 3 4 |",
    )


def test_table_of_data_without_head():
    assert shown("<table><tr><td>Mass<td>5 kg<tr><td>Length<td>2 m</table>") == "Mass\t5 kg\nLength\t2 m"


POST = "<p>I have the same problem since the last update, and no idea where to look for the cause of it.</p>"
FORUM = (
    "<table>"
    + "".join(
        f"<tr><td>user{k}<br>Joined: 2009<br>Posts: {k}</td><td><div>Posted on Monday</div>{POST}{POST}"
        f"<blockquote>somebody said</blockquote><p>Did you try to start it again? Number {k}.</p></td></tr>"
        for k in range(5)
    )
    + "</table>"
)


def test_posts_in_a_table_are_paragraphs():
    for format in ("text", "markdown"):
        found = shown(FORUM, format)
        assert "\t" not in found and "| " not in found
        assert found.count("I have the same problem since the last update") == 10
        assert "the cause of it.\n\nI have" in found


def test_tables_that_arrange_the_page_are_none():
    inner = "<table><tr><th>A<th>B<tr><td>1<td>2</table>"
    markup = f"<table><tr><td><p>Left column</p></td><td><p>Right column</p>{inner}</td></tr></table>"
    assert shown(markup) == "Left column\n\nRight column\n\nA\tB\n1\t2"
    assert shown('<table role="presentation"><tr><td>a<td>b<tr><td>c<td>d</table>') == "a\n\nb\n\nc\n\nd"


# --- Text ---


def test_headings():
    markup = "".join(f"<h{n}>Level {n}</h{n}>" for n in range(1, 7))
    assert shown(markup, "markdown") == "\n\n".join(f"{'#' * n} Level {n}" for n in range(1, 7))


def test_quotations():
    markup = "<p>a</p><blockquote><p>b</p><p>c<br>d</p><blockquote>e</blockquote></blockquote><p>f</p>"
    assert both(markup) == ("a\n\nb\n\nc\nd\n\ne\n\nf", "a\n\n> b\n>\n> c\n> d\n>\n> > e\n\nf")


def test_a_poem():
    markup = "<p>Roses are red, <br>\n  violets are <b>blue</b><br/>sugar<br><br>Second stanza<br>ends</p>"
    assert both(markup) == ("Roses are red,\nviolets are blue\nsugar\n\nSecond stanza\nends",) * 2


def test_figures():
    markup = "<p>a</p><figure><img src=x alt='A tree'><figcaption>Figure 1: a <i>tree</i></figcaption></figure><p>b</p>"
    assert both(markup) == ("a\n\nFigure 1: a tree\n\nb",) * 2


def test_inline_code():
    markup = (
        "<p>Call <code>len(<b>x</b>)</code> or <kbd>Ctrl</kbd>+<kbd>C</kbd>, <tt>a`b</tt>.</p><h2>The <code>x</code> flag</h2>"
    )
    assert both(markup) == (
        "Call len(x) or Ctrl+C, a`b.\n\nThe x flag",
        "Call `len(x)` or `Ctrl`+`C`, ``a`b``.\n\n## The `x` flag",
    )


# --- Code ---


@pytest.mark.parametrize(
    ("markup", "code"),
    [
        ("<pre>\nfirst\n</pre>", "first"),
        ("<pre>\n\n  first\n</pre>", "  first"),
        ("<pre>a\n\n\n\tb  c &lt;d&gt; &amp;amp;\n   \n</pre>", "a\n\n\n\tb  c <d> &amp;"),
        ("<pre>a\r\nb\rc</pre>", "a\nb\nc"),
        ("<pre>a<br>b<br><br>c</pre>", "a\nb\n\nc"),
        ("<pre><span>a</span>\n<span> b</span></pre>", "a\n b"),
        ("<pre>x&nbsp;=&nbsp;1</pre>", "x = 1"),
        ("<xmp><b>\n  x</b></xmp>", "<b>\n  x</b>"),
        ("<pre><div>a</div><div>  b</div></pre>", "a\n  b"),
    ],
)
def test_code(markup, code):
    assert both(f"<p>x</p>{markup}<p>y</p>") == (f"x\n\n{code}\n\ny", f"x\n\n```\n{code}\n```\n\ny")


def test_code_in_items_and_quotations():
    markup = "<ul><li>Do<pre>a\n  b</pre></li><li>c</li></ul><blockquote><pre>d\n\ne</pre></blockquote>"
    assert shown(markup, "markdown") == "- Do\n\n  ```\n  a\n    b\n  ```\n\n- c\n\n> ```\n> d\n>\n> e\n> ```"


def test_code_that_is_inline_to_the_page():
    markup = "<p><code>if x:<br>&nbsp;&nbsp;&nbsp;&nbsp;y<br><br>z</code></p><p>and <code>x</code></p>"
    assert both(markup) == ("if x:\n    y\n\nz\n\nand x", "```\nif x:\n    y\n\nz\n```\n\nand `x`")


# --- Formulas ---

SQUARE = "<math><msup><mi>x</mi><mn>2</mn></msup></math>"


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        (f"<h2>The {SQUARE} law</h2>", "The $x^2$ law"),
        (f"<ul><li>{SQUARE}<li>b</ul>", "$x^2$\nb"),
        (f"<table><tr><th>f<th>g<tr><td>{SQUARE}<td>{SQUARE} + 1</table>", "f\tg\n$x^2$\t$x^2$ + 1"),
        (f"<dl><dt>{SQUARE}<dd>a square</dl>", "$x^2$\na square"),
        (f"<p>a{SQUARE}b, {SQUARE}</p>", "a$x^2$b, $x^2$"),
        (f"<a href=/x>{SQUARE} here</a>", "$x^2$ here"),
        (f"<p>a<br>{SQUARE}<br>b</p>", "a\n$x^2$\nb"),
        ("<p>a <math></math> b</p>", "a b"),
        ("<p>a <img src='https://s0.wp.example/latex.php?latex=x%5E2' alt='x^2'>.</p>", "a $x^2$."),
        ("<p>a <img src='https://latex.codecogs.com/gif.latex?x^2'>.</p>", "a $x^2$."),
        ("<p>a <img src='/photo.jpg' alt='x^2'>.</p>", "a ."),
        (
            '<p>a <mjx-container class="MathJax" jax="SVG"><svg><text>x2</text></svg><mjx-assistive-mml>'
            f"{SQUARE}</mjx-assistive-mml></mjx-container>.</p>",
            "a $x^2$.",
        ),
    ],
)
def test_formulas_wherever_they_stand(markup, plain):
    assert shown(markup) == plain


# --- Precision, all of a page kept ---

MATHS_PAGES, CODE_PAGES = 5, 5


@pytest.mark.parametrize("kind", structured.MATHS)
def test_formulas_in_all_markup(kind):
    exact = [
        right
        for markup, items in structured.maths_pages(kind, seed=11, pages=MATHS_PAGES)
        for right in structured.exact_maths(shown(markup), items)
    ]
    assert len(exact) == 8 * MATHS_PAGES
    assert sum(exact) / len(exact) >= 0.95


@pytest.mark.parametrize("kind", structured.CODE)
def test_code_in_all_markup(kind):
    exact = [
        right
        for markup, items in structured.code_pages(kind, seed=11, pages=CODE_PAGES)
        for right in structured.exact_code(shown(markup), items)
    ]
    assert len(exact) == 4 * CODE_PAGES
    assert sum(exact) / len(exact) >= 0.95


def test_pages_of_pydoc():
    exact = [
        right for markup, expected in structured.pydoc_pages() for right in structured.exact_pydoc(shown(markup), expected)
    ]
    assert len(exact) > 50
    assert sum(exact) / len(exact) >= 0.95


# --- Precision end to end: the model chooses ---


def test_formulas_of_main_content():
    exact = []
    for kind in structured.MATHS:
        for markup, items in structured.maths_pages(kind, seed=12, pages=3):
            exact += structured.exact_maths(extract(markup.encode(), None, None).text, items)
    assert len(exact) == 8 * 3 * len(structured.MATHS)
    assert sum(exact) / len(exact) >= 0.95


def test_code_of_main_content():
    exact = []
    for kind in structured.CODE:
        for markup, items in structured.code_pages(kind, seed=12, pages=3):
            exact += structured.exact_code(extract(markup.encode(), None, None).text, items)
    for markup, expected in structured.pydoc_pages():
        exact += structured.exact_pydoc(extract(markup.encode(), None, None).text, expected)
    assert len(exact) > 4 * 3 * len(structured.CODE) + 50
    assert sum(exact) / len(exact) >= 0.95
