"""Facts and artifacts in PostgreSQL. Row-level security holds every statement to a scope; see `pg_reach.py`.

Facts are written by the store's one writer and share its commits; they are read beside it, each read in a
transaction of its own, which names the scope, so that a pooler may lend each another connection.
"""

from __future__ import annotations

from typing import Any

import orjson

from interlock.core.trust import Trust
from interlock.memory.fact import Artifact, Fact, NewArtifact, NewFact, State
from interlock.memory.scope import Scope
from interlock.memory.store import Hit, Search
from interlock.stores.pg_memory_desk import PgDesk
from interlock.stores.pg_memory_rows import (
    ARTIFACT_COLUMNS,
    COLUMNS,
    LIVE,
    fact_words,
    query_of,
    read_fact,
    read_info,
)
from interlock.stores.pg_memory_writes import BY_ID, bury_line, supersede
from interlock.stores.pg_reach import Reach
from interlock.stores.pg_text import write_text
from interlock.stores.pg_work import alone

__all__ = ["PgMemory"]

_SEEN = f"select {COLUMNS} from {{s}}.memory_facts f where f.fact_id = $1 and f.tenant_id = $2 and f.state = 'active'"
# The policies say where rows may lie; what is said of it here as well only shows the way through the index.
_WHERE = """f.tenant_id = $1 and f.user_id = any($2::text[]) and f.session_id = any($3::text[])
  and f.state = 'active' and f.trust >= $4 and ($5::text is null or f.subject = $5) and f.tags @> $6::text[]"""
_MATCHED = f"""select {COLUMNS}, ts_rank(f.words, $8::tsquery)::float8 as score from {{s}}.memory_facts f
where {_WHERE} and f.words @@ $8::tsquery order by f.pinned desc, score desc, f.created_at desc, f.id desc limit $7"""
_NEWEST = f"""select {COLUMNS}, 0::float8 from {{s}}.memory_facts f where {_WHERE}
order by f.pinned desc, f.created_at desc, f.id desc limit $7"""
# Versions before a fact, each of which is seen from here, and lives.
_PAST = f"""with recursive line (fact_id) as (
  select $1::text collate "C" union
  select f.fact_id from line join {{s}}.memory_facts f on f.superseded_by = line.fact_id where f.tenant_id = $2)
select {COLUMNS} from line join {{s}}.memory_facts f on f.fact_id = line.fact_id and f.tenant_id = $2
where f.fact_id <> $1 order by f.superseded_at desc, f.id desc limit 1000"""

_LOCK = "select pg_advisory_xact_lock(hashtextextended($1, 2))"
_OLD = f"""select f.trust from {{s}}.memory_facts f
where f.fact_id = $1 and f.tenant_id = $2 and f.state = 'active' and {LIVE} for update"""
_RIVALS = f"""select f.fact_id, f.pinned or f.trust > $4 from {{s}}.memory_facts f
where f.tenant_id = $1 and f.subject = $2 and f.key = $3 and f.key <> '' and f.state = 'active' and {LIVE}
order by f.created_at desc, f.id desc for update"""
_INSERT = f"""insert into {{s}}.memory_facts as f (fact_id, tenant_id, user_id, session_id, text, value, subject, key,
  tags, trust, state, created_at, expires_at, verify_by, supersedes, origin, vector, words)
select $1::text, $2::text, $3::text, $4::text, $5::text, $6::bytea, $7::text, $8::text, $9::text[], $10::smallint,
  $11::text, $12::float8, $13::float8, $14::float8, $15::text, $16::json, $17::bytea, array_to_tsvector($18::text[])
where not exists (select 1 from {{s}}.memory_gone g where g.tenant_id = $2::text and g.fact_id = $1::text)
on conflict (tenant_id, fact_id) do nothing returning {COLUMNS}"""
_CHANGED = "f.fact_id = $1 and f.tenant_id = $2 and f.state = 'active' and f.trust <= $3"
_FORGET = f"select 1 from {{s}}.memory_facts f where {_CHANGED} for update"
_PIN = f"update {{s}}.memory_facts f set pinned = $4 where {_CHANGED} and {LIVE}"
_VERIFY = f"""update {{s}}.memory_facts f set verified_at = {{s}}.memory_now(), verify_by = $4
where {_CHANGED} and {LIVE}"""
_PUT = f"""insert into {{s}}.memory_artifacts as f (tenant_id, user_id, session_id, name, trust, created_at,
  expires_at, subject, origin, data) values ($1, $2, $3, $4, $5, $6, $7, $8, $9::json, $10)
on conflict (tenant_id, user_id, session_id, name) do update set trust = excluded.trust,
  created_at = excluded.created_at, expires_at = excluded.expires_at, subject = excluded.subject,
  origin = excluded.origin, data = excluded.data where f.trust <= excluded.trust or not coalesce({LIVE}, false)"""
_ARTIFACT = f"""select {ARTIFACT_COLUMNS}, f.data from {{s}}.memory_artifacts f
where f.tenant_id = $1 and f.user_id = any($2::text[]) and f.session_id = any($3::text[]) and f.name = $4
order by f.session_id <> '' desc, f.user_id <> '' desc limit 1"""


