"""Every change that a process makes goes through one connection, and whatever has gathered shares a transaction.

While the server confirms one batch, the next gathers. Order is kept: no piece of work is durable before all
that was queued earlier. When the server is away, those who wait are told so after `patience_s`, and what
waits for nobody stays queued, in order, until the server is back.

When a connection breaks, nobody knows what became of its last batch. The next connection raises the writer's
epoch first: that waits for a statement still at work, and one that has not begun yet will write nothing. Then
the batch is run again, and each piece of work finds out by its own number whether it had been done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from interlock.core.errors import InterlockError, StoreUnavailable
from interlock.journal.store import Refused
from interlock.stores.pg_address import Address
from interlock.stores.pg_claims import AGAIN, ClaimStatements
from interlock.stores.pg_connections import connect, hang_up, transaction
from interlock.stores.pg_errors import Fault, fault_of, translate
from interlock.stores.pg_history import HistoryStatements
from interlock.stores.pg_runs import RunStatements
from interlock.stores.pg_takeover import Holder
from interlock.stores.pg_thread import LoopThread, answer_all
from interlock.stores.pg_work import Kind, Work, place
from interlock.stores.writer import CLOSED, FORKED, HEAP, WriterOptions

__all__ = ["PgWriter"]

# What may be a transaction of its own: one statement. The others look again where their group found something.
_ONE_STATEMENT = frozenset({Kind.CLAIM, Kind.RESEND, Kind.SETTLE, Kind.END, Kind.TURN, Kind.RESULT, Kind.TRACE})
BATCH_BYTES = 8_000_000
MOST_REPEATS = 5
FIRST_RETRY_S = 0.05
# What rings the writer: nothing, work that somebody waits for, any work.
AWAKE, GATHERING, ASLEEP = 0, 1, 2

_RAISE_EPOCH = """insert into {s}.writers as w (id, epoch, seen_at)
values ($1, nextval('{s}.writer_epochs'), {s}.now_s())
on conflict (id) do update set epoch = excluded.epoch, seen_at = excluded.seen_at returning epoch"""

# A process that writes now and then is not taken for one that is dead.
_SEEN = "update {s}.writers set seen_at = {s}.now_s() where id = $1 and epoch = $2"
SEEN_EVERY_S = 3_600.0

# Every row is found by its key, whatever the tables' sizes were when a statement was first planned: the planner's
# choice for a new store, kept for as long as the connection, would be a walk over the whole table later on.
_PLAN_FOR_KEYS = """set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set jit = off;
set plan_cache_mode = force_generic_plan"""

# An intent that its caller was told not to act upon is no doubt: nothing was sent. Of one sent before, we know less.
_WITHDRAW = """update {s}.journal j set settled_at = case when a.first then {s}.now_s() end,
  state = case when a.first then 'failed_clean' else 'in_doubt' end,
  settled_by = case when a.first then 'store' else '' end, settle_reason =
    case when a.first then 'the intent was not acknowledged, and nothing was sent' else '' end
from unnest($1::bytea[], $2::bigint[], $3::bool[]) as a (key, op, first)
where j.key = a.key and j.last_op = a.op and j.state = 'intent'"""


class _Replaced(Exception):
    """Our epoch holds no longer: the writer's row was taken, or purged while we slept."""


