"""`check_stage(stage)`: whether a stage keeps the promises that the engine builds on, in the spirit of scikit-learn's
`check_estimator`.

It runs on every stage that comes with Curate, and is meant for the test-suites of plug-ins:

    from curate.testing import check_stage

    def test_poetry():
        check_stage(Poetry(metre="iambic"))

Each check is a function of the stage and some hostile documents, and fails with one line that names the stage and the remedy.
What a stage is for it cannot know: that takes a test of its own.
"""

from __future__ import annotations

import builtins
import dataclasses
import doctest
import io
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import plan, tokens
from curate.errors import CurateError
from curate.memory import as_table, bind
from curate.plan import Node
from curate.stage import DROP_SCHEMA, PARENT, REASON, ROW, Batches, Expand, GlobalStage, Stage, Task, param_fields, params

LAZY = (  # packages that are imported where they are used, so that `curate --help` is quick and extras stay optional
    "datasets datatrove faiss fasttext lightgbm numba polars sentence_transformers sklearn torch trafilatura transformers"
).split()


def check_stage(stage: Stage, data: Any = None) -> None:
    """Run every check on a stage; the first that fails raises AssertionError.

    data: documents with the columns that the stage reads, where the ones made here (`documents`) would not do.
    """
    table = documents(stage) if data is None else as_table(data)
    for check in CHECKS:
        check(stage, table)
    check_elsewhere([stage])


# --------------------------------------------------------------------------------------------- documents


def hostile_texts() -> list[str | None]:
    """Texts that stages have fallen over: empty, missing, one line of 1 MB, every Unicode plane, scripts without spaces, …"""
    planes = "".join(chr((plane << 16) + at) for plane in range(17) for at in (0x00, 0x41, 0x100, 0xD7FF, 0xE000, 0xFFFD))
    prose = "It was a bright cold day in April, and the clocks were striking thirteen. "
    return [
        "",
        None,
        " \t\r\n\v\f\x85\u00a0\u2028\u3000",
        "x",
        prose,
        prose * 3,
        prose.upper() * 3,
        prose,  # a duplicate
        "Ein kalter, heller Apriltag, und die Uhren schlugen dreizehn. " * 4,
        "這是四月中一個晴朗而寒冷的日子，時鐘敲了十三下。" * 20,
        "四月の晴れた寒い日だった。時計が十三回鳴った。" * 20,
        "في يوم بارد ومشرق من أيام شهر نيسان، دقت الساعة الثالثة عشرة. " * 5,
        "มันเป็นวันที่อากาศหนาวและสดใสในเดือนเมษายน" * 10,
        "Это был яркий холодный апрельский день. " * 5,
        planes,
        "\x00\x01\x7f\ufeff\ufffe\uffff\u200b\u202e text with controls \x00",
        "e\u0301\u0302" * 50 + " \u1100\u1161\u11a8 \ufb01 ﷺ İıſß ΣΑΣ",
        "👩‍👩‍👧‍👦🏳️‍🌈" * 40,
        "x" * 1_000_000,
        "\n\n".join([prose * 40] * 12),
        "\n" * 5000,
        "<p>half a <b>page</p> &amp; \\n \\u0000 %s {0} ${x}",
        "1 2 3 4.5 6,7 $8 9%",
        "- a\n- b\n- c\n" * 30,
        "word " * 3000,
    ]


