"""What the signals know of languages, held against the libraries that the facts come from."""

from __future__ import annotations

import pytest
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

from curate import lexicon
from curate.lexicon import end_marks, english_exceptions, stop_words, word_rule
from curate.signals import ENGLISH, SPACED, UNKNOWN, UNSPACED

LARGE = "en de fr es it pt nl sv da no fi pl cs sk hu ro bg el ru uk tr ar fa he hi bn mr ur id ms vi th zh ja ko".split()


def test_sets_of_characters_are_datatroves() -> None:
    assert set(lexicon.SENTENCE_TERMINALS) == TERMINAL_PUNCTUATION
    assert set(lexicon.SYMBOLS) == PUNCTUATION_SET


def test_exceptions_are_spacys() -> None:
    spacy = pytest.importorskip("spacy")
    rules = spacy.blank("en").tokenizer.rules
    theirs = {chunk: tuple(token[spacy.symbols.ORTH] for token in tokens) for chunk, tokens in rules.items()}
    assert english_exceptions() == {chunk: words for chunk, words in theirs.items() if not any(map(str.isspace, chunk))}


def test_pieces_of_the_word_rule_are_spacys() -> None:
    classes = pytest.importorskip("spacy.lang.char_classes")
    assert set(lexicon.QUOTES) == {quote.replace("\\", "") for quote in classes.LIST_QUOTES if quote}
    assert set(lexicon.PUNCT) | {"……"} == {mark.replace("\\", "") for mark in classes.LIST_PUNCT}
    assert set(lexicon.CURRENCY) == {sign.replace("\\", "") for sign in classes.LIST_CURRENCY}
    assert set(lexicon.HYPHENS) == set(classes.LIST_HYPHENS)
    joined_by_mistake = "тбكم"
    assert set(lexicon.UNITS) == {*classes.LIST_UNITS, "тб"} - {joined_by_mistake}


def test_exceptions_make_up_their_chunk() -> None:
    for chunk, words in english_exceptions().items():
        assert "".join(words) == chunk and all(words)


@pytest.mark.parametrize("language", LARGE)
def test_large_languages_have_everything(language: str) -> None:
    words, marks = stop_words(language), end_marks(language)
    assert words is not None and len(words) >= 25
    assert all(word == word.lower() and any(map(str.isalpha, word)) and not any(map(str.isspace, word)) for word in words)
    assert set(end_marks("en")) <= set(marks) and len(marks) == len(set(marks))
    assert (len(marks) > 5) == (language != "en"), "a language with the marks of English alone"
    assert word_rule(language) == {"en": ENGLISH, "zh": UNSPACED, "ja": UNSPACED, "th": UNSPACED}.get(language, SPACED)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "the of"),
        ("de", "und der"),
        ("zh", "的 是"),
        ("ja", "の は"),
        ("th", "และ ที่"),
        ("nb", "og"),
        ("ckb", "ئەو"),
        ("fil", "ang"),
    ],
)
def test_stop_words(language: str, words: str) -> None:
    assert set(words.split()) <= (stop_words(language) or set())


@pytest.mark.parametrize("language", [None, "", "und", "tlh", "ku", "zz"])
def test_no_stop_words(language: str | None) -> None:
    assert stop_words(language) is None


def test_end_marks() -> None:
    assert end_marks("en") == ".?!\"'"
    assert "。" in end_marks("zh") and "」" in end_marks("ja") and "؟" in end_marks("ar") and "।" in end_marks("hi")
    assert "»" in end_marks("fr") and "“" in end_marks("de") and ";" in end_marks("el") and "։" in end_marks("hy")
    assert "។" in end_marks("km") and "။" in end_marks("my") and "።" in end_marks("am") and "།" in end_marks("bo")
    everything = set(end_marks("en")) | set(lexicon.SENTENCE_TERMINALS) | set(lexicon.CLOSING_QUOTES)
    assert set(end_marks(None)) == set(end_marks("und")) == set(end_marks("tlh")) == everything


@pytest.mark.parametrize(
    ("rule", "languages"),
    [
        (ENGLISH, ["en", "EN", "en-GB", "eng_Latn"]),
        (UNSPACED, ["zh", "zh-Hant", "cmn_Hans", "yue", "ja", "jpn_Jpan", "th", "tha_Thai", "km", "lo", "my", "shn", "bo"]),
        (SPACED, ["de", "ko", "vi", "ceb", "deu_Latn", "sr-Latn", "ckb"]),
        (UNKNOWN, [None, "", "und", "und-Latn", "mul", "zxx", "mis", "qaa", "zz", "german", "d", "1"]),
    ],
)
def test_word_rule(rule: int, languages: list[str | None]) -> None:
    assert {language: word_rule(language) for language in languages} == dict.fromkeys(languages, rule)
