"""What the stages that search for a mixture have in common: rounds of proxies, and what they leave.

A search proposes candidates, trains a proxy on each, and proposes again with what was measured. Each proposal is a task, which
depends on the results of all rounds before, and each proxy is one: they run beside each other, on as many workers as there
are, and a search that is killed repeats none that was done. What is found is `mixture.json` (`curate.mixtures.Mixture`) with
every proxy that speaks for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import mixtures
from curate.encoders import require
from curate.errors import RecipeError, StageError
from curate.mixtures import FILE, GOOD, Fit, Generator, Mixture
from curate.stage import BatchFn, GlobalStage, Stage, Step, Task, operational, with_columns
from curate.storage import read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    from curate.proxies import Config, Measured, Pool, Selection, Target

METRICS = {  # name: (unit, whether lower is better)
    "loss": ("nats per token", True),
    "bits_per_byte": ("bits per byte", True),
    "accuracy": ("share of questions", False),
    "accuracy_per_byte": ("share of questions", False),
}
NO_GROUP = "documents without a group, which are in no mixture"
MOST = 10_000  # proxies of a search
FEWEST = 4  # out of which something is predicted
CLOSE = (5.0, 100.0)  # strengths of the distributions of mixtures that are near one
OF_NATURAL = 0.1  # of the mean of these are natural proportions, so that no group is excluded
Targets = str | tuple[str, ...] | Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Candidate:
    """What a proxy is to be trained on.

    values: float64: a share for each group of the space, or other numbers that the search makes a selection of. origin: where
    it comes from. predicted: the metric that the predictor of that round expects.
    """

    values: np.ndarray
    origin: str
    seed: int
    predicted: float | None = None


@dataclass(frozen=True)
class Run:
    """A proxy that was trained. round: from 1 on."""

    round: int
    candidate: Candidate
    measured: Measured


@dataclass(frozen=True)
class Space:
    """What is searched: groups in order, their shares of the corpus (float64), and what is known before the first proxy.

    start: float64 per group: the weights whose mixture of n-gram models loses least, where the search asks for them.
    """

    groups: tuple[str, ...]
    natural: np.ndarray
    start: np.ndarray | None = None


@dataclass(frozen=True)
class Found:
    """What a search concludes.

    values: as those of a candidate. predicted, uncertainty, correlation: see `Mixture`. more: for the evidence. fit: what
    predicted it.
    """

    values: np.ndarray
    predicted: float | None = None
    uncertainty: float | None = None
    correlation: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fit: Fit | None = None

    def instead(self, values: np.ndarray) -> Found:
        """The same conclusion about other values."""
        if self.fit is None:
            return replace(self, values=values)
        predicted, spread = float(self.fit.predict(values[None])[0]), self.fit.uncertainty(values[None])
        return replace(self, values=values, predicted=predicted, uncertainty=spread)


@dataclass(frozen=True, kw_only=True)
class Searching(GlobalStage):
    """A stage that searches for the mixture of groups whose proxies do best on a target.

    by: the column (string, integer or boolean) whose values are the groups; a document without a value belongs to none.

    target: files of texts, or of questions with choices, as `color_filter` reads them: JSONL, Parquet or text files, folders,
    globs; or a mapping from names to files, whose metrics are averaged. texts: such texts themselves. column: of the texts in
    files. metric: "loss" (nats per token), "bits_per_byte", "accuracy", "accuracy_per_byte" (the choice that is likeliest per
    byte), or "auto": accuracy where all targets have choices, else loss. Of targets with choices all of them are recorded.

    models: the size of proxies, "1m", "10m", "60m" or "150m" (the extra `lm`), or "ngram": no training, but the mixture of the
    n-gram models of the groups. tokens: that each proxy is trained on. base_tokens: of natural proportions, that one model is
    trained on before, from which each proxy goes on. window, vocabulary, lr, batch_tokens, target_tokens, device, dtype: see
    `curate.proxies.Config`. seed: of everything that is drawn.

    into: the column that says how many copies of a document are wanted for each that natural proportions have. names: a column
    with the names of groups; by default `<by>_name`, where there is one. confirm: train one proxy more, on the mixture that is
    found, so that it says what was measured and not only what was predicted. weak: where predictions and measurements have no
    rank correlation that can be told from 0, "stop", or "keep" the mixture with a warning; no proxy is trained again for it.

    For authors: give `code`, `sizes`, `propose` and `conclude`; `selection`, `group_shares` and `described` too, where
    candidates are not weights of groups.
    """

    code: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = (FILE,)
    settles: ClassVar[bool] = False  # whether one that was measured may take the place of the mixture that is found

    by: str
    target: Targets = ()
    texts: tuple[str, ...] = ()
    column: str = "text"
    metric: Literal["auto", "loss", "bits_per_byte", "accuracy", "accuracy_per_byte"] = "auto"
    models: str = "1m"
    tokens: int = 200_000
    base_tokens: int = 0
    window: int = 256
    vocabulary: int = 8192
    lr: float | None = None
    batch_tokens: int | None = None
    target_tokens: int = 100_000
    device: str = "auto"
    dtype: str = "auto"
    into: str = "sampling"
    names: str = ""
    confirm: bool = True
    weak: Literal["stop", "keep"] = operational("stop")
    seed: int = 42

    def __post_init__(self) -> None:
        what = self.code
        if not self.by or self.by.startswith("_"):
            raise RecipeError(f"{what}: by is {self.by!r}; it is the name of a column whose values are groups")
        if not self.into or self.into.startswith("_") or self.into == self.by:
            raise RecipeError(f"{what}: into is {self.into!r}; give the name of a new column, not beginning with an underscore")
        if self.metric not in ("auto", *METRICS):
            raise RecipeError(f"{what}: metric is {self.metric!r}; it is one of auto, {', '.join(METRICS)}")
        if self.weak not in ("stop", "keep"):
            raise RecipeError(f"{what}: weak is {self.weak!r}; it is 'stop' or 'keep'")
        self.config.check(what)
        self.wanted.check(what)
        if not all(size >= 0 for size in self.sizes()) or sum(self.sizes()) > MOST:
            raise RecipeError(f"{what}: {' + '.join(map(str, self.sizes()))} proxies are wanted; give at most {MOST:,}")

    # ------------------------------------------------------------------ for authors

    def sizes(self) -> tuple[int, ...]:
        """How many proxies each round has."""
        raise NotImplementedError

    def propose(self, number: int, space: Space, runs: Sequence[Run]) -> list[Candidate]:
        """The candidates of a round (from 1 on), out of all that was measured before; at most as many as its size."""
        raise NotImplementedError

    def conclude(self, space: Space, runs: Sequence[Run]) -> Found:
        """What all proxies say. Called where there is something to search."""
        raise NotImplementedError

    def selection(self, pool: Pool, values: np.ndarray) -> Selection | np.ndarray:
        """What a proxy is trained on: documents of the pool, or shares of its groups, which are the values by default."""
        return values

    def group_shares(self, pool: Pool, values: np.ndarray) -> np.ndarray:
        """The share of each group that the values come to (float64), which `Mixture.weights` holds."""
        return values

    def described(self, space: Space, values: np.ndarray) -> dict[str, Any]:
        """What a record of a proxy says of it: `weights` by group."""
        return {"weights": dict(zip(space.groups, values.tolist(), strict=True))}

    def pool_columns(self) -> tuple[str, ...]:
        """Columns that the pool is to keep for each document."""
        return ()

    def starts(self) -> bool:
        """Whether `Space.start` is wanted."""
        return False

    def need(self) -> int:
        """How many tokens of one group a pool is to hold at most."""
        return max(self.tokens, self.base_tokens)

    def trivial(self, space: Space) -> bool:
        """Whether there is nothing to search."""
        return len(space.groups) < 2

    # ------------------------------------------------------------------ the stage

    @property
    def config(self) -> Config:
        """What decides a measurement."""
        from curate.proxies import Config

        return Config(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Config)})

    @property
    def wanted(self) -> Target:
        """What proxies are evaluated on."""
        from curate.proxies import Target

        return Target.of(self.target, self.texts, self.column)

    @property
    def measures(self) -> bool:
        """Whether there are proxies at all."""
        return any(self.sizes())

    def bound(self, columns: Collection[str]) -> Stage:
        if self.measures:
            self.wanted.asked(self.code)  # only now, so that a recipe can leave it to those who run it
            if self.metric.startswith("accuracy") and not self.wanted.has_choices(self.code):
                raise RecipeError(f"{self.code}: metric is {self.metric}, but not all targets have questions with choices")
            if self.config.trains:
                require(("torch", "transformers"), "lm", f"stage {self.code!r}")
        if not self.names and f"{self.by}_name" in columns:
            return replace(self, names=f"{self.by}_name")
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.by,)

    def fit_reads(self) -> tuple[str, ...]:
        names = (self.names,) if self.names else ()
        return tuple(dict.fromkeys((self.by, "tokens", "file", "record", "text", *names, *self.pool_columns())))

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.float32())])

    def files(self) -> tuple[str, ...]:
        return self.wanted.paths(self.code) if self.measures else ()

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        from curate.proxies import pool_steps

        names = (self.names,) if self.names else ()
        columns = tuple(dict.fromkeys((*names, *self.pool_columns())))
        found = pool_steps(
            self, what=self.code, by=self.by, config=self.config, need=self.need(), target=self.wanted, columns=columns
        )
        if self.starts():
            found.append(Step("start", partial(_start, self)))
        for number, size in enumerate(self.sizes(), 1):
            found.append(Step(f"propose_{number}", partial(_propose, self, number)))
            found.append(Step(f"proxies_{number}", partial(_proxy, self, number), tasks=max(size, 1)))
        return [*found, Step("conclude", partial(_conclude, self))]

    def open(self, task: Task) -> BatchFn:
        mixture = Mixture.from_json(_read_state(task, self), self.code)
        if not task.shard:  # once for the run, since the notes of shards are added up
            for warning in mixture.warnings:
                task.count(warning)
            for note, n in mixture.evidence.get("notes", {}).items():
                task.count(note, n)
        rates = {group: mixture.weights[group] / share for group, share in mixture.natural.items() if share > 0}
        return partial(self._rated, task, rates)

    def _rated(self, task: Task, rates: Mapping[str, float], batch: pa.RecordBatch) -> pa.RecordBatch:
        at, groups = mixtures.groups_of(batch[self.by], f"{self.code}: column {self.by!r}")
        values = np.array([*(rates.get(group, 0.0) for group in groups), np.nan])[at]  # -1, no group, is the last
        if without := int((at < 0).sum()):
            task.count(NO_GROUP, without)
        return with_columns(batch, {self.into: pa.array(values, pa.float32(), mask=np.isnan(values))})

    # ------------------------------------------------------------------ what was measured

    def metric_of(self, runs: Sequence[Run]) -> str:
        """The name of the metric that decides."""
        if self.metric != "auto":
            return self.metric
        asked = all("accuracy" in of for run in runs for of in run.measured.targets.values())
        return "accuracy" if asked and runs else "loss"

    def table(self, runs: Sequence[Run]) -> np.ndarray:
        """The metric of each run on each target: float64 (runs, targets)."""
        name = self.metric_of(runs)
        return np.array([[of.get(name, np.nan) for of in run.measured.targets.values()] for run in runs], np.float64)

    def sign(self, runs: Sequence[Run]) -> float:
        """1 where lower is better, else -1."""
        return 1.0 if METRICS[self.metric_of(runs)][1] else -1.0

    def usable(self, runs: Sequence[Run]) -> list[Run]:
        """The runs whose metric is a number. Raises StageError where they are too few to predict anything."""
        finite = np.isfinite(self.table(runs)).all(axis=1) if runs else np.zeros(0, bool)
        found = [run for run, good in zip(runs, finite.tolist(), strict=True) if good]
        if len(found) < FEWEST:
            bad = len(runs) - len(found)
            why = f", since {bad} of {len(runs)} have a {self.metric_of(runs)} that is no number; lower `lr`" if bad else ""
            raise StageError(
                f"{self.code}: {len(found)} proxies say too little, at least {FEWEST} are needed{why or '; give more'}"
            )
        return found

    def fitted(self, runs: Sequence[Run], kind: str) -> Fit:
        """A predictor of the metric: the mean of those for each target."""
        return mixtures.fit(np.array([run.candidate.values for run in runs]), self.table(runs), kind, self.seed)

    def trusted(self, fit: Fit, runs: Sequence[Run]) -> tuple[dict[str, Any], list[str]]:
        """(rank correlation of a predictor, what people should know of it). Raises StageError where it has learned nothing."""
        correlation = fit.correlation()
        rho, low, high = (correlation[name] for name in ("spearman", "low", "high"))
        said = f"predictions have the rank correlation {rho:.2f} (95%: {low:.2f} to {high:.2f}) with {len(runs)} proxies"
        if np.ptp(fit.measured) == 0:
            said = f"all {len(runs)} proxies have the same {self.metric_of(runs)}, {fit.measured[0]:.6g}"
        if low <= 0:
            remedy = ["more proxies", "more `tokens` for each", *(["`metric: loss`"] if self.sign(runs) < 0 else [])]
            if self.weak == "stop":
                raise StageError(
                    f"{self.code}: {said}, so nothing can be said of mixtures; give {' or '.join(remedy)}, or `weak: keep` "
                    "to have it all the same"
                )
            return correlation, [f"the mixture is a guess: {said}"]
        return correlation, [f"predictions are weak: {said}, less than {GOOD:g}"] if rho < GOOD else []


# --------------------------------------------------------------------------------------------- searches that predict


@dataclass(frozen=True, kw_only=True)
class Predicting(Searching):
    """A search that draws mixtures at random and predicts the metric of those that were not measured.

    predictor: "lightgbm" or "stacked" (the extra `cluster`), or "linear"; see `curate.mixtures.fit`. simulated: for how many
    mixtures the metric is predicted. average: of how many of the best predicted the mean is taken. strength_min, strength_max,
    temperature, max_usage, min_weight: see `curate.mixtures.Generator`.
    """

    predictor: Literal["lightgbm", "linear", "stacked"] = "lightgbm"
    simulated: int = 100_000
    average: int = 1
    strength_min: float = 0.1
    strength_max: float = 5.0
    temperature: float = 0.5
    max_usage: float = 15.0
    min_weight: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.generator.check(self.code)
        if self.predictor not in mixtures.PREDICTORS:
            raise RecipeError(f"{self.code}: predictor is {self.predictor!r}; it is one of {', '.join(mixtures.PREDICTORS)}")
        if not 1 <= self.simulated <= 10_000_000:
            raise RecipeError(f"{self.code}: simulated is {self.simulated}; give 1 to 10,000,000 mixtures")
        if not 1 <= self.average <= self.simulated:
            said = f"average is {self.average}; give 1 to {self.simulated:,}, the number of `simulated`"
            raise RecipeError(f"{self.code}: {said}")

    @property
    def generator(self) -> Generator:
        """What mixtures are drawn by."""
        return Generator(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Generator)})

    def bound(self, columns: Collection[str]) -> Stage:
        if self.predictor != "linear":
            require(("lightgbm",), "cluster", f"stage {self.code!r}")
        return super().bound(columns)

    def simulate(self, space: Space, stream: int, centre: np.ndarray | None = None) -> np.ndarray:
        """Mixtures whose metric can be predicted: out of Dirichlet(prior), and with a centre half of them around it."""
        n = self.simulated if centre is None else self.simulated - self.simulated // 2
        found = self.generator.of_prior().draw(space.natural, n, stream=2 * stream, what=self.code, fewer=True)
        if centre is None:
            return found
        return np.concatenate([found, self.around(space, centre, self.simulated // 2, 2 * stream + 1)])

    def around(self, space: Space, centre: np.ndarray, n: int, stream: int) -> np.ndarray:
        """Mixtures near one: out of Dirichlet distributions whose mean it is, with some of the natural shares in it."""
        near = replace(self.generator, temperature=1.0, strength_min=CLOSE[0], strength_max=CLOSE[1])
        prior = (1 - OF_NATURAL) * centre + OF_NATURAL * space.natural
        return near.draw(space.natural, n, prior=prior, stream=stream, what=self.code, fewer=True)

    def best(self, runs: Sequence[Run]) -> np.ndarray:
        """The values of the run whose metric is best."""
        return runs[int(np.argmin(self.sign(runs) * self.table(runs).mean(axis=1)))].candidate.values

    def concluded(self, space: Space, fit: Fit, runs: Sequence[Run], values: np.ndarray) -> Found:
        """The mixture with the best prediction, or the mean of so many; none that was measured is predicted better."""
        correlation, warnings = self.trusted(fit, runs)
        sign = self.sign(runs)
        known = np.array([run.candidate.values for run in runs])
        known = known[np.argsort(sign * fit.measured, kind="stable")]  # of equal predictions that one which did best
        every = np.concatenate([known, values])
        order = np.argsort(sign * fit.predict(every), kind="stable")
        choice = np.stack([every[order[: self.average]].mean(axis=0), every[order[0]]])
        predicted = fit.predict(choice)
        at = int(sign * predicted[1] < sign * predicted[0])  # trees do not tell near ones apart: of these the mean
        return Found(
            values=choice[at],
            predicted=float(predicted[at]),
            uncertainty=fit.uncertainty(choice[at : at + 1]),
            correlation=correlation,
            more={"predictor": {"kind": fit.kind, "residual": fit.residual, "simulated": len(values)}},
            warnings=tuple(warnings),
            fit=fit,
        )


# --------------------------------------------------------------------------------------------- candidates of several searches


def baselines(space: Space, bound: np.ndarray, seed: int) -> list[Candidate]:
    """Natural and uniform proportions, the latter as far as the bound lets."""
    uniform = (space.natural > 0) / np.count_nonzero(space.natural)
    even = mixtures.within(uniform, bound)
    found = [Candidate(space.natural, "natural", seed)]
    return [*found, Candidate(even, "uniform", seed)] if mixtures.without(even[None], space.natural[None])[0] else found


# --------------------------------------------------------------------------------------------- without a corpus


def rehearse(
    stage: Searching,
    groups: Sequence[str],
    natural: Sequence[float] | np.ndarray,
    objective: Callable[[np.ndarray], float | Mapping[str, float]],
    start: Sequence[float] | np.ndarray | None = None,
) -> Mixture:
    """The same search with a function in place of proxies, to judge it before a proxy is paid for.

    groups, natural: as those of a corpus. objective: the metric of weights (float64 per group), or several by target.
    start: what `Space.start` would be. Raises what the search raises.
    """
    from curate.proxies import Measured

    shares = np.asarray(natural, np.float64)
    space = Space(tuple(groups), shares / shares.sum(), None if start is None else np.asarray(start, np.float64))
    name = "loss" if stage.metric == "auto" else stage.metric

    def measure(values: np.ndarray) -> Measured:
        found = objective(values)
        return Measured({t: {name: float(v)} for t, v in (found if isinstance(found, Mapping) else {"target": found}).items()})

    runs: list[Run] = []
    for number, size in enumerate(stage.sizes(), 1):
        if not stage.trivial(space):
            runs += [Run(number, one, measure(one.values)) for one in stage.propose(number, space, runs)[:size]]
    found = _only(space) if stage.trivial(space) else stage.conclude(space, runs)
    last = _same(runs, found.values) or (measure(found.values) if stage.confirm and runs else None)
    found, last, _ = _settled(stage, runs, found, last)
    return _mixture(stage, space, runs, found, found.values, last, 0, {}, {})


# --------------------------------------------------------------------------------------------- the steps of the fit


def _pool(stage: Searching, task: Task) -> Pool:
    from curate.proxies import Pool, pool_folder

    return Pool.open(pool_folder(stage, task))


def _search(stage: Searching, task: Task) -> Path:
    return task.folder(stage) / "search"


def _space(stage: Searching, task: Task, pool: Pool) -> Space:
    start = np.array(read_json(_search(stage, task) / "start.json")) if stage.starts() else None
    return Space(pool.groups, pool.natural, start)


def _start(stage: Searching, task: Task) -> None:
    """The weights whose mixture of n-gram models loses least on the target."""
    from curate.proxies import em

    write_json(_search(stage, task) / "start.json", em(_pool(stage, task)).tolist())


def _propose(stage: Searching, number: int, task: Task) -> None:
    """The candidates of one round."""
    space = _space(stage, task, pool := _pool(stage, task))
    found = [] if stage.trivial(space) else stage.propose(number, space, _runs(stage, task, number - 1))
    size = stage.sizes()[number - 1]
    values = [
        {"values": one.values.tolist(), "origin": one.origin, "seed": one.seed, "predicted": one.predicted}
        for one in found[:size]
    ]
    write_json(_search(stage, task) / f"propose-{number:03d}.json", {"pool": pool.digest, "candidates": values})


def _candidates(stage: Searching, task: Task, number: int) -> list[Candidate]:
    said = read_json(_search(stage, task) / f"propose-{number:03d}.json")["candidates"]
    return [Candidate(np.array(one.pop("values"), np.float64), **one) for one in said]


def _result(stage: Searching, task: Task, number: int, rank: int) -> Path:
    return _search(stage, task) / "runs" / f"{number:03d}" / f"{rank:05d}.json"


def _proxy(stage: Searching, number: int, task: Task) -> None:
    """One proxy of a round."""
    candidates = _candidates(stage, task, number)
    if task.rank < len(candidates):
        found = _measured(stage, task, _pool(stage, task), candidates[task.rank])
        write_json(_result(stage, task, number, task.rank), found.to_json())


def _measured(stage: Searching, task: Task, pool: Pool, candidate: Candidate) -> Measured:
    from curate.proxies import measured

    return measured(task, stage, pool, stage.config, stage.selection(pool, candidate.values), candidate.seed)


def _runs(stage: Searching, task: Task, last: int) -> list[Run]:
    """All proxies until a round."""
    from curate.proxies import Measured

    found = []
    for number in range(1, last + 1):
        for rank, candidate in enumerate(_candidates(stage, task, number)):
            found.append(Run(number, candidate, Measured.from_json(read_json(_result(stage, task, number, rank)))))
    return found


def _conclude(stage: Searching, task: Task) -> None:
    """The mixture, in the state of the fit and, where there is a run folder, beside it for export."""
    pool = _pool(stage, task)
    space = _space(stage, task, pool)
    runs = _runs(stage, task, len(stage.sizes()))
    found = _only(space) if stage.trivial(space) else stage.conclude(space, runs)
    last = _same(runs, found.values)
    if last is None and stage.confirm and runs:
        last = _measured(stage, task, pool, Candidate(found.values, "found", stage.seed))
    found, last, more = _settled(stage, runs, found, last)
    weights = stage.group_shares(pool, found.values)
    mixture = _mixture(stage, space, runs, found, weights, last, more, _names(stage, pool), dict(pool.notes))
    if task.root is not None:
        mixture.save(task.kept(stage) / FILE)
    write_state(task, stage, mixture)


def write_state(task: Task, stage: GlobalStage, mixture: Mixture) -> None:
    """Leave a mixture as the state of a fit: a table of one row with the column `mixture`, its JSON."""
    from curate.storage import canonical

    text = canonical(mixture.to_json()).decode()
    write_table(task.folder(stage) / "state.parquet", pa.table({"mixture": pa.array([text], pa.large_string())}))


def _read_state(task: Task, stage: GlobalStage) -> Any:
    import orjson

    return orjson.loads(read_table(task.folder(stage) / "state.parquet")["mixture"][0].as_py())


def _only(space: Space) -> Found:
    said = f"there is only one group, {space.groups[0]!r}: nothing was searched"
    return Found(np.ones(1), warnings=(said,))


def _same(runs: Sequence[Run], values: np.ndarray) -> Measured | None:
    """What was measured already on the same values."""
    for run in runs:
        if len(run.candidate.values) == len(values) and np.abs(run.candidate.values - values).sum() <= mixtures.NEAR:
            return run.measured
    return None


def _settled(stage: Searching, runs: Sequence[Run], found: Found, last: Measured | None) -> tuple[Found, Measured | None, int]:
    """(what is concluded, what was measured on it, tokens of a proxy that is in no round).

    Trees predict the same of mixtures near each other, so the best predicted need not be the best. Where the search settles,
    that mixture wins which is best by the mean of prediction and measurement: noise alone does not make up for a prediction.
    """
    if last is None:
        return found, None, 0
    more = 0 if _same(runs, found.values) else last.tokens
    if not stage.settles or found.fit is None or not runs:
        return found, last, more
    sign, name = stage.sign(runs), stage.metric_of(runs)
    predicted = found.fit.predict(np.array([found.values, *(run.candidate.values for run in runs)]))
    metrics = np.array([last.metric(name), *stage.table(runs).mean(axis=1)])
    at = int(np.argmin(np.nan_to_num(sign * (predicted + metrics), nan=np.inf)))
    if at == 0:
        return found, last, more
    about = {"best_predicted": {"predicted": found.predicted, "measured": last.metric(name)}}
    best = runs[at - 1]
    return replace(found.instead(best.candidate.values), more={**found.more, **about}), best.measured, more


def _names(stage: Searching, pool: Pool) -> dict[str, str]:
    """The names of groups, as their first documents have them."""
    if not stage.names:
        return {}
    table = pool.documents.select(["group", stage.names]).drop_null()
    named = zip(table["group"].to_pylist(), pc.cast(table[stage.names], pa.string()).to_pylist(), strict=True)
    return {pool.groups[group]: name for group, name in reversed(list(named))}


def _mixture(
    stage: Searching,
    space: Space,
    runs: Sequence[Run],
    found: Found,
    weights: np.ndarray,
    last: Measured | None,
    more: int,
    names: Mapping[str, str],
    notes: Mapping[str, int],
) -> Mixture:
    name = stage.metric_of(runs)
    unit, lower = METRICS[name]
    sizes = ("tokens", "bytes", "items", "chance")
    targets = {t: {k: of[k] for k in sizes if k in of} for t, of in runs[0].measured.targets.items()} if runs else {}
    table = stage.table(runs).mean(axis=1).tolist() if runs else []
    records = [
        {
            "round": run.round,
            "origin": run.candidate.origin,
            **stage.described(space, run.candidate.values),
            "measured": run.measured.targets,
            "metric": metric,
            "predicted": run.candidate.predicted,
            "repeats": run.measured.repeats,
            "seed": run.candidate.seed,
        }
        for run, metric in zip(runs, table, strict=True)
    ]
    spent = sum(run.measured.tokens for run in runs) + more
    evidence: dict[str, Any] = {"method": stage.code, "proxy": dataclasses.asdict(stage.config), "proxy_tokens": spent}
    if space.start is not None:
        evidence["start"] = dict(zip(space.groups, space.start.tolist(), strict=True))
    warnings = [*found.warnings]
    if bad := sum(not math.isfinite(metric) for metric in table):
        warnings.append(f"{bad} of {len(runs)} proxies have a {name} that is no number and say nothing")
    return Mixture(
        weights=dict(zip(space.groups, weights.tolist(), strict=True)),
        by=stage.by,
        natural=dict(zip(space.groups, space.natural.tolist(), strict=True)),
        names=dict(names),
        metric={"name": name, "lower_is_better": lower, "unit": unit, "targets": targets},
        predicted=found.predicted,
        measured=None if last is None else {"metric": last.metric(name), "targets": last.targets},
        uncertainty=found.uncertainty,
        rank_correlation=found.correlation,
        evidence={**evidence, **found.more, "notes": dict(notes), "runs": records},
        warnings=tuple(warnings),
    )
