"""Writes under way are tasks of the gate, not of the run: a cancelled run cannot tear one apart.

Equal writes of one moment share one flight: the second waits for the first, and is then answered from the
record. On closing, flights get a grace; whatever is still in the air after that is in doubt, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from interlock.core.calls import Answer
from interlock.core.clock import Clock
from interlock.journal.store import ClaimState, Journal, Settlement

__all__ = ["SHUTDOWN", "Flight", "InFlight"]

SHUTDOWN = "shutdown"
# What a cancelled tool gets to let go before it is left behind.
LAST_WORD_S = 1.0


class Flight:
    """One write under way.

    Attributes:
        over: What its caller waits for; not the task itself, which would be cancelled with its caller.
        abandoned: Its caller has gone: what is not yet sent need not be.
        sends: How often something may have left the process. sent_s: the last time, on `Clock.boot`.
        first_sent_at: Wall-clock time (Unix seconds) from which the remote may know the key.
    """

    __slots__ = ("abandoned", "first_sent_at", "over", "sends", "sent_s", "task")

    task: asyncio.Task[Answer]
    sent_s: float

    def __init__(self) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.abandoned = False
        self.sends = 0
        self.first_sent_at: float | None = None

    def note_send(self, clock: Clock) -> None:
        """Something is about to leave the process."""
        self.sends += 1
        self.sent_s = clock.boot()
        if self.first_sent_at is None:
            self.first_sent_at = clock.wall()

    def abandon(self) -> None:
        """Take in that the caller was cancelled: the flight goes on, and nobody asks for its outcome."""
        self.abandoned = True
        self.task.add_done_callback(_seen)

    async def landed(self) -> None:
        """Wait until it is over, whatever came of it."""
        await asyncio.wait((self.task,))


class InFlight:
    """The writes of this process that are under way, by effect key.

    Args:
        journal: Where a write that outlives the grace is marked in doubt.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._flights: dict[bytes, Flight] = {}
        self._late: dict[bytes, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Writes under way, late answers not counted."""
        return len(self._flights)

    def get(self, key: bytes) -> Flight | None:
        """Return the flight of this effect on this event loop, if there is one."""
        flight = self._flights.get(key)
        if flight is None or flight.task.done() or flight.task.get_loop() is not asyncio.get_running_loop():
            return None
        return flight

    def start(self, key: bytes, flight: Flight, write: Coroutine[Any, Any, Answer]) -> None:
        """Set `flight` off: `write` runs as a task of its own, and calls `land` when it is over."""
        flight.task = asyncio.create_task(write)
        self._flights[key] = flight

    def land(self, key: bytes, flight: Flight) -> None:
        """Let whoever waits for the flight know that it is over."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.over.done():
            flight.over.set_result(None)

    def await_late(self, key: bytes, watch: Coroutine[Any, Any, None]) -> None:
        """Keep watching for the answer of a sync tool that outlived its timeout."""
        task = self._late[key] = asyncio.create_task(watch)
        task.add_done_callback(lambda _: self._late.pop(key, None))

    def is_late(self, key: bytes) -> bool:
        """Whether an abandoned thread may still be performing this effect: nothing may be sent meanwhile."""
        return key in self._late

    def is_busy(self, key: bytes) -> bool:
        """Whether this process is at this effect, on whichever event loop, or may still be."""
        flight = self._flights.get(key)
        return (flight is not None and not flight.task.done()) or key in self._late

    async def aclose(self, grace_s: float) -> int:
        """Wait up to `grace_s` seconds; then mark what is left in doubt, and return how many that were."""
        loop = asyncio.get_running_loop()
        # Copied first: other event loops of this process come and go meanwhile.
        late = [task for task in list(self._late.values()) if task.get_loop() is loop]
        flights = {key: flight for key, flight in list(self._flights.items()) if flight.task.get_loop() is loop}
        if flights or late:
            await asyncio.wait([*(flight.task for flight in flights.values()), *late], timeout=grace_s)
        for task in late:
            task.cancel()
        left = {key: flight for key, flight in flights.items() if not flight.task.done()}
        for flight in left.values():
            flight.task.cancel()
        if left:
            await asyncio.wait([flight.task for flight in left.values()], timeout=LAST_WORD_S)
        for key, flight in flights.items():
            if flight.task.done():
                self.land(key, flight)  # one that was cancelled before it began has not done so itself
            else:
                self._journal.settle_soon(key, Settlement(ClaimState.IN_DOUBT, by=SHUTDOWN))
        return len(left)


def _seen(task: asyncio.Task[Answer]) -> None:
    if not task.cancelled():
        task.exception()
