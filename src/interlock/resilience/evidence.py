"""What a traceback proves about when a connection failed: while connecting, or after something had been sent.

A refused connection usually means that nothing was written. Not so after a redirect or a retry inside the HTTP
library: then an earlier request had already arrived. The frames of the traceback tell the two apart. Only the
failure path comes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Any

from interlock.core.errors import InterlockError

__all__ = ["already_sent", "chain", "while_connecting"]

_CONNECTING = {
    ("ssl", "do_handshake"),
    ("socket", "create_connection"),
    ("socket", "getaddrinfo"),
    ("urllib3.util.connection", "create_connection"),
    ("asyncio.base_events", "create_connection"),
    ("asyncio.base_events", "_ensure_resolved"),
    ("asyncio.base_events", "_connect_sock"),
    ("anyio._core._sockets", "connect_tcp"),
}
# A library's function that sends again, and the local that holds what came before.
_REDIRECTING = {
    ("httpx", "_send_handling_redirects"): "history",
    ("httpx2", "_send_handling_redirects"): "history",
    ("aiohttp", "_request"): "history",
}
_ALWAYS_SECOND = {("requests", "resolve_redirects"), ("urllib", "http_error_302")}
_IDEMPOTENT_FOR_AIOHTTP = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
_NOT_SENT_BY_URLLIB3 = {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError"}
_MAX_DEPTH = 12


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it was raised from or after, outermost first, suppressed contexts included.

    It ends at an error of our own: that belongs to another call, whose failure was being handled when this one began.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _MAX_DEPTH:
        if isinstance(current, InterlockError):
            return
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def while_connecting(error: BaseException) -> bool:
    """Whether the error was raised while connecting (name, TCP or TLS), so that nothing had been written on it."""
    return any((frame.f_globals.get("__name__"), frame.f_code.co_name) in _CONNECTING for frame in _frames(error))


def already_sent(error: BaseException) -> bool:
    """Whether the HTTP library had sent a request before the one that failed: a redirect, or its own retry."""
    return any(_is_second(frame) for link in chain(error) for frame in _frames(link))


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _is_second(frame: FrameType) -> bool:
    place = (str(frame.f_globals.get("__name__")).partition(".")[0], frame.f_code.co_name)
    if place in _ALWAYS_SECOND:
        return True
    if place == ("urllib3", "urlopen"):
        return _urllib3_retried(frame.f_locals.get("retries"))
    before = _REDIRECTING.get(place)
    if before is None:
        return False
    return bool(frame.f_locals.get(before)) or (place[0] == "aiohttp" and _aiohttp_retried(frame.f_locals))


def _urllib3_retried(retries: Any) -> bool:
    # Earlier tries that failed to connect sent nothing; any other did.
    return any(
        past.status is not None or type(past.error).__name__ not in _NOT_SENT_BY_URLLIB3
        for past in getattr(retries, "history", ())
    )


def _aiohttp_retried(names: dict[str, Any]) -> bool:
    # aiohttp sends idempotent requests once more, on a new connection, when the server closed an idle one.
    return names.get("retry_persistent_connection") is False and names.get("method") in _IDEMPOTENT_FOR_AIOHTTP
