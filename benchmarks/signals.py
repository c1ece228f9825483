"""Every signal of `signals`, beside datatrove's filters and dolma's taggers.

    python benchmarks/signals.py [--data FOLDER] [--documents 1500] [--repeats 3] [--dolma PYTHON] [--check] [--json]

The same documents, in memory, in one run, one core each, sides in turn: CPU seconds of the calls alone, so start-up, imports
and compiling count for nobody. English documents of the shared data are drawn by a fixed seed from domains, quality and the
gold texts of the crawl, and told to be English; both sides are given that. Ours runs as the engine runs it, in batches of 1,024
rows with every family of signals written to Arrow columns, decisions not needed. datatrove runs its four filters as FineWeb
chains them, which leaves a document at the first filter that drops it, and once more without that exit. dolma runs its taggers
gopher_v1, c4_v2 and repetitions_v1 on the first 300 documents, after the others, and its ratio is to ours on these 300. It
comes from a Python of its own, as its dependencies do not fit ours (NumPy 1), and not all that it requires is needed here:

    python -m venv dolma
    dolma/bin/pip install --no-deps dolma==1.2.1 fasttext-wheel==0.9.2
    dolma/bin/pip install 'numpy<2' 'tokenizers<0.20' nltk blingfire necessary msgspec anyascii smart-open uniseg zstandard \\
        charset-normalizer platformdirs rich omegaconf
    python benchmarks/signals.py --dolma dolma/bin/python        # or CURATE_DOLMA_PYTHON

Bars: 300 times the documents a second of datatrove's chain, and 50 MB/s. --check exits with 1 below them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"})

from _measure import Spread, table

DOLMA_DOCUMENTS = 300


def texts(data: Path, n: int) -> list[str]:
    """n English documents, drawn from all sets alike."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: list[str] = []
    for name in ("domains/domains.parquet", "quality/quality.parquet"):
        rows = pq.read_table(data / name, columns=["text", "lang"])
        found += rows.filter(pc.equal(rows["lang"], "en"))["text"].to_pylist()
    with gzip.open(data / "crawl" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        pages = [json.loads(line) for line in lines]
    found += [page["main_text"] for page in pages if page["main_text"] and str(page["html_lang"]).startswith("en")]
    found = sorted(set(filter(None, found)))
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:n]]


def ours(documents: list[str]) -> Callable[[], None]:
    import pyarrow as pa

    from curate.stage import ROW, Task
    from curate.stages.signals import Signals

    run = Signals(language="column").open(Task(phase="", rank=0))
    whole = pa.table(
        {ROW: pa.array(range(len(documents)), pa.uint32()), "text": documents, "language": ["en"] * len(documents)}
    )
    batches = whole.to_batches(max_chunksize=1024)

    def call() -> None:
        for batch in batches:
            run(batch)

    return call


def chain(documents: list[str], early_exit: bool) -> Callable[[], None]:
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]

    def call() -> None:
        for text in documents:
            document = Document(text=text, id="")
            for one in filters:
                try:
                    kept = one.filter(document)
                except ZeroDivisionError:  # no words: a run with the filter drops the document as failed
                    kept = False
                if early_exit and kept is not True:
                    break

    return call


DOLMA = """
import json, sys, time
from dolma import TaggerRegistry
from dolma.core.data_types import Document
with open(sys.argv[1]) as file:
    documents = [Document(source="", id="", text=text) for text in json.load(file)]
taggers = [TaggerRegistry.get(name)() for name in ("gopher_v1", "c4_v2", "repetitions_v1")]
for tagger in taggers:
    tagger.predict(documents[0])
spent = []
for _ in range(int(sys.argv[2])):
    started = time.process_time()
    for document in documents:
        for tagger in taggers:
            tagger.predict(document)
    spent.append(time.process_time() - started)
print()
print(json.dumps(spent))
"""


def dolma(python: str, documents: list[str], repeats: int) -> list[float]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(documents, file)
        file.flush()
        command = [python, "-c", DOLMA, file.name, str(repeats)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"dolma failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])  # not the first line: dolma looks for a model of NLTK's as it is imported


def timed(call: Callable[[], None], least: float = 1.0) -> float:
    """CPU seconds of one call, over as many as take `least` seconds."""
    n, started = 0, time.process_time()
    while True:
        call()
        n += 1
        spent = time.process_time() - started
        if spent >= least:
            return spent / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CURATE_DATA", "../shared/data")))
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--dolma", metavar="PYTHON", help="a Python that has dolma", default=os.environ.get("CURATE_DOLMA_PYTHON")
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    documents = texts(args.data, args.documents)
    size = sum(len(text.encode()) for text in documents)
    sides = {
        "curate: all signals": ours(documents),
        "datatrove: chain of four filters": chain(documents, early_exit=True),
        "datatrove: all four on every document": chain(documents, early_exit=False),
    }
    for name in sides:
        (ours(documents[:20]) if name.startswith("curate") else chain(documents[:20], early_exit=False))()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.repeats):
        for name, call in sides.items():
            seconds[name].append(timed(call))
    rates = {name: [len(documents) / s for s in spent] for name, spent in seconds.items()}
    volumes = {name: [size / s / 1e6 for s in spent] for name, spent in seconds.items()}
    first = next(iter(rates))
    ratios = {name: Spread.ratio(rates[first], rate) for name, rate in rates.items() if name != first}
    if args.dolma:
        part = documents[:DOLMA_DOCUMENTS]
        part_size = sum(len(text.encode()) for text in part)
        spent = dolma(args.dolma, part, args.repeats)
        name = "dolma: gopher, c4, repetitions"
        rates[name] = [len(part) / s for s in spent]
        volumes[name] = [part_size / s / 1e6 for s in spent]
        same = ours(part)  # documents a second depend on how long they are
        ratios[name] = Spread.ratio([len(part) / timed(same) for _ in range(args.repeats)], rates[name])
    rows = [
        [name, Spread.of(rate).show(0), Spread.of(volumes[name]).show(2), ratios[name].show(0) + "x" if name in ratios else ""]
        for name, rate in rates.items()
    ]
    title = f"{len(documents):,} English documents, {size / 1e6:.1f} MB, one core each, {args.repeats} repeats"
    out = table(title, ["", "documents/s", "MB/s", "ours is"], rows)
    passed = ratios["datatrove: chain of four filters"].mid >= 300 and Spread.of(volumes[first]).mid >= 50
    if args.json:
        result = {
            "documents": len(documents),
            "bytes": size,
            "documents_per_second": rates,
            "mb_per_second": volumes,
            "ratios": {name: [r.low, r.mid, r.high] for name, r in ratios.items()},
            "passed": passed,
        }
        print(json.dumps(result, indent=1))
        print(out, file=sys.stderr)
    else:
        print(out)
    if args.check and not passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
