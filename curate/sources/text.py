"""Text files: one document each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate.sources import InputFile, Reading, Source, row_batches
from curate.stage import Batches

SUFFIXES = (".txt", ".md", ".text")
SCHEMA = pa.schema([("text", pa.string()), ("media_type", pa.string()), ("raw_bytes", pa.uint32()), ("record", pa.int64())])


def parts(file: InputFile, source: Source, size: int) -> list[tuple[int, int, int]]:
    """One part a file."""
    return [(0, -1, file.size)]


def schema(file: InputFile, source: Source) -> pa.Schema:
    """A text file brings no columns."""
    return pa.schema([])


def read(reading: Reading, start: int, stop: int) -> Batches:
    """The file's text, decoded by byte order mark or detection."""
    return row_batches(_rows(reading), SCHEMA)


def _rows(reading: Reading) -> Iterator[dict[str, Any]]:
    from curate.extract import Unextractable
    from curate.extract.charset import decode

    body = whole(reading)
    if body is None:
        return
    try:
        text = decode(body, None)
    except Unextractable as error:
        reading.reject(0, f"quarantine.{error.reason}", error.detail)
        return
    yield {"text": text, "media_type": "text/plain", "raw_bytes": len(body), "record": 0}


def whole(reading: Reading) -> bytes | None:
    """All bytes of a file, or None (and a reject) where it is larger than `max_raw_bytes`."""
    limit = reading.source.max_raw_bytes
    with reading.open(hashed=True) as stream:
        body = stream.read(limit + 1)
    if len(body) > limit:
        reading.reject(0, "too_large", f"more than {limit} bytes")
        return None
    return body
