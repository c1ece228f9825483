"""A student: a small model that learns labels of a part of a corpus, is judged, and says them of all of it."""

from __future__ import annotations

import importlib.util
import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import reference
from curate.errors import MissingExtra, RecipeError, StageError, did_you_mean
from curate.stage import ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import atomic_folder, read_json, read_table, write_bytes, write_json, write_table

if TYPE_CHECKING:
    from curate.classify import Classifier

REFERENCE, CORPUS = "hq", "cc"  # DCLM's names for its two classes
MOST_CLASSES = 256
MOST_RATINGS = 32  # that fastText learns as classes
FEWEST = 50  # held-out documents, where there are twice as many
FASTTEXT = {"dim": 100, "epoch": 0, "lr": 0.1, "ngrams": 2, "bucket": 200_000, "minn": 0, "maxn": 0, "min_count": 1}
LINEAR = {"l2": 0.0003}  # for vectors of length one


@dataclass(frozen=True, kw_only=True)
class Propagate(GlobalStage):
    """Learns labels that a part of the corpus has with a small model, judges it, and writes what it says about every document.

    labels: columns to learn, one head each; a null is no label, nor is a NaN, an infinity or an empty string. Or positive:
    reference texts (Parquet, JSONL or text files, folders, runs), which one head tells from a sample of the corpus, as many
    documents as there are references. student: `fasttext`, on the text, or `linear`, on the column embedding (lists of
    floating-point numbers). task: `auto` takes strings and booleans for classes and numbers for ratings, to be regressed;
    `classes` or `regression` for all heads, or by column, says it. fastText learns ratings as classes, of which there may be
    32, and answers their mean by probability.

    holdout: share of the labelled documents that judge the student and are not learned; more where that is fewer than 50: then
    50, or half, since luck agrees with a handful. Near-duplicates are on one side, and so are texts that are equal but for
    numbers; each class or rating is divided by itself, by hash of text and seed. min_agreement: smallest agreement on them, for
    all heads or by column, else the run stops. Agreement is Cohen's kappa, for ratings with quadratic weights: 1 is perfect, 0
    is chance. Macro-F1 is stated with it, for ratings by the nearest whole number where all are whole. max_examples: labelled
    documents that are used, those of the lowest hashes of (seed, id). balance: of a single head with classes, use equally many
    of each. max_chars: of a text that are read, in learning and later; 0 for all. options: of the student: l2 for linear heads;
    dim, epoch, lr, ngrams, bucket, minn, maxn and min_count for fastText. Else they are those of DCLM, but for 200,000 buckets,
    and for more than its 5 epochs of fewer than 100,000 documents: 5 sqrt(100,000 / n), at most 100.

    Columns written: by each head, its column with `suffix`: for ratings a float32, for classes a string, and a float32 with
    `suffix` and `_score`: the probability of that class, or of the class that score_of names, for all heads or by column. For
    `positive`, the column `into`: the probability of being of the references (float32). Null where there is nothing to judge
    by, a text without a known word, or no embedding: these are counted. Reasons: none.

    A run keeps every head as a classifier with its card, `index/<stage>/<head>`, which the stages `fasttext` and `classifier`
    and `curate eval` take. The same corpus and seed give the same model, in whatever shards. A document that was learned is
    scored like any other, so that its score leans to its label.

    Source: own; the two steps of FineWeb-Edu (https://arxiv.org/abs/2406.17557), DataMan (https://arxiv.org/abs/2502.19363) and
    Biomed-Enriched (https://arxiv.org/abs/2506.20331); references against a crawl as in DCLM (https://arxiv.org/abs/2406.11794).

    >>> import pyarrow as pa
    >>> x = [i / 100 - 1 for i in range(200)]
    >>> vectors = pa.array([[v, 1.0] for v in x], pa.list_(pa.float32(), 2))
    >>> rated = pa.array([round(2 + 2 * v) if i % 2 else None for i, v in enumerate(x)])
    >>> docs = pa.table({"text": ["x" * i for i in range(200)], "embedding": vectors, "stars": rated})
    >>> found = Propagate(labels=("stars",), student="linear", options={"l2": 0.001})(docs).kept["stars_pred"].to_pylist()
    >>> [round(found[i]) for i in (0, 100, 198)]
    [0, 2, 4]
    """

    example: ClassVar[dict[str, Any]] = {
        "labels": ("rating",),
        "student": "linear",
        "task": "regression",
        "holdout": 0.2,
        "min_agreement": -1.0,
    }

    labels: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    student: Literal["fasttext", "linear"] = "fasttext"
    embedding: str = "embedding"
    task: str | Mapping[str, str] = "auto"
    holdout: float = 0.1
    min_agreement: float | Mapping[str, float] = 0.3
    max_examples: int = 200_000
    balance: bool = False
    max_chars: int = 20_000
    options: Mapping[str, float] | None = None
    score_of: str | Mapping[str, str] = ""
    suffix: str = "_pred"
    into: str = "quality"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.labels and self.positive:
            raise RecipeError("propagate: give either `labels`, columns of the corpus, or `positive`, files of reference texts")
        if self.student not in ("fasttext", "linear"):
            raise RecipeError(f"propagate: student is {self.student!r}; it is 'fasttext' or 'linear'")
        if not self.labels and self.student == "linear":
            raise RecipeError("propagate: reference files have no embeddings: use `student: fasttext` with `positive`")
        if not 0 < self.holdout < 1:
            raise RecipeError(f"propagate: holdout is {self.holdout}; it is a share between 0 and 1")
        if self.max_examples < 2 or self.max_chars < 0:
            raise RecipeError("propagate: max_examples is at least 2, and max_chars is not negative")
        if len(set(self.labels)) < len(self.labels):
            raise RecipeError(f"propagate: labels is {list(self.labels)}; name each column once")
        if self.positive and (self.score_of or self.balance):
            raise RecipeError("propagate: score_of and balance are for `labels`; with `positive` both are settled")
        if self.labels and not self.suffix:
            raise RecipeError("propagate: suffix is empty, and labels are not written over: give one, such as '_pred'")
        if self.balance and len(self.labels) > 1:
            raise RecipeError("propagate: balance is for a single head; use a stage for each column")
        for what, given in (("task", self.task), ("min_agreement", self.min_agreement), ("score_of", self.score_of)):
            for name in given if isinstance(given, Mapping) else ():
                if name not in self.heads:
                    raise RecipeError(f"propagate: {what} names {name!r}, which is not learned{did_you_mean(name, self.heads)}")
        for kind in self.task.values() if isinstance(self.task, Mapping) else (self.task,):
            if kind not in ("auto", "classes", "regression"):
                raise RecipeError(f"propagate: task is {kind!r}; it is 'auto', 'classes' or 'regression'")
        known = FASTTEXT if self.student == "fasttext" else LINEAR
        for name in self.options or {}:
            if name not in known:
                raise RecipeError(f"propagate: the student {self.student} has no option {name!r}{did_you_mean(name, known)}")

    @property
    def heads(self) -> tuple[str, ...]:
        """What is learned: the columns of `labels`, or the one name of `into`."""
        return self.labels or (self.into,)

    def task_of(self, head: str) -> str:
        """`classes` or `regression`; `auto` where the type of the column is not known yet."""
        if not self.labels:
            return "classes"
        return self.task.get(head, "auto") if isinstance(self.task, Mapping) else self.task

    def score_of_head(self, head: str) -> str:
        """The class whose probability is the score, or "" for the best one."""
        if not self.labels:
            return REFERENCE
        return self.score_of.get(head, "") if isinstance(self.score_of, Mapping) else self.score_of

    def bound(self, columns: Collection[str]) -> Stage:
        if not self.labels and not self.positive:  # only now, so that a recipe can leave them to those who run it
            raise RecipeError("propagate: give `labels`, columns of the corpus, or `positive`, files of reference texts")
        if self.student == "fasttext" and importlib.util.find_spec("fasttext") is None:
            raise MissingExtra("fasttext-numpy2-wheel", "train", "stage 'propagate' with the student fasttext")
        if "auto" not in [self.task_of(head) for head in self.heads]:
            return self
        types = {head: getattr(columns.get(head), "type", None) for head in self.heads} if isinstance(columns, Mapping) else {}
        found = {head: self.task_of(head) for head in self.heads}
        return replace(self, task={h: _task_of(h, types[h]) if t == "auto" and types.get(h) else t for h, t in found.items()})

    def reads(self) -> tuple[str, ...]:
        return ("text",) if self.student == "fasttext" else (self.embedding,)

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("id", "text", *self.labels, *self.reads())))

    def writes(self) -> pa.Schema:
        if not self.labels:
            return pa.schema([(self.into, pa.float32())])
        found: list[tuple[str, pa.DataType]] = []
        for head in self.labels:
            if self.task_of(head) == "regression":
                found.append((head + self.suffix, pa.float32()))
            else:
                found += [(head + self.suffix, pa.string()), (f"{head}{self.suffix}_score", pa.float32())]
        return pa.schema(found)

    def files(self) -> tuple[str, ...]:
        return reference.files(self.positive, "propagate")

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        reads = tuple(dict.fromkeys(("text", *self.labels, *self.reads())))
        return [
            Step("labelled", partial(_labelled, self), reads=("id", *self.labels)),
            Step("choose", partial(_choose, self)),
            Step("gather", partial(_gather, self), reads=reads, rows=partial(_chosen, self)),
            Step("train", partial(_train, self)),
        ]

    def open(self, task: Task) -> BatchFn:
        state = task.folder(self) / "state.parquet"
        found = state.stat()
        key = ("propagate", str(state), found.st_mtime_ns, found.st_ino)
        notes, heads = task.cached(key, partial(_load, state))
        if not task.shard:  # once for the run, since the notes of shards are added up
            for text, n in notes:
                task.count(text, n)
        return partial(self._process, task, heads)

    def _process(self, task: Task, heads: Mapping[str, Classifier], batch: pa.RecordBatch) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = {}
        given = batch[self.reads()[0]]
        for head, classifier in heads.items():
            scores = classifier.scores(given)
            known = ~np.isnan(scores).any(1)
            if not known.all():
                what = "a known word" if self.student == "fasttext" else "an embedding"
                task.count(f"documents without {what}, of which {head!r} says nothing", int((~known).sum()))
            if not self.labels:
                columns[head] = pa.array(scores[:, classifier.labels.index(REFERENCE)], mask=~known)
            elif self.task_of(head) == "regression":
                values = scores[:, 0]
                if self.student == "fasttext":
                    values = _means(scores, classifier.labels)
                columns[head + self.suffix] = pa.array(values, pa.float32(), mask=~known)
            else:
                at = np.where(known[:, None], scores, 0).argmax(1)
                plain = [_plain(label) if self.student == "fasttext" else label for label in classifier.labels]
                columns[head + self.suffix] = pa.array(plain, pa.string()).take(pa.array(at, mask=~known))
                of = classifier.labels.index(classifier.positive) if classifier.positive else at
                columns[f"{head}{self.suffix}_score"] = pa.array(scores[np.arange(len(at)), of], mask=~known)
        return with_columns(batch, columns)


