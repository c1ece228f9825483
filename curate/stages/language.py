"""The language of a document."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import langid, models
from curate.errors import RecipeError, SourceError, did_you_mean
from curate.langid import Detector, spans
from curate.languages import check_codes
from curate.stage import REASON, BatchFn, Stage, Task, with_columns

FAST = "resiliparse"


@dataclass(frozen=True, kw_only=True)
class Language(Stage):
    """Detects the language of a text, and drops languages and scores that are not wanted.

    model: `resiliparse` (101 languages, in the core, no download); or a fastText model, which is read and scored here without
    the fastText library: the path of a `.bin` or `.ftz` file, or a name, `lid176`, `lid176-ftz` or `glotlid`, once `curate
    models get NAME` has fetched it. then: a second detector of these kinds, for texts that the first scores under `below`, or
    in whose script it knows no language; its answer counts where it has one. keep: languages to keep; empty keeps all.
    min_score: drop what scores less. per_paragraph: label the lines as well. To only annotate, leave `keep` and `min_score`;
    to decide by other columns too, use `where` after it.

    Columns written: `language` (string: ISO 639-1, else 639-3, else `und`) and `language_score` (float32 in [0, 1]); with
    `per_paragraph` also `language_shares` (list of struct of `language`, string, and `share`, float32: of the letters, largest
    first, in all 1) and `paragraph_languages` (list of string, one for each line as `text.split("\\n")` gives them, `und`
    for a line without letters). Reasons: `language.not_kept`, `language.low_score`, each with `_value` = the score.

    Documents of more than 4 kB are judged by their first 2 kB and 1 kB from each of two later places.

    `und`, with score 0, is a text without letters, and one in a script in which the detector knows no language. Letters are
    counted by script (Unicode's Script property): the scripts that the answer is written in must hold an eighth of all, and at
    least as many as the others together. Latin letters stand in texts of all languages, so they do not count among the others,
    and half among their own. Where its answer does not fit, resiliparse is asked for the best of its languages that would. Of
    some scripts it knows but one language (Thai, Georgian, Khmer, ...). If an eighth of n letters is in one, the others in the
    other scripts of that language (for Japanese, Han), and n is half of what is not Latin and half of what is, that decides by
    itself, with a score of at least 0.97 s n / (n + 5) where n is a share s of all letters.

    Lines are judged in runs: up to a line without letters or in another script, or until there are 120 letters. A run with a
    score below 0.5 counts as the document's language if it can be in that, so that headings and names are no language of
    their own.

    resiliparse gives a distance r, and r + g for the next language; with n letters and L = ln n, R = ln r, G = ln(1 + g), the
    score is logistic(3.268 + 6.630 L - 0.3066 L^2 - 0.9225 R - 0.7196 L R + 0.1953 G^2): a logistic regression on pieces of 6
    to 4,000 characters of web pages, other prose, and declarations of human rights in 89 languages that the detector knows
    and, with less weight, 276 translations into others. Share right in the half that was held out, by score: 0.25 at 0.1-0.3,
    0.34 at 0.3-0.5, 0.49 at 0.5-0.65, 0.71 at 0.65-0.8, 0.87 at 0.8-0.9, 0.96 at 0.9-0.95, 0.99 above. Of web pages, 67% of
    pieces of 30 characters are right, 94% of 120, 97% of 1,000, 99% of 4,000. A language that it does not know gets the name
    of a relative, mostly with a score below 0.65; hr/sr, da/no and hi/mr are easily taken for each other.

    fastText's score is the probability that the model gives, as it is. Share right of lid.176.ftz on 200 characters of
    declarations in languages that it knows: 0.46 at 0.3-0.5, 0.64 at 0.5-0.65, 0.74 at 0.65-0.8, 0.84 at 0.8-0.9, 0.90 at
    0.9-0.95, 0.94 at 0.95-0.99, all above; on 40 characters it is too sure of itself (0.64 at 0.8-0.9, 0.81 at 0.9-0.95), on 40
    characters of web pages, which are mostly English, not sure enough (0.94 at 0.5-0.65, 0.99 at 0.8-0.9).

    Source: resiliparse (Bevendorff et al. 2018, https://resiliparse.chatnoir.eu); fastText (Joulin et al. 2016,
    https://arxiv.org/abs/1607.01759); GlotLID (Kargaran et al. 2023, https://arxiv.org/abs/2310.16248); the calibration, the
    check of scripts and the cascade are our own.

    >>> docs = ["The cat sat on the mat and looked at the people who were walking by. " * 3,
    ...         "Die Katze saß auf der Matte und sah den Leuten nach, die vorübergingen. " * 3, "12345"]
    >>> result = Language(keep=("en",))(docs)
    >>> result.kept["language"].to_pylist(), result.dropped["language"].to_pylist()
    (['en'], ['de', 'und'])
    >>> shares = Language(per_paragraph=True)(["\\n\\n".join(docs[:2])]).kept["language_shares"][0].as_py()
    >>> [(found["language"], round(found["share"], 2)) for found in shares]
    [('de', 0.52), ('en', 0.48)]
    """

    version: ClassVar[int] = 2
    example: ClassVar[dict[str, Any]] = {"keep": ("en", "zh"), "min_score": 0.3}

    model: str = FAST
    then: str = ""
    below: float = 0.9
    per_paragraph: bool = False
    keep: tuple[str, ...] = ()
    min_score: float = 0.0

    def __post_init__(self) -> None:
        check_codes(self.keep, "language.keep")
        if not 0 <= self.min_score <= 1:
            raise RecipeError(f"language: min_score is {self.min_score}; scores lie between 0 and 1")
        if not 0 < self.below <= 1:
            raise RecipeError(f"language: below is {self.below}; write a score above 0, at most 1")
        if not self.model or self.then == self.model:
            raise RecipeError(
                f"language: model {self.model!r} then {self.then!r}; name two different detectors, or leave `then`"
            )

    def writes(self) -> pa.Schema:
        columns = [("language", pa.string()), ("language_score", pa.float32())]
        return pa.schema([*columns, *(_BY_PARAGRAPH if self.per_paragraph else ())])

    def reasons(self) -> tuple[str, ...]:
        return "language.not_kept", "language.low_score"

    def files(self) -> tuple[str, ...]:
        found = []
        for model in (self.model, self.then):
            if model not in ("", FAST):
                found.append(models.resolve(model))
                if not Path(found[-1]).is_file():
                    raise RecipeError(f"language: no such file: {model}{did_you_mean(model, (FAST, *models.NAMED))}")
        return tuple(found)

    def open(self, task: Task) -> BatchFn:
        detectors = [_detector(model, task) for model in (self.model, self.then) if model]
        return functools.partial(self._process, detectors)

    def _process(self, detectors: list[Detector], batch: pa.RecordBatch) -> pa.RecordBatch:
        starts, ends, data = spans(batch["text"])
        names = np.array(langid.codes(detectors))
        number, score = langid.detect(detectors, self.below, starts, ends, data)
        language = pa.array(names[number], pa.string())
        columns: dict[str, pa.Array] = {"language": language, "language_score": pa.array(score)}
        if self.per_paragraph:
            columns |= _paragraphs(detectors, self.below, number, starts, ends, data)
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
    number, score = langid.detect([langid.resiliparse()], 0, *spans(text))
    return pa.array(np.array(langid.codes([langid.resiliparse()]))[number], pa.string()), pa.array(score)


def _detector(model: str, task: Task) -> Detector:
    if model == FAST:
        return langid.resiliparse()
    path = models.resolve(model)
    try:
        changed = Path(path).stat().st_mtime_ns
        return task.cached(("language", path, changed), functools.partial(langid.fasttext, path))
    except (SourceError, OSError) as error:
        raise RecipeError(f"language: {error}") from error


ENOUGH, SURE, CHUNK = 120, 0.5, 4096


def _paragraphs(
    detectors: list[Detector], below: float, document: np.ndarray, starts: np.ndarray, ends: np.ndarray, data: np.ndarray
) -> dict[str, pa.Array]:
    """The languages of the lines of each text, and the share of its letters that each language has."""
    from curate.kernels.paragraphs import lines, pieces
    from curate.kernels.scripts import main_scripts, table, together

    begins, stops, first = lines(starts, ends, data)
    letters, script = main_scripts(begins, stops, data, table(), together())
    piece_begins, piece_stops, text_of, piece = pieces(begins, stops, first, letters, script, ENOUGH)
    found = np.empty(len(piece_begins), np.int32)
    for at in range(0, len(found), CHUNK):  # a text may be millions of lines
        here = slice(at, at + CHUNK)
        spread = piece_begins[here], piece_stops[here], data
        found[here], score = langid.detect(detectors, below, *spread)
        instead = document[text_of[here]]
        unsure = (score < SURE) & langid.may_be(detectors, instead, *spread)
        found[here] = np.where(unsure, instead, found[here])

    names = langid.codes(detectors)
    kinds = sorted(set(names))
    kind_of = np.array([kinds.index(name) for name in names], np.int64)
    kind = kind_of[np.where(piece < 0, -1, found[piece] if len(found) else -1)]
    text = np.repeat(np.arange(len(starts)), np.diff(first))[letters > 0]
    pair, at = np.unique(text * len(kinds) + kind[letters > 0], return_inverse=True)
    size = np.bincount(at, letters[letters > 0], len(pair))
    text, code = pair // len(kinds), pair % len(kinds)
    order = np.lexsort((code, -size, text))
    whole = np.bincount(text, size, len(starts))
    shares = pa.StructArray.from_arrays(
        [
            pa.array(kinds, pa.string()).take(pa.array(code[order])),
            pa.array((size[order] / whole[text[order]]).astype(np.float32)),
        ],
        fields=list(_SHARES.value_type),
    )
    bounds = np.searchsorted(text, np.arange(len(starts) + 1)).astype(np.int32)
    return {
        "language_shares": pa.ListArray.from_arrays(bounds, shares, type=_SHARES),
        "paragraph_languages": pa.ListArray.from_arrays(
            first.astype(np.int32), pa.array(kinds, pa.string()).take(pa.array(kind))
        ),
    }


_SHARES = pa.list_(pa.struct([("language", pa.string()), ("share", pa.float32())]))
_BY_PARAGRAPH = [("language_shares", _SHARES), ("paragraph_languages", pa.list_(pa.string()))]
