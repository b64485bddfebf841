"""What operators do with memory in PostgreSQL: list, quarantine, release, purge, erase, on a scope and all below it.

A purge goes in short transactions, so that agents remember and recall beside it. What a deleted row leaves in the
server's files is the concern of `pg_erasure.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from interlock.core.errors import InvalidArguments
from interlock.core.trust import Trust
from interlock.memory.fact import ArtifactInfo, Fact, State
from interlock.memory.scope import Scope
from interlock.memory.store import Erased, MemoryStats, PurgePolicy
from interlock.stores.pg_address import Address
from interlock.stores.pg_memory_rows import ARTIFACT_COLUMNS, COLUMNS, LIVE, read_fact, read_info
from interlock.stores.pg_memory_writes import LINE, bury_line, supersede
from interlock.stores.pg_reach import Reach, ScopedMemory
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_text import write_text
from interlock.stores.pg_work import Work, alone
from interlock.stores.pg_writer import PgWriter

__all__ = ["PgDesk"]

# Rows of one transaction of a purge.
SLICE = 500
# How long an id that is gone is remembered: longer than anybody resumes a run.
GONE_S = 90 * 86_400.0

_ALIVE = f"coalesce({LIVE}, false)"
# What has expired; NaN is greater than any number. A fact of the future is neither alive nor expired.
_DUE = "(f.expires_at <= $1 or f.expires_at >= 'Infinity' or f.created_at >= 'Infinity')"
_OVER = _DUE.replace("$1", "{s}.memory_now()")
_LIST = f"""select {COLUMNS} from {{s}}.memory_facts f where f.tenant_id = $1
  and case when $2 then {_OVER} else {_ALIVE} end
  and ($3::text is null or f.state = $3) and ($4::text is null or f.subject = $4)
order by f.created_at desc, f.id desc limit $5"""
_SHOW = f"""{LINE} select {COLUMNS} from line join {{s}}.memory_facts f on f.fact_id = line.fact_id
where f.tenant_id = $2 order by f.fact_id = $1[1] desc, f.created_at desc, f.id desc limit 1000"""
_QUARANTINE = """update {s}.memory_facts f set state = 'quarantined', pinned = false
where f.fact_id = $1 and f.tenant_id = $2 and f.state = 'active'"""
_RELEASE = f"""update {{s}}.memory_facts f set state = 'active', trust = $3
where f.fact_id = $1 and f.tenant_id = $2 and f.state = 'quarantined' and {LIVE}"""
_ARTIFACTS = f"""select {ARTIFACT_COLUMNS} from {{s}}.memory_artifacts f where f.tenant_id = $1 and {LIVE}
order by f.created_at desc, f.name limit $2"""

_FACTS_DUE = f"""select fact_id from (
  select f.fact_id, {_DUE} as due, f.created_at, f.state, f.pinned, f.tags @> $5::text[] as tagged, row_number() over (
    partition by f.user_id, f.session_id, f.state, f.pinned order by f.created_at desc, f.id desc) as place
  from {{s}}.memory_facts f where f.tenant_id = $2) f
where $3 or f.due or f.tagged and (
  $6 or f.created_at <= $4 or f.place > $7 and f.state = 'active' and not f.pinned)"""
_ARTIFACTS_DUE = f"""select f.user_id, f.session_id, f.name from {{s}}.memory_artifacts f
where f.tenant_id = $2 and ($3 or {_DUE} or cardinality($5::text[]) = 0 and f.created_at <= $4)"""
_PURGE_FACTS = """with gone as (delete from {s}.memory_facts f where f.tenant_id = $1 and f.fact_id = any($2::text[])
  returning f.fact_id)
insert into {s}.memory_gone (tenant_id, fact_id, at) select $1, fact_id, {s}.now_s() from gone
on conflict (tenant_id, fact_id) do nothing"""
_PURGE_ARTIFACTS = """delete from {s}.memory_artifacts f using unnest($2::text[], $3::text[], $4::text[]) as d (u, s, n)
where f.tenant_id = $1 and (f.user_id, f.session_id, f.name) = (d.u, d.s, d.n)"""

_EXPIRED_FACTS = f"""with gone as (delete from {{s}}.memory_facts where ctid = any(array(
  select f.ctid from {{s}}.memory_facts f where {_DUE} limit $2)) returning tenant_id, fact_id)
