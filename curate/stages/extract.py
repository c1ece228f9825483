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
    Reasons: `empty_text` where the page has no text; `extract.failed` where the extractor gave up on the page, or where there
    is no HTML.

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
        return "empty_text", "extract.failed"

    def open(self, task: Task) -> BatchFn:
        from curate.extract import load

        load(self.engine)  # an unknown name or a missing extra is an error before any page
        return self.process

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        from curate.extract import Unextractable, load

        run = load(self.engine)
        texts: list[str | None] = []
        reasons: list[str | None] = []
        for html, url in zip(batch["html"], batch["url"], strict=True):
            text, reason = None, None
            try:
                if html.is_valid:
                    text = run(html.as_py(), url.as_py() or "", "utf-8").text
            except Unextractable as error:
                reason = "empty_text" if error.reason == "empty_text" else "extract.failed"
            if reason is None and not (text or "").strip():
                reason = "empty_text" if html.is_valid else "extract.failed"
            texts.append(None if reason else text)
            reasons.append(reason)
        return with_columns(batch, {"text": pa.array(texts, pa.string()), REASON: pa.array(reasons, pa.string())})
