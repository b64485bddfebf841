"""One deadline per attempt; the run's own deadline cuts reads, never a write under way.

Nothing is armed for a tool that answers without waiting: the attempt is driven up to its first suspension, and
only then does a timer of the loop start. When it fires, the attempt is cancelled, as `asyncio.timeout` would.
An attempt that swallows the cancellation has `GRACE_S` seconds to clean up; then it is closed and abandoned, so
that no tool can hold its run.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar

from interlock.core.calls import Answer, Call, Effect, Proceed, RunFacts, ToolSpec
from interlock.core.errors import NotPerformed, ToolTimeout

__all__ = ["GRACE_S", "NeverStarted", "NotStartedInTime", "RunDeadline", "Timeout"]

R = TypeVar("R", bound=RunFacts)

GRACE_S = 1.0


class RunDeadline(TimeoutError):
    """The run's own deadline cut a read: the tool is not to blame."""


class NotStartedInTime(TimeoutError):
    """No worker thread was free within the timeout: the tool's function was never entered."""


class NeverStarted(asyncio.CancelledError):
    """The attempt was cancelled before the tool's function was entered: it certainly had no effect."""


class Timeout:
    """Guard that gives every attempt one deadline.

    Under `mode: observe` nothing is cut; an attempt that took longer notes `tool_timeout`.

    Args:
        timeout_for: Seconds that one attempt of a tool may take; `inf` for no limit of its own. Asked once a tool.

    Raises:
        TimeoutError: The attempt took longer; as `RunDeadline`, the run's deadline cut a read.
    """

    def __init__(self, timeout_for: Callable[[ToolSpec], float]) -> None:
        self._timeout_for = timeout_for

    def __call__(self, tool: ToolSpec, proceed: Proceed[R]) -> Proceed[R]:
        timeout_s = self._timeout_for(tool)

        @types.coroutine
        def timeout(call: Call[R]) -> Generator[Any, Any, Answer]:
            attempt: Any = proceed(call)
            if type(attempt) is not types.CoroutineType:
                attempt = _awaited(attempt)
            if call.run.observing:
                return (yield from _watch(attempt, call, timeout_s).__await__())
            try:
                waits_for = attempt.send(None)
            except StopIteration as answered:
                answer: Answer = answered.value
                return answer
            # The attempt is waiting for something: from here on it needs a deadline.
            return (yield from _bounded(attempt, waits_for, call, timeout_s))

        return timeout


def _bounded(
    attempt: Coroutine[Any, Any, Answer], waits_for: Any, call: Call[Any], timeout_s: float
) -> Generator[Any, Any, Answer]:
    limit_s, expired = timeout_s, TimeoutError
    if call.effect is Effect.READ:
        left_s = call.run.deadline_s - call.run.clock.monotonic()
        if left_s < timeout_s:
            limit_s, expired = left_s, RunDeadline
    task = asyncio.current_task()
    if limit_s == math.inf or task is None:
        return (yield from _resume(attempt, waits_for, None))
    others = task.cancelling()
    cut = _Cut(task, limit_s)
    try:
        answer = yield from _resume(attempt, waits_for, cut)
    except BaseException as error:
        if cut.disarm() > others and isinstance(error, Exception):
            # Somebody else cancels the task too: that must not be lost, whatever the tool made of it.
            raise asyncio.CancelledError from error
        if not cut.cancels or task.cancelling() > others or isinstance(error, NotPerformed):
            raise
        if isinstance(error, NeverStarted):
            raise NotStartedInTime from error
        raise expired from error
    if cut.disarm() > others and call.effect is Effect.READ:
        # The tool has swallowed a cancellation that was meant for the run. A write's answer is worth more.
        raise asyncio.CancelledError
    return answer


class _Cut:
    """The timer of one attempt: cancels its task when time is up, and once more when the grace is over."""

    __slots__ = ("_task", "_timer", "cancels", "over")

    def __init__(self, task: asyncio.Task[Any], delay_s: float) -> None:
        self._task = task
        self.cancels = 0
        self.over = False
        self._timer = task.get_loop().call_later(max(0.0, delay_s), self._fire)

    def _fire(self) -> None:
        self.over = self.cancels > 0
        self.cancels += 1
        self._task.cancel()
        if not self.over:
            self._timer = self._task.get_loop().call_later(GRACE_S, self._fire)

    def disarm(self) -> int:
        """Stop the timer, take our own cancellations back, and return how many of others remain."""
        self._timer.cancel()
        for _ in range(self.cancels):
            self._task.uncancel()
        return self._task.cancelling()


def _resume(attempt: Coroutine[Any, Any, Answer], waits_for: Any, cut: _Cut | None) -> Generator[Any, Any, Answer]:
    """Drive the attempt from its first suspension to its end, or close it when its grace is over."""
    try:
        while True:
            try:
                yield waits_for
            except GeneratorExit:
                attempt.close()
                raise
            except BaseException as thrown:
                if cut is not None and cut.over:
                    _close(attempt)
                    raise
                waits_for = attempt.throw(thrown)
            else:
                waits_for = attempt.send(None)
    except StopIteration as answered:
        answer: Answer = answered.value
        return answer


def _close(attempt: Coroutine[Any, Any, Any]) -> None:
    awaited = list(_awaits(attempt))
    try:
        attempt.close()
    except BaseException:
        # It goes on even after GeneratorExit, or failed while cleaning up. Let go of it for good, and never let the
        # interpreter finalise it: that would throw GeneratorExit once more, and could then spin without end.
        for coroutine in awaited:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


def _awaits(attempt: Any) -> Iterator[Any]:
    """Yield the coroutine and those it waits for, down to the innermost."""
    while attempt is not None:
        yield attempt
        attempt = getattr(attempt, "cr_await", None) or getattr(attempt, "gi_yieldfrom", None)


async def _watch(attempt: Coroutine[Any, Any, Answer], call: Call[Any], timeout_s: float) -> Answer:
    begun_s = call.run.clock.monotonic()
    try:
        return await attempt
    finally:
        if call.run.clock.monotonic() - begun_s > timeout_s:
            call.refuse(ToolTimeout(f"{call.tool.name}: took longer than {timeout_s:g} s"))


async def _awaited(attempt: Awaitable[Answer]) -> Answer:
    return await attempt
