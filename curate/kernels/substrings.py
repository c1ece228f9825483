"""Spans of tokens that stand more than once: tokens, anchors, hashes of windows, and the cut.

A *window* is `size` tokens in a row. The *anchor* of a window is the smallest hash of the `gram` tokens in a row that it
holds, the leftmost of equals. Equal windows have equal anchors at equal places, and windows that follow one another mostly
share theirs, so a document of n tokens has about 2n / (size - gram + 2) *groups*: longest runs of windows with one anchor.
Groups of equal tokens hold equal windows, which is why whole groups can be compared before any window is.

Tokens are hashed to 64 bits, groups and windows to two residues modulo 2^61 - 1 of a polynomial of these, which prefix sums
give in constant time a window.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from curate.kernels import chars
from curate.kernels.chars import decode, inline_kernel, kernel
from curate.kernels.hashes import finish

SPACED, WORD, OTHER, SINGLE, ATTACHED = range(5)  # kinds of characters

_PRIME = np.uint64((1 << 61) - 1)
_SHIFT = np.uint64(61)
_THREE = np.uint64(3)
_BASE_A = np.uint64(0x0B7E1516_28AED2A6)  # digits of e and pi, below the prime
_BASE_B = np.uint64(0x043F6A88_85A308D3)
_GRAM_BASE = np.uint64(0x9E3779B9_7F4A7C15)
_SEED = np.uint64(0xCBF29CE4_84222325)
_STEP = np.uint64(0x9FB21C65_1E98DF25)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_FOUR = np.uint64(4)
_LOW_60 = np.uint64((1 << 60) - 1)


@functools.lru_cache(maxsize=1)
def kinds() -> np.ndarray:
    """The kind of every code point below `chars.LIMIT` (uint8)."""
    bits, _ = chars.tables()
    found = np.full(len(bits), OTHER, np.uint8)
    found[bits & chars.WORD != 0] = WORD
    found[bits & chars.UNSPACED != 0] = SINGLE
    found[bits & (chars.MARK | chars.FORMAT) != 0] = ATTACHED
    found[bits & chars.SPACE != 0] = SPACED
    return found


@kernel
def _kind(table, cp):
    """Kind of a code point, beyond the table too."""
    if cp < chars.LIMIT:
        return np.int64(table[cp])
    if cp <= 0x3FFFD:
        return SINGLE
    if 0xE0100 <= cp <= 0xE01EF or cp == 0xE0001 or 0xE0020 <= cp <= 0xE007F:
        return ATTACHED
    return OTHER


def _high_product(context: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64: one instruction, where shifts and four products would do it otherwise."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


_high: Any = intrinsic(_high_product)


@inline_kernel
def _times(a, b):
    """a * b modulo the prime, for a and b below it."""
    low = a * b
    total = (_high(a, b) << _THREE | low >> _SHIFT) + (low & _PRIME)
    return total - _PRIME if total >= _PRIME else total


@inline_kernel
def _plus(a, b):
    total = a + b
    return total - _PRIME if total >= _PRIME else total


@inline_kernel
def _scaled(h, n):
    """A number below n, in the order of the hash."""
    return np.int64(_high(h, np.uint64(n)))


@kernel
def _tokens(data, at, end, table, hashes, begins, ends):
    """Tokens of the bytes from `at` to `end`: hash, first byte and end of each, into the arrays; returns their number."""
    n = 0
    kind, run = SPACED, -1  # of the token that is open, and the character that it may repeat
    h = _SEED
    while at < end:
        byte = data[at]
        if byte < 0x80:
            cp, width = int(byte), 1
            now = int(table[cp])
        else:
            cp, width = decode(data, at, end)
            now = _kind(table, cp)
        if now == SPACED:
            if kind != SPACED:
                hashes[n] = finish(h)
                ends[n] = at
                n += 1
                kind = SPACED
            at += width
            continue
        goes_on = now == ATTACHED if now != kind else now == WORD or (now == OTHER and cp == run)
        if kind == SPACED or not goes_on:
            if kind != SPACED:
                hashes[n] = finish(h)
                ends[n] = at
                n += 1
            begins[n] = at
            h = _SEED
            run = -1 if now == ATTACHED else cp
            kind = OTHER if now == ATTACHED else now
        for i in range(at, at + width):
            h = (h ^ np.uint64(data[i])) * _STEP
        at += width
        if now == WORD:  # most of what follows in most texts, without the questions above
            while at < end and data[at] < 0x80 and table[data[at]] == WORD:
                h = (h ^ np.uint64(data[at])) * _STEP
                at += 1
    if kind != SPACED:
        hashes[n] = finish(h)
        ends[n] = end
        n += 1
    return n


@kernel
def _sums(hashes, n, a, b):
    """Polynomials of the first i tokens, for i from 0 to n."""
    a[0] = b[0] = x = y = _ZERO
    for i in range(n):
        h = hashes[i]
        x = _plus(_times(x, _BASE_A), (h & _LOW_60) + _ONE)
        y = _plus(_times(y, _BASE_B), (h >> _FOUR) + _ONE)
        a[i + 1] = x
        b[i + 1] = y


@inline_kernel
def _part(sums, powers, start, length):
    """The polynomial of `length` tokens from `start` on."""
    return _plus(sums[start + length], _PRIME - _times(sums[start], powers[length]))


@numba.njit(cache=True, nogil=True)
def _powers(n):
    a, b = np.empty(n + 1, np.uint64), np.empty(n + 1, np.uint64)
    a[0] = b[0] = _ONE
    for i in range(n):
        a[i + 1] = _times(a[i], _BASE_A)
        b[i + 1] = _times(b[i], _BASE_B)
    return a, b


@kernel
def _longest(offsets, texts):
    """Bytes of the longest of these texts."""
    found = 0
    for text in texts:
        found = max(found, offsets[text + 1] - offsets[text])
    return found


def gram_of(size: int) -> int:
    """Tokens of a gram for windows of `size` tokens: longer ones repeat less by chance, shorter ones make fewer groups."""
    return max(1, size * 2 // 5)


@numba.njit(cache=True, nogil=True)
def groups(
    offsets: np.ndarray, data: np.ndarray, table: np.ndarray, size: int, gram: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(text, start, count, anchor, a, b) of the groups of all texts, in order.

    text (uint32): which one; start (uint32): token at which the first window of the group begins; count (uint16): windows;
    anchor, a, b (uint64): hash of the anchor, and the residues of all tokens of the group.
    """
    longest = _longest(offsets, np.arange(len(offsets) - 1))
    # room for a token a byte; what is not written to takes no memory
    hashes, begins, ends = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.int32)
    a, b, order = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
    queue = np.empty(longest + 1, np.int64)
    span = size - gram  # a window holds the grams from its start to start + span
    powers_a, powers_b = _powers(size + span)
    most = int(offsets[-1] - offsets[0])
    texts, starts, counts = np.empty(most, np.uint32), np.empty(most, np.uint32), np.empty(most, np.uint16)
    anchors, sums_a, sums_b = np.empty(most, np.uint64), np.empty(most, np.uint64), np.empty(most, np.uint64)
    leading = _ONE
    for _ in range(gram):
        leading *= _GRAM_BASE
    found = 0
    for i in range(len(offsets) - 1):
        n = _tokens(data, int(offsets[i]), int(offsets[i + 1]), table, hashes, begins, ends)
        if n < size:
            continue
        _sums(hashes, n, a, b)
        h = _ZERO
        for j in range(n):
            h = h * _GRAM_BASE + hashes[j]
            if j >= gram:
                h -= hashes[j - gram] * leading
            if j >= gram - 1:
                order[j - gram + 1] = finish(h)
        head, tail = 0, 0  # grams that may still be the smallest: from left to right, and from small to large
        anchor, first = -1, 0
        for g in range(n - gram + 1):
            value = order[g]
            while tail > head and order[queue[tail - 1]] > value:
                tail -= 1
            queue[tail] = g
            tail += 1
            start = g - span
            if start < 0:
                continue
            if queue[head] < start:
                head += 1
            if queue[head] != anchor:
                if anchor >= 0:
                    found = _group(i, first, start, anchor, size, order, a, b, powers_a, powers_b,
                                   texts, starts, counts, anchors, sums_a, sums_b, found)  # fmt: skip
                anchor, first = queue[head], start
        found = _group(i, first, n - size + 1, anchor, size, order, a, b, powers_a, powers_b,
                       texts, starts, counts, anchors, sums_a, sums_b, found)  # fmt: skip
    return (
        texts[:found].copy(),
        starts[:found].copy(),
        counts[:found].copy(),
        anchors[:found].copy(),
        sums_a[:found].copy(),
        sums_b[:found].copy(),
    )


