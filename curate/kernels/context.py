"""What the first scores of a page say about each block: those of its neighbours, of the elements around it, of its like.

A block is judged twice. At first by itself, its place and the elements around it; then with what the first judgement found
around it: a short line between two paragraphs is most likely text, the same line in the middle of a list of links is not.

Source: stacked sequential learning, Cohen and Carvalho, IJCAI 2005; after the smoothing of neighbouring decisions in
Kohlschütter et al. 2010 (doi:10.1145/1718487.1718542) and Pomikálek 2011 (jusText).
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.html import DEPTH, ELEMENT, FIRST, LAST, PARENT, SIGNATURE, WORDS

NEIGHBOURS = (-4, -3, -2, -1, 1, 2, 3, 4)
WINDOWS = (2, 5, 10, 25)  # blocks to either side
LEVELS = 4
CONTEXT = (
    "score",
    *(f"score_{d:+d}" for d in NEIGHBOURS),
    *(f"mean_within_{r}" for r in WINDOWS),
    "mean_before", "mean_after", "page_mean", "page_main_words",
    "mean_alike", "alike", "most_before", "most_after",
    *(f"{name}_level_{n}" for n in range(LEVELS) for name in ("mean", "most", "share")),
)  # fmt: skip
_OUTSIDE = -9.0  # the score of what lies before the first and after the last block


@numba.njit(cache=True, nogil=True)
def context(blocks, elements, scores):
    """float32 [blocks, len(CONTEXT)]; means are weighted by words.

    Args:
        blocks, elements: as `curate.kernels.html.scan` gives them.
        scores: float32 [blocks], log odds of being main content.
    """
    n = blocks.shape[0]
    x = np.empty((n, len(CONTEXT)), np.float32)
    if n == 0:
        return x
    share = np.empty(n, np.float64)
    weight = np.empty(n + 1, np.float64)  # of words, summed up
    main = np.empty(n + 1, np.float64)
    before = np.empty(n, np.float64)
    after = np.empty(n, np.float64)
    weight[0] = main[0] = 0
    for k in range(n):
        share[k] = 1 / (1 + np.exp(-np.float64(scores[k])))
        words = blocks[k, WORDS] + 0.5
        weight[k + 1] = weight[k] + words
        main[k + 1] = main[k] + words * share[k]
        before[k] = max(share[k], before[k - 1]) if k else share[k]
    for k in range(n - 1, -1, -1):
        after[k] = max(share[k], after[k + 1]) if k + 1 < n else share[k]
    peak = np.zeros(elements.shape[0], np.float64)
    for k in range(n):
        peak[blocks[k, ELEMENT]] = max(peak[blocks[k, ELEMENT]], share[k])
    for e in range(elements.shape[0] - 1, 0, -1):  # children follow their parents
        peak[elements[e, PARENT]] = max(peak[elements[e, PARENT]], peak[e])
    # blocks whose elements look the same and lie as deep
    size = 16
    while size < 2 * n:
        size *= 2
    slots = np.full(size, -1, np.int64)
    counts = np.zeros(size, np.int64)
    alike = np.zeros((size, 2), np.float64)
    where = np.empty(n, np.int64)
    for k in range(n):
        e = blocks[k, ELEMENT]
        signature, depth = np.int64(elements[e, SIGNATURE]), np.int64(elements[e, DEPTH])
        at = (signature * 31 + depth) & (size - 1)
        while slots[at] >= 0:
            other = blocks[slots[at], ELEMENT]
            if elements[other, SIGNATURE] == signature and elements[other, DEPTH] == depth:
                break
            at = (at + 1) & (size - 1)
        slots[at] = k
        counts[at] += 1
        alike[at, 0] += main[k + 1] - main[k]
        alike[at, 1] += weight[k + 1] - weight[k]
        where[k] = at
    for k in range(n):
        f = x[k]
        f[0] = scores[k]
        p = 1
        for d in NEIGHBOURS:
            f[p] = scores[k + d] if 0 <= k + d < n else _OUTSIDE
            p += 1
        for r in WINDOWS:
            low, high = max(0, k - r), min(n, k + r + 1)
            f[p] = (main[high] - main[low]) / (weight[high] - weight[low])
            p += 1
        f[p] = main[k] / max(weight[k], 1e-3)
        f[p + 1] = (main[n] - main[k + 1]) / max(weight[n] - weight[k + 1], 1e-3)
        f[p + 2] = main[n] / weight[n]
        f[p + 3] = np.log1p(main[n])
        f[p + 4] = alike[where[k], 0] / alike[where[k], 1]
        f[p + 5] = np.log1p(counts[where[k]])
        f[p + 6] = before[k]
        f[p + 7] = after[k]
        p += 8
        # the elements around it that hold more blocks than the one below
        level = 0
        span = 1
        at = blocks[k, ELEMENT]
        while at >= 0 and level < LEVELS:
            low, high = elements[at, FIRST], elements[at, LAST]
            if high - low > span or elements[at, PARENT] < 0:
                span = high - low
                inside = main[high] - main[low]
                f[p] = inside / (weight[high] - weight[low])
                f[p + 1] = peak[at]
                f[p + 2] = inside / max(main[n], 1e-3)
                p += 3
                level += 1
            at = elements[at, PARENT]
        while level < LEVELS:
            for q in range(3):
                f[p + q] = f[p + q - 3]
            p += 3
            level += 1
    return x


@numba.njit(cache=True, nogil=True)
def best_cut(probability, words):
    """bool [blocks]: the choice of blocks whose words have the largest expected F1, as far as one can tell.

    Expected matches over expected sizes are taken for the expected F1, which for more than a few words is close. The best
    choice has all blocks whose probability is at least half of that F1, so that they need only be looked at in order.

    Args:
        probability: float32 [blocks], of being main content.
        words: int32 [blocks].

    Source: Lewis, SIGIR 1995 (doi:10.1145/215206.215366); Lipton, Elkan and Naryanaswamy, ECML 2014
    (doi:10.1007/978-3-662-44851-9_15).
    """
    n = len(probability)
    wanted = 0.0
    for k in range(n):
        wanted += np.float64(probability[k]) * words[k]
    order = np.argsort(probability)
    matches = kept = best = 0.0
    for i in range(n - 1, -1, -1):
        k = order[i]
        matches += np.float64(probability[k]) * words[k]
        kept += words[k]
        if kept > 0:
            best = max(best, 2 * matches / (kept + wanted))
    return probability >= np.float32(best / 2)
