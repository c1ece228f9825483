"""What is kept with the blocks that the model keeps."""

from __future__ import annotations

import numpy as np
import pytest
from blocks import block, cell, item, page
from hypothesis import given
from hypothesis import strategies as st

from curate.extract.page.whole import complete
from curate.kernels import html as kernel
from curate.kernels.html import CAPTION, CODE, DEFINITION, PARAGRAPH, TERM


def kept(marked: str, *blocks: dict) -> str:
    """`+` and `-` for each block, before and after."""
    built = page(*blocks)
    for row, given_block in zip(built.blocks, blocks, strict=True):
        row[kernel.LETTERS] = sum(c.isalpha() for c in given_block["text"])
    found = complete(built, np.array([c == "+" for c in marked], bool))
    return "".join("+" if k else "-" for k in found.tolist())


P, C, F = block("Words."), block("x = 1", CODE), block("\x053\x06,")


@pytest.mark.parametrize(
    ("before", "blocks", "after"),
    [
        ("+-+", (P, C, P), "+++"),
        ("+-+", (P, F, P), "+++"),
        ("+--+", (P, C, F, P), "++++"),
        ("+--", (P, C, P), "+--"),
        ("--+", (P, F, P), "--+"),
        ("+-", (P, C), "+-"),
        ("-+", (C, P), "-+"),
        ("+-+", (P, P, P), "+-+"),
        ("+--+", (P, C, P, P), "+--+"),
        ("++-+", (P, C, C, P), "++++"),
        ("+-+", (P, block("where \x053\x06"), P), "+-+"),
        ("+-+", (P, block("(2) \x053\x06"), P), "+++"),
    ],
)
def test_code_and_formulas_between_kept_blocks(before, blocks, after):
    assert kept(before, *blocks) == after


def test_headings_between_kept_blocks():
    assert kept("+-+", P, block("Next", 2), P) == "+++"
    assert kept("+--+", P, block("Next", 2), block("More", 3), P) == "+--+"
    assert kept("-+", block("Title", 1), P) == "-+"
    assert kept("+-", P, block("Related", 2)) == "+-"
    assert kept("+-+", P, block("Figure 1", CAPTION), P) == "+-+"


def test_terms_and_definitions():
    term, definition = block("name", TERM), block("what it is", DEFINITION)
    assert kept("-+", term, definition) == "++"
    assert kept("--+", term, term, definition) == "+++"
    assert kept("+-", term, definition) == "++"
    assert kept("+--", term, definition, definition) == "+++"
    assert kept("-+-+", term, definition, term, definition) == "++++"
    assert kept("+-+--", term, P, P, definition, term) == "+-+--"
    assert kept("--+", term, P, definition) == "--+"


def test_tables_that_are_kept_but_for_a_few_cells():
    cells = [cell("0123456789", k // 4, k % 4) for k in range(12)]
    assert kept("-+++++++++++", *cells) == "+" * 12
    assert kept("--++++++++++", *cells) == "--++++++++++"
    assert kept("+-----------", *cells) == "+-----------"
    other = [cell("0123456789", 0, k, table=1) for k in range(4)]
    assert kept("-+++++++++++" + "---+", *cells, *other) == "+" * 12 + "---+"
    assert kept("-+++++++++++" + "-", *cells, P) == "+" * 12 + "-"


def test_labels_of_buttons_go():
    blocks = [P, block("Copy"), block("Why would I want this?"), block("Copy this")]
    built = page(*blocks)
    built.blocks[1:, kernel.BUTTON_BYTES] = (4, 22, 4)
    built.blocks[:, kernel.WORDS] = (1, 1, 5, 2)
    assert complete(built, np.ones(4, bool)).tolist() == [True, False, True, True]
    assert complete(built, np.array([True, True, False, False])).tolist() == [True, False, False, False]


def test_all_and_nothing_stay():
    assert kept("---", P, C, P) == "---"
    assert kept("+++", P, C, P) == "+++"
    assert len(complete(page(), np.zeros(0, bool))) == 0


_BLOCKS = st.lists(
    st.one_of(
        st.builds(block, st.sampled_from(["a", "\x050\x06", "b c"]), st.sampled_from([PARAGRAPH, 2, CODE, TERM, DEFINITION])),
        st.builds(cell, st.just("d"), st.integers(0, 2), st.integers(0, 3), table=st.integers(0, 2)),
        st.builds(item, st.just("e")),
    ),
    max_size=14,
)


@given(_BLOCKS, st.data())
def test_never_less_and_the_same_again_for_a_page_without_the_end(blocks, data):
    marked = "".join(data.draw(st.sampled_from("+-")) for _ in blocks)
    found = kept(marked, *blocks)
    assert all(b == "+" for a, b in zip(marked, found, strict=True) if a == "+")
    if not any(b.get("table", -1) >= 0 for b in blocks):
        # a page's first half does not depend on what follows a paragraph that is not kept
        assert kept(marked + "-", *blocks, P)[:-1] == kept(marked + "--", *blocks, P, P)[:-2]
