"""What failed is tried again only where that is safe, allowed and in time.

Whether to try again is `decide`, a pure function; `Retry` is the guard that asks it. A write whose outcome is
unknown is sent again only if the remote deduplicates on its key; one that was proved not performed may be sent
again like a read. `call.unknown` and `call.evidence` tell the journal what every attempt came to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from interlock.core.calls import Answer, Call, Effect, OnUnknown, Proceed, RunFacts, ToolSpec
from interlock.core.errors import (
    BudgetExceeded,
    CircuitOpen,
    InterlockError,
    RateLimited,
    ToolOutputInvalid,
)
from interlock.core.reasons import StopReason
from interlock.resilience.admission import Admission
from interlock.resilience.classify import classify
from interlock.resilience.failure import Failure
from interlock.resilience.wording import as_error

__all__ = ["GiveUp", "Retried", "Retry", "RetryOptions", "Wait", "decide"]

LONGEST_WAIT_S = 3_600.0  # where a run has no deadline, nobody honours a Retry-After beyond this
STILL_RUNNING = "still_running"
SLICE_S = 0.25  # how soon a waiting call notices that its run is being stopped


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """How often and when a failed attempt is repeated.

    Attributes:
        max_attempts: Attempts of one call in all, the first included; 1 means never again.
        retryable_status: HTTP statuses after which another attempt makes sense. Can only narrow what is safe.
        backoff_ms: Ceilings of the waits before attempts 2, 3, …; the last one holds for all later ones.
        max_retries: Re-sends of this tool in one run; None for no cap of its own.
    """

    max_attempts: int = 3
    retryable_status: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    backoff_ms: tuple[float, ...] = (250, 750, 2000)
    max_retries: int | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("max_attempts counts the first attempt: it is at least 1")
        if any(not ceiling >= 0 for ceiling in self.backoff_ms):
            raise ValueError("backoff_ms are lengths of time: they are at least 0")
        if self.max_retries is not None and self.max_retries < 0:
            raise ValueError("max_retries is at least 0")


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after `delay_s` seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again.

    Attributes:
        why: `not_transient`, `status`, `unknown_outcome`, `attempts`, `max_retries`, `deadline`, or `retry_after`
            (the remote asks for a longer wait than the run has). The guard adds `still_running`, `safe_mode`,
            `stopped`, and the reason for which admission refused another attempt.
    """

    why: str


def decide(
    options: RetryOptions,
    attempt: int,
    failure: Failure,
    *,
    write: bool,
    closes_by: OnUnknown,
    now_s: float,
    deadline_s: float,
    retries_used: int,
    draw: float,
) -> Wait | GiveUp:
    """Say whether, and after how long, a failed attempt is repeated.

    Args:
        attempt: Number of the attempt that failed, from 1.
        closes_by: How the tool closes an unknown outcome (RESEND for a natural write).
        retries_used: Re-sends of this tool in this run so far.
        draw: Chance, between 0 and 1: the share of the ceiling that is waited (full jitter).
    """
    if write and failure.performed == "unknown" and closes_by is not OnUnknown.RESEND:
        return GiveUp("unknown_outcome")
    if not failure.transient:
        return GiveUp("not_transient")
    if failure.status is not None and failure.status not in options.retryable_status:
        return GiveUp("status")
    if attempt >= options.max_attempts:
        return GiveUp("attempts")
    if options.max_retries is not None and retries_used >= options.max_retries:
        return GiveUp("max_retries")
    if now_s >= deadline_s:
        return GiveUp("deadline")
    asked_s = failure.retry_after_s or 0.0
    if asked_s > LONGEST_WAIT_S or now_s + asked_s >= deadline_s:
        return GiveUp("retry_after")
    ceilings = options.backoff_ms
    ceiling_s = ceilings[min(attempt, len(ceilings)) - 1] / 1000.0 if ceilings else 0.0
    delay_s = max(draw * ceiling_s, asked_s)
    return Wait(delay_s) if now_s + delay_s < deadline_s else GiveUp("deadline")


class Retried(RunFacts):
    """What `Retry` needs of a run. `retries`: re-sends used so far, by tool."""

    __slots__ = ()
    retries: dict[str, int]


R = TypeVar("R", bound=Retried)


