"""pii: what counts as which kind, what is done with it, each detector against a naive reading, and marked-up text."""

import gzip
import ipaddress
import itertools
import json
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from curate.kernels import pii as kernels
from curate.stages.pii import _KINDS, Pii, _apart, _find

MARK = {"email": "<E>", "ip": "<I>", "phone": "<P>", "credit_card": "<C>", "iban": "<B>", "api_key": "<K>"}


def marked(text, *kinds):
    return Pii(kinds=kinds or _KINDS, replacements={k: MARK[k] for k in kinds or _KINDS})([text]).kept["text"][0].as_py()


def found(texts, *kinds):
    """(row, bytes, kind) of what is found."""
    raw = [None if t is None else t.encode() for t in texts]
    offsets, _ = __import__("curate.kernels.words", fromlist=["x"]).offsets_and_bytes(pa.array(raw, pa.binary()))
    return [
        (r, raw[r][a - offsets[r] : b - offsets[r]], _KINDS[k])
        for r, a, b, k in _find(pa.array(texts), kinds or _KINDS).tolist()
    ]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Mail ann.lee+x@mail.co.uk.", "Mail <E>."),
        ("<mailto:ann@mail.org?subject=x>", "<mailto:<E>?subject=x>"),
        ("to='bob_1@sub.mail.museum',", "to='<E>',"),
        ("q=o'brien@mail.ie&x", "q=<E>&x"),
        ("ann@xn--bcher-kva.xn--p1ai!", "<E>!"),
        ("write to ann@mail.org.Then go", "write to <E>.Then go"),
        ("请写信给ann@mail.org。", "请写信给<E>。"),
        ("a@b@mail.org", "a@<E>"),
        ("logo@2x.png a@b me@localhost joe@example.com ..@mail.org x@mail.123 @user @mail.org", None),
        ("pkg@1.2.3 ann@host-.org ann@.org ann.@mail.org", None),
    ],
)
def test_email(text, expected):
    assert marked(text, "email") == (expected or text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("from 93.184.216.34, 93.184.216.35/24; http://41.173.96.26:80/", "from <I>, <I>/24; http://<I>:80/"),
        ("[195.171.5.71] 2002-08-22 48.90.248.226 8.8.8.8", "[<I>] 2002-08-22 <I> 8.8.8.8"),
        ("the IP 8.8.8.8 and DNS server 1.1.1.1", "the IP <I> and DNS server <I>"),
        ("36.160.14.148-36.160.14.150", "<I>-<I>"),
        ("10.0.0.1 127.0.0.1 192.168.1.1 172.16.3.4 169.254.9.9 224.0.0.251 255.255.255.0 0.0.0.0 100.64.1.1", None),
        ("192.0.2.1 198.51.100.7 203.0.113.9 198.18.0.1", None),
        ("version 91.184.216.34 v91.92.93.94 lib-91.92.93.94.so Chrome/91.92.93.94 build 191.92.93.94 § 121.3.4.5", None),
        ("1.2.3.4.5 256.1.2.3 1.2.3 91.92.93.94.tar.gz 01.92.93.94 91.92.93.94a 1234.92.93.94", None),
        ("from 2a00:1450:4001:81b::200e.", "from <I>."),
        ("2001:4860:4860:0:0:0:0:8888 and 2001:4860:4860::8888/64", "<I> and <I>/64"),
        ("fe80::1:2:abcd ::1 2001:db8::ab:12 fd00:1:2:abc::1 12:30:45 std::vec 00:1a:2b:3c:4d:5e 2001::", None),
        ("50:06:01:60:3b:a0:11:22 dead::beef::1:222 abc::def", None),
    ],
)
def test_ip(text, expected):
    assert marked(text, "ip") == (expected or text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("+46 (0)8 928 571 38, +1-984-182-0190; +447700921916", "<P>, <P>; <P>"),
        ("(905) 674-3793 or 905.674.3793x45 or 1-905-674-3793", "<P> or <P> or <P>"),
        ("(see 905-674-3793)", "(see <P>)"),
        ("(905-674-3793)", "(<P>)"),
        ("01 42 68 53 00 / 07700 963 066 / (030) 123 45678 / 0711/1234567", "<P> / <P> / <P> / <P>"),
        ("Tel.: 467 3395 and fax 22850-14", "Tel.: <P> and fax <P>"),
        ("电话：022-23501436", "电话：<P>"),
        ("zip 12345 905-674-3793 2 times", "zip 12345 <P> 2 times"),
        ("recursive calls: 3628800", None),
        ("2019-03-04 12:30 01.02.2003 10,000,000 3.14159265 1990 1991 1992 1993", None),
        ("ISBN 978-3-16-148410-0 0-306-40615-2 SSN 054-28-6917 #905-674-3793 $905-674-3793", None),
        ("id=905-674-3793 /905-674-3793 905-674-3793-22 1905-674-3793 905-674-37931 905-674-3793%", None),
        ("+10000000 downloads, +1 555, (202) 555-0143, 105-674-3793 905-174-3793", None),
        ("numbers 01 08 17 23 42 PRE 76, 021803 (2007) call 12.03.2004", None),
        (" ".join(map(str, range(40))) + " 905-674-3793", None),
        ("01 42 68 53 00 - 905-674-3793 " * 3, "<P> - <P> " * 3),
    ],
)
def test_phone(text, expected):
    assert marked(text, "phone") == (expected or text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("4111111111111111, 4111 1111 1111 1111 12/25 and 5500-0055-5555-5559.", "<C>, <C> 12/25 and <C>."),
        ("amex 3714 496353 98431 or 378282246310005", "amex <C> or <C>"),
        ("card: 4222222222222, no 4222222222222 there" + "." * 40 + " 4222222222222", None),
        ("4111111111111112 1111111111111111 0000000000000000 4111-1111 1111-1111", None),
        ("1990 1991 1992 1993 4000 5000 6000 7000 4111 1111 1111 1111 1111", None),
        ("id=4111111111111111 x4111111111111111 4111111111111111.5 41111111111111111", None),
    ],
)
def test_card(text, expected):
    if text.startswith("card:"):
        expected = text.replace("4222222222222", "<C>", 2)
    assert marked(text, "credit_card") == (expected or text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("DE89370400440532013000, DE89 3704 0044 0532 0130 00.", "<B>, <B>."),
        ("gb29nwbk60161331926819 NO9386011117947", "<B> <B>"),
        ("FR14 2004 1010 0505 0001 3M02 606 ok", "<B> ok"),
        ("DE88370400440532013000 XX89370400440532013000 DE8937040044053201300 DE893704004405320130001", None),
        ("DE89 370400440532013000 De89370400440532013000 ADE89370400440532013000 DE89", None),
    ],
)
def test_iban(text, expected):
    assert marked(text, "iban") == (expected or text)


