"""Labelled documents for training and judging: read, checked, rid of repetitions, and divided so that nothing leaks.

Documents that are the same but for case, white space and numbers, and near-duplicates, stay on one side of a split; so do those
that share a value of a column such as a host (`group`). The side follows from the contents and the seed, not from the order
of the input, and stays the same when other documents are added, unless these tie two groups together.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, SourceError, did_you_mean

POSITIVE, NEGATIVE = "positive", "negative"
SIDES = TRAIN, VALIDATION, TEST = "train", "validation", "test"
LICENCE_COLUMNS = ("license", "licence")
BANDS, ROWS, NGRAM = 20, 6, 5  # of MinHash: 92% of pairs of similarity 0.7 meet in a band, and 27% of those of 0.5
UNKNOWN = "not stated"


@dataclass
class Documents:
    """Labelled documents in memory.

    text, id, source, licence: strings. label: strings, or float64 for a regression. group: values that keep documents on one
    side of a split, null for none. vectors: float32 [n, dim] where a column of embeddings was asked for. notes: what was left
    out on the way, and why.
    """

    text: pa.Array
    label: np.ndarray
    id: pa.Array
    source: pa.Array
    licence: pa.Array
    group: pa.Array
    vectors: np.ndarray | None = None
    notes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.text)

    def take(self, rows: np.ndarray) -> Documents:
        """These rows, by number or as bool."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        at = pa.array(rows, pa.int64())
        columns = {name: getattr(self, name).take(at) for name in ("text", "id", "source", "licence", "group")}
        vectors = None if self.vectors is None else self.vectors[rows]
        return Documents(label=self.label[rows], vectors=vectors, notes=self.notes, **columns)

    def note(self, what: str, n: int) -> None:
        """Count documents that were left out."""
        if n:
            self.notes[what] = self.notes.get(what, 0) + n


# --------------------------------------------------------------------------------------------- reading


def load(
    paths: Sequence[str],
    *,
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
    text: str = "text",
    label: str = "label",
    source: str = "source",
    group: str = "",
    vectors: str = "",
    numbers: bool = False,
) -> Documents:
    """Read labelled documents out of Parquet, JSONL, run folders, or anything else that a recipe reads.

    paths: documents with a column `label`. positive, negative: sets whose documents are all labelled so, of which that column
    is not needed. source: column of where a document comes from, or several with commas between; without it, a document comes
    from the input that it is in. group: column whose equal values stay on one side of a split, or "".
    vectors: column of embeddings, or "". numbers: labels are numbers to be predicted.

    A null label, and a document without text, is left out and counted. Raises SourceError and RecipeError in one line: nothing
    to read, a missing column, labels or vectors that are NaN.
    """
    if not paths and not positive and not negative:
        raise RecipeError("no labelled data: give DATA with a column of labels, or --positive and --negative sets")
    if bool(positive) != bool(negative):
        given, missing = ("--positive", "--negative") if positive else ("--negative", "--positive")
        raise RecipeError(f"{given} sets need {missing} sets beside them: a classifier learns from both")
    asked = {"text": text, "label": label, "source": source, "group": group, "vectors": vectors}
    notes: dict[str, int] = {}
    tables = [_read(path, asked, "", notes) for path in paths]
    tables += [_read(path, asked, POSITIVE, notes) for path in positive]
    tables += [_read(path, asked, NEGATIVE, notes) for path in negative]
    table = pa.concat_tables(_of_one_type(tables))
    where = ", ".join((*paths, *positive, *negative))
    return _documents(table, where, label, vectors, numbers, notes)


