"""A parsed page as arrays: what the kernels, the model and the writers of text share."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from curate.kernels import blocks as kernel_of_blocks
from curate.kernels import html as kernel
from curate.kernels import thin as kernel_of_bytes
from curate.kernels.tags import fnv, hash_table


@dataclass(slots=True)
class Page:
    """One page after parsing and the scan of its markup. The columns of the arrays are named in `curate.kernels.html`.

    html: the page as the parser serialises it: well formed, tags in lower case, attributes in double quotes.
    text: UTF-8; the texts of all blocks, one after another.
    blocks: int32 [blocks, BLOCK_COLUMNS] in document order.
    first_words: int64 [blocks, FIRST_WORDS]: hashes of the first words of each block, 0 where there are fewer.
    elements: int32 [elements, ELEMENT_COLUMNS], outer ones first; element 0 is the document.
    names: int64: hashes of tags and of the words in class, id and role; an element has those of a range.
    spans: int32 [spans, 3]: kind, start and end in `html` of elements that are read in Python (formulas, metadata).
    """

    html: bytes
    text: bytes
    blocks: np.ndarray
    first_words: np.ndarray
    elements: np.ndarray
    names: np.ndarray
    spans: np.ndarray

    def features(self, name_weights: np.ndarray, text_weights: np.ndarray) -> np.ndarray:
        """float32 [blocks, features], named in `curate.kernels.blocks.FEATURES`.

        name_weights, text_weights: float32 [HASHES]: learned weights of the hashes in `names` and `first_words`.
        """
        return kernel_of_blocks.features(self.blocks, self.first_words, self.elements, self.names, name_weights, text_weights)


def scan_page(html: bytes) -> Page:
    """The arrays of a page. html: UTF-8, well formed, as a parser serialises it."""
    found = kernel.scan(np.frombuffer(html, np.uint8), *kernel.tables(), _LICENCES)  # type: ignore[call-arg]
    text, blocks, first, elements, names, spans = found
    return Page(html, text.tobytes(), blocks, first, elements, names, spans)


def thin_page(utf8: bytes) -> bytes:
    """A page without scripts, comments and attributes that nobody reads; a parser makes the same tree of what is left."""
    return kernel_of_bytes.thin(np.frombuffer(utf8, np.uint8), *kernel_of_bytes.tables(), _metas()).tobytes()


_LICENCES = np.frombuffer(kernel.LICENCES, np.uint8)


@functools.lru_cache(maxsize=1)
def _metas() -> np.ndarray:
    from curate.extract.page.metadata import META_NAMES

    return hash_table({fnv(name): 1 for name in META_NAMES}, 512)
