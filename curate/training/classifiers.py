"""Training and judging a classifier: what `curate train` and `curate eval` do.

    curate train fasttext labelled.parquet -o mine        mine/: model, classifier.json, card.md, recipe.yaml
    curate eval mine held-out.parquet --json

A training reads labelled documents, leaves out repetitions and texts with two labels, divides the rest so that no
near-duplicate is on two sides (`curate.training.data`), fits on the training part, calibrates on the validation part, and
judges on the test part, which nothing else has seen. The same data, parameters and seed give the same bytes.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate import classify
from curate.errors import RecipeError, SourceError, did_you_mean
from curate.training import calibrate as calibration
from curate.training import data as labelled
from curate.training import evaluate as measures
from curate.training.data import TEST, TRAIN, VALIDATION, Documents

KINDS = ("fasttext", "linear")
GOOD = ("positive", "pos", "hq", "high", "good", "keep", "yes", "true", "1", "ham")  # labels that are the positive one of two
L2 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # penalties that are tried where none is given
RECIPE = "recipe.yaml"
DIGITS = 6  # of figures that are written down


@dataclass(frozen=True, kw_only=True)
class Training:
    """The parameters of a training, as `--param` and a recipe give them.

    text, label, source, group, vectors: columns. source may be several with commas between; documents with one value of `group`
    (a host, an author) stay on one side of the split; `vectors` is a column of embeddings, for `linear`.
    positive: the label whose probability is the score; of two labels one is chosen by its name, else there is none.
    sources: how many documents, or which share, of a source are taken per label. per_source: at most so many of any other.
    validation, test: shares of the split. balance: how far small classes are shown more often, 0 to 1: at 1 (or true) as often
    as the largest, at 0.5 half the way there.
    one_line, lower, words, max_chars: what is done to a text before, see `curate.classify.Prepare`.
    calibrate: true, false, isotonic or platt.

    Of `fasttext`: dim, epoch, lr, ngrams, bucket, minn, maxn, min_count, loss, quantise, cutoff, dsub, retrain; see
    `curate.training.fit.fit_fasttext`. Of `linear`: task (classes or regression), l2 (0: the best on the validation part),
    embedding (where there is no column: lsa, which is fitted on the training part, minilm, or another model) and dim, of
    lsa. threshold: of a regression, from which value on a document is a positive when its ranking is judged.

    across: also train without each source and judge on it, for the card. name, licence, about, good_for, not_for: for the card.
    excerpt: characters of a document that the card may show. seed: of the split, of sampling and of the fit.
    """

    text: str = "text"
    label: str = "label"
    source: str = "source"
    group: str = ""
    vectors: str = ""
    positive: str = ""
    sources: Mapping[str, float] = field(default_factory=dict)
    per_source: int = 0
    validation: float = 0.1
    test: float = 0.2
    balance: float = 0.0
    one_line: bool = True
    lower: bool = False
    words: bool = False
    max_chars: int = 0
    calibrate: bool | str = False
    dim: int = 0
    epoch: int = 10
    lr: float = 0.5
    ngrams: int = 1
    bucket: int = 200_000
    minn: int = 0
    maxn: int = 0
    min_count: int = 1
    loss: str = "softmax"
    quantise: bool = False
    cutoff: int = 0
    dsub: int = 2
    retrain: bool = False
    task: str = "classes"
    l2: float = 0.0
    embedding: str = "lsa"
    threshold: float | None = None
    across: bool = False
    name: str = ""
    licence: str = ""
    about: str = ""
    good_for: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    excerpt: int = 160
    seed: int = 0

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Training:
        """Parameters out of a mapping, checked. Raises RecipeError."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        plain = cls()
        given = {}
        for name, value in params.items():
            if name not in known:
                raise RecipeError(f"training: there is no parameter {name!r}{did_you_mean(name, known)}")
            given[name] = _as(name, value, getattr(plain, name))
        made = cls(**given)
        if made.calibrate not in (True, False, *calibration.KINDS):
            raise RecipeError(f"training: calibrate is {made.calibrate!r}; write true, isotonic, platt or false")
        if made.task not in classify.TASKS:
            raise RecipeError(f"training: task is {made.task!r}; it is classes or regression")
        if not 0 <= made.balance <= 1:
            raise RecipeError(f"training: balance is {made.balance}; it is true, false or a number from 0 to 1")
        for name in ("excerpt", "per_source"):
            if getattr(made, name) < 0:
                raise RecipeError(f"training: {name} is {getattr(made, name)}; it is a number from 0")
        return made

    @property
    def prepare(self) -> classify.Prepare:
        """What is done to a text before it is learned from."""
        return classify.Prepare(one_line=self.one_line, lower=self.lower, words=self.words, max_chars=self.max_chars)

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, as a recipe has it."""
        plain = Training()
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            for name, value in found.items()
            if value != getattr(plain, name)
        }


def _as(name: str, value: Any, default: Any) -> Any:
    """The value of a parameter, of the type that its default has."""
    if isinstance(default, tuple):
        found = (value,) if isinstance(value, str) else value
        if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
            raise RecipeError(f"training: {name} is {value!r}; write text, or a list of texts")
        return tuple(found)
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise RecipeError(f"training: {name} is {value!r}; write a mapping, such as {{web: 1000}}")
        return dict(value)
    if name == "calibrate":
        return value
    if name == "balance" and isinstance(value, bool):
        return float(value)
    if name == "threshold":
        fits = value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
    elif isinstance(default, bool):
        fits = isinstance(value, bool)
    elif isinstance(default, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if fits else value
    else:
        value = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        fits = isinstance(value, str)
    if not fits:
        kind = {bool: "true or false", int: "a whole number", float: "a number", type(None): "a number"}.get(
            type(default), "text"
        )
        raise RecipeError(f"training: {name} is {value!r}; it is {kind}")
    return value


# --------------------------------------------------------------------------------------------- training


@dataclass
class Prepared:
    """Labelled documents that are ready: without repetitions, each with its side."""

    documents: Documents
    keys: list[str]
    cluster: np.ndarray
    side: np.ndarray
    labels: list[str]

    def part(self, side: str) -> Documents:
        """The documents of one side."""
        return self.documents.take(self.side == side)


def prepared(
    data: Sequence[str], params: Training, *, positive: Sequence[str] = (), negative: Sequence[str] = (), vectors: bool = False
) -> Prepared:
    """Read, check, sample and divide labelled documents, as a training does."""
    regression = params.task == "regression"
    documents = labelled.load(
        data, positive=positive, negative=negative, text=params.text, label=params.label, source=params.source,
        group=params.group, vectors=params.vectors if vectors else "", numbers=regression,
    )  # fmt: skip
    if not regression:
        labelled.check_two(documents.label.tolist(), 0)
    read, classes_read = len(documents), set() if regression else set(documents.label.tolist())
    keys = labelled.digests(documents.text)
    cluster = labelled.clusters(documents)  # of all: a repetition that goes can still tie two groups together
    kept = labelled.without_repetitions(documents, keys)
    if not regression:
        labelled.check_still_there(classes_read, documents.label[kept].tolist(), read - len(kept))
    documents, keys, cluster = documents.take(kept), [keys[i] for i in kept], cluster[kept]
    taken = labelled.sampled(documents, keys, params.sources, params.per_source, params.seed)
    if not taken.all():
        documents.note("documents beyond what is taken of a source", int((~taken).sum()))
        documents, keys, cluster = documents.take(taken), [keys[i] for i in np.flatnonzero(taken)], cluster[taken]
    gone = read - len(documents)
    if not regression:
        labelled.check_two(documents.label.tolist(), gone)
    classes = None if regression else documents.label
    side = labelled.divided(keys, cluster, params.validation, params.test, params.seed, classes)
    if not regression:
        labelled.check_classes(documents.label.tolist(), side.tolist(), gone)
    elif not (side == TRAIN).any():
        raise RecipeError("training: no document is left to train on")
    labels = [params.label] if regression else sorted(set(documents.label.tolist()))
    return Prepared(documents, keys, cluster, side, labels)


def train(
    kind: str,
    data: Sequence[str],
    out: str | Path,
    params: Mapping[str, Any] | Training | None = None,
    *,
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a classifier and write its folder: the model, `classifier.json`, `card.md` and `recipe.yaml`.

    kind: `fasttext`, or `linear` for a head on vectors. data: Parquet or JSONL files, folders, run folders, URLs. out: a folder
    that is not there, holds nothing but a recipe, or holds a classifier, which is replaced. params: see `Training`. positive,
    negative: sets that need no labels.

    Returns the figures on the held-out part: `auc`, `average_precision`, `accuracy`, `per_class`, `documents` and more.
    Raises RecipeError, SourceError, MissingExtra or StageError, each in one line.
    """
    if kind not in KINDS:
        raise RecipeError(f"train: no kind is called {kind!r}{did_you_mean(kind, KINDS)}")
    asked = params if isinstance(params, Training) else Training.of(params or {})
    if kind == "fasttext" and asked.task != "classes":
        raise RecipeError("train: a fastText model tells classes apart; a regression is of the kind linear")
    out = Path(out)
    if out.exists() and not (out / classify.JSON).is_file() and _holds_more_than_a_recipe(out):
        raise RecipeError(f"{out} is there and holds no classifier: name another folder with -o")
    ready = prepared(data, asked, positive=positive, negative=negative, vectors=kind == "linear")
    chosen = _positive(asked.positive, ready.labels) if asked.task == "classes" else None
    with tempfile.TemporaryDirectory(prefix="curate-train-") as scratch:
        return _train(kind, asked, ready, chosen, out, Path(scratch))


