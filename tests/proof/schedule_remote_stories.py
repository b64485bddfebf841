"""Stories of what remotes and their libraries answer: which of it proves that nothing happened, and which wait is kept."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import urllib.error
from email.utils import formatdate
from typing import Any

import aiohttp
import httpx
import requests
import urllib3
from schedule_telling import Teller, script, story

from interlock import NotPerformed
from interlock.core.reasons import StopReason
from interlock.resilience.classify import register_classifier
from interlock.resilience.failure import Failure

REQUEST = httpx.Request("POST", "https://remote.example/things")


class Answered(Exception):
    """A remote's error answer, as small clients raise it."""

    def __init__(self, status: Any, headers: Any = None, body: Any = None) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.headers, self.body = status, headers, body


class Unreadable(Exception):
    @property
    def status(self) -> int:
        raise RuntimeError("nobody can read this")


class McpError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__("mcp")
        self.error = type("Data", (), {"code": code})()


def of_httpx(status: int, headers: dict[str, str] | None = None, body: bytes = b"{}") -> Exception:
    response = httpx.Response(status, headers=headers, content=body, request=REQUEST)
    return httpx.HTTPStatusError(f"HTTP {status}", request=REQUEST, response=response)


def of_requests(status: int, body: bytes = b"no JSON") -> Exception:
    response = requests.Response()
    response.status_code, response._content = status, body
    return requests.HTTPError(f"HTTP {status}", response=response)


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def reset() -> Exception:
    return ConnectionResetError("reset")


# What is raised, and whether it proves that the write did not happen.
ERRORS: dict[str, tuple[Any, str]] = {
    "refused": (ConnectionRefusedError, "no"),
    "dns": (lambda: socket.gaierror(-2, "no such name"), "no"),
    "certificate": (lambda: ssl.SSLCertVerificationError("not ours"), "no"),
    "tls": (lambda: ssl.SSLError("cut"), "unknown"),
    "reset": (reset, "unknown"),
    "broken pipe": (BrokenPipeError, "unknown"),
    "cut off": (lambda: asyncio.IncompleteReadError(b"", 9), "unknown"),
    "timeout": (TimeoutError, "unknown"),
    "its own exception": (lambda: ValueError("odd"), "unknown"),
    "nothing done": (lambda: NotPerformed("nothing was done"), "no"),
    "from a refusal": (lambda: caused(ValueError("wrapped"), ConnectionRefusedError("refused")), "unknown"),
    "from nothing known": (lambda: caused(ValueError("wrapped"), KeyError("x")), "unknown"),
    "unreadable": (Unreadable, "unknown"),
    "httpx connect": (lambda: httpx.ConnectError("no route", request=REQUEST), "no"),
    "httpx dns": (lambda: caused(httpx.ConnectError("x", request=REQUEST), socket.gaierror(-2, "name")), "no"),
    "httpx refused": (lambda: caused(httpx.ConnectError("x", request=REQUEST), ConnectionRefusedError("x")), "no"),
    "httpx tls": (lambda: caused(httpx.ConnectError("x", request=REQUEST), ssl.SSLError("tls")), "no"),
    "httpx certificate": (
        lambda: caused(httpx.ConnectError("x", request=REQUEST), ssl.SSLCertVerificationError("not ours")),
        "no",
    ),
    "httpx connecting too long": (
        lambda: caused(httpx.ConnectError("x", request=REQUEST), TimeoutError("too long")),
        "no",
    ),
    "httpx connect timeout": (lambda: httpx.ConnectTimeout("slow", request=REQUEST), "no"),
    "httpx pool": (lambda: httpx.PoolTimeout("full", request=REQUEST), "no"),
    "httpx read timeout": (lambda: httpx.ReadTimeout("slow", request=REQUEST), "unknown"),
    "httpx read": (lambda: httpx.ReadError("cut", request=REQUEST), "unknown"),
    "httpx protocol": (lambda: httpx.RemoteProtocolError("cut", request=REQUEST), "unknown"),
    "httpx scheme": (lambda: httpx.UnsupportedProtocol("ftp", request=REQUEST), "no"),
    "httpx redirects": (lambda: httpx.TooManyRedirects("round", request=REQUEST), "unknown"),
    "requests connection": (lambda: requests.ConnectionError("lost"), "unknown"),
    "requests refused": (
        lambda: requests.ConnectionError(
            urllib3.exceptions.MaxRetryError(
                None, "/", caused(urllib3.exceptions.NewConnectionError(None, "x"), ConnectionRefusedError("refused"))
            )
        ),
        "no",
    ),
    "requests read timeout": (lambda: requests.ReadTimeout("slow"), "unknown"),
    "requests schema": (lambda: requests.exceptions.MissingSchema("no scheme"), "no"),
    "urllib3 read": (lambda: urllib3.exceptions.ReadTimeoutError(None, "/", "slow"), "unknown"),
    "urllib3 many": (lambda: urllib3.exceptions.MaxRetryError(None, "/", None), "unknown"),
    "urllib refused": (lambda: urllib.error.URLError(ConnectionRefusedError("refused")), "no"),
    "urllib words": (lambda: urllib.error.URLError("unknown url type"), "unknown"),
    "aiohttp lost": (lambda: aiohttp.ServerDisconnectedError("gone"), "unknown"),
    "aiohttp timeout": (lambda: aiohttp.ServerTimeoutError("slow"), "unknown"),
    "aiohttp payload": (lambda: aiohttp.ClientPayloadError("cut"), "unknown"),
    "aiohttp address": (lambda: aiohttp.InvalidURL("::"), "no"),
    "subprocess": (lambda: subprocess.TimeoutExpired("ls", 3), "unknown"),
    "mcp timeout": (lambda: McpError(-32001), "unknown"),
    "mcp closed": (lambda: McpError(-32000), "unknown"),
    "mcp other": (lambda: McpError(-32602), "unknown"),
    "group, all refused": (
        lambda: ExceptionGroup("all", [ConnectionRefusedError("a"), ConnectionRefusedError("b")]),
        "no",
    ),
    "group, one unknown": (lambda: ExceptionGroup("all", [ConnectionRefusedError("a"), reset()]), "unknown"),
    "group, one odd": (lambda: ExceptionGroup("all", [ConnectionRefusedError("a"), KeyError("b")]), "unknown"),
    "a status that is none": (lambda: Answered(True), "unknown"),
    "a status beyond": (lambda: Answered(700), "unknown"),
    "a status of success": (lambda: Answered(204), "unknown"),
}
STATUSES = (
    400,
    401,
    403,
    404,
    405,
    406,
    407,
    408,
    409,
    413,
    415,
    418,
    422,
    425,
    429,
    500,
    501,
    502,
    503,
    504,
    505,
    511,
)
PROVEN = {400, 401, 403, 404, 405, 406, 413, 415, 422, 429}


