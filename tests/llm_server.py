"""A small OpenAI-compatible server for tests: answers follow from the text alone, and faults from the text and how often it
was asked for, so that every run meets the same ones.

    with Server(faults={"429": 0.1, "reset": 0.1}) as server:
        ... server.url ...
        server.requests, server.completed, server.faults

Faults stand for shares of the texts. A fault of the endpoint strikes the first `times` requests for its text:

    429     with Retry-After (seconds, or a date)     500, 503     those statuses        reset    closed without an answer
    hangup  closed in the middle of the body          slow         answers after `slow` seconds
    garbage a body that is not JSON                   odd          JSON that is not a chat completion

A fault of the model strikes whenever the text is asked for; with `mended` only until the client remarks on it:

    empty   malformed   truncated   range (numbers beyond their range)   missing (a key left out)   refusal   fenced (no fault)

Where no schema is asked for, the answer is `writes(text)`, "About <text>" by default, and of these faults there are `empty`,
`truncated` and `refusal`, and besides: `sorry` (a refusal in prose), `long` (ten times as long) and `foreign` (in German).

`knows`: the forms of `response_format` that it has: "json_schema", "json_object"; it answers 400 to others.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

ENDPOINT = ("429", "500", "503", "reset", "hangup", "slow", "garbage", "odd")
PROSE = ("sorry", "long", "foreign")
MODEL = ("empty", "malformed", "truncated", "range", "missing", "refusal", "fenced", *PROSE)
GERMAN = (
    "An einem klaren, kalten Morgen im April schlugen die Uhren der kleinen Stadt gerade dreizehn. Der Bäcker hatte seinen "
    "Laden längst geöffnet, und vor der Tür warteten schon einige Leute auf frisches Brot. Niemand wusste, warum die Glocken "
    "so seltsam klangen, doch jeder hatte eine Vermutung, die er gern mit den anderen teilte. "
)
REMARK = "An earlier answer to this could not be used"
TOLD = "The answer is one JSON object that fits this JSON schema:\n"


def draw(text: str, salt: str) -> float:
    """A number in [0, 1) that follows from a text."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{text}".encode()).digest()[:6], "big") / (1 << 48)


def answer_for(text: str, schema: dict[str, Any]) -> Any:
    """A value that fits a schema, drawn from the text."""
    made: dict[str, Any] = {}
    for name, part in schema["properties"].items():
        u = draw(text, name)
        if "enum" in part:
            made[name] = part["enum"][int(u * len(part["enum"]))]
        elif part["type"] == "integer":
            made[name] = part["minimum"] + int(u * (part["maximum"] - part["minimum"] + 1))
        elif part["type"] == "number":
            made[name] = part["minimum"] + u * (part["maximum"] - part["minimum"])
        elif part["type"] == "boolean":
            made[name] = u < 0.5
        elif part["type"] == "array":
            made[name] = [f"{name}-{i}" for i in range(int(u * 4))]
        else:
            made[name] = "en" if part.get("maxLength") == 3 else f"{name} {int(u * 1000)}"
    return made


def text_of(prompt: str) -> str:
    """What stands between the lines of equal signs, or all of it."""
    parts = prompt.split("==========")
    return parts[1].strip("\n") if len(parts) == 3 else prompt.split(f"\n\n{REMARK}")[0].split(f"\n\n{TOLD}")[0]


