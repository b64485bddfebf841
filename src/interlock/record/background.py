"""Work that a caller hands over and forgets: a queue, and a daemon thread that sleeps until something comes.

The thread gathers for a moment and handles many items at once. A caller appends to a queue and goes on: it
never waits, and never fails because of what is done with the item. A queue that is full loses the newest.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

__all__ = ["FLUSH_S", "GATHER_S", "MAX_BATCH", "BackgroundQueue"]

GATHER_S = 0.05
FLUSH_S = 5.0
MAX_QUEUED = 100_000
MAX_BATCH = 512  # of lines some 160 kB: each write waits for its turn again, while callers go on queueing


class BackgroundQueue:
    """A queue that a thread of its own empties; a subclass says what `handle` does with a batch.

    Args:
        gather_s: Seconds for which items are gathered before they are handled together; less, once a batch is whole.
        max_queued: Items that may wait; further ones are lost.

    Attributes:
        lost: Items that were not handled.
    """

    def __init__(self, *, gather_s: float = GATHER_S, max_queued: int = MAX_QUEUED) -> None:
        self.lost = 0
        self._gather_s = gather_s
        self._max_queued = max_queued
        self._queue: deque[Any] = deque()
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._asleep = True
        self._closed = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def handle(self, items: Sequence[Any]) -> None:
        """Do what is to be done with a batch; runs in the background and must not raise."""
        raise NotImplementedError  # pragma: no cover - every subclass does something

    def lose(self, items: int) -> None:
        """Count items that could not be handled."""
        self.lost += items

    def release(self) -> None:
        """Give back what `handle` holds open; called when the thread ends."""

    def put(self, item: Any) -> None:
        """Queue one item; never waits, never raises."""
        queue = self._queue
        queued = len(queue)
        if queued >= self._max_queued:
            self.lose(1)
            return
        queue.append(item)
        if self._asleep:
            self._wake()
        elif queued == MAX_BATCH:  # a batch is whole: handled now, they come evenly and not in a heap
            self._hurry.set()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until what is queued by now is handled; return whether that took less than `timeout_s`."""
        if self._thread is None or not self._thread.is_alive():
            return not self._queue
        barrier = threading.Event()
        self._queue.append(barrier)
        self._hurry.set()
        self._work.set()
        return barrier.wait(timeout_s)

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Handle what is queued and end the thread; an item that comes later starts it anew."""
        thread = self._thread
        self.flush(timeout_s)
        self._closed = True
        self._hurry.set()
        self._work.set()
        if thread is not None:
            thread.join(timeout_s)
        atexit.unregister(self.flush)

    def _wake(self) -> None:
        self._asleep = False  # once is enough: the next callers find it awake
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._start()
        self._work.set()

    def _start(self) -> None:
        self._closed = False
        thread = threading.Thread(target=self._run, name=f"interlock-{type(self).__name__}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going down: the next item tries again
            self._asleep = True
            return
        self._thread = thread
        atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            self._asleep = True
            if not self._queue and not self._closed:
                self._work.wait()
            self._work.clear()
            self._asleep = False
            while self._queue:
                self._hurry.wait(self._gather_s)
                self._hurry.clear()
                self._drain()
            if self._closed:
                self._asleep = True
                self._drain()
                self.release()
                return

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            items: list[Any] = []
            barrier = None
            while queue and barrier is None and len(items) < MAX_BATCH:
                item = queue.popleft()
                if isinstance(item, threading.Event):
                    barrier = item
                else:
                    items.append(item)
            if items:
                self.handle(items)
            if barrier is not None:
                barrier.set()
