"""Weights for trainers, out of the losses of a model: what is learnt already counts less."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import fit
from curate.errors import RecipeError, StageError
from curate.stage import ROW, Batches, BatchFn, GlobalStage, Step, Task, with_columns
from curate.storage import read_partition, read_table, write_partitioned, write_table

STRATEGIES = ("linupper", "mid", "quadratic", "extremes", "upper")
FLOOR = 1e-6  # under a difference of losses, so that equal ones are no division by zero
STEEPEST = 300  # of an exponent: its square is still a number of double precision
LARGEST = 1e300  # a loss beyond is none
DOCS_PER_PART = 1 << 20  # of the documents that are drawn into batches


@dataclass(frozen=True, kw_only=True)
class LossWeights(GlobalStage):
    """Writes how much a trainer that reweights should make of each document, by the loss of a model on it.

    column: the loss, summed over the tokens of a document, as the stage `loss` writes it. tokens: the column of how many tokens
    that are; empty where `column` is a mean per token already. The mean loss l of a document is put between the lowest and the
    highest of its group, h = delta (2 l - lmax - lmin) / (lmax - lmin), and the weight is the softmax of f(h) / r in the group.

    strategy: f. `linupper`: min(h + delta, delta), which takes weight from what has a low loss and gives none to the highest,
    among which noise is; the best by the paper. `upper`: (h + delta) / 2, the higher the more. `extremes`: |h|. `mid`, or
    `quadratic`: 1 - h^2 / delta^2, the middle. delta: how far apart f may be. r: the larger, the nearer to uniform (`kl_reg` of
    the paper's code). The highest weight is exp(delta / r) times the lowest, or less: e by default.

    batch: 0 makes the corpus one group: then the weight of a document is a function of its loss, whatever a trainer draws
    beside it. That is the default since a trainer shuffles for itself. A number makes groups of so many documents, as the paper
    has them, a global batch each: documents in the order of a hash of (`seed`, id), `batch` at a time; the last may be smaller.
    That is meant for trainers that draw those batches, whose numbers are then written too.
    scale: `mean` gives weights whose mean in a group is 1, to be multiplied with losses that are averaged as ever (the factor N
    of the paper's loss); `sum` gives the w of the paper, which add up to 1 in a group. into: the column.

    Columns written: `into` (float64), and with `batch` `into_batch` (int64, from 0); null, and counted, for a document without
    a loss (no value, or no tokens) or with one that is not a finite number: such are in no group. Where all losses of a group
    are equal, so are the weights. A note says how many equal documents the weights are worth: the effective sample size
    1 / sum(w^2), added up over groups. Reasons: none.

    Weights are for the checkpoint whose losses they are made of, and grow old while a model learns: the paper makes new ones at
    every step, after a burn-in without any. Its factor for the share of a document in the tokens of a batch is left to the
    trainer, which averages over tokens. Sums are exact, so shards, batches and workers change no bit.

    Source: dynamic loss-based reweighting (Sow et al. 2025, arXiv:2502.06733); groups and the mean of 1 are own.

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["a", "b", "c", "d"], "nll": [1.0, 8.0, 9.0, None], "nll_tokens": [1, 2, 1, 0]})
    >>> weights = LossWeights(scale="sum")(docs).kept["sample_weight"].to_pylist()  # means 1, 4, 9: h is -1, -1/4, 1
    >>> [weight and round(weight, 4) for weight in weights]
    [0.1714, 0.3628, 0.4658, None]
    """

    example: ClassVar[dict[str, Any]] = {}

    column: str = "nll"
    tokens: str = "nll_tokens"
    strategy: Literal["linupper", "mid", "quadratic", "extremes", "upper"] = "linupper"
    delta: float = 1.0
    r: float = 1.0
    batch: int = 0
    scale: Literal["mean", "sum"] = "mean"
    into: str = "sample_weight"
    seed: int = 42

    def __post_init__(self) -> None:
        if not self.column:
            raise RecipeError("loss_weights: column is empty; name the column of a loss, such as nll")
        if self.strategy not in STRATEGIES:
            raise RecipeError(f"loss_weights: strategy is {self.strategy!r}; it is one of {', '.join(STRATEGIES)}")
        if self.scale not in ("mean", "sum"):
            raise RecipeError(f"loss_weights: scale is {self.scale!r}; it is 'mean' or 'sum'")
        if not (0 < self.delta < math.inf and 0 < self.r < math.inf):
            raise RecipeError(f"loss_weights: delta is {self.delta} and r is {self.r}; both are above 0")
        if self.highest / self.r > STEEPEST:
            raise RecipeError(
                f"loss_weights: r is {self.r}, so small that few documents have all weight; at least {self.least}"
            )
        if self.batch < 0:
            raise RecipeError(
                f"loss_weights: batch is {self.batch}; give documents of a batch, or 0 for the corpus as one group"
            )
        if not self.into or self.into.startswith("_") or self.into in ("text", self.column, self.tokens):
            raise RecipeError(f"loss_weights: into is {self.into!r}; name a column to be written, such as sample_weight")

    @property
    def highest(self) -> float:
        """The highest f that there may be; the lowest is 0."""
        return 1.0 if self.strategy in ("mid", "quadratic") else self.delta

    @property
    def least(self) -> float:
        """The smallest `r`."""
        return self.highest / STEEPEST

    def reads(self) -> tuple[str, ...]:
        return (self.column, self.tokens) if self.tokens else (self.column,)

    def fit_reads(self) -> tuple[str, ...]:
        return ("id", *self.reads()) if self.batch else self.reads()

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.float64()), *([(f"{self.into}_batch", pa.int64())] if self.batch else [])])

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        if not self.batch:
            return [
                Step("ends", partial(_ends, self), reads=self.fit_reads()),
                Step("range", partial(_range, self)),
                Step("sums", partial(_sums, self), reads=self.fit_reads()),
                Step("state", partial(_state, self)),
            ]
        bits = max(0, (n_docs - 1) // DOCS_PER_PART).bit_length()
        return [
            Step("places", partial(_places, self, bits), reads=self.fit_reads()),
            Step("counts", partial(_counts, self, bits)),
            Step("weights", partial(_weights, self), tasks=1 << bits),
            Step("deliver", partial(fit.deliver, self, 1 << bits), tasks=fit.shard_groups(n_shards)),
            Step("state", partial(_worth, self, bits)),
        ]

    def open(self, task: Task) -> BatchFn:
        state = read_table(task.folder(self) / "state.parquet").to_pylist()[0]
        if not task.shard and state["documents"]:  # once in a run
            task.count("equal documents that the weights are worth (effective sample size)", round(state["effective"]))
        if not self.batch:
            return partial(self._process, state, None, task)
        rows = read_table(task.folder(self) / "rows" / task.shards[task.shard or 0])
        return partial(self._process, state, rows if "weight" in rows.column_names else _DECIDED.empty_table(), task)

    def _process(self, state: dict[str, Any], rows: pa.Table | None, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        losses, missing = self.mean_losses(batch)
        wrong = ~missing & np.isnan(losses)
        for many, what in ((missing, "documents without a loss"), (wrong, "documents with a loss that is not a number")):
            if many.any():
                task.count(f"{what}, and so without a weight", int(many.sum()))
        known = ~np.isnan(losses)
        if rows is None:
            weights = np.zeros(len(losses))
            if known.any():
                weights[known] = self.raised(losses[known], state["low"], state["high"]) / state["sum"]
            weights *= state["documents"] if self.scale == "mean" else 1
            return with_columns(batch, {self.into: pa.array(weights, mask=~known)})
        hit, at = fit.find_rows(rows["row"].to_numpy(), batch[ROW].to_numpy())
        if (hit != known).any():
            raise StageError(f"loss_weights: {int((hit != known).sum())} documents were not there when batches were drawn")
        names = ((self.into, "weight"), (f"{self.into}_batch", "batch"))
        found = rows.take(pa.array(at, mask=~hit))
        return with_columns(batch, {name: found[held].combine_chunks() for name, held in names})

    def mean_losses(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """(float64 mean loss, NaN where there is none; bool where none was given) of each document."""
        from curate.stages.quantile import as_number

        columns = []
        for name in self.reads():
            values = pc.cast(as_number(batch[name], "loss_weights"), pa.float64(), safe=False)
            columns.append(values.to_numpy(zero_copy_only=False))
        missing = np.asarray(pc.is_null(batch[self.column]))
        losses = columns[0].copy()
        if self.tokens:
            missing = missing | ~(columns[1] > 0)
            with np.errstate(invalid="ignore"):  # inf of inf tokens is no loss either
                losses = losses / np.where(missing, 1, columns[1])
        losses[missing | ~(np.abs(losses) < LARGEST)] = np.nan
        return losses, missing

    def raised(self, losses: np.ndarray, low: float, high: float) -> np.ndarray:
        """exp(f / r) of mean losses (float64) in a group with this lowest and highest, over the highest that it may be."""
        h = self.delta * ((losses - low) - (high - losses)) / max(high - low, FLOOR)
        if self.strategy == "linupper":
            f = np.minimum(h + self.delta, self.delta)
        elif self.strategy == "upper":
            f = 0.5 * h + 0.5 * self.delta
        elif self.strategy == "extremes":
            f = np.abs(h)
        else:
            f = 1 - (h / self.delta) ** 2
        return np.exp((f - self.highest) / self.r)


# --------------------------------------------------------------------------------------------- one group

_SCALE = 1200  # bits behind the point: the square of the smallest number that is added up has 866 before its own 53


def exact_sum(values: np.ndarray) -> int:
    """The sum of numbers (float64, 0 to 1, none but 0 below 2^-1000), times 2^1200: exact, so that no order matters."""
    fractions, exponents = np.frexp(values)
    whole = (fractions * (1 << 53)).astype(np.int64)
    total = 0
    for exponent in np.unique(exponents).tolist():
        mine = whole[exponents == exponent]
        high, low = int((mine >> 27).sum()), int((mine & ((1 << 27) - 1)).sum())  # neither runs over
        total += ((high << 27) + low) << (_SCALE + exponent - 53)
    return total


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _losses(stage: LossWeights, batches: Batches) -> Iterator[np.ndarray]:
    for batch in batches:
        losses, _ = stage.mean_losses(batch)
        yield losses[~np.isnan(losses)]


def _ends(stage: LossWeights, task: Task, batches: Batches) -> None:
    """The lowest and the highest loss of a shard."""
    ends = [np.array([found.min(), found.max()]) for found in _losses(stage, batches) if len(found)]
    both = np.concatenate([np.empty(0), *ends])
    table = pa.table({"low": both.min(initial=math.inf, keepdims=True), "high": both.max(initial=-math.inf, keepdims=True)})
    write_table(task.folder(stage) / "ends" / _name(task), table)


def _range(stage: LossWeights, task: Task) -> None:
    """The lowest and the highest loss of all."""
    tables = [read_table(task.folder(stage) / "ends" / name) for name in task.shards]
    low = min((t["low"][0].as_py() for t in tables), default=math.inf)
    high = max((t["high"][0].as_py() for t in tables), default=-math.inf)
    write_table(task.folder(stage) / "range.parquet", pa.table({"low": [low], "high": [high]}))


def _sums(stage: LossWeights, task: Task, batches: Batches) -> None:
    """Documents of a shard, the sum of what their losses are raised to, and of its squares."""
    between = read_table(task.folder(stage) / "range.parquet").to_pylist()[0]
    documents = total = squares = 0
    for found in _losses(stage, batches):
        raised = stage.raised(found, between["low"], between["high"]) if len(found) else found
        documents += len(found)
        total += exact_sum(raised)
        squares += exact_sum(raised * raised)
    table = pa.table({"documents": [documents], "sum": [hex(total)], "squares": [hex(squares)]})
    write_table(task.folder(stage) / "sums" / _name(task), table)


def _state(stage: LossWeights, task: Task) -> None:
    folder = task.folder(stage)
    found = [read_table(folder / "sums" / name).to_pylist()[0] for name in task.shards]
    total, squares = (sum(int(f[name], 16) for f in found) for name in ("sum", "squares"))
    about = {
        **read_table(folder / "range.parquet").to_pylist()[0],
        "documents": sum(f["documents"] for f in found),
        "sum": total / (1 << _SCALE),
        "effective": total * total / (squares << _SCALE) if squares else 0.0,
    }
    write_table(folder / "state.parquet", pa.Table.from_pylist([about]))


# --------------------------------------------------------------------------------------------- batches

_PLACE = pa.schema([("hash", pa.uint64()), ("shard", pa.uint32()), ("row", pa.uint32()), ("loss", pa.float64())])
_DECIDED = pa.schema([("shard", pa.uint32()), ("row", pa.uint32()), ("weight", pa.float64()), ("batch", pa.int64())])


def _places(stage: LossWeights, bits: int, task: Task, batches: Batches) -> None:
    """The documents of a shard that have a loss, by the first bits of their hash."""
    tables = [_PLACE.empty_table()]
    for batch in batches:
        losses, _ = stage.mean_losses(batch)
        known = np.flatnonzero(~np.isnan(losses))
        ids = pc.fill_null(batch["id"], "").take(pa.array(known)).to_pylist()
        hashes = np.array([xxhash.xxh3_64_intdigest(name.encode(), stage.seed) for name in ids], np.uint64)
        shard = np.full(len(known), task.shard or 0, np.uint32)
        tables.append(pa.table([hashes, shard, batch[ROW].to_numpy()[known], losses[known]], schema=_PLACE))
    table = pa.concat_tables(tables).combine_chunks()
    part = _part(table["hash"].to_numpy(), bits)
    table = table.take(pa.array(np.argsort(part, kind="stable")))
    counts = np.bincount(part, minlength=1 << bits)
    first = np.append(0, np.cumsum(counts))
    pieces = ((p, table.slice(first[p], counts[p])) for p in np.flatnonzero(counts).tolist())
    write_partitioned(task.folder(stage) / "places" / _name(task), _PLACE, pieces)
    write_table(task.folder(stage) / "counts" / _name(task), pa.table({"documents": counts}))


def _part(hashes: np.ndarray, bits: int) -> np.ndarray:
    return (hashes >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(hashes), np.int64)


def _counts(stage: LossWeights, bits: int, task: Task) -> None:
    """Documents of each part, over all shards."""
    total = np.zeros(1 << bits, np.int64)
    for name in task.shards:
        total += read_table(task.folder(stage) / "counts" / name)["documents"].to_numpy()
    write_table(task.folder(stage) / "counts.parquet", pa.table({"documents": total}))


def _part_of(stage: LossWeights, task: Task, part: int) -> pa.Table:
    """The documents of a part in the order in which they are drawn."""
    tables = [_PLACE.empty_table(), *(read_partition(task.folder(stage) / "places" / name, part) for name in task.shards)]
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in ("hash", "shard", "row")]).combine_chunks()


def _weights(stage: LossWeights, task: Task) -> None:
    """The weights in the batches that begin in a part; the last of them may go on in those behind it."""
    counts = read_table(task.folder(stage) / "counts.parquet")["documents"].to_numpy()
    before = int(counts[: task.rank].sum())
    behind = before + int(counts[task.rank])
    begin = -(-before // stage.batch) * stage.batch
    end = min(-(-behind // stage.batch) * stage.batch, int(counts.sum()))
    tables, part = [_part_of(stage, task, task.rank).slice(begin - before)], task.rank
    while begin < behind < end:
        part += 1
        tables.append(_part_of(stage, task, part).slice(0, end - behind))
        behind += len(tables[-1])
    table = pa.concat_tables(tables).combine_chunks()
    losses = table["loss"].to_numpy()
    weights, number, effective = np.empty(len(losses)), np.empty(len(losses), np.int64), []
    for at in range(0, len(losses), stage.batch):
        here = losses[at : at + stage.batch]
        raised = stage.raised(here, here.min(), here.max())
        total = math.fsum(raised)
        effective.append(total * total / math.fsum(raised * raised))
        weights[at : at + len(here)] = raised / total * (len(here) if stage.scale == "mean" else 1)
        number[at : at + len(here)] = (begin + at) // stage.batch
    decided = pa.table([table["shard"], table["row"], pa.array(weights), pa.array(number)], schema=_DECIDED)
    fit.write_decisions(stage, task, decided)
    worth = pa.table({"documents": [len(losses)], "effective": [math.fsum(effective)]})
    write_table(_worth_file(stage, task, task.rank), worth)


def _worth_file(stage: LossWeights, task: Task, part: int) -> Path:
    return task.folder(stage) / "worth" / f"{part:05d}.parquet"


def _worth(stage: LossWeights, bits: int, task: Task) -> None:
    """What all batches together are worth."""
    found = [read_table(_worth_file(stage, task, part)).to_pylist()[0] for part in range(1 << bits)]
    about = {"documents": sum(f["documents"] for f in found), "effective": math.fsum(f["effective"] for f in found)}
    write_table(task.folder(stage) / "state.parquet", pa.Table.from_pylist([about]))
