"""What a stage is: the classes that stage authors subclass, and what they are handed.

A stage is a frozen dataclass of plain parameters. It declares the columns that it reads and writes, and turns batches
into batches; the engine owns everything else: storage, phases, resume, the ledger, and the removal of rows. A stage that
has to see the whole corpus before it can decide (dedup, quantiles, clusters) is the same thing plus a *fit* that the
planner spreads over phases (`GlobalStage`).

The columns that begin with an underscore belong to the engine:

    _row            uint32   row number of the document in its shard, ascending within a shard
    _reason         string   set by a stage to drop the row: a code out of `Stage.reasons()`
    _value          float64  optional, the value that decided
    _duplicate_of   string   optional, id of the document that was kept instead
    _similarity     float64  optional, measured similarity to it
    _parent         uint32   in the output of `Expand.expand`: the `_row` of the document that a row was made from
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from curate.errors import StageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl

Batches = Iterator[pa.RecordBatch]
BatchFn = Callable[[pa.RecordBatch], pa.RecordBatch]

ROW = "_row"
PARENT = "_parent"
REASON = "_reason"
DROP_SCHEMA = pa.schema(
    [
        (ROW, pa.uint32()),
        (REASON, pa.string()),
        ("_value", pa.float64()),
        ("_duplicate_of", pa.string()),
        ("_similarity", pa.float64()),
    ]
)
EMPTY = pa.schema([])


def with_columns(batch: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """The batch with `columns` added, or replaced where the name exists."""
    for name, values in columns.items():
        at = batch.schema.get_field_index(name)
        batch = batch.append_column(name, values) if at < 0 else batch.set_column(at, name, values)
    return batch


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one task of a stage needs. The planner cuts a phase where neighbours differ.

    cpu: cores; gpu: devices; memory: bytes, or None for the engine's default; io: waits for a network rather than
    computes, so it runs in one process with asynchronous concurrency.
    """

    cpu: int = 1
    gpu: int = 0
    memory: int | None = None
    io: bool = False


@dataclass(kw_only=True)
class Task:
    """One unit of work of a phase, as a stage sees it.

    rank is the number of the task in its phase; shard the number of the shard, for tasks that work on one. Counters are for
    people and never decide anything: what a map stage counts is shown as notes under the stage, at the end of a run and in its
    report ("12 documents of unknown language"), what a step of a fit counts is in the record of the task. shards: names of all
    shards, in order. partitions: of the fit at hand. root: the run folder, where there is one. share: how much of its shard a
    task has been handed so far, 0 to 1, to tell how long it will take. There is no seed here: a stage that draws has a
    parameter `seed`, which its fingerprint knows.
    """

    phase: str
    rank: int
    shard: int | None = None
    memory_limit: int = 2 << 30
    folders: Sequence[tuple[Stage, str, Path]] = ()
    shards: Sequence[str] = ()
    partitions: int = 1
    counters: dict[str, int] = field(default_factory=dict)
    root: Path | None = None
    share: float | None = None

    def count(self, key: str, n: int = 1) -> None:
        """Add n to a counter of this task's record."""
        self.counters[key] = self.counters.get(key, 0) + n

    def peak(self, key: str, n: int) -> None:
        """Raise a counter of this task's record to at least n."""
        self.counters[key] = max(self.counters.get(key, 0), n)

    def cached(self, key: Any, load: Callable[[], Any]) -> Any:
        """`load()`, kept for the life of the process: for models and word lists."""
        if key not in _CACHE:
            _CACHE[key] = load()
        return _CACHE[key]

    def folder(self, stage: Stage | str) -> Path:
        """Scratch folder of a global stage (the stage itself, or the id of an earlier one)."""
        for known, stage_id, folder in self.folders:
            if known is stage or stage_id == stage:
                return folder
        raise StageError(f"phase {self.phase}: no state of {stage!r} here; name the id of an earlier global stage")

    def kept(self, stage: Stage) -> Path:
        """Folder of the run for what a global stage keeps beyond it, for other runs: `index/<stage>` with its fingerprint."""
        if self.root is None:
            raise StageError(f"{type(stage).__name__}: an index is kept in a run folder, and there is none in memory")
        return self.root / "index" / self.folder(stage).name

    def state(self, stage: Stage | str) -> pa.Table:
        """What the fit of a global stage found: its whole table, or the rows of this shard if it decides rows."""
        from curate.storage import read_table

        folder = self.folder(stage)
        if self.shard is not None and getattr(stage, "decides_rows", False):
            return read_table(folder / "rows" / self.shards[self.shard])
        return read_table(folder / "state.parquet")


