"""The promises of the engine, each against real runs: conservation, determinism, resume, blast radius, nothing half-written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpus import RECIPE, curate, mixed, recipe, refused, rows, write_jsonl

from curate import Annotator, Expand, Filter
from curate import dataset as dataset_module
from curate.errors import BlastRadiusError, ColumnError, ManifestError, RecipeError, RunConflict, StageError
from curate.executors import Local
from curate.manifest import verify
from curate.plan import Item
from curate.recipe import Output, Recipe
from curate.run import Run, run
from curate.sources import Source
from curate.stage import BatchFn, Task, with_columns


def go(tmp_path: Path, data: Path, body: str = RECIPE, out: str = "run", **options: object) -> Run:
    loaded = Recipe.load(recipe(tmp_path, body)).with_inputs([str(data)])
    return run(loaded, tmp_path / out, **{"executor": "inline", **options})  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- conservation


def test_ledger_closes_and_is_true(tmp_path: Path) -> None:
    documents = rows(1500)
    finished = go(tmp_path, write_jsonl(tmp_path / "x.jsonl", documents))
    ledger = pl.read_parquet(tmp_path / "run" / "ledger.parquet")
    stages = {s["id"]: s for s in finished.summary["stages"]}
    assert stages["ingest"]["rows_in"] == 1500
    for before, after in zip(finished.summary["stages"], finished.summary["stages"][1:], strict=False):
        assert before["rows_out"] == after["rows_in"]
        assert after["rows_in"] + after["rows_added"] == after["rows_out"] + sum(after["drops"].values())

    # against a naive count of the same thing
    from curate.stages.exact_dedup import ExactDedup

    unique = ExactDedup(by="normalised")(documents).kept
    assert stages["exact_dedup"]["rows_out"] == unique.num_rows
    long = sum(len(t.split()) > 10 for t in unique["text"].to_pylist())
    assert stages["where"]["rows_out"] == long
    assert stages["export"]["rows_out"] == finished.manifest.totals.documents

    out = pl.read_parquet(tmp_path / "run" / "output" / "data" / "*.parquet")
    assert len(out) == finished.summary["documents"]
    kept = ledger.filter(pl.col("stage") == "export")
    assert kept["documents"].sum() == len(out)
    assert kept["bytes"].sum() == out["text"].str.len_bytes().sum()
    assert kept["tokens"].sum() == out["tokens"].sum() == ((out["text"].str.len_bytes() + 3) // 4).sum()
    dropped = ledger.filter(pl.col("reason").is_not_null()).group_by("stage", "reason").agg(pl.col("documents").sum())
    assert {(s, r): n for s, r, n in dropped.rows()} == {(s, r): n for s, e in stages.items() for r, n in e["drops"].items()}


def test_a_lost_row_is_noticed(tmp_path: Path) -> None:
    finished = go(tmp_path, mixed(tmp_path / "in"), RECIPE.split("  - split")[0] + "output: {seed: 1}\n")
    layer = sorted((finished.root / finished.node("word_count").layer).glob("*.parquet"))[0]
    pl.read_parquet(layer).slice(1).write_parquet(layer)
    says = refused("run", tmp_path / "recipe.yaml", "-i", tmp_path / "in", "-o", finished.root, code=1)
    assert "word_count" in says and "layer" in says


def test_every_document_can_be_explained(tmp_path: Path) -> None:
    documents = rows(400)
    finished = go(tmp_path, write_jsonl(tmp_path / "x.jsonl", documents))
    fates: dict[str, int] = {}
    for document in documents[::7]:
        life = finished.why(document["id"])[-1]
        fates[life["fate"]["kind"]] = fates.get(life["fate"]["kind"], 0) + 1
        if life["fate"]["kind"] == "dropped" and life["fate"]["stage"] == "exact_dedup":
            twin = next(d for d in documents if d["id"] == life["fate"]["duplicate_of"])
            assert twin["text"] == document["text"]
    assert set(fates) == {"dropped", "expanded"}
    out = pl.read_parquet(tmp_path / "run" / "output" / "data" / "*.parquet")
    child = out["id"][0]
    life = finished.why(child)[0]
    assert "#split." in child and life["fate"]["kind"] == "kept"
    shard = pl.read_parquet(tmp_path / "run" / life["fate"]["output"])
    assert shard["id"][life["fate"]["row"]] == child
    drops = finished.drops("exact_dedup")
    assert set(drops["_reason"].to_pylist()) == {"exact_dedup.duplicate"}
    assert None not in drops["_duplicate_of"].to_pylist() and None not in drops["id"].to_pylist()


# --------------------------------------------------------------------------------------------- determinism


def test_same_digest_for_any_executor_and_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = mixed(tmp_path / "in")
    digests = {}
    for name, options in {
        "inline": {},
        "one": {"executor": "local", "workers": 1},
        "two": {"executor": "local", "workers": 2},
    }.items():
        digests[name] = go(tmp_path, data, out=name, **options).manifest.digest
    for size in (7, 100):
        monkeypatch.setattr(dataset_module, "MAX_ROWS", size)
        monkeypatch.setattr(dataset_module, "WIDE_ROWS", 5 * size)
        digests[f"batches of {size}"] = go(tmp_path, data, out=f"b{size}").manifest.digest
    assert len(set(digests.values())) == 1, digests
    assert len(pl.read_parquet(tmp_path / "one" / "output" / "data" / "*.parquet")) > 500
    for path in sorted((tmp_path / "one" / "output" / "data").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / "output" / "data" / path.name).read_bytes()


def test_the_place_of_input_and_run_does_not_matter(tmp_path: Path) -> None:
    first = go(tmp_path, mixed(tmp_path / "a" / "in"), out="x").manifest
    second = go(tmp_path, mixed(tmp_path / "b" / "in"), out="deeper/y").manifest
    assert first.digest == second.digest
    other = go(tmp_path, tmp_path / "a" / "in", RECIPE.replace("seed: 7", "seed: 8"), out="z").manifest
    assert other.digest != first.digest


# --------------------------------------------------------------------------------------------- resume


def test_second_run_does_no_work(tmp_path: Path) -> None:
    data = mixed(tmp_path / "in")
    first = go(tmp_path, data)
    digest, before = first.manifest.digest, stamps(first.root, "documents", "attributes", "drops")
    second = go(tmp_path, data)
    assert stamps(second.root, "documents", "attributes", "drops") == before
    assert second.manifest.digest == digest


def stamps(root: Path, *folders: str) -> dict[str, int]:
    return {
        str(p.relative_to(root)): p.stat().st_mtime_ns
        for folder in folders
        for p in (root / folder).rglob("*.parquet")
        if p.is_file()
    }


def test_an_edited_stage_redoes_only_what_follows(tmp_path: Path) -> None:
    data = mixed(tmp_path / "in")
    first = go(tmp_path, data)
    digest, before = first.manifest.digest, stamps(first.root, "documents", "attributes", "drops")
    edited = go(tmp_path, data, RECIPE.replace("word_count > 10", "word_count > 60"))
    after = stamps(edited.root, "documents", "attributes", "drops")
    assert {p: t for p, t in after.items() if p in before} == before, "finished layers were written again"
    new = {p.split("/")[1].rsplit("-", 1)[0] for p in after if p not in before}
    assert new == {"where", "word_count#2", "split", "quantile"}
    assert edited.manifest.digest != digest
    fresh = go(tmp_path, data, RECIPE.replace("word_count > 10", "word_count > 60"), out="fresh")
    assert edited.manifest.digest == fresh.manifest.digest
    for path in stamps(fresh.root, "attributes", "drops"):  # though the pass began at another stage, with other batches
        assert (edited.root / path).read_bytes() == (fresh.root / path).read_bytes()
    back = go(tmp_path, data)  # and back again: everything is still there
    assert back.manifest.digest == digest


def test_another_id_of_a_stage_that_names_documents(tmp_path: Path) -> None:
    data, body = mixed(tmp_path / "in", 300), "name: t\nstages:\n  - {split: {max_bytes: 600}, id: one}\n  - exact_dedup\n"
    go(tmp_path, data, body)
    edited = go(tmp_path, data, body.replace("one", "two"))
    assert edited.manifest.digest == go(tmp_path, data, body.replace("one", "two"), out="fresh").manifest.digest


STAGES = ["ingest", "word_count", "exact_dedup", "where", "split", "word_count#2", "quantile"]


@pytest.mark.parametrize("workers", [0, 2])
def test_until(tmp_path: Path, workers: int) -> None:
    """A run that stops after each of its stages in turn: what it counts is what the whole run counts, which ends the same."""
    data, options = mixed(tmp_path / "in", 600), {"executor": "local", "workers": workers}
    whole = go(tmp_path, data, out="whole", **options)
    for i, stage in enumerate(STAGES):
        stopped = go(tmp_path, data, until=stage, **options)
        assert stopped.until == stage and not stopped.exported
        assert stopped.summary["stages"] == whole.summary["stages"][: i + 1]
        assert stopped.summary["documents"] == len(stopped.dataset().scan().select("id").collect())
        ledger = pl.read_parquet(stopped.root / "ledger.parquet").sort(pl.all())
        expected = pl.read_parquet(whole.root / "ledger.parquet").filter(pl.col("stage").is_in(STAGES[: i + 1]))
        assert ledger.equals(expected.sort(pl.all()))
        assert [n.id for n in stopped.plan.nodes] == STAGES[1 : i + 1]
        assert not (stopped.root / "output").exists()
        for use in (lambda run: run.manifest, lambda run: run.verify()):
            with pytest.raises(ManifestError, match="the same command without --until"):
                use(stopped)
    with pytest.raises(RecipeError, match=r"--until qantile: no such stage; did you mean 'quantile'\?"):
        go(tmp_path, data, until="qantile")
    before = stamps(tmp_path / "run", "documents", "attributes", "drops")
    finished = stopped.resume(**options)
    assert finished.manifest.digest == whole.manifest.digest and finished.until is None and finished.verify()["ok"]
    assert before.items() <= stamps(finished.root, "documents", "attributes", "drops").items(), "something was done again"


def test_until_in_a_finished_run(tmp_path: Path) -> None:
    data, edited = mixed(tmp_path / "in", 600), RECIPE.replace("word_count > 10", "word_count > 60")
    first = go(tmp_path, data)
    digest = first.manifest.digest
    document = pl.read_parquet(first.root / "output" / "data" / "*.parquet")["id"][0].partition("#")[0]
    stopped = go(tmp_path, data, edited, until="where")
    fate = stopped.why(document)[0]["fate"]
    assert fate["kind"] in ("kept", "dropped") and not fate.get("output"), "the output that is there is of another recipe"
    with pytest.raises(ManifestError, match=r"stage 'split' has not been run: .* stopped after 'where'"):
        stopped.node("split")
    assert verify(stopped.root / "output")["digest"] == digest, "and it is a whole one"
    finished = go(tmp_path, data, edited)
    assert finished.manifest.digest == go(tmp_path, data, edited, out="fresh").manifest.digest != digest


def test_until_keeps_what_later_stages_read(tmp_path: Path) -> None:
    data = mixed(tmp_path / "in", 300)
    stopped = go(tmp_path, data, TRANSIENT, until="word_count")
    assert stamps(stopped.root, "attributes"), "a transient column goes after its last reader, which is still to come"
    assert stamps(go(tmp_path, data, TRANSIENT, until="where").root, "attributes") == {}
    assert go(tmp_path, data, TRANSIENT).manifest.digest == go(tmp_path, data, TRANSIENT, out="fresh").manifest.digest


def test_killed_when_it_was_to_stop_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before its counts are put together, which are not those of the whole run."""
    data, body = mixed(tmp_path / "in", 300), "name: t\nstages: [word_count]\n"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("curate.ledger.merge", killed)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, data, body, until="word_count")
    assert go(tmp_path, data, body).summary["stages"][-1]["rows_out"] == 300


