"""Any step of a datatrove pipeline as a stage."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from curate.errors import RecipeError, StageError
from curate.stage import REASON, BatchFn, Stage, Task, with_columns

if TYPE_CHECKING:
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep

_TYPES = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}


@dataclass(frozen=True, kw_only=True)
class Datatrove(Stage):
    """Runs a datatrove `PipelineStep` that takes one document and gives back that document or nothing.

    step: `module:Class`. params: its arguments, plain values. reads: columns that it is handed: `text` as the text, all others
    as metadata under their names; the default is `text`. writes: columns to take from the documents that it gives back, as
    {name: type} with the types string, int64, double and bool: `text` is the text, all others are metadata, null where absent.
    In Python the two are called `read_columns` and `write_columns`, since `reads` and `writes` are methods.

    The step is made once per task and called once per batch. A step that counts or draws over documents (a sampler) makes the
    result depend on the batches; readers, writers, and dedup steps have their own stages or sources here. A document that
    cannot be told apart by its id, two for one, or a new text that is not declared under writes, is a StageError.

    Columns written: those of `writes`. Reasons: `datatrove.dropped`.

    Source: datatrove (Penedo et al. 2024, https://github.com/huggingface/datatrove).

    >>> stage = Datatrove(step="datatrove.pipeline.filters:RegexFilter", params={"regex_exp": "(?i)lorem ipsum"})
    >>> stage(["Real text.", "Lorem ipsum dolor"]).kept["text"].to_pylist()
    ['Real text.']
    """

    example: ClassVar[dict[str, Any]] = {
        "step": "datatrove.pipeline.filters:RegexFilter",
        "params": {"regex_exp": "lorem"},
        "write_columns": {"language": "string"},
    }

    step: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    read_columns: tuple[str, ...] = dataclasses.field(default=("text",), metadata={"key": "reads"})
    write_columns: Mapping[str, str] = dataclasses.field(default_factory=dict, metadata={"key": "writes"})

    def __post_init__(self) -> None:
        for name, kind in self.write_columns.items():
            if kind not in _TYPES:
                raise RecipeError(f"datatrove: the type of {name!r} is {kind!r}; known: {', '.join(_TYPES)}")
        if self.write_columns.get("text", "string") != "string":
            raise RecipeError("datatrove: `text` is a string")

    def reads(self) -> tuple[str, ...]:
        _class(self.step, tuple(sorted(self.params)))  # a wrong name is an error at plan time
        return tuple(dict.fromkeys(("id", *self.read_columns)))

    def writes(self) -> pa.Schema:
        return pa.schema([(name, _TYPES[kind]) for name, kind in self.write_columns.items()])

    def reasons(self) -> tuple[str, ...]:
        return ("datatrove.dropped",)

    def open(self, task: Task) -> BatchFn:
        step = _class(self.step, tuple(sorted(self.params)))(**self.params)
        return functools.partial(self._process, step, task.rank, max(len(task.shards), 1))

    def _process(self, step: PipelineStep, rank: int, world_size: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        documents = to_documents(batch, self.read_columns)
        texts = [document.text for document in documents]
        out = _by_row(documents, list(step.run(iter(documents), rank, world_size) or ()), self.step)  # type: ignore[arg-type]
        columns: dict[str, pa.Array] = {}
        for name, kind in self.write_columns.items():
            values = [None if d is None else d.text if name == "text" else d.metadata.get(name) for d in out]
            try:
                columns[name] = pa.array(values, _TYPES[kind])
            except (pa.ArrowException, TypeError) as error:
                raise StageError(f"datatrove: {self.step} gave {name!r} with a value that is not a {kind}: {error}") from error
        if "text" not in self.write_columns:
            for old, new in zip(texts, out, strict=True):
                if new is not None and new.text != old:
                    raise StageError(f"datatrove: {self.step} changes the text; declare it: writes: {{text: string}}")
        dropped = [None if d is not None else "datatrove.dropped" for d in out]
        return with_columns(batch, {**columns, REASON: pa.array(dropped, pa.string())})


@functools.lru_cache(maxsize=16)
def _class(name: str, params: tuple[str, ...]) -> type[PipelineStep]:
    from datatrove.pipeline.base import PipelineStep

    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"datatrove: step {name!r} cannot be loaded, write module:Class: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, PipelineStep)):
        raise RecipeError(f"datatrove: {name!r} is not a subclass of datatrove's PipelineStep")
    try:
        inspect.signature(found).bind(**dict.fromkeys(params))
    except TypeError as error:
        raise RecipeError(f"datatrove: params of {name}: {error}; it takes {inspect.signature(found)}") from None
    return found


def to_documents(batch: pa.RecordBatch, columns: Sequence[str]) -> list[Document]:
    """The rows of a batch with an `id` as datatrove documents: `text` (null as "") and the other columns as metadata."""
    from datatrove.data import Document

    texts = batch["text"].to_pylist() if "text" in columns else [""] * batch.num_rows
    rows = batch.select([c for c in columns if c not in ("id", "text")])
    metadata = rows.to_pylist() if rows.num_columns else [{} for _ in range(batch.num_rows)]
    ids = batch["id"].to_pylist()
    return [Document(text=t or "", id=i, metadata=m) for t, i, m in zip(texts, ids, metadata, strict=True)]


def _by_row(given: Sequence[Document], out: Sequence[Document], step: str) -> list[Document | None]:
    """What came back for each document that was given: by identity, else by id where that names one of them."""
    rows = {id(document): row for row, document in enumerate(given)}
    by_id: dict[str, list[int]] = {}
    for row, document in enumerate(given):
        by_id.setdefault(document.id, []).append(row)
    found: list[Document | None] = [None] * len(given)
    for document in out:
        row = rows.get(id(document), -1)
        if row < 0:
            same = by_id.get(document.id, [])
            if len(same) != 1:
                what = "which is not unique" if same else "which it was not given"
                raise StageError(f"datatrove: {step} gave a document with the id {document.id!r}, {what}")
            row = same[0]
        if found[row] is not None:
            raise StageError(f"datatrove: {step} gave more than one document for {document.id!r}")
        found[row] = document
    return found
