"""Mixtures: how much of the tokens of training comes from each group of a corpus, and how good ones are found.

A *group* is a value of a column (a cluster, a domain, a language) as a string; a document without a value belongs to none. A
mixture gives each group its share of tokens, and a search leaves it in `mixture.json` with all that it was found by
(`Mixture`).

Searches have in common what candidates are drawn by (`Generator`), and what predicts a metric that was measured on some
mixtures for all others (`fit`), with how far that can be trusted (`rank_correlation`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, StageError, did_you_mean
from curate.storage import write_json

FORMAT = "curate-mixture/1"
FILE = "mixture.json"
OTHERS = "*"  # all groups together that a mapping does not name; see `curate.proportions`
UNIT = "tokens"

Predict = Callable[[np.ndarray], np.ndarray]
# (features, a metric with the mean 0, parts of the runs, seed) -> (what was learned from all, and without each part, and what
# is predicted of the runs that were not seen)
Learn = Callable[[np.ndarray, np.ndarray, Sequence[np.ndarray], int], tuple[Predict, list[Predict], np.ndarray]]


# --------------------------------------------------------------------------------------------- mixture.json


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Shares of groups, with what they were found by.

    weights: the share of the tokens that comes from each group; they sum to one. by: the column whose values are the groups.
    natural: the shares that the groups have in the corpus. names: of groups, where they have some. rate: a column with how
    many copies of each document are wanted, where groups alone do not decide it. metric: `name` ("loss" or "accuracy"),
    `lower_is_better`, `unit` and `targets`. predicted: the metric as a predictor has it. measured: the same as a proxy has it,
    where one was trained on these weights. uncertainty: of the prediction, in units of the metric. rank_correlation: of
    predictions with measurements that the predictor has not seen: `spearman`, the ends `low` and `high` of its 95% interval,
    and `runs`. evidence: `method`, `proxy`, `proxy_tokens`, and `runs`, of each proxy what it was trained on and what was
    measured. warnings: what people should know before they use it.

    Raises RecipeError for weights that are none; those that do not sum to one are scaled.
    """

    weights: Mapping[str, float]
    by: str = ""
    natural: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    rate: str | None = None
    metric: Mapping[str, Any] = field(default_factory=dict)
    predicted: float | None = None
    measured: Mapping[str, Any] | None = None
    uncertainty: float | None = None
    rank_correlation: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", shares(self.weights, "a mixture"))

    def to_json(self) -> dict[str, Any]:
        """What `mixture.json` holds, in its order."""
        found: dict[str, Any] = {"format": FORMAT, "by": self.by, "unit": UNIT}
        for one in dataclasses.fields(self):
            if one.name != "by":
                value = getattr(self, one.name)
                found[one.name] = dict(value) if isinstance(value, Mapping) else value
        found["warnings"] = list(self.warnings)
        return found

    @staticmethod
    def from_json(value: Any, what: str) -> Mixture:
        """A mixture out of what `to_json` gives, or out of `weights` alone. what: whose it is, for messages.

        Raises RecipeError, in one line, for what is none.
        """
        if not isinstance(value, Mapping) or "weights" not in value:
            raise RecipeError(f"{what} is no mixture: it needs `weights`, an object of groups and their shares of tokens")
        said = value.get("format", FORMAT)
        if said != FORMAT:
            raise RecipeError(f"{what}: its format is {said!r}; this version of Curate reads {FORMAT!r}")
        if value.get("unit", UNIT) != UNIT:
            raise RecipeError(f"{what}: its unit is {value['unit']!r}; shares are of {UNIT}")
        fields = {one.name: one for one in dataclasses.fields(Mixture)}
        for name in value:
            if name not in fields and name not in ("format", "unit"):
                raise RecipeError(f"{what}: a mixture has no {name!r}{did_you_mean(name, fields)}")
        for name, kinds in _KINDS.items():
            if not isinstance(value.get(name), (*kinds, type(None))) or isinstance(value.get(name), bool):
                raise RecipeError(f"{what}: {name} is {type(value[name]).__name__}; it is {_SAID[kinds[0]]}")
        given = {name: found for name, found in value.items() if name in fields and found is not None}
        given["weights"] = shares(value["weights"], what)
        given["warnings"] = tuple(value.get("warnings") or ())
        return Mixture(**given)

    def save(self, path: Path | str) -> None:
        """Write `mixture.json`, or another file, at once."""
        write_json(path, self.to_json())

    @staticmethod
    def load(path: Path | str, what: str) -> Mixture:
        """Read what `save` wrote, or a file by hand that holds `weights`. what: who needs it, for messages.

        Raises RecipeError, in one line, where there is no such file, or what it holds is no mixture.
        """
        path = Path(path)
        try:
            value = orjson.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RecipeError(
                f"{what}: there is no file {path}; name the mixture.json of a search, or one with weights"
            ) from None
        except IsADirectoryError:
            raise RecipeError(f"{what}: {path} is a folder; name the file, {path / FILE} for one") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise RecipeError(f"{what}: {path} cannot be read as JSON: {error}") from None
        return Mixture.from_json(value, f"{what}: {path}")


