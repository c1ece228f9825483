"""Servers that a run starts for itself: real processes, shared, waited for, and stopped however a run ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numba
import pyarrow.parquet as pq
import pytest

import curate.kernels  # noqa: F401 - says where compiled ones are
from curate import serving
from curate.errors import RecipeError, StageError
from curate.recipe import Recipe, loads
from curate.run import run
from curate.serving import Serving

HERE = Path(__file__).parent
SERVER = """\
import os, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from llm_server import Server
folder = Path({folder!r})
with (folder / "pids").open("a") as out:
    out.write(f"{{os.getpid()}}\\n")
(folder / "environment").write_text("\\n".join(f"{{k}}={{v}}" for k, v in os.environ.items()))
print("loading", flush=True)
time.sleep({load})
with Server(port=int(sys.argv[1]), models=(sys.argv[2],)):
    time.sleep(600)
"""


@pytest.fixture
def command(tmp_path, monkeypatch) -> str:
    """A command that starts the tests' server, which takes a moment to load."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "user"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", numba.config.CACHE_DIR)  # kernels are compiled already
    (tmp_path / "server.py").write_text(SERVER.format(here=str(HERE), folder=str(tmp_path), load=0.3))
    return f"{sys.executable} '{tmp_path}/server.py' {{port}} {{model}}"


