"""The innermost of the funnel: the tool itself is called, once, with the validated arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from interlock.core.calls import Answer, Call, Proceed, ToolSpec
from interlock.resilience.threads import ToolExit, ToolThreads
from interlock.resilience.timeout import NeverStarted

__all__ = ["Perform", "contained"]


class Perform:
    """Ends the funnel of a tool: awaits an async function, sends a sync one to a thread.

    While a sync tool is under way, `call.late` is the future of its answer. It stays there when the attempt
    is cut, so that a late answer can still settle the claim.

    Args:
        pool: Threads for sync tools.
    """

    def __init__(self, pool: ToolThreads) -> None:
        self._pool = pool

    def __call__(self, tool: ToolSpec) -> Proceed[Any]:
        """Return the function that performs one attempt of a call of `tool`."""
        usual = self.usual(tool)

        def perform(call: Call[Any]) -> Awaitable[Answer]:
            return usual(call) if call.perform is None else call.perform(call)

        return perform

    def usual(self, tool: ToolSpec) -> Proceed[Any]:
        """Return the function that performs one attempt by the tool's own function, whoever else could."""
        return _awaited(tool.fn, takes_key=tool.takes_key) if tool.is_async else self._threaded(tool)

    def _threaded(self, tool: ToolSpec) -> Proceed[Any]:
        fn, takes_key = tool.fn, tool.takes_key

        def perform(call: Call[Any]) -> Awaitable[Answer]:
            kwargs = {**call.args, "idempotency_key": call.sent_key} if takes_key else call.args
            return self.in_a_thread(call, fn, kwargs)

        return perform

    async def in_a_thread(self, call: Call[Any], fn: Callable[..., Any], kwargs: dict[str, Any]) -> Answer:
        """Make one attempt of `call` by a sync function, in a thread."""
        pool, name = self._pool, call.tool.name
        late = call.late = pool.submit(fn, kwargs, name)
        try:
            value = await asyncio.shield(late)
        except asyncio.CancelledError:
            if pool.withdraw(late):
                call.late = None
                raise NeverStarted from None
            pool.abandon(name, late)
            raise
        except Exception:
            call.late = None
            raise
        call.late = None
        return Answer(value)


def _awaited(fn: Callable[..., Any], *, takes_key: bool) -> Proceed[Any]:
    async def perform(call: Call[Any]) -> Answer:
        try:
            return Answer(await fn(**call.args))
        except Exception:
            raise
        except BaseException as error:
            exit_ = contained(error)
            if exit_ is None:
                raise
            raise exit_ from error

    async def perform_with_key(call: Call[Any]) -> Answer:
        try:
            return Answer(await fn(**{**call.args, "idempotency_key": call.sent_key}))
        except Exception:
            raise
        except BaseException as error:
            exit_ = contained(error)
            if exit_ is None:
                raise
            raise exit_ from error

    return perform_with_key if takes_key else perform


def contained(error: BaseException) -> ToolExit | None:
    """Return what to raise instead of a tool's BaseException; None where it came from outside the tool."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return None
    return ToolExit(f"the tool raised {type(error).__name__}")
