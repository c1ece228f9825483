"""Phases of training, each with a mixture of its own: which documents go to which, and how often."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import mixtures, proportions
from curate.errors import RecipeError, StageError, did_you_mean
from curate.export import GROUP_NAME
from curate.proportions import Cuts, Layout, Shares, Tape, lengths
from curate.stage import REASON, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import read_table, write_json

FORMAT = "curate-schedule/1"
FILE = "schedule.json"
MOST_PHASES, MOST_ORDERS = 100, 100
ROUNDING = 0.005  # by which shares, as a table gives them, may miss their sum


@dataclass(frozen=True, kw_only=True)
class Schedule(GlobalStage):
    """Divides a corpus into phases of training, each with its own share of the tokens and its own proportions.

    phases: in the order of training, each a mapping of

    - name: of letters a-z, digits, ".", "_" and "-"; the files of the phase are in `data/<name>`
    - share: of all tokens, as a fraction or in percent; the sum of all is 1 (or 100)
    - weights: of groups, as in `mixture`: the id of a search, the path of a mixture.json, or a mapping with "*" for all others
      together; by default as in the corpus
    - upsample: factors by group, by which these weights are multiplied before they are scaled to sum to 1 again
    - documents: "fresh" (default): those that no phase before it has had, as long as the group has any, and then again
      from the first; or "repeated": the same that came first
    - orders: 1; with more, the phase is there so many times, as `<name>-1`, `<name>-2`, …, with the same documents in other
      orders, for an average of models

    Without `phases` there are two: `stable`, with 0.85 of the tokens in the proportions of the corpus, and `anneal`, with fresh
    documents in these proportions times the factors of `upsample`.

    by: the column (string, integer or boolean) whose values are the groups; it may be left out where a `mixture.json` among the
    weights says it.
    tokens: of all phases together (a phase with several orders counts once), as a number or as in 5M or 1.5B; by default as
    much as there is, as long as nothing is repeated more often than `max_repeats`, and at most the tokens of the corpus.
    max_repeats: how often a group may be taken, over all phases; more is an error. leave_out: a group that gets nothing, and
    whose share goes to the others in proportion, in every phase: to see what it is good for. seed: of the order in which the
    documents of a group are taken.

    The documents of a group are taken in an order by hash, and the budgets of each phase and group are met within half a
    document at either end; within one, where halves would add up to more than 0.25% of the budget of the phase.

    Columns written: `_groups`, a struct with a uint16 for each phase: how many copies of the document it has. A run leaves
    `schedule.json`: tokens asked and drawn, the share of what there is that was used, and epochs, by phase and group.
    Reasons: `schedule.not_sampled`, with `_value` = how often its group is taken in all; `schedule.no_group` for a document
    without a value in `by`.

    Source: phases as in domain upsampling (Blakeney et al. 2024, arXiv:2406.03476) and in OLMo 2 (OLMo Team 2025,
    arXiv:2501.00656).

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["aaaa" * 8] * 8, "topic": ["web"] * 4 + ["math"] * 4})
    >>> phases = ({"name": "stable", "share": 0.5}, {"name": "anneal", "share": 0.5, "weights": {"math": 1, "web": 0}})
    >>> Schedule(by="topic", phases=phases, tokens=32)(docs).kept["_groups"].to_pylist()
    [{'stable': 1, 'anneal': 0}, {'stable': 1, 'anneal': 0}, {'stable': 0, 'anneal': 1}, {'stable': 0, 'anneal': 1}]
    """

    example: ClassVar[dict[str, Any]] = {"by": "corpus", "upsample": {"a": 3}}
    outputs: ClassVar[tuple[str, ...]] = (FILE,)

    phases: tuple[Mapping[str, Any], ...] = ()
    upsample: Mapping[str | int | bool, float] = field(default_factory=dict)
    by: str = ""
    tokens: int | str | None = None
    max_repeats: int = 4
    leave_out: str | int | bool | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        _plan(self)
        parts = [{key: proportions.by_name(value) for key, value in phase.items()} for phase in self.phases]
        object.__setattr__(self, "phases", tuple(parts))
        object.__setattr__(self, "upsample", proportions.by_name(self.upsample))
        proportions.tokens_of(self.tokens, "schedule")
        proportions.check_repeats(self.max_repeats, "schedule")

    def bound(self, columns: Collection[str]) -> Stage:
        proportions.check_first(columns, "schedule")
        if not self.phases and not self.upsample:  # only now, so that a recipe can leave it to those who run it
            raise RecipeError("schedule: give `phases`, or `upsample`: the groups that the last part of training has more of")
        for phase in _plan(self):
            proportions.check_source(phase.weights, columns, phase.what)
        by = proportions.column_of(self.by, self._sources, "schedule")
        return self if by == self.by else replace(self, by=by)

    @property
    def _sources(self) -> list[Any]:
        return [phase.weights for phase in _plan(self)]

    @property
    def _tape(self) -> Tape:
        return Tape(stage="schedule", by=self.by, seed=self.seed)

    def reads(self) -> tuple[str, ...]:
        return self._tape.reads()

    def writes(self) -> pa.Schema:
        names = [name for phase in _plan(self) for name in phase.names]
        return pa.schema([("_groups", pa.struct([(name, pa.uint16()) for name in names]))])

    def reasons(self) -> tuple[str, ...]:
        return "schedule.not_sampled", "schedule.no_group"

    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(weights for weights in self._sources if proportions.is_file(weights)))

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        found = proportions.steps(self, self._tape, partial(_lay, self), n_shards, n_docs, len(_plan(self)))
        return [*found, Step("tell", partial(_tell, self))]

    def open(self, task: Task) -> BatchFn:
        cuts = Cuts.of(task.state(self))
        if not task.shard:
            for note, n in cuts.notes.items():
                task.count(note, n)
        return partial(self._process, task, cuts, _plan(self))

    def _process(self, task: Task, cuts: Cuts, phases: Sequence[_Phase], batch: pa.RecordBatch) -> pa.RecordBatch:
        keys, known = self._tape.keys(batch, task.shard or 0)
        tokens = proportions.weights_of(batch)
        taken = np.zeros(batch.num_rows, np.int64)
        parts: dict[str, pa.Array] = {}
        for number, phase in enumerate(phases):
            copies = np.zeros(batch.num_rows, np.int64)
            copies[known] = cuts.copies(keys, number)
            if n := int((copies * tokens).sum()):
                task.count(f"tokens drawn for {phase.name}", n)
            parts.update((name, pa.array(copies, pa.uint16())) for name in phase.names)
            taken += copies
        groups = pa.StructArray.from_arrays(list(parts.values()), names=list(parts))
        epochs = np.zeros(batch.num_rows)
        epochs[known] = cuts.epochs_of(keys)
        why = pc.if_else(pa.array(known), "schedule.not_sampled", "schedule.no_group")
        columns = {
            "_groups": groups,
            REASON: pc.if_else(pa.array(taken > 0), pa.scalar(None, pa.string()), why),
            "_value": pa.array(epochs, mask=(taken > 0) | ~known),
        }
        return with_columns(batch, columns)


# --------------------------------------------------------------------------------------------- phases


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """One of `phases`, checked. share: not scaled yet."""

    name: str
    share: Fraction
    weights: Any = None
    upsample: Mapping[str, float] = field(default_factory=dict)
    fresh: bool = True
    orders: int = 1

    @property
    def what(self) -> str:
        return f"schedule: phase {self.name!r}"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the groups that it becomes."""
        return (self.name,) if self.orders == 1 else tuple(f"{self.name}-{n}" for n in range(1, self.orders + 1))


