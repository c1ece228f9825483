"""Curate's own extractor: a parse by the rules of HTML5, one pass by a kernel, and a small model that judges each block.

The page is parsed by lexbor (through resiliparse) and written out again, so that the scan sees clean markup only. The scan cuts
the page into blocks of text with what is known of each; the model gives each the probability of being main content, from the
block, its neighbours and the elements around it; what is kept is written as text or Markdown with its structure: headings,
lists, tables, code, formulas. The features and how the model was trained: classifiers/extract/card.md; the figures beside other
extractors: docs/extraction.md.

A page's text never depends on other pages. Lines that repeat over the pages of a host are for `host_boilerplate`.

Source: own; text and link density per block as in Kohlschütter et al. 2010 (doi:10.1145/1718487.1718542), a decision smoothed
over neighbours as in Pomikálek 2011 (jusText) and Vogels et al. 2018 (Web2Text, doi:10.1007/978-3-319-76941-7_13).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

import numpy as np
from resiliparse.parse.html import HTMLTree

from curate.extract import COLUMNS as ALL_COLUMNS
from curate.extract import Extracted, Unextractable, check_size
from curate.extract.charset import to_utf8
from curate.storage import shipped

if TYPE_CHECKING:  # the kernels and the model are loaded with the first page, as a plan needs only the names below
    from curate.extract.page import Page
    from curate.extract.page.model import Model

KEEP = ("main", "all_text", "comments")
FORMATS = ("text", "markdown")
COLUMNS = tuple(ALL_COLUMNS.names)


def files() -> tuple[str, ...]:
    """What decides beside the code: the model that comes with Curate."""
    return (str(shipped("classifiers") / "extract" / "model.npz"),)


def extract(
    html: bytes,
    url: str | None,
    charset: str | None,
    *,
    keep: str = "main",
    format: Literal["text", "markdown"] = "text",
    model: Model | None = None,
) -> Extracted:
    """The text, the page type and the metadata of a page.

    Args:
        html: the page as served.
        url: where it was found; canonical and licence links are made absolute with it.
        charset: label of the HTTP header, or None.
        keep: `main`: main content, which on a forum or a page of answers is every post; `comments`: that and what readers
            wrote below it; `all_text`: all that a browser shows.
        format: `text` or `markdown`, see `curate.extract.page.render`.
        model: in place of the one that comes with Curate.

    Raises:
        Unextractable: the page cannot be decoded, or is too large or too deep to be parsed.
    """
    from curate.extract.page.metadata import metadata
    from curate.extract.page.model import Model
    from curate.extract.page.render import render

    page = parse(to_utf8(html, charset))
    model = model or Model.shipped()
    chosen, page_type = choose(page, model, keep)
    facts = metadata(facts_of(page), url, _headings(page))
    return Extracted(
        text=render(page, chosen, format),
        title=facts.title,
        language=facts.language,
        page_type=page_type,
        author=facts.author,
        published=facts.published,
        canonical_url=facts.canonical_url,
        licence_links=facts.licence_links,
    )


def parse(utf8: bytes) -> Page:
    """The blocks of a page in UTF-8. Raises Unextractable."""
    page = _parse(utf8)
    if not len(page.blocks) and (start := page.html.find(b"<noframes>")) >= 0:
        # a page of frames says here what it has to say
        end = page.html.find(b"</noframes>", start)
        return _parse(page.html[start + 10 : end if end > 0 else len(page.html)])
    return page


def _parse(utf8: bytes) -> Page:
    from curate.extract.page import scan_page, thin_page

    utf8 = thin_page(utf8)
    check_size(utf8)
    try:
        document = HTMLTree.parse_from_bytes(utf8, "utf-8").document
        return scan_page((document.html if document else "").encode())
    except MemoryError:
        raise
    except Exception as error:
        raise Unextractable(f"extract.{type(error).__name__}", str(error)[:200]) from error


def choose(page: Page, model: Model, keep: str) -> tuple[np.ndarray, str | None]:
    """Which blocks are kept (bool [blocks]), and the page type; None for a page without text."""
    from curate.extract.page.whole import complete
    from curate.kernels import html as columns

    blocks = page.blocks
    if not len(blocks):
        return np.zeros(0, bool), None
    main, page_type = model.judge(page)
    main = complete(page, main)
    if keep == "main":
        return main, page_type
    shown = blocks[:, columns.BITS] & columns.IN_HIDDEN == 0
    if keep == "all_text":
        return shown, page_type
    return main | (shown & _comments(page)), page_type


def _comments(page: Page) -> np.ndarray:
    """Blocks of what readers wrote (bool): prose or at least words in an element that is named so."""
    from curate.kernels import html as columns

    elements, names = page.elements, page.names
    named = np.isin(names, _comment_names())
    sums = np.concatenate([[0], np.cumsum(named)])
    hit = sums[elements[:, columns.NAMES_TO]] > sums[elements[:, columns.NAMES_FROM]]
    inside = np.zeros(len(page.blocks) + 1, np.int32)
    for first, last in elements[hit][:, [columns.FIRST, columns.LAST]].tolist():
        inside[first] += 1
        inside[last] -= 1
    b = page.blocks
    linked = 2 * b[:, columns.LINK_BYTES] > b[:, columns.END] - b[:, columns.START]
    enough = (b[:, columns.WORDS] >= 5) | (b[:, columns.PUNCT] > 0)
    no_form = b[:, columns.BITS] & (columns.IN_FORM | columns.IN_BUTTON) == 0
    return (np.cumsum(inside)[:-1] > 0) & ~linked & enough & no_form


def _headings(page: Page) -> list[str]:
    """The texts of the first headings of the first level, among which the title of the page is looked for."""
    from curate.kernels import html as columns

    blocks = page.blocks[page.blocks[:, columns.KIND] == 1][:8, [columns.START, columns.END]]
    return [page.text[start:end].decode(errors="ignore") for start, end in blocks.tolist()]


def facts_of(page: Page) -> list[str]:
    """The elements that may hold metadata, as markup, in document order."""
    from curate.kernels import html as columns

    spans = page.spans[page.spans[:, 0] == columns.SPAN_FACT]
    html = page.html
    return [html[start:end].decode(errors="ignore") for _, start, end in spans.tolist()]


@functools.lru_cache(maxsize=1)
def _comment_names() -> np.ndarray:
    from curate.kernels.tags import fnv

    return np.array([fnv(word) for word in "comment comments commentlist disqus replies reply respond".split()], np.int64)
