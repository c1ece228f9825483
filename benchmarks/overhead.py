"""What the engine itself costs: a phase on the `local` executor, and `curate --help`.

    python benchmarks/overhead.py [--phases 100]

Bars: a phase under 0.1 s, help under 0.3 s. Prints medians with the smallest and largest value.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.executors import Local
from curate.phases import Context, Phase


@dataclass(frozen=True)
class Nothing:
    """A task without work."""

    def run(self, phase: Phase, rank: int) -> dict[str, Any]:
        return {}


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4f} s [{min(values):.4f}–{max(values):.4f}]"


def phases(n: int, tasks: int, workers: int) -> list[float]:
    """Seconds of each of n phases of empty tasks, after one that warms the workers up."""
    sys.modules["overhead"] = sys.modules[__name__]
    Nothing.__module__ = "overhead"  # workers load it from this file's folder
    pool = Local(workers)
    found = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            context = Context(root=Path(scratch))
            for i in range(n + 1):
                phase = Phase(name=f"{i:04d}", tasks=tasks, stages=(), fingerprint="", context=context, work=Nothing())
                started = time.perf_counter()
                pool.run(phase, phase.pending(), lambda phase, rank: None)
                found.append(time.perf_counter() - started)
    finally:
        pool.close()
    return found[1:]


def help_seconds(n: int) -> list[float]:
    found = []
    for _ in range(n):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "curate.cli", "--help"], stdout=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phases", type=int, default=100)
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    for workers, tasks in ((1, 1), (2, 2), (2, 16)):
        print(f"a phase of {tasks} empty tasks on {workers} workers: {spread(phases(args.phases, tasks, workers))}")
    print(f"curate --help: {spread(help_seconds(10))}")


if __name__ == "__main__":
    main()
