"""The ledger: for every stage and shard, how many documents, bytes and tokens went where, counted from the files.

Nothing here comes from counters that a stage keeps. A task walks one shard from its first stage to its last with the set of
rows that are alive, reads what each stage left behind (its layer says which rows reached it, its drops say which went), and
raises LedgerError where the sets do not fit: rows in + rows added = rows out + rows dropped, stage by stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Generation
from curate.errors import LedgerError
from curate.phases import ADDRESS_BITS, Context, Phase, dataset, view
from curate.plan import Node, Plan
from curate.stage import PARENT, REASON, ROW, Expand
from curate.storage import open_table, read_table, sha256_file, write_table

SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("shard", pa.string()),
        ("corpus", pa.string()),
        ("language", pa.string()),
        ("reason", pa.string()),
        ("documents", pa.int64()),
        ("bytes", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


@dataclass(frozen=True)
class LedgerWork:
    """One task per shard of every generation, and one for the records that ingest did not pass on."""

    plan: Plan
    folder: str
    ingest_drops: str
    ingest_tasks: int
    shards: tuple[tuple[int, int], ...]  # (generation, shard)
    exports: bool = True  # whether what is left goes to the output

    @property
    def tasks(self) -> int:
        return len(self.shards) + 1

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        root = phase.context.root
        parts = self._rejects(root) if rank == len(self.shards) else self._shard(phase, *self.shards[rank])
        table = pa.concat_tables([p for p in parts if p.num_rows] or [SCHEMA.empty_table()])
        write_table(root / self.folder / f"{rank:05d}.parquet", table)
        files = self._files(phase.context, rank) if self.exports else []
        return {"files": {path: sha256_file(root / path) for path in files}}

    def _files(self, context: Context, rank: int) -> list[str]:
        """What this task counted, for `verify`; the shards of documents are in their manifest."""
        if rank == len(self.shards):
            return [f"{self.ingest_drops}/{task:05d}.parquet" for task in range(self.ingest_tasks)]
        generation, shard = self.shards[rank]
        name = Generation.load(context.root, context.generations[generation]).shards[shard].name
        nodes = [n for n in self.plan.nodes if n.generation == generation]
        layers = [f"{n.layer}/{name}" for n in nodes if len(n.writes)]
        return [*(f"{n.drops}/{name}" for n in nodes), *(path for path in layers if (context.root / path).exists())]

    def _rejects(self, root: Path) -> list[pa.Table]:
        parts = []
        for rank in range(self.ingest_tasks):
            table = read_table(root / self.ingest_drops / f"{rank:05d}.parquet", ["corpus", "_reason"])
            n = len(table)
            rows = _Rows(_Codes.of(table["corpus"]), _Codes.none(n), np.zeros(n, np.int64), np.zeros(n, np.int64))
            parts.append(rows.entries("ingest", f"documents/{rank:05d}", np.arange(n), table["_reason"]))
        return parts

    def _shard(self, phase: Phase, generation: int, shard: int) -> list[pa.Table]:
        context = phase.context
        nodes = [n for n in self.plan.nodes if n.generation == generation and not isinstance(n.stage, Expand)]
        folder = context.generations[generation]
        found = Generation.load(context.root, folder)
        info = found.shards[shard]
        path = context.root / folder / info.name
        where = f"{folder}/{Path(info.name).stem}"
        strings = [n for n in ("corpus", "language") if n in found.schema.names]
        with open_table(path, strings) as file:
            if file.metadata.num_rows != info.documents:
                raise LedgerError(f"{path} holds {file.metadata.num_rows} documents, its manifest says {info.documents}")
            rows = _Rows.of(file.read([*strings, "text_bytes", "tokens"], use_threads=False))
        alive = np.arange(info.documents)
        parts: list[pa.Table] = []
        if generation == 0:
            parts.append(rows.entries("ingest", where, alive))
        else:
            made_by = next(n for n in self.plan.nodes if isinstance(n.stage, Expand) and n.generation == generation - 1)
            parts.extend(self._expanded(phase, made_by, shard, rows, where))
        for node in nodes:
            alive = _through(node, context.root, info.name, where, rows, alive, parts)
        if self.exports and generation == self.plan.generation:
            parts.append(rows.entries("export", where, alive))
        return parts

    def _expanded(self, phase: Phase, node: Node, shard: int, rows: _Rows, where: str) -> list[pa.Table]:
        """The Expand that made a shard: every parent has children or stands in its drops, and nobody else has."""
        context = phase.context
        generation = Generation.load(context.root, context.generations[node.generation + 1])
        info = generation.shards[shard]
        with open_table(context.root / generation.folder / info.name) as file:
            parents = np.unique(file.read([PARENT], use_threads=False)[PARENT].to_numpy())
        before = view(node, context)
        parts = [rows.entries(node.id, where, np.arange(info.documents))]
        for old in info.parents:
            old_info = before.generation.shards[old]
            reached = before.survivors(old)
            drops = read_table(context.root / node.drops / old_info.name, [ROW, REASON])
            mine = parents[(parents >> np.uint64(ADDRESS_BITS)) == old] & np.uint64((1 << ADDRESS_BITS) - 1)
            gone = drops[ROW].to_numpy()
            if not np.array_equal(np.sort(np.concatenate([mine.astype(np.uint32), gone])), reached):
                raise LedgerError(f"stage {node.id!r}, shard {where}: parents and drops are not the rows that reached it")
            if len(gone):
                names = [n for n in ("corpus", "language", "text_bytes", "tokens") if n in before.columns]
                narrow = _Rows.of(pa.Table.from_batches(list(before.read(old, names, gone))))
                place = f"{before.folder}/{Path(old_info.name).stem}"
                parts.append(narrow.entries(node.id, place, np.arange(len(gone)), drops[REASON]))
        return parts


@dataclass
class _Codes:
    """Strings as numbers: values without repeats, None among them, and for each row which of them it has."""

    values: list[str | None]
    at: np.ndarray

    @staticmethod
    def of(column: pa.ChunkedArray) -> _Codes:
        """Any column of strings; of one that was read as a dictionary, only the values are looked at."""
        if len(column) == 0:
            return _Codes.none(0)
        chunks = [c if pa.types.is_dictionary(c.type) else c.dictionary_encode() for c in column.chunks]
        values: dict[str | None, int] = {}
        parts = []
        for chunk in chunks:
            codes = np.array([values.setdefault(v, len(values)) for v in [*chunk.dictionary.to_pylist(), None]], np.int64)
            parts.append(codes[pc.fill_null(chunk.indices, len(codes) - 1).to_numpy()])
        return _Codes(list(values), np.concatenate(parts))

    @staticmethod
    def none(n: int) -> _Codes:
        return _Codes([None], np.zeros(n, np.int64))


@dataclass
class _Rows:
    """What the ledger groups and adds up, one entry per row of a shard."""

    corpus: _Codes
    language: _Codes
    bytes: np.ndarray
    tokens: np.ndarray

    @staticmethod
    def of(table: pa.Table) -> _Rows:
        """corpus, text_bytes, tokens, and language where it is there."""
        language = _Codes.of(table["language"]) if "language" in table.column_names else _Codes.none(len(table))
        sizes = [pc.fill_null(table[n], 0).to_numpy().astype(np.int64) for n in ("text_bytes", "tokens")]
        return _Rows(_Codes.of(table["corpus"]), language, *sizes)

    def entries(self, stage: str, shard: str, rows: np.ndarray, reason: pa.ChunkedArray | None = None) -> pa.Table:
        """Ledger rows: `rows` grouped by corpus, language and reason."""
        keys = [_Codes(self.corpus.values, self.corpus.at[rows]), _Codes(self.language.values, self.language.at[rows])]
        keys.append(_Codes.none(len(rows)) if reason is None else _Codes.of(reason))
        group = np.zeros(len(rows), np.int64)
        for key in keys:
            group = group * len(key.values) + key.at
        count = np.bincount(group)
        found = np.flatnonzero(count)
        named: dict[str, list[str | None]] = {}
        left = found
        for name, key in zip(("reason", "language", "corpus"), reversed(keys), strict=True):
            left, at = np.divmod(left, len(key.values))
            named[name] = [key.values[i] for i in at]
        table = pa.table(
            {
                "stage": pa.repeat(stage, len(found)),
                "shard": pa.repeat(shard, len(found)),
                **{name: pa.array(named[name], pa.string()) for name in ("corpus", "language", "reason")},
                "documents": count[found],
                "bytes": _sums(group, self.bytes[rows])[found],
                "tokens": _sums(group, self.tokens[rows])[found],
            }
        )
        return table.sort_by([(name, "ascending") for name in ("corpus", "language", "reason")]).cast(SCHEMA)


def _sums(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Per group, the sum of non-negative integers. A shard holds far less than the 2^53 bytes up to which this is exact."""
    return np.bincount(group, values).astype(np.int64)


