"""Read web archives (WARC, ARC, WET; gzip, zstd or plain) to the last healthy record, whatever lies between.

Crawl archives arrive truncated, with flipped bits, with lengths that lie, and with pages that bomb the inflater. The
readers of the field stop at the first damage or pass a cut record on as whole, so this one is built around recovery:

* `_Window` reads the stream once, forwards, and keeps a few megabytes to look back on;
* `_Plain` and `_Members` turn it into *members* (a gzip member, a zstd frame, or the whole plain file) and find the next
  healthy one after damage: by its magic number, confirmed by inflating its beginning;
* `_Archive` cuts members into records, and holds each record back until its member's checksum is verified or the next
  record of the same member has begun. A member that is damaged or cut thus takes its last record with it, and only
  that; records before it in the same member were complete, but their checksum could not be verified;
* `_payload` judges one response: status, media type, transfer and content encoding, size, binary content.

A member of ordinary size is inflated in one go by fastwarc's reader (twice as fast as zlib) up to the next magic number.
That is only a guess at its end, which the length and checksum in its trailer then prove; when they do not, the
same bytes go through zlib, piece by piece. Memory is bounded by `max_body_bytes` plus some megabytes.

Formats: ISO 28500 (WARC 1.0, 1.1), the Internet Archive's ARC 1 and 2, IIPC's WARC-in-zstd with its dictionary frame.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

import pyarrow as pa
import zstandard
from fastwarc.stream_io import GzipReader

from curate.errors import SourceError
from curate.sources import InputFile, Reading, Source, page_rows, page_schema, row_batches
from curate.stage import Batches

_CHUNK = 1 << 20  # read from the stream at once
_LOOKBACK = 4 << 20  # compressed bytes kept behind the read position, where a resynchronisation can start
_FAST_MEMBER = 8 << 20  # a compressed member above this is streamed
_HEADER_LIMIT = 256 << 10  # a WARC or HTTP header; URIs of 64 kB occur
_SEARCH_LIMIT = 1 << 20  # a file that shows no record in this much is no archive

_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.S)

_BLANK_LINE = re.compile(rb"\n\r?\n")
_WARC_START = re.compile(rb"WARC/[0-9]+\.[0-9]+[ \t]*\r?\n[ \t]*[A-Za-z][A-Za-z0-9-]*[ \t]*:")
_ARC_URL = rb"([A-Za-z][A-Za-z0-9+.-]*:\S[^\r\n]{0,65536}?) ([0-9A-Fa-f.:]+|-) ([0-9]{8,14}) "
_ARC_V2 = re.compile(_ARC_URL + rb"(\S+) (?:[0-9]{3}|-) \S+ \S+ (?:[0-9]+|-) \S+ ([0-9]+)\r?\n")
_ARC_V1 = re.compile(_ARC_URL + rb"([^\r\n]{0,256}?) ?([0-9]+)\r?\n")
_NEXT_RECORD = re.compile(rb"\n(?:" + _WARC_START.pattern + rb"|" + _ARC_V1.pattern + rb")")
_WARC_FIELD = re.compile(
    rb"^(content-length|content-type|warc-(?:type|record-id|target-uri|date|identified-payload-type"
    rb"|identified-content-language))[ \t]*:[ \t]*([^\r\n]*)",
    re.I | re.M,
)
_HTTP_STATUS = re.compile(rb"\s*HTTP/[0-9](?:\.[0-9])?[ \t]+([0-9]{3})\b", re.I)
_HTTP_FIELD = re.compile(rb"^(content-(?:type|encoding|language)|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)", re.I | re.M)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.I)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,1024})?\r?\n")

_HTML_START = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_HTML_ANYWHERE = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta|table|div|p|a|h[1-6]|script|style)\b", re.I)
_BINARY = re.compile(
    rb"%PDF-|\x89PNG|GIF8[79]a|\xff\xd8\xff|PK(?:\x03\x04|\x05\x06)|\x1f\x8b\x08|Rar!\x1a|7z\xbc\xaf|BZh[1-9]1AY|\xfd7zXZ\x00"
    rb"|RIFF.{4}(?:WEBP|WAVE|AVI )|OggS\x00|ID3[\x02-\x04]|fLaC\x00|\x1aE\xdf\xa3|.{4}ftyp|FLV\x01|[CF]WS[\x01-\x40]"
    rb"|wOF[F2]\x00|\x00\x01\x00\x00\x00|\x00\x00\x01\x00|II\x2a\x00|MM\x00\x2a|\xd0\xcf\x11\xe0|\x7fELF|MZ[\x00-\xff]\x00"
    rb"|\xca\xfe\xba\xbe|SQLite format 3\x00|\x00asm|%!PS-Adobe|\{\\rtf1",
    re.S,
)
_TEXT_BOM = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
# Bytes that no text encoding in use on the web writes, outside UTF-16 and UTF-32 (SO, SI and ESC belong to ISO-2022).
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\x0b\x0c\r\x0e\x0f\x1a\x1b")) + b"\x7f"

_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain", "text/xml", "text/markdown"})
_UNTOLD_TYPES = frozenset(
    {"", "application/octet-stream", "unknown/unknown", "application/unknown", "*/*", "binary/octet-stream", "no-type"}
)


@dataclass(slots=True)
class Page:
    """A page to be kept: a 2xx response with HTML or text, a WET conversion, or a resource record.

    Attributes:
        record: the address of the record in its file, unique and the same in every run. In a compressed file with one
            record per member, the byte offset of that gzip member or zstd frame; in a plain file, or where the first
            member holds several records (as when a whole file is one member), the offset in the decompressed stream.
            A later record of some other member has no address in the compressed file: it gets the *negative*
            offset in the decompressed stream.
        id: WARC-Record-ID as written (`<urn:uuid:…>`); None in ARC.
        url: target URI without angle brackets and surrounding space; None if missing.
        date: capture time, ISO 8601 in UTC (`2024-05-18T01:58:10Z`); None if unparseable.
        media_type: lower case, without parameters; sniffed where the header lacks it or says nothing.
        charset: of the Content-Type header only, as written.
        language: HTTP Content-Language; for WET, the first of WARC-Identified-Content-Language.
        is_text: plain text, nothing to extract.
        body: the payload, transfer and content encoding undone.
    """

    record: int
    id: str | None
    url: str | None
    date: str | None
    media_type: str
    charset: str | None
    language: str | None
    is_text: bool
    body: bytes


@dataclass(slots=True)
class Reject:
    """A record that is not passed on, or a stretch of bytes that is no record, with the reason code and one line of detail."""

    record: int
    id: str | None
    url: str | None
    reason: str
    detail: str


@dataclass(slots=True)
class Other:
    """A record that is no candidate (request, metadata, warcinfo, revisit, dns, …): only counted."""

    record: int
    kind: str


def read_archive(stream: BinaryIO, *, max_body_bytes: int) -> Iterator[Page | Reject | Other]:
    """Every record of one archive, in file order.

    Args:
        stream: the file as stored, opened for reading bytes; compression is recognised by content, never by name. It
            is read once, forwards, and need not be seekable.
        max_body_bytes: a page whose body, or whose inflated body, is larger becomes `too_large`.

    Yields:
        `Page`, `Reject` or `Other`. Reasons of `Reject`: `not_2xx`, `media_type`, `too_large`, `empty_text`, and
        `quarantine.` + `truncated` (the file ends inside the record), `damaged` (inflating fails or a checksum is wrong),
        `garbage` (bytes that belong to no record), `header`, `length` (Content-Length does not fit the record), `http` (no
        HTTP response header), `encoding` (the content encoding cannot be undone).

    Raises:
        SourceError: the file is no web archive. An empty file is one without records.
    """
    archive = _open(_Window(stream), max_body_bytes)
    if archive is None:
        return
    waiting: list[Reject | Other | Page] = []  # until one record proves that this is an archive
    for event in archive.events():
        if archive.recognised:
            yield from waiting
            waiting.clear()
            yield event
        else:
            waiting.append(event)
    if waiting:
        raise SourceError(f"not a web archive: no WARC or ARC record in it ({waiting[0].detail})")  # type: ignore[union-attr]


def _open(window: _Window, max_body_bytes: int) -> _Archive | None:
    """Recognise the format by its first bytes; None for an empty file."""
    window.fill(_SEARCH_LIMIT)
    data = window.data
    if not data:
        return None
    plain = _Archive(_Plain(window), max_body_bytes)
    gzipped = _Archive(_Members(window, _GZIP, _GzipMember, max_body_bytes + (1 << 20)), max_body_bytes)
    if data.startswith(_GZIP):
        return gzipped
    if data.startswith(_ZSTD) or _SKIPPABLE.match(data):
        frame = _zstd_frames(window)
        return _Archive(_Members(window, _ZSTD, frame, 0), max_body_bytes)
    if _is_record_start(data.lstrip()) or _NEXT_RECORD.search(data):
        return plain
    if _GZIP in data:
        return gzipped  # behind garbage; if it is none either, no record will be recognised
    if not data.strip(b"\r\n\t \x00"):
        return None
    raise SourceError(f"not a web archive: the file begins with {data[:16]!r}, which is no WARC, ARC, gzip or zstd")


# ---------------------------------------------------------------------------------------------------- bytes of the file


class _Window:
    """A forward-only stretch of the file: `data[pos:]` is unread, `base` is the file offset of `data[0]`."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.data, self.pos, self.base, self.eof = stream, b"", 0, 0, False

    @property
    def offset(self) -> int:
        return self.base + self.pos

    def fill(self, size: int) -> bool:
        """Have at least `size` unread bytes, if the file has them."""
        while len(self.data) - self.pos < size and not self.eof:
            chunk = self.stream.read(max(_CHUNK, size - len(self.data) + self.pos))
            if not chunk:
                self.eof = True
                break
            self.base += self.pos
            self.data = self.data[self.pos :] + bytes(chunk)
            self.pos = 0
        return len(self.data) - self.pos >= size

    def find(self, needle: bytes, skip: int) -> bool:
        """Move to the next `needle` that is at least `skip` bytes ahead; at the end of the file if there is none."""
        self.fill(skip + len(needle))
        self.pos = min(self.pos + skip, len(self.data))
        while True:
            found = self.data.find(needle, self.pos)
            if found >= 0:
                self.pos = found
                return True
            self.pos = max(self.pos, len(self.data) - len(needle) + 1)
            if not self.fill(len(needle)):
                self.pos = len(self.data)
                return False


