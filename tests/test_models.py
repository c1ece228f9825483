"""Models by name: fetched once, checked, and never half there."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from curate import models
from curate.cli import main
from curate.errors import RecipeError, SourceError
from curate.models import Named
from curate.stages.language import Language

BODY = b"the bytes of a model, " * 100_000
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """A server on this machine. files: path to body; asked: (path, its Authorization header) of every request."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    password: str = ""
    elsewhere: str = ""
    missing: int = 0


def serve(server: Server) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.asked.append((self.path, self.headers["Authorization"]))
            if server.password and self.headers["Authorization"] != server.password:
                self.send_error(401)
            elif server.elsewhere:
                self.send_response(302)
                self.send_header("Location", server.elsewhere + path)
                self.end_headers()
            elif path not in server.files:
                self.send_error(404)
            else:
                body = server.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) - server.missing])

        def log_message(self, *_: object) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{found.server_port}"
    threading.Thread(target=found.serve_forever, daemon=True).start()
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server(files={"/models/tiny.bin": BODY})
    running = serve(told)
    yield told
    running.shutdown()
    running.server_close()


@pytest.fixture
def tiny(server, tmp_path, monkeypatch) -> Named:
    """A named model that the server has, and an empty cache."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CURATE_MODELS_MIRROR", raising=False)
    model = Named("tiny", "tiny.bin", f"{server.url}/models/tiny.bin", SHA, len(BODY) / 1e6, "Apache-2.0", "for tests")
    monkeypatch.setitem(models.NAMED, "tiny", model)
    return model


def left(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file())


def test_a_model_is_fetched_once(tiny, server, tmp_path):
    seen: list[tuple[int, int | None]] = []
    path = models.get("tiny", lambda done, size: seen.append((done, size)))
    assert path == tmp_path / "cache" / "models" / "tiny.bin" and path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY)) and len(seen) > 1
    assert models.get("tiny") == path and len(server.asked) == 1
    assert models.resolve("tiny") == str(path)
    path.write_bytes(b"changed since")
    assert models.get("tiny").read_bytes() == BODY and len(server.asked) == 2
    assert left(tmp_path) == ["tiny.bin"]


def test_other_bytes_are_not_kept(tiny, server, tmp_path):
    server.files["/models/tiny.bin"] = BODY.replace(b"model", b"modem", 1)
    with pytest.raises(SourceError, match=rf"another file: its sha256 is \w+, not {SHA}"):
        models.get("tiny")
    assert left(tmp_path) == []


def test_what_is_in_the_cache_stays_when_a_download_fails(tiny, server, tmp_path):
    server.files.clear()
    path = tmp_path / "cache" / "models" / "tiny.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"older")
    with pytest.raises(SourceError, match="404"):
        models.get("tiny")
    assert path.read_bytes() == b"older" and left(tmp_path) == ["tiny.bin"]


def test_a_broken_download_is_not_kept(tiny, server, tmp_path):
    server.missing = 1000
    with pytest.raises(SourceError, match=r"ended after 2,199,000 of 2,200,000 bytes") as caught:
        models.get("tiny")
    assert "\n" not in str(caught.value) and left(tmp_path) == []


def test_nobody_answers(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS_MIRROR", "http://somebody:secret@127.0.0.1:1/models?token=hidden")
    with pytest.raises(SourceError, match=r"cannot fetch http://127.0.0.1:1/models/tiny.bin: .*refused") as caught:
        models.get("tiny")
    assert "secret" not in str(caught.value) and "somebody" not in str(caught.value) and "hidden" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_mirror_takes_the_place_of_the_address(tiny, server, tmp_path, monkeypatch):
    server.files = {"/mine/tiny.bin": BODY}
    monkeypatch.setenv("CURATE_MODELS_MIRROR", f"{server.url}/mine/?token=1")
    assert models.get("tiny").read_bytes() == BODY
    assert server.asked == [("/mine/tiny.bin?token=1", None)]
    (tmp_path / "tiny.bin").write_bytes(BODY)
    monkeypatch.setenv("CURATE_MODELS_MIRROR", tmp_path.as_uri())
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "second"))
    assert models.get("tiny").read_bytes() == BODY


def test_credentials_go_to_the_mirror_and_no_further(tiny, server, monkeypatch):
    other = Server(files={"/models/tiny.bin": BODY})
    running = serve(other)
    try:
        server.password = "Basic " + base64.b64encode(b"me:p@ss").decode()
        server.elsewhere = other.url
        host = server.url.removeprefix("http://")
        monkeypatch.setenv("CURATE_MODELS_MIRROR", f"http://me:p%40ss@{host}/models")
        assert models.get("tiny").read_bytes() == BODY
        assert server.asked[-1] == ("/models/tiny.bin", server.password)
        assert other.asked == [("/models/tiny.bin", None)]
        monkeypatch.setenv("CURATE_MODELS_MIRROR", f"http://me:wrong@{host}/models")
        Path(models.resolve("tiny")).unlink()
        with pytest.raises(SourceError, match="401") as caught:
            models.get("tiny")
        assert "wrong" not in str(caught.value) and "me:" not in str(caught.value)
    finally:
        running.shutdown()
        running.server_close()


@pytest.mark.parametrize("mirror", ["ftp://x/y", "models", "http://", "http://x:y", "http://[::1"])
def test_a_mirror_that_is_no_address(tiny, tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("CURATE_MODELS_MIRROR", mirror)
    with pytest.raises(SourceError, match="CURATE_MODELS_MIRROR"):
        models.get("tiny")
    assert left(tmp_path) == []


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("CURATE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.cache() == tmp_path / "curate" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.cache() == tmp_path / ".cache" / "curate" / "models"
    monkeypatch.setenv("CURATE_CACHE", "~/elsewhere")
    assert models.cache() == tmp_path / "elsewhere" / "models"


def test_names():
    assert models.resolve("some/path.bin") == "some/path.bin"
    with pytest.raises(RecipeError, match="did you mean 'lid176'"):
        models.get("lid-176")
    for model in models.NAMED.values():
        assert len(model.sha256) == 64 and model.url.startswith("https://") and model.licence
    assert len({m.file for m in models.NAMED.values()}) == len(models.NAMED)


def test_a_stage_says_what_to_run(tiny):
    with pytest.raises(RecipeError, match="run `curate models get tiny`"):
        Language(model="tiny")(["a"])


def test_the_command(tiny, server):
    def run(*args: str, code: int = 0):
        done = CliRunner().invoke(main, ["models", *args])
        assert done.exit_code == code, done.output
        return done

    before = {m["name"]: m for m in json.loads(run("list", "--json").stdout)}
    assert before["tiny"]["path"] is None and before["lid176"]["sha256"] == models.NAMED["lid176"].sha256
    path = run("get", "tiny").stdout.strip()
    assert Path(path).read_bytes() == BODY
    assert json.loads(run("get", "tiny", "--json").stdout) == {"name": "tiny", "path": path, "sha256": SHA}
    after = {m["name"]: m for m in json.loads(run("--json").stdout)}
    assert after["tiny"]["path"] == path
    assert path in run().stdout and "not fetched" in run("list").stdout
    assert "did you mean 'tiny'" in run("get", "tinny", code=2).stderr
    server.files.clear()
    Path(path).unlink()
    failed = run("get", "tiny", code=2)
    assert failed.stdout == "" and [line for line in failed.stderr.splitlines() if line.startswith("error: tiny: ")]
