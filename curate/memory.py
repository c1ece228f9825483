"""Stages called in memory: what counts as a table of documents, and how a lone stage is bound to it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import tokens
from curate.errors import ColumnError
from curate.plan import Item, Node, Policy, resolve
from curate.stage import Stage

FEWEST = 1000  # smaller groups have no blast radius: a handful of documents says nothing


def as_table(data: Any) -> pa.Table:
    """Documents as a table with `id`, `text`, `text_bytes` and `tokens`.

    data: pyarrow Table or RecordBatch, Polars or pandas frame, Hugging Face dataset, a mapping of columns, a sequence of
    strings or of mappings. Raises ColumnError where it has no `text`.
    """
    table = _to_arrow(data)
    for at, f in enumerate(table.schema):  # one kind of string, as in the engine's files
        if pa.types.is_large_string(f.type) or pa.types.is_string_view(f.type):
            table = table.set_column(at, f.name, table[f.name].cast(pa.string()))
        elif pa.types.is_dictionary(f.type):
            table = table.set_column(at, f.name, table[f.name].cast(f.type.value_type))
    if "id" not in table.column_names:
        table = table.append_column("id", pa.array([str(i) for i in range(len(table))], pa.string()))
    if "text" in table.column_names:
        text = table["text"].combine_chunks()
        if "text_bytes" not in table.column_names:
            table = table.append_column("text_bytes", tokens.text_bytes(text))
        if "tokens" not in table.column_names:
            table = table.append_column("tokens", tokens.counter(tokens.ESTIMATE)(text))
    if "file" not in table.column_names:  # ties and sampling go by (file, record)
        table = table.append_column("file", pa.array([""] * len(table), pa.string()))
    if "record" not in table.column_names:
        table = table.append_column("record", pa.array(range(len(table)), pa.int64()))
    return table


def _to_arrow(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if hasattr(data, "to_arrow"):  # Polars
        return data.to_arrow()
    if hasattr(data, "with_format") and hasattr(data, "data"):  # Hugging Face
        return data.with_format("arrow")[:]
    if type(data).__module__.split(".")[0] == "pandas":
        return pa.Table.from_pandas(data, preserve_index=False)
    if isinstance(data, dict):
        return pa.table(data)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        if all(isinstance(row, str) or row is None for row in data):
            return pa.table({"text": pa.array(data, pa.string())})
        if all(isinstance(row, dict) for row in data):
            return pa.Table.from_pylist(list(data))
    raise ColumnError(f"cannot read documents from a {type(data).__name__}; give a table, a frame, or a list of strings")


def bind(stage: Stage, schema: pa.Schema) -> Node:
    """A lone stage as the last node of a plan over this schema; before it come only those that it needs."""
    name = type(stage).__module__.rsplit(".", 1)[-1]
    policy = Policy(max_drop=stage.max_drop, max_cluster=stage.max_cluster)
    return resolve([Item(stage=stage, id=name, policy=policy)], schema, "").nodes[-1]


def warn_blast_radius(node: Node, table: pa.Table, gone: np.ndarray) -> None:
    """In memory a blast radius warns rather than stops."""
    limit = node.item.policy.max_drop
    if limit is None:
        return
    for by in ("corpus", "language"):
        if by not in table.column_names:
            continue
        for value in pc.unique(table[by]).to_pylist():
            member = pc.is_null(table[by]) if value is None else pc.fill_null(pc.equal(table[by], value), False)
            rows = np.asarray(member)
            if rows.sum() >= FEWEST and gone[rows].mean() > limit:
                share = gone[rows].mean()
                warnings.warn(f"{node.id} drops {share:.0%} of {by}={value}, more than max_drop {limit:.0%}", stacklevel=5)
