"""A run that is killed just before one of its file operations, for each of them, and then resumed. Called by test_run.py.

One process imports everything and forks: a child that ends itself (as by SIGKILL: nothing is flushed or cleaned up) before its
n-th rename, removal, mkdir or opening for writing below the run folder, and another child that resumes. Three stories: a plain
run; a recipe edited before resuming, and edited back; a finished run edited and killed. Prints `<n> <story> <digests>` for
each that went wrong, and at the end how many there were.

    python tests/kills.py FOLDER EVERY FIRST [dedup|color]      with `dedup`, a recipe of deduplications that keep indexes; with
                                                               `color`, one that trains models, scores and chooses
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from pathlib import Path

from corpus import mixed

import curate.kernels.keys
import curate.kernels.words
import curate.lm.ngram
import curate.stages.color_filter
import curate.stages.quantile  # noqa: F401 - all imports before the fork
from curate import card, manifest, report  # noqa: F401
from curate.recipe import loads
from curate.run import run

BODY = """\
name: k
source: auto
stages:
  - {word_count: {}, transient: true}
  - exact_dedup: {by: normalised}
  - where: {sql: "word_count > 10"}
  - split: {max_bytes: 600}
  - {word_count: {}, transient: true}
  - where: {sql: "word_count > 5"}
  - quantile: {column: score, keep: 0.5}
output: {shard_mb: 0.05, validation: 0.02, seed: 7}
"""
DEDUP = """\
name: k
source: auto
stages:
  - exact_dedup: {by: normalised, keep_index: true}
  - line_dedup: {min_documents: 3}
  - substring_dedup: {min_tokens: 8}
  - {minhash: {ngram: 2, bands: 20, rows: 3, keep_index: true}, max_drop: 1.0}
  - word_count
  - where: {sql: "word_count > 5"}
output: {shard_mb: 0.05, validation: 0.02, seed: 7}
"""


COLOR = """\
name: k
source: auto
stages:
  - color_filter: {texts: [The garden of the village, A garden in winter], tau: 2, tokens: 4000, sample: 4000}
  - word_count
  - where: {sql: "word_count > 5"}
output: {shard_mb: 0.05, validation: 0.02, seed: 7}
"""
RECIPES = {"dedup": DEDUP, "color": COLOR}


def edited_of(body: str) -> str:
    """Another threshold, and a stage more; another choice by the same scores."""
    body = body.replace("tau: 2,", "tau: 3,")
    return body.replace("word_count > 5", "word_count > 7").replace("output:", '  - where: {sql: "word_count > 9"}\noutput:')


CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def child(body: str, data: Path, root: Path, kill_at: int = 0) -> tuple[str, int]:
    """(digest, number of file operations) of a run in a child of its own; ("", 0) where it was killed or failed."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            done = 0

            def watch(event: str, args: tuple) -> None:
                nonlocal done
                writes = event == "open" and isinstance(args[1], str) and ("w" in args[1] or "a" in args[1])
                if (writes or event in CHANGES) and str(root) in str(args[0]):
                    done += 1
                    if done == kill_at:
                        os._exit(9)

            sys.addaudithook(watch)
            digest = run(loads(body).with_inputs([str(data)]), root, executor="inline").manifest.digest
            os.write(theirs, json.dumps([digest, done]).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return tuple(json.loads(answer)) if answer else ("", 0)


def main(folder: Path, every: int, first: int, body: str) -> None:
    other = edited_of(body)
    data, root = mixed(folder / "in", 120), folder / "run"
    plain, operations = child(body, data, folder / "plain")
    edited, _ = child(other, data, folder / "edited")
    wrong = tried = 0
    for n in range(first, operations + 1, every):
        for story in ("plain", "edited after", "edited and killed"):
            shutil.rmtree(root, ignore_errors=True)
            if story == "edited and killed":
                child(body, data, root)
            whole, _ = child(body if story != "edited and killed" else other, data, root, kill_at=n)
            if whole:
                continue  # it has fewer operations
            tried += 1
            found = [child(body if story == "plain" else other, data, root)[0]]
            expected = [plain if story == "plain" else edited]
            if story == "edited after":
                found.append(child(body, data, root)[0])
                expected.append(plain)
            if found != expected:
                wrong += 1
                print(n, story, found, flush=True)
    print(json.dumps({"operations": operations, "tried": tried, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), RECIPES[sys.argv[4]] if sys.argv[4:] else BODY)
