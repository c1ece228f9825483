"""Whether a model has seen a text: scores out of the probabilities that it gives the tokens, and how good such scores are.

All scores have one sign: **the higher, the less likely it is that the model was trained on the text**. They are functions of
what a model says about the tokens of each text (`curate.lm.TokenLosses`); the stage `membership` writes them as columns.
`evaluate` says how well columns tell members from others where it is known which is which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, did_you_mean
from curate.lm import TokenLosses

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
CLIP = 0.01
PREFIX = "membership_"
_SMALLEST = 1e-12  # a variance that is nothing but rounding: all probability is on one token


# --------------------------------------------------------------------------------------------- scores


def _texts(found: TokenLosses) -> Iterator[slice]:
    for first, last in zip(found.bounds[:-1].tolist(), found.bounds[1:].tolist(), strict=True):
        yield slice(first, last)


def _lowest(values: np.ndarray, ratios: Sequence[float]) -> np.ndarray:
    """The mean of the lowest `ratio` of the values, at least one of them, for each ratio: float64."""
    if not len(values):
        return np.full(len(ratios), np.nan)
    sums = np.cumsum(np.sort(values).astype(np.float64))
    many = [max(1, int(Fraction(repr(float(ratio))) * len(values))) for ratio in ratios]
    return np.array([sums[k - 1] / k for k in many])


def perplexity(found: TokenLosses) -> np.ndarray:
    """The perplexity of each text (float64): exp of the mean of -ln p; NaN for one without tokens."""
    with np.errstate(over="ignore"):
        return np.exp(log_perplexity(found))


def log_perplexity(found: TokenLosses) -> np.ndarray:
    """The mean of -ln p over the tokens of each text (float64); NaN for one without tokens."""
    means = [-found.logprobs[at].astype(np.float64).mean() if at.stop > at.start else np.nan for at in _texts(found)]
    return np.array(means, np.float64)


def min_k(found: TokenLosses, ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Min-K% Prob of each text (float64, texts x ratios): minus the mean of its lowest ln p. NaN without tokens.

    ratios: how large a part of the predicted tokens counts, rounded down to whole tokens, but at least one.
    Source: Shi et al. 2024, arXiv:2310.16789; ratios as in swj0419/detect-pretrain-code.
    """
    return -np.array([_lowest(found.logprobs[at], ratios) for at in _texts(found)]).reshape(-1, len(ratios))


def min_k_plus_plus(found: TokenLosses, ratios: Sequence[float] = (0.2,)) -> np.ndarray:
    """Min-K%++ of each text (float64, texts x ratios): the same of (ln p - mean) / standard deviation, both over all tokens
    that could stand there, under the model's own distribution. NaN without tokens.

    Raises RecipeError for a model that cannot say these.
    Source: Zhang et al. 2025, arXiv:2404.02936; the lowest fifth as in zhang-wei-chao/DC-PDD.
    """
    if found.mean is None or found.variance is None:
        raise RecipeError("min_k_plus_plus: this model says nothing about the tokens that do not stand in the text")
    spread = np.sqrt(np.maximum(found.variance.astype(np.float64), _SMALLEST))
    place = (found.logprobs.astype(np.float64) - found.mean) / spread
    return -np.array([_lowest(place[at], ratios) for at in _texts(found)]).reshape(-1, len(ratios))


def frequencies(counts: np.ndarray) -> np.ndarray:
    """The shares of tokens in a reference corpus, smoothed so that none is 0: (count + 1) / (all + vocabulary), float64.

    counts: int64 (vocabulary).
    """
    return (counts + 1) / (int(counts.sum()) + len(counts))


def dc_pdd(found: TokenLosses, frequency: np.ndarray, clip: float = CLIP) -> np.ndarray:
    """DC-PDD of each text (float64): minus the mean of min(p ln(1 / f), clip) over the first occurrences of its tokens.

    frequency: float64 (vocabulary), f of each token, as `frequencies` gives them. NaN without tokens.
    Source: Zhang et al. 2024, arXiv:2409.14781 (zhang-wei-chao/DC-PDD).
    """
    evidence = np.exp(found.logprobs.astype(np.float64)) * -np.log(frequency[found.ids])
    clipped = np.minimum(evidence, clip)
    scores = [-clipped[at][np.unique(found.ids[at], return_index=True)[1]].mean() if at.stop > at.start else np.nan
              for at in _texts(found)]  # fmt: skip
    return np.array(scores, np.float64)


# --------------------------------------------------------------------------------------------- how good they are


@dataclass(frozen=True)
class Separation:
    """How well a score tells members from others.

    auc: how often a member scores below another text (ties half): 1 tells them apart, 0.5 says nothing. tpr: the largest share
    of members that a threshold finds while it takes at most `fpr` of the others for members; threshold: texts that score no
    more than that, NaN if there is none. auc_low to tpr_high: bounds of an interval with this `level`. members, others: how
    many had a score; without: how many had none and count for nothing here.
    """

    score: str
    auc: float
    auc_low: float
    auc_high: float
    tpr: float
    tpr_low: float
    tpr_high: float
    threshold: float
    fpr: float
    level: float
    members: int
    others: int
    without: int

    def __str__(self) -> str:
        without = f", {self.without:,} without a score" if self.without else ""
        return (
            f"{self.score}: AUC {self.auc:.3f} ({self.auc_low:.3f} to {self.auc_high:.3f}), TPR {self.tpr:.3f} "
            f"({self.tpr_low:.3f} to {self.tpr_high:.3f}) at {self.fpr:.0%} FPR; {self.members:,} members, "
            f"{self.others:,} others{without}"
        )


