"""fasttext: the library's probabilities as columns, null where there is none, and one line for what cannot be."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import classify
from curate.errors import RecipeError
from curate.memory import as_table
from curate.stage import Task
from curate.stages import fasttext as stages
from curate.stages.fasttext import Fasttext
from curate.testing import CHECKS, check_docstring, documents, run_over
from curate.training.fit import fit_fasttext

library = pytest.importorskip("fasttext")
library.FastText.eprint = lambda *_: None

GOOD, BAD, ODD = "river stone garden window letter", "click here winner cash prize", "court law statute judge section"
TEXTS = [f"{words} {i % 7}\n{words.split()[i % 5]}" for i in range(30) for words in (GOOD, BAD, ODD)]
NAMES = ["hq", "cc", "law"] * 30
OPTIONS = {"dim": 8, "bucket": 1000, "ngrams": 2, "lr": 0.5}
ABOUT = {"name": "test", "kind": "fasttext", "labels": ["cc", "hq"], "positive": "hq"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`two`: a classifier with a positive label; `three`: one without; `two.bin`, `tree.bin`: bare files."""
    folder = tmp_path_factory.mktemp("classifiers")
    two = [i for i, name in enumerate(NAMES) if name != "law"]
    fit_fasttext([TEXTS[i] for i in two], [NAMES[i] for i in two], path=folder / "two.bin", **OPTIONS)
    fit_fasttext(TEXTS, NAMES, path=folder / "three.bin", **OPTIONS)
    fit_fasttext(TEXTS, [f"L{i % 30}" for i in range(len(TEXTS))], path=folder / "tree.bin", loss="hs", **OPTIONS)
    classify.save(folder / "two", ABOUT, model=folder / "two.bin")
    classify.save(folder / "three", ABOUT | {"labels": ["law", "hq", "cc"], "positive": None}, model=folder / "three.bin")
    return folder


def theirs(folder, name, texts):
    model = library.load_model(str(folder / f"{name}.bin"))
    found = []
    for text in texts:
        labels, p = model.predict(text.replace("\n", " "), k=-1)
        found.append({label.removeprefix("__label__"): float(x) - 1e-5 for label, x in zip(labels, p, strict=True)})
    return found


def test_the_positive_label_is_the_score(folder):
    result = Fasttext(model=str(folder / "two"))([*TEXTS, "Something else"])
    expected = [row["hq"] for row in theirs(folder, "two", [*TEXTS, "Something else"])]
    assert result.kept["quality"].type == pa.float32() and not len(result.dropped)
    assert result.kept["quality"].to_pylist() == pytest.approx(expected, abs=1e-6)
    assert "quality_score" not in result.kept.column_names


def test_another_label(folder):
    for model in ("two", "two.bin"):
        kept = Fasttext(model=str(folder / model), into="junk", label="cc")(TEXTS).kept
        assert kept["junk"].to_pylist() == pytest.approx([row["cc"] for row in theirs(folder, "two", TEXTS)], abs=1e-6)


@pytest.mark.parametrize("model", ["three", "three.bin"])
def test_the_best_label_where_none_is_positive(folder, model):
    kept = Fasttext(model=str(folder / model), into="kind")(TEXTS).kept
    expected = theirs(folder, "three", TEXTS)
    assert kept["kind"].to_pylist() == [max(row, key=row.__getitem__) for row in expected]
    assert kept["kind_score"].to_pylist() == pytest.approx([max(row.values()) for row in expected], abs=1e-6)


@pytest.mark.parametrize("label", ["", "hq"])
def test_all_labels_and_the_best_k(folder, label):
    stage = Fasttext(model=str(folder / "three"), into="x", label=label, all_labels=True, k=2)
    kept = stage([*TEXTS, ""]).kept
    expected = theirs(folder, "three", TEXTS)
    for name in ("law", "hq", "cc"):
        assert kept[f"x_{name}"].to_pylist() == [*(pytest.approx(row[name], abs=1e-6) for row in expected), None]
    for row, top in zip(expected, kept["x_top"].to_pylist(), strict=False):
        order = sorted(row, key=row.__getitem__, reverse=True)[:2]
        assert [pair["label"] for pair in top] == order
        assert [pair["score"] for pair in top] == pytest.approx([row[name] for name in order], abs=1e-6)
    assert kept["x_top"].to_pylist()[-1] is None
    first = [top[0]["label"] for top in kept["x_top"].to_pylist()[:-1]]
    assert kept["x"].to_pylist()[:-1] == (pytest.approx([row["hq"] for row in expected], abs=1e-6) if label else first)
    few = Fasttext(model=str(folder / "three"), into="x", label=label, k=1)([*TEXTS, ""]).kept["x_top"].to_pylist()
    assert [top and [top[0]] for top in kept["x_top"].to_pylist()] == few
    many = Fasttext(model=str(folder / "three"), into="x", label=label, k=9)(TEXTS).kept["x_top"].to_pylist()
    assert {len(top) for top in many} == {3}