_CACHE: dict[Any, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe: a frozen dataclass of plain parameters (scalars, strings, tuples, mappings of those).

    Subclass `Annotator`, `Filter`, `Expand` or `GlobalStage` where one fits. Subclass `Stage` itself for a map stage that
    both writes columns and drops rows, and give `process`.

    Class attributes: `version` is part of the fingerprint, raise it when the output changes. `resources` is what a task
    needs. `max_drop` and `max_cluster` are the default blast radius (None: unchecked); a recipe sets them beside the stage.
    `most_rows` is for columns many times as large as the text: the rows that the stage is given at a time at most, and those of
    a row group of what it writes (0: as many as a batch has). `outputs` names files that the fit of a global stage leaves in
    `Task.kept` and that belong into the output, beside the data.
    `example` holds parameters with which the stage can be made, for the conformance suite and the reference.
    """

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources()
    max_drop: ClassVar[float | None] = None
    max_cluster: ClassVar[int | None] = None
    most_rows: ClassVar[int] = 0
    outputs: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[Mapping[str, Any]] = {}

    def needs(self) -> Mapping[str, Stage]:
        """Stages that run just before this one, by what is added to its id: `{"losses": …}` is `<id>.losses`.

        For what is dear to compute and stays when only the decision changes: each has a fingerprint, columns and notes of its
        own, and those parameters of this stage that it is not handed do not touch it.
        """
        return {}

    def reads(self) -> tuple[str, ...]:
        """Columns that `process` needs. It is handed these and `_row`, nothing else."""
        return ("text",)

    def bound(self, columns: Collection[str]) -> Stage:
        """This stage as it is to run where these columns exist: for one that reads a column only where there is one."""
        return self

    def writes(self) -> pa.Schema:
        """Columns that `process` adds or replaces. `text` here means that the text changes."""
        return EMPTY

    def reasons(self) -> tuple[str, ...]:
        """Every code that `_reason` may hold."""
        return ()

    def files(self) -> tuple[str, ...]:
        """Paths whose contents decide the result (models, lists). Their digests enter the fingerprint."""
        return ()

    def ready(self) -> None:
        """Raise StageError where something outside of the run is missing that this stage will need, such as an endpoint.

        Called once, before any work of a run that has not come to this stage yet, so that nobody waits for hours to hear it.
        """

    def open(self, task: Task) -> BatchFn:
        """The function for the batches of one task. Load models here (`task.cached`), never in a constructor."""
        return self.process

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows in the same order with the columns of `writes()`; a non-null `_reason` drops a row."""
        raise NotImplementedError

    def __call__(self, data: Any) -> Result:
        """Run this stage in memory, fit included.

        data: a pyarrow Table or RecordBatch, a Polars or pandas frame, a Hugging Face dataset, or a sequence of strings
        (which get the ids "0", "1", …). Missing document fields are filled in as ingest would.
        """
        from curate.phases import in_memory

        return in_memory(self, data)


@dataclass(frozen=True, kw_only=True)
class Annotator(Stage):
    """Writes columns and never drops a row: give `annotate` and `writes`."""

    def annotate(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """The columns of `writes()`, each as long as the batch."""
        raise NotImplementedError

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_columns(batch, self.annotate(batch))


@dataclass(frozen=True, kw_only=True)
class Filter(Stage):
    """Drops rows by the columns that it reads: give `reject` and `reasons`."""

    def reject(self, batch: pa.RecordBatch) -> pa.Array:
        """String array as long as the batch: null to keep the row, else a code out of `reasons()`."""
        raise NotImplementedError

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_columns(batch, {REASON: self.reject(batch)})


@dataclass(frozen=True, kw_only=True)
class Expand(Stage):
    """Makes rows out of rows, any number per parent: give `expand`. Ends its phase and begins a new generation.

    Every column of the parent is inherited unless it is written anew. Unless `keeps_id`, the k-th child of a parent is named
    `<parent id>#<stage id>.<k>`. A parent without children counts as dropped, with the reason `no_output`.
    """

    keeps_id: ClassVar[bool] = False

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows in the order of their parents: `_parent` (uint32, a `_row` of the batch) and the columns of `writes()`."""
        raise NotImplementedError

    def reasons(self) -> tuple[str, ...]:
        return ("no_output",)

    def group(self, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
        """Which shards of the old generation make which shard of the new one. Default: one makes one.

        sizes: (surviving documents, surviving text bytes) of each shard, in order.
        """
        return [[i] for i in range(len(sizes))]


@dataclass(frozen=True)
class Step:
    """One phase of a fit.

    With `reads` set, the step has one task per shard and `fn(task, batches)` is given the surviving batches with these
    columns (the planner lets the first such step share the pass of the stages before it). Else the step has `tasks` tasks and
    `fn(task)` works in `task.folder(stage)`. `fn` must be picklable: a bound method or a partial of a module-level function.
    Every file that it writes goes through `curate.storage`, so that nobody can read half of it. rows: for a later step with
    `reads` that needs only some rows, gives their numbers (uint32, ascending, of surviving rows), so that no others are read.
    """

    name: str
    fn: Callable[..., None]
    tasks: int = 1
    reads: tuple[str, ...] | None = None
    rows: Callable[[Task], np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True)
class GlobalStage(Stage):
    """A stage with a fit over the whole corpus before its `process`.

    The default fit has three steps. `summarize` runs once per shard and yields small tables, each for one partition;
    `reduce` runs once per partition over all shards; `finish` runs once, and what it returns is `task.state(self)` in
    `open`. A stage that decides about single rows sets `decides_rows`: its `reduce` returns tables with the columns `shard`
    and `row` (uint32), there is no `finish`, and `task.state(self)` is the part for the shard at hand, sorted by row.
    A stage with another shape of fit returns its own `steps`.
    """

    decides_rows: ClassVar[bool] = False

    def fit_reads(self) -> tuple[str, ...]:
        """Columns that `summarize` needs."""
        return self.reads()

    def partitions(self, n_docs: int) -> int:
        """Number of partitions: a fixed function of the document count, never of workers or memory."""
        return 1

    def summarize(self, batches: Batches, task: Task) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(partition, table) pairs out of the documents of one shard."""
        raise NotImplementedError

    def reduce(self, tables: Iterator[pa.Table], task: Task) -> pa.Table:
        """One table out of the tables of one partition (`task.rank`), in the order of the shards."""
        return _concat(tables)

    def finish(self, tables: Iterator[pa.Table], task: Task) -> pa.Table:
        """One table out of all partitions, in order."""
        return _concat(tables)

    def rethresholded(self, threshold: float) -> tuple[GlobalStage, str] | None:
        """This stage with another threshold, and the step from which its fit has to be run again; None if it has none.

        Raises ValueError where the evidence of the fit does not reach so far.
        """
        return None

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        """The phases of the fit, in order."""
        from curate import fit

        parts = self.partitions(n_docs)
        steps = [
            Step("summarize", partial(fit.summarize, self, n_docs), reads=self.fit_reads()),
            Step("reduce", partial(fit.reduce, self, parts), tasks=parts),
        ]
        if self.decides_rows:
            return [*steps, Step("deliver", partial(fit.deliver, self, parts), tasks=fit.shard_groups(n_shards))]
        return [*steps, Step("finish", partial(fit.finish, self, parts))]


def _concat(tables: Iterator[pa.Table]) -> pa.Table:
    return pa.concat_tables(list(tables))


@dataclass(frozen=True)
class Result:
    """What a stage did in memory: `kept` and `dropped` tables. `dropped` says why in `_reason` and its neighbours."""

    kept: pa.Table
    dropped: pa.Table
    again: Callable[[float], Result] | None = field(default=None, repr=False, compare=False)

    def rethreshold(self, threshold: float) -> Result:
        """What the stage would have decided with another threshold, from the evidence that it has already.

        Raises ValueError where the stage has no threshold, or the evidence does not reach so far.
        """
        if self.again is None:
            raise ValueError("this stage has no threshold to be moved")
        return self.again(threshold)

    def to_polars(self) -> pl.DataFrame:
        """The kept documents as a Polars frame."""
        import polars as pl

        return pl.DataFrame(self.kept)

    def to_pandas(self) -> pd.DataFrame:
        """The kept documents as a pandas frame."""
        return self.kept.to_pandas()

    def __repr__(self) -> str:
        why: dict[str, int] = {}
        for reason in self.dropped[REASON].to_pylist():
            why[reason] = why.get(reason, 0) + 1
        reasons = ", ".join(f"{k}: {v}" for k, v in sorted(why.items(), key=lambda kv: -kv[1]))
        return f"Result(kept={self.kept.num_rows}, dropped={self.dropped.num_rows}{' {' + reasons + '}' if reasons else ''})"


def param_fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The parameters of a parameter class by the name that a recipe gives them.

    That is the name of the field, unless `field(metadata={"key": ...})` says otherwise: a parameter cannot be a field called
    `reads` or `writes`, since these are methods of every stage.
    """
    return {f.metadata.get("key", f.name): f for f in dataclasses.fields(cls)}


def operational(default: Any) -> Any:
    """A parameter that says how a stage gets its result (limits, places), not which: no part of the fingerprint.

    A run whose stage differs in nothing else goes on with what is there.
    """
    return dataclasses.field(default=default, metadata={"decides": False})


def deciding(stage: Stage) -> dict[str, Any]:
    """The parameters of a stage that decide about its result, as `params` gives them."""
    fields = param_fields(type(stage))
    return {key: value for key, value in params(stage).items() if fields[key].metadata.get("decides", True)}


def params(stage: Stage) -> dict[str, Any]:
    """The parameters of a stage as plain values, in the order of their declaration, by their names in a recipe."""
    return {key: getattr(stage, f.name) for key, f in param_fields(type(stage)).items()}
