"""The bytes of an archive as members: gzip members, zstd frames, or one plain file; healthy ones, whatever lies between.

`Window` reads the stream once, forwards, and keeps a few megabytes to look back on. `Plain` and `Members` turn it into
members and find the next healthy one after damage: by its magic number, confirmed by inflating its beginning.

A gzip member of ordinary size is inflated in one go by fastwarc's reader (twice as fast as zlib) up to the next magic
number. That is only a guess at its end, which the length and checksum in its trailer then prove; when they do not, the
same bytes go through zlib, piece by piece. No piece is larger than a few megabytes, however well it was compressed.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from typing import BinaryIO

import zstandard
from fastwarc.stream_io import GzipReader

from curate.errors import SourceError

_CHUNK = 1 << 20  # read from the stream at once
_LOOKBACK = 4 << 20  # compressed bytes kept behind the read position, where a resynchronisation can start
_FAST_MEMBER = 8 << 20  # a compressed member above this is streamed

GZIP = b"\x1f\x8b\x08"
ZSTD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.S)


class Window:
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


class Plain:
    """An uncompressed archive: one member, whose end is the end of the file."""

    compressed = False

    def __init__(self, window: Window):
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


class GzipMember:
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


def zstd_frames(window: Window) -> Callable[[], ZstdFrame]:
    """The decompressor for this file's frames, with the dictionary that its first frame may carry."""
    head = window.data
    size = int.from_bytes(head[4:8], "little")
    dictionary = None
    if head.startswith(b"\x5d\x2a\x4d\x18") and size <= 64 << 20:
        window.fill(8 + size)
        content = window.data[8 : 8 + size]
        try:
            if content.startswith(ZSTD):
                content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read(64 << 20)
            dictionary = zstandard.ZstdCompressionDict(content)
        except zstandard.ZstdError as error:
            raise SourceError(f"the archive's zstd dictionary cannot be read: {error}") from error
    context = zstandard.ZstdDecompressor(dict_data=dictionary)
    return lambda: ZstdFrame(context)


class ZstdFrame:
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


Decoder = Callable[[], GzipMember | ZstdFrame]
Begins = Callable[[bytes], bool]


class Members:
    """The gzip members or zstd frames of a file, healthy or not. `begins` tells content that begins with a record.

    `begin` goes to the next one, `more` gives its content in pieces, b"" at the end; then `trouble` says what was wrong.
    `gaps` lists (offset, bytes) of garbage found before a member, for the reader to report and clear.
    """

    compressed = True

    def __init__(self, window: Window, magic: bytes, decoder: Decoder, fast_limit: int, begins: Begins):
        self.window, self.magic, self.decoder, self.fast_limit, self.begins = window, magic, decoder, fast_limit, begins
        self.start = 0
        self.trouble: tuple[str, str] | None = None
        self.gaps: list[tuple[int, int]] = []
        self.state: GzipMember | ZstdFrame | None = None  # None: the member is at its end
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
            if self.magic is ZSTD and left >= 8 and SKIPPABLE.match(window.data, window.pos):
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
        return decoder.done or self.begins(out.lstrip())

    def _skip(self, size: int) -> None:
        while size > 0 and self.window.fill(1):
            step = min(size, len(self.window.data) - self.window.pos)
            self.window.pos += step
            size -= step
