"""Main text by trafilatura, called the way datatrove's `Trafilatura` step calls it, so that results can be compared.

datatrove 0.10: `trafilatura.extract(text, favor_precision=True, include_comments=False, deduplicate=True)`, all other options
at their defaults, in a sandbox that kills a page after a second. `deduplicate` drops text blocks that the *process* has seen
a few times before: what is kept of a page would then depend on the pages read before it. So its memory is cleared before
each page here (repeats within a page are still dropped), and the outcome is the same in any order on any number of
workers. Some twenty times slower than resiliparse, with a higher precision.

`keep: comments` and `format: markdown` are its own options for these; it has none for all text that keeps its idea of a block.

Method: Barbaresi, Trafilatura (ACL 2021 demo).
"""

from __future__ import annotations

import logging

import trafilatura
from trafilatura.deduplication import LRU_TEST

from curate.extract import Extracted, Unextractable, check_size, head_facts
from curate.extract.charset import to_utf8

logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it logs every page without text as an error


KEEP = ("main", "comments")
FORMATS = ("text", "markdown")
COLUMNS = ("title",)
_FORMATS = {"text": "txt", "markdown": "markdown"}


def extract(html: bytes, url: str | None, charset: str | None, *, keep: str = "main", format: str = "text") -> Extracted:
    """Text, title and language of a page. Raises Unextractable."""
    utf8 = to_utf8(html, charset)
    check_size(utf8)
    page = utf8.decode()
    LRU_TEST.clear()
    try:
        text = trafilatura.extract(
            page,
            favor_precision=True,
            include_comments=keep == "comments",
            deduplicate=True,
            output_format=_FORMATS[format],
        )
    except MemoryError:
        raise
    except Exception as error:
        raise Unextractable(f"extract.{type(error).__name__}", str(error)[:200]) from error
    title, language = head_facts(page)
    return Extracted(text or "", title, language)
