"""What belongs together is kept together: code and formulas inside a text, headings, terms and definitions, cells of a table.

The model judges a block by its words, and some have none that say anything: a formula on a line of its own, five lines of code,
the name of a function above what it does. Where the text around them is kept, so are they. What buttons say ("Copy", "Reply")
goes; a button of more words may be a question that opens its answer.

On the gold pages of the shared crawl, with models that have not seen them, this moves the word-level F1 of documentation from
0.946 to 0.949 and that of other types by at most 0.002; it is there for what words do not measure. Source: own.
"""

from __future__ import annotations

import numpy as np

from curate.extract.page import Page
from curate.kernels import html as kernel
from curate.kernels.html import CODE, DEFINITION, TERM

LABEL_WORDS = 3  # of a button that goes
LIST_TERMS, LIST_SHARE = 2, 0.35  # terms of a list that counts; bytes of such lists: where more of them is kept, all of it is
TABLE_SHARE = 0.85  # of the bytes of a data table: where more of it is kept, all of it is


def complete(page: Page, keep: np.ndarray) -> np.ndarray:
    """The kept blocks, and those without which they would be in pieces, but no labels of buttons: bool [blocks].

    Args:
        page: the page.
        keep: bool [blocks], what the model keeps.
    """
    if not keep.any():
        return keep
    blocks = page.blocks
    labels = (blocks[:, kernel.BUTTON_BYTES] > 0) & (blocks[:, kernel.WORDS] <= LABEL_WORDS)
    labels &= blocks[:, kernel.BUTTON_BYTES] >= blocks[:, kernel.END] - blocks[:, kernel.START]
    return (keep if keep.all() else _completed(page, keep)) & ~labels


def _completed(page: Page, keep: np.ndarray) -> np.ndarray:
    """The kept blocks and what belongs to them (bool)."""
    blocks = page.blocks
    kinds = blocks[:, kernel.KIND]
    found = keep.copy()
    wordless = _wordless(page)
    if (wordless & ~keep).any():
        found |= wordless & _between(keep, ~wordless)
    headings = (kinds >= 1) & (kinds <= 6)
    found[1:-1] |= headings[1:-1] & keep[:-2] & keep[2:]
    if (kinds == TERM).any():
        _with_like_lists(page, found)
        _with_definitions(kinds.tolist(), found)
    if blocks[:, kernel.TABLE].max() >= 0:
        found |= _mostly_kept(blocks, keep)
    return found


def _wordless(page: Page) -> np.ndarray:
    """Blocks of code, and formulas with no words beside them (bool)."""
    blocks = page.blocks
    text = np.frombuffer(page.text, np.uint8)
    edges = (text[blocks[:, kernel.START]] == kernel.SPAN_OPEN) | (text[blocks[:, kernel.END] - 1] == kernel.SPAN_CLOSE)
    return (blocks[:, kernel.KIND] == CODE) | (edges & (blocks[:, kernel.LETTERS] == 0))


def _between(keep: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Blocks of which the nearest ones that have words or are kept, before and after, are both kept (bool)."""
    n = len(keep)
    at = np.arange(n)
    told = keep | words
    before = np.maximum.accumulate(np.where(told, at, -1))
    after = np.minimum.accumulate(np.where(told, at, n)[::-1])[::-1]
    padded = np.append(keep, False)  # for -1 and n: there is none
    return padded[before] & padded[after]


def _with_like_lists(page: Page, found: np.ndarray) -> None:
    """Lists of terms and definitions, such as the parts of an interface: where much of them is kept, all are. In place."""
    blocks = page.blocks
    inside = np.isin(blocks[:, kernel.KIND], (TERM, DEFINITION, CODE))
    size = np.where(inside, blocks[:, kernel.END] - blocks[:, kernel.START], 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    alike = np.zeros(len(found), bool)
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        run = slice(start, end)
        terms = int((blocks[run, kernel.KIND] == TERM).sum())
        if terms >= LIST_TERMS and 3 * blocks[run, kernel.LINK_BYTES].sum() < size[run].sum():
            alike[run] = True
    if size[alike & found].sum() >= LIST_SHARE * size[alike].sum():
        found |= alike


def _with_definitions(kinds: list[int], found: np.ndarray) -> None:
    """A term is kept with the first kept block of its definition, and a definition with its term. In place."""
    kept = False
    for k in range(len(kinds) - 1, -1, -1):
        if kinds[k] == TERM:
            found[k] |= kept
        else:
            kept = kinds[k] == DEFINITION and bool(found[k])
    for k, kind in enumerate(kinds):
        if kind == TERM:
            kept = bool(found[k])
        elif kind == DEFINITION:
            found[k] |= kept
        else:
            kept = False


def _mostly_kept(blocks: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Blocks of data tables that are kept but for a few cells (bool)."""
    tables = blocks[:, kernel.TABLE]
    size = (blocks[:, kernel.END] - blocks[:, kernel.START]).astype(np.float64)
    inside = tables >= 0
    whole = np.bincount(tables[inside], size[inside])
    kept = np.bincount(tables[inside & keep], size[inside & keep], minlength=len(whole))
    return inside & (kept > TABLE_SHARE * whole)[np.maximum(tables, 0)]
