"""Renews leases from a thread and a connection of their own: all runs of this process in one statement.

Three times a lease; while there are none the thread sleeps. Neither a blocking tool nor a busy event loop nor a
full queue of the writer can cost a lease. Whoever must know at once whether a run is still his asks here, too:
those who ask at one moment share a statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from interlock.core.clock import Clock
from interlock.core.errors import StoreUnavailable
from interlock.journal.ownership import Lease
from interlock.stores.leases import take_in
from interlock.stores.pg_address import Address
from interlock.stores.pg_connections import connect, hang_up, transaction
from interlock.stores.pg_errors import Fault, fault_of, translate
from interlock.stores.pg_takeover import Holder
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_thread import LoopThread, answer_all, pause
from interlock.stores.pg_time import ServerTime
from interlock.stores.writer import CLOSED, FORKED

__all__ = ["PgHeartbeat"]

BEATS_A_LEASE = 3
RETRY_S = 0.05

# A renewal need not be on the disk: after a restart of the server no lease runs out before its time has passed.
# It waits for nobody. A row that is locked is changed by our own writer, or is just being taken from us: what became
# of it is asked again. Ours is what was renewed, and not what seemed to be ours when the statement began.
_RENEW = """with quick as materialized (select set_config('synchronous_commit', 'off', true)),
held as materialized (select r.run_id from quick, {s}.runs r
  where r.owner = $1 and r.state = 'running' and r.run_id = any($3::text[]) for no key update of r skip locked),
renewed as (update {s}.runs r set lease_until_s = {s}.now_s() + $2 from held
  where r.run_id = held.run_id and r.owner = $1 and r.state = 'running' returning r.run_id, r.fence)
select run_id, coalesce(n.fence, r.fence), n.fence is not null, r.owner = $1 and r.state = 'running', {s}.now_s()
from {s}.runs r left join renewed n using (run_id) where run_id = any($3::text[])"""


class PgHeartbeat:
    """The thread that renews; started with the first lease.

    Args:
        patience_s: How long one who asks waits for a server that does not answer.
    """

    def __init__(self, address: Address, holder: Holder, clock: Clock, time: ServerTime, patience_s: float) -> None:
        self._address = address
        self._holder = holder
        self._clock = clock
        self._time = time
        self._patience_s = patience_s
        self._renew = _RENEW.replace("{s}", address.schema)
        self._leases: set[Lease] = set()
        self._asked: deque[tuple[Lease, asyncio.Future[None], float]] = deque()
        self._thread: LoopThread | None = None
        self._held: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = False
        self._turn = asyncio.Lock()
        self._db: Any = None
        self._closed: str | None = None

    # From any thread.

    def keep(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        self._leases.add(lease)
        if self._closed is not None:
            return
        thread = self._running()
        assert self._held is not None
        if not self._held.is_set():
            thread.call(self._held.set)

    def drop(self, lease: Lease) -> None:
        """Renew it no more."""
        self._leases.discard(lease)

    async def confirm(self, lease: Lease) -> None:
        """Renew this lease now, and tell it what became of it.

        Raises:
            StoreUnavailable: Nobody can say.
        """
        if self._closed is not None:
            raise StoreUnavailable(self._closed)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        thread = self._running()
        self._asked.append((lease, future, thread.time() + self._patience_s))
        thread.call(self._ask)
        await future

    def close(self) -> None:
        """Stop; leases run out by themselves."""
        self._closed = CLOSED
        if self._thread is not None:
            self._thread.stop(1.0)
        answer_all((future, StoreUnavailable(CLOSED)) for _, future, _ in self._asked)

    def forked(self) -> None:
        """Called in the child of a fork: the thread is not there, and the leases are the parent's."""
        self._closed = FORKED
        self._thread = None
        self._leases = set()

    def _running(self) -> LoopThread:
        if self._thread is None:
            self._held = asyncio.Event()
            self._thread = LoopThread("interlock-leases")
            self._thread.call(self._start, self._main())
        return self._thread

    # On the thread.

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name="interlock-leases")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ask(self) -> None:
        if not self._asking:
            self._asking = True
            self._start(self._confirm_all())

    async def _main(self) -> None:
        assert self._held is not None
        every_s = self._holder.ttl_s / BEATS_A_LEASE
        try:
            while True:
                await self._held.wait()
                await pause(every_s)
                leases = _snapshot(self._leases)
                if leases:
                    # A server that cannot be asked now is asked again with the next beat, and the leases run on.
                    with contextlib.suppress(Exception):
                        await self._beat(leases, every_s)
                    continue
                self._held.clear()
                # Looked at again: whoever came before has not rung.
                if self._leases:
                    self._held.set()
        finally:
            self._hang_up()

    async def _confirm_all(self) -> None:
        """Answer all who ask; what is locked, or lost with a connection, is asked again while they are patient."""
        while self._asked:
            asked = [self._asked.popleft() for _ in range(len(self._asked))]
            error: Exception = TimeoutError()
            try:
                unknown = await self._beat([lease for lease, _, _ in asked], self._patience_s)
            except Exception as fault:
                unknown, error = {lease for lease, _, _ in asked}, fault
            # Who is still patient once it will be asked again.
            until_s = asyncio.get_running_loop().time() + RETRY_S
            if fault_of(error) not in {Fault.CONNECTION, Fault.AGAIN}:
                until_s = math.inf
            told = translate(error, self._address.shown)
            again = [one for one in asked if one[0] in unknown and one[2] > until_s]
            answer_all((one[1], None) for one in asked if one[0] not in unknown)
            answer_all((one[1], told) for one in asked if one[0] in unknown and one[2] <= until_s)
            self._asked.extendleft(reversed(again))
            if again:
                await pause(RETRY_S)
        self._asking = False

    async def _beat(self, leases: Sequence[Lease], most_s: float) -> set[Lease]:
        """Renew these leases where their runs are ours, tell each, and return those whose rows are locked."""
        async with asyncio.timeout(most_s), self._turn:
            # Once it is our turn, and no sooner: until then the connection is another's.
            try:
                if self._db is None or self._db.is_closed():
                    self._db = await connect(self._address, most_s)
                async with transaction(self._db, self._address.tenant_id):
                    asked_s, wall_s = self._clock.boot(), self._clock.wall()
                    names = [write_text(lease.run_id) for lease in leases]
                    rows = await self._db.fetch(self._renew, self._holder.owner, self._holder.ttl_s, names)
            except BaseException:
                self._hang_up()
                raise
        if rows:
            self._time.measure(rows[0][4], wall_s)
        standing = {read_text(name): (fence, ours) for name, fence, ours, seems, _ in rows if ours or not seems}
        locked = {read_text(name) for name, *_ in rows} - standing.keys()
        for lease in leases:
            take_in(lease, standing, asked_s, self._holder.ttl_s)
        return {lease for lease in leases if lease.run_id in locked}

    def _hang_up(self) -> None:
        if self._db is not None:
            hang_up(self._db)
            self._db = None


def _snapshot(leases: set[Lease]) -> list[Lease]:
    """Copy a set that other threads change."""
    while True:
        with contextlib.suppress(RuntimeError):
            return list(leases)
