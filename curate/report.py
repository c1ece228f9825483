"""The page that a person reads to decide whether a corpus is right: `report.html`, one file that asks for nothing else."""

from __future__ import annotations

from html import escape
from pathlib import Path

from curate.run import Run
from curate.storage import read_json, write_bytes


def write(root: Path) -> Path:
    """Write `<root>/report.html` about a run, finished or not, and return its path. Raises ManifestError for another folder."""
    run = Run(root)
    summary = read_json(root / "summary.json") if (root / "summary.json").exists() else {"stages": []}
    rows = "".join(
        f"<tr><th scope=row>{escape(e['id'])}</th><td>{e['rows_in']:,}</td><td>{e['rows_out']:,}</td><td>{e['tokens']:,}</td></tr>"
        for e in summary["stages"]
    )
    title = escape(run.info["recipe"])
    head = "<tr><th>Stage</th><th>In</th><th>Out</th><th>Tokens</th></tr>"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body><h1>{title}</h1>'
        f"<table><caption>Stages</caption>{head}{rows}</table></body></html>"
    )
    path = root / "report.html"
    write_bytes(path, page.encode())
    return path
