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

from curate.languages import UNKNOWN, scripts_of

HEAD, PIECE = 2048, 1024  # bytes: a longer text than HEAD + 2 PIECE is judged by its head and two later pieces

Answer = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Detector:
    """codes: the languages by number, without `und`. allowed: bool (languages, scripts). answer: of (offsets, bytes) of
    texts with letters, (int32 number of a language or -1, float32 score)."""

    codes: Sequence[str]
    allowed: np.ndarray
    answer: Answer


def detect(detector: Detector, starts: np.ndarray, ends: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int32 number of the language, float32 score) of each text data[starts[i]:ends[i]]; (-1, 0) where there is none."""
    from curate.kernels.excerpts import excerpt
    from curate.kernels.scripts import count_scripts, fits, scripts, table

    offsets, chosen, wide = excerpt(starts, ends, data, HEAD, PIECE)
    offsets, chosen = _composed(offsets, chosen, wide)
    counts = count_scripts(offsets[:-1], offsets[1:], chosen, table(), len(scripts()))
    number = np.full(len(starts), -1, np.int32)
    score = np.zeros(len(starts), np.float32)
    lettered = np.flatnonzero(counts.any(1))
    if len(lettered) < len(starts):
        offsets, chosen = _chosen(offsets, chosen, lettered)
    if len(lettered):
        found, how_sure = detector.answer(offsets, chosen)
        fit = (found >= 0) & fits(counts[lettered], detector.allowed[found])
        number[lettered] = np.where(fit, found, -1)
        score[lettered] = np.where(fit, how_sure, 0)
    return number, score


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


def names(detector: Detector, number: np.ndarray) -> pa.Array:
    """The codes of languages given by number, as strings."""
    known = pa.array([*detector.codes, UNKNOWN], pa.string())
    return known.take(pa.array(np.where(number < 0, len(detector.codes), number)))


@functools.lru_cache(maxsize=1)
def resiliparse() -> Detector:
    """The 101 languages of resiliparse's `detect_fast`, its distances turned into a probability."""
    from resiliparse.parse.lang import detect_fast, supported_langs

    codes = supported_langs()
    number = {code: i for i, code in enumerate(codes)}

    def answer(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from curate.kernels.excerpts import letters_only

        # it skips what is no letter, but the spaces around that would count
        bounds, clean, letters = letters_only(offsets, data)
        view = clean.data
        found = np.empty(len(letters), np.int32)
        distance = np.empty((len(letters), 2))
        for i in range(len(letters)):
            text = str(view[bounds[i] : bounds[i + 1]], "utf-8", "ignore")
            best, other = cast(list[tuple[str, int]], detect_fast(text, cutoff=1 << 30, n_results=2))
            found[i] = number[best[0]]
            distance[i] = best[1], other[1] - best[1]
        n, r = np.log(np.maximum(letters, 1)), np.log(np.maximum(distance[:, 0], 1))
        g = np.log1p(distance[:, 1])
        logit = 3.268 + 6.630 * n - 0.3066 * n * n - 0.9225 * r - 0.7196 * n * r + 0.1953 * g * g
        return found, (1 / (1 + np.exp(-np.maximum(logit, -700)))).astype(np.float32)

    return Detector(codes, allowed(codes), answer)


def allowed(labels: Sequence[str]) -> np.ndarray:
    """Which scripts each language may be in: bool (labels, scripts); all where that is not known."""
    from curate.kernels.scripts import scripts

    known = scripts()
    masks = np.zeros((len(labels), len(known)), np.bool_)
    for mask, label in zip(masks, labels, strict=True):
        here = [known.index(script) for script in scripts_of(label) if script in known]
        mask[here if here else slice(None)] = True
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
        return offsets, data
    parts = [other.get(i, view[a:b]) for i, (a, b) in enumerate(itertools.pairwise(offsets))]
    return _joined(parts)


def _chosen(offsets: np.ndarray, data: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    view = data.data
    return _joined([view[a:b] for a, b in zip(offsets[rows], offsets[rows + 1], strict=True)])


def _joined(parts: Sequence[bytes | memoryview]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return offsets, np.frombuffer(b"".join(parts), np.uint8)
