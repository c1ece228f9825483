"""propagate: what a student makes of labels that a part of a corpus has, in the cases that go wrong too."""

import random
from collections import Counter

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from corpus import curate, recipe, refused, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from curate import classify
from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.recipe import Recipe
from curate.stages import propagate
from curate.stages.propagate import Propagate
from curate.testing import run_over

WORDS = {
    "river bank": "river water boat fish bridge flood shore stream".split(),
    "kitchen": "oven flour butter spoon plate recipe dough sugar".split(),
    "100% law": "court judge statute appeal verdict clause counsel bail".split(),
}
SMALL = {"dim": 10, "bucket": 2000, "epoch": 25, "lr": 0.5}


def topics(n, seed=0, labelled=0.5):
    """Texts of three topics, of which some say which."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        topic = rng.choice(sorted(WORDS))
        text = " ".join(rng.choice(WORDS[topic]) for _ in range(rng.randint(8, 30))) + f" {i}"
        rows.append({"id": f"d{i}", "text": text, "truth": topic, "topic": topic if rng.random() < labelled else None})
    return rows


def rated(n, seed=0, labelled=0.5, noise=0.3):
    """Vectors, of which some have a rating from 0 to 4 that follows from them."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = np.clip(np.rint(2 + 3 * vectors[:, 0] + rng.normal(size=n) * noise), 0, 4).astype(int)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel().astype(np.float16)), 6)
    stars = pa.array([int(t) if rng.random() < labelled else None for t in truth], pa.int64())
    table = pa.table({"text": ["x" * i for i in range(n)], "embedding": column, "stars": stars})
    return as_table(table), truth


def linear(**more):
    return Propagate(**{"labels": ("stars",), "student": "linear", "task": "regression", **more})


def test_ratings_reach_documents_without_one():
    table, truth = rated(600)
    kept = linear()(table).kept
    found = kept["stars_pred"].to_numpy()
    unseen = ~np.asarray(table["stars"].is_valid())
    assert kept.schema.field("stars_pred").type == pa.float32()
    assert np.corrcoef(found[unseen], truth[unseen])[0, 1] > 0.9
    assert np.abs(np.rint(found) - truth)[unseen].mean() < 0.5


def test_classes_reach_documents_without_one():
    rows = topics(400)
    kept = Propagate(labels=("topic",), options=SMALL)(rows).kept
    right = [said == row["truth"] for said, row in zip(kept["topic_pred"].to_pylist(), rows, strict=True)]
    assert np.mean(right) > 0.97
    assert set(kept["topic_pred"].to_pylist()) == set(WORDS)  # with their spaces and their per cent
    scores = kept["topic_pred_score"].to_numpy()
    assert kept.schema.field("topic_pred_score").type == pa.float32() and (scores > 0.3).all() and (scores <= 1).all()


def test_fasttext_answers_the_mean_of_ratings():
    rng = random.Random(3)
    rows = [{"text": " ".join(rng.choice(WORDS[name]) for _ in range(20)), "n": n}
            for n, name in enumerate(sorted(WORDS)) for _ in range(100)]  # fmt: skip
    rows.append({"text": " ".join(WORDS["kitchen"] + WORDS["100% law"]), "n": None})
    found = Propagate(labels=("n",), options=SMALL)(rows).kept["n_pred"].to_pylist()
    for n, name in enumerate(sorted(WORDS)):
        assert abs(np.mean(found[100 * n : 100 * (n + 1)]) - n) < 0.2, name
    assert 0.1 < found[-1] < 1.9


def test_the_score_of_one_class():
    rows = topics(300)
    kept = Propagate(labels=("topic",), options=SMALL, score_of="kitchen")(rows).kept
    scores, said = kept["topic_pred_score"].to_numpy(), np.array(kept["topic_pred"].to_pylist())
    assert scores[said == "kitchen"].min() > 0.3 > scores[said != "kitchen"].mean()
    with pytest.raises(StageError, match="did you mean 'kitchen'"):
        Propagate(labels=("topic",), options=SMALL, score_of="kitchens")(rows)


def test_several_heads_of_two_kinds():
    table, _ = rated(500, labelled=0.6)
    high = [None if v is None else ("high" if v > 2 else "low") for v in table["stars"].to_pylist()]
    table = table.append_column("level", pa.array(high))
    kept = Propagate(labels=("stars", "level"), student="linear", task={"stars": "regression"})(table).kept
    assert {"stars_pred", "level_pred", "level_pred_score"} <= set(kept.column_names)
    assert set(kept["level_pred"].to_pylist()) == {"high", "low"}
    agree = (kept["stars_pred"].to_numpy() > 2.5) == np.array([v == "high" for v in kept["level_pred"].to_pylist()])
    assert agree.mean() > 0.9


