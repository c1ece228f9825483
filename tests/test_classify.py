"""Classifiers on disk: what is read, what is refused, and scores that mean what they say."""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import classify
from curate.classify import Prepare, calibrate
from curate.errors import RecipeError, SourceError
from curate.kernels.linear import outputs
from curate.training.fit import fit_fasttext

library = pytest.importorskip("fasttext")
library.FastText.eprint = lambda *_: None

GOOD, BAD, ODD = "river stone garden window letter", "click here winner cash prize", "court law statute judge section"
TEXTS = [f"{words} {i % 7} {words.split()[i % 5]}" for i in range(40) for words in (GOOD, BAD, ODD)]
NAMES = ["hq", "cc", "law"] * 40


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model of two labels, one of three, and the latter quantised."""
    folder = tmp_path_factory.mktemp("models")
    two = [i for i, name in enumerate(NAMES) if name != "law"]
    options = {"dim": 10, "bucket": 1000, "ngrams": 2, "lr": 0.5}
    fit_fasttext([TEXTS[i] for i in two], [NAMES[i] for i in two], path=folder / "two.bin", **options)
    fit_fasttext(TEXTS, NAMES, path=folder / "three.bin", **options)
    fit_fasttext(TEXTS, NAMES, path=folder / "three.ftz", quantise=True, **options)
    return folder


def about(**more):
    return {"name": "test", "kind": "fasttext", "labels": ["cc", "hq"], "positive": "hq"} | more


def linear(tmp_path, task="classes", labels=("a", "b", "c"), outputs=None, dim=5, seed=0, **more):
    rng = np.random.default_rng(seed)
    k = outputs or len(labels)
    head = {"weights": rng.normal(size=(k, dim)), "bias": rng.normal(size=k)} | more.pop("head", {})
    what = {"name": "head", "kind": "linear", "labels": list(labels), "task": task} | more
    return classify.load(classify.save(tmp_path / "linear", what, head=head)), head


# --------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    "prepare, text, expected",
    [
        (Prepare(), "One\nTwo  Three\r\n", "One Two  Three\r "),
        (Prepare(one_line=False), "One\nTwo", "One\nTwo"),
        (Prepare(lower=True), "STRASSE Über\nA", "strasse über a"),
        (Prepare(words=True), "  Don't—stop: 3.14, naïve (北京)!\n", "Don t stop 3 14 naïve 北京"),
        (Prepare(max_chars=3), "äöüß", "äöü"),
        (Prepare(max_chars=4, words=True, lower=True), "A-B C", "a b"),
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_preparation(prepare, text, expected, kind):
    found = prepare(pa.array([text, None, ""], kind))
    assert found.to_pylist() == [expected, None, ""] and found.type == kind


# --------------------------------------------------------------------------------------------- fastText


@pytest.mark.parametrize("file", ["two.bin", "three.bin", "three.ftz"])
def test_scores_are_the_librarys(files, file):
    path = str(files / file)
    classifier, peer = classify.load(path), library.load_model(path)
    texts = [*TEXTS[:9], "Unseen words here", "river cash\nlaw", "x" * 1000]
    found = classifier.scores(texts)
    assert found.dtype == np.float32 and found.shape == (len(texts), len(classifier.labels))
    for row, text in zip(found, texts, strict=True):
        theirs = dict(zip(*peer.predict(text.replace("\n", " "), k=-1), strict=True))
        for label, p in zip(classifier.labels, row, strict=True):
            assert p + 1e-5 == pytest.approx(theirs[f"__label__{label}"], abs=1e-6)  # which the library adds
    assert found.sum(1) == pytest.approx(np.ones(len(texts)), abs=1e-6) and found.max() <= 1
    at, score = classifier.best(texts)
    assert (at == found.argmax(1)).all() and (score == found.max(1)).all()


def test_nothing_known_is_no_score(files, tmp_path):
    """Neither 0 nor what the end of a line alone would get, which is the library's answer to an empty text."""
    empty = ["", None, " \n\t ", "\x00", "</s>", "</s> river"]
    classifier = classify.load(files / "three.bin")
    assert np.isnan(classifier.scores(empty)).all() and classifier.scores(empty).shape == (6, 3)
    at, score = classifier.best(empty)
    assert at.tolist() == [-1] * 6 and np.isnan(score).all()
    fit_fasttext(TEXTS, NAMES, path=tmp_path / "words.bin", dim=4, bucket=0)  # without n-grams unseen words are nothing
    only_words = classify.load(tmp_path / "words.bin")
    assert np.isnan(only_words.scores(["zzz yyy"])).all() and not np.isnan(only_words.scores(["zzz river"])).any()


