"""c4_lines: which lines go, what is left of the others, and that it is what datatrove leaves."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from curate.stages.c4_lines import C4Lines

LINES = [
    "It was a bright cold day in April.", "And the clocks were striking thirteen!", "Menu", "Home | About | Contact", "", "  ",
    "Please enable JavaScript to see this.", "We use cookies, as everyone does.", "Our Privacy Policy is long.", "Read on...",
    "It rained. [3]", "It rained.[3] [edit]", "  The sun came out.[citation needed]  ", "[1] The moon did not.", "[1]", "[]",
    "x" * 1001 + " is a long word.", "Quoth he: 'No more.'", "Lorem ipsum dolor sit amet.", "A { stands in the middle.",
    "這是四月中一個晴朗而寒冷的日子。", "\u3000Wide spaces around this.\u3000",
]  # fmt: skip
PHRASES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
texts = st.lists(st.sampled_from(LINES), max_size=12).flatmap(
    lambda lines: st.sampled_from(["\n", "\n\n", "\r\n", "\u2028", "\x0b"]).map(lambda end: end.join(lines))
)


def cleaned(text, **parameters):
    """(text, lines removed) or None where nothing is left."""
    result = C4Lines(**parameters)([text])
    if not result.kept.num_rows:
        assert result.dropped["_reason"].to_pylist() == ["c4_lines.nothing_left"]
        return None
    return result.kept["text"][0].as_py(), result.kept["c4_lines_removed"][0].as_py()


def plainly_cleaned(text, terminal_punctuation, min_words, max_word_length, javascript, policy, citations):
    kept, removed = [], 0
    for line in map(str.strip, text.splitlines()):
        words = line.split()
        if citations:
            line = re.sub(r"\[[0-9]*\]|\[edit\]|\[citation needed\]", "", line)
        if (
            (max_word_length is not None and any(len(word) > max_word_length for word in words))
            or (terminal_punctuation and (not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")))
            or (min_words is not None and len(words) < min_words)
            or (javascript and "javascript" in line.lower())
            or (policy and any(phrase in line.lower() for phrase in PHRASES))
        ):
            removed += 1
        else:
            kept.append(line)
    found = "\n".join(kept).strip()
    return (found, removed) if found else None


@given(
    texts,
    st.fixed_dictionaries(
        {
            "terminal_punctuation": st.booleans(),
            "min_words": st.sampled_from([None, 0, 1, 3, 6]),
            "max_word_length": st.sampled_from([None, 1, 12, 1000]),
            "javascript": st.booleans(),
            "policy": st.booleans(),
            "citations": st.booleans(),
        }
    ),
)
def test_against_a_plain_reading(text, parameters):
    assert cleaned(text, **parameters) == plainly_cleaned(text, **parameters)


@pytest.mark.parametrize(
    "parameters, theirs", [({}, {}), ({"terminal_punctuation": False}, {"filter_no_terminal_punct": False})]
)
def test_against_datatrove(parameters, theirs):
    filters = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document

    peer = filters.C4QualityFilter(min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False, **theirs)

    @given(texts)
    def same(text):
        document = Document(text=text, id="0")
        assert peer.filter(document) is True
        assert (cleaned(text, **parameters) or [""])[0] == document.text

    same()


def test_real_pages_against_datatrove(shared_data):
    filters = pytest.importorskip("datatrove.pipeline.filters")
    pq = pytest.importorskip("pyarrow.parquet")
    from datatrove.data import Document

    table = pq.read_table(shared_data / "quality" / "quality.parquet", columns=["text", "kind"]).to_pylist()
    texts = [row["text"] for row in table if row["kind"].startswith("web_")][:400]
    result = C4Lines()(texts)
    ours = dict(zip(result.kept["id"].to_pylist(), result.kept["text"].to_pylist(), strict=True))
    peer = filters.C4QualityFilter(min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False)
    for i, text in enumerate(texts):
        document = Document(text=text, id="0")
        peer.filter(document)
        assert ours.get(str(i), "") == document.text
    assert 100 < len(ours) < len(texts)


def test_lines_that_lose_their_space_with_a_citation_mark():
    assert cleaned("[1] It rained all day.\nAnd the next.") == ("It rained all day.\nAnd the next.", 0)
    assert cleaned("[1]\nIt rained.", terminal_punctuation=False, min_words=None) == ("It rained.", 0)


def test_a_clean_text_is_not_copied():
    batch = pa.table({"text": ["It rained all day.\nThe sun came out.", "Another one of these."]})
    assert C4Lines()(batch).kept["text"].to_pylist() == batch["text"].to_pylist()
    from curate.stage import Task

    given = pa.RecordBatch.from_pydict({"text": pa.array(["It rained all day."])})
    out = C4Lines().open(Task(phase="", rank=0))(given)
    assert out["text"].buffers()[2].address == given["text"].buffers()[2].address


def test_slices_of_a_batch_and_missing_texts():
    from curate.stage import Task

    given = pa.RecordBatch.from_pydict({"text": pa.array(["Menu\nIt rained all day.", None, "Foot\nThe sun came out.", ""])})
    out = C4Lines().open(Task(phase="", rank=0))(given.slice(1))
    assert out["text"].to_pylist() == ["", "The sun came out.", ""]
    assert out["c4_lines_removed"].to_pylist() == [0, 1, 0]
    assert out["_reason"].to_pylist() == ["c4_lines.nothing_left", None, "c4_lines.nothing_left"]
    assert out["_value"].to_pylist() == [0.0, None, 0.0]


def test_other_ends_of_a_line():
    text = "這是四月中一個晴朗而寒冷的日子。\n首頁\nIt rained all day."
    assert cleaned(text, end_marks="。", min_words=1) == ("這是四月中一個晴朗而寒冷的日子。", 2)
    assert cleaned(text, min_words=-1, max_word_length=-1) == ("It rained all day.", 2)
    assert cleaned(text) == ("It rained all day.", 2)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"end_marks": ""}, "end_marks is empty"),
        ({"min_words": -2}, "min_words is -2"),
        ({"max_word_length": 0}, "max_word_length is 0"),
    ],
)
def test_wrong_parameters(wrong, message):
    with pytest.raises(RecipeError, match=message):
        C4Lines(**wrong)
