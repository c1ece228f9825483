"""fastText models without the library: the same scores as the library gives, and one line for what is no model."""

from __future__ import annotations

import ctypes
import itertools
import random
import struct
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import fasttext as ours
from curate.errors import SourceError

library = pytest.importorskip("fasttext")
library.FastText.eprint = lambda *_: None  # a warning at every load

WORDS = (
    "river stone garden window letter market winter summer bridge story paper Straße über naïve café élève ñandú "
    "река камень сад окно письмо 北京 大学 東京タワー สวัสดี สบาย مرحبا كتاب 👩‍🚀 x y z 42 3.14 a-b don't "
    "Donaudampfschifffahrtsgesellschaft antidisestablishmentarianism sixteen-bytes-ok seventeen-bytes-x"
).split()
PLAIN = {"dim": 8, "epoch": 3, "bucket": 500, "thread": 1, "verbose": 0, "lr": 0.5, "minCount": 1}
KINDS = {
    "softmax": {"loss": "softmax"},
    "softmax, two labels": {"loss": "softmax", "labels": 2, "dim": 20},
    "softmax, one label": {"loss": "softmax", "labels": 1},
    "softmax, more labels than numbers": {"loss": "softmax", "labels": 23},
    "tree": {"loss": "hs", "labels": 7},
    "tree, more labels than numbers": {"loss": "hs", "labels": 40},
    "tree, one label": {"loss": "hs", "labels": 1},
    "each": {"loss": "ova", "labels": 4},
    "each, more labels than numbers": {"loss": "ova", "labels": 17},
    "negative sampling": {"loss": "ns", "labels": 5},
}
FEATURES = {
    "words": {"bucket": 0},
    "pairs": {"wordNgrams": 2},
    "runs of four": {"wordNgrams": 4, "bucket": 64},
    "characters": {"minn": 2, "maxn": 4},
    "characters from one, and pairs": {"minn": 1, "maxn": 3, "wordNgrams": 2},
    "rare words out": {"minn": 3, "maxn": 3, "minCount": 8},
}
SMALLER = {
    "quantised": {},
    "by threes, norms": {"dsub": 3, "qnorm": True},
    "output too": {"qout": True},
    "output and norms": {"qout": True, "qnorm": True},
    "cut off": {"cutoff": 300},
    "cut off and trained again": {"cutoff": 260, "retrain": True, "qnorm": True},
}


def train(folder: Path, name: str, labels: int = 3, vocabulary: int = 0, **parameters) -> str:
    rng = random.Random(name)
    lines = [f"__label__L0 w{i}\n" for i in range(vocabulary)]
    for i in range(400):
        label = min(int(rng.expovariate(0.4)), labels - 1) if i > labels else i % labels
        mine = WORDS[label % 5 :: 1 + label % 4]
        lines.append(f"__label__L{label} " + " ".join(rng.choice(mine) for _ in range(rng.randint(1, 12))) + "\n")
    path = folder / f"{name}.txt"
    path.write_text("".join(lines), encoding="utf-8")
    with clean_memory():
        model = library.train_supervised(str(path), **(PLAIN | parameters))
    model.save_model(str(folder / f"{name}.bin"))
    return str(folder / f"{name}.bin")


class clean_memory:
    """New memory is zero, some of which fastText reads before it writes ("Encountered NaN")."""

    def __enter__(self) -> None:
        ctypes.CDLL(None).mallopt(-6, 255)  # M_PERTURB

    def __exit__(self, *error: object) -> None:
        ctypes.CDLL(None).mallopt(-6, 0)


def shrink(path: str, **parameters) -> str:
    small = path.replace(".bin", ".ftz")
    model = library.load_model(path)
    with clean_memory():
        model.quantize(path.replace(".bin", ".txt"), thread=1, epoch=2, lr=0.2, verbose=0, **parameters)
    model.save_model(small)
    return small


def texts(seed: int, n: int = 120) -> list[str]:
    rng = random.Random(seed)
    strange = [
        "</s>",
        "__label__L0",
        "__label__none",
        "</s",
        "unknown",
        "\x00",
        "\x1f",
        "\x85",
        "\u3000",
        "q" * 40,
        "é" * 9,
        "",
    ]
    found = ["", " ", "\t\v\f\r ", "</s>", "x </s> river", "__label__L1", "\x00river\x00"]
    for _ in range(n):
        words = [rng.choice(WORDS if rng.random() < 0.8 else strange) for _ in range(rng.randint(1, 30))]
        found.append("".join(w + rng.choice([" ", " ", "  ", "\t", "\r", "\x00"]) for w in words))
    return found


