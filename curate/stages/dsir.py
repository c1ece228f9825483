"""Importance of documents for a target: how much more likely it makes their words than the corpus does."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import reference
from curate.errors import RecipeError, StageError
from curate.langid import spans
from curate.selection import Selecting, Units, shared_out, window_hashes, window_texts, windows_of
from curate.stage import REASON, ROW, Batches, BatchFn, Stage, Step, Task, with_columns
from curate.storage import TableWriter, read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

TINY = 1e-8  # beside every probability, so that none is zero
_LENGTHS = ("normalise", "pieces", "sum")


@dataclass(frozen=True, kw_only=True)
class Dsir(Selecting):
    """Writes importance weights of documents for a target, and draws from the corpus by them.

    targets: files of documents like those that are wanted: Parquet, JSONL, text files, folders, globs, or run folders. texts:
    such documents themselves. column: of the texts in these files. buckets: into which runs of 1 to `ngrams` words are hashed.
    smoothing: added to every count of the target and the corpus.

    The weight is the sum over these runs of log((p + 1e-8) / (q + 1e-8)), p and q the shares of their bucket in the targets and
    in the corpus as it stands before this stage. It grows with the length of a text. length: "normalise", the mean over the
    runs times as many as `piece` words have, so that texts of all lengths can be compared; "pieces", the text is cut into
    pieces of at most `piece` words, as equal as can be, and counts as the mean of their weights (of exp, that is: of weights,
    not of their logarithms); "sum", the sum as it is, which is right for texts of one length.

    k or keep: draw so many documents, or such a share in (0, 1], without replacement and in proportion to their weights: those
    with the highest sum of the log weight and a number from the standard Gumbel distribution, made of a hash of (seed, id).
    tau or tokens: one token in so many instead, or a budget of tokens, which is not exceeded; with both, `tau` times as many
    tokens are first taken at random, and what stays is drawn from these. gumbel: `false` takes the highest weights. min_tokens:
    documents with fewer words are not drawn. by: "document", or "window": then windows are weighed and drawn as if they were
    documents, a text becomes its drawn windows, with an empty line where something between two of them was left out, and the
    column `window_ends`, which `pair_loss` writes, has to be there. Without k, keep, tau and tokens nothing is dropped.

    into: name of the column. Columns written: `into` (float64: natural logarithm, of windows the highest; null for a text
    without words, counted); `text` with `by: window`. Reasons: `dsir.not_drawn`, with `_value` = what it was ordered by;
    `dsir.too_short`, with `_value` = its words.

    Words are runs of letters and digits, lower case, and runs of other characters; a letter of a script without spaces is a
    word. Hashes are a fast mix of 64 bits instead of the original's SHA-256, so buckets are others. Scoring adds up in the
    order of the text, so no batch, shard or worker changes a weight.

    Source: DSIR (Xie et al. 2023, arXiv:2302.03169; p-lambda/dsir); the normalisation by length is own.

    >>> docs = ["the cell divides and its nucleus divides", "buy now and win a free phone", "cells have a nucleus"]
    >>> stage = Dsir(texts=("the nucleus of the cell", "cells divide"), k=2, min_tokens=1, gumbel=False)
    >>> stage(docs).kept["text"].to_pylist()
    ['the cell divides and its nucleus divides', 'cells have a nucleus']
    """

    code: ClassVar[str] = "dsir"
    missed: ClassVar[str] = "not_drawn"
    unknown: ClassVar[str] = "too_short"
    example: ClassVar[dict[str, Any]] = {"texts": ("It was a bright cold day in April.",), "keep": 0.5, "min_tokens": 1}

    targets: str | tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    column: str = "text"
    buckets: int = 10_000
    ngrams: int = 2
    smoothing: float = 0.0
    length: Literal["normalise", "pieces", "sum"] = "normalise"
    piece: int = 128
    k: int | None = None
    gumbel: bool = True
    min_tokens: int = 100
    into: str = "log_importance_weight"

    def __post_init__(self) -> None:
        if not all(self.paths) or not self.column:
            raise RecipeError("dsir: targets and column must not be empty strings")
        for name, least, most in (("buckets", 2, 1 << 24), ("ngrams", 1, 8), ("piece", 2, 1 << 20), ("min_tokens", 0, 1 << 40)):
            if not least <= getattr(self, name) <= most:
                raise RecipeError(f"dsir: {name} is {getattr(self, name)}; give {least} to {most:,}")
        if not 0 <= self.smoothing < math.inf:
            raise RecipeError(f"dsir: smoothing is {self.smoothing}; it is added to counts, and not negative")
        if self.length not in _LENGTHS:
            raise RecipeError(f"dsir: length is {self.length!r}; it is one of {', '.join(_LENGTHS)}")
        other = next((name for name in ("keep", "tau", "tokens") if getattr(self, name) is not None), "")
        if self.k is not None and other:
            raise RecipeError(f"dsir: give `k`, a number of documents, or `{other}`, and not both")
        if self.k is not None and self.k < 0:
            raise RecipeError(f"dsir: k is {self.k}; a number of documents cannot be negative")
        if self.by == "window" and not self.chooses:
            raise RecipeError("dsir: `by: window` is for drawing: give `tau`, `keep`, `tokens` or `k`")
        super().__post_init__()
        if not self.into or self.into.startswith("_"):
            raise RecipeError(f"dsir: into is {self.into!r}; give the name of a column, not beginning with an underscore")

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the targets are."""
        return (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)

    @property
    def chooses(self) -> bool:
        return self.k is not None or super().chooses

    @property
    def counts(self) -> bool:
        return self.k is not None or super().counts

    def wanted(self, total: int) -> int:
        return super().wanted(total) if self.k is None else min(self.k, total)

    def bound(self, columns: Collection[str]) -> Stage:
        if not self.paths and not self.texts:  # only now, so that a recipe can leave them to those who run it
            raise RecipeError("dsir: give `targets`, files of documents like those that are wanted, or `texts`")
        return self

    def unit_reads(self) -> tuple[str, ...]:
        return ("tokens", self.ends) if self.by == "window" else ("tokens",)

    def reads(self) -> tuple[str, ...]:
        return super().reads() if self.chooses else ("text",)

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("id", "text", *self.unit_reads()))) if self.chooses else ("text",)

    def score_fields(self) -> pa.Schema:
        return pa.schema([(self.into, pa.float64())])

    def reasons(self) -> tuple[str, ...]:
        return super().reasons() if self.chooses else ()

    def files(self) -> tuple[str, ...]:
        return reference.files(self.paths, "dsir")

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        fit = [Step("counts", partial(_counts, self), reads=("text",)), Step("ratios", partial(_ratios, self))]
        if not self.chooses:
            return fit
        windows = (self.ends,) if self.by == "window" else ()
        weigh = Step("weigh", partial(_weigh, self), reads=("id", "text", *windows))
        return [*fit, weigh, *super().steps(n_shards, n_docs)]

    def open(self, task: Task) -> BatchFn:
        if self.chooses:
            return super().open(task)
        return partial(self._annotate, task.state(self)["ratio"].to_numpy(), task)

    def _annotate(self, ratios: np.ndarray, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        weights, _ = self._score(ratios, batch["text"])
        return with_columns(batch, {self.into: _column(weights, task)})

    def units(self, task: Task, batch: pa.RecordBatch) -> Units:
        weighed, bounds = self._weighed(task, batch)
        words, hashes = weighed["words"].to_numpy(), weighed["hash"].to_numpy()
        order = self._order(weighed["weight"].to_numpy(), hashes)
        tokens = pc.fill_null(batch["tokens"], 0).to_numpy(zero_copy_only=False).astype(np.int64)
        if self.by == "window":
            tokens = shared_out(tokens, bounds, windows_of(batch[self.ends])[1])
        return Units(bounds, np.where(words < self.min_tokens, np.nan, order), tokens, hashes)

    def _weighed(self, task: Task, batch: pa.RecordBatch) -> tuple[pa.Table, np.ndarray]:
        """What the fit has found of the units of a batch, and their bounds."""
        path = _weighed_file(self, task)
        table = _held(path, path.stat().st_mtime_ns)
        rows, wanted = table[ROW].to_numpy(), batch[ROW].to_numpy()
        first, last = (np.searchsorted(rows, wanted, side=side) for side in ("left", "right"))
        if self.by == "document" and (last == first).any():
            raise StageError(f"dsir: {int((last == first).sum())} documents were not there when weights were fitted")
        bounds = np.append(0, np.cumsum(last - first))
        at = np.repeat(first - bounds[:-1], last - first) + np.arange(bounds[-1])
        return table.take(pa.array(at)), bounds

    def _process(self, task: Task, drawn: np.ndarray, cut: np.ndarray, batch: pa.RecordBatch) -> pa.RecordBatch:
        out = super()._process(task, drawn, cut, batch)
        weighed, bounds = self._weighed(task, batch)
        weights, words = weighed["weight"].to_numpy(), weighed["words"].to_numpy()
        most = np.zeros(batch.num_rows, np.int64)
        np.maximum.at(most, np.repeat(np.arange(len(most)), np.diff(bounds)), words)
        best = Units(bounds, weights, words, words).best()
        short = pc.fill_null(pc.equal(out[REASON], "dsir.too_short"), False)
        columns = {
            self.into: _column(np.where(np.isneginf(best), np.nan, best), task),
            "_value": pc.if_else(short, pa.array(most, pa.float64()), out["_value"]),
        }
        return with_columns(out, columns)

    def _score(self, ratios: np.ndarray, text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(log weight, words) of each text; NaN for one without words."""
        from curate.kernels import dsir

        how = {"normalise": dsir.NORMALISED, "pieces": dsir.PIECES, "sum": dsir.ONE}[self.length]
        return dsir.weigh(*spans(text), ratios, self.ngrams, how, self.piece)

    def _order(self, weights: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """What documents are ordered by: the log weight, and the noise with which the highest are a draw by weight."""
        if not self.gumbel:
            return weights
        uniform = ((hashes >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # neither 0 nor 1
        return weights - np.log(-np.log(uniform))


@functools.lru_cache(maxsize=1)  # of one shard after the other
def _held(path: Path, _mtime: int) -> pa.Table:
    return read_table(path)


def _column(weights: np.ndarray, task: Task) -> pa.Array:
    missing = np.isnan(weights)
    if missing.any():
        task.count("documents without words, and so without a weight", int(missing.sum()))
    return pa.array(weights, mask=missing)


# --------------------------------------------------------------------------------------------- the steps of the fit


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _weighed_file(stage: Dsir, task: Task) -> Path:
    return task.folder(stage) / "weighed" / _name(task)


def _ratio_file(stage: Dsir, task: Task) -> Path:
    return task.folder(stage) / ("ratios.parquet" if stage.chooses else "state.parquet")


def _counted(stage: Dsir, texts: Iterator[pa.Array]) -> np.ndarray:
    from curate.kernels.dsir import count

    counts = np.zeros(stage.buckets, np.int64)
    for text in texts:
        count(*spans(text), stage.ngrams, counts)
    return counts


def _counts(stage: Dsir, task: Task, batches: Batches) -> None:
    """Features of the documents of one shard, by bucket."""
    counts = _counted(stage, (batch["text"] for batch in batches))
    write_table(task.folder(stage) / "counts" / _name(task), pa.table({"count": counts}), codec="lz4")


def _ratios(stage: Dsir, task: Task) -> None:
    """The logarithm of the ratio of the shares of each bucket in the targets and in the corpus."""
    raw = np.zeros(stage.buckets, np.int64)
    for name in task.shards:
        raw += read_table(task.folder(stage) / "counts" / name)["count"].to_numpy()
    target = _counted(stage, _target_texts(stage, task))
    if not target.sum():
        raise StageError(f"dsir: the targets hold no words ({', '.join((*stage.paths, *stage.texts))[:200]})")
    ratio = np.log(_shares(target, stage.smoothing) + TINY) - np.log(_shares(raw, stage.smoothing) + TINY)
    write_table(_ratio_file(stage, task), pa.table({"ratio": ratio}))


def _target_texts(stage: Dsir, task: Task) -> Iterator[pa.Array]:
    if stage.texts:
        yield pa.array(stage.texts, pa.string())
    for batch in reference.batches(stage.paths, (stage.column,), "dsir", task):
        yield batch[stage.column]


def _shares(counts: np.ndarray, smoothing: float) -> np.ndarray:
    total = float(counts.sum()) + smoothing * len(counts)
    return (counts + smoothing) / total if total else np.zeros(len(counts))


def _weigh(stage: Dsir, task: Task, batches: Batches) -> None:
    """The weights of the documents of one shard, or of their windows."""
    ratios = read_table(_ratio_file(stage, task))["ratio"].to_numpy()
    schema = pa.schema([(ROW, pa.uint32()), ("weight", pa.float64()), ("words", pa.int64()), ("hash", pa.uint64())])
    with TableWriter(_weighed_file(stage, task), schema, codec="lz4") as writer:
        for batch in batches:
            rows, text = batch[ROW].to_numpy(), batch["text"]
            ids = pc.fill_null(batch["id"], "").to_pylist()
            hashes = np.array([xxhash.xxh3_64_intdigest(name.encode(), stage.seed) for name in ids], np.uint64)
            if stage.by == "window":
                bounds, ends = windows_of(batch[stage.ends])
                rows, hashes = np.repeat(rows, np.diff(bounds)), window_hashes(hashes, bounds)
                text = window_texts(text, bounds, ends)
            weights, words = stage._score(ratios, text)
            writer.write(pa.RecordBatch.from_arrays(list(map(pa.array, (rows, weights, words, hashes))), schema=schema))
