"""One tree of errors; every class that can end a run carries its stop reason.

    InterlockError
    ├── ConfigError            the configuration or a registration is wrong; says which line or name to change
    ├── NoRun                  a guarded tool was called outside a run
    ├── RunStopped             a stop is decided: nothing more is done in this run
    ├── AlreadyEnded           `open_run`: this request has its outcome
    ├── AlreadyRunning         `open_run`: another worker has this request
    ├── LeaseLost              another worker took this run over
    ├── StoreUnavailable       the store cannot be written: writes are refused
    ├── ToolDenied             policy, a switch or a scope says no
    ├── BudgetExceeded         cannot be afforded: calls, steps, seconds, tokens, dollars
    ├── LoopDetected           the same again, or no progress
    ├── InvalidArguments       arguments do not fit the tool's schema
    ├── CircuitOpen            the tool is failing and is not called
    ├── ApprovalDenied, ApprovalExpired, ApprovalPending
    ├── ToolTimeout, RateLimited, AuthFailed, ToolFailed
    │                          the tool did not do it
    ├── ToolOutputInvalid      it answered, and the answer cannot be believed
    └── OutcomeUnknown         a write may or may not have happened

    NotPerformed               raised *by a tool*: proves that the attempt had no effect

`str(error)` is for the developer and names what to change; `for_model` is all that a model may read: it
says what is and is not known, never invites a retry, never echoes rejected content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.core.reasons import StopReason

__all__ = [
    "AlreadyEnded",
    "AlreadyRunning",
    "ApprovalDenied",
    "ApprovalExpired",
    "ApprovalPending",
    "AuthFailed",
    "BudgetExceeded",
    "CircuitOpen",
    "ConfigError",
    "InterlockError",
    "InvalidArguments",
    "LeaseLost",
    "LoopDetected",
    "NoRun",
    "NotPerformed",
    "OutcomeUnknown",
    "RateLimited",
    "RunStopped",
    "StoreUnavailable",
    "ToolDenied",
    "ToolFailed",
    "ToolOutputInvalid",
    "ToolTimeout",
]


class InterlockError(Exception):
    """Root of the tree.

    Args:
        message: For the developer: what happened and which setting to change.
        for_model: For the model; a safe default of the class when left out.
        details: Facts for the record (no content of arguments or outputs).
        run_wide: False for a refusal that concerns this tool alone and never ends the run by itself.

    Attributes:
        executed: Whether the tool was tried at all; set by the gateway. Else nothing left the process.
        reason: Why a run that does not catch this error ends.
        status: What the run's trace says of the call.
        transient: A failure that passes by itself (429, 5xx, timeout): it does not count as a repeat.
    """

    reason: StopReason = StopReason.INTERNAL_ERROR
    status: str = "error"
    transient: bool = False
    default_for_model = "The call failed."

    def __init__(
        self,
        message: str = "",
        *,
        for_model: str | None = None,
        details: Mapping[str, Any] | None = None,
        run_wide: bool = True,
    ) -> None:
        super().__init__(message or self.default_for_model)
        self.for_model = for_model or self.default_for_model
        self.details: dict[str, Any] = dict(details or {})
        self.run_wide = run_wide
        self.executed = False


class ConfigError(InterlockError):
    """The configuration, or the registration of a tool, cannot be used."""

    reason = StopReason.INVALID_INPUT


class NoRun(InterlockError):
    """A guarded tool was called outside a run: use `gate.run`, `gate.open_run`, or `.unguarded` in a test."""

    reason = StopReason.INVALID_INPUT


class RunStopped(InterlockError):
    """The run is being stopped, for `reason`; nothing more is executed in it."""

    status = "stopped"
    default_for_model = "The run is over: no further tool calls are possible."

    def __init__(self, reason: StopReason, message: str = "", **kw: Any) -> None:
        super().__init__(message or f"the run is stopped: {reason}", **kw)
        self.reason = reason


class AlreadyEnded(InterlockError):
    """This request has ended or is parked; `result` is its stored outcome."""

    reason = StopReason.INVALID_INPUT

    def __init__(self, result: Any) -> None:
        super().__init__(f"request already has an outcome: run {result.run_id}, {result.reason}")
        self.result = result


class AlreadyRunning(InterlockError):
    """This request is being worked on elsewhere, as run `run_id`."""

    reason = StopReason.INVALID_INPUT

    def __init__(self, run_id: str) -> None:
        super().__init__(f"request is already running as {run_id}")
        self.run_id = run_id


class LeaseLost(InterlockError):
    """Another worker has taken this run over: this one must do nothing more for it."""

    reason = StopReason.ABANDONED
    status = "fenced"


class StoreUnavailable(InterlockError):
    """The store cannot be read or written."""

    reason = StopReason.STORE_UNAVAILABLE
    transient = True
    status = "refused"
    default_for_model = "Writes are not possible at present; nothing was sent."


class ToolDenied(InterlockError):
    """Policy, a scope, safe mode or an unknown name: the tool may not be used here."""

    reason = StopReason.TOOL_DENIED
    status = "denied"
    default_for_model = "This tool is not permitted here. It was not executed, and will not be."


class BudgetExceeded(InterlockError):
    """A cap is reached; `reason` says which kind."""

    reason = StopReason.TOOL_BUDGET
    status = "refused"
    default_for_model = "The budget for this is used up. It was not executed."

    def __init__(self, reason: StopReason, message: str = "", **kw: Any) -> None:
        super().__init__(message, **kw)
        self.reason = reason


class LoopDetected(InterlockError):
    """The same call again and again (`loop_detected`), or nothing new (`no_progress`)."""

    reason = StopReason.LOOP_DETECTED
    status = "refused"
    default_for_model = "This repeats earlier calls without any change. It was not executed."

    def __init__(self, reason: StopReason, message: str = "", **kw: Any) -> None:
        super().__init__(message, **kw)
        self.reason = reason


class InvalidArguments(InterlockError):
    """The arguments do not fit the tool's schema; the model may correct them."""

    reason = StopReason.INVALID_INPUT
    status = "invalid_arguments"
    default_for_model = "The arguments do not fit the tool's schema. It was not executed."


