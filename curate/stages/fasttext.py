"""Scores of fastText classifiers: quality, domain, anything that was trained on labelled texts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate import classify
from curate.classify import About, Classifier
from curate.errors import RecipeError, SourceError
from curate.stage import Annotator, BatchFn, Task, with_columns

UNSCORED = "documents without a score: the model knows no word of them, or says what is no number"


@dataclass(frozen=True, kw_only=True)
class Fasttext(Annotator):
    """Scores texts with a fastText classifier, read and scored without the fastText library.

    model: the name of a classifier that comes with Curate (`quality-en`, `domain-en`), the path of a folder that `curate
    train` has made, of a bare `.bin` or `.ftz` file, an fsspec URL of one of these, or `hf://org/repo` or
    `hf://org/repo/file`. What is remote is copied into the cache. into: the column to write. label: the label whose
    probability is the score; not given, it is the positive label of the classifier; where it has none, as a bare file, the
    best label is written instead of a score. all_labels: write the probability of each label too. k: write the k best labels
    too, 0 for none. calibrated: correct the scores as the classifier says, where it was calibrated. one_line, lower, words,
    max_chars: preparation of the text other than the classifier's own, which is what it has learnt from: newlines to spaces,
    lower case, letters and digits only, the first so many characters. Not given, the classifier's own; for a bare file
    newlines become spaces and nothing else changes, as in DCLM.

    Columns written: `into` (float32, probability in [0, 1]), or with neither `label` nor a positive one `into` (string, the
    best label) and `into_score` (float32, its probability); with `all_labels` also `into_LABEL` (float32) for each; with k
    `into_top` (list of struct of `label`, string, and `score`, float32, best first). All are null, and the document is
    counted, where the text is null or the model knows no word and no n-gram of it, and where its score is not a number.
    Reasons: none: to keep the best share use `quantile`, for a threshold `where`.

    Probabilities are those of the fastText library, without the 1e-5 that it adds to each (so that they sum to 1 and the
    surest are still told apart): within 1e-5 + 1e-6. Labels stand without `__label__`. Words end at ASCII whitespace, a
    newline is a space, and the end of the text is the word `</s>`.

    A fastText model is linear in its features, so each row of its input matrix is multiplied with the output matrix once, at
    loading: 2 million n-grams of 100 numbers become 2 million single numbers for two labels. A file that our reader does not
    cover is scored by the library (the extra `train`).

    Source: fastText (Joulin et al. 2016, https://arxiv.org/abs/1607.01759); its use on web text as in DataComp-LM (Li et al.
    2024, https://arxiv.org/abs/2406.11794); the multiplication is our own.

    >>> docs = ["The theorem follows from the lemma by induction on the number of vertices of the graph.",
    ...         "FREE ringtone!!! Text WIN to 80082 now to claim your cash prize"]
    >>> scores = Fasttext(model="quality-en")(docs).kept["quality"].to_pylist()
    >>> scores[0] > scores[1]
    True
    """

    example: ClassVar[dict[str, Any]] = {"model": "quality-en", "all_labels": True, "k": 2}

    model: str = "quality-en"
    into: str = "quality"
    label: str = ""
    all_labels: bool = False
    k: int = 0
    calibrated: bool = True
    one_line: bool | None = None
    lower: bool | None = None
    words: bool | None = None
    max_chars: int | None = None

    def __post_init__(self) -> None:
        if not self.into or self.into.startswith("_") or self.into == "text":
            raise RecipeError(f"fasttext: into is {self.into!r}; name a column to be written, such as quality")
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 0:
            raise RecipeError(f"fasttext: k is {self.k!r}; write how many labels, or 0")
        if self.max_chars is not None and self.max_chars < 0:
            raise RecipeError(f"fasttext: max_chars is {self.max_chars}; write 0 for the whole text, or a number of characters")

    def writes(self) -> pa.Schema:
        about = self._about()
        columns = [(self.into, pa.float32())]
        if not self._label(about):
            columns = [(self.into, pa.string()), (f"{self.into}_score", pa.float32())]
        if self.all_labels:
            columns += [(f"{self.into}_{label}", pa.float32()) for label in about.labels]
        if self.k:
            columns.append((f"{self.into}_top", TOP))
        names = [name for name, _ in columns]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise RecipeError(f"fasttext: {twice!r} would be written twice, since a label is called so; name another `into`")
        return pa.schema(columns)

    def files(self) -> tuple[str, ...]:
        try:
            return classify.files(classify.resolve(self.model))
        except SourceError as error:
            raise RecipeError(f"fasttext: {error}") from error

    def open(self, task: Task) -> BatchFn:
        return functools.partial(self._process, self._loaded(task), task)

    def _process(self, classifier: Classifier, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        labels, label = classifier.labels, self._label(classifier.about)
        names = pa.array(labels, pa.string())
        columns: dict[str, pa.Array] = {}
        if not label and not self.all_labels and self.k < 2:  # down a tree of thousands of labels only a few are looked at
            found, top = (values[:, None] for values in classifier.best(batch["text"], calibrated=self.calibrated))
            unknown = np.isnan(top[:, 0])
        else:
            scores = classifier.scores(batch["text"], calibrated=self.calibrated)
            unknown = np.isnan(scores).any(1)
            best = min(max(self.k, 0 if label else 1), len(labels))
            found = np.argsort(-scores, axis=1, kind="stable")[:, :best] if best else np.empty((len(scores), 0), np.int64)
            top = np.take_along_axis(scores, found, 1)
            if label:
                columns[self.into] = pa.array(scores[:, labels.index(label)], mask=unknown)
            if self.all_labels:
                columns |= {f"{self.into}_{name}": pa.array(scores[:, i], mask=unknown) for i, name in enumerate(labels)}
        if not label:
            columns[self.into] = names.take(pa.array(found[:, 0], mask=unknown))
            columns[f"{self.into}_score"] = pa.array(top[:, 0], mask=unknown)
        if self.k:
            columns[f"{self.into}_top"] = _lists(names, found, top, unknown)
        if unknown.any():
            task.count(UNSCORED, int(unknown.sum()))
        return with_columns(batch, {name: columns[name] for name in self.writes().names})

    def _loaded(self, task: Task) -> Classifier:
        """The classifier, once for each process."""
        prepare = self._prepare()
        states = tuple((path, Path(path).stat().st_mtime_ns, Path(path).stat().st_size) for path in self.files())
        load = functools.partial(classify.load, classify.resolve(self.model), prepare=prepare)
        return task.cached(("classifier", states, tuple(prepare.items())), load)

    def _prepare(self) -> dict[str, Any]:
        own = {key: getattr(self, key) for key in ("one_line", "lower", "words", "max_chars")}
        return {key: value for key, value in own.items() if value is not None}

    def _about(self) -> About:
        try:
            about = classify.about(classify.resolve(self.model))
        except SourceError as error:
            raise RecipeError(f"fasttext: {error}") from error
        if about.kind != "fasttext":
            raise RecipeError(f"fasttext: {self.model} is a {about.kind} classifier: use the stage `classifier`")
        return about

    def _label(self, about: About) -> str:
        """The label that is scored; empty where the best one is told."""
        if self.label:
            classify.number_of(about.labels, self.label, f"fasttext: {self.model}")
        return self.label or about.positive or ""


def _lists(names: pa.Array, found: np.ndarray, top: np.ndarray, unknown: np.ndarray) -> pa.Array:
    """Lists of (label, score), null where nothing is known."""
    rows = np.flatnonzero(~unknown)
    k = found.shape[1]
    pairs = [names.take(pa.array(found[rows].ravel())), pa.array(top[rows].ravel())]
    bounds = np.concatenate(([0], np.cumsum(np.where(unknown, 0, k)))).astype(np.int32)
    values = pa.StructArray.from_arrays(pairs, fields=list(TOP.value_type))
    return pa.ListArray.from_arrays(bounds, values, type=TOP, mask=pa.array(unknown))


TOP = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))
