"""Importance of documents for a target: how much more likely it makes their words than the corpus does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import ranks, reference
from curate.errors import RecipeError, StageError
from curate.fit import find_rows
from curate.langid import spans
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.stages.quantile import ordered_bits
from curate.storage import TableWriter, read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

TINY = 1e-8  # beside every probability, so that none is zero
_LENGTHS = ("normalise", "pieces", "sum")


@dataclass(frozen=True, kw_only=True)
class Dsir(GlobalStage):
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
    gumbel: `false` takes the highest weights. min_tokens: documents with fewer words are not drawn. Without k and keep nothing
    is dropped.

    into: name of the column. Columns written: `into` (float64: natural logarithm; null for a text without words, counted).
    Reasons: `dsir.not_drawn`, with `_value` = what it was ordered by; `dsir.too_short`, with `_value` = its words.

    Words are runs of letters and digits, lower case, and runs of other characters; a letter of a script without spaces is a
    word. Hashes are a fast mix of 64 bits instead of the original's SHA-256, so buckets are others. Scoring adds up in the
    order of the text, so no batch, shard or worker changes a weight.

    Source: DSIR (Xie et al. 2023, arXiv:2302.03169; p-lambda/dsir); the normalisation by length is own.

    >>> docs = ["the cell divides and its nucleus divides", "buy now and win a free phone", "cells have a nucleus"]
    >>> stage = Dsir(texts=("the nucleus of the cell", "cells divide"), k=2, min_tokens=1, gumbel=False)
    >>> stage(docs).kept["text"].to_pylist()
    ['the cell divides and its nucleus divides', 'cells have a nucleus']
    """

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
    keep: float | None = None
    gumbel: bool = True
    min_tokens: int = 100
    into: str = "log_importance_weight"
    seed: int = 42

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
        if self.k is not None and self.keep is not None:
            raise RecipeError("dsir: give `k`, a number of documents, or `keep`, a share, and not both")
        if self.k is not None and self.k < 0:
            raise RecipeError(f"dsir: k is {self.k}; a number of documents cannot be negative")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise RecipeError(f"dsir: keep is {self.keep}; it is a share, above 0 and at most 1")
        if not self.into or self.into.startswith("_"):
            raise RecipeError(f"dsir: into is {self.into!r}; give the name of a column, not beginning with an underscore")

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the targets are."""
        return (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)

    @property
    def draws(self) -> bool:
        """Whether it drops what is not drawn."""
        return self.k is not None or self.keep is not None

    def bound(self, columns: Collection[str]) -> Stage:
        if not self.paths and not self.texts:  # only now, so that a recipe can leave them to those who run it
            raise RecipeError("dsir: give `targets`, files of documents like those that are wanted, or `texts`")
        return self

    def reads(self) -> tuple[str, ...]:
        return () if self.draws else ("text",)

    def fit_reads(self) -> tuple[str, ...]:
        return ("id", "text") if self.draws else ("text",)

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.float64())])

    def reasons(self) -> tuple[str, ...]:
        return ("dsir.not_drawn", "dsir.too_short") if self.draws else ()

    def files(self) -> tuple[str, ...]:
        return reference.files(self.paths, "dsir")

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        fit = [Step("counts", partial(_counts, self), reads=("text",)), Step("ratios", partial(_ratios, self))]
        if not self.draws:
            return fit
        weigh = Step("weigh", partial(_weigh, self), reads=("id", "text"))
        return [*fit, *ranks.steps(self, weigh, partial(_target, self), n_shards, n_docs, 1)]

    def open(self, task: Task) -> BatchFn:
        if self.draws:
            weighed = read_table(_weighed(self, task))
            return partial(self._draw, weighed, ranks.keys_of(task.state(self)), task)
        return partial(self._annotate, task.state(self)["ratio"].to_numpy(), task)

    def _annotate(self, ratios: np.ndarray, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        weights, _ = self._score(ratios, batch["text"])
        return with_columns(batch, {self.into: _column(weights, task)})

    def _draw(self, weighed: pa.Table, cut: np.ndarray, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        hit, at = find_rows(weighed[ROW].to_numpy(), batch[ROW].to_numpy())
        if not hit.all():
            raise StageError(f"dsir: {int((~hit).sum())} documents were not there when weights were fitted")
        mine = weighed.take(pa.array(at))
        weights, words, hashes = (mine[c].to_numpy() for c in ("weight", "words", "hash"))
        short = (words < self.min_tokens) | np.isnan(weights)
        order = self._order(weights, hashes)
        drawn = ~short
        if len(cut):
            keys = self._keys(order[drawn], hashes[drawn], batch[ROW].to_numpy()[drawn], task.shard or 0)
            drawn[drawn] = ranks.before(keys, np.repeat(cut[:1], len(keys)))
        reason = pc.if_else(pa.array(short), "dsir.too_short", pa.array(["dsir.not_drawn"] * len(short), pa.string()))
        columns = {
            self.into: _column(weights, task),
            REASON: pc.if_else(pa.array(drawn), pa.scalar(None, pa.string()), reason),
            "_value": pa.array(np.where(short, words, order), pa.float64(), mask=drawn),
        }
        return with_columns(batch, columns)

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

    def _keys(self, order: np.ndarray, hashes: np.ndarray, rows: np.ndarray, shard: int) -> np.ndarray:
        address = np.uint64(shard) << np.uint64(32) | rows.astype(np.uint64)
        return ranks.pack(0, ~ordered_bits(pa.array(order, pa.float64())), hashes, address)


def _column(weights: np.ndarray, task: Task) -> pa.Array:
    missing = np.isnan(weights)
    if missing.any():
        task.count("documents without words, and so without a weight", int(missing.sum()))
    return pa.array(weights, mask=missing)


# --------------------------------------------------------------------------------------------- the steps of the fit


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _weighed(stage: Dsir, task: Task) -> Path:
    return task.folder(stage) / "weighed" / _name(task)


def _ratio_file(stage: Dsir, task: Task) -> Path:
    return task.folder(stage) / ("ratios.parquet" if stage.draws else "state.parquet")


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
    """The weights of the documents of one shard, and the keys of those that may be drawn."""
    ratios = read_table(_ratio_file(stage, task))["ratio"].to_numpy()
    keys = [ranks.pack(0, [], [], [])]
    schema = pa.schema([(ROW, pa.uint32()), ("weight", pa.float64()), ("words", pa.int64()), ("hash", pa.uint64())])
    with TableWriter(_weighed(stage, task), schema, codec="lz4") as writer:
        for batch in batches:
            weights, words = stage._score(ratios, batch["text"])
            ids = pc.fill_null(batch["id"], "").to_pylist()
            hashes = np.array([xxhash.xxh3_64_intdigest(name.encode(), stage.seed) for name in ids], np.uint64)
            writer.write(pa.RecordBatch.from_arrays([batch[ROW], *map(pa.array, (weights, words, hashes))], schema=schema))
            may = (words >= stage.min_tokens) & ~np.isnan(weights)
            order = stage._order(weights[may], hashes[may])
            keys.append(stage._keys(order, hashes[may], batch[ROW].to_numpy()[may], task.shard or 0))
    found = np.concatenate(keys)
    ranks.write_keys(task.folder(stage), _name(task), found, np.ones(len(found), np.int64), 1, {})


def _target(
    stage: Dsir, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many documents are drawn."""
    if stage.k is not None:
        wanted = np.minimum(totals, min(stage.k, 1 << 62))
    else:
        wanted = np.array([int(Fraction(repr(stage.keep)) * total) for total in totals.tolist()], np.int64)
    return np.arange(len(groups)), np.zeros(len(groups), np.int64), wanted
