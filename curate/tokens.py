"""How many tokens a text has: by the recipe's `tokenizer`.

`bytes/4` is an estimate and is called so wherever it is shown; the path of a tokenizer.json counts for real, as does a hub
id where the hub can be reached. Special tokens are not counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError
from curate.storage import sha256_file

ESTIMATE = "bytes/4"


def text_bytes(text: pa.Array) -> pa.Array:
    """UTF-8 bytes of each text (uint32); null counts 0."""
    return pc.fill_null(pc.binary_length(text), 0).cast(pa.uint32())


def identity(tokenizer: str) -> str:
    """What stands for a tokenizer in fingerprints and manifests: its name, or the digest of its file."""
    return f"sha256:{sha256_file(tokenizer)}" if Path(tokenizer).is_file() else tokenizer


@functools.lru_cache(maxsize=4)
def counter(tokenizer: str) -> Callable[[pa.Array], pa.Array]:
    """A function from texts to token counts (uint32). Raises RecipeError for a tokenizer that cannot be loaded."""
    if tokenizer == ESTIMATE:
        return lambda text: pc.cast(pc.divide(pc.add(text_bytes(text), 3), 4), pa.uint32())
    from tokenizers import Tokenizer

    try:
        if Path(tokenizer).is_file():
            model = Tokenizer.from_file(tokenizer)
        else:
            model = Tokenizer.from_pretrained(tokenizer)
    except Exception as error:
        raise RecipeError(
            f"tokenizer: cannot load {tokenizer!r} ({error}); give {ESTIMATE!r}, the path of a tokenizer.json, or a hub id"
        ) from error

    def count(text: pa.Array) -> pa.Array:
        encoded = model.encode_batch_fast([t or "" for t in text.to_pylist()], add_special_tokens=False)
        return pa.array([len(e) for e in encoded], pa.uint32())

    return count
