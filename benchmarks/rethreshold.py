"""How long it takes to run a recipe again after one threshold of `rules` was changed.

    python benchmarks/rethreshold.py                                a million rows, five repeats, about three minutes
    python benchmarks/rethreshold.py --rows 100000 --repeats 2      a look

A run over real texts cut to `--characters`, with all signals, is made by the command line and then run again and again by the
same command, one worker, each time with another `gopher.min_words`: by turns the whole command (`whole`), and with `--until
rules` (`until`), which stops before the export and prints what went and why. A fresh process is timed from outside, so that
start-up counts, and the phases are told apart by the run's own records: `signals+rules` is the pass of which only the rules
have to run anew, over the columns of signals; `ledger` counts every row; `export` writes the shards of what survives, and is
the only one that reads texts. Processes may keep compiled modules, as those of an installed package are. Prints JSON; `--check`
holds `until` to the bar of two seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _measure import Measured, Spread, run

BAR = 2.0
FILES = 4
RECIPE = """\
name: rethreshold
stages:
  - signals
  - rules:
      sets: [gopher_repetition, gopher, c4, fineweb]
      thresholds: {gopher.min_words: 20, c4.min_sentences: 1}   # texts of this length would hardly pass others
output: {columns: [id, text, tokens]}
"""


def pieces(data: Path, characters: int, rows: int) -> Iterator[str]:
    """Real texts in pieces, from different places in each round, until there are `rows`."""
    texts = pq.read_table(data / "domains" / "domains.parquet", columns=["text"])["text"].to_pylist()
    made = 0
    for shift in range(0, characters, max(1, characters // 40)):
        for text in texts:
            for start in range(shift, len(text), characters):
                if made == rows:
                    return
                made += 1
                yield text[start : start + characters]
    raise SystemExit(f"the data gives {made} pieces of {characters} characters: ask for fewer rows")


def curate(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "curate.cli", *arguments]


def phases(folder: Path) -> dict[str, float]:
    """Seconds of each phase of the run, the parts of the export together."""
    said = subprocess.run(curate("status", folder, "--json"), capture_output=True, check=True, text=True).stdout
    found: dict[str, float] = defaultdict(float)
    for phase in json.loads(said):
        name = phase["phase"].split("-")[1]
        found["export" if name.startswith("export") else name] += phase["seconds"]
    return found


def main() -> None:
    default = os.environ.get("CURATE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--characters", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="exit 1 where `until` misses the bar")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rethreshold-") as scratch:
        report = measure(args, Path(scratch))
    print(json.dumps(report, indent=1))
    if args.check and report["until"]["command_s"]["mid"] > BAR:
        sys.exit(1)


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    texts = list(pieces(args.data, args.characters, args.rows))
    (work / "in").mkdir()
    for i in range(FILES):
        part = texts[i * args.rows // FILES : (i + 1) * args.rows // FILES]
        pq.write_table(pa.table({"text": part}), work / "in" / f"{i}.parquet")
    (work / "recipe.yaml").write_text(RECIPE)
    env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(work / "pyc")}
    command = curate("run", work / "recipe.yaml", "-i", work / "in", "-o", work / "run", "-w", "1")

    def timed(*more: str) -> Measured:
        os.sync()
        done = run([*command, *more], log=work / "log", env=env)
        if done.code:
            raise SystemExit(done.stderr)
        return done

    first = timed()
    sides: dict[str, list[str]] = {"whole": [], "until": ["--until", "rules"]}
    took: dict[str, list[Measured]] = defaultdict(list)
    parts: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in sides}
    for i in range(args.repeats):
        for words, (side, more) in enumerate(sides.items(), 21 + len(sides) * i):
            thresholds = f"stages.rules.thresholds={{gopher.min_words: {words}, c4.min_sentences: 1}}"
            took[side].append(timed("--set", thresholds, *more))
            for name, seconds in phases(work / "run").items():
                parts[side][name].append(seconds)
    summary = json.loads((work / "run" / "summary.json").read_text())
    report: dict[str, Any] = {"rows": args.rows, "kept": summary["documents"], "first_run_s": first.wall, "bar_s": BAR}
    for side in sides:
        report[side] = {
            "command_s": asdict(Spread.of([m.wall for m in took[side]])),
            "command_cpu_s": asdict(Spread.of([m.cpu for m in took[side]])),
            "phases_s": {
                name: asdict(Spread.of(seconds)) for name, seconds in parts[side].items() if name not in ("ingest", "documents")
            },
        }
    return report


if __name__ == "__main__":
    main()