def _holds_more_than_a_recipe(out: Path) -> bool:
    return not out.is_dir() or any(path.name != RECIPE for path in out.iterdir())


def _train(kind: str, asked: Training, ready: Prepared, positive: str | None, out: Path, scratch: Path) -> dict[str, Any]:
    from curate.training import card

    fitted = _fit(kind, asked, ready, ready.side == TRAIN, ready.side == VALIDATION, scratch / "raw")
    about: dict[str, Any] = {
        "name": asked.name or out.resolve().name,
        "kind": kind,
        "labels": fitted.labels,
        "positive": positive,
        "task": asked.task,
        "prepare": dataclasses.asdict(asked.prepare),
        "features": fitted.features,
        "licence": asked.licence or None,
        "seed": asked.seed,
    }
    classify.save(scratch / "raw", about, **fitted.parts)
    classifier = classify.load(scratch / "raw")
    if asked.calibrate and asked.task == "classes":
        about["calibration"] = _calibrated(asked.calibrate, classifier, ready, positive)
        classify.save(scratch / "calibrated", about, **fitted.parts)
        classifier = classify.load(scratch / "calibrated")
    test = ready.part(TEST)
    judged = judgement(classifier, test, asked.threshold) if len(test) else None
    found = judged.figures if judged else {"documents": 0}
    about["metrics"] = found
    about["thresholds"] = judged.thresholds if judged else []
    told = {"about", "good_for", "not_for", "name", "licence"}  # by the card
    about["recipe"] = {"kind": kind, **{k: v for k, v in asked.changed().items() if k not in told}, **fitted.chosen}
    across = _across(kind, asked, ready, positive, scratch) if asked.across and asked.task == "classes" else []
    text = card.written(
        about=about, params=asked, ready=ready, classifier=classifier, judged=judged, across=across, chosen=fitted.chosen,
        weights=fitted.parts["head"]["weights"] if asked.vectors and "head" in fitted.parts else None,
    )  # fmt: skip
    (scratch / RECIPE).write_bytes(recipe_yaml(kind, asked))
    classify.save(out, about, card=text, files={RECIPE: scratch / RECIPE}, **fitted.parts)
    parts = Counter(ready.side.tolist())
    return {
        "out": str(out),
        "kind": kind,
        "labels": list(fitted.labels),
        "positive": positive,
        **{key: found.get(key) for key in ("auc", "average_precision", "accuracy", "per_class", "documents")},
        "trained_on": parts[TRAIN],
        "validated_on": parts[VALIDATION],
        "left_out": dict(sorted(ready.documents.notes.items())),
    }


