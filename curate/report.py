"""The page that a person reads to decide whether a corpus is right: `report.html`, one file that asks for nothing else.

Every figure of a finished run comes from ledger.parquet, which is counted from the Parquet files; what an unfinished run can
show are the counts of the phases themselves, and the page says so. The page is plain HTML and CSS with a content policy that
forbids scripts and requests: it shows crawled text, and nothing in a crawl is to be trusted. What is not `Html` is escaped.

A report ends every run, so it is cheap: small records, the ledger, and samples out of a few row groups.
"""

from __future__ import annotations

import contextlib
import html
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ledger as ledgers
from curate import mixtures
from curate.dataset import Dataset, Generation
from curate.errors import CurateError
from curate.memory import FEWEST
from curate.phases import merge_tallies, view
from curate.plan import Node
from curate.run import Run
from curate.stage import REASON, ROW
from curate.storage import read_json, read_table, write_bytes
from curate.tokens import ESTIMATE

TOP_GROUPS, TOP_INPUTS, TOP_OUTPUTS, TOP_PHASES, TOP_REASONS, TOP_FAILURES = 20, 50, 100, 100, 20, 5
KEPT_SAMPLES, DROPPED_SAMPLES, PER_REASON = 6, 12, 2
TEXT_HEAD, CELL, RECIPE_HEAD, FIRST_SHARDS = 300, 120, 20_000, 3
FEWEST_DROPPED, TOP_NAMES = 10, 8
WIDE = 0.5  # a group that loses more than this is worth a look; the blast radius of a stage has the same default
HUGE_BYTES = 256 << 20  # of text: from here on kept samples come from one shard
MODEL_BYTES = 1 << 30  # of stage files: naming layers digests them, which a page is not worth beyond this


def write(root: Path) -> Path:
    """Write `<root>/report.html` about a run, finished or not, and return its path. Raises ManifestError for another folder."""
    path = Path(root) / "report.html"
    write_bytes(path, page(_Facts(Run(root))).encode("utf-8", "replace"))
    return path


# --------------------------------------------------------------------------------------------- safe markup

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]+"
)


class Html(str):
    """Markup. Any other string is text from outside and is escaped."""

    __slots__ = ()


def _text(value: Any) -> Html:
    """A value as text: escaped, with characters that are invisible or turn the writing direction made visible."""
    if isinstance(value, Html):
        return value
    escaped = html.escape(str(value))
    return Html(_CONTROLS.sub(lambda m: f'<span class="ctl">U+{ord(m[0][0]):04X}{"…" * (len(m[0]) > 1)}</span>', escaped))


def _tag(name: str, *content: Any, **attributes: Any) -> Html:
    """An element; `cls` stands for class, and attributes that are None are left out."""
    given = {"class" if k == "cls" else k.replace("_", "-"): v for k, v in attributes.items() if v is not None}
    opening = name + "".join(f' {k}="{html.escape(str(v))}"' for k, v in given.items())
    return Html(f"<{opening}>{''.join(map(_text, content))}</{name}>")


def _value(value: Any, limit: int = CELL) -> Html:
    """A value inside a sentence: cut, and isolated so that its writing direction stays its own."""
    return _tag("bdi", _cut(value, limit))


def _code(value: Any, limit: int = CELL) -> Html:
    return _tag("code", _value(value, limit))


def _name(value: Any) -> Html:
    """A stage or reason, which may break after its dots and underscores."""
    return Html(re.sub(r"(?<=[\w][._])(?=\w)", "<wbr>", _text(_cut(value))))


def _cut(value: Any, limit: int = CELL) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _join(parts: Iterable[Any], between: str = "") -> Html:
    return Html(between.join(_text(p) for p in parts))


def _say(*parts: Any) -> Html:
    return _join(parts)


def _share(part: float, whole: float) -> str:
    if not whole or not part:
        return ""
    share = part / whole
    if 0.9995 <= share < 1:
        return ">99.9%"
    return "<0.1%" if share < 0.0005 else f"{share:.1%}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 10_000_000 else f"{size / 1e6:.3f}"


def _bar(*parts: tuple[str, float]) -> Html:
    """A bar of (class, share of the whole). The figures stand beside it, so it says nothing to a screen reader."""
    inner = _join(_tag("i", cls=c, style=f"width:{min(1.0, max(0.0, share)):.2%}") for c, share in parts if share > 0)
    return _tag("span", inner, cls="bar", aria_hidden="true")


def _table(caption: Any, columns: Sequence[str], rows: Iterable[Any], foot: Any = None) -> Html:
    """A table whose first cell in a row is its header.

    Columns: `>` for numbers, `~` for bars, whose heading is not seen. A row may be Html, a whole `<tr>`.
    """
    right = [c.startswith(">") for c in columns]
    head = _join(_heading(c) for c in columns)
    body = _join(row if isinstance(row, Html) else _row(row, right) for row in rows)
    end = _tag("tfoot", foot if isinstance(foot, Html) else _row(foot, right)) if foot else Html("")
    inside = _join([_tag("caption", _tag("span", caption)), _tag("thead", _tag("tr", head)), _tag("tbody", body), end])
    return _tag(
        "div", _tag("table", inside), cls="wide", tabindex=0, role="region", aria_label=re.sub("<.*?>", "", str(caption))
    )


def _heading(column: str) -> Html:
    if column.startswith("~"):
        return _tag("th", _tag("span", column[1:], cls="hidden"), scope="col")
    return _tag("th", column.lstrip(">"), scope="col", cls="n" if column.startswith(">") else None)


def _row(cells: Sequence[Any], right: Sequence[bool], cls: str | None = None) -> Html:
    inside = [
        _tag("td" if i else "th", f"{c:,}" if isinstance(c, int) else c, cls="n" if r else None, scope=None if i else "row")
        for i, (c, r) in enumerate(zip(cells, right, strict=True))
    ]
    return _tag("tr", *inside, cls=cls)


def _section(anchor: str, title: str, *content: Any) -> Html:
    return _tag("section", _tag("h2", title), *content, id=anchor)


def _details(summary: Any, *content: Any) -> Html:
    return _tag("details", _tag("summary", summary), *content)


# --------------------------------------------------------------------------------------------- what is known of a run


