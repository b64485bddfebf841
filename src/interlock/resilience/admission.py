"""A tool is called only so often, so many times at once, and not at all while it is failing.

Limiter and breaker of a tool are shared by all runs of the process. The first attempt of a call is admitted
before its intent is written, so that nothing waits for a slot with an intent open; later attempts are admitted
by `retry`. What an attempt holds is `call.permit`, until it is reported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from interlock.core.calls import Answer, Call, Proceed, RunFacts, ToolSpec
from interlock.core.clock import Clock
from interlock.core.errors import CircuitOpen, RateLimited, RunStopped
from interlock.core.reasons import StopReason
from interlock.resilience.breaker import Breaker
from interlock.resilience.failure import Failure
from interlock.resilience.limiter import Limiter
from interlock.resilience.threads import ToolThreads

__all__ = ["Admission", "BreakerOptions", "LimitOptions"]

R = TypeVar("R", bound=RunFacts)

CHECK_S = 0.25  # how soon a waiting call notices that its run is being stopped


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """How much of a tool is used at once; None means without limit.

    Attributes:
        concurrency: Calls under way at once, over all runs of the process.
        rate_per_s: Calls a second on average. `burst`: how many may come at once (default: a second's worth).
        max_wait_s: How long a call may wait for its turn before it is refused.
    """

    concurrency: int | None = None
    rate_per_s: float | None = None
    burst: int | None = None
    max_wait_s: float = 30.0

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError("concurrency is at least 1, or null")
        if self.rate_per_s is not None and not self.rate_per_s > 0:
            raise ValueError("rate_per_s is above 0, or null")
        if self.burst is not None and self.burst < 1:
            raise ValueError("burst is at least 1, or null")
        if not self.max_wait_s >= 0:
            raise ValueError("max_wait_s is at least 0")


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a failing tool is left alone: `failure_threshold` failures within `window_seconds`, for as long again."""

    enabled: bool = True
    failure_threshold: int = 5
    window_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.failure_threshold < 1:
            raise ValueError("failure_threshold is at least 1")
        if not self.window_seconds > 0:
            raise ValueError("window_seconds is above 0")


class _Gate:
    """Breaker and limiter of one tool, and how many attempts are under way."""

    __slots__ = ("breaker", "in_flight", "limiter", "lock", "max_wait_s", "name", "plain", "probe", "threaded")

    def __init__(self, tool: ToolSpec, limits: LimitOptions, breaker: BreakerOptions | None, clock: Clock) -> None:
        self.name = tool.name
        self.lock = threading.Lock()
        self.in_flight = 0
        self.threaded = not tool.is_async
        self.max_wait_s = limits.max_wait_s
        self.breaker: Breaker | None = None
        if breaker is not None and breaker.enabled:
            self.breaker = Breaker(breaker.failure_threshold, breaker.window_seconds)
        self.limiter: Limiter | None = None
        if limits.concurrency is not None or limits.rate_per_s is not None:
            self.limiter = Limiter(limits.concurrency, limits.rate_per_s, limits.burst, clock)
        # What every ordinary attempt holds is the same: made once.
        self.plain = _Permit(self, probe=False)
        self.probe = _Permit(self, probe=True)


class _Permit:
    """What an attempt holds: a slot of its tool's limiter, and perhaps the role of the breaker's probe."""

    __slots__ = ("gate", "probe")

    def __init__(self, gate: _Gate, *, probe: bool) -> None:
        self.gate = gate
        self.probe = probe


class Admission:
    """Guard that admits the first attempt of a call, and the door for the later ones.

    Args:
        clock: Time for breakers and rates.
        limits_for, breaker_for: Options of a tool; asked once a tool.
        pool: Threads of sync tools: at `max_abandoned_threads` hanging ones the tool is refused.

    Raises:
        CircuitOpen: The tool is failing, or too many of its threads hang.
        RateLimited: Its turn would come too late.
        RunStopped: The run was stopped while the call waited.
    """

    def __init__(
        self,
        clock: Clock,
        limits_for: Callable[[ToolSpec], LimitOptions],
        breaker_for: Callable[[ToolSpec], BreakerOptions | None],
        pool: ToolThreads,
        max_abandoned_threads: int = 8,
    ) -> None:
        self._clock = clock
        self._limits_for = limits_for
        self._breaker_for = breaker_for
        self._pool = pool
        self._max_abandoned = max_abandoned_threads
        self._gates: dict[str, _Gate] = {}

    def __call__(self, tool: ToolSpec, proceed: Proceed[R]) -> Proceed[R]:
        gate = self._gates.get(tool.name)
        if gate is None:
            fresh = _Gate(tool, self._limits_for(tool), self._breaker_for(tool), self._clock)
            gate = self._gates.setdefault(tool.name, fresh)
        if gate.breaker is None and gate.limiter is None and not gate.threaded:
            return proceed

        async def admission(call: Call[R]) -> Answer:
            if not self._admit_at_once(gate, call):
                await self._admit_late(gate, call)
            try:
                return await proceed(call)
            finally:
                if call.permit is not None:
                    self.release(call)

        return admission

    async def admit(self, call: Call[Any]) -> None:
        """Admit one more attempt of a call (see the class for what it raises)."""
        gate = self._gates.get(call.tool.name)
        if gate is not None and not self._admit_at_once(gate, call):
            await self._admit_late(gate, call)

    def report(self, call: Call[Any], failure: Failure | None) -> None:
        """Take note of how an attempt ended (None: it answered), and give back what it held."""
        permit: _Permit | None = call.permit
        if permit is None:
            return
        breaker = permit.gate.breaker
        if breaker is not None and (failure is not None or permit.probe):
            self._verdict(permit, breaker, failure)
        self._give_back(call, permit)

    def release(self, call: Call[Any]) -> None:
        """Give back what an attempt held that told nothing about the tool."""
        permit: _Permit | None = call.permit
        if permit is None:
            return
        if permit.probe and permit.gate.breaker is not None:
            with permit.gate.lock:
                permit.gate.breaker.release(self._clock.monotonic())
        self._give_back(call, permit)

    def status(self) -> list[dict[str, Any]]:
        """Return one dict a tool: `tool`, `breaker` (state or None), `opens`, `in_flight`, `waiting`, `abandoned`."""
        now_s = self._clock.monotonic()
        return [
            {
                "tool": name,
                "breaker": None if gate.breaker is None else gate.breaker.state(now_s).value,
                "opens": 0 if gate.breaker is None else gate.breaker.opens,
                "in_flight": gate.in_flight,
                "waiting": 0 if gate.limiter is None else gate.limiter.waiting,
                "abandoned": self._pool.abandoned(name),
            }
            for name, gate in sorted(self._gates.items())
        ]

    def _admit_at_once(self, gate: _Gate, call: Call[Any]) -> bool:
        if gate.threaded and self._pool.abandoned(gate.name) >= self._max_abandoned:
            return False
        if gate.breaker is not None and not gate.breaker.closed:
            return False
        if gate.limiter is not None and not gate.limiter.try_acquire():
            return False
        self._hold(gate, call, gate.plain)
        return True

    async def _admit_late(self, gate: _Gate, call: Call[Any]) -> None:
        """Admit a call that has to wait, or to be the breaker's probe; or refuse it."""
        refusal = self._refusal(gate)
        if refusal is not None:
            call.refuse(refusal)
            return  # observing: the call goes on, and holds nothing
        if gate.limiter is not None and not gate.limiter.try_acquire():
            if call.run.observing:
                return  # watching must not slow anybody down
            await self._wait(gate, gate.limiter, call)
        breaker = gate.breaker
        if breaker is None:
            self._hold(gate, call, gate.plain)
            return
        with gate.lock:
            admitted = breaker.allow(self._clock.monotonic())
            probe = not breaker.closed
        if admitted:
            self._hold(gate, call, gate.probe if probe else gate.plain)
            return
        if gate.limiter is not None:
            gate.limiter.undo()
        call.refuse(_circuit_open(gate.name, breaker, self._clock.monotonic()))

    async def _wait(self, gate: _Gate, limiter: Limiter, call: Call[Any]) -> None:
        run, now_s = call.run, self._clock.monotonic()
        until_s = min(now_s + gate.max_wait_s, run.deadline_s)
        if now_s + limiter.least_wait_s() > until_s or not await limiter.acquire(
            until_s, CHECK_S, lambda: run.stop is not None
        ):
            if run.stop is not None:
                raise RunStopped(run.stop.reason)
            raise _too_late(gate, until_s - now_s)
        if run.stop is not None:
            limiter.undo()
            raise RunStopped(run.stop.reason)

    def _refusal(self, gate: _Gate) -> CircuitOpen | None:
        now_s = self._clock.monotonic()
        if self._pool.abandoned(gate.name) >= self._max_abandoned:
            return CircuitOpen(
                f"{gate.name}: {self._max_abandoned} threads hang in it; give the tool a timeout of its own, "
                "shorter than tools.timeouts_s, or raise tools.max_abandoned_threads",
                details={"abandoned_threads": self._pool.abandoned(gate.name)},
            )
        if gate.breaker is not None and not gate.breaker.ready(now_s):
            return _circuit_open(gate.name, gate.breaker, now_s)
        return None

    def _hold(self, gate: _Gate, call: Call[Any], permit: _Permit) -> None:
        with gate.lock:
            gate.in_flight += 1
        call.permit = permit

    def _verdict(self, permit: _Permit, breaker: Breaker, failure: Failure | None) -> None:
        now_s = self._clock.monotonic()
        with permit.gate.lock:
            if failure is None or _answered(failure):
                breaker.success(now_s, probe=permit.probe)
            elif _counts(failure):
                breaker.failure(now_s, probe=permit.probe)
            else:
                breaker.release(now_s, probe=permit.probe)

    def _give_back(self, call: Call[Any], permit: _Permit) -> None:
        call.permit = None
        gate, late = permit.gate, call.late
        if late is not None and not late.done():
            # The tool is still at work in its thread: the slot is its until it ends.
            self._pool.when_free(late, lambda: _free(gate))
        else:
            _free(gate)


def _free(gate: _Gate) -> None:
    with gate.lock:
        gate.in_flight -= 1
    if gate.limiter is not None:
        gate.limiter.release()


def _answered(failure: Failure) -> bool:
    """Whether the tool is alive, although this call did not succeed."""
    status = failure.status
    return failure.kind == "output_invalid" or (status is not None and status < 500 and not failure.transient)


def _counts(failure: Failure) -> bool:
    """Whether the failure says that the tool is in trouble: a timeout, a 5xx, a lost connection."""
    if failure.kind == "not_started" or failure.reason is StopReason.TOOL_RATE_LIMIT:
        return False
    return failure.transient or (failure.status is not None and failure.status >= 500)


def _circuit_open(tool_name: str, breaker: Breaker, now_s: float) -> CircuitOpen:
    again_s = breaker.opens_in_s(now_s)
    return CircuitOpen(
        f"{tool_name}: not called for another {again_s:.1f} s after repeated failures "
        "(tools.circuit_breakers.failure_threshold, window_seconds)",
        details={"opens_in_s": round(again_s, 3)},
    )


def _too_late(gate: _Gate, waited_s: float) -> RateLimited:
    return RateLimited(
        f'{gate.name}: no turn within {max(0.0, waited_s):.1f} s (tools.limits."{gate.name}": concurrency, '
        "rate_per_s, burst, max_wait_s; agent.budgets.max_seconds)",
        details={"limited_by": "interlock"},
    )