@dataclass(frozen=True, kw_only=True)
class Noted(Annotator):
    """Counts the documents that it finds even, and the rest by the last digit of `n`."""

    into: str = "half"

    def reads(self) -> tuple[str, ...]:
        return ("n",)

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.int64())])

    def open(self, task: Task) -> BatchFn:
        def process(batch: pa.RecordBatch) -> pa.RecordBatch:
            for n in batch["n"].to_pylist():
                task.count("even documents" if n % 2 == 0 else f"documents that end in {n % 10}")
            return with_columns(batch, {self.into: pc.divide(batch["n"], 2)})

        return process


NOTED = """\
name: noted
stages:
  - where: {sql: "n % 10 < 6"}
  - test_run:Noted: {}
  - word_count
  - test_run:Noted: {into: again}
    id: second
  - where: {sql: "word_count > 10"}
    id: long
"""


def test_notes_of_map_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = mixed(tmp_path / "in", 600)
    expected = {
        "documents that end in 1": 60,
        "documents that end in 3": 60,
        "documents that end in 5": 60,
        "even documents": 180,
    }

    def noted(run: Run) -> dict[str, dict[str, int]]:
        return {s["id"]: s["notes"] for s in run.summary["stages"] if s["notes"]}

    both = {"Noted": expected, "second": expected}
    first = go(tmp_path, data, NOTED)
    assert noted(first) == both
    before = stamps(first.root, "attributes", "drops")
    assert noted(go(tmp_path, data, NOTED)) == both, "nothing was done, and nothing forgotten"
    assert noted(go(tmp_path, data, NOTED.replace("word_count > 10", "word_count > 60"))) == both
    assert noted(go(tmp_path, data, NOTED, until="second")) == both
    assert before.items() <= stamps(first.root, "attributes", "drops").items()
    assert noted(go(tmp_path, data, NOTED, out="two", executor="local", workers=2)) == both
    monkeypatch.setattr(dataset_module, "MAX_ROWS", 7)
    monkeypatch.setattr(dataset_module, "WIDE_ROWS", 30)
    assert noted(go(tmp_path, data, NOTED, out="small")) == both
    fewer = noted(go(tmp_path, data, NOTED.replace("n % 10 < 6", "n % 10 < 2")))
    assert fewer["Noted"] == fewer["second"] == {"documents that end in 1": 60, "even documents": 60}


