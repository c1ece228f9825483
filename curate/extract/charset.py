"""Bytes of a page to text, whatever its labels claim.

The order of the WHATWG standard (byte order mark, HTTP header, `<meta>`, detection) decides between labels that the bytes
allow. The bytes have the last word: a page that is valid UTF-8 with characters outside ASCII is UTF-8, since text in any
other encoding is that by chance only in a few letters; a label under which the bytes do not decode loses; and so does one
whose script the bytes contradict, such as a server's ISO-8859-1 over Korean. Without a label, letters outside ASCII that come
one at a time are windows-1252, unless enough of them speak for another encoding of a Latin script.
"""

from __future__ import annotations

import codecs
import re
import struct

import numpy as np
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

# Encodings by script. Within a family they differ in few letters, or in which letters there are at all.
_FAMILIES = {
    "western": "cp1252 iso8859-1 iso8859-15 mac_roman mac-roman",
    "central": "cp1250 iso8859-2 iso8859-16",
    "turkish": "cp1254 iso8859-9",
    "baltic": "cp1257 iso8859-13 iso8859-4 iso8859-10",
    "vietnamese": "cp1258",
    "celtic": "iso8859-14",
    "maltese": "iso8859-3",
    "greek": "cp1253 iso8859-7",
    "hebrew": "cp1255 iso8859-8",
    "arabic": "cp1256 iso8859-6",
    "thai": "cp874 iso8859-11 tis-620",
    "windows cyrillic": "cp1251",
    "koi8": "koi8-r koi8-u",
    "iso cyrillic": "iso8859-5",
    "dos cyrillic": "cp866",
    "mac cyrillic": "mac_cyrillic mac-cyrillic",
    "simplified": "gb18030",
    "traditional": "cp950",
    "shift_jis": "cp932",
    "euc-jp": "euc_jp",
    "korean": "cp949",
}
_FAMILY = {codec: family for family, names in _FAMILIES.items() for codec in names.split()}
_LATIN_SCRIPTS = {"western", "central", "turkish", "baltic", "vietnamese", "celtic", "maltese"}
_CYRILLIC = {"windows cyrillic", "koi8", "iso cyrillic", "dos cyrillic", "mac cyrillic", None}
_WIDE_FAMILIES = {"simplified", "traditional", "shift_jis", "euc-jp", "korean"}
# In the order of how common they are: ISO 8859-16, say, which is Romanian with other letters, is next to never seen.
_SISTERS = {"central": ("cp1250", "iso8859-2"), "greek": ("cp1253", "iso8859-7"), "hebrew": ("cp1255", "iso8859-8")}
_ASCII = frozenset(map(chr, range(128)))
_LOOK_AT = 1 << 20  # bytes
_FEW, _SOME, _MANY = 8, 20, 100  # letters outside ASCII: nothing to go by; enough to tell scripts; enough to tell encodings
_LETTER = (
    "a-zA-Z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"  # Latin
    "\u0370-\u037d\u0386\u0388-\u0481\u048a-\u0559\u05d0-\u05ea\u0620-\u064a"  # Greek, Cyrillic, Hebrew, Arabic
)
_SIGN = (
    "\u00a1-\u00a9\u00ab\u00ac\u00ae-\u00b4\u00b6\u00b8\u00b9\u00bb-\u00bf\u00d7\u00f7"
    "\u2020-\u2022\u2030\u20ac\u2122\u2200-\u25ff"
)
_SMALL, _CAPITAL = (
    "a-z\u00df-\u00f6\u00f8-\u00ff\u03ac-\u03ce\u0430-\u045f",
    "\u00c0-\u00d6\u00d8-\u00de\u0386-\u03ab\u0400-\u042f",
)
_OTHER = "\u0370-\u052f\u05d0-\u05ea"
_AROUND = re.compile("[\x00-\x7f]?(?:[^\x00-\x7f]+[\x00-\x7f]?)+")
_ODD = re.compile(
    "[\u0080-\u009f\ue000-\uf8ff\ufffd]"  # controls, private use
    f"|(?<=[{_LETTER}])[{_SIGN}](?=[{_LETTER}])"
    f"|(?<=[{_SMALL}])[{_CAPITAL}]"
    "|[\u00a4\u00a6\u00a7\u00ac\u00b1\u00b5\u00b6](?=[\u03ac-\u03ce])|[\u0386\u0388-\u038f](?=\\W)"  # Greek accents
    f"|[a-zA-Z](?=[{_OTHER}])|[{_OTHER}](?=[a-zA-Z])"
)


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
    found = _META.search(body, 0, _META_WITHIN)
    labels = [charset, (found.group(1) or found.group(2)).decode("ascii") if found else None]
    declared = [c for c in map(_codecs, labels) if c]
    # In other encodings, valid sequences by chance are a few per cent, but of Cyrillic in GBK, say, most.
    pairs = any(_FAMILY.get(c[0]) in _WIDE_FAMILIES and _strict(body, c) is not None for c in declared)
    if (outside - bad) * 2 > bad and not pairs:
        return body.decode("utf-8", "curate.mixed")
    for tried in _ranked(body, declared, *_detected(body)):
        for codec in tried:
            if (text := _strict(body, codec)) is not None:
                return text
        for codec in tried:
            text = body.decode(codec[0], "replace")
            if text.count("\ufffd") * 50 <= outside:  # some damage in the right encoding
                return text
    if outside * 8 > len(body):
        # Mostly letters outside ASCII, which nobody could name. As windows-1252 that would be plain rubbish.
        text = _strict(body, ("johab",)) or ""
        if sum("\uac00" <= c <= "\ud7a3" for c in text) * 4 > outside:
            return text
        raise Unextractable("decode", "the encoding cannot be told, or is not supported")
    return _single_byte(body, "cp1252")


