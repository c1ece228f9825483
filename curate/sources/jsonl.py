"""JSON Lines, plain or compressed (.gz, .zst): one object a line.

Types of columns are fixed before reading (declared, or taken from the first 1,000 lines of each file), since every shard
must have the same schema. What does not fit later, a new key or a value of another type, goes to the string column
`_extra` as JSON and is counted: no value is lost and none is bent.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import zstandard

from curate.errors import RecipeError, did_you_mean
from curate.sources import BASE, EXTRA, MAPPED, InputFile, NoText, Reading, Source, column_name, row_batches, unify
from curate.stage import Batches

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".json", ".json.gz", ".json.zst")
SAMPLE = 1000
LONGEST = 256 << 20  # no line may need more memory than this
_TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def decompressed(stream: BinaryIO, name: str) -> Any:
    """The stream itself, or what its .gz or .zst wraps: an object with `read`."""
    if name.lower().endswith(".gz"):
        return _Unpacked(stream, lambda: zlib.decompressobj(31))
    if name.lower().endswith(".zst"):
        return _Unpacked(stream, lambda: zstandard.ZstdDecompressor().decompressobj())
    return stream


class _Unpacked:
    """Decompresses member after member, and gives out all that comes before a damage or a premature end.

    gzip's own reader raises and keeps what it had read to itself; zstandard's takes a cut stream for a whole one.
    """

    FEED = 16 << 10  # compressed bytes at a time: bounds what they can inflate to, and what a damage takes with it

    def __init__(self, stream: BinaryIO, make: Callable[[], Any]):
        self._stream, self._make = stream, make
        self._member: Any = None
        self._left = b""

    def read(self, n: int = -1) -> bytes:
        """Some bytes, b"" at the end. Raises EOFError where the stream breaks off, the library's error where it is damaged."""
        while True:
            packed, self._left = self._left or self._stream.read(self.FEED), b""
            if not packed:
                if self._member is not None:
                    self._member = None
                    raise EOFError("the compressed stream breaks off")
                return b""
            if self._member is None:
                if not packed.strip(b"\0"):  # padding, as tapes and block devices leave it
                    continue
                self._member = self._make()
            data = self._member.decompress(packed)
            if self._member.eof:
                self._left, self._member = self._member.unused_data, None
            if data:
                return data


def _lines(stream: BinaryIO, offset: int, stop: int) -> Iterator[tuple[int, bytes | None]]:
    """(offset, line) pairs, for lines that begin before `stop` (-1: all); None for a line that is too long to be held."""
    tail = rest = b""
    while offset < stop or stop < 0:
        chunk, rest = rest or stream.read(4 << 20), b""
        if not chunk:
            if tail:
                yield offset, tail
            return
        lines = (tail + chunk).split(b"\n")
        tail = lines.pop()
        for line in lines:
            if 0 <= stop <= offset:
                return
            yield offset, line
            offset += len(line) + 1
        if len(tail) > LONGEST:
            skipped, tail = len(tail), b""
            while (chunk := stream.read(4 << 20)) and b"\n" not in chunk:
                skipped += len(chunk)
            rest = chunk.partition(b"\n")[2]
            yield offset, None
            offset += skipped + len(chunk) - len(rest)


def parts(file: InputFile, source: Source, size: int) -> list[tuple[int, int, int]]:
    """Ranges of bytes for a plain file; a compressed one is a single part."""
    if not file.name.lower().endswith(("l", "n")) or file.size <= size:
        return [(0, -1, file.size)]
    return [(start, min(start + size, file.size), min(size, file.size - start)) for start in range(0, file.size, size)]


def schema(file: InputFile, source: Source) -> pa.Schema:
    """Declared types, and for undeclared keys those of the first 1,000 lines; keys of mixed type are left to `_extra`."""
    found: dict[str, pa.DataType | None] = {}
    lines = 0
    with Reading(file, source, BASE).open() as raw:
        for at, line in _until_damage(_lines(decompressed(raw, file.name), 0, -1)):
            if line is None or not line.strip():
                continue
            try:
                value = _loads(at, line)
            except ValueError:
                continue
            if isinstance(value, dict):
                for key, item in value.items():
                    kind = _infer(item)
                    known = found.get(key, pa.null())
                    found[key] = None if known is None or kind is None else unify(known, kind)
            lines += 1
            if lines == SAMPLE:
                break
    if lines and source.text not in found:
        hint = did_you_mean(source.text, found)
        raise NoText(f"{file.path}: no line has a {source.text!r}{hint} (set source.text to the key that holds the text)")
    declared = {name: _declared(name, kind) for name, kind in source.columns.items()}
    kinds = {**{k: t for k, t in found.items() if t is not None and not pa.types.is_null(t)}, **declared}
    return pa.schema(list(kinds.items()))


def _until_damage(lines: Iterator[tuple[int, bytes | None]]) -> Iterator[tuple[int, bytes | None]]:
    """The lines before the place where a compressed stream breaks off; reading says so when it comes there."""
    with contextlib.suppress(EOFError, zlib.error, zstandard.ZstdError):
        yield from lines


