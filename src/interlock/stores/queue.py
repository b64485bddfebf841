"""The statements of the queue: runs that nobody works on, who takes them, and how they are given back."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from interlock.journal.store import NewRun, RunState
from interlock.stores.marks import Marked
from interlock.stores.runs import Holder, close_attempt, insert, may_take_over, one_run, reopen

__all__ = [
    "Wanted",
    "attempts_of",
    "dead",
    "hand_back",
    "look",
    "orphans",
    "queue",
    "reap",
    "requeue",
    "settled",
    "shelter",
    "take",
    "takeable",
    "task_of",
]

# How many runs of one look are considered: those of a tenant that waits behind a thousand of another included.
_LOOKED_AT = 64

# Oldest first within a tenant; tenants by how many runs of theirs this worker has under way.
_TAKEABLE = """
select run_id, state, lease_until_s, boot_id from (
  select id, run_id, tenant_id, state, lease_until_s, boot_id,
    row_number() over (partition by tenant_id order by id) as n
  from runs where state in ('queued', 'running') and path = '' and payload_hash is not null
    and agent in (select value from json_each(:agents))
    and (:tenants is null or tenant_id in (select value from json_each(:tenants)))
    and tenant_id not in (select value from json_each(:without))
    and (state = 'queued' or boot_id is not :boot_id or lease_until_s <= :now_s)
) as r order by r.n + coalesce((select value from json_each(:busy) where key = r.tenant_id), 0), r.id
limit :most"""

# Open claims and undecided approvals are few; each is looked at once, however many runs are parked.
_SETTLED = """
select run_id from runs where state = 'parked' and path = '' and payload_hash is not null
  and agent in (select value from json_each(:agents))
  and (:tenants is null or tenant_id in (select value from json_each(:tenants)))
  and case when reason = 'outcome_unknown' then (tenant_id, request_id) not in (
    select tenant_id, request_id from journal where state in ('intent', 'in_doubt'))
  else run_id not in (select run_id from approvals where state = 'pending' and expires_at > :now) end
  and run_id not in (select value from json_each(:but))
