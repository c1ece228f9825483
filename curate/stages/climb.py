"""The mixture of groups that is best for a target, found in rounds of proxies and a predictor of what they measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from curate import mixtures
from curate.errors import RecipeError
from curate.searching import FEWEST, Candidate, Found, Predicting, Run, Space, baselines

RANDOM, AROUND, PICK = 1_000_001, 1_000_002, 2_000_000  # streams of random numbers; those of rounds are smaller
LEAST = 128  # candidates, at least, out of which those of a round are drawn


@dataclass(frozen=True, kw_only=True)
class Climb(Predicting):
    """Searches for the mixture of groups whose proxies do best on a target, as CLIMB does.

    rounds: how many proxies each has. The first are natural and uniform proportions and random mixtures. Before each of the
    next, a predictor is fitted to all that was measured, and the proxies of the round are drawn at random out of the
    max(M^2, 128) best predicted of `simulated` mixtures, M being their number. At last it is fitted again, and the best
    predicted mixture is the result, measured or not, or the mean of the `average` best predicted. With `confirm` a proxy is
    trained on it too, and the result is the mixture, this one or another that was measured, for which the mean of prediction
    and measurement is best.

    start: "ngram" begins with the weights whose mixture of n-gram models loses least on the target, which takes seconds: they
    are the third of the first candidates, a third of the others is drawn around them, and in later rounds a part of the
    simulated mixtures is drawn around the best measured. "" for none of it, as in the paper.

    predictor: "lightgbm" or "stacked" (the extra `cluster`), or "linear"; see `curate.mixtures.fit`. strength_min,
    strength_max, temperature, max_usage, min_weight: see `curate.mixtures.Generator`; max_usage says how many times its natural
    share a group may have. For by, target, texts, column, metric, models, tokens, base_tokens, window, vocabulary, lr,
    batch_tokens, target_tokens, device, dtype, into, names, confirm, weak and seed see `curate.searching.Searching`.

    Columns written: `sampling` (or `into`; float32), null without a group. Reasons: none. Output: `mixture.json`, with every
    proxy, the rank correlation of predictions with measurements that were not seen (under 0.8 is a warning; an interval that
    includes 0 stops the run) and the uncertainty of what is predicted.

    Source: CLIMB (Diao et al. 2025, arXiv:2504.13161); the start and the confirmation are own.

    >>> docs = [f"the cell divides, cell {i}" for i in range(9)] + [f"buy phone {i} now" for i in range(9)]
    >>> import pyarrow as pa
    >>> table = pa.table({"text": docs, "kind": ["lab"] * 9 + ["shop"] * 9})
    >>> search = Climb(by="kind", texts=("cells divide, and the cell divides again",), models="ngram", rounds=(8, 4),
    ...                predictor="linear", simulated=1000)
    >>> kept = search(table).kept
    >>> [round(kept["sampling"][i].as_py()) for i in (0, -1)]
    [2, 0]
    """

    code: ClassVar[str] = "climb"
    settles: ClassVar[bool] = True
    example: ClassVar[dict[str, Any]] = {
        "by": "corpus",
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
        "models": "ngram",
        "rounds": (6, 2),
        "simulated": 200,
        "predictor": "linear",
        "weak": "keep",
    }

    rounds: tuple[int, ...] = (64, 32, 16)
    start: Literal["", "ngram"] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("", "ngram"):
            raise RecipeError(f"climb: start is {self.start!r}; it is 'ngram', or nothing")
        if not self.rounds or min(self.rounds) < 1 or self.rounds[0] < FEWEST:
            said = ", ".join(map(str, self.rounds))
            raise RecipeError(f"climb: rounds is [{said}]; give how many proxies each has, the first at least {FEWEST}")

    def sizes(self) -> tuple[int, ...]:
        return self.rounds

    def starts(self) -> bool:
        return self.start == "ngram"

    def propose(self, number: int, space: Space, runs: Sequence[Run]) -> list[Candidate]:
        size = self.rounds[number - 1]
        return self._first(size, space) if number == 1 else self._next(number, size, space, self.usable(runs))

    def _first(self, size: int, space: Space) -> list[Candidate]:
        """Natural and uniform proportions, the start and what is around it, and random mixtures."""
        bound = self.generator.bound(space.natural)
        found = baselines(space, bound, self.seed)
        drawn = []
        if space.start is not None:
            start = mixtures.within(space.start, bound)
            found.append(Candidate(start, "ngram", self.seed))
            drawn.append(("around", self.around(space, start, max(size - len(found), 0) // 3, AROUND)))
        left = max(size - len(found) - sum(len(values) for _, values in drawn), 0)
        drawn.append(("random", self.generator.draw(space.natural, left, stream=RANDOM, what=self.code)))
        known = np.array([one.values for one in found])
        for origin, values in drawn:
            found += [Candidate(one, origin, self.seed) for one in values[mixtures.without(values, known)]]
        return found

    def _next(self, number: int, size: int, space: Space, runs: Sequence[Run]) -> list[Candidate]:
        """Some of the mixtures that are predicted best."""
        fit = self.fitted(runs, self.predictor)
        values = self.simulate(space, number, self._centre(runs))
        values = values[mixtures.without(values, np.array([run.candidate.values for run in runs]))]
        predicted = fit.predict(values)
        best = np.argsort(self.sign(runs) * predicted, kind="stable")[: max(size**2, LEAST)]
        rng = np.random.Generator(np.random.PCG64([PICK + number, self.seed & (1 << 64) - 1]))
        picked = np.sort(rng.choice(best, min(size, len(best)), replace=False))
        return [Candidate(values[i], "predicted", self.seed, float(predicted[i])) for i in picked.tolist()]

    def _centre(self, runs: Sequence[Run]) -> np.ndarray | None:
        return self.best(runs) if self.start else None

    def conclude(self, space: Space, runs: Sequence[Run]) -> Found:
        runs = self.usable(runs)
        fit = self.fitted(runs, self.predictor)
        return self.concluded(space, fit, runs, self.simulate(space, len(self.rounds) + 1, self._centre(runs)))