def test_labels_come_in_the_order_of_the_description(files, tmp_path):
    bare = classify.load(files / "three.bin")
    for labels in (["law", "cc", "hq"], ["hq", "law", "cc"]):
        folder = classify.save(tmp_path / "c", about(labels=labels), model=files / "three.bin")
        classifier = classify.load(folder)
        assert classifier.labels == tuple(labels) and classifier.positive == "hq"
        order = [bare.labels.index(label) for label in labels]
        assert (classifier.scores(TEXTS) == bare.scores(TEXTS)[:, order]).all()
        at, score = classifier.best([*TEXTS, ""])
        assert (at[:-1] == classifier.scores(TEXTS).argmax(1)).all() and at[-1] == -1
        assert (score[:-1] == classifier.scores(TEXTS).max(1)).all()


def test_the_preparation_is_a_part_of_it(files, tmp_path):
    folder = classify.save(tmp_path / "c", about(prepare={"lower": True, "max_chars": 20}), model=files / "two.bin")
    bare, classifier = classify.load(files / "two.bin"), classify.load(folder)
    assert (classifier.scores(["RIVER Stone and more than that"]) == bare.scores(["river stone and more"])).all()
    assert (classify.load(folder, prepare={"lower": False}).scores(["RIVER"]) == bare.scores(["RIVER"])).all()


def test_forms_of_texts(files):
    classifier = classify.load(files / "two.bin")
    expected = classifier.scores(["river", None, "cash"])
    strings = pa.array(["zz", "river", None, "cash"])
    for form in (strings[1:], strings[1:].cast(pa.large_string()), pa.chunked_array([strings[1:2], strings[2:]])):
        assert np.array_equal(classifier.scores(form), expected, equal_nan=True)
    assert classifier.scores(pa.nulls(2)).shape == (2, 2) and classifier.scores([]).shape == (0, 2)
    with pytest.raises(SourceError, match="scores texts, not double"):
        classifier.scores(pa.array([1.0]))


@pytest.mark.parametrize("change", ["version 10", "pairs of up to 120"])
def test_the_library_scores_what_our_reader_does_not_cover(files, tmp_path, change):
    data = bytearray((files / "three.bin").read_bytes())
    at, value = {"version 10": (4, 10), "pairs of up to 120": (8 + 4 * 5, 120)}[change]
    data[at : at + 4] = value.to_bytes(4, "little")
    (tmp_path / "m.bin").write_bytes(data)
    classifier, peer = classify.load(tmp_path / "m.bin"), library.load_model(str(tmp_path / "m.bin"))
    texts = ["river cash law", "statute\nsection", "", None]
    found = classifier.scores(texts)
    for row, text in zip(found[:2], texts, strict=False):
        theirs = dict(zip(*peer.predict(text.replace("\n", " "), k=-1), strict=True))
        assert row == pytest.approx([theirs[f"__label__{label}"] - 1e-5 for label in classifier.labels], abs=1e-6)
    assert np.isnan(found[2:]).all()
    at, score = classifier.best(texts)
    assert at.tolist() == [*found[:2].argmax(1), -1, -1] and (score[:2] == found[:2].max(1)).all()
    if change == "version 10":
        assert found[:2] == pytest.approx(classify.load(files / "three.bin").scores(texts[:2]), abs=1e-6)


def test_a_broken_file_never_reaches_the_library(files, tmp_path):
    data = bytearray((files / "three.bin").read_bytes())
    data[4:8] = (10).to_bytes(4, "little")
    (tmp_path / "m.bin").write_bytes(data[:-40])
    with pytest.raises(SourceError, match="cut short"):
        classify.load(tmp_path / "m.bin")


# --------------------------------------------------------------------------------------------- linear heads


@given(st.integers(0, 5), st.integers(1, 20), st.integers(1, 4), st.integers(0, 9))
def test_outputs_of_a_head(n, dim, k, seed):
    rng = np.random.default_rng(seed)
    vectors, weights, bias = rng.normal(size=(n, dim)).astype(np.float32), rng.normal(size=(k, dim)), rng.normal(size=k)
    found = outputs(vectors, weights, bias)
    for i in range(n):
        for j in range(k):
            assert found[i, j] == pytest.approx(sum(a * b for a, b in zip(vectors[i], weights[j], strict=True)) + bias[j])
        assert outputs(vectors[i : i + 1], weights, bias).tobytes() == found[i].tobytes()


