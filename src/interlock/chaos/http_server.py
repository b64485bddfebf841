"""A small HTTP/1.1 server over asyncio streams that can also misbehave on purpose.

A handler answers with a `Reply`, or with `Silence` (say nothing for a while, then hang up) or `Reset` (a TCP
reset instead of an answer). Connections are kept alive unless the client asks otherwise. Broken requests get
400, 413 or 431; nothing a client sends ends the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from interlock.core.clock import Clock

__all__ = ["MAX_BODY_BYTES", "HttpServer", "Reply", "Request", "Reset", "Silence"]

MAX_BODY_BYTES = 1_000_000
MAX_HEADERS = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; `body` is parsed JSON, or None where there was none."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `body` is written as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer: the connection stays open for `hold_s` seconds and is then closed."""

    hold_s: float


@dataclass(frozen=True, slots=True)
class Reset:
    """No answer: the connection is reset."""


Handler = Callable[[Request], Awaitable[Reply | Silence | Reset]]


class _Refused(Exception):
    """The request cannot be read; `args` are status and text."""


class HttpServer:
    """Serves `handler` on one port until closed.

    Args:
        handler: Answers each request.
        clock: For silences.
    """

    def __init__(self, handler: Handler, clock: Clock) -> None:
        self._handler = handler
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, and return the port."""
        self._server = await asyncio.start_server(self._accept, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, EOFError):
            pass  # the client went away; what was executed stays executed
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays open."""
        request: Request | None = None
        try:
            request = await _read(reader)
            if request is None:
                return False
            answer = await self._handler(request)
        except _Refused as refused:
            answer = Reply(refused.args[0], {"error": {"code": refused.args[1]}})
        except (OSError, EOFError):
            raise
        except Exception as error:  # a fault of ours must not look like a fault on schedule
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            answer = Reply(500, {"error": {"code": "internal"}})
        if isinstance(answer, Silence):
            await self._clock.sleep(answer.hold_s)
            return False
        if isinstance(answer, Reset):
            _reset(writer)
            return False
        stays = request is not None and request.headers.get("connection", "").lower() != "close"
        writer.write(_encode(answer, stays))
        await writer.drain()
        return stays


def _reset(writer: asyncio.StreamWriter) -> None:
    # With a linger of zero seconds, closing sends RST instead of FIN.
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        line = await reader.readline()
        if not line:
            return None
        method, target, version = line.decode("ascii").split()
        headers = await _read_headers(reader)
    except ValueError as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, "malformed_request") from error
    if not version.startswith("HTTP/1."):
        raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "http_1_only")
    url = urlsplit(target)
    body = await _read_body(reader, headers)
    return Request(method.upper(), unquote(url.path), dict(parse_qsl(url.query)), headers, body)


async def _read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = (await reader.readline()).decode("latin-1")
        if line in {"\r\n", "\n", ""}:
            return headers
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("a header without a colon")
        headers[name.strip().lower()] = value.strip()
    raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers")


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> Any:
    if "transfer-encoding" in headers:
        raise _Refused(HTTPStatus.LENGTH_REQUIRED, "content_length_required")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise _Refused(HTTPStatus.BAD_REQUEST, "bad_content_length")
    if int(length) > MAX_BODY_BYTES:
        raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large")
    data = await reader.readexactly(int(length))
    if not data:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, "body_is_not_json") from error


def _encode(reply: Reply, stays: bool) -> bytes:
    body = json.dumps(reply.body, separators=(",", ":")).encode()
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines += [f"Content-Length: {len(body)}", f"Connection: {'keep-alive' if stays else 'close'}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
