"""How much of the mathematics and the code of web pages an extractor gives back exactly.

    python benchmarks/structure.py [--pages 25] [--seed 1] [--only maths|code|pydoc] [--sides main,all_text] [--show 0]
                                   [--json] [--check]

Pages are made on the spot (`tests/structured.py`): articles with formulas from a grammar whose LaTeX is known, in ten kinds of
markup, and with functions of the standard library and snippets in other languages, in the markup of twenty highlighters and
content systems; pages of pydoc, of which the head and the text of each function should stand there. An extractor gets the page
as served and is asked for what stands between the words before and after each formula or listing. Exact is: a formula equal up
to white space that means nothing in LaTeX, between `$` or, for displays, `$$`; code equal to the character, but for empty lines
around it and white space at the ends of lines.

Sides: `main` and `all_text` are Curate's extractor with these values of `keep`; `markdown` is `main` in that format, its fences
and the marks of definitions taken off; `resiliparse` and `trafilatura` are those packages as Curate offers them. The last two
write no LaTeX, but code.

Bars: `main` gives back 0.95 of the formulas and 0.95 of the listings, pages of pydoc included.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from _measure import table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import structured

BAR = 0.95
SIDES = ("main", "all_text", "markdown", "resiliparse", "trafilatura")
Extract = Callable[[str], str]


def extractor(side: str) -> Extract:
    """HTML to text."""
    if side in ("resiliparse", "trafilatura"):
        from curate.extract import load

        peer = load(side)
        return lambda page: peer(page.encode(), None, "utf-8").text or ""
    from curate.extract.curate import extract

    if side == "markdown":

        def written(page: str) -> str:
            text = extract(page.encode(), None, "utf-8", format="markdown").text
            return re.sub(r"(?m)^(`{3,})\n((?:.*\n)*?)\1$|^: ", r"\2", text)

        return written
    return lambda page: extract(page.encode(), None, "utf-8", keep=side).text


def cases(only: str | None, pages: int, seed: int) -> Iterator[tuple[str, str, list[tuple[str, list]], Callable]]:
    """(group, kind, pages with what is expected of them, how to judge a text)."""
    if only in (None, "maths"):
        for kind in structured.MATHS:
            yield "maths", kind, list(structured.maths_pages(kind, seed, pages)), structured.exact_maths
    if only in (None, "code"):
        for kind in structured.CODE:
            yield "code", kind, list(structured.code_pages(kind, seed, pages)), structured.exact_code
    if only in (None, "pydoc"):
        yield "code", "pydoc", list(structured.pydoc_pages()), structured.exact_pydoc


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=int, default=25, help="pages of each kind, with 8 formulas or 4 listings each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["maths", "code", "pydoc"])
    parser.add_argument("--sides", default="main,all_text", help=f"some of {', '.join(SIDES)}")
    parser.add_argument("--show", type=int, default=0, help="so many of the misses of `main` in each kind")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")
    given = parser.parse_args()
    sides = given.sides.split(",")
    if unknown := set(sides) - set(SIDES):
        parser.error(f"no such side: {', '.join(sorted(unknown))}")
    extract = {side: extractor(side) for side in sides}
    rows: list[dict] = []
    for group, kind, made, judge in cases(given.only, given.pages, given.seed):
        row: dict = {"group": group, "kind": kind, "n": sum(len(items) for _, items in made), "exact": {}}
        for side in sides:
            right = 0
            misses = []
            for page, items in made:
                text = extract[side](page)
                exact = judge(text, items)
                right += sum(exact)
                misses += [(item, text) for item, hit in zip(items, exact, strict=True) if not hit]
            row["exact"][side] = right
            for item, text in misses[: given.show if side == "main" else 0]:
                found = structured.between(text, item) if isinstance(item, structured.Item) else None
                expected = item.expected if isinstance(item, structured.Item) else item
                print(f"{kind}\n  expected {expected!r}\n  found    {found!r}", file=sys.stderr)
        rows.append(row)
    totals = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        chosen = [row for row in rows if row["group"] == group]
        n = sum(row["n"] for row in chosen)
        exact = {side: sum(row["exact"][side] for row in chosen) for side in sides}
        totals[group] = {"group": group, "kind": f"all {group}", "n": n, "exact": exact}
    if given.json:
        print(json.dumps({"pages": given.pages, "seed": given.seed, "kinds": rows, "totals": totals}, indent=1))
    else:
        for group, total in totals.items():
            lines = [
                [row["kind"], f"{row['n']:,}", *(f"{row['exact'][side] / row['n']:.3f}" for side in sides)]
                for row in [*(row for row in rows if row["group"] == group), total]
            ]
            print(table(f"{group}: share exact", ["markup", "n", *sides], lines), end="\n\n")
    if given.check and "main" in sides:
        return int(any(total["exact"]["main"] < BAR * total["n"] for total in totals.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
