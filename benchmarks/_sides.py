"""The sides of `minhash.py` and `neardup.py`: one process, one core, one implementation, from Parquet to decisions.

    python _sides.py SIDE FOLDER [--seed S] [--clusters FILE] [options of a side]

FOLDER has documents.parquet {id, text}. Prints one JSON object: how many documents were `removed`, and `seconds`, the CPU
seconds (user and system, children too) of each step, after a pass over a few documents, so that imports, models and compiling
count for nobody. --clusters writes the cluster of every document (int64, NumPy) outside the timing. Parameters are those of
FineWeb everywhere: 5 words, 14 bands of 8 rows, 64-bit shingle hashes where there is a choice.

What is best for each peer, of what was tried:

- datatrove: xxhash rather than SHA-1 (64 bits), metadata not read, its steps called one after the other without an executor
  around them (no worker pool, no logs), no writer behind the filter.
- datasketch: `MinHash.bulk` (one batch update a document), xxh32 of the shingle as text instead of its default SHA-1, so that
  nothing is encoded, the default scheme of version 2 (32-bit affine, faster than the old one), no check for known keys.
- rensa: `RMinHash.from_token_sets` in batches, and its own LSH (`insert_many`, `query_all`). Its rho pipeline is not taken:
  it looks at a sample of the tokens and at their order, so it is no MinHash of the whole set.
- daft: read, normalise and hash in one lazy query (xxh3), without Unicode normalisation. It has no banding of its own: bands
  are hashed and sorted with NumPy, which takes next to no time.
- rensa and datasketch take tokens: shingles are made with the fastest plain Python that was found (one regular expression
  and `map` over `zip`), and `parts` says what they cost. With --normalised they get the words that Curate would make of the
  text, accents and numbers folded, for comparisons of quality rather than speed.

`ours-kernel` is the kernel over Arrow batches; `ours-memory` the stage over a table; `ours-run` a run folder until `minhash`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

NGRAM, BANDS, ROWS = 5, 14, 8
PERMUTATIONS = BANDS * ROWS
BATCH = 1024
WARM = 200  # documents

Seconds = dict[str, float]
Decisions = tuple[int, Callable[[], Any]]
"""How many documents went, and a function that gives the cluster of each."""


def cpu() -> float:
    """CPU seconds of this process and of its finished children so far."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in both)


