"""Instruction models behind an OpenAI-compatible endpoint: one client for every stage that asks one.

    with Client("http://127.0.0.1:8000/v1", "my-model", cache=Path("answers")) as client:
        for answer in client.ask([Request("Say hello.")]):
            print(answer.text if answer.ok else answer.error)

`Client.ask` takes any number of questions, has `concurrency` of them under way, and gives one `Answer` for each: usable, or
with the kind of its error. Nothing is lost silently, and no answer is made up. It works through vLLM, SGLang, llama.cpp,
Ollama, TGI, `transformers serve` and hosted services alike, since it needs no more of them than `POST /chat/completions`.

What has been answered is written down as it arrives (`Cache`), keyed by model, messages, parameters and schema: a run that
was killed asks for the rest alone, and a run over a warm cache gives the same answers without a server.

Kinds of errors. `timeout`, `connection`, `rate_limited`, `server_error`, `garbage` (no chat completion): the endpoint's, given
after all retries. `rejected`: a status 4xx, the request's own. `empty`, `truncated`, `malformed` (no JSON object), `schema`
(one that breaks the schema, such as a value out of range), `refused`: the model's, given after all repairs.

A key comes from an environment variable and goes into one header. Should a server repeat it, it is blotted out in all that
leaves this module: answers, messages of errors, and the cache, which holds no prompts either.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import queue
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import orjson

from curate import models
from curate.errors import MissingExtra, RecipeError, StageError, did_you_mean

if TYPE_CHECKING:
    from curate.serving import Serving
    from curate.wire import Reply

log = logging.getLogger(__name__)

SERVER = "CURATE_LLM_SERVER"
ENDPOINT_ERRORS = ("timeout", "connection", "rate_limited", "server_error", "garbage")
MODEL_ERRORS = ("empty", "truncated", "malformed", "schema", "refused")
PARAMETERS: Mapping[str, Any] = {"temperature": 0, "max_tokens": 512}
START = 4.5  # seconds within which an endpoint has to show itself
PATIENCE = 10  # requests in a row that used up their retries: the endpoint is taken for dead
HOPELESS = 50  # answers of a model of which not one is usable
LONGEST_WAIT = 600.0  # seconds; of Retry-After, too
LIMITS = (
    "concurrency", "requests_per_minute", "tokens_per_minute", "budget_usd", "budget_tokens", "usd_per_million_input",
    "usd_per_million_output", "retries", "repairs", "timeout",
)  # fmt: skip
Total = int | Callable[[], float | None] | None
_OURS = ("model", "messages", "response_format", "stream", "n")
_WHOLE = {"max_tokens": 1, "max_completion_tokens": 1, "seed": -math.inf}  # parameters in whole numbers, and the least of each


@dataclass(frozen=True)
class Request:
    """One question. prompt: the user's message; system: one before it, or "". schema: JSON schema of the answer; None for
    free text. parameters: sent in place of those of the client; None for these. tag: anything, comes back with the answer."""

    prompt: str
    system: str = ""
    schema: Mapping[str, Any] | None = None
    tag: Any = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a question: `ok` with `text` and, where there is a schema, `value`; else `error`, a kind, and `detail`.

    input_tokens, output_tokens and usd: of everything that was asked for it, repairs included, whether now or by an earlier
    run. cached: nothing was asked now.
    """

    ok: bool
    value: dict[str, Any] | None = None
    text: str = ""
    error: str = ""
    detail: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    cached: bool = False
    tag: Any = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a client is.

    Rates are those of the last minute. left: seconds to go, or None where the total is unknown. about: whether the total is an
    estimate.
    """

    done: int = 0
    total: int | None = None
    about: bool = False
    cached: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    requests_per_second: float = 0.0
    tokens_per_second: float = 0.0
    left: float | None = None

    def __str__(self) -> str:
        of = f" of {'about ' * self.about}{self.total:,}" if self.total is not None else ""
        parts = [
            f"{self.done:,}{of} answered",
            f"{self.requests_per_second:,.1f} requests/s",
            f"{self.tokens_per_second:,.0f} tokens/s",
        ]
        if self.cached:
            parts.append(f"{self.cached:,} from the cache")
        if self.retries:
            parts.append(f"{self.retries:,} retries")
        if self.errors:
            parts.append("errors: " + ", ".join(f"{kind} {n:,}" for kind, n in sorted(self.errors.items())))
        if self.usd:
            parts.append(f"${self.usd:,.4f}")
        if self.left is not None and self.done < (self.total or 0):
            parts.append(f"{self.left:,.0f} s left")
        return ", ".join(parts)


# --------------------------------------------------------------------------------------------- what was answered


class Completion(NamedTuple):
    """One answer of a server. finish: `stop`, `length`, `content_filter`, `refusal`, or what else the server says."""

    text: str
    finish: str
    input_tokens: int
    output_tokens: int
    usd: float


class Cache:
    """Answers in one file that only grows, shared by any number of processes.

    Each line is JSON that begins with the key. Writers take a lock, read what others have added, and append one line in one
    call; of two answers to one question the first counts, for both. So a cold run and one over its cache agree, however many
    workers there were. A line that a killed process left unfinished is closed by the next writer and never read. In memory
    stands where each answer is, 16 bytes, not what it says.
    """

    _BEFORE = b'{"key":"'

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._end = 0  # up to here whole lines have been seen
        self._keys = np.empty(0, np.uint64)  # sorted, with equal ones in the order of the file
        self._places = np.empty(0, np.int64)
        self._recent: dict[int, list[int]] = {}
        self._lock = threading.Lock()
        self._unsynced = False

    def __len__(self) -> int:
        return len(self._keys) + sum(map(len, self._recent.values()))

    def get(self, key: bytes) -> Completion | None:
        """The answer to the question with this key (16 bytes), if this process has seen one."""
        short = int.from_bytes(key[:8], "big")
        with self._lock:
            places: list[int] = []
            at = int(np.searchsorted(self._keys, np.uint64(short))) if len(self._keys) else 0
            while at < len(self._keys) and int(self._keys[at]) == short:
                places.append(int(self._places[at]))
                at += 1
            for place in (*places, *self._recent.get(short, ())):
                found = self._read(place, key)
                if found is not None:
                    return found
        return None

    def put(self, key: bytes, answer: Completion) -> Completion:
        """Write an answer down; returns the one that counts, which is another process's if that came first."""
        line = orjson.dumps({"key": key.hex(), **answer._asdict()}, option=orjson.OPT_APPEND_NEWLINE)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            torn = False
            if os.fstat(self._file).st_size != self._end:  # another has written
                torn = self.refresh()
            if (earlier := self.get(key)) is not None:  # seen now, or since the question was sent
                return earlier
            data = memoryview(b"\n" + line if torn else line)
            while data:
                data = data[os.write(self._file, data) :]
            if torn:
                self.refresh()
            else:
                self._noted(key, len(line))
            self._unsynced = True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return answer

    def refresh(self) -> bool:
        """Take note of what was added to the file. Returns whether it ends in the middle of a line."""
        with self._lock:
            size = os.fstat(self._file).st_size
            rest = b""
            at = self._end
            while at < size:
                more = os.pread(self._file, min(size - at, 1 << 24), at)
                if not more:
                    break  # somebody made it shorter
                at += len(more)
                lines = (rest + more).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if line.startswith(self._BEFORE) and line.endswith(b"}"):
                        with contextlib.suppress(ValueError):
                            self._recent.setdefault(int(line[8:24], 16), []).append(self._end)
                    self._end += len(line) + 1
            if len(self._recent) > 1 << 16:
                self._settle()
            return self._end < size

    def _noted(self, key: bytes, size: int) -> None:
        with self._lock:
            self._recent.setdefault(int.from_bytes(key[:8], "big"), []).append(self._end)
            self._end += size
            if len(self._recent) > 1 << 16:
                self._settle()

    def sync(self) -> None:
        """Have the disk keep what was written: a lost machine then loses no answer, as a lost process never does."""
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._file)

    def close(self) -> None:
        self.sync()
        os.close(self._file)

    def _settle(self) -> None:
        keys = np.array([k for k, places in self._recent.items() for _ in places], np.uint64)
        places = np.array([p for places in self._recent.values() for p in places], np.int64)
        self._keys, self._places = np.concatenate([self._keys, keys]), np.concatenate([self._places, places])
        order = np.lexsort((self._places, self._keys))
        self._keys, self._places = self._keys[order], self._places[order]
        self._recent = {}

    def _read(self, place: int, key: bytes) -> Completion | None:
        data, size = b"", 4096
        while b"\n" not in data:
            more = os.pread(self._file, size, place + len(data))
            if not more:
                return None
            data, size = data + more, size * 4
        try:
            record = orjson.loads(data[: data.index(b"\n")])
            if record.pop("key") != key.hex() or not isinstance(record["text"], str):
                return None
            return Completion(**record)
        except (ValueError, TypeError, KeyError):
            return None  # damaged: it will be asked for again