def _task_of(head: str, kind: pa.DataType) -> str:
    """What a column of this type is learned as. Raises RecipeError for one that holds no labels."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "regression"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return "classes"
    raise RecipeError(f"propagate: {head!r} is {kind}; labels are strings, booleans or numbers")


def _means(scores: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The mean rating by probability (float32) of each row."""
    values = np.array([float(label) for label in labels])
    total = scores.astype(np.float64)
    return ((total @ values) / np.where(total.sum(1) > 0, total.sum(1), 1)).astype(np.float32)


# --------------------------------------------------------------------------------------------- labels


def _classes(values: pa.Array) -> pa.Array:
    """Labels as strings; null for what is none."""
    names = pc.cast(values, pa.string())
    return pc.if_else(pc.equal(names, ""), pa.scalar(None, pa.string()), names)


def _ratings(values: pa.Array) -> np.ndarray:
    """Labels as float64; NaN for what is none."""
    found = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _has_label(stage: Propagate, head: str, values: pa.Array) -> np.ndarray:
    """Which rows have a label of this head (bool). Raises StageError for a column that cannot be learned so."""
    try:
        if stage.task_of(head) == "regression":
            return ~np.isnan(_ratings(values))
        return np.asarray(_classes(values).is_valid())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise StageError(
            f"propagate: {head!r} is {values.type} and cannot be learned as {stage.task_of(head)}: set `task` for it"
        ) from None