class PgMemory(PgDesk):
    """Ports `MemoryStore` and `MemoryDesk`."""

    def remember_soon(self, scope: Scope, new: NewFact) -> None:
        """See `MemoryStore`."""
        self._later(alone(self._remembering(scope, new, "")))

    async def remember(self, scope: Scope, new: NewFact, *, supersedes: str = "") -> Fact | None:
        """See `MemoryStore`."""
        row = await self._writer.submit(alone(self._remembering(scope, new, supersedes)))
        return None if row is None else read_fact(row)

    async def get(self, scope: Scope, fact_id: str, now_s: float) -> Fact | None:
        """See `MemoryStore`."""
        rows = await self._read(Reach.READ, scope, now_s, _SEEN, fact_id, write_text(scope.tenant))
        return read_fact(rows[0]) if rows else None

    async def search(self, scope: Scope, what: Search, now_s: float) -> list[Hit]:
        """See `MemoryStore`."""
        subject = None if what.subject is None else write_text(what.subject)
        words = (*_places(scope), int(what.min_trust), subject, list(map(write_text, what.tags)))
        query = query_of(what.words)
        newest = what.newest if what.words else max(what.newest, what.limit)

        async def both(db: Any) -> list[Any]:
            rows = [] if query is None else await db.fetch(self._text(_MATCHED), *words, what.limit, query)
            return rows if newest < 1 else [*rows, *await db.fetch(self._text(_NEWEST), *words, newest)]

        found: dict[str, Any] = {}
        for row in await self._ask(Reach.READ, scope, now_s, both):
            found.setdefault(row[0], row)
        return [Hit(read_fact(row), row[-1]) for row in found.values()]

    async def past(self, scope: Scope, fact_id: str, now_s: float) -> list[Fact]:
        """See `MemoryStore`."""
        tenant = write_text(scope.tenant)

        async def versions(db: Any) -> list[Any]:
            seen = await db.fetchrow(self._text(_SEEN), fact_id, tenant)
            return [] if seen is None else await db.fetch(self._text(_PAST), fact_id, tenant)

        return [read_fact(row) for row in await self._ask(Reach.READ, scope, now_s, versions)]

    async def forget(self, scope: Scope, fact_id: str, trust: Trust) -> bool:
        """See `MemoryStore`."""
        words = fact_id, write_text(scope.tenant), int(trust)

        async def work(db: Any) -> bool:
            async with self._scoped.within(db, Reach.WRITE, scope, None):
                if await db.fetchrow(self._text(_FORGET), *words) is None:
                    return False
                await bury_line(db, self._schema, words[1], [fact_id])
                return True

        forgotten: bool = await self._writer.submit(alone(work))
        return forgotten

    async def pin(self, scope: Scope, fact_id: str, trust: Trust, now_s: float, *, pinned: bool) -> bool:
        """See `MemoryStore`."""
        words = fact_id, write_text(scope.tenant), int(trust), pinned
        return await self._change(Reach.WRITE, scope, now_s, _PIN, *words) == 1

    async def verify(self, scope: Scope, fact_id: str, trust: Trust, now_s: float, verify_by: float | None) -> bool:
        """See `MemoryStore`."""
        words = fact_id, write_text(scope.tenant), int(trust), verify_by
        return await self._change(Reach.WRITE, scope, now_s, _VERIFY, *words) == 1

    def put_artifact_soon(self, scope: Scope, new: NewArtifact) -> None:
        """See `MemoryStore`."""
        origin = orjson.dumps(new.origin.as_json()).decode()
        dates = new.created_at, new.expires_at
        words = (
            *map(write_text, scope.parts), write_text(new.name), int(new.trust), *dates, write_text(new.subject),
            origin, new.data,
        )  # fmt: skip

        async def work(db: Any) -> None:
            async with self._scoped.within(db, Reach.WRITE, scope, new.created_at):
                await db.execute(self._text(_PUT), *words)

        self._later(alone(work))

    async def get_artifact(self, scope: Scope, name: str, now_s: float) -> Artifact | None:
        """See `MemoryStore`."""
        rows = await self._read(Reach.READ, scope, now_s, _ARTIFACT, *_places(scope), write_text(name))
        return Artifact(info=read_info(rows[0]), data=rows[0][-1]) if rows else None

    # Inside a transaction of the writer.

    def _remembering(self, scope: Scope, new: NewFact, supersedes: str) -> Any:
        """Return the work that writes a fact, and answers with its row. Done twice, it writes one."""

        async def work(db: Any) -> Any:
            async with self._scoped.within(db, Reach.WRITE, scope, new.created_at):
                return await self._remember(db, scope, new, supersedes)

        return work

    async def _remember(self, db: Any, scope: Scope, new: NewFact, supersedes: str) -> Any:
        tenant = write_text(scope.tenant)
        replaced, state = supersedes, new.state
        if supersedes:
            old = await db.fetchrow(self._text(_OLD), supersedes, tenant)
            if old is None:
                return await db.fetchrow(self._text(BY_ID), new.fact_id, tenant)
            if old[0] > new.trust:
                state = State.QUARANTINED
        elif new.key and state is State.ACTIVE:
            # Two workers that say the same of one subject do so one after the other.
            names = tenant, write_text(new.subject), write_text(new.key)
            await db.execute(_LOCK, f"{self._schema} {scope.token} {names[1]}\n{names[2]}")
            rivals = await db.fetch(self._text(_RIVALS), *names, int(new.trust))
            replaced = rivals[0][0] if rivals else ""
            if any(stands for _, stands in rivals):
                state = State.QUARANTINED
        row = await db.fetchrow(self._text(_INSERT), *fact_words(new, scope, state, replaced))
        if row is None:
            # The id is there already, or gone.
            return await db.fetchrow(self._text(BY_ID), new.fact_id, tenant)
        if replaced and state is State.ACTIVE:
            await supersede(db, self._schema, tenant, new.fact_id, new.created_at)
        return row


def _places(scope: Scope) -> tuple[str, list[str], list[str]]:
    """Return the tenant, and the users and sessions that are read from here."""
    tenant, user, session = map(write_text, scope.parts)
    return tenant, sorted({"", user}), sorted({"", session})
