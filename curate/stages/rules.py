"""Published rules over the columns of `signals`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RecipeError, did_you_mean
from curate.languages import check_codes
from curate.signals import BY_NAME, UNSPACED
from curate.stage import REASON, BatchFn, Filter, Task, with_columns

Thresholds = Mapping[str, float | Mapping[str, float | None] | None]


@dataclass(frozen=True, kw_only=True)
class Rules(Filter):
    """Drops documents by the rules of Gopher, C4 and FineWeb, from the columns of `signals` alone.

    sets: which rules, and in which order; the first rule that a document breaks is its reason.
    thresholds: other thresholds than the published ones by code, such as `{gopher.min_words: 30, gopher.max_hash_ratio: null}`,
    or `{gopher: {min_words: 30}}`. null switches a rule off.
    languages: thresholds for documents of one language, such as `{zh: {gopher.min_mean_word_length: 1}}`, which go before all
    others. They need the column `language`, which is read only then.

    A rule `min_…` drops what is below its threshold, all others what is above it. In their order:

    gopher: min_words 50, max_words 100,000, min_mean_word_length 3, max_mean_word_length 10, max_hash_ratio 0.1,
    max_ellipsis_ratio 0.1, max_bullet_line_share 0.9, max_ellipsis_line_share 0.3, min_alpha_word_share 0.8,
    min_stop_words 2.
    gopher_repetition: min_chars 1, max_dup_para_share 0.3, max_dup_para_char_share 0.2, max_dup_line_share 0.3,
    max_dup_line_char_share 0.2, max_top_2gram_char_share 0.2, max_top_3gram_char_share 0.18, max_top_4gram_char_share 0.16,
    max_dup_5gram_char_share 0.15, and 0.14, 0.13, 0.12, 0.11, 0.10 for 6 to 10 words.
    c4: lorem_ipsum 0, curly_bracket 0 (lines with them), min_sentences 5, bad_words (off; 0 for none, and `signals` needs a
    list). `c4_lines` takes out lines, and belongs behind this.
    c4_any_end: the same, for C4 that keeps lines without terminal punctuation.
    fineweb: min_line_punct_ratio 0.12, max_short_line_ratio 0.67, max_char_dup_ratio 0.01, max_new_line_ratio 0.3.

    Ratios are compared as float32, which they are, so that 3 of 10 is not above 0.3. A signal that is null (stop words of a
    language without a list) is not judged. Nor are texts that are written without spaces (`word_rule` 3), where a word is
    about a character, by rules that mean words of Western length or lines of so many: min_mean_word_length,
    max_mean_word_length, min_alpha_word_share, min_stop_words, all shares of n-grams, min_sentences (C4 keeps lines of three
    words between spaces), and max_short_line_ratio; unless `languages` has a threshold of theirs. How many, the run's
    end and its report say.

    Columns written: none. Reasons: `<set>.<rule>`, such as `gopher.min_words`, each with `_value` = the signal that decided.

    Source: Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446), C4 (Raffel et al. 2020,
    https://arxiv.org/abs/1910.10683), FineWeb (Penedo et al. 2024, https://arxiv.org/abs/2406.17557); thresholds, their order
    and strictness as in datatrove's filters.

    >>> import pyarrow as pa
    >>> docs = pa.table({"text": ["a", "b", "c"], "fineweb_line_punct_ratio": [0.9, 0.1, 0.9],
    ...                  "fineweb_char_dup_ratio": [0.0, 0.5, 0.25], "fineweb_new_line_ratio": [0.1, 0.1, 0.1]})
    >>> result = Rules(sets=("fineweb",), thresholds={"fineweb.max_short_line_ratio": None})(docs)
    >>> result.dropped["_reason"].to_pylist(), result.dropped["_value"].to_pylist()[1]
    (['fineweb.min_line_punct_ratio', 'fineweb.max_char_dup_ratio'], 0.25)
    """

    example: ClassVar[dict[str, Any]] = {
        "sets": ("gopher_repetition", "gopher", "c4", "fineweb"),
        "thresholds": {"gopher.min_words": 30, "c4.bad_words": 0},
        "languages": {"zh": {"gopher.min_mean_word_length": 1}},
    }

    sets: tuple[str, ...]
    thresholds: Thresholds = field(default_factory=dict)
    languages: Mapping[str, Thresholds] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.sets:
            if name not in _SETS:
                raise RecipeError(f"rules: sets holds {name!r}{did_you_mean(name, _SETS)}")
        if not self.sets or len(set(self.sets)) < len(self.sets):
            raise RecipeError(f"rules: sets is {list(self.sets)}; name each set once, of {', '.join(_SETS)}")
        _flat(self.thresholds, self.sets, "thresholds")
        check_codes(tuple(self.languages), "rules.languages")
        for code, thresholds in self.languages.items():
            if not isinstance(thresholds, Mapping):
                raise RecipeError(f"rules: languages.{code} is {thresholds!r}; write {{gopher.min_words: 30}}, or the like")
            _flat(thresholds, self.sets, f"languages.{code}")
        if not self._active:
            raise RecipeError("rules: every rule is switched off; take the stage out, or leave a rule on")

    @functools.cached_property
    def _active(self) -> list[_Levels]:
        """The rules that judge any document, with their thresholds: the first for all, then one for each language."""
        general = _flat(self.thresholds, self.sets, "thresholds")
        special = [_flat(given, self.sets, "languages") for given in self.languages.values()]
        active = []
        for rule in (rule for name in self.sets for rule in _SETS[name]):
            first = general.get(rule.code, rule.threshold)
            levels = [first, *(own.get(rule.code, first) for own in special)]
            if any(level is not None for level in levels):
                # nothing is above or below NaN
                numbers: np.ndarray = np.array([math.nan if level is None else level for level in levels], rule.dtype)
                active.append(_Levels(rule, numbers, np.array([False, *(rule.code in own for own in special)])))
        return active

    def reads(self) -> tuple[str, ...]:
        rules = [levels.rule for levels in self._active]
        columns = dict.fromkeys(rule.column for rule in rules)
        if any(rule.spaced for rule in rules):
            columns["word_rule"] = None
        return (*columns, *(("language",) if self.languages else ()))

    def reasons(self) -> tuple[str, ...]:
        return tuple(levels.rule.code for levels in self._active)

    def open(self, task: Task) -> BatchFn:
        return functools.partial(_judge, self._active, pa.array(list(self.languages), pa.string()), task.count)

    def reject(self, batch: pa.RecordBatch) -> pa.Array:
        return self.open(Task(phase="", rank=0))(batch)[REASON]


@dataclass(frozen=True)
class _Rule:
    """spaced: it means words between spaces, or lines of a Western length."""

    code: str
    column: str
    below: bool
    threshold: float | None
    spaced: bool

    @property
    def dtype(self) -> type:
        """Counts are compared as they are, ratios as the float32 that they are."""
        return np.float32 if BY_NAME[self.column].dtype == "float32" else np.float64


@dataclass(frozen=True)
class _Levels:
    """A rule with its thresholds (NaN: off), and whether a language has set them itself; at 0 those for all others."""

    rule: _Rule
    numbers: np.ndarray
    own: np.ndarray


def _rules(name: str, rows: str) -> tuple[_Rule, ...]:
    rules = []
    for row in rows.strip().splitlines():
        rule, column, threshold, *spaced = row.split()
        level = None if threshold == "off" else float(threshold)
        rules.append(_Rule(f"{name}.{rule}", column, rule.startswith("min_"), level, spaced == ["spaced"]))
    return tuple(rules)


_C4 = """
lorem_ipsum      {0}_lorem_ipsum     0
curly_bracket    {0}_curly_bracket   0
min_sentences    {0}_sentences       5    spaced
bad_words        c4_bad_words        off
"""
_TABLE = {
    "gopher": """
min_words                  gopher_words                 50
max_words                  gopher_words                 100000
min_mean_word_length       gopher_mean_word_length      3       spaced
max_mean_word_length       gopher_mean_word_length      10      spaced
max_hash_ratio             gopher_hash_ratio            0.1
max_ellipsis_ratio         gopher_ellipsis_ratio        0.1
max_bullet_line_share      gopher_bullet_line_share     0.9
max_ellipsis_line_share    gopher_ellipsis_line_share   0.3
min_alpha_word_share       gopher_alpha_word_share      0.8     spaced
min_stop_words             gopher_stop_words            2       spaced
""",
    "gopher_repetition": """
min_chars                  text_chars                   1
max_dup_para_share         gopher_dup_para_share        0.3
max_dup_para_char_share    gopher_dup_para_char_share   0.2
max_dup_line_share         gopher_dup_line_share        0.3
max_dup_line_char_share    gopher_dup_line_char_share   0.2
max_top_2gram_char_share   gopher_top_2gram_char_share  0.2     spaced
max_top_3gram_char_share   gopher_top_3gram_char_share  0.18    spaced
max_top_4gram_char_share   gopher_top_4gram_char_share  0.16    spaced
max_dup_5gram_char_share   gopher_dup_5gram_char_share  0.15    spaced
max_dup_6gram_char_share   gopher_dup_6gram_char_share  0.14    spaced
max_dup_7gram_char_share   gopher_dup_7gram_char_share  0.13    spaced
max_dup_8gram_char_share   gopher_dup_8gram_char_share  0.12    spaced
max_dup_9gram_char_share   gopher_dup_9gram_char_share  0.11    spaced
max_dup_10gram_char_share  gopher_dup_10gram_char_share 0.10    spaced
""",
    "c4": _C4.format("c4"),
    "c4_any_end": _C4.format("c4_any_end"),
    "fineweb": """
min_line_punct_ratio       fineweb_line_punct_ratio     0.12
max_short_line_ratio       fineweb_short_line_ratio     0.67    spaced
max_char_dup_ratio         fineweb_char_dup_ratio       0.01
max_new_line_ratio         fineweb_new_line_ratio       0.3
""",
}
_SETS = {name: _rules(name, rows) for name, rows in _TABLE.items()}


def _flat(given: Thresholds, sets: tuple[str, ...], where: str) -> dict[str, float | None]:
    """Thresholds by full code. Raises RecipeError where a code is no rule of the sets, stands twice, or is no number."""
    codes = {rule.code for name in sets for rule in _SETS[name]}
    found: dict[str, float | None] = {}
    for code, threshold in _entries(given):
        if code not in codes:
            name = code.partition(".")[0]
            if name in _SETS and name not in sets and code in {rule.code for rule in _SETS[name]}:
                raise RecipeError(f"rules: {where} holds {code!r}, but sets does not hold {name!r}: add it to sets")
            raise RecipeError(
                f"rules: {where} holds {code!r}, which is no rule of {', '.join(sets)}{did_you_mean(code, codes)}"
            )
        if code in found:
            raise RecipeError(f"rules: {where} holds {code!r} twice, with and without a dot: leave one out")
        if threshold is not None and (not isinstance(threshold, int | float) or math.isnan(threshold)):
            raise RecipeError(f"rules: {where}.{code} is {threshold!r}; write a number, or null to switch the rule off")
        found[code] = threshold
    return found


def _entries(given: Thresholds) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{rule}", threshold) for rule, threshold in value.items())
        else:
            yield key, value


def _judge(
    active: list[_Levels], languages: pa.Array, count: Callable[[str, int], None], batch: pa.RecordBatch
) -> pa.RecordBatch:
    n = batch.num_rows
    first, value = np.full(n, -1, np.int32), np.zeros(n)
    unspaced = np.zeros(n, bool)
    if any(levels.rule.spaced for levels in active):
        unspaced = batch["word_rule"].to_numpy(zero_copy_only=False) == UNSPACED
    some_unspaced = bool(unspaced.any())
    which = np.zeros(n, np.int64)
    if len(languages):
        which = pc.fill_null(pc.add(pc.index_in(batch["language"], languages), 1), 0).to_numpy()
    spared = np.zeros(n, bool)
    for i, levels in enumerate(active):
        rule, column = levels.rule, batch[levels.rule.column]
        threshold: Any = levels.numbers[which] if len(languages) else levels.numbers[0]
        if rule.spaced and some_unspaced:
            spare = unspaced & ~levels.own[which]
            threshold = np.where(spare, levels.numbers.dtype.type(math.nan), threshold)
            spared |= spare
        if column.null_count:
            count(f"documents without {rule.column}, which {rule.code} did not judge", column.null_count)
        values = column.to_numpy(zero_copy_only=False).astype(levels.numbers.dtype, copy=False)
        broken = values < threshold if rule.below else values > threshold
        if broken.any():
            broken &= first < 0
            first[broken] = i
            value[broken] = values[broken]
    if spared.any():
        count("documents written without spaces, not judged by the rules that need them", int(spared.sum()))
    kept = first < 0
    reason = pc.take(pa.array([levels.rule.code for levels in active]), pa.array(first, mask=kept))
    return with_columns(batch, {REASON: reason, "_value": pa.array(value, mask=kept)})