def evaluate(
    data: Any,
    member: str = "member",
    scores: Sequence[str] | None = None,
    *,
    fpr: float = 0.05,
    bootstraps: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> list[Separation]:
    """How well scores tell members from others, where it is known which is which.

    data: a table or frame, such as the output of the stage `membership`. member: its column of labels, true (or 1) for what the
    model was trained on; documents where it is null are left out. scores: columns, the lower the more likely a member; by
    default those of numbers whose names begin with `membership_`, but for `membership_tokens`. bootstraps: samples with
    replacement, of members and of others for themselves, from which the intervals are taken. seed: of these.

    Raises RecipeError where a column is missing, is no such thing, or has only members or only others.

    Source: AUC and TPR at 5% FPR as in Shi et al. 2024 (arXiv:2310.16789); percentile bootstrap (Efron 1979).

    >>> import pyarrow as pa
    >>> docs = pa.table({"member": [True, True, True, False, False, None], "membership_min_k_20": [1.0, 2, 4, 3, 5, 0]})
    >>> [found] = evaluate(docs, fpr=0.5)
    >>> round(found.auc, 3), round(found.tpr, 3), found.threshold
    (0.833, 1.0, 4.0)
    """
    from curate.memory import as_table

    table = as_table(data)
    label = _column(table, member)
    if not pa.types.is_boolean(label.type):
        known = pc.unique(label).drop_null().to_pylist()
        if any(value not in (0, 1) for value in known):
            raise RecipeError(f"audit: column {member!r} holds {str(known[:3])[1:-1]}; a label is true or false, or 1 or 0")
        label = pc.cast(label, pa.bool_())
    if scores is None:
        scores = [
            f.name
            for f in table.schema
            if f.name.startswith(PREFIX) and f.name != f"{PREFIX}tokens" and pa.types.is_floating(f.type)
        ]
        if not scores:
            raise RecipeError(f"audit: there is no column {PREFIX}…; run the stage `membership`, or name `scores`")
    labelled = label.is_valid()
    truth = np.asarray(label.filter(labelled))
    found = []
    for name in scores:
        column = _column(table, name)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise RecipeError(f"audit: column {name!r} is {column.type}, which is no score")
        values = np.asarray(pc.cast(column.filter(labelled), pa.float64(), safe=False).fill_null(np.nan))
        found.append(separation(truth, values, name, fpr=fpr, bootstraps=bootstraps, level=level, seed=seed))
    return found


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise RecipeError(f"audit: there is no column {name!r}{did_you_mean(name, table.column_names)}")
    return table[name].combine_chunks()


def separation(
    members: np.ndarray,
    scores: np.ndarray,
    name: str = "score",
    *,
    fpr: float = 0.05,
    bootstraps: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> Separation:
    """The same of one score. members: bool [n]. scores: float [n], the lower the more likely a member; NaN for none."""
    if not 0 <= fpr <= 1 or not 0 < level < 1 or bootstraps < 0:
        raise RecipeError("audit: fpr is 0 to 1, level is between them, and bootstraps is not negative")
    members = np.asarray(members, bool)
    known = ~np.isnan(scores)
    levels, at = np.unique(scores[known], return_inverse=True)  # in order
    mine = members[known]
    inside, outside = at[mine], at[~mine]
    if not len(inside) or not len(outside):
        raise RecipeError(
            f"audit: {name} has {len(inside):,} members and {len(outside):,} others with a score; it takes both to compare them"
        )
    share = Fraction(repr(float(fpr)))
    auc, tpr, threshold = _separated(inside, outside, levels, share)
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            _separated(rng.choice(inside, len(inside)), rng.choice(outside, len(outside)), levels, share)[:2]
            for _ in range(bootstraps)
        ]
    ).reshape(-1, 2)
    edges = [(1 - level) / 2, (1 + level) / 2]
    bounds = np.quantile(drawn, edges, axis=0) if bootstraps else np.full((2, 2), np.nan)
    return Separation(
        score=name,
        auc=auc,
        auc_low=float(bounds[0, 0]),
        auc_high=float(bounds[1, 0]),
        tpr=tpr,
        tpr_low=float(bounds[0, 1]),
        tpr_high=float(bounds[1, 1]),
        threshold=threshold,
        fpr=fpr,
        level=level,
        members=len(inside),
        others=len(outside),
        without=int((~known).sum()),
    )


def _separated(inside: np.ndarray, outside: np.ndarray, levels: np.ndarray, fpr: Fraction) -> tuple[float, float, float]:
    """(AUC, TPR, threshold) of members and others, given as indices of levels of the score."""
    up, down = (np.bincount(found, minlength=len(levels)) for found in (inside, outside))
    hits, alarms = np.cumsum(up), np.cumsum(down)
    after = len(outside) - alarms
    auc = float((up * (after + 0.5 * down)).sum()) / (len(inside) * len(outside))
    allowed = int(np.searchsorted(alarms, int(fpr * len(outside)), side="right"))  # levels up to which alarms are few enough
    if not allowed:
        return auc, 0.0, float("nan")
    return auc, float(hits[allowed - 1]) / len(inside), float(levels[allowed - 1])
