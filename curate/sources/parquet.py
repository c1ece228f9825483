"""Parquet: rows as they are, in Arrow all the way, divided by row groups."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import SourceError, did_you_mean
from curate.sources import BASE, BYTES, ROWS, InputFile, NoText, Reading, Source
from curate.stage import Batches

SUFFIXES = (".parquet", ".pq")


@contextlib.contextmanager
def _opened(reading: Reading) -> Iterator[pq.ParquetFile]:
    with reading.open() as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
        yield file


def parts(file: InputFile, source: Source, size: int) -> list[tuple[int, int, int]]:
    """Runs of row groups of about `size` compressed bytes."""
    found: list[tuple[int, int, int]] = []
    with _opened(Reading(file, source, BASE)) as opened:
        start = held = 0
        for group in range(opened.metadata.num_row_groups):
            held += _compressed(opened.metadata.row_group(group))
            if held >= size:
                found.append((start, group + 1, held))
                start, held = group + 1, 0
        if start < opened.metadata.num_row_groups or not found:
            found.append((start, opened.metadata.num_row_groups, held))
    return found


def _compressed(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def schema(file: InputFile, source: Source) -> pa.Schema:
    """The file's own schema. Raises SourceError where it has no text column."""
    with _opened(Reading(file, source, BASE)) as opened:
        found = opened.schema_arrow.remove_metadata()
    check_text(found, file, source)
    return found


def check_text(found: pa.Schema, file: InputFile, source: Source) -> None:
    """A text column must be there, and hold strings; pages that are to be extracted later need none."""
    if source.extract == "none" and "html" in found.names:
        return
    if source.text not in found.names:
        raise NoText(
            f"{file.path} has no column {source.text!r}{did_you_mean(source.text, found.names)}"
            f" (set source.text to the column that holds the text)"
        )
    kind = found.field(source.text).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise SourceError(f"{file.path}: the column {source.text!r} is {kind}, not a string")


def read(reading: Reading, start: int, stop: int) -> Batches:
    """The rows of some row groups; `record` is the row number in the file."""
    with _opened(reading) as file:
        stop = file.metadata.num_row_groups if stop < 0 else stop
        first = sum(file.metadata.row_group(g).num_rows for g in range(start))
        for group in range(start, stop):
            rows = file.metadata.row_group(group).num_rows
            size = max(1, min(ROWS, BYTES * rows // max(1, file.metadata.row_group(group).total_byte_size)))
            try:
                for batch in file.iter_batches(batch_size=size, row_groups=[group], use_threads=False):
                    yield numbered(batch, first)
                    first, rows = first + batch.num_rows, rows - batch.num_rows
            except (OSError, pa.ArrowException) as error:
                for row in range(rows):  # each row of the damaged group is accounted for
                    reading.reject(first + row, "quarantine.damaged", str(error).split("\n")[0])
                first += rows


def numbered(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """The batch with row numbers in `record`; an input column of that name steps aside."""
    at = batch.schema.get_field_index("record")
    if at >= 0:
        names = ["input_record" if n == "record" else n for n in batch.schema.names]
        batch = batch.rename_columns(names)
    return batch.append_column("record", pa.array(np.arange(first, first + batch.num_rows)))