def test_probabilities_of_a_linear_head(tmp_path):
    classifier, head = linear(tmp_path)
    vectors = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    z = vectors @ head["weights"].T + head["bias"]
    expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert classifier.scores(vectors) == pytest.approx(expected, abs=1e-5) and classifier.kind == "linear"
    assert (classifier.best(vectors)[0] == expected.argmax(1)).all()


def test_one_output_is_a_probability_of_one_label_or_of_two(tmp_path):
    for labels in (("yes",), ("no", "yes")):
        classifier, head = linear(tmp_path, labels=labels, outputs=1)
        vectors = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
        p = 1 / (1 + np.exp(-(vectors @ head["weights"].T + head["bias"])))
        expected = p if len(labels) == 1 else np.concatenate([1 - p, p], 1)
        assert classifier.scores(vectors) == pytest.approx(expected, abs=1e-6)


def test_a_regression_gives_numbers(tmp_path):
    mean, scale = np.arange(5.0), np.full(5, 0.5)
    classifier, head = linear(tmp_path, task="regression", labels=("score",), head={"mean": mean, "scale": scale})
    vectors = 10 * np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    expected = (vectors - mean) / scale @ head["weights"].T + head["bias"]
    found = classifier.scores(vectors)
    assert found == pytest.approx(expected, rel=1e-4) and found.max() > 1


def test_vectors_that_say_nothing_have_no_score(tmp_path):
    classifier, _ = linear(tmp_path, dim=4)
    rows = [[1.0, 2, 3, 4], None, [0.0, 0, 0, 0], [1, float("nan"), 0, 0], [float("inf"), 0, 0, 0], [1e38] * 4, [1, 2, 3, 4]]
    expected = classifier.scores(np.array([[1, 2, 3, 4.0]], np.float32))[0].tobytes()
    for kind in (pa.list_(pa.float32(), 4), pa.list_(pa.float32()), pa.large_list(pa.float64())):
        found = classifier.scores(pa.array([[9.0] * 4, *rows], kind)[1:])
        assert np.isnan(found[1:5]).all() and found.shape == (7, 3)
        assert found[0].tobytes() == found[6].tobytes() == expected
    half = pa.array(np.array([1, 2, 3, 4], np.float16))
    assert classifier.scores(pa.FixedSizeListArray.from_arrays(half, 4))[0].tobytes() == expected
    assert classifier.scores(np.zeros((0, 4), np.float32)).shape == (0, 3)


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((2, 3), np.float32), "do not fit a classifier of 4"),
        (np.zeros(4, np.float32), "do not fit"),
        (pa.array([[1.0, 2, 3]], pa.list_(pa.float32(), 3)), "have 3 numbers"),
        (pa.array([[1.0, 2, 3, 4], [1.0]]), "a vector has 1 numbers"),
        (pa.array([1.0]), "scores vectors, not double"),
        (pa.array(["a text"]), "make a column of embeddings first"),
    ],
)
def test_vectors_that_do_not_fit(tmp_path, rows, message):
    classifier, _ = linear(tmp_path, dim=4)
    with pytest.raises(SourceError, match=message):
        classifier.scores(rows)


def test_a_linear_classifier_of_texts(tmp_path):
    embeddings = pytest.importorskip("curate.embeddings")
    lsa = embeddings.fit_lsa(pa.array(TEXTS), 6, 1)
    lsa.save(tmp_path / "own.npz")
    rng = np.random.default_rng(3)
    dim = lsa.encode(pa.array(TEXTS[:1])).shape[1]
    what = {
        "name": "t",
        "kind": "linear",
        "labels": ["a", "b"],
        "features": {"column": "embedding", "dim": dim, "model": "lsa"},
    }
    head = {"weights": rng.normal(size=(2, dim)), "bias": [0, 0]}
    folder = classify.save(tmp_path / "t", what, head=head, lsa=tmp_path / "own.npz")
    classifier = classify.load(folder)
    vectors = lsa.encode(pa.array(TEXTS[:9]))
    assert classifier.scores(pa.array(TEXTS[:9])).tobytes() == classifier.scores(vectors).tobytes()
    assert classifier.scores(TEXTS[:9]).tobytes() == classifier.scores(vectors).tobytes()
    assert [os.path.basename(file) for file in classify.files(folder)] == ["classifier.json", "head.npz", "lsa.npz"]


