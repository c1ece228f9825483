"""MinHash signatures of texts and their band keys.

Every shingle has a 64-bit hash, of which the upper half is permuted by x -> a x + b modulo 2^32 with odd a; the minima over the
shingles of a text are its signature. Nothing but the keys of its bands is kept: a 64-bit hash of the rows of each.
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.chars import kernel
from curate.kernels.hashes import SPREAD, mix
from curate.kernels.shingles import PADDING, Folding, fold_arguments, longest_of, power_of, room, shingles_of

LANES = 32  # shingles are padded to a multiple of this, so that the vectorised loop has no remainder


def permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(a, b): uint32 factors, odd, and summands of so many permutations."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, rng.integers(0, 1 << 32, count, dtype=np.uint32)


@kernel
def _minima(upper, count, factors, summands, signature):
    """Minima of the permutations over the first `count` values, a multiple of `LANES`: four at a time, for the loads."""
    for p in range(0, len(factors) - 3, 4):
        a0, a1, a2, a3 = factors[p], factors[p + 1], factors[p + 2], factors[p + 3]
        b0, b1, b2, b3 = summands[p], summands[p + 1], summands[p + 2], summands[p + 3]
        m0 = m1 = m2 = m3 = np.uint32(0xFFFFFFFF)
        for i in range(count):
            x = upper[i]
            m0 = min(m0, np.uint32(x * a0 + b0))
            m1 = min(m1, np.uint32(x * a1 + b1))
            m2 = min(m2, np.uint32(x * a2 + b2))
            m3 = min(m3, np.uint32(x * a3 + b3))
        signature[p], signature[p + 1], signature[p + 2], signature[p + 3] = m0, m1, m2, m3
    for p in range(len(factors) & ~3, len(factors)):
        a, b, m = factors[p], summands[p], np.uint32(0xFFFFFFFF)
        for i in range(count):
            m = min(m, np.uint32(upper[i] * a + b))
        signature[p] = m


@numba.njit(cache=True, nogil=True)
def _band_keys(bounds, data, ascii, points, bits, collapse, chars, ngram, power, factors, summands, bands):
    n, rows = len(bounds) - 1, len(factors) // bands
    longest = longest_of(bounds)
    prefixes, found = np.empty(room(longest, chars), np.uint64), np.empty(room(longest, chars), np.uint64)
    wide = np.empty((longest + PADDING) // 8 + 1, np.uint64)
    narrow, edges = wide.view(np.uint8), np.empty(longest + 2, np.int32)
    upper = np.empty(room(longest, chars) + LANES, np.uint32)
    signature = np.empty(len(factors), np.uint32)
    keys = np.zeros((n, bands), np.uint64)
    counts = np.zeros(n, np.uint32)
    for i in range(n):
        count = shingles_of(
            data, bounds[i], bounds[i + 1], ascii, points, bits, collapse, chars, ngram, power,
            narrow, wide, edges, prefixes, found,
        )  # fmt: skip
        counts[i] = count
        if count == 0:
            continue
        for k in range(count):
            upper[k] = np.uint32(found[k] >> np.uint64(32))
        full = (count + LANES - 1) // LANES * LANES
        for k in range(count, full):
            upper[k] = upper[0]
        _minima(upper, full, factors, summands, signature)
        for band in range(bands):
            key = np.uint64(band + 1) * SPREAD
            for row in range(rows):
                key = mix(key ^ np.uint64(signature[band * rows + row]))
            keys[i, band] = key
    return keys, counts


def band_keys(
    bounds: np.ndarray, data: np.ndarray, fold: Folding, ngram: int, unit: str, bands: int, rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """((texts, bands) uint64 keys, uint32 number of shingles, repeats included) of texts; no shingles, no keys (zeros).

    bounds, data: int32 offsets and bytes of the texts (UTF-8). Two texts are candidates where a key is equal in the same band;
    the number of the band is in the key, so keys of all bands may be sorted together.
    """
    factors, summands = permutations(bands * rows, seed)
    return _band_keys(bounds, data, *fold_arguments(fold), unit == "char", ngram, power_of(ngram), factors, summands, bands)
