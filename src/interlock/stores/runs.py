"""The statements of runs: one request is worked on by one run at a time, and its outcome is written once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from interlock.core.reasons import StopReason
from interlock.journal.ownership import left_s, wears_out
from interlock.journal.store import Fenced, NewRun, RunRow, RunState
from interlock.stores.marks import Marked
from interlock.stores.places import output_place
from interlock.stores.seal import Seal, Unreadable

__all__ = [
    "Holder",
    "begin",
    "close_attempt",
    "end",
    "insert",
    "list_runs",
    "may_take_over",
    "one_run",
    "read_run",
    "reopen",
]

_COLUMNS = """run_id, tenant_id, request_id, agent, state, reason, payload_hash, fence, attempts, request_time_ms,
  root_run_id, path, started_at, ended_at, record, output, lease_until_s, boot_id, barren, used_s, spent_usd,
  spent_tokens"""

_ONE = f"select {_COLUMNS} from runs where run_id = ?"  # noqa: S608 - our own column names

_INSERT_RUN = f"""insert into runs (run_id, tenant_id, request_id, root_run_id, path, agent, request_time_ms,
  payload_hash, state, fence, attempts, owner, boot_id, lease_until_s, attempted_s, attempted_at, started_at, task)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning {_COLUMNS}"""  # noqa: S608

_REOPEN = Marked(f"""update runs set state = 'running', reason = null, ended_at = null, fence = fence + 1,
  attempts = attempts + 1, owner = ?2, boot_id = ?3, lease_until_s = ?4, attempted_s = ?5, attempted_at = ?6,
  recorded = ?7, barren = ?8, used_s = ?9, spent_usd = spent_usd + held_usd, held_usd = 0,
  spent_tokens = spent_tokens + held_tokens, held_tokens = 0 where run_id = ?1 returning {_COLUMNS}""")  # noqa: S608

_STANDING = """select q.request_time_ms, r.run_id, r.state, r.reason, r.lease_until_s, r.boot_id from requests q
  left join runs r on r.run_id = q.run_id where q.tenant_id = ? and q.request_id = ? and q.path = ?"""

# Children of an attempt that is over; whoever goes on with the run begins them again. Few rows are running.
_CLOSE_CHILDREN = Marked("""update runs set state = 'ended', reason = 'abandoned', ended_at = ?2, lease_until_s = null
where state = 'running' and root_run_id = ?1 and path <> ''""")

_CLOSE_ATTEMPT = Marked("""insert or replace into attempts
select run_id, fence, owner, coalesce(attempted_at, started_at), ?2, ?3 from runs
where run_id = ?1 and owner is not null""")

# What an attempt adds to: turns, answers, writes, and what became of them. A write sent once more is nothing new.
_RECORDED = Marked("""
select (select count(*) from turns where run_id = ?1) + (select count(*) from results where run_id = ?1)
  + (select count(*) + count(case when state in ('done', 'failed_clean') then 1 end) from journal
     where key >= ?2 and key < ?3 and run_id = ?1)""")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who takes leases: this store of this process. `boot` is the clock that they are counted in."""

    owner: str
    boot_id: str
    ttl_s: float
    boot: Callable[[], float]


def begin(
    db: sqlite3.Connection,
    run: NewRun,
    task: bytes | None,
    holder: Holder,
    now: float,
    asked_s: float,
    retry: bool,
    resume: bool,
    revive: bool,
) -> tuple[bool, tuple[Any, ...]]:
    """Insert the run, or take the standing one over where that is asked for; return (ours, the row)."""
    if run.path:
        _of_its_root(db, run)
    identity = (run.tenant_id, run.request_id, run.path)
    standing = db.execute(_STANDING, identity).fetchone()
    if standing is None:
        time_ms = _inherited_time(db, run) or int(now * 1000)
        db.execute("insert into requests values (?, ?, ?, ?, ?)", (*identity, time_ms, run.run_id))
        return True, insert(db, run, task, holder, now, time_ms)
    time_ms, run_id, state, reason, until_s, boot_id = standing
    # Only the owner of its root asks for a child: what stands is of an attempt that is over.
    child = run.path != "" and run_id != run.run_id
    if run_id is None or child or (retry and state in {RunState.ENDED, RunState.PARKED}):
        _close_standing(db, run_id, now)
        db.execute(
            "update requests set run_id = ? where tenant_id = ? and request_id = ? and path = ?",
            (run.run_id, *identity),
        )
        return True, insert(db, run, task, holder, now, time_ms)
    dead = state == RunState.RUNNING and may_take_over(until_s, boot_id, holder, asked_s)
    abandoned = state == RunState.ENDED and reason == StopReason.ABANDONED
    if (resume and (dead or state in {RunState.PARKED, RunState.QUEUED})) or (revive and abandoned):
        return True, reopen(db, run_id, holder, now)
    return False, db.execute(_ONE, (run_id,)).fetchone()


def _of_its_root(db: sqlite3.Connection, run: NewRun) -> None:
    """Refuse a child that a fenced owner asks for: the row of the new owner's is not his to replace."""
    owns = db.execute(
        "select 1 from runs where run_id = ? and fence = ? and state = 'running'", (run.root_run_id, run.fence)
    )
    if owns.fetchone() is None:
        raise Fenced(run.root_run_id)


def _close_standing(db: sqlite3.Connection, run_id: str | None, now: float) -> None:
    db.execute(
        "update runs set state = 'ended', reason = coalesce(reason, 'abandoned'), ended_at = ? "
        "where run_id = ? and state <> 'ended'",
        (now, run_id),
    )