def keys():
    letters = "aB3" * 40
    return [
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "ghp_" + letters[:36],
        "github_pat_" + letters[:22] + "_" + letters[:59],
        "glpat-" + letters[:20],
        "xoxb-" + "1234567890-1234567890-" + letters[:24],
        "AIza" + letters[:35],
        "GOCSPX-" + letters[:28],
        "sk-proj-" + letters[:48],
        "sk_live_" + letters[:24],
        "eyJ" + letters[:20] + ".eyJ" + letters[:20] + "." + letters[:43],
        "npm_" + letters[:36],
        "SG." + letters[:22] + "." + letters[:43],
        "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n" + letters + "\n-----END RSA PRIVATE KEY-----",
    ]


@pytest.mark.parametrize("key", keys())
def test_api_key(key):
    assert marked(f'token: "{key}" and', "api_key") == 'token: "<K>" and'
    assert marked(f"x{key} {key[:-1]}", "api_key") == f"x{key} {key[:-1]}" or key.startswith(("glpat", "xoxb", "sk", "eyJ"))
    assert "<K>" not in marked(key[:12] + "!" + key[12:], "api_key")


def test_api_keys_with_a_word_before_and_what_only_looks_like_one():
    assert marked("aws_secret_access_key = " + "aB3/" * 10, "api_key") == "aws_secret_access_key = <K>"
    assert marked("https://hooks.slack.com/services/T0AAAAAAA/B0AAAAAAA/" + "aB3" * 8, "api_key").endswith("services/<K>")
    text = "AKIAIOSFODNN7EXAMPLE sk-learn-something-with-a-long-name-here "
    text += "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----"
    assert marked(text) == text


