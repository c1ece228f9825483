"""Bytes of a page to text, whatever its labels claim.

The order of the WHATWG standard (byte order mark, HTTP header, `<meta>`, detection) decides between labels that the bytes
allow. The bytes have the last word: a page that is valid UTF-8 with characters outside ASCII is UTF-8, since text in any
other encoding is that by chance only in a few letters; and a label under which the bytes do not decode loses.
"""

from __future__ import annotations

import codecs
import re
import struct

import pyarrow as pa
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from curate.extract import Unextractable

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_META = re.compile(
    rb"<meta\b[^>]{0,512}?\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9_:.+-]{2,40})"
    rb"|<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']\s*([A-Za-z0-9_:.+-]{2,40})",
    re.I,
)
_META_WITHIN = 8192
# WHATWG encoding name -> the Python codec that comes nearest; several are tried in turn.
_CODECS = {
    "windows-1252": ("cp1252",),
    "cp1252": ("cp1252",),
    "gbk": ("gb18030",),
    "gb18030": ("gb18030",),
    "gb2312": ("gb18030",),
    "big5": ("cp950", "big5hkscs"),
    "shift_jis": ("cp932", "shift_jisx0213"),
    "shift-jis": ("cp932", "shift_jisx0213"),
    "euc-jp": ("euc_jp", "euc_jis_2004"),
    "iso-2022-jp": ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2004"),
    "iso-2022-kr": ("iso2022_kr",),
    "euc-kr": ("cp949",),
    "uhc": ("cp949",),
    "iso-8859-8-i": ("iso8859-8",),
    "iso-8859-11": ("cp874",),
    "windows-874": ("cp874",),
    "tis-620": ("cp874",),
    "x-mac-cyrillic": ("mac_cyrillic",),
    "maccyrillic": ("mac_cyrillic",),
    "mac-cyrillic": ("mac_cyrillic",),
    "x-mac-ukrainian": ("mac_cyrillic",),
    "macintosh": ("mac_roman",),
    "johab": ("johab",),
    "euc-tw": (),
    "x-user-defined": (),
    "utf-7": (),
}
_WIDE = {"utf-16", "utf-16le", "utf-16-le", "utf-16be", "utf-16-be", "utf-32", "utf-32le", "utf-32be", "ucs-2", "utf_16"}
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "unicode_escape", "raw-unicode-escape", "raw_unicode_escape", "undefined",
                "utf-7", "utf_7", "mbcs", "oem"}  # fmt: skip
_LATIN = ("cp1252",)


def decode(body: bytes, charset: str | None) -> str:
    """The text of a page; holds no NUL and no lone surrogate. Bytes that do not decode become U+FFFD.

    Raises Unextractable (`decode`) for a text that is mostly outside ASCII in an encoding that cannot be told or read.

    Args:
        body: the bytes as served.
        charset: the label of the HTTP header, or None.
    """
    return _decode(body, charset).replace("\x00", "")


def to_utf8(body: bytes, charset: str | None) -> bytes:
    """`decode(body, charset)` as UTF-8, without the detour over a string where the bytes are plain UTF-8 already.

    For parsers that take bytes; about a tenth of the time of extracting a page.
    """
    # The same conditions as in _decode: no mark, no 7-bit encoding, no NULs, no label that a few characters could prove right.
    if (
        body[:1].isascii()
        and b"\x00" not in body
        and b"\x1b" not in body
        and (b"~" not in body or b"~{" not in body)  # one byte is searched many times faster than two
        and _codecs(charset) in (None, _LATIN)
        and _is_utf8(body)
    ):
        return body
    return decode(body, charset).encode()


def _is_utf8(body: bytes) -> bool:
    """Whether the bytes are valid UTF-8; Arrow's check is some times faster than decoding."""
    offsets = pa.py_buffer(struct.pack("=qq", 0, len(body)))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(body)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _decode(body: bytes, charset: str | None) -> str:
    for mark, codec in _BOMS:
        if body.startswith(mark):
            return _repair(body[len(mark) :].decode(codec, "replace"))
    wide = _wide(body)
    if wide:
        return _repair(body.decode(wide, "replace"))
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return _legacy(body, charset)
    if not text.isascii():
        # A handful of characters can be valid UTF-8 by chance where the label is of a multi-byte encoding.
        if len(body) - len(text) >= 16 or (codecs_ := _codecs(charset)) is None or len(codecs_) != 1 or codecs_ == _LATIN:
            return text
        other = _strict(body, codecs_)
        return text if other is None or codecs_[0] not in ("gb18030", "cp949") else other
    if "\x1b" in text or "~{" in text:
        return _seven_bit(body) or text
    return text


