"""Lines that stand in many documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curate.errors import RecipeError
from curate.repeats import Repeats
from curate.stage import BatchFn, GlobalStage, Step, Task


@dataclass(frozen=True, kw_only=True)
class LineDedup(GlobalStage):
    """Takes out the lines that stand in many documents of the corpus, or of their host.

    scope: "corpus"; or "host", the host of `url` in any case of letters, without a leading `www.`. Documents without a url,
    or with one whose host has no dot (`urn:…`, `localhost`), are left alone, and counted in the run's notes. A line goes that
    stands in at least min_documents documents of its scope, or, in scopes of at least min_scope documents, in more than a
    share max_share of them (and in at least two); null switches either off. A line that repeats within one document counts
    once. keep: "none" takes such a line out everywhere; with "first" it stays where it stands first in input order. ignore:
    what makes no difference, out of `case`, `digits` (each counts as 0) and `punctuation`. min_chars: lines with fewer
    letters (and marks, but not digits) are left alone, so that `}`, `---` and the numbers of a table never go. min_run: a line
    goes only where so many in a row do, lines that are left alone not counted, or at an end of its text, unless it is alone
    there and has fewer than 16 bytes; from the end, one line that stays is passed where two that go follow it, as a title below
    a menu is. spare: what stays all the same, out of `code` (lines within fences of Markdown, and those that look like a
    program's by how they begin or end, or by `()`, `::`, `->` and the like) and `headings` (of Markdown).

    Lines are what "\\n" separates. They are compared without whitespace at their ends, with one space for each run of it
    within, by a 64-bit hash: that a line is taken for another has a chance of about (different lines) / 2^64, and only
    lines taken for several others go wrongly where min_documents is large. Counts are exact, and so is the choice of the first.

    What stays keeps its bytes. Where lines went, the blank lines around them become one run of them, the first, and none at
    the ends of the text. A text of which nothing is left drops; one that was blank before is not touched.

    Columns written: `text` (string); `line_dedup_removed`, `line_dedup_removed_bytes` (uint32, lines and bytes that went,
    line feeds included; `host_boilerplate` writes them under its own name). Reasons: `line_dedup.empty`, with `_value` =
    lines that went.

    The defaults are those of Llama 3, which removed lines that stood more than 6 times among 30 million documents; in smaller
    corpora the same number means more, so raise it or set max_share. CCNet's paper takes out what stands twice or more in the
    shards of a snapshot that are compared, the first included, with digits and most punctuation ignored: `{min_documents: 2,
    ignore: [case, digits, punctuation], min_chars: 1}`. Dolma and datatrove's sentence deduplication leave the first where it
    stands: `{min_documents: 2, keep: first}`, or `paragraph_dedup`, which counts repeats within a document too. RefinedWeb's
    line-wise corrections look at each line by itself and are no matter of counting: see `c4_lines`, and `where` over the
    columns above for its rule that a page of which much was cut goes altogether.

    Frequent lines may be good text: refrains, headings such as "Pros", the values of a table of products, and in code lines
    like `pass` or `try {`, which leave holes. Llama 3's authors saw good text go as well, and found their models better for it.
    Keep this stage off sources of code, and set min_run, spare and min_chars where short lines matter, as `host_boilerplate`
    does.

    Source: CCNet (Wenzek et al. 2019, https://arxiv.org/abs/1911.00359); The Llama 3 Herd of Models (2024,
    https://arxiv.org/abs/2407.21783, section 3.1.1); sorted keys instead of a table in memory are our own.

    >>> pages = [f"Home | About\\nStory number {n}.\\n\\nShare this!" for n in range(7)]
    >>> result = LineDedup()(pages)
    >>> result.kept["text"].to_pylist()[:2], result.kept["line_dedup_removed"].to_pylist()[:2]
    (['Story number 0.', 'Story number 1.'], [2, 2])
    """

    max_drop: ClassVar[float | None] = 0.5
    example: ClassVar[dict[str, Any]] = {"min_documents": 2, "ignore": ("case", "digits"), "keep": "first"}

    scope: Literal["corpus", "host"] = "corpus"
    min_documents: int | None = 7
    max_share: float | None = None
    min_scope: int = 10
    keep: Literal["none", "first"] = "none"
    ignore: tuple[str, ...] = ("case",)
    min_chars: int = 2
    min_run: int = 1
    spare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = self._repeats().name
        if self.scope not in ("corpus", "host"):
            raise RecipeError(f"{name}: scope is {self.scope!r}; it is 'corpus' or 'host'")
        if self.keep not in ("none", "first"):
            raise RecipeError(f"{name}: keep is {self.keep!r}; it is 'none' or 'first'")

    def _repeats(self) -> Repeats:
        return Repeats(
            name=type(self).__module__.rpartition(".")[2],
            scope=self.scope,
            ignore=self.ignore,
            blocks=False,
            min_chars=self.min_chars,
            distinct=True,
            min_documents=self.min_documents,
            max_share=self.max_share,
            min_scope=self.min_scope,
            first=self.keep == "first",
            min_run=self.min_run,
            spare=self.spare,
        )

    def reads(self) -> tuple[str, ...]:
        return self._repeats().reads()

    def writes(self) -> pa.Schema:
        return self._repeats().writes()

    def reasons(self) -> tuple[str, ...]:
        return (f"{self._repeats().name}.empty",)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return self._repeats().steps(self, n_shards, n_docs)

    def open(self, task: Task) -> BatchFn:
        return self._repeats().open(self, task)
