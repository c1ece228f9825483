"""How often each document is taken so that groups of a corpus have given shares of a number of tokens, whatever its size.

The documents of a group, in the order of a hash of (seed, file, record), are a *tape* of as many tokens as they have together,
which begins again when it is at its end. A mixture takes a stretch of the tape of each group from its beginning, a phase of a
schedule the stretch after that of the phase before. How often a document lies before a position of the tape is its rounds,
and once more if the document comes before the position in its round, so

    copies = rounds(end) + before(end) - rounds(start) - before(start)

and all that has to be found are the documents at those positions: cuts by rank (`curate.ranks`). A document is before a
position if the middle of it is, so each stretch is exact within half a document at either end, too long as often as too short.
It is a part of every longer one that begins where it does, so a smaller budget is a part of a larger one. Where budgets are so
small that halves of documents, one for each group, add up to more than 0.25% of one, some of the documents at the ends are
taken or left against this rule, so that it is met.

Weights and shares are fractions here, so that budgets and limits are whole tokens on any machine.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate import mixtures, ranks
from curate.errors import RecipeError, StageError, did_you_mean
from curate.fit import SHARDS_PER_GROUP, shard_groups
from curate.plan import Column
from curate.stage import ROW, Batches, GlobalStage, Step, Task
from curate.storage import read_json, read_table, write_json, write_table

LOST = Fraction(1, 100)  # of the weights may be of groups that are gone, and of the tokens of groups that no search has seen
MISSED = 0.0025  # of a budget: beyond it, the documents at the ends of stretches make up for what is missing or too much
TOLERANCE = 0.005  # of a budget: where it is missed by more, people are told
MOST_REPEATS = 100
MOST_TOKENS = 1 << 50  # ranks add up tokens as 64-bit integers, and a limit times these has to fit
NAMED = 5  # groups in a message
TRIED = 24  # groups of which any three are tried together, to meet a budget

Weights = str | Mapping[str | int | bool, float]  # the id of a search, the path of a mixture.json, or shares of groups
Shares = dict[str, Fraction]  # of all groups, in order; they sum to one


# --------------------------------------------------------------------------------------------- parameters

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def tokens_of(given: int | str | None, what: str) -> int | None:
    """A number of tokens, such as 5000000, "5_000_000", "5M" or "1.5B"; None for None.

    what: the stage, for messages. Raises RecipeError for anything else, and for less than one token.
    """
    if given is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmbt]?)", str(given).replace("_", "").strip().lower())
    tokens = Fraction(found[1]) * _UNITS[found[2]] if found else Fraction(0)
    if not 1 <= tokens <= MOST_TOKENS:
        raise RecipeError(f"{what}: tokens is {given!r}; give a number from 1 to 1000T, such as 5000000, 5M or 1.5B")
    return int(tokens)


def check_repeats(most: int, what: str) -> None:
    """Raises RecipeError for a limit of repeats that makes no sense."""
    if not 1 <= most <= MOST_REPEATS:
        raise RecipeError(f"{what}: max_repeats is {most}; give 1 to {MOST_REPEATS}")


def check_weights(weights: Any, what: str) -> None:
    """Raises RecipeError for weights that are neither a mapping that makes sense nor a name."""
    if isinstance(weights, str):
        if not weights:
            raise RecipeError(f"{what}: weights is empty; give the id of a search, the path of a mixture.json, or a mapping")
    else:
        mixtures.shares(weights, what)


def by_name(weights: Any) -> Any:
    """Weights whose groups are strings, as they have to be in a recipe that is kept; whatever else they are stays.

    Raises RecipeError for what names one group twice, as 1 and "1" do.
    """
    if not isinstance(weights, Mapping):
        return weights
    found = {mixtures.group_name(group): weight for group, weight in weights.items()}
    if len(found) != len(weights):
        raise RecipeError(f"{', '.join(map(repr, weights))}: one group stands there twice, as a number and as a string")
    return found


def is_file(weights: Any) -> bool:
    """Whether weights are a path: ids of stages have neither a slash nor the ending .json."""
    return isinstance(weights, str) and ("/" in weights or weights.endswith(".json"))


def check_source(weights: Any, columns: Collection[str], what: str) -> None:
    """When a stage is bound: raises RecipeError for a file that holds no weights, or a search that is not before the stage."""
    if is_file(weights):
        _shares_only(mixtures.Mixture.load(weights, what), weights, RecipeError, what)
    elif isinstance(weights, str):
        known = columns.values() if isinstance(columns, Mapping) else []
        writers = {column.writer for column in known if isinstance(column, Column) and column.writer}
        if weights not in writers:
            raise RecipeError(
                f"{what}: weights is {weights!r}, and no stage before it has this id; give the id of a search, "
                f"the path of a mixture.json, or a mapping from groups to shares{did_you_mean(weights, writers)}"
            )


def check_first(columns: Collection[str], what: str) -> None:
    """When a stage is bound: raises RecipeError where one before has said how often documents are taken: it would be lost."""
    if found := sorted({"_copies", "_groups"}.intersection(columns)):
        raise RecipeError(
            f"{what}: a stage before it has said how often each document is taken ({found[0]!r}); leave one of them out"
        )


def column_of(by: str, sources: Sequence[Any], what: str) -> str:
    """The column that groups are by: `by`, else that of the first file among the sources of weights that says one.

    Raises RecipeError where there is none.
    """
    said = [mixtures.Mixture.load(weights, what).by for weights in sources if is_file(weights)]
    found = by or next(filter(None, said), "")
    if not found:
        raise RecipeError(f"{what}: give `by`, the column whose values are the groups (as the search has it, if there is one)")
    return found


# --------------------------------------------------------------------------------------------- shares


def natural(tokens: Mapping[str, int]) -> Shares:
    """The shares that the groups have of their tokens."""
    return scaled({name: Fraction(n) for name, n in tokens.items()})


def scaled(weights: Shares) -> Shares:
    """Weights so that they sum to one; at least one is above 0."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def shares(weights: Weights | None, tokens: Mapping[str, int], by: str, task: Task, what: str) -> tuple[Shares, dict[str, int]]:
    """The share of each group, and notes, with counts: what people should know of it.

    weights: None for natural shares. tokens: of each group that there is, in order. Raises StageError for a group with a
    weight and without tokens, and for one with tokens and without a weight.
    """
    if weights is None:
        return natural(tokens), {}
    if isinstance(weights, Mapping):
        mixtures.shares(weights, what)  # which are rounded, and so not what is worked with
        return given_shares(by_name(weights), tokens, by, what)
    if is_file(weights):
        said = f"{what}: {weights}"
        found = mixtures.Mixture.load(weights, what)
    else:
        said = f"{what}: the search {weights!r}"
        state = task.state(weights)
        if "mixture" not in state.column_names:
            raise StageError(f"{what}: weights is {weights!r}, a stage that searches none; give the id of a search")
        found = mixtures.Mixture.from_json(orjson.loads(state["mixture"][0].as_py()), said)
    _shares_only(found, weights, StageError, what)
    if found.by and found.by != by:
        raise StageError(f"{said} has weights of the groups of {found.by!r}, not of {by!r}; set `by: {found.by}`")
    return given_shares(found.weights, tokens, by, said, searched=True)