# --------------------------------------------------------------------------------------------- calibration


def test_calibration(files, tmp_path):
    curve = {"kind": "isotonic", "x": [None, [0.0, 0.4, 1.0]], "y": [None, [0.1, 0.2, 0.9]]}
    folder = classify.save(tmp_path / "c", about(calibration=curve), model=files / "two.bin")
    classifier = classify.load(folder)
    raw, found = classifier.scores([*TEXTS[:9], ""], calibrated=False), classifier.scores([*TEXTS[:9], ""])
    assert found[:-1, 1] == pytest.approx(np.interp(raw[:-1, 1], [0, 0.4, 1], [0.1, 0.2, 0.9]), abs=1e-6)
    assert found[:-1].sum(1) == pytest.approx(np.ones(9)) and np.isnan(found[-1]).all() and found.dtype == np.float32
    assert (classifier.best(TEXTS[:9])[1] == found[:-1].max(1)).all()
    assert (classifier.best(TEXTS[:9], calibrated=False)[1] == raw[:-1].max(1)).all()


def test_kinds_of_calibration():
    p = np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0], [np.nan] * 3], np.float32)
    assert calibrate(p, None) is p and calibrate(p, {"kind": None}) is p
    same = calibrate(p, {"kind": "platt", "a": [1, 1, 1], "b": [0, 0, 0]})
    assert same[:2] == pytest.approx(p[:2], abs=1e-6) and np.isnan(same[2]).all()
    sharper = calibrate(p, {"kind": "platt", "a": [2, 2, 2], "b": [0.1, 0, 0]})
    assert sharper[:2].sum(1) == pytest.approx(np.ones(2)) and sharper[0, 1] > 0.5
    one = calibrate(p[:, :1], {"kind": "platt", "a": [1], "b": [np.log(3)]})
    assert one[0, 0] == pytest.approx(0.75 / (0.75 + 1.0), abs=1e-6)  # odds of 1/4, times 3
    nothing = calibrate(p, {"kind": "isotonic", "x": [[0, 1]] * 3, "y": [[0, 0]] * 3})
    assert not nothing[:2].any()


# --------------------------------------------------------------------------------------------- folders


def test_the_same_parts_make_the_same_bytes(files, tmp_path):
    head = {"weights": np.ones((2, 3)), "bias": np.zeros(2)}
    what = about(kind="linear", metrics={"auc": np.float64(0.5)}, thresholds=[{"threshold": 0.1}], zeta=1, alpha=2)
    one = classify.save(tmp_path / "one", what, head=head, card="# A card\n")
    two = classify.save(tmp_path / "two", dict(reversed(what.items())), head=dict(reversed(head.items())), card="# A card\n")
    assert sorted(os.listdir(one)) == ["card.md", "classifier.json", "head.npz"] == sorted(os.listdir(two))
    for name in os.listdir(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    keys = list(json.loads((one / "classifier.json").read_text()))
    assert keys == ["format", "name", "kind", "labels", "positive", "metrics", "thresholds", "alpha", "zeta"]


def test_saving_takes_the_place_of_what_was_there_or_leaves_it(files, tmp_path):
    folder = classify.save(tmp_path / "c", about(), model=files / "two.bin", card="old")
    (folder / "stray").write_text("")
    classify.save(folder, about(name="newer"), model=files / "two.bin")
    assert sorted(os.listdir(folder)) == ["classifier.json", "model.bin"] and classify.about(folder).name == "newer"
    with pytest.raises(SourceError, match="labels are not those"):
        classify.save(folder, about(), model=files / "three.bin")
    with pytest.raises(SourceError, match="needs a model"):
        classify.save(folder, about(), head={"weights": np.ones((2, 2)), "bias": np.ones(2)})
    assert os.listdir(tmp_path) == ["c"] and classify.about(folder).name == "newer"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": 2}, "format is 2"),
        ({"kind": "forest"}, "kind is 'forest'"),
        ({"task": "guess"}, "task 'guess'"),
        ({"labels": []}, "no list of labels"),
        ({"labels": ["a", "a"]}, "twice"),
        ({"labels": "ab"}, "no list of labels"),
        ({"positive": "h"}, "positive is 'h', which is no label"),
        ({"name": ""}, "no name"),
        ({"prepare": {"upper": True}}, "prepare knows"),
        ({"prepare": {"max_chars": -1}}, "max_chars is -1"),
        ({"features": 3}, "features"),
        ({"calibration": {"kind": "magic"}}, "neither isotonic nor platt"),
        ({"calibration": {"kind": "isotonic", "x": [[0, 1]], "y": [[0, 1]]}}, "one entry for each label"),
        ({"calibration": {"kind": "isotonic", "x": [[0, 1], None], "y": [[0, 1], [1]]}}, "half of a curve"),
        ({"calibration": {"kind": "isotonic", "x": [[1, 0], None], "y": [[0, 1], None]}}, "ascending"),
        ({"calibration": {"kind": "isotonic", "x": [[0, 1], None], "y": [[0, "x"], None]}}, "no number"),
        ({"calibration": {"kind": "isotonic", "x": [[0, 1], None], "y": [[0], None]}}, "points without"),
        ({"calibration": {"kind": "platt", "a": [1, 1], "b": [1]}}, "one entry for each label"),
    ],
)
def test_descriptions_that_make_no_sense(files, tmp_path, change, message):
    folder = classify.save(tmp_path / "c", about(), model=files / "two.bin")
    (folder / "classifier.json").write_text(json.dumps({"format": 1, **about(), **change}))
    with pytest.raises(SourceError, match=message) as caught:
        classify.load(folder)
    assert "\n" not in str(caught.value) and "classifier.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}'])
