"""CoLoR-Filter: the documents of which a model learns most for a target, by how much the target helped to predict them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.selection import ByPair, flat, numbers, per_token


@dataclass(frozen=True, kw_only=True)
class ColorFilter(ByPair):
    """Keeps what a conditional language model, of a target, predicts better than the prior that it was made from.

    The score of a document, or of a window of it, is the mean over its tokens of what the prior loses, less that of the
    conditional model: how much likelier each token has become by what the target taught. The stage brings `pair_loss` along,
    as `<id>.losses`, which trains both models (or takes given ones) and writes what they lose, so that another choice neither
    trains nor scores again.

    tau: one token in so many stays, of the highest scores; or keep: a share of the documents (or windows), above 0 and at most
    1; or tokens: a budget; with `tau` that many times as many tokens are first drawn at random as candidates, and the best of
    these stay, which is what the paper does. The budget is never exceeded, and met within one document (or window). by:
    "document", or "window": then a text becomes its chosen windows, with an empty line where something between two of them was
    left out, and a document without any is dropped. seed: of the draw, and of the order of equal scores.

    target, texts, column: what is wanted. models: what is trained in the run, "ngram" or a transformer of the size "1m", "10m",
    "60m" or "150m"; or prior, conditional: models that are there. sample, folds, window, device, training_seed, prefix: as
    `pair_loss` has them (`seed` there). scored: take the columns that a `pair_loss` earlier in the recipe has written.

    Columns written: those of `pair_loss`, and `color_score` (float32: of the document as it was; null without tokens), each
    with `prefix` before it; `text` with `by: window`. Reasons: `color_filter.not_chosen`, and `color_filter.not_drawn` for what
    was no candidate, with `_value` = the score, of windows the best; `color_filter.no_score` for a text without tokens.

    Source: CoLoR-Filter (Brandfonbrener et al. 2024, arXiv:2406.10670), which chooses by windows of 512 tokens.

    >>> docs = [t for i in range(20) for t in (f"cell number {i} divides in the lab", f"buy phone number {i} now and win")]
    >>> wanted = tuple(f"the cell divides in the lab, and cell {i} divides again" for i in range(4))
    >>> kept = ColorFilter(texts=wanted, keep=0.15)(docs).kept
    >>> len(kept), all(text.startswith("cell") for text in kept["text"].to_pylist())
    (6, True)
    """

    code: ClassVar[str] = "color_filter"
    example: ClassVar[dict[str, Any]] = {
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
        "tau": 2,
    }

    def document_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        prior, conditional, tokens = (numbers(batch[name]) for name in self.score_columns()[:3])
        with np.errstate(invalid="ignore"):
            return per_token(prior - conditional, tokens)

    def window_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        prior, conditional, tokens = (flat(batch[name]) for name in self.score_columns()[3:])
        return per_token(prior - conditional, tokens)

    def score_fields(self) -> pa.Schema:
        return pa.schema([(f"{self.prefix}color_score", pa.float32())])

    def written(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        scores = self.document_scores(batch)
        return {f"{self.prefix}color_score": pa.array(scores.astype(np.float32), mask=np.isnan(scores))}
