"""Every command once, as a user calls it: data on stdout, all else on stderr, exit codes 0, 1, 2. And what `verify` finds."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from corpus import RECIPE, mixed, recipe, rows, write_jsonl

from curate.cli import main
from curate.errors import ManifestError
from curate.run import Run

TRANSIENT = RECIPE.replace("  - word_count\n  - exact", "  - {word_count: {}, transient: true}\n  - exact")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over 400 documents, made in its own folder with relative paths."""
    folder = tmp_path_factory.mktemp("cli")
    recipe(folder, TRANSIENT)
    mixed(folder / "in", 400)
    done = curate("run", "recipe.yaml", "-i", "in", "-o", "run", "-w", 0, "--json", check=0, cwd=folder)
    summary = json.loads(done.stdout)
    assert summary["documents"] > 100 and len(summary["digest"]) == 64
    assert Path(summary["manifest"]) == folder / "run" / "output" / "manifest.json"
    assert [s["id"] for s in summary["stages"]][:2] == ["ingest", "word_count"]
    assert "ingest" in done.stderr and "1/1 tasks" in done.stderr
    return folder / "run"


def curate(*args: Any, check: int, cwd: str | Path | None = None) -> Result:
    """Call the command line in this process, which spares a second of start-up each; check: the exit code it must have."""
    with contextlib.chdir(cwd) if cwd else contextlib.nullcontext():
        done = CliRunner().invoke(main, list(map(str, args)))
    assert done.exit_code == check, f"{args} gave {done.exit_code}\n{done.stdout}\n{done.stderr}"
    return done


def refused(*args: Any, code: int = 2, says: str, cwd: str | Path | None = None) -> None:
    """The command must say this in one line on stderr, and nothing on stdout."""
    done = curate(*args, check=code, cwd=cwd)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert says in line and done.stdout == "" and "Traceback" not in done.stderr


def answer(*args: Any, **kwargs: Any) -> Any:
    """What a command prints with --json, which must be JSON and nothing else."""
    done = curate(*args, "--json", check=0, **kwargs)

    def none(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(done.stdout, parse_constant=none)


def test_run_again_and_plan(root: Path) -> None:
    done = curate("run", "recipe.yaml", "-i", "in", "-o", "run", check=0, cwd=root.parent)
    assert " documents made of " in done.stdout and "digest" in done.stdout and "reused" in done.stderr
    plan = answer("plan", "recipe.yaml", "-i", "in", cwd=root.parent)
    assert plan["phases"][0] == {"name": "ingest", "tasks": 1, "stages": []}
    assert {"name": "score", "type": "double", "written_by": "ingest"} in plan["columns"]
    assert [f["name"] for f in plan["inputs"]] == ["a.jsonl", "b.parquet", "c.parquet"]
    assert "written by" in curate("plan", "recipe.yaml", "-i", "in", check=0, cwd=root.parent).stdout


def test_run_until(root: Path, tmp_path: Path) -> None:
    command = ["run", root.parent / "recipe.yaml", "-i", root.parent / "in", "-o", tmp_path / "run", "-w", 0]
    refused(*command, "--until", "wehre", says="--until wehre: no such stage; did you mean 'where'?")
    assert not (tmp_path / "run").exists()
    done = curate(*command, "--until", "where", check=0)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("stopped ")]
    assert "after where" in line and "without --until" in line and "digest" not in done.stdout
    assert done.stdout.splitlines()[0].startswith("stage ") and "records kept" in done.stdout
    summary = answer(*command, "--until", "where")
    assert summary["until"] == summary["stages"][-1]["id"] == "where" and not {"digest", "manifest"} & set(summary)
    assert answer("status", tmp_path / "run")[-1]["phase"].split("-")[1] == "ledger"
    assert "without --until" in curate("status", tmp_path / "run", check=0).stdout
    assert "without --until" not in curate("status", root, check=0).stdout
    shown = answer("inspect", tmp_path / "run", "-n", 3)
    assert len(shown) == 3 and "not exported yet" in curate("why", tmp_path / "run", shown[0]["id"], check=0).stdout
    refused("inspect", tmp_path / "run", "--stage", "split", code=1, says="'split' has not been run")
    refused("verify", tmp_path / "run", code=1, says="without --until")
    assert answer("why", tmp_path / "run", "doc-9")[0]["fate"]["reason"] == "exact_dedup.duplicate"
    assert answer(*command)["digest"] == answer("verify", root)["digest"]
    assert "without --until" not in curate("status", tmp_path / "run", check=0).stdout


