"""Reference documents: texts from files beside the corpus, which a stage compares it with.

They are Parquet, JSON Lines, text files, data sets of Hugging Face, folders or globs of these, or run folders, of which the
output counts. Stages name their files in `Stage.files()`, so that other contents are another fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError, RecipeError, SourceError, did_you_mean
from curate.stage import Task

if TYPE_CHECKING:
    from curate.sources import InputFile, Source

KINDS = ("parquet", "jsonl", "hf", "text")
UNREAD = "records of reference files that cannot be read"


def files(paths: Sequence[str], stage: str) -> tuple[str, ...]:
    """The local files that `paths` mean, in the order given. Raises RecipeError: nothing there, or nothing that can be read."""
    return tuple(file.path for path in paths for file in _inventory(path, "text", stage)[1])


def batches(paths: Sequence[str], columns: Sequence[str], stage: str, task: Task, needed: int = 1) -> Iterator[pa.RecordBatch]:
    """The documents of reference files: batches of `_file` (string) and `columns`.

    Of these the first `needed` have to be there; the others are null where a file has none. The first column holds the text,
    or what takes its place; its nulls stay.
    What cannot be read is counted by the task. Raises SourceError naming file and column.
    """
    from curate.sources import Reading, document_schema, module

    for path in paths:
        source, inventory = _inventory(path, columns[0], stage)
        schema, found = document_schema(inventory, source)
        for file in found:
            reading = Reading(file, source, schema)
            for batch in module(file.kind).read(reading, 0, -1):
                yield _picked(batch, file.path, columns, needed, stage)
            for reject in reading.rejects:
                if reject["_reason"] != "empty_text":
                    task.count(UNREAD)


def _picked(batch: pa.RecordBatch, path: str, columns: Sequence[str], needed: int, stage: str) -> pa.RecordBatch:
    names = batch.schema.names
    found = {"_file": pa.array([path] * batch.num_rows, pa.string())}
    for at, name in enumerate(columns):
        held = "text" if at == 0 and name not in names else name  # sources call the column of texts so
        if held in names:
            column = batch[held]
            found[name] = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        elif at < needed:
            raise SourceError(f"{stage}: {path} has no column {name!r}{did_you_mean(name, names)}")
        else:
            found[name] = pa.nulls(batch.num_rows, pa.string())
    if not (pa.types.is_string(found[columns[0]].type) or pa.types.is_null(found[columns[0]].type)):
        found[columns[0]] = pc.cast(found[columns[0]], pa.string())
    return pa.RecordBatch.from_pydict(found)


def _inventory(path: str, text: str, stage: str) -> tuple[Source, list[InputFile]]:
    from curate.sources import Source, inventory, is_remote

    if is_remote(path):
        raise RecipeError(f"{stage}: {path} is remote: copy it here, since its contents enter the fingerprint")
    if (Path(path) / "run.json").is_file():
        path = str(Path(path) / "output")
        if not Path(path).is_dir():
            raise RecipeError(f"{stage}: {path} is missing: the run has no output yet; finish it with `curate run`")
    source = Source(paths=(path,), text=text)
    try:
        found = inventory(source)
    except CurateError as error:
        raise RecipeError(f"{stage}: {error}") from None
    for file in found:
        if file.kind not in KINDS:
            raise RecipeError(f"{stage}: {file.path} is {file.kind}; give texts as {', '.join(KINDS[:-1])} or text files")
    return source, found
