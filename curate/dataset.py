"""Documents plus layers: how a stage sees the corpus at its place in the recipe.

A generation (`documents/`, `documents-1-…/`) is a folder of shards that are written once; its manifest.json fixes their names
and order. Beside it stand layers (`attributes/<stage>/<shard>`: `_row` and the columns of one stage) and drops
(`drops/<stage>/<shard>`). A `Dataset` is a generation, the drops that count so far, and for each column the layer that wrote
it last. Reading joins them by row number, one row group of the documents at a time, so memory follows the batch. Where only
columns of fixed width are read (numbers, no texts), many row groups make one batch, since a thousand numbers are not worth a
call.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import ManifestError
from curate.stage import ROW, Batches
from curate.storage import open_table, read_json, write_json, write_table

if TYPE_CHECKING:
    import polars as pl

MAX_ROWS = 1024
MAX_BYTES = 16 << 20
WIDE_ROWS = 65_536  # of a batch of columns of fixed width
LAYER_ROWS = 16_384  # of a row group of such columns: fewer, for a look at a few rows decodes whole row groups
_VARIABLE = (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


@dataclass(frozen=True)
class Shard:
    """One file of a generation. sizes: bytes are UTF-8 bytes of text, tokens by the recipe's tokenizer."""

    name: str
    documents: int
    bytes: int
    tokens: int
    sha256: str
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Generation:
    """The manifest of a folder of documents: its shards in order and their schema."""

    root: Path
    folder: str
    shards: tuple[Shard, ...]
    schema: pa.Schema

    @staticmethod
    def load(root: Path, folder: str = "documents") -> Generation:
        """Read `<root>/<folder>/manifest.json`; cached per process and file version."""
        path = root / folder / "manifest.json"
        try:
            return _load_generation(root, folder, path.stat().st_mtime_ns)
        except FileNotFoundError:
            raise ManifestError(f"{path} is missing: the documents are not complete; run the recipe again") from None

    @property
    def documents(self) -> int:
        return sum(s.documents for s in self.shards)


@functools.lru_cache(maxsize=8)
def _load_generation(root: Path, folder: str, _version: int) -> Generation:
    raw = read_json(root / folder / "manifest.json")
    shards = tuple(Shard(**{**s, "parents": tuple(s["parents"])}) for s in raw["shards"])
    schema = pq.read_schema(root / folder / "schema.parquet").remove_metadata()
    return Generation(root, folder, shards, schema)