def test_half_written_files_are_never_read(tmp_path: Path) -> None:
    data = mixed(tmp_path / "in")
    first = go(tmp_path, data)
    for folder in {p.parent for p in first.root.rglob("*.parquet")}:
        (folder / ".tmp-0123-00000-000.parquet").write_bytes(b"PAR1 half")
        (folder / "99999-000.parquet").write_bytes(b"PAR1 not in any plan")
    edited = go(tmp_path, data, RECIPE.replace("word_count > 10", "word_count > 60"))
    fresh = go(tmp_path, data, RECIPE.replace("word_count > 10", "word_count > 60"), out="fresh")
    assert edited.manifest.digest == fresh.manifest.digest
    assert not list(edited.root.rglob(".tmp-*"))


def killed(command: list[str], after: float) -> bool:
    """Run a command and kill its whole process group with SIGKILL after some seconds; whether it was still running."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)  # only the parent: workers must notice by themselves
        process.wait()
        return True


def kill_and_resume(tmp_path: Path, kills: int, n: int, seed: int) -> None:
    rng = random.Random(seed)
    data, path = mixed(tmp_path / "in", n), recipe(tmp_path)
    started = time.perf_counter()
    curate("run", path, "-i", data, "-o", tmp_path / "whole", "-w", 2, check=0)
    whole = time.perf_counter() - started
    digest = Run(tmp_path / "whole").manifest.digest
    done = attempts = 0
    number = 0
    while done < kills:
        out = tmp_path / f"run{number}"
        number += 1
        for _ in range(6):  # several kills of one run, then let it end
            attempts += 1
            assert attempts < kills * 8, "the run ends before it can be killed"
            command = [sys.executable, "-m", "curate.cli", "run", str(path), "-i", str(data), "-o", str(out), "-w", "2"]
            if not killed(command, rng.uniform(0.1, whole)):
                break
            done += 1
        curate("run", path, "-i", data, "-o", out, "-w", rng.choice([0, 1, 2]), check=0)
        assert Run(out).manifest.digest == digest
        assert curate("verify", out, check=0)
        assert not list(out.rglob(".tmp-*"))
    print(f"{done} kills in {number} runs, {attempts} attempts, a whole run takes {whole:.1f} s")


def test_killed_and_resumed(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=4, n=1500, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_and_resumed_often(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=40, n=6000, seed=2)


def test_killed_while_the_run_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()
    (tmp_path / "run" / ".tmp-0123-run.json").write_text("{")
    assert go(tmp_path, mixed(tmp_path / "in", 100)).verify()["ok"]


@pytest.mark.parametrize("which", range(4))
def test_killed_while_a_folder_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """Whatever folder is half deleted: nobody takes the other half for whole."""
    data, edited = mixed(tmp_path / "in", 300), TRANSIENT.replace("n > 3", "n > 3 AND word_count > 30")
    deleted: list[Path] = []

    def half(folder: Path, **_: object) -> None:
        deleted.append(folder)
        if len(deleted) > which:
            for path in [p for p in sorted(folder.rglob("*")) if p.is_file()][::2]:
                path.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("curate.storage.shutil.rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, data, TRANSIENT)
            go(tmp_path, data, edited)
    resumed = go(tmp_path, data, edited)
    assert resumed.manifest.digest == go(tmp_path, data, edited, out="fresh").manifest.digest
    assert go(tmp_path, data, TRANSIENT).manifest.digest == go(tmp_path, data, TRANSIENT, out="first").manifest.digest
    assert not list(resumed.root.rglob(".tmp-*"))


def killed_before_file_operations(folder: Path, every: int, first: int, *recipe: str) -> None:
    """See kills.py."""
    command = [sys.executable, Path(__file__).with_name("kills.py"), folder, str(every), str(first), *recipe]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["tried"] and not found["wrong"], done.stdout + done.stderr


def test_killed_before_a_file_operation(tmp_path: Path) -> None:
    killed_before_file_operations(tmp_path, 230, 7)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_before_each_file_operation(tmp_path: Path) -> None:
    killed_before_file_operations(tmp_path, 2, 1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_deduplications_killed_before_file_operations(tmp_path: Path) -> None:
    killed_before_file_operations(tmp_path, 10, 1, "dedup")


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    data, path = mixed(tmp_path / "in", 6000), recipe(tmp_path)
    command = [sys.executable, "-m", "curate.cli", "run", str(path), "-i", str(data), "-o", str(tmp_path / "run"), "-w", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[int] = []
    while process.poll() is None and len(children) < 2:
        time.sleep(0.02)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [int(c) for c in listed.read_text().split()] if listed.exists() else []
    process.kill()
    process.wait()
    assert len(children) == 2
    deadline = time.time() + 5
    while time.time() < deadline and any(Path(f"/proc/{c}").exists() for c in children):
        time.sleep(0.05)
    assert not [c for c in children if Path(f"/proc/{c}").exists()]


def test_one_process_a_folder(tmp_path: Path) -> None:
    import fcntl

    data = mixed(tmp_path / "in", 200)
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunConflict, match="another process"):
            go(tmp_path, data)
    go(tmp_path, data)


# --------------------------------------------------------------------------------------------- bounds


def test_blast_radius(tmp_path: Path) -> None:
    same = [{"id": f"s{i}", "text": "always the same boilerplate text", "lang": "x"} for i in range(1100)]
    write_jsonl(tmp_path / "in" / "bad" / "same.jsonl", same)
    write_jsonl(tmp_path / "in" / "good" / "rows.jsonl", rows(1100))
    loaded = Recipe.load(recipe(tmp_path, "name: blast\nsource: auto\nstages: [exact_dedup, word_count]\n")).with_inputs(
        [str(tmp_path / "in" / "bad"), str(tmp_path / "in" / "good")]
    )
    with pytest.raises(BlastRadiusError, match=r"99\.9% of corpus=bad \(1,099 of 1,100\).*--accept exact_dedup"):
        run(loaded, tmp_path / "run", executor="inline")
    root = tmp_path / "run"
    assert not (root / "attributes").exists(), "nothing may read the drops before they were accepted"
    assert Run(root).drops("exact_dedup").num_rows > 1099
    before = stamps(root, "documents", "drops")
    with pytest.raises(BlastRadiusError):
        run(loaded, root, executor="inline")
    finished = run(loaded, root, executor="inline", accept=["exact_dedup"])
    assert {p: t for p, t in stamps(root, "documents", "drops").items() if p in before} == before
    assert finished.manifest.digest
    run(loaded, root, executor="inline")  # accepted for good


def test_a_limit_that_is_set_later_is_checked(tmp_path: Path) -> None:
    data, body = write_jsonl(tmp_path / "x.jsonl", rows(1500)), "name: t\nstages:\n  - where: {sql: 'n > 1400'}\n"
    go(tmp_path, data, body)
    with pytest.raises(BlastRadiusError, match=r"93\.4% of corpus=x"):
        go(tmp_path, data, body + "    max_drop: 0.1\n")


def test_an_unfinished_run_answers_in_one_line(tmp_path: Path) -> None:
    body = "name: u\nstages:\n  - where: {sql: 'n > 1190'}\n    max_drop: 0.1\n  - split\n  - word_count\n"
    with pytest.raises(BlastRadiusError):
        go(tmp_path, write_jsonl(tmp_path / "x.jsonl", rows(1200)), body)
    found = Run(tmp_path / "run")
    assert found.status()[-1]["stages"] == ["where"] and found.drops("where").num_rows == 1191
    assert found.why("doc-5")[0]["fate"]["kind"] == "dropped"
    assert found.why("doc-1195")[0]["fate"] == {"kind": "unfinished", "stage": "split"}
    for look in (found.dataset, found.drops, lambda: found.dataset("split"), found.verify, lambda: found.summary):
        with pytest.raises(ManifestError, match=r"same command again|run the recipe again"):
            look()


def test_cluster_limit(tmp_path: Path) -> None:
    body = "name: c\nsource: auto\nstages:\n  - exact_dedup: {by: text}\n    max_drop: 1.0\n    max_cluster: 50\n"
    write_jsonl(tmp_path / "x.jsonl", [{"text": "one and the same"}] * 60)
    with pytest.raises(BlastRadiusError, match=r"a cluster of 60 documents, more than max_cluster 50"):
        go(tmp_path, tmp_path / "x.jsonl", body)


def test_failing_rows_are_dropped_with_their_error(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(LAB)
    write_jsonl(tmp_path / "x.jsonl", [{"id": str(i), "text": "poison" if i == 777 else f"text {i}"} for i in range(2000)])
    path = recipe(tmp_path, "name: p\nsource: auto\nstages:\n  - lab:Brittle\n")
    done = curate("run", path, "-i", tmp_path / "x.jsonl", "-o", tmp_path / "run", "-w", 1, "--json", check=0, cwd=tmp_path)
    entry = json.loads(done.stdout)["stages"][1]
    assert entry["drops"] == {"error.ValueError": 1} and entry["rows_out"] == 1999
    strict = recipe(tmp_path, "name: p\nsource: auto\nstages:\n  - {'lab:Brittle': {}, max_errors: 0.0}\n", "s.yaml")
    says = refused("run", strict, "-i", tmp_path / "x.jsonl", "-o", tmp_path / "strict", code=1, cwd=tmp_path)
    assert "error.ValueError 1" in says and "max_errors" in says
    strict.write_text("name: p\nsource: auto\nstages:\n  - {'lab:Brittle': {}, on_error: stop}\n")
    says = refused("run", strict, "-i", tmp_path / "x.jsonl", "-o", tmp_path / "stop", code=1, cwd=tmp_path)
    assert "row 777" in says and "a poisoned text" in says


LAB = '''
from dataclasses import dataclass
import os
import pyarrow as pa
from curate import Annotator

@dataclass(frozen=True, kw_only=True)
class Brittle(Annotator):
    """Counts characters, and cannot stand poison."""
    def writes(self):
        return pa.schema([("characters", pa.uint32())])
    def annotate(self, batch):
        texts = batch["text"].to_pylist()
        if "poison" in texts:
            raise ValueError("a poisoned text")
        return {"characters": pa.array([len(t) for t in texts], pa.uint32())}

@dataclass(frozen=True, kw_only=True)
class Deadly(Brittle):
    """Kills its process."""
    def annotate(self, batch):
        os.kill(os.getpid(), 9)
'''


def test_failing_rows_of_a_stage_that_makes_rows(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", [{"text": "poison" if i == 777 else f"text {i}"} for i in range(2000)])
    made = Recipe(name="x", source=Source(paths=(str(data),)), stages=(Item(stage=BrittleExpand(), id="bad"),))
    entry = run(made, tmp_path / "run", executor="inline").summary["stages"][1]
    assert entry["drops"] == {"error.ValueError": 1} and entry["rows_out"] == 1999
    data = write_jsonl(tmp_path / "y.jsonl", [{"text": "poison"} for _ in range(3)])
    made = Recipe(name="x", source=Source(paths=(str(data),)), stages=(Item(stage=BrittleExpand(), id="bad"),))
    with pytest.raises(StageError, match=r"'bad' failed on 3 of 3 rows .*max_errors"):
        run(made, tmp_path / "all", executor="inline")


@dataclass(frozen=True, kw_only=True)
class BrittleExpand(Expand):
    """Passes documents on, and cannot stand poison."""

    def writes(self) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if "poison" in batch["text"].to_pylist():
            raise ValueError("a poisoned text")
        return pa.RecordBatch.from_pydict({"_parent": batch["_row"], "text": batch["text"]})


def test_a_stage_may_take_a_few_rows_at_a_time(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", [{"text": f"text {i}"} for i in range(100)])
    for again in (0, 1):  # the second run begins with a layer that the first has written
        stages = [Item(stage=Sized(into="before"), id="before"), Item(stage=Few(into="few", again=again), id="few")]
        made = Recipe(name="x", source=Source(paths=(str(data),)), stages=(*stages, Item(stage=FewChildren(), id="children")))
        done = run(made, tmp_path / "run", executor="inline")
        rows = pq.read_table(done.root / "output" / "data").to_pylist()
        assert {row["before"] for row in rows} == {100}  # a stage before them has whole batches
        assert [row["few"] for row in sorted(rows, key=lambda row: row["record"])] == [7] * 98 + [2] * 2
        assert {row["text"] for row in rows} == {"7", "2"} and done.summary["stages"][-1]["rows_out"] == 100
    layer, *_ = sorted((tmp_path / "run" / "attributes").glob("few-*/*.parquet"))
    assert pq.ParquetFile(layer).metadata.num_row_groups == 15


@dataclass(frozen=True, kw_only=True)
class Sized(Annotator):
    """Writes how many rows it was given."""

    into: str
    again: int = 0

    def writes(self) -> pa.Schema:
        return pa.schema([(self.into, pa.int32())])

    def annotate(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return {self.into: pa.array([batch.num_rows] * batch.num_rows, pa.int32())}


@dataclass(frozen=True, kw_only=True)
class Few(Sized):
    """At most seven."""

    most_rows = 7


@dataclass(frozen=True, kw_only=True)
class FewChildren(Expand):
    """A child of each document, which says how many rows it was given."""

    most_rows = 7

    def writes(self) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = pa.array([str(batch.num_rows)] * batch.num_rows)
        return pa.RecordBatch.from_pydict({"_parent": batch["_row"], "text": texts})


def test_a_dead_worker_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(LAB)
    path = recipe(tmp_path, "name: d\nsource: auto\nstages: ['lab:Deadly']\n")
    data = mixed(tmp_path / "in", 300)
    says = refused("run", path, "-i", data, "-o", tmp_path / "run", "-w", 2, code=1, cwd=tmp_path)
    assert "SIGKILL" in says and "same command again" in says


def test_a_worker_that_dies_idle_is_an_error_too(tmp_path: Path) -> None:
    pool = Local(1)
    pool._pool[0]._process.kill()
    pool._pool[0]._process.wait()
    with pytest.raises(StageError, match="SIGKILL"):
        go(tmp_path, mixed(tmp_path / "in", 30), executor=pool)


def test_a_stage_that_breaks_its_contract(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(Filter):
        """Gives a reason that it does not declare."""

        def reject(self, batch: pa.RecordBatch) -> pa.Array:
            return pa.array(["surprise"] * batch.num_rows)

    @dataclass(frozen=True, kw_only=True)
    class Shuffles(Annotator):
        """Returns fewer rows."""

        def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            return batch.slice(1)

    data = write_jsonl(tmp_path / "x.jsonl", rows(20))
    for i, (stage, says) in enumerate([(Wrong(), "reason 'surprise'"), (Shuffles(), "the rows it was given")]):
        made = Recipe(name="x", source=Source(paths=(str(data),)), stages=(Item(stage=stage, id="bad"),), output=Output())
        with pytest.raises(StageError, match=says):
            run(made, tmp_path / f"run{i}", executor="inline")


def test_limit_is_the_first_documents_in_input_order(tmp_path: Path) -> None:
    data = mixed(tmp_path / "in")
    body = "name: limit\nsource: auto\nstages: []\n"
    finished = go(tmp_path, data, body, limit=777)
    ids = finished.dataset().scan().select("id").collect()["id"].to_list()
    assert ids == [f"doc-{i}" for i in range(777)]
    assert finished.summary["stages"][0]["rows_in"] == 777
    again = go(tmp_path, data, body, out="again", limit=777, executor="local", workers=2)
    assert again.manifest.digest == finished.manifest.digest


TRANSIENT = """\
name: t
source: auto
stages:
  - {word_count: {}, transient: true}
  - {where: {sql: "word_count > 10"}}
  - {where: {sql: "n > 3"}}
