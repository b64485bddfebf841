"""Tells workers that a run was queued, with LISTEN and NOTIFY: a hint that may be lost, and behind which they look.

The one connection with a state. Behind a pooler in transaction mode there is none, and nobody is told. One that was
cut is made again within a second, and one that died without a word is found out by asking it now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from interlock.stores.pg_address import Address
from interlock.stores.pg_connections import connect, hang_up
from interlock.stores.pg_thread import LoopThread, pause

__all__ = ["PgBell", "ring_text"]

RETRY_S = 1.0
# A router between us and the server may forget a connection that is silent for minutes, and tell neither.
PING_S = 60.0


def ring_text(schema: str) -> str:
    """Return the statement that rings, when its transaction commits."""
    return f"select pg_notify('interlock_{schema}', '')"


class PgBell:
    """Listens for as long as anybody wants to be told."""

    def __init__(self, thread: LoopThread, address: Address, patience_s: float) -> None:
        self._thread = thread
        self._address = address
        self._patience_s = patience_s
        self._channel = f"interlock_{address.schema}"
        self._told: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    def listen(self, bell: Callable[[], None]) -> Callable[[], None]:
        """Call `bell` on the connection's thread whenever somebody rings; return what ends that."""
        if self._address.pooled:
            return _nothing
        self._told.append(bell)
        self._thread.call(self._start)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._told.remove(bell)
            self._thread.call(self._stop)

        return end

    # On the thread of the connection.

    def _start(self) -> None:
        if self._task is None and self._told:
            self._task = asyncio.get_running_loop().create_task(self._main(), name="interlock-bell")

    def _stop(self) -> None:
        if self._task is not None and not self._told:
            self._task.cancel()
            self._task = None

    async def _main(self) -> None:
        while True:
            # Whatever it was, nobody waits for it: those who are told look by themselves all the same.
            with contextlib.suppress(Exception):
                await self._hear()
            await pause(RETRY_S)

    async def _hear(self) -> None:
        """Listen until the connection ends."""
        gone = asyncio.Event()
        db = await connect(self._address, self._patience_s)
        try:
            db.add_termination_listener(lambda _: gone.set())
            await db.add_listener(self._channel, self._rung)
            # What was queued while nobody listened.
            self._rung()
            while not gone.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PING_S):
                        await gone.wait()
                if not gone.is_set():
                    await db.execute("select 1", timeout=self._patience_s)
        finally:
            hang_up(db)

    def _rung(self, *_: Any) -> None:
        for bell in list(self._told):
            # The loop of one who was told may be closed by now.
            with contextlib.suppress(RuntimeError):
                bell()


def _nothing() -> None:
    """Nothing was begun that must be ended."""
