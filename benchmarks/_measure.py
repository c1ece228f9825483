"""Time a command from outside: wall clock, CPU seconds and peak memory of everything that it starts.

Each side of a comparison is a fresh process in a session of its own, so start-up, imports and worker pools count, and a
process that its parent has left behind is still found. Nothing heavy is imported here, and the benchmark that calls `run`
should stay small as well: Linux counts the memory of the caller at the time of the fork as the first peak of the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
EVERY = 0.05


@dataclass(frozen=True)
class Measured:
    """One finished command. Seconds and bytes.

    cpu: user and system time, of the command and of every process below it. peak: the largest peak (VmHWM) of a single
    process of the tree. total: the largest sum of resident memory over the tree at one moment, in which a page that
    forked processes share counts once for each. processes: how many were seen.
    """

    wall: float
    cpu: float
    peak: int
    total: int
    processes: int
    code: int
    stdout: str
    stderr: str


@dataclass
class _Watch:
    """What the poller has seen of one session."""

    session: int
    peaks: dict[tuple[int, str], int] = field(default_factory=dict)
    ticks: dict[tuple[int, str], int] = field(default_factory=dict)
    total: int = 0

    def look(self) -> None:
        total = 0
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            # A process may be gone between the listing and the reading, or read as empty while it dies.
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                if int(stat[3]) != self.session:
                    continue
                who = (int(name), stat[19].decode())
                self.ticks[who] = max(self.ticks.get(who, 0), int(stat[11]) + int(stat[12]))
                total += int(stat[21]) * PAGE
                status = Path("/proc", name, "status").read_text()
                peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
                self.peaks[who] = max(self.peaks.get(who, 0), peak)
        self.total = max(self.total, total)


def run(command: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None, log: Path) -> Measured:
    """Run `command` to its end and measure it. Its output goes to `log` and `log`.err, so that a full pipe never slows it.

    CPU time comes from wait4, which covers every process that was waited for; where a tree leaves killed processes
    unwaited, the sum of what the poller saw is larger and is taken instead.
    """
    errors = log.with_name(log.name + ".err")
    with log.open("wb") as out, errors.open("wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(c) for c in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        watch, done = _Watch(process.pid), threading.Event()

        def poll() -> None:
            while not done.wait(EVERY):
                watch.look()

        poller = threading.Thread(target=poll, daemon=True)
        poller.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        poller.join()
    return Measured(
        wall=wall,
        cpu=max(usage.ru_utime + usage.ru_stime, sum(watch.ticks.values()) / TICK),
        peak=max(usage.ru_maxrss * 1024, *watch.peaks.values(), 0),
        total=max(watch.total, usage.ru_maxrss * 1024),
        processes=max(len(watch.peaks), 1),
        code=process.returncode,
        stdout=log.read_text(errors="replace"),
        stderr=errors.read_text(errors="replace"),
    )


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some repeats."""

    low: float
    mid: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values), len(values))

    @classmethod
    def ratio(cls, ours: Sequence[float], peer: Sequence[float]) -> Spread:
        """Median over median; the ends set our worst repeat against the peer's best, and the other way round."""
        a, b = cls.of(ours), cls.of(peer)
        return cls(a.low / b.high, a.mid / b.mid, a.high / b.low, min(a.n, b.n))

    def show(self, digits: int = 1) -> str:
        if self.n == 1 and self.low == self.high:
            return f"{self.mid:,.{digits}f}"
        return f"{self.mid:,.{digits}f} [{self.low:,.{digits}f}–{self.high:,.{digits}f}]"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table, first column to the left. (rich would make the benchmark itself larger; see above.)"""
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        text = [str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(text).rstrip()

    return "\n".join([title, line(head), line(["─" * w for w in widths]), *(line(row) for row in rows)])
