"""The pipeline `color-filter` from end to end, over real documents, and killed."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import WORDS, curate, rows, text, write_jsonl

from curate.run import Run


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """A pool of documents of many domains in a folder of two files, and a target of one of them that is not in it."""
    folder = tmp_path_factory.mktemp("color")
    table = pq.read_table(shared_data / "domains" / "domains.parquet", columns=["id", "text", "domain"])
    rng = np.random.default_rng(0)
    of = np.array(table["domain"].to_pylist())
    mine = rng.permutation(np.flatnonzero(of == "medical"))[:600]
    others = rng.permutation(np.flatnonzero(of != "medical"))[:1500]
    pool = table.take(pa.array(rng.permutation(np.concatenate([mine[300:], others]))))
    (folder / "pool").mkdir()
    for i in range(2):
        pq.write_table(pool.slice(900 * i, 900), folder / "pool" / f"{i}.parquet")
    write_jsonl(folder / "target.jsonl", [{"text": text} for text in table["text"].take(pa.array(mine[:300])).to_pylist()])
    return folder


def run(real, out, *settings, target="target.jsonl"):
    given = [f"stages.color_filter.target={target if '/' in str(target) else real / target}", *settings]
    options = [part for setting in given for part in ("--set", setting)]
    curate("run", "color-filter", "-i", real / "pool", "-o", out, "-w", 1, *options, check=0)
    found = Run(out)
    return found, pa.concat_tables(pq.read_table(path) for path in sorted((found.root / "output" / "data").glob("*.parquet")))


def test_it_finds_the_domain_of_the_target(real, tmp_path):
    out = tmp_path / "run"
    tokens = {}
    for tau, least in ((8, 0.9), (32, 0.98)):
        found, kept = run(real, out, f"stages.color_filter.tau={tau}")
        assert np.mean([domain == "medical" for domain in kept["domain"].to_pylist()]) > least
        tokens[tau] = found.summary["tokens"]
        pool = next(s["tokens"] for s in found.summary["stages"] if s["id"] == "color_filter.losses")
        assert 0.9 * pool / tau < tokens[tau] <= pool / tau
        scored = sorted(out.glob("attributes/color_filter.losses-*"))
        assert len(scored) == 1  # the second run has taken the losses of the first
    curate("verify", out, check=0)


@pytest.mark.slow
def test_questions_with_answers_as_the_target(real, shared_data, tmp_path):
    target = shared_data / "benchmarks" / "arc_easy.train.jsonl.gz"
    found, kept = run(real, tmp_path / "run", "stages.color_filter.tau=16", "stages.color_filter.by=window", target=target)
    notes = {k: v for stage in found.summary["stages"] for k, v in stage["notes"].items()}
    assert notes["texts of the target that the conditional model learned from"] == 685
    assert 0 < len(kept) < 900 and "color_score" in kept.column_names


# --------------------------------------------------------------------------------------------- killed


def killed(folder: Path, every: int, first: int) -> dict[str, int]:
    """See kills.py."""
    command = [sys.executable, Path(__file__).with_name("kills.py"), folder, str(every), str(first), "color"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tried"] and not found["wrong"], done.stdout + done.stderr
    return found


@pytest.mark.slow
def test_killed_before_a_file_operation(tmp_path):
    killed(tmp_path, 400, 211)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_before_each_file_operation(tmp_path):
    killed(tmp_path, 25, 1)


BODY = """\
name: color
source: auto
stages:
  - color_filter: {target: TARGET, models: 1m, window: 64, tau: 2, device: cpu}
output: {validation: 0}
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_transformers_whose_training_or_scoring_is_killed_come_to_the_same_bytes(tmp_path):
    """SIGKILL at random times, several in a run."""
    pytest.importorskip("torch")
    rng = random.Random(3)
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(120))
    write_jsonl(tmp_path / "in" / "b.jsonl", rows(120, 1))
    about = random.Random(5)
    write_jsonl(tmp_path / "target.jsonl", [{"text": text(about, 60) + " " + WORDS[3] * 3} for _ in range(40)])
    (tmp_path / "recipe.yaml").write_text(BODY.replace("TARGET", str(tmp_path / "target.jsonl")))
    command = ["run", tmp_path / "recipe.yaml", "-i", tmp_path / "in", "-w", "1"]
    whole = curate(*command, "-o", tmp_path / "whole", check=0)
    assert whole.returncode == 0
    phases = {p.parent.name: json.loads(p.read_text())["seconds"] for p in (tmp_path / "whole").glob("phases/*/records/*.json")}
    seconds = sum(phases.values())
    kills = 0
    for name in range(2):
        out = tmp_path / f"run{name}"
        for _ in range(4):
            started = subprocess.Popen([sys.executable, "-m", "curate.cli", *map(str, command), "-o", str(out)])
            try:
                started.wait(timeout=5 + rng.uniform(0, seconds))
                break
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
                kills += 1
        curate(*command, "-o", out, check=0)
        assert Run(out).manifest.digest == Run(tmp_path / "whole").manifest.digest
        for part in ("prior", "conditional"):
            made = [next(root.glob(f"index/*/{part}")) / "model.safetensors" for root in (out, tmp_path / "whole")]
            assert made[0].read_bytes() == made[1].read_bytes()
    assert kills
