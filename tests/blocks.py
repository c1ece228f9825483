"""Pages of blocks, built by hand, for tests of what comes after the scan."""

from __future__ import annotations

import numpy as np

from curate.extract.page import Page
from curate.kernels import html as kernel
from curate.kernels.html import DATA, ITEM, PARAGRAPH

COLUMNS = {"kind": kernel.KIND, "quote": kernel.QUOTE, "list": kernel.LIST, "ordinal": kernel.ORDINAL, "table": kernel.TABLE,
           "row": kernel.ROW, "cell": kernel.CELL, "element": kernel.ELEMENT}  # fmt: skip


def block(text: str, kind: int = PARAGRAPH, **columns: int) -> dict:
    return {"text": text, "kind": kind, **columns}


def item(text: str, depth: int = 1, ordinal: int = 0, kind: int = ITEM, **columns: int) -> dict:
    return block(text, kind, list=depth, ordinal=ordinal, **columns)


def cell(text: str, row: int, column: int, kind: int = DATA, table: int = 0, **columns: int) -> dict:
    return block(text, kind, table=table, row=row, cell=column, **columns)


def page(*blocks: dict, formulas: tuple[str, ...] = (), parents: tuple[tuple[int, str], ...] = ()) -> Page:
    """A page of these blocks. formulas: elements behind the numbers in marks; parents: (parent, tag) of elements 1, 2, …"""
    rows = np.zeros((len(blocks), kernel.BLOCK_COLUMNS), np.int32)
    rows[:, [kernel.ORDINAL, kernel.TABLE, kernel.ROW, kernel.CELL]] = -1
    text = b""
    for row, given_block in zip(rows, blocks, strict=True):
        row[kernel.START] = len(text)
        text += given_block["text"].encode()
        row[kernel.END] = len(text)
        for name, column in COLUMNS.items():
            row[column] = given_block.get(name, row[column])
    elements = np.zeros((1 + len(parents), kernel.ELEMENT_COLUMNS), np.int32)
    elements[0, kernel.PARENT] = -1
    for row, (parent, tag) in zip(elements[1:], parents, strict=True):
        row[kernel.PARENT], row[kernel.TAG] = parent, kernel.T[tag]
    source, spans = b"<html>", []
    for element in formulas:
        spans.append((kernel.SPAN_MATH, len(source), len(source) + len(element.encode())))
        source += element.encode()
    return Page(
        html=source,
        text=text,
        blocks=rows,
        first_words=np.zeros((len(blocks), kernel.FIRST_WORDS), np.int64),
        elements=elements,
        names=np.zeros(0, np.int64),
        spans=np.array(spans, np.int32).reshape(-1, 3),
    )
