"""Reducible loss: what a learner still loses on a text, less what nobody could help losing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import lm
from curate.lm import pair
from curate.rounds import STEP, Stepped
from curate.stage import REASON, BatchFn, Stage, Task, operational, with_columns
from curate.stages.rho_loss import ROUNDS, RhoLoss

HANDED = (
    "mode", "target", "texts", "column", "irreducible", "current", "start", "models", "rounds", "sample", "folds", "window",
    "device", "training_seed", "seed",
)  # fmt: skip
CHOICE = ("tau", "keep", "tokens", "by")


@dataclass(frozen=True, kw_only=True)
class Rho(Stepped):
    """Keeps what a learner, as far as it has come, can still learn: RHO-LOSS and RHO-down as they can be done offline.

    The corpus comes up in steps, at each of them a block by hash. The score of a document, or of a window of it, is the mean
    over its tokens of what the learner of that step loses, less what an irreducible model loses, and the best of each block
    stay. So what is learned already does not come again (the learner loses little), nor do noise and texts of another kind
    (the irreducible model loses much). The stage brings `rho_loss` along, as `<id>.losses`, which does the training and writes
    what is lost.

    mode: "down": the irreducible model is one of the pool that is adapted to the target, the conditional model of
    `color_filter`; "loss": it is trained on a hold-out set. target, texts, column: the target, or the hold-out set, as
    `pair_loss` has them. irreducible: a model that is there instead.

    current: checkpoints of the learner, in order: folders, or names on the hub; the k-th scores block k. In mode "down" the
    irreducible model is the last of them, adapted to the target. Without checkpoints the learner is trained here on what is
    chosen: in `rounds` steps, each of which adds what it has chosen. start: a model to begin with, or "prior" for that of the
    pool in mode "down", with which one round is CoLoR-Filter; without one, the first block is chosen at random. models:
    "ngram" or a transformer of the size "1m", "10m", "60m" or "150m". sample, folds, window, device, training_seed: as
    `pair_loss` has them (`seed` there).

    tau, keep, tokens, by: how much stays of each block, as `color_filter` has them; each block has an equal part of `tokens`.
    seed: of the blocks, of the draw, and of the order of equal scores.

    Columns written: those of `rho_loss` (`loss_current`, `loss_irreducible`, `loss_tokens`, `step`, and by windows), and `rho`
    (float32, nats a token: of the document as it was; null without tokens, or before there was a learner); `text` with `by:
    window`. Reasons: `rho.not_chosen`, and `rho.not_drawn` for what was no candidate, with `_value` = the score, of windows the
    best, where there is one; `rho.no_score` for a text without tokens.

    With `current`, another choice scores nothing again. A learner that is trained here learns from what was chosen, so another
    choice does all rounds again.

    Source: RHO-LOSS (Mindermann et al. 2022, arXiv:2206.07137); RHO-down as in CoLoR-Filter (Brandfonbrener et al. 2024,
    arXiv:2406.10670). Both choose within each batch of a training; blocks are own.

    >>> docs = ["the cell divides and its nucleus divides", "buy now and win a free phone", "cells have a nucleus"] * 4
    >>> kept = Rho(texts=("the nucleus of the cell", "cells divide"), start="prior", rounds=1, keep=0.67)(docs).kept
    >>> sorted(set(kept["text"].to_pylist()))
    ['cells have a nucleus', 'the cell divides and its nucleus divides']
    """

    example: ClassVar[dict[str, Any]] = {
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
        "tau": 2,
        "rounds": 2,
    }

    # the fingerprint of `rho_loss`, which comes before that of this stage, knows what these decide
    mode: Literal["down", "loss"] = operational("down")
    target: str | tuple[str, ...] = operational(())
    texts: tuple[str, ...] = operational(())
    column: str = operational("text")
    irreducible: str = operational("")
    current: str | tuple[str, ...] = ()
    start: str = operational("")
    models: str = operational(pair.NGRAM)
    rounds: int = ROUNDS
    sample: int = operational(0)
    folds: int = operational(0)
    window: int = operational(lm.WINDOW)
    device: str = operational("auto")
    training_seed: int = operational(42)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.losses.__post_init__()  # which says what is wrong with its parameters

    @property
    def losses(self) -> RhoLoss:
        """The stage that comes before. With checkpoints it is not told how much stays, which it then need not know."""
        handed = HANDED if self.current else HANDED + CHOICE
        return RhoLoss(**{name: getattr(self, name) for name in handed})

    def needs(self) -> Mapping[str, Stage]:
        return {"losses": self.losses}

    @property
    def n_steps(self) -> int:
        return self.losses.n_steps

    @property
    def draws(self) -> bool:
        return super().draws and bool(self.current)  # a learner that is trained here has only looked at candidates

    def score_fields(self) -> pa.Schema:
        return pa.schema([("rho", pa.float32())])

    def written(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        score = self.reducible(batch)
        return {"rho": pa.array(score.astype(np.float32), mask=np.isnan(score))}

    def reasons(self) -> tuple[str, ...]:
        return "rho.not_chosen", "rho.not_drawn", "rho.no_score"

    def open(self, task: Task) -> BatchFn:
        choose = super().open(task)

        def process(batch: pa.RecordBatch) -> pa.RecordBatch:
            out = choose(batch)
            reason = pc.if_else(pc.is_null(batch[STEP]), "rho.not_drawn", out[REASON])
            return with_columns(out, {REASON: reason})

        return process
