"""The embedded sample crawl: real WARC.gz files with labels, made on this machine from text that every Python has.

A pipeline that was only tried on clean input was not tried. Instead of committing a crawl (size, licences, staleness) this
module makes one: documentation that comes with Python and its packages, set in the page templates of invented sites, and
between those pages everything that makes crawls hard, each planted with a label. `labels.jsonl` is the answer sheet for
tests, the demo and measurements of extractors, filters and deduplication. It lies beside `crawl/`, never inside, so
`curate run web -i OUT/crawl` cannot take it for input.

| kind                  | share | expected | what it is |
|-----------------------|------:|----------|------------|
| article               | 49.0% | page     | docstrings, comments, language topics, READMEs, licences; 60 to 900 words |
| reference             |  5.0% | page     | HTML made by pydoc itself (articles fill in where it has too little) |
| exact_duplicate       |  6.0% | page     | the bytes of an article at another URL; shares its `cluster` |
| near_duplicate        | 11.0% | page     | an article edited, word 5-gram Jaccard 0.80 to 0.99; shares its `cluster` |
| foreign               | 11.0% | page     | twelve languages, composed from passages written for this module |
| spam.keywords         |  1.2% | reject   | keyword stuffing |
| spam.repeats          |  1.2% | reject   | the same few lines over and over |
| spam.offers           |  1.2% | reject   | casino and discount lists |
| spam.short            |  1.2% | reject   | a handful of words |
| spam.lorem            |  1.1% | reject   | placeholder Latin |
| spam.symbols          |  1.1% | reject   | symbol noise |
| boilerplate.cookies   |  1.0% | reject   | navigation and a consent notice, nothing else |
| boilerplate.login     |  1.0% | reject   | a login form |
| boilerplate.soft_404  |  1.0% | reject   | "not found" with status 200 |
| reply.status          |  2.2% | reject   | 301, 302, 404, 410, 500, 503 |
| reply.media_type      |  1.2% | reject   | PNG, PDF, JSON, CSS, and a PNG that claims to be HTML |
| reply.empty           |  0.6% | reject   | no body, blank body, empty `<body>` |
| charset.declared      |  1.4% | page     | windows-1252, utf-16, gb18030, KOI8-R …, declared in header or `<meta>` |
| charset.misdeclared   |  0.9% | page     | the same with a wrong charset declared |
| bytes.gzip            |  0.8% | page     | Content-Encoding: gzip, some of it chunked as well |
| bytes.chunked         |  0.6% | page     | Transfer-Encoding: chunked |
| bytes.nul             |  0.3% | page     | NUL bytes inside the text |
| damage.member         | 1 record | reject | a gzip member with overwritten bytes in the middle of a file |
| damage.garbage        | 1 record | page   | a good record with foreign bytes before its gzip member |
| damage.truncated      | 1 record | reject | the last record of the last file, cut off inside its gzip member |

`page` means that a faultless pipeline finds the text of the page (deduplication and language filters may drop it after),
`reject` that its text must not reach the output. Each label row is `{file, offset, record_id, url, kind, cluster, language,
expected, note}`, one for each response record in file order; `offset` is where the record's gzip member begins, so damaged
records can be found too. Every file begins with an unlabelled warcinfo record.

Same arguments, machine and Python: the same bytes (dates are invented, record ids are uuid5, gzip carries no time).
On another machine the texts differ with what is installed, the labels' meaning does not. Sources are read with `ast`, never
imported, so nothing can run or open a window; pydoc works on a fixed list of harmless modules. WARC members are written here
in a dozen lines, because damage needs the bytes in hand.
"""

from __future__ import annotations

import ast
import base64
import codecs
import gzip
import hashlib
import html
import importlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import json
import pydoc
import random
import re
import string
import struct
import sysconfig
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import click

from curate.errors import SourceError

SHARES = {  # in thousandths of all pages; the rest after rounding are articles
    "article": 490, "reference": 50, "exact_duplicate": 60, "near_duplicate": 110, "foreign": 110,
    "spam.keywords": 12, "spam.repeats": 12, "spam.offers": 12, "spam.short": 12, "spam.lorem": 11, "spam.symbols": 11,
    "boilerplate.cookies": 10, "boilerplate.login": 10, "boilerplate.soft_404": 10,
    "reply.status": 22, "reply.media_type": 12, "reply.empty": 6, "charset.declared": 14, "charset.misdeclared": 9,
    "bytes.gzip": 8, "bytes.chunked": 6, "bytes.nul": 3,
}  # fmt: skip
DAMAGE = ("damage.member", "damage.garbage", "damage.truncated")
MIN_SIMILARITY = 0.8  # to the original: Jaccard distance is a metric, so two members of one cluster are at least 0.6 alike
MIN_PAGES = 100
EPOCH = datetime(2024, 5, 13, 6, 0, 0, tzinfo=UTC)
Shingles = set[tuple[str, ...]]
Block = tuple[str, str]  # (tag, text): h, p, li, pre; or ("html", markup)


@dataclass(frozen=True)
class Article:
    """What a page is about, before any template: blocks of plain text."""

    title: str
    blocks: tuple[Block, ...]
    source: str = ""
    language: str = "en"

    @property
    def text(self) -> str:
        return " ".join(text for _, text in self.blocks)


@dataclass(frozen=True)
class Record:
    """One HTTP reply, ready to be framed as a WARC record, and its label."""

    kind: str
    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/html; charset=utf-8"),)
    status: str = "200 OK"
    cluster: str | None = None
    language: str | None = "en"
    expected: str = "page"
    note: str = ""


