"""Sync tools run in daemon threads of our own: a tool that hangs costs its thread, never the process.

Threads are made when no idle one is there, reused, and capped; beyond the cap jobs wait in order. A job that
nobody waits for any more is withdrawn if it has not begun; if it has, its thread is *abandoned*: it counts
against its tool, not against the cap, and its late answer still reaches its future.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ToolExit", "ToolThreads"]


class ToolExit(RuntimeError):
    """A tool raised what only a whole program may raise: SystemExit, KeyboardInterrupt, a cancellation of its own."""


class _Job:
    __slots__ = ("abandoned", "context", "fn", "future", "kwargs", "on_free", "tool_name")

    def __init__(
        self, fn: Callable[..., Any], kwargs: Mapping[str, Any], tool_name: str, future: asyncio.Future[Any]
    ) -> None:
        self.fn = fn
        self.kwargs = kwargs
        self.tool_name = tool_name
        self.future = future
        self.context = contextvars.copy_context()
        self.abandoned = False
        self.on_free: list[Callable[[], None]] = []


class ToolThreads:
    """Worker threads for sync tools, shared by all event loops of the process.

    Args:
        max_threads: How many jobs run at once; abandoned threads do not count.
    """

    def __init__(self, max_threads: int = 64) -> None:
        self._max_threads = max_threads
        self._work = threading.Condition(threading.Lock())
        self._queue: deque[_Job] = deque()
        self._running: dict[asyncio.Future[Any], _Job] = {}
        self._abandoned: dict[str, int] = {}
        self._abandoned_total = 0
        self._threads = 0
        self._idle = 0

    def submit(self, fn: Callable[..., Any], kwargs: Mapping[str, Any], tool_name: str) -> asyncio.Future[Any]:
        """Run `fn(**kwargs)` in a thread, with this context's variables; return a future of the running loop.

        What `fn` raises is the future's exception; a BaseException that is no Exception becomes `ToolExit`.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        job = _Job(fn, kwargs, tool_name, future)
        with self._work:
            if self._idle > len(self._queue):
                self._work.notify()
            else:
                self._grow()
            self._queue.append(job)
        return future

    def withdraw(self, future: asyncio.Future[Any]) -> bool:
        """Take a job back that has not begun; return whether that was so (then `fn` is never entered)."""
        with self._work:
            for job in self._queue:
                if job.future is future:
                    self._queue.remove(job)
                    return True
        return False

    def abandon(self, tool_name: str, future: asyncio.Future[Any]) -> None:
        """Stop waiting for a job under way: its thread counts as abandoned until `fn` returns."""
        # Nobody need ask for the late answer: without this, asyncio would complain of an unretrieved error.
        future.add_done_callback(_retrieve)
        with self._work:
            job = self._running.get(future)
            if job is None or job.abandoned:
                return
            job.abandoned = True
            self._abandoned[tool_name] = self._abandoned.get(tool_name, 0) + 1
            self._abandoned_total += 1
            if self._queue:
                self._grow()

    def abandoned(self, tool_name: str) -> int:
        """Return how many threads are stuck in this tool with nobody waiting for them."""
        return self._abandoned.get(tool_name, 0)

    def when_free(self, future: asyncio.Future[Any], callback: Callable[[], None]) -> None:
        """Call `callback`, from any thread, once the job of `future` no longer holds a thread."""
        with self._work:
            job = self._running.get(future)
            if job is not None:
                job.on_free.append(callback)
                return
        # Not one of ours, or not any more: the future itself knows.
        if future.done():
            callback()
        else:
            future.add_done_callback(lambda _: callback())

    def _grow(self) -> None:
        if self._threads - self._abandoned_total >= self._max_threads:
            return
        thread = threading.Thread(target=self._serve, name="interlock-tool", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise  # nobody would ever do the work
            return
        self._threads += 1

    def _serve(self) -> None:
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Do one job; return whether this thread should go on. Nothing of the job outlives the call."""
        with self._work:
            while not self._queue:
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            job = self._queue.popleft()
            if job.future.cancelled():
                return True  # nobody wants it any more, and it has not begun
            self._running[job.future] = job
        value, error = _run(job)
        with self._work:
            del self._running[job.future]
            if job.abandoned:
                self._abandoned[job.tool_name] -= 1
                self._abandoned_total -= 1
            stays = self._threads - self._abandoned_total <= self._max_threads
            if not stays:
                self._threads -= 1
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to be answered
            job.future.get_loop().call_soon_threadsafe(_settle, job.future, value, error)
        for callback in job.on_free:
            callback()
        return stays


def _run(job: _Job) -> tuple[Any, Exception | None]:
    try:
        return job.context.run(job.fn, **job.kwargs), None
    except StopIteration as stop:
        # A future cannot carry it; a generator would turn it into the same.
        error = RuntimeError("the tool raised StopIteration")
        error.__cause__ = stop
        return None, error
    except Exception as failed:
        return None, failed
    except BaseException as exited:
        exit_ = ToolExit(f"the tool raised {type(exited).__name__}")
        exit_.__cause__ = exited
        return None, exit_


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
