"""The archive reader: healthy files in every packing, then one kind of damage at a time, then the shared nasty files."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc
import zlib
from collections import Counter
from functools import partial

import pytest
import zstandard

from curate.errors import SourceError
from curate.sources.warc import Other, Page, Reject, read_archive

LIMIT = 1 << 20
gz = partial(gzip.compress, mtime=0)  # without the clock in it


def http(body: bytes, *fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    lines = [status, *(fields or ("Content-Type: text/html; charset=utf-8",))]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def record(
    block: bytes, n: int = 0, kind: str = "response", content_type: str = "application/http; msgtype=response", **more: str
) -> bytes:
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{n}>",
        "WARC-Target-URI": f"http://a.test/{n}",
        "WARC-Date": "2026-01-01T00:00:00Z",
        "Content-Type": content_type,
        "Content-Length": str(len(block)),
    }
    fields.update({k.replace("_", "-"): v for k, v in more.items()})
    head = "WARC/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    return head.encode() + b"\r\n" + block + b"\r\n\r\n"


def page(n: int, size: int = 2000) -> bytes:
    words = random.Random(n).choices("the quick brown fox jumps over a lazy dog again and again".split(), k=size // 5)
    return record(http(b"<html><body><p>" + " ".join(words).encode() + b" %d</p></body></html>" % n), n)


def read(data: bytes, limit: int = LIMIT, stream: type[io.BytesIO] = io.BytesIO) -> list:
    return list(read_archive(stream(data), max_body_bytes=limit))


def ids(events: list) -> list[str]:
    return [e.id for e in events if isinstance(e, Page)]


def reasons(events: list) -> list[str]:
    return [e.reason for e in events if isinstance(e, Reject)]


def one(block: bytes, **more) -> Page | Reject | Other:
    (event,) = read(gz(record(block, **more)))
    return event


class Trickle(io.BytesIO):
    """A stream that gives few bytes at a time and cannot be rewound, as a socket does."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 777))

    def seek(self, *_):
        raise io.UnsupportedOperation

    tell = seek  # type: ignore[assignment]


# ------------------------------------------------------------------------------------------------ packing


def zst(data: bytes, **options) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True, **options).compress(data)


def sliced(data: bytes, size: int, pack) -> bytes:
    return b"".join(pack(data[k : k + size]) for k in range(0, len(data), size))


PAGES = [page(n) for n in range(7)]
WHOLE = b"".join(PAGES)
PACKINGS = {
    "plain": WHOLE,
    "gzip": b"".join(map(gz, PAGES)),
    "one gzip member": gz(WHOLE),
    "three in a member": gz(b"".join(PAGES[:3])) + gz(b"".join(PAGES[3:])),
    "two, then one each": gz(PAGES[0]) + gz(b"".join(PAGES[1:3])) + b"".join(map(gz, PAGES[3:])),
    "members cut anywhere": sliced(WHOLE, 1500, gz),
    "empty members between": gz(b"").join(map(gz, PAGES)),
    "zstd": b"".join(map(zst, PAGES)),
    "one zstd frame": zst(WHOLE),
    "frames cut anywhere": sliced(WHOLE, 1500, zst),
    "skippable zstd frame": b"\x50\x2a\x4d\x18\x05\x00\x00\x00abcde" + b"".join(map(zst, PAGES)),
    "stored gzip": b"".join(gz(p, 0) for p in PAGES),
}


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_packings(name: str, stream: type[io.BytesIO]):
    events = read(PACKINGS[name], stream=stream)
    assert ids(events) == [f"<urn:uuid:{n}>" for n in range(7)]
    assert [e.body for e in events] == [p.partition(b"utf-8\r\n\r\n")[2][:-4] for p in PAGES]
    addresses = [e.record for e in events]
    assert len(set(addresses)) == 7
    if name in ("plain", "one gzip member", "one zstd frame"):
        assert addresses == [WHOLE.index(p) for p in PAGES]
    elif name == "gzip":
        assert addresses == [PACKINGS[name].index(gz(p)) for p in PAGES]


