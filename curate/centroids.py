"""k-means through FAISS: centroids of a sample, and the nearest centroid of each vector.

Training adds up floating-point numbers in an order that depends on the number of threads, so it has one thread, wherever it
runs, and the same sample in the same order gives the same centroids on one kind of CPU. Which centroid is nearest is exact
(see `curate.kernels.vectors`), so assigning may use what threads there are, and batches of any size.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import numpy as np

from curate.errors import MissingExtra

ITERATIONS = 20
_CELLS = 1 << 22  # of a block of products: 16 MB


def require(needed_by: str) -> None:
    """Raises MissingExtra where FAISS is not installed; does not import it."""
    if importlib.util.find_spec("faiss") is None:
        raise MissingExtra("faiss-cpu", "cluster", needed_by)


def train(vectors: np.ndarray, k: int, *, seed: int, spherical: bool = True, iterations: int = ITERATIONS) -> np.ndarray:
    """Centroids (float32, one a row) of the vectors (float32).

    k: how many; fewer where there are fewer vectors. spherical: nearest is the highest cosine, and centroids have length one;
    give vectors of length one. Else nearest is the smallest Euclidean distance. A cluster that loses all its vectors takes
    half of a larger one, so none is empty. Raises MissingExtra without FAISS, which one centroid does not need.
    """
    k = min(k, len(vectors))
    if k <= 1:
        centroids = vectors.mean(axis=0, dtype=np.float64, keepdims=True) if k else vectors[:0]
        return _unit(centroids) if spherical else centroids.astype(np.float32)
    require("k-means")
    import faiss

    kmeans = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=iterations,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,  # below it, FAISS warns
        max_points_per_centroid=-(-len(vectors) // k),  # above it, FAISS samples once more
    )
    with _one_thread(faiss):
        kmeans.train(np.ascontiguousarray(vectors, np.float32))
    centroids = np.asarray(kmeans.centroids)
    return _unit(centroids) if spherical else centroids


def _unit(centroids: np.ndarray) -> np.ndarray:
    """Rows of length one; a row of zeros, as the mean of opposite vectors is, stays."""
    lengths = np.sqrt(np.square(centroids.astype(np.float64)).sum(axis=1, keepdims=True))
    return (centroids / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@contextlib.contextmanager
def _one_thread(faiss) -> Iterator[None]:  # type: ignore[no-untyped-def]
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # its BLAS is built on the same OpenMP
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def nearest(vectors: np.ndarray, centroids: np.ndarray, *, spherical: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(number of the nearest centroid of each row, uint32, the first of equals; float64).

    vectors, centroids: float32. The second is the cosine where spherical (of centroids of length one), else the squared
    distance. Exact: neither the batch nor the machine matters.
    """
    from curate.kernels.vectors import nearest_rows, slack, squares

    index = np.empty(len(vectors), np.uint32)
    score = np.empty(len(vectors), np.float64)
    squared = squares(vectors)
    lengths = np.sqrt(squared)
    bias = np.zeros(len(centroids)) if spherical else squares(centroids) / -2
    longest = np.sqrt(squares(centroids).max(initial=0))
    reach = lengths * longest + np.abs(bias).max(initial=0)
    rows = max(1, _CELLS // max(len(centroids), 1))
    for at in range(0, len(vectors), rows):
        part = slice(at, at + rows)
        products = vectors[part] @ centroids.T
        error = slack(vectors.shape[1])
        nearest_rows(products, vectors[part], reach[part], centroids, bias, error, index[part], score[part])
    if spherical:
        return index, score / lengths
    return index, np.maximum(squared - 2 * score, 0)
