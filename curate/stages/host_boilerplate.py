"""Lines that stand on many pages of one host: `line_dedup` with other defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from curate.stages.line_dedup import LineDedup


@dataclass(frozen=True, kw_only=True)
class HostBoilerplate(LineDedup):
    """Takes out menus, notices and footers: the lines that stand on many pages of their host.

    This is `line_dedup` with other defaults, and all of its parameters: scope, min_documents, max_share, min_scope, keep,
    ignore, min_chars, min_run and spare are explained there. A line is frequent that stands on at least 10 pages of a host, or,
    where a host has at least 5 pages, on more than half of them. Pages of hosts with fewer stay as they are, and cost next to
    nothing, as do those without a host. A frequent line goes at the ends of a page's text, where menus and notices stand, and
    within it where at least 5 do in a row: alone between other lines it is as likely a heading such as "Parameters" or "See
    also". Code and headings of Markdown stay. Several copies of one page under different addresses count as several pages, so
    put `exact_dedup` before this stage.

    Columns written: `text` (string); `host_boilerplate_removed`, `host_boilerplate_removed_bytes` (uint32, lines and bytes
    that went, line feeds included). Reasons: `host_boilerplate.empty`, with `_value` = lines that went.

    Source: own; what repeats within a site is its template (Bar-Yossef and Rajagopalan 2002, doi:10.1145/511446.511522).

    >>> pages = [{"text": f"Home | News | About us\\nStory number {n}.", "url": f"https://www.a.example/{n}"} for n in range(5)]
    >>> other = {"text": "Home | News | About us\\nOf another host.", "url": "https://b.example/"}
    >>> HostBoilerplate()([*pages, other]).kept["text"].to_pylist()[3:]
    ['Story number 3.', 'Story number 4.', 'Home | News | About us\\nOf another host.']
    """

    example: ClassVar[dict[str, Any]] = {}

    scope: Literal["corpus", "host"] = "host"
    min_documents: int | None = 10
    max_share: float | None = 0.5
    min_scope: int = 5
    min_run: int = 5
    spare: tuple[str, ...] = ("code", "headings")
