"""Squared distances to a few rows of a matrix, for centroids to begin with."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def nearer(vectors: np.ndarray, rows: np.ndarray, distance: np.ndarray, out: np.ndarray) -> None:
    """out[j, i]: the squared distance of vector i to vector rows[j], or distance[i] where that is lower.

    vectors: float32 (n, d); rows: int64 (m); distance: float32 (n); out: float32 (m, n). Sums are in single precision, in an
    order that depends on the kind of CPU; the distance of equal vectors is 0.
    """
    for i in range(len(vectors)):
        here = vectors[i]
        for j in range(len(rows)):
            there = vectors[rows[j]]
            total = np.float32(0)
            for at in range(len(here)):
                away = here[at] - there[at]
                total += away * away
            out[j, i] = min(total, distance[i])