class _Plain:
    """An uncompressed archive: one member, whose end is the end of the file."""

    compressed = False

    def __init__(self, window: _Window):
        self.window, self.begun = window, False
        self.start = 0
        self.trouble: tuple[str, str] | None = None
        self.gaps: list[tuple[int, int]] = []

    def begin(self) -> bool:
        self.begun, first = True, not self.begun
        return first

    def more(self) -> bytes:
        window = self.window
        window.fill(1)
        piece = window.data[window.pos :]
        window.pos = len(window.data)
        return piece


class _GzipMember:
    """Inflate one gzip member step by step, with bounded output."""

    step = 64 << 10

    def __init__(self) -> None:
        self.inflate = zlib.decompressobj(31)

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """The next piece of output, and how much of `data` it took. What comes before damage is given before the error."""
        before = self.inflate.copy()
        try:
            return self._inflate(data, 1 << 20)
        except zlib.error:
            self.inflate = before
        parts, used = [], 0
        while used < len(data):
            before = self.inflate.copy()
            try:
                piece, n = self._inflate(data[used : used + 64], 1 << 16)
            except zlib.error:
                if not used:
                    raise
                self.inflate = before
                break
            parts.append(piece)
            used += n
        return b"".join(parts), used

    def _inflate(self, data: bytes, most: int) -> tuple[bytes, int]:
        out = self.inflate.decompress(data, most)
        # At the end zlib leaves in unconsumed_tail what it put into unused_data too.
        left = self.inflate.unused_data if self.inflate.eof else self.inflate.unconsumed_tail
        return out, len(data) - len(left)

    @property
    def done(self) -> bool:
        return self.inflate.eof


