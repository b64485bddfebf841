"""Every change of one database runs on one thread, and whatever has gathered meanwhile shares one commit.

Callers queue a piece of work and wait for its answer on their own event loop. While the disk confirms one
commit, the next batch gathers: at one caller a write costs one commit, at a thousand it costs a fraction of
one. Work queued with `later` waits for nobody and rides on the next commit, a quarter of a second at most.

Order is kept: no piece of work is durable before all that was queued earlier. When the store cannot be
written, those who wait are told so at once, and what waits for nobody stays queued, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from interlock.core.clock import Clock
from interlock.core.errors import StoreUnavailable
from interlock.stores.batch import Item, Work, carry_out
from interlock.stores.database import is_store_fault, translate

__all__ = ["HEAP", "InlineWriter", "Writer", "WriterOptions", "WriterThread"]

CLOSED = "the store is closed"
# What nobody waits for, a trace of many runs, must not push those who wait into a later commit.
HEAP = 4
FORKED = "the store was opened before a fork: open a gate of its own in each worker process"


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How the writer waits.

    Attributes:
        patience_s: How long callers wait for a store that does not answer (locked, stalled disk).
        linger_s: How long work that nobody waits for may gather. retry_s: the same after a failure.
        batch: Most pieces of work in one commit that somebody waits for; of all, `HEAP` times as many.
        backlog: Most pieces of work kept while the store is down; more are lost, and counted.
    """

    patience_s: float = 5.0
    linger_s: float = 0.25
    retry_s: float = 1.0
    batch: int = 512
    backlog: int = 50_000


class Turn(Protocol):
    """A lock among the processes that write to one file (see `TurnLock`)."""

    def acquire(self) -> None: ...
    def release(self) -> None: ...
    def close(self) -> None: ...


class Writer(Protocol):
    """What a store needs of a writer. Work is called as `work(db, *args)` inside a transaction."""

    lost: int

    def submit(self, work: Work, *args: Any) -> asyncio.Future[Any]:
        """Queue work; the future is answered after its commit, or fails with `StoreUnavailable`."""
        ...

    def later(self, work: Work, *args: Any) -> None:
        """Queue work that nobody waits for."""
        ...

    def hurry(self) -> None:
        """Commit what is queued now, and not when more has gathered; nobody waits for it all the same."""
        ...

    def close(self) -> None:
        """Write what is queued, and stop."""
        ...

    def forked(self) -> None:
        """Called in the child of a fork: refuse everything, touch nothing."""
        ...


class InlineWriter:
    """The writer of a database in memory: there is no disk to wait for, so work runs where it is asked for."""

    def __init__(self, db: sqlite3.Connection, lock: threading.Lock) -> None:
        self.lost = 0
        self._db = db
        self._lock = lock
        self._closed: str | None = None

    def submit(self, work: Work, *args: Any) -> asyncio.Future[Any]:
        """See `Writer`."""
        future = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._run(work, args))
        except Exception as error:
            future.set_exception(error)
        return future

    def later(self, work: Work, *args: Any) -> None:
        """See `Writer`."""
        try:
            self._run(work, args)
        except Exception:
            self.lost += 1

    def hurry(self) -> None:
        """See `Writer`."""

    def close(self) -> None:
        """See `Writer`."""
        # Not under the lock: in the child of a fork, whoever held it is not there to let it go.
        first, self._closed = not self._closed, self._closed or CLOSED
        if first and self._lock.acquire(timeout=1.0):
            try:
                self._db.close()
            finally:
                self._lock.release()

    def forked(self) -> None:
        """See `Writer`."""
        self._closed = FORKED

    def _run(self, work: Work, args: tuple[Any, ...]) -> Any:
        with self._lock:
            if self._closed is not None:
                raise StoreUnavailable(self._closed)
            self._db.execute("begin")
            try:
                result = work(self._db, *args)
                self._db.execute("commit")
                return result
            except sqlite3.Error as error:
                raise translate(error, ":memory:") from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("rollback")


