"""The statements of runs on PostgreSQL: one request is worked on by one run at a time, its outcome written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from interlock.core.reasons import StopReason
from interlock.journal.store import Fenced, NewRun, RunRow, RunState
from interlock.stores.parts import part
from interlock.stores.pg_claims import MINE
from interlock.stores.pg_takeover import RUN_COLUMNS, Holder, TakeOver
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_time import ServerTime
from interlock.stores.pg_work import Work, begin_work, end_work, trace_work
from interlock.stores.places import output_place, task_place
from interlock.stores.seal import Seal, Unreadable

__all__ = ["RunStatements", "begin_of", "end_of", "read_run", "trace_of"]

_ASKED = """asked as materialized (select * from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
  $8::text[], $9::text[], $10::bytea[], $11::float8[], $12::bigint[], $13::bigint[]) with ordinality
  as a (run_id, tenant_id, request_id, agent, payload_hash, root_run_id, path, task, at, op, fence, n))"""

_INSERT = """insert into {s}.runs as r (run_id, tenant_id, request_id, root_run_id, path, agent, request_time_ms,
    payload_hash, state, fence, attempts, owner, lease_until_s, attempted_at, started_at, last_op, task)
  select a.run_id, a.tenant_id, a.request_id, a.root_run_id, a.path, a.agent, f.request_time_ms, a.payload_hash,
    'running', a.fence, 1, $14, clock.now + $15, clock.now, coalesce(a.at, clock.now), a.op, a.task"""

# Requests are taken in one order by everybody, so that of two processes that are asked for the same ones the second
# waits for the first, and not each for the other.
# A child's effect keys begin with the time of its root's request.
_BEGIN = f"""
with {MINE}, {_ASKED},
fresh as (insert into {{s}}.requests as q (tenant_id, request_id, path, request_time_ms, run_id)
  select a.tenant_id, a.request_id, a.path,
    coalesce(root.request_time_ms, floor(coalesce(a.at, clock.now) * 1000)::bigint), a.run_id
  from mine, clock, asked a left join {{s}}.runs root on root.run_id = a.root_run_id and a.root_run_id <> a.run_id
  where a.path = '' or root.fence = a.fence and root.state = 'running'
  order by a.tenant_id, a.request_id, a.path, a.n on conflict do nothing returning q.run_id, q.request_time_ms),
made as ({_INSERT} from clock, asked a join fresh f using (run_id) order by a.n returning {RUN_COLUMNS})
select (select count(*) from mine), a.n, r.* from asked a left join made r using (run_id) order by a.n"""

# Who waits here for another sees what that one has made of the request only by a statement of its own, after it.
_HOLD = """select 1 from unnest($1::text[], $2::text[], $3::text[]) as a (tenant_id, request_id, path)
  join {s}.requests q using (tenant_id, request_id, path) order by q.tenant_id, q.request_id, q.path for update of q"""
_STANDING = f"""
select q.request_time_ms, r.last_op, {RUN_COLUMNS} from {{s}}.requests q left join {{s}}.runs r on r.run_id = q.run_id
where q.tenant_id = $1 and q.request_id = $2 and q.path = $3"""

# A child is begun by the owner of its root alone. The lock holds a take-over up until the child's row is written.
_OWNS = "select 1 from {s}.runs where run_id = $1 and fence = $2 and state = 'running' for key share"

# Locked as for a take-over: no intent of the run that is replaced is committed beside it.
_CLOSE = """with held as materialized (select run_id from {s}.runs where run_id = $1 and tenant_id = $2 for update)
update {s}.runs r set state = 'ended', reason = coalesce(reason, 'abandoned'), ended_at = {s}.now_s()
from held where r.run_id = held.run_id and state <> 'ended'"""

_REPLACE = f"""
with {MINE}, {_ASKED},
f as (update {{s}}.requests q set run_id = a.run_id from mine, asked a
  where (q.tenant_id, q.request_id, q.path) = (a.tenant_id, a.request_id, a.path) returning q.request_time_ms)
{_INSERT} from clock, asked a, f returning {RUN_COLUMNS}"""

_END = f"""
with {MINE}, asked as materialized (select * from unnest($3::text[], $4::bigint[], $5::text[], $6::text[],
  $7::float8[], $8::text[], $9::bytea[], $10::bigint[]) with ordinality
  as a (run_id, fence, state, reason, at, record, output, op, n)),
