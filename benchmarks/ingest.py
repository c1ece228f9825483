"""Ingest beside datatrove, in one run: archives to text, and an empty pipeline over Parquet.

    python benchmarks/ingest.py                                   everything, about twenty minutes on two cores
    python benchmarks/ingest.py --only warc --files 'trafilatura-00001*' --repeats 1     a quick look

Both sides read the same files, as fresh processes timed from outside, so start-up counts; repeats are interleaved and their
order alternates. Every figure is `median [smallest–largest]`; a ratio is median over median, and its ends set our worst
repeat against datatrove's best and the other way round. One untimed run a side on the smallest file comes first: byte code,
kernel caches and the page cache are warm for everybody.

datatrove runs under `--peer-python`, an interpreter with the packages named in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _measure import Measured, Spread, run, table

HERE = Path(__file__).resolve().parent
BARS = {"warc_ratio": 15.0, "peak_mb": 600.0, "parquet_ratio": 5.0}
RECIPE = """\
name: bench
source: {{auto: {{extract: {extract}}}}}
stages: []
"""


class Failed(Exception):
    """A side did not run, or ran and wrote nothing; there is no figure to print."""


@dataclass
class Side:
    """One contestant: how to start it into a fresh folder, and how to read afterwards what it did."""

    name: str
    repeats: int
    command: Callable[[Path, Path], list[str | Path]]
    outcome: Callable[[Path, Measured], dict[str, Any]]
    runs: list[Measured] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    def go(self, source: Path, work: Path) -> tuple[Measured, dict[str, Any]]:
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        os.sync()  # no side pays for writing back what another one wrote
        measured = run(self.command(source, out), cwd=work, log=work / "log")
        if measured.code:
            raise Failed(f"{self.name} ended with exit status {measured.code}:\n{measured.stderr[-3000:]}")
        outcome = self.outcome(out, measured)
        if not outcome["kept"]:
            raise Failed(f"{self.name} wrote no documents:\n{measured.stderr[-3000:]}")
        shutil.rmtree(out, ignore_errors=True)
        return measured, outcome

    def summary(self, documents: int, size: int) -> dict[str, Any]:
        """Rates over the documents and bytes of the *input*, the same numbers for every side."""
        rates = {
            "wall_s": [m.wall for m in self.runs],
            "cpu_s": [m.cpu for m in self.runs],
            "docs_per_s": [documents / m.wall for m in self.runs],
            "docs_per_cpu_s": [documents / m.cpu for m in self.runs],
            "mb_per_s": [size / 1e6 / m.wall for m in self.runs],
            "peak_mb": [m.peak / 1e6 for m in self.runs],
            "tree_mb": [m.total / 1e6 for m in self.runs],
        }
        return {"name": self.name, "n": len(self.runs), "runs": rates, "outcome": self.outcomes[-1],
                "processes": max(m.processes for m in self.runs)}  # fmt: skip


def helper(python: Path | str, script: str, *arguments: str | Path) -> Any:
    """Run one of the helper scripts, untimed, and return what it prints as JSON."""
    command = [str(python), str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{script} {arguments[0]} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def curate_side(name: str, repeats: int, work: Path, extract: str, workers: int) -> Side:
    """`curate run` with an empty recipe. It also hashes, shuffles, and writes ledger and manifest; all of that counts."""
    recipe = work / f"{extract}.yaml"
    recipe.write_text(RECIPE.format(extract=extract))
    script = Path(sys.executable).with_name("curate")
    start = [script] if script.exists() else [sys.executable, "-c", "from curate.cli import main; main()"]

    def command(source: Path, out: Path) -> list[str | Path]:
        return [*start, "run", recipe, "-i", source, "-o", out, "-w", str(workers), "--json"]

    return Side(name, repeats, command, lambda out, _: helper(sys.executable, "_ours.py", "ledger", out))


def datatrove_side(pipeline: str, writer: str, repeats: int, python: Path, workers: int) -> Side:
    def command(source: Path, out: Path) -> list[str | Path]:
        return [python, HERE / "_peers.py", pipeline, source, out, "--workers", str(workers), "--writer", writer]

    return Side("datatrove", repeats, command, lambda _, measured: json.loads(measured.stdout.splitlines()[-1]))


def interleave(sides: Sequence[Side], source: Path, work: Path, title: str) -> None:
    """Run every side its number of times, in rounds whose order alternates. A side with fewer repeats is spread over them."""
    rounds = max(side.repeats for side in sides)
    for i in range(rounds):
        due = [s for s in sides if (i + 1) * s.repeats // rounds > i * s.repeats // rounds]
        for side in due if i % 2 == 0 else reversed(due):
            measured, outcome = side.go(source, work)
            side.runs.append(measured)
            side.outcomes.append(outcome)
            say(f"  {title}, {i + 1} of {rounds}, {side.name}: {measured.wall:.2f} s, {measured.cpu:.2f} CPU s,"
                f" {measured.peak / 1e6:.0f} MB" + (f", kept {outcome['kept']:,}" if "kept" in outcome else ""))  # fmt: skip


def warm_up(sides: Sequence[Side], source: Path, work: Path) -> None:
    for side in sides:
        say(f"  warming up {side.name}")
        side.go(source, work)


def compare(sides: Sequence[Side], documents: int, size: int) -> dict[str, Any]:
    """Summaries of the sides and the ratios of every other side to datatrove."""
    summaries = [side.summary(documents, size) for side in sides]
    peer = next(s for s in summaries if s["name"] == "datatrove")
    ratios = {}
    for other in (s for s in summaries if s is not peer):
        ratios[other["name"]] = {
            unit: asdict(Spread.ratio(other["runs"][unit], peer["runs"][unit]))
            for unit in ("docs_per_s", "docs_per_cpu_s", "mb_per_s")
        }
    same = {s.name: len({o["digest"] for o in s.outcomes}) == 1 for s in sides if len(s.outcomes) > 1 and s.name != "datatrove"}
    return {"sides": summaries, "ratios": ratios, "same_digest_every_time": same}


def archives(args: argparse.Namespace) -> list[Path]:
    """The input files, as `--files` and `--real` pick them."""
    crawl = args.data / "crawl"
    paths = [*sorted(crawl.glob("*.warc.gz")), *(sorted((crawl / "real").glob("*arc.gz")) if args.real else ())]
    if not (paths := [p for p in paths if fnmatch.fnmatch(p.name, args.files)]):
        raise Failed(f"no archives match {args.files!r} in the folder crawl of --data")
    return paths


def part_warc(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Archives through WarcReader + Trafilatura, and through `curate run`."""
    paths = archives(args)
    source, warm, grown = work / "crawl", work / "warm", work / "grown"
    copy(paths, source)
    copy([min(paths, key=lambda p: p.stat().st_size)], warm)
    counted = helper(sys.executable, "_ours.py", "count", source)
    sides = [
        datatrove_side("warc", "jsonl", args.peer_repeats, args.peer_python, args.workers),
        curate_side("curate resiliparse", args.repeats, work, "resiliparse", args.workers),
        curate_side("curate trafilatura", args.peer_repeats, work, "trafilatura", args.workers),
    ]
    warm_up(sides, warm, work)
    interleave(sides, source, work, "round")
    result = {"files": len(paths), "input": counted, **compare(sides, counted["html"], counted["html_bytes"])}
    if args.growth > 1:
        for k in range(args.growth):
            copy(paths, grown, prefix=f"{k:02d}-")
        say(f"  curate resiliparse on the input repeated {args.growth} times")
        measured, outcome = sides[1].go(grown, work)
        documents = counted["html"] * args.growth
        once = Spread.of([m.wall for m in sides[1].runs]).mid
        result["growth"] = {
            "times": args.growth,
            "docs_per_s": documents / measured.wall,
            "docs_per_s_after_start": (documents - counted["html"]) / max(measured.wall - once, 1e-9),
            "docs_per_cpu_s": documents / measured.cpu,
            "peak_mb": measured.peak / 1e6,
            "tree_mb": measured.total / 1e6,
            "outcome": outcome,
        }
    return result


