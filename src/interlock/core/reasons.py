"""Why a run or a call ended: one closed enum, and what each value means outside this process.

The first fourteen values are the article's, verbatim. A reason is written once: the first specific one
wins. Each has an exit code, an alert severity, a metric label (its value) and a runbook (named after it);
a test holds the four lists equal.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["BUDGET_REASONS", "EXIT_CODES", "PARKING_REASONS", "SEVERITIES", "Severity", "StopReason"]


class StopReason(StrEnum):
    """Why a run ended. Values are stable: dashboards, runbooks and exit codes hang on them."""

    SUCCESS = "success"
    STEP_BUDGET = "step_budget"
    TOOL_BUDGET = "tool_budget"
    TIME_BUDGET = "time_budget"
    COST_BUDGET = "cost_budget"
    LOOP_DETECTED = "loop_detected"
    NO_PROGRESS = "no_progress"
    TOOL_DENIED = "tool_denied"
    TOOL_TIMEOUT = "tool_timeout"
    TOOL_RATE_LIMIT = "tool_rate_limit"
    TOOL_OUTPUT_INVALID = "tool_output_invalid"
    TOOL_AUTH_FAILED = "tool_auth_failed"
    INTERNAL_ERROR = "internal_error"
    INVALID_INPUT = "invalid_input"
    TOKEN_BUDGET = "token_budget"  # noqa: S105 - a reason, not a password
    TOOL_FAILED = "tool_failed"
    CIRCUIT_OPEN = "circuit_open"
    OUTCOME_UNKNOWN = "outcome_unknown"
    APPROVAL_PENDING = "approval_pending"
    APPROVAL_DENIED = "approval_denied"
    APPROVAL_EXPIRED = "approval_expired"
    KILLED = "killed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    REPLAY_DIVERGED = "replay_diverged"
    STORE_UNAVAILABLE = "store_unavailable"


class Severity(StrEnum):
    """How loudly to alert when runs end this way."""

    NONE = "none"
    INFO = "info"
    WARNING = "warning"
    HIGH = "high"
    CRITICAL = "critical"


# Exit codes of the command line. 0 is success; 1 and 2 are errors of the command itself.
EXIT_CODES: dict[StopReason, int] = {StopReason.SUCCESS: 0} | {
    reason: code for code, reason in enumerate((r for r in StopReason if r is not StopReason.SUCCESS), start=10)
}

SEVERITIES: dict[StopReason, Severity] = {
    StopReason.SUCCESS: Severity.NONE,
    StopReason.STEP_BUDGET: Severity.WARNING,
    StopReason.TOOL_BUDGET: Severity.WARNING,
    StopReason.TIME_BUDGET: Severity.WARNING,
    StopReason.COST_BUDGET: Severity.HIGH,
    StopReason.LOOP_DETECTED: Severity.CRITICAL,
    StopReason.NO_PROGRESS: Severity.WARNING,
    StopReason.TOOL_DENIED: Severity.HIGH,
    StopReason.TOOL_TIMEOUT: Severity.WARNING,
    StopReason.TOOL_RATE_LIMIT: Severity.WARNING,
    StopReason.TOOL_OUTPUT_INVALID: Severity.HIGH,
    StopReason.TOOL_AUTH_FAILED: Severity.HIGH,
    StopReason.INTERNAL_ERROR: Severity.CRITICAL,
    StopReason.INVALID_INPUT: Severity.INFO,
    StopReason.TOKEN_BUDGET: Severity.WARNING,
    StopReason.TOOL_FAILED: Severity.WARNING,
    StopReason.CIRCUIT_OPEN: Severity.WARNING,
    StopReason.OUTCOME_UNKNOWN: Severity.CRITICAL,
    StopReason.APPROVAL_PENDING: Severity.INFO,
    StopReason.APPROVAL_DENIED: Severity.INFO,
    StopReason.APPROVAL_EXPIRED: Severity.WARNING,
    StopReason.KILLED: Severity.HIGH,
    StopReason.CANCELLED: Severity.INFO,
    StopReason.ABANDONED: Severity.CRITICAL,
    StopReason.REPLAY_DIVERGED: Severity.CRITICAL,
    StopReason.STORE_UNAVAILABLE: Severity.CRITICAL,
}

BUDGET_REASONS = frozenset(
    {
        StopReason.STEP_BUDGET,
        StopReason.TOOL_BUDGET,
        StopReason.TIME_BUDGET,
        StopReason.COST_BUDGET,
        StopReason.TOKEN_BUDGET,
    }
)

# A run that ends this way waits for a person: its state is *parked*, not *ended*.
PARKING_REASONS = frozenset({StopReason.OUTCOME_UNKNOWN, StopReason.APPROVAL_PENDING})