def documents(stage: Stage) -> pa.Table:
    """Hostile documents with every column that the stage reads, and nulls in all that may be null."""
    texts = hostile_texts()
    n = len(texts)
    rng = np.random.default_rng(0)

    def some(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([None if i % 5 == 3 else v for i, v in enumerate(values)], kind)

    columns: dict[str, pa.Array] = {
        "id": pa.array([f"doc-{i}" for i in range(n)]),
        "text": pa.array(texts, pa.string()),
        "url": some([f"https://host{i % 4}.example/{i}?q=ü" for i in range(n)], pa.string()),
        "date": some([f"2026-01-{1 + i:02d}T00:00:00Z" for i in range(n)], pa.string()),
        "declared_language": some(["en", "de"] * n, pa.string())[:n],
        "media_type": some(["text/html"] * n, pa.string()),
        "raw_bytes": pa.array(range(n), pa.uint32()),
        "corpus": pa.array(["a" if i % 3 else "b" for i in range(n)]),
        "file": pa.array([f"f{i // 10}.warc.gz" for i in range(n)]),
        "record": pa.array(range(n), pa.int64()),
        "html": some([f"<html><body><article><p>{t or ''}</p></article></body></html>".encode() for t in texts], pa.binary()),
    }
    needed = {f.name: f.type for brought in stage.needs().values() for f in brought.writes()}
    for name in wanted(stage):
        if name not in columns and name not in ("text_bytes", "tokens", ROW):
            columns[name] = _values(needed.get(name) or _type_of(name), n, rng)
    return as_table(pa.table(columns))


def wanted(stage: Stage) -> list[str]:
    """Every column that a stage reads, its fit included."""
    names = [*stage.reads(), *(stage.fit_reads() if isinstance(stage, GlobalStage) else ())]
    if isinstance(stage, GlobalStage):
        names += [c for step in stage.steps(1, 1) for c in step.reads or ()]
    return list(dict.fromkeys(names))


def _type_of(column: str) -> pa.DataType:
    """The type with which some stage writes the column; else a double."""
    from curate.stages import all_stages

    if column == "embedding":
        return pa.list_(pa.float16(), 8)
    for _, cls in all_stages():
        try:
            schema = cls(**cls.example).writes()
        except Exception:  # its own check will say so
            continue
        if column in schema.names:
            return schema.field(column).type
    return pa.float64()


def _values(kind: pa.DataType, n: int, rng: np.random.Generator) -> pa.Array:
    missing = np.arange(n) % 7 == 5
    if pa.types.is_floating(kind):
        values = rng.integers(-3, 4, n) / 2.0
        values[:6] = [np.nan, 0.0, -0.0, np.inf, -np.inf, 1e-300]
        return pa.array(values, pa.float64(), mask=missing).cast(kind)
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(0, 100, n), pa.int64(), mask=missing).cast(kind)
    if pa.types.is_boolean(kind):
        return pa.array(rng.integers(0, 2, n).astype(bool), mask=missing)
    if pa.types.is_string(kind):
        return pa.array([None if m else f"v{i % 5}" for i, m in enumerate(missing)], kind)
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(rng.normal(size=n * kind.list_size)).cast(kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    return pa.nulls(n, kind)


# --------------------------------------------------------------------------------------------- running by hand


@dataclass(frozen=True)
class Outcome:
    """What a stage made of a table: `rows`, its columns by global row number, and `drops`."""

    rows: pa.Table
    drops: pa.Table


class _Sink:
    def __init__(self) -> None:
        self.layers: list[pa.RecordBatch] = []
        self.drops: list[pa.RecordBatch] = []

    def layer(self, node: Node, batch: pa.RecordBatch) -> None:
        self.layers.append(batch)

    def drop(self, node: Node, drops: pa.RecordBatch) -> None:
        self.drops.append(drops)


def run_over(stage: Stage, table: pa.Table, shards: int = 1, batch: int = 1024) -> Outcome:
    """Run a stage, fit included, over a table cut into shards and batches, with the engine's own loop. The second shard of
    several is empty, as it is after a filter that left nothing there."""
    from curate.phases import Chain, expand, generation_schema

    node = bind(stage, table.schema)
    cuts = [0, *(len(table) * i // max(shards - 1, 1) for i in range(1, max(shards, 2)))]
    cuts = cuts if shards == 1 else [cuts[0], cuts[1], *cuts[1:]]
    parts = [_numbered(table.slice(a, b - a)) for a, b in itertools.pairwise(cuts)]
    sink, rows = _Sink(), list[pa.Table]()
    dropped: list[pa.Table] = []
    with tempfile.TemporaryDirectory(prefix="curate-check-") as scratch:
        names = [f"{i:05d}.parquet" for i in range(shards)]
        task = Task(phase="check", rank=0, folders=[(stage, node.id, Path(scratch))], shards=names)
        if isinstance(stage, GlobalStage):
            _fit(stage, task, parts, batch)
        for shard, part in enumerate(parts):
            here = replace(task, rank=shard, shard=shard)
            sink.layers, sink.drops = [], []
            if isinstance(stage, Expand):
                here_too = {*part.column_names, *node.writes.names, PARENT}  # those that it needs write more, and did not run
                schema = pa.schema([f for f in generation_schema(node) if f.name in here_too])
                for piece in _batches(part, batch):
                    made, gone = expand(node, piece, shard, schema, tokens.ESTIMATE, "check")
                    sink.layers.append(made.drop_columns([ROW]) if ROW in made.schema.names else made)
                    sink.drops.append(gone)
                written = pa.Table.from_batches(sink.layers, schema)
                parent = written[PARENT].to_numpy() & np.uint64(0xFFFFFFFF)
                at = written.schema.get_field_index(PARENT)
                written = written.set_column(at, PARENT, pa.array(parent + np.uint64(cuts[shard])))
            else:
                chain = Chain([node], here, sink, tokens.ESTIMATE, ())
                for _ in chain.run(_batches(part, batch)):
                    pass
                schema = pa.schema([(ROW, pa.uint32()), *node.writes])
                written = _moved(pa.Table.from_batches(sink.layers, schema), cuts[shard])
            rows.append(written)
            dropped.append(_moved(pa.Table.from_batches(sink.drops, DROP_SCHEMA), cuts[shard]))
    return Outcome(rows=pa.concat_tables(rows).combine_chunks(), drops=pa.concat_tables(dropped).combine_chunks())


def _fit(stage: GlobalStage, task: Task, parts: Sequence[pa.Table], batch: int) -> None:
    from curate.phases import rows_of

    for step in stage.steps(len(parts), sum(map(len, parts))):
        if step.reads is None:
            for rank in range(step.tasks):
                step.fn(replace(task, rank=rank, counters={}))
            continue
        names = list(dict.fromkeys((ROW, *step.reads)))
        for shard, part in enumerate(parts):
            here = replace(task, rank=shard, shard=shard, counters={})
            rows = None if step.rows is None else step.rows(here)
            step.fn(here, rows_of(_batches(part.select(names), batch), rows))


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column(ROW, pa.array(np.arange(len(table), dtype=np.uint32))).combine_chunks()


def _moved(table: pa.Table, by: int) -> pa.Table:
    at = table.schema.get_field_index(ROW)
    return table.set_column(at, ROW, pc.add(table[ROW].cast(pa.int64()), by))


def _batches(table: pa.Table, rows: int) -> Batches:
    for start in range(0, len(table), rows):
        yield table.slice(start, rows).combine_chunks().to_batches()[0]


# --------------------------------------------------------------------------------------------- checks


def _fail(stage: Stage | type, what: str) -> typing.NoReturn:
    cls = stage if isinstance(stage, type) else type(stage)
    raise AssertionError(f"{cls.__module__}.{cls.__qualname__}: {what}")


def check_docstring(stage: Stage, table: pa.Table) -> None:
    """A summary, every parameter, the source of the method, and an example that runs."""
    doc = type(stage).__dict__.get("__doc__") or ""
    lines = doc.strip().splitlines()
    if not lines or not lines[0].rstrip().endswith(".") or doc.startswith(f"{type(stage).__name__}("):
        _fail(stage, "has no summary: begin its docstring with one sentence on one line")
    for key in param_fields(type(stage)):
        if not re.search(rf"\b{re.escape(key)}\b", doc):
            _fail(stage, f"does not explain the parameter {key!r}: name it in the docstring")
    if not re.search(r"(?m)^\s*Source: \S", doc):
        _fail(stage, "does not say where the method comes from: add a line `Source: <paper or project>`, or `Source: own`")
    module = sys.modules[type(stage).__module__]
    examples = doctest.DocTestFinder(recurse=False).find(type(stage), type(stage).__name__, module=module)
    if not any(e.examples for e in examples):
        _fail(stage, "has no example: add a doctest (`>>>`) to its docstring")
    said = io.StringIO()
    for example in examples:
        doctest.DocTestRunner(verbose=False).run(example, out=said.write)
    if said.getvalue():
        _fail(stage, f"has an example that does not hold:\n{said.getvalue()}")


def check_parameters(stage: Stage, table: pa.Table) -> None:
    """A frozen dataclass of plain values, made from keywords alone."""
    cls: Any = type(stage)
    if not dataclasses.is_dataclass(stage) or "__dataclass_fields__" not in cls.__dict__ or not cls.__dataclass_params__.frozen:
        _fail(stage, "is not frozen: decorate it with @dataclass(frozen=True, kw_only=True)")
    if any(f.init and not f.kw_only for f in dataclasses.fields(stage)):
        _fail(stage, "takes positional parameters: decorate it with @dataclass(frozen=True, kw_only=True)")
    for key, value in params(stage).items():
        if not _is_plain(value):
            _fail(stage, f"has the parameter {key!r} = {value!r}: use scalars, strings, tuples, and mappings of those")


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if isinstance(value, list):  # inside a mapping, as YAML gives it
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def check_constructor(stage: Stage, table: pa.Table) -> None:
    """Making one opens no file and imports no heavy package: that belongs into `open`."""
    given = {f.name: getattr(stage, f.name) for f in dataclasses.fields(stage)}
    with _watched() as seen:
        type(stage)(**given)
    if seen:
        _fail(stage, f"does work when it is made ({seen[0]}): move it into open(), through task.cached")


def check_pickle(stage: Stage, table: pa.Table) -> None:
    """Workers get it, and the steps of its fit, by pickle."""
    things: list[Any] = [stage]
    if isinstance(stage, GlobalStage):
        things += [step.fn for step in stage.steps(3, 1000)]
    for thing in things:
        try:
            copy = pickle.loads(pickle.dumps(thing))
        except Exception as error:
            _fail(
                stage, f"cannot be pickled ({error}): use plain parameters, and bound methods or partials of functions as steps"
            )
        if thing is stage and copy != stage:
            _fail(stage, "is not equal to its pickled copy: all that it knows must be in its parameters")


def check_recipe(stage: Stage, table: pa.Table) -> None:
    """It survives being written to a recipe and read again."""
    from curate.recipe import Recipe, loads

    item = plan.Item(stage=stage, id="it", policy=plan.Policy(max_drop=stage.max_drop, max_cluster=stage.max_cluster))
    try:
        again = loads(Recipe(name="check", stages=(item,)).dump()).stages[0].stage
    except Exception as error:
        _fail(stage, f"cannot be read back from a recipe ({error}): annotate parameters with the plain types that they have")
    if again != stage:
        _fail(
            stage, f"reads back from a recipe as {again}: parameters must keep their value and type through YAML (use tuples)"
        )


def check_declarations(stage: Stage, table: pa.Table) -> None:
    """reads() and writes() are the truth: only the declared columns are handed in, exactly the declared ones come out."""
    if not isinstance(stage.writes(), pa.Schema):
        _fail(stage, "writes() must return a pyarrow schema")
    if not isinstance(stage.reads(), tuple):
        _fail(stage, "reads() must return a tuple of column names")
    with _opened(stage, table) as function:
        given = _numbered(table).select([ROW, *(c for c in stage.reads() if c != ROW)]).to_batches()[0]
        for batch in (given, given.slice(0, 0)):
            many = "an empty batch" if not batch.num_rows else "a batch"
            try:
                out = function(batch)
            except KeyError as error:
                name = re.search(r'"(.*)"', str(error))
                _fail(stage, f"reads {(name[1] if name else error.args[0])!r}, which reads() does not declare")
            except Exception as error:
                _fail(stage, f"raises {type(error).__name__} on {many} ({error}): one bad row must not stop the others")
            _check_output(stage, batch, out, many)


def _check_output(stage: Stage, given: pa.RecordBatch, out: pa.RecordBatch, many: str) -> None:
    names = list(out.schema.names)
    for f in stage.writes():
        if f.name not in names:
            _fail(stage, f"declares the column {f.name!r} in writes() but does not write it for {many}")
        if out.schema.field(f.name).type != f.type:
            _fail(stage, f"writes {f.name!r} as {out.schema.field(f.name).type} for {many}, but writes() says {f.type}")
    known = {PARENT} if isinstance(stage, Expand) else {*DROP_SCHEMA.names, *given.schema.names}
    extra = [n for n in names if n not in known and n not in stage.writes().names]
    if extra:
        _fail(stage, f"writes {extra[0]!r} for {many}, which writes() does not declare")
    if isinstance(stage, Expand):
        parent = np.asarray(out[PARENT]).astype(np.int64)
        if not np.isin(parent, given[ROW].to_numpy()).all() or (np.diff(parent) < 0).any():
            _fail(stage, "must return children in the order of their parents, each with the parent's `_row` in `_parent`")
        return
    if out.num_rows != given.num_rows or not out[ROW].equals(given[ROW]):
        _fail(stage, f"returns {out.num_rows} rows for {given.num_rows}: return the same rows in order, `_reason` drops one")
    for name in set(given.schema.names) - {ROW} - set(stage.writes().names):
        if name in names and not _equal(out[name], given[name]):
            _fail(stage, f"changes {name!r}, which writes() does not declare")


def check_reasons(stage: Stage, table: pa.Table) -> None:
    """Every reason comes from a finite set, written like `gopher.min_words`, and no document is an error."""
    reasons = stage.reasons()
    if not isinstance(reasons, tuple) or len(set(reasons)) != len(reasons):
        _fail(stage, "reasons() must return a tuple of different codes")
    for reason in reasons:
        if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", reason) or reason.startswith("error"):
            _fail(stage, f"has the reason {reason!r}: write codes like 'gopher.min_words'; 'error.…' belongs to the engine")
    try:
        outcome = run_over(stage, table)
    except CurateError as error:
        _fail(stage, f"does not get through hostile documents: {error}")
    for drop in outcome.drops.to_pylist():
        if drop[REASON].startswith("error."):
            text = table["text"][drop[ROW]].as_py()
            _fail(stage, f"fails with {drop[REASON][6:]} on the document {drop[ROW]}, text {text!r:.60}: handle it or drop it")


def check_batch_size(stage: Stage, table: pa.Table) -> None:
    """The same result for batches of 1,024, 7 and 1 rows."""
    first = run_over(stage, table)
    for rows in (1024, 7, 1):
        _same(stage, first, run_over(stage, table, batch=rows), f"batches of {rows} rows", "a row must not depend on its batch")


def check_shards(stage: Stage, table: pa.Table) -> None:
    """The same result for one shard and for several, one of them empty."""
    first = run_over(stage, table)
    for shards in (3, 4):
        remedy = "a fit must see the corpus as a whole, and break ties by (file, record)"
        _same(stage, first, run_over(stage, table, shards=shards, batch=9), f"{shards} shards", remedy)


def _same(stage: Stage, one: Outcome, other: Outcome, how: str, remedy: str) -> None:
    for what, a, b in (("columns", one.rows, other.rows), ("drops", one.drops, other.drops)):
        if len(a) != len(b):
            _fail(stage, f"gives other {what} with {how} ({len(a)} rows before, {len(b)} now): {remedy}")
        for name in a.column_names:
            if not _equal(a[name], b[name]):
                _fail(stage, f"gives other {what} with {how} (see {name!r}): {remedy}")


def _equal(a: pa.Array | pa.ChunkedArray, b: pa.Array | pa.ChunkedArray) -> bool:
    """Equal values, NaN included."""
    if a.type != b.type:
        return False
    if pa.types.is_floating(a.type):
        if not pc.is_null(a).equals(pc.is_null(b)):
            return False
        return np.array_equal(np.asarray(a.fill_null(0)), np.asarray(b.fill_null(0)), equal_nan=True)
    return a.equals(b) or a.to_pylist() == b.to_pylist()


Check = Callable[[Stage, pa.Table], None]
CHECKS: tuple[Check, ...] = (
    check_docstring,
    check_parameters,
    check_constructor,
    check_pickle,
    check_recipe,
    check_declarations,
    check_reasons,
    check_batch_size,
    check_shards,
)


def check_elsewhere(stages: Sequence[Stage]) -> None:
    """In one other process: importing the module of a stage imports no heavy package, and the fingerprint is the same."""
    script = (
        "import importlib, json, pickle, sys; stages, lazy = pickle.loads(sys.stdin.buffer.read()); found = []\n"
        "from curate.plan import fingerprint_of\n"
        "for module, blob in stages:\n"
        "    before = set(sys.modules); importlib.import_module(module)\n"
        "    heavy = [p for p in lazy if p in sys.modules and p not in before]\n"
        "    found.append((heavy, fingerprint_of(pickle.loads(blob), '')))\n"
        "print(json.dumps(found))"
    )
    given = pickle.dumps(([(type(s).__module__, pickle.dumps(s)) for s in stages], LAZY))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], input=given, env=env, capture_output=True)
    if done.returncode:
        raise AssertionError(f"stages cannot be loaded in another process:\n{done.stderr.decode()}")
    for stage, (heavy, fingerprint) in zip(stages, json.loads(done.stdout), strict=True):
        if heavy:
            _fail(
                stage, f"imports {heavy[0]!r} when its module is imported: import it in open() or in the function that uses it"
            )
        if fingerprint != plan.fingerprint_of(stage, ""):
            _fail(stage, "has another fingerprint in another process: parameters must not hold sets, ids or addresses")


class _opened:
    """The batch function of a stage, after its fit over the table as one shard; `expand` for a stage that makes rows."""

    def __init__(self, stage: Stage, table: pa.Table):
        self._stage, self._table = stage, table
        self._scratch = tempfile.TemporaryDirectory(prefix="curate-check-")

    def __enter__(self) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
        stage = self._stage
        if isinstance(stage, Expand):
            return stage.expand
        folders = [(stage, "checked", Path(self._scratch.name))]
        task = Task(phase="check", rank=0, shard=0, folders=folders, shards=["00000.parquet"])
        if isinstance(stage, GlobalStage):
            _fit(stage, task, [_numbered(self._table)], 1024)
        return stage.open(task)

    def __exit__(self, *error: object) -> None:
        self._scratch.cleanup()


class _watched:
    """What the block opens, starts or connects to, by the interpreter's own audit events, and which heavy packages it asks
    for, whether or not they are loaded already."""

    _seen: ClassVar[list[str] | None] = None
    _installed: ClassVar[bool] = False

    def __enter__(self) -> list[str]:
        if not _watched._installed:
            sys.addaudithook(_watched._hook)  # there is no way to remove one
            _watched._installed = True
        seen = _watched._seen = list[str]()
        self._import = builtins.__import__

        def watched_import(name: str, *rest: Any, **more: Any) -> Any:
            if name.partition(".")[0] in LAZY:
                seen.append(f"import {name!r}")
            return self._import(name, *rest, **more)

        builtins.__import__ = watched_import
        return seen

    def __exit__(self, *error: object) -> None:
        builtins.__import__ = self._import
        _watched._seen = None

    @staticmethod
    def _hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _watched._seen is not None and event in ("open", "socket.connect", "subprocess.Popen"):
            _watched._seen.append(f"{event} {arguments[0]!r:.80}")


def all_examples() -> Iterator[tuple[str, Stage]]:
    """(name, stage) of every stage that comes with Curate, made from its `example`."""
    from curate.stages import all_stages

    for name, cls in all_stages():
        yield name, cls(**cls.example)


__all__ = ["CHECKS", "Outcome", "all_examples", "check_elsewhere", "check_stage", "documents", "hostile_texts", "run_over"]