class Server:
    """Listens on a free port of 127.0.0.1, on a thread of its own."""

    def __init__(
        self,
        faults: dict[str, float] | None = None,
        *,
        times: int = 1,
        mended: bool = False,
        retry_after: str = "0",
        latency: float = 0.0,
        slow: float = 0.3,
        key: str | None = None,
        knows: tuple[str, ...] = ("json_schema", "json_object"),
        schema: dict[str, Any] | None = None,
        models: tuple[str, ...] = ("test-model",),
        die_after: int | None = None,
        usage: bool = True,
        chunked: bool = False,
        port: int = 0,
        writes: Callable[[str], str] = "About {}".format,
    ):
        self.given = faults or {}
        assert set(self.given) <= {*ENDPOINT, *MODEL}, self.given
        self.times, self.mended, self.retry_after, self.latency, self.slow = times, mended, retry_after, latency, slow
        self.key, self.knows, self.schema, self.models = key, knows, schema, models
        self.die_after, self.usage, self.chunked, self.port = die_after, usage, chunked, port
        self.writes = writes
        self.requests = 0
        self.completed: Counter[str] = Counter()  # texts by how often they were answered with 200 and a completion
        self.faults: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.moments: list[float] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

    def fault(self, text: str) -> str:
        """The fault of a text, or ""."""
        u = draw(text, "fault")
        for name, share in self.given.items():
            if u < share:
                return name
            u -= share
        return ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Server:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=1024)
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()

        def work() -> None:
            self._loop.run_until_complete(serve())
            self._loop.run_forever()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._respond(first.split(" ")[1], headers, body, writer):
                    writer.transport.abort()
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _respond(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        """False to close the connection without another word."""
        if self.die_after is not None and self.requests >= self.die_after:
            self._server.close()
            return False
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            said = f"Incorrect API key provided: {headers.get('authorization', 'none')}"
            return self._send(writer, 401, {"error": {"message": said}})
        if path == "/v1/models":
            return self._send(writer, 200, {"data": [{"id": name} for name in self.models]})
        if path != "/v1/chat/completions":
            return self._send(writer, 404, {"detail": "Not Found"})
        self.requests += 1
        self.moments.append(time.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._chat(json.loads(body), writer)
        finally:
            self.at_once -= 1

    async def _chat(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        self.bodies.append(asked)
        prompt = asked["messages"][-1]["content"]
        text = text_of(prompt)
        if asked["model"] not in self.models:
            return self._send(writer, 404, {"error": {"message": f"The model {asked['model']} does not exist."}})
        form = asked.get("response_format", {}).get("type")
        if form and form not in self.knows:
            return self._send(writer, 400, {"error": {"message": f"response_format {form} is not supported"}})
        if "REJECT" in text:
            return self._send(writer, 400, {"error": {"message": "the prompt is too long"}})
        fault = self.fault(text)
        if fault in ENDPOINT:
            self._asked[text] += 1
            if self._asked[text] > self.times:
                fault = ""
        elif fault and self.mended and REMARK in prompt:
            fault = ""
        if fault:
            self.faults[fault] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        match fault:
            case "429":
                after = self.retry_after if self.retry_after != "date" else email.utils.formatdate(time.time() + 1, usegmt=True)
                return self._send(writer, 429, {"error": {"message": "Rate limit reached"}}, {"Retry-After": after})
            case "500" | "503":
                return self._send(writer, int(fault), {"error": {"message": "the engine stumbled"}})
            case "reset":
                return False
            case "hangup":
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"choices":')
                await writer.drain()
                return False
            case "slow":
                await asyncio.sleep(self.slow)
            case "garbage":
                return self._send(writer, 200, b"<html>bad gateway</html>")
            case "odd":
                return self._send(writer, 200, {"choices": []})
        content, finish = self._content(asked, prompt, text, fault)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if fault == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        answer: dict[str, Any] = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        if self.usage:
            answer["usage"] = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(content) // 4}
        self.completed[text] += 1
        return self._send(writer, 200, answer)

    def _content(self, asked: dict[str, Any], prompt: str, text: str, fault: str) -> tuple[str, str]:
        schema = self.schema
        if asked.get("response_format", {}).get("type") == "json_schema":
            schema = asked["response_format"]["json_schema"]["schema"]
        elif TOLD in prompt:
            schema = json.loads(prompt.rpartition(TOLD)[2])
        if "ECHO-KEY" in text:
            return f"the key is {self.key}", f"stop, {self.key}"
        if schema is None:
            written = self.writes(text)
            return {
                "empty": ("", "stop"),
                "truncated": (written[: len(written) // 2], "length"),
                "sorry": ("I'm sorry, but I can't help with rewriting this text.", "stop"),
                "long": (" ".join([written] * 10), "stop"),
                "foreign": ((GERMAN * (1 + len(text) // len(GERMAN)))[: max(len(text), 100)], "stop"),
            }.get(fault, (written, "stop"))
        value = answer_for(text, schema)
        if fault == "range":
            value = {k: v + 1000 if isinstance(v, int | float) and not isinstance(v, bool) else v for k, v in value.items()}
        if fault == "missing":
            value.popitem()
        content = json.dumps(value)
        return {
            "empty": ("", "stop"),
            "malformed": (content[:-2] + ",,", "stop"),
            "truncated": (content[: len(content) // 2], "length"),
            "fenced": (f"<think>{{so}} hm</think>Here it is:\n```json\n{content}\n```", "stop"),
        }.get(fault, (content, "stop"))

    def _send(self, writer: asyncio.StreamWriter, status: int, body: Any, more: dict[str, str] | None = None) -> bool:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [
            f"HTTP/1.1 {status} Whatever",
            "Content-Type: application/json",
            *(f"{k}: {v}" for k, v in (more or {}).items()),
        ]
        if self.chunked:
            third = max(len(data) // 3, 1)
            parts = [data[i : i + third] for i in range(0, len(data), third)]
            data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {len(data)}")
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        return True
