"""Who works on a run, and for how long that is believed: owner, lease, fence.

A lease is a promise with an end. Its owner renews it while he lives; whoever finds it run out may take the run
over and raises the fence, so that what the old owner still sends to the store is refused there. The old owner
reads the same clock, and stops a margin earlier: before anybody else may begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from interlock.core.errors import LeaseLost
from interlock.journal.store import Begun, NewRun, RunRow

__all__ = ["Attempt", "Lease", "Ownership", "hold_on", "left_s", "wears_out"]

# Part of its time that a lease is given up early, by its owner alone.
MARGIN = 0.1


def left_s(until_s: float | None, boot_id: str | None, now_s: float, this_boot: str) -> float | None:
    """Return the seconds that a lease has left, below 0 when it has run out; None where there is none.

    Args:
        until_s, now_s: On the clock of the boot `boot_id`, sleep included; another boot ends every lease.
    """
    if until_s is None:
        return None
    return until_s - now_s if boot_id == this_boot else -math.inf


def wears_out(barren: int, *, dead: bool, recorded_before: int, recorded: int) -> int:
    """Return how many attempts in a row have recorded nothing new, now that one more is over.

    Args:
        barren: How many before it. dead: whether its owner died; a run handed back or parked is no failure.
        recorded_before, recorded: Records of the run when the attempt began, and now.
    """
    if recorded > recorded_before:
        return 0
    return barren + 1 if dead else barren


class Lease:
    """One run of this process; shared by its run and the thread that renews it.

    Attributes:
        until_s: Until when this process may act for the run, on `Clock.boot`; below every time once it is lost.
        on_lost: Called once, in any thread, when the store says that the run is somebody else's.
    """

    __slots__ = ("_lost", "fence", "on_lost", "run_id", "until_s")

    def __init__(self, run_id: str, fence: int, until_s: float) -> None:
        self.run_id = run_id
        self.fence = fence
        self.until_s = until_s
        self.on_lost: Callable[[], None] | None = None
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether the run is somebody else's, for certain."""
        return self._lost

    def renewed(self, asked_s: float, ttl_s: float) -> None:
        """Take in that the store has prolonged it by a statement sent at `asked_s`."""
        self.until_s = max(self.until_s, asked_s + ttl_s * (1 - MARGIN))
        if self._lost:  # in another thread, meanwhile
            self.until_s = -math.inf

    def lose(self) -> None:
        """Take in that the run is somebody else's."""
        if not self._lost:
            self._lost = True
            self.until_s = -math.inf
            if self.on_lost is not None:
                self.on_lost()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One stretch of work on a run. Times are wall-clock seconds (Unix).

    Attributes:
        owner: The process: boot, number, start time, and a token of its store.
        ended_at: None while it goes on, or where nobody saw the end (the machine went down).
        ended_as: `running`, `lease_lost`, `handed_back`, or the stop reason it ended or was parked with.
    """

    fence: int
    owner: str
    started_at: float
    ended_at: float | None
    ended_as: str


class Ownership(Protocol):
    """Leases of this process, and the queue of runs that nobody works on.

    `RunStore.begin` sets the lease of what it begins; `RunRow.lease_left_s` shows it.

    Attributes:
        ttl_s: How long a lease lasts without renewal; infinite where the store has one process alone.
    """

    ttl_s: float

    def hold(self, run_id: str, fence: int, asked_s: float) -> Lease:
        """Keep the lease of a run that this process has begun; `asked_s` is `Clock.boot` before it asked."""
        ...

    def let_go(self, lease: Lease) -> None:
        """Renew it no more: the run has ended here."""
        ...

    async def confirm(self, lease: Lease) -> bool:
        """Renew one lease now; False (and the lease is lost) where the run is somebody else's, or has ended.

        Raises:
            StoreUnavailable: Nobody can say.
        """
        ...

    async def queue(self, run: NewRun) -> Begun:
        """Insert a run that a worker is to take, in state QUEUED; or return what stands for its request.

        A standing PARKED run is returned as it is.
        """
        ...

    async def task_of(self, run_id: str) -> bytes | None:
        """Return what `NewRun.task` was; None where it is not kept, or cannot be unsealed with this key."""
        ...

    async def requeue(self, run_id: str) -> bool:
        """Make a PARKED run QUEUED; False where it is not parked."""
        ...

    async def take(
        self,
        agents: Sequence[str],
        tenants: Sequence[str] | None,
        busy: Mapping[str, int],
        without: Collection[str] = (),
    ) -> RunRow | None:
        """Take the oldest run that is queued, or whose owner is dead; None where there is none.

        Only keyed root runs of these agents (and tenants), and none of the tenants in `without`; tenants with fewer
        runs in `busy` come first. The row is as `begin(resume=True)` leaves it, with `task`.
        """
        ...

    def ring(self, bell: Callable[[], None]) -> Callable[[], None]:
        """Call `bell`, in any thread, when there may be a run to take; return what ends that.

        A hint, and not given by every store: who waits for it looks every so often all the same.
        """
        ...

    async def hand_back(self, run_id: str, fence: int, used_s: float) -> bool:
        """Queue a run of ours again, not counting the attempt; False where it is not ours any more."""
        ...

    async def settled(
        self, agents: Sequence[str], tenants: Sequence[str] | None, but: Collection[str] = ()
    ) -> list[str]:
        """Return some PARKED runs that wait for nothing any more (no open claim, nothing to decide), oldest first.

        Only keyed root runs of these agents (and tenants), and not those in `but`.
        """
        ...

    async def shelter(self, after_s: float, agents: Sequence[str], tenants: Sequence[str] | None) -> int:
        """Queue some runs of these agents (and tenants) whose lease ran out that long ago; return how many.

        So says a worker without room for them that somebody is there who can go on with them.
        """
        ...

    async def reap(self, orphan_after_s: float, able: Sequence[str]) -> list[RunRow]:
        """Make ours some runs whose lease ran out that long ago, as `take` would, so that they can be given up.

        Runs of the agents in `able` wait for a worker, unless they were begun without a request id.
        """
        ...

    async def attempts_of(self, run_id: str) -> list[Attempt]:
        """Return every stretch of work on a run, oldest first."""
        ...


async def hold_on(leases: Ownership, lease: Lease) -> None:
    """Renew a lease that was not renewed in time, before anything is done under it.

    Raises:
        LeaseLost: Another worker has the run. StoreUnavailable: nobody can say.
    """
    if not await leases.confirm(lease):
        raise LeaseLost(f"run {lease.run_id}: another worker has taken it over, or it has ended")
