"""One face for sync and async agents: awaited on the run's loop, blocking from a worker thread.

There are no twin classes. A method of a run called on its event loop returns something to await; called from
a sync agent's thread it does the same work on the loop and returns the value.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Bridge", "Opened", "Portal"]

T = TypeVar("T")


class Bridge:
    """Where a run lives, and how code elsewhere reaches it."""

    __slots__ = ("loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def is_here(self) -> bool:
        """Whether this code runs on the run's loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def later(self, delay_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the run's loop after some seconds; return what calls that off."""
        return self.loop.call_later(delay_s, callback).cancel

    def cross(self, work: Coroutine[Any, Any, T]) -> Any:
        """Return `work` itself on the run's loop; from another thread, do it there and return its value.

        Raises:
            RuntimeError: Called on another event loop than the run's.
        """
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result()
        if here is self.loop:
            return work
        work.close()
        raise RuntimeError("this run belongs to another event loop: call it from the loop that opened it")

    def hop(self, work: Coroutine[Any, Any, T]) -> Any:
        """Do what `cross` does, with work that as a rule waits for nothing, and does not ask for its task.

        It is done as soon as the loop comes to it; only what waits for something becomes a task.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return _Hop(self.loop, work).value()
        return self.cross(work)


class _Hop(Generic[T]):
    """Work that a thread waits for while the loop does it."""

    __slots__ = ("_done", "_error", "_loop", "_value", "_work")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def value(self) -> T:
        """Wait for it; return its value, or raise its error."""
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:  # that loop is closed
            self._work.close()
            raise
        self._done.acquire()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        value: T = self._value
        return value

    def _begin(self) -> None:
        try:
            waits_for = self._work.send(None)
        except StopIteration as done:
            self._end(done.value, None)
        except BaseException as error:
            self._end(None, error)
        else:
            self._loop.create_task(_going_on(self._work, waits_for)).add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._end(None, concurrent.futures.CancelledError())
        else:
            error = task.exception()
            self._end(None if error is not None else task.result(), error)

    def _end(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        self._done.release()


async def _going_on(work: Coroutine[Any, Any, T], waits_for: Any) -> T:
    """Go on with work that waits for something, as its task."""
    return await _rest_of(work, waits_for)


@types.coroutine
def _rest_of(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(sent)
    except StopIteration as done:
        value: T = done.value
        return value


class Opened(Generic[T]):
    """Something opened and closed again: `async with` on the loop, `with` in a sync agent's thread."""

    __slots__ = ("_bridge",)

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    async def open(self) -> T:
        """Open, and return what the block works with."""
        raise NotImplementedError  # pragma: no cover - every subclass opens something

    async def close(self, error: BaseException | None) -> bool:
        """Close; return True to swallow `error`."""
        raise NotImplementedError  # pragma: no cover

    def entered(self, value: T) -> None:
        """Take in, in the caller's own context, that the block begins."""

    def leaving(self) -> None:
        """Take in, in the caller's own context, that the block is over."""

    async def __aenter__(self) -> T:
        value = await self.open()
        self.entered(value)
        return value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.leaving()
        return await self.close(error)

    def __enter__(self) -> T:
        value: T = self._bridge.cross(self.open())
        self.entered(value)
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.leaving()
        swallowed: bool = self._bridge.cross(self.close(error))
        return swallowed


class Portal:
    """An event loop in a daemon thread of its own, started on first use: how sync callers run agents."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the portal's loop and return its value; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the portal's loop, started."""
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="interlock-portal", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """Stop the loop and its thread, if they were started."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