def test_what_is_no_description(tmp_path, text):
    (tmp_path / "classifier.json").write_text(text)
    with pytest.raises(SourceError, match=r"classifier\.json is not"):
        classify.load(tmp_path)


def test_what_is_no_whole_classifier(files, tmp_path):
    with pytest.raises(RecipeError, match="no such classifier"):
        classify.files(tmp_path / "none")
    with pytest.raises(RecipeError, match=r"has no classifier\.json"):
        classify.files(tmp_path)
    folder = classify.save(tmp_path / "c", about(), model=files / "two.bin")
    (folder / "model.ftz").write_bytes(b"")
    with pytest.raises(RecipeError, match="holds two models"):
        classify.files(folder)
    (folder / "model.bin").unlink()
    with pytest.raises(SourceError, match="empty"):
        classify.load(folder)
    (folder / "model.ftz").unlink()
    with pytest.raises(RecipeError, match=r"model\.ftz is missing"):
        classify.files(folder)


def test_heads_that_make_no_sense(tmp_path):
    linear(tmp_path)
    file = tmp_path / "linear" / "head.npz"
    for arrays, message in [
        ({"weights": np.ones((3, 5))}, "has no 'bias'"),
        ({"weights": np.ones((2, 5)), "bias": np.ones(2)}, "does not fit"),
        ({"weights": np.ones(3), "bias": np.ones(3)}, "does not fit"),
        ({"weights": np.ones((3, 5)), "bias": np.ones(2)}, "does not fit"),
        ({"weights": np.ones((3, 5)), "bias": np.ones(3), "scale": np.ones(4)}, "mean and scale"),
        ({"weights": np.array([[object()]]), "bias": np.ones(3)}, "does not hold arrays"),
    ]:
        with file.open("wb") as out:
            np.savez(out, **arrays)
        with pytest.raises(SourceError, match=message):
            classify.load(tmp_path / "linear")
    file.write_bytes(b"no zip")
    with pytest.raises(SourceError, match="does not hold arrays"):
        classify.load(tmp_path / "linear")
    file.unlink()
    with pytest.raises(SourceError, match="missing"):
        classify.load(tmp_path / "linear")


# --------------------------------------------------------------------------------------------- finding one


