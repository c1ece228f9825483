"""C4's cleaning of a text, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError
from curate.stage import REASON, BatchFn, Stage, Task, with_columns


@dataclass(frozen=True, kw_only=True)
class C4Lines(Stage):
    """Takes out the lines that C4 takes out: no end of a sentence, few words, scripts, notices on cookies and terms.

    terminal_punctuation: drop lines that do not end in one of end_marks, or end in "...". end_marks: characters that end a
    line; for other languages than English, add theirs. min_words: drop lines of fewer whitespace-separated words.
    max_word_length: drop lines with a longer word, in characters. Either of the two is off where it is null or -1.
    javascript: drop lines with "javascript". policy: drop lines with "terms of use", "privacy policy", "cookie policy",
    "uses cookies", "use of cookies" or "use cookies"; both in any case of ASCII letters.
    citations: take `[1]`, `[]`, `[edit]` and `[citation needed]` out of the lines that stay. This comes before the ends are
    looked at, and what is left is not stripped anew, so that a line that ends in ". [1]" has no end, as in C4's own code.

    Lines are those of `str.splitlines()`, blank ones included. What stays is stripped and joined by line feeds. Texts that
    are written without spaces have one "word" a line: set min_words to 1 for them, or they lose everything, which is also
    what the limit `max_drop` of this stage is for. Whole documents that C4 drops (few sentences, "lorem ipsum", a curly
    bracket) are the business of `rules` with the set `c4`: put it before this stage, as the clean text no longer shows
    everything that C4 looks at.

    Columns written: `text` (string), `c4_lines_removed` (uint32, lines dropped). Reasons: `c4_lines.nothing_left`, with
    `_value` = lines dropped.

    Source: C4 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.2, and its code in TensorFlow Datasets), in
    the reading of datatrove's `C4QualityFilter`, with its defaults.

    >>> result = C4Lines()(["Home | About\\nIt rained all day.[3]\\nPlease enable JavaScript to go on.", "Menu"])
    >>> result.kept["text"].to_pylist(), result.kept["c4_lines_removed"].to_pylist()
    (['It rained all day.'], [2])
    >>> result.dropped["_reason"].to_pylist()
    ['c4_lines.nothing_left']
    """

    max_drop: ClassVar[float | None] = 0.5
    example: ClassVar[dict[str, Any]] = {"terminal_punctuation": False, "min_words": 1}

    terminal_punctuation: bool = True
    end_marks: str = ".?!\"'"
    min_words: int | None = 3
    max_word_length: int | None = 1000
    javascript: bool = True
    policy: bool = True
    citations: bool = True

    def __post_init__(self) -> None:
        if self.terminal_punctuation and not self.end_marks:
            raise RecipeError("c4_lines: end_marks is empty, so no line would stay; set terminal_punctuation to false")
        for name, least in (("min_words", 0), ("max_word_length", 1)):
            value = getattr(self, name)
            if value not in (None, -1) and value < least:
                raise RecipeError(f"c4_lines: {name} is {value}; give a number from {least}, or null to switch it off")

    def writes(self) -> pa.Schema:
        return pa.schema([("text", pa.string()), ("c4_lines_removed", pa.uint32())])

    def reasons(self) -> tuple[str, ...]:
        return ("c4_lines.nothing_left",)

    def open(self, task: Task) -> BatchFn:
        from curate.kernels import c4

        min_words = -1 if self.min_words is None else self.min_words
        max_word_length = -1 if self.max_word_length is None else self.max_word_length
        flags = (
            (self.terminal_punctuation, c4.NO_END),
            (min_words >= 0, c4.FEW_WORDS),
            (max_word_length >= 0, c4.LONG_WORD),
            (self.javascript, c4.JAVASCRIPT),
            (self.policy, c4.POLICY),
        )
        return partial(
            _clean,
            sum(flag for wanted, flag in flags if wanted),
            self.citations,
            np.array(sorted(set(map(ord, self.end_marks))), np.uint32),
            max(min_words, 0),
            max_word_length if max_word_length >= 0 else np.iinfo(np.int64).max,
        )


def _clean(
    dropped: int, cited: bool, end_marks: np.ndarray, min_words: int, max_word_length: int, batch: pa.RecordBatch
) -> pa.RecordBatch:
    from curate.kernels.c4 import clean_texts
    from curate.kernels.words import offsets_and_bytes

    text = batch["text"]
    given = offsets_and_bytes(text)
    offsets, data, removed, changed = clean_texts(*given, dropped, cited, end_marks, min_words, max_word_length)
    empty = offsets[1:] == offsets[:-1]
    if changed or text.null_count:
        text = pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(data))
    reason = pc.if_else(pa.array(empty), pa.scalar("c4_lines.nothing_left"), pa.scalar(None, pa.string()))
    columns = {"text": text, "c4_lines_removed": pa.array(removed)}
    return with_columns(batch, {**columns, REASON: reason, "_value": pa.array(removed.astype(np.float64), mask=~empty)})
