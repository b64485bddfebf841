"""Reads beside the writer: they see what was committed last. Look-ups by key share statements.

A connection that was cut is made again while the one who asks still waits; a read changes nothing and may be
asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from interlock.core.errors import InterlockError, StoreUnavailable
from interlock.stores.pg_address import Address
from interlock.stores.pg_claims import CLAIM_COLUMNS
from interlock.stores.pg_connections import Connections, transaction
from interlock.stores.pg_errors import Fault, fault_of, translate
from interlock.stores.pg_thread import LoopThread, answer, answer_all, pause
from interlock.stores.writer import CLOSED, FORKED

__all__ = ["PgReader"]

Query = Callable[[Any], Awaitable[Any]]

_FIND = f"select {CLAIM_COLUMNS} from {{s}}.journal j where j.key = any($1::bytea[])"
MOST_KEYS = 512
RETRY_S = 0.1


class PgReader:
    """How a store reads, and how it writes what people decide.

    Args:
        patience_s: How long one who asks waits for a server that does not answer.
    """

    def __init__(self, thread: LoopThread, address: Address, patience_s: float, *, most: int = 4) -> None:
        self._thread = thread
        self._address = address
        self._patience_s = patience_s
        self._connections = Connections(address, most=most, timeout_s=patience_s)
        self._find = _FIND.replace("{s}", address.schema)
        self._wanted: deque[tuple[bytes, asyncio.Future[Any]]] = deque()
        self._finding = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed: str | None = None

    # From any thread.

    def fetch(self, sql: str, *args: Any) -> asyncio.Future[Any]:
        """Return the rows of a query that changes nothing."""

        async def query(db: Any) -> Any:
            return await db.fetch(sql, *args)

        return self.ask(query, repeat=True)

    def ask(self, query: Query, *, repeat: bool) -> asyncio.Future[Any]:
        """Return what `query(connection)` returns; it runs in a transaction of its own.

        Args:
            repeat: It may run again when the connection breaks. Otherwise that is `StoreUnavailable`.
        """
        future = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            future.set_exception(StoreUnavailable(self._closed))
        else:
            self._thread.call(self._start, self._answer(query, repeat, future))
        return future

    def find(self, key: bytes) -> asyncio.Future[Any]:
        """Return the claim's row with this key, or None; those who ask at one moment share a statement."""
        future = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            future.set_exception(StoreUnavailable(self._closed))
            return future
        self._wanted.append((key, future))
        if not self._finding:
            self._finding = True
            self._thread.call(self._start, self._find_all())
        return future

    def close(self) -> None:
        """Give the connections back."""
        if self._closed is None:
            self._closed = CLOSED
            with contextlib.suppress(TimeoutError):
                self._thread.wait_for(self._connections.close(), self._patience_s)

    def forked(self) -> None:
        """Called in the child of a fork: refuse everything, touch nothing."""
        self._closed = FORKED

    # On the thread of the connections.

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, query: Query, repeat: bool, future: asyncio.Future[Any]) -> None:
        answer(future, await self._outcome(query, repeat))

    async def _find_all(self) -> None:
        while True:
            # One by one: others add to it, in other threads.
            wanted = [self._wanted.popleft() for _ in range(min(len(self._wanted), MOST_KEYS))]
            if not wanted:
                self._finding = False
                # Looked at again: whoever came before that has started nobody.
                if not self._wanted or self._finding:
                    return
                self._finding = True
                continue
            keys = [key for key, _ in wanted]

            async def query(db: Any, keys: list[bytes] = keys) -> Any:
                return await db.fetch(self._find, keys)

            rows = await self._outcome(query, repeat=True)
            if isinstance(rows, BaseException):
                answer_all((future, rows) for _, future in wanted)
            else:
                found = {row[0]: row for row in rows}
                answer_all((future, found.get(key)) for key, future in wanted)

    async def _outcome(self, query: Query, repeat: bool) -> Any:
        """Return what the query returns, or the exception that its caller shall see."""
        give_up_s = self._thread.time() + self._patience_s
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(give_up_s), self._connections.one() as db:
                    if self._address.tenant_id is None and repeat:
                        return await query(db)
                    async with transaction(db, self._address.tenant_id):
                        return await query(db)
            except InterlockError as error:
                return error
            except Exception as error:
                again = (repeat and fault_of(error) is Fault.CONNECTION) or fault_of(error) is Fault.AGAIN
                if not again or loop.time() + RETRY_S >= give_up_s:
                    return translate(error, self._address.shown)
            await pause(RETRY_S)
