"""One SQLite file, shared by the processes of one machine: claims, runs, switches, approvals, traces.

Changes go through one writer thread a process (`writer.py`), and the processes take turns (`turnlock.py`).
Never put the file on a network share. `:memory:` is the same store without a disk, for tests and trials.
"""

from __future__ import annotations

import atexit
import math
import os
import secrets
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from interlock.core.clock import SYSTEM, Clock
from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.journal.store import Begun, Claim, Intent, NewRun, RunRow, RunState, Settlement
from interlock.stores import calls, claims, runs
from interlock.stores.controls import SqliteApprovals, SqliteSwitches
from interlock.stores.database import connect, is_busy, migrate, translate
from interlock.stores.erasure import SqliteEraser
from interlock.stores.health import SqliteCheckup
from interlock.stores.history import SqliteHistory
from interlock.stores.leases import Heartbeat, SqliteLeases
from interlock.stores.memory import SqliteMemory
from interlock.stores.owner import is_alive, this_boot, this_process
from interlock.stores.parts import part, rows_of
from interlock.stores.places import output_place, task_place
from interlock.stores.purge import SqliteRetention
from interlock.stores.reader import FileReader, Reader, WriterReader
from interlock.stores.runs import Holder
from interlock.stores.seal import Replay, Seal, load_keys
from interlock.stores.tenants import SqliteTenants
from interlock.stores.turnlock import TurnLock
from interlock.stores.writer import InlineWriter, Writer, WriterOptions, WriterThread

__all__ = ["MEMORY", "SqliteStore"]

MEMORY = ":memory:"
SCHEME = "sqlite:///"
# Most of a wait between two tries to open a file that another process has to itself for a moment.
_BUSY_S = 0.02

# The open stores of this process: written out when the interpreter ends, and told when they are in a fork's child.
_stores: set[SqliteStore] = set()


def _after_fork() -> None:
    for store in list(_stores):
        store.forked()


def _at_exit() -> None:
    for store in list(_stores):
        store.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


