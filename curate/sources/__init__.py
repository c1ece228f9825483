"""Raw input to documents: what is there (`inventory`), how it is divided (`splits`), and what every source has in common.

One file per kind of input. A source module has

    SUFFIXES                                  names that it takes
    schema(file, source) -> pa.Schema         the columns that a file brings, read at plan time
    parts(file, source, size) -> [(a, b, n)]  how a file is divided: start, stop, bytes of each part
    read(reading, start, stop) -> Batches     the records of one part, as batches with any of the document fields

and knows nothing of shards, ids, limits or ledgers: `curate.ingest` does that for all of them.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any, BinaryIO

import pyarrow as pa

from curate import extract
from curate.errors import MissingExtra, RecipeError, SourceError, did_you_mean
from curate.guard import Guard
from curate.storage import sha256_stream

KINDS = ("warc", "jsonl", "parquet", "hf", "text", "html")
SMALL_SPLIT, LARGE_SPLIT = 4 << 20, 256 << 20
_NOT_DATA = {"dataset_info.json", "dataset_dict.json", "state.json", "manifest.json", "croissant.json"}

BASE = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("declared_language", pa.string()),
        ("media_type", pa.string()),
        ("raw_bytes", pa.uint32()),
        ("text_bytes", pa.uint32()),
        ("tokens", pa.uint32()),
        ("corpus", pa.string()),
        ("file", pa.string()),
        ("record", pa.int64()),
    ]
)
MAPPED = ("id", "text", "url", "date")  # fields that an input may bring; other collisions become input_<name>
EXTRA = "_extra"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where documents come from and what is done with them on the way in. All of it enters the fingerprint.

    kind: auto (by file name) or one of warc, jsonl, parquet, hf, text, html.
    paths: files, folders, globs, fsspec URLs. corpus: name for all documents; default the name of each input root.
    extract: extractor for HTML (curate, resiliparse, trafilatura, or none, which needs keep_html).
    keep: what is taken of a page: main (its main content), all_text, or comments (main content and the readers' comments).
    format: of the text of a page, text or markdown. An extractor that has not the one or the other says so before any work.
    metadata: write what a page says of itself into columns of the documents. They are fixed by the extractor (page_type, title,
    author, published, canonical_url, licence_links; or title alone), there for inputs of the kinds warc (without WET) and html,
    and null where a page is plain text or does not say. An input's own column of such a name is the same column.
    keep_html: keep the page, as UTF-8, in the binary column `html`.
    max_raw_bytes, max_text_bytes: larger records go to the ledger as `too_large`; with cut_text a long text is cut instead.
    on_error: what a file that cannot be read at all does: stop the run, or be quarantined.
    text, id: columns of JSONL, Parquet and Hugging Face inputs that hold the text and the id.
    columns: types of JSONL columns (string, int64, double, bool, list<...>); default from the first 1,000 lines of each file.
    """

    kind: str = "auto"
    paths: tuple[str, ...] = ()
    corpus: str | None = None
    extract: str = "curate"
    keep: str = "main"
    format: str = "text"
    metadata: bool = True
    keep_html: bool = False
    max_raw_bytes: int = 16 << 20
    max_text_bytes: int = 16 << 20
    cut_text: bool = False
    on_error: str = "stop"
    text: str = "text"
    id: str = "id"
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("auto", *KINDS):
            raise RecipeError(f"source: unknown kind {self.kind!r}{did_you_mean(self.kind, ('auto', *KINDS))}")
        if self.on_error not in ("stop", "quarantine"):
            raise RecipeError(f"source.on_error is {self.on_error!r}; it is 'stop' or 'quarantine'")
        extract.check_options(self.keep, self.format, "source.")
        if self.extract == "none" and not self.keep_html:
            raise RecipeError("source.extract is 'none', so nothing would be kept of a page: set source.keep_html")


@dataclass(frozen=True)
class InputFile:
    """One input. name: relative to its root; stamp: etag or modification time, which tell a changed file.

    found: it was found in a folder, rather than named. no_text: why it is passed over (see `document_schema`).
    """

    corpus: str
    name: str
    path: str
    kind: str
    size: int
    stamp: str
    found: bool = False
    no_text: str = ""


