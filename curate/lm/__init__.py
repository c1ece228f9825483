"""Causal language models: how surprised they are by texts, and small ones that are trained on the spot.

`load` gives a model of any kind behind one interface: a folder or an id of the hub that transformers can read (`neural`), or
the folder of a back-off n-gram model (`ngram`), which needs no torch. `train` makes small neural models and `tokenizer` what
they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

WINDOW = 512  # tokens, of CoLoR-Filter
DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Losses:
    """What a model loses on texts, by window: tokens are taken in runs of a window, and each run is read by itself.

    bounds: int64 (texts + 1): the windows of text i are bounds[i]:bounds[i + 1]; a text without tokens has none.
    nll: float64 (windows): the sum of -ln p over the tokens of a window, in nats.
    tokens: int64 (windows): how many tokens were predicted in it.
    ends: int64 (windows): at which byte of the text (UTF-8, always between two characters) it ends; the last is its length.
    """

    bounds: np.ndarray
    nll: np.ndarray
    tokens: np.ndarray
    ends: np.ndarray

    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        """(float64, int64) per text: the sum over its windows of nll and of tokens."""
        return _sums(self.nll, self.bounds), _sums(self.tokens, self.bounds)


@dataclass(frozen=True)
class TokenLosses:
    """What a model says about each token of texts.

    bounds: int64 (texts + 1): the tokens of text i that were predicted are bounds[i]:bounds[i + 1].
    ids: int32: the tokens. logprobs: float32: ln p of each. mean, variance: float32: of ln p of all tokens that could stand
    there, under the model's own distribution; None where the model cannot say.
    """

    bounds: np.ndarray
    ids: np.ndarray
    logprobs: np.ndarray
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None


class LanguageModel(Protocol):
    """A model that reads texts from left to right. What it says of a text does not depend on the texts beside it."""

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        ...

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(int32 ids of the tokens of all texts, int64 bounds of each), without special tokens; a null has none."""
        ...

    def losses(self, texts: pa.Array, window: int = WINDOW) -> Losses:
        """What it loses on texts (string array; a null is an empty text)."""
        ...

    def token_losses(self, texts: pa.Array, most: int) -> TokenLosses:
        """What it says about the first `most` tokens of each text."""
        ...


def kind(model: str) -> str:
    """`ngram` for the folder of an n-gram model, else `causal`."""
    return "ngram" if (Path(model) / "ngram.json").is_file() else "causal"


def load(model: str, *, device: str = "auto", dtype: str = "auto", what: str = "lm") -> LanguageModel:
    """A model by its folder or its id on the hub. what: who asks, for messages. device and dtype are for those of transformers.

    Raises RecipeError where there is none, SourceError where it cannot be read, MissingExtra without the extra `lm`.
    """
    if kind(model) == "ngram":
        from curate.lm import ngram

        return ngram.load(Path(model), what)
    from curate.lm import neural

    return neural.load(model, device=device, dtype=dtype, what=what)


def files(model: str, what: str = "lm") -> Sequence[str]:
    """The local files that decide what a model says."""
    if kind(model) == "ngram":
        return tuple(sorted(str(path) for path in Path(model).iterdir() if path.suffix in (".json", ".npz")))
    from curate import encoders

    return encoders.files(encoders.folder_of(model, what))


def _sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The sum of values[bounds[i]:bounds[i + 1]] for each i, in order from the left."""
    sums = np.zeros(len(bounds) - 1, values.dtype)
    np.add.at(sums, np.repeat(np.arange(len(sums)), np.diff(bounds)), values)
    return sums