def test_zstd_dictionary():
    samples = [page(n) for n in range(200)]
    dictionary = zstandard.train_dictionary(4096, samples)
    content = zstandard.ZstdCompressor().compress(dictionary.as_bytes())
    head = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
    data = head + b"".join(zst(p, dict_data=dictionary) for p in PAGES)
    assert len(ids(read(data))) == 7


def test_empty_files():
    assert read(b"") == []
    assert read(gz(b"")) == []
    assert read(b"\r\n\r\n") == []


@pytest.mark.parametrize(
    "data",
    [
        b"<html>a page</html>",
        gz(b"<html>a page</html>"),
        b"PK\x03\x04" + b"\x00" * 100,
        bytes(range(256)) * 50,
        b"\x1f\x8b\x08" + b"\x99" * 200,
        b"\x1f\x8b",
        zst(b"hello world " * 1000),
        gz(b"x" * (3 << 20)),
    ],
)
def test_no_archive(data: bytes):
    with pytest.raises(SourceError) as error:
        read(data)
    assert "\n" not in str(error.value)


def test_all_fields():
    block = http(b"<p>x</p>", 'Content-Type: TEXT/HTML; Charset="ISO-8859-1"', "Content-Language: de-DE, en")
    event = one(block, WARC_Target_URI="<http://a.test/ä b>", WARC_Date="2024-05-31T03:16:46+02:00")
    assert event == Page(
        0, "<urn:uuid:0>", "http://a.test/ä b", "2024-05-31T01:16:46Z", "text/html", "ISO-8859-1", "de-DE", False, b"<p>x</p>"
    )
    assert one(block, WARC_Date="yesterday").date is None
    assert one(block, WARC_Target_URI="http://a.test/" + "x" * 65_000).url.endswith("xxx")


def test_conversion_and_resource():
    text = one(b"some text", kind="conversion", content_type="text/plain", WARC_Identified_Content_Language="spa,eng")
    assert (text.is_text, text.media_type, text.language, text.body) == (True, "text/plain", "spa", b"some text")
    html = one(b"<html><p>x", kind="resource", content_type="text/html; charset=koi8-r")
    assert (html.is_text, html.media_type, html.charset) == (False, "text/html", "koi8-r")


@pytest.mark.parametrize("kind", ["request", "metadata", "warcinfo", "revisit", "continuation", "frobnicate"])
def test_other_types(kind: str):
    assert one(http(b"x"), kind=kind) == Other(0, kind)


def test_dns_is_no_page():
    assert one(b"20260101\nx", content_type="text/dns", WARC_Target_URI="dns:x.test") == Other(0, "dns")


def test_line_feeds_only():
    data = b"".join(p.replace(b"\r\n", b"\n").replace(b"Content-Length: ", b"Content-Length:") for p in PAGES)
    # The lengths still count the carriage returns of the HTTP header, so give those back.
    data = data.replace(b"HTTP/1.1 200 OK\nContent-Type: text/html; charset=utf-8\n\n", http(b""))
    assert len(ids(read(data))) == 7
    assert len(ids(read(gz(data)))) == 7


ARC_HEAD = b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain %d\n"
ARC_1 = b"1 1 InternetArchive\nURL IP-address Archive-date Content-type Archive-length\n"
ARC_2 = (
    b"2 0 InternetArchive\nURL IP-address Archive-date Content-type Result-code Checksum Location Offset Filename"
    b" Archive-length\n"
)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("pack", [bytes, gz])
def test_arc(version: int, pack):
    block = http(b"<html>arc")
    fields = b"text/html 200 abc - 12 x.arc" if version == 2 else b"text/html"
    head = (ARC_2 if version == 2 else ARC_1).strip() + b"\n"
    parts = [ARC_HEAD % len(head) + head + b"\n"]
    for n in range(3):
        parts.append(b"http://a.test/%d 1.2.3.4 20080430204826 %s %d\n" % (n, fields, len(block)) + block + b"\n")
    first, *pages = read(b"".join(map(pack, parts)))
    assert first == Other(0, "filedesc")
    assert [(p.url, p.date, p.id, p.body) for p in pages] == [
        (f"http://a.test/{n}", "2008-04-30T20:48:26Z", None, b"<html>arc") for n in range(3)
    ]


