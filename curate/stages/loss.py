"""What language models lose on each document: perplexity, and all that is chosen by it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate import lm, reference
from curate.encoders import DEVICES, require
from curate.errors import RecipeError
from curate.stage import BatchFn, GlobalStage, Stage, Step, Task, with_columns

NGRAM = "ngram"
LONGEST = (1 << 16) - 1  # tokens of a window, which are stored in 16 bits
MOST = 1 << 20  # tokens of a text that may be stored one by one


@dataclass(frozen=True, kw_only=True)
class Loss(GlobalStage):
    """Writes the negative log-likelihood of each document under a language model, or several.

    model: a folder, or a repository of the Hugging Face hub as `org/repo` (`@revision` behind it), of a causal language model
    that transformers reads (the extra `lm`); the folder of a model that `curate train lm` or a run has made; or `ngram`, a
    back-off n-gram model that is trained here in seconds and without torch, on `reference` (files: Parquet, JSONL, folders,
    globs, run folders) or `texts`: then the loss says how unlike these a document is. Several models are a mapping of names to
    such.

    window: tokens that are read at a time: a text is cut into windows of so many, and each is read by itself, with nothing
    before it but the token that begins texts. A model that has no such token does not predict the first of a window.
    windows: also write the loss of each window. per_token: also write so many tokens of each text, from its first, and what the
    model says about each; these are read as one window. mean: also write the loss per token. perplexity: also write its
    exponential. device: `auto` (a GPU if there is one), `cpu`, `cuda` or `mps`. dtype: `float32`, `bfloat16`, or `auto`:
    bfloat16 on a GPU that computes in it, else float32; a bfloat16 loss is within about 1e-2 a token. device and dtype are of
    transformers.

    into: the column; of several models, what comes before `_NAME`. With NLL for that, columns written: `NLL` (float64: the sum
    of -ln p over all tokens that are predicted, in nats) and `NLL_tokens` (int32: how many those are); with `mean` `NLL_mean`
    and with `perplexity` `NLL_perplexity` (float64); with `windows`, a value for each window, `NLL_windows` (list of float64,
    with the sum `NLL`), `NLL_window_tokens` (list of uint16) and `NLL_window_ends` (list of uint32: at which byte of the text
    each ends, between two characters); with `per_token` `NLL_token_ids` (list of int32) and `NLL_token_logprobs` (list of
    float32: ln p). All are null for a text in which no token is predicted, such as an empty one, and it is counted.
    Reasons: none: `quantile` and `where` decide.

    Losses per token can be compared between models that have the same tokens only. A text has the same loss whatever stands
    beside it, and in every batch, shard and number of workers on one machine; see `curate.encoders` for what may change last
    bits.

    Source: own; perplexity as a signal of quality as in CCNet (Wenzek et al. 2020, arXiv:1911.00359), windows as in
    CoLoR-Filter (Brandfonbrener et al. 2024, arXiv:2406.10670).

    >>> docs = ["the cell divides", "stock market report", ""]
    >>> kept = Loss(texts=("the cell has a nucleus and divides", "a nucleus divides"), mean=True)(docs).kept
    >>> mean = kept["nll_mean"].to_pylist()
    >>> mean[0] < mean[1], mean[2]
    (True, None)
    """

    example: ClassVar[dict[str, Any]] = {"texts": ("It was a bright cold day in April.",), "windows": True, "per_token": 8}

    model: str | Mapping[str, str] = NGRAM
    reference: str | tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    into: str = "nll"
    window: int = lm.WINDOW
    windows: bool = False
    per_token: int = 0
    mean: bool = False
    perplexity: bool = False
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if not self.models or not all(self.models.values()) or (isinstance(self.model, Mapping) and not all(self.model)):
            raise RecipeError("loss: model is empty; name a folder, a repository of the hub, `ngram`, or a mapping of such")
        if not all(self.paths):
            raise RecipeError("loss: reference is the name of a file or folder, and must not be empty")
        if (self.paths or self.texts) and NGRAM not in self.models.values():
            raise RecipeError("loss: `reference` and `texts` are what `model: ngram` is trained on; remove them, or name it")
        if not 0 <= self.per_token <= MOST:
            raise RecipeError(f"loss: per_token is {self.per_token}; give 0 to {MOST:,} tokens")
        check_how("loss", self.device, self.dtype, self.window)
        if not self.into or self.into.startswith("_") or self.into == "text":
            raise RecipeError(f"loss: into is {self.into!r}; name a column to be written, such as nll")

    @property
    def models(self) -> dict[str, str]:
        """The models by the names of their columns."""
        if isinstance(self.model, str):
            return {self.into: self.model}
        return {f"{self.into}_{name}": model for name, model in self.model.items()}

    @property
    def paths(self) -> tuple[str, ...]:
        """Where texts are that an n-gram model is trained on."""
        return (self.reference,) if isinstance(self.reference, str) else tuple(self.reference)

    def bound(self, columns: Collection[str]) -> Stage:
        for model in self.models.values():
            check_model("loss", model, max(self.window, self.per_token))
        if NGRAM in self.models.values() and not self.paths and not self.texts:
            raise RecipeError(
                "loss: give `reference`, files of texts that `model: ngram` is trained on, or `texts`, or a model"
            )
        return self

    def fit_reads(self) -> tuple[str, ...]:
        return ()

    def writes(self) -> pa.Schema:
        columns: list[tuple[str, pa.DataType]] = []
        for name in self.models:
            columns += [(name, pa.float64()), (f"{name}_tokens", pa.int32())]
            columns += [(f"{name}_mean", pa.float64())] if self.mean else []
            columns += [(f"{name}_perplexity", pa.float64())] if self.perplexity else []
            if self.windows:
                columns.append((f"{name}_windows", pa.list_(pa.float64())))
                columns.append((f"{name}_window_tokens", pa.list_(pa.uint16())))
                columns.append((f"{name}_window_ends", pa.list_(pa.uint32())))
            if self.per_token:
                columns.append((f"{name}_token_ids", pa.list_(pa.int32())))
                columns.append((f"{name}_token_logprobs", pa.list_(pa.float32())))
        names = [name for name, _ in columns]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise RecipeError(f"loss: {twice!r} would be written twice; call a model something else")
        return pa.schema(columns)

    def files(self) -> tuple[str, ...]:
        found = [file for model in self.models.values() if model != NGRAM for file in lm.files(model, "loss")]
        return (*reference.files(self.paths, "loss"), *found)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        if NGRAM not in self.models.values():
            return [Step("nothing", nothing)]  # models that are there need no fit
        return [Step("train", partial(train, self, self.paths, self.texts, "loss"))]

    def open(self, task: Task) -> BatchFn:
        trained = task.folder(self) / NGRAM
        models = {
            name: cached(task, str(trained) if model == NGRAM else model, self.device, self.dtype, "loss")
            for name, model in self.models.items()
        }
        return partial(self._process, models, task)

    def _process(self, models: Mapping[str, lm.LanguageModel], task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = {}
        for name, model in models.items():
            found = self._columns(name, model, batch["text"])
            columns |= found
            if found[name].null_count:
                whose = "" if isinstance(self.model, str) else f" of {name}"
                task.count(f"documents without a token to predict, and so without a loss{whose}", found[name].null_count)
        return with_columns(batch, columns)

    def _columns(self, name: str, model: lm.LanguageModel, texts: pa.Array) -> dict[str, pa.Array]:
        losses = model.losses(texts, self.window)
        nll, tokens = losses.documents()
        missing = tokens == 0
        columns = {name: pa.array(nll, mask=missing), f"{name}_tokens": pa.array(tokens.astype(np.int32), mask=missing)}
        mean = nll / np.where(missing, 1, tokens)
        if self.mean:
            columns[f"{name}_mean"] = pa.array(mean, mask=missing)
        if self.perplexity:
            with np.errstate(over="ignore"):  # infinity is what it is then
                columns[f"{name}_perplexity"] = pa.array(np.exp(mean), mask=missing)
        if self.windows:
            columns[f"{name}_windows"] = lists(losses.bounds, losses.nll, pa.float64(), missing)
            columns[f"{name}_window_tokens"] = lists(losses.bounds, losses.tokens, pa.uint16(), missing)
            columns[f"{name}_window_ends"] = lists(losses.bounds, losses.ends, pa.uint32(), missing)
        if self.per_token:
            each = model.token_losses(texts, self.per_token)
            columns[f"{name}_token_ids"] = lists(each.bounds, each.ids, pa.int32(), missing)
            columns[f"{name}_token_logprobs"] = lists(each.bounds, each.logprobs, pa.float32(), missing)
        return columns


def lists(bounds: np.ndarray, values: np.ndarray, kind: pa.DataType, missing: np.ndarray) -> pa.Array:
    """A list column: row i is values[bounds[i]:bounds[i + 1]], or null where it is missing."""
    sizes = np.where(missing, 0, np.diff(bounds))
    values = values[np.repeat(~missing, np.diff(bounds))]
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)
    flat = pa.array(values).cast(kind)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(missing) if missing.any() else None)


# --------------------------------------------------------------------------------------------- models of stages


def check_how(stage: str, device: str, dtype: str = "auto", window: int = lm.WINDOW) -> None:
    """Raises RecipeError for a device or a precision that there is not, or a window whose length cannot be stored."""
    if device not in DEVICES:
        raise RecipeError(f"{stage}: device is {device!r}; it is one of {', '.join(DEVICES)}")
    if dtype not in lm.DTYPES:
        raise RecipeError(f"{stage}: dtype is {dtype!r}; it is one of {', '.join(lm.DTYPES)}")
    if not 1 <= window <= LONGEST:
        raise RecipeError(f"{stage}: window is {window}; give 1 to {LONGEST:,} tokens")


def check_model(stage: str, model: str, window: int) -> None:
    """What can be known of a model before it is loaded. Raises RecipeError, MissingExtra."""
    if model == NGRAM or lm.kind(model) == NGRAM:
        return
    require(("torch", "transformers"), "lm", f"stage '{stage}'")
    from curate.lm import neural

    longest = neural.limit(model, stage)
    if longest is not None and window > longest:
        raise RecipeError(
            f"{stage}: {model} reads at most {longest:,} tokens at a time, not {window:,}: give a smaller number of tokens"
        )


def cached(task: Task, model: str, device: str, dtype: str, stage: str) -> lm.LanguageModel:
    """A model, loaded once in a process."""
    files = tuple(lm.files(model, stage))
    key = (lm.__name__, files, tuple(Path(file).stat().st_mtime_ns for file in files), device, dtype)
    return task.cached(key, partial(lm.load, model, device=device, dtype=dtype, what=stage))


def nothing(task: Task) -> None:
    """The fit of a stage that needs none."""


def train(stage: Stage, paths: Sequence[str], texts: tuple[str, ...], what: str, task: Task) -> None:
    """Train an n-gram model on texts, and on those in files, into the folder of a stage. Raises RecipeError: there is none."""
    from curate.errors import SourceError
    from curate.lm import ngram

    try:
        ngram.train(_texts(paths, texts, what, task)).save(task.folder(stage) / NGRAM)
    except SourceError as error:
        raise RecipeError(f"{what}: {error} ({', '.join((*paths, *texts))[:200]})") from None


def _texts(paths: Sequence[str], texts: tuple[str, ...], what: str, task: Task) -> Iterator[pa.Array]:
    if texts:
        yield pa.array(texts, pa.string())
    for batch in reference.batches(paths, ("text",), what, task):
        yield batch["text"]
