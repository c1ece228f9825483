"""Helpers of `ingest.py` that need the package or pyarrow. It runs them as processes of their own, to stay small itself.

    count IN                      independent count of what a folder of archives holds (warcio)
    parquet DATA OUT MB           the input of the empty pipeline, the same bytes every time
    ledger RUN                    what a finished `curate run` kept and dropped, by reason

Each prints one JSON object to stdout.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

HTML = ("text/html", "application/xhtml+xml")


def count_records(folder: Path) -> dict[str, Any]:
    """Records by type, and the responses that a crawler would call an HTML page: status 2xx, HTML by its headers."""
    from warcio.archiveiterator import ArchiveIterator

    kinds: Counter[str] = Counter()
    html = size = 0
    for path in sorted(folder.iterdir()):
        with path.open("rb") as f:
            for record in ArchiveIterator(f):
                kinds[record.rec_type] += 1
                if record.rec_type != "response" or record.http_headers is None:
                    continue
                declared = record.rec_headers.get_header("WARC-Identified-Payload-Type")
                told = declared or record.http_headers.get_header("Content-Type") or ""
                if record.http_headers.get_statuscode().startswith("2") and told.split(";")[0].strip().lower() in HTML:
                    html += 1
                    size += len(record.content_stream().read())
    return {"records": sum(kinds.values()), "kinds": dict(kinds), "html": html, "html_bytes": size}


def build_parquet(
    data: Path, out: Path, megabytes: float, characters: int = 0, files: int = 6, row_group: int = 5000
) -> dict[str, Any]:
    """Repeat domains and quality, each copy under ids of its own, up to `megabytes` of text, in `files` files.

    characters: cut every text to so many, to see what a document costs rather than a byte; 0 leaves them whole.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["id", "text", "source", "lang"]
    tables = [pq.read_table(data / name / f"{name}.parquet", columns=columns) for name in ("domains", "quality")]
    base = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    if characters:
        base = base.set_column(1, "text", pc.utf8_slice_codeunits(base["text"], 0, characters))
    sizes = pc.cast(pc.binary_length(base["text"]), pa.int64()).to_pylist()
    copies, rows, left = [], 0, int(megabytes * 1e6)
    while left > 0:
        n = 0
        while n < len(sizes) and left > 0:
            left -= sizes[n]
            n += 1
        ids = pc.binary_join_element_wise(base["id"].slice(0, n), f"copy{len(copies)}", "-")
        copies.append(base.slice(0, n).set_column(0, "id", ids))
        rows += n
    whole = pa.concat_tables(copies)
    out.mkdir(parents=True)
    per_file = -(-rows // files)
    for i, start in enumerate(range(0, rows, per_file)):
        part = whole.slice(start, per_file)
        pq.write_table(part, out / f"part-{i:02d}.parquet", compression="zstd", row_group_size=row_group)
    text = pc.sum(pc.binary_length(whole["text"])).as_py()
    return {"documents": rows, "text_bytes": text, "files": len(list(out.iterdir()))}


def read_ledger(run: Path) -> dict[str, Any]:
    """Documents that ingest saw, dropped and kept, and what the export holds."""
    import pyarrow.parquet as pq

    reasons: Counter[str] = Counter()
    kept = 0
    for row in pq.read_table(run / "ledger.parquet").to_pylist():
        if row["stage"] != "ingest":
            continue
        if row["reason"] is None:
            kept += row["documents"]
        else:
            reasons[row["reason"]] += row["documents"]
    manifest = json.loads((run / "output" / "manifest.json").read_text())
    return {
        "read": kept + sum(reasons.values()),
        "kept": manifest["totals"]["documents"],
        "ingested": kept,
        "drops": dict(sorted(reasons.items())),
        "digest": manifest["digest"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("count", "parquet", "ledger"))
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    paths = [Path(p) for p in args.paths]
    if args.command == "count":
        answer: Any = count_records(paths[0])
    elif args.command == "parquet":
        answer = build_parquet(paths[0], paths[1], float(args.paths[2]), int(args.paths[3]))
    else:
        answer = read_ledger(paths[0])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