# ------------------------------------------------------------------------------------------------ what is not passed on


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (http(b"<html>x", status="HTTP/1.1 404 Not Found"), "not_2xx"),
        (http(b"", status="HTTP/1.1 301 Moved"), "not_2xx"),
        (http(b"x", "Content-Type: image/png"), "media_type"),
        (http(b"body {}", "Content-Type: text/css"), "media_type"),
        (http(b"%PDF-1.4 ..."), "media_type"),
        (http(random.Random(1).randbytes(5000)), "media_type"),
        (http(b"x" * (LIMIT + 1)), "too_large"),
        (http(b"x" * (LIMIT + (1 << 19))), "too_large"),
        (http(b""), "empty_text"),
        (http(b" \r\n"), "empty_text"),
        (b"", "empty_text"),
        (b"<html>no header", "quarantine.http"),
        (b"ICY 200 OK\r\n\r\nx", "quarantine.http"),
        (http(gz(b"x" * 5000)[:-20], "Content-Encoding: gzip"), "quarantine.encoding"),
        (http(b"\x1f\x8b\x08" + b"\xff" * 50, "Content-Encoding: gzip"), "quarantine.encoding"),
        (http(b"\xff\xfe\x00\x01 rubbish", "Content-Encoding: deflate"), "quarantine.encoding"),
        (http(b"\x00\x01\x02", "Content-Encoding: sdch"), "quarantine.encoding"),
        (http(gz(b"<p>" * LIMIT), "Content-Encoding: gzip"), "too_large"),
        (http(zst(b"<p>" * LIMIT), "Content-Encoding: zstd"), "too_large"),
    ],
)
def test_rejects(block: bytes, reason: str):
    event = one(block, n=5)
    assert isinstance(event, Reject)
    assert (event.reason, event.id, event.url) == (reason, "<urn:uuid:5>", "http://a.test/5")
    assert event.detail and "\n" not in event.detail


RAW = zlib.compressobj(wbits=-15)
DEFLATED = RAW.compress(b"<html>hello") + RAW.flush()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (gz(b"<html>hello"), ["Content-Encoding: gzip"]),
        (gz(b"<html>") + gz(b"hello"), ["Content-Encoding: x-gzip"]),
        (gz(gz(b"<html>hello")), ["Content-Encoding: gzip, gzip"]),
        (zlib.compress(b"<html>hello"), ["Content-Encoding: deflate"]),
        (DEFLATED, ["Content-Encoding: deflate"]),
        (zst(b"<html>hello"), ["Content-Encoding: zstd"]),
        (b"<html>hello", ["Content-Encoding: gzip"]),
        (b"<html>hello", ["Content-Encoding: deflate"]),
        (b"<html>hello", ["Content-Encoding: UTF-8"]),
        (b"6\r\n<html>\r\n5;x=y\r\nhello\r\n0\r\n\r\n", ["Transfer-Encoding: chunked"]),
        (b"6\r\n<html>\r\n5\r\nhello", ["Transfer-Encoding: chunked"]),
        (b"6\r\n<html>\r\nfffff\r\nhello", ["Transfer-Encoding: chunked"]),
        (b"<html>hello", ["Transfer-Encoding: chunked"]),
        (b"b\r\n" + zlib.compress(b"<html>hello")[:11] + b"\r\n" + b"%x\r\n" % (len(zlib.compress(b"<html>hello")) - 11)
         + zlib.compress(b"<html>hello")[11:] + b"\r\n0\r\n\r\n", ["Transfer-Encoding: chunked", "Content-Encoding: deflate"]),
    ],
)  # fmt: skip
def test_encodings(body: bytes, fields: list[str]):
    event = one(http(body, "Content-Type: text/html", *fields))
    assert isinstance(event, Page), event
    assert event.body == b"<html>hello"


