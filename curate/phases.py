"""What runs: phases of independent tasks, and the loop that takes batches through stages.

A `Phase` is one callable `(data, rank, world_size)`, which is datatrove's contract, so that any of its executors can run it.
A task may run twice or be killed anywhere: what it writes is named by fingerprints, appears whole or not at all, and is the
same every time. One empty file per task, written last, says that it is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import tokens
from curate.dataset import Dataset, Generation, Rebatch, Shard, layer_rows, rebatch, write_generation
from curate.errors import CurateError, ManifestError, StageError
from curate.plan import Column, Node, Pass
from curate.stage import (
    DROP_SCHEMA,
    PARENT,
    REASON,
    ROW,
    Batches,
    BatchFn,
    Expand,
    GlobalStage,
    Result,
    Stage,
    Task,
    with_columns,
)
from curate.storage import TableWriter, canonical, open_table, read_json, sha256_file, write_bytes, write_json, write_table

ADDRESS_BITS = 32
NOTES = b"curate.notes"


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every task of a run knows. generations: folders of documents so far, oldest first."""

    root: Path
    generations: tuple[str, ...] = ("documents",)
    tokenizer: str = tokens.ESTIMATE
    memory_limit: int = 4 << 30


class Work(Protocol):
    """The content of a phase: `run` does one task and returns its record (JSON values)."""

    def run(self, phase: Phase, rank: int) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Independent tasks of one kind. Calling it with a rank runs that task unless it is done."""

    name: str
    tasks: int
    stages: tuple[str, ...]
    fingerprint: str
    context: Context
    work: Work

    @property
    def folder(self) -> Path:
        return self.context.root / "phases" / self.name

    def _completion(self, rank: int) -> Path:
        return self.folder / "completions" / f"{rank:05d}"

    def done(self, rank: int) -> bool:
        """Whether a task has been completed, by this run or an earlier one."""
        return self._completion(rank).exists()

    def pending(self) -> list[int]:
        """Ranks that are still to be run."""
        folder = self.folder / "completions"
        done = {p.name for p in folder.iterdir()} if folder.exists() else set()
        return [r for r in range(self.tasks) if f"{r:05d}" not in done]

    def record(self, rank: int) -> dict[str, Any]:
        """What a completed task has to say."""
        return read_json(self.folder / "records" / f"{rank:05d}.json")

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of all tasks, in order."""
        return (self.record(rank) for rank in range(self.tasks))

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Run one task: the contract of a datatrove pipeline step. Returns `data` untouched."""
        if self.done(rank):
            return data
        started = time.perf_counter()
        try:
            record = self.work.run(self, rank)
        except BaseException as error:
            log = self.folder / "logs" / f"{rank:05d}.log"
            with contextlib.suppress(OSError):  # a full disk must not hide the error itself
                write_bytes(log, traceback.format_exc().encode())
            if isinstance(error, CurateError | OSError | MemoryError) or not isinstance(error, Exception):
                raise
            raise StageError(f"phase {self.name}, task {rank}: {type(error).__name__}: {error} (log: {log})") from error
        record = {"rank": rank, "seconds": round(time.perf_counter() - started, 4), **record}
        write_json(self.folder / "records" / f"{rank:05d}.json", record)
        write_bytes(self._completion(rank), b"")
        return data


# --------------------------------------------------------------------------------------------- batches through stages


class Sink(Protocol):
    """Where a chain puts what stages write and drop."""

    def layer(self, node: Node, batch: pa.RecordBatch) -> None: ...
    def drop(self, node: Node, drops: pa.RecordBatch) -> None: ...


class Chain:
    """Takes batches through map stages. Every stage sees the columns that it declared, and only the engine removes rows."""

    def __init__(self, nodes: Sequence[Node], task: Task, sink: Sink, tokenizer: str, keep: Iterable[str]):
        self._nodes, self._sink = nodes, sink
        self.notes: dict[str, dict[str, int]] = {node.key: {} for node in nodes}
        self._functions = [node.stage.open(replace(task, counters=self.notes[node.key])) for node in nodes]
        self._tokens = tokens.counter(tokenizer)
        needed = set(keep)
        self._needed: list[set[str]] = []
        for node in reversed(nodes):  # what later stages read: the rest need not be filtered and carried along
            self._needed.insert(0, needed)
            needed = needed | set(node.stage.reads())
        self.phase = task.phase

    def run(self, batches: Batches) -> Batches:
        """The surviving rows, with the columns that somebody still needs."""
        for batch in batches:
            yield from self._through(0, batch)

    def _through(self, first: int, batch: pa.RecordBatch) -> Batches:
        """A batch through the nodes from this one on, in parts from the first node on that takes no more rows at a time."""
        for k in range(first, len(self._nodes)):
            most = self._nodes[k].stage.most_rows
            if most and batch.num_rows > most:
                for start in range(0, batch.num_rows, most):
                    yield from self._through(k, batch.slice(start, most))
                return
            batch = self._apply(self._nodes[k], self._functions[k], self._needed[k], batch)
            if batch.num_rows == 0:
                return
        yield batch

    def _apply(self, node: Node, function: BatchFn, needed: set[str], batch: pa.RecordBatch) -> pa.RecordBatch:
        given = batch.select([ROW, *node.stage.reads()])
        out = run_guarded(node, lambda part: self._checked(node, function, part), given, self.phase)
        if len(node.writes):
            if "text" in node.writes.names:
                text = out["text"]
                out = with_columns(out, {"text_bytes": tokens.text_bytes(text), "tokens": self._tokens(text)})
            self._sink.layer(node, out.select([ROW, *node.writes.names]))
            batch = with_columns(batch, {name: out[name] for name in node.writes.names})
        batch = batch.select([n for n in batch.schema.names if n == ROW or n in needed])
        reason = out[REASON]
        if reason.null_count < len(reason):
            gone = pc.is_valid(reason)
            self._sink.drop(node, out.filter(gone).select(DROP_SCHEMA.names))
            batch = batch.filter(pc.invert(gone))
        return batch

    def _checked(self, node: Node, function: BatchFn, given: pa.RecordBatch) -> pa.RecordBatch:
        """One call of a stage, held to its contract; its output as `_row`, the declared columns and the drop columns."""
        out = function(given)
        where = f"stage {node.id!r}"
        if out.num_rows != given.num_rows or (ROW in out.schema.names and not out[ROW].equals(given[ROW])):
            raise StageError(f"{where} must return the rows it was given, in order: set `_reason` to drop a row")
        columns: dict[str, pa.Array] = {ROW: given[ROW]}
        for f in node.stage.writes():
            if f.name not in out.schema.names:
                raise StageError(f"{where} declares the column {f.name!r} but did not write it")
            column = out[f.name]
            columns[f.name] = column if column.type == f.type else column.cast(f.type)
        extra = set(out.schema.names) - set(given.schema.names) - set(columns) - set(DROP_SCHEMA.names)
        if extra:
            raise StageError(f"{where} wrote {sorted(extra)[0]!r} without declaring it in writes()")
        for f in DROP_SCHEMA:
            if f.name != ROW:
                columns[f.name] = out[f.name].cast(f.type) if f.name in out.schema.names else pa.nulls(len(out), f.type)
        unknown = set(pc.unique(columns[REASON]).to_pylist()) - {None, *node.stage.reasons()}
        if unknown:
            raise StageError(f"{where} gave the reason {sorted(unknown)[0]!r}, which reasons() does not list")
        return pa.RecordBatch.from_pydict(columns)


def run_guarded(node: Node, call: BatchFn, batch: pa.RecordBatch, phase: str) -> pa.RecordBatch:
    """`call(batch)`; if it raises, halves of the batch, down to the rows at fault, which get the reason `error.<Type>`.

    A CurateError is the stage's own word that something is wrong with more than a row, and is passed on, as is running out
    of memory. With `on_error: stop` the first failing row stops the run.
    """
    try:
        return call(batch)
    except (CurateError, MemoryError):
        raise
    except Exception as error:
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            parts = [run_guarded(node, call, part, phase) for part in (batch.slice(0, half), batch.slice(half))]
            return pa.concat_batches(parts)
        if node.item.policy.on_error == "stop":
            raise StageError(
                f"stage {node.id!r}, phase {phase}, row {batch[ROW][0]}: {type(error).__name__}: {error}"
            ) from error
        return with_columns(_nothing(node, batch[ROW]), {REASON: pa.array([f"error.{type(error).__name__}"])})


def _nothing(node: Node, rows: pa.Array) -> pa.RecordBatch:
    """Rows of which a stage wrote nothing, in the schema of what it writes and drops."""
    schema = pa.schema([*node.stage.writes(), *(f for f in DROP_SCHEMA if f.name != ROW)])
    return pa.RecordBatch.from_pydict({ROW: rows, **{f.name: pa.nulls(len(rows), f.type) for f in schema}})


class ShardSink:
    """Layers and drops of one shard as files. Drops are written after layers: a drops file says that the stage is done.

    Row groups of a layer follow from its rows alone and not from the batches that made them, since export looks at the sizes.
    """

    def __init__(self, root: Path, shard: str, nodes: Sequence[Node]):
        self._stack = contextlib.ExitStack()
        self._root, self._shard, self._nodes = root, shard, nodes
        self._layers: dict[str, tuple[TableWriter, Rebatch]] = {}
        self._drops: dict[str, list[pa.RecordBatch]] = {node.key: [] for node in nodes}
        self.notes: dict[str, dict[str, int]] = {}

    def __enter__(self) -> ShardSink:
        for node in self._nodes:
            if len(node.writes):
                schema = pa.schema([(ROW, pa.uint32()), *node.writes])
                path = self._root / node.layer / self._shard
                writer = self._stack.enter_context(TableWriter(path, schema, codec="lz4"))
                self._layers[node.key] = writer, Rebatch(node.stage.most_rows or layer_rows(schema))
        return self

    def layer(self, node: Node, batch: pa.RecordBatch) -> None:
        writer, full = self._layers[node.key]
        for group in full.push(batch):
            writer.write(group)

    def drop(self, node: Node, drops: pa.RecordBatch) -> None:
        self._drops[node.key].append(drops)

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._stack.__exit__(*error)
            return
        with self._stack:
            for writer, full in self._layers.values():
                for group in full.rest():
                    writer.write(group)
        for node in self._nodes:
            table = pa.Table.from_batches(self._drops[node.key], DROP_SCHEMA)
            if noted := self.notes.get(node.key):  # beside what says that the stage is done, so that it lives as long
                table = table.replace_schema_metadata({NOTES: canonical(dict(sorted(noted.items())))})
            write_table(self._root / node.drops / self._shard, table, codec="lz4")


# --------------------------------------------------------------------------------------------- kinds of work


def view(node: Node, context: Context) -> Dataset:
    """The documents as they stand before a node."""
    return dataset(context, node.generation, node.before, node.drops_before)


def dataset(context: Context, generation: int, columns: Mapping[str, Column], drops: tuple[str, ...]) -> Dataset:
    """The documents of a generation with these columns and drops."""
    if generation >= len(context.generations):
        raise ManifestError(f"{context.root} has not come that far: run the same command again")
    return Dataset(
        root=context.root,
        folder=context.generations[generation],
        columns={name: column.layer for name, column in columns.items()},
        drops=drops,
        types=pa.schema([(name, column.type) for name, column in columns.items()]),
    )


def _task(phase: Phase, rank: int, shard: int | None, shards: Sequence[str], nodes: Sequence[Node]) -> Task:
    context = phase.context
    return Task(
        phase=phase.name,
        rank=rank,
        shard=shard,
        memory_limit=context.memory_limit,
        folders=[(n.stage, n.id, context.root / n.state) for n in nodes],
        shards=shards,
        root=context.root,
    )


@dataclass(frozen=True)
class PassWork:
    """One pass over the shards of a generation.

    A task begins at the first of its stages that has not been done for its shard, so that an edited recipe redoes only what
    follows the edit. groups: for an Expand, which shards each of its tasks reads. state: all global stages so far.
    """

    work: Pass
    state: tuple[Node, ...]
    groups: tuple[tuple[int, ...], ...] = ()

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        context = phase.context
        generation = Generation.load(context.root, context.generations[self.work.last.generation])
        shards = self.groups[rank] if self.work.expand else (rank,)
        record: dict[str, Any] = {}
        if self.work.expand:
            record["shard"] = self._expand(phase, rank, shards, generation)
        else:
            for _ in self._stream(phase, rank, shards[0], generation, record):
                pass
        nodes = (*self.work.nodes, *filter(None, [self.work.expand]))
        record["stages"] = merge_tallies([tally(nodes, context, shard) for shard in shards])
        return record

    def _stream(self, phase: Phase, rank: int, shard: int, generation: Generation, record: dict[str, Any]) -> Batches:
        context, name = phase.context, generation.shards[shard].name
        nodes = self.work.nodes
        while nodes and (context.root / nodes[0].drops / name).exists():
            nodes = nodes[1:]
        reader = self.work.fit or self.work.expand
        if not nodes and not reader:
            return
        before = view(nodes[0] if nodes else self.work.last, context)
        keep: tuple[str, ...] = ()
        if self.work.fit:
            keep = _first_reads(self.work.fit, generation)
        elif self.work.expand:
            keep = tuple(_inherited(self.work.expand))
        made: set[str] = set()
        columns: dict[str, None] = {}
        for node in nodes:
            columns.update((c, None) for c in node.stage.reads() if c not in made)
            made.update(node.writes.names)
        columns.update((c, None) for c in keep if c not in made)
        task = _task(phase, rank, shard, [s.name for s in generation.shards], self.state)
        with ShardSink(context.root, name, nodes) as sink:
            chain = Chain(nodes, task, sink, context.tokenizer, keep)
            first = nodes[0] if nodes else self.work.expand
            pieces = first.stage.most_rows if first else 0
            rows = generation.shards[shard].documents
            stream = chain.run(_followed(task, before.read(shard, [c for c in columns if c != ROW], pieces=pieces), rows))
            if self.work.fit:
                _steps(self.work.fit, generation)[0].fn(task, stream)
            yield from stream  # what a step left unread still has to pass through the stages
            sink.notes = chain.notes
        if task.counters:
            record["counters"] = task.counters

    def _expand(self, phase: Phase, rank: int, shards: Sequence[int], generation: Generation) -> dict[str, Any]:
        context, node = phase.context, self.work.expand
        assert node is not None
        name = f"{rank:05d}.parquet"
        path = context.root / node.new_generation / name
        schema = generation_schema(node)
        totals = {"documents": 0, "bytes": 0, "tokens": 0}
        orphans: dict[int, list[pa.RecordBatch]] = {shard: [] for shard in shards}

        def children() -> Batches:
            for shard in shards:
                for batch in self._stream(phase, rank, shard, generation, {}):
                    made, gone = expand(node, batch, shard, schema, context.tokenizer, phase.name)
                    if gone.num_rows:
                        orphans[shard].append(gone)
                    yield made

        with TableWriter(path, schema, codec="lz4") as writer:
            for batch in rebatch(children()):
                writer.write(batch)
                totals["documents"] += batch.num_rows
                totals["bytes"] += pc.sum(batch["text_bytes"]).as_py() or 0
                totals["tokens"] += pc.sum(batch["tokens"]).as_py() or 0
        for shard in shards:
            table = pa.Table.from_batches(orphans[shard], DROP_SCHEMA)
            write_table(context.root / node.drops / generation.shards[shard].name, table, codec="lz4")
        return {"name": name, **totals, "sha256": sha256_file(path), "parents": list(shards)}


def _steps(node: Node, generation: Generation) -> list:
    assert isinstance(node.stage, GlobalStage)
    return node.stage.steps(len(generation.shards), generation.documents)


def _first_reads(node: Node, generation: Generation) -> tuple[str, ...]:
    return tuple(c for c in _steps(node, generation)[0].reads or () if c != ROW)


def _inherited(node: Node) -> list[str]:
    return list(dict.fromkeys([*node.before, *node.stage.reads()]))


def generation_schema(node: Node) -> pa.Schema:
    """Columns of the documents that an Expand stage writes: everything inherited, what it writes, and `_parent`."""
    fields = {name: column.type for name, column in node.before.items()}
    fields.update((f.name, f.type) for f in node.writes)
    fields[PARENT] = pa.uint64()
    return pa.schema(list(fields.items()))


def expand(
    node: Node, batch: pa.RecordBatch, shard: int, schema: pa.Schema, tokenizer: str, phase: str
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """(the new documents, drops of parents without any) of one batch."""
    stage = node.stage
    assert isinstance(stage, Expand)
    parts: list[pa.RecordBatch] = []

    def call(part: pa.RecordBatch) -> pa.RecordBatch:
        parts.append(_children(node, stage, part))
        return _nothing(node, part[ROW])

    given = batch.select([ROW, *stage.reads()])
    outcome = run_guarded(node, call, given, phase)
    errors = outcome.filter(pc.is_valid(outcome[REASON])).select(DROP_SCHEMA.names)  # only the guard gives a reason
    made = pa.concat_batches(parts or [pa.RecordBatch.from_pylist([], pa.schema([(PARENT, pa.uint32()), *stage.writes()]))])
    rows = batch[ROW].to_numpy()
    parent = made[PARENT].to_numpy()
    at = np.searchsorted(rows, parent)
    inherited = [n for n in schema.names if n in batch.schema.names and n not in made.schema.names]  # the rest may be large
    columns = {name: batch[name].take(pa.array(at)) for name in inherited}
    columns.update((f.name, made[f.name]) for f in stage.writes())
    if "text" in node.writes.names:
        columns["text_bytes"] = tokens.text_bytes(columns["text"])
        columns["tokens"] = tokens.counter(tokenizer)(columns["text"])
    columns[PARENT] = pa.array((np.uint64(shard) << np.uint64(ADDRESS_BITS)) | parent.astype(np.uint64))
    if not stage.keeps_id:
        first = np.searchsorted(parent, parent)
        nth = pa.array(np.arange(len(parent)) - first).cast(pa.string())
        columns["id"] = pc.binary_join_element_wise(columns["id"], pc.binary_join_element_wise(f"#{node.id}", nth, "."), "")
    childless = np.setdiff1d(rows, parent)
    gone = pa.RecordBatch.from_pydict(
        {f.name: pa.array(childless) if f.name == ROW else pa.nulls(len(childless), f.type) for f in DROP_SCHEMA}
    )
    gone = with_columns(gone, {REASON: pa.array(["no_output"] * len(childless), pa.string())})
    if errors.num_rows:
        gone = gone.filter(pc.invert(pc.is_in(gone[ROW], value_set=errors[ROW])))
        gone = pa.concat_batches([gone, errors]).sort_by(ROW)
    return pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema=schema), gone


def _children(node: Node, stage: Expand, given: pa.RecordBatch) -> pa.RecordBatch:
    out = stage.expand(given)
    names = [PARENT, *stage.writes().names]
    missing = [n for n in names if n not in out.schema.names]
    if missing:
        raise StageError(f"stage {node.id!r}: expand() did not return {missing[0]!r}")
    parent = out[PARENT].cast(pa.uint32()).to_numpy()
    if len(parent) and (np.any(np.diff(parent.astype(np.int64)) < 0) or not np.isin(parent, given[ROW].to_numpy()).all()):
        raise StageError(f"stage {node.id!r}: expand() must return children in the order of their parents, by `_row`")
    columns = {PARENT: pa.array(parent), **{f.name: out[f.name].cast(f.type) for f in stage.writes()}}
    return pa.RecordBatch.from_pydict(columns)


def _followed(task: Task, batches: Batches, documents: int) -> Batches:
    """The batches of a shard; the task knows how far they are."""
    for batch in batches:
        task.share = (batch[ROW][-1].as_py() + 1) / documents
        yield batch


@dataclass(frozen=True)
class StepWork:
    """A later step of a fit: the index of the step, for which the stage is asked again in the worker."""

    node: Node
    step: int
    state: tuple[Node, ...]

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        context = phase.context
        generation = Generation.load(context.root, context.generations[self.node.generation])
        step = _steps(self.node, generation)[self.step]
        shard = rank if step.reads is not None else None
        task = _task(phase, rank, shard, [s.name for s in generation.shards], self.state)
        if step.reads is not None:
            rows = None if step.rows is None else step.rows(task)
            batches = view(self.node, context).read(rank, [c for c in step.reads if c != ROW], rows)
            step.fn(task, _followed(task, batches, generation.shards[rank].documents))
        else:
            step.fn(task)
        return {"counters": task.counters} if task.counters else {}


@dataclass(frozen=True)
class GenerationWork:
    """Writes the manifest of a new generation when all its shards are there."""

    node: Node
    shards: Phase

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        shards = [Shard(**{**r["shard"], "parents": tuple(r["shard"]["parents"])}) for r in self.shards.records()]
        root, folder = phase.context.root, self.node.new_generation
        write_generation(root, folder, generation_schema(self.node), shards, stage=self.node.id)
        return {"documents": sum(s.documents for s in shards)}


# --------------------------------------------------------------------------------------------- what the files say


def notes(node: Node, context: Context) -> dict[str, int]:
    """What the tasks of a map stage counted (`Task.count`), over all shards."""
    found: dict[str, int] = {}
    if isinstance(node.stage, Expand):
        return found
    for shard in Generation.load(context.root, context.generations[node.generation]).shards:
        with open_table(context.root / node.drops / shard.name) as file:
            metadata = file.schema_arrow.metadata or {}
        for text, n in json.loads(metadata.get(NOTES, b"{}")).items():
            found[text] = found.get(text, 0) + n
    return found


def tally(nodes: Sequence[Node], context: Context, shard: int) -> dict[str, Any]:
    """Per stage of a pass: rows that reached it, drops by reason, and by group where its blast radius is limited."""
    found: dict[str, Any] = {}
    if not nodes:
        return found
    first = view(nodes[0], context)
    name = first.generation.shards[shard].name
    limited = [n for n in nodes if n.item.policy.max_drop is not None]
    rows = first.survivors(shard)
    for node in nodes:
        with open_table(context.root / node.drops / name) as file:
            drops = file.read([ROW, REASON], use_threads=False)
        gone = drops[ROW].to_numpy()
        reasons = pc.value_counts(drops[REASON]).to_pylist() if len(gone) else []
        entry: dict[str, Any] = {"rows_in": len(rows), "drops": {r["values"]: r["counts"] for r in reasons}}
        if node in limited:
            entry["groups"] = _groups(view(node, context), shard, rows, gone)
        found[node.id] = entry
        rows = np.setdiff1d(rows, gone, assume_unique=True)
    return found


def _groups(before: Dataset, shard: int, rows: np.ndarray, gone: np.ndarray) -> dict[str, list[int]]:
    """{"corpus=x": [reached, dropped]} for the groups by which the blast radius is measured."""
    by = [c for c in ("corpus", "language") if c in before.columns]
    groups: dict[str, list[int]] = {}
    for batch in before.read(shard, by, rows):
        dropped = np.isin(batch[ROW].to_numpy(), gone)
        for column in by:
            for part, at in ((batch[column], 0), (batch[column].filter(pa.array(dropped)), 1)):
                for count in pc.value_counts(part).to_pylist():
                    groups.setdefault(f"{column}={count['values']}", [0, 0])[at] += count["counts"]
    return groups


def merge_tallies(tallies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up tallies of several shards."""
    total: dict[str, Any] = {}
    for found in tallies:
        for stage, entry in found.items():
            sum_ = total.setdefault(stage, {"rows_in": 0, "drops": {}})
            sum_["rows_in"] += entry["rows_in"]
            for reason, n in entry["drops"].items():
                sum_["drops"][reason] = sum_["drops"].get(reason, 0) + n
            for group, (reached, dropped) in entry.get("groups", {}).items():
                old = sum_.setdefault("groups", {}).get(group, [0, 0])
                sum_["groups"][group] = [old[0] + reached, old[1] + dropped]
    return total