def pids(tmp_path: Path) -> list[int]:
    path = tmp_path / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(what, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


RECIPE = """\
name: served
source: jsonl
stages:
  - rewrite:
      serve: {command}
      model: tiny
      prompt: {prompt}
      cache: {cache}
      length: [0, 0]
      retries: 1
  - word_count
output: {{validation: 0}}
"""


def served(tmp_path: Path, command: str, n: int) -> Recipe:
    """A run over n documents that starts the server."""
    (tmp_path / "in").mkdir()
    for part in range(2):
        lines = (json.dumps({"id": f"d{i}", "text": f"The old mill stands by river {i}."}) for i in range(part, n, 2))
        (tmp_path / "in" / f"{part}.jsonl").write_text("\n".join(lines))
    (tmp_path / "anew.jinja").write_text("==========\n{{ text }}\n==========\n")
    prompt, cache = tmp_path / "anew.jinja", tmp_path / "answers"
    text = RECIPE.format(command=json.dumps(command), prompt=prompt, cache=cache)
    return loads(text).with_inputs([str(tmp_path / "in")])


def exported(root: Path) -> list[dict]:
    return [r for p in sorted(root.glob("output/**/*.parquet")) for r in pq.read_table(p).to_pylist()]


def test_a_run_starts_one_server_for_all_workers_and_stops_it(tmp_path, command, capfd):
    recipe = served(tmp_path, command, 40)
    run(recipe, tmp_path / "run", workers=2)
    (pid,) = pids(tmp_path)
    assert until(lambda: not runs(pid), 5)
    assert capfd.readouterr().err.count(f"rewrite: starting {sys.executable}") == 1
    rows = exported(tmp_path / "run")
    assert {r["text"] for r in rows} == {f"About The old mill stands by river {i}." for i in range(40)}
    environment = (tmp_path / "environment").read_text()
    assert "CURATE_WORKER=" not in environment and "POLARS_MAX_THREADS=1" not in environment
    # where all is answered none is started
    (tmp_path / "server.py").unlink()
    run(recipe, tmp_path / "other", workers=0)
    assert exported(tmp_path / "other") == rows and pids(tmp_path) == [pid]


def test_a_server_that_dies_is_quoted_and_started_again_by_the_next_run(tmp_path, command):
    server, recipe = (tmp_path / "server.py").read_text(), served(tmp_path, command, 40)
    (tmp_path / "server.py").write_text(server.replace("time.sleep(600)", "time.sleep(1.0)\nsys.exit('out of memory')"))
    quick = Path(tmp_path / "server.py").read_text().replace("models=(sys.argv[2],)", "models=(sys.argv[2],), die_after=9")
    (tmp_path / "server.py").write_text(quick)
    with pytest.raises(StageError, match="has ended with exit code 1, and last said: loading / out of memory"):
        run(recipe, tmp_path / "run", workers=0)
    (tmp_path / "server.py").write_text(server)
    assert len(run(recipe, tmp_path / "run", workers=0).summary["stages"]) and len(pids(tmp_path)) == 2
    assert {r["rewrite_status"] for r in exported(tmp_path / "run")} == {"rewritten"}


ASKER = """\
import sys, time
from curate.serving import Serving
with Serving(sys.argv[1], "tiny", "asker") as server:
    while server.poll() is None:
        time.sleep(0.05)
    print("ready", flush=True)
    time.sleep(600)
"""


def test_processes_share_it_and_none_is_left_when_they_are_killed(tmp_path, command):
    line = [sys.executable, "-c", ASKER, command]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == [b"ready\n"] * 2
    (pid,) = pids(tmp_path)
    processes[0].kill()
    processes[0].wait()
    time.sleep(0.6)
    assert runs(pid)
    processes[1].kill()
    processes[1].wait()
    assert until(lambda: not runs(pid), 5)


def wait_for(server: Serving) -> str:
    assert until(lambda: bool(server.poll()))
    return server.poll() or ""


def test_it_goes_when_it_is_not_asked_and_with_its_keeper(tmp_path, command, monkeypatch):
    monkeypatch.setattr(serving, "IDLE", 0.6)
    with Serving(command, "tiny", "here") as server:
        url = wait_for(server)
        time.sleep(0.9)
        assert runs(pids(tmp_path)[0]) and server.poll() == url  # somebody may ask
    assert until(lambda: not runs(pids(tmp_path)[0]), 5)
    with Serving(command, "tiny", "again") as server:
        wait_for(server)
        assert len(pids(tmp_path)) == 2
        keeper = server._keeper.pid
        os.kill(keeper, signal.SIGKILL)  # the server goes with it
        assert until(lambda: not runs(pids(tmp_path)[1]), 5)


def test_a_server_that_cannot_start_is_an_error_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "user"))
    said = f"{sys.executable} -c 'import sys; print(\"no GPU; the key is sk-hidden-0123\"); sys.exit(3)' {{port}}"
    with Serving(said, "tiny", "rewrite", "sk-hidden-0123") as server, pytest.raises(StageError) as error:
        until(lambda: bool(server.poll()), 10)
    assert "rewrite: the server" in str(error.value) and "exit code 3 before it answered" in str(error.value)
    assert "no GPU; the key is ***" in str(error.value)
    with (
        Serving("no-such-command {port}", "m", "rewrite") as server,
        pytest.raises(StageError, match="no command 'no-such-comm"),
    ):
        server.poll()
    monkeypatch.setattr(serving, "STARTING", 0.3)
    slow = Serving(f"{sys.executable} -c 'import time; time.sleep(60)' {{port}}", "m", "x")
    with slow, pytest.raises(StageError, match="has not answered within"):
        until(lambda: bool(slow.poll()), 10)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"serve": "vllm serve m"}, r"serve has no \{port\}"),
        ({"serve": "vllm 'serve --port {port}"}, "serve is no command"),
        ({"serve": "vllm --port {port}", "server": "http://127.0.0.1:9/v1"}, "not both"),
        ({"serve": "vllm --port {port} --api-key sk-secret-99"}, "serve has a key in it"),
    ],
)
def test_commands_that_cannot_be(options, said, monkeypatch):
    from curate.stages.annotate_llm import AnnotateLlm
    from curate.stages.entigraph import EntiGraph
    from curate.stages.refine import Refine
    from curate.stages.rewrite import Rewrite

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-99")
    for stage in (AnnotateLlm, EntiGraph, Refine, Rewrite):
        with pytest.raises(RecipeError, match=said) as error:
            stage(model="m", **({"prompt": "dataman"} if stage in (AnnotateLlm, Rewrite) else {}), **options)
        assert "secret" not in str(error.value)
