"""Passages that stand in the corpus more than once, wherever they stand in a document."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import substrings
from curate.errors import RecipeError
from curate.stage import REASON, ROW, BatchFn, GlobalStage, Step, Task, with_columns


@dataclass(frozen=True, kw_only=True)
class SubstringDedup(GlobalStage):
    """Takes out every span of at least `min_tokens` tokens that also stands elsewhere in the corpus, but for its first place.

    min_tokens: 2 to 10,000. keep: "first" leaves what stands first, in input order, "none" leaves nothing of what repeats.
    mode: "remove" changes the text, "label" only writes `repeated_share`. min_remaining: a text that lost something and has
    fewer bytes left is dropped; one of which no token is left always is.

    A token is a longest run of word characters (letters, digits, "_"), a longest run of one other character ("====" is one
    token, "=-" are two), or a single character of a script without spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan);
    combining marks and format characters belong to what they follow. Whitespace separates tokens and is not compared. Two
    spans are equal if their tokens are, byte by byte: case counts, line breaks do not. With the tokens of a model's
    vocabulary a span would count perhaps a third more of them.

    Exactly: let a window be any `min_tokens` tokens in a row of one document. A window repeats if an equal one begins earlier
    in input order (document, then token), in another document or in the same, overlapping or not; with `keep: none`, if an
    equal one begins anywhere else. A token goes if it lies in a window that repeats. So of a period that fills a text the
    first round stays, and what goes is always a copy of something earlier, token by token.

    What goes is cut out as a range of bytes, from the first byte of its first token to the end of its last. Of the whitespace
    on its two sides, that with more line feeds stays, else that on the left; at an end of the text, the outer one. A space is
    put where two tokens would become one. The cut knows no sentences: it takes the words around a copied paragraph that
    happen to be the same too, and it breaks source code; label such texts, and decide by the share.

    Equality is that of two residues of a polynomial of 64-bit hashes modulo 2^61 - 1: among 10^12 tokens a false match has a
    chance of about 10^-6, most of which is that of two passages that differ in one word whose hashes are equal. Memory
    follows the batch and the limit given; scratch takes about half a byte on disk for a byte of text, and more where
    passages vary and repeat in part.

    Columns written: `repeated_share` (float32, bytes in repeated spans, as a share of the bytes of the text before); with
    mode "remove" also `text` (string). Reasons (mode "remove" only): `substring_dedup.empty`, with `_value` = bytes left.

    Source: Lee et al. 2022 (https://arxiv.org/abs/2107.06499), who take spans of 50 BPE tokens out of a suffix array, as did
    RefinedWeb (https://arxiv.org/abs/2306.01116); hashes of windows instead of the array, and anchors, are winnowing
    (Schleimer, Wilkerson and Aiken 2003, doi:10.1145/872757.872770).

    >>> notice = "All rights reserved . No part may be copied ."
    >>> result = SubstringDedup(min_tokens=8)([f"One: {notice}", f"Two.\\n\\n{notice} Three.", notice])
    >>> result.kept["text"].to_pylist(), result.dropped["_reason"].to_pylist()
    (['One: All rights reserved . No part may be copied .', 'Two.\\n\\nThree.'], ['substring_dedup.empty'])
    """

    decides_rows: ClassVar[bool] = True
    max_drop: ClassVar[float | None] = 0.5
    example: ClassVar[dict[str, Any]] = {"min_tokens": 10}

    min_tokens: int = 50
    keep: Literal["first", "none"] = "first"
    mode: Literal["remove", "label"] = "remove"
    min_remaining: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.min_tokens <= 10_000:
            raise RecipeError(f"substring_dedup: min_tokens is {self.min_tokens}; give a number from 2 to 10,000")
        if self.keep not in ("first", "none"):
            raise RecipeError(f"substring_dedup: keep is {self.keep!r}; it is 'first' or 'none'")
        if self.mode not in ("remove", "label"):
            raise RecipeError(f"substring_dedup: mode is {self.mode!r}; it is 'remove' or 'label'")
        if self.min_remaining < 0:
            raise RecipeError(f"substring_dedup: min_remaining is {self.min_remaining}; a number of bytes is not negative")

    def writes(self) -> pa.Schema:
        share = ("repeated_share", pa.float32())
        return pa.schema([share] if self.mode == "label" else [("text", pa.string()), share])

    def reasons(self) -> tuple[str, ...]:
        return () if self.mode == "label" else ("substring_dedup.empty",)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return substrings.steps(self, n_shards, n_docs)

    def open(self, task: Task) -> BatchFn:
        state = task.state(self)
        return partial(self._process, task, *(state[c].to_numpy().astype(np.int64) for c in substrings.RANGES.names))

    def _process(
        self, task: Task, rows: np.ndarray, begins: np.ndarray, ends: np.ndarray, batch: pa.RecordBatch
    ) -> pa.RecordBatch:
        from curate.kernels import substrings as kernels
        from curate.kernels.words import offsets_and_bytes

        text, wanted = batch["text"], batch[ROW].to_numpy()
        low, high = np.searchsorted(rows, [wanted[0], int(wanted[-1]) + 1]) if len(wanted) else (0, 0)
        if low == high:
            zeros = pa.array(np.zeros(len(text), np.float32))
            return with_columns(batch, {"repeated_share": zeros, REASON: pa.nulls(len(text), pa.string())})
        at = np.searchsorted(wanted, rows[low:high]).astype(np.int64)
        here = wanted[np.minimum(at, len(wanted) - 1)] == rows[low:high]  # a part of a batch may be tried alone
        given = offsets_and_bytes(text)
        offsets, data, removed = kernels.cut(*given, kernels.kinds(), at[here], begins[low:high][here], ends[low:high][here])
        sizes = np.diff(given[0])
        share = (removed / np.maximum(sizes, 1)).astype(np.float32)
        task.count("repeated spans", int(here.sum()))
        task.count("bytes in repeated spans", int(removed.sum()))
        if self.mode == "label":
            return with_columns(batch, {"repeated_share": pa.array(share)})
        cut = pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(data))
        if text.null_count:
            cut = pc.if_else(pc.is_valid(text), cut, pa.scalar(None, pa.string()))
        left = np.diff(offsets)
        gone = (removed > 0) & ((left == 0) | (left < self.min_remaining))
        reason = pc.if_else(pa.array(gone), pa.scalar("substring_dedup.empty"), pa.scalar(None, pa.string()))
        columns = {"text": cut, "repeated_share": pa.array(share), REASON: reason}
        return with_columns(batch, {**columns, "_value": pa.array(left.astype(np.float64), mask=~gone)})
