"""The model of the extractor: which blocks of a page are main content, and of what type the page is.

Three ensembles of trees over counted features, and two tables with a weight for each hash of a class, an id or a tag around a
block and of its first words. The first ensemble judges each block by itself, the second again with the scores around it
(`curate.kernels.context`), the third names the type of the page. The recipe, the data and the figures: `classifiers/extract`.

There is no threshold for all pages. A page is cut where the expected F1 of what is kept is largest, which is at half that F1:
a page of which the model is sure is cut at a probability near a half, one of which little is clear lower. To that LIFT is
added, since probabilities of pages unlike those of the training are less sure than they look, and a menu in a corpus is worse
than a caption that it lacks.
"""

from __future__ import annotations

import functools
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import SourceError
from curate.kernels import trees
from curate.kernels.blocks import FEATURES, HASHES
from curate.kernels.context import CONTEXT, best_cut, context
from curate.kernels.html import WORDS
from curate.kernels.trees import Trees

if TYPE_CHECKING:
    from curate.extract.page import Page

TYPES = ("article", "forum", "documentation", "product", "listing", "collection", "service")
FORMAT = 1  # of the file
LIFT = (
    0.1  # chosen on pages that have no reference text, by snippets that are and are not wanted; costs 0.001 of F1 on the others
)
_ENSEMBLES = ("blocks", "again", "types")
_SIZES = {"blocks": len(FEATURES), "again": len(CONTEXT) + len(FEATURES), "types": 2 * len(FEATURES)}


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What was learned. `Model.shipped()` is the one that comes with Curate.

    name_weights, text_weights: float32 [HASHES], log odds, see `curate.kernels.blocks.features`. blocks: over FEATURES.
    again: over CONTEXT and FEATURES. types: over `page_features`, a tree for each of TYPES in turn. about: facts of its
    training, plain JSON.
    """

    name_weights: np.ndarray
    text_weights: np.ndarray
    blocks: Trees
    again: Trees
    types: Trees
    about: dict[str, Any]

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def shipped() -> Model:
        """The model that comes with Curate, loaded once in a process."""
        from curate.extract.curate import files

        return Model.load(files()[0])

    @classmethod
    def load(cls, path: Path | str) -> Model:
        """The model in a file. Raises SourceError for one that is none, or was made for other features."""
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                if about.get("format") != FORMAT:
                    raise SourceError(f"model {path}: format {about.get('format')!r}, known is {FORMAT}: train it anew")
                made_for = {"features": list(FEATURES), "context": list(CONTEXT), "types": list(TYPES)}
                for name, known in made_for.items():
                    if about.get(name) != known:
                        there = about.get(name) or []
                        other = next((a for a in [*there, *known] if (a in there) != (a in known)), "their order")
                        raise SourceError(f"model {path}: made for other {name} ({other}): train it anew, classifiers/extract")
                weights = {name: file[name] for name in ("name_weights", "text_weights")}
                ensembles = {name: Trees(*(file[f"{name}.{part}"] for part in Trees._fields)) for name in _ENSEMBLES}
        except (OSError, EOFError, KeyError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise SourceError(f"model {path}: not a model of the extractor ({error})") from error
        for name, array in weights.items():
            if array.dtype != np.float32 or array.shape != (HASHES,):
                raise SourceError(f"model {path}: {name} is not float32 [{HASHES}]")
        for name, ensemble in ensembles.items():
            if not trees.fits(ensemble, _SIZES[name]):
                raise SourceError(f"model {path}: the trees {name!r} are damaged")
        about = {k: v for k, v in about.items() if k not in ("format", *made_for)}
        return cls(about=about, **weights, **ensembles)  # type: ignore[arg-type]

    def save(self, path: Path | str) -> None:
        """Write the model: arrays and JSON, the same bytes for the same model."""
        about = {
            "format": FORMAT,
            "features": list(FEATURES),
            "context": list(CONTEXT),
            "types": list(TYPES),
            **self.about,
        }
        arrays = {"name_weights": self.name_weights, "text_weights": self.text_weights}
        for name in _ENSEMBLES:
            for part, array in getattr(self, name)._asdict().items():
                arrays[f"{name}.{part}"] = array
        arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def score(self, page: Page) -> np.ndarray:
        """float32 [blocks]: the probability of each block that it is main content."""
        return self._scores(page)[1]

    def judge(self, page: Page) -> tuple[np.ndarray, str]:
        """(bool [blocks], page type): the blocks that are main content, and one of TYPES."""
        x, probability = self._scores(page)
        words = page.blocks[:, WORDS]
        raw = trees.scores(self.types, page_features(x, probability, words), len(TYPES))
        return lifted(best_cut(probability, words), probability, words), TYPES[int(raw.argmax())]

    def _scores(self, page: Page) -> tuple[np.ndarray, np.ndarray]:
        x = page.features(self.name_weights, self.text_weights)
        first = trees.scores(self.blocks, x)[:, 0]
        around = context(page.blocks, page.elements, first)
        raw = trees.scores(self.again, x, left=around)[:, 0]
        return x, sigmoid(raw)


def sigmoid(raw: np.ndarray) -> np.ndarray:
    """float32, of log odds."""
    return (1 / (1 + np.exp(-raw.astype(np.float64)))).astype(np.float32)


def lifted(keep: np.ndarray, probability: np.ndarray, words: np.ndarray) -> np.ndarray:
    """bool [blocks]: a cut moved up by LIFT, as far as it leaves something.

    keep: bool [blocks], of `curate.kernels.context.best_cut`. probability: float32 [blocks]. words: int [blocks].
    """
    if not keep.any():
        return keep
    matches = probability * words
    f1 = 2 * matches[keep].sum() / max(words[keep].sum() + matches.sum(), 1)
    return probability >= min(f1 / 2 + LIFT, probability.max())


def page_features(x: np.ndarray, probability: np.ndarray, words: np.ndarray) -> np.ndarray:
    """float32 [1, 2 * features]: means of the features over all words of a page, and over those that are main content.

    x: float32 [blocks, features]. probability: float32 [blocks]. words: int [blocks].
    """
    all_words = (words + 0.5).astype(np.float32)
    weights = np.stack([all_words, all_words * probability])
    return (weights @ x / np.maximum(weights.sum(1, keepdims=True), 1e-6)).reshape(1, -1).astype(np.float32)
