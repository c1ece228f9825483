"""Joining Parquet files by their row groups, without decompressing a byte.

One output shard is compressed by many workers, each of which writes a piece of it. Pages do not know where they stand in a
file; only the footer does. So the pieces are copied one behind the other and a footer is written whose offsets fit, which
gives, byte for byte, the file that one writer would have written. The footer is a Thrift struct in the compact protocol
(github.com/apache/thrift, doc/specs/thrift-compact-protocol.md; field numbers: apache/parquet-format, parquet.thrift).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import ManifestError
from curate.storage import atomic

MAGIC = b"PAR1"
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_NUM_ROWS, _ROW_GROUPS = 3, 4  # FileMetaData
_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7  # RowGroup
_CHUNK_OFFSET, _META, _OFFSET_INDEX = 2, 3, 4  # ColumnChunk
_PAGE_OFFSETS = (9, 10, 11)  # ColumnMetaData: data, index and dictionary page
_BLOOM = 14

Fields = list[list[Any]]  # [field number, type, value], in file order


def splice(pieces: Sequence[Path], path: Path) -> tuple[int, str]:
    """Write the row groups of `pieces`, in order, as one file; returns its size and sha256.

    The pieces have the same schema and no page index or Bloom filters. Raises ManifestError where one is not whole.
    """
    digest, size = hashlib.sha256(), 0
    merged: Fields = []
    with atomic(path) as temporary, open(temporary, "wb") as out:

        def put(data: bytes) -> None:
            nonlocal size
            digest.update(data)
            out.write(data)
            size += len(data)

        put(MAGIC)
        for piece in pieces:
            with open(piece, "rb") as stream:
                footer, left = _footer(stream, piece)
                merged = _append(merged, footer, size - len(MAGIC))
                stream.seek(len(MAGIC))
                left -= len(MAGIC)
                while left:
                    data = stream.read(min(left, 1 << 20))
                    if not data:
                        raise ManifestError(f"{piece} is shorter than it was")
                    left -= len(data)
                    put(data)
        encoded = bytearray()
        _write_struct(encoded, merged)
        put(bytes(encoded) + struct.pack("<I", len(encoded)) + MAGIC)
    return size, digest.hexdigest()


def _footer(stream: Any, piece: Path) -> tuple[Fields, int]:
    """The footer of a file, and where it begins."""
    end = stream.seek(0, 2)
    stream.seek(max(0, end - 8))
    tail = stream.read(8)
    if len(tail) < 8 or tail[4:] != MAGIC:
        raise ManifestError(f"{piece} is not a whole Parquet file")
    start = end - 8 - struct.unpack("<I", tail[:4])[0]
    stream.seek(start)
    return _Reader(stream.read(end - 8 - start)).struct(), start


def _append(merged: Fields, footer: Fields, shift: int) -> Fields:
    """`merged` with the row groups of a footer whose file begins `shift` bytes further on."""
    groups = _get(footer, _ROW_GROUPS)
    first = len(_get(merged, _ROW_GROUPS)[2][1]) if merged else 0
    for number, group in enumerate(groups[2][1], first):
        _move(group, shift, (_GROUP_OFFSET,))
        ordinal = _get(group, _ORDINAL)
        if ordinal and number <= 0x7FFF:
            ordinal[2] = number
        for chunk in _get(group, _COLUMNS)[2][1]:
            meta = _get(chunk, _META)
            if _get(chunk, _OFFSET_INDEX) or _get(meta[2], _BLOOM):
                raise ManifestError("files with a page index or Bloom filters cannot be joined")
            _move(chunk, shift, (_CHUNK_OFFSET,))
            _move(meta[2], shift, _PAGE_OFFSETS)
    if not merged:
        return footer
    _get(merged, _NUM_ROWS)[2] += _get(footer, _NUM_ROWS)[2]
    _get(merged, _ROW_GROUPS)[2][1].extend(groups[2][1])
    return merged


def _get(fields: Fields, number: int) -> Any:
    return next((f for f in fields if f[0] == number), None)


def _move(fields: Fields, shift: int, numbers: tuple[int, ...]) -> None:
    for field in fields:
        if field[0] in numbers and field[2] > 0:  # 0 is how a writer leaves an offset out
            field[2] += shift


class _Reader:
    """Thrift's compact protocol to nested lists."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def struct(self) -> Fields:
        fields: Fields = []
        number = 0
        while True:
            header = self._data[self._at]
            self._at += 1
            if header == 0:
                return fields
            kind = header & 15
            number = number + (header >> 4) if header >> 4 else _unzigzag(self.varint())
            fields.append([number, kind, None if kind in (_TRUE, _FALSE) else self.value(kind)])

    def value(self, kind: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return _unzigzag(self.varint())
        if kind == _STRUCT:
            return self.struct()
        if kind in (_LIST, _SET):
            header = self._data[self._at]
            self._at += 1
            n = header >> 4 if header >> 4 < 15 else self.varint()
            return [header & 15, [self.value(header & 15) for _ in range(n)]]
        if kind == _BINARY:
            return self._take(self.varint())
        if kind in (_BYTE, _TRUE, _FALSE, _DOUBLE):
            return self._take(8 if kind == _DOUBLE else 1)
        raise ManifestError(f"unknown Thrift type {kind} in a Parquet footer")

    def _take(self, n: int) -> bytes:
        value = self._data[self._at : self._at + n]
        self._at += n
        return value


def _write_struct(out: bytearray, fields: Fields) -> None:
    last = 0
    for number, kind, value in fields:
        delta = number - last
        if 0 < delta <= 15:
            out.append(delta << 4 | kind)
        else:
            out.append(kind)
            _write_varint(out, _zigzag(number))
        last = number
        if value is not None:
            _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in (_I16, _I32, _I64):
        _write_varint(out, _zigzag(value))
    elif kind == _STRUCT:
        _write_struct(out, value)
    elif kind in (_LIST, _SET):
        inner, items = value
        if len(items) < 15:
            out.append(len(items) << 4 | inner)
        else:
            out.append(0xF0 | inner)
            _write_varint(out, len(items))
        for item in items:
            _write_value(out, inner, item)
    else:
        if kind == _BINARY:
            _write_varint(out, len(value))
        out += value


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    return value >> 1 if not value & 1 else -((value + 1) >> 1)