def test_brotli():
    brotli = pytest.importorskip("brotli")
    page = one(http(brotli.compress(b"<html>hello"), "Content-Type: text/html", "Content-Encoding: br"))
    assert page.body == b"<html>hello"
    cut = one(http(brotli.compress(b"<html>" + random.Random(1).randbytes(5000))[:-9], "Content-Encoding: br"))
    assert cut.reason == "quarantine.encoding"
    bomb = one(http(brotli.compress(b"<p>" * (8 << 20), quality=5), "Content-Encoding: br"))
    assert bomb.reason == "too_large"


def test_without_brotli(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "brotli", None)
    event = one(http(b"\x0b\x02\x80hello\x03", "Content-Encoding: br"))
    assert event.reason == "quarantine.encoding" and "brotli" in event.detail


@pytest.mark.parametrize(
    ("body", "declared", "media_type"),
    [
        (b"<!doctype html><p>x", None, "text/html"),
        (b"hello there", None, "text/plain"),
        (b"<!-- c --> <html>x", "application/octet-stream", "text/html"),
        (b"<html>x", "text/plain", "text/html"),
        (b"<div>an example</div>", "text/plain", "text/plain"),
        ("<html>wide".encode("utf-16"), "text/html", "text/html"),
        ("<html>wide words".encode("utf-16-be"), "text/html", "text/html"),
        ("<html>wide words".encode("utf-16-le"), None, "text/html"),
        ("<html>wide words".encode("utf-32-le"), "text/html", "text/html"),
        ("日本語のページ".encode("iso2022_jp") * 20, "text/html", "text/html"),
    ],
)
def test_media_type(body: bytes, declared: str | None, media_type: str):
    event = one(http(body, f"Content-Type: {declared}" if declared else "Server: x"))
    assert isinstance(event, Page), event
    assert event.media_type == media_type