def recipe_yaml(kind: str, params: Training) -> bytes:
    """What repeats a training: its parameters where they are not the defaults."""
    import yaml

    text = yaml.safe_dump({"kind": kind, **params.changed()}, sort_keys=False, allow_unicode=True, width=120)
    return text.encode()


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The parameters in a file that `recipe_yaml` wrote, `kind` among them. Raises RecipeError."""
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe of a training: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise RecipeError(f"{path} is not a recipe of a training: it holds no `parameter: value` lines")
    return found


def _positive(asked: str, labels: Sequence[str]) -> str | None:
    if asked:
        return labels[classify.number_of(labels, labelled.plain_label(asked), "training: positive")]
    return guessed_positive(labels)


def guessed_positive(labels: Sequence[str]) -> str | None:
    """Of two labels the one that names the better, else the last by name; None for more."""
    if len(labels) != 2:
        return None
    lower = {label.lower(): label for label in labels}
    return next((lower[name] for name in GOOD if name in lower), sorted(labels)[-1])


@dataclass
class Fitted:
    """What a fit gives `classify.save`."""

    labels: list[str]
    parts: dict[str, Any]
    features: dict[str, Any] | None
    chosen: dict[str, Any] = field(default_factory=dict)


def _fit(kind: str, params: Training, ready: Prepared, rows: np.ndarray, validation: np.ndarray, path: Path) -> Fitted:
    """Fit on the documents of `rows`; what is to be chosen is chosen on those of `validation`. Both bool."""
    documents = ready.documents.take(rows)
    texts = params.prepare(documents.text)
    balance = params.balance if params.task == "classes" else 0.0
    keys = [key for key, mine in zip(ready.keys, rows.tolist(), strict=True) if mine]
    if kind == "fasttext":
        from curate import fasttext
        from curate.training.fit import fit_fasttext

        file = path.with_suffix(".ftz" if params.quantise else ".bin")
        fit_fasttext(
            texts, documents.label.tolist(), path=file, dim=params.dim or 16, epoch=params.epoch, lr=params.lr,
            ngrams=params.ngrams, bucket=params.bucket if params.ngrams > 1 or params.maxn else 0, minn=params.minn,
            maxn=params.maxn, min_count=params.min_count, loss=params.loss, seed=params.seed, quantise=params.quantise,
            cutoff=params.cutoff, dsub=params.dsub, retrain=params.retrain,
            repeats=labelled.repeats(documents.label, keys, balance, params.seed),
        )  # fmt: skip
        return Fitted(list(fasttext.load(file).labels), {"model": file}, None)
    return _fit_linear(params, ready, documents, texts, rows, validation, keys, path)


def _fit_linear(
    params: Training, ready: Prepared, documents: Documents, texts: pa.Array, rows: np.ndarray, validation: np.ndarray,
    keys: list[str], path: Path,
) -> Fitted:  # fmt: skip
    from curate.training.fit import fit_linear

    parts: dict[str, Any] = {}
    whole = ready.documents
    if params.vectors:
        if whole.vectors is None:
            raise SourceError(f"no document has a vector in {params.vectors!r}")
        vectors, other = whole.vectors[rows], whole.vectors[validation]
        features = {"column": params.vectors, "dim": vectors.shape[1], "model": None}
    else:
        embedder, parts = _embedder(params, texts, path)
        vectors, other = (_embedded(embedder, t) for t in (texts, params.prepare(whole.text.filter(pa.array(validation)))))
        features = {"column": "embedding", "dim": int(vectors.shape[1]), "model": params.embedding}
    regression = params.task == "regression"
    number = {label: i for i, label in enumerate(ready.labels)}

    def targets(labels: np.ndarray) -> np.ndarray:
        return labels.astype(np.float64) if regression else np.array([number[label] for label in labels.tolist()], np.int64)

    known = np.isfinite(vectors).all(1) & vectors.any(1)  # a text of which the embedder knows nothing teaches nothing
    weights = labelled.repeats(documents.label, keys, 0.0 if regression else params.balance, params.seed)
    weights = np.ones(len(documents)) if weights is None else weights.astype(np.float64)
    tried = (params.l2,) if params.l2 else L2
    there = np.isfinite(other).all(1) & other.any(1)
    if len(tried) > 1 and not there.any():
        tried = (1e-4,)
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for l2 in tried:
        w, b = fit_linear(
            vectors[known], targets(documents.label)[known], task=params.task, l2=l2, weights=weights[known], seed=params.seed
        )
        off = 0.0
        if len(tried) > 1:
            off = _off(other[there] @ w.T + b, targets(whole.label[validation][there]), regression)
        if best is None or off < best[0] - 1e-9:
            best = off, l2, w, b
    if best is None:
        raise RecipeError("training: nothing was fitted")
    _, l2, w, b = best
    return Fitted(ready.labels, {**parts, "head": {"weights": w, "bias": b}}, features, {"l2": l2})


def _off(z: np.ndarray, targets: np.ndarray, regression: bool) -> float:
    """What a head loses on documents: squared error, or minus the log of the right probability."""
    if regression:
        return float(((z[:, 0] - targets) ** 2).mean())
    z = z.astype(np.float64)
    z = z - z.max(1, keepdims=True)
    return float((np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), targets]).mean())


def _embedder(params: Training, texts: pa.Array, path: Path) -> tuple[Any, dict[str, Any]]:
    from curate import embeddings

    if params.embedding != embeddings.LSA:
        return embeddings.load(params.embedding), {}
    model = embeddings.fit_lsa(texts.slice(0, embeddings.SAMPLE), params.dim or embeddings.DIM, params.seed)
    file = path.with_suffix(".npz")
    model.save(file)
    return embeddings.Lsa.load(file), {"lsa": file}  # as it will be read, in half precision


def _embedded(embedder: Any, texts: pa.Array) -> np.ndarray:
    return embedder.encode(texts) if len(texts) else np.empty((0, embedder.dim), np.float32)


def _calibrated(asked: bool | str, classifier: classify.Classifier, ready: Prepared, positive: str | None) -> dict[str, Any]:
    part = ready.part(VALIDATION)
    if not len(part):
        raise RecipeError("calibrate: there is no validation part: set validation, such as 0.1")
    scores = scored(classifier, part)
    known = ~np.isnan(scores).any(1)
    number = {label: i for i, label in enumerate(classifier.labels)}
    truth = np.array([number[label] for label in part.label.tolist()])[known]
    kind = asked if isinstance(asked, str) else calibration.kind_for(len(truth))
    two = len(classifier.labels) == 2
    columns = [number[positive or classifier.labels[0]]] if two else list(range(len(classifier.labels)))
    return calibration.fit(scores[known], truth, kind, columns)


def _across(kind: str, params: Training, ready: Prepared, positive: str | None, scratch: Path) -> list[dict[str, Any]]:
    """For each source: how its documents are judged by a model that was trained without any of it.

    Only the largest sources are looked at. They are set against the test documents of other classes and sources. Left out of
    training is also what is tied to the source by near-duplicates. A source that is all there is of a class cannot be left out.
    """
    from curate.training import card

    source = np.array(ready.documents.source.to_pylist(), object)
    label = ready.documents.label
    rows = []
    for n, name in enumerate(sorted(name for name, _ in Counter(source.tolist()).most_common(card.SOURCES))):
        mine = source == name
        rest = (ready.side == TRAIN) & ~np.isin(ready.cluster, ready.cluster[mine])
        missing = sorted(set(label[mine].tolist()) - set(label[rest].tolist()))
        row: dict[str, Any] = {"source": name, "labels": sorted(set(label[mine].tolist())), "documents": int(mine.sum())}
        if missing or len(set(label[rest].tolist())) < len(ready.labels):
            rows.append({**row, "auc": None, "accuracy": None})
            continue
        folder = scratch / f"without-{n}"
        validation = (ready.side == VALIDATION) & ~mine
        fitted = _fit(kind, params, ready, rest, validation, folder)
        about = {
            "name": "without", "kind": kind, "labels": fitted.labels, "positive": positive,
            "prepare": dataclasses.asdict(params.prepare), "features": fitted.features,
        }  # fmt: skip
        classify.save(folder, about, **fitted.parts)
        against = mine | ((ready.side == TEST) & ~np.isin(label, label[mine]))
        judged = judgement(classify.load(folder), ready.documents.take(against), None)
        own = np.array(judged.documents.source.to_pylist(), object) == name
        rows.append(
            {
                **row,
                "auc": judged.figures["auc"],
                "accuracy": _rounded(measures.accuracy(judged.documents.label[own], judged.named[own])),
            }
        )
    return rows


# --------------------------------------------------------------------------------------------- judging


@dataclass
class Judgement:
    """Scores of labelled documents and what they say. named: the label that each was given, "" for none."""

    documents: Documents
    scores: np.ndarray
    named: np.ndarray
    positive: str | None
    figures: dict[str, Any]
    thresholds: list[dict[str, Any]]


def scored(classifier: classify.Classifier, documents: Documents) -> np.ndarray:
    """float32 [n, labels], NaN for a document of which the model knows nothing."""
    if not len(documents):
        return np.empty((0, len(classifier.labels)), np.float32)
    return classifier.scores(documents.text if documents.vectors is None else documents.vectors)


def judge(
    model: str, data: Sequence[str], *, label: str = "label", text: str = "text", positive: str = "", vectors: str = "",
    threshold: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How good a classifier is on labelled documents: `auc`, `average_precision`, `accuracy`, `per_class`, `documents`, ….

    model: name of a shipped classifier, path, URL or hub id. data: as for `train`. label, text, vectors: columns; vectors, for
    a linear head, by default that which the classifier names, where it cannot make them of the texts itself. positive: label
    whose ranking is judged, by default the classifier's. With more than two labels and none of them positive, areas are means
    over the labels that are there. threshold: of a regression, from which label on a document is a positive.

    A document of which the model knows nothing counts as `unscored`: it is wrong for the accuracy and has no place in an area.
    An area is None where the data have one class only. Raises RecipeError, SourceError or MissingExtra in one line.
    """
    classifier = classify.load(classify.resolve(model))
    about = classifier.about
    if not vectors and classifier.kind == "linear" and not (about.features or {}).get("model"):
        vectors = (about.features or {}).get("column") or ""
        if not vectors:
            raise RecipeError(f"{model} scores vectors: name their column with --param vectors=COLUMN")
    documents = labelled.load(
        data, text=text, label=label, vectors=vectors if classifier.kind == "linear" else "", numbers=about.task == "regression"
    )
    if about.task == "classes":
        for name in sorted(set(documents.label.tolist())):
            if name not in classifier.labels:
                raise RecipeError(
                    f"{', '.join(data)}: the label {name!r} in the column {label!r} is none of the classifier's"
                    f"{did_you_mean(name, classifier.labels)}"
                )
        if positive:
            classify.number_of(classifier.labels, labelled.plain_label(positive), f"{model}: positive")
    found = judgement(classifier, documents, threshold, positive=labelled.plain_label(positive) if positive else "")
    return {"model": about.name, **found.figures, "left_out": dict(sorted(documents.notes.items()))}