@dataclass(frozen=True)
class Dataset:
    """A generation as it stands at one place of a recipe.

    columns: for each column its layer folder, or "" for the documents themselves. drops: drop folders, in stage order.
    All paths are relative to `root`.
    """

    root: Path
    folder: str
    columns: Mapping[str, str]
    drops: tuple[str, ...] = ()
    types: pa.Schema = field(default_factory=lambda: pa.schema([]))

    @property
    def generation(self) -> Generation:
        return Generation.load(self.root, self.folder)

    @property
    def schema(self) -> pa.Schema:
        """Name and type of every column that can be read."""
        return self.types

    def survivors(self, shard: int) -> np.ndarray:
        """Row numbers (uint32, ascending) of a shard that no stage so far has dropped."""
        info = self.generation.shards[shard]
        alive = np.ones(info.documents, dtype=bool)
        for folder in self.drops:
            with open_table(self.root / folder / info.name) as file:
                if file.metadata.num_rows:
                    alive[file.read([ROW], use_threads=False)[ROW].to_numpy()] = False
        return np.flatnonzero(alive).astype(np.uint32)

    def read(
        self, shard: int, columns: Sequence[str], rows: np.ndarray | None = None, narrow: bool = False, pieces: int = 0
    ) -> Batches:
        """The surviving documents of a shard: batches of `_row` and `columns`, at most 1,024 rows and 16 MB of text each.

        Where no column holds strings, lists or the like, a batch may have up to 65,536 rows, again within 16 MB. The bounds
        of the batches depend on the shard and the columns alone. rows: read only these (ascending uint32) instead. narrow:
        the strings among these columns are known to be short, and may come in batches as large. pieces: of the batches that
        it would be, parts of at most so many rows; 0 for whole ones.
        """
        info = self.generation.shards[shard]
        alive = self.survivors(shard) if rows is None else rows
        own = [c for c in columns if not self.columns[c]]
        layers: dict[str, list[str]] = {}
        for column in columns:
            if self.columns[column]:
                layers.setdefault(self.columns[column], []).append(column)
        most = WIDE_ROWS if narrow else _most_rows([self._type(c) for c in columns])
        with contextlib.ExitStack() as stack:
            ends = np.array([info.documents])
            if own or info.documents > most:  # else one batch, whose bounds need no look at the documents
                documents = stack.enter_context(open_table(self.root / self.folder / info.name))
                groups = documents.metadata
                ends = np.cumsum([groups.row_group(g).num_rows for g in range(groups.num_row_groups)], dtype=np.int64)
            cursors = [_Cursor(self.root / folder / info.name, names, most > MAX_ROWS) for folder, names in layers.items()]
            for first, last in _spans(ends, most):
                start = int(ends[first - 1]) if first else 0
                low, high = np.searchsorted(alive, [start, ends[last]])
                live = alive[low:high]
                if len(live) and own:
                    wanted, at = _wanted(live, ends, first, last)
                    table = _picked(documents.read_row_groups(wanted, columns=own, use_threads=False), at)
                for a in range(0, len(live), pieces or len(live) or 1):
                    part = live[a : a + pieces] if pieces else live
                    taken = {ROW: pa.array(part)}
                    if own:
                        taken.update((c, _flat(table[c].slice(a, len(part)))) for c in own)
                    for cursor in cursors:
                        taken.update(cursor.take(part))
                    yield pa.RecordBatch.from_pydict({c: taken[c] for c in (ROW, *columns)})

    def _type(self, column: str) -> pa.DataType | None:
        at = self.types.get_field_index(column)
        return None if at < 0 else self.types.types[at]

    def scan(self) -> pl.LazyFrame:
        """Every surviving document with every column, as a Polars lazy frame over one shard at a time."""
        import polars as pl
        from polars.io.plugins import register_io_source

        names = list(self.columns)
        schema = pl.DataFrame(pa.schema([self.types.field(n) for n in names]).empty_table()).schema

        def source(
            with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            left = n_rows
            for shard in range(len(self.generation.shards)):
                for batch in self.read(shard, with_columns or names):
                    frame = pl.DataFrame(pa.Table.from_batches([batch]).drop_columns([ROW]))
                    if predicate is not None:
                        frame = frame.filter(predicate)
                    if left is not None:
                        frame = frame.head(left)
                        left -= frame.height
                    yield frame
                    if left == 0:
                        return

        return register_io_source(source, schema=schema)


def _most_rows(kinds: Sequence[pa.DataType | None]) -> int:
    """Rows of a batch with columns of these types."""
    width = 4  # of `_row`
    for kind in kinds:
        if kind is None or not pa.types.is_primitive(kind):
            return MAX_ROWS
        width += -(-kind.bit_width // 8)
    return max(MAX_ROWS, min(WIDE_ROWS, MAX_BYTES // width))


def _spans(ends: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """(first, last) row groups, both included, of batches of at most so many rows; a larger row group stands alone."""
    first = start = 0
    while first < len(ends):
        last = max(first, int(np.searchsorted(ends, start + most, side="right")) - 1) if most > MAX_ROWS else first
        yield first, last
        first, start = last + 1, int(ends[last])


def _wanted(live: np.ndarray, ends: np.ndarray, first: int, last: int) -> tuple[list[int], np.ndarray]:
    """The row groups between `first` and `last` that hold any of the rows, and where in these the rows stand."""
    if first == last:
        return [first], live - np.uint32(ends[first - 1] if first else 0)
    group = np.searchsorted(ends, live, side="right")
    groups = np.unique(group)
    starts = np.concatenate([[0], ends[:-1]])
    sizes = (ends - starts)[groups]
    shift = np.zeros(last + 1, np.int64)
    shift[groups] = np.cumsum(sizes) - sizes - starts[groups]
    return groups.tolist(), live + shift[group]


def _picked(table: pa.Table, at: np.ndarray) -> pa.Table:
    """These rows, ascending, of a table."""
    if len(at) == table.num_rows:
        return table
    if int(at[-1]) - int(at[0]) + 1 == len(at):
        return table.slice(int(at[0]), len(at))
    return table.take(pa.array(at))


class _Cursor:
    """Walks one layer of a shard in step with the documents, holding the row groups that have rows of the batch."""

    def __init__(self, path: Path, columns: list[str], wide: bool):
        self._path, self._columns, self._wide = path, columns, wide
        self._file = open_table(path)
        self._group, self._last = 0, -1
        self._rows, self._table = np.empty(0, np.uint32), pa.table({})

    def take(self, live: np.ndarray) -> dict[str, pa.Array]:
        if self._last < live[-1]:
            self._advance(int(live[0]), int(live[-1]))
        at = np.searchsorted(self._rows, live)
        if at[-1] >= len(self._rows) or not np.array_equal(self._rows[at], live):
            raise ManifestError(f"{self._path} lacks rows near {live[0]}: the layer does not fit its documents")
        table = _picked(self._table, at)
        return {c: _flat(table[c]) for c in self._columns}

    def _advance(self, low: int, high: int) -> None:
        """Hold all rows from `low` to `high`."""
        kept = int(np.searchsorted(self._rows, low))
        parts = [self._table.slice(kept)] if kept < len(self._rows) else []
        while self._last < high:
            groups = self._next(high - self._last)
            if not groups:
                raise ManifestError(f"{self._path} lacks row {high}: the layer does not fit its documents")
            table = self._file.read_row_groups(groups, columns=[ROW, *self._columns], use_threads=False)
            self._last = table[ROW][-1].as_py()
            if self._last >= low:
                parts.append(table)
        self._table = pa.concat_tables(parts).combine_chunks()
        self._rows = _flat(self._table[ROW]).to_numpy()

    def _next(self, rows: int) -> list[int]:
        """The next row group; of columns of fixed width, as many as cannot have more than so many rows."""
        metadata, first = self._file.metadata, self._group
        while self._group < metadata.num_row_groups:
            rows -= metadata.row_group(self._group).num_rows
            if self._group > first and (rows < 0 or not self._wide):
                break
            self._group += 1
        return list(range(first, self._group))


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def rebatch(batches: Iterable[pa.RecordBatch]) -> Batches:
    """The same rows in batches as full as may be: at most 1,024 rows and 16 MB; a larger row stands alone."""
    full = Rebatch()
    for batch in batches:
        yield from full.push(batch)
    yield from full.rest()


class Rebatch:
    """`rebatch` for those who are handed batches: what it gives back does not depend on the bounds of what it is given."""

    def __init__(self, most: int | None = None):
        self._most = most or MAX_ROWS
        self._held: list[pa.RecordBatch] = []
        self._rows = self._size = 0

    def push(self, batch: pa.RecordBatch) -> Batches:
        """The batches that are full now."""
        sizes = _row_bytes(batch)
        start = 0
        while start < batch.num_rows:
            within = self._size + np.cumsum(sizes[start : start + self._most - self._rows])
            n = int(np.searchsorted(within, MAX_BYTES, side="right"))
            if n == 0 and self._rows == 0:
                n = 1
            if n:
                self._held.append(batch.slice(start, n))
                self._rows, self._size, start = self._rows + n, int(within[n - 1]), start + n
            if self._rows and (self._rows == self._most or start < batch.num_rows):
                yield from self.rest()

    def rest(self) -> Batches:
        """What has not been given back."""
        if self._held:
            yield _join(self._held)
        self._held, self._rows, self._size = [], 0, 0


def layer_rows(schema: pa.Schema) -> int:
    """Rows of a row group of a layer with these columns."""
    return min(_most_rows(schema.types), max(LAYER_ROWS, MAX_ROWS))


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _row_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Bytes per row in the variable-length columns of a batch (int64)."""
    total = np.zeros(batch.num_rows, np.int64)
    for column, kind in zip(batch.columns, batch.schema.types, strict=True):
        if kind in _VARIABLE:
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    return total


def write_generation(root: Path, folder: str, schema: pa.Schema, shards: Sequence[Shard], **more: object) -> None:
    """Write the manifest of a generation last, when all its shards are there."""
    write_table(root / folder / "schema.parquet", schema.empty_table())
    listed = [{**s.__dict__, "parents": list(s.parents)} for s in shards]
    write_json(root / folder / "manifest.json", {"format": "curate-documents/1", **more, "shards": listed})