def _read(path: str, asked: Mapping[str, str], given: str, notes: dict[str, int]) -> pa.Table:
    """One input as a table of text, label, id, source, licence, group and vectors, as far as it has them."""
    from curate.sources import Reading, Source, document_schema, inventory, module

    if (Path(path) / "run.json").is_file():
        path = str(Path(path) / "output")
        if not Path(path).is_dir():
            raise SourceError(f"{path} is missing: the run has no output yet; finish it with `curate run`")
    source = Source(paths=(path,), text=asked["text"])
    files, found = inventory(source), []
    schema, files = document_schema(files, source)
    for file in files:
        if file.no_text:
            continue
        reading = Reading(file, source, schema)
        for batch in module(file.kind).read(reading, 0, -1):
            found.append(_columns(batch, asked, given, file.corpus, file.path))
        for reject in reading.rejects:
            what = "records that cannot be read (" + reject["_reason"].removeprefix("quarantine.") + ")"
            notes[what] = notes.get(what, 0) + 1
    if not found:
        raise SourceError(f"{path} holds no document")
    return pa.concat_tables(_of_one_type([pa.Table.from_batches([batch]) for batch in found]))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.nbytes >= 1 << 31:
        raise SourceError("the labelled data hold more than 2 GB of text: give a sample of them")
    return column.combine_chunks()


def _columns(batch: pa.RecordBatch, asked: Mapping[str, str], given: str, corpus: str, path: str) -> pa.RecordBatch:
    names = batch.schema.names
    n = len(batch)

    def plain(column: pa.Array) -> pa.Array:
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def optional(name: str) -> pa.Array:
        return plain(batch[name]).cast(pa.string()) if name and name in names else pa.nulls(n, pa.string())

    text = batch[asked["text"] if asked["text"] in names else "text"]
    if given:
        label: pa.Array = pa.array([given] * n, pa.string())
    elif asked["label"] in names:
        label = plain(batch[asked["label"]])
    else:
        raise SourceError(
            f"{path} has no column {asked['label']!r}{did_you_mean(asked['label'], names)}"
            " (--param label=COLUMN names the column of labels)"
        )
    licence = next((name for name in LICENCE_COLUMNS if name in names), "")
    if asked["group"] and asked["group"] not in names:
        raise SourceError(f"{path} has no column {asked['group']!r}, by which groups were to be kept together")
    columns = {
        "text": plain(text).cast(pa.string()),
        "label": label,
        "id": optional("id"),
        "source": _sources([optional(name.strip()) for name in asked["source"].split(",")], corpus),
        "licence": pc.fill_null(optional(licence), UNKNOWN),
        "group": optional(asked["group"]),
    }
    if asked["vectors"]:
        if asked["vectors"] not in names:
            raise SourceError(
                f"{path} has no column {asked['vectors']!r}{did_you_mean(asked['vectors'], names)}: run the stage `embed` first"
            )
        columns["vectors"] = batch[asked["vectors"]]
    return pa.RecordBatch.from_pydict(columns)


def _sources(columns: list[pa.Array], corpus: str) -> pa.Array:
    """The name of each document's source: the values of the columns, the further ones in brackets."""
    first = pc.fill_null(columns[0], corpus)
    for more in columns[1:]:
        first = pc.if_else(more.is_valid(), pc.binary_join_element_wise(first, " (", pc.fill_null(more, ""), ")", ""), first)
    return first


def _of_one_type(tables: list[pa.Table]) -> list[pa.Table]:
    """Labels that are of several types, as strings."""
    kinds = {table.schema.field("label").type for table in tables}
    if len(kinds) < 2:
        return tables
    found = []
    for table in tables:
        at = table.schema.get_field_index("label")
        found.append(table.set_column(at, "label", _names(table["label"])))
    return found