def test_status(root: Path) -> None:
    phases = answer("status", root)
    assert all(p["done"] == p["tasks"] and p["failures"] == [] for p in phases)
    assert phases[0]["stages"] == [] and phases[0]["documents"] == 400
    assert "docs/s" in curate("status", root, check=0).stdout


def test_why(root: Path) -> None:
    life = answer("why", root, "doc-9")[0]
    assert life["fate"]["kind"] == "dropped" and life["fate"]["reason"] == "exact_dedup.duplicate"
    assert answer("why", root, "https://example.test/9")[0]["record"] == life["record"]
    kept = pl.read_parquet(root / "output" / "data" / "train-*.parquet")["id"][0]
    assert answer("why", root, kept)[0]["fate"]["output"].startswith("output/data/train-")
    assert "dropped: exact_dedup.duplicate" in curate("why", root, "doc-9", check=0).stdout
    refused("why", root, "doc-none", code=1, says="no document with the id or URL 'doc-none'")


def test_inspect(root: Path) -> None:
    assert len(answer("inspect", root, "-n", 7)) == 7
    assert {d["stage"] for d in answer("inspect", root, "--dropped", "--stage", "where")} == {"where"}
    assert answer("inspect", root, "--dropped", "--stage", "ingest") == []
    assert "example.test" in curate("inspect", root, "-n", 3, check=0).stdout
    refused("inspect", root, "--stage", "wehre", says="did you mean 'where'?")


def test_apply(tmp_path: Path) -> None:
    a, b = (write_jsonl(tmp_path / f"{n}.jsonl", rows(30, seed)) for seed, n in enumerate("ab"))
    command = ["apply", "where", a, b, "-o", tmp_path / "run", "--param", "sql=n < 10", "-w", 0]
    assert answer(*command)["documents"] == 20
    assert answer(*command)["documents"] == 20  # and again
    ledger = pl.read_parquet(tmp_path / "run" / "ledger.parquet")
    assert set(ledger["corpus"]) == {"a", "b"}
    refused("apply", "where", a, "-o", tmp_path / "other", "--param", "sgl=x", says="did you mean 'sql'?")
    refused("apply", "wher", a, "-o", tmp_path / "other", says="did you mean 'where'?")
    refused(*command, "--param", "sql=n < 20", "--limit", 5, says="--limit")


def test_stages() -> None:
    listed = answer("stages")
    assert {"name", "kind", "summary"} == set(listed[0]) and "exact_dedup" in {s["name"] for s in listed}
    one = answer("stages", "quantile")
    assert one["reasons"] and "keep" in {p["name"] for p in one["parameters"]}
    assert "parameter" in curate("stages", "quantile", check=0).stdout
    refused("stages", "quantil", says="did you mean 'quantile'?")


def test_report(root: Path) -> None:
    path = Path(answer("report", root)["report"])
    assert path.read_text(encoding="utf-8").startswith("<!")
    assert curate("report", root, check=0).stdout.strip() == str(path)


def test_export_from_any_folder(root: Path, tmp_path: Path) -> None:
    before = answer("verify", root)
    again = answer("export", root, "--set", "output.seed=8", "-w", 0, cwd="/")
    assert again["digest"] != before["digest"] and again["documents"] == before["documents"]
    assert answer("export", root, "--set", "output.seed=7", "-w", 0, cwd=tmp_path)["digest"] == before["digest"]
    refused("export", root, "--set", "stages.where.sql=true", says="only output.<option>")
    refused("export", root, "--set", "output.sed=7", says="did you mean 'seed'?")


