"""k-means through FAISS: a sample of a corpus, its centroids, and the nearest centroid of each vector.

Training adds up floating-point numbers in an order that depends on the number of threads, so it has one thread, wherever it
runs, and the same sample in the same order gives the same centroids on one kind of CPU. Which centroid is nearest is exact
(see `curate.kernels.vectors`), so assigning may use what threads there are, and batches of any size.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import MissingExtra, StageError
from curate.storage import TableWriter, open_table, packed_halves, read_json, unpacked_halves, write_json

ITERATIONS = 20
OVERSAMPLE = 4  # so that a sample is whole though earlier stages have dropped up to three quarters
_CELLS = 1 << 22  # of a block of products: 16 MB
_CHUNK = 5  # iterations between two looks at the objective
_HUGE = 1e15  # above it, squares of single precision overflow


def require(needed_by: str) -> None:
    """Raises MissingExtra where FAISS is not installed; does not import it."""
    if importlib.util.find_spec("faiss") is None:
        raise MissingExtra("faiss-cpu", "cluster", needed_by)


# --------------------------------------------------------------------------------------------- vectors of a column


def vectors_of(values: pa.Array, *, spherical: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the rows that have a vector, int64; their vectors, float32 with one row each).

    values: lists of floating-point numbers, of a fixed size or all of one length; or nulls. A row has no vector if it is null,
    or one of its numbers is null, NaN or infinite; where spherical, also if all are zero; else also if one is beyond 1e15.
    Where spherical only directions count: what single precision cannot square is multiplied by a power of two first.
    Raises ValueError where `values` is something else.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"it is {kind}, not a list of floating-point numbers")
    rows = np.flatnonzero(pc.is_valid(values).to_numpy(zero_copy_only=False))
    given = values.drop_null()
    sizes = pc.unique(pc.list_value_length(given)).to_pylist()
    if len(sizes) > 1:
        raise ValueError(f"it has lists of {min(sizes)} and of {max(sizes)} numbers")
    if not sizes or not sizes[0]:
        return np.empty(0, np.int64), np.empty((0, *(sizes or [0])), np.float32)
    flat = given.flatten()
    if flat.null_count:
        flat = pc.fill_null(flat.cast(pa.float64()), float("nan"))
    numbers = flat.to_numpy(zero_copy_only=False).reshape(len(rows), sizes[0])
    if numbers.dtype == np.float16:
        numbers = numbers.astype(np.float32)
    largest = np.abs(numbers).max(axis=1)  # NaN for a row with one
    good = np.isfinite(largest) & ((largest > 0) if spherical else (largest <= _HUGE))
    if not good.all():
        rows, numbers, largest = rows[good], numbers[good], largest[good]
    if spherical:
        _, exponents = np.frexp(largest)
        far = np.abs(exponents) > 24
        if far.any():
            numbers = np.ldexp(numbers, np.where(far, -exponents, 0)[:, None])
    return rows, numbers.astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one (float32); a row of zeros, as the mean of opposite vectors is, stays."""
    lengths = np.sqrt(np.square(vectors.astype(np.float64)).sum(axis=1, keepdims=True))
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


# --------------------------------------------------------------------------------------------- a sample of a corpus


def same_size(stage: str, column: str, sizes: Iterable[int]) -> int:
    """The one size that all embeddings of a column have; 0 if there are none. Raises StageError where there are several."""
    found = {size for size in sizes if size}
    if len(found) > 1:
        raise StageError(
            f"{stage}: column {column!r} has embeddings of {min(found)} and of {max(found)} numbers: "
            f"they come from different models, and cannot be compared"
        )
    return found.pop() if found else 0


