"""The client and the server over real sockets: what a client can know of each way a call can end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest

from interlock.chaos.http_client import AnswerLost, HttpClient, HttpStatusError, NotHttp
from interlock.chaos.http_server import MAX_BODY_BYTES, HttpServer, Reply, Reset, Silence
from interlock.core.clock import SYSTEM


@contextlib.asynccontextmanager
async def serving(answer):
    """Serve `answer` (a value, or a function of the request); yield the port."""

    async def handler(request):
        return answer(request) if callable(answer) else answer

    server = HttpServer(handler, SYSTEM)
    port = await server.start()
    try:
        yield port
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def saying(data: bytes):
    """Answer every connection with these bytes and hang up; yield the port."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def client(port: int, path: str = "") -> HttpClient:
    return HttpClient(f"http://127.0.0.1:{port}{path}")


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_call_arrives_as_it_was_meant():
    seen = []
    async with serving(lambda r: seen.append(r) or Reply(201, {"ok": True}, {"X-Note": "n"})) as port:
        reply = await client(port, "/v1").request(
            "POST", "/tickets", body={"a": "é"}, query={"q": "x y&z"}, headers={"Idempotency-Key": "k"}
        )
    assert (reply.status, reply.body, reply.headers["x-note"]) == (201, {"ok": True}, "n")
    (request,) = seen
    assert (request.method, request.path, request.query, request.body) == (
        "POST",
        "/v1/tickets",
        {"q": "x y&z"},
        {"a": "é"},
    )
    assert request.headers["idempotency-key"] == "k"


async def test_an_error_status_carries_what_a_classifier_reads():
    async with serving(Reply(429, {"error": "slow down"}, {"Retry-After": "0.016"})) as port:
        with pytest.raises(HttpStatusError) as caught:
            await client(port).request("GET", "/x")
    assert caught.value.status == 429
    assert caught.value.headers["retry-after"] == "0.016"
    assert caught.value.body == {"error": "slow down"}


async def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await client(unused.getsockname()[1]).request("GET", "/x")


async def test_a_reset_after_the_request_is_a_lost_answer():
    async with serving(Reset()) as port:
        with pytest.raises(AnswerLost) as caught:
            await client(port).request("POST", "/x", body={})
    assert isinstance(caught.value.__cause__, ConnectionResetError)  # a real RST, not an orderly end


async def test_silence_lasts_until_the_caller_gives_up():
    async with serving(Silence(60.0)) as port:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client(port).request("POST", "/x", body={})


async def test_a_silence_that_ends_is_a_lost_answer():
    async with serving(Silence(0.0)) as port:
        with pytest.raises(AnswerLost):
            await client(port).request("GET", "/x")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", AnswerLost),
        (b"HTTP/1.1 200 OK\r\nContent-Le", AnswerLost),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", AnswerLost),
        (b"SSH-2.0-OpenSSH\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", NotHttp),
    ],
)
async def test_an_answer_that_is_none(data, error):
    async with saying(data) as port:
        with pytest.raises(error):
            await client(port).request("GET", "/x")


@pytest.mark.parametrize(
    "data",
    [
        b'HTTP/1.1 200 OK\r\n\r\n{"a":1}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\n\r\n',
    ],
)
async def test_answers_without_a_length(data):
    async with saying(data) as port:
        assert (await client(port).request("GET", "/x")).body == {"a": 1}


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://host", "http://", "http://host/?q=1"])
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError, match="not the address"):
        HttpClient(url)


async def test_no_header_can_be_smuggled_in():
    with pytest.raises(ValueError, match="line break"):
        await client(1).request("GET", "/x", headers={"Idempotency-Key": "k\r\nHost: evil"})


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n{a:}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 20000\r\n\r\n" + b"[" * 20_000, 400),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
        (f"POST / HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode(), 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
    ],
)
async def test_a_broken_request_is_refused_and_the_server_goes_on(data, status):
    async with serving(Reply(200, {})) as port:
        answer = await raw(port, data)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
        assert (await client(port).request("GET", "/")).status == 200


async def test_a_client_that_goes_away_harms_nobody():
    async with serving(Reply(200, {})) as port:
        assert await raw(port, b"POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\n{") == b""
        assert await raw(port, b"") == b""
        assert (await client(port).request("GET", "/")).status == 200


async def test_a_fault_of_the_handler_is_a_500(capsys):
    def broken(_):
        raise RuntimeError("boom")

    async with serving(broken) as port:
        with pytest.raises(HttpStatusError, match="500"):
            await client(port).request("GET", "/")
    assert "RuntimeError: boom" in capsys.readouterr().err


async def test_a_connection_is_kept_alive_unless_the_client_asks_otherwise():
    async with serving(Reply(200, {})) as port:
        twice = await raw(
            port, b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\nGET /c HTTP/1.1\r\n\r\n"
        )
    assert twice.count(b"HTTP/1.1 200 OK") == 2
