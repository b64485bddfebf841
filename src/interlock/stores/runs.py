"""The statements of runs: one request is worked on by one run at a time, and its outcome is written once."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from interlock.journal.store import NewRun, RunRow, RunState
from interlock.stores.seal import Seal, Unreadable

__all__ = ["begin", "end", "list_runs", "one_run", "read_run"]

_COLUMNS = """run_id, tenant_id, request_id, agent, state, reason, payload_hash, fence, attempts, request_time_ms,
  root_run_id, path, started_at, ended_at, record, output"""

_ONE = f"select {_COLUMNS} from runs where run_id = ?"  # noqa: S608 - our own column names

_INSERT_RUN = f"""insert into runs (run_id, tenant_id, request_id, root_run_id, path, agent, request_time_ms,
  payload_hash, state, fence, attempts, owner, started_at, task)
values (?, ?, ?, ?, ?, ?, ?, ?, 'running', 1, 1, ?, ?, ?) returning {_COLUMNS}"""  # noqa: S608

_REOPEN = f"""update runs set state = 'running', reason = null, ended_at = null, fence = fence + 1,
  attempts = attempts + 1, owner = ? where run_id = ? returning {_COLUMNS}"""  # noqa: S608


def begin(
    db: sqlite3.Connection, run: NewRun, task: bytes | None, owner: str, now: float, retry: bool, resume: bool
) -> tuple[bool, tuple[Any, ...]]:
    """Insert the run, or take the standing one over where that is asked for; return (ours, the row)."""
    identity = (run.tenant_id, run.request_id, run.path)
    standing = db.execute(
        "select q.request_time_ms, r.run_id, r.state from requests q "
        "left join runs r on r.run_id = q.run_id where q.tenant_id = ? and q.request_id = ? and q.path = ?",
        identity,
    ).fetchone()
    if standing is None:
        time_ms = _inherited_time(db, run) or int(now * 1000)
        db.execute("insert into requests values (?, ?, ?, ?, ?)", (*identity, time_ms, run.run_id))
        return True, _insert(db, run, task, owner, now, time_ms)
    time_ms, run_id, state = standing
    # Only the owner of its root asks for a child: what stands is of an attempt that is over.
    child = run.path != "" and run_id != run.run_id
    if run_id is None or child or (retry and state in {RunState.ENDED, RunState.PARKED}):
        db.execute("update runs set state = 'ended', ended_at = ? where run_id = ? and state <> 'ended'", (now, run_id))
        db.execute(
            "update requests set run_id = ? where tenant_id = ? and request_id = ? and path = ?",
            (run.run_id, *identity),
        )
        return True, _insert(db, run, task, owner, now, time_ms)
    if resume and state in {RunState.PARKED, RunState.QUEUED}:
        return True, db.execute(_REOPEN, (owner, run_id)).fetchall()[0]
    return False, db.execute(_ONE, (run_id,)).fetchone()


def _inherited_time(db: sqlite3.Connection, run: NewRun) -> int | None:
    """A child's effect keys begin with the time of its root's request."""
    if run.root_run_id == run.run_id:
        return None
    root = db.execute("select request_time_ms from runs where run_id = ?", (run.root_run_id,)).fetchone()
    return None if root is None else int(root[0])


def _insert(
    db: sqlite3.Connection, run: NewRun, task: bytes | None, owner: str, now: float, time_ms: int
) -> tuple[Any, ...]:
    rows: list[tuple[Any, ...]] = db.execute(
        _INSERT_RUN,
        (
            run.run_id,
            run.tenant_id,
            run.request_id,
            run.root_run_id,
            run.path,
            run.agent,
            time_ms,
            run.payload_hash,
            owner,
            now,
            task,
        ),
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
        "update runs set state = ?, reason = ?, ended_at = ?, record = ?, output = ?, owner = null, "
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


def read_run(row: tuple[Any, ...], seal: Seal) -> RunRow:
    """Return the row as a value, its output opened; an output that cannot be opened is kept, but None."""
    try:
        output = seal.open(row[15], row[0].encode())
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
    )
