"""Documents cleaned by programs."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from curate.errors import RecipeError, StageError
from curate.llm import ENDPOINT_ERRORS, MODEL_ERRORS
from curate.programs import KINDS, Refined, Rules, execute, words
from curate.stage import REASON, BatchFn, Stage, Task, operational, with_columns
from curate.stages.refine_programs import DOCUMENT, ERROR, PROGRAMS, RefinePrograms

UNANSWERED = (*ENDPOINT_ERRORS, "rejected", *MODEL_ERRORS)
_HANDED = ("model", "server", "serve", "dialect", "document_prompt", "prompt", "head", "window", "parameters", "api_key_env",
           "concurrency", "requests_per_minute", "tokens_per_minute", "budget_usd", "budget_tokens", "usd_per_million_input",
           "usd_per_million_output", "retries", "repairs", "timeout", "cache")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Refine(Stage):
    """Cleans documents by programs that a model, another stage or rules have written: it drops some, and takes lines out.

    Programs come from a model (`model`, `server`), or, without one, from rules of our own that take out menus, lists of links,
    notices and repeated lines: either way this stage brings `refine_programs` along as `<id>.programs`, whose docstring says
    what model, server, serve, dialect, document_prompt, prompt, head, window, parameters, retries, repairs, timeout,
    concurrency, requests_per_minute, tokens_per_minute, budget_usd, budget_tokens, usd_per_million_input,
    usd_per_million_output, api_key_env and cache are. What a model has answered is kept there, so that changing what follows
    here asks for nothing again.
    Or programs come from a column that is there: programs: its name, a string or a list of strings for the chunks. document,
    failures: columns of the programs for whole documents and of why a program is missing; by default those that are called like
    it (`refine_document` and `refine_error` for `refine_programs`), where there are such. They count the lines of the text for
    which they were written, in the language `dialect`: documents that have been refined by them already are an error.

    errors: with so many errors in its programs a document stays as it was; 0: it never does. min_share: if at most this share
    of its words would be left, and there are fewer errors, it is dropped; min_words: so is one that would be left with at most
    so many words, whatever its errors; null or -1 switches either off. Words stand between white space; in scripts without
    spaces a character is one. deletion_only: a `normalize` with a target is an error. growth: so is one after which the text
    would be longer than so many times the document. on_reject: what becomes of a document with too many errors, or with a
    program missing since no answer could be had: `keep_original`, or `drop`.

    What programs look like, what an error is, and what happens in which order, is said in `curate.programs`. Nothing of a
    program is evaluated, and nothing comes into a text but the targets of `normalize`; of the dialect `refinex`, and with
    deletion_only, what stays is a subsequence of the characters of the document.

    Columns written: `text` (string); `refine_status` (string): `kept` (and changed), `unchanged`, `fallback` (to the text as it
    was), `dropped`; `refine_errors` (int32): how many errors count; `refine_words_before`, `refine_words_after` (int32).
    Errors are counted by kind in the notes, as are words. Reasons: `refine.dropped` (by its program), `refine.too_little`, with
    `_value` = words left; with `on_reject: drop` also `refine.<kind>` with `_value` = errors: `unparsable`, `unknown`,
    `out_of_range`, `absent`, `ambiguous`, `not_allowed`, `too_long`, `limit` of programs, `timeout`, `connection`,
    `rate_limited`, `server_error`, `garbage`, `rejected`, `empty`, `truncated`, `malformed`, `schema`, `refused` of answers,
    and `failed` for any other in the column `failures`.

    Source: ProX (Zhou et al. 2024, arXiv:2409.17115), whose rules these are, and RefineX (Bi et al. 2025, arXiv:2507.03253);
    the executor, the rules without a model and the prompts are own.

    >>> page = "Home | News | About\\nIt rained all day, and nobody went out before the evening came."
    >>> kept = Refine()([page]).kept
    >>> kept["text"].to_pylist(), kept["refine_programs"].to_pylist()
    (['It rained all day, and nobody went out before the evening came.'], [['remove_lines(line_start=0, line_end=0)']])
    """

    max_drop = 0.9

    # the fingerprint of `refine_programs`, which comes before that of this stage, knows what the operational ones decide
    model: str = operational("")
    server: str = operational("")
    serve: str = operational("")
    programs: str = ""
    document: str = ""
    failures: str = ""
    dialect: Literal["prox", "refinex"] = "prox"
    errors: int = 2
    min_share: float | None = 0.05
    min_words: int | None = 10
    deletion_only: bool = False
    growth: float = 1.1
    on_reject: Literal["keep_original", "drop"] = "keep_original"
    document_prompt: str = operational("refine_document")
    prompt: str = operational("refine_chunk")
    head: int = operational(2000)
    window: int = operational(1500)
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"temperature": 0, "max_tokens": 256}, metadata={"decides": False}
    )
    api_key_env: str = operational("OPENAI_API_KEY")
    concurrency: int = operational(32)
    requests_per_minute: float = operational(0)
    tokens_per_minute: float = operational(0)
    budget_usd: float = operational(0)
    budget_tokens: int = operational(0)
    usd_per_million_input: float = operational(0)
    usd_per_million_output: float = operational(0)
    retries: int = operational(6)
    repairs: int = operational(1)
    timeout: float = operational(120)
    cache: str = operational("")

    def __post_init__(self) -> None:
        if self.programs and (self.model or self.server or self.serve):
            raise RecipeError("refine: programs come from a column or from a model: give `programs`, or `model` and `server`")
        if not self.programs and (self.document or self.failures):
            raise RecipeError("refine: document and failures are columns beside `programs`; name that one, too")
        if self.errors < 0:
            raise RecipeError(f"refine: errors is {self.errors}; give 0 or more")
        if self.min_share not in (None, -1) and not 0 <= self.min_share <= 1:
            raise RecipeError(f"refine: min_share is {self.min_share}; a share between 0 and 1, or null to switch it off")
        if self.min_words not in (None, -1) and self.min_words < 0:
            raise RecipeError(f"refine: min_words is {self.min_words}; give 0 or more, or null to switch it off")
        if not 1 <= self.growth <= 100:
            raise RecipeError(f"refine: growth is {self.growth}; from 1, which lets no text grow, to 100")
        if self.on_reject not in ("keep_original", "drop"):
            raise RecipeError(f"refine: on_reject is {self.on_reject!r}; it is 'keep_original' or 'drop'")
        self._asking()  # which says what is wrong with its parameters

    def _asking(self) -> RefinePrograms:
        return RefinePrograms(**{name: getattr(self, name) for name in _HANDED})

    def needs(self) -> Mapping[str, Stage]:
        return {} if self.programs else {"programs": self._asking()}

    def bound(self, columns: Collection[str]) -> Stage:
        if self.programs == PROGRAMS and "refine_status" in columns:  # lines would go whose numbers were those of others
            raise RecipeError(
                f"refine: the documents have been refined by {PROGRAMS!r} already, as their column 'refine_status' says; take "
                "them as they were, with their programs: `curate apply refine_programs` writes both, and asks for nothing again"
            )
        if not self.programs.endswith("programs"):
            return self
        stem = self.programs.removesuffix("programs")
        document, failures = (name if name in columns else "" for name in (f"{stem}document", f"{stem}error"))
        return replace(self, document=self.document or document, failures=self.failures or failures)

    def _columns(self) -> tuple[str, str, str]:
        return (self.document, self.programs, self.failures) if self.programs else (DOCUMENT, PROGRAMS, ERROR)

    def reads(self) -> tuple[str, ...]:
        return ("text", *filter(None, self._columns()))

    def writes(self) -> pa.Schema:
        return pa.schema(
            [
                ("text", pa.string()),
                ("refine_status", pa.string()),
                ("refine_errors", pa.int32()),
                ("refine_words_before", pa.int32()),
                ("refine_words_after", pa.int32()),
            ]
        )

    def reasons(self) -> tuple[str, ...]:
        return tuple(f"refine.{kind}" for kind in ("dropped", "too_little", *KINDS, *UNANSWERED, "failed"))

    def open(self, task: Task) -> BatchFn:
        rules = Rules(
            errors=self.errors,
            share=None if self.min_share == -1 else self.min_share,
            words=None if self.min_words == -1 else self.min_words,
            deletion_only=self.deletion_only,
            growth=self.growth,
        )
        return partial(self._process, rules, task)

    def _process(self, rules: Rules, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch["text"].to_pylist()
        documents, chunks, failures = (_programs(batch, name) for name in self._columns())
        rows = []
        for text, document, parts, failed in zip(texts, documents, chunks, failures, strict=True):
            about = document[0] if document else None
            rows.append(self._row(text, about, parts, failed[0] if failed else None, rules, task.count))
        names = [*self.writes().names, REASON, "_value"]
        kinds = [*self.writes().types, pa.string(), pa.float64()]
        values = zip(*rows, strict=True) if rows else itertools.repeat((), len(names))
        return with_columns(batch, {n: pa.array(v, k) for n, v, k in zip(names, values, kinds, strict=False)})

    def _row(
        self,
        text: str | None,
        document: str | None,
        chunks: list[str | None],
        failed: str | None,
        rules: Rules,
        count: Any,
    ) -> tuple[Any, ...]:
        """text, status, errors, words before and after, reason, value."""
        if failed is None:
            done = execute(text, document, chunks, self.dialect, rules)
        else:
            n = words(text or "")
            done = Refined(text or "", "fallback", failed if failed in UNANSWERED else "failed", {}, 0, n, n)
        reason, value = None, None
        if done.status == "dropped":
            reason, value = f"refine.{done.why}", done.words_after if done.why == "too_little" else None
        elif done.status == "fallback" and self.on_reject == "drop":
            reason, value = f"refine.{done.why}", done.wrong
        stays = done.words_before if done.status == "fallback" else done.words_after
        count(f"documents {done.status}{f': {done.why}' if done.why else ''}")
        for kind, n in done.errors.items():
            count(f"calls of programs: {kind}", n)
        if reason is None:
            count("words before", done.words_before)
            count("words after", stays)
        return done.text if done.status == "kept" else text, done.status, done.wrong, done.words_before, stays, reason, value


def _programs(batch: pa.RecordBatch, name: str) -> list[list[str | None]]:
    """What a column of strings, or of lists of them, holds, as lists; empty ones without a column."""
    if not name:
        return [[]] * batch.num_rows
    kind = batch.schema.field(name).type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    inner = kind.value_type if listed else kind
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)):
        raise StageError(f"refine: the column {name!r} is {kind}; programs are strings, or lists of strings")
    values = batch[name].to_pylist()
    return [value or [] for value in values] if listed else [[] if value is None else [value] for value in values]
