"""Precision and recall of `host_boilerplate` on pages of one site of which is known where they have their content.

Sites are folders of HTML, such as the documentation packages of a distribution (python3-doc, sqlite3-doc, nodejs-doc,
apache2-doc, python-django-doc, ...):

    python benchmarks/host_boilerplate.py python=/usr/share/doc/python3/html:div.body node=/usr/share/doc/nodejs/api:#apicontent
    python benchmarks/host_boilerplate.py --pages 20 --engine curate postgres=/usr/share/doc/postgresql-doc/html:-.navfooter

After the folder stands where a page has its content, as a CSS selector, or after a minus what of a page is none. A line of the
extracted text is content if it stands in the text of that region, folded as the stage folds lines, else boilerplate. Of the
lines that the stage takes out, precision is the share that is boilerplate; recall is the share of boilerplate lines on at least
three pages that go; `lost` is the share of content lines that go. With `--gold` the pages of the shared crawl are read instead:
hosts with at least three of them, a line being content if it stands in the gold text.

What counts as content here is severe: "source" beside every function of an interface, or "Part of the git suite" at the end of
every manual, stand within the region. `--show N` prints the most frequent lines that went although they are content, and
`--sample N` lines with their neighbours, of those that went and of those that repeat and stay, to be judged by eye.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import statistics
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from curate.extract import load
from curate.sources.warc import Page, read_archive
from curate.stages.host_boilerplate import HostBoilerplate

Pages = list[tuple[str, set[str]]]  # text, folded lines of the content
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "any frequent line": {"min_run": 1, "spare": ()},
    "any, code and headings spared": {"min_run": 1},
    "runs of 3": {"min_run": 3},
    "runs of 8": {"min_run": 8},
    "nothing spared": {"spare": ()},
    "by share only": {"min_documents": None},
    "by number only": {"max_share": None},
    "20 pages": {"min_documents": 20},
    "lines of 5 letters": {"min_chars": 5},
    "digits alike": {"ignore": ("case", "digits")},
}


def fold(line: str) -> str:
    return " ".join(line.split()).casefold()


def all_text(html: bytes, skip: list[str]) -> str:
    tree = HTMLTree.parse_from_bytes(html, "utf-8")
    return extract_plain_text(tree, main_content=False, alt_texts=False, list_bullets=False, skip_elements=skip)


def site(folder: Path, region: str, engine: str, pages: int, format: str) -> Pages:
    """The first pages of a folder by a hash of their names."""
    extract = None if engine == "all" else load(engine, format=format)
    found: Pages = []
    files = sorted(folder.rglob("*.html"), key=lambda f: hashlib.sha256(str(f.relative_to(folder)).encode()).digest())
    for path in files:
        if len(found) == pages:
            break
        html = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if not 1500 < len(html) < 1 << 21:
            continue
        if region.startswith("-"):
            content = all_text(html, region[1:].split(","))
        else:
            document = HTMLTree.parse_from_bytes(html, "utf-8").document
            node = document.query_selector(region) if document else None
            if node is None:
                continue
            content = all_text(node.html.encode(), [])
        text = extract(html, None, "utf-8").text if extract else all_text(html, [])
        found.append((text, {fold(line) for line in content.split("\n")}))
    return found


def gold(folder: Path, engine: str, format: str) -> dict[str, Pages]:
    """Pages of the shared crawl by host, of hosts with at least three that have a gold text."""
    rows: dict[str, tuple[str, str]] = {}
    with gzip.open(folder / "pages.jsonl.gz") as lines:
        for line in lines:
            row = orjson.loads(line)
            host = urllib.parse.urlsplit(row["url"]).netloc.lower().removeprefix("www.")
            if row.get("main_text") and row["url_is_real"]:
                rows[row["record_id"]] = host, row["main_text"]
    counts = Counter(host for host, _ in rows.values())
    found: dict[str, Pages] = defaultdict(list)
    extract = None if engine == "all" else load(engine, format=format)
    for path in sorted(folder.glob("*.warc.gz")):
        for page in read_archive(path.open("rb"), max_body_bytes=16 << 20):
            if isinstance(page, Page) and page.id in rows and counts[rows[page.id][0]] >= 3:
                host, main = rows[page.id]
                text = extract(page.body, page.url, page.charset).text if extract else all_text(page.body, [])
                found[host].append((text, {fold(line) for line in main.split("\n")}))
    return found


def removed(pages: Pages, parameters: dict) -> Iterator[tuple[Counter, Counter, set[str]]]:
    """(lines that went, lines that stay, lines of the content) of each page."""
    documents = [{"id": str(n), "text": text, "url": f"https://site.test/{n}"} for n, (text, _) in enumerate(pages)]
    kept = HostBoilerplate(**parameters)(documents).kept
    left = dict(zip(kept["id"].to_pylist(), kept["text"].to_pylist(), strict=True))
    for n, (text, content) in enumerate(pages):
        before = Counter(fold(line) for line in text.split("\n") if line.strip())
        after = Counter(fold(line) for line in left.get(str(n), "").split("\n") if line.strip())
        yield before - after, after, content


def judge(pages: Pages, parameters: dict) -> tuple[float, float, float, Counter]:
    """(precision, recall, share of the content lines that go, content lines that went)."""
    stands = Counter(line for text, _ in pages for line in {fold(line) for line in text.split("\n") if line.strip()})
    right = wrong = missed = content_lines = 0
    lost: Counter = Counter()
    for gone, stays, content in removed(pages, parameters):
        for line, n in gone.items():
            if line in content:
                wrong += n
                lost[line] += n
            else:
                right += n
        missed += sum(n for line, n in stays.items() if line not in content and stands[line] >= 3)
        content_lines += sum(n for lines in (gone, stays) for line, n in lines.items() if line in content)
    precision = right / (right + wrong) if right + wrong else 1.0
    return precision, right / (right + missed) if right + missed else 1.0, wrong / max(1, content_lines), lost


def sample(sites: dict[str, Pages], n: int) -> None:
    """Prints up to n lines of each site that went, and of those on at least ten pages that stay, with their neighbours."""
    for name, pages in sites.items():
        stands = Counter(line for text, _ in pages for line in {fold(line) for line in text.split("\n") if line.strip()})
        chosen: dict[str, list[tuple[str, str]]] = {"went": [], "stays": []}
        for (text, _), (gone, _, _) in zip(pages, removed(pages, {}), strict=True):
            lines = [line for line in text.split("\n") if line.strip()]
            for i, line in enumerate(lines):
                before, after = lines[i - 1] if i else "^", lines[i + 1] if i + 1 < len(lines) else "$"
                where = f"{before[:40]!r} | {line[:80]!r} | {after[:40]!r}"
                if gone[fold(line)]:
                    gone[fold(line)] -= 1
                    chosen["went"].append((hashlib.sha256(f"{i}{where}".encode()).hexdigest(), where))
                elif stands[fold(line)] >= 10:
                    chosen["stays"].append((hashlib.sha256(f"{i}{where}".encode()).hexdigest(), where))
        for what, rows in chosen.items():
            for _, where in sorted(rows)[:n]:
                print(f"{name} {what}: {where}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", nargs="*", help="name=folder:selector, or name=folder:-selector,selector")
    parser.add_argument("--gold", type=Path, help="folder with pages.jsonl.gz and archives")
    parser.add_argument("--engine", default="resiliparse", help="an extractor, or `all` for all visible text")
    parser.add_argument("--format", default="text")
    parser.add_argument("--pages", type=int, default=300, help="of a site")
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--sample", type=int, default=0)
    args = parser.parse_args()
    sites: dict[str, Pages] = {}
    for given in args.sites:
        name, _, rest = given.partition("=")
        folder, _, region = rest.partition(":")
        sites[name] = site(Path(folder), region, args.engine, args.pages, args.format)
    variants = VARIANTS
    if args.gold:
        sites |= gold(args.gold, args.engine, args.format)
        variants = {name: {"min_scope": 3, **given} for name, given in VARIANTS.items()}
    if args.sample:
        return sample(sites, args.sample)
    print(f"{args.engine}, {args.format}: {len(sites)} sites, {sum(map(len, sites.values()))} pages\n")
    print("| site | pages | precision | recall | lost |\n|---|---|---|---|---|")
    for name, pages in sites.items():
        precision, recall, lost, lines = judge(pages, variants["defaults"])
        print(f"| {name} | {len(pages)} | {precision:.3f} | {recall:.3f} | {lost:.4f} |")
        for line, n in lines.most_common(args.show):
            print(f"|   {n} x {line[:90]!r} |")
    print("\n| parameters | precision | recall | lost | (means of sites) |\n|---|---|---|---|---|")
    for name, parameters in variants.items():
        found = [judge(pages, parameters)[:3] for pages in sites.values()]
        means = [statistics.mean(values) for values in zip(*found, strict=True)]
        print(f"| {name} | {means[0]:.3f} | {means[1]:.3f} | {means[2]:.4f} | |", flush=True)


if __name__ == "__main__":
    main()