class Hub(http.server.BaseHTTPRequestHandler):
    """A server of files, which also answers as far as a client of the hub asks."""

    files: ClassVar[dict] = {}
    asked: ClassVar[list] = []

    def do_GET(self, body=True):
        path = self.path.partition("?")[0].replace("/resolve/main", "").lstrip("/")
        type(self).asked.append(path)
        repo = path.removeprefix("api/models/").removesuffix("/tree/main")
        here = [name.removeprefix(repo + "/") for name in self.files if name.startswith(repo + "/")]
        if path.startswith("api/") and here:
            data = json.dumps([{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in here]).encode()
        elif path in self.files:
            data = self.files[path]
        else:
            known = path.rsplit("/", 1)[0] + "/"
            missing = "EntryNotFound" if any(name.startswith(known) for name in self.files) else "RepoNotFound"
            self.send_response(404)
            self.send_header("X-Error-Code", missing)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if path.startswith("api/") else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:x}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_HEAD(self):
        self.do_GET(body=False)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
    folder = classify.save(tmp_path / "own", about(), model=files / "two.bin")
    Hub.files = {
        "org/ours/classifier.json": (folder / "classifier.json").read_bytes(),
        "org/ours/model.bin": (folder / "model.bin").read_bytes(),
        "org/bare/sub/m.bin": (files / "three.bin").read_bytes(),
        "org/two/a.bin": b"x",
        "org/two/b.ftz": b"x",
    }
    Hub.asked = []
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    classify._from_url.cache_clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_paths(files, tmp_path, monkeypatch):
    folder = classify.save(tmp_path / "c", about(), model=files / "two.bin")
    assert classify.resolve(str(folder)) == str(folder)
    assert classify.resolve((files / "two.bin").as_uri()) == str(files / "two.bin")
    monkeypatch.chdir(tmp_path)
    assert classify.resolve("c") == "c" and classify.about("c").labels == ("cc", "hq")
    assert classify.files("c") == ("c/classifier.json", "c/model.bin")
    for wrong, message in [
        ("d", "no such classifier: d"),
        ("./d/e", "no such classifier"),
        ("", "needs a name"),
        ("lid167", "did you mean 'lid176'"),
        ("nowhere://x", "nowhere"),
        ((tmp_path / "x").as_uri(), "no such classifier: file:"),
        ("hf://one", "write hf://org/repo"),
    ]:
        with pytest.raises((RecipeError, SourceError), match=message) as caught:
            classify.resolve(wrong)
        assert "\n" not in str(caught.value)


def test_urls_are_copied_once(hub, files, tmp_path):
    url = f"{hub}/org/ours"
    path = classify.resolve(url)
    assert path.startswith(str(tmp_path / "cache")) and classify.load(path).positive == "hq"
    Hub.asked.clear()
    assert classify.resolve(url) == path and not Hub.asked
    bare = classify.resolve(f"{hub}/org/bare/sub/m.bin")
    assert bare.endswith("/m.bin") and len(classify.load(bare).labels) == 3
    with pytest.raises(RecipeError, match=r"^no classifier can be read from http://127\.0\.0\.1:\d+/org/none: ") as caught:
        classify.resolve(f"{hub.replace('://', '://user:secret@')}/org/none?token=secret")
    assert "secret" not in str(caught.value)
    assert not [name for _, _, names in os.walk(tmp_path / "cache") for name in names if name.startswith(".tmp")]


def test_a_changed_file_behind_a_url_is_copied_again(files, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    with contextlib.suppress(FileNotFoundError):
        memory.rm("/models", recursive=True)
    labels = []
    for name in ("two.bin", "three.bin"):
        memory.pipe("/models/m.bin", (files / name).read_bytes())
        classify._from_url.cache_clear()  # another process, another day
        labels.append(len(classify.load(classify.resolve("memory://models/m.bin")).labels))
    assert labels == [2, 3]
    for name in classify.files(classify.save(tmp_path / "c", about(), model=files / "two.bin")):
        memory.put(name, f"/models/whole/{os.path.basename(name)}")
    assert classify.load(classify.resolve("memory://models/whole")).positive == "hq"


def from_hub(endpoint, tmp_path, *names):
    """What `resolve` says in a process of its own, since the client reads its settings once."""
    code = (
        "import sys\nfrom curate import classify\nfrom curate.errors import CurateError\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(len(classify.load(classify.resolve(name)).labels))\n"
        "    except CurateError as error: print(f'{type(error).__name__}: {error}')\n"
    )
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code, *names], env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_hub(hub, tmp_path):
    names = ["hf://org/ours", "org/ours", "hf://org/bare/sub/m.bin", "hf://org/bare", "org/two", "org/none"]
    found = from_hub(hub, tmp_path, *names)
    assert found[:4] == ["2", "2", "3", "3"]
    assert found[4].startswith("RecipeError: org/two: name the file of the model, as hf://org/two/FILE (a.bin, b.ftz)")
    assert found[5].startswith("RecipeError: no such path: org/none; and it cannot be had from the hub (")


def test_a_hub_that_cannot_be_reached(tmp_path):
    found = from_hub("http://127.0.0.1:9", tmp_path, "org/none")
    assert len(found) == 1 and found[0].startswith("RecipeError: no such path: org/none; and it cannot be had from the hub (")
