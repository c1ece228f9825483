"""What the client of language models can keep under way: requests per second against a server that answers in 50 ms.

    python benchmarks/llm_client.py [--latency 0.05] [--seconds 4] [--repeats 3] [--concurrency 1 16 64 256]

Perfect is concurrency / latency. Bar: 90% of that, up to 256 at once, with a schema for every answer and with the cache being
written. Prompts are 3,000 characters that all differ, answers are JSON of 100. The server is a process of its own that reads a
request as far as its length and answers from a constant after the latency; what it manages is measured first with no client of
ours (sockets that are written to and read by hand), since a share of what the server cannot give says nothing.

Prints medians with the smallest and largest value, and the client's CPU time per request. Needs two free cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SAID = json.dumps(
    {"justification": "Some facts stand in no order among advertising; steps one and two.", "educational_score": 2}
)
BODY = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 800, "completion_tokens": 30, "total_tokens": 830},
    }
).encode()
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
PROMPT = "word " * 600


class Answering(asyncio.Protocol):
    """Answers every request after the same time."""

    latency = 0.05

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end]).lower()
            at = head.find(b"content-length:")
            size = end + 4 + (int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0)
            if len(self.buffer) < size:
                return
            del self.buffer[:size]
            asyncio.get_running_loop().call_later(self.latency, self._answer)

    def _answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(REPLY)  # type: ignore[attr-defined]


async def serve(latency: float) -> None:
    Answering.latency = latency
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Bare(asyncio.Protocol):
    """One request after the other, none of whose answers is looked at: what the server can do."""

    def __init__(self, request: bytes, count: list[int], until: float):
        self.request, self.count, self.until, self.left = request, count, until, len(REPLY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left == 0:
            self.count[0] += 1
            self.left = len(REPLY)
            if time.perf_counter() < self.until:
                self.transport.write(self.request)  # type: ignore[attr-defined]
            else:
                self.transport.close()


def bare(port: int, concurrency: int, seconds: float) -> tuple[float, float]:
    async def work() -> float:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}]}).encode()
        request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        count, started = [0], time.perf_counter()
        loop = asyncio.get_running_loop()
        for _ in range(concurrency):
            await loop.create_connection(lambda: Bare(request, count, started + seconds), "127.0.0.1", port)
        await asyncio.sleep(started + seconds - time.perf_counter())
        return count[0] / (time.perf_counter() - started)

    before = time.process_time()
    rate = asyncio.run(work())
    return rate, (time.process_time() - before) / max(rate * seconds, 1)


def ours(port: int, concurrency: int, requests: int, cache: Path | None) -> tuple[float, float]:
    """(requests per second, CPU seconds per request), the opening of connections included."""
    from curate.llm import Client, Request, load_prompt

    schema = load_prompt("fineweb_edu").schema
    asked = [Request(f"{i} {PROMPT}", schema=schema, tag=i) for i in range(requests)]
    with Client(f"http://127.0.0.1:{port}/v1", "m", concurrency=concurrency, cache=cache) as client:
        list(client.ask([Request("warm", schema=schema)]))
        started, before = time.perf_counter(), time.process_time()
        done = sum(answer.ok for answer in client.ask(asked, ordered=False))
        seconds, cpu = time.perf_counter() - started, time.process_time() - before
    if done != requests:
        raise SystemExit(f"only {done} of {requests} were answered")
    return requests / seconds, cpu / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.latency))
        return
    command = [sys.executable, __file__, "--serve", "--latency", str(args.latency)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for concurrency in args.concurrency:
                perfect = concurrency / args.latency
                requests = max(int(perfect * args.seconds), 10)
                sides: dict[str, Callable[[int], tuple[float, float]]] = {
                    "bare sockets": lambda i, c=concurrency: bare(port, c, args.seconds),
                    "client": lambda i, c=concurrency, n=requests: ours(port, c, n, None),
                    "client, cache": lambda i, c=concurrency, n=requests: ours(port, c, n, Path(scratch, f"{c}-{i}")),
                }
                for name, side in sides.items():
                    found = [side(i) for i in range(args.repeats)]
                    rates = sorted(rate for rate, _ in found)
                    rate = statistics.median(rates)
                    cpu = statistics.median(cpu for _, cpu in found) * 1e6
                    print(
                        f"{concurrency:4} at once, {name:14} {rate:8,.1f}/s [{rates[0]:,.1f}–{rates[-1]:,.1f}]"
                        f"  {rate / perfect:6.1%} of {perfect:,.0f}/s  {cpu:6.0f} µs of CPU a request",
                        flush=True,
                    )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
