"""`semantic_dedup` beside SemDeDup as its paper has it, and beside semhash, on vectors with planted duplicates.

    python benchmarks/semantic_dedup.py [--documents 100000] [--dimension 384] [--repeats 3] [--growth 30000,300000]
                                        [--memory 2000] [--peer-python PYTHON]

Each side is a process of its own on one core, timed from outside, imports and reading included; it reads embeddings in half
precision from Parquet files of 50,000 rows and writes the row numbers of what it would drop, at a cosine of 0.95.

- curate: the steps of the fit over batches of 1,024 rows, as the engine runs them, scratch files included; what stays is what
  comes first, or (outlying) what lies far from the centroid, as in the paper.
- paper: FAISS k-means (spherical, 20 rounds) on everything, as many clusters as ours; in each cluster the whole matrix of
  cosines in NumPy, documents far from the centroid first; what has a higher one before it goes.
- semhash: `SemHash.from_embeddings(…).self_deduplicate(0.95)`, which asks an approximate index (usearch) about every vector.
  Needs Python with semhash and pyarrow: `python -m venv peers; peers/bin/pip install semhash pyarrow`, then --peer-python.

The vectors are synthetic: 300 topics of Zipfian size, a fifth copies of an earlier vector at a cosine of 0.951 to 1, a
twentieth neighbours at 0.85 to 0.945, which have to stay. Recall is the share of the pairs of copy and original of which one
goes, whichever: an original that goes settles the pairs with all its copies, so preferring what lies far out settles more
pairs with fewer removals. Precision is the share of what goes that is one of a pair.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from _measure import Spread, run, table

THRESHOLD = 0.95
ROWS = 50_000  # a file


# --------------------------------------------------------------------------------------------- the input


def make(folder: Path, n: int, dimension: int) -> None:
    """Files of vectors, and the rows of copies and of their originals in pairs.npy."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)

    def unit(x: Any) -> Any:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    weights = 1 / np.arange(1, 301)
    topics = unit(rng.normal(size=(300, dimension)))[rng.choice(300, n, p=weights / weights.sum())]
    vectors = unit(0.7 * topics + 0.714 * unit(rng.normal(size=(n, dimension)))).astype(np.float32)
    kind = rng.choice(3, n, p=[0.75, 0.2, 0.05])
    kind[:100] = 0
    originals = np.flatnonzero(kind == 0)
    pairs = []
    for chosen, low, high in ((1, 0.951, 1.0), (2, 0.85, 0.945)):
        rows = np.flatnonzero(kind == chosen)
        source = originals[(rng.random(len(rows)) * np.searchsorted(originals, rows)).astype(int)]
        near, cosine = vectors[source], rng.uniform(low, high, (len(rows), 1)).astype(np.float32)
        away = rng.normal(size=(len(rows), dimension)).astype(np.float32)
        away = unit(away - (away * near).sum(axis=1, keepdims=True) * near)
        vectors[rows] = cosine * near + np.sqrt(1 - cosine**2) * away
        pairs.append(np.stack([rows, source], axis=1))
    folder.mkdir()
    halves = vectors.astype(np.float16)
    for at in range(0, n, ROWS):
        part = halves[at : at + ROWS]
        data = {
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dimension),
            "id": pa.array([str(at + i) for i in range(len(part))]),
            "file": pa.array([f"{at}"] * len(part)),
            "record": pa.array(range(len(part)), pa.int64()),
        }
        pq.write_table(
            pa.table(data), folder / f"{at // ROWS:05d}.parquet", row_group_size=8192, compression="lz4", use_dictionary=False
        )
    np.save(folder / "pairs.npy", pairs[0])


def matrix(folder: Path) -> Any:
    """Everything as one array (float16)."""
    import numpy as np
    import pyarrow.parquet as pq

    parts = []
    for path in sorted(folder.glob("*.parquet")):
        column = pq.read_table(path, columns=["embedding"], use_threads=False)["embedding"].combine_chunks()
        parts.append(column.flatten().to_numpy().reshape(len(column), -1))
    return np.concatenate(parts)


# --------------------------------------------------------------------------------------------- the sides


def curate(folder: Path, memory: int = 2000, prefer: str = "first") -> list[int]:
    """The rows that go."""
    import time
    from dataclasses import replace

    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.stage import ROW, Task
    from curate.stages.semantic_dedup import SemanticDedup

    stage = SemanticDedup(threshold=THRESHOLD, prefer=prefer)
    paths = sorted(folder.glob("*.parquet"))
    sizes = [pq.read_metadata(path).num_rows for path in paths]

    def batches(shard: int, columns: tuple[str, ...]) -> Any:
        done = 0
        for batch in pq.ParquetFile(paths[shard]).iter_batches(1024, columns=list(columns), use_threads=False):
            yield batch.append_column(ROW, pa.array(range(done, done + len(batch)), pa.uint32()))
            done += len(batch)

    found: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(
            phase="x",
            rank=0,
            folders=[(stage, "s", Path(scratch))],
            shards=[path.name for path in paths],
            memory_limit=memory * 1_000_000,
        )
        for step in stage.steps(len(paths), sum(sizes)):
            started = time.perf_counter()
            for rank in range(step.tasks if step.reads is None else len(paths)):
                here = replace(task, rank=rank)
                if step.reads is None:
                    step.fn(here)
                else:
                    step.fn(replace(here, shard=rank), batches(rank, step.reads))
            print(f"{step.name} {time.perf_counter() - started:.2f} s", file=sys.stderr)
        begin = 0
        for shard, size in enumerate(sizes):
            process = stage.open(replace(task, rank=shard, shard=shard))
            for at in range(0, size, 1024):
                rows = pa.array(range(at, min(at + 1024, size)), pa.uint32())
                reasons = process(pa.RecordBatch.from_pydict({ROW: rows}))["_reason"].to_pylist()
                found += [begin + at + i for i, reason in enumerate(reasons) if reason]
            begin += size
    return found