@dataclass
class _Facts:
    """The records of a run, each read once. Nothing here is left over from an earlier edit of the recipe."""

    run: Run
    phases: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.phases = self.run.status()

    @property
    def root(self) -> Path:
        return self.run.root

    @cached_property
    def finished(self) -> bool:
        """Whether the last invocation came to its end; an older summary.json may lie in a folder that is being run again."""
        complete = (self.root / "plan.json").exists() and read_json(self.root / "plan.json")["complete"]
        same = bool(self._manifest) and self.summary.get("digest") == self._manifest.get("digest")
        return bool(complete and same and self.ledger is not None)

    @cached_property
    def stopped(self) -> bool:
        """Whether the last invocation was to stop early (`--until`), and did, with a ledger."""
        until = self.run.until
        return until is not None and self.ledger is not None and self.summary.get("until") == until

    @property
    def last(self) -> str:
        """The entry of the ledger that says what is left."""
        return self.run.until or "export"

    @cached_property
    def summary(self) -> dict[str, Any]:
        return _json(self.root / "summary.json")

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        return _json(self.root / "output" / "manifest.json")

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the output; empty before the end."""
        return self._manifest if self.finished else {}

    @cached_property
    def documents(self) -> dict[str, Any]:
        """What ingest left: inputs, shards, counters; empty before it has finished."""
        ready = any(p["phase"].partition("-")[2].startswith("documents-") and p["done"] == p["tasks"] for p in self.phases)
        return _json(self.root / "documents" / "manifest.json") if ready else {}

    @cached_property
    def ledger(self) -> pa.Table | None:
        """The ledger of this recipe. Its parts go once they are merged, so while they are there the file is an older one."""
        for phase in self.phases:
            name = phase["phase"].partition("-")[2]
            if name.startswith("ledger-") and phase["done"] == phase["tasks"] and not (self.root / "state" / name).exists():
                path = self.root / "ledger.parquet"
                return read_table(path) if path.exists() else None
        return None

    @cached_property
    def recipe_text(self) -> str:
        path = self.root / "recipe.yaml"
        return path.read_text(errors="replace") if path.exists() else ""

    @cached_property
    def tokenizer(self) -> str:
        match = re.search(r"^tokenizer: *(.*)$", self.recipe_text, re.M)
        return str(self.manifest.get("tokenizer") or (match[1].strip("'\"") if match else ESTIMATE))

    @property
    def tokens_name(self) -> str:
        """What the tokens of this run are to be called."""
        return "estimated tokens" if self.tokenizer == ESTIMATE else "tokens"

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """Per stage: id, rows_in, rows_added, rows_out, drops, bytes, tokens (both None where not known)."""
        if self.ledger is not None:
            if not (self.finished or self.stopped):
                return ledgers.summary(self.ledger, self._ids(), self._ids())
            said = {e["id"]: e for e in self.summary["stages"]}
            counted = ledgers.summary(self.ledger, list(said), list(said))
            return [{**entry, "notes": said[entry["id"]].get("notes", {})} for entry in counted]
        return self._so_far()

    def _ids(self) -> list[str]:
        found = dict.fromkeys(["ingest", *(s for p in self.phases for s in p["stages"])])
        return list(found if self.run.until is not None else [*found, "export"])

    @cached_property
    def tallies(self) -> dict[str, Any]:
        """What the tasks counted themselves, per stage, with `groups` where a limit is set."""
        return merge_tallies([r["stages"] for p in self.phases for r in self._records(p) if "stages" in r])

    def _records(self, phase: dict[str, Any]) -> Iterator[dict[str, Any]]:
        folder = self.root / "phases" / phase["phase"] / "records"
        return (read_json(p) for p in sorted(folder.glob("*.json"))) if folder.exists() else iter(())

    def _so_far(self) -> list[dict[str, Any]]:
        entries = []
        if self.phases:
            records = list(self._records(self.phases[0]))
            shards = [s for r in records for s in r.get("shards", ())]
            rejected = sum(r.get("rejected", 0) for r in records)
            out = sum(s["documents"] for s in shards)
            sizes = {k: sum(s[k] for s in shards) for k in ("bytes", "tokens")}
            drops = {"rejected": rejected} if rejected else {}
            entries.append(
                {"id": "ingest", "rows_in": out + rejected, "rows_added": 0, "rows_out": out, "drops": drops, **sizes}
            )
        for stage, entry in self.tallies.items():
            out = entry["rows_in"] - sum(entry["drops"].values())
            unknown = {"bytes": None, "tokens": None}
            entries.append(
                {"id": stage, "rows_in": entry["rows_in"], "rows_added": 0, "rows_out": out, "drops": entry["drops"], **unknown}
            )
        return entries

    @cached_property
    def samples(self) -> _Samples:
        return _sampled(self)

    @cached_property
    def groups(self) -> dict[str, list[_Group]]:
        """What became of each corpus and of each language, largest first."""
        return {by: self._grouped(by) for by in ("corpus", "language")}

    def _grouped(self, by: str) -> list[_Group]:
        if self.ledger is None:
            return []
        sums = self.ledger.group_by([by, "stage", "reason"]).aggregate([("documents", "sum"), ("tokens", "sum")])
        found: dict[str | None, _Group] = {}
        for row in sums.to_pylist():
            documents, size = row["documents_sum"], row["tokens_sum"]
            group = found.setdefault(row[by], _Group(row[by]))
            if row["reason"] is None:
                if row["stage"] == self.last:
                    group.kept, group.kept_tokens = group.kept + documents, group.kept_tokens + size
            elif row["stage"] == "ingest":
                group.rejected += documents
            else:
                group.dropped, group.dropped_tokens = group.dropped + documents, group.dropped_tokens + size
                group.main = max(group.main, (documents, row["stage"], row["reason"]))
        return sorted(found.values(), key=lambda g: (-g.kept - g.dropped, -g.rejected, str(g.name)))


@dataclass
class _Group:
    name: str | None
    kept: int = 0
    kept_tokens: int = 0
    dropped: int = 0
    dropped_tokens: int = 0
    rejected: int = 0
    main: tuple[int, str, str] = (0, "", "")  # documents, stage, reason of what took most

    @property
    def rate(self) -> float:
        return self.dropped / max(1, self.kept + self.dropped)

    @property
    def wide(self) -> bool:
        return self.rate > WIDE


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


# --------------------------------------------------------------------------------------------- the page


def page(facts: _Facts) -> Html:
    """The whole document."""
    name = facts.run.info["recipe"]
    sections = [
        ("funnel", "Funnel", _funnel(facts)),
        ("rejected", "Rejected at ingest", _rejected(facts)),
        ("composition", "Composition", _composition(facts)),
        ("samples", "Samples", _samples(facts)),
        ("mixture", "Mixture", _mixture(facts)),
        ("output", "Output", _output(facts)),
        ("inputs", "Inputs", _inputs(facts)),
        ("phases", "Phases", _phases(facts)),
        ("recipe", "Recipe", _recipe(facts)),
        ("further", "Look further", _further(facts)),
    ]
    shown = [(anchor, title, content) for anchor, title, content in sections if content]
    nav = _tag("nav", _tag("ul", *(_tag("li", _tag("a", t, href=f"#{a}")) for a, t, _ in shown)), aria_label="Sections")
    body = _join(
        [
            _tag("header", _tag("p", "Curate report", cls="eyebrow"), _tag("h1", _value(name)), _verdict(facts), nav),
            _tag("main", _checks(facts), *(_section(*s) for s in shown)),
        ]
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="color-scheme" content="light dark">'
        f"<title>{_text(name)} – Curate report</title><style>{_CSS}</style>"
    )
    return Html(f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n')


def _verdict(facts: _Facts) -> Html:
    if not facts.finished:
        return _unfinished(facts)
    stages, totals, manifest = facts.stages, facts.manifest["totals"], facts.manifest
    seen, kept = stages[0]["rows_in"], totals["documents"]
    made = kept != stages[-1]["rows_out"] or any(e["rows_added"] for e in stages)  # copies, or other documents
    if made:
        line = _join([_tag("strong", f"{kept:,} documents"), f" made of {seen:,} records"])
    else:
        line = _join([_tag("strong", f"{kept:,} of {seen:,}"), f" records kept ({_share(kept, seen) or '0%'})"])
    size = [f"{totals['tokens']:,} {facts.tokens_name}", f"{_megabytes(totals['bytes'])} MB of text"]
    count = len(manifest["shards"])
    tiles = [
        ("Records seen", f"{seen:,}", ""),
        ("Documents written" if made else "Documents kept", f"{kept:,}", "" if made else _share(kept, seen)),
        (facts.tokens_name.capitalize(), f"{totals['tokens']:,}", _tokenizer(facts)),
        ("Text", f"{_megabytes(totals['bytes'])} MB", f"{totals['bytes'] / max(1, totals['documents']):,.0f} bytes a document"),
        ("Output files", f"{count:,}", ", ".join(f"{n:,} {split}" for split, n in _splits(manifest["shards"]).items())),
        (
            "Last invocation",
            f"{facts.summary['seconds']:,.1f} s",
            f"{sum(p['seconds'] for p in facts.phases):,.1f} s of task time",
        ),
    ]
    promise = "deterministic: the same inputs and recipe give the same digest"
    if not manifest["deterministic"]:
        promise = "not deterministic: a page ran out of wall-clock time, so another run may differ"
    created = manifest.get("provenance", {})
    made = [f"curate {created['curate']}" if "curate" in created else "", created.get("created", "")]
    return _join(
        [
            _tag("p", line, "; ", _join(size, ", "), ".", cls="verdict"),
            _tag(
                "dl",
                *(_tag("div", _tag("dt", t), _tag("dd", v, _tag("small", n) if n else "")) for t, v, n in tiles),
                cls="tiles",
            ),
            _tag("p", "Digest ", _tag("code", manifest["digest"], cls="digest"), " – ", promise, cls="muted"),
            _tag("p", _join((m for m in made if m), ", "), cls="muted") if any(made) else "",
        ]
    )


def _tokenizer(facts: _Facts) -> str:
    if facts.tokenizer == ESTIMATE:
        return f"{ESTIMATE}: bytes of text by four, not counted"
    return _cut(f"by {facts.tokenizer}", 40)


def _splits(shards: Sequence[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for shard in shards:
        found[shard["split"]] = found.get(shard["split"], 0) + 1
    return found


def _unfinished(facts: _Facts) -> Html:
    if facts.stopped:
        seen, left = facts.stages[0]["rows_in"], facts.stages[-1]["rows_out"]
        here = _join([_tag("strong", "This run stopped after ", _code(facts.last), ", as it was to."), " "])
        more = "The ledger is closed; nothing of it was exported. Run the same command without --until to go on."
        return _tag(
            "div",
            _tag("p", here, f"{left:,} documents are left of {seen:,} records.", cls="verdict"),
            _tag("p", more),
            cls="alert",
            role="status",
        )
    begun = len(facts.phases)
    at: Any = "No phase has begun."
    if begun:
        last = facts.phases[-1]
        at = _join(
            [
                f"{begun} phases have begun; the last, ",
                _code(last["phase"]),
                f", has done {last['done']:,} of {last['tasks']:,} tasks.",
            ]
        )
    source = "The ledger is closed; the export is not."
    if facts.ledger is None:
        source = "The figures below are what the tasks counted themselves: no ledger has checked them yet."
    return _tag(
        "div",
        _tag("p", _tag("strong", "This run has not finished."), " ", at, cls="verdict"),
        _tag("p", source, " Run the same command again to go on; finished work is reused."),
        cls="alert",
        role="status",
    )


# --------------------------------------------------------------------------------------------- before use


def _checks(facts: _Facts) -> Html:
    """What a careful reader would ask first."""
    notes = list(_notes(facts))
    if not notes:
        return Html("")
    items = [_tag("li", _tag("b", kind), " ", content, cls=kind.lower()) for kind, content in notes]
    return _tag("section", _tag("h2", "Before you use it"), _tag("ul", *items, cls="checks"), id="checks")


def _notes(facts: _Facts) -> Iterator[tuple[str, Html]]:
    for phase in facts.phases:
        if phase["failures"]:
            failed = f"{len(phase['failures']):,} tasks of "
            yield "Check", _say(failed, _code(phase["phase"]), " have failed: see ", _link("phases"), ".")
    if facts.finished and not facts.stages[-1]["rows_out"]:
        yield "Check", _say("No document is left: the output is empty.")
    if facts.finished and not facts.manifest["deterministic"]:
        yield "Check", _say("Not deterministic: at least one page ran out of wall-clock time and was quarantined.")
    for entry in facts.stages:
        failures = sum(n for reason, n in entry["drops"].items() if reason.startswith("error."))
        if failures:
            yield "Check", _say(_code(entry["id"]), f" failed on {failures:,} documents, which were dropped for it.")
    for entry in facts.stages[1:]:
        gone = sum(entry["drops"].values())
        if gone > WIDE * max(1, entry["rows_in"]):
            yield "Check", _say(_code(entry["id"]), f" dropped {_share(gone, entry['rows_in'])} of what reached it.")
    yield from _wide_tallies(facts) if facts.ledger is None else _wide_groups(facts)
    for key in facts.run.info["accepted"]:
        yield "Note", _say("The blast radius of ", _code(key.rpartition("-")[0]), " was accepted by hand.")
    if facts.run.info["limit"]:
        yield "Note", _say(f"Only the first {facts.run.info['limit']:,} documents of the input were taken (--limit).")
    if facts.tokenizer == ESTIMATE:
        yield "Note", _say("Tokens are an estimate, ", _code(ESTIMATE), ": set ", _code("tokenizer"), " to count them.")


def _wide_groups(facts: _Facts) -> Iterator[tuple[str, Html]]:
    """Groups that lost most of their documents, together by what took them; one corpus alone is the whole run."""
    for by, plural in (("corpus", "corpora"), ("language", "languages")):
        groups = facts.groups[by]
        lost: dict[tuple[str, str], list[_Group]] = {}
        for group in groups if len(groups) > 1 else []:
            if group.wide and group.dropped >= FEWEST_DROPPED:
                lost.setdefault(group.main[1:], []).append(group)
        for cause, members in list(lost.items())[:TOP_FAILURES]:
            names = ", ".join(_value(_group_name(by, g.name), 40) for g in members[:TOP_NAMES])
            more = f" and {len(members) - TOP_NAMES:,} more" if len(members) > TOP_NAMES else ""
            total = _sum(members)
            who = f"the {by} " if len(members) == 1 else f"{len(members):,} {plural} ("
            lead = f"{_share(total.dropped, total.kept + total.dropped)} of "
            end = "" if len(members) == 1 else ")"
            yield "Check", _say(lead, who, Html(names), more, end, " was dropped, most by ", _code(_reason(*cause)), ".")


def _wide_tallies(facts: _Facts) -> Iterator[tuple[str, Html]]:
    """What the blast radius of each stage has met: the evidence when a run was stopped by it."""
    limits: dict[str, float] = {}
    with contextlib.suppress(CurateError, ImportError):
        limits = {i.id: i.policy.max_drop for i in facts.run.recipe.stages if i.policy.max_drop is not None}
    for stage, entry in facts.tallies.items():
        limit = limits.get(stage, WIDE)
        found = [(d / r, g, d, r) for g, (r, d) in entry.get("groups", {}).items() if r >= FEWEST and d / r > limit]
        for share, group, dropped, reached in sorted(found, reverse=True)[:TOP_FAILURES]:
            where = f" dropped {share:.1%} of ", _code(group), f" ({dropped:,} of {reached:,}), more than its limit {limit:g}: "
            yield (
                "Check",
                _say(
                    _code(stage),
                    *where,
                    "look at what went, then edit the stage or go on with ",
                    _code(f"--accept {stage}"),
                    ".",
                ),
            )


def _link(anchor: str) -> Html:
    return _tag("a", anchor, href=f"#{anchor}")


def _reason(stage: str, reason: str) -> str:
    return reason if reason.split(".")[0] == stage else f"{stage}: {reason}"


# --------------------------------------------------------------------------------------------- funnel, composition


def _funnel(facts: _Facts) -> Html:
    stages = facts.stages
    if not stages:
        return Html("")
    whole = max(1, *(e["rows_in"] + e["rows_added"] for e in stages))
    sized = any(e["tokens"] is not None for e in stages)
    made = any(e["rows_added"] for e in stages)
    columns = ["Stage", ">In", *([">Made"] if made else []), ">Dropped", ">Of its input", ">Out", "~Left and dropped, of all"]
    columns += [">" + facts.tokens_name.capitalize()] if sized else []
    right = [c.startswith(">") for c in columns]
    blank = [""] * (2 + sized)
    rows = []
    for entry in stages:
        gone = sum(entry["drops"].values())
        came = entry["rows_in"]
        bar = _bar(("kept", entry["rows_out"] / whole), ("gone", gone / whole))
        cells = [_name(entry["id"]), entry["rows_in"], *([entry["rows_added"] or ""] if made else []), gone or ""]
        cells += [_share(gone, came), entry["rows_out"], bar]
        cells += [entry["tokens"] if entry["tokens"] is not None else ""] if sized else []
        rows.append(_row(cells, right, "stage"))
        by_count = sorted(entry["drops"].items(), key=lambda kv: (-kv[1], kv[0]))
        shown = by_count[:TOP_REASONS]
        rest = sum(n for _, n in by_count[TOP_REASONS:])
        if rest:
            shown.append((f"{len(by_count) - TOP_REASONS} other reasons", rest))
        for reason, n in shown:
            rows.append(_row([_name(reason), *([""] * (1 + made)), n, _share(n, came), *blank], right, "reason"))
    noted = [
        _tag("li", _code(entry["id"]), f": {n:,} {note}") for entry in stages for note, n in entry.get("notes", {}).items()
    ]
    explained = (
        "Documents in and out of each stage, and below it why documents went. "
        "Bars are shares of all documents: left after the stage, and dropped by it."
    )
    return _say(_table(explained, columns, rows), _tag("ul", *noted, cls="muted") if noted else "")


def _rejected(facts: _Facts) -> Html:
    if not facts.stages:
        return Html("")
    first, counters = facts.stages[0], facts.documents.get("counters", {})
    listed = _join((_say(_code(name), f" {count:,}") for name, count in sorted(counters.items())), ", ")
    more = _tag("p", "Ingest also counted: ", listed, ".", cls="muted") if counters else ""
    if not first["drops"]:
        return _say(_tag("p", "Every record of the input became a document."), more)
    rows = [
        [_name(reason), n, _share(n, first["rows_in"]), _bar(("gone", n / max(1, first["rows_in"])))]
        for reason, n in sorted(first["drops"].items(), key=lambda kv: (-kv[1], kv[0]))
    ]
    total = sum(first["drops"].values())
    foot = ["All", total, _share(total, first["rows_in"]), ""]
    columns = ["Reason", ">Records", ">Of all records", "~Share"]
    return _say(_table("Records of the input that did not become documents", columns, rows, foot), more)


def _composition(facts: _Facts) -> Html:
    if facts.ledger is None:
        return Html("")
    parts = []
    for by in ("corpus", "language"):
        groups = facts.groups[by]
        if by == "language" and all(g.name is None for g in groups):
            parts.append(_tag("p", "No stage has written a language, and the input has none.", cls="muted"))
        else:
            parts.append(_groups(facts, by, [g for g in groups if by == "corpus" or g.kept or g.dropped]))
    return _join(parts)


def _groups(facts: _Facts, by: str, groups: list[_Group]) -> Html:
    tokens = max(1, sum(g.kept_tokens for g in groups))
    name = facts.tokens_name
    columns = [
        by.capitalize(),
        *([">Rejected"] if by == "corpus" else []),
        ">Kept",
        f">Kept {name}",
        ">Of all kept",
        "~Share of kept tokens",
        ">Dropped",
        f">Dropped {name}",
        ">Drop rate",
    ]
    right = [c.startswith(">") for c in columns]

    def row(label: str, g: _Group) -> Html:
        rate: Any = _share(g.dropped, g.kept + g.dropped)
        if g.wide:
            rate = _join([_tag("span", "over half", cls="flag"), " ", rate])
        first = [label, g.rejected or ""] if by == "corpus" else [label]
        cells = [*first, g.kept, g.kept_tokens, _share(g.kept_tokens, tokens), _bar(("kept", g.kept_tokens / tokens))]
        return _row([*cells, g.dropped or "", g.dropped_tokens or "", rate], right)

    shown, rest = groups[:TOP_GROUPS], groups[TOP_GROUPS:]
    rows = [row(_cut(_group_name(by, g.name)), g) for g in shown]
    if rest:
        rows.append(row(f"{len(rest):,} others", _sum(rest)))
    caption = f"Kept and dropped by {by}; the drop rate is of the documents that ingest passed on"
    return _table(caption, columns, rows, row("All", _sum(groups)) if len(groups) > 1 else None)


def _sum(groups: Iterable[_Group]) -> _Group:
    total = _Group(None)
    for g in groups:
        total.rejected += g.rejected
        total.kept, total.kept_tokens = total.kept + g.kept, total.kept_tokens + g.kept_tokens
        total.dropped, total.dropped_tokens = total.dropped + g.dropped, total.dropped_tokens + g.dropped_tokens
    return total


def _group_name(by: str, name: str | None) -> str:
    if name is None:
        return "not known (gone before a stage told it)" if by == "language" else "none"
    return name or "(empty)"


# --------------------------------------------------------------------------------------------- samples


def _samples(facts: _Facts) -> Html:
    """A few documents, kept and dropped."""
    parts = []
    for rows, what in ((facts.samples.kept, "documents"), (facts.samples.dropped, "documents and records")):
        if rows:
            kind = "kept" if rows is facts.samples.kept else "dropped"
            parts.append(_details(_say(_tag("b", f"{len(rows)} {kind}"), f" {what}"), *map(_sample, rows)))
    if facts.samples.problem:
        parts.append(_tag("p", "Not sampled: ", _value(facts.samples.problem, 300), cls="muted"))
    return _join(parts)


@dataclass
class _Samples:
    """Documents to read; problem: why there are not more."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""