# --------------------------------------------------------------------------------------------- the steps of the fit

_CHOICE = pa.schema([("row", pa.uint32()), ("hash", pa.uint64()), ("class", pa.string())])


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _labelled(stage: Propagate, task: Task, batches: Batches) -> None:
    """The labelled rows of a shard, at most as many as can be used; of references against a corpus, any row."""
    held, rows = [_CHOICE.empty_table()], 0
    for batch in batches:
        some = np.ones(batch.num_rows, bool)
        if stage.labels:
            some = np.any([_has_label(stage, head, batch[head]) for head in stage.labels], axis=0)
        batch = batch.filter(pa.array(some))
        if not batch.num_rows:
            continue
        found = _classes(batch[stage.labels[0]]) if stage.balance and stage.labels else pa.nulls(batch.num_rows, pa.string())
        held.append(pa.table([batch[ROW], pa.array(_order(stage, batch["id"])), found], schema=_CHOICE))
        rows += batch.num_rows
        if rows > 2 * stage.max_examples:
            held = [_lowest(stage, held)]
            rows = held[0].num_rows
    write_table(task.folder(stage) / "labelled" / _name(task), _lowest(stage, held), codec="lz4")


def _order(stage: Propagate, ids: pa.Array) -> np.ndarray:
    """uint64 of each id, which decides what is used where there is more than enough."""
    from curate.kernels.keys import hash128

    seed = hash128(pa.array([f"propagate/{stage.seed}"]))[0, 0]
    return hash128(ids)[:, 0] ^ seed


