"""What an error says, whoever made it: reason, effect, kind, Retry-After."""

import asyncio
import http.client
import socket
import ssl
import subprocess
from email.message import Message
from urllib.error import HTTPError, URLError

import aiohttp
import httpx
import pytest
import requests

from interlock.core import errors
from interlock.core.clock import SYSTEM
from interlock.core.reasons import StopReason
from interlock.resilience.classify import (
    Failure,
    as_error,
    classify,
    classify_tool_error,
    register_classifier,
)
from interlock.resilience.timeout import NeverStarted, NotStartedInTime, RunDeadline


def httpx_status(status, headers=None, **kw):
    request = httpx.Request("POST", "http://tickets.test/")
    return httpx.HTTPStatusError(
        "boom", request=request, response=httpx.Response(status, headers=headers, request=request, **kw)
    )


def requests_status(status, headers=None):
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers or {})
    return requests.HTTPError("boom", response=response)


def aiohttp_status(status, headers=None):
    return aiohttp.ClientResponseError(None, (), status=status, headers=headers)


def urllib_status(status, headers=None):
    message = Message()
    for name, value in (headers or {}).items():
        message[name] = value
    return HTTPError("http://tickets.test/", status, "boom", message, None)


class OfTheArticle(Exception):
    def __init__(self, status, headers=None):
        self.status = status
        self.headers = headers


class OfAnSdk(Exception):
    def __init__(self, status, headers=None):
        self.status_code = status
        self.response = httpx.Response(status, headers=headers)


HTTP = [httpx_status, requests_status, aiohttp_status, urllib_status, OfTheArticle, OfAnSdk]


@pytest.mark.parametrize("make", HTTP)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 413, 415, 422, 429])
def test_statuses_by_which_the_remote_refuses_are_not_performed(make, status):
    failure = classify(make(status))
    assert (failure.performed, failure.status, failure.kind) == ("no", status, f"http_{status}")
    assert failure.transient == (status == 429)


@pytest.mark.parametrize("make", HTTP)
@pytest.mark.parametrize("status", [402, 408, 409, 410, 423, 425, 451, 500, 501, 502, 503, 504, 505, 511, 599])
def test_every_other_status_is_unknown(make, status):
    failure = classify(make(status))
    assert (failure.performed, failure.status, failure.kind) == ("unknown", status, f"http_{status}")
    assert failure.transient == (status in {408, 425, 500, 502, 503, 504, 599})


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "tool_auth_failed"),
        (407, "tool_auth_failed"),
        (429, "tool_rate_limit"),
        (403, "tool_failed"),
        (500, "tool_failed"),
    ],
)
@pytest.mark.parametrize("make", HTTP)
def test_statuses_have_the_articles_reasons(make, status, reason):
    assert classify(make(status)).reason == reason
    assert classify_tool_error(make(status)) == reason


@pytest.mark.parametrize("make", HTTP)
def test_retry_after_in_seconds(make):
    assert classify(make(429, {"Retry-After": "7"})).retry_after_s == 7.0
    assert classify(make(503, {"Retry-After": " 1.5 "})).retry_after_s == 1.5
    assert classify(make(503)).retry_after_s is None


@pytest.mark.parametrize("make", HTTP)
def test_retry_after_as_a_date(make):
    date = {"Retry-After": "Sun, 22 Nov 2026 10:00:30 GMT"}
    now_s = 1795341600.0  # 2026-11-22 10:00:00 UTC
    assert classify(make(429, date), now_s=now_s).retry_after_s == 30.0
    assert classify(make(429, date), now_s=now_s + 3600).retry_after_s == 0.0, "a date that has passed"
    # The server's own clock is believed where it shows it.
    shown = date | {"Date": "Sun, 22 Nov 2026 10:00:20 GMT"}
    assert classify(make(429, shown), now_s=0.0).retry_after_s == 10.0


def test_retry_after_as_a_date_by_the_machines_clock():
    soon = SYSTEM.wall() + 100
    from email.utils import formatdate

    asked_s = classify(httpx_status(429, {"Retry-After": formatdate(soon, usegmt=True)})).retry_after_s
    assert 98 <= asked_s <= 100


