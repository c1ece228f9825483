"""The fit of `substring_dedup`: which ranges of tokens of which document repeat, in memory that the corpus does not decide.

1. groups, per shard: anchor, hash and place of every group of windows (see `curate.kernels.substrings`).
2. compare, per range of anchors: a group whose tokens all stood before repeats as a whole; of the other groups, those that
   share their anchor with a different group are named, since some of their windows may be equal.
3. sort, per some shards: what was found, by shard.
4. windows, per shard: hash and place of every window of the groups named.
5. repeats, per range of anchors: windows that stood before.
6. deliver, per some shards: the union of both, as ranges of tokens, by document.

Text is read in 1 and, of documents with a group that was named, in 4. What repeats a million times is a million records of 2
and one of 4. Records come in the order of the corpus, so the first of equals is the first that is met: a hash table of keys is
all that a comparison holds, and where that would exceed the limit it goes over its records several times, each time for a
part of the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.stage import ROW, Batches, Step, Task
from curate.storage import read_json, read_partition, read_table, write_json, write_partitioned, write_table

if TYPE_CHECKING:
    from curate.stages.substring_dedup import SubstringDedup

DOCS_PER_PARTITION = 250_000
SHARDS_PER_PARTITION = 16  # of 64 MB: documents may be long
SHARDS_PER_GROUP = 32
LEAST, MOST = 1 << 12, 128 << 20  # bytes of a buffer, whatever the limit
AT_ONCE = 1 << 20  # windows that are hashed before they are put away
LOAD = 1.5  # slots of a table for each key

REPEATS, NAMED = 1, 2

GROUPS = pa.schema(
    [(ROW, pa.uint32()), ("start", pa.uint32()), ("count", pa.uint16())]
    + [(name, pa.uint64()) for name in ("anchor", "a", "b")]
)
WINDOWS = pa.schema([(ROW, pa.uint32()), ("start", pa.uint32()), ("a", pa.uint64()), ("b", pa.uint64())])
FOUND = pa.schema([("shard", pa.uint32()), (ROW, pa.uint32()), ("start", pa.uint32()), ("count", pa.uint32())])
VERDICTS = pa.schema([*FOUND.remove(3), ("count", pa.uint16()), ("verdict", pa.uint8())])
NAMES = pa.schema([(ROW, pa.uint32()), ("start", pa.uint32()), ("count", pa.uint16()), ("partition", pa.uint32())])
RANGES = pa.schema([(ROW, pa.uint32()), ("begin", pa.uint32()), ("end", pa.uint32())])


def steps(stage: SubstringDedup, n_shards: int, n_docs: int) -> list[Step]:
    """The phases of the fit."""
    parts = max(1, -(-n_docs // DOCS_PER_PARTITION), -(-n_shards // SHARDS_PER_PARTITION))
    tasks = max(1, -(-n_shards // SHARDS_PER_GROUP))
    return [
        Step("groups", partial(_groups, stage, parts), reads=("text",)),
        Step("compare", partial(_compare, stage), tasks=parts),
        Step("sort", partial(_sort, stage, parts), tasks=tasks),
        Step("windows", partial(_windows, stage), reads=("text",), rows=partial(_named, stage)),
        Step("repeats", partial(_repeats, stage), tasks=parts),
        Step("deliver", partial(_deliver, stage, parts), tasks=tasks),
    ]


# --------------------------------------------------------------------------------------------- records by partition


class Spill:
    """Rows of one shard by partition, in files that hold about `size` bytes before they are compressed.

    The rows of a partition keep their order. What there is stands in a JSON file, written last.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema, size: int):
        self._folder, self._name, self._schema, self._size = folder, name, schema, min(max(size, LEAST), MOST)
        self._parts: list[np.ndarray] = []
        self._rows: list[pa.RecordBatch] = []
        self._held = 0
        self._runs: list[dict[str, int]] = []

    def add(self, part: np.ndarray, columns: Sequence[np.ndarray]) -> None:
        """Take rows: the partition of each, and their columns in the order of the schema."""
        if len(part):
            batch = pa.RecordBatch.from_arrays([pa.array(c) for c in columns], schema=self._schema)
            self._parts.append(part)
            self._rows.append(batch)
            self._held += batch.nbytes + part.nbytes
            if self._held > self._size:
                self._flush()

    def _flush(self) -> None:
        part = np.concatenate(self._parts)
        table = pa.Table.from_batches(self._rows)
        order = np.argsort(part, kind="stable")
        values, at = np.unique(part[order], return_index=True)
        bounds = [*at.tolist(), len(part)]
        pieces = ((int(p), table.take(pa.array(order[a:b]))) for p, a, b in zip(values, bounds, bounds[1:], strict=False))
        write_partitioned(self._folder / f"{self._name}.{len(self._runs)}", self._schema, pieces)
        self._runs.append({str(p): b - a for p, a, b in zip(values, bounds, bounds[1:], strict=False)})
        self._parts, self._rows, self._held = [], [], 0

    def close(self) -> None:
        """Write what is left."""
        if self._rows:
            self._flush()
        write_json(self._folder / f"{self._name}.json", self._runs)