def high_water() -> int:
    """Most bytes of memory that this process had, since it began or since `Watch` set the mark back."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextlib.contextmanager
def timed(seconds: Seconds, step: str) -> Iterator[None]:
    started = cpu()
    yield
    seconds[step] = seconds.get(step, 0.0) + cpu() - started


class Sets:
    """Union-find in plain Python, for peers that have none."""

    def __init__(self, n: int):
        self.parent = list(range(n))

    def find(self, x: int) -> int:
        parent = self.parent
        while parent[x] != x:
            parent[x] = x = parent[parent[x]]
        return x

    def union(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self.parent[max(a, b)] = min(a, b)

    def labels(self) -> list[int]:
        return [self.find(x) for x in range(len(self.parent))]


def keep_first(table: Any, labels: Sequence[int]) -> int:
    """Filter a table to the first document of each cluster; how many went."""
    import pyarrow as pa

    kept = table.filter(pa.array([label == i for i, label in enumerate(labels)]))
    return len(table) - len(kept)


WORDS = re.compile(r"\w+")
DIGITS = re.compile(r"\d+")


def shingles(text: str) -> list[str]:
    words = WORDS.findall(text.lower())
    return list(map(" ".join, zip(words, words[1:], words[2:], words[3:], words[4:], strict=False)))


def normalised(text: str) -> list[str]:
    """The same, with accents of letters and runs of digits folded (enough for text in Latin script)."""
    text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return shingles(DIGITS.sub("0", text))


def read(path: Path, n: int | None) -> Any:
    import pyarrow as pa
    import pyarrow.dataset  # what read_table imports when it is called first
    import pyarrow.parquet as pq

    if n is None:
        return pq.read_table(path, columns=["id", "text"])
    with pq.ParquetFile(path) as file:
        return pa.Table.from_batches([next(file.iter_batches(n, columns=["id", "text"]))])


# --------------------------------------------------------------------------------------------- peers


def datatrove(folder: Path, args: argparse.Namespace, seconds: Seconds) -> Decisions:
    import numpy as np
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    logger.remove()
    config = MinhashConfig(
        n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS, seed=args.seed, hash_config=HashConfig(64, "xxhash")
    )

    def run(limit: int, spent: Seconds, cluster_ids: bool) -> Decisions:
        def documents() -> Any:
            return ParquetReader(str(folder), glob_pattern="documents.parquet", read_metadata=False, limit=limit).run()

        with tempfile.TemporaryDirectory(prefix="datatrove-") as scratch:
            with timed(spent, "read"):
                n = sum(1 for _ in documents())
            signature = MinhashDedupSignature(f"{scratch}/signatures", config)
            with timed(spent, "signature"):
                signature.run(documents(), 0, 1)
            spent["signature"] -= spent["read"]  # it reads as well
            with timed(spent, "bucketing"):
                for rank in range(BANDS):
                    MinhashDedupBuckets(f"{scratch}/signatures", f"{scratch}/buckets", config=config).run(None, rank, BANDS)
            with timed(spent, "clustering"):
                MinhashDedupCluster(f"{scratch}/buckets", f"{scratch}/removed", config, save_cluster_id=cluster_ids).run()
            with timed(spent, "filtering"):
                kept = sum(1 for _ in MinhashDedupFilter(f"{scratch}/removed").run(documents(), 0, 1))
            labels = np.arange(n)
            if cluster_ids and (found := list(Path(scratch, "removed").glob("*.clusters"))):
                pairs = np.fromfile(found[0], "<u4").reshape(-1, 2).astype(np.int64)
                labels[pairs[:, 0]] = n + pairs[:, 1]
        return n - kept, lambda: labels

    run(WARM, {}, False)
    return run(-1, seconds, args.clusters is not None)


def datasketch(folder: Path, args: argparse.Namespace, seconds: Seconds) -> Decisions:
    from datasketch import MinHash, MinHashLSH
    from xxhash import xxh32_intdigest

    split = normalised if args.normalised else shingles

    def run(n: int | None, spent: Seconds) -> Decisions:
        with timed(spent, "read"):
            table = read(folder / "documents.parquet", n)
            texts = table["text"].to_pylist()
        found: list[Any] = []
        with timed(spent, "signature"):
            for at in range(0, len(texts), BATCH):
                with timed(spent, "shingles"):
                    tokens = [split(text) for text in texts[at : at + BATCH]]
                found += MinHash.bulk(tokens, num_perm=PERMUTATIONS, seed=args.seed, hashfunc=xxh32_intdigest)
        sets = Sets(len(texts))
        pairs: list[tuple[int, int]] = []
        with timed(spent, "bucketing"):
            index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
            for i, minhash in enumerate(found):
                if minhash.is_empty():  # a text without a shingle is no copy of another
                    continue
                pairs += [(i, j) for j in index.query(minhash)]
                index.insert(i, minhash, check_duplication=False)
        with timed(spent, "clustering"):
            for i, j in pairs:
                sets.union(i, j)
            labels = sets.labels()
        with timed(spent, "filtering"):
            removed = keep_first(table, labels)
        return removed, lambda: labels

    run(WARM, {})
    return run(None, seconds)


def rensa(folder: Path, args: argparse.Namespace, seconds: Seconds) -> Decisions:
    from rensa import RMinHash, RMinHashLSH

    split = normalised if args.normalised else shingles

    def run(n: int | None, spent: Seconds) -> Decisions:
        with timed(spent, "read"):
            table = read(folder / "documents.parquet", n)
            texts = table["text"].to_pylist()
        found: list[Any] = []
        rows: list[int] = []
        with timed(spent, "signature"):
            for at in range(0, len(texts), BATCH):
                with timed(spent, "shingles"):
                    tokens = [split(text) for text in texts[at : at + BATCH]]
                    rows += [at + i for i, token in enumerate(tokens) if token]
                found += RMinHash.from_token_sets([token for token in tokens if token], PERMUTATIONS, args.seed)
        sets = Sets(len(texts))
        with timed(spent, "bucketing"):
            index = RMinHashLSH(0.7, PERMUTATIONS, BANDS)
            index.insert_many(found)
            candidates = index.query_all(found)
        with timed(spent, "clustering"):
            for i, others in enumerate(candidates):
                for j in others:
                    if j < i:
                        sets.union(rows[i], rows[j])
            labels = sets.labels()
        with timed(spent, "filtering"):
            removed = keep_first(table, labels)
        return removed, lambda: labels

    run(WARM, {})
    return run(None, seconds)


def daft(folder: Path, args: argparse.Namespace, seconds: Seconds) -> Decisions:
    import daft as library
    import numpy as np
    from daft.functions import minhash, normalize

    def run(n: int | None, spent: Seconds) -> Decisions:
        path = folder / "documents.parquet"
        with timed(spent, "read"):
            table = read(path, n)
        text = normalize(library.col("text"), remove_punct=True, lowercase=True, white_space=True)
        hashed = minhash(text, num_hashes=PERMUTATIONS, ngram_size=NGRAM, seed=args.seed, hash_function="xxhash3_64")
        with timed(spent, "signature"):  # with the read, which is lazy; taken off below by what it costs alone
            frame = library.read_parquet(str(path))
            found = (frame.limit(n) if n else frame).select(hashed.alias("minhash")).to_arrow()["minhash"]
        with timed(spent, "_read"):
            frame = library.read_parquet(str(path)).select("text")
            (frame.limit(n) if n else frame).to_arrow()
        spent["signature"] -= spent.pop("_read")
        signatures = found.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, PERMUTATIONS)
        sets = Sets(len(signatures))
        with timed(spent, "bucketing"):
            pairs = np.concatenate(list(equal_bands(signatures)))
        with timed(spent, "clustering"):
            for a, b in pairs.tolist():
                sets.union(a, b)
            labels = sets.labels()
        with timed(spent, "filtering"):
            removed = keep_first(table, labels)
        return removed, lambda: labels

    run(WARM, {})
    return run(None, seconds)


def equal_bands(signatures: Any) -> Iterator[Any]:
    """(documents, documents) that are neighbours among those with one band equal."""
    import numpy as np

    odd = np.random.default_rng(0).integers(0, 2**63, ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for band in range(BANDS):
        values = signatures[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        keys = ((values + np.uint64(0x9E3779B97F4A7C15)) * odd).sum(axis=1)
        keys ^= keys >> np.uint64(29)
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        yield np.stack([order[same], order[same + 1]], axis=1)


# --------------------------------------------------------------------------------------------- ours

STEPS = {
    "keys": "signature",
    "candidates": "bucketing",
    "components": "clustering",
    "gather": "verification",
    "verify": "verification",
}
"""What the steps of our fit are called in the table; every other step belongs to the clustering."""


def ours_kernel(folder: Path, args: argparse.Namespace, seconds: Seconds) -> Decisions:
    """Band keys of every document, over record batches as the engine hands them out; nothing is decided."""
    import pyarrow.parquet as pq

    from curate.kernels.minhash import band_keys
    from curate.kernels.shingles import folding
    from curate.kernels.words import offsets_and_bytes

    fold = folding(True, True, True, True)

    def run(n: int | None, spent: Seconds) -> Decisions:
        done = 0
        with pq.ParquetFile(folder / "documents.parquet") as file:
            batches = file.iter_batches(BATCH, columns=["text"], use_threads=False)
            while not n or done < n:
                with timed(spent, "read"):
                    batch = next(batches, None)
                if batch is None:
                    break
                with timed(spent, "signature"):
                    band_keys(*offsets_and_bytes(batch["text"]), fold, NGRAM, "word", BANDS, ROWS, args.seed)
                done += batch.num_rows
        return 0, lambda: range(done)

    run(WARM, {})
    return run(None, seconds)


def ours_memory(folder: Path, args: argparse.Namespace, seconds: Seconds) -> Decisions:
    """A table, and `MinHash` called with it; what is not a step of its fit is filtering."""
    from dataclasses import replace

    from curate.stages.minhash import MinHash

    spent: Seconds = {}

    class Timed(MinHash):
        def steps(self, n_shards: int, n_docs: int) -> list[Any]:
            return [replace(step, fn=clocked(step.name, step.fn)) for step in super().steps(n_shards, n_docs)]

    def clocked(name: str, call: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            with timed(spent, STEPS.get(name, "clustering")):
                call(*arguments)

        return run

    stage = Timed(ngram=NGRAM, bands=BANDS, rows=ROWS, verify=args.verify, seed=args.seed)
    path = folder / "documents.parquet"
    stage(read(path, WARM))
    spent.clear()
    with timed(seconds, "read"):
        table = read(path, None)
    with timed(seconds, "filtering"):
        result = stage(table)
    seconds["filtering"] -= sum(spent.values())
    seconds.update(spent)
    return len(result.dropped), lambda: labels_of(table["id"].to_pylist(), result.dropped)


def labels_of(ids: list[str], dropped: Any) -> list[int]:
    """The row of the kept document that each document stands for."""
    rows = {name: i for i, name in enumerate(ids)}
    labels = list(range(len(ids)))
    for name, kept in zip(dropped["id"].to_pylist(), dropped["_duplicate_of"].to_pylist(), strict=True):
        labels[rows[name]] = rows[kept]
    return labels


def ours_run(folder: Path, args: argparse.Namespace, seconds: Seconds) -> Decisions:
    """A run folder until `minhash`, in this process, by phases: seconds, peak memory, scratch."""
    from curate.recipe import loads
    from curate.run import run

    params = {"ngram": NGRAM, "bands": BANDS, "rows": ROWS, "verify": args.verify, "seed": args.seed}
    text = json.dumps({"name": "bench", "source": "parquet", "stages": [{"minhash": params}]})  # JSON is YAML too
    recipe = loads(text).with_inputs([str(folder)])
    with tempfile.TemporaryDirectory(prefix="curate-", dir=args.scratch) as scratch:
        watch = Watch(Path(scratch) / "warm")
        run(recipe, watch.root, executor="inline", limit=WARM, until="minhash", observer=watch)
        watch = Watch(Path(scratch) / "run")
        start = resident()
        with timed(seconds, "whole"):
            done = run(recipe, watch.root, executor="inline", until="minhash", memory_limit=args.memory_limit, observer=watch)
        watch.close()
        removed = done.summary["stages"][-1]["drops"]
        seconds["fit and filter"] = sum(p["cpu"] for p in watch.phases if p["minhash"])
        args.more = {"phases": watch.phases, "peak": max(p["peak"] for p in watch.phases), "start": start}
        dropped = done.drops("minhash") if args.clusters else None
    return sum(removed.values()), lambda: labels_of(read(folder / "documents.parquet", None)["id"].to_pylist(), dropped)


class Watch:
    """An observer that notes for each phase: CPU and wall seconds, peak memory of this process, bytes of scratch it left.

    The kernel's high-water mark is set back where a phase begins. It cannot fall below what earlier phases left allocated.
    """

    def __init__(self, root: Path):
        self.root = root
        self.phases: list[dict[str, Any]] = []
        self._now: dict[str, Any] | None = None

    def phase(self, phase: Any, done: int) -> None:
        self.close()
        Path("/proc/self/clear_refs").write_text("5")
        name = phase.name.split("-", 1)[1].rsplit("-", 1)[0]
        self._now = {"name": name, "minhash": "minhash" in phase.stages, "tasks": phase.tasks}
        self._cpu, self._wall, self._before = cpu(), time.perf_counter(), self._scratch()

    def close(self) -> None:
        if self._now is None:
            return
        written = {k: v - self._before.get(k, 0) for k, v in self._scratch().items()}
        self.phases.append(
            {
                **self._now,
                "cpu": cpu() - self._cpu,
                "wall": time.perf_counter() - self._wall,
                "peak": high_water(),
                "scratch": sum(v for v in written.values() if v > 0),
            }
        )
        self._now = None

    def task(self, phase: Any, rank: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def _scratch(self) -> dict[str, int]:
        """Bytes of each folder of the state of a stage."""
        found: dict[str, int] = {}
        for path in (self.root / "state").rglob("*"):
            if path.is_file():
                found[str(path.parent)] = found.get(str(path.parent), 0) + path.stat().st_size
        return found


# --------------------------------------------------------------------------------------------- the command

SIDES: dict[str, Callable[[Path, argparse.Namespace, Seconds], Decisions]] = {
    "datatrove": datatrove,
    "datasketch": datasketch,
    "rensa": rensa,
    "daft": daft,
    "ours-kernel": ours_kernel,
    "ours-memory": ours_memory,
    "ours-run": ours_run,
}
PARTS = ("shingles",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clusters", type=Path)
    parser.add_argument("--normalised", action="store_true")
    parser.add_argument("--verify", type=lambda v: v if v == "off" else float(v), default=0.7)
    parser.add_argument("--memory-limit", type=int, help="bytes, of ours-run")
    parser.add_argument("--scratch", type=Path, help="where run folders are made")
    args = parser.parse_args()
    args.more = {}
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seconds: Seconds = {}
    removed, labels = SIDES[args.side](args.folder, args, seconds)
    peak = args.more.pop("peak", None) or high_water()
    if args.clusters:
        import numpy as np

        np.save(args.clusters, np.asarray(labels(), dtype=np.int64))
    parts = {name: seconds.pop(name) for name in PARTS if name in seconds}
    print(json.dumps({"removed": removed, "seconds": seconds, "parts": parts, "peak": peak, **args.more}))


if __name__ == "__main__":
    main()
