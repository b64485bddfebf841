"""Leases on a SQLite file: renewed by a thread with a connection of its own, and the queue beside them.

One statement renews all runs of this process, three times a lease; while there are none the thread sleeps.
Neither a blocking tool nor a busy event loop nor a full queue of the writer can cost a lease.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import orjson

from interlock.core.clock import Clock
from interlock.journal.ownership import Attempt, Lease
from interlock.journal.store import Begun, NewRun, RunRow
from interlock.stores import queue
from interlock.stores.database import connect
from interlock.stores.marks import Marked
from interlock.stores.places import task_place
from interlock.stores.queue import Wanted
from interlock.stores.reader import Reader
from interlock.stores.runs import Holder, read_run
from interlock.stores.seal import Seal, Unreadable
from interlock.stores.turnlock import TurnLock
from interlock.stores.writer import Writer

__all__ = ["Heartbeat", "SqliteLeases"]

BEATS_A_LEASE = 3
# What a renewal waits for another program's lock; the next beat tries again.
PATIENCE_S = 1.0
# For how long an idle worker believes that a file nobody has written to holds no run for it.
QUIET_S = 5.0

_RENEW = Marked("""update runs set lease_until_s = ?1, boot_id = ?2 where owner = ?3 and state = 'running'
and run_id in (select value from json_each(?4))""")
_STANDING = Marked("""select run_id, fence, state = 'running' and owner = ?1 from runs
where run_id in (select value from json_each(?2))""")


class Heartbeat:
    """The thread that renews; started with the first lease.

    Args:
        file: The database; None for one in memory, which nobody else can take a run from.
    """

    def __init__(self, file: Path | None, holder: Holder) -> None:
        self._file = file
        self._holder = holder
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def in_memory(self) -> bool:
        """Whether there is no file: then nobody else can take a run, and no version of it is counted."""
        return self._file is None

    def keep(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        if self._file is None:
            return
        with self._lock:
            self._leases.add(lease)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._main, name="interlock-leases", daemon=True)
                self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def drop(self, lease: Lease) -> None:
        """Renew it no more."""
        with self._lock:
            self._leases.discard(lease)

    def close(self) -> None:
        """Stop; leases run out by themselves."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def forked(self) -> None:
        """Called in the child of a fork: the thread is not there, and the leases are the parent's."""
        self._closed.set()
        self._leases = set()

    # On the thread.

    def _main(self) -> None:
        assert self._file is not None
        db: sqlite3.Connection | None = None
        turn: TurnLock | None = None
        every_s = self._holder.ttl_s / BEATS_A_LEASE
        while not self._closed.wait(every_s):
            with self._lock:
                if not self._leases:
                    self._wake.clear()
            self._wake.wait()
            if self._closed.is_set():
                break
            # A store that cannot be written now is asked again with the next beat; the leases run on.
            with contextlib.suppress(sqlite3.Error, OSError):
                if db is None:
                    turn = TurnLock(self._file)
                    db = connect(str(self._file), patience_s=PATIENCE_S)
                    # A renewal that a power cut forgets is of a boot that is over.
                    db.execute("pragma synchronous = normal")
                assert turn is not None
                self._beat(db, turn)
        if db is not None:
            db.close()
        if turn is not None:
            turn.close()

    def _beat(self, db: sqlite3.Connection, turn: TurnLock) -> None:
        with self._lock:
            leases = list(self._leases)
        if not leases:
            return
        turn.acquire()
        try:
            # Read after our turn has come: a process that was stopped while it waited must not promise the past.
            asked_s = self._holder.boot()
            standing = renew(db, self._holder, asked_s, [lease.run_id for lease in leases])
        finally:
            turn.release()
        for lease in leases:
            take_in(lease, standing, asked_s, self._holder.ttl_s)


def renew(db: sqlite3.Connection, holder: Holder, now_s: float, run_ids: Sequence[str]) -> dict[str, tuple[int, bool]]:
    """Renew these runs where they are ours; return (fence, ours and running) of those that are there."""
    asked = orjson.dumps(run_ids).decode()
    _RENEW.run(db, (now_s + holder.ttl_s, holder.boot_id, holder.owner, asked))
    rows = _STANDING.run(db, (holder.owner, asked))
    return {run_id: (fence, bool(ours)) for run_id, fence, ours in rows}


