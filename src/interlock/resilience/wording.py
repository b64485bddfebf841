"""A classified failure becomes an error of our tree, which says what is known and what is not.

The developer's text names the setting to change. The model's never does, never echoes content, and never
invites another try.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from interlock.core.errors import AuthFailed, BudgetExceeded, InterlockError, RateLimited, ToolFailed, ToolTimeout
from interlock.core.reasons import StopReason
from interlock.resilience.failure import Failure
from interlock.resilience.threads import ToolExit

__all__ = ["as_error"]

_NOT_EXECUTED = " The call was not executed."
_MAYBE_EXECUTED = " This write may have happened; it is not known whether it did. Do not repeat it."

_SAID = {
    StopReason.TOOL_TIMEOUT: "The tool did not answer in time.",
    StopReason.TOOL_RATE_LIMIT: "The tool is rate limited.",
    StopReason.TOOL_AUTH_FAILED: "The tool rejected our credentials.",
    StopReason.TIME_BUDGET: "The time for this run is used up.",
}


def as_error(
    failure: Failure, tool_name: str, cause: BaseException, attempts: int, *, write: bool, gave_up: str = ""
) -> InterlockError:
    """Return what the call raises after its last attempt.

    Args:
        failure: Of the last attempt. `performed` should be `unknown` if any attempt's was.
        cause: What the tool raised; an error of our own tree is returned unchanged.
        attempts: Attempts made.
        write: Whether the call changes the world: then the model is told that it may have.
        gave_up: Why no further attempt was made, for the record (see `retry.GiveUp`).

    Returns:
        ToolTimeout, RateLimited, AuthFailed, BudgetExceeded (the run's deadline) or ToolFailed, without `__cause__`.
    """
    if isinstance(cause, InterlockError):
        return cause
    details: dict[str, Any] = {
        "raised": _raised(cause),
        "kind": failure.kind,
        "performed": failure.performed,
        "attempts": attempts,
    }
    place = _place(cause) if failure.kind == "exception" else ""
    if place:
        details["at"] = place
    if failure.status is not None:
        details["status"] = failure.status
    if failure.retry_after_s is not None:
        details["retry_after_s"] = failure.retry_after_s
    if gave_up:
        details["gave_up"] = gave_up
    what, hint = _what(failure, tool_name, details["raised"], place), _hint(failure, tool_name, gave_up)
    message = f"{what} ({_count(attempts)}{hint})"
    for_model = _for_model(failure, write=write)
    match failure.reason:
        case StopReason.TOOL_TIMEOUT:
            return ToolTimeout(message, for_model=for_model, details=details)
        case StopReason.TOOL_RATE_LIMIT:
            return RateLimited(message, for_model=for_model, details=details)
        case StopReason.TOOL_AUTH_FAILED:
            return AuthFailed(message, for_model=for_model, details=details)
        case StopReason.TIME_BUDGET:
            return BudgetExceeded(StopReason.TIME_BUDGET, message, for_model=for_model, details=details)
    error = ToolFailed(message, for_model=for_model, details=details)
    error.transient = failure.transient
    if failure.reason is not StopReason.TOOL_FAILED:
        error.reason = failure.reason  # a classifier of the user's own chose it
    return error


def _for_model(failure: Failure, *, write: bool) -> str:
    said = _SAID.get(failure.reason)
    if said is None:
        said = "The tool failed." if failure.status is None else f"The tool failed with HTTP status {failure.status}."
    if failure.performed == "no":
        return said + _NOT_EXECUTED
    return said + _MAYBE_EXECUTED if write else said


def _what(failure: Failure, tool_name: str, raised: str, place: str) -> str:
    if failure.status is not None:
        return f"{tool_name}: HTTP {failure.status}"
    if failure.kind == "exception":
        return f"{tool_name}: raised {raised}{' at ' if place else ''}{place}"
    return f"{tool_name}: {failure.kind.replace('_', ' ')}, {raised}"


def _raised(cause: BaseException) -> str:
    tools_own = cause.__cause__ if isinstance(cause, ToolExit) else None
    return type(cause if tools_own is None else tools_own).__name__


def _place(cause: BaseException) -> str:
    """Return file and line at which the tool's exception was raised: what a developer needs, and no content."""
    trace = cause.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _count(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _hint(failure: Failure, tool_name: str, gave_up: str) -> str:
    if gave_up == "retry_after" and failure.retry_after_s is not None:
        return f"; the remote asks to wait {failure.retry_after_s:g} s, more than agent.budgets.max_seconds leaves"
    if gave_up == "max_retries":
        return f'; tools.budgets."{tool_name}".max_retries is used up'
    if gave_up == "status":
        return f"; tools.retries.retryable_status leaves {failure.status} out"
    if gave_up == "unknown_outcome":
        return f'; not sent again: tools.writes."{tool_name}".on_unknown is not resend'
    match failure.reason:
        case StopReason.TOOL_TIMEOUT:
            return f'; tools.timeouts_s."{tool_name}" sets the limit of one attempt'
        case StopReason.TOOL_RATE_LIMIT:
            return f'; tools.limits."{tool_name}".rate_per_s keeps below the remote\'s limit'
        case StopReason.TOOL_AUTH_FAILED:
            return "; check the credentials that the tool uses"
        case StopReason.TIME_BUDGET:
            return "; agent.budgets.max_seconds cut it"
    return "; tools.retries.max_attempts allows no more" if gave_up == "attempts" else ""
