"""Classifiers that were trained: what one is on disk, how it is found, and what it says of a text.

A classifier is a folder, or one bare fastText file (`.bin`, `.ftz`):

    classifier.json            what it is: see `FIELDS`
    model.ftz | model.bin      of the kind `fasttext`: labels are the model's
    head.npz                   of the kind `linear`: `weights` float32 (outputs, dim), `bias` float32 (outputs); where vectors
                               are to be standardised also `mean` and `scale`, float32 (dim): (x - mean) / scale
    lsa.npz                    of the kind `linear` over text, where `features.model` is `lsa`
    card.md                    for people

    from curate import classify

    classifier = classify.load(classify.resolve("quality-en"))
    classifier.scores(["A text to be judged."])[:, classifier.labels.index("hq")]

A score is a probability in [0, 1]; of `task: regression` it is a number as the head gives it. A text of which the model knows
nothing, and a vector that is missing, not finite or all zeros, has the score NaN: never 0, which would be a judgement.

A folder is read by rule, as numbers and strings: a hostile one can give wrong scores or an error, but not run anything.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate import models, storage
from curate.errors import MissingExtra, RecipeError, SourceError, did_you_mean
from curate.storage import atomic_folder, canonical, write_json

if TYPE_CHECKING:
    from curate.fasttext import Model

FORMAT = 1
JSON = "classifier.json"
KINDS = ("fasttext", "linear")
TASKS = ("classes", "regression")
SUFFIXES = (".ftz", ".bin")
FIELDS = (  # of classifier.json, in the order in which they are written; all but the first four may be left out
    "format",  # 1
    "name",
    "kind",  # fasttext | linear
    "labels",  # the columns of `scores`; of a regression the names of the outputs
    "positive",  # the label whose probability is the score of the classifier, or null
    "task",  # classes | regression
    "prepare",  # see `Prepare`
    "calibration",  # see `calibrate`
    "features",  # linear: {"column": of embeddings, "dim", "model": lsa | name of an embedder}; else null
    "licence",
    "metrics",
    "thresholds",
    "seed",
    "recipe",
)


# --------------------------------------------------------------------------------------------- text


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """What is done to a text before it is learned from or judged; the same for both, so it is a part of the classifier.

    one_line: each newline becomes a space (as DCLM does; fastText reads a line at a time, and when it scores here a newline
    is a space in any case). lower: lower case. words: only words stay, runs of letters, marks and digits, one space between
    two. max_chars: of the text, from its beginning; 0 for all.
    """

    one_line: bool = True
    lower: bool = False
    words: bool = False
    max_chars: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.max_chars, int) or self.max_chars < 0:
            raise RecipeError(
                f"prepare: max_chars is {self.max_chars!r}; write 0 for the whole text, or a number of characters"
            )

    def __call__(self, text: pa.Array) -> pa.Array:
        """The prepared texts: string or large_string in, the same type out; a null stays null."""
        if self.max_chars:
            text = pc.utf8_slice_codeunits(text, 0, self.max_chars)
        if self.lower:
            text = pc.utf8_lower(text)
        if self.words:
            text = pc.utf8_trim(pc.replace_substring_regex(text, r"[^\pL\pM\pN]+", " "), " ")
        if self.one_line:
            text = pc.replace_substring(text, "\n", " ")
        return text


# --------------------------------------------------------------------------------------------- calibration


def calibrate(scores: np.ndarray, calibration: Mapping[str, Any] | None) -> np.ndarray:
    """Scores float32 (n, labels) as the calibration of a classifier corrects them; NaN stays NaN.

    calibration: None, or of one of these forms, whose lists have an entry for each label, null for a label without one:

        {"kind": "isotonic", "x": [[...], ...], "y": [[...], ...]}    interpolated between points, x ascending
        {"kind": "platt", "a": [...], "b": [...]}                     1 / (1 + exp(-(a logit(p) + b)))

    Of two labels, one without an entry is what the other leaves of 1. Where all of several labels have one, what comes out is
    divided by its sum, as the probabilities of one of these labels.
    """
    kind = (calibration or {}).get("kind")
    if kind is None or calibration is None:
        return scores
    found = scores.astype(np.float64)
    n = scores.shape[1]
    done = []
    for i in range(n):
        p = found[:, i]
        if kind == "isotonic" and calibration["x"][i] is not None:
            out = np.interp(p, calibration["x"][i], calibration["y"][i])
        elif kind == "platt" and calibration["a"][i] is not None:
            p = np.clip(p, 1e-7, 1 - 1e-7)
            out = 1 / (1 + np.exp(-np.clip(calibration["a"][i] * np.log(p / (1 - p)) + calibration["b"][i], -700, 700)))
        else:
            continue
        found[:, i] = np.where(np.isnan(found[:, i]), np.nan, out)
        done.append(i)
    if n == 2 and len(done) == 1:
        found[:, 1 - done[0]] = 1 - found[:, done[0]]
    elif n > 1 and len(done) == n:
        total = found.sum(1, keepdims=True)
        found = np.where(total > 0, found / np.where(total > 0, total, 1), found)
    return found.astype(np.float32)


# --------------------------------------------------------------------------------------------- what a classifier is


@dataclass(frozen=True)
class About:
    """What stands in a classifier.json, checked. `raw`: all of it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    positive: str | None = None
    task: str = "classes"
    prepare: Prepare = field(default_factory=Prepare)
    calibration: Mapping[str, Any] | None = None
    features: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Any, where: str) -> About:
        """Check what a classifier.json holds. Raises SourceError, which begins with `where`."""

        def bad(what: str) -> SourceError:
            return SourceError(f"{where} is not the description of a classifier: {what}")

        if not isinstance(raw, dict):
            raise bad("it is not a JSON object")
        if raw.get("format") != FORMAT:
            raise bad(f"its format is {raw.get('format')!r}; {FORMAT} can be read")
        labels, kind, task = raw.get("labels"), raw.get("kind"), raw.get("task", "classes")
        positive, calibration, features = raw.get("positive"), raw.get("calibration"), raw.get("features")
        if kind not in KINDS or task not in TASKS:
            raise bad(f"its kind is {kind!r} and its task {task!r}; known are {', '.join(KINDS)} and {', '.join(TASKS)}")
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise bad("it has no list of labels")
        if len(set(labels)) != len(labels):
            raise bad("a label stands there twice")
        if positive is not None and positive not in labels:
            raise bad(f"positive is {positive!r}, which is no label{did_you_mean(str(positive), labels)}")
        if features is not None and not isinstance(features, dict):
            raise bad("features is no object")
        prepare = raw.get("prepare") or {}
        known = {f.name for f in fields(Prepare)}
        if not isinstance(prepare, dict) or not set(prepare) <= known:
            raise bad(f"prepare knows {', '.join(sorted(known))} and nothing else")
        try:
            preparation = Prepare(**prepare)
        except RecipeError as error:
            raise bad(str(error)) from None
        _check_calibration(calibration, len(labels), bad)
        name = raw.get("name")
        if not isinstance(name, str) or not name:
            raise bad("it has no name")
        return cls(name, kind, tuple(labels), positive, task, preparation, calibration, features, raw)


