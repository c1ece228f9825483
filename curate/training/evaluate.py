"""How good scores are: areas under curves, agreement, reliability, thresholds.

Plain functions over arrays, each the usual definition, ties included; none needs more than numpy. Scores that are NaN (a text
of which a model knows nothing) must be taken out before, and are counted by whoever does: a NaN here is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.errors import RecipeError


def auc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties half.

    truth: bool [n]; scores: float [n]; weights: float [n]. NaN where there is only one class.
    """
    truth, scores, weights = _checked(truth, scores, weights)
    order = np.argsort(scores, kind="stable")
    score, positive, negative = scores[order], (weights * truth)[order], (weights * ~truth)[order]
    first = np.flatnonzero(np.diff(score, prepend=np.nan) != 0)
    up, down = np.add.reduceat(positive, first), np.add.reduceat(negative, first)
    below = np.cumsum(down) - down
    total = float(up.sum()) * float(down.sum())
    return float((up * (below + 0.5 * down)).sum() / total) if total > 0 else float("nan")


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Sum of precision times the step in recall over falling thresholds, ties at once. NaN without a positive."""
    truth, scores, _ = _checked(truth, scores, None)
    order = np.argsort(-scores, kind="stable")
    score, hit = scores[order], truth[order]
    last = np.flatnonzero(np.diff(score, append=np.nan) != 0)
    found = np.cumsum(hit)[last]
    if not len(found) or not found[-1]:
        return float("nan")
    precision = found / (last + 1)
    return float((np.diff(found, prepend=0) / found[-1] * precision).sum())


def accuracy(truth: Sequence[Any] | np.ndarray, found: Sequence[Any] | np.ndarray) -> float:
    """Share of equal entries."""
    a, b = np.asarray(truth), np.asarray(found)
    return float((a == b).mean()) if len(a) else float("nan")


def confusion(truth: Sequence[str], found: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """int64 [true label, found label] counts, in the order of `labels`. Raises RecipeError for another label."""
    number = {label: i for i, label in enumerate(labels)}
    for name in (*truth, *found):
        if name not in number:
            raise RecipeError(f"there is a label {name!r} that is none of {', '.join(map(repr, labels))}")
    table = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(table, ([number[t] for t in truth], [number[f] for f in found]), 1)
    return table


def per_class(truth: Sequence[str], found: Sequence[str], labels: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Precision, recall, F1 and the number of documents of each label; None where there is nothing to divide by."""
    table = confusion(truth, found, labels)
    rows = {}
    for i, label in enumerate(labels):
        hit, true, named = int(table[i, i]), int(table[i].sum()), int(table[:, i].sum())
        rows[label] = {
            "precision": hit / named if named else None,
            "recall": hit / true if true else None,
            "f1": 2 * hit / (true + named) if true + named else None,
            "documents": true,
        }
    return rows


def macro_f1(truth: Sequence[str], found: Sequence[str]) -> float:
    """Mean F1 over the labels that occur on either side."""
    labels = sorted({*truth, *found})
    if not labels:
        return float("nan")
    return float(np.mean([row["f1"] for row in per_class(truth, found, labels).values()]))


def kappa(truth: Sequence[str], found: Sequence[str]) -> float:
    """Cohen's kappa of labels without an order: 1 for full agreement, 0 for that of chance.

    Source: Cohen 1960 (doi:10.1177/001316446002000104).
    """
    n = len(truth)
    right = sum(a == b for a, b in zip(truth, found, strict=True)) / n
    named = Counter(found)
    chance = sum(count * named[name] for name, count in Counter(truth).items()) / n**2
    return (right - chance) / (1 - chance) if chance < 1 else float(right)


def quadratic_kappa(truth: Sequence[float] | np.ndarray, found: Sequence[float] | np.ndarray) -> float:
    """Cohen's kappa with quadratic weights, for ordinal labels given as numbers; rounded to whole ones.

    1 for full agreement, 0 for that of chance. Where both sides are one and the same constant: 1.
    Source: Cohen 1968 (doi:10.1037/h0026256).
    """
    a, b = np.rint(np.asarray(truth, np.float64)), np.rint(np.asarray(found, np.float64))
    if len(a) != len(b) or not len(a) or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise RecipeError("agreement needs as many finite numbers on both sides, at least one")
    seen = float(((a - b) ** 2).mean())
    chance = float((a**2).mean() + (b**2).mean() - 2 * a.mean() * b.mean())
    return 1.0 if chance <= 1e-12 else 1 - seen / chance


def concordance(truth: np.ndarray, found: np.ndarray) -> float:
    """Lin's concordance, which kappa with quadratic weights is for numbers that are not rounded. 1 where nothing varies.

    truth, found: float [n]. Source: Lin 1989 (doi:10.2307/2532051).
    """
    apart = truth.var() + found.var() + (truth.mean() - found.mean()) ** 2
    return float(1 - np.square(truth - found).mean() / apart) if apart else 1.0


def reliability(truth: np.ndarray, scores: np.ndarray, bins: int = 10) -> list[dict[str, float | int]]:
    """What scores promise and what is true, in equal bins of the score: `low`, `high`, `documents`, `score`, `positive`.

    score: mean score of the bin; positive: share of positives. Empty bins are left out.
    """
    truth, scores, _ = _checked(truth, scores, None)
    at = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    rows: list[dict[str, float | int]] = []
    for b in range(bins):
        mine = at == b
        if mine.any():
            rows.append(
                {
                    "low": b / bins, "high": (b + 1) / bins, "documents": int(mine.sum()),
                    "score": float(scores[mine].mean()), "positive": float(truth[mine].mean()),
                }
            )  # fmt: skip
    return rows


def calibration_error(truth: np.ndarray, scores: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of promise and truth over the bins, by documents."""
    rows = reliability(truth, scores, bins)
    total = sum(row["documents"] for row in rows)
    return sum(row["documents"] * abs(row["score"] - row["positive"]) for row in rows) / total if total else float("nan")


def threshold_table(
    truth: np.ndarray, scores: np.ndarray, keep: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
) -> list[dict[str, float | None]]:
    """For thresholds that keep about these shares of the documents, and for 0.5: threshold → keep rate, precision, recall.

    A document is kept where its score is at least the threshold; ties make a threshold keep more than was asked.
    """
    truth, scores, _ = _checked(truth, scores, None)
    if not len(scores):
        return []
    ordered = np.sort(scores)[::-1]
    wanted = {float(ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]) for share in keep}
    rows = []
    for threshold in sorted(wanted | {0.5}, reverse=True):
        kept = scores >= threshold
        hit = int((kept & truth).sum())
        rows.append(
            {
                "threshold": threshold,
                "keep_rate": float(kept.mean()),
                "precision": hit / int(kept.sum()) if kept.any() else None,
                "recall": hit / int(truth.sum()) if truth.any() else None,
            }
        )
    return rows


def _checked(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, scores = np.asarray(truth, bool), np.asarray(scores, np.float64)
    given = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    if not truth.shape == scores.shape == given.shape or truth.ndim != 1:
        raise RecipeError(f"{truth.shape} truths and {scores.shape} scores do not go together")
    if np.isnan(scores).any() or np.isnan(given).any():
        raise RecipeError(f"{int(np.isnan(scores).sum()):,} of {len(scores):,} scores are NaN: take them out, and count them")
    return truth, scores, given
