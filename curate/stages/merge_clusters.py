"""Few groups with names out of many clusters."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import MissingExtra, RecipeError, StageError
from curate.fit import find_rows
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, operational, with_columns
from curate.storage import TableWriter, read_table, write_json, write_table

log = logging.getLogger(__name__)

GROUPS = 20
MOST = 10_000  # clusters: the distances between all of them take 0.8 GB
FILE = "clusters.json"
FORMAT = "curate-clusters/1"
LOW = "merge_clusters.low_quality"
TERMS = 20  # of a group, kept and shown to a model
LONGEST = 60  # characters of a name
_DOCUMENTS = 500  # of a group, at most, whose words are counted
_SAMPLED = 20_000  # of all groups together, but at least _FEWEST of each
_FEWEST = 5
_READ = 5000  # characters of a text whose words are counted
_EXCERPTS, _EXCERPT = 3, 300  # of a group, for a model; characters of each
_ONE = float(1 << 24)  # an embedding is counted in units of 2^-24, the smallest number of half precision
_PART = float(1 << 32)  # a quality in whole numbers and units of 2^-32
_LARGEST = float(1 << 40)


@dataclass(frozen=True, kw_only=True)
class MergeClusters(GlobalStage):
    """Drops the clusters of low quality, merges the others into a few groups by where they lie, and gives these names.

    column: the number of a cluster for each document (whole numbers), as `kmeans` writes it; a document without one stays,
    without a group, and is counted. embedding: vectors, as `embed` writes them, or other lists of floating-point numbers, all
    of one size; the centroid of a cluster is the mean of those of its documents. There may be 10,000 clusters.

    quality: columns (numbers, dates or booleans) and the least mean that a cluster may have over those of its documents that
    have a value; a cluster that is below in one of them goes with all its documents, and one without any value stays.
    into: the column of the group. clusters: how many groups there are to be, 20 unless `distance` is given; fewer clusters stay
    as they are. distance: or where merging ends: clusters that are so far apart by Ward's measure are not merged (1.5 in the
    paper). Either way all centroids weigh the same, as there. Groups are numbered from 0 on, the one of most tokens first.

    names: of how many words a name is made; 0 for no names. The words are those that are in many documents of a group and in
    few of the others, out of up to 500 documents of each group, those of the lowest hash of (seed, file, record); stop words
    are left out. seed: of that sample. model: an instruction model that makes the name instead, out of the twenty strongest
    words and the beginnings of three documents; server (base URL, "" for the environment variable CURATE_LLM_SERVER),
    api_key_env (the variable that holds the key), parameters, retries, repairs, timeout (seconds), concurrency, cache: as in
    `annotate_llm`. prompt: its template, with the variable `text`; the schema beside it has a property `name`. A name is one
    line of at most 60 characters. Where the model gives none, the words stay the name, and this is counted. A name that is
    taken gets a number.

    Columns written: `into` (int32) and, with names, `<into>_name` (string); both null where there is no cluster.
    Reasons: `merge_clusters.low_quality`, with `_value` = the mean of the cluster that is too low, the first by the name of the
    column. With a run folder, `index/<stage>/clusters.json` has groups and clusters with centroids, sizes, words and means.

    Sums are those of integers (vectors in units of 2^-24, qualities of 2^-32), so shards, workers and batches change nothing.
    Merging needs scipy (the extra `cluster`).

    Source: CLIMB (Diao et al. 2025, arXiv:2504.13161); Ward 1963 (doi:10.1080/01621459.1963.10500845); words after class-based
    TF-IDF (Grootendorst 2022, arXiv:2203.05794): share of the group's documents with a word, times the logarithm of how many
    times that is the mean share over groups.

    >>> import pyarrow as pa
    >>> texts = ["bread and butter", "butter on bread", "a ship sails", "a ship at sea", "the ship sank"]
    >>> vectors = pa.array([[1, 0], [1, 0.1], [0, 1], [0.2, 1], [0.1, 1]], pa.list_(pa.float32(), 2))
    >>> docs = pa.table({"text": texts, "cluster": [7, 7, 3, 4, 3], "embedding": vectors})
    >>> kept = MergeClusters(clusters=2, names=1)(docs).kept
    >>> kept["group"].to_pylist(), sorted(set(kept["group_name"].to_pylist()))
    ([1, 1, 0, 0, 0], ['bread', 'ship'])
    """

    example: ClassVar[dict[str, Any]] = {"clusters": 3}

    column: str = "cluster"
    embedding: str = "embedding"
    quality: Mapping[str, float] = field(default_factory=dict)
    into: str = "group"
    clusters: int | None = None
    distance: float | None = None
    names: int = 3
    seed: int = 42
    model: str = ""
    server: str = operational("")
    prompt: str = "cluster_name"
    api_key_env: str = operational("OPENAI_API_KEY")
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 512})
    retries: int = 6
    repairs: int = 1
    timeout: float = 120
    concurrency: int = operational(16)
    cache: str = operational("")

    def __post_init__(self) -> None:
        if self.clusters is not None and self.distance is not None:
            raise RecipeError("merge_clusters: give `clusters`, how many groups there are to be, or `distance`, not both")
        if self.clusters is not None and not 1 <= self.clusters <= MOST:
            raise RecipeError(f"merge_clusters: clusters is {self.clusters}; give 1 to {MOST:,}")
        if self.distance is not None and not 0 < self.distance < math.inf:
            raise RecipeError(f"merge_clusters: distance is {self.distance}; give a number above 0")
        if not self.column or not self.embedding:
            raise RecipeError("merge_clusters: column and embedding are names of columns, not empty")
        if not self.into or self.into.startswith("_") or self.into == self.column:
            raise RecipeError(
                f"merge_clusters: into is {self.into!r}; give the name of a new column, not beginning with an underscore"
            )
        for name, least in self.quality.items():
            if not name or not math.isfinite(least):
                raise RecipeError(f"merge_clusters: quality.{name} is {least}; give columns and the least mean of each")
        if not 0 <= self.names <= TERMS:
            raise RecipeError(f"merge_clusters: names is {self.names}; give 0 to {TERMS} words")
        if self.model and not self.names:
            raise RecipeError("merge_clusters: a model makes names out of words; give `names` above 0")
        if self.server and not self.model:
            raise RecipeError("merge_clusters: `server` is there and `model` is not; give the name under which it knows one")
        if self.model:
            self._check_model()

    def _check_model(self) -> None:
        from curate.llm import check_key_variable, check_parameters, check_server

        if self.server:
            check_server(self.server)
        check_key_variable(self.api_key_env)
        check_parameters(self.parameters)
        if self.concurrency < 1 or min(self.retries, self.repairs) < 0 or self.timeout <= 0:
            raise RecipeError(
                "merge_clusters: concurrency is at least 1, retries and repairs are not negative, timeout is above 0 seconds"
            )

    @property
    def qualities(self) -> tuple[str, ...]:
        """The columns that judge clusters, in the order in which they do."""
        return tuple(sorted(self.quality))

    def bound(self, columns: Collection[str]) -> Stage:
        if importlib.util.find_spec("scipy") is None:
            raise MissingExtra("scipy", "cluster", "stage 'merge_clusters'")
        if self.model:
            from curate.llm import load_prompt

            prompt = load_prompt(self.prompt)
            if prompt.schema is None or "name" not in prompt.schema.get("properties", {}):
                beside = prompt.path.with_suffix(".json").name
                raise RecipeError(
                    f"merge_clusters: {prompt.path} has no schema with the property `name`; give {beside} beside it"
                )
            if importlib.util.find_spec("jinja2") is None:
                raise MissingExtra("jinja2", "llm", "stage 'merge_clusters'")
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def fit_reads(self) -> tuple[str, ...]:
        place = ("file", "record") if self.names else ()
        return tuple(dict.fromkeys((self.column, self.embedding, "tokens", *self.qualities, *place)))

    def writes(self) -> pa.Schema:
        name = [(f"{self.into}_name", pa.string())] if self.names else []
        return pa.schema([(self.into, pa.int32()), *name])

    def reasons(self) -> tuple[str, ...]:
        return (LOW,) if self.quality else ()

    def files(self) -> tuple[str, ...]:
        from curate.llm import load_prompt

        return load_prompt(self.prompt).files() if self.model else ()

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        words = [Step("words", partial(_words, self), reads=("text",), rows=partial(_chosen, self))] if self.names else []
        return [
            Step("sums", partial(_sums, self), reads=self.fit_reads()),
            Step("merge", partial(_merge, self)),
            *words,
            Step("name", partial(_name, self)),
        ]

    def open(self, task: Task) -> BatchFn:
        state = task.state(self)
        if not task.shard:
            for note, n in _notes(state):
                task.count(note, n)
        return partial(self._process, state, state["cluster"].to_numpy(), task)

    def _process(self, state: pa.Table, known: np.ndarray, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows, numbers = _numbers(self, batch)
        if n := batch.num_rows - len(rows):
            task.count("documents without a cluster, and so without a group", n)
        hit, at = find_rows(known, numbers)
        place = np.full(batch.num_rows, -1)
        place[rows[hit]] = at[hit]
        found = state.take(pa.array(place, mask=place < 0)).combine_chunks()
        columns = {self.into: _whole(found["group"])}
        if self.names:
            columns[f"{self.into}_name"] = _whole(found["name"])
        if self.quality:
            columns[REASON] = pc.if_else(pc.is_valid(_whole(found["low"])), LOW, pa.scalar(None, pa.string()))
            columns["_value"] = _whole(found["low_mean"])
        return with_columns(batch, columns)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _notes(state: pa.Table) -> Iterator[tuple[str, int]]:
    low = state["low"].drop_null()
    for name, n in (
        sorted(zip(*np.unique(np.array(low.to_pylist(), object), return_counts=True), strict=True)) if len(low) else ()
    ):
        yield f"clusters pruned by {name}", int(n)
    if unjudged := pc.sum(state["unjudged"]).as_py():
        yield "clusters kept without a value of some quality", unjudged
    groups = state.filter(pc.is_valid(state["group"])).group_by("group", use_threads=False).aggregate([("name_error", "min")])
    yield "groups", groups.num_rows
    errors = groups["name_error_min"].drop_null().to_pylist()
    for kind in sorted(set(errors)):
        yield f"groups named by their words, since the model gave no name: {kind}", errors.count(kind)


# --------------------------------------------------------------------------------------------- columns


def _numbers(stage: MergeClusters, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """(rows with a cluster, its number of each): int64."""
    values = batch[stage.column]
    if pa.types.is_null(values.type):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not pa.types.is_integer(values.type):
        raise StageError(
            f"merge_clusters: column {stage.column!r} is {values.type}; give whole numbers, such as `kmeans` writes"
        )
    rows = np.flatnonzero(pc.is_valid(values).to_numpy(zero_copy_only=False))
    return rows, values.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)


def _vectors(stage: MergeClusters, values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(rows that have an embedding, int64; these in units of 2^-24, int64)."""
    kind = values.type
    what = f"merge_clusters: column {stage.embedding!r}"
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not pa.types.is_null(kind) and not (lists and pa.types.is_floating(kind.value_type)):
        raise StageError(f"{what} is {kind}; give lists of floating-point numbers, such as `embed` writes")
    rows = np.flatnonzero(pc.is_valid(values).to_numpy(zero_copy_only=False))
    if not len(rows):
        return np.empty(0, np.int64), np.empty((0, 0), np.int64)
    sizes = (
        {kind.list_size}
        if pa.types.is_fixed_size_list(kind)
        else set(pc.unique(pc.list_value_length(values).drop_null()).to_pylist())
    )
    if len(sizes) > 1:
        raise StageError(f"{what} has embeddings of {min(sizes)} and of {max(sizes)} numbers; those of one model have one size")
    flat = values.flatten()
    numbers = (flat.cast(pa.float64()) if flat.null_count else flat).to_numpy(zero_copy_only=False).astype(np.float64)
    numbers = numbers.reshape(len(rows), -1)
    good = np.isfinite(numbers).all(axis=1)
    rows, numbers = rows[good], numbers[good]
    if np.abs(numbers).max(initial=0) > 1 << 16:
        raise StageError(f"{what} has numbers beyond 65,536; scale the vectors to length one")
    return rows, np.rint(numbers * _ONE).astype(np.int64)