-- In one order, so that no two who end runs wait for each other.
held as materialized (select r.run_id from mine, {{s}}.runs r where r.run_id in (select run_id from asked)
  order by r.run_id for no key update of r),
ended as (update {{s}}.runs r set state = a.state, reason = a.reason, ended_at = coalesce(a.at, clock.now),
    record = a.record::json, output = a.output, lease_until_s = null, last_op = a.op
  from mine, clock, asked a join held using (run_id)
  where r.run_id = a.run_id and r.fence = a.fence and r.state = 'running' returning r.run_id)
select (select count(*) from mine), array(select a.n from asked a where a.run_id not in (select run_id from ended)
  and not exists (select 1 from {{s}}.runs r where r.run_id = a.run_id and r.last_op = a.op))"""

# Of the number of a part: how many parts one store object queues at most.
_COUNT_BITS = 32

_TRACE = f"""
with {MINE}, asked as (select * from unnest($3::text[], $4::bigint[], $5::bigint[], $6::text[])
  as a (run_id, fence, part, entry)),
kept as (insert into {{s}}.calls (tenant_id, run_id, part, entry)
  select r.tenant_id, a.run_id, a.part, a.entry::json from mine, asked a join {{s}}.runs r using (run_id, fence)
  on conflict (run_id, part) do update set entry = excluded.entry)
