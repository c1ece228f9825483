"""What the stages that choose documents by a score have in common: how much they take, in which units, and where the cut is.

The units are documents, or windows of them. Each has a score, a number of tokens and a hash of (seed, id), and the best are
taken until a budget is full. The cuts are exact, whatever the size of the corpus (`curate.ranks`), and nothing but scores,
tokens and ids is read for them: who wants another budget does not score again.

Targets, which most of these stages are about, are read here as well (`target_texts`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import lm, ranks, reference
from curate.errors import RecipeError, SourceError, StageError
from curate.lm import pair
from curate.stage import REASON, ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, operational, with_columns
from curate.stages.quantile import ordered_bits
from curate.storage import read_table

ENDS = "window_ends"  # of `pair_loss`: at which byte each window of a text ends
GAP = "\n\n"  # between windows of a text that were not neighbours
_DRAW = "draw"  # folder of the fit for the cut that divides candidates from the rest
_TINY_POOL = "selections from a pool of fewer tokens than `tokens` times `tau`: all of it was compared"


@dataclass(frozen=True)
class Units:
    """What can be chosen from a batch.

    bounds: int64 (rows + 1): the units of row i are bounds[i]:bounds[i + 1]. score: float64, NaN for what cannot be chosen.
    tokens: int64. hash: uint64: the order of candidates, and of equal scores; those of one row differ.
    """

    bounds: np.ndarray
    score: np.ndarray
    tokens: np.ndarray
    hash: np.ndarray

    @functools.cached_property
    def row(self) -> np.ndarray:
        """int64: the row of each unit, as an index into the batch."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    def any(self, units: np.ndarray) -> np.ndarray:
        """Which rows have one of these units (bool)."""
        so_far = np.append(0, np.cumsum(units))
        return so_far[self.bounds[1:]] > so_far[self.bounds[:-1]]

    def best(self) -> np.ndarray:
        """The highest score of each row (float64); -inf for one without."""
        best = np.full(len(self.bounds) - 1, -np.inf)
        known = ~np.isnan(self.score)
        np.maximum.at(best, self.row[known], self.score[known])
        return best


