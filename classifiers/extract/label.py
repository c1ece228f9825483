"""Which blocks of a page belong to its reference text: the labels that the model learns from.

A reference gives the main text of a page, but not the places it was taken from. They are found by aligning the words of the
page with those of the reference, as a person would compare the two: in long runs, in the order of both. A run that begins
anew costs more than a word brings, so that "about" or "contact us" in a menu stays unmatched although the reference has these
words somewhere; while a word that continues the reference where the last run ended costs little, so that the heading of a
section is found behind a share button that the reference leaves out.

References differ from pages in their order as well (the title moved to the top, posts sorted anew). What is left on both
sides is therefore aligned again, and then only whole blocks count.

Source: local alignment with affine gaps after O. Gotoh, "An improved algorithm for matching biological sequences", Journal of
Molecular Biology 162 (1982), doi:10.1016/0022-2836(82)90398-9; the costs are our own.
"""

from __future__ import annotations

import re

import numba
import numpy as np

WORD = re.compile(r"\w+")
# Scripts written without spaces: each character is a word, or a sentence would match whole or not at all.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])\w)+")

MATCH = 2  # what a matched word brings
SKIP_PAGE = 1  # the reference goes on where the last run ended, further down the page
SKIP_GOLD = 1  # the page goes on, further down in the reference
JUMP = 4  # both begin anew
AGAIN = 0.8  # share of a block's words that must match when what is left is aligned once more
AGAIN_WORDS = 4
ROUNDS = 3
CELLS = 1 << 25  # bytes of directions held at a time


def pieces(text: str) -> list[str]:
    """The words that are aligned: lower case; each character of Chinese and Japanese is one."""
    return _PIECE.findall(text.lower())


def labels(blocks: list[str], gold: str) -> tuple[np.ndarray, np.ndarray]:
    """How much of each block belongs to the reference text.

    Args:
        blocks: the texts of a page's blocks, in document order.
        gold: the reference text of the page.

    Returns:
        float32 [blocks]: share of the block's words that were found in the reference, 0 to 1, 0 for a block without words.
        int32 [blocks]: the number of words.
    """
    numbers: dict[str, int] = {}
    found = [pieces(text) for text in blocks]
    words = np.array([len(f) for f in found], np.int32)
    page = np.array([numbers.setdefault(w, len(numbers)) for f in found for w in f], np.int32)
    reference = np.array([numbers.setdefault(w, len(numbers)) for w in pieces(gold)], np.int32)
    block = np.repeat(np.arange(len(blocks)), words)
    free_page, free_gold = np.ones(len(page), bool), np.ones(len(reference), bool)
    for k in range(ROUNDS):
        at, to = _align(page, reference, free_page, free_gold)
        if k:
            here = np.bincount(block[at], minlength=len(blocks))
            enough = (here >= AGAIN * words) & (words >= AGAIN_WORDS)
            keep = enough[block[at]]
            at, to = at[keep], to[keep]
        if not len(at):
            break
        free_page[at] = False
        free_gold[to] = False
    matched = np.bincount(block[~free_page], minlength=len(blocks))
    return (matched / np.maximum(words, 1)).astype(np.float32), words


