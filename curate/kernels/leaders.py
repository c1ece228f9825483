"""Which document stands for which: measured similarities of shingle sets, in one pass over the documents of a component.

A document is compared with the leaders so far, in their order, and goes with the first that fits; else it becomes a leader.
That is the same as letting each leader in turn absorb what is similar to it, but needs nothing except the leaders in memory.
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.chars import inline_kernel, kernel

NEW, LEADER = 0, 1  # roles: may become a leader; is one
UNRESOLVED = -1


@kernel
def _fits(shared, leader, member, jaccard, share, strict):
    """Whether the number of shared shingles is enough, given the sizes of both sets."""
    alike = shared / (leader + member - shared) >= jaccard
    if strict:  # contained, but no near-duplicate
        return not alike and leader > member and shared >= share * member
    return alike or (leader > member and shared >= share * member)


REACH, MISSES = 48, 3  # how far an edit is looked over, and after how many in vain two texts are no versions of each other
REST = 64  # of what versions of a text have left to be compared by a loop in a loop
ASTRAY = 2  # so many leaders that are no versions of a document, and it is not walked along others


@inline_kernel
def _fill(table, stamps, stamp, hashes, start, end):
    """Make a hash table of distinct values: slots with this stamp, so that it need not be cleared. Returns its mask."""
    wide = np.int64(16)
    while wide < 2 * (end - start):
        wide *= 2
    last = np.uint64(wide - 1)
    for i in range(start, end):
        at = hashes[i] & last
        while stamps[at] == stamp:
            at = (at + np.uint64(1)) & last
        stamps[at], table[at] = stamp, hashes[i]
    return last


@inline_kernel
def _holds(table, stamps, stamp, last, value):
    at = value & last
    while stamps[at] == stamp and table[at] != value:
        at = (at + np.uint64(1)) & last
    return np.int64(stamps[at] == stamp)


@kernel
def _met(hashes, value, start, end):
    """Where a value stands between two places, -1 if nowhere."""
    for at in range(start, end):
        if hashes[at] == value:
            return at
    return np.int64(-1)


@kernel
def _align(hashes, a, a_end, b, b_end, step, rest_a, rest_b):
    """How many values two sets share, found by walking along them in the order of their texts; -1 if these go apart.

    What is met on the way is shared, and what has been passed over is compared in the end. After an edit the sets go on
    together about `step`, the length of a shingle, later.
    """
    shared, left_a, left_b, misses = np.int64(0), 0, 0, 0
    while a < a_end and b < b_end:
        if hashes[a] == hashes[b]:
            shared += 1
            a += 1
            b += 1
            continue
        to_a, to_b = np.int64(-1), np.int64(-1)
        for ahead in (step, step - 1, 0):
            if b + ahead < b_end:
                to_a, to_b = _met(hashes, hashes[b + ahead], a, min(a + REACH, a_end)), b + ahead
                if to_a >= 0:
                    break
            if a + ahead < a_end:
                to_b, to_a = _met(hashes, hashes[a + ahead], b, min(b + REACH, b_end)), a + ahead
                if to_b >= 0:
                    break
        if to_a < 0 or to_b < 0:
            misses += 1
            if misses == MISSES:
                return np.int64(-1)
            to_a, to_b = a + 1, b + 1
        if left_a + to_a - a > REST or left_b + to_b - b > REST:
            return np.int64(-1)
        while a < to_a:
            rest_a[left_a] = hashes[a]
            left_a += 1
            a += 1
        while b < to_b:
            rest_b[left_b] = hashes[b]
            left_b += 1
            b += 1
    if left_a + a_end - a > REST or left_b + b_end - b > REST:
        return np.int64(-1)
    while a < a_end:
        rest_a[left_a] = hashes[a]
        left_a += 1
        a += 1
    while b < b_end:
        rest_b[left_b] = hashes[b]
        left_b += 1
        b += 1
    for i in range(left_a):
        for k in range(left_b):
            shared += rest_a[i] == rest_b[k]
    return shared


@numba.njit(cache=True, nogil=True)
def absorb(
    starts, sizes, hashes, component, role, most, jaccard, share, strict, step, leader, similarity, contained
):  # fmt: skip
    """For each document in order: the position of what it goes with in `leader`, itself if it leads, UNRESOLVED if it neither
    fits nor may lead.

    starts, sizes: int64, where in `hashes` (uint64) the distinct shingles of each document stand; component: uint64, equal ones
    next to each other; role: uint8; most: int64, for each document how many leaders of its component are compared with. It goes
    with a leader to which its Jaccard similarity is at least `jaccard`, or that is larger and holds at least `share` of its
    shingles; `strict`: the latter alone, where the former does not hold. step: words of a shingle. similarity (Jaccard) and
    contained (share of its shingles in the leader), float64, are written for those that go.
    """
    n = len(component)
    largest = np.int64(0)
    for d in range(n):
        largest = max(largest, sizes[d])
    slots = np.int64(16)
    while slots < 2 * largest:
        slots *= 2
    table, stamps = np.empty(slots, np.uint64), np.zeros(slots, np.int64)
    stamp = np.int64(0)
    mine, theirs = np.empty(REST, np.uint64), np.empty(REST, np.uint64)
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
        size = sizes[d]
        found = np.int64(-1)
        filled, astray = False, 0
        last = np.uint64(0)
        for k in range(min(np.int64(known), most[d])):
            other = leaders[k]
            length = sizes[other]
            if length <= size if strict else not _fits(min(size, length), length, size, jaccard, share, strict):
                continue
            shared = np.int64(-1)
            if astray < ASTRAY:
                shared = _align(hashes, starts[other], starts[other] + length, starts[d], starts[d] + size, step, theirs, mine)
                astray += shared < 0
            if shared < 0:
                if not filled:
                    filled = True
                    stamp += 1
                    last = _fill(table, stamps, stamp, hashes, starts[d], starts[d] + size)
                shared = np.int64(0)
                at = starts[other]
                end = at + length
                while at < end:
                    shared += _holds(table, stamps, stamp, last, hashes[at])
                    at += 1
                    # what is left could not make up for what is missing
                    if at & 15 or strict:
                        continue
                    if not _fits(min(size, shared + end - at), length, size, jaccard, share, strict):
                        break
            if _fits(shared, length, size, jaccard, share, strict):
                found = other
                similarity[d] = shared / (length + size - shared)
                contained[d] = shared / size
                break
        if found >= 0:
            leader[d] = found
        elif known >= most[d]:
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
