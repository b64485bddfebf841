"""One PostgreSQL database, shared by the workers of many machines: claims, runs, switches, approvals, traces.

The driver lives on a thread of its own (`pg_thread.py`); changes go through one writer a process
(`pg_writer.py`), reads beside it. Nothing relies on the state of a session, so that a pooler may lend each
transaction another connection. Times are those of the database's clock.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from interlock.core.clock import SYSTEM, Clock
from interlock.core.errors import ConfigError, InterlockError
from interlock.journal.store import Begun, Claim, Intent, NewRun, RunRow, RunState, Settlement
from interlock.stores.owner import is_alive, this_process
from interlock.stores.parts import rows_of
from interlock.stores.pg_address import Address, parse_address
from interlock.stores.pg_bell import PgBell
from interlock.stores.pg_claims import (
    CLAIM_COLUMNS,
    DISPROVE,
    claim_of,
    disproof_of,
    read_claim,
    resend_of,
    settle_of,
)
from interlock.stores.pg_connections import connect, load_driver
from interlock.stores.pg_controls import PgApprovals, PgSwitches
from interlock.stores.pg_erasure import PgEraser
from interlock.stores.pg_errors import translate
from interlock.stores.pg_health import PgCheckup
from interlock.stores.pg_heartbeat import PgHeartbeat
from interlock.stores.pg_leases import PgLeases
from interlock.stores.pg_memory import PgMemory
from interlock.stores.pg_owner import is_gone
from interlock.stores.pg_purge import PgRetention
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_replay import PgHistory
from interlock.stores.pg_runs import begin_of, end_of, read_run, trace_of
from interlock.stores.pg_schema import Opened, open_schema
from interlock.stores.pg_takeover import RUN_COLUMNS, Holder
from interlock.stores.pg_tenants import PgTenants
from interlock.stores.pg_text import write_text
from interlock.stores.pg_thread import LoopThread
from interlock.stores.pg_time import ServerTime
from interlock.stores.pg_work import alone
from interlock.stores.pg_writer import PgWriter
from interlock.stores.seal import Replay, Seal, load_keys
from interlock.stores.writer import WriterOptions

__all__ = ["PostgresStore"]

# The open stores of this process: written out when the interpreter ends, and told when they are in a fork's child.
_stores: set[PostgresStore] = set()

_log = logging.getLogger("interlock")


def _after_fork() -> None:
    for store in list(_stores):
        store.forked()


def _at_exit() -> None:
    for store in list(_stores):
        store.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)

# An intent is a doubt when nobody works on it any more: its run is over, its sender is known to be gone, or, on another
# machine, has let its lease run out.
_DOUBTS = f"""select {CLAIM_COLUMNS} from {{s}}.journal j left join {{s}}.runs r on r.run_id = j.run_id
where j.open and ($1::text is null or j.tenant_id = $1) and (j.state = 'in_doubt' or j.sender = any($2::text[])
  or r.state is distinct from 'running' or r.lease_until_s <= {{s}}.now_s() and j.sender <> all($3::text[]))