def judgement(
    classifier: classify.Classifier, documents: Documents, threshold: float | None, *, positive: str = ""
) -> Judgement:
    """Score documents and compare with their labels."""
    scores = scored(classifier, documents)
    if classifier.about.task == "regression":
        return _regression(classifier, documents, scores, threshold)
    labels = list(classifier.labels)
    known = ~np.isnan(scores).any(1)
    best = np.where(known[:, None], scores, -1).argmax(1)
    named = np.where(known, np.array(labels, object)[best], "")
    truth = documents.label
    one = positive or classifier.positive or guessed_positive(labels)
    rows = measures.per_class(truth.tolist(), named.tolist(), [*labels, ""])
    del rows[""]
    for i, name in enumerate(labels):
        right = truth[known] == name
        several = bool(right.any()) and not right.all()
        rows[name]["auc"] = measures.auc(right, scores[known, i]) if several else None
        rows[name]["average_precision"] = measures.average_precision(right, scores[known, i]) if several else None
    there = [one] if one else [name for name in labels if rows[name]["auc"] is not None]
    thresholds: list[dict[str, Any]] = []
    figures: dict[str, Any] = {
        "auc": _mean([rows[name]["auc"] for name in there]),
        "average_precision": _mean([rows[name]["average_precision"] for name in there]),
        "accuracy": measures.accuracy(truth, named) if len(truth) else None,
        "macro_f1": _mean([row["f1"] for row in rows.values()]),
        "positive": one,
        "documents": len(documents),
        "unscored": int((~known).sum()),
    }
    if one:
        column = scores[known, labels.index(one)].astype(np.float64)
        right = truth[known] == one
        if len(column):
            figures["calibration_error"] = measures.calibration_error(right, column)
            thresholds = measures.threshold_table(right, column)
    figures["per_class"] = rows
    return Judgement(documents, scores, named, one, _rounded(figures), _rounded(thresholds))


