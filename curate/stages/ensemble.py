"""Several scores as one, and tiers of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError
from curate.stage import Annotator, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.stages.bins import Bins
from curate.stages.quantile import as_number, has_score

GRID = 1000  # ranks are known to a thousandth


@dataclass(frozen=True, kw_only=True)
class Ensemble(GlobalStage):
    """Joins several scores of a document into one, and names the tier that it falls into.

    columns: two scores or more: any numbers, dates or booleans. how: "max", the highest; "min", the lowest; "mean"; "weighted",
    the mean with `weights`, numbers of which none is negative, one for each column; or "rank", the mean of what share of the
    documents has lower scores, in [0, 1), so that only the order of the scores counts and not their scale. max, min and mean
    are of the scores as they are: put `bins` before them where the scorers have scales of their own.

    missing: what is done where a score is null or NaN: "null", there is no joint score either; or "skip", the others decide
    alone, as long as there is one.

    into: name of the new column. tiers: names of tiers, each with the lowest joint score that is in it; a document is in the
    highest that it reaches, and in none below all of them.

    Only "rank" has to see the corpus first: there a fit finds exact ranks in steps of a thousandth of the documents, and equal
    scores have the rank of the lowest of them. The others are done on the way, without a pass of their own.

    Columns written: `into` (float64, null where a score is missing, which is counted); with `tiers` also `<into>_tier` (string,
    null without a joint score, and below all tiers). Reasons: none.

    Source: the ensembles of Nemotron-CC (Su et al. 2024, arXiv:2412.02595: max of bins, and tiers); the rest is own.

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["a", "b", "c"], "edu_bin": [19, 3, 0], "dclm_bin": [12, 7, 0]})
    >>> stage = Ensemble(columns=("edu_bin", "dclm_bin"), into="quality", tiers={"high": 19, "medium": 7, "low": 0})
    >>> kept = stage(docs).kept
    >>> kept["quality"].to_pylist(), kept["quality_tier"].to_pylist()
    ([19.0, 7.0, 0.0], ['high', 'medium', 'low'])
    """

    example: ClassVar[dict[str, Any]] = {"columns": ("score", "other_score"), "tiers": {"high": 1, "low": 0}}

    columns: tuple[str, ...]
    how: Literal["max", "min", "mean", "weighted", "rank"] = "max"
    weights: tuple[float, ...] = ()
    missing: Literal["null", "skip"] = "null"
    into: str = "ensemble"
    tiers: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        _check(self)

    def bound(self, columns: Collection[str]) -> Stage:
        return self if self.how == "rank" else _Joined(**{f.name: getattr(self, f.name) for f in fields(self)})

    def reads(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def writes(self) -> pa.Schema:
        return _schema(self)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return _bins(self).steps_of(self, n_shards, n_docs) if self.how == "rank" else [Step("nothing", _nothing)]

    def open(self, task: Task) -> BatchFn:
        return partial(_joined, self, task, _bins(self).known(task.state(self)) if self.how == "rank" else None)


@dataclass(frozen=True, kw_only=True)
class _Joined(Annotator):
    """`Ensemble` but for ranks: what it becomes in a plan, so that it is done in the pass of its neighbours."""

    columns: tuple[str, ...]
    how: str
    weights: tuple[float, ...]
    missing: str
    into: str
    tiers: Mapping[str, float] | None

    def reads(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def writes(self) -> pa.Schema:
        return _schema(self)

    def open(self, task: Task) -> BatchFn:
        return partial(_joined, self, task, None)


def _nothing(task: Task) -> None:
    """What is no rank needs no fit."""


def _bins(stage: Ensemble) -> Bins:
    """The bins that are ranks."""
    return Bins(columns=stage.columns, bins=GRID, by="documents")


def _check(stage: Ensemble) -> None:
    if len(stage.columns) < 2 or not all(stage.columns) or len(set(stage.columns)) != len(stage.columns):
        raise RecipeError(f"ensemble: columns is {stage.columns!r}; give the names of two or more different columns")
    if stage.how not in ("max", "min", "mean", "weighted", "rank"):
        raise RecipeError(f"ensemble: how is {stage.how!r}; it is 'max', 'min', 'mean', 'weighted' or 'rank'")
    if stage.missing not in ("null", "skip"):
        raise RecipeError(f"ensemble: missing is {stage.missing!r}; it is 'null' or 'skip'")
    if bool(stage.weights) != (stage.how == "weighted"):
        raise RecipeError("ensemble: `weights` and `how: weighted` go together")
    if stage.weights and len(stage.weights) != len(stage.columns):
        raise RecipeError(f"ensemble: {len(stage.weights)} weights for {len(stage.columns)} columns; give one for each")
    if any(not 0 <= w < float("inf") for w in stage.weights) or (stage.weights and not sum(stage.weights)):
        raise RecipeError(f"ensemble: weights is {stage.weights!r}; none may be negative, and one must be above 0")
    if not stage.into:
        raise RecipeError("ensemble: into is empty; name the new column")
    if stage.tiers is not None:
        lows = list(stage.tiers.values())
        if not lows or not all(stage.tiers) or len(set(lows)) != len(lows) or any(low != low for low in lows):
            raise RecipeError("ensemble: tiers need names, each with another lowest score")


def _schema(stage: Ensemble | _Joined) -> pa.Schema:
    columns = [(stage.into, pa.float64())]
    return pa.schema([*columns, *([(f"{stage.into}_tier", pa.string())] if stage.tiers else [])])


def _joined(
    stage: Ensemble | _Joined, task: Task, ranks: Mapping[str, Mapping[int, np.ndarray]] | None, batch: pa.RecordBatch
) -> pa.RecordBatch:
    n = batch.num_rows
    scores = np.zeros((len(stage.columns), n))
    there = np.zeros((len(stage.columns), n), bool)
    for i, name in enumerate(stage.columns):
        number = as_number(batch[name], "ensemble")
        there[i] = has_score(batch[name])
        scores[i] = np.where(there[i], pc.cast(number, pa.float64(), safe=False).to_numpy(zero_copy_only=False), 0)
        if ranks is not None and there[i].any():
            scores[i] = np.searchsorted(ranks[name][0], scores[i], side="left") / GRID
        if not there[i].all():
            task.count(f"documents without {name}", int(n - there[i].sum()))
    if stage.how in ("max", "min"):
        pick, nothing = (np.max, -np.inf) if stage.how == "max" else (np.min, np.inf)
        joint = pick(np.where(there, scores, nothing), axis=0)
        weight = there.sum(axis=0).astype(float)
    else:
        weights = np.array(stage.weights or [1.0] * len(stage.columns))
        joint, weight = np.zeros(n), np.zeros(n)
        for i, w in enumerate(weights.tolist()):  # one after the other: a sum that does not depend on the shape of the batch
            if w:  # else infinity would make NaN of nothing
                with np.errstate(invalid="ignore", over="ignore"):  # of infinities: what is no number is no score
                    joint += np.where(there[i], w * scores[i], 0)
                weight += np.where(there[i], w, 0)
        joint = joint / np.where(weight > 0, weight, 1)
    known = (there.all(axis=0) if stage.missing == "null" else there.any(axis=0)) & (weight > 0) & ~np.isnan(joint)
    columns: dict[str, pa.Array] = {stage.into: pa.array(joint, pa.float64(), mask=~known)}
    if stage.tiers:
        columns[f"{stage.into}_tier"] = _tiers(stage.tiers, joint, known)
    if not known.all():
        task.count(f"documents without {stage.into}", int(n - known.sum()))
    return with_columns(batch, columns)


def _tiers(tiers: Mapping[str, float], joint: np.ndarray, known: np.ndarray) -> pa.Array:
    names = sorted(tiers, key=lambda name: tiers[name])
    at = np.searchsorted(np.array([tiers[name] for name in names], float), joint, side="right") - 1
    return pa.array(names, pa.string()).take(pa.array(np.maximum(at, 0), mask=~known | (at < 0)))
