"""normalise: each rule, all rules against a naive reading of them, and ftfy on every line of real text."""

import gzip
import json
import re
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import MissingExtra, RecipeError
from curate.kernels import clean
from curate.stages.normalise import Normalise

ftfy = pytest.importorskip("ftfy")

SWITCHES = ("fix", "control", "zero_width", "line_endings", "spaces", "runs", "trailing")
OFF = {**dict.fromkeys(SWITCHES, False), "form": "none", "max_blank_lines": None}


def normalised(texts, **parameters):
    return Normalise(**parameters)(texts).kept["text"].to_pylist()


def only(text, **parameters):
    return normalised([text], **{**OFF, **parameters})[0]


def test_each_rule_by_itself():
    mess = "\ufeff a\u00a0 b \t\r\n\r\n\n\n\n  c\x07\x1b[1mde\u0301\u200b\u200d\u00ad  f\u3000schÃ¶n \n"
    assert only(mess) == mess
    assert only(mess, fix=True) == mess.replace("Ã¶", "ö").replace("\x1b[1m", "")
    assert only(mess, form="NFC") == mess.replace("e\u0301", "é")
    assert only(mess, form="NFKC") == unicodedata.normalize("NFKC", mess)
    assert only(mess, control=True) == mess.replace("\x07\x1b[1m", "")
    assert only(mess, zero_width=True) == re.sub("[\ufeff\u200b\u00ad]", "", mess)  # the joiner after the accent stays
    assert only(mess, line_endings=True) == mess.replace("\r", "")
    assert only(mess, spaces=True) == mess.replace("\u00a0", " ")
    assert only(mess, runs=True) == mess.replace("  f", " f")
    assert only(mess, trailing=True) == mess.replace(" \n", "\n")  # a carriage return is no space
    assert only(mess, max_blank_lines=1).endswith("\r\n\r\n\n  c" + mess.split("  c")[1][:-1])
    assert normalised([mess])[0] == " a b\n\n\n  cdé\u200d f\u3000schön"


def test_text_in_order_is_left_as_it_is():
    texts = ["", None, "Plain.", "Two\nlines\n\nand a paragraph.", "    code(x)\n\treturn", "naïve — “quoted” …", "Русский"]
    texts += ["中文，日本語。", "👩‍👩‍👧‍👦 🏳️‍🌈", "می‌خواهم", "क्‍ष", "ภาษา\u200bไทย", "Ελληνικά", "à la carte ¿Qué? £5 ½"]
    assert normalised(texts) == texts
    table = pa.table({"text": texts})
    assert Normalise().annotate(table.to_batches()[0])["text"].equals(table["text"].combine_chunks())


def test_what_is_invisible():
    assert normalised(["so\u00adft", "zero\u200bwidth", "a\u200db", "\u200cx", "\u2060\ufeffy", "ខ្ញុំ\u200bទៅ", "é\u200b!"]) == [
        "soft", "zerowidth", "ab", "x", "y", "ខ្ញុំ\u200bទៅ", "é!",
    ]  # fmt: skip


def test_blank_lines():
    assert only("\n\na\n\n\n\nb\n\nc\n", max_blank_lines=0) == "a\nb\nc"
    assert only("\n\na\n\n\n\nb\n\nc\n", max_blank_lines=1) == "a\n\nb\n\nc"
    assert only("\n\na\n\n\n\nb\n\nc\n", max_blank_lines=9) == "a\n\n\n\nb\n\nc"
    assert only("a\n \n\t\n\nb", max_blank_lines=1, trailing=True) == "a\n\nb"
    assert only("a\n \n \n\nb", max_blank_lines=1) == "a\n \n \n\nb"
    assert normalised(["\n \n\n", " "]) == ["", ""]


def test_a_table_keeps_its_tabs_and_code_its_indentation():
    text = "name\tvalue\t\tnote\n    if x:\n        y  =  1\n"
    assert normalised([text]) == ["name\tvalue\t\tnote\n    if x:\n        y = 1"]


def test_what_a_rule_uncovers_is_normalised_too():
    assert normalised(["e\x00\u0301", "e\ufeff\u0301 x", "schÃ\x01¶n", "CafÃ\u00ad©"])[:3] == ["é", "é x", "schön"]


@pytest.mark.parametrize(
    "wrong, message", [({"form": "nfc"}, "known: NFC, NFKC, none"), ({"max_blank_lines": -1}, "null leaves")]
)
def test_wrong_parameters(wrong, message):
    with pytest.raises(RecipeError, match=message):
        Normalise(**wrong)


def test_without_ftfy_it_names_the_extra(monkeypatch):
    import sys

    from curate import stage
    from curate.stages import normalise

    monkeypatch.setitem(sys.modules, "ftfy", None)
    monkeypatch.setattr(stage, "_CACHE", {})
    normalise._ftfy.cache_clear()
    with pytest.raises(MissingExtra, match=r"curate-corpus\[extract\]"):
        Normalise()(["a"])
    assert Normalise(fix=False)(["a  b"]).kept["text"].to_pylist() == ["a b"]
    normalise._ftfy.cache_clear()


@pytest.mark.parametrize("fix, form", [(False, "none"), (True, "NFKC")])
def test_other_parameters_pass_the_suite(fix, form):
    from curate.testing import check_stage

    check_stage(Normalise(fix=fix, form=form, max_blank_lines=None, runs=False))


