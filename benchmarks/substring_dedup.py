"""Our `substring_dedup` beside suffix arrays, which is what others find repeated spans with.

    python benchmarks/substring_dedup.py [--data FOLDER] [--mb 16 64] [--grow 64 256 1024] [--repeats 3]
                                         [--peer-python peers/bin/python]

Every side is a process of its own on one core. Rates are per CPU second of the work, without start-up, imports and compiling;
peak memory is that of the process. The text is that of domains; beyond its 64 MB it is taken again with the letters a-z and
A-Z moved on in the alphabet, so that each round holds the same repeats within itself and shares next to none with the others.

- curate: Parquet shards of 64 MB in batches of 1,024 rows, all six steps of the fit and the cut, in scratch files on disk.
- suffix array, tokens: the array of the numbers of our tokens (libdivsufsort), LCP (Kasai), and from them the same ranges,
  which are compared with ours token by token. Reading, tokens and the cut are not counted, in its favour.
- suffix array, bytes: of the UTF-8 itself, with repeats of 250 bytes or more, as Lee et al. do it with spans of their tokens'
  bytes. Finds other spans; only the rate is of interest.

The peers need numpy and pydivsufsort, in this environment or another (--peer-python or CURATE_PEER_PYTHON). A suffix array
lies in memory with its text; the tool of Lee et al. and those around it (text-dedup, datatrove) build theirs with a Rust
program that is not on the package index.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import Measured, Spread, run, table

MIN_TOKENS, MIN_BYTES, SHARD = 50, 250, 64e6


# --------------------------------------------------------------------------------------------- the children


def prepare(data: Path, folder: Path, mb: float, peers: bool) -> None:
    """Shards of `mb` megabytes of text; for the peers also all of it as token numbers and as bytes, a mark after each text."""
    import random

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pq.read_table(data / "domains" / "domains.parquet", columns=["text"])["text"].to_pylist()
    random.Random(0).shuffle(texts)
    shards: list[list[str]] = [[]]
    size = left = 0.0
    while left < mb * 1e6:
        by = sum(map(len, shards)) // len(texts)
        lower, upper = string.ascii_lowercase, string.ascii_uppercase
        moved = str.maketrans(lower + upper, lower[by:] + lower[:by] + upper[by:] + upper[:by])
        text = texts[sum(map(len, shards)) % len(texts)].translate(moved)
        if size > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(text)
        size += len(text.encode())
        left += len(text.encode())
    for i, shard in enumerate(shards):
        rows = pa.array(range(len(shard)), pa.uint32())
        pq.write_table(pa.table({"_row": rows, "text": shard}), folder / f"{i:05d}.parquet", row_group_size=1024)
    print(json.dumps({"mb": left / 1e6, "texts": sum(map(len, shards)), "shards": len(shards)}))
    if not peers:
        return
    from curate.kernels import substrings as kernels

    said = [kernels.tokens(np.frombuffer(t.encode(), np.uint8), kernels.kinds())[0] for shard in shards for t in shard]
    _, numbers = np.unique(np.concatenate(said), return_inverse=True)
    ends = np.cumsum([len(s) for s in said])
    marked = np.insert(numbers.astype(np.uint32), ends, numbers.max() + 1 + np.arange(len(said), dtype=np.uint32))
    np.save(folder / "tokens.npy", marked.astype(np.uint32))
    marks = (b"\xff\xff" + i.to_bytes(4, "big") for i in range(len(said)))
    raw = b"".join(t.encode() + mark for t, mark in zip((t for s in shards for t in s), marks, strict=True))
    np.save(folder / "bytes.npy", np.frombuffer(raw, np.uint8))


def ours(folder: Path, limit: int) -> None:
    from dataclasses import replace

    import numpy as np
    import pyarrow.parquet as pq

    from curate.stage import Task
    from curate.stages.substring_dedup import SubstringDedup

    def batches(path: Path) -> Any:
        yield from pq.ParquetFile(path).iter_batches(1024, use_threads=False)

    stage = SubstringDedup(min_tokens=MIN_TOKENS)
    words = " ".join(map(str, range(200)))
    stage([words, f"x {words}", f"{words} y", words[100:400], "x"])  # compiles, or loads what was compiled
    shards = sorted(folder.glob("*.parquet"))
    scratch = folder / "scratch"
    task = Task(phase="b", rank=0, memory_limit=limit, folders=[(stage, "s", scratch)], shards=[p.name for p in shards])
    documents = sum(pq.read_metadata(p).num_rows for p in shards)
    seconds: dict[str, float] = {}
    peaks = {"start": _peak()}
    started = time.process_time()
    for step in stage.steps(len(shards), documents):
        before = time.process_time()
        for rank in range(len(shards) if step.reads else step.tasks):
            here = replace(task, rank=rank, shard=rank if step.reads else None)
            step.fn(here, batches(shards[rank])) if step.reads else step.fn(here)
        seconds[step.name], peaks[step.name] = time.process_time() - before, _peak()
    removed, before = 0, time.process_time()
    for shard, path in enumerate(shards):
        here = replace(task, rank=shard, shard=shard, counters={})
        function = stage.open(here)
        for batch in batches(path):
            function(batch)
        removed += here.counters.get("bytes in repeated spans", 0)
    seconds["cut"], peaks["cut"] = time.process_time() - before, _peak()
    cpu = time.process_time() - started
    size = sum(p.stat().st_size for kind in ("groups", "windows") for p in (scratch / "summarize" / kind).iterdir())
    print(json.dumps({"cpu": cpu, "removed": removed, "steps": seconds, "peaks": peaks, "scratch": size}))
    if (folder / "tokens.npy").exists():
        marks = np.flatnonzero(_marks(np.load(folder / "tokens.npy"), documents))
        first = np.append(0, marks[:-1] + 1)  # token at which each document begins
        gone, done = np.zeros(marks[-1] + 1, bool), 0
        for shard, path in enumerate(shards):
            state = replace(task, shard=shard).state(stage)
            for row, begin, end in zip(*(state[c].to_pylist() for c in state.column_names), strict=True):
                gone[first[done + row] + begin : first[done + row] + end] = True
            done += pq.read_metadata(path).num_rows
        np.save(folder / "ours.npy", gone)


def _peak() -> float:
    """Largest memory of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _marks(numbers: Any, documents: int) -> Any:
    return numbers > numbers.max() - documents