def _sampled(facts: _Facts) -> _Samples:
    """A page must not fail for want of a sample (a plug-in or model that is gone by now): it says what is in the way."""
    found = _Samples()
    try:
        size = sum(Path(f).stat().st_size for item in facts.run.recipe.stages for f in item.stage.files())
        if size > MODEL_BYTES:
            found.problem = "the models of this run are large; see `curate inspect`"
        elif facts.documents:
            found.dropped.extend(_dropped(facts))
            if facts.ledger is not None:
                found.kept.extend(_kept(facts, facts.ledger))
    except (CurateError, OSError, pa.ArrowException, ImportError) as error:
        found.problem = " ".join(str(error).split())
    return found


def _sample(row: dict[str, Any]) -> Html:
    reason, text = row.get(REASON), row.get("text")
    facts = [_reason(row["stage"], reason) if reason else "kept"]
    facts += [f"{k.strip('_').replace('_', ' ')} {_plain(row[k])}" for k in _EVIDENCE if row.get(k) is not None]
    shown = {"id", "url", "corpus", "file", "record", "text", "stage", REASON, ROW, *_EVIDENCE}
    more = [f"{k} {_plain(v)}" for k, v in row.items() if k not in shown and v is not None]
    place = f"{row['file']}@{row['record']}"
    return _tag(
        "article",
        _tag(
            "p", _tag("b", _value(facts[0]), cls="gone" if reason else "kept"), *(_join([" · ", _value(f)]) for f in facts[1:])
        ),
        _tag("p", _head(text), cls="text", dir="auto") if text else _tag("p", "no text", cls="muted"),
        _tag(
            "p",
            _join(
                [_code(row["id"]), *([_value(row["url"])] if row.get("url") else []), _value(place), *map(_value, more)], " · "
            ),
            cls="muted",
        ),
    )