def test_many_labels_in_a_tree(folder):
    stage = Fasttext(model=str(folder / "tree.bin"), into="kind")
    kept, full = stage([*TEXTS, "", None]).kept, dataclasses.replace(stage, all_labels=True)([*TEXTS, "", None]).kept
    assert kept["kind"].to_pylist() == full["kind"].to_pylist()
    assert kept["kind"].to_pylist()[-2:] == kept["kind_score"].to_pylist()[-2:] == [None, None]
    assert kept["kind_score"].to_pylist()[:-2] == pytest.approx(full["kind_score"].to_pylist()[:-2], abs=1e-6)


@pytest.mark.parametrize("parameters", [{"label": "hq"}, {}, {"label": "hq", "k": 1}, {"all_labels": True}])
def test_no_score_is_null_and_counted(folder, parameters):
    texts = ["river stone", "", None, " \n\t", "\x00", "</s> river", "unseen but paired"]
    task = Task(phase="test", rank=0)
    stage = Fasttext(model=str(folder / "three"), into="q", **parameters)
    table = as_table(pa.table({"text": pa.array(texts)}))
    batch = table.append_column("_row", pa.array(range(len(texts)), pa.uint32())).combine_chunks().to_batches()[0]
    out = stage.open(task)(batch)
    for name in stage.writes().names:
        assert out[name].is_valid().to_pylist() == [True, False, False, False, False, False, True], name
    assert task.counters == {stages.UNSCORED: 5}


def test_a_score_that_is_no_number_is_null_and_counted(folder, tmp_path):
    """A model with NaN in the row of one word: training that diverged, or a flipped bit."""
    data = bytearray((folder / "three.bin").read_bytes())
    model = library.load_model(str(folder / "three.bin"))
    row = np.array(model.get_input_vector(model.get_word_id("river")), np.float32).tobytes()
    at = bytes(data).index(row)
    data[at : at + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "m.bin").write_bytes(data)
    for parameters in ({"label": "hq"}, {}, {"k": 2}):
        stage = Fasttext(model=str(tmp_path / "m.bin"), into="q", **parameters)
        outcome = run_over(stage, as_table(["river stone", "stone window", "winner cash"]))
        assert outcome.rows["q"].is_valid().to_pylist() == [False, True, True]


def test_calibrated_or_not(folder, tmp_path):
    curve = {"kind": "isotonic", "x": [None, [0.0, 1.0]], "y": [None, [0.25, 0.75]]}
    classify.save(tmp_path / "c", ABOUT | {"calibration": curve}, model=folder / "two.bin")
    raw = np.array([row["hq"] for row in theirs(folder, "two", TEXTS)])
    found = [Fasttext(model=str(tmp_path / "c"), calibrated=yes)(TEXTS).kept["quality"].to_pylist() for yes in (True, False)]
    assert found[0] == pytest.approx(0.25 + raw / 2, abs=1e-6) and found[1] == pytest.approx(raw, abs=1e-6)


def test_preparation_is_the_classifiers_own_unless_told(folder, tmp_path):
    classify.save(tmp_path / "c", ABOUT | {"prepare": {"lower": True}}, model=folder / "two.bin")
    model, bare = str(tmp_path / "c"), str(folder / "two.bin")
    texts = ["River STONE", "Click; here!"]

    def scores(texts, **parameters):
        return Fasttext(label="hq", **parameters)(texts).kept["quality"].to_pylist()

    assert scores(texts, model=model) == scores([text.lower() for text in texts], model=bare)
    assert scores(texts, model=model, lower=False) == scores(texts, model=bare)
    assert scores(texts, model=model, words=True, max_chars=6) == scores(["river", "click"], model=bare)
    assert scores(["a\nb"], model=bare) == scores(["a b"], model=bare) == scores(["a b"], model=bare, one_line=False)


