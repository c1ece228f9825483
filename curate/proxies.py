"""Proxies: small models that say how good a mixture is, and the pool of documents that they are trained on.

A search tries many mixtures, so what they are composed of is prepared once: of each group the documents of the lowest hash, as
tokens on disk (`pool_steps`, `Pool`). A mixture is then a choice among these (`Selection`), a packed row of tokens, a training
and a loss on each target (`measure`). What was measured is a JSON file under a key of all that decides it (`measured`), so a
search that is killed repeats no proxy.

No training is needed where the models are n-gram models: a mixture of the models of all groups is such a model as well, and how
probable each holds each token of a target is on disk. `measure_ngram` judges a mixture by it, and `em` finds the best one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.stage import GlobalStage, Step, Task

NGRAM = "ngram"
TARGET = "target"  # the name of a target that was given none


@dataclass(frozen=True, kw_only=True)
class Config:
    """What decides a measurement, beside the pool and what is chosen out of it.

    models: `ngram`, or a size of `curate.lm.train.SIZES`. tokens: that a proxy is trained on. base_tokens: of natural
    proportions, that a model is trained on from which each proxy goes on; 0: each begins with the same random weights. window:
    tokens that are read at a time. vocabulary: of the tokenizer, which is trained on the pool. lr, batch_tokens: of a proxy;
    None: see `how`. target_tokens: of each target that a proxy is evaluated on at most; of questions, those of their choices
    too. device, dtype: as in `curate.lm.train`. seed: of hashes, orders and first weights.
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
        raise NotImplementedError

    @property
    def trains(self) -> bool:
        """Whether proxies are trained, rather than n-gram models mixed."""
        return self.models != NGRAM


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
        raise NotImplementedError

    def check(self, what: str) -> None:
        """Raises RecipeError for empty names, or where there is neither a file nor a text."""
        raise NotImplementedError

    def names(self) -> tuple[str, ...]:
        """Of all targets, in order."""
        raise NotImplementedError

    def paths(self, what: str) -> tuple[str, ...]:
        """The local files, for `Stage.files`. Raises RecipeError for one that is not there or cannot be read."""
        raise NotImplementedError

    def has_choices(self, what: str) -> bool:
        """Whether every target has questions with choices, so that there is an accuracy of each."""
        raise NotImplementedError


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
    def digest(self) -> str:
        """Equal for the same documents and lengths only."""
        raise NotImplementedError


@dataclass(frozen=True)
class Measured:
    """What a proxy has shown.

    targets: by name: `loss` (nats per token), `tokens` and `bytes` of it, `bits_per_byte`, and where there are choices
    `accuracy`, `accuracy_per_byte` (the choice that is likeliest per byte), `chance` and `items`. tokens: that the proxy was
    trained on; 0 where nothing was. repeats: how often the document was read that was read most.
    """

    targets: dict[str, dict[str, float]]
    tokens: int = 0
    repeats: int = 1

    def metric(self, name: str) -> float:
        """The mean over targets of `loss`, `bits_per_byte`, `accuracy` or `accuracy_per_byte`. Raises StageError where one has
        none."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads."""
        raise NotImplementedError

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Measured:
        """What `to_json` gave."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pool:
    """Documents of a corpus by group, as tokens, with targets: what `pool_steps` leaves.

    groups: those that have tokens here, in order. natural: float64: their shares of the tokens of the corpus, sum 1. digest: of
    all there is. notes: what people should know of how it was made, with counts.
    """

    folder: Path
    groups: tuple[str, ...]
    natural: np.ndarray
    targets: tuple[str, ...]
    digest: str
    notes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str) -> Pool:
        """The pool in a folder, `pool_folder(stage, task)` of a fit. Raises StageError where there is none."""
        raise NotImplementedError

    @functools.cached_property
    def documents(self) -> pa.Table:
        """`group` (int32, of `groups`), `tokens` (int64, of the tokenizer of the proxies), `corpus_tokens` (int64, of the
        recipe), `hash` (uint64) and the columns that were asked for; sorted by group, then hash."""
        raise NotImplementedError

    def shares(self, weights: Mapping[str, float]) -> np.ndarray:
        """Weights by name as float64 in the order of `groups`, sum 1; groups that are not named have none.

        Raises StageError for a group that there is not, or weights without a positive sum.
        """
        raise NotImplementedError

    def by_weights(self, weights: Sequence[float] | np.ndarray, tokens: int) -> Selection:
        """So many tokens, of which each group has its share.

        weights: one per group, with any positive sum. Each budget is exact to one token; of each group the documents come in
        the order of their hashes, again from the first when all were taken, and the last is cut.
        """
        raise NotImplementedError

    def by_counts(self, copies: np.ndarray, tokens: int) -> Selection:
        """So many tokens of the documents, each as often as its count (int64) says, in an order by hash.

        Where that gives more tokens, those that come first are taken; where it gives fewer, it begins again.
        """
        raise NotImplementedError

    def by_rates(self, rates: np.ndarray, tokens: int) -> Selection:
        """So many tokens, if each document of the corpus were taken `rates` times (float64 per document of the pool), scaled.

        A group counts for what it has of the corpus, not for what it has of the pool. Fractions of a copy are rounded up or
        down by hash.
        """
        raise NotImplementedError


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
    of the lowest hashes. columns: that are kept for each document.
    Raises, when they run, StageError where no group or no target has a token.
    """
    raise NotImplementedError


def pool_folder(stage: GlobalStage, task: Task) -> Path:
    """Where the pool of a stage is."""
    return task.folder(stage) / "pool"


def measured(
    task: Task, stage: GlobalStage, pool: Pool, config: Config, selection: Selection | np.ndarray, seed: int
) -> Measured:
    """`measure`, or `measure_ngram` where the models are such, unless it was done before: see `cached`.

    selection: documents; for n-gram models, and where weights are all there is, the weights (float64 per group), out of which
    `by_weights` chooses `config.tokens`. seed: of the order of documents and of windows; first weights are the same for all.
    """
    raise NotImplementedError


def cached(task: Task, stage: GlobalStage, key: str, fn: Callable[[], Measured]) -> Measured:
    """`fn()`, or what is known under the key: a JSON file in `index/proxies` of the run (of the fit in memory), written at once
    when it ends."""
    raise NotImplementedError


def measure(pool: Pool, config: Config, selection: Selection, work: Path, seed: int) -> Measured:
    """Train a proxy on the documents, evaluate it on the targets, and remove it.

    work: a folder, of which a training that was killed goes on when it is called again with the same values; two calls with the
    same do not disturb each other.
    """
    raise NotImplementedError


def measure_ngram(pool: Pool, weights: Sequence[float] | np.ndarray) -> Measured:
    """How the mixture of the groups' n-gram models does on the targets. Losses are of its own tokens, not those of proxies."""
    raise NotImplementedError


def em(
    pool: Pool,
    start: Sequence[float] | np.ndarray | None = None,
    *,
    caps: Sequence[float] | np.ndarray | None = None,
    counts: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """The weights (float64 per group, sum 1) whose mixture of n-gram models loses least, as a mean over targets.

    start: weights to begin with; None: natural proportions. caps: the most that each group may get. counts: how often each
    text of a target counts, by target (for resampling); None: once.
    """
    raise NotImplementedError
