"""url_filter: every kind of list against a naive reading of URLs, and datatrove's filter on the same lists."""

import gzip
import ipaddress
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from curate.kernels import urls as kernels
from curate.stages.url_filter import UrlFilter


def reasons(given, /, **parameters):
    result = UrlFilter(**parameters)({"text": ["x"] * len(given), "url": pa.array(given, pa.string())})
    found = dict(zip(result.dropped["id"].to_pylist(), result.dropped["_reason"].to_pylist(), strict=True))
    return [(found.get(str(i)) or "").removeprefix("url_filter.") or None for i in range(len(given))]


@pytest.fixture
def listed(tmp_path):
    def write(name, *lines):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return (str(tmp_path / name),)

    return write


def test_a_domain_blocks_its_subdomains_in_every_way_to_write_a_url(listed):
    lines = "# comment|bad.example  # why|*.Wild.example|trailing.example.||bücher.example|93.184.216.34|2001:db8:0:0::1|com"
    domains = listed("domains.txt", *lines.split("|"))
    blocked = [
        "http://bad.example",
        "https://bad.example/",
        "bad.example/path",
        "//bad.example?x",
        "HTTPS://WWW.BAD.EXAMPLE:8443/a",
        "http://user:pa@ss@bad.example./#x",
        "ftp://a.b.c.bad.example",
        "  http://bad.example\n",
        "http://ba%64.example/",
        "http:\\\\bad.example\\a",
        "http://wild.example/",
        "http://x.wild.example/",
        "http://trailing.example/",
        "http://www.BÜCHER.example/",
        "http://xn--bcher-kva.example/",
        "http://bu\u0308cher。example/",
        "http://93.184.216.34:80/x",
        "http://[2001:DB8::1]:443/x",
        "http://com/",
    ]
    kept = [
        "http://notbad.example",
        "http://bad.example.org/",
        "http://example/bad.example",
        "http://a.org/?u=http://bad.example/",
        "http://bad.example@a.org/",
        "http://93.184.216.340/",
        "http://1.93.184.216.34/",
        "http://[2001:db8::2]/",
        "http://x.com/",
        "http:///",
        "/relative",
        "ex%2fbad.example",
        "\x00",
    ]
    assert reasons(blocked + kept, domains=domains) == ["domain"] * len(blocked) + [None] * len(kept)


def test_a_hosts_file(listed):
    lines = [
        "127.0.0.1 localhost",
        "::1\tlocalhost ip6-localhost",
        "0.0.0.0 ads.example  track.example # both",
        "fe80::1%lo0 x",
    ]
    assert reasons(["http://a.ads.example/", "http://track.example", "http://b.example"], domains=listed("h", *lines[:3])) == [
        "domain", "domain", None,
    ]  # fmt: skip
    with pytest.raises(RecipeError, match=r"h2:4: 'fe80::1%lo0 x' is no domain"):
        reasons(["http://a"], domains=listed("h2", *lines))


def test_urls_and_beginnings(listed):
    urls = listed(
        "urls.txt", "http://a.example/one?x=1", "b.example", "c.example/~spam/*", "https://D.example:8080/p", "münze.example/*"
    )
    cases = {
        "https://A.example:443/one?x=1#part": "url",
        "http://a.example:/one?x=1": "url",
        "http://a.example/one?x=12": None,
        "http://a.example/one": None,
        "http://a.example/One?x=1": None,
        "http://www.a.example/one?x=1": None,
        "http://a.example:81/one?x=1": None,
        "http://b.example/": "url",
        "http://b.example#top": "url",
        "http://b.example?": None,
        "http://c.example/~spam/": "url",
        "http://c.example/~spam/deep/er": "url",
        "http://c.example/~spam": None,
        "http://d.example:8080/p": "url",
        "http://xn--mnze-0ra.example": "url",
        "http://MÜNZE.example?q": "url",
    }
    assert dict(zip(cases, reasons(list(cases), urls=urls), strict=True)) == cases
    for wrong in ("example.com*", "http://", "two words"):
        with pytest.raises(RecipeError, match=r"wrong.txt:2: .* is not a URL"):
            reasons(["http://a"], urls=listed("wrong.txt", "#", wrong))