def _head(text: str) -> str:
    """The beginning of a text, without its empty lines."""
    return _cut(re.sub(r"\s*\n\s*", "\n", text[: TEXT_HEAD * 4].strip()), TEXT_HEAD)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _cut(value, 60)


_EVIDENCE = ("_value", "_duplicate_of", "_similarity", "_detail")
_PLACE = ("id", "url", "corpus", "file", "record")


def _kept(facts: _Facts, ledger: pa.Table) -> Iterator[dict[str, Any]]:
    """Survivors, spread over a few shards; over one shard in a huge run."""
    data = facts.run.dataset()
    shards = data.generation.shards
    ends = ledger.filter(pc.and_(pc.equal(ledger["stage"], facts.last), pc.is_null(ledger["reason"])))
    full = set(ends.filter(pc.greater(ends["documents"], 0))["shard"].to_pylist())
    there = [i for i, s in enumerate(shards) if f"{data.folder}/{Path(s.name).stem}" in full]
    few = 1 if sum(s.bytes for s in shards) > HUGE_BYTES else 3
    chosen = [there[i] for i in _spread(len(there), few)]
    names = [n for n in data.columns if n in _SHOWN or (n not in _HIDDEN and _is_scalar(data.types.field(n).type))]
    for k, shard in enumerate(chosen):
        alive = data.survivors(shard)
        n = KEPT_SAMPLES // len(chosen) + (k < KEPT_SAMPLES % len(chosen))
        yield from _read(data, shard, [n for n in names if _there(data, n, shard)], alive[_spread(len(alive), n)])


