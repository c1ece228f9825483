"""Connected components of documents by union-find, on dense arrays as long as these fit, else one range of documents at a time.

Out of core it goes down the ranges and up again (after Sibeyn, "External connected components", SWAT 2004,
doi:10.1007/978-3-540-27810-8_39). Going down, a range is
handed every edge whose larger end lies in it. Ends within the range are joined; of the smaller documents below it that a
component touches, the smallest is remembered, and the others are tied to it by edges for the ranges below. Going up, what a
component remembers has its label already. Labels are the smallest document of a component, whatever the ranges were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numba
import numpy as np

from curate.kernels.chars import kernel

NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
BYTES_PER_DOCUMENT = 16  # parent, what a root remembers, whether an edge touches it, and its label
BYTES_WITHIN = 14  # the same without what lies below


@kernel
def _find(parent, x):
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


@numba.njit(cache=True, nogil=True)
def _join(parent, low, touched, base, a, b, out_a, out_b):
    """Join the ends of edges a <= b with b in the range from `base`; returns how many edges were made for ranges below."""
    made = 0
    for k in range(len(a)):
        x = np.int64(b[k] - base)
        touched[x] = 1
        if a[k] >= base:
            y = np.int64(a[k] - base)
            touched[y] = 1
            x, y = np.int64(_find(parent, x)), np.int64(_find(parent, y))
            if x == y:
                continue
            if x < y:
                x, y = y, x
            parent[x] = np.uint32(y)
            if len(low) == 0:
                continue
            other, into = low[x], y
        else:
            other, into = a[k], np.int64(_find(parent, x))
        held = low[into]
        if other in (NONE, held):
            continue
        low[into] = min(held, other)
        if held != NONE:
            out_a[made], out_b[made] = min(held, other), max(held, other)
            made += 1
    return made


@numba.njit(cache=True, nogil=True)
def _labels(parent, low, touched, base, out):
    """The label of each document of the range, as far as it is known: its root, or what that remembers; NONE if untouched."""
    for x in range(len(parent)):
        if touched[x] == 0:
            out[x] = NONE
            continue
        root = np.int64(_find(parent, x))
        out[x] = base + np.uint64(root)
        if len(low) and low[root] != NONE:
            out[x] = low[root]


def components(
    edges: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], n: int, memory: int, scratch: Path
) -> Iterator[tuple[int, np.ndarray]]:
    """(first document, uint64 labels) of ranges of the documents 0 to n - 1, in order.

    edges: gives chunks of (uint64, uint64) ends, each with the smaller end first; called once. A label is the smallest document
    of the component; a document without an edge has the label NONE. memory: bytes that the arrays of a range may take.
    scratch: a folder for what does not fit, empty again in the end.
    """
    if n * BYTES_WITHIN <= memory:
        parent, low, touched = np.arange(n, dtype=np.uint32), np.empty(0, np.uint64), np.zeros(n, np.uint8)
        nothing = np.empty(0, np.uint64)
        for a, b in edges():
            _join(parent, low, touched, np.uint64(0), a, b, nothing, nothing)
        out = np.empty(n, np.uint64)
        _labels(parent, low, touched, np.uint64(0), out)
        yield 0, out
        return
    size = max(1024, memory // (2 * BYTES_PER_DOCUMENT))
    ranges = -(-n // size)
    spill = [scratch / f"edges-{k:05d}" for k in range(ranges)]

    def keep(a: np.ndarray, b: np.ndarray) -> None:
        which = b // np.uint64(size)
        for k in np.unique(which):
            with spill[int(k)].open("ab") as file:
                mine = which == k
                np.stack([a[mine], b[mine]], axis=1).tofile(file)

    for a, b in edges():
        keep(a, b)
    for k in reversed(range(ranges)):
        base, count = k * size, min(size, n - k * size)
        parent, touched = np.arange(count, dtype=np.uint32), np.zeros(count, np.uint8)
        low = np.full(count, NONE, np.uint64)
        for a, b in _spilled(spill[k], max(1 << 12, memory // 256)):
            out_a, out_b = np.empty(len(a), np.uint64), np.empty(len(a), np.uint64)
            made = _join(parent, low, touched, np.uint64(base), a, b, out_a, out_b)
            keep(out_a[:made], out_b[:made])
        found = np.unique(low[low != NONE])
        keep(found, found)  # an edge of its own, so that what is remembered counts as touched
        out = np.empty(count, np.uint64)
        _labels(parent, low, touched, np.uint64(base), out)
        out.tofile(scratch / f"labels-{k:05d}")
        spill[k].unlink(missing_ok=True)
    for k in range(ranges):
        base = k * size
        labels = np.fromfile(scratch / f"labels-{k:05d}", np.uint64)
        for below in range(k):
            at = np.flatnonzero((labels != NONE) & (labels < base) & (labels // np.uint64(size) == below))
            if len(at):
                known = np.fromfile(scratch / f"labels-{below:05d}", np.uint64)
                labels[at] = known[(labels[at] - np.uint64(below * size)).astype(np.int64)]  # final, so never further up
        labels.tofile(scratch / f"labels-{k:05d}")
        yield base, labels
    for k in range(ranges):
        (scratch / f"labels-{k:05d}").unlink()


def _spilled(path: Path, edges: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while len(part := np.fromfile(file, np.uint64, 2 * edges)):
            ends = part.reshape(-1, 2)
            yield np.ascontiguousarray(ends[:, 0]), np.ascontiguousarray(ends[:, 1])


@numba.njit(cache=True, nogil=True)
def _bucket_edges(keys, documents, order, own, a, b):
    made = 0
    start = 0
    n = len(order)
    while start < n:
        key = keys[order[start]]
        end = start + 1
        first = documents[order[start]]
        while end < n and keys[order[end]] == key:
            first = min(first, documents[order[end]])
            end += 1
        if end > start + 1 and first < own:
            for k in range(start, end):
                document = documents[order[k]]
                if document != first:
                    a[made], b[made] = first, document
                    made += 1
        start = end
    return made


def bucket_edges(keys: np.ndarray, documents: np.ndarray, own: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint64, uint64) edges that tie the documents of each bucket, one of equal keys, to its smallest document.

    keys, documents: uint64, in any order. Buckets that hold only documents from `own` on give none. A bucket of m documents
    gives m - 1 edges, never all pairs.
    """
    order = np.argsort(keys)
    a, b = np.empty(len(keys), np.uint64), np.empty(len(keys), np.uint64)
    made = _bucket_edges(keys, documents, order, np.uint64(own), a, b)
    return a[:made], b[:made]