def _about(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def write_sample(
    path: Path, parts: Iterable[tuple[np.ndarray, np.ndarray]], share: float, *, stage: str, column: str, limit: int
) -> None:
    """Keep those vectors of a shard whose hash is low enough that they may be in a sample; beside them, how many there are.

    parts: (hashes, uint64; vectors, float16 or float32, one a row), in the order of the documents. share: of all hashes, what
    is kept. limit: bytes that are held at once. stage, column: for messages. Raises StageError for vectors of several sizes.
    """
    bound = np.uint64(min(share, 1.0) * (2.0**64 - 2**11))
    total, size, held, kind = 0, 0, 0, "float16"
    tables: list[pa.Table] = []
    with contextlib.ExitStack() as stack:
        writer = None
        for hashes, vectors in parts:
            if not len(hashes):
                continue
            total += len(hashes)
            size = same_size(stage, column, (size, vectors.shape[1]))
            kind = vectors.dtype.name
            low = np.flatnonzero((hashes <= bound) | (share >= 1))
            chosen = np.ascontiguousarray(vectors[low]).view(np.float16)  # the bytes, whatever they are
            tables.append(pa.table({"hash": hashes[low], "vector": packed_halves(chosen)}))
            held += tables[-1].nbytes
            writer = writer or stack.enter_context(TableWriter(path, tables[0].schema, codec="lz4"))
            if held >= limit:
                writer.write(pa.concat_tables(tables).combine_chunks())
                tables, held = [], 0
        if writer and tables:
            writer.write(pa.concat_tables(tables).combine_chunks())
    write_json(_about(path), {"vectors": total, "numbers": size, "type": kind})


def sample_totals(paths: Sequence[Path], *, stage: str, column: str) -> tuple[int, int]:
    """(vectors of the corpus, numbers in each) of what `write_sample` has seen. Raises StageError for several sizes."""
    about = [read_json(_about(path)) for path in paths]
    return sum(a["vectors"] for a in about), same_size(stage, column, (a["numbers"] for a in about))


def read_sample(paths: Sequence[Path], most: int, *, spherical: bool = True) -> np.ndarray:
    """The vectors (float32, of length one where spherical) with the lowest hashes, in the order of these; of equal ones, the
    first of the corpus first. paths: of `write_sample`, in the order of the shards."""
    about = [read_json(_about(path)) for path in paths]
    size = max((a["numbers"] for a in about), default=0)
    hashes = [_hashes(path) if a["vectors"] else np.empty(0, np.uint64) for path, a in zip(paths, about, strict=True)]
    lowest = np.concatenate([*hashes, np.empty(0, np.uint64)])
    order = np.argsort(lowest, kind="stable")[:most]
    place = np.full(len(lowest), -1, np.int64)
    place[order] = np.arange(len(order))
    vectors = np.empty((len(order), size), np.float32)
    begin = 0
    for path, part, what in zip(paths, hashes, about, strict=True):
        wanted = place[begin : begin + len(part)]
        begin += len(part)
        if not (wanted >= 0).any():
            continue
        with open_table(path) as file:
            done = 0
            for group in range(file.num_row_groups):
                raw = unpacked_halves(file.read_row_group(group, columns=["vector"], use_threads=False)["vector"])
                here = wanted[done : done + len(raw)]
                done += len(raw)
                found = raw[here >= 0].view(what["type"]).astype(np.float32)
                vectors[here[here >= 0]] = _unit_rows(found) if spherical else found
    return vectors


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    from curate.kernels.vectors import squares

    return vectors / np.sqrt(squares(vectors))[:, None].astype(np.float32)


def _hashes(path: Path) -> np.ndarray:
    with open_table(path) as file:
        return file.read(["hash"], use_threads=False)["hash"].to_numpy() if file.num_row_groups else np.empty(0, np.uint64)


# --------------------------------------------------------------------------------------------- centroids


def train(
    vectors: np.ndarray,
    k: int,
    *,
    seed: int,
    spherical: bool = True,
    iterations: int = ITERATIONS,
    init: np.ndarray | Literal["random", "k-means++"] = "random",
    tolerance: float = 0.0,
) -> np.ndarray:
    """Centroids (float32, one a row) of the vectors (float32).

    k: how many; fewer where there are fewer vectors. spherical: nearest is the highest cosine, and centroids have length one;
    give vectors of length one. Else nearest is the smallest Euclidean distance. A cluster that loses all its vectors takes
    half of a larger one. init: what to begin with: `random` vectors; `k-means++`, vectors that are spread out, fewer than k
    where fewer differ; or centroids. tolerance: end early where the last of five iterations lowers the objective by less than
    this share of it; 0: never. Raises MissingExtra without FAISS, which one centroid does not need.
    """
    k = min(k, len(vectors))
    if k <= 1:
        centroids = vectors.mean(axis=0, dtype=np.float64, keepdims=True) if k else vectors[:0]
        return unit(centroids) if spherical else centroids.astype(np.float32)
    require("k-means")
    import faiss

    vectors = np.ascontiguousarray(vectors, np.float32)
    with _one_thread(faiss):
        found: Any = None
        if not isinstance(init, str):
            found = init
        elif init == "k-means++":
            found = spread_out(vectors, k, seed)
            if len(found) < k:
                return found  # as many as there are different vectors: each is the centroid of its copies
        left = iterations
        while left:
            kmeans = faiss.Kmeans(
                vectors.shape[1],
                k,
                niter=min(left, _CHUNK) if tolerance else left,
                seed=seed,
                spherical=spherical,
                min_points_per_centroid=1,  # below it, FAISS warns
                max_points_per_centroid=-(-len(vectors) // k),  # above it, FAISS samples once more
            )
            kmeans.train(vectors, init_centroids=found)
            found = np.asarray(kmeans.centroids)
            objective = np.asarray(kmeans.obj)
            left -= len(objective)
            losses = len(vectors) - objective if spherical else objective
            if tolerance and (len(losses) < 2 or losses[-2] - losses[-1] < tolerance * losses[-1]):
                break
    return unit(found) if spherical else found


def spread_out(vectors: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k different vectors (float32, one a row) to begin with, each chosen with a probability that grows with its squared
    distance to those before it; fewer where fewer differ.

    Of several candidates the one that lowers the sum of squared distances most is taken. They come from the first vectors, as
    many as make this about as dear as two iterations.

    Source: k-means++, with the greedy choice that its authors tried (Arthur and Vassilvitskii 2007,
    https://dl.acm.org/doi/10.5555/1283383.1283494).
    """
    trials = 2 + int(math.log(k))
    most = max(4 * k, 2 * len(vectors) // trials)
    chosen = _distant(vectors[:most], k, trials, seed)
    if len(chosen) < k and most < len(vectors):
        chosen = _distant(vectors, k, trials, seed)
    return vectors[chosen]


def _distant(vectors: np.ndarray, k: int, trials: int, seed: int) -> np.ndarray:
    """Row numbers (int64) for `spread_out`."""
    from curate.kernels.spread import nearer

    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(vectors)))]
    after = np.empty((trials, len(vectors)), np.float32)
    nearer(vectors, np.array(chosen), np.full(len(vectors), np.inf, np.float32), after)
    distance = after[0].copy()
    while len(chosen) < k:
        sums = np.cumsum(distance, dtype=np.float64)
        if not sums[-1] > 0:
            break
        drawn = np.searchsorted(sums, rng.random(trials) * sums[-1], side="right")
        drawn = np.unique(np.minimum(drawn, np.flatnonzero(distance)[-1]))  # the product may round up to the sum
        nearer(vectors, drawn, distance, after)
        best = int(after[: len(drawn)].sum(axis=1, dtype=np.float64).argmin())
        chosen.append(int(drawn[best]))
        distance = after[best].copy()
    return np.array(chosen)


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


def matrix_of(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Centroids (float32, one a row) out of a column of lists of a fixed size."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(values):
        return np.empty((0, 0), np.float32)
    return values.flatten().to_numpy().reshape(len(values), -1)
