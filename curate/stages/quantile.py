"""The best or the worst of a corpus by a score: a share, or a budget of tokens, of all or of each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ranks
from curate.errors import RecipeError, StageError
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Step, Task, with_columns

OTHERS = "*"


@dataclass(frozen=True, kw_only=True)
class Quantile(GlobalStage):
    """Keeps the documents with the highest or lowest scores, cut exactly at a share or a budget.

    column: any number, date or boolean. keep: share in (0, 1] of the documents that have a score, or with `by_tokens` of their
    tokens. tokens: a budget instead of a share. Of the documents in order of their score, the longest run from the top that
    does not exceed the share or budget stays. order: "highest" or "lowest". Equal scores are ordered by a hash of (seed, file,
    record), then by place. nulls: "drop" or "keep" documents without a score (null or NaN); kept ones count towards nothing.

    per: a column, or several, of strings, integers, dates or booleans: the share or budget is that of each group of documents
    with the same values (null is a value), as if there were no others. So a share of 0.1 leaves nothing of a group of nine.
    With one column, `keep` or `tokens` may be a mapping from values to shares (of 0 to 1) or budgets, where "*" stands for all
    that it does not name; a group for which it has nothing is an error.

    Columns written: none. Reasons: `quantile.below`, with `_value` = the score (also with `order: lowest`: beyond the cut);
    `quantile.no_score`.

    The fit sorts the keys (64 bits of score, 64 of hash, place) of each shard and takes about a thousand evenly spaced ones
    with their ranks. All samples together bracket the cut; the few keys within the bracket are gathered and cut exactly. Memory
    follows the number of groups. See `curate.ranks`.

    Source: own; selection by regular sampling (Shi and Schaeffer 1992, doi:10.1016/0743-7315(92)90075-X).

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["a", "b", "c", "d"], "quality": [0.1, 0.9, None, 0.5]})
    >>> result = Quantile(column="quality", keep=0.7)(docs)
    >>> result.kept["text"].to_pylist(), result.dropped["_reason"].to_pylist()
    (['b', 'd'], ['quantile.below', 'quantile.no_score'])
    >>> docs = pa.table({"text": ["a", "b", "c", "d"], "quality": [0.1, 0.3, 0.7, 0.9], "language": ["de", "de", "en", "en"]})
    >>> Quantile(column="quality", keep=0.5, per="language")(docs).kept["text"].to_pylist()
    ['b', 'd']
    """

    example: ClassVar[dict[str, Any]] = {"column": "score", "keep": 0.5}

    column: str
    keep: float | Mapping[str, float] | None = None
    tokens: int | Mapping[str, int] | None = None
    by_tokens: bool = False
    per: str | tuple[str, ...] = ()
    order: Literal["highest", "lowest"] = "highest"
    nulls: Literal["drop", "keep"] = "drop"
    seed: int = 42

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.tokens is None):
            raise RecipeError("quantile: give either `keep`, a share, or `tokens`, a budget")
        if isinstance(self.keep, Mapping):
            for name, share in self.keep.items():
                if not 0 <= share <= 1:
                    raise RecipeError(f"quantile: keep.{name} is {share}; it is a share, 0 to 1")
        elif self.keep is not None and not 0 < self.keep <= 1:
            raise RecipeError(f"quantile: keep is {self.keep}; it is a share, above 0 and at most 1")
        for name, budget in self.tokens.items() if isinstance(self.tokens, Mapping) else [("", self.tokens or 0)]:
            if budget < 0:
                raise RecipeError(f"quantile: tokens{name and '.'}{name} is {budget}; a budget cannot be negative")
        if isinstance(self.keep, Mapping) or isinstance(self.tokens, Mapping):
            if len(self.groups) != 1:
                raise RecipeError("quantile: a share or budget for each group needs `per`, with one column")
            if not (self.keep or self.tokens):
                raise RecipeError("quantile: the mapping of shares or budgets is empty; '*' stands for all groups")
        if not all(self.groups) or len(set(self.groups)) != len(self.groups):
            raise RecipeError(f"quantile: per is {self.per!r}; give different names of columns")
        if self.order not in ("highest", "lowest") or self.nulls not in ("drop", "keep"):
            raise RecipeError("quantile: order is 'highest' or 'lowest', nulls is 'drop' or 'keep'")

    @property
    def weighted(self) -> bool:
        """Whether documents count by their tokens."""
        return self.by_tokens or self.tokens is not None

    @property
    def groups(self) -> tuple[str, ...]:
        """The columns that make groups."""
        return (self.per,) if isinstance(self.per, str) else tuple(self.per)

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.column, *self.groups, "file", "record")))

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.reads(), "tokens"))) if self.weighted else self.reads()

    def reasons(self) -> tuple[str, ...]:
        return "quantile.below", "quantile.no_score"

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        parts = ranks.parts_of(n_docs, bool(self.groups))
        keys = Step("keys", partial(_write_keys, self, parts), reads=self.fit_reads())
        return ranks.steps(self, keys, partial(_targets, self), n_shards, n_docs, parts)

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, ranks.keys_of(task.state(self)), task.shard or 0)

    def _process(self, cuts: np.ndarray, shard: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        scored = has_score(batch[self.column])
        above = np.ones(len(scored), bool)
        if len(cuts):  # the first key of each group that goes, where not all of it stays
            keys = self._keys(batch.filter(pa.array(scored)), shard)
            at = np.minimum(np.searchsorted(cuts["group"], keys["group"]), len(cuts) - 1)
            above[scored] = (cuts["group"][at] != keys["group"]) | ranks.before(keys, cuts[at])
        reason = pa.array(["quantile.below"] * len(scored), pa.string())
        if self.nulls == "drop":
            reason = pc.if_else(pa.array(scored), reason, "quantile.no_score")
        stays = above & scored if self.nulls == "drop" else above | ~scored
        value = pc.cast(as_number(batch[self.column]), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        columns = {
            REASON: pc.if_else(pa.array(stays), pa.scalar(None, pa.string()), reason),
            "_value": pa.array(value, mask=~scored | stays),
        }
        return with_columns(batch, columns)

    def _keys(self, batch: pa.RecordBatch, shard: int) -> np.ndarray:
        from curate.kernels.keys import order_hash

        bits = ordered_bits(batch[self.column])
        return ranks.pack(
            ranks.group_numbers(batch, self.groups, "quantile"),
            ~bits if self.order == "highest" else bits,
            order_hash(self.seed, batch["file"], batch["record"]),
            np.uint64(shard) << np.uint64(32) | batch[ROW].to_numpy().astype(np.uint64),
        )


# --------------------------------------------------------------------------------------------- keys


def as_number(values: pa.Array, stage: str = "quantile") -> pa.Array:
    """Dates, times and booleans as integers; numbers as they are. Raises StageError for other columns of a stage."""
    kind = values.type
    if pa.types.is_boolean(kind):
        return pc.cast(values, pa.uint8())
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pc.cast(values, pa.int32())
    if pa.types.is_temporal(kind):
        return pc.cast(values, pa.int64())
    if pa.types.is_decimal(kind):
        return pc.cast(values, pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return values
    raise StageError(f"{stage}: a column of type {kind} has no order; give a number")


def has_score(values: pa.Array) -> np.ndarray:
    """Which values are neither null nor NaN (bool)."""
    valid = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        valid = pc.and_(valid, pc.invert(pc.fill_null(pc.is_nan(values), True)))
    return valid.to_numpy(zero_copy_only=False)


def ordered_bits(values: pa.Array) -> np.ndarray:
    """uint64 in the same order as the values (none of them null or NaN); -0.0 is 0.0."""
    values = as_number(values)
    if pa.types.is_unsigned_integer(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.uint64)
    sign = np.uint64(1 << 63)
    if pa.types.is_signed_integer(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64) ^ sign
    bits = (values.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0).view(np.uint64)
    return np.where(bits & sign, ~bits, bits | sign)


# --------------------------------------------------------------------------------------------- the fit


def _write_keys(stage: Quantile, parts: int, task: Task, batches: Batches) -> None:
    """The keys of the documents of one shard that have a score."""
    keys, weights = [ranks.pack(0, [], [], [])], [np.empty(0, np.int64)]
    names: dict[int, tuple[str | None, ...]] = {}
    for batch in batches:
        batch = batch.filter(pa.array(has_score(batch[stage.column])))
        found = stage._keys(batch, task.shard or 0)
        weight = pc.fill_null(batch["tokens"], 0) if stage.weighted else np.ones(batch.num_rows)
        keys.append(found)
        weights.append(np.asarray(weight).astype(np.int64))
        ranks.add_names(names, batch, stage.groups, "quantile", found["group"])
    shard = task.shards[task.shard or 0]
    ranks.write_keys(task.folder(stage), shard, np.concatenate(keys), np.concatenate(weights), parts, names)


def _targets(
    stage: Quantile, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What may stay of each group."""
    wanted = stage.keep if stage.keep is not None else stage.tokens
    found = []
    for number, total in zip(groups.tolist(), totals.tolist(), strict=True):
        mine: Any = wanted
        if isinstance(wanted, Mapping):
            name = names[number][0]
            mine = wanted.get(OTHERS) if name is None else wanted.get(name, wanted.get(OTHERS))
            if mine is None:
                what = "keep" if stage.keep is not None else "tokens"
                raise StageError(
                    f"quantile: {what} has nothing for {stage.groups[0]} = {'null' if name is None else repr(name)}; "
                    f"add it, or {OTHERS!r} for all others"
                )
        found.append(min(mine, total) if stage.keep is None else int(Fraction(repr(mine)) * total))
    return np.arange(len(groups)), np.zeros(len(groups), np.int64), np.array(found, np.int64)
