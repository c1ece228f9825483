"""Proxies: small models that say how good a mixture is, and the pool of documents that they are trained on.

A search tries many mixtures, so what they are composed of is prepared once: of each group the documents of the lowest hash, as
tokens on disk (`pool_steps`, `Pool`). A mixture is then a choice among these (`Selection`), a packed row of tokens, a training
and a loss on each target (`measure`). What was measured is a JSON file under a key of all that decides it (`measured`), so a
search that is killed repeats no proxy.

No training is needed where the models are n-gram models: a mixture of the models of all groups is such a model as well, and how
probable each holds each token of a target is on disk. `measure_ngram` judges a mixture by it, and `em` finds the best one.

Source: data mixtures by small proxy models as in RegMix (Liu et al. 2024, arXiv:2407.01492) and CLIMB (Diao et al. 2025,
arXiv:2504.13161); weights of a mixture of language models by expectation maximisation as in Jelinek and Mercer 1980.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import lm, storage
from curate.encoders import DEVICES
from curate.errors import RecipeError, StageError, did_you_mean
from curate.fit import find_rows
from curate.lm import DTYPES, packed, tokenizer
from curate.lm.pair import SAMPLE
from curate.mixtures import groups_of, ordered
from curate.selection import Question, has_choices, hashes_of, target_files, target_questions, target_texts
from curate.stage import ROW, Batches, GlobalStage, Step, Task
from curate.storage import (
    TEMPORARY,
    canonical,
    read_json,
    read_partition,
    read_table,
    sha256_file,
    write_json,
    write_partitioned,
    write_table,
)

if TYPE_CHECKING:
    from curate.lm import ngram
    from curate.lm.neural import Neural

NGRAM = "ngram"
TARGET = "target"  # the name of a target that was given none
METHOD = 1  # raise it when the same pool, configuration and choice are measured otherwise
FEWEST = 8  # documents of a group, however long they are
SLACK = 1.25  # times the tokens that are needed, since the tokenizer of the recipe counts otherwise
BYTES = 8  # of a text for each token that is wanted of it, at most
FEW = 1000  # tokens of a target, under which its loss says little
MOST_GROUPS = 10_000
GROUP_TASKS = 8  # that prepare the groups
SAMPLE_BYTES = 32 << 20  # of texts that tokens are found in, by equal parts of all groups
STEPS = 192  # of a training, at least, where nobody says how large a batch is
GAIN = 1e-8  # nats per token: how little an iteration of `em` may still gain
ROUNDS = 2000
FLOOR = 1e-12  # of a weight while it is looked for: what is 0 stays so
PART_BYTES = 64 << 20  # of the texts of a group that are held at once, about
HELD = 1 << 25  # probabilities of tokens by groups that `em` holds; of more, it reads them again at each iteration
_CHUNK = 1 << 20  # of these that are looked at at a time
_BUFFER = 32 << 20  # bytes of texts that are held before they are written by group
_COPIES = "documents that a target holds word for word, which no proxy reads"
_UNREAD = "groups without a text for proxies to read, which get no weight"
_OWN = ("group", "tokens", "corpus_tokens", "hash")  # columns of `Pool.documents`
_PLACES = pa.schema(
    [(ROW, pa.uint32()), ("group", pa.int32()), ("hash", pa.uint64()), ("tie", pa.uint64()), ("tokens", pa.int64())]
)
_CENSUS = pa.schema([("group", pa.string()), ("documents", pa.int64()), ("tokens", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class Config:
    """What decides a measurement, beside the pool and what is chosen out of it.

    models: `ngram`, or a size of `curate.lm.train.SIZES`. tokens: that a proxy is trained on. base_tokens: of natural
    proportions, that a model is trained on from which each proxy goes on; 0: each begins with the same random weights. window:
    tokens that are read at a time. vocabulary: of the tokenizer, which is trained on the pool. lr, batch_tokens: of a proxy;
    None: what is right for its size and `tokens`, see `training`. target_tokens: of each target that a proxy is evaluated on at
    most, and as many of questions and their choices. device, dtype: as in `curate.lm.train`. seed: of hashes, orders and first
    weights.
    """

    models: str = "1m"
    tokens: int = 200_000
    base_tokens: int = 0
    window: int = 256
    vocabulary: int = 8192
    lr: float | None = None
    batch_tokens: int | None = None
    target_tokens: int = 100_000
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 42

    def check(self, what: str) -> None:
        """Raises RecipeError for values that make no sense. what: the stage, for messages."""
        words = (("models", self.models, SAMPLE), ("device", self.device, DEVICES), ("dtype", self.dtype, DTYPES))
        for name, word, known in words:
            if word not in known:
                raise RecipeError(f"{what}: {name} is {word!r}{did_you_mean(str(word), known)}")
        numbers = (
            ("tokens", self.tokens, 1), ("base_tokens", self.base_tokens, 0), ("target_tokens", self.target_tokens, 1),
            ("window", self.window, 2), ("seed", self.seed, 0), ("batch_tokens", self.batch_tokens, 1),
        )  # fmt: skip
        for name, value, least in numbers:
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and not (value is None and name == "batch_tokens"):
                raise RecipeError(f"{what}: {name} is {value!r}; it is a whole number of at least {least}")
        if not tokenizer.FEWEST <= self.vocabulary <= tokenizer.MOST:
            raise RecipeError(f"{what}: vocabulary is {self.vocabulary}; give {tokenizer.FEWEST:,} to {tokenizer.MOST:,}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise RecipeError(f"{what}: lr is {self.lr!r}; it is a number above 0")
        if self.trains:
            batch = self.batch_tokens or self.window
            if batch < self.window:
                raise RecipeError(f"{what}: batch_tokens is {batch}, less than a window of {self.window}: raise it")
            for name, tokens in (("tokens", self.tokens), ("base_tokens", self.base_tokens or self.tokens)):
                if tokens < batch:
                    raise RecipeError(f"{what}: {name} is {tokens:,}, less than one step of {batch:,} tokens: raise it")

    @property
    def trains(self) -> bool:
        """Whether proxies are trained, rather than n-gram models mixed."""
        return self.models != NGRAM

    def training(self, tokens: int) -> dict[str, Any]:
        """Parameters of `curate.lm.train.train` for so many tokens.

        A batch is that of the size, halved until there are 192 steps, but no less than 1,024 tokens; the learning rate goes
        with its root.
        """
        from curate.lm.train import SIZES

        size = SIZES[self.models]
        batch = self.batch_tokens
        if batch is None:
            batch = size.batch_tokens
            while batch > 1024 and tokens // batch < STEPS:
                batch //= 2
            batch = max(batch, self.window)
            if tokens < batch:
                batch = self.window
        lr = self.lr if self.lr is not None else size.lr * min(1.0, math.sqrt(batch / size.batch_tokens))
        return {
            "size": self.models, "batch_tokens": batch, "lr": lr, "window": self.window, "seed": self.seed, "threads": 1,
            "device": self.device, "dtype": self.dtype, "progress": False,
        }  # fmt: skip

    def digest(self) -> dict[str, Any]:
        """What of it decides a measurement. The device gives other last bits only."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "device"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What proxies are evaluated on: texts, or questions with choices, by name.

    files: (name, paths) of each. texts: beside them, or instead; they belong to a target of the name `target`. column: of the
    texts in files.
    """

    files: tuple[tuple[str, tuple[str, ...]], ...] = ()
    texts: tuple[str, ...] = ()
    column: str = "text"

    @classmethod
    def of(cls, target: str | Sequence[str] | Mapping[str, str | Sequence[str]], texts: Sequence[str], column: str) -> Target:
        """Out of the parameters `target`, `texts` and `column` of a stage. Files without names are one target, `target`."""

        def listed(paths: str | Sequence[str]) -> tuple[str, ...]:
            return (paths,) if isinstance(paths, str) else tuple(paths)

        if isinstance(target, Mapping):
            named = tuple((str(name), listed(paths)) for name, paths in target.items())
        else:
            named = ((TARGET, listed(target)),) if listed(target) else ()
        return cls(files=named, texts=tuple(texts), column=column)

    def check(self, what: str) -> None:
        """Raises RecipeError for names and paths that are empty."""
        if not self.column or not all(name and paths and all(paths) for name, paths in self.files):
            raise RecipeError(f"{what}: target and column must not be empty strings, and each target has a file")

    def asked(self, what: str) -> None:
        """Raises RecipeError where there is neither a file nor a text: for `Stage.bound`."""
        if not self.files and not self.texts:
            raise RecipeError(f"{what}: give `target`, files of texts or questions like those that are wanted, or `texts`")

    def names(self) -> tuple[str, ...]:
        """Of all targets, in order."""
        return tuple(dict.fromkeys([name for name, _ in self.files] + ([TARGET] if self.texts else [])))

    def paths(self, what: str) -> tuple[str, ...]:
        """The local files, for `Stage.files`. Raises RecipeError for one that is not there or cannot be read."""
        return tuple(path for _, paths in self.files for path in target_files(paths, what, self.column))

    def has_choices(self, what: str) -> bool:
        """Whether every target has a file of questions with choices, so that there may be an accuracy of each."""
        named = dict(self.files)
        return all(any(has_choices(p, what) for p in target_files(named.get(n, ()), what, self.column)) for n in self.names())

    def read(self, name: str, what: str, task: Task) -> Iterator[pa.Array]:
        """The texts of a target."""
        if name == TARGET and self.texts:
            yield pa.array(self.texts, pa.string())
        yield from target_texts(dict(self.files).get(name, ()), what, task, self.column)

    def questions(self, name: str, what: str, task: Task) -> Iterator[Question]:
        """The questions of a target."""
        return target_questions(dict(self.files).get(name, ()), what, task)


@dataclass(frozen=True)
class Selection:
    """Documents of a pool, in no order.

    documents: int64: their numbers in the pool; one that is repeated comes several times. lengths: int64: how many tokens of
    each are taken, from its first.
    """

    documents: np.ndarray
    lengths: np.ndarray

    @property
    def tokens(self) -> int:
        """How many there are, with the separator before each document."""
        return int(self.lengths.sum()) + len(self.lengths)

    @property
    def repeats(self) -> int:
        """How often the document is there that is there most."""
        return int(np.bincount(self.documents).max()) if len(self.documents) else 0

    @property
    def digest(self) -> str:
        """Equal for the same documents and lengths in the same order only."""
        return hashlib.sha256(self.documents.astype("<i8").tobytes() + self.lengths.astype("<i8").tobytes()).hexdigest()


@dataclass(frozen=True)
class Measured:
    """What a proxy has shown.

    targets: by name: `loss` (nats per token), `tokens` and `bytes` of it, `bits_per_byte`, and where there are choices
    `accuracy`, `accuracy_per_byte` (by the choice that is likeliest per byte), `chance` and `items`. tokens: that the proxy was
    trained on; 0 where nothing was. repeats: how often the document was read that was read most.
    """

    targets: dict[str, dict[str, float]]
    tokens: int = 0
    repeats: int = 0

    def metric(self, name: str) -> float:
        """The mean over targets of `loss`, `bits_per_byte`, `accuracy` or `accuracy_per_byte`. Raises StageError where one has
        none."""
        for target, found in self.targets.items():
            if name not in found:
                known = ", ".join(key for key in ("loss", "bits_per_byte", "accuracy") if key in found)
                raise StageError(f"the target {target!r} has no {name}: it has no questions with choices (it has {known})")
        return math.fsum(found[name] for found in self.targets.values()) / len(self.targets)

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads."""
        return {"targets": self.targets, "tokens": self.tokens, "repeats": self.repeats}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Measured:
        """What `to_json` gave. Raises KeyError, TypeError or ValueError for what is none."""
        targets = {str(name): {str(k): v + 0 for k, v in found.items()} for name, found in value["targets"].items()}
        return Measured(targets, int(value["tokens"]), int(value["repeats"]))


