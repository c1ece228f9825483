"""The sides of `extraction.py`: a process of its own for each, which answers on stdin and stdout, one JSON object a line.

    python _extraction_sides.py versions              the packages that this Python has, and the sides that they make
    python _extraction_sides.py SIDE FOLDER           {"pages": [numbers], "texts": true} -> {"seconds": [...], "texts": [...]}

FOLDER has pages.bin and pages.json, as `extraction.py` writes them. Seconds are CPU seconds (user and system, all threads) of
the call alone, page after page; a page that raises has the empty text and is counted by the name of its exception. Each side is
warmed up by a few pages, bound to one core, and gets the pages in the same order.

What is best for each peer, of what was tried on the pages with reference texts:

- All peers get the page decoded: as datatrove's reader decodes it (UTF-8, else what cchardet says), and where that fails as
  Curate does. Decoding costs them nothing. Curate's own sides get the bytes as served and the charset of the HTTP header.
- trafilatura: called as datatrove's `Trafilatura` step calls it, but without its process, its pipe and its limit of a second;
  with its own defaults; with `favor_recall`; and `fast`, which leaves out its two fallbacks. What it remembers of repeated
  blocks is forgotten before a page comes again.
- resiliparse: `main_content`, without descriptions of images and bullets (F1 higher by 0.007), parsed from UTF-8 bytes without
  detection. Without `comments` forums lose 0.06 and nothing else gains as much.
- jusText: the stop words of the declared language, English where none is declared or known; none at all for scripts without
  spaces, as its documentation says. Its thresholds lower than by default, for shorter paragraphs (F1 higher by 0.07).
- readability-lxml: its defaults. inscriptis: all text of the page, which is all it gives. newspaper4k is left out: 8 pages a
  second, and on a first look the F1 of readability-lxml.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import mmap
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Given = dict[str, Any]
"""A row of pages.json: at, raw, text (offset and lengths in pages.bin), url, charset, lang, fold (None: the shipped model)."""
Extract = Callable[[Any, Given], str | None]
Make = Callable[[Path], Extract]

WARM = 5  # pages


def trafilatura(**options: Any) -> Make:
    def make(folder: Path) -> Extract:
        from trafilatura import extract

        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it logs every page without text as an error
        return lambda html, page: extract(html, **options)

    return make


def forget() -> None:
    """Clear what trafilatura remembers of the pages before."""
    if "trafilatura" in sys.modules:
        try:
            from trafilatura.deduplication import LRU_TEST
        except ImportError:  # before version 2
            from trafilatura.filters import LRU_TEST
        LRU_TEST.clear()


def resiliparse(folder: Path) -> Extract:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    def run(html: bytes, page: Given) -> str:
        tree = HTMLTree.parse_from_bytes(html, "utf-8")
        return extract_plain_text(tree, main_content=True, alt_texts=False, list_bullets=False)

    return run


STOP_WORDS = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "pl": "Polish", "pt": "Portuguese",
              "it": "Italian", "no": "Norwegian_Bokmal", "cs": "Czech", "ar": "Arabic"}  # fmt: skip
UNSPACED = {"zh", "ja", "th"}
JUSTEXT = {"length_low": 20, "length_high": 70, "stopwords_low": 0.1, "stopwords_high": 0.2, "max_heading_distance": 500}


def justext(folder: Path) -> Extract:
    from justext import get_stoplist
    from justext import justext as extract

    lists = {code: get_stoplist(name) for code, name in STOP_WORDS.items()}

    def run(html: str, page: Given) -> str:
        code = (page["lang"] or "en").lower()[:2]
        if code in UNSPACED:
            found = extract(html, frozenset(), **(JUSTEXT | {"stopwords_low": 0, "stopwords_high": 0}))
        else:
            found = extract(html, lists.get(code, lists["en"]), **JUSTEXT)
        return "\n".join(p.text for p in found if not p.is_boilerplate)

    return run


def readability(folder: Path) -> Extract:
    import lxml.html
    from readability import Document

    logging.getLogger("readability").setLevel(logging.CRITICAL)

    def run(html: str, page: Given) -> str:
        return lxml.html.fromstring(Document(html).summary(html_partial=True)).text_content()

    return run


def inscriptis(folder: Path) -> Extract:
    from inscriptis import get_text

    return lambda html, page: get_text(html)


def curate(folder: Path) -> Extract:
    """Our extractor; a page with a reference text gets the model that has not seen its host, others the one that ships."""
    from curate.extract.curate import extract
    from curate.extract.page.model import Model

    models = [Model.load(path) for path in sorted(folder.glob("fold-*.npz"), key=lambda path: int(path.stem[5:]))]

    def run(html: bytes, page: Given) -> str:
        model = None if page["fold"] is None else models[page["fold"]]
        return extract(html, page["url"], page["charset"], model=model).text

    return run


def engine(name: str) -> Make:
    """Another engine of ours with its defaults."""

    def make(folder: Path) -> Extract:
        from curate.extract import load

        extract = load(name)
        return lambda html, page: extract(html, page["url"], page["charset"]).text

    return make


DATATROVE = {"favor_precision": True, "include_comments": False, "deduplicate": True}
SIDES: dict[str, tuple[Make, str | None, str]] = {  # name: (how it is made, the package it needs, what it is given)
    "curate": (curate, "curate-corpus", "raw"),
    "curate: resiliparse": (engine("resiliparse"), "curate-corpus", "raw"),
    "trafilatura, datatrove": (trafilatura(**DATATROVE), "trafilatura", "str"),
    "trafilatura, defaults": (trafilatura(), "trafilatura", "str"),
    "trafilatura, recall": (trafilatura(favor_recall=True), "trafilatura", "str"),
    "trafilatura, fast": (trafilatura(fast=True, **DATATROVE), "trafilatura", "str"),
    "resiliparse": (resiliparse, "Resiliparse", "utf-8"),
    "jusText": (justext, "jusText", "str"),
    "readability-lxml": (readability, "readability-lxml", "str"),
    "inscriptis": (inscriptis, "inscriptis", "str"),
}  # fmt: skip
NEW_IN_2 = {"trafilatura, fast"}


def versions() -> dict[str, str]:
    """Side -> version of its package, of those that this Python can run."""
    found = {}
    for name, (_, package, _) in SIDES.items():
        try:
            found[name] = importlib.metadata.version(package) if package else ""
        except importlib.metadata.PackageNotFoundError:
            continue
        if name in NEW_IN_2 and found[name].startswith("1."):
            del found[name]
    return found


def serve(name: str, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints is no answer
    make, _, kind = SIDES[name]
    extract = make(folder)
    index: list[Given] = json.loads((folder / "pages.json").read_text())
    with (folder / "pages.bin").open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def given(page: Given) -> Any:
        if kind == "raw":
            return data[page["at"] : page["at"] + page["raw"]]
        text = data[page["at"] + page["raw"] : page["at"] + page["raw"] + page["text"]]
        return text.decode() if kind == "str" else text

    for page in index[:WARM]:
        one(extract, given(page), page)
    for line in sys.stdin:
        asked = json.loads(line)
        forget()
        done = [one(extract, given(index[i]), index[i]) for i in asked["pages"]]
        answer: dict[str, Any] = {"seconds": [seconds for seconds, _, _ in done]}
        answer["errors"] = Counter(error for _, _, error in done if error)
        if asked["texts"]:
            answer["texts"] = [text for _, text, _ in done]
        print(json.dumps(answer), file=answers, flush=True)


def one(extract: Extract, html: Any, page: Given) -> tuple[float, str, str | None]:
    """CPU seconds, text, and the name of the exception if there was one."""
    before, text, error = time.process_time(), "", None
    try:
        text = extract(html, page) or ""
    except Exception as raised:  # a peer may raise anything; the page then has no text
        error = getattr(raised, "reason", None) or type(raised).__name__
    return time.process_time() - before, text, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("versions", *SIDES))
    parser.add_argument("folder", type=Path, nargs="?")
    args = parser.parse_args()
    if args.side == "versions":
        print(json.dumps(versions()))
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    serve(args.side, args.folder)


if __name__ == "__main__":
    main()