def remote(teller: Teller, raised: dict[str, Any], **config: Any) -> Any:
    """Return a gate whose tools fail as `raised` says; calls of them are counted by the story's lines."""
    config.setdefault("tools", {})
    gate = teller.gate(**config)

    def fails(how: str) -> None:
        teller.say("asked:", how)
        error = raised[how]
        if error is not None:
            raise error() if callable(error) else error

    @gate.tool("remote.read", effect="read")
    async def read(how: str) -> dict[str, str]:
        fails(how)
        return {"how": how}

    @gate.tool("remote.put", effect="write")
    async def put(how: str, *, idempotency_key: str) -> dict[str, str]:
        fails(how)
        return {"how": how}

    @gate.tool("remote.post", effect="write", on_unknown="tell", repeat="allow")
    async def post(how: str) -> dict[str, str]:
        fails(how)
        return {"how": how}

    return gate


EASY = {
    "agent": {"budgets": {"max_seconds": 3600}, "max_refusals": None, "stop_on": ["cost_budget"]},
}


def breakers(enabled: bool, **tools: Any) -> dict[str, Any]:
    return {**EASY, "tools": {"allow": ["*"], "circuit_breakers": {"enabled": enabled}, **tools}}


@story("what libraries raise")
async def libraries(teller: Teller) -> None:
    raised = {how: made for how, (made, _) in ERRORS.items()}
    raised |= {f"status {status}": (lambda status=status: Answered(status)) for status in STATUSES}
    proven = {how: proof for how, (_, proof) in ERRORS.items()}
    proven |= {f"status {status}": "no" if status in PROVEN else "unknown" for status in STATUSES}
    gate = remote(teller, raised, **breakers(False))
    seen: list[Any] = []
    await teller.run(gate, script(teller, *([("remote.post", {"how": how})] for how in raised), seen=seen))
    for how, each in zip(raised, seen, strict=True):
        performed = "unknown" if each.reason == StopReason.OUTCOME_UNKNOWN else "no"
        teller.expect(f"{how} proves", performed, proven[how])