# --------------------------------------------------------------------------------------------- the pool


@dataclass(frozen=True)
class Pool:
    """Documents of a corpus by group, as tokens, with targets: what `pool_steps` leaves.

    groups: those that have tokens here, in order. natural: float64: their shares of the tokens of the corpus, sum 1. targets:
    their names. digest: of all there is. seed: of hashes. notes: what people should know of how it was made, with counts.
    """

    folder: Path
    groups: tuple[str, ...]
    natural: np.ndarray
    targets: tuple[str, ...]
    digest: str
    seed: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str) -> Pool:
        """The pool in a folder, `pool_folder(stage, task)` of a fit. Raises StageError where there is none."""
        folder = Path(folder)
        try:
            held = read_json(folder / "pool.json")
        except FileNotFoundError:
            raise StageError(f"{folder} holds no pool of documents: run the same command again") from None
        natural = np.array(held["natural"], np.float64)
        names = tuple(held["groups"]), tuple(held["targets"])
        return cls(folder, names[0], natural, names[1], held["digest"], held["seed"], dict(held["notes"]))

    @functools.cached_property
    def documents(self) -> pa.Table:
        """`group` (int32, of `groups`), `tokens` (int64, of the tokenizer of the proxies), `corpus_tokens` (int64, of the
        recipe), `hash` (uint64) and the columns that were asked for; sorted by group, then hash."""
        return read_table(self.folder / "documents.parquet")

    @functools.cached_property
    def about(self) -> list[dict[str, Any]]:
        """Of each target what is known of it: `name`, `texts`, `tokens`, `bytes`, `items`, and more."""
        return read_json(self.folder / "encoded.json")

    @property
    def has_choices(self) -> bool:
        """Whether each target has questions with choices, so that there is an accuracy of each."""
        return all(target["ngram"]["items"] for target in self.about)

    @functools.cached_property
    def _sizes(self) -> np.ndarray:
        """int64 per document: its tokens and the separator."""
        return self.documents["tokens"].to_numpy() + 1

    @functools.cached_property
    def _group(self) -> np.ndarray:
        return self.documents["group"].to_numpy()

    @functools.cached_property
    def _hash(self) -> np.ndarray:
        return self.documents["hash"].to_numpy()

    def shares(self, weights: Mapping[str, float]) -> np.ndarray:
        """Weights by name as float64 in the order of `groups`, sum 1; groups that are not named have none.

        Raises StageError for a group that there is not, or weights without a positive sum.
        """
        for name in weights:
            if name not in self.groups:
                raise StageError(f"there is no group {name!r} in the pool{did_you_mean(name, self.groups)}")
        return self.checked([weights.get(name, 0.0) for name in self.groups])

    def checked(self, weights: Sequence[float] | np.ndarray) -> np.ndarray:
        """Weights in the order of `groups` as float64, scaled to the sum 1. Raises StageError for what makes none."""
        found = np.asarray(weights, np.float64)
        if found.shape != (len(self.groups),):
            raise StageError(f"{len(self.groups)} groups need as many weights, not {found.shape}")
        if not (np.isfinite(found) & (found >= 0)).all() or not found.sum():
            raise StageError(f"weights are not negative and have a positive sum, not {found.tolist()[:20]}")
        return found / found.sum()

    def by_weights(self, weights: Sequence[float] | np.ndarray, tokens: int) -> Selection:
        """So many tokens, of which each group has its share.

        weights: one per group, with any positive sum. Each budget is exact to one token; of each group the documents come in
        the order of their hashes, again from the first when all were taken, and the last is cut.
        """
        budgets = _budgets(self.checked(weights), tokens)
        bounds = np.searchsorted(self._group, np.arange(len(self.groups) + 1))
        parts = [
            _taken(np.arange(bounds[g], bounds[g + 1]), self._sizes, int(budget)) for g, budget in enumerate(budgets.tolist())
        ]
        return Selection(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def by_counts(self, copies: np.ndarray, tokens: int) -> Selection:
        """So many tokens of the documents, each as often as its count (int64) says, in an order by hash.

        Where that gives more tokens, those that come first are taken; where it gives fewer, it begins again.
        """
        copies = np.asarray(copies)
        if copies.shape != self._sizes.shape or copies.dtype.kind not in "iu" or (copies < 0).any() or not copies.any():
            raise StageError(f"{len(self._sizes)} documents need as many whole numbers of copies, not all of them 0")
        which = np.repeat(np.arange(len(copies)), copies)
        number = np.arange(len(which)) - np.repeat(np.cumsum(copies) - copies, copies)
        order = np.lexsort((which, self._drawn(which, "order", number)))
        return Selection(*_taken(which[order], self._sizes, tokens))

    def by_rates(self, rates: np.ndarray, tokens: int) -> Selection:
        """So many tokens, as if each document of the corpus were taken `rates` times (float64 per document of the pool).

        Rates count by what they are beside each other. A group counts for what it has of the corpus, and not for what it has
        of the pool. Parts of a copy are rounded up or down by hash.
        """
        rates = np.asarray(rates, np.float64)
        if rates.shape != self._sizes.shape or not (np.isfinite(rates) & (rates >= 0)).all():
            raise StageError(f"{len(self._sizes)} documents need as many rates, none of them negative")
        held = np.bincount(self._group, self.documents["corpus_tokens"].to_numpy(), len(self.groups))
        wanted = rates * (self.natural / np.maximum(held, 1))[self._group]
        total = float((wanted * self._sizes).sum())
        if not total:
            raise StageError("the rates of all documents are 0: nothing is left to train on")
        exact = wanted * (tokens / total)
        part = self._drawn(np.arange(len(rates)), "rates").astype(np.float64) / 2.0**64
        copies = np.floor(exact).astype(np.int64) + (part < exact - np.floor(exact))
        return self.by_counts(copies if copies.any() else (rates == rates.max()).astype(np.int64), tokens)

    def _drawn(self, documents: np.ndarray, use: str, number: np.ndarray | int = 0) -> np.ndarray:
        """uint64 of documents, by hash: draws for different uses have nothing in common."""
        salt = xxhash.xxh3_64_intdigest(use.encode(), self.seed)
        return _mixed(_mixed(self._hash[documents] ^ np.uint64(salt)) + np.asarray(number).astype(np.uint64))

    def tokens(self, group: int) -> np.ndarray:
        """uint16 or uint32: the tokens of the documents of a group, one after the other, as a view of the file."""
        return np.memmap(_tokens_file(self.folder, self._made["files"][group]), self._made["kind"], "r")

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """int64 per document: its first token among those of its group."""
        sizes = self.documents["tokens"].to_numpy()
        found = np.cumsum(sizes) - sizes
        return found - found[np.searchsorted(self._group, self._group)]

    @functools.cached_property
    def _made(self) -> dict[str, Any]:
        return read_json(self.folder / "pool.json")

    @property
    def units(self) -> str:
        """The digest of what turned texts into `tokens`."""
        return self._made["units"]


def _mixed(values: np.ndarray) -> np.ndarray:
    from curate.kernels.hashes import SPREAD, finish

    return finish.py_func(values + SPREAD)


def _budgets(weights: np.ndarray, tokens: int) -> np.ndarray:
    """int64: shares of tokens that add up; what is left over goes to the largest remainders."""
    exact = weights * tokens
    found = np.floor(exact).astype(np.int64)
    order = np.lexsort((np.arange(len(weights)), found - exact))
    found[order[: tokens - int(found.sum())]] += 1
    return found


def _taken(documents: np.ndarray, sizes: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """(documents, lengths) of so many tokens with the separators, in this order, again from the first when all were taken."""
    ends = np.cumsum(sizes[documents])
    if not budget or not len(ends):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rounds, rest = divmod(budget, int(ends[-1]))
    whole = int(np.searchsorted(ends, rest, "right"))
    left = rest - (int(ends[whole - 1]) if whole else 0)
    found = np.concatenate([np.tile(documents, rounds), documents[: whole + (left > 1)]])
    lengths = sizes[found] - 1
    if left > 1:  # of a single token there would be the separator alone
        lengths[-1] = left - 1
    return found, lengths


def pool_steps(
    stage: GlobalStage,
    *,
    what: str,
    by: str,
    config: Config,
    need: int,
    target: Target,
    columns: Sequence[str] = (),
) -> list[Step]:
    """The steps of a fit that leave a pool in `pool_folder`.

    what: the stage, for messages. by: the column whose values are the groups. need: tokens of a group that are wanted at most,
    of the documents of the lowest hash; of a longer document the first so many. columns: that are kept for each document.
    Raises, when they run, StageError where no group or no target has a token.
    """
    for name in columns:
        if name in _OWN:
            raise RecipeError(f"{what}: a column of the name {name!r} cannot be kept for each document: give it another name")
    job = _Job(stage, what, by, config, need, target, tuple(columns))
    places = tuple(dict.fromkeys((by, "tokens", "file", "record", "id")))
    texts = tuple(dict.fromkeys(("text", *columns)))
    found = [
        Step("census", partial(_census, job), reads=places),
        Step("choose", partial(_choose, job)),
        Step("texts", partial(_gather, job), reads=texts, rows=partial(_chosen_rows, job)),
        Step("units", partial(_units, job)),
        Step("groups", partial(_groups, job), tasks=GROUP_TASKS),
        Step("pool", partial(_finish, job)),
    ]
    if config.trains and config.base_tokens:
        found.append(Step("base", partial(_base, job)))
    return found


def pool_folder(stage: GlobalStage, task: Task) -> Path:
    """Where the pool of a stage is."""
    return task.folder(stage) / "pool"


@dataclass(frozen=True)
class _Job:
    """What the steps of a pool are told."""

    stage: GlobalStage
    what: str
    by: str
    config: Config
    need: int
    target: Target
    columns: tuple[str, ...]

    def folder(self, task: Task) -> Path:
        return pool_folder(self.stage, task)

    @property
    def parts(self) -> int:
        """Into how many parts the documents of a group are divided, in the order of their hashes; one is held at once."""
        return min(max(self.need * 4 // PART_BYTES, 1), 1 << 12)


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _census(job: _Job, task: Task, batches: Batches) -> None:
    """How many tokens each group has in a shard, and the documents that would be in the pool were there no other shard."""
    from curate.kernels.keys import order_hash

    number: dict[str | None, int] = {None: -1}
    documents, tokens = np.zeros(0, np.int64), np.zeros(0, np.int64)
    missing, held, size = [0, 0], [_PLACES.empty_table()], 0
    for batch in batches:
        local, names = groups_of(batch[job.by], f"{job.what}: column {job.by!r}")
        for name in names:
            number.setdefault(name, len(number) - 1)
        table = np.array([*(number[name] for name in names), -1], np.int64)
        group = table[local]
        counts = pc.fill_null(batch["tokens"], 0).to_numpy(zero_copy_only=False).astype(np.int64)
        there = group >= 0
        documents, tokens = (
            np.concatenate([old, np.zeros(len(number) - 1 - len(old), np.int64)]) for old in (documents, tokens)
        )
        np.add.at(documents, group[there], 1)
        np.add.at(tokens, group[there], counts[there])
        missing = [missing[0] + int((~there).sum()), missing[1] + int(counts[~there].sum())]
        there &= counts > 0
        columns = {
            ROW: batch[ROW],
            "group": pa.array(group, pa.int32()),
            "hash": pa.array(order_hash(job.config.seed, batch["file"], batch["record"])),
            "tie": pa.array(hashes_of(batch["id"], job.config.seed, "pool")),
            "tokens": pa.array(counts),
        }
        held.append(pa.table(columns, schema=_PLACES).filter(pa.array(there)))
        size += int(there.sum())
        if size > 1 << 20:
            held = [_lowest(job, held)]
            size = held[0].num_rows // 2  # where all of them may be needed, not at every batch
    found = [name for name in number if name is not None]
    census = pa.table([[*found, None], [*documents.tolist(), missing[0]], [*tokens.tolist(), missing[1]]], schema=_CENSUS)
    folder = job.folder(task)
    write_table(folder / "census" / _name(task), census, codec="lz4")
    write_table(folder / "places" / _name(task), _lowest(job, held), codec="lz4")


def _lowest(job: _Job, tables: list[pa.Table]) -> pa.Table:
    """Of each group the documents of the lowest hashes that have the tokens that are needed; by group and hash."""
    table = pa.concat_tables(tables).combine_chunks()
    group, hashes, tie = (table[name].to_numpy() for name in ("group", "hash", "tie"))
    table = table.take(pa.array(np.lexsort((tie, hashes, group))))
    group = table["group"].to_numpy()
    tokens = np.minimum(table["tokens"].to_numpy(), job.need)  # of a longer one no more is taken
    first = np.searchsorted(group, group)  # of the group, for each document
    before = np.cumsum(tokens) - tokens
    before = before - before[first] if len(before) else before
    place = np.arange(len(group)) - first
    return table.filter(pa.array((before < SLACK * job.need) | (place < FEWEST)))


def _choose(job: _Job, task: Task) -> None:
    """The documents of the pool, by shard, with the groups of the corpus and their tokens; and the targets."""
    folder = job.folder(task)
    documents: dict[str | None, int] = {}
    tokens: dict[str | None, int] = {}
    shards = []
    for name in task.shards:
        table = read_table(folder / "census" / name)
        shards.append(table["group"].to_pylist())
        for group, n, count in zip(*(table[c].to_pylist() for c in _CENSUS.names), strict=True):
            documents[group] = documents.get(group, 0) + n
            tokens[group] = tokens.get(group, 0) + count
    names = ordered(name for name in tokens if name is not None and tokens[name])
    if not names:
        has = "no document has a value" if not any(n for name, n in documents.items() if name is not None) else "no text"
        raise StageError(f"{job.what}: column {job.by!r} makes no groups ({has}): look at the stages before it")
    if len(names) > MOST_GROUPS:
        raise StageError(f"{job.what}: column {job.by!r} makes {len(names):,} groups; give one with at most {MOST_GROUPS:,}")
    number = {name: i for i, name in enumerate(names)}
    schema = _PLACES.append(pa.field("shard", pa.uint32()))
    held = schema.empty_table()
    for shard, name in enumerate(task.shards):
        table = read_table(folder / "places" / name)
        known = np.array([number.get(group, -1) for group in shards[shard]], np.int32)
        table = table.set_column(1, schema.field("group"), pa.array(known[table["group"].to_numpy()]))
        table = table.append_column(schema.field("shard"), pa.array(np.full(len(table), shard, np.uint32)))
        held = _lowest(job, [held, table])
    group = held["group"].to_numpy()
    first, last = np.searchsorted(group, group), np.searchsorted(group, group, "right")
    part = group.astype(np.int64) * job.parts + (np.arange(len(group)) - first) * job.parts // np.maximum(last - first, 1)
    held = held.set_column(1, "part", pa.array(part))
    held = held.sort_by([("shard", "ascending"), (ROW, "ascending")])
    at = np.searchsorted(held["shard"].to_numpy(), np.arange(len(task.shards) + 1))
    for shard, name in enumerate(task.shards):
        mine = held.slice(at[shard], at[shard + 1] - at[shard]).drop_columns(["shard"])
        write_table(folder / "chosen" / name, mine, codec="lz4")
    census = [{"group": name, "documents": documents[name], "tokens": tokens[name]} for name in names]
    notes: dict[str, int] = {}
    _write_targets(job, task, notes)
    write_json(folder / "census.json", {"groups": census, "notes": notes})


def _chosen_rows(job: _Job, task: Task) -> np.ndarray:
    return read_table(job.folder(task) / "chosen" / _name(task))[ROW].to_numpy()


def _gather(job: _Job, task: Task, batches: Batches) -> None:
    """The texts of a shard that are in the pool, by group; those that are word for word in a target are left out."""
    folder = job.folder(task)
    chosen = read_table(folder / "chosen" / _name(task))
    rows = chosen[ROW].to_numpy()
    known = np.load(folder / "known.npy", allow_pickle=False)
    held, size = list[pa.Table](), 0

    def by_part() -> Iterator[tuple[int, pa.Table]]:
        table = pa.concat_tables(held).sort_by("part").combine_chunks()
        part = table["part"].to_numpy()
        for number in np.unique(part).tolist():
            at, stop = np.searchsorted(part, [number, number + 1])
            yield number, table.slice(at, stop - at)

    def found() -> Iterator[tuple[int, pa.Table]]:
        nonlocal held, size
        for batch in batches:
            at = np.searchsorted(rows, batch[ROW].to_numpy())
            mine = chosen.take(pa.array(at)).drop_columns([ROW]).rename_columns(["part", "hash", "tie", "corpus_tokens"])
            table = mine.append_column("copy", pa.array(find_rows(known, _text_hash(batch["text"]))[0]))
            table = table.append_column("text", _cut(batch["text"], BYTES * job.need))
            for name in job.columns:
                table = table.append_column(_kept(name), batch[name])
            held.append(table)
            size += table.nbytes
            if size > _BUFFER:
                yield from by_part()
                held, size = [], 0
        if held:
            yield from by_part()

    parts = found()
    first = next(parts, None)
    schema = first[1].schema if first else pa.schema([("part", pa.int64())])
    write_partitioned(folder / "texts" / _name(task), schema, _chain(first, parts))


def _chain(first: tuple[int, pa.Table] | None, rest: Iterator[tuple[int, pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
    if first:
        yield first
    yield from rest


def _kept(column: str) -> str:
    """What a column that is asked for is called on its way: it may be `text` or `tokens`."""
    return f"column:{column}"


def _text_hash(texts: pa.Array) -> np.ndarray:
    """uint64: equal for equal texts."""
    from curate.kernels.keys import hash128

    return hash128(texts)[:, 0]


def _cut(texts: pa.Array, most: int) -> pa.Array:
    """Texts (string) of at most so many bytes, whole characters."""
    long = pc.greater(pc.binary_length(texts), most)
    if not pc.any(long, min_count=0).as_py():
        return texts
    return pa.array([t if t is None else t.encode()[:most].decode(errors="ignore") for t in texts.to_pylist()], pa.string())


@dataclass(frozen=True)
class _Texts:
    """What the pool holds of a group, as often as it is wanted: by parts, in the order of hashes.

    Tables of `hash`, `corpus_tokens`, `text` and the columns that were asked for, without the copies of a target's texts.
    """

    job: _Job
    task: Task
    group: int

    def tables(self, copies: bool = False) -> Iterator[pa.Table]:
        folder = self.job.folder(self.task)
        for part in range(self.group * self.job.parts, (self.group + 1) * self.job.parts):
            found = [t for name in self.task.shards if (t := read_partition(folder / "texts" / name, part)).num_rows]
            if found:
                table = pa.concat_tables(found)
                table = table.filter(table["copy"] if copies else pc.invert(table["copy"]))
                yield table.sort_by([("hash", "ascending"), ("tie", "ascending")]).combine_chunks()

    def __iter__(self) -> Iterator[pa.Array]:
        for table in self.tables():
            if table.num_rows:
                yield table["text"].combine_chunks()


def _group_names(job: _Job, task: Task) -> list[str]:
    return [group["group"] for group in read_json(job.folder(task) / "census.json")["groups"]]


def _units(job: _Job, task: Task) -> None:
    """The tokens of proxies and of n-gram models, found in the pool; and the targets in these."""
    from curate.lm import ngram

    folder, config = job.folder(task), job.config
    groups = range(len(_group_names(job, task)))
    room = SAMPLE_BYTES // len(groups)
    sample = [part for group in groups for part in _head(_Texts(job, task, group), room)]
    if not any(pc.any(pc.greater(pc.binary_length(part), 0), min_count=0).as_py() for part in sample):
        raise StageError(f"{job.what}: no group has a text that the targets do not hold word for word: give other targets")
    if config.trains:
        tokenizer.train_tokenizer(sample, folder / "tokenizer", vocabulary=config.vocabulary)
    units = ngram.train(sample, order=1)
    units.save(folder / "units")
    about = read_json(folder / "targets.json")
    readers = [("ngram", partial(_by_units, units), lm.WINDOW)]
    if config.trains:
        readers.append(("proxy", partial(_by_tokenizer, tokenizer.read(folder / "tokenizer", job.what)), config.window))
    for number, target in enumerate(about):
        held = folder / "targets" / f"{number:03d}"
        texts, questions = (read_table(held / f"{name}.parquet") for name in ("texts", "questions"))
        for name, encode, window in readers:
            target[name] = _encode_texts(held / name / "texts", encode, texts, window, config.target_tokens)
            target[name] |= _encode_questions(held / name / "choices", encode, questions, window, config.target_tokens)
        if not target["ngram"]["tokens"]:
            raise StageError(f"{job.what}: the target {target['name']!r} holds no text: give files with texts")
    write_json(folder / "encoded.json", about)


Encode = Callable[[pa.Array], tuple[np.ndarray, np.ndarray, np.ndarray]]  # texts to (tokens, bounds, bytes of each token)


def _by_units(units: ngram.NGram, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from curate.lm.ngram import BYTES as LETTERS

    ids, bounds = units.encode(texts)
    return ids, bounds, np.append(np.ones(LETTERS, np.int64), np.diff(units.units.bounds))[ids]


def _by_tokenizer(reader: tokenizer.Tokenizer, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids, bounds, ends = reader.encode(texts)
    before = np.append(0, ends[:-1])[: len(ends)]
    before[bounds[:-1][np.diff(bounds) > 0]] = 0
    return ids, bounds, ends - before


def _encode_texts(folder: Path, encode: Encode, texts: pa.Table, window: int, most: int) -> dict[str, int]:
    """Runs of at most a window of tokens, those of the lowest hash, until there are so many tokens; the last one is cut."""
    ids, bounds, sizes = encode(texts["text"].combine_chunks())
    counts = np.diff(bounds)
    many = -(-counts // window)
    text = np.repeat(np.arange(len(counts)), many)
    number = np.arange(len(text)) - np.repeat(np.cumsum(many) - many, many)
    starts = bounds[text] + number * window
    stops = np.minimum(starts + window, bounds[text + 1])
    keys = _mixed(texts["key"].to_numpy()[text] + number.astype(np.uint64))
    order = np.lexsort((number, text, keys))
    lengths = (stops - starts)[order]
    before = np.cumsum(lengths) - lengths
    order, lengths = order[before < most], np.minimum(lengths, most - before)[before < most]
    at = _spread(starts[order], lengths)
    _write_runs(folder, ids[at], lengths, np.zeros(len(order), np.int64), text=text[order])
    return {"tokens": len(at), "bytes": int(sizes[at].sum()), "runs": len(order)}


def _encode_questions(folder: Path, encode: Encode, questions: pa.Table, window: int, most: int) -> dict[str, int]:
    """Each question with each of its choices, those of the lowest hash, until there are so many tokens."""
    choices = questions["choices"].combine_chunks()
    many = pc.list_value_length(choices).to_numpy(zero_copy_only=False).astype(np.int64)
    item = np.repeat(np.arange(len(questions)), many)
    asked, asked_bounds, _ = encode(questions["question"].combine_chunks())
    said, said_bounds, sizes = encode(choices.flatten())
    longest = np.minimum(np.diff(said_bounds), window)  # of a longer choice, its beginning
    context = np.minimum(np.diff(asked_bounds)[item], window - longest)  # of a longer question, its end
    spent = np.cumsum(np.bincount(item, longest + context, len(questions)))
    item_taken = np.append(0.0, spent[:-1])[: len(spent)] < most
    taken = np.flatnonzero(item_taken[item])
    parts, nbytes = list[np.ndarray](), np.zeros(len(taken), np.int64)
    for i, c in enumerate(taken.tolist()):
        stop, start = asked_bounds[item[c] + 1], said_bounds[c]
        parts += [asked[stop - context[c] : stop], said[start : start + longest[c]]]
        nbytes[i] = sizes[start : start + longest[c]].sum()
    first = np.cumsum(many) - many
    right = taken == (first + questions["right"].to_numpy())[item[taken]]
    ids = np.concatenate([np.empty(0, np.int32), *parts])
    lengths = (context + longest)[taken]
    _write_runs(folder, ids, lengths, context[taken], item=item[taken], right=right, bytes=nbytes)
    return {"items": int(item_taken.sum()), "choices": len(taken), "choice_tokens": int(longest[taken].sum())}


def _spread(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int64: all places from each start on."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))


def _write_runs(folder: Path, ids: np.ndarray, lengths: np.ndarray, skip: np.ndarray, **more: np.ndarray) -> None:
    values: dict[str, np.ndarray] = {"ids": ids.astype(np.int32), "skip": skip, **more}
    values["bounds"] = np.append(0, np.cumsum(lengths)).astype(np.int64)
    for name, array in values.items():
        _save(folder / f"{name}.npy", array)


@dataclass(frozen=True)
class _Runs:
    """Runs of tokens that are judged: ids[bounds[i]:bounds[i + 1]], of which the first `skip` are only read."""

    folder: Path

    def __getattr__(self, name: str) -> np.ndarray:
        found: np.ndarray = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        self.__dict__[name] = found
        return found


def _head(texts: _Texts, size: int) -> Iterator[pa.Array]:
    """The first texts, of so many bytes in all or a text more."""
    for array in texts:
        so_far = np.cumsum(pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64))
        yield array.slice(0, int(np.searchsorted(so_far, size)) + 1)
        size -= int(so_far[-1])
        if size <= 0:
            return


def _groups(job: _Job, task: Task) -> None:
    """Some groups: their documents as tokens, and what their n-gram models hold of the targets."""
    from curate.lm import ngram

    folder, config = job.folder(task), job.config
    units = ngram.load(folder / "units", job.what)
    reader = tokenizer.read(folder / "tokenizer", job.what) if config.trains else None
    about = read_json(folder / "encoded.json")
    kind = _kind(reader or units)
    for group in range(task.rank, len(_group_names(job, task)), GROUP_TASKS):
        texts = _Texts(job, task, group)
        tables = []
        with storage.atomic(_tokens_file(folder, group)) as path, path.open("wb") as stream:
            for part in texts.tables():
                ids, bounds = (reader.ids if reader else units.encode)(part["text"].combine_chunks())
                keep = np.flatnonzero(np.diff(bounds) > 0)
                lengths = np.minimum(np.diff(bounds)[keep], job.need)
                stream.write(ids[_spread(bounds[keep], lengths)].astype(kind).tobytes())
                columns = {"group": np.full(len(keep), group, np.int32), "tokens": lengths}
                table = pa.table({name: pa.array(values) for name, values in columns.items()})
                for name, held in (("corpus_tokens",) * 2, ("hash",) * 2, *((name, _kept(name)) for name in job.columns)):
                    table = table.append_column(name, part[held].take(pa.array(keep)))
                tables.append(table)
        copies = sum(part.num_rows for part in texts.tables(copies=True))
        documents = sum(map(len, tables))
        write_json(folder / "groups" / f"{group:05d}.json", {"copies": copies, "documents": documents})
        if not documents:
            continue
        write_table(folder / "documents" / f"{group:05d}.parquet", pa.concat_tables(tables), codec="lz4")
        model = ngram.train(texts, units=units)
        kinds = [(i, kind) for i in range(len(about)) for kind in ("texts", "choices")]
        found = [_scored(model, _Runs(folder / "targets" / f"{i:03d}" / "ngram" / kind)) for i, kind in kinds]
        _save(folder / "ngram" / f"{group:05d}.npy", np.concatenate(found).astype(np.float32))


def _scored(model: ngram.NGram, runs: _Runs) -> np.ndarray:
    """ln p of the tokens that are judged."""
    sizes = np.diff(runs.bounds)
    place = np.arange(len(runs.ids)) - np.repeat(runs.bounds[:-1], sizes)
    return model.logprobs(runs.ids, runs.bounds)[place >= np.repeat(runs.skip, sizes)]


def _save(path: Path, values: np.ndarray) -> None:
    with storage.atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values, allow_pickle=False)


def _finish(job: _Job, task: Task) -> None:
    """The pool as a whole."""
    from curate.lm import ngram

    folder = job.folder(task)
    census = read_json(folder / "census.json")
    notes: dict[str, int] = dict(census["notes"])
    files, documents = list[int](), list[pa.Table]()
    for number in range(len(census["groups"])):
        said = read_json(folder / "groups" / f"{number:05d}.json")
        for text, n in ((_COPIES, said["copies"]), (_UNREAD, not said["documents"])):
            if n:
                notes[text] = notes.get(text, 0) + n
        if said["documents"]:
            table = read_table(folder / "documents" / f"{number:05d}.parquet")
            documents.append(table.set_column(0, "group", pa.array(np.full(len(table), len(files), np.int32))))
            files.append(number)
    if not files:
        raise StageError(f"{job.what}: no group has a text that the targets do not hold word for word: give other targets")
    table = pa.concat_tables(documents).combine_chunks()
    write_table(folder / "documents.parquet", table)
    about = read_json(folder / "encoded.json")
    _write_matrix(folder, files)
    for target in about:
        judged = target["proxy" if job.config.trains else "ngram"]
        notes[f"tokens that proxies are judged by on {target['name']!r}"] = judged["tokens"]
        if judged["tokens"] < FEW:
            notes[f"targets with fewer than {FEW:,} tokens, whose loss says little"] = 1
    shares = np.array([census["groups"][number]["tokens"] for number in files], np.float64)
    names = [census["groups"][number]["group"] for number in files]
    digest = hashlib.sha256(canonical({"method": METHOD, "groups": names, "natural": shares.tolist(), "targets": about}))
    for name in ("group", "tokens", "hash"):
        digest.update(table[name].to_numpy().tobytes())
    for path in [*(_tokens_file(folder, number) for number in files), *sorted(folder.glob("targets/*/*/*/[!.]*.npy"))]:
        digest.update(sha256_file(path).encode())
    for path in sorted([*folder.glob("units/[!.]*"), *folder.glob("tokenizer/[!.]*")]):
        digest.update(sha256_file(path).encode())
    reader = tokenizer.read(folder / "tokenizer", job.what) if job.config.trains else ngram.load(folder / "units", job.what)
    pool = {
        "groups": names, "natural": (shares / shares.sum()).tolist(), "targets": [target["name"] for target in about],
        "digest": digest.hexdigest(), "seed": job.config.seed, "files": files, "units": reader.digest,
        "kind": np.dtype(_kind(reader)).name, "notes": notes,
    }  # fmt: skip
    write_json(folder / "pool.json", pool)


def _tokens_file(folder: Path, number: int) -> Path:
    return folder / "tokens" / f"{number:05d}.bin"


def _kind(of: tokenizer.Tokenizer | ngram.NGram) -> Any:
    """The type of tokens on disk."""
    return np.uint16 if of.vocabulary <= 1 << 16 else np.uint32


def _write_matrix(folder: Path, files: Sequence[int]) -> None:
    """float32 (tokens of the targets, groups): ln p by the n-gram model of each group."""
    columns = [np.load(folder / "ngram" / f"{number:05d}.npy", mmap_mode="r", allow_pickle=False) for number in files]
    with storage.atomic(folder / "ngram.npy") as path:
        matrix = np.lib.format.open_memmap(path, "w+", np.float32, (len(columns[0]), len(columns)))
        for piece in _pieces(matrix):
            for i, column in enumerate(columns):
                matrix[piece, i] = column[piece]
        matrix.flush()
        del matrix


def _base(job: _Job, task: Task) -> None:
    """The model from which proxies go on: of natural proportions, and kept for other searches with the same pool."""
    from curate.lm.train import train

    pool, config = Pool.open(job.folder(task)), job.config
    selection = pool.by_weights(pool.natural, config.base_tokens)
    key = _key({"base": config.digest() | {"tokens": 0}, "pool": pool.digest, "selection": selection.digest})
    kept = _kept_in(task, job.stage) / f"base-{key}"
    if not (kept / "training.json").is_file():
        with _alone(kept.with_name(f"{kept.name}.work")) as work:
            made = compose(pool, selection, work / "packed", config.seed)
            how = config.training(config.base_tokens)
            how["threads"] = None  # nothing else is to be done meanwhile
            train(work / "packed", work / "model", tokens=made.tokens - 1, schedule="wsd", **how)
            with storage.atomic_folder(kept, replace=False) as new:
                shutil.copytree(work / "model", new, dirs_exist_ok=True)
    with storage.atomic_folder(job.folder(task) / "base") as new:
        shutil.copytree(kept, new, dirs_exist_ok=True)


# --------------------------------------------------------------------------------------------- targets


def _write_targets(job: _Job, task: Task, notes: dict[str, int]) -> None:
    """The texts of the targets of the lowest hashes, and their questions; and the hashes of all texts."""
    folder, config = job.folder(task), job.config
    salt = np.uint64(xxhash.xxh3_64_intdigest(b"target", config.seed))
    room = 4 * BYTES * config.target_tokens
    about, known = [], [np.empty(0, np.uint64)]
    for number, name in enumerate(job.target.names()):
        reading = dataclasses.replace(task, counters={})
        schema = pa.schema([("key", pa.uint64()), ("text", pa.string())])
        held, texts, size = schema.empty_table(), 0, 0
        for array in job.target.read(name, job.what, reading):
            hashes = _text_hash(array)
            known.append(hashes)
            texts += len(array)
            part = pa.table([pa.array(_mixed(hashes ^ salt)), _cut(array, room)], schema=schema)
            held, size = pa.concat_tables([held, part]), size + part.nbytes
            if size > _BUFFER + room:
                held, size = _lowest_texts(held, room), room
        if not texts:
            where = ", ".join((*dict(job.target.files).get(name, ()), *job.target.texts))[:200]
            found = "".join(f"; {n:,} {what}" for what, n in reading.counters.items())
            raise StageError(f"{job.what}: the target {name!r} holds no text ({where}{found}): give files with texts")
        write_table(folder / "targets" / f"{number:03d}" / "texts.parquet", _lowest_texts(held, room))
        items = _lowest_questions(job.target.questions(name, job.what, dataclasses.replace(task, counters={})), salt, room)
        write_table(folder / "targets" / f"{number:03d}" / "questions.parquet", items)
        about.append({"name": name, "texts": texts})
        for text, n in reading.counters.items():
            notes[text] = notes.get(text, 0) + n
    write_json(folder / "targets.json", about)
    _save(folder / "known.npy", np.unique(np.concatenate(known)))


def _lowest_texts(table: pa.Table, room: int) -> pa.Table:
    table = table.combine_chunks()
    table = table.take(pa.array(np.argsort(table["key"].to_numpy(), kind="stable"))).combine_chunks()
    sizes = pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy().astype(np.int64)
    return table.filter(pa.array(np.cumsum(sizes) - sizes < room)).combine_chunks()


def _lowest_questions(questions: Iterator[Question], salt: np.uint64, room: int) -> pa.Table:
    """`question`, `choices` and `right` of the questions of the lowest hashes."""
    schema = pa.schema([("question", pa.string()), ("choices", pa.list_(pa.string())), ("right", pa.int64())])
    keyed = [
        (xxhash.xxh3_64_intdigest(canonical([q.question, *q.choices]), int(salt)), q.question, q.choices, q.right)
        for q in questions
    ]
    keyed.sort()
    sizes = np.array([sum(len(q) + len(choice) for choice in c) for _, q, c, _ in keyed], np.int64)
    rows = [keyed[i][1:] for i in np.flatnonzero(np.cumsum(sizes) - sizes < room).tolist()]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=schema)


# --------------------------------------------------------------------------------------------- proxies


def measured(
    task: Task, stage: GlobalStage, pool: Pool, config: Config, selection: Selection | np.ndarray, seed: int
) -> Measured:
    """`measure`, unless it was done before (see `cached`); or the same with n-gram models, which take no longer than to ask.

    selection: documents; or weights (float64 per group), out of which `by_weights` chooses `config.tokens`. An n-gram model is
    trained on documents (`measure_documents`), while weights mix those of the groups. seed: of the order of documents; first
    weights are the same for all.
    """
    if not config.trains:
        return measure_documents(pool, selection) if isinstance(selection, Selection) else measure_ngram(pool, selection)
    chosen = selection if isinstance(selection, Selection) else pool.by_weights(selection, config.tokens)
    key = measurement_key(pool, config, chosen, seed)
    return cached(task, stage, key, lambda: measure(pool, config, chosen, _kept_in(task, stage) / "work", seed))


def measurement_key(pool: Pool, config: Config, selection: Selection, seed: int) -> str:
    """Equal for measurements that have to be the same."""
    return _key({"config": config.digest(), "pool": pool.digest, "selection": selection.digest, "seed": seed})


def _key(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical({"method": METHOD, **value})).hexdigest()[:40]


def _kept_in(task: Task, stage: GlobalStage) -> Path:
    """Where measurements stay: with the run, so that an edited recipe finds them."""
    return (task.folder(stage) if task.root is None else task.root / "index") / "proxies"


def cached(task: Task, stage: GlobalStage, key: str, fn: Callable[[], Measured]) -> Measured:
    """`fn()`, or what is known under the key: a JSON file in `index/proxies` of the run (of the fit in memory), written at once
    when it ends."""
    path = _kept_in(task, stage) / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        held = read_json(path)
        if held["key"] == key:
            return Measured.from_json(held["measured"])
    found = fn()
    write_json(path, {"key": key, "measured": found.to_json()})
    return found


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The folder, or one beside it while another process works in it; removed when the block ends well.

    Where it does not, the folder stays, so that a training goes on; one beside it never does.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.lock")
    with path.open("w") as lock:
        mine = folder
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), path.stat()):  # it was released and removed meanwhile
                raise BlockingIOError
        except OSError:
            mine = folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{folder.name}")
        mine.mkdir(exist_ok=True)
        try:
            yield mine
        except BaseException:
            if mine != folder:
                shutil.rmtree(mine, ignore_errors=True)
            raise
        shutil.rmtree(mine)
        if mine == folder:
            path.unlink()


def compose(pool: Pool, selection: Selection, folder: Path, seed: int) -> packed.Packed:
    """The documents of a selection as a row of tokens for `curate.lm.train.train`, in an order by hash of (seed, place)."""
    place = np.arange(len(selection.documents), dtype=np.uint64)
    keys = _mixed(place + np.uint64(xxhash.xxh3_64_intdigest(b"compose", seed)))
    order = np.argsort(keys, kind="stable")
    documents, lengths = selection.documents[order], selection.lengths[order]
    if not len(documents):
        raise StageError("nothing is chosen to train a proxy on: raise its tokens")
    reader = tokenizer.read(pool.folder / "tokenizer", "proxies")
    starts, group = pool.starts[documents], pool.documents["group"].to_numpy()[documents]
    of = [pool.tokens(number) for number in range(len(pool.groups))]
    with storage.atomic(folder / packed.TOKENS) as path:
        row = np.lib.format.open_memmap(path, "w+", _kind(reader), (selection.tokens + 1,))
        at = 0
        for g, start, length in zip(group.tolist(), starts.tolist(), lengths.tolist(), strict=True):
            row[at] = reader.separator
            row[at + 1 : at + 1 + length] = of[g][start : start + length]
            at += 1 + length
        row[at] = reader.separator
        row.flush()
        del row
    for name in tokenizer.FILES:
        shutil.copyfile(pool.folder / "tokenizer" / name, folder / name)
    texts = _key({"pool": pool.digest, "selection": selection.digest, "seed": seed})
    about = {
        "tokens": selection.tokens + 1, "documents": len(documents), "separator": reader.separator,
        "vocabulary": reader.vocabulary, "tokenizer": reader.digest, "texts": texts,
    }  # fmt: skip
    write_json(folder / packed.ABOUT, about)
    return packed.Packed.open(folder)


def measure(pool: Pool, config: Config, selection: Selection, work: Path, seed: int) -> Measured:
    """Train a proxy on the documents, evaluate it on the targets, and remove it.

    work: a folder, in which a training that was killed goes on when it is called again with the same values; two calls with the
    same do not disturb each other.
    """
    from curate.lm import neural
    from curate.lm.train import train

    with _alone(work / measurement_key(pool, config, selection, seed)) as folder:
        made = compose(pool, selection, folder / "packed", seed)
        how = config.training(made.tokens - 1)
        if config.base_tokens:
            how["start"] = pool.folder / "base"
            if config.lr is None:
                del how["lr"]
        train(folder / "packed", folder / "model", tokens=made.tokens - 1, **how)
        model = neural.load(str(folder / "model"), device=config.device, dtype=config.dtype, what="proxies")
        targets = {}
        for number, target in enumerate(pool.about):
            targets[target["name"]] = _evaluated(model, pool.folder / "targets" / f"{number:03d}" / "proxy", target["proxy"])
    return Measured(targets, made.tokens - 1, selection.repeats)


def _evaluated(model: Neural, folder: Path, about: Mapping[str, int]) -> dict[str, float]:
    """What a model loses on a target, and how often it chooses what is right."""
    runs = _Runs(folder / "texts")
    nll, _ = model.spans(runs.ids, runs.bounds[:-1], runs.bounds[1:])
    found = _losses(float(math.fsum(nll)), about)
    if about["items"]:
        runs = _Runs(folder / "choices")
        starts, stops = runs.bounds[:-1], runs.bounds[1:]
        whole, _ = model.spans(runs.ids, starts, stops)
        _, first, same = np.unique(np.stack([runs.item, runs.skip]), axis=1, return_index=True, return_inverse=True)
        asked, _ = model.spans(runs.ids, starts[first], (starts + runs.skip)[first])  # of equal questions one
        found |= _accuracies(asked[same.ravel()] - whole, runs)
    return found


def _losses(nll: float, about: Mapping[str, int]) -> dict[str, float]:
    tokens, size = about["tokens"], about["bytes"]
    return {"loss": nll / tokens, "tokens": tokens, "bytes": size, "bits_per_byte": nll / size / math.log(2)}


def _accuracies(logprobs: np.ndarray, runs: _Runs) -> dict[str, float]:
    """How often the right choice is the likeliest, of equal ones the first; and what is right by chance."""
    items, first, many = np.unique(runs.item, return_index=True, return_counts=True)
    number = np.repeat(np.arange(len(items)), many)
    found = {}
    for name, scores in (("accuracy", logprobs), ("accuracy_per_byte", logprobs / np.maximum(runs.bytes, 1))):
        order = np.lexsort((np.arange(len(scores)), -scores, number))
        found[name] = float(runs.right[order[first]].mean())
    return {**found, "chance": float((1 / many).mean()), "items": len(items)}


# --------------------------------------------------------------------------------------------- n-gram models


def _matrix(pool: Pool) -> np.ndarray:
    return np.load(pool.folder / "ngram.npy", mmap_mode="r", allow_pickle=False)


def _parts(pool: Pool) -> list[tuple[slice, slice]]:
    """Of each target, the rows of the matrix that are its texts and its choices."""
    found, at = [], 0
    for target in pool.about:
        about = target["ngram"]
        middle = at + about["tokens"]
        found.append((slice(at, middle), slice(middle, middle + about["choice_tokens"])))
        at = middle + about["choice_tokens"]
    return found


def _pieces(rows: np.ndarray) -> Iterator[slice]:
    """Of the rows of the matrix, so many at a time that a piece is of about the same size whatever the number of groups."""
    step = max(1, _CHUNK // rows.shape[1])
    return (slice(at, at + step) for at in range(0, len(rows), step))


def _mixed_logprobs(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64: ln of the weighted mean of probabilities, by rows (tokens, groups) of ln p."""
    found, used = np.empty(len(rows)), np.flatnonzero(weights)
    for piece in _pieces(rows):
        part = np.asarray(rows[piece][:, used], np.float64)
        most = part.max(1)
        found[piece] = most + np.log(np.einsum("tk,k->t", np.exp(part - most[:, None]), weights[used]))
    return found


def measure_ngram(pool: Pool, weights: Sequence[float] | np.ndarray) -> Measured:
    """How the mixture of the groups' n-gram models does on the targets. Losses are of its own tokens, not those of proxies."""
    shares, matrix, parts = pool.checked(weights), _matrix(pool), _parts(pool)
    return Measured(_judged(pool, lambda number, kind: _mixed_logprobs(matrix[parts[number][kind]], shares)))


def measure_documents(pool: Pool, selection: Selection) -> Measured:
    """How an n-gram model of these documents does on the targets, where which of a group are taken matters.

    The tokens of the pool have to be those of n-gram models (`Config.models`).
    """
    from curate.lm import ngram

    units = ngram.load(pool.folder / "units", "proxies").units
    if units.digest != pool.units:
        raise StageError("the pool holds the tokens of transformers: n-gram models cannot be trained on them")
    counts = ngram.Counts(units, ngram.ORDER)
    starts, group = pool.starts[selection.documents], pool.documents["group"].to_numpy()[selection.documents]
    for number in np.unique(group).tolist():
        mine = group == number
        lengths = selection.lengths[mine]
        ids = pool.tokens(number)[_spread(starts[mine], lengths)].astype(np.int32)
        counts.add(ids, ngram._runs(np.append(0, np.cumsum(lengths)), lm.WINDOW))
    if not counts.tokens:
        raise StageError("nothing is chosen to train a proxy on: raise its tokens")
    model = ngram.NGram(units, (counts.table(2),), (1.0,))
    folder, kinds = pool.folder / "targets", ("texts", "choices")
    found = _judged(pool, lambda number, kind: _scored(model, _Runs(folder / f"{number:03d}" / "ngram" / kinds[kind])))
    return Measured(found, selection.tokens, selection.repeats)


def _judged(pool: Pool, logprobs: Callable[[int, int], np.ndarray]) -> dict[str, dict[str, float]]:
    """What n-gram models show on each target. logprobs: of the number of a target and 0 (texts) or 1 (choices), ln p of each
    token that is judged."""
    targets = {}
    for number, target in enumerate(pool.about):
        found = _losses(-math.fsum(logprobs(number, 0)), target["ngram"])
        if target["ngram"]["items"]:
            runs = _Runs(pool.folder / "targets" / f"{number:03d}" / "ngram" / "choices")
            choice = np.repeat(np.arange(len(runs.skip)), np.diff(runs.bounds) - runs.skip)
            found |= _accuracies(np.bincount(choice, logprobs(number, 1), len(runs.skip)), runs)
        targets[target["name"]] = found
    return targets


def em(
    pool: Pool,
    start: Sequence[float] | np.ndarray | None = None,
    *,
    caps: Sequence[float] | np.ndarray | None = None,
    counts: Mapping[str, np.ndarray] | None = None,
    gain: float = GAIN,
) -> np.ndarray:
    """The weights (float64 per group, sum 1) whose mixture of n-gram models loses least, as a mean over targets.

    start: weights to begin with; None: natural proportions. caps: the most that each group may get. counts: how often each run
    of tokens of a target counts, by target (see `resampled`); None: once. gain: nats per token; it ends when an iteration gains
    less.

    Raises StageError for caps that leave no room for a sum of one.
    Source: expectation maximisation for the weights of a mixture (Dempster et al. 1977); with caps, the maximum of each step
    under them, which takes what is above a cap and gives it to the others in proportion.
    """
    weights = pool.checked(pool.natural if start is None else start)
    limits = np.full(len(weights), np.inf) if caps is None else np.asarray(caps, np.float64)
    if limits.shape != weights.shape or not limits.sum() >= 1 - 1e-9:
        raise StageError("the most that groups may get sums to less than 1: raise max_usage")
    held = list(_chances(pool, counts)) if _matrix(pool).size <= HELD else None
    weights = _capped(np.maximum(weights, FLOOR), limits)
    before = -math.inf
    for _ in range(ROUNDS):
        reached, share = 0.0, np.zeros(len(weights))
        for chances, counted in held or _chances(pool, counts):
            mixed = np.einsum("tk,k->t", chances, weights)
            reached += float((counted * np.log(mixed)).sum())
            share += np.einsum("tk,t->k", chances, counted / mixed)
        if reached - before < gain:
            break
        before = reached
        weights = _capped(np.maximum(weights * share, FLOOR), limits)
    return np.where(weights <= 2 * FLOOR, 0.0, weights) / weights[weights > 2 * FLOOR].sum()


def _capped(weights: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """What maximises the sum of weights * ln(x) where x sums to one and none is above its limit: min(limit, c * weights)."""
    order = np.argsort(limits / weights, kind="stable")  # in which they meet their limits as c grows
    met = np.append(0.0, np.cumsum(limits[order]))[:-1]
    rest = np.cumsum(weights[order][::-1])[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = (1.0 - met) / rest
        fits = scale * weights[order] <= limits[order]
    at = int(np.argmax(fits))
    return np.minimum(limits, scale[at] * weights) if fits.any() else limits / limits.sum()


def _chances(pool: Pool, counts: Mapping[str, np.ndarray] | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """By pieces, (how probable each token is by each group, as part of the most probable; what it counts for)."""
    matrix = _matrix(pool)
    for number, (target, (texts, _)) in enumerate(zip(pool.about, _parts(pool), strict=True)):
        rows = matrix[texts]
        each = np.ones(len(rows))
        if counts is not None:
            bounds = _Runs(pool.folder / "targets" / f"{number:03d}" / "ngram" / "texts").bounds
            each = np.repeat(np.asarray(counts[target["name"]], np.float64), np.diff(bounds))
        each /= each.sum() * len(pool.about)
        for piece in _pieces(rows):
            part = np.asarray(rows[piece], np.float64)
            yield np.exp(part - part.max(1, keepdims=True)), each[piece]


def resampled(pool: Pool, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Counts for `em`: the texts of each target drawn anew with repetition; of a target of fewer than ten texts, its runs."""
    found = {}
    for number, target in enumerate(pool.about):
        text = _Runs(pool.folder / "targets" / f"{number:03d}" / "ngram" / "texts").text
        _, unit = np.unique(text, return_inverse=True)
        if unit.max() < 9:
            unit = np.arange(len(text))
        many = int(unit.max()) + 1
        found[target["name"]] = rng.multinomial(many, np.full(many, 1 / many))[unit].astype(np.float64)
    return found