def part_parquet(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Parquet through a pipeline that does nothing."""
    source, warm = work / "parquet", work / "warm-parquet"
    built = helper(sys.executable, "_ours.py", "parquet", args.data, source, str(args.parquet_mb), str(args.parquet_characters))
    copy(sorted(source.iterdir())[:1], warm)
    sides = [
        datatrove_side("parquet", "parquet-lean", args.repeats, args.peer_python, args.workers),
        curate_side("curate", args.repeats, work, "resiliparse", args.workers),
    ]
    warm_up(sides, warm, work)
    interleave(sides, source, work, "round")
    return {"input": built, **compare(sides, built["documents"], built["text_bytes"])}


def copy(paths: Sequence[Path], folder: Path, prefix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, folder / (prefix + path.name))


def bars(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each bar with what was measured: the median ratio, and the largest peak of any repeat."""
    found = []
    if warc := result.get("warc"):
        ratio = warc["ratios"]["curate resiliparse"]["docs_per_s"]["mid"]
        found.append(("archives: documents per second, resiliparse over datatrove", ratio, BARS["warc_ratio"], "at least"))
        peak = max(highest(warc), warc.get("growth", {}).get("peak_mb", 0.0))
        found.append(("archives: peak memory of one process, MB", peak, BARS["peak_mb"], "under"))
    if empty := result.get("parquet"):
        ratio = empty["ratios"]["curate"]["docs_per_s"]["mid"]
        found.append(("empty pipeline: documents per second over datatrove", ratio, BARS["parquet_ratio"], "at least"))
        found.append(("empty pipeline: peak memory of one process, MB", highest(empty), BARS["peak_mb"], "under"))
    return [
        {
            "bar": name,
            "value": value,
            "must_be": sense,
            "limit": limit,
            "met": value < limit if sense == "under" else value >= limit,
        }
        for name, value, limit, sense in found
    ]


def highest(part: Mapping[str, Any]) -> float:
    """Largest peak of one of our processes in any repeat, MB."""
    return max(peak for side in part["sides"] if side["name"] != "datatrove" for peak in side["runs"]["peak_mb"])


def show_sides(title: str, part: Mapping[str, Any]) -> str:
    units = [("wall s", "wall_s", 2), ("docs/s", "docs_per_s", 0), ("docs/CPU s", "docs_per_cpu_s", 0), ("MB/s", "mb_per_s", 1),
             ("peak MB, 1 process", "peak_mb", 0), ("MB, all processes", "tree_mb", 0)]  # fmt: skip
    rows = []
    for s in part["sides"]:
        cells = [Spread.of(s["runs"][key]).show(digits) for _, key, digits in units]
        rows.append([s["name"], str(s["n"]), *cells, f"{s['outcome']['read']:,}", f"{s['outcome']['kept']:,}"])
    lines = [table(title, ["", "n", *[u[0] for u in units], "read", "kept"], rows), ""]
    for name, ratio in part["ratios"].items():
        wall, cpu = (Spread(**ratio[unit]).show(1) for unit in ("docs_per_s", "docs_per_cpu_s"))
        lines.append(f"{name} / datatrove: documents per second {wall}x, per CPU second {cpu}x")
    return "\n".join(lines)


def show_warc(part: Mapping[str, Any]) -> str:
    counted = part["input"]
    title = (f"ARCHIVES  {part['files']} files, {counted['html']:,} HTML responses, {counted['html_bytes'] / 1e6:,.0f} MB of"
             " HTML; rates are over these responses for every side")  # fmt: skip
    lines = [show_sides(title, part), ""]
    for s in part["sides"]:
        outcome = s["outcome"]
        if s["name"] == "datatrove":
            unread = counted["html"] - outcome["read"]
            lost = said({"not decoded or not HTML to libmagic": max(unread, 0), **outcome["lost_in_extraction"]})
        else:
            lost = said(outcome["drops"])
        lines.append(f"{s['name']}: kept {outcome['kept']:,} of {outcome['read']:,} read; lost: {lost}")
    responses = counted["kinds"].get("response", 0)
    ours = part["sides"][-1]["outcome"]["read"]
    lines.append(
        f"warcio counts {responses:,} responses of {counted['records']:,} records; curate's ledger accounts for {ours:,}"
    )
    for name, same in part["same_digest_every_time"].items():
        lines.append(f"{name}: the digest was {'the same in every repeat' if same else 'NOT THE SAME in every repeat'}")
    if growth := part.get("growth"):
        rates = f"{growth['docs_per_s']:,.0f} docs/s, {growth['docs_per_s_after_start']:,.0f} by the added time"
        lines.append(
            f"curate resiliparse on this input {growth['times']} times over (n=1): {rates}, peak {growth['peak_mb']:,.0f} MB"
        )
    return "\n".join(lines)


def show_parquet(part: Mapping[str, Any]) -> str:
    built = part["input"]
    title = (f"EMPTY PIPELINE  {built['files']} Parquet files, {built['documents']:,} documents,"
             f" {built['text_bytes'] / 1e6:,.0f} MB of text")  # fmt: skip
    note = ("datatrove reads and writes the rows. curate also checks and hashes them, writes them twice (documents/, then the\n"
            "export), shuffles them, and writes ledger and manifest: its time holds all of that.")  # fmt: skip
    return f"{show_sides(title, part)}\n{note}"


def said(counts: Mapping[str, int] | int) -> str:
    if isinstance(counts, int):
        return str(counts)
    return ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "nothing"


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CURATE_DATA") or HERE.parent.parent / "shared" / "data"
    peer = os.environ.get("CURATE_PEER_PYTHON") or sys.executable
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with crawl/, domains/, quality/ (or CURATE_DATA)")
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="one part; may be repeated")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-repeats", type=int, help="of datatrove and trafilatura in `warc`; default at most 3")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--files", default="*", help="glob over the archives' names")
    parser.add_argument("--real", action="store_true", help="add crawl/real/*arc.gz")
    parser.add_argument("--growth", type=int, default=4, help="one more run on the archives this many times over; 0 for none")
    parser.add_argument("--parquet-mb", type=float, default=250)
    parser.add_argument("--parquet-characters", type=int, default=0, help="cut texts to so many characters (0: whole)")
    parser.add_argument("--peer-python", type=Path, default=Path(peer), help="runs datatrove (or CURATE_PEER_PYTHON)")
    parser.add_argument("--work", type=Path, help="scratch folder, default a temporary one")
    parser.add_argument("--json", action="store_true", help="one JSON object with every repeat on stdout")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    args = parser.parse_args(argv)
    args.data = args.data.resolve()
    args.peer_python = args.peer_python.absolute()  # not resolved: a link names its environment
    if args.peer_repeats is None:
        args.peer_repeats = min(args.repeats, 3)
    if not 1 <= args.peer_repeats <= args.repeats:
        parser.error("--peer-repeats must lie between 1 and --repeats")
    return args


