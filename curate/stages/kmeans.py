"""Clusters of documents by their embeddings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa

from curate import centroids
from curate.errors import RecipeError, StageError
from curate.stage import Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import write_table

CLUSTERS = 10_000  # at most
PER_CENTROID = 256  # vectors to train on; with more the objective falls by less than half a percent
SMALL = 16_384  # all of so many are trained on
SAMPLE = 524_288  # vectors to train on, at most
NUMBERS = 1 << 28  # in the sample, at most: 1 GB
CONSIDERED = 1 << 19  # documents that may be in a sample, at least
TOLERANCE = 1e-4
MOVES = 4  # times that centroids without vectors are put elsewhere
NAME = "centroids.parquet"
_WITHOUT = "documents without an embedding, in no cluster"


@dataclass(frozen=True, kw_only=True)
class Kmeans(GlobalStage):
    """Puts each document into one of k clusters by its embedding.

    column: embeddings, as lists of floating-point numbers, all of one size. A document is in no cluster, and counted, if its
    embedding is null or has a null, NaN or infinite number; also with only zeros (spherical), or a number beyond 1e15 (not
    spherical). k: clusters, 1 to 10,000. There are fewer where fewer embeddings differ, and a note says so. spherical: nearest
    is the highest cosine, and lengths do not matter; else nearest is the smallest Euclidean distance.

    sample: embeddings that the clusters are trained on, chosen by a hash of (seed, file, record); not given, 256 a cluster, at
    least 16,384, and at most 524,288 or 1 GB. init: `k-means++` begins with embeddings that are spread out, `random` with any.
    iterations: at most; training ends before where the objective falls by less than 0.01%. A cluster that becomes empty begins
    anew at the embedding that is farthest from its own. seed: of the sample and the training. keep: leave the centroids in
    the run as `index/<stage>/centroids.parquet`, with the columns of the state.

    Columns written: `into` (int32, 0 for the cluster that is largest in the sample, and so on; null without an embedding) and
    `<into>_distance` (float32): 1 - cosine to the centroid, or the Euclidean distance. Reasons: none.

    The state that later stages may read has a row for each cluster: `cluster` (int32), `size` (int64, of the sample),
    `distance` (float64, mean in the sample) and `centroid` (fixed_size_list<float32>, of length one where spherical).

    Which cluster is nearest is exact, so batches, shards, workers and memory change nothing; the centroids are the same on one
    kind of CPU. More than one cluster needs FAISS (the extra `cluster`).

    Source: k-means (Lloyd 1982, doi:10.1109/TIT.1982.1056489), spherical (Dhillon and Modha 2001, doi:10.1023/A:1007612920971),
    k-means++ (Arthur and Vassilvitskii 2007, https://dl.acm.org/doi/10.5555/1283383.1283494), with FAISS (Douze et al. 2024,
    arXiv:2401.08281).

    >>> import pyarrow as pa
    >>> vectors = pa.array([[1, 0], [0, 1], [2, 0.1], [1, 0], None], pa.list_(pa.float32(), 2))
    >>> docs = pa.table({"text": ["a cat", "a train", "one cat", "cats", ""], "embedding": vectors})
    >>> Kmeans(k=2)(docs).kept["cluster"].to_pylist()
    [0, 1, 0, 0, None]
    """

    column: str = "embedding"
    k: int = 64
    into: str = "cluster"
    spherical: bool = True
    init: Literal["k-means++", "random"] = "k-means++"
    iterations: int = 25
    sample: int | None = None
    seed: int = 42
    keep: bool = False

    def __post_init__(self) -> None:
        if not self.column:
            raise RecipeError("kmeans: column is empty; name a column of embeddings")
        if not 1 <= self.k <= CLUSTERS:
            raise RecipeError(f"kmeans: k is {self.k}; give 1 to {CLUSTERS:,}")
        if not self.into or self.into.startswith("_"):
            raise RecipeError(f"kmeans: into is {self.into!r}; give the name of a column, not beginning with an underscore")
        if self.init not in ("k-means++", "random"):
            raise RecipeError(f"kmeans: init is {self.init!r}; it is 'k-means++' or 'random'")
        if self.iterations < 1:
            raise RecipeError(f"kmeans: iterations is {self.iterations}; give at least 1")
        if self.sample is not None and self.sample < self.k:
            raise RecipeError(f"kmeans: sample is {self.sample}; give at least k = {self.k}, or leave it out")

    def bound(self, columns: Collection[str]) -> Stage:
        if self.k > 1:
            centroids.require("stage 'kmeans'")
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.column, "file", "record")))

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.int32()), (f"{self.into}_distance", pa.float32())])

    def sample_size(self) -> int:
        """How many vectors are trained on, but for the limit on the numbers in them."""
        return self.sample or min(max(self.k * PER_CENTROID, SMALL), SAMPLE)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [Step("sample", partial(_sample, self, n_docs), reads=self.fit_reads()), Step("centroids", partial(_fit, self))]

    def open(self, task: Task) -> BatchFn:
        state = task.state(self)
        if task.rank == 0 and 0 < state.num_rows < self.k:
            task.count(f"clusters, not the {self.k:,} asked for: no more embeddings differ", state.num_rows)
        return partial(self._process, centroids.matrix_of(state["centroid"]), task)

    def _process(self, trained: np.ndarray, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows, vectors = self._vectors(batch)
        if len(rows) < batch.num_rows:
            task.count(_WITHOUT, batch.num_rows - len(rows))
        cluster, distance = np.zeros(batch.num_rows, np.int32), np.zeros(batch.num_rows, np.float32)
        missing = np.ones(batch.num_rows, bool)
        if len(rows) and len(trained):
            index, away = _assigned(vectors, trained, self.spherical)
            cluster[rows], distance[rows], missing[rows] = index, away, False
        found = {self.into: pa.array(cluster, mask=missing), f"{self.into}_distance": pa.array(distance, mask=missing)}
        return with_columns(batch, found)

    def _vectors(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        try:
            return centroids.vectors_of(batch[self.column], spherical=self.spherical)
        except ValueError as error:
            raise StageError(f"kmeans: column {self.column!r} holds no embeddings: {error}") from None


def _assigned(vectors: np.ndarray, trained: np.ndarray, spherical: bool) -> tuple[np.ndarray, np.ndarray]:
    """(number of the nearest centroid, distance to it, float64) of each vector."""
    index, score = centroids.nearest(vectors, trained, spherical=spherical)
    return index, np.maximum(1 - score, 0) if spherical else np.sqrt(score)


# --------------------------------------------------------------------------------------------- the steps of the fit


def _sample(stage: Kmeans, n_docs: int, task: Task, batches: Batches) -> None:
    """Vectors of a shard whose hash is low enough that they may be in the sample."""
    from curate.kernels.keys import order_hash

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in batches:
            rows, vectors = stage._vectors(batch)
            at = pa.array(rows)
            if len(rows) and pa.types.is_float16(batch[stage.column].type.value_type):
                vectors = vectors.astype(np.float16)  # as they are in the column
            yield order_hash(stage.seed, batch["file"].take(at), batch["record"].take(at)), vectors

    share = max(centroids.OVERSAMPLE * stage.sample_size(), CONSIDERED) / max(n_docs, 1)
    path = task.folder(stage) / "sample" / task.shards[task.shard or 0]
    centroids.write_sample(path, parts(), share, stage="kmeans", column=stage.column, limit=task.memory_limit // 16)


def _fit(stage: Kmeans, task: Task) -> None:
    """The centroids, largest cluster first."""
    paths = [task.folder(stage) / "sample" / name for name in task.shards]
    _, size = centroids.sample_totals(paths, stage="kmeans", column=stage.column)
    most = min(stage.sample_size(), max(1, NUMBERS // max(size, 1)))
    vectors = centroids.read_sample(paths, most, spherical=stage.spherical)
    trained, sizes, means = _trained(stage, vectors)
    task.count("embeddings sampled", len(vectors))
    task.count("clusters", len(trained))
    order = sorted(range(len(trained)), key=lambda i: (-sizes[i], trained[i].tobytes()))
    flat = pa.array(trained[order].ravel())
    table = pa.table(
        {
            "cluster": pa.array(range(len(order)), pa.int32()),
            "size": pa.array(sizes[order], pa.int64()),
            "distance": pa.array(means[order], pa.float64()),
            "centroid": pa.FixedSizeListArray.from_arrays(flat, size) if size else pa.array([], pa.null()),
        }
    )
    write_table(task.folder(stage) / "state.parquet", table)
    if stage.keep and task.root is not None:
        write_table(task.kept(stage) / NAME, table)


def _trained(stage: Kmeans, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centroids; how many of the vectors each is nearest to, none of them 0; their mean distance)."""
    train = partial(centroids.train, vectors, seed=stage.seed, spherical=stage.spherical, tolerance=TOLERANCE)
    trained = train(stage.k, iterations=stage.iterations, init=stage.init)
    for move in range(MOVES + 1):
        index, away = _assigned(vectors, trained, stage.spherical) if len(vectors) else (np.empty(0, int), np.empty(0))
        sizes = np.bincount(index, minlength=len(trained))
        empty = np.flatnonzero(sizes == 0)
        far = np.flatnonzero(away > 1e-6 * away.max(initial=0)) if len(empty) and move < MOVES else empty[:0]
        if not len(far):
            break
        # farthest first, and no two that are equal
        far = far[np.argsort(-away[far], kind="stable")][: 4 * len(empty)]
        _, first = np.unique(vectors[far], axis=0, return_index=True)
        far = far[np.sort(first)][: len(empty)]
        trained[empty[: len(far)]] = vectors[far]
        trained = train(len(trained), iterations=2, init=trained)
    used = sizes > 0
    means = np.bincount(index, weights=away, minlength=len(trained))[used] / sizes[used]
    return trained[used], sizes[used], means
