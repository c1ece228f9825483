"""The language of a document."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import langid
from curate.errors import MissingExtra, RecipeError
from curate.langid import Detector, allowed, names, resiliparse, spans
from curate.languages import check_codes, iso_code
from curate.stage import REASON, BatchFn, Stage, Task, with_columns


@dataclass(frozen=True, kw_only=True)
class Language(Stage):
    """Detects the language of a text, and drops languages and scores that are not wanted.

    model: `resiliparse` (101 languages, in the core, no download), or the path of a fastText model (`.bin` or `.ftz`, such as
    lid.176 or GlotLID; needs the extra `train`). keep: languages to keep; empty keeps all. min_score: drop what scores less.
    To only annotate, leave both; to decide by other columns too, use `where` after it.

    Columns written: `language` (string: ISO 639-1, else 639-3; `und` for a text without letters) and `language_score`
    (float32 in [0, 1]). Reasons: `language.not_kept`, `language.low_score`, each with `_value` = the score.

    Documents of more than 4 kB are judged by their first 2 kB and 1 kB from each of two later places, digits and ASCII
    punctuation left out. fastText's score is its own probability. resiliparse gives a distance r, and r + g for the next
    language; with n letters and L = ln n, R = ln r, G = ln(1 + g), the score is
    logistic(3.268 + 6.630 L - 0.3066 L^2 - 0.9225 R - 0.7196 L R + 0.1953 G^2): a logistic regression on pieces of 6 to 4,000
    characters of web pages, other prose, and declarations of human rights in 89 languages that the detector knows and, with
    less weight, 276 translations into others. Share right in the half that was held out, by score: 0.25 at 0.1-0.3, 0.34 at
    0.3-0.5, 0.49 at 0.5-0.65, 0.71 at 0.65-0.8, 0.87 at 0.8-0.9, 0.96 at 0.9-0.95, 0.99 above. Of web pages, 67% of pieces
    of 30 characters are right, 94% of 120, 97% of 1,000, 99% of 4,000. A language that it does not know gets the name of a
    relative, mostly with a score below 0.65; hr/sr, da/no and hi/mr are easily taken for each other.

    Source: resiliparse (Bevendorff et al. 2018, https://resiliparse.chatnoir.eu); fastText (Joulin et al. 2016,
    https://arxiv.org/abs/1607.01759); the calibration is our own.

    >>> docs = ["The cat sat on the mat and looked at the people who were walking by. " * 3,
    ...         "Die Katze saß auf der Matte und sah den Leuten nach, die vorübergingen. " * 3, "12345"]
    >>> result = Language(keep=("en",))(docs)
    >>> result.kept["language"].to_pylist(), result.dropped["language"].to_pylist()
    (['en'], ['de', 'und'])
    """

    example: ClassVar[dict[str, Any]] = {"keep": ("en", "zh"), "min_score": 0.3}

    model: str = "resiliparse"
    keep: tuple[str, ...] = ()
    min_score: float = 0.0

    def __post_init__(self) -> None:
        check_codes(self.keep, "language.keep")
        if not 0 <= self.min_score <= 1:
            raise RecipeError(f"language: min_score is {self.min_score}; scores lie between 0 and 1")

    def writes(self) -> pa.Schema:
        return pa.schema([("language", pa.string()), ("language_score", pa.float32())])

    def reasons(self) -> tuple[str, ...]:
        return "language.not_kept", "language.low_score"

    def files(self) -> tuple[str, ...]:
        return () if self.model == "resiliparse" else (self.model,)

    def open(self, task: Task) -> BatchFn:
        if self.model == "resiliparse":
            return functools.partial(self._process, resiliparse())
        return functools.partial(self._process, task.cached(("lid", self.model), functools.partial(_load_fasttext, self.model)))

    def _process(self, detector: Detector, batch: pa.RecordBatch) -> pa.RecordBatch:
        number, score = langid.detect(detector, *spans(batch["text"]))
        language = names(detector, number)
        columns: dict[str, pa.Array] = {"language": language, "language_score": pa.array(score)}
        reason = pa.nulls(len(language), pa.string())
        if self.min_score:
            low = pa.array(score < np.float32(self.min_score))
            reason = pc.if_else(low, "language.low_score", reason)
        if self.keep:
            reason = pc.if_else(pc.is_in(language, value_set=pa.array(self.keep)), reason, "language.not_kept")
        columns[REASON] = reason
        columns["_value"] = pa.array(score.astype(np.float64), mask=np.asarray(pc.is_null(reason)))
        return with_columns(batch, columns)


def detect(text: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(language, score) of each text by resiliparse, as this stage writes them with its default parameters.

    text: string or large_string array. Returns a string and a float32 array, without nulls: a text that is null, has no
    letters, or has them in a script that the language found is not written in, is `und` with 0.
    """
    number, score = langid.detect(resiliparse(), *spans(text))
    return names(resiliparse(), number), pa.array(score)


def _load_fasttext(path: str) -> Detector:
    try:
        import fasttext
    except ImportError as error:
        raise MissingExtra("fasttext", "train", "stage 'language' with a fastText model") from error
    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise RecipeError(f"language: {path} is not a fastText model: {error}") from error
    labels = model.get_labels()
    number = {label: i for i, label in enumerate(labels)}

    def answer(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        view = data.data
        found, scores = np.full(len(offsets) - 1, -1, np.int32), np.zeros(len(offsets) - 1, np.float32)
        for i in range(len(found)):
            text = str(view[offsets[i] : offsets[i + 1]], "utf-8", "ignore")
            best, score = model.predict(text.replace("\n", " "))
            if best:
                found[i], scores[i] = number[best[0]], min(max(float(score[0]), 0.0), 1.0)
        return found, scores

    return Detector([iso_code(label) for label in labels], allowed(labels), answer)
