"""Decoding: labels, marks, bytes; and what is never in the result."""

from __future__ import annotations

import codecs
import gzip
import json
import random
import re
import unicodedata

import pytest

from curate.extract import Unextractable
from curate.extract.charset import decode, to_utf8
from curate.sources.warc import Page, read_archive

GERMAN = "<p>Ärger über Öl: die Straße führt nach Köln, Gemüse für fünf Käufer.</p>" * 3
RUSSIAN = "<p>Съешь ещё этих мягких французских булок, да выпей чаю.</p>" * 5
JAPANESE = "<p>これは日本語の文章です。漢字とひらがなとカタカナが混ざっています。</p>" * 5
CHINESE = "<p>这是一个中文网页，里面有很多汉字和标点符号。我们用它来测试编码检测。</p>" * 5
KOREAN = "<p>이것은 한국어 문장입니다. 인코딩을 알아낼 수 있는지 시험합니다.</p>" * 5


@pytest.mark.parametrize(
    ("text", "codec", "label"),
    [
        (GERMAN, "utf-8", None),
        (GERMAN, "utf-8", "utf-8"),
        (GERMAN, "utf-8", "iso-8859-1"),  # a header that lies
        (GERMAN, "utf-8", "x-foo-9"),
        (GERMAN, "utf-8", "gb2312"),
        (GERMAN, "latin-1", "utf-8"),
        (GERMAN, "latin-1", "ISO-8859-1"),
        (GERMAN, "latin-1", None),
        (GERMAN, "utf-16", None),
        (GERMAN, "utf-16-le", None),
        (GERMAN, "utf-16-be", "utf-16be"),
        (GERMAN, "utf-32", None),
        (GERMAN, "utf-32-be", None),
        (GERMAN, "utf-8-sig", "windows-1252"),
        ("<p>“quoted” – €5</p>", "cp1252", "iso-8859-1"),  # the label of the standard means windows-1252
        (RUSSIAN, "cp1251", None),
        (RUSSIAN, "cp1251", "windows-1251"),
        (RUSSIAN, "koi8-r", None),
        (RUSSIAN, "cp866", "ibm866"),
        (RUSSIAN, "mac_cyrillic", "x-mac-cyrillic"),
        (JAPANESE, "shift_jis", None),
        (JAPANESE, "shift_jis", "x-sjis"),
        (JAPANESE, "euc_jp", None),
        (JAPANESE, "iso2022_jp", None),
        (JAPANESE, "cp932", "Shift_JIS"),
        (CHINESE, "gbk", "gb2312"),
        (CHINESE, "gb18030", None),
        (CHINESE, "hz", None),
        (KOREAN, "euc_kr", None),
        (KOREAN, "cp949", "ks_c_5601-1987"),
        (KOREAN, "johab", None),
        ("", "utf-8", None),
        ("plain", "ascii", "us-ascii"),
    ],
)
def test_decodes(text: str, codec: str, label: str | None):
    assert decode(text.encode(codec), label) == text


@pytest.mark.parametrize(
    "declaration",
    [
        "<meta charset=windows-1251>",
        '<?xml version="1.0" encoding="windows-1251"?>',
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
    ],
)
def test_declared_in_the_page(declaration: str):
    text = declaration + "<p>Да</p>"  # too short to be detected
    assert decode(text.encode("cp1251"), None) == text
    assert decode(text.encode("cp1251"), "unknown-8bit") == text


def test_header_wins_over_meta():
    text = '<meta charset="utf-8">' + GERMAN
    assert decode(text.encode("latin-1"), "windows-1252") == text


def test_meta_wins_over_a_default_header():
    text = '<meta charset="windows-1251">' + RUSSIAN
    assert decode(text.encode("cp1251"), "iso-8859-1") == text


def test_damaged_utf8():
    assert decode(GERMAN.encode() + b"\xe2\x82 end", "utf-8") == GERMAN + "� end"
    assert decode(GERMAN.encode() + GERMAN.encode("latin-1"), None) == GERMAN * 2
    assert decode(b"smile \xed\xa0\xbd\xed\xb8\x80 " * 5, "utf-8") == "smile \U0001f600 " * 5