def _there(data: Dataset, column: str, shard: int) -> bool:
    """Whether a column can still be read: a transient layer goes after its last reader."""
    layer = data.columns[column]
    return not layer or (data.root / layer / data.generation.shards[shard].name).exists()


def _is_scalar(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string))


_SHOWN = frozenset({*_PLACE, "text", "language"})
_HIDDEN = frozenset({"html", "raw_bytes", "text_bytes", "media_type", "declared_language", "date", "_extra"})


def _read(data: Dataset, shard: int, names: Sequence[str], rows: np.ndarray) -> Iterator[dict[str, Any]]:
    for batch in data.read(shard, names, rows.astype(np.uint32)):
        yield from batch.to_pylist()


def _spread(total: int, n: int) -> np.ndarray:
    """At most n positions, even over `total`."""
    return np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(np.int64)) if total else np.empty(0, np.int64)


def _dropped(facts: _Facts) -> Iterator[dict[str, Any]]:
    """One or two documents for each of the most common reasons of every stage, and rejected records."""
    order = ["ingest", *(n.id for n in facts.run.plan.nodes)]
    found = _reasons(facts.ledger) if facts.ledger is not None else _reasons_so_far(facts)
    ranked: list[tuple[int, int, str, str]] = []
    for at, stage in enumerate(order):
        own = sorted((r for r in found if r[0] == stage), key=lambda r: (-r[2], r[1]))
        ranked += [(rank, at, reason, shard) for rank, (_, reason, _, shard) in enumerate(own)]
    chosen = sorted(ranked)[:DROPPED_SAMPLES]
    each = PER_REASON if len(chosen) * PER_REASON <= DROPPED_SAMPLES else 1
    for _, at, reason, shard in sorted(chosen, key=lambda c: (c[1], c[0])):
        if order[at] == "ingest":
            path = facts.root / facts.run.ingest_drops / f"{shard.rpartition('/')[2]}.parquet"
            table = _of_reason(read_table(path), reason, each)
            yield from ({"stage": "ingest", **row} for row in table.to_pylist())
        else:
            yield from _dropped_by(facts, facts.run.plan.nodes[at - 1], reason, shard, each)