class CircuitOpen(InterlockError):
    """The tool has been failing and is not called for a while."""

    reason = StopReason.CIRCUIT_OPEN
    transient = True
    status = "refused"
    default_for_model = "This tool is unavailable at present. It was not executed."


class ApprovalDenied(InterlockError):
    """A person said no."""

    reason = StopReason.APPROVAL_DENIED
    status = "denied"
    default_for_model = "A person has refused this action. It was not executed, and will not be."


class ApprovalExpired(InterlockError):
    """Nobody decided in time. This is not a no."""

    reason = StopReason.APPROVAL_EXPIRED
    status = "refused"
    default_for_model = "Nobody approved this action in time. It was not executed."


class ApprovalPending(InterlockError):
    """Nobody has decided yet: the run is parked."""

    reason = StopReason.APPROVAL_PENDING
    status = "refused"
    default_for_model = "This action waits for a person's approval. It has not been executed."


class ToolTimeout(InterlockError):
    """The tool did not answer in time."""

    reason = StopReason.TOOL_TIMEOUT
    transient = True
    status = "timeout"
    default_for_model = "The tool did not answer in time."


class RateLimited(InterlockError):
    """The remote, or our own limiter, says: too many requests."""

    reason = StopReason.TOOL_RATE_LIMIT
    transient = True
    status = "rate_limited"
    default_for_model = "The tool is rate limited. It did not execute the call."


class AuthFailed(InterlockError):
    """The remote does not accept our credentials."""

    reason = StopReason.TOOL_AUTH_FAILED
    status = "auth_failed"
    default_for_model = "The tool rejected our credentials. It did not execute the call."


class ToolFailed(InterlockError):
    """The tool failed."""

    reason = StopReason.TOOL_FAILED
    status = "error"
    default_for_model = "The tool failed."


class ToolOutputInvalid(InterlockError):
    """The tool answered, and its answer fails the schema, an invariant or the size limit.

    Args:
        tool: Name of the tool.
        errors: One dict a fault: `loc` (path), `type`, `msg`; never the rejected content.
        message: For the developer.
    """

    reason = StopReason.TOOL_OUTPUT_INVALID
    status = "invalid_output"
    default_for_model = "The tool's answer was not valid and has been withheld. Do not assume any value."

    def __init__(self, tool: str, errors: list[dict[str, Any]], message: str = "", **kw: Any) -> None:
        super().__init__(message or f"{tool}: output is not valid ({len(errors)} errors)", **kw)
        self.tool = tool
        self.errors = errors


class OutcomeUnknown(InterlockError):
    """A write may or may not have happened: it stays in doubt until a lookup or a person closes it."""

    reason = StopReason.OUTCOME_UNKNOWN
    status = "in_doubt"
    default_for_model = "This write may have happened; it will not be sent again. Do not repeat it."


class NotPerformed(Exception):
    """Raised by a tool to prove that this attempt had no effect, whatever it looked like.

    The write may then be repeated safely, and a claim whose attempts all ended so is released.
    """
