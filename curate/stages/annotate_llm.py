"""Labels from an instruction model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from curate.errors import RecipeError, did_you_mean
from curate.rewriting import ask, check_asking, look, pieces
from curate.stage import ROW, Batches, BatchFn, GlobalStage, Step, Task, operational, with_columns
from curate.storage import read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    from curate.llm import Prompt, Request

ERROR = "annotation_error"
NO_TEXT = "no_text"
GAP = "\n[...]\n"
_ARROW = {"integer": pa.int64(), "number": pa.float32(), "string": pa.string(), "boolean": pa.bool_()}


@dataclass(frozen=True, kw_only=True)
class AnnotateLlm(GlobalStage):
    """Labels documents, or a sample of them, with an instruction model behind an OpenAI-compatible endpoint.

    model: its name at the server. server: base URL, which ends in /v1 mostly; "" for the environment variable
    CURATE_LLM_SERVER. serve: instead, a command that starts one, as in `rewrite`. prompt: `fineweb_edu`, `dataman` or `biomed`,
    or the path of a Jinja template with the variable `text`; a JSON schema of the answer stands beside it under the same name
    (x.jinja, x.json) and gives the columns.
    columns: the properties of the schema to write, all by default; prefix: goes before the names of all columns, so that two
    models can label the same documents.

    sample: a share up to 1, or above 1 a number of documents, chosen by a hash of (seed, id) among those for which `where`, a
    condition as in the stage `where`, is true. 0 asks nothing. The choice depends on neither order nor shards.
    unit: `document`, or `block` or `line` to ask about every paragraph by itself: what blank lines, or line feeds, set apart.
    min_chars: shorter paragraphs are not asked about. max_chars, cut: of a longer text the first so many characters
    (`head`), or with `head_tail` two thirds of them from its beginning and the rest from its end.

    parameters: sent with each request. retries, repairs, timeout (seconds), concurrency (requests at the same time, of one
    worker process), requests_per_minute, tokens_per_minute, budget_usd, budget_tokens (of all workers together; a budget is
    for all that the stage spends in a run folder, restarts and changes included), usd_per_million_input,
    usd_per_million_output, api_key_env (the variable that holds the key): see `curate.llm.Client`. cache: folder of answers,
    by default the user's; a run that was killed repeats no answered request. Progress and cost are shown on stderr every 20
    seconds. server, api_key_env, concurrency, limits, budgets, prices and cache decide about no answer: a run in which one of
    them is changed goes on where it was.

    Columns written: one for each property of the schema, null where a document was not chosen or not labelled: int64 for
    integers, float32 for numbers, string, bool, or lists of those. A property is written under its `x-column`, or not at all
    where that is false. `annotation_error` (string): why a chosen document has no labels: `no_text`, `timeout`, `connection`,
    `rate_limited`, `server_error`, `garbage`, `rejected`, `empty`, `truncated`, `malformed`, `schema` (a value out of range is
    one), `refused`. They are counted in the notes, and are never a 0.
    With paragraphs a label of the document is the mean of theirs (float32), or the label that most of the text has, weighted
    by tokens (bytes/4, so that the recipe's tokenizer decides nothing) over those that have one; all paragraphs stand in lists:
    `paragraph_<label>`, `paragraph_start` and `paragraph_end` (uint32, in characters), `paragraph_tokens` (uint32) and
    `paragraph_error`. `annotation_error` is that of the first paragraph that failed, if one did.
    Reasons: none.

    The answers of the prompts: `fineweb_edu`: educational_score, 0 to 5. `dataman`: fourteen criteria from 1 to 5, of which
    `sensitivity` is HIGH for a SAFE text, and domain, one of fifteen. `biomed`: document_type, domain, educational_score (1 to
    5), text_language; meant for paragraphs.

    Source: own; the scales are after FineWeb-Edu (Penedo et al. 2024, https://arxiv.org/abs/2406.17557), DataMan (Peng et al.
    2025, https://arxiv.org/abs/2502.19363) and Biomed-Enriched (Touchent et al. 2025, https://arxiv.org/abs/2506.20331).

    >>> stage = AnnotateLlm(model="some-model", prompt="fineweb_edu", sample=0)
    >>> stage.writes().names
    ['educational_score', 'annotation_error']
    >>> stage(["Nothing is asked."]).kept["educational_score"].to_pylist()
    [None]
    """

    example: ClassVar[dict[str, Any]] = {"model": "some-model", "prompt": "fineweb_edu", "sample": 0}
    decides_rows: ClassVar[bool] = True

    model: str
    prompt: str
    server: str = operational("")
    serve: str = operational("")
    columns: tuple[str, ...] = ()
    prefix: str = ""
    sample: float = 1.0
    where: str = ""
    seed: int = 42
    unit: Literal["document", "block", "line"] = "document"
    min_chars: int = 40
    max_chars: int = 6000
    cut: Literal["head", "head_tail"] = "head"
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 512})
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
        if not self.model:
            raise RecipeError("annotate_llm: model is empty; give the name under which the server knows it")
        check_asking(self, "annotate_llm")
        if not (0 <= self.sample <= 1 or (self.sample > 1 and self.sample == int(self.sample))):
            raise RecipeError(f"annotate_llm: sample is {self.sample}; a share up to 1, or a whole number of documents above 1")
        if self.unit not in ("document", "block", "line") or self.cut not in ("head", "head_tail"):
            raise RecipeError("annotate_llm: unit is 'document', 'block' or 'line', and cut is 'head' or 'head_tail'")
        if not re.fullmatch(r"([A-Za-z]\w*)?", self.prefix):
            raise RecipeError(f"annotate_llm: prefix is {self.prefix!r}; a beginning of names, such as 'a_'")
        if self.max_chars < 1 or self.min_chars < 0:
            raise RecipeError("annotate_llm: max_chars is at least 1, and min_chars is not negative")

    # ------------------------------------------------------------------ what goes in and out

    def reads(self) -> tuple[str, ...]:
        return ("id",)

    def fit_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("id", "text", *self._condition_reads())))

    def ready(self) -> None:
        look(self)

    def files(self) -> tuple[str, ...]:
        return self._prompt().files()

    def writes(self) -> pa.Schema:
        labels = self._labels()
        if self.unit == "document":
            columns = [*((label.column, label.type) for label in labels), (ERROR, pa.string())]
        else:
            columns = [
                *((label.column, _of_document(label.type)) for label in labels),
                (ERROR, pa.string()),
                *((f"paragraph_{label.column}", pa.list_(label.type)) for label in labels),
                ("paragraph_start", pa.list_(pa.uint32())),
                ("paragraph_end", pa.list_(pa.uint32())),
                ("paragraph_tokens", pa.list_(pa.uint32())),
                ("paragraph_error", pa.list_(pa.string())),
            ]
        return pa.schema([(f"{self.prefix}{name}", kind) for name, kind in columns])

    def steps(self, n_shards: int, n_docs: int) -> list[Step]:
        return [
            Step("pick", partial(_pick, self), reads=tuple(dict.fromkeys(("id", *self._condition_reads())))),
            Step("choose", partial(_choose, self)),
            Step("ask", partial(_ask, self), reads=("text",), rows=partial(_chosen, self)),
        ]

    def open(self, task: Task) -> BatchFn:
        return partial(self._process, task.state(self), task)

    def _process(self, labels: pa.Table, task: Task, batch: pa.RecordBatch) -> pa.RecordBatch:
        known, rows = labels[ROW].to_numpy(), batch[ROW].to_numpy()
        at = np.searchsorted(known, rows)
        found = at < len(known)
        found[found] = known[at[found]] == rows[found]
        take = pa.array(at, pa.int64(), mask=~found)
        columns = {f.name: labels[f.name].combine_chunks().take(take) for f in self.writes()}
        for kind, n in Counter(columns[f"{self.prefix}{ERROR}"].filter(pa.array(found)).to_pylist()).items():
            task.count("documents labelled" if kind is None else f"documents without labels: {kind}", n)
        return with_columns(batch, columns)

    # ------------------------------------------------------------------ prompt and columns

    def _prompt(self) -> Prompt:
        from curate.llm import load_prompt

        return load_prompt(self.prompt)

    def _labels(self) -> list[_Label]:
        """The columns, in the order of the schema."""
        prompt = self._prompt()
        if prompt.schema is None or not prompt.schema.get("properties"):
            beside = prompt.path.with_suffix(".json")
            raise RecipeError(f"annotate_llm: {prompt.path} has no schema beside it: give {beside.name} with `properties`")
        properties = prompt.schema["properties"]
        for name in self.columns:
            if name not in properties:
                raise RecipeError(f"annotate_llm: {prompt.name} has no property {name!r}{did_you_mean(name, properties)}")
        labels = []
        for name, part in properties.items():
            column = part.get("x-column", name)
            if name in self.columns or (not self.columns and column is not False):
                labels.append(_Label(name, column or name, _arrow(part, f"{prompt.name}: {name}")))
        names = [label.column for label in labels]
        if len({*names, ERROR}) <= len(names):
            raise RecipeError(f"annotate_llm: two columns of {prompt.name} have one name ({', '.join(names)})")
        return labels

    def _condition(self) -> Any:
        from curate.stages.where import Where

        return Where(sql=self.where)

    def _condition_reads(self) -> tuple[str, ...]:
        return self._condition().reads() if self.where else ()


@dataclass(frozen=True)
class _Label:
    """A property of the schema and the column that it becomes."""

    name: str
    column: str
    type: pa.DataType


def _arrow(part: Mapping[str, Any], where: str) -> pa.DataType:
    kinds = part.get("type", ())
    kinds = [k for k in ((kinds,) if isinstance(kinds, str) else kinds) if k != "null"]
    if not kinds and part.get("enum") and all(isinstance(v, str) for v in part["enum"]):
        kinds = ["string"]
    if kinds == ["array"]:
        item = _arrow(part.get("items", {}), f"{where}[]")
        if not pa.types.is_list(item):
            return pa.list_(item)
    elif len(kinds) == 1 and kinds[0] in _ARROW:
        return _ARROW[kinds[0]]
    raise RecipeError(
        f"annotate_llm: {where} is no column: it needs the type string, integer, number, boolean, or an array of one"
    )


def _of_document(kind: pa.DataType) -> pa.DataType:
    """The type of a document's label where paragraphs have this one."""
    return pa.float32() if pa.types.is_integer(kind) or pa.types.is_floating(kind) else kind


# --------------------------------------------------------------------------------------------- the sample


def _pick(stage: AnnotateLlm, task: Task, batches: Batches) -> None:
    """Candidates of one shard: row and hash, no more than could be chosen."""
    import xxhash

    condition = stage._condition() if stage.where else None
    rows, hashes = [np.empty(0, np.uint32)], [np.empty(0, np.uint64)]
    for batch in batches:
        if condition is not None:
            batch = batch.filter(condition.reject(batch).is_null())
        ids = batch["id"].to_pylist()
        drawn = np.array([xxhash.xxh3_64_intdigest((i or "").encode(), stage.seed) for i in ids], np.uint64)
        rows.append(batch[ROW].to_numpy())
        hashes.append(drawn)
    row, drawn = np.concatenate(rows), np.concatenate(hashes)
    if stage.sample <= 1:
        keep = drawn < np.uint64(min(int(stage.sample * 2**64), 2**64 - 1))
        keep |= stage.sample == 1
    else:
        keep = np.zeros(len(drawn), bool)
        keep[np.lexsort((row, drawn))[: int(stage.sample)]] = True
    table = pa.table({ROW: pa.array(row[keep], pa.uint32()), "hash": pa.array(drawn[keep], pa.uint64())})
    write_table(task.folder(stage) / "picked" / task.shards[task.shard or 0], table, codec="lz4")


def _choose(stage: AnnotateLlm, task: Task) -> None:
    """The hash of the last document that is chosen: null for all candidates."""
    folder = task.folder(stage)
    last = None
    if stage.sample > 1:
        best = np.empty(0, np.uint64)
        for name in task.shards:
            best = np.sort(np.concatenate([best, read_table(folder / "picked" / name, ["hash"])["hash"].to_numpy()]))
            best = best[: int(stage.sample)]
        last = int(best[-1]) if len(best) else None
    write_json(folder / "chosen.json", {"last": last})


def _chosen(stage: AnnotateLlm, task: Task) -> np.ndarray:
    """Rows of the shard at hand to ask about (uint32, ascending)."""
    folder = task.folder(stage)
    table = read_table(folder / "picked" / task.shards[task.shard or 0])
    last = read_json(folder / "chosen.json")["last"]
    rows = table[ROW].to_numpy()
    return rows if last is None else rows[table["hash"].to_numpy() <= np.uint64(last)]


# --------------------------------------------------------------------------------------------- asking


@dataclass
class _Unit:
    """A text to ask about: its place in the document, and what came of it."""

    start: int
    end: int
    tokens: int
    value: dict[str, Any] | None = None
    error: str | None = NO_TEXT


def _ask(stage: AnnotateLlm, task: Task, batches: Batches) -> None:
    """Ask about the chosen documents of one shard and write their labels, in the order of the rows."""
    schema = pa.schema([(ROW, pa.uint32()), *stage.writes()])
    documents: dict[int, list[_Unit]] = {}
    if stage.sample:
        _label(stage, task, batches, documents)
    labels = stage._labels()
    compose = _whole if stage.unit == "document" else _in_parts
    rows = [{ROW: row, **compose(labels, documents[row])} for row in sorted(documents)]
    columns = {f.name: pa.array([r[f.name.removeprefix(stage.prefix)] for r in rows], f.type) for f in schema}
    table = pa.table(columns, schema)
    write_table(task.folder(stage) / "rows" / task.shards[task.shard or 0], table, codec="lz4")


def _label(stage: AnnotateLlm, task: Task, batches: Batches, documents: dict[int, list[_Unit]]) -> None:
    prompt = stage._prompt()
    requests = _requests(stage, prompt.renderer("annotate_llm"), prompt.schema, batches, documents)
    total = None if stage.unit != "document" else len(_chosen(stage, task))
    for answer in ask(stage, task, "annotate_llm", requests, total=total):
        row, k = answer.tag
        unit = documents[row][k]
        unit.value, unit.error = answer.value, None if answer.ok else answer.error


def _requests(
    stage: AnnotateLlm, render: Any, schema: Mapping[str, Any] | None, batches: Batches, documents: dict[int, list[_Unit]]
) -> Iterator[Request]:
    """The questions about each document; what cannot be asked about keeps its error."""
    from curate.llm import Request

    for batch in batches:
        for row, text in zip(batch[ROW].to_pylist(), batch["text"].to_pylist(), strict=True):
            text = text or ""
            units = documents[row] = [_Unit(a, b, (len(text[a:b].encode()) + 3) // 4) for a, b in spans(text, stage.unit)]
            for k, unit in enumerate(units):
                part = text[unit.start : unit.end]
                if len(part) >= (1 if stage.unit == "document" else stage.min_chars):
                    shown = shortened(part, stage.max_chars, stage.cut)
                    yield Request(render(text=shown), schema=schema, tag=(row, k))


def spans(text: str, unit: str) -> list[tuple[int, int]]:
    """(start, end) of what is asked about, in characters, white space around it left out; none for a blank text."""
    return pieces(text, "paragraph" if unit == "block" else unit)


def shortened(text: str, most: int, cut: str) -> str:
    """The text, or as many characters of it as `most`, beside a mark for what was left out of the middle."""
    if len(text) <= most:
        return text
    if cut == "head":
        return text[:most]
    tail = most // 3
    return text[: most - tail] + GAP + (text[-tail:] if tail else "")


# --------------------------------------------------------------------------------------------- answers to columns


def _value(label: _Label, unit: _Unit) -> Any:
    value = None if unit.value is None else unit.value.get(label.name)
    return int(value) if isinstance(value, float) and pa.types.is_integer(label.type) else value


def _whole(labels: list[_Label], units: list[_Unit]) -> dict[str, Any]:
    unit = units[0] if units else _Unit(0, 0, 0)
    return {ERROR: unit.error, **{label.column: _value(label, unit) for label in labels}}


def _in_parts(labels: list[_Label], units: list[_Unit]) -> dict[str, Any]:
    """Labels of the paragraphs, and of the document by the tokens of those that have one."""
    asked = [unit.error for unit in units if unit.error not in (None, NO_TEXT)]
    none = NO_TEXT if not any(unit.error is None for unit in units) else None
    found: dict[str, Any] = {
        ERROR: asked[0] if asked else none,
        "paragraph_start": [unit.start for unit in units],
        "paragraph_end": [unit.end for unit in units],
        "paragraph_tokens": [unit.tokens for unit in units],
        "paragraph_error": [unit.error for unit in units],
    }
    for label in labels:
        values = [_value(label, unit) for unit in units]
        found[f"paragraph_{label.column}"] = values
        weighed = [(v, unit.tokens) for v, unit in zip(values, units, strict=True) if v is not None]
        found[label.column] = _of_all(weighed, label.type) if weighed else None
    return found


def _of_all(weighed: list[tuple[Any, int]], kind: pa.DataType) -> Any:
    """Mean of numbers, or the value of most tokens, the first of equals, over (value, tokens)."""
    if pa.types.is_list(kind):
        return list(dict.fromkeys(item for values, _ in weighed for item in values))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return math.fsum(v * n for v, n in weighed) / sum(n for _, n in weighed)
    votes: dict[Any, int] = {}
    for value, n in weighed:
        votes[value] = votes.get(value, 0) + n
    return max(votes, key=lambda v: votes[v])