def _check_calibration(calibration: Any, n: int, bad: Any) -> None:
    if calibration is None:
        return
    if not isinstance(calibration, dict) or calibration.get("kind") not in (None, "isotonic", "platt"):
        raise bad("calibration is neither isotonic nor platt")
    keys = {"isotonic": ("x", "y"), "platt": ("a", "b")}.get(calibration.get("kind") or "", ())
    for key in keys:
        values = calibration.get(key)
        if not isinstance(values, list) or len(values) != n:
            raise bad(f"calibration.{key} needs one entry for each label")
    if not keys:
        return
    for first, second in zip(calibration[keys[0]], calibration[keys[1]], strict=True):
        if (first is None) != (second is None):
            raise bad("calibration has one half of a curve")
        try:
            one, other = np.asarray(first or 0, np.float64), np.asarray(second or 0, np.float64)
        except (TypeError, ValueError):
            raise bad("calibration holds what is no number") from None
        if one.shape != other.shape or not np.isfinite(one).all() or not np.isfinite(other).all():
            raise bad("a curve of calibration has points without a number")
        if first is not None and keys[0] == "x" and (one.ndim != 1 or not len(one) or (np.diff(one) < 0).any()):
            raise bad("a curve of calibration is not in ascending order")


class Classifier:
    """A classifier that can score. `load` makes one.

    about: what its classifier.json says; for a bare fastText file what can be told from that.
    """

    def __init__(self, path: str, about: About, model: _Fasttext | _Linear):
        self.path, self.about = path, about
        self._model = model

    def __repr__(self) -> str:
        return f"Classifier({self.path!r}, {self.kind}, {len(self.labels)} labels)"

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of `scores`."""
        return self.about.labels

    @property
    def kind(self) -> str:
        """`fasttext`, which scores texts, or `linear`, which scores vectors."""
        return self.about.kind

    @property
    def positive(self) -> str | None:
        """The label whose probability is the score of the classifier, where there is one."""
        return self.about.positive

    def scores(self, rows: Any, *, calibrated: bool = True) -> np.ndarray:
        """Score of every label for each row: float32 (n, labels), in the order of `labels`.

        rows: for `fasttext` texts, as a string or large_string array or a sequence of strings, as they are: they are prepared
        here; for `linear` vectors, float16 or float32 (n, dim), or an Arrow array of lists of that size, or, where the folder
        holds what makes vectors of texts, texts. calibrated: False leaves the calibration out.

        In [0, 1] and as probabilities (of a regression: the outputs themselves); NaN where nothing is known of a row.
        A row's scores do not depend on the other rows.
        """
        found = self._model.scores(rows)
        return calibrate(found, self.about.calibration) if calibrated else found

    def best(self, rows: Any, *, calibrated: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Number of the best label of each row (int32; -1 where nothing is known of it) and its score (float32; NaN there).

        rows, calibrated: as for `scores`. Of equal scores the first label wins.
        """
        if isinstance(self._model, _Fasttext) and not (calibrated and self.about.calibration):
            return self._model.best(rows)
        found = self.scores(rows, calibrated=calibrated)
        known = ~np.isnan(found).any(1)
        at = np.where(known[:, None], found, -np.inf).argmax(1)
        return np.where(known, at, -1).astype(np.int32), np.where(known, found[np.arange(len(found)), at], np.float32(np.nan))


