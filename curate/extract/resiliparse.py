"""Text by resiliparse's parser and text rules, of the part of a page that its own markup calls main: simple and fast.

Pages say where their content is: in `<main>`, else between the first and the last `<article>`. That region is cut out of the
bytes and only it is parsed, which is most of the speed; if it has little text, the whole page is taken. Navigation, footers,
asides and the like go by tag or id; where that leaves nothing, all visible text is kept, and the quality stages judge it.

On the 1,169 gold pages of the shared crawl this has the word-level F1 of resiliparse's own `main_content` heuristic, which
matches the class and id names of every element, at three times its speed, with less precision and more recall:
docs/results.md has the figures. Image descriptions and list bullets are left out: file names and noise to a language model.

Method: Bevendorff et al., Elastic ChatNoir (2018) and Resiliparse; the choice of the region is our own.
"""

from __future__ import annotations

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from curate.extract import HEAD_WITHIN, Extracted, Unextractable, check_size, head_facts
from curate.extract.charset import to_utf8

ENOUGH = 1500  # characters of text with which a region speaks for its page; with fewer it must hold a part of all text
PART = 0.3
# By role as well it would be F1 0.839 rather than 0.835, at a sixth more time: attribute selectors are slow.
NOT_CONTENT = [
    *("nav", "header", "footer", "aside", "dialog", "#header", "#nav", "#menu", "#sidebar", "#secondary", "#footer"),
    *("#breadcrumb", "#breadcrumbs", "#comments", "#respond", "#related", "#cookie"),
]
KEEP = ("main", "all_text")
FORMATS = ("text",)
COLUMNS = ("title",)
MAX_TRIES = 16  # scripts may be full of what looks like the tag
_REGIONS = (b"main", b"article")
# What looks like a tag inside these is none, or is not shown.
_OPAQUE = [(b"<!--", b"-->")]
_OPAQUE += [(b"<" + name, b"</" + name) for name in (b"script", b"template", b"noscript")]


def extract(html: bytes, url: str | None, charset: str | None, *, keep: str = "main", format: str = "text") -> Extracted:
    """Text, title and language of a page. Raises Unextractable."""
    page = to_utf8(html, charset)
    lower = page.lower()
    body = lower.find(b"<body", 0, HEAD_WITHIN)
    title, language = head_facts(page[: body if body > 0 else HEAD_WITHIN].decode(errors="ignore"))
    if body > 0 and not _hidden(lower, body):  # a head has no text, but often most of the scripts
        page, lower = page[body:], lower[body:]
    return Extracted(_main(page, lower) if keep == "main" else _text(page, []), title, language)


def _main(page: bytes, lower: bytes) -> str:
    """The text of the main part. lower: the page in lower case."""
    best = ""
    for name in _REGIONS:
        found = _region(lower, name)
        if found:
            text = _text(page[found[0] : found[1]])
            if len(text) > ENOUGH:
                return text
            best = best or text
    whole = _text(page)
    if len(best) > PART * len(whole):
        return best
    return whole if whole and not whole.isspace() else _text(page, [])


def _region(page: bytes, name: bytes) -> tuple[int, int] | None:
    """From the first start tag of this name that is a tag, to the last end tag; None if there is no such region."""
    start = page.find(b"<" + name)
    for _ in range(MAX_TRIES):
        if start < 0:
            break
        after = page[start + 1 + len(name) : start + 2 + len(name)]
        if after in (b">", b" ", b"\n", b"\t", b"\r", b"/") and not _hidden(page, start):
            end = page.rfind(b"</" + name)
            return (start, end) if end > start else None
        start = page.find(b"<" + name, start + 1)
    return None


def _hidden(page: bytes, at: int) -> bool:
    """Whether a place lies in a script, a comment or the like."""
    for opening, closing in _OPAQUE:
        before = page.rfind(opening, 0, at)
        if before >= 0 and page.find(closing, before, at) < 0:
            return True
    return False


def _text(html: bytes, skip: list[str] = NOT_CONTENT) -> str:
    check_size(html)
    try:
        tree = HTMLTree.parse_from_bytes(html, "utf-8")
        return extract_plain_text(tree, main_content=False, alt_texts=False, list_bullets=False, skip_elements=skip)
    except MemoryError:
        raise
    except Exception as error:
        raise Unextractable(f"extract.{type(error).__name__}", str(error)[:200]) from error
