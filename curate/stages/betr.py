"""Labels for documents that are near to what benchmarks ask: for a classifier that finds more of them."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curate import fit, reference
from curate.errors import RecipeError, StageError
from curate.stage import ROW, Batches, BatchFn, GlobalStage, Stage, Step, Task, with_columns
from curate.storage import (
    TableWriter,
    packed_halves,
    read_partition,
    read_table,
    unpacked_halves,
    write_bytes,
    write_partitioned,
    write_table,
)

if TYPE_CHECKING:
    from curate.embeddings import Embedder

LSA = "lsa"
OVERSAMPLE = 4  # so that the sample is whole though earlier stages have dropped up to three quarters
TASKS = 8  # among which the examples are divided
DOCS = 8192  # vectors that are multiplied at once
GRID = 1 << 20  # unit vectors are rounded to this part of one
LABELS = pa.schema(
    [("best_rank", pa.uint32()), ("best_example", pa.string()), ("benchmark", pa.string()), ("betr_label", pa.string())]
)
POSITIVE, NEGATIVE = "positive", "negative"
INLINE = "texts"


@dataclass(frozen=True, kw_only=True)
class Betr(GlobalStage):
    """Labels a sample of the corpus by how near its documents are to training examples of benchmarks.

    examples: files of training examples: Parquet, JSONL, folders, globs. Files that say that they are for testing are refused:
    with a row whose `split` says "test", or without that column by "test" in their name. texts: examples themselves. text: the
    column of an example's text, or several, such as question and answer, which are joined by line breaks. benchmark: the column
    that names the benchmark; where it is missing, the name of the file up to its first dot does. split: the column of the
    split. per_benchmark: examples of each, those of the lowest hash; 0 takes as many as the smallest has, so that all count
    the same.

    sample: how many documents are looked at, or above 0 and up to 1 which share: those of the lowest hash of (seed, id), of
    which those without an embedding fall away. Of a number there may be fewer where earlier stages dropped more than three
    quarters. column: their embeddings, if the corpus has a column of them; else only the texts of the sample are read, and
    embedded here, which is what the paper does. model: what embeds these and the examples, as of the stage `embed`. `lsa` is
    fitted on the sample, or with `column` is the model that the stage with the id `embed` has fitted before. vectors: column of
    example files with vectors made elsewhere, in place of a model.

    For each example all documents of the sample are ranked by cosine, 1 being the nearest and equals having one rank. The best
    rank of a document over all examples decides: the share `positive` with the best is positive, at least one document; equal
    ranks are ordered by their cosine, then by hash. Then `propagate` learns `betr_label`, or the like, for the whole corpus.

    Columns written: `best_rank` (uint32), `best_example` (string: its id, or file and number), `benchmark` (string),
    `betr_label` (string: positive or negative); null outside the sample. Reasons: none.

    Unit vectors are rounded to 2^-20, so sums of their products are exact in double precision: batches, shards, workers and
    memory change nothing. Memory follows the sample, with two bytes a number.

    Source: BETR (Mizrahi et al. 2025, arXiv:2507.12466): the best rank over examples, a tenth of the sample positive.

    >>> docs = ["The cell divides.", "Shares fell again.", "Cells have a nucleus.", "The market rose."] * 3
    >>> kept = Betr(texts=("Do cells have a nucleus?",), positive=0.25)(docs).kept
    >>> kept["best_rank"][2].as_py(), kept["betr_label"].to_pylist()[:4]
    (1, ['negative', 'negative', 'positive', 'negative'])
    """

    example: ClassVar[dict[str, Any]] = {"texts": ("When did the clocks strike thirteen? In April.",), "positive": 0.2}
    decides_rows: ClassVar[bool] = True

    examples: str | tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    text: str | tuple[str, ...] = "text"
    benchmark: str = "bench"
    split: str = "split"
    per_benchmark: int = 0
    sample: float = 50_000
    column: str = ""
    model: str = LSA
    embed: str = "embed"
    vectors: str = ""
    positive: float = 0.1
    seed: int = 42

    def __post_init__(self) -> None:
        if not all(self.paths) or not all(self.fields) or not self.fields:
            raise RecipeError("betr: examples and text are names of files and of columns, and must not be empty")
        if self.per_benchmark < 0:
            raise RecipeError(f"betr: per_benchmark is {self.per_benchmark}; give a number, or 0 for that of the smallest")
        if not (0 < self.sample <= 1 or (self.sample > 1 and self.sample == int(self.sample))):
            raise RecipeError(f"betr: sample is {self.sample}; a share up to 1, or a whole number of documents above 1")
        if not 0 < self.positive < 1:
            raise RecipeError(f"betr: positive is {self.positive}; it is a share between 0 and 1")
        if self.vectors and (not self.column or self.texts):
            raise RecipeError("betr: `vectors` of examples need `column`, those of the documents, and no `texts`")
        if not self.model:
            raise RecipeError("betr: model is empty; name one, or leave it for 'lsa'")

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the examples are."""
        return (self.examples,) if isinstance(self.examples, str) else tuple(self.examples)

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of an example's text."""
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)

    def bound(self, columns: Collection[str]) -> Stage:
        from curate import embeddings
        from curate.encoders import require

        if not self.paths and not self.texts:  # only now, so that a recipe can leave them to those who run it
            raise RecipeError("betr: give `examples`, files of training examples of benchmarks, or `texts`")
        if not self.vectors and embeddings.kind(self.model) == "transformer":
            require(("torch", "sentence_transformers"), "embed", "stage 'betr'")
        return self

    def reads(self) -> tuple[str, ...]:
        return ()

    def fit_reads(self) -> tuple[str, ...]:
        return "id", self.column or "text"

    def writes(self) -> pa.Schema:
        return LABELS

    def files(self) -> tuple[str, ...]:
        from curate import embeddings

        found = reference.files(self.paths, "betr")
        for path in found:
            stat = Path(path).stat()
            _refuse_tests(path, self.fields[0], self.split, stat.st_mtime_ns, stat.st_size)
        return found if self.vectors else (*found, *embeddings.files(self.model))

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [
            Step("hashes", partial(_hashes, self, n_docs), reads=("id",)),
            Step("sample", partial(_sample, self)),
            Step("contents", partial(_contents, self), reads=(self.column or "text",), rows=partial(_chosen_rows, self)),
            Step("examples", partial(_examples, self)),
            Step("vectors", partial(_vectors, self), tasks=max(n_shards, 1)),
            Step("ranks", partial(_ranks, self), tasks=TASKS),
            Step("labels", partial(_labels, self)),
            Step("deliver", partial(fit.deliver, self, 1), tasks=fit.shard_groups(n_shards)),
        ]

    def open(self, task: Task) -> BatchFn:
        state = task.state(self)
        if "best_rank" not in state.column_names:  # nothing was decided of this shard
            state = _DECIDED.empty_table()
        return partial(_annotate, state.combine_chunks())