class WriterThread:
    """The writer of a file.

    Args:
        db: The connection that writes; nobody else may use it.
        turn: The lock among processes.
        path: For messages.
    """

    def __init__(self, db: sqlite3.Connection, turn: Turn, path: str, clock: Clock, options: WriterOptions) -> None:
        self.lost = 0
        self.batches = 0
        self._db = db
        self._turn = turn
        self._path = path
        self._clock = clock
        self._options = options
        self._queue: deque[Item] = deque()
        # Held by whoever takes from the head, so that the watchdog cannot put the writer's order out.
        self._order = threading.Lock()
        self._urgent = False
        self._closing = False
        self._why_closed = CLOSED
        self._failing = False
        # 0: at work, 1: gathering (only urgent work rings), 2: asleep (any work rings).
        self._sleep = 0
        self._bell = threading.Lock()
        self._bell.acquire()
        self._busy_since: float | None = None
        self._under_way: list[Item] = []
        self._watch = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._main, name="interlock-writer", daemon=True)
        self._watchdog = threading.Thread(target=self._watch_over, name="interlock-writer-watch", daemon=True)
        self._thread.start()
        self._watchdog.start()

    def submit(self, work: Work, *args: Any) -> asyncio.Future[Any]:
        """See `Writer`."""
        future = asyncio.get_running_loop().create_future()
        if self._closing:
            future.set_exception(StoreUnavailable(self._why_closed))
            return future
        self._queue.append((work, args, future))
        self._urgent = True
        if self._sleep:
            self._ring()
        return future

    def later(self, work: Work, *args: Any) -> None:
        """See `Writer`."""
        if self._closing or len(self._queue) >= self._options.backlog:
            self.lost += 1
            return
        self._queue.append((work, args, None))
        if self._sleep == 2:
            self._ring()

    def hurry(self) -> None:
        """See `Writer`."""
        self._urgent = True
        if self._sleep:
            self._ring()

    def close(self) -> None:
        """See `Writer`; waits at most `patience_s` for a store that does not answer."""
        if self._closing:
            return
        self._closing = True
        self._ring()
        self._closed.set()
        self._watch.set()
        self._thread.join(self._options.patience_s + 1.0)

    def forked(self) -> None:
        """See `Writer`."""
        self._closing = True
        self._why_closed = FORKED

    def _ring(self) -> None:
        self._sleep = 0
        with contextlib.suppress(RuntimeError):  # raised when somebody else has rung already
            self._bell.release()

    # On the writer's thread.

    def _main(self) -> None:
        while self._await_work():
            self._busy_since = self._clock.monotonic()
            if not self._watch.is_set():
                self._watch.set()
            try:
                self._write()
            except Exception as error:
                # The lock cannot be had, or memory ran out: whoever waits must hear of it, and the thread live on.
                self._failing = True
                self._give_up(f"store {self._path}: {type(error).__name__}: {error}")
            self._under_way = []
            self._busy_since = None
        self.lost += len(self._queue)
        self._db.close()
        self._turn.close()

    def _write(self) -> None:
        """Wait for our turn, and commit what has gathered by then."""
        self._turn.acquire()
        try:
            batch = self._under_way = self._take()
            outcomes = self._commit(batch)
        finally:
            self._turn.release()
        self._answer(batch, outcomes)

    def _await_work(self) -> bool:
        """Sleep until there is something to write; False once closed and written (or not writable)."""
        if self._closing:
            return bool(self._queue) and not self._failing
        if not self._queue:
            self._sleep = 2
            # Looked at again: whoever came before `_sleep` was set has not rung.
            if not self._queue and not self._wanted():
                self._bell.acquire()
            self._sleep = 0
        if not self._wanted():
            self._sleep = 1
            if not self._wanted():
                self._bell.acquire(timeout=self._options.retry_s if self._failing else self._options.linger_s)
            self._sleep = 0
        return True

    def _wanted(self) -> bool:
        return self._urgent or self._closing

    def _take(self) -> list[Item]:
        self._urgent = False
        batch: list[Item] = []
        waited_for = 0
        with self._order, contextlib.suppress(IndexError):
            while waited_for < self._options.batch and len(batch) < HEAP * self._options.batch:
                item = self._queue.popleft()
                batch.append(item)
                waited_for += item[2] is not None
            self._urgent = bool(self._queue)
        return batch

    def _commit(self, batch: list[Item]) -> list[Any]:
        """Run the batch in one transaction; return a result or an exception for each piece of work."""
        try:
            return self._transact(batch)
        except sqlite3.Error as error:
            if is_store_fault(error):
                return self._keep(batch, error)
        except Exception:  # noqa: S110 - found again, and answered, below
            pass
        return self._commit_alone(batch)

    def _commit_alone(self, batch: list[Item]) -> list[Any]:
        """One piece of work has spoiled the batch: run each in a transaction of its own, in their order."""
        outcomes: list[Any] = []
        for i, item in enumerate(batch):
            try:
                outcomes += self._transact([item])
            except Exception as error:
                if isinstance(error, sqlite3.Error) and is_store_fault(error):
                    return outcomes + self._keep(batch[i:], error)
                self.lost += item[2] is None
                outcomes.append(translate(error, self._path) if isinstance(error, sqlite3.Error) else error)
        return outcomes

    def _transact(self, items: list[Item]) -> list[Any]:
        db = self._db
        try:
            db.execute("begin immediate")
            outcomes = carry_out(db, items)
            db.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("rollback")
            raise
        self._failing = False
        self.batches += 1
        return outcomes

    def _keep(self, batch: list[Item], error: sqlite3.Error) -> list[Any]:
        """The store is at fault: what nobody waits for goes back to the head; who waits behind it hears of it now."""
        self._failing = True
        with self._order:
            self._queue.extendleft(item for item in reversed(batch) if item[2] is None)
        self._urgent = False  # first: who comes from here on rings again
        waiting = self._take_back()
        self._answer(waiting, [translate(error, self._path) for _ in waiting])
        return [translate(error, self._path) for _ in batch]

    def _answer(self, batch: list[Item], outcomes: list[Any]) -> None:
        """Hand the outcomes to the event loops of those who wait, one call a loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for (_, _, future), outcome in zip(batch, outcomes, strict=True):
            if future is not None:
                by_loop.setdefault(future.get_loop(), []).append((future, outcome))
        for loop, answers in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, answers)
            except RuntimeError:
                continue  # that loop is closed, and nobody waits on it any more

    # On the watchdog's thread, which sleeps while the writer does.

    def _watch_over(self) -> None:
        patience_s = self._options.patience_s
        while not self._closed.wait(min(1.0, patience_s / 2)):
            since = self._busy_since
            if since is None:
                # Cleared first: the writer marks itself busy before it looks whether we watch.
                self._watch.clear()
                if not self._busy():
                    self._watch.wait()
            elif self._clock.monotonic() - since > patience_s:
                self._give_up(
                    f"store {self._path}: no answer for {patience_s:g} s: another process that holds it is stopped, "
                    "or the disk is stalled; see `interlock doctor`"
                )

    def _busy(self) -> bool:
        return self._busy_since is not None or bool(self._queue)

    def _give_up(self, text: str) -> None:
        """Tell those who wait that the store does not answer. What is not yet begun is taken back."""
        waiting = self._take_back() + self._under_way
        self._answer(waiting, [StoreUnavailable(text) for _ in waiting])

    def _take_back(self) -> list[Item]:
        """Take out of the queue what somebody waits for."""
        waiting: list[Item] = []
        kept: list[Item] = []
        with self._order:
            for _ in range(len(self._queue)):
                item = self._queue.popleft()
                (kept if item[2] is None else waiting).append(item)
            self._queue.extendleft(reversed(kept))
        return waiting


def _deliver(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue  # cancelled, or told before that the store does not answer
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
