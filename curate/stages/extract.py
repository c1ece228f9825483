"""Text out of HTML that was kept at ingest."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curate import extract
from curate.stage import REASON, Stage, with_columns


@dataclass(frozen=True, kw_only=True)
class Extract(Stage):
    """Extracts the text anew from the column `html` that `keep_html` keeps at ingest.

    engine: name of an extractor, a file in `curate/extract/`. To see how they differ, `curate apply extract PAGES --compare`.
    keep: `main`, the main content of a page; `all_text`; or `comments`, the main content and the comments of readers.
    format: of the text, `text` or `markdown`. Engines name the options that they have where one is not among them.
    metadata: write what the page says of itself as well, into those columns of `page_type`, `title`, `author`, `published`
    (ISO 8601), `canonical_url` and `licence_links` that the engine fills, and its language into `declared_language`.

    Reads `html` (binary, UTF-8) and `url`; with `metadata` also `declared_language`, if there is one, which stays as it is
    where the page does not say. Columns written: `text` (string), and with `metadata` those above: all of them strings but
    `licence_links`, a list of strings.
    Reasons: `empty_text` where the page has no text; `extract.too_deep`, `extract.too_many_nodes` and `extract.decode` where
    it cannot be parsed within bounds; `extract.no_html` where the column is null; `extract.failed` for all else.

    Source: own; the extractors name theirs.

    >>> import pyarrow as pa
    >>> docs = pa.table({"html": [b"<html><body><p>A paragraph of a page.</p></body></html>"], "url": ["http://a.test/"]})
    >>> Extract()(docs).kept["text"].to_pylist()
    ['A paragraph of a page.']
    """

    version: ClassVar[int] = 2

    engine: str = "curate"
    keep: str = "main"
    format: str = "text"
    metadata: bool = True

    def __post_init__(self) -> None:
        extract.check_options(self.keep, self.format, "extract: ")

    def bound(self, columns: Collection[str]) -> Stage:
        self._load()  # an unknown name, an option that it does not have or a missing extra is an error before any work
        if not self.metadata or "declared_language" not in columns:
            return self
        return _KeepsLanguage(**{f.name: getattr(self, f.name) for f in fields(self)})

    def reads(self) -> tuple[str, ...]:
        return "html", "url"

    def writes(self) -> pa.Schema:
        if not self.metadata:
            return pa.schema([("text", pa.string())])
        return pa.schema([("text", pa.string()), ("declared_language", pa.string()), *extract.columns(self.engine)])

    def files(self) -> tuple[str, ...]:
        return extract.files(self.engine)

    def reasons(self) -> tuple[str, ...]:
        return "empty_text", "extract.no_html", "extract.failed", *(f"extract.{known}" for known in _KNOWN)

    def _load(self) -> extract.Extractor:
        return extract.load(self.engine, keep=self.keep, format=self.format)

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        run = self._load()
        found: list[extract.Extracted | None] = []
        reasons: list[str | None] = []
        for html, url in zip(batch["html"].to_pylist(), batch["url"].to_pylist(), strict=True):
            page: extract.Extracted | None = None
            reason: str | None = "extract.no_html"
            if html is not None:
                try:
                    page = run(html, url, "utf-8")
                    reason = None if page.text and page.text.strip() else "empty_text"
                except extract.Unextractable as error:
                    reason = f"extract.{error.reason}" if error.reason in _KNOWN else "extract.failed"
            found.append(None if reason else page)
            reasons.append(reason)
        columns = {
            field.name: pa.array([getattr(page, _FIELDS.get(field.name, field.name), None) for page in found], field.type)
            for field in self.writes()
        }
        return with_columns(batch, {**columns, REASON: pa.array(reasons, pa.string())})


@dataclass(frozen=True, kw_only=True)
class _KeepsLanguage(Extract):
    """The stage where documents have a declared language already."""

    def reads(self) -> tuple[str, ...]:
        return "html", "url", "declared_language"

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        done = super().process(batch)
        both = pc.coalesce(done["declared_language"], batch["declared_language"])
        return with_columns(done, {"declared_language": both})


_FIELDS = {"declared_language": "language"}
_KNOWN = ("too_deep", "too_many_nodes", "decode")
