"""Every published quality signal of a text, as columns."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.errors import RecipeError, did_you_mean
from curate.signals import FAMILIES, SIGNALS, UNKNOWN
from curate.stage import Annotator, BatchFn, Task, with_columns


@dataclass(frozen=True, kw_only=True)
class Signals(Annotator):
    """Measures what the heuristics of C4, Gopher, FineWeb and RedPajama-v2 ask of a text, and drops nothing.

    sets: families of signals to write, of gopher, gopher_repetition, c4, fineweb, redpajama; all of them by default.
    language: whose words, stop words and end marks to go by. `column` reads the column `language` (null and `und`: unknown);
    `detect` tells it here, as the stage `language` does by default; a code such as `en` (ISO 639-1, else 639-3) is for every
    document; `auto` is `column` where there is such a column, else `detect`.
    bad_words: lists for `c4_bad_words`: the path of a file with an entry a line, for all languages, or of a JSONL file with
    `{"lang": …, "words": […]}` a line; or a mapping of languages to files with an entry a line.

    Words are cut by the rule of the language (`curate.lexicon` has the rules): English as spaCy cuts them, which the published
    filters run on; Chinese, Japanese, Thai, Lao, Khmer and Burmese by characters, runs of kana and clusters of letters; other
    languages by the rule for English without its contractions. A text of unknown language is never taken for English: it has
    its own number in `word_rule`, its stop word signals are null, and the run says at its end how many there were.

    Columns written: `text_chars`, `word_rule`, and those of the sets; [signals.md](signals.md) has names, types, formulas and
    sources. A null text is measured as an empty one. Reasons: none.

    Source: C4 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683), Gopher (Rae et al. 2021,
    https://arxiv.org/abs/2112.11446), FineWeb (Penedo et al. 2024, https://arxiv.org/abs/2406.17557), RedPajama-v2 (Weber
    et al. 2024, https://arxiv.org/abs/2411.12372).

    >>> kept = Signals(sets=("gopher",), language="en")(["It isn't that hard to count.", ""]).kept
    >>> kept["gopher_words"].to_pylist(), kept["gopher_stop_words"].to_pylist()
    ([7, 0], [2, 0])
    """

    sets: tuple[str, ...] = FAMILIES
    language: str = "auto"
    bad_words: str | Mapping[str, str] = ""

    def __post_init__(self) -> None:
        for name in self.sets:
            if name not in FAMILIES:
                raise RecipeError(f"signals: sets holds {name!r}{did_you_mean(name, FAMILIES)}")
        if not self.sets or len(set(self.sets)) < len(self.sets):
            raise RecipeError(f"signals: sets is {list(self.sets)}; name each set once, of {', '.join(FAMILIES)}")
        if self.language not in ("auto", "column", "detect") and not re.fullmatch("[a-z]{2,3}", self.language):
            raise RecipeError(f"signals: language is {self.language!r}; write auto, column, detect, or a code such as en")
        if self.bad_words and "c4" not in self.sets:
            raise RecipeError("signals: bad_words is for the set c4, which sets does not hold: add it, or leave bad_words out")

    def bound(self, columns: Collection[str]) -> Signals:
        return replace(self, language="column" if "language" in columns else "detect") if self.language == "auto" else self

    def reads(self) -> tuple[str, ...]:
        return ("text", "language") if self.language == "column" else ("text",)

    def writes(self) -> pa.Schema:
        types = {"uint8": pa.uint8(), "uint32": pa.uint32(), "float32": pa.float32()}
        return pa.schema([(s.name, types[s.dtype]) for s in SIGNALS if s.family in ("base", *self.sets)])

    def files(self) -> tuple[str, ...]:
        return (
            tuple(self.bad_words.values()) if isinstance(self.bad_words, Mapping) else (self.bad_words,) * bool(self.bad_words)
        )

    def open(self, task: Task) -> BatchFn:
        return functools.partial(self._process, task)

    def annotate(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        from curate.kernels.signals import compute

        if self.language == "column":
            languages = batch["language"]
        elif self.language in ("auto", "detect"):
            from curate.stages.language import detect

            languages = detect(batch["text"])[0]
        else:
            languages = pa.array([self.language] * batch.num_rows, pa.string())
        return compute(batch["text"], languages, self.sets, _lists(self.bad_words) if self.bad_words else None)

    def _process(self, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = self.annotate(batch)
        unknown = int(np.count_nonzero(columns["word_rule"].to_numpy() == UNKNOWN))
        if unknown:
            task.count("documents of unknown language, measured without stop words", unknown)
        if self.bad_words and (missing := columns["c4_bad_words"].null_count):
            task.count("documents in languages without a list of bad words", missing)
        return with_columns(batch, columns)


def _lists(paths: str | Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Bad words by language; `*` is for all."""
    if isinstance(paths, Mapping):
        return {language: _entries(path) for language, path in paths.items()}
    return dict(_by_language(paths)) if paths.endswith(".jsonl") else {"*": _entries(paths)}


@functools.lru_cache(maxsize=64)
def _entries(path: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, Path(path).read_text("utf-8").splitlines())))


@functools.lru_cache(maxsize=4)
def _by_language(path: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            words = tuple(str(word) for word in entry["words"] if str(word).strip())
            found.append((str(entry["lang"]), words))
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(f'signals: {path}:{number} is no {{"lang": …, "words": […]}}: {error!r}') from error
    return tuple(found)