@pytest.mark.parametrize("nonsense", ["", "soon", "nan", "inf", "-5", "1e400", "Sun, 99 Nov 2026 10:00:30 GMT", "\x00"])
def test_a_nonsensical_retry_after_is_none_or_no_wait(nonsense):
    failure = classify(OfTheArticle(429, {"Retry-After": nonsense}))
    assert failure.retry_after_s in {None, 0.0}
    assert failure.reason is StopReason.TOOL_RATE_LIMIT


REQUEST = httpx.Request("POST", "http://tickets.test/")
NOT_PERFORMED = [
    (httpx.ConnectError("x"), "connect_failed", "tool_failed", True),
    (httpx.ConnectTimeout("x"), "connect_timeout", "tool_timeout", True),
    (httpx.PoolTimeout("x"), "pool_timeout", "tool_timeout", True),
    (httpx.ProxyError("x"), "connect_failed", "tool_failed", True),
    (httpx.UnsupportedProtocol("x"), "invalid_request", "tool_failed", False),
    (httpx.InvalidURL("x"), "invalid_request", "tool_failed", False),
    (requests.ConnectTimeout(), "connect_timeout", "tool_timeout", True),
    (requests.exceptions.MissingSchema(), "invalid_request", "tool_failed", False),
    (requests.exceptions.InvalidURL(), "invalid_request", "tool_failed", False),
    (aiohttp.ConnectionTimeoutError(), "connect_timeout", "tool_timeout", True),
    (aiohttp.InvalidURL("x"), "invalid_request", "tool_failed", False),
    (URLError(ConnectionRefusedError()), "connect_refused", "tool_failed", True),
    (URLError(socket.gaierror()), "dns", "tool_failed", True),
    (ConnectionRefusedError(), "connect_refused", "tool_failed", True),
    (socket.gaierror(), "dns", "tool_failed", True),
    (ssl.SSLCertVerificationError(), "tls", "tool_failed", False),
    (http.client.InvalidURL(), "invalid_request", "tool_failed", False),
    (errors.NotPerformed(), "not_performed", "tool_failed", False),
    (NotStartedInTime(), "not_started", "tool_timeout", True),
]
UNKNOWN = [
    (httpx.ReadTimeout("x"), "read_timeout", "tool_timeout", True),
    (httpx.WriteTimeout("x"), "read_timeout", "tool_timeout", True),
    (httpx.ReadError("x"), "connection_lost", "tool_failed", True),
    (httpx.WriteError("x"), "connection_lost", "tool_failed", True),
    (httpx.RemoteProtocolError("x"), "connection_lost", "tool_failed", True),
    (httpx.LocalProtocolError("x"), "exception", "tool_failed", False),
    (httpx.TooManyRedirects("x"), "bad_response", "tool_failed", False),
    (requests.ReadTimeout(), "read_timeout", "tool_timeout", True),
    (requests.ConnectionError(), "connection_lost", "tool_failed", True),
    (requests.exceptions.ChunkedEncodingError(), "connection_lost", "tool_failed", True),
    (requests.TooManyRedirects(), "bad_response", "tool_failed", False),
    (aiohttp.ServerDisconnectedError(), "connection_lost", "tool_failed", True),
    (aiohttp.ServerTimeoutError(), "read_timeout", "tool_timeout", True),
    (aiohttp.ClientOSError(104, "reset"), "connection_lost", "tool_failed", True),
    (aiohttp.ClientPayloadError(), "connection_lost", "tool_failed", True),
    (aiohttp.InvalidUrlRedirectClientError("x"), "bad_response", "tool_failed", False),
    (aiohttp.ContentTypeError(None, (), status=200), "bad_response", "tool_failed", False),
    (URLError(ConnectionResetError()), "connection_lost", "tool_failed", True),
    (URLError("no host given"), "exception", "tool_failed", False),
    (ConnectionResetError(), "connection_lost", "tool_failed", True),
    (BrokenPipeError(), "connection_lost", "tool_failed", True),
    (ssl.SSLEOFError(), "connection_lost", "tool_failed", True),
    (asyncio.IncompleteReadError(b"", 4), "connection_lost", "tool_failed", True),
    (TimeoutError(), "timeout", "tool_timeout", True),
    (subprocess.TimeoutExpired("make", 5), "timeout", "tool_timeout", True),
    (RunDeadline(), "run_deadline", "time_budget", False),
    (asyncio.CancelledError(), "cancelled", "cancelled", False),
    (ValueError("x"), "exception", "tool_failed", False),
    (FileNotFoundError(2, "x"), "exception", "tool_failed", False),
    (OSError(113, "no route"), "exception", "tool_failed", False),
    (EOFError(), "exception", "tool_failed", False),
    (SystemExit(404), "exception", "tool_failed", False),
    (errors.ToolOutputInvalid("t", []), "output_invalid", "tool_output_invalid", False),
    (errors.ToolDenied(), "refused", "tool_denied", False),
]