order by id limit :most"""

_EXPIRED = Marked("""select run_id, lease_until_s, boot_id from runs where state = 'running' and path = ''
and (boot_id is not ?1 and ?2 >= 0 or lease_until_s <= ?2)
and (payload_hash is null or agent not in (select value from json_each(?3)))
order by id limit ?4""")

_DEAD = Marked("""select run_id from runs where state = 'running' and path = '' and payload_hash is not null
and (boot_id is not ?1 and ?2 >= 0 or lease_until_s <= ?2) and agent in (select value from json_each(?3))
and (?4 is null or tenant_id in (select value from json_each(?4))) order by id limit ?5""")

# Of a run's row.
_FENCE, _USED_S = 7, 19


class Wanted(NamedTuple):
    """What a worker would take: see `Ownership.take`."""

    agents: Sequence[str]
    tenants: Sequence[str] | None
    busy: Mapping[str, int]
    without: Collection[str]


def queue(
    db: sqlite3.Connection, run: NewRun, task: bytes | None, holder: Holder, now: float
) -> tuple[bool, tuple[Any, ...] | None]:
    """Insert the run as queued; or return what stands for its request, untouched."""
    identity = (run.tenant_id, run.request_id, run.path)
    standing = db.execute(
        "select run_id from requests where tenant_id = ? and request_id = ? and path = ?", identity
    ).fetchone()
    if standing is not None:
        return False, one_run(db, standing[0])
    time_ms = int(now * 1000)
    db.execute("insert into requests values (?, ?, ?, ?, ?)", (*identity, time_ms, run.run_id))
    return True, insert(db, run, task, holder, now, time_ms, RunState.QUEUED)


def task_of(db: sqlite3.Connection, run_id: str) -> bytes | None:
    """Return the sealed task of a run, if it is kept."""
    row = db.execute("select task from runs where run_id = ?", (run_id,)).fetchone()
    return None if row is None else row[0]


def requeue(db: sqlite3.Connection, run_id: str) -> bool:
    """Queue a parked run; its reason stays until it is taken."""
    row = db.execute("select reason, ended_at, record from runs where run_id = ? and state = 'parked'", (run_id,))
    found = row.fetchone()
    if found is None:
        return False
    close_attempt(db, run_id, found[1], found[0] or "parked")
    used_s = (orjson.loads(found[2]) if found[2] else {}).get("duration_s")
    db.execute(
        "update runs set state = 'queued', owner = null, lease_until_s = null, used_s = coalesce(?, used_s) "
        "where run_id = ?",
        (used_s, run_id),
    )
    return True


def _asked(wanted: Wanted, holder: Holder) -> dict[str, Any]:
    return {
        "agents": orjson.dumps(list(wanted.agents)).decode(),
        "tenants": None if wanted.tenants is None else orjson.dumps(list(wanted.tenants)).decode(),
        "without": orjson.dumps(list(wanted.without)).decode(),
        "busy": orjson.dumps(dict(wanted.busy)).decode(),
        "boot_id": holder.boot_id,
        "now_s": holder.boot(),
        "most": _LOOKED_AT,
    }


def takeable(db: sqlite3.Connection, wanted: Wanted, holder: Holder) -> list[tuple[Any, ...]]:
    """Return the runs that may be taken, the next one first; a reader can ask, so that an idle worker never writes."""
    return db.execute(_TAKEABLE, _asked(wanted, holder)).fetchall()


def look(db: sqlite3.Connection, wanted: Wanted, holder: Holder, quiet_at: int | None) -> tuple[bool, int | None]:
    """Return whether there is a run to take; if nothing is queued or running at all, the version of the file too.

    Args:
        quiet_at: That version, when nothing was: while it stands nothing can be there, and nothing is searched.
    """
    version = int(db.execute("pragma data_version").fetchone()[0])
    if version == quiet_at:
        return False, version
    if takeable(db, wanted, holder):
        return True, None
    busy = db.execute("select 1 from runs where state in ('queued', 'running') limit 1").fetchone()
    return False, version if busy is None else None


def take(
    db: sqlite3.Connection, wanted: Wanted, holder: Holder, now: float, asked_s: float
) -> tuple[tuple[Any, ...], bytes | None] | None:
    """Make the next run ours; return its row and its sealed task."""
    for run_id, state, until_s, boot_id in takeable(db, wanted, holder):
        if state == RunState.QUEUED or may_take_over(until_s, boot_id, holder, asked_s):
            task = db.execute("select task from runs where run_id = ?", (run_id,)).fetchone()[0]
            return reopen(db, run_id, holder, now), task
    return None


def hand_back(db: sqlite3.Connection, run_id: str, fence: int, used_s: float, now: float) -> bool:
    """Queue a run of ours again; the attempt is written down, but not counted."""
    mine = db.execute("select 1 from runs where run_id = ? and fence = ? and state = 'running'", (run_id, fence))
    if mine.fetchone() is None:
        return False
    close_attempt(db, run_id, now, "handed_back")
    db.execute(
        "update runs set state = 'queued', owner = null, lease_until_s = null, attempts = attempts - 1, used_s = ? "
        "where run_id = ?",
        (used_s, run_id),
    )
    return True


def settled(
    db: sqlite3.Connection,
    agents: Sequence[str],
    tenants: Sequence[str] | None,
    but: Collection[str],
    now: float,
) -> list[str]:
    """Return parked runs that wait for nothing any more, the oldest first."""
    asked = {
        "agents": orjson.dumps(list(agents)).decode(),
        "tenants": None if tenants is None else orjson.dumps(list(tenants)).decode(),
        "but": orjson.dumps(list(but)).decode(),
        "now": now,
        "most": _LOOKED_AT,
    }
    return [row[0] for row in db.execute(_SETTLED, asked)]


def orphans(db: sqlite3.Connection, holder: Holder, orphan_after_s: float, able: Sequence[str]) -> list[str]:
    """Return the runs whose owner has been dead for that long, and that no agent of `able` will go on with."""
    asked = (holder.boot_id, holder.boot() - orphan_after_s, orjson.dumps(list(able)).decode(), _LOOKED_AT)
    return [row[0] for row in _EXPIRED.run(db, asked)]


def dead(db: sqlite3.Connection, holder: Holder, after_s: float, asked: tuple[str, str | None]) -> list[str]:
    """Return the runs of these agents (and tenants) whose owner has been dead for that long."""
    words = (holder.boot_id, holder.boot() - after_s, *asked, _LOOKED_AT)
    return [row[0] for row in _DEAD.run(db, words)]


def shelter(
    db: sqlite3.Connection, holder: Holder, after_s: float, asked: tuple[str, str | None], now: float, asked_s: float
) -> int:
    """Queue them."""
    if holder.boot() - asked_s >= holder.ttl_s / 2:
        return 0
    found = dead(db, holder, after_s, asked)
    for run_id in found:
        row = reopen(db, run_id, holder, now)
        hand_back(db, run_id, row[_FENCE], row[_USED_S], now)
    return len(found)


def reap(
    db: sqlite3.Connection, holder: Holder, orphan_after_s: float, able: Sequence[str], now: float, asked_s: float
) -> list[tuple[Any, ...]]:
    """Make them ours; return their rows."""
    if holder.boot() - asked_s >= holder.ttl_s / 2:
        return []
    return [reopen(db, run_id, holder, now) for run_id in orphans(db, holder, orphan_after_s, able)]


def attempts_of(db: sqlite3.Connection, run_id: str) -> list[tuple[Any, ...]]:
    """Return the attempts that are over, then the present one."""
    return db.execute(
        "select fence, owner, started_at, ended_at, ended_as from attempts where run_id = ? union all "
        "select fence, owner, coalesce(attempted_at, started_at), ended_at, coalesce(reason, state) from runs "
        "where run_id = ? and owner is not null order by 1",
        (run_id, run_id),
    ).fetchall()