select count(*) from mine"""


def begin_of(
    run: NewRun,
    op: int,
    seal: Seal,
    *,
    at: float | None,
    retry: bool = False,
    resume: bool = False,
    revive: bool = False,
) -> Work:
    """Return the work that begins the run; `at` is when, where that is not now, and nobody waits for it."""
    task = seal.close(run.task, task_place(run.run_id))
    row = (
        write_text(run.run_id),
        write_text(run.tenant_id),
        write_text(run.request_id),
        write_text(run.agent),
        run.payload_hash,
        write_text(run.root_run_id),
        write_text(run.path),
        task,
        at,
        op,
        run.fence,
        retry,
        resume,
        revive,
    )
    size = 0 if task is None else len(task)
    return begin_work(row, run.run_id, run.root_run_id, size, soon=at is not None)


def end_of(
    run_id: str,
    fence: int,
    state: RunState,
    reason: str,
    record: Mapping[str, Any],
    output: bytes | None,
    op: int,
    seal: Seal,
    *,
    at: float | None,
) -> Work:
    """Return the work that writes the outcome; `at` as in `begin_of`."""
    body = orjson.dumps(record, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    sealed = seal.close(output, output_place(run_id))
    row = (write_text(run_id), fence, str(state), write_text(reason), at, body, sealed, op)
    return end_work(row, run_id, len(body) + (0 if sealed is None else len(sealed)))


def trace_of(run_id: str, fence: int, count: int, rows: Sequence[Mapping[str, Any]]) -> Work:
    """Return the work that writes a part of a trace: rows, each with its `seq`; `count`: of parts queued before."""
    entry = part(rows).decode()
    # Written once more after a lost answer, it is the same part; those of a later attempt have higher numbers.
    number = fence << _COUNT_BITS | count
    return trace_work((write_text(run_id), fence, number, entry), run_id, len(entry))


def read_run(record: Any, seal: Seal, time: ServerTime, task: bytes | None = None) -> RunRow:
    """Return a row of `RUN_COLUMNS` as a value; an output that cannot be opened is kept, but None."""
    row: Any = tuple(map(read_text, record))
    try:
        output = seal.open(row[15], output_place(row[0]))
    except Unreadable:
        output = None
    return RunRow(
        run_id=row[0],
        tenant_id=row[1],
        request_id=row[2],
        agent=row[3],
        state=RunState(row[4]),
        reason=row[5],
        payload_hash=row[6],
        fence=row[7],
        attempts=row[8],
        request_time_ms=row[9],
        root_run_id=row[10],
        path=row[11],
        started_at=time.ours(row[12]),
        ended_at=time.ours_or_none(row[13]),
        record=None if row[14] is None else orjson.loads(row[14]),
        output=output,
        output_kept=row[15] is not None,
        lease_left_s=row[16],
        barren=row[17],
        used_s=row[18],
        spent_usd=row[19],
        spent_tokens=row[20],
        task=task,
    )


# Of the row of a run that begins: what is no column.
_WORDS = 3


def _request_of(work: Work) -> tuple[str, str, str]:
    _, tenant_id, request_id, _, _, _, path, *_ = work.row
    return tenant_id, request_id, path


class RunStatements:
    """The runs' statements for one schema; each runs for a group of works and sets their outcomes."""

    def __init__(self, schema: str, holder: Holder) -> None:
        self._holder = (holder.owner, holder.ttl_s)
        self._takeover = TakeOver(schema, holder)
        texts = (_BEGIN, _HOLD, _STANDING, _OWNS, _CLOSE, _REPLACE, _END, _TRACE)
        self._begin, self._hold, self._standing, self._owns, self._close, self._replace, self._end, self._trace = (
            text.replace("{s}", schema) for text in texts
        )

    async def begin(
        self, db: Any, writer: tuple[str, int], works: Sequence[Work], answered: Callable[[], None]
    ) -> bool:
        """Make the rows of new requests, and look at the others one by one; outcome: (fresh, the run's row).

        `answered` is called for each of them.
        """
        columns = zip(*(work.row[:-_WORDS] for work in works), strict=True)
        rows = await db.fetch(self._begin, *writer, *columns, *self._holder)
        if not rows[0][0]:
            return False
        known: list[Work] = []
        for work, (_, _, *row) in zip(works, rows, strict=True):
            work.outcome = (True, row)
            if row[0] is None:
                known.append(work)
        if known:
            await db.execute(self._hold, *zip(*map(_request_of, known), strict=True))
        for work in known:
            work.outcome = await self._begin_again(db, writer, work.row)
            answered()
        return True

    async def _begin_again(
        self, db: Any, writer: tuple[str, int], row: tuple[Any, ...]
    ) -> tuple[bool, list[Any]] | Fenced:
        """The request is known: take its run over where that is asked for, else return it (see `RunStore.begin`)."""
        run_id, tenant_id, request_id, _, _, root_run_id, path, _, _, op, fence, retry, resume, revive = row
        if path and await db.fetchval(self._owns, root_run_id, fence) is None:
            return Fenced(root_run_id)
        _, last_op, *standing = await db.fetchrow(self._standing, tenant_id, request_id, path)
        name, state, reason = standing[0], standing[4], standing[5]
        if last_op == op:
            return True, standing  # begun before, by a statement whose answer was lost
        # Only the owner of its root asks for a child: what stands is of an attempt that is over.
        child = path != "" and name != run_id
        if name is None or child or (retry and state in {RunState.ENDED, RunState.PARKED}):
            await db.execute(self._close, name, tenant_id)
            columns = ([value] for value in row[:-_WORDS])
            return True, list(await db.fetchrow(self._replace, *writer, *columns, *self._holder))
        abandoned = state == RunState.ENDED and reason == StopReason.ABANDONED
        if (resume and state != RunState.ENDED) or (revive and abandoned):
            taken = await self._takeover.take(db, name, op, parked=True, abandoned=revive)
            if taken is not None:
                return True, taken
        return False, standing

    async def end(self, db: Any, writer: tuple[str, int], works: Sequence[Work]) -> bool:
        """Write outcomes of runs; outcome: whether this owner could."""
        columns = zip(*(work.row for work in works), strict=True)
        mine, left = await db.fetchrow(self._end, *writer, *columns)
        for work in works:
            work.outcome = True
        for n in left:
            works[n - 1].outcome = False
        return bool(mine)

    async def trace(self, db: Any, writer: tuple[str, int], works: Sequence[Work]) -> bool:
        """Write parts of traces; return whether the writer's epoch still holds."""
        return bool(await db.fetchval(self._trace, *writer, *zip(*(work.row for work in works), strict=True)))
