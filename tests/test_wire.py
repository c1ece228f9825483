"""HTTP/1.1 by hand: whatever the pieces in which a response comes, and whatever is wrong with it."""

import asyncio
import contextlib
import datetime
import itertools
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import StageError
from curate.llm import Client, Request
from curate.wire import Reply, Wire


async def serving(pieces: list[bytes], close: bool, seen: list[bytes], tls: ssl.SSLContext | None = None) -> asyncio.Server:
    """A server that answers each request with these pieces of a response."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = [int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
                seen.append(head + await reader.readexactly(sum(size)))
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if close:
                    break
        writer.close()

    return await asyncio.start_server(connection, "127.0.0.1", 0, ssl=tls)


def exchange(
    pieces: list[bytes], close: bool = False, times: int = 1, seen: list[bytes] | None = None, timeout=2.0
) -> list[Reply]:
    async def work() -> list[Reply]:
        server = await serving(pieces, close, [] if seen is None else seen)
        wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", {"Authorization": "Bearer k"})
        try:
            return [await wire.request("POST", "/x", b"{}", timeout) for _ in range(times)]
        finally:
            wire.close()
            server.close()
            await asyncio.sleep(0.01)

    return asyncio.run(work())


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted({a % (len(data) + 1) for a in at}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


BODIES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b:c\r\n\r\nhello\r\n\r\nyo", b"hello\r\n\r\nyo"),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n\r\n0123\r\n\r\n\r\n0\r\n\r\n",
        None,
    ),
    "trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n", b"abc"),
    "continue": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many\r\nContent-Length: 2\r\nretry-AFTER:  7 \r\n\r\nno",
        b"no",
    ),
    "none": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
}
BODIES["chunks"] = (BODIES["chunks"][0], b"hello" + b"\r\n0123\r\n\r\n")


@given(st.sampled_from(sorted(BODIES)), st.lists(st.integers(0, 400), max_size=12))
def test_the_pieces_in_which_a_response_comes_do_not_matter(name, at):
    data, body = BODIES[name]
    seen: list[bytes] = []
    replies = exchange(cut(data, at), times=3, seen=seen)
    assert [r.body for r in replies] == [body] * 3
    assert all(s.startswith(b"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:") and s.endswith(b"\r\n\r\n{}") for s in seen)
    if name == "continue":
        assert replies[0].status == 429 and replies[0].headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "data, close",
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\nuntil the end", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\nuntil the end", True),
    ],
)
def test_connections_that_end_are_opened_again(data, close):
    assert [r.body for r in exchange([data], close, times=3)] == [b"until the end"] * 3


def test_an_idle_connection_that_the_server_closed_is_not_used():
    seen: list[bytes] = []

    async def work() -> None:
        server = await serving([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"], True, seen)
        wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {})
        for _ in range(3):
            assert (await wire.request("GET", "/", b"", 2)).body == b"x"
            await asyncio.sleep(0.05)
        wire.close()
        server.close()

    asyncio.run(work())
    assert len(seen) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\nhello\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_an_error(data):
    with pytest.raises(ValueError, match=r"response|chunk"):
        exchange([data])


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", BODIES["chunks"][0][:60]]
)
def test_a_response_that_ends_early_is_a_reset(data):
    with pytest.raises(ConnectionResetError, match="before it had answered"):
        exchange([data] if data else [], close=True)


def test_silence_is_a_timeout():
    with pytest.raises(TimeoutError):
        exchange([b"HTTP/1.1 200 OK\r\nContent-Le"], timeout=0.1)


def test_more_than_was_asked_for_is_not_taken_for_the_next_answer():
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
    assert [r.body for r in exchange([one + one.replace(b"\r\n\r\na", b"\r\n\r\nb")], times=3)] == [b"a"] * 3


def test_a_proxy_is_used_where_the_environment_names_one(monkeypatch):
    seen: list[bytes] = []

    async def work() -> None:
        server = await serving([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], False, seen)
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{server.sockets[0].getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        wire = Wire("http://models.invalid:8000/v1", {})
        assert (await wire.request("GET", "/models", b"", 2)).body == b"ok"
        wire.close()
        server.close()

    asyncio.run(work())
    assert seen[0].startswith(b"GET http://models.invalid:8000/v1/models HTTP/1.1\r\nHost: models.invalid:8000\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n" in seen[0]


# --------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    """(certificate, key) of localhost and models.invalid, signed by itself, as files."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("models.invalid")]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def over_tls(certificate: tuple[str, str], work: Callable[[int], object]) -> object:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def both() -> object:
        server = await serving([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], False, [], context)
        try:
            return await asyncio.to_thread(work, server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await asyncio.sleep(0.01)

    return asyncio.run(both())


def test_a_certificate_is_checked(certificate, monkeypatch):
    def unknown(port: int) -> None:
        with (
            Client(f"https://localhost:{port}/v1", "m") as client,
            pytest.raises(StageError, match=r"no endpoint at .*: TLS: "),
        ):
            list(client.ask([Request("a")]))

    over_tls(certificate, unknown)
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])

    async def fetch(port: int) -> bytes:
        wire = Wire(f"https://localhost:{port}", {})
        try:
            return (await wire.request("GET", "/", b"", 2)).body
        finally:
            wire.close()

    assert over_tls(certificate, lambda port: asyncio.run(fetch(port))) == b"ok"


def test_tls_goes_through_a_tunnel_of_the_proxy(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    asked: list[bytes] = []

    async def tunnel(port: int) -> bytes:
        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            there, back = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(4096):
                    sink.write(data)

            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.gather(pump(reader, back), pump(there, writer))

        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        wire = Wire("https://models.invalid/v1", {})
        try:
            return (await wire.request("GET", "/models", b"", 2)).body
        finally:
            wire.close()
            server.close()
            await asyncio.sleep(0.01)

    assert over_tls(certificate, lambda port: asyncio.run(tunnel(port))) == b"ok"
    assert asked[0].startswith(b"CONNECT models.invalid:443 HTTP/1.1\r\nHost: models.invalid:443\r\n")
