"""A small HTTP client over asyncio streams; its errors say what is known, as those of real clients do.

    ConnectionRefusedError, socket.gaierror   nobody listened: nothing was sent
    HttpStatusError                           the server answered 4xx or 5xx: `.status`, `.headers`, `.body`
    AnswerLost                                sent, and the connection broke before the answer
    NotHttp                                   something answered that is not HTTP with JSON

There is no timeout and no retry in here: both are the caller's (`asyncio.timeout`, or the funnel's).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

__all__ = ["AnswerLost", "HttpClient", "HttpReply", "HttpStatusError", "NotHttp"]


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What came back. Header names are lower case; `body` is parsed JSON, or None where it was empty."""

    status: int
    headers: Mapping[str, str]
    body: Any


class HttpStatusError(Exception):
    """The server answered with an error.

    Attributes:
        status: HTTP status, 400 to 599. headers: lower-case names (`retry-after`). body: parsed JSON or None.
    """

    def __init__(self, method: str, path: str, reply: HttpReply) -> None:
        super().__init__(f"{method} {path}: HTTP {reply.status}")
        self.status = reply.status
        self.headers = reply.headers
        self.body = reply.body


class AnswerLost(ConnectionResetError):
    """The request was sent, and the connection broke before the whole answer was there."""


class NotHttp(ConnectionError):
    """What came back is not an HTTP answer with a JSON body."""


class HttpClient:
    """Calls one server; every call has a connection of its own.

    Args:
        base_url: `http://host:port` or `https://…`, with an optional path before every path asked for.

    Raises:
        ValueError: `base_url` is not such an address.
    """

    def __init__(self, base_url: str) -> None:
        url = urlsplit(base_url)
        if url.scheme not in {"http", "https"} or not url.hostname or url.query:
            raise ValueError(f"not the address of an HTTP server: {base_url!r}")
        self.base_url = base_url.rstrip("/")
        self._host = url.hostname
        self._tls = url.scheme == "https"
        self._port = url.port or (443 if self._tls else 80)
        self._prefix = url.path.rstrip("/")

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpReply:
        """Send one request and return the answer; 4xx and 5xx raise `HttpStatusError`."""
        message = self._encode(method, path, body, query or {}, headers or {})
        context = ssl.create_default_context() if self._tls else None
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        try:
            writer.write(message)
            reply = await _read(reader)
        except (ConnectionError, EOFError) as error:
            raise AnswerLost(f"{method} {path}: the connection broke before the answer") from error
        except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
            raise NotHttp(f"{method} {path}: the answer is not HTTP with JSON") from error
        finally:
            # Abort, do not flush: after a timeout there must be nothing left of this call on the wire.
            writer.transport.abort()
        if reply.status >= 400:
            raise HttpStatusError(method, path, reply)
        return reply

    def _encode(self, method: str, path: str, body: Any, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        target = self._prefix + path + (f"?{urlencode(query)}" if query else "")
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            "Accept: application/json",
            "Connection: close",
        ]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if data:
            lines.append("Content-Type: application/json")
        lines += [f"Content-Length: {len(data)}", "", ""]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line break in a path or header")
        return "\r\n".join(lines).encode("latin-1") + data


async def _read(reader: asyncio.StreamReader) -> HttpReply:
    line = (await reader.readline()).decode("latin-1")
    if not line:
        raise EOFError("no answer")
    version, status = line.split()[:2]
    if not version.startswith("HTTP/"):
        raise ValueError("not HTTP")
    headers: dict[str, str] = {}
    while (line := (await reader.readline()).decode("latin-1")) != "\r\n":
        if not line:
            raise EOFError("the answer ends in its headers")
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if "content-length" in headers:
        data = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        data = await _read_chunks(reader)
    else:
        data = await reader.read()
    return HttpReply(int(status), headers, json.loads(data) if data else None)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    return b"".join(parts)
