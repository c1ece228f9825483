"""The kernel of the signals against a plain reading of their formulas, number by number."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import oracle
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate import lexicon
from curate.kernels.signals import compute
from curate.signals import BY_NAME, FAMILIES, SIGNALS

LANGUAGES = ["en", "en", "de", None, "und", "zh", "ja", "th", "lo", "km", "my", "bo", "ko", "ar", "hi", "el", "ru", "tlh", "no"]
BAD_WORDS = {
    "en": ("bad", "bad word", "b.d", "Evil", "(x)", "é"),
    "de": ("böse", "straße"),
    "zh": ("坏", "坏人"),
    "ja": ("わる", "x"),
    "th": ("เลว",),
    "ar": ("سيء",),
}
TYPES = {"uint32": pa.uint32(), "uint8": pa.uint8(), "float32": pa.float32()}

Documents = Sequence[tuple[str | None, str | None]]


def differences(documents: Documents, bad_words: Mapping[str, tuple[str, ...]] | None = BAD_WORDS) -> list[str]:
    """What the kernel and the oracle say differently of some documents."""
    texts, languages = [text for text, _ in documents], [language for _, language in documents]
    ours = compute(pa.array(texts, pa.string()), languages, FAMILIES, bad_words)
    assert list(ours) == list(BY_NAME)
    assert {name: column.type for name, column in ours.items()} == {s.name: TYPES[s.dtype] for s in SIGNALS}
    columns = {name: column.to_pylist() for name, column in ours.items()}
    found = []
    for i, (text, language) in enumerate(documents):
        expected = oracle.signals(text, language, bad_words)
        assert list(expected) == list(BY_NAME), "the oracle knows every signal, in order"
        for name, value in expected.items():
            got = columns[name][i]
            if not same(name, got, value):
                found.append(f"{name} of {(text or '')[:120]!r} ({language}): kernel {got}, oracle {value}")
    return found


def same(name: str, got: float | None, expected: float | None) -> bool:
    if got is None or expected is None:
        return got is expected
    if BY_NAME[name].dtype != "float32":
        return got == expected
    near, value = np.float32(expected), np.float32(got)
    if name == "rps_doc_unigram_entropy":  # a sum of logarithms: its order and the library's log decide the last bit
        return bool(abs(value - near) <= np.spacing(near))
    return bool(value == near)


def agree(documents: Documents, bad_words: Mapping[str, tuple[str, ...]] | None = BAD_WORDS) -> None:
    assert "\n".join(differences(documents, bad_words)[:20]) == ""


# fmt: off
SPACES = [*"    \t\n\n\r\x0b\x0c\x1c\x1e\x85\xa0\u2028\u3000", "  ", "\n\n", "\n\n\n", "\r\n"]
PIECES = [
    *"aAzZ019.,;:!?'\"()[]{}<>_#*&%$£€+-–—~^=/\\|@`´’‘“”„«»…•§°²µ©™😀❤🏽、。！？「」（）【】·¿।؟۔֊ªǅßİıſKéñж中文字あいアーｱﾞ゛",
    *"한กเาๆ่໑ກໃຽកខ្ៗကမ့္်་ཀ०〇々〻𠀀𛀀𝒳𝟘①½Ⅳ㊀٣๓၃〱",
    *("...", "..", "……", "--", "---", "——", "'s", "’S", "n't", "US$", "C$", "km²", "m/s", "%", "°C.", "U.S.", "A.B", "a.B"),
    *("e\u0301", "\ufe0f", "\u200b", "\u200d", "\u0300", "\U000e0100", "\U000e0041", *"\x00\x7f\x9f\ufeff\xad"),
    *("don't", "Wed", "I'm", "y'all", "can't've", "e.g.", "Mr.", "a.", "11pm", "9a.m.", "C++", ":)", "o.O", "'em"),
    *("http://", "https://a.b/c?d#e", "www.x.org", "me@x.de", "1.2.3.4", "256.1.1.1", ":80", ":8080/", "ä.öü", "a_b-c.d.ee"),
    *("foo", "Bar", "BAZ", "the", "The", "of", "and", "und", "der", "的", "の", "และ", "bad", "bad word", "坏人", "straße"),
    *("javascript", "JavaScript", "lorem ipsum", "Lorem Ipsum", "lorem, ipsum", "terms of use", "Cookie Policy", "use of"),
    *("[1]", "[edit]", "[citation needed]", "[12", "[]", "[x]", "use cookies", "w" * 999, "w" * 1000, "w" * 1001),
]
# fmt: on
WORDS = ["the", "cat", "sat", "on", "a", "mat.", "The", "b", "c", "dog's", "1", "...", "中", "мир", "lorem", "ipsum", "X"]

anything = st.text(max_size=80)
pieces = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
spaced = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from(PIECES + [""] * 60), st.sampled_from(SPACES)), max_size=14
).map(lambda parts: "".join(a + b + space for a, b, space in parts))


@st.composite
def repetitive(draw: st.DrawFn) -> str:
    """Few words, in lines and paragraphs that come again, so that words in a row do."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
    runs = draw(st.lists(st.lists(st.sampled_from(words), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=4))
    spaces = st.sampled_from([" ", "\n", "\n\n", ". ", ".\n", "\n\n\n", " \n"])
    return "".join(draw(st.sampled_from(runs)) + draw(spaces) for _ in range(draw(st.integers(1, 16))))


documents = st.lists(
    st.tuples(st.one_of(anything, pieces, spaced, repetitive()), st.sampled_from(LANGUAGES)), min_size=1, max_size=8
)
unhurried = settings(suppress_health_check=list(HealthCheck))


@unhurried
@given(documents)
def test_anything(found: Documents) -> None:
    agree(found)


@unhurried
@given(st.lists(repetitive(), min_size=1, max_size=8), st.sampled_from(LANGUAGES))
def test_words_lines_and_paragraphs_that_come_again(texts: list[str], language: str | None) -> None:
    agree([(text, language) for text in texts])


@unhurried
@given(st.lists(spaced, min_size=1, max_size=6))
def test_english(texts: list[str]) -> None:
    agree([(text, "en") for text in texts])


@unhurried
@given(st.lists(st.text(st.sampled_from(".,:'\"-()aA1…°C+%/$’—&@_"), max_size=14), min_size=1, max_size=30))
def test_english_chunks(chunks: list[str]) -> None:
    """Few characters, so that every sequence of affixes comes up."""
    agree([(" ".join(chunks), "en"), (" ".join(chunks), "fr")])


@unhurried
@given(st.lists(st.text(st.sampled_from("aB1.:/@-_?#é中"), max_size=16), min_size=1, max_size=30))
def test_urls(chunks: list[str]) -> None:
    agree([(" ".join(chunks), "en"), (" ".join(chunks), None)])


UNSPACED_SIGNS = st.one_of(
    st.characters(min_codepoint=0xE00, max_codepoint=0x109F),
    st.characters(min_codepoint=0x1780, max_codepoint=0x17FF),
    st.characters(min_codepoint=0x3000, max_codepoint=0x30FF),
    st.characters(min_codepoint=0xFF60, max_codepoint=0xFFA0),
    st.sampled_from("aA1._'中々〇 \n့်္ๆเ་่\u200b\ufe0fꩠꧠ𛀀𠀀"),
)


@unhurried
@given(
    st.lists(st.text(UNSPACED_SIGNS, max_size=30), min_size=1, max_size=8),
    st.sampled_from(["zh", "ja", "th", "my", "km", "bo", "de", None]),
)
def test_scripts_without_spaces(texts: list[str], language: str | None) -> None:
    agree([(text, language) for text in texts])


def test_every_exception_alone_and_in_company() -> None:
    table = list(lexicon.english_exceptions())
    agree(
        [(text, "en") for chunk in table for text in (chunk, f"({chunk})", f'"{chunk}', f"{chunk},", f"x{chunk}", f"{chunk}x")]
    )


@pytest.mark.slow
def test_every_character_at_every_place() -> None:
    """Code points between letters and digits, at the ends of a chunk, alone and twice."""
    blocks = [*range(0, 0x3500, 256), *range(0xA000, 0xAC00, 256), *range(0xF900, 0x10000, 256)]
    blocks += [*range(0x10000, 0x12000, 1024), *range(0x1D000, 0x1FC00, 1024), 0x1AF00, 0x1B000, 0x1B100, 0x20000, 0x31300]
    blocks += [0x33400, 0x3FF00, 0x40000, 0xE0000, 0xE0100, 0x10FF00]
    documents = []
    for block in blocks:
        signs = [chr(code) for code in range(block, block + 256)]
        text = " ".join(f"{c} {c}{c} a{c} {c}a a{c}. A{c}A 1{c}2 .{c} 中{c} ก{c}ก {c}\n" for c in signs)
        documents.append((text, "en"))
        if block < 0x300 or 0xE00 <= block < 0x1100 or 0x1700 <= block < 0x1800 or block >= 0x2000:
            documents.append((text, "zh"))
    agree(documents)


HAND_PICKED = {
    "empty": "",
    "spaces": " \n\t\u3000\n ",
    "one character": "x",
    "one mark": "\u0301",
    "newlines": "\n\n\n\n",
    "every line separator": "a.\nb.\rc.\r\nd.\x0be.\x0cf.\x1cg.\x1dh.\x1ei.\x85j.\u2028k.\u2029l.\n",
    "prose": "Mr. O'Neill didn't say \"stop\" at 9p.m. (he's on www.example.org/a?b, isn't he). It cost US$5.20/km²; 50%...\n",
    "citations": "It rained on Monday. [3]\nIt rained on Tuesday.[4]\nThe end[citation needed].\nBy all means.[edit] ...[1]",
    "sentences": 'He said "No." Then he left. What?! Yes... Good. . . (Right.) Then. 1. Then! So? "',
    "c4": "Please turn on JavaScript to go on.\nRead our Privacy Policy.\nlorem ipsum dolor sit.\nint f() { return 1; }.\nok.",
    "bad words": "bad Bad BAD badly notbad bad-word bad word bad  word evil_ evil! (x) é caf\u00e9 b.d bxd bad bad",
    "bullets": "• one\n- two\n  • three\n\t- four…\n– five\n▪ six ...\n1. seven. . .\n",
    "capitals": "NASA and ESA, USA! ǅ ǅA Ⅳ 1A A1 İI ÀÉ ΑΒΓ _A A_a 中A",
    "chinese": "今天天气很好，我们去公园玩。二〇〇八年！“好的”，他说……坏人在哪里？OK的。",
    "japanese": "私はラーメンを食べました。「おいしい」とﾗｰﾒﾝも言った。らーめん、コーヒー！カ゛わるい々〻",
    "thai": "ประเทศไทยเป็นประเทศที่อยู่ในเอเชียตะวันออกเฉียงใต้ ๆ และเลว เเปลก ๑๒๓ ฯลฯ",
    "lao": "ພາສາລາວເປັນພາສາ ໃນປະເທດລາວ ຢູ່ໆ ຂຽນ",
    "khmer": "ភាសាខ្មែរ\u200bគឺជាភាសា ផ្សេងៗ ។ ១២៣",
    "burmese": "မြန်မာဘာသာစကားသည် သင်္ဘော မန္တလေး တို့ ခွင့်။ ၁၂၃",
    "tibetan": "བོད་སྐད་ནི། བོད་ཀྱི་ཡུལ་ ༡༢་་",
    "korean": "한국어는 한국(韓國)의 언어다. 나는 '책'을 읽었다.",
    "arabic": "هل هذا صحيح؟ نعم، هذا صحيح. قال: «لا»۔ سيء",
    "hindi": "यह हिन्दी है। क्या आप ठीक हैं? हाँ, ठीक है.",
    "emoji": "Nice👍🏽 family👨‍👩‍👧 heart❤️ 😀😀 flag🇩🇪. ok©",
    "long word": "x" * 1001 + " a b.\n" + "y" * 1000 + " a b.",
    "marks without letters": "\u0301\u0301 a\u0301\u0301 .\u0301. ..\u0301..",
}


@pytest.mark.parametrize("name", HAND_PICKED)
def test_hand_picked(name: str) -> None:
    agree([(HAND_PICKED[name], language) for language in dict.fromkeys(LANGUAGES)])


def test_null_is_empty() -> None:
    columns = compute(pa.array([None, ""], pa.string()), [None, None])
    assert all(column[0] == column[1] for column in columns.values())
    agree([(None, "en"), ("a b", None), (None, None)])


def test_without_documents() -> None:
    assert [len(column) for column in compute(pa.array([], pa.string()), []).values()] == [0] * len(SIGNALS)


def test_families_can_be_chosen() -> None:
    text = pa.array(["The cat sat on the mat.", "本を読む。"])
    everything = compute(text, ["en", "ja"])
    for family in FAMILIES:
        some = compute(text, ["en", "ja"], (family,))
        assert list(some) == [s.name for s in SIGNALS if s.family in ("base", family)]
        assert all(column.equals(everything[name]) for name, column in some.items())


def test_slices_and_batches_make_no_difference() -> None:
    texts = [*HAND_PICKED.values(), None]
    languages = [LANGUAGES[i % len(LANGUAGES)] for i in range(len(texts))]
    whole = compute(pa.array(texts, pa.string()), pa.array(languages), bad_words=BAD_WORDS)
    for start in range(0, len(texts), 5):
        part = compute(pa.array(texts, pa.string()).slice(start, 5), pa.array(languages).slice(start, 5), bad_words=BAD_WORDS)
        assert all(column.equals(whole[name].slice(start, 5)) for name, column in part.items())


def test_threads_do_not_write_into_each_others_room() -> None:
    rng = random.Random(0)
    batches = [pa.array([" ".join(rng.choices(WORDS, k=rng.randint(1, 2000))) for _ in range(40)]) for _ in range(24)]
    alone = [compute(batch, ["en"] * len(batch)) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: compute(batch, ["en"] * len(batch)), batches))
    assert together == alone


