"""What a learner loses on documents as it comes to them, and what an irreducible model loses: what RHO-LOSS chooses by."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import lm, ranks
from curate.encoders import require
from curate.errors import RecipeError, StageError
from curate.fit import find_rows
from curate.lm import pair
from curate.rounds import STEP, Stepped, budgets
from curate.selection import ENDS, hashes_of, target_files
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, operational, with_columns
from curate.stages.loss import check_how, lists
from curate.stages.pair_loss import PairLoss, _pair, _part, _Target
from curate.storage import TableWriter, read_json, read_partition, read_table, write_json, write_partitioned

if TYPE_CHECKING:
    from curate.lm import Losses

ROUNDS = 10
PARTS = 64  # into which the texts that a learner is given are divided, by hash; one is held at once
PRIOR = "prior"
_BLOCKS = pa.schema([(ROW, pa.uint32()), (STEP, pa.int32()), ("hash", pa.uint64())])
_TEXTS = pa.schema([("hash", pa.uint64()), ("text", pa.string())])
_COLUMNS = pa.schema(
    [
        ("loss_current", pa.float64()),
        ("loss_irreducible", pa.float64()),
        ("loss_tokens", pa.int32()),
        (STEP, pa.int32()),
        ("window_current", pa.list_(pa.float32())),
        ("window_irreducible", pa.list_(pa.float32())),
        ("window_tokens", pa.list_(pa.uint16())),
        (ENDS, pa.list_(pa.uint32())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class RhoLoss(GlobalStage):
    """Writes what a learner loses on each document at the step at which it comes up, and what an irreducible model loses.

    The corpus is divided into blocks by a hash of (seed, id), one for each step. `rho` brings this stage along and chooses by
    its columns; its docstring says what mode, target, texts, column, irreducible, current, start, models, rounds, sample,
    folds, window, device and training_seed are. Without `current` the learner is trained here on what is chosen at each step,
    so this stage has to know how much that is: tau, keep, tokens, by and seed, which have to be those of `rho`; with `current`
    it does not look at them.

    Columns written: `loss_current`, `loss_irreducible` (float64: the sum of -ln p over the tokens of the document),
    `loss_tokens` (int32: how many these are), `step` (int32, from 1), and by windows `window_current`, `window_irreducible`
    (lists of float32), `window_tokens` (of uint16), `window_ends` (of uint32: at which byte of the text each ends). All are
    null for what was no candidate, all but `step` for a text without tokens, and those of the learner at the first step where
    it had learned nothing yet. Reasons: none.

    Source: RHO-LOSS (Mindermann et al. 2022, arXiv:2206.07137); blocks instead of batches are own.

    >>> docs = ["the cell divides and its nucleus divides", "buy now and win a free phone", "cells have a nucleus"] * 4
    >>> kept = RhoLoss(texts=("the nucleus of the cell", "cells divide"), rounds=3, tau=2)(docs).kept
    >>> sorted(set(kept["step"].to_pylist())), kept["loss_irreducible"].null_count
    ([1, 2, 3], 0)
    """

    example: ClassVar[dict[str, Any]] = {
        "texts": ("It was a bright cold day in April, and a clock struck thirteen.",),
        "tau": 2,
        "rounds": 2,
    }

    mode: Literal["down", "loss"] = "down"
    target: str | tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    column: str = "text"
    irreducible: str = ""
    current: str | tuple[str, ...] = ()
    start: str = ""
    models: str = pair.NGRAM
    rounds: int = ROUNDS
    sample: int = 0
    folds: int = 0
    window: int = lm.WINDOW
    device: str = operational("auto")
    training_seed: int = 42
    tau: float | None = None
    keep: float | None = None
    tokens: int | None = None
    by: Literal["document", "window"] = "document"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.mode not in ("down", "loss"):
            raise RecipeError(f"rho: mode is {self.mode!r}; it is 'down' or 'loss'")
        if not all(self.paths) or not all(self.checkpoints) or not self.column:
            raise RecipeError("rho: target, current and column must not be empty strings")
        if self.trains or not self.irreducible:
            pair.check(self.models, "rho")
        if not 1 <= self.rounds <= 1000:
            raise RecipeError(f"rho: rounds is {self.rounds}; give 1 to 1,000")
        if self.checkpoints and self.start:
            raise RecipeError("rho: `current` are the checkpoints of a learner, `start` is where one begins: give one of both")
        if self.start == PRIOR and (self.mode == "loss" or self.irreducible):
            raise RecipeError(
                "rho: `start: prior` is the prior of the model for the target, which is not trained here: name a folder"
            )
        check_how("rho", self.device, window=self.window)
        for stage in (self.choice, self.pair):  # which say what is wrong with their parameters
            stage.__post_init__()

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the target is, or the hold-out set."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The learner at each step, if it was trained elsewhere."""
        return (self.current,) if isinstance(self.current, str) else tuple(self.current)

    @property
    def trains(self) -> bool:
        """Whether the learner is trained here."""
        return not self.checkpoints

    @property
    def n_steps(self) -> int:
        """How many steps there are."""
        return len(self.checkpoints) or self.rounds

    @property
    def choice(self) -> _Choice:
        """What the learner is given of each block."""
        return _Choice(
            tau=self.tau, keep=self.keep, tokens=self.tokens, by=self.by, seed=self.seed, count=self.n_steps
        )  # fmt: skip

    @property
    def pair(self) -> PairLoss:
        """The stage whose conditional model is the irreducible one in mode `down`."""
        return PairLoss(
            target=self.target, texts=self.texts, column=self.column, models=self.models, sample=self.sample, folds=self.folds,
            window=self.window, device=self.device, seed=self.training_seed, score="conditional", prior=self.base,
        )  # fmt: skip

    @property
    def base(self) -> str:
        """The model that is there and of the same kind as the others: where a learner begins, or has come to."""
        return self.checkpoints[-1] if self.checkpoints else "" if self.start == PRIOR else self.start

    @property
    def adapts(self) -> bool:
        """Whether the irreducible model is a prior that is adapted to the target here."""
        return self.mode == "down" and not self.irreducible

    @property
    def given(self) -> tuple[str, ...]:
        """The models that are there already."""
        return tuple(dict.fromkeys(filter(None, (self.irreducible, *self.checkpoints, self.base))))

    @property
    def parts(self) -> int:
        """Into how many parts documents are divided, each with an irreducible model of its own."""
        return self.pair.parts if self.adapts else 1

    def bound(self, columns: Collection[str]) -> Stage:
        if not self.irreducible and not self.paths and not self.texts:
            what = {"down": "files of texts like those that are wanted", "loss": "files of texts that are held out"}[self.mode]
            raise RecipeError(f"rho: give `target`, {what}, or `texts`, or an `irreducible` model")
        if self.trains and not self.choice.chooses:
            raise RecipeError("rho: the learner is trained on what is chosen: give `tau`, `keep` or `tokens`")
        for model in self.given:
            lm.files(model, "rho")  # which says so where there is none
        kinds = {lm.kind(model) for model in self.given}
        if self.trains or not (self.irreducible or (self.adapts and self.base)):
            kinds.add("ngram" if self.models == pair.NGRAM else "causal")
        if len(kinds) > 1:
            raise RecipeError(
                "rho: an n-gram model and a transformer cannot be compared: give models of one kind, and `models` too"
            )
        if "causal" in kinds:
            require(("torch", "transformers"), "lm", "stage 'rho'")
        return self

    def reads(self) -> tuple[str, ...]:
        return ()

    def fit_reads(self) -> tuple[str, ...]:
        return "id", "tokens", "text"

    def writes(self) -> pa.Schema:
        return _COLUMNS

    def files(self) -> tuple[str, ...]:
        targets = () if self.irreducible else target_files(self.paths, "rho", self.column)
        return (*targets, *(file for model in self.given for file in lm.files(model, "rho")))

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        found = [Step("blocks", partial(_blocks, self), reads=("id", "tokens"))]
        if self.trains and self.choice.draws:
            draw = ranks.steps(self, found[0], partial(_candidates, self), n_shards, n_docs, 1)[1:]
            found += [
                replace(step, name=f"draw_{step.name}", fn=partial(_within, self, self, "draw", step.fn)) for step in draw
            ]
        if self.adapts:
            whole = self.pair  # a folder is found by the very object
            for step in whole.steps(n_shards, n_docs):
                inside = partial(_within, self, whole, "pair")
                rows = partial(inside, step.rows) if step.rows else None
                found.append(replace(step, name=f"pair_{step.name}", fn=partial(inside, step.fn), rows=rows))
        elif not self.irreducible:
            found.append(Step("irreducible", partial(_learn_held_out, self)))
        reads = ("id", "tokens", "text")
        for k in range(1, self.n_steps + 1):
            found.append(Step(f"score_{k}", partial(_score, self, k), reads=reads, rows=partial(_block, self, k)))
            if self.trains and k < self.n_steps:
                choice = self.choice
                cut = ranks.steps(choice, found[-1], partial(budgets, choice), n_shards, n_docs, 1)[1:]
                inside = partial(_within, self, choice, _round(k))
                found += [replace(step, name=f"{step.name}_{k}", fn=partial(inside, step.fn)) for step in cut]
                found.append(Step(f"texts_{k}", partial(_gather, self, k), reads=reads, rows=partial(_chosen_rows, self, k)))
                found.append(Step(f"learn_{k}", partial(_learn, self, k)))
        return found

    def open(self, task: Task) -> BatchFn:
        if not task.shard:
            for note, n in _notes(self, task):
                task.count(note, n)
        tables = [read_table(_scores(self, task, k)) for k in range(1, self.n_steps + 1)]
        state = pa.concat_tables(tables).sort_by(ROW).combine_chunks()
        return partial(_annotate, task, state)