def _shares_only(found: mixtures.Mixture, weights: Any, error: type[Exception], what: str) -> None:
    if found.rate:
        raise error(
            f"{what}: {weights} wants some documents of a group more often than others, which shares of groups cannot say; "
            f"use the stage `mixture` with `rate: {found.rate}` instead of `weights`"
        )


def given_shares(
    weights: Mapping[str, float], tokens: Mapping[str, int], by: str, what: str, searched: bool = False
) -> tuple[Shares, dict[str, int]]:
    """Shares of all groups out of weights by name, where "*" is the share of all others together; see `shares`.

    searched: whether weights are of a search: then up to 1% of them may have lost their group, and groups with up to 1% of the
    tokens may have no weight.
    """
    exact = scaled({name: Fraction(repr(float(weight))) for name, weight in weights.items()})
    rest = exact.pop(mixtures.OTHERS, None)
    gone = {name: share for name, share in exact.items() if not tokens.get(name) and (share or not searched)}
    lost = sum(gone.values(), Fraction(0))
    notes = {}
    if gone and (not searched or lost > LOST):
        name = next(iter(gone))
        hint = "" if name in tokens else did_you_mean(name, [n for n in tokens if tokens[n] and n not in exact] or tokens)
        raise StageError(f"{what}: {by} = {name!r} has the share {float(gone[name]):.4g}, and no document with tokens{hint}")
    if lost:
        notes[f"groups with {float(lost):.2%} of the weights have no documents: the others share it in proportion"] = len(gone)
    others = {name: Fraction(n) for name, n in tokens.items() if n and name not in exact}
    if rest is None and others and searched and sum(others.values()) <= LOST * sum(tokens.values()):
        notes["groups of few tokens that the search did not see: nothing is taken of them"] = len(others)
    elif rest is None and others:
        listed = _listed([repr(name) for name in others])
        raise StageError(f"{what}: no weight for {by} = {listed}; add one (0 for none), or '*' for all others together")
    if rest and not others:
        raise StageError(f"{what}: '*' has the share {float(rest):.4g}, but no other groups are there; leave it out")
    each = scaled(others) if rest else {}
    return scaled({name: exact.get(name, each.get(name, Fraction(0)) * (rest or 0)) for name in tokens}), notes


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


