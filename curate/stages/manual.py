"""A mixture by hand, as searches leave theirs, and what it is worth beside natural and uniform proportions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import mixtures, proportions
from curate.errors import RecipeError, StageError
from curate.mixtures import FILE, Mixture, groups_of
from curate.searching import Candidate, Found, Run, Searching, Space, baselines, write_state
from curate.stage import Batches, Stage, Step, Task
from curate.storage import read_table, write_table

_CENSUS = pa.schema([("group", pa.string()), ("tokens", pa.int64())])
_WHOLE = 1 << 50  # natural shares as whole numbers of so many parts


@dataclass(frozen=True, kw_only=True)
class Manual(Searching):
    """Writes the mixture of groups that it is given, and measures it where there is a target.

    weights: shares of tokens by group, with any positive sum, where "*" is the share of all other groups together; or the path
    of a `mixture.json`, or of a file with `weights`. A group that there is not is an error, and so is one without a weight.

    With a target (or `texts`) this mixture, natural and uniform proportions are each measured by `repeats` proxies that differ
    in the order of their documents, so that one sees what it is worth: the means and their spread are in `mixture.json`, under
    `comparison`. n-gram models need no repeats. For by, target, texts, column, metric, models, tokens, base_tokens, window,
    vocabulary, lr, batch_tokens, target_tokens, device, dtype, into, names and seed see `curate.searching.Searching`; there is
    nothing that `confirm` and `weak` would decide here.

    Columns written: `sampling` (or `into`; float32), null without a group. Reasons: none. Output: `mixture.json`.

    Source: own.

    >>> import pyarrow as pa
    >>> table = pa.table({"text": ["one two", "three four", "five six", "seven eight"], "kind": ["a", "a", "b", "c"]})
    >>> Manual(by="kind", weights={"a": 0.6, "*": 0.4})(table).kept["sampling"].to_pylist()[::3]
    [1.2000000476837158, 0.800000011920929]
    """

    code: ClassVar[str] = "manual"
    example: ClassVar[dict[str, Any]] = {"by": "corpus", "weights": {"*": 1.0}}

    weights: str | Mapping[str | int | bool, float]
    repeats: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", proportions.by_name(self.weights))
        super().__post_init__()
        if not isinstance(self.weights, str):
            mixtures.shares(self.weights, "manual")
        elif not self.weights:
            raise RecipeError("manual: weights is empty; give shares of groups, or the path of a mixture.json")
        if not 1 <= self.repeats <= 100:
            raise RecipeError(f"manual: repeats is {self.repeats}; give 1 to 100 proxies for each mixture")

    @property
    def measures(self) -> bool:
        return bool(self.target or self.texts)

    def sizes(self) -> tuple[int, ...]:
        return (3 * self._repeats,) if self.measures else ()

    @property
    def _repeats(self) -> int:
        return self.repeats if self.config.trains else 1

    def bound(self, columns: Collection[str]) -> Stage:
        if isinstance(self.weights, str) and Mixture.load(self.weights, "manual").rate:
            raise RecipeError(f"manual: {self.weights} has rates of documents, which shares of groups cannot say")
        return super().bound(columns)

    def files(self) -> tuple[str, ...]:
        return (*super().files(), *((self.weights,) if isinstance(self.weights, str) else ()))

    def fit_reads(self) -> tuple[str, ...]:
        return super().fit_reads() if self.measures else (self.by, "tokens")

    def trivial(self, space: Space) -> bool:
        return False

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        if self.measures:
            return super().steps(n_shards, n_docs)
        return [Step("census", partial(_census, self), reads=(self.by, "tokens")), Step("conclude", partial(_check, self))]

    def given(self, space: Space) -> np.ndarray:
        """The share of each group (float64). Raises StageError where weights and groups do not fit."""
        named = Mixture.load(self.weights, "manual").weights if isinstance(self.weights, str) else self.weights
        tokens = {group: round(share * _WHOLE) for group, share in zip(space.groups, space.natural.tolist(), strict=True)}
        found, _ = proportions.given_shares({str(g): w for g, w in named.items()}, tokens, self.by, "manual")
        return np.array([float(found[group]) for group in space.groups])

    def propose(self, number: int, space: Space, runs: Sequence[Run]) -> list[Candidate]:
        one = [Candidate(self.given(space), "manual", self.seed), *baselines(space, np.ones(len(space.groups)), self.seed)]
        return [Candidate(c.values, c.origin, self.seed + repeat) for repeat in range(self._repeats) for c in one]

    def conclude(self, space: Space, runs: Sequence[Run]) -> Found:
        name, sign = self.metric_of(runs), self.sign(runs)
        measured: dict[str, list[float]] = {}
        for run in runs:
            measured.setdefault(run.candidate.origin, []).append(run.measured.metric(name))
        means = {origin: float(np.mean(values)) for origin, values in measured.items()}
        spread = {o: float(np.std(v, ddof=1)) if len(v) > 1 else None for o, v in measured.items()}
        compared = {o: {"mean": means[o], "spread": spread[o], "runs": len(measured[o])} for o in measured}
        worse = [o for o in ("natural", "uniform") if o in means and sign * means["manual"] >= sign * means[o]]
        said = [f"{origin} proportions are at least as good: {name} {means[origin]:.4f}" for origin in worse]
        warnings = [f"the mixture by hand has the {name} {means['manual']:.4f}; {' and '.join(said)}"] if said else []
        return Found(self.given(space), more={"comparison": compared}, warnings=tuple(warnings))


# --------------------------------------------------------------------------------------------- without a target


def _census(stage: Manual, task: Task, batches: Batches) -> None:
    """How many tokens each group has in a shard."""
    tokens: dict[str, int] = {}
    for batch in batches:
        at, groups = groups_of(batch[stage.by], f"manual: column {stage.by!r}")
        counts = pc.fill_null(batch["tokens"], 0).to_numpy(zero_copy_only=False).astype(np.int64)
        for number, group in enumerate(groups):
            tokens[group] = tokens.get(group, 0) + int(counts[at == number].sum())
    table = pa.table([list(tokens), list(tokens.values())], schema=_CENSUS)
    write_table(task.folder(stage) / "census" / task.shards[task.shard or 0], table)


def _check(stage: Manual, task: Task) -> None:
    """The mixture, where the weights fit the groups."""
    tokens: dict[str, int] = {}
    for name in task.shards:
        table = read_table(task.folder(stage) / "census" / name)
        for group, n in zip(table["group"].to_pylist(), table["tokens"].to_pylist(), strict=True):
            tokens[group] = tokens.get(group, 0) + n
    groups = tuple(group for group in mixtures.ordered(tokens) if tokens[group])
    if not groups:
        raise StageError(f"manual: no document has tokens and a value in the column {stage.by!r}: look at the stages before it")
    counts = np.array([tokens[group] for group in groups], np.float64)
    space = Space(groups, counts / counts.sum())
    mixture = Mixture(
        weights=dict(zip(groups, stage.given(space).tolist(), strict=True)),
        by=stage.by,
        natural=dict(zip(groups, space.natural.tolist(), strict=True)),
        evidence={"method": "manual"},
    )
    if task.root is not None:
        mixture.save(task.kept(stage) / FILE)
    write_state(task, stage, mixture)