class Retry:
    """Guard that makes the attempts of a call, and says in the end what they came to.

    Under `mode: observe` there is one attempt, and the tool's own exception goes through unchanged.

    Args:
        options_for: Options of a tool; asked once a tool.
        admission: Told of every attempt; asked before every later one.
        before_attempt: Called before every attempt; raises when kill, lease or fence forbid it.
        calm: Whether safe mode is on: then nothing is tried twice.

    Raises:
        ToolTimeout, RateLimited, AuthFailed, ToolFailed: See `wording.as_error`; `__cause__` is the tool's own.
        BudgetExceeded: The run's deadline has passed, or cut a read.
    """

    def __init__(
        self,
        options_for: Callable[[ToolSpec], RetryOptions],
        admission: Admission,
        before_attempt: Callable[[Call[Any]], Awaitable[None] | None],
        calm: Callable[[], bool],
    ) -> None:
        self._options_for = options_for
        self._admission = admission
        self._before_attempt = before_attempt
        self._calm = calm

    def __call__(self, tool: ToolSpec, proceed: Proceed[R]) -> Proceed[R]:
        options = self._options_for(tool)
        before_attempt, report = self._before_attempt, self._admission.report

        async def retry(call: Call[R]) -> Answer:
            run = call.run
            if run.clock.monotonic() >= run.deadline_s and not run.observing:
                raise _too_late(call)
            if call.late is not None and not call.late.done():
                raise _still_running(call)
            may_not = before_attempt(call)
            if may_not is not None:
                await may_not
            call.attempts += 1
            try:
                answer = await proceed(call)
            except BaseException as error:
                failure = self._take_note(call, error)
                if failure is None:
                    raise
                first = error
            else:
                report(call, None)
                return answer
            try:
                return await self._again(call, proceed, options, first, failure)
            finally:
                del first  # or the error, its traceback and this frame would keep each other alive

        return retry

    async def _again(
        self, call: Call[R], proceed: Proceed[R], options: RetryOptions, error: BaseException, failure: Failure
    ) -> Answer:
        """Go on after a failed first attempt, until one answers or nothing more may be tried."""
        attempt = 1
        try:
            while True:
                verdict = self._decide(call, options, attempt, failure)
                if isinstance(verdict, GiveUp):
                    raise _final(call, failure, error, verdict.why) from error
                await self._next(call, failure, error, verdict.delay_s)
                attempt += 1
                call.attempts += 1
                try:
                    answer = await proceed(call)
                except BaseException as next_error:
                    noted = self._take_note(call, next_error)
                    if noted is None:
                        raise
                    error, failure = next_error, noted
                else:
                    self._admission.report(call, None)
                    return answer
        finally:
            del error

    async def _next(self, call: Call[R], failure: Failure, error: BaseException, delay_s: float) -> None:
        """Wait until the next attempt may start; raise where it may not after all."""
        tool_name, run = call.tool.name, call.run
        run.retries[tool_name] = run.retries.get(tool_name, 0) + 1
        try:
            await _pause(call, delay_s)
            if run.stop is not None:
                raise _final(call, failure, error, "stopped") from error
            try:
                await self._admission.admit(call)
            except (CircuitOpen, RateLimited) as refused:
                raise _final(call, failure, error, refused.reason.value) from error
            may_not = self._before_attempt(call)
            if may_not is not None:
                await may_not
        finally:
            del error

    def _decide(self, call: Call[R], options: RetryOptions, attempt: int, failure: Failure) -> Wait | GiveUp:
        run, tool = call.run, call.tool
        if call.late is not None and not call.late.done():
            return GiveUp(STILL_RUNNING)
        if self._calm():
            return GiveUp("safe_mode")
        if run.stop is not None:
            return GiveUp("stopped")
        return decide(
            options,
            attempt,
            failure,
            write=call.effect is Effect.WRITE,
            closes_by=OnUnknown.RESEND if tool.natural else tool.on_unknown,
            now_s=run.clock.monotonic(),
            deadline_s=run.deadline_s,
            retries_used=run.retries.get(tool.name, 0),
            draw=run.clock.uniform(0.0, 1.0),
        )

    def _take_note(self, call: Call[R], error: BaseException) -> Failure | None:
        """Record a failed attempt; return its classification, or None where the error goes up as it is."""
        wall_s = call.run.clock.wall()
        failure = classify(error, call.tool.outcome, now_s=wall_s)
        # It did answer; only what it answered cannot be believed.
        answered = isinstance(error, ToolOutputInvalid) and error.tool == call.tool.name
        if failure.performed == "unknown" and not answered:
            call.unknown = True
        performed = "yes" if answered else failure.performed
        noted = {"attempt": call.attempts, "kind": failure.kind, "performed": performed, "at": wall_s}
        if failure.status is not None:
            noted["status"] = failure.status
        if call.evidence is None:
            call.evidence = []
        call.evidence.append(noted)
        self._admission.report(call, failure)
        goes_up = call.run.observing or isinstance(error, InterlockError) or not isinstance(error, Exception)
        return None if goes_up else failure


async def _pause(call: Call[Any], delay_s: float) -> None:
    """Wait in slices, so that a stop does not have to wait for us."""
    clock = call.run.clock
    until_s = clock.monotonic() + delay_s
    left_s = delay_s
    while left_s > 0.0 and call.run.stop is None:
        await clock.sleep(min(left_s, SLICE_S))
        left_s = until_s - clock.monotonic()


def _final(call: Call[Any], failure: Failure, error: BaseException, why: str) -> InterlockError:
    if call.unknown:
        failure = replace(failure, performed="unknown")  # one unknown attempt is enough
    if why == "retry_after":
        failure = replace(failure, reason=StopReason.TOOL_RATE_LIMIT)
    return as_error(failure, call.tool.name, error, call.attempts, write=call.effect is Effect.WRITE, gave_up=why)


def _too_late(call: Call[Any]) -> BudgetExceeded:
    return BudgetExceeded(
        StopReason.TIME_BUDGET,
        f"{call.tool.name}: the run's time was up before it could be called (agent.budgets.max_seconds)",
    )


def _still_running(call: Call[Any]) -> InterlockError:
    """Refuse to start an attempt of a call beside one whose thread is still at work, as after a lookup."""
    call.unknown = True
    failure = Failure(StopReason.TOOL_TIMEOUT, "unknown", "timeout")
    return as_error(
        failure, call.tool.name, TimeoutError(), call.attempts, write=call.effect is Effect.WRITE, gave_up=STILL_RUNNING
    )
