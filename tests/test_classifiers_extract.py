"""How the extraction model is trained: labels, folds, and that the card quotes what was measured."""

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[1] / "classifiers" / "extract"


def load(name):
    """A module of the recipe, which is no package."""
    key = f"classifiers_extract_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, FOLDER / f"{name}.py")
        sys.modules[key] = module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(FOLDER))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(FOLDER))
    return sys.modules[key]


label = load("label")


# ------------------------------------------------------------------------------------------------------------ labels


def shares(blocks, gold):
    return label.labels(blocks, gold)[0].tolist()


def test_blocks_of_the_reference_are_found_between_those_that_are_not():
    blocks = ["Home", "About us", "How to bake bread", "Take flour, water and salt.", "Share this", "Bake it for an hour."]
    share, words = label.labels(blocks, "How to bake bread\n\nTake flour, water and salt.\n\nBake it for an hour.")
    assert share.tolist() == [0, 0, 1, 1, 0, 1]
    assert words.tolist() == [1, 2, 4, 5, 2, 5]
    assert share.dtype == np.float32 and words.dtype == np.int32


def test_a_menu_does_not_match_words_that_the_reference_has_elsewhere():
    menu = ["Home", "Contact us", "Water", "Salt", "Bread"]
    gold = "Bread is made of water and salt. Please contact us if yours is not. Then go home."
    assert shares([*menu, "Bread is made of water and salt.", "Please contact us if yours is not.", "Then go home."], gold) == [
        *[0] * len(menu), 1, 1, 1,
    ]  # fmt: skip


def test_a_heading_of_one_word_is_found_where_the_page_has_something_between_it_and_its_text():
    blocks = ["The first part ends here.", "Share", "Overview", "edit", "The second part begins with this."]
    gold = "The first part ends here. Overview The second part begins with this."
    assert shares(blocks, gold) == [1, 0, 1, 0, 1]


def test_a_block_that_the_reference_quotes_in_part_has_that_share():
    assert shares(["one two three four five six seven eight"], "one two three four") == [0.5]


def test_text_that_stands_in_another_order_is_found_again():
    blocks = ["Posted by Ann on Monday morning", "A long title of the page", "The text itself is here and it is long enough."]
    gold = "A long title of the page. The text itself is here and it is long enough. Posted by Ann on Monday morning"
    assert shares(blocks, gold) == [1, 1, 1]


def test_one_copy_of_a_text_that_the_page_has_twice_is_labelled():
    text = "This very sentence stands on the page for telephones and for the rest."
    assert sorted(shares([text, "menu", text], text)) == [0, 0, 1]


def test_characters_of_chinese_are_words():
    share, words = label.labels(["首页 新闻", "今天天气很好，我们去公园。"], "今天天气很好，我们去公园。")
    assert share.tolist() == [0, 1] and words.tolist() == [4, 11]


def test_blocks_without_words_have_no_share():
    share, words = label.labels(["|", "", "some words in here"], "some words in here")
    assert share.tolist() == [0, 0, 1] and words.tolist() == [0, 0, 4]
    share, words = label.labels([], "some words")
    assert share.shape == words.shape == (0,)


def align(page, gold, rows):
    """The pairs that `_best` finds in two lists of numbers that have no word left out."""
    follows = [np.arange(len(x)) > 0 for x in (page, gold)]
    i, j = label._best(np.array(page, np.int32), np.array(gold, np.int32), *follows, rows)
    return list(zip(i.tolist(), j.tolist(), strict=True))


def worth(pairs):
    """What an alignment brings, by the definition of the costs."""
    total = 0
    for k, (i, j) in enumerate(pairs):
        total += label.MATCH
        before = pairs[k - 1] if k else (-2, -2)
        near_page, near_gold = i - before[0] == 1, j - before[1] == 1
        if not (near_page and near_gold):
            total -= label.SKIP_PAGE if near_gold else label.SKIP_GOLD if near_page else label.JUMP
    return total


def best_worth(page, gold):
    """The most that any alignment brings: each pair after every pair that can come before it."""
    found = {}
    for i, word in enumerate(page):
        for j, other in enumerate(gold):
            if word == other:
                before = [found[p] + worth([p, (i, j)]) - worth([p]) for p in found if p[0] < i and p[1] < j]
                found[i, j] = max([worth([(i, j)]), *before])
    return max([0, *found.values()])


WORDS = st.lists(st.integers(0, 4), max_size=12)


@given(WORDS, WORDS, st.integers(1, 13))
def test_no_alignment_is_worth_more(page, gold, rows):
    if not page or not gold:
        return
    pairs = align(page, gold, rows)
    assert all(page[i] == gold[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    assert worth(pairs) == best_worth(page, gold)


@given(WORDS, WORDS)
def test_bands_give_the_same_alignment(page, gold):
    if page and gold:
        assert len({tuple(align(page, gold, rows)) for rows in (1, 2, 5, 100)}) == 1