def _dropped_by(facts: _Facts, node: Node, reason: str, shard: str, n: int) -> Iterator[dict[str, Any]]:
    before = view(node, facts.run.context)
    at = next(i for i, s in enumerate(before.generation.shards) if f"{before.folder}/{Path(s.name).stem}" == shard)
    gone = _of_reason(read_table(facts.root / node.drops / before.generation.shards[at].name), reason, n).sort_by(ROW)
    names = [c for c in (*_PLACE, "text") if c in before.columns and _there(before, c, at)]
    documents = _read(before, at, names, gone[ROW].to_numpy())
    for row, why in zip(documents, gone.to_pylist(), strict=True):
        yield {**row, **why, "stage": node.id}


def _of_reason(table: pa.Table, reason: str, n: int) -> pa.Table:
    table = table.filter(pc.equal(table[REASON], reason))
    return table.take(pa.array(_spread(len(table), n)))


def _reasons(ledger: pa.Table) -> list[tuple[str, str, int, str]]:
    """(stage, reason, documents, the shard with most of them)."""
    drops = ledger.filter(pc.is_valid(ledger["reason"]))
    drops = drops.group_by(["stage", "reason", "shard"], use_threads=False).aggregate([("documents", "sum")])
    drops = drops.sort_by([("documents_sum", "descending"), ("shard", "ascending")])
    sums = drops.group_by(["stage", "reason"], use_threads=False).aggregate([("documents_sum", "sum"), ("shard", "first")])
    return [(r["stage"], r["reason"], r["documents_sum_sum"], r["shard_first"]) for r in sums.to_pylist()]


def _reasons_so_far(facts: _Facts) -> list[tuple[str, str, int, str]]:
    """The same from the first shard in which a stage has dropped anything, for a run without a ledger."""
    found = []
    context = facts.run.context
    for node in (n for n in facts.run.plan.nodes if n.generation < len(context.generations)):
        folder = context.generations[node.generation]
        for info in Generation.load(facts.root, folder).shards[:FIRST_SHARDS]:
            path = facts.root / node.drops / info.name
            if path.exists() and len(table := read_table(path, [REASON])):
                place = f"{folder}/{Path(info.name).stem}"
                counts = pc.value_counts(table[REASON].combine_chunks()).to_pylist()
                found += [(node.id, c["values"], c["counts"], place) for c in counts]
                break
    for path in sorted((facts.root / facts.run.ingest_drops).glob("*.parquet"))[:FIRST_SHARDS]:
        table = read_table(path, [REASON])
        counts = pc.value_counts(table[REASON].combine_chunks()).to_pylist()
        found += [("ingest", c["values"], c["counts"], f"documents/{path.stem}") for c in counts]
    return found


# --------------------------------------------------------------------------------------------- mixture


def _mixture(facts: _Facts) -> Html:
    path = facts.root / "output" / mixtures.FILE
    if not facts.finished or not path.is_file():
        return Html("")
    found = mixtures.Mixture.load(path, "report")
    most = max(*found.weights.values(), *found.natural.values())
    named = bool(found.names)
    rows = []
    for group in sorted(found.weights, key=lambda name: -found.weights[name])[:TOP_GROUPS]:
        weight, natural = found.weights[group], found.natural.get(group)
        times = f"{weight / natural:.2f}" if natural else ""
        bars = _say(_bar(("kept", weight / most)), _bar(("time", (natural or 0) / most)))
        cells = [_cut(group), *([_cut(found.names.get(group, ""))] if named else []), _share(weight, 1) or "0"]
        rows.append([*cells, _share(natural or 0, 1), times, bars])
    columns = ["Group", *(["Name"] if named else []), ">Weight", ">In the corpus", ">Times", "~Weight above, corpus below"]
    more = len(found.weights) - len(rows)
    left = _tag("p", f"{more:,} more groups: see output/{mixtures.FILE}.", cls="muted") if more > 0 else ""
    caption = f"Shares of tokens by {_cut(found.by, 40)}: the {len(rows)} largest" if found.by else "Shares of tokens"
    warned = _tag("ul", *(_tag("li", w) for w in found.warnings)) if found.warnings else ""
    return _say(_tag("p", _found_by(found)), warned, _table(caption, columns, rows), left)


