"""What operators do with memory in SQLite: list, quarantine, release, purge, erase, on a scope and all below it.

A purge goes in short transactions, so that agents remember and recall beside it. An erasure is one: rows, older
versions, artifacts, and the index merged, since the words of deleted rows stay in it until then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from interlock.core.clock import Clock
from interlock.core.errors import InvalidArguments
from interlock.core.trust import Trust
from interlock.memory.fact import ArtifactInfo, Fact, State
from interlock.memory.scope import Scope
from interlock.memory.store import Erased, MemoryStats, PurgePolicy
from interlock.stores.memory_scoped import COLUMNS, Scoped, read_fact, read_info
from interlock.stores.reader import Reader
from interlock.stores.writer import Writer

__all__ = ["SqliteDesk", "delete_line", "replace_older"]

# Rows of one transaction of a purge.
SLICE = 200
# How long an id that is gone is remembered: longer than anybody resumes a run.
GONE_S = 90 * 86_400.0

# The fact itself and every version before it.
_LINE = """
with recursive line(fact_id) as (
  select :fact_id union
  select f.fact_id from line join memory_facts f on f.superseded_by = line.fact_id
  where f.superseded_by <> '' and {below}
)"""
_LINE_IDS = f"{_LINE} select f.fact_id from line join memory_facts f using (fact_id) where {{below}}"  # noqa: S608
_LINE_ROWS = f"""{_LINE} select {COLUMNS} from line join memory_facts f using (fact_id) where {{below}}
order by f.fact_id = :fact_id desc, f.created_at desc, f.id desc limit 1000"""  # noqa: S608 - our own names
_LIST = f"""
select {COLUMNS} from memory_facts f where {{below}} and iif(:expired, {{expired}}, {{live}})
  and (:state is null or f.state = :state) and (:subject is null or f.subject = :subject)
order by f.created_at desc, f.id desc limit :limit"""  # noqa: S608
_TAGGED = """(:tags = '[]' or not exists (
  select 1 from json_each(:tags) wanted where wanted.value not in (select value from json_each(f.tags))))"""
_INFO = """f.name, f.tenant_id, f.user_id, f.session_id, length(f.data), f.created_at, f.expires_at, f.subject, f.trust,
  f.origin"""
_OF = "f.subject = :subject and f.subject <> '' and {below}"
# By the index of dates alone; what is no number stands behind all numbers there.
_DUE = "expires_at <= :now or expires_at >= 9e999"


class SqliteDesk:
    """Port `MemoryDesk`."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        # Facts that were queued, and those of them that a reader is known to see.
        self._queued = 0
        self._seen = 0

    async def _read(self, work: Callable[..., Any], *args: Any) -> Any:
        """Read what is committed, after all that was queued here has been."""
        if self._seen < self._queued:
            queued = self._queued
            await self._writer.submit(_nothing)
            self._seen = max(self._seen, queued)
        return await self._reader.read(work, *args)

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
        names = {"state": None if state is None else str(state), "subject": subject, "expired": expired}
        rows = await self._read(_rows, below, _LIST, {**names, "now": now_s, "limit": limit})
        return [read_fact(row) for row in rows]

    async def show(self, below: Scope, fact_id: str) -> list[Fact]:
        """See `MemoryDesk`."""
        return [read_fact(row) for row in await self._read(_rows, below, _LINE_ROWS, {"fact_id": fact_id})]

    async def drop(self, below: Scope, fact_id: str) -> bool:
        """See `MemoryDesk`."""
        dropped: int = await self._writer.submit(_drop, below, fact_id, self._clock.wall())
        return dropped > 0

    async def quarantine(self, below: Scope, fact_id: str) -> bool:
        """See `MemoryDesk`."""
        found: bool = await self._writer.submit(_quarantine, below, fact_id)
        return found

    async def release(self, below: Scope, fact_id: str, trust: Trust, now_s: float) -> bool:
        """See `MemoryDesk`."""
        found: bool = await self._writer.submit(_release, below, fact_id, trust, now_s)
        return found

    async def list_artifacts(self, below: Scope, now_s: float, *, limit: int = 50) -> list[ArtifactInfo]:
        """See `MemoryDesk`."""
        sql = f"""select {_INFO} from memory_artifacts f where {{below}} and {{live}}
            order by f.created_at desc, f.id desc limit :limit"""  # noqa: S608
        return [read_info(row) for row in await self._read(_rows, below, sql, {"now": now_s, "limit": limit})]

    async def purge(self, below: Scope, policy: PurgePolicy, now_s: float) -> int:
        """See `MemoryDesk`."""
        if policy.keep_newest is not None and policy.keep_newest < 0:
            raise InvalidArguments("memory purge: keep_newest must be at least 0")
        if policy.older_than_s is not None and not policy.older_than_s >= 0:
            raise InvalidArguments("memory purge: older_than_s must be at least 0")
        facts, artifacts = await self._read(_due, below, policy, now_s)
        if policy.dry_run:
            return len(facts) + len(artifacts)
        gone = 0
        for i in range(0, len(facts), SLICE):
            gone += await self._writer.submit(_purge_facts, below, facts[i : i + SLICE], self._clock.wall())
        for i in range(0, len(artifacts), SLICE):
            gone += await self._writer.submit(_purge_artifacts, below, artifacts[i : i + SLICE])
        return gone

    async def purge_expired(self, now_s: float, limit: int = 1_000) -> int:
        """See `MemoryDesk`."""
        gone: int = await self._writer.submit(_purge_expired, now_s, limit)
        return gone

    async def erase(self, below: Scope, subjects: Sequence[str]) -> Erased:
        """See `MemoryDesk`."""
        erased: Erased = await self._writer.submit(_erase, below, tuple(subjects), self._clock.wall())
        return erased

    async def stats(self, below: Scope, now_s: float) -> MemoryStats:
        """See `MemoryDesk`."""
        stats: MemoryStats = await self._read(_stats, below, now_s)
        return stats


