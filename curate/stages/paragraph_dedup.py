"""Paragraphs that stood earlier in the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curate.errors import RecipeError
from curate.repeats import Repeats
from curate.stage import BatchFn, GlobalStage, Step, Task


@dataclass(frozen=True, kw_only=True)
class ParagraphDedup(GlobalStage):
    """Takes out the paragraphs that stood earlier in the corpus, be it in the same document.

    unit: "line", what "\\n" separates; or "block", lines up to a blank one. ignore: what makes no difference, out of `case`,
    `digits` (each counts as 0) and `punctuation`. min_chars: paragraphs with fewer letters (and marks) are left alone.
    Of equal paragraphs the first in input order stays. How they are compared, and what becomes of the blank lines around
    them, is told under `line_dedup`.

    Dolma marks what its Bloom filter has seen: which copy is the first depends on the order in which workers come, different
    paragraphs are taken for seen ones at the rate for which the filter was sized, and it lies in memory as a whole. Here
    the keys are sorted on disk: the result depends on nothing but the input order, a paragraph is taken for another with a
    chance of (different paragraphs) / 2^64, and memory is limited. Dolma compares paragraphs as they are; CCNet's `deduplicate`
    ignores case, digits and most punctuation (its paper's runs also take out the first: `line_dedup`). Both take short lines
    too: for that, set min_chars to 1, and lose what is said twice in dialogues, lists and tables.

    Columns written: `text` (string); `paragraph_dedup_removed`, `paragraph_dedup_removed_bytes` (uint32, paragraphs and bytes
    that went, line feeds included). Reasons: `paragraph_dedup.empty`, with `_value` = paragraphs that went.

    Source: CCNet (Wenzek et al. 2019, https://arxiv.org/abs/1911.00359); Dolma (Soldaini et al. 2024,
    https://arxiv.org/abs/2402.00159, section 5.4); sorted keys instead of a filter are our own.

    >>> texts = ["All rights are reserved by the owner.\\n\\nOne.", "Two.\\n\\nAll  rights are reserved by the OWNER."]
    >>> ParagraphDedup()(texts).kept["text"].to_pylist()
    ['All rights are reserved by the owner.\\n\\nOne.', 'Two.']
    """

    max_drop: ClassVar[float | None] = 0.5
    example: ClassVar[dict[str, Any]] = {"unit": "block", "min_chars": 1}

    unit: Literal["line", "block"] = "line"
    ignore: tuple[str, ...] = ("case",)
    min_chars: int = 20

    def __post_init__(self) -> None:
        self._repeats()
        if self.unit not in ("line", "block"):
            raise RecipeError(f"paragraph_dedup: unit is {self.unit!r}; it is 'line' or 'block'")

    def _repeats(self) -> Repeats:
        return Repeats(
            name="paragraph_dedup",
            scope="corpus",
            ignore=self.ignore,
            blocks=self.unit == "block",
            min_chars=self.min_chars,
            distinct=False,
            min_documents=2,
            max_share=None,
            min_scope=2,
            first=True,
        )

    def reads(self) -> tuple[str, ...]:
        return self._repeats().reads()

    def writes(self) -> pa.Schema:
        return self._repeats().writes()

    def reasons(self) -> tuple[str, ...]:
        return ("paragraph_dedup.empty",)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return self._repeats().steps(self, n_shards, n_docs)

    def open(self, task: Task) -> BatchFn:
        return self._repeats().open(self, task)