def default_cache() -> Path:
    """The folder of answers beside that of models: `$CURATE_CACHE/llm`, or in the user's cache."""
    return models.cache().parent / "llm"


def cache_of(folder: Path, model: str) -> Path:
    """The file in which the answers of a model stand."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[:60]
    return folder / f"{name}-{hashlib.blake2b(model.encode(), digest_size=4).hexdigest()}.jsonl"


# --------------------------------------------------------------------------------------------- limits


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be used: per minute, and in all. 0: no limit."""

    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    budget_usd: float = 0
    budget_tokens: int = 0

    def __bool__(self) -> bool:
        return any((self.requests_per_minute, self.tokens_per_minute, self.budget_usd, self.budget_tokens))


class Ledger:
    """What was spent, what is set aside for requests under way, and how full the two buckets are.

    A bucket holds what one second gives, so that no minute exceeds its limit by more than a sixtieth. With a `folder` the
    account is a file under a lock and holds for all processes that name it, now and after a restart.
    """

    _STATE = struct.Struct("8d")  # spent usd, spent tokens, set aside: usd, tokens; requests: level, time; tokens: level, time

    def __init__(self, limits: Limits, folder: Path | None = None):
        self.limits = limits
        self._own = [0.0] * 8
        self._file = self._alive = -1
        if folder is not None and limits:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "account", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._alive = os.open(folder / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(BlockingIOError):  # nobody else is alive: what the dead had set aside is free again
                fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with self._state() as state:
                    state[2] = state[3] = 0.0
            fcntl.flock(self._alive, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def _state(self) -> Iterator[list[float]]:
        if self._file < 0:
            yield self._own
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            raw = os.pread(self._file, self._STATE.size, 0)
            state = list(self._STATE.unpack(raw)) if len(raw) == self._STATE.size else [0.0] * 8
            yield state
            os.pwrite(self._file, self._STATE.pack(*state), 0)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def take(self, tokens: float, usd: float, now: float) -> float:
        """Set aside what a request may need. Returns 0 if it may go; else seconds to wait, which are infinite while it
        depends on what those under way will really need. Raises StageError where the budget is used up."""
        limits = self.limits
        if not limits:
            return 0.0
        with self._state() as state:
            for limit, spent, held, more, name in (
                (limits.budget_usd, state[0], state[2], usd, "budget_usd"),
                (limits.budget_tokens, state[1], state[3], tokens, "budget_tokens"),
            ):
                if limit and spent + held + more > limit:
                    if held > 1e-9:
                        return math.inf
                    raise StageError(
                        f"{name} is used up: {spent:,.6g} of {limit:,.6g} spent, and the next request may need {more:,.4g}; "
                        "raise it and run the same command again, which asks for nothing twice"
                    )
            wait = 0.0
            for at, per_minute, more in ((4, limits.requests_per_minute, 1.0), (6, limits.tokens_per_minute, tokens)):
                if per_minute:
                    rate = per_minute / 60
                    most = max(rate, 1.0)
                    before = state[at + 1]
                    state[at] = min(most, state[at] + max(now - before, 0.0) * rate) if before else most
                    state[at + 1] = now
                    wait = max(wait, (min(more, most) - state[at]) / rate)
            if wait > 0:
                return wait
            state[4] -= 1.0
            state[6] -= tokens
            state[2] += usd
            state[3] += tokens
        return 0.0

    def settle(self, tokens: float, usd: float, real_tokens: float, real_usd: float) -> None:
        """Replace what was set aside for a request by what it took."""
        if not self.limits:
            return
        with self._state() as state:
            state[2] = max(state[2] - usd, 0.0)
            state[3] = max(state[3] - tokens, 0.0)
            state[0] += real_usd
            state[1] += real_tokens
            state[6] += tokens - real_tokens

    def close(self) -> None:
        for file in (self._file, self._alive):
            if file >= 0:
                os.close(file)
        self._file = self._alive = -1


# --------------------------------------------------------------------------------------------- JSON


_CHECKED = {
    "type", "enum", "const", "minimum", "maximum", "minLength", "maxLength", "properties", "required", "additionalProperties",
    "items", "minItems", "maxItems",
}  # fmt: skip
_REMARKS = {"title", "description", "default", "examples", "$schema", "$id", "$comment"}
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: (isinstance(v, int) and not isinstance(v, bool)) or (isinstance(v, float) and v.is_integer()),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}


def check_schema(schema: Any, where: str = "schema") -> None:
    """Raise RecipeError for a schema that says something `violation` would not look at."""
    if not isinstance(schema, Mapping):
        raise RecipeError(f"{where}: a JSON schema is an object")
    for key in schema:
        if key not in _CHECKED | _REMARKS and not key.startswith("x-"):
            raise RecipeError(f"{where}: the keyword {key!r} is not supported{did_you_mean(key, _CHECKED)}")
    for name in _kinds(schema):
        if name not in _TYPES:
            raise RecipeError(f"{where}: unknown type {name!r}{did_you_mean(str(name), _TYPES)}")
    if not isinstance(schema.get("additionalProperties", False), bool):
        raise RecipeError(f"{where}: `additionalProperties` is true or false")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise RecipeError(f"{where}: `properties` is an object")
    for name, part in properties.items():
        check_schema(part, f"{where}.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{where}[]")


def _kinds(schema: Mapping[str, Any]) -> Sequence[str]:
    kind = schema.get("type", ())
    return (kind,) if isinstance(kind, str) else tuple(kind)


def violation(value: Any, schema: Mapping[str, Any], where: str = "") -> str:
    """What is wrong with a value by a JSON schema, in a few words; "" if nothing is."""
    name = where or "the answer"
    kinds = _kinds(schema)
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        return f"{name} is no {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{name} is none of {', '.join(map(str, schema['enum']))}"
    if "const" in schema and value != schema["const"]:
        return f"{name} is not {schema['const']}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", -math.inf) or value > schema.get("maximum", math.inf):
            return f"{name} is out of range ({schema.get('minimum', '')} to {schema.get('maximum', '')})"
    elif isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
            return f"{name} is too short or too long"
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
            return f"{name} has too few or too many entries"
        for i, item in enumerate(value if "items" in schema else ()):
            if wrong := violation(item, schema["items"], f"{where}[{i}]"):
                return wrong
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        for key in schema.get("required", ()):
            if key not in value:
                return f"{where}.{key} is missing".lstrip(".")
        for key, item in value.items():
            if key in properties and (wrong := violation(item, properties[key], f"{where}.{key}".lstrip("."))):
                return wrong
    return ""


