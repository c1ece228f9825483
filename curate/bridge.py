"""Our stages inside a datatrove pipeline; `curate/stages/datatrove.py` is the way back."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers.disk_base import DiskWriter
from datatrove.utils.typeshelper import StatHints

from curate.errors import StageError
from curate.stage import PARENT, REASON, ROW, Expand, GlobalStage, Stage
from curate.stages import name_of

BATCH = 1024
_AT = "_document"


def as_step(stage: Stage, exclusion_writer: DiskWriter | None = None) -> CurateStep:
    """A datatrove step that runs a map or Expand stage on the documents that pass through it.

    The columns that the stage reads come from the document: `text`, `id`, everything else from its metadata. What it writes
    goes back there. Dropped documents go to `exclusion_writer`, with the reason in `metadata["filter_reason"]` as datatrove's
    own filters do it. Raises StageError for a stage with a fit over the corpus, which a single pass cannot give.

    >>> from datatrove.data import Document
    >>> from curate.stages.word_count import WordCount
    >>> [d.metadata for d in as_step(WordCount()).run([Document(text="one two", id="a")])]
    [{'word_count': 2}]
    """
    return CurateStep(stage, exclusion_writer)


class CurateStep(PipelineStep):
    """A Curate stage as a step of a datatrove pipeline, 1,024 documents at a time; see `as_step`."""

    type = "🪄 - CURATE"

    def __init__(self, stage: Stage, exclusion_writer: DiskWriter | None = None):
        if isinstance(stage, GlobalStage):
            raise StageError(
                f"{type(stage).__name__} looks at the whole corpus before it decides, a datatrove step sees each "
                "document once: run it with `curate apply`, or as its own recipe"
            )
        self.name = name_of(type(stage))
        super().__init__()
        self.stage, self.exclusion_writer = stage, exclusion_writer

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents that stay, with the columns that the stage writes in their metadata."""
        documents = iter(data or ())
        with self.exclusion_writer or contextlib.nullcontext() as writer:
            while batch := list(itertools.islice(documents, BATCH)):
                with self.track_time("batch"):
                    kept, dropped = self._apply(batch)
                self.stat_update(StatHints.total, value=len(batch))
                for document in dropped:
                    reason = document.metadata["filter_reason"]
                    self.stat_update(StatHints.dropped, f"dropped_{reason}")
                    if writer is not None:
                        writer.write(document, rank)
                for document in kept:
                    self.stat_update(StatHints.forwarded)
                    self.update_doc_stats(document)
                    yield document

    def _apply(self, batch: list[Document]) -> tuple[list[Document], list[Document]]:
        result = self.stage(self._table(batch))
        names = [name for name in self.stage.writes().names if name not in ("text", "id")]
        kept = []
        for row in result.kept.select([_AT, "id", "text", *names]).to_pylist():
            document = batch[row[_AT]]
            if isinstance(self.stage, Expand):
                document = Document(text=document.text, id=row["id"], media=document.media, metadata=dict(document.metadata))
            if "text" in self.stage.writes().names:
                document.text = row["text"]
            document.metadata.update((name, row[name]) for name in names)
            kept.append(document)
        dropped = []
        for row in result.dropped.select([_AT, REASON]).to_pylist():
            document = batch[row[_AT]]
            document.metadata["filter_reason"] = row[REASON]
            dropped.append(document)
        return kept, dropped

    def _table(self, batch: list[Document]) -> pa.Table:
        columns: dict[str, Any] = {
            _AT: pa.array(range(len(batch)), pa.uint32()),
            "id": pa.array([d.id for d in batch], pa.string()),
            "text": pa.array([d.text for d in batch], pa.string()),
        }
        for name in self.stage.reads():
            if name not in (*columns, ROW, PARENT):
                try:
                    columns[name] = pa.array([d.metadata.get(name) for d in batch])
                except pa.ArrowException as error:
                    raise StageError(f"{self.name} reads {name!r}, whose values are of several types here: {error}") from error
        return pa.table(columns)
