"""The stage `language` beside the fastText library, and the detectors beside each other.

    python benchmarks/language.py [--model lid.176.ftz] [--repeats 5] [--mb 60] [--json] [--check]

Everything runs in one process on one core, turn by turn, in CPU seconds, after a warm-up; start-up and loading are not counted.
Without --model one is trained on the spot: declarations of human rights, the first half of each, with the shape of lid.176
(rows of 16 numbers, runs of 2 to 4 characters, a tree over the labels); the second halves are what is judged then.

Speed: documents of domains/, quality/ and the pages' main texts, mixed, up to --mb in all, others in each repeat. The library
gets whole documents, each with one call of its compiled `predict`, which is its fastest way. Accuracy: languages that pages
declare about themselves (a claim, not the truth: of pages with a main text of 200 characters at least), and pieces of
declarations, their codes mapped to ISO 639-1 where there is one, Norwegian taken as one language.

Bars: the stage at least 4 times the library's predict over whole documents with the same model, its accuracy within 0.3 points.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import itertools
import json
import os
import random
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _measure import Spread, table

from curate import fasttext as reader
from curate.languages import iso1, iso_code
from curate.stage import Task
from curate.stages.language import Language

BARS = {"ratio": 4.0, "points": 0.3}
NORWEGIAN = {"nb": "no", "nn": "no"}
ROWS = 1024  # of a batch, as the engine has them


def lines_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]


def one(code: str) -> str:
    return NORWEGIAN.get(code, code)


def documents(data: Path, mb: float) -> list[str]:
    """Texts of many kinds in a fixed random order, up to so many megabytes."""
    texts = [page["main_text"] for page in lines_of(data / "crawl" / "pages.jsonl.gz") if page["main_text"]]
    for name in ("domains", "quality"):
        texts += pq.read_table(data / name / f"{name}.parquet", columns=["text"])["text"].to_pylist()
    random.Random(0).shuffle(texts)
    found, size = [], 0.0
    for text in texts:
        if size < mb * 1e6:
            found.append(text)
            size += len(text.encode())
    return found


def pages(data: Path) -> tuple[list[str], list[str]]:
    """Main texts and the language that the page declares, where a declaration is more than a default nobody set."""
    texts, gold = [], []
    for page in lines_of(data / "crawl" / "pages.jsonl.gz"):
        code = (page["html_lang"] or "").strip().lower().partition("-")[0]
        if page["main_text"] and len(page["main_text"]) >= 200 and len(code) == 2 and code.isalpha():
            texts.append(page["main_text"])
            gold.append(one(code))
    return texts, gold


def declarations(data: Path, size: int, half: bool) -> tuple[list[str], list[str]]:
    """Pieces of `size` characters (0: whole texts), at most ten a text; half: of the second half of each text only."""
    texts, gold = [], []
    for row in lines_of(data / "misc" / "langid_udhr2.jsonl.gz"):
        if row["iso639_3"]:
            text = row["text"][len(row["text"]) // 2 if half else 300 :]
            step = max(size, len(text) // 10) if size else len(text)
            for at in range(0, len(text) - size + 1 if size else 1, step):
                texts.append(text[at : at + (size or len(text))])
                gold.append(one(iso1().get(row["iso639_3"], row["iso639_3"])))
    return texts, gold


def train(data: Path, folder: Path) -> Path:
    """A model with the shape of lid.176, from the first half of each declaration."""
    import fasttext

    rng, lines = random.Random(0), []
    for row in lines_of(data / "misc" / "langid_udhr2.jsonl.gz"):
        if row["iso639_3"]:
            words = unicodedata.normalize("NFC", row["text"][: len(row["text"]) // 2]).split()
            for _ in range(60):
                at = rng.randrange(max(len(words) - 5, 1))
                lines.append(f"__label__{row['iso639_3']} {' '.join(words[at : at + rng.randint(5, 60)])}\n")
    rng.shuffle(lines)
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    ctypes.CDLL(None).mallopt(-6, 255)  # new memory is zero: the library reads some before it writes
    model = fasttext.train_supervised(
        str(folder / "train.txt"), dim=16, minn=2, maxn=4, loss="hs", bucket=200_000, epoch=12, lr=0.5, minCount=3, thread=1,
        verbose=0,
    )  # fmt: skip
    ctypes.CDLL(None).mallopt(-6, 0)
    model.save_model(str(folder / "trained.bin"))
    return folder / "trained.bin"


class Texts:
    """Texts as the library takes them, and in batches as the engine has them."""

    def __init__(self, texts: Sequence[str]):
        self.texts = texts
        column = pa.array(texts, pa.string())
        numbers = pa.array(range(len(texts)), pa.uint32())
        self.batches = [
            pa.record_batch({"_row": numbers[at : at + ROWS], "text": column[at : at + ROWS]})
            for at in range(0, len(texts), ROWS)
        ]


Detect = Callable[[Texts], list[str]]


def stage(**parameters: Any) -> Detect:
    """The stage as the engine runs it, batch by batch."""
    run = Language(**parameters).open(Task(phase="benchmark", rank=0))

    def detect(given: Texts) -> list[str]:
        found: list[str] = []
        for batch in given.batches:
            found += run(batch)["language"].to_pylist()
        return found

    return detect


def right_by_score(model: str, known: set[str], given: Texts, gold: Sequence[str]) -> dict[str, Any]:
    """Share right, and how many, of the texts in known languages by the score that the stage gives them."""
    run = Language(model=model).open(Task(phase="benchmark", rank=0))
    out = [run(batch) for batch in given.batches]
    score = np.concatenate([batch["language_score"].to_numpy() for batch in out])
    said = [one(code) for batch in out for code in batch["language"].to_pylist()]
    right = np.array([a == b for a, b in zip(said, gold, strict=True)])
    mine = np.array([code in known for code in gold])
    found = {}
    for low, high in itertools.pairwise((0, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99, 1.01)):
        here = mine & (score >= low) & (score < high)
        found[f"{low:g}–{min(high, 1):g}"] = [float(right[here].mean()) if here.any() else None, int(here.sum())]
    return found


def kernel(path: Path) -> Detect:
    """Our reader and kernel over whole documents, without excerpts and scripts: the bytes that the library reads."""
    model = reader.load(path)

    def detect(given: Texts) -> list[str]:
        found: list[str] = []
        for batch in given.batches:
            labels, _ = model.predict(batch["text"])
            found += [iso_code(label[0]) if label else "und" for label in labels.to_pylist()]
        return found

    return detect


def library(path: Path) -> Detect:
    """The fastText library over whole documents."""
    import fasttext

    fasttext.FastText.eprint = lambda *_: None
    model = fasttext.load_model(str(path)).f

    def detect(given: Texts) -> list[str]:
        found = []
        for text in given.texts:
            best = model.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")
            found.append(iso_code(best[0][1]) if best else "und")
        return found

    return detect


def seconds(detect: Detect, texts: Texts) -> float:
    started = time.process_time()
    detect(texts)
    return time.process_time() - started


def speed(sides: dict[str, Detect], texts: Sequence[str], repeats: int) -> dict[str, Any]:
    """Documents and megabytes per CPU second of each side, interleaved; the order alternates. Every repeat has documents of
    its own, so that what our kernel remembers of words is what it would remember in a corpus."""
    rates: dict[str, dict[str, list[float]]] = {name: {"documents": [], "mb": []} for name in sides}
    for detect in sides.values():
        detect(Texts(texts[:50]))
    for turn in range(repeats):
        part = Texts(texts[turn::repeats])
        size = sum(len(text.encode()) for text in part.texts)
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            took = seconds(sides[name], part)
            rates[name]["documents"].append(len(part.texts) / took)
            rates[name]["mb"].append(size / took / 1e6)
            print(f"  {name}: {len(part.texts):,} documents in {took:.2f} s", file=sys.stderr, flush=True)
    first = next(iter(sides))
    ratio = {name: vars(Spread.ratio(rates[name]["mb"], rates[first]["mb"])) for name in sides}
    return {"documents": len(texts), "bytes": sum(len(text.encode()) for text in texts), "rates": rates, "ratio": ratio}


def accuracy(
    sides: dict[str, Detect], known: dict[str, set[str]], sets: dict[str, tuple[list[str], list[str]]]
) -> dict[str, Any]:
    """Share right of each side on each set: over the languages that all know, that it knows, and over all; and its speed."""
    found: dict[str, Any] = {}
    common = set.intersection(*known.values())
    for name, (texts, gold) in sets.items():
        given = Texts(texts)
        found[name] = {"texts": len(texts), "in_common": sum(code in common for code in gold), "sides": {}}
        for side, detect in sides.items():
            started = time.process_time()
            said = [one(code) for code in detect(given)]
            spent = time.process_time() - started
            right = np.array([a == b for a, b in zip(said, gold, strict=True)])
            mine = np.array([code in known[side] for code in gold])
            shared = np.array([code in common for code in gold])
            found[name]["sides"][side] = {
                "right": float(right.mean()),
                "known": int(mine.sum()),
                "right_of_common": float(right[shared].mean()),
                "right_of_known": float(right[mine].mean()) if mine.any() else None,
                "und_of_unknown": float(np.mean([a == "und" for a, m in zip(said, mine, strict=True) if not m] or [0])),
                "texts_per_s": len(texts) / max(spent, 1e-9),
                "wrong": Counter(f"{b} as {a}" for a, b, m in zip(said, gold, mine, strict=True) if m and a != b).most_common(
                    12
                ),
            }
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CURATE_DATA") or Path(__file__).parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with crawl/, domains/, quality/, misc/")
    parser.add_argument("--model", type=Path, help="a fastText model of languages; default: one trained on the spot")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mb", type=float, default=60, help="megabytes of documents for the speed, over all repeats")
    parser.add_argument("--json", action="store_true", help="one JSON object with every repeat on stdout")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    pa.set_cpu_count(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        path = args.model or train(args.data, Path(folder))
        result = measure(args, path)
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    return 1 if args.check and not all(bar["met"] for bar in result["bars"]) else 0


def measure(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    model = str(path)
    theirs, ours = "fastText library", "language, this model"
    sides: dict[str, Detect] = {
        theirs: library(path),
        "our kernel, whole documents": kernel(path),
        ours: stage(model=model),
        "language, resiliparse": stage(),
        "language, resiliparse then this model": stage(then=model),
        "language, this model, per_paragraph": stage(model=model, per_paragraph=True),
    }
    result: dict[str, Any] = {"model": path.name, "load": os.getloadavg()[0]}
    result["speed"] = speed(sides, documents(args.data, args.mb), args.repeats)

    from resiliparse.parse.lang import supported_langs

    of_model = {one(iso_code(label)) for label in reader.load(path).labels}
    fast = {one(code) for code in supported_langs()}
    judged = {name: detect for name, detect in sides.items() if "per_paragraph" not in name and "kernel" not in name}
    known = {name: fast if name.endswith("resiliparse") else of_model | fast if "then" in name else of_model for name in judged}
    half = args.model is None
    sets: dict[str, tuple[list[str], list[str]]] = {}
    if not half:  # declarations teach nothing about pages
        texts, gold = pages(args.data)
        sets["pages"] = texts, gold
        for size in (1000, 200):
            sets[f"pages, {size} characters"] = [text[:size] for text in texts], gold
    for size in (0, 1000, 200):
        sets[f"declarations, {size} characters" if size else "declarations, whole"] = declarations(args.data, size, half)
    result["accuracy"] = accuracy(judged, known, sets)
    result["right_by_score"] = {}
    short = {f"declarations, {size} characters": declarations(args.data, size, half) for size in (200, 40)}
    if not half:
        texts, gold = pages(args.data)
        short["pages, 40 characters"] = [text[100:140] for text in texts], gold
    for what, (texts, gold) in short.items():
        given = Texts(texts)
        for name, languages in ((model, of_model), ("resiliparse", fast)):
            result["right_by_score"][f"{Path(name).name}: {what}"] = right_by_score(name, languages, given, gold)

    ratio = result["speed"]["ratio"][ours]
    lost = {name: 100 * (of["sides"][theirs]["right"] - of["sides"][ours]["right"]) for name, of in result["accuracy"].items()}
    worst = max(lost, key=lambda name: lost[name])
    result["bars"] = [
        {"bar": "times the library over whole documents", "value": ratio["mid"], "limit": f"at least {BARS['ratio']:g}",
         "met": ratio["mid"] >= BARS["ratio"]},
        {"bar": f"points of accuracy lost, most on: {worst}", "value": lost[worst], "limit": f"at most {BARS['points']:g}",
         "met": lost[worst] <= BARS["points"]},
    ]  # fmt: skip
    return result


def show(result: dict[str, Any]) -> None:
    of = result["speed"]
    rows = []
    for name, rates in of["rates"].items():
        spreads = [Spread.of(rates["documents"]).show(0), Spread.of(rates["mb"]).show()]
        rows.append([name, *spreads, f"{Spread(**of['ratio'][name]).show()}x"])
    title = (
        f"SPEED  {of['documents']:,} documents, {of['bytes'] / 1e6:,.1f} MB, model {result['model']}, load {result['load']:.1f}"
    )
    print(table(title, ["", "documents per CPU s", "MB per CPU s", "MB per CPU s, library = 1"], rows))
    names = list(next(iter(result["accuracy"].values()))["sides"])
    head = ["", "texts", *names]

    def cells(of: dict[str, Any], key: str, form: str) -> list[str]:
        values = [of["sides"][name][key] for name in names]
        return ["–" if v is None else format(v, form) for v in values]

    for title, key, form in (
        ("ACCURACY  of texts in a language that all detectors know", "right_of_common", ".2%"),
        ("ACCURACY  of texts in a language that the detector knows", "right_of_known", ".2%"),
        ("ACCURACY  of all texts", "right", ".2%"),
        ("UNDETERMINED  of texts in a language that it does not know", "und_of_unknown", ".2%"),
        ("TEXTS PER CPU SECOND", "texts_per_s", ",.0f"),
    ):
        print()
        print(table(title, head, [[n, f"{of['texts']:,}", *cells(of, key, form)] for n, of in result["accuracy"].items()]))
    scored = result["right_by_score"]
    shown = [
        [name, *("–" if share is None else f"{share:.2f} of {n}" for share, n in of.values())] for name, of in scored.items()
    ]
    print()
    print(
        table("SHARE RIGHT BY SCORE  of texts in a language that the detector knows", ["", *next(iter(scored.values()))], shown)
    )
    name = "declarations, 1000 characters"
    print(f"\nMOST OFTEN WRONG  {name}")
    for side, of in result["accuracy"][name]["sides"].items():
        print(f"{side}: " + ", ".join(f"{what} {n}" for what, n in of["wrong"]))
    print()
    for bar in result["bars"]:
        print(f"{'met   ' if bar['met'] else 'MISSED'}  {bar['bar']}: {bar['value']:.2f} (bar: {bar['limit']})")


if __name__ == "__main__":
    sys.exit(main())