def _through(
    node: Node, root: Path, name: str, where: str, rows: _Rows, alive: np.ndarray, parts: list[pa.Table]
) -> np.ndarray:
    """Take the set of living rows (ascending) through one stage; returns those that survive it."""
    with open_table(root / node.drops / name, [REASON]) as file:
        drops = file.read([ROW, REASON], use_threads=False)
    gone = drops[ROW].to_numpy().astype(np.int64)
    lives = np.zeros(len(rows.bytes), bool)
    lives[alive] = True
    reached = len(gone) == 0 or (int(gone.max()) < len(lives) and bool(lives[gone].all()))
    lives[gone if reached else []] = False
    left = np.flatnonzero(lives)
    if not reached or len(left) != len(alive) - len(gone):
        raise LedgerError(f"stage {node.id!r}, shard {where}: it dropped rows twice, or rows that did not reach it")
    before = rows
    layer = root / node.layer / name
    if len(node.writes) and not (node.item.transient and not layer.exists()):
        updates = [n for n in ("language", "text_bytes", "tokens") if n in node.writes.names]
        with open_table(layer, [n for n in updates if n == "language"]) as file:
            table = file.read([ROW, *updates], use_threads=False)
        if not np.array_equal(table[ROW].to_numpy(), alive):
            raise LedgerError(f"stage {node.id!r}, shard {where}: its layer does not hold the rows that reached it")
        rows = _updated(rows, table, updates, alive)
    parts.append(_sized(before, rows).entries(node.id, where, gone, drops[REASON]))
    parts.append(rows.entries(node.id, where, left))
    before.language, before.bytes, before.tokens = rows.language, rows.bytes, rows.tokens
    return left


