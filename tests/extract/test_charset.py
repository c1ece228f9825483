"""Decoding: labels, marks, bytes; and what is never in the result."""

from __future__ import annotations

import codecs
import json
import random

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


# What Python calls the encodings of the shared set, where the name alone does not tell.
PYTHON = {"IBM855": "cp855", "IBM866": "cp866", "MacCyrillic": "mac_cyrillic", "TIS-620": "cp874", "SHIFT_JIS": "cp932",
          "GB2312": "gb18030", "Big5": "cp950", "EUC-KR": "cp949", "iso-8859-1": "cp1252"}  # fmt: skip


def test_shared_charsets(shared_data):
    folder = shared_data / "nasty"
    truth = {(row := json.loads(line))["url"]: row for line in (folder / "charsets.expect.jsonl").open()}
    right, quarantined, near = 0, [], []
    for page in read_archive((folder / "charsets.warc.gz").open("rb"), max_body_bytes=16 << 20):
        assert isinstance(page, Page)
        encoding = truth[page.url]["true_encoding"]
        try:
            text = decode(page.body, page.charset)
        except Unextractable:
            quarantined.append(encoding)
            continue
        expected = page.body.decode(PYTHON.get(encoding, encoding)).replace("\x00", "").lstrip("\ufeff")
        right += text == expected
        if text != expected:
            assert len(text) == len(expected)
            near.append(sum(a == b for a, b in zip(text, expected, strict=True)) / len(text))
    assert right >= 219
    assert quarantined == ["EUC-TW"]  # Python has no codec for it
    assert all(share > 0.99 for share in near), near  # sister encodings that differ in a letter or a quotation mark
