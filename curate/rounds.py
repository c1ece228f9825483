"""Choosing in steps: the corpus comes up in blocks, a block a step, and the best of each block stay.

A learner that is trained on what was chosen so far loses less at every step, so scores of different steps cannot be compared;
those of one step can. See the stages `rho_loss` and `rho`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ranks
from curate.selection import Selecting, Units, flat, numbers, per_token
from curate.stage import Step, Task

STEP = "step"
DOCUMENTS = ("loss_current", "loss_irreducible", "loss_tokens")
WINDOWS = ("window_current", "window_irreducible", "window_tokens")


@dataclass(frozen=True, kw_only=True)
class Stepped(Selecting):
    """Keeps the documents, or windows, of each step with the largest reducible loss: current less irreducible, per token.

    Where there is no learner yet, at the first step, all have the same score, and what stays is a random part. Each step has an
    equal part of a budget of `tokens`. For authors: give `n_steps`; the rest is as in `Selecting`.
    """

    code: ClassVar[str] = "rho"

    @property
    def n_steps(self) -> int:
        """How many steps there are."""
        raise NotImplementedError

    def score_columns(self) -> tuple[str, ...]:
        return (*DOCUMENTS, *(WINDOWS if self.by == "window" else ()), STEP)

    def reducible(self, batch: pa.RecordBatch) -> np.ndarray:
        """float64 per document: nats a token; NaN where one of the losses is missing."""
        current, irreducible, tokens = (numbers(batch[name]) for name in DOCUMENTS)
        with np.errstate(invalid="ignore"):
            return per_token(current - irreducible, tokens)

    def document_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        return np.where(_unlearnt(batch), 0.0, self.reducible(batch))

    def window_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        irreducible, tokens = (flat(batch[name]) for name in WINDOWS[1:])
        counts = pc.fill_null(pc.list_value_length(batch[WINDOWS[1]]), 0).to_numpy(zero_copy_only=False)
        scores = np.zeros(len(irreducible))
        learnt = np.repeat(~_unlearnt(batch), counts)
        scores[learnt] = per_token(flat(batch[WINDOWS[0]]) - irreducible[learnt], tokens[learnt])
        return scores

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        cut = partial(ranks.bracket, self, partial(budgets, self))
        return [replace(step, fn=cut) if step.name == "bracket" else step for step in super().steps(n_shards, n_docs)]

    def _keys(
        self, units: Units, which: np.ndarray, task: Task, batch: pa.RecordBatch, random: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        keys, at = super()._keys(units, which, task, batch, random)
        if not random:
            keys["group"] = pc.fill_null(batch[STEP], 0).to_numpy(zero_copy_only=False)[units.row[at]]
        return keys, at

    def _first(
        self,
        units: Units,
        which: np.ndarray,
        cut: np.ndarray,
        task: Task,
        batch: pa.RecordBatch,
        random: bool = False,
    ) -> np.ndarray:
        if random or not len(cut):
            return super()._first(units, which, cut, task, batch, random)
        keys, at = self._keys(units, which, task, batch, random)
        mine = np.minimum(np.searchsorted(cut["group"], keys["group"]), len(cut) - 1)
        found = np.zeros(len(which), bool)
        found[at] = (cut["group"][mine] != keys["group"]) | ranks.before(keys, cut[mine])
        return found


def _unlearnt(batch: pa.RecordBatch) -> np.ndarray:
    """Documents that came up before there was a learner (bool)."""
    current, irreducible, _ = (pc.is_valid(batch[name]).to_numpy(zero_copy_only=False) for name in DOCUMENTS)
    return irreducible & ~current


def budgets(
    stage: Stepped, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much stays of each step (a group is its number, from 1)."""
    n = stage.n_steps
    found = []
    for step, total in zip(groups.tolist(), totals.tolist(), strict=True):
        if stage.tokens is None:
            found.append(stage.wanted(total))
        else:
            found.append(min(stage.tokens * step // n - stage.tokens * (step - 1) // n, total))
    return np.arange(len(groups)), np.zeros(len(groups), np.int64), np.array(found, np.int64)