_NEW = "from memory_facts n where n.tenant_id = :tenant and n.fact_id = :fact_id"
_REPLACE = """
update memory_facts as f set state = 'superseded', superseded_by = :fact_id, superseded_at = :at, pinned = 0
where {mine} and f.state = 'active' and f.fact_id <> :fact_id"""
# Two statements, each of which finds its rows by an index: what a tenant remembers may be long.
_REPLACE_NAMED = f"{_REPLACE} and f.fact_id = (select n.supersedes {_NEW})"
_REPLACE_SAME_KEY = f"""{_REPLACE} and f.scope_token = (select n.scope_token {_NEW})
  and f.subject = (select n.subject {_NEW}) and f.key = (select nullif(n.key, '') {_NEW})"""


def replace_older(mine: Scoped, fact_id: str, at: float) -> None:
    """Make history of what an ACTIVE fact replaces: the fact it names, and statements of its subject and key."""
    for update in (_REPLACE_NAMED, _REPLACE_SAME_KEY):
        mine.run(update, fact_id=fact_id, at=at)


def delete_line(mine: Scoped, fact_id: str, at: float) -> int:
    """Delete a fact and the versions before it, leaving tombstones; return how many rows."""
    ids = [row[0] for row in mine.run(_LINE_IDS, fact_id=fact_id)]
    for found in ids:
        mine.run("delete from memory_facts as f where f.fact_id = :fact_id and {below}", fact_id=found)
        mine.bury(found, at)
    return len(ids)


# Work on a connection.


def _nothing(db: sqlite3.Connection) -> None:
    """What a read waits for: everything queued before."""


def _rows(db: sqlite3.Connection, below: Scope, sql: str, names: dict[str, Any]) -> list[tuple[Any, ...]]:
    return Scoped(db, below).run(sql, **names).fetchall()


def _drop(db: sqlite3.Connection, below: Scope, fact_id: str, at: float) -> int:
    return delete_line(Scoped(db, below), fact_id, at)


def _quarantine(db: sqlite3.Connection, below: Scope, fact_id: str) -> bool:
    sql = """update memory_facts as f set state = 'quarantined', pinned = 0
        where f.fact_id = :fact_id and f.state = 'active' and {below}"""
    return Scoped(db, below).run(sql, fact_id=fact_id).rowcount == 1


def _release(db: sqlite3.Connection, below: Scope, fact_id: str, trust: Trust, now_s: float) -> bool:
    sql = f"""select {COLUMNS} from memory_facts f
        where f.fact_id = :fact_id and f.state = 'quarantined' and {{below}} and {{live}}"""  # noqa: S608
    row = Scoped(db, below).run(sql, fact_id=fact_id, now=now_s).fetchone()
    if row is None:
        return False
    mine = Scoped(db, read_fact(row).scope)
    sql = "update memory_facts as f set state = 'active', trust = :trust where f.fact_id = :fact_id and {mine}"
    mine.run(sql, fact_id=fact_id, trust=int(trust))
    replace_older(mine, fact_id, now_s)
    return True


def _due(db: sqlite3.Connection, below: Scope, policy: PurgePolicy, now_s: float) -> tuple[list[str], list[int]]:
    """Return the ids of what a policy names, and nothing of its content."""
    mine = Scoped(db, below)
    limited = policy.older_than_s is not None or policy.keep_newest is not None
    names = {
        "now": now_s,
        "before": now_s - policy.older_than_s if policy.older_than_s is not None else None,
        "keep": policy.keep_newest,
        "tags": orjson.dumps(policy.tags).decode(),
        "whole": policy.whole,
        "tagged": bool(policy.tags) and not limited,
    }
    facts = mine.run(
        f"""select fact_id from (
          select f.fact_id, {{expired}} as over, f.created_at, f.state, f.pinned, {_TAGGED} as tagged,
            row_number() over (
              partition by f.scope_token, f.state, f.pinned order by f.created_at desc, f.id desc) as place
          from memory_facts f where {{below}})
        where :whole or over or (tagged and (
          :tagged or (:before is not null and created_at <= :before)
          or (:keep is not null and state = 'active' and not pinned and place > :keep)))""",  # noqa: S608
        **names,
    ).fetchall()
    artifacts = mine.run(
        """select f.id from memory_artifacts f where {below} and (:whole or {expired}
          or (:tags = '[]' and :before is not null and f.created_at <= :before))""",
        **names,
    ).fetchall()
    return [row[0] for row in facts], [row[0] for row in artifacts]