def _names(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Labels as strings; a whole number without the point that a column of floats gives it."""
    if pa.types.is_floating(labels.type):
        whole = pc.all(pc.or_kleene(pc.equal(labels, pc.floor(labels)), pc.is_null(labels, nan_is_null=True))).as_py()
        if whole and not pc.any(pc.is_nan(labels)).as_py():
            return labels.cast(pa.int64()).cast(pa.string())
    try:
        return labels.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"labels are {labels.type}; they must be strings, numbers or true and false") from None


def _documents(table: pa.Table, where: str, label: str, vectors: str, numbers: bool, notes: dict[str, int]) -> Documents:
    labels = table["label"]
    if pa.types.is_floating(labels.type) and (bad := pc.sum(pc.is_nan(labels)).as_py() or 0):
        raise SourceError(f"{where}: {bad:,} of {len(table):,} labels in {label!r} are NaN; make them null, or take them out")
    if numbers:
        if not (pa.types.is_floating(labels.type) or pa.types.is_integer(labels.type)):
            raise SourceError(f"{where}: the labels in {label!r} are {labels.type}; a regression needs numbers")
        named: pa.ChunkedArray = labels.cast(pa.float64())
    else:
        named = _names(labels)
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(table["text"], ""))), 0)
    unlabelled = named.is_null() if numbers else pc.or_(named.is_null(), pc.equal(pc.fill_null(named, ""), ""))
    keep = pc.invert(pc.or_(empty, unlabelled))
    table, kept = table.filter(keep), named.filter(keep)
    if numbers:
        values: np.ndarray = kept.to_numpy()
        if not np.isfinite(values).all():
            raise SourceError(f"{where}: {int((~np.isfinite(values)).sum()):,} labels in {label!r} are infinite")
    else:
        values = np.array([plain_label(name) for name in kept.to_pylist()], object)
        _check_labels(kept.to_pylist(), where)
    found = Documents(
        label=values,
        **{name: _whole(table[name]) for name in ("text", "id", "source", "licence", "group")},
        vectors=_vectors(table["vectors"], vectors, where) if vectors else None,
        notes=notes,
    )
    found.note("documents without text", int(pc.sum(empty).as_py() or 0))
    found.note("documents without a label", int(pc.sum(pc.and_not(unlabelled, empty)).as_py() or 0))
    if not len(found):
        raise SourceError(f"{where}: no document has both a text and a label in {label!r}")
    return found


def plain_label(name: str) -> str:
    """A label as a classifier has it: without fastText's prefix; white space, which it cannot have in one, becomes `_`."""
    return "_".join(name.removeprefix("__label__").replace("\0", " ").split()) or name


def _check_labels(names: list[str], where: str) -> None:
    known: dict[str, str] = {}
    for name in sorted(set(names)):
        other = known.setdefault(plain_label(name), name)
        if other != name:
            raise SourceError(f"{where}: the labels {other!r} and {name!r} would both be {plain_label(name)!r}; rename one")


def _vectors(column: pa.ChunkedArray, name: str, where: str) -> np.ndarray:
    values = column.combine_chunks()
    kind = values.type
    sizes = pc.unique(pc.list_value_length(values)).to_pylist() if not pa.types.is_fixed_size_list(kind) else [kind.list_size]
    if values.null_count or len(sizes) != 1 or not sizes[0]:
        raise SourceError(
            f"{where}: {name!r} must hold one vector per document, all of one length; {values.null_count:,} are null"
        )
    flat = values.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    found = flat.reshape(len(values), sizes[0])
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).any(1).sum())
        raise SourceError(
            f"{where}: {bad:,} of {len(found):,} vectors in {name!r} hold NaN or infinity; leave those documents out"
        )
    return found


# --------------------------------------------------------------------------------------------- repetitions


def digests(text: pa.Array) -> list[str]:
    """SHA-256 of each text, lower case and with single spaces: what tells that two documents are the same."""
    return [
        hashlib.sha256(" ".join((t or "").lower().split()).encode("utf-8", "replace")).hexdigest() for t in text.to_pylist()
    ]


def without_repetitions(documents: Documents, keys: Sequence[str]) -> np.ndarray:
    """Which documents stay (int64 rows, in the order of their keys): one of each text, the one with the smallest id.

    A text that has several labels goes altogether. Both are counted in the notes. keys: `digests` of the texts.
    """
    rows: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    columns = [column.to_pylist() for column in (documents.id, documents.text, documents.source, documents.licence)]

    def rank(i: int) -> tuple[str, ...]:
        return tuple(column[i] or "" for column in columns)

    kept: list[int] = []
    contradicted = 0
    for key in sorted(rows):
        mine = rows[key]
        if len({documents.label[i] for i in mine}) > 1:
            contradicted += len(mine)
        else:
            kept.append(min(mine, key=rank) if len(mine) > 1 else mine[0])
    documents.note("documents whose text is there with another label too", contradicted)
    documents.note("repeated documents", len(keys) - contradicted - len(kept))
    return np.array(kept, np.int64)