class NoText(SourceError):
    """An input has no column with texts."""


@dataclass(frozen=True)
class Part:
    """A piece of an input: its number in the inventory, and the bounds as its source module understands them."""

    file: int
    start: int
    stop: int


def module(kind: str) -> ModuleType:
    """The source module of a kind."""
    return importlib.import_module(f"curate.sources.{kind}")


def kind_of(name: str) -> str | None:
    """The kind of input that a file name tells, or None."""
    base = name.rsplit("/", 1)[-1].lower()
    if base in _NOT_DATA:
        return None
    for kind in KINDS:
        if base.endswith(module(kind).SUFFIXES):
            return kind
    return None


# --------------------------------------------------------------------------------------------- what is there


def filesystem(path: str) -> tuple[Any, str]:
    """(fsspec file system, path in it). Raises MissingExtra or SourceError for a protocol that is not at hand."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        if path.startswith("s3"):
            raise MissingExtra("s3fs", "s3", path) from error
        raise SourceError(f"{path}: {error}") from error
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error


def is_remote(path: str) -> bool:
    """Whether a path is a URL of another than the local file system."""
    return "://" in path and not path.startswith("file://")


def inventory(source: Source) -> list[InputFile]:
    """Every input file: roots in the order given, files of a root by relative name.

    Raises SourceError where a path does not exist, holds nothing to read, or is of another kind than the source says.
    """
    if not source.paths:
        raise SourceError("no input: give -i PATH (a file, a folder, a glob or a URL), or `paths` in the recipe's source")
    files: list[InputFile] = []
    for path in source.paths:
        files.extend(_root(source, path))
    paths: set[str] = set()
    places: dict[tuple[str, str], str] = {}
    for file in files:
        if file.path in paths:
            raise SourceError(f"input {file.path} is given twice")
        paths.add(file.path)
        other = places.setdefault((file.corpus, file.name), file.path)
        if other != file.path:  # nobody could tell where a document came from
            raise SourceError(
                f"inputs {other} and {file.path} would both be {file.name!r} of corpus {file.corpus!r}: "
                "give one folder or glob above both"
            )
    return files


def _root(source: Source, path: str) -> list[InputFile]:
    fs, inner = filesystem(path)
    remote = is_remote(path)
    try:
        if any(c in inner for c in "*?[") and not fs.exists(inner):
            found = [f for f in fs.glob(inner) if not fs.isdir(f)]
            root = inner[: min(inner.index(c) for c in "*?[" if c in inner)].rpartition("/")[0]
            explicit = True
        elif fs.isdir(inner):
            root, explicit = inner.rstrip("/"), False
            found = _without_runs(path, root, [f for f in fs.find(inner) if not _hidden(f[len(inner) :])])
        elif fs.exists(inner):
            found, root, explicit = [inner], inner.rpartition("/")[0], True
        else:
            raise SourceError(f"input {path} does not exist")
    except (OSError, PermissionError) as error:
        raise SourceError(f"input {path} cannot be listed: {error}") from error
    found.sort()
    corpus = source.corpus or _corpus_name(inner if found == [inner] else root)
    files = []
    others: set[str] = set()
    for name in found:
        kind = kind_of(name)
        if source.kind != "auto" and kind != source.kind:
            if kind is not None:
                others.add(kind)
            kind = source.kind if kind is None and explicit else None
            if kind is None:
                continue
        if kind is None:
            if explicit:
                known = ", ".join(s for k in KINDS for s in module(k).SUFFIXES)
                raise SourceError(f"input {name}: its name does not say what it is ({known}); set `source: <kind>`")
            continue
        size, stamp = _stat(fs, name, source)
        shown = name[len(root) :].lstrip("/") if root else name
        if not shown.isprintable() and any("\ud800" <= c <= "\udfff" for c in shown):
            raise SourceError(f"input {name!r}: the name is not UTF-8; rename the file")
        files.append(InputFile(corpus, shown, fs.unstrip_protocol(name) if remote else name, kind, size, stamp, not explicit))
    if not files and others:
        raise SourceError(
            f"input {path} is {' and '.join(sorted(others))}, but the recipe's source is {source.kind}; use `source: auto`"
        )
    if not files:
        raise SourceError(f"input {path} holds no file that can be read as a source")
    if not explicit and any(f.kind in ("warc", "jsonl", "parquet", "hf") for f in files):
        files = [f for f in files if f.name.rpartition("/")[2].lower() != "readme.md"]  # it describes the data
    return files


def _without_runs(path: str, root: str, found: list[str]) -> list[str]:
    """The files of a folder without those of run folders in it: the output may lie beside the input."""
    names = set(found)
    runs = [f.removesuffix("/run.json") for f in found if f.endswith("/run.json")]
    runs = [r for r in runs if f"{r}/recipe.yaml" in names]
    if root in runs:
        raise SourceError(f"input {path} is a run folder; its documents are in {path.rstrip('/')}/output")
    return [f for f in found if not any(f.startswith(f"{r}/") for r in runs)]


def _hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.strip("/").split("/"))


def _corpus_name(path: str) -> str:
    base = path.rstrip("/").rsplit("/", 1)[-1]
    for kind in KINDS:
        for suffix in sorted(module(kind).SUFFIXES, key=len, reverse=True):
            if base.lower().endswith(suffix):
                return base[: -len(suffix)] or base
    return base or "input"


def _stat(fs: Any, name: str, source: Source) -> tuple[int, str]:
    try:
        info = fs.info(name)
    except (OSError, PermissionError) as error:
        if source.on_error == "quarantine":
            return 0, "unreadable"
        raise SourceError(
            f"input {name} cannot be read: {error.strerror or error}; `source.on_error: quarantine` skips it"
        ) from error
    stamp = info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""
    return int(info["size"] or 0), str(stamp)


# --------------------------------------------------------------------------------------------- how it is divided


def splits(files: Sequence[InputFile], source: Source) -> list[tuple[Part, ...]]:
    """The tasks of ingest: a fixed function of the inventory, so that documents do not depend on who reads them.

    Parquet is divided by row groups, plain JSONL by bytes; a compressed stream is one part. Parts are joined up to a
    64th of the input, but at least 4 MB and at most 256 MB: small enough to keep workers busy, large enough for 100 TB.
    """
    target = min(LARGE_SPLIT, max(SMALL_SPLIT, sum(f.size for f in files) // 64))
    found: list[tuple[Part, ...]] = []
    held: list[Part] = []
    size = 0
    for number, file in enumerate(files):
        for start, stop, n in [(0, 0, 0)] if file.no_text else _parts(file, source, target):
            if held and size + n > target:
                found.append(tuple(held))
                held, size = [], 0
            held.append(Part(number, start, stop))
            size += n
    return [*found, tuple(held)] if held else found


def _parts(file: InputFile, source: Source, target: int) -> list[tuple[int, int, int]]:
    try:
        return module(file.kind).parts(file, source, target)
    except (OSError, pa.ArrowInvalid) as error:
        if source.on_error == "quarantine":
            return [(0, -1, 0)]
        raise _unreadable(file, error) from error


def document_schema(files: Sequence[InputFile], source: Source) -> tuple[pa.Schema, list[InputFile]]:
    """Schema of the documents (the fields, then every other input column with its type), and the files, some marked.

    Types of one column in several files are unified (null to anything, int to wider int, int to double); raises SourceError
    naming both files where they clash. A file without texts is an error, unless it was found in a folder that has inputs of
    another kind and none of its own kind with texts: then it goes with a crawl (labels, say), and is passed over with a note
    and an entry in the ledger.
    """
    extra: dict[str, tuple[pa.DataType, str]] = {}
    marked = list(files)
    without: list[tuple[int, NoText]] = []
    for number, file in enumerate(files):
        try:
            schema = module(file.kind).schema(file, source)
        except NoText as error:
            without.append((number, error))
            continue
        except (OSError, pa.ArrowInvalid) as error:
            if source.on_error == "quarantine":
                continue
            raise _unreadable(file, error) from error
        _check_names(schema, file, source)
        for f in schema:
            _add_column(extra, f, file.path, source)
    for number, lacks in without:
        file = files[number]
        bare = {n for n, _ in without}
        beside = [f for n, f in enumerate(files) if f.corpus == file.corpus and n not in bare]
        if not file.found or not beside or file.kind in {f.kind for f in beside}:
            raise lacks
        marked[number] = replace(file, no_text=str(lacks))
    fields = list(BASE)
    if source.keep_html:
        fields.append(pa.field("html", pa.binary()))
    if any(f.kind == "jsonl" and not f.no_text for f in marked):
        fields.append(pa.field(EXTRA, pa.string()))
    for name, (kind, _) in extra.items():
        if name not in (f.name for f in fields):
            fields.append(pa.field(name, pa.string() if pa.types.is_null(kind) else kind))
    return pa.schema(fields), marked


def _check_names(schema: pa.Schema, file: InputFile, source: Source) -> None:
    """That no two columns of a file would have one name, and `language`, by which the ledger counts, is a string."""
    taken: dict[str, str] = {}
    for f in schema:
        name = column_name(f.name, source) or f.name
        if name in taken:
            other = "twice" if taken[name] == f.name else f"as well as {taken[name]!r}"
            raise SourceError(f"{file.path} has the column {f.name!r} {other}, which would both be {name!r}; rename one")
        taken[name] = f.name
        if name == "language" and not pa.types.is_string(_plain(f.type)) and not pa.types.is_null(f.type):
            raise SourceError(f"{file.path}: the column 'language' is {f.type}, not a string; rename it")


def _add_column(extra: dict[str, tuple[pa.DataType, str]], column: pa.Field, path: str, source: Source) -> None:
    name = column_name(column.name, source)
    if name is None:
        return
    plain = _plain(column.type)
    known, where = extra.get(name, (plain, path))
    unified = unify(known, plain)
    if unified is None:
        remedy = "; `source.metadata: false` leaves out what pages say of themselves" if name in extract.COLUMNS.names else ""
        raise SourceError(f"column {column.name!r} is {known} in {where} but {plain} in {path}{remedy}")
    extra[name] = unified, where if unified == known else path


def column_name(name: str, source: Source) -> str | None:
    """What an input column is called in the documents; None for those that become fields."""
    if name in (source.text, source.id, "url", "date"):
        return None
    if name in BASE.names or name.startswith("_"):
        return f"input_{name.lstrip('_')}"
    return name


def _plain(kind: pa.DataType) -> pa.DataType:
    """One kind of string, binary and list, without dictionaries, so that files of several writers agree."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def unify(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds both, or None."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if pa.types.is_integer(a) and pa.types.is_integer(b):
        signed = pa.types.is_signed_integer(a) or pa.types.is_signed_integer(b)
        width = max(t.bit_width * (2 if signed and pa.types.is_unsigned_integer(t) else 1) for t in (a, b))
        return pa.type_for_alias(f"{'' if signed else 'u'}int{min(width, 64)}")
    if all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (a, b)):
        return pa.float64()
    if pa.types.is_list(a) and pa.types.is_list(b):
        inner = unify(a.value_type, b.value_type)
        return inner and pa.list_(inner)
    return None