@dataclass(frozen=True, kw_only=True)
class _Choice(Stepped):
    """What stays of each of `count` blocks."""

    count: int = 1

    @property
    def n_steps(self) -> int:
        return self.count


def _annotate(task: Task, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    hit, at = find_rows(state[ROW].to_numpy(), batch[ROW].to_numpy())
    found = state.select(_COLUMNS.names).take(pa.array(at, mask=~hit)).combine_chunks()
    columns = {name: _whole(found[name]) for name in _COLUMNS.names}
    without = pc.and_(pc.is_valid(columns[STEP]), pc.is_null(columns["loss_tokens"]))
    if n := pc.sum(without).as_py():
        task.count("documents without tokens, of which models say nothing", n)
    return with_columns(batch, columns)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


# --------------------------------------------------------------------------------------------- the steps of the fit


def _within(stage: RhoLoss, known: GlobalStage, sub: str, fn: Any, task: Task, *batches: Batches) -> Any:
    """A step of another stage in a folder within that of this one."""
    folder = task.folder(stage) / sub
    return fn(replace(task, folders=[(known, sub, folder)], root=None), *batches)


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _round(k: int) -> str:
    return f"round-{k:04d}"


def _scores(stage: RhoLoss, task: Task, k: int) -> Path:
    return task.folder(stage) / "scores" / f"{k:04d}" / _name(task)


def _blocks(stage: RhoLoss, task: Task, batches: Batches) -> None:
    """The step at which each document of a shard comes up, and its key for the draw of candidates."""
    keys, weights = [ranks.pack(0, [], [], [])], [np.empty(0, np.int64)]
    place = np.uint64(task.shard or 0) << np.uint64(32)
    with TableWriter(task.folder(stage) / "blocks" / _name(task), _BLOCKS, codec="lz4") as writer:
        for batch in batches:
            hashes = hashes_of(batch["id"], stage.seed)
            step = hashes_of(batch["id"], stage.seed, "rho.block") % np.uint64(stage.n_steps) + np.uint64(1)
            writer.write(pa.table([batch[ROW], pa.array(step.astype(np.int32)), pa.array(hashes)], schema=_BLOCKS))
            if stage.trains and stage.choice.draws:
                keys.append(_draw_keys(hashes, place, batch[ROW].to_numpy()))
                weights.append(pc.fill_null(batch["tokens"], 0).to_numpy(zero_copy_only=False).astype(np.int64))
    if stage.trains and stage.choice.draws:
        ranks.write_keys(task.folder(stage) / "draw", _name(task), np.concatenate(keys), np.concatenate(weights), 1, {})


def _draw_keys(hashes: np.ndarray, place: np.uint64, rows: np.ndarray) -> np.ndarray:
    return ranks.pack(0, np.zeros(len(hashes), np.uint64), hashes, place | rows.astype(np.uint64))


def _candidates(
    stage: RhoLoss, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many tokens of candidates are drawn."""
    found = [min(stage.choice.candidates, total) for total in totals.tolist()]
    return np.arange(len(groups)), np.zeros(len(groups), np.int64), np.array(found, np.int64)


def _block(stage: RhoLoss, k: int, task: Task) -> np.ndarray:
    """The rows of a shard that are candidates at step k."""
    table = read_table(task.folder(stage) / "blocks" / _name(task))
    table = table.filter(pc.equal(table[STEP], k)).combine_chunks()
    rows = table[ROW].to_numpy()
    if not (stage.trains and stage.choice.draws):
        return rows
    cut = ranks.keys_of(read_table(task.folder(stage) / "draw" / "state.parquet"))
    if not len(cut):
        return rows
    keys = _draw_keys(table["hash"].to_numpy(), np.uint64(task.shard or 0) << np.uint64(32), rows)
    return rows[ranks.before(keys, np.repeat(cut[:1], len(keys)))]


def _score(stage: RhoLoss, k: int, task: Task, batches: Batches) -> None:
    """What is lost on the candidates of a shard at step k, and their keys where a learner is to be given the best of them."""
    learner, irreducible = _learners(stage, task, k), _irreducible(stage, task)
    schema = pa.schema([(ROW, pa.uint32()), *_COLUMNS])
    keys, weights = [ranks.pack(0, [], [], [])], [np.empty(0, np.int64)]
    with TableWriter(_scores(stage, task, k), schema, codec="lz4") as writer:
        for batch in batches:
            columns = _scored(stage, task, k, learner, irreducible, batch)
            writer.write(pa.table([batch[ROW], *columns.values()], schema=schema))
            units = stage.choice.units(task, with_columns(batch, columns))
            found, at = stage.choice._keys(units, ~np.isnan(units.score), task, with_columns(batch, columns), False)
            keys.append(found)
            weights.append(np.ones(len(at), np.int64) if stage.choice.counts else units.tokens[at])
    if stage.trains and k < stage.n_steps:
        folder = task.folder(stage) / _round(k)
        ranks.write_keys(folder, _name(task), np.concatenate(keys), np.concatenate(weights), 1, {})


def _scored(
    stage: RhoLoss, task: Task, k: int, learner: Sequence[str], irreducible: Sequence[str], batch: pa.RecordBatch
) -> dict[str, pa.Array]:
    """The columns of a batch."""
    part = _part(stage.pair, batch) if stage.parts > 1 else np.zeros(batch.num_rows, np.int64)
    found = []
    for i in range(stage.parts):
        texts = batch["text"].filter(pa.array(part == i))
        models = ([learner[i % len(learner)]] if learner else [], [irreducible[i]])
        current, least = ([_model(m, _stamp(m), stage.device).losses(texts, stage.window) for m in of] for of in models)
        found.append(_columns(k, current[0] if current else None, least[0], (*models[0], *models[1])))
    at = pa.array(np.argsort(np.argsort(part, kind="stable"), kind="stable"))  # back to the order of the batch
    return {name: pa.concat_arrays([one[name] for one in found]).take(at) for name in _COLUMNS.names}


def _columns(k: int, current: Losses | None, least: Losses, models: Sequence[str]) -> dict[str, pa.Array]:
    for losses in filter(None, (current, least)):
        if not np.isfinite(losses.nll).all():
            raise StageError(f"rho: {' or '.join(models)} gives a loss that is no number: its weights are damaged")
        if not all(np.array_equal(getattr(losses, name), getattr(least, name)) for name in ("bounds", "ends", "tokens")):
            raise StageError(
                f"rho: {' and '.join(models)} cut texts into different tokens, so that what they lose cannot be compared: "
                "train the one from the other"
            )
    counts = least.documents()[1]
    missing = counts == 0
    columns = {
        "loss_irreducible": pa.array(least.documents()[0], pa.float64(), mask=missing),
        "loss_tokens": pa.array(counts, pa.int32(), mask=missing),
        STEP: pa.array(np.full(len(counts), k, np.int32)),
        "window_irreducible": lists(least.bounds, least.nll, pa.float32(), missing),
        "window_tokens": lists(least.bounds, least.tokens, pa.uint16(), missing),
        ENDS: lists(least.bounds, least.ends, pa.uint32(), missing),
    }
    if current is None:
        columns |= {name: pa.nulls(len(counts), _COLUMNS.field(name).type) for name in ("loss_current", "window_current")}
    else:
        columns["loss_current"] = pa.array(current.documents()[0], pa.float64(), mask=missing)
        columns["window_current"] = lists(current.bounds, current.nll, pa.float32(), missing)
    return {name: columns[name] for name in _COLUMNS.names}


# --------------------------------------------------------------------------------------------- models


def _stamp(model: str) -> tuple[int, ...]:
    return tuple(Path(file).stat().st_mtime_ns for file in lm.files(model, "rho"))


@functools.lru_cache(maxsize=4)  # of a step, not those of all steps
def _model(model: str, _stamp: tuple[int, ...], device: str) -> lm.LanguageModel:
    return lm.load(model, device=device, what="rho")


def _irreducible(stage: RhoLoss, task: Task) -> list[str]:
    """The irreducible model of each part."""
    if stage.irreducible:
        return [stage.irreducible]
    folder = task.folder(stage)
    if stage.adapts:
        return [str(folder / "pair" / _pair(part) / pair.CONDITIONAL) for part in range(stage.parts)]
    return [str(folder / "irreducible")]


def _learners(stage: RhoLoss, task: Task, k: int) -> list[str]:
    """The learner of each part at step k, or one for all; none where nothing was learned yet."""
    if stage.checkpoints:
        return [stage.checkpoints[k - 1]]
    folder = task.folder(stage)
    if k > 1:
        return read_json(folder / "learner" / f"{k:04d}.json")["models"]
    if stage.start == PRIOR:
        return [str(folder / "pair" / _pair(part) / pair.PRIOR) for part in range(stage.parts)]
    return [stage.start] if stage.start else []


def _learn_held_out(stage: RhoLoss, task: Task) -> None:
    """The irreducible model of mode `loss`."""
    texts = _Target(stage.pair, replace(task, counters={}))
    if not any(pc.any(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(part)), 0)).as_py() for part in texts):
        raise StageError(
            f"rho: the hold-out set holds no text ({', '.join((*stage.paths, *stage.texts))[:200]}): give files with texts"
        )
    _train(stage, texts, task.folder(stage) / "irreducible", start="", like=stage.base)


def _chosen_rows(stage: RhoLoss, k: int, task: Task) -> np.ndarray:
    """The rows of a shard of which something was chosen at step k."""
    folder = task.folder(stage) / _round(k)
    keys, cut = ranks.keys_of(read_table(folder / "keys" / _name(task))), ranks.keys_of(read_table(folder / "state.parquet"))
    if len(cut):
        keys = keys[ranks.before(keys, np.repeat(cut[:1], len(keys)))]
    return np.unique(keys["address"] & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def _gather(stage: RhoLoss, k: int, task: Task, batches: Batches) -> None:
    """The texts of a shard that were chosen at step k, by their hashes."""
    scores = read_table(_scores(stage, task, k))
    cut = ranks.keys_of(read_table(task.folder(stage) / _round(k) / "state.parquet"))

    def found() -> Iterator[tuple[int, pa.Table]]:
        for batch in batches:
            _, at = find_rows(scores[ROW].to_numpy(), batch[ROW].to_numpy())
            mine = scores.take(pa.array(at)).combine_chunks()
            batch = with_columns(batch, {name: _whole(mine[name]) for name in _COLUMNS.names})
            out = stage.choice._process(task, ranks.pack(0, [], [], []), cut, batch)
            out = out.filter(pc.is_null(out[REASON]))
            hashes = hashes_of(out["id"], stage.seed, "rho.order")
            part = hashes >> np.uint64(64 - PARTS.bit_length() + 1)
            table = pa.table([pa.array(hashes), out["text"]], schema=_TEXTS)
            for number in np.unique(part).tolist():
                yield number, table.filter(pa.array(part == number))

    write_partitioned(_given(stage, task, k) / _name(task), _TEXTS, found())


def _given(stage: RhoLoss, task: Task, k: int) -> Path:
    return task.folder(stage) / "texts" / f"{k:04d}"


@dataclass(frozen=True)
class _Texts:
    """The texts that were chosen at some steps, as often as they are wanted: in order of the steps, then of their hashes."""

    stage: RhoLoss
    task: Task
    steps: Sequence[int]

    def __iter__(self) -> Iterator[pa.Array]:
        for k in self.steps:
            folder = _given(self.stage, self.task, k)
            for part in range(PARTS):
                tables = [_TEXTS.empty_table(), *(read_partition(folder / name, part) for name in self.task.shards)]
                table = pa.concat_tables(tables).combine_chunks()
                if len(table):
                    order = np.argsort(table["hash"].to_numpy(), kind="stable")  # equal ones as they come
                    yield _whole(table["text"]).take(pa.array(order))


def _learn(stage: RhoLoss, k: int, task: Task) -> None:
    """The learner of step k + 1: that of step k, and what was chosen at it."""
    folder = task.folder(stage)
    begun = _learners(stage, task, 1)
    before = _learners(stage, task, k)
    given = _Texts(stage, task, range(1, k + 1) if stage.models == pair.NGRAM else [k])
    found = before
    if any(pc.any(pc.greater(pc.binary_length(texts), 0)).as_py() for texts in given):
        found = []
        for part in range(max(len(begun), 1)):
            start = (begun if stage.models == pair.NGRAM else before)[part : part + 1]
            made = folder / "learner" / f"{k + 1:04d}-{part}"
            _train(stage, given, made, start=start[0] if start else "", like=_irreducible(stage, task)[0])
            found.append(str(made))
    write_json(folder / "learner" / f"{k + 1:04d}.json", {"models": found})


def _train(stage: RhoLoss, texts: Any, folder: Path, *, start: str, like: str) -> None:
    """A model of texts, which goes on from `start`, if there is one, with the tokens of `like`."""
    if stage.models == pair.NGRAM:
        from curate.lm import ngram

        if start:
            model = ngram.load(Path(start), "rho").adapted(texts)
        else:
            model = ngram.train(texts, units=ngram.load(Path(like), "rho") if like else None)
        model.save(folder)
        return
    from curate.lm.train import train

    more: dict[str, Any] = {"window": stage.window, "seed": stage.training_seed, "device": stage.device, "epochs": 1}
    if start:
        train(texts, folder, start=start, **more)
    else:
        train(texts, folder, size=stage.models, tokenizer=like or None, **more)


def _notes(stage: RhoLoss, task: Task) -> Iterator[tuple[str, int]]:
    """What people should know of the fit."""
    if stage.adapts:
        for said in read_table(task.folder(stage) / "pair" / "state.parquet").to_pylist():
            yield said["note"], said["n"]
