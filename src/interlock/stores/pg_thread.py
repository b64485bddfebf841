"""An event loop on a thread of its own: the driver lives there, whatever loops its callers live on.

A caller's loop may be blocked, closed or short-lived; the connections are none of its business. Answers go
back with `call_soon_threadsafe`, one call for all that were waiting on one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["LoopThread", "answer", "answer_all", "pause"]

T = TypeVar("T")


class LoopThread:
    """A daemon thread that runs one event loop, until `stop`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def time(self) -> float:
        """Monotonic seconds, as the loop's timers count them; from any thread."""
        return self.loop.time()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on the thread, soon; from any thread. After `stop` nothing happens."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, *args)

    def wait_for(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine on the thread and return what it returns; blocks the calling thread.

        Raises:
            TimeoutError: It took longer, and is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def stop(self, timeout_s: float) -> None:
        """End the loop and wait for the thread."""
        self.call(self.loop.stop)
        self._thread.join(timeout_s)

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            # What was cancelled gets one turn to say goodbye to its connection.
            self.loop.run_until_complete(asyncio.wait_for(_breath(), 1.0))
            self.loop.close()


async def _breath() -> None:
    loop = asyncio.get_running_loop()
    turns = 3
    for _ in range(turns):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def pause(seconds: float) -> None:
    """Sleep on the thread's loop: of real time, whatever clock the store's owner goes by."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()


def answer(future: asyncio.Future[Any], outcome: Any) -> None:
    """Hand one outcome (a result, or an exception) to whoever waits, from another thread."""
    answer_all([(future, outcome)])


def answer_all(answers: Iterable[tuple[asyncio.Future[Any], Any]]) -> None:
    """Hand outcomes to the event loops of those who wait, one call a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for future, outcome in answers:
        by_loop.setdefault(future.get_loop(), []).append((future, outcome))
    for loop, mine in by_loop.items():
        # That loop may be closed by now, and nobody waits on it any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver, mine)


def _deliver(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue  # cancelled, or told before that the store does not answer
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
