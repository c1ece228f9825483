"""Kept blocks as text and as Markdown, on pages built by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from blocks import block, cell, item, page
from hypothesis import given
from hypothesis import strategies as st

from curate.extract.page.render import render
from curate.kernels.html import CAPTION, CODE, DATA, DEFINITION, HEADER, TERM


def text(*blocks: dict, gone: tuple[int, ...] = (), **more) -> str:
    return _rendered(blocks, gone, "text", **more)


def markdown(*blocks: dict, gone: tuple[int, ...] = (), **more) -> str:
    return _rendered(blocks, gone, "markdown", **more)


def _rendered(blocks, gone, format, **more) -> str:
    keep = np.ones(len(blocks), bool)
    keep[list(gone)] = False
    return render(page(*blocks, **more), keep, format)


def both(*blocks: dict, **more) -> tuple[str, str]:
    return text(*blocks, **more), markdown(*blocks, **more)


# --- Paragraphs and headings ---


def test_nothing():
    assert both() == ("", "")
    assert both(block("gone"), gone=(0,)) == ("", "")


def test_paragraphs_are_lines_with_an_empty_one_between():
    assert both(block("One."), block("Two: ünïcödé."), block("Three.")) == ("One.\n\nTwo: ünïcödé.\n\nThree.",) * 2


def test_only_what_is_kept():
    assert both(block("One."), block("Menu"), block("Two."), gone=(1,)) == ("One.\n\nTwo.",) * 2


def test_a_break_is_a_line():
    assert both(block("Roses are red\nviolets are blue")) == ("Roses are red\nviolets are blue",) * 2


def test_headings():
    assert markdown(*(block(f"Level {n}", n) for n in range(1, 7))) == "\n\n".join(f"{'#' * n} Level {n}" for n in range(1, 7))
    assert both(block("Two\nlines", 2), block("x")) == ("Two\nlines\n\nx", "## Two lines\n\nx")


def test_caption():
    assert both(block("Figure 1. A tree", CAPTION), block("x")) == ("Figure 1. A tree\n\nx",) * 2


# --- Lists ---


def test_items_are_lines_one_after_another():
    blocks = [block("Before"), item("A"), item("B"), block("After")]
    assert both(*blocks) == ("Before\n\nA\nB\n\nAfter", "Before\n\n- A\n- B\n\nAfter")


def test_numbers_as_the_page_counts_them():
    blocks = [item(t, ordinal=n) for t, n in (("A", 9), ("B", 10), ("C", 20))]
    assert both(*blocks) == ("A\nB\nC", "9. A\n10. B\n20. C")


def test_nested_items_are_indented_below_the_text_of_theirs():
    blocks = [item("A"), item("B", 2, 1), item("C", 3), item("D", 2, 2), item("E")]
    assert both(*blocks) == ("A\nB\nC\nD\nE", "- A\n  1. B\n     - C\n  2. D\n- E")


def test_paragraphs_of_an_item_stay_in_it():
    blocks = [item("A"), item("more", ordinal=-1), item("B"), item("x\ny", kind=CODE, ordinal=-1), item("C")]
    assert text(*blocks) == "A\n\nmore\n\nB\n\nx\ny\n\nC"
    assert markdown(*blocks) == "- A\n\n  more\n\n- B\n\n  ```\n  x\n  y\n  ```\n\n- C"


def test_lines_of_an_item_are_indented():
    assert markdown(item("A\nB", ordinal=10)) == "10. A\n    B"


def test_an_item_begins_with_the_block_that_is_left():
    blocks = [item("gone", ordinal=1), item("left", ordinal=-1), item("next", ordinal=2)]
    assert markdown(*blocks, gone=(0,)) == "1. left\n2. next"


def test_an_item_that_is_gone_passes_nothing_on():
    blocks = [item("gone", ordinal=1), item("left", ordinal=2), block("after")]
    assert markdown(*blocks, gone=(0,)) == "2. left\n\nafter"
    assert markdown(item("gone", ordinal=1), block("out"), item("in", ordinal=-1), gone=(0,)) == "out\n\nin"


def test_items_inside_one_that_is_gone_move_up():
    blocks = [item("gone"), item("B", 2), item("C", 2), item("D")]
    assert markdown(*blocks, gone=(0,)) == "- B\n- C\n- D"


def test_text_after_an_inner_list_belongs_to_the_outer_item():
    blocks = [item("A"), item("B", 2), item("tail", 1, -1), item("C")]
    assert markdown(*blocks) == "- A\n  - B\n\n  tail\n\n- C"


def test_an_item_outside_any_list():
    assert markdown(item("A", 0), item("B", 0), block("x")) == "- A\n- B\n\nx"


def test_depth_that_is_shown_is_bounded():
    """A thousand levels are possible, and with each item indented by two thousand spaces a page would fill the memory."""
    blocks = [item("A", depth, quote=depth) for depth in range(1, 60)]
    written = markdown(*blocks)
    assert written.count("A") == 59 and max(map(len, written.split("\n"))) < 60


def test_a_heading_can_begin_an_item():
    blocks = [item("Head", kind=3), item("text", ordinal=-1)]
    assert both(*blocks) == ("Head\n\ntext", "- ### Head\n\n  text")


# --- Quotations ---


def test_quotations():
    blocks = [block("a"), block("b", quote=1), block("c\nd", quote=1), block("e", quote=2), block("f")]
    assert text(*blocks) == "a\n\nb\n\nc\nd\n\ne\n\nf"
    assert markdown(*blocks) == "a\n\n> b\n>\n> c\n> d\n>\n> > e\n\nf"


def test_lists_in_quotations_and_quotations_in_items():
    assert markdown(item("A", quote=1), item("B", quote=1), block("out")) == "> - A\n> - B\n\nout"
    blocks = [item("A"), item("quoted", ordinal=-1, quote=1), item("B")]
    assert markdown(*blocks) == "- A\n\n  > quoted\n\n- B"


def test_code_in_a_quotation_has_its_empty_lines_quoted():
    assert markdown(block("a\n\nb", CODE, quote=1)) == "> ```\n> a\n>\n> b\n> ```"


# --- Definitions ---


def test_definitions():
    parents = ((0, "dl"), (1, "dt"), (1, "dd"), (1, "dd"))
    blocks = [
        block("T", TERM, element=2),
        block("D", DEFINITION, element=3),
        block("E", DEFINITION, element=4),
        block("U", TERM),
    ]
    assert both(*blocks, parents=parents) == ("T\nD\nE\nU", "T\n: D\n: E\n\nU")


def test_paragraphs_of_a_definition():
    parents = ((0, "dd"), (1, "p"), (1, "p"))
    blocks = [block("T", TERM), block("one", DEFINITION, element=2), block("two", DEFINITION, element=3), block("U", TERM)]
    assert both(*blocks, parents=parents) == ("T\none\n\ntwo\n\nU", "T\n: one\n\ntwo\n\nU")


def test_an_indented_line_is_no_definition():
    """Wikipedia's `:` and many other pages use dd alone for indentation."""
    assert both(block("a"), block("b", DEFINITION), block("c")) == ("a\n\nb\n\nc",) * 2


