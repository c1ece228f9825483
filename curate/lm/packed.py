"""Texts as one row of tokens on disk: what a language model is trained on, whatever the texts take in memory.

Before each document that has tokens stands the separator, and behind the last. Digests tell whether a row that is there was
made of the same texts, however they are cut into arrays, and by the same tokenizer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate import storage
from curate.errors import RecipeError, SourceError, StageError
from curate.langid import spans
from curate.lm import tokenizer

TOKENS, ABOUT, SPOOL = "tokens.npy", "tokens.json", "texts.arrow"
_HEADER = 128  # bytes: NumPy leaves room in it for lengths of any number of digits


@dataclass(frozen=True)
class Packed:
    """Texts as one row of tokens on disk, with their tokenizer.

    texts: digest of what it was made of. separator: the token before each document, which counts among the `tokens`.
    """

    folder: Path
    tokens: int
    documents: int
    separator: int
    vocabulary: int
    tokenizer: str
    texts: str

    def read(self) -> np.ndarray:
        """uint16 or uint32 (tokens), as a view of the file."""
        return np.load(self.folder / TOKENS, mmap_mode="r", allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> Packed:
        """Raises SourceError where there are none."""
        try:
            held = storage.read_json(folder / ABOUT)
            found = cls(folder, **{field.name: held[field.name] for field in dataclasses.fields(cls) if field.name != "folder"})
            if found.read().shape != (found.tokens,):
                raise ValueError(f"{TOKENS} is of another length")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(f"lm: {folder} holds no packed tokens ({error})") from None
        return found


def pack(texts: Iterable[pa.Array], folder: Path | str, given: Path | str, digest: str | None = None) -> Packed:
    """Write texts as one row of tokens, the separator before each document that has any, and the tokenizer beside it.

    texts: string arrays; memory follows one of them. given: the folder of a tokenizer. digest: of the texts, if it is known.
    Raises RecipeError: no text, or a tokenizer without a token that could stand between documents.
    """
    folder, reader = Path(folder), tokenizer.read(given, "lm")
    if reader.separator is None:
        raise RecipeError(f"lm: {given} has no token to stand between documents: set eos_token in its {tokenizer.CONFIG}")
    kind, count, documents, hashed = np.uint16 if reader.vocabulary <= 1 << 16 else np.uint32, 0, 0, _Digest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    with storage.atomic(folder / TOKENS) as path, path.open("wb") as stream:
        stream.write(bytes(_HEADER))
        for array in texts:
            hashed.add(array)
            ids, bounds = reader.ids(array)
            there = np.flatnonzero(np.diff(bounds))
            row = np.insert(ids, bounds[there], reader.separator).astype(kind)
            stream.write(row.data)
            count, documents = count + len(row), documents + len(there)
        if not documents:
            raise RecipeError("lm: there is no text to train on: every document is empty")
        stream.write(np.array([reader.separator], kind).data)
        stream.seek(0)
        np.lib.format.write_array_header_1_0(
            stream, {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (count + 1,)}
        )
        if stream.tell() != _HEADER:
            raise StageError(f"lm: the header of {TOKENS} has {stream.tell()} bytes instead of {_HEADER}")
    for name in tokenizer.FILES:
        if (Path(given) / name).is_file():
            storage.write_bytes(folder / name, (Path(given) / name).read_bytes())
    found = Packed(
        folder, count + 1, documents, reader.separator, reader.vocabulary, reader.digest, digest or hashed.hexdigest()
    )
    storage.write_json(folder / ABOUT, {k: v for k, v in dataclasses.asdict(found).items() if k != "folder"})
    return found


class _Digest:
    """Of texts, however they are cut into arrays."""

    def __init__(self) -> None:
        self._lengths, self._bytes = hashlib.sha256(), hashlib.sha256()

    def add(self, texts: pa.Array) -> None:
        starts, ends, data = spans(texts)
        self._lengths.update((ends - starts).data)
        if texts.null_count:  # what lies behind a null is anything
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                self._bytes.update(data[start:end].data)
        elif len(starts):
            self._bytes.update(data[starts[0] : ends[-1]].data)

    def hexdigest(self) -> str:
        return hashlib.sha256(self._lengths.digest() + self._bytes.digest()).hexdigest()


def kept(texts: Iterable[pa.Array], work: Path, given: Path | str | None, vocabulary: int) -> Packed:
    """Texts as tokens in a working folder: those that are there, if they were made of the same.

    given: the folder of a tokenizer; None: one of `vocabulary` tokens is trained. Texts that can be read but once go to disk.
    """
    work.mkdir(parents=True, exist_ok=True)
    storage.remove_temporaries(work)
    if iter(texts) is texts:
        texts = _spooled(texts, work / SPOOL)
    hashed = _Digest()
    for array in texts:
        hashed.add(array)
    digest, folder = hashed.hexdigest(), given
    if folder is None:
        folder = work / "tokenizer"
        made = {"texts": digest, "vocabulary": vocabulary}
        if not (folder / "made.json").is_file() or storage.read_json(folder / "made.json") != made:
            shutil.rmtree(folder, ignore_errors=True)
            tokenizer.train_tokenizer(texts, folder, vocabulary=vocabulary)
            storage.write_json(folder / "made.json", made)
    reader = tokenizer.read(folder, "lm")
    held, found = work / "tokens", None
    if (held / ABOUT).is_file():
        with contextlib.suppress(SourceError):
            found = Packed.open(held)
    if found is None or (found.texts, found.tokenizer, found.separator) != (digest, reader.digest, reader.separator):
        found = pack(texts, held, folder, digest)
    (work / SPOOL).unlink(missing_ok=True)
    return found


def _spooled(texts: Iterable[pa.Array], path: Path) -> _Spool:
    """Texts that can be read but once, in a file that can be read again."""
    with storage.atomic(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        schema = pa.schema({"text": pa.large_string()})
        with pa.ipc.new_file(sink, schema) as writer:
            for array in texts:
                writer.write_batch(pa.record_batch([array.cast(pa.large_string())], schema=schema))
    return _Spool(path)


@dataclass(frozen=True)
class _Spool:
    path: Path

    def __iter__(self) -> Iterator[pa.Array]:
        with pa.memory_map(str(self.path)) as source:
            reader = pa.ipc.open_file(source)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)["text"]
