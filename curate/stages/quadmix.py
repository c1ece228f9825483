"""Quality and domains together: how often each document is wanted, by its rank among those of its domain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate import searching
from curate.encoders import require
from curate.errors import RecipeError, StageError
from curate.lm import WINDOW
from curate.mixtures import FILE, PREDICTORS, Mixture, groups_of
from curate.searching import FEWEST, Candidate, Found, Run, Searching, Space, write_state
from curate.selection import hashes_of
from curate.stage import Batches, BatchFn, Stage, Step, Task, with_columns
from curate.stages.quantile import as_number, has_score
from curate.storage import read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    from curate.proxies import Measured, Pool, Selection

FREE = 4  # parameters of a domain besides the weights of the scores: lambda, omega, eta, epsilon
CLIPPED = 10.0  # spreads from the middle: so far a score counts, however far it lies
SAMPLE = 10_000  # documents of a domain, out of which its percentiles are estimated; exact where it has no more
ROOM = 10  # times the tokens of a proxy that the pool holds of a domain: what is taken may be a tenth of it
POINTS = 32  # at which a sampling function is looked at for its mean
BLOCK = 10_000  # vectors that are looked at at a time
NATURAL = "natural"
_SIDES = ("higher", "lower")
_NAMES = ("lambda", "omega", "eta", "epsilon")


@dataclass(frozen=True, kw_only=True)
class Quadmix(Searching):
    """Says how often each document is wanted, by its quality within its domain; small proxies find out how quality counts.

    by: the column whose values are the domains. quality: columns of scores (any numbers, dates or booleans), each with the
    better side: `{quality: higher, repeats: lower}`, or a list of columns of which the higher values are better. Scores are
    put on one scale: from each the median is taken off, and it is divided by the distance from the 5% to the 95% quantile.

    In each domain the scores are added with weights alpha, and documents are ranked by the sum: the best has the rank 0, and r
    is the share of the domain's tokens that is no worse. Up to omega a document is wanted (2 / (1 + exp(-lambda (omega -
    r))))^eta + epsilon times, beyond it epsilon times. A document without one of the scores ranks last in its domain, beside
    the others without. Ranks are estimated from 10,000 documents of each domain, and exact in one that has no more.

    runs: how many proxies are trained, each on parameters drawn at random for every domain; the first is on natural
    proportions. predictor: "lightgbm", "linear" or "stacked", of the metric. simulated: for how many parameters more, drawn in
    the same way, it is predicted; the mean of the best `top` of them is what is found, unless a proxy that was trained is
    predicted to be better, or natural proportions were. features: what it is predicted by: "parameters", all (scores + 4) times
    domains of them, for which the paper had 3,000 proxies; or "shares": what share of the tokens each domain comes to by them,
    and how much each score weighs on average in what is taken, so that a few dozen proxies say something.

    models: a size of proxies as in `climb`, or "ngram": an n-gram model is trained on what each proxy would read. target,
    texts, column, metric, tokens, base_tokens, window, vocabulary, lr, batch_tokens, target_tokens, device, dtype, into, names,
    confirm, weak and seed: see `climb`.

    Columns written: `into` (float32): how many times the document is wanted, before all are multiplied by one factor for a
    budget, which `mixture: {rate: sampling}` does; null for a document without a domain. Reasons: none. `mixture.json`: the
    shares of tokens that the domains come to, `rate`, and in `evidence` the parameters of each domain, the scale of each score,
    and `expected_tokens`, what all documents come to without that factor.

    Source: QuaDMix (Liu et al. 2025, arXiv:2504.16511): formulas, distribution of the parameters, predictor and sizes; what its
    scale of scores is it does not say: median and quantiles are own, and `features: shares`.

    >>> import pyarrow as pa
    >>> texts = [f"the cell {i} divides, then it has {i} nuclei" if i % 2 else f"buy phone {i} now" for i in range(800)]
    >>> docs = pa.table({"text": texts, "site": ["a"] * 800, "score": [i % 2 + i / 1000 for i in range(800)]})
    >>> target = ("the cell divides, then it has nuclei, and the cell divides",)
    >>> search = Quadmix(by="site", quality=("score",), texts=target, models="ngram", tokens=500, runs=24, simulated=1000,
    ...                  predictor="linear", weak="keep")
    >>> wanted = search(docs).kept["sampling"].to_pylist()
    >>> wanted[799] > 1 > wanted[0]
    True
    """

    code: ClassVar[str] = "quadmix"
    example: ClassVar[dict[str, Any]] = {
        "by": "corpus",
        "quality": {"score": "higher", "other_score": "lower"},
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
        "models": "ngram",
        "tokens": 2000,
        "runs": 6,
        "simulated": 100,
        "predictor": "linear",
        "weak": "keep",
        "confirm": False,
    }

    quality: Mapping[str, str] | tuple[str, ...]
    runs: int = 3000
    predictor: Literal["lightgbm", "linear", "stacked"] = "lightgbm"
    features: Literal["parameters", "shares"] = "parameters"
    simulated: int = 100_000
    top: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.quality or not all(self.quality) or len(self.directions) != len(self.quality):
            raise RecipeError(f"quadmix: quality is {self.quality!r}; name one or more columns of scores, each once")
        for name, side in self.directions.items():
            if side not in _SIDES:
                raise RecipeError(f"quadmix: quality.{name} is {side!r}; say whether 'higher' or 'lower' is better")
        if self.by in self.directions or self.into in self.directions:
            raise RecipeError("quadmix: `quality` names scores; `by` and `into` are other columns")
        if self.runs <= FEWEST or not 1 <= self.top <= self.simulated:
            raise RecipeError(
                f"quadmix: runs is {self.runs}, top {self.top}, simulated {self.simulated}; give more than {FEWEST} runs, "
                "and a top of 1 to simulated"
            )
        if self.features not in ("parameters", "shares"):
            raise RecipeError(f"quadmix: features is {self.features!r}; it is 'parameters' or 'shares'")
        if self.predictor not in PREDICTORS:
            raise RecipeError(f"quadmix: predictor is {self.predictor!r}; it is one of {', '.join(PREDICTORS)}")

    @property
    def directions(self) -> Mapping[str, str]:
        """Which side of each score is better."""
        return self.quality if isinstance(self.quality, Mapping) else dict.fromkeys(self.quality, "higher")

    @property
    def higher(self) -> list[bool]:
        """Whether a higher score is better, for each."""
        return [side == "higher" for side in self.directions.values()]

    # ------------------------------------------------------------------ the search

    def sizes(self) -> tuple[int, ...]:
        return (self.runs,)

    def trivial(self, space: Space) -> bool:
        return False  # in a single domain quality counts as well

    def need(self) -> int:
        return max(ROOM * self.tokens, self.base_tokens)

    def pool_columns(self) -> tuple[str, ...]:
        return tuple(self.directions)

    def propose(self, number: int, space: Space, runs: Sequence[Run]) -> list[Candidate]:
        scores, domains = len(self.directions), len(space.groups)
        vectors = drawn(_generator(self.seed, 1), self.runs - 1, scores, domains)
        found = [Candidate(everything(scores, domains), NATURAL, self.seed)]
        return found + [Candidate(vector, "drawn", self.seed) for vector in vectors]

    def conclude(self, space: Space, runs: Sequence[Run]) -> Found:
        runs = self.usable(runs)
        # natural proportions are far from all that is drawn, so they are compared and not learned from
        plain = [run for run in runs if run.candidate.origin == NATURAL]
        runs = [run for run in runs if run.candidate.origin != NATURAL]
        sign, scores, domains = self.sign(runs), len(self.directions), len(space.groups)
        known = np.array([run.candidate.values for run in runs])
        seen = partial(shares_of, natural=space.natural, scores=scores) if self.features == "shares" else np.asarray
        features = [
            replace(run, candidate=replace(run.candidate, values=row)) for run, row in zip(runs, seen(known), strict=True)
        ]
        fit = self.fitted(features, self.predictor)
        correlation, warnings = self.trusted(fit, runs)
        rng = _generator(self.seed, 2)
        best, held = np.empty((0, (scores + FREE) * domains)), np.empty(0)
        for start in range(0, self.simulated, BLOCK):
            new = drawn(rng, min(BLOCK, self.simulated - start), scores, domains)
            best, held = np.concatenate([best, new]), np.append(held, sign * fit.predict(seen(new)))
            keep = np.argsort(held, kind="stable")[: self.top]
            best, held = best[keep], held[keep]
        known = known[np.argsort(sign * fit.measured, kind="stable")]  # of equal predictions that one which did best
        choice = np.concatenate([best.mean(axis=0, keepdims=True), known])
        at = int(np.argmin(sign * fit.predict(seen(choice))))
        values, origin = choice[at], "a proxy that was trained" if at else f"the mean of {len(best)} of those simulated"
        predicted, uncertainty = float(fit.predict(seen(values[None]))[0]), fit.uncertainty(seen(values[None]))
        worse = bool(plain) and sign * float(self.table(plain).mean()) < sign * predicted
        if worse:
            values, origin = plain[0].candidate.values, NATURAL
            said = f"natural proportions did better than the best that is predicted, {predicted:.4g}, so they are what is found"
            warnings = [*warnings, said]
        return Found(
            values,
            predicted=None if worse else predicted,
            uncertainty=None if worse else uncertainty,
            correlation=correlation,
            more={
                "origin": origin,
                "predictor": {
                    "kind": fit.kind,
                    "features": self.features,
                    "residual": fit.residual,
                    "mean_absolute_error": float(np.abs(fit.out_of_fold - fit.measured).mean()),
                    "simulated": self.simulated,
                },
                **self.described(space, values),
            },
            warnings=tuple(warnings),
        )

    def selection(self, pool: Pool, values: np.ndarray) -> Selection:
        known = _Sample.read(self, pool.folder.parent).sampling(values, pool.groups)
        documents = pool.documents
        return pool.by_rates(known(documents["group"].to_numpy(), _scores(self, documents)), self.tokens)

    def expected(self, pool: Pool, values: np.ndarray) -> np.ndarray:
        """float64 per domain: how many tokens it comes to for each token of the corpus, before the factor of a budget."""
        sample = _Sample.read(self, pool.folder.parent)
        known = sample.sampling(values, pool.groups)
        means = []
        for number, name in enumerate(pool.groups):
            scores, tokens = sample.domains[name]
            wanted = known(np.full(len(tokens), number), scores)
            means.append(expected_tokens(wanted, tokens) / max(tokens.sum(), 1))
        return pool.natural * np.array(means)

    def group_shares(self, pool: Pool, values: np.ndarray) -> np.ndarray:
        found = self.expected(pool, values)
        if not found.sum():
            raise StageError("quadmix: no document is wanted, since all epsilon are 0 and no rank is below omega; draw more")
        return found / found.sum()

    def described(self, space: Space, values: np.ndarray) -> dict[str, Any]:
        held = Parameters.of(values, len(self.directions))
        rows = [held.steepness, held.omega, held.eta, held.epsilon]
        return {
            "parameters": {
                name: {
                    "alpha": dict(zip(self.directions, held.alpha[:, at].tolist(), strict=True)),
                    **{said: float(row[at]) for said, row in zip(_NAMES, rows, strict=True)},
                }
                for at, name in enumerate(space.groups)
            }
        }

    # ------------------------------------------------------------------ the stage

    def bound(self, columns: Collection[str]) -> Stage:
        if self.predictor != "linear":
            require(("lightgbm",), "cluster", "stage 'quadmix'")
        return super().bound(columns)

    def reads(self) -> tuple[str, ...]:
        return (self.by, *self.directions)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        narrow = tuple(dict.fromkeys((self.by, "tokens", "file", "record", "id", *self.directions)))
        pool, *rest, conclude = super().steps(n_shards, n_docs)
        if not self.config.trains:
            rest = [replace(step, fn=partial(_proxy, self)) if step.name == "proxies_1" else step for step in rest]
        sample = [Step("scores", partial(_gather, self), reads=narrow), Step("sample", partial(_merge, self))]
        return [pool, *sample, *rest, replace(conclude, fn=partial(_settle, self, conclude.fn))]

    def open(self, task: Task) -> BatchFn:
        super().open(task)  # for its notes
        folder = task.folder(self)
        held = read_json(folder / "found.json")
        if not task.shard:
            task.count(f"tokens that {self.into} comes to, each document taken as often as it says", held["expected_tokens"])
        known = _Sample.read(self, folder).sampling(np.array(held["values"]), held["groups"])
        return partial(self._wanted, task, {name: i for i, name in enumerate(held["groups"])}, known)

    def _wanted(self, task: Task, number: Mapping[str, int], known: Sampling, batch: pa.RecordBatch) -> pa.RecordBatch:
        at, names = groups_of(batch[self.by], f"quadmix: column {self.by!r}")
        domain = np.array([*(number.get(name, -1) for name in names), -1])[at]
        there = domain >= 0
        scores = _scores(self, batch)
        wanted = np.zeros(len(domain))
        wanted[there] = known(domain[there], scores[:, there])
        for name, missing in zip(self.directions, np.isnan(scores).sum(axis=1).tolist(), strict=True):
            if missing:
                task.count(f"documents without {name}, which rank last in their domain", missing)
        if without := int((at < 0).sum()):
            task.count("documents without a domain, which are in no mixture", without)
        return with_columns(batch, {self.into: pa.array(wanted, pa.float32(), mask=~there)})


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([stream, seed & (1 << 64) - 1]))


# --------------------------------------------------------------------------------------------- the sampling function


@dataclass(frozen=True, eq=False)
class Parameters:
    """What decides how often a document is taken.

    alpha: float64 (scores, domains), each column of sum 1. steepness (the paper's lambda), omega, eta, epsilon: float64
    (domains).
    """

    alpha: np.ndarray
    steepness: np.ndarray
    omega: np.ndarray
    eta: np.ndarray
    epsilon: np.ndarray

    @classmethod
    def of(cls, vector: np.ndarray, scores: int) -> Parameters:
        """Out of a vector of (scores + 4) * domains numbers: alpha by scores, then lambda, omega, eta and epsilon of all."""
        rows = np.asarray(vector, np.float64).reshape(scores + FREE, -1)
        return cls(rows[:scores], *rows[scores:])

    def vector(self) -> np.ndarray:
        """The numbers in one row (float64), as `of` takes them."""
        return np.concatenate([self.alpha.ravel(), self.steepness, self.omega, self.eta, self.epsilon])


def drawn(rng: np.random.Generator, count: int, scores: int, domains: int) -> np.ndarray:
    """float64 (count, (scores + 4) * domains): vectors of parameters as the paper draws them for its proxies.

    With u from U(0, 1), each its own: a weight a for each score, normalised, and b for each score and domain, of which alpha is
    the normalised product; lambda = 10^(3u), omega = 0.1 u, eta = u, epsilon = u / 1000.
    """
    u = rng.random((count, scores + (scores + FREE) * domains))
    a, b = u[:, :scores, None], u[:, scores : scores + scores * domains].reshape(count, scores, domains)
    a = a / a.sum(axis=1, keepdims=True)
    alpha = a * b
    alpha = alpha / alpha.sum(axis=1, keepdims=True)
    free = u[:, scores + scores * domains :].reshape(count, FREE, domains)
    free = np.stack([10.0 ** (3 * free[:, 0]), 0.1 * free[:, 1], free[:, 2], free[:, 3] / 1000], axis=1)
    return np.concatenate([alpha, free], axis=1).reshape(count, -1)


def everything(scores: int, domains: int) -> np.ndarray:
    """The vector by which every document is wanted once: omega is 1, eta and epsilon are 0, and the scores count alike."""
    rows = [np.full((scores, domains), 1 / scores), np.repeat([[1.0], [1.0], [0.0], [0.0]], domains, axis=1)]
    return np.concatenate(rows).ravel()


def scale_of(values: np.ndarray) -> tuple[float, float]:
    """(middle, spread) of raw scores: the median, and the distance from the 5% to the 95% quantile.

    A few scores far away change neither. Where nine tenths are equal the spread is that of all; where all are, it is 1.
    Infinite values and NaN are left out; (0, 1) without others.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95]).tolist()
    return middle, (high - low) or float(known.max() - known.min()) or 1.0