@story("reads are tried again where that can help")
async def reads(teller: Teller) -> None:
    raised = {how: made for how, (made, _) in ERRORS.items()}
    raised |= {f"status {status}": (lambda status=status: Answered(status)) for status in STATUSES}
    gate = remote(teller, raised, **breakers(False))
    await teller.run(gate, script(teller, *([("remote.read", {"how": how})] for how in raised)))


@story("how long a remote asks to wait")
async def asked_waits(teller: Teller) -> None:
    now = teller.clock.wall
    half_past = formatdate(now() + 90, usegmt=True)
    raised: dict[str, Any] = {
        "seconds": of_httpx(429, {"Retry-After": "7"}),
        "lower case": Answered(503, {"retry-after": "3"}),
        "a fraction": Answered(429, {"Retry-After": " 2.5 "}),
        "a date": of_httpx(503, {"Retry-After": half_past}),
        "a date by its own clock": of_httpx(
            503, {"Retry-After": half_past, "Date": formatdate(now() + 80, usegmt=True)}
        ),
        "a date and no clock": Answered(429, {"Retry-After": half_past, "Date": "yesterday"}),
        "a date gone by": Answered(429, {"Retry-After": formatdate(now() - 90, usegmt=True)}),
        "no date": Answered(429, {"Retry-After": "soon"}),
        "for ever": Answered(429, {"Retry-After": "inf"}),
        "less than nothing": Answered(429, {"Retry-After": "-5"}),
        "too long": Answered(429, {"Retry-After": "3000"}),
        "beyond an hour": Answered(503, {"Retry-After": "4000"}),
        "headers of another kind": Answered(429, 5),
        "nothing": Answered(429, {}),
    }
    config = breakers(False, retries={"max_attempts": 2, "backoff_ms": [100]})
    config["agent"] = {**EASY["agent"], "budgets": {"max_seconds": 2400}}
    gate = remote(teller, raised, **config)
    seen: list[Any] = []
    for how in raised:
        began_s = teller.clock.monotonic()
        await teller.run(gate, script(teller, [("remote.put", {"how": how})], seen=seen))
        teller.say(how, "took", round(teller.clock.monotonic() - began_s, 3))
        if how == "seconds":
            teller.expect("it waited", round(teller.clock.monotonic() - began_s, 3), 7.0)


@story("a tool says itself what an answer means")
async def readings(teller: Teller) -> None:
    gate = teller.gate(**breakers(False, outcome={"remote.yaml": {409: "not_performed", 404: "unknown"}}))

    def read(status: int | None, payload: Any) -> str | None:
        teller.say("asked what it means:", status, payload)
        if payload == {"code": "broken"}:
            raise KeyError("a rule with a fault")
        return (payload == {"code": "dup"} and "not_performed") or ("unknown" if status == 422 else None)

    raised: dict[str, Any] = {
        "409 dup": of_httpx(409, body=b'{"code": "dup"}'),
        "409 other": of_httpx(409, body=b'{"code": "other"}'),
        "422": of_httpx(422),
        "broken": of_requests(400, b'{"code": "broken"}'),
        "no JSON": of_requests(500),
        "body": Answered(409, None, {"code": "dup"}),
        "404": Answered(404),
        "409": Answered(409),
        "odd": ValueError("odd"),
    }

    def tool(name: str, outcome: Any) -> None:
        @gate.tool(name, effect="write", on_unknown="tell", repeat="allow", outcome=outcome)
        async def post(how: str) -> None:
            raise raised[how]

    tool("remote.rule", read)
    tool("remote.table", {409: "not_performed", 404: "unknown"})
    tool("remote.yaml", None)
    seen: list[Any] = []
    names = ("remote.rule", "remote.table", "remote.yaml")
    await teller.run(gate, script(teller, *([(name, {"how": how}) for name in names] for how in raised), seen=seen))
    told = [each.reason == StopReason.OUTCOME_UNKNOWN for each in seen[:3]]
    teller.expect("409 with a code, unknown by rule, table, file", told, [False, False, False])


