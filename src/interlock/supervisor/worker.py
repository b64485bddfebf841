"""Works on runs that were submitted, and on runs whose worker has died, until it is told to drain.

Runs are taken one by one as there is room, oldest first and fair between tenants, within the limits of each. While
there is nothing to do the store is only read. Draining refuses new calls and turns, lets writes finish, and hands the
runs back: what they have done is on record, and the next worker goes on from there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interlock.core.canonical import NotCanonical
from interlock.core.clock import Clock
from interlock.core.errors import ConfigError, InterlockError
from interlock.journal.ownership import Ownership
from interlock.journal.rounds import Rounds
from interlock.journal.store import RunRow
from interlock.supervisor.requests import RunRequest
from interlock.supervisor.supervisor import Supervisor

__all__ = ["Worker", "WorkerOptions"]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        tenants: Whose runs it takes; None for everybody's.
        concurrency: Most runs under way at once. per_tenant: of one tenant; None is no such limit.
            `tenants.NAME.budgets.max_concurrent_runs` holds beside it, over all workers.
        poll_s: How often it looks for runs while it has room; while there is nothing to do, `idle_s`.
        parked_s: likewise, whether parked ones may go on.
        doubts_s: How often it looks for doubts that the look-up of a tool may close.
    """

    tenants: Sequence[str] | None = None
    concurrency: int = 8
    per_tenant: int | None = None
    poll_s: float = 0.25
    idle_s: float = 0.75
    parked_s: float = 1.0
    doubts_s: float = 5.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError("worker: concurrency is at least 1")
        if self.per_tenant is not None and self.per_tenant < 1:
            raise ConfigError("worker: per_tenant is at least 1, or None")


class Worker:
    """See the module.

    Args:
        agents: By the name under which runs are submitted.
        failed: Told when the store cannot be asked; the worker goes on and asks again.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        leases: Ownership,
        clock: Clock,
        agents: Mapping[str, Callable[..., Any]],
        options: WorkerOptions,
        rounds: Rounds,
        failed: Callable[[InterlockError], None] = lambda _: None,
    ) -> None:
        self._supervisor = supervisor
        self._secretary = supervisor.secretary
        self._caretaker = supervisor.caretaker
        self._leases = leases
        self._clock = clock
        self._agents = dict(agents)
        self._options = options
        self._rounds = rounds
        self._failed = failed
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._drained = asyncio.Event()
        self._parked_at = self._asked_at = -float("inf")
        self._asking: asyncio.Task[Any] | None = None

    def drain(self) -> None:
        """Take nothing more, and hand back what is under way; `run` returns when that is done."""
        self._drained.set()

    async def run(self) -> None:
        """Work until `drain` is called."""
        self._supervisor.returning = False  # another worker of this gate may have drained before
        options, wait_s = self._options, self._options.poll_s
        drained = asyncio.create_task(self._drained.wait())
        rung = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ring() -> None:
            loop.call_soon_threadsafe(rung.set)

        silence = self._leases.ring(ring)
        try:
            while not self._drained.is_set():
                rung.clear()
                try:
                    await self._look()
                except InterlockError as error:
                    self._failed(error)
                # One that finds nothing looks less often: take-over stays within a second of the lease's end.
                wait_s = options.poll_s if self._under_way else min(wait_s * 2, max(options.poll_s, options.idle_s))
                bell = asyncio.create_task(rung.wait())
                waits: list[asyncio.Task[Any]] = [drained, bell, *self._under_way]
                await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                bell.cancel()
        finally:
            silence()
            drained.cancel()
            if self._asking is not None:
                self._asking.cancel()
            self._supervisor.return_runs()
            if self._under_way:
                await asyncio.wait(self._under_way)

    async def _look(self) -> None:
        """Take as many runs as there is room for, and see to those that nobody works on."""
        now_s, options = self._clock.monotonic(), self._options
        if now_s - self._parked_at >= options.parked_s:
            self._parked_at = now_s
            await self._caretaker.wake(list(self._agents), options.tenants)
        await self._caretaker.reap(list(self._agents), options.tenants)
        if now_s - self._asked_at >= options.doubts_s and (self._asking is None or self._asking.done()):
            self._asked_at = now_s
            self._asking = asyncio.create_task(self._ask_remotes())
        # While the gate hands its runs back, what is taken would only come back to the queue.
        while not (self._drained.is_set() or self._supervisor.returning):
            if len(self._under_way) >= options.concurrency:
                return
            busy = Counter(self._under_way.values())
            full = await self._full(busy)
            asked_s = self._clock.boot()
            row = await self._leases.take(list(self._agents), options.tenants, busy, full)
            if row is None:
                return
            task = asyncio.create_task(self._work(row, asked_s))
            self._under_way[task] = row.tenant_id
            task.add_done_callback(self._over)

    async def _full(self, busy: Counter[str]) -> list[str]:
        """Return the tenants of whom this worker takes nothing at present."""
        most = self._options.per_tenant
        ours = [] if most is None else [tenant_id for tenant_id, n in busy.items() if n >= most]
        return ours + await self._caretaker.full_tenants(busy)

    async def _ask_remotes(self) -> None:
        """Close doubts by the look-ups of their tools; beside the runs, however long a remote takes."""
        try:
            await self._rounds.go(self._options.tenants)
        except InterlockError as error:
            self._failed(error)

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, InterlockError):
            self._failed(error)
        elif error is not None:
            raise error

    async def _work(self, row: RunRow, asked_s: float) -> None:
        try:
            request = RunRequest.read(row.agent, row.tenant_id, row.request_id, row.task)
        except NotCanonical as error:
            await self._secretary.give_up(row, str(error))
            return
        await self._supervisor.work(self._agents[row.agent], row, request, asked_s)
