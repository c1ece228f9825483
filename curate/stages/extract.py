"""Text out of HTML that was kept at ingest."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from curate.stage import REASON, BatchFn, Stage, Task, with_columns


@dataclass(frozen=True, kw_only=True)
class Extract(Stage):
    """Extracts the text anew from the column `html` that `keep_html` keeps at ingest.

    engine: name of an extractor, a file in `curate/extract/`. To compare extractors, keep the HTML once and run this stage
    with each.

    Reads `html` (binary, UTF-8) and `url`. Columns written: `text` (string).
    Reasons: `empty_text` where the page has no text; `extract.too_deep`, `extract.too_many_nodes` and `extract.decode` where
    it cannot be parsed within bounds; `extract.no_html` where the column is null; `extract.failed` for all else.

    Source: own; the extractors name theirs.

    >>> import pyarrow as pa
    >>> docs = pa.table({"html": [b"<html><body><p>A paragraph of a page.</p></body></html>"], "url": ["http://a.test/"]})
    >>> Extract()(docs).kept["text"].to_pylist()
    ['A paragraph of a page.']
    """

    engine: str = "resiliparse"

    def reads(self) -> tuple[str, ...]:
        return "html", "url"

    def writes(self) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def reasons(self) -> tuple[str, ...]:
        return "empty_text", "extract.no_html", "extract.failed", *(f"extract.{known}" for known in _KNOWN)

    def open(self, task: Task) -> BatchFn:
        from curate.extract import load

        load(self.engine)  # an unknown name or a missing extra is an error before any page
        return self.process

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        from curate.extract import Unextractable, load

        run = load(self.engine)
        texts: list[str | None] = []
        reasons: list[str | None] = []
        for html, url in zip(batch["html"].to_pylist(), batch["url"].to_pylist(), strict=True):
            text: str | None = None
            reason: str | None = "extract.no_html"
            if html is not None:
                try:
                    text = run(html, url, "utf-8").text
                    reason = None if text and text.strip() else "empty_text"
                except Unextractable as error:
                    reason = f"extract.{error.reason}" if error.reason in _KNOWN else "extract.failed"
            texts.append(None if reason else text)
            reasons.append(reason)
        return with_columns(batch, {"text": pa.array(texts, pa.string()), REASON: pa.array(reasons, pa.string())})


_KNOWN = ("too_deep", "too_many_nodes", "decode")
