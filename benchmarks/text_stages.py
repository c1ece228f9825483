"""Our `url_filter`, `pii` and `normalise` beside datatrove's URLFilter, PIIFormatter and FTFYFormatter.

    python benchmarks/text_stages.py [--data FOLDER] [--mb 16] [--urls 100000] [--repeats 5]

Both sides see the same texts and URLs, one after the other, in turns, on one core; rates are per CPU second. datatrove's
steps are called document by document without a pipeline around them, which is in their favour; ours get record batches of
1,024 rows. The lists of URLFilter are datatrove's own on both sides; loading them is measured in processes of their own.

Needs datatrove's extras for these steps: pip install 'curate-corpus[bench,extract]' pyahocorasick fasteners
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _measure import Spread, run, table

LOAD = {
    "datatrove": "from datatrove.pipeline.filters import URLFilter; f = URLFilter(); f.download_data()",
    "curate": "from curate.stage import Task; from curate.stages.url_filter import UrlFilter; "
    "UrlFilter(lists=('datatrove',)).open(Task(phase='x', rank=0))",
}


def loading(repeats: int) -> None:
    """Seconds and peak memory from nothing to lists that can be asked, imports included. datatrove unpacks once, uncounted."""
    with tempfile.TemporaryDirectory() as scratch:
        env = {"HF_ASSETS_CACHE": scratch}
        for code in LOAD.values():
            run([sys.executable, "-c", code], env=env, log=Path(scratch, "log"))
        rows, cpu = [], {}
        for name, code in LOAD.items():
            seen = [run([sys.executable, "-c", code], env=env, log=Path(scratch, "log")) for _ in range(repeats)]
            assert not any(s.code for s in seen), seen[-1].stderr
            cpu[name] = [s.cpu for s in seen]
            rows.append([name, Spread.of(cpu[name]).show(), Spread.of([s.peak / 1e6 for s in seen]).show(0)])
    print(table("lists of datatrove: 4.6 million domains, 19,586 URLs, 437 words", ["", "CPU s", "peak MB"], rows))
    print()


def measured(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each side, in turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            before = time.process_time()
            side()
            found[name].append(time.process_time() - before)
    return found


def show(title: str, peer: str, seconds: dict[str, list[float]], amounts: dict[str, float]) -> None:
    rows = []
    for name, taken in seconds.items():
        rates = [
            Spread.of([amount / s for s in taken]).show(0 if amount / taken[0] > 100 else 1) for amount in amounts.values()
        ]
        ratio = Spread.ratio([1 / s for s in taken], [1 / s for s in seconds[peer]])
        rows.append([name, *rates, "1" if name == peer else f"{ratio.show(0 if ratio.mid > 20 else 1)}x"])
    print(table(title, ["", *(f"{unit} per CPU s" for unit in amounts), "ratio"], rows))
    print()


def batches(column: str, values: Sequence[str]) -> list[Any]:
    import pyarrow as pa

    found = []
    for at in range(0, len(values), 1024):
        part = pa.array(values[at : at + 1024], pa.string())
        found.append(pa.RecordBatch.from_pydict({"_row": pa.array(range(len(part)), pa.uint32()), column: part}))
    return found


def over(function: Callable[[Any], Any], given: Sequence[Any]) -> Callable[[], list[Any]]:
    return lambda: [function(one) for one in given]


def opened(stage: Any) -> Callable[[Any], Any]:
    from curate.stage import Task

    return stage.open(Task(phase="benchmark", rank=0))


# --------------------------------------------------------------------------------------------- URLs


def real_urls(data: Path) -> list[str]:
    with gzip.open(data / "crawl" / "pages.jsonl.gz") as lines:
        return [json.loads(line)["url"] for line in lines]


def some_urls(data: Path, n: int) -> list[str]:
    """A fifth on listed domains (one in ten with `www.` before it), a fifth with listed words, the rest of the crawl."""
    import tarfile

    from curate.stages.url_filter import _datatrove

    rng, real, listed = random.Random(0), real_urls(data), []
    files = _datatrove()
    with tarfile.open(files["tar"], "r:gz") as tar:
        for i, line in enumerate(tar.extractfile("domains")):  # type: ignore[arg-type]
            if i % (4_500_000 // max(n // 5, 1)) == 0:
                listed.append(line.decode().strip())
    words = [w for kind in ("words", "soft_words", "subwords") for w in files[kind].read_text().split("\n") if w]
    found = list(real)
    while len(found) < n:
        url, kind = rng.choice(real), len(found) % 5
        if kind == 0 and listed:
            found.append(f"http://{'www.' if rng.random() < 0.1 else ''}{listed.pop()}/{rng.randrange(1000)}.html")
        elif kind == 1:
            found.append(f"{url}/{rng.choice(words)}-{rng.choice(words)}".replace(" ", "-"))
        else:
            found.append(f"{url}?page={rng.randrange(1000)}")
    return found[:n]


def urls(data: Path, n: int, repeats: int) -> None:
    import tldextract
    from datatrove.data import Document
    from datatrove.pipeline.filters import URLFilter

    from curate.stages.url_filter import UrlFilter

    given = some_urls(data, n)
    theirs = URLFilter()
    theirs.tldextractor = tldextract.TLDExtract(suffix_list_urls=())  # the list in the package, without a download
    theirs.download_data()
    documents = [Document(text="x", id=str(i), metadata={"url": url}) for i, url in enumerate(given)]
    ours, parts = opened(UrlFilter(lists=("datatrove",))), batches("url", given)
    ours(parts[0])
    seconds = measured({"datatrove": over(theirs.filter, documents), "curate": over(ours, parts)}, repeats)
    show(f"url_filter, {n:,} URLs, the lists of datatrove", "datatrove", seconds, {"URLs": n})
    names = {"domain": "domain", "subdomain": "domain", "hard_blacklisted": "word", "soft_blacklisted": "soft_words",
             "blacklisted_subword": "subword"}  # fmt: skip
    a = [None if said is True else names.get(said[1], said[1]) for said in map(theirs.filter, documents)]
    b = [r and r.removeprefix("url_filter.") for part in parts for r in ours(part)["_reason"].to_pylist()]
    same = [bool(x) == bool(y) for x, y in zip(a, b, strict=True)]
    real = real_urls(data)
    print(
        f"same decision: {sum(same) / n:.3%} of all, {sum(same[: len(real)]) / len(real):.3%} of the {len(real):,} of the crawl"
    )
    for pair, count in Counter((x, y) for x, y in zip(a, b, strict=True) if x != y).most_common():
        met = [url for url, x, y in zip(given, a, b, strict=True) if (x, y) == pair]
        parents = sum(any(p in theirs.block_listed_domains for p in above(url)) for url in met)
        print(
            f"  theirs {pair[0]}, ours {pair[1]}: {count:,}, of which {parents:,} have a listed parent above; such as {met[0]}"
        )
    print()


def above(url: str) -> list[str]:
    """Names above the host of a URL."""
    labels = url.split("/")[2].split(".")
    return [".".join(labels[i:]) for i in range(1, len(labels))]


# --------------------------------------------------------------------------------------------- texts


def some_texts(data: Path, mb: float) -> list[str]:
    """Documents of every domain, in a fixed mixed order."""
    import polars as pl

    texts = pl.read_parquet(data / "domains" / "domains.parquet", columns=["text"])["text"].to_list()
    random.Random(0).shuffle(texts)
    found, size = [], 0
    for text in texts:
        found.append(text)
        size += len(text.encode())
        if size >= mb * 1e6:
            break
    return found


def pii(texts: list[str], repeats: int) -> None:
    from datatrove.pipeline.formatters import PIIFormatter

    from curate.stages.pii import Pii

    theirs = PIIFormatter()
    same, everything, parts = opened(Pii(kinds=("email", "ip"))), opened(Pii()), batches("text", texts)
    same(parts[0])
    everything(parts[0])
    sides: dict[str, Callable[[], Any]] = {
        "datatrove (e-mail, IP)": over(theirs.format, texts),
        "curate, e-mail and IP": over(same, parts),
    }
    seconds = measured({**sides, "curate, all six kinds": over(everything, parts)}, repeats)
    size = sum(len(t.encode()) for t in texts) / 1e6
    show(f"pii, {len(texts):,} texts, {size:.0f} MB", "datatrove (e-mail, IP)", seconds, {"MB": size, "texts": len(texts)})
    out = [everything(part) for part in parts]
    counts = {name: sum(sum(o[name].to_pylist()) for o in out) for name in out[0].schema.names if name.startswith("pii_")}
    print("found:", counts)
    changed = sum(theirs.format(t) != t for t in texts)
    ours = sum(a != t for o, at in zip((same(p) for p in parts), range(0, len(texts), 1024), strict=True)
               for a, t in zip(o["text"].to_pylist(), texts[at : at + 1024], strict=True))  # fmt: skip
    print(f"texts changed for e-mail and IP: datatrove {changed:,}, curate {ours:,}\n")


def normalise(texts: list[str], repeats: int) -> None:
    from datatrove.pipeline.formatters import FTFYFormatter

    from curate.stages.normalise import Normalise

    switches = dict.fromkeys(("control", "zero_width", "line_endings", "spaces", "runs", "trailing"), False)
    theirs = FTFYFormatter()
    fix, everything, parts = (
        opened(Normalise(**switches, form="none", max_blank_lines=None)),
        opened(Normalise()),
        batches("text", texts),
    )  # type: ignore[arg-type]
    fix(parts[0])
    everything(parts[0])
    sides: dict[str, Callable[[], Any]] = {
        "datatrove (ftfy)": over(theirs.format, texts),
        "curate, ftfy's repairs": over(fix, parts),
    }
    seconds = measured({**sides, "curate, all rules": over(everything, parts)}, repeats)
    size = sum(len(t.encode()) for t in texts) / 1e6
    show(f"normalise, {len(texts):,} texts, {size:.0f} MB", "datatrove (ftfy)", seconds, {"MB": size, "texts": len(texts)})
    alike = FTFYFormatter(unescape_html=False, remove_control_chars=False)
    said = [t for part in parts for t in fix(part)["text"].to_pylist()]
    differ = sum(a != alike.format(t) for a, t in zip(said, texts, strict=True))
    changed = sum(a != t for a, t in zip(said, texts, strict=True))
    print(f"repairs: {changed:,} texts changed; {differ} differ from ftfy over every text with the same configuration\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("CURATE_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--mb", type=float, default=16)
    parser.add_argument("--urls", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("lists", "urls", "pii", "normalise"))
    args = parser.parse_args()
    if args.only in (None, "lists"):
        loading(args.repeats)
    if args.only in (None, "urls"):
        urls(args.data, args.urls, args.repeats)
    if args.only in (None, "pii", "normalise"):
        texts = some_texts(args.data, args.mb)
        if args.only != "normalise":
            pii(texts, args.repeats)
        if args.only != "pii":
            normalise(texts, args.repeats)


if __name__ == "__main__":
    main()
