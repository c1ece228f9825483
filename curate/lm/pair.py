"""A prior and a conditional model: one of the pool, and the same after it has read the target.

What a text gains by the second reading is its score in CoLoR-Filter. The pair is n-gram models, which take seconds and no
torch, or small transformers of a named size, trained here from nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from curate.errors import RecipeError, did_you_mean
from curate.lm import WINDOW

NGRAM = "ngram"
# tokens of the pool that a prior learns from: 20 for each parameter (Hoffmann et al. 2022, arXiv:2203.15556)
SAMPLE = {NGRAM: 20_000_000, "1m": 20_000_000, "10m": 200_000_000, "60m": 1_200_000_000, "150m": 3_000_000_000}
FOLDS = {NGRAM: 2}  # else 1
PRIOR, CONDITIONAL = "prior", "conditional"


def check(models: str, what: str) -> None:
    """Raises RecipeError for models that cannot be trained here."""
    if models not in SAMPLE:
        raise RecipeError(f"{what}: models is {models!r}{did_you_mean(models, SAMPLE)}; or give `prior` and `conditional`")


def train_pair(
    models: str,
    prior_texts: Iterable[pa.Array],
    target_texts: Iterable[pa.Array],
    folder: Path,
    *,
    seed: int = 42,
    prior: Path | None = None,
    like: Path | None = None,
    window: int = WINDOW,
    device: str = "auto",
) -> tuple[Path, Path]:
    """Train both and return their folders, `folder/prior` and `folder/conditional`.

    models: "ngram" or a size ("1m", …). prior_texts, target_texts: arrays of strings, which can be gone through more than once
    (a list, not a generator). prior: a model to begin with in place of one trained on `prior_texts`. like: a model, or for
    transformers a tokenizer, whose tokens the prior is to have, so that losses can be compared with its. window: tokens that a
    transformer reads at a time. What is whole already is not trained again, and a training that was killed goes on.

    n-gram: the counts of the conditional model are those of both, those of the target having the greater weight. Transformer:
    the conditional goes on from the weights of the prior, with a new optimiser, once over the target.

    Raises RecipeError where one of both has no text.
    """
    check(models, "lm")
    folder.mkdir(parents=True, exist_ok=True)
    if models == NGRAM:
        return _ngram(prior_texts, target_texts, folder, prior, like)
    raise NotImplementedError


def _ngram(
    pool: Iterable[pa.Array], target: Iterable[pa.Array], folder: Path, prior: Path | None, like: Path | None
) -> tuple[Path, Path]:
    from curate.lm import ngram

    if prior is None:
        prior = folder / PRIOR
        if not (prior / "ngram.json").is_file():
            ngram.train(pool, units=like and ngram.load(like, "lm")).save(prior)
    if not (folder / CONDITIONAL / "ngram.json").is_file():
        ngram.load(prior, "lm").adapted(target).save(folder / CONDITIONAL)
    return prior, folder / CONDITIONAL