def without_remarks(schema: Any) -> Any:
    """A schema as it is sent: without the keys `x-…`, which are ours."""
    if isinstance(schema, Mapping):
        return {key: without_remarks(value) for key, value in schema.items() if not key.startswith("x-")}
    return [without_remarks(value) for value in schema] if isinstance(schema, list | tuple) else schema


_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.S)


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def json_object(text: str, schema: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str, str]:
    """(value, "", "") of the first JSON object in a text that fits the schema; else (None, kind of error, detail).

    Thoughts between <think> tags, code fences and words around the object are passed over.
    """
    text = _THOUGHT.sub("", text)
    wrong = ""
    at, tries = text.find("{"), 0
    while at >= 0 and tries < 20:
        tries += 1
        end = at + 1
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            value, end = _DECODER.raw_decode(text, at)
            orjson.dumps(value)  # an escaped half of a character, or a number of more than 64 bits: no column takes them
            wrong_here = violation(value, schema)
            if not wrong_here:
                return value, "", ""
            wrong = wrong or wrong_here
        at = text.find("{", end)
    return (None, "schema", wrong) if wrong else (None, "malformed", "there is no JSON object in the answer")


def usable(answer: Completion, schema: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, str, str]:
    """(value or None, kind of error or "", detail) of what a model said."""
    if answer.finish in ("content_filter", "refusal"):
        return None, "refused", "the model or its server declined to answer"
    if not _THOUGHT.sub("", answer.text).strip():
        return None, ("truncated" if answer.finish == "length" else "empty"), "the answer is empty"
    if schema is not None:
        value, error, detail = json_object(answer.text, schema)
        if error == "malformed" and answer.finish == "length":
            error, detail = "truncated", "the answer was cut off: raise max_tokens"
        return value, error, detail
    return (None, "truncated", "the answer was cut off: raise max_tokens") if answer.finish == "length" else (None, "", "")


