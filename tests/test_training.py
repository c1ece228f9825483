"""Training and judging: measures, fits, splits without leaks, calibration, cards, and what bad input is told."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from curate import classify, fasttext
from curate.cli import main
from curate.errors import RecipeError, SourceError, StageError
from curate.training import Training, calibrate, data, fit, judge, train
from curate.training import evaluate as measures
from curate.training.classifiers import prepared

pytest.importorskip("fasttext", reason="training needs the extra `train`")

GOOD = "river harbour granite cathedral orbit theorem membrane treaty glacier orchard sonata ledger".split()
BAD = "WIN cash !!! click FREE prize call now offer buy cheap pills deal".split()
COMMON = "the of and a to in was for on with as by".split()
TINY = {"dim": 4, "epoch": 15, "excerpt": 40}


def texts(words: list[str], n: int, seed: int, length: int = 30) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(rng.choice((words, COMMON))) for _ in range(length)) for _ in range(n)]


def table(n: int = 120, seed: int = 0, **columns: list[Any]) -> pa.Table:
    rows = {
        "id": [f"d{i}" for i in range(2 * n)],
        "text": texts(GOOD, n, seed) + texts(BAD, n, seed + 1),
        "label": ["hq"] * n + ["lq"] * n,
        "source": ["books", "papers"] * (n // 2) + ["mail", "ads"] * (n // 2),
        "license": ["CC0-1.0"] * n + ["MIT"] * n,
    }
    return pa.table({**rows, **columns})


def write(folder: Path, found: pa.Table, name: str = "labelled.parquet") -> str:
    pq.write_table(found, folder / name)
    return str(folder / name)


def curate(*args: Any, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, args)))
    assert done.exit_code == check, f"{args} gave {done.exit_code}\n{done.stdout}\n{done.stderr}"
    return done


def refused(*args: Any, says: str, code: int = 2) -> None:
    done = curate(*args, check=code)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert says in line and done.stdout == "" and "Traceback" not in done.stderr


# --------------------------------------------------------------------------------------------- measures

scored = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=40)


@given(scored)
def test_areas_are_those_of_the_definition(pairs: list[tuple[bool, float]]) -> None:
    truth, scores = np.array([t for t, _ in pairs]), np.array([s for _, s in pairs])
    high, low = scores[truth], scores[~truth]
    found = measures.auc(truth, scores)
    if len(high) and len(low):
        wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in high for b in low)
        assert found == pytest.approx(wins / (len(high) * len(low)))
    else:
        assert math.isnan(found)
    if len(high):
        area, before = 0.0, 0.0
        for threshold in sorted(set(scores.tolist()), reverse=True):
            kept = scores >= threshold
            recall = (truth & kept).sum() / truth.sum()
            area += (recall - before) * (truth & kept).sum() / kept.sum()
            before = recall
        assert measures.average_precision(truth, scores) == pytest.approx(area)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=40))
def test_classes_are_counted(pairs: list[tuple[str, str]]) -> None:
    truth, found = [a for a, _ in pairs], [b for _, b in pairs]
    counts = measures.confusion(truth, found, "abc")
    assert counts.sum() == len(pairs) and counts[0, 1] == pairs.count(("a", "b"))
    assert np.trace(counts) / len(pairs) == pytest.approx(measures.accuracy(truth, found))
    for label, row in measures.per_class(truth, found, "abc").items():
        hit = pairs.count((label, label))
        assert row["documents"] == truth.count(label)
        assert row["precision"] == (hit / found.count(label) if label in found else None)
        assert row["recall"] == (hit / truth.count(label) if label in truth else None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=40))
def test_kappa_is_that_of_the_tables(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    weight = (np.arange(6)[:, None] - np.arange(6)) ** 2
    seen = np.zeros((6, 6))
    np.add.at(seen, (a, b), 1 / len(pairs))
    chance = float((weight * np.outer(seen.sum(1), seen.sum(0))).sum())
    wanted = 1 - float((weight * seen).sum()) / chance if chance > 1e-12 else 1.0
    assert measures.quadratic_kappa(a, b) == pytest.approx(wanted)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=40))
def test_kappa_by_pairs(rows: list[tuple[str, str]]) -> None:
    truth, said = [a for a, _ in rows], [b for _, b in rows]
    right = np.mean([a == b for a, b in rows])
    chance = np.mean([a == b for a in truth for b in said])
    expected = (right - chance) / (1 - chance) if chance < 1 else right
    assert measures.kappa(truth, said) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=30))
def test_concordance_by_pairs(rows: list[tuple[float, float]]) -> None:
    truth, said = np.array([a for a, _ in rows]), np.array([b for _, b in rows])
    chance = np.mean((truth[:, None] - said[None, :]) ** 2)
    if chance > 1e-6:
        assert measures.concordance(truth, said) == pytest.approx(1 - np.mean((truth - said) ** 2) / chance, abs=1e-6)


def test_reliability_and_thresholds() -> None:
    truth, scores = np.array([0, 0, 1, 1, 1], bool), np.array([0.05, 0.12, 0.15, 0.95, 1.0])
    first, second, last = measures.reliability(truth, scores)
    assert (first["documents"], second["documents"], last["documents"]) == (1, 2, 2)
    assert second["score"] == pytest.approx(0.135) and second["positive"] == 0.5
    assert measures.calibration_error(truth, scores) == pytest.approx((0.05 + 2 * 0.365 + 2 * 0.025) / 5)
    rows = {row["threshold"]: row for row in measures.threshold_table(truth, scores)}
    assert rows[0.95] == {"threshold": 0.95, "keep_rate": 0.4, "precision": 1.0, "recall": pytest.approx(2 / 3)}
    assert rows[0.12]["precision"] == 0.75 and rows[0.5]["keep_rate"] == 0.4
    with pytest.raises(RecipeError, match="1 of 2 scores are NaN"):
        measures.auc(np.array([True, False]), np.array([0.5, np.nan]))
    with pytest.raises(RecipeError, match="label 'x' that is none of"):
        measures.confusion(["x"], ["a"], ["a"])


# --------------------------------------------------------------------------------------------- fits


def test_the_same_documents_make_the_same_model(tmp_path: Path) -> None:
    found = table(40)
    text, labels = found["text"].to_pylist(), found["label"].to_pylist()
    order = random.Random(5).sample(range(len(text)), len(text))
    for name, at, seed in (("a", range(len(text)), 3), ("b", order, 3), ("c", order, 4)):
        fit.fit_fasttext(
            [text[i] for i in at], [labels[i] for i in at], path=tmp_path / name, dim=5, ngrams=2, minn=2, maxn=3, bucket=500,
            seed=seed, quantise=True,
        )  # fmt: skip
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b and a != c


def test_texts_cannot_bring_labels_or_end_lines(tmp_path: Path) -> None:
    spoken = ["__label__evil a b", "c </s> __label__evil", "d\n__label__evil e", "f\0g\r\nh"]
    fit.fit_fasttext(pa.array(spoken), ["x", "y", "x", "y"], path=tmp_path / "m", dim=2)
    assert set(fasttext.load(tmp_path / "m").labels) == {"x", "y"}


@pytest.mark.parametrize(
    ("labels", "more", "error", "says"),
    [
        (["a", "a"], {}, RecipeError, "only the label 'a'"),
        (["a", "b c"], {}, RecipeError, "'b c' cannot be a label"),
        (["a"], {}, RecipeError, "2 texts and 1 labels"),
        (["a", "b"], {"repeats": [1, 0]}, RecipeError, "only the label 'a'"),
        (["a", "b"], {"lr": 0}, RecipeError, "lr is 0"),
        (["a", "b"], {"loss": "soft"}, RecipeError, "loss is 'soft'"),
        (["a", "b"], {"minn": 3}, RecipeError, "minn is 3 and maxn 0"),
        (["a", "b"], {"ngrams": 2, "bucket": 0}, RecipeError, "set bucket"),
        (["a", "b"], {"lr": 100, "epoch": 500}, StageError, "training of the fastText model failed: .*NaN.*use a lower lr"),
    ],
)
def test_fits_that_cannot_be(tmp_path: Path, labels: list[str], more: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        fit.fit_fasttext(["one two", "three four"], labels, path=tmp_path / "m", **more)
    assert "\n" not in str(raised.value) and not (tmp_path / "m").exists()


def test_a_softmax_head_is_at_its_minimum() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.integers(0, 3, 200)
    x[:, 0] += y
    w = rng.uniform(0.5, 2, 200)
    head, bias = fit.fit_linear(x, y, l2=0.01, weights=w)

    def loss(head: np.ndarray, bias: np.ndarray) -> float:
        total = 0.0
        for row, label, weight in zip(x, y, w / w.sum(), strict=True):
            z = [float(row @ h + b) for h, b in zip(head, bias, strict=True)]
            total += weight * (math.log(sum(map(math.exp, z))) - z[label])
        return total + 0.005 * float((head**2).sum())

    least = loss(head.astype(float), bias.astype(float))
    for _ in range(30):
        step = rng.normal(size=head.shape) * 0.02, rng.normal(size=bias.shape) * 0.02
        assert loss(head + step[0], bias + step[1]) > least
    assert measures.accuracy(y, (x @ head.T + bias).argmax(1)) > 0.45


def test_a_ridge_is_at_its_minimum() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 4))
    y = x @ [1, -2, 0, 0.5] + 3
    head, bias = fit.fit_linear(x, y, task="regression", l2=1e-9)
    assert head == pytest.approx(np.array([[1, -2, 0, 0.5]]), abs=1e-4) and bias == pytest.approx([3], abs=1e-4)
    assert np.abs(fit.fit_linear(x, y, task="regression", l2=10)[0]).max() < 0.3


def test_linear_fits_that_cannot_be() -> None:
    x = np.ones((4, 2))
    for y, more, says in (
        (np.zeros(4, int), {}, "only one class"),
        (np.array([0, 0, 2, 2]), {}, "class 1 has no document"),
        (np.array([0.0, 1, 0, np.nan]), {"task": "regression"}, "1 of 4 targets are NaN"),
        (np.array([0.0, 1, 0, 1]), {}, "class numbers"),
        (np.array([0, 1, 0, 1]), {"l2": 0}, "l2 is 0"),
        (np.array([0, 1, 0, 1]), {"weights": [1, 1, 1, -1]}, "weights are one number"),
        (np.array([0, 1]), {}, "do not go together"),
    ):
        with pytest.raises(RecipeError, match=says):
            fit.fit_linear(x, y, **more)
    x[2, 1] = np.nan
    with pytest.raises(RecipeError, match="1 of 4 vectors hold NaN"):
        fit.fit_linear(x, np.array([0, 1, 0, 1]))


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_calibration_keeps_the_order_and_mends_the_scores(kind: str) -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0, 1, 4000)
    right = rng.uniform(0, 1, 4000) < p
    z = np.log(p / (1 - p)) * 3 + 1  # far too sure of itself
    scores = (1 / (1 + np.exp(-z))).astype(np.float32)
    both = np.stack([scores, 1 - scores], 1)
    found = calibrate.fit(both[:2000], np.where(right[:2000], 0, 1), kind, [0])
    after = classify.calibrate(both, found)
    assert after.sum(1) == pytest.approx(1)
    assert (np.diff(after[np.argsort(scores, kind="stable"), 0].astype(float)) >= 0).all()
    test, truth = slice(2000, None), right[2000:]
    assert measures.auc(truth, after[test, 0]) == pytest.approx(measures.auc(truth, scores[test]), abs=2e-4)
    assert measures.calibration_error(truth, scores[test]) > 0.1 > 2 * measures.calibration_error(truth, after[test, 0])


def test_an_isotonic_curve_is_that_of_pooled_blocks() -> None:
    x, y = calibrate.isotonic(np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.8]), np.array([0, 1, 0, 0, 1, 1], bool))
    assert x == [0, 0.1, 0.3, 0.7, 1] and y == [0, 0.25, 0.375, pytest.approx(2.5 / 3, abs=1e-6), 1]
    with pytest.raises(RecipeError, match="lacks a class"):
        calibrate.fit(np.array([[0.5, 0.5]]), np.array([0]), "platt", [0])
    with pytest.raises(RecipeError, match="higher scores are not better"):
        calibrate.platt(np.array([0.1, 0.2, 0.8, 0.9]), np.array([1, 1, 0, 0], bool))


# --------------------------------------------------------------------------------------------- data


def test_nothing_leaks_from_one_side_to_another(tmp_path: Path) -> None:
    base = texts(GOOD, 60, 1, 60) + texts(BAD, 60, 2, 60)
    rng = random.Random(3)
    rows = []
    for i, text in enumerate(base):
        label = "hq" if i < 60 else "lq"
        words = text.split()
        words[rng.randrange(60)] = "changed"
        near = " ".join(words)
        rows += [(text, label, i, f"h{i % 90}"), (near, label, i, None), (text.upper() + " ", label, i, None)]
    rows += [("Call 555 123", "lq", 900, None), ("call  555 999", "lq", 900, None)]  # fewer words than a shingle has
    names = ("text", "label", "family", "host")
    path = write(tmp_path, pa.table({n: [r[k] for r in rows] for k, n in enumerate(names)}))
    ready = prepared([path], Training(group="host", validation=0.2, test=0.2))
    assert ready.documents.notes == {"repeated documents": 120} and len(ready.documents) == 242
    family = {text: i for text, _, i, _ in rows} | {text.upper() + " ": i for text, _, i, _ in rows}
    sides: dict[Any, set[str]] = {}
    for text, group, side in zip(ready.documents.text.to_pylist(), ready.documents.group.to_pylist(), ready.side, strict=True):
        sides.setdefault(family[text], set()).add(side)
        sides.setdefault(group or object(), set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert {"train", "validation", "test"} == set(ready.side.tolist())
    turned = write(tmp_path, pa.table({n: [r[k] for r in reversed(rows)] for k, n in enumerate(names)}), "turned.parquet")
    again = prepared([turned], Training(group="host", validation=0.2, test=0.2))
    assert again.keys == ready.keys and again.side.tolist() == ready.side.tolist()
    other = prepared([path], Training(group="host", validation=0.2, test=0.2, seed=1))
    assert other.side.tolist() != ready.side.tolist()


def test_texts_with_two_labels_go(tmp_path: Path) -> None:
    found = table(20)
    more = pa.table({"id": ["x"], "text": [found["text"][0].as_py()], "label": ["lq"], "source": ["mail"], "license": ["MIT"]})
    ready = prepared([write(tmp_path, pa.concat_tables([found, more]))], Training())
    assert ready.documents.notes == {"documents whose text is there with another label too": 2}
    assert found["text"][0].as_py() not in ready.documents.text.to_pylist()


def test_every_side_has_every_class(tmp_path: Path) -> None:
    found = table(100).slice(0, 103)  # three documents of one class
    for seed in range(6):
        ready = prepared([write(tmp_path, found)], Training(seed=seed))
        held = {(label, side) for label, side in zip(ready.documents.label.tolist(), ready.side.tolist(), strict=True)}
        assert {("lq", "train"), ("hq", "train"), ("hq", "validation"), ("hq", "test")} <= held
        assert ("lq", "test") in held or ("lq", "validation") in held or sum(ready.documents.label == "lq") < 4


def test_sampling_by_source(tmp_path: Path) -> None:
    path = write(tmp_path, table(100))
    ready = prepared([path], Training.of({"sources": {"books": 7, "mail": 0.5}, "per_source": 40}))
    source = ready.documents.source.to_pylist()
    assert {name: source.count(name) for name in set(source)} == {"books": 7, "papers": 40, "mail": 25, "ads": 40}
    assert ready.documents.notes == {"documents beyond what is taken of a source": 88}
    with pytest.raises(RecipeError, match="no source 'book'; did you mean 'books'"):
        prepared([path], Training.of({"sources": {"book": 1}}))


def test_balance_shows_classes_alike() -> None:
    labels = np.array(["a"] * 100 + ["b"] * 40 + ["c"] * 10, object)
    keys = [f"k{i}" for i in range(150)]
    seen, less = data.repeats(labels, keys, 1, 0), data.repeats(labels, keys, 0.5, 0)
    assert less is not None and 25 <= less[140:].sum() <= 38 and data.repeats(labels, keys, 0, 0) is None
    assert seen is not None and (seen[:100] == 1).all() and (seen[140:] == 10).all()
    assert set(seen[100:140].tolist()) == {2, 3} and 90 <= seen[100:140].sum() <= 110


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz", "two files", "bools", "whole floats"])
def test_inputs(tmp_path: Path, kind: str) -> None:
    found = table(20)
    if kind == "jsonl.gz":
        path = tmp_path / "labelled.jsonl.gz"
        with gzip.open(path, "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in found.to_pylist())
            out.write('{"text": "no label"}\n{broken\n{"text": "", "label": "hq"}\n')
        ready = prepared([str(path)], Training())
        assert ready.documents.notes == {
            "records that cannot be read (malformed)": 1, "documents without a label": 1, "documents without text": 1,
        }  # fmt: skip
    elif kind == "two files":
        write(tmp_path, found.slice(0, 20), "a.parquet")
        write(tmp_path, found.slice(20).set_column(2, "label", pa.array([0] * 20)), "b.parquet")
        ready = prepared([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")], Training())
        assert ready.labels == ["0", "hq"]
        return
    elif kind in ("bools", "whole floats"):
        values = pa.array([True] * 20 + [False] * 20) if kind == "bools" else pa.array([1.0] * 20 + [0.0] * 19 + [None])
        ready = prepared([write(tmp_path, found.set_column(2, "label", values))], Training())
        assert ready.labels == (["false", "true"] if kind == "bools" else ["0", "1"])
        return
    else:
        ready = prepared([write(tmp_path, found)], Training())
    assert ready.labels == ["hq", "lq"] and len(ready.documents) == 40
    assert set(ready.documents.licence.to_pylist()) == {"CC0-1.0", "MIT"}


# --------------------------------------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("labelled"), table())


@pytest.fixture(scope="module")
def trained(labelled: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained") / "mine"
    params = [f"--param={key}={value}" for key, value in TINY.items()]
    done = curate("train", "fasttext", labelled, "-o", out, *params, "--param", "calibrate=true", "--json")
    return out, json.loads(done.stdout)


def test_train_writes_a_classifier(trained: tuple[Path, dict[str, Any]], labelled: str, tmp_path: Path) -> None:
    out, found = trained
    assert sorted(path.name for path in out.iterdir()) == ["card.md", "classifier.json", "model.bin", "recipe.yaml"]
    assert found["positive"] == "hq" and found["auc"] > 0.99 and found["documents"] > 20
    assert set(found["per_class"]) == {"hq", "lq"}
    about = json.loads((out / "classifier.json").read_text())
    assert about["calibration"]["kind"] == "platt" and about["metrics"]["auc"] == found["auc"]
    classifier = classify.load(out)
    good, bad = classifier.scores(["river orbit treaty", "FREE prize click"])[:, classifier.labels.index("hq")]
    assert good > 0.8 > 0.2 > bad
    again = curate("train", "fasttext", labelled, "-o", tmp_path / "mine", "--recipe", out / "recipe.yaml", "--json")
    assert json.loads(again.stdout)["auc"] == found["auc"]
    for path in out.iterdir():
        assert (tmp_path / "mine" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_card_tells_it_all(trained: tuple[Path, dict[str, Any]]) -> None:
    out, found = trained
    card = (out / "card.md").read_text()
    for part in (
        "## Use", "## Data", "## Recipe", "## Figures", "### Per class", "### By source", "### Confusion", "### Reliability",
        "### Thresholds", "## The 20 strongest features", "## Test documents nearest to a score of 0.5 for `hq`",
    ):  # fmt: skip
        assert f"\n{part}" in card, part
    assert f"| AUC | {found['auc']:.4f} |" in card and f"| test documents | {found['documents']} |" in card
    assert "| hq | books | CC0-1.0 | 60 |" in card and "| lq | mail | MIT | 60 |" in card
    rows = {line.split(" | ")[0]: line for line in card.splitlines() if line.startswith("| `")}
    assert sum(f"`{word}`" in card for word in GOOD) == len(GOOD)
    strongest = card[card.index("strongest features") :].splitlines()
    high = next(line for line in strongest if line.startswith("| `hq` |"))
    assert all(f"`{word}`" not in high.partition("`the`")[0] for word in BAD) and "`river`" in high
    assert len(rows) > 10
    nearest = [line for line in card[card.index("## Test documents") :].splitlines() if line.startswith("| `d")]
    far = [abs(float(line.split(" | ")[4]) - 0.5) for line in nearest]
    assert len(far) == 10 and far == sorted(far)


def test_eval(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = trained
    found = table(30, 77)
    renamed = found.rename_columns(["id", "text", "judged", "source", "license"])
    path = write(tmp_path, renamed)
    said = json.loads(curate("eval", out, path, "--param", "label=judged", "--json").stdout)
    assert {"auc", "average_precision", "accuracy", "per_class", "documents"} <= set(said)
    assert said["documents"] == 60 and said["auc"] > 0.99 and said["per_class"]["hq"]["documents"] == 30
    bare = json.loads(curate("eval", out / "model.bin", path, "--param", "label=judged", "--json").stdout)
    assert bare["auc"] == pytest.approx(said["auc"], abs=1e-3) and bare["positive"] == "hq"
    turned = judge(str(out), [path], label="judged", positive="lq")
    assert turned["auc"] == pytest.approx(said["auc"]) and turned["positive"] == "lq"
    shown = curate("eval", out, path, "--param", "label=judged").stdout
    assert shown.splitlines()[0].split() == ["auc", f"{said['auc']:.4f}"] and "60 documents" in shown


def test_eval_counts_what_it_cannot_judge(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    odd = pa.table({"text": ["river orbit", "FREE prize", "\u3042\u3044"], "label": ["hq", "lq", "hq"]})
    found = judge(str(trained[0]), [write(tmp_path, odd)])
    assert found["unscored"] in (0, 1) and found["documents"] == 3
    if found["unscored"]:
        assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-5) and found["auc"] == 1.0
    only = judge(str(trained[0]), [write(tmp_path, odd.slice(0, 1), "one.parquet")])
    assert only["auc"] is None and only["average_precision"] is None and only["accuracy"] == 1.0


def test_sets_in_place_of_labels(tmp_path: Path) -> None:
    found = table(60).drop_columns(["label"])
    good, bad = write(tmp_path, found.slice(0, 60), "reference.parquet"), write(tmp_path, found.slice(60), "crawl.parquet")
    out = tmp_path / "mine"
    params = [f"--param={key}={value}" for key, value in TINY.items()]
    said = json.loads(curate("train", "fasttext", "--positive", good, "--negative", bad, "-o", out, *params, "--json").stdout)
    assert said["positive"] == "positive" and set(said["labels"]) == {"negative", "positive"}
    assert said["auc"] > 0.99
    classifier = classify.load(out)
    assert classifier.scores(["river orbit"])[0, classifier.labels.index("positive")] > 0.5


def test_several_classes_quantised_and_balanced(tmp_path: Path) -> None:
    third = "engine valve piston torque gasket".split()
    found = table(60)
    more = pa.table(
        {
            "id": [f"e{i}" for i in range(20)], "text": texts(third, 20, 9), "label": ["motor parts"] * 20,
            "source": ["manuals"] * 20, "license": ["MIT"] * 20,
        }
    )  # fmt: skip
    params = {**TINY, "balance": True, "quantise": True, "calibrate": "isotonic", "ngrams": 2, "bucket": 1000, "across": True}
    said = train("fasttext", [write(tmp_path, pa.concat_tables([found, more]))], tmp_path / "mine", params)
    assert set(said["labels"]) == {"hq", "lq", "motor_parts"} and said["positive"] is None and said["auc"] > 0.98
    assert (tmp_path / "mine" / "model.ftz").is_file()
    assert classify.load(tmp_path / "mine").scores(["piston torque"]).sum() == pytest.approx(1)
    card = (tmp_path / "mine" / "card.md").read_text()
    assert "### Sources that were not trained on" in card and "| manuals | `motor_parts` | 20 | all of its label |" in card
    assert "nearest to a tie of two labels" in card


@pytest.mark.parametrize("how", ["lsa", "column", "regression"])
def test_linear(tmp_path: Path, how: str) -> None:
    found = table(80)
    params: dict[str, Any] = {"excerpt": 0}
    if how == "lsa":
        params |= {"dim": 8, "calibrate": True}
    else:
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(160, 6)).astype(np.float16)
        vectors[:80, 2] += 3
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 6)
        found = found.append_column("embedding", column)
        params |= {"vectors": "embedding"}
    if how == "regression":
        params |= {"task": "regression", "label": "grade", "threshold": 3}
        found = found.append_column("grade", pa.array((vectors[:, 2].astype(float) + 1).tolist()))
    path = write(tmp_path, found)
    said = train("linear", [path], tmp_path / "mine", params)
    assert said["auc"] > 0.95
    classifier = classify.load(tmp_path / "mine")
    card = (tmp_path / "mine" / "card.md").read_text()
    about = json.loads((tmp_path / "mine" / "classifier.json").read_text())
    assert "## The 20 strongest features" in card and about["features"]["dim"] == (8 if how == "lsa" else 6)
    again = judge(str(tmp_path / "mine"), [path], label="grade" if how == "regression" else "label", threshold=3)
    assert again["documents"] == 160 and again["auc"] > 0.95
    if how == "lsa":
        good, bad = classifier.scores(["river orbit treaty", "FREE prize click"])[:, classifier.labels.index("hq")]
        assert good > bad and about["features"]["model"] == "lsa"
    elif how == "column":
        assert classifier.scores(vectors[:1])[0, classifier.labels.index("hq")] > 0.5
        assert card[card.index("strongest") :].split("`hq` | ")[1].startswith("2 (+")
    else:
        assert about["metrics"]["r2"] > 0.99 and classifier.scores(vectors[:1])[0, 0] == pytest.approx(
            vectors[0, 2] + 1, abs=0.1
        )
        assert about["metrics"]["quadratic_kappa"] > 0.95 and about["metrics"]["threshold"] == 3


def test_run_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", table(20))
    curate("apply", "word_count", tmp_path / "in", "-o", tmp_path / "run", "-w", 0)
    ready = prepared([str(tmp_path / "run")], Training())
    assert len(ready.documents) == 40 and ready.labels == ["hq", "lq"]


# --------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("params", "change", "says"),
    [
        ({}, lambda t: t.slice(0, 20), "there is only one class, 'hq'; a classifier needs documents of at least two"),
        ({}, lambda t: t.drop_columns(["label"]), "(--param label=COLUMN names the column of labels)"),
        ({"label": "lable"}, None, "has no column 'lable'; did you mean 'label'?"),
        ({"text": "body"}, None, "has no column 'body'"),
        ({}, lambda t: t.set_column(2, "label", pa.array([1.0] * 39 + [math.nan])), "1 of 40 labels in 'label' are NaN"),
        ({}, lambda t: t.set_column(2, "label", pa.nulls(40, pa.string())), "no document has both a text and a label"),
        ({}, lambda t: t.set_column(2, "label", pa.array([["a"]] * 40)), "labels are list"),
        ({}, lambda t: t.set_column(2, "label", pa.array(["a b", "a_b"] * 20)), "'a b' and 'a_b' would both be 'a_b'"),
        (
            {},
            lambda t: t.set_column(1, "text", pa.array(t["text"].to_pylist()[:20] * 2)),
            "the class 'hq' is empty after 40 repeated or contradictory documents were left out",
        ),
        ({"positive": "hqq"}, None, "no label is called 'hqq'; did you mean 'hq'?"),
        ({"epochs": 3}, None, "there is no parameter 'epochs'; did you mean 'epoch'?"),
        ({"balance": 3}, None, "balance is 3.0; it is true, false or a number from 0 to 1"),
        ({"epoch": "many"}, None, "epoch is 'many'; it is a whole number"),
        ({"lr": ".nan"}, None, "lr is"),
        ({"test": 0.7, "validation": 0.3}, None, "leave nothing to train on"),
        ({"calibrate": "beta"}, None, "calibrate is 'beta'"),
        ({"calibrate": True, "validation": 0}, None, "there is no validation part"),
        ({"group": "host"}, None, "has no column 'host'"),
        ({"task": "regression"}, None, "a regression is of the kind linear"),
    ],
)
def test_bad_training(tmp_path: Path, params: dict[str, Any], change: Any, says: str) -> None:
    found = table(20)
    path = write(tmp_path, change(found) if change else found)
    given = [f"--param={key}={json.dumps(value) if value is True else value}" for key, value in params.items()]
    refused("train", "fasttext", path, "-o", tmp_path / "mine", *given, says=says)
    assert not (tmp_path / "mine").exists()


def test_bad_calls(tmp_path: Path, trained: tuple[Path, dict[str, Any]]) -> None:
    out = tmp_path / "mine"
    path = write(tmp_path, table(20))
    refused("train", "fastext", path, "-o", out, says="no kind is called 'fastext'; did you mean 'fasttext'?")
    refused("train", "fasttext", "-o", out, says="no labelled data")
    refused("train", "fasttext", "--positive", path, "-o", out, says="--positive sets need --negative sets")
    refused("train", "fasttext", tmp_path / "none.parquet", "-o", out, says="does not exist")
    refused("train", "fasttext", path, "-o", tmp_path, says="holds no classifier: name another folder")
    refused("train", "fasttext", path, "-o", out, "--param", "epoch", says="write it as name=value")
    refused("train", "fasttext", path, "-o", out, "--recipe", tmp_path / "no.yaml", says="cannot be read as a recipe")
    refused("train", "linear", path, "-o", out, "--param", "vectors=embedding", says="has no column 'embedding'")
    refused("eval", trained[0], path, "--param", "labels=label", says="no parameter 'labels'; did you mean 'label'?")
    refused("eval", trained[0], path, "--param", "label=source", says="the label 'ads' in the column 'source' is none of")
    refused("eval", trained[0], path, "--param", "positive=best", says="no label is called 'best'")
    refused("eval", path, path, says="")
    bad = np.zeros((40, 3), np.float32)
    bad[3, 1] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(bad.ravel()), 3)
    odd = write(tmp_path, table(20).append_column("embedding", column), "odd.parquet")
    with pytest.raises(SourceError, match="1 of 40 vectors in 'embedding' hold NaN"):
        train("linear", [odd], out, {"vectors": "embedding"})
    assert not out.exists()