# --------------------------------------------------------------------------------------------- in memory


@dataclass
class _MemorySink:
    layers: list[pa.RecordBatch] = field(default_factory=list)
    drops: list[pa.RecordBatch] = field(default_factory=list)

    def layer(self, node: Node, batch: pa.RecordBatch) -> None:
        self.layers.append(batch)

    def drop(self, node: Node, drops: pa.RecordBatch) -> None:
        self.drops.append(drops)


def in_memory(stage: Stage, data: Any) -> Result:
    """Run one stage, and before it those that it needs, over a table in memory: the same loop as on disk, with a temporary
    folder for the state of a fit."""
    from curate.memory import as_table

    table = as_table(data)
    gone = []
    for needed in stage.needs().values():
        before = in_memory(needed, table)
        table = before.kept
        gone.append(before.dropped)
    result = _alone(stage, table)
    lost = [part for part in gone if part.num_rows]
    return replace(result, dropped=pa.concat_tables([*lost, result.dropped], promote_options="default")) if lost else result


def _alone(stage: Stage, table: pa.Table) -> Result:
    from curate.memory import bind

    node = bind(stage, table.schema)
    stage = node.stage
    batches = list(rebatch(table.append_column(ROW, pa.array(np.arange(len(table), dtype=np.uint32))).to_batches()))
    if isinstance(stage, Expand):
        return _expand_in_memory(stage, node, batches, table)
    scratch = _Scratch()
    again = None
    if isinstance(stage, GlobalStage):
        _fit_in_memory(node, batches, table, scratch.path)
        if type(stage).rethresholded is not GlobalStage.rethresholded:
            again = partial(_again, node, batches, table, scratch)
    return _decided(node, batches, table, scratch.path, again)


