"""What one tenant may use over all its runs, in every process: dollars a day, runs at a time.

The counts live in the store. A model turn reserves its worst case there before it starts and settles after;
dying in between leaves the reservation charged. Without the store a capped tenant takes no turn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from interlock.core.clock import Clock

__all__ = ["Held", "TenantBudgets", "TenantCaps", "TenantStore"]

WAIT_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class TenantCaps:
    """`tenants.NAME.budgets`: None is unlimited.

    Attributes:
        max_usd_per_day: Dollars of all its runs, by UTC day.
        max_concurrent_runs: Root runs at the same time; a further one waits for its turn.
    """

    max_usd_per_day: float | None = None
    max_concurrent_runs: int | None = None


class TenantStore(Protocol):
    """Where the counts are kept. Raises `StoreUnavailable` where it is not known what was written."""

    async def reserve(self, tenant_id: str, day: str, usd: float, cap_usd: float) -> bool:
        """Add `usd` to the day's dollars, unless they would pass the cap, or it is used up; return whether added."""
        ...

    def adjust_soon(self, tenant_id: str, day: str, usd: float) -> None:
        """Add `usd` (often negative) to the day's dollars, without waiting."""
        ...

    async def enter(self, tenant_id: str, run_id: str, cap: int) -> bool:
        """Take one of `cap` places for a run; places of processes that are gone do not count."""
        ...

    async def places(self, tenant_ids: Collection[str]) -> dict[str, int]:
        """Return how many places of each of these tenants are taken; those of processes that are gone do not count."""
        ...

    def leave_soon(self, tenant_id: str, run_id: str) -> None:
        """Give a run's place back, without waiting."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """Dollars held for a turn of a capped tenant."""

    tenant_id: str
    day: str
    usd: float


class TenantBudgets:
    """The caps of all tenants of one gate.

    Args:
        caps: By tenant, of those that have any.
    """

    def __init__(self, store: TenantStore, clock: Clock, caps: Mapping[str, TenantCaps]) -> None:
        self._store = store
        self._clock = clock
        self._caps_of = caps.get
        self._crowded = {name: cap.max_concurrent_runs for name, cap in caps.items() if cap.max_concurrent_runs}

    def dollar_cap(self, tenant_id: str) -> float | None:
        """Return the dollars a day that the tenant may spend, or None."""
        caps = self._caps_of(tenant_id)
        return None if caps is None else caps.max_usd_per_day

    async def reserve(self, tenant_id: str, usd: float, cap_usd: float) -> Held | None:
        """Hold the worst case of a turn; None: the day's dollars do not allow it.

        Raises:
            StoreUnavailable: It is not known what is left, so there is no turn.
        """
        day = self._day()
        if not await self._store.reserve(tenant_id, day, usd, cap_usd):
            return None
        return Held(tenant_id, day, usd)

    def unheld(self, tenant_id: str) -> Held:
        """Return what lets a turn be settled for which nothing was held: what it costs is counted then."""
        return Held(tenant_id, self._day(), 0.0)

    def _day(self) -> str:
        return datetime.fromtimestamp(self._clock.wall(), UTC).date().isoformat()

    def settle(self, held: Held, usd: float) -> None:
        """Replace what a turn held by what it cost."""
        if usd != held.usd:
            self._store.adjust_soon(held.tenant_id, held.day, usd - held.usd)

    async def enter(self, tenant_id: str, run_id: str, until_s: float) -> int | None:
        """Wait for a place among the tenant's runs; return the cap if there was none until `until_s` (monotonic)."""
        caps = self._caps_of(tenant_id)
        if caps is None or caps.max_concurrent_runs is None:
            return None
        while not await self._store.enter(tenant_id, run_id, caps.max_concurrent_runs):
            if self._clock.monotonic() >= until_s:
                return caps.max_concurrent_runs
            await self._clock.sleep(WAIT_POLL_S)
        return None

    async def full(self, busy: Mapping[str, int]) -> list[str]:
        """Return the tenants that may have no more run under way at present; `busy`: runs of theirs that are ours."""
        if not self._crowded:
            return []
        taken = await self._store.places(self._crowded)
        return [name for name, cap in self._crowded.items() if max(taken.get(name, 0), busy.get(name, 0)) >= cap]

    def leave(self, tenant_id: str, run_id: str) -> None:
        """Give the place of a run back."""
        caps = self._caps_of(tenant_id)
        if caps is not None and caps.max_concurrent_runs is not None:
            self._store.leave_soon(tenant_id, run_id)