def clusters(documents: Documents) -> np.ndarray:
    """A number (int64) per document, the same for near-duplicates, for texts that differ in digits only, and within a group.

    Candidates of MinHash (shingles of 5 words, 20 bands of 6) are tied together without a look at their similarity, and what
    is tied to the same document is one cluster: for a split too much together does no harm, too little does.
    """
    from curate.kernels.components import NONE, bucket_edges, components
    from curate.kernels.minhash import band_keys
    from curate.kernels.shingles import folding
    from curate.kernels.words import offsets_and_bytes

    n = len(documents)
    fold = folding(True, True, True, True)
    found, has = band_keys(*offsets_and_bytes(documents.text), fold, NGRAM, "word", BANDS, ROWS, 1)
    some = has > 0
    keys = [found[some].ravel()]
    rows = [np.repeat(np.flatnonzero(some), BANDS).astype(np.uint64)]
    if not some.all():  # fewer words than a shingle has
        short = np.flatnonzero(~some)
        keys.append(_hashes(_folded(documents.text.take(pa.array(short))), b"text"))
        rows.append(short.astype(np.uint64))
    grouped = np.flatnonzero(np.asarray(documents.group.is_valid()))
    if len(grouped):
        keys.append(_hashes(documents.group.take(pa.array(grouped)).to_pylist(), b"group"))
        rows.append(grouped.astype(np.uint64))
    key, row = np.concatenate(keys), np.concatenate(rows)
    edges = bucket_edges(key, row, n)
    with tempfile.TemporaryDirectory(prefix="curate-clusters-") as scratch:
        parts = [labels for _, labels in components(lambda: [edges], n, 1 << 32, Path(scratch))]
    labels = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    return np.where(labels == NONE, np.arange(n, dtype=np.uint64), labels).astype(np.int64)


def _folded(text: pa.Array) -> list[str]:
    return ["".join("0" if c.isdigit() else c for c in " ".join(t.lower().split())) for t in text.to_pylist()]


def _hashes(values: Sequence[str], salt: bytes) -> np.ndarray:
    return np.array([int.from_bytes(_digest(v.encode("utf-8", "replace"), salt), "little") for v in values], np.uint64)


def _digest(value: bytes, salt: bytes, key: bytes = b"") -> bytes:
    return hashlib.blake2b(value, digest_size=8, salt=salt, key=key).digest()


# --------------------------------------------------------------------------------------------- sampling and splits


def sampled(documents: Documents, keys: Sequence[str], sources: Mapping[str, float], most: int, seed: int) -> np.ndarray:
    """Which documents are taken (bool): by the hash of text and seed, so the same ones whatever else there is.

    sources: for some sources how many documents (a number above 1, or a whole one) or which share of them (up to 1.0) is taken
    per label. most: of each label of any other source; 0 for all. Raises RecipeError for a source that is not there.
    """
    names = documents.source.to_pylist()
    for name, much in sources.items():
        if name not in set(names):
            raise RecipeError(f"sources: there is no source {name!r}{did_you_mean(name, set(names))}")
        if isinstance(much, bool) or not isinstance(much, int | float) or much < 0:
            raise RecipeError(f"sources: {name!r} is given {much!r}; write how many documents, or a share such as 0.5")
    rows: dict[tuple[str, Any], list[int]] = {}
    for i, name in enumerate(names):
        rows.setdefault((name, documents.label[i]), []).append(i)
    taken = np.zeros(len(documents), bool)
    for (name, _), mine in sorted(rows.items(), key=lambda item: (item[0][0], str(item[0][1]))):
        much = sources.get(name, most or len(mine))
        count = round(much * len(mine)) if isinstance(much, float) and much <= 1 else int(much)
        mine.sort(key=lambda i: _draw(keys[i], b"sample", seed))
        taken[mine[:count]] = True
    return taken


def _draw(key: str, salt: bytes, seed: int) -> int:
    return int.from_bytes(_digest(key.encode(), salt, seed.to_bytes(8, "little", signed=True)), "little")