def _unreadable(file: InputFile, error: BaseException) -> SourceError:
    why = str(error).strip().split("\n")[0]
    return SourceError(f"input {file.path} cannot be read: {why}; `source.on_error: quarantine` skips it")


# --------------------------------------------------------------------------------------------- reading


@dataclass
class Reading:
    """An input file being read: what a source module is handed. number: of the file in the inventory."""

    file: InputFile
    source: Source
    schema: pa.Schema
    guard: Guard | None = None
    number: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    def open(self, hashed: bool = False) -> BinaryIO:
        """The raw bytes as a stream. hashed: the digest of all that passes ends up in `sha256`."""
        if is_remote(self.file.path):
            fs, inner = filesystem(self.file.path)
            stream: BinaryIO = fs.open(inner, "rb", cache_type="readahead", block_size=8 << 20)
        else:
            stream = open(self.file.path, "rb")  # noqa: SIM115 - the caller closes it
        if hashed:
            self._hashing = HashingStream(stream)
            return self._hashing  # type: ignore[return-value]
        return stream

    def sha256(self) -> str:
        """Digest of the whole file: of the stream opened with `hashed` and what is left of it, else read here."""
        if hasattr(self, "_hashing"):
            while self._hashing.read(1 << 20):
                pass
            return self._hashing.hexdigest()
        with self.open() as stream:
            return sha256_stream(stream)

    def reject(self, record: int, reason: str, detail: str = "", id: str | None = None, url: str | None = None) -> None:
        """Put a record that is not passed on into the ledger, with its place and its reason."""
        self.rejects.append({"record": record, "id": id, "url": url, "_reason": reason, "_detail": detail[:500]})

    def count(self, key: str, n: int = 1) -> None:
        self.counters[key] = self.counters.get(key, 0) + n

    @cached_property
    def extract(self) -> Any:
        """The extractor that the source names."""
        return extract.load(self.source.extract, keep=self.source.keep, format=self.source.format)