def _sized(before: _Rows, after: _Rows) -> _Rows:
    """A dropped document counts with the size that it had before, and the language that is known by now."""
    return _Rows(before.corpus, after.language, before.bytes, before.tokens)


def _updated(rows: _Rows, table: pa.Table, updates: Sequence[str], alive: np.ndarray) -> _Rows:
    language, sizes = rows.language, {"text_bytes": rows.bytes, "tokens": rows.tokens}
    for name in updates:
        if name == "language":
            new = _Codes.of(table["language"])
            at = np.full(len(rows.bytes), new.values.index(None))
            at[alive] = new.at
            language = _Codes(new.values, at)
        else:
            sizes[name] = sizes[name].copy()
            sizes[name][alive] = pc.fill_null(table[name], 0).to_numpy()
    return _Rows(rows.corpus, language, sizes["text_bytes"], sizes["tokens"])


def merge(root: Path, folder: str, tasks: int) -> pa.Table:
    """All parts as one table: the content of ledger.parquet."""
    return pa.concat_tables([read_table(root / folder / f"{rank:05d}.parquet") for rank in range(tasks)]).combine_chunks()


def summary(ledger: pa.Table, stages: Sequence[str], expands: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Per stage, in order: id, rows_in, rows_added, rows_out, drops {reason: n}, documents/bytes/tokens that it kept.

    Raises LedgerError where what one stage lets out is not what the next takes in.
    """
    sums = ledger.group_by(["stage", "reason"], use_threads=False).aggregate(
        [("documents", "sum"), ("bytes", "sum"), ("tokens", "sum")]
    )
    found: dict[str, dict[str | None, tuple[int, int, int]]] = {}
    for row in sums.to_pylist():
        found.setdefault(row["stage"], {})[row["reason"]] = (row["documents_sum"], row["bytes_sum"], row["tokens_sum"])
    entries: list[dict[str, Any]] = []
    previous: int | None = None
    for stage in stages:
        by_reason = found.get(stage, {})
        out, size, tokens = by_reason.get(None, (0, 0, 0))
        drops = {reason: n for reason, (n, _, _) in sorted(by_reason.items(), key=lambda kv: str(kv[0])) if reason is not None}
        dropped = sum(drops.values())
        rows_in = out + dropped if previous is None else previous
        added = out + dropped - rows_in
        if added and stage not in expands:
            raise LedgerError(f"stage {stage!r}: {rows_in} rows went in, but {out} came out and {dropped} were dropped")
        entries.append(
            {
                "id": stage,
                "rows_in": rows_in,
                "rows_added": added,
                "rows_out": out,
                "drops": drops,
                "bytes": size,
                "tokens": tokens,
            }
        )
        previous = out
    return entries


def final(plan: Plan, context: Any) -> Any:
    """The documents after the last stage."""
    return dataset(context, plan.generation, plan.columns, plan.drops)