PARTS = {"warc": (part_warc, show_warc), "parquet": (part_parquet, show_parquet)}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    result: dict[str, Any] = {"machine": machine(), "workers": args.workers}
    try:
        result["datatrove"] = helper(args.peer_python, "_peers.py", "versions")
        if lacking := [name for name in ("datatrove", "faust-cchardet", "warcio", "python-magic", "trafilatura", "orjson")
                       if not result["datatrove"][name]]:  # fmt: skip
            raise Failed(f"datatrove's side lacks {', '.join(lacking)}: see benchmarks/README.md, and --peer-python")
        with tempfile.TemporaryDirectory(prefix="bench-", dir=args.work) as folder:
            for name in args.only or PARTS:
                say(name)
                result[name] = PARTS[name][0](args, Path(folder))
    except Failed as failed:
        say(str(failed))
        return 2
    result["bars"] = bars(result)
    if args.json:
        print(json.dumps(result))
    else:
        print("{cpu}, {cores} cores, Python {python}, load {load:.1f} at the start".format(**result["machine"]), end="; ")
        print(f"workers on each side: {args.workers}")
        print("datatrove's side: " + ", ".join(f"{k} {v or 'absent'}" for k, v in result["datatrove"].items()))
        for name in PARTS:
            if name in result:
                print(f"\n{PARTS[name][1](result[name])}")
        print()
        for b in result["bars"]:
            print(f"{'met   ' if b['met'] else 'MISSED'}  {b['bar']}: {b['value']:,.1f} (bar: {b['must_be']} {b['limit']:g})")
    return 1 if args.check and not all(b["met"] for b in result["bars"]) else 0


if __name__ == "__main__":
    sys.exit(main())