def test_the_more_particular_kind_counts():
    assert marked("tel 4111 1111 1111 1111") == "tel <C>"
    assert marked("call 93.184.216.34") == "call <I>"
    assert marked("fax DE89 3704 0044 0532 0130 00") == "fax <B>"
    assert _apart([(0, 5, 9, 2), (0, 0, 6, 5), (0, 8, 9, 0), (1, 0, 3, 2)]) == [(0, 0, 6, 5), (0, 8, 9, 0), (1, 0, 3, 2)]
    assert _apart([(0, 0, 6, 2), (0, 5, 9, 3)]) == [(0, 5, 9, 3)]


def test_counts_replacements_and_nothing_else_changes():
    texts = [
        "a@mail.org, b@mail.org, a@mail.org, c@mail.org",
        None,
        "",
        "nothing here",
        "é 93.184.216.34 2a00:1450:4001:81b::200e ü",
    ]
    kept = Pii()(texts).kept
    assert kept["text"].to_pylist() == [
        "email@example.com, firstname.lastname@example.org, email@example.com, email@example.com", None, "", "nothing here",
        "é 192.0.2.1 2001:db8::1 ü",
    ]  # fmt: skip
    assert kept["pii_email"].to_pylist() == [4, 0, 0, 0, 0] and kept["pii_ip"].to_pylist() == [0, 0, 0, 0, 2]
    assert kept.schema.field("pii_iban").type == pa.uint32()
    again = Pii()(kept.select(["id", "text"])).kept
    assert again["text"].to_pylist() == kept["text"].to_pylist() and sum(again["pii_email"].to_pylist()) == 0
    only = Pii(kinds=("ip",), action="count")(texts).kept
    assert only["text"].to_pylist() == texts and "pii_email" not in only.column_names


def test_to_drop_and_to_count():
    texts = ["a@mail.org b@mail.org", "93.184.216.34 a@mail.org", "ann", "DE89370400440532013000 c@mail.org"]
    result = Pii(action={"email": "drop", "ip": "drop", "iban": "count"})(texts)
    assert result.kept["text"].to_pylist() == ["ann"]
    assert result.dropped["_reason"].to_pylist() == ["pii.email"] * 3
    assert result.dropped["_value"].to_pylist() == [2.0, 1.0, 1.0]
    result = Pii(kinds=("ip", "email"), action={"ip": "drop"}, replacements={"email": ("<1>", "<2>")})(texts)
    assert result.kept["text"].to_pylist() == ["<1> <2>", "ann", "DE89370400440532013000 <1>"]
    assert result.dropped["_reason"].to_pylist() == ["pii.ip"] and Pii(action="count").reasons() == ()


