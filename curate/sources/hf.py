"""A folder that `datasets` wrote with `save_to_disk`: Arrow streams, read without the package."""

from __future__ import annotations

import pyarrow as pa

from curate.sources import BASE, InputFile, Reading, Source
from curate.sources.parquet import check_text, numbered
from curate.stage import Batches

SUFFIXES = (".arrow",)


def parts(file: InputFile, source: Source, size: int) -> list[tuple[int, int, int]]:
    """One part: a stream has no index."""
    return [(0, -1, file.size)]


def schema(file: InputFile, source: Source) -> pa.Schema:
    """The stream's schema."""
    with Reading(file, source, BASE).open() as raw, pa.ipc.open_stream(raw) as stream:
        found = stream.schema.remove_metadata()
    check_text(found, file, source)
    return found


def read(reading: Reading, start: int, stop: int) -> Batches:
    """The rows of the stream; `record` is the row number in the file."""
    row = 0
    with reading.open() as raw, pa.ipc.open_stream(raw) as stream:
        try:
            for batch in stream:
                for at in range(0, batch.num_rows, 1024):
                    part = batch.slice(at, 1024)
                    yield numbered(part, row)
                    row += part.num_rows
        except (OSError, pa.ArrowException) as error:
            reading.reject(row, "quarantine.damaged", str(error).split("\n")[0])
