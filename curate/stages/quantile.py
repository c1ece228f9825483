"""The best or the worst of a corpus by a score: a share, or a budget of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, StageError
from curate.fit import SHARDS_PER_GROUP, shard_groups
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Step, Task, with_columns
from curate.storage import read_json, read_table, write_json, write_table

SAMPLES = 512  # of a shard, by rank and again by weight


@dataclass(frozen=True, kw_only=True)
class Quantile(GlobalStage):
    """Keeps the documents with the highest or lowest scores, cut exactly at a share or a budget.

    column: any number, date or boolean. keep: share in (0, 1] of the documents that have a score, or with `by_tokens` of their
    tokens. tokens: a budget instead of a share. Of the documents in order of their score, the longest run from the top that
    does not exceed the share or budget stays. order: "highest" or "lowest". Equal scores are ordered by a hash of (seed, file,
    record), then by place. nulls: "drop" or "keep" documents without a score (null or NaN); kept ones count towards nothing.

    Columns written: none. Reasons: `quantile.below`, with `_value` = the score (also with `order: lowest`: beyond the cut);
    `quantile.no_score`.

    The fit sorts the keys (64 bits of score, 64 of hash, place) of each shard and takes about a thousand evenly spaced ones
    with their ranks. All samples together bracket the cut; the few keys within the bracket are gathered and cut exactly. Two
    passes over narrow keys and one over their samples, whatever the distribution: radix histograms may need more passes, and
    cannot split a score that half of the corpus shares.

    Source: own; selection by regular sampling (Shi and Schaeffer 1992, doi:10.1016/0743-7315(92)90075-X).

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["a", "b", "c", "d"], "quality": [0.1, 0.9, None, 0.5]})
    >>> result = Quantile(column="quality", keep=0.7)(docs)
    >>> result.kept["text"].to_pylist(), result.dropped["_reason"].to_pylist()
    (['b', 'd'], ['quantile.below', 'quantile.no_score'])
    """

    example: ClassVar[dict[str, Any]] = {"column": "score", "keep": 0.5}

    column: str
    keep: float | None = None
    tokens: int | None = None
    by_tokens: bool = False
    order: Literal["highest", "lowest"] = "highest"
    nulls: Literal["drop", "keep"] = "drop"
    seed: int = 42

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.tokens is None):
            raise RecipeError("quantile: give either `keep`, a share, or `tokens`, a budget")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise RecipeError(f"quantile: keep is {self.keep}; it is a share, above 0 and at most 1")
        if self.tokens is not None and self.tokens < 0:
            raise RecipeError(f"quantile: tokens is {self.tokens}; a budget cannot be negative")
        if self.order not in ("highest", "lowest") or self.nulls not in ("drop", "keep"):
            raise RecipeError("quantile: order is 'highest' or 'lowest', nulls is 'drop' or 'keep'")

    @property
    def weighted(self) -> bool:
        """Whether documents count by their tokens."""
        return self.by_tokens or self.tokens is not None

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.column, "file", "record")))

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.reads(), "tokens"))) if self.weighted else self.reads()

    def reasons(self) -> tuple[str, ...]:
        return "quantile.below", "quantile.no_score"

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [
            Step("keys", partial(_write_keys, self), reads=self.fit_reads()),
            Step("bracket", partial(_bracket, self)),
            Step("gather", partial(_gather, self), tasks=shard_groups(n_shards)),
            Step("cut", partial(_cut, self)),
        ]

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, task.state(self), task.shard or 0)

    def _process(self, cut: pa.Table, shard: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        scored = has_score(batch[self.column])
        above = np.ones(len(scored), bool)
        if cut.num_rows:  # the first key that goes; none if all stay
            first = _keys_of(cut.slice(0, 1))
            above = np.zeros(len(scored), bool)
            above[scored] = _before(self._keys(batch.filter(pa.array(scored)), shard), first, 0)
        reason = pa.array(["quantile.below"] * len(scored), pa.string())
        if self.nulls == "drop":
            reason = pc.if_else(pa.array(scored), reason, "quantile.no_score")
        stays = above & scored if self.nulls == "drop" else above | ~scored
        value = pc.cast(_number(batch[self.column]), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        columns = {
            REASON: pc.if_else(pa.array(stays), pa.scalar(None, pa.string()), reason),
            "_value": pa.array(value, mask=~scored | stays),
        }
        return with_columns(batch, columns)

    def _keys(self, batch: pa.RecordBatch, shard: int) -> np.ndarray:
        from curate.kernels.keys import order_hash

        bits = ordered_bits(batch[self.column])
        return _pack(
            ~bits if self.order == "highest" else bits,
            order_hash(self.seed, batch["file"], batch["record"]),
            np.uint64(shard) << np.uint64(32) | batch[ROW].to_numpy().astype(np.uint64),
        )


# --------------------------------------------------------------------------------------------- keys

KEY = ("bits", "hash", "address")  # ascending: the best document first; no two are equal


def _number(values: pa.Array) -> pa.Array:
    """Dates, times and booleans as integers; numbers as they are."""
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
    raise StageError(f"quantile: a column of type {kind} has no order; give a number")


def has_score(values: pa.Array) -> np.ndarray:
    """Which values are neither null nor NaN (bool)."""
    valid = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        valid = pc.and_(valid, pc.invert(pc.fill_null(pc.is_nan(values), True)))
    return valid.to_numpy(zero_copy_only=False)


def ordered_bits(values: pa.Array) -> np.ndarray:
    """uint64 in the same order as the values (none of them null or NaN); -0.0 is 0.0."""
    values = _number(values)
    if pa.types.is_unsigned_integer(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.uint64)
    sign = np.uint64(1 << 63)
    if pa.types.is_signed_integer(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64) ^ sign
    bits = (values.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0).view(np.uint64)
    return np.where(bits & sign, ~bits, bits | sign)


def _pack(*columns: np.ndarray | list[int]) -> np.ndarray:
    keys = np.empty(len(columns[0]), [(c, np.uint64) for c in KEY])
    for name, values in zip(KEY, columns, strict=True):
        keys[name] = values
    return keys


def _keys_of(table: pa.Table) -> np.ndarray:
    return _pack(*(table[c].to_numpy() for c in KEY))


def _sorted(keys: np.ndarray) -> np.ndarray:
    """The order of the keys, as indices."""
    return np.lexsort([keys[c] for c in reversed(KEY)])


def _before(keys: np.ndarray, others: np.ndarray, i: int) -> np.ndarray:
    """Which keys come before the i-th of the others."""
    bits, hashes, address = (keys[c] for c in KEY)
    b, h, a = (others[c][i] for c in KEY)
    return (bits < b) | ((bits == b) & ((hashes < h) | ((hashes == h) & (address < a))))


def _table(keys: np.ndarray, **more: np.ndarray) -> pa.Table:
    return pa.table({**{c: pa.array(keys[c]) for c in KEY}, **{c: pa.array(v) for c, v in more.items()}})


# --------------------------------------------------------------------------------------------- the steps of the fit


def _write_keys(stage: Quantile, task: Task, batches: Batches) -> None:
    """The keys of one shard in order, and a sample of them with the weight that comes before each."""
    keys, weights = [], []
    for batch in batches:
        batch = batch.filter(pa.array(has_score(batch[stage.column])))
        keys.append(stage._keys(batch, task.shard or 0))
        weight = pc.fill_null(batch["tokens"], 0) if stage.weighted else np.ones(batch.num_rows)
        weights.append(np.asarray(weight).astype(np.uint64))
    table = _table(np.concatenate(keys) if keys else _pack([], [], []))
    weight = np.concatenate(weights) if weights else np.empty(0, np.uint64)
    order = _sorted(_keys_of(table))
    table = table.take(pa.array(order)).append_column("weight", pa.array(weight[order]))
    cumulative = np.append(np.uint64(0), np.cumsum(weight[order], dtype=np.uint64))
    n, total = len(order), int(cumulative[-1])
    even = np.linspace(0, max(n - 1, 0), SAMPLES).astype(np.int64)
    heavy = np.searchsorted(cumulative[1:], np.linspace(0, total, SAMPLES).astype(np.uint64))
    at = np.unique(np.concatenate([even, heavy]))
    at = at[at < n]
    name = task.shards[task.shard or 0]
    folder = task.folder(stage)
    write_table(folder / "keys" / name, table, codec="lz4")
    after = cumulative[np.append(at[1:], n)] if len(at) else cumulative[:0]  # before the next sample
    sample = table.select(KEY).take(pa.array(at)).append_column("before", pa.array(cumulative[at]))
    write_table(folder / "sample" / name, sample.append_column("after", pa.array(after)), codec="lz4")
    write_json(folder / "total" / f"{name}.json", total)


_SAMPLE = pa.table({name: pa.array([], pa.uint64()) for name in (*KEY, "before", "after")})
_WEIGHTED = pa.table({name: pa.array([], pa.uint64()) for name in (*KEY, "weight")})  # a corpus may have no shard at all


def _bracket(stage: Quantile, task: Task) -> None:
    """Two keys: all before the first stay, none from the second on does.

    What comes before a key in a shard is at least what comes before its nearest sample at or before the key, and at most
    what comes before the next sample. Summed over shards, that bounds the rank of every sample in the corpus.
    """
    folder = task.folder(stage)
    totals = [read_json(folder / "total" / f"{name}.json") for name in task.shards]
    target = stage.tokens if stage.tokens is not None else int(Fraction(repr(stage.keep)) * sum(totals))
    samples = pa.concat_tables([_SAMPLE, *(read_table(folder / "sample" / name) for name in task.shards)]).combine_chunks()
    keys = _keys_of(samples)
    order = _sorted(keys)
    before, after = (samples[c].to_numpy()[order].astype(np.int64) for c in ("before", "after"))
    shard = (keys["address"][order] >> np.uint64(32)).astype(np.int64)
    most = np.cumsum(after - before)  # a shard's intervals follow one another, so these add up to `after` of the last
    low = int(np.searchsorted(most, target, side="right")) - 1
    high = int(np.searchsorted(_least(shard, before), target, side="right"))
    picked = [list(map(int, keys[order[i]])) if 0 <= i < len(order) else None for i in (low, high)]
    write_json(folder / "bracket.json", {"target": target, "low": picked[0], "high": picked[1]})


def _least(shard: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Sum over shards of `before` at the last sample of each shard so far: `before` grows within a shard."""
    by_shard = np.argsort(shard, kind="stable")
    step = np.diff(before[by_shard], prepend=0)
    first = np.diff(shard[by_shard], prepend=-1) != 0
    step[first] = before[by_shard][first]
    steps = np.empty_like(step)
    steps[by_shard] = step
    return np.cumsum(steps)


