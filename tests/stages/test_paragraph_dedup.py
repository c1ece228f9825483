"""paragraph_dedup against a set of what has been seen."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repeated import cuts, fold, judged, run, texts, units, worth

from curate.errors import RecipeError
from curate.stages.paragraph_dedup import ParagraphDedup

ignored = st.sets(st.sampled_from(["case", "digits", "punctuation"])).map(lambda s: tuple(sorted(s)))


def seen_before(documents, unit, ignore, min_chars):
    seen, found = set(), []
    for text in documents:
        gone = []
        for lines, said in units(text, unit == "block"):
            if worth(said) >= min_chars:
                if fold(said, ignore) in seen:
                    gone.append(lines)
                seen.add(fold(said, ignore))
        found.append(gone)
    return found


@given(st.lists(texts, max_size=12), st.sampled_from(["line", "block"]), ignored, st.sampled_from([1, 4, 9]), cuts)
def test_against_a_set(documents, unit, ignore, min_chars, cut):
    gone = seen_before(documents, unit, ignore, min_chars)
    assert run(ParagraphDedup(unit=unit, ignore=ignore, min_chars=min_chars), documents, **cut) == judged(documents, gone)


def test_blocks():
    first = "Notice to all readers\nof this page.\n\nOne."
    second = "Two.\n\n\nNotice to all  readers of\nthis page.\n\nThree.\n\nTwo."
    result = ParagraphDedup(unit="block", min_chars=3)([first, second, "notice to ALL\n\nreaders of this page."])
    assert result.kept["text"].to_pylist() == [first, "Two.\n\n\nThree.", "notice to ALL\n\nreaders of this page."]
    assert result.kept["paragraph_dedup_removed"].to_pylist() == [0, 2, 0]


def test_a_document_that_repeats_another_drops():
    text = "A paragraph that is long enough to be compared.\n\nAnother of which the same can be said."
    result = ParagraphDedup()([text, "  " + text.upper()])
    assert result.dropped["id"].to_pylist() == ["1"]
    assert result.dropped["_reason"].to_pylist() == ["paragraph_dedup.empty"]
    assert result.dropped["_value"].to_pylist() == [2]
    assert ParagraphDedup()(["Short.", "Short."]).dropped.num_rows == 0


def test_many_paragraphs_in_many_partitions(monkeypatch):
    monkeypatch.setattr("curate.repeats.DOCS_PER_PARTITION", 300)
    documents = ["\n".join(f"paragraph number {(i * j) % 2003}" for j in range(1, 8)) for i in range(2000)]
    gone = seen_before(documents, "line", ("case",), 1)
    assert run(ParagraphDedup(min_chars=1), documents, shards=3, docs=300, size=100) == judged(documents, gone)


def test_a_shard_of_more_lines_than_are_held(monkeypatch):
    """Keys are put together on the way, so that a shard of nothing but short lines takes no more than its distinct ones."""
    from curate.repeats import _Tally

    monkeypatch.setattr("curate.repeats.TALLY", 50)
    kept = []
    merged = _Tally.merged
    monkeypatch.setattr(_Tally, "merged", lambda self: kept.append(self._rows) or merged(self))
    documents = [f"yes\nno\nword {i % 5}" for i in range(200)]
    assert run(ParagraphDedup(min_chars=1), documents, batch=7) == judged(
        documents, seen_before(documents, "line", ("case",), 1)
    )
    assert len(kept) > 5 and max(kept) < 50 + 2 * 7 * 3


def test_real_texts(shared_data):
    import pyarrow.parquet as pq

    documents = pq.read_table(shared_data / "quality" / "quality.parquet", columns=["text"])["text"].to_pylist()[1500:2700]
    for unit in ("line", "block"):
        gone = seen_before(documents, unit, ("case",), 20)
        assert run(ParagraphDedup(unit=unit), documents, shards=4) == judged(documents, gone)
        assert sum(map(len, gone)) > 300


@pytest.mark.parametrize(
    "wrong, message",
    [({"unit": "page"}, "unit is 'page'"), ({"min_chars": 0}, "min_chars is 0"), ({"ignore": ("accents",)}, "ignore holds")],
)
def test_parameters_that_make_no_sense(wrong, message):
    with pytest.raises(RecipeError, match=f"paragraph_dedup: {message}"):
        ParagraphDedup(**wrong)


def test_the_input_order_decides_not_the_order_of_shards():
    documents = [f"own {i}\nA paragraph that all of these documents share." for i in range(40)]
    for shards in (1, 2, 4):
        found = run(ParagraphDedup(min_chars=5), documents, shards=shards, batch=3)
        assert [n for _, n, _, _ in found] == [0] + [1] * 39
    assert pa.array([f[0] for f in found])[0].as_py() == documents[0]
