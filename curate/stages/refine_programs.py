"""Programs that clean documents, written by a model or by rules, and not yet carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from curate import programs
from curate.errors import RecipeError
from curate.stage import ROW, Batches, BatchFn, GlobalStage, Step, Task, operational, with_columns
from curate.storage import read_table, write_table

if TYPE_CHECKING:
    from curate.llm import Prompt, Request

HEURISTIC = "heuristic"
DOCUMENT, PROGRAMS, ERROR, GENERATOR = "refine_document", "refine_programs", "refine_error", "refine_generator"
_COLUMNS = pa.schema(
    [(DOCUMENT, pa.string()), (PROGRAMS, pa.list_(pa.string())), (ERROR, pa.string()), (GENERATOR, pa.string())]
)
_JUDGED = pa.schema([(ROW, pa.uint32()), (DOCUMENT, pa.string()), (ERROR, pa.string()), ("asked", pa.bool_())])


@dataclass(frozen=True, kw_only=True)
class RefinePrograms(GlobalStage):
    """Writes programs that would clean the documents: `refine` brings this stage along, and carries them out.

    model: its name at the server; without one the programs are those of `curate.programs.heuristic`, rules of our own that need
    no model. server: base URL, which ends in /v1 mostly; "" for the environment variable CURATE_LLM_SERVER. serve: a command
    that starts one instead, as in `rewrite`. dialect: `prox` or `refinex`, the language of programs for chunks, see
    `curate.programs`. document_prompt: Jinja template, by name or path, for the question whether a document stays
    (`keep_doc()`, `drop_doc()`), with the variable `text`: its first `head` tokens; "" to keep all. prompt: template for
    chunks, with the variables `text`: lines with their numbers, and `dialect`; "" to ask about documents alone. window: tokens
    of a chunk, which ends where a line does; a line that is longer stays as it is. Tokens are bytes/4, so that no model's
    tokenizer decides where a chunk ends. Chunks are asked about only where the document stays.

    parameters: sent with each request. retries, repairs, timeout (seconds), concurrency, requests_per_minute,
    tokens_per_minute, budget_usd, budget_tokens, usd_per_million_input, usd_per_million_output, api_key_env, cache: as in
    `annotate_llm`; see `curate.llm.Client`. A run that was killed repeats no answered request.

    Columns written: `refine_document` (string): the program for the whole document; `refine_programs` (list of string): those
    of its chunks in order, null for a chunk that was not asked about or not answered; `refine_error` (string): why there is no
    answer, of the first chunk that has none: `timeout`, `connection`, `rate_limited`, `server_error`, `garbage`, `rejected`,
    `empty`, `truncated`, `malformed`, `schema`, `refused`; null where nothing went wrong. `refine_generator` (string): the
    model, or `heuristic`. Blank texts get no programs. Reasons: none.

    Source: ProX (Zhou et al. 2024, arXiv:2409.17115) and RefineX (Bi et al. 2025, arXiv:2507.03253); prompts and rules are own.

    >>> kept = RefinePrograms()(["Home | News | About\\nIt rained all day."]).kept
    >>> kept["refine_document"].to_pylist(), kept["refine_programs"].to_pylist()
    (['keep_doc()'], [['remove_lines(line_start=0, line_end=0)']])
    """

    decides_rows: ClassVar[bool] = True

    model: str = ""
    server: str = operational("")
    serve: str = operational("")
    dialect: Literal["prox", "refinex"] = "prox"
    document_prompt: str = "refine_document"
    prompt: str = "refine_chunk"
    head: int = 2000
    window: int = 1500
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 256})
    api_key_env: str = operational("OPENAI_API_KEY")
    concurrency: int = operational(32)
    requests_per_minute: float = operational(0)
    tokens_per_minute: float = operational(0)
    budget_usd: float = operational(0)
    budget_tokens: int = operational(0)
    usd_per_million_input: float = operational(0)
    usd_per_million_output: float = operational(0)
    retries: int = 6
    repairs: int = 1
    timeout: float = 120
    cache: str = operational("")

    def __post_init__(self) -> None:
        from curate.rewriting import check_asking

        check_asking(self, "refine")
        if self.dialect not in programs.DIALECTS:
            raise RecipeError(f"refine: dialect is {self.dialect!r}; it is one of {', '.join(programs.DIALECTS)}")
        for name, least in (("head", 16), ("window", 64)):
            if getattr(self, name) < least:
                raise RecipeError(f"refine: {name} is {getattr(self, name)}; give {least} tokens or more")
        if self.model and not (self.document_prompt or self.prompt):
            raise RecipeError("refine: document_prompt and prompt are both empty; name one of them")
        if (self.server or self.serve) and not self.model:
            raise RecipeError("refine: there is a server but no model; give the name under which the server knows it")

    def reads(self) -> tuple[str, ...]:
        return ("id",) if self.model else ("text",)

    def fit_reads(self) -> tuple[str, ...]:
        return ("text",)

    def writes(self) -> pa.Schema:
        return _COLUMNS

    def ready(self) -> None:
        from curate.rewriting import look

        if self.model:
            look(self)

    def files(self) -> tuple[str, ...]:
        names = (self.document_prompt, self.prompt) if self.model else ()
        return tuple(file for name in names if name for file in _prompt(name).files())

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        if not self.model:
            return [Step("nothing", _nothing)]
        return [
            Step("judge", partial(_judge, self), reads=("text",)),
            Step("edit", partial(_edit, self), reads=("text",), rows=partial(_staying, self)),
        ]

    def open(self, task: Task) -> BatchFn:
        return partial(self._asked, task.state(self), task) if self.model else self._ruled

    def _ruled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = [
            programs.heuristic(text, self.dialect) if text and text.strip() else None for text in batch["text"].to_pylist()
        ]
        columns = {
            DOCUMENT: [None if program is None else "keep_doc()" for program in found],
            PROGRAMS: [[] if program is None else [program] for program in found],
            ERROR: [None] * len(found),
            GENERATOR: [HEURISTIC] * len(found),
        }
        return with_columns(batch, {f.name: pa.array(columns[f.name], f.type) for f in _COLUMNS})

    def _asked(self, table: pa.Table, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        at = pa.array(np.searchsorted(table[ROW].to_numpy(), batch[ROW].to_numpy()), pa.int64())
        columns = {name: table[name].combine_chunks().take(at) for name in (DOCUMENT, PROGRAMS, ERROR)}
        for kind in columns[ERROR].drop_null().to_pylist():
            task.count(f"documents without all of their programs: {kind}")
        return with_columns(batch, {**columns, GENERATOR: pa.array([self.model] * batch.num_rows, pa.string())})


def _nothing(task: Task) -> None:
    """Rules need no fit."""


def _prompt(name: str) -> Prompt:
    from curate.llm import load_prompt

    return load_prompt(name)


def _parts(stage: RefinePrograms, task: Task) -> tuple[Path, Path]:
    """Where the answers about the documents of the shard at hand stand, and where all programs do."""
    folder, name = task.folder(stage), task.shards[task.shard or 0]
    return folder / "judged" / name, folder / "rows" / name


def _answered(
    stage: RefinePrograms, task: Task, requests: Iterator[Request], take: Callable[[Any, str | None, str | None], None]
) -> None:
    """Ask, and hand on (tag, program or None, kind of error or None)."""
    from curate.llm import _THOUGHT
    from curate.rewriting import ask

    for answer in ask(stage, task, "refine", requests):
        program = _THOUGHT.sub("", answer.text).strip() if answer.ok else None
        take(answer.tag, program, None if answer.ok else answer.error)


def _judge(stage: RefinePrograms, task: Task, batches: Batches) -> None:
    """Ask about the documents of one shard."""
    from curate.llm import Request

    rows: list[int] = []
    asked: list[bool] = []
    found: dict[int, tuple[str | None, str | None]] = {}
    render = _prompt(stage.document_prompt).renderer("refine") if stage.document_prompt else None

    def requests() -> Iterator[Request]:
        for batch in batches:
            for row, text in zip(batch[ROW].to_pylist(), batch["text"].to_pylist(), strict=True):
                rows.append(row)
                asked.append(bool(text and text.strip()))
                if asked[-1] and render is not None:
                    yield Request(render(text=_head(text, stage.head)), tag=row)

    def take(row: int, program: str | None, error: str | None) -> None:
        found[row] = program, error

    _answered(stage, task, requests(), take)
    answers = [found.get(row, (None, None)) for row in rows]
    columns = [rows, [program for program, _ in answers], [error for _, error in answers], asked]
    table = pa.table([pa.array(values, f.type) for values, f in zip(columns, _JUDGED, strict=True)], _JUDGED)
    write_table(_parts(stage, task)[0], table, codec="lz4")


def _head(text: str, most: int) -> str:
    """The first so many tokens of a text, by bytes/4."""
    return text[: 4 * most].encode()[: 4 * most].decode(errors="ignore")


def _staying(stage: RefinePrograms, task: Task) -> np.ndarray:
    """Rows of the shard at hand whose chunks are asked about (uint32, ascending)."""
    table = read_table(_parts(stage, task)[0])
    stays = [
        bool(stage.prompt) and asked and error is None and not programs.drops(document)
        for document, error, asked in zip(*(table[name].to_pylist() for name in _JUDGED.names[1:]), strict=True)
    ]
    return table[ROW].to_numpy()[np.array(stays, bool)]


def _edit(stage: RefinePrograms, task: Task, batches: Batches) -> None:
    """Ask about the chunks of what stays in one shard, and write all programs of the shard."""
    from curate.llm import Request

    found: dict[int, list[str | None]] = {}
    errors: dict[int, dict[int, str]] = {}
    render = _prompt(stage.prompt).renderer("refine") if stage.prompt else None

    def requests() -> Iterator[Request]:
        if render is None:
            return
        for batch in batches:
            for row, text in zip(batch[ROW].to_pylist(), batch["text"].to_pylist(), strict=True):
                lines = text.split("\n")
                chunks = programs.chunks_of_lines(text, stage.window)
                found[row] = [None] * len(chunks)
                for k, chunk in enumerate(chunks):
                    shown = "\n".join(lines[chunk.first : chunk.end])
                    if chunk.fits and shown.strip():
                        numbered = programs.numbered(shown, chunk.first)
                        yield Request(render(text=numbered, dialect=stage.dialect), tag=(row, k))

    def take(tag: tuple[int, int], program: str | None, error: str | None) -> None:
        row, k = tag
        found[row][k] = program
        if error is not None:
            errors.setdefault(row, {})[k] = error

    _answered(stage, task, requests(), take)
    judged, path = _parts(stage, task)
    table = read_table(judged)
    rows = table[ROW].to_pylist()
    failed = [
        errors[row][min(errors[row])] if row in errors else before
        for row, before in zip(rows, table[ERROR].to_pylist(), strict=True)
    ]
    columns = {
        ROW: table[ROW],
        DOCUMENT: table[DOCUMENT],
        PROGRAMS: pa.array([found.get(row, []) for row in rows], _COLUMNS.field(PROGRAMS).type),
        ERROR: pa.array(failed, pa.string()),
    }
    write_table(path, pa.table(columns), codec="lz4")
