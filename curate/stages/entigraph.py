"""Documents written about how the entities of a document relate."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from curate.errors import RecipeError
from curate.rewriting import (
    NOT_SELECTED,
    PROVENANCE,
    REWRITTEN,
    SOURCE,
    Checks,
    Judge,
    Stored,
    Waiting,
    ask,
    check_asking,
    complete,
    composed,
    estimated,
    kinds,
    look,
    origin,
    original,
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

NAME = "entigraph"
PAIR, TRIPLE = "pair", "triple"
TOO_FEW = "too_few"
LONGEST_NAME = 120  # characters
AT_ONCE = 4  # documents: all answers of so many are in memory together, several times
GROUPS = 16  # times as many, while their triples are asked about
ATTEMPTS = 8  # triples of a document of which not one was answered, while the size of an answer is not known
ENTITIES, SUMMARY, ERROR, ANSWERS, OUTCOMES = (
    f"{NAME}_{name}" for name in ("entities", "summary", "error", "answers", "outcomes")
)
PARAMETERS: Mapping[str, Any] = {"temperature": 1.0, "max_tokens": 2048}
ENTITY_PARAMETERS: Mapping[str, Any] = {"temperature": 0, "max_tokens": 2048}
_FOUND = pa.schema([(ENTITIES, pa.list_(pa.string())), (SUMMARY, pa.string()), (ERROR, pa.string())])
_RELATION = pa.struct(
    [("kind", pa.string()), ("entities", pa.list_(pa.string())), ("answer", pa.string()), ("error", pa.string())]
)
_ANSWERED = pa.schema([(ANSWERS, pa.list_(_RELATION))])
_OUTCOME = pa.schema(
    [
        (OUTCOMES, pa.list_(pa.string())),
        ("entigraph_pairs", pa.int32()),
        ("entigraph_triples", pa.int32()),
        ("entigraph_ratio", pa.float64()),
    ]
)
_CHECKED = (
    "keep_truncated", "refusals", "preamble", "strip_markdown", "strip_quotes", "max_output_tokens", "min_output_tokens",
    "length", "unfaithful", "copied", "ngram", "same_language", "similarity", "similarity_model", "quality_gain",
    "quality_model",
)  # fmt: skip
_CLIENT = (
    "server", "serve", "model", "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "budget_usd",
    "budget_tokens",
    "usd_per_million_input", "usd_per_million_output", "retries", "repairs", "timeout", "cache",
)  # fmt: skip
_EXTRACTING = ("where", "min_document_tokens", "max_document_tokens", "max_entities")
_RELATING = ("pairs", "triples", "tokens", "pair_prompt", "triple_prompt", "parameters", "seed")


@dataclass(frozen=True, kw_only=True)
class EntiGraph(Expand):
    """Makes many documents out of each: about every pair of things that it is about, and about triples of them.

    A model names the entities of a document; then it is asked, for pairs and triples of these, to tell the document anew as far
    as it concerns them, and how they relate. What a document says once comes back in many settings, which is how a model
    learns a small corpus. Each answer becomes a document, `<id>#entigraph.<k>`, with the columns of its source.

    model: its name at the server. server: base URL, which ends in /v1 mostly; "" for the environment variable
    CURATE_LLM_SERVER. serve: instead, a command that the run starts, as in `rewrite`. where: a condition as in the stage
    `where`; documents for which it is not true stay as they are.
    min_document_tokens, max_document_tokens (bytes/4; 0: none): other documents are not asked about. The whole document stands
    in each request, so that it has to fit the model's window: cut longer ones before, with `split`.
    max_entities: of a document, the first that the model names. n entities have n(n-1)/2 pairs: 435 for 30. pairs: how many of
    them are asked about at most, chosen by hash of seed and id; null for all. triples: how many triples at most, in an order by
    hash; null for as many as `tokens` allows. tokens: a budget of a document (bytes/4): no more triples are asked about once
    its answers have so many tokens together, pairs included; 0 for none.
    prompt: template for entities, with a JSON schema beside it that asks for `entities` and `summary`; pair_prompt,
    triple_prompt: templates with the variables `entities` (a list), `text` and `title` ("" without such a column); all by name
    or path. entity_parameters: sent with requests for entities, over temperature 0 and max_tokens 2048; parameters: with the
    others, over temperature 1.0 and max_tokens 2048; null sends none. seed: of the choice of pairs and triples.

    keep_source: the document stays beside what is made of it. on_reject: a document without any usable answer stays
    (`keep_original`) or goes (`drop`). Answers are checked one by one, and those that are rejected are left out:
    keep_truncated, refusals, preamble, strip_markdown, strip_quotes, max_output_tokens, min_output_tokens, length, unfaithful,
    copied, ngram, same_language, similarity, similarity_model, quality_gain and quality_model are those of `rewrite`; there is
    no check of length by default, since an answer tells only a part.

    retries, repairs, timeout (seconds), concurrency, requests_per_minute, tokens_per_minute, budget_usd, budget_tokens,
    usd_per_million_input, usd_per_million_output, api_key_env (the variable that holds the key), cache: as in `annotate_llm`;
    see `curate.llm.Client`. Budgets hold for the requests for entities and for the others, each. A run that was killed repeats
    no answered request.
    inherits: whether columns of provenance are there already; set as the plan is made.

    It brings three stages along. `<id>.entities` writes `entigraph_entities` (list of string), `entigraph_summary` (string),
    `entigraph_error` (string: why there are none). `<id>.answers` writes `entigraph_answers` (list of struct: kind, entities,
    answer, error): with another prompt for pairs, no entities are asked for again. `<id>.outcomes` decides by these columns,
    so that checks ask for nothing again: `entigraph_outcomes` (list of string: what became of each answer), and the figures of
    a document's graph: `entigraph_pairs`, `entigraph_triples` (int32: how many were used) and `entigraph_ratio` (float64:
    tokens made for each token of the source).
    Lists and the summary are in the output only where they are named.

    Columns written: `text`; `kind` (string: `pair` or `triple`), `entities` (list of string); `synthetic` (bool), `source_id`,
    `prompt`, `prompt_sha256`, `generator`, `generation`, null for a document as it was, and `rewrite_status`, as in `rewrite`.
    Reasons: `entigraph.` and a kind as in `rewrite`: of the request for entities, or `too_few` with fewer than two of them, or
    of the first answer. Notes count all kinds, entities, pairs, triples and tokens (bytes/4).

    Source: EntiGraph (Yang et al. 2024, https://arxiv.org/abs/2409.07431). Caps, checks and prompts are own.

    >>> stage = EntiGraph(model="some-model", where="tokens > 100000", keep_source=True)
    >>> made = stage(["Too short to be asked about."]).kept
    >>> made["id"].to_pylist(), made["rewrite_status"].to_pylist()
    (['0#entigraph.0'], ['not_selected'])
    """

    example: ClassVar[dict[str, Any]] = {"model": "some-model", "where": "tokens > 1000000000"}
    most_rows: ClassVar[int] = AT_ONCE

    model: str
    server: str = operational("")
    serve: str = operational("")
    where: str = ""
    min_document_tokens: int = 0
    max_document_tokens: int = 0
    max_entities: int = 30
    pairs: int | None = None
    triples: int | None = 0
    tokens: int = 0
    prompt: str = "entigraph_entities"
    pair_prompt: str = "entigraph_pair"
    triple_prompt: str = "entigraph_triple"
    entity_parameters: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 42
    keep_source: bool = False
    on_reject: Literal["keep_original", "drop"] = "keep_original"
    keep_truncated: bool = False
    refusals: bool = True
    preamble: bool = True
    strip_markdown: bool = False
    strip_quotes: bool = False
    max_output_tokens: int = 0
    min_output_tokens: int = 0
    length: tuple[float, ...] = (0, 0)
    unfaithful: float | None = None
    copied: float | None = None
    ngram: int = 8
    same_language: float = 0.5
    similarity: float | None = None
    similarity_model: str = "minilm"
    quality_gain: float | None = None
    quality_model: str = "quality-en"
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
        from curate.llm import check_parameters

        if not self.model:
            raise RecipeError("entigraph: model is empty; give the name under which the server knows it")
        check_asking(self, NAME)
        check_parameters(self.entity_parameters)
        if not 2 <= self.max_entities <= 100:
            raise RecipeError(f"entigraph: max_entities is {self.max_entities}; give 2 to 100: 30 have 435 pairs")
        if min(self.pairs or 0, self.triples or 0, self.tokens, self.min_document_tokens, self.max_document_tokens) < 0:
            raise RecipeError("entigraph: pairs, triples, tokens and limits of documents are not negative")
        if self.triples is None and not self.tokens:
            raise RecipeError("entigraph: triples is null, which is all that `tokens` allows: give `tokens`, or a number")
        if self.pairs == 0 and self.triples == 0:
            raise RecipeError("entigraph: pairs and triples are both 0, so nothing would be asked")
        if self.on_reject not in ("keep_original", "drop"):
            raise RecipeError(f"entigraph: on_reject is {self.on_reject!r}; it is 'keep_original' or 'drop'")
        self._checks().check(NAME)

    def _checks(self) -> Checks:
        return Checks(**{name: getattr(self, name) for name in _CHECKED})

    def _handed(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_CLIENT, *names)}

    def needs(self) -> Mapping[str, Stage]:
        entities = _Entities(**self._handed(*_EXTRACTING), prompt=self.prompt, parameters=self.entity_parameters)
        checks = {name: getattr(self, name) for name in _CHECKED}
        outcomes = _Outcomes(on_reject=self.on_reject, keep_source=self.keep_source, checks=checks)
        return {"entities": entities, "answers": _Relations(**self._handed(*_RELATING)), "outcomes": outcomes}

    def bound(self, columns: Collection[str]) -> Stage:
        inherits = set(PROVENANCE.names) <= set(columns)
        return self if inherits == self.inherits else replace(self, inherits=inherits)

    def reads(self) -> tuple[str, ...]:
        return ("id", "text", ERROR, ANSWERS, OUTCOMES, *(PROVENANCE.names if self.inherits else ()))

    def writes(self) -> pa.Schema:
        more = [("kind", pa.string()), ("entities", pa.list_(pa.string()))]
        # answers and outcomes stay with those that they belong to: in each of 435 children they would stand 435 times
        return pa.schema([("text", pa.string()), *PROVENANCE, *more, *_ANSWERED, (OUTCOMES, pa.list_(pa.string()))])

    def files(self) -> tuple[str, ...]:
        return _files(self.pair_prompt, self.triple_prompt)

    def expand(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        checks, earlier = self._checks(), _earlier(self.inherits, batch)
        prompts = {kind: _prompt(name) for kind, name in ((PAIR, self.pair_prompt), (TRIPLE, self.triple_prompt))}
        known = {kind: (prompt.name, sha256_file(prompt.path)) for kind, prompt in prompts.items()}
        parameters = _effective(PARAMETERS, self.parameters)
        rows: list[dict[str, Any]] = []
        for i, row in enumerate(batch.select([ROW, "id", "text", ERROR, ANSWERS, OUTCOMES]).to_pylist()):
            source = row["text"] or ""
            children = []
            for answer, status in zip(row[ANSWERS] or (), row[OUTCOMES] or (), strict=True):
                if status == REWRITTEN:
                    made = origin(row["id"], *known[answer["kind"]], self.model, parameters)
                    text, _ = _composed(source, answer, checks)
                    about = {"kind": answer["kind"], "entities": answer["entities"]}
                    children.append({"text": text, **made, **about, ANSWERS: [answer], OUTCOMES: None})
            if self.keep_source or not children:
                selected = row[ERROR] != NOT_SELECTED
                status = _why(row[ERROR], row[OUTCOMES]) if not children else SOURCE
                status = SOURCE if self.keep_source and selected else status
                answers = None if children else row[ANSWERS]
                stays = {"kind": None, "entities": None, ANSWERS: answers, OUTCOMES: row[OUTCOMES]}
                children.insert(0, {"text": row["text"], **original(status, earlier[i]), **stays})
            rows += [{PARENT: row[ROW], **child} for child in children]
        return pa.RecordBatch.from_pylist(rows, pa.schema([(PARENT, pa.uint32()), *self.writes()]))


def _prompt(name: str) -> Prompt:
    from curate.llm import load_prompt

    return load_prompt(name)


def _files(*prompts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for name in prompts for path in _prompt(name).files()))


def _effective(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**defaults, **given}.items() if value is not None}


def _earlier(inherits: bool, batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """What the columns of provenance hold, where they are there."""
    return list(batch.select(PROVENANCE.names).to_pylist()) if inherits else [None] * batch.num_rows


# --------------------------------------------------------------------------------------------- the graph


def entities_of(given: Iterable[str], most: int) -> list[str]:
    """The first `most` names, each once whatever its capitals and blanks; none without a letter or digit, or overlong."""
    found: dict[str, str] = {}
    for name in given:
        name = " ".join(name.split())
        if len(name) <= LONGEST_NAME and any(c.isalnum() for c in name):
            found.setdefault(name.casefold(), name)
    return list(found.values())[:most]


def relations(entities: Sequence[str], size: int, seed: int, name: str) -> list[tuple[str, ...]]:
    """All unordered groups of `size` entities, in an order that follows from seed and `name`, which is that of the document."""
    import xxhash

    def drawn(group: tuple[str, ...]) -> int:
        return xxhash.xxh3_64_intdigest("\0".join((name, *group)).encode("utf-8", "surrogatepass"), seed)

    return sorted(itertools.combinations(entities, size), key=lambda group: (drawn(group), group))


def pairs_of(entities: Sequence[str], most: int | None, seed: int, name: str) -> list[tuple[str, ...]]:
    """The pairs that are asked about, in the order of the entities."""
    every: list[tuple[str, ...]] = list(itertools.combinations(entities, 2))
    if most is None or len(every) <= most:
        return every
    chosen = set(relations(entities, 2, seed, name)[:most])
    return [pair for pair in every if pair in chosen]


# --------------------------------------------------------------------------------------------- asking


@dataclass(frozen=True, kw_only=True)
class _Asking(GlobalStage):
    """What the two stages that ask have in common: a client, and a table of answers by row."""

    decides_rows: ClassVar[bool] = True
    most_rows: ClassVar[int] = AT_ONCE

    model: str
    server: str = operational("")
    serve: str = operational("")
    parameters: Mapping[str, Any] = field(default_factory=dict)
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
    titled: bool = False

    def bound(self, columns: Collection[str]) -> Stage:
        titled = "title" in columns
        return self if titled == self.titled else replace(self, titled=titled)

    def reads(self) -> tuple[str, ...]:
        return ("id",)

    def fit_reads(self) -> tuple[str, ...]:
        return ("id", "text", *(("title",) if self.titled else ()))

    def ready(self) -> None:
        look(self)

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, Stored(_path(self, task)))

    def _process(self, stored: Stored, batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_columns(batch, stored.take(batch[ROW].to_numpy(), self.writes().names))


def _path(stage: _Asking, task: Task, folder: str = "rows") -> Path:
    """What is written down about the rows of the shard at hand."""
    return task.folder(stage) / folder / task.shards[task.shard or 0]


def _documents(batch: pa.RecordBatch) -> Iterator[tuple[int, int, str, str, str]]:
    """(place in the batch, row, id, text, title) of each document."""
    titles = batch["title"].to_pylist() if "title" in batch.schema.names else [None] * batch.num_rows
    columns = zip(batch[ROW].to_pylist(), batch["id"].to_pylist(), batch["text"].to_pylist(), titles, strict=True)
    for i, (row, name, text, title) in enumerate(columns):
        yield i, row, name, text or "", " ".join(str(title or "").split())


@dataclass(frozen=True, kw_only=True)
class _Entities(_Asking):
    """Asks what documents are about. See `EntiGraph`."""

    prompt: str = "entigraph_entities"
    where: str = ""
    min_document_tokens: int = 0
    max_document_tokens: int = 0
    max_entities: int = 30

    def bound(self, columns: Collection[str]) -> Stage:
        schema = _prompt(self.prompt).schema
        wanted = (schema or {}).get("properties", {}).get("entities", {})
        if wanted.get("type") != "array" or wanted.get("items", {}).get("type") != "string":
            raise RecipeError(f"entigraph: the prompt {self.prompt} needs a JSON schema beside it, with `entities`: strings")
        return super().bound(columns)

    def fit_reads(self) -> tuple[str, ...]:
        condition = self._condition()
        return tuple(dict.fromkeys((*super().fit_reads(), *(condition.reads() if condition else ()))))

    def _condition(self) -> Any:
        from curate.stages.where import Where

        return Where(sql=self.where) if self.where else None

    def writes(self) -> pa.Schema:
        return _FOUND

    def files(self) -> tuple[str, ...]:
        return _files(self.prompt)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [Step("ask", partial(_extract, self), reads=self.fit_reads())]

    def unasked(self, text: str) -> str | None:
        """Why a document is not asked about."""
        if not text.strip():
            return "no_text"
        tokens = estimated(text) if self.min_document_tokens or self.max_document_tokens else 0
        if tokens < self.min_document_tokens:
            return "too_short"
        return "too_long" if self.max_document_tokens and tokens > self.max_document_tokens else None


def _extract(stage: _Entities, task: Task, batches: Batches) -> None:
    """Ask for the entities of the documents of one shard."""
    from curate.llm import Request

    prompt, condition = _prompt(stage.prompt), stage._condition()
    render = prompt.renderer(NAME)
    found: dict[int, tuple[list[str] | None, str | None, str | None]] = {}

    def requests() -> Iterator[Request]:
        for batch in batches:
            chosen = None if condition is None else condition.reject(batch).is_null().to_pylist()
            for i, row, _, text, title in _documents(batch):
                error = stage.unasked(text) if chosen is None or chosen[i] else NOT_SELECTED
                found[row] = None, None, error
                if error is None:
                    yield Request(render(text=text, title=title), schema=prompt.schema, tag=row)

    for answer in ask(stage, task, NAME, requests(), parameters=_effective(ENTITY_PARAMETERS, stage.parameters)):
        if not answer.ok or answer.value is None:
            found[answer.tag] = None, None, answer.error
            continue
        entities = entities_of(answer.value.get("entities", ()), stage.max_entities)
        summary = answer.value.get("summary")
        found[answer.tag] = entities, str(summary) if summary else None, None if len(entities) > 1 else TOO_FEW
    with storing(stage.writes(), _path(stage, task), AT_ONCE) as add:
        for row in sorted(found):
            add(row, *found[row])


@dataclass(frozen=True, kw_only=True)
class _Relations(_Asking):
    """Asks how entities relate. See `EntiGraph`."""

    pairs: int | None = None
    triples: int | None = 0
    tokens: int = 0
    pair_prompt: str = "entigraph_pair"
    triple_prompt: str = "entigraph_triple"
    seed: int = 42

    def bound(self, columns: Collection[str]) -> Stage:
        for name in (self.pair_prompt, self.triple_prompt):
            if _prompt(name).schema is not None:
                raise RecipeError(f"entigraph: there is a JSON schema beside the prompt {name}; an answer is a text here")
        return super().bound(columns)

    def fit_reads(self) -> tuple[str, ...]:
        return (*super().fit_reads(), ENTITIES)

    def writes(self) -> pa.Schema:
        return _ANSWERED

    def files(self) -> tuple[str, ...]:
        return _files(self.pair_prompt, self.triple_prompt)

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        pairs = Step("pairs", partial(_pairs, self), reads=self.fit_reads())
        if self.triples == 0:
            return [pairs]
        return [pairs, Step("triples", partial(_triples, self), reads=self.fit_reads(), rows=partial(_unfinished, self))]

    def unfinished(self, answers: Sequence[Mapping[str, Any]] | None) -> bool:
        """Whether triples may be asked about after the pairs, as far as can be told without the entities."""
        return answers is not None and self.next(answers, 1) > 0

    def next(self, answers: Sequence[Mapping[str, Any]], left: int) -> int:
        """How many of the `left` triples are asked about next, after these answers; 0 where that is all."""
        asked = sum(answer["kind"] == TRIPLE for answer in answers)
        left = left if self.triples is None else min(left, self.triples - asked)
        if not self.tokens:
            return left
        sizes = [estimated(answer["answer"]) for answer in answers if answer["answer"]]
        if not sizes:
            return min(left, 1) if len(answers) < ATTEMPTS else 0
        missing = self.tokens - sum(sizes)
        return min(left, math.ceil(missing * len(sizes) / sum(sizes))) if missing > 0 else 0


def _relation(kind: str, group: Sequence[str]) -> dict[str, Any]:
    return {"kind": kind, "entities": list(group), "answer": None, "error": None}


def _asked(stage: _Relations, task: Task, requests: Iterable[Request], total: int | None = None) -> Iterator[Any]:
    """The tags of the requests, (of whom, a relation), as they are answered; the relation is given its answer."""
    parameters = _effective(PARAMETERS, stage.parameters)
    for answer in ask(stage, task, NAME, requests, total=total, parameters=parameters):
        whose, unit = answer.tag
        unit["answer"], unit["error"] = answer.text or None, None if answer.ok else answer.error
        yield whose


def _pairs(stage: _Relations, task: Task, batches: Batches) -> None:
    """Ask about the pairs of the documents of one shard; what is complete is written, so that only the rest is in memory."""
    from curate.llm import Request

    render = _prompt(stage.pair_prompt).renderer(NAME)
    waiting: deque[Waiting] = deque()

    def requests() -> Iterator[Request]:
        for batch in batches:
            entities = batch[ENTITIES].to_pylist()
            for i, row, name, text, title in _documents(batch):
                chosen = pairs_of(entities[i] or (), stage.pairs, stage.seed, name)
                units = [_relation(PAIR, pair) for pair in chosen]
                waiting.append(document := Waiting(row, None if entities[i] is None else units, len(units)))
                for unit in units:
                    yield Request(render(text=text, title=title, entities=unit["entities"]), tag=(document, unit))

    with storing(stage.writes(), _path(stage, task, "rows" if stage.triples == 0 else "pairs"), AT_ONCE) as add:
        for document in _asked(stage, task, requests()):
            document.left -= 1
            for done in complete(waiting):
                add(done.row, done.answers)
        for done in waiting:
            add(done.row, done.answers)


def _unfinished(stage: _Relations, task: Task) -> np.ndarray:
    """Rows of the shard at hand of which triples may be asked about (uint32, ascending)."""
    paired = Stored(_path(stage, task, "pairs"))
    return np.array([row[ROW] for group in paired.groups() for row in group if stage.unfinished(row[ANSWERS])], np.uint32)


def _triples(stage: _Relations, task: Task, batches: Batches) -> None:
    """Ask about triples of the documents of one shard, until each has what it may have, and write all answers of the shard."""
    from curate.llm import Request

    render = _prompt(stage.triple_prompt).renderer(NAME)
    documents = (
        (row, (name, text, title, entities))
        for batch in batches
        for entities, (_, row, name, text, title) in zip(batch[ENTITIES].to_pylist(), _documents(batch), strict=True)
    )
    pairs = Stored(_path(stage, task, "pairs")).groups()
    with storing(stage.writes(), _path(stage, task), AT_ONCE) as add:
        while group := [row for rows in itertools.islice(pairs, GROUPS) for row in rows]:
            found = {row[ROW]: row[ANSWERS] for row in group}
            open_ended = dict(itertools.islice(documents, sum(map(stage.unfinished, found.values()))))
            while open_ended:
                more = {}
                for row, (_, _, _, entities) in open_ended.items():
                    asked = sum(answer["kind"] == TRIPLE for answer in found[row])
                    more[row] = stage.next(found[row], math.comb(len(entities), 3) - asked)
                open_ended = {row: document for row, document in open_ended.items() if more[row] > 0}

                def requests(open_ended: Any = open_ended, found: Any = found, more: Any = more) -> Iterator[Request]:
                    for row, (name, text, title, entities) in open_ended.items():
                        asked = sum(answer["kind"] == TRIPLE for answer in found[row])
                        for triple in relations(entities, 3, stage.seed, name)[asked : asked + more[row]]:
                            found[row].append(unit := _relation(TRIPLE, triple))
                            yield Request(render(text=text, title=title, entities=unit["entities"]), tag=(row, unit))

                for _ in _asked(stage, task, requests(), sum(more[row] for row in open_ended)):
                    pass
            for row in sorted(found):
                add(row, found[row])


# --------------------------------------------------------------------------------------------- deciding


def _composed(source: str, answer: Mapping[str, Any], checks: Checks) -> tuple[str, str | None]:
    """(text, None) of one answer, or (text or "", why it cannot be used), as far as that is told without a model."""
    unit = {"start": 0, "end": len(source), "answer": answer["answer"], "error": answer["error"]}
    text, kind, _ = composed(source, [unit], checks)
    return text, "below_min" if kind is None and estimated(text) < checks.min_output_tokens else kind


def _why(error: str | None, outcomes: Sequence[str] | None) -> str:
    """Why there is nothing that was made of a document."""
    return error or next(iter(outcomes or ()), TOO_FEW)


@dataclass(frozen=True, kw_only=True)
class _Outcomes(Stage):
    """Decides about each answer, and drops the documents that are left without any. See `EntiGraph`."""

    most_rows: ClassVar[int] = AT_ONCE

    on_reject: str = "keep_original"
    keep_source: bool = False
    inherits: bool = False
    checks: Mapping[str, Any] = field(default_factory=dict)

    def bound(self, columns: Collection[str]) -> Stage:
        inherits = set(PROVENANCE.names) <= set(columns)
        return self if inherits == self.inherits else replace(self, inherits=inherits)

    def _checks(self) -> Checks:
        given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in self.checks.items()}
        return Checks(**given)

    def reads(self) -> tuple[str, ...]:
        return ("text", ENTITIES, ERROR, ANSWERS, *(PROVENANCE.names if self.inherits else ()))

    def writes(self) -> pa.Schema:
        return _OUTCOME

    def reasons(self) -> tuple[str, ...]:
        return tuple(f"{NAME}.{kind}" for kind in (TOO_FEW, *kinds()))

    def files(self) -> tuple[str, ...]:
        return Judge.files(self._checks())

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, Judge(self._checks(), task, NAME), task)

    def _process(self, judge: Judge, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        sources = [text or "" for text in batch["text"].to_pylist()]
        answers = [found or [] for found in batch[ANSWERS].to_pylist()]
        made = [
            [_composed(source, answer, judge.checks) for answer in found]
            for source, found in zip(sources, answers, strict=True)
        ]
        told: list[list[str]] = [[kind or REWRITTEN for _, kind in outputs] for outputs in made]
        first: dict[int, float | None] = {}
        left = [(i, k) for i, outcomes in enumerate(told) for k, kind in enumerate(outcomes) if kind == REWRITTEN]
        verdicts = judge([sources[i] for i, _ in left], [made[i][k][0] for i, k in left]) if left else []
        for (i, k), (kind, value) in zip(left, verdicts, strict=True):
            told[i][k] = kind or REWRITTEN
            if k == 0:
                first[i] = value
        columns: dict[str, list[Any]] = {name: [] for name in (*_OUTCOME.names, REASON, "_value")}
        details = zip(batch[ENTITIES].to_pylist(), batch[ERROR].to_pylist(), _earlier(self.inherits, batch), strict=True)
        for i, (entities, error, earlier) in enumerate(details):
            used = [(a["kind"], t) for a, (t, _), kind in zip(answers[i], made[i], told[i], strict=True) if kind == REWRITTEN]
            size, before = sum(estimated(text) for _, text in used), estimated(sources[i])
            lost = not used and not self.keep_source and error != NOT_SELECTED
            gone = lost and self.on_reject == "drop"
            columns[REASON].append(f"{NAME}.{_why(error, told[i])}" if gone else None)
            columns["_value"].append(first.get(i) if gone and error is None else None)
            columns[OUTCOMES].append(told[i] if error is None else None)
            columns["entigraph_pairs"].append(sum(kind == PAIR for kind, _ in used))
            columns["entigraph_triples"].append(sum(kind == TRIPLE for kind, _ in used))
            columns["entigraph_ratio"].append(size / before if before else None)
            stays = not gone and (self.keep_source or not used)
            self._note(task, entities, error, told[i], used)
            synthetic = bool((earlier or {}).get("synthetic"))
            kept = before if stays else 0
            for what, tokens in (("real", 0 if synthetic else kept), ("synthetic", size + kept if synthetic else size)):
                if tokens:
                    task.count(f"tokens of {what} text (bytes/4)", math.ceil(tokens))
            if error is None:
                task.count("tokens of sources (bytes/4)", math.ceil(before))
        types = {**{f.name: f.type for f in _OUTCOME}, REASON: pa.string(), "_value": pa.float64()}
        return with_columns(batch, {name: pa.array(values, types[name]) for name, values in columns.items()})

    def _note(self, task: Task, entities: Any, error: str | None, told: Sequence[str], used: Sequence[tuple[str, str]]) -> None:
        if error == NOT_SELECTED:
            task.count("documents not selected")
        elif error is not None:
            task.count(f"documents without entities: {error}")
        else:
            task.count("documents with entities")
            task.count("entities", len(entities))
        for kind, _ in used:
            task.count(f"{kind}s used")
        for kind in told:
            if kind != REWRITTEN:
                task.count(f"answers rejected: {kind}")
