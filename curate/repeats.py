"""What stands how often in a corpus, counted exactly: lines and paragraphs by their keys, for the stages that take them out.

Nothing is held but keys. Each shard writes its distinct keys in order, a row group per partition, which is a range of keys.
A partition is merged over all shards in ranges that fit the memory limit, and the keys that are frequent enough are handed
back to those shards that have them. What goes is then found anew, by key, where the texts are rewritten: a second look at the
bytes costs less than keeping the place of every line. A key that stands once costs eight bytes and a bit of disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, did_you_mean
from curate.fit import SHARDS_PER_GROUP, shard_groups
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Step, Task, with_columns
from curate.storage import open_table, read_json, read_partition, read_table, write_json, write_partitioned, write_table

if TYPE_CHECKING:
    from curate.kernels.lines import Folding, Removals

DOCS_PER_PARTITION = 1_000_000
TALLY = 4 << 20  # keys of a shard that are collected before they are put together
RANGE = 1 << 20  # keys that are put in order at once, within the caches
ROW_BYTES = 48  # what a key takes while its partition is merged, all in all
NEVER = np.uint32(0xFFFFFFFF)
IGNORE = ("case", "digits", "punctuation")
SPARE = ("code", "headings")
_SCOPES, _UNITS = "scopes", "units"


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What is counted, and what is enough.

    name: of the stage. scope: "corpus", or "host". ignore: out of IGNORE. blocks: whether units are blocks rather than lines.
    min_chars: letters and marks of a unit that is counted. distinct: count documents rather than places.
    min_documents, max_share, min_scope, min_run, spare: see `line_dedup`. first: the first place in input order stays.
    """

    name: str
    scope: str
    ignore: tuple[str, ...]
    blocks: bool
    min_chars: int
    distinct: bool
    min_documents: int | None
    max_share: float | None
    min_scope: int
    first: bool
    min_run: int = 1
    spare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.ignore:
            if word not in IGNORE:
                raise RecipeError(f"{self.name}: ignore holds {word!r}{did_you_mean(word, IGNORE)}; known: {', '.join(IGNORE)}")
        for word in self.spare:
            if word not in SPARE:
                raise RecipeError(f"{self.name}: spare holds {word!r}{did_you_mean(word, SPARE)}; known: {', '.join(SPARE)}")
        if self.min_run < 1:
            raise RecipeError(f"{self.name}: min_run is {self.min_run}; the least is 1, which is any line")
        if self.min_chars < 1:
            raise RecipeError(f"{self.name}: min_chars is {self.min_chars}; the least is 1")
        if self.min_documents is None and self.max_share is None:
            raise RecipeError(f"{self.name}: min_documents and max_share are both null, so nothing would go; give one of them")
        if self.min_documents is not None and self.min_documents < 2:
            raise RecipeError(f"{self.name}: min_documents is {self.min_documents}; what repeats stands in 2 or more")
        if self.max_share is not None and not 0 < self.max_share < 1:
            raise RecipeError(f"{self.name}: max_share is {self.max_share}; it is a share, above 0 and below 1")
        if self.min_scope < 2:
            raise RecipeError(f"{self.name}: min_scope is {self.min_scope}; a share says nothing of fewer than 2 documents")

    @property
    def scoped(self) -> bool:
        """Whether the documents of each scope are counted first."""
        return self.scope == "host" or self.max_share is not None

    def reads(self) -> tuple[str, ...]:
        """Columns of a pass over the texts."""
        return ("text", "url") if self.scope == "host" else ("text",)

    def writes(self) -> pa.Schema:
        """Columns that the stage writes."""
        more = [(f"{self.name}_removed", pa.uint32()), (f"{self.name}_removed_bytes", pa.uint32())]
        return pa.schema([("text", pa.string()), *more])

    def folding(self) -> Folding:
        """The same for the kernels."""
        from curate.kernels.lines import folding

        return folding(*(word in self.ignore for word in IGNORE), self.blocks, self.min_chars)

    def needed(self, documents: np.ndarray) -> np.ndarray:
        """In how many documents (uint32) something must stand to go, for scopes of so many; NEVER if it cannot."""
        sizes, at = np.unique(documents, return_inverse=True)
        return np.array([self._needed(int(size)) for size in sizes], np.uint32)[at]

    def _needed(self, size: int) -> int:
        found = int(NEVER) if self.min_documents is None else self.min_documents
        if self.max_share is not None and size >= self.min_scope:
            found = min(found, max(2, int(Fraction(repr(self.max_share)) * size) + 1))
        return found if found <= size else int(NEVER)

    def least_scope(self) -> int:
        """Documents of a scope in which anything can go, at least."""
        least = [self.min_documents] if self.min_documents is not None else []
        return min([*least, self.min_scope] if self.max_share is not None else least)

    def steps(self, stage: GlobalStage, n_shards: int, n_docs: int) -> list[Step]:
        """The fit of the stage."""
        parts, groups = max(1, -(-n_docs // DOCS_PER_PARTITION)), shard_groups(n_shards)
        steps = []
        if self.scoped:
            columns = ("url",) if self.scope == "host" else ()
            steps = [
                Step("scopes", partial(_count_scopes, self, stage, parts), reads=columns),
                Step("sizes", partial(_merge, stage, _SCOPES, parts), tasks=parts),
                Step("deliver_sizes", partial(_deliver, stage, _SCOPES, parts), tasks=groups),
            ]
        return [
            *steps,
            Step("keys", partial(_count_units, self, stage, parts), reads=self.reads()),
            Step("repeats", partial(_merge, stage, _UNITS, parts), tasks=parts),
            Step("deliver", partial(_deliver, stage, _UNITS, parts), tasks=groups),
        ]

    def open(self, stage: GlobalStage, task: Task) -> BatchFn:
        """The function that rewrites the batches of a shard."""
        from curate.kernels.lines import NOWHERE, removals

        folder, name = task.folder(stage) / _UNITS, task.shards[task.shard or 0]
        found = read_table(folder / "delivered" / name)
        keys, stays = found["key"].to_numpy(), np.full(len(found), NOWHERE)
        if self.first and len(found):
            here = found["first"].to_numpy()
            own = read_table(folder / "keys" / name, ["key", "address"])
            stays[here] = own["address"].to_numpy()[np.searchsorted(own["key"].to_numpy(), keys[here])]
        return partial(self._rewrite, self.folding(), removals(keys, stays), task)

    def _rewrite(self, folding: Folding, gone: Removals, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        from curate.kernels.lines import Sparing, without
        from curate.kernels.words import offsets_and_bytes

        text = batch["text"]
        seeds = scope_keys(self.scope, batch)
        if homeless := int((seeds == 0).sum()):
            task.count("documents without a host, left alone", homeless)
        units, size = np.zeros(len(text), np.uint32), np.zeros(len(text), np.uint32)
        if len(gone.keys):
            sparing = Sparing(self.min_run, *(word in self.spare for word in SPARE))
            rows = batch[ROW].to_numpy() if ROW in batch.schema.names else np.arange(len(text), dtype=np.uint32)
            offsets, data, units, size = without(*offsets_and_bytes(text), seeds, rows, gone, folding, sparing)
        n = int(units.sum())
        empty = np.zeros(len(text), bool)
        if n:
            task.count("paragraphs taken out" if self.blocks else "lines taken out", n)
            task.count("bytes taken out", int(size.sum()))
            made = pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(data))
            text = pc.if_else(pc.is_valid(text), made, pa.scalar(None, pa.string())) if text.null_count else made
            empty = (units > 0) & (offsets[1:] == offsets[:-1])
        columns = {
            "text": text,
            f"{self.name}_removed": pa.array(units),
            f"{self.name}_removed_bytes": pa.array(size),
            REASON: pc.if_else(pa.array(empty), pa.scalar(f"{self.name}.empty"), pa.scalar(None, pa.string())),
            "_value": pa.array(units.astype(np.float64), mask=~empty),
        }
        return with_columns(batch, columns)


def scope_keys(scope: str, batch: pa.RecordBatch) -> np.ndarray:
    """uint64 for the scope of each document: its host by `url`, without a leading `www.`; 0 for one that has none."""
    if scope == "corpus":
        return np.ones(batch.num_rows, np.uint64)
    from curate.kernels.lines import host_keys
    from curate.kernels.urls import canonical_host, host_spans
    from curate.kernels.words import offsets_and_bytes

    urls = pc.fill_null(pc.cast(batch["url"], pa.string()), "")
    offsets, data = offsets_and_bytes(urls)
    starts, ends, _, odd = host_spans(offsets, data)
    keys = host_keys(starts, ends, data)
    for row in np.flatnonzero(odd):
        host = np.frombuffer(canonical_host(data[starts[row] : ends[row]].tobytes().decode("utf-8", "replace")), np.uint8)
        keys[row] = host_keys(np.zeros(1, np.int32), np.full(1, len(host), np.int32), host)[0]
    return keys


# --------------------------------------------------------------------------------------------- the steps of the fit


class _Tally:
    """The keys of one shard, how often each stands there, and more columns as they are where it stands first."""

    def __init__(self) -> None:
        self._parts: list[dict[str, np.ndarray]] = []
        self._rows, self._most = 0, TALLY

    def add(self, key: np.ndarray, **more: np.ndarray) -> None:
        """More keys, in input order."""
        self._parts.append({"key": key, "n": np.ones(len(key), np.uint32), **more})
        self._rows += len(key)
        if self._rows > self._most:  # millions of short lines that are all the same
            self._most = max(self._most, 2 * len(self.merged()["key"]))

    def merged(self) -> dict[str, np.ndarray]:
        """All columns, in the order of the keys, none twice."""
        from curate.kernels.lines import order

        if not self._parts:
            return {"key": np.empty(0, np.uint64), "n": np.empty(0, np.uint32)}
        columns = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        found = order(columns["key"], 0, (1 << 64) - 1)
        key = columns["key"][found]
        starts = np.flatnonzero(_changes(key))
        first = found[starts]
        merged = {name: values[first] for name, values in columns.items()}
        if len(first):
            merged["n"] = np.add.reduceat(columns["n"][found], starts)
        self._parts, self._rows = [merged], len(first)
        return merged

    def write(self, path: Path, parts: int) -> None:
        """A row group for each partition."""
        columns = self.merged()
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        bounds = [_bound(part, parts) for part in range(1, parts)]
        at = [0, *np.searchsorted(columns["key"], np.array(bounds, np.uint64)).tolist(), len(table)]
        write_partitioned(path, table.schema, ((p, table.slice(at[p], at[p + 1] - at[p])) for p in range(parts)))


def _changes(values: np.ndarray) -> np.ndarray:
    """Which values differ from the one before."""
    found = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=found[1:])
    return found


def _bound(part: int, parts: int) -> int:
    """The least key of a partition."""
    return -(-(part << 64) // parts)


def _count_scopes(repeats: Repeats, stage: GlobalStage, parts: int, task: Task, batches: Batches) -> None:
    """How many documents of each scope a shard has."""
    tally = _Tally()
    for batch in batches:
        keys = scope_keys(repeats.scope, batch)
        keys = keys[keys != 0]
        tally.add(keys, needed=np.full(len(keys), repeats.least_scope(), np.uint32))
    tally.write(task.folder(stage) / _SCOPES / "keys" / task.shards[task.shard or 0], parts)


def _count_units(repeats: Repeats, stage: GlobalStage, parts: int, task: Task, batches: Batches) -> None:
    """In how many documents, or places, of a shard each unit stands."""
    from curate.kernels.lines import unit_keys
    from curate.kernels.words import offsets_and_bytes

    folding, name = repeats.folding(), task.shards[task.shard or 0]
    if repeats.scoped:
        scopes = read_table(task.folder(stage) / _SCOPES / "delivered" / name)
        known, needs = scopes["key"].to_numpy(), repeats.needed(scopes["n"].to_numpy())
    tally = _Tally()
    for batch in batches:
        seeds = scope_keys(repeats.scope, batch)
        if repeats.scoped:
            at = np.minimum(np.searchsorted(known, seeds), max(len(known) - 1, 0))
            needed = np.where(known[at] == seeds, needs[at], NEVER) if len(known) else np.full(len(seeds), NEVER)
        else:
            needed = np.full(len(seeds), repeats.min_documents, np.uint32)
        # where nothing can go, nothing need be counted
        keys, texts, units = unit_keys(*offsets_and_bytes(batch["text"]), seeds, needed != NEVER, folding, repeats.distinct)
        more = {"needed": needed[texts]}
        if repeats.first:
            more["address"] = batch[ROW].to_numpy()[texts].astype(np.uint64) << np.uint64(32) | units
        tally.add(keys, **more)
    tally.write(task.folder(stage) / _UNITS / "keys" / name, parts)


def _merge(stage: GlobalStage, kind: str, parts: int, task: Task) -> None:
    """The keys of a partition that are frequent enough, for each shard that has them, a row group for a group of shards.

    It is cut into ranges of about RANGE keys, and as many of them are loaded at once as the memory limit holds.
    """
    folder, part = task.folder(stage) / kind, task.rank
    paths = [folder / "keys" / name for name in task.shards]
    rows = sum(_rows_of(path, part) for path in paths)
    ranges = max(1, -(-rows // RANGE))
    at_once = max(1, task.memory_limit // (ROW_BYTES * RANGE))
    low, high = _bound(part, parts), _bound(part + 1, parts)
    bounds = [low + (high - low) * i // ranges for i in range(ranges + 1)]
    passes = [bounds[i : i + at_once + 1] for i in range(0, ranges, at_once)]
    groups = shard_groups(len(task.shards))
    counts = [0] * groups

    def found() -> Iterator[tuple[int, pa.Table]]:
        for i, cuts in enumerate(passes):
            table = _merge_ranges(paths, part, cuts)
            at = np.searchsorted(table["shard"].to_numpy(), np.arange(groups + 1) * SHARDS_PER_GROUP)
            for group in range(groups):
                counts[group] += int(at[group + 1] - at[group])
                yield i * groups + group, table.slice(at[group], at[group + 1] - at[group])

    write_partitioned(folder / "merged" / f"{part:05d}.parquet", _MERGED, found())
    write_json(folder / "merged" / f"{part:05d}.json", {"passes": len(passes), "rows": counts})


_MERGED = pa.schema([("shard", pa.uint32()), ("key", pa.uint64()), ("n", pa.uint64()), ("first", pa.bool_())])


def _rows_of(path: Path, part: int) -> int:
    with open_table(path) as file:
        group = dict(orjson.loads(file.metadata.metadata[b"partitions"])).get(part)
        return 0 if group is None else file.metadata.row_group(group).num_rows


def _merge_ranges(paths: list[Path], part: int, cuts: list[int]) -> pa.Table:
    """`_MERGED` for the keys between the first and the last cut, by shard, then key."""
    from curate.kernels.lines import order

    loaded: list[list[np.ndarray]] = []
    places: list[list[int]] = []
    for path in paths:
        table = read_partition(path, part)
        if not table.num_rows:
            places.append([0] * len(cuts))
            loaded.append([])
            continue
        at = _cut_at(table["key"].to_numpy(), cuts)
        places.append([n - at[0] for n in at])
        loaded.append([table[name].to_numpy()[at[0] : at[-1]].copy() for name in ("key", "n", "needed")])
    found: list[tuple[np.ndarray, ...]] = []
    for i in range(len(cuts) - 1):
        spans = [(shard, place[i], place[i + 1]) for shard, place in enumerate(places) if place[i] < place[i + 1]]
        if not spans:
            continue
        key, n, needed = (np.concatenate([loaded[shard][c][a:b] for shard, a, b in spans]) for c in range(3))
        shard = np.repeat(np.array([s for s, _, _ in spans], np.uint32), [b - a for _, a, b in spans])
        by_key = order(key, cuts[i], cuts[i + 1] - 1)
        key = key[by_key]
        new = _changes(key)
        starts = np.flatnonzero(new)
        total = np.add.reduceat(n[by_key].astype(np.uint64), starts)
        enough = total >= needed[by_key[starts]]
        sizes = np.diff(np.append(starts, len(key)))
        goes = np.repeat(enough, sizes)
        found.append((shard[by_key[goes]], key[goes], np.repeat(total[enough], sizes[enough]), new[goes]))
    del loaded
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)] if found else [np.empty(0, t) for t in _EMPTY]
    by_shard = np.argsort(columns[0], kind="stable")
    return pa.table([pa.array(values[by_shard]) for values in columns], schema=_MERGED)


_EMPTY = (np.uint32, np.uint64, np.uint64, np.bool_)


def _cut_at(keys: np.ndarray, cuts: list[int]) -> list[int]:
    """Where each cut lies among keys in order; a cut may be one above the largest uint64."""
    within = [cut for cut in cuts if cut < 1 << 64]
    return [*np.searchsorted(keys, np.array(within, np.uint64)).tolist(), *[len(keys)] * (len(cuts) - len(within))]


def _deliver(stage: GlobalStage, kind: str, parts: int, task: Task) -> None:
    """The frequent keys of each shard of a group, in order, in as many rounds as the memory limit asks for."""
    folder, group, groups = task.folder(stage) / kind, task.rank, shard_groups(len(task.shards))
    about = [read_json(folder / "merged" / f"{part:05d}.json") for part in range(parts)]
    rows = sum(said["rows"][group] for said in about)
    first, last = group * SHARDS_PER_GROUP, min((group + 1) * SHARDS_PER_GROUP, len(task.shards))
    rounds = max(1, min(last - first, -(-rows * ROW_BYTES // task.memory_limit)))
    cuts = [first + (last - first) * i // rounds for i in range(rounds + 1)]
    for low, high in itertools.pairwise(cuts):
        found: list[list[pa.Table]] = [[] for _ in range(low, high)]
        for part, said in enumerate(about):
            for i in range(said["passes"]):
                table = read_partition(folder / "merged" / f"{part:05d}.parquet", i * groups + group)
                at = np.searchsorted(table["shard"].to_numpy(), np.arange(low, high + 1))
                for shard in range(high - low):
                    if at[shard] < at[shard + 1]:  # taken, so that the rest of the group is not held
                        rows_of = pa.array(np.arange(at[shard], at[shard + 1]))
                        found[shard].append(table.select(["key", "n", "first"]).take(rows_of))
        for shard in range(low, high):
            tables = found[shard - low] or [_MERGED.empty_table().select(["key", "n", "first"])]
            write_table(folder / "delivered" / task.shards[shard], pa.concat_tables(tables), codec="lz4")