@dataclass(frozen=True, kw_only=True)
class Selecting(GlobalStage):
    """A stage that keeps the documents, or the windows of documents, with the highest scores.

    tau: one token in so many stays. keep: a share of the units instead, above 0 and at most 1. tokens: a budget; with `tau`
    that many times as many tokens are first drawn at random as candidates, and the best of these stay. by: "document" or
    "window". seed: of the draw, and of the order of equal scores.

    Of the units in order of their score, the longest run from the top that does not exceed the budget stays.

    For authors of such a stage: give `code`, `score_columns`, `document_scores`, and `window_scores` if it has windows.
    """

    code: ClassVar[str]  # what its reasons begin with
    missed: ClassVar[str] = "not_chosen"
    unknown: ClassVar[str] = "no_score"

    tau: float | None = None
    keep: float | None = None
    tokens: int | None = None
    by: Literal["document", "window"] = "document"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.tau is not None and not 1 <= self.tau < math.inf:
            raise RecipeError(f"{self.code}: tau is {self.tau}; one token in so many stays, so it is at least 1")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise RecipeError(f"{self.code}: keep is {self.keep}; it is a share, above 0 and at most 1")
        if self.tokens is not None and self.tokens < 0:
            raise RecipeError(f"{self.code}: tokens is {self.tokens}; a budget cannot be negative")
        if self.keep is not None and (self.tau is not None or self.tokens is not None):
            other = "tau" if self.tau is not None else "tokens"
            raise RecipeError(f"{self.code}: give `keep`, a share, or `{other}`, and not both")
        if self.by not in ("document", "window"):
            raise RecipeError(f"{self.code}: by is {self.by!r}; it is 'document' or 'window'")

    # ------------------------------------------------------------------ for authors

    def score_columns(self) -> tuple[str, ...]:
        """Columns out of which scores are made."""
        return ()

    def document_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        """float64 per document; NaN where there is none."""
        raise NotImplementedError

    def window_scores(self, batch: pa.RecordBatch) -> np.ndarray:
        """float64 per window of the batch, one document after the other."""
        raise NotImplementedError

    @property
    def ends(self) -> str:
        """The column that says where windows end."""
        return ENDS

    def units(self, task: Task, batch: pa.RecordBatch) -> Units:
        """What can be chosen from a batch with the columns of `fit_reads`. task: of the shard."""
        tokens = pc.fill_null(batch["tokens"], 0).to_numpy(zero_copy_only=False).astype(np.int64)
        hashes = hashes_of(batch["id"], self.seed)
        if self.by == "document":
            return Units(np.arange(batch.num_rows + 1), self.document_scores(batch), tokens, hashes)
        bounds, ends = windows_of(batch[self.ends])
        score = self.window_scores(batch)
        if len(score) != len(ends):
            raise StageError(
                f"{self.code}: {len(score):,} windows have a score, but {self.ends} has {len(ends):,}; score again"
            )
        return Units(bounds, score, shared_out(tokens, bounds, ends), window_hashes(hashes, bounds))

    def score_fields(self) -> pa.Schema:
        """The columns that are written besides."""
        return pa.schema([])

    def written(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """The columns of `score_fields`."""
        return {}

    # ------------------------------------------------------------------ the stage

    @property
    def chooses(self) -> bool:
        """Whether it was told how much stays."""
        return self.tau is not None or self.keep is not None or self.tokens is not None

    @property
    def draws(self) -> bool:
        """Whether candidates are drawn first."""
        return self.tau is not None and self.tokens is not None

    @property
    def candidates(self) -> int:
        """How many tokens are drawn, out of which the best are chosen."""
        return min(int((self.tokens or 0) * Fraction(repr(self.tau or 1))), 1 << 62)

    def bound(self, columns: Collection[str]) -> Stage:
        self.asked()
        return self

    def asked(self) -> None:
        """Raises RecipeError where it was not told how much stays."""
        if not self.chooses:  # only now, so that a recipe can leave it to those who run it
            raise RecipeError(
                f"{self.code}: give `tau` (one token in so many stays), `keep` (a share of the {self.by}s), or `tokens` "
                "(a budget)"
            )

    @property
    def counts(self) -> bool:
        """Whether units count by their number, and not by their tokens."""
        return self.keep is not None

    def wanted(self, total: int) -> int:
        """What stays of all candidates, of which there are so many tokens (or units)."""
        if self.keep is not None:
            return int(Fraction(repr(self.keep)) * total)
        if self.tokens is not None:
            return min(self.tokens, total)
        return total if self.tau is None else int(total / Fraction(repr(self.tau)))

    def unit_reads(self) -> tuple[str, ...]:
        """Columns that `units` needs."""
        windows = (self.ends,) if self.by == "window" else ()
        return tuple(dict.fromkeys((*self.score_columns(), "id", "tokens", *windows)))

    def fit_reads(self) -> tuple[str, ...]:
        return self.unit_reads()

    def reads(self) -> tuple[str, ...]:
        return (*self.unit_reads(), "text") if self.by == "window" else self.unit_reads()

    def writes(self) -> pa.Schema:
        return pa.schema([*self.score_fields(), *([("text", pa.string())] if self.by == "window" else [])])

    def reasons(self) -> tuple[str, ...]:
        codes = dict.fromkeys((self.missed, *(("not_drawn",) if self.draws else ()), self.unknown))
        return tuple(f"{self.code}.{code}" for code in codes)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        found: list[Step] = []
        if self.draws:
            keys = Step("keys", partial(_write_keys, self, True), reads=self.unit_reads())
            first, *rest = ranks.steps(self, keys, partial(_targets, self, True), n_shards, n_docs, 1)
            found = [first, *(replace(step, fn=partial(_inside, self, step.fn)) for step in rest)]
            found = [replace(step, name=f"{_DRAW}_{step.name}") for step in found]
        keys = Step("keys", partial(_write_keys, self, False), reads=self.unit_reads())
        return [*found, *ranks.steps(self, keys, partial(_targets, self, False), n_shards, n_docs, 1)]

    def open(self, task: Task) -> BatchFn:
        drawn = self._drawn(task)
        if self.draws and not len(drawn) and not task.shard:
            task.count(_TINY_POOL)
        return partial(self._process, task, drawn, ranks.keys_of(task.state(self)))

    def _process(self, task: Task, drawn: np.ndarray, cut: np.ndarray, batch: pa.RecordBatch) -> pa.RecordBatch:
        units = self.units(task, batch)
        known = ~np.isnan(units.score)
        candidate = self._first(units, known, drawn, task, batch, random=True)
        chosen = self._first(units, candidate, cut, task, batch)
        stays = units.any(chosen)
        why = pa.array([f"{self.code}.{self.missed}"] * batch.num_rows, pa.string())
        if self.draws:
            why = pc.if_else(pa.array(units.any(candidate)), why, f"{self.code}.not_drawn")
        scored = units.any(known)
        why = pc.if_else(pa.array(scored), why, f"{self.code}.{self.unknown}")
        columns = {
            **self.written(batch),
            REASON: pc.if_else(pa.array(stays), pa.scalar(None, pa.string()), why),
            "_value": pa.array(units.best(), mask=stays | ~scored),
        }
        if self.by == "window":
            columns["text"] = chosen_text(batch["text"], windows_of(batch[self.ends])[1], units.bounds, chosen)
        return with_columns(batch, columns)

    def _drawn(self, task: Task) -> np.ndarray:
        """The first key that is no candidate; empty if all are."""
        if not self.draws:
            return ranks.pack(0, [], [], [])
        return ranks.keys_of(read_table(task.folder(self) / _DRAW / "state.parquet"))

    def _keys(
        self, units: Units, which: np.ndarray, task: Task, batch: pa.RecordBatch, random: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """(keys of those units, their indices): in the order of the scores, or at random."""
        at = np.flatnonzero(which)
        bits = np.zeros(len(at), np.uint64) if random else ~ordered_bits(pa.array(units.score[at], pa.float64()))
        rows = batch[ROW].to_numpy()[units.row[at]].astype(np.uint64)
        return ranks.pack(0, bits, units.hash[at], np.uint64(task.shard or 0) << np.uint64(32) | rows), at

    def _first(
        self,
        units: Units,
        which: np.ndarray,
        cut: np.ndarray,
        task: Task,
        batch: pa.RecordBatch,
        random: bool = False,
    ) -> np.ndarray:
        """Which of those units come before a cut (bool); all if there is none."""
        if not len(cut):
            return which
        keys, at = self._keys(units, which, task, batch, random)
        found = np.zeros(len(which), bool)
        found[at] = ranks.before(keys, np.repeat(cut[:1], len(keys)))
        return found


_HANDED = ("target", "texts", "column", "models", "prior", "conditional", "sample", "folds", "window", "device", "prefix")


@dataclass(frozen=True, kw_only=True)
class ByPair(Selecting):
    """A stage that chooses by what `pair_loss` writes, and brings it along as `<id>.losses` with the same parameters."""

    score: ClassVar[Literal["both", "conditional"]] = "both"

    # the fingerprint of `pair_loss`, which comes before that of this stage, knows what these decide
    target: str | tuple[str, ...] = operational(())
    texts: tuple[str, ...] = operational(())
    column: str = operational("text")
    models: str = operational(pair.NGRAM)
    prior: str = operational("")
    conditional: str = operational("")
    sample: int = operational(0)
    folds: int = operational(0)
    window: int = operational(lm.WINDOW)
    device: str = operational("auto")
    training_seed: int = operational(42)
    prefix: str = ""
    scored: bool = False

    def needs(self) -> Mapping[str, Stage]:
        """What is missing is asked for here, in the name of the stage that people know of, and before anything is trained."""
        if self.scored:
            return {}
        self.asked()
        if not (self.target or self.texts or self.conditional):
            raise RecipeError(f"{self.code}: give `target`, files of texts like those that are wanted, or `texts`")
        from curate.stages.pair_loss import PairLoss

        handed = {name: getattr(self, name) for name in _HANDED}
        return {"losses": PairLoss(**handed, seed=self.training_seed, score=self.score)}

    @property
    def ends(self) -> str:
        return self.prefix + ENDS

    @property
    def columns(self) -> tuple[str, ...]:
        """Losses of documents and their tokens, and the same of windows, without `prefix`."""
        models = ("prior", "conditional") if self.score == "both" else ("conditional",)
        windows = (*(f"window_{model}" for model in models), "window_tokens") if self.by == "window" else ()
        return (*(f"nll_{model}" for model in models), "loss_tokens", *windows)

    def score_columns(self) -> tuple[str, ...]:
        return tuple(self.prefix + name for name in self.columns)


# --------------------------------------------------------------------------------------------- the steps of the fit


def _inside(stage: Selecting, fn: Any, task: Task) -> None:
    """A step in a folder of its own: that of the stage holds the same files for its other cut."""
    folders = [(known, name, folder / _DRAW if known is stage else folder) for known, name, folder in task.folders]
    fn(replace(task, folders=folders))


def _write_keys(stage: Selecting, random: bool, task: Task, batches: Batches) -> None:
    """The keys of the units of one shard: in a random order, or of the candidates in the order of their scores."""
    keys, weights = [ranks.pack(0, [], [], [])], [np.empty(0, np.int64)]
    drawn = ranks.pack(0, [], [], []) if random else stage._drawn(task)
    for batch in batches:
        units = stage.units(task, batch)
        which = stage._first(units, ~np.isnan(units.score), drawn, task, batch, random=True)
        found, at = stage._keys(units, which, task, batch, random)
        keys.append(found)
        weights.append(np.ones(len(at), np.int64) if stage.counts else units.tokens[at])
    shard = task.shards[task.shard or 0]
    folder = task.folder(stage) / _DRAW if random else task.folder(stage)
    ranks.write_keys(folder, shard, np.concatenate(keys), np.concatenate(weights), 1, {})


def _targets(
    stage: Selecting, draw: bool, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much stays of all: of candidates, or of what is drawn to be one."""
    found = [min(stage.candidates, total) if draw else stage.wanted(total) for total in totals.tolist()]
    return np.arange(len(groups)), np.zeros(len(groups), np.int64), np.array(found, np.int64)


# --------------------------------------------------------------------------------------------- units


def hashes_of(ids: pa.Array, seed: int, use: str = "selection") -> np.ndarray:
    """uint64 per document, of its id and a seed. use: what for; draws for different uses have nothing in common."""
    from curate.kernels.hashes import finish
    from curate.kernels.keys import hash128

    salt = np.uint64(xxhash.xxh3_64_intdigest(use.encode(), seed & (1 << 64) - 1))
    return finish.py_func(hash128(ids)[:, 0] ^ salt)


def window_hashes(hashes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """uint64 per window, out of that of its document; the windows of one all differ."""
    from curate.kernels.hashes import SPREAD, finish

    counts = np.diff(bounds)
    number = np.arange(bounds[-1]) - np.repeat(bounds[:-1], counts)
    return finish.py_func(np.repeat(hashes, counts) + number.astype(np.uint64) * SPREAD)


def windows_of(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(int64 bounds, values) of a column of lists; a null has none."""
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.append(0, np.cumsum(counts, dtype=np.int64)), lists.flatten().to_numpy(zero_copy_only=False)


def flat(lists: pa.Array) -> np.ndarray:
    """float64 of the values in a column of lists; NaN for null."""
    return windows_of(lists)[1].astype(np.float64)


def numbers(column: pa.Array) -> np.ndarray:
    """float64 of a column of numbers; NaN for null."""
    return pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)


def per_token(loss: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Means over tokens (float64); NaN where there are none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(tokens > 0, loss / tokens, np.nan)


def shared_out(tokens: np.ndarray, bounds: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The tokens of documents by their windows (int64), in proportion to the bytes, and adding up."""
    counts = np.diff(bounds)
    ends = ends.astype(np.int64)
    last = ends[np.maximum(bounds[1:] - 1, 0)] if len(ends) else np.zeros(len(counts), np.int64)
    so_far = np.repeat(tokens, counts) * ends // np.maximum(np.repeat(last, counts), 1)
    before = np.append(0, so_far[:-1])[: len(so_far)]
    before[bounds[:-1][counts > 0]] = 0
    return so_far - before


def window_texts(text: pa.Array, bounds: np.ndarray, ends: np.ndarray) -> pa.Array:
    """The windows of texts (string), one after the other. ends: bytes, of each window."""
    whole = pc.cast(text, pa.binary()).to_pylist()
    starts = np.append(0, ends[:-1])[: len(ends)]
    starts[bounds[:-1][np.diff(bounds) > 0]] = 0
    row = np.repeat(np.arange(len(whole)), np.diff(bounds)).tolist()
    found = [whole[i][a:b] for i, a, b in zip(row, starts.tolist(), ends.tolist(), strict=True)]
    return pc.cast(pa.array(found, pa.binary()), pa.string())


def chosen_text(text: pa.Array, ends: np.ndarray, bounds: np.ndarray, chosen: np.ndarray) -> pa.Array:
    """Texts (string) of their chosen windows; as it was where all are, or none is. ends: bytes, of each window."""
    counts = np.append(0, np.cumsum(chosen))
    taken = counts[bounds[1:]] - counts[bounds[:-1]]
    out = pc.cast(text, pa.binary()).to_pylist()
    for i in np.flatnonzero((taken > 0) & (taken < np.diff(bounds))).tolist():
        stop = ends[bounds[i] : bounds[i + 1]].tolist()
        start = [0, *stop[:-1]]
        at = np.flatnonzero(chosen[bounds[i] : bounds[i + 1]])
        runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
        out[i] = GAP.encode().join(out[i][start[run[0]] : stop[run[-1]]] for run in runs)
    return pc.cast(pa.array(out, pa.binary()), pa.string())


# --------------------------------------------------------------------------------------------- targets

QUESTION = ("question", "choices", "answer")
_UNANSWERED = "questions of the target whose answer is missing, or none of the choices"


def target_files(paths: Sequence[str], stage: str, column: str = "text") -> tuple[str, ...]:
    """The files that targets are read from.

    Raises RecipeError for one that is not there, cannot be read, or has neither the column nor questions.
    """
    found = reference.files(paths, stage)
    for path in found:
        stat = Path(path).stat()
        _target_columns(path, stage, column, stat.st_mtime_ns, stat.st_size)
    return found


def target_texts(paths: Sequence[str], stage: str, task: Task, column: str = "text") -> Iterator[pa.Array]:
    """The texts of targets (string arrays without nulls): Parquet, JSONL or text files, folders, globs, or run folders.

    A file without the column is one of questions: the text is `question` and, behind a space, the right one of `choices`, or
    `answer` where there are none. The answer is the text of a choice, its index from 0, or its letter (or its label, where
    `choices` has `label` and `text` as data sets of the hub have).
    """
    for path in target_files(paths, stage, column):
        stat = Path(path).stat()
        columns = _target_columns(path, stage, column, stat.st_mtime_ns, stat.st_size)
        for batch in reference.batches((path,), columns, stage, task, 1):
            texts = batch[columns[0]]
            if columns[0] != column:
                found = [
                    answered(question, choices, answer)
                    for question, choices, answer in zip(*(batch[name].to_pylist() for name in columns), strict=True)
                ]
                if bad := found.count(None):
                    task.count(_UNANSWERED, bad)
                texts = pa.array(found, pa.string())
            texts = texts.drop_null()
            if len(texts):
                yield texts.cast(pa.string())


@functools.lru_cache(maxsize=1024)
def _target_columns(path: str, stage: str, column: str, _mtime: int, _size: int) -> tuple[str, ...]:
    """The columns that a file of targets is read by. Raises RecipeError."""
    from curate.sources import NoText, Source, document_schema, inventory

    for columns in ((column,), QUESTION):
        source = Source(paths=(path,), text=columns[0])
        try:
            document_schema(inventory(source), source)
        except NoText:
            continue
        except SourceError as error:
            raise RecipeError(f"{stage}: {error}") from None
        return columns
    remedy = "give JSONL or Parquet with one of them, or plain text files"
    raise RecipeError(f"{stage}: the target {path} has neither a column {column!r} nor questions (`question`): {remedy}")


def target_questions(paths: Sequence[str], stage: str, task: Task) -> Iterator[Question]:
    """The questions of targets that have several `choices` and an answer among them; a file without choices has none.

    An answer is read as `target_texts` reads it. What cannot be read so is counted by the task.
    """
    for path in reference.files(paths, stage):
        if not has_choices(path, stage):
            continue
        for batch in reference.batches((path,), QUESTION, stage, task, 1):
            rows = zip(*(batch[name].to_pylist() for name in QUESTION), strict=True)
            for question, choices, answer in rows:
                words, labels = _choices(choices)
                if not words:
                    continue
                right = None if answer is None else _right(words, labels, answer)
                if question is None or right is None:
                    task.count(_UNANSWERED)
                elif len(words) > 1:
                    texts = [_behind(question, word) for word in words]
                    start = len(question.rstrip())  # what stands between belongs to a choice: so it is in its tokens
                    yield Question(question[:start], tuple(text[start:] for text in texts), right)


@dataclass(frozen=True)
class Question:
    """question: without the space behind it. choices: each with the space before it. right: the number of the right one."""

    question: str
    choices: tuple[str, ...]
    right: int


def has_choices(path: str, stage: str) -> bool:
    """Whether a file of targets has the columns `question` and `choices`."""
    stat = Path(path).stat()
    return _has_choices(path, stage, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1024)
def _has_choices(path: str, stage: str, _mtime: int, _size: int) -> bool:
    from curate.sources import NoText, Source, document_schema, inventory

    source = Source(paths=(path,), text=QUESTION[0])
    try:
        schema, _ = document_schema(inventory(source), source)
    except NoText:
        return False
    except SourceError as error:
        raise RecipeError(f"{stage}: {error}") from None
    return QUESTION[1] in schema.names


def answered(question: str | None, choices: Any, answer: Any) -> str | None:
    """A question with its answer; None where either is missing, or the answer is none of the choices."""
    if question is None or answer is None:
        return None
    words, labels = _choices(choices)
    at = _right(words, labels, answer) if words else 0
    return None if at is None else _behind(question, words[at] if words else _word(answer))


def _choices(choices: Any) -> tuple[list[str], list[str]]:
    """(texts of choices, their labels)."""
    labels: list[Any] = []
    if isinstance(choices, Mapping):
        choices, labels = choices.get("text"), list(choices.get("label") or [])
    return [str(choice) for choice in choices or []], [str(label) for label in labels]


def _behind(question: str, said: str) -> str:
    return question + said if question[-1:].isspace() else f"{question} {said}"


def _word(answer: Any) -> str:
    return ("yes" if answer else "no") if isinstance(answer, bool) else str(answer)


def _right(words: list[str], labels: list[str], answer: Any) -> int | None:
    """The number of the choice that an answer means."""
    said = _word(answer).strip()
    number = isinstance(answer, int | float) and not isinstance(answer, bool)
    for names in ([] if number else words, labels):  # what is written out goes before an index
        if said in (bare := [name.strip() for name in names]):
            return bare.index(said)
    if number:
        at = int(answer) if answer == int(answer) else -1
    elif len(said) == 1 and "A" <= said.upper() <= "Z":
        at = ord(said.upper()) - ord("A")
    else:
        at = int(said) if said.isascii() and said.isdigit() else -1
    return at if 0 <= at < len(words) else None