def test_words(listed):
    lists = {
        "words": listed("w", "spam", "Two-Words"),
        "soft_words": listed("s", "free", "win", "now"),
        "subwords": listed("b", "x-y z9"),
    }
    cases = {
        "http://a.example/spam": "word",
        "http://spam/": "word",
        "http://a.example/spams": None,
        "http://a.example/SPAM": None,
        "http://a.example/two-words": None,
        "http://a.example/twowords.html": "word",
        "http://a.example/free-win": "soft_words",
        "http://a.example/free-free-free": None,
        "http://a.example/win?b=now&free": "soft_words",
        "http://a.example/fre/X_Y/Z%9": "subword",
        "http://a.example/xyz9": "subword",
        "http://a.example/xy/z8": None,
        "http://a.example/wïn-now": None,
    }
    assert dict(zip(cases, reasons(list(cases), **lists), strict=True)) == cases
    assert reasons(["http://a/SPAM", "http://a/Free/WIN"], **lists, fold_case=True) == ["word", "soft_words"]
    assert reasons(["http://a/free/win", "http://a/free/win/now"], **lists, soft_word_threshold=3) == [None, "soft_words"]
    with pytest.raises(RecipeError, match=r"v:1: .* has no ASCII letter or digit"):
        reasons(["http://a"], words=listed("v", "слово"))


def test_tlds_the_allow_list_and_missing_urls(listed):
    urls = [
        "http://a.xxx/",
        "http://b.co.uk",
        "http://c.uk",
        "http://1.2.3.4/",
        "http://good.xxx/porn",
        "http://d.рф/",
        None,
        "",
    ]
    allow = listed("allow", "good.xxx")
    assert reasons(urls, block_tlds=("xxx", ".co.uk", "рф"), allow=allow, lists=("sample",)) == [
        "tld", "tld", None, None, None, "tld", None, None,
    ]  # fmt: skip
    assert reasons(urls, keep_tlds=("uk",), missing="drop") == ["tld", None, None, "tld", "tld", "tld", "no_url", "no_url"]


def test_lists_may_be_compressed_and_may_come_in_pieces(tmp_path, monkeypatch):
    from curate.stages import url_filter

    names = [f"host{i}.example" for i in range(500)]
    (tmp_path / "d.gz").write_bytes(gzip.compress("\r\n".join(["\ufeff" + names[0], *names[1:], "ü.example"]).encode()))
    pieces = url_filter._chunks
    monkeypatch.setattr(url_filter, "_chunks", lambda file: pieces(file, 100))
    urls = [f"http://{n}" for n in names] + ["http://ü.example", "http://host500.example"]
    assert reasons(urls, domains=(str(tmp_path / "d.gz"),)) == ["domain"] * 501 + [None]
    (tmp_path / "bad").write_text("\n".join([*names, "http://x.example/", "y"]))
    with pytest.raises(RecipeError, match=r"bad:501: 'http://x.example/' is no domain"):
        reasons(urls, domains=(str(tmp_path / "bad"),))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "nothing to block"),
        ({"lists": ("samples",)}, "did you mean 'sample'"),
        ({"block_tlds": ("http://x",)}, "block_tlds holds"),
        ({"lists": ("sample",), "missing": "no"}, "known: keep, drop"),
        ({"lists": ("sample",), "soft_word_threshold": 0}, "at least 1"),
    ],
)
def test_wrong_parameters(wrong, message):
    with pytest.raises(RecipeError, match=message):
        UrlFilter(**wrong)


def test_a_list_that_changes_is_another_stage(listed):
    from curate.plan import fingerprint_of

    stage = UrlFilter(domains=listed("d", "a.example"))
    before = fingerprint_of(stage, "")
    assert reasons(["http://b.example"], domains=stage.domains) == [None]
    listed("d", "bb.example", "b.example")
    assert fingerprint_of(stage, "") != before
    assert reasons(["http://b.example"], domains=stage.domains) == ["domain"]