order by j.key"""
_UNVERIFIED = f"""select {CLAIM_COLUMNS} from {{s}}.journal j
where not j.verified and j.state = 'done' and ($1::text is null or j.tenant_id = $1) order by j.key"""
_SENDERS = "select distinct sender from {s}.journal where open and state = 'intent'"
# All keys of a request begin with its time: a short range, instead of an index that every claim would pay for.
_CLAIMS_OF = f"""select {CLAIM_COLUMNS} from {{s}}.journal j join {{s}}.runs r on r.run_id = $1
where j.key >= int8send(r.request_time_ms) and j.key < int8send(r.request_time_ms + 1)
  and j.tenant_id = r.tenant_id and j.request_id = r.request_id order by j.key, j.seq"""
_RUN = f"select {RUN_COLUMNS} from {{s}}.runs r where r.run_id = $1"
_RUNS = f"""select {RUN_COLUMNS} from {{s}}.runs r where r.id > 0 and ($1::text is null or r.tenant_id = $1)
  and ($2::text is null or r.reason = $2) and ($3::text is null or r.state = $3) order by r.id desc limit $4"""
_CALLS_OF = "select entry from {s}.calls where run_id = $1 order by part"


class PostgresStore:
    """Ports `Journal` and `RunStore`, and in attributes the narrow ones beside them.

    Connects at once, and makes its schema where there is none (see `make`). Use it from any event loop of this
    process; not after a fork. `close()` writes what is queued.

    Args:
        url: `postgresql://…`, see `pg_address.py`.
        clock: Of this process; the database's decides, and this one is only read beside it.
        replay: Whether results are kept for replay: sealed, not at all, or as they are. Without `INTERLOCK_KEY`
            ON becomes OFF, and a warning says so.
        lease_ttl_s: How long a run is its owner's without renewal.
        environ: Where `INTERLOCK_KEY` is looked for; the process's environment when left out.
        make: Make the schema where there is none, and bring an older one up; otherwise either is a `ConfigError`.
        options: How the writer waits.

    Attributes:
        secret: 32 bytes, made once with the store: the key of every digest in it.

    Raises:
        ConfigError: The URL is wrong, asyncpg is missing, the database is not ours, too old, or of a newer
            Interlock; a key is malformed.
        StoreUnavailable: It cannot be reached at present.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = SYSTEM,
        replay: Replay | str = Replay.ON,
        lease_ttl_s: float = 5.0,
        environ: Mapping[str, str] | None = None,
        make: bool = True,
        options: WriterOptions = WriterOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._address = address = parse_address(url)
        self._time = ServerTime(clock)
        self._seal = _seal(replay, os.environ if environ is None else environ, warn=make)
        load_driver()
        self._thread = LoopThread("interlock-postgres")
        asked_s = clock.wall()
        try:
            opened = self._thread.wait_for(_open(address, options.patience_s, make=make), 2 * options.patience_s)
        except BaseException as error:
            self._thread.stop(options.patience_s)
            if isinstance(error, InterlockError) or not isinstance(error, Exception):
                raise
            raise translate(error, address.shown, opening=True) from error
        self.secret = opened.secret
        # Records that nobody waits for carry the time at which they were made, by the server's clock.
        self._time.measure(opened.now_s, asked_s)
        # Numbers of single changes, unlike those of any other process.
        self._ops = count(secrets.randbits(62))
        self._parts = count()
        me = secrets.token_hex(8)
        # Two stores of one process are two owners.
        holder = Holder(f"{this_process()}/{me}", lease_ttl_s)
        self._heartbeat = PgHeartbeat(address, holder, clock, self._time, options.patience_s)
        self._writer = PgWriter(self._thread, address, me, this_process(), holder, options)
        self._reader = PgReader(self._thread, address, options.patience_s)
        self.history = PgHistory(self._writer, self._reader, address.schema, self._seal)
        bell = PgBell(self._thread, address, options.patience_s)
        self.leases = PgLeases(
            self._writer, self._reader, address.schema, self._seal, self._time, holder, self._heartbeat, bell, self._ops
        )
        self.tenants = PgTenants(self._writer, self._reader, address.schema, this_process())
        self.switches = PgSwitches(self._reader, address.schema, self._time, clock)
        self.approvals = PgApprovals(self._writer, self._reader, address.schema, self._time, clock)
        self.retention = PgRetention(self._reader, address.schema)
        self.memory = PgMemory(self._writer, self._reader, address, exempt=opened.exempt)
        words = self._thread, self._writer, self._reader, self.retention, self._seal, address
        self.erasure = PgEraser(*words)
        self.checkup = PgCheckup(self._reader, address, self._time, clock, lease_ttl_s)
        texts = (_DOUBTS, _UNVERIFIED, _SENDERS, _CLAIMS_OF, _RUN, _RUNS, _CALLS_OF)
        self._doubts, self._unverified, self._senders, self._claims_of, self._run, self._runs, self._calls_of = (
            text.replace("{s}", address.schema) for text in texts
        )
        self._patience_s = options.patience_s
        _stores.add(self)

    @property
    def path(self) -> str:
        """The URL without its password, for people."""
        return self._address.shown

    @property
    def lost(self) -> int:
        """How many records that nobody waited for could not be kept."""
        return self._writer.lost

    def close(self) -> None:
        """Write what is queued, and disconnect; blocks for as long as that takes. May be called again."""
        if self not in _stores:
            return
        _stores.discard(self)
        self._heartbeat.close()
        self._writer.close()
        self._reader.close()
        self._thread.stop(self._patience_s)

    def forked(self) -> None:
        """Called in the child of a fork: neither threads nor connections survive one, so nothing is touched."""
        self._heartbeat.forked()
        self._reader.forked()
        self._writer.forked()
        _stores.discard(self)

    async def flush(self) -> None:
        """Return when everything queued so far is durable."""
        await self._writer.submit(alone(_nothing))

    # Journal

    async def find(self, key: bytes) -> Claim | None:
        """See `Journal`."""
        return self._claim(await self._reader.find(key))

    async def claim(self, intent: Intent) -> Claim | None:
        """See `Journal`."""
        return self._claim(await self._writer.submit(claim_of(intent, next(self._ops), self._seal)))

    async def resend(self, key: bytes, run_id: str, fence: int, *, observing: bool = False) -> Claim | None:
        """See `Journal`."""
        work = resend_of(key, run_id, fence, next(self._ops), observing=observing)
        return self._claim(await self._writer.submit(work))

    async def settle(self, key: bytes, settlement: Settlement) -> bool:
        """See `Journal`."""
        settled: bool = await self._writer.submit(settle_of(key, settlement, next(self._ops), None, self._seal))
        return settled

    async def disprove(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Journal`."""
        words = disproof_of(claim, settlement, next(self._ops))

        async def work(db: Any) -> bool:
            return bool(await db.fetchval(DISPROVE.replace("{s}", self._address.schema), *words))

        closed: bool = await self._writer.submit(alone(work))
        return closed

    def settle_soon(self, key: bytes, settlement: Settlement) -> None:
        """See `Journal`."""
        self._writer.later(settle_of(key, settlement, next(self._ops), self._time.now(), self._seal))

    async def doubts(self, tenant_id: str | None = None, *, unverified: bool = False) -> list[Claim]:
        """See `Journal`."""
        tenant = None if tenant_id is None else write_text(tenant_id)
        if unverified:
            rows = await self._reader.fetch(self._unverified, tenant)
        else:
            senders = [row[0] for row in await self._reader.fetch(self._senders)]
            rows = await self._reader.fetch(
                self._doubts, tenant, list(filter(is_gone, senders)), list(filter(is_alive, senders))
            )
        return [read_claim(row, self._seal, self._time) for row in rows]

    async def claims_of(self, run_id: str) -> list[Claim]:
        """See `Journal`."""
        return [
            read_claim(row, self._seal, self._time)
            for row in await self._reader.fetch(self._claims_of, write_text(run_id))
        ]

    # RunStore

    async def begin(self, run: NewRun, *, retry: bool = False, resume: bool = False, revive: bool = False) -> Begun:
        """See `RunStore`."""
        words = {"retry": retry, "resume": resume, "revive": revive}
        work = begin_of(run, next(self._ops), self._seal, at=None, **words)
        fresh, row = await self._writer.submit(work)
        return Begun(fresh, read_run(row, self._seal, self._time))

    def begin_soon(self, run: NewRun) -> int:
        """See `RunStore`."""
        now_s = self._time.now()
        self._writer.later(begin_of(run, next(self._ops), self._seal, at=now_s))
        return int(now_s * 1000)

    async def end(
        self, run_id: str, fence: int, state: RunState, reason: str, record: Mapping[str, Any], output: bytes | None
    ) -> bool:
        """See `RunStore`."""
        work = end_of(run_id, fence, state, reason, record, output, next(self._ops), self._seal, at=None)
        ended: bool = await self._writer.submit(work)
        return ended

    def end_soon(
        self, run_id: str, fence: int, state: RunState, reason: str, record: Mapping[str, Any], output: bytes | None
    ) -> None:
        """See `RunStore`."""
        at = self._time.now()
        self._writer.later(end_of(run_id, fence, state, reason, record, output, next(self._ops), self._seal, at=at))

    async def run(self, run_id: str) -> RunRow | None:
        """See `RunStore`."""
        rows = await self._reader.fetch(self._run, write_text(run_id))
        return read_run(rows[0], self._seal, self._time) if rows else None

    async def runs(
        self,
        *,
        tenant_id: str | None = None,
        reason: str | None = None,
        state: RunState | None = None,
        limit: int = 50,
    ) -> list[RunRow]:
        """See `RunStore`."""
        words = (None if word is None else write_text(word) for word in (tenant_id, reason, state))
        return [read_run(row, self._seal, self._time) for row in await self._reader.fetch(self._runs, *words, limit)]

    # The trace

    def trace_soon(self, run_id: str, fence: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Queue trace rows of a run (each with its `seq`), without waiting; written within 0.25 s, or not if fenced."""
        self._writer.later(trace_of(run_id, fence, next(self._parts), rows))

    async def calls_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return the trace rows of a run, by seq."""
        return rows_of(row[0] for row in await self._reader.fetch(self._calls_of, write_text(run_id)))

    def _claim(self, row: Any) -> Claim | None:
        return None if row is None else read_claim(row, self._seal, self._time)


async def _open(address: Address, patience_s: float, *, make: bool) -> Opened:
    db = await connect(address, patience_s)
    try:
        return await open_schema(db, address, make=make)
    finally:
        await db.close(timeout=patience_s)


def _seal(replay: Replay | str, environ: Mapping[str, str], *, warn: bool) -> Seal:
    try:
        mode = Replay(replay)
    except ValueError:
        raise ConfigError(f"replay: {replay!r} is none of on, off, plaintext") from None
    keys = load_keys(None, environ, make=False)
    if mode is Replay.ON and not keys:
        if warn:
            _log.warning(
                "replay is off: a store on PostgreSQL keeps results only under INTERLOCK_KEY (32 bytes as 64 "
                "hexadecimal digits, the same for all workers), or as they are with `replay: plaintext`"
            )
        mode = Replay.OFF
    return Seal(mode, keys)


async def _nothing(db: Any) -> None:
    """What `flush` waits for."""
