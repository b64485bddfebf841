"""The queue on PostgreSQL: runs that nobody works on, who takes them, and how they are given back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import orjson

from interlock.journal.store import NewRun
from interlock.stores.pg_bell import ring_text
from interlock.stores.pg_takeover import EXPIRED, RUN_COLUMNS, Holder, TakeOver
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.queue import Wanted

__all__ = ["Queue"]

# How many runs of one look are considered: those of a tenant that waits behind a thousand of another included.
LOOKED_AT = 64

# From tenant to tenant through the index, however many runs each has waiting. Oldest first within a tenant; tenants
# by how many runs of theirs this worker has under way.
_TAKEABLE = f"""
with recursive waiting as (
  (select tenant_id from {{s}}.runs where queued order by tenant_id limit 1)
  union all select (select r.tenant_id from {{s}}.runs r where r.queued and r.tenant_id > w.tenant_id
    order by r.tenant_id limit 1) from waiting w where w.tenant_id is not null),
found as (
  select r.* from waiting w cross join lateral (
    select id, run_id, tenant_id from {{s}}.runs where queued and tenant_id = w.tenant_id and path = ''
      and payload_hash is not null and agent = any($1::text[]) order by id limit {LOOKED_AT}) as r
  union all select id, run_id, tenant_id from {{s}}.runs where running and path = '' and payload_hash is not null
    and agent = any($1::text[]) and {EXPIRED}),
ordered as (select *, row_number() over (partition by tenant_id order by id) as nth from found
  where ($2::text[] is null or tenant_id = any($2::text[])) and tenant_id <> all($5::text[]))
select run_id from ordered left join unnest($3::text[], $4::bigint[]) as b (tenant_id, busy) using (tenant_id)
order by nth + coalesce(busy, 0), id limit {LOOKED_AT}"""

# A run that was taken by a statement whose answer was lost.
_TAKEN = "select run_id from {s}.runs where running and owner = $1 and last_op = $2"
_ONE = f"select {RUN_COLUMNS} from {{s}}.runs r where r.run_id = $1"
_TASK = "select task from {s}.runs where run_id = $1"

_REQUEST = """insert into {s}.requests (tenant_id, request_id, path, request_time_ms, run_id)
values ($1, $2, $3, floor({s}.now_s() * 1000)::bigint, $4) on conflict do nothing returning request_time_ms"""
_QUEUED = f"""insert into {{s}}.runs as r (run_id, tenant_id, request_id, root_run_id, path, agent, request_time_ms,
  payload_hash, state, fence, attempts, started_at, last_op, task)
values ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', 0, 0, {{s}}.now_s(), $9, $10) returning {RUN_COLUMNS}"""
_STANDING = f"""select r.last_op, {RUN_COLUMNS} from {{s}}.requests q join {{s}}.runs r on r.run_id = q.run_id
where q.tenant_id = $1 and q.request_id = $2 and q.path = $3"""

_PARKED = "select reason, ended_at, record, last_op = $2 and queued from {s}.runs where run_id = $1 for update"
_REQUEUE = """update {s}.runs set state = 'queued', owner = null, lease_until_s = null, last_op = $2,
  used_s = coalesce($3, used_s) where run_id = $1 and state = 'parked'"""

_OURS = "select running, last_op = $3 from {s}.runs where run_id = $1 and fence = $2 for update"
_HAND_BACK = """update {s}.runs set state = 'queued', owner = null, lease_until_s = null, attempts = attempts - 1,
  used_s = $2, last_op = $3 where run_id = $1"""
_NOW = "select {s}.now_s()"

_ORPHANS = f"""select run_id from {{s}}.runs where running and path = '' and {EXPIRED}
  and lease_until_s <= {{s}}.now_s() - $1::float8 and (payload_hash is null or agent <> all($2::text[]))
order by id limit {LOOKED_AT}"""

