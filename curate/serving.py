"""A server that a run starts for itself: on the node that asks, once for all workers, stopped when nobody needs it any more.

    with Serving("vllm serve {model} --port {port}", "some-model", "my_stage") as serving:
        while (url := serving.poll()) is None:
            time.sleep(0.2)

A *keeper*, a process of its own that needs nothing but the standard library, starts the command and watches three locks, which
the kernel gives back however a process ends: `keeper`, its own; `alive`, shared by every process that has asked; `busy`, shared
by those that are asking. Once nobody is alive, or nobody was busy for `IDLE` seconds, it stops the server and goes. So workers
share one server without knowing of each other, it stays between the shards and stages of a run, and a run that is killed by any
signal leaves none behind. A command is taken apart as a shell would do it, and no shell sees it.

datatrove's inference runner has classes for servers, too. They are not used here: they belong to its own pipeline (a server for
each task, which it starts before it looks whether anything is to be asked), need the server's package in this environment, and
pass `--trust-remote-code` whatever the model.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

PORT, MODEL = "{port}", "{model}"
IDLE = 600.0  # seconds without a question after which the server is stopped, while processes that have asked live on
STARTING = 1800.0  # seconds that a server may take until it answers: large models are slow to load
EVERY = 60.0  # seconds between two lines that say so
GRACE = 30.0  # seconds from the signal to the end
_ALIVE: dict[Path, int] = {}  # held until this process ends


def check_command(command: str, server: str, name: str, key: str = "") -> None:
    """Raise RecipeError, which begins with `name`, for a command that cannot be; server: a URL that was given beside it; key:
    what may not stand in it."""
    from curate.errors import RecipeError

    if server:
        raise RecipeError(f"{name}: give `server`, where one runs, or `serve`, the command that starts one, not both")
    if key and key in command:
        raise RecipeError(f"{name}: serve has a key in it; leave it to the environment, which the server inherits")
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise RecipeError(f"{name}: serve is no command: {error}") from None
    if not any(PORT in part for part in parts):
        raise RecipeError(f"{name}: serve has no {PORT}; write a command such as 'vllm serve {MODEL} --port {PORT}'")


class Serving:
    """The server of a command, shared by all processes of this node that name the same. Use as a context manager.

    command: with `{port}`, and `{model}` if need be. name: of the stage, for messages. secret: blotted out in what is quoted of
    the server's log. Other GPUs, or another job of Slurm, mean another server.
    """

    def __init__(self, command: str, model: str, name: str, secret: str = ""):
        from curate import models

        self._name, self._secret = name, secret
        self._parts = [part.replace(MODEL, model) for part in shlex.split(command)]
        here = [socket.gethostname(), *(os.environ.get(v, "") for v in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"))]
        key = hashlib.blake2b(json.dumps([self._parts, here]).encode(), digest_size=8).hexdigest()
        self.folder = models.cache().parent / "serving" / key
        self._busy = -1
        self._answered = False
        self._keeper: subprocess.Popen[bytes] | None = None
        self._since = self._told = time.monotonic()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ask no more. The server stays as long as this process lives, but for `IDLE` seconds at most."""
        if self._busy >= 0:
            os.close(self._busy)
            self._busy = -1

    def poll(self) -> str | None:
        """The base URL of the server if it answers, None if it does not yet: call again soon. Starts it if nobody has.

        Raises StageError where it cannot be started, ends without an answer, or takes longer than `STARTING` seconds.
        """
        if not self._held():
            return None  # it is just being stopped
        keeper = _locked(self.folder / "keeper", fcntl.LOCK_EX)
        if keeper >= 0:
            try:
                if self._keeper is not None:
                    early = "" if self._answered else " before it answered"
                    raise self._failed(f"has ended with exit code {self._keeper.wait()}{early}")
                self._start(keeper)
            finally:
                os.close(keeper)  # which leaves the lock to the keeper
            return None
        url = self._address()
        if url and _answers(url):
            self._answered = True
            return url
        now = time.monotonic()
        if now - self._since > STARTING:
            raise self._failed(f"has not answered within {STARTING / 60:.0f} minutes")
        if now - self._told > EVERY:
            self._told = now
            self._say(f"still waiting for the server, {now - self._since:,.0f} s")
        return None

    def _held(self) -> bool:
        """Whether this process holds the locks that keep the server."""
        if self._busy >= 0:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.folder not in _ALIVE:
            if (alive := _locked(self.folder / "alive", fcntl.LOCK_SH)) < 0:
                return False
            _ALIVE[self.folder] = alive
        self._busy = _locked(self.folder / "busy", fcntl.LOCK_SH)
        return self._busy >= 0

    def _start(self, keeper: int) -> None:
        from curate.errors import StageError

        if shutil.which(self._parts[0]) is None:
            raise StageError(f"{self._name}: there is no command {self._parts[0]!r} here, which `serve` begins with")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (self.folder / "address").write_text(str(port))
        command = [part.replace(PORT, str(port)) for part in self._parts]
        self._say(f"starting {shlex.join(command)}; what it says is in {self.folder / 'log'}")
        with os.fdopen(os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", __file__, str(self.folder), str(IDLE), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[keeper],
                env=_environment(),
                start_new_session=True,
            )

    def _address(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            return f"http://127.0.0.1:{int((self.folder / 'address').read_text())}/v1"
        return ""

    def _failed(self, how: str) -> Exception:
        from curate.errors import StageError

        log = self.folder / "log"
        with contextlib.suppress(OSError):
            lines = [line for line in log.read_bytes()[-4000:].decode(errors="replace").splitlines() if line.strip()]
            said = " / ".join(lines[-5:])[-600:]
            how += f", and last said: {said.replace(self._secret, '***') if self._secret else said}" if said else ""
        return StageError(f"{self._name}: the server {self._parts[0]!r} {how} (all of it: {log})")

    def _say(self, what: str) -> None:
        print(f"{self._name}: {what}", file=sys.stderr, flush=True)


def _locked(path: Path, kind: int) -> int:
    """An open file that is locked, or -1 where somebody else has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return -1
    return file


def _environment() -> dict[str, str]:
    """What the server inherits. Workers are told to compute on one core and where to find packages: that is for them alone."""
    from curate.executors import ONE_THREAD, WORKER

    if WORKER not in os.environ:
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if name not in {*ONE_THREAD, WORKER, "PYTHONPATH"}}


def _answers(url: str) -> bool:
    address, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", f"/{path}/models")
        return connection.getresponse().status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# --------------------------------------------------------------------------------------------- the keeper


def keep(folder: Path, idle: float, command: list[str]) -> int:
    """Run the command for as long as somebody needs it. Returns its exit code, 0 where it was stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent)
    unneeded: float | None = None
    try:
        while server.poll() is None:
            if _locked(folder / "alive", fcntl.LOCK_EX) >= 0:
                return 0  # with the lock: who comes now waits until the server is gone
            if (busy := _locked(folder / "busy", fcntl.LOCK_EX)) >= 0:
                unneeded = unneeded or time.monotonic()
                if time.monotonic() - unneeded >= idle:
                    return 0
                os.close(busy)
            else:
                unneeded = None
            time.sleep(0.25)
        return server.returncode if server.returncode >= 0 else 128 - server.returncode
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=GRACE)
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _end_with_parent() -> None:
    """Have the kernel end the server where its keeper is killed, which then cannot do so; Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
