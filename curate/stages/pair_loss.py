"""What two language models lose on each document, one of the pool and one of a target: what CoLoR-Filter chooses by."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import lm
from curate.encoders import folder_of, require
from curate.errors import RecipeError, StageError
from curate.lm import pair
from curate.selection import hashes_of, target_files, target_texts
from curate.stage import ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.stages.loss import cached, check_how, check_model, lists, nothing
from curate.storage import (
    atomic_folder,
    canonical,
    read_json,
    read_partition,
    read_table,
    write_partitioned,
    write_table,
)

PART_BYTES = 64 << 20  # of the sample of the pool that are held at once
MOST_PARTS = 1 << 12
TOKEN_BYTES = 4
_OTHER_TOKENS = (
    "pair_loss: {} and {} cut texts into different tokens, so that what they lose cannot be compared: train one from the other"
)
_PLACES = pa.schema([("row", pa.uint32()), ("hash", pa.uint64()), ("tokens", pa.int64())])
_TEXTS = pa.schema([("hash", pa.uint64()), ("fold", pa.uint8()), ("row", pa.uint32()), ("text", pa.string())])


@dataclass(frozen=True, kw_only=True)
class PairLoss(GlobalStage):
    """Writes what a prior and a conditional language model lose on each document and on each window of it.

    target: files of texts like those that are wanted: JSONL, Parquet or text files, folders, globs, or run folders. A file
    without the column is one of questions: `question` and the right one of `choices` by `answer` (its text, letter or index),
    or `answer` itself. texts: such texts themselves. column: of the texts in these files.

    models: what is trained in the run: "ngram" (in seconds and without torch), or a transformer of the size "1m", "10m", "60m"
    or "150m" (the extra `lm`). The prior learns from a sample of the pool, and the conditional is made of it with the target:
    n-gram models by a mixture with one of the target, transformers by reading the target once with a new optimiser. sample:
    tokens of the pool that the prior learns from, documents of the lowest hash of (seed, id); 0: 20 million for n-gram models,
    5 million for 1m, and 20 for each parameter of the others. prior, conditional: folders of models, or transformers by their
    name on the hub, instead of trained ones; a prior alone is adapted to the target here. They need one tokenizer.

    folds: into so many parts the pool is divided by hash, each scored by a pair whose prior has not seen it; 0: 2 for n-gram
    models, 1 for transformers. An n-gram prior knows by heart what it has counted, so that the target seems to have nothing to
    add: with one fold and a sample of a quarter of the pool, one token in 16 was chosen with 4% of the wanted documents that
    the prior had counted, and 77% of the others; with two folds it was 50% and 53%. score: "both", or "conditional" where the
    prior is not asked for. window: tokens that are read at a time. device: `auto` (a GPU if there is one), `cpu`, `cuda` or
    `mps`. seed: of the sample and of the training.

    prefix: before the names of the columns. Columns written: `nll_prior`, `nll_conditional` (float64: the sum of -ln p over the
    tokens of the document), `loss_tokens` (int32: how many these are), and by windows `window_prior`, `window_conditional`
    (lists of float32), `window_tokens` (of uint16), `window_ends` (of uint32: at which byte of the text each ends); with
    `score: conditional` those without the prior. All are null for a text without tokens, which is counted. Reasons: none.

    A run keeps trained models in `index/<stage>`, which `prior` and `conditional` take. Training goes on where it was killed.
    Documents of the pool that are targets as well are scored by a conditional model that has learned from them, and so they
    come first.

    Source: CoLoR-Filter (Brandfonbrener et al. 2024, arXiv:2406.10670); folds are own.

    >>> docs = [t for i in range(20) for t in (f"cell number {i} divides in the lab", f"buy phone number {i} now and win")]
    >>> wanted = tuple(f"the cell divides in the lab, and cell {i} divides again" for i in range(4))
    >>> kept = PairLoss(texts=wanted)(docs).kept
    >>> gain = [a - b for a, b in zip(kept["nll_prior"].to_pylist(), kept["nll_conditional"].to_pylist())]
    >>> all(cell > phone for cell, phone in zip(gain[::2], gain[1::2]))
    True
    """

    example: ClassVar[dict[str, Any]] = {"texts": ("It was a bright cold day in April, and a clock struck thirteen.",)}

    target: str | tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    column: str = "text"
    models: str = pair.NGRAM
    prior: str = ""
    conditional: str = ""
    sample: int = 0
    folds: int = 0
    score: Literal["both", "conditional"] = "both"
    window: int = lm.WINDOW
    device: str = "auto"
    prefix: str = ""
    seed: int = 42

    def __post_init__(self) -> None:
        if not all(self.paths) or not self.column:
            raise RecipeError("pair_loss: target and column must not be empty strings")
        if self.trains:
            pair.check(self.models, "pair_loss")
        if self.conditional and self.score == "both" and not self.prior:
            raise RecipeError("pair_loss: `conditional` needs the `prior` that it was made from")
        if self.sample < 0 or not 0 <= self.folds <= 255:
            raise RecipeError("pair_loss: sample is a number of tokens, and folds at most 255; neither is negative")
        if self.score not in ("both", "conditional"):
            raise RecipeError(f"pair_loss: score is {self.score!r}; it is 'both' or 'conditional'")
        check_how("pair_loss", self.device, window=self.window)
        if self.prefix.startswith("_"):
            raise RecipeError(f"pair_loss: prefix is {self.prefix!r}; names of columns do not begin with an underscore")

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the targets are."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def trains(self) -> bool:
        """Whether a model is trained here."""
        return not self.conditional

    @property
    def given(self) -> tuple[str, ...]:
        """The models that are there already."""
        return tuple(filter(None, ("" if self.score == "conditional" and self.conditional else self.prior, self.conditional)))

    @property
    def parts(self) -> int:
        """Into how many parts documents are divided, each with a pair of its own."""
        return 1 if self.prior or not self.trains else self.folds or pair.FOLDS.get(self.models, 1)

    @property
    def budget(self) -> int:
        """Tokens of the pool that the prior learns from."""
        return self.sample or pair.SAMPLE[self.models]

    def bound(self, columns: Collection[str]) -> Stage:
        if self.trains and not self.paths and not self.texts:  # only now, so that a recipe can leave them to those who run it
            raise RecipeError("pair_loss: give `target`, files of texts like those that are wanted, or `texts`")
        kinds = {lm.kind(model) for model in self.given} | ({_kind(self.models)} if self.trains and not self.prior else set())
        if len(kinds) > 1:
            raise RecipeError(
                "pair_loss: an n-gram model and a transformer cannot be compared: give `prior` and `conditional` of one kind"
            )
        if "causal" in kinds:
            require(("torch", "transformers"), "lm", "stage 'pair_loss'")
        for model in self.given:
            check_model("pair_loss", model, self.window)
        if len({_tokens_of(model) for model in self.given}) > 1:
            raise RecipeError(_OTHER_TOKENS.format(*self.given))
        return self

    def reads(self) -> tuple[str, ...]:
        return ("text", "id") if self.parts > 1 else ("text",)

    def fit_reads(self) -> tuple[str, ...]:
        return ("id", "tokens", "text") if self.trains and not self.prior else ()

    def writes(self) -> pa.Schema:
        prior = self.score == "both"
        columns = [
            *([("nll_prior", pa.float64())] if prior else []),
            ("nll_conditional", pa.float64()),
            ("loss_tokens", pa.int32()),
            *([("window_prior", pa.list_(pa.float32()))] if prior else []),
            ("window_conditional", pa.list_(pa.float32())),
            ("window_tokens", pa.list_(pa.uint16())),
            ("window_ends", pa.list_(pa.uint32())),
        ]
        return pa.schema([(self.prefix + name, kind) for name, kind in columns])

    def files(self) -> tuple[str, ...]:
        targets = target_files(self.paths, "pair_loss", self.column) if self.trains else ()
        return (*targets, *(file for model in self.given for file in lm.files(model, "pair_loss")))

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        if not self.trains:
            return [Step("nothing", nothing)]  # models that are there need no fit
        train = Step("train", partial(_train, self))
        if self.prior:
            return [train]
        return [
            Step("hashes", partial(_hashes, self), reads=("id", "tokens")),
            Step("choose", partial(_choose, self)),
            Step("gather", partial(_gather, self), reads=("text", "id"), rows=partial(_chosen_rows, self)),
            train,
        ]

    def open(self, task: Task) -> BatchFn:
        if not self.trains:
            pairs = [self.given]
        else:
            folder = task.folder(self)
            if not task.shard:  # once for the run, since the notes of shards are added up
                for said in read_table(folder / "state.parquet").to_pylist():
                    task.count(said["note"], said["n"])
            prior = [self.prior or str(folder / _pair(part) / pair.PRIOR) for part in range(self.parts)]
            conditional = [str(folder / _pair(part) / pair.CONDITIONAL) for part in range(self.parts)]
            pairs = list(zip(prior, conditional, strict=True)) if self.score == "both" else [(c,) for c in conditional]
        return partial(self._process, task, pairs)

    def _process(self, task: Task, pairs: list[tuple[str, ...]], batch: pa.RecordBatch) -> pa.RecordBatch:
        part = _part(self, batch)
        columns: dict[str, pa.Array] = {}
        found = [self._scored(task, pairs[i], batch["text"].filter(pa.array(part == i))) for i in range(len(pairs))]
        at = np.argsort(np.argsort(part, kind="stable"), kind="stable")  # back to the order of the batch
        for name in self.writes().names:
            columns[name] = pa.concat_arrays([one[name] for one in found]).take(pa.array(at))
        if without := columns[f"{self.prefix}loss_tokens"].null_count:
            task.count("documents without tokens, of which models say nothing", without)
        return with_columns(batch, columns)

    def _scored(self, task: Task, models: tuple[str, ...], texts: pa.Array) -> dict[str, pa.Array]:
        """The columns of texts, by one pair."""
        found = []
        for model in models:
            found.append(cached(task, model, self.device, "auto", "pair_loss").losses(texts, self.window))
        first = found[0]
        for losses, model in zip(found, models, strict=True):
            if not np.isfinite(losses.nll).all():
                raise StageError(f"pair_loss: {model} gives a loss that is no number: its weights are damaged")
            same = [np.array_equal(getattr(losses, name), getattr(first, name)) for name in ("bounds", "ends", "tokens")]
            if not all(same):
                raise StageError(_OTHER_TOKENS.format(models[0], model))
        counts = first.documents()[1]
        missing = counts == 0
        columns = {"loss_tokens": pa.array(counts, pa.int32(), mask=missing)}
        columns["window_tokens"] = lists(first.bounds, first.tokens, pa.uint16(), missing)
        columns["window_ends"] = lists(first.bounds, first.ends, pa.uint32(), missing)
        names = (pair.PRIOR, pair.CONDITIONAL) if len(models) == 2 else (pair.CONDITIONAL,)
        for name, losses in zip(names, found, strict=True):
            columns[f"nll_{name}"] = pa.array(losses.documents()[0], pa.float64(), mask=missing)
            columns[f"window_{name}"] = lists(first.bounds, losses.nll, pa.float32(), missing)
        return {self.prefix + name: values for name, values in columns.items()}


def _tokens_of(model: str) -> str:
    """Equal for models that cut texts into the same tokens, as far as that can be seen without loading them."""
    if lm.kind(model) == pair.NGRAM:
        return str(read_json(Path(model) / "ngram.json").get("units"))
    path = folder_of(model, "pair_loss") / "tokenizer.json"
    return hashlib.sha256(canonical(read_json(path).get("model"))).hexdigest() if path.is_file() else ""


def _kind(models: str) -> str:
    return "ngram" if models == pair.NGRAM else "causal"


def _pair(part: int) -> str:
    """The folder of the pair that scores a part of the pool."""
    return f"pair-{part}"


def _part(stage: PairLoss, batch: pa.RecordBatch) -> np.ndarray:
    """By which pair each document is scored (int64)."""
    if stage.parts == 1:
        return np.zeros(batch.num_rows, np.int64)
    hashes = hashes_of(batch["id"], stage.seed, "pair_loss.fold")
    return (hashes % np.uint64(stage.parts)).astype(np.int64)


# --------------------------------------------------------------------------------------------- the steps of the fit


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _hashes(stage: PairLoss, task: Task, batches: Batches) -> None:
    """Documents of a shard that may be in the sample: those that would be, were there no other shard."""
    held, size = [_PLACES.empty_table()], 0
    for batch in batches:
        tokens = pc.fill_null(batch["tokens"], 0).cast(pa.int64())
        hashes = pa.array(hashes_of(batch["id"], stage.seed, "pair_loss.sample"))
        held.append(pa.table([batch[ROW], hashes, tokens], schema=_PLACES))
        size += batch.num_rows
        if size > 1 << 20:
            held = [_lowest(stage, held)]
            size = held[0].num_rows // 2  # where all of them may be needed, not at every batch
    write_table(task.folder(stage) / "hashes" / _name(task), _lowest(stage, held), codec="lz4")


def _lowest(stage: PairLoss, tables: list[pa.Table]) -> pa.Table:
    """The documents of the lowest hashes whose tokens come to the budget; the last may exceed it, so that there is one."""
    table = pa.concat_tables(tables).combine_chunks()
    table = table.take(pa.array(np.argsort(table["hash"].to_numpy(), kind="stable")))
    before = np.append(0, np.cumsum(table["tokens"].to_numpy()))[:-1]
    return table.slice(0, int(np.searchsorted(before, stage.budget, side="left")))


def _choose(stage: PairLoss, task: Task) -> None:
    """The sample, by shard: rows, and in which part of it each document comes."""
    folder = task.folder(stage)
    schema = _PLACES.append(pa.field("shard", pa.uint32()))
    held = schema.empty_table()
    for shard, name in enumerate(task.shards):
        table = read_table(folder / "hashes" / name)
        table = table.append_column(schema.field("shard"), pa.array(np.full(len(table), shard, np.uint32)))
        held = _lowest(stage, [held, table])
    parts = _sample_parts(stage)
    part = np.arange(len(held)) * parts // max(len(held), 1)
    held = held.append_column("part", pa.array(part, pa.uint32())).sort_by([("shard", "ascending"), ("row", "ascending")])
    at = np.searchsorted(held["shard"].to_numpy(), np.arange(len(task.shards) + 1))
    for shard, name in enumerate(task.shards):
        mine = held.slice(at[shard], at[shard + 1] - at[shard]).select(["row", "hash", "part"])
        write_table(folder / "chosen" / name, mine, codec="lz4")


def _sample_parts(stage: PairLoss) -> int:
    return min(max(stage.budget * TOKEN_BYTES // PART_BYTES, 1), MOST_PARTS)


def _chosen_rows(stage: PairLoss, task: Task) -> np.ndarray:
    return read_table(task.folder(stage) / "chosen" / _name(task))["row"].to_numpy()


def _gather(stage: PairLoss, task: Task, batches: Batches) -> None:
    """The texts of a shard that are in the sample, by part of it."""
    chosen = read_table(task.folder(stage) / "chosen" / _name(task))
    rows, hashes, parts = (chosen[c].to_numpy() for c in ("row", "hash", "part"))

    def found() -> Iterator[tuple[int, pa.Table]]:
        for batch in batches:
            at = np.searchsorted(rows, batch[ROW].to_numpy())
            fold = pa.array(_part(stage, batch), pa.uint8())
            table = pa.table([pa.array(hashes[at]), fold, batch[ROW], batch["text"]], schema=_TEXTS)
            for part in np.unique(parts[at]).tolist():
                yield part, table.filter(pa.array(parts[at] == part))

    write_partitioned(task.folder(stage) / "gather" / _name(task), _TEXTS, found())


@dataclass(frozen=True)
class _Sample:
    """The texts of the sample that a prior learns from, in the order of their hashes, as often as they are wanted."""

    stage: PairLoss
    task: Task
    part: int

    def __iter__(self) -> Iterator[pa.Array]:
        folder = self.task.folder(self.stage) / "gather"
        for number in range(_sample_parts(self.stage)):
            tables = [_TEXTS.empty_table(), *(read_partition(folder / name, number) for name in self.task.shards)]
            table = pa.concat_tables(tables).combine_chunks()
            order = np.argsort(table["hash"].to_numpy(), kind="stable")  # equal ones as they come
            if self.stage.parts > 1:
                order = order[table["fold"].to_numpy()[order] != self.part]
            if len(order):
                yield table["text"].combine_chunks().take(pa.array(order))


@dataclass(frozen=True)
class _Target:
    """The texts of the target, as often as they are wanted."""

    stage: PairLoss
    task: Task

    def __iter__(self) -> Iterator[pa.Array]:
        if self.stage.texts:
            yield pa.array(self.stage.texts, pa.string())
        yield from target_texts(self.stage.paths, "pair_loss", self.task, self.stage.column)


def _train(stage: PairLoss, task: Task) -> None:
    """The pairs, and what there is to say of them."""
    folder = task.folder(stage)
    target = _Target(stage, replace(task, counters={}))
    examples = 0
    for texts in target:
        examples += pc.sum(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0)).as_py()
    if not examples:
        where = ", ".join((*stage.paths, *(repr(text) for text in stage.texts)))[:200]
        found = "".join(f"; {n:,} {what}" for what, n in target.task.counters.items())
        raise StageError(f"pair_loss: the target holds no text ({where}{found}): give files with texts")
    notes = [("texts of the target that the conditional model learned from", examples), *target.task.counters.items()]
    for part in range(stage.parts):
        sample = _Sample(stage, task, part)
        if not stage.prior:
            documents = sum(len(texts) for texts in sample)
            if not documents:
                raise StageError(
                    "pair_loss: no document is left for the prior to learn from: look at the stages before it, or for a "
                    "handful of documents set `folds: 1`"
                )
            of = f" of part {part}" if stage.parts > 1 else ""
            notes.append((f"documents of the pool that the prior{of} learned from", documents))
        prior = Path(stage.prior) if stage.prior else None
        made = folder / _pair(part)
        pair.train_pair(
            stage.models,
            sample,
            target,
            made,
            seed=stage.seed,
            prior=prior,
            like=folder / _pair(0) / pair.PRIOR if part else None,
            window=stage.window,
            device=stage.device,
            progress=False,  # a run has bars of its own
        )
    if task.root is not None:
        _keep(stage, task)
    schema = pa.schema([("note", pa.string()), ("n", pa.int64())])
    write_table(folder / "state.parquet", pa.Table.from_pylist([{"note": t, "n": n} for t, n in notes], schema))


def _keep(stage: PairLoss, task: Task) -> None:
    """The models where people and other runs look for them: they outlive the scratch of the fit."""
    kept = task.kept(stage)
    for part in range(stage.parts):
        for name in (pair.PRIOR, pair.CONDITIONAL):
            made = task.folder(stage) / _pair(part) / name
            if not made.is_dir():
                continue
            place = kept / (name if stage.parts == 1 else f"{name}-{part}")
            with atomic_folder(place) as new:
                shutil.copytree(made, new, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> None:
    """A second name for a file that nobody changes, where the file system has such; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
