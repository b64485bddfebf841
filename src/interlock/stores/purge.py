"""Forgets in slices: what is old enough is found beside the writer, and looked at again inside each transaction.

A slice is one short transaction: it ends after so many rows, so many bytes, or a few milliseconds, whichever
comes first, and whoever waits to write goes before the next one. A run that does not fit into one slice is gone
on with in the next: its row is changed last, so that an interrupted purge finds it again. A request goes in one
transaction with its claims; where they are too many for one, the request goes first, so that it can never be
begun again with a part of its claims missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from interlock.core.clock import Clock
from interlock.journal.retention import Ages, Fate, Purged, Standing, fate
from interlock.stores.database import connect
from interlock.stores.reader import Reader
from interlock.stores.tombstone import HEAD, tombstone_of
from interlock.stores.writer import Writer

__all__ = ["SliceOptions", "SqliteRetention"]

_WINDOW = 200
# Slices between two moves of the log: well before a commit would move it.
_LOG_EVERY = 8

_HAS_CONTENT = "(task is not null or output is not null or record is null or substr(record, 1, 14) <> :tombstone)"

_OLD_RUNS = f"""
select run_id, tenant_id, request_id, request_time_ms from runs
where id > :after and id <= :upto and started_at <= :content_before and (:tenant_id is null or tenant_id = :tenant_id)
  and (started_at <= :keys_before or {_HAS_CONTENT}) order by id"""  # noqa: S608 - our own words

_RUN = f"""
select state = 'ended', max(started_at, coalesce(ended_at, started_at)), {_HAS_CONTENT},
  coalesce(length(task), 0) + coalesce(length(output), 0) + coalesce(length(record), 0)
from runs where run_id = :run_id"""  # noqa: S608

# The runs that stand for the request and its children at present; those they replaced have ended.
_CURRENT = """
select min(c.state = 'ended'), max(max(c.started_at, coalesce(c.ended_at, c.started_at))),
  max(q.path = '' and q.run_id = :run_id)
from requests q join runs c on c.run_id = q.run_id
where q.tenant_id = :tenant_id and q.request_id = :request_id and q.request_time_ms = :time_ms"""

_MINE = "key >= :low and key < :high and tenant_id = :tenant_id and request_id = :request_id"

_CLAIMS = f"""
select count(*), max(max(first_sent_at, last_sent_at, coalesce(settled_at, 0.0))),
  max(state in ('intent', 'in_doubt')) from journal where {_MINE}"""  # noqa: S608

# Content beside the run's row: table, columns of the primary key, columns of size.
_CONTENT = (
    ("turns", ("run_id", "path", "turn"), ("reply",)),
    ("results", ("run_id", "path", "turn", "tool", "args_digest", "nth"), ("value", "error")),
    ("calls", ("id",), ("entry",)),
)


@dataclass(frozen=True, slots=True)
class SliceOptions:
    """How much one transaction takes on.

    Attributes:
        rows, size_bytes: Most rows, and bytes of content, of one slice; one row is never divided.
        hold_s: When it stops, whatever is left: well under what writers beside it may be made to wait.
    """

    rows: int = 600
    size_bytes: int = 500_000
    hold_s: float = 0.003


class _Old(NamedTuple):
    """A run that may be forgotten, and what its record becomes."""

    run_id: str
    tenant_id: str
    request_id: str
    time_ms: int
    tombstone: bytes = HEAD + b"}"

    def names(self) -> dict[str, Any]:
        """Return the parameters of every statement about it."""
        return {
            "run_id": self.run_id,
            "tenant_id": self.tenant_id,
            "request_id": self.request_id,
            "time_ms": self.time_ms,
            "low": self.time_ms.to_bytes(8, "big"),
            "high": (self.time_ms + 1).to_bytes(8, "big"),
            "tombstone": HEAD,
        }


class _Seen(NamedTuple):
    """How a run's request stands, and how large it is. `current`: it is the request's present run."""

    standing: Standing
    current: bool
    claims: int
    row_bytes: int


class _Slice:
    """What one transaction may still take on."""

    def __init__(self, options: SliceOptions, clock: Clock) -> None:
        self.rows = options.rows
        self.size_bytes = options.size_bytes
        self.fresh = True
        self._clock = clock
        self._until_s = clock.monotonic() + options.hold_s

    @property
    def spent(self) -> bool:
        """Whether nothing more should be begun."""
        return self.rows <= 0 or self.size_bytes <= 0 or self._clock.monotonic() > self._until_s

    def take(self, rows: int, size_bytes: int = 0) -> None:
        """Count what was done."""
        self.rows -= rows
        self.size_bytes -= size_bytes
        self.fresh = False


class SqliteRetention:
    """Port `Retention`.

    Args:
        path: Of the file, whose log is moved into it beside the writers; None for one in memory.
    """

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        clock: Clock,
        path: str | None = None,
        options: SliceOptions = SliceOptions(),
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._path = path
        self._options = options

    async def purge(self, ages: Ages, *, tenant_id: str | None = None, dry_run: bool = False) -> Purged:
        """See `Retention`."""
        done = Purged()
        if ages.content_s is None:
            return done
        now = self._clock.wall()
        first, last = await self._reader.read(_bounds)
        for after in range(first - 1, last, _WINDOW):
            facts = {
                "after": after,
                "upto": min(after + _WINDOW, last),
                "content_before": now - ages.content_s,
                "keys_before": None if ages.keys_s is None else now - ages.keys_s,
                "tenant_id": tenant_id,
                "tombstone": HEAD,
            }
            kept, old = await self._reader.read(_find, facts, ages, now, done, dry_run)
            done = await self._forget(old, ages, now, kept)
            await self._clock.sleep(0.0)
        return done

    async def forget(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Drop the content of these runs, whatever their age; return those whose content must stay, and why."""
        ages, kept = Ages(0.0, None, 0.0), dict[str, str]()
        for run_id in run_ids:
            old, end = await self._reader.read(_stands, run_id, ages)
            if old is not None and end is Fate.DROP_CONTENT:
                await self._forget([old], ages, math.inf, Purged())
                old, end = await self._reader.read(_stands, run_id, ages)
            if old is not None and end not in {Fate.TOMBSTONE, Fate.REMOVE}:
                kept[run_id] = "it has an open doubt" if end is Fate.DOUBT else "it is not over"
        return kept

    async def _forget(self, old: Sequence[_Old], ages: Ages, now: float, done: Purged) -> Purged:
        at = 0
        while at < len(old):
            finished, done = await self._writer.submit(_slice, old[at:], ages, now, done, self._options, self._clock)
            at += finished
            if self._path is not None and done.slices % _LOG_EVERY == 0:
                await asyncio.to_thread(_move_log, self._path)
        return done


