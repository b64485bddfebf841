"""How a SQLite file is kept: read back from the connection that writes, not taken from what was asked for."""

from __future__ import annotations

import sqlite3
from typing import Any

from interlock.core.clock import Clock
from interlock.journal.health import StoreHealth, StuckRun
from interlock.journal.ownership import left_s
from interlock.stores.database import SCHEMA_VERSION
from interlock.stores.owner import this_boot
from interlock.stores.reader import Reader
from interlock.stores.writer import Writer

__all__ = ["SqliteCheckup"]

_RUNNING = """
select run_id, tenant_id, agent, coalesce(attempted_at, started_at), lease_until_s, boot_id from runs
where state = 'running' order by id"""

# When recent attempts of this boot began, on both clocks: what differs between them was set by somebody.
_BOTH_CLOCKS = """
select attempted_at - attempted_s from runs
where id > (select max(id) from runs) - 1000 and boot_id = ? and attempted_s is not null"""


class SqliteCheckup:
    """Port `Checkup`."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def health(self) -> StoreHealth:
        """See `Checkup`."""
        mode, synchronous, schema = await self._writer.submit(_pragmas)
        running, offsets, newest = await self._reader.read(_times, this_boot())
        wall, boot_s, boot_id = self._clock.wall(), self._clock.boot(), this_boot()
        moved = [(wall - boot_s) - offset for offset in offsets]
        return StoreHealth(
            journal_mode=mode,
            synchronous=synchronous,
            schema=schema,
            known_schema=SCHEMA_VERSION,
            stuck=tuple(
                StuckRun(*row[:4])
                for row in running
                if (left := left_s(row[4], row[5], boot_s, boot_id)) is not None and left <= 0
            ),
            clock_moved_s=max(moved, key=abs, default=0.0),
            ahead_s=max(0.0, (newest or wall) - wall),
        )


def _pragmas(db: sqlite3.Connection) -> tuple[str, int, int]:
    mode, synchronous, schema = (
        db.execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "user_version")
    )
    return str(mode), int(synchronous), int(schema)


def _times(db: sqlite3.Connection, boot_id: str) -> tuple[list[Any], list[float], float | None]:
    running = db.execute(_RUNNING).fetchall()
    offsets = [row[0] for row in db.execute(_BOTH_CLOCKS, (boot_id,))]
    newest = db.execute("select started_at from runs order by id desc limit 1").fetchone()
    return running, offsets, None if newest is None else newest[0]