_KINDS: dict[str, tuple[type, ...]] = {
    "by": (str,),
    "natural": (Mapping,),  # type: ignore[type-abstract]
    "names": (Mapping,),  # type: ignore[type-abstract]
    "rate": (str,),
    "metric": (Mapping,),  # type: ignore[type-abstract]
    "predicted": (int, float),
    "measured": (Mapping,),  # type: ignore[type-abstract]
    "uncertainty": (int, float),
    "rank_correlation": (Mapping,),  # type: ignore[type-abstract]
    "evidence": (Mapping,),  # type: ignore[type-abstract]
    "warnings": (list, tuple),
}
_SAID = {str: "a string", Mapping: "an object", int: "a number", list: "a list of strings"}  # type: ignore[type-abstract]


def shares(weights: Any, what: str) -> dict[str, float]:
    """Weights by the names of their groups, scaled so that they sum to one. what: whose they are, for messages.

    Raises RecipeError for what is no mapping to numbers that are not negative and not all 0.
    """
    if not isinstance(weights, Mapping) or not weights:
        raise RecipeError(f"{what}: weights are groups and their shares, such as {{news: 0.3, books: 0.7}}")
    found = {}
    for name, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise RecipeError(f"{what}: the weight of {name!r} is {weight!r}; give a number that is not negative")
        found[group_name(name)] = float(weight)
    if len(found) != len(weights):
        raise RecipeError(f"{what}: two weights are of one group; give each group once")
    total = math.fsum(found.values())
    if not 0 < total < math.inf:
        raise RecipeError(f"{what}: the weights sum to {total:g}; at least one has to be above 0")
    return found if abs(total - 1) < 1e-12 else {name: weight / total for name, weight in found.items()}