def test_unknown_encoding_is_an_error_not_rubbish():
    body = bytes(random.Random(3).choices(range(0x80, 0x100), k=3000))
    with pytest.raises(Unextractable) as error:
        decode(body, None)
    assert error.value.reason == "decode"


def test_never_raises_anything_else_and_is_storable():
    """No NULs, no lone surrogates, whatever the bytes; and the short cut for parsers gives the same."""
    dice = random.Random(1)
    texts = [t.encode(c) for t in (GERMAN, RUSSIAN) for c in ("utf-8", "utf-16", "cp1251" if t is RUSSIAN else "latin-1")]
    labels = [None, "utf-8", "utf-16", "utf-32", "utf-7", "gbk", "iso-2022-jp", "iso-2022-kr", "hz-gb-2312", "shift_jis",
              "idna", "punycode", "base64", "rot13", "", " ", "x" * 300, "unicode_escape", "euc-tw", "a\x00b"]  # fmt: skip
    for k in range(600):
        noise = [dice.randbytes(dice.randrange(200)), b"\x00\xd8" * 5, b"\x1b$B" + dice.randbytes(9)]
        body = bytearray(dice.choice([*texts, *noise]))
        for _ in range(dice.randrange(4)):
            if body:
                body[dice.randrange(len(body))] = dice.randrange(256)
        body, label = bytes(body), labels[k % len(labels)]
        try:
            text = decode(body, label)
        except Unextractable as error:
            assert error.reason == "decode"
            with pytest.raises(Unextractable):
                to_utf8(body, label)
            continue
        assert "\x00" not in text
        assert to_utf8(body, label) == text.encode()


def test_short_cut_takes_the_bytes_as_they_are():
    body = GERMAN.encode()
    assert to_utf8(body, "iso-8859-1") is body
    assert to_utf8(b"\x00<p>x", None) == b"<p>x"
    assert to_utf8(codecs.BOM_UTF8 + body, None) == body


CZECH = "<p>Příliš žluťoučký kůň úpěl ďábelské ódy, řekl žák, a všichni věděli, že šťastně přežije.</p>" * 3
GREEK = "<p>Ένα παράδειγμα: ο Άρης είπε «όχι» στην Αθήνα, και μετά έφυγε για το σπίτι του. Άλλα λόγια.</p>" * 3


@pytest.mark.parametrize(
    ("text", "codec", "label"),
    [
        (RUSSIAN, "cp1251", "iso-8859-1"),
        (RUSSIAN * 2, "koi8-r", "windows-1251"),
        (RUSSIAN, "cp866", "windows-1251"),
        (KOREAN, "euc_kr", "iso-8859-1"),
        (KOREAN, "euc_kr", "windows-1251"),
        (KOREAN, "johab", "iso-8859-1"),
        (JAPANESE, "euc_jp", "windows-1252"),
        (JAPANESE, "shift_jis", "iso-8859-2"),
        (CHINESE, "gb18030", "iso-8859-1"),
        (GERMAN * 2, "latin-1", "windows-1251"),
        (CZECH, "iso8859-2", "iso-8859-1"),
        (CZECH, "cp1250", "iso-8859-2"),
        (GREEK, "iso8859-7", "iso-8859-1"),
    ],
)
def test_a_label_that_the_bytes_contradict(text: str, codec: str, label: str):
    assert decode(text.encode(codec), label) == text
    assert decode(f"<meta charset={label}>".encode() + text.encode(codec), None).endswith(text)


@pytest.mark.parametrize("text", ["<p>Käse</p>", GERMAN, "<p>“Quoted” – fünf…</p>" * 9, "<p>….</p>", "<p>naïve café</p>" * 9])
def test_western_when_nothing_else_is_said(text: str):
    """Where there are few letters, detectors find many other encodings in them."""
    assert decode(text.encode("cp1252"), None) == text


