"""Export: the surviving documents in one global random order, as compressed Parquet files of about equal size.

Every document gets a 64-bit key, a hash of the seed and of where it came from; the output is all documents sorted by key,
cut into files of equally many rows. So the order is a pure function of the documents, and no worker, batch or bucket size
can be seen in the output. The sort is external and moves each text twice:

    census     per shard, narrow columns only: how many documents, bytes and tokens, candidates for validation, and all keys
    sample     a few MB compressed as they will be, to learn how many files make `shard_mb`
    scatter    per group of shards: rows into buckets by key; scratch is raw Arrow that is mapped and not parsed
    sort       only above 256 buckets: a second scatter, so that no task has to open more than that many small cells
    gather     per piece of an output file: its rows out of their buckets, in order, as zstd row groups
    assemble   per output file: pieces joined without decompressing them (`curate.splice`)

A corpus that fits in one bucket is read directly. Memory is bounded by buckets and pieces of 32 MB and chunks of 64 MB.
A document may be written several times (`_copies`), and to several groups (`_groups`), each of which has files and an order of
its own. What is held out for validation is held out of all groups, and stands in each of those that it is in once.

The output folder belongs to one export at a time, by the mark `state/export-<fp>/owner`: another one first removes what the
last one left (manifest first, then its marks, then data), so that a kill anywhere leaves either an owner that can go on or
none at all.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curate.dataset import Dataset
from curate.errors import ColumnError, ManifestError, did_you_mean
from curate.phases import Context, Phase
from curate.recipe import Output
from curate.splice import splice
from curate.stage import ROW
from curate.storage import atomic, open_table, read_json, write_bytes, write_json

ROW_GROUP = 1024
BUCKET_BYTES, PIECE_BYTES, CHUNK_BYTES = 32 << 20, 32 << 20, 64 << 20
FAN_OUT = 256
SAMPLES, SAMPLE_BYTES = 8, 512 << 10
SPLITS = ("train", "validation")

FIRST = ("id", "text", "url", "date", "tokens")
LINEAGE = ("corpus", "file", "record")
HIDDEN = frozenset(
    "html _extra raw_bytes text_bytes media_type declared_language"
    " rewrite_answers rewrite_outcomes entigraph_answers entigraph_outcomes entigraph_entities entigraph_summary".split()
)
COPIES, GROUPS, CLUSTER = "_copies", "_groups", "duplicate_cluster"
GROUP_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
KEY, BUCKET = "_key", "_bucket"
_SIZES = ("text_bytes", "tokens")
_UNIQUE = frozenset({"text", "id", "url", "date", "html"})  # a dictionary of these is as large as the values


@dataclass(frozen=True)
class ShardEntry:
    """One file of the output. path: relative to the output folder; bytes: UTF-8 bytes of text."""

    path: str
    documents: int
    bytes: int
    tokens: int
    sha256: str
    split: str
    group: str | None = None


def columns_of(final: Dataset, output: Output, transient: set[str]) -> tuple[str, ...]:
    """The columns that are written, in order. transient: columns that the default leaves out, too.

    Raises ColumnError for a name in `output.columns` that no stage and no input has.
    """
    known = final.columns
    if GROUPS in known:
        if COPIES in known:
            raise ColumnError(f"{COPIES} and {GROUPS} cannot both be there: leave out `mixture` or `schedule`")
        for name in groups_of(final):
            if name is None or not GROUP_NAME.fullmatch(name):
                raise ColumnError(f"{name!r} is no name for a group of the output: give a-z, 0-9, '.', '_' and '-'")
    for name in output.columns:
        if name not in known:
            raise ColumnError(f"output.columns: there is no column {name!r} at the end{did_you_mean(name, known)}")
    chosen = list(output.columns)
    if not chosen:
        chosen = [n for n in FIRST if n in known]
        chosen += [n for n in known if n not in HIDDEN and n not in transient and n[:1] != "_"]
        chosen = [n for n in chosen if n not in LINEAGE]
    return tuple(dict.fromkeys([*chosen, *LINEAGE]))


def groups_of(final: Dataset) -> tuple[str | None, ...]:
    """The groups that the output is divided into, in order; one without a name where nobody asked for any."""
    if GROUPS not in final.columns:
        return (None,)
    kind = final.types.field(GROUPS).type
    return tuple(kind.field(i).name for i in range(kind.num_fields))


# --------------------------------------------------------------------------------------------- phases


def phases(context: Context, final: Dataset, output: Output, fingerprint: str, columns: tuple[str, ...]) -> Iterator[Phase]:
    """The phases of an export. Run each completely before asking for the next: later ones are sized by earlier ones.

    The caller may rename them, since tasks leave what the next phase needs in the export's own state folder.
    Raises ManifestError where rows were lost on the way.
    """
    job = Job(final, output, columns, f"state/export-{fingerprint[:8]}")
    _claim(context.root, job)

    def phase(name: str, tasks: int, work: Any) -> Phase:
        key = fingerprint[:8]
        return Phase(name=f"export.{name}-{key}", tasks=tasks, stages=(), fingerprint=fingerprint, context=context, work=work)

    shards = len(final.generation.shards)
    yield phase("census", shards, CensusWork(job))
    layout = Layout(job, _records(job, "census", shards))
    if layout.total_weight > output.shard_mb * 1e6 * 3 / 4:
        places = layout.places()
        yield phase("sample", len(places), SampleWork(job, places))
        layout = layout.with_samples(_records(job, "sample", len(places)))
    if not layout.direct:
        groups = layout.groups()
        yield phase("scatter", len(groups), ScatterWork(job, layout.split, groups))
        _index(job, "scatter", len(groups))
        if layout.split.partitions < layout.split.total:
            yield phase("sort", layout.split.partitions, SortWork(job, layout.split))
            _index(job, "sort", layout.split.partitions)
            shutil.rmtree(job.state / "scatter", ignore_errors=True)
    pieces = layout.pieces()
    yield phase("gather", len(pieces), GatherWork(job, layout.split, pieces, layout.row_group, layout.direct))
    for name in ("keys", "scatter", "sort"):
        shutil.rmtree(job.state / name, ignore_errors=True)
    files = layout.files()
    yield phase("assemble", len(files), AssembleWork(job, files, tuple(p.file for p in pieces)))
    written = _records(job, "assemble", len(files))
    for what in ("documents", "bytes", "tokens"):
        if sum(w[what] for w in written) != layout.written(what):
            raise ManifestError(f"export wrote {sum(w[what] for w in written)} {what} out of {layout.written(what)}: a bug")
    write_json(job.state / "files.json", [[w["path"], w["size"]] for w in written])
    shutil.rmtree(job.state / "pieces", ignore_errors=True)


def collect(context: Context, done: Sequence[Phase]) -> list[ShardEntry]:
    """What the phases wrote, in file order. done: the phases as they were run."""
    names = ShardEntry.__dataclass_fields__
    return [ShardEntry(**{k: v for k, v in record.items() if k in names}) for record in done[-1].records()]


def distinct(done: Sequence[Phase]) -> int:
    """How many documents went into the output, each counted once. done: the phases as they were run."""
    return sum(record["distinct"] for record in done[0].records())


_OURS = re.compile(r"(\d+-)?export\.(census|sample|scatter|sort|gather|assemble)-[0-9a-f]{8}")


def _claim(root: Path, job: Job) -> None:
    """Make the output folder ours, empty unless an earlier attempt of the same export has begun to fill it."""
    output, owner = root / "output", job.state / "owner"
    (output / "manifest.json").unlink(missing_ok=True)
    if owner.exists() and _intact(output, job):
        return
    states = sorted((root / "state").glob("export-*"))
    for state in states:
        (state / "owner").unlink(missing_ok=True)
    for folder in sorted((root / "phases").glob("*")):
        if _OURS.fullmatch(folder.name):
            shutil.rmtree(folder)
    for folder in (*states, output / "data"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in output.iterdir() if output.exists() else ():
        if path.is_file():
            path.unlink()
    (output / "data").mkdir(parents=True, exist_ok=True)
    write_bytes(owner, b"")


def _intact(output: Path, job: Job) -> bool:
    """Whether a finished export still has its files; always true for an unfinished one."""
    listed = job.state / "files.json"
    if not listed.exists():
        return True
    return all((output / path).is_file() and (output / path).stat().st_size == size for path, size in read_json(listed))


# --------------------------------------------------------------------------------------------- keys


@dataclass(frozen=True)
class Job:
    """What every task of an export knows. state: scratch folder, relative to the run."""

    final: Dataset
    output: Output
    columns: tuple[str, ...]
    folder: str

    @property
    def state(self) -> Path:
        return self.final.root / self.folder

    @cached_property
    def groups(self) -> tuple[str | None, ...]:
        """See `groups_of`."""
        return groups_of(self.final)

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the output files."""
        return pa.schema([(n, plain(self.final.types.field(n).type)) for n in self.columns])

    @cached_property
    def scratch(self) -> pa.Schema:
        """Of scratch files: the output's columns, sizes, and where a row goes."""
        more = [(n, pa.uint32()) for n in _SIZES if n not in self.columns]
        return pa.schema([*self.schema, *more, (KEY, pa.uint64()), (BUCKET, pa.uint32())])

    def note(self, phase: str, rank: int, record: dict[str, Any]) -> dict[str, Any]:
        write_json(self.state / phase / f"{rank:05d}.json", record)
        return record