"""


def test_transient_columns_go_and_come_back(tmp_path: Path) -> None:
    data = mixed(tmp_path / "in", 600)
    first = go(tmp_path, data, TRANSIENT)
    assert "word_count" not in first.manifest.columns
    assert not (first.root / first.node("word_count").layer).exists()
    edited = go(tmp_path, data, TRANSIENT.replace("n > 3", "n > 3 AND word_count > 30"))
    fresh = go(tmp_path, data, TRANSIENT.replace("n > 3", "n > 3 AND word_count > 30"), out="fresh")
    assert edited.manifest.digest == fresh.manifest.digest


def test_transient_columns_after_an_expand_are_not_made_twice(tmp_path: Path) -> None:
    data, body = mixed(tmp_path / "in", 300), TRANSIENT.replace("stages:", "stages:\n  - split: {max_bytes: 600}")
    before = stamps(go(tmp_path, data, body).root, "documents", "attributes", "drops")
    assert stamps(go(tmp_path, data, body).root, "documents", "attributes", "drops") == before


def test_transient_columns_wait_for_their_last_reader(tmp_path: Path) -> None:
    """Or do not count on readers that would come too late: an Expand, the blast radius by language, the output."""
    data = mixed(tmp_path / "in", 300)
    body = "name: t\nstages:\n  - {word_count: {}, transient: true}\n  - {where: {sql: 'word_count > 10'}, max_drop: 0.9}\n"
    made = go(tmp_path, data, f"{body}  - split\n  - compact\n", out="expand").dataset()
    assert "word_count" not in made.columns and made.generation.documents
    body = "name: t\nstages:\n  - {language: {}, transient: true}\n  - word_count\n  - exact_dedup\n"
    assert go(tmp_path, data, body, out="language").summary["documents"]
    with pytest.raises(ColumnError, match="transient"):
        go(tmp_path, data, TRANSIENT + "output: {columns: [text, word_count]}\n", out="output")


def test_no_documents_at_all(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"text": " ", "score": 0.5}] * 5)
    finished = go(tmp_path, tmp_path / "x.jsonl")
    assert finished.summary["documents"] == 0
    assert finished.summary["stages"][0]["drops"] == {"empty_text": 5}
    assert finished.verify()["ok"]
