"""The mixture of groups that is best for a target, by one regression on many proxies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from curate.errors import RecipeError
from curate.searching import FEWEST, Candidate, Found, Predicting, Run, Space, baselines

RANDOM = 1_000_001  # stream of random numbers of the candidates


@dataclass(frozen=True, kw_only=True)
class Regmix(Predicting):
    """Searches for the mixture of groups whose proxies do best on a target, as RegMix does.

    runs: how many proxies there are, on natural and uniform proportions and on random mixtures, all at once. The metric on each
    target is then predicted by a regression of its own for `simulated` mixtures, and the result is the mean of the `average`
    whose predicted mean over targets is best, unless a mixture that was measured is predicted better.

    predictor: "lightgbm" or "stacked" (the extra `cluster`), or "linear"; see `curate.mixtures.fit`. strength_min,
    strength_max, temperature, max_usage, min_weight: see `curate.mixtures.Generator`; max_usage says how many times its natural
    share a group may have. For by, target, texts, column, metric, models, tokens, base_tokens, window, vocabulary, lr,
    batch_tokens, target_tokens, device, dtype, into, names, confirm, weak and seed see `curate.searching.Searching`.

    Columns written: `sampling` (or `into`; float32), null without a group. Reasons: none. Output: `mixture.json`, with every
    proxy, the rank correlation of predictions with measurements that were not seen (under 0.8 is a warning; an interval that
    includes 0 stops the run) and the uncertainty of what is predicted.

    Source: RegMix (Liu et al. 2024, arXiv:2407.01492); the confirmation is own.

    >>> import pyarrow as pa
    >>> docs = [f"the cell divides, cell {i}" for i in range(9)] + [f"buy phone {i} now" for i in range(9)]
    >>> table = pa.table({"text": docs, "kind": ["lab"] * 9 + ["shop"] * 9})
    >>> search = Regmix(by="kind", texts=("cells divide, and the cell divides again",), models="ngram", runs=12,
    ...                 predictor="linear", simulated=1000, average=4)
    >>> kept = search(table).kept
    >>> [round(kept["sampling"][i].as_py()) for i in (0, -1)]
    [2, 0]
    """

    code: ClassVar[str] = "regmix"
    example: ClassVar[dict[str, Any]] = {
        "by": "corpus",
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
        "models": "ngram",
        "runs": 8,
        "simulated": 200,
        "average": 8,
        "predictor": "linear",
        "weak": "keep",
    }

    runs: int = 512
    average: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runs < FEWEST:
            raise RecipeError(f"regmix: runs is {self.runs}; give at least {FEWEST} proxies")

    def sizes(self) -> tuple[int, ...]:
        return (self.runs,)

    def propose(self, number: int, space: Space, runs: Sequence[Run]) -> list[Candidate]:
        found = baselines(space, self.generator.bound(space.natural), self.seed)
        values = self.generator.draw(space.natural, max(self.runs - len(found), 0), stream=RANDOM, what=self.code)
        return [*found, *(Candidate(one, "random", self.seed) for one in values)]

    def conclude(self, space: Space, runs: Sequence[Run]) -> Found:
        runs = self.usable(runs)
        fit = self.fitted(runs, self.predictor)
        return self.concluded(space, fit, runs, self.simulate(space, 1))