def theirs(folder: Path, kind: str) -> None:
    import numpy as np
    from pydivsufsort import divsufsort, kasai

    least = MIN_TOKENS if kind == "tokens" else MIN_BYTES
    given = np.load(folder / f"{kind}.npy")
    started = time.process_time()
    places = divsufsort(given)
    same = np.asarray(kasai(given, places))[:-1] >= least  # with the one that follows
    starts = np.flatnonzero(np.append(True, ~same))
    firsts = np.minimum.reduceat(places, starts)
    repeats = np.ones(len(places), bool)
    repeats[firsts] = False  # in the order of the text
    change = np.zeros(len(places) + least + 1, np.int32)
    np.add.at(change, np.flatnonzero(repeats), 1)
    np.add.at(change, np.flatnonzero(repeats) + least, -1)
    gone = np.cumsum(change)[: len(given)] > 0
    cpu = time.process_time() - started
    alike = None
    if kind == "tokens":
        alike = int((gone != np.load(folder / "ours.npy")).sum())
    print(json.dumps({"cpu": cpu, "removed": int(gone.sum()), "differ": alike}))


# --------------------------------------------------------------------------------------------- the comparison


def child(python: str, *arguments: Any, folder: Path) -> tuple[dict[str, Any], Measured]:
    command = [python, __file__, "--child", *map(str, arguments), "--folder", str(folder)]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "NUMBA")}
    seen = run(command, env={**threads, "ARROW_IO_THREADS": "1"}, log=folder / "log")
    if seen.code:
        raise SystemExit(seen.stderr)
    return json.loads(seen.stdout), seen