# --------------------------------------------------------------------------------------------- budgets


def largest(demand: Mapping[str, Fraction], tokens: Mapping[str, int], most: int) -> int:
    """The largest budget with which no group is taken more than `most` times.

    demand: of each group, tokens per token of the budget.
    """
    return min(math.floor(most * tokens[name] / share) for name, share in demand.items() if share)


def budget_of(asked: int | str | None, demand: Mapping[str, Fraction], tokens: Mapping[str, int], most: int, what: str) -> int:
    """The budget that was asked for; else the largest that repeats no group more than `most` times, at most the corpus.

    Raises StageError where the largest is none.
    """
    found = tokens_of(asked, what)
    if found is None:
        found = min(largest(demand, tokens, most), sum(tokens.values()))
    if not found:
        raise StageError(f"{what}: a group has too few tokens for its share of any budget; raise max_repeats")
    return found


def check_budget(
    budget: int, demand: Mapping[str, Fraction], tokens: Mapping[str, int], most: int, more: str, what: str
) -> None:
    """Raises StageError where a budget repeats a group more than `most` times. more: what could be done besides."""
    short = {name: share for name, share in demand.items() if share * budget > most * tokens[name]}
    if short:
        worst = sorted(short, key=lambda name: (tokens[name] / short[name], name))
        said = [f"{n!r} has {tokens[n]:,} tokens and is wanted {float(short[n] * budget / tokens[n]):.1f} times" for n in worst]
        fits = largest(demand, tokens, most)
        raise StageError(
            f"{what}: {budget:,} tokens would repeat groups more than {most} times: {_listed(said)}; "
            + (f"at most {fits:,} can be had: set `tokens: {fits}`, {more}" if fits else more)
        )


def within(shares: Shares, budget: int, limits: Mapping[str, int]) -> dict[str, int]:
    """Tokens of each group so that none exceeds its limit: what is too much for one goes to the others in proportion."""
    found = {name: Fraction(0) for name in shares}
    open_ = {name: share for name, share in shares.items() if share}
    left = Fraction(budget)
    while open_:
        unit = left / sum(open_.values())
        full = [name for name, share in open_.items() if share * unit > limits[name]]
        for name in full or list(open_):
            found[name] = Fraction(limits[name]) if full else open_[name] * unit
            left -= found[name]
            del open_[name]
    return {name: math.floor(amount) for name, amount in found.items()}


# --------------------------------------------------------------------------------------------- the tape


