"""One record's content, judged: a page to keep, or the reason why not.

Headers of the web lie, so each is believed only as far as the bytes bear it out: a body that is not chunked or not
compressed is taken as it is, a missing media type is sniffed, and binary content is none of ours whatever it is called.
Nothing is inflated further than the limit.
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass

import zstandard

HEADER_LIMIT = 256 << 10  # a WARC or HTTP header; URIs of 64 kB occur

BLANK_LINE = re.compile(rb"\n\r?\n")
_HTTP_STATUS = re.compile(rb"\s*HTTP/[0-9](?:\.[0-9])?[ \t]+([0-9]{3})\b", re.I)
_HTTP_FIELD = re.compile(rb"^(content-(?:type|encoding|language)|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)", re.I | re.M)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.I)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,1024})?\r?\n")
ZSTD = b"\x28\xb5\x2f\xfd"

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


@dataclass(slots=True)
class Head:
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


def judge(head: Head, block: bytes, limit: int) -> Page | Reject | Other:
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
        blank = BLANK_LINE.search(block, line.end(), line.end() + HEADER_LIMIT)
        if blank is None and len(block) - at > HEADER_LIMIT:
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
    parts: list[bytes] = []
    at = 0
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
            if body.startswith(ZSTD):
                body = _unzstd(body, limit)
        elif not _HTML_START.match(body, 0, 1024):
            raise _Undecodable(f"unknown content encoding {name[:40]!r}")
    return body


def _inflate(body: bytes, window_bits: int, limit: int) -> bytes:
    """Inflate one or more members; what follows the last is ignored, as browsers do."""
    out: list[bytes] = []
    total = 0
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
