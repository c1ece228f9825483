"""`minhash` beside datatrove, datasketch, rensa and daft: the same documents, one core each, Parquet in to decisions out.

    python benchmarks/minhash.py [--data FOLDER] [--documents 66000] [--repeats 3] [--daft PYTHON] [--check] [--json]

Documents are composed of real paragraphs by a fixed seed, three in ten are near-duplicates of an earlier one (sentences left
out, words replaced): about 4 kB each, 260 MB in all. Each side is a process of its own, bound to one core, and CPU seconds of
its steps count alone, start-up, imports, models and compiling for nobody; peak memory is that of the whole process. What each
side does, and the settings tried for it, stands in `_sides.py`. Everybody has word 5-grams and 14 bands of 8 rows.

datatrove runs on the first --slow-documents (8,000), its ratios are to ours on these; 0 gives it everything. daft does not go
with our pyarrow, so it comes from a Python of its own:

    python -m venv daft
    daft/bin/pip install daft numpy
    python benchmarks/minhash.py --daft daft/bin/python          # or CURATE_DAFT_PYTHON

Ours is given three times: the kernel alone over record batches (signatures), the stage over a table (the whole job: a table
read from Parquet, decisions out), and a run folder until `minhash`, which first takes the documents in as every run does.
Signatures are given with and without the read of the Parquet file. rensa and datasketch take tokens, which Python has to
make: a line says what they do when the shingles are there already.

Bars: signatures 300 times datatrove's documents a second, 10 times rensa's, 3 times daft's, with the read and without it; the
whole job 150 times datatrove's four steps; with `verify: 0.7` at most twice the time of `verify: off`. --check exits with 1
where one is missed. Recall is that of planted pairs with a Jaccard similarity of 0.8 and more (exact, over `\\w+` words in
lower case): nobody should be fast by finding less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from _measure import Spread, table

HERE = Path(__file__).resolve().parent
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1")
STEPS = ("read", "signature", "bucketing", "clustering", "verification", "filtering")
OURS = {
    "curate, kernel": ("ours-kernel",),
    "curate, verify off": ("ours-memory", "--verify", "off"),
    "curate, verify 0.7": ("ours-memory", "--verify", "0.7"),
    "curate run, off": ("ours-run", "--verify", "off"),
    "curate run, 0.7": ("ours-run", "--verify", "0.7"),
}
PEERS = {"daft": ("daft",), "rensa": ("rensa",), "datasketch": ("datasketch",)}
SLOW = {"datatrove": ("datatrove",)}

Runs = dict[str, list[dict[str, Any]]]


def call(command: list[str | Path]) -> dict[str, Any]:
    """What a process of its own prints as its last line."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def build(args: argparse.Namespace, work: Path) -> dict[Path, dict[str, Any]]:
    """The corpora: everything, and the part for the slow."""
    sizes = {args.documents, args.slow_documents or args.documents}
    made = {}
    for n in sorted(sizes, reverse=True):
        folder = work / f"planted-{n}"
        if not (folder / "said.json").exists():
            said = call([sys.executable, HERE / "_corpora.py", "planted", args.data, folder, "--documents", str(n)])
            (folder / "said.json").write_text(json.dumps(said))
        made[folder] = json.loads((folder / "said.json").read_text())
    return made


