"""What a model of the target finds likely: the simplest choice by loss, and a baseline of CoLoR-Filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from curate.selection import ByPair, flat, numbers, per_token


@dataclass(frozen=True, kw_only=True)
class ConditionalOnly(ByPair):
    """Keeps what a language model of the target finds likely, whether or not it needed the target for that.

    The score of a document, or of a window of it, is the mean of ln p over its tokens under the conditional model. The stage
    brings `pair_loss` along, as `<id>.losses`, which trains the models (or takes a given one) and writes what the conditional
    model loses, so that another choice neither trains nor scores again.

    tau: one token in so many stays, of the highest scores; or keep: a share of the documents (or windows), above 0 and at most
    1; or tokens: a budget; with `tau` that many times as many tokens are first drawn at random as candidates, and the best of
    these stay. The budget is never exceeded, and met within one document (or window). by: "document", or "window": then a text
    becomes its chosen windows, with an empty line where something between two of them was left out, and a document without any
    is dropped. seed: of the draw, and of the order of equal scores.

    target, texts, column: what is wanted. models: what is trained in the run, "ngram" or a transformer of the size "1m", "10m",
    "60m" or "150m"; or conditional: a model that is there; or prior: one that is adapted to the target. sample, folds, window,
    device, training_seed, prefix: as `pair_loss` has them (`seed` there). scored: take the columns that a `pair_loss` earlier
    in the recipe has written.

    Columns written: those of `pair_loss` with `score: conditional`. Reasons: `conditional_only.not_chosen`, and
    `conditional_only.not_drawn` for what was no candidate, with `_value` = the score, of windows the best;
    `conditional_only.no_score` for a text without tokens.

    It likes what repeats itself, which every model finds likely: `color_filter` takes off what the prior finds likely as well.

    Source: the baseline of CoLoR-Filter (Brandfonbrener et al. 2024, arXiv:2406.10670).

    >>> docs = [t for i in range(20) for t in (f"cell number {i} divides in the lab", f"buy phone number {i} now and win")]
    >>> wanted = tuple(f"the cell divides in the lab, and cell {i} divides again" for i in range(4))
    >>> kept = ConditionalOnly(texts=wanted, keep=0.15)(docs).kept
    >>> len(kept), all(text.startswith("cell") for text in kept["text"].to_pylist())
    (6, True)
    """

    code: ClassVar[str] = "conditional_only"
    score: ClassVar[Literal["both", "conditional"]] = "conditional"
    example: ClassVar[dict[str, Any]] = {
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
        "tau": 2,
    }

    def document_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        loss, tokens = (numbers(batch[name]) for name in self.score_columns()[:2])
        return per_token(-loss, tokens)

    def window_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        loss, tokens = (flat(batch[name]) for name in self.score_columns()[2:])
        return per_token(-loss, tokens)
