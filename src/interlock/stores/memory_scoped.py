"""The one door to the tables of memory: a connection that adds the scope to every statement, and refuses others.

A statement says where its rows may lie by one of three marks, and cannot be run without:

    {visible}   what an agent reads from its scope: it, what its user shares, what its tenant shares
    {mine}      what an agent changes: exactly its scope
    {below}     what an operator acts on: this scope and all below it

Callers name no tenant, user or session themselves: the parameters are set here.
"""

from __future__ import annotations

import functools
import sqlite3
from typing import Any

import orjson

from interlock.core.trust import Trust
from interlock.memory.fact import ArtifactInfo, Fact, Origin, State
from interlock.memory.life import SKEW_S
from interlock.memory.scope import Scope

__all__ = ["COLUMNS", "Scoped", "read_fact", "read_info"]

_MARKS = {
    "{visible}": "f.tenant_id = :tenant and f.user_id in ('', :user) and f.session_id in ('', :session)",
    "{mine}": "f.tenant_id = :tenant and f.user_id = :user and f.session_id = :session",
    "{below}": "f.tenant_id = :tenant and :user in ('', f.user_id) and :session in ('', f.session_id)",
}
# Dates are compared only where they are numbers: in SQLite, text is greater than any.
_LIVE = (
    "(typeof(f.created_at) = 'real' and typeof(f.expires_at) = 'real'"
    f" and f.created_at - {SKEW_S} <= :now and f.expires_at > :now and f.expires_at < 9e999)"
)
# What a purge takes: not what seems to be written in the future, since it may be our clock that is wrong.
_EXPIRED = (
    "(typeof(f.created_at) <> 'real' or typeof(f.expires_at) <> 'real' or f.expires_at <= :now"
    " or f.expires_at >= 9e999)"
)

# Of a fact's number: so many hexadecimal digits of the token of its scope, above so many bits that count.
_CLUSTER_DIGITS, _CLUSTER_BITS = 5, 40

COLUMNS = (
    "f.fact_id, f.tenant_id, f.user_id, f.session_id, f.text, f.value, f.subject, f.key, f.tags, f.trust, f.state,"
    " f.pinned, f.created_at, f.expires_at, f.verify_by, f.verified_at, f.supersedes, f.superseded_by,"
    " f.superseded_at, f.origin, f.vector"
)


class Unscoped(RuntimeError):
    """A statement that does not say whose rows it touches: a fault of this program."""


class Scoped:
    """A connection that sees one scope.

    Args:
        db: The connection. scope: whose rows.
    """

    __slots__ = ("_db", "_names")

    def __init__(self, db: sqlite3.Connection, scope: Scope) -> None:
        self._db = db
        tenant, user, session = scope.parts
        self._names = {"tenant": tenant, "user": user, "session": session}

    def run(self, sql: str, **names: Any) -> sqlite3.Cursor:
        """Run one statement on `memory_… f`. `{live}` in it is "may be read at :now", `{expired}` "has expired".

        Raises:
            Unscoped: It has no mark.
        """
        return self._db.execute(_finished(sql), {**names, **self._names})

    def insert(self, table: str, **values: Any) -> bool:
        """Insert a row of this scope; whether it was not there."""
        tenant, user, session = self._names.values()
        row = {"tenant_id": tenant, "user_id": user, "session_id": session, **values}
        marks = ", ".join(f":{name}" for name in row)
        sql = f"insert or ignore into {table} ({', '.join(row)}) values ({marks})"  # noqa: S608 - our own names
        return self._db.execute(sql, row).rowcount == 1

    def next_id(self, token: str) -> int:
        """Return the next free number of a fact of the scope with this token.

        Facts of one scope stand beside each other in the table and in the index, in the order in which they came: a
        search reads a few pages instead of one for each fact. Two scopes that share a beginning share it, no more.
        """
        low = int(token[:_CLUSTER_DIGITS], 16) << _CLUSTER_BITS
        sql = "select id from memory_facts where id >= ? and id < ? order by id desc limit 1"
        last = self._db.execute(sql, (low, low + (1 << _CLUSTER_BITS))).fetchone()
        return low + 1 if last is None else int(last[0]) + 1

    def bury(self, fact_id: str, at: float) -> None:
        """Leave a tombstone of a fact of this tenant."""
        words = self._names["tenant"], fact_id, at
        self._db.execute("insert or replace into memory_gone values (?, ?, ?)", words)

    def is_gone(self, fact_id: str) -> bool:
        """Whether there is a tombstone."""
        words = self._names["tenant"], fact_id
        sql = "select 1 from memory_gone where tenant_id = ? and fact_id = ?"
        return self._db.execute(sql, words).fetchone() is not None


@functools.cache
def _finished(sql: str) -> str:
    if not any(mark in sql for mark in _MARKS):
        raise Unscoped(f"a statement on memory without a scope: {sql}")
    for mark, clause in _MARKS.items():
        sql = sql.replace(mark, clause)
    return sql.replace("{live}", _LIVE).replace("{expired}", _EXPIRED)


@functools.lru_cache(1024)
def _scope(tenant: str, user: str, session: str) -> Scope:
    """Return the scope that a row names; its words are not checked again for each row."""
    return Scope(tenant, user or None, session or None)


def read_fact(row: tuple[Any, ...]) -> Fact:
    """Return the fact of a row of `COLUMNS`."""
    (fact_id, tenant, user, session, text, value, subject, key, tags, trust, state, pinned, created_at, expires_at) = (
        row[:14]
    )
    verify_by, verified_at, supersedes, superseded_by, superseded_at, origin, vector = row[14:21]
    return Fact(
        fact_id=fact_id,
        scope=_scope(tenant, user, session),
        text=text,
        created_at=created_at,
        expires_at=expires_at,
        subject=subject,
        key=key,
        value_json=value,
        tags=tuple(orjson.loads(tags)),
        verify_by=verify_by,
        verified_at=verified_at,
        trust=Trust(trust),
        state=State(state),
        pinned=bool(pinned),
        origin=Origin.of_json(orjson.loads(origin)),
        supersedes=supersedes,
        superseded_by=superseded_by,
        superseded_at=superseded_at,
        vector=vector,
    )


def read_info(row: tuple[Any, ...]) -> ArtifactInfo:
    """Return the artifact of a row: name, tenant, user, session, size, created, expires, subject, trust, origin."""
    name, tenant, user, session, size, created_at, expires_at, subject, trust, origin = row
    return ArtifactInfo(
        name=name,
        scope=_scope(tenant, user, session),
        size_bytes=size,
        created_at=created_at,
        expires_at=expires_at,
        subject=subject,
        trust=Trust(trust),
        origin=Origin.of_json(orjson.loads(origin)),
    )