def number_of(labels: Sequence[str], label: str, where: str) -> int:
    """Place of a label. Raises RecipeError, which begins with `where`, for one that there is not."""
    if label not in labels:
        raise RecipeError(f"{where}: no label is called {label!r}{did_you_mean(label, labels)}")
    return labels.index(label)


# --------------------------------------------------------------------------------------------- the kinds


class _Fasttext:
    """Texts, by our own reader of fastText models, or by the library for a model that it cannot read."""

    def __init__(self, path: str, labels: Sequence[str] | None, prepare: Prepare):
        from curate import fasttext

        self.model: Model | _Library
        try:
            self.model = fasttext.load(path)
        except fasttext.Unsupported as error:
            self.model = _Library(path, error)
        own = self.model.labels
        self.labels = tuple(own if labels is None else labels)
        if len(own) != len(self.labels) or set(own) != set(self.labels):
            raise SourceError(f"{path}: its labels are not those of {JSON} beside it; the files of two classifiers were mixed")
        self.order = np.array([own.index(label) for label in self.labels])
        self.place = np.argsort(self.order).astype(np.int32)
        one_line = prepare.one_line and isinstance(self.model, _Library)  # to our kernel a newline is a space anyway
        self.prepare = replace(prepare, one_line=one_line)

    def scores(self, rows: Any) -> np.ndarray:
        found = self.model.scores(self._texts(rows), offset=0, strict=True)
        return np.clip(found, 0, 1)[:, self.order]

    def best(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        from curate.langid import spans

        if isinstance(self.model, _Library):
            found = self.scores(rows)
            known = ~np.isnan(found).any(1)
            at = np.where(known[:, None], found, -1).argmax(1).astype(np.int32)
            return np.where(known, at, np.int32(-1)), np.where(known, found[np.arange(len(at)), at], np.float32(np.nan))
        at, score = self.model.best(*spans(self._texts(rows)), offset=0, strict=True)
        known = ~np.isnan(score)
        return np.where(known, self.place[at], np.int32(-1)), np.clip(score, 0, 1)

    def _texts(self, rows: Any) -> pa.Array:
        return self.prepare(_strings(rows))


def _strings(rows: Any) -> pa.Array:
    if isinstance(rows, pa.ChunkedArray):
        rows = rows.combine_chunks()
    text = rows if isinstance(rows, pa.Array) else pa.array(rows, pa.string())
    if pa.types.is_string(text.type) or pa.types.is_large_string(text.type):
        return text
    if pa.types.is_null(text.type):
        return pa.nulls(len(text), pa.string())
    raise SourceError(f"a fastText classifier scores texts, not {text.type}")


class _Library:
    """The fastText library, for models that our reader does not cover: slower by far, the same scores."""

    def __init__(self, path: str, why: SourceError):
        try:
            import fasttext
        except ImportError:
            raise MissingExtra("fasttext", "train", f"{path}, which only the library reads ({why})") from None
        fasttext.FastText.eprint = lambda *_: None  # a warning at each load
        try:
            self.model = fasttext.load_model(path).f
            self.labels = tuple(label.removeprefix("__label__") for label in self.model.getLabels("replace")[0])
        except (ValueError, RuntimeError, MemoryError) as error:
            raise SourceError(f"{why}; the library cannot read it either ({error})") from error
        self.tree = self.model.getArgs().loss.name == "hs"

    def scores(self, text: pa.Array, *, offset: float, strict: bool) -> np.ndarray:
        """As `Model.scores`: the library's own addition of 1e-5 to a probability is taken off, but down a tree."""
        from curate.fasttext import OFFSET

        number = {label: i for i, label in enumerate(self.labels)}
        found = np.zeros((len(text), len(self.labels)), np.float32)
        for row, line in zip(found, text.to_pylist(), strict=True):
            said = self.model.predict((line or "").replace("\n", " ") + "\n", -1, -1.0, "replace")
            for p, label in said:
                row[number[label.removeprefix("__label__")]] = p if self.tree else p - OFFSET + offset
            if strict and (not said or not (line or "").strip(" \t\n\r\v\f\0")):
                row[:] = np.nan
        return found


class _Linear:
    """Vectors, by a linear head."""

    def __init__(self, path: str, about: About):
        file = Path(path) / "head.npz"
        arrays = _npz(file)
        self.about, self.path = about, path
        try:
            self.weights, self.bias = (np.ascontiguousarray(arrays[key], np.float32) for key in ("weights", "bias"))
        except KeyError as error:
            raise SourceError(f"{file} has no {error.args[0]!r}: it is not the head of a linear classifier") from None
        self.mean, self.scale = arrays.get("mean"), arrays.get("scale")
        outputs = self.weights.shape[0] if self.weights.ndim == 2 else 0
        dim = self.weights.shape[1] if outputs else 0
        of_two = about.task == "classes" and outputs == 1 and len(about.labels) == 2
        said = (about.features or {}).get("dim", dim)
        if not outputs or self.bias.shape != (outputs,) or said != dim or not (outputs == len(about.labels) or of_two):
            raise SourceError(
                f"{file} does not fit {JSON} beside it: it has weights {self.weights.shape}, bias {self.bias.shape}"
            )
        for values in (self.mean, self.scale):
            if values is not None and values.shape != (dim,):
                raise SourceError(f"{file}: mean and scale have {values.shape} numbers, and a vector {dim}")
        weights = self.weights.astype(np.float64)
        bias = self.bias.astype(np.float64)
        if self.scale is not None:
            weights = weights / self.scale
        if self.mean is not None:
            bias = bias - weights @ self.mean.astype(np.float64)
        self.folded, self.shift = np.ascontiguousarray(weights), bias
        self.embedder: Any = None

    def scores(self, rows: Any) -> np.ndarray:
        from curate.kernels.linear import outputs

        vectors, known = _vectors(rows if not self._is_text(rows) else self._embedded(rows), self.weights.shape[1])
        z = outputs(vectors, self.folded, self.shift)
        known = known & vectors.any(1) & np.isfinite(z).all(1)
        if self.about.task == "regression":
            found = z
        elif z.shape[1] == 1:
            with np.errstate(over="ignore"):
                p = 1 / (1 + np.exp(-z))
                found = p if len(self.about.labels) == 1 else np.concatenate([1 / (1 + np.exp(z)), p], 1)
        else:
            with np.errstate(invalid="ignore"):
                e = np.exp(z - z.max(1, keepdims=True, initial=-np.inf))
                found = e / e.sum(1, keepdims=True)
        return np.where(known[:, None], found, np.nan).astype(np.float32)

    @staticmethod
    def _is_text(rows: Any) -> bool:
        if isinstance(rows, pa.Array | pa.ChunkedArray):
            return pa.types.is_string(rows.type) or pa.types.is_large_string(rows.type)
        return not isinstance(rows, np.ndarray) and bool(len(rows)) and isinstance(rows[0], str | None)

    def _embedded(self, rows: Any) -> np.ndarray:
        from curate import embeddings

        model = (self.about.features or {}).get("model")
        if not model:
            raise SourceError(f"{self.path} scores vectors, not texts: make a column of embeddings first")
        own = Path(self.path) / "lsa.npz"
        if self.embedder is None:
            self.embedder = embeddings.load(str(own) if own.is_file() else model)
        return self.embedder.encode(self.about.prepare(_strings(rows)))


def _npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, without pickle. Raises SourceError."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise SourceError(f"{path} does not hold arrays ({error})") from error


def _vectors(rows: Any, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """(float32 vectors (n, dim), bool which are there) of an array or of an Arrow array of lists. Raises SourceError."""
    if isinstance(rows, pa.ChunkedArray):
        rows = rows.combine_chunks()
    if isinstance(rows, pa.Array):
        kind = rows.type
        if pa.types.is_fixed_size_list(kind):
            if kind.list_size != dim:
                raise SourceError(f"the vectors have {kind.list_size} numbers, and the classifier has learnt from {dim}")
            known = np.asarray(rows.is_valid())
            flat = rows.values[rows.offset * dim : (rows.offset + len(rows)) * dim]
            values = _numbers(flat).reshape(len(rows), dim)
            return np.where(known[:, None], values, 0) if rows.null_count else values, known
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            sizes = pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False)
            if not set(np.unique(sizes).tolist()) <= {0, dim}:
                odd = next(size for size in sizes.tolist() if size not in (0, dim))
                raise SourceError(f"a vector has {odd} numbers, and the classifier has learnt from {dim}")
            found = np.zeros((len(rows), dim), np.float32)
            found[sizes == dim] = _numbers(rows.flatten()).reshape(-1, dim)
            return found, sizes == dim
        raise SourceError(f"a linear classifier scores vectors, not {kind}")
    values = np.asarray(rows)
    if values.ndim != 2 or values.shape[1] != dim:
        raise SourceError(f"vectors of the shape {values.shape} do not fit a classifier of {dim} numbers")
    return np.ascontiguousarray(values, np.float32), np.ones(len(values), np.bool_)


def _numbers(values: pa.Array) -> np.ndarray:
    """float32, a null as NaN."""
    if values.null_count:
        values = pc.cast(values, pa.float32())
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float32)