def _regression(
    classifier: classify.Classifier, documents: Documents, scores: np.ndarray, threshold: float | None
) -> Judgement:
    known = ~np.isnan(scores).any(1)
    truth, found = documents.label[known].astype(np.float64), scores[known, 0].astype(np.float64)
    at = float(np.median(truth)) if threshold is None and len(truth) else threshold
    right = truth >= (at if at is not None else 0.0)
    if threshold is None and len(right) and right.all():
        right = truth > (at or 0.0)
    several = bool(right.any()) and not right.all()
    spread = float(((truth - truth.mean()) ** 2).sum()) if len(truth) else 0.0
    whole = [str(int(v)) for v in np.rint(truth)]
    named = [str(int(v)) for v in np.rint(found)]
    labels = sorted({*whole, *named}, key=int)
    figures: dict[str, Any] = {
        "auc": measures.auc(right, found) if several else None,
        "average_precision": measures.average_precision(right, found) if several else None,
        "accuracy": measures.accuracy(whole, named) if whole else None,
        "macro_f1": measures.macro_f1(whole, named) if whole else None,
        "quadratic_kappa": measures.quadratic_kappa(truth, found) if len(truth) else None,
        "rmse": float(np.sqrt(((truth - found) ** 2).mean())) if len(truth) else None,
        "r2": 1 - float(((truth - found) ** 2).sum()) / spread if spread else None,
        "threshold": at,
        "documents": len(documents),
        "unscored": int((~known).sum()),
        "per_class": measures.per_class(whole, named, labels),
    }
    thresholds = measures.threshold_table(right, found) if several else []
    everyone = np.full(len(documents), "", object)
    everyone[known] = named
    return Judgement(documents, scores, everyone, None, _rounded(figures), _rounded(thresholds))


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _rounded(value: Any) -> Any:
    """Figures as they are written down; NaN as None."""
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