_KEYS = ("name", "share", "weights", "upsample", "documents", "orders")


def _plan(stage: Schedule) -> list[_Phase]:
    """The phases, with shares that sum to one. Raises RecipeError for those that make no sense."""
    given = stage.phases
    if given and stage.upsample:
        raise RecipeError("schedule: give `phases` or `upsample`, not both: a phase has an `upsample` of its own")
    default = ({"name": "stable", "share": 0.85}, {"name": "anneal", "share": 0.15, "upsample": stage.upsample})
    phases = [_phase(raw, n) for n, raw in enumerate(given or default, 1)]
    if len(phases) > MOST_PHASES:
        raise RecipeError(f"schedule: there are {len(phases)} phases; give at most {MOST_PHASES}")
    names = [name for phase in phases for name in phase.names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"schedule: two phases are called {twice[0]!r} (with `orders`, -1, -2, … is added); rename one")
    total = sum(phase.share for phase in phases)
    if min(abs(float(total) - whole) / whole for whole in (1, 100)) > ROUNDING:
        raise RecipeError(
            f"schedule: the shares of the phases sum to {float(total):.4g}; they have to sum to 1 (or 100, percent)"
        )
    return [replace(phase, share=phase.share / total) for phase in phases]


def _phase(raw: Any, number: int) -> _Phase:
    where = f"schedule: phase {number}"
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where} is {raw!r}; give a mapping with `name`, `share` and `weights`")
    for key in raw:
        if key not in _KEYS:
            raise RecipeError(f"{where} has no {key!r}{did_you_mean(str(key), _KEYS)}")
    name: Any = raw.get("name")
    share: Any = raw.get("share")
    if not isinstance(name, str) or not GROUP_NAME.fullmatch(name):
        raise RecipeError(f"{where} has the name {name!r}; give one of a-z, 0-9, '.', '_' and '-'")
    where = f"schedule: phase {name!r}"
    if not _is_number(share) or not 0 < share < math.inf:
        raise RecipeError(f"{where} has the share {share!r}; give one above 0, as a fraction of all tokens")
    if raw.get("weights") is not None:
        proportions.check_weights(raw["weights"], where)
    factors = raw.get("upsample") or {}
    if not isinstance(factors, Mapping):
        raise RecipeError(f"{where}: upsample is {factors!r}; give factors by group, such as {{math: 5}}")
    for group, factor in factors.items():
        if not _is_number(factor) or not 0 <= factor < math.inf:
            raise RecipeError(f"{where}: upsample.{group} is {factor!r}; give a number that is not negative")
    documents, orders = raw.get("documents", "fresh"), raw.get("orders", 1)
    if documents not in ("fresh", "repeated"):
        raise RecipeError(f"{where}: documents is {documents!r}; it is 'fresh' or 'repeated'")
    if not isinstance(orders, int) or isinstance(orders, bool) or not 1 <= orders <= MOST_ORDERS:
        raise RecipeError(f"{where}: orders is {orders!r}; give 1 to {MOST_ORDERS}")
    return _Phase(
        name=name,
        share=Fraction(repr(float(share))),
        weights=raw.get("weights"),
        upsample={mixtures.group_name(group): factor for group, factor in factors.items()},
        fresh=documents == "fresh",
        orders=orders,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --------------------------------------------------------------------------------------------- the fit


def _lay(stage: Schedule, task: Task, tokens: dict[str, int]) -> Layout:
    """From where to where each phase takes the tape of each group."""
    phases = _plan(stage)
    notes: dict[str, int] = {}
    shares = []
    for phase in phases:
        own, more = _shares(stage, phase, tokens, task)
        shares.append(own)
        notes.update(more)
    demand = {
        name: sum((phase.share * own[name] for phase, own in zip(phases, shares, strict=True)), Fraction(0)) for name in tokens
    }
    budget = proportions.budget_of(stage.tokens, demand, tokens, stage.max_repeats, "schedule")
    proportions.check_budget(budget, demand, tokens, stage.max_repeats, "or raise max_repeats", "schedule")
    positions: dict[str, list[int]] = {name: [] for name in tokens}
    furthest = dict.fromkeys(tokens, 0)
    for phase, own in zip(phases, shares, strict=True):
        for name in tokens:
            start = furthest[name] if phase.fresh else 0
            end = start + math.floor(phase.share * own[name] * budget)
            positions[name] += [start, end]
            furthest[name] = max(furthest[name], end)
    weights = [{name: float(share) for name, share in own.items()} for own in shares]
    budgets = [math.floor(phase.share * budget) for phase in phases]
    return Layout(positions, budgets, stage.tokens is not None, notes, {"tokens": budget, "weights": weights})


def _shares(stage: Schedule, phase: _Phase, tokens: dict[str, int], task: Task) -> tuple[Shares, dict[str, int]]:
    """The shares of groups in a phase."""
    by, what = stage._tape.by, phase.what
    found, notes = proportions.shares(phase.weights, tokens, by, task, what)
    left = None if stage.leave_out is None else mixtures.group_name(stage.leave_out)
    for name, source in [
        *((name, f"{what}: upsample") for name in phase.upsample),
        *([(left, "schedule: leave_out")] if left else []),
    ]:
        if name not in tokens:
            raise StageError(f"{source}: there is no document with {by} = {name!r}{did_you_mean(name, tokens)}")
    found = {n: share * Fraction(repr(float(phase.upsample.get(n, 1)))) * (n != left) for n, share in found.items()}
    if not any(found.values()):
        raise StageError(f"{what}: no group is left with a share above 0; give weights to others")
    return proportions.scaled(found), notes


def _tell(stage: Schedule, task: Task) -> None:
    """Write `schedule.json`."""
    if task.root is not None:
        cuts = Cuts.of(read_table(task.folder(stage) / "state.parquet"))
        write_json(task.kept(stage) / FILE, _told(stage, cuts))


def _told(stage: Schedule, cuts: Cuts) -> dict[str, Any]:
    asked = {g["group"]: lengths(g) for g in cuts.groups}
    drawn = {g["group"]: lengths(g, "drawn") for g in cuts.groups}
    there = {g["group"]: g["tokens"] for g in cuts.groups}

    def used(group: str, tokens: int) -> dict[str, float]:
        times = tokens / there[group] if there[group] else 0.0
        return {"used": min(times, 1.0), "epochs": times}

    phases = []
    for n, (phase, weights) in enumerate(zip(_plan(stage), cuts.about["weights"], strict=True)):
        groups = {
            name: {"weight": weights[name], "asked": asked[name][n], "drawn": drawn[name][n], **used(name, drawn[name][n])}
            for name in there
        }
        phases.append(
            {
                "name": phase.name,
                "groups_of_output": list(phase.names),
                "share": float(phase.share),
                "documents": "fresh" if phase.fresh else "repeated",
                "asked": sum(group["asked"] for group in groups.values()),
                "drawn": sum(group["drawn"] for group in groups.values()),
                "groups": groups,
            }
        )
    whole = {
        g["group"]: {
            "tokens": g["tokens"],
            "drawn": sum(lengths(g, "drawn")),
            "used": min(max(g["drawn"]) / g["tokens"], 1.0) if g["tokens"] else 0.0,
            "epochs": sum(lengths(g, "drawn")) / g["tokens"] if g["tokens"] else 0.0,
        }
        for g in cuts.groups
    }
    return {
        "format": FORMAT,
        "by": stage._tape.by,
        "unit": mixtures.UNIT,
        "tokens": cuts.about["tokens"],
        "drawn": sum(phase["drawn"] for phase in phases),
        "max_repeats": stage.max_repeats,
        "leave_out": stage.leave_out,
        "seed": stage.seed,
        "groups": whole,
        "phases": phases,
    }