@pytest.mark.parametrize("shards, batch", [(1, 7), (3, 1024), (4, 50)])
def test_shards_and_batches_change_nothing(shards, batch):
    table, _ = rated(300)
    for stage in (linear(max_examples=100), Propagate(labels=("topic",), task="classes", options=SMALL, max_examples=150)):
        docs = table if stage.student == "linear" else as_table(pa.Table.from_pylist(topics(300)))
        assert run_over(stage, docs, shards=shards, batch=batch).rows.equals(run_over(stage, docs).rows)


def test_what_is_not_there_is_null_and_counted():
    rows = [*topics(300), {"text": "", "topic": "kitchen"}, {"text": None, "topic": None}, {"text": "\n", "topic": None}]
    kept = Propagate(labels=("topic",), options=SMALL)(rows).kept
    assert kept["topic_pred"].to_pylist()[300] is None and kept["topic_pred_score"].to_pylist()[301] is None
    table, _ = rated(300)
    vectors = table["embedding"].to_pylist()
    vectors[:4] = [None, [0.0] * 6, [float("nan")] * 6, [float("inf")] + [0.0] * 5]
    at = table.schema.get_field_index("embedding")
    table = table.set_column(at, "embedding", pa.array(vectors, pa.list_(pa.float16(), 6)))
    found = linear()(table).kept["stars_pred"].to_pylist()
    assert found[:4] == [None] * 4 and None not in found[4:]


def test_labels_that_are_none():
    table, _ = rated(400, labelled=1)
    stars = table["stars"].cast(pa.float64()).to_pylist()
    stars[:100] = [float("nan"), float("inf"), -float("inf"), None] * 25
    at = table.schema.get_field_index("stars")
    table = table.set_column(at, "stars", pa.array(stars))
    assert None not in linear()(table).kept["stars_pred"].to_pylist()
    rows = topics(300)
    for row in rows[:50]:
        row["topic"] = ""
    assert "" not in Propagate(labels=("topic",), options=SMALL)(rows).kept["topic_pred"].to_pylist()


# --------------------------------------------------------------------------------------------- what is refused


def test_a_head_that_does_not_agree_is_refused():
    table, _ = rated(500, labelled=1)
    luck = np.random.default_rng(5).integers(0, 5, 500)
    table = table.append_column("luck", pa.array(luck))
    stage = Propagate(labels=("stars", "luck"), student="linear", task="regression")
    with pytest.raises(
        StageError, match=r"'luck' \(kappa -?0\.\d+, macro-F1 0\.\d+ on 51 held-out documents, below 0\.3\)"
    ) as said:
        stage(table)
    assert "'stars'" not in str(said.value) and "min_agreement" in str(said.value)
    Propagate(labels=("stars", "luck"), student="linear", task="regression", min_agreement={"luck": -1})(table)
    with pytest.raises(StageError, match="'stars'"):
        linear(min_agreement=0.999)(table)


@pytest.mark.parametrize(
    "stars, says",
    [
        ([3] * 50, "all 50 labels are '3'"),
        ([None] * 50, "no document has a label in stars"),
        ([1, 2] + [None] * 48, "2 labelled documents: too few"),
    ],
)
def test_nothing_to_learn(stars, says):
    table, _ = rated(50)
    at = table.schema.get_field_index("stars")
    with pytest.raises(StageError, match=says):
        linear()(table.set_column(at, "stars", pa.array(stars, pa.int64())))


def test_columns_that_cannot_be_learned():
    table, _ = rated(50, labelled=1)
    with pytest.raises(StageError, match="holds no embeddings"):
        linear(embedding="text")(table)
    with pytest.raises(StageError, match="cannot be learned as regression"):
        Propagate(labels=("text",), student="linear", task="regression")(table)
    with pytest.raises(RecipeError, match="labels are strings, booleans or numbers"):
        Propagate(labels=("embedding",), student="linear")(table)
    many = table.append_column("name", pa.array([f"n{i}" for i in range(50)]))
    with pytest.raises(StageError, match="too few to learn"):
        Propagate(labels=("name",), student="linear")(many)