# --- Tables ---


def table(*rows: str, number: int = 0) -> list[dict]:
    return [
        cell(value, r, c, HEADER if r == 0 else DATA, number)
        for r, row in enumerate(rows)
        for c, value in enumerate(row.split(","))
        if value
    ]


def test_table():
    blocks = [block("Before"), *table("Name,Size", "a,1", "b,2"), block("After")]
    assert text(*blocks) == "Before\n\nName\tSize\na\t1\nb\t2\n\nAfter"
    assert markdown(*blocks) == "Before\n\n| Name | Size |\n| --- | --- |\n| a | 1 |\n| b | 2 |\n\nAfter"


def test_places_of_empty_cells():
    assert both(*table(",A,B", "x,1,", "y,,2")) == (
        "\tA\tB\nx\t1\ny\t\t2",
        "|  | A | B |\n| --- | --- | --- |\n| x | 1 |  |\n| y |  | 2 |",
    )


def test_a_column_that_is_gone_leaves_no_place():
    assert text(*table("A,B,C", "1,2,3"), gone=(1, 4)) == "A\tC\n1\t3"


def test_a_row_that_is_gone():
    assert markdown(*table("A,B", "1,2", "3,4"), gone=(0, 1)) == "| 1 | 2 |\n| --- | --- |\n| 3 | 4 |"