def _zstd_frames(window: _Window) -> Callable[[], _ZstdFrame]:
    """The decompressor for this file's frames, with the dictionary that its first frame may carry."""
    head = window.data
    size = int.from_bytes(head[4:8], "little")
    dictionary = None
    if head.startswith(b"\x5d\x2a\x4d\x18") and size <= 64 << 20:
        window.fill(8 + size)
        content = window.data[8 : 8 + size]
        try:
            if content.startswith(_ZSTD):
                content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read(64 << 20)
            dictionary = zstandard.ZstdCompressionDict(content)
        except zstandard.ZstdError as error:
            raise SourceError(f"the archive's zstd dictionary cannot be read: {error}") from error
    context = zstandard.ZstdDecompressor(dict_data=dictionary)
    return lambda: _ZstdFrame(context)


class _ZstdFrame:
    """Decompress one zstd frame step by step; small steps bound the output, as zstd has no limit to ask for."""

    def __init__(self, context: zstandard.ZstdDecompressor):
        self.inflate, self.step = context.decompressobj(), 256

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """The next piece of output, and how much of `data` it took."""
        out = self.inflate.decompress(data)
        self.step = min(2 * self.step, 2048) if len(out) < 64 * len(data) else 256
        return out, len(data) - len(self.inflate.unused_data)

    @property
    def done(self) -> bool:
        return self.inflate.eof


