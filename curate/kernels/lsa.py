"""Latent semantic analysis: features of texts, the singular vectors of a sparse matrix, and the projection of texts.

Everything that adds up does so here, in an order that the data alone decide: no BLAS, whose sums depend on the number of
threads and on the processor. The same sample gives the same vectors, bit for bit, whoever computes it.
"""

from __future__ import annotations

import numba
import numpy as np

from curate.kernels.chars import kernel
from curate.kernels.hashes import SPREAD, finish
from curate.kernels.shingles import PADDING, Folding, fold_arguments, power_of, room, shingles_of

LOGS = 1 + np.log(np.maximum(np.arange(4096), 1)).astype(np.float32)  # weight of a feature that a text has so often
LOGS[0] = 0


@kernel
def _features_of(data, start, end, ascii, points, bits, collapse, pairs, one, two, narrow, wide, edges, prefixes, out):
    """Hashes of the words of a text, and with `pairs` of each two in a row, repeats included; returns how many."""
    count = shingles_of(
        data, start, end, ascii, points, bits, collapse, False, 1, one, narrow, wide, edges, prefixes, out
    )  # fmt: skip
    words = count
    if pairs:
        for i in range(words - 1):
            out[count] = finish(prefixes[i + 2] - prefixes[i] * two)
            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _count(starts, ends, data, ascii, points, bits, collapse, pairs, one, two, most):
    n = len(starts)
    longest = np.int64(0)
    size = np.int64(0)
    for i in range(n):
        longest = max(longest, ends[i] - starts[i])
        size += min(2 * room(ends[i] - starts[i], False), most)
    units = room(longest, False)
    prefixes, found = np.empty(units, np.uint64), np.empty(2 * units, np.uint64)
    wide = np.empty((longest + PADDING) // 8 + 1, np.uint64)
    narrow, edges = wide.view(np.uint8), np.empty(longest + 2, np.int32)
    slots = 16
    while slots < 2 * min(2 * units, most):
        slots *= 2
    table, stamps, places = np.empty(slots, np.uint64), np.zeros(slots, np.uint32), np.empty(slots, np.int64)
    hashes, counts = np.empty(size, np.uint64), np.empty(size, np.uint32)
    bounds = np.zeros(n + 1, np.int64)
    used = np.int64(0)
    last = np.uint64(slots - 1)
    for i in range(n):
        first, stamp = used, np.uint32(i + 1)
        count = _features_of(
            data, starts[i], ends[i], ascii, points, bits, collapse, pairs, one, two, narrow, wide, edges, prefixes, found
        )
        for k in range(count):
            value = found[k]
            at = value & last
            while stamps[at] == stamp and table[at] != value:
                at = (at + np.uint64(1)) & last
            if stamps[at] == stamp:
                counts[places[at]] += np.uint32(1)
            elif used - first < most:
                stamps[at], table[at], places[at] = stamp, value, used
                hashes[used], counts[used] = value, np.uint32(1)
                used += 1
        bounds[i + 1] = used
    return bounds, hashes[:used].copy(), counts[:used].copy()


def count_features(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, fold: Folding, pairs: bool, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(int64 bounds, uint64 hashes, uint32 counts): the features of each text data[starts[i]:ends[i]], each once, in the
    order of their first places.

    pairs: also of two words that follow one another. most: features of a text that are looked at, the first so many.
    """
    return _count(starts, ends, data, *fold_arguments(fold), pairs, power_of(1), power_of(2), most)


@numba.njit(cache=True, nogil=True)
def index_hashes(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 keys, int32 rows): open addressing over the hashes; row -1 where a slot is free."""
    slots = 16
    while slots < 4 * len(hashes):
        slots *= 2
    keys, rows = np.zeros(slots, np.uint64), np.full(slots, -1, np.int32)
    last = np.uint64(slots - 1)
    for i in range(len(hashes)):
        at = hashes[i] & last
        while rows[at] >= 0:
            at = (at + np.uint64(1)) & last
        keys[at], rows[at] = hashes[i], i
    return keys, rows


@numba.njit(cache=True, nogil=True)
def find_hashes(hashes: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Row (int32) of each hash in what `index_hashes` made; -1 where there is none."""
    found = np.empty(len(hashes), np.int32)
    last = np.uint64(len(keys) - 1)
    for i in range(len(hashes)):
        at = hashes[i] & last
        while rows[at] >= 0 and keys[at] != hashes[i]:
            at = (at + np.uint64(1)) & last
        found[i] = rows[at]
    return found


@numba.njit(cache=True, nogil=True)
def _project(starts, ends, data, ascii, points, bits, collapse, pairs, one, two, keys, rows, weights, logs, vectors, out):
    n, dim = out.shape
    longest = np.int64(0)
    for i in range(n):
        longest = max(longest, ends[i] - starts[i])
    units = room(longest, False)
    prefixes, found = np.empty(units, np.uint64), np.empty(2 * units if pairs else units, np.uint64)
    wide = np.empty((longest + PADDING) // 8 + 1, np.uint64)
    narrow, edges = wide.view(np.uint8), np.empty(longest + 2, np.int32)
    tally, touched = np.zeros(len(vectors), np.int32), np.empty(len(vectors), np.int32)
    total = np.empty(dim, np.float32)
    last, most = np.uint64(len(keys) - 1), len(logs) - 1
    for i in range(n):
        count = _features_of(
            data, starts[i], ends[i], ascii, points, bits, collapse, pairs, one, two, narrow, wide, edges, prefixes, found
        )
        used = 0
        for k in range(count):
            at = found[k] & last
            while rows[at] >= 0 and keys[at] != found[k]:
                at = (at + np.uint64(1)) & last
            row = rows[at]
            if row >= 0:
                if tally[row] == 0:
                    touched[used] = row
                    used += 1
                tally[row] += 1
        total[:] = 0
        for k in range(used):
            row = touched[k]
            weight = weights[row] * logs[min(tally[row], most)]
            tally[row] = 0
            for d in range(dim):
                total[d] += weight * vectors[row, d]
        square = 0.0
        for d in range(dim):
            square += np.float64(total[d]) * np.float64(total[d])
        if square > 0:
            scale = 1 / np.sqrt(square)
            for d in range(dim):
                out[i, d] = total[d] * scale
        else:
            out[i, :] = np.nan


def project(
    starts: np.ndarray, ends: np.ndarray, data: np.ndarray, fold: Folding, pairs: bool,
    keys: np.ndarray, rows: np.ndarray, weights: np.ndarray, vectors: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Vectors (float32, one a text, of length one) of texts: the sum of the rows of `vectors` for the features that are known,
    times their `weights` (float32) and 1 + ln of how often each is there. NaN where none is known."""
    out = np.empty((len(starts), vectors.shape[1]), np.float32)
    arguments = (*fold_arguments(fold), pairs, power_of(1), power_of(2))
    _project(starts, ends, data, *arguments, keys, rows, weights, LOGS, vectors, out)
    return out


# --------------------------------------------------------------------------------------------- singular vectors


@numba.njit(cache=True, nogil=True)
def signs(hashes: np.ndarray, seed: int, width: int) -> np.ndarray:
    """A random matrix of -1 and 1 (float32), a row for each hash: of the same hash and seed always the same."""
    out = np.empty((len(hashes), width), np.float32)
    for i in range(len(hashes)):
        h = finish(hashes[i] ^ np.uint64(seed) * SPREAD)
        bits = h
        for j in range(width):
            if j & 63 == 0:
                h += SPREAD
                bits = finish(h)
            out[i, j] = np.float32(1) if bits >> np.uint64(j & 63) & np.uint64(1) else np.float32(-1)
    return out


@numba.njit(cache=True, nogil=True)
def sparse_times(bounds: np.ndarray, columns: np.ndarray, values: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """A sparse matrix (rows values[bounds[i]:bounds[i + 1]] at `columns`) times a dense one, float32."""
    out = np.zeros((len(bounds) - 1, dense.shape[1]), np.float32)
    for i in range(len(out)):
        for k in range(bounds[i], bounds[i + 1]):
            column, value = columns[k], values[k]
            for j in range(dense.shape[1]):
                out[i, j] += value * dense[column, j]
    return out


@numba.njit(cache=True, nogil=True)
def transposed(bounds: np.ndarray, columns: np.ndarray, values: np.ndarray, width: int) -> tuple:
    """The transpose of a sparse matrix with `width` columns, in the same form."""
    begins = np.zeros(width + 1, np.int64)
    for k in range(len(columns)):
        begins[columns[k] + 1] += 1
    for j in range(width):
        begins[j + 1] += begins[j]
    places = begins[:-1].copy()
    rows, moved = np.empty(len(columns), np.int32), np.empty(len(columns), np.float32)
    for i in range(len(bounds) - 1):
        for k in range(bounds[i], bounds[i + 1]):
            at = places[columns[k]]
            rows[at], moved[at] = i, values[k]
            places[columns[k]] += 1
    return begins, rows, moved


@numba.njit(cache=True, nogil=True)
def gram(rows: np.ndarray) -> np.ndarray:
    """The products of the columns with one another: rows.T @ rows, float64."""
    width = rows.shape[1]
    out = np.zeros((width, width))
    block = np.empty((4, width))
    for first in range(0, len(rows) - len(rows) % 4, 4):
        for r in range(4):
            for j in range(width):
                block[r, j] = rows[first + r, j]
        for i in range(width):
            a, b, c, d = block[0, i], block[1, i], block[2, i], block[3, i]
            for j in range(i, width):
                out[i, j] += (a * block[0, j] + b * block[1, j]) + (c * block[2, j] + d * block[3, j])
    for r in range(len(rows) - len(rows) % 4, len(rows)):
        for i in range(width):
            a = np.float64(rows[r, i])
            for j in range(i, width):
                out[i, j] += a * rows[r, j]
    for i in range(width):
        for j in range(i):
            out[i, j] = out[j, i]
    return out


@numba.njit(cache=True, nogil=True)
def times(rows: np.ndarray, square: np.ndarray) -> np.ndarray:
    """rows (float32) @ square (float64), float32, added up in double precision."""
    out = np.empty((len(rows), square.shape[1]), np.float32)
    total = np.empty(square.shape[1])
    for i in range(len(rows)):
        total[:] = 0
        for k in range(square.shape[0]):
            value = np.float64(rows[i, k])
            for j in range(square.shape[1]):
                total[j] += value * square[k, j]
        for j in range(square.shape[1]):
            out[i, j] = total[j]
    return out


@numba.njit(cache=True, nogil=True)
def whitening(products: np.ndarray, least: float) -> np.ndarray:
    """W (float64, upper triangular) with which rows @ W has columns of length one at right angles, from rows.T @ rows.

    A column that is the sum of those before it, but for a share `least` of its length squared, becomes zero.
    """
    width = len(products)
    lower = np.zeros((width, width))
    for j in range(width):
        left = products[j, j]
        for k in range(j):
            left -= lower[j, k] * lower[j, k]
        if left <= least * products[j, j] or not left > 0:
            continue
        lower[j, j] = np.sqrt(left)
        for i in range(j + 1, width):
            value = products[i, j]
            for k in range(j):
                value -= lower[i, k] * lower[j, k]
            lower[i, j] = value / lower[j, j]
    inverse = np.zeros((width, width))  # of the transpose, but for the columns that are left out
    for j in range(width):
        if lower[j, j] == 0:
            continue
        inverse[j, j] = 1 / lower[j, j]
        for i in range(j - 1, -1, -1):
            if lower[i, i] == 0:
                continue
            value = 0.0
            for k in range(i + 1, j + 1):
                value -= lower[k, i] * inverse[k, j]
            inverse[i, j] = value / lower[i, i]
    return inverse


@numba.njit(cache=True, nogil=True)
def eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values, vectors as columns) of a symmetric matrix, float64, largest first: Jacobi's rotations, in a fixed order.

    Source: Golub and Van Loan, Matrix Computations, section 8.5.
    """
    n = len(matrix)
    a, rows = matrix.copy(), np.eye(n)  # eigenvectors as rows, since these are together in memory
    scale = 0.0
    for i in range(n):
        for j in range(n):
            scale += a[i, j] * a[i, j]
    for _ in range(60):
        beside = 0.0
        for i in range(n):
            for j in range(i):
                beside += a[i, j] * a[i, j]
        if beside <= 1e-26 * scale:
            break
        least = np.sqrt(beside) / n * 1e-3
        for p in range(n - 1):
            for q in range(p + 1, n):
                value = a[p, q]
                if abs(value) <= least:
                    continue
                theta = (a[q, q] - a[p, p]) / (2 * value)
                t = 1 / (abs(theta) + np.sqrt(theta * theta + 1))
                if theta < 0:
                    t = -t
                c = 1 / np.sqrt(t * t + 1)
                s = t * c
                for k in range(n):  # the rows, then the same for columns, which are equal but at the crossings
                    one, two = a[p, k], a[q, k]
                    a[p, k], a[q, k] = c * one - s * two, s * one + c * two
                    one, two = rows[p, k], rows[q, k]
                    rows[p, k], rows[q, k] = c * one - s * two, s * one + c * two
                for k in range(n):
                    if k != p and k != q:
                        a[k, p], a[k, q] = a[p, k], a[q, k]
                pp, pq, qp, qq = a[p, p], a[p, q], a[q, p], a[q, q]
                a[p, p], a[q, q] = c * pp - s * pq, s * qp + c * qq
                a[p, q] = a[q, p] = 0.0
    values = np.empty(n)
    for i in range(n):
        values[i] = a[i, i]
    order = np.argsort(-values, kind="mergesort")
    return values[order], np.ascontiguousarray(rows[order].T)
