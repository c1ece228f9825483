"""Extractors beside each other on pages of one's own: how much each finds, how far they agree, and one page side by side.

Nothing is written and nothing is judged: without reference texts one sees where extractors differ, not which is right. What to
read is found for the reader, though: the pages on which they differ most.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations, zip_longest
from typing import Any

from curate import extract
from curate.errors import MissingExtra, RecipeError, SourceError, did_you_mean
from curate.sources import Reading, Source, document_schema, inventory, module, splits

LIMIT = 200  # pages
MOST = 10  # pages listed as the most different
MAX_LINES = 3_000  # of a text that are put beside those of others
# A word is a run of letters and digits; in scripts without spaces, a character.
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")


def compare(
    paths: Sequence[str],
    engines: Sequence[str] = (),
    *,
    keep: str = "main",
    format: str = "text",
    limit: int = LIMIT,
    page: int | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """What several extractors make of the same pages.

    Args:
        paths: web archives, HTML files, tables with a column `html`, or folders and globs of these.
        engines: names of extractors; the first is what the others are held against. One alone is held against `curate` (or,
            if it is `curate`, against all others); none means all that are installed and have these options.
        keep, format: options of extraction, see `curate.extract.load`.
        limit: only the first pages in input order.
        page: the page to be shown, by its number (from 1), URL (of an HTML file its name) or id; default the one on which the
            extractors differ most.
        progress: called with the number of pages done after each.

    Returns:
        JSON values. `engines`: per extractor `name`, `pages` with text, `refused` (reason: pages), `words`, `seconds` of
        CPU, `pages_per_second` and `f1`: the mean word F1 to each extractor over all pages (two empty texts agree).
        `differ`: the pages of the lowest F1 between any two, each with `page`, `url`, `words` per extractor and `f1`.
        `page`: one of these with `texts` per extractor, or None without pages. `pages`: how many were read. `rejected`
        (reason: records) is what the inputs hold that is no page. `left_out`: extractors that are not there, and why.

    Raises RecipeError for wrong names and options and for a page that is not there, MissingExtra for an extractor that was
    named and is not installed, and SourceError for inputs that cannot be read.
    """
    run, left_out = _engines(engines, keep, format)
    names = list(run)
    pairs = list(combinations(names, 2))
    wanted = int(page) if isinstance(page, int) or (isinstance(page, str) and page.isascii() and page.isdigit()) else None
    if page is not None and wanted == 0:
        raise RecipeError("page 0: pages are counted from 1")
    totals = {name: _Total() for name in names}
    agreement = dict.fromkeys(pairs, 0.0)
    rejected: Counter[str] = Counter()
    differ: list[dict[str, Any]] = []
    shown: dict[str, Any] | None = None
    number = 0
    for found in _pages(paths, max(limit, wanted or 0), rejected):
        if number == 0:
            for engine in run.values():  # what an engine loads with its first page is no time of this page
                _text(engine, found)
        number += 1
        texts, words = {}, {}
        for name, engine in run.items():
            started = time.process_time()
            text, reason = _text(engine, found)
            total = totals[name]
            total.seconds += time.process_time() - started
            words[name] = Counter(_WORD.findall(text.casefold()))
            total.add(text, reason, words[name].total())
            texts[name] = text
        scores = {pair: overlap(words[pair[0]], words[pair[1]])[2] for pair in pairs}
        for pair, score in scores.items():
            agreement[pair] += score
        entry = {
            "page": number,
            "url": found["url"] or found["file"],
            "words": {name: words[name].total() for name in names},
            "f1": round(min(scores.values()), 4),
        }
        differ = sorted([*differ, entry], key=_difference)[:MOST]
        if page is None:
            chosen = differ[0] is entry
        else:
            chosen = number == wanted if wanted else page in (entry["url"], found["id"])
        if chosen:
            shown = {**entry, "texts": texts}
        if progress:
            progress(number)
    if page is not None and shown is None:
        where = (
            f"these inputs have {number} pages" if number < limit else f"only the first {number} pages were read, see --limit"
        )
        raise RecipeError(f"page {page}: not found; {where}")
    return {
        "keep": keep,
        "format": format,
        "pages": number,
        "rejected": dict(sorted(rejected.items())),
        "left_out": left_out,
        "engines": [totals[name].summary(name, names, agreement, number) for name in names],
        "differ": [entry for entry in differ if entry["f1"] < 1],
        "page": shown,
    }


def options_of(parameters: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of `compare` out of `key=value` texts; `engine` may be given several times, or hold several names."""
    from curate.recipe import yaml_value

    found: dict[str, Any] = {}
    for parameter in parameters:
        key, equals, text = parameter.partition("=")
        if not equals:
            raise RecipeError(f"--param {parameter}: write key=value")
        if key not in ("engine", "keep", "format"):
            raise RecipeError(f"--param {parameter}: no option of --compare{did_you_mean(key, ('engine', 'keep', 'format'))}")
        value = yaml_value(text)
        if key == "engine":
            names = value if isinstance(value, list) else str(value).split(",")
            found.setdefault("engines", []).extend(name for name in (str(name).strip() for name in names) if name)
        else:
            found[key] = str(value)
    return found


