"""A prior and a conditional model: one of the pool, and the same after it has read the target.

What a text gains by the second reading is its score in CoLoR-Filter. The pair is n-gram models, which take seconds and no
torch, or small transformers of a named size, trained here from nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate import lm
from curate.errors import RecipeError, did_you_mean
from curate.lm import WINDOW

NGRAM = "ngram"
# tokens of the pool that a prior learns from: 20 for each parameter (Hoffmann et al. 2022, arXiv:2203.15556), but for 1m, which
# is to be trained on a laptop while one waits
SAMPLE = {NGRAM: 20_000_000, "1m": 5_000_000, "10m": 200_000_000, "60m": 1_200_000_000, "150m": 3_000_000_000}
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
    progress: bool | None = None,
) -> tuple[Path, Path]:
    """Train both and return their folders, `folder/prior` and `folder/conditional`.

    models: "ngram" or a size ("1m", …). prior_texts, target_texts: arrays of strings, which can be gone through more than once
    (a list, not a generator). prior: a model to begin with in place of one trained on `prior_texts`. like: a model, or for
    transformers a tokenizer, whose tokens the prior is to have, so that losses can be compared with its. window: tokens that a
    transformer reads at a time. progress: a bar on stderr; None: if that is a terminal. What is whole already is not trained
    again, and a training that was killed goes on.

    n-gram: the conditional is a mixture of the prior with a model of the target, in the shares under which texts of the target
    that were held out are likeliest. Transformer: it goes on from the weights of the prior, with a new optimiser, once over the
    target.

    Raises SourceError or RecipeError where one of both has no text, MissingExtra without the extra `lm`.
    """
    made, adapted = folder / PRIOR, folder / CONDITIONAL
    folder.mkdir(parents=True, exist_ok=True)
    if prior is None:
        check(models, "lm")
    if lm.kind(str(prior)) == NGRAM if prior else models == NGRAM:
        from curate.lm import ngram

        if prior is None and not (made / ngram.JSON).is_file():
            ngram.train(prior_texts, units=ngram.load(like, "lm") if like else None).save(made)
        if not (adapted / ngram.JSON).is_file():
            ngram.load(prior or made, "lm").adapted(target_texts).save(adapted)
    else:
        from curate.lm.train import train

        more: dict[str, Any] = {"window": window, "seed": seed, "device": device, "progress": progress}
        if prior is None:
            train(prior_texts, made, size=models, tokenizer=like, **more)
        train(target_texts, adapted, start=prior or made, epochs=1, **more)
    return prior or made, adapted