def _annotate(state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    hit, at = fit.find_rows(state["row"].to_numpy(), batch[ROW].to_numpy())
    found = state.select(LABELS.names).take(pa.array(at, mask=~hit)).combine_chunks()
    return with_columns(batch, {f.name: found[f.name].combine_chunks().cast(f.type) for f in LABELS})


@functools.lru_cache(maxsize=256)
def _refuse_tests(path: str, text: str, split: str, _mtime: int, _size: int) -> None:
    """Raise RecipeError where a file says that it is for testing."""
    remedy = "give training examples: what a benchmark tests with must not decide what is trained on"
    says, known = 0, False
    for values in _splits(path, text, split):
        known = known or values.null_count < len(values)
        words = [v for v in pc.unique(values.drop_null()).to_pylist() if _says_test(v)]
        says += pc.sum(pc.is_in(values, value_set=pa.array(words, pa.string()))).as_py() or 0
    if says:
        raise RecipeError(f"betr: {path} holds {says:,} examples whose {split!r} is test: {remedy}")
    if not known and _says_test(Path(path).name):
        raise RecipeError(f"betr: {path} is for testing by its name: {remedy}")


def _says_test(value: str) -> bool:
    return not {"test", "tests", "testing"}.isdisjoint(re.split(r"[^a-z]+", value.lower()))


def _splits(path: str, text: str, split: str) -> Iterator[pa.Array]:
    if path.lower().endswith((".parquet", ".pq")):
        with pq.ParquetFile(path) as file:
            if split in file.schema_arrow.names:
                for batch in file.iter_batches(columns=[split], use_threads=False):
                    yield pc.cast(batch[split], pa.string())
        return
    task = Task(phase="betr.files", rank=0)
    for batch in reference.batches((path,), (text, split), "betr", task):
        yield pc.cast(batch[split], pa.string())


# --------------------------------------------------------------------------------------------- vectors


def _halves(values: pa.Array, where: str) -> tuple[np.ndarray, np.ndarray]:
    from curate.kernels.vectors import halves

    try:
        return halves(values)
    except ValueError as error:
        raise StageError(f"betr: {where} holds no embeddings: {error}") from None


def _whole(vectors: np.ndarray) -> np.ndarray:
    """Vectors (float16) of length one as whole numbers (float64), a `GRID` to one."""
    from curate.kernels.vectors import squares

    wide = vectors.astype(np.float32)
    return np.rint(wide.astype(np.float64) * (GRID / np.sqrt(squares(wide)))[:, None])


def _encoded(model: Embedder, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the texts that the model knows something of, their vectors as float16)."""
    vectors = model.encode(texts)
    good = np.flatnonzero(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
    return good, vectors[good].astype(np.float16)


# --------------------------------------------------------------------------------------------- the steps of the fit

_DECIDED = pa.schema([("shard", pa.uint32()), ("row", pa.uint32()), *LABELS])
_PLACES = pa.schema([("row", pa.uint32()), ("hash", pa.uint64())])
_WITHOUT = "documents of the sample without an embedding"
_BARE = "examples without an embedding"


def _name(task: Task) -> str:
    return task.shards[task.shard or 0]


def _hashes(stage: Betr, n_docs: int, task: Task, batches: Batches) -> None:
    """Documents of a shard whose hash is low enough that they may be in the sample."""
    share = stage.sample if stage.sample <= 1 else OVERSAMPLE * stage.sample / max(n_docs, 1)
    bound = np.uint64(min(share, 1.0) * (2.0**64 - 2**11))
    with TableWriter(task.folder(stage) / "hashes" / _name(task), _PLACES, codec="lz4") as writer:
        for batch in batches:
            ids = pc.fill_null(batch["id"], "").to_pylist()
            hashes = np.array([xxhash.xxh3_64_intdigest(name.encode(), stage.seed) for name in ids], np.uint64)
            low = np.flatnonzero((hashes <= bound) | (share >= 1))
            writer.write(pa.table([batch[ROW].take(pa.array(low)), pa.array(hashes[low])], schema=_PLACES))


def _sample(stage: Betr, task: Task) -> None:
    """The documents that are the sample, by shard."""
    folder = task.folder(stage)
    places = [read_table(folder / "hashes" / name) for name in task.shards]
    hashes = np.concatenate([np.empty(0, np.uint64), *(t["hash"].to_numpy() for t in places)])
    chosen = np.argsort(hashes, kind="stable")  # equal ones as they come
    if stage.sample > 1:
        chosen = chosen[: int(stage.sample)]
    chosen = np.sort(chosen)
    ends = np.cumsum([0, *map(len, places)])
    at = np.searchsorted(chosen, ends)
    parts = ((i, t.take(pa.array(chosen[at[i] : at[i + 1]] - ends[i]))) for i, t in enumerate(places))
    write_partitioned(folder / "chosen.parquet", _PLACES, parts)
    task.count("documents in the sample", len(chosen))


def _chosen(stage: Betr, task: Task, shard: int) -> pa.Table:
    """Rows of the sample in a shard (ascending), and their hashes."""
    return read_partition(task.folder(stage) / "chosen.parquet", shard)


def _chosen_rows(stage: Betr, task: Task) -> np.ndarray:
    return _chosen(stage, task, task.shard or 0)["row"].to_numpy()


def _contents(stage: Betr, task: Task, batches: Batches) -> None:
    """Texts or vectors of the documents of a shard that are in the sample."""
    found: list[pa.Table] = []
    for batch in batches:
        if not stage.column:
            found.append(pa.table({"row": batch[ROW], "content": batch["text"]}))
            continue
        at, vectors = _halves(batch[stage.column], f"column {stage.column!r}")
        task.count(_WITHOUT, batch.num_rows - len(at))
        if len(at):
            found.append(pa.table({"row": batch[ROW].take(pa.array(at)), "content": packed_halves(vectors)}))
    if len({table.schema for table in found}) > 1:
        raise StageError(f"betr: column {stage.column!r} has embeddings of different sizes; they come from different models")
    schema = found[0].schema if found else pa.schema([("row", pa.uint32()), ("content", pa.string())])
    with TableWriter(_content_file(stage, task, task.shard or 0), schema, codec="lz4") as writer:
        for table in found:
            writer.write(table)


def _content_file(stage: Betr, task: Task, shard: int) -> Path:
    return task.folder(stage) / "contents" / task.shards[shard]


def _examples(stage: Betr, task: Task) -> None:
    """The examples with their vectors, and the model where it is fitted on the sample."""
    folder = task.folder(stage)
    read = _read_examples(stage, task)
    sizes = [pq.read_metadata(_content_file(stage, task, shard)).num_rows for shard in range(len(task.shards))]
    if not sum(sizes):  # nothing to be ranked, and nothing to fit a model on
        bare = read.drop_columns(["content"]).append_column("vector", packed_halves(np.zeros((len(read), 1), np.float16)))
        write_table(folder / "examples.parquet", bare, codec="lz4")
        return
    model = None if stage.vectors else _model(stage, task)
    if model is None:
        at, vectors = _halves(read["content"].combine_chunks(), f"column {stage.vectors!r} of the examples")
    else:
        at, vectors = _encoded(model, read["content"].combine_chunks())
    task.count(_BARE, len(read) - len(at))
    if not len(at):
        raise StageError(f"betr: no example has an embedding by {stage.vectors or stage.model}")
    table = read.take(pa.array(at)).drop_columns(["content"]).append_column("vector", packed_halves(vectors))
    table = table.take(pa.array(_picked(stage, table))).combine_chunks()
    for benchmark, n in zip(*(c.to_pylist() for c in pc.value_counts(table["benchmark"]).flatten()), strict=True):
        task.count(f"examples of {benchmark}", n)
    write_table(folder / "examples.parquet", table, codec="lz4")


def _read_examples(stage: Betr, task: Task) -> pa.Table:
    """id, benchmark, and content (text or vector) of every example."""
    parts = []
    if stage.texts:
        names = [f"{INLINE}#{i}" for i in range(len(stage.texts))]
        columns = {"id": pa.array(names), "benchmark": pa.array([INLINE] * len(names))}
        parts.append(pa.table({**columns, "content": pa.array(stage.texts, pa.string())}))
    asked = tuple(dict.fromkeys((*stage.fields, *([stage.vectors] if stage.vectors else []))))
    numbers: dict[str, int] = {}
    for batch in reference.batches(
        stage.paths, tuple(dict.fromkeys((*asked, stage.benchmark, "id"))), "betr", task, len(asked)
    ):
        path = batch["_file"][0].as_py()
        first = numbers.get(path, 0)
        numbers[path] = first + batch.num_rows
        stem = Path(path).name.partition(".")[0]
        ids = pc.cast(batch["id"], pa.string())
        places = pa.array([f"{Path(path).name}#{first + i}" for i in range(batch.num_rows)], pa.string())
        if stage.vectors:
            content = batch[stage.vectors]
        else:
            words = [pc.fill_null(pc.cast(batch[name], pa.string()), "") for name in stage.fields]
            content = pc.binary_join_element_wise(*words, "\n") if len(words) > 1 else words[0]
        columns = {
            "id": pc.coalesce(ids, places),
            "benchmark": pc.fill_null(pc.cast(batch[stage.benchmark], pa.string()), stem),
        }
        parts.append(pa.table({**columns, "content": content}))
    if not parts:
        raise StageError(f"betr: {', '.join(stage.paths)} hold no examples")
    try:
        return pa.concat_tables(parts).combine_chunks()
    except pa.ArrowInvalid:
        raise StageError(f"betr: the files of examples have vectors of different types in {stage.vectors!r}") from None


def _picked(stage: Betr, examples: pa.Table) -> np.ndarray:
    """The examples that count (ascending): of each benchmark those with the lowest hashes."""
    of = np.array(examples["benchmark"].to_pylist(), object)
    hashes = np.array([xxhash.xxh3_64_intdigest(i.encode(), stage.seed) for i in examples["id"].to_pylist()], np.uint64)
    groups = [np.flatnonzero(of == name) for name in sorted(set(of.tolist()))]
    most = stage.per_benchmark or min(map(len, groups))
    return np.sort(np.concatenate([rows[np.argsort(hashes[rows], kind="stable")][:most] for rows in groups]))


def _model(stage: Betr, task: Task) -> Embedder:
    """What embeds the examples. lsa is fitted here, and left for the next step, or was fitted by an earlier stage."""
    from curate import embeddings

    if stage.model != LSA:
        return embeddings.load(stage.model, dim=_numbers(stage, task))
    if stage.column:
        held = task.state(stage.embed)
        if not len(held) or "model" not in held.column_names:
            raise StageError(f"betr: the stage {stage.embed!r} has fitted no lsa: give as `model` what made {stage.column!r}")
        return embeddings.Lsa.load(io.BytesIO(held["model"][0].as_py()))
    hashes, texts = [np.empty(0, np.uint64)], [pa.array([], pa.string())]
    for shard in range(len(task.shards)):
        hashes.append(_chosen(stage, task, shard)["hash"].to_numpy())
    most = np.sort(np.concatenate(hashes))[: embeddings.SAMPLE][-1]
    for shard, mine in enumerate(hashes[1:]):
        texts.append(
            read_table(_content_file(stage, task, shard), ["content"])["content"].combine_chunks().filter(mine <= most)
        )
    order = np.argsort(np.concatenate([h[h <= most] for h in hashes]), kind="stable")[: embeddings.SAMPLE]
    model = embeddings.fit_lsa(pa.concat_arrays(texts).take(pa.array(order)), seed=stage.seed)
    write_bytes(task.folder(stage) / "lsa.npz", model.to_bytes())
    return model


def _numbers(stage: Betr, task: Task) -> int:
    """How many numbers the vectors of the documents have; 0 if they are made here."""
    for name in task.shards if stage.column else ():
        kind = pq.read_schema(task.folder(stage) / "contents" / name).field("content").type
        if pa.types.is_fixed_size_binary(kind):
            return kind.byte_width // 2
    return 0


def _vectors(stage: Betr, task: Task) -> None:
    """The vectors of the documents of one shard that are in the sample."""
    shard = task.rank
    if shard >= len(task.shards):
        return
    table = read_table(_content_file(stage, task, shard))
    rows, content = table["row"].to_numpy(), table["content"]
    if not len(table):
        vectors = np.empty((0, 1), np.float16)
    elif stage.column:
        vectors = unpacked_halves(content)
    else:
        good, vectors = _encoded(_again(stage, task), content.combine_chunks())
        task.count(_WITHOUT, len(rows) - len(good))
        rows = rows[good]
    found = pa.table({"row": rows, "vector": packed_halves(vectors)})
    write_table(task.folder(stage) / "vectors" / task.shards[shard], found, codec="none")


def _again(stage: Betr, task: Task) -> Embedder:
    from curate import embeddings

    if stage.model == LSA:
        path = task.folder(stage) / "lsa.npz"
        return task.cached(("betr", str(path), path.stat().st_mtime_ns), partial(embeddings.Lsa.load, path))
    return task.cached(("betr", embeddings.files(stage.model)), partial(embeddings.load, stage.model))


def _all_vectors(stage: Betr, task: Task) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(rows, vectors) of the sample in each shard."""
    rows, vectors = [], []
    for name in task.shards:
        table = read_table(task.folder(stage) / "vectors" / name)
        rows.append(table["row"].to_numpy())
        vectors.append(unpacked_halves(table["vector"]))
    return rows, vectors


def _ranks(stage: Betr, task: Task) -> None:
    """The best rank of each document over one part of the examples, which of these it was, and the cosine."""
    examples = read_table(task.folder(stage) / "examples.parquet", ["vector"])
    mine = np.arange(len(examples))[task.rank :: TASKS]
    _, parts = _all_vectors(stage, task)
    n = sum(map(len, parts))
    best = np.full(n, np.iinfo(np.uint32).max, np.uint32)
    which, cosine = np.full(n, len(examples), np.int64), np.full(n, -np.inf)
    targets = unpacked_halves(examples["vector"])[mine]
    sizes = {part.shape[1] for part in parts if len(part)} | {targets.shape[1]}
    if n and len(sizes) > 1:
        raise StageError(
            f"betr: vectors have {' and '.join(map(str, sorted(sizes)))} numbers: give as `model` what made {stage.column!r}"
        )
    targets = _whole(targets) if n else targets
    block = int(np.clip(task.memory_limit // 8 // max(8 * n, 1), 1, 128))
    for at in range(0, len(mine) if n else 0, block):
        products = np.empty((len(targets[at : at + block]), n))
        done = 0
        for part in parts:
            for start in range(0, len(part), DOCS):
                piece = _whole(part[start : start + DOCS])
                products[:, done : done + len(piece)] = targets[at : at + block] @ piece.T
                done += len(piece)
        for i, row in enumerate(products):
            rank = (n + 1 - np.searchsorted(np.sort(row), row, side="right")).astype(np.uint32)
            _keep_best(best, which, cosine, rank, int(mine[at + i]), row)
    found = pa.table({"rank": best, "example": which, "cosine": cosine})
    write_table(task.folder(stage) / "ranks" / f"{task.rank:05d}.parquet", found, codec="lz4")


def _keep_best(best: np.ndarray, which: np.ndarray, cosine: np.ndarray, rank: Any, example: Any, value: Any) -> None:
    """Lower ranks win; of equal ones the higher cosine, then the earlier example."""
    same = rank == best
    wins = (rank < best) | (same & ((value > cosine) | ((value == cosine) & (example < which))))
    best[wins] = rank[wins]
    which[wins] = example if np.isscalar(example) else example[wins]
    cosine[wins] = value[wins]


def _labels(stage: Betr, task: Task) -> None:
    """The best over all parts, and the labels that follow."""
    folder = task.folder(stage)
    rows, parts = [], [read_table(folder / "ranks" / f"{rank:05d}.parquet") for rank in range(TASKS)]
    for name in task.shards:
        rows.append(read_table(folder / "vectors" / name, ["row"])["row"].to_numpy())
    best, which, cosine = (parts[0][c].to_numpy().copy() for c in ("rank", "example", "cosine"))
    for part in parts[1:]:
        _keep_best(best, which, cosine, *(part[c].to_numpy() for c in ("rank", "example", "cosine")))
    n = len(best)
    hashes = [np.empty(0, np.uint64)]
    for shard, mine in enumerate(rows):
        chosen = _chosen(stage, task, shard)
        hashes.append(chosen["hash"].to_numpy()[np.searchsorted(chosen["row"].to_numpy(), mine)])
    shards = np.repeat(np.arange(len(rows)), [len(r) for r in rows]).astype(np.uint32)
    row = np.concatenate([np.empty(0, np.uint32), *rows]).astype(np.uint32)
    first = np.lexsort([np.concatenate(hashes), -cosine, best])[: max(int(Fraction(repr(stage.positive)) * n), 1)]
    label = np.full(n, NEGATIVE, object)
    label[first] = POSITIVE
    examples = read_table(folder / "examples.parquet", ["id", "benchmark"]).take(pa.array(which))
    columns = [shards, row, best, examples["id"], examples["benchmark"], pa.array(label, pa.string())]
    task.count("positive documents", len(first))
    fit.write_decisions(stage, task, pa.table(columns, schema=_DECIDED))
