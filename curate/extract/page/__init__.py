"""A parsed page as arrays: what the kernels, the model and the writers of text share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Page:
    """One page after parsing and the scan of its markup.

    html: the page as the parser serialises it: well formed, tags in lower case, attributes in double quotes.
    text: UTF-8; the texts of all blocks, one after another.
    blocks: int32 [blocks, BLOCK_COLUMNS] in document order; the columns are named in `curate.kernels.html`.
    elements: int32 [elements, ELEMENT_COLUMNS].
    spans: int32 [spans, 3]: kind, start and end in `html` of elements that are read in Python (formulas, metadata).
    """

    html: bytes
    text: bytes
    blocks: np.ndarray
    elements: np.ndarray
    spans: np.ndarray