_DEAD = f"""select run_id from {{s}}.runs where running and path = '' and payload_hash is not null and {EXPIRED}
  and lease_until_s <= {{s}}.now_s() - $1::float8 and agent = any($2::text[])
  and ($3::text[] is null or tenant_id = any($3::text[]))
order by id limit {LOOKED_AT}"""

# Open claims and undecided approvals are few; each is looked at once, however many runs are parked.
_SETTLED = f"""select run_id from {{s}}.runs r where state = 'parked' and path = '' and payload_hash is not null
  and agent = any($1::text[]) and ($2::text[] is null or tenant_id = any($2::text[])) and run_id <> all($3::text[])
  and case when reason = 'outcome_unknown' then (tenant_id, request_id) not in (
    select tenant_id, request_id from {{s}}.journal where open)
  else run_id not in (
    select run_id from {{s}}.approvals where state = 'pending' and expires_at > {{s}}.now_s()) end
order by id limit {LOOKED_AT}"""

_ATTEMPTS = """select fence, owner, started_at, ended_at, ended_as from {s}.attempts where run_id = $1
union all select fence, owner, coalesce(attempted_at, started_at), ended_at, coalesce(reason, state) from {s}.runs
where run_id = $1 and owner is not null order by 1"""


# Of `RUN_COLUMNS`.
_USED_S = 18


def _texts(words: Iterable[str]) -> list[str]:
    return list(map(write_text, words))


