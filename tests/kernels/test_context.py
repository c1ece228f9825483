"""What scores say about each other, beside a plain reckoning."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from curate.extract.page import scan_page
from curate.kernels import html as c
from curate.kernels.context import CONTEXT, LEVELS, NEIGHBOURS, WINDOWS, best_cut, context

tags = st.sampled_from("div p ul li h2 article section span b".split())
text = st.sampled_from(["a word. ", "the cat and the dog, and so on to the end of the day. ", "Home ", "* "])
pieces = st.one_of(
    text, st.builds("<{}>".format, tags), st.builds("<{} class=one>".format, tags), st.builds("</{}>".format, tags)
)


def plain(blocks, elements, scores):
    """The rows of `context` as dictionaries."""
    n = len(blocks)
    share = [1 / (1 + math.exp(-s)) for s in scores]
    weight = [row[c.WORDS] + 0.5 for row in blocks]

    def mean(some):
        some = list(some)
        return sum(share[k] * weight[k] for k in some) / max(sum(weight[k] for k in some), 1e-3)

    def main(some):
        return sum(share[k] * weight[k] for k in some)

    def look(k):
        element = elements[blocks[k][c.ELEMENT]]
        return element[c.SIGNATURE], element[c.DEPTH]

    for k in range(n):
        alike = [i for i in range(n) if look(i) == look(k)]
        f = {
            "score": scores[k],
            **{f"score_{d:+d}": scores[k + d] if 0 <= k + d < n else -9 for d in NEIGHBOURS},
            **{f"mean_within_{r}": mean(range(max(0, k - r), min(n, k + r + 1))) for r in WINDOWS},
            "mean_before": mean(range(k)),
            "mean_after": mean(range(k + 1, n)),
            "page_mean": mean(range(n)),
            "page_main_words": math.log1p(main(range(n))),
            "mean_alike": mean(alike),
            "alike": math.log1p(len(alike)),
            "most_before": max(share[: k + 1]),
            "most_after": max(share[k:]),
        }
        levels = []
        at, span = blocks[k][c.ELEMENT], 1
        while at >= 0:
            inside = range(elements[at][c.FIRST], elements[at][c.LAST])
            if len(inside) > span or elements[at][c.PARENT] < 0:
                span = len(inside)
                levels.append((mean(inside), max(share[i] for i in inside), main(inside) / max(main(range(n)), 1e-3)))
            at = elements[at][c.PARENT]
        levels = (levels + levels[-1:] * LEVELS)[:LEVELS]
        for level, values in enumerate(levels):
            f |= {f"{name}_level_{level}": value for name, value in zip(("mean", "most", "share"), values, strict=True)}
        yield f


@given(st.lists(pieces, max_size=60), st.randoms(use_true_random=False))
def test_context_is_what_a_plain_reckoning_finds(parts, random):
    page = scan_page(HTMLTree.parse_from_bytes("".join(parts).encode() or b" ", "utf-8").document.html.encode())
    scores = np.array([random.uniform(-6, 6) for _ in page.blocks], np.float32)
    found = context(page.blocks, page.elements, scores)
    assert found.shape == (len(page.blocks), len(CONTEXT)) and found.dtype == np.float32
    for row, expected in zip(found, plain(page.blocks.tolist(), page.elements.tolist(), scores.tolist()), strict=True):
        assert list(expected) == list(CONTEXT)
        assert row.tolist() == pytest.approx(list(expected.values()), rel=1e-4, abs=1e-5)


def expected_f1(chosen: list[bool], probability: list[float], words: list[int]) -> Fraction:
    weighted = [(Fraction(p) * w, w) for p, w in zip(probability, words, strict=True)]
    matches = sum(m for (m, _), c in zip(weighted, chosen, strict=True) if c)
    sizes = sum(w for (_, w), c in zip(weighted, chosen, strict=True) if c) + sum(m for m, _ in weighted)
    return 2 * matches / sizes if sizes else Fraction(0)


@given(st.lists(st.tuples(st.floats(2**-7, 1, width=32), st.integers(1, 300)), min_size=1, max_size=9))
def test_no_choice_of_blocks_has_a_larger_expected_f1(blocks):
    probability, words = map(list, zip(*blocks, strict=True))
    found = best_cut(np.array(probability, np.float32), np.array(words, np.int32)).tolist()
    best = max(
        expected_f1([bool(bits >> k & 1) for k in range(len(words))], probability, words) for bits in range(1 << len(words))
    )
    assert any(found)
    assert float(expected_f1(found, probability, words)) == pytest.approx(float(best), rel=1e-6)


def test_a_page_without_blocks_is_not_cut():
    assert best_cut(np.empty(0, np.float32), np.empty(0, np.int32)).tolist() == []
