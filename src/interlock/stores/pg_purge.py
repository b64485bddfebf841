"""Forgets in slices on PostgreSQL: what is old enough is found first, and looked at again inside each transaction.

A slice is one short transaction about one run; writers beside it wait for nothing but the rows of that very
request. A run with many rows is gone on with in the next slice: its own row is changed last, so that an
interrupted purge finds it again. Where a request has more claims than one slice takes, the request goes first,
so that it can never be begun again with a part of its claims missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from interlock.journal.retention import Ages, Fate, Purged, Standing, fate
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_text import write_text
from interlock.stores.tombstone import HEAD, tombstone_of

__all__ = ["PgRetention"]

_WINDOW = 200
SLICE_ROWS = 2_000

_HAS_CONTENT = f"""(r.task is not null or r.output is not null or r.record is null
  or left(r.record::text, {len(HEAD)}) <> '{HEAD.decode()}')"""

_MINE = """key >= int8send(r.request_time_ms) and key < int8send(r.request_time_ms + 1)
  and tenant_id = r.tenant_id and request_id = r.request_id"""

# A run, and how its request stands: by the runs that stand for it and its children at present (those they replaced
# have ended), and by its claims.
_LOOK = f"""
select r.run_id, r.tenant_id, r.request_id, r.request_time_ms, r.state = 'ended' and coalesce(c.ended, true),
  greatest(r.started_at, r.ended_at, c.last_s, j.last_s), {_HAS_CONTENT}, c.is_current, j.claims, j.doubt
from {{s}}.runs r cross join lateral (
  select bool_and(c.state = 'ended') as ended, max(greatest(c.started_at, c.ended_at)) as last_s,
    coalesce(bool_or(q.path = '' and q.run_id = r.run_id), false) as is_current
  from {{s}}.requests q join {{s}}.runs c on c.run_id = q.run_id
  where (q.tenant_id, q.request_id, q.request_time_ms) = (r.tenant_id, r.request_id, r.request_time_ms)) as c
cross join lateral (
  select count(*) as claims, max(greatest(first_sent_at, last_sent_at, settled_at)) as last_s,
    coalesce(bool_or(open), false) as doubt from {{s}}.journal where {_MINE}) as j"""

_BOUNDS = "select coalesce(min(id), 1), coalesce(max(id), 0), {s}.now_s() from {s}.runs"
_FIND = f"""{_LOOK} where r.id > $1 and r.id <= $2 and r.started_at <= $3 and ($5::text is null or r.tenant_id = $5)
  and (r.started_at <= $4 or {_HAS_CONTENT}) order by r.id"""
_AGAIN = f"{_LOOK} where r.run_id = $1"
_LOCK = """select 1 from {s}.requests q join {s}.runs r on (q.tenant_id, q.request_id, q.request_time_ms)
  = (r.tenant_id, r.request_id, r.request_time_ms) where r.run_id = $1 for update"""

_DROP = {
    table: f"""delete from {{s}}.{table}
      where ctid = any(array(select ctid from {{s}}.{table} where run_id = $1 limit $2))"""
    for table in ("turns", "results", "calls")
}
_DROP_RESULTS = f"""update {{s}}.journal set result = null where key = any(array(
  select key from {{s}}.journal, (select * from {{s}}.runs where run_id = $1) as r
  where {_MINE.replace("tenant_id =", "journal.tenant_id =").replace("and request_id =", "and journal.request_id =")}
    and result is not null limit $2))"""
# A question still open for a person keeps its words.
_DROP_WORDS = """update {s}.approvals a set rendered = '' from {s}.runs r where r.run_id = $1 and a.run_id = r.run_id
  and a.tenant_id = r.tenant_id and a.state <> 'pending'"""
_RECORD = "select record::text from {s}.runs where run_id = $1"
_BURY = "update {s}.runs set task = null, output = null, record = $2::json where run_id = $1"

_REMOVE_REQUEST = """delete from {s}.requests q using {s}.runs r where r.run_id = $1
  and (q.tenant_id, q.request_id, q.request_time_ms) = (r.tenant_id, r.request_id, r.request_time_ms)
returning q.path"""
_REMOVE_CLAIMS = _DROP_RESULTS.replace("update {s}.journal set result = null", "delete from {s}.journal").replace(
    "and result is not null ", ""
)
_REMOVE_RUN = (
    """delete from {s}.approvals a using {s}.runs r
      where r.run_id = $1 and a.run_id = r.run_id and a.tenant_id = r.tenant_id""",
    "delete from {s}.attempts where run_id = $1",
    "delete from {s}.runs where run_id = $1",
)


class _Seen(NamedTuple):
    """A run, and how its request stands. `current`: it is the request's present run."""

    run_id: str
    standing: Standing
    current: bool
    claims: int