def _legacy(body: bytes, charset: str | None) -> str:
    """Text of bytes that are not valid UTF-8."""
    try:
        return _surrogate_pairs(body)
    except UnicodeDecodeError:
        pass
    broken = body.decode("utf-8", "replace")
    bad = broken.count("\ufffd")
    outside = len(broken) - len(broken.encode("ascii", "ignore"))
    if (outside - bad) * 2 > bad:  # in other encodings, valid sequences by chance are a few per cent
        return body.decode("utf-8", "curate.mixed")
    found = _META.search(body, 0, _META_WITHIN)
    labels = [charset, (found.group(1) or found.group(2)).decode("ascii") if found else None]
    candidates = [c for c in map(_codecs, labels) if c]
    name = detect_encoding(body, html5_compatible=False)
    detected = _codecs(name)
    if len(candidates) == 2 and candidates[0] == _LATIN and candidates[1] == detected:
        candidates.reverse()  # a server's default header against what the author wrote, and the bytes
    tried = [*candidates, *([detected] if detected else [])]
    for codec in tried:
        if (text := _strict(body, codec)) is not None:
            return text
    for codec in tried:
        text = body.decode(codec[0], "replace")
        if text.count("\ufffd") * 50 <= outside:  # some damage in the right encoding
            return text
    if not tried and outside * 8 > len(body):
        # Mostly letters outside ASCII, which nobody could name. As windows-1252 that would be plain rubbish.
        text = _strict(body, ("johab",)) or ""
        if sum("\uac00" <= c <= "\ud7a3" for c in text) * 4 > outside:
            return text
        raise Unextractable("decode", f"encoding {name!r} is not supported" if name else "the encoding cannot be told")
    return _single_byte(body, "cp1252")


def _mixed(error: UnicodeError) -> tuple[str, int]:
    """Stray bytes in UTF-8: a letter of windows-1252 where it stands alone, else damage."""
    assert isinstance(error, UnicodeDecodeError)
    body, start, end = error.object, error.start, error.end
    alone = end - start == 1 and body[start] >= 0xA0 and (end == len(body) or body[end] < 0x80)
    return (chr(body[start]) if alone else "\ufffd"), end


codecs.register_error("curate.mixed", _mixed)


def _codecs(label: str | None) -> tuple[str, ...] | None:
    """The Python codecs for a label, WHATWG aliases included; None for unknown ones, UTF-8 and those that bytes tell."""
    if not label:
        return None
    name = label.strip().lower()
    if name in _WIDE or name in ("utf-8", "utf8", "utf-8-sig"):
        return None
    if name not in _CODECS:
        name = (map_encoding_to_html5(name, fallback_utf8=False) or name).lower()
        if name in _WIDE or name == "utf-8":
            return None
    if name in _CODECS:
        return _CODECS[name] or None
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    return (found.name,) if found._is_text_encoding and found.name not in _NO_CHARSETS else None


def _strict(body: bytes, names: tuple[str, ...]) -> str | None:
    """The text if it decodes without a fault under one of the codecs."""
    for name in names:
        try:
            return _single_byte(body, name) if name in ("cp1252", "cp1254", "cp874") else body.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return None


def _single_byte(body: bytes, name: str) -> str:
    """Bytes that Windows leaves undefined become C1 controls, as in WHATWG's tables."""
    try:
        return body.decode(name)
    except UnicodeDecodeError:
        table = "".join(bytes([b]).decode(name, "ignore") or chr(b) for b in range(256))
        return codecs.charmap_decode(body, "strict", table)[0]


def _seven_bit(body: bytes) -> str | None:
    """ISO-2022 and HZ, which look like ASCII."""
    if b"\x1b$)C" in body:
        names: tuple[str, ...] = ("iso2022_kr",)
    elif b"\x1b$" in body or b"\x1b(J" in body or b"\x1b(B" in body:
        names = _CODECS["iso-2022-jp"]
    elif b"~{" in body and b"~}" in body:
        names = ("hz",)
    else:
        return None
    return _strict(body, names)


def _wide(body: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: NULs, which no other encoding writes, always in the same places of a unit."""
    sample = body[:4096]
    if sample.count(0) < max(2, len(sample) // 16):
        return None
    nul = [sample[k::4].count(0) for k in range(4)]
    quarter = max(1, len(sample) // 4)
    if nul[0] + nul[1] > 1.8 * quarter and nul[3] < quarter // 8:
        return "utf-32-be"
    if nul[2] + nul[3] > 1.8 * quarter and nul[0] < quarter // 8:
        return "utf-32-le"
    even, odd = nul[0] + nul[2], nul[1] + nul[3]
    if even > 8 * odd:
        return "utf-16-be"
    if odd > 8 * even:
        return "utf-16-le"
    return None


def _surrogate_pairs(body: bytes) -> str:
    """CESU-8: characters outside the BMP as two surrogates, three bytes each."""
    text = body.decode("utf-8", "surrogatepass")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _repair(text: str) -> str:
    return text.lstrip("\ufeff")