def plain(kind: pa.DataType) -> pa.DataType:
    """The type that a trainer expects for it. What the values of a list are called is no matter of who read the input."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(i).name, plain(kind.field(i).type)) for i in range(kind.num_fields)])
    if kind in (pa.large_string(), pa.string_view()):
        return pa.string()
    return pa.binary() if kind in (pa.large_binary(), pa.binary_view()) else kind


@dataclass(frozen=True)
class Keys:
    """The rows of a shard as they are exported: a row appears once per copy.

    rows (uint32): ascending row numbers. keys (uint64): place in the global order. units (uint64): hash of what has to be on
    one side of the split (a duplicate cluster, else the source record with all that was made from it). parts (uint64): twice
    the number of the group, and one more for each copy but the first that the group has, which validation goes without.
    """

    rows: np.ndarray
    keys: np.ndarray
    units: np.ndarray
    parts: np.ndarray

    @staticmethod
    def load(job: Job, shard: int) -> Keys:
        """As the census left them."""
        rows, keys, units, parts = np.load(_keys_file(job, shard))
        return Keys(rows.astype(np.uint32), keys, units, parts)

    def save(self, job: Job, shard: int) -> None:
        _save(_keys_file(job, shard), np.stack([self.rows.astype(np.uint64), self.keys, self.units, self.parts]))

    def taken(self, which: np.ndarray) -> Keys:
        """Those rows (bool)."""
        return Keys(self.rows[which], self.keys[which], self.units[which], self.parts[which])


def _keys_file(job: Job, shard: int) -> Path:
    return job.state / "keys" / f"{shard:05d}.npy"


def _save(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)


@dataclass(frozen=True)
class Placed(Keys):
    """Keys with the sizes of the documents (int64)."""

    bytes: np.ndarray
    tokens: np.ndarray


def place(job: Job, shard: int) -> Placed:
    """Keys of the surviving rows of a shard, out of narrow columns."""
    final, seed = job.final, job.output.seed
    names = [*LINEAGE, *_SIZES, *(n for n in (CLUSTER, COPIES, GROUPS) if n in final.columns)]
    batches = list(final.read(shard, names, narrow=True))
    if not batches:
        nothing, none = np.empty(0, np.uint64), np.empty(0, np.int64)
        return Placed(nothing.astype(np.uint32), nothing, nothing, nothing, none, none)
    table = pa.Table.from_batches(batches)
    record = _integers(table["record"]).view(np.uint64)
    origin = _mix(_hashes(table["corpus"], seed) ^ _mix(_hashes(table["file"], seed + 1) ^ _mix(record + _GOLDEN)))
    same = np.concatenate([[False], origin[1:] == origin[:-1]])  # several documents out of one record
    at = np.arange(len(same))
    nth = at - np.maximum.accumulate(np.where(same, 0, at))
    base = origin + _mix(nth.astype(np.uint64) + _GOLDEN)
    units = _mix(origin ^ _SPLIT)
    if CLUSTER in final.columns:
        cluster = table[CLUSTER]
        units = np.where(np.asarray(cluster.is_valid()), _mix(_hashes(cluster, seed + 2) ^ _SPLIT), units)
    times = _times(table, job.groups)
    flat = times.ravel()
    cell = np.repeat(np.arange(len(flat)), flat)  # a cell is a document in a group
    copy = np.arange(len(cell)) - np.repeat(np.cumsum(flat) - flat, flat)
    pick, group = np.divmod(cell, times.shape[1])
    nth_copy = (group.astype(np.uint64) << np.uint64(32)) + copy.astype(np.uint64)
    return Placed(
        rows=table[ROW].to_numpy()[pick],
        keys=_mix(base[pick] + _mix(nth_copy + _COPY)),
        units=units[pick],
        parts=2 * group.astype(np.uint64) + (copy > 0),
        bytes=_integers(table["text_bytes"])[pick],
        tokens=_integers(table["tokens"])[pick],
    )


def _times(table: pa.Table, groups: Sequence[str | None]) -> np.ndarray:
    """int64 (documents, groups): how many copies of each go where."""
    if COPIES in table.column_names:
        return _integers(table[COPIES])[:, None]
    if GROUPS not in table.column_names:
        return np.ones((len(table), 1), np.int64)
    column = table[GROUPS].combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.stack([_integers(part) for part in column.flatten()], axis=1)


_GOLDEN, _SPLIT, _COPY = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03), np.uint64(0x8CB92BA72F3D8DD7)


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele, Lea and Flood 2014): a bijection of uint64 whose output bits all depend on all input."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _hashes(column: pa.ChunkedArray, seed: int) -> np.ndarray:
    """A seeded hash of each value (uint64); values repeat a lot, so each is hashed once."""
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    values = [xxhash.xxh3_64_intdigest(str(v), seed & (1 << 64) - 1) for v in coded.dictionary.to_pylist()]
    codes = pc.fill_null(coded.indices, len(values)).to_numpy()
    return np.array([*values, 0], np.uint64)[codes]


def _integers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """int64 values; null is 0."""
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0))


# --------------------------------------------------------------------------------------------- census and layout


@dataclass(frozen=True)
class CensusWork:
    """Per shard: documents, bytes, tokens, `weight` (estimated bytes of the exported columns), and the smallest units."""

    job: Job

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        placed, output = place(self.job, rank), self.job.output
        weight = int(len(placed.rows) * _row_weight(self.job, rank))
        if "text" in self.job.columns:
            weight += int(placed.bytes.sum())
        if output.validation:
            _save(self.job.state / "census" / f"{rank:05d}.npy", _units(placed, len(self.job.groups))[:, : _candidates(output)])
        placed.save(self.job, rank)
        record = {"documents": len(placed.rows), "bytes": int(placed.bytes.sum()), "tokens": int(placed.tokens.sum())}
        groups = np.bincount((placed.parts >> np.uint64(1)).astype(np.int64), minlength=len(self.job.groups)).tolist()
        squares = int(((placed.bytes >> 10) ** 2).sum())  # in KiB, so that the sum fits
        more = {"distinct": len(np.unique(placed.rows)), "groups": groups, "weight": weight, "squares": squares}
        return self.job.note("census", rank, {**record, **more})


def _units(placed: Placed, groups: int) -> np.ndarray:
    """uint64 (4 + 2 groups, units): hash in order, documents, bytes and tokens of spare copies; by group, rows and spares."""
    units, where = np.unique(placed.units, return_inverse=True)
    sums = np.zeros((4 + 2 * groups, len(units)), np.uint64)
    sums[0] = units
    first = np.append(True, placed.rows[1:] != placed.rows[:-1])[: len(placed.rows)]
    spare = (placed.parts & np.uint64(1)).astype(bool)
    np.add.at(sums[1], where[first], np.uint64(1))
    np.add.at(sums[2], where[spare], placed.bytes[spare].astype(np.uint64))
    np.add.at(sums[3], where[spare], placed.tokens[spare].astype(np.uint64))
    group = (placed.parts >> np.uint64(1)).astype(np.int64)
    np.add.at(sums, (4 + 2 * group, where), np.uint64(1))
    np.add.at(sums, (5 + 2 * group[spare], where[spare]), np.uint64(1))
    return sums


def _candidates(output: Output) -> int:
    return output.validation_max + 64


def _row_weight(job: Job, shard: int) -> float:
    """Bytes that a row has in the exported columns beside the text, by the footers."""
    name = job.final.generation.shards[shard].name
    folders: dict[str, set[str]] = {}
    for column in job.columns:
        if column != "text":
            folders.setdefault(job.final.columns[column] or job.final.folder, set()).add(column)
    total = 64.0  # what repeats in every row, and is small in Parquet only
    for folder, names in folders.items():
        with open_table(job.final.root / folder / name) as file:
            groups = file.metadata
            size = 0
            for g in range(groups.num_row_groups):
                group = groups.row_group(g)
                for c in range(group.num_columns):
                    chunk = group.column(c)
                    if chunk.path_in_schema.partition(".")[0] in names:
                        size += chunk.total_uncompressed_size
            total += size / max(1, groups.num_rows)
    return total


@dataclass(frozen=True)
class Split:
    """Which rows are held out, and which bucket a key falls into.

    A section is a group's train files or its validation files, in this order: those of all groups, and then these.
    low, high: units between them, both included, are validation. buckets: of each section; a bucket is a range of keys.
    width: buckets that go into one partition of the first scatter.
    """

    low: int
    high: int
    buckets: tuple[int, ...]
    width: int

    @property
    def total(self) -> int:
        return sum(self.buckets)

    @property
    def partitions(self) -> int:
        return -(-self.total // self.width)

    def first(self, section: int) -> int:
        """The first bucket of a section."""
        return sum(self.buckets[:section])

    def bucket(self, placed: Keys) -> np.ndarray:
        """Bucket of each row (uint32), in the order of sections; `total` for a row that is not written."""
        held = (placed.units >= np.uint64(self.low)) & (placed.units <= np.uint64(self.high)) & (self.low <= self.high)
        section = placed.parts >> np.uint64(1)
        section = np.where(held, section + np.uint64(len(self.buckets) // 2), section).astype(np.int64)
        first = np.cumsum([0, *self.buckets], dtype=np.uint64)
        found = first[section] + ((placed.keys >> np.uint64(32)) * np.array(self.buckets, np.uint64)[section] >> np.uint64(32))
        spare = held & (placed.parts & np.uint64(1)).astype(bool)
        return np.where(spare, np.uint64(self.total), found).astype(np.uint32)


@dataclass(frozen=True)
class File:
    """One output file: rows `start` to `stop` of its section in key order."""

    section: int
    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """Rows of a file that one task compresses: whole row groups, but for the end of the file."""

    file: int
    section: int
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """How much goes where: a fixed function of the census and the samples."""

    job: Job
    census: list[dict[str, Any]]
    samples: list[dict[str, Any]] = field(default_factory=list)

    def total(self, what: str) -> int:
        return sum(c[what] for c in self.census)

    def written(self, what: str) -> int:
        """What is in the files: all but the spare copies of what is held out."""
        spare = {"documents": sum(self._held.spares), "bytes": self._held.bytes, "tokens": self._held.tokens}
        return self.total(what) - spare[what]

    @cached_property
    def total_weight(self) -> int:
        return self.total("weight")

    @cached_property
    def _held(self) -> _Held:
        return _hold_out(self.job, self.total("distinct"), len(self.census))

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Rows of each section."""
        all_ = [sum(c["groups"][g] for c in self.census) for g in range(len(self.job.groups))]
        held = self._held
        train = [n - rows for n, rows in zip(all_, held.rows, strict=True)]
        return (*train, *(rows - spares for rows, spares in zip(held.rows, held.spares, strict=True)))

    def _share(self, section: int, total: float) -> float:
        return total * self.rows[section] / max(1, self.total("documents"))

    @cached_property
    def split(self) -> Split:
        buckets = [
            max(1, -(-int(self._share(i, self.total_weight)) // BUCKET_BYTES)) if rows else 0
            for i, rows in enumerate(self.rows)
        ]
        return Split(self._held.low, self._held.high, tuple(buckets), max(1, -(-sum(buckets) // FAN_OUT)))

    @cached_property
    def row_group(self) -> int:
        """1,024; a half of it and so on where documents are so long that a row group might not fit in memory."""
        rows, n = ROW_GROUP, max(1, self.total("documents"))
        mean, deviation = self.total_weight / n, 1024 * math.sqrt(self.total("squares") / n)
        while rows > 1 and rows * mean + 4 * math.sqrt(rows) * deviation > CHUNK_BYTES:
            rows //= 2
        return rows

    @property
    def direct(self) -> bool:
        """Whether the corpus is so small that a second reading costs less than a scatter."""
        return max(self.split.buckets) <= 1 and len(self.pieces()) <= 2

    def places(self) -> tuple[tuple[int, int, int], ...]:
        """(shard, k, n): sample the k-th of n places of a shard; in all 2% of the corpus, but 4 to 32 MB, all over it."""
        full = [i for i, c in enumerate(self.census) if c["documents"]]
        wanted = min(max(SAMPLES, self.total_weight // (50 * SAMPLE_BYTES)), 8 * SAMPLES)
        each = -(-wanted // len(full))
        spread = range(min(wanted, len(full)))
        return tuple((full[i * len(full) // len(spread)], k, each) for i in spread for k in range(each))

    def with_samples(self, samples: list[dict[str, Any]]) -> Layout:
        return Layout(self.job, self.census, samples)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Shards that one task scatters: in order, about 64 MB."""
        groups: list[list[int]] = []
        filled = CHUNK_BYTES
        for shard, entry in enumerate(self.census):
            if filled + entry["weight"] > CHUNK_BYTES:
                groups.append([])
                filled = 0
            groups[-1].append(shard)
            filled += entry["weight"]
        return tuple(tuple(g) for g in groups)

    def files(self) -> tuple[File, ...]:
        ratio = sum(s["compressed"] for s in self.samples) / sum(s["weight"] for s in self.samples) if self.samples else 0.0
        files = []
        for section, rows in enumerate(self.rows):
            n = round(self._share(section, self.total_weight) * ratio / (self.job.output.shard_mb * 1e6))
            n = min(max(1, n), rows)
            split, group = section_of(self.job, section)
            name = split if group is None else f"{group}/{split}"
            for i in range(n):
                path = f"data/{name}-{i:05d}-of-{n:05d}.parquet"
                files.append(File(section, path, i * rows // n, (i + 1) * rows // n))
        return tuple(files)

    def pieces(self) -> tuple[Piece, ...]:
        mean = self.total_weight / max(1, self.total("documents"))
        step = max(1, round(PIECE_BYTES / max(1.0, mean)) // self.row_group) * self.row_group
        return tuple(
            Piece(number, file.section, start, min(start + step, file.stop))
            for number, file in enumerate(self.files())
            for start in range(file.start, file.stop, step)
        )


def section_of(job: Job, section: int) -> tuple[str, str | None]:
    """(split, group) of a section."""
    split, group = divmod(section, len(job.groups))
    return SPLITS[split], job.groups[group]


@dataclass(frozen=True)
class _Held:
    """What is held out: units from `low` to `high`; of these, rows and spares per group, and bytes and tokens of spares."""

    low: int
    high: int
    rows: tuple[int, ...]
    spares: tuple[int, ...]
    bytes: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, units: np.ndarray) -> _Held:
        """units: a run of columns of `_units`."""
        sums = [int(n) for n in units[1:].sum(axis=1)]
        return cls(int(units[0, 0]), int(units[0, -1]), tuple(sums[3::2]), tuple(sums[4::2]), sums[1], sums[2])


def _hold_out(job: Job, documents: int, shards: int) -> _Held:
    """The range of units that is held out; documents: of all, each counted once.

    Units are taken by ascending hash as long as they fit; too large a cluster at the beginning is passed over.
    """
    output, none = job.output, (0,) * len(job.groups)
    if not output.validation or documents < 2:
        return _Held(1, 0, none, none)
    wanted = min(max(1, round(output.validation * documents)), output.validation_max, documents - 1)
    limit = wanted + 64
    units = np.empty((4 + 2 * len(job.groups), 0), np.uint64)
    held: list[np.ndarray] = []
    for rank in range(shards):
        held.append(np.load(job.state / "census" / f"{rank:05d}.npy")[:, :limit])
        if rank == shards - 1 or sum(h.shape[1] for h in held) > 1 << 22:
            both = np.concatenate([units, *held], axis=1)
            hashes, where = np.unique(both[0], return_inverse=True)
            sums = np.zeros((len(both), len(hashes)), np.uint64)
            for row in range(1, len(both)):
                np.add.at(sums[row], where, both[row])
            sums[0] = hashes
            units, held = sums[:, :limit], []
    counts = units[1]
    fits = np.flatnonzero(counts <= np.uint64(wanted))
    if not len(fits):  # nothing but clusters larger than the share: the smallest, if it may be held out at all
        only = int(np.argmin(counts))
        if counts[only] > np.uint64(min(output.validation_max, documents - 1)):
            return _Held(1, 0, none, none)
        return _Held.of(units[:, only : only + 1])
    first = int(fits[0])
    within = np.cumsum(counts[first:].astype(np.int64))
    n = int(np.searchsorted(within, wanted, side="right"))
    return _Held.of(units[:, first : first + n])


@dataclass(frozen=True)
class SampleWork:
    """Compresses about half a megabyte of text as it will be written, long documents cut short."""

    job: Job
    places: tuple[tuple[int, int, int], ...]

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        shard, k, each = self.places[rank]
        placed = place(self.job, shard)
        rows, at = np.unique(placed.rows, return_index=True)
        start = len(rows) * (2 * k + 1) // (2 * each)
        start = min(start, max(0, len(rows) - ROW_GROUP // 2))
        n = int(np.searchsorted(np.cumsum(placed.bytes[at[start:]]), SAMPLE_BYTES)) + 1
        rows = rows[start : start + min(n, ROW_GROUP)]
        batches = [_conform(b, self.job.schema) for b in self.job.final.read(shard, self.job.columns, rows)]
        table = pa.Table.from_batches(batches)
        weight = int(len(rows) * _row_weight(self.job, shard))
        if "text" in table.column_names:
            text = pc.utf8_slice_codeunits(table["text"], 0, SAMPLE_BYTES)
            table = table.set_column(table.column_names.index("text"), "text", text)
            weight += pc.sum(pc.binary_length(text)).as_py() or 0
        out = pa.BufferOutputStream()
        with _writer(out, self.job) as writer:
            writer.write_table(table, row_group_size=len(rows))
        group = pq.read_metadata(pa.BufferReader(out.getvalue())).row_group(0)
        compressed = sum(group.column(c).total_compressed_size for c in range(group.num_columns))
        return self.job.note("sample", rank, {"weight": weight, "compressed": compressed})


# --------------------------------------------------------------------------------------------- scatter


@dataclass(frozen=True)
class ScatterWork:
    """Rows of a group of shards into a scratch file, by bucket (or by partition, which is a run of buckets)."""

    job: Job
    split: Split
    groups: tuple[tuple[int, ...], ...]

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        batches = (b for shard in self.groups[rank] for b in keyed(self.job, self.split, shard))
        return _scatter(self.job, "scatter", rank, batches, self.split.width)


@dataclass(frozen=True)
class SortWork:
    """One partition of the first scatter into its buckets."""

    job: Job
    split: Split

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        return _scatter(self.job, "sort", rank, _cells(self.job, "scatter", rank), 1)


def keyed(job: Job, split: Split, shard: int) -> Iterator[pa.RecordBatch]:
    """The exported rows of a shard with their keys and buckets."""
    placed = Keys.load(job, shard)
    if not len(placed.rows):
        return
    buckets = split.bucket(placed)
    if (written := buckets < split.total).sum() < len(buckets):
        placed, buckets = placed.taken(written), buckets[written]
    rows = np.unique(placed.rows) if {COPIES, GROUPS} & job.final.columns.keys() else placed.rows
    names = list(dict.fromkeys([*job.columns, *_SIZES]))
    for batch in job.final.read(shard, names, rows):
        have = batch[ROW].to_numpy()
        low, high = np.searchsorted(placed.rows, have[0]), np.searchsorted(placed.rows, have[-1], side="right")
        if high - low != len(have) or len(rows) != len(placed.rows):
            batch = batch.take(pa.array(np.searchsorted(have, placed.rows[low:high])))
        more = {KEY: pa.array(placed.keys[low:high]), BUCKET: pa.array(buckets[low:high])}
        yield _conform(batch, job.scratch, more)


def _conform(batch: pa.RecordBatch, schema: pa.Schema, more: dict[str, pa.Array] | None = None) -> pa.RecordBatch:
    more = more or {}
    arrays = [more[f.name] if f.name in more else batch[f.name] for f in schema]
    arrays = [a if a.type == f.type else a.cast(f.type) for a, f in zip(arrays, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _scatter(job: Job, phase: str, rank: int, batches: Iterator[pa.RecordBatch], width: int) -> dict[str, Any]:
    """Write an Arrow file with a record batch per (chunk, bucket // width); its record lists them: [cell, rows]."""
    cells: list[tuple[int, int]] = []
    path = job.state / phase / f"{rank:05d}.arrow"
    options = pa.ipc.IpcWriteOptions(use_threads=False)
    with (
        atomic(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, job.scratch, options=options) as writer,
    ):
        for chunk in _chunks(batches, width):
            for part in sorted(chunk):
                batch = _joined(chunk.pop(part))
                writer.write_batch(batch)
                cells.append((part, batch.num_rows))
    return job.note(phase, rank, {"cells": cells})


def _chunks(batches: Iterator[pa.RecordBatch], width: int) -> Iterator[dict[int, list[pa.RecordBatch]]]:
    """The same rows, about 64 MB at a time, by part (bucket // width)."""
    held: dict[int, list[pa.RecordBatch]] = {}
    size = 0
    for batch in batches:
        parts = batch[BUCKET].to_numpy() // np.uint32(width)
        order = np.argsort(parts, kind="stable")
        found, starts = np.unique(parts[order], return_index=True)
        batch = batch.take(pa.array(order))
        for part, start, stop in zip(found.tolist(), starts, [*starts[1:], len(order)], strict=True):
            held.setdefault(part, []).append(batch.slice(start, stop - start))
        size += batch.nbytes
        if size >= CHUNK_BYTES:
            yield held
            held, size = {}, 0
    if held:
        yield held


def _records(job: Job, phase: str, tasks: int) -> list[dict[str, Any]]:
    return [read_json(job.state / phase / f"{rank:05d}.json") for rank in range(tasks)]


def _index(job: Job, phase: str, tasks: int) -> None:
    """Where the cells of each bucket lie: (cell, file, number of the record batch, rows), sorted."""
    path = job.state / f"{phase}.npy"
    if path.exists():
        return
    found = [
        (cell, rank, number, rows)
        for rank, record in enumerate(_records(job, phase, tasks))
        for number, (cell, rows) in enumerate(record["cells"])
    ]
    table = np.array(sorted(found), np.int64).reshape(-1, 4)
    _save(path, table)


def _cells(job: Job, phase: str, cell: int) -> Iterator[pa.RecordBatch]:
    """The rows of a cell in the order of their shards, mapped and not in memory."""
    index = np.load(job.state / f"{phase}.npy", mmap_mode="r")
    low, high = np.searchsorted(index[:, 0], [cell, cell + 1])
    file = -1
    for _, rank, number, _ in index[low:high].tolist():
        if rank != file:
            file, reader = rank, pa.ipc.open_file(pa.memory_map(str(job.state / phase / f"{rank:05d}.arrow")))
        yield reader.get_batch(number)


# --------------------------------------------------------------------------------------------- gather


@dataclass(frozen=True)
class GatherWork:
    """Writes the rows of a piece in key order."""

    job: Job
    split: Split
    pieces: tuple[Piece, ...]
    row_group: int
    direct: bool

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        piece, job = self.pieces[rank], self.job
        sizes = {"documents": 0, "bytes": 0, "tokens": 0}
        path = job.state / "pieces" / f"{rank:05d}.parquet"
        with atomic(path) as temporary, _writer(temporary, job, self.row_group) as writer:
            for table in _regroup(self._sorted(piece), self.row_group):
                writer.write_table(table.select(job.schema.names), row_group_size=table.num_rows)
                sizes["documents"] += table.num_rows
                sizes["bytes"] += pc.sum(table["text_bytes"]).as_py() or 0
                sizes["tokens"] += pc.sum(table["tokens"]).as_py() or 0
        return job.note("gather", rank, sizes)

    def _sorted(self, piece: Piece) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Rows of the piece, and their order: a bucket at a time, or about 64 MB of it where its documents are long."""
        for bucket, low, high in self._buckets(piece):
            batches = list(self._cells(bucket))
            keys = np.concatenate([b[KEY].to_numpy() for b in batches])
            order = np.argsort(keys, kind="stable")[low:high]
            sizes = np.concatenate([_integers(b["text_bytes"]) for b in batches])[order]
            parts = (np.cumsum(sizes) - sizes) // CHUNK_BYTES
            for part in np.split(order, np.flatnonzero(np.diff(parts)) + 1):
                yield _picked(batches, part)

    def _buckets(self, piece: Piece) -> Iterator[tuple[int, int, int]]:
        """(bucket, from, to): which rows of which buckets, counted in key order, make up the piece."""
        if self.direct:
            yield self.split.first(piece.section), piece.start, piece.stop
            return
        index = np.load(self.job.state / f"{self._source}.npy", mmap_mode="r")
        counts = np.bincount(index[:, 0], index[:, 3], self.split.total).astype(np.int64)
        start, first = 0, self.split.first(piece.section)
        for bucket in range(first, first + self.split.buckets[piece.section]):
            stop = start + int(counts[bucket])
            if max(start, piece.start) < min(stop, piece.stop):
                yield bucket, max(piece.start, start) - start, min(piece.stop, stop) - start
            start = stop

    @property
    def _source(self) -> str:
        return "scatter" if self.split.width == 1 else "sort"

    def _cells(self, bucket: int) -> Iterator[pa.RecordBatch]:
        if not self.direct:
            yield from _cells(self.job, self._source, bucket)
            return
        for shard in range(len(self.job.final.generation.shards)):
            for batch in keyed(self.job, self.split, shard):
                mine = batch[BUCKET].to_numpy() == bucket
                if mine.any():
                    yield batch if mine.all() else batch.filter(pa.array(mine))


def _picked(batches: Sequence[pa.RecordBatch], order: np.ndarray) -> tuple[pa.RecordBatch, np.ndarray]:
    """These rows of mapped batches in memory, and their order there."""
    starts = np.cumsum([0, *(b.num_rows for b in batches)])
    if len(order) < starts[-1]:  # take only those before anything is copied
        wanted = np.sort(order)
        cuts = np.searchsorted(wanted, starts)
        batches = [
            b.take(pa.array(wanted[i:j] - s))
            for b, s, i, j in zip(batches, starts[:-1], cuts[:-1], cuts[1:], strict=True)
            if i < j
        ]
        order = np.searchsorted(wanted, order)
    return pa.concat_batches(batches), order


def _regroup(parts: Iterator[tuple[pa.RecordBatch, np.ndarray]], rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `rows` rows in the order given, one chunk each, since the bounds of chunks can be seen in the pages.

    Only the last may be shorter.
    """
    held: list[pa.RecordBatch] = []
    missing = rows
    for batch, order in parts:
        start = 0
        while start < len(order):
            part = batch.take(pa.array(order[start : start + missing]))
            held.append(part)
            start, missing = start + part.num_rows, missing - part.num_rows
            if missing == 0:
                yield pa.Table.from_batches([_joined(held)])
                missing = rows
    if held:
        yield pa.Table.from_batches([_joined(held)])


def _joined(held: list[pa.RecordBatch]) -> pa.RecordBatch:
    """All of them as one. Empties the list."""
    whole = held[0] if len(held) == 1 else pa.concat_batches(held)
    held.clear()
    return whole


def _writer(sink: Any, job: Job, row_group: int = ROW_GROUP) -> pq.ParquetWriter:
    schema = job.schema
    repeated = [f.name for f in schema if f.type == pa.string() and f.name not in _UNIQUE]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=job.output.level,
        use_dictionary=repeated,
        write_statistics=[n for n in schema.names if n not in ("text", "html")],
        write_page_checksum=True,
        store_schema=True,
        write_batch_size=ROW_GROUP if row_group == ROW_GROUP else 8,  # a page ends between these: few long documents a page
    )


@dataclass(frozen=True)
class AssembleWork:
    """Joins the pieces of an output file."""

    job: Job
    files: tuple[File, ...]
    owners: tuple[int, ...]  # the file of each piece

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        file = self.files[rank]
        mine = [p for p, owner in enumerate(self.owners) if owner == rank]
        pieces = [read_json(self.job.state / "gather" / f"{p:05d}.json") for p in mine]
        path = self.job.final.root / "output" / file.path
        size, sha256 = splice([self.job.state / "pieces" / f"{p:05d}.parquet" for p in mine], path)
        sums = {what: sum(p[what] for p in pieces) for what in ("documents", "bytes", "tokens")}
        if sums["documents"] != file.stop - file.start:
            raise ManifestError(f"{file.path} has {sums['documents']} documents, not {file.stop - file.start}: a bug")
        split, group = section_of(self.job, file.section)
        record = {"path": file.path, **sums, "sha256": sha256, "split": split, "group": group, "size": size}
        return self.job.note("assemble", rank, record)