class Queue:
    """The statements of the queue for one holder in one schema; each runs inside the caller's transaction."""

    def __init__(self, schema: str, holder: Holder) -> None:
        self._holder = holder
        self._takeover = TakeOver(schema, holder)
        self._text = {
            name: text.replace("{s}", schema).replace("{ttl_s}", repr(float(holder.ttl_s)))
            for name, text in _TEXTS.items()
        }
        self._ring = ring_text(schema)

    async def queue(self, db: Any, run: NewRun, task: bytes | None, op: int) -> tuple[bool, Any]:
        """Insert the run as queued; or return what stands for its request, untouched."""
        identity = tuple(map(write_text, (run.tenant_id, run.request_id, run.path)))
        name = write_text(run.run_id)
        time_ms = await db.fetchval(self._text["request"], *identity, name)
        if time_ms is None:
            last_op, *row = await db.fetchrow(self._text["standing"], *identity)
            return last_op == op, row
        names = (name, *identity[:2], write_text(run.root_run_id), identity[2], write_text(run.agent))
        row = await db.fetchrow(self._text["queued"], *names, time_ms, run.payload_hash, op, task)
        await db.execute(self._ring)
        return True, row

    async def task_of(self, db: Any, run_id: str) -> bytes | None:
        """Return the sealed task of a run, if it is kept."""
        found: bytes | None = await db.fetchval(self._text["task"], write_text(run_id))
        return found

    async def requeue(self, db: Any, run_id: str, op: int) -> bool:
        """Queue a parked run; its reason stays until it is taken."""
        found = await db.fetchrow(self._text["parked"], write_text(run_id), op)
        if found is None or found[3]:
            return found is not None
        reason, ended_at, record, _ = found
        used_s = (orjson.loads(record) if record else {}).get("duration_s")
        if ended_at is not None:
            await self._takeover.close_attempt(db, write_text(run_id), ended_at, reason or "parked")
        if await db.execute(self._text["requeue"], write_text(run_id), op, used_s) != "UPDATE 1":
            return False
        await db.execute(self._ring)
        return True

    async def takeable(self, db: Any, wanted: Wanted) -> list[str]:
        """Return the runs that may be taken, the next one first; it only reads, so that an idle worker never writes."""
        rows = await db.fetch(
            self._text["takeable"],
            _texts(wanted.agents),
            None if wanted.tenants is None else _texts(wanted.tenants),
            _texts(wanted.busy),
            list(wanted.busy.values()),
            _texts(wanted.without),
        )
        return [row[0] for row in rows]

    async def take(self, db: Any, wanted: Wanted, op: int) -> tuple[Any, bytes | None] | None:
        """Make the next run ours; return its row and its sealed task."""
        name = await db.fetchval(self._text["taken"], self._holder.owner, op)
        if name is not None:
            return await db.fetchrow(self._text["one"], name), await db.fetchval(self._text["task"], name)
        for run_id in await self.takeable(db, wanted):
            row = await self._takeover.take(db, run_id, op, parked=False)
            if row is not None:
                return row, await db.fetchval(self._text["task"], run_id)
        return None

    async def hand_back(self, db: Any, run_id: str, fence: int, used_s: float, op: int) -> bool:
        """Queue a run of ours again; the attempt is written down, but not counted."""
        name = write_text(run_id)
        found = await db.fetchrow(self._text["ours"], name, fence, op)
        if found is None or found[1] or not found[0]:
            return found is not None and bool(found[1])
        await self._takeover.close_attempt(db, name, await db.fetchval(self._text["now"]), "handed_back")
        await db.execute(self._text["hand_back"], name, used_s, op)
        await db.execute(self._ring)
        return True

    async def settled(
        self, db: Any, agents: Sequence[str], tenants: Sequence[str] | None, but: Collection[str]
    ) -> list[str]:
        """Return parked runs that wait for nothing any more, the oldest first."""
        words = _texts(agents), None if tenants is None else _texts(tenants), _texts(but)
        return [read_text(row[0]) for row in await db.fetch(self._text["settled"], *words)]

    async def orphans(self, db: Any, orphan_after_s: float, able: Sequence[str]) -> list[str]:
        """Return runs whose owner has been dead for that long, and that no agent of `able` will go on with."""
        return [row[0] for row in await db.fetch(self._text["orphans"], orphan_after_s, _texts(able))]

    async def dead(self, db: Any, after_s: float, agents: Sequence[str], tenants: Sequence[str] | None) -> list[str]:
        """Return the runs of these agents (and tenants) whose owner has been dead for that long."""
        words = _texts(agents), None if tenants is None else _texts(tenants)
        return [row[0] for row in await db.fetch(self._text["dead"], after_s, *words)]

    async def shelter(
        self, db: Any, after_s: float, agents: Sequence[str], tenants: Sequence[str] | None, op: int
    ) -> int:
        """Queue them."""
        queued = 0
        for run_id in await self.dead(db, after_s, agents, tenants):
            row = await self._takeover.take(db, run_id, op, parked=False)
            if row is not None:
                now = await db.fetchval(self._text["now"])
                await self._takeover.close_attempt(db, run_id, now, "handed_back")
                await db.execute(self._text["hand_back"], run_id, row[_USED_S], op)
                queued += 1
        return queued

    async def reap(self, db: Any, orphan_after_s: float, able: Sequence[str], op: int) -> list[Any]:
        """Make them ours; return their rows."""
        # Those that a statement took whose answer was lost, too.
        rows = [
            await db.fetchrow(self._text["one"], row[0])
            for row in await db.fetch(self._text["taken"], self._holder.owner, op)
        ]
        for run_id in await self.orphans(db, orphan_after_s, able):
            row = await self._takeover.take(db, run_id, op, parked=False)
            if row is not None:
                rows.append(row)
        return rows

    async def attempts_of(self, db: Any, run_id: str) -> list[tuple[Any, ...]]:
        """Return the attempts that are over, then the present one."""
        return [tuple(map(read_text, row)) for row in await db.fetch(self._text["attempts"], write_text(run_id))]


_TEXTS = {
    "attempts": _ATTEMPTS,
    "dead": _DEAD,
    "hand_back": _HAND_BACK,
    "now": _NOW,
    "one": _ONE,
    "ours": _OURS,
    "parked": _PARKED,
    "queued": _QUEUED,
    "orphans": _ORPHANS,
    "request": _REQUEST,
    "requeue": _REQUEUE,
    "settled": _SETTLED,
    "standing": _STANDING,
    "takeable": _TAKEABLE,
    "taken": _TAKEN,
    "task": _TASK,
}