@story("a classifier of one's own")
async def classifiers(teller: Teller) -> None:
    def first(error: BaseException) -> Failure | None:
        if isinstance(error, KeyError):
            return Failure(StopReason.TOOL_RATE_LIMIT, "no", "busy", transient=True, retry_after_s=4.0)
        return Failure(StopReason.NO_PROGRESS, "no", "stuck") if isinstance(error, IndexError) else None

    def broken(error: BaseException) -> Failure | None:
        raise RuntimeError("does not work")

    def wordy(error: BaseException) -> Any:
        return "a sentence"

    removes = [register_classifier(each) for each in (first, broken, wordy)]
    try:
        raised = {"busy": KeyError("x"), "stuck": IndexError("y"), "other": ValueError("z")}
        gate = remote(teller, raised, **breakers(False))
        await teller.run(gate, script(teller, *([("remote.post", {"how": how})] for how in raised)))
    finally:
        for remove in removes:
            remove()
            remove()
    await teller.run(gate, script(teller, [("remote.post", {"how": "busy"})]))


@story("a redirect had been followed before it was refused")
async def sent_before(teller: Teller) -> None:
    scopes = {
        "httpx": ("httpx._client", "_send_handling_redirects", "history = ['302']"),
        "httpx, the first": ("httpx._client", "_send_handling_redirects", "history = []"),
        "requests": ("requests.sessions", "resolve_redirects", "pass"),
        "urllib": ("urllib.request", "http_error_302", "pass"),
        "urllib3, read": ("urllib3.connectionpool", "urlopen", "retries = Past(Try(None, TimeoutError()))"),
        "urllib3, status": ("urllib3.connectionpool", "urlopen", "retries = Past(Try(503, None))"),
        "urllib3, connecting": ("urllib3.connectionpool", "urlopen", "retries = Past(Try(None, NewConnectionError()))"),
        "urllib3, none": ("urllib3.connectionpool", "urlopen", "retries = None"),
        "aiohttp, again": ("aiohttp.client", "_request", "history=[]; retry_persistent_connection=False; method='PUT'"),
        "aiohttp, once": ("aiohttp.client", "_request", "history=[]; retry_persistent_connection=True; method='PUT'"),
        "aiohttp, post": ("aiohttp.client", "_request", "history=[]; retry_persistent_connection=False; method='POST'"),
        "socket": ("socket", "create_connection", "pass"),
    }
    past = type("Past", (), {"__init__": lambda self, *tries: setattr(self, "history", tries)})
    tried = type("Try", (), {"__init__": lambda self, status, error: self.__dict__.update(status=status, error=error)})

    def library(module: str, name: str, local: str) -> Any:
        """A function of a library, as the traceback of its failure shows it."""
        names = {"__name__": module, "Past": past, "Try": tried, "ConnectionRefusedError": ConnectionRefusedError}
        names["NewConnectionError"] = type("NewConnectionError", (Exception,), {})
        raises = "OSError('unreachable')" if module == "socket" else "ConnectionRefusedError('refused')"
        exec(f"def {name}():\n    {local}\n    raise {raises}", names)
        return names[name]

    def raising(how: str) -> Any:
        def raised() -> BaseException:
            try:
                library(*scopes[how])()
            except OSError as error:
                return error
            raise AssertionError

        return raised

    def fallen_back() -> BaseException:
        try:
            try:
                raise Answered(502)
            except Answered:
                raise ConnectionRefusedError("the other one is down") from None
        except OSError as error:
            return error

    gate = remote(teller, {how: raising(how) for how in scopes} | {"fallback": fallen_back}, **breakers(False))
    seen: list[Any] = []
    await teller.run(
        gate, script(teller, *([("remote.post", {"how": how})] for how in [*scopes, "fallback"]), seen=seen)
    )
    doubts = [how for how, each in zip([*scopes, "fallback"], seen, strict=True) if each.reason == "outcome_unknown"]
    wanted = ["httpx", "requests", "urllib", "urllib3, read", "urllib3, status", "aiohttp, again", "fallback"]
    teller.expect("in doubt", doubts, wanted)
