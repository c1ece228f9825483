"""What the runs of `selection.py` amount to: where a loss lies on a curve of random training, and intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Reached:
    """How many tokens reach a loss. side: ">" or "<" where the curve ends before it does, and `tokens` is that end; else ""."""

    tokens: float
    side: str = ""


def reached(curve: Mapping[int, float], loss: float) -> Reached:
    """With how many tokens a curve {tokens: loss} comes down to `loss`, read between its points on a logarithmic scale.

    More tokens never make a curve worse here: where a point lies above an earlier one, it counts as that one. Nothing is
    extrapolated: what lies beyond an end is said to lie beyond it.
    """
    tokens = np.array(sorted(curve), np.float64)
    falling = np.minimum.accumulate(np.array([curve[int(t)] for t in tokens], np.float64))
    if loss > falling[0]:
        return Reached(float(tokens[0]), "<")
    if loss < falling[-1]:
        return Reached(float(tokens[-1]), ">")
    at = int(np.argmax(falling <= loss))  # the first point that is as good
    if at == 0 or falling[at] == loss:
        return Reached(float(tokens[at]))
    share = (falling[at - 1] - loss) / (falling[at - 1] - falling[at])
    return Reached(float(math.exp((1 - share) * math.log(tokens[at - 1]) + share * math.log(tokens[at]))))


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its interval.

    side: ">" or "<" where some seed could only be bounded, and so can the mean; "?" with bounds from both sides.
    """

    mean: float
    low: float
    high: float
    n: int
    side: str = ""

    def show(self, digits: int) -> str:
        """`mean [low, high]`; an end that the data do not give is left open."""
        if self.n < 2:
            return f"{self.side}{self.mean:.{digits}f}"
        low = "?" if self.side in ("<", "?") or math.isinf(self.low) else f"{self.low:.{digits}f}"
        high = "?" if self.side in (">", "?") or math.isinf(self.high) else f"{self.high:.{digits}f}"
        return f"{self.side}{self.mean:.{digits}f} [{low}, {high}]"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean with its t interval."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return Estimate(mean, -math.inf, math.inf, n)
    from scipy import stats

    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def multiplier(curves: Mapping[int, Mapping[int, float]], losses: Mapping[int, float], tokens: int) -> Estimate:
    """How many times as many random tokens reach the losses that `tokens` selected ones reach: geometric mean over seeds.

    curves: of random training, by seed. losses: by seed, each read off the curve of its own seed. A seed whose loss lies beyond
    its curve counts as the end of the curve, and the mean is said to be above (or below) what comes out.
    """
    found = [reached(curves[seed], loss) for seed, loss in sorted(losses.items())]
    sides = {r.side for r in found if r.side}
    of = estimate([math.log(r.tokens / tokens) for r in found])
    side = sides.pop() if len(sides) == 1 else "?" if sides else ""
    return Estimate(math.exp(of.mean), math.exp(of.low), math.exp(min(of.high, 700)), of.n, side)