def _found_by(found: mixtures.Mixture) -> str:
    """What a mixture was found by, and how far that is to be trusted."""
    evidence, metric = found.evidence, found.metric
    runs = [run for run in evidence.get("runs", ()) if run.get("measured") is not None]
    said = [f"Found by {evidence['method']}" if "method" in evidence else "Weights"]
    if runs:
        tokens = evidence.get("proxy_tokens")
        said.append(f"from {len(runs):,} measured mixtures" + (f" ({tokens:,} tokens of training)" if tokens else ""))
    if found.predicted is not None:
        spread = f" ± {found.uncertainty:.3g}" if found.uncertainty is not None else ""
        said.append(f"predicted {metric.get('name', 'metric')} {found.predicted:.4g}{spread} {metric.get('unit', '')}".strip())
    if rank := found.rank_correlation:
        said.append(f"rank correlation with runs not seen {rank['spearman']:.2f} ({rank['low']:.2f} to {rank['high']:.2f})")
    return ", ".join(said) + "."


# --------------------------------------------------------------------------------------------- files, phases, recipe


def _output(facts: _Facts) -> Html:
    if not facts.finished:
        return Html("")
    shards = facts.manifest["shards"]
    grouped = any(s.get("group") for s in shards)
    columns = [
        "File",
        "Split",
        *(["Group"] if grouped else []),
        ">Documents",
        ">MB text",
        ">" + facts.tokens_name.capitalize(),
        "sha256",
    ]
    rows = [
        [
            _cut(s["path"]),
            s["split"],
            *([_cut(s.get("group") or "")] if grouped else []),
            s["documents"],
            _megabytes(s["bytes"]),
            s["tokens"],
            _code(s["sha256"][:12]),
        ]
        for s in shards[:TOP_OUTPUTS]
    ]
    totals = facts.manifest["totals"]
    foot = ["All", "", *([""] if grouped else []), totals["documents"], _megabytes(totals["bytes"]), totals["tokens"], ""]
    more = (
        _tag("p", f"{len(shards) - TOP_OUTPUTS:,} more files: see output/manifest.json.", cls="muted")
        if len(shards) > TOP_OUTPUTS
        else ""
    )
    kept = facts.stages[-1]["rows_out"]
    repeats = ""
    if totals["documents"] != kept:
        repeats = _tag("p", f"{kept:,} documents are written {totals['documents']:,} times in all: a mixture repeats some.")
    listed = _join([_join([_code(n), " ", _tag("span", str(t), cls="muted")]) for n, t in _columns(facts)], ", ")
    return _join([repeats, _table("Files below output/", columns, rows, foot), more, _tag("p", "Columns: ", listed)])


def _columns(facts: _Facts) -> list[tuple[str, str]]:
    found = facts.manifest.get("columns") or {}
    return list(found.items()) if isinstance(found, dict) else [(str(c), "") for c in found]


def _inputs(facts: _Facts) -> Html:
    inputs = facts.documents.get("inputs", [])
    if not inputs:
        return Html("")
    rows = [
        [
            _join([_cut(i["name"]), _tag("small", _cut(i["corpus"], 40))]),
            _megabytes(i["bytes"]),
            i["documents"],
            i["rejected"] or "",
            _code(i["sha256"][:12]),
        ]
        for i in inputs[:TOP_INPUTS]
    ]
    foot = [
        "All",
        _megabytes(sum(i["bytes"] for i in inputs)),
        *(sum(i[k] for i in inputs) for k in ("documents", "rejected")),
        "",
    ]
    more = f"The first {TOP_INPUTS} of {len(inputs):,} input files" if len(inputs) > TOP_INPUTS else "Input files"
    return _table(f"{more}, in input order", ["File", ">MB", ">Documents", ">Rejected", "sha256"], rows, foot)


def _phases(facts: _Facts) -> Html:
    if not facts.phases:
        return Html("")
    total = sum(p["seconds"] for p in facts.phases)
    rows = [
        [
            _join([_cut(p["phase"]), _tag("small", _cut(", ".join(p["stages"]))) if p["stages"] else ""]),
            f"{p['done']:,}/{p['tasks']:,}",
            p["documents"] or "",
            f"{p['seconds']:,.2f}",
            _bar(("time", p["seconds"] / max(total, 1e-9))),
            f"{p['docs_per_second']:,.0f}" if p["docs_per_second"] else "",
        ]
        for p in facts.phases[:TOP_PHASES]
    ]
    foot = ["All", "", "", f"{total:,.2f}", "", ""]
    columns = ["Phase", ">Tasks done", ">Documents", ">Task seconds", "~Share of time", ">Docs/s"]
    caption = "Phases; task seconds add up over workers, and count every task when it was done, also in an earlier invocation"
    return _join([_table(caption, columns, rows, foot), *_failures(facts)])


def _failures(facts: _Facts) -> Iterator[Html]:
    for phase in facts.phases:
        for log in phase["failures"][:TOP_FAILURES]:
            path = Path(log)
            with contextlib.suppress(OSError):
                tail = path.read_text(errors="replace")[-2000:]
                name = path.relative_to(facts.root).as_posix()
                yield _details(_join(["Failure: ", _code(name)]), _tag("pre", tail))


def _recipe(facts: _Facts) -> Html:
    text = facts.recipe_text
    if not text:
        return Html("")
    more = "" if len(text) <= RECIPE_HEAD else _tag("p", "The rest stands in recipe.yaml.", cls="muted")
    return _details("The resolved recipe, as in recipe.yaml", _tag("pre", text[:RECIPE_HEAD]), more)


