"""Leases on PostgreSQL: renewed from a thread and a connection of their own, and the queue beside them.

One statement renews all runs of this process, three times a lease; while there are none the thread sleeps.
Neither a blocking tool nor a busy event loop nor a full queue of the writer can cost a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from interlock.core.clock import Clock
from interlock.journal.ownership import Attempt, Lease
from interlock.journal.store import Begun, NewRun, RunRow
from interlock.stores.leases import take_in
from interlock.stores.pg_address import Address
from interlock.stores.pg_connections import connect, hang_up, transaction
from interlock.stores.pg_queue import Queue
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_runs import read_run, task_place
from interlock.stores.pg_takeover import Holder
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_thread import LoopThread
from interlock.stores.pg_time import ServerTime
from interlock.stores.pg_work import alone
from interlock.stores.pg_writer import PgWriter
from interlock.stores.seal import Seal, Unreadable

__all__ = ["PgHeartbeat", "PgLeases"]

BEATS_A_LEASE = 3

# A renewal need not be on the disk: after a restart of the server no lease runs out before its time has passed.
_RENEW = """with quick as materialized (select set_config('synchronous_commit', 'off', true)),
renewed as (update {s}.runs set lease_until_s = {s}.now_s() + $2 from quick
  where owner = $1 and state = 'running' and run_id = any($3::text[]))
select run_id, fence, state = 'running' and owner = $1, {s}.now_s() from {s}.runs where run_id = any($3::text[])"""


class PgHeartbeat:
    """The thread that renews; started with the first lease."""

    def __init__(self, address: Address, holder: Holder, clock: Clock, time: ServerTime) -> None:
        self._address = address
        self._holder = holder
        self._clock = clock
        self._time = time
        self._renew = _RENEW.replace("{s}", address.schema)
        self._leases: set[Lease] = set()
        self._thread: LoopThread | None = None
        self._held: asyncio.Event | None = None
        self._db: Any = None
        self._closed = False

    # From any thread.

    def keep(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        self._leases.add(lease)
        if self._closed:
            return
        if self._thread is None:
            self._thread = LoopThread("interlock-leases")
            self._held = asyncio.Event()
            self._thread.call(self._start)
        assert self._held is not None
        if not self._held.is_set():
            self._thread.call(self._held.set)

    def drop(self, lease: Lease) -> None:
        """Renew it no more."""
        self._leases.discard(lease)

    def close(self) -> None:
        """Stop; leases run out by themselves."""
        self._closed = True
        if self._thread is not None:
            self._thread.stop(1.0)

    def forked(self) -> None:
        """Called in the child of a fork: the thread is not there, and the leases are the parent's."""
        self._closed = True
        self._thread = None
        self._leases = set()

    async def renew(self, db: Any, leases: Sequence[Lease]) -> None:
        """Renew these leases where their runs are ours, and tell each what became of it."""
        asked_s, wall_s = self._clock.boot(), self._clock.wall()
        names = [write_text(lease.run_id) for lease in leases]
        rows = await db.fetch(self._renew, self._holder.owner, self._holder.ttl_s, names)
        standing = {read_text(run_id): (fence, ours) for run_id, fence, ours, _ in rows}
        if rows:
            self._time.measure(rows[0][3], wall_s)
        for lease in leases:
            take_in(lease, standing, asked_s, self._holder.ttl_s)

    # On the thread.

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._main(), name="interlock-leases")

    async def _main(self) -> None:
        assert self._held is not None
        every_s = self._holder.ttl_s / BEATS_A_LEASE
        try:
            while True:
                await self._held.wait()
                pause = asyncio.get_running_loop().create_future()
                pause.get_loop().call_later(every_s, pause.set_result, None)
                await pause
                leases = _snapshot(self._leases)
                if leases:
                    await self._beat(leases, every_s)
                    continue
                self._held.clear()
                # Looked at again: whoever came before has not rung.
                if self._leases:
                    self._held.set()
        finally:
            self._hang_up()

    async def _beat(self, leases: Sequence[Lease], most_s: float) -> None:
        """Renew; a server that cannot be asked now is asked again with the next beat, and the leases run on."""
        try:
            async with asyncio.timeout(most_s):
                if self._db is None or self._db.is_closed():
                    self._db = await connect(self._address, most_s)
                async with transaction(self._db, self._address.tenant_id):
                    await self.renew(self._db, leases)
        except Exception:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._db is not None:
            hang_up(self._db)
            self._db = None