def test_no_list_is_null_and_not_nothing() -> None:
    columns = compute(pa.array(["bad"] * 3), ["en", "fr", "tlh"], bad_words=BAD_WORDS)
    assert columns["c4_bad_words"].to_pylist() == [1, None, None]
    assert columns["gopher_stop_words"].to_pylist() == [0, 0, None]
    assert compute(pa.array(["bad"]), ["en"])["c4_bad_words"].to_pylist() == [None]


def test_a_list_of_bad_words_for_all_languages() -> None:
    lists = {"en": ("bad",), "*": ("wor", "böse", "坏")}
    text = "bad böse wor 坏, 坏坏"
    columns = compute(pa.array([text] * 4), ["en", "de", "zh", None], bad_words=lists)
    assert columns["c4_bad_words"].to_pylist() == [1, 3, 5, 3]
    agree([(text, language) for language in LANGUAGES], lists)


def _megabyte(kind: str) -> str:
    rng = random.Random(0)
    if kind == "words":
        return " ".join(
            rng.choices(["cat", "dog's", "U.S.", "(well)", "and/or", "x-ray", "1,000", "...", "don't", "end."], k=200_000)
        )
    if kind == "distinct words":
        return " ".join(f"{rng.getrandbits(40):x}" for _ in range(95_000))
    if kind == "one word":
        return "w" * 1_000_000
    if kind == "one word of ideographs":
        return "".join(chr(0x4E00 + rng.randrange(3000)) for _ in range(340_000))
    if kind == "one URL":
        return "https://example.org/" + "a.b-c" * 200_000
    return "\n" * 1_000_000


