"""Who works on which run, on PostgreSQL: the heartbeat that keeps leases, the queue, and the bell beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from interlock.journal.ownership import Attempt, Lease
from interlock.journal.store import Begun, NewRun, RunRow
from interlock.stores.pg_bell import PgBell
from interlock.stores.pg_heartbeat import PgHeartbeat
from interlock.stores.pg_queue import Queue
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_runs import read_run
from interlock.stores.pg_takeover import Holder
from interlock.stores.pg_text import read_text
from interlock.stores.pg_time import ServerTime
from interlock.stores.pg_work import alone
from interlock.stores.pg_writer import PgWriter
from interlock.stores.places import task_place
from interlock.stores.queue import Wanted
from interlock.stores.seal import Seal, Unreadable

__all__ = ["PgLeases"]


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
        bell: PgBell,
        ops: Iterator[int],
    ) -> None:
        self.ttl_s = holder.ttl_s
        self._writer = writer
        self._reader = reader
        self._seal = seal
        self._time = time
        self._heartbeat = heartbeat
        self._bell = bell
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
        if not lease.lost:
            await self._heartbeat.confirm(lease)
        return not lease.lost

    async def queue(self, run: NewRun) -> Begun:
        """See `Ownership`."""
        task, op = self._seal.close(run.task, task_place(run.run_id)), next(self._ops)

        async def work(db: Any) -> tuple[bool, Any]:
            return await self._queue.queue(db, run, task, op)

        fresh, row = await self._writer.submit(alone(work))
        return Begun(fresh, read_run(row, self._seal, self._time))

    async def task_of(self, run_id: str) -> bytes | None:
        """See `Ownership`."""

        async def look(db: Any) -> bytes | None:
            return await self._queue.task_of(db, run_id)

        try:
            return self._seal.open(await self._reader.ask(look, repeat=True), task_place(run_id))
        except Unreadable:
            return None

    async def requeue(self, run_id: str) -> bool:
        """See `Ownership`."""
        op = next(self._ops)

        async def work(db: Any) -> bool:
            return await self._queue.requeue(db, run_id, op)

        queued: bool = await self._writer.submit(alone(work))
        return queued

    async def take(
        self,
        agents: Sequence[str],
        tenants: Sequence[str] | None,
        busy: Mapping[str, int],
        without: Collection[str] = (),
    ) -> RunRow | None:
        """See `Ownership`."""
        wanted = Wanted(agents, tenants, busy, without)

        async def look(db: Any) -> list[str]:
            return await self._queue.takeable(db, wanted)

        if not await self._reader.ask(look, repeat=True):
            return None
        op = next(self._ops)

        async def work(db: Any) -> Any:
            return await self._queue.take(db, wanted, op)

        taken = await self._writer.submit(alone(work))
        if taken is None:
            return None
        row, sealed = taken
        try:
            task = self._seal.open(sealed, task_place(read_text(row[0])))
        except Unreadable:
            task = None
        return read_run(row, self._seal, self._time, task)

    def ring(self, bell: Callable[[], None]) -> Callable[[], None]:
        """See `Ownership`."""
        return self._bell.listen(bell)

    async def hand_back(self, run_id: str, fence: int, used_s: float) -> bool:
        """See `Ownership`."""
        op = next(self._ops)

        async def work(db: Any) -> bool:
            return await self._queue.hand_back(db, run_id, fence, used_s, op)

        done: bool = await self._writer.submit(alone(work))
        return done

    async def settled(
        self, agents: Sequence[str], tenants: Sequence[str] | None, but: Collection[str] = ()
    ) -> list[str]:
        """See `Ownership`."""

        async def look(db: Any) -> list[str]:
            return await self._queue.settled(db, agents, tenants, but)

        found: list[str] = await self._reader.ask(look, repeat=True)
        return found

    async def shelter(self, after_s: float, agents: Sequence[str], tenants: Sequence[str] | None) -> int:
        """See `Ownership`."""

        async def look(db: Any) -> list[str]:
            return await self._queue.dead(db, after_s, agents, tenants)

        if not await self._reader.ask(look, repeat=True):
            return 0
        op = next(self._ops)

        async def work(db: Any) -> int:
            return await self._queue.shelter(db, after_s, agents, tenants, op)

        queued: int = await self._writer.submit(alone(work))
        return queued

    async def reap(self, orphan_after_s: float, able: Sequence[str]) -> list[RunRow]:
        """See `Ownership`."""

        async def look(db: Any) -> list[str]:
            return await self._queue.orphans(db, orphan_after_s, able)

        if not await self._reader.ask(look, repeat=True):
            return []
        op = next(self._ops)

        async def work(db: Any) -> list[Any]:
            return await self._queue.reap(db, orphan_after_s, able, op)

        gone = await self._writer.submit(alone(work))
        return [read_run(row, self._seal, self._time) for row in gone]

    async def attempts_of(self, run_id: str) -> list[Attempt]:
        """See `Ownership`."""

        async def look(db: Any) -> list[tuple[Any, ...]]:
            return await self._queue.attempts_of(db, run_id)

        rows = await self._reader.ask(look, repeat=True)
        ours, ours_or_none = self._time.ours, self._time.ours_or_none
        return [Attempt(fence, owner, ours(at), ours_or_none(end), how) for fence, owner, at, end, how in rows]