def paper(folder: Path, memory: int = 0) -> list[int]:
    """The rows that go."""
    import math

    import faiss
    import numpy as np

    vectors = matrix(folder).astype(np.float32)
    faiss.normalize_L2(vectors)
    k = max(1, math.isqrt(len(vectors)) // 2)
    kmeans = faiss.Kmeans(vectors.shape[1], k, niter=20, spherical=True, seed=1)
    kmeans.train(vectors)
    similarity, nearest = kmeans.index.search(vectors, 1)
    found: list[int] = []
    order = np.argsort(nearest[:, 0], kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(nearest[order, 0])) + 1):
        rows = rows[np.argsort(similarity[rows, 0], kind="stable")]
        cosines = np.triu(vectors[rows] @ vectors[rows].T, k=1)
        found += rows[cosines.max(axis=0) > THRESHOLD].tolist()
    return found


def semhash(folder: Path, memory: int = 0) -> list[int]:
    """The rows that go."""
    import numpy as np
    from semhash import SemHash  # type: ignore[import-not-found]

    class NoModel:
        def encode(self, *given: Any, **more: Any) -> Any:
            raise AssertionError("the vectors are given")

    vectors = matrix(folder).astype(np.float32)
    made = SemHash.from_embeddings(vectors, [str(i) for i in range(len(vectors))], model=NoModel())
    return [int(one.record) for one in made.self_deduplicate(threshold=THRESHOLD).filtered]


def curate_outlying(folder: Path, memory: int = 2000) -> list[int]:
    """The rows that go."""
    return curate(folder, memory, "outlying")


SIDES = {"paper": paper, "curate": curate, "curate, outlying": curate_outlying, "semhash": semhash}


# --------------------------------------------------------------------------------------------- the comparison


def measure(side: str, python: str, folder: Path, scratch: Path, memory: int) -> tuple[Any, set[int]]:
    out = scratch / "found.json"
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    command = [python, __file__, "--side", side, "--input", str(folder), "--output", str(out)]
    command += ["--memory", str(memory)]
    seen = run(command, env=one, log=scratch / "log")
    if seen.code:
        sys.exit(f"{side} failed:\n{seen.stderr}")
    return seen, set(json.loads(out.read_text()))


def planted(folder: Path) -> list[list[int]]:
    code = "import numpy, sys, json; print(json.dumps(numpy.load(sys.argv[1]).tolist()))"
    return json.loads(run([sys.executable, "-c", code, str(folder / "pairs.npy")], log=folder / "log").stdout)


def compare(folder: Path, scratch: Path, n: int, sides: dict[str, str], repeats: int, memory: int) -> None:
    pairs = planted(folder)
    paired = {row for pair in pairs for row in pair}
    seen: dict[str, list[Any]] = {side: [] for side in sides}
    found: dict[str, set[int]] = {}
    for _ in range(repeats):
        for side, python in sides.items():
            one, found[side] = measure(side, python, folder, scratch, memory)
            seen[side].append(one)
    rows = []
    for side, taken in seen.items():
        rate = [n / one.cpu for one in taken]
        ratio = Spread.ratio(rate, [n / one.cpu for one in seen["paper"]]) if "paper" in seen else None
        dropped = found[side]
        rows.append(
            [
                side,
                Spread.of([one.cpu for one in taken]).show(),
                Spread.of(rate).show(0),
                "" if ratio is None else "1" if side == "paper" else f"{ratio.show(2)}x",
                Spread.of([one.peak / 1e6 for one in taken]).show(0),
                f"{sum(a in dropped or b in dropped for a, b in pairs) / len(pairs):.4f}",
                f"{len(dropped & paired) / max(len(dropped), 1):.4f}",
                f"{len(dropped):,}",
            ]
        )
    head = ["", "CPU s", "documents/CPU s", "ratio", "peak MB", "recall", "precision", "dropped"]
    title = f"{n:,} vectors, {len(pairs):,} planted pairs, {repeats} repeats, memory limit of ours {memory:,} MB"
    print(table(title, head, rows))
    print(seen["curate"][-1].stderr.strip().replace("\n", ", "))
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", default="", help="other numbers of documents, of ours alone, once")
    parser.add_argument("--memory", type=int, default=2000, help="MB, the memory limit of ours")
    parser.add_argument("--peer-python", help="with semhash and pyarrow")
    parser.add_argument("--side", choices=[*SIDES, "make"], help=argparse.SUPPRESS)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "make":
        make(given.input, given.documents, given.dimension)
        return
    if given.side:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        given.output.write_text(json.dumps(SIDES[given.side](given.input, given.memory)))
        return
    sides = {side: sys.executable for side in SIDES if side != "semhash"}
    if given.peer_python:
        sides["semhash"] = given.peer_python
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        more = [int(n) for n in given.growth.split(",") if n]
        for n in (2000, given.documents, *more):  # the first for byte code, kernels and the page cache
            folder = scratch / str(n)
            size = ["--documents", str(n), "--dimension", str(given.dimension)]
            made = run([sys.executable, __file__, "--side", "make", "--input", str(folder), *size], log=scratch / "log")
            if made.code:
                sys.exit(made.stderr)
            if n == 2000:
                for side, python in sides.items():
                    measure(side, python, folder, scratch, given.memory)
            elif n == given.documents:
                compare(folder, scratch, n, sides, given.repeats, given.memory)
            else:
                compare(folder, scratch, n, {"curate": sys.executable}, 1, given.memory)


if __name__ == "__main__":
    main()