def test_a_changed_model_is_read_again(folder, tmp_path):
    stage = Fasttext(model=str(tmp_path / "c"), label="hq")
    classify.save(tmp_path / "c", ABOUT, model=folder / "two.bin")
    before = stage(TEXTS).kept["quality"].to_pylist()
    classify.save(tmp_path / "c", ABOUT | {"labels": ["cc", "hq", "law"]}, model=folder / "three.bin")
    assert stage(TEXTS).kept["quality"].to_pylist() != before


def test_one_model_for_all_tasks_of_a_process(folder, monkeypatch):
    loads = []
    real = classify.load
    monkeypatch.setattr(classify, "load", lambda *a, **k: loads.append(a) or real(*a, **k))
    stage = Fasttext(model=str(folder / "two"), into="only_here", max_chars=77)
    for rank in range(3):
        stage.open(Task(phase="test", rank=rank))
    assert len(loads) == 1


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"model": "two", "label": "qh"}, "no label is called 'qh'; known: cc, hq"),
        ({"model": "two.bin", "label": "spam"}, "no label is called 'spam'; known: cc, hq"),
        ({"model": "none"}, "no such classifier"),
        ({"model": "empty"}, r"has no classifier\.json"),
        ({"model": "text.bin"}, "not a fastText model"),
        ({"model": "nothing.bin"}, "empty"),
        ({"model": "linear"}, "linear classifier: use the stage `classifier`"),
        ({"model": "no.json"}, "not a fastText model"),
        ({"model": "clash", "into": "q", "all_labels": True}, "'q_score' would be written twice"),
    ],
)
def test_bad_models_end_the_plan_with_one_line(folder, tmp_path, parameters, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.bin").write_text("I am a letter, not a model.")
    (tmp_path / "nothing.bin").write_bytes(b"")
    (tmp_path / "no.json").write_text(json.dumps({"a": 1}))
    head = {"weights": np.ones((1, 2)), "bias": np.zeros(1)}
    classify.save(tmp_path / "linear", {"name": "l", "kind": "linear", "labels": ["x"], "task": "regression"}, head=head)
    fit_fasttext(TEXTS, ["score" if name == "hq" else name for name in NAMES], path=tmp_path / "clash.bin", **OPTIONS)
    where = folder if parameters["model"] in ("two", "two.bin") else tmp_path
    name = "clash.bin" if parameters["model"] == "clash" else parameters["model"]
    stage = Fasttext(**parameters | {"model": str(where / name)})
    with pytest.raises(RecipeError, match=message) as caught:
        stage(TEXTS[:2])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"into": ""}, {"into": "text"}, {"into": "_x"}, {"k": -1}, {"k": True}, {"max_chars": -1}])
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="fasttext: "):
        Fasttext(**wrong)


@pytest.mark.parametrize("parameters", [{"label": "hq"}, {"all_labels": True, "k": 2}, {}])
def test_it_keeps_the_promises_of_a_stage(folder, parameters):
    stage = Fasttext(model=str(folder / "three"), **parameters)
    for check in CHECKS:
        if check is not check_docstring:  # whose example needs a classifier that comes with Curate
            check(stage, documents(stage))


def test_on_real_texts(folder, tmp_path, shared_data):
    """The whole way of DCLM: a classifier trained on labelled texts tells what it has not seen, as the library does."""
    table = pq.read_table(shared_data / "quality" / "quality.parquet", columns=["text", "label"])
    table = table.take(pa.array(np.random.default_rng(0).permutation(len(table))[:1600]))
    texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
    fit_fasttext(texts[:1200], labels[:1200], path=tmp_path / "q.bin", dim=20, bucket=50_000, ngrams=2, lr=0.5)
    kept = Fasttext(model=str(tmp_path / "q.bin"), label="hq")(texts[1200:]).kept
    model = library.load_model(str(tmp_path / "q.bin"))
    for text, score in zip(texts[1200:], kept["quality"].to_pylist(), strict=True):
        said = dict(zip(*model.predict(text.replace("\n", " "), k=2), strict=True))
        assert score + 1e-5 == pytest.approx(float(said["__label__hq"]), abs=1e-5)
    right = [(score > 0.5) == (label == "hq") for score, label in zip(kept["quality"].to_pylist(), labels[1200:], strict=True)]
    assert np.mean(right) > 0.9