# --------------------------------------------------------------------------------------------- against a naive reading

LABELS = ["a", "b", "com", "co", "uk", "spam", "x1", "bücher", "9", "BAD", "bad"]
HOSTS = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join) | st.sampled_from(
    ["1.2.3.4", "4.1.2.3", "[::1]"]
)
PATHS = st.text(st.sampled_from("/?#spamwinfree-_.ab:@ü%\\ "), max_size=12)
URLS = st.builds(
    "{}{}{}{}{}".format, st.sampled_from(["http://", "HTTPS://", "", "//", "x+y://u:p@"]), HOSTS,
    st.sampled_from(["", ".", ":80", ":8"]), st.sampled_from(["", "/", "?"]), PATHS,
)  # fmt: skip
ENTRIES = st.lists(HOSTS, max_size=4)
WORDS = st.lists(st.text("spamwinfreab", min_size=1, max_size=4), max_size=5)


def naive_host(url):
    url = url.strip("".join(map(chr, range(33))))
    url = re.sub(r"^(?:[A-Za-z0-9+.-]*:[/\\]{2}|//)", "", url)
    authority = re.split(r"[/\\?#]", url, maxsplit=1)[0].rpartition("@")[2]
    host = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
    host = re.sub(r"[.\x00-\x20]+$", "", host)
    return kernels.canonical_host(host).decode() if not host.isascii() or "%" in host or ":" in host else host.lower()


def naive_parents(host):
    if ":" in host or re.fullmatch(r"[0-9.]*", host):
        return [host]
    labels = host.split(".")
    return [host, *(".".join(labels[i:]) for i in range(1, len(labels) - 1))]


def naive(url, domains, allow, keep_tlds, words, soft, subwords):
    host = naive_host(url)
    if not host:
        return "tld" if keep_tlds else naive_words(url, words, soft, subwords)
    parents = naive_parents(host)
    if set(parents) & allow:
        return None
    if set(parents) & domains:
        return "domain"
    named = not (":" in host or re.fullmatch(r"[0-9.]*", host))
    if keep_tlds and not (named and any(("." + host).endswith("." + tld) for tld in keep_tlds)):
        return "tld"
    return naive_words(url, words, soft, subwords)


def naive_words(url, words, soft, subwords):
    split = set(re.split("[^a-zA-Z0-9]+", url))
    if split & words:
        return "word"
    if len(split & soft) >= 2:
        return "soft_words"
    squeezed = re.sub("[^a-zA-Z0-9]+", "", url).lower()
    return "subword" if any(word in squeezed for word in subwords) else None


@given(
    st.lists(URLS, min_size=1, max_size=20),
    ENTRIES,
    ENTRIES,
    st.lists(st.sampled_from(["com", "co.uk", "uk"])),
    WORDS,
    WORDS,
    WORDS,
)
def test_against_a_naive_filter(tmp_path_factory, urls, domains, allow, keep_tlds, words, soft, subwords):
    folder = tmp_path_factory.mktemp("lists")
    files = {}
    for name, lines in (("domains", domains), ("allow", allow), ("words", words), ("soft_words", soft), ("subwords", subwords)):
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
        files[name] = (str(folder / name),)
    said = reasons(urls, **files, keep_tlds=tuple(keep_tlds))
    listed = [{kernels.canonical_host(d).decode() for d in entries} for entries in (domains, allow)]
    expected = [naive(u, *listed, keep_tlds, set(words), set(soft), set(subwords)) if u else None for u in urls]
    assert said == expected


