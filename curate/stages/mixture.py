"""A corpus in given proportions: how many copies of each document, for a budget of tokens."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate import proportions, ranks
from curate.errors import RecipeError, StageError
from curate.proportions import Cuts, Layout, Tape
from curate.stage import REASON, Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.stages.quantile import as_number, ordered_bits
from curate.storage import read_json, write_json, write_table

_SALT = 0x6D69_7874  # the order of a tape must not say how a fraction of a copy is rounded
_TOLD = 5  # groups in the notes


@dataclass(frozen=True, kw_only=True)
class Mixture(GlobalStage):
    """Takes each document as often as shares of groups, or rates by document, want it, for a budget of tokens.

    weights: the share of the tokens that each group gets. Either the id of a stage before this one that has searched for them
    (`climb`, `regmix`, `manual`, …); or the path of a `mixture.json` (with a slash or the ending .json); or a mapping from
    groups to shares with any positive sum, where "*" stands for all groups together that are not named, which divide it as they
    have it in the corpus. by: the column (string, integer or boolean) whose values are the groups, which has to be that
    of the search; it may be left out with a `mixture.json`, which says it.

    rate: instead of weights, a column with a number for each document, such as the `sampling` of `quadmix`: how often it is
    wanted in comparison with others.

    tokens: the budget, as a number or as in 5M or 1.5B. By default as much as there is, as long as nothing is repeated more
    often than `max_repeats`: at most the tokens of the corpus (with `rate`: of the documents with a rate above 0).
    max_repeats: how often a group may be taken on the whole; with `rate`, how often each document may be. short: what to do
    where a budget would exceed that: "stop", or "less", which takes no more than that and shares out what is missing among
    the others in proportion. seed: of the order in which the documents of a group are taken.

    The documents of a group are taken in an order by hash until its share is full, and again from the first when all were
    taken. So the numbers of copies in a group differ by one at most, its share is met within half a document, and what a
    smaller budget takes is a part of what a larger one does. Only where halves of documents add up to more than 0.25% of the
    budget, the last documents of some groups are taken or left against this, so that it is met. With rates, r times some factor
    is the number of copies of a document, where a fraction is rounded up with the probability that it says; the factor is
    exactly the one that fills the budget, which is never exceeded.

    Groups that have a weight and no documents, or documents and no weight, are errors; but if weights were searched, groups
    with 1% of them in all may be gone, which is noted.

    Columns written: `_copies` (uint16): how often the document is exported. Reasons: `mixture.not_sampled`, with `_value` = how
    often its group is taken (with `rate`: the rate); `mixture.no_group` for a document without a value in `by`;
    `mixture.no_rate` for one without a rate (null, NaN, infinite, or negative).

    Source: own; the rounding of fractions as in QuaDMix (Liu et al. 2025, arXiv:2504.16511).

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["aaaa" * 8] * 6, "topic": ["art", "art", "sport", "sport", "sport", "sport"]})
    >>> result = Mixture(by="topic", weights={"art": 0.75, "sport": 0.25}, tokens=32)(docs)
    >>> result.kept.group_by("topic").aggregate([("_copies", "sum")]).to_pydict()
    {'topic': ['art', 'sport'], '_copies_sum': [3, 1]}
    """

    example: ClassVar[dict[str, Any]] = {"by": "corpus", "weights": {"a": 0.5, "*": 0.5}}

    weights: str | Mapping[str | int | bool, float] | None = None
    by: str = ""
    rate: str = ""
    tokens: int | str | None = None
    max_repeats: int = 4
    short: Literal["stop", "less"] = "stop"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.rate and (self.weights is not None or self.by):
            raise RecipeError(f"mixture: rate is of documents; leave out `{'by' if self.weights is None else 'weights'}`")
        if self.weights is not None:
            proportions.check_weights(self.weights, "mixture")
            object.__setattr__(self, "weights", proportions.by_name(self.weights))
        proportions.tokens_of(self.tokens, "mixture")
        proportions.check_repeats(self.max_repeats, "mixture")
        if self.short not in ("stop", "less"):
            raise RecipeError(f"mixture: short is {self.short!r}; it is 'stop' or 'less'")

    def bound(self, columns: Collection[str]) -> Stage:
        proportions.check_first(columns, "mixture")
        if self.rate:
            return self
        if self.weights is None:  # only now, so that a recipe can leave it to those who run it
            raise RecipeError("mixture: give `weights`, shares of groups, or `rate`, a column with a rate for each document")
        proportions.check_source(self.weights, columns, "mixture")
        by = proportions.column_of(self.by, [self.weights], "mixture")
        return self if by == self.by else replace(self, by=by)

    @property
    def _tape(self) -> Tape:
        return Tape(stage="mixture", by=self.by, seed=self.seed)

    def reads(self) -> tuple[str, ...]:
        return (self.rate, "file", "record", "tokens") if self.rate else self._tape.reads()

    def writes(self) -> pa.Schema:
        return pa.schema([("_copies", pa.uint16())])

    def reasons(self) -> tuple[str, ...]:
        return "mixture.not_sampled", "mixture.no_rate" if self.rate else "mixture.no_group"

    def files(self) -> tuple[str, ...]:
        return (str(self.weights),) if proportions.is_file(self.weights) else ()

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        if not self.rate:
            return proportions.steps(self, self._tape, partial(_lay, self), n_shards, n_docs, 1)
        keys = Step("keys", partial(_write_units, self), reads=self.fit_reads())
        n_units = n_docs * self.max_repeats
        found = ranks.steps(self, keys, partial(_budget, self), n_shards, n_units, 1)
        return [*found[:-1], Step("settle", partial(_settle, self, found[-2].tasks))]

    def open(self, task: Task) -> BatchFn:
        state = task.state(self)
        if self.rate:
            layout = orjson.loads(state["layout"][0].as_py())
            _note(task, layout["notes"])
            cut = ranks.pack(0, *np.array(layout["cut"], np.uint64).reshape(-1, 3).T)
            return partial(self._by_rates, task, cut)
        cuts = Cuts.of(state)
        _note(task, cuts.notes)
        return partial(self._by_weights, task, cuts, _often(cuts))

    def _by_weights(self, task: Task, cuts: Cuts, often: Mapping[int, str], batch: pa.RecordBatch) -> pa.RecordBatch:
        keys, known = self._tape.keys(batch, task.shard or 0)
        copies, epochs = np.zeros(batch.num_rows, np.int64), np.zeros(batch.num_rows)
        copies[known] = cuts.copies(keys, 0)
        epochs[known] = cuts.epochs_of(keys)
        drawn = copies * proportions.weights_of(batch)
        for number, note in often.items():
            if n := int(drawn[known][keys["group"] == np.uint64(number)].sum()):
                task.count(note, n)
        return _decided(task, batch, copies, drawn, known, "mixture.no_group", epochs)

    def _by_rates(self, task: Task, cut: np.ndarray, batch: pa.RecordBatch) -> pa.RecordBatch:
        rate, known = self._rates(batch)
        copies = np.zeros(batch.num_rows, np.int64)
        for keys, rows in self._units(batch, rate, task.shard or 0):
            copies[rows] += ranks.before(keys, np.repeat(cut, len(keys))) if len(cut) else 1
        full = int((copies == self.max_repeats).sum()) if self.max_repeats > 1 else 0
        if full:
            task.count(f"documents taken {self.max_repeats} times, the most that max_repeats allows", full)
        return _decided(task, batch, copies, copies * proportions.weights_of(batch), known, "mixture.no_rate", rate)

    def _rates(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """(float64 per document, 0 where there is none; whether there is one)."""
        try:
            values = pc.cast(as_number(batch[self.rate], "mixture"), pa.float64(), safe=False)
        except StageError as error:
            raise StageError(f"{error} in {self.rate!r}") from None
        rate = values.to_numpy(zero_copy_only=False)
        known = np.isfinite(rate) & (rate >= 0)
        return np.where(known, rate, 0.0), known

    def _units(self, batch: pa.RecordBatch, rate: np.ndarray, shard: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Keys of the first copy of each document with a rate, then of the second, and so on, and the rows that these are of.

        With the factor s, s r + u rounded down is the number of copies: the j-th is among them if (j - u) / r is at most s.
        """
        from curate.kernels.keys import order_hash

        rows = np.flatnonzero(rate > 0)
        mine = batch.take(pa.array(rows))
        hashes = order_hash((self.seed + _SALT) % (1 << 64), mine["file"], mine["record"])
        u = (hashes >> np.uint64(11)) * 2.0**-53
        for copy in range(1, self.max_repeats + 1):
            with np.errstate(over="ignore"):
                when = (copy - u) / rate[rows]
            bits = ordered_bits(pa.array(when, pa.float64()))
            yield ranks.pack(0, bits, hashes + np.uint64(copy), proportions.addresses(mine, shard)), rows