def test_sample(tmp_path: Path) -> None:
    counts = answer("sample", tmp_path / "crawl", "--pages", 100, "--files", 2)
    assert sum(counts.values()) >= 100
    assert len(list((tmp_path / "crawl" / "crawl").iterdir())) == 2
    assert "per 20 pages" in curate("sample", tmp_path / "x", "--pages", 100, "--files", 20, check=2).stderr


def test_misuse(root: Path, tmp_path: Path) -> None:
    small = recipe(tmp_path, "name: x\nstages: []\n")
    data = write_jsonl(tmp_path / "x.jsonl", rows(3))
    for size in ("1.2.3GB", ".", "0", "much"):
        refused("run", small, "-i", data, "-o", tmp_path / "run", "--memory-limit", size, says="write a size")
    done = curate("rnu", check=2)
    assert "did you mean 'run'?" in done.stderr and "Traceback" not in done.stderr
    assert curate("run", small, "-o", tmp_path / "run", "--limit", 0, check=2).stdout == ""
    (tmp_path / "latin.yaml").write_bytes("name: Köln\n".encode("latin-1"))
    refused("run", tmp_path / "latin.yaml", "-i", data, "-o", tmp_path / "run", says="not UTF-8")
    assert not (tmp_path / "run").exists()
    pl.DataFrame({"text": ["x"], "v": [float("nan")]}).write_parquet(tmp_path / "nan.parquet")
    curate("run", small, "-i", tmp_path / "nan.parquet", "-o", tmp_path / "run", "-w", 0, check=0)
    assert answer("inspect", tmp_path / "run")[0]["v"] is None


# --------------------------------------------------------------------------------------------- verify


def test_verify(root: Path) -> None:
    found = answer("verify", root)
    assert found["ok"] and found["documents"] > 100 and len(found["digest"]) == 64
    assert answer("verify", root / "output") == found
    assert curate("verify", root, check=0).stdout.startswith("ok: ")


FILES = "ledger.parquet recipe.yaml run.json plan.json summary.json checksums.json"


@pytest.mark.parametrize("where", ["output", "documents", "documents-1-*", "attributes", "drops", *FILES.split()])
def test_verify_finds_any_changed_byte(root: Path, tmp_path: Path, where: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(root, copy)
    found = sorted(p for top in copy.glob(where) for p in ([top] if top.is_file() else sorted(top.rglob("*"))) if p.is_file())
    assert found
    rng = random.Random(where)
    for _ in range(6):
        path = rng.choice(found)
        raw = path.read_bytes()
        at = rng.randrange(len(raw))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ rng.randint(1, 255)]) + raw[at + 1 :])
        with pytest.raises(ManifestError):
            Run(copy).verify()
        path.write_bytes(raw)
    assert Run(copy).verify()["ok"]
    found[0].unlink()
    with pytest.raises(ManifestError):
        Run(copy).verify()


def test_verify_of_an_unfinished_run(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "run")
    shutil.copytree(root.parent / "in", tmp_path / "in", copy_function=shutil.copy2)
    edited = recipe(tmp_path, TRANSIENT.replace("output:", "  - lab:Fails\noutput:"))
    (tmp_path / "lab.py").write_text(FAILS)
    refused("run", edited, "-i", "in", "-o", "run", "-w", 0, code=1, says="'Fails' failed on", cwd=tmp_path)
    refused("verify", tmp_path / "run", code=1, says="has not finished", cwd=tmp_path)
    assert answer("status", tmp_path / "run", cwd=tmp_path)[-1]["stages"][-1] == "Fails"


FAILS = '''
from dataclasses import dataclass
from curate import Annotator

@dataclass(frozen=True, kw_only=True)
class Fails(Annotator):
    """Fails on every row."""
    def annotate(self, batch):
        raise ValueError("never")
'''