def _loads(at: int, line: bytes) -> Any:
    """The value of a line; a byte order mark before the first is no part of it."""
    return orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if at == 0 else line)


def _infer(value: Any) -> pa.DataType | None:
    """The type that holds a value, or None: Parquet has no object without keys."""
    try:
        kind = pa.array([value]).type
        return None if "struct<>" in str(kind) else kind
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None


def _declared(name: str, kind: str) -> pa.DataType:
    if kind.startswith("list<") and kind.endswith(">"):
        return pa.list_(_declared(name, kind[5:-1]))
    if kind not in _TYPES:
        raise RecipeError(f"source.columns.{name}: unknown type {kind!r}{did_you_mean(kind, _TYPES)}")
    return _TYPES[kind]


def read(reading: Reading, start: int, stop: int) -> Batches:
    """The documents of one part. A line that is no JSON object with a text is quarantined with its offset."""
    return row_batches(_rows(reading, start, stop), _raw_schema(reading))


def _raw_schema(reading: Reading) -> pa.Schema:
    engine = ("text_bytes", "tokens", "corpus", "file")
    return pa.schema([f for f in reading.schema if f.name not in engine])


def _rows(reading: Reading, start: int, stop: int) -> Iterator[dict[str, Any]]:
    source, types = reading.source, reading.schema
    columns = {f.name: f.type for f in types if f.name not in BASE.names}
    whole = start == 0 and stop < 0
    with reading.open(hashed=whole) as raw:
        stream = decompressed(raw, reading.file.name)
        offset = 0
        if start:  # the line that holds byte start - 1 belongs to the part before
            offset = _next_line(stream, start - 1, stop)
        try:
            for at, line in _lines(stream, offset, stop):
                row = _row(reading, at, line, source, columns)
                if row is not None:
                    yield row
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            reading.reject(-1, "quarantine.damaged", f"{type(error).__name__}: {error}")


def _next_line(stream: BinaryIO, at: int, stop: int) -> int:
    """Go to the end of the line that holds byte `at`, or beyond `stop`; returns the offset. Holds no more than 1 MB."""
    stream.seek(at)
    while (stop < 0 or at < stop) and (chunk := stream.read(1 << 20)):
        found = chunk.find(b"\n")
        if found >= 0:
            return stream.seek(at + found + 1)
        at += len(chunk)
    return at


def _row(
    reading: Reading, at: int, line: bytes | None, source: Source, columns: dict[str, pa.DataType]
) -> dict[str, Any] | None:
    if line is None:
        reading.reject(at, "too_large", f"a line of more than {LONGEST} bytes")
        return None
    if not line.strip():
        return None
    try:
        value = _loads(at, line)
    except ValueError as error:
        reading.reject(at, "quarantine.malformed", str(error))
        return None
    if not isinstance(value, dict):
        reading.reject(at, "quarantine.malformed", f"a {type(value).__name__}, not an object")
        return None
    text = value.pop(source.text, None)
    if text is None:
        reading.reject(at, "empty_text", f"no {source.text!r}", _string(value.get(source.id)))
        return None
    if not isinstance(text, str):
        reading.reject(at, "quarantine.malformed", f"{source.text!r} is a {type(text).__name__}, not a string")
        return None
    row: dict[str, Any] = {"text": text, "raw_bytes": len(line), "record": at, "id": _string(value.pop(source.id, None))}
    for name in MAPPED:
        if name not in row and name in value:
            row[name] = _string(value.pop(name))
    extra: dict[str, Any] = {}
    for key, item in value.items():
        column = column_name(key, source)
        if item is None:
            continue
        if column not in columns or column in row or not _fits(item, columns[column]):
            extra[key] = item
            reading.count("extra_values")
        else:
            row[column] = item
    if extra:
        row[EXTRA] = json.dumps(extra, ensure_ascii=False, sort_keys=True)
    return row


def _string(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _fits(value: Any, kind: pa.DataType) -> bool:
    if isinstance(value, str):
        return pa.types.is_string(kind)
    if isinstance(value, bool):
        return pa.types.is_boolean(kind)
    if isinstance(value, int):
        if pa.types.is_unsigned_integer(kind):
            return 0 <= value < 1 << kind.bit_width
        if pa.types.is_integer(kind):
            return -(1 << kind.bit_width - 1) <= value < 1 << kind.bit_width - 1
        return pa.types.is_floating(kind) and abs(value) <= 1 << 53
    if isinstance(value, float):
        return pa.types.is_floating(kind)
    if isinstance(value, list):
        return pa.types.is_list(kind) and all(v is None or _fits(v, kind.value_type) for v in value)
    if isinstance(value, dict):
        return pa.types.is_struct(kind) and all(
            kind.get_field_index(k) >= 0 and (v is None or _fits(v, kind.field(k).type)) for k, v in value.items()
        )
    return False