def test_what_is_found_is_in_no_reason():
    stage = Pii(action="drop")
    dropped = stage(["4111111111111111"]).dropped
    assert set(dropped["_reason"].to_pylist()) <= set(stage.reasons()) and "4111" not in str(
        dropped.drop_columns(["text"]).to_pylist()
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"kinds": ("e-mail",)}, "did you mean 'email'"),
        ({"kinds": ()}, "kinds is empty"),
        ({"action": "mask"}, "known: replace, drop, count"),
        ({"action": {"ip": "hide"}}, "known: replace, drop, count"),
        ({"kinds": ("ip",), "action": {"email": "drop"}}, "not among kinds: ip"),
        ({"replacements": {"ip": ()}}, "'<IP>' is needed"),
    ],
)
def test_wrong_parameters(wrong, message):
    with pytest.raises(RecipeError, match=message):
        Pii(**wrong)


# --------------------------------------------------------------------------------------------- against a naive reading

PIECES = st.sampled_from(
    [
        *"a x _ . . - @ @ 1 0 25 256 org Mail com é + ' % : :: 2001 fe80 db8 v / ( ) , png".split(),
        *"93.184.216.34 10.0.0.1 ann@ 2a00:1450 x@y.de".split(),
        *(" ", "\n", "IP ", "version "),
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)
SPECIAL4 = [ipaddress.ip_network(n) for n in (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 "
    "192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
).split()]  # fmt: skip


def near(text, at, window, words):
    """Whether a word stands before a place; those with a | are whole words."""
    low = max(at - window, 0)
    for word in words:
        bare = re.escape(word.removeprefix("|").encode())
        for match in re.finditer(rb"(?=(" + bare + rb"))", text[low:at], re.I):
            a, b = low + match.start(), low + match.end(1)
            letters = re.match(rb"[A-Za-z]", text[max(a - 1, 0) : a]), b < at and re.match(rb"[A-Za-z]", text[b : b + 1])
            if not word.startswith("|") or not any(letters):
                return True
    return False


def naive_ipv4(text):
    for m in re.finditer(rb"(?<![\w.])(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})(?![\w%]|\.\w|-[A-Za-z])", text, re.A):
        octets = list(map(int, m[0].split(b".")))
        if max(octets) > 255 or re.search(rb"[A-Za-z][-/]$", text[: m.start()]):
            continue
        if any(ipaddress.ip_address(m[0].decode()) in network for network in SPECIAL4):
            continue
        if near(text, m.start(), kernels.VERSION_WINDOW, kernels.VERSION_WORDS):
            continue
        small = max(octets) < 32 or (octets[0] < 10 and max(octets[1:]) < 100)
        if small and not near(text, m.start(), kernels.IP_WINDOW, kernels.IP_WORDS):
            continue
        yield m.span()


def naive_ipv6(text):
    for m in re.finditer(rb"(?<![\w:.])[0-9a-fA-F]{1,4}:[0-9a-fA-F:]*", text, re.A):
        value = m[0][:-1] if re.search(rb"[^:]:$", m[0]) else m[0]
        rest = text[m.start() + len(value) :]
        if (
            len(m[0]) > 45
            or re.match(rb"[\w:]", rest, re.A)
            or value.count(b":") < 3
            or not re.search(rb"[0-9a-fA-F]{3}", value)
        ):
            continue
        try:
            address = ipaddress.IPv6Address(value.decode())
        except ValueError:
            continue
        if b"::" in value and address not in ipaddress.ip_network("2000::/3"):
            continue
        special = "::/8 100::/8 64:ff9b::/96 2001::/23 2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/9 ff00::/8".split()
        if not any(address in ipaddress.ip_network(n) for n in special):
            yield m.start(), m.start() + len(value)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_addresses_against_a_naive_reading(texts):
    expected = []
    for row, text in enumerate(t.encode() for t in texts):
        spans = sorted([*naive_ipv4(text), *naive_ipv6(text)])
        expected += [(row, text[a:b], "ip") for a, b in spans]
    assert found(texts, "ip") == expected


def naive_emails(text):
    for m in re.finditer(rb"@", text):
        local = re.search(rb"[A-Za-z0-9._%+'-]{0,64}$", text[: m.start()])[0]
        local = local[local.rfind(b"..") + 1 :] if b".." in local else local
        local = re.sub(rb"^\W+", b"", local, flags=re.A)
        rest = re.match(rb"[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*", text[m.end() :])
        if not local or local.endswith(b".") or not rest:
            continue
        best, labels = b"", []
        for label in rest[0].split(b"."):
            if best and label[:1].isupper() and text[m.end() : m.end() + 1].islower():
                break
            bare = label.rstrip(b"-")
            labels.append(bare)
            if len(labels) > 1 and (re.fullmatch(rb"[A-Za-z]{2,24}", bare) or re.fullmatch(rb"(?i)x[^.]-.{2,}", bare)):
                best = b".".join(labels)
            if bare != label:
                break
        reserved = re.search(rb"(?i)(^|\.)(example\.(com|net|org|edu)|example|test|invalid|localhost|local|localdomain)$", best)
        if best and not reserved and best.rpartition(b".")[2].lower() != b"png":
            yield m.start() - len(local), m.end() + len(best)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_emails_against_a_naive_reading(texts):
    expected = []
    for row, text in enumerate(t.encode() for t in texts):
        end = 0
        for a, b in naive_emails(text):
            if a >= end:  # of two that overlap the first counts
                expected.append((row, text[a:b], "email"))
                end = b
    assert found(texts, "email") == expected


IBANS = {"DE": 22, "GB": 22, "NO": 15, "MT": 31}


@given(
    st.sampled_from(sorted(IBANS)),
    st.text("0123456789ABCXYZ", min_size=35, max_size=35),
    st.integers(0, 99),
    st.booleans(),
    st.booleans(),
)
def test_ibans_against_a_naive_reading(country, body, wrong, spaced, lower):
    body = body[: IBANS[country] - 4]
    check = 98 - int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
    digits = check if wrong < 70 else wrong
    iban = f"{country}{digits:02d}{body}"
    right = int("".join(str(int(c, 36)) for c in body + iban[:4])) % 97 == 1
    text = " ".join(iban[i : i + 4] for i in range(0, len(iban), 4)) if spaced else iban
    text = text.lower() if lower else text
    assert found([f"to {text}, please", f"{text}9", f"A{text}"], "iban") == ([(0, text.encode(), "iban")] if right else [])


def luhn(digits):
    doubled = [int(c) * (1 + i % 2) for i, c in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0 and len(set(digits)) > 1


@given(
    st.sampled_from(["4", "51", "2221", "37", "36", "6011", "3530", "62", "2201", "6304", "99", "57"]),
    st.text("0123456789", min_size=19, max_size=19),
    st.integers(12, 19),
    st.sampled_from(["", "card "]),
)
def test_cards_against_a_naive_reading(prefix, body, size, word):
    sizes = {
        "4": (13, 16, 19),
        "51": (16,),
        "2221": (16,),
        "37": (15,),
        "36": (14, 16, 19),
        "6304": range(12, 20),
        "99": (),
        "57": (),
    }
    number = (prefix + body)[: size - 1]
    number += next(c for c in "0123456789" if luhn(number + c) or c == "9")
    good = luhn(number) and size in sizes.get(prefix, (16, 17, 18, 19)) and (size in (14, 15, 16, 19) or bool(word))
    assert found([f"{word}{number}."], "credit_card") == ([(0, number.encode(), "credit_card")] if good else [])


NUMBER_PIECES = st.sampled_from(
    [
        *"( ) + - - . / 0 1 7 01 030 905 674 555 3793 0143 2019 12345 46 x call a , 42 68 53 00 % 4111 1111 123456789".split(),
        *(" ", " ", "tel ", "\u00a0", "\n"),
    ]
)
SEPARATOR = rb"(?:(?: |\xc2\xa0)?(?:\)[ ./-]?|\()|[-./]|(?: |\xc2\xa0)(?:[-/] )?)(?=[0-9])"
NUMBER = re.compile(rb"(?:[+(]{1,3}|(?<![A-Za-z0-9_]))[0-9]+(?:" + SEPARATOR + rb"[0-9]+)*")
QUAD = re.compile(rb"(?<![\w.])(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})(?![\w%]|\.\w|-[A-Za-z])", re.A)


def kind_of(separator):
    bare = separator.replace(b"\xc2\xa0", b" ")
    return "wide" if bare in (b" - ", b" / ") else next((c for c in ")(-./" if c.encode() in bare), " ")


def naive_phones(text):
    at = 0
    while number := NUMBER.search(text, at):
        quad = QUAD.match(text, number.start())
        if quad and max(map(int, quad[0].split(b"."))) < 256:
            at = quad.end()
            continue
        quads = [q for q in QUAD.finditer(text, number.start(), number.end()) if max(map(int, q[0].split(b"."))) < 256]
        at = max([number.end(), *(q.end() for q in quads)])
        groups = [(m.start(), m[0]) for m in re.finditer(rb"[0-9]+", text[: number.end()]) if m.start() >= number.start()]
        ends = [s + len(g) for s, g in groups]
        kinds = [kind_of(text[e:s]) for e, (s, _) in zip(ends, groups[1:], strict=False)] + [""]
        if len(groups) > kernels.MOST_GROUPS or not stands_alone(text, number.start(), number.end()):
            continue
        digits = [g.decode() for _, g in groups]
        k = 0
        while k < len(digits):
            plus = k == 0 and b"+" in text[number.start() : groups[0][0]]
            m = naive_phone(text, groups[0][0], digits, kinds, k, plus)
            if m is not None and kinds[m] in ("", " ", "(", "wide"):
                start = number.start() if k == 0 else groups[k][0] - (text[groups[k][0] - 1 : groups[k][0]] == b"(")
                if text[start : start + 1] == b"(" and b")" not in text[start : ends[m]]:
                    start += 1
                extension = re.match(rb"x[0-9]+", text[ends[m] :]) if m == len(digits) - 1 else None
                yield start, ends[m] + (extension.end() if extension else 0)
                k = m + 1
                continue
            while kinds[k] not in ("", " ", "(", ")", "wide"):
                k += 1
            k += 1


def stands_alone(text, start, end):
    before, last = text[max(start - 2, 0) : start - 1], text[start - 1 : start] if start else b""
    if re.match(rb"[A-Za-z0-9_/=#$@&%\\~^`+-]", last) or (last in (b".", b",", b":") and before.isdigit()):
        return False
    rest = text[end:]
    if re.match(rb"x[0-9]", rest):
        return True
    return not re.match(rb"[A-Za-z0-9_%@]|[-./,:][A-Za-z0-9_]", rest)


def naive_phone(text, first, digits, kinds, k, plus):
    """The last group of a telephone number that begins with group k, or None: the four rules of the kernel's `_phone`."""

    def upto(m):
        return "".join(digits[k : m + 1])

    if plus:
        if re.match("0|28|83|89", "".join(digits[k:])[:2] if len(digits[k]) > 1 else digits[k] + "1"):
            return None
        limit = 11 if digits[k][0] == "1" else 15
        m = k
        while m + 1 < len(digits) and len(upto(m + 1)) <= limit and len(upto(m)) < limit:
            m += 1
        size = len(upto(m))
        if not 8 <= size <= limit or (limit == 11 and size != 11):
            return None
        return None if m == k and (size < 10 or digits[k].endswith("0000")) else m
    q = k + 1 if digits[k] == "1" and kinds[k] not in ("", "/", "wide") else k
    if [len(d) for d in digits[q : q + 3]] == [3, 3, 4]:
        shapes = ["--", "..", " -", "/-", ")-", ").", ") "] + ["  "] * (q > k)
        nobody = digits[q + 1] == "555" and digits[q + 2].startswith("01")
        if kinds[q] + kinds[q + 1] in shapes and digits[q][0] > "1" and digits[q + 1][0] > "1" and not nobody:
            return q + 2
    if re.match("0[1-9]", digits[k]) and kinds[k]:
        m = k
        if kinds[k] in (")", "/", "wide"):
            while m + 1 < len(digits) and (m == k or kinds[m] in (" ", "-")) and len(upto(m + 1)) <= 12:
                m += 1
            first_size, most = (2, 99) if kinds[k] == ")" else (3, k + 3)
            if k < m <= most and len(upto(m)) >= 9 and first_size <= len(digits[k]) <= 6:
                return m
        else:
            while m + 1 < len(digits) and kinds[m] == kinds[k]:
                m += 1
            sizes = [len(d) for d in digits[k : m + 1]]
            pairs = [int(d) for d in digits[k : m + 1]] if set(sizes) == {2} else []
            lottery = bool(pairs) and all(a < b for a, b in itertools.pairwise(pairs))
            shaped = len(sizes) >= 3 and 9 <= sum(sizes) <= 11 and sizes[0] <= 5 and all(2 <= s <= 4 for s in sizes[1:])
            if shaped and not lottery and not (kinds[k] == "-" and sizes[:2] == [3, 2]):
                return m
    if k == 0 and near(text, first, kernels.PHONE_WINDOW, kernels.PHONE_WORDS):
        m = k
        while (
            m + 1 < len(digits)
            and len(upto(m + 1)) <= 13
            and kinds[m] != "("
            and not (kinds[m] == "wide" and len(upto(m)) >= 7)
        ):
            m += 1
        sizes = [len(d) for d in digits[k : m + 1]]
        date = len(sizes) == 3 and ((sizes[0] == 4 and max(sizes[1:]) <= 2) or (max(sizes[:2]) <= 2 and sizes[2] == 4))
        if 7 <= sum(sizes) <= 13 and not date:
            return m
    return None


@given(st.lists(st.lists(NUMBER_PIECES, max_size=16).map("".join), min_size=1, max_size=8))
def test_phones_against_a_naive_reading(texts):
    expected = []
    for row, text in enumerate(t.encode() for t in texts):
        expected += [(row, text[a:b], "phone") for a, b in naive_phones(text)]
    assert found(texts, "phone") == expected


# --------------------------------------------------------------------------------------------- marked-up text


def test_recall_and_precision_on_marked_text(shared_data):
    types = {
        "EMAIL_ADDRESS": "email",
        "IP_ADDRESS": "ip",
        "PHONE_NUMBER": "phone",
        "CREDIT_CARD": "credit_card",
        "IBAN_CODE": "iban",
    }
    with gzip.open(shared_data / "misc" / "pii_synthetic.jsonl.gz") as lines:
        rows = [json.loads(line) for line in lines]
    gold = {(i, s["value"].encode(), types[s["type"]]) for i, r in enumerate(rows) for s in r["spans"] if s["type"] in types}
    said = set(found([r["text"] for r in rows]))
    least = {"email": 1.0, "ip": 1.0, "iban": 1.0, "credit_card": 0.9, "phone": 0.75}
    for kind, recall in least.items():
        true = {g for g in gold if g[2] == kind}
        assert len(true & said) >= recall * len(true) and not {s for s in said - gold if s[2] == kind}, kind


def test_real_pages_hold_little_that_is_taken_for_a_card_or_a_key(shared_data):
    with gzip.open(shared_data / "crawl" / "pages.jsonl.gz") as lines:
        texts = [p["main_text"] for p in map(json.loads, lines) if p["main_text"]]
    counts = Pii(action="count")(texts).kept
    totals = {kind: sum(counts[f"pii_{kind}"].to_pylist()) for kind in _KINDS}
    assert totals["credit_card"] == totals["iban"] == totals["api_key"] == 0
    assert totals["email"] > 40 and totals["phone"] > 50
