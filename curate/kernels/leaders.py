"""Which document stands for which: measured similarities of shingle sets, in one pass over the documents of a component.

A document is compared with the leaders so far, in their order, and goes with the first that fits; else it becomes a leader.
That is the same as letting each leader in turn absorb what is similar to it, but needs nothing except the leaders in memory.
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.chars import kernel

NEW, LEADER, TESTED = 0, 1, 2  # roles: may become a leader; is one; is only compared
UNRESOLVED = -1


@kernel
def _fits(shared, leader, member, jaccard, share, strict):
    """Whether the number of shared shingles is enough, given the sizes of both sets."""
    alike = shared / (leader + member - shared) >= jaccard
    if strict:  # contained, but no near-duplicate
        return not alike and leader > member and shared >= share * member
    return alike or (leader > member and shared >= share * member)


@numba.njit(cache=True, nogil=True)
def absorb(bounds, hashes, component, role, most, jaccard, share, strict, leader, similarity, contained):
    """For each document in order: the position of what it goes with in `leader`, itself if it leads, UNRESOLVED if it neither
    fits nor may lead.

    bounds: int64; hashes: uint64, the distinct shingles of each document; component: uint64, equal ones next to each other;
    role: uint8; most: int64, for each document how many leaders of its component are compared with. It goes with a leader to
    which its Jaccard similarity is at least `jaccard`, or that is larger and holds at least `share` of its shingles; `strict`:
    the latter alone, where the former does not hold. similarity (Jaccard) and contained (share of its shingles in the leader),
    float64, are written for those that go.
    """
    n = len(component)
    largest = np.int64(0)
    for d in range(n):
        largest = max(largest, bounds[d + 1] - bounds[d])
    slots = np.int64(16)
    while slots < 2 * largest:
        slots *= 2
    table, stamps = np.empty(slots, np.uint64), np.zeros(slots, np.int64)
    leaders = np.empty(n, np.int64)
    known = 0
    for d in range(n):
        if d == 0 or component[d] != component[d - 1]:
            known = 0
        if role[d] == LEADER:
            leader[d] = d
            leaders[known] = d
            known += 1
            continue
        size = bounds[d + 1] - bounds[d]
        stamp = np.int64(d + 1)
        last = np.uint64(0)
        filled = False
        found = np.int64(-1)
        for k in range(min(np.int64(known), most[d])):
            other = leaders[k]
            length = bounds[other + 1] - bounds[other]
            if not _fits(min(size, length), length, size, jaccard, share, strict) and not strict:
                continue
            if strict and length <= size:
                continue
            if not filled:
                wide = np.int64(16)
                while wide < 2 * size:
                    wide *= 2
                last = np.uint64(wide - 1)
                for i in range(bounds[d], bounds[d + 1]):
                    at = hashes[i] & last
                    while stamps[at] == stamp:
                        at = (at + np.uint64(1)) & last
                    stamps[at], table[at] = stamp, hashes[i]
                filled = True
            shared = np.int64(0)
            left = length
            for i in range(bounds[other], bounds[other + 1]):
                at = hashes[i] & last
                while stamps[at] == stamp and table[at] != hashes[i]:
                    at = (at + np.uint64(1)) & last
                shared += stamps[at] == stamp
                left -= 1
                # what is left could not make up for what is missing
                if left & 63 == 0 and not strict and not _fits(min(size, shared + left), length, size, jaccard, share, strict):
                    break
            if left == 0 and _fits(shared, length, size, jaccard, share, strict):
                found = other
                similarity[d] = shared / (length + size - shared)
                contained[d] = shared / size
                break
        if found >= 0:
            leader[d] = found
        elif role[d] == TESTED or known >= most[d]:
            leader[d] = UNRESOLVED
        else:
            leader[d] = d
            leaders[known] = d
            known += 1


@numba.njit(cache=True, nogil=True)
def copy_spans(sources, values, targets, sizes, out):
    """Copy spans of `values` to `out`: where each begins in either, and how long it is (int64)."""
    for k in range(len(sizes)):
        for i in range(sizes[k]):
            out[targets[k] + i] = values[sources[k] + i]
