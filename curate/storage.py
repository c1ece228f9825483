"""Files that are whole or not there: every write is a temporary file and a rename, every Parquet page has a checksum.

Readers are handed names by a manifest or a plan; a temporary file has a name that no plan contains, so a half-written one
is never read. `kill -9` leaves at most such a file behind, which the next run in the same folder removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import ManifestError

TEMPORARY = ".tmp-"
_LOW_CARDINALITY = frozenset({"corpus", "file", "media_type", "declared_language", "language", "_reason"})


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def atomic_folder(folder: Path | str, *, replace: bool = True) -> Iterator[Path]:
    """An empty temporary folder beside `folder` that takes its place when the block ends well, and goes when it does not.

    replace: in place of what is there; else what is there stays, for readers that have it open.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{folder.name}")
    temporary.mkdir()
    try:
        yield temporary
        if replace:
            remove_tree(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a small file at once."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON, indented, keys in the order given."""
    write_bytes(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return orjson.loads(Path(path).read_bytes())


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: what digests and fingerprints are taken of."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def sha256_file(path: Path | str) -> str:
    """Hex digest of a local file's bytes, read in pieces of 1 MiB."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_stream(stream: BinaryIO) -> str:
    """Hex digest of what is left in a stream."""
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


class TableWriter:
    """A Parquet file that grows by batches, one row group each, and appears under its name when closed.

    Use as a context manager: an exception inside the block removes the temporary file. Batches are written as they come, so
    memory follows the batch. codec: "lz4" for what only the engine reads again, "zstd" for what people keep.
    """

    def __init__(self, path: Path | str, schema: pa.Schema, *, codec: str = "zstd", level: int | None = 1):
        self.rows = 0
        self._stack = contextlib.ExitStack()
        self._path = self._stack.enter_context(atomic(path))
        self._writer = pq.ParquetWriter(
            self._path,
            schema,
            compression=codec,
            compression_level=level if codec == "zstd" else None,
            use_dictionary=sorted(_LOW_CARDINALITY.intersection(schema.names)),
            write_statistics=[n for n in ("_row", "id") if n in schema.names] or False,
            write_page_checksum=True,
            store_schema=True,
        )

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Append one row group; nothing for an empty batch."""
        if data.num_rows:
            self.rows += data.num_rows
            table = data if isinstance(data, pa.Table) else pa.Table.from_batches([data])
            self._writer.write_table(table, row_group_size=data.num_rows)

    def metadata(self, values: dict[str, str]) -> None:
        """Key-value pairs for the footer."""
        self._writer.add_key_value_metadata(values)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._writer.close()
        except BaseException:
            if error[0] is None:
                self._stack.__exit__(OSError, OSError("close failed"), None)
                raise
        self._stack.__exit__(*error)


def write_table(path: Path | str, table: pa.Table, *, codec: str = "zstd", rows: int = 65_536) -> None:
    """Write a whole table, `rows` rows a group."""
    with TableWriter(path, table.schema, codec=codec) as writer:
        for start in range(0, table.num_rows, rows):
            writer.write(table.slice(start, rows))


def open_table(path: Path | str, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
    """A local Parquet file whose page checksums are verified as they are read. dictionaries: columns to be read as such."""
    try:
        return pq.ParquetFile(path, read_dictionary=list(dictionaries), page_checksum_verification=True)
    except FileNotFoundError:
        raise ManifestError(
            f"{path} is missing: the run has not come that far (run the same command again), or it was deleted"
        ) from None


def read_table(path: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole table, in one chunk."""
    with open_table(path) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False).combine_chunks()


def write_partitioned(path: Path | str, schema: pa.Schema, parts: Iterable[tuple[int, pa.Table]], codec: str = "lz4") -> None:
    """One row group per (partition, table) pair; which group is whose stands in the footer. A partition may come again."""
    groups: list[tuple[int, int]] = []
    with TableWriter(path, schema, codec=codec) as writer:
        for partition, table in parts:
            if table.num_rows:
                groups.append((partition, len(groups)))
                writer.write(table)
        writer.metadata({"partitions": orjson.dumps(groups).decode()})


def read_partition(path: Path | str, partition: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one partition of a file made by `write_partitioned`, in order; an empty table if it has none."""
    with open_table(path) as file:
        groups = groups_of(file, partition)
        if not groups:
            return file.schema_arrow.remove_metadata().empty_table()
        names = None if columns is None else list(columns)
        return file.read_row_groups(groups, columns=names, use_threads=False).replace_schema_metadata(None)


def partition_rows(path: Path | str, partition: int) -> int:
    """How many rows one partition of a file made by `write_partitioned` has."""
    with open_table(path) as file:
        return sum(file.metadata.row_group(group).num_rows for group in groups_of(file, partition))


def groups_of(file: pq.ParquetFile, partition: int) -> list[int]:
    """The row groups of one partition of a file made by `write_partitioned`, in order."""
    stored = (file.schema_arrow.metadata or {}).get(b"partitions") or file.metadata.metadata[b"partitions"]
    return [group for p, group in orjson.loads(stored) if p == partition]


def remove_tree(folder: Path) -> None:
    """Delete a folder so that a kill leaves all of it or nothing under its name; no error if there is none."""
    temporary = folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{folder.name}")
    try:
        folder.rename(temporary)
    except FileNotFoundError:
        return
    shutil.rmtree(temporary)


def remove_temporaries(folder: Path) -> int:
    """Delete what a killed process left half-written or half-deleted below `folder`; returns how many things went."""
    found = list(folder.rglob(f"{TEMPORARY}*"))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(found)


def shipped(folder: str) -> Path:
    """A folder that comes with Curate, `classifiers` or `pipelines`: within the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def packed_halves(vectors: np.ndarray) -> pa.Array:
    """Rows of half precision as binary values of a fixed size: a plain copy into Parquet, unlike lists.

    vectors: float16 (rows, width).
    """
    data = pa.py_buffer(np.ascontiguousarray(vectors))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * vectors.shape[1]), len(vectors), [None, data])


def unpacked_halves(column: pa.ChunkedArray) -> np.ndarray:
    """The rows (float16) of what `packed_halves` made."""
    values = column.combine_chunks()
    width = values.type.byte_width
    data = np.frombuffer(values.buffers()[1], np.uint8)[values.offset * width : (values.offset + len(values)) * width]
    return data.view(np.float16).reshape(len(values), width // 2)