def test_too_many_classes_and_ratings():
    rows = [{"text": f"word {i}", "name": f"n{i % 300}", "x": i / 7} for i in range(600)]
    with pytest.raises(StageError, match="300 different values: at most 256"):
        Propagate(labels=("name",), options=SMALL)(rows)
    with pytest.raises(StageError, match="600 different ratings"):
        Propagate(labels=("x",), options=SMALL)(rows)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": ("a",), "positive": ("b",)},
        {"labels": ("a", "a")},
        {"labels": ("a",), "student": "forest"},
        {"positive": ("a",), "score_of": "hq"},
        {"positive": ("b",), "student": "linear"},
        {"labels": ("a",), "holdout": 0},
        {"labels": ("a",), "holdout": 1},
        {"labels": ("a",), "suffix": ""},
        {"labels": ("a",), "task": "ranking"},
        {"labels": ("a",), "task": {"b": "classes"}},
        {"labels": ("a",), "min_agreement": {"b": 0.1}},
        {"labels": ("a", "b"), "balance": True},
        {"labels": ("a",), "options": {"l2": 1}},
        {"labels": ("a",), "max_examples": 1},
    ],
)
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="propagate: "):
        Propagate(**wrong)


def test_nothing_is_asked_for():
    with pytest.raises(RecipeError, match="give `labels`, columns of the corpus, or `positive`"):
        Propagate()(topics(10))


# --------------------------------------------------------------------------------------------- hold-out and agreement


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=80),
    st.sampled_from([0.1, 0.3, 0.5, 0.9]),
    st.integers(0, 3),
)
def test_hold_out(rows, share, seed):
    labels = np.array([label for label, _ in rows], object)
    groups = np.array([g * 0x9E3779B97F4A7C15 % 2**64 for _, g in rows], np.uint64)
    stage = Propagate(labels=("x",), holdout=share, seed=seed)
    out = propagate._held_out(labels, groups, stage)
    sides = {}
    for g, side in zip(groups.tolist(), out.tolist(), strict=True):
        assert sides.setdefault(g, side) == side  # equal texts are on one side
    first = {g: label for label, g in reversed(list(zip(labels.tolist(), groups.tolist(), strict=True)))}
    share = max(share, min(0.5, 50 / len(first)))
    for label, n in Counter(first.values()).items():
        held = sum(sides[g] for g, of in first.items() if of == label)
        assert held == (0 if n == 1 else min(max(1, round(share * n)), n - 1))


def test_near_duplicates_are_on_one_side(monkeypatch):
    """Versions of a text, some with another number or a word more, and texts without words, which are strangers."""
    groups = []
    real = propagate._held_out

    def held_out(labels, given, stage):
        groups.append(given)
        return real(labels, given, stage)

    monkeypatch.setattr(propagate, "_held_out", held_out)
    table, _ = rated(120, labelled=1)
    rng = random.Random(2)
    words = [w for of in WORDS.values() for w in of]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(30)]
    versions = [version for t in texts for version in (t, f"{t} {len(t)}", f"{t}\n\n{len(t) + 1}", "!")]
    linear(min_agreement=-1)(table.set_column(table.schema.get_field_index("text"), "text", pa.array(versions)))
    found = dict(zip(np.asarray(propagate._order(linear(), table["id"].combine_chunks())), versions, strict=True))
    in_order = [found[h] for h in sorted(found)]
    of = dict[str, set[int]]()
    for text, group in zip(in_order, groups[0].tolist(), strict=True):
        of.setdefault(text[:100], set()).add(group)
    assert len(of["!"]) == 30
    assert all(len(sides) == 1 for text, sides in of.items() if text != "!")
    assert len({next(iter(sides)) for text, sides in of.items() if text != "!"}) == 30


def test_max_examples_and_balance(monkeypatch):
    """Those of the lowest hashes are used, and of classes equally many."""
    used = []
    real = propagate._learn

    def learn(stage, head, examples, made, scratch):
        used.append(examples)
        return real(stage, head, examples, made, scratch)

    monkeypatch.setattr(propagate, "_learn", learn)
    rows = topics(400, labelled=0.8)
    for row in rows:
        if row["topic"] == "kitchen" and int(row["id"][1:]) % 5:
            row["topic"] = None
    labelled = [row for row in rows if row["topic"]]
    ids = pa.array([row["id"] for row in labelled])
    Propagate(labels=("topic",), options=SMALL, max_examples=120)(rows)
    order = np.argsort(propagate._order(Propagate(labels=("topic",)), ids))
    assert used[-1].table["text"].to_pylist() == [labelled[i]["text"] for i in order[:120]]
    Propagate(labels=("topic",), options=SMALL, balance=True)(rows)
    counts = Counter(used[-1].table["topic"].to_pylist())
    assert set(counts.values()) == {sum(row["topic"] == "kitchen" for row in labelled)}
    Propagate(labels=("topic",), options=SMALL, balance=True, max_examples=30)(rows)
    assert set(Counter(used[-1].table["topic"].to_pylist()).values()) == {10}