def group_name(value: Any) -> str:
    """A group as a string, as it is called everywhere: `str` of the value, and `true` or `false` as in recipes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def ordered(groups: Iterable[str]) -> tuple[str, ...]:
    """Groups in their order, each once: integers by number, before all others by their names."""

    def key(name: str) -> tuple[bool, int, str]:
        digits = name.removeprefix("-")
        number = digits.isascii() and digits.isdigit()
        return not number, int(name) if number else 0, name

    return tuple(sorted(set(groups), key=key))


def groups_of(column: pa.Array, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(int32 per row: which of the groups, -1 for null; the groups of these rows, in the order in which they come up).

    column: of strings, integers or booleans, dictionaries of them too. what: "stage: column 'x'", for messages. Raises
    StageError for a column of another type.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    strings = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (strings or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise StageError(f"{what} is {kind}, which makes no groups; give a string, an integer or a boolean")
    if pa.types.is_null(kind):
        return np.full(len(column), -1, np.int32), ()
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column  # which may hold unused values
    coded = values.dictionary_encode()
    number = pc.fill_null(coded.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    return number, tuple(group_name(value) for value in coded.dictionary.to_pylist())


# --------------------------------------------------------------------------------------------- candidates

STRENGTHS = 15  # of the Dirichlet distributions that candidates are drawn from
ATTEMPTS = 100  # draws for each candidate that is wanted, at most
NEAR = 1e-5  # L1 distance up to which two candidates are one
_BLOCK = 1 << 20  # numbers drawn at once


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Draws mixtures at random, as CLIMB and RegMix do.

    The prior, to the power of `temperature` and scaled to sum to one, times one of 15 strengths, evenly spaced in logarithm
    from `strength_min` to `strength_max` and each as likely, is what a mixture is drawn from (Dirichlet). One in which a group
    would have more than `max_usage` times its natural share is drawn again; shares under `min_weight` become 0, and all are
    rounded to multiples of it (to one part in a whole number) so that they sum to one. No two are within an L1 distance of
    1e-5.

    Raises RecipeError for a parameter out of range.

    Source: RegMix (Liu et al. 2024, arXiv:2407.01492); CLIMB (Diao et al. 2025, arXiv:2504.13161).

    >>> Generator(seed=1).draw([0.5, 0.3, 0.2], 2).sum(axis=1).round(9).tolist()
    [1.0, 1.0]
    """

    strength_min: float = 0.1
    strength_max: float = 5.0
    temperature: float = 0.5
    max_usage: float = 15.0
    min_weight: float = 2e-4
    seed: int = 42

    def check(self, what: str) -> None:
        """Raises RecipeError, in the name of `what`, for a parameter out of range."""
        if not 0 < self.strength_min <= self.strength_max < math.inf:
            said = f"strength_min is {self.strength_min:g} and strength_max {self.strength_max:g}"
            raise RecipeError(f"{what}: {said}; both are above 0, and the first is not larger")
        if not 0 <= self.temperature <= 10:
            raise RecipeError(f"{what}: temperature is {self.temperature:g}; give 0 (all groups alike) to 10, 1 for the shares")
        if not 1 <= self.max_usage < math.inf:
            raise RecipeError(
                f"{what}: max_usage is {self.max_usage:g}; a group may have that many times its share, at least 1"
            )
        if not NEAR <= self.min_weight <= 0.1:
            raise RecipeError(f"{what}: min_weight is {self.min_weight:g}; shares are multiples of it, of {NEAR:g} to 0.1")

    @property
    def units(self) -> int:
        """Into how many parts the whole is divided."""
        return round(1 / self.min_weight)

    def bound(self, natural: np.ndarray) -> np.ndarray:
        """The largest share of each group (float64)."""
        return np.minimum(self.max_usage * np.asarray(natural, np.float64), 1.0)

    def of_prior(self) -> Generator:
        """The one whose mixtures come from Dirichlet(prior), as those do for which a metric is predicted."""
        return replace(self, strength_min=1.0, strength_max=1.0, temperature=1.0)

    def draw(
        self,
        natural: np.ndarray | Sequence[float],
        n: int,
        *,
        prior: np.ndarray | None = None,
        stream: int = 0,
        what: str = "mixtures",
        fewer: bool = False,
    ) -> np.ndarray:
        """n mixtures, float64 (n, groups).

        natural: the share of each group, which bounds what it may have, and is the prior where no other is given. A group with
        a share of 0 gets nothing. stream: draws of different streams have nothing in common. fewer: where too few are found
        in 100 attempts for each, return those; else raises StageError, in the name of `what`, with what would help.
        """
        natural = np.asarray(natural, np.float64)
        bound = self.bound(natural)
        prior = np.where(natural > 0, natural if prior is None else np.asarray(prior, np.float64), 0.0)
        there = np.flatnonzero(prior > 0)
        alpha = prior[there] ** self.temperature
        alpha = alpha / alpha.sum()
        strengths = np.logspace(math.log10(self.strength_min), math.log10(self.strength_max), STRENGTHS)
        rng = np.random.Generator(np.random.PCG64([stream, self.seed & (1 << 64) - 1]))
        found, parts, held = np.zeros((0, len(natural)), np.int32), [], 0
        block = max(min(2 * n + 64, _BLOCK // len(natural)), 1)
        left = ATTEMPTS * max(n, 1)
        while len(found) < n and left > 0:
            size = min(block, left)
            left -= size
            which = rng.integers(0, STRENGTHS, size)
            drawn = np.zeros((size, len(natural)))
            for number, strength in enumerate(strengths.tolist()):
                at = np.flatnonzero(which == number)
                if len(at):
                    drawn[np.ix_(at, there)] = rng.dirichlet(alpha * strength, len(at))
            parts.append(self._rounded(drawn, bound))
            held += len(parts[-1])
            if held >= n or left <= 0:
                found = _distinct(np.concatenate([found, *parts]))[:n]
                parts, held = [], len(found)
        if len(found) < n and not fewer:
            raise StageError(
                f"{what}: {ATTEMPTS * n:,} draws have only {len(found):,} of {n:,} mixtures in which no group has more than "
                f"max_usage = {self.max_usage:g} times its share: raise max_usage or strength_max"
            )
        return found / self.units

    def _rounded(self, drawn: np.ndarray, bound: np.ndarray) -> np.ndarray:
        """Those mixtures that keep within the bound, in units (int32)."""
        drawn = drawn[(drawn <= bound).all(axis=1)]
        drawn = np.where(drawn < self.min_weight, 0.0, drawn)
        total = drawn.sum(axis=1, keepdims=True)
        drawn = drawn[total[:, 0] > 0] / total[total[:, 0] > 0]
        units = in_units(drawn, self.units)
        return units[(units <= bound * self.units + 1e-6).all(axis=1)]  # shares have grown since


def in_units(weights: np.ndarray, units: int) -> np.ndarray:
    """Shares (float64, rows that sum to one) as whole numbers of units (int32) that sum to `units`: the largest remainders are
    rounded up."""
    exact = weights * units
    whole = np.floor(exact + 1e-9).astype(np.int32)
    missing = units - whole.sum(axis=1)
    order = np.argsort(whole - exact, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(weights.shape[1])[None, :], axis=1)
    return whole + (rank < missing[:, None])


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Rows of whole numbers, each where it comes first."""
    if not len(rows):
        return rows
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    return rows[np.sort(np.unique(keys, return_index=True)[1])]


def without(candidates: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which candidates are not within an L1 distance of 1e-5 of one that is known (bool)."""
    new = np.ones(len(candidates), bool)
    for one in known:
        new &= np.abs(candidates - one).sum(axis=1) > NEAR
    return new


def within(weights: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Shares none of which is above its bound: what they have too much goes to the others, in proportion to what these have.

    weights: float64, that sum to one. The bounds have to sum to at least one; where those of the groups with a share do not,
    the others get the rest in proportion to their bounds.
    """
    found = np.minimum(weights, bound)
    for _ in range(len(weights) + 1):
        missing = 1.0 - found.sum()
        free = (found < bound) & (weights > 0)
        if missing <= 1e-12 or not free.any():
            break
        grown = found + np.where(free, weights, 0.0) * missing / weights[free].sum()
        found = np.minimum(grown, bound)
    room = bound - found
    missing = 1.0 - found.sum()
    return found if missing <= 1e-12 or not room.sum() else found + room * min(missing / room.sum(), 1.0)


# --------------------------------------------------------------------------------------------- predictors

PREDICTORS = ("lightgbm", "linear", "stacked")
CLIP = 2.0  # robust standard deviations from the median, up to which a stacked predictor learns a measurement
FOLDS = 10
TREES = 1000
GOOD = 0.8  # a rank correlation under which people are warned
_RIDGE = np.logspace(-4, 3, 29)  # penalties, out of which the one with the least leave-one-out error is taken


@dataclass(frozen=True)
class Fit:
    """A metric as a function of mixtures (or of other numbers by which a proxy was made), learned from measurements.

    predict: float64 (n, features) -> float64 (n), the mean over targets. folds: the same, each with what was learned without
    one part of the measurements. out_of_fold: float64 per measurement, as predicted by the one that has not seen it. measured:
    float64, the mean over targets. learned: what of it was learned, which very bad mixtures may be clipped in. kind:
    "lightgbm", "linear" or "stacked".
    """

    predict: Predict
    folds: tuple[Predict, ...]
    out_of_fold: np.ndarray
    measured: np.ndarray
    learned: np.ndarray
    kind: str

    @property
    def residual(self) -> float:
        """How far predictions are from what was to be learned and not seen: root of the mean square."""
        return float(np.sqrt(np.mean((self.out_of_fold - self.learned) ** 2)))

    def uncertainty(self, features: np.ndarray) -> float:
        """Standard deviation of one prediction: how much the folds differ about it, and `residual`. features: (1, n)."""
        spread = np.std([fold(features)[0] for fold in self.folds]) if len(self.folds) > 1 else 0.0
        return float(math.hypot(spread, self.residual))

    def correlation(self) -> dict[str, Any]:
        """`rank_correlation` of what was predicted for measurements that were not seen."""
        return rank_correlation(self.out_of_fold, self.measured)


def fit(features: np.ndarray, measured: np.ndarray, kind: str = "lightgbm", seed: int = 42, folds: int = FOLDS) -> Fit:
    """Learn a metric from measurements.

    features: float64 (runs, n). measured: float64 (runs, targets), finite; each target is learned alone. folds: how many parts
    the runs are divided into at random; as many as there are runs, if these are fewer.

    "lightgbm": boosted trees with the parameters of CLIMB, but for two things. Metrics are scaled to a variance of one, since
    the penalties are made for percentages and would forbid any split on losses that differ by hundredths. How many trees there
    are is not seen from one tenth of the runs but from all, each predicted by trees that have not seen it. "linear": ridge
    regression, whose penalty has the least leave-one-out error. "stacked": a weighted mean of such trees and of ridge
    regression on square roots, with the weight that has the least error for runs that were not seen. Some tens of runs are too
    few for leaves of five, and the first part of a group teaches more than the last, which a root says; very bad mixtures,
    about whose differences nobody asks, would decide everything else, so measurements are clipped at 2 robust standard
    deviations from the median.

    Of what is predicted for a part that was not seen, the mean of the others is taken off and that of all is put there: else
    a predictor that has learned nothing would be correlated negatively with what was measured.

    Raises StageError for fewer than 4 runs.

    Source: CLIMB (Diao et al. 2025, arXiv:2504.13161); RegMix (Liu et al. 2024, arXiv:2407.01492); folds and stacking are own.
    """
    n = len(features)
    if n < 4:
        raise StageError(f"a predictor needs at least 4 runs, and there are {n}; give more in `rounds`")
    features = np.ascontiguousarray(features, np.float64)
    measured = np.asarray(measured, np.float64).reshape(n, -1)
    parts = np.array_split(np.random.Generator(np.random.PCG64(seed)).permutation(n), min(folds, n))
    learn = {"lightgbm": _trees, "linear": _ridge, "stacked": _stacked}[kind]
    learned = _clipped(measured) if kind == "stacked" else measured
    every = [_target(learn, features, learned[:, target], parts, seed) for target in range(measured.shape[1])]
    return Fit(
        predict=_Mean(tuple(predict for predict, _, _ in every)),
        folds=tuple(_Mean(tuple(found[part] for _, found, _ in every)) for part in range(len(parts))),
        out_of_fold=np.mean([unseen for _, _, unseen in every], axis=0),
        measured=measured.mean(axis=1),
        learned=learned.mean(axis=1),
        kind=kind,
    )


@dataclass(frozen=True)
class _Mean:
    """The mean of several predictions."""

    parts: tuple[Predict, ...]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.mean([part(features) for part in self.parts], axis=0)


@dataclass(frozen=True)
class _Scaled:
    """A prediction in the units of the metric."""

    inner: Predict
    mean: float
    scale: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return self.inner(np.ascontiguousarray(features, np.float64)) * self.scale + self.mean


def _target(
    learn: Learn, features: np.ndarray, measured: np.ndarray, parts: Sequence[np.ndarray], seed: int
) -> tuple[Predict, list[Predict], np.ndarray]:
    """(what was learned from all, and without each part, and what is predicted for those not seen) of one target."""
    mean, scale = float(measured.mean()), float(measured.std())
    if not scale > 1e-12 * max(abs(mean), 1e-300):  # all the same: nothing to learn
        flat = _Scaled(_nothing, mean, 0.0)
        return flat, [flat] * len(parts), np.full(len(measured), mean)
    whole, found, unseen = learn(features, (measured - mean) / scale, parts, seed)
    return _Scaled(whole, mean, scale), [_Scaled(one, mean, scale) for one in found], unseen * scale + mean


def _nothing(features: np.ndarray) -> np.ndarray:
    return np.zeros(len(features))


def _trees(
    features: np.ndarray, measured: np.ndarray, parts: Sequence[np.ndarray], seed: int
) -> tuple[Predict, list[Predict], np.ndarray]:
    boosters, curves, errors = [], [], []
    for part in parts:
        seen = np.setdiff1d(np.arange(len(measured)), part)
        boosters.append(_boosted(features[seen], measured[seen] - measured[seen].mean(), TREES, seed))
        curves.append(_staged(boosters[-1], features[part]))
        errors.append(((curves[-1] - measured[part, None]) ** 2).sum(axis=0))
    # the number of trees for one part is chosen by the others, so that what is said of it stays a prediction
    total = np.sum(errors, axis=0)
    unseen = np.empty(len(measured))
    for part, curve, error in zip(parts, curves, errors, strict=True):
        unseen[part] = curve[:, int(np.argmin(total - error))]
    best = int(np.argmin(total))
    if not best:
        return _nothing, [_nothing] * len(parts), unseen
    return _Trees(_boosted(features, measured, best, seed), best), [_Trees(one, best) for one in boosters], unseen


def _boosted(features: np.ndarray, measured: np.ndarray, trees: int, seed: int) -> Any:
    """Trees that are fitted to a metric with the mean 0."""
    import lightgbm

    chosen = {
        "objective": "regression",
        "learning_rate": 0.01,
        "max_depth": 4,
        "lambda_l1": 1.0,
        "lambda_l2": 1.0,
        "min_data_in_leaf": 5,
        "boost_from_average": False,
        "seed": seed & 0x7FFFFFFF,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
    return lightgbm.train(chosen, lightgbm.Dataset(features, measured), trees)


def _staged(booster: Any, features: np.ndarray) -> np.ndarray:
    """What none, the first, the first two ... of the trees predict: float64 (n, TREES + 1)."""
    found = np.zeros((len(features), TREES + 1))
    for tree in range(booster.num_trees()):  # fewer than TREES where there was nothing left to split
        found[:, tree + 1] = booster.predict(features, start_iteration=tree, num_iteration=1, num_threads=1)
    return np.cumsum(found, axis=1)


@dataclass(frozen=True)
class _Trees:
    booster: Any
    trees: int

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return self.booster.predict(features, num_iteration=self.trees, num_threads=1)


def _ridge(
    features: np.ndarray, measured: np.ndarray, parts: Sequence[np.ndarray], seed: int
) -> tuple[Predict, list[Predict], np.ndarray]:
    found: list[Predict] = []
    unseen = np.empty(len(measured))
    for part in parts:
        seen = np.setdiff1d(np.arange(len(measured)), part)
        found.append(_line(features[seen], measured[seen] - measured[seen].mean()))
        unseen[part] = found[-1](features[part])
    return _line(features, measured), found, unseen


def _stacked(
    features: np.ndarray, measured: np.ndarray, parts: Sequence[np.ndarray], seed: int
) -> tuple[Predict, list[Predict], np.ndarray]:
    trees, trees_of, by_trees = _trees(features, measured, parts, seed)
    roots, roots_of, by_roots = _ridge(_root(features), measured, parts, seed)
    apart = by_trees - by_roots
    along, size = (measured - by_roots) * apart, apart * apart

    def share(part: np.ndarray | tuple[()] = ()) -> float:
        """Of the trees: the one with the least error for all runs but those of a part, which it is to predict."""
        of, by = (np.delete(values, part).sum() for values in (along, size))
        return float(np.clip(of / by, 0, 1)) if by > 0 else 0.0

    unseen = np.empty(len(measured))
    for part in parts:
        unseen[part] = by_roots[part] + share(part) * apart[part]
    whole = share()
    return _Stacked(trees, roots, whole), [_Stacked(*both, whole) for both in zip(trees_of, roots_of, strict=True)], unseen


def _clipped(measured: np.ndarray) -> np.ndarray:
    """Each target within CLIP robust standard deviations of its median."""
    middle = np.median(measured, axis=0)
    spread = CLIP * 1.4826 * np.median(np.abs(measured - middle), axis=0)
    return np.where(spread > 0, np.clip(measured, middle - spread, middle + spread), measured)


def _root(features: np.ndarray) -> np.ndarray:
    return np.copysign(np.sqrt(np.abs(features)), features)


@dataclass(frozen=True)
class _Stacked:
    trees: Predict
    roots: Predict
    share: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return self.share * self.trees(features) + (1 - self.share) * self.roots(_root(features))


def _line(features: np.ndarray, measured: np.ndarray) -> Predict:
    """Ridge regression of a metric with the mean 0; the penalty by leave-one-out, which is known in closed form."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    u, s, v = np.linalg.svd((features - mean) / scale, full_matrices=False)
    along = u.T @ measured
    best, weights = np.inf, np.zeros(features.shape[1])
    for penalty in _RIDGE:
        kept = s**2 / (s**2 + penalty)
        leverage = (u**2 * kept).sum(axis=1) + 1 / len(measured)
        error = float((((measured - u @ (kept * along)) / np.maximum(1 - leverage, 1e-9)) ** 2).sum())
        if error < best:
            best, weights = error, v.T @ (s / (s**2 + penalty) * along)
    return _Line(weights / scale, mean)


@dataclass(frozen=True)
class _Line:
    slope: np.ndarray
    mean: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) @ self.slope


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """Spearman's rank correlation with a 95% interval: `spearman`, `low`, `high` and `runs`.

    Equal values share their mean rank; where all of one side are equal, the correlation is 0. The interval is that of Fisher's
    z with the standard error of Bonett and Wright; with 3 runs or fewer it is from -1 to 1.

    Source: Bonett and Wright 2000, doi:10.1007/BF02294183.
    """
    n = len(measured)
    found = _correlation(_ranks(np.asarray(predicted, np.float64)), _ranks(np.asarray(measured, np.float64)))
    low, high = -1.0, 1.0
    if n > 3:
        z = math.atanh(max(min(found, 1 - 1e-12), -1 + 1e-12))
        half = 1.959963984540054 * math.sqrt((1 + found**2 / 2) / (n - 3))
        low, high = math.tanh(z - half), math.tanh(z + half)
    return {"spearman": found, "low": low, "high": high, "runs": n}


def _ranks(values: np.ndarray) -> np.ndarray:
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[at]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean() if len(a) else a, b - b.mean() if len(b) else b
    length = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / length if length > 0 else 0.0