def may_take_over(until_s: float | None, boot_id: str | None, holder: Holder, asked_s: float) -> bool:
    """Whether a lease has run out, and its owner had the chance to renew it.

    Whoever has waited long for his turn to write may have waited beside the owner: then the owner, who queued
    before, goes first, and the asker looks again.
    """
    now_s = holder.boot()
    left = left_s(until_s, boot_id, now_s, holder.boot_id)
    return left is not None and left <= 0 and now_s - asked_s < holder.ttl_s / 2


def reopen(db: sqlite3.Connection, run_id: str, holder: Holder, now: float) -> tuple[Any, ...]:
    """Make the run ours: the next fence, the next attempt. What its last attempt came to is written down."""
    state, reason, until_s, boot_id, attempted_s, before, barren, used_s, record, ended_at, time_ms = db.execute(
        "select state, reason, lease_until_s, boot_id, attempted_s, recorded, barren, used_s, record, ended_at, "
        "request_time_ms from runs where run_id = ?",
        (run_id,),
    ).fetchone()
    now_s = holder.boot()
    dead = state == RunState.RUNNING
    if dead:
        same_boot = boot_id == holder.boot_id and until_s is not None
        ended_at = now - (now_s - until_s) if same_boot else None
        if until_s is not None and attempted_s is not None:
            # Up to the last renewal: nobody knows what came after.
            used_s += max(0.0, until_s - holder.ttl_s - attempted_s)
        close_attempt(db, run_id, ended_at, "lease_lost")
        _CLOSE_CHILDREN.run(db, (run_id, now if ended_at is None else ended_at))
    elif state == RunState.ENDED:
        close_attempt(db, run_id, ended_at, reason)
    elif state == RunState.PARKED:
        used_s = float((orjson.loads(record) if record else {}).get("duration_s") or used_s)
        close_attempt(db, run_id, ended_at, reason or "parked")
    key = int(time_ms).to_bytes(8, "big"), (int(time_ms) + 1).to_bytes(8, "big")
    recorded = int(_RECORDED.run(db, (run_id, *key)).fetchone()[0])
    barren = wears_out(barren, dead=dead, recorded_before=before, recorded=recorded)
    lease = (holder.owner, holder.boot_id, now_s + holder.ttl_s, now_s, now)
    row: tuple[Any, ...] = _REOPEN.run(db, (run_id, *lease, recorded, barren, used_s)).fetchall()[0]
    return row


def close_attempt(db: sqlite3.Connection, run_id: str, now: float | None, ended_as: str) -> None:
    """Write down an attempt that is over, before its row says otherwise."""
    _CLOSE_ATTEMPT.run(db, (run_id, now, ended_as))


def _inherited_time(db: sqlite3.Connection, run: NewRun) -> int | None:
    """A child's effect keys begin with the time of its root's request."""
    if run.root_run_id == run.run_id:
        return None
    root = db.execute("select request_time_ms from runs where run_id = ?", (run.root_run_id,)).fetchone()
    return None if root is None else int(root[0])


def insert(
    db: sqlite3.Connection,
    run: NewRun,
    task: bytes | None,
    holder: Holder,
    now: float,
    time_ms: int,
    state: RunState = RunState.RUNNING,
) -> tuple[Any, ...]:
    """Insert the row of a new run: ours, or nobody's where it is queued."""
    now_s = holder.boot()
    who: tuple[Any, ...] = (run.fence, 1, holder.owner, holder.boot_id, now_s + holder.ttl_s, now_s, now)
    if state is RunState.QUEUED:
        who = (0, 0, None, None, None, None, None)
    identity = (run.run_id, run.tenant_id, run.request_id, run.root_run_id, run.path, run.agent, time_ms)
    rows: list[tuple[Any, ...]] = db.execute(
        _INSERT_RUN, (*identity, run.payload_hash, str(state), *who, now, task)
    ).fetchall()
    return rows[0]


def end(
    db: sqlite3.Connection,
    run_id: str,
    fence: int,
    state: str,
    reason: str,
    now: float,
    record: bytes,
    output: bytes | None,
) -> bool:
    """Write the outcome of a running run; return whether this owner could."""
    changed = db.execute(
        "update runs set state = ?, reason = ?, ended_at = ?, record = ?, output = ?, "
        "lease_until_s = null where run_id = ? and fence = ? and state = 'running'",
        (state, reason, now, record, output, run_id, fence),
    ).rowcount
    return changed == 1


def one_run(db: sqlite3.Connection, run_id: str) -> tuple[Any, ...] | None:
    """Return the row of one run."""
    row: tuple[Any, ...] | None = db.execute(_ONE, (run_id,)).fetchone()
    return row


def list_runs(
    db: sqlite3.Connection, tenant_id: str | None, reason: str | None, state: str | None, limit: int
) -> list[tuple[Any, ...]]:
    """Return rows, the newest first."""
    given = {"tenant_id": tenant_id, "reason": reason, "state": state}
    wanted = {name: value for name, value in given.items() if value is not None}
    where = " and ".join(f"{name} = :{name}" for name in wanted) or "true"
    return db.execute(
        f"select {_COLUMNS} from runs where {where} order by id desc limit :limit",  # noqa: S608 - names are ours
        {**wanted, "limit": limit},
    ).fetchall()


def read_run(row: tuple[Any, ...], seal: Seal, holder: Holder, task: bytes | None = None) -> RunRow:
    """Return the row as a value, its output opened; an output that cannot be opened is kept, but None."""
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
        started_at=row[12],
        ended_at=row[13],
        record=None if row[14] is None else orjson.loads(row[14]),
        output=output,
        output_kept=row[15] is not None,
        lease_left_s=left_s(row[16], row[17], holder.boot(), holder.boot_id),
        barren=row[18],
        used_s=row[19],
        spent_usd=row[20],
        spent_tokens=row[21],
        task=task,
    )
