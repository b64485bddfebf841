"""A run, its calls and a folded funnel of this folder's guards, on virtual or manual time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from interlock.core.calls import Answer, Call, Effect, Proceed, ToolSpec
from interlock.core.clock import LoopClock
from interlock.resilience.admission import Admission, BreakerOptions, LimitOptions
from interlock.resilience.perform import Perform
from interlock.resilience.retry import Retried, Retry, RetryOptions
from interlock.resilience.threads import ToolThreads
from interlock.resilience.timeout import Timeout


class Run(Retried):
    __slots__ = ("retries",)

    def __init__(self, clock: Any, *, seconds: float = 900.0, observing: bool = False) -> None:
        self.run_id = self.root_run_id = "run_1"
        self.tenant_id, self.request_id, self.root_request_id = "acme", "req_1", "req_1"
        self.clock = clock
        self.deadline_s = clock.monotonic() + seconds
        self.stop = None
        self.observing = observing
        self.retries = {}


class Rig:
    """Admission, retry, timeout and perform around one tool, as the gateway folds them."""

    def __init__(
        self,
        clock: Any = None,
        *,
        retry: RetryOptions | None = None,
        limits: LimitOptions | None = None,
        breaker: BreakerOptions | None = None,
        timeout_s: float = 10.0,
        max_threads: int = 64,
        max_abandoned_threads: int = 8,
        before_attempt: Callable[[Call[Any]], Any] = lambda call: None,
        calm: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clock = clock if clock is not None else LoopClock()
        self.pool = ToolThreads(max_threads)
        self.admission = Admission(
            self.clock,
            lambda tool: limits or LimitOptions(),
            lambda tool: breaker or BreakerOptions(),
            self.pool,
            max_abandoned_threads,
        )
        self.retry = Retry(lambda tool: retry or RetryOptions(), self.admission, before_attempt, calm)
        self.timeout = Timeout(lambda tool: timeout_s if tool.timeout_s is None else tool.timeout_s)
        self.perform = Perform(self.pool)

    def run(self, **kw: Any) -> Run:
        return Run(self.clock, **kw)

    def fold(self, tool: ToolSpec) -> Proceed[Any]:
        return self.admission(tool, self.retry(tool, self.timeout(tool, self.perform(tool))))

    def call(self, tool: ToolSpec, run: Run | None = None, args: dict[str, Any] | None = None) -> Call[Any]:
        effect = tool.effect if isinstance(tool.effect, Effect) else Effect.WRITE
        call = Call(run or self.run(), tool, args or {}, b"{}", b"d" * 16, effect, 1, 1, 1)
        call.sent_key = "il1_key"
        return call

    async def __call__(self, tool: ToolSpec, run: Run | None = None, args: dict[str, Any] | None = None) -> Answer:
        return await self.fold(tool)(self.call(tool, run, args))


def a_tool(fn: Callable[..., Any], *, effect: Effect = Effect.READ, **kw: Any) -> ToolSpec:
    return ToolSpec(kw.pop("name", "ticket.create"), fn, asyncio.iscoroutinefunction(fn), effect, **kw)


@pytest.fixture(scope="session")
def make_rig() -> type[Rig]:
    return Rig


@pytest.fixture(scope="session")
def tool() -> Callable[..., ToolSpec]:
    return a_tool