def _lowest(stage: Propagate, tables: Sequence[pa.Table]) -> pa.Table:
    """The rows with the lowest hashes, as many as can be used: in all, or of each class."""
    table = pa.concat_tables(tables).combine_chunks()
    order = np.argsort(table["hash"].to_numpy(), kind="stable")
    if not stage.balance:
        return table.take(pa.array(order[: stage.max_examples]))
    codes = pc.fill_null(table["class"].combine_chunks().dictionary_encode().indices, 0).to_numpy(zero_copy_only=False)
    _few_classes(stage.heads[0], len(np.unique(codes)))
    rank = _rank(codes[order])
    return table.take(pa.array(order[rank < stage.max_examples]))


def _rank(codes: np.ndarray) -> np.ndarray:
    """How many equal codes stand before each."""
    by_code = np.argsort(codes, kind="stable")
    ordered = codes[by_code]
    first = np.searchsorted(ordered, ordered)
    rank = np.empty(len(codes), np.int64)
    rank[by_code] = np.arange(len(codes)) - first
    return rank


def _few_classes(head: str, n: int) -> None:
    if n > MOST_CLASSES:
        raise StageError(f"propagate: {head!r} has {n:,} different values: at most {MOST_CLASSES} classes are learned")


def _choose(stage: Propagate, task: Task) -> None:
    """The rows of each shard that are used."""
    folder = task.folder(stage)
    held = _CHOICE.append(pa.field("shard", pa.uint32())).empty_table()
    for shard, name in enumerate(task.shards):
        table = read_table(folder / "labelled" / name)
        table = table.append_column("shard", pa.array(np.full(table.num_rows, shard, np.uint32)))
        held = _lowest(stage, [held, table])
    if stage.balance and stage.labels and held.num_rows:
        codes = held["class"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        counts = np.bincount(codes)
        held = held.filter(pa.array(_rank(codes) < min(int(counts.min()), max(1, stage.max_examples // len(counts)))))
    for shard, name in enumerate(task.shards):
        here = held.filter(pc.equal(held["shard"], shard)).select(["row", "hash"]).sort_by("row")
        write_table(folder / "chosen" / name, here, codec="lz4")


def _chosen(stage: Propagate, task: Task) -> np.ndarray:
    return read_table(task.folder(stage) / "chosen" / _name(task))["row"].to_numpy()


def _gather(stage: Propagate, task: Task, batches: Batches) -> None:
    """The texts, labels and vectors of the chosen rows of a shard."""
    chosen = read_table(task.folder(stage) / "chosen" / _name(task))
    hashes = dict(zip(chosen["row"].to_pylist(), chosen["hash"].to_pylist(), strict=True))
    found = []
    for batch in batches:
        if stage.max_chars:
            batch = with_columns(batch, {"text": pc.utf8_slice_codeunits(batch["text"], 0, stage.max_chars)})
        hash_ = pa.array([hashes[row] for row in batch[ROW].to_pylist()], pa.uint64())
        found.append(pa.Table.from_batches([with_columns(batch, {"_hash": hash_})]))
    write_table(task.folder(stage) / "gather" / _name(task), pa.concat_tables(found) if found else pa.table({}), codec="lz4")


# --------------------------------------------------------------------------------------------- learning


def _train(stage: Propagate, task: Task) -> None:
    """A student for each head, judged on what is held out: all that `open` needs, in one table."""
    examples = _examples(stage, task)
    files: list[tuple[str, str, bytes]] = []
    notes: list[tuple[str, int]] = []
    refused = []
    with tempfile.TemporaryDirectory(dir=task.folder(stage)) as scratch:
        for number, head in enumerate(stage.heads):
            made = Path(scratch) / f"{number:03d}"
            figures = _learn(stage, head, examples, made, Path(scratch))
            least = stage.min_agreement
            least = least.get(head, Propagate.min_agreement) if isinstance(least, Mapping) else least
            said = f"kappa {figures['kappa']:.3f}"
            said += f", macro-F1 {figures['macro_f1']:.3f}" if "macro_f1" in figures else ""
            notes.append((f"documents taught {head!r}", figures["documents"]))
            notes.append((f"held-out documents, on which {head!r} agrees with its labels: {said}", figures["held_out"]))
            if not figures["kappa"] >= least:
                refused.append(f"{head!r} ({said} on {figures['held_out']:,} held-out documents, below {least:g})")
            files += [(head, path.name, path.read_bytes()) for path in sorted(made.iterdir())]
        if refused:
            raise StageError(
                f"propagate: what the student says of {' and '.join(refused)} does not agree enough with the labels: "
                "label more documents, try the other student, leave the column out, or lower `min_agreement`"
            )
        if task.root is not None:
            _keep(stage, task, Path(scratch))
    table = {
        "head": pa.array([f[0] for f in files], pa.string()),
        "file": pa.array([f[1] for f in files], pa.string()),
        "data": pa.array([f[2] for f in files], pa.large_binary()),
    }
    said = pa.array([[{"note": text, "n": n} for text, n in notes]] + [None] * (len(files) - 1), _NOTES)
    write_table(task.folder(stage) / "state.parquet", pa.table({**table, "notes": said}))


_NOTES = pa.list_(pa.struct([("note", pa.string()), ("n", pa.int64())]))


def _keep(stage: Propagate, task: Task, made: Path) -> None:
    """The classifiers where people look for them: they outlive the scratch of the fit."""
    kept = task.kept(stage)
    names: set[str] = set()
    for number, head in enumerate(stage.heads):
        name = re.sub(r"[^\w.-]+", "_", head).lstrip(".") or "head"
        name = name if name not in names else f"{name}-{number}"
        names.add(name)
        with atomic_folder(kept / name) as new:
            shutil.copytree(made / f"{number:03d}", new, dirs_exist_ok=True)


def _load(state: Path) -> tuple[list[tuple[str, int]], dict[str, Classifier]]:
    """(notes, classifier of each head) out of what the fit found."""
    from curate import classify

    table = read_table(state)
    heads: dict[str, Classifier] = {}
    for head in dict.fromkeys(table["head"].to_pylist()):
        with tempfile.TemporaryDirectory(prefix="curate-") as folder:
            for row in table.filter(pc.equal(table["head"], head)).select(["file", "data"]).to_pylist():
                (Path(folder) / row["file"]).write_bytes(row["data"])
            heads[head] = classify.load(folder)
    return [(said["note"], said["n"]) for said in table["notes"][0].as_py()], heads


@dataclass(frozen=True)
class _Examples:
    """What can be learned from. groups: uint64, equal for texts that are to be on one side. known: bool, of the rows that the
    student has something of. references: the first rows are of the reference files, so many."""

    table: pa.Table
    text: pa.Array
    vectors: np.ndarray | None
    known: np.ndarray
    groups: np.ndarray
    references: int = 0


def _examples(stage: Propagate, task: Task) -> _Examples:
    """The gathered documents, and the references before them."""
    tables = [read_table(task.folder(stage) / "gather" / name) for name in task.shards]
    tables = [table for table in tables if table.num_rows]
    if not tables:
        what = "no document" if not stage.labels else f"no document has a label in {' or '.join(stage.labels)}"
        raise StageError(f"propagate: {what}: there is nothing to learn from")
    table = pa.concat_tables(tables).combine_chunks()
    table = table.take(pa.array(np.argsort(table["_hash"].to_numpy(), kind="stable")))
    text = pc.fill_null(table["text"].combine_chunks().cast(pa.large_string()), "")
    vectors, known = None, np.asarray(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(text)), 0))
    if stage.student == "linear":
        vectors, known = _vectors(stage, table[stage.embedding].combine_chunks())
    if stage.labels:
        return _Examples(table, text, vectors, known, _groups(text, table["_hash"].to_numpy()))
    references = _references(stage, task)
    zeros = np.zeros(len(references), np.uint64)
    text = pa.concat_arrays([references, text])
    groups = _groups(text, np.concatenate([zeros, table["_hash"].to_numpy()]))
    known &= ~np.isin(groups[len(references) :], groups[: len(references)])  # a reference in the crawl is no counterexample
    n = min(len(references), int(known.sum()), stage.max_examples // 2)
    rows = np.concatenate([np.arange(n), len(references) + np.flatnonzero(known)[:n]])
    return _Examples(table, text.take(pa.array(rows)), None, np.ones(2 * n, bool), groups[rows], n)


def _groups(text: pa.Array, otherwise: np.ndarray) -> np.ndarray:
    """uint64 of each text, equal for near-duplicates; of one without words, what stands in its place."""
    from curate.kernels.keys import hash128, normalise
    from curate.training.data import Documents, clusters

    folded = normalise(text.cast(pa.string()))
    groups = otherwise.copy()
    some = np.flatnonzero(np.asarray(pc.greater(pc.binary_length(folded), 0)))
    if not len(some):
        return groups
    at = pa.array(some)
    nothing = pa.nulls(len(some), pa.string())
    cluster = clusters(Documents(text.take(at).cast(pa.string()), np.empty(0), nothing, nothing, nothing, nothing))
    lowest: np.ndarray = np.full(cluster.max() + 1, 2**64 - 1, np.uint64)
    np.minimum.at(lowest, cluster, hash128(folded.take(at))[:, 0])  # whatever the order of the documents
    groups[some] = lowest[cluster]
    return groups


def _references(stage: Propagate, task: Task) -> pa.Array:
    """The texts of the reference files (large_string): each once, by a hash of text and seed, as many as are used."""
    limit = stage.max_examples // 2
    held = pa.table({"text": pa.array([], pa.large_string()), "hash": pa.array([], pa.uint64())})
    for batch in reference.batches(stage.positive, ("text",), "propagate", task):
        text = pc.fill_null(batch["text"].cast(pa.large_string()), "")
        text = pc.utf8_slice_codeunits(text, 0, stage.max_chars) if stage.max_chars else text
        text = text.filter(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(text)), 0))
        mine = pa.table({"text": text, "hash": pa.array(_order(stage, text))})
        held = pa.concat_tables([held, mine])
        if held.num_rows > 2 * limit:
            held = _first(held, limit)
    if not held.num_rows:
        raise StageError(f"propagate: the files of `positive` hold no text: {', '.join(stage.positive)}")
    return _first(held, limit)["text"].combine_chunks()


def _first(table: pa.Table, limit: int) -> pa.Table:
    """Rows of the lowest hashes, one of each."""
    _, at = np.unique(table["hash"].to_numpy(), return_index=True)
    return table.take(pa.array(at[:limit])).combine_chunks()


def _vectors(stage: Propagate, column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(float32, a row for each embedding, of zeros where there is none; which there are)."""
    from curate.kernels.vectors import halves

    try:
        rows, _ = halves(column)
    except ValueError as error:
        raise StageError(f"propagate: column {stage.embedding!r} holds no embeddings: {error}") from None
    known = np.zeros(len(column), bool)
    known[rows] = True
    flat = column.take(pa.array(rows)).flatten().cast(pa.float32())
    vectors = np.zeros((len(column), len(flat) // max(len(rows), 1)), np.float32)
    vectors[rows] = flat.to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    return vectors, known


def _learn(stage: Propagate, head: str, examples: _Examples, made: Path, scratch: Path) -> dict[str, Any]:
    """Make the classifier of one head in the folder `made`; returns its figures."""
    from curate import classify

    rows, labels, ratings = _taught(stage, head, examples)
    continuous = stage.task_of(head) == "regression" and len(set(labels.tolist())) > MOST_RATINGS
    held_out = _held_out(np.zeros(len(rows)) if continuous else labels, examples.groups[rows], stage)
    names = sorted(set(labels[~held_out].tolist()))
    if not held_out.any() or len(names) < 2:
        raise StageError(f"propagate: {head!r} has {len(rows):,} labelled documents: too few to learn some and hold out others")
    learned = rows[~held_out]
    task = stage.task_of(head)
    of = stage.score_of_head(head) if task == "classes" else ""
    if of and of not in names:
        raise StageError(
            f"propagate: {head!r} has no label {of!r}, whose probability is to be the score{did_you_mean(of, names)}"
        )
    numbers = {"documents": len(learned), "held_out": int(held_out.sum())}
    about: dict[str, Any] = {
        "name": head,
        "kind": stage.student,
        "task": task if stage.student == "linear" else "classes",
        "prepare": {"one_line": True, "max_chars": stage.max_chars},
        "seed": stage.seed,
        "recipe": {"stage": "propagate", "options": _options(stage, len(learned)), "holdout": stage.holdout},
    }
    if stage.student == "fasttext":
        from curate.training.fit import fit_fasttext

        model = scratch / "model.bin"
        texts = classify.Prepare(one_line=True, max_chars=stage.max_chars)(examples.text.take(pa.array(learned)))
        safe = [_safe(label) for label in labels[~held_out].tolist()]
        fit_fasttext(texts, safe, **_options(stage, len(learned)), loss="softmax", seed=stage.seed, quantise=False, path=model)
        about["labels"] = sorted({_safe(name) for name in names})
        about["positive"] = _safe(of) or None
        classify.save(made, about, model=model)
    else:
        from curate.training.fit import fit_linear

        assert examples.vectors is not None
        targets = ratings[~held_out] if task == "regression" else np.searchsorted(names, labels[~held_out].astype(str))
        found = fit_linear(examples.vectors[learned], targets, task=task, seed=stage.seed, **_options(stage, len(learned)))
        about["labels"] = [head] if task == "regression" else names
        about["positive"] = of or None
        about["features"] = {"column": stage.embedding, "dim": examples.vectors.shape[1]}
        classify.save(made, about, head={"weights": found[0], "bias": found[1]})
    judged = rows[held_out]
    given = examples.text.take(pa.array(judged)) if examples.vectors is None else examples.vectors[judged]
    classifier = classify.load(made)
    scores = classifier.scores(given)
    numbers |= _agreement(stage, task, classifier.labels, scores, labels[held_out], ratings[held_out])
    raw = read_json(made / classify.JSON)
    write_json(made / classify.JSON, {**raw, "metrics": numbers})
    write_bytes(made / "card.md", _card(stage, head, numbers).encode())
    return numbers


def _options(stage: Propagate, documents: int) -> dict[str, Any]:
    """Of the student, for so many documents."""
    found = {**(FASTTEXT if stage.student == "fasttext" else LINEAR), **(stage.options or {})}
    if stage.student == "fasttext" and not found["epoch"]:
        found["epoch"] = math.ceil(min(max(5.0, 5 * math.sqrt(100_000 / documents)), 100))
    return {key: int(value) if isinstance(FASTTEXT.get(key), int) else float(value) for key, value in found.items()}


def _safe(label: str) -> str:
    """A label as fastText can hold it: it takes white space for the end of one."""
    return "".join(f"%{ord(c):02X}" if c.isspace() or c == "%" else c for c in label)


def _plain(label: str) -> str:
    return re.sub("%([0-9A-F]{2,})", lambda found: chr(int(found[1], 16)), label)


def _taught(stage: Propagate, head: str, examples: _Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows of the examples that have a label of this head, labels as strings, ratings as float64)."""
    if not stage.labels:
        n = examples.references
        if not n:
            raise StageError("propagate: no document of the corpus is left to set the references against")
        labels = np.array([REFERENCE] * n + [CORPUS] * n, object)
        return np.arange(2 * n), labels, np.full(2 * n, np.nan)
    column = examples.table[head].combine_chunks()
    rows = np.flatnonzero(_has_label(stage, head, column) & examples.known)
    column = column.take(pa.array(rows))
    what = "text" if stage.student == "fasttext" else f"{stage.embedding!r}"
    if stage.task_of(head) == "regression":
        ratings = _ratings(column)
        labels = np.array([f"{value:g}" if float(f"{value:g}") == value else repr(value) for value in ratings.tolist()], object)
    else:
        ratings = np.full(len(rows), np.nan)
        labels = np.array(_classes(column).to_pylist(), object)
    different = len(set(labels.tolist()))
    if different < 2:
        of = f"all {len(rows):,} labels are {labels[0]!r}" if different else f"no document with {what} has a label"
        raise StageError(f"propagate: {head!r} cannot be learned: {of}")
    if stage.task_of(head) == "classes":
        _few_classes(head, different)
    elif stage.student == "fasttext" and different > MOST_RATINGS:
        raise StageError(
            f"propagate: {head!r} has {different:,} different ratings, and fastText learns each as a class, of which "
            f"{MOST_RATINGS} at most: round them, or use `student: linear`"
        )
    return rows, labels, ratings


def _held_out(labels: np.ndarray, groups: np.ndarray, stage: Propagate) -> np.ndarray:
    """Which examples judge (bool): whole groups, a share of those of each label, by hash; not all of any label."""
    from curate.kernels.keys import hash128

    seed = hash128(pa.array([f"holdout/{stage.seed}"]))[0, 0]
    _, codes = np.unique(labels.astype(str), return_inverse=True)
    unique, first, of = np.unique(groups, return_index=True, return_inverse=True)
    share = max(stage.holdout, min(FEWEST / len(unique), 0.5))
    out = np.zeros(len(unique), bool)
    class_ = codes[first]
    for code in np.unique(class_):
        members = np.flatnonzero(class_ == code)
        order = members[np.argsort(unique[members] ^ seed)]
        out[order[: min(max(1, round(share * len(order))), len(order) - 1)]] = True
    return out[of]


def _agreement(
    stage: Propagate, task: str, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, ratings: np.ndarray
) -> dict[str, Any]:
    """Figures of what the student says (scores) beside labels that it has not seen. Where it says nothing, what it is measured
    by is what anyone would say: the commonest label, or the mean."""
    from curate.training.evaluate import accuracy, concordance, kappa, macro_f1, quadratic_kappa

    known = ~np.isnan(scores).any(1)
    figures: dict[str, Any]
    if task == "classes":
        truth = [str(label) for label in labels]
        plain = [_plain(name) if stage.student == "fasttext" else name for name in names]
        commonest = max(sorted(set(truth)), key=truth.count)
        best = np.where(known[:, None], scores, 0).argmax(1)
        said = [plain[i] if k else commonest for i, k in zip(best, known, strict=True)]
        figures = {"kappa": kappa(truth, said), "macro_f1": macro_f1(truth, said), "accuracy": accuracy(truth, said)}
        return {**figures, "confusion": _confusion(truth, said)}
    values = _means(scores, names) if stage.student == "fasttext" else scores[:, 0]
    values = np.where(known, values, ratings.mean()).astype(np.float64)
    error = float(np.abs(ratings - values).mean())
    if (ratings != np.rint(ratings)).any():
        return {"kappa": concordance(ratings, values), "mean_absolute_error": error}
    values = np.clip(np.rint(values), ratings.min(), ratings.max())
    truth, said = ([f"{v:g}" for v in part.tolist()] for part in (ratings, values))
    figures = {"kappa": quadratic_kappa(ratings, values), "macro_f1": macro_f1(truth, said), "mean_absolute_error": error}
    return {**figures, "confusion": _confusion(truth, said)}


def _confusion(truth: Sequence[str], said: Sequence[str]) -> dict[str, dict[str, int]]:
    """Label, then what was said, then how often."""
    found: dict[str, dict[str, int]] = {}
    for (label, other), n in sorted(Counter(zip(truth, said, strict=True)).items()):
        found.setdefault(label, {})[other] = n
    return found


def _card(stage: Propagate, head: str, numbers: Mapping[str, Any]) -> str:
    """What people should know of a student before they take it elsewhere."""
    of = f"the column `{head}`" if stage.labels else "reference texts against a sample of the corpus"
    kind = "a fastText model of the text" if stage.student == "fasttext" else f"a linear head on the column `{stage.embedding}`"
    lines = [
        f"# {head}",
        "",
        f"A student of {of}: {kind}, made by the stage `propagate`.",
        f"It learned from {numbers['documents']:,} documents and was judged on {numbers['held_out']:,} others of the same",
        "corpus (equal texts are on one side). It repeats its labels, mistakes included, and was not judged on any other",
        "corpus. Licence: that of the labels and of the documents it learned from.",
        "",
        "| figure | on held-out documents |",
        "|---|---|",
    ]
    names = {"kappa": "Cohen's kappa" + (", quadratic weights" if "mean_absolute_error" in numbers else "")}
    names |= {"macro_f1": "macro-F1", "accuracy": "accuracy", "mean_absolute_error": "mean absolute error"}
    lines += [f"| {title} | {numbers[key]:.3f} |" for key, title in names.items() if key in numbers]
    if "confusion" in numbers:
        said = sorted({name for row in numbers["confusion"].values() for name in row})
        lines += ["", "| label | " + " | ".join(f"said {name}" for name in said) + " |", "|---" * (len(said) + 1) + "|"]
        lines += [
            f"| {name} | " + " | ".join(str(row.get(other, 0)) for other in said) + " |"
            for name, row in numbers["confusion"].items()
        ]
    options = ", ".join(f"{key} {value:g}" for key, value in _options(stage, numbers["documents"]).items())
    return "\n".join([*lines, "", f"Options: {options}; hold-out {stage.holdout:g}; seed {stage.seed}.", ""])