def test_columns_that_reach_over_several():
    blocks = [cell("A", 0, 0, HEADER), cell("wide", 0, 1, HEADER), cell("a", 1, 0), cell("b", 1, 1), cell("c", 1, 2)]
    assert both(*blocks) == ("A\twide\na\tb\tc", "| A | wide |  |\n| --- | --- | --- |\n| a | b | c |")


def test_several_blocks_and_lines_in_a_cell():
    blocks = [cell("a\nb\tc", 0, 0), cell("d", 0, 0), cell("e|f", 0, 1)]
    assert both(*blocks) == ("a b c d\te|f", "| a b c d | e\\|f |\n| --- | --- |")


def test_two_tables_and_a_caption():
    blocks = [block("Caption", CAPTION, table=0), *table("A,B", "1,2"), *table("C,D", number=1)]
    assert text(*blocks) == "Caption\n\nA\tB\n1\t2\n\nC\tD"


def test_one_cell_is_a_paragraph():
    assert both(cell("alone", 3, 2), block("x")) == ("alone\n\nx",) * 2
    assert both(cell("alone", 3, 2), cell("but long", 3, 2)) == ("alone\n\nbut long",) * 2


def test_cells_of_which_none_stand_side_by_side():
    assert both(cell("Functions", 0, 0), cell("f(x)", 1, 2), cell("more", 1, 2)) == ("Functions\n\nf(x)\n\nmore",) * 2


def test_code_of_several_lines_in_a_table_keeps_them():
    blocks = [cell("name", 0, 0), cell("a\n  b", 0, 1, CODE)]
    assert both(*blocks) == ("name\n\na\n  b", "name\n\n```\na\n  b\n```")
    assert text(cell("name", 0, 0), cell("a", 0, 1, CODE)) == "name\ta"


def test_a_table_in_an_item():
    blocks = [item("A"), *(b | {"list": 1} for b in table("x,y")), item("B")]
    assert markdown(*blocks) == "- A\n\n  | x | y |\n  | --- | --- |\n\n- B"


def test_a_sparse_table_is_not_filled_up():
    """A page of 50 MB with a cell in another column in each row would be quadratic."""
    blocks = [cell("v", k, 7 * k + n) for k in range(1500) for n in (0, 1)]
    assert text(*blocks) == "\n".join(["v\tv"] * 1500)
    assert len(markdown(*blocks)) < 40_000


# --- Code ---


def test_code_keeps_lines_and_indentation():
    code = "\tdef f():\n\n\n        return 1   # x  y"
    assert both(block("a"), block(code, CODE), block("b")) == (f"a\n\n{code}\n\nb", f"a\n\n```\n{code}\n```\n\nb")


@pytest.mark.parametrize(("run", "fence"), [("`", "```"), ("```", "````"), ("`````", "``````")])
def test_fences_are_longer_than_what_is_inside(run, fence):
    assert markdown(block(f"a\n{run}b", CODE)) == f"{fence}\na\n{run}b\n{fence}"


@pytest.mark.parametrize(
    ("marked", "plain", "written"),
    [
        ("use \x03len(x)\x04 here", "use len(x) here", "use `len(x)` here"),
        ("\x03a`b\x04", "a`b", "``a`b``"),
        ("\x03`a`\x04.", "`a`.", "`` `a` ``."),
        ("\x03a\x04\x03b\x04", "ab", "`ab`"),
        ("x\x03\x04y", "xy", "xy"),
        ("\x03open", "open", "open"),
    ],
)
def test_inline_code(marked, plain, written):
    assert both(block(marked)) == (plain, written)