# --------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True)
class Prompt:
    """A template in a file, and the schema of its answers beside it (None where there is no such file)."""

    name: str
    path: Path
    schema: Mapping[str, Any] | None

    def files(self) -> tuple[str, ...]:
        beside = self.path.with_suffix(".json")
        return tuple(str(path) for path in (self.path, beside) if path.is_file())

    def renderer(self, needed_by: str) -> Callable[..., str]:
        """A function from variables (`text=...`) to the prompt. Templates run in a sandbox and read no other files.

        Raises MissingExtra without jinja2, RecipeError for a template that cannot be parsed or wants another variable.
        """
        try:
            from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise MissingExtra("jinja2", "llm", needed_by) from error
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        try:
            template = environment.from_string(self.path.read_text(encoding="utf-8"))
        except TemplateSyntaxError as error:
            raise RecipeError(f"{self.path}:{error.lineno}: {error.message}") from None

        def render(**variables: str) -> str:
            try:
                return template.render(**variables)
            except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
                raise RecipeError(f"{self.path}: {error}; it is given: {', '.join(variables)}") from None

        return render


def prompts() -> dict[str, Path]:
    """The templates that come with Curate, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "prompts").glob("*.jinja"))}


def load_prompt(name: str) -> Prompt:
    """A prompt by its name, or by the path of its template. Raises RecipeError."""
    path = prompts().get(name) or Path(name)
    if not path.is_file():
        raise RecipeError(f"no prompt {name!r}: neither a file nor one that comes with Curate{did_you_mean(name, prompts())}")
    beside = path.with_suffix(".json")
    schema = None
    if beside.is_file() and beside != path:
        try:
            schema = orjson.loads(beside.read_bytes())
        except ValueError as error:
            raise RecipeError(f"{beside}: not JSON: {error}") from None
        check_schema(schema, str(beside))
    return Prompt(path.stem, path, schema)


# --------------------------------------------------------------------------------------------- the client


def check_server(server: str) -> str:
    """A base URL without a slash at its end, from the environment if it is "". Raises RecipeError, without the URL if that
    holds a password."""
    server = (server or os.environ.get(SERVER, "")).rstrip("/")
    if not server:
        raise RecipeError(f"no server: give `server`, such as http://127.0.0.1:8000/v1, or set the variable {SERVER}")
    try:
        parts = urlsplit(server)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and server.isascii()
    except ValueError:
        fine = False
    if not fine or re.search(r"\s", server):
        raise RecipeError("server: not an http or https URL; write a base URL such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise RecipeError("server: a base URL has no user, password or query; the key comes from the environment")
    return server


def check_key_variable(name: str) -> None:
    """Raise RecipeError for what is no name of an environment variable, without repeating it: it may be a key."""
    if name and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise RecipeError("api_key_env: give the name of an environment variable in capitals, never the key itself")


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise RecipeError for parameters that the client sets itself, and for lengths and seeds that are no whole numbers."""
    for key, value in parameters.items():
        if key in _OURS:
            raise RecipeError(f"parameters: {key!r} is set by Curate; give sampling parameters such as temperature, max_tokens")
        if key not in _WHOLE or value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < _WHOLE[key]:
            raise RecipeError(f"parameters: {key} is {value!r}; give a whole number{' above 0' if _WHOLE[key] == 1 else ''}")


def check_limits(settings: Mapping[str, float], where: str = "") -> None:
    """Raise RecipeError, which begins with `where`, for values of `LIMITS` that cannot be."""
    what = f"{where}: " if where else ""
    for name in LIMITS:
        if not 0 <= settings[name] < math.inf:
            raise RecipeError(f"{what}{name} is {settings[name]}; give a number that is not negative")
    if not 1 <= settings["concurrency"] <= 4096:
        raise RecipeError(f"{what}concurrency is {settings['concurrency']}; from 1 to 4096 requests may be under way")
    if not settings["timeout"]:
        raise RecipeError(f"{what}timeout is 0; give seconds above 0")
    if settings["budget_usd"] and not (settings["usd_per_million_input"] or settings["usd_per_million_output"]):
        raise RecipeError(f"{what}budget_usd needs prices: give usd_per_million_input and usd_per_million_output")


