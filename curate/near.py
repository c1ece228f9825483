"""The steps of `minhash`: keys, candidates, components, gather, verify, resolve; and those that keep an index.

    keys        per shard      band keys of every document, by range of the key
    candidates  per key range  edges that tie the documents of a bucket to its smallest
    components  once           union-find over all edges: a component for each candidate
    gather      per shard      shingle sets of the candidates, by component
    verify      per component  which document leads, which goes with it, at what similarity
    resolve     per shard      the decisions about its rows

Documents are numbered through: the first of a shard comes after the last of the shard before, and those of an index after
all of the corpus. Partitions follow the number of documents; the memory limit says only how much of one is held at a time.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import fit, index, prefer
from curate.errors import StageError
from curate.stage import ROW, Batches, Step, Task
from curate.storage import (
    TableWriter,
    atomic,
    open_table,
    partition_rows,
    read_json,
    read_partition,
    write_json,
    write_partitioned,
)

if TYPE_CHECKING:
    from curate.stages.minhash import MinHash

KEYS_PARTITION, VERIFY_PARTITION = 500_000, 250_000  # documents of a partition, until there would be too many partitions
MOST_PARTITIONS = 512
LEADERS = 64  # with which the documents of a large component are compared
KEY_BYTES = 48  # of a key while a range of them is sorted: itself, its document, the order, the edges
LEAST = 1 << 16  # bytes of a buffer, however little memory there is
SHARES = 4  # a buffer takes the memory limit over this, since what it becomes takes as much again
LEADS, DUPLICATE, CONTAINED, UNRESOLVED = range(4)
OLD = np.uint64(1 << 63)  # of a cluster that an indexed document leads

EDGES = pa.schema([("a", pa.uint64()), ("b", pa.uint64())])
KEYS = pa.schema([("key", pa.uint64()), ("row", pa.uint32())])
MEMBERS = pa.schema([("row", pa.uint32()), ("component", pa.uint64())])
GATHERED = pa.schema(
    [
        ("component", pa.uint64()),
        ("document", pa.uint64()),
        ("id", pa.string()),
        ("prefer", pa.uint64()),  # the lower, the more
        ("cluster", pa.uint64()),  # what a cluster is called that it leads
        ("size", pa.uint32()),  # shingles
        ("start", pa.int64()),  # where they begin in the file beside
    ]
)
DECISIONS = pa.schema(
    [
        ("shard", pa.uint32()),
        ("row", pa.uint32()),
        ("kind", pa.uint8()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float64()),
        ("value", pa.float64()),
        ("cluster", pa.uint64()),
        ("size", pa.uint32()),
    ]
)
NOTHING = DECISIONS.empty_table()


def steps(stage: MinHash, n_shards: int, n_docs: int) -> list[Step]:
    """The phases of the fit."""
    ranges, parts = _partitions(n_docs, KEYS_PARTITION), _partitions(n_docs, VERIFY_PARTITION)
    old = index_of(stage)
    found = [
        Step("keys", partial(keys, stage, ranges), reads=("text",)),
        Step("candidates", partial(candidates, stage, ranges), tasks=ranges),
        Step("components", partial(components, stage, ranges)),
        Step("gather", partial(gather, stage, parts), reads=_compared(stage), rows=partial(members, stage)),
    ]
    if old is not None:
        found.append(Step("gather_index", partial(gather_index, stage, parts), tasks=max(1, len(old.parts))))
    found += [
        Step("verify", partial(verify, stage), tasks=parts),
        Step("resolve", partial(fit.deliver, stage, parts), tasks=fit.shard_groups(n_shards)),
    ]
    if stage.keep_index:
        found.append(Step("index", partial(write_index, stage), reads=("text", "id")))
        found.append(Step("close_index", partial(close_index, stage)))
    return found


def _partitions(n_docs: int, size: int) -> int:
    return max(1, -(-n_docs // max(size, n_docs // MOST_PARTITIONS)))


def read_in_fit(stage: MinHash) -> tuple[str, ...]:
    """The columns that the fit reads."""
    place = ("file", "record") if stage.mode == "label" else ()
    return tuple(dict.fromkeys(("text", "id", *prefer.columns(stage.prefer), *place)))


def _compared(stage: MinHash) -> tuple[str, ...]:
    return tuple(c for c in read_in_fit(stage) if c != "text" or _verified(stage))


def _verified(stage: MinHash) -> bool:
    return stage.verify != "off"


def _fold(stage: MinHash, digits: bool) -> Any:
    from curate.kernels.shingles import folding

    return folding(stage.lowercase, stage.strip_accents, digits, stage.strip_punctuation)


def _texts(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    from curate.kernels.words import offsets_and_bytes

    text = batch["text"]
    return offsets_and_bytes(pc.fill_null(text, "") if text.null_count else text)


def _band_keys(stage: MinHash, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """(rows, bands) uint64, and which rows have any."""
    from curate.kernels.minhash import band_keys

    fold = _fold(stage, stage.fold_digits)
    found, counts = band_keys(*_texts(batch), fold, stage.ngram, stage.unit, stage.bands, stage.rows, stage.seed)
    return found, counts > 0


# --------------------------------------------------------------------------------------------- keys


def keys(stage: MinHash, ranges: int, task: Task, batches: Batches) -> None:
    """Band keys of the documents of one shard, by range of the key and sorted within it."""
    name = task.shards[task.shard or 0]
    seen = {"rows": 0, "short": 0}

    def parts() -> Iterator[tuple[int, pa.Table]]:
        for key, row in _keyed(stage, task, batches, seen):
            bounds = np.searchsorted(key, _lows(ranges))
            for p in range(ranges):
                at = slice(bounds[p], bounds[p + 1] if p + 1 < ranges else len(key))
                yield p, pa.table([pa.array(key[at]), pa.array(row[at])], schema=KEYS)

    write_partitioned(task.folder(stage) / "keys" / name, KEYS, parts(), codec="none")
    write_json(task.folder(stage) / "totals" / f"{name}.json", seen)


def _keyed(stage: MinHash, task: Task, batches: Batches, seen: dict[str, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(uint64 keys, uint32 rows) in order of the keys, as many at a time as may be held."""
    most = max(1, task.memory_limit // SHARES // (KEY_BYTES * stage.bands))
    held: list[tuple[np.ndarray, np.ndarray]] = []
    rows = 0
    for batch in batches:
        found, has = _band_keys(stage, batch)
        row = batch[ROW].to_numpy()
        seen["rows"] = int(row[-1]) + 1 if len(row) else seen["rows"]
        seen["short"] += int((~has).sum())
        held.append((found[has], row[has]) if not has.all() else (found, row))
        rows += len(row)
        if rows >= most:
            yield _sorted(stage, held)
            held, rows = [], 0
    if held:
        yield _sorted(stage, held)


def _sorted(stage: MinHash, held: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    key = np.concatenate([found.ravel() for found, _ in held])
    row = np.concatenate([row for _, row in held])
    order = np.argsort(key)
    return key[order], row[order // stage.bands]


def _lows(ranges: int) -> np.ndarray:
    """The smallest key of each range (uint64)."""
    return np.array([-(-(p << 64) // ranges) for p in range(ranges)], np.uint64)


def short_texts(stage: MinHash, task: Task) -> int:
    """How many documents of the shard at hand are too short to have a shingle."""
    return int(read_json(task.folder(stage) / "totals" / f"{task.shards[task.shard or 0]}.json")["short"])


def _starts(stage: MinHash, task: Task) -> np.ndarray:
    """Number of the first document of each shard and of each part of an index, and one more (int64)."""
    folder = task.folder(stage) / "totals"
    counts = [read_json(folder / f"{name}.json")["rows"] for name in task.shards]
    old = index_of(stage)
    counts += [part.documents for part in old.parts] if old else []
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


# --------------------------------------------------------------------------------------------- candidates


def candidates(stage: MinHash, ranges: int, task: Task) -> None:
    """The edges of one range of keys, in as many passes over it as the memory limit asks for."""
    from curate.kernels.components import bucket_edges

    folder = task.folder(stage)
    starts = _starts(stage, task)
    shards = len(task.shards)
    low = -(-(task.rank << 64) // ranges)
    high = -(-((task.rank + 1) << 64) // ranges)
    count = sum(partition_rows(folder / "keys" / name, task.rank) for name in task.shards)
    count += int(starts[-1] - starts[shards]) * stage.bands // ranges
    passes = max(1, -(-count * KEY_BYTES // max(LEAST, task.memory_limit // (2 * SHARES))))
    bounds = [low + (high - low) * i // passes for i in range(passes + 1)]
    with TableWriter(folder / "edges" / f"{task.rank:05d}.parquet", EDGES, codec="lz4") as writer:
        for i in range(passes):
            held = list(_keys_between(stage, task, starts, bounds[i], bounds[i + 1]))
            if not held:
                continue
            key, document = (np.concatenate(column) for column in zip(*held, strict=True))
            held.clear()
            table = pa.table([pa.array(ends) for ends in bucket_edges(key, document, int(starts[shards]))], schema=EDGES)
            for start in range(0, len(table), 1 << 20):
                writer.write(table.slice(start, 1 << 20))


def _keys_between(
    stage: MinHash, task: Task, starts: np.ndarray, low: int, high: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(uint64 keys, uint64 documents) of a range of keys, low included; high may be 2^64."""

    def within(table: pa.Table, start: np.int64) -> tuple[np.ndarray, np.ndarray]:
        key, row = table["key"].to_numpy(), table["row"].to_numpy()
        if len(key) and (int(key.min()) < low or int(key.max()) >= high):
            mine = (key >= np.uint64(low)) & (key <= np.uint64(high - 1))
            key, row = key[mine], row[mine]
        return key, row.astype(np.uint64) + np.uint64(start)

    for start, name in zip(starts, task.shards, strict=False):
        yield within(read_partition(task.folder(stage) / "keys" / name, task.rank), start)
    old = index_of(stage)
    for start, part in zip(starts[len(task.shards) :], old.parts if old else (), strict=False):
        for table in index.keys_between(part.files["keys"], "key", low, high):
            yield within(table, start)


# --------------------------------------------------------------------------------------------- components


def components(stage: MinHash, ranges: int, task: Task) -> None:
    """The documents that have a candidate, with their component, by shard (and part of an index)."""
    from curate.kernels.components import NONE
    from curate.kernels.components import components as join

    folder = task.folder(stage)
    starts = _starts(stage, task)
    found = 0

    def edges() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for p in range(ranges):
            with open_table(folder / "edges" / f"{p:05d}.parquet") as file:
                for group in range(file.metadata.num_row_groups):
                    table = file.read_row_group(group, use_threads=False)
                    yield table["a"].to_numpy(), table["b"].to_numpy()

    def parts(spill: Path) -> Iterator[tuple[int, pa.Table]]:
        nonlocal found
        for base, labels in join(edges, int(starts[-1]), max(LEAST, task.memory_limit // SHARES), spill):
            first = max(0, int(np.searchsorted(starts, base, side="right")) - 1)
            for shard in range(first, len(starts) - 1):
                low, high = max(base, int(starts[shard])), min(base + len(labels), int(starts[shard + 1]))
                if low >= base + len(labels):
                    break
                mine = labels[low - base : max(low, high) - base]
                at = np.flatnonzero(mine != NONE)
                found += len(at)
                row = (at + low - int(starts[shard])).astype(np.uint32)
                yield shard, pa.table([pa.array(row), pa.array(mine[at])], schema=MEMBERS)

    with index.scratch(folder) as spill:
        write_partitioned(folder / "members.parquet", MEMBERS, parts(spill))
    task.count("candidates", found)


def _members(stage: MinHash, task: Task, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint32 rows, uint64 components) of the candidates of a shard, or of a part of an index."""
    table = read_partition(task.folder(stage) / "members.parquet", shard)
    return table["row"].to_numpy(), table["component"].to_numpy()


def members(stage: MinHash, task: Task) -> np.ndarray:
    """The rows of a shard that have a candidate."""
    return _members(stage, task, task.shard or 0)[0]


# --------------------------------------------------------------------------------------------- gather


class _Gathering:
    """Writes candidates by partition of their component, as many at a time as may be held, and beside them their shingles: bare
    uint64, since they are most of it."""

    def __init__(self, path: Path, parts: int, memory: int):
        self._path, self._parts, self._most = path, parts, memory // SHARES
        self._held: list[tuple[pa.Table, np.ndarray]] = []
        self._size = self._written = 0

    def write(self, candidates: Iterator[tuple[pa.Table, np.ndarray]]) -> None:
        """candidates: tables without the last column of GATHERED, and the shingles of all of their rows."""
        with atomic(_beside(self._path)) as temporary, temporary.open("wb") as file:
            write_partitioned(self._path, GATHERED, self._partitioned(candidates, file), codec="none")

    def _partitioned(self, candidates: Iterator[tuple[pa.Table, np.ndarray]], file: BinaryIO) -> Iterator[tuple[int, pa.Table]]:
        for table, hashes in candidates:
            if self._parts == 1:
                self._held.append((table, hashes[:0]))
                hashes.tofile(file)
            else:
                self._held.append((table, hashes.copy()))
                self._size += hashes.nbytes
                if self._size >= self._most:
                    yield from self._rest(file)
        yield from self._rest(file)

    def _rest(self, file: BinaryIO) -> Iterator[tuple[int, pa.Table]]:
        from curate.kernels.leaders import copy_spans

        if not self._held:
            return
        table = pa.concat_tables([held for held, _ in self._held]).combine_chunks()
        if self._parts > 1:
            part = _spread(table["component"].to_numpy(), self._parts)
            order = np.argsort(part, kind="stable")
            size = table["size"].to_numpy().astype(np.int64)
            hashes = np.concatenate([shingles for _, shingles in self._held])
            ordered = np.empty_like(hashes)
            copy_spans(_starts_of(size)[order], hashes, _starts_of(size[order]), size[order], ordered)
            ordered.tofile(file)
            table, part = table.take(pa.array(order)), part[order]
        else:
            part = np.zeros(len(table), np.uint64)
        size = table["size"].to_numpy().astype(np.int64)
        table = table.append_column("start", pa.array(_starts_of(size) + self._written))
        self._written += int(size.sum())
        self._held, self._size = [], 0
        bounds = np.searchsorted(part, np.arange(self._parts + 1))
        for p, (a, b) in enumerate(itertools.pairwise(bounds)):
            yield p, table.slice(a, b - a)


def _starts_of(sizes: np.ndarray) -> np.ndarray:
    return np.cumsum(sizes) - sizes


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.shingles")


def _spread(component: np.ndarray, parts: int) -> np.ndarray:
    """The partition of each component: by a hash, since a component is named after its smallest document."""
    mixed = component * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)


def gather(stage: MinHash, parts: int, task: Task, batches: Batches) -> None:
    """What is needed to compare the candidates of one shard: ids, what they are preferred by, and their shingles."""
    rows, component = _members(stage, task, task.shard or 0)
    start = _starts(stage, task)[task.shard or 0]

    def tables() -> Iterator[tuple[pa.Table, np.ndarray]]:
        room: np.ndarray | None = None
        for batch in batches:
            row = batch[ROW].to_numpy()
            size, hashes = _shingles(stage, batch, room)
            room = hashes.base if isinstance(hashes.base, np.ndarray) else room
            columns = [
                pa.array(component[np.searchsorted(rows, row)]),
                pa.array(row.astype(np.uint64) + np.uint64(start)),
                batch["id"].cast(pa.string()),
                pa.array(prefer.keys("minhash", stage.prefer, batch)),
                pa.array(_names(batch)) if stage.mode == "label" else pa.nulls(len(row), pa.uint64()),
                pa.array(size),
            ]
            yield pa.table(columns, names=GATHERED.names[:-1]), hashes

    _Gathering(task.folder(stage) / "gather" / task.shards[task.shard or 0], parts, task.memory_limit).write(tables())


def _names(batch: pa.RecordBatch) -> np.ndarray:
    """uint64 of each document, the same wherever it stands: of its id, file and record."""
    from curate.kernels.keys import hash128, order_hash

    return hash128(batch["id"].cast(pa.string()))[:, 0] ^ order_hash(0, batch["file"], batch["record"])


def _shingles(stage: MinHash, batch: pa.RecordBatch, room: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(uint32 numbers of distinct shingles, uint64 all of them): of the texts as they are verified; none if they are not.

    room: an array that the shingles may be written to.
    """
    from curate.kernels.shingles import shingle_sets

    if not _verified(stage):
        return np.zeros(len(batch), np.uint32), np.empty(0, np.uint64)
    bounds, hashes = shingle_sets(*_texts(batch), _fold(stage, False), stage.ngram, stage.unit, room)
    return np.diff(bounds).astype(np.uint32), hashes


# --------------------------------------------------------------------------------------------- verify


def verify(stage: MinHash, task: Task) -> None:
    """Decide the components of one partition."""
    folder = task.folder(stage)
    old = index_of(stage)
    starts = _starts(stage, task)
    own = int(starts[len(task.shards)])
    sources = [folder / "gather" / name for name in task.shards]
    sources += [folder / "gather" / f"index-{k:05d}" for k in range(len(old.parts) if old else 0)]
    table, source = _gathered(sources, task.rank)
    if not len(table):
        fit.write_decisions(stage, task, NOTHING)
        return
    order = _in_order(stage, table, own)
    component = table["component"].to_numpy()[order]
    if _verified(stage):
        size, start = (table[c].to_numpy()[order].astype(np.int64) for c in ("size", "start"))
        clusters = _Clusters(stage, component, size, start, source[order], sources, task.memory_limit)
        kind, leader, similarity, value = clusters.decide()
    else:
        first = np.flatnonzero(np.diff(component, prepend=~component[:1]) != 0)
        leader = np.repeat(first, np.diff(np.append(first, len(component))))
        kind = np.where(leader == np.arange(len(leader)), LEADS, DUPLICATE).astype(np.uint8)
        similarity = value = np.full(len(leader), np.nan)
    document = table["document"].to_numpy()[order].astype(np.int64)
    kind[(kind != LEADS) & (document >= own)] = LEADS  # what an index holds stays
    sizes = np.bincount(leader, minlength=len(leader)).astype(np.uint32)
    task.peak("cluster", int(sizes.max()))
    task.count("unresolved", int((kind == UNRESOLVED).sum()))
    mine = (document < own) & (sizes[leader] > 1 if stage.mode == "label" else kind != LEADS)
    mine |= (document < own) & (kind == UNRESOLVED)
    at = np.flatnonzero(mine)
    shard = np.searchsorted(starts, document, side="right") - 1
    row = document - starts[shard]
    gone = (kind[at] == DUPLICATE) | (kind[at] == CONTAINED)
    ids = table["id"].take(pa.array(order[leader[at]], mask=~gone))
    alone = sizes[leader[at]] < 2
    fit.write_decisions(
        stage,
        task,
        pa.table(
            [
                pa.array(shard[at].astype(np.uint32)),
                pa.array(row[at].astype(np.uint32)),
                pa.array(kind[at]),
                ids,
                pa.array(similarity[at], mask=np.isnan(similarity[at])),
                pa.array(value[at], mask=kind[at] != CONTAINED),
                table["cluster"].take(pa.array(order[leader[at]], mask=alone)),
                pa.array(sizes[leader[at]]),
            ],
            schema=DECISIONS,
        ),
    )


def _gathered(sources: Sequence[Path], part: int) -> tuple[pa.Table, np.ndarray]:
    """(a table of all candidates of a partition, int64 source of each)."""
    tables = [read_partition(path, part) for path in sources]
    table = pa.concat_tables(tables or [GATHERED.empty_table()]).combine_chunks()
    return table, np.repeat(np.arange(len(sources)), [len(t) for t in tables])


def _in_order(stage: MinHash, table: pa.Table, own: int) -> np.ndarray:
    """The candidates by component; within it, indexed ones first, then those that are preferred."""
    document = table["document"].to_numpy()
    young = document < own
    if stage.prefer == "first":
        return np.lexsort((document, young, table["component"].to_numpy()))
    ids = table["id"]
    keys = pa.table(
        {
            "component": table["component"],
            "young": pa.array(young),
            "prefer": table["prefer"],
            "length": pc.fill_null(pc.binary_length(ids), 0),
            "id": pc.fill_null(ids, ""),
            "document": table["document"],
        }
    )
    return pc.sort_indices(keys, [(c, "ascending") for c in keys.column_names]).to_numpy()


class _Clusters:
    """Leaders and what goes with them, for candidates in order; their shingles are read a range at a time.

    component, size (shingles), start and source (where the shingles stand): of each candidate, in order.
    """

    def __init__(
        self,
        stage: MinHash,
        component: np.ndarray,
        size: np.ndarray,
        start: np.ndarray,
        source: np.ndarray,
        sources: Sequence[Path],
        memory: int,
    ):
        self._stage, self._component, self._size = stage, component, size
        self._start, self._source, self._sources = start, source, sources
        self._most = max(1, memory // SHARES // 8)
        first = np.flatnonzero(np.diff(component, prepend=~component[:1]) != 0)
        members = np.diff(np.append(first, len(component)))
        most = np.where(members > stage.verify_sample, LEADERS, np.iinfo(np.int64).max)
        self._limit = np.repeat(most, members)

    def decide(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(uint8 kind, int64 leader, float64 similarity, float64 share that lies in the leader) of each candidate."""
        threshold, containment = self._stage.verify, self._stage.containment
        assert not isinstance(threshold, str)
        n = len(self._component)
        everyone = np.arange(n)
        kind = np.full(n, LEADS, np.uint8)
        similarity, value = np.full(n, np.nan), np.full(n, np.nan)
        leader = everyone.copy()
        inside = np.zeros(n, bool)
        container = everyone.copy()
        if not isinstance(containment, str):
            by_size = np.lexsort((everyone, -self._size, self._component))
            container = self._absorb(by_size, None, threshold, containment, True, similarity, value)
            inside = (container != everyone) & (container >= 0)
            container[container < 0] = everyone[container < 0]
        rest = np.flatnonzero(~inside)
        leader[rest] = self._absorb(rest, None, threshold, 2.0, False, similarity, value)[rest]
        kind[leader < 0] = UNRESOLVED
        leader[leader < 0] = everyone[leader < 0]
        kind[leader != everyone] = DUPLICATE
        kind[inside] = CONTAINED
        leader[inside] = container[inside]
        lost = inside & (leader[container] != container)  # what they lie in has gone itself
        if lost.any():
            assert not isinstance(containment, str)
            stays = ~inside & (leader == everyone) & (kind == LEADS)
            found = self._absorb(by_size[(lost | stays)[by_size]], stays, threshold, containment, False, similarity, value)
            kind[lost] = np.where(similarity[lost] >= threshold, DUPLICATE, CONTAINED)
            kind[lost & (found == everyone)] = LEADS
            kind[lost & (found < 0)] = UNRESOLVED
            leader[lost] = np.where(found[lost] < 0, everyone[lost], found[lost])
        gone = (kind == DUPLICATE) | (kind == CONTAINED)
        similarity[~gone] = value[~gone] = np.nan
        return kind, leader, similarity, value

    def _absorb(
        self,
        order: np.ndarray,
        leads: np.ndarray | None,
        jaccard: float,
        share: float,
        strict: bool,
        similarity: np.ndarray,
        value: np.ndarray,
    ) -> np.ndarray:
        """Leaders of the candidates in this order; where `leads` is given, these lead and go before the others.

        Returns for each candidate its leader, itself, or -1, and writes similarities of those that have another.
        """
        from curate.kernels import leaders as kernel

        if leads is not None:  # leaders before what is compared with them
            order = order[np.lexsort((np.arange(len(order)), ~leads[order], self._component[order]))]
        result = np.arange(len(self._component))
        carried = order[:0]
        start = 0
        while start < len(order):
            room = max(0, self._most - int(self._size[carried].sum()))
            end = start + max(1, int(np.searchsorted(np.cumsum(self._size[order[start:]]), room, side="right")))
            at = np.concatenate([carried, order[start:end]])
            role = np.full(len(at), kernel.NEW, np.uint8)
            if leads is not None:
                role[leads[at]] = kernel.LEADER
            role[: len(carried)] = kernel.LEADER
            starts, hashes = self._load(at)
            found = np.empty(len(at), np.int64)
            alike, inside = np.full(len(at), np.nan), np.full(len(at), np.nan)
            step = np.int64(self._stage.ngram)
            kernel.absorb(
                starts, self._size[at], hashes, self._component[at], role, self._limit[at],
                jaccard, share, strict, step, found, alike, inside,
            )  # fmt: skip
            goes = np.flatnonzero((found >= 0) & (found != np.arange(len(at))))
            result[at[goes]] = at[found[goes]]
            result[at[found < 0]] = kernel.UNRESOLVED
            similarity[at[goes]], value[at[goes]] = alike[goes], inside[goes]
            if end < len(order):
                leading = found == np.arange(len(at))
                carried = at[leading & (self._component[at] == self._component[order[end]])]
            start = end
        return result

    def _load(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int64 where each begins, uint64) the shingles of these candidates, in the order of the files."""
        in_file = at[np.lexsort((self._start[at], self._source[at]))]
        size, start, source = self._size[in_file], self._start[in_file], self._source[in_file]
        target = _starts_of(size)
        hashes = np.empty(int(size.sum()), np.uint64)
        room = memoryview(hashes.view(np.uint8).data)
        apart = np.ones(len(in_file), bool)  # from the one before, in its file
        apart[1:] = (source[1:] != source[:-1]) | (start[1:] != start[:-1] + size[:-1])
        first = np.flatnonzero(apart)
        last = np.append(first[1:], len(in_file)) - 1
        with contextlib.ExitStack() as stack:
            files: dict[int, BinaryIO] = {}
            for a, b in zip(first.tolist(), last.tolist(), strict=True):
                where = int(source[a])
                if where not in files:
                    stack.close()  # one at a time
                    files = {where: stack.enter_context(_beside(self._sources[where]).open("rb"))}
                files[where].seek(8 * int(start[a]))
                wanted = room[8 * int(target[a]) : 8 * int(target[b] + size[b])]
                if files[where].readinto(wanted) != len(wanted):  # type: ignore[attr-defined]
                    raise StageError(
                        f"minhash: {_beside(self._sources[where])} ends too soon: delete the run's state and run again"
                    )
        starts = np.empty(len(self._component), np.int64)
        starts[in_file] = target
        return starts[at], hashes


# --------------------------------------------------------------------------------------------- indexes


def _params(stage: MinHash) -> dict[str, Any]:
    """What has to be the same in a run that makes an index and in one that uses it."""
    names = ("ngram", "unit", "bands", "rows", "lowercase", "strip_accents", "fold_digits", "strip_punctuation", "seed")
    return {name: getattr(stage, name) for name in names}


def index_file(stage: MinHash) -> str:
    """The index.json of the index that the stage is run against."""
    assert stage.against is not None
    return str(index.find("minhash", stage.against))


def index_of(stage: MinHash) -> index.Index | None:
    """The index that the stage is run against. Raises RecipeError where it does not fit."""
    if stage.against is None:
        return None
    wanted = {**_params(stage), **({"shingles": True} if _verified(stage) else {})}
    return index.load("minhash", type(stage).version, wanted, stage.against)


def gather_index(stage: MinHash, parts: int, task: Task) -> None:
    """The same as `gather`, for the documents of a part of an index that have a candidate."""
    from curate.kernels.keys import hash128

    old = index_of(stage)
    path = task.folder(stage) / "gather" / f"index-{task.rank:05d}"
    if old is None or not old.parts:
        _Gathering(path, parts, task.memory_limit).write(iter(()))
        return
    shard = len(task.shards) + task.rank
    rows, component = _members(stage, task, shard)
    start = np.uint64(_starts(stage, task)[shard])

    def tables() -> Iterator[tuple[pa.Table, np.ndarray]]:
        first = 0
        with open_table(old.parts[task.rank].files["documents"]) as file:
            for group in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows, [first, first + count])
                if high > low:
                    table = file.read_row_group(group, use_threads=False).take(pa.array(rows[low:high] - np.uint32(first)))
                    columns = [
                        pa.array(component[low:high]),
                        pa.array(rows[low:high].astype(np.uint64) + start),
                        table["id"],
                        pa.array(np.zeros(len(table), np.uint64)),
                        pa.array(hash128(table["id"].combine_chunks())[:, 0] | OLD),
                        table["size"],
                    ]
                    yield pa.table(columns, names=GATHERED.names[:-1]), _unpacked(table["shingles"].combine_chunks())
                first += count

    _Gathering(path, parts, task.memory_limit).write(tables())


def _packed(hashes: np.ndarray, sizes: np.ndarray) -> pa.Array:
    """Shingles as a binary column."""
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64) * 8]).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(sizes), [None, pa.py_buffer(offsets), pa.py_buffer(hashes)])


def _unpacked(column: pa.Array) -> np.ndarray:
    """The shingles of such a column, one after the other."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]].view(np.uint64)


INDEXED = pa.schema([("id", pa.string()), ("size", pa.uint32()), ("shingles", pa.binary())])


def write_index(stage: MinHash, task: Task, batches: Batches) -> None:
    """What the documents of one shard that stay give to the index."""
    old = index_of(stage)
    number = (len(old.parts) if old else 0) + (task.shard or 0)
    paths = {what: index.part_path(task.kept(stage), number, what) for what in ("keys", "documents")}
    state = task.state(stage)
    gone = state.filter(pc.is_in(state["kind"], pa.array([DUPLICATE, CONTAINED], pa.uint8())))["row"] if len(state) else None
    found: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    with TableWriter(paths["documents"], INDEXED, codec="none") as writer:
        for batch in batches:
            if gone is not None:
                batch = batch.filter(pc.invert(pc.is_in(batch[ROW], gone.combine_chunks())))
            if not len(batch):
                continue
            key, has = _band_keys(stage, batch)
            batch = batch.filter(pa.array(has))
            found.append((key[has], (np.arange(len(batch)) + count).astype(np.uint32)))
            size, hashes = _shingles(stage, batch)
            packed = _packed(hashes, size) if _verified(stage) else pa.nulls(len(batch), pa.binary())
            writer.write(pa.table([batch["id"].cast(pa.string()), pa.array(size), packed], schema=INDEXED))
            count += len(batch)
    key, row = _sorted(stage, found) if found else (np.empty(0, np.uint64), np.empty(0, np.uint32))
    index.write_keys(paths["keys"], "key", pa.table([pa.array(key), pa.array(row)], schema=KEYS))
    name = f"{task.shards[task.shard or 0]}.json"
    write_json(task.folder(stage) / "index" / name, {"documents": count, "files": index.described(paths)})


def close_index(stage: MinHash, task: Task) -> None:
    """Write index.json, which makes the index one."""
    made: list[Mapping[str, Any]] = [read_json(task.folder(stage) / "index" / f"{name}.json") for name in task.shards]
    params = {**_params(stage), "shingles": _verified(stage)}
    index.close(task.kept(stage), "minhash", type(stage).version, params, index_of(stage), made)
