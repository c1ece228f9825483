"""One pass over a serialised HTML page: blocks of text, the elements around them, and places to look at later."""

from __future__ import annotations

# Kinds of blocks; 1 to 6 are the levels of headings.
PARAGRAPH, ITEM, CODE, DATA, HEADER, TERM, DEFINITION, CAPTION = 0, 7, 8, 9, 10, 11, 12, 13

# Columns of a block.
START, END, KIND, QUOTE, LIST, ORDINAL, TABLE, ROW, CELL, ELEMENT = range(10)

# Kinds of spans.
SPAN_MATH, SPAN_TEX, SPAN_IMAGE, SPAN_FACT = 0, 1, 2, 10