def _decided(
    task: Task, batch: pa.RecordBatch, copies: np.ndarray, drawn: np.ndarray, known: np.ndarray, missing: str, value: np.ndarray
) -> pa.RecordBatch:
    if drawn.any():
        task.count("tokens drawn", int(drawn.sum()))
    why = pc.if_else(pa.array(known), "mixture.not_sampled", missing)
    columns = {
        "_copies": pa.array(copies, pa.uint16()),
        REASON: pc.if_else(pa.array(copies > 0), pa.scalar(None, pa.string()), why),
        "_value": pa.array(value, mask=(copies > 0) | ~known),
    }
    return with_columns(batch, columns)


def _note(task: Task, notes: Mapping[str, int]) -> None:
    if not task.shard:
        for note, n in notes.items():
            task.count(note, n)


def _often(cuts: Cuts) -> dict[int, str]:
    """A note for each of the groups that are repeated most, by the numbers of groups."""
    often = [(g["positions"][1] / g["tokens"], g) for g in cuts.groups if g["positions"][1] > g["tokens"]]
    often = sorted(often, key=lambda found: (-found[0], found[1]["group"]))[:_TOLD]
    return {g["number"]: f"tokens drawn from {g['group']!r}, {times:.2f} times what there is" for times, g in often}


# --------------------------------------------------------------------------------------------- the fit


