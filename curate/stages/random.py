"""A random part of a corpus: what every other way to choose has to be better than."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.selection import Selecting, windows_of


@dataclass(frozen=True, kw_only=True)
class Random(Selecting):
    """Keeps documents, or windows of them, at random: the baseline of every selection.

    tau: one token in so many stays; or keep: a share of the documents (or windows), above 0 and at most 1; or tokens: a budget.
    With `tau` and `tokens` the candidates are drawn at random, and so are those that stay: it is the same as `tokens`. The
    budget is never exceeded, and met within one document (or window). by: "document", or "window": then a text becomes its
    chosen windows, with an empty line where something between two of them was left out, and the column `window_ends`, which
    `pair_loss` writes, has to be there. seed: of the draw, which is a hash of (seed, id); so a smaller budget is a part of a
    larger one.

    Columns written: none; `text` with `by: window`. Reasons: `random.not_chosen` (`random.not_drawn` if it was not even a
    candidate); `random.no_score` for a text without windows.

    Source: own; the baseline of CoLoR-Filter (Brandfonbrener et al. 2024, arXiv:2406.10670).

    >>> docs = [f"This is document number {i}." for i in range(100)]
    >>> len(Random(keep=0.25)(docs).kept)
    25
    """

    code: ClassVar[str] = "random"
    example: ClassVar[dict[str, Any]] = {"tau": 2}

    def document_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        return np.zeros(batch.num_rows)

    def window_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        return np.zeros(len(windows_of(batch["window_ends"])[1]))
