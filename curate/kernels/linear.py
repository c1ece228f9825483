"""Outputs of a linear head, with the same bits whatever the batch: a matrix product of a library rounds by the shape of all."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def outputs(vectors: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """float64 (n, outputs) of vectors float32 (n, dim), weights float64 (outputs, dim) and bias float64 (outputs)."""
    n, dim = vectors.shape
    found = np.empty((n, len(weights)), np.float64)
    for i in range(n):
        for k in range(len(weights)):
            parts = np.zeros(8)  # sums side by side, which do not wait for each other
            for at in range(0, dim - 7, 8):
                for j in range(8):
                    parts[j] += vectors[i, at + j] * weights[k, at + j]
            total = bias[k]
            for at in range(dim - dim % 8, dim):
                total += vectors[i, at] * weights[k, at]
            for j in range(8):
                total += parts[j]
            found[i, k] = total
    return found