def _lay(stage: Mixture, task: Task, tokens: dict[str, int]) -> Layout:
    """How many tokens of each group are taken."""
    shares, notes = proportions.shares(stage.weights, tokens, stage._tape.by, task, "mixture")
    most = stage.max_repeats
    budget = proportions.budget_of(stage.tokens, shares, tokens, most, "mixture")
    if stage.short == "stop":
        proportions.check_budget(budget, shares, tokens, most, "raise max_repeats, or set `short: less`", "mixture")
    limits = {name: most * n for name, n in tokens.items()}
    taken = proportions.within(shares, budget, limits)
    full = [name for name, share in shares.items() if taken[name] < math.floor(share * budget)]
    if full:
        notes[f"groups taken {most} times, the most that max_repeats allows, and less than their share"] = len(full)
    if full and len(full) == sum(share > 0 for share in shares.values()):
        notes["tokens missing from the budget: every group is at its limit"] = budget - sum(taken.values())
    most_of_all = sum(limits[name] for name, share in shares.items() if share)
    return Layout({name: [0, taken[name]] for name in tokens}, [min(budget, most_of_all)], stage.tokens is not None, notes)


def _write_units(stage: Mixture, task: Task, batches: Batches) -> None:
    """The copies that documents may have, each with what it weighs."""
    keys, weights = [ranks.pack(0, [], [], [])], [np.empty(0, np.int64)]
    for batch in batches:
        tokens = proportions.weights_of(batch)
        for found, rows in stage._units(batch, stage._rates(batch)[0], task.shard or 0):
            keys.append(found)
            weights.append(tokens[rows])
    ranks.write_keys(task.folder(stage), task.shards[task.shard or 0], np.concatenate(keys), np.concatenate(weights), 1, {})


def _budget(
    stage: Mixture, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    total = int(totals.sum())
    if not total:
        raise StageError(f"mixture: no document has tokens and a rate above 0 in {stage.rate!r}: there is nothing to draw from")
    budget = proportions.tokens_of(stage.tokens, "mixture")
    if budget is None:
        budget = total // stage.max_repeats
    elif budget > total and stage.short == "stop":
        raise StageError(
            f"mixture: there are {total:,} tokens if each document with a rate is taken {stage.max_repeats} times, and not "
            f"{budget:,}: set `tokens: {total}`, raise max_repeats, or set `short: less`"
        )
    missing = budget - total
    notes = {"tokens missing from the budget: every document is at its limit": missing} if missing > 0 else {}
    write_json(_notes_file(stage, task), notes)
    return np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([budget], np.int64)


def _notes_file(stage: Mixture, task: Task) -> Path:
    return task.folder(stage) / "notes.json"


def _settle(stage: Mixture, cuts: int, task: Task) -> None:
    """The first copy that is not taken, if there is one."""
    folder = task.folder(stage)
    cut = ranks.merged(folder, cuts).select(["bits", "hash", "address"])
    layout = {"cut": [list(row.values()) for row in cut.to_pylist()], "notes": read_json(_notes_file(stage, task))}
    write_table(folder / "state.parquet", pa.table({"layout": pa.array([orjson.dumps(layout).decode()], pa.large_string())}))