def _detected(body: bytes) -> tuple[tuple[str, ...] | None, bool, int]:
    """(codecs or None, whether the text is of another script than Latin, letters outside ASCII) by the bytes alone.

    Latin scripts have letters outside ASCII one at a time, other scripts have nothing but. That is what the detector, which
    knows languages by their letters, does not look at: it finds Norwegian and Greek in a few German umlauts.
    """
    data = np.frombuffer(body, np.uint8, min(len(body), _LOOK_AT))
    high = (data >= 0x80) & (data != 0xA0)
    new = high.copy()
    new[1:] &= data[1:] != data[:-1]  # rows of dashes and dots are no words
    letters = int(np.count_nonzero(new))
    runs = int(np.count_nonzero(high[1:] & ~high[:-1])) + int(len(high) > 0 and high[0])
    other = letters >= _FEW and letters >= 2 * runs
    name = detect_encoding(body, html5_compatible=False)
    codec = _codecs(name)
    family = _FAMILY.get(codec[0]) if codec else None
    if not other:
        # What is told apart by letters needs some of them; quotation marks and dashes are the same in all of these.
        plain = int(np.count_nonzero(data >= 0xC0))
        if family not in ("central", "turkish", "baltic", "vietnamese") or plain < _SOME:
            codec, family = _LATIN, "western"
    elif codec and family is None and letters < _MANY:
        codec = None  # an encoding that no browser knows needs evidence
    if codec and family in _SISTERS:
        codec = _sister(body, codec[0], _SISTERS[family])
    return codec, other, letters


def _sister(body: bytes, codec: str, sisters: tuple[str, ...]) -> tuple[str, ...]:
    """Of encodings that differ in a few letters, the one in which the fewest characters stand where they should not."""
    texts = {name: text for name in sisters if (text := _strict(body, (name,))) is not None}
    if not texts:
        return (codec,)
    return (min(texts, key=lambda name: (_disorder(texts[name]), name != codec)),)


def _ranked(
    body: bytes, declared: list[tuple[str, ...]], detected: tuple[str, ...] | None, other: bool, letters: int
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The codecs to try, and those to try if none will do: what was declared, unless the bytes say clearly that it cannot be
    so; then what was detected; then what was declared all the same.
    """
    family = _FAMILY.get(detected[0]) if detected else None
    if len(declared) == 2 and declared[0] == _LATIN and _FAMILY.get(declared[1][0]) == family:
        declared = declared[::-1]  # a server's default header against what the author wrote, and the bytes
    if letters < _FEW:
        return [*declared, *([detected] if detected else [])], []
    if not detected:
        return (declared if not other or letters < _MANY else [codec for codec in declared if _in_order(body, codec)]), []
    believed: list[tuple[str, ...]] = []
    doubted: list[tuple[str, ...]] = []
    for codec in declared:
        claimed = _FAMILY.get(codec[0])
        if claimed in _WIDE_FAMILIES and (family not in _WIDE_FAMILIES or letters < _MANY):
            wrong = _strict(body, codec) is None  # pairs that are all valid are proof enough
        elif claimed in _LATIN_SCRIPTS and family not in _LATIN_SCRIPTS:
            wrong = other and letters >= _SOME
        elif claimed == family or family in _LATIN_SCRIPTS or {claimed, family} <= _CYRILLIC:
            wrong = codec != detected and _clearer(body, detected, codec)
        else:
            wrong = letters >= _MANY and len(set(_strict(body, detected) or "") - _ASCII) >= _SOME
        (doubted if wrong else believed).append(codec)
    return [*believed, detected], doubted


def _in_order(body: bytes, codec: tuple[str, ...]) -> bool:
    """Whether a text of another script than Latin could be in this encoding, which nothing but a label speaks for."""
    text = _strict(body, codec)
    return text is not None and _FAMILY.get(codec[0]) not in _LATIN_SCRIPTS and _disorder(text) * 400 < len(text)


def _clearer(body: bytes, codec: tuple[str, ...], than: tuple[str, ...]) -> bool:
    """Whether the text is in order under one codec and not under another."""
    text, other = _strict(body, codec), _strict(body, than)
    if text is None or other is None:
        return other is None
    return _disorder(other) * len(text) > 3 * _disorder(text) * len(other) and _disorder(other) >= _FEW


def _disorder(text: str) -> int:
    """How many characters stand where they should not: signs and capitals within words, controls, mixed scripts."""
    return len(_ODD.findall(" ".join(_AROUND.findall(text))))  # most of a page is ASCII


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