def their_scores(path: str, lines: list[str]) -> list[dict[str, float]]:
    model = library.load_model(path)
    rows = [model.f.predict(line + "\n", -1, 0.0, "strict") for line in lines]
    return [{label.removeprefix("__label__"): p for p, label in row} for row in rows]


def check(path: str, lines: list[str]) -> None:
    """Every label's score, the best labels, and the best one."""
    model = ours.load(path)
    scores = model.scores(lines)
    assert scores.shape == (len(lines), len(model.labels)) and scores.dtype == np.float32
    best = [dict(zip(*row, strict=True)) for row in zip(*(x.to_pylist() for x in model.predict(lines)), strict=True)]
    three = list(zip(*(x.to_pylist() for x in model.predict(lines, 3)), strict=True))
    for i, theirs in enumerate(their_scores(path, lines)):
        mine = dict(zip(model.labels, scores[i].tolist(), strict=True))
        if not theirs:
            assert not scores[i].any() and not best[i] and not three[i][0], lines[i]
            continue
        for label, p in mine.items():  # below its own offset the library says nothing of a leaf of a tree
            assert p == pytest.approx(theirs.get(label, 0), abs=1e-5 if label in theirs else 3e-5), (lines[i], label)
        top = max(theirs.values())
        ((label, p),) = best[i].items()
        assert p == pytest.approx(top, abs=1e-5) and theirs[label] == pytest.approx(top, abs=1e-5), lines[i]
        assert three[i][1] == sorted(scores[i].tolist(), reverse=True)[:3]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_each_kind(kind, tmp_path):
    check(train(tmp_path, "m", minn=2, maxn=3, **KINDS[kind]), texts(1))


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("loss", ["softmax", "hs"])
def test_scores_with_each_kind_of_features(loss, features, tmp_path):
    check(train(tmp_path, "m", loss=loss, labels=5, **FEATURES[features]), texts(2))


@pytest.mark.parametrize("smaller", SMALLER)
@pytest.mark.parametrize("kind", ["softmax", "softmax, more labels than numbers", "tree, more labels than numbers", "each"])
def test_scores_of_quantised_models(kind, smaller, tmp_path):
    parameters = {"minn": 2, "maxn": 3, "wordNgrams": 2, "dim": 7} | KINDS[kind]
    if "qout" in SMALLER[smaller]:
        parameters["labels"] = 260  # an output matrix of fewer rows cannot be quantised
    check(shrink(train(tmp_path, "m", **parameters), **SMALLER[smaller]), texts(3))


def test_a_model_cut_down_to_some_of_its_words(tmp_path):
    small = shrink(train(tmp_path, "m", vocabulary=400, bucket=0), cutoff=300)
    assert ours.load(small)._features.words == 300
    check(small, [*texts(4), *(f"w{i} w{i + 1} river" for i in range(400))])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return train(tmp_path_factory.mktemp("model"), "m", minn=2, maxn=4, wordNgrams=2, labels=4)


ALPHABET = st.sampled_from([*"ab<> \t\x00_/s", "é", "я", "中", "🙂", "</s>", "__label__", "river", "река", "\x0b", "\x1f"])


@given(st.lists(st.lists(ALPHABET, max_size=60).map("".join), min_size=1, max_size=5))
def test_scores_of_random_texts(small, lines):
    check(small, lines)


def test_a_text_does_not_depend_on_those_before_it(small):
    """Words are remembered: the same bits must come out with a fresh memory, a full one, and in any order."""
    rng = random.Random(5)
    lines = ["".join(rng.choice("abcdefghij ") for _ in range(400)) for _ in range(400)] + texts(6)
    model = ours.load(small)
    together = model.scores(lines)
    assert model.scores(lines[::-1])[::-1].tobytes() == together.tobytes()
    for i in rng.sample(range(len(lines)), 30):
        assert ours.load(small).scores([lines[i]]).tobytes() == together[i].tobytes()