class PgWriter:
    """The writer of one process.

    Args:
        thread: Where the connection lives.
        me: Name of this writer, like no other's. sender: of this process, for those who look for open intents.
        holder: Who holds the leases of the runs that are begun.
    """

    def __init__(
        self, thread: LoopThread, address: Address, me: str, sender: str, holder: Holder, options: WriterOptions
    ) -> None:
        self.lost = 0
        self.batches = 0
        self._thread = thread
        self._address = address
        self._me = me
        self._sender = sender
        self._options = options
        self._claims = ClaimStatements(address.schema)
        self._runs = RunStatements(address.schema, holder)
        self._history = HistoryStatements(address.schema)
        self._raise_epoch = _RAISE_EPOCH.replace("{s}", address.schema)
        self._seen = _SEEN.replace("{s}", address.schema)
        self._seen_s = 0.0
        self._withdraw_told = _WITHDRAW.replace("{s}", address.schema)
        self._queue: deque[Work] = deque()
        self._under_way: list[Work] = []
        self._sending = False
        self._limit: asyncio.Timeout | None = None
        self._db: Any = None
        self._epoch = 0
        self._urgent = False
        self._sleep = AWAKE
        self._closed: str | None = None
        self._draining = False
        self._failing_since_s: float | None = None
        self._failures = 0
        self._told: list[tuple[bytes, int, bool]] = []
        self._bell = asyncio.Event()
        self._main_task: asyncio.Task[None] | None = None
        thread.call(self._start)

    # From any thread.

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """Queue work; the future is answered after its commit, or fails with `StoreUnavailable`."""
        future = work.future = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            future.set_exception(StoreUnavailable(self._closed))
            return future
        self._queue.append(work)
        self._urgent = True
        if self._sleep:
            self._ring()
        return future

    def later(self, work: Work) -> None:
        """Queue work that nobody waits for."""
        if self._closed is not None or len(self._queue) >= self._options.backlog:
            self.lost += 1
            return
        self._queue.append(work)
        if self._sleep == ASLEEP:
            self._ring()

    def hurry(self) -> None:
        """Commit what is queued now, and not when more has gathered; nobody waits for it all the same."""
        self._urgent = True
        if self._sleep:
            self._ring()

    def close(self) -> None:
        """Write what is queued, and stop; waits at most `patience_s` for a server that does not answer."""
        if self._closed is not None:
            return
        self._closed = CLOSED
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            self._thread.wait_for(self._drain(), self._options.patience_s + 1.0)
        self.lost += sum(work.future is None for work in self._queue)

    def forked(self) -> None:
        """Called in the child of a fork: refuse everything, touch nothing."""
        self._closed = FORKED

    def _ring(self) -> None:
        self._sleep = AWAKE
        self._thread.call(self._bell.set)

    # On the thread of the connection.

    def _start(self) -> None:
        self._main_task = asyncio.get_running_loop().create_task(self._main(), name="interlock-pg-writer")

    async def _drain(self) -> None:
        self._draining = True
        self._bell.set()
        if self._main_task is not None:
            await self._main_task
        if self._db is not None:
            with contextlib.suppress(Exception):
                await self._db.execute(f"delete from {self._address.schema}.writers where id = $1", self._me)
                await self._db.close(timeout=1.0)

    async def _main(self) -> None:
        while await self._await_work():
            batch = self._under_way = self._take()
            self._sending = False
            began_s = self._thread.time()
            try:
                async with asyncio.timeout(self._options.patience_s) as self._limit:
                    await self._write(batch)
            except Exception as error:
                self._keep(began_s, error)
            else:
                self._failing_since_s, self._failures = None, 0
                self._answer(batch)
            self._under_way = []

    async def _await_work(self) -> bool:
        """Sleep until there is something to write; False once closed and written (or not writable)."""
        if self._failing_since_s is not None:
            # A connection that was cut is made again at once; a server that is away is asked less and less often.
            if self._failures > 1:
                await self._nap(AWAKE, min(self._options.retry_s, FIRST_RETRY_S * 2**self._failures))
            return not self._draining
        if not self._queue:
            await self._nap(ASLEEP, None)
        if not self._urgent:
            await self._nap(GATHERING, self._options.linger_s)
        return bool(self._queue) or not self._draining

    async def _nap(self, how: int, most_s: float | None) -> None:
        self._bell.clear()
        self._sleep = how
        # Looked at again: whoever came before `_sleep` was set has not rung.
        if not self._draining and not (how and self._urgent) and not (how == ASLEEP and self._queue):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    await self._bell.wait()
        self._sleep = AWAKE

    def _take(self) -> list[Work]:
        self._urgent = False
        batch: list[Work] = []
        size = waited_for = 0
        most = self._options.batch
        while self._queue and waited_for < most and len(batch) < HEAP * most and size < BATCH_BYTES:
            work = self._queue.popleft()
            size += work.size
            waited_for += work.future is not None
            batch.append(work)
        self._urgent = bool(self._queue) or self._urgent
        return batch

    async def _write(self, batch: list[Work]) -> None:
        """Commit the batch and set the outcomes; raise if the server, or the way to it, is at fault."""
        if not batch:
            return
        db = await self._connection()
        await self._withdraw(db)
        left = batch
        for _ in range(MOST_REPEATS):
            try:
                await self._transact(db, left)
            except Exception as error:
                fault = fault_of(error)
                if fault is Fault.AGAIN:
                    continue
                if fault is not Fault.WORK or isinstance(error, _Replaced):
                    raise
                await self._write_alone(db, left)
            left = [work for work in left if work.outcome is AGAIN]
            if not left:
                return
        for work in left:
            work.outcome = StoreUnavailable(f"store {self._address.shown}: too many others change the same rows")

    async def _write_alone(self, db: Any, batch: list[Work]) -> None:
        """One piece of work has spoiled the batch: each gets a transaction of its own, in their order."""
        for work in batch:
            try:
                await self._transact(db, [work])
            except Exception as error:
                if fault_of(error) is not Fault.WORK or isinstance(error, _Replaced):
                    raise
                self.lost += work.future is None
                ours = isinstance(error, InterlockError | Refused)
                work.outcome = error if ours else translate(error, self._address.shown)

    async def _transact(self, db: Any, batch: list[Work]) -> None:
        groups = place(batch)
        self._sending = True
        if len(groups) == 1 and groups[0][0] in _ONE_STATEMENT and self._address.tenant_id is None:
            await self._group(db, *groups[0])
        else:
            async with transaction(db, self._address.tenant_id):
                for kind, works in groups:
                    await self._group(db, kind, works)
        self.batches += 1

    async def _group(self, db: Any, kind: Kind, works: list[Work]) -> None:
        writer = (self._me, self._epoch)
        match kind:
            case Kind.CLAIM:
                mine = await self._claims.claim(db, writer, self._sender, works)
            case Kind.SETTLE:
                mine = await self._claims.settle(db, writer, works)
            case Kind.RESEND:
                mine = await self._claims.resend(db, writer, self._sender, works)
            case Kind.BEGIN:
                mine = await self._runs.begin(db, writer, works, self._answered)
            case Kind.END:
                mine = await self._runs.end(db, writer, works)
            case Kind.TURN:
                mine = await self._history.turns(db, writer, works)
            case Kind.RESULT:
                mine = await self._history.results(db, writer, works)
            case Kind.FORGET:
                mine = await self._history.forget(db, writer, works)
            case Kind.TRACE:
                mine = await self._runs.trace(db, writer, works)
            case Kind.ALONE:
                mine = True
                for work in works:
                    work.outcome = await work.row[0](db)
                    self._answered()
        if not mine:
            raise _Replaced
        self._answered()

    def _answered(self) -> None:
        """The server has answered one of several statements: patience is with silence, not with long batches."""
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._thread.time() + self._options.patience_s)

    async def _connection(self) -> Any:
        if self._db is not None and not self._db.is_closed():
            if self._thread.time() - self._seen_s >= SEEN_EVERY_S:
                await self._db.execute(self._seen, self._me, self._epoch)
                self._seen_s = self._thread.time()
            return self._db
        db = await connect(self._address, self._options.patience_s)
        try:
            if not self._address.pooled:
                await db.execute(_PLAN_FOR_KEYS)
            self._epoch = await db.fetchval(self._raise_epoch, self._me)
        except BaseException:
            hang_up(db)
            raise
        self._db, self._seen_s = db, self._thread.time()
        self._answered()
        return db

    async def _withdraw(self, db: Any) -> None:
        """Close the intents whose callers were told that they may not send: some may have been committed."""
        if self._told:
            columns = zip(*self._told, strict=True)
            async with transaction(db, self._address.tenant_id):
                await db.execute(self._withdraw_told, *columns)
            self._told.clear()

    def _keep(self, began_s: float, error: Exception) -> None:
        """The server, or the way to it, is at fault: what was under way goes back to the head of the queue."""
        fault = Fault.CONNECTION if isinstance(error, _Replaced) else fault_of(error)
        if fault is Fault.CONNECTION and self._db is not None:
            hang_up(self._db)
            self._db = None
        if fault is Fault.CONNECTION and self._sending:
            for work in self._under_way:
                work.sent = True
        if self._failing_since_s is None:
            self._failing_since_s = began_s
        self._failures = min(self._failures + 1, 20)
        self._queue.extendleft(reversed(self._under_way))
        # A connection that was cut is made anew within the patience of those who wait; anything else lasts.
        if fault is not Fault.CONNECTION or self._thread.time() - self._failing_since_s >= self._options.patience_s:
            self._tell(translate(error, self._address.shown))

    def _tell(self, error: InterlockError) -> None:
        """Tell those who wait that the store does not answer, and do no more of what they asked for."""
        kept: list[Work] = []
        told: list[Work] = []
        for _ in range(len(self._queue)):
            work = self._queue.popleft()
            (kept if work.future is None else told).append(work)
        self._queue.extendleft(reversed(kept))
        for work in told:
            if work.sent and work.kind in {Kind.CLAIM, Kind.RESEND}:
                self._told.append((work.row[0], work.row[-1], work.kind is Kind.CLAIM))
            work.outcome = error
        self._answer(told)

    def _answer(self, batch: list[Work]) -> None:
        answer_all((work.future, work.outcome) for work in batch if work.future is not None)
