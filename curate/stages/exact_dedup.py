"""Exact duplicates: one document of each set of equals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import StageError
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Task, with_columns

DOCS_PER_PARTITION = 2_000_000


@dataclass(frozen=True, kw_only=True)
class ExactDedup(GlobalStage):
    """Drops documents whose text, normalised text, or value of a column stood earlier in the corpus.

    by: `text`; `normalised` (the text in Unicode NFKC, casefolded, without punctuation, symbols and control characters,
    whitespace collapsed; a text of nothing else is compared as it is); or the name of any column, such as `url`. Of equals,
    the first in input order stays. A null is equal to nothing. Equality is that of 128-bit xxh3 hashes: among 10^12
    documents a false match has a chance of about 10^-15.

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
        table = pa.concat_tables(list(tables)).combine_chunks()
        high, low, shard, row = (table[c].to_numpy() for c in ("high", "low", "shard", "row"))
        order = np.lexsort((row, shard, low, high))
        high, low = high[order], low[order]
        first = np.ones(len(order), bool)
        first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        starts = np.flatnonzero(first)
        task.peak("cluster", int(np.diff(np.append(starts, len(order))).max(initial=0)))
        keeper = order[starts[np.cumsum(first) - 1]]  # of each row, in the order of the keys
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


def _mark(rows: np.ndarray, duplicate_of: pa.Array, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Reasons for the rows of the batch that are among `rows` (ascending)."""
    wanted = batch[ROW].to_numpy()
    at = np.searchsorted(rows, wanted)
    hit = (at < len(rows)) & (rows[np.minimum(at, len(rows) - 1)] == wanted) if len(rows) else np.zeros(len(wanted), bool)
    mask = pa.array(~hit)  # of nulls
    reason = pa.nulls(len(wanted), pa.string()).fill_null("exact_dedup.duplicate")
    columns = {
        REASON: pc.if_else(mask, pa.scalar(None, pa.string()), reason),
        "_duplicate_of": duplicate_of.take(pa.array(np.where(hit, at, 0), mask=~hit)),
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
