"""Near-duplicates by meaning: one document of each set whose embeddings point the same way."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import fit, prefer
from curate.centroids import OVERSAMPLE, nearest, read_sample, require, same_size, sample_totals, train, write_sample
from curate.errors import RecipeError, StageError
from curate.stage import EMPTY, REASON, ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import (
    groups_of,
    open_table,
    packed_halves,
    read_json,
    read_table,
    unpacked_halves,
    write_json,
    write_partitioned,
    write_table,
)

SMALL = 4096  # so many vectors are one cluster: everything is compared with everything
CLUSTERS = 65_536  # at most
SAMPLE = 262_144  # vectors for training, at most
PER_CENTROID = 256  # with fewer, borders divide more pairs
ROUNDS = 10
NUMBERS = 1 << 27  # in the sample, at most: 512 MB
DOCS_PER_PARTITION = 1 << 19
LEADERS = 1 << 26  # numbers in those of one cluster, at most: 256 MB
BLOCK = 256  # vectors that are compared at once
LABELS = pa.schema([("duplicate_cluster", pa.uint64()), ("cluster_size", pa.uint32()), ("duplicate_of", pa.string())])
DECISIONS = pa.schema(
    [
        ("shard", pa.uint32()),
        ("row", pa.uint32()),
        ("duplicate_of", pa.string()),  # null: it stays
        ("similarity", pa.float64()),
        ("cluster", pa.uint64()),
        ("size", pa.uint32()),
        ("unresolved", pa.bool_()),
    ]
)
_WITHOUT = "documents without an embedding, left alone"
_UNRESOLVED = "documents kept unresolved, since their cluster has too many different ones before them"


@dataclass(frozen=True, kw_only=True)
class SemanticDedup(GlobalStage):
    """Drops documents whose embedding is close to that of a document that stays.

    column: embeddings, as lists of floating-point numbers, all of one size; their length is free, since only the cosine counts.
    Half precision is compared as it is, other precisions are rounded to eleven bits a number first. A document whose embedding
    is null, or has a null, NaN or infinite number, or only zeros, is left alone and counted. threshold: smallest cosine at
    which two documents are duplicates, above 0 and at most 1; the paper's epsilon is 1 - threshold. clusters: k-means clusters
    within which documents are compared; more are faster, and miss pairs that a border divides. Not given, it is 1 for up to
    4,096 documents with an embedding, else half the square root of their number, at most 65,536. sample: vectors that the
    clusters are trained on, chosen by a hash of (seed, file, record); not given, 256 a cluster, at least 4,096, and at most
    262,144 or 512 MB.

    Within a cluster documents are taken in the order of `prefer`: each is a duplicate of the first leader whose cosine to it
    reaches the threshold, or else becomes a leader, and stays. prefer: `first` in input order; `longest` text in bytes;
    `newest` date (ISO 8601, none last); `outlying` (lowest cosine to the centroid, which is what the paper keeps), `central`
    (highest); or a column, whose highest value stays (null and NaN last). Ties but those of `first` go to the shorter id, then
    the smaller one, then input order. The leaders of a cluster have at most 67 million numbers (174,762 leaders of 384): what
    comes then and is close to none stays, and is counted as unresolved.

    mode: `drop`, or `label`, which drops nothing. seed: of the sample and of k-means.

    Columns written: none; with `label` `duplicate_cluster` (uint64, null for a document that has no duplicate), `cluster_size`
    (uint32, of the leader and its duplicates) and `duplicate_of` (string, null for what would stay). Reasons:
    `semantic_dedup.duplicate`, with `_duplicate_of` = id of the document that stays and `_similarity` = cosine to it.

    Matrix products propose, double precision in a fixed order decides, so batches, shards, workers and memory change nothing;
    the centroids are the same on one kind of CPU. More than one cluster needs FAISS (the extra `cluster`).

    Source: SemDeDup (Abbas et al. 2023, arXiv:2303.09540); the leader rule is own (there, a document goes if any before it is
    close, kept or not, so a chain of neighbours may go whole).

    >>> import pyarrow as pa
    >>> vectors = pa.array([[1, 0], [0, 1], [2, 0.1]], pa.list_(pa.float32(), 2))
    >>> docs = pa.table({"text": ["a cat", "a train", "one cat"], "embedding": vectors})
    >>> result = SemanticDedup(threshold=0.95)(docs)
    >>> result.kept["text"].to_pylist(), result.dropped["_duplicate_of"].to_pylist()
    (['a cat', 'a train'], ['0'])
    """

    decides_rows: ClassVar[bool] = True
    max_drop: ClassVar[float | None] = 0.5
    max_cluster: ClassVar[int | None] = 10_000

    column: str = "embedding"
    threshold: float = 0.95
    clusters: int | None = None
    sample: int | None = None
    prefer: str = "first"
    mode: Literal["drop", "label"] = "drop"
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise RecipeError(f"semantic_dedup: threshold is {self.threshold}; it is a cosine, above 0 and at most 1")
        if self.clusters is not None and not 1 <= self.clusters <= CLUSTERS:
            raise RecipeError(f"semantic_dedup: clusters is {self.clusters}; give 1 to {CLUSTERS:,}, or leave it out")
        if self.sample is not None and self.sample < 1:
            raise RecipeError(f"semantic_dedup: sample is {self.sample}; give at least 1, or leave it out")
        if self.mode not in ("drop", "label"):
            raise RecipeError(f"semantic_dedup: mode is {self.mode!r}; it is 'drop' or 'label'")

    def bound(self, columns: Collection[str]) -> Stage:
        if self.clusters != 1:
            require("stage 'semantic_dedup'")
        return self

    def reads(self) -> tuple[str, ...]:
        return ()

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("id", self.column, "file", "record", *self._order_reads())))

    def _assign_reads(self) -> tuple[str, ...]:
        place = ("file", "record") if self.mode == "label" else ()
        return tuple(dict.fromkeys(("id", self.column, *place, *self._order_reads())))

    def _order_reads(self) -> tuple[str, ...]:
        return () if self.prefer in ("central", "outlying") else prefer.columns(self.prefer)

    def writes(self) -> pa.Schema:
        return LABELS if self.mode == "label" else EMPTY

    def reasons(self) -> tuple[str, ...]:
        return ("semantic_dedup.duplicate",) if self.mode == "drop" else ()

    def partitions(self, n_docs: int) -> int:
        return max(1, -(-n_docs // DOCS_PER_PARTITION))

    def clusters_of(self, n: int) -> int:
        """The number of clusters for n vectors."""
        return self.clusters or (1 if n <= SMALL else min(math.isqrt(n) // 2, CLUSTERS))

    def sample_of(self, clusters: int) -> int:
        """How many vectors that many clusters are trained on, but for the limit on the numbers in them."""
        return self.sample or min(max(clusters * PER_CENTROID, SMALL), SAMPLE)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        parts = self.partitions(n_docs)
        centroids: list[Step] = []
        if self.clusters_of(n_docs) > 1 or self.prefer in ("central", "outlying"):
            reads = (self.column, "file", "record")
            centroids = [Step("sample", partial(_sample, self, n_docs), reads=reads), Step("centroids", partial(_train, self))]
        return [
            *centroids,
            Step("assign", partial(_assign, self, parts, bool(centroids)), reads=self._assign_reads()),
            Step("pairs", partial(_pairs, self), tasks=parts),
            Step("deliver", partial(fit.deliver, self, parts), tasks=fit.shard_groups(n_shards)),
        ]

    def rethresholded(self, threshold: float) -> tuple[SemanticDedup, str]:
        """(this stage at a higher threshold, the step from which its fit is run again): nothing before depends on it.

        Raises ValueError for a lower one.
        """
        if not self.threshold <= threshold <= 1:
            raise ValueError(f"semantic_dedup: {threshold} is not between the threshold {self.threshold} of the run and 1")
        return replace(self, threshold=threshold), "pairs"

    def open(self, task: Task) -> BatchFn:
        state = task.state(self)
        without = read_json(_beside(_vectors(self, task)))["without"]
        if without:
            task.count(_WITHOUT, without)
        if not state.num_rows:
            state = DECISIONS.empty_table()
        state = state.combine_chunks()
        unresolved = pc.sum(state["unresolved"]).as_py()
        if unresolved:
            task.count(_UNRESOLVED, unresolved)
        return partial(_label if self.mode == "label" else _drop, state.filter(pc.invert(state["unresolved"])))


def _found(state: pa.Table, batch: pa.RecordBatch) -> pa.Table:
    """What was decided about each row of the batch; nulls where nothing was."""
    hit, at = fit.find_rows(state["row"].to_numpy(), batch[ROW].to_numpy())
    return state.take(pa.array(at, mask=~hit)).combine_chunks()


def _drop(state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    found = _found(state, batch)
    other = _array(found["duplicate_of"])
    reason = pc.if_else(pc.is_valid(other), "semantic_dedup.duplicate", pa.scalar(None, pa.string()))
    columns = {REASON: reason, "_duplicate_of": other, "_similarity": _array(found["similarity"])}
    return with_columns(batch, columns)


def _label(state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    found = _found(state, batch)
    columns = {
        "duplicate_cluster": _array(found["cluster"]),
        "cluster_size": pc.fill_null(_array(found["size"]), pa.scalar(1, pa.uint32())),
        "duplicate_of": _array(found["duplicate_of"]),
    }
    return with_columns(batch, columns)


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


# --------------------------------------------------------------------------------------------- vectors in files


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _vectors(stage: SemanticDedup, task: Task) -> Path:
    """The file of the vectors of a shard, by partition."""
    return task.folder(stage) / "assign" / _name(task)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _halves(stage: SemanticDedup, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    from curate.kernels.vectors import halves

    try:
        return halves(batch[stage.column])
    except ValueError as error:
        raise StageError(f"semantic_dedup: column {stage.column!r} holds no embeddings: {error}") from None


def _write_parts(path: Path, tables: Iterator[pa.Table], limit: int) -> None:
    """Write rows by their column `partition`, in order; a partition has as many row groups as it took fillings of `limit`
    bytes."""
    first = next(tables, None)
    if first is None:
        write_partitioned(path, pa.schema([]), ())
        return
    schema = first.drop_columns(["partition"]).schema
    write_partitioned(path, schema, _by_partition(itertools.chain((first,), tables), limit))


def _by_partition(tables: Iterable[pa.Table], limit: int) -> Iterator[tuple[int, pa.Table]]:
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size >= limit:
            yield from _split(pa.concat_tables(held))
            held, size = [], 0
    if held:
        yield from _split(pa.concat_tables(held))


def _split(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    partition = table["partition"].to_numpy()
    table = table.drop_columns(["partition"])
    for p in np.unique(partition):
        here = partition == p
        yield int(p), table if here.all() else table.take(pa.array(np.flatnonzero(here)))


# --------------------------------------------------------------------------------------------- the steps of the fit


def _sample(stage: SemanticDedup, n_docs: int, task: Task, batches: Batches) -> None:
    """Vectors of a shard whose hash is low enough that they may be in the sample, and how many vectors there are in all."""
    from curate.kernels.keys import order_hash

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in batches:
            rows, vectors = _halves(stage, batch)
            at = pa.array(rows)
            yield order_hash(stage.seed, batch["file"].take(at), batch["record"].take(at)), vectors

    share = OVERSAMPLE * stage.sample_of(stage.clusters_of(n_docs)) / max(n_docs, 1)
    path = task.folder(stage) / "sample" / _name(task)
    write_sample(path, parts(), share, stage="semantic_dedup", column=stage.column, limit=task.memory_limit // 16)


def _train(stage: SemanticDedup, task: Task) -> None:
    """The centroids, of the vectors with the lowest hashes."""
    paths = [task.folder(stage) / "sample" / name for name in task.shards]
    total, size = sample_totals(paths, stage="semantic_dedup", column=stage.column)
    k = stage.clusters_of(total)
    vectors = read_sample(paths, min(stage.sample_of(k), max(1, NUMBERS // max(size, 1))))
    trained = train(vectors, k, seed=stage.seed, iterations=ROUNDS)
    task.count("centroids", len(trained))
    flat = pa.array(trained.ravel())
    table = pa.table({"centroid": pa.FixedSizeListArray.from_arrays(flat, size) if size else pa.array([], pa.null())})
    write_table(task.folder(stage) / "centroids.parquet", table, codec="lz4")


def _centroids(stage: SemanticDedup, task: Task) -> np.ndarray | None:
    """float32, one a row; None where there are none, which is where the sample has no vectors."""
    column = read_table(task.folder(stage) / "centroids.parquet")["centroid"].combine_chunks()
    if not len(column):
        return None
    return column.flatten().to_numpy().reshape(len(column), -1)


def _assign(stage: SemanticDedup, partitions: int, by_centroid: bool, task: Task, batches: Batches) -> None:
    """The vectors of a shard by partition, with their centroid and all that their order needs."""
    from curate.kernels.keys import hash128, order_hash

    centroids = _centroids(stage, task) if by_centroid else None
    path, without = _vectors(stage, task), 0

    def tables() -> Iterator[pa.Table]:
        nonlocal without
        size = 0 if centroids is None else centroids.shape[1]
        k = 1 if centroids is None else len(centroids)
        for batch in batches:
            rows, vectors = _halves(stage, batch)
            without += batch.num_rows - len(rows)
            if not len(rows):
                continue
            size = same_size("semantic_dedup", stage.column, (size, vectors.shape[1]))
            if centroids is None:
                index, cosine = np.zeros(len(rows), np.uint32), np.zeros(len(rows))
            else:
                index, cosine = nearest(vectors.astype(np.float32), centroids)
            batch = batch.take(pa.array(rows))
            columns: dict[str, Any] = {
                "partition": (index.astype(np.int64) * partitions // k).astype(np.int32),
                "centroid": index,
                "row": batch[ROW],
                "id": batch["id"],
                "vector": packed_halves(vectors),
            }
            if stage.prefer != "first":
                columns["key"] = _order_key(stage, batch, cosine)
            if stage.mode == "label":
                # parts of one document have its file and record, and ids need not be unique
                columns["mark"] = hash128(batch["id"])[:, 0] ^ order_hash(0, batch["file"], batch["record"])
            yield pa.table(columns)

    _write_parts(path, tables(), task.memory_limit // 8)
    write_json(_beside(path), {"without": without})


def _order_key(stage: SemanticDedup, batch: pa.RecordBatch, cosine: np.ndarray) -> np.ndarray:
    """uint64: the lower, the more a document is preferred."""
    from curate.stages.quantile import ordered_bits

    if stage.prefer == "outlying":
        return ordered_bits(pa.array(cosine))
    if stage.prefer == "central":
        return ~ordered_bits(pa.array(cosine))
    return prefer.keys("semantic_dedup", stage.prefer, batch)


# --------------------------------------------------------------------------------------------- pairs within clusters


def _pairs(stage: SemanticDedup, task: Task) -> None:
    """Decide about the clusters of one partition, as many at once as memory holds."""
    found = [DECISIONS.empty_table()]
    with tempfile.TemporaryFile(dir=task.folder(stage)) as spill:  # without a name, so that nothing is left behind
        for low, high, rows in _passes(stage, task):
            found += _Clusters(stage, task, spill, low, high, rows).decisions()
    fit.write_decisions(stage, task, pa.concat_tables(found))


def _budget(task: Task) -> int:
    """Bytes of vectors that are held at once; leaders are as many again, in single precision."""
    return task.memory_limit // 4


def _passes(stage: SemanticDedup, task: Task) -> list[tuple[int, int, int]]:
    """(first centroid, end, rows): runs of clusters that fit into memory, or single clusters."""
    rows, size = 0, 0
    for _, groups, file in _files(stage, task):
        rows += sum(file.metadata.row_group(g).num_rows for g in groups)
        size = file.schema_arrow.field("vector").type.byte_width
    if rows * size <= _budget(task):
        return [(0, CLUSTERS, rows)] if rows else []
    counts = np.zeros(CLUSTERS, np.int64)
    for _, groups, file in _files(stage, task):
        for group in groups:
            column = file.read_row_group(group, columns=["centroid"], use_threads=False)["centroid"]
            counts += np.bincount(column.to_numpy(), minlength=CLUSTERS)
    passes: list[tuple[int, int, int]] = []
    for centroid in np.flatnonzero(counts).tolist():
        n = int(counts[centroid])
        if passes and (passes[-1][2] + n) * size <= _budget(task):
            low, _, before = passes.pop()
            passes.append((low, centroid + 1, before + n))
        else:
            passes.append((centroid, centroid + 1, n))
    return passes


def _files(stage: SemanticDedup, task: Task) -> Iterator[tuple[int, list[int], pq.ParquetFile]]:
    """(shard, row groups of this partition, file) of the shards that have any."""
    for shard, name in enumerate(task.shards):
        with open_table(task.folder(stage) / "assign" / name) as file:
            groups = groups_of(file, task.rank)
            if groups:
                yield shard, groups, file


class _Clusters:
    """The clusters of one pass: what is known of their documents in memory, vectors too if they fit, else in a file."""

    def __init__(self, stage: SemanticDedup, task: Task, spill: IO[bytes], low: int, high: int, rows: int):
        self._stage, self._task = stage, task
        self._spill: IO[bytes] | None = None
        tables: list[pa.Table] = []
        done = 0
        for shard, groups, file in _files(stage, task):
            for group in groups:
                table = file.read_row_group(group, use_threads=False)
                centroid = table["centroid"].to_numpy()
                here = (centroid >= low) & (centroid < high)
                if not here.any():
                    continue
                if not here.all():
                    table = table.filter(pa.array(here))
                vectors = unpacked_halves(table["vector"])
                if not done:
                    self._size = vectors.shape[1]
                    if rows * vectors.shape[1] * 2 <= _budget(task):
                        self._held = np.empty((rows, vectors.shape[1]), np.float16)
                    else:
                        self._spill = spill
                        spill.seek(0)
                same_size("semantic_dedup", stage.column, (vectors.shape[1], self._size))
                if self._spill is None:
                    self._held[done : done + len(vectors)] = vectors
                else:
                    spill.write(vectors.data)
                done += len(vectors)
                place = pa.array(np.full(len(vectors), shard, np.uint32))
                tables.append(table.drop_columns(["vector"]).append_column("shard", place))
        spill.flush()
        self._about = pa.concat_tables(tables).combine_chunks()

    def _take(self, rows: np.ndarray) -> np.ndarray:
        if self._spill is None:
            return self._held[rows].astype(np.float32)
        out = np.empty((len(rows), self._size), np.float16)
        for i, row in enumerate(rows.tolist()):
            os.preadv(self._spill.fileno(), [out[i].data], row * 2 * self._size)
        return out.astype(np.float32)

    def decisions(self) -> list[pa.Table]:
        order = self._order()
        centroid = self._about["centroid"].to_numpy()[order]
        starts = np.flatnonzero(np.diff(centroid.astype(np.int64), prepend=-1))
        ends = np.append(starts[1:], len(order))
        found = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if end - start > 1:
                found.append(self._cluster(order[start:end]))
        return found

    def _order(self) -> np.ndarray:
        """The rows by centroid, and in a cluster the preferred ones first. They are in input order to begin with."""
        centroid = self._about["centroid"].to_numpy()
        if self._stage.prefer == "first":
            return np.argsort(centroid, kind="stable")
        table = self._about.select(["centroid", "key", "id", "shard", "row"])
        table = table.append_column("length", pc.binary_length(table["id"]))
        keys = [(c, "ascending") for c in ("centroid", "key", "length", "id", "shard", "row")]
        return pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)

    def _cluster(self, order: np.ndarray) -> pa.Table:
        """The leader rule among documents in order. Returns what is to be known of those that are not alone."""
        from curate.kernels.vectors import Leaders

        stage, n = self._stage, len(order)
        leaders = Leaders(self._size, stage.threshold, max(1, LEADERS // self._size))
        number, cosine = np.empty(n, np.int64), np.empty(n)
        for at in range(0, n, BLOCK):
            part = slice(at, at + BLOCK)
            number[part], cosine[part] = leaders.add(self._take(order[part]))
        leads = np.isnan(cosine) & (number >= 0)
        leader = order[leads][np.maximum(number, 0)]  # leaders are numbered in the order in which they stand here
        sizes = np.bincount(number[number >= 0])
        size = np.where(number >= 0, sizes[np.maximum(number, 0)], 1)
        self._task.peak("cluster", int(sizes.max(initial=0)))
        wanted = ~leads if stage.mode == "drop" else ~leads | (size > 1)
        which = np.flatnonzero(wanted)
        lone = number[which] < 0
        rows, leader, stays = pa.array(order[which]), leader[which], leads[which] | lone
        about = self._about
        marks = about["mark"].take(pa.array(leader, mask=lone)) if stage.mode == "label" else pa.nulls(len(which), pa.uint64())
        return pa.table(
            [
                about["shard"].take(rows),
                about["row"].take(rows),
                about["id"].take(pa.array(leader, mask=stays)),
                pa.array(cosine[which], mask=stays),
                marks,
                pa.array(size[which].astype(np.uint32)),
                pa.array(lone),
            ],
            schema=DECISIONS,
        )