def named(value):
    return f"{type(value).__module__}.{type(value).__name__}" if isinstance(value, BaseException) else None


@pytest.mark.parametrize(("error", "kind", "reason", "transient"), NOT_PERFORMED, ids=named)
def test_what_proves_that_nothing_was_written(error, kind, reason, transient):
    failure = classify(error)
    assert (failure.performed, failure.kind, failure.reason, failure.transient) == ("no", kind, reason, transient)


@pytest.mark.parametrize(("error", "kind", "reason", "transient"), UNKNOWN, ids=named)
def test_everything_else_is_unknown(error, kind, reason, transient):
    failure = classify(error)
    assert (failure.performed, failure.kind, failure.reason, failure.transient) == ("unknown", kind, reason, transient)


def test_an_attempt_that_never_started_is_not_unknown_though_cancelled():
    assert classify(NeverStarted()) == Failure(StopReason.CANCELLED, "no", "not_started")


def raised(make):
    try:
        make()
    except BaseException as error:
        return error
    raise AssertionError


def test_what_the_tool_makes_of_an_error_proves_nothing():
    def wrap(inner):
        try:
            raise inner
        except Exception as error:
            raise RuntimeError("could not create the ticket") from error

    refused = classify(raised(lambda: wrap(httpx.ConnectError("x"))))
    assert (refused.performed, refused.transient, refused.kind) == ("unknown", True, "connect_failed")
    denied = classify(raised(lambda: wrap(httpx_status(401))))
    assert (denied.performed, denied.reason, denied.status) == ("unknown", "tool_auth_failed", 401)
    clean = classify(raised(lambda: wrap(errors.NotPerformed())))
    assert (clean.performed, clean.kind) == ("unknown", "exception")


def test_an_error_raised_while_another_was_handled_is_judged_by_itself():
    def fallback():
        try:
            raise httpx.ConnectError("primary")
        except httpx.ConnectError:
            raise httpx.ReadTimeout("secondary")  # noqa: B904

    assert classify(raised(fallback)).kind == "read_timeout"

    def after_another_call():
        try:
            raise errors.ToolTimeout("of the call before") from httpx.ReadTimeout("x")
        except errors.ToolTimeout:
            raise httpx.ConnectError("of this call")  # noqa: B904

    assert classify(raised(after_another_call)).performed == "no"

    def after_a_request_of_its_own():
        try:
            raise httpx.ReadTimeout("primary")
        except httpx.ReadTimeout:
            raise httpx.ConnectError("secondary")  # noqa: B904

    assert classify(raised(after_a_request_of_its_own)).performed == "unknown"

    def broken():
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError:
            raise KeyError("x")  # noqa: B904

    assert classify(raised(broken)) == Failure(StopReason.TOOL_FAILED, "unknown", "exception")


def test_one_unknown_in_a_group_makes_the_group_unknown():
    refused, reset = ConnectionRefusedError(), ConnectionResetError()
    assert classify(ExceptionGroup("all", [refused, httpx.ConnectError("x")])).performed == "no"
    assert classify(ExceptionGroup("mixed", [refused, reset])).performed == "unknown"
    assert classify(ExceptionGroup("nested", [ExceptionGroup("in", [ValueError()]), refused])).performed == "unknown"


