"""`line_dedup`, `host_boilerplate` and `paragraph_dedup` beside plain Python and datatrove's sentence deduplication.

    python benchmarks/line_dedup.py [--data FOLDER] [--mb 64] [--repeats 5] [--check]

Real texts: domains, quality and the pages' main texts, shuffled; two hundred neighbours make a host. Every side gets the
same documents in the same order, in one process, on one core, in turns; rates are per CPU second of the calls alone. Ours does
its whole fit with its files, and rewrites the texts; its batches have 1,024 rows, its shards 64 MB, as from the engine.
The peers are called without a pipeline around them:

- Python: two passes with a Counter over `" ".join(line.lower().split())`, the same counting and the same lines out.
- datatrove: SentenceDedupSignature, SentenceFindDedups and SentenceDedupFilter over lines (`split_sentences=False`,
  `n_sentences=1`), which take out lines that stood earlier, as `paragraph_dedup` does; no limits on what is left.

Then peak memory of a fresh process in which each stage alone goes over 1, 2 and 4 times the texts, a word of each line altered
for each time, with a limit of 64 MB for its buffers: what it has in common, imports and compiled kernels included.
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
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from _measure import Spread, run, table

BAR = 50  # MB per CPU second
STAGES = ("line_dedup", "host_boilerplate", "paragraph_dedup", "paragraph_dedup, blocks")
SHARD = 64e6


def some_texts(data: Path, mb: float) -> tuple[list[str], list[str]]:
    """(texts, URLs) of all kinds in a fixed mixed order, again from the first, altered, where there are too few."""
    import polars as pl

    texts: list[str] = []
    for name in ("domains", "quality"):
        texts += pl.read_parquet(data / name / f"{name}.parquet", columns=["text"])["text"].to_list()
    with gzip.open(data / "crawl" / "pages.jsonl.gz") as lines:
        texts += [text for line in lines if (text := json.loads(line)["main_text"])]
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    found: list[str] = []
    urls: list[str] = []
    size, turn = 0, 0
    while True:
        for i in order:
            found.append(texts[i] if not turn else "\n".join(f"{x} {turn}" if x else x for x in texts[i].split("\n")))
            urls.append(f"https://www.host-{turn}-{i // 200}.test/{i}")  # neighbours come from one source
            size += len(found[-1].encode())
            if size >= mb * 1e6:
                return found, urls
        turn += 1


def shards_of(texts: list[str], urls: list[str]) -> Iterator[list[Any]]:
    """Record batches, by shard."""
    import pyarrow as pa

    shard: list[Any] = []
    size, rows = 0, 0
    for at in range(0, len(texts), 1024):
        part = texts[at : at + 1024]
        columns = {
            "_row": pa.array(range(rows, rows + len(part)), pa.uint32()),
            "text": pa.array(part, pa.string()),
            "url": pa.array(urls[at : at + 1024]),
        }
        shard.append(pa.RecordBatch.from_pydict(columns))
        size, rows = size + columns["text"].nbytes, rows + len(part)
        if size >= SHARD:
            yield shard
            shard, size, rows = [], 0, 0
    if shard:
        yield shard


def stage_of(name: str) -> Any:
    from curate.stages import find

    if name.endswith(", blocks"):
        return find("paragraph_dedup")(unit="block")
    return find(name)()


def ours(stage: Any, shards: list[list[Any]], limit: int = 1 << 30) -> list[tuple[Any, Any]]:
    """(text, lines that went) of every batch."""
    from dataclasses import replace

    from curate.stage import Task

    documents = sum(batch.num_rows for shard in shards for batch in shard)
    with tempfile.TemporaryDirectory() as scratch:
        names = [f"{i:05d}.parquet" for i in range(len(shards))]
        task = Task(phase="", rank=0, memory_limit=limit, folders=[(stage, "it", Path(scratch))], shards=names)
        for step in stage.steps(len(shards), documents):
            for rank in range(len(shards) if step.reads is not None else step.tasks):
                if step.reads is None:
                    step.fn(replace(task, rank=rank))
                else:
                    step.fn(replace(task, rank=rank, shard=rank), iter(shards[rank]))
        found = []
        for rank, shard in enumerate(shards):
            function = stage.open(replace(task, rank=rank, shard=rank))
            for batch in shard:
                out = function(batch)
                found.append((out["text"], out[next(n for n in out.schema.names if n.endswith("_removed"))]))
        return found


def by_counter(texts: list[str], least: int, first: bool) -> list[str]:
    """What a page of Python does: lines by the number of documents, or what stood earlier."""
    counts: Counter[str] = Counter()
    found = []
    if not first:
        for text in texts:
            counts.update({" ".join(line.lower().split()) for line in text.split("\n")})
    seen: set[str] = set()
    for text in texts:
        kept = []
        for line in text.split("\n"):
            key = " ".join(line.lower().split())
            if not key or (key not in seen if first else counts[key] < least):
                kept.append(line)
            if first:
                seen.add(key)
        found.append("\n".join(kept))
    return found


def by_datatrove(texts: list[str]) -> int:
    """Its three steps; returns the number of documents left."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import SentDedupConfig, SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups

    config = SentDedupConfig(n_sentences=1, split_sentences=False, min_doc_words=0, min_num_sentences=0)

    def documents() -> Iterator[Document]:
        return (Document(text=text, id=str(i)) for i, text in enumerate(texts))

    with tempfile.TemporaryDirectory() as scratch:
        SentenceDedupSignature(f"{scratch}/a", config=config).run(documents())
        SentenceFindDedups(f"{scratch}/a", f"{scratch}/b", config=config).run()
        return sum(1 for _ in SentenceDedupFilter(f"{scratch}/b", config=config).run(documents()))