def test_interim_response():
    event = one(b"HTTP/1.1 100 Continue\r\n\r\n" + http(b"<html>x"))
    assert isinstance(event, Page) and event.body == b"<html>x"


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("pack", [gz, zst])
def test_damaged_member(pack):
    members = [pack(p) for p in PAGES]
    for k, member in enumerate(members):
        broken = bytearray(member)
        for at in range(len(broken) // 2, len(broken) // 2 + 16):
            broken[at] ^= 0xFF
        events = read(b"".join([*members[:k], bytes(broken), *members[k + 1 :]]))
        assert ids(events) == [f"<urn:uuid:{n}>" for n in range(7) if n != k]
        assert reasons(events) == ["quarantine.damaged"]
        (reject,) = [e for e in events if isinstance(e, Reject)]
        assert reject.record == sum(map(len, members[:k]))


def test_wrong_checksum():
    members = [gz(p) for p in PAGES]
    members[2] = members[2][:-8] + b"\0\0\0\0" + members[2][-4:]
    events = read(b"".join(members))
    assert ids(events) == [f"<urn:uuid:{n}>" for n in (0, 1, 3, 4, 5, 6)]
    assert reasons(events) == ["quarantine.damaged"]


@pytest.mark.parametrize("name", ["gzip", "zstd", "plain", "one gzip member", "one zstd frame"])
def test_cut_anywhere(name: str):
    """However much of the end is missing, all that is complete comes out and nothing that is not."""
    whole = PACKINGS[name]
    bodies = {f"<urn:uuid:{n}>": e.body for n, e in enumerate(read(whole))}
    for size in range(len(whole) - 1, 300, -97):
        try:
            events = read(whole[:size])
        except SourceError:
            assert size < len(zst(PAGES[0])) or "one" in name  # not a line of it inflates: who could tell what it was
            continue
        assert all(e.body == bodies[e.id] for e in events if isinstance(e, Page))
        assert len(reasons(events)) <= 1
        assert ids(events) == [f"<urn:uuid:{n}>" for n in range(len(ids(events)))]
        if name in ("gzip", "zstd"):
            ends = [whole.index(gz(p) if name == "gzip" else zst(p)) for p in PAGES[1:]] + [len(whole)]
            assert len(ids(events)) == sum(end <= size for end in ends)


def test_garbage_between_members():
    members = [gz(p) for p in PAGES]
    junk = b"junk \x1f\x8b\x08 that looks like a member" + bytes(50)
    events = read(junk.join(members) + junk)
    assert len(ids(events)) == 7
    assert reasons(events) == ["quarantine.garbage"] * 7
    assert len({e.record for e in events}) == 14
    assert len(ids(read(junk + b"".join(members)))) == 7


def test_garbage_between_records():
    events = read((b"junk and more\r\nWARC/ but no record\r\n").join(PAGES))
    assert len(ids(events)) == 7
    assert reasons(events) == ["quarantine.garbage"] * 6


@pytest.mark.parametrize("pack", [gz, bytes])
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (lambda n: b"%d" % n, lambda n: b"%d" % (n + 500), "quarantine.length"),
        (lambda n: b"%d" % n, lambda n: b"%d" % (n // 2), "quarantine.length"),
        (lambda n: b"%d" % n, lambda n: b"abc", "quarantine.header"),
        (lambda n: b"%d" % n, lambda n: b"-1", "quarantine.header"),
        (lambda n: b"Content-Length: %d\r\n" % n, lambda n: b"", "quarantine.header"),
        (lambda n: b"WARC-Type: response\r\n", lambda n: b"", "quarantine.header"),
    ],
)
def test_bad_header(pack, old, new, reason):
    bad = record(http(b"<html>" + b"words " * 300), 9)
    length = int(bad.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    broken = bad.replace(old(length), new(length), 1) if old(length).startswith((b"C", b"W")) else bad.replace(
        b"Content-Length: " + old(length), b"Content-Length: " + new(length), 1
    )  # fmt: skip
    events = read(b"".join(map(pack, [PAGES[0], broken, PAGES[1], PAGES[2]])))
    assert ids(events) == ["<urn:uuid:0>", "<urn:uuid:1>", "<urn:uuid:2>"]
    assert reasons(events) == [reason]


def test_last_length_too_long():
    bad = page(9).replace(b"Content-Length: ", b"Content-Length: 9")
    assert reasons(read(gz(PAGES[0]) + gz(bad))) == ["quarantine.length"]
    assert reasons(read(PAGES[0] + bad)) == ["quarantine.truncated"]


def test_no_final_newlines():
    for pack in (bytes, gz):
        assert len(ids(read(pack(PAGES[0]) + pack(PAGES[1][:-4])))) == 2


def test_damage_in_one_member_for_all():
    data = bytearray(PACKINGS["one gzip member"])
    for at in range(len(data) // 2, len(data) // 2 + 8):
        data[at] ^= 0xFF
    events = read(bytes(data))
    assert reasons(events)[-1] == "quarantine.damaged"
    assert 2 <= len(ids(events)) < 7
    assert ids(events)[:2] == ["<urn:uuid:0>", "<urn:uuid:1>"]


def test_random_damage_never_raises():
    """Any bytes changed, removed or put in: no error, and no page that was not there."""
    bodies = {e.body for e in read(WHOLE)}
    dice = random.Random(7)
    for name in ("gzip", "zstd", "members cut anywhere"):
        for _ in range(150):
            data = bytearray(PACKINGS[name])
            for _ in range(dice.randint(1, 3)):
                at, size = dice.randrange(len(data)), dice.randint(1, 40)
                data[at : at + size] = dice.randbytes(dice.choice([0, size, 2 * size]))
            try:
                events = read(bytes(data))
            except SourceError:
                continue
            if name != "members cut anywhere":  # else a record can be complete before its member proves to be damaged
                assert {e.body for e in events if isinstance(e, Page)} <= bodies
            assert events == read(bytes(data))


@pytest.mark.parametrize("pack", [gz, zst, bytes])
def test_memory_is_bounded(pack):
    huge = record(http(b"<p>" + b"a lot of words " * (3 << 20)), 1)  # 45 MiB
    data = pack(PAGES[0]) + pack(huge) + pack(PAGES[2])
    tracemalloc.start()
    events = read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids(events) == ["<urn:uuid:0>", "<urn:uuid:2>"]
    assert reasons(events) == ["too_large"]
    assert peak < 24 << 20


# ------------------------------------------------------------------------------------------------ shared files


def test_nasty_files(shared_data):
    for expected in json.loads((shared_data / "nasty" / "expectations.json").read_text()):
        path = shared_data / "nasty" / expected["file"]
        try:
            events = list(read_archive(path.open("rb"), max_body_bytes=16 << 20))
        except SourceError:
            assert path.name in ("not-a-warc.warc.gz", "3p-double-single-inflate-error.gz")
            continue
        assert len({e.record for e in events}) == len(events), path.name
        if expected["good_responses"] is not None:
            assert sum(isinstance(e, Page) for e in events) == expected["good_responses"], path.name


NASTY_BODIES = {
    "ce-gzip-truncated": "quarantine.encoding", "ce-gzip-bomb": "too_large", "huge-25MB": "too_large",
    "png-as-html": "media_type", "pdf-as-html": "media_type", "random-binary": "media_type", "control-chars": "media_type",
    "status-404": "not_2xx", "status-301": "not_2xx", "no-http-header": "quarantine.http",
    "http09-status-garbage": "quarantine.http", "http-header-only": "empty_text", "empty-body": "empty_text",
    "zero-length-record": "empty_text", "revisit": "revisit", "dns": "dns", "request": "request", "metadata": "metadata",
    "unknown-type": "frobnicate",
}  # fmt: skip


def test_nasty_bodies(shared_data):
    pytest.importorskip("brotli")
    cases = [json.loads(line)["case"] for line in (shared_data / "nasty" / "bodies.expect.jsonl").open()]
    events = list(read_archive((shared_data / "nasty" / "bodies.warc.gz").open("rb"), max_body_bytes=16 << 20))
    found = [e.reason if isinstance(e, Reject) else e.kind if isinstance(e, Other) else "page" for e in events]
    assert dict(zip(cases, found, strict=True)) == {case: NASTY_BODIES.get(case, "page") for case in cases}
    plain = next(e.body for c, e in zip(cases, events, strict=True) if c == "header-says-chunked-body-is-not")
    for case, event in zip(cases, events, strict=True):
        if case in ("http-chunked", "ce-gzip", "ce-gzip-but-plain", "ce-br", "ce-deflate-raw"):
            assert event.body == plain, case


def test_real_archives(shared_data):
    """An ARC and a WARC of the same crawl give the same pages."""
    found = {}
    for name in ("aut-example.arc.gz", "aut-example.warc.gz"):
        events = list(read_archive((shared_data / "crawl" / "real" / name).open("rb"), max_body_bytes=16 << 20))
        found[name] = Counter((e.url, e.date, e.media_type, zlib.crc32(e.body)) for e in events if isinstance(e, Page))
        assert not [e for e in events if isinstance(e, Reject) and e.reason.startswith("quarantine")]
    assert found["aut-example.arc.gz"] == found["aut-example.warc.gz"]
    assert found["aut-example.arc.gz"].total() == 138
