"""From an HTML page to its main text. One extractor per file of this folder; its name is the file's name.

A module `curate/extract/<name>.py` has a function `extract(html: bytes, url, charset, *, keep, format) -> Extracted`, and says
what it can do: `KEEP` and `FORMATS`, the values of these two options that it takes, and `COLUMNS`, the columns that it fills
besides the text. It imports the package that it wraps at its top, so that `load` can say which one is missing before any page
is read. Nothing here looks at a clock: what decides about a page is counted (nesting, nodes, bytes), so that every run keeps
the same pages.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import unescape
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from curate.errors import MissingExtra, RecipeError, did_you_mean

Extractor = Callable[[bytes, str | None, str | None], "Extracted"]

# Real pages stay far below these. Where parsers take quadratic time, the limit keeps a page under about a second.
MAX_TAGS = 500_000  # a tree takes some 300 bytes a node
MAX_DEPTH = 1_024  # elements inside each other: quadratic in resiliparse
MAX_COPIES = 250_000  # elements made again, as formatting that is left open is in every block after it
MAX_COPIED = 64 << 20  # bytes of their tags
MAX_ATTRIBUTES = 4_096  # of one element: quadratic in lexbor and libxml2
MAX_OPTIONS = 10_000  # of one <select>: quadratic in lexbor
_PAIRS = {"pairs": 150_000_000, "option_pairs": 100_000_000, "lookups": 300_000_000}  # what quadratic time adds up to

# What is kept of a page: its main content, all of its visible text, or the main content and the readers' comments.
KEEP = ("main", "all_text", "comments")
FORMATS = ("text", "markdown")
# What a page says of itself, as columns of the documents; the fields of `Extracted` have the same names.
COLUMNS = pa.schema(
    [
        ("page_type", pa.string()),
        ("title", pa.string()),
        ("author", pa.string()),
        ("published", pa.string()),
        ("canonical_url", pa.string()),
        ("licence_links", pa.list_(pa.string())),
    ]
)

_COSTS = (
    *(
        "tags",
        "depth",
        "elements made again",
        "bytes of elements made again",
        "attributes of an element",
        "pairs of attributes",
    ),
    *("options of a list", "pairs of options", "look-ups of names"),
)
_EXTRA = {"trafilatura": ("trafilatura", "extract")}  # extractor -> package, extra of ours that installs it
_NOT_EXTRACTORS = {"__init__", "charset"}
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title", re.I | re.S)
_HTML_LANG = re.compile(r"<html\b[^>]*?\s(?:xml:)?lang\s*=\s*[\"']?([^\s\"'>]*)", re.I)
HEAD_WITHIN = 256 << 10
_LANGUAGE = re.compile(r"\s*([A-Za-z]{2,3})(?:[-_][A-Za-z0-9_-]{1,30})?\s*$")


@dataclass(slots=True)
class Extracted:
    """What an extractor found. Everything but the text is None where the page does not say, or the extractor does not look.

    text: by the options `keep` and `format`. title: of the page. language: primary tag of `<html lang>` (`en-US` is `en`).
    page_type: article, forum, documentation, product, listing, collection or service. author: names, joined by "; ".
    published: date or date and time in ISO 8601. canonical_url: absolute. licence_links: absolute URLs, each once.
    """

    text: str
    title: str | None
    language: str | None
    page_type: str | None = None
    author: str | None = None
    published: str | None = None
    canonical_url: str | None = None
    licence_links: list[str] | None = None


class Unextractable(Exception):
    """A page that cannot be extracted. reason: too_deep, too_many_nodes, decode or extract.<exception>; detail: one line."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple:
        return type(self), (self.reason, self.detail)


def names() -> list[str]:
    """The extractors that there are."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in _NOT_EXTRACTORS)


def files(name: str) -> tuple[str, ...]:
    """Paths of the files that decide what an extractor finds, beside its code: models."""
    if name not in names():
        return ()
    return getattr(importlib.import_module(f"curate.extract.{name}"), "files", tuple)()


def load(name: str, *, keep: str = "main", format: str = "text") -> Extractor:
    """The extractor of that name with its options: (html as bytes, url, charset of the HTTP header) -> Extracted.

    What it returns raises Unextractable for a page that cannot be extracted.

    Args:
        name: one of `names()`.
        keep: one of `KEEP`: the main content, all visible text, or the main content with the comments of readers.
        format: one of `FORMATS`: plain text, or Markdown.

    Raises RecipeError for an unknown name and for options that this extractor does not have, and MissingExtra where its
    package is not installed.
    """
    module = _module(name)
    check_options(keep, format)
    for option, value, known in (("keep", keep, module.KEEP), ("format", format, module.FORMATS)):
        if value not in known:
            raise RecipeError(f"extractor {name!r} has no {option}: {value!r}, only {', '.join(map(repr, known))}")
    return partial(module.extract, keep=keep, format=format)


def check_options(keep: str, format: str, where: str = "") -> None:
    """Raise RecipeError for a value that no extractor has. where: put before the name of the option."""
    for option, value, known in (("keep", keep, KEEP), ("format", format, FORMATS)):
        if value not in known:
            raise RecipeError(f"{where}{option} is {value!r}{did_you_mean(value, known)}")


def columns(name: str) -> pa.Schema:
    """The columns besides the text that an extractor fills, as fields of `COLUMNS`. Raises as `load` does."""
    return pa.schema([COLUMNS.field(c) for c in _module(name).COLUMNS])


def _module(name: str) -> ModuleType:
    if name not in names():
        raise RecipeError(f"unknown extractor {name!r}{did_you_mean(name, names())}")
    try:
        return importlib.import_module(f"curate.extract.{name}")
    except ImportError as error:
        if name not in _EXTRA:
            raise
        raise MissingExtra(*_EXTRA[name], needed_by=f"extractor {name!r}") from error


def check_size(html: bytes) -> None:
    """Raise Unextractable for a page whose tree would be too deep, too large or too slow to build.

    One pass that builds nothing (`curate.kernels.markup`): about a tenth of a millisecond for a page of 100 kB.

    Args:
        html: the page in UTF-8.
    """
    from curate.kernels.markup import Cost, measure

    limits = Cost(MAX_TAGS, MAX_DEPTH, MAX_COPIES, MAX_COPIED, MAX_ATTRIBUTES, options=MAX_OPTIONS, **_PAIRS)
    found = measure(html, limits)
    if found.depth > MAX_DEPTH:
        raise Unextractable("too_deep", f"elements nested {found.depth} deep and more, more than {MAX_DEPTH}")
    for what, value, limit in zip(_COSTS, found, limits, strict=True):
        if value > limit:
            raise Unextractable("too_many_nodes", f"{what}: {value}, more than {limit}")


def head_facts(page: str) -> tuple[str | None, str | None]:
    """Title and language of a decoded page, for extractors that do not give away their tree."""
    title = _TITLE.search(page, 0, HEAD_WITHIN)
    root = _HTML_LANG.search(page, 0, HEAD_WITHIN)
    text = " ".join(unescape(title.group(1)).split()) if title else None
    return text or None, primary_language(root.group(1)) if root else None


def primary_language(tag: str | None) -> str | None:
    """`en-US` to `en`; None for what is no language tag (`lang=`, `{{ lang }}`, empty)."""
    found = _LANGUAGE.match(tag) if tag else None
    return found.group(1).lower() if found else None
