"""Scores of ensembles of decision trees, many rows at a time and without a branch.

A tree is not walked. All its nodes are asked about a vector of rows, and a node that sends a row to the right strikes the
leaves below its left child from that row's set of leaves, a word of bits. The lowest bit left is the leaf that the walk would
have reached. That is more comparisons than a walk makes, but they go through the processor by the dozen, with nothing to
predict: some thirty times faster for the one to two hundred rows of a page.

Source: QuickScorer, Lucchese et al., SIGIR 2015, doi:10.1145/2766462.2767733, and its form for vectors of rows, SIGIR 2016,
doi:10.1145/2911451.2914758; here with the nodes of a tree together rather than those of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numba
import numpy as np

MAX_LEAVES = 32  # bits of a set
_ROWS = 64  # that are scored at a time: their features stay in the nearest cache
_FEW = 4
_ALL = np.uint32(0xFFFFFFFF)


class Trees(NamedTuple):
    """An ensemble. Inner nodes and leaves of a tree stand together, in the order of the trees.

    feature: int32 [nodes]. threshold: float32 [nodes]; a row goes left where its feature is not above it. right: uint32
    [nodes], the leaves that are left over for a row that goes right: all but those below the left child; leaves are numbered
    from left to right. first: int32 [trees + 1], of inner nodes. leaf: float32 [leaves]. first_leaf: int32 [trees + 1].
    """

    feature: np.ndarray
    threshold: np.ndarray
    right: np.ndarray
    first: np.ndarray
    leaf: np.ndarray
    first_leaf: np.ndarray


@numba.njit(cache=True, nogil=True)
def _one_by_one(left, x, feature, threshold, right, first, leaf, first_leaf, out):
    """The same for the few rows that fill no vector."""
    for r in range(len(x)):
        row = np.concatenate((left[r], x[r]))
        for t in range(len(first) - 1):
            left_over = _ALL
            for k in range(first[t], first[t + 1]):
                left_over &= _ALL if row[feature[k]] <= threshold[k] else right[k]
            out[r, t % out.shape[1]] += leaf[first_leaf[t] + _lowest(left_over)]


@numba.njit(cache=True, nogil=True, inline="always")
def _lowest(bits):
    """The place of the lowest bit: the exponent of the power of two that it is."""
    return np.int64(np.float32(bits & (~bits + np.uint32(1))).view(np.uint32) >> np.uint32(23)) - 127


@numba.njit(cache=True, nogil=True)
def _scores(left, x, feature, threshold, right, first, leaf, first_leaf, out):
    """Adds to out, float64 [rows, groups]; tree t belongs to group t % groups. Features are those in left, then those in x."""
    n, wide = x.shape
    wide_left = left.shape[1]
    features = wide_left + wide
    groups = out.shape[1]
    columns = np.empty((features, _ROWS), np.float32)
    sets = np.empty(_ROWS, np.uint32)
    sums = np.empty((groups, _ROWS), np.float64)
    for start in range(0, n, _ROWS):
        m = min(_ROWS, n - start)
        if m <= _FEW:
            _one_by_one(left[start:], x[start:], feature, threshold, right, first, leaf, first_leaf, out[start:])
            break
        for r in range(m):
            for f in range(wide_left):
                columns[f, r] = left[start + r, f]
            for f in range(wide):
                columns[wide_left + f, r] = x[start + r, f]
        for r in range(m, _ROWS):  # so that the loops below have a fixed length
            columns[:, r] = 0
        sums[:] = 0
        for t in range(len(first) - 1):
            sets[:] = _ALL
            k, end = first[t], first[t + 1]
            while k + 4 <= end:  # so that sets are written once for four nodes
                a, b, c, d = columns[feature[k]], columns[feature[k + 1]], columns[feature[k + 2]], columns[feature[k + 3]]
                a_bound, b_bound, c_bound, d_bound = threshold[k], threshold[k + 1], threshold[k + 2], threshold[k + 3]
                a_right, b_right, c_right, d_right = right[k], right[k + 1], right[k + 2], right[k + 3]
                for r in range(_ROWS):
                    two = (_ALL if a[r] <= a_bound else a_right) & (_ALL if b[r] <= b_bound else b_right)
                    more = (_ALL if c[r] <= c_bound else c_right) & (_ALL if d[r] <= d_bound else d_right)
                    sets[r] &= two & more
                k += 4
            while k < end:
                a, a_bound, a_right = columns[feature[k]], threshold[k], right[k]
                for r in range(_ROWS):
                    sets[r] &= _ALL if a[r] <= a_bound else a_right
                k += 1
            base = first_leaf[t]
            group = sums[t % groups]
            for r in range(_ROWS):
                group[r] += leaf[base + _lowest(sets[r])]
        for r in range(m):
            for g in range(groups):
                out[start + r, g] += sums[g, r]


def scores(trees: Trees, x: np.ndarray, groups: int = 1, left: np.ndarray | None = None) -> np.ndarray:
    """float32 [rows, groups]: the sums of the leaves that each row falls into; tree t counts for group t % groups.

    x: float32 [rows, features], no NaN. left: as x, with the features that come before those of x, so that nobody needs to
    join the two.
    """
    out = np.zeros((len(x), groups))
    _scores(np.empty((len(x), 0), np.float32) if left is None else left, x, *trees, out)
    return out.astype(np.float32)


def join(parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> Trees:
    """An ensemble from trees as they are usually written.

    parts: of each tree feature int [nodes], threshold float [nodes], left and right child int [nodes], and leaf float
    [nodes + 1], the values. Node 0 is the root; a child c below 0 is the leaf ~c. A tree without a node is one leaf.

    Raises ValueError for a tree of more than MAX_LEAVES leaves, and for what is no tree.
    """
    feature, threshold, right_sets, first, values, first_leaf = [], [], [], [0], [], [0]
    for split, bound, left, right, leaf in parts:
        if len(leaf) > MAX_LEAVES or len(leaf) != len(split) + 1:
            raise ValueError(
                f"a tree of {len(split)} nodes and {len(leaf)} leaves; at most {MAX_LEAVES} leaves, one more than nodes"
            )
        order: list[int] = []  # leaves from left to right
        waiting = [0 if len(split) else ~0]
        begins: dict[int, int] = {}
        below: dict[int, int] = {}
        while waiting:
            node = waiting.pop()
            if node < 0:
                order.append(~node)
            elif node in begins:  # all of its left side has been seen
                below[node] = (1 << len(order)) - (1 << begins[node])
                waiting.append(int(right[node]))
            else:
                begins[node] = len(order)
                waiting += [node, int(left[node])]
        if sorted(order) != list(range(len(leaf))) or len(below) != len(split):
            raise ValueError("the children of a tree do not reach each node and leaf once")
        feature += [int(f) for f in split]
        threshold += [at_most(float(b)) for b in bound]
        right_sets += [~below[node] & 0xFFFFFFFF for node in range(len(split))]
        values += [leaf[k] for k in order]
        first.append(len(feature))
        first_leaf.append(len(values))
    return Trees(
        np.array(feature, np.int32),
        np.array(threshold, np.float32),
        np.array(right_sets, np.uint32),
        np.array(first, np.int32),
        np.array(values, np.float32),
        np.array(first_leaf, np.int32),
    )


def fits(trees: Trees, features: int) -> bool:
    """Whether an ensemble that was read from a file can be scored on rows of so many features without leaving its arrays."""
    kinds = (np.int32, np.float32, np.uint32, np.int32, np.float32, np.int32)
    if any(a.dtype != kind or a.ndim != 1 for a, kind in zip(trees, kinds, strict=True)):
        return False
    nodes, leaves = len(trees.feature), len(trees.leaf)
    if not (len(trees.threshold) == len(trees.right) == nodes and len(trees.first) == len(trees.first_leaf) > 0):
        return False
    sizes = np.diff(trees.first_leaf)
    if trees.first[0] or trees.first_leaf[0] or trees.first[-1] != nodes or trees.first_leaf[-1] != leaves:
        return False
    if not ((sizes >= 1) & (sizes <= MAX_LEAVES) & (np.diff(trees.first) == sizes - 1)).all():
        return False
    if not ((trees.feature >= 0) & (trees.feature < features)).all() or not np.isfinite(trees.leaf).all():
        return False
    last = np.repeat(sizes - 1, sizes - 1).astype(np.uint32)
    return bool((trees.right >> last & 1 == 1).all())  # the last leaf stays in every set, so that none is empty


def at_most(threshold: float) -> np.float32:
    """The largest float32 not above a threshold: no float32 lies between, so that decisions about float32 stay as they are."""
    low = np.float32(threshold)
    return low if float(low) <= threshold else np.nextafter(low, np.float32(-np.inf))
