"""Scores as numbers of bins that hold equal parts of the corpus, so that several scorers can be compared and joined."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import ranks
from curate.errors import RecipeError, StageError
from curate.stage import Batches, BatchFn, GlobalStage, Step, Task, with_columns
from curate.stages.quantile import as_number, has_score, ordered_bits
from curate.storage import read_json, write_json, write_table

FORMAT = "curate-bins/1"
NAME = "thresholds.json"
MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Bins(GlobalStage):
    """Writes in which of so many equal parts of the corpus a document is, by each of its scores.

    columns: a score or several, each divided by itself: any numbers, dates or booleans. bins: how many; the last has the
    highest scores. by: whether the bins are to hold equal numbers of "tokens" or of "documents". per: a column, or several, of
    strings, integers, dates or booleans: documents with the same values there are divided as if there were no others.
    into: what the new columns are called, where "{}" stands for the name of the score.

    The bin is the share of the weight (tokens or documents) that has lower scores, times `bins`, rounded down: so a document
    in bin 19 of 20 has at least 95% of the weight below it. Equal scores are in one bin, the lowest that they could be in;
    where many documents share one, bins after it are empty. In other words, the bin is the number of thresholds below the
    score, and the k-th threshold is the lowest score at or below which there are k / `bins` of the weight. They are exact,
    whatever the size of the corpus.

    thresholds: a file of thresholds, or the folder of the run that made one, for later batches of a corpus: nothing is fitted
    then, and `bins`, `by` and `per` must be as they were. A run keeps its own in `index/<stage>/thresholds.json`.

    Columns written: for each score an int32 column, `<score>_bin` unless `into` says otherwise; null where the score is null or
    NaN, and where there are no thresholds for its group (because its documents have no tokens, or those of `thresholds` do not
    have it); both are counted. Reasons: none.

    Source: the bins of Nemotron-CC (Su et al. 2024, arXiv:2412.02595, from percentiles of a sample weighted by length); exact
    thresholds as in `quantile`.

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["a", "b", "c", "d", "e"], "quality": [0.1, 0.9, None, 0.5, 0.5]})
    >>> Bins(columns="quality", bins=4, by="documents")(docs).kept["quality_bin"].to_pylist()
    [0, 3, None, 1, 1]
    """

    example: ClassVar[dict[str, Any]] = {"columns": ("score",)}

    columns: str | tuple[str, ...]
    bins: int = 20
    by: Literal["tokens", "documents"] = "tokens"
    per: str | tuple[str, ...] = ()
    into: str = "{}_bin"
    thresholds: str = ""

    def __post_init__(self) -> None:
        if not self.scores or not all(self.scores) or len(set(self.scores)) != len(self.scores):
            raise RecipeError(f"bins: columns is {self.columns!r}; give the names of one or more different columns")
        if not all(self.groups) or len(set(self.groups)) != len(self.groups):
            raise RecipeError(f"bins: per is {self.per!r}; give different names of columns")
        if not 2 <= self.bins <= MOST:
            raise RecipeError(f"bins: bins is {self.bins}; give 2 to {MOST:,}")
        if self.by not in ("tokens", "documents"):
            raise RecipeError(f"bins: by is {self.by!r}; it is 'tokens' or 'documents'")
        if not self.into or (len(self.scores) > 1 and "{}" not in self.into):
            raise RecipeError(f"bins: into is {self.into!r}; of several scores it must hold '{{}}', for the name of the score")

    @property
    def scores(self) -> tuple[str, ...]:
        """The columns with scores."""
        return (self.columns,) if isinstance(self.columns, str) else tuple(self.columns)

    @property
    def groups(self) -> tuple[str, ...]:
        """The columns that make groups."""
        return (self.per,) if isinstance(self.per, str) else tuple(self.per)

    def name_of(self, score: str) -> str:
        """The column that is written for a score."""
        return self.into.replace("{}", score)

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.scores, *self.groups)))

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.reads(), *(("tokens",) if self.by == "tokens" else ()))))

    def writes(self) -> pa.Schema:
        return pa.schema([(self.name_of(score), pa.int32()) for score in self.scores])

    def files(self) -> tuple[str, ...]:
        return (str(find(self.thresholds)),) if self.thresholds else ()

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [Step("thresholds", partial(_given, self))] if self.thresholds else self.steps_of(self, n_shards, n_docs)

    def steps_of(self, owner: GlobalStage, n_shards: int, n_docs: int) -> list[Step]:
        """The fit of these bins as the steps of a stage, be it this one or another that needs bins."""
        n_keys = n_docs * len(self.scores)
        parts = ranks.parts_of(n_keys, bool(self.groups))
        keys = Step("keys", partial(_write_keys, self, owner, parts), reads=self.fit_reads())
        found = ranks.steps(owner, keys, partial(_targets, self.bins), n_shards, n_keys, parts, self.bins - 1)
        return [*found[:-1], Step("thresholds", partial(_thresholds, self, owner, parts, found[-2].tasks))]

    def known(self, state: pa.Table) -> dict[str, dict[int, np.ndarray]]:
        """The thresholds of each score by the number of the group (0 where there are none), out of what the fit has left."""
        known: dict[str, dict[int, np.ndarray]] = {score: {} for score in self.scores}
        for score, number, found in zip(*(state[c].to_pylist() for c in ("column", "group", "thresholds")), strict=True):
            known[score][number] = np.array(found)
        return known

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, self.known(task.state(self)), task)

    def _process(self, known: Mapping[str, Mapping[int, np.ndarray]], task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        numbers, group = np.unique(ranks.group_numbers(batch, self.groups, "bins"), return_inverse=True)
        columns = {}
        for score in self.scores:
            scored = has_score(batch[score])
            values = _doubles(batch[score])
            found, written = np.zeros(len(values), np.int32), scored.copy()
            for i, number in enumerate(numbers.tolist()):
                mine = group == i
                if number in known[score]:
                    found[mine] = np.searchsorted(known[score][number], values[mine], side="left")
                else:
                    written &= ~mine
            columns[self.name_of(score)] = pa.array(found, mask=~written)
            for many, what in (
                (~scored, f"documents without {score}"),
                (scored & ~written, f"documents without bins of {score}"),
            ):
                if many.any():
                    task.count(what, int(many.sum()))
        return with_columns(batch, columns)


def find(path: str) -> Path:
    """The file of thresholds that `path` means: itself, or the one in a run folder. Raises RecipeError."""
    given = Path(path)
    if given.is_file():
        return given
    found = sorted([*given.glob(f"index/*/{NAME}"), *given.glob(NAME)])
    if not found:
        raise RecipeError(f"bins: no thresholds in {path}: give a {NAME}, or the folder of a run with `bins`")
    if len(found) > 1:
        raise RecipeError(
            f"bins: {path} holds thresholds of {len(found)} stages ({', '.join(map(str, found))}): give one of them"
        )
    return found[0]


def _doubles(values: pa.Array) -> np.ndarray:
    """Scores as float64, whatever they are; NaN for null. -0.0 is 0.0."""
    return pc.cast(as_number(values, "bins"), pa.float64(), safe=False).to_numpy(zero_copy_only=False) + 0.0


# --------------------------------------------------------------------------------------------- the fit


def _number(score: str, group: Any) -> Any:
    """The groups (uint64) of one score."""
    return group ^ np.uint64(xxhash.xxh3_64_intdigest(score.encode(), 3))


def _write_keys(stage: Bins, owner: GlobalStage, parts: int, task: Task, batches: Batches) -> None:
    """Every different score of a shard with the weight of the documents that have it, for each group."""
    found: list[list[np.ndarray]] = [[] for _ in stage.scores]
    values: dict[int, tuple[str | None, ...]] = {} if stage.groups else {0: ()}
    for batch in batches:
        group = ranks.group_numbers(batch, stage.groups, "bins")
        weight = pc.fill_null(batch["tokens"], 0) if stage.by == "tokens" else np.ones(batch.num_rows)
        weight = np.asarray(weight).astype(np.int64)
        ranks.add_names(values, batch, stage.groups, "bins", group)
        for score, held in zip(stage.scores, found, strict=True):
            scored = has_score(batch[score])
            numbers = _number(score, group[scored])
            bits = ordered_bits(pa.array(_doubles(batch[score])[scored]))
            held.append(np.stack([numbers, bits, weight[scored].view(np.uint64)]))
    all_keys, weights = [ranks.pack(0, [], [], [])], [np.empty(0, np.int64)]
    address = (task.shard or 0) << 32
    for held in found:
        if not held:
            continue
        numbers, bits, weight = np.concatenate(held, axis=1)
        order = np.lexsort([bits, numbers])
        numbers, bits, weight = numbers[order], bits[order], weight[order].view(np.int64)
        first = np.ones(len(bits), bool)
        first[1:] = (numbers[1:] != numbers[:-1]) | (bits[1:] != bits[:-1])
        at = np.flatnonzero(first)
        if len(at):
            n = len(at)
            all_keys.append(ranks.pack(numbers[at], bits[at], np.zeros(n, np.uint64), np.full(n, address, np.uint64)))
            weights.append(np.add.reduceat(weight, at))
    names = {int(_number(score, np.uint64(g))): (score, *value) for score in stage.scores for g, value in values.items()}
    shard = task.shards[task.shard or 0]
    ranks.write_keys(task.folder(owner), shard, np.concatenate(all_keys), np.concatenate(weights), parts, names)


def _targets(
    bins: int, task: Task, groups: np.ndarray, totals: np.ndarray, names: ranks.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k-th threshold is where the weight reaches k / bins of that of the group: where it exceeds one less than that."""
    index, number = np.repeat(np.flatnonzero(totals), bins - 1), np.tile(np.arange(bins - 1), np.count_nonzero(totals))
    # total // bins and the rest apart, so that no product is too large
    whole, rest = np.divmod(totals[index], bins)
    k = number + 1
    return index, number, k * whole + -(-(k * rest) // bins) - 1


_STATE = pa.schema([("column", pa.string()), ("group", pa.uint64()), ("thresholds", pa.list_(pa.float64()))])


def _thresholds(stage: Bins, owner: GlobalStage, parts: int, tasks: int, task: Task) -> None:
    """The scores at the cuts; kept in the run, too, for later ones."""
    folder = task.folder(owner)
    cuts = ranks.merged(folder, tasks)
    groups, first = np.unique(cuts["group"].to_numpy(), return_index=True)
    cut = _score_of(cuts["bits"].to_numpy())
    names = ranks.names_of(folder, task.shards, parts)
    found: list[dict[str, Any]] = []
    for number, mine in zip(groups.tolist(), np.split(cut, first[1:]) if len(groups) else [], strict=True):
        score, *values = names[number]
        found.append(
            {"column": score, "values": values, "thresholds": [v if math.isfinite(v) else str(v) for v in mine.tolist()]}
        )
    found.sort(key=lambda f: (stage.scores.index(f["column"]), [(v is not None, v or "") for v in f["values"]]))
    about = {"format": FORMAT, "bins": stage.bins, "by": stage.by, "per": list(stage.groups), "scores": found}
    _write_state(stage, folder, about)
    if task.root is not None and owner is stage:
        write_json(task.kept(stage) / NAME, about)


def _score_of(bits: np.ndarray) -> np.ndarray:
    """What `ordered_bits` has made of doubles, as doubles."""
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, bits ^ sign, ~bits).view(np.float64)