@pytest.mark.parametrize(
    ("text", "codec"), [(CZECH, "cp1250"), (CZECH, "iso8859-2"), (GREEK, "cp1253"), (GREEK, "iso8859-7"), (RUSSIAN, "cp855")]
)
def test_sisters_are_told_apart(text: str, codec: str):
    assert decode(text.encode(codec), None) == text


def test_no_encoding_at_all():
    """Whatever a label of a Latin script would make of it."""
    body = bytes(random.Random(3).choices(range(0x80, 0x100), k=3000))
    for label in ("iso-8859-1", "windows-1252", "shift_jis", "euc-tw"):
        with pytest.raises(Unextractable):
            decode(body, label)


# What Python calls the encodings of the shared set, where the name alone does not tell.
PYTHON = {"IBM855": "cp855", "IBM866": "cp866", "MacCyrillic": "mac_cyrillic", "TIS-620": "cp874", "SHIFT_JIS": "cp932",
          "GB2312": "gb18030", "Big5": "cp950", "EUC-KR": "cp949", "iso-8859-1": "cp1252"}  # fmt: skip


WRONG = ("iso-8859-1", "windows-1251", "shift_jis", "gb2312", "koi8-r", "big5", "euc-kr", "iso-8859-2")


def shared_texts(folder):
    """(encoding, label, bytes, text) of the shared set; no text where Python has no codec."""
    truth = {(row := json.loads(line))["url"]: row for line in (folder / "charsets.expect.jsonl").open()}
    for page in read_archive((folder / "charsets.warc.gz").open("rb"), max_body_bytes=16 << 20):
        assert isinstance(page, Page)
        encoding = truth[page.url]["true_encoding"]
        try:
            text = page.body.decode(PYTHON.get(encoding, encoding)).replace("\x00", "").lstrip("\ufeff")
        except LookupError:
            text = None
        yield encoding, page.charset, page.body, text


def test_shared_charsets(shared_data):
    """All of them are exact, without a label, with the right one in the header, and with UTF-8 there."""
    for encoding, label, body, expected in shared_texts(shared_data / "nasty"):
        assert label is None
        for charset in (None, encoding, "utf-8"):
            if expected is None:
                assert encoding == "EUC-TW"
                with pytest.raises(Unextractable):
                    decode(body, charset)
            else:
                assert decode(body, charset) == expected, (encoding, charset)


def test_shared_charsets_with_wrong_labels(shared_data):
    right = total = 0
    for _, _, body, expected in shared_texts(shared_data / "nasty"):
        for charset in WRONG:
            total += 1
            try:
                right += decode(body, charset) == expected
            except Unextractable:
                right += expected is None
    assert right / total > 0.97


LEGACY = {f"windows-{k}": f"cp{k}" for k in range(1250, 1259)}
LEGACY |= {f"iso-8859-{k}": f"iso8859-{k}" for k in (2, 5, 7, 16)}
LEGACY |= {
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "ibm866": "cp866",
    "x-mac-cyrillic": "mac_cyrillic",
    "macintosh": "mac_roman",
}
LEGACY |= {"gbk": "gbk", "big5": "cp950", "shift_jis": "cp932", "euc-jp": "euc_jp", "euc-kr": "cp949", "windows-874": "cp874"}


def test_labels_are_believed_in_hundreds_of_languages(shared_data):
    """Every language in every encoding that can hold it: where labels are right, what the detector thinks must not matter."""
    tried, wrong = 0, []
    with gzip.open(shared_data / "misc" / "langid_udhr2.jsonl.gz") as lines:
        for line in lines:
            row = json.loads(line)
            text = unicodedata.normalize("NFC", row["text"])[500:3000]
            text = re.sub("[\x00\x80-\x9f\ufeff]", "", text)
            for label, codec in LEGACY.items():
                try:
                    body = text.encode(codec)
                    if body.isascii() or body.decode(codec) != text:
                        continue
                except UnicodeError:
                    continue
                tried += 1
                if decode(body, label) != text or not decode(f"<meta charset={label}>".encode() + body, None).endswith(text):
                    wrong.append((row["code"], label))
    assert tried > 500
    assert len(wrong) <= tried // 500, wrong
