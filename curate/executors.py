"""Who runs the tasks of a phase: this process (`inline`), or one pool of worker processes for the whole run (`local`).

Workers are fresh interpreters that talk over a pipe, so a script needs no `if __name__ == "__main__"`, a phase costs no
start-up, and a worker whose parent dies stops at once. A worker computes on one core: every library with threads of its own
is told so, which is also what makes results independent of the machine's core count. This module imports nothing heavy, so
that workers can be started first and load their libraries while the parent reads the recipe.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING, Any

from curate.errors import StageError

if TYPE_CHECKING:
    from curate.phases import Phase

WORKER = "CURATE_WORKER"  # set in worker processes: somebody watches them

ONE_THREAD = {
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")},
    "POLARS_MAX_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

Progress = Callable[["Phase", int], None]


class Inline:
    """Runs tasks one after the other in this process."""

    workers = 1

    def run(self, phase: Phase, ranks: Iterable[int], progress: Progress) -> None:
        for rank in ranks:
            phase(None, rank, phase.tasks)
            progress(phase, rank)

    def close(self) -> None:
        pass


class Local:
    """A pool of worker processes that lives as long as the run."""

    def __init__(self, workers: int):
        self.workers = workers
        self._pool = [_Worker() for _ in range(workers)]

    def run(self, phase: Phase, ranks: Iterable[int], progress: Progress) -> None:
        """Run the tasks in any order. The first error stops handing out tasks and is raised when the others have ended."""
        waiting = list(ranks)[::-1]
        if not waiting:
            return
        while len(self._pool) < self.workers:  # one may have died in an earlier phase
            self._pool.append(_Worker())
        message = pickle.dumps(phase)
        free = list(self._pool)
        busy: dict[Any, tuple[_Worker, int]] = {}
        error: BaseException | None = None
        while busy or (waiting and error is None):
            while free and waiting and error is None:
                worker = free.pop()
                rank = waiting.pop()
                worker.send(message, rank)
                busy[worker.pipe] = worker, rank
            for pipe in wait(list(busy)):
                worker, rank = busy.pop(pipe)
                outcome = worker.receive(phase, rank)
                if isinstance(outcome, _Again):
                    waiting.append(rank)
                    self._pool.remove(worker)
                    self._pool.append(_Worker())
                    free.append(self._pool[-1])
                    continue
                if outcome is None:
                    progress(phase, rank)
                else:
                    error = error or outcome
                if worker.alive:
                    free.append(worker)
                else:
                    self._pool.remove(worker)
        if error is not None:
            raise error

    def close(self) -> None:
        for worker in self._pool:
            worker.close()
        self._pool = []


class _Again(Exception):
    """The worker died on a page that its guard had written down: the task is to run again, knowing that."""


class _Worker:
    """One interpreter. `pipe` carries phases and outcomes; the worker ends when the other side is closed."""

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        command = f"from curate.executors import work; work({theirs.fileno()})"
        path = os.pathsep.join(p for p in sys.path if p)
        env = {**os.environ, **ONE_THREAD, "PYTHONPATH": path, WORKER: "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", command], pass_fds=[theirs.fileno()], env=env, stdin=subprocess.DEVNULL
        )
        theirs.close()
        self.alive = True
        self._last: bytes | None = None

    def send(self, phase: bytes, rank: int) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died while idle: `receive` will say so
            if phase is not self._last:
                self.pipe.send_bytes(phase)
                self._last = phase
            self.pipe.send(rank)

    def receive(self, phase: Phase, rank: int) -> BaseException | None:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            code = self._process.wait()
            from curate.guard import strike

            if strike(phase.folder / "guard", rank, code):
                return _Again()
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            hint = " (out of memory? give fewer workers)" if code == -signal.SIGKILL else ""
            return StageError(f"phase {phase.name}, task {rank}: the worker died with {how}{hint}; run the same command again")

    def close(self) -> None:
        self.pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
            return
        self._process.kill()
        self._process.wait()


def work(fd: int) -> None:
    """The main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    pipe = Connection(fd)
    tasks = _Inbox(pipe)
    without_pandas()
    import pyarrow as pa

    from curate.phases import Phase

    pa.set_cpu_count(1)
    gc.freeze()  # modules stay; batches are large and few, so the collector need not come by often
    gc.set_threshold(50_000, 20, 20)
    phase: Phase | None = None
    while True:
        message = tasks.get()
        if isinstance(message, Phase):
            phase = message
            continue
        outcome: BaseException | None = None
        try:
            assert phase is not None
            phase(None, message, phase.tasks)
        except BaseException as error:
            outcome = _portable(error, phase, message)
        try:
            pipe.send(outcome)
        except BrokenPipeError:
            return


class _Inbox:
    """Reads the pipe on a thread of its own, so that the end of the parent is noticed in the middle of a task."""

    def __init__(self, pipe: Connection):
        import queue

        self._pipe = pipe
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self._messages.put(self._pipe.recv())
            except (EOFError, OSError):
                os._exit(0)

    def get(self) -> Any:
        return self._messages.get()


def _portable(error: BaseException, phase: Phase | None, rank: int) -> BaseException:
    """The error if it survives pickling, else a StageError with its words."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        name = phase.name if phase else "?"
        return StageError(f"phase {name}, task {rank}: {type(error).__name__}: {error}")


def without_pandas() -> None:
    """Let pyarrow find no pandas on its first look, which otherwise imports it, 0.2 s, wherever it is installed.

    A later `to_pandas` looks again and finds it.
    """
    if "pandas" in sys.modules:
        return
    blind = _Blind()
    sys.meta_path.insert(0, blind)
    try:
        import pyarrow as pa

        pa.array([1])
    finally:
        sys.meta_path.remove(blind)


class _Blind(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def make(name: str, workers: int | None) -> Inline | Local:
    """The executor of this name; workers: None for one per core; `local` with 0 workers is `inline`."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Inline() if name == "inline" or workers == 0 else Local(workers)
