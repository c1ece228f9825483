"""How many words a document has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from curate.stage import Annotator


@dataclass(frozen=True, kw_only=True)
class WordCount(Annotator):
    """Counts whitespace-separated words.

    A word is what Python's `str.split()` gives: runs of anything between Unicode whitespace. Chinese or Thai text, which
    has no spaces, counts few words. A null text counts 0.

    Columns written: `word_count` (uint32). Reasons: none.

    Source: own.

    >>> WordCount()(["one two  three", ""]).kept["word_count"].to_pylist()
    [3, 0]
    """

    def writes(self) -> pa.Schema:
        return pa.schema([("word_count", pa.uint32())])

    def annotate(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        from curate.kernels.words import count_words, offsets_and_bytes

        return {"word_count": pa.array(count_words(*offsets_and_bytes(batch["text"])))}