@inline_kernel
def _group(
    text, first, end, anchor, size, order, a, b, powers_a, powers_b, texts, starts, counts, anchors, sums_a, sums_b, found
):
    """Note the group of the windows from `first` to `end`."""
    texts[found] = text
    starts[found] = first
    counts[found] = end - first
    anchors[found] = finish(order[anchor] + _GRAM_BASE)  # as the smallest of many, it is a small number itself
    length = end - first - 1 + size
    sums_a[found] = _part(a, powers_a, first, length)
    sums_b[found] = _part(b, powers_b, first, length)
    return found + 1


@numba.njit(cache=True, nogil=True)
def windows(
    offsets: np.ndarray,
    data: np.ndarray,
    table: np.ndarray,
    size: int,
    texts: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, a, b) of the windows of the groups given as (text, start, count), in order of the texts."""
    longest, last = _longest(offsets, texts), -1
    hashes, begins, ends = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.int32)
    a, b = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
    powers_a, powers_b = _powers(size)
    total = 0
    for count in counts:
        total += int(count)
    places, sums_a, sums_b = np.empty(total, np.uint32), np.empty(total, np.uint64), np.empty(total, np.uint64)
    at = 0
    for i in range(len(texts)):
        text = int(texts[i])
        if text != last:
            n = _tokens(data, int(offsets[text]), int(offsets[text + 1]), table, hashes, begins, ends)
            _sums(hashes, n, a, b)
            last = text
        for start in range(int(starts[i]), int(starts[i]) + int(counts[i])):
            places[at] = start
            sums_a[at] = _part(a, powers_a, start, size)
            sums_b[at] = _part(b, powers_b, start, size)
            at += 1
    return places, sums_a, sums_b


# --------------------------------------------------------------------------------------------- sets of keys

ONCE, SEVERAL = 1, 2


@kernel
def share(hashes: np.ndarray, n: int, out: np.ndarray) -> None:
    """Which of n equal ranges of 64 bits each hash is in."""
    for i in range(len(hashes)):
        out[i] = _scaled(hashes[i], n)


@inline_kernel
def _slot(keys_a, keys_b, states, x, y):
    """Where the pair is in the table, or where it would go."""
    n = len(states)
    at = _scaled(finish(x), n)
    while states[at] and (keys_a[at] != x or keys_b[at] != y):
        at += 1
        if at == n:
            at = 0
    return at


@kernel
def insert(
    keys_a: np.ndarray, keys_b: np.ndarray, states: np.ndarray, a: np.ndarray, b: np.ndarray, part: int, parts: int,
    wanted: np.ndarray, again: np.ndarray
) -> None:  # fmt: skip
    """Put the pairs (a, b) that are wanted and in the given part of all into a table; `again`: which stood there before.

    A table is two arrays of keys and one of states (uint8: 0 empty, ONCE, SEVERAL), with room to spare.
    """
    for i in range(len(a)):
        if wanted[i] and (parts == 1 or _scaled(finish(b[i]) * _GRAM_BASE, parts) == part):
            at = _slot(keys_a, keys_b, states, a[i], b[i])
            again[i] = states[at] != 0
            states[at] = SEVERAL if states[at] else ONCE
            keys_a[at] = a[i]
            keys_b[at] = b[i]


@kernel
def several(
    keys_a: np.ndarray, keys_b: np.ndarray, states: np.ndarray, a: np.ndarray, b: np.ndarray, part: int, parts: int,
    wanted: np.ndarray, out: np.ndarray
) -> None:  # fmt: skip
    """For the pairs of the given part that are wanted: whether the table has met them several times."""
    for i in range(len(a)):
        if wanted[i] and (parts == 1 or _scaled(finish(b[i]) * _GRAM_BASE, parts) == part):
            out[i] = states[_slot(keys_a, keys_b, states, a[i], b[i])] == SEVERAL


# --------------------------------------------------------------------------------------------- the cut


@kernel
def _breaks(data, at, end):
    n = 0
    for i in range(at, end):
        n += data[i] == 10
    return n


@kernel
def _would_join(data, table, left, right, end):
    """Whether the tokens that begin at `left` and `right` would be one if nothing stood between them."""
    one, _ = decode(data, left, end)
    other, _ = decode(data, right, end)
    kind = _kind(table, one)
    return kind == _kind(table, other) and (kind == WORD or (kind == OTHER and one == other))


@numba.njit(cache=True, nogil=True)
def cut(
    offsets: np.ndarray,
    data: np.ndarray,
    table: np.ndarray,
    texts: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts without ranges of their tokens: (int32 offsets, bytes, bytes in the ranges of each text as uint32).

    The ranges (text, first token, end) are in order and do not touch. Of the whitespace on the two sides of a range, that with
    more line feeds stays, else that on the left, else that on the right; at an end of the text, the outer one. Where there is
    none and two tokens would become one, a space is put between them.
    """
    longest = _longest(offsets, texts)
    hashes, first, end = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.int32)
    bounds = np.zeros(len(offsets), np.int32)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)  # a space that is put in takes the room of a token
    removed = np.zeros(len(offsets) - 1, np.uint32)
    r, size = 0, 0
    for i in range(len(offsets) - 1):
        at, stop = int(offsets[i]), int(offsets[i + 1])
        if r < len(texts) and texts[r] == i:
            n = _tokens(data, at, stop, table, hashes, first, end)
            while r < len(texts) and texts[r] == i:
                low, high = int(begins[r]), int(ends[r])
                start, after = int(first[low]), int(end[high - 1])  # the bytes of the range
                removed[i] += after - start
                before = int(end[low - 1]) if low else at
                onward = int(first[high]) if high < n else stop
                left = right = False
                if low == 0 or high == n:
                    left, right = high < n, low > 0
                elif _breaks(data, after, onward) > _breaks(data, before, start) or before == start:
                    right = True
                else:
                    left = True
                keep = start if left else before
                out[size : size + keep - at] = data[at:keep]
                size += keep - at
                alone = low and high < n and before == start and after == onward  # no whitespace on either side
                if alone and _would_join(data, table, int(first[low - 1]), onward, stop):
                    out[size] = 32
                    size += 1
                at = after if right else onward
                r += 1
        out[size : size + stop - at] = data[at:stop]
        size += stop - at
        bounds[i + 1] = size
    return bounds, out[:size].copy(), removed


@numba.njit(cache=True, nogil=True)
def tokens(data: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hash (uint64), first byte and end (int32) of each token of one text."""
    hashes, begins, ends = np.empty(len(data), np.uint64), np.empty(len(data), np.int32), np.empty(len(data), np.int32)
    n = _tokens(data, 0, len(data), table, hashes, begins, ends)
    return hashes[:n].copy(), begins[:n].copy(), ends[:n].copy()