def divided(
    keys: Sequence[str],
    cluster: np.ndarray,
    validation: float,
    test: float,
    seed: int,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """The side of each document: `train`, `validation` or `test`, by the hash of the smallest key of its cluster and the seed.

    keys: `digests`. validation, test: shares, of clusters. labels: where they are given, a class that a side would lack gets
    one cluster there, if it has three. Raises RecipeError where the shares leave nothing to train on.
    """
    for name, share in (("validation", validation), ("test", test)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise RecipeError(f"training: {name} is {share!r}; it is a share from 0 to below 1")
    if validation + test >= 1:
        raise RecipeError(f"training: validation {validation} and test {test} leave nothing to train on")
    smallest: dict[int, str] = {}
    for c, key in zip(cluster.tolist(), keys, strict=True):
        smallest[c] = min(key, smallest.get(c, key))
    draws = {c: _draw(key, b"split", seed) / 2**64 for c, key in smallest.items()}
    sides = {c: TEST if at < test else VALIDATION if at < test + validation else TRAIN for c, at in draws.items()}
    if labels is not None:
        _fill(sides, draws, cluster, labels, [name for name, share in ((TEST, test), (VALIDATION, validation)) if share])
    return np.array([sides[c] for c in cluster.tolist()], object)


def _fill(
    sides: dict[int, str], draws: Mapping[int, float], cluster: np.ndarray, labels: np.ndarray, needed: list[str]
) -> None:
    """Give a side a cluster of a class that it lacks, where two others are left to train on; and training one in any case."""
    of: dict[str, set[int]] = {}
    for c, label in zip(cluster.tolist(), labels.tolist(), strict=True):
        of.setdefault(label, set()).add(c)
    for label in sorted(of):
        mine = sorted(of[label], key=lambda c: (draws[c], c))
        if not any(sides[c] == TRAIN for c in mine):
            sides[mine[-1]] = TRAIN
        for side in needed:
            spare = [c for c in mine if sides[c] == TRAIN]
            if len(spare) > 2 and not any(sides[c] == side for c in mine):
                sides[spare[0]] = side


def repeats(labels: np.ndarray, keys: Sequence[str], balance: float, seed: int) -> np.ndarray | None:
    """How often each document is seen in an epoch (int64): (largest class / its class) ^ balance; None where each is seen once.

    With 1 all classes weigh alike. A fraction is drawn by hash: of a class that is to count 1.5 times every other document is
    seen twice.
    """
    if not balance:
        return None
    counts = Counter(labels.tolist())
    largest = max(counts.values())
    found = np.empty(len(labels), np.int64)
    for i, label in enumerate(labels.tolist()):
        times = (largest / counts[label]) ** balance
        found[i] = int(times) + (_draw(keys[i], b"repeat", seed) / 2**64 < times % 1)
    return found


def check_two(labels: Sequence[str], gone: int) -> None:
    """That there are two classes. Raises RecipeError. gone: how many documents were left out as repeated or contradictory."""
    found = sorted(set(labels))
    if len(found) < 2:
        only = f"only one class, {found[0]!r}" if found else "no class"
        raise RecipeError(f"training: there is {only}{_after(gone)}; a classifier needs documents of at least two")


def check_still_there(read: Collection[str], labels: Sequence[str], gone: int) -> None:
    """That no class has gone with the repetitions. Raises RecipeError."""
    if lost := sorted(set(read) - set(labels)):
        raise RecipeError(f"training: the class {lost[0]!r} is empty{_after(gone)}")
    check_two(labels, gone)


def check_classes(labels: Sequence[str], side: Sequence[str], gone: int) -> None:
    """That each class has documents to train on. Raises RecipeError."""
    trained = {label for label, s in zip(labels, side, strict=True) if s == TRAIN}
    for label, count in sorted(Counter(labels).items()):
        if label not in trained:
            raise RecipeError(
                f"training: none of the {count:,} documents of the class {label!r} is left to train on{_after(gone)}"
            )


def _after(gone: int) -> str:
    return f" after {gone:,} repeated or contradictory documents were left out" if gone else ""