def take_in(lease: Lease, standing: Mapping[str, tuple[int, bool]], asked_s: float, ttl_s: float) -> None:
    """Tell a lease what the store said of its run; a run that is not there yet is about to be inserted."""
    found = standing.get(lease.run_id)
    if found is None:
        return
    if found == (lease.fence, True):
        lease.renewed(asked_s, ttl_s)
    else:
        lease.lose()


class SqliteLeases:
    """Port `Ownership`."""

    def __init__(
        self, writer: Writer, reader: Reader, clock: Clock, seal: Seal, holder: Holder, heartbeat: Heartbeat
    ) -> None:
        self.ttl_s = holder.ttl_s
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._seal = seal
        self._holder = holder
        self._heartbeat = heartbeat
        self._quiet: dict[int, tuple[int, float]] = {}

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
            asked_s = self._clock.boot()
            standing = await self._writer.submit(renew, self._holder, asked_s, [lease.run_id])
            take_in(lease, standing, asked_s, self.ttl_s)
        return not lease.lost

    async def queue(self, run: NewRun) -> Begun:
        """See `Ownership`."""
        task = self._seal.close(run.task, task_place(run.run_id))
        fresh, row = await self._writer.submit(queue.queue, run, task, self._holder, self._clock.wall())
        return Begun(fresh, read_run(row, self._seal, self._holder))

    async def task_of(self, run_id: str) -> bytes | None:
        """See `Ownership`."""
        try:
            return self._seal.open(await self._reader.read(queue.task_of, run_id), task_place(run_id))
        except Unreadable:
            return None

    async def requeue(self, run_id: str) -> bool:
        """See `Ownership`."""
        queued: bool = await self._writer.submit(queue.requeue, run_id)
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
        if not await self._worth_asking(wanted):
            return None
        now, asked_s = self._clock.wall(), self._clock.boot()
        taken = await self._writer.submit(queue.take, wanted, self._holder, now, asked_s)
        if taken is None:
            return None
        row, sealed = taken
        try:
            task = self._seal.open(sealed, task_place(row[0]))
        except Unreadable:
            task = None
        return read_run(row, self._seal, self._holder, task)

    async def _worth_asking(self, wanted: Wanted) -> bool:
        """Whether there is a run to take. An idle worker only sees whether anybody has written since."""
        me, now_s = threading.get_ident(), self._holder.boot()  # versions are counted by connection, and so by thread
        version, until_s = self._quiet.get(me, (None, 0.0))
        there, quiet = await self._reader.read(queue.look, wanted, self._holder, version if now_s < until_s else None)
        if quiet is None or self._heartbeat.in_memory:
            self._quiet.pop(me, None)
        elif quiet != version or now_s >= until_s:
            self._quiet[me] = quiet, now_s + QUIET_S
        return bool(there)

    def ring(self, bell: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002 - a file calls nobody
        """See `Ownership`."""
        return _nothing

    async def hand_back(self, run_id: str, fence: int, used_s: float) -> bool:
        """See `Ownership`."""
        done: bool = await self._writer.submit(queue.hand_back, run_id, fence, used_s, self._clock.wall())
        return done

    async def settled(
        self, agents: Sequence[str], tenants: Sequence[str] | None, but: Collection[str] = ()
    ) -> list[str]:
        """See `Ownership`."""
        found: list[str] = await self._reader.read(queue.settled, agents, tenants, but, self._clock.wall())
        return found

    async def shelter(self, after_s: float, agents: Sequence[str], tenants: Sequence[str] | None) -> int:
        """See `Ownership`."""
        now, asked_s = self._clock.wall(), self._clock.boot()
        words = orjson.dumps(list(agents)).decode(), None if tenants is None else orjson.dumps(list(tenants)).decode()
        if not await self._reader.read(queue.dead, self._holder, after_s, words):
            return 0
        queued: int = await self._writer.submit(queue.shelter, self._holder, after_s, words, now, asked_s)
        return queued

    async def reap(self, orphan_after_s: float, able: Sequence[str]) -> list[RunRow]:
        """See `Ownership`."""
        now, asked_s = self._clock.wall(), self._clock.boot()
        if not await self._reader.read(queue.orphans, self._holder, orphan_after_s, able):
            return []
        gone = await self._writer.submit(queue.reap, self._holder, orphan_after_s, able, now, asked_s)
        return [read_run(row, self._seal, self._holder) for row in gone]

    async def attempts_of(self, run_id: str) -> list[Attempt]:
        """See `Ownership`."""
        return [Attempt(*row) for row in await self._reader.read(queue.attempts_of, run_id)]


def _nothing() -> None:
    """Nothing was begun that must be ended."""