class _Members:
    """The gzip members or zstd frames of a file, healthy or not.

    `begin` goes to the next one, `more` gives its content in pieces, b"" at the end; then `trouble` says what was wrong.
    `gaps` lists (offset, bytes) of garbage found before a member, for the reader to report and clear.
    """

    compressed = True

    def __init__(self, window: _Window, magic: bytes, decoder: Callable[[], _GzipMember | _ZstdFrame], fast_limit: int):
        self.window, self.magic, self.decoder, self.fast_limit = window, magic, decoder, fast_limit
        self.start = 0
        self.trouble: tuple[str, str] | None = None
        self.gaps: list[tuple[int, int]] = []
        self.state: _GzipMember | _ZstdFrame | None = None  # None: the member is at its end
        self.first = False  # nothing of this member was inflated yet
        self.cursor = 0  # in window.data; window.pos stays behind, so that damage can be searched from the member's start

    def begin(self) -> bool:
        window, garbage_from = self.window, None
        while True:
            window.fill(18)
            left = len(window.data) - window.pos
            if not left:
                break
            if window.data.startswith(self.magic, window.pos) and (garbage_from is None or self._confirmed()):
                break
            if self.magic is _ZSTD and left >= 8 and _SKIPPABLE.match(window.data, window.pos):
                self._skip(8 + int.from_bytes(window.data[window.pos + 4 : window.pos + 8], "little"))
                continue
            garbage_from = window.offset if garbage_from is None else garbage_from
            window.find(self.magic, 1)
        if garbage_from is not None:
            self.gaps.append((garbage_from, window.offset - garbage_from))
        if not left:
            return False
        self.start, self.trouble, self.state = window.offset, None, self.decoder()
        self.first, self.cursor = True, window.pos
        return True

    def more(self) -> bytes:
        if self.first and self.fast_limit:
            piece = self._whole()
            if piece is not None:
                return piece
        self.first = False
        pieces, size = [], 0
        while self.state is not None and size < 256 << 10:
            piece = self._step()
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _whole(self) -> bytes | None:
        """The member in one go, if it is small and healthy and ends right before the next magic number."""
        window, at = self.window, self.window.pos + 18
        while (end := window.data.find(self.magic, at)) < 0:
            at = max(at, len(window.data) - 2) - window.pos
            if window.eof or len(window.data) - window.pos > _FAST_MEMBER:
                break
            window.fill(len(window.data) - window.pos + 1)
            at += window.pos
        self.cursor = window.pos
        if end < 0:
            end = len(window.data)
            if not window.eof:
                return None
        member = window.data[window.pos : end]
        size = int.from_bytes(member[-4:], "little")
        if size > self.fast_limit:
            return None
        try:
            content = GzipReader(io.BytesIO(member)).read(size + 1)
        except OSError:
            return None
        if len(content) != size or not content:
            return None
        window.pos, self.state, self.first = end, None, False
        return content

    def _step(self) -> bytes:
        """One step of the slow path; at the member's end the window stands behind it, or behind the damage."""
        window, state = self.window, self.state
        assert state is not None
        if len(window.data) - self.cursor < state.step and not window.eof:
            ahead = self.cursor - window.pos
            if ahead > _LOOKBACK:
                window.pos, ahead = self.cursor, 0
            window.fill(ahead + state.step)
            self.cursor = window.pos + ahead
        data = window.data[self.cursor : self.cursor + state.step]
        try:
            out, used = state.feed(data)
        except (zlib.error, zstandard.ZstdError) as error:
            self._broken("quarantine.damaged", f"inflating failed at byte {window.base + self.cursor}: {error}")
            return b""
        self.cursor += used
        if state.done:
            window.pos, self.state = self.cursor, None
        elif not data and not out:
            self._broken("quarantine.truncated", "the file ends inside a compressed member")
        return out

    def _broken(self, reason: str, detail: str) -> None:
        """End this member and go to the next that begins with a record or is healthy as a whole."""
        window, self.state = self.window, None
        while window.find(self.magic, 1):
            if self._confirmed():
                # More members follow, so the decoder ran over this one's end: it was not the file that ended.
                reason = "quarantine.damaged"
                break
        self.trouble = (reason, detail)

    def _confirmed(self) -> bool:
        """Whether a member really begins here: three or four bytes of magic occur by chance."""
        self.window.fill(64 << 10)
        data, decoder = self.window.data[self.window.pos : self.window.pos + (64 << 10)], self.decoder()
        out = b""
        try:
            while data and not decoder.done and len(out) < 4096:
                piece, used = decoder.feed(data[: decoder.step])
                out += piece
                data = data[used:]
        except (zlib.error, zstandard.ZstdError):
            return False
        return decoder.done or _is_record_start(out.lstrip())

    def _skip(self, size: int) -> None:
        while size > 0 and self.window.fill(1):
            step = min(size, len(self.window.data) - self.window.pos)
            self.window.pos += step
            size -= step


# ------------------------------------------------------------------------------------------------------------- records


@dataclass(slots=True)
class _Head:
    """What the header of a record says."""

    record: int
    kind: str
    id: str | None
    url: str | None
    date: str | None
    content_type: str
    payload_type: str
    language: str | None
    length: int

    def reject(self, reason: str, detail: str) -> Reject:
        return Reject(self.record, self.id, self.url, reason, detail)


def _is_record_start(data: bytes) -> bool:
    return bool(_WARC_START.match(data) or _ARC_V1.match(data) or _ARC_V2.match(data))