def scaled(values: np.ndarray, scale: tuple[float, float], higher: bool) -> np.ndarray:
    """Scores (float64) in units of their spread from the middle, at most 10 of them, turned so that smaller is better."""
    middle, spread = scale
    with np.errstate(over="ignore"):
        found = np.clip((values - middle) / spread, -CLIPPED, CLIPPED)
    return -found if higher else found


def merged(scores: np.ndarray, domain: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """q (float64 per document): the scaled scores (scores, documents) by the weights that their domain gives them.

    domain: int, index of a column of alpha. Where a score is NaN, q is infinite: what has not all scores comes last.
    """
    found = np.zeros(len(domain))
    for weights, values in zip(alpha, scores, strict=True):  # one after the other, so that no batch changes a last bit
        found += weights[domain] * values
    return np.where(np.isnan(found), np.inf, found)


def percentiles(q: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map from q to rank in one domain: (values of q, ascending; share of tokens with no larger one), both float64."""
    values, at = np.unique(q, return_inverse=True)
    so_far = np.cumsum(np.bincount(at, weights=tokens, minlength=len(values)))
    total = so_far[-1] if len(so_far) else 0
    return values, so_far / total if total else np.ones(len(values))


def ranked(q: np.ndarray, known: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """r (float64): the rank of each q in a domain, in [0, 1], by the map of `percentiles`; small is best.

    What is better than all that the map was made of has rank 0.
    """
    values, shares = known
    return np.append(0.0, shares)[np.searchsorted(values, q, side="right")]


def sampled(
    r: np.ndarray,
    steepness: np.ndarray | float,
    omega: np.ndarray | float,
    eta: np.ndarray | float,
    epsilon: np.ndarray | float,
) -> np.ndarray:
    """S (float64): how many times a document of rank r is wanted; it never rises with r.

    (2 / (1 + exp(-lambda (omega - r))))^eta + epsilon up to omega, epsilon beyond.
    """
    inside = r <= omega
    above = np.where(inside, omega - r, 0.0)
    return np.where(inside, (2 / (1 + np.exp(-steepness * above))) ** eta, 0.0) + epsilon


def shares_of(vectors: np.ndarray, natural: np.ndarray, scores: int) -> np.ndarray:
    """What vectors of parameters come to: float64 (n, domains + scores).

    The shares of tokens that domains come to, ranks being evenly spread over [0, 1] in each, and the weights of the scores as a
    mean over these tokens; rows in which nothing is wanted have natural shares.
    """
    rows = np.asarray(vectors, np.float64).reshape(len(vectors), scores + FREE, -1)
    alpha, (steepness, omega, eta, epsilon) = rows[:, :scores], np.moveaxis(rows[:, scores:], 1, 0)
    part = (np.arange(POINTS) + 0.5) / POINTS
    above = np.minimum(omega, 1.0)[..., None] * part  # omega - r, at ranks from 0 to omega
    above += np.maximum(omega - 1.0, 0.0)[..., None]
    mean = ((2 / (1 + np.exp(-steepness[..., None] * above))) ** eta[..., None]).mean(axis=-1)
    wanted = natural * (mean * np.minimum(omega, 1.0) + epsilon)
    total = wanted.sum(axis=1, keepdims=True)
    share = np.where(total > 0, wanted / np.where(total > 0, total, 1.0), natural)
    return np.concatenate([share, np.einsum("nd,nsd->ns", share, alpha)], axis=1)


def expected_tokens(sampling: np.ndarray, tokens: np.ndarray) -> float:
    """How many tokens come of documents with these sampling values, on average."""
    return float(np.dot(sampling, tokens))


def to_budget(sampling: np.ndarray, tokens: np.ndarray, budget: float) -> np.ndarray:
    """Sampling values times the one factor with which they give so many tokens on average; zeros where all are."""
    expected = expected_tokens(sampling, tokens)
    return sampling * (budget / expected) if expected > 0 else np.zeros_like(sampling)


def copies_of(sampling: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """int64: whole copies, and one more with the probability of the fraction. hashes: uint64, the random numbers."""
    whole = np.floor(sampling)
    chance = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (whole + (chance < sampling - whole)).astype(np.int64)


# --------------------------------------------------------------------------------------------- the sample

# (domain of documents, int; their raw scores, float64 (scores, documents)) -> S of each (float64)
Sampling = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class _Sample:
    """The scores of some documents of each domain.

    scales: of each score. higher: which side of it is better. domains: of each its raw scores (float64 (scores, documents)) and
    tokens (float64).
    """

    scales: list[tuple[float, float]]
    higher: list[bool]
    domains: dict[str, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def read(cls, stage: Quadmix, folder: Path) -> _Sample:
        table = read_table(folder / "sample.parquet")
        scores = np.stack([table[f"score_{i}"].to_numpy() for i in range(len(stage.directions))])
        tokens = table["tokens"].to_numpy().astype(np.float64)
        names, first = np.unique(table["group"].to_numpy(zero_copy_only=False), return_index=True)
        bounds = [*first.tolist(), len(table)]
        parts = {name: slice(bounds[i], bounds[i + 1]) for i, name in enumerate(names.tolist())}
        scales = [(one["middle"], one["spread"]) for one in read_json(folder / "scales.json").values()]
        return cls(scales, stage.higher, {name: (scores[:, part], tokens[part]) for name, part in parts.items()})

    def sampling(self, values: np.ndarray, groups: Sequence[str]) -> Sampling:
        """S by these parameters of these domains."""
        held = Parameters.of(values, len(self.scales))
        maps = []
        for number, name in enumerate(groups):
            scores, tokens = self.domains[name]
            q = merged(self._scaled(scores), np.full(len(tokens), number), held.alpha)
            maps.append(percentiles(q, tokens))
        return partial(self._sampled, held, maps)

    def _scaled(self, scores: np.ndarray) -> np.ndarray:
        each = zip(scores, self.scales, self.higher, strict=True)
        return np.stack([scaled(values, scale, higher) for values, scale, higher in each])

    def _sampled(
        self, held: Parameters, maps: Sequence[tuple[np.ndarray, np.ndarray]], domain: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        q = merged(self._scaled(scores), domain, held.alpha)
        r = np.zeros(len(q))
        for number in np.unique(domain).tolist():
            mine = domain == number
            r[mine] = ranked(q[mine], maps[number])
        return sampled(r, held.steepness[domain], held.omega[domain], held.eta[domain], held.epsilon[domain])


def _scores(stage: Quadmix, data: pa.RecordBatch | pa.Table) -> np.ndarray:
    """float64 (scores, rows): raw scores, NaN where there is none."""
    found = np.full((len(stage.directions), data.num_rows), np.nan)
    for i, name in enumerate(stage.directions):
        column = data[name].combine_chunks() if isinstance(data, pa.Table) else data[name]
        number = pc.cast(as_number(column, "quadmix"), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        found[i] = np.where(has_score(column), number, np.nan)
    return found


def _gather(stage: Quadmix, task: Task, batches: Batches) -> None:
    """Of each domain of a shard the documents of the lowest hashes, with their scores."""
    from curate.kernels.keys import order_hash

    held, size, total = [_empty(stage)], 0, 0
    for batch in batches:
        group, names = groups_of(batch[stage.by], f"quadmix: column {stage.by!r}")
        columns = {
            "group": pa.array(names, pa.string()).take(pa.array(group, pa.int32(), mask=group < 0)),
            "hash": pa.array(order_hash(stage.seed, batch["file"], batch["record"])),
            "tie": pa.array(hashes_of(batch["id"], stage.seed, "quadmix")),
            "tokens": pc.fill_null(batch["tokens"], 0).cast(pa.int64()),
            **{f"score_{i}": pa.array(values) for i, values in enumerate(_scores(stage, batch))},
        }
        held.append(pa.table(columns).filter(pa.array(group >= 0)))
        size, total = size + len(held[-1]), total + (pc.sum(held[-1]["tokens"]).as_py() or 0)
        if size > 1 << 18:
            held, size = [_lowest(held)], 0
    name = task.shards[task.shard or 0]
    write_table(task.folder(stage) / "scores" / name, _lowest(held), codec="lz4")
    write_json(task.folder(stage) / "totals" / f"{name}.json", total)


def _empty(stage: Quadmix) -> pa.Table:
    fields = [("group", pa.string()), ("hash", pa.uint64()), ("tie", pa.uint64()), ("tokens", pa.int64())]
    return pa.schema([*fields, *((f"score_{i}", pa.float64()) for i in range(len(stage.directions)))]).empty_table()


def _lowest(tables: Sequence[pa.Table]) -> pa.Table:
    """Of each domain `SAMPLE` documents, those of the lowest hashes; by domain and hash."""
    table = pa.concat_tables(tables).sort_by([("group", "ascending"), ("hash", "ascending"), ("tie", "ascending")])
    _, first, sizes = np.unique(table["group"].to_numpy(zero_copy_only=False), return_index=True, return_counts=True)
    place = np.arange(len(table)) - np.repeat(first, sizes)
    return table.filter(pa.array(place < SAMPLE))


def _merge(stage: Quadmix, task: Task) -> None:
    """The sample of the whole corpus, and the scales of its scores, in which each domain counts alike."""
    folder, held = task.folder(stage), _empty(stage)
    for name in task.shards:
        held = _lowest([held, read_table(folder / "scores" / name)])
    scales: dict[str, Any] = {}
    for i, name in enumerate(stage.directions):
        middle, spread = scale_of(held[f"score_{i}"].to_numpy())
        scales[name] = {"middle": middle, "spread": spread, "better": stage.directions[name]}
    write_json(folder / "scales.json", scales)
    write_table(folder / "sample.parquet", held)


# --------------------------------------------------------------------------------------------- n-gram models as proxies


def _proxy(stage: Quadmix, task: Task) -> None:
    """One proxy: the mixture of the domains' models, which other searches measure, would not know which documents are taken."""
    candidates = searching._candidates(stage, task, 1)
    if task.rank < len(candidates):
        found = _measured(stage, task, candidates[task.rank].values)
        write_json(searching._result(stage, task, 1, task.rank), found.to_json())


def _measured(stage: Quadmix, task: Task, values: np.ndarray) -> Measured:
    """What an n-gram model that is trained on the documents of these parameters loses on the targets."""
    from curate import proxies
    from curate.lm import ngram

    pool = proxies.Pool.open(proxies.pool_folder(stage, task))
    chosen = stage.selection(pool, values)
    sizes, group = pool.documents["tokens"].to_numpy(), pool.documents["group"].to_numpy()
    ends = np.cumsum(sizes)
    units = ngram.load(pool.folder / "units", "quadmix").units
    counts = ngram.Counts(units, ngram.ORDER)
    for number in range(len(pool.groups)):
        of = chosen.documents, chosen.lengths
        documents, lengths = (part[group[chosen.documents] == number] for part in of)
        if not len(documents):
            continue
        starts = ends[documents] - sizes[documents]
        first = ends[np.searchsorted(group, number)] - sizes[np.searchsorted(group, number)]
        bounds = np.append(0, np.cumsum(lengths))
        at = np.repeat(starts - first - bounds[:-1], lengths) + np.arange(bounds[-1])
        counts.add(pool.tokens(number)[at].astype(np.int32), ngram._runs(bounds, WINDOW))
    if not counts.tokens:
        raise StageError("quadmix: nothing is chosen to train a proxy on: raise its tokens")
    model = ngram.NGram(units, (counts.table(2),), (1.0,))
    targets = {}
    for number, target in enumerate(pool.about):
        folder = pool.folder / "targets" / f"{number:03d}" / "ngram"
        texts, choices = (proxies._Runs(folder / kind) for kind in ("texts", "choices"))
        found = proxies._losses(-math.fsum(proxies._scored(model, texts)), target["ngram"])
        if target["ngram"]["items"]:
            each = np.repeat(np.arange(len(choices.skip)), np.diff(choices.bounds) - choices.skip)
            found |= proxies._accuracies(np.bincount(each, proxies._scored(model, choices), len(choices.skip)), choices)
        targets[target["name"]] = found
    return proxies.Measured(targets, chosen.tokens, chosen.repeats)


def _settle(stage: Quadmix, conclude: Callable[[Task], None], task: Task) -> None:
    """What the search concludes, with what `process` needs of it."""
    from curate.proxies import Pool, pool_folder

    conclude(task)
    folder = task.folder(stage)
    made = Mixture.from_json(orjson.loads(read_table(folder / "state.parquet")["mixture"][0].as_py()), "quadmix")
    held = made.evidence["parameters"].values()
    alpha = np.array([[one["alpha"][name] for one in held] for name in stage.directions])
    values = Parameters(alpha, *(np.array([one[name] for one in held]) for name in _NAMES)).vector()
    pool = Pool.open(pool_folder(stage, task))
    total = sum(read_json(folder / "totals" / f"{name}.json") for name in task.shards)
    expected = round(total * float(stage.expected(pool, values).sum()))
    evidence = {**made.evidence, "scales": read_json(folder / "scales.json"), "expected_tokens": expected}
    found = {"groups": list(made.natural), "values": values.tolist(), "expected_tokens": expected}
    write_json(folder / "found.json", found)
    measured = made.measured
    if measured is not None and not stage.config.trains:
        last = _measured(stage, task, values)
        measured = {**measured, "metric": last.metric(made.metric["name"]), "targets": last.targets}
    made = dataclasses.replace(made, rate=stage.into, evidence=evidence, measured=measured)
    if task.root is not None:
        made.save(task.kept(stage) / FILE)
    write_state(task, stage, made)