def compare(args: argparse.Namespace, mb: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        facts, _ = child(sys.executable, "prepare", "--peers", "--mb", mb, "--data", args.data, folder=folder)
        sides = {
            "suffix array, tokens": (args.peer_python, "tokens"),
            "suffix array, bytes": (args.peer_python, "bytes"),
            "curate": (sys.executable, "ours", "--limit", args.limit),
        }
        cpu: dict[str, list[float]] = {name: [] for name in sides}
        peaks: dict[str, list[float]] = {name: [] for name in sides}
        said: dict[str, dict[str, Any]] = {}
        child(*sides["curate"], folder=folder)  # compiles, and says which tokens go
        for _ in range(args.repeats):
            for name, side in sides.items():
                said[name], seen = child(*side, folder=folder)
                cpu[name].append(said[name]["cpu"])
                peaks[name].append(seen.peak / 1e6)
        rows = []
        for name in sides:
            rates = [facts["mb"] / s for s in cpu[name]]
            ratio = Spread.ratio(rates, [facts["mb"] / s for s in cpu["suffix array, tokens"]])
            rows.append([name, Spread.of(rates).show(), f"{ratio.show()}x", Spread.of(peaks[name]).show(0)])
        title = f"{facts['mb']:.0f} MB, {facts['texts']:,} texts, spans of {MIN_TOKENS} tokens, {args.repeats} repeats"
        print(table(title, ["", "MB per CPU s", "ratio", "peak MB"], rows))
        tokens = said["suffix array, tokens"]
        print(f"tokens that go: {tokens['removed']:,}; decided otherwise by the two: {tokens['differ']:,}")
        print(f"bytes that go: {said['curate']['removed'] / facts['mb'] / 1e6:.2%}\n", flush=True)


def grow(args: argparse.Namespace) -> None:
    rows, steps, peaks = [], [], []
    for mb in args.grow:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            facts, _ = child(sys.executable, "prepare", "--mb", mb, "--data", args.data, folder=folder)
            done, seen = child(sys.executable, "ours", "--limit", args.limit, folder=folder)
            share, size = done["removed"] / facts["mb"] / 1e6, done["scratch"] / facts["mb"] / 1e6
            rate = f"{facts['mb'] / done['cpu']:.1f}"
            rows.append([f"{facts['mb']:,.0f} MB", rate, f"{seen.peak / 1e6:,.0f}", f"{size:.2f}", f"{share:.2%}"])
            steps.append([f"{facts['mb']:,.0f} MB", *(f"{s / facts['mb'] * 1e3:.1f}" for s in done["steps"].values())])
            peaks.append([f"{facts['mb']:,.0f} MB", *(f"{p / 1e6:,.0f}" for p in done["peaks"].values())])
            names = list(done["steps"])
    head = ["", "MB per CPU s", "peak MB", "scratch bytes a byte", "bytes that go"]
    print(table(f"growth, memory limit {args.limit / 1e6:.0f} MB", head, rows))
    print(table("CPU ms per MB, by step", ["", *names], steps))
    print(table("peak MB so far, by step", ["", "start", *names], peaks), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("CURATE_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--mb", type=float, nargs="*", default=[16, 64])
    parser.add_argument("--grow", type=float, nargs="*", default=[64, 256, 1024])
    parser.add_argument("--limit", type=int, default=256 << 20, help="bytes of memory that the buffers of a task may take")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", default=os.environ.get("CURATE_PEER_PYTHON", sys.executable))
    parser.add_argument("--child", choices=("prepare", "ours", "tokens", "bytes"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peers", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "prepare":
        prepare(args.data, args.folder, args.mb[0], args.peers)
    elif args.child == "ours":
        ours(args.folder, args.limit)
    elif args.child:
        theirs(args.folder, args.child)
    else:
        for mb in args.mb:
            compare(args, mb)
        grow(args)


if __name__ == "__main__":
    main()
