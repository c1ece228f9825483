"""Extraction of main text beside trafilatura, resiliparse, jusText and others: word-level F1, snippets, pages per second.

    python benchmarks/extraction.py [--data FOLDER] [--peer-python PYTHON] [--repeats 5] [--folds 5] [--check] [--json FILE]
    python benchmarks/extraction.py --pages 150 --repeats 2 --only curate --only defaults      a look

Pages are those of crawl/, every side gets the same ones in the same order and in turns, a hundred at a time. Each side is a
process on one core, and CPU seconds of the calls alone count, from the bytes of the page in memory to its text; what each is
given, and which settings were tried for it, stands in `_extraction_sides.py`. trafilatura runs in the version of this Python
and in those of each --peer-python (datatrove pins an older one), with datatrove's settings and others.

Quality. The pages with reference texts: precision, recall and F1 of the multisets of words (lower-cased runs of `\\w`), mean
over pages; a page without text has 0. `curate` is judged on hosts that its model has not seen: the model is trained anew for
each of --folds parts of the hosts, on the pages of the other parts, with the recipe of `classifiers/extract`. The intervals
are of the difference to it on the same pages, by 10,000 bootstrap samples of the pages.

Snippets. Texts that must and must not be found, white space and case aside, counted as in trafilatura's own evaluation: on
the pages above, and on others that have no reference text, where `curate` is the model that ships, trained on reference texts
only. Pages of a host, or with bytes, that a page with reference text has are left out there.

Speed. All pages once, and a sample of --sample of them --repeats times, in turns; ratios are of the sample.

Bars, on all pages and on articles: F1 at least that of trafilatura, with datatrove's settings in the better version, and with
the settings that make the most of it; 12 times its pages per second, with datatrove's settings in the faster version. Stretch:
F1 higher by 0.02, 25 times. --check exits with 1 where a bar that is no stretch is missed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from _extraction_score import Overlap, judged, snippets, words
from _measure import Spread, table

from curate.compare import overlap

HERE = Path(__file__).resolve().parent
CHUNK = 100  # pages a turn
OURS = "curate"
BARS = {"f1": 0.0, "speed": 12.0, "stretch f1": 0.02, "stretch speed": 25.0}
TYPES = {"mozilla-readability": "readability", "zh-content-extraction": "Chinese"}  # of pages that have none by source
SAMPLES = 10_000
MAX_BODY = 16 << 20

Row = dict[str, Any]


@dataclass
class Side:
    """One contestant: a process that is asked for pages."""

    name: str
    command: list[str]
    texts: dict[int, str] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    repeats: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    process: subprocess.Popen[str] | None = None

    def ask(self, pages: Sequence[int], texts: bool) -> dict[str, Any]:
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self.process.stdin and self.process.stdout
        print(json.dumps({"pages": pages, "texts": texts}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} died; see {' '.join(self.command)}")
        return json.loads(line)

    def close(self) -> None:
        if self.process is not None and self.process.stdin:
            self.process.stdin.close()
            self.process.wait()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def host(page: Row) -> str:
    return urlsplit(page["url"]).hostname or ""


def train(data: Path, folder: Path, folds: int) -> dict[str, int]:
    """Train a model for each fold; the fold that each page with a reference text is in."""
    script, workers = HERE / "_extraction_folds.py", str(len(os.sched_getaffinity(0)))
    done = subprocess.run([sys.executable, script, data, folder, "--folds", str(folds), "--workers", workers])
    if done.returncode:
        sys.exit("training failed")
    return json.loads((folder / "folds.json").read_text())


def read_pages(data: Path, folder: Path, folds: Mapping[str, int]) -> list[Row]:
    """The rows of pages.jsonl.gz that have something to score, and their bytes in `folder` for the sides."""
    from curate.extract.charset import to_utf8
    from curate.sources.warc import Page, read_archive

    with gzip.open(data / "crawl" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        known = {row["record_id"]: row for row in map(json.loads, lines)}
    rows: list[Row] = []
    index: list[Row] = []
    at = 0
    with (folder / "pages.bin").open("wb") as out:
        for name in sorted({row["warc"] for row in known.values()}):
            with (data / "crawl" / name).open("rb") as stream:
                for page in read_archive(stream, max_body_bytes=MAX_BODY):
                    row = known.get(page.id) if isinstance(page, Page) else None
                    if row is None or not (row["main_text"] or row["must_contain"] or row["must_not_contain"]):
                        continue
                    text = as_datatrove(page.body)
                    if text is None:
                        text = to_utf8(page.body, page.charset)
                    out.write(page.body + text)
                    index.append({"at": at, "raw": len(page.body), "text": len(text), "url": page.url, "charset": page.charset,
                                  "lang": row["html_lang"], "fold": folds.get(page.id)})  # fmt: skip
                    at += len(page.body) + len(text)
                    rows.append({**row, "type": row["page_type"] or TYPES.get(row["source"], row["source"])})
    (folder / "pages.json").write_text(json.dumps(index))
    return rows


def as_datatrove(body: bytes) -> bytes | None:
    """A page in UTF-8 as datatrove's reader decodes it; None where it gives the page up."""
    import cchardet

    try:
        return body.decode("utf-8").encode()
    except UnicodeDecodeError:
        try:
            return body.decode(cchardet.detect(body)["encoding"] or "utf-8").encode()
        except (UnicodeError, LookupError):
            return None