# --------------------------------------------------------------------------------------------- against a naive reading

CONFIG = ftfy.TextFixerConfig(
    unescape_html=False, fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, fix_line_breaks=False,
    remove_control_chars=False, normalization=None,
)  # fmt: skip
SEA = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf]")


def naive(text, p):
    for _ in range(20):
        before = text
        text = ftfy.fix_text(text, CONFIG) if p["fix"] else text
        text = text if p["form"] == "none" else unicodedata.normalize(p["form"], text)
        text = naive_bytes(text, p)
        if text == before:
            return text
    raise AssertionError("it never settles")


def naive_bytes(text, p):
    if p["line_endings"]:
        text = re.sub("\r\n|[\r\v\f\x85\u2028\u2029]", "\n", text)
    if p["control"]:
        text = re.sub("\x1b\\[[0-9;]*[A-Za-z]", "", text)
        text = "".join(
            c for c in text
            if (unicodedata.category(c) != "Cc" or c in "\n\t\r")
            and not re.match("[\u206a-\u206f\ufff9-\ufffc\ufdd0-\ufdef]", c) and ord(c) & 0xFFFE != 0xFFFE
        )  # fmt: skip
    if p["spaces"]:
        text = "".join(" " if unicodedata.category(c) == "Zs" and c != "\u3000" else c for c in text)
    if p["zero_width"]:
        text = re.sub("[\u00ad\u180e\u2060\ufeff]", "", text)
        kept = ""
        for c in text:
            last = kept[-1:] or " "
            if c not in "\u200b\u200c\u200d" or (not last.isascii() and (c != "\u200b" or SEA.match(last))):
                kept += c
        text = kept
    lines = text.split("\n")
    if p["runs"]:
        lines = [re.sub(r"(?<=[^ \t])(.*)", lambda m: re.sub(" +", " ", m[0]), line, count=1, flags=re.S) for line in lines]
    if p["trailing"]:
        lines = [line.rstrip(" \t") for line in lines]
    text = "\n".join(lines)
    if p["max_blank_lines"] is not None:
        most = p["max_blank_lines"] + 1
        text = re.sub(f"\n{{{most},}}", "\n" * most, text.strip("\n"))
    return text


def broken(text, encoding):
    return text.encode("utf-8").decode(encoding, "replace")


GOOD = st.text("aéöñ “”’—…€üñşŁж中א ", min_size=1, max_size=8)
MOJIBAKE = st.builds(
    broken, GOOD, st.sampled_from(["latin-1", "cp1252", "cp1251", "cp1250", "mac_roman", "cp437", "iso8859-2"])
)
SPECIAL = st.text(
    " \t\n\r\v\f\x00\x07\x1b[1m;ab\x7f\x80\x85\xa0\xad\u2028\u200b\u200c\u200d\u2003\u3000\ufeff\ufffe"
    "\u0301\u0e01\u0e38é\u0344각\u1100\u1161½ﬁÂÃœ",
    max_size=12,
)
TEXTS = st.lists(MOJIBAKE | SPECIAL | st.text(max_size=5), max_size=6).map("".join)
PARAMETERS = st.fixed_dictionaries(
    {
        **{name: st.booleans() for name in SWITCHES},
        "form": st.sampled_from(["NFC", "NFKC", "none"]),
        "max_blank_lines": st.sampled_from([None, 0, 1, 2, 3]),
    }
)


@given(st.lists(TEXTS | st.none(), min_size=1, max_size=12), PARAMETERS)
def test_against_a_naive_stage(texts, parameters):
    once = normalised(texts, **parameters)
    assert once == [None if t is None else naive(t, parameters) for t in texts]
    assert normalised(once, **parameters) == once


@given(st.lists(TEXTS, min_size=1, max_size=12))
def test_the_default_is_idempotent_and_ftfy_sees_all_that_it_would_change(texts):
    once = normalised(texts)
    assert normalised(once) == once
    assert normalised(texts, **{**OFF, "fix": True}) == [naive(t, {**OFF, "fix": True}) for t in texts]


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_characters_that_are_settled_stay_settled_together(form):
    unsettled = set(clean._unsettled(form))
    settled = [chr(c) for c in range(0x110000) if c not in unsettled and not 0xD800 <= c < 0xE000]
    for step in (1, 7, 1009, 54321):
        text = "".join(settled[i * step % len(settled)] for i in range(len(settled)))
        assert unicodedata.is_normalized(form, text)


def test_ftfy_on_every_line_of_real_text(shared_data):
    texts = []
    with gzip.open(shared_data / "crawl" / "pages.jsonl.gz") as lines:
        for page in map(json.loads, lines):
            texts += [page["title"] or "", (page["main_text"] or "")[:3000]]
    with gzip.open(shared_data / "misc" / "langid_udhr2.jsonl.gz") as lines:
        texts += [json.loads(line)["text"][:1000] for line in lines]
    texts += [broken(t[:200], e) for t in texts[:400] for e in ("cp1252", "latin-1", "mac_roman")]
    assert normalised(texts, **{**OFF, "fix": True}) == [naive(t, {**OFF, "fix": True}) for t in texts]
    once = normalised(texts)
    assert normalised(once) == once
    assert sum(a != b for a, b in zip(texts, once, strict=True)) > 500
