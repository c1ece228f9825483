r"""From the kept blocks of a page to its text, plain or as Markdown.

Plain text (`text`): a block is a line, so that what works on lines sees paragraphs, and an empty line stands between blocks.
Items of a list, terms with their definitions and rows of a table are lines one after another. A `<br>` breaks the line. Cells
of a data table are joined by tabs, with nothing between two tabs where a cell has no kept text but its column has. Code keeps
its lines and its indentation. There are no bullets, numbers or other marks.

`markdown`: `#` before headings, `-` or numbers before items with nested ones indented, `>` before quotations, pipe tables
whose first row is the head, fences around code, backticks around code within a line, `: ` before the definition of a term.
Nothing but `|` in tables is escaped: a text that looks like markup by itself stays as it is.

Formulas are `$…$` and, for display mathematics, `$$…$$`, in the line in which they stand on the page.

Where blocks are missing: an item whose first block is gone gets its mark before the next; an item inside one that is gone
altogether moves up. A table with code of several lines in it, or with no two cells left side by side, is written block by
block.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import numpy as np

from curate.extract.page import Page
from curate.kernels import html as kernel
from curate.kernels.html import CODE, DEFINITION, PARAGRAPH, TERM

Format = Literal["text", "markdown"]
_Unit = tuple[bytes, int, int, int, int]  # a block's text, kind, depth of quotations and lists, ordinal

_OPEN = bytes([kernel.SPAN_OPEN])
_FORMULA = re.compile(rb"( ?)\x05(\d+)\x06")
_CODE_MARKS = bytes([kernel.CODE_OPEN, kernel.CODE_CLOSE])
_INLINE_CODE = re.compile(rb"\x03([^\x03\x04]*)\x04")
_ONLY_CODE = re.compile(rb" *\x03[^\x03\x04]*\x04")
_BACKTICKS = re.compile(rb"`+")
_TABLE = -1  # kind of a table that has become one piece
_LOOKED_AT = kernel.ELEMENT + 1  # columns of a block
_DEEPEST = 12  # levels of lists and of quotations that are shown; a thousand would indent each line by kilobytes
_DD = kernel.T["dd"]
_SPARSE = 4  # a table is filled up to so many places a cell that has text


def render(page: Page, keep: np.ndarray, format: Format = "text") -> str:
    """The text of a page's kept blocks; empty where nothing is kept.

    No line break at either end, and no more than one empty line in a row outside code.

    Args:
        page: the page. Its `html` is read for formulas only.
        keep: bool [blocks].
        format: `text` or `markdown`, as the docstring of this module has them.
    """
    columns = page.blocks[keep, :_LOOKED_AT].T.tolist()
    starts, ends, kinds, quotes, lists, ordinals, tables = columns[: kernel.ROW]
    if not starts:
        return ""
    text = page.text
    pieces = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    if _OPEN in text:
        pieces = [_with_formulas(page, piece, kinds[k]) if _OPEN in piece else piece for k, piece in enumerate(pieces)]
    if DEFINITION in kinds:
        kinds = _begun(page.elements, columns[kernel.ELEMENT], kinds)
    plain = max(ordinals) < 0 and max(tables) < 0
    if format == "markdown":
        if not plain and len(starts) < len(keep):
            ordinals = _passed_on(page.blocks, keep)
        units = list(zip(pieces, kinds, quotes, lists, ordinals, strict=True))
        return _markdown(units if plain else _with_tables(units, columns, _piped)).decode("utf-8", "replace")
    if plain and TERM not in kinds and DEFINITION not in kinds:
        joined = b"\n\n".join(filter(None, pieces))
    else:
        units = list(zip(pieces, kinds, quotes, lists, ordinals, strict=True))
        joined = _lines(units if plain else _with_tables(units, columns, _tabbed))
    return joined.translate(None, _CODE_MARKS).decode("utf-8", "replace")


def _begun(elements: np.ndarray, inner: list[int], kinds: list[int]) -> list[int]:
    """Kinds in which only the first block of a definition is one; what follows in it are paragraphs."""
    found: list[int] = []
    last = -1
    for element, kind in zip(inner, kinds, strict=True):
        if kind == DEFINITION:
            while element > 0 and elements[element, kernel.TAG] != _DD:
                element = int(elements[element, kernel.PARENT])
            if element == last:
                kind = PARAGRAPH
            last = element
        found.append(kind)
    return found


def _lines(units: list[_Unit]) -> bytes:
    """Pieces with an empty line between them, but between items, or terms and definitions, one after another."""
    found: list[bytes] = []
    item = described = False
    for piece, kind, _, _, ordinal in units:
        if not piece:
            continue
        if ordinal >= 0:
            found.append(b"\n" if item else b"\n\n")
        else:
            found.append(b"\n" if described and kind in (TERM, DEFINITION) else b"\n\n")
        found.append(piece)
        item, described = ordinal >= 0, kind in (TERM, DEFINITION)
    return b"".join(found[1:])


def _with_formulas(page: Page, piece: bytes, kind: int) -> bytes:
    """A piece with its formulas in LaTeX; one that is empty takes the space before it along."""
    from curate.extract.page.latex import latex

    def written(place: re.Match[bytes]) -> bytes:
        number = int(place.group(2))
        if number >= len(page.spans):
            return b""
        _, start, end = page.spans[number].tolist()
        tex, display = latex(page.html[start:end].decode("utf-8", "replace"))
        if not tex:
            return b""
        return place.group(1) + (f"$${tex}$$" if display else f"${tex}$").encode("utf-8", "replace")

    filled = _FORMULA.sub(written, piece)
    if kind == CODE:
        return filled
    return b"\n".join(filter(None, (line.strip(b" ") for line in filled.split(b"\n"))))


# --- Tables ---


def _with_tables(
    units: list[_Unit], columns: list[list[int]], written: Callable[[list[dict[int, bytes]]], bytes]
) -> list[_Unit]:
    """Units with the blocks of each table made one. columns: of the blocks of `units`."""
    tables, rows, cells = columns[kernel.TABLE], columns[kernel.ROW], columns[kernel.CELL]
    if max(tables) < 0:
        return units
    found: list[_Unit] = []
    k, n = 0, len(units)
    while k < n:
        stop = k + 1
        if tables[k] >= 0 and rows[k] >= 0:
            while stop < n and tables[stop] == tables[k] and rows[stop] >= 0:
                stop += 1
        blocks = units[k:stop]
        grid = _grid(blocks, rows[k:stop], cells[k:stop]) if len(blocks) > 1 else []
        # where no two cells stand side by side, the table only arranged something, or no more is left of it than a list
        if max(map(len, grid), default=0) < 2 or any(kind == CODE and b"\n" in piece for piece, kind, *_ in blocks):
            found += blocks
        else:  # lists in cells are deeper than the table itself
            found.append((written(grid), _TABLE, min(b[2] for b in blocks), min(b[3] for b in blocks), -1))
        k = stop
    return found


def _grid(units: list[_Unit], rows: list[int], cells: list[int]) -> list[dict[int, bytes]]:
    """The rows of a table: column to text in one line."""
    grid: list[dict[int, bytes]] = []
    last = -1
    for (piece, *_), row, cell in zip(units, rows, cells, strict=True):
        if row != last:
            grid.append({})
            last = row
        if piece:
            line = b" ".join(piece.split()) if b"\n" in piece or b"\t" in piece else piece
            grid[-1][cell] = grid[-1][cell] + b" " + line if cell in grid[-1] else line
    return [line for line in grid if line]


def _filled(grid: list[dict[int, bytes]]) -> list[list[bytes]]:
    """Rows with a place for each column that has any text, up to their last text; without places in a table of mostly none."""
    columns = sorted({cell for line in grid for cell in line})
    if len(columns) * len(grid) > _SPARSE * sum(map(len, grid)) + 64:
        return [[line[cell] for cell in sorted(line)] for line in grid]
    return [[line.get(cell, b"") for cell in columns if cell <= last] for line, last in ((line, max(line)) for line in grid)]


def _tabbed(grid: list[dict[int, bytes]]) -> bytes:
    return b"\n".join(b"\t".join(line) for line in _filled(grid))


def _piped(grid: list[dict[int, bytes]]) -> bytes:
    """A table in Markdown. Every row has as many places as the longest: what goes beyond the head would not be shown."""
    lines = [[cell.replace(b"|", b"\\|") for cell in line] for line in _filled(grid)]
    width = max(map(len, lines))
    found = [b"| " + b" | ".join(line + [b""] * (width - len(line))) + b" |" for line in lines]
    found.insert(1, b"|" + b" --- |" * width)
    return b"\n".join(found)


# --- Markdown ---


def _passed_on(blocks: np.ndarray, keep: np.ndarray) -> list[int]:
    """The kept blocks' ordinals, those of an item's first block passed on to the next one where the first is gone."""
    found: list[int] = []
    waiting: dict[int, int] = {}  # depth of a list -> ordinal that has no block yet
    columns = (blocks[:, kernel.LIST].tolist(), blocks[:, kernel.ORDINAL].tolist(), keep.tolist())
    for depth, ordinal, kept in zip(*columns, strict=True):
        if waiting:
            waiting = {d: o for d, o in waiting.items() if d < depth or (d == depth and ordinal < 0)}
        if ordinal >= 0:
            if not kept:
                waiting[depth] = ordinal
        elif kept and depth in waiting:
            ordinal = waiting.pop(depth)
        if kept:
            found.append(ordinal)
    return found


def _markdown(units: list[_Unit]) -> bytes:
    """Pieces with their marks, inside the quotations and items that are open around them."""
    found: list[bytes] = []
    around: list[tuple[int, bytes]] = []  # depth of an item's list (0: a quotation), and what its lines begin with
    item = described = False
    for piece, kind, quote, depth, ordinal in units:
        if not piece:
            continue
        marker = b""
        if around or quote or ordinal >= 0:
            quote, depth = min(quote, _DEEPEST), min(depth, _DEEPEST)
            stays = _open_around(around, quote, depth, ordinal)
            common = b"".join(lead for _, lead in around[:stays])
            del around[stays:]
            around += [(0, b"> ")] * (quote - sum(not d for d, _ in around))
            outer = b"".join(lead for _, lead in around)
            if ordinal >= 0:
                marker = b"- " if not ordinal else b"%d. " % ordinal
                around.append((max(depth, 1), b" " * len(marker)))
        else:
            common = outer = b""
        definition = described and kind == DEFINITION
        if found:
            tight = definition or (item and ordinal >= 0)
            found.append(b"\n" if tight else b"\n" + common.rstrip() + b"\n")
        body = _marked(piece, kind)
        if definition:
            body = b": " + body
        if around:
            lead = b"".join(lead for _, lead in around)
            if b"\n" in body:
                bare = lead.rstrip()
                body = b"\n".join(lead + line if line else bare for line in body.split(b"\n"))[len(lead) :]
            body = (outer + marker if marker else lead) + body
        found.append(body)
        item, described = ordinal >= 0, kind == TERM or definition
    joined = b"".join(found)
    return _with_backticks(joined) if _CODE_MARKS[:1] in joined or _CODE_MARKS[1:] in joined else joined


def _open_around(around: list[tuple[int, bytes]], quote: int, depth: int, ordinal: int) -> int:
    """How many of the open quotations and items also hold the next block."""
    quotes = 0
    for k, (item, _) in enumerate(around):
        if item:
            if item > depth or (ordinal >= 0 and item >= max(depth, 1)):
                return k
        else:
            quotes += 1
            if quotes > quote:
                return k
    return len(around)


def _marked(piece: bytes, kind: int) -> bytes:
    """A piece with the marks of its kind."""
    if 1 <= kind <= 6:
        return b"#" * kind + b" " + piece.replace(b"\n", b" ")
    if b"\n" in piece and _ONLY_CODE.fullmatch(piece):
        kind, piece = CODE, piece.translate(None, _CODE_MARKS)  # lines of code that are but inline to the page
    if kind == CODE:
        fence = b"`" * max(3, 1 + max(map(len, _BACKTICKS.findall(piece)), default=0))
        return fence + b"\n" + piece + b"\n" + fence
    return piece


def _with_backticks(text: bytes) -> bytes:
    """Marks around code within a line made backticks, more of them than there are in it."""

    def written(place: re.Match[bytes]) -> bytes:
        code = place.group(1)
        if not code.strip():
            return code
        if b"`" not in code:
            return b"`" + code + b"`"
        fence = b"`" * (1 + max(map(len, _BACKTICKS.findall(code))))
        space = b" " if code[:1] == b"`" or code[-1:] == b"`" else b""
        return fence + space + code + space + fence

    return _INLINE_CODE.sub(written, text.replace(_CODE_MARKS[::-1], b"")).translate(None, _CODE_MARKS)