class Records:
    """The rows of one partition over all shards, in their order, read anew each time unless they fit into `room` bytes."""

    def __init__(self, folder: Path, shards: Sequence[str], partition: int, room: int, width: int):
        self._folder, self._partition = folder, partition
        self._pieces: list[tuple[int, str]] = []
        self.total = 0
        for shard, name in enumerate(shards):
            for run, rows in enumerate(read_json(folder / f"{name}.json")):
                if n := rows.get(str(partition), 0):
                    self.total += n
                    self._pieces.append((shard, f"{name}.{run}"))
        self._kept: list[tuple[int, pa.Table]] | None = list(self._read()) if self.total * width <= room else None

    def _read(self) -> Iterator[tuple[int, pa.Table]]:
        for shard, name in self._pieces:
            yield shard, read_partition(self._folder / name, self._partition).combine_chunks()

    def __iter__(self) -> Iterator[tuple[int, pa.Table]]:
        return iter(self._kept) if self._kept is not None else self._read()


def _seen(
    records: Records, keys: tuple[str, str], room: int, everywhere: bool, wanted: list[np.ndarray] | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(which rows have a key that stood before, which rows have a key that stands several times), by piece.

    room: bytes for the table. everywhere: whether the second is asked for. wanted: rows that count, by piece; all if None.
    """
    from curate.kernels import substrings as kernels

    n = records.total if wanted is None else sum(int(w.sum()) for w in wanted)
    parts = max(1, -(-int(n * LOAD * 17) // max(room, LEAST)))
    slots = int(n / parts * LOAD * (1 if parts == 1 else 1.2)) + 64  # parts differ a little in size
    again: list[np.ndarray] = []
    many: list[np.ndarray] = []
    for part in range(parts):
        a = np.empty(slots, np.uint64)
        table = (a, a if keys[0] == keys[1] else np.empty(slots, np.uint64), np.zeros(slots, np.uint8))
        for i, (_, piece) in enumerate(records):
            if part == 0:
                again.append(np.zeros(len(piece), bool))
            rows = np.ones(len(piece), bool) if wanted is None else wanted[i]
            kernels.insert(*table, piece[keys[0]].to_numpy(), piece[keys[1]].to_numpy(), part, parts, rows, again[i])
        for i, (_, piece) in enumerate(records if everywhere else ()):
            if part == 0:
                many.append(np.zeros(len(piece), bool))
            rows = np.ones(len(piece), bool) if wanted is None else wanted[i]
            kernels.several(*table, piece[keys[0]].to_numpy(), piece[keys[1]].to_numpy(), part, parts, rows, many[i])
    return again, many


# --------------------------------------------------------------------------------------------- the steps


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _groups(stage: SubstringDedup, parts: int, task: Task, batches: Batches) -> None:
    from curate.kernels import substrings as kernels
    from curate.kernels.words import offsets_and_bytes

    spill = Spill(task.folder(stage) / "summarize" / "groups", _name(task), GROUPS, task.memory_limit // 8)
    gram = kernels.gram_of(stage.min_tokens)
    for batch in batches:
        text, start, count, anchor, a, b = kernels.groups(
            *offsets_and_bytes(batch["text"]), kernels.kinds(), stage.min_tokens, gram
        )
        part = np.empty(len(anchor), np.uint32)
        kernels.share(anchor, parts, part)
        spill.add(part, (batch[ROW].to_numpy()[text], start, count, anchor, a, b))
    spill.close()


def _compare(stage: SubstringDedup, task: Task) -> None:
    folder, limit = task.folder(stage), task.memory_limit
    records = Records(folder / "summarize" / "groups", task.shards, task.rank, limit // 3, 34)
    everywhere = stage.keep == "none"
    again, many = _seen(records, ("a", "b"), limit // 4, everywhere)
    different = [~stood for stood in again]  # the first of each kind of group
    _, shared = _seen(records, ("anchor", "anchor"), limit // 4, True, different)

    def verdicts() -> Iterator[tuple[int, pa.Table]]:
        for i, (shard, piece) in enumerate(records):
            verdict = (many if everywhere else again)[i] * np.uint8(REPEATS) | shared[i] * np.uint8(NAMED)
            at = np.flatnonzero(verdict)
            found = piece.select([ROW, "start", "count"]).take(pa.array(at))
            columns = [pa.array(np.full(len(at), shard, np.uint32)), *found.columns, pa.array(verdict[at])]
            yield shard, pa.Table.from_arrays(columns, schema=VERDICTS)

    write_partitioned(folder / "reduce" / "groups" / f"{task.rank:05d}.parquet", VERDICTS, _by_group(verdicts(), VERDICTS))


def _by_group(tables: Iterable[tuple[int, pa.Table]], schema: pa.Schema) -> Iterator[tuple[int, pa.Table]]:
    """(group of shards, what there is of it), out of tables in the order of the shards."""
    held: list[pa.Table] = []
    group = 0
    for shard, table in tables:
        if shard // SHARDS_PER_GROUP != group:
            yield group, pa.concat_tables([schema.empty_table(), *held])
            held, group = [], shard // SHARDS_PER_GROUP
        held.append(table)
    yield group, pa.concat_tables([schema.empty_table(), *held])


def _of_group(folder: Path, task: Task, parts: int, schema: pa.Schema) -> Iterator[tuple[int, dict[int, list[pa.Table]]]]:
    """(shard, {partition: rows of this shard}) for the shards of the group that is this task's."""
    tables = {}
    for part in range(parts):
        table = read_partition(folder / f"{part:05d}.parquet", task.rank).combine_chunks()
        if table.num_rows:
            tables[part] = table
    first = task.rank * SHARDS_PER_GROUP
    for shard in range(first, min(first + SHARDS_PER_GROUP, len(task.shards))):
        found = {}
        for part, table in tables.items():
            low, high = np.searchsorted(table["shard"].to_numpy(), [shard, shard + 1])
            found[part] = [table.slice(low, high - low)]
        yield shard, found


def _sort(stage: SubstringDedup, parts: int, task: Task) -> None:
    folder = task.folder(stage)
    for shard, found in _of_group(folder / "reduce" / "groups", task, parts, VERDICTS):
        names, ranges = [NAMES.empty_table()], [RANGES.empty_table()]
        for part, tables in found.items():
            for table in tables:
                verdict = table["verdict"].to_numpy()
                ranges.append(_ranges(stage, table.filter(pa.array(verdict & REPEATS != 0))))
                named = table.filter(pa.array(verdict & NAMED != 0)).select([ROW, "start", "count"])
                names.append(named.append_column("partition", pa.array(np.full(len(named), part, np.uint32))))
        order = [(ROW, "ascending"), ("start", "ascending")]
        name = task.shards[shard]
        write_table(folder / "reduce" / "names" / name, pa.concat_tables(names).sort_by(order), codec="lz4")
        write_table(folder / "reduce" / "ranges" / name, _union(pa.concat_tables(ranges)), codec="lz4")


def _ranges(stage: SubstringDedup, found: pa.Table) -> pa.Table:
    """Tokens of the windows that begin in `count` places from `start` on."""
    begin = found["start"].to_numpy()
    end = begin + found["count"].to_numpy() + np.uint32(stage.min_tokens - 1)
    return pa.Table.from_arrays([found[ROW], pa.array(begin), pa.array(end)], schema=RANGES)


def _union(ranges: pa.Table) -> pa.Table:
    """Ranges in order, those that overlap or touch as one."""
    row, begin, end = (ranges[c].to_numpy().astype(np.uint64) for c in RANGES.names)
    order = np.lexsort((begin, row))
    place = row[order] << np.uint64(32)
    begin, end = place | begin[order], np.maximum.accumulate(place | end[order])
    first = np.ones(len(begin), bool)
    first[1:] = begin[1:] > end[:-1]
    last = np.append(first[1:], np.ones(min(len(begin), 1), bool))
    columns = (begin[first] >> np.uint64(32), begin[first], end[last])
    return pa.Table.from_arrays([pa.array(c.astype(np.uint32)) for c in columns], schema=RANGES)


def _named(stage: SubstringDedup, task: Task) -> np.ndarray:
    return np.unique(read_table(task.folder(stage) / "reduce" / "names" / _name(task), [ROW])[ROW].to_numpy())


def _windows(stage: SubstringDedup, task: Task, batches: Batches) -> None:
    from curate.kernels import substrings as kernels
    from curate.kernels.words import offsets_and_bytes

    folder, name = task.folder(stage), _name(task)
    names = read_table(folder / "reduce" / "names" / name)
    row, partition = names[ROW].to_numpy(), names["partition"].to_numpy()
    start, count = (names[c].to_numpy().astype(np.int64) for c in ("start", "count"))
    spill = Spill(folder / "summarize" / "windows", name, WINDOWS, task.memory_limit // 8)
    for batch in batches if len(names) else ():
        rows = batch[ROW].to_numpy()
        if not len(rows):
            continue
        low, high = int(np.searchsorted(row, rows[0])), int(np.searchsorted(row, rows[-1], "right"))
        while low < high:  # one long document may have millions
            end = min(high, low + max(1, int(np.searchsorted(np.cumsum(count[low:high]), AT_ONCE, "right"))))
            text = np.searchsorted(rows, row[low:end]).astype(np.int64)
            at, a, b = kernels.windows(
                *offsets_and_bytes(batch["text"]), kernels.kinds(), stage.min_tokens, text, start[low:end], count[low:end]
            )
            part, place = (np.repeat(values[low:end], count[low:end]) for values in (partition, row))
            spill.add(part, (place, at, a, b))
            low = end
    spill.close()


def _repeats(stage: SubstringDedup, task: Task) -> None:
    folder, limit = task.folder(stage), task.memory_limit
    records = Records(folder / "summarize" / "windows", task.shards, task.rank, limit // 3, 24)
    everywhere = stage.keep == "none"
    again, many = _seen(records, ("a", "b"), limit // 4, everywhere)

    def repeats() -> Iterator[tuple[int, pa.Table]]:
        for i, (shard, piece) in enumerate(records):
            at = np.flatnonzero((many if everywhere else again)[i])
            row, start = (piece[c].to_numpy()[at] for c in (ROW, "start"))
            first = np.ones(len(at), bool)
            first[1:] = (row[1:] != row[:-1]) | (start[1:] != start[:-1] + 1)
            bounds = np.flatnonzero(first)
            counts = np.diff(np.append(bounds, len(at))).astype(np.uint32)
            columns: list[Any] = [np.full(len(bounds), shard, np.uint32), row[bounds], start[bounds], counts]
            yield shard, pa.Table.from_arrays([pa.array(c) for c in columns], schema=FOUND)

    write_partitioned(folder / "reduce" / "windows" / f"{task.rank:05d}.parquet", FOUND, _by_group(repeats(), FOUND))


def _deliver(stage: SubstringDedup, parts: int, task: Task) -> None:
    folder = task.folder(stage)
    for shard, found in _of_group(folder / "reduce" / "windows", task, parts, FOUND):
        name = task.shards[shard]
        ranges = [read_table(folder / "reduce" / "ranges" / name)]
        ranges += [_ranges(stage, table) for tables in found.values() for table in tables]
        write_table(folder / "rows" / name, _union(pa.concat_tables(ranges)), codec="lz4")