class HashingStream:
    """A readable stream that digests what passes."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._digest = stream, hashlib.sha256()

    def read(self, n: int = -1) -> bytes:
        data = self._stream.read(n)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> HashingStream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass  # closed by whoever asks for the digest


ROWS, BYTES = 1024, 16 << 20


def row_batches(rows: Iterator[dict[str, Any]], schema: pa.Schema, size: str = "text") -> Iterator[pa.RecordBatch]:
    """Batches of at most 1,024 rows and about 16 MB out of rows whose values fit the schema."""
    held: list[dict[str, Any]] = []
    weight = 0
    for row in rows:
        held.append(row)
        weight += row.get("raw_bytes") or 0
        if len(held) == ROWS or weight >= BYTES:
            yield pa.RecordBatch.from_pylist(held, schema)
            held, weight = [], 0
    if held:
        yield pa.RecordBatch.from_pylist(held, schema)


def page_columns(source: Source) -> pa.Schema:
    """The columns that pages bring to the documents: what they say of themselves, as far as the extractor looks at it.

    Raises what `curate.extract.load` raises: an extractor that is not there, or has not these options, is known at plan time.
    """
    if source.extract == "none":
        return pa.schema([])
    extract.load(source.extract, keep=source.keep, format=source.format)
    return extract.columns(source.extract) if source.metadata else pa.schema([])


def page_schema(source: Source) -> pa.Schema:
    """Schema of the rows that `page_rows` makes."""
    kept = [pa.field("html", pa.binary())] if source.keep_html else []
    fields = [f for f in BASE if f.name not in ("text_bytes", "tokens", "corpus", "file")]
    return pa.schema([*fields, *kept, *page_columns(source)])


def page_rows(reading: Reading, pages: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """Extracted text of pages: rows for those that have any, rejects for the others.

    pages: objects with `record, id, url, date, media_type, charset, language, is_text, body`.
    """
    from curate.extract import Unextractable

    if reading.source.extract != "none":
        with suppress(Unextractable):  # loaded here, since inside the guard it would be counted as the first page's time
            reading.extract(b"<p>a page", None, None)
    for page in pages:
        try:
            with reading.guard(reading.number, page.record) if reading.guard else nullcontext() as verdict:
                if verdict:
                    reading.count("timeouts")
                    raise Unextractable(verdict, "the page did not come back from extraction, twice")
                row = _page_row(reading, page)
        except Unextractable as error:
            reading.reject(page.record, f"quarantine.{error.reason}", error.detail, page.id, page.url)
            continue
        yield row


def _page_row(reading: Reading, page: Any) -> dict[str, Any]:
    from curate.extract.charset import decode

    row: dict[str, Any] = {
        "id": page.id,
        "url": page.url,
        "date": page.date,
        "media_type": page.media_type,
        "raw_bytes": len(page.body),
        "record": page.record,
        "declared_language": page.language,
    }
    if page.is_text:
        row["text"] = decode(page.body, page.charset)
    elif reading.source.extract == "none":
        row["text"] = ""
    else:
        found = reading.extract(page.body, page.url, page.charset)
        row["text"] = found.text
        row["declared_language"] = found.language or page.language
        row.update((name, getattr(found, name)) for name in extract.COLUMNS.names)  # those that the schema has are taken
    if reading.source.keep_html:
        row["html"] = decode(page.body, page.charset).encode()
    return row
