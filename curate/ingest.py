"""Ingest: the parts of the input become shards of documents, and every record that does not is written down.

One task takes one split. It fills in ids and sizes, applies the limits, checks the encoding, and cuts shards at 64 MB of text
or 50,000 documents, whatever the size of the input files. `documents/manifest.json` is written last and fixes the order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import tokens
from curate.dataset import Shard, rebatch, write_generation
from curate.errors import SourceError
from curate.guard import Guard
from curate.phases import Phase
from curate.sources import InputFile, Part, Reading, Source, column_name, module
from curate.stage import Batches
from curate.storage import TableWriter, read_table, sha256_file, write_table

VERSION = 1
SHARD_BYTES, SHARD_ROWS = 64 << 20, 50_000
REJECTS = pa.schema(
    [
        ("corpus", pa.string()),
        ("file", pa.string()),
        ("record", pa.int64()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("_reason", pa.string()),
        ("_detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class IngestWork:
    """One task per split; with a limit a single task that stops at the first `limit` documents in input order."""

    source: Source
    files: tuple[InputFile, ...]
    splits: tuple[tuple[Part, ...], ...]
    schema: pa.Schema
    drops: str
    limit: int | None = None

    @property
    def tasks(self) -> int:
        return 1 if self.limit is not None else len(self.splits)

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        splits = self.splits if self.limit is not None else (self.splits[rank],)
        root = phase.context.root
        out = _Shards(self, phase, rank)
        guard = Guard(phase.folder / "guard", rank)
        left = self.limit
        inputs: list[dict[str, Any]] = []
        counters: dict[str, int] = {}
        rejects: list[dict[str, Any]] = []

        def documents() -> Batches:
            nonlocal left
            for part in (part for split in splits for part in split):
                if left == 0:
                    return
                file = self.files[part.file]
                reading = Reading(file, self.source, self.schema, guard, part.file)
                seen = 0
                try:
                    for batch in self._read(reading, part):
                        kept = _finish(batch, reading, phase.context.tokenizer, left)
                        seen += kept.num_rows
                        if left is not None:
                            left -= kept.num_rows
                        yield kept
                        if left == 0:
                            break
                finally:
                    rejects.extend({"corpus": file.corpus, "file": file.name, **r} for r in reading.rejects)
                    for key, n in reading.counters.items():
                        counters[key] = counters.get(key, 0) + n
                entry: dict[str, Any] = {"file": part.file, "documents": seen, "rejected": len(reading.rejects)}
                if part.start == 0:
                    with contextlib.suppress(OSError):
                        entry["sha256"] = reading.sha256()
                inputs.append(entry)

        out.write(rebatch(documents()))
        guard.close()
        table = pa.Table.from_pylist(rejects, REJECTS)
        write_table(root / self.drops / f"{rank:05d}.parquet", table)
        return {"shards": out.shards, "inputs": inputs, "rejected": len(rejects), "counters": counters}

    def _read(self, reading: Reading, part: Part) -> Batches:
        if reading.file.no_text:
            reading.reject(-1, "quarantine.no_text", reading.file.no_text)
            return
        try:
            yield from module(reading.file.kind).read(reading, part.start, part.stop)
        except (OSError, EOFError, SourceError, pa.ArrowInvalid) as error:
            why = str(error).strip().split("\n")[0]
            if self.source.on_error == "quarantine":
                reading.reject(-1, "quarantine.unreadable", why)
                return
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"input {reading.file.path} cannot be read: {why}; `source.on_error: quarantine` skips it"
            ) from error


class _Shards:
    """Writes batches to shards of one task; a shard is closed when it is full."""

    def __init__(self, work: IngestWork, phase: Phase, rank: int):
        self._work, self._phase, self._rank = work, phase, rank
        self.shards: list[dict[str, Any]] = []

    def write(self, batches: Batches) -> None:
        batches = iter(batches)
        batch = next(batches, None)
        while batch is not None:
            name = f"{self._rank:05d}-{len(self.shards):03d}.parquet"
            path = self._phase.context.root / "documents" / name
            sizes = {"documents": 0, "bytes": 0, "tokens": 0}
            weight = 0
            with TableWriter(path, self._work.schema, codec="lz4") as writer:
                while batch is not None and weight < SHARD_BYTES and sizes["documents"] < SHARD_ROWS:
                    writer.write(batch)
                    sizes["documents"] += batch.num_rows
                    sizes["bytes"] += pc.sum(batch["text_bytes"]).as_py() or 0
                    sizes["tokens"] += pc.sum(batch["tokens"]).as_py() or 0
                    weight += batch.nbytes
                    batch = next(batches, None)
            self.shards.append({"name": name, **sizes, "sha256": sha256_file(path)})


def _finish(batch: pa.RecordBatch, reading: Reading, tokenizer: str, limit: int | None) -> pa.RecordBatch:
    """Documents out of raw rows: fields filled in, limits applied, columns named and typed as the schema says."""
    source = reading.source
    columns = _named(batch, reading)
    text = columns["text"]
    bad = _rejected(text, columns, reading)
    if limit is not None:
        good = np.flatnonzero(~bad)[:limit]
        if len(good) == limit:  # what lies behind the last document was never looked at
            cut = int(good[-1]) + 1
            columns = {n: c.slice(0, cut) for n, c in columns.items()}
            bad, text = bad[:cut], text.slice(0, cut)
            last = columns["record"][cut - 1].as_py()
            reading.rejects[:] = [r for r in reading.rejects if r["record"] <= last]
    if bad.any():
        keep = pa.array(~bad)
        columns = {n: c.filter(keep) for n, c in columns.items()}
        text = columns["text"]
    if source.cut_text:
        text = columns["text"] = _cut(text, source.max_text_bytes)
    if text.null_count:
        text = columns["text"] = pc.fill_null(text, "")
    n = len(text)
    columns["text_bytes"] = tokens.text_bytes(text)
    columns["tokens"] = tokens.counter(tokenizer)(text)
    if "raw_bytes" not in columns:
        columns["raw_bytes"] = columns["text_bytes"]
    columns["corpus"] = pa.repeat(reading.file.corpus, n)
    columns["file"] = pa.repeat(reading.file.name, n)
    columns["id"] = _ids(columns, reading.file.name)
    arrays = [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(n, f.type) for f in reading.schema]
    return pa.RecordBatch.from_arrays(arrays, schema=reading.schema)


def _named(batch: pa.RecordBatch, reading: Reading) -> dict[str, pa.Array]:
    """Input columns under the names that they have in the documents."""
    source, columns = reading.source, {}
    native = reading.file.kind in ("parquet", "hf")
    for name in batch.schema.names:
        column = batch[name]
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if native and name != "record":
            target = {source.text: "text", source.id: "id"}.get(name) or (name if name in ("url", "date") else None)
            target = target or column_name(name, source)
            if target is None:
                continue
        else:
            target = name
        if target in ("id", "url", "date") and not pa.types.is_string(column.type):
            column = _as_string(column)
        columns[target] = column.cast(pa.string()) if target == "text" else column
    if "text" not in columns:  # pages to be extracted later
        columns["text"] = pa.repeat("", batch.num_rows)
    return columns


def _as_string(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%S")
    return column.cast(pa.string())


def _rejected(text: pa.Array, columns: dict[str, pa.Array], reading: Reading) -> np.ndarray:
    """Which rows do not become documents (bool), each of them written down."""
    source = reading.source
    bad = np.zeros(len(text), bool)

    def reject(mask: np.ndarray, reason: str, detail: str = "") -> None:
        for at in np.flatnonzero(mask & ~bad):
            row = int(at)
            ids = [columns[c][row].as_py() if c in columns else None for c in ("id", "url")]
            reading.reject(columns["record"][row].as_py(), reason, detail, *ids)
        np.logical_or(bad, mask, out=bad)

    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = text.cast(pa.binary())
        reject(np.array([not _is_utf8(v.as_py()) for v in raw]), "quarantine.encoding", "text is not UTF-8")
    if bad.any():
        text = pc.if_else(pa.array(bad), "", text.cast(pa.binary())).cast(pa.string())
    if text.null_count:
        text = pc.fill_null(text, "")
    size = np.asarray(pc.binary_length(text))
    if not source.cut_text:
        reject(size > source.max_text_bytes, "too_large", f"text of more than {source.max_text_bytes} bytes")
    if source.extract != "none":
        blank = pc.invert(pc.match_substring_regex(text, r"\S"))
        reject(np.asarray(blank), "empty_text")
    return bad


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
        return True
    except UnicodeDecodeError:
        return False


def _cut(text: pa.Array, limit: int) -> pa.Array:
    """Texts longer than the limit end at it, at a character boundary."""
    if not len(text) or (pc.max(pc.binary_length(text)).as_py() or 0) <= limit:
        return text
    short = [t if t is None else t.encode()[:limit].decode(errors="ignore") for t in text.to_pylist()]
    return pa.array(short, pa.string())


def _ids(columns: dict[str, pa.Array], file: str) -> pa.Array:
    """The input's id, else a hash of (file, record)."""
    n = len(columns["text"])
    given = columns.get("id", pa.nulls(n, pa.string()))
    if given.null_count == 0:
        return given
    records = columns["record"].to_pylist()
    made = [xxhash.xxh3_128_hexdigest(f"{file}\0{record}") for record in records]
    return pc.coalesce(given, pa.array(made, pa.string()))


