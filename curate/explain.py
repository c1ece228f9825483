"""Why a document is where it is: its life stage by stage, what was dropped, and samples to read.

Everything is looked up in the Parquet files of the run; ids are found by reading the `id` and `url` columns alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.dataset import Dataset, Generation
from curate.errors import ManifestError
from curate.phases import ADDRESS_BITS, view
from curate.plan import Node
from curate.stage import DROP_SCHEMA, PARENT, REASON, ROW, Expand
from curate.storage import open_table, read_json, read_table

if TYPE_CHECKING:
    from curate.run import Run

_PLACE = ("corpus", "file", "record")


def why(run: Run, doc: str) -> list[dict[str, Any]]:
    """The lives of all documents whose id or URL is `doc`, as JSON values.

    Each has `id`, `url`, `corpus`, `file`, `record`, `stages` (per stage: its columns, and `reason`, `value`, `duplicate_of`
    where it was dropped), and `fate`: "kept" with the output shard and row, "dropped" with the stage and reason, or
    "rejected" for a record that never became a document. Raises ManifestError where nothing matches.
    """
    lives = [_rejected(row) for row in _rejects(run, doc)]
    for generation, shard, row in _find(run, doc):
        lives.append(_life(run, generation, shard, row))
    if not lives:
        raise ManifestError(f"{run.root} has no document with the id or URL {doc!r}")
    return lives


def _rejects(run: Run, doc: str) -> Iterator[dict[str, Any]]:
    for path in sorted((run.root / run.ingest_drops).glob("*.parquet")):
        table = read_table(path)
        match = pc.or_kleene(pc.equal(table["id"], doc), pc.equal(table["url"], doc))
        yield from table.filter(pc.fill_null(match, False)).to_pylist()


def _rejected(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{k: row[k] for k in ("id", "url", *_PLACE)},
        "stages": [],
        "fate": {"kind": "rejected", "stage": "ingest", "reason": row["_reason"], "detail": row["_detail"]},
    }


def _find(run: Run, doc: str) -> Iterator[tuple[int, int, int]]:
    for generation, folder in enumerate(run.context.generations):
        for shard, info in enumerate(Generation.load(run.root, folder).shards):
            ids = read_table(run.root / folder / info.name, ["id", "url"])
            match = pc.fill_null(pc.or_kleene(pc.equal(ids["id"], doc), pc.equal(ids["url"], doc)), False)
            for row in np.flatnonzero(np.asarray(match)):
                yield generation, shard, int(row)


def _life(run: Run, generation: int, shard: int, row: int) -> dict[str, Any]:
    folder = run.context.generations[generation]
    info = Generation.load(run.root, folder).shards[shard]
    with open_table(run.root / folder / info.name) as file:
        known = [
            n for n in ("id", "url", *_PLACE, "date", "media_type", "text_bytes", "tokens") if n in file.schema_arrow.names
        ]
        extra = [PARENT] if PARENT in file.schema_arrow.names else []
    first = Dataset(run.root, folder, dict.fromkeys([*known, *extra], ""))
    rows = np.array([row], np.uint32)
    facts = next(iter(first.read(shard, [*known, *extra], rows))).to_pylist()[0]
    facts.pop(ROW)
    life: dict[str, Any] = {**facts, "stages": [], "shard": f"{folder}/{info.name}", "row": row}
    if extra:
        parent = facts[PARENT]
        life["parent"] = {"shard": parent >> ADDRESS_BITS, "row": parent & ((1 << ADDRESS_BITS) - 1)}
        life.pop(PARENT)
    for node in run.plan.nodes:
        if node.generation != generation:
            continue
        event = _event(run, node, info.name, row)
        if event is None:
            life["fate"] = {"kind": "unfinished", "stage": node.id}
            return life
        life["stages"].append(event)
        if "reason" in event:
            life["fate"] = {"kind": "dropped", "stage": node.id, **{k: v for k, v in event.items() if k != "stage"}}
            return life
        if isinstance(node.stage, Expand):
            children = _children(run, node, shard, row)
            event["children"] = children
            life["fate"] = {"kind": "expanded", "stage": node.id, "children": len(children)}
            return life
    life["fate"] = _exported(run, life)
    return life


def _event(run: Run, node: Node, name: str, row: int) -> dict[str, Any] | None:
    """What a stage wrote about a row, and whether it dropped it; None if it has not come to it."""
    event: dict[str, Any] = {"stage": node.id}
    drops = run.root / node.drops / name
    if not drops.exists():
        return None
    layer = run.root / node.layer / name
    if len(node.writes) and layer.exists():
        names = [n for n in node.writes.names if n != "text"]
        table = read_table(layer, [ROW, *names])
        found = table.filter(pc.equal(table[ROW], row)).to_pylist()
        event["columns"] = {n: found[0][n] for n in names} if found else {}
    table = read_table(drops)
    for gone in table.filter(pc.equal(table[ROW], row)).to_pylist():
        event["reason"] = gone[REASON]
        for key in ("_value", "_duplicate_of", "_similarity"):
            if gone[key] is not None:
                event[key[1:]] = gone[key]
    return event


def _children(run: Run, node: Node, shard: int, row: int) -> list[str]:
    found: list[str] = []
    address = (shard << ADDRESS_BITS) | row
    for info in Generation.load(run.root, node.new_generation).shards:
        if shard in info.parents:
            table = read_table(run.root / node.new_generation / info.name, ["id", PARENT])
            found += table.filter(pc.equal(table[PARENT], pa.scalar(address, pa.uint64())))["id"].to_pylist()
    return found


def _exported(run: Run, life: dict[str, Any]) -> dict[str, Any]:
    path = run.root / "output" / "manifest.json"
    if not run.exported or not path.exists():
        return {"kind": "kept", "output": None}
    for entry in read_json(path)["shards"]:
        table = pq.read_table(run.root / "output" / entry["path"], columns=[*_PLACE])
        match = pc.and_(pc.equal(table["record"], life["record"]), pc.equal(table["file"], life["file"]))
        match = pc.and_(match, pc.equal(table["corpus"], life["corpus"]))
        at = np.flatnonzero(np.asarray(match))
        if len(at) > 1 and "id" in pq.read_schema(run.root / "output" / entry["path"]).names:
            ids = pq.read_table(run.root / "output" / entry["path"], columns=["id"])["id"]
            at = np.array([i for i in at if ids[int(i)].as_py() == life["id"]])
        if len(at):
            return {"kind": "kept", "output": f"output/{entry['path']}", "row": int(at[0]), "split": entry["split"]}
    return {"kind": "kept", "output": None}


def drops(run: Run, stage: str | None = None) -> pa.Table:
    """Every dropped document: `stage`, `id`, `url`, `corpus`, `file`, `record`, `_reason` and its neighbours, `_detail`.

    stage: only of this stage; "ingest" for the records that never became documents.
    """
    tables = [_drop_table(run, b, s) for s, b in _dropped(run, stage)]
    return pa.concat_tables(tables) if tables else _drop_schema().empty_table()


def _drop_schema() -> pa.Schema:
    names = [("stage", pa.string()), ("id", pa.string()), ("url", pa.string()), ("corpus", pa.string()), ("file", pa.string())]
    own = [f for f in DROP_SCHEMA if f.name != ROW]
    return pa.schema([*names, ("record", pa.int64()), *own, ("_detail", pa.string())])


def _drop_table(run: Run, table: pa.Table, stage: str) -> pa.Table:
    schema = _drop_schema()
    n = len(table)
    columns = {f.name: table[f.name] if f.name in table.column_names else pa.nulls(n, f.type) for f in schema}
    columns["stage"] = pa.array([stage] * n, pa.string())
    return pa.table(columns, schema=schema)


def _dropped(run: Run, stage: str | None) -> Iterator[tuple[str, pa.Table]]:
    """(stage, its drops with the place of each document) shard by shard."""
    if stage is None or stage == "ingest":
        for path in sorted((run.root / run.ingest_drops).glob("*.parquet")):
            table = read_table(path)
            if len(table):
                yield "ingest", table
    for node in run.plan.nodes if stage is None else [] if stage == "ingest" else [run.node(stage)]:
        before = view(node, run.context)
        names = [n for n in ("id", "url", *_PLACE) if n in before.columns]
        for shard, info in enumerate(before.generation.shards):
            path = run.root / node.drops / info.name
            if not path.exists():
                continue
            gone = read_table(path).sort_by(ROW)
            if len(gone):
                rows = gone[ROW].to_numpy()
                place = pa.Table.from_batches(list(before.read(shard, names, rows)))
                for name in names:
                    gone = gone.append_column(name, place[name])
                yield node.id, gone


def inspect(run: Run, stage: str | None = None, dropped: bool = False, n: int = 20) -> list[dict[str, Any]]:
    """n documents to read, spread evenly over what a stage kept or (`dropped`) dropped; default: what the run kept.

    Each has its columns, the text (cut at 2,000 characters), and where dropped the reason and its evidence.
    """
    if dropped:
        return _inspect_dropped(run, stage, n)
    kept = run.dataset(stage)
    names = [c for c in kept.columns if c != "html"]
    counts = [len(kept.survivors(shard)) for shard in range(len(kept.generation.shards))]
    found = []
    for shard, rows in _spread(counts, n):
        alive = kept.survivors(shard)[rows]
        for batch in kept.read(shard, names, alive):
            found += [_readable(row) for row in batch.to_pylist()]
    return found


def _inspect_dropped(run: Run, stage: str | None, n: int) -> list[dict[str, Any]]:
    parts = [(s, table) for s, table in _dropped(run, stage)]
    found = []
    for part, rows in _spread([len(t) for _, t in parts], n):
        stage_id, table = parts[part]
        chosen = table.take(pa.array(rows)).to_pylist()
        if stage_id != "ingest":
            node = run.node(stage_id)
            before = view(node, run.context)
            folder = Path(run.root / node.drops)
            for row in chosen:
                shard = next(
                    i
                    for i, info in enumerate(before.generation.shards)
                    if (folder / info.name).exists() and _holds(before, i, row)
                )
                batch = next(iter(before.read(shard, ["text"], np.array([row[ROW]], np.uint32))))
                row["text"] = batch["text"][0].as_py()
        found += [_readable({"stage": stage_id, **row}) for row in chosen]
    return found


def _holds(before: Any, shard: int, row: dict[str, Any]) -> bool:
    info = before.generation.shards[shard]
    if row[ROW] >= info.documents:
        return False
    batch = next(iter(before.read(shard, list(_PLACE), np.array([row[ROW]], np.uint32))), None)
    return batch is not None and all(batch[c][0].as_py() == row[c] for c in _PLACE)


def _spread(counts: list[int], n: int) -> Iterator[tuple[int, np.ndarray]]:
    """(part, positions in it) for n places spread evenly over parts of these sizes."""
    total = sum(counts)
    if not total:
        return
    places = np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(np.int64))
    start = 0
    for part, count in enumerate(counts):
        inside = places[(places >= start) & (places < start + count)] - start
        if len(inside):
            yield part, inside
        start += count


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    row = {k: v for k, v in row.items() if k != ROW and v is not None and not isinstance(v, bytes)}
    if len(row.get("text", "")) > 2000:
        row["text"] = row["text"][:2000] + " …"
    return row
