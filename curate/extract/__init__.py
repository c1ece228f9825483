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

import numpy as np
import pyarrow as pa

from curate.errors import MissingExtra, RecipeError, did_you_mean

Extractor = Callable[[bytes, str | None, str | None], "Extracted"]

# Real pages stay far below these. Where parsers take quadratic time, the limit keeps a page under about a second.
MAX_TAGS = 500_000  # a tree takes some 300 bytes a node
MAX_DEPTH = 1_024  # elements inside each other: quadratic in resiliparse
MAX_ATTRIBUTES = 4_096  # of one element: quadratic in lexbor and libxml2
MAX_OPTIONS = 10_000  # of one <select>: quadratic in lexbor

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

_EXTRA = {"trafilatura": ("trafilatura", "extract")}  # extractor -> package, extra of ours that installs it
_NOT_EXTRACTORS = {"__init__", "charset"}
# Elements that have no end tag, or whose end tag may be left out because the next one of their kind ends them.
_FLAT = frozenset(
    b"area base br col embed hr img input link meta param source track wbr p li dd dt option optgroup tr td th thead tbody"
    b" tfoot html head body".split()
)
_TAG = re.compile(
    rb"<!--.*?-->|<script\b.*?</script|<style\b.*?</style|<textarea\b.*?</textarea|<(/?)([A-Za-z][A-Za-z0-9:-]*)", re.S | re.I
)
_SELECT = re.compile(rb"<select", re.I)
_OPTION = re.compile(rb"<option", re.I)
_LONG_TAG = re.compile(rb"<[A-Za-z][A-Za-z0-9:-]*([\s/](?:[^\"'>]|\"[^\"]*\"|'[^']*'|[\"'])*)")
_ATTRIBUTE = re.compile(rb"[\s/\"'][^\s\"'>/=<]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'>]*))?")
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

    Costs some 3% of an extraction, as it only bounds: the depth by start tags minus end tags, summed up from the start; the
    attributes by the length of a tag. Only what is above a bound is looked at tag by tag, for many tags need no end.

    Args:
        html: the page in UTF-8.
    """
    if html.count(b"<") <= MAX_DEPTH and not _has_long_tag(html):
        return
    data = np.frombuffer(html, np.uint8)
    opens = np.flatnonzero(data[:-1] == 0x3C)
    if len(opens) > MAX_TAGS:
        raise Unextractable("too_many_nodes", f"{len(opens)} tags, more than {MAX_TAGS}")
    if len(opens) > MAX_DEPTH:
        after = data[opens + 1]
        depth = np.cumsum(np.where(after == 0x2F, np.int8(-1), np.int8(1)), dtype=np.int32)
        # Above the lowest point: an end tag too many closes nothing.
        if depth.max() - min(depth.min(), 0) > MAX_DEPTH and (found := _depth(html)) > MAX_DEPTH:
            raise Unextractable("too_deep", f"elements nested {found} deep, more than {MAX_DEPTH}")
        if np.count_nonzero(after | 0x20 == 0x6F) > MAX_OPTIONS:
            most = max(len(_OPTION.findall(part)) for part in _SELECT.split(html))
            if most > MAX_OPTIONS:
                raise Unextractable("too_many_nodes", f"a <select> of {most} options, more than {MAX_OPTIONS}")
    ends = np.append(opens[1:], len(data))
    for k in np.flatnonzero(ends - opens > 2 * MAX_ATTRIBUTES):
        tag = _LONG_TAG.match(html, int(opens[k]), int(ends[k]))
        if tag and (found := len(_ATTRIBUTE.findall(tag.group(1)))) > MAX_ATTRIBUTES:
            raise Unextractable("too_many_nodes", f"an element with {found} attributes, more than {MAX_ATTRIBUTES}")


def _has_long_tag(html: bytes) -> bool:
    """Whether any two tags begin so far apart that the first could have too many attributes."""
    at = html.find(b"<")
    while 0 <= at < len(html) - 2 * MAX_ATTRIBUTES:
        following = html.rfind(b"<", at + 1, at + 2 * MAX_ATTRIBUTES + 1)
        if following < 0:
            return True
        at = following
    return False


def _depth(html: bytes) -> int:
    """The largest number of open elements, elements that need no end tag left out."""
    depth = deepest = 0
    for tag in _TAG.finditer(html):
        name = tag.group(2)
        if not name or name.lower() in _FLAT:
            continue
        if not tag.group(1):
            depth += 1
            deepest = max(deepest, depth)
        elif depth:
            depth -= 1
    return deepest


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