@given(st.lists(st.text("abc", min_size=1, max_size=5), max_size=8), st.text("abcABC-", max_size=30))
def test_the_automaton_finds_substrings(words, text):
    steps = kernels.automaton([w.encode() for w in words])
    state, met = 0, False
    for c in text.encode():
        if kernels._CLASS[c] != kernels._NO_CLASS:
            state = steps[abs(state) + kernels._CLASS[c]]
            met |= bool(state < 0)
    assert met == any(w in text.lower().replace("-", "") for w in words)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=200), st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_a_table_holds_what_was_put_into_it(values, others):
    table = kernels.table(np.array(values + values[:3], np.uint64))
    assert table.hashes.tolist() == sorted(set(values))
    for value in values + others:
        place = value >> int(table.shift)
        held = table.hashes[table.starts[place] : table.starts[place + 1]].tolist()
        assert (value in held) == (value in values)


@given(st.ip_addresses(v=6))
def test_ipv6_hosts_have_one_form(address):
    host = str(address)
    assert kernels.canonical_host(f"[{address.exploded.upper()}]") == kernels.canonical_host(host) == host.encode()
    assert ipaddress.ip_address(naive_host(f"http://[{address.exploded}]:80/")) == address


# --------------------------------------------------------------------------------------------- datatrove


def made_urls(shared_data):
    """URLs of the shared crawl, and the same with listed domains and words put in."""
    with gzip.open(shared_data / "crawl" / "pages.jsonl.gz") as lines:
        urls = [json.loads(line)["url"] for line in lines]
    rng = np.random.default_rng(0)
    hosts = [naive_host(u) for u in urls]
    listed = [h.removeprefix("www.") for h in rng.choice(sorted(set(hosts)), 300, replace=False).tolist()]
    words = ["spam", "casino", "free", "win", "cheap", "buypills", "2win"]
    for i in range(4000):
        url = urls[rng.integers(2000)]
        word = words[rng.integers(len(words))]
        more = words[rng.integers(len(words))]
        made = [
            f"{url}/{word}-{more}",
            f"http://{word}.{hosts[i % 2000]}/{more}",
            f"{url}?q={word}+{more}",
            f"{url}{word}{more}",
        ]
        urls.append(made[i % 4])
    return urls, listed, words


def test_datatrove_decides_the_same(shared_data, listed):
    pytest.importorskip("ahocorasick")
    pytest.importorskip("fasteners")
    tldextract = pytest.importorskip("tldextract")
    from datatrove.data import Document
    from datatrove.pipeline.filters import URLFilter

    urls, domains, words = made_urls(shared_data)
    theirs = URLFilter(
        extra_domains=domains, extra_urls=urls[5:2000:97], banned_words=words[:2], soft_banned_words=words[2:5],
        banned_subwords=words[5:], use_integrated_lists=False,
    )  # fmt: skip
    theirs.tldextractor = tldextract.TLDExtract(suffix_list_urls=())  # the list in the package: no download
    said = [theirs.filter(Document(text="x", id="0", metadata={"url": url})) for url in urls]
    ours = reasons(
        urls, domains=listed("d", *domains), urls=listed("u", *urls[5:2000:97]), words=listed("w", *words[:2]),
        soft_words=listed("s", *words[2:5]), subwords=listed("b", *words[5:]),
    )  # fmt: skip
    names = {"domain": "domain", "subdomain": "domain", "url": "url", "hard_blacklisted": "word",
             "soft_blacklisted": "soft_words", "blacklisted_subword": "subword"}  # fmt: skip
    differ = [(url, a, b) for url, a, b in zip(urls, said, ours, strict=True) if (None if a is True else names[a[1]]) != b]
    # where we look up a parent that lies between the host and the registered domain, and hosts that are IP addresses
    explained = [d for d in differ if d[2] == "domain" and set(naive_parents(naive_host(d[0]))) & set(domains)]
    assert differ == explained and len(differ) < 0.02 * len(urls)
    assert {None, *names.values()} == set(ours)


def test_the_lists_of_datatrove(listed):
    urls = ["https://www.pornhub.com/", "https://en.wikipedia.org/wiki/River", "http://a.example/cum/suck"]
    assert reasons(urls, lists=("datatrove",)) == ["domain", None, "soft_words"]
    assert reasons(urls, lists=("datatrove",), allow=listed("allow", "pornhub.com"))[0] is None