def measure(folder: Path, sides: Mapping[str, tuple[str, ...]], repeats: int, args: argparse.Namespace, work: Path) -> Runs:
    """The sides in turn, as often as asked for."""
    import numpy as np

    pairs = [(a, b) for a, b, j in json.loads((folder / "pairs.json").read_text()) if j >= 0.8]
    found: Runs = {name: [] for name in sides}
    for i in range(repeats):
        for name, (side, *options) in list(sides.items())[:: 1 if i % 2 == 0 else -1]:
            python = args.daft if side == "daft" else sys.executable
            print(f"{folder.name}, {i + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
            scratch = ["--scratch", work] if side == "ours-run" else []
            said = call([python, HERE / "_sides.py", side, folder, "--clusters", work / "labels.npy", *options, *scratch])
            labels = np.load(work / "labels.npy")
            said["recall"] = float(np.mean([labels[a] == labels[b] for a, b in pairs])) if pairs else float("nan")
            found[name].append(said)
    return found


def signatures(runs: Runs, documents: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """(who, documents a second without the read, with it)."""
    for name, all_said in runs.items():
        if "signature" not in all_said[0]["seconds"]:
            continue
        if name.startswith("curate") and name != "curate, kernel":
            continue
        spent = [said["seconds"] for said in all_said]
        yield name, [documents / s["signature"] for s in spent], [documents / (s["signature"] + s["read"]) for s in spent]
        if "shingles" in all_said[0]["parts"]:
            rest = [s["signature"] - said["parts"]["shingles"] for s, said in zip(spent, all_said, strict=True)]
            yield f"{name}, given the shingles", [documents / s for s in rest], []


def wholes(runs: Runs) -> dict[str, list[float]]:
    """CPU seconds of the whole job."""
    return {
        name: [said["seconds"].get("whole") or sum(said["seconds"][s] for s in STEPS if s in said["seconds"]) for said in found]
        for name, found in runs.items()
        if name != "curate, kernel"
    }


def report(title: str, runs: Runs, corpus: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Two tables, and the ratios in them."""
    n, size = corpus["documents"], corpus["text_bytes"] / 1e6
    rates = {name: (alone, read) for name, alone, read in signatures(runs, n)}
    mine = rates["curate, kernel"]
    ratios: dict[str, Any] = {}
    rows = []
    for name, (alone, read) in rates.items():
        row = [name, Spread.of(alone).show(0), Spread.of([r * size / n for r in alone]).show(1)]
        ratio = Spread.ratio(mine[0], alone)
        row.append("" if name == "curate, kernel" else f"{ratio.show(1)}x")
        ratios[name] = {"signatures": ratio.mid}
        if read:
            ratio = Spread.ratio(mine[1], read)
            row += [Spread.of(read).show(0), "" if name == "curate, kernel" else f"{ratio.show(1)}x"]
            ratios[name]["signatures, with the read"] = ratio.mid
        rows.append([*row, *[""] * (6 - len(row))])
    head = ["signatures", "documents/s", "MB/s", "ours is", "with the read", "ours is"]
    text = [table(f"{title}: {n:,} documents, {size:.0f} MB", head, rows), ""]

    spent, rows = wholes(runs), []
    for name in spent:
        steps = [[said["seconds"][s] for said in runs[name] if s in said["seconds"]] for s in STEPS]
        against = {base: Spread.ratio(spent[name], spent[base]) for base in ("curate, verify off", "curate, verify 0.7")}
        ratios.setdefault(name, {}).update({f"whole, of {base}": ratio.mid for base, ratio in against.items()})
        rows.append(
            [
                name,
                *(Spread.of(s).show(2) if s else "" for s in steps),
                Spread.of(spent[name]).show(2),
                *(f"{ratio.show(1)}x" for ratio in against.values()),
                Spread.of([said["peak"] / 2**20 for said in runs[name]]).show(0),
                f"{runs[name][0]['removed']:,}",
                f"{runs[name][0]['recall']:.4f}",
            ]
        )
    head = ["CPU seconds", *STEPS, "whole job", "of ours, off", "of ours, 0.7", "peak MB", "removed", "recall"]
    text += [table("", head, rows), ""]
    for name in ("curate run, off", "curate run, 0.7"):
        phases = runs[name][0]["phases"]
        fit = Spread.of([said["seconds"]["fit and filter"] for said in runs[name]])
        parts = ", ".join(f"{p['name']} {p['cpu']:.2f} s {p['peak'] / 2**20:.0f} MB" for p in phases)
        off = [said["seconds"]["fit and filter"] for said in runs["curate run, off"]]
        times = Spread.ratio([said["seconds"]["fit and filter"] for said in runs[name]], off)
        text.append(f"{name}: phases of minhash {fit.show(2)} s, {times.show(2)}x of off; the first run's phases: {parts}")
    return "\n".join(text), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CURATE_DATA", HERE.parents[1] / "shared" / "data")))
    parser.add_argument("--documents", type=int, default=66_000)
    parser.add_argument("--slow-documents", type=int, default=8_000, help="of datatrove; 0: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow-repeats", type=int, default=2)
    parser.add_argument("--daft", metavar="PYTHON", help="a Python that has daft", default=os.environ.get("CURATE_DAFT_PYTHON"))
    parser.add_argument("--work", type=Path, help="where corpora are made, and kept")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minhash-") as scratch:
        result = compare(args, args.work or Path(scratch))
    text = result.pop("text")
    print(text, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(result, indent=1))
    if args.check and not all(bar["met"] for bar in result["bars"]):
        sys.exit(1)


def compare(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    corpora = build(args, work)
    whole, part = next(iter(corpora)), list(corpora)[-1]
    fast = {**OURS, **{name: side for name, side in PEERS.items() if name != "daft" or args.daft}}
    runs = measure(whole, fast, args.repeats, args, work)
    if part == whole:
        slow = {**runs, **measure(part, SLOW, args.slow_repeats, args, work)}
    else:
        slow = {**measure(part, OURS, args.repeats, args, work), **measure(part, SLOW, args.slow_repeats, args, work)}
    text, ratios = report("Everything", runs, corpora[whole])
    if part == whole:
        text, ratios = report("Everything", slow, corpora[whole])
    else:
        more, found = report("The part that datatrove gets", slow, corpora[part])
        text += f"\n\n{more}"
        ratios["datatrove"] = found["datatrove"]
    bars = []
    for name, times in (("datatrove", 300), ("rensa", 10), ("daft", 3)):
        for what in ("signatures", "signatures, with the read"):
            if name in ratios:
                bars.append((f"{what}: ours are so many times as fast as {name}'s", ratios[name][what], times, True))
    job = ratios["datatrove"]["whole, of curate, verify off"]
    bars.append(("whole job: datatrove's four steps take so many times as long as `verify: off`", job, 150, True))
    verified = ratios["curate, verify 0.7"]["whole, of curate, verify off"]
    bars.append(("whole job: `verify: 0.7` takes so many times as long as `verify: off`", verified, 2, False))
    run = ratios["curate run, 0.7"]["whole, of curate, verify off"] / ratios["curate run, off"]["whole, of curate, verify off"]
    bars.append(("a run folder: `verify: 0.7` takes so many times as long as `verify: off`", run, 2, False))
    told = [
        {"bar": name, "value": value, "limit": limit, "met": value >= limit if least else value <= limit}
        for name, value, limit, least in bars
    ]
    lines = [f"{'met   ' if b['met'] else 'MISSED'} {b['bar']}: {b['value']:.2f} (bar: {b['limit']})" for b in told]
    return {"text": "\n".join([text, "", *lines]), "corpora": list(corpora.values()), "runs": runs, "slow": slow, "bars": told}


if __name__ == "__main__":
    main()
