"""How `minhash` grows: time and memory over 0.1, 0.3, 1 and 3 million documents, and what that makes of a billion.

    python benchmarks/growth.py [--documents 100000,300000,1000000,3000000] [--memory-limit 512] [--verify 0.7] [--check]

Documents are synthetic: words by Zipf's law out of 100,000, a hundred to a document on average (about 650 bytes), a fifth of
them near-duplicates of one of 8,000 earlier ones, so that the share of duplicates is the same at every size. They are short
on purpose: what follows the number of documents (keys, buckets, components) weighs the most, and what follows their bytes
(shingling, 200 MB/s or so) the least; `minhash.py` has documents of 4 kB.

Each size is one run of `curate run` until `minhash`, in a process of its own on one core, with --memory-limit (MiB) for the
buffers of a task. Seconds are CPU seconds by phase; memory is the peak of the whole process in each phase (the high-water
mark is set back in between, but cannot fall below what is still allocated), the libraries and compiled kernels included: `at
start` says what they take before the first document. Scratch is what a phase leaves on disk for the next.

Bars: CPU seconds a document of the phases of minhash at most 25% more at any size than at any other; the peak of every phase
of minhash below the limit. --check exits with 1 where one is missed. The last table is arithmetic: figures of the largest
size times a billion over its documents, on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from minhash import HERE, call

MB = 1 << 20
BILLION = 1_000_000_000
LIMITS = {
    "keys": "computing: a task per shard, so as many cores as there are shards",
    "candidates": "sorting a range of keys: a task per range; a range above the limit is read in several passes",
    "components": "one task; out of core above the limit, then the disk",
    "gather": "reading the candidates' texts again: a task per shard; disk for their shingles",
    "verify": "comparing shingle sets: a task per partition, a component at a time",
    "resolve": "next to nothing: a task per 256 shards",
    "decide": "next to nothing: a task per shard",
}
"""Where each phase has its limit, by the last part of its name (the pass that drops rows has the name of the stage alone)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", default="100000,300000,1000000,3000000")
    parser.add_argument("--memory-limit", type=int, default=512, help="MiB")
    parser.add_argument("--verify", default="0.7")
    parser.add_argument("--work", type=Path, help="where corpora are made, and kept")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
        work = args.work or Path(scratch)
        runs = [measure(int(n), args, work, Path(scratch)) for n in args.documents.split(",")]
    text, bars = report(runs, args)
    print(text, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps({"runs": runs, "bars": bars}, indent=1))
    if args.check and not all(bar["met"] for bar in bars):
        sys.exit(1)


def measure(n: int, args: argparse.Namespace, work: Path, scratch: Path) -> dict[str, Any]:
    """One size: the corpus, unless it is there, and the run over it."""
    folder = work / f"zipfian-{n}"
    said = work / f"zipfian-{n}.json"
    if not said.exists():
        print(f"{n:,} documents: making them", file=sys.stderr, flush=True)
        said.write_text(json.dumps(call([sys.executable, HERE / "_corpora.py", "zipfian", folder, "--documents", str(n)])))
    print(f"{n:,} documents: running", file=sys.stderr, flush=True)
    limit = str(args.memory_limit * MB)
    options = ["--verify", args.verify, "--memory-limit", limit, "--scratch", scratch]
    found = call([sys.executable, HERE / "_sides.py", "ours-run", folder, *options])
    for phase in found["phases"]:
        phase["step"] = phase["name"].partition(".")[2] or ("decide" if phase["minhash"] else phase["name"])
    if not args.work:
        for path in folder.iterdir():
            path.unlink()
    return {**json.loads(said.read_text()), **found}


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def report(runs: list[dict[str, Any]], args: argparse.Namespace) -> tuple[str, list[dict[str, Any]]]:
    steps = [p["step"] for p in runs[-1]["phases"] if p["minhash"]]

    def of(run: dict[str, Any], step: str) -> dict[str, Any]:
        return next(p for p in run["phases"] if p["step"] == step)

    each = []
    rows = []
    for run in runs:
        n, own = run["documents"], [p for p in run["phases"] if p["minhash"]]
        each.append(run["seconds"]["fit and filter"] / n)
        rows.append(
            [
                f"{n:,}",
                f"{run['text_bytes'] / 1e6:,.0f}",
                f"{run['removed'] / n:.1%}",
                f"{run['seconds']['whole']:.1f}",
                f"{run['seconds']['fit and filter']:.2f}",
                f"{each[-1] * 1e6:.1f}",
                f"{run['start'] / MB:.0f}",
                f"{max(p['peak'] for p in own) / MB:.0f}",
                f"{run['peak'] / MB:.0f}",
                f"{sum(p['scratch'] for p in own) / n:.0f}",
            ]
        )
    head = ["documents", "text MB", "removed", "whole run, CPU s", "minhash, CPU s", "µs a document", "MB at start"]
    head += ["peak MB of minhash", "of the whole run", "scratch bytes a document"]
    text = [f"Memory limit {args.memory_limit} MiB, verify {args.verify}, one core.", "", markdown(head, rows), ""]

    rows = [
        [step, *(f"{of(run, step)['cpu']:.2f} s, {of(run, step)['peak'] / MB:.0f} MB" for run in runs)]
        for step in dict.fromkeys(p["step"] for p in runs[-1]["phases"])
    ]
    text += [markdown(["phase", *(f"{run['documents']:,}" for run in runs)], rows), ""]

    last = runs[-1]
    times = BILLION / last["documents"]
    rows = []
    for step in steps:
        p = of(last, step)
        scratch = p["scratch"] * times / 1e9
        size = f"{scratch:,.0f} GB" if scratch >= 1 else "under 1 GB"
        rows.append([step, f"{p['cpu'] * times / 3600:,.1f}", size, LIMITS.get(step, "")])
    hours = sum(of(last, step)["cpu"] for step in steps) * times / 3600
    text += [
        f"A billion documents of {last['text_bytes'] / last['documents']:.0f} bytes, by the figures of {last['documents']:,}:",
        "",
        markdown(["phase", "core hours", "scratch", "where its limit lies"], [*rows, ["together", f"{hours:,.1f}", "", ""]]),
        "",
    ]
    spread = max(each) / min(each)
    peak = max(p["peak"] for run in runs for p in run["phases"] if p["minhash"])
    bars = [
        {"bar": f"dearest document over cheapest: {spread:.2f} (bar: 1.25)", "met": spread <= 1.25},
        {
            "bar": f"peak of minhash {peak / MB:.0f} MB (bar: the limit, {args.memory_limit} MB)",
            "met": peak <= args.memory_limit * MB,
        },
    ]
    return "\n".join([*text, *(f"{'met   ' if b['met'] else 'MISSED'} {b['bar']}" for b in bars)]), bars


if __name__ == "__main__":
    main()