def _quality(stage: MergeClusters, name: str, values: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(which have a value, bool; those in whole numbers and units of 2^-32 beyond them, int64)."""
    from curate.stages.quantile import as_number

    try:
        numbers = pc.cast(as_number(values, "merge_clusters"), pa.float64(), safe=False)
    except StageError as error:
        raise StageError(f"{error} in quality.{name}") from None
    numbers = pc.fill_null(numbers, float("nan")).to_numpy(zero_copy_only=False)
    good = np.abs(numbers) <= _LARGEST  # false for NaN
    whole = np.floor(numbers[good])
    return good, whole.astype(np.int64), np.rint((numbers[good] - whole) * _PART).astype(np.int64)


# --------------------------------------------------------------------------------------------- sums


class _Sums:
    """Sums by cluster: `counts` (int64: documents, those with an embedding, tokens, and of each quality values, whole numbers
    and units beyond) and `vectors` (int64), in the order in which clusters came up."""

    def __init__(self, qualities: int):
        self.slots: dict[int, int] = {}
        self.counts = np.zeros((0, 3 + 3 * qualities), np.int64)
        self.vectors = np.zeros((0, 0), np.int64)

    def slots_of(self, numbers: np.ndarray, stage: MergeClusters) -> np.ndarray:
        """The place of each cluster, made where it is new."""
        slots = np.array([self.slots.setdefault(n, len(self.slots)) for n in numbers.tolist()], np.int64)
        if len(self.slots) > MOST:
            raise StageError(f"merge_clusters: column {stage.column!r} has more than {MOST:,} clusters; make fewer")
        if len(self.slots) > len(self.counts):
            self.counts = _grown(self.counts, len(self.slots))
        return slots

    def add_vectors(self, slots: np.ndarray, vectors: np.ndarray, stage: MergeClusters) -> None:
        """Add vectors, one a slot."""
        if not len(vectors):
            return
        size = vectors.shape[1]
        if not self.vectors.shape[1]:
            self.vectors = np.zeros((0, size), np.int64)
        if size != self.vectors.shape[1]:
            raise StageError(_sizes(stage, size, self.vectors.shape[1]))
        if len(self.counts) > len(self.vectors):
            self.vectors = _grown(self.vectors, len(self.counts))
        self.vectors[slots] += vectors

    def table(self) -> pa.Table:
        """One row a cluster, in the order of their numbers."""
        n = len(self.slots)
        size = self.vectors.shape[1]
        vectors = _grown(self.vectors, n)[:n] if size else np.zeros((n, 0), np.int64)
        numbers = np.fromiter(self.slots, np.int64, n)
        order = np.argsort(numbers)
        width = 8 * size
        held = pa.py_buffer(np.ascontiguousarray(vectors[order]))
        return pa.table(
            {
                "cluster": numbers[order],
                **{f"n{i}": self.counts[:n][order, i] for i in range(self.counts.shape[1])},
                "vector": pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), n, [None, held]) if width else pa.nulls(n),
            }
        )


def _sizes(stage: MergeClusters, one: int, other: int) -> str:
    return (
        f"merge_clusters: column {stage.embedding!r} has embeddings of {min(one, other)} and of {max(one, other)} numbers; "
        "those of one model have one size"
    )


def _grown(values: np.ndarray, n: int) -> np.ndarray:
    """The same rows and zeros after them, at least n in all."""
    if n <= len(values):
        return values
    found = np.zeros((max(n, 2 * len(values)), values.shape[1]), values.dtype)
    found[: len(values)] = values
    return found


_CANDIDATES = pa.schema([(ROW, pa.uint32()), ("cluster", pa.int64()), ("hash", pa.uint64())])


def _shard(task: Task) -> str:
    return task.shards[task.shard or 0]


def _sums(stage: MergeClusters, task: Task, batches: Batches) -> None:
    """What the clusters of a shard add up to, and which of their documents have the lowest hashes."""
    from curate.kernels.keys import order_hash

    sums = _Sums(len(stage.qualities))
    candidates = [_CANDIDATES.empty_table()]
    for batch in batches:
        rows, numbers = _numbers(stage, batch)
        if not len(rows):
            continue
        batch = batch.take(pa.array(rows))
        distinct, local = np.unique(numbers, return_inverse=True)
        slots = sums.slots_of(distinct, stage)
        counts = np.zeros((len(distinct), sums.counts.shape[1]), np.int64)
        counts[:, 0] = np.bincount(local, minlength=len(distinct))
        np.add.at(counts[:, 2], local, pc.fill_null(batch["tokens"], 0).to_numpy(zero_copy_only=False).astype(np.int64))
        for i, name in enumerate(stage.qualities):
            good, whole, part = _quality(stage, name, batch[name])
            counts[:, 3 + 3 * i] = np.bincount(local[good], minlength=len(distinct))
            np.add.at(counts[:, 4 + 3 * i], local[good], whole)
            np.add.at(counts[:, 5 + 3 * i], local[good], part)
        having, vectors = _vectors(stage, batch[stage.embedding])
        if len(having):
            order = np.argsort(local[having], kind="stable")
            mine, first, n = np.unique(local[having][order], return_index=True, return_counts=True)
            counts[mine, 1] = n
            sums.add_vectors(slots[mine], np.add.reduceat(vectors[order], first, axis=0), stage)
        sums.counts[slots] += counts
        if stage.names:
            hashes = order_hash(stage.seed, batch["file"], batch["record"])
            candidates.append(pa.table([batch[ROW], numbers, hashes], schema=_CANDIDATES))
    write_table(task.folder(stage) / "sums" / _shard(task), sums.table(), rows=1024, codec="lz4")
    if stage.names:
        table = _lowest(pa.concat_tables(candidates).combine_chunks(), "cluster", _DOCUMENTS)
        write_table(task.folder(stage) / "candidates" / _shard(task), table, codec="lz4")


def _lowest(table: pa.Table, by: str, most: int) -> pa.Table:
    """The rows with the lowest hashes of each group, and equal hashes with the last of them, in their order."""
    key, hashes = table[by].to_numpy(), table["hash"].to_numpy()
    order = np.lexsort((hashes, key))
    key, hashes = key[order], hashes[order]
    first = np.searchsorted(key, key)
    last = hashes[np.minimum(first + most, np.searchsorted(key, key, side="right")) - 1]
    return table.take(pa.array(np.sort(order[hashes <= last])))


# --------------------------------------------------------------------------------------------- merging


def ward(centroids: np.ndarray, clusters: int | None, distance: float | None) -> np.ndarray:
    """The group (int64, numbered as they come up) of each centroid (float64, one a row) by Ward's linkage, each weighing the
    same: `clusters` groups, or those at which merging ends when the next merge is at `distance` or more."""
    n = len(centroids)
    merges = np.empty((0, 4))
    if n > 1:
        from scipy.cluster.hierarchy import linkage

        merges = linkage(centroids, "ward")
    made = int((merges[:, 2] < distance).sum()) if distance is not None else max(n - (clusters or GROUPS), 0)
    owner = np.arange(n + len(merges))
    for i in range(made):  # merges are in the order of their distances
        owner[merges[i, :2].astype(np.int64)] = n + i
    for i in range(n + made - 1, -1, -1):  # what a cluster went into comes after it
        owner[i] = owner[owner[i]]
    _, first, group = np.unique(owner[:n], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def _merge(stage: MergeClusters, task: Task) -> None:
    """The group of each cluster, and up to which hash documents of a group are in its sample."""
    counts, vectors, numbers = _totals(stage, task)
    n = len(numbers)
    documents, having, tokens = counts[:, 0], counts[:, 1], counts[:, 2]
    if (having == 0).any():
        raise StageError(
            f"merge_clusters: cluster {numbers[np.argmin(having)]} has no document with an embedding in {stage.embedding!r}, "
            "so there is no place to merge it by"
        )
    centroids = vectors / _ONE / np.maximum(having, 1)[:, None]
    means = _means(stage, counts)
    low = np.full(n, -1)
    for i in range(len(stage.qualities) - 1, -1, -1):
        low[means[:, i] < stage.quality[stage.qualities[i]]] = i  # false for a mean that is NaN
    kept = np.flatnonzero(low < 0)
    if n and not len(kept):
        raise StageError(_all_pruned(stage, means, n))
    group = np.full(n, -1)
    if len(kept):
        merged = ward(centroids[kept], stage.clusters, stage.distance)
        total = np.zeros(merged.max() + 1, np.int64)
        np.add.at(total, merged, tokens[kept])
        number = np.empty(len(total), np.int64)
        number[np.argsort(-total, kind="stable")] = np.arange(len(total))
        group[kept] = number[merged]
    size = vectors.shape[1]
    flat = pa.array(centroids.ravel())
    table = pa.table(
        {
            "cluster": numbers,
            "group": pa.array(group.astype(np.int32), mask=group < 0),
            "low": pa.array([stage.qualities[i] if i >= 0 else None for i in low], pa.string()),
            "low_mean": pa.array([float(m[i]) if i >= 0 else None for m, i in zip(means, low, strict=True)], pa.float64()),
            "unjudged": np.isnan(means).any(axis=1),
            "documents": documents,
            "embedded": having,
            "tokens": tokens,
            **{f"mean_{name}": pa.array(means[:, i], mask=np.isnan(means[:, i])) for i, name in enumerate(stage.qualities)},
            **{f"values_{name}": counts[:, 3 + 3 * i] for i, name in enumerate(stage.qualities)},
            "centroid": pa.FixedSizeListArray.from_arrays(flat, size) if size else pa.nulls(n, pa.list_(pa.float64(), 1)),
        }
    )
    write_table(task.folder(stage) / "merged.parquet", table, codec="lz4")
    if stage.names:
        write_table(task.folder(stage) / "bounds.parquet", _bounds(stage, task, numbers, group), codec="lz4")


def _totals(stage: MergeClusters, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(counts, sums of vectors, numbers of the clusters in their order) over all shards: int64."""
    from curate.storage import open_table

    paths = [task.folder(stage) / "sums" / name for name in task.shards]
    found = [read_table(path, ["cluster"])["cluster"].to_numpy() for path in paths]
    numbers = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
    if len(numbers) > MOST:
        raise StageError(
            f"merge_clusters: column {stage.column!r} has {len(numbers):,} clusters; at most {MOST:,} can be merged"
        )
    counts = np.zeros((len(numbers), 3 + 3 * len(stage.qualities)), np.int64)
    vectors = np.zeros((len(numbers), 0), np.int64)
    for path in paths:
        with open_table(path) as file:
            for k in range(file.num_row_groups):
                part = file.read_row_group(k, use_threads=False).combine_chunks()
                at = np.searchsorted(numbers, part["cluster"].to_numpy())
                for i in range(counts.shape[1]):
                    counts[at, i] += part[f"n{i}"].to_numpy()
                size = (
                    0
                    if pa.types.is_null(part.schema.field("vector").type)
                    else part.schema.field("vector").type.byte_width // 8
                )
                if not size:
                    continue
                if not vectors.shape[1]:
                    vectors = np.zeros((len(numbers), size), np.int64)
                if size != vectors.shape[1]:
                    raise StageError(_sizes(stage, size, vectors.shape[1]))
                vectors[at] += np.frombuffer(_whole(part["vector"]).buffers()[1], np.int64)[: len(at) * size].reshape(-1, size)
    return counts, vectors, numbers


def _means(stage: MergeClusters, counts: np.ndarray) -> np.ndarray:
    """float64 (clusters, qualities), NaN where there is no value. Raises StageError for a quality without any value."""
    means = np.full((len(counts), len(stage.qualities)), np.nan)
    for i, name in enumerate(stage.qualities):
        n, whole, part = counts[:, 3 + 3 * i : 6 + 3 * i].T
        if len(counts) and not n.any():
            raise StageError(
                f"merge_clusters: column {name!r} has no value for any document of a cluster; is it written before?"
            )
        some = n > 0
        means[some, i] = whole[some] / n[some] + part[some] / n[some] / _PART
    return means


def _all_pruned(stage: MergeClusters, means: np.ndarray, n: int) -> str:
    best = [f"the best mean of {name!r} is {np.nanmax(means[:, i]):.4g}, of at least {stage.quality[name]:g}"
            for i, name in enumerate(stage.qualities)]  # fmt: skip
    return f"merge_clusters: quality prunes all {n:,} clusters ({'; '.join(best)}): lower the least means"


def _bounds(stage: MergeClusters, task: Task, numbers: np.ndarray, group: np.ndarray) -> pa.Table:
    """Of each group the highest hash that is in its sample, and the highest of those that a model is shown."""
    groups = int(group.max(initial=-1)) + 1
    most = min(_DOCUMENTS, max(_FEWEST, _SAMPLED // max(groups, 1)))
    schema = pa.schema([("group", pa.int64()), ("hash", pa.uint64())])
    held = schema.empty_table()
    for name in task.shards:
        table = read_table(task.folder(stage) / "candidates" / name, ["cluster", "hash"])
        mine = group[np.searchsorted(numbers, table["cluster"].to_numpy())]
        more = pa.table([pa.array(mine), table["hash"]], schema=schema).filter(pa.array(mine >= 0))
        held = _lowest(pa.concat_tables([held, more]).combine_chunks(), "group", most)
    key, hashes = held["group"].to_numpy(), held["hash"].to_numpy()
    order = np.lexsort((hashes, key))
    ends = np.searchsorted(key[order], np.arange(groups), side="right")
    first = np.searchsorted(key[order], np.arange(groups))
    shown = np.minimum(first + _EXCERPTS, ends) - 1
    return pa.table({"last": hashes[order][ends - 1], "shown": hashes[order][shown], "documents": ends - first})


# --------------------------------------------------------------------------------------------- words


def _sample(stage: MergeClusters, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows of the shard that are in the sample of their group, ascending; the groups; whether a model is shown them)."""
    folder = task.folder(stage)
    table = read_table(folder / "candidates" / _shard(task))
    merged, bounds = read_table(folder / "merged.parquet", ["cluster", "group"]), read_table(folder / "bounds.parquet")
    at = np.searchsorted(merged["cluster"].to_numpy(), table["cluster"].to_numpy())
    group = pc.fill_null(merged["group"], -1).to_numpy()[at] if len(at) else np.empty(0, np.int32)
    hashes, rows = table["hash"].to_numpy(), table[ROW].to_numpy()
    if not len(bounds):
        return rows[:0], group[:0], np.empty(0, bool)
    last, shown = (bounds[name].to_numpy()[group] for name in ("last", "shown"))
    some = (group >= 0) & (hashes <= last)
    return rows[some], group[some], (hashes <= shown)[some]


def _chosen(stage: MergeClusters, task: Task) -> np.ndarray:
    return _sample(stage, task)[0]


_TERMS = pa.schema([("group", pa.int32()), ("term", pa.string())])
_SHOWN = pa.schema([("group", pa.int32()), ("text", pa.string())])


def _words(stage: MergeClusters, task: Task, batches: Batches) -> None:
    """The words of the sampled documents of a shard, each once a document, and the beginnings of those that are shown."""
    folder = task.folder(stage)
    rows, groups, shown = _sample(stage, task)
    excerpts: list[tuple[int, str]] = []
    with TableWriter(folder / "terms" / _shard(task), _TERMS, codec="lz4") as writer:
        for batch in batches:
            _, at = find_rows(rows, batch[ROW].to_numpy())
            where: list[int] = []
            terms: list[str] = []
            for i, text in zip(at.tolist(), batch["text"].to_pylist(), strict=True):
                found = words_of((text or "")[:_READ])
                terms += found
                where += [int(groups[i])] * len(found)
                if stage.model and shown[i] and text:
                    excerpts.append((int(groups[i]), " ".join(text[: 4 * _EXCERPT].split())[:_EXCERPT]))
            writer.write(pa.table([where, terms], schema=_TERMS))
    table = pa.table([[g for g, _ in excerpts], [text for _, text in excerpts]], schema=_SHOWN)
    write_table(folder / "excerpts" / _shard(task), table, codec="lz4")


def words_of(text: str) -> list[str]:
    """The different words of a text that may say what it is about, in lower case: of at least three letters, none of them a
    stop word of English or of the language whose stop words the text has most of. Of a script without spaces: pairs of
    characters."""
    words, pairs = _cutters()
    found = list(dict.fromkeys(words.findall(text.lower())))
    listed = _listed()
    votes: dict[str, int] = {}
    for word in found:
        for language in listed.get(word, ()):
            votes[language] = votes.get(language, 0) + 1
    own = {"en", max(sorted(votes), key=lambda language: votes[language])} if votes else {"en"}
    kept = [word for word in found if len(word) > 2 and own.isdisjoint(listed.get(word, ()))]
    runs = (run for run in pairs.findall(text))
    two = (run[i : i + 2] for run in runs for i in range(len(run) - 1))
    return kept + [pair for pair in dict.fromkeys(two) if own.isdisjoint(listed.get(pair, ()))]


@functools.cache
def _cutters() -> tuple[re.Pattern[str], re.Pattern[str]]:
    from curate.lexicon import UNSPACED_SCRIPTS

    without = "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in UNSPACED_SCRIPTS)
    letters = rf"[^\W\d_{without}]"
    return re.compile(rf"{letters}+(?:[-'’]{letters}+)*"), re.compile(f"[{without}]+")


@functools.cache
def _listed() -> dict[str, tuple[str, ...]]:
    """Stop words, and the languages that have them."""
    from stopwordsiso import langs

    from curate.lexicon import stop_words

    found: dict[str, tuple[str, ...]] = {}
    for language in sorted(langs()):
        for word in stop_words(language) or ():
            found[word] = (*found.get(word, ()), language)
    return found


def terms_of(counts: pa.Table, documents: Sequence[int]) -> list[list[str]]:
    """The strongest words of each group, at most `TERMS`. counts: `group`, `term`, and in how many of the `documents` that were
    sampled of a group it is, `n`."""
    counts = counts.sort_by([("group", "ascending"), ("term", "ascending")]).combine_chunks()
    group, n = counts["group"].to_numpy(), counts["n"].to_numpy()
    sampled = np.array(documents, np.float64)
    share = n / sampled[group]
    term = _whole(counts["term"]).dictionary_encode()
    code, words = term.indices.to_numpy(), term.dictionary.to_pylist()
    mean = np.bincount(code, weights=share, minlength=len(words)) / max(len(sampled), 1)
    lift = np.log(share / mean[code]) if len(sampled) > 1 else np.ones(len(share))
    strength = np.round(share * lift, 9)
    alone = n < np.minimum(2, sampled)[group]  # words of one document come last
    order = np.lexsort((np.arange(len(n)), -n, -strength, alone, group))
    bounds = np.searchsorted(group, np.arange(len(sampled) + 1))
    found: list[list[str]] = []
    for a, b in itertools.pairwise(bounds.tolist()):
        mine: list[str] = []
        for i in order[a : min(b, a + 10 * TERMS)].tolist():
            word = words[code[i]]
            if strength[i] > 0 and not any(_kin(word, other) for other in mine):
                mine.append(word)
                if len(mine) == TERMS:
                    break
        found.append(mine)
    return found


def _kin(one: str, other: str) -> bool:
    """Whether two words differ by an ending of one or two letters alone."""
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and len(long) - len(short) <= 2


# --------------------------------------------------------------------------------------------- names


def _name(stage: MergeClusters, task: Task) -> None:
    """Give the groups names, and write down all that was found."""
    folder = task.folder(stage)
    merged = read_table(folder / "merged.parquet")
    group = pc.fill_null(merged["group"], -1).to_numpy()
    groups = int(group.max(initial=-1)) + 1
    terms: list[list[str]] = [[] for _ in range(groups)]
    names: list[str | None] = [None] * groups
    errors: list[str | None] = [None] * groups
    if stage.names and groups:
        held = pa.concat_tables([_TERMS.empty_table(), *(read_table(folder / "terms" / name) for name in task.shards)])
        counts = held.group_by(["group", "term"], use_threads=False).aggregate([([], "count_all")])
        counts = counts.rename_columns(["group", "term", "n"])
        terms = terms_of(counts, read_table(folder / "bounds.parquet")["documents"].to_pylist())
        said: list[str | None] = [", ".join(mine[: stage.names]) or f"group {g}" for g, mine in enumerate(terms)]
        if stage.model:
            answers, errors = _ask(stage, task, terms)
            said = [answer or name for answer, name in zip(answers, said, strict=True)]
        names = list(_different([name or "" for name in said]))
    at = pa.array(group, mask=group < 0)
    state = merged.append_column("name", pa.array(names, pa.string()).take(at))
    state = state.append_column("name_error", pa.array(errors, pa.string()).take(at))
    state = state.append_column("terms", pa.array(terms, pa.list_(pa.string())).take(at))
    write_table(folder / "state.parquet", state.drop_columns(["centroid"]))
    if task.root is not None:
        write_json(task.kept(stage) / FILE, _described(stage, merged, group, names, terms))


def _different(names: Sequence[str]) -> Iterator[str]:
    """The names, with a number after one that is taken."""
    taken = set[str]()
    for name in names:
        found, k = name, 1
        while found in taken:
            k += 1
            found = f"{name} ({k})"
        taken.add(found)
        yield found


def _ask(stage: MergeClusters, task: Task, terms: Sequence[Sequence[str]]) -> tuple[list[str | None], list[str | None]]:
    """(the name that the model gave each group, why it gave none)."""
    from curate.llm import Client, Request, default_cache, load_prompt

    prompt = load_prompt(stage.prompt)
    render = prompt.renderer("merge_clusters")
    folder = task.folder(stage)
    shown = pa.concat_tables([_SHOWN.empty_table(), *(read_table(folder / "excerpts" / name) for name in task.shards)])
    excerpts: list[list[str]] = [[] for _ in terms]
    for g, text in zip(shown["group"].to_pylist(), shown["text"].to_pylist(), strict=True):
        excerpts[g].append(text)
    requests = [
        Request(render(text=_shown(mine, sorted(excerpts[g])[:_EXCERPTS])), schema=prompt.schema, tag=g)
        for g, mine in enumerate(terms)
    ]
    names: list[str | None] = [None] * len(terms)
    errors: list[str | None] = [None] * len(terms)
    client = Client(
        stage.server,
        stage.model,
        api_key_env=stage.api_key_env,
        concurrency=stage.concurrency,
        retries=stage.retries,
        repairs=stage.repairs,
        timeout=stage.timeout,
        parameters=stage.parameters,
        cache=Path(stage.cache) if stage.cache else default_cache(),
    )
    with client:
        for answer in client.ask(requests):
            name = one_line(str(answer.value["name"])) if answer.value is not None and "name" in answer.value else ""
            names[answer.tag] = name or None
            if not name:
                errors[answer.tag] = answer.error or "empty"
                log.warning("merge_clusters: no name for group %s: %s", answer.tag, answer.detail or "the name is empty")
    return names, errors


def _shown(terms: Sequence[str], excerpts: Sequence[str]) -> str:
    lines = [f"Words: {', '.join(terms) or 'none'}"]
    return "\n\n".join([*lines, *(f"Beginning of a text: {text}" for text in excerpts)])


def one_line(name: str) -> str:
    """A name on one line of at most `LONGEST` characters, cut between words where it can be; "" for what has no letter."""
    name = " ".join(name.split()).strip(" \"'`“”«».,;:*#")
    if not any(c.isalnum() for c in name):
        return ""
    if len(name) <= LONGEST:
        return name
    cut = name[: LONGEST - 1]
    return (cut[: cut.rfind(" ")] if " " in cut[LONGEST // 2 :] else cut).rstrip(" ,;:") + "…"


def _described(
    stage: MergeClusters, merged: pa.Table, group: np.ndarray, names: Sequence[str | None], terms: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """What `clusters.json` holds."""
    rows = merged.to_pylist()
    clusters = [
        {
            "cluster": row["cluster"],
            "group": row["group"],
            "pruned": row["low"],
            "documents": row["documents"],
            "tokens": row["tokens"],
            "quality": {name: row[f"mean_{name}"] for name in stage.qualities},
            "centroid": _rounded(row["centroid"]),
        }
        for row in rows
    ]
    groups = []
    for g, name in enumerate(names):
        mine = [rows[i] for i in np.flatnonzero(group == g)]
        embedded = np.array([row["embedded"] for row in mine], np.float64)[:, None]
        centroid = (np.array([row["centroid"] for row in mine]) * embedded).sum(axis=0) / embedded.sum()
        groups.append(
            {
                "group": g,
                "name": name,
                "terms": list(terms[g]),
                "clusters": [row["cluster"] for row in mine],
                "documents": sum(row["documents"] for row in mine),
                "tokens": sum(row["tokens"] for row in mine),
                "quality": {q: _mean(mine, q) for q in stage.qualities},
                "centroid": _rounded(centroid.tolist()),
            }
        )
    return {"format": FORMAT, "column": stage.column, "into": stage.into, "groups": groups, "clusters": clusters}


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The mean of a quality over the documents of some clusters that have a value; None where there is none."""
    n = sum(row[f"values_{name}"] for row in rows)
    return math.fsum((row[f"mean_{name}"] or 0.0) * row[f"values_{name}"] for row in rows) / n if n else None


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]
