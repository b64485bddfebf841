"""When a run stops, and how: refuse at the tool, stop at the model boundary.

The first specific reason wins and is written once. After it, attempts under way settle and every further
call is refused; the next model turn raises `RunStopped`. An agent that neither asks for a turn nor ends is
cancelled: at its third further call, or one second after the last call under way has settled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interlock.core.calls import Stop
from interlock.core.errors import InterlockError, RunStopped
from interlock.core.reasons import BUDGET_REASONS, StopReason

__all__ = [
    "ALWAYS_STOP",
    "DEFAULT_STOP_ON",
    "NO_WRAP_UP",
    "TAKEN_OVER",
    "TIME_IS_UP",
    "Refusals",
    "StopOptions",
    "Straggler",
    "stops",
]

CALLS_AFTER_STOP = 3
SETTLE_S = 1.0

DEFAULT_STOP_ON = BUDGET_REASONS | {
    StopReason.LOOP_DETECTED,
    StopReason.NO_PROGRESS,
    StopReason.KILLED,
    StopReason.OUTCOME_UNKNOWN,
    StopReason.TOOL_AUTH_FAILED,
}

# The stops that every run carries, each as one value for all.
TIME_IS_UP = Stop(StopReason.TIME_BUDGET, "its time is over (agent.budgets.max_seconds or max_age_s, or deadline=)")
TAKEN_OVER = Stop(StopReason.ABANDONED, "another worker has taken this run over")

# These end (or park) a run whatever `agent.stop_on` says.
ALWAYS_STOP = frozenset(
    {
        StopReason.KILLED,
        StopReason.APPROVAL_PENDING,
        StopReason.CANCELLED,
        StopReason.ABANDONED,
        StopReason.REPLAY_DIVERGED,
    }
)

# No last model turn after these: it would spend what is not there, or act against an operator.
NO_WRAP_UP = frozenset({StopReason.KILLED, StopReason.COST_BUDGET, StopReason.CANCELLED, StopReason.ABANDONED})


@dataclass(frozen=True, slots=True)
class StopOptions:
    """`agent.stop_on`, `agent.max_refusals` and `agent.on_stop`.

    Attributes:
        stop_on: Reasons that end the run when a call meets them; others are told to the model.
        max_refusals: Model turns in a row, of nothing but refusals, that end the run.
        wrap_up: Allow one last model turn without tools.
    """

    stop_on: frozenset[StopReason] = DEFAULT_STOP_ON
    max_refusals: int | None = 3
    wrap_up: bool = False


def stops(error: InterlockError, stop_on: frozenset[StopReason]) -> bool:
    """Whether this error of a call ends the run."""
    if isinstance(error, RunStopped):
        return True
    return error.reason in ALWAYS_STOP or (error.run_wide and error.reason in stop_on)


class Refusals:
    """Counts model turns in which every call was refused; any other outcome of a call resets it.

    A run that declares no turns counts each call as a turn of its own.
    """

    __slots__ = ("_cap", "_last", "_refused", "_streak", "_used")

    def __init__(self, cap: int | None) -> None:
        self._cap = cap
        self._streak = 0
        self._refused = False
        self._used = False
        self._last: InterlockError | None = None

    def note(self, refusal: InterlockError | None, *, turns: bool) -> Stop | None:
        """Take in the outcome of one call: a refusal, or None for anything else.

        Args:
            refusal: The error that refused it.
            turns: Whether the run declares model turns.
        """
        if refusal is None:
            self._used = True
        else:
            self._refused = True
            self._last = refusal
        return None if turns else self.turn_over()

    def turn_over(self) -> Stop | None:
        """Judge the model turn that is over, before the next one starts."""
        if self._used:
            self._streak = 0
        elif self._refused:
            self._streak += 1
        self._used = self._refused = False
        return self._stop()

    def _stop(self) -> Stop | None:
        if self._cap is None or self._streak < self._cap or self._last is None:
            return None
        return Stop(
            self._last.reason,
            f"{self._streak} turns in a row of nothing but refusals (agent.max_refusals); the last: {self._last}",
            {"refusals": self._streak, **self._last.details},
        )


class Straggler:
    """Cancels an agent that goes on after its run was stopped.

    Args:
        later: Schedules a callback after some seconds and returns its canceller.
        cancel: Cancels the agent.
    """

    __slots__ = ("_calls", "_cancel", "_disarm", "_later")

    def __init__(
        self, later: Callable[[float, Callable[[], None]], Callable[[], None]], cancel: Callable[[], None]
    ) -> None:
        self._later = later
        self._cancel = cancel
        self._calls = 0
        self._disarm: Callable[[], None] | None = None

    def called(self) -> None:
        """Count one call after the stop."""
        self._calls += 1
        if self._calls >= CALLS_AFTER_STOP:
            self._cancel()

    def settled(self) -> None:
        """Take in that nothing is under way any more: the agent has a second to end."""
        self.spare()
        self._disarm = self._later(SETTLE_S, self._cancel)

    def spare(self) -> None:
        """Take in that something is under way again, or that the agent has ended."""
        if self._disarm is not None:
            self._disarm()
            self._disarm = None
