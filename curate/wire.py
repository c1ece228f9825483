"""HTTP/1.1 to one server from asyncio: many requests at once over connections that stay open.

A client of language models sends thousands of small requests a second to one address and needs nothing of HTTP but POST, GET,
lengths and chunks. General clients spend 150 µs of a core on each, which at 256 requests of 50 ms at once is most of a core;
this spends a quarter of that, and needs no package.

TLS is the standard library's with its default checks. `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` hold. Redirects are not
followed: what a request carries goes to the server that was named and to no other.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import time
from typing import NamedTuple, cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

IDLE = 3.0  # seconds after which an open connection is not used again: common servers close it after 5
LARGEST_HEAD = 1 << 16
LARGEST_BODY = 1 << 26


class Reply(NamedTuple):
    """A response. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """Connections to one server. Every method belongs to one event loop.

    base: `http://host[:port][/path]` or https. headers: sent with every request. connect: seconds that opening a connection
    may take. Requests raise OSError (refused, reset, no such host, TLS), TimeoutError, or ValueError for what is not HTTP.
    """

    def __init__(self, base: str, headers: dict[str, str], connect: float = 10.0):
        parts = urlsplit(base)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._connect = connect
        self._idle: list[tuple[_Connection, float]] = []
        self._open: set[_Connection] = set()
        self._proxy = _proxy(parts)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = f"{host}:{self._port}"
        shown = host if parts.port is None else self._authority
        given = {"Host": shown, "Accept": "application/json", "Accept-Encoding": "identity", **headers}
        if self._proxy and not self._secure and (pair := _credentials(self._proxy)):
            given["Proxy-Authorization"] = pair
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in given.items()).encode("latin-1")
        self._path = parts.path.rstrip("/")
        if self._proxy and not self._secure:
            self._path = f"http://{self._authority}{self._path}"
        self._tls = ssl.create_default_context() if self._secure else None

    async def request(self, method: str, path: str, body: bytes, timeout: float) -> Reply:
        """One exchange. timeout: seconds from the first byte sent to the last received, on top of `connect`."""
        connection = self._pop()
        if connection is None:
            connection = await self._opened()
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) if body else b""
        head = b"%s %s HTTP/1.1\r\n%s%s\r\n" % (method.encode(), f"{self._path}{path}".encode(), self._headers, length)
        clock = asyncio.get_running_loop().call_later(timeout, connection.expire)  # half the price of asyncio.timeout
        try:
            reply = await connection.exchange(head + body)
        except BaseException:  # cancelled too: what would still arrive belongs to nobody
            self._drop(connection)
            raise
        finally:
            clock.cancel()
        if connection.reusable:
            self._idle.append((connection, time.monotonic()))
        else:
            self._drop(connection)
        return reply

    def close(self) -> None:
        """Close every connection; requests under way fail."""
        for connection in [*self._open]:
            self._drop(connection)
        self._idle.clear()

    def _pop(self) -> _Connection | None:
        now = time.monotonic()
        while self._idle:
            connection, since = self._idle.pop()
            if connection.reusable and now - since < IDLE:
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.abort()

    async def _opened(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect):
            if self._proxy is None:
                _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
            else:
                connection = await self._through(self._proxy)
        self._open.add(connection)
        return connection

    async def _through(self, proxy: SplitResult) -> _Connection:
        """A connection to the proxy; for TLS a tunnel through it."""
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(_Connection, proxy.hostname or "", proxy.port or 80)
        if self._tls is None:
            return connection
        try:
            pair = _credentials(proxy)
            more = f"Proxy-Authorization: {pair}\r\n" if pair else ""
            ask = f"CONNECT {self._authority} HTTP/1.1\r\nHost: {self._authority}\r\n{more}\r\n"
            reply = await connection.exchange(ask.encode("latin-1"), tunnel=True)
            if reply.status != 200:
                raise ConnectionError(f"the proxy {proxy.hostname} answers {reply.status} to CONNECT")
            secure = await loop.start_tls(transport, connection, self._tls, server_hostname=self._host)
        except BaseException:
            transport.abort()
            raise
        if secure is None:
            raise ConnectionError("TLS through the proxy failed")
        connection.transport = secure
        return connection


def _proxy(parts: SplitResult) -> SplitResult | None:
    host = parts.hostname or ""
    found = getproxies().get(parts.scheme)
    if not found or host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    return proxy if proxy.scheme == "http" and proxy.hostname else None


def _credentials(proxy: SplitResult) -> str:
    if proxy.username is None:
        return ""
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


_NO_BODY = frozenset({204, 304})


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reusable = True
        self._waiter: asyncio.Future[Reply] | None = None
        self._begin(False)

    def _begin(self, tunnel: bool) -> None:
        self._buffer = bytearray()
        self._status, self._headers = 0, dict[str, str]()
        self._need = -1  # bytes of the body; -1 before the head is there, -2 for chunks, -3 for all until the end
        self._chunks = bytearray()
        self._tunnel = tunnel

    async def exchange(self, data: bytes, tunnel: bool = False) -> Reply:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self._begin(tunnel)
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self._waiter

    def expire(self) -> None:
        self._fail(TimeoutError())

    def abort(self) -> None:
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.abort()  # more than was asked for
            return
        self._buffer += data
        try:
            self._advance()
        except ValueError as error:
            self._fail(error)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._need == -3 and error is None:
            self._done(bytes(self._buffer))
        else:
            self._fail(ConnectionResetError("the server closed the connection before it had answered"))

    # the response

    def _advance(self) -> None:
        while self._need == -1:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > LARGEST_HEAD:
                    raise ValueError("the head of the response has no end")
                return
            self._head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        if self._need == -2:
            self._dechunk()
        elif self._need >= 0 and len(self._buffer) >= self._need:
            if len(self._buffer) > self._need:
                self.reusable = False
            self._done(bytes(self._buffer[: self._need]))
        elif len(self._buffer) > LARGEST_BODY:
            raise ValueError("the response is too long")

    def _head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("the response is not HTTP/1.1")
        status = int(rest[:3])
        if 100 <= status < 200:
            return  # something final follows
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self._status, self._headers = status, headers
        connection = headers.get("connection", "").lower()
        if "close" in connection or (version == "HTTP/1.0" and "keep-alive" not in connection):
            self.reusable = False
        if status in _NO_BODY or (self._tunnel and status == 200):
            self._need = 0
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._need = -2
        elif (length := headers.get("content-length")) is not None:
            if not (length.isascii() and length.isdigit()):
                raise ValueError("the response has a length that is no number")
            self._need = int(length)
            if self._need > LARGEST_BODY:
                raise ValueError("the response is too long")
        else:
            self._need, self.reusable = -3, False

    def _dechunk(self) -> None:
        buffer = self._buffer
        while True:
            end = buffer.find(b"\r\n")
            if end < 0:
                if len(buffer) > LARGEST_HEAD:
                    raise ValueError("the response has a chunk without a length")
                return
            size = bytes(buffer[:end]).partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size):
                raise ValueError("the response has a chunk without a length")
            n = int(size, 16)
            if len(self._chunks) + n > LARGEST_BODY:
                raise ValueError("the response is too long")
            if n == 0:
                trailer = buffer.find(b"\r\n\r\n", end)
                if trailer >= 0:
                    self._done(bytes(self._chunks))
                return
            if len(buffer) < end + 4 + n:
                return
            self._chunks += buffer[end + 2 : end + 2 + n]
            del buffer[: end + 4 + n]

    def _done(self, body: bytes) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Reply(self._status, self._headers, body))

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