def _group_of(values: Sequence[str | None]) -> np.uint64:
    """The number of a group by its values, as strings."""
    columns = {str(i): pa.array([value], pa.string()) for i, value in enumerate(values)}
    return ranks.group_numbers(pa.RecordBatch.from_pydict(columns), tuple(columns), "bins")[0]


def _given(stage: Bins, task: Task) -> None:
    """Thresholds of an earlier run."""
    path = find(stage.thresholds)
    try:
        about = read_json(path)
    except orjson.JSONDecodeError:
        about = None
    _check(stage, path, about)
    _write_state(stage, task.folder(stage), about)


def _check(stage: Bins, path: Path, about: Any) -> None:
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise StageError(f"bins: {path} is no file of thresholds as `bins` writes it")
    for key, mine in (("bins", stage.bins), ("by", stage.by), ("per", list(stage.groups))):
        if about.get(key) != mine:
            raise StageError(f"bins: {path} was made with {key}: {about.get(key)}, not {mine}")
    known = {found["column"] for found in about["scores"]}
    for score in stage.scores:
        if score not in known:
            raise StageError(f"bins: {path} has no thresholds of {score!r}, but of {', '.join(sorted(known)) or 'nothing'}")
    for found in about["scores"]:
        values = [float(value) for value in found["thresholds"]]
        if len(values) != stage.bins - 1 or any(b < a for a, b in itertools.pairwise(values)):
            raise StageError(f"bins: {path} is damaged: {found['column']} needs {stage.bins - 1} thresholds in order")


def _write_state(stage: Bins, folder: Path, about: Mapping[str, Any]) -> None:
    found = [f for f in about["scores"] if f["column"] in stage.scores]
    numbers = [int(_group_of(f["values"])) if stage.groups else 0 for f in found]
    table = pa.table(
        [
            pa.array([f["column"] for f in found], pa.string()),
            pa.array(numbers, pa.uint64()),
            pa.array([[float(v) for v in f["thresholds"]] for f in found], _STATE.field("thresholds").type),
        ],
        schema=_STATE,
    )
    write_table(folder / "state.parquet", table)
