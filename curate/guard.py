"""One page must not stop a hundred terabytes: a page that hangs or crashes its worker is put aside.

Native code cannot be interrupted from Python, so the clock is the operating system's: a timer whose default action ends the
process. Before each page the worker writes down which one it is about to read. When a worker dies on a page, its task is run
again, with ten times the time for that page; when it dies there again, the page is quarantined, as `timeout` or `crash`, and
the manifest says `deterministic: false`, since another machine might have been fast enough.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import orjson

from curate.executors import WORKER
from curate.storage import read_json, write_json

SECONDS = "CURATE_PAGE_SECONDS"
TIMEOUT, CRASH = "timeout", "crash"


class Guard:
    """The guard of one task, in the worker. `with guard(file, record) as verdict:` around the work on one page.

    verdict: None to go ahead, else why the page is to be quarantined.
    """

    def __init__(self, folder: Path, rank: int):
        watched = os.environ.get(WORKER) and threading.current_thread() is threading.main_thread()
        self._here: int | None = None
        self._strikes = _strikes(folder, rank)
        self._seconds = float(os.environ.get(SECONDS, 60))
        if watched:
            folder.mkdir(parents=True, exist_ok=True)
            self._here = os.open(folder / f"{rank:05d}.here", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @contextlib.contextmanager
    def __call__(self, file: int, record: int):  # type: ignore[no-untyped-def]
        if self._here is None:
            yield None
            return
        strikes = self._strikes.get(f"{file}:{record}", [])
        if len(strikes) > 1:
            yield strikes[-1]
            return
        os.pwrite(self._here, f"{file}:{record}".encode().ljust(48), 0)
        signal.setitimer(signal.ITIMER_REAL, self._seconds * (10 if strikes else 1))
        try:
            yield None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def close(self) -> None:
        """Nothing is being read any more."""
        if self._here is not None:
            os.ftruncate(self._here, 0)
            os.close(self._here)


def _strikes(folder: Path, rank: int) -> dict[str, list[str]]:
    path = folder / f"{rank:05d}.json"
    return read_json(path) if path.exists() else {}


def strike(folder: Path, rank: int, code: int) -> bool:
    """Note that a worker died (exit code as subprocess gives it) and on which page; whether the task should run again."""
    with contextlib.suppress(OSError, orjson.JSONDecodeError):
        page = (folder / f"{rank:05d}.here").read_bytes().decode().strip()
        if not page:
            return False
        strikes = _strikes(folder, rank)
        before = strikes.setdefault(page, [])
        before.append(TIMEOUT if code == -signal.SIGALRM else CRASH)
        write_json(folder / f"{rank:05d}.json", strikes)
        return len(before) <= 2
    return False
