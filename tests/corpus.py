"""Small corpora and recipes that several tests use, and a way to run the command line as a user does."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

WORDS = (
    "river stone garden window letter market winter summer bridge story paper engine silver morning forest island "
    "teacher music village harbour mountain kitchen history science number answer question table light shadow"
).split()


def text(rng: random.Random, words: int) -> str:
    """Sentences of random words."""
    sentences = []
    while words > 0:
        n = min(words, rng.randint(5, 15))
        sentences.append(" ".join(rng.choice(WORDS) for _ in range(n)).capitalize() + ".")
        words -= n
    return " ".join(sentences)


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Documents: every tenth repeats an earlier one, every 25th is very short."""
    rng = random.Random(seed)
    found: list[dict[str, Any]] = []
    for i in range(n):
        body = "\n\n".join(text(rng, rng.randint(20, 120)) for _ in range(rng.randint(1, 4)))
        if i % 10 == 9:
            body = found[rng.randrange(len(found))]["text"]
        elif i % 25 == 24:
            body = "too short"
        found.append({"id": f"doc-{i}", "text": body, "url": f"https://example.test/{i}", "score": rng.random(), "n": i})
    return found


def write_jsonl(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents), encoding="utf-8")
    return path


def mixed(folder: Path, n: int = 1500, seed: int = 0) -> Path:
    """A folder with a JSONL and two Parquet files."""
    documents = rows(n, seed)
    third = n // 3
    write_jsonl(folder / "a.jsonl", documents[:third])
    pl.DataFrame(documents[third : 2 * third]).write_parquet(folder / "b.parquet", row_group_size=100)
    pl.DataFrame(documents[2 * third :]).write_parquet(folder / "c.parquet", row_group_size=77)
    return folder


RECIPE = """\
name: small
source: auto
stages:
  - word_count
  - exact_dedup: {by: normalised}
  - where: {sql: "word_count > 10"}
  - split: {max_bytes: 600}
  - word_count
  - quantile: {column: score, keep: 0.5}
output: {shard_mb: 0.1, validation: 0.02, seed: 7}
"""


def recipe(folder: Path, body: str = RECIPE, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(body)
    return path


def curate(*args: Any, check: int | None = None, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; check: the exit code that it must have."""
    command = [sys.executable, "-m", "curate.cli", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "NO_COLOR": "1"}, **kwargs)
    if check is not None:
        assert done.returncode == check, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def refused(*args: Any, code: int = 2, says: str = "", **kwargs: Any) -> str:
    """Run the command line, which must refuse: one line on stderr, no traceback. Returns the line."""
    done = curate(*args, check=code, **kwargs)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert says in lines[0], lines[0]
    return lines[0]
