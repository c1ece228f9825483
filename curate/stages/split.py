"""Long documents cut into several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError
from curate.stage import PARENT, ROW, Expand


@dataclass(frozen=True, kw_only=True)
class Split(Expand):
    """Cuts documents of more than `max_bytes` UTF-8 bytes into pieces of at most that size.

    Each piece ends at the last blank line that fits, else at the last line break, else at the last whitespace, else at the
    last whole character. ASCII whitespace at the cuts is all that is lost. Shorter documents pass as they are, under the new
    id `<id>#split.0`. A long document of nothing but whitespace has no piece left.

    Columns written: `text` (string). Reasons: `no_output`.

    Source: own.

    >>> Split(max_bytes=12)(["First one.\\n\\nSecond one."]).kept["text"].to_pylist()
    ['First one.', 'Second one.']
    """

    max_bytes: int = 20_000

    def __post_init__(self) -> None:
        if self.max_bytes < 4:
            raise RecipeError(f"split: max_bytes is {self.max_bytes}; one character may need 4")

    def writes(self) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch["text"]
        long = pc.fill_null(pc.greater(pc.binary_length(texts), self.max_bytes), False)
        if not pc.any(long).as_py():
            return pa.RecordBatch.from_pydict({PARENT: batch[ROW], "text": texts})
        parents: list[int] = []
        pieces: list[bytes | None] = []
        for row, text in zip(batch[ROW].to_pylist(), pc.cast(texts, pa.binary()).to_pylist(), strict=True):
            parts = [text] if text is None or len(text) <= self.max_bytes else list(_pieces(text, self.max_bytes))
            parents += [row] * len(parts)
            pieces += parts
        text = pc.cast(pa.array(pieces, pa.binary()), pa.string())
        return pa.RecordBatch.from_pydict({PARENT: pa.array(parents, pa.uint32()), "text": text})


_SPACE = b" \t\n\r\v\f"


def _pieces(text: bytes, limit: int) -> Iterator[bytes]:
    at = 0
    while True:
        while at < len(text) and text[at] in _SPACE:  # whitespace after a cut
            at += 1
        if len(text) - at <= limit:
            break
        end = _cut(text, at, at + limit)
        yield text[at:end].rstrip(_SPACE)
        at = end
    if last := text[at:].rstrip(_SPACE):
        yield last


def _cut(text: bytes, start: int, end: int) -> int:
    """Where to cut between start and end (exclusive of start, at most end); text[start] is not whitespace."""
    found = text.rfind(b"\n", start, end + 1)
    while found > start:  # from the last line break backwards, to one that a blank line follows or precedes
        before = text.rfind(b"\n", start, found)
        if before < 0:
            break
        if not text[before:found].strip(_SPACE):
            return before
        found = before
    found = text.rfind(b"\n", start, end + 1)
    if found > start:
        return found
    found = max(text.rfind(bytes([c]), start, end + 1) for c in _SPACE)
    if found > start:
        return found
    while text[end] & 0xC0 == 0x80:
        end -= 1
    return end