# --------------------------------------------------------------------------------------------- folders


def shipped() -> dict[str, Path]:
    """The classifiers that come with Curate, by name, in order."""
    return {path.parent.name: path.parent for path in sorted(storage.shipped("classifiers").glob(f"*/{JSON}"))}


def is_file(path: str | Path) -> bool:
    """Whether it is a bare fastText file rather than a folder."""
    return Path(path).is_file()


def files(path: str | Path) -> tuple[str, ...]:
    """The files that decide the scores of a classifier, for `Stage.files()`. Raises RecipeError where one is missing."""
    path = Path(path)
    if path.is_file():
        return (str(path),)
    if not path.is_dir():
        raise RecipeError(f"no such classifier: {path}")
    if not (path / JSON).is_file():
        raise RecipeError(f"{path} is not a classifier: it has no {JSON}; name the folder of one, or a fastText file")
    kind = about(path).kind
    model = _model_file(path) if kind == "fasttext" else path / "head.npz"
    if not model.is_file():
        raise RecipeError(f"{path} is not a whole classifier: {model.name} is missing")
    more = [path / "lsa.npz"] if (path / "lsa.npz").is_file() and kind == "linear" else []
    return tuple(str(file) for file in (path / JSON, model, *more))


def _model_file(folder: Path) -> Path:
    there = [folder / f"model{suffix}" for suffix in SUFFIXES if (folder / f"model{suffix}").is_file()]
    if len(there) > 1:
        raise RecipeError(f"{folder} holds two models, {' and '.join(file.name for file in there)}: remove one")
    return there[0] if there else folder / f"model{SUFFIXES[0]}"