class McpError(Exception):
    """As mcp 1.x makes it."""

    def __init__(self, code):
        self.error = type("ErrorData", (), {"code": code, "message": "x", "data": None})()


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (408, "read_timeout", "tool_timeout"),
        (-32001, "read_timeout", "tool_timeout"),
        (-32000, "connection_lost", "tool_failed"),
        (-32602, "exception", "tool_failed"),
        (404, "exception", "tool_failed"),
    ],
)
def test_mcp_errors(code, kind, reason):
    failure = classify(McpError(code))
    assert (failure.performed, failure.kind, failure.reason) == ("unknown", kind, reason)
    mcp = pytest.importorskip("mcp.shared.exceptions")
    if hasattr(mcp, "MCPError"):
        assert classify(mcp.MCPError(code, "x")) == failure


def test_a_tools_own_reading_of_statuses_wins():
    outcome = {409: "not_performed", 404: "unknown"}
    assert classify(httpx_status(409), outcome).performed == "no"
    assert classify(httpx_status(404), outcome).performed == "unknown"
    assert classify(httpx_status(500), outcome).performed == "unknown"
    assert classify(httpx.ReadTimeout("x"), outcome).performed == "unknown"
    assert classify(httpx_status(409), {409: "who knows"}).performed == "unknown"


def test_a_tools_own_reading_of_status_and_payload_wins():
    def outcome(status, payload):
        if status is None or not isinstance(payload, dict):
            return None
        return "not_performed" if payload.get("code") == "nothing_done" else "unknown"

    assert classify(httpx_status(500, json={"code": "nothing_done"}), outcome).performed == "no"
    assert classify(httpx_status(404, json={"code": "half"}), outcome).performed == "unknown"
    assert classify(httpx_status(404, text="not json"), outcome).performed == "no"
    assert classify(ConnectionRefusedError(), outcome).performed == "no"


def test_what_a_reading_is_given_as_payload():
    seen = []

    def outcome(status, payload):
        seen.append((status, payload))

    class WithBody(Exception):
        status = 409
        body = "exists"

    for error in (httpx_status(409, json=[1]), httpx_status(409, text="no"), WithBody(), OfTheArticle(409), KeyError()):
        classify(error, outcome)
    assert seen == [(409, [1]), (409, "no"), (409, "exists"), (409, None), (None, None)]


class PageTimeoutError(Exception):
    """As browsers and drivers have it: no TimeoutError, and named like one."""


def test_what_is_named_like_a_timeout_is_one():
    failure = classify(PageTimeoutError())
    assert (failure.performed, failure.kind, failure.reason) == ("unknown", "timeout", "tool_timeout")


def test_a_reading_that_fails_proves_nothing():
    assert classify(httpx_status(404), lambda status, payload: payload["x"]).performed == "unknown"


def test_no_reading_makes_a_cancellation_harmless():
    assert classify(asyncio.CancelledError(), lambda status, payload: "not_performed").performed == "unknown"


class Grpc(Exception):
    pass


def test_a_registered_classifier_is_asked_first_until_it_is_taken_out():
    unavailable = Failure(StopReason.TOOL_FAILED, "no", "grpc_unavailable", transient=True)
    take_out = register_classifier(lambda error: unavailable if isinstance(error, Grpc) else None)
    try:
        assert classify(Grpc()) == unavailable
        assert classify(ValueError()).kind == "exception"
        assert classify_tool_error(Grpc()) is StopReason.TOOL_FAILED
    finally:
        take_out()
    assert classify(Grpc()).kind == "exception"
    take_out()


def test_the_newest_classifier_is_asked_first_and_a_broken_one_is_passed_over():
    def broken(error):
        raise RuntimeError

    first = Failure(StopReason.TOOL_FAILED, "no", "first")
    take_out = [register_classifier(lambda error: first), register_classifier(broken)]
    try:
        assert classify(Grpc()) == first
        take_out.append(register_classifier(lambda error: Failure(StopReason.TOOL_TIMEOUT, "no", "newest")))
        assert classify(Grpc()).kind == "newest"
    finally:
        for unregister in take_out:
            unregister()


@pytest.mark.parametrize("answer", ["no", 7, {"performed": "no"}])
def test_a_classifier_that_answers_with_something_else_is_passed_over(answer):
    take_out = register_classifier(lambda error: answer)
    try:
        assert classify(Grpc()).kind == "exception"
    finally:
        take_out()


def test_a_word_that_is_neither_no_nor_unknown_is_no_proof():
    with pytest.raises(ValueError, match="maybe"):
        Failure(StopReason.TOOL_FAILED, "maybe", "x")


