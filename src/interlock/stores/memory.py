"""Facts and artifacts in SQLite. Every statement goes through `Scoped`; words are matched inside the scope.

Facts are written by the store's one writer and share its commits; they are read beside it.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from interlock.core.trust import Trust
from interlock.memory.fact import Artifact, Fact, NewArtifact, NewFact, State
from interlock.memory.scope import Scope
from interlock.memory.store import Hit, Search
from interlock.memory.words import words_in
from interlock.stores.memory_desk import SqliteDesk, delete_line, replace_older
from interlock.stores.memory_scoped import COLUMNS, Scoped, read_fact, read_info

__all__ = ["SqliteMemory"]

_BY_ID = f"select {COLUMNS} from memory_facts f where f.fact_id = :fact_id and"  # noqa: S608 - our own names
_CHANGED = "f.fact_id = :fact_id and f.state = 'active' and f.trust <= :trust and {mine}"
_NAMED = """
select f.trust from memory_facts f where f.fact_id = :fact_id and f.state = 'active' and {mine} and {live}"""
_RIVALS = """
select f.fact_id, f.pinned, f.trust > :trust from memory_facts f
where f.scope_token = :token and f.state = 'active' and f.subject = :subject and f.key = :key and {mine} and {live}
order by f.created_at desc, f.id desc"""
# Versions before `:fact_id`, all of them of its scope.
_PAST = f"""
with recursive line(fact_id) as (
  select :fact_id union
  select f.fact_id from line join memory_facts f on f.superseded_by = line.fact_id
  where f.superseded_by <> '' and {{visible}}
)
select {COLUMNS} from line join memory_facts f on f.fact_id = line.fact_id
where f.fact_id <> :fact_id and {{visible}} and {{live}} order by f.superseded_at desc, f.id desc limit 1000"""  # noqa: S608
_FILTER = """
  and f.state = 'active' and {live} and {visible} and f.trust >= :min_trust
  and (:subject is null or f.subject = :subject)
  and (:tags = '[]' or not exists (
    select 1 from json_each(:tags) wanted where wanted.value not in (select value from json_each(f.tags))))"""
_WITH_ROWS = f"""
select {COLUMNS}, found.score from found join memory_facts f on f.id = found.id where {{visible}}
order by f.pinned desc, found.score desc, f.created_at desc, f.id desc"""  # noqa: S608
# Rows are sorted by what is short, and read whole only where they are answered.
_MATCHED = f"""
with found as materialized (
  select f.id, -bm25(memory_index) as score from memory_index join memory_facts f on f.id = memory_index.rowid
  where memory_index match :match {_FILTER}
  order by f.pinned desc, score desc, f.created_at desc, f.id desc limit :limit
){_WITH_ROWS}"""  # noqa: S608
_NEWEST = f"""
with found as materialized (
  select f.id, 0.0 as score from memory_facts f indexed by memory_by_scope
  where f.scope_token in (select value from json_each(:tokens)) {_FILTER}
  order by f.pinned desc, f.created_at desc, f.id desc limit :limit
){_WITH_ROWS}"""  # noqa: S608


class SqliteMemory(SqliteDesk):
    """Ports `MemoryStore` and `MemoryDesk`."""

    def remember_soon(self, scope: Scope, new: NewFact) -> None:
        """See `MemoryStore`."""
        self._queued += 1
        self._writer.later(_remember, scope, new, "")

    async def remember(self, scope: Scope, new: NewFact, *, supersedes: str = "") -> Fact | None:
        """See `MemoryStore`."""
        row = await self._writer.submit(_remember, scope, new, supersedes)
        return None if row is None else read_fact(row)

    async def get(self, scope: Scope, fact_id: str, now_s: float) -> Fact | None:
        """See `MemoryStore`."""
        row = await self._read(_get, scope, fact_id, now_s)
        return None if row is None else read_fact(row)

    async def search(self, scope: Scope, what: Search, now_s: float) -> list[Hit]:
        """See `MemoryStore`."""
        rows = await self._read(_search, scope, what, now_s)
        return [Hit(read_fact(row), row[-1]) for row in rows]

    async def past(self, scope: Scope, fact_id: str, now_s: float) -> list[Fact]:
        """See `MemoryStore`."""
        return [read_fact(row) for row in await self._read(_past, scope, fact_id, now_s)]

    async def forget(self, scope: Scope, fact_id: str, trust: Trust) -> bool:
        """See `MemoryStore`."""
        found: bool = await self._writer.submit(_forget, scope, fact_id, trust, self._clock.wall())
        return found

    async def pin(self, scope: Scope, fact_id: str, trust: Trust, now_s: float, *, pinned: bool) -> bool:
        """See `MemoryStore`."""
        found: bool = await self._writer.submit(_pin, scope, fact_id, trust, now_s, pinned)
        return found

    async def verify(self, scope: Scope, fact_id: str, trust: Trust, now_s: float, verify_by: float | None) -> bool:
        """See `MemoryStore`."""
        found: bool = await self._writer.submit(_verify, scope, fact_id, trust, now_s, verify_by)
        return found

    def put_artifact_soon(self, scope: Scope, new: NewArtifact) -> None:
        """See `MemoryStore`."""
        self._queued += 1
        self._writer.later(_put_artifact, scope, new)

    async def get_artifact(self, scope: Scope, name: str, now_s: float) -> Artifact | None:
        """See `MemoryStore`."""
        row = await self._read(_get_artifact, scope, name, now_s)
        return None if row is None else Artifact(info=read_info(row[:-1]), data=row[-1])


# Work on a connection: the writer's, inside its transaction, or a reader's.


def _remember(db: sqlite3.Connection, scope: Scope, new: NewFact, supersedes: str) -> tuple[Any, ...] | None:
    mine = Scoped(db, scope)
    if mine.is_gone(new.fact_id):
        return None
    there = mine.run(_BY_ID + " {mine}", fact_id=new.fact_id).fetchone()
    if there is not None:
        return tuple(there)
    named, state = supersedes, new.state
    if supersedes:
        older = mine.run(_NAMED, fact_id=supersedes, now=new.created_at).fetchone()
        if older is None:
            return None
        if older[0] > new.trust:
            state = State.QUARANTINED
    if new.key and state is State.ACTIVE:
        names = {"trust": int(new.trust), "token": scope.token, "subject": new.subject, "key": new.key}
        rivals = mine.run(_RIVALS, now=new.created_at, **names).fetchall()
        named = named or (rivals[0][0] if rivals else "")
        # What is pinned gives way only where it is named; what is better believed, never.
        if any(better or (pinned and rival != supersedes) for rival, pinned, better in rivals):
            state = State.QUARANTINED
    mine.insert("memory_facts", id=mine.next_id(scope.token), **_values(scope, new, state, named))
    if state is State.ACTIVE and (named or new.key):
        replace_older(mine, new.fact_id, new.created_at)
    row = mine.run(_BY_ID + " {mine}", fact_id=new.fact_id).fetchone()
    return None if row is None else tuple(row)


def _values(scope: Scope, new: NewFact, state: State, supersedes: str) -> dict[str, Any]:
    return {
        "fact_id": new.fact_id,
        "scope_token": scope.token,
        "text": new.text,
        "terms": " ".join(_term(scope.token, word) for word in words_in(new.text)),
        "value": new.value_json,
        "subject": new.subject,
        "key": new.key,
        "tags": orjson.dumps(new.tags).decode(),
        "trust": int(new.trust),
        "state": str(state),
        "created_at": new.created_at,
        "expires_at": new.expires_at,
        "verify_by": new.verify_by,
        "supersedes": supersedes,
        "origin": orjson.dumps(new.origin.as_json()).decode(),
        "vector": new.vector,
    }


def _term(token: str, word: str) -> str:
    """Return a word as the index has it: of one scope, but for rare chance, which the statement sorts out."""
    return token[:10] + word


def _get(db: sqlite3.Connection, scope: Scope, fact_id: str, now_s: float) -> tuple[Any, ...] | None:
    found = Scoped(db, scope).run(_BY_ID + " f.state = 'active' and {visible} and {live}", fact_id=fact_id, now=now_s)
    row: tuple[Any, ...] | None = found.fetchone()
    return row


def _search(db: sqlite3.Connection, scope: Scope, what: Search, now_s: float) -> list[tuple[Any, ...]]:
    mine = Scoped(db, scope)
    tokens = [seen.token for seen in scope.visible()]
    names = {
        "now": now_s,
        "subject": what.subject,
        "tags": orjson.dumps(what.tags).decode(),
        "min_trust": int(what.min_trust),
    }
    found: list[tuple[Any, ...]] = []
    if what.words:
        # Words are quoted: nothing in them is syntax.
        match = " OR ".join(f'"{_term(token, word)}"' for token in tokens for word in what.words)
        found = mine.run(_MATCHED, match=match, limit=what.limit, **names).fetchall()
    newest = what.newest if what.words else max(what.newest, what.limit)
    if newest > 0:
        known = {row[0] for row in found}
        rows = mine.run(_NEWEST, tokens=orjson.dumps(tokens).decode(), limit=newest, **names).fetchall()
        found += [row for row in rows if row[0] not in known]
    return found


def _past(db: sqlite3.Connection, scope: Scope, fact_id: str, now_s: float) -> list[tuple[Any, ...]]:
    if _get(db, scope, fact_id, now_s) is None:
        return []
    return Scoped(db, scope).run(_PAST, fact_id=fact_id, now=now_s).fetchall()


def _forget(db: sqlite3.Connection, scope: Scope, fact_id: str, trust: Trust, at: float) -> bool:
    mine = Scoped(db, scope)
    sql = f"select 1 from memory_facts f where {_CHANGED}"  # noqa: S608
    if mine.run(sql, fact_id=fact_id, trust=int(trust)).fetchone() is None:
        return False
    delete_line(mine, fact_id, at)
    return True


def _pin(db: sqlite3.Connection, scope: Scope, fact_id: str, trust: Trust, now_s: float, pinned: bool) -> bool:
    sql = f"update memory_facts as f set pinned = :pinned where {_CHANGED} and {{live}}"  # noqa: S608
    words = {"fact_id": fact_id, "trust": int(trust), "now": now_s, "pinned": int(pinned)}
    return Scoped(db, scope).run(sql, **words).rowcount == 1


def _verify(
    db: sqlite3.Connection, scope: Scope, fact_id: str, trust: Trust, now_s: float, verify_by: float | None
) -> bool:
    sql = f"""update memory_facts as f set verified_at = :now, verify_by = :verify_by
        where {_CHANGED} and {{live}}"""  # noqa: S608
    words = {"fact_id": fact_id, "trust": int(trust), "now": now_s, "verify_by": verify_by}
    return Scoped(db, scope).run(sql, **words).rowcount == 1


def _put_artifact(db: sqlite3.Connection, scope: Scope, new: NewArtifact) -> None:
    mine = Scoped(db, scope)
    names = {"name": new.name, "trust": int(new.trust), "now": new.created_at}
    mine.run(
        "delete from memory_artifacts as f where f.name = :name and {mine} and (f.trust <= :trust or not {live})",
        **names,
    )
    mine.insert(
        "memory_artifacts",
        name=new.name,
        data=new.data,
        subject=new.subject,
        trust=int(new.trust),
        created_at=new.created_at,
        expires_at=new.expires_at,
        origin=orjson.dumps(new.origin.as_json()).decode(),
    )


def _get_artifact(db: sqlite3.Connection, scope: Scope, name: str, now_s: float) -> tuple[Any, ...] | None:
    sql = """select f.name, f.tenant_id, f.user_id, f.session_id, length(f.data), f.created_at, f.expires_at, f.subject,
        f.trust, f.origin, f.data from memory_artifacts f where f.name = :name and {visible} and {live}
        order by f.session_id <> '' desc, f.user_id <> '' desc limit 1"""
    row: tuple[Any, ...] | None = Scoped(db, scope).run(sql, name=name, now=now_s).fetchone()
    return row