def timed(side: Callable[[], Any]) -> float:
    before = time.process_time()
    side()
    return time.process_time() - before


def speed(texts: list[str], urls: list[str], repeats: int) -> tuple[str, dict[str, list[float]]]:
    shards = list(shards_of(texts, urls))
    size = sum(len(t.encode()) for t in texts) / 1e6
    sides: dict[str, Callable[[], Any]] = {name: partial(ours, stage_of(name), shards) for name in STAGES}
    gone = {name: sum(n for _, lines in side() for n in lines.to_pylist()) for name, side in sides.items()}  # and compiles
    sides["Python, Counter"] = lambda: by_counter(texts, 7, first=False)
    sides["Python, set"] = lambda: by_counter(texts, 2, first=True)
    sides["datatrove, three steps"] = lambda: by_datatrove(texts)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in sides if turn % 2 == 0 else reversed(sides):
            if name != "datatrove, three steps" or turn < 3:
                seconds[name].append(timed(sides[name]))
    peers = {"line_dedup": "Python, Counter", "paragraph_dedup": "Python, set"}
    rows = []
    for name, taken in seconds.items():
        rate = [size / s for s in taken]

        def against(peer: str, rate: list[float] = rate) -> str:
            return Spread.ratio(rate, [size / s for s in seconds[peer]]).show() + "x"

        python = against(peers[name]) if name in peers else ""
        trove = against("datatrove, three steps") if name == "paragraph_dedup" else ""
        n = f"{gone[name]:,}" if name in gone else ""
        rows.append([name, Spread.of(rate).show(), str(len(rate)), n, python, trove])
    title = f"{len(texts):,} documents, {size:.0f} MB, {sum(t.count(chr(10)) + 1 for t in texts):,} lines, {len(shards)} shards"
    head = ["", "MB per CPU s", "n", "went", "over Python", "over datatrove"]
    return table(title, head, rows), {name: [size / s for s in taken] for name, taken in seconds.items()}


def memory(data: Path, mb: float) -> str:
    """Peaks of processes that read their shards batch by batch, each time anew."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for times in (1, 2, 4):  # by processes of their own, which are not measured
            folder = Path(scratch, f"{mb * times:.0f}")
            folder.mkdir()
            command = [sys.executable, __file__, "--data", str(data), "--mb", str(mb * times), "--write", str(folder)]
            subprocess.run(command, check=True)
        for name in STAGES:
            peaks = []
            for times in (0, 1, 2, 4):
                command = [sys.executable, __file__, "--data", data, "--mb", mb * times, "--alone", name, "--scratch", scratch]
                seen = run([str(c) for c in command], log=Path(scratch, "log"))
                if seen.code:
                    raise SystemExit(seen.stderr)
                peaks.append(f"{seen.peak / 1e6:.0f}")
            rows.append([name, *peaks])
    return table("peak memory in MB, limit of buffers 64 MB", ["", "no texts", *(f"{mb * t:.0f} MB" for t in (1, 2, 4))], rows)


class _Stored:
    """The batches of one shard, read anew each time."""

    def __init__(self, path: Path):
        self._path = path

    def __iter__(self) -> Iterator[Any]:
        import pyarrow as pa

        with pa.OSFile(str(self._path)) as file:
            yield from pa.ipc.open_stream(file)


def alone(data: Path, mb: float, name: str, scratch: Path) -> None:
    """One stage over shards on disk: the memory that counts is the stage's."""
    folder = scratch / f"{mb:.0f}"
    shards: list[Any] = [_Stored(path) for path in sorted(folder.glob("*.arrow"))]
    if not shards:
        shards = list(shards_of(["A line."], ["https://a.test/"]))
    stage = stage_of(name)
    from dataclasses import replace

    from curate.stage import Task

    with tempfile.TemporaryDirectory() as state:
        names = [f"{i:05d}.parquet" for i in range(len(shards))]
        task = Task(phase="", rank=0, memory_limit=64 << 20, folders=[(stage, "it", Path(state))], shards=names)
        for step in stage.steps(len(shards), int(mb * 300)):
            for rank in range(len(shards) if step.reads is not None else step.tasks):
                here = replace(task, rank=rank, shard=rank if step.reads is not None else None)
                step.fn(here, iter(shards[rank])) if step.reads is not None else step.fn(here)
        for rank, shard in enumerate(shards):
            function = stage.open(replace(task, rank=rank, shard=rank))
            for batch in shard:
                function(batch)


def write(data: Path, mb: float, folder: Path) -> None:
    import pyarrow as pa

    for i, shard in enumerate(shards_of(*some_texts(data, mb))):
        with pa.OSFile(str(folder / f"{i:05d}.arrow"), "wb") as file, pa.ipc.new_stream(file, shard[0].schema) as stream:
            for batch in shard:
                stream.write_batch(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("CURATE_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("speed", "memory"))
    parser.add_argument("--check", action="store_true", help=f"exit 1 where a stage does less than {BAR} MB per CPU second")
    parser.add_argument("--alone", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write(args.data, args.mb, args.write)
        return
    if args.alone:
        alone(args.data, args.mb, args.alone, args.scratch)
        return
    if args.only != "speed":  # first, while this process is small: the peak of a child begins with it
        print(memory(args.data, args.mb), end="\n\n")
    slow = []
    if args.only != "memory":
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        said, rates = speed(*some_texts(args.data, args.mb), args.repeats)
        print(said)
        slow = [name for name in STAGES if Spread.of(rates[name]).mid < BAR]
    if args.check and slow:
        raise SystemExit(f"below {BAR} MB per CPU second: {', '.join(slow)}")


if __name__ == "__main__":
    main()