def _purge_facts(db: sqlite3.Connection, below: Scope, fact_ids: list[str], at: float) -> int:
    mine, gone = Scoped(db, below), 0
    for fact_id in fact_ids:
        sql = "delete from memory_facts as f where f.fact_id = :fact_id and {below}"
        if mine.run(sql, fact_id=fact_id).rowcount:
            mine.bury(fact_id, at)
            gone += 1
    return gone


def _purge_artifacts(db: sqlite3.Connection, below: Scope, ids: list[int]) -> int:
    mine = Scoped(db, below)
    return sum(mine.run("delete from memory_artifacts as f where f.id = :id and {below}", id=i).rowcount for i in ids)


def _purge_expired(db: sqlite3.Connection, now_s: float, limit: int) -> int:
    # Of every tenant, by date alone: nothing is read out but ids.
    rows = db.execute(
        f"select id, tenant_id, fact_id from memory_facts where {_DUE} limit :limit",  # noqa: S608
        {"now": now_s, "limit": limit},
    ).fetchall()
    db.executemany("insert or replace into memory_gone values (?, ?, ?)", [(row[1], row[2], now_s) for row in rows])
    db.executemany("delete from memory_facts where id = ?", [(row[0],) for row in rows])
    artifacts = db.execute(
        f"delete from memory_artifacts where id in (select id from memory_artifacts where {_DUE} limit :limit)",  # noqa: S608
        {"now": now_s, "limit": limit},
    ).rowcount
    db.execute("delete from memory_gone where at < ?", (now_s - GONE_S,))
    return len(rows) + artifacts


def _erase(db: sqlite3.Connection, below: Scope, subjects: tuple[str, ...], at: float) -> Erased:
    mine = Scoped(db, below)
    ids: list[str] = []
    texts: list[str] = []
    runs: dict[str, None] = {}
    artifacts = 0
    for subject in subjects:
        found = mine.run(
            f"select {COLUMNS} from memory_facts f where {_OF}",  # noqa: S608
            subject=subject,
        ).fetchall()
        # Older versions may have been written under another subject.
        lines = {row[0]: row for first in found for row in mine.run(_LINE_ROWS, fact_id=first[0])}
        for row in lines.values():
            fact = read_fact(row)
            mine.run("delete from memory_facts as f where f.fact_id = :fact_id and {below}", fact_id=fact.fact_id)
            mine.bury(fact.fact_id, at)
            ids.append(fact.fact_id)
            texts.append(fact.text)
            runs[fact.origin.run_id] = None
        for row in mine.run(f"select {_INFO}, f.data from memory_artifacts f where {_OF}", subject=subject).fetchall():  # noqa: S608
            artifacts += 1
            texts.append(row[-1].decode())
            runs[read_info(row[:-1]).origin.run_id] = None
        mine.run(f"delete from memory_artifacts as f where {_OF}", subject=subject)  # noqa: S608
    # The words of a deleted row stay in the index until its parts are merged.
    db.execute("insert into memory_index (memory_index) values ('optimize')")
    runs.pop("", None)
    return Erased(fact_ids=tuple(ids), artifacts=artifacts, texts=tuple(texts), run_ids=tuple(runs))


def _stats(db: sqlite3.Connection, below: Scope, now_s: float) -> MemoryStats:
    mine = Scoped(db, below)
    row = mine.run(
        """select coalesce(sum(alive and state = 'active'), 0), coalesce(sum(alive and state = 'quarantined'), 0),
          coalesce(sum(alive and state = 'superseded'), 0), coalesce(sum(over), 0),
          coalesce(sum(alive and pinned), 0),
          coalesce(sum(alive and state = 'active' and verify_by is not null and verify_by <= :now), 0),
          coalesce(sum(size), 0)
        from (select {live} as alive, {expired} as over, f.state, f.pinned, f.verify_by,
            length(cast(f.text as blob)) as size
          from memory_facts f where {below})""",
        now=now_s,
    ).fetchone()
    kept = mine.run(
        """select coalesce(sum({live}), 0), coalesce(sum({expired}), 0), coalesce(sum(length(f.data)), 0)
        from memory_artifacts f where {below}""",
        now=now_s,
    ).fetchone()
    active, quarantined, superseded, expired, pinned, unchecked, size = row
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
