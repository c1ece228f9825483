"""Documents rewritten by an instruction model, or by a function."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from curate.errors import MissingExtra, RecipeError, did_you_mean
from curate.rewriting import (
    ANSWERS,
    CHECKS,
    LEFT_OUT,
    NOT_SELECTED,
    PROVENANCE,
    REWRITTEN,
    SOURCE,
    UNITS,
    Checks,
    Function,
    Judge,
    Stored,
    Waiting,
    ask,
    call,
    check_asking,
    chosen_pairs,
    chunks,
    complete,
    composed,
    counted,
    estimated,
    kinds,
    look,
    origin,
    original,
    qa_pairs,
    storing,
)
from curate.stage import (
    PARENT,
    REASON,
    ROW,
    Batches,
    BatchFn,
    Expand,
    GlobalStage,
    Stage,
    Step,
    Task,
    operational,
    with_columns,
)
from curate.storage import sha256_file

if TYPE_CHECKING:
    from curate.llm import Prompt, Request

COLUMN, OUTCOMES = "rewrite_answers", "rewrite_outcomes"
NAME = "rewrite"
AT_ONCE = 256  # documents whose answers are written together
PARAMETERS: Mapping[str, Any] = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 2048}
OPTIONAL = ("title", "url", "language")  # variables of a prompt that are empty where the corpus has no such column
_OUTCOMES = pa.list_(pa.struct([("prompt", pa.string()), ("sample", pa.int32()), ("status", pa.string())]))
_HOW = (
    "system", "where", "unit", "chunk_tokens", "oversized", "min_chunk_tokens", "min_document_tokens", "max_document_tokens",
    "parameters",
)  # fmt: skip
_HANDED = (
    "server", "serve", "model", "prompt", "function", "variables", "samples", *_HOW, "tokenizer", "seed", "batch_size",
    "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "budget_usd", "budget_tokens",
    "usd_per_million_input", "usd_per_million_output", "retries", "repairs", "timeout", "cache",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rewrite(Stage):
    """Rewrites documents with an instruction model behind an OpenAI-compatible endpoint, or with a function.

    model: its name at the server. server: base URL, which ends in /v1 mostly; "" for the environment variable
    CURATE_LLM_SERVER. serve: instead, a command that the run starts on the node that asks, and stops when it is over, such as
    `vllm serve {model} --port {port}`. prompt: name of one that comes with Curate, or the path of a Jinja template, or several.
    It has the variables `text`, `title`, `url` and `language` (empty where the documents have none), and each column named in
    `variables`. A JSON schema beside it under the same name (x.jinja, x.json) asks for an object, whose property `text` is the
    output. system: a system message. function: `module:name` in place of model and prompt: a function, asynchronous or not, of
    a list of texts that gives back as many, or a class with `rewrite(texts)`, made once for each task. batch_size: how many
    texts it gets at most.
    where: a condition as in the stage `where`; documents for which it is not true stay as they are. samples: outputs of each
    prompt for a document; those after the first are asked for with a `seed` of their own. keep_source: the source stays beside
    what is made of it. by_prompt: other values for one of several prompts, as in `{wrap_qa: {chunk_tokens: 300, qa: append}}`:
    of system, where, parameters, and of all below from unit to quality_model.

    unit, chunk_tokens: documents are rewritten in chunks of at most so many tokens that end where a `sentence`, a `line` or a
    `paragraph` does, and joined again; 0 rewrites them whole. oversized: a unit longer than that is `split` where the next
    finer one ends, or left out (`drop`). min_chunk_tokens: shorter chunks are left out. min_document_tokens,
    max_document_tokens: other documents are not asked about. tokenizer: for these, bytes/4 or the path of a tokenizer.json.

    on_reject: documents whose output cannot be used stay (`keep_original`) or go (`drop`). partial: where that is so of some
    chunks, `reject` the document, put the `original` in their place, or `drop` them.
    What is done to each answer, in this order: markers: what stands between two agreed markers counts, or after one (for
    models that think aloud first). nothing: an agreed answer, such as NO USEFUL CONTENT: the chunk is left out, and a document
    of which nothing else remains is dropped whatever on_reject says. refusals: whether answers that begin as a refusal are
    rejected. prefix: an agreed beginning, which is required and stripped. preamble: whether announcements ("Here is the
    rewritten text:") are stripped. strip_markdown, strip_quotes: marks of Markdown, and quotation marks around all of it.
    max_output_tokens: longer answers are rejected; keep_truncated: those that were cut off are not. separator: stands between
    chunks; null for what stands there in the source. qa: pairs `Question:` and `Answer:` of the output, shuffled, a random
    number of them (1 to a fifteenth of the tokens of the source, by hash of seed and id), `alone` or to `append` to the source.
    What is asked of the whole, in this order, null or 0 for no check: min_output_tokens; length: least and largest ratio of
    tokens, output to source; unfaithful: largest share of numbers and LaTeX commands that the source does not have; copied:
    largest share of runs of `ngram` words that stand in the source; same_language: source and output are in different
    languages, both told with this score at least; similarity: least cosine of the embeddings of similarity_model (`minilm`, or
    a folder or file as in `embed`); quality_gain: by how much the score of quality_model, a fastText classifier as in
    `fasttext`, must rise at least.

    parameters: sent with each request, over temperature 0.7, top_p 0.9 and max_tokens 2048 (null sends none); for a function,
    its keyword arguments, or those of the class. seed: of samples and pairs. retries, repairs, timeout (seconds), concurrency,
    requests_per_minute, tokens_per_minute, budget_usd, budget_tokens, usd_per_million_input, usd_per_million_output,
    api_key_env (the variable that holds the key): see `annotate_llm` and `curate.llm.Client`. cache: folder of answers, by
    default the user's, `none` for none; a run that was killed repeats no answered request, and the answers of a function are
    kept by its name, its attribute `version` (else the digest of its file) and the text.
    inherits: whether columns of provenance are there already, of another `rewrite`; set as the plan is made.

    Answers come first, as a stage of their own, `rewrite.answers`, in the column `rewrite_answers` (list of struct: prompt,
    sample, start and end of the chunk, answer, error), which the output has only where it is named. All checks read these: to
    change one asks for nothing again. With several prompts, samples or keep_source each output is a document of its own,
    `<id>#rewrite.<k>`, with the columns of its source; `rewrite.outcomes` then says in `rewrite_outcomes` (list of struct:
    prompt, sample, status) what became of each. An output that was rejected is left out, and with keep_original a source
    without any stands for itself.

    Columns written: `text`; `synthetic` (bool), `source_id`, `prompt`, `prompt_sha256`, `generator` (model or function),
    `generation` (JSON of the parameters, and of the version of a function), null for a document as it was; and
    `rewrite_status`: `rewritten`, `not_selected`, `source` (by keep_source), or the kind of the reason for which the original
    stands.
    Reasons: `rewrite.` and a kind. Not asked: `no_text`, `too_short`, `too_long`. Endpoint: `timeout`, `connection`,
    `rate_limited`, `server_error`, `garbage`, `rejected`. Answer: `empty`, `truncated`, `malformed`, `schema`, `refused`,
    `function_error` (the function raised on that text), `no_marker`, `nothing`, `no_prefix`, `above_max`. Output: `no_pairs`,
    `below_min`, `length`, `unfaithful`, `copied`, `language`, `unlike`, `no_better`, with `_value` what was measured.
    Notes count them all, and tokens of real and of synthetic text (bytes/4).

    Source: own; chunks, styles and the mixture with real text are after WRAP (Maini et al. 2024,
    https://arxiv.org/abs/2401.16380), prefixes, segments and pairs after Nemotron-CC (Su et al. 2024,
    https://arxiv.org/abs/2412.02595).

    >>> stage = Rewrite(function="curate.rewriting:squeezed", cache="none")
    >>> made = stage(["One  line   of text."]).kept
    >>> made["text"].to_pylist(), made["rewrite_status"].to_pylist(), made["generator"].to_pylist()
    (['One line of text.'], ['rewritten'], ['curate.rewriting:squeezed'])
    """

    example: ClassVar[dict[str, Any]] = {"function": "curate.rewriting:squeezed", "cache": "none"}

    model: str = ""
    prompt: str | tuple[str, ...] = ()
    function: str = ""
    server: str = operational("")
    serve: str = operational("")
    variables: tuple[str, ...] = ()
    system: str = ""
    batch_size: int = operational(32)
    where: str = ""
    samples: int = 1
    keep_source: bool = False
    by_prompt: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unit: Literal["sentence", "line", "paragraph"] = "sentence"
    chunk_tokens: int = 0
    oversized: Literal["split", "drop"] = "split"
    min_chunk_tokens: int = 0
    min_document_tokens: int = 0
    max_document_tokens: int = 0
    tokenizer: str = "bytes/4"
    on_reject: Literal["keep_original", "drop"] = "keep_original"
    partial: Literal["reject", "original", "drop"] = "reject"
    markers: tuple[str, ...] = ()
    nothing: str = ""
    refusals: bool = True
    prefix: str = ""
    preamble: bool = True
    strip_markdown: bool = False
    strip_quotes: bool = False
    max_output_tokens: int = 0
    keep_truncated: bool = False
    separator: str | None = None
    qa: Literal["", "alone", "append"] = ""
    min_output_tokens: int = 0
    length: tuple[float, ...] = (0.3, 3.0)
    unfaithful: float | None = None
    copied: float | None = None
    ngram: int = 8
    same_language: float = 0.5
    similarity: float | None = None
    similarity_model: str = "minilm"
    quality_gain: float | None = None
    quality_model: str = "quality-en"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 42
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
    inherits: bool = False

    def __post_init__(self) -> None:
        if self.function and (self.model or self.prompt):
            raise RecipeError("rewrite: give `model` and `prompt`, or `function`, not both")
        if self.function and self.samples > 1:
            raise RecipeError("rewrite: samples is for models; a function gives one text for each")
        if self.samples < 1 or self.batch_size < 1:
            raise RecipeError("rewrite: samples and batch_size are at least 1")
        if self.on_reject not in ("keep_original", "drop"):
            raise RecipeError(f"rewrite: on_reject is {self.on_reject!r}; it is 'keep_original' or 'drop'")
        check_asking(self, NAME, function=bool(self.function))
        given = self._given()
        if len(set(given)) < len(given):
            raise RecipeError("rewrite: a prompt is named twice; use `samples` for several outputs of one")
        allowed = {*_HOW, *CHECKS}
        for name, options in self.by_prompt.items():
            if name not in given:
                raise RecipeError(
                    f"rewrite: by_prompt names {name!r}, which is not among the prompts{did_you_mean(name, given)}"
                )
            for key in options:
                if key not in allowed:
                    raise RecipeError(f"rewrite: by_prompt.{name}: no parameter {key!r}{did_you_mean(key, allowed)}")
        for name in given or ("",):
            where = f"rewrite: by_prompt.{name}" if name in self.by_prompt else NAME
            self._checks(name).check(where)
            _check_how(self._how(name), where, function=bool(self.function))

    # ------------------------------------------------------------------ what belongs to a prompt

    def _given(self) -> tuple[str, ...]:
        """The prompts as they were named."""
        return (self.prompt,) if isinstance(self.prompt, str) and self.prompt else tuple(self.prompt)

    def _option(self, prompt: str, name: str) -> Any:
        value = self.by_prompt.get(prompt, {}).get(name, getattr(self, name))
        return tuple(value) if isinstance(value, list) else value

    def _checks(self, prompt: str) -> Checks:
        return Checks(**{name: self._option(prompt, name) for name in CHECKS})

    def _how(self, prompt: str) -> dict[str, Any]:
        return {name: self._option(prompt, name) for name in _HOW}

    @property
    def _several(self) -> bool:
        return len(self._given()) > 1 or self.samples > 1 or self.keep_source

    # ------------------------------------------------------------------ what goes in and out

    def needs(self) -> Mapping[str, Stage]:
        handed = {name: getattr(self, name) for name in _HANDED}
        by_prompt = {name: {k: v for k, v in given.items() if k in _HOW} for name, given in self.by_prompt.items()}
        answers = _Answers(**handed, by_prompt={name: given for name, given in by_prompt.items() if given})
        return {"answers": answers, "outcomes": _Outcomes(**_fields(self))} if self._several else {"answers": answers}

    def bound(self, columns: Collection[str]) -> Stage:
        inherits = set(PROVENANCE.names) <= set(columns)
        if self._several:
            return _Several(**{**_fields(self), "inherits": inherits})
        return self if inherits == self.inherits else replace(self, inherits=inherits)

    def reads(self) -> tuple[str, ...]:
        return ("id", "text", COLUMN, *(PROVENANCE.names if self.inherits else ()))

    def writes(self) -> pa.Schema:
        return pa.schema([("text", pa.string()), *PROVENANCE])

    def reasons(self) -> tuple[str, ...]:
        return tuple(f"{NAME}.{kind}" for kind in kinds())

    def files(self) -> tuple[str, ...]:
        given = self._given()
        found = [path for name in given for path in _prompt(name).files()]
        found += [path for name in given or ("",) for path in Judge.files(self._checks(name))]
        return tuple(dict.fromkeys(found))

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, _Verdicts(self, task), task)

    def _process(self, verdicts: _Verdicts, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch["text"].to_pylist()
        ids = batch["id"].to_pylist()
        earlier = _earlier(self, batch)
        rows, reasons, values = [], [], []
        for i, outputs in enumerate(verdicts.of(batch)):
            kind, value = (outputs[0].kind, outputs[0].value) if outputs else (NOT_SELECTED, None)
            made = bool(outputs) and kind is None
            if made:
                rows.append({"text": outputs[0].text, **verdicts.origin(outputs[0], ids[i])})
            else:
                rows.append({"text": texts[i], **original(kind or NOT_SELECTED, earlier[i])})
            gone = bool(outputs) and not made and (self.on_reject == "drop" or kind == "nothing")
            reasons.append(f"{NAME}.{kind}" if gone else None)
            values.append(value if gone else None)
            _note(task, texts[i], outputs, stays=not made and not gone, synthetic=bool((earlier[i] or {}).get("synthetic")))
        columns = {f.name: pa.array([row[f.name] for row in rows], f.type) for f in self.writes()}
        more = {REASON: pa.array(reasons, pa.string()), "_value": pa.array(values, pa.float64())}
        return with_columns(batch, {**columns, **more})


def _fields(stage: Rewrite) -> dict[str, Any]:
    return {f.name: getattr(stage, f.name) for f in fields(stage)}


def _check_how(how: Mapping[str, Any], where: str, *, function: bool) -> None:
    from curate.llm import check_parameters

    if how["unit"] not in UNITS or how["oversized"] not in ("split", "drop"):
        raise RecipeError(f"{where}: unit is {', '.join(UNITS[:-1])} or {UNITS[-1]}, and oversized is split or drop")
    if how["chunk_tokens"] < 0 or 0 < how["chunk_tokens"] < 32:
        raise RecipeError(f"{where}: chunk_tokens is {how['chunk_tokens']}; give 32 or more, or 0 for whole documents")
    for name in ("min_chunk_tokens", "min_document_tokens", "max_document_tokens"):
        if how[name] < 0:
            raise RecipeError(f"{where}: {name} is {how[name]}; it is not negative")
    if not function:
        check_parameters(how["parameters"])


def _prompt(name: str) -> Prompt:
    from curate.llm import load_prompt

    return load_prompt(name)


def _earlier(stage: Rewrite, batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """What the columns of provenance hold, where they are there."""
    if not stage.inherits:
        return [None] * batch.num_rows
    return list(batch.select(PROVENANCE.names).to_pylist())


# --------------------------------------------------------------------------------------------- deciding


@dataclass
class _Output:
    """What came of one prompt and sample for a document; kind: None where it may stand. generated: the model's part of it.
    unused: why answers to chunks of it are not in the text.
    """

    prompt: str
    sample: int
    answers: list[dict[str, Any]]
    text: str = ""
    generated: str = ""
    kind: str | None = None
    value: float | None = None
    unused: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        return self.kind or REWRITTEN


class _Verdicts:
    """Outputs out of answers, with all checks: the same for one output for a document and for several."""

    def __init__(self, stage: Rewrite, task: Task | None):
        self._stage = stage
        given = stage._given()
        prompts = {_prompt(name).name: name for name in given} or {"": ""}
        self._checks = {name: stage._checks(key) for name, key in prompts.items()}
        self._judges = {} if task is None else {name: Judge(checks, task, NAME) for name, checks in self._checks.items()}
        self._sha = {name: sha256_file(_prompt(key).path) for name, key in prompts.items() if key}
        self._parameters = {name: _effective(stage._how(key)["parameters"], stage.function) for name, key in prompts.items()}
        if stage.function and (told := Function.find(stage.function, NAME)).told:
            self._parameters[""] = {"version": told.told, **self._parameters[""]}

    def of(self, batch: pa.RecordBatch) -> list[list[_Output]]:
        """The outputs of each document, rejected ones too; none for a document that was not selected."""
        texts = [text or "" for text in batch["text"].to_pylist()]
        found = [
            [self.composed(*made) for made in _grouped(text, name, answers)]
            for text, name, answers in zip(texts, batch["id"].to_pylist(), batch[COLUMN].to_pylist(), strict=True)
        ]
        for name, judge in self._judges.items():
            left = [(i, o) for i, outputs in enumerate(found) for o in outputs if o.prompt == name and o.kind is None]
            for (_, output), (kind, value) in zip(
                left, judge([texts[i] for i, _ in left], [o.generated for _, o in left]) if left else [], strict=True
            ):
                output.kind, output.value = kind, value
        return found

    def composed(self, source: str, name: str, output: _Output) -> _Output:
        """An output with its text, as far as it can be told without a model."""
        checks = self._checks[output.prompt]
        text, output.kind, output.unused = composed(source, output.answers, checks)
        if output.kind is None and checks.qa:
            pairs = qa_pairs(text)
            chosen = chosen_pairs(pairs, source, self._stage.seed, f"{name}\0{output.prompt}\0{output.sample}") if pairs else []
            text, output.kind = "\n\n".join(chosen), None if pairs else "no_pairs"
        output.generated = text
        output.text = f"{source.rstrip()}\n\n{text}" if checks.qa == "append" else text
        if output.kind is None and estimated(output.text) < checks.min_output_tokens:
            output.kind, output.value = "below_min", estimated(output.text)
        return output

    def origin(self, output: _Output, source_id: str) -> dict[str, Any]:
        stage = self._stage
        parameters = self._parameters[output.prompt]
        if output.sample:
            parameters = _seeded(parameters, stage.seed, output.sample)
        return origin(source_id, output.prompt or None, self._sha.get(output.prompt), stage.function or stage.model, parameters)


def _grouped(text: str, name: str, answers: Sequence[dict[str, Any]] | None) -> Iterator[tuple[str, str, _Output]]:
    for (prompt, sample), units in itertools.groupby(answers or (), lambda a: (a["prompt"] or "", a["sample"])):
        yield text, name, _Output(prompt, sample, list(units))


def _note(task: Task, text: str | None, outputs: Sequence[_Output], *, stays: bool, synthetic: bool) -> None:
    """Count what became of a document. synthetic: its text was made before; stays: it is there afterwards."""
    if not outputs:
        task.count("documents not selected")
    made = [output for output in outputs if output.kind is None]
    if made:
        task.count("documents rewritten")
    for output in outputs:
        if output.kind is not None:
            task.count(f"outputs rejected: {output.kind}")
        else:
            for kind, n in Counter(output.unused).items():
                task.count(f"chunks without their answer, in outputs that stand: {kind}", n)
    generated = sum(len(output.generated.encode()) for output in made)
    whole = sum(len(output.text.encode()) for output in made) - generated  # of the source, where pairs were appended
    kept = whole + (len((text or "").encode()) if stays else 0)
    real, new = (0, kept + generated) if synthetic else (kept, generated)
    for what, size in (("real", real), ("synthetic", new)):
        if size:
            task.count(f"tokens of {what} text (bytes/4)", (size + 3) // 4)


def _effective(given: Mapping[str, Any], function: str) -> dict[str, Any]:
    """The parameters of a request, or of a function."""
    if function:
        return dict(given)
    return {key: value for key, value in {**PARAMETERS, **given}.items() if value is not None}


def _seeded(parameters: Mapping[str, Any], seed: int, sample: int) -> dict[str, Any]:
    return {**parameters, "seed": int(parameters.get("seed", seed)) + sample}


# --------------------------------------------------------------------------------------------- several outputs


@dataclass(frozen=True, kw_only=True)
class _Outcomes(Rewrite):
    """Decides about each of several outputs, and drops the documents that are left without any. See `Rewrite`."""

    def needs(self) -> Mapping[str, Stage]:
        return {}

    def bound(self, columns: Collection[str]) -> Stage:
        inherits = set(PROVENANCE.names) <= set(columns)
        return self if inherits == self.inherits else replace(self, inherits=inherits)

    def writes(self) -> pa.Schema:
        return pa.schema([(OUTCOMES, _OUTCOMES)])

    def _process(self, verdicts: _Verdicts, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts, earlier = batch["text"].to_pylist(), _earlier(self, batch)
        reasons: list[str | None] = []
        values: list[float | None] = []
        found: list[list[dict[str, Any]] | None] = []
        for i, outputs in enumerate(verdicts.of(batch)):
            told = [{"prompt": o.prompt or None, "sample": o.sample, "status": o.status} for o in outputs]
            found.append(told if outputs else None)
            lost = bool(outputs) and not self.keep_source and all(output.kind for output in outputs)
            gone = lost and (self.on_reject == "drop" or all(output.kind == "nothing" for output in outputs))
            reasons.append(f"{NAME}.{outputs[0].kind}" if gone else None)
            values.append(outputs[0].value if gone else None)
            stays = not outputs or self.keep_source or (lost and not gone)
            _note(task, texts[i], outputs, stays=stays, synthetic=bool((earlier[i] or {}).get("synthetic")))
        more = {REASON: pa.array(reasons, pa.string()), "_value": pa.array(values, pa.float64())}
        return with_columns(batch, {OUTCOMES: pa.array(found, _OUTCOMES), **more})


@dataclass(frozen=True, kw_only=True)
class _Several(Rewrite, Expand):
    """Makes a document of each output that may stand. See `Rewrite`."""

    def needs(self) -> Mapping[str, Stage]:
        return {}

    def bound(self, columns: Collection[str]) -> Stage:
        return self

    def reads(self) -> tuple[str, ...]:
        return (*super().reads(), OUTCOMES)

    def writes(self) -> pa.Schema:
        return pa.schema([*super().writes(), (COLUMN, ANSWERS)])

    def reasons(self) -> tuple[str, ...]:
        return ("no_output",)

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        verdicts = _Verdicts(self, None)  # what came of them was decided before: this takes no model
        earlier = _earlier(self, batch)
        rows: list[dict[str, Any]] = []
        for i, row in enumerate(batch.select([ROW, "id", "text", COLUMN, OUTCOMES]).to_pylist()):
            told = {(o["prompt"] or "", o["sample"]): o["status"] for o in row[OUTCOMES] or ()}
            source = row["text"] or ""
            children = []
            for text, name, output in _grouped(source, row["id"], row[COLUMN]):
                if told.get((output.prompt, output.sample)) == REWRITTEN:
                    made = verdicts.composed(text, name, output)
                    children.append({"text": made.text, COLUMN: made.answers, **verdicts.origin(made, row["id"])})
            if self.keep_source or not children:
                status = SOURCE if self.keep_source and told else next(iter(told.values()), NOT_SELECTED)
                answers = None if children else row[COLUMN]
                children.insert(0, {"text": row["text"], COLUMN: answers, **original(status, earlier[i])})
            rows += [{PARENT: row[ROW], **child} for child in children]
        schema = pa.schema([(PARENT, pa.uint32()), *self.writes()])
        return pa.RecordBatch.from_pylist(rows, schema)


# --------------------------------------------------------------------------------------------- asking


@dataclass(frozen=True, kw_only=True)
class _Answers(GlobalStage):
    """Asks for what `Rewrite` needs and writes down what was answered; its parameters are those of `Rewrite`."""

    decides_rows: ClassVar[bool] = True

    server: str = operational("")
    serve: str = operational("")
    model: str = ""
    prompt: str | tuple[str, ...] = ()
    function: str = ""
    variables: tuple[str, ...] = ()
    samples: int = 1
    system: str = ""
    where: str = ""
    unit: str = "sentence"
    chunk_tokens: int = 0
    oversized: str = "split"
    min_chunk_tokens: int = 0
    min_document_tokens: int = 0
    max_document_tokens: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    by_prompt: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tokenizer: str = "bytes/4"
    seed: int = 42
    batch_size: int = operational(32)
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
    present: tuple[str, ...] = ()
    code: str = ""

    def bound(self, columns: Collection[str]) -> Stage:
        if not self.function and not (self.model and self.prompt):
            raise RecipeError("rewrite: give `model` and `prompt`, and where the server is, or `function`")
        if self.function:
            found = Function.find(self.function, NAME)
            found.check(self.parameters, NAME)
            return self if found.version == self.code else replace(self, code=found.version)
        used: set[str] = set()
        names = [_prompt(given).name for given in self._given()]
        if len(set(names)) < len(names):
            raise RecipeError(f"rewrite: two prompts have one name ({', '.join(names)}): rename the file of one")
        for given in self._given():
            prompt = _prompt(given)
            wanted = _variables(prompt)
            known = {"text", *OPTIONAL, *self.variables}
            if unknown := sorted(wanted - known):
                raise RecipeError(
                    f"rewrite: {prompt.path} wants the variable {unknown[0]!r}: name its column in `variables`"
                    f"{did_you_mean(unknown[0], known)}"
                )
            if "text" not in wanted:
                raise RecipeError(f"rewrite: {prompt.path} does not use the variable `text`, so all prompts would be the same")
            if prompt.schema is not None and prompt.schema.get("properties", {}).get("text", {}).get("type") != "string":
                raise RecipeError(f"rewrite: the schema beside {prompt.path} has no string `text`, which is the output")
            used |= wanted
        present = tuple(name for name in OPTIONAL if name in used and name in columns)
        return self if present == self.present else replace(self, present=present)

    def _given(self) -> tuple[str, ...]:
        return (self.prompt,) if isinstance(self.prompt, str) and self.prompt else tuple(self.prompt)

    def _forms(self) -> list[_Form]:
        """One for each prompt, or one for the function."""
        found = []
        for given in self._given() or ("",):
            options = self.by_prompt.get(given, {})
            how = {name: options.get(name, getattr(self, name)) for name in _HOW}
            parameters = _effective(how.pop("parameters"), self.function)
            found.append(_Form(prompt=_prompt(given) if given else None, parameters=parameters, **how))
        return found

    def reads(self) -> tuple[str, ...]:
        return ("id",)

    def fit_reads(self) -> tuple[str, ...]:
        conditions = [self.by_prompt.get(given, {}).get("where", self.where) for given in self._given() or ("",)]
        wheres = [name for sql in conditions if sql for name in _condition(sql).reads()]
        return tuple(dict.fromkeys(("text", *self.present, *self.variables, *wheres)))

    def writes(self) -> pa.Schema:
        return pa.schema([(COLUMN, ANSWERS)])

    def ready(self) -> None:
        if not self.function:
            look(self)

    def files(self) -> tuple[str, ...]:
        found = [path for given in self._given() for path in _prompt(given).files()]
        if Path(self.tokenizer).is_file():
            found.append(self.tokenizer)
        return tuple(dict.fromkeys(found))

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [Step("ask", partial(_ask, self), reads=self.fit_reads())]

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, Stored(_path(self, task)))

    def _process(self, answers: Stored, batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_columns(batch, answers.take(batch[ROW].to_numpy(), [COLUMN]))


def _path(stage: _Answers, task: Task) -> Path:
    """Where the answers of the shard at hand stand."""
    return task.folder(stage) / "rows" / task.shards[task.shard or 0]


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How one prompt asks."""

    prompt: Prompt | None
    parameters: Mapping[str, Any]
    system: str
    where: str
    unit: str
    chunk_tokens: int
    oversized: str
    min_chunk_tokens: int
    min_document_tokens: int
    max_document_tokens: int


def _condition(sql: str) -> Any:
    from curate.stages.where import Where

    return Where(sql=sql)


def _variables(prompt: Prompt) -> set[str]:
    """The variables that a template uses."""
    prompt.renderer(f"stage {NAME!r}")  # says what is wrong with it
    try:
        from jinja2 import Environment, meta
    except ImportError as error:
        raise MissingExtra("jinja2", "llm", f"stage {NAME!r}") from error
    return set(meta.find_undeclared_variables(Environment().parse(prompt.path.read_text(encoding="utf-8"))))


def _ask(stage: _Answers, task: Task, batches: Batches) -> None:
    """Ask about the selected documents of one shard and write down what was answered, in the order of the rows."""
    forms = stage._forms()
    waiting: deque[Waiting] = deque()
    with storing(stage.writes(), _path(stage, task), AT_ONCE) as add:
        for document, unit, answer, error in _answered(stage, task, forms, _units(stage, forms, batches, waiting)):
            unit["answer"], unit["error"] = answer, error
            document.left -= 1
            for done in complete(waiting):
                add(done.row, done.answers)
        for done in waiting:
            add(done.row, done.answers)


def _answered(
    stage: _Answers, task: Task, forms: Sequence[_Form], units: Iterator[_Unit]
) -> Iterator[tuple[Waiting, dict[str, Any], str | None, str | None]]:
    """(document, unit, answer, error) of all units, as they come."""
    if stage.function:
        function = Function.find(stage.function, NAME)
        texts = ((unit, unit.text) for unit in units)
        for unit, made, error in call(stage, task, NAME, function, texts, forms[0].parameters):
            yield unit.document, unit.unit, made, error
        return
    for answer in ask(stage, task, NAME, _requests(stage, forms, units)):
        text = answer.text if answer.value is None else answer.value.get("text")
        error = answer.error if not answer.ok else None if text else "empty"
        yield *answer.tag, text or None, error


class _Unit(NamedTuple):
    """A chunk that is to be asked about. columns: the other variables of its prompt."""

    document: Waiting
    unit: dict[str, Any]
    text: str
    form: _Form
    columns: dict[str, Any]


def _requests(stage: _Answers, forms: Sequence[_Form], units: Iterator[_Unit]) -> Iterator[Request]:
    from curate.llm import Request

    renderers = {form.prompt.name: form.prompt.renderer(f"stage {NAME!r}") for form in forms if form.prompt}
    for document, unit, text, form, columns in units:
        assert form.prompt is not None
        prompt = renderers[form.prompt.name](text=text, **columns)
        parameters = _seeded(form.parameters, stage.seed, unit["sample"]) if unit["sample"] else form.parameters
        yield Request(prompt, form.system, form.prompt.schema, (document, unit), parameters)


def _units(stage: _Answers, forms: Sequence[_Form], batches: Batches, waiting: deque[Waiting]) -> Iterator[_Unit]:
    """All that is to be asked; `waiting` is given each document that is selected."""
    size = counted(stage.tokenizer)
    names = [name for name in (*OPTIONAL, *stage.variables) if name != "text"]
    for batch in batches:
        chosen = [np.asarray(_condition(form.where).reject(batch).is_null()) if form.where else None for form in forms]
        columns = {name: batch[name].to_pylist() if name in batch.schema.names else None for name in names}
        texts = batch["text"].to_pylist()
        for i, row in enumerate(batch[ROW].to_pylist()):
            text = texts[i] or ""
            given = {name: "" if values is None or values[i] is None else values[i] for name, values in columns.items()}
            answers: list[dict[str, Any]] = []
            document = Waiting(row, answers, 0)
            asked: list[_Unit] = []
            for form, mask in zip(forms, chosen, strict=True):
                if mask is not None and not mask[i]:
                    continue
                spans = _spans(form, text, size)
                for sample in range(stage.samples):
                    for start, end, error in spans:
                        unit = {
                            "prompt": form.prompt.name if form.prompt else None, "sample": sample,
                            "start": start, "end": end, "answer": None, "error": error,
                        }  # fmt: skip
                        answers.append(unit)
                        if error is None:
                            asked.append(_Unit(document, unit, text[start:end], form, given))
            if answers:
                document.left = len(asked)
                waiting.append(document)
                yield from asked


def _spans(form: _Form, text: str, size: Any) -> list[tuple[int, int, str | None]]:
    """(start, end, None or why it is not asked about) of the chunks of a document."""
    if not text.strip():
        return [(0, 0, "no_text")]
    if form.min_document_tokens or form.max_document_tokens:
        tokens = size(text)
        if tokens < form.min_document_tokens:
            return [(0, len(text), "too_short")]
        if form.max_document_tokens and tokens > form.max_document_tokens:
            return [(0, len(text), "too_long")]
    cut = form.oversized == "split"
    found: list[tuple[int, int, str | None]] = []
    for a, b in chunks(text, form.chunk_tokens, form.unit, size, cut=cut):
        tokens = size(text[a:b]) if form.min_chunk_tokens or not cut else 0
        out = tokens < form.min_chunk_tokens or (not cut and bool(form.chunk_tokens) and tokens > form.chunk_tokens)
        found.append((a, b, LEFT_OUT if out else None))
    return found