def about(path: str | Path) -> About:
    """What a classifier is, without loading its model: its description, or for a bare fastText file its name and labels.

    Raises SourceError for what is none.
    """
    path = Path(path)
    file = path if path.is_file() else path / JSON
    try:
        state = file.stat()
    except OSError as error:
        raise SourceError(f"{file}: {error.strerror}") from error
    return _about(str(path), path.is_file(), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _about(path: str, bare: bool, changed: int, size: int) -> About:
    if bare:
        from curate import fasttext

        return About(Path(path).stem, "fasttext", fasttext.labels(path))
    file = Path(path) / JSON
    try:
        raw = orjson.loads(file.read_bytes())
    except ValueError as error:
        raise SourceError(f"{file} is not JSON ({error})") from error
    return About.of(raw, str(file))


def load(path: str | Path, *, prepare: Mapping[str, Any] | None = None) -> Classifier:
    """Read a classifier: a folder or a bare fastText file, as `resolve` returns it. Raises SourceError in one line.

    prepare: fields of `Prepare` in place of the classifier's own.
    """
    path = str(path)
    what = about(path)
    if prepare:
        what = replace(what, prepare=replace(what.prepare, **prepare))
    if what.kind == "linear":
        return Classifier(path, what, _Linear(path, what))
    bare = is_file(path)
    model = _Fasttext(path if bare else str(_model_file(Path(path))), None if bare else what.labels, what.prepare)
    return Classifier(path, what, model)


def save(
    folder: str | Path,
    about: Mapping[str, Any],
    *,
    model: str | Path | None = None,
    head: Mapping[str, np.ndarray] | None = None,
    lsa: str | Path | None = None,
    card: str | None = None,
    files: Mapping[str, str | Path] | None = None,
) -> Path:
    """Write a classifier: all of it appears under its name at once, in place of what was there. Same parts, same bytes.

    about: what goes into classifier.json (`format` is added; the order is that of `FIELDS`). model: fastText file, whose
    suffix is kept. head: `weights`, `bias`, and optionally `mean` and `scale`, of a linear one. lsa: its lsa.npz. card: text
    of card.md. files: others to be copied, by name. Raises SourceError where the parts do not make a classifier.
    """
    folder = Path(folder)
    raw = {"format": FORMAT, **about}
    raw = {**{key: raw[key] for key in FIELDS if key in raw}, **{key: raw[key] for key in sorted(set(raw) - set(FIELDS))}}
    what = About.of(orjson.loads(orjson.dumps(raw, option=orjson.OPT_SERIALIZE_NUMPY)), f"{folder}/{JSON}")
    if (what.kind == "fasttext") != (model is not None) or (what.kind == "linear") != (head is not None):
        raise SourceError(f"{folder}: a fasttext classifier needs a model, a linear one a head, and neither both")
    with atomic_folder(folder) as new:
        write_json(new / JSON, orjson.loads(orjson.dumps(raw, option=orjson.OPT_SERIALIZE_NUMPY)))
        if model is not None:
            suffix = Path(model).suffix
            shutil.copyfile(model, new / f"model{suffix if suffix in SUFFIXES else '.bin'}")
        if head is not None:
            with (new / "head.npz").open("wb") as out:
                arrays: dict[str, Any] = {key: np.ascontiguousarray(head[key], np.float32) for key in sorted(head)}
                np.savez(out, **arrays)
        for name, source in {**({"lsa.npz": lsa} if lsa else {}), **(files or {})}.items():
            shutil.copyfile(source, new / name)
        if card is not None:
            (new / "card.md").write_text(card, encoding="utf-8")
        load(new)  # what cannot be read back does not take the place of what can
    return folder


# --------------------------------------------------------------------------------------------- finding one

_HUB = re.compile(r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+))?")