@dataclass(frozen=True, kw_only=True)
class Tape:
    """The order of the documents of each group. stage: its name, for messages."""

    stage: str
    by: str
    seed: int

    def reads(self) -> tuple[str, ...]:
        """Columns that `keys` needs, and `tokens`."""
        return tuple(dict.fromkeys((self.by, "file", "record", "tokens")))

    def groups(self, batch: pa.RecordBatch) -> tuple[np.ndarray, tuple[str, ...]]:
        """See `mixtures.groups_of`."""
        return mixtures.groups_of(batch[self.by], f"{self.stage}: column {self.by!r}")

    def keys(self, batch: pa.RecordBatch, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """(keys of the documents that have a group, which these are (bool))."""
        from curate.kernels.keys import order_hash

        number, names = self.groups(batch)
        known = number >= 0
        mine = batch.filter(pa.array(known))
        hashes = order_hash(self.seed, mine["file"], mine["record"])
        return ranks.pack(self._numbers(names)[number[known]], np.zeros(len(mine)), hashes, addresses(mine, shard)), known

    def _numbers(self, names: Sequence[str]) -> np.ndarray:
        """uint64: the numbers of groups in keys."""
        return ranks.group_numbers(_named(self.by, names), (self.by,), self.stage)

    def add_names(self, found: dict[int, tuple[str | None, ...]], batch: pa.RecordBatch) -> None:
        """Add the groups of a batch that are not known yet."""
        names = self.groups(batch)[1]
        ranks.add_names(found, _named(self.by, names), (self.by,), self.stage, self._numbers(names))


def _named(by: str, names: Sequence[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({by: pa.array(names, pa.string())})


def addresses(batch: pa.RecordBatch, shard: int) -> np.ndarray:
    """uint64 per row: its place in the corpus."""
    return np.uint64(shard) << np.uint64(32) | batch[ROW].to_numpy().astype(np.uint64)


def weights_of(batch: pa.RecordBatch) -> np.ndarray:
    """int64: the tokens of each document; 0 for null."""
    return pc.fill_null(batch["tokens"], 0).to_numpy(zero_copy_only=False).astype(np.int64)


@dataclass(frozen=True)
class Layout:
    """Where the tapes are cut.

    positions: of each group, in tokens from its beginning, and perhaps beyond its end: where the first stretch begins and ends,
    where the second does, and so on. A stretch begins at 0, or where one before it ends.
    budgets: of each stretch, of all groups together, whose parts of it are rounded down to whole tokens.
    asked: whether somebody has asked for these budgets, and not only for shares, which count alone then.
    notes: what people should know, with counts. about: whatever the stage wants to know later (plain values).
    """

    positions: Mapping[str, Sequence[int]]
    budgets: Sequence[int]
    asked: bool
    notes: Mapping[str, int] = field(default_factory=dict)
    about: Any = field(default_factory=dict)


Lay = Callable[[Task, dict[str, int]], Layout]  # out of the tokens of each group, in the order of groups


def steps(stage: GlobalStage, tape: Tape, lay: Lay, n_shards: int, n_docs: int, n_stretches: int) -> list[Step]:
    """The steps of a fit that find the cuts. The last leaves what `Cuts.of` reads.

    lay: picklable. n_stretches: that a group has at most. All groups are one part, since budgets are about all of them.
    """
    keys = Step("keys", partial(_write_keys, stage, tape), reads=tape.reads())
    found = ranks.steps(stage, keys, partial(_targets, stage, tape, lay), n_shards, n_docs, 1, 2 * n_stretches)
    cuts = found[-2].tasks
    return [
        *found[:-1],
        Step("weigh", partial(_weigh, stage, cuts), tasks=shard_groups(n_shards)),
        Step("settle", partial(_settle, stage, cuts)),
    ]


def _write_keys(stage: GlobalStage, tape: Tape, task: Task, batches: Batches) -> None:
    keys, weights = [ranks.pack(0, [], [], [])], [np.empty(0, np.int64)]
    names: dict[int, tuple[str | None, ...]] = {}
    for batch in batches:
        found, known = tape.keys(batch, task.shard or 0)
        keys.append(found)
        weights.append(weights_of(batch)[known])
        tape.add_names(names, batch)
    shard = task.shards[task.shard or 0]
    ranks.write_keys(task.folder(stage), shard, np.concatenate(keys), np.concatenate(weights), 1, names)


def _layout_file(stage: GlobalStage, task: Task) -> Path:
    return task.folder(stage) / "layout.json"


def _targets(
    stage: GlobalStage, tape: Tape, lay: Lay, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where in its round each position is. One at the beginning of a round comes before all documents: it needs no cut."""
    tokens = {str(names[number][0]): total for number, total in zip(groups.tolist(), totals.tolist(), strict=True)}
    tokens = {name: tokens[name] for name in mixtures.ordered(tokens)}
    if not any(tokens.values()):
        raise StageError(f"{tape.stage}: no document has a value in {tape.by!r} and tokens, so there is nothing to draw from")
    layout = lay(task, tokens)
    found = []
    numbers = {str(names[number][0]): (at, number) for at, number in enumerate(groups.tolist())}
    for name, positions in layout.positions.items():
        for target, position in enumerate(positions):
            if position and position % tokens[name]:
                found.append((numbers[name][0], target, position % tokens[name]))
    said = [
        {"group": name, "number": numbers[name][1], "tokens": tokens[name], "positions": list(layout.positions[name])}
        for name in tokens
    ]
    write_json(
        _layout_file(stage, task),
        {"groups": said, "budgets": layout.budgets, "asked": layout.asked, "notes": dict(layout.notes), "about": layout.about},
    )
    columns = np.array(sorted(found), np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def _weigh(stage: GlobalStage, cuts: int, task: Task) -> None:
    """The tokens of a group of shards before each cut, and of the document at the cut if it is here."""
    folder = task.folder(stage)
    found = ranks.merged(folder, cuts)
    cut = ranks.keys_of(found)
    target = found["target"].to_numpy()
    before, own = np.zeros(len(cut), np.int64), np.zeros(len(cut), np.int64)
    first = task.rank * SHARDS_PER_GROUP
    for name in task.shards[first : first + SHARDS_PER_GROUP]:
        table = read_table(folder / "keys" / name)
        keys, weight = ranks.keys_of(table), table["weight"].to_numpy()
        for number in np.unique(target).tolist():
            mine = np.flatnonzero(target == number)  # one per group, sorted by group
            at = np.minimum(np.searchsorted(cut["group"][mine], keys["group"]), len(mine) - 1)
            ours = cut[mine][at]
            inside = (ours["group"] == keys["group"]) & ranks.before(keys, ours)
            np.add.at(before, mine[at[inside]], weight[inside])
            np.add.at(own, mine[at[keys == ours]], weight[keys == ours])
    write_table(folder / "weigh" / f"{task.rank:05d}.parquet", pa.table({"before": before, "own": own}), codec="lz4")


def _settle(stage: GlobalStage, cuts: int, task: Task) -> None:
    """Positions and cuts together."""
    folder = task.folder(stage)
    layout = read_json(_layout_file(stage, task))
    found = ranks.merged(folder, cuts)
    before, own = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
    for rank in range(shard_groups(len(task.shards))):
        weighed = read_table(folder / "weigh" / f"{rank:05d}.parquet")
        before += weighed["before"].to_numpy()
        own += weighed["own"].to_numpy()
    found = found.append_column("before", pa.array(before)).append_column("own", pa.array(own))
    known = {(cut["group"], cut["target"]): cut for cut in found.to_pylist()}
    for group in layout["groups"]:
        group["cuts"], group["drawn"] = [], []
    near: dict[tuple[int, int, int], dict[int, bool]] = {}
    for stretch, budget in enumerate(layout["budgets"]):
        _draw(layout["groups"], stretch, budget, known, near, layout["asked"])
    layout["notes"] |= _missed(layout["groups"], sum(layout["budgets"]))
    write_table(folder / "state.parquet", pa.table({"layout": pa.array([orjson.dumps(layout).decode()], pa.large_string())}))


def _draw(
    groups: Sequence[dict[str, Any]],
    stretch: int,
    budget: int,
    known: Mapping[tuple[int, int], Mapping[str, Any]],
    near: dict[tuple[int, int, int], dict[int, bool]],
    asked: bool,
) -> None:
    """Add `cuts` and `drawn` of a stretch to the groups.

    Its ends lie in documents, which are taken if the middle is before the end. Where all groups together miss the budget of the
    stretch by more than `MISSED`, this is turned round, those first whose middle is nearest to the end, and at last for up to
    three that together fit best. known: the document at a position, if there is one. near: by document (and group and round),
    positions in it that have been decided, and whether the document is before them. asked: whether the budget has to be met.
    """
    missing = budget
    ends: list[_End] = []
    for group in groups:
        for target in (2 * stretch, 2 * stretch + 1):
            position = group["positions"][target]
            rounds, rest = divmod(position, group["tokens"]) if position else (0, 0)
            at = known.get((group["number"], target))
            taken = False
            if at:
                others = near.setdefault((group["number"], rounds, at["address"]), {})
                # what is before a position is before all that follow
                taken = any(before and other <= position for other, before in others.items())
                left = any(not before and other >= position for other, before in others.items())
                if target % 2 and not taken and not left and rest > at["before"]:
                    ends.append(_End(group, others, position, at["hash"], at["own"], rest - at["before"]))
                    taken = ends[-1].taken
            group["cuts"].append([rounds, at["bits"], at["hash"], at["address"] + taken] if at else [rounds])
            group["drawn"].append(rounds * group["tokens"] + (at["before"] + taken * at["own"] if at else 0))
        missing -= lengths(group, "drawn")[stretch]
    aim = MISSED * budget if asked else math.inf
    ends.sort(key=lambda end: (end.off, end.hash))
    for end in ends:
        if abs(missing) > aim and abs(missing - end.turned) < abs(missing):
            missing -= end.turn()
    while abs(missing) > aim:
        turns = [turn for n in (1, 2, 3) for turn in itertools.combinations(ends[:TRIED], n)]
        after = [missing - sum(end.turned for end in turn) for turn in turns]
        best = min(range(len(turns)), key=lambda i: abs(after[i]), default=-1)
        if best < 0 or abs(after[best]) >= abs(missing):
            break
        for end in turns[best]:
            missing -= end.turn()
    for end in ends:
        end.others[end.position] = end.taken


@dataclass
class _End:
    """Where a stretch of a group ends within a document of `own` tokens, `inside` of which are before the end. Whether it is
    taken can be turned round."""

    group: dict[str, Any]
    others: dict[int, bool]
    position: int
    hash: int
    own: int
    inside: int

    def __post_init__(self) -> None:
        self.taken = 2 * self.inside >= self.own

    @property
    def off(self) -> int:
        """How far the end is from the middle of the document: 0 to 8, at either of its ends. Coarse, since rounding to whole
        tokens would prefer long documents where all are cut at the same share."""
        return round(8 * abs(2 * self.inside - self.own) / self.own)

    @property
    def turned(self) -> int:
        """How many tokens more the group gives when it is turned round."""
        return -self.own if self.taken else self.own

    def turn(self) -> int:
        """Take the document if it was not, and the other way round. Returns what `turned` was."""
        more = self.turned
        self.group["drawn"][-1] += more
        self.group["cuts"][-1][-1] += -1 if self.taken else 1  # from the next address on, the document comes before the cut
        self.taken = not self.taken
        return more


def _missed(groups: Sequence[Mapping[str, Any]], budget: int) -> dict[str, int]:
    """Notes about budgets and shares that documents are too long for."""
    notes = {}
    if nothing := sum(any(lengths(group)) and not any(lengths(group, "drawn")) for group in groups):
        notes["groups of which nothing is taken: what they were to give is less than a document"] = nothing
    more = sum(sum(lengths(group, "drawn")) for group in groups) - budget
    if abs(more) > TOLERANCE * budget:
        said = "more than" if more > 0 else "missing from"
        notes[f"tokens {said} the budget: documents are too long to meet it"] = abs(more)
    return notes


def lengths(group: Mapping[str, Any], of: str = "positions") -> list[int]:
    """The tokens of each stretch of a group: those wanted, or those `drawn`."""
    at = group[of]
    return [end - start for start, end in zip(at[::2], at[1::2], strict=True)]


@dataclass(frozen=True)
class Cuts:
    """What the fit has found.

    groups: of each: `group`, `tokens`, `positions` and `drawn`: at which tokens the documents before each position end.
    numbers: uint64 (groups): in order. epochs: float64 (groups). rounds: int64 (groups, positions). cut: keys (groups,
    positions), where `known`.
    """

    groups: Sequence[Mapping[str, Any]]
    notes: Mapping[str, int]
    about: Any
    numbers: np.ndarray
    epochs: np.ndarray
    rounds: np.ndarray
    known: np.ndarray
    cut: np.ndarray

    @staticmethod
    def of(state: pa.Table) -> Cuts:
        """Out of what `steps` has left."""
        layout = orjson.loads(state["layout"][0].as_py())
        groups = sorted(layout["groups"], key=lambda group: group["number"])
        cuts = [cut for group in groups for cut in group["cuts"]]
        numbers = np.array([group["number"] for group in groups], np.uint64)
        shape = (len(groups), len(groups[0]["cuts"]))
        keys = np.array([cut[1:] if len(cut) > 1 else (0, 0, 0) for cut in cuts], np.uint64)
        return Cuts(
            groups=layout["groups"],
            notes=layout["notes"],
            about=layout["about"],
            numbers=numbers,
            epochs=np.array([sum(lengths(group)) / max(group["tokens"], 1) for group in groups]),
            rounds=np.array([cut[0] for cut in cuts], np.int64).reshape(shape),
            known=np.array([len(cut) > 1 for cut in cuts]).reshape(shape),
            cut=ranks.pack(np.repeat(numbers, shape[1]), *keys.T).reshape(shape),
        )

    def epochs_of(self, keys: np.ndarray) -> np.ndarray:
        """float64: how often the group of each document is taken, by all stretches together."""
        return self.epochs[np.searchsorted(self.numbers, keys["group"])]

    def copies(self, keys: np.ndarray, stretch: int) -> np.ndarray:
        """int64: how often each document lies in a stretch of the tape of its group."""
        return self._before(keys, 2 * stretch + 1) - self._before(keys, 2 * stretch)

    def _before(self, keys: np.ndarray, position: int) -> np.ndarray:
        at = np.searchsorted(self.numbers, keys["group"])
        before = self.known[at, position] & ranks.before(keys, self.cut[at, position])
        return self.rounds[at, position] + before
