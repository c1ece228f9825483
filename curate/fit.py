"""The default steps of a fit: summaries per shard, one reduction per partition, one result.

Summaries are one file per shard with a row group per partition. A reduction that decides about single rows writes a row
group per *group of shards*, so that handing the decisions back to the shards (`deliver`) reads each of them once, whatever
the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import StageError
from curate.storage import read_partition, write_partitioned, write_table

if TYPE_CHECKING:
    from curate.stage import Batches, GlobalStage, Task

SHARDS_PER_GROUP = 256


def shard_groups(n_shards: int) -> int:
    """How many tasks `deliver` has."""
    return max(1, -(-n_shards // SHARDS_PER_GROUP))


def summarize(stage: GlobalStage, n_docs: int, task: Task, batches: Batches) -> None:
    """Collect what a stage says about the documents of one shard, by partition."""
    n = stage.partitions(n_docs)
    found: dict[int, list[pa.Table]] = {}
    for partition, part in stage.summarize(batches, replace(task, partitions=n)):
        if part.num_rows:
            found.setdefault(partition, []).append(pa.table(part) if isinstance(part, pa.RecordBatch) else part)
    outside = [p for p in found if not 0 <= p < n]
    if outside:
        raise StageError(f"{type(stage).__name__}.summarize gave partition {outside[0]}, but there are {n}")
    schema = next(iter(found.values()))[0].schema if found else pa.schema([])
    path = task.folder(stage) / "summarize" / task.shards[task.shard or 0]
    write_partitioned(path, schema, ((p, pa.concat_tables(found[p]).combine_chunks()) for p in sorted(found)))


def _summaries(stage: GlobalStage, task: Task) -> Iterator[pa.Table]:
    for name in task.shards:
        table = read_partition(task.folder(stage) / "summarize" / name, task.rank)
        if table.num_rows:
            yield table


def reduce(stage: GlobalStage, partitions: int, task: Task) -> None:
    """Reduce one partition over all shards."""
    task = replace(task, partitions=partitions)
    tables = list(_summaries(stage, task))
    path = task.folder(stage) / "reduce" / f"{task.rank:05d}.parquet"
    if not tables:
        write_partitioned(path, pa.schema([]), [])
        return
    result = stage.reduce(iter(tables), task)
    if not stage.decides_rows:
        write_partitioned(path, result.schema, [(0, result)])
        return
    write_decisions(stage, task, result)


def write_decisions(stage: GlobalStage, task: Task, decisions: pa.Table) -> None:
    """What one partition (`task.rank`) has decided, for `deliver`: a table with the columns `shard` and `row` (uint32)."""
    decisions = decisions.sort_by([("shard", "ascending"), ("row", "ascending")]).combine_chunks()
    bounds = np.arange(0, len(task.shards) + SHARDS_PER_GROUP, SHARDS_PER_GROUP)
    at = np.searchsorted(decisions["shard"].to_numpy(), bounds)
    parts = ((g, decisions.slice(at[g], at[g + 1] - at[g])) for g in range(len(bounds) - 1))
    write_partitioned(task.folder(stage) / "reduce" / f"{task.rank:05d}.parquet", decisions.schema, parts)


def _reduced(stage: GlobalStage, task: Task, partitions: int, group: int) -> Iterator[pa.Table]:
    for p in range(partitions):
        table = read_partition(task.folder(stage) / "reduce" / f"{p:05d}.parquet", group)
        if table.num_rows:
            yield table


def finish(stage: GlobalStage, partitions: int, task: Task) -> None:
    """Make the one table that `task.state` returns."""
    tables = list(_reduced(stage, task, partitions, 0))
    write_table(task.folder(stage) / "state.parquet", stage.finish(iter(tables), task) if tables else pa.table({}))


def deliver(stage: GlobalStage, partitions: int, task: Task) -> None:
    """Split the decisions about one group of shards by shard."""
    tables = list(_reduced(stage, task, partitions, task.rank))
    table = (
        pa.concat_tables(tables) if tables else pa.table({"shard": pa.array([], pa.uint32()), "row": pa.array([], pa.uint32())})
    )
    first = task.rank * SHARDS_PER_GROUP
    for shard in range(first, min(first + SHARDS_PER_GROUP, len(task.shards))):
        part = table.filter(pc.equal(table["shard"], shard)).sort_by("row")
        write_table(task.folder(stage) / "rows" / task.shards[shard], part)


def find_rows(rows: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bool, int64): which of the wanted row numbers are among `rows` (ascending), and where; 0 where they are not."""
    if not len(rows):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    hit = rows[at] == wanted
    return hit, np.where(hit, at, 0)
