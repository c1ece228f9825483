"""Read web archives (WARC, ARC, WET; gzip, zstd or plain) to the last healthy record, whatever lies between.

Crawl archives arrive truncated, with flipped bits, with lengths that lie, and with pages that bomb the inflater. The
readers of the field stop at the first damage or pass a cut record on as whole, so this one is built around recovery:

* `members` turns the file into gzip members, zstd frames or one plain stream, and finds the next healthy one after damage;
* `_Archive`, here, cuts members into records, and holds each back until its member's checksum is verified or the next
  record of the same member has begun. A member that is damaged or cut thus takes its last record with it, and only
  that; records before it in the same member were complete, but their checksum could not be verified;
* `payload` judges one response: status, media type, transfer and content encoding, size, binary content.

Memory is bounded by `max_body_bytes` plus some megabytes.

Formats: ISO 28500 (WARC 1.0, 1.1), the Internet Archive's ARC 1 and 2, IIPC's WARC-in-zstd with its dictionary frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import pyarrow as pa

from curate.errors import SourceError
from curate.sources import InputFile, Reading, Source, page_columns, page_rows, page_schema, row_batches
from curate.sources.members import GZIP, SKIPPABLE, ZSTD, GzipMember, Members, Plain, Window, zstd_frames
from curate.sources.payload import BLANK_LINE, HEADER_LIMIT, Head, Other, Page, Reject, judge
from curate.stage import Batches

_SEARCH_LIMIT = 1 << 20  # a file that shows no record in this much is no archive

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
    archive = _open(Window(stream), max_body_bytes)
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


def _open(window: Window, max_body_bytes: int) -> _Archive | None:
    """Recognise the format by its first bytes; None for an empty file."""
    window.fill(_SEARCH_LIMIT)
    data = window.data
    if not data:
        return None
    plain = _Archive(Plain(window), max_body_bytes)
    gzipped = _Archive(Members(window, GZIP, GzipMember, max_body_bytes + (1 << 20), _is_record_start), max_body_bytes)
    if data.startswith(GZIP):
        return gzipped
    if data.startswith(ZSTD) or SKIPPABLE.match(data):
        frame = zstd_frames(window)
        return _Archive(Members(window, ZSTD, frame, 0, _is_record_start), max_body_bytes)
    if _is_record_start(data.lstrip()) or _NEXT_RECORD.search(data):
        return plain
    if GZIP in data:
        return gzipped  # behind garbage; if it is none either, no record will be recognised
    if not data.strip(b"\r\n\t \x00"):
        return None
    raise SourceError(f"not a web archive: the file begins with {data[:16]!r}, which is no WARC, ARC, gzip or zstd")


def _is_record_start(data: bytes) -> bool:
    return bool(_WARC_START.match(data) or _ARC_V1.match(data) or _ARC_V2.match(data))


class _Archive:
    """Cut the members of `source` into records. `buffer[pos:]` is inflated and unread, `at` the offset of `buffer[0]`."""

    def __init__(self, source: Plain | Members, max_body_bytes: int):
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
        limit = self.max_body_bytes + HEADER_LIMIT
        if not wanted:
            block, missing = b"", self._drop(head.length)
        elif head.length <= limit:
            block = self._take(head.length)
            missing = head.length - len(block)
        else:
            block = self._take(HEADER_LIMIT)
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
        return judge(head, block, self.max_body_bytes)

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
            found = pattern.search(self.buffer, self.pos, self.pos + HEADER_LIMIT)
            if found or len(self.buffer) - self.pos >= HEADER_LIMIT or not self._pull(into_next=True):
                return found

    def _warc_head(self, record: int) -> Head | Reject:
        end = self._find(BLANK_LINE)
        if end is None:
            size = self._resynchronise_past_line()
            if not self.source.compressed and self.ended and size < HEADER_LIMIT:
                return Reject(record, None, None, "quarantine.truncated", "the file ends inside a WARC header")
            return Reject(record, None, None, "quarantine.header", "a WARC header without an end")
        text = self.buffer[self.pos : end.start() + 1]
        fields: dict[bytes, str] = {}
        for name, value in _WARC_FIELD.findall(text):
            fields.setdefault(name.lower(), value.decode("utf-8", "replace").strip())
        url = fields.get(b"warc-target-uri", "").strip("<> \t") or None
        head = Head(
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

    def _arc_head(self, record: int) -> Head | Reject:
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
        return Head(record, kind, None, text, _arc_date(date.decode()), "", content_type.decode("latin-1"), None, int(length))

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


# --------------------------------------------------------------------------------------------- as a source of documents

SUFFIXES = tuple(f".{kind}{packed}" for kind in ("warc", "arc", "warc.wet", "wet") for packed in ("", ".gz", ".zst"))


def parts(file: InputFile, source: Source, size: int) -> list[tuple[int, int, int]]:
    """One part a file: a stream is read from its beginning."""
    return [(0, -1, file.size)]


def schema(file: InputFile, source: Source) -> pa.Schema:
    """What pages say of themselves; WET files hold texts, which say nothing."""
    name = file.name.lower().removesuffix(".gz").removesuffix(".zst")
    return pa.schema([]) if name.endswith(".wet") else page_columns(source)


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
