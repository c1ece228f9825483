"""Small shards joined into larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from curate.errors import RecipeError
from curate.stage import PARENT, ROW, Expand


@dataclass(frozen=True, kw_only=True)
class Compact(Expand):
    """Rewrites the surviving documents into fewer shards, after filters that left little in each.

    Neighbouring shards are joined, in order, until one holds `text_mb` (10^6 bytes) of text or `documents` documents; a
    shard that is larger already stays as it is. Ids, columns and order stay.

    Columns written: none. Reasons: none in practice (`no_output` belongs to every stage that makes rows).

    Source: own.

    >>> Compact().group([(10, 40_000_000), (10, 30_000_000), (10, 1_000)])
    [[0], [1, 2]]
    """

    keeps_id: ClassVar[bool] = True

    text_mb: float = 64
    documents: int = 50_000

    def __post_init__(self) -> None:
        if not (self.text_mb > 0 and self.documents > 0):
            raise RecipeError("compact: text_mb and documents must be positive")

    def reads(self) -> tuple[str, ...]:
        return ()

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_pydict({PARENT: batch[ROW]})

    def group(self, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
        groups: list[list[int]] = []
        documents = size = 0
        for shard, (n, text) in enumerate(sizes):
            if groups and documents + n <= self.documents and size + text <= self.text_mb * 1e6:
                groups[-1].append(shard)
                documents, size = documents + n, size + text
            else:
                groups.append([shard])
                documents, size = n, text
        return groups
