"""Detectors of languages, each given the same excerpts of texts and held to the scripts that its answer is written in.

A detector answers with the number of a language and a score in [0, 1]. What no detector can do by itself is to say that it
does not know a script: for Cherokee, resiliparse names the nearest of its 101 languages, and fastText is sure of something.
So the letters of the excerpt are counted by script, and an answer that they do not fit is none.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from curate.languages import UNKNOWN, iso_code, scripts_of

HEAD, PIECE = 2048, 1024  # bytes: a longer text than HEAD + 2 PIECE is judged by its head and two later pieces

Answer = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Detector:
    """codes: the languages by number. allowed: bool (languages, scripts). answer: of texts with letters (int64 starts, int64
    ends, uint8 bytes), (int32 number of a language or -1, float32 score). among: the same of one text, out of a few
    languages; for a detector that has it, a script that only one of its languages is written in decides by itself."""

    codes: Sequence[str]
    allowed: np.ndarray
    answer: Answer
    among: Callable[[bytes, list[int]], tuple[int, float]] | None = None

    @functools.cached_property
    def sole(self) -> np.ndarray:
        """The only language of each script, -1 where there are none or several: int64."""
        return np.where(self.allowed.sum(0) == 1, self.allowed.argmax(0), -1)


def detect(
    detectors: Sequence[Detector], below: float, starts: np.ndarray, ends: np.ndarray, data: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(int32 number of the language, float32 score) of each text data[starts[i]:ends[i]]; (-1, 0) where there is none.

    A text whose score is under `below` goes to the next detector, whose answer counts if it has one. Numbers are places in
    `codes(detectors)`.
    """
    number, score, lettered = _ask(detectors[0], starts, ends, data)
    offset = 0
    for before, after in itertools.pairwise(detectors):
        offset += len(before.codes)
        rows = np.flatnonzero(lettered & (score < np.float32(below)))
        found, how_sure, _ = _ask(after, starts[rows], ends[rows], data)
        rows, found, how_sure = rows[found >= 0], found[found >= 0], how_sure[found >= 0]
        number[rows], score[rows] = found + offset, how_sure
    return number, score


def may_be(
    detectors: Sequence[Detector], number: np.ndarray, starts: np.ndarray, ends: np.ndarray, data: np.ndarray
) -> np.ndarray:
    """Whether each text, by its letters, may be in the language of this number; not where that is -1."""
    from curate.kernels.scripts import count_scripts, fits, scripts, table

    masks = np.concatenate([detector.allowed for detector in detectors])
    return (number >= 0) & fits(count_scripts(starts, ends, data, table(), len(scripts())), masks[number])


def codes(detectors: Sequence[Detector]) -> list[str]:
    """Languages of the detectors by number, those of the second after those of the first; `und` last."""
    return [*(code for detector in detectors for code in detector.codes), UNKNOWN]