@dataclass(frozen=True)
class DocumentsWork:
    """Writes the manifest of the documents when all splits are in."""

    ingest: Phase
    schema: pa.Schema
    files: tuple[InputFile, ...]

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        shards: list[Shard] = []
        inputs: dict[int, dict[str, Any]] = {}
        counters: dict[str, int] = {}
        rejected = 0
        for record in self.ingest.records():
            shards.extend(Shard(**s) for s in record["shards"])
            rejected += record["rejected"]
            for key, n in record["counters"].items():
                counters[key] = counters.get(key, 0) + n
            for entry in record["inputs"]:
                file = self.files[entry["file"]]
                known = inputs.setdefault(
                    entry["file"],
                    {"corpus": file.corpus, "name": file.name, "bytes": file.size, "sha256": "", "documents": 0, "rejected": 0},
                )
                known["sha256"] = entry.get("sha256", known["sha256"])
                known["documents"] += entry["documents"]
                known["rejected"] += entry["rejected"]
        listed = [inputs[n] for n in sorted(inputs)]
        write_generation(phase.context.root, "documents", self.schema, shards, inputs=listed, counters=counters)
        return {"documents": sum(s.documents for s in shards), "rejected": rejected, "counters": counters}


def rejects(root: Any, drops: str, tasks: int) -> Iterator[pa.Table]:
    """The records that ingest did not pass on, one table a task."""
    for rank in range(tasks):
        yield read_table(root / drops / f"{rank:05d}.parquet")
