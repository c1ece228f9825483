"""Helpers of `ingest.py` that need the package or pyarrow. It runs them as processes of their own, to stay small itself.

    count IN                      independent count of what a folder of archives holds (warcio)
    parquet DATA OUT MB           the input of the empty pipeline, the same bytes every time
    ledger RUN                    what a finished `curate run` kept and dropped, by reason
    names                         the extractors that there are
    pages IN OUT --extractor E    what our reader and an extractor make of each page, as JSON lines
    score PAGES EXTRACTED         word-level precision, recall and F1 against the reference texts

Each prints one JSON object to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

WORD = re.compile(r"\w+")
SPACE = re.compile(r"\s+")
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


def extract_pages(folder: Path, out: Path, extractor: str, max_body_bytes: int = 16 << 20) -> dict[str, Any]:
    """JSON lines {record_id, text, seconds} of each HTML page; seconds are CPU seconds of the extractor alone."""
    from curate import extract
    from curate.sources.warc import Page, Reject, read_archive

    run = extract.load(extractor)
    with contextlib.suppress(extract.Unextractable):
        run(b"<html><title>warm</title><p>lazy imports happen here", None, None)
    pages = 0
    errors: Counter[str] = Counter()
    with out.open("w") as lines:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as stream:
                for item in read_archive(stream, max_body_bytes=max_body_bytes):
                    if isinstance(item, Reject):
                        errors[item.reason] += 1
                    if not isinstance(item, Page) or item.is_text:
                        continue
                    pages += 1
                    before = time.process_time()
                    try:
                        text = run(item.body, item.url, item.charset).text
                    except extract.Unextractable as error:  # ingest quarantines it; here it scores nothing
                        text = ""
                        errors[error.reason] += 1
                    seconds = time.process_time() - before
                    lines.write(json.dumps({"record_id": item.id, "text": text or "", "seconds": seconds}) + "\n")
    return {"pages": pages, "errors": dict(errors)}


def words(text: str) -> Counter[str]:
    return Counter(WORD.findall(text.lower()))


def overlap(found: Counter[str], gold: Counter[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of two multisets of words. Two empty ones agree."""
    if not found and not gold:
        return 1.0, 1.0, 1.0
    common = (found & gold).total()
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / found.total(), common / gold.total()
    return precision, recall, 2 * precision * recall / (precision + recall)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as f:
        yield from map(json.loads, f)


def score(gold: Path, extracted: Path, archives: set[str]) -> dict[str, Any]:
    """Scores overall, by page type and by source, over the reference pages that lie in `archives`.

    A page that the reader or the extractor lost scores 0 and is counted as missing; an empty text scores 0 as well.
    """
    found = {row["record_id"]: row for row in json_lines(extracted)}
    groups: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    wanted, unwanted = [0, 0], [0, 0]
    missing = empty = 0
    for page in json_lines(gold):
        if page["warc"] not in archives:
            continue
        row = found.get(page["record_id"])
        text = row["text"] if row else ""
        missing += row is None
        empty += row is not None and not text.strip()
        if page.get("main_text"):
            marks = overlap(words(text), words(page["main_text"]))
            for group in ("all", f"type {page.get('page_type') or '-'}", f"source {page['source']}"):
                groups[group].append(marks)
        flat = SPACE.sub(" ", text)
        for tally, name in ((wanted, "must_contain"), (unwanted, "must_not_contain")):
            for snippet in page.get(name) or ():
                tally[0] += SPACE.sub(" ", snippet).strip() in flat
                tally[1] += 1
    seconds = [row["seconds"] for row in found.values()]
    return {
        "pages": len(found),
        "missing": missing,
        "empty": empty,
        "seconds": sum(seconds),
        "slowest": max(seconds, default=0.0),
        "must_contain": share(wanted),
        "must_not_contain": share(unwanted),
        "snippets": [wanted[1], unwanted[1]],
        "groups": {name: means(marks) for name, marks in sorted(groups.items())},
    }


def share(tally: list[int]) -> float | None:
    return tally[0] / tally[1] if tally[1] else None


def means(marks: Iterable[tuple[float, float, float]]) -> dict[str, float]:
    precision, recall, f1 = zip(*marks, strict=True)
    return {
        "n": len(f1),
        "precision": statistics.fmean(precision),
        "recall": statistics.fmean(recall),
        "f1": statistics.fmean(f1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("names", "count", "parquet", "ledger", "pages", "score"))
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--extractor", default="resiliparse")
    parser.add_argument("--archives", nargs="*", default=())
    args = parser.parse_args()
    paths = [Path(p) for p in args.paths]
    if args.command == "names":
        from curate import extract

        answer: Any = extract.names()
    elif args.command == "count":
        answer = count_records(paths[0])
    elif args.command == "parquet":
        answer = build_parquet(paths[0], paths[1], float(args.paths[2]), int(args.paths[3]))
    elif args.command == "ledger":
        answer = read_ledger(paths[0])
    elif args.command == "pages":
        answer = extract_pages(paths[0], paths[1], args.extractor)
    else:
        answer = score(paths[0], paths[1], set(args.archives))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