def resolve(model: str) -> str:
    """The path of a classifier on this machine: of its folder, or of a bare fastText file.

    model: the name of one that comes with Curate; of a model that `curate models get` has fetched; a path; an fsspec URL of a
    folder or file; or `hf://org/repo`, `hf://org/repo/file` (also with `@revision` after the repository, and without `hf://`
    where no such path exists). What is remote is copied into the cache once, and again when it has changed.

    Raises RecipeError, in one line, where nothing is found there.
    """
    if not isinstance(model, str) or not model:
        raise RecipeError("a classifier needs a name, a path or a URL")
    if model in shipped():
        return str(shipped()[model])
    if model in models.NAMED:
        return models.resolve(model)
    if model.startswith("hf://"):
        return _from_hub(model)
    if "://" in model:
        return _from_url(model)
    if Path(model).exists():
        return model
    if _HUB.fullmatch(model) and not model.startswith((".", "/", "~")):
        return _from_hub(model)
    raise RecipeError(f"no such classifier: {model}{did_you_mean(model, (*shipped(), *models.NAMED))}")


@functools.lru_cache(maxsize=64)  # a worker asks once, however many tasks it has
def _from_url(url: str) -> str:
    from curate.sources import filesystem

    fs, path = filesystem(url)
    path = path.rstrip("/")
    if url.startswith(("file://", "local://")):
        if not Path(path).exists():
            raise RecipeError(f"no such classifier: {url}")
        return path
    name = path.rsplit("/", 1)[-1].partition("?")[0]
    bare = Path(name).suffix in SUFFIXES
    try:
        state = fs.ukey(path if bare else f"{path}/{JSON}")
        folder = models.cache().parent / "classifiers" / hashlib.sha256(canonical([url, str(state)])).hexdigest()[:20]
        target = folder / name if bare else folder
        if target.exists():
            return str(target)
        with atomic_folder(folder, replace=False) as new:
            for file in [name] if bare else _remote_files(fs, path, new):
                fs.get_file(path if bare else f"{path}/{file}", str(new / file))
    except RecipeError:
        raise
    except Exception as error:  # each file system has its own; of the chain only the words: an address may hold a password
        why, parts = getattr(error, "strerror", None) or type(error).__name__, urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise RecipeError(f"no classifier can be read from {shown}: {why}") from None
    return str(target)