def test_inline_code_of_several_lines_is_a_listing():
    assert both(block("\x03if x:\n    y\x04")) == ("if x:\n    y", "```\nif x:\n    y\n```")
    assert markdown(block("  \x03a\n b\x04")) == "```\n  a\n b\n```"
    assert markdown(block("\x03a\x04 and\n\x03b\x04")) == "`a` and\n`b`"


def test_inline_code_in_headings_and_cells():
    assert markdown(block("The \x03x\x04", 2)) == "## The `x`"
    assert markdown(cell("\x03a|b\x04", 0, 0), cell("c", 0, 1)) == "| `a\\|b` | c |\n| --- | --- |"


# --- Formulas ---

SQUARE = "<math><msup><mi>x</mi><mn>2</mn></msup></math>"
DISPLAY = '<math display="block"><mi>y</mi></math>'
NONE = "<math></math>"


def test_formulas():
    blocks = [block("where \x050\x06, so"), block("\x051\x06"), block("(\x050\x06)")]
    assert both(*blocks, formulas=(SQUARE, DISPLAY)) == ("where $x^2$, so\n\n$$y$$\n\n($x^2$)",) * 2


def test_empty_formulas_leave_no_gap():
    blocks = [block("a \x050\x06 b \x050\x06."), block("\x050\x06"), block("c\n\x050\x06\nd"), block("e \x059\x06")]
    assert both(*blocks, formulas=(NONE,)) == ("a b.\n\nc\nd\n\ne",) * 2


def test_formulas_in_tables_and_items():
    blocks = [item("\x050\x06"), *table("\x050\x06,b")]
    assert both(*blocks, formulas=(SQUARE,)) == ("$x^2$\n\n$x^2$\tb", "- $x^2$\n\n| $x^2$ | b |\n| --- | --- |")


# --- Anything ---

_TEXTS = st.text(alphabet="ab é|`\x03\x04", min_size=1, max_size=12).map(str.strip).filter(lambda text: text.strip("\x03\x04 "))
_BLOCKS = st.lists(
    st.one_of(
        st.builds(block, _TEXTS, st.sampled_from([0, 1, 6, TERM, DEFINITION, CAPTION]), quote=st.integers(0, 2)),
        st.builds(item, _TEXTS, st.integers(0, 3), st.integers(-1, 3), quote=st.integers(0, 2)),
        st.builds(cell, _TEXTS, st.integers(0, 2), st.integers(0, 3), st.sampled_from([DATA, HEADER]), st.integers(0, 1)),
        st.builds(block, st.sampled_from(["x\n  y", "a"]), st.just(CODE), list=st.integers(0, 2)),
    ),
    max_size=12,
)


@given(_BLOCKS, st.data())
def test_whatever_comes(blocks, data):
    keep = np.array([data.draw(st.booleans()) for _ in blocks], bool)
    built = page(*blocks)
    for format in ("text", "markdown"):
        written = render(built, keep, format)
        assert not written.startswith("\n") and not written.endswith("\n")
        assert "\n\n\n" not in written
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", written)
        # every kept word is there, in order within its block, and nothing else is
        kept = "".join(b["text"] for b, k in zip(blocks, keep, strict=True) if k)
        if format == "text":
            assert sorted(re.sub(r"\s", "", written)) == sorted(re.sub(r"[\s\x03\x04]", "", kept))
        else:
            for letter in "abéxy":
                assert written.count(letter) == kept.count(letter)


@given(_BLOCKS)
def test_the_text_of_some_blocks_is_that_of_a_page_without_the_others(blocks):
    keep = np.arange(len(blocks)) % 3 != 1
    left = [b for b, k in zip(blocks, keep, strict=True) if k]
    assert render(page(*blocks), keep, "text") == text(*left)