insert into {{s}}.memory_gone (tenant_id, fact_id, at) select tenant_id, fact_id, $1 from gone
on conflict (tenant_id, fact_id) do nothing"""
_EXPIRED_ARTIFACTS = f"""delete from {{s}}.memory_artifacts where ctid = any(array(
  select f.ctid from {{s}}.memory_artifacts f where {_DUE} limit $2))"""
_OLD_TOMBSTONES = "delete from {s}.memory_gone where at < $1"

_OF = "select f.fact_id from {s}.memory_facts f where f.tenant_id = $1 and f.subject = any($2::text[]) for update"
_LINES = (
    f"{LINE} select {COLUMNS} from line join {{s}}.memory_facts f on f.fact_id = line.fact_id where f.tenant_id = $2"
)
_ERASE_ARTIFACTS = f"""delete from {{s}}.memory_artifacts f where f.tenant_id = $1 and f.subject = any($2::text[])
returning {ARTIFACT_COLUMNS}, f.data"""

_STATS = f"""select count(*) filter (where alive and state = 'active'),
  count(*) filter (where alive and state = 'quarantined'), count(*) filter (where alive and state = 'superseded'),
  count(*) filter (where over), count(*) filter (where alive and pinned),
  count(*) filter (where alive and state = 'active' and verify_by <= {{s}}.memory_now()), coalesce(sum(size), 0)::bigint
from (select {_ALIVE} as alive, {_OVER} as over, f.state, f.pinned, f.verify_by, octet_length(f.text) as size
  from {{s}}.memory_facts f where f.tenant_id = $1) f"""
_ARTIFACT_STATS = f"""select count(*) filter (where alive), count(*) filter (where over),
  coalesce(sum(size), 0)::bigint