def write_sample(out: Path, pages: int = 3000, files: int = 6, seed: int = 0) -> dict[str, int]:
    """Write `out/crawl/crawl-*.warc.gz` with `pages` response records, and `out/labels.jsonl`; return counts by kind.

    Replaces an earlier sample in `out`. Raises ValueError for fewer than 100 pages or no files, and SourceError where this
    Python has no text to offer (neither standard-library sources nor pydoc topics).
    """
    if pages < MIN_PAGES or not 1 <= files <= pages // 20:
        raise ValueError(f"a sample has at least {MIN_PAGES} pages and at most one file per 20 pages, got {pages} in {files}")
    records = make_records(pages, seed)
    crawl = Path(out) / "crawl"
    crawl.mkdir(parents=True, exist_ok=True)
    for stale in (*crawl.glob("crawl-*.warc.gz"), Path(out) / "labels.jsonl"):
        stale.unlink(missing_ok=True)
    rows = []
    for number, chunk in enumerate(deal(records, files)):
        name = f"crawl-{number:05d}.warc.gz"
        data, labels = warc_file(name, chunk, seed)
        (crawl / name).write_bytes(data)
        rows += labels
    (Path(out) / "labels.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return dict(sorted(Counter(row["kind"] for row in rows).items()))


def make_records(pages: int, seed: int) -> list[Record]:
    """All records in random order, the damaged ones last (`deal` knows their places)."""
    rng = random.Random(f"{seed}:plan")
    want = {kind: max(1, pages * share // 1000) for kind, share in SHARES.items()}
    seen: Shingles = set()
    references = list(itertools.islice(pydoc_articles(random.Random(f"{seed}:pydoc"), seen), want["reference"]))
    want["reference"] = len(references)
    want["article"] += pages - len(DAMAGE) - sum(want.values())
    english = want["article"] + want["bytes.gzip"] + want["bytes.chunked"] + want["bytes.nul"] + len(DAMAGE)
    articles = list(itertools.islice(english_articles(seed, seen), english))
    if len(articles) < english:
        raise SourceError("the sample needs the standard library's sources or pydoc's topics, and this Python has neither")
    site = Site(rng, [article.title for article in articles])
    supply = iter(articles)
    records = [site.page("reference", article, host="pydoc.example") for article in references]
    plain = list(itertools.islice(supply, want["article"]))
    records += clusters(site, plain, want["exact_duplicate"], want["near_duplicate"])
    records += [site.page("foreign", foreign_article(rng, language)) for language in deck(rng, PASSAGES, want["foreign"])]
    for name, make in SPAM.items():
        records += [site.page(name, make(rng), host=rng.choice(SPAM_HOSTS), expected="reject") for _ in range(want[name])]
    for name, (title, blocks) in BOILERPLATE.items():
        records += [site.page(name, Article(title, blocks), expected="reject") for _ in range(want[name])]
    records += [bad_status(site, case) for case in deck(rng, STATUSES, want["reply.status"])]
    records += [bad_type(site, case) for case in deck(rng, sorted(MEDIA_TYPES), want["reply.media_type"])]
    records += [empty_reply(site, case) for case in deck(rng, EMPTY_BODIES, want["reply.empty"])]
    for kind, cases in CHARSETS.items():
        records += [in_charset(site, kind, *case) for case in deck(rng, cases, want[kind])]
    for kind, encode in (("bytes.gzip", gzip_encoded), ("bytes.chunked", chunked)):
        records += [encode(rng, site.page(kind, article)) for article in itertools.islice(supply, want[kind])]
    nuls = (with_nuls(rng, article) for article in itertools.islice(supply, want["bytes.nul"]))
    records += [site.page("bytes.nul", article) for article in nuls]
    rng.shuffle(records)
    for kind, note in zip(DAMAGE, ("overwritten bytes", "foreign bytes before the member", "cut off"), strict=True):
        expected = "page" if kind == "damage.garbage" else "reject"
        records.append(site.page(kind, next(supply), expected=expected, note=note))
    return records


def deck(rng: random.Random, cases: Iterable, count: int) -> list:
    """`count` cases in random order, each about equally often, so that a small sample has as many of them as it can."""
    cases = list(cases)
    rng.shuffle(cases)
    return list(itertools.islice(itertools.cycle(cases), count))


# ---------------------------------------------------------------------------------------------------- texts in English


def english_articles(seed: int, seen: Shingles) -> Iterator[Article]:
    """Articles without end that have little in common: sources, topics and packages in turn, then digests.

    Texts repeat a lot by themselves (licences, inherited docstrings), and the only near-duplicates should be the planted
    ones. So a paragraph of eight words or more is used once, and an article must be `novel`. When a large sample has used
    everything up, digests of paragraphs from many places go on: they share sentences with other pages, but not most.
    """
    paragraphs: set[str] = set()
    used: list[Block] = []
    streams = {
        "source": source_articles(random.Random(f"{seed}:source")),
        "topics": topic_articles(random.Random(f"{seed}:topics")),
        "package": package_articles(random.Random(f"{seed}:packages")),
    }
    turns = itertools.cycle(["source", "topics", "source", "package", "source", "source"])
    while streams:
        name = next(turns)
        if name not in streams:
            continue
        article = next(streams[name], None)
        if article is None:
            del streams[name]
            continue
        blocks = []
        for tag, text in article.blocks:
            if tag == "h" or len(text.split()) < 8 or text not in paragraphs:
                blocks.append((tag, text))
                paragraphs.add(text)
        prose = [block for block in blocks if block[0] == "p"]
        article = replace(article, blocks=tuple(blocks))
        if words(prose) >= 40 and words(blocks) >= 60 and novel(article.text, seen):
            used += [block for block in prose if 15 <= len(block[1].split()) <= 120]
            yield article
    rng = random.Random(f"{seed}:digests")
    for number in itertools.count(1) if len(used) > 100 else ():
        yield Article(f"Digest no. {number}", tuple(rng.sample(used, 6)), source="paragraphs used before")


def novel(text: str, seen: Shingles, most: float = 0.3) -> bool:
    """Whether at most 30% of the text's 5-grams are in `seen`, which then takes them in; bounds its Jaccard to any before."""
    new = shingles(text)
    if len(new & seen) > most * len(new):
        return False
    seen |= new
    return True


def words(blocks: Iterable[Block]) -> int:
    return sum(len(text.split()) for _, text in blocks)


def source_articles(rng: random.Random) -> Iterator[Article]:
    """Docstrings and comments of the standard library, then of packages that Curate itself needs; modules in random order."""
    roots = [Path(sysconfig.get_path("stdlib"))]
    for package in ("click", "datatrove", "numba", "numpy", "polars", "pyarrow", "pydantic", "rich"):
        spec = importlib.util.find_spec(package)
        roots += map(Path, (spec and spec.submodule_search_locations) or ())
    for root in roots:
        prefix = () if root is roots[0] else (root.name,)
        paths = [path for path in sorted(root.rglob("*.py")) if not SKIPPED & set(path.relative_to(root).parts)]
        rng.shuffle(paths)
        for path in paths:
            parts = (*prefix, *path.relative_to(root).with_suffix("").parts)
            yield from module_articles(".".join(part for part in parts if part != "__init__"), path, rng)


SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_pydecimal.py", "_pyio.py"}


def module_articles(name: str, path: Path, rng: random.Random) -> Iterator[Article]:
    """One module as articles: its docstrings in order, section by section, and an article of its longer comments."""
    source = path.read_text("utf-8", errors="replace")
    if len(source) > 1_000_000:
        return
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    sections = [(name, blocks_of(ast.get_docstring(tree) or ""))]
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            sections.append((node.name, [("h", signature(node)), *blocks_of(ast.get_docstring(node) or "")]))
        for method in node.body if isinstance(node, ast.ClassDef) else ():
            text = ast.get_docstring(method) if isinstance(method, ast.FunctionDef) else None
            if text and isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                sections[-1][1].extend([("h", signature(method)), *blocks_of(text)])
    yield from paginate(name, sections, rng, f"docstrings of {name}")
    comments = [re.sub(r"^[ \t]*#+ ?", "", match, flags=re.M) for match in COMMENTS.findall(source)]
    blocks = [block for comment in comments if len(comment.split()) > 25 for block in blocks_of(comment)]
    yield from paginate(f"Notes on {name}", [("comments", blocks)], rng, f"comments in {name}")


COMMENTS = re.compile(r"(?:^[ \t]*#[^\n]*\n){2,}", re.M)


def signature(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    return f"{node.name}({ast.unparse(node.args)})" if isinstance(node, ast.FunctionDef) else ""


def topic_articles(rng: random.Random) -> Iterator[Article]:
    """The language topics behind `help('if')`: the best prose that Python carries."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions ship it in another package
        return
    for name in sorted(topics, key=lambda _: rng.random()):
        yield from paginate(name, [(name, blocks_of(topics[name]))], rng, f"pydoc topic {name}")


def package_articles(rng: random.Random, limit: int = 150) -> Iterator[Article]:
    """Long descriptions and licences of installed packages; at most `limit` packages, since some machines have hundreds."""
    found = {dist.metadata["Name"]: dist for dist in importlib.metadata.distributions() if dist.metadata["Name"]}
    licence = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    if licence.exists():
        yield from paginate("Licence of Python", [("terms", blocks_of(licence.read_text("utf-8")))], rng, "licence of Python")
    for name in rng.sample(sorted(found), min(limit, len(found))):
        metadata = found[name].metadata  # an email.message.Message whose body is the long description
        texts = [("README", str(getattr(metadata, "get_payload", str)() or metadata["Description"] or ""))]
        for path in found[name].files or ():
            if re.fullmatch(r"(LICEN[CS]E|COPYING)(\.\w{2,3})?", path.name) and Path(str(path.locate())).is_file():
                texts.append(("licence", Path(str(path.locate())).read_text("utf-8", errors="replace")))
        for label, text in texts:
            if len(text) < 200_000:
                yield from paginate(name, [(label, blocks_of(text))], rng, f"{label} of {name}")


def paginate(title: str, sections: list[tuple[str, list[Block]]], rng: random.Random, source: str) -> Iterator[Article]:
    """Cut a long text into articles of 60 to 900 words, at block boundaries, each named after where it begins."""
    page: list[Block] = []
    heading, target, part = "", 0, 0
    for name, blocks in sections:
        for block in blocks:
            if len(block[1].split()) > 350:  # tables and listings
                continue
            if not page:
                heading, target = name, rng.choice((90, 130, 180, 250, 350, 550))
            page.append(block)
            if words(page) >= target and block[0] != "h":
                part += 1
                yield Article(page_title(title, heading, part), tuple(page), source)
                page = []
    if words(page) >= 60:
        yield Article(page_title(title, heading, part + 1), tuple(page), source)


def page_title(title: str, heading: str, part: int) -> str:
    named = title if heading in (title, "comments") else f"{title}: {heading}"
    return named if part == 1 else f"{named} ({part})"


def blocks_of(text: str) -> list[Block]:
    """Plain text, reStructuredText or Markdown as blocks, roughly: headings, lists and code apart, paragraphs reflowed."""
    blocks: list[Block] = []
    fenced = False
    for chunk in re.split(r"\n[ \t]*\n", inspect.cleandoc(text).expandtabs().strip("\n")):
        lines = [line.rstrip() for line in chunk.split("\n") if line.strip()]
        fences = sum(line.lstrip().startswith("```") for line in lines)
        if fences or fenced:
            fenced ^= bool(fences % 2)
            blocks.append(("pre", "\n".join(line for line in lines if not line.lstrip().startswith("```"))))
            continue
        if len(lines) > 1 and UNDERLINE.fullmatch(lines[1]):
            blocks.append(("h", clean(lines[0])))
            lines = lines[2:]
        if not lines or lines[0].startswith((".. ", "[!", "![", "|", "+-")) or UNDERLINE.fullmatch(lines[0]):
            continue
        if all(line.startswith("   ") for line in lines) or lines[0].lstrip().startswith((">>>", "$ ")):
            blocks.append(("pre", inspect.cleandoc("\n".join(lines))))
        elif lines[0].startswith("#"):
            blocks.append(("h", clean(lines[0].strip("# "))))
        elif BULLET.match(lines[0]):
            blocks += [("li", clean(item)) for item in BULLET.split("\n".join(lines)) if item.strip()]
        else:
            blocks.append(("p", clean(" ".join(lines))))
    return [(tag, body) for tag, body in blocks if body.strip() and sum(map(str.isascii, body)) > 0.95 * len(body)]


UNDERLINE = re.compile(r"\s*([=\-*~^#\"'`+_])\1{2,}\s*")
BULLET = re.compile(r"^ *(?:[-*•+]|\d{1,2}[.)]) +", re.M)


def clean(text: str) -> str:
    """Without markup: roles, emphasis, links, images and inline HTML."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^<>]{1,200}>|:[a-z:]+:(?=`)", "", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\s+", " ", re.sub(r"`+|\*{2,}", "", text)).strip()


SAFE_MODULES = (
    "builtins", "argparse", "array", "base64", "bisect", "calendar", "cmath", "codecs", "collections", "configparser",
    "contextlib", "copy", "csv", "datetime", "decimal", "difflib", "email.message", "email.policy", "enum", "fractions",
    "functools", "glob", "hashlib", "heapq", "html.parser", "http.cookies", "io", "ipaddress", "itertools", "json", "logging",
    "mailbox", "math", "operator", "pathlib", "pickle", "pprint", "queue", "random", "re", "sched", "shelve", "shlex", "shutil",
    "sqlite3", "statistics", "string", "struct", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "time",
    "tokenize", "traceback", "types", "unicodedata", "unittest", "urllib.parse", "urllib.request", "uuid", "wave",
    "weakref", "xml.etree.ElementTree", "zipfile", "zlib",
)  # fmt: skip


def pydoc_articles(rng: random.Random, seen: Shingles) -> Iterator[Article]:
    """Pages of pydoc's own HTML for classes and functions of `SAFE_MODULES`: nested tables, spacers, inherited methods.

    Left out: pages that print an address or a set (they differ from run to run), and those that repeat others.
    """
    objects: list[tuple[str, object]] = []
    for module in SAFE_MODULES:
        try:
            space = vars(importlib.import_module(module))
        except ImportError:  # sqlite3, zlib and a few more are optional parts of Python
            continue
        objects += [
            (f"{module}.{name}", value)
            for name, value in sorted(space.items())
            if not name.startswith("_") and (inspect.isclass(value) or inspect.isroutine(value))
            and getattr(value, "__module__", module) == module
        ]  # fmt: skip
    rng.shuffle(objects)
    renderer = pydoc.HTMLDoc()
    for name, value in objects:
        if len((inspect.getdoc(value) or "").split()) < 15 or len(dir(value)) > 80:
            continue  # too short or too long in the end, and a page costs milliseconds
        markup = renderer.document(value, name.rpartition(".")[2])
        text = html.unescape(re.sub(r"<[^>]+>", " ", markup))
        if UNSTABLE.search(text) or not 80 <= len(text.split()) <= 4000 or not novel(text, seen):
            continue
        yield Article(name, (("html", markup),), source=f"pydoc of {name}")


UNSTABLE = re.compile(r" at 0x|[sS]et\(\{|= ?\{'|/site-packages|/lib/python")


# ----------------------------------------------------------------------------------------- duplicates and near-duplicates


def clusters(site: Site, articles: list[Article], exact: int, near: int) -> list[Record]:
    """Pages of all articles, plus `exact` + `near` copies of some of them in clusters of two to five."""
    rng = site.rng
    copies = ["exact_duplicate"] * exact + ["near_duplicate"] * near
    rng.shuffle(copies)
    records = []
    cluster_of = itertools.count(1)
    for article in articles:
        original = site.page("article", article, note=article.source)
        sentences = sum(len(split_sentences(text)) for tag, text in article.blocks if tag == "p")
        if copies and sentences >= 6 and len(article.text.split()) >= 120:
            original = replace(original, cluster=f"c{next(cluster_of):04d}")
            for _ in range(min(rng.choice((1, 1, 1, 2, 2, 3, 4)), len(copies))):
                records.append(duplicate(site, original, article, copies.pop()))
        records.append(original)
    if copies:
        raise SourceError(f"{len(copies)} duplicates have no original: the texts on this machine are too short")
    return records


def duplicate(site: Site, original: Record, article: Article, kind: str) -> Record:
    if kind == "exact_duplicate":
        scheme, _, rest = original.url.partition("://")
        other = site.rng.choice((f"{scheme}://mirror.{rest}?copy=", f"{original.url}?utm_source=newsletter&id="))
        return replace(original, kind=kind, url=f"{other}{next(site.numbers)}", note=f"the bytes of {original.url}")
    edited, similarity = edit(article, site.rng)
    page = site.page(kind, edited, note=f"5-gram Jaccard {similarity:.2f} to {original.url}")
    return replace(page, cluster=original.cluster)


def edit(article: Article, rng: random.Random) -> tuple[Article, float]:
    """Drop sentences, replace words and add remarks until the similarity to the original falls to a random target."""
    target = rng.uniform(MIN_SIMILARITY + 0.02, 0.96)
    reference = shingles(article.text)
    current, similarity = article, 1.0
    for _ in range(200):
        candidate = edit_once(current, rng)
        score = jaccard(shingles(candidate.text), reference)
        if MIN_SIMILARITY <= score < 1:
            current, similarity = candidate, score
        if similarity < target:
            break
    return current, similarity


def edit_once(article: Article, rng: random.Random) -> Article:
    blocks = list(article.blocks)
    where = rng.choice([number for number, (tag, _) in enumerate(blocks) if tag == "p"])
    sentences = split_sentences(blocks[where][1])
    number = rng.randrange(len(sentences))
    operation = rng.random()
    if operation < 0.35 and len(sentences) > 1:
        del sentences[number]
    elif operation < 0.85:
        tokens = sentences[number].split()
        place = rng.randrange(len(tokens))
        tokens[place] = SYNONYMS.get(tokens[place]) or rng.choice(list(SYNONYMS.values()))
        sentences[number] = " ".join(tokens)
    else:
        sentences.insert(number, rng.choice(REMARKS))
    blocks[where] = ("p", " ".join(sentences))
    return replace(article, blocks=tuple(blocks))


def split_sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?:;]) +", text)


def shingles(text: str, n: int = 5) -> Shingles:
    """Word n-grams: lower case, letters and digits only."""
    tokens = re.findall(r"\w+", text.lower())
    return set(zip(*(tokens[start:] for start in range(n)), strict=False))


def jaccard(a: set, b: set) -> float:
    return len(a & b) / (len(a | b) or 1)


SYNONYMS = {
    "is": "will be", "are": "were", "returns": "yields", "return": "yield", "used": "employed", "must": "has to", "can": "may",
    "method": "routine", "function": "procedure", "value": "result", "object": "item", "given": "supplied", "also": "further",
    "only": "solely", "if": "whenever", "this": "the present", "file": "document", "string": "text", "default": "usual",
    "should": "ought to", "new": "fresh", "number": "count", "list": "sequence", "name": "label", "raise": "signal",
}  # fmt: skip
REMARKS = (
    "Thanks to a reader for pointing this out.", "See the comments below for another opinion.", "This part was updated in May.",
    "Our editors have shortened the passage that follows.", "The original example has been left as it was.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- sites and pages


@dataclass(frozen=True)
class Host:
    """One invented site: a layout and the words around every page of it, in its own language."""

    name: str
    language: str
    layout: str
    site: str
    nav: tuple[str, ...]
    cookies: str
    accept: str
    share: str
    related: str
    rights: str


class Site:
    """All invented sites together: gives every page its host, URL, neighbours and invented date."""

    def __init__(self, rng: random.Random, titles: list[str]):
        self.rng, self.titles = rng, titles
        self.numbers = itertools.count(1)

    def host(self, language: str) -> Host:
        return self.rng.choice([host for host in HOSTS.values() if host.language == language and host.name not in RESERVED])

    def url(self, host: str, title: str) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "page"
        folder = self.rng.choice(("articles", "archive/2023", "p", "notes", "pages"))
        return f"https://{host}/{folder}/{slug}-{next(self.numbers)}"

    def page(
        self, kind: str, article: Article, host: str | None = None, expected: str = "page", note: str | None = None
    ) -> Record:
        place = HOSTS[host] if host else self.host(article.language)
        body = self.render(place, article).encode()
        note = article.source if note is None else note
        url = self.url(place.name, article.title)
        return Record(kind, url, body, language=article.language, expected=expected, note=note)

    def render(self, host: Host, article: Article, charset: str = "utf-8") -> str:
        """The article in its host's template; `charset` is what `<meta>` declares."""
        rng = self.rng
        titles = [foreign_title(rng, host.language) for _ in range(6)] if host.language != "en" else rng.sample(self.titles, 6)
        link = '<li><a href="/{}">{}</a></li>'.format
        return string.Template(LAYOUTS[host.layout][1]).substitute(
            lang=host.language, dir="rtl" if host.language == "ar" else "ltr", charset=charset, site=host.site,
            title=html.escape(article.title), body=markup_of(article.blocks), cookies=host.cookies, accept=host.accept,
            share=host.share, related=host.related, rights=host.rights,
            nav="".join(link(number, name) for number, name in enumerate(host.nav)),
            links="".join(link(f"r/{rng.randrange(10**6)}", html.escape(title)) for title in titles),
            date=(EPOCH - timedelta(days=rng.randrange(900))).strftime("%Y-%m-%d"), views=rng.randrange(20, 90_000),
            user=f"{rng.choice(('mara', 'tobin', 'oleg', 'yuki', 'inez', 'paul'))}{rng.randrange(1000)}",
            token=f"{rng.getrandbits(128):032x}",
        )  # fmt: skip


def markup_of(blocks: Iterable[Block]) -> str:
    parts = []
    for tag, group in itertools.groupby(blocks, key=lambda block: block[0]):
        texts = [text if tag == "html" else html.escape(text) for _, text in group]
        if tag == "li":
            parts.append("<ul>\n" + "\n".join(f"<li>{text}</li>" for text in texts) + "\n</ul>")
        else:
            name = {"h": "h2", "html": "div"}.get(tag, tag)
            parts += [f"<{name}>{text}</{name}>" for text in texts]
    return "\n".join(parts)


LAYOUTS = {  # layout: (CSS selector of the main content, template)
    "magazine": ("article .story", """<!DOCTYPE html>
<html lang="$lang" dir="$dir"><head><meta charset="$charset"><title>$title | $site</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta property="og:title" content="$title">
<style>body{font:16px/1.5 Georgia,serif}.cookie-banner{position:fixed;bottom:0}</style>
<script>window.dataLayer=window.dataLayer||[];function gtag(){dataLayer.push(arguments);}gtag('config','UA-$views');</script>
</head><body><div class="cookie-banner" role="dialog"><p>$cookies</p><button>$accept</button></div>
<header><a class="logo" href="/">$site</a><nav><ul>$nav</ul></nav></header>
<main><article><header><h1>$title</h1><time datetime="$date">$date</time> <span class="by">$user</span></header>
<div class="story">
$body
</div>
<div class="share"><span>$share</span> <a href="#f">Facebook</a> <a href="#x">X</a> <a href="#m">E-Mail</a></div>
</article></main>
<aside><h3>$related</h3><ul>$links</ul></aside>
<footer><p>$rights</p><nav><ul>$nav</ul></nav></footer></body></html>
"""),
    "docs": ("div.body", """<!DOCTYPE html>
<html lang="$lang" dir="$dir"><head><meta charset="$charset"><title>$title &#8212; $site</title>
<link rel="stylesheet" href="/_static/basic.css"><script src="/_static/doctools.js"></script></head><body>
<div class="related" role="navigation"><h3>$site</h3><ul>$nav</ul></div>
<div class="document"><div class="documentwrapper"><div class="bodywrapper"><div class="body" role="main">
<h1>$title<a class="headerlink" href="#top">&para;</a></h1>
$body
</div></div></div><div class="sphinxsidebar" role="navigation"><h4>$related</h4><ul>$links</ul>
<form action="/search"><input name="q"><input type="submit" value="Go"></form></div></div>
<div class="footer">$rights $date.</div><div id="consent">$cookies <a href="#ok">$accept</a></div></body></html>
"""),
    "blog": ("div.entry-content", """<!DOCTYPE html>
<html lang="$lang" dir="$dir"><head><meta charset="$charset"><title>$title &#8211; $site</title>
<script type="application/ld+json">{"@context":"https://schema.org","@type":"BlogPosting","datePublished":"$date"}</script>
<!-- cached page, generated by page-cache 2.1 --></head><body class="single post-$views">
<div id="page" class="hfeed"><div id="masthead"><div class="site-title">$site</div><div class="menu"><ul>$nav</ul></div></div>
<div id="content"><div id="primary"><div class="post hentry"><div class="entry-header"><h1 class="entry-title">$title</h1>
<div class="entry-meta">$date &middot; $user</div></div>
<div class="entry-content">
$body
</div>
<div class="sharedaddy"><h3>$share</h3><ul><li>Twitter</li><li>Reddit</li><li>WhatsApp</li></ul></div>
<div class="tags">#$user</div></div></div>
<div id="secondary" class="widget-area"><h2 class="widget-title">$related</h2><ul>$links</ul></div></div>
<div id="colophon">$rights</div></div><div class="cc-window">$cookies <span class="cc-btn">$accept</span></div></body></html>
"""),
    "legacy": ("td.main", """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN">
<HTML lang="$lang" dir="$dir"><HEAD><META http-equiv="Content-Type" content="text/html; charset=$charset">
<TITLE>$site: $title</TITLE></HEAD><BODY bgcolor="#ffffff" text="#000000">
<TABLE width="100%" border="0"><TR><TD colspan="2"><FONT size="5"><B>$site</B></FONT><HR></TD></TR>
<TR><TD width="160" valign="top" class="menu"><UL>$nav</UL><B>$related</B><UL>$links</UL></TD>
<TD valign="top" class="main"><H1>$title</H1>
$body
</TD></TR><TR><TD colspan="2"><HR><CENTER><SMALL>$rights<BR>$date &nbsp; [$views]<BR>$cookies</SMALL></CENTER></TD></TR>
</TABLE></BODY></HTML>
"""),
    "forum": ("#p1 .postbody", """<!DOCTYPE html>
<html lang="$lang" dir="$dir"><head><meta charset="$charset"><title>$title - $site</title></head><body>
<div class="navbar"><b>$site</b><ul>$nav</ul></div><div class="notice">$cookies <a href="#">$accept</a></div>
<h2 class="topic-title">$title</h2>
<div class="post" id="p1"><div class="profile">$user<br>Posts: $views<br>Joined: $date</div><div class="postbody">
$body
</div><div class="sig">$share</div></div>
<div class="post" id="p2"><div class="profile">guest17</div><div class="postbody"><p>Thanks, just what I needed!</p></div></div>
<div class="post" id="p3"><div class="profile">admin</div><div class="postbody"><p>Moved to the right board.</p></div></div>
<div class="related-topics"><b>$related</b><ul>$links</ul></div><div class="copyright">$rights</div></body></html>
"""),
    "app": ("section.x7f", """<!doctype html><html lang="$lang" dir="$dir"><head><meta charset="$charset"><title>$title</title>
<link rel="preload" href="/static/chunk.$token.js" as="script"></head><body><div id="root"><div class="a1b"><div class="c9"><ul
class="k2">$nav</ul></div><div class="z3"><div class="m4"><h1 class="h0">$title</h1><section class="x7f">
$body
</section><div class="b5"><button>$share</button></div></div><div class="m5"><h4>$related</h4><ul>$links</ul></div></div><div
class="q8">$rights</div></div></div><div class="toast">$cookies <button>$accept</button></div>
<script id="__STATE__" type="application/json">{"user":"$user","views":$views,"token":"$token","flags":{"dark":false}}</script>
</body></html>
"""),
}  # fmt: skip


def read_hosts(text: str) -> dict[str, Host]:
    hosts = {}
    for header, (words,) in read_blocks(text).items():
        name, language, layout = header.split()
        site, nav, *rest = words.split(" | ")
        hosts[name] = Host(name, language, layout, site, tuple(nav.split(", ")), *rest)
    return hosts


def read_blocks(text: str) -> dict[str, list[str]]:
    """`== header`, then one entry per line, continued on indented lines."""
    blocks: dict[str, list[str]] = {}
    header = ""
    for line in text.strip().splitlines():
        if line.startswith("== "):
            header = line[3:]
            blocks[header] = []
        elif line.startswith("  "):
            blocks[header][-1] += ("" if header in SPACELESS else " ") + line.strip()
        else:
            blocks[header].append(line)
    return blocks


SPACELESS = ("zh", "ja")
# name, language and layout; then site | navigation | cookie notice | accept | share | related | rights
HOSTS = read_hosts("""
== www.harbour-review.example en magazine
The Harbour Review | Home, Latest, Long reads, Newsletters, About us | We and our partners use cookies to show you
  relevant content and to count visits. | Accept all | Share this story | More from the Review | Copyright 2024 The Harbour
  Review. All rights reserved. Terms of use. Privacy policy.
== docs.lantern.example en docs
Lantern handbook | index, modules, next, previous, Lantern handbook | This site stores a small cookie to remember your
  theme. | Got it | Edit this page | On this page | Built with an invented generator. Licensed to the readers of the
  handbook. Last updated on
== quietcompiler.test en blog
The Quiet Compiler | Home, Archive, Talks, About, RSS | By continuing to use this website, you agree to our use of
  cookies. | Close and accept | Share this: | Recent posts | Proudly powered by coffee. Leave a comment or subscribe to get
  new posts by email.
== oldtown-wiki.test en legacy
Oldtown Pages | Main page, Guest book, Links, Webmaster | This page uses cookies for the visitor counter. | OK | Send to a
  friend | See also | Best viewed at 1024 by 768. Webmaster: see the contact page. You are visitor number
== forum.brightside.example en forum
Brightside Boards | Register, Login, FAQ, Search, Members | You must be logged in to reply. This board uses cookies. |
  Dismiss | Please read the rules before posting! | Similar topics | All times are UTC. Powered by an imaginary board.
  Contact us. Delete cookies.
== read.papernest.example en app
Papernest | Discover, Sign up, Log in, Get the app | Papernest uses cookies and similar technology to improve your
  experience. | Agree | Copy link | You might also like | Papernest 2024. Careers. Help. Privacy. Do not sell my data.
== pydoc.example en docs
Library reference | index, modules, topics, keywords | Reading preferences are kept in a cookie. | Fine | Report an error
  | Other entries | Generated by pydoc. Fetched on
== win-big-now.test en blog
WIN BIG NOW | Slots, Roulette, Bonus, VIP, Join | 18+ only. This site uses cookies. | ENTER | Tell your friends and earn |
  Hot today | Play responsibly. Terms apply. Offers may end any time.
== cheap-deals.example en legacy
CHEAP DEALS 4 U | Deals, Brands, Outlet, Sale | Cookies make deals cheaper. | OK | Share and save | Top searches | All
  brand names belong to their owners. Sitemap. Tags. Feed.
== www.talblatt.example de magazine
Das Talblatt | Startseite, Nachrichten, Kultur, Sport, Kontakt | Wir verwenden Cookies, um unsere Seiten zu verbessern. |
  Alle akzeptieren | Artikel teilen | Das könnte Sie auch interessieren | Alle Rechte vorbehalten. Impressum. Datenschutz.
== www.lavallee.example fr blog
Le Courrier de la vallée | Accueil, Actualités, Culture, Sports, Contact | Ce site utilise des cookies pour mesurer son
  audience. | Tout accepter | Partager cet article | À lire aussi | Tous droits réservés. Mentions légales. Politique de
  confidentialité.
== diario-ribera.example es magazine
Diario de la Ribera | Inicio, Noticias, Cultura, Deportes, Contacto | Usamos cookies para mejorar su experiencia. |
  Aceptar todo | Comparta este artículo | También le puede interesar | Todos los derechos reservados. Aviso legal.
  Privacidad.
== gazzetta-collina.test it legacy
La Gazzetta della Collina | Pagina iniziale, Notizie, Cultura, Sport, Contatti | Questo sito utilizza i cookie per le
  statistiche. | Accetta | Condividi l'articolo | Leggi anche | Tutti i diritti riservati. Note legali. Informativa sulla
  privacy.
== jornal-da-serra.example pt app
Jornal da Serra | Início, Notícias, Cultura, Esportes, Contato | Este site usa cookies para melhorar a sua navegação. |
  Aceitar tudo | Compartilhe esta matéria | Leia também | Todos os direitos reservados. Termos de uso. Privacidade.
== dorpskrant.test nl blog
De Dorpskrant | Startpagina, Nieuws, Cultuur, Sport, Contact | Wij gebruiken cookies om onze website te verbeteren. |
  Alles accepteren | Deel dit artikel | Lees ook | Alle rechten voorbehouden. Colofon. Privacybeleid.
== kurier-nad-rzeka.example pl magazine
Kurier nad Rzeką | Strona główna, Wiadomości, Kultura, Sport, Kontakt | Ta strona używa plików cookie w celach
  statystycznych. | Akceptuję | Udostępnij artykuł | Zobacz także | Wszelkie prawa zastrzeżone. Regulamin. Polityka
  prywatności.
== gorodok.test ru legacy
Вестник городка | Главная, Новости, Культура, Спорт, Контакты | Этот сайт использует файлы cookie для сбора статистики. |
  Принять | Поделиться статьёй | Читайте также | Все права защищены. Правила сайта. Конфиденциальность.
== xiaocheng.example zh app
小城日报 | 首页, 新闻, 文化, 体育, 联系我们 | 本网站使用缓存文件来改善您的浏览体验。 | 全部接受 | 分享本文 | 相关阅读 |
  版权所有，未经许可不得转载。隐私政策。
== machi-dayori.example ja blog
まちだより | ホーム, ニュース, 文化, スポーツ, お問い合わせ | 当サイトではクッキーを使用しています。 | 同意する |
  この記事を共有する | 関連記事 | 無断転載を禁じます。利用規約。個人情報保護方針。
== akhbar-alwadi.test ar magazine
أخبار الوادي | الرئيسية, الأخبار, الثقافة, الرياضة, اتصل بنا | يستخدم هذا الموقع ملفات تعريف الارتباط لتحسين الخدمة. |
  أوافق | شارك المقال | اقرأ أيضا | جميع الحقوق محفوظة. سياسة الخصوصية.
== ghati-samachar.example hi docs
घाटी समाचार | मुखपृष्ठ, ताज़ा ख़बरें, संस्कृति, खेल, संपर्क | यह वेबसाइट बेहतर अनुभव के लिए कुकीज़ का उपयोग करती है। |
  स्वीकार करें | यह लेख साझा करें | यह भी पढ़ें | सर्वाधिकार सुरक्षित। गोपनीयता नीति। अंतिम संशोधन
""")
SPAM_HOSTS = ("win-big-now.test", "cheap-deals.example")
RESERVED = {*SPAM_HOSTS, "pydoc.example"}


# --------------------------------------------------------------------------------------------------------- other languages


def foreign_article(rng: random.Random, language: str) -> Article:
    """Eight of a language's ten passages in random order, one alternative chosen in each slot, as three paragraphs."""
    sentences = [choose(rng, passage) for passage in rng.sample(PASSAGES[language][1:], 8)]
    space = "" if language in SPACELESS else " "
    blocks = tuple(("p", space.join(sentences[start:start + 3])) for start in (0, 3, 6))  # fmt: skip
    return Article(foreign_title(rng, language), blocks, source=f"passages in {language}", language=language)


def foreign_title(rng: random.Random, language: str) -> str:
    return choose(rng, PASSAGES[language][0])


def choose(rng: random.Random, passage: str) -> str:
    return re.sub(r"\{([^}]*)\}", lambda slot: rng.choice(slot[1].split("|")), passage)


# the title first, then ten passages
PASSAGES = read_blocks("""
== de
{Nachrichten|Geschichten|Notizen} {aus dem Tal|aus dem Dorf|aus der Altstadt}
{Am Montagmorgen|Gestern Abend|Im vergangenen Herbst} eröffnete die Gemeinde {eine kleine Bibliothek|einen neuen
  Spielplatz|ein renoviertes Schwimmbad} {am Ufer des Flusses|gleich neben dem Bahnhof|mitten in der Altstadt}, und viele
  Familien kamen {trotz des Regens|mit Kuchen und Musik|schon vor der ersten Rede}.
Die {Bäckerin an der Ecke|Leiterin der Musikschule|Besitzerin der Buchhandlung} erzählte, dass sie {seit zwölf
  Jahren|schon ihr halbes Leben|erst seit dem Frühjahr} hier wohnt und {die Ruhe am Abend|den Markt am Samstag|ihre
  Nachbarn} nicht mehr missen möchte.
Wer {Tomaten|Bohnen|Kürbisse} im eigenen Garten ziehen will, braucht {einen sonnigen Platz|lockere Erde|etwas Geduld} und
  sollte {jeden Morgen|nur am Abend|in trockenen Wochen} gründlich gießen.
Nach Angaben {des Wetterdienstes|der Wetterstation am Pass|der Meteorologen} bleibt es {bis zum Wochenende|in den nächsten
  Tagen|mindestens bis Mittwoch} {kühl und windig|ungewöhnlich warm|trocken, aber bewölkt}.
Für den Teig verrührt man {zwei Eier|drei Löffel Honig|ein Glas Milch} mit {Mehl und etwas Salz|weicher Butter|geriebenen
  Nüssen} und lässt alles {eine halbe Stunde|über Nacht|zwanzig Minuten} ruhen.
{Der Zug nach Süden|Die alte Straßenbahn|Der Bus über die Dörfer} fährt {nun wieder jede Stunde|ab Juni auch am
  Sonntag|wegen der Bauarbeiten langsamer}, was vor allem {Schüler und Pendler|ältere Fahrgäste|Wanderer aus der Stadt}
  betrifft.
Im Museum zeigt man zurzeit {ein Gemälde des alten Hafens|eine Landkarte aus dem Jahr 1820|Briefe eines Seemanns}; der
  Eintritt kostet {vier Euro|nichts|für Kinder die Hälfte}, und die Führung dauert {eine knappe Stunde|bis zum Mittag|etwa
  vierzig Minuten}.
Am Ende gewann {die Mannschaft aus dem Nachbarort|unsere Jugendmannschaft|der Außenseiter} mit {drei zu zwei|einem
  einzigen Tor Vorsprung|großem Glück}, obwohl {der Platz völlig aufgeweicht war|zwei Spieler krank fehlten|kaum jemand
  daran geglaubt hatte}.
Die Lehrer wünschen sich {kleinere Klassen|mehr Zeit zum Lesen|einen helleren Schulhof}, doch {das Geld reicht noch
  nicht|die Pläne sind erst im Entwurf|der Rat entscheidet im Mai}, und so {sammeln die Eltern Spenden|helfen alle mit|wird
  weiter verhandelt}.
Wenn man {früh genug aufsteht|den schmalen Pfad nimmt|bis zur Hütte steigt}, sieht man {Rehe am Waldrand|das ganze Tal im
  Nebel|die Lichter der Stadt} und hört {nichts als den Wind|die Glocken von drei Kirchen|den Bach unter den Steinen}.
== fr
{Nouvelles|Récits|Échos} {de la vallée|du village|de la vieille ville}
{Lundi matin|Hier soir|À l'automne dernier}, la commune a inauguré {une petite bibliothèque|un nouveau jardin public|une
  piscine rénovée} {au bord de la rivière|à deux pas de la gare|au cœur de la vieille ville}, et de nombreuses familles sont
  venues {malgré la pluie|avec des gâteaux et de la musique|bien avant les discours}.
La {boulangère du coin|directrice de l'école de musique|patronne de la librairie} raconte qu'elle vit ici {depuis douze
  ans|depuis toujours|depuis le printemps seulement} et qu'elle ne pourrait plus se passer {du calme du soir|du marché du
  samedi|de ses voisins}.
Pour cultiver {des tomates|des haricots|des courges} dans son jardin, il faut {un endroit ensoleillé|une terre bien
  meuble|un peu de patience} et l'on arrose généreusement {chaque matin|seulement le soir|pendant les semaines sèches}.
Selon {les services météorologiques|la station météo du col|les prévisions publiées ce matin}, le temps restera {frais et
  venteux|étonnamment doux|sec mais couvert} {jusqu'à la fin de la semaine|pendant plusieurs jours|au moins jusqu'à
  mercredi}.
Pour la pâte, on mélange {deux œufs|trois cuillerées de miel|un verre de lait} avec {de la farine et un peu de sel|du
  beurre mou|des noix râpées}, puis on laisse reposer le tout {une demi-heure|toute une nuit|vingt minutes}.
{Le train du sud|Le vieux tramway|L'autocar des villages} {circule de nouveau toutes les heures|roulera aussi le dimanche
  à partir de juin|avance plus lentement à cause des travaux}, ce qui intéresse surtout {les élèves|les personnes âgées|les
  randonneurs venus de la ville}.
Le musée expose en ce moment {un tableau du vieux port|une carte de 1820|les lettres d'un marin} ; l'entrée {coûte quatre
  euros|est gratuite|est à moitié prix pour les enfants}, et la visite guidée dure {un peu moins d'une heure|jusqu'à
  midi|une quarantaine de minutes}.
Finalement, {l'équipe du village voisin|notre équipe de jeunes|une équipe que personne n'attendait} l'a emporté {par trois
  buts à deux|grâce à un seul but|avec beaucoup de chance}, alors que {le terrain était détrempé|deux joueurs étaient
  malades|presque personne n'y croyait}.
Les enseignants souhaitent {des classes plus petites|davantage de temps pour la lecture|une cour plus lumineuse}, mais
  {l'argent manque encore|les plans ne sont qu'à l'état d'ébauche|le conseil ne décidera qu'en mai}, si bien que {les
  parents récoltent des dons|tout le monde met la main à la pâte|les discussions continuent}.
Si l'on {se lève assez tôt|prend le sentier étroit|monte jusqu'au refuge}, on aperçoit {des chevreuils à la lisière du
  bois|toute la vallée dans la brume|les lumières de la ville} et l'on n'entend que {le vent|les cloches de trois églises|le
  ruisseau sous les pierres}.
== es
{Noticias|Relatos|Apuntes} {de la ribera|del pueblo|del casco antiguo}
{El lunes por la mañana|Ayer por la tarde|El otoño pasado} el ayuntamiento inauguró {una pequeña biblioteca|un nuevo
  parque infantil|una piscina reformada} {a orillas del río|junto a la estación|en pleno casco antiguo}, y muchas familias
  acudieron {a pesar de la lluvia|con pasteles y música|antes de que empezaran los discursos}.
La {panadera de la esquina|directora de la escuela de música|dueña de la librería} cuenta que vive aquí {desde hace doce
  años|desde niña|solo desde la primavera} y que ya no podría prescindir {de la calma de la tarde|del mercado de los
  sábados|de sus vecinos}.
Quien quiera cultivar {tomates|judías|calabazas} en su huerto necesita {un lugar soleado|tierra suelta|un poco de
  paciencia} y debería regar en abundancia {cada mañana|solo al anochecer|en las semanas secas}.
Según {el servicio meteorológico|la estación del puerto de montaña|la previsión de esta mañana}, el tiempo seguirá {fresco
  y ventoso|más cálido de lo normal|seco pero nublado} {hasta el fin de semana|durante varios días|al menos hasta el
  miércoles}.
Para la masa se mezclan {dos huevos|tres cucharadas de miel|dos vasos de leche} con {harina y un poco de sal|mantequilla
  blanda|nueces ralladas} y se deja reposar todo {media hora|una noche entera|veinte minutos}.
{El tren del sur|El viejo tranvía|El autobús de los pueblos} {vuelve a pasar cada hora|circulará también los domingos a
  partir de junio|va más despacio por las obras}, lo que interesa sobre todo a {los estudiantes|los viajeros mayores|los
  excursionistas de la ciudad}.
El museo expone estos días {un cuadro del antiguo puerto|un mapa de 1820|las cartas de un marinero}; la entrada {cuesta
  cuatro euros|es gratuita|vale la mitad para los niños} y la visita guiada dura {algo menos de una hora|hasta el
  mediodía|unos cuarenta minutos}.
Al final ganó {el equipo del pueblo vecino|nuestro equipo juvenil|un equipo con el que nadie contaba} {por tres a dos|con
  un solo gol|con mucha suerte}, aunque {el campo estaba empapado|dos jugadores estaban enfermos|casi nadie lo creía
  posible}.
Los maestros desean {clases más pequeñas|más tiempo para la lectura|un patio más luminoso}, pero {todavía falta dinero|los
  planes son solo un esbozo|el consejo no decide hasta mayo}, así que {los padres recogen donativos|todos echan una mano|se
  sigue negociando}.
Si uno {se levanta temprano|toma el sendero estrecho|sube hasta el refugio}, ve {los corzos al borde del bosque|todo el
  valle entre la niebla|las luces de la ciudad} y no oye más que {el viento|las campanas de tres iglesias|el arroyo bajo las
  piedras}.
== it
{Notizie|Racconti|Appunti} {dalla collina|dal paese|dal centro storico}
{Lunedì mattina|Ieri sera|Lo scorso autunno} il comune ha inaugurato {una piccola biblioteca|un nuovo parco giochi|una
  piscina ristrutturata} {in riva al fiume|a due passi dalla stazione|nel cuore del centro storico}, e molte famiglie sono
  arrivate {nonostante la pioggia|con torte e musica|ancora prima dei discorsi}.
La {fornaia all'angolo|direttrice della scuola di musica|proprietaria della libreria} racconta che vive qui {da dodici
  anni|da sempre|solo dalla primavera} e che non saprebbe più rinunciare {alla quiete della sera|al mercato del sabato|ai
  suoi vicini}.
Chi vuole coltivare {pomodori|fagioli|zucche} nel proprio orto ha bisogno di {un posto soleggiato|un terreno soffice|un
  po' di pazienza} e dovrebbe annaffiare con abbondanza {ogni mattina|soltanto la sera|nelle settimane asciutte}.
Secondo {il servizio meteorologico|la stazione meteo del passo|le previsioni di stamattina}, il tempo resterà {fresco e
  ventoso|insolitamente mite|asciutto ma nuvoloso} {fino al fine settimana|per alcuni giorni|almeno fino a mercoledì}.
Per l'impasto si mescolano {due uova|tre cucchiai di miele|due tazze di latte} con {farina e un pizzico di sale|burro
  morbido|noci tritate} e si lascia riposare il tutto {mezz'ora|per una notte|venti minuti}.
{Il treno per il sud|Il vecchio tram|L'autobus dei paesi} {passa di nuovo ogni ora|da giugno viaggerà anche la domenica|va
  più piano a causa dei lavori}, e la cosa riguarda soprattutto {gli studenti|i passeggeri anziani|gli escursionisti di
  città}.
Il museo espone in questi giorni {un quadro del vecchio porto|una carta del 1820|le lettere di un marinaio}; l'ingresso
  {costa quattro euro|è gratuito|è a metà prezzo per i bambini} e la visita guidata dura {poco meno di un'ora|fino a
  mezzogiorno|una quarantina di minuti}.
Alla fine ha vinto {la squadra del paese vicino|la nostra squadra giovanile|una squadra che nessuno aspettava} {per tre a
  due|con un solo gol|con molta fortuna}, anche se {il campo era fradicio|due giocatori erano malati|quasi nessuno ci
  credeva}.
Gli insegnanti vorrebbero {classi più piccole|più tempo per la lettura|un cortile più luminoso}, ma {i soldi non bastano
  ancora|i progetti sono soltanto abbozzati|il consiglio deciderà a maggio}, e così {i genitori raccolgono offerte|tutti
  danno una mano|si continua a discutere}.
Se {ci si alza abbastanza presto|si prende il sentiero stretto|si sale fino al rifugio}, si vedono {i caprioli al margine
  del bosco|le case nella nebbia|le luci della città} e si sente {solo il vento|il suono di tre campane|il ruscello sotto i
  sassi}.
== pt
{Notícias|Histórias|Recados} {da serra|da vila|do centro antigo}
{Na segunda-feira de manhã|Ontem à noite|No outono passado}, a prefeitura inaugurou {uma pequena biblioteca|um novo parque
  infantil|uma piscina reformada} {à beira do rio|ao lado da estação|bem no centro antigo}, e muitas famílias vieram {apesar
  da chuva|com bolos e música|antes mesmo dos discursos}.
A {padeira da esquina|diretora da escola de música|dona da livraria} conta que mora aqui {há doze anos|desde criança|só
  desde a primavera} e que já não saberia viver sem {o sossego da tarde|a feira de sábado|os seus vizinhos}.
Quem quer cultivar {tomates|feijões|abóboras} na própria horta precisa de {um lugar ensolarado|terra fofa|um pouco de
  paciência} e deve regar bem {todas as manhãs|somente ao anoitecer|nas semanas secas}.
Segundo {o serviço de meteorologia|a estação do alto da serra|a previsão desta manhã}, o tempo continuará {fresco e
  ventoso|mais quente do que o normal|seco, mas nublado} {até o fim de semana|por vários dias|pelo menos até quarta-feira}.
Para a massa, misturam-se {dois ovos|três colheres de mel|duas xícaras de leite} com {farinha e um pouco de sal|manteiga
  mole|nozes raladas} e deixa-se tudo descansar {meia hora|uma noite inteira|vinte minutos}.
{O trem para o sul|O velho bonde|O ônibus dos povoados} {voltou a passar de hora em hora|vai circular também aos domingos
  a partir de junho|anda mais devagar por causa das obras}, o que interessa principalmente {aos estudantes|aos passageiros
  mais velhos|aos caminhantes da cidade}.
O museu expõe no momento {um quadro do antigo porto|um mapa de 1820|as cartas de um marinheiro}; a entrada {custa quatro
  reais|é gratuita|sai pela metade do preço para crianças}, e a visita guiada dura {pouco menos de uma hora|até o
  meio-dia|uns quarenta minutos}.
No final venceu {o time da vila vizinha|o nosso time juvenil|um time em que ninguém apostava}, {por três a dois|com um
  único gol|com muita sorte}, embora {o campo estivesse encharcado|dois jogadores estivessem doentes|quase ninguém
  acreditasse nisso}.
Os professores gostariam de ter {turmas menores|mais tempo para a leitura|um pátio mais claro}, mas {ainda falta
  dinheiro|os planos são apenas um rascunho|a câmara só decide em maio}, e por isso {os pais recolhem doações|todos
  ajudam|as conversas continuam}.
Quem {acorda bem cedo|segue pela trilha estreita|sobe até o abrigo} vê {os veados na beira da mata|o vale inteiro sob a
  neblina|as luzes da cidade} e não ouve nada além {do vento|dos sinos de três igrejas|do riacho entre as pedras}.
== nl
{Nieuws|Verhalen|Berichten} {uit het dorp|van de rivier|uit de oude stad}
{Maandagochtend|Gisteravond|Afgelopen herfst} opende de gemeente {een kleine bibliotheek|een nieuwe speeltuin|een
  opgeknapt zwembad} {aan de oever van de rivier|vlak naast het station|midden in de oude stad}, en veel gezinnen kwamen
  {ondanks de regen|met taart en muziek|al ruim voor de toespraken}.
De {bakkersvrouw op de hoek|directrice van de muziekschool|eigenares van de boekwinkel} vertelt dat ze hier {al twaalf
  jaar|haar hele leven al|pas sinds het voorjaar} woont en dat ze {de rust in de avond|de markt op zaterdag|haar buren} niet
  meer zou willen missen.
Wie {tomaten|bonen|pompoenen} in de eigen tuin wil kweken, heeft {een zonnige plek|losse grond|wat geduld} nodig en kan
  het best {elke ochtend|alleen 's avonds|in droge weken} flink water geven.
Volgens {het weerbureau|het weerstation op de heuvel|de verwachting van vanochtend} blijft het {tot het weekend|de komende
  dagen|zeker tot woensdag} {koel en winderig|ongewoon warm|droog maar bewolkt}.
Voor het deeg meng je {twee eieren|drie lepels honing|een glas melk} met {bloem en een beetje zout|zachte boter|geraspte
  noten}, en daarna laat je alles {een half uur|een hele nacht|twintig minuten} rusten.
{De trein naar het zuiden|De oude tram|De bus langs de dorpen} {rijdt weer elk uur|rijdt vanaf juni ook op zondag|rijdt
  door de werkzaamheden langzamer}, en dat is vooral van belang voor {scholieren|oudere reizigers|wandelaars uit de stad}.
Het museum toont op dit moment {een schilderij van de oude haven|een kaart uit 1820|brieven van een zeeman}; de toegang
  {kost vier euro|is gratis|is voor kinderen half zo duur}, en de rondleiding duurt {een klein uur|tot het middaguur|zo'n
  veertig minuten}.
Uiteindelijk won {de ploeg uit het buurdorp|ons jeugdelftal|een ploeg waar niemand op rekende} {met drie tegen
  twee|dankzij één doelpunt|met veel geluk}, hoewel {het veld doorweekt was|twee spelers ziek waren|bijna niemand erin
  geloofde}.
De leraren willen graag {kleinere klassen|meer tijd om te lezen|een lichter schoolplein}, maar {het geld is nog niet bij
  elkaar|de plannen zijn pas een schets|de raad beslist in mei}, en dus {zamelen de ouders geld in|helpt iedereen mee|wordt
  er verder overlegd}.
Wie {vroeg genoeg opstaat|het smalle pad neemt|naar de hut klimt}, ziet {reeën aan de rand van het bos|het hele dal in de
  mist|de lichtjes van de stad} en hoort {alleen de wind|de klokken van drie kerken|de beek onder de stenen}.
== pl
{Wiadomości|Opowieści|Notatki} {z doliny|z miasteczka|znad rzeki}
{W poniedziałek rano|Wczoraj wieczorem|Jesienią ubiegłego roku} gmina otworzyła {małą bibliotekę|nowy plac zabaw|odnowiony
  basen} {nad brzegiem rzeki|tuż obok dworca|w samym sercu starego miasta}, a wiele rodzin przyszło {mimo deszczu|z ciastem
  i muzyką|jeszcze przed pierwszym przemówieniem}.
{Piekarka z rogu ulicy|Dyrektorka szkoły muzycznej|Właścicielka księgarni} opowiada, że mieszka tu {od dwunastu lat|od
  urodzenia|dopiero od wiosny} i nie wyobraża sobie już życia bez {wieczornej ciszy|sobotniego targu|swoich sąsiadów}.
Kto chce uprawiać {pomidory|fasolę|dynie} we własnym ogrodzie, potrzebuje {słonecznego miejsca|pulchnej ziemi|odrobiny
  cierpliwości} i powinien obficie podlewać rośliny {każdego ranka|tylko wieczorem|w suche tygodnie}.
Według {służby meteorologicznej|stacji pogodowej na przełęczy|porannej prognozy} {do końca tygodnia|przez najbliższe
  dni|co najmniej do środy} będzie {chłodno i wietrznie|wyjątkowo ciepło|sucho, ale pochmurno}.
Aby przygotować ciasto, miesza się {dwa jajka|trzy łyżki miodu|szklankę mleka} z {mąką i odrobiną soli|miękkim
  masłem|startymi orzechami}, a potem odstawia się wszystko na {pół godziny|całą noc|dwadzieścia minut}.
{Pociąg na południe|Stary tramwaj|Autobus przez wioski} {znowu kursuje co godzinę|od czerwca pojedzie także w niedziele|z
  powodu remontu jedzie wolniej}, co ma znaczenie przede wszystkim dla {uczniów|starszych pasażerów|turystów z miasta}.
W muzeum można teraz zobaczyć {obraz starego portu|mapę z 1820 roku|listy pewnego marynarza}; wstęp {kosztuje dziesięć
  złotych|jest bezpłatny|jest dla dzieci o połowę tańszy}, a zwiedzanie z przewodnikiem trwa {niecałą godzinę|do
  południa|około czterdziestu minut}.
Ostatecznie wygrała {drużyna z sąsiedniej wsi|nasza młodzież|ekipa, której nikt nie znał} – {trzy do dwóch|dzięki jednej
  bramce|przy odrobinie szczęścia} – choć {boisko było rozmokłe|dwóch zawodników chorowało|prawie nikt w to nie wierzył}.
Nauczyciele chcieliby {mniejszych klas|więcej czasu na czytanie|jaśniejszego podwórka}, ale {brakuje jeszcze
  pieniędzy|plany są dopiero szkicem|rada zdecyduje w maju}, więc {rodzice zbierają datki|wszyscy pomagają|rozmowy trwają
  dalej}.
Kto {wstanie dość wcześnie|pójdzie wąską ścieżką|dojdzie do schroniska}, zobaczy {sarny na skraju lasu|całą dolinę we
  mgle|światła miasta} i usłyszy {tylko wiatr|dzwony trzech kościołów|potok pod kamieniami}.
== ru
{Новости|Рассказы|Заметки} {из долины|из городка|с берега реки}
{В понедельник утром|Вчера вечером|Прошлой осенью} в городке открыли {небольшую библиотеку|новую детскую
  площадку|обновлённый бассейн} {на берегу реки|рядом с вокзалом|в самом центре старого города}, и многие семьи пришли
  {несмотря на дождь|с пирогами и музыкой|ещё до начала речей}.
{Хозяйка пекарни на углу|Директор музыкальной школы|Владелица книжного магазина} рассказала, что живёт здесь {уже
  двенадцать лет|с самого рождения|только с весны} и не представляет себе жизни без {вечерней тишины|субботнего рынка|своих
  соседей}.
Тому, кто хочет вырастить {помидоры|фасоль|тыкву} у себя в саду, не обойтись без {солнечного места|рыхлой земли|терпения},
  а поливать грядки следует {каждое утро|только вечером|в засушливые недели}.
По данным {метеорологической службы|метеостанции на перевале|утреннего прогноза}, {до конца недели|в ближайшие дни|по
  крайней мере до среды} будет {прохладно и ветрено|необычно тепло|сухо, но облачно}.
Для теста смешивают {два яйца|три ложки мёда|стакан молока} с {мукой и щепоткой соли|мягким маслом|тёртыми орехами} и
  оставляют всё {на полчаса|на ночь|на двадцать минут}.
{Поезд на юг|Старый трамвай|Автобус через деревни} {снова ходит каждый час|с июня будет ходить и по воскресеньям|из-за
  ремонта едет медленнее}, и это важно прежде всего для {школьников|пожилых пассажиров|туристов из города}.
В музее сейчас показывают {картину с видом старого порта|карту 1820 года|письма одного моряка}; вход {стоит двести
  рублей|бесплатный|для детей вдвое дешевле}, а экскурсия длится {чуть меньше часа|до полудня|около сорока минут}.
В конце концов победила {команда из соседнего посёлка|наша молодёжь|команда, которую никто не знал}: {со счётом три —
  два|благодаря единственному голу|при большом везении}, хотя {поле совсем размокло|двое игроков заболели|почти никто в это
  не верил}.
Учителям хотелось бы {классов поменьше|больше времени на чтение|двора посветлее}, но {денег пока не хватает|планы остаются
  набросками|совет примет решение только в мае}, поэтому {родители собирают пожертвования|помогают все|переговоры
  продолжаются}.
Если {встать пораньше|пойти по узкой тропе|подняться к хижине}, можно увидеть {косуль на опушке леса|всю долину в
  тумане|огни города} и услышать {только ветер|колокола трёх церквей|ручей под камнями}.
== zh
{小城|河谷|老街}{新闻|故事|随笔}
{星期一早上|昨天傍晚|去年秋天}，镇上在{河边|火车站旁边|老城中心}新开了{一家小图书馆|一座儿童游乐场|一个翻修过的游泳池}，许
  多家庭{冒着雨赶来|带着点心和乐器前来|在致辞开始之前就到了}。
{街角面包店的老板娘|音乐学校的校长|书店的女主人}说，她{在这里住了十二年|从小就住在这里|今年春天才搬来}，现在已经离不开{傍
  晚的宁静|星期六的集市|热心的邻居们}了。
想在自家院子里种{西红柿|豆角|南瓜}的人，需要{一块向阳的地|松软的泥土|一点耐心}，而且要{每天早晨|只在傍晚|在干旱的日子里}把
  水浇透。
据{气象台|山口的气象站|今天早上的天气预报}介绍，{周末之前|未来几天|至少到星期三}天气将{凉爽多风|格外温暖|干燥多云}。
和面的时候，把{两个鸡蛋|三勺蜂蜜|一杯牛奶}和{面粉、少许盐|软化的黄油|磨碎的核桃}拌匀，然后静置{半个小时|一整夜|二十分钟}。
{开往南方的火车|那辆老电车|穿过各个村子的公交车}{又恢复了每小时一班|从六月起星期天也开|因为施工开得比较慢}，对此最关心的是
  {学生|年长的乘客|从城里来的徒步者}。
博物馆目前正在展出{一幅描绘旧港口的油画|一张一八二〇年的地图|一位水手的书信}，门票{四十元一张|免费|对儿童半价}，讲解需要{
  将近一个小时|一个上午|大约四十分钟}。
最后，{邻村的球队|我们的青年队|那支不被看好的球队}{以三比二获胜|靠唯一的进球取胜|凭着好运气赢了比赛}，尽管{场地十分泥泞|有
  两名队员生病缺席|几乎没有人相信会有这样的结果}。
老师们希望{班级小一些|有更多时间读书|操场更明亮一些}，可是{经费还不够|方案还只是草图|镇议会五月才作决定}，所以{家长们正在
  募捐|大家都来帮忙|讨论还在继续}。
如果{起得够早|沿着那条小路走|一直爬到山上的小屋}，就能看见{林边的小鹿|雾中的整个山谷|城里的灯火}，听到的只有{风声|远处的钟
  声|石头下面的溪水声}。
== ja
{谷|町|川辺}の{ニュース|物語|便り}
{月曜日の朝|昨日の夕方|去年の秋}、町は{川のほとり|駅のすぐ隣|旧市街の真ん中}に{小さな図書館|新しい公園|改装したプール}を開
  き、多くの家族が{雨にもかかわらず|お菓子と楽器を持って|挨拶が始まる前から}集まりました。
{角のパン屋の店主|音楽学校の校長|本屋の主人}は、{十二年前から|子どものころから|この春から}ここに住んでいて、{夕方の静けさ|
  土曜日の市場|親切な隣人たち}のない暮らしはもう考えられないと話しています。
庭で{トマト|豆|かぼちゃ}を育てたい人には、{日当たりのよい場所|柔らかい土|少しの根気}が必要で、{毎朝|夕方にだけ|雨の少ない
  週には}たっぷり水をやるとよいでしょう。
{気象台|峠の観測所|今朝の天気予報}によると、{週末まで|これから数日間|少なくとも水曜日まで}は{涼しくて風の強い|いつになく暖
  かい|乾いた曇りがちの}日が続きそうです。
生地を作るには、{卵二個|蜂蜜大さじ三杯|牛乳一杯}を{小麦粉と少しの塩|柔らかいバター|砕いたくるみ}と混ぜ、{三十分|一晩|二十
  分}ほど休ませます。
{南へ向かう列車|古い路面電車|村々を回るバス}は{再び一時間おきに走るようになり|六月から日曜日も運行することになり|工事のた
  め速度を落としており}、特に{生徒たち|お年寄り|町から来るハイカー}に影響があります。
博物館では今、{古い港を描いた絵|一八二〇年の地図|ある船乗りの手紙}が展示されており、入場料は{四百円|無料|子どもなら半額}で
  、案内つきの見学は{一時間足らず|正午まで|四十分ほど}です。
結局、{隣村のチーム|地元の若いチーム|だれも期待していなかったチーム}が{三対二で|たった一点の差で|幸運にも恵まれて}勝ちまし
  たが、{グラウンドはぬかるんでいました|二人の選手が病気で休んでいました|それを信じていた人はほとんどいませんでした}。
先生たちは{もっと少人数の学級|本を読む時間|明るい校庭}を望んでいますが、{予算がまだ足りず|計画はまだ下書きの段階で|議会の
  決定は五月になるため}、{保護者が寄付を集めています|みんなで手伝っています|話し合いが続いています}。
{朝早く起きれば|細い道をたどれば|山小屋まで登れば}、{森のはずれの鹿|霧に包まれた谷全体|町の明かり}が見え、{風の音だけ|三つ
  の教会の鐘|石の下を流れる小川の音}が聞こえてきます。
== ar
{أخبار|حكايات|رسائل} {الوادي|البلدة|المدينة القديمة}
{صباح يوم الاثنين|مساء أمس|في الخريف الماضي} افتتحت البلدية {مكتبة صغيرة|حديقة جديدة للأطفال|مسبحا بعد ترميمه} {على ضفة
  النهر|بالقرب من محطة القطار|في قلب المدينة القديمة}، وجاءت عائلات كثيرة {رغم المطر|ومعها الحلوى والموسيقى|قبل أن تبدأ
  الكلمات}.
تقول {صاحبة المخبز|مديرة مدرسة الموسيقى|صاحبة المكتبة} إنها تعيش هنا {منذ اثني عشر عاما|منذ طفولتها|منذ الربيع فقط}، وإنها
  لا تستطيع الاستغناء عن {هدوء المساء|سوق السبت|جيرانها}.
من يريد زراعة {الطماطم|الفاصوليا|القرع} في حديقته يحتاج إلى {مكان مشمس|تربة لينة|شيء من الصبر}، وعليه أن يسقي النباتات
  جيدا {كل صباح|في المساء فقط|في الأسابيع الجافة}.
وفقا {لهيئة الأرصاد الجوية|لمحطة الرصد في الجبل|لتوقعات هذا الصباح} سيبقى الطقس {باردا مع رياح قوية|دافئا على غير
  العادة|جافا مع بعض الغيوم} {حتى نهاية الأسبوع|خلال الأيام القادمة|حتى يوم الأربعاء على الأقل}.
لتحضير العجين نخلط {بيضتين|ثلاث ملاعق من العسل|كوبا من الحليب} مع {الدقيق وقليل من الملح|الزبدة الطرية|الجوز المبشور}، ثم
  نترك الخليط يرتاح {نصف ساعة|ليلة كاملة|عشرين دقيقة}.
{القطار المتجه إلى الجنوب|الترام القديم|الباص الذي يمر بالقرى} {عاد يعمل كل ساعة|سيعمل أيام الآحاد أيضا ابتداء من
  يونيو|يسير ببطء بسبب أعمال الصيانة}، وهذا يهم {الطلاب|كبار السن|المتنزهين القادمين من المدينة} قبل غيرهم.
يعرض المتحف حاليا {لوحة للميناء القديم|خريطة من عام 1820|رسائل كتبها بحار}، وسعر الدخول {أربعة دنانير|رمزي للجميع|مخفض
  للأطفال}، وتستمر الجولة {أقل من ساعة|حتى الظهر|نحو أربعين دقيقة}.
في النهاية فاز {فريق القرية المجاورة|فريق الشباب عندنا|فريق لم يتوقعه أحد} {بثلاثة أهداف مقابل هدفين|بهدف وحيد|بحظ كبير}،
  مع أن {الملعب كان موحلا|لاعبين اثنين كانا مريضين|أحدا لم يكن يصدق ذلك}.
يتمنى المعلمون {صفوفا أصغر|وقتا أطول للقراءة|ساحة أكثر إشراقا}، لكن {المال لا يكفي بعد|الخطط ما زالت مسودة|المجلس لن يقرر
  قبل مايو}، ولذلك {يجمع الآباء التبرعات|يساعد الجميع|تتواصل المناقشات}.
إذا {استيقظت مبكرا|سلكت الدرب الضيق|صعدت إلى الكوخ} رأيت {الغزلان عند طرف الغابة|الوادي كله في الضباب|أضواء المدينة} وسمعت
  {صوت الريح وحده|أجراسا بعيدة|خرير الجدول تحت الحجارة}.
== hi
{घाटी|कस्बे|पुराने शहर} {की ख़बरें|की कहानियाँ|की चिट्ठियाँ}
{सोमवार की सुबह|कल शाम|पिछली सर्दियों में} नगर पालिका ने {नदी के किनारे|रेलवे स्टेशन के पास|पुराने शहर के बीचोंबीच} {एक
  छोटा पुस्तकालय|एक नया पार्क|मरम्मत के बाद पुराना तरणताल} खोला, और बहुत से परिवार {बारिश के बावजूद|मिठाई और ढोलक लेकर|भाषण
  शुरू होने से पहले ही} वहाँ पहुँच गए।
{नुक्कड़ की बेकरी की मालकिन|संगीत विद्यालय की प्रधानाचार्या|किताबों की दुकान की मालकिन} बताती हैं कि वे {बारह साल से|बचपन
  से|इसी वसंत से} यहाँ रह रही हैं और अब {शाम की शांति|शनिवार के बाज़ार|अपने पड़ोसियों} के बिना रहने की सोच भी नहीं सकतीं।
जो लोग अपने बगीचे में {टमाटर|सेम|कद्दू} उगाना चाहते हैं, उन्हें {धूप वाली जगह|भुरभुरी मिट्टी|थोड़े धैर्य} की ज़रूरत होती
  है, और पौधों को {हर सुबह|केवल शाम को|सूखे हफ़्तों में} अच्छी तरह पानी देना चाहिए।
{मौसम विभाग|पहाड़ी वेधशाला|सुबह के पूर्वानुमान} के अनुसार {सप्ताह के अंत तक|अगले कुछ दिनों तक|कम से कम बुधवार तक} मौसम
  {ठंडा और हवादार|असाधारण रूप से गर्म|सूखा, लेकिन बादलों भरा} रहेगा।
{दो अंडों|तीन चम्मच शहद|एक गिलास दूध} को {मैदे और थोड़े नमक|मुलायम मक्खन|पिसे हुए अखरोट} के साथ मिलाकर आटा गूँथा जाता है
  और फिर उसे {आधे घंटे|पूरी रात|बीस मिनट} के लिए छोड़ दिया जाता है।
{दक्षिण जाने वाली रेलगाड़ी|पुरानी ट्राम|गाँवों से होकर जाने वाली बस} {अब फिर हर घंटे चलती है|जून से रविवार को भी
  चलेगी|मरम्मत के कारण धीमी चल रही है}, और इसका असर सबसे ज़्यादा {विद्यार्थियों|बुज़ुर्ग यात्रियों|शहर से आने वाले
  सैलानियों} पर पड़ता है।
संग्रहालय में इन दिनों {पुराने बंदरगाह का एक चित्र|सन 1820 का एक नक्शा|एक नाविक का पत्र-संग्रह} दिखाया जा रहा है; प्रवेश
  शुल्क {चालीस रुपये है|किसी से नहीं लिया जाता|बच्चों के लिए आधा है}, और पूरी सैर में {लगभग एक घंटा|आधा दिन|क़रीब चालीस मिनट
  का समय} लगता है।
आख़िरकार {पड़ोसी गाँव की टीम|हमारी युवा टीम|एक अनजान टीम} {तीन-दो से|केवल एक गोल से|क़िस्मत के सहारे} जीत गई, हालाँकि
  {मैदान पूरी तरह कीचड़ से भरा था|दो खिलाड़ी बीमार थे|शायद ही किसी को इसका भरोसा था}।
शिक्षक {छोटी कक्षाएँ|पढ़ने के लिए ज़्यादा समय|एक खुला आँगन} चाहते हैं, लेकिन {पैसे अभी पूरे नहीं हैं|योजना अभी कच्ची
  है|परिषद मई में ही फ़ैसला करेगी}, इसलिए {माता-पिता चंदा जुटा रहे हैं|सब मिलकर मदद कर रहे हैं|बातचीत जारी है}।
अगर आप {जल्दी उठें|सँकरी पगडंडी पकड़ें|पहाड़ी कुटिया तक चढ़ें}, तो आप {जंगल के किनारे हिरन|कोहरे में डूबी पूरी घाटी|शहर की
  रोशनियाँ} देख सकते हैं और {केवल हवा की आवाज़|दूर की घंटियाँ|पत्थरों के नीचे बहता पानी} सुन सकते हैं।
""")


# ----------------------------------------------------------------------------------------------------- spam and boilerplate


def spam_keywords(rng: random.Random) -> Article:
    goods = rng.sample(GOODS, 3)
    frames = ("buy {0} online", "cheap {0}", "best {0} 2024", "{0} discount", "{0} near me", "order {1} {0}", "{0}")
    parts = [rng.choice(frames).format(rng.choice(goods), rng.choice(GOODS)) for _ in range(rng.randrange(80, 250))]
    return Article(f"{goods[0]} {goods[1]} {goods[2]} cheap online".title(), (("p", " ".join(parts)),))


def spam_repeats(rng: random.Random) -> Article:
    lines = [f"Click here for {rng.choice(GOODS)} now!" for _ in range(rng.randrange(1, 4))]
    return Article("Special page", tuple(("p", line) for line in lines * rng.randrange(20, 60)))


def spam_offers(rng: random.Random) -> Article:
    blocks = [("h", "TOP BONUS LIST !!!")]
    for _ in range(rng.randrange(15, 60)):
        casino = rng.choice(("Lucky", "Royal", "Golden", "Mega", "Turbo")) + rng.choice(("Barrel", "Spins", "Palace", "Reels"))
        blocks.append(("li", rng.choice((
            f"{casino}: {rng.randrange(20, 500)} FREE SPINS + {rng.randrange(100, 900)}% BONUS code {rng.randrange(10**5)} >>",
            f"-{rng.randrange(30, 95)}% {rng.choice(GOODS).upper()} only ${rng.randrange(5, 90)}.99!!! FREE SHIPPING",
        ))))  # fmt: skip
    return Article("FREE SPINS NO DEPOSIT", tuple(blocks))


def spam_short(rng: random.Random) -> Article:
    words = rng.choice(("Under construction.", "Hello world!", "Coming soon...", "test test", "ok"))
    return Article("Untitled", (("p", words),))


def spam_lorem(rng: random.Random) -> Article:
    def sentence() -> str:
        return " ".join(rng.choices(LATIN, k=rng.randrange(6, 16))).capitalize() + "."

    paragraphs = [" ".join(sentence() for _ in range(rng.randrange(3, 8))) for _ in range(rng.randrange(2, 7))]
    return Article("Sample page", tuple(("p", f"Lorem ipsum dolor sit amet. {text}") for text in paragraphs), language="la")


def spam_symbols(rng: random.Random) -> Article:
    noise = ["".join(rng.choices("#$%&*=~^|<>/\\_+-@!?0123456789░▒▓█►◄•¤§¬", k=rng.randrange(20, 80))) for _ in range(30)]
    return Article(noise[0][:12], tuple(("p", line) for line in noise), language="und")


GOODS = ("watches", "sneakers", "sunglasses", "handbags", "phone cases", "diet pills", "car insurance", "payday loans",
         "mattresses", "ink cartridges", "garden sheds", "wedding dresses", "vitamins", "perfume", "hoverboards")  # fmt: skip
LATIN = ("consectetur", "adipiscing", "elit", "sed", "do", "eiusmod", "tempor", "ut", "labore", "et", "dolore", "magna",
         "aliqua", "enim", "minim", "veniam", "quis", "nostrud", "ullamco", "laboris", "nisi", "commodo", "duis", "aute",
         "velit", "esse", "cillum", "fugiat", "nulla", "pariatur", "sunt", "culpa", "mollit", "anim", "id", "est")  # fmt: skip
SPAM = {
    "spam.keywords": spam_keywords, "spam.repeats": spam_repeats, "spam.offers": spam_offers, "spam.short": spam_short,
    "spam.lorem": spam_lorem, "spam.symbols": spam_symbols,
}  # fmt: skip
BOILERPLATE: dict[str, tuple[str, tuple[Block, ...]]] = {
    "boilerplate.cookies": ("Your privacy choices", (
        ("p", "We value your privacy. We and our 843 partners store information on your device, such as cookies."),
        ("li", "Strictly necessary cookies: always active"), ("li", "Performance cookies"), ("li", "Targeting cookies"),
        ("p", "Accept all. Reject all. Save my choices."),
    )),
    "boilerplate.login": ("Sign in", (
        ("html", '<form action="/login" method="post"><label>User name <input name="u"></label><label>Password '
                 '<input name="p" type="password"></label><label><input type="checkbox"> Remember me</label>'
                 '<button>Sign in</button></form>'),
        ("p", "Forgot your password? No account yet? Register now."),
    )),
    "boilerplate.soft_404": ("Page not found", (
        ("p", "Oops! The page you are looking for does not exist or has been moved."),
        ("p", "Try the search, or go back to the home page. Error 404."),
    )),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------- replies that hold no page

STATUSES = (
    "301 Moved Permanently", "302 Found", "404 Not Found", "410 Gone", "500 Internal Server Error", "503 Service Unavailable",
)  # fmt: skip


def bad_status(site: Site, status: str) -> Record:
    text = (("p", f"The server answered {status}."), ("p", "If you came here by a link, please tell the owner of that page."))
    page = site.page("reply.status", Article(status, text), expected="reject", note=status)
    location = (("Location", page.url + "/"),) if status[0] == "3" else ()
    return replace(page, status=status, headers=page.headers + location)


def png() -> bytes:
    """One grey pixel, with checksums as they should be."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), b"IDAT" + zlib.compress(b"\0\x80"), b"IEND"
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


MEDIA_TYPES = {
    "photo.png": ("image/png", png()),
    "report.pdf": ("application/pdf", b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n" + bytes(range(256))),
    "data.json": ("application/json", b'{"items": [1, 2, 3], "next": null}'),
    "site.css": ("text/css", b"body { margin: 0 } .nav { display: flex }"),
    "picture.html": ("text/html", png()),
}


def bad_type(site: Site, name: str) -> Record:
    content_type, body = MEDIA_TYPES[name]
    url = site.url(site.host("en").name, name) + "/" + name
    note = f"{content_type}, in truth a PNG" if name == "picture.html" else content_type
    return Record("reply.media_type", url, body, (("Content-Type", content_type),), language=None, expected="reject", note=note)


EMPTY_BODIES = (b"", b" \r\n\r\n  ", b"<!DOCTYPE html><html><head><title></title></head><body></body></html>")


def empty_reply(site: Site, body: bytes) -> Record:
    url = site.url(site.host("en").name, "empty")
    return Record("reply.empty", url, body, language=None, expected="reject", note=f"{len(body)} bytes")


# ------------------------------------------------------------------------------------------------- charsets and encodings

CHARSETS: dict[str, tuple[tuple[str, str, str | None, str | None], ...]] = {  # language, codec, in the header, in <meta>
    "charset.declared": (
        ("de", "cp1252", "windows-1252", "windows-1252"), ("fr", "cp1252", None, "windows-1252"),
        ("es", "iso8859-1", "ISO-8859-1", None), ("pl", "iso8859-2", "iso-8859-2", "iso-8859-2"),
        ("ru", "koi8-r", "koi8-r", "koi8-r"), ("ru", "cp1251", None, "windows-1251"), ("zh", "gb18030", "gb18030", "gb18030"),
        ("zh", "gb18030", None, "gb2312"), ("ja", "shift_jis", "Shift_JIS", "Shift_JIS"), ("ja", "euc_jp", None, "EUC-JP"),
        ("ru", "utf-16", "utf-16", "utf-16"), ("ja", "utf-16", None, None), ("it", "utf-16-le", "utf-16le", None),
    ),
    "charset.misdeclared": (
        ("de", "cp1252", "utf-8", "utf-8"), ("fr", "cp1252", "utf-8", None), ("zh", "gb18030", "utf-8", "utf-8"),
        ("zh", "gb18030", "iso-8859-1", None), ("ru", "utf-8", "iso-8859-1", "utf-8"), ("ja", "utf-8", "Shift_JIS", None),
        ("it", "utf-16", "utf-8", "utf-8"), ("pl", "utf-8", "no-such-charset", None),
    ),
}  # fmt: skip


def in_charset(site: Site, kind: str, language: str, codec: str, header: str | None, meta: str | None) -> Record:
    """A foreign page in `codec`; what that codec lacks becomes a character reference. utf-16 carries a byte order mark."""
    article = foreign_article(site.rng, language)
    place = site.host(language)
    text = site.render(place, article, meta or "")
    if meta is None:
        text = re.sub(r'<meta charset="">|<META http-equiv="Content-Type"[^>]*>', "", text)
    if codec == "utf-16":
        body = codecs.BOM_UTF16_LE + text.encode("utf-16-le")
    else:
        body = text.encode(codec, errors="xmlcharrefreplace")
    content_type = f"text/html; charset={header}" if header else "text/html"
    note = f"{codec}, header says {header or 'nothing'}, meta says {meta or 'nothing'}"
    url = site.url(place.name, article.title)
    return Record(kind, url, body, (("Content-Type", content_type),), language=language, note=note)


def gzip_encoded(rng: random.Random, page: Record) -> Record:
    both = rng.random() < 0.3
    encoded = replace(page, body=gzip.compress(page.body, mtime=0), headers=(*page.headers, ("Content-Encoding", "gzip")))
    return replace(chunked(rng, encoded), note="gzip, then chunked") if both else replace(encoded, note="gzip")


def chunked(rng: random.Random, page: Record) -> Record:
    parts, start = [], 0
    while start < len(page.body):
        piece = page.body[start : start + rng.randrange(200, 4000)]
        parts.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        start += len(piece)
    headers = (*page.headers, ("Transfer-Encoding", "chunked"))
    return replace(page, body=b"".join(parts) + b"0\r\n\r\n", headers=headers, note="chunked")


def with_nuls(rng: random.Random, article: Article) -> Article:
    """NUL bytes before some words of the text: never inside a tag, where they would change the page's structure as well."""

    def gap(_: re.Match) -> str:
        return rng.choice((" ", " ", " ", " \0"))

    blocks = tuple((tag, re.sub(r" (?=\w)", gap, text)) for tag, text in article.blocks)
    blocks = ((blocks[0][0], "\0" + blocks[0][1]), *blocks[1:])
    return replace(article, blocks=blocks, source=f"{sum(text.count(chr(0)) for _, text in blocks)} NUL bytes")


# ------------------------------------------------------------------------------------------------------------- WARC files


def deal(records: list[Record], files: int) -> list[list[Record]]:
    """Records into files of equal size, the three damaged ones (the last in the list) in their places.

    They lie in different files where there are enough: a good reader must find what follows the damage, and in files that
    none of it touched any reader must find everything.
    """
    *intact, member, garbage, truncated = records
    hands = [intact[number::files] for number in range(files)]
    hands[1 % files].insert(len(hands[1 % files]) // 3, member)
    hands[2 % files].insert(len(hands[2 % files]) * 2 // 3, garbage)
    hands[-1].append(truncated)
    return hands


GARBAGE = b"-- disk full, crawl writer restarted --\n" * 12


def warc_file(name: str, records: list[Record], seed: int) -> tuple[bytes, list[dict]]:
    """The bytes of one WARC.gz file, a gzip member per record, damage included, and the label rows of its records."""
    info = b"software: curate.sample\r\nformat: WARC File Format 1.0\r\nisPartOf: embedded sample crawl\r\n"
    members = [warc_member("warcinfo", record_id(seed, name), EPOCH, "application/warc-fields", info, ("WARC-Filename", name))]
    size = len(members[0])
    rows = []
    for number, record in enumerate(records, start=1):
        when = EPOCH + timedelta(seconds=2 * number + int(name[6:11]) * 86_400)
        ident = record_id(seed, f"{name}/{record.url}")
        content_type = "application/http; msgtype=response"
        member = warc_member("response", ident, when, content_type, http_reply(record, when), ("WARC-Target-URI", record.url))
        if record.kind == "damage.member":
            middle = len(member) // 2
            member = member[:middle] + b"\xff" * 64 + member[middle + 64 :]
        elif record.kind == "damage.truncated":
            member = member[: len(member) * 3 // 5]
        elif record.kind == "damage.garbage":
            members.append(GARBAGE)
            size += len(GARBAGE)
        rows.append({
            "file": name, "offset": size, "record_id": ident, "url": record.url, "kind": record.kind, "cluster": record.cluster,
            "language": record.language, "expected": record.expected, "note": record.note,
        })  # fmt: skip
        members.append(member)
        size += len(member)
    return b"".join(members), rows


def record_id(seed: int, name: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'curate.sample/{seed}/{name}')}>"


def http_reply(record: Record, when: datetime) -> bytes:
    headers = [("Date", format_datetime(when, usegmt=True)), ("Server", "nginx"), *record.headers]
    if ("Transfer-Encoding", "chunked") not in headers:
        headers.append(("Content-Length", str(len(record.body))))
    head = "".join(f"{key}: {value}\r\n" for key, value in headers)
    return f"HTTP/1.1 {record.status}\r\n{head}\r\n".encode() + record.body


def warc_member(kind: str, ident: str, when: datetime, content_type: str, block: bytes, extra: tuple[str, str]) -> bytes:
    """One WARC/1.0 record as one gzip member without a time in its header."""
    digest = base64.b32encode(hashlib.sha1(block).digest()).decode()
    head = "".join(f"{key}: {value}\r\n" for key, value in (
        ("WARC-Type", kind), ("WARC-Record-ID", ident), ("WARC-Date", f"{when:%Y-%m-%dT%H:%M:%SZ}"), extra,
        ("WARC-Block-Digest", f"sha1:{digest}"), ("Content-Type", content_type), ("Content-Length", str(len(block))),
    ))  # fmt: skip
    return gzip.compress(b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n", compresslevel=6, mtime=0)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--pages", default=3000, show_default=True, type=click.IntRange(MIN_PAGES), help="Response records to write.")
@click.option("--files", default=6, show_default=True, type=click.IntRange(1), help="WARC files to spread them over.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another sample.")
def main(out: Path, pages: int, files: int, seed: int) -> None:
    """Write a labelled sample crawl to OUT/crawl (WARC.gz) and OUT/labels.jsonl."""
    try:
        counts = write_sample(out, pages, files, seed)
    except (ValueError, SourceError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(counts, indent=2))


if __name__ == "__main__":
    main()
