"""Real sockets, real libraries: what refused, reset, silent and broken servers come to."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import urllib.request

import aiohttp
import httpx
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry as Urllib3Retry

from interlock.resilience.classify import classify

PATIENCE_S = 0.25  # read timeout of the clients


class Server:
    """Accepts connections on 127.0.0.1 and lets `behave(connection, n)` deal with the n-th, from 1."""

    def __init__(self, behave):
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._kept = []
        self.port = self._listener.getsockname()[1]
        self.requests = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        n = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            n += 1
            self._kept.append(connection)
            with contextlib.suppress(OSError):
                self._behave(self, connection, n)

    def read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return data
            data += more
        self.requests += 1
        return data

    def stop_listening(self):
        # close() alone does not wake accept()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self):
        self.stop_listening()
        self._thread.join(2)
        for connection in self._kept:
            connection.close()


@pytest.fixture
def serve():
    servers = []

    def start(behave):
        servers.append(Server(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def dead_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]  # bound, never listening


def reset(server, connection, n):
    server.read(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up(server, connection, n):
    server.read(connection)
    connection.close()


def silent(server, connection, n):
    server.read(connection)


def garbage(server, connection, n):
    server.read(connection)
    connection.sendall(b"what is this\r\n\r\n")
    connection.close()


def half_a_body(server, connection, n):
    server.read(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    connection.close()


def answer(status, headers="", body=b"{}"):
    def behave(server, connection, n):
        server.read(connection)
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
        connection.sendall(head.encode() + body)
        connection.close()

    return behave


def no_tls(server, connection, n):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.close()


def hangs_up_in_handshake(server, connection, n):
    connection.recv(65536)
    connection.close()


def with_httpx(url):
    httpx.post(url, json={}, timeout=httpx.Timeout(10, read=PATIENCE_S)).raise_for_status()


def with_httpx_async(url):
    async def post():
        async with httpx.AsyncClient(timeout=httpx.Timeout(10, read=PATIENCE_S)) as client:
            (await client.post(url, json={})).raise_for_status()

    asyncio.run(post())


def with_requests(url):
    requests.post(url, json={}, timeout=(10, PATIENCE_S)).raise_for_status()


def with_aiohttp(url):
    async def post():
        async with aiohttp.ClientSession() as session:
            timeout = aiohttp.ClientTimeout(sock_read=PATIENCE_S, sock_connect=10)
            async with session.post(url, json={}, timeout=timeout) as response:
                response.raise_for_status()
                await response.read()

    asyncio.run(post())


def with_urllib(url):
    with urllib.request.urlopen(url, b"{}", timeout=PATIENCE_S) as response:
        response.read()


CLIENTS = [with_httpx, with_httpx_async, with_requests, with_aiohttp, with_urllib]


def failure_of(client, url):
    try:
        client(url)
    except Exception as error:
        return classify(error)
    raise AssertionError("the client did not fail")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_refused_connection_was_not_performed(client, dead_port):
    failure = failure_of(client, f"http://127.0.0.1:{dead_port}/")
    assert (failure.performed, failure.kind, failure.transient) == ("no", "connect_refused", True)


def test_a_refused_bare_connection_was_not_performed(dead_port):
    async def connect():
        await asyncio.open_connection("localhost", dead_port)  # several addresses: one error for all

    failure = failure_of(lambda url: asyncio.run(connect()), "")
    assert (failure.performed, failure.transient) == ("no", True)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_name_that_does_not_resolve_was_not_performed(client, monkeypatch):
    def no_such_name(*args, **kw):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    failure = failure_of(client, "http://tickets.invalid/")
    assert (failure.performed, failure.kind) == ("no", "dns")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("behave", [no_tls, hangs_up_in_handshake])
def test_a_failed_tls_handshake_was_not_performed(client, serve, behave):
    failure = failure_of(client, f"https://127.0.0.1:{serve(behave).port}/")
    assert failure.performed == "no"
    assert failure.kind in {"tls", "connect_failed"}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("behave", [reset, hang_up, half_a_body])
def test_a_connection_lost_after_the_request_is_unknown(client, serve, behave):
    failure = failure_of(client, f"http://127.0.0.1:{serve(behave).port}/")
    assert (failure.performed, failure.kind, failure.transient) == ("unknown", "connection_lost", True)


@pytest.mark.parametrize("client", CLIENTS)
def test_silence_is_a_timeout_and_unknown(client, serve):
    failure = failure_of(client, f"http://127.0.0.1:{serve(silent).port}/")
    assert (failure.performed, failure.reason, failure.transient) == ("unknown", "tool_timeout", True)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_response_that_is_none_is_unknown(client, serve):
    # aiohttp gives it the status 400, as if the server had refused the request.
    failure = failure_of(client, f"http://127.0.0.1:{serve(garbage).port}/")
    assert (failure.performed, failure.status) == ("unknown", None)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("status", "performed", "reason", "transient"),
    [
        (502, "unknown", "tool_failed", True),
        (503, "unknown", "tool_failed", True),
        (422, "no", "tool_failed", False),
        (401, "no", "tool_auth_failed", False),
        (409, "unknown", "tool_failed", False),
    ],
)
def test_statuses(client, serve, status, performed, reason, transient):
    failure = failure_of(client, f"http://127.0.0.1:{serve(answer(status)).port}/")
    assert (failure.performed, failure.status, failure.reason) == (performed, status, reason)
    assert failure.transient == transient


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "headers",
    [
        "Retry-After: 7\r\n",
        "retry-after: 7\r\n",
        "Retry-After: Sun, 22 Nov 2026 10:00:07 GMT\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\n",
    ],
)
def test_429_and_its_retry_after(client, serve, headers):
    failure = failure_of(client, f"http://127.0.0.1:{serve(answer(429, headers)).port}/")
    assert (failure.performed, failure.reason, failure.retry_after_s) == ("no", "tool_rate_limit", 7.0)


# What happened before the connection that failed.


def redirecting_httpx(url):
    httpx.post(url, json={}, timeout=PATIENCE_S, follow_redirects=True)


REDIRECTING = [redirecting_httpx, with_requests, with_aiohttp, with_urllib]


@pytest.mark.parametrize("client", REDIRECTING)
@pytest.mark.parametrize("status", [302, 303])
def test_refused_after_a_redirect_is_unknown_since_the_first_request_arrived(client, serve, dead_port, status):
    server = serve(answer(status, f"Location: http://127.0.0.1:{dead_port}/done\r\n"))
    failure = failure_of(client, f"http://127.0.0.1:{server.port}/")
    assert server.requests == 1
    assert failure.performed == "unknown"
    assert failure.kind == "connect_refused"


def fails_then_stops(server, connection, n):
    server.read(connection)
    server.stop_listening()
    connection.close()


def test_refused_after_a_retry_of_urllib3_is_unknown(serve):
    server = serve(fails_then_stops)

    def client(url):
        session = requests.Session()
        with session:
            session.mount("http://", HTTPAdapter(max_retries=Urllib3Retry(2, allowed_methods=None)))
            session.post(url, timeout=PATIENCE_S)

    failure = failure_of(client, f"http://127.0.0.1:{server.port}/")
    assert server.requests == 1
    assert failure.performed == "unknown"


def test_refused_by_every_retry_of_urllib3_was_not_performed(dead_port):
    def client(url):
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=Urllib3Retry(2, allowed_methods=None)))
            session.post(url, timeout=PATIENCE_S)

    assert failure_of(client, f"http://127.0.0.1:{dead_port}/").performed == "no"


def test_refused_after_aiohttps_own_second_try_is_unknown(serve):
    def once_then_gone(server, connection, n):
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        server.read(connection)
        server.stop_listening()
        connection.close()

    server = serve(once_then_gone)

    def client(url):
        async def put_twice():
            async with aiohttp.ClientSession() as session:
                async with session.put(url) as first:
                    await first.read()
                async with session.put(url):
                    pass

        asyncio.run(put_twice())

    failure = failure_of(client, f"http://127.0.0.1:{server.port}/")
    assert server.requests == 2
    assert failure.performed == "unknown"


def test_a_certificate_that_does_not_fit_will_not_fit_in_a_second(serve, tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    from interlock.core.clock import SYSTEM

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    import datetime as dt

    now = dt.datetime.fromtimestamp(SYSTEM.wall(), dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def shake(server, connection, n):
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass

    server = serve(shake)
    for client in CLIENTS:
        failure = failure_of(client, f"https://127.0.0.1:{server.port}/")
        assert (client, failure.performed, failure.kind, failure.transient) == (client, "no", "tls", False)