class _Archive:
    """Cut the members of `source` into records. `buffer[pos:]` is inflated and unread, `at` the offset of `buffer[0]`."""

    def __init__(self, source: _Plain | _Members, max_body_bytes: int):
        self.source, self.max_body_bytes = source, max_body_bytes
        self.buffer, self.pos, self.at = b"", 0, 0
        self.ended = True  # no more pieces in this member
        self.ahead: bytes | None = None  # first piece of the next member, read too early
        self.fresh = False  # no event of this member yet
        self.by_stream = not source.compressed  # addresses are offsets in the decompressed stream
        self.members = 0
        self.recognised = False

    def events(self) -> Iterator[Page | Reject | Other]:
        while self._next_member():
            for offset, size in self.source.gaps:
                yield Reject(offset, None, None, "quarantine.garbage", f"{size} bytes between members are no record")
            self.source.gaps.clear()
            held: Page | Reject | Other | None = None
            while self._skip_blank():
                event = self._record()
                if held is not None:
                    yield held
                held = event
            if self.source.trouble:
                reason, detail = self.source.trouble
                if held is None:
                    held = Reject(self.source.start, None, None, reason, detail)
                elif isinstance(held, Other):
                    held = Reject(held.record, None, None, reason, detail)
                else:
                    held = Reject(held.record, held.id, held.url, reason, detail)
            if held is not None:
                yield held
        for offset, size in self.source.gaps:
            yield Reject(offset, None, None, "quarantine.garbage", f"{size} bytes at the end are no record")

    # -- moving through members and pieces

    def _next_member(self) -> bool:
        self.at += len(self.buffer)
        self.buffer, self.pos = b"", 0
        if self.ahead is not None:
            self.buffer, self.ahead = self.ahead, None
        elif not self.source.begin():
            return False
        self.members += 1
        self.ended, self.fresh = False, True
        return True

    def _pull(self, into_next: bool = False) -> bool:
        """Get more of this member. With `into_next`, also of the next one where that begins amid a record (bgzip, pzstd)."""
        if not self.ended:
            piece = self.source.more()
            if piece:
                self.at += self.pos
                self.buffer, self.pos = self.buffer[self.pos :] + piece, 0
                return True
            self.ended = True
        if not into_next or not self.source.compressed or self.source.trouble or self.ahead is not None:
            return False
        if not self.source.begin():
            return False
        piece = self.source.more()
        if self.source.gaps or self.source.trouble or not piece or _is_record_start(piece.lstrip()):
            self.ahead = piece
            return False
        self.at += self.pos
        self.buffer, self.pos, self.ended = self.buffer[self.pos :] + piece, 0, False
        return True

    def _have(self, size: int, into_next: bool = False) -> bool:
        while len(self.buffer) - self.pos < size:
            if not self._pull(into_next):
                return False
        return True

    def _skip_blank(self) -> bool:
        """Go over line ends between records; False at the end of the member."""
        while self._have(1):
            if self.buffer[self.pos] not in b"\r\n":
                return True
            self.pos += 1
        return False

    def _take(self, size: int) -> bytes:
        """The next `size` bytes, or fewer where the member (or file) ends before."""
        if len(self.buffer) - self.pos >= size:
            self.pos += size
            return self.buffer[self.pos - size : self.pos]
        parts = []
        while size > 0 and self._have(1, into_next=True):
            part = self.buffer[self.pos : self.pos + size]
            self.pos += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _drop(self, size: int) -> int:
        """Go over `size` bytes without keeping them; returns how many are missing."""
        while size > 0 and self._have(1, into_next=True):
            step = min(size, len(self.buffer) - self.pos)
            self.pos += step
            size -= step
        return size

    def _resynchronise(self, put_back: bytes = b"") -> int:
        """Go to the next line of this member that begins a record, or to its end; returns the bytes passed over."""
        if put_back:
            self.buffer, self.pos = put_back + self.buffer[self.pos :], 0
            self.at -= len(put_back)  # only differences of offsets matter from here on
        begin = self.at + self.pos
        while True:
            found = _NEXT_RECORD.search(self.buffer, self.pos)
            if found:
                self.pos = found.start() + 1
                break
            # A record line can be cut by the end of the piece. The newline before it must be kept too.
            self.pos = max(self.pos, len(self.buffer) - 1024)
            if not self.recognised and self.at + self.pos > _SEARCH_LIMIT:
                raise SourceError(f"not a web archive: no WARC or ARC record in its first {_SEARCH_LIMIT >> 20} MiB")
            if not self._pull():
                self.pos = len(self.buffer)
                break
        return self.at + self.pos - begin

    # -- one record

    def _address(self) -> int:
        offset, fresh, self.fresh = self.at + self.pos, self.fresh, False
        if self.by_stream:
            return offset
        if fresh:
            return self.source.start
        if self.members == 1:
            self.by_stream = True  # the first member holds several records: one address space for all that follows
            return offset
        return -offset

    def _record(self) -> Page | Reject | Other:
        """Read one record, or pass over what is none. Always consumes something."""
        record = self._address()
        self._have(16, into_next=True)
        if self.buffer.startswith(b"WARC/", self.pos):
            head = self._warc_head(record)
        else:
            head = self._arc_head(record)
        if isinstance(head, Reject):
            return head
        self.recognised = True
        wanted = head.kind in ("response", "resource", "conversion")
        limit = self.max_body_bytes + _HEADER_LIMIT
        if not wanted:
            block, missing = b"", self._drop(head.length)
        elif head.length <= limit:
            block = self._take(head.length)
            missing = head.length - len(block)
        else:
            block = self._take(_HEADER_LIMIT)
            missing = self._drop(head.length - len(block))
        if missing:
            if not self.source.compressed:
                return head.reject("quarantine.truncated", f"the file ends {missing} bytes before the record does")
            return head.reject("quarantine.length", f"Content-Length is {head.length}, {missing} bytes more than there are")
        if not self._at_boundary():
            self._resynchronise(b"\n" + block)
            return head.reject("quarantine.length", f"Content-Length is {head.length}, but no record ends there")
        if not wanted:
            return Other(record, head.kind)
        return _payload(head, block, self.max_body_bytes)

    def _at_boundary(self) -> bool:
        """Whether a record may end here: its closing line ends, the next record, or the end of the member follow."""
        if not self._have(4):
            return not self.buffer[self.pos :].strip(b"\r\n")
        if self.buffer.startswith((b"\r\n\r\n", b"\n\n"), self.pos):
            return True
        ahead = self.pos
        while ahead < len(self.buffer) and self.buffer[ahead] in b"\r\n" and ahead < self.pos + 4:
            ahead += 1
        self._have(ahead - self.pos + 512)
        rest = self.buffer[self.pos :].lstrip(b"\r\n")[: 1 << 17]
        return not rest or _is_record_start(rest)

    def _find(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Search `pattern` within the header limit, getting more of the member as needed."""
        while True:
            found = pattern.search(self.buffer, self.pos, self.pos + _HEADER_LIMIT)
            if found or len(self.buffer) - self.pos >= _HEADER_LIMIT or not self._pull(into_next=True):
                return found

    def _warc_head(self, record: int) -> _Head | Reject:
        end = self._find(_BLANK_LINE)
        if end is None:
            size = self._resynchronise_past_line()
            if not self.source.compressed and self.ended and size < _HEADER_LIMIT:
                return Reject(record, None, None, "quarantine.truncated", "the file ends inside a WARC header")
            return Reject(record, None, None, "quarantine.header", "a WARC header without an end")
        text = self.buffer[self.pos : end.start() + 1]
        fields: dict[bytes, str] = {}
        for name, value in _WARC_FIELD.findall(text):
            fields.setdefault(name.lower(), value.decode("utf-8", "replace").strip())
        url = fields.get(b"warc-target-uri", "").strip("<> \t") or None
        head = _Head(
            record=record,
            kind=fields.get(b"warc-type", "").lower(),
            id=fields.get(b"warc-record-id") or None,
            url=url,
            date=_iso_date(fields.get(b"warc-date", "")),
            content_type=fields.get(b"content-type", ""),
            payload_type=fields.get(b"warc-identified-payload-type", ""),
            language=fields.get(b"warc-identified-content-language", "").split(",")[0].strip() or None,
            length=-1,
        )
        length = fields.get(b"content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 19) or not head.kind:
            self.pos = end.start() + 1
            self.recognised = self.recognised or bool(head.kind)
            self.pos -= 1  # the newline before whatever comes next
            self._resynchronise()
            what = f"Content-Length is {length[:40]!r}" if head.kind else "no WARC-Type"
            return head.reject("quarantine.header", what)
        head.length = int(length)
        self.pos = end.end()
        if head.url and head.url.lower().startswith("dns:") and head.kind in ("response", "resource"):
            head.kind = "dns"
        return head

    def _arc_head(self, record: int) -> _Head | Reject:
        self._find(re.compile(rb"\n"))
        line = _ARC_V2.match(self.buffer, self.pos) or _ARC_V1.match(self.buffer, self.pos)
        if line is None:
            size = self._resynchronise_past_line()
            return Reject(record, None, None, "quarantine.garbage", f"{size} bytes are no record")
        url, _, date, content_type, length = line.groups()
        self.pos = line.end()
        text = url.decode("utf-8", "replace").strip("<> \t")
        kind = {"filedesc": "filedesc", "dns": "dns"}.get(text.split(":", 1)[0].lower(), "response")
        if len(length) > 18:
            self.pos -= 1
            self._resynchronise()
            return Reject(record, None, text, "quarantine.header", f"length is {length[:40]!r}")
        return _Head(record, kind, None, text, _arc_date(date.decode()), "", content_type.decode("latin-1"), None, int(length))

    def _resynchronise_past_line(self) -> int:
        """As `_resynchronise`, but never stays at the line that was just found to be no record."""
        self.pos += 1
        return 1 + self._resynchronise()


def _iso_date(text: str) -> str | None:
    """WARC-Date as ISO 8601 in UTC, fractions of a second kept; None if it is no date."""
    if len(text) == 20 and text[19] == "Z":
        try:
            datetime.fromisoformat(text)
        except ValueError:
            return None
        return text
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat().replace("+00:00", "Z")


def _arc_date(digits: str) -> str | None:
    try:
        return datetime.strptime(digits.ljust(14, "0")[:14], "%Y%m%d%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None


# ------------------------------------------------------------------------------------------------------------- payload


def _payload(head: _Head, block: bytes, limit: int) -> Page | Reject | Other:
    """Judge the block of a response, resource or conversion record; `block` may be only its beginning if it is too large."""
    language, encodings, chunked = head.language, "", False
    content_type = head.content_type
    whole = len(block) == head.length
    if head.kind == "response" and not (
        content_type and not content_type.lower().startswith("application/http") and not _HTTP_STATUS.match(block)
    ):
        if not block:
            return head.reject("empty_text", "the record has no content")
        http = _http(block)
        if http is None:
            return head.reject("quarantine.http", f"no HTTP response header, but {block[:40]!r}")
        status, fields, block = http
        if not 200 <= status <= 299:
            return head.reject("not_2xx", f"status {status}")
        content_type = fields.get(b"content-type", "")
        language = fields.get(b"content-language", "").split(",")[0].strip() or None
        encodings = fields.get(b"content-encoding", "").lower()
        chunked = "chunked" in fields.get(b"transfer-encoding", "").lower()
    media_type = _media_type(content_type) or _media_type(head.payload_type)
    untold = media_type in _UNTOLD_TYPES or "/" not in media_type
    if not untold and media_type not in _PAGE_TYPES:
        return head.reject("media_type", media_type)
    if whole and chunked:
        block = _dechunk(block)
    if not whole or len(block) > limit:
        return head.reject("too_large", f"the body has more than {limit} bytes")
    if encodings:
        try:
            block = _decode_content(block, encodings, limit)
        except _TooLarge:
            return head.reject("too_large", f"the body inflates to more than {limit} bytes")
        except _Undecodable as error:
            return head.reject("quarantine.encoding", str(error))
    if not block or block.isspace():
        return head.reject("empty_text", "the body is empty")
    if _is_binary(block):
        return head.reject("media_type", f"binary content declared as {media_type or 'nothing'}: begins with {block[:8]!r}")
    media_type = _sniff(block, media_type, untold)
    if media_type not in _PAGE_TYPES:
        return head.reject("media_type", media_type)
    charset = _CHARSET.search(content_type)
    return Page(
        record=head.record,
        id=head.id,
        url=head.url,
        date=head.date,
        media_type=media_type,
        charset=charset.group(1) if charset else None,
        language=language,
        is_text=head.kind == "conversion" or media_type in ("text/plain", "text/markdown"),
        body=block,
    )


def _http(block: bytes) -> tuple[int, dict[bytes, str], bytes] | None:
    """Status, the header fields that matter (lower-case names, the last of each) and body; None if this is no HTTP response."""
    at = 0
    while line := _HTTP_STATUS.match(block, at):
        status = int(line.group(1))
        blank = _BLANK_LINE.search(block, line.end(), line.end() + _HEADER_LIMIT)
        if blank is None and len(block) - at > _HEADER_LIMIT:
            return None
        begin, end = (blank.start() + 1, blank.end()) if blank else (len(block), len(block))
        if 100 <= status <= 199 and _HTTP_STATUS.match(block, end):
            at = end  # an interim response: the real one follows
            continue
        fields = {n.lower(): v.decode("latin-1").strip() for n, v in _HTTP_FIELD.findall(block[at:begin]) if v.strip()}
        return status, fields, block[end:]
    return None


def _media_type(content_type: str) -> str:
    return re.split(r"[;,\s]", content_type.strip(), maxsplit=1)[0].lower()


def _dechunk(body: bytes) -> bytes:
    """Undo chunked transfer coding; a body that is not chunked is returned as it is, a broken one as far as it goes."""
    parts, at = [], 0
    while line := _CHUNK_SIZE.match(body, at):
        size, begin = int(line.group(1), 16), line.end()
        if not size:
            return b"".join(parts)
        end = begin + size
        if end > len(body) or body[end : end + 1] not in (b"\r", b"\n", b""):
            # The first chunk does not fit: then the header lied. A later one: keep all that is left.
            return b"".join([*parts, body[begin:]]) if parts else body
        parts.append(body[begin:end])
        at = end + (2 if body.startswith(b"\r\n", end) else 1)
    return b"".join([*parts, body[at:]]) if parts else body


class _TooLarge(Exception):
    pass


class _Undecodable(Exception):
    pass


def _decode_content(body: bytes, encodings: str, limit: int) -> bytes:
    """Undo Content-Encoding, the last one first. A body that plainly is not encoded is returned as it is."""
    for name in reversed(re.split(r"[,\s]+", encodings.strip(", \t"))):
        if name in ("", "identity", "none", "utf-8", "chunked", "8bit", "binary"):
            continue
        if not body:
            return body
        if name in ("gzip", "x-gzip"):
            if body.startswith(b"\x1f\x8b"):
                body = _inflate(body, 31, limit)
        elif name == "deflate":
            body = _inflate_deflate(body, limit)
        elif name == "br":
            body = _unbrotli(body, limit)
        elif name == "zstd":
            if body.startswith(_ZSTD):
                body = _unzstd(body, limit)
        elif not _HTML_START.match(body, 0, 1024):
            raise _Undecodable(f"unknown content encoding {name[:40]!r}")
    return body


def _inflate(body: bytes, window_bits: int, limit: int) -> bytes:
    """Inflate one or more members; what follows the last is ignored, as browsers do."""
    out, total = [], 0
    while True:
        inflate = zlib.decompressobj(window_bits)
        try:
            piece = inflate.decompress(body, limit - total + 1)
        except zlib.error as error:
            if out:
                break
            raise _Undecodable(f"the content encoding is damaged: {error}") from error
        total += len(piece)
        if total > limit:
            raise _TooLarge
        if not inflate.eof:
            raise _Undecodable("the content encoding is truncated")
        out.append(piece)
        body = inflate.unused_data
        if window_bits != 31 or not body.startswith(b"\x1f\x8b"):
            break
    return b"".join(out)


def _inflate_deflate(body: bytes, limit: int) -> bytes:
    """`deflate` means zlib, but servers also send it raw, or send nothing of the kind."""
    try:
        return _inflate(body, 15, limit)
    except _Undecodable as error:
        if body.startswith(b"\x1f\x8b"):
            return _inflate(body, 31, limit)
        if _HTML_START.match(body, 0, 1024):
            return body
        try:
            return _inflate(body, -15, limit)
        except _Undecodable:
            raise error from None


def _unbrotli(body: bytes, limit: int) -> bytes:
    try:
        import brotli
    except ImportError:
        raise _Undecodable("content encoding br needs the package 'brotli', which is not installed") from None
    if _HTML_START.match(body, 0, 1024):
        return body
    decoder, out, total, piece = brotli.Decompressor(), [], 0, b""
    try:
        data = body
        while not decoder.is_finished():
            piece = decoder.process(data, output_buffer_limit=limit - total + 1)
            total += len(piece)
            out.append(piece)
            if total > limit:
                raise _TooLarge
            if not piece and decoder.can_accept_more_data():
                raise _Undecodable("the content encoding is truncated")
            data = b""
    except TypeError:
        raise _Undecodable("content encoding br needs brotli>=1.2, which can bound its output") from None
    except brotli.error as error:
        raise _Undecodable(f"the content encoding is damaged: {error}") from error
    return b"".join(out)


def _unzstd(body: bytes, limit: int) -> bytes:
    source = io.BytesIO(body)
    try:
        out = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True).read(limit + 1)
    except zstandard.ZstdError as error:
        raise _Undecodable(f"the content encoding is damaged: {error}") from error
    if len(out) > limit:
        raise _TooLarge
    return out


def _is_binary(body: bytes) -> bool:
    """Whether this is no text in any encoding: a known magic number, or too many control bytes."""
    if body.startswith(_TEXT_BOM):
        return False
    if _BINARY.match(body):
        return True
    sample = body[:4096]
    if len(sample) - len(sample.translate(None, _CONTROLS)) <= len(sample) // 20:
        return False
    return _wide_order(sample) is None


def _wide_order(sample: bytes) -> str | None:
    """`be` or `le` if this looks like UTF-16 or UTF-32 without a byte order mark: NULs, on one side of the units only."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if even + odd < len(sample) // 20 or sample.translate(None, _CONTROLS[1:]).count(0) < even + odd:
        return None
    if even + odd > len(sample) // 2:  # UTF-32: three NULs of four, and all NULs of a unit on one side of it
        places = [sample[k::4].count(0) for k in range(4)]
        return "be" if places[0] > places[3] else "le"
    return "be" if even > 4 * odd else "le" if odd > 4 * even else None


def _sniff(body: bytes, media_type: str, untold: bool) -> str:
    """The media type, from the content where the header says nothing or calls an HTML page plain text."""
    if not untold and media_type != "text/plain":
        return media_type
    sample = body[:2048].replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe")
    if _HTML_START.match(sample):
        return "text/html"
    if media_type == "text/plain":
        return media_type
    if sample.lstrip().startswith(b"<?xml"):
        return "application/xhtml+xml" if b"<html" in sample else "text/xml"
    if _HTML_ANYWHERE.search(sample):
        return "text/html"
    # Nothing was declared and nothing looks like markup: text from a server that says nothing is text, but a
    # declared octet-stream is most often a download.
    return media_type if media_type else "text/plain"


# --------------------------------------------------------------------------------------------- as a source of documents

SUFFIXES = tuple(f".{kind}{packed}" for kind in ("warc", "arc", "warc.wet", "wet") for packed in ("", ".gz", ".zst"))


def parts(file: InputFile, source: Source, size: int) -> list[tuple[int, int, int]]:
    """One part a file: a stream is read from its beginning."""
    return [(0, -1, file.size)]


def schema(file: InputFile, source: Source) -> pa.Schema:
    """An archive brings no columns."""
    return pa.schema([])


def read(reading: Reading, start: int, stop: int) -> Batches:
    """The pages of an archive. Records of other types (request, metadata, …) are counted, not documents."""
    return row_batches(page_rows(reading, _pages(reading)), page_schema(reading.source))


def _pages(reading: Reading) -> Iterator[Page]:
    with reading.open(hashed=True) as stream:
        for found in read_archive(stream, max_body_bytes=reading.source.max_raw_bytes):
            if isinstance(found, Page):
                yield found
            elif isinstance(found, Reject):
                reading.reject(found.record, found.reason, found.detail, found.id, found.url)
            else:
                reading.count(f"other.{found.kind}")