def _snapshot(leases: set[Lease]) -> list[Lease]:
    """Copy a set that other threads change."""
    while True:
        with contextlib.suppress(RuntimeError):
            return list(leases)


class PgLeases:
    """Port `Ownership`."""

    def __init__(
        self,
        writer: PgWriter,
        reader: PgReader,
        schema: str,
        seal: Seal,
        time: ServerTime,
        holder: Holder,
        heartbeat: PgHeartbeat,
        ops: Iterator[int],
    ) -> None:
        self.ttl_s = holder.ttl_s
        self._writer = writer
        self._reader = reader
        self._seal = seal
        self._time = time
        self._heartbeat = heartbeat
        self._queue = Queue(schema, holder)
        self._ops = ops

    def hold(self, run_id: str, fence: int, asked_s: float) -> Lease:
        """See `Ownership`."""
        lease = Lease(run_id, fence, -math.inf)
        lease.renewed(asked_s, self.ttl_s)
        self._heartbeat.keep(lease)
        return lease

    def let_go(self, lease: Lease) -> None:
        """See `Ownership`."""
        self._heartbeat.drop(lease)

    async def confirm(self, lease: Lease) -> bool:
        """See `Ownership`."""

        async def work(db: Any) -> None:
            await self._heartbeat.renew(db, [lease])

        if not lease.lost:
            await self._writer.submit(alone(work))
        return not lease.lost

    async def queue(self, run: NewRun) -> Begun:
        """See `Ownership`."""
        task, op = self._seal.close(run.task, task_place(run.run_id)), next(self._ops)

        async def work(db: Any) -> tuple[bool, Any]:
            return await self._queue.queue(db, run, task, op)

        fresh, row = await self._writer.submit(alone(work))
        return Begun(fresh, read_run(row, self._seal, self._time))

    async def requeue(self, run_id: str) -> bool:
        """See `Ownership`."""
        op = next(self._ops)

        async def work(db: Any) -> bool:
            return await self._queue.requeue(db, run_id, op)

        queued: bool = await self._writer.submit(alone(work))
        return queued

    async def take(
        self, agents: Sequence[str], tenants: Sequence[str] | None, busy: Mapping[str, int]
    ) -> RunRow | None:
        """See `Ownership`."""

        async def look(db: Any) -> list[str]:
            return await self._queue.takeable(db, agents, tenants, busy)

        if not await self._reader.ask(look, repeat=True):
            return None
        op = next(self._ops)

        async def work(db: Any) -> Any:
            return await self._queue.take(db, agents, tenants, busy, op)

        taken = await self._writer.submit(alone(work))
        if taken is None:
            return None
        row, sealed = taken
        try:
            task = self._seal.open(sealed, task_place(read_text(row[0])))
        except Unreadable:
            task = None
        return read_run(row, self._seal, self._time, task)

    async def hand_back(self, run_id: str, fence: int, used_s: float) -> bool:
        """See `Ownership`."""
        op = next(self._ops)

        async def work(db: Any) -> bool:
            return await self._queue.hand_back(db, run_id, fence, used_s, op)

        done: bool = await self._writer.submit(alone(work))
        return done

    async def reap(self, orphan_after_s: float, able: Sequence[str]) -> list[str]:
        """See `Ownership`."""
        op = next(self._ops)

        async def work(db: Any) -> list[str]:
            return await self._queue.reap(db, orphan_after_s, able, op)

        gone: list[str] = await self._writer.submit(alone(work))
        return gone

    async def attempts_of(self, run_id: str) -> list[Attempt]:
        """See `Ownership`."""

        async def look(db: Any) -> list[tuple[Any, ...]]:
            return await self._queue.attempts_of(db, run_id)

        rows = await self._reader.ask(look, repeat=True)
        ours, ours_or_none = self._time.ours, self._time.ours_or_none
        return [Attempt(fence, owner, ours(at), ours_or_none(end), how) for fence, owner, at, end, how in rows]
