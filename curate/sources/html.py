"""HTML files: one page each, without HTTP headers."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from curate.sources import InputFile, Reading, Source, page_columns, page_rows, page_schema, row_batches
from curate.sources.text import whole
from curate.stage import Batches

SUFFIXES = (".html", ".htm", ".xhtml")


def parts(file: InputFile, source: Source, size: int) -> list[tuple[int, int, int]]:
    """One part a file."""
    return [(0, -1, file.size)]


def schema(file: InputFile, source: Source) -> pa.Schema:
    """What a page says of itself."""
    return page_columns(source)


def read(reading: Reading, start: int, stop: int) -> Batches:
    """The page's text."""
    return row_batches(page_rows(reading, _page(reading)), page_schema(reading.source))


def _page(reading: Reading) -> Iterator[Any]:
    body = whole(reading)
    if body is not None:
        yield SimpleNamespace(
            record=0,
            id=None,
            url=None,
            date=None,
            media_type="text/html",
            charset=None,
            language=None,
            is_text=False,
            body=body,
        )