@pytest.mark.parametrize(
    ("kind", "language"),
    [
        pytest.param("words", "en", marks=pytest.mark.slow),
        pytest.param("distinct words", None, marks=pytest.mark.slow),
        ("one word", "en"),
        ("one word", "zh"),
        ("one word of ideographs", "de"),
        ("one URL", "en"),
        ("newlines", "en"),
    ],
)
def test_a_line_of_a_megabyte(kind: str, language: str | None) -> None:
    agree([(_megabyte(kind), language)])


@pytest.mark.parametrize("chunk", ["(", ")", "a,", "((a))", "a-", "'s", "..a", "[1]", "@a.", "a.B"])
def test_many_affixes(chunk: str) -> None:
    agree([(chunk * 3000, "en"), (chunk * 3000, None)])


def test_real_texts(shared_data: Path) -> None:
    texts: list[tuple[str | None, str | None]] = []
    domains = pl.read_parquet(shared_data / "domains" / "domains.parquet", columns=["text", "domain", "lang"])
    for _, group in domains.group_by("domain", maintain_order=True):
        some = group.gather_every(max(len(group) // 5, 1))
        texts += zip(some["text"].str.slice(0, 20_000), some["lang"], strict=True)
    quality = pl.read_parquet(shared_data / "quality" / "quality.parquet", columns=["text", "lang"]).gather_every(150)
    texts += zip(quality["text"].str.slice(0, 20_000), quality["lang"], strict=True)
    agree(texts, bad_words=_bad_words(shared_data))


def test_declarations_of_human_rights(shared_data: Path) -> None:
    """190 of 380 languages and scripts, each under its own code."""
    rows = pl.read_ndjson(shared_data / "misc" / "langid_udhr2.jsonl.gz").gather_every(2)
    agree([(text[:2000], code) for text, code in zip(rows["text"], rows["iso639_3"], strict=True)])


def _bad_words(shared_data: Path) -> dict[str, tuple[str, ...]]:
    lines = (shared_data / "misc" / "badwords.jsonl").read_text().splitlines()
    return {row["lang"]: tuple(row["words"]) for row in map(json.loads, lines)}


def test_words_are_spacys_in_english(shared_data: Path) -> None:
    """999 words of a thousand; the rest are emoticons that spaCy finds in code, and the like."""
    spacy = pytest.importorskip("spacy")
    tokenizer = spacy.blank("en").tokenizer
    domains = pl.read_parquet(shared_data / "domains" / "domains.parquet").filter(pl.col("lang") == "en")
    theirs_found = both_found = 0
    for _, group in domains.group_by("domain", maintain_order=True):
        for text in group.gather_every(max(len(group) // 6, 1))["text"].str.slice(0, 20_000):
            theirs = _places([token.text for token in tokenizer(text) if not token.is_space])
            ours = _places(oracle.cut(text, oracle.ENGLISH))
            theirs_found += len(theirs)
            both_found += len(theirs & ours)
    assert theirs_found > 100_000 and both_found / theirs_found > 0.999


def _places(words: list[str]) -> set[tuple[int, int]]:
    ends = np.cumsum([len(word) for word in words])
    return {(end - len(word), end) for word, end in zip(words, map(int, ends), strict=True)}