def _move_log(path: str) -> None:
    """Move the log into the file, holding nobody up: else a commit that finds it long does, in its turn."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path, patience_s=0.0)) as db:
        db.execute("pragma wal_checkpoint(passive)").fetchall()


def _bounds(db: sqlite3.Connection) -> tuple[int, int]:
    first, last = db.execute("select (select min(id) from runs), (select max(id) from runs)").fetchone()
    return (1, 0) if first is None else (int(first), int(last))


def _find(
    db: sqlite3.Connection, facts: dict[str, Any], ages: Ages, now: float, done: Purged, dry_run: bool
) -> tuple[Purged, list[_Old]]:
    """Return the runs of a window that may be forgotten, and count the requests that are kept."""
    found: list[_Old] = []
    for row in db.execute(_OLD_RUNS, facts).fetchall():
        old = _Old(*row)
        seen = _look(db, old)
        if seen is None:
            continue
        end = fate(seen.standing, ages, now)
        if seen.current and end is Fate.DOUBT:
            done = replace(done, doubts=done.doubts + 1)
        elif seen.current and end is Fate.UNFINISHED:
            done = replace(done, unfinished=done.unfinished + 1)
        elif end in {Fate.DROP_CONTENT, Fate.REMOVE}:
            if dry_run:
                done = _counted(done, end, seen)
            else:
                found.append(old._replace(tombstone=_tombstone(db, old.run_id)))
    return done, found


def _stands(db: sqlite3.Connection, run_id: str, ages: Ages) -> tuple[_Old | None, Fate]:
    """Return a run and what would become of it if it were as old as can be."""
    row = db.execute("select run_id, tenant_id, request_id, request_time_ms from runs where run_id = ?", (run_id,))
    found = row.fetchone()
    old = None if found is None else _Old(*found)
    seen = None if old is None else _look(db, old)
    if old is None or seen is None:
        return None, Fate.TOMBSTONE
    return old._replace(tombstone=_tombstone(db, run_id)), fate(seen.standing, ages, math.inf)


def _look(db: sqlite3.Connection, old: _Old) -> _Seen | None:
    """Return how the run's request stands; None where the run is gone."""
    names = old.names()
    run = db.execute(_RUN, names).fetchone()
    if run is None:
        return None
    ended, last_s, content, row_bytes = run
    all_ended, runs_last_s, current = db.execute(_CURRENT, names).fetchone()
    claims, claims_last_s, doubt = db.execute(_CLAIMS, names).fetchone()
    standing = Standing(
        finished=bool(ended) and all_ended in {None, 1},
        doubt=bool(doubt),
        last_s=max(last_s, runs_last_s or last_s, claims_last_s or last_s),
        content=bool(content),
    )
    return _Seen(standing, bool(current), claims, row_bytes)


def _tombstone(db: sqlite3.Connection, run_id: str) -> bytes:
    """Return what stays of the run's record. Read beside the writer: a record may be large, and is final."""
    row = db.execute("select record from runs where run_id = ?", (run_id,)).fetchone()
    return tombstone_of(None if row is None else row[0])