# --------------------------------------------------------------------------------------------- references


def references(folder, n=150):
    rows = [row for row in topics(3 * n, seed=9) if row["truth"] == "kitchen"][:n]
    return write_jsonl(folder / "references.jsonl", [{"text": row["text"]} for row in rows]), rows


def test_references_against_the_corpus(tmp_path):
    path, positives = references(tmp_path)
    rows = [
        *topics(300),
        *({"id": f"r{i}", "text": row["text"].upper(), "truth": "reference"} for i, row in enumerate(positives)),
    ]
    kept = Propagate(positive=(str(path),), options=SMALL, into="like")(rows).kept
    assert kept.schema.field("like").type == pa.float32() and kept["like"].null_count == 0
    mean = {of: np.mean([s for s, r in zip(kept["like"].to_pylist(), rows, strict=True) if r["truth"] == of]) for of in WORDS}
    assert mean["kitchen"] > 0.5 > max(mean["river bank"], mean["100% law"])


def test_copies_of_references_are_no_counterexamples(tmp_path):
    path, positives = references(tmp_path)
    stage = Propagate(positive=(str(path),), options=SMALL)
    with pytest.raises(StageError, match="no document of the corpus is left"):
        stage([row["text"].replace(" ", "  ") + "!" for row in positives])


def test_references_that_are_none(tmp_path):
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"text": " "}, {"text": ""}])
    with pytest.raises(StageError, match="hold no text"):
        Propagate(positive=(str(empty),), options=SMALL)(topics(30))
    with pytest.raises(RecipeError, match="does not exist"):
        Propagate(positive=(str(tmp_path / "nowhere.jsonl"),))(topics(30))


# --------------------------------------------------------------------------------------------- in a run

RECIPE = """\
name: taught
source: auto
stages:
  - propagate: {labels: [topic], options: {dim: 10, bucket: 2000, epoch: 25, lr: 0.5}}
  - where: {sql: "topic_pred = 'kitchen'"}
output: {columns: [id, text, truth, topic_pred, topic_pred_score], shard_mb: 1}
"""


def test_a_run_keeps_the_student_and_its_card(tmp_path):
    data = write_jsonl(tmp_path / "docs.jsonl", topics(400))
    out = tmp_path / "run"
    done = curate("run", recipe(tmp_path, RECIPE), "-i", data, "-o", out, "-w", "1", check=0)
    assert "held-out documents, on which 'topic' agrees with its labels: kappa" in done.stdout
    (folder,) = (out / "index").glob("propagate-*/topic")
    about = classify.about(folder)
    figures = about.raw["metrics"]
    assert "documents taught 'topic'" in done.stdout
    assert f"{figures['documents']:,} documents" in (folder / "card.md").read_text()
    kept = pl.read_parquet(out / "output" / "data" / "*.parquet")
    assert len(kept) > 50 and set(kept["truth"]) == {"kitchen"}
    scores = classify.load(folder).scores(kept["text"].to_arrow())
    assert np.array_equal(scores[:, about.labels.index("kitchen")], kept["topic_pred_score"].to_numpy())
    curate("verify", out, check=0)
    again = tmp_path / "again"
    Recipe.load(recipe(tmp_path, RECIPE)).with_inputs([str(data)]).run(again, workers=2)
    (other,) = (again / "index").glob("propagate-*/topic")
    for name in ("classifier.json", "model.bin", "card.md"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_a_run_stops_in_one_line(tmp_path):
    rng = random.Random(1)
    rows = [{**row, "topic": rng.choice("ab")} for row in topics(200)]
    data = write_jsonl(tmp_path / "docs.jsonl", rows)
    refused(
        "run", recipe(tmp_path, RECIPE), "-i", data, "-o", tmp_path / "run", "-w", "1", code=1, says="does not agree enough"
    )
    refused("run", recipe(tmp_path, RECIPE.replace("topic]", "topik]")), "-i", data, "-o", tmp_path / "r2", says="'topik'")