def _further(facts: _Facts) -> Html:
    run = shlex.quote(facts.root.absolute().name)
    stages = [e["id"] for e in facts.stages if e["drops"] and e["id"] != "ingest"]
    stage = shlex.quote(stages[0]) if stages else "STAGE"
    rows = [*reversed(facts.samples.dropped), *facts.samples.kept]
    ids = [i for r in rows if (i := r["id"] or "").isprintable() and i.isascii() and 0 < len(i) <= CELL]
    doc = shlex.quote(ids[0]) if ids else "ID-OR-URL"
    commands = [
        (f"curate why {run} {doc}", "the life of one document: scores, the rule, the duplicate it lost to"),
        (f"curate inspect {run} -n 20", "documents that were kept, to read"),
        (f"curate inspect {run} --stage {stage} --dropped", "what a stage dropped, to read"),
        (f"curate inspect {run} --stage ingest --dropped", "records that never became documents"),
        (f"curate status {run}", "phases, speed, failures"),
    ]
    if facts.finished:
        commands.append((f"curate verify {run}", "check every byte of the output against its manifest"))
    items = [_join([_tag("dt", _code(c, 400)), _tag("dd", d)]) for c, d in commands]
    where = "From the folder that holds the run:"
    files = _join(
        [
            "Every figure here is in ",
            _code("ledger.parquet"),
            " (stage, shard, corpus, language, reason, documents, bytes, tokens).",
        ]
    )
    return _join([_tag("p", where), _tag("dl", *items, cls="commands"), _tag("p", files) if facts.ledger is not None else ""])


_CSS = """
:root{--ink:#1c2128;--muted:#57606a;--page:#fff;--panel:#f5f7f9;--line:#d5dae0;--kept:#1f7a5c;--gone:#b3450f;--time:#4a6fa5;
--track:#e6e9ed;--alert:#fff1e0;--alert-line:#c2570c;--link:#0b5cad}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7eb;--muted:#a0aab5;--page:#13171c;--panel:#1b2128;--line:#343c46;
--kept:#45b890;--gone:#ee8a4a;--time:#7fa4da;--track:#2a313a;--alert:#33240f;--alert-line:#ee8a4a;--link:#7db8f5}}
*{box-sizing:border-box}
html{color-scheme:light dark;scroll-behavior:smooth}
body{margin:0 auto;padding:2rem 1.5rem 4rem;max-width:76rem;background:var(--page);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
h1{font-size:2rem;line-height:1.2;margin:.1rem 0 .6rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.6rem 0 .7rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
p{margin:.5rem 0}
a{color:var(--link)}
.eyebrow{margin:0;color:var(--muted);letter-spacing:.04em}
.verdict{font-size:1.15rem}
.muted,small{color:var(--muted)}
small{display:block;font-size:.85em;overflow-wrap:anywhere}
code,pre{font:.88em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{overflow-wrap:anywhere}
pre{margin:.6rem 0;padding:.8rem 1rem;background:var(--panel);border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(6,1fr);gap:.7rem;margin:1.2rem 0}
.tiles div{padding:.7rem .9rem;background:var(--panel);border-radius:6px}
.tiles dt{color:var(--muted);font-size:.85rem}
.tiles dd{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums}
.tiles small{font-size:.8rem;font-weight:400}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin:1.2rem 0 0;padding:0;list-style:none}
.alert{margin:1rem 0;padding:.6rem 1rem;background:var(--alert);border-left:4px solid var(--alert-line);border-radius:4px}
.checks{margin:0;padding:0;list-style:none}
.checks li{padding:.35rem .8rem;margin:.3rem 0;border-left:4px solid var(--line);background:var(--panel);border-radius:4px}
.checks .check{border-color:var(--alert-line);background:var(--alert)}
.checks b{display:inline-block;min-width:3.6rem}
.wide{overflow-x:auto;margin:.6rem 0 1.6rem}
.wide:focus-visible,summary:focus-visible,a:focus-visible{outline:2px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);padding-bottom:.4rem;font-size:.9rem}
th,td{padding:.3rem .7rem;text-align:left;vertical-align:top;unicode-bidi:isolate}
th:first-child,td:first-child{padding-left:.3rem}
caption span{display:block;position:sticky;left:0;max-width:min(100%,calc(100vw - 2rem))}
thead th{border-bottom:2px solid var(--line);font-size:.85rem;color:var(--muted);font-weight:600;vertical-align:bottom}
tbody tr{border-top:1px solid var(--line)}
tbody th{font-weight:500;overflow-wrap:anywhere;min-width:11rem}
tfoot th,tfoot td,tfoot tr{font-weight:600}
tfoot tr{border-top:2px solid var(--line)}
.n{text-align:right}
td.n,td code{white-space:nowrap}
tr.stage th{font-weight:600}
tr.reason{border-top:0;color:var(--muted);font-size:.9rem}
tr.reason th{padding:.05rem .7rem .05rem 1.5rem;font-weight:400}
tr.reason td{padding-top:.05rem;padding-bottom:.05rem}
tr.reason+tr.stage>*{padding-top:.5rem}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.bar{display:flex;width:100%;min-width:7rem;height:.75rem;margin-top:.4rem;background:var(--track);border-radius:3px;overflow:hidden}
.bar i{display:block;height:100%}
.bar i+i{border-left:2px solid var(--page)}
i.kept{background:var(--kept)}
i.gone{background:var(--gone)}
i.time{background:var(--time)}
b.kept{color:var(--kept)}
b.gone{color:var(--gone)}
.flag{padding:.05rem .4rem;border:1px solid var(--gone);border-radius:3px;color:var(--gone);font-size:.8rem}
.ctl{padding:0 .2rem;border:1px dashed var(--gone);border-radius:3px;color:var(--gone);font-size:.85em}
details{margin:.5rem 0}
summary{cursor:pointer;padding:.2rem 0}
article{margin:.6rem 0;padding:.5rem .9rem;background:var(--panel);border-radius:6px;overflow-wrap:anywhere}
article p{margin:.25rem 0}
article .muted{font-size:.85rem}
.text{white-space:pre-wrap;unicode-bidi:isolate}
.commands dt{margin-top:.5rem}
.commands dd{margin:0;color:var(--muted)}
@media (max-width:64rem){.tiles{grid-template-columns:repeat(3,1fr)}}
@media (max-width:40rem){body{padding:1.2rem .9rem 3rem}h1{font-size:1.5rem}.tiles{grid-template-columns:1fr 1fr}}
@media print{body{max-width:none}nav{display:none}.wide{overflow:visible}}
"""
