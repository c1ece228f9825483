"""exact_dedup against a dictionary."""

import random
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import StageError
from curate.kernels.keys import hash128, normalise
from curate.memory import as_table
from curate.stages.exact_dedup import ExactDedup
from curate.testing import hostile_texts, run_over


def by_dictionary(keys):
    """[(row, row of the first equal)] of the repeats."""
    first, repeats = {}, []
    for row, key in enumerate(keys):
        if key is None:
            continue
        if key in first:
            repeats.append((row, first[key]))
        else:
            first[key] = row
    return repeats


def naive_normalise(text):
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(
        "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] in "LMN").split()
    )


def repeats_of(outcome):
    return [(d["_row"], int(d["_duplicate_of"])) for d in outcome.drops.to_pylist()]


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc"), st.text(max_size=3)), max_size=30), st.integers(1, 4))
def test_the_first_of_equals_stays(texts, shards):
    table = as_table(pa.table({"text": pa.array(texts, pa.string())}))
    outcome = run_over(ExactDedup(), table, shards=shards, batch=5)
    assert repeats_of(outcome) == by_dictionary(texts)
    assert set(outcome.drops["_similarity"].to_pylist()) <= {1.0}
    assert set(outcome.drops["_reason"].to_pylist()) <= {"exact_dedup.duplicate"}


def test_many_documents_in_many_partitions(monkeypatch):
    monkeypatch.setattr("curate.stages.exact_dedup.DOCS_PER_PARTITION", 700)
    rng = random.Random(0)
    texts = [str(rng.randrange(3000)) for _ in range(5000)]
    table = as_table(texts)
    assert ExactDedup().partitions(len(table)) == 8
    assert repeats_of(run_over(ExactDedup(), table, shards=3)) == by_dictionary(texts)


@pytest.mark.parametrize("column", ["url", "n", "score", "raw", "day"])
def test_any_column_may_be_the_key(column):
    values = [1, 2, 1, None, None, 2, 3]
    make = {
        "url": lambda v: f"http://{v}.test",
        "n": int,
        "score": lambda v: v / 3,
        "raw": lambda v: bytes([v, 255]),
        "day": lambda v: __import__("datetime").date(2026, 1, v),
    }[column]
    table = as_table(pa.table({"text": list("abcdefg"), column: [None if v is None else make(v) for v in values]}))
    assert repeats_of(run_over(ExactDedup(by=column), table)) == [(2, 0), (5, 1)]


def test_a_column_without_a_text_form_is_refused():
    with pytest.raises(StageError, match="cannot be compared"):
        ExactDedup(by="tags")(pa.table({"text": ["a"], "tags": [["x"]]}))


texts = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("Aa é.,!—ßİ\u0301\u3000ﬁΣς\x1c\n")), max_size=40
)


@given(st.lists(texts, min_size=1))
def test_normalisation_is_that_of_the_definition(values):
    assert fold(values) == [naive_normalise(v) for v in values]


def fold(values):
    return [v.decode() for v in normalise(pa.array(values, pa.string())).to_pylist()]


def test_normalisation_of_hostile_and_remembered_texts():
    values = [t for t in hostile_texts() if t] * 2
    assert fold(values) == [naive_normalise(v) for v in values]


def test_what_counts_as_equal_when_normalised():
    same = ["Hello,  World!", "hello world", "ＨＥＬＬＯ\nworld…", "«Hello» World"]
    other = ["hello worlds", "helloworld", "!!!", "???"]
    result = ExactDedup(by="normalised")(same + other)
    assert result.kept["text"].to_pylist() == [same[0], *other]
    assert ExactDedup(by="normalised")(["!!!", "???", "!!!"]).dropped["id"].to_pylist() == ["2"]
    assert ExactDedup(by="normalised")(["का", "कि"]).dropped.num_rows == 0  # vowel signs are marks, not punctuation


def test_the_hash_is_xxh3_of_the_bytes():
    import xxhash

    values = [t or "" for t in hostile_texts()]
    keys = hash128(pa.array(["skipped", *values]).slice(1))
    assert [(int(h) << 64) | int(low) for h, low in keys] == [xxhash.xxh3_128_intdigest(v.encode()) for v in values]


def test_the_largest_cluster_is_counted():
    from curate.stage import Task

    stage, task = ExactDedup(), Task(phase="reduce", rank=0)
    keys = {"high": [1, 1, 1, 2, 2, 3], "low": [1, 1, 2, 1, 1, 1]}
    table = pa.table(
        {
            **{k: pa.array(v, pa.uint64()) for k, v in keys.items()},
            "shard": pa.array([0, 1, 0, 5, 2, 0], pa.uint32()),
            "row": pa.array([7, 0, 1, 0, 9, 2], pa.uint32()),
            "id": list("abcdef"),
        }
    )
    found = stage.reduce(iter([table]), task).to_pylist()
    assert found == [{"shard": 1, "row": 0, "duplicate_of": "a"}, {"shard": 5, "row": 0, "duplicate_of": "e"}]
    assert task.counters == {"cluster": 2}


def test_revisions_in_real_data(shared_data):
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["id", "text"])
    expected = by_dictionary([" ".join(t.split()) for t in table["text"].to_pylist()])
    dropped = set(ExactDedup(by="normalised")(table).dropped["id"].to_pylist())
    assert {table["id"][row].as_py() for row, _ in expected} <= dropped


def test_an_index_is_kept_added_to_and_deduplicated_against(tmp_path, monkeypatch):
    import json

    from curate.errors import RecipeError
    from curate.recipe import loads

    monkeypatch.setattr("curate.stages.exact_dedup.DOCS_PER_PARTITION", 3)

    def run(name, texts, options):
        source = tmp_path / f"{name}.jsonl"
        source.write_text("\n".join(json.dumps({"id": f"{name}{i}", "text": text}) for i, text in enumerate(texts)))
        recipe = f"name: {name}\nsource: {{jsonl: {{paths: [{source}]}}}}\nstages:\n  - exact_dedup: {options}\n"
        done = loads(recipe, "recipe.yaml").run(tmp_path / name, executor="inline")
        done.verify()
        return {row["id"]: row["_duplicate_of"] for row in done.drops("exact_dedup").to_pylist()}

    assert run("a", ["one", "two", "one", "three"], "{keep_index: true}") == {"a2": "a0"}
    found = run("b", ["two", "four", "four", "five"], f"{{keep_index: true, against: {tmp_path / 'a'}}}")
    assert found == {"b0": "a1", "b2": "b1"}
    found = run("c", ["three", "four", "six", "six", "one"], f"{{against: {tmp_path / 'b'}}}")
    assert found == {"c0": "a3", "c1": "b1", "c3": "c2", "c4": "a0"}
    with pytest.raises(RecipeError, match="was made with by: text, not url"):
        run("d", ["one"], f"{{by: url, against: {tmp_path / 'b'}}}")
    with pytest.raises(RecipeError, match="no index in"):
        run("e", ["one"], f"{{against: {tmp_path / 'c'}}}")
    made = json.loads(next(tmp_path.glob("b/index/*/index.json")).read_text())
    assert made["documents"] == 5 and [part["documents"] for part in made["parts"]] == [3, 2]


def test_an_index_needs_a_run_folder():
    with pytest.raises(StageError, match="run folder"):
        ExactDedup(keep_index=True)(["a"])
