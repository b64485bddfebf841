"""The attempts of one guarded call, made by a framework's own handler of it."""

from __future__ import annotations

import asyncio
import copy
import types
from collections.abc import Awaitable, Callable
from typing import Any

from interlock.adapters.values import SCALARS
from interlock.config.build import House
from interlock.core.calls import Answer, Call
from interlock.core.errors import NotPerformed
from interlock.gateway.tools import Attempt, attempt_under_way
from interlock.resilience.perform import contained

__all__ = ["Attempts", "Handler", "SyncAttempts", "SyncHandler", "absent"]

# Calls the framework's tool, with arguments that no earlier attempt has touched.
Handler = Callable[[dict[str, Any]], Awaitable[Any]]
SyncHandler = Callable[[dict[str, Any]], Any]
Passes = tuple[type[Exception], ...]


class Attempts:
    """Attempts on the event loop that the framework runs on.

    Args:
        handler: Makes one attempt. args: what it is given, a copy for each.
        passes: The framework's own control flow: nothing was done.
        threaded: The handler blocks a thread of the framework, which cannot be cut.

    Attributes:
        passed: Which of `passes` the handler raised. raised: another exception of it.
        value: What it returned last.
    """

    __slots__ = ("_args", "_handler", "_loop", "_passes", "_threaded", "passed", "raised", "value")

    def __init__(self, handler: Handler, args: Any, passes: Passes = (), *, threaded: bool = False) -> None:
        self._handler = handler
        self._args = args
        self._passes = passes
        self._threaded = threaded
        self._loop = asyncio.get_running_loop()
        self.passed: Exception | None = None
        self.raised: Exception | None = None
        self.value: Any = self

    async def make(self, call: Call[Any]) -> Answer:
        """Make one attempt."""
        self.passed = None
        token = attempt_under_way.set(Attempt(call.tool.fn, call.sent_key, self._loop))
        try:
            if self._threaded or asyncio.get_running_loop() is not self._loop:
                value = await self._made(call)
            else:
                value = await self._handler(_fresh(self._args))
                # A framework that takes a decorated async tool for a sync one returns what that returned: a coroutine.
                if type(value) is types.CoroutineType:
                    value = await value
            self.value = value
        except self._passes as error:
            self.passed = error
            raise _nothing_done(error) from error
        except Exception as error:
            self.raised = error
            raise
        except BaseException as error:
            exit_ = contained(error)
            if exit_ is None:
                raise
            raise exit_ from error
        finally:
            attempt_under_way.reset(token)
        return Answer(value)

    async def _made(self, call: Call[Any]) -> Any:
        """Make it where the framework's own loop, or a thread of the framework, is at work."""
        work = _value_of(self._handler(_fresh(self._args)))
        if asyncio.get_running_loop() is self._loop:
            made: asyncio.Future[Any] = asyncio.ensure_future(work)
        else:
            made = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
            if not self._threaded:
                return await made
        # The thread goes on when the attempt is cut: what it comes to in the end still settles the claim.
        call.late = made
        try:
            value = await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_looked_at)
            raise
        except Exception:
            call.late = None
            raise
        call.late = None
        return value


class SyncAttempts:
    """Attempts of a sync framework, in threads of the gate; else as `Attempts`."""

    __slots__ = ("_args", "_handler", "_home", "_passes", "passed", "raised", "value")

    def __init__(self, home: House, handler: SyncHandler, args: Any, passes: Passes = ()) -> None:
        self._handler = handler
        self._args = args
        self._passes = passes
        self._home = home
        self.passed: Exception | None = None
        self.raised: Exception | None = None
        self.value: Any = self

    async def make(self, call: Call[Any]) -> Answer:
        """Make one attempt."""
        self.passed = None
        token = attempt_under_way.set(Attempt(call.tool.fn, call.sent_key, asyncio.get_running_loop()))
        try:
            answer = await self._home.perform.in_a_thread(call, self._handler, {"args": _fresh(self._args)})
        except self._passes as error:
            self.passed = error
            raise _nothing_done(error) from error
        except Exception as error:
            self.raised = error
            raise
        finally:
            attempt_under_way.reset(token)
        self.value = answer.value
        return answer


async def absent(_args: dict[str, Any]) -> Any:
    """Stand for a tool that is not called: the framework has none of this name, or does not take the arguments."""
    raise NotPerformed("the framework does not offer this tool, or does not accept its arguments")


def _nothing_done(error: Exception) -> NotPerformed:
    return NotPerformed(f"the framework's own {type(error).__name__}")


def _fresh(args: Any) -> Any:
    """Return a copy of the arguments: a tool that changes them changes those of its own attempt alone."""
    if not isinstance(args, dict):
        return args
    if all(type(value) in SCALARS for value in args.values()):
        return dict(args)
    try:
        return copy.deepcopy(args)
    except Exception:  # of a type that cannot be copied: it is the framework's business
        return dict(args)


async def _value_of(result: Any) -> Any:
    value = await result
    return await value if type(value) is types.CoroutineType else value


def _looked_at(late: asyncio.Future[Any]) -> None:
    if not late.cancelled():
        late.exception()
