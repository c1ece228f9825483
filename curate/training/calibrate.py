"""Calibration: what a score must become to be the share of positives among documents with that score.

Both kinds keep the order of the scores. Isotonic regression is drawn through the middles of its steps and on to (0, 0) and
(1, 1), so that it is strictly ascending: documents that could be told apart before can be told apart after.

Source: Platt 1999, with his targets that are never quite 0 or 1; pool adjacent violators after Ayer et al. 1955
(doi:10.1214/aoms/1177728423).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.errors import RecipeError

ENOUGH = 1000  # documents from which on the steps of an isotonic regression are more than noise
KINDS = ("isotonic", "platt")
_EDGE = 1e-7


def fit(scores: np.ndarray, truth: np.ndarray, kind: str, columns: list[int]) -> dict[str, Any]:
    """The `calibration` of a classifier.json.

    scores: float [n, labels], not NaN. truth: int [n], number of the right label. kind: `isotonic` or `platt`. columns: the
    labels that get a curve; others get none. Raises RecipeError where a label is never right, or always.
    """
    if kind not in KINDS:
        raise RecipeError(f"calibrate: {kind!r} is no kind of calibration; write true, isotonic, platt or false")
    keys = ("x", "y") if kind == "isotonic" else ("a", "b")
    found: dict[str, Any] = {"kind": kind, **{key: [None] * scores.shape[1] for key in keys}}
    for i in columns:
        right = truth == i
        if not right.any() or right.all():
            raise RecipeError("calibrate: the validation part lacks a class; give more documents, or calibrate: false")
        curve = (isotonic if kind == "isotonic" else platt)(scores[:, i], right)
        for key, value in zip(keys, curve, strict=True):
            found[key][i] = value
    return found


def kind_for(documents: int) -> str:
    """The kind that so many documents can carry."""
    return "isotonic" if documents >= ENOUGH else "platt"


def isotonic(scores: np.ndarray, right: np.ndarray) -> tuple[list[float], list[float]]:
    """Points (x, y) of a strictly ascending curve from (0, 0) to (1, 1).

    scores: float [n] in [0, 1]; right: bool [n].
    """
    order = np.argsort(scores, kind="stable")
    x, y = scores[order].astype(np.float64), right[order].astype(np.float64)
    blocks: list[list[float]] = []  # sum of scores, sum of right ones, documents
    first = np.flatnonzero(np.diff(x, prepend=np.nan) != 0)  # equal scores cannot be told apart
    ends = np.append(first[1:], len(x))
    for a, b in zip(first.tolist(), ends.tolist(), strict=True):
        blocks.append([float(x[a:b].sum()), float(y[a:b].sum()), float(b - a)])
        while len(blocks) > 1 and _level(blocks[-2]) >= _level(blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [p + q for p, q in zip(blocks[-1], last, strict=True)]
    points = [(0.0, 0.0)]
    for block in blocks:
        at, level = round(block[0] / block[2], 7), round(_level(block), 7)
        if points[-1][0] < at < 1 and points[-1][1] < level < 1:
            points.append((at, level))
    points.append((1.0, 1.0))
    return [p[0] for p in points], [p[1] for p in points]


def _level(block: list[float]) -> float:
    """Share of right ones, half a document drawn to the middle: no block of a sample is proof of 0 or 1."""
    return (block[1] + 0.5) / (block[2] + 1)


def platt(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """(a, b) of 1 / (1 + exp(-(a logit(p) + b))), a above 0; scores and right as for `isotonic`."""
    from curate.training.fit import minimise

    p = np.clip(scores.astype(np.float64), _EDGE, 1 - _EDGE)
    z = np.log(p / (1 - p))
    hit = float(right.sum())
    target = np.where(right, (hit + 1) / (hit + 2), 1 / (len(right) - hit + 2))

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        t = at[0] * z + at[1]
        off = 1 / (1 + np.exp(-np.clip(t, -700, 700))) - target
        value = np.logaddexp(0, t) - target * t
        return float(value.mean()), np.array([(off * z).mean(), off.mean()])

    a, b = minimise(loss, np.array([1.0, 0.0]), tolerance=1e-10)
    if not a > 0:
        raise RecipeError("calibrate: on the validation part higher scores are not better, so there is nothing to calibrate")
    return round(float(a), 7), round(float(b), 7)