def contestants(pythons: Iterable[Path], folder: Path, only: Sequence[str]) -> dict[str, Side]:
    """The sides of this Python and of others, each package in each version once."""
    found: dict[str, Side] = {}
    for python in pythons:
        script = str(HERE / "_extraction_sides.py")
        done = subprocess.run([str(python), script, "versions"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{python} cannot run the sides:\n{done.stderr[-2000:]}")
        for side, version in json.loads(done.stdout).items():
            package, comma, setting = side.partition(",")
            name = side if side.startswith(OURS) else f"{package} {version}{comma}{setting}"
            if name not in found and (not only or name == OURS or any(word in name for word in only)):
                found[name] = Side(name, [str(python), script, side, str(folder)])
    return found


def take_turns(sides: Sequence[Side], pages: Sequence[int], repeats: int, sample: Sequence[int]) -> None:
    """Every page once, and the sample some times over; the order of the sides alternates."""
    for turn, at in enumerate(range(0, len(pages), CHUNK)):
        asked = pages[at : at + CHUNK]
        for side in sides[:: 1 if turn % 2 == 0 else -1]:
            answer = side.ask(asked, texts=True)
            side.texts.update(zip(asked, answer["texts"], strict=True))
            side.seconds.update(zip(asked, answer["seconds"], strict=True))
            side.errors.update(answer["errors"])
        say(f"  {min(at + CHUNK, len(pages)):,} of {len(pages):,} pages")
    for repeat in range(repeats):
        for side in sides[:: 1 if repeat % 2 == 0 else -1]:
            side.repeats.append(sum(side.ask(sample, texts=False)["seconds"]))
        say(f"  sample, {repeat + 1} of {repeats}")


# --------------------------------------------------------------------------------------------- scores


def quality(side: Side, rows: Sequence[Row], gold: Sequence[int]) -> dict[str, Any]:
    """Marks of each page with a reference text, and their means over all pages and by type."""
    marks = [overlap(words(side.texts[i]), words(rows[i]["main_text"])) for i in gold]
    groups: dict[str, list[Overlap]] = {"all": marks}
    for i, mark in zip(gold, marks, strict=True):
        groups.setdefault(rows[i]["type"], []).append(mark)
    return {"marks": marks, "groups": {name: means(found) for name, found in groups.items()}}


def means(marks: Sequence[Overlap]) -> dict[str, float]:
    precision, recall, f1 = np.mean(marks, axis=0)
    return {"n": len(marks), "precision": float(precision), "recall": float(recall), "f1": float(f1)}


def snippet_scores(side: Side, rows: Sequence[Row], pages: Sequence[int]) -> dict[str, float]:
    counts = [snippets(side.texts[i], rows[i]["must_contain"] or (), rows[i]["must_not_contain"] or ()) for i in pages]
    return judged(*map(sum, zip(*counts, strict=True))) if counts else {}


def interval(ours: Sequence[Overlap], theirs: Sequence[Overlap]) -> dict[str, float]:
    """Mean difference in F1 on the same pages, and its 95% interval: percentiles of bootstrap samples of the pages."""
    difference = np.array([a[2] - b[2] for a, b in zip(ours, theirs, strict=True)])
    rng = np.random.default_rng(0)
    drawn = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(SAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mid": float(difference.mean()), "low": float(low), "high": float(high)}


def score(sides: Mapping[str, Side], rows: Sequence[Row], pages: Sequence[int], sample: Sequence[int]) -> dict[str, Any]:
    gold = [i for i in pages if rows[i]["main_text"]]
    gold_hosts, gold_bytes = {host(rows[i]) for i in gold}, {rows[i]["raw_sha256"] for i in gold}
    rest = [i for i in pages if not rows[i]["main_text"]]
    other = [i for i in rest if host(rows[i]) not in gold_hosts and rows[i]["raw_sha256"] not in gold_bytes]
    told = [i for i in gold if rows[i]["must_contain"] or rows[i]["must_not_contain"]]
    found: dict[str, Any] = {}
    for name, side in sides.items():
        found[name] = {
            **quality(side, rows, gold),
            "snippets": snippet_scores(side, rows, told),
            "other snippets": snippet_scores(side, rows, other),
            "pages_per_s": [len(sample) / s for s in side.repeats],
            "pages_per_s_all": len(pages) / sum(side.seconds.values()),
            "slowest": max(side.seconds.values()),
            "empty": sum(not side.texts[i].strip() for i in gold),
            "errors": dict(side.errors),
        }
    for name, result in found.items():
        result["f1_difference"] = interval(found[OURS]["marks"], result["marks"]) if name != OURS else None
        articles = [k for k, i in enumerate(gold) if rows[i]["type"] == "article"]
        pairs = [[found[n]["marks"][k] for k in articles] for n in (OURS, name)]
        result["f1_difference_articles"] = interval(*pairs) if name != OURS and articles else None
        if side_repeats := found[OURS]["pages_per_s"]:
            result["ratio"] = vars(Spread.ratio(side_repeats, result["pages_per_s"]))
    return {
        "pages": {"all": len(pages), "reference": len(gold), "snippets": len(told), "other": len(other),
                  "left out": len(rest) - len(other), "sample": len(sample)},
        "sides": found,
    }  # fmt: skip


def references(result: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The trafilatura that bars are against: (highest F1, highest speed) of datatrove's settings; the highest F1 of all."""
    found = {n: side for n, side in result["sides"].items() if n.startswith("trafilatura")}
    named = {}

    def highest(names: Iterable[str], value: Callable[[Mapping[str, Any]], float]) -> str:
        return max(names, key=lambda n: value(found[n]))

    def f1(side: Mapping[str, Any]) -> float:
        return side["groups"]["all"]["f1"]

    def speed(side: Mapping[str, Any]) -> float:
        return Spread.of(side["pages_per_s"]).mid if side["pages_per_s"] else 0.0

    if versions := [n for n in found if n.endswith("datatrove")]:
        named["datatrove's settings"] = highest(versions, f1), highest(versions, speed)
    if found:
        named["its best settings"] = (highest(found, f1),) * 2
    return named


def bars(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    ours, found = result["sides"][OURS], []
    for label, (best, fastest) in references(result).items():
        peer = result["sides"][best]
        for group, pages in (("all", "all pages"), ("article", "articles")):
            if group in ours["groups"] and group in peer["groups"]:
                value = ours["groups"][group]["f1"] - peer["groups"][group]["f1"]
                for kind in ("f1", "stretch f1"):
                    found.append((kind, f"F1 on {pages} less that of trafilatura, {label} ({best})", value, BARS[kind]))
        if "ratio" in (peer := result["sides"][fastest]):
            for kind in ("speed", "stretch speed"):
                text = f"pages per second over trafilatura, {label} ({fastest})"
                found.append((kind, text, peer["ratio"]["mid"], BARS[kind]))
    return [
        {"bar": text, "stretch": kind.startswith("stretch"), "value": value, "limit": limit, "met": value >= limit}
        for kind, text, value, limit in found
    ]


# --------------------------------------------------------------------------------------------- output


def show(result: Mapping[str, Any]) -> str:
    sides, counts = result["sides"], result["pages"]
    rows = []
    for name, side in sides.items():
        best, difference, ratio = side["groups"]["all"], side["f1_difference"], side.get("ratio")
        rows.append([
            name, *(f"{best[k]:.3f}" for k in ("f1", "precision", "recall")),
            signed(difference) if difference else "", signed(side["f1_difference_articles"]) if difference else "",
            f"{side['pages_per_s_all']:,.0f}", Spread.of(side["pages_per_s"]).show(0) if side["pages_per_s"] else "–",
            f"{Spread(**ratio).show(1)}x" if ratio and difference else "", f"{side['slowest']:.2f}", str(side["empty"]),
            ", ".join(f"{k} {n}" for k, n in side["errors"].items()) or "–",
        ])  # fmt: skip
    head = ["", "F1", "precision", "recall", f"{OURS} is, in F1", "on articles", "pages/s, all", "pages/s, sample",
            f"{OURS} is, in pages/s", "slowest s", "empty", "errors"]  # fmt: skip
    title = (f"REFERENCE TEXTS  {counts['reference']:,} pages; per CPU second, {counts['all']:,} pages once,"
             f" {counts['sample']:,} repeated")  # fmt: skip
    blocks = [table(title, head, rows)]
    groups = sorted({g for side in sides.values() for g in side["groups"]} - {"all"})
    sizes = next(iter(sides.values()))["groups"]
    head = ["", *(f"{g} ({sizes[g]['n']})" for g in groups)]
    rows = [[name, *(f"{side['groups'][g]['f1']:.3f}" for g in groups)] for name, side in sides.items()]
    blocks.append(table("F1 BY TYPE OF PAGE", head, rows))
    rows = [[name, *(f"{side['groups'][g]['precision']:.2f}/{side['groups'][g]['recall']:.2f}" for g in groups)]
            for name, side in sides.items()]  # fmt: skip
    blocks.append(table("PRECISION/RECALL BY TYPE OF PAGE", head, rows))
    parts = (("snippets", f"SNIPPETS  of the {counts['snippets']:,} pages above that have some"),
             ("other snippets", f"SNIPPETS  of {counts['other']:,} other pages, no host of theirs above"
                                f" ({counts['left out']:,} left out)"))  # fmt: skip
    for key, title in parts:
        if any(side[key] for side in sides.values()):
            columns = {"F1": "f1", "accuracy": "accuracy", "precision": "precision", "wanted found": "recall",
                       "unwanted found": "unwanted"}  # fmt: skip
            rows = [[name, *(f"{side[key][k]:.3f}" for k in columns.values())] for name, side in sides.items()]
            blocks.append(table(title, ["", *columns], rows))
    lines = [
        f"{'met   ' if b['met'] else 'missed' if b['stretch'] else 'MISSED'}  {'stretch: ' if b['stretch'] else ''}{b['bar']}:"
        f" {b['value']:+.3f} (at least {b['limit']:g})"
        for b in result["bars"]
    ]
    return "\n\n".join([*blocks, "\n".join(lines)])


def signed(found: Mapping[str, float] | None) -> str:
    return f"{found['mid']:+.3f} [{found['low']:+.3f}–{found['high']:+.3f}]" if found else ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CURATE_DATA") or HERE.parent.parent / "shared" / "data"
    peers = [Path(p) for p in os.environ.get("CURATE_PEER_PYTHON", "").split(os.pathsep) if p]
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with crawl/ (or CURATE_DATA)")
    parser.add_argument(
        "--peer-python", type=Path, action="append", default=peers, help="one with other peers; may be repeated"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sample", type=int, default=150, help="pages that are repeated")
    parser.add_argument("--pages", type=int, help="so many pages by chance, for a look")
    parser.add_argument("--only", action="append", default=[], help="sides with this in their name, and curate")
    parser.add_argument("--json", type=Path, help="write everything there, the marks of each page too")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        say(f"training {args.folds} models")
        rows = read_pages(args.data, folder, train(args.data, folder, args.folds))
        pages = list(range(len(rows)))
        if args.pages:
            pages = sorted(random.Random(0).sample(pages, min(args.pages, len(pages))))
        gold = [i for i in pages if rows[i]["main_text"]]
        sample = sorted(random.Random(1).sample(gold, min(args.sample, len(gold))))
        sides = contestants([Path(sys.executable), *args.peer_python], folder, args.only)
        try:
            take_turns(list(sides.values()), pages, args.repeats, sample)
        finally:
            for side in sides.values():
                side.close()
        result = score(sides, rows, pages, sample)
    result["bars"] = bars(result)
    print(show(result))
    if args.json:
        for side in result["sides"].values():
            side["marks"] = {rows[i]["record_id"]: mark for i, mark in zip(gold, side["marks"], strict=True)}
        args.json.write_text(json.dumps(result))
    return 1 if args.check and not all(b["met"] or b["stretch"] for b in result["bars"]) else 0


if __name__ == "__main__":
    sys.exit(main())
