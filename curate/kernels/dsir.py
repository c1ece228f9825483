"""Counts of hashed words and runs of words, and sums of a table over them.

A token is a run of letters, digits, marks and "_", or a run of other characters that are not white space; a letter of a script
without spaces is one by itself, else a Chinese sentence would be one word. Case is folded where that leaves one character.
Hashes are 64 bits out of two multiplications a character; what is counted are their buckets.
"""

from __future__ import annotations

import numpy as np

from curate.kernels.chars import LIMIT, MARK, SPACE, UNSPACED, WORD, bits_of, decode, kernel, tables
from curate.kernels.hashes import SPREAD, finish, mix

ONE, NORMALISED, PIECES = 0, 1, 2  # how the weight of a text follows from those of its features


@kernel
def _tokens(data, start, end, bits, lower, out):
    """Write the hashes of the tokens of a text to `out`; returns how many."""
    count = 0
    held = np.uint64(0)
    kind, alone = 0, False  # 0: none begun, 1: word, 2: punctuation
    at = start
    while at < end:
        cp, width = decode(data, at, end)
        at += width
        b = bits_of(bits, cp)
        if b & SPACE:
            if kind:
                out[count] = finish(held)
                count += 1
            kind, alone, held = 0, False, np.uint64(0)
            continue
        own = b & UNSPACED != 0 and b & MARK == 0
        what = 1 if own or b & WORD != 0 else 2
        if kind and (own or what != kind or (alone and b & MARK == 0)):
            out[count] = finish(held)
            count += 1
            held = np.uint64(0)
        if cp < LIMIT:
            cp = np.int64(lower[cp])
        held = mix(held + np.uint64(cp) + np.uint64(1))
        alone = own or (alone and b & MARK != 0)
        kind = what
    if kind:
        out[count] = finish(held)
        count += 1
    return count


@kernel
def _longest(starts, ends):
    most = np.int64(0)
    for i in range(len(starts)):
        most = max(most, ends[i] - starts[i])
    return most


@kernel
def _count(starts, ends, data, bits, lower, ngrams, counts, scratch):
    buckets = np.uint64(len(counts))
    total = np.int64(0)
    for i in range(len(starts)):
        n = _tokens(data, starts[i], ends[i], bits, lower, scratch)
        total += n
        for k in range(n):
            h = scratch[k]
            counts[np.int64(h % buckets)] += 1
            for more in range(1, min(ngrams, n - k)):
                h = finish(h * SPREAD + scratch[k + more])
                counts[np.int64(h % buckets)] += 1
    return total


@kernel
def _sum(scratch, first, last, table, ngrams):
    """(sum of the table over the features of some tokens, how many features)."""
    buckets = np.uint64(len(table))
    total, features = 0.0, 0
    for k in range(first, last):
        h = scratch[k]
        total += table[np.int64(h % buckets)]
        features += 1
        for more in range(1, min(ngrams, last - k)):
            h = finish(h * SPREAD + scratch[k + more])
            total += table[np.int64(h % buckets)]
            features += 1
    return total, features


@kernel
def _weigh(starts, ends, data, bits, lower, table, ngrams, how, piece, full, weights, lengths, scratch):
    for i in range(len(starts)):
        n = _tokens(data, starts[i], ends[i], bits, lower, scratch)
        lengths[i] = n
        weights[i] = np.nan
        if n == 0:
            continue
        if how != PIECES:
            total, features = _sum(scratch, 0, n, table, ngrams)
            weights[i] = total if how == ONE else total / features * full
            continue
        pieces = (n + piece - 1) // piece
        most, sums = -np.inf, 0.0  # of exp(weight - most)
        for p in range(pieces):
            total, features = _sum(scratch, n * p // pieces, n * (p + 1) // pieces, table, ngrams)
            value = total / features * full
            if value > most:
                sums = sums * np.exp(most - value) + 1.0
                most = value
            else:
                sums += np.exp(value - most)
        weights[i] = most + np.log(sums / pieces)


def count(starts: np.ndarray, ends: np.ndarray, data: np.ndarray, ngrams: int, counts: np.ndarray) -> int:
    """Add to `counts` (int64, one for each bucket) the runs of 1 to `ngrams` tokens of each text; returns the tokens of all.

    starts, ends: int64 places of the texts in `data` (uint8, UTF-8).
    """
    return int(_count(starts, ends, data, *tables(), ngrams, counts, np.empty(_longest(starts, ends), np.uint64)))


def features_of(tokens: int, ngrams: int) -> int:
    """How many runs of 1 to `ngrams` tokens there are in so many."""
    return sum(max(tokens - k, 0) for k in range(ngrams))


def weigh(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, table: np.ndarray, ngrams: int, how: int, piece: int
) -> tuple[np.ndarray, np.ndarray]:
    """(float64 weight, int64 tokens) of each text: the sum of `table` (float64, one for each bucket) over its features.

    how: `ONE`, that sum; `NORMALISED`, the mean times the features of `piece` tokens; `PIECES`, the same of each of its pieces
    of at most `piece` tokens, as equal as can be, and of those the logarithm of the mean of exp. NaN for a text without tokens.
    """
    weights, lengths = np.empty(len(starts), np.float64), np.empty(len(starts), np.int64)
    scratch = np.empty(_longest(starts, ends), np.uint64)
    full = float(features_of(piece, ngrams))
    _weigh(starts, ends, data, *tables(), table, ngrams, how, piece, full, weights, lengths, scratch)
    return weights, lengths