def test_threads_share_a_model(small):
    model, lines = ours.load(small), texts(7, 400)
    expected, found = model.scores(lines).tobytes(), []
    threads = [threading.Thread(target=lambda: found.append(model.scores(lines).tobytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_without_the_offset_they_are_probabilities(small, tmp_path):
    for path in (small, train(tmp_path, "tree", loss="hs", labels=12)):
        p = ours.load(path).scores(texts(8), offset=0)
        known = p.any(1)
        assert known.sum() > 100 and p[known].sum(1) == pytest.approx(np.ones(known.sum()), abs=1e-5)


def test_forms_of_texts(small):
    model, lines = ours.load(small), ["river stone", None, "река", "x\ny"]
    expected = model.scores(["river stone", "", "река", "x y"])
    strings = pa.array(lines, pa.string())
    for form in (lines, strings, strings.cast(pa.large_string()), pa.chunked_array([strings[:1], strings[1:]])):
        assert model.scores(form).tobytes() == expected.tobytes()
    assert model.scores(pa.array(["zzz", *lines, "zzz"])[1:-1]).tobytes() == expected.tobytes()
    garbage = pa.StringArray.from_buffers(3, *strings.slice(0, 3).buffers()[1:], pa.py_buffer(b"\x05"))
    assert model.scores(garbage).tobytes() == expected[:3].tobytes()
    assert model.scores([]).shape == (0, 4) and model.predict([])[0].to_pylist() == []
    assert model.labels == tuple(label.removeprefix("__label__") for label in library.load_model(small).labels)
    with pytest.raises(ValueError, match="k is 0"):
        model.predict(lines, 0)


def spoilt(path: str, tmp_path: Path, change) -> str:
    """A copy with changed bytes. Header: magic, version, twelve parameters (dim, …, loss, model, …), t, sizes."""
    data = bytearray(Path(path).read_bytes())
    changed = change(data)
    out = tmp_path / "spoilt.bin"
    out.write_bytes(data if changed is None else changed)
    return str(out)


def put(at: int, value: int):
    return lambda data: struct.pack_into("<i", data, at, value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: b"", "empty"),
        (lambda data: b"PK\x03\x04 something else", "not a fastText model"),
        (put(4, 13), "version 13"),
        (put(4, 10), "version 10"),
        (put(8, 0), "parameters make no sense"),
        (put(8, 9), "rows of 9|columns"),
        (put(8 + 4 * 6, 9), "parameters make no sense"),
        (put(8 + 4 * 7, 1), "word vectors"),
        (put(8 + 4 * 8, 600), "should have"),
        (put(8 + 4 * 8, 0), "no buckets"),
        (put(64, -3), "dictionary makes no sense"),
        (put(64 + 8, 1), "dictionary makes no sense"),
        (put(64, 2**31 - 1), "dictionary makes no sense"),
    ],
)
def test_what_is_no_model(small, tmp_path, change, message):
    with pytest.raises(SourceError, match=message) as caught:
        ours.load(spoilt(small, tmp_path, change))
    assert "\n" not in str(caught.value) and "spoilt.bin" in str(caught.value)


@pytest.mark.parametrize("quantised", [False, True])
def test_no_beginning_of_a_model_is_one(small, quantised, tmp_path):
    path = shrink(small, qnorm=True, cutoff=260) if quantised else small
    size = Path(path).stat().st_size
    cuts = {*range(0, 200, 7), *range(0, size, 997), size - 1}
    for cut in cuts:
        with pytest.raises(SourceError):
            ours.load(spoilt(path, tmp_path, lambda data, cut=cut: data[:cut]))


@pytest.mark.parametrize("quantised", [False, True])
def test_changed_bytes_give_an_error_or_scores(small, quantised, tmp_path):
    """A hostile file may be wrong; it must not read or write beyond its arrays."""
    path = shrink(small, qnorm=True, cutoff=260) if quantised else small
    size, rng, lines = Path(path).stat().st_size, random.Random(9), texts(9, 10)
    places = [*range(0, 100), *(rng.randrange(size) for _ in range(150))]
    for at, value in itertools.product(places, (0, 255, 127)):

        def change(data, at=at, value=value):
            data[at] = value

        try:
            model = ours.load(spoilt(path, tmp_path, change))
        except SourceError:
            continue
        assert model.scores(lines).shape == (len(lines), len(model.labels))


def test_no_file(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        ours.load(tmp_path / "none.bin")


def test_word_vectors_are_no_classifier(tmp_path):
    (tmp_path / "t.txt").write_text(" ".join(WORDS * 20) + "\n", encoding="utf-8")
    with clean_memory():
        model = library.train_unsupervised(str(tmp_path / "t.txt"), dim=4, epoch=1, bucket=50, minCount=1, thread=1, verbose=0)
    model.save_model(str(tmp_path / "v.bin"))
    with pytest.raises(SourceError, match="word vectors"):
        ours.load(tmp_path / "v.bin")
