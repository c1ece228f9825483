"""embed: the fit on a sample, what does not change a byte, and the column that comes out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from corpus import curate, recipe, refused, rows, write_jsonl
from tiny_models import sentence_transformer, texts

from curate import embeddings
from curate.errors import RecipeError
from curate.memory import as_table
from curate.recipe import Recipe
from curate.run import run
from curate.stages.embed import Embed, half
from curate.testing import check_stage, run_over


def column(outcome, name="embedding"):
    """The vectors of a run over a table, float32, NaN where there is none."""
    values = outcome.rows[name].combine_chunks()
    flat = np.asarray(values.values).reshape(len(values), -1).astype(np.float32)
    return np.where(np.asarray(values.is_valid())[:, None], flat, np.nan)


def docs(n=80, seed=0):
    return as_table(pa.table({"text": texts(n, seed, 30)}))


def test_vectors_are_those_of_a_fit_on_all_texts():
    """Where the sample is larger than the corpus; the order of the fit is that of the hashes."""
    table = docs()
    order = np.argsort([key(42, f, r) for f, r in zip(*(table[c].to_pylist() for c in ("file", "record")), strict=True)])
    model = embeddings.fit_lsa(table["text"].take(pa.array(order)), 8)
    assert run_over(Embed(dim=8), table).rows["embedding"].combine_chunks().equals(half(model.encode(table["text"])))


def key(seed, file, record):
    """The hash that orders documents, naively."""
    return xxhash.xxh3_64_intdigest(record.to_bytes(8, "little"), xxhash.xxh3_64_intdigest(file.encode(), seed))


@pytest.mark.parametrize("pairs", [False, True])
def test_a_sample_is_the_lowest_hashes(pairs):
    table = docs(200)
    hashes = [key(7, f, r) for f, r in zip(*(table[c].to_pylist() for c in ("file", "record")), strict=True)]
    chosen = np.argsort(hashes)[:20]
    model = embeddings.fit_lsa(table["text"].take(pa.array(chosen)), 4, 7, pairs=pairs, words=12)
    expected = half(model.encode(table["text"]))
    stage = Embed(dim=4, sample=20, seed=7, pairs=pairs, words=12)
    for shards, batch in ((1, 1024), (4, 9), (7, 1)):
        assert run_over(stage, table, shards=shards, batch=batch).rows["embedding"].combine_chunks().equals(expected)


def test_what_has_no_words_has_no_vector():
    table = as_table(pa.table({"text": pa.array(["river stone", "", None, "?!", "river letter"])}))
    outcome = run_over(Embed(dim=4), table)
    values = outcome.rows["embedding"]
    assert values.type == pa.list_(pa.float16(), 4)
    assert [v is None for v in values.to_pylist()] == [False, True, True, True, False]
    lengths = np.linalg.norm(column(outcome)[[0, 4]], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-3)


def test_a_corpus_without_words():
    assert run_over(Embed(dim=4), as_table(pa.table({"text": ["", "  ", None]}))).rows["embedding"].null_count == 3


def test_another_column_and_the_default_size():
    result = Embed(into="vector")(["river stone", "stone letter"])
    assert result.kept["vector"].type == pa.list_(pa.float16(), 256)


def test_half_precision_of_what_is_not_finite():
    found = half(np.array([[1, 0], [np.nan, 0], [np.inf, 1], [0.5, 1e-9]], np.float32))
    assert found.to_pylist() == [[1, 0], None, None, [0.5, 0]]


RECIPE = """\
name: embedded
source: auto
stages:
  - embed: {dim: 16, keep: true, sample: 500}
  - where: {sql: "n % 7 <> 3"}
output: {shard_mb: 0.1, validation: 0, seed: 7}
"""


def test_runs_agree_and_the_fitted_model_can_be_used_again(tmp_path):
    documents = rows(400)
    documents[5]["text"] = "?"
    data = write_jsonl(tmp_path / "x.jsonl", documents)
    loaded = Recipe.load(recipe(tmp_path, RECIPE)).with_inputs([str(data)])
    one = run(loaded, tmp_path / "one", executor="inline")
    two = run(loaded, tmp_path / "two", executor="local", workers=2)
    assert one.manifest.digest == two.manifest.digest
    (noted,) = [s["notes"] for s in one.summary["stages"] if s["id"] == "embed"]
    assert list(noted.values()) == [1]
    (kept,) = (tmp_path / "one" / "index").rglob("lsa.npz")
    assert kept.read_bytes() == next((tmp_path / "two" / "index").rglob("lsa.npz")).read_bytes()
    again = RECIPE.replace("{dim: 16, keep: true, sample: 500}", f"{{model: {kept}}}")
    three = run(Recipe.load(recipe(tmp_path, again)).with_inputs([str(data)]), tmp_path / "three", executor="inline")
    for path in sorted((tmp_path / "one" / "output" / "data").iterdir()):
        other = pq.read_table(tmp_path / "three" / "output" / "data" / path.name, columns=["id", "embedding"])
        assert pq.read_table(path, columns=["id", "embedding"]).equals(other)
    assert three.manifest.digest != "" and Embed(model=str(kept)).files() == (str(kept),)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("sentence_transformers")
    return str(sentence_transformer(tmp_path_factory.mktemp("models") / "tiny"))


def test_a_transformer_keeps_the_promises_of_a_stage(tiny):
    check_stage(Embed(model=tiny, device="cpu"))


def test_a_transformer_by_its_first_numbers(tiny):
    table = docs(30)
    whole = column(run_over(Embed(model=tiny, device="cpu"), table))
    few = column(run_over(Embed(model=tiny, device="cpu", dim=5), table))
    assert whole.shape == (30, 32) and few.shape == (30, 5)
    np.testing.assert_allclose(few, embeddings.shortened(whole, 5), atol=2e-3)
    files = Embed(model=tiny).files()
    assert any(f.endswith("model.safetensors") for f in files) and any(f.endswith("1_Pooling/config.json") for f in files)


def test_bad_input_is_one_line(tmp_path, tiny):
    data = write_jsonl(tmp_path / "x.jsonl", rows(20))
    for stage, says in {
        "{model: nothing}": "no model of embeddings is called 'nothing'",
        f"{{model: {tmp_path}}}": "is no model of embeddings",
        f"{{model: {tiny}, dim: 33}}": "dim is 33, and the vectors",
        "{dim: -1}": "dim is -1",
    }.items():
        body = f"name: bad\nsource: auto\nstages:\n  - embed: {stage}\n"
        refused("run", recipe(tmp_path, body), "-i", data, "-o", tmp_path / "run", says=says)


@pytest.mark.parametrize(
    "wrong",
    [{"model": ""}, {"into": "_x"}, {"dim": 9000}, {"sample": 0}, {"device": "tpu"}, {"model": "minilm", "pairs": True},
     {"model": "minilm", "keep": True}],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="embed: "):
        Embed(**wrong)


def test_vectors_find_near_documents_through_a_run(tmp_path):
    """With the stage that reads them, from the command line; the vectors are not in the output."""
    pytest.importorskip("faiss")
    documents = rows(120)  # of which every tenth repeats another
    data = write_jsonl(tmp_path / "x.jsonl", documents)
    stages = "  - embed: {dim: 32}\n    transient: true\n  - semantic_dedup: {threshold: 0.9999}\n"
    body = f"name: near\nsource: auto\nstages:\n{stages}"
    curate("run", recipe(tmp_path, body), "-i", data, "-o", tmp_path / "run", check=0)
    table = pq.read_table(tmp_path / "run" / "output" / "data")
    assert "embedding" not in table.column_names and 100 < len(table) <= 108