def _gather(stage: Quantile, task: Task) -> None:
    """The keys within the bracket, and the weight of those before it, of a group of shards."""
    folder = task.folder(stage)
    bracket = read_json(folder / "bracket.json")
    ends = (bracket["low"], bracket["high"])
    low, high = (None if end is None else _pack(*([v] for v in end)) for end in ends)
    found, before = [_WEIGHTED], 0
    first = task.rank * SHARDS_PER_GROUP
    for name in task.shards[first : first + SHARDS_PER_GROUP]:
        table = read_table(folder / "keys" / name)
        keys = _keys_of(table)
        start = 0 if low is None else int(_before(keys, low, 0).sum())
        end = len(keys) if high is None else int(_before(keys, high, 0).sum())
        before += int(table["weight"].to_numpy()[:start].sum())
        found.append(table.slice(start, end - start))
    write_table(folder / "gather" / f"{task.rank:05d}.parquet", pa.concat_tables(found), codec="lz4")
    write_json(folder / "gather" / f"{task.rank:05d}.json", before)


def _cut(stage: Quantile, task: Task) -> None:
    """The first key that goes, as a table of one row; of none if all stay."""
    folder = task.folder(stage)
    groups = range(shard_groups(len(task.shards)))
    target = read_json(folder / "bracket.json")["target"]
    before = sum(read_json(folder / "gather" / f"{g:05d}.json") for g in groups)
    table = pa.concat_tables([read_table(folder / "gather" / f"{g:05d}.parquet") for g in groups]).combine_chunks()
    table = table.take(pa.array(_sorted(_keys_of(table))))
    reached = before + np.cumsum(table["weight"].to_numpy().astype(np.int64))
    write_table(folder / "state.parquet", table.select(KEY).slice(int(np.searchsorted(reached, target, side="right")), 1))
