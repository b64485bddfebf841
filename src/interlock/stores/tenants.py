"""What tenants use over all their runs: dollars by day, and places for runs under way."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection

import orjson

from interlock.stores.owner import is_alive
from interlock.stores.reader import Reader
from interlock.stores.writer import Writer

__all__ = ["SqliteTenants"]

_SPEND = """insert into tenant_spend (tenant_id, day, usd) values (?, ?, ?)
on conflict do update set usd = max(0, usd + excluded.usd)"""


class SqliteTenants:
    """Port `TenantStore`."""

    def __init__(self, writer: Writer, reader: Reader, owner: str) -> None:
        self._writer = writer
        self._reader = reader
        self._owner = owner

    async def reserve(self, tenant_id: str, day: str, usd: float, cap_usd: float) -> bool:
        """See `TenantStore`."""
        reserved: bool = await self._writer.submit(_reserve, tenant_id, day, usd, cap_usd)
        return reserved

    def adjust_soon(self, tenant_id: str, day: str, usd: float) -> None:
        """See `TenantStore`."""
        self._writer.later(_adjust, tenant_id, day, usd)

    async def enter(self, tenant_id: str, run_id: str, cap: int) -> bool:
        """See `TenantStore`."""
        entered: bool = await self._writer.submit(_enter, tenant_id, run_id, self._owner, cap)
        return entered

    async def places(self, tenant_ids: Collection[str]) -> dict[str, int]:
        """See `TenantStore`."""
        taken = await self._reader.read(_places, orjson.dumps(list(tenant_ids)).decode())
        living = {owner: is_alive(owner) for owner in {owner for _, owner in taken}}
        return Counter(tenant_id for tenant_id, owner in taken if living[owner])

    def leave_soon(self, tenant_id: str, run_id: str) -> None:
        """See `TenantStore`."""
        self._writer.later(_leave, tenant_id, run_id)


def _reserve(db: sqlite3.Connection, tenant_id: str, day: str, usd: float, cap_usd: float) -> bool:
    row = db.execute("select usd from tenant_spend where tenant_id = ? and day = ?", (tenant_id, day)).fetchone()
    spent = 0.0 if row is None else float(row[0])
    if spent + usd > cap_usd or (not usd and spent >= cap_usd):
        return False
    _adjust(db, tenant_id, day, usd)
    return True


def _adjust(db: sqlite3.Connection, tenant_id: str, day: str, usd: float) -> None:
    db.execute(_SPEND, (tenant_id, day, usd))


def _enter(db: sqlite3.Connection, tenant_id: str, run_id: str, owner: str, cap: int) -> bool:
    taken = db.execute("select run_id, owner from tenant_runs where tenant_id = ?", (tenant_id,)).fetchall()
    if any(run == run_id for run, _ in taken):
        return True
    gone = {other for _, other in taken if not is_alive(other)}
    for other in gone:
        db.execute("delete from tenant_runs where tenant_id = ? and owner = ?", (tenant_id, other))
    if sum(other not in gone for _, other in taken) >= cap:
        return False
    db.execute("insert into tenant_runs (tenant_id, run_id, owner) values (?, ?, ?)", (tenant_id, run_id, owner))
    return True


def _places(db: sqlite3.Connection, tenant_ids: str) -> list[tuple[str, str]]:
    return db.execute(
        "select tenant_id, owner from tenant_runs where tenant_id in (select value from json_each(?))", (tenant_ids,)
    ).fetchall()


def _leave(db: sqlite3.Connection, tenant_id: str, run_id: str) -> None:
    db.execute("delete from tenant_runs where tenant_id = ? and run_id = ?", (tenant_id, run_id))