class _Scratch:
    """A temporary folder that lives as long as something names it: a result from whose evidence others can be made."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="curate-")
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _memory_task(node: Node, scratch: str) -> Task:
    folders = [(node.stage, node.id, Path(scratch))]
    return Task(phase="in-memory", rank=0, shard=0, folders=folders, shards=["0.parquet"])


def _fit_in_memory(node: Node, batches: list[pa.RecordBatch], table: pa.Table, scratch: str, first: str | None = None) -> None:
    """Run the fit, or what is left of it from the step `first`."""
    stage = node.stage
    assert isinstance(stage, GlobalStage)
    task = _memory_task(node, scratch)
    steps = stage.steps(1, len(table))
    names = [step.name for step in steps]
    for step in steps[names.index(first) if first else 0 :]:
        for rank in range(1 if step.reads is not None else step.tasks):
            part = replace(task, rank=rank, shard=0 if step.reads is not None else None)
            if step.reads is not None:
                columns = [ROW, *(c for c in step.reads if c != ROW)]
                step.fn(part, rows_of((b.select(columns) for b in batches), None if step.rows is None else step.rows(part)))
            else:
                step.fn(part)


def rows_of(batches: Batches, rows: np.ndarray | None) -> Batches:
    """The rows of the batches with these numbers (all if None); no empty batches."""
    for batch in batches:
        if rows is not None:
            batch = batch.filter(pa.array(np.isin(batch[ROW].to_numpy(), rows)))
        if batch.num_rows or rows is None:
            yield batch


def _again(node: Node, batches: list[pa.RecordBatch], table: pa.Table, evidence: _Scratch, threshold: float) -> Result:
    stage = node.stage
    assert isinstance(stage, GlobalStage)
    found = stage.rethresholded(threshold)
    assert found is not None
    moved = replace(node, item=replace(node.item, stage=found[0]))
    copied = _Scratch()  # what it finds must not overwrite what the first result was made of
    shutil.copytree(evidence.path, copied.path, dirs_exist_ok=True, copy_function=os.link)
    _fit_in_memory(moved, batches, table, copied.path, found[1])
    return _decided(moved, batches, table, copied.path, partial(_again, node, batches, table, evidence))


def _decided(
    node: Node, batches: list[pa.RecordBatch], table: pa.Table, scratch: str, again: Callable[[float], Result] | None
) -> Result:
    """What the stage, its fit done, says about the batches."""
    from curate.memory import warn_blast_radius

    sink = _MemorySink()
    for _ in Chain([node], _memory_task(node, scratch), sink, tokens.ESTIMATE, ()).run(iter(batches)):
        pass
    if len(node.writes):
        written = pa.Table.from_batches(sink.layers, pa.schema([(ROW, pa.uint32()), *node.writes]))
        for name in node.writes.names:
            at = table.schema.get_field_index(name)
            table = table.append_column(name, written[name]) if at < 0 else table.set_column(at, name, written[name])
    drops = pa.Table.from_batches(sink.drops, DROP_SCHEMA).combine_chunks()
    gone = np.zeros(len(table), bool)
    gone[drops[ROW].to_numpy()] = True
    dropped = table.filter(pa.array(gone))
    for name in DROP_SCHEMA.names[1:]:
        dropped = dropped.append_column(name, drops[name])
    warn_blast_radius(node, table, gone)
    return Result(kept=table.filter(pa.array(~gone)), dropped=dropped, again=again)


def _expand_in_memory(stage: Expand, node: Node, batches: list[pa.RecordBatch], table: pa.Table) -> Result:
    schema = generation_schema(node)
    made, gone = [], []
    for batch in batches:
        children, orphans = expand(node, batch, 0, schema, tokens.ESTIMATE, "in-memory")
        made.append(children)
        gone.append(orphans)
    drops = pa.Table.from_batches(gone, DROP_SCHEMA)
    dropped = table.take(drops[ROW])
    for name in DROP_SCHEMA.names[1:]:
        dropped = dropped.append_column(name, drops[name])
    return Result(kept=pa.Table.from_batches(made, schema).drop_columns([PARENT]), dropped=dropped)