def overlap(found: Counter[str], wanted: Counter[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of a bag of words beside another. Two empty ones agree."""
    if not found and not wanted:
        return 1.0, 1.0, 1.0
    common = (found & wanted).total()
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / found.total(), common / wanted.total()
    return precision, recall, 2 * precision * recall / (precision + recall)


def side_by_side(texts: Mapping[str, str]) -> list[tuple[bool, list[str]]]:
    """The lines of several texts as rows of a table: (whether all have this, one cell a text).

    A line of the first text that stands in another one too is put on one row with it; what stands between two such rows comes
    line by line. The cells of a column that are not empty are the lines of the text without blank ones.
    """
    lines = [[line for line in text.split("\n") if line.strip()] for text in texts.values()]
    if not lines:
        return []
    keys = [[" ".join(_WORD.findall(line.casefold())) or line.strip() for line in own[:MAX_LINES]] for own in lines]
    places = []  # for each text, line of the first text -> line of this one
    for own in keys:
        blocks = SequenceMatcher(None, keys[0], own, autojunk=False).get_matching_blocks()
        places.append({block.a + k: block.b + k for block in blocks for k in range(block.size)})
    rows: list[tuple[bool, list[str]]] = []
    at = [0] * len(lines)
    for line in range(len(keys[0])):
        at_line = [place.get(line) for place in places]
        if sum(place is not None for place in at_line) == 1:
            continue  # nobody else has it: it goes to what stands between
        between = (own[start : start if stop is None else stop] for own, start, stop in zip(lines, at, at_line, strict=True))
        rows += [(False, list(cells)) for cells in zip_longest(*between, fillvalue="")]
        rows.append((None not in at_line, [own[k] if k is not None else "" for own, k in zip(lines, at_line, strict=True)]))
        at = [start if stop is None else stop + 1 for start, stop in zip(at, at_line, strict=True)]
    rest = (own[start:] for own, start in zip(lines, at, strict=True))
    return [*rows, *((False, list(cells)) for cells in zip_longest(*rest, fillvalue=""))]


class _Total:
    """What one extractor did on all pages."""

    def __init__(self) -> None:
        self.pages = self.words = 0
        self.seconds = 0.0
        self.refused: Counter[str] = Counter()

    def add(self, text: str, reason: str | None, words: int) -> None:
        self.pages += bool(text.strip())
        self.words += words
        if reason:
            self.refused[reason] += 1

    def summary(
        self, name: str, names: Sequence[str], agreement: Mapping[tuple[str, str], float], pages: int
    ) -> dict[str, Any]:
        f1 = {
            other: round(agreement[(name, other) if (name, other) in agreement else (other, name)] / pages, 4)
            for other in names
            if other != name and pages
        }
        return {
            "name": name,
            "pages": self.pages,
            "refused": dict(sorted(self.refused.items())),
            "words": self.words,
            "seconds": round(self.seconds, 4),
            "pages_per_second": round(pages / self.seconds, 1) if self.seconds else None,
            "f1": f1,
        }


def _difference(entry: dict[str, Any]) -> tuple[float, int, int]:
    """Sorts the page first that is worth reading first: least in common, then most words."""
    return entry["f1"], -max(entry["words"].values()), entry["page"]


def _engines(names: Sequence[str], keep: str, format: str) -> tuple[dict[str, extract.Extractor], dict[str, str]]:
    """The extractors to be compared, and why others are not among them."""
    extract.check_options(keep, format)
    default = "curate"
    known = extract.names()
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RecipeError(f"engine {twice!r} is named twice; compare it with another one of {', '.join(known)}")
    found: dict[str, extract.Extractor] = {}
    left_out: dict[str, str] = {}
    if len(names) == 1 and names[0] != default:
        names = [default, *names]
    for name in names:
        found[name] = extract.load(name, keep=keep, format=format)
    if len(names) < 2:
        for name in known:
            if name not in found:
                try:
                    found[name] = extract.load(name, keep=keep, format=format)
                except (MissingExtra, RecipeError) as error:
                    left_out[name] = str(error)
    if len(found) < 2:
        raise RecipeError(f"nothing to compare {next(iter(found), default)!r} with: {'; '.join(left_out.values())}")
    return found, left_out


def _pages(paths: Sequence[str], limit: int, rejected: Counter[str]) -> Iterator[dict[str, Any]]:
    """The first pages of the inputs, in input order: `html` (bytes in UTF-8), `url`, `id` and `file`."""
    source = Source(paths=tuple(paths), keep_html=True, extract="none")
    schema, files = document_schema(inventory(source), source)
    some = False
    for part in (part for split in splits(files, source) for part in split):
        file = files[part.file]
        if file.no_text:
            continue
        reading = Reading(file, source, schema, None, part.file)
        for batch in module(file.kind).read(reading, part.start, part.stop):
            for row in batch.to_pylist():
                html = row.get("html")
                if html is None or row.get("media_type") == "text/plain":
                    rejected["no_html"] += 1
                    continue
                if limit == 0:
                    return
                limit -= 1
                some = True
                html = html.encode() if isinstance(html, str) else html
                yield {"html": html, "url": row.get("url"), "id": row.get("id"), "file": file.name}
        rejected.update(reject["_reason"] for reject in reading.rejects)
    if rejected["no_html"] and not some:
        raise SourceError(
            f"input {files[0].path} holds no pages: give web archives, HTML files, or tables with a column 'html'"
        )


def _text(engine: extract.Extractor, page: Mapping[str, Any]) -> tuple[str, str | None]:
    try:
        return engine(page["html"], page["url"], "utf-8").text, None
    except extract.Unextractable as error:
        return "", error.reason
