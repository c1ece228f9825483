"""The corpus of `selection.py`: a pool, and for each target domain documents that say what is wanted and others that judge.

Every document of domains/ is cut into pieces of about one window at the ends of lines, sentences or words, as in the paper of
CoLoR-Filter, where what is selected are sequences of one length. A target domain is divided by document: a quarter is the
target, a fifth judges, the rest lies in the pool among the other domains, where it is to be found. No piece of the target is
in the pool, and none that is a near-duplicate of one that judges is in the target or the pool.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curate.stages.minhash import MinHash

PIECE = 1800  # characters at most: about 512 tokens
SHORTEST = 200  # a document's last piece, if it has others
TEST, TARGET = 0.20, 0.25  # shares of a target domain
SIMILAR = 0.5  # Jaccard of sets of five words, from which on a piece is a near-duplicate
VERSION = 1


def pieces(text: str) -> Iterator[str]:
    """A text in parts of at most `PIECE` characters, cut at the last line, sentence or word of the second half of each."""
    while len(text) > PIECE:
        at = PIECE
        for end in ("\n", ". ", " "):
            found = text.rfind(end, PIECE // 2, PIECE)
            if found >= 0:
                at = found + len(end)
                break
        yield text[:at]
        text = text[at:]
    if text.strip():
        yield text


def _cut(table: pa.Table) -> pa.Table:
    found: dict[str, list[Any]] = {"id": [], "text": [], "domain": [], "document": []}
    for row in table.select(["id", "text", "domain"]).to_pylist():
        parts = list(pieces(row["text"]))
        if len(parts) > 1 and len(parts[-1].strip()) < SHORTEST:
            parts[-2:] = ["".join(parts[-2:])]
        for i, part in enumerate(parts):
            found["id"].append(f"{row['domain']}/{row['id']}#{i}")
            found["text"].append(part)
            found["domain"].append(row["domain"])
            found["document"].append(f"{row['domain']}/{row['id']}")
    return pa.table(found)


def _side(document: str) -> str:
    share = xxhash.xxh3_64_intdigest(document.encode(), 7) / 2.0**64
    return "test" if share < TEST else "target" if share < TEST + TARGET else "pool"


def prepare(data: Path, folder: Path, targets: Sequence[str], most_target: int, most_test: int) -> dict[str, Any]:
    """Write pool.parquet, and target-NAME.parquet and test-NAME.parquet for each target; return what they hold.

    most_target, most_test: bytes of text of each at most, of the pieces with the lowest hash.
    """
    about = folder / "corpus.json"
    wanted = {"version": VERSION, "targets": list(targets), "most_target": most_target, "most_test": most_test}
    if about.is_file() and (found := json.loads(about.read_text()))["made_for"] == wanted:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    source = data / "domains" / "domains.parquet"
    table = _cut(pq.read_table(source)) if source.is_file() else pa.table({})
    unknown = set(targets) - set(table["domain"].to_pylist() if len(table) else [])
    if unknown:
        raise SystemExit(f"{source} has no domain {sorted(unknown)[0]!r}")
    labelled = MinHash(mode="label", verify=SIMILAR, bands=40, rows=4, verify_sample=1 << 20)(table).kept
    table = table.append_column("cluster", labelled["duplicate_cluster"])
    of_target = np.array(pc.is_in(table["domain"], value_set=pa.array(list(targets))).to_pylist())
    sides = np.array(["pool"] * len(table), object)
    sides[of_target] = [_side(d) for d in table.filter(pa.array(of_target))["document"].to_pylist()]
    clusters = table["cluster"]
    judged = pc.unique(clusters.filter(pa.array(sides == "test")).drop_null())
    near = np.array(pc.fill_null(pc.is_in(clusters, value_set=judged), False).to_pylist()) & np.array(
        pc.is_valid(clusters).to_pylist()
    )
    removed = near & (sides != "test")
    shared = pc.unique(clusters.filter(pa.array((sides == "target") & ~removed)).drop_null())
    of_both = np.array(pc.is_in(clusters, value_set=shared).to_pylist()) & np.array(pc.is_valid(clusters).to_pylist())
    removed |= of_both & (sides == "pool")
    result: dict[str, Any] = {"made_for": wanted, "removed_as_near": int(removed.sum())}
    pool = table.filter(pa.array((sides == "pool") & ~removed))
    result["pool"] = _sizes(pool)
    result["domains"] = {
        name: _sizes(pool.filter(pc.equal(pool["domain"], name))) for name in sorted(set(pool["domain"].to_pylist()))
    }
    pq.write_table(pool.select(["id", "text", "domain"]), folder / "pool.parquet")
    for name in targets:
        mine = np.array(pc.equal(table["domain"], name).to_pylist())
        for side in ("target", "test"):
            part = table.filter(pa.array(mine & (sides == side) & ~removed))
            hashes = np.array([xxhash.xxh3_64_intdigest(i.encode(), 11) for i in part["id"].to_pylist()], np.uint64)
            part = part.take(pa.array(np.argsort(hashes, kind="stable")))
            size = np.cumsum(pc.binary_length(part["text"]).to_numpy())
            most = most_test if side == "test" else most_target
            part = part.slice(0, max(1, int(np.searchsorted(size, most, "right"))))
            pq.write_table(part.select(["id", "text"]), folder / f"{side}-{name}.parquet")
            result[f"{side}/{name}"] = _sizes(part)
    about.write_text(json.dumps(result, indent=1))
    return result


def _sizes(table: pa.Table) -> dict[str, int]:
    return {"pieces": len(table), "bytes": int(pc.sum(pc.binary_length(table["text"])).as_py() or 0)}
