"""Exact duplicates: one document of each set of equals."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import index
from curate.errors import StageError
from curate.fit import find_rows
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import read_json, write_json

DOCS_PER_PARTITION = 2_000_000


@dataclass(frozen=True, kw_only=True)
class ExactDedup(GlobalStage):
    """Drops documents whose text, normalised text, or value of a column stood earlier in the corpus.

    by: `text`; `normalised` (the text in Unicode NFKC, casefolded, without punctuation, symbols and control characters,
    whitespace collapsed; a text of nothing else is compared as it is); or the name of any column, such as `url`. Of equals,
    the first in input order stays. A null is equal to nothing. Equality is that of 128-bit xxh3 hashes: among 10^12
    documents a false match has a chance of about 10^-15.
    against: a run with an index, or an index: what it holds stays, and duplicates of it go. keep_index: keep the hashes and ids
    of the documents that stay in `index/` of the run, with those of `against`.

    Columns written: none. Reasons: `exact_dedup.duplicate`, with `_duplicate_of` = id of the document that stays and
    `_similarity` = 1.

    Source: own; hashes by xxHash (Yann Collet, https://xxhash.com).

    >>> result = ExactDedup(by="normalised")(["One, two.", "three", "ONE  two"])
    >>> result.kept["id"].to_pylist(), result.dropped["_duplicate_of"].to_pylist()
    (['0', '1'], ['0'])
    """

    decides_rows: ClassVar[bool] = True
    max_drop: ClassVar[float | None] = 0.5
    max_cluster: ClassVar[int | None] = 10_000
    example: ClassVar[dict[str, Any]] = {"by": "normalised"}

    by: str = "text"
    against: str | None = None
    keep_index: bool = False

    def files(self) -> tuple[str, ...]:
        return () if self.against is None else (str(index.find("exact_dedup", self.against)),)

    def bound(self, columns: Collection[str]) -> Stage:
        _index(self)  # one that does not fit is known before any work
        return self

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        found = super().steps(n_shards, n_docs)
        if self.keep_index:
            found.append(Step("index", partial(_write_index, self), reads=self.fit_reads()))
            found.append(Step("close_index", partial(_close_index, self)))
        return found

    def reads(self) -> tuple[str, ...]:
        return ()

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("id", "text" if self.by == "normalised" else self.by)))

    def reasons(self) -> tuple[str, ...]:
        return ("exact_dedup.duplicate",)

    def partitions(self, n_docs: int) -> int:
        return max(1, -(-n_docs // DOCS_PER_PARTITION))

    def summarize(self, batches: Batches, task: Task) -> Iterator[tuple[int, pa.RecordBatch]]:
        normalised = self.by == "normalised"
        for batch in batches:
            values = batch["text" if normalised else self.by]
            batch = batch.select([ROW, "id"]).filter(pc.is_valid(values))
            keys = _keys(pc.drop_null(values), normalised)
            table = pa.RecordBatch.from_pydict(
                {
                    "high": pa.array(keys[:, 0]),
                    "low": pa.array(keys[:, 1]),
                    "shard": pa.array(np.full(len(keys), task.shard or 0, np.uint32)),
                    "row": batch[ROW],
                    "id": batch["id"],
                }
            )
            # equal ranges of the hash, whatever the number of partitions
            part = (keys[:, 0] >> np.uint64(32)) * np.uint64(task.partitions) >> np.uint64(32)
            for p in np.unique(part):
                yield int(p), table.filter(pa.array(part == p))

    def reduce(self, tables: Iterator[pa.Table], task: Task) -> pa.Table:
        old = list(_indexed(self, task))
        table = pa.concat_tables([*old, *tables]).combine_chunks()
        high, low, shard, row = (table[c].to_numpy() for c in ("high", "low", "shard", "row"))
        young = np.arange(len(table)) >= sum(map(len, old))
        order = np.lexsort((row, shard, young, low, high))
        high, low = high[order], low[order]
        first = np.ones(len(order), bool)
        first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        starts = np.flatnonzero(first)
        task.peak("cluster", int(np.diff(np.append(starts, len(order))).max(initial=0)))
        keeper = order[starts[np.cumsum(first) - 1]]  # of each row, in the order of the keys
        first |= ~young[order]  # what an index holds stays
        repeats = order[~first]
        return pa.table(
            {
                "shard": table["shard"].take(pa.array(repeats)),
                "row": table["row"].take(pa.array(repeats)),
                "duplicate_of": table["id"].take(pa.array(keeper[~first])),
            }
        )

    def open(self, task: Task) -> BatchFn:
        state = task.state(self)
        if not state.num_rows:
            return partial(_mark, np.empty(0, np.uint32), pa.array([], pa.string()))
        return partial(_mark, state["row"].to_numpy(), state["duplicate_of"].combine_chunks())


KEYS = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("id", pa.string())])


def _index(stage: ExactDedup) -> index.Index | None:
    if stage.against is None:
        return None
    return index.load("exact_dedup", type(stage).version, {"by": stage.by}, stage.against)


def _indexed(stage: ExactDedup, task: Task) -> Iterator[pa.Table]:
    """What an index holds of the partition at hand, as tables of `summarize`."""
    old = _index(stage)
    for part in old.parts if old else ():
        bounds = [-(-(p << 32) // task.partitions) for p in (task.rank, task.rank + 1)]  # of the upper half of `high`
        for table in index.keys_between(part.files["keys"], "high", bounds[0] << 32, bounds[1] << 32):
            nothing = pa.array(np.zeros(len(table), np.uint32))
            yield pa.table(
                [table["high"], table["low"], nothing, nothing, table["id"]], names=["high", "low", "shard", "row", "id"]
            )


def _write_index(stage: ExactDedup, task: Task, batches: Batches) -> None:
    """The keys of the documents of one shard that stay."""
    state = task.state(stage)
    gone = state["row"].combine_chunks() if state.num_rows else pa.array([], pa.uint32())
    tables = []
    for _, table in stage.summarize(batches, replace(task, partitions=1)):
        tables.append(pa.table(table).filter(pc.invert(pc.is_in(table["row"], gone))).select(KEYS.names))
    table = pa.concat_tables([KEYS.empty_table(), *tables]).sort_by("high").combine_chunks()
    old = _index(stage)
    number = (len(old.parts) if old else 0) + (task.shard or 0)
    path = index.part_path(task.kept(stage), number, "keys")
    index.write_keys(path, "high", table)
    name = f"{task.shards[task.shard or 0]}.json"
    write_json(task.folder(stage) / "index" / name, {"documents": len(table), "files": index.described({"keys": path})})


def _close_index(stage: ExactDedup, task: Task) -> None:
    made = [read_json(task.folder(stage) / "index" / f"{name}.json") for name in task.shards]
    index.close(task.kept(stage), "exact_dedup", type(stage).version, {"by": stage.by}, _index(stage), made)


def _mark(rows: np.ndarray, duplicate_of: pa.Array, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Reasons for the rows of the batch that are among `rows` (ascending)."""
    wanted = batch[ROW].to_numpy()
    hit, at = find_rows(rows, wanted)
    mask = pa.array(~hit)  # of nulls
    reason = pa.nulls(len(wanted), pa.string()).fill_null("exact_dedup.duplicate")
    columns = {
        REASON: pc.if_else(mask, pa.scalar(None, pa.string()), reason),
        "_duplicate_of": duplicate_of.take(pa.array(at, mask=~hit)),
        "_similarity": pa.array(np.ones(len(wanted)), mask=~hit),
    }
    return with_columns(batch, columns)


def _keys(values: pa.Array, normalised: bool) -> np.ndarray:
    from curate.kernels.keys import hash128, normalise

    if normalised:
        folded = normalise(values)
        empty = pc.equal(pc.binary_length(folded), 0)
        return hash128(pc.if_else(empty, pc.cast(values, pa.large_binary()), folded) if pc.any(empty).as_py() else folded)
    if not (pa.types.is_string(values.type) or pa.types.is_binary(values.type)):
        try:
            values = pc.cast(values, pa.string())
        except pa.ArrowException as error:
            raise StageError(f"exact_dedup: values of type {values.type} cannot be compared") from error
    return hash128(values)
