"""`signals` as a stage: which columns, which language, which lists. What the numbers are is in tests/test_signals.py."""

import json

import pyarrow as pa
import pytest
from corpus import curate, recipe, write_jsonl

from curate.errors import ColumnError, RecipeError
from curate.signals import ENGLISH, FAMILIES, SIGNALS, SPACED, UNKNOWN, UNSPACED
from curate.stages.rules import Rules
from curate.stages.signals import Signals

PROSE = "It was the best of times, and it was the worst of times that we have had to live with. "


def test_every_family_has_its_columns() -> None:
    kept = Signals(language="en")([PROSE]).kept
    assert [name for name in kept.column_names if name in {s.name for s in SIGNALS}] == [s.name for s in SIGNALS]
    for family in FAMILIES:
        names = Signals(sets=(family,), language="en").writes().names
        assert names == [s.name for s in SIGNALS if s.family in ("base", family)]


def test_the_language_is_that_of_the_column_where_there_is_one() -> None:
    # the words are the same, what they are taken for is not
    table = pa.table({"text": ["I don't."] * 4, "language": ["en", "de", "und", None]})
    kept = Signals(sets=("gopher",))(table).kept
    assert kept["word_rule"].to_pylist() == [ENGLISH, SPACED, UNKNOWN, UNKNOWN]
    assert kept["gopher_words"].to_pylist() == [3, 2, 2, 2]
    assert kept["gopher_stop_words"].is_null().to_pylist() == [False, False, True, True]


def test_without_a_column_the_language_is_told_here() -> None:
    texts = [
        PROSE * 5,
        "Die Katze saß auf der Matte und sah den Leuten nach, die vorübergingen. " * 3,
        "我们认为这些真理是不言而喻的。" * 9,
    ]
    assert Signals()(texts).kept["word_rule"].to_pylist() == [ENGLISH, SPACED, UNSPACED]
    # a column that is there does not count for `detect`
    table = pa.table({"text": texts[:1], "language": ["de"]})
    assert Signals(language="detect")(table).kept["word_rule"].to_pylist() == [ENGLISH]


def test_column_needs_the_column() -> None:
    with pytest.raises(ColumnError, match=r"'language'.*the stage 'language' writes it"):
        Signals(language="column")(["text"])


def test_bad_words_of_files(tmp_path) -> None:
    (tmp_path / "all.txt").write_text("heck\nold goat\n\n", "utf-8")
    texts = ["What the HECK, you old goat!", "heckler", "Heck heck"]
    found = Signals(language="en", sets=("c4",), bad_words=str(tmp_path / "all.txt"))(texts).kept
    assert found["c4_bad_words"].to_pylist() == [2, 0, 2]
    (tmp_path / "by.jsonl").write_text(
        json.dumps({"lang": "de", "words": ["mist"]}) + "\n" + json.dumps({"lang": "zh", "words": ["坏"]}) + "\n", "utf-8"
    )
    table = pa.table({"text": ["So ein Mist.", "So ein Mist.", "很坏的人"], "language": ["de", "fr", "zh"]})
    found = Signals(sets=("c4",), bad_words=str(tmp_path / "by.jsonl"))(table).kept
    assert found["c4_bad_words"].to_pylist() == [1, None, 1]
    found = Signals(sets=("c4",), bad_words={"de": str(tmp_path / "all.txt")})(table).kept
    assert found["c4_bad_words"].to_pylist() == [0, None, None]
    (tmp_path / "wrong.jsonl").write_text('{"lang": "de", "words": ["mist"]}\n{"language": "de"}\n', "utf-8")
    with pytest.raises(RecipeError, match=r"wrong.jsonl:2 "):
        Signals(sets=("c4",), bad_words=str(tmp_path / "wrong.jsonl"))(table)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"sets": ("gofer",)}, "sets holds 'gofer'.*gopher"),
        ({"sets": ()}, "name each set once"),
        ({"language": "english"}, "write auto, column, detect, or a code"),
        ({"sets": ("gopher",), "bad_words": "x.txt"}, "add it, or leave bad_words out"),
    ],
)
def test_wrong_parameters(parameters: dict, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Signals(**parameters)


def test_rules_judge_what_signals_measure() -> None:
    kept = Signals(language="en")([PROSE * 4, PROSE, "# # # # # #"]).kept
    result = Rules(sets=("gopher",))(kept)
    assert result.kept["id"].to_pylist() == ["0"]
    assert result.dropped["_reason"].to_pylist() == ["gopher.min_words"] * 2


def test_a_run_says_how_many_were_of_unknown_language(tmp_path) -> None:
    texts = [PROSE * 4, "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎤᏬᏂᎯᏍᏗ " * 9]
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts])
    rules = "{rules: {sets: [gopher], thresholds: {gopher.min_words: 1, gopher.min_alpha_word_share: null}}}"
    path = recipe(tmp_path, f"name: noted\nstages: [signals, {rules}]\n")
    done = curate("run", path, "-i", tmp_path / "in", "-o", tmp_path / "run", "-w", "0", check=0)
    assert "note: signals: 1 documents of unknown language" in done.stdout
    assert "note: rules: 1 documents without gopher_stop_words" in done.stdout
    assert "documents of unknown language" in (tmp_path / "run" / "report.html").read_text("utf-8")
