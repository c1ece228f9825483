"""datatrove's side of `ingest.py`, run by it as a process of its own: `python _peers.py PIPELINE IN OUT [options]`.

Settings that differ from datatrove's defaults, each of them in its favour:

- Trafilatura is imported before the executor starts and the workers are forked, so a page never pays for the import
  inside its one-second limit, nor every task again.
- The empty pipeline writes metadata as columns, without content-defined chunking, page index or a limit of file size. Of
  eleven settings tried, this was the fastest that keeps every column and the default compression (by a sixth).
- Text from WARC is written as JSON lines, which is a little faster than Parquet at this size.

What a pipeline read, wrote and lost is printed to stdout as one JSON object; datatrove's own log goes to stderr.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

NEEDS = ("datatrove", "trafilatura", "warcio", "python-magic", "faust-cchardet", "pyarrow", "orjson")
FASTER = ("isal",)


def versions() -> dict[str, str | None]:
    """Versions of what this side runs on; None where a package is absent."""
    found: dict[str, str | None] = {}
    for name in (*NEEDS, *FASTER):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def execute(pipeline: list[Any], tasks: int, workers: int, logs: Path) -> list[dict[str, Any]]:
    """Run a pipeline and return the counters of each step."""
    from datatrove.executor.local import LocalPipelineExecutor

    executor = LocalPipelineExecutor(
        pipeline, tasks=tasks, workers=workers, logging_dir=str(logs), start_method="fork", skip_completed=False
    )
    executor.run()
    stats = json.loads((logs / "stats.json").read_text())
    return [{"name": step["name"], **{k: count(v) for k, v in step["stats"].items()}} for step in stats]


def count(value: Any) -> float:
    return value["total"] if isinstance(value, dict) else value


def writer(kind: str, folder: Path) -> Any:
    from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

    if kind == "jsonl":
        return JsonlWriter(str(folder))
    if kind == "parquet":
        return ParquetWriter(str(folder))
    lean = {"use_content_defined_chunking": False, "write_page_index": False, "max_file_size": -1}
    return ParquetWriter(str(folder), expand_metadata=True, **lean)


def warc(args: argparse.Namespace) -> dict[str, Any]:
    """WarcReader, Trafilatura as datatrove sets it up, a writer. One task per file."""
    import trafilatura  # noqa: F401  (before the fork, see above)
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.readers import WarcReader

    tasks = len(list(args.input.iterdir()))
    steps = execute(
        [WarcReader(str(args.input)), Trafilatura(), writer(args.writer, args.output / "data")],
        tasks, args.workers, args.output / "logs",
    )  # fmt: skip
    read, extracted, written = steps
    lost = {k: int(extracted[k]) for k in ("timeout", "broken_process", "clean_error", "dropped") if extracted.get(k)}
    return {"read": int(read.get("documents", 0)), "kept": int(written.get("total", 0)), "lost_in_extraction": lost}


def parquet(args: argparse.Namespace) -> dict[str, Any]:
    """ParquetReader straight into ParquetWriter. One task per file."""
    from datatrove.pipeline.readers import ParquetReader

    tasks = len(list(args.input.iterdir()))
    steps = execute(
        [ParquetReader(str(args.input)), writer(args.writer, args.output / "data")], tasks, args.workers, args.output / "logs"
    )
    return {"read": int(steps[0].get("documents", 0)), "kept": int(steps[-1].get("total", 0))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", choices=("versions", "warc", "parquet"))
    parser.add_argument("input", type=Path, nargs="?")
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--writer", choices=("jsonl", "parquet", "parquet-lean"), default="parquet-lean")
    args = parser.parse_args()
    if args.pipeline == "versions":
        print(json.dumps(versions()))
        return
    run = {"warc": warc, "parquet": parquet}[args.pipeline]
    print(json.dumps(run(args)), file=sys.stdout)


if __name__ == "__main__":
    main()
