"""Features of blocks, beside a plain reckoning from the tree."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from curate.extract.page import Page, scan_page
from curate.kernels import html as c
from curate.kernels.blocks import FEATURES, LEVELS, F, element_weights, name_lists

SIZE = 1 << 8
WEIGHTS = np.random.default_rng(1).normal(size=(2, SIZE)).astype(np.float32)


def scanned(html: str) -> Page:
    return scan_page(HTMLTree.parse_from_bytes(html.encode(), "utf-8").document.html.encode())


tags = st.sampled_from("div p ul li table tr td h2 article nav section main span a b pre".split())
names = st.sampled_from(["", " class=one", " class='two one'", " id=mainText", " role=main"])
text = st.sampled_from(["a word. ", "the cat and the dog, and so on to the end of the day. ", "Home ", "", "x, y: z! "])
pieces = st.one_of(text, st.builds("<{}{}>".format, tags, names), st.builds("</{}>".format, tags))


class Plain:
    """The same facts, from lists of dictionaries."""

    def __init__(self, page: Page):
        self.page = page
        self.blocks = page.blocks.tolist()
        self.elements = page.elements.tolist()
        self.names = page.names.tolist()
        self.first_words = page.first_words.tolist()
        self.n = len(self.blocks)

    def around(self, block: int) -> list[int]:
        """The elements around a block, the innermost first."""
        found, e = [], self.blocks[block][c.ELEMENT]
        while e >= 0:
            found.append(e)
            e = self.elements[e][c.PARENT]
        return found

    def inside(self, element: int) -> range:
        return range(self.elements[element][c.FIRST], self.elements[element][c.LAST])

    def link_share(self, block: int) -> float:
        row = self.blocks[block]
        return min(1.0, row[c.LINK_BYTES] / (row[c.END] - row[c.START]))

    def words(self, blocks) -> int:
        return sum(self.blocks[k][c.WORDS] for k in blocks)

    def linked_words(self, blocks) -> float:
        return sum(self.blocks[k][c.WORDS] * self.link_share(k) for k in blocks)

    def stops(self, blocks) -> int:
        return sum(self.blocks[k][c.STOPS] for k in blocks)

    def good(self, blocks) -> float:
        """Words outside of links, in blocks that read like prose."""
        total = 0.0
        for k in blocks:
            row = self.blocks[k]
            if row[c.PUNCT] and row[c.WORDS] >= 8 and row[c.STOPS] * 12 >= row[c.WORDS]:
                total += row[c.WORDS] * (1 - self.link_share(k))
        return total

    def text(self, block: int) -> bytes:
        return self.page.text[self.blocks[block][c.START] : self.blocks[block][c.END]].lower()

    def siblings(self, element: int) -> int:
        alike = [c.PARENT, c.SIGNATURE]
        return sum(all(other[q] == self.elements[element][q] for q in alike) for other in self.elements)

    def weight(self, element: int) -> float:
        row = self.elements[element]
        return sum(float(WEIGHTS[0][self.names[k] % SIZE]) for k in range(row[c.NAMES_FROM], row[c.NAMES_TO]))

    def chain(self) -> list[int]:
        """Elements that hold more than 0.55 of the good text of the one around them, from the document inwards."""
        measure = self.good if self.good(range(self.n)) >= 30 else self.words
        heavy = [0]
        for e in range(1, len(self.elements)):
            parent = self.elements[e][c.PARENT]
            if parent in heavy and measure(self.inside(e)) > 0.55 * measure(self.inside(parent)):
                heavy.append(e)
        return heavy

    def levels(self, block: int) -> dict[str, float]:
        found, level, size, most = {}, 0, 0, 0
        for e in self.around(block):
            most = max(most, self.siblings(e))
            blocks = self.inside(e)
            if level < LEVELS and (len(blocks) > size or self.elements[e][c.PARENT] < 0):
                size = len(blocks)
                words = self.words(blocks)
                share = words / max(1, self.words(range(self.n)))
                linked, stops = (measure(blocks) / max(1, words) for measure in (self.linked_words, self.stops))
                values = (math.log1p(words), linked, math.log1p(words / size), share, stops, math.log1p(most))
                keys = ("words", "link_share", "block_words", "page_share", "stop_share", "siblings")
                found |= {f"{key}_level_{level}": value for key, value in zip(keys, values, strict=True)}
                last, level, most = values, level + 1, 0
        for rest in range(level, LEVELS):
            found |= {f"{key}_level_{rest}": value for key, value in zip(keys, last, strict=True)}
        return found

    def features(self, block: int) -> dict[str, float]:
        row, around, everything = self.blocks[block], self.around(block), range(self.n)
        words = row[c.WORDS]
        heavy = self.chain()
        measure = self.good if self.good(everything) >= 30 else self.words
        leaves = next(e for e in around if e in heavy)
        share = {e: measure(self.inside(e)) / max(1.0, measure(everything)) if e else 1.0 for e in heavy}
        own = [self.weight(e) for e in around]
        first = self.first_words[block][: min(words, c.FIRST_WORDS)]
        found = {
            "words": math.log1p(words),
            "link_share": self.link_share(block),
            "item": row[c.KIND] == c.ITEM,
            "heading": row[c.KIND] if 1 <= row[c.KIND] <= 6 else 0,
            "stop_share": row[c.STOPS] / max(1, words),
            "place": block / self.n,
            "words_before": self.words(range(block)) / max(1, self.words(everything)),
            "words_after": math.log1p(self.words(range(block + 1, self.n))),
            "depth": self.elements[around[0]][c.DEPTH],
            "good_around": math.log1p(self.good(range(max(0, block - 5), min(self.n, block + 6)))),
            "main_share": share[leaves],
            "main_distance": self.elements[heavy[-1]][c.DEPTH] - self.elements[leaves][c.DEPTH],
            "main_level_share": share[leaves] - share[heavy[-1]],
            "names_own": own[0],
            "names_all": sum(own),
            "names_least": min(0.0, *own),
            "names_most": max(0.0, *own),
            "names_near": sum(own[:3]),
            "text": sum(float(WEIGHTS[1][h % SIZE]) for h in first),
            "same_text": math.log1p(sum(self.text(k) == self.text(block) for k in everything) - 1),
            "page_words": math.log1p(self.words(everything)),
            "page_blocks": math.log1p(self.n),
            "page_link_share": self.linked_words(everything) / max(1, self.words(everything)),
            "page_good_share": self.good(everything) / max(1, self.words(everything)),
            "page_headings": math.log1p(sum(1 <= b[c.KIND] <= 6 for b in self.blocks)),
            "page_item_share": self.words(k for k in everything if self.blocks[k][c.KIND] == c.ITEM)
            / max(1, self.words(everything)),
        }
        for region in ("article", "main", "nav", "section", "table"):
            found[f"in_{region}"] = any(self.elements[e][c.TAG] == c.T[region] for e in around)
        for d in (-3, -2, -1, 1, 2, 3):
            there = 0 <= block + d < self.n
            found[f"words_{d:+d}"] = math.log1p(self.blocks[block + d][c.WORDS]) if there else -1
            found[f"link_share_{d:+d}"] = self.link_share(block + d) if there else -1
        return found | self.levels(block)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, max_size=30))
def test_features_are_those_of_a_plain_reckoning(parts):
    page = scanned("<title>the cat</title><body>" + "".join(parts))
    plain = Plain(page)
    x = page.features(*WEIGHTS)
    assert x.shape == (plain.n, len(FEATURES)) and x.dtype == np.float32
    assert np.isfinite(x).all()
    for k in range(plain.n):
        for name, value in plain.features(k).items():
            assert math.isclose(x[k, F[name]], value, rel_tol=1e-4, abs_tol=1e-4), (name, k)


def test_names_of_features_are_distinct():
    assert len(set(FEATURES)) == len(FEATURES)


@settings(max_examples=60, deadline=None)
@given(st.lists(pieces, max_size=30))
def test_lists_of_names(parts):
    page = scanned("<body>" + "".join(parts))
    plain = Plain(page)
    offsets, found = name_lists(page.blocks, page.elements, page.names)
    for k in range(plain.n):
        expected: list[int] = []
        for e in plain.around(k):
            row = plain.elements[e]
            expected += [h for h in plain.names[row[c.NAMES_FROM] : row[c.NAMES_TO]] if h not in expected]
        listed = found[offsets[k] : offsets[k + 1]].tolist()
        assert len(listed) == len(set(listed)) and set(listed) == set(expected)
    weights = element_weights(page.elements, page.names, WEIGHTS[0])
    for e in range(len(plain.elements)):
        assert math.isclose(weights[e, 0], plain.weight(e), abs_tol=1e-4)


def test_title_and_headings():
    page = scanned(
        "<title>Cats of Rome</title><body><p>Home<h1>Cats of Rome</h1><p>There are cats.<h2>Food</h2><p>Cats eat mice.</body>"
    )
    x = page.features(*WEIGHTS)
    assert x[:, F["title_share"]].tolist()[:2] == [0, 1]
    assert x[:, F["after_title"]].tolist() == [-1, 0, 1, 1, 1]
    assert np.allclose(x[:, F["from_title"]], np.log1p([1, 0, 1, 2, 3]))
    assert x[:, F["heading_before"]].tolist() == [0, 0, 1, 1, 2]