def _ask(
    detector: Detector, starts: np.ndarray, ends: np.ndarray, data: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, score, and whether there are letters at all."""
    from curate.kernels.excerpts import excerpt
    from curate.kernels.scripts import count_scripts, fits, scripts, table

    offsets, chosen = _composed(*excerpt(starts, ends, data, HEAD, PIECE))
    counts = count_scripts(offsets[:-1], offsets[1:], chosen, table(), len(scripts()))
    number = np.full(len(starts), -1, np.int32)
    score = np.zeros(len(starts), np.float32)
    lettered = np.asarray(counts.any(1))
    rows = np.flatnonzero(lettered)
    if len(rows):
        found, how_sure = detector.answer(offsets[rows], offsets[rows + 1], chosen)
        fit = (found >= 0) & fits(counts[rows], detector.allowed[found])
        number[rows] = np.where(fit, found, -1)
        score[rows] = np.where(fit, how_sure, 0)
        if detector.among is not None:
            _by_script(detector, rows, counts, number, score)
            for i in rows[number[rows] < 0].tolist():
                few = np.flatnonzero(fits(np.broadcast_to(counts[i], detector.allowed.shape), detector.allowed)).tolist()
                if few:
                    number[i], score[i] = detector.among(chosen[offsets[i] : offsets[i + 1]].tobytes(), few)
    return number, score, lettered


def _by_script(detector: Detector, rows: np.ndarray, counts: np.ndarray, number: np.ndarray, score: np.ndarray) -> None:
    """Name the language of texts in a script that only one language of the detector has, whatever the detector said."""
    from curate.kernels.scripts import scripts

    letters = counts[rows].astype(np.int64)
    total = letters.sum(1)
    latin = letters[:, scripts().index("Latn")]
    theirs = np.where(detector.sole >= 0, letters, 0)
    only = detector.sole[theirs.argmax(1)]
    own = detector.allowed[only]
    own[:, scripts().index("Latn")] = False
    there = np.where(own, letters, 0).sum(1)
    clear = (there > 0) & (8 * theirs.max(1) >= there) & (2 * there >= total - latin) & (2 * there >= latin) & (only >= 0)
    rows, only, there, total = rows[clear], only[clear], there[clear], total[clear]
    sure = 0.97 * there / total * there / (there + 5)
    score[rows] = np.where(number[rows] == only, np.maximum(score[rows], sure), sure)
    number[rows] = only


def spans(text: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(int64 starts, int64 ends, uint8 bytes) of a string, large_string or binary array; a null is empty."""
    large = pa.types.is_large_string(text.type) or pa.types.is_large_binary(text.type)
    _, offsets, data = text.buffers()
    if not len(text) or offsets is None:
        return np.zeros(len(text), np.int64), np.zeros(len(text), np.int64), np.empty(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64 if large else np.int32)[text.offset : text.offset + len(text) + 1]
    bounds = bounds.astype(np.int64)
    starts, ends = bounds[:-1], bounds[1:]
    if text.null_count:
        ends = np.where(np.asarray(text.is_valid()), ends, starts)
    return starts, ends, np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


@functools.lru_cache(maxsize=1)
def resiliparse() -> Detector:
    """The 101 languages of resiliparse's `detect_fast`, its distances turned into a probability."""
    from resiliparse.parse.lang import detect_fast, supported_langs

    codes = supported_langs()
    number = {code: i for i, code in enumerate(codes)}

    def ask(starts: np.ndarray, ends: np.ndarray, data: np.ndarray, langs: list[str] | None) -> tuple[np.ndarray, np.ndarray]:
        from curate.kernels.excerpts import letters_only

        # it skips what is no letter, but the spaces around that would count
        bounds, clean, letters = letters_only(starts, ends, data)
        view = clean.data
        found = np.empty(len(letters), np.int32)
        distance = np.empty((len(letters), 2))
        for i in range(len(letters)):
            text = str(view[bounds[i] : bounds[i + 1]], "utf-8", "ignore")
            best, *others = cast(list[tuple[str, int]], detect_fast(text, cutoff=1 << 30, n_results=2, langs=langs))
            found[i] = number[best[0]]
            distance[i] = best[1], others[0][1] - best[1] if others else 0
        n, r = np.log(np.maximum(letters, 1)), np.log(np.maximum(distance[:, 0], 1))
        g = np.log1p(distance[:, 1])
        logit = 3.268 + 6.630 * n - 0.3066 * n * n - 0.9225 * r - 0.7196 * n * r + 0.1953 * g * g
        return found, (1 / (1 + np.exp(-np.maximum(logit, -700)))).astype(np.float32)

    def answer(starts: np.ndarray, ends: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ask(starts, ends, data, None)

    def among(text: bytes, few: list[int]) -> tuple[int, float]:
        found, score = ask(np.zeros(1, np.int64), np.array([len(text)]), np.frombuffer(text, np.uint8), [codes[i] for i in few])
        return int(found[0]), float(score[0])

    return Detector(codes, allowed(codes), answer, among)


def fasttext(path: str) -> Detector:
    """A fastText model, whose score is the probability that it gives. Raises SourceError for what is no model."""
    from curate.fasttext import load

    model = load(path)

    def answer(starts: np.ndarray, ends: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, score = model.best(starts, ends, data, offset=0)
        return found, np.clip(np.nan_to_num(score), 0, 1)

    return Detector([iso_code(label) for label in model.labels], allowed(model.labels), answer)


def allowed(labels: Sequence[str]) -> np.ndarray:
    """Which scripts each language may be in: bool (labels, scripts); all where that is not known, none for `und`."""
    from curate.kernels.scripts import scripts

    known = scripts()
    masks = np.zeros((len(labels), len(known)), np.bool_)
    for mask, label in zip(masks, labels, strict=True):
        here = [known.index(script) for script in scripts_of(label) if script in known]
        mask[here if here else slice(None)] = iso_code(label) != UNKNOWN
    return masks


def _composed(offsets: np.ndarray, data: np.ndarray, wide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The texts in Unicode's composed form, which detectors have learnt from."""
    view = data.data
    other: dict[int, bytes] = {}
    for i in np.flatnonzero(wide).tolist():
        text = str(view[offsets[i] : offsets[i + 1]], "utf-8", "ignore")
        if not unicodedata.is_normalized("NFC", text):
            other[i] = unicodedata.normalize("NFC", text).encode()
    if not other:
        data.setflags(write=False)  # as the bytes below: kernels are compiled for either
        return offsets, data
    parts = [other.get(i, view[a:b]) for i, (a, b) in enumerate(itertools.pairwise(offsets))]
    bounds = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=bounds[1:])
    return bounds, np.frombuffer(b"".join(parts), np.uint8)