class SqliteStore:
    """Ports `Journal` and `RunStore`, and in attributes the narrow ones beside them.

    Opens (and, where needed, makes) the file at once. Use it from any event loop of this process; not after
    a fork. `close()` writes what is queued.

    Args:
        path: Of the file, `sqlite:///…`, or `:memory:`.
        replay: Whether results are kept for replay: sealed, not at all, or as they are.
        lease_ttl_s: How long a run is its owner's without renewal.
        environ: Where `INTERLOCK_KEY` is looked for; the process's environment when left out.
        options: How the writer waits.

    Attributes:
        secret: 32 bytes, made once with the store: the key of every digest in it.

    Raises:
        ConfigError: The file is not ours, is damaged, or was written by a newer Interlock; a key is malformed.
        StoreUnavailable: It cannot be opened or written at present.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock = SYSTEM,
        replay: Replay | str = Replay.ON,
        lease_ttl_s: float = 5.0,
        environ: Mapping[str, str] | None = None,
        options: WriterOptions = WriterOptions(),  # noqa: B008 - frozen
    ) -> None:
        self.path = str(path).removeprefix(SCHEME)
        if not self.path:
            raise ConfigError("store: sqlite:/// names no file; say sqlite:///path/file.db or sqlite:///:memory:")
        self._clock = clock
        self._writer: Writer
        self._reader: Reader
        try:
            mode = Replay(replay)
        except ValueError:
            raise ConfigError(f"replay: {replay!r} is none of on, off, plaintext") from None
        file = None if self.path == MEMORY else Path(self.path)
        db, self.secret = _open(self.path, options.patience_s)
        try:
            keys = load_keys(file, os.environ if environ is None else environ, make=mode is Replay.ON)
            self._seal = Seal(mode, keys)
            if file is None:
                self._writer = InlineWriter(db, threading.Lock())
                self._reader = WriterReader(self._writer)
            else:
                self._writer = WriterThread(db, TurnLock(file), self.path, clock, options)
                self._reader = FileReader(self.path, self._writer)
        except OSError as error:
            db.close()
            raise translate(error, self.path) from error
        except BaseException:
            db.close()
            raise
        self._me = this_process()
        # Two stores of one process are two owners. In memory nobody else can take a run.
        ttl_s = math.inf if file is None else lease_ttl_s
        self._holder = Holder(f"{self._me}/{secrets.token_hex(4)}", this_boot(), ttl_s, clock.boot)
        self._heartbeat = Heartbeat(file, self._holder)
        _stores.add(self)
        self.switches = SqliteSwitches(self._writer, self._reader, clock)
        self.history = SqliteHistory(self._writer, self._reader, self._seal, keeps=mode is not Replay.OFF)
        self.leases = SqliteLeases(self._writer, self._reader, clock, self._seal, self._holder, self._heartbeat)
        self.tenants = SqliteTenants(self._writer, self._reader, self._me)
        self.approvals = SqliteApprovals(self._writer, self._reader, clock)
        self.retention = SqliteRetention(self._writer, self._reader, clock, None if file is None else self.path)
        self.memory = SqliteMemory(self._writer, self._reader, clock)
        on_disk = None if file is None else self.path
        self.erasure = SqliteEraser(self._writer, self._reader, self.retention, self._seal, clock, on_disk)
        self.checkup = SqliteCheckup(self._writer, self._reader, clock)

    @property
    def lost(self) -> int:
        """How many records that nobody waited for could not be kept."""
        return self._writer.lost

    def close(self) -> None:
        """Write what is queued, and close the file; blocks for as long as that takes. May be called again."""
        _stores.discard(self)
        self._heartbeat.close()
        # Readers first: the last connection to go takes the log file with it, if it can write.
        self._reader.close()
        self._writer.close()

    def forked(self) -> None:
        """Called in the child of a fork: neither threads nor SQLite's locks survive one, so nothing is touched."""
        self._heartbeat.forked()
        self._reader.forked()
        self._writer.forked()

    async def flush(self) -> None:
        """Return when everything queued so far is durable."""
        await self._writer.submit(_nothing)

    # Journal

    async def find(self, key: bytes) -> Claim | None:
        """See `Journal`."""
        row = await self._reader.read(claims.find, key)
        return self._claim(row)

    async def claim(self, intent: Intent) -> Claim | None:
        """See `Journal`."""
        params = claims.claim_params(intent, self._me, self._seal)
        row = await self._writer.submit(claims.claim, params, self._clock, intent.approval_id, intent.observing)
        return self._claim(row)

    async def resend(self, key: bytes, run_id: str, fence: int, *, observing: bool = False) -> Claim | None:
        """See `Journal`."""
        row = await self._writer.submit(claims.resend, key, run_id, fence, self._me, self._clock, observing)
        return self._claim(row)

    async def settle(self, key: bytes, settlement: Settlement) -> bool:
        """See `Journal`."""
        params = claims.settle_params(settlement, key, self._clock.wall(), self._seal)
        settled: bool = await self._writer.submit(claims.settle, params)
        return settled

    async def disprove(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Journal`."""
        settled = claims.settle_params(settlement, claim.key, self._clock.wall(), self._seal)
        seen = claim.run_id, claim.path, claim.fence, claim.seq, claim.sends
        closed: bool = await self._writer.submit(claims.disprove, claim.key, settled, seen)
        return closed

    def settle_soon(self, key: bytes, settlement: Settlement) -> None:
        """See `Journal`."""
        self._writer.later(claims.settle, claims.settle_params(settlement, key, self._clock.wall(), self._seal))

    async def doubts(self, tenant_id: str | None = None, *, unverified: bool = False) -> list[Claim]:
        """See `Journal`."""
        senders = [name for name in await self._reader.read(claims.senders) if is_alive(name)]
        rows = await self._reader.read(claims.doubts, tenant_id, unverified, senders)
        return self._claims(rows)

    async def claims_of(self, run_id: str) -> list[Claim]:
        """See `Journal`."""
        rows = await self._reader.read(claims.claims_of, run_id)
        return self._claims(rows)

    # RunStore

    async def begin(self, run: NewRun, *, retry: bool = False, resume: bool = False, revive: bool = False) -> Begun:
        """See `RunStore`."""
        task, now, asked_s = self._sealed_task(run), self._clock.wall(), self._clock.boot()
        words = run, task, self._holder, now, asked_s, retry, resume, revive
        fresh, row = await self._writer.submit(runs.begin, *words)
        return Begun(fresh, runs.read_run(row, self._seal, self._holder))

    def begin_soon(self, run: NewRun) -> int:
        """See `RunStore`."""
        now = self._clock.wall()
        words = run, self._sealed_task(run), self._holder, now, self._clock.boot()
        self._writer.later(runs.begin, *words, False, False, False)
        return int(now * 1000)

    async def end(
        self, run_id: str, fence: int, state: RunState, reason: str, record: Mapping[str, Any], output: bytes | None
    ) -> bool:
        """See `RunStore`."""
        ended: bool = await self._writer.submit(
            runs.end, *self._end_params(run_id, fence, state, reason, record, output)
        )
        return ended

    def end_soon(
        self, run_id: str, fence: int, state: RunState, reason: str, record: Mapping[str, Any], output: bytes | None
    ) -> None:
        """See `RunStore`."""
        self._writer.later(runs.end, *self._end_params(run_id, fence, state, reason, record, output))

    async def run(self, run_id: str) -> RunRow | None:
        """See `RunStore`."""
        row = await self._reader.read(runs.one_run, run_id)
        return None if row is None else runs.read_run(row, self._seal, self._holder)

    async def runs(
        self,
        *,
        tenant_id: str | None = None,
        reason: str | None = None,
        state: RunState | None = None,
        limit: int = 50,
    ) -> list[RunRow]:
        """See `RunStore`."""
        rows = await self._reader.read(runs.list_runs, tenant_id, reason, state, limit)
        return [runs.read_run(row, self._seal, self._holder) for row in rows]

    # The trace

    def trace_soon(self, run_id: str, fence: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Queue trace rows of a run (each with its `seq`), without waiting; written within 0.25 s, or not if fenced."""
        # Written out here, before any lock is taken.
        self._writer.later(calls.insert, [(run_id, part(rows), fence)])

    async def calls_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return the trace rows of a run, by seq."""
        return rows_of(await self._reader.read(calls.parts_of, run_id))

    def _claim(self, row: tuple[Any, ...] | None) -> Claim | None:
        return None if row is None else claims.read_claim(row, self._seal, self._holder, self._clock.wall())

    def _claims(self, rows: list[tuple[Any, ...]]) -> list[Claim]:
        wall_s = self._clock.wall()
        return [claims.read_claim(row, self._seal, self._holder, wall_s) for row in rows]

    def _sealed_task(self, run: NewRun) -> bytes | None:
        return self._seal.close(run.task, task_place(run.run_id))

    def _end_params(
        self, run_id: str, fence: int, state: RunState, reason: str, record: Mapping[str, Any], output: bytes | None
    ) -> tuple[Any, ...]:
        body = orjson.dumps(record, default=str, option=orjson.OPT_NON_STR_KEYS)
        sealed = self._seal.close(output, output_place(run_id))
        return run_id, fence, str(state), reason, self._clock.wall(), body, sealed


def _open(path: str, patience_s: float) -> tuple[sqlite3.Connection, bytes]:
    """Open the file, waiting for processes that are opening or closing it: then SQLite gives up without waiting."""
    # The real clock: what is waited for is another process.
    until_s = SYSTEM.monotonic() + patience_s
    while True:
        try:
            return _open_once(path, patience_s)
        except StoreUnavailable as error:
            cause = error.__cause__
            if not isinstance(cause, sqlite3.Error) or not is_busy(cause) or SYSTEM.monotonic() >= until_s:
                raise
        threading.Event().wait(SYSTEM.uniform(0.0, _BUSY_S))


def _open_once(path: str, patience_s: float) -> tuple[sqlite3.Connection, bytes]:
    try:
        db = connect(path, patience_s=patience_s)
    except (sqlite3.Error, OSError) as error:
        raise translate(error, path, opening=True) from error
    try:
        return db, migrate(db, path)
    except sqlite3.Error as error:
        db.close()
        raise translate(error, path, opening=True) from error
    except BaseException:
        db.close()
        raise


def _nothing(db: sqlite3.Connection) -> None:
    """What `flush` waits for."""