class _Failed(Exception):
    """An endpoint gave no answer to one request: kind and detail."""

    def __init__(self, kind: str, detail: str):
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class Client:
    """Asks a model, many questions at a time. Use as a context manager; nothing is opened before the first question.

    server: base URL that ends in /v1 mostly; "": `$CURATE_LLM_SERVER`. model: its name there. api_key_env: environment variable
    that holds the key, if the server wants one. concurrency: requests at the same time. requests_per_minute,
    tokens_per_minute: of this client, or of all that share a `ledger`; tokens are estimated before and corrected after.
    budget_usd, budget_tokens: stop before more would be spent; dollars need the prices. retries: per request, after 408, 409,
    425, 429, 5xx, timeouts, resets and what is no chat completion; waits grow from `backoff` seconds, with jitter, and are as
    long as Retry-After says. repairs: how often a model is asked once more, with a remark on what was wrong, after an answer
    that cannot be used. timeout: seconds for one request. parameters: sent with each request, and part of the key of the
    cache. cache: folder of answers, None for none. serving: a server to be started, in place of `server`, once there is a
    question that the cache cannot answer. progress: called with a `Progress` about every `every` seconds, and at
    the end, from another thread; by default the logger of this module is told.

    A schema is sent as `response_format`; where the server answers that with 400, it stands in the prompt instead, with
    `json_object` if the server has it. Either way every answer is parsed and checked here.

    Raises RecipeError for settings that cannot be; while asking, StageError: where the endpoint is not there (within 5
    seconds), does not accept the key, does not know the model, or dies (no answer to 10 requests in a row after all retries,
    or a connection refused); where it rejects the first 10 requests, or not one of 50 answers is usable; where a budget is
    used up. Whatever was answered is in the cache then.
    """

    def __init__(
        self,
        server: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 32,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        budget_usd: float = 0,
        budget_tokens: int = 0,
        usd_per_million_input: float = 0,
        usd_per_million_output: float = 0,
        retries: int = 6,
        repairs: int = 1,
        timeout: float = 120,
        backoff: float = 0.5,
        parameters: Mapping[str, Any] = PARAMETERS,
        cache: Path | Cache | None = None,
        ledger: Path | None = None,
        serving: Serving | None = None,
        progress: Callable[[Progress], None] | None = None,
        every: float = 10.0,
    ):
        self.server = check_server(server) if serving is None else "http://127.0.0.1"  # whose port is not known yet
        self.model, self._serving = model, serving
        check_key_variable(api_key_env)
        check_parameters(parameters)
        if not model:
            raise RecipeError("no model: give the name under which the server knows it")
        settings = {
            "concurrency": concurrency, "requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute,
            "budget_usd": budget_usd, "budget_tokens": budget_tokens, "usd_per_million_input": usd_per_million_input,
            "usd_per_million_output": usd_per_million_output, "retries": retries, "repairs": repairs, "timeout": timeout,
        }  # fmt: skip
        check_limits(settings)
        self._limits = Limits(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            budget_usd=budget_usd,
            budget_tokens=budget_tokens,
        )
        self._prices = usd_per_million_input / 1e6, usd_per_million_output / 1e6
        self.concurrency, self._retries, self._repairs = concurrency, retries, repairs
        self._timeout, self._backoff, self._parameters = timeout, backoff, dict(parameters)
        self._key_env, self._cache_given, self._ledger_folder = api_key_env, cache, ledger
        self._tell, self._every = progress or (lambda progress: log.info("%s", progress)), every
        self._thread: threading.Thread | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"Client({self.server!r}, {self.model!r}, concurrency={self.concurrency})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is under way, and close connections and files."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._halt)
            self._thread.join()
            self._thread = None

    def look(self) -> None:
        """See whether there is an endpoint, without a question. Raises StageError, within 5 seconds."""
        with self._opening:
            if self._thread is None:
                self._open()
        asyncio.run_coroutine_threadsafe(self._look(), self._loop).result()

    def ask(self, requests: Iterable[Request], *, ordered: bool = True, total: Total = None) -> Iterator[Answer]:
        """One answer per request, in their order, or as they come if not `ordered`.

        Requests are taken from the iterable as they are needed, so that it may be as long as a corpus. total: how many there
        will be, for the progress, or a function that estimates it, which another thread calls; known by itself for lists.
        """
        with self._opening:
            if self._thread is None:
                self._open()
        job = _Job()
        known = total if total is not None else len(requests) if isinstance(requests, Sequence) else None
        self._loop.call_soon_threadsafe(self._begin, job, known)
        window = self.concurrency * (8 if ordered else 2) + 16
        source, more = iter(requests), True
        sent = waiting = given = 0
        early: dict[int, Answer] = {}
        try:
            while True:
                chunk: list[tuple[int, Request]] = []
                while more and waiting < window:
                    try:
                        chunk.append((sent, next(source)))
                    except StopIteration:
                        more = False
                        break
                    sent, waiting = sent + 1, waiting + 1
                if chunk:
                    self._loop.call_soon_threadsafe(self._submit, job, chunk)
                if not waiting:
                    return
                found = job.outbox.get()
                if isinstance(found, BaseException):
                    raise found
                for number, answer in found:
                    if not ordered:
                        waiting -= 1
                        yield answer
                        continue
                    early[number] = answer
                    while given in early:
                        ready = early.pop(given)
                        given, waiting = given + 1, waiting - 1
                        yield ready
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._end, job)

    # ------------------------------------------------------------------ below: on the thread of the event loop

    def _open(self) -> None:
        from curate.wire import Wire

        key = os.environ.get(self._key_env, "").strip() if self._key_env else ""
        if re.search(r"[^\x21-\x7e]", key):
            raise RecipeError(f"the key in the environment variable {self._key_env} has characters that no key has")
        self._secret = key if len(key) >= 8 else ""
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._wire = Wire(self.server, self._headers)
        given = self._cache_given
        self._cache = Cache(cache_of(given, self.model)) if isinstance(given, Path) else given
        if self._cache is not None:
            self._cache.refresh()
        self._ledger = Ledger(self._limits, self._ledger_folder)
        self._queue: deque[tuple[_Job, int, Request]] = deque()
        self._jobs: set[_Job] = set()
        self._tasks: dict[asyncio.Task[None], _Job] = {}
        self._flying: dict[bytes, asyncio.Future[Completion]] = {}
        self._error: BaseException | None = None
        self._level, self._proven = 0, False
        self._schema: tuple[Any, Any] = (None, None)
        self._successes = self._streak = self._rejected = self._usable = self._unusable = 0
        self._totals: list[Total] = []
        self._done = self._cached = self._requests = self._again = self._in = self._out = 0
        self._usd = 0.0
        self._errors: Counter[str] = Counter()
        self._marks: deque[tuple[float, int, int, int]] = deque([(time.monotonic(), 0, 0, 0)])
        self._loop = asyncio.new_event_loop()
        self._turn = asyncio.Lock()
        self._shown: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="curate-llm", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        ticker = self._loop.create_task(self._tick())
        try:
            self._loop.run_forever()
        finally:
            tasks = [ticker, *self._tasks, *filter(None, [self._shown])]
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for job in self._jobs:
                job.outbox.put(StageError("the client was closed before it had answered"))
            self._wire.close()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self._ledger.close()
            if self._cache is not None:
                self._cache.sync()
                if self._cache is not self._cache_given:
                    self._cache.close()

    def _halt(self) -> None:
        self._loop.stop()

    def _begin(self, job: _Job, total: Total) -> None:
        self._jobs.add(job)
        self._totals.append(total)
        if self._error is not None:
            job.outbox.put(self._error)

    def _end(self, job: _Job) -> None:
        """Nobody wants the rest of a job."""
        self._jobs.discard(job)
        self._queue = deque(entry for entry in self._queue if entry[0] is not job)
        for task, owner in self._tasks.items():
            if owner is job:
                task.cancel()
        if not self._jobs:
            self._report()

    def _submit(self, job: _Job, chunk: list[tuple[int, Request]]) -> None:
        self._queue.extend((job, number, request) for number, request in chunk)
        self._pump()

    def _pump(self) -> None:
        while self._queue and len(self._tasks) < self.concurrency and self._error is None:
            job, number, request = self._queue.popleft()
            task = self._loop.create_task(self._run(job, number, request))
            self._tasks[task] = job
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None and self._error is None:
            self._error = error
            self._queue.clear()
            for other in self._tasks:
                other.cancel()
            for job in self._jobs:
                job.flush()
                job.outbox.put(error)
        self._pump()

    async def _run(self, job: _Job, number: int, request: Request) -> None:
        answer = await self._answer(request)
        self._done += 1
        self._cached += answer.cached
        if answer.error:
            self._errors[answer.error] += 1
        job.results.append((number, answer))
        if len(job.results) == 1:
            self._loop.call_soon(job.flush)

    # ------------------------------------------------------------------ one question

    async def _answer(self, request: Request) -> Answer:
        given, made, usd = 0, 0, 0.0
        cached, remark = True, ""
        schema = None if request.schema is None else self._sent(request.schema)
        parameters = self._parameters if request.parameters is None else request.parameters
        for _ in range(1 + self._repairs):
            messages = [{"role": "system", "content": request.system}] if request.system else []
            messages.append({"role": "user", "content": request.prompt + remark})
            try:
                said, known = await self._said(messages, schema, parameters)
            except _Failed as failed:
                return Answer(False, None, "", failed.kind, failed.detail, given, made, usd, False, request.tag)
            cached = cached and known
            given, made, usd = given + said.input_tokens, made + said.output_tokens, usd + said.usd
            value, error, detail = usable(said, schema)
            if not error:
                self._usable += 1
                return Answer(True, value, said.text, "", "", given, made, usd, cached, request.tag)
            if error == "refused":
                break
            form = "one JSON object as described, and nothing else" if schema is not None else "the answer and nothing else"
            short = ", and be brief" if error == "truncated" else ""
            remark = f"\n\nAn earlier answer to this could not be used: {detail}. Give {form}{short}."
        self._unusable += 1
        if not self._usable and self._unusable >= HOPELESS:
            raise StageError(
                f"{self.model} at {self.server} gives no usable answers: none of {self._unusable}, the last because {detail}; "
                "look at prompt, schema and max_tokens, or take another model"
            )
        return Answer(False, None, said.text, error, detail, given, made, usd, cached, request.tag)

    def _sent(self, schema: Mapping[str, Any]) -> Any:
        """The schema as it is sent; kept, since thousands of requests share one."""
        if self._schema[0] is not schema:
            self._schema = schema, without_remarks(schema)
        return self._schema[1]

    async def _said(
        self, messages: list[dict[str, str]], schema: Any, parameters: Mapping[str, Any]
    ) -> tuple[Completion, bool]:
        """What the model said to these messages, and whether that was known. Raises _Failed."""
        asked = orjson.dumps([self.model, messages, parameters, schema], option=orjson.OPT_SORT_KEYS)
        key = hashlib.blake2b(asked, digest_size=16).digest()
        if self._cache is not None and (found := self._cache.get(key)) is not None:
            return found, True
        while (flying := self._flying.get(key)) is not None:  # the same text twice: one request
            try:
                return await asyncio.shield(flying), True
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not flying.cancelled() or (task is not None and task.cancelling()):
                    raise  # else only those who had asked gave up
        flying = self._flying[key] = self._loop.create_future()
        try:
            said = await self._request(messages, schema, parameters)
            if self._cache is not None:
                try:
                    said = self._cache.put(key, said)
                except OSError as error:
                    raise StageError(f"cannot write to the cache {self._cache.path}: {error.strerror}") from error
            flying.set_result(said)
            return said, False
        except BaseException as error:
            if isinstance(error, _Failed | StageError):
                flying.set_exception(error)
                flying.exception()  # it may be that nobody waits
            else:
                flying.cancel()
            raise
        finally:
            del self._flying[key]

    async def _request(self, messages: list[dict[str, str]], schema: Any, parameters: Mapping[str, Any]) -> Completion:
        """Ask, and ask again as long as that may help. Raises _Failed, or StageError where all of it is over."""
        if self._shown is None:
            self._shown = self._loop.create_task(self._look())
        if self._shown.done():
            self._shown.result()
        else:
            await asyncio.shield(self._shown)
        level, failures = self._level, 0
        size = sum(len(m["content"]) for m in messages)
        most = _most_output(parameters)
        tokens = size // 4 + 16 + most
        usd = size // 4 * self._prices[0] + most * self._prices[1]
        while True:
            level = max(level, self._level)
            body = orjson.dumps(self._payload(messages, schema, level, parameters))
            await self._allowed(tokens, usd)
            said, kind, detail, wait = None, "", "", 0.0
            try:
                self._requests += 1
                reply = await self._wire.request("POST", "/chat/completions", body, self._timeout)
                if reply.status == 200:
                    said = self._completion(reply, size)
                    if said is None:
                        kind, detail = "garbage", "the response is not a chat completion"
                else:
                    detail = f"status {reply.status}{self._quoted(reply)}"
            except TimeoutError:
                kind, detail = "timeout", f"no answer within {self._timeout:g} s"
            except OSError as error:
                kind, detail = "connection", _why(error)
            except ValueError as error:
                kind, detail = "garbage", str(error)
            finally:
                real = (said.input_tokens + said.output_tokens, said.usd) if said is not None else (0, 0.0)
                self._ledger.settle(tokens, usd, *real)
            if said is not None:
                self._successes += 1
                self._streak = 0
                if schema is not None:
                    self._level, self._proven = max(level, self._level), True
                self._in += said.input_tokens
                self._out += said.output_tokens
                self._usd += said.usd
                return said
            if not kind:
                if reply.status in (400, 415, 422) and schema is not None:
                    if level < self._level:
                        continue  # meanwhile another request has found out what the server has
                    if level < 2 and not self._proven:
                        level += 1
                        continue
                kind = self._kind(reply, detail)
                wait = retry_after(reply.headers.get("retry-after", ""))
                if kind == "rejected":
                    self._rejected += 1
                    if not self._successes and self._rejected >= PATIENCE:
                        raise StageError(f"{self.server} rejects every request: {detail}")
                    raise _Failed(kind, detail)
            failures += 1
            if failures > self._retries or wait > LONGEST_WAIT:
                await self._exhausted(kind, detail)
                raise _Failed(kind, detail)
            self._again += 1
            grown = min(self._backoff * 2 ** (failures - 1), 60.0) * random.uniform(0.5, 1.0)
            await asyncio.sleep(max(grown, wait * random.uniform(1.0, 1.1)))

    def _payload(
        self, messages: list[dict[str, str]], schema: Any, level: int, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """level: 0 for a schema that the server enforces, 1 for any JSON object, 2 for a server that knows neither."""
        payload = {"model": self.model, "messages": messages, **parameters}
        if schema is None:
            return payload
        if level == 0:
            form = {"name": "answer", "strict": True, "schema": schema}
            payload["response_format"] = {"type": "json_schema", "json_schema": form}
            return payload
        *before, last = messages
        told = f"\n\nThe answer is one JSON object that fits this JSON schema:\n{orjson.dumps(schema).decode()}"
        payload["messages"] = [*before, {**last, "content": last["content"] + told}]
        if level == 1:
            payload["response_format"] = {"type": "json_object"}
        return payload

    def _completion(self, reply: Reply, size: int) -> Completion | None:
        """The answer in a response, None if there is none; tokens are estimated where the server does not count them."""
        try:
            data = orjson.loads(reply.body)
            choice = data["choices"][0]
            message = choice["message"]
            text = message.get("content") or ""
            if isinstance(text, list):
                text = "".join(part.get("text") or "" for part in text)
            finish = "refusal" if message.get("refusal") and not text else str(choice.get("finish_reason") or "")
            usage = data.get("usage") or {}
            given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
            given = given if isinstance(given, int) and given >= 0 else size // 4
            made = made if isinstance(made, int) and made >= 0 else (len(text) + 3) // 4
            if not isinstance(text, str):
                return None
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        usd = given * self._prices[0] + made * self._prices[1]
        return Completion(self._blotted(text), self._blotted(finish)[:40], given, made, usd)

    def _kind(self, reply: Reply, detail: str) -> str:
        """What a status that is not 200 means for this request. Raises StageError where it means the same for all."""
        status, new = reply.status, not self._successes
        if status == 401 or (status == 403 and new):
            where = f"the environment variable {self._key_env}" if self._key_env else "an environment variable, see api_key_env"
            raise StageError(f"{self.server} does not accept the key, which is taken from {where}: {detail}")
        if status == 402:
            raise StageError(f"{self.server} wants payment: {detail}")
        if status == 404 and new:
            raise StageError(
                f"{self.server} knows no model {self.model!r}, or no /chat/completions: {detail}; `server` is a base URL that "
                f"mostly ends in /v1, and {self.server}/models lists the models"
            )
        if 300 <= status < 400:
            to = self._blotted(reply.headers.get("location", ""))[:200]
            raise StageError(f"{self.server} points elsewhere ({status}, {to!r}): give that base URL as `server`")
        if status == 429:
            return "rate_limited"
        return "server_error" if status >= 500 or status in (408, 409, 425) or status < 300 else "rejected"

    async def _allowed(self, tokens: float, usd: float) -> None:
        """Wait until limits allow a request, in the order of asking. Raises StageError where a budget is used up."""
        if not self._limits:
            return
        async with self._turn:
            waited = 0.0
            while (wait := self._ledger.take(tokens, usd, time.time())) > 0:
                if wait == math.inf:
                    wait = 0.02
                    waited += wait
                    if waited > 2 * self._timeout:  # what another process set aside before it died
                        raise StageError("a budget is used up: the rest is set aside for requests of another process")
                await asyncio.sleep(min(wait, 1.0))

    async def _look(self) -> None:
        """See whether there is an endpoint. Raises StageError."""
        if self._serving is not None:
            from curate.wire import Wire

            while (url := self._serving.poll()) is None:
                await asyncio.sleep(0.2)
            if url != self.server:
                self._wire.close()
                self.server, self._wire = url, Wire(url, self._headers)
        until = time.monotonic() + START
        while True:
            left = until - time.monotonic()
            try:
                async with asyncio.timeout(max(left, 0.1)):
                    reply = await self._wire.request("GET", "/models", b"", START)
                if reply.status == 401:
                    self._kind(reply, f"status 401{self._quoted(reply)}")
                return
            except (ConnectionResetError, BrokenPipeError) as error:
                why = _why(error)
            except TimeoutError:
                why = "no answer within 5 seconds"
            except (OSError, ValueError) as error:
                raise StageError(self._absent(_why(error))) from None
            if time.monotonic() + 0.2 >= until:
                raise StageError(self._absent(why)) from None
            await asyncio.sleep(0.2)

    def _absent(self, why: str) -> str:
        return (
            f"no endpoint at {self.server}: {why}; start the server (such as `vllm serve {self.model}`), or correct `server`, "
            "a base URL like http://127.0.0.1:8000/v1"
        )

    async def _exhausted(self, kind: str, detail: str) -> None:
        """A request has used up its retries. Raises StageError where the endpoint is dead."""
        self._streak += 1
        dead = self._streak >= PATIENCE
        if kind == "connection" and (not dead or self._serving is not None):
            try:
                await self._look()
            except StageError:
                if self._serving is not None:
                    raise  # it knows what the server said last
                dead = True
        if dead:
            kept = "" if self._cache is None else f"what it answered is kept in {self._cache.path}; "
            raise StageError(
                f"{self.server} has stopped answering ({detail}; {self._retries} retries): {kept}"
                "run the same command again when it is back"
            ) from None

    # ------------------------------------------------------------------ what is said

    def _blotted(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text

    def _quoted(self, reply: Reply) -> str:
        """`: what the server said`, on one line; "" if it said nothing that can be shown."""
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            data = orjson.loads(reply.body)
            error = data.get("error") or data.get("detail") or data
            said = error.get("message") if isinstance(error, dict) else error
            line = " ".join(self._blotted(str(said)).split()) if said else ""
            return f": {line[:200]}" if line else ""
        return ""

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            if self._jobs:
                self._report()
            if self._cache is not None:
                await self._loop.run_in_executor(None, self._cache.sync)

    def _report(self) -> None:
        self._tell(self.progress())

    def progress(self) -> Progress:
        """Where things stand."""
        now, tokens = time.monotonic(), self._in + self._out
        self._marks.append((now, self._requests, tokens, self._done))
        while len(self._marks) > 2 and self._marks[1][0] < now - 60:
            self._marks.popleft()
        then, requests, before, done = self._marks[0]
        seconds = max(now - then, 1e-9)
        totals = [total() if callable(total) else total for total in self._totals]
        known = [total for total in totals if total is not None]
        total = round(sum(known)) if len(known) == len(totals) else None
        left = None
        if total is not None and self._done > done:
            left = max(total - self._done, 0) * seconds / (self._done - done)
        return Progress(
            done=self._done,
            total=total,
            about=any(map(callable, self._totals)),
            cached=self._cached,
            errors=dict(self._errors),
            requests=self._requests,
            retries=self._again,
            input_tokens=self._in,
            output_tokens=self._out,
            usd=self._usd,
            requests_per_second=(self._requests - requests) / seconds,
            tokens_per_second=(tokens - before) / seconds,
            left=left,
        )


class _Job:
    """One call of `ask`: answers go to its outbox, all of one turn of the event loop together."""

    def __init__(self) -> None:
        self.outbox: queue.SimpleQueue[list[tuple[int, Answer]] | BaseException] = queue.SimpleQueue()
        self.results: list[tuple[int, Answer]] = []

    def flush(self) -> None:
        if self.results:
            self.outbox.put(self.results)
            self.results = []


def _most_output(parameters: Mapping[str, Any]) -> int:
    """How many tokens an answer may have, as far as the parameters say."""
    return int(parameters.get("max_tokens") or parameters.get("max_completion_tokens") or 1024)


def retry_after(value: str, now: float | None = None) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 where it says nothing that can be understood."""
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return max(at - (time.time() if now is None else now), 0.0)


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