def test_registering_twice_takes_taking_out_twice():
    def fn(error):
        return Failure(StopReason.TOOL_FAILED, "no", "mine")

    one, two = register_classifier(fn), register_classifier(fn)
    one()
    one()
    assert classify(Grpc()).kind == "mine"
    two()
    assert classify(Grpc()).kind == "exception"


class Hostile(Exception):
    @property
    def status(self):
        raise RuntimeError("no")

    @property
    def response(self):
        raise RuntimeError("no")

    headers = response


def test_an_error_with_hostile_attributes_is_unknown():
    assert classify(Hostile()) == Failure(StopReason.TOOL_FAILED, "unknown", "exception")


@pytest.mark.parametrize("status", [True, "429", 429.0, None, 200, 302, 600, -1])
def test_what_is_no_http_error_status_is_none(status):
    assert classify(OfTheArticle(status)).status is None


def test_an_error_that_says_nothing_is_internal_for_the_article():
    assert classify_tool_error(ValueError("x")) is StopReason.INTERNAL_ERROR
    assert classify_tool_error(TimeoutError()) is StopReason.TOOL_TIMEOUT
    assert classify_tool_error(errors.ToolOutputInvalid("t", [])) is StopReason.TOOL_OUTPUT_INVALID
    assert classify_tool_error(errors.BudgetExceeded(StopReason.COST_BUDGET)) is StopReason.COST_BUDGET


SECRET = "sk-very-secret"
TEXTS = [
    Failure(StopReason.TOOL_TIMEOUT, "unknown", "read_timeout", transient=True),
    Failure(StopReason.TOOL_RATE_LIMIT, "no", "http_429", status=429, retry_after_s=9.0, transient=True),
    Failure(StopReason.TOOL_AUTH_FAILED, "no", "http_401", status=401),
    Failure(StopReason.TOOL_FAILED, "unknown", "http_503", status=503, transient=True),
    Failure(StopReason.TOOL_FAILED, "no", "connect_refused", transient=True),
    Failure(StopReason.TOOL_FAILED, "unknown", "exception"),
    Failure(StopReason.TIME_BUDGET, "unknown", "run_deadline"),
]
WHYS = ["", "attempts", "status", "retry_after", "max_retries", "unknown_outcome", "deadline", "stopped", "safe_mode"]


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("failure", TEXTS, ids=lambda f: f.kind)
@pytest.mark.parametrize("why", WHYS)
def test_errors_say_what_is_known_and_never_invite(failure, write, why):
    error = as_error(failure, "ticket.create", ValueError(SECRET), 2, write=write, gave_up=why)
    assert error.reason is failure.reason
    assert "ticket.create" in str(error)
    assert "2 attempts" in str(error)
    assert SECRET not in f"{error} {error.for_model} {error.details}"
    assert "tools." not in error.for_model
    assert "again" not in error.for_model.lower()
    assert "retry" not in error.for_model.lower()
    assert ("not executed" in error.for_model) == (failure.performed == "no")
    assert ("may have happened" in error.for_model) == (write and failure.performed == "unknown")
    assert error.details["performed"] == failure.performed
    assert error.details["attempts"] == 2
    assert error.details.get("gave_up", "") == why


def test_each_reason_has_its_class_and_passing_failures_are_marked():
    made = [as_error(failure, "t", ValueError(), 1, write=False) for failure in TEXTS]
    assert [type(error).__name__ for error in made] == [
        "ToolTimeout", "RateLimited", "AuthFailed", "ToolFailed", "ToolFailed", "ToolFailed", "BudgetExceeded",
    ]  # fmt: skip
    assert [error.transient for error in made] == [True, True, False, True, True, False, False]


def test_an_error_of_our_own_tree_stays_what_it_is():
    denied = errors.ToolDenied("no")
    assert as_error(classify(denied), "t", denied, 1, write=True) is denied


def test_a_classifiers_own_reason_reaches_the_error():
    error = as_error(Failure(StopReason.INVALID_INPUT, "no", "mine"), "t", ValueError(), 1, write=True)
    assert type(error) is errors.ToolFailed
    assert error.reason is StopReason.INVALID_INPUT
    assert errors.ToolFailed.reason is StopReason.TOOL_FAILED
