"""Every failure of a tool gets a reason, and the truth about its effect: surely not performed, or unknown.

*Not performed* needs proof: a refused connection, a failed name or handshake, nothing written, a status by
which the remote refused the request, or `NotPerformed` raised by the tool. Everything else is unknown: a
timeout, a reset, a 5xx, a cancellation, and any exception of the tool's own, whatever it was raised from.
"""

from __future__ import annotations

import math
import threading
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from interlock.core.clock import SYSTEM
from interlock.core.errors import InterlockError, NotPerformed, ToolOutputInvalid
from interlock.core.reasons import StopReason
from interlock.resilience.failure import Failure, Performed
from interlock.resilience.foreign import recognise, response_of
from interlock.resilience.timeout import NeverStarted, NotStartedInTime, RunDeadline
from interlock.resilience.wording import as_error

__all__ = ["Failure", "as_error", "classify", "classify_tool_error", "register_classifier"]

Classifier = Callable[[BaseException], "Failure | None"]
Outcome = Mapping[int, str] | Callable[[int | None, Any], str | None] | None

_UNKNOWN = Failure(StopReason.TOOL_FAILED, "unknown", "exception")

_classifiers: tuple[tuple[Classifier], ...] = ()
_classifiers_lock = threading.Lock()


def register_classifier(fn: Classifier) -> Callable[[], None]:
    """Ask `fn` about every error before our own rules; return the function that takes it out again.

    `fn` returns a Failure, or None for what it does not know. One that raises is passed over.
    The newest is asked first.
    """
    global _classifiers  # noqa: PLW0603 - replaced as a whole, so that readers need no lock
    entry = (fn,)  # a box of its own: registered twice, it is removed once at a time
    with _classifiers_lock:
        _classifiers = (entry, *_classifiers)

    def unregister() -> None:
        global _classifiers  # noqa: PLW0603
        with _classifiers_lock:
            _classifiers = tuple(kept for kept in _classifiers if kept is not entry)

    return unregister


def classify(error: BaseException, outcome: Outcome = None, *, now_s: float | None = None) -> Failure:
    """Say what a failed attempt came to.

    Args:
        error: What the tool raised.
        outcome: The tool's own reading of statuses: `{409: "not_performed"}`, or a function of (status, payload)
            that returns `"not_performed"`, `"unknown"` or None for the default. It wins over every default.
        now_s: Wall-clock seconds, for a Retry-After that is a date; the machine's clock when left out.
    """
    known = _of_our_own(error)
    if known is not None:
        return known
    failure = _registered(error) or _safely_recognised(error) or _UNKNOWN
    if failure.retry_after_s is None:
        asked_s = _retry_after_s(error, now_s)
        if asked_s is not None:
            failure = replace(failure, retry_after_s=asked_s)
    if outcome is not None:
        performed = _declared(outcome, failure, error)
        if performed is not None and performed != failure.performed:
            failure = replace(failure, performed=performed)
    return failure


def classify_tool_error(error: BaseException) -> StopReason:
    """Map what a tool raised to a stop reason; an error that says nothing is `internal_error`."""
    failure = classify(error)
    return StopReason.INTERNAL_ERROR if failure.kind == "exception" else failure.reason


def _of_our_own(error: BaseException) -> Failure | None:
    if isinstance(error, NotPerformed):
        return Failure(StopReason.TOOL_FAILED, "no", "not_performed")
    if isinstance(error, NeverStarted):
        return Failure(StopReason.CANCELLED, "no", "not_started")
    if isinstance(error, CancelledError):
        return Failure(StopReason.CANCELLED, "unknown", "cancelled")
    if isinstance(error, NotStartedInTime):
        return Failure(StopReason.TOOL_TIMEOUT, "no", "not_started", transient=True)
    if isinstance(error, RunDeadline):
        return Failure(StopReason.TIME_BUDGET, "unknown", "run_deadline")
    if isinstance(error, ToolOutputInvalid):
        return Failure(error.reason, "unknown", "output_invalid")
    if isinstance(error, InterlockError):
        # A guarded call inside the tool was refused; what the tool had done before that is not known.
        return Failure(error.reason, "unknown", "refused")
    return None


def _registered(error: BaseException) -> Failure | None:
    for (classifier,) in _classifiers:
        try:
            failure = classifier(error)
        except Exception:  # noqa: S112 - a broken classifier knows nothing; the next may
            continue
        if isinstance(failure, Failure):
            return failure
    return None


def _safely_recognised(error: BaseException) -> Failure | None:
    """Recognise the error, or what it was raised from: that tells why, never that nothing happened."""
    try:
        found = recognise(error)
        if found is None and error.__cause__ is not None:
            cause = recognise(error.__cause__)
            return None if cause is None else replace(cause, performed="unknown")
    except Exception:
        return None  # an attribute of the error raises: it says nothing
    return found


def _declared(
    outcome: Mapping[int, str] | Callable[..., Any], failure: Failure, error: BaseException
) -> Performed | None:
    try:
        if isinstance(outcome, Mapping):
            said = None if failure.status is None else outcome.get(failure.status)
        else:
            said = outcome(failure.status, _payload(error))
    except Exception:
        return "unknown"  # a rule that fails proves nothing
    if said is None:
        return None
    return "no" if said in {"not_performed", "no"} else "unknown"


def _payload(error: BaseException) -> Any:
    response = response_of(error)
    if response is None:
        return getattr(error, "body", None)
    try:
        return response.json()
    except Exception:
        return getattr(response, "text", None)


def _retry_after_s(error: BaseException, now_s: float | None) -> float | None:
    try:
        headers = getattr(response_of(error), "headers", None) or getattr(error, "headers", None)
        if headers is None:
            return None
        text = headers.get("Retry-After") or headers.get("retry-after")
        return None if text is None else _seconds(str(text).strip(), headers.get("Date"), now_s)
    except Exception:
        return None


def _seconds(text: str, date: Any, now_s: float | None) -> float | None:
    try:
        asked_s = float(text)
    except ValueError:
        until_s = _http_date(text)
        # The server's own clock, where it tells it, so that ours may be wrong.
        asked_s = until_s - (_timestamp(date) or (SYSTEM.wall() if now_s is None else now_s))
    return max(0.0, asked_s) if math.isfinite(asked_s) else None


def _http_date(text: str) -> float:
    # Dates are rare, and the module behind this costs more to import than all of the rest here.
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    return parsedate_to_datetime(text).timestamp()


def _timestamp(date: Any) -> float | None:
    try:
        return _http_date(str(date))
    except ValueError:
        return None