def _counted(done: Purged, end: Fate, seen: _Seen) -> Purged:
    """Count a request once: by the run that stands for it at present."""
    if not seen.current:
        return done
    if end is Fate.REMOVE:
        return replace(done, requests=done.requests + 1, claims=done.claims + seen.claims)
    return replace(done, content=done.content + 1)


# Inside one transaction of the writer.


def _slice(
    db: sqlite3.Connection,
    olds: Sequence[_Old],
    ages: Ages,
    now: float,
    done: Purged,
    options: SliceOptions,
    clock: Clock,
) -> tuple[int, Purged]:
    """Forget as many of the runs, in their order, as one transaction may; return how many are finished with."""
    slice_ = _Slice(options, clock)
    done = replace(done, slices=done.slices + 1)
    finished = 0
    for old in olds:
        if slice_.spent and not slice_.fresh:
            break
        seen = _look(db, old)
        end = None if seen is None else fate(seen.standing, ages, now)
        if seen is not None and end in {Fate.DROP_CONTENT, Fate.REMOVE}:
            if not (_drop_rows(db, old, slice_) and _drop_results(db, old, slice_)):
                break
            if end is Fate.DROP_CONTENT:
                if not _bury(db, old, seen, slice_):
                    break
                done = _counted(done, end, seen)
            else:
                removed = _remove(db, old, seen, slice_)
                done = replace(done, requests=done.requests + removed.requests, claims=done.claims + removed.claims)
                if not removed.whole:
                    break
        slice_.take(1)
        finished += 1
    return finished, done


def _drop_rows(db: sqlite3.Connection, old: _Old, slice_: _Slice) -> bool:
    """Drop what stands beside the run's row; return whether nothing of it is left."""
    for table, key, sizes in _CONTENT:
        size = " + ".join(f"coalesce(length({column}), 0)" for column in sizes)
        where = " and ".join(f"{column} = ?" for column in key)
        while True:
            if slice_.spent and not slice_.fresh:
                return False
            rows = db.execute(
                f"select {size}, {', '.join(key)} from {table} where run_id = ? limit ?",  # noqa: S608 - our own names
                (old.run_id, max(1, slice_.rows)),
            ).fetchall()
            if not rows:
                break
            for row in rows:
                db.execute(f"delete from {table} where {where}", row[1:])  # noqa: S608
                slice_.take(1, row[0])
                if slice_.spent:
                    break
    return True


def _drop_results(db: sqlite3.Connection, old: _Old, slice_: _Slice) -> bool:
    """Drop the results of claims, each of which may be large; return whether none is left."""
    kept = db.execute(
        f"select length(result), id from journal where {_MINE} and result is not null",  # noqa: S608
        old.names(),
    ).fetchall()
    for size, row_id in kept:
        if slice_.spent and not slice_.fresh:
            return False
        db.execute("update journal set result = null where id = ?", (row_id,))
        slice_.take(1, size)
    return True


def _bury(db: sqlite3.Connection, old: _Old, seen: _Seen, slice_: _Slice) -> bool:
    """Drop, last of all, what the run's own row holds; return whether there was room for it."""
    if not slice_.fresh and (slice_.spent or seen.row_bytes > slice_.size_bytes):
        return False
    names = old.names()
    # A question still open for a person keeps its words.
    db.execute(
        "update approvals set rendered = '' where effect_key >= :low and effect_key < :high and run_id = :run_id "
        "and state <> 'pending'",
        names,
    )
    db.execute("update runs set task = null, output = null, record = ? where run_id = ?", (old.tombstone, old.run_id))
    slice_.take(1, seen.row_bytes)
    return True


class _Removed(NamedTuple):
    whole: bool
    requests: int = 0
    claims: int = 0


def _remove(db: sqlite3.Connection, old: _Old, seen: _Seen, slice_: _Slice) -> _Removed:
    """Remove the request with its claims, and then the run's row."""
    if not slice_.fresh and (slice_.spent or seen.claims > slice_.rows or seen.row_bytes > slice_.size_bytes):
        return _Removed(whole=False)  # together, in a transaction that has room for all of it
    names = old.names()
    roots = db.execute(
        "select count(*) from requests where tenant_id = :tenant_id and request_id = :request_id "
        "and request_time_ms = :time_ms and path = ''",
        names,
    ).fetchone()[0]
    db.execute(
        "delete from requests where tenant_id = :tenant_id and request_id = :request_id and request_time_ms = :time_ms",
        names,
    )
    claims = db.execute(
        f"delete from journal where id in (select id from journal where {_MINE} limit :rows)",  # noqa: S608
        {**names, "rows": max(1, slice_.rows)},
    ).rowcount
    slice_.take(claims + 1)
    if claims < seen.claims:
        return _Removed(whole=False, requests=roots, claims=claims)
    db.execute("delete from approvals where effect_key >= :low and effect_key < :high and run_id = :run_id", names)
    db.execute("delete from attempts where run_id = ?", (old.run_id,))
    db.execute("delete from runs where run_id = ?", (old.run_id,))
    slice_.take(1, seen.row_bytes)
    return _Removed(whole=True, requests=roots, claims=claims)
