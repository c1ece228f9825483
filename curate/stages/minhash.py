"""Near-duplicates: proposed by MinHash and LSH, decided by measured similarity."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curate import near
from curate.errors import RecipeError
from curate.fit import find_rows
from curate.stage import REASON, ROW, BatchFn, GlobalStage, Stage, Step, Task, with_columns


@dataclass(frozen=True, kw_only=True)
class MinHash(GlobalStage):
    """Drops or labels near-duplicates: one document of each cluster stays, and every removal has a measured similarity.

    Documents are proposed by MinHash with LSH and decided by the exact Jaccard similarity of their sets of shingles.

    ngram, unit: a shingle is every `ngram` consecutive words ("word") or characters ("char"). A text of fewer has none and is
    left to `exact_dedup`. Words are runs of letters, digits, marks and "_"; in scripts without spaces every character is one.
    lowercase, strip_accents (of Latin, Greek and Cyrillic only), strip_punctuation (else only whitespace and control
    characters separate words): how texts are compared. fold_digits: numbers are the same when candidates are proposed, never
    when they are verified.
    bands, rows: documents with `rows` equal minima in one of `bands` are candidates: with probability 1 - (1 - s^rows)^bands at
    similarity s. seed: of the permutations.

    verify: the least similarity. In a component of candidates documents are taken in the order of `prefer`; the first leads and
    takes those that are that similar to itself, the rest go on likewise. A component of more than verify_sample documents is
    compared with at most 64 leaders, and what finds none stays and is counted. "off": the first of every component stays,
    unverified. containment: also drops a document of which at least that share of the shingles lies in a longer candidate.
    prefer: which one stays: "first" in input order, "longest" (text_bytes), "newest" (date), or the highest value of a column;
    without a value last, equals by the shorter id, then the smaller one, whatever the order of the shards.
    mode: "drop", or "label" and keep all.
    against: a run with an index, or an index: what it holds stays, and duplicates of it go. keep_index: keep the band keys and
    shingles of the documents that stay in `index/` of the run, with those of `against`: 8 bytes a shingle, 12 a band.

    Columns written: with mode "label", `duplicate_cluster` (uint64, the same for the documents of a cluster; null for singles),
    `cluster_size` (uint32) and `duplicate_of` (string, id of the document that would stay; null for that and for singles).
    Reasons: `minhash.duplicate` with `_duplicate_of` and `_similarity` (Jaccard; null unverified), `minhash.contained` with
    `_value`, the share that lies in the other.

    Memory: 12 bytes a band and document of the shard at hand; a partition of keys, the union-find, and the shingles of a
    partition of candidates are taken in ranges within the memory limit. Nothing grows with the square of a cluster.

    Source: Broder 1997 (doi:10.1109/SEQUEN.1997.666900); defaults of FineWeb (Penedo et al. 2024,
    https://arxiv.org/abs/2406.17557); verification is our own.

    >>> same = "it was a bright cold day in April and the clocks were striking thirteen " * 3
    >>> result = MinHash()([same, "something else entirely, of more than five words", same + "now"])
    >>> result.dropped.select(["id", "_duplicate_of", "_similarity"]).to_pylist()
    [{'id': '2', '_duplicate_of': '0', '_similarity': 0.9333333333333333}]
    """

    decides_rows: ClassVar[bool] = True
    max_drop: ClassVar[float | None] = 0.5
    max_cluster: ClassVar[int | None] = 10_000

    ngram: int = 5
    unit: Literal["word", "char"] = "word"
    bands: int = 14
    rows: int = 8
    verify: float | Literal["off"] = 0.7
    containment: float | Literal["off"] = "off"
    prefer: str = "first"
    mode: Literal["drop", "label"] = "drop"
    verify_sample: int = 1000
    lowercase: bool = True
    strip_accents: bool = True
    fold_digits: bool = True
    strip_punctuation: bool = True
    against: str | None = None
    keep_index: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("ngram", 1), ("bands", 1), ("rows", 1), ("verify_sample", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value < 1 << 31:
                raise RecipeError(f"minhash: {name} is {value!r}; it is a whole number from {least} and below 2^31")
        for name in ("verify", "containment"):
            value = getattr(self, name)
            if value != "off" and (not isinstance(value, int | float) or not 0 < value <= 1):
                raise RecipeError(f"minhash: {name} is {value!r}; it is a similarity above 0 and at most 1, or off")
        if self.containment != "off" and self.verify == "off":
            raise RecipeError("minhash: containment is measured, so it needs `verify`: give a similarity")
        for name, choices in (("unit", ("word", "char")), ("mode", ("drop", "label"))):
            if getattr(self, name) not in choices:
                raise RecipeError(f"minhash: {name} is {getattr(self, name)!r}; it is {' or '.join(map(repr, choices))}")

    def reads(self) -> tuple[str, ...]:
        return ()

    def fit_reads(self) -> tuple[str, ...]:
        return near.read_in_fit(self)

    def files(self) -> tuple[str, ...]:
        return () if self.against is None else (near.index_file(self),)

    def bound(self, columns: Collection[str]) -> Stage:
        near.index_of(self)  # an index that does not fit is known before any work
        return self

    def writes(self) -> pa.Schema:
        if self.mode == "drop":
            return pa.schema([])
        return pa.schema([("duplicate_cluster", pa.uint64()), ("cluster_size", pa.uint32()), ("duplicate_of", pa.string())])

    def reasons(self) -> tuple[str, ...]:
        return () if self.mode == "label" else ("minhash.duplicate", "minhash.contained")

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return near.steps(self, n_shards, n_docs)

    def rethresholded(self, threshold: float) -> tuple[GlobalStage, str]:
        if self.verify == "off":
            raise ValueError("minhash: verify is off, so there is no evidence")
        if not self.verify <= threshold <= 1:
            raise ValueError(f"minhash: the evidence reaches from {self.verify} to 1, not to {threshold}")
        return replace(self, verify=threshold, keep_index=False), "verify"

    def open(self, task: Task) -> BatchFn:
        short = near.short_texts(self, task)
        if short:
            task.count(f"shorter than {self.ngram} {self.unit}s, left alone", short)
        return partial(_decide, self.mode == "label", task.state(self), task)


def _decide(label: bool, state: pa.Table, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
    wanted = batch[ROW].to_numpy()
    rows = state["row"].to_numpy() if state.num_rows else wanted[:0]
    hit, at = find_rows(rows, wanted)
    found = state.take(pa.array(at, mask=~hit)) if len(rows) else near.NOTHING.take(pa.nulls(len(wanted), pa.int64()))
    found = found.combine_chunks()
    kind = pc.fill_null(_column(found, "kind"), near.LEADS)
    unresolved = pc.sum(pc.equal(kind, near.UNRESOLVED)).as_py() or 0
    if unresolved:
        task.count("in components too large to compare with every leader, kept", unresolved)
    gone = pc.or_(pc.equal(kind, near.DUPLICATE), pc.equal(kind, near.CONTAINED))
    duplicate_of = pc.if_else(gone, _column(found, "duplicate_of"), pa.scalar(None, pa.string()))
    if label:
        columns = {
            "duplicate_cluster": _column(found, "cluster"),
            "cluster_size": pc.fill_null(_column(found, "size"), pa.scalar(1, pa.uint32())),
            "duplicate_of": duplicate_of,
        }
        return with_columns(batch, columns)
    reason = pc.if_else(pc.equal(kind, near.CONTAINED), "minhash.contained", "minhash.duplicate")
    columns = {
        REASON: pc.if_else(gone, reason, pa.scalar(None, pa.string())),
        "_value": _column(found, "value"),
        "_duplicate_of": duplicate_of,
        "_similarity": _column(found, "similarity"),
    }
    return with_columns(batch, columns)


def _column(table: pa.Table, name: str) -> pa.Array:
    column: Any = table[name]
    return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)