def _align(
    page: np.ndarray, reference: np.ndarray, free_page: np.ndarray, free_gold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in page and reference, int64 each, of the words of the best alignment of what is free on both sides.

    A word that the other side does not have cannot match. It is left out of the table, and the places that remain know
    whether they are neighbours.
    """
    at = np.flatnonzero(free_page & np.isin(page, reference[free_gold]))
    to = np.flatnonzero(free_gold & np.isin(reference, page[at]))
    if not len(at) or not len(to):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = max(1, min(len(at), CELLS // len(to), max(64, int(np.sqrt(len(at))))) if len(at) * len(to) > CELLS else len(at))
    i, j = _best(page[at], reference[to], np.diff(at, prepend=-2) == 1, np.diff(to, prepend=-2) == 1, rows)
    return at[i], to[j]


# States of the last cell: a match; only page words skipped since; only reference words skipped; both.
_HERE, _PAGE, _GOLD, _BOTH = 0, 1, 2, 3
_LOW = -(1 << 29)


@numba.njit
def _row(word, follows_page, gold, follows_gold, above, below, steps):
    """One row of the table. above, below: int32 [4, len(gold) + 1]; steps: uint8 [len(gold) + 1], 2 bits a state."""
    below[0, 0] = _LOW
    below[1, 0] = _LOW
    below[2, 0] = _LOW
    below[3, 0] = 0
    steps[0] = 0
    for j in range(1, len(gold) + 1):
        step = 0
        # skipping a page word; `here` and `gold` states lose their contiguity in the page
        best, came = above[_PAGE, j], 1
        if above[_HERE, j] >= best:
            best, came = above[_HERE, j], 0
        below[_PAGE, j] = best
        step |= came << 2
        # skipping a reference word
        best, came = below[_GOLD, j - 1], 1
        if below[_HERE, j - 1] >= best:
            best, came = below[_HERE, j - 1], 0
        below[_GOLD, j] = best
        step |= came << 3
        # both: from above or from the left, whatever stood there
        best, came = above[_BOTH, j], 0
        if above[_GOLD, j] > best:
            best, came = above[_GOLD, j], 1
        if below[_BOTH, j - 1] > best:
            best, came = below[_BOTH, j - 1], 2
        if below[_PAGE, j - 1] > best:
            best, came = below[_PAGE, j - 1], 3
        below[_BOTH, j] = best
        step |= came << 4
        if gold[j - 1] == word:
            near_page, near_gold = follows_page, follows_gold[j - 1]
            # a neighbour that was left out of the table breaks the run on its side
            best, came = above[_BOTH, j - 1] - JUMP, _BOTH
            if near_gold:
                value = above[_PAGE, j - 1] - SKIP_PAGE
                if value >= best:
                    best, came = value, _PAGE
            if near_page:
                value = above[_GOLD, j - 1] - SKIP_GOLD
                if value >= best:
                    best, came = value, _GOLD
            value = above[_HERE, j - 1]
            if not (near_page and near_gold):
                value -= SKIP_PAGE if near_gold else (SKIP_GOLD if near_page else JUMP)
            if value >= best:
                best, came = value, _HERE
            value = above[_PAGE, j - 1] - JUMP
            if value > best:
                best, came = value, _PAGE
            value = above[_GOLD, j - 1] - JUMP
            if value > best:
                best, came = value, _GOLD
            below[_HERE, j] = best + MATCH
            step |= came
        else:
            below[_HERE, j] = _LOW
        steps[j] = step


@numba.njit
def _best(page, gold, follows_page, follows_gold, rows):
    """The matched pairs of the best path. rows: of the table whose directions are held at a time; before each such band one
    row of scores is kept, and the band is computed again on the way back."""
    n, m = len(page), len(gold)
    bands = (n + rows - 1) // rows
    kept = np.empty((bands, 4, m + 1), np.int32)
    above = np.full((4, m + 1), _LOW, np.int32)
    above[_BOTH] = 0
    below = np.empty((4, m + 1), np.int32)
    steps = np.zeros((rows + 1, m + 1), np.uint8)
    for i in range(n):
        if i % rows == 0:
            kept[i // rows] = above
        _row(page[i], follows_page[i], gold, follows_gold, above, below, steps[0])
        above, below = below, above
    state = 0
    for s in range(1, 4):
        if above[s, m] > above[state, m]:
            state = s
    at, to = np.empty(min(n, m), np.int64), np.empty(min(n, m), np.int64)
    count = 0
    j = m
    for band in range(bands - 1, -1, -1):
        first, last = band * rows, min(n, (band + 1) * rows)
        above[:] = kept[band]
        for i in range(first, last):
            _row(page[i], follows_page[i], gold, follows_gold, above, below, steps[i - first])
            above, below = below, above
        i = last
        while i > first and j > 0:
            step = steps[i - 1 - first, j]
            if state == _HERE:
                at[count], to[count] = i - 1, j - 1
                count += 1
                state = step & 3
                i -= 1
                j -= 1
            elif state == _PAGE:
                state = _PAGE if step >> 2 & 1 else _HERE
                i -= 1
            elif state == _GOLD:
                state = _GOLD if step >> 3 & 1 else _HERE
                j -= 1
            else:
                came = step >> 4 & 3
                if came == 0:
                    i -= 1
                elif came == 1:
                    state = _GOLD
                    i -= 1
                elif came == 2:
                    j -= 1
                else:
                    state = _PAGE
                    j -= 1
        if j == 0:
            break
    return at[:count][::-1].copy(), to[:count][::-1].copy()
