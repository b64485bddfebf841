"""Errors of other people's libraries, read by the names of their classes, so that none of them is imported.

httpx, httpcore, requests, urllib3, aiohttp, urllib, http.client, mcp, sockets and TLS of the standard library;
and anything that carries an HTTP status. What is not recognised is `None` here, and unknown in `classify`.
"""

from __future__ import annotations

import ssl
from asyncio import IncompleteReadError
from dataclasses import replace
from itertools import islice
from socket import gaierror
from typing import Any

from interlock.core.reasons import StopReason
from interlock.resilience.evidence import already_sent, chain, while_connecting
from interlock.resilience.failure import Failure

__all__ = ["of_status", "recognise", "response_of", "status_of"]

_FAILED, _TIMEOUT = StopReason.TOOL_FAILED, StopReason.TOOL_TIMEOUT

# Proof that a request was refused before it did anything (SEMANTICS: "outcome of an attempt").
NOT_PERFORMED_STATUS = frozenset({400, 401, 403, 404, 405, 406, 413, 415, 422, 429})
_STATUS_REASONS = {
    401: StopReason.TOOL_AUTH_FAILED,
    407: StopReason.TOOL_AUTH_FAILED,
    429: StopReason.TOOL_RATE_LIMIT,
}
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_PERMANENT_5XX = frozenset({501, 505, 510, 511})

CONNECT = Failure(_FAILED, "no", "connect_failed", transient=True)
_CONNECT_TIMEOUT = Failure(_TIMEOUT, "no", "connect_timeout", transient=True)
_POOL = Failure(_TIMEOUT, "no", "pool_timeout", transient=True)
_INVALID = Failure(_FAILED, "no", "invalid_request")
_READ_TIMEOUT = Failure(_TIMEOUT, "unknown", "read_timeout", transient=True)
_ANY_TIMEOUT = Failure(_TIMEOUT, "unknown", "timeout", transient=True)
_LOST = Failure(_FAILED, "unknown", "connection_lost", transient=True)
_BAD = Failure(_FAILED, "unknown", "bad_response", transient=True)
_BAD_FOR_GOOD = Failure(_FAILED, "unknown", "bad_response")
_UNKNOWN = Failure(_FAILED, "unknown", "exception")

_HTTPX = {
    "ConnectError": CONNECT,
    "ProxyError": CONNECT,
    "ConnectTimeout": _CONNECT_TIMEOUT,
    "PoolTimeout": _POOL,
    "UnsupportedProtocol": _INVALID,
    "InvalidURL": _INVALID,
    "ReadTimeout": _READ_TIMEOUT,
    "WriteTimeout": _READ_TIMEOUT,
    "TimeoutException": _ANY_TIMEOUT,
    "ReadError": _LOST,
    "WriteError": _LOST,
    "NetworkError": _LOST,
    "RemoteProtocolError": _LOST,
    "LocalProtocolError": _UNKNOWN,
    "TooManyRedirects": _BAD_FOR_GOOD,
    "DecodingError": _BAD_FOR_GOOD,
}
_REQUESTS = {
    "ConnectTimeout": _CONNECT_TIMEOUT,
    "ProxyError": CONNECT,
    "ReadTimeout": _READ_TIMEOUT,
    "InvalidURL": _INVALID,
    "InvalidSchema": _INVALID,
    "MissingSchema": _INVALID,
    "InvalidHeader": _INVALID,
    "ChunkedEncodingError": _LOST,
    "RetryError": _BAD,
    "TooManyRedirects": _BAD_FOR_GOOD,
    "ContentDecodingError": _BAD_FOR_GOOD,
    "ConnectionError": _LOST,
    "Timeout": _ANY_TIMEOUT,
    # urllib3's own
    "NameResolutionError": CONNECT,
    "NewConnectionError": CONNECT,
    "ConnectTimeoutError": _CONNECT_TIMEOUT,
    "LocationValueError": _INVALID,
    "ReadTimeoutError": _READ_TIMEOUT,
    "TimeoutError": _ANY_TIMEOUT,
    "ProtocolError": _LOST,
    "IncompleteRead": _LOST,
    "ResponseError": _BAD,
}
_AIOHTTP = {
    "InvalidUrlRedirectClientError": _BAD_FOR_GOOD,
    "NonHttpUrlRedirectClientError": _BAD_FOR_GOOD,
    "InvalidURL": _INVALID,
    "ClientConnectorError": CONNECT,
    "ClientConnectorCertificateError": CONNECT,
    "ConnectionTimeoutError": _CONNECT_TIMEOUT,
    "ServerTimeoutError": _READ_TIMEOUT,
    "ClientConnectionError": _LOST,
    "ClientPayloadError": _LOST,
    "ClientResponseError": _BAD_FOR_GOOD,
}
_TABLES = {
    "httpx": _HTTPX,
    "httpx2": _HTTPX,
    "httpcore": _HTTPX,
    "httpcore2": _HTTPX,
    "requests": _REQUESTS,
    "urllib3": _REQUESTS,
    "aiohttp": _AIOHTTP,
    "subprocess": {"TimeoutExpired": _ANY_TIMEOUT},
}
_MCP_TIMEOUTS = {408, -32001}
_MCP_CLOSED = -32000


