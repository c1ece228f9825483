"""What the command line prints for people: progress on stderr, tables on stdout."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curate.phases import Phase
from curate.run import Observer


class Progress(Observer):
    """A bar per phase on a terminal, a line per finished phase elsewhere. Always on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Any = None
        self._row: Any = None
        self._phase: Phase | None = None
        self._done = self._before = 0
        self._started = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            from rich import progress

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._close()
        if self._bar is not None:
            self._bar.stop()

    def phase(self, phase: Phase, done: int) -> None:
        self._close()
        self._phase, self._done, self._before, self._started = phase, done, done, time.perf_counter()
        if self._bar is not None:
            self._row = self._bar.add_task(escape(phase.name), total=phase.tasks, completed=done)

    def task(self, phase: Phase, rank: int) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._row)

    def note(self, text: str) -> None:
        self._console.print(f"note: {text}", markup=False)

    def _close(self) -> None:
        if self._phase is None or self._bar is not None:
            return
        seconds = time.perf_counter() - self._started
        reused = f", {self._before} reused" if self._before else ""
        print(f"{self._phase.name}: {self._done}/{self._phase.tasks} tasks{reused}, {seconds:.1f} s", file=sys.stderr)
        self._phase = None


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        name = column.lstrip(">")
        table.add_column(name, justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _console() -> Console:
    """Stdout; as wide as it likes when it is not a terminal, so that a pipe cuts nothing."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def funnel(summary: dict[str, Any]) -> None:
    """Documents and tokens after each stage, what went and why, and what is written."""
    table = _table("stage", ">documents", ">tokens", ">dropped", "reasons")
    first = summary["stages"][0]["rows_in"]
    for entry in summary["stages"]:
        gone = sum(entry["drops"].values())
        why = ", ".join(f"{reason} {n:,}" for reason, n in sorted(entry["drops"].items(), key=lambda kv: -kv[1]))
        added = f" (+{entry['rows_added']:,} made)" if entry["rows_added"] else ""
        share = f"{gone / max(1, entry['rows_in']):.1%}" if gone else ""
        table.add_row(
            escape(entry["id"]),
            f"{entry['rows_out']:,}",
            f"{entry['tokens']:,}",
            f"{gone:,} {share}".strip(),
            escape(why) + added,
        )
    console = _console()
    console.print(table)
    for entry in summary["stages"]:
        for note, n in entry.get("notes", {}).items():
            console.print(f"note: {entry['id']}: {n:,} {note}", markup=False, soft_wrap=True)
    kept = summary["documents"]
    if kept != summary["stages"][-1]["rows_out"] or any(entry["rows_added"] for entry in summary["stages"]):
        said = f"{kept:,} documents made of {first:,} records"
    else:
        said = f"{kept:,} of {first:,} records kept ({kept / max(first, 1):.1%})"
    console.print(f"\n{said}, {summary['tokens']:,} tokens", markup=False)
    if "until" in summary:
        console.print(f"stopped   {_stopped(summary['until'])}", markup=False, soft_wrap=True)
    else:
        console.print(f"manifest  {summary['manifest']}", markup=False, soft_wrap=True)
        console.print(f"digest    {summary['digest']}", markup=False)
    console.print(f"seconds   {summary['seconds']:.1f}", markup=False)


def _stopped(until: str) -> str:
    return f"after {until}, before the export: the same command without --until goes on"


def plan(found: dict[str, Any]) -> None:
    """Inputs, phases and columns."""
    console = _console()
    size = sum(f["bytes"] for f in found["inputs"])
    kinds = sorted({f["kind"] for f in found["inputs"]})
    console.print(
        f"{found['recipe']}: {len(found['inputs'])} input files ({', '.join(kinds)}), {size / 1e6:,.1f} MB\n", markup=False
    )
    table = _table(">#", "phase", ">tasks", "stages")
    for i, phase in enumerate(found["phases"]):
        table.add_row(str(i), escape(phase["name"]), str(phase["tasks"]), escape(", ".join(phase["stages"])))
    console.print(table)
    console.print()
    table = _table("column", "type", "written by")
    for column in found["columns"]:
        table.add_row(escape(column["name"]), escape(column["type"]), escape(column["written_by"]))
    console.print(table)


def status(found: list[dict[str, Any]], until: str | None = None) -> None:
    """One line a phase. until: the stage after which the run was to stop."""
    table = _table("phase", ">done", ">documents", ">docs/s", ">task seconds", "failures")
    for entry in found:
        table.add_row(
            escape(entry["phase"]),
            f"{entry['done']}/{entry['tasks']}",
            f"{entry['documents']:,}" if entry["documents"] else "",
            f"{entry['docs_per_second']:,.0f}" if entry["docs_per_second"] else "",
            f"{entry['seconds']:.1f}",
            escape("\n".join(entry["failures"])),
        )
    console = _console()
    console.print(table)
    if until is not None:
        console.print(f"to stop {_stopped(until)}", markup=False, soft_wrap=True)


def lives(found: list[dict[str, Any]]) -> None:
    """The life of each document as a short story."""
    console = _console()
    for i, life in enumerate(found):
        if i:
            console.print()
        console.print(f"[bold]{escape(str(life['id']))}[/bold]  {escape(str(life.get('url') or ''))}")
        console.print(f"  from {life['corpus']}: {life['file']} at {life['record']}", markup=False)
        if "tokens" in life:
            console.print(f"  ingest: {life['text_bytes']:,} bytes, {life['tokens']:,} tokens", markup=False)
        for event in life["stages"]:
            columns = ", ".join(f"{k} {_short(v)}" for k, v in event.get("columns", {}).items())
            line = f"  {event['stage']}: {columns or 'passed'}"
            if "reason" in event:
                evidence = [f"{k} {_short(event[k])}" for k in ("value", "duplicate_of", "similarity") if k in event]
                line += f" -> dropped: {event['reason']}" + (f" ({', '.join(evidence)})" if evidence else "")
            console.print(line, markup=False)
        fate = life["fate"]
        if fate["kind"] == "rejected":
            console.print(f"  ingest -> rejected: {fate['reason']} ({fate['detail']})", markup=False)
        elif fate["kind"] == "kept":
            place = f"{fate['output']} row {fate['row']}" if fate.get("output") else "not exported yet"
            console.print(f"  kept: {place}", markup=False)
        elif fate["kind"] == "expanded":
            console.print(f"  {fate['stage']} made {fate['children']} documents of it", markup=False)
        elif fate["kind"] == "unfinished":
            console.print(f"  has not come to {fate['stage']} yet", markup=False)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def documents(found: list[dict[str, Any]]) -> None:
    """Documents to read."""
    console = _console()
    for row in found:
        text = row.pop("text", "")
        head = " ".join(f"{k}={_short(v)}" for k, v in row.items() if k not in ("id",))
        console.rule(escape(str(row.get("id", ""))), align="left")
        console.print(head, markup=False, style="dim")
        console.print(text, markup=False)


def stages(found: Any, single: bool) -> None:
    """The list of stages, or one of them."""
    console = _console()
    if not single:
        table = _table("stage", "kind", "what it does")
        for entry in found:
            table.add_row(entry["name"], entry["kind"], escape(entry["summary"]))
        console.print(table)
        return
    console.print(f"[bold]{found['name']}[/bold]  ({found['kind']})\n")
    console.print(found["doc"], markup=False)
    table = _table("parameter", "type", "default")
    for parameter in found["parameters"]:
        table.add_row(parameter["name"], escape(parameter["type"]), escape(parameter["default"]))
    if found["parameters"]:
        console.print()
        console.print(table)
    console.print(f"\nreads   {', '.join(found['reads']) or '-'}", markup=False)
    console.print(f"writes  {', '.join(f'{k}: {v}' for k, v in found['writes'].items()) or '-'}", markup=False)
    console.print(f"reasons {', '.join(found['reasons']) or '-'}", markup=False)


ROWS = 40  # of a page beside another that nobody asked for
NARROW = 26  # characters of a column below which texts stand one under another


def comparison(found: dict[str, Any], whole: bool) -> None:
    """Extractors beside each other: the table, the pages that differ most, and one page. whole: all of that page."""
    console = _console()
    names = [engine["name"] for engine in found["engines"]]
    for name, why in found["left_out"].items():
        console.print(f"note: without {name}: {why}", markup=False, soft_wrap=True)
    if found["rejected"]:
        n = sum(found["rejected"].values())
        reasons = ", ".join(f"{reason} {k:,}" for reason, k in found["rejected"].items())
        console.print(f"note: {n:,} {_plural(n, 'record')} without a page ({reasons})", markup=False, soft_wrap=True)
    n = found["pages"]
    console.print(f"{n:,} {_plural(n, 'page')}, keep: {found['keep']}, format: {found['format']}\n", markup=False)
    table = _table("engine", ">with text", ">refused", ">words", ">pages/s", *(f">F1 to {name}" for name in names))
    for engine in found["engines"]:
        rate = engine["pages_per_second"]
        table.add_row(
            escape(engine["name"]),
            f"{engine['pages']:,}",
            f"{sum(engine['refused'].values()):,}",
            f"{engine['words']:,}",
            f"{rate:,.0f}" if rate else "",
            *(f"{engine['f1'][name]:.3f}" if name in engine["f1"] else "" for name in names),
        )
    console.print(table)
    for engine in found["engines"]:
        if engine["refused"]:
            reasons = ", ".join(f"{reason} {k:,}" for reason, k in engine["refused"].items())
            console.print(f"note: {engine['name']} refused {reasons}", markup=False, soft_wrap=True)
    if found["differ"]:
        console.print("\nThe pages that differ most; F1 is the lowest between two, the others count words", markup=False)
        table = _table(">page", ">F1", *(f">{name}" for name in names), "url")
        for entry in found["differ"]:
            counts = (f"{entry['words'][name]:,}" for name in names)
            table.add_row(str(entry["page"]), f"{entry['f1']:.3f}", *counts, escape(_printable(entry["url"])))
        console.print(table)
    if found["page"]:
        console.print()
        _beside(console, found["page"], whole)


def _plural(n: int, word: str) -> str:
    return word if n == 1 else f"{word}s"


def _printable(text: str) -> str:
    """The text without what would let a page steer the terminal: control characters and those that turn the line around."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "" for c in text.expandtabs(4))


def _beside(console: Console, page: dict[str, Any], whole: bool) -> None:
    """The texts of one page in columns, what all have in plain, what differs in colour."""
    from curate.compare import side_by_side

    names = list(page["texts"])
    title = f"page {page['page']}  {_printable(page['url'])}"
    if console.width // len(names) < NARROW:
        for name, text in page["texts"].items():
            console.rule(escape(f"{title}  {name}"), align="left")
            lines = [line for line in _printable(text).split("\n") if line.strip()]
            console.print("\n".join(lines if whole else lines[:ROWS]) or "(no text)", markup=False)
            _rest(console, page, len(lines), whole)
        return
    console.rule(escape(title), align="left")
    rows = side_by_side(page["texts"])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), expand=True)
    for name in names:
        table.add_column(escape(f"{name} ({page['words'][name]:,} words)"), ratio=1, overflow="fold")
    for same, cells in rows if whole else rows[:ROWS]:
        table.add_row(*(escape(_printable(cell)) for cell in cells), style=None if same else "yellow")
    if console.is_terminal:
        console.print(table)
    else:
        with console.capture() as plain:
            console.print(table)
        print("\n".join(line.rstrip() for line in plain.get().splitlines()))
    _rest(console, page, len(rows), whole)


def _rest(console: Console, page: dict[str, Any], rows: int, whole: bool) -> None:
    if rows > ROWS and not whole:
        console.print(f"… {rows - ROWS:,} more; --page {page['page']} shows all", markup=False, style="dim")
