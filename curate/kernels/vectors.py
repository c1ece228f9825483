"""Embeddings as rows of a matrix: exact decisions on top of fast, inexact matrix products.

A matrix product in single precision differs in its last bits with the library, the number of threads and the shape of the
blocks. So a product only proposes: wherever it could be wrong by its known error (`slack`), the number is computed again in
double precision, in the order of the components, which is the same everywhere.
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.kernels.chars import inline_kernel, kernel


def slack(dimension: int) -> float:
    """Twice what a product of unit vectors in single precision can be wrong by, in whatever order it is summed up."""
    return (dimension + 8) * 2.0**-23


def halves(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the rows that have a direction, int64; their vectors, float16 with one row each).

    values: lists of floating-point numbers, of a fixed size or all of one length; or nulls. A row without a direction is null,
    has a null, NaN or infinite component, or only zeros. Half precision comes out as it is; of other precisions every vector is
    multiplied by a power of two, which changes no cosine, and rounded to eleven bits a component.
    Raises ValueError where `values` is something else.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return np.empty(0, np.int64), np.empty((0, 0), np.float16)
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"it is {kind}, not a list of floating-point numbers")
    rows = np.flatnonzero(pc.is_valid(values).to_numpy(zero_copy_only=False))
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
    else:
        sizes = pc.unique(pc.list_value_length(values).drop_null()).to_pylist()
        if len(sizes) > 1:
            raise ValueError(f"it has lists of {min(sizes)} and of {max(sizes)} numbers")
        size = sizes[0] if sizes else 0
    if not len(rows) or not size:
        return np.empty(0, np.int64), np.empty((0, size), np.float16)
    flat = values.flatten()  # without the places of null lists
    if flat.null_count:
        flat = pc.fill_null(flat.cast(pa.float64()), float("nan"))
    numbers = flat.to_numpy(zero_copy_only=False).reshape(len(rows), size)
    if numbers.dtype == np.float16:
        bits = (numbers.view(np.uint16) & np.uint16(0x7FFF)).max(axis=1)  # without the sign; infinity is 0x7C00, NaN above it
        good = (bits > 0) & (bits < 0x7C00)
        return (rows, numbers) if good.all() else (rows[good], numbers[good])
    largest = np.abs(numbers).max(axis=1)  # NaN for a row with one
    good = np.isfinite(largest) & (largest > 0)
    _, exponents = np.frexp(largest[good])
    scaled = np.ldexp(numbers if good.all() else numbers[good], (15 - exponents)[:, None])
    return rows[good], scaled.astype(np.float16)  # the largest below 2^15, which cannot round up to infinity


def unit(vectors: np.ndarray) -> np.ndarray:
    """The rows (float16, none of them zero) scaled to length one (float32)."""
    wide = vectors.astype(np.float32)
    wide /= np.sqrt(squares(wide))[:, None].astype(np.float32)
    return wide


@inline_kernel
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@kernel
def _squares(vectors: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(vectors)):
        out[i] = _dot(vectors[i], vectors[i])


def squares(vectors: np.ndarray) -> np.ndarray:
    """Squared length (float64) of each row (float32)."""
    out = np.empty(len(vectors), np.float64)
    _squares(vectors, out)
    return out


@kernel
def nearest_rows(
    products: np.ndarray,
    vectors: np.ndarray,
    lengths: np.ndarray,
    centroids: np.ndarray,
    bias: np.ndarray,
    error: float,
    index: np.ndarray,
    score: np.ndarray,
) -> None:
    """The centroid of the highest score (uint32 `index`), the first of equals, and the exact score (float64).

    The score of row i and centroid j is their product, of which products[i, j] is an estimate, plus bias[j]. lengths: at least
    the length of each row; error: by how much an estimate may be wrong for a row of length one.
    """
    for i in range(len(products)):
        row = products[i]
        most = row[0] + bias[0]
        for j in range(len(row)):
            most = max(most, row[j] + bias[j])
        least = most - 2 * error * lengths[i]
        best, at = -np.inf, 0
        for j in range(len(row)):
            if row[j] + bias[j] >= least:
                exact = _dot(vectors[i], centroids[j]) + bias[j]
                if exact > best:
                    best, at = exact, j
        index[i] = at
        score[i] = best


@kernel
def absorb(
    products: np.ndarray,
    rows: np.ndarray,
    vectors: np.ndarray,
    squared: np.ndarray,
    leaders: np.ndarray,
    leaders_squared: np.ndarray,
    leaders_lengths: np.ndarray,
    first: int,
    threshold: float,
    error: float,
    found: np.ndarray,
    cosine: np.ndarray,
) -> None:
    """For each of `rows` the first leader whose cosine reaches the threshold: its number from `first` on into `found` (int64)
    and the cosine (float64); both stay as they are where there is none. products[i, j]: estimate for rows[i] and leader j."""
    for i in range(len(rows)):
        row, row_products = rows[i], products[i]
        least = (threshold - error) * np.sqrt(squared[row])
        for j in range(products.shape[1]):
            if row_products[j] >= least * leaders_lengths[j]:
                exact = _dot(vectors[row], leaders[j]) / np.sqrt(squared[row] * leaders_squared[j])
                if exact >= threshold:
                    found[row] = first + j
                    cosine[row] = min(exact, 1.0)
                    break


@numba.njit(cache=True, nogil=True)
def elect(
    products: np.ndarray,
    vectors: np.ndarray,
    squared: np.ndarray,
    threshold: float,
    error: float,
    room: int,
    leader: np.ndarray,
    cosine: np.ndarray,
) -> int:
    """The leader rule among rows that have no leader yet, in their order. Returns how many became leaders.

    leader (int64): the row of the first leader here whose cosine reaches the threshold; the row itself where it becomes one;
    -1 where it cannot, since `room` others have. products[i, j]: estimate for rows i and j.
    """
    lengths = np.sqrt(squared)
    chosen = np.empty(len(vectors), np.int64)
    n = 0
    for i in range(len(vectors)):
        leader[i] = -1
        least = (threshold - error) * lengths[i]
        for c in range(n):
            j = chosen[c]
            if products[i, j] >= least * lengths[j]:
                exact = _dot(vectors[i], vectors[j]) / np.sqrt(squared[i] * squared[j])
                if exact >= threshold:
                    leader[i] = j
                    cosine[i] = min(exact, 1.0)
                    break
        if leader[i] < 0 and n < room:
            leader[i] = i
            chosen[n] = i
            n += 1
    return n


class Leaders:
    """The leader rule over vectors that come in blocks, in the order of preference.

    Each vector goes to the earliest leader whose cosine to it is at least `threshold`, else it becomes a leader itself; when
    there are `most` leaders, no more are taken. Memory follows the number of leaders, time that number times the vectors.
    """

    CHUNK = 4096  # leaders in one product

    def __init__(self, dimension: int, threshold: float, most: int):
        self._threshold, self._error, self._most = threshold, slack(dimension), most
        self._vectors = np.empty((0, dimension), np.float32)
        self._squared = np.empty(0, np.float64)
        self._lengths = np.empty(0, np.float64)
        self._n = 0

    def add(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(number of the leader of each row of the block, int64, -1 where it has none; its cosine, float64, NaN for a leader).

        vectors: float32, no row zero; the numbers of leaders count on from block to block.
        """
        squared = squares(vectors)
        found = np.full(len(vectors), -1, np.int64)
        cosine = np.full(len(vectors), np.nan)
        rest = np.arange(len(vectors))
        for at in range(0, self._n, self.CHUNK):
            end = min(at + self.CHUNK, self._n)
            leaders = self._vectors[at:end]
            block = vectors if len(rest) == len(vectors) else vectors[rest]
            absorb(
                block @ leaders.T, rest, vectors, squared, leaders, self._squared[at:end], self._lengths[at:end], at,
                self._threshold, self._error, found, cosine,
            )  # fmt: skip
            rest = rest[found[rest] < 0]
            if not len(rest):
                return found, cosine
        block, rest_squared = vectors[rest], squared[rest]
        leader, near = np.empty(len(rest), np.int64), np.full(len(rest), np.nan)
        room = self._most - self._n
        elect(block @ block.T, block, rest_squared, self._threshold, self._error, room, leader, near)
        new = np.flatnonzero(leader == np.arange(len(rest)))
        number = np.full(len(rest), -1, np.int64)
        number[new] = self._n + np.arange(len(new))
        found[rest] = np.where(leader < 0, -1, number[np.maximum(leader, 0)])
        cosine[rest] = near
        self._append(block[new], rest_squared[new])
        return found, cosine

    def _append(self, vectors: np.ndarray, squared: np.ndarray) -> None:
        end = self._n + len(vectors)
        if end > len(self._vectors):
            room = min(max(2 * len(self._vectors), end, 256), max(self._most, end))
            grown = np.empty((room, vectors.shape[1]), np.float32)
            grown[: self._n] = self._vectors[: self._n]
            self._vectors = grown
        self._vectors[self._n : end] = vectors
        self._squared = np.append(self._squared, squared)
        self._lengths = np.append(self._lengths, np.sqrt(squared))
        self._n = end