def recognise(error: BaseException) -> Failure | None:
    """Return what the error's type says of the attempt, or None where it says nothing."""
    found = _recognise(error)
    if found is not None and found.performed == "no" and (already_sent(error) or _after_another(error)):
        # Refused now, but an earlier request of the same attempt had left.
        return replace(found, performed="unknown")
    return found


def _recognise(error: BaseException) -> Failure | None:
    if any(cls.__name__ in {"McpError", "MCPError"} for cls in type(error).__mro__):
        return _of_mcp(error)
    status = status_of(error)
    if status is not None:
        return of_status(status)
    if isinstance(error, BaseExceptionGroup):
        return _of_group(error)
    inner = _wrapped(error)
    if inner is not None:
        return _recognise(inner)
    return _of_name(error) or _of_os(error)


def _after_another(error: BaseException) -> bool:
    """Whether this error arose while another request's failure was being handled (a fallback), itself unknown."""
    for link in islice(chain(error), 1, None):
        status = status_of(link)
        known = _of_name(link) if status is None else of_status(status)
        if known is not None and known.performed == "unknown":
            return True
    return False


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status (400-599) that the error carries, or None."""
    if isinstance(error, SystemExit) or _is_parser_error(error):
        return None
    response = response_of(error)
    for holder, names in ((response, ("status_code", "status")), (error, ("status", "status_code", "code"))):
        for name in names:
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                # The first that is a number decides: later names may be deprecated, and warn when read.
                return int(value) if 400 <= value <= 599 else None
    return None


def response_of(error: BaseException) -> Any:
    """Return the response that the error carries (httpx, requests and their kin), or None."""
    # An httpx error has the attribute always; a requests response is falsy when it is an error.
    return getattr(error, "response", None)


def of_status(status: int) -> Failure:
    """Return what an HTTP status says of the attempt."""
    return Failure(
        _STATUS_REASONS.get(status, _FAILED),
        "no" if status in NOT_PERFORMED_STATUS else "unknown",
        f"http_{status}",
        status=status,
        transient=status in _TRANSIENT_STATUS or (status >= 500 and status not in _PERMANENT_5XX),
    )


def _is_parser_error(error: BaseException) -> bool:
    # aiohttp gives a response that it cannot parse the status 400, as if the server had said so.
    cause = error.__cause__
    return cause is not None and type(cause).__module__ == "aiohttp.http_exceptions"


def _of_mcp(error: BaseException) -> Failure | None:
    code = getattr(getattr(error, "error", None), "code", None)
    if code in _MCP_TIMEOUTS:
        return _READ_TIMEOUT
    return _LOST if code == _MCP_CLOSED else _UNKNOWN


def _of_group(group: BaseExceptionGroup[BaseException]) -> Failure:
    members = [_recognise(member) or _UNKNOWN for member in group.exceptions]
    # One unknown makes the whole unknown; among equals the first speaks.
    return next((member for member in members if member.performed == "unknown"), members[0])


def _wrapped(error: BaseException) -> BaseException | None:
    """Return the error that a library has put inside its own, where the inner one knows better."""
    root = type(error).__module__.partition(".")[0]
    if _is(error, "urllib.error", "URLError"):
        inner = getattr(error, "reason", None)
        return inner if isinstance(inner, BaseException) else None
    if root == "requests" and type(error).__name__ in {"ConnectionError", "SSLError", "RetryError"}:
        return error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
    if root == "urllib3" and type(error).__name__ in {"MaxRetryError", "SSLError"}:
        reason = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        return reason if isinstance(reason, BaseException) else None
    return None


def _is(error: BaseException, module: str, name: str) -> bool:
    """Whether `error` is of this class; modules of the standard library that few tools use stay unimported too."""
    return any(cls.__name__ == name and cls.__module__ == module for cls in type(error).__mro__)


def _of_name(error: BaseException) -> Failure | None:
    for cls in type(error).__mro__:
        found = _TABLES.get(cls.__module__.partition(".")[0], {}).get(cls.__name__)
        if found is not None:
            return _in_detail(error) if found is CONNECT else found
    return None


def _in_detail(error: BaseException) -> Failure:
    """Return why connecting failed, as far as the innermost error tells."""
    for link in chain(error):
        if isinstance(link, ConnectionRefusedError):
            return Failure(_FAILED, "no", "connect_refused", transient=True)
        if isinstance(link, gaierror):
            return Failure(_FAILED, "no", "dns", transient=True)
        if isinstance(link, ssl.SSLError):
            return Failure(_FAILED, "no", "tls", transient=not isinstance(link, ssl.SSLCertVerificationError))
        if isinstance(link, TimeoutError):
            return _CONNECT_TIMEOUT
    return CONNECT


def _of_os(error: BaseException) -> Failure | None:
    if _is(error, "http.client", "InvalidURL"):
        return _INVALID
    if isinstance(error, ConnectionRefusedError | gaierror | ssl.SSLCertVerificationError):
        return _in_detail(error)
    if isinstance(error, OSError) and while_connecting(error):
        return _in_detail(error)
    if isinstance(error, TimeoutError) or any("Timeout" in cls.__name__ for cls in type(error).__mro__):
        return _ANY_TIMEOUT
    if isinstance(error, ConnectionError | ssl.SSLError | IncompleteReadError):
        return _LOST
    if _is(error, "http.client", "HTTPException"):
        return _LOST
    return None