def _remote_files(fs: Any, path: str, new: Path) -> Iterator[str]:
    """The files of a remote folder that make a classifier."""
    yield JSON
    what = about(new)
    if what.kind == "linear":
        yield "head.npz"
        if (what.features or {}).get("model") == "lsa":
            yield "lsa.npz"
        return
    there = [f"model{suffix}" for suffix in SUFFIXES if fs.exists(f"{path}/model{suffix}")]
    yield there[0] if there else f"model{SUFFIXES[0]}"


@functools.lru_cache(maxsize=64)
def _from_hub(model: str) -> str:
    found = _HUB.fullmatch(model)
    if not found:
        raise RecipeError(f"{model}: write hf://org/repo or hf://org/repo/file, with @revision after the repository if need be")
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    repo, revision, file = found["repo"], found["revision"], found["file"]

    def get(name: str) -> str:
        try:  # a question without the client's patience, which is half a minute for a hub that is out of reach
            hub.get_hf_file_metadata(hub.hf_hub_url(repo, name, revision=revision), timeout=10)
        except HfHubHTTPError:
            raise
        except Exception:
            return hub.hf_hub_download(repo, name, revision=revision, local_files_only=True)
        return hub.hf_hub_download(repo, name, revision=revision)

    try:
        if file:
            return get(file)
        try:
            folder = Path(get(JSON)).parent
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:  # no classifier of ours: then the only fastText file
            names = [name for name in hub.list_repo_files(repo, revision=revision) if Path(name).suffix in SUFFIXES]
            if len(names) != 1:
                listed = ", ".join(sorted(names)[:5]) or "it has none"
                raise RecipeError(f"{model}: name the file of the model, as hf://{repo}/FILE ({listed})") from None
            return get(names[0])
        what = about(folder)
        if what.kind == "linear":
            get("head.npz")
            if (what.features or {}).get("model") == "lsa":
                get("lsa.npz")
            return str(folder)
        try:
            get(f"model{SUFFIXES[0]}")
        except EntryNotFoundError:
            get(f"model{SUFFIXES[1]}")
        return str(folder)
    except (RecipeError, SourceError):
        raise
    except Exception as error:  # of the client, of the network, of the file system: one line for each
        hint = "" if model.startswith("hf://") else did_you_mean(model, (*shipped(), *models.NAMED))
        why = " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])[:200]
        raise RecipeError(f"no such path: {model}; and it cannot be had from the hub ({why}){hint}") from error