from (select {_ALIVE} as alive, {_OVER} as over, length(f.data) as size
  from {{s}}.memory_artifacts f where f.tenant_id = $1) f"""


class PgDesk:
    """Port `MemoryDesk`.

    Args:
        exempt: Row-level security does not bind the role of this store by itself.
    """

    def __init__(self, writer: PgWriter, reader: PgReader, address: Address, *, exempt: bool) -> None:
        self._writer = writer
        self._reader = reader
        self._schema = address.schema
        self._scoped = ScopedMemory(address, become=exempt)
        # What was queued, and how much of it a reader is known to see.
        self._queued = 0
        self._seen = 0

    async def list_facts(
        self,
        below: Scope,
        now_s: float,
        *,
        state: State | None = None,
        subject: str | None = None,
        expired: bool = False,
        limit: int = 50,
    ) -> list[Fact]:
        """See `MemoryDesk`."""
        whose = None if subject is None else write_text(subject)
        words = write_text(below.tenant), expired, state, whose, limit
        return [read_fact(row) for row in await self._read(Reach.BELOW, below, now_s, _LIST, *words)]

    async def show(self, below: Scope, fact_id: str) -> list[Fact]:
        """See `MemoryDesk`."""
        words = [fact_id], write_text(below.tenant)
        return [read_fact(row) for row in await self._read(Reach.BELOW, below, None, _SHOW, *words)]

    async def drop(self, below: Scope, fact_id: str) -> bool:
        """See `MemoryDesk`."""

        async def work(db: Any) -> bool:
            async with self._scoped.within(db, Reach.BELOW, below, None):
                return await bury_line(db, self._schema, write_text(below.tenant), [fact_id]) > 0

        dropped: bool = await self._writer.submit(alone(work))
        return dropped

    async def quarantine(self, below: Scope, fact_id: str) -> bool:
        """See `MemoryDesk`."""
        return await self._change(Reach.BELOW, below, None, _QUARANTINE, fact_id, write_text(below.tenant)) == 1

    async def release(self, below: Scope, fact_id: str, trust: Trust, now_s: float) -> bool:
        """See `MemoryDesk`."""
        tenant = write_text(below.tenant)

        async def work(db: Any) -> bool:
            async with self._scoped.within(db, Reach.BELOW, below, now_s):
                status: str = await db.execute(self._text(_RELEASE), fact_id, tenant, int(trust))
                released = status.endswith(" 1")
                if released:
                    await supersede(db, self._schema, tenant, fact_id, now_s)
                return released

        done: bool = await self._writer.submit(alone(work))
        return done

    async def list_artifacts(self, below: Scope, now_s: float, *, limit: int = 50) -> list[ArtifactInfo]:
        """See `MemoryDesk`."""
        rows = await self._read(Reach.BELOW, below, now_s, _ARTIFACTS, write_text(below.tenant), limit)
        return [read_info(row) for row in rows]

    async def purge(self, below: Scope, policy: PurgePolicy, now_s: float) -> int:
        """See `MemoryDesk`."""
        if policy.keep_newest is not None and policy.keep_newest < 0:
            raise InvalidArguments("memory purge: keep_newest must be at least 0")
        if policy.older_than_s is not None and not policy.older_than_s >= 0:
            raise InvalidArguments("memory purge: older_than_s must be at least 0")
        tenant, tags = write_text(below.tenant), [write_text(tag) for tag in policy.tags]
        before = None if policy.older_than_s is None else now_s - policy.older_than_s
        words = (float(now_s), tenant, policy.whole, before, tags)
        tagged = bool(tags) and before is None and policy.keep_newest is None
        rows = await self._read(Reach.BELOW, below, now_s, _FACTS_DUE, *words, tagged, policy.keep_newest)
        kept = await self._read(Reach.BELOW, below, now_s, _ARTIFACTS_DUE, *words)
        if policy.dry_run:
            return len(rows) + len(kept)
        gone = 0
        for at in range(0, len(rows), SLICE):
            ids = [row[0] for row in rows[at : at + SLICE]]
            gone += await self._change(Reach.BELOW, below, now_s, _PURGE_FACTS, tenant, ids)
        for at in range(0, len(kept), SLICE):
            columns = (list(column) for column in zip(*kept[at : at + SLICE], strict=True))
            gone += await self._change(Reach.BELOW, below, now_s, _PURGE_ARTIFACTS, tenant, *columns)
        return gone

    async def purge_expired(self, now_s: float, limit: int = 1_000) -> int:
        """See `MemoryDesk`; a store that is bound to one tenant sees no other, and leaves it to the workers."""
        gone = 0
        for text in (_EXPIRED_FACTS, _EXPIRED_ARTIFACTS):
            gone += await self._change(Reach.ALL, None, now_s, text, float(now_s), limit)
        await self._change(Reach.ALL, None, now_s, _OLD_TOMBSTONES, now_s - GONE_S)
        return gone

    async def erase(self, below: Scope, subjects: Sequence[str]) -> Erased:
        """See `MemoryDesk`."""
        tenant, whose = write_text(below.tenant), [write_text(subject) for subject in subjects if subject]

        async def work(db: Any) -> Erased:
            async with self._scoped.within(db, Reach.BELOW, below, None):
                ids = [row[0] for row in await db.fetch(self._text(_OF), tenant, whose)]
                facts = [read_fact(row) for row in await db.fetch(self._text(_LINES), ids, tenant)]
                await bury_line(db, self._schema, tenant, ids)
                rows = await db.fetch(self._text(_ERASE_ARTIFACTS), tenant, whose)
            runs = [fact.origin.run_id for fact in facts] + [read_info(row).origin.run_id for row in rows]
            return Erased(
                fact_ids=tuple(fact.fact_id for fact in facts),
                artifacts=len(rows),
                texts=(*(fact.text for fact in facts), *(row[-1].decode() for row in rows)),
                run_ids=tuple(dict.fromkeys(filter(None, runs))),
            )

        erased: Erased = await self._writer.submit(alone(work))
        return erased

    async def stats(self, below: Scope, now_s: float) -> MemoryStats:
        """See `MemoryDesk`."""
        tenant = write_text(below.tenant)

        async def count(db: Any) -> Any:
            return await db.fetchrow(self._text(_STATS), tenant), await db.fetchrow(self._text(_ARTIFACT_STATS), tenant)

        facts, kept = await self._ask(Reach.BELOW, below, now_s, count)
        active, quarantined, superseded, expired, pinned, unchecked, size = facts
        return MemoryStats(
            active=active,
            quarantined=quarantined,
            superseded=superseded,
            expired=expired + kept[1],
            pinned=pinned,
            unchecked=unchecked,
            artifacts=kept[0],
            bytes=size + kept[2],
        )

    # How statements reach the server.

    def _later(self, work: Work) -> None:
        self._queued += 1
        self._writer.later(work)

    async def _read(self, reach: Reach, scope: Scope, now_s: float | None, text: str, *words: Any) -> list[Any]:
        """Return the rows of one statement, after all that was queued here."""

        async def query(db: Any) -> Any:
            return await db.fetch(self._text(text), *words)

        rows: list[Any] = await self._ask(reach, scope, now_s, query)
        return rows

    async def _ask(
        self, reach: Reach, scope: Scope, now_s: float | None, query: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        if self._seen < self._queued:
            queued = self._queued
            await self._writer.submit(alone(_nothing))
            self._seen = max(self._seen, queued)

        async def scoped(db: Any) -> Any:
            async with self._scoped.alone(db, reach, scope, now_s):
                return await query(db)

        return await self._reader.ask(scoped, repeat=True)

    async def _change(self, reach: Reach, scope: Scope | None, now_s: float | None, text: str, *words: Any) -> int:
        """Return how many rows one statement changed, inside a transaction of the writer."""

        async def work(db: Any) -> int:
            async with self._scoped.within(db, reach, scope, now_s):
                status: str = await db.execute(self._text(text), *words)
                return int(status.rpartition(" ")[2])

        changed: int = await self._writer.submit(alone(work))
        return changed

    def _text(self, text: str) -> str:
        return text.replace("{s}", self._schema)


async def _nothing(db: Any) -> None:
    """What a read waits for: everything queued before."""
