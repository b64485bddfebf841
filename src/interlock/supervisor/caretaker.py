"""Sees to runs that nobody works on, and to facts whose time is over.

Gives up orphans, queues parked runs that wait for nothing any more, deletes what has expired of memory.

Every process on a store does so. A worker looks regularly; any other gate, when it opens a run and nobody has
looked for a while, so that an idle process costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from interlock.core.errors import ConfigError, InterlockError
from interlock.journal.replay import ReplayStore
from interlock.journal.store import RunRow
from interlock.supervisor.machinery import Machinery
from interlock.supervisor.secretary import Secretary

__all__ = ["Caretaker"]

# How often orphans are looked for, as a part of the time after which a run is one.
LOOKS = 4
# Runs that cannot be gone on with, remembered so that they are not read again and again.
KNOWN_STUCK = 10_000


class Caretaker:
    """See the module."""

    def __init__(self, machinery: Machinery, history: ReplayStore, secretary: Secretary) -> None:
        self._leases = machinery.leases
        self._remembering = machinery.remembering
        self._tenants = machinery.tenants
        self._clock = machinery.clock
        self._orphan_after_s = machinery.orphan_after_s
        self._history = history
        self._secretary = secretary
        self._looked_s = -float("inf")
        self._looking: set[asyncio.Task[None]] = set()
        self._stuck: dict[str, None] = {}

    async def reap(self, able: Sequence[str] = (), tenants: Sequence[str] | None = None) -> None:
        """Give up the runs that nobody has gone on with in time.

        Those of the agents in `able` (and of `tenants`) are queued before that, for when there is room.
        """
        now_s = self._clock.monotonic()
        if now_s - self._looked_s < self._orphan_after_s / LOOKS:
            return
        self._looked_s = now_s
        if able:
            await self._leases.shelter(self._orphan_after_s / LOOKS, able, tenants)
        for row in await self._leases.reap(self._orphan_after_s, able):
            await self._secretary.give_up_orphan(row, self._orphan_after_s)
        await self._remembering.sweep(self._clock.wall())

    def reap_soon(self) -> None:
        """Do the same in the background, if nobody has looked for a while."""
        if self._looking or self._clock.monotonic() - self._looked_s < self._orphan_after_s / LOOKS:
            return
        task = asyncio.create_task(self._reap_quietly(), name="interlock-orphans")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _reap_quietly(self) -> None:
        try:
            await self.reap()
        except InterlockError:
            return  # the store is away: the next run that is opened looks again

    async def aclose(self) -> None:
        """Wait for what was begun in the background on this loop."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self._looking if task.get_loop() is loop]
        if mine:
            await asyncio.wait(mine)

    async def wake(self, agents: Sequence[str], tenants: Sequence[str] | None) -> None:
        """Queue parked runs of these agents whose doubts are settled, or whose approval is decided or expired."""
        for run_id in await self._leases.settled(agents, tenants, tuple(self._stuck)):
            if await self.can_go_on(run_id):
                await self._leases.requeue(run_id)
            else:
                self._remember_stuck(run_id)

    async def full_tenants(self, busy: Mapping[str, int]) -> list[str]:
        """Return the tenants that may have no more run under way at present; `busy`: runs of theirs that are ours."""
        return await self._tenants.full(busy)

    async def can_go_on(self, run_id: str) -> bool:
        """Whether every model turn of a parked run can be answered again, so that nothing is worded anew."""
        try:
            return self._history.keeps and (await self._history.history(run_id)).complete
        except ConfigError:
            return False  # sealed with another key than ours

    def _remember_stuck(self, run_id: str) -> None:
        if len(self._stuck) >= KNOWN_STUCK:
            self._stuck.pop(next(iter(self._stuck)))
        self._stuck[run_id] = None

    @staticmethod
    def may_be_revived(row: RunRow) -> bool:
        """Whether a run was given up only because nobody went on with it in time: a redelivery still may."""
        details = (row.record or {}).get("details")
        return bool(row.payload_hash) and isinstance(details, dict) and details.get("orphaned") is True