class PgRetention:
    """Port `Retention`.

    Args:
        slice_rows: Most rows of one table that one transaction takes out.
    """

    def __init__(self, reader: PgReader, schema: str, slice_rows: int = SLICE_ROWS) -> None:
        self._reader = reader
        self._schema = schema
        self._slice_rows = slice_rows

    async def purge(self, ages: Ages, *, tenant_id: str | None = None, dry_run: bool = False) -> Purged:
        """See `Retention`."""
        done = Purged()
        if ages.content_s is None:
            return done
        ((first, last, now),) = await self._reader.fetch(self._text(_BOUNDS))
        keys_before = None if ages.keys_s is None else now - ages.keys_s
        tenant = None if tenant_id is None else write_text(tenant_id)
        for after in range(first - 1, last, _WINDOW):
            upto = min(after + _WINDOW, last)
            rows = await self._reader.fetch(self._text(_FIND), after, upto, now - ages.content_s, keys_before, tenant)
            for seen in map(_seen, rows):
                end = fate(seen.standing, ages, now)
                if end in {Fate.DROP_CONTENT, Fate.REMOVE} and not dry_run:
                    done = await self._forget(seen.run_id, ages, now, done)
                else:
                    done = _counted(done, end, seen, seen.claims)
        return done

    async def forget(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Drop the content of these runs, whatever their age; return those whose content must stay, and why."""
        ages, kept = Ages(0.0, None, 0.0), dict[str, str]()
        for run_id in run_ids:
            name = write_text(run_id)
            await self._forget(name, ages, math.inf, Purged())
            for seen in map(_seen, await self._reader.fetch(self._text(_AGAIN), name)):
                end = fate(seen.standing, ages, math.inf)
                if end not in {Fate.TOMBSTONE, Fate.REMOVE}:
                    kept[run_id] = "it has an open doubt" if end is Fate.DOUBT else "it is not over"
        return kept

    async def _forget(self, run_id: str, ages: Ages, now: float, done: Purged) -> Purged:
        whole = False
        while not whole:

            async def query(db: Any, so_far: Purged = done) -> tuple[bool, Purged]:
                return await self._slice(db, run_id, ages, now, so_far)

            whole, done = await self._reader.ask(query, repeat=False)
        return done

    # Inside one transaction.

    async def _slice(self, db: Any, run_id: str, ages: Ages, now: float, done: Purged) -> tuple[bool, Purged]:
        """Forget as much of a run as one transaction may; return whether nothing is left to do."""
        done = replace(done, slices=done.slices + 1)
        await db.execute(self._text(_LOCK), run_id)
        row = await db.fetchrow(self._text(_AGAIN), run_id)
        if row is None:
            return True, done
        seen = _seen(row)
        end = fate(seen.standing, ages, now)
        if end not in {Fate.DROP_CONTENT, Fate.REMOVE}:
            return True, done
        for text in (*_DROP.values(), _DROP_RESULTS):
            if await self._rows(db, text, run_id) == self._slice_rows:
                return False, done
        if end is Fate.DROP_CONTENT:
            await db.execute(self._text(_DROP_WORDS), run_id)
            await db.execute(
                self._text(_BURY), run_id, tombstone_of(await db.fetchval(self._text(_RECORD), run_id)).decode()
            )
            return True, _counted(done, end, seen, 0)
        return await self._remove(db, run_id, done)

    async def _remove(self, db: Any, run_id: str, done: Purged) -> tuple[bool, Purged]:
        paths = [row[0] for row in await db.fetch(self._text(_REMOVE_REQUEST), run_id)]
        claims = await self._rows(db, _REMOVE_CLAIMS, run_id)
        done = replace(done, requests=done.requests + paths.count(""), claims=done.claims + claims)
        if claims == self._slice_rows:
            return False, done
        for text in _REMOVE_RUN:
            await db.execute(self._text(text), run_id)
        return True, done

    async def _rows(self, db: Any, text: str, run_id: str) -> int:
        """Run a statement over at most a slice of rows; return how many there were."""
        status: str = await db.execute(self._text(text), run_id, self._slice_rows)
        return int(status.rpartition(" ")[2])

    def _text(self, text: str) -> str:
        return text.replace("{s}", self._schema)


def _seen(row: Any) -> _Seen:
    run_id, _, _, _, finished, last_s, content, current, claims, doubt = row
    return _Seen(run_id, Standing(finished, doubt, last_s, content), current, claims)


def _counted(done: Purged, end: Fate, seen: _Seen, claims: int) -> Purged:
    """Count a request once: by the run that stands for it at present."""
    if not seen.current:
        return done
    if end is Fate.REMOVE:
        return replace(done, requests=done.requests + 1, claims=done.claims + claims)
    field = {Fate.DOUBT: "doubts", Fate.UNFINISHED: "unfinished", Fate.DROP_CONTENT: "content"}.get(end)
    return done if field is None else replace(done, **{field: getattr(done, field) + 1})
