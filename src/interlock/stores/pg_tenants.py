"""What tenants use over all their runs, on PostgreSQL: dollars by day, and places for runs under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from interlock.stores.pg_owner import is_gone
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_work import alone
from interlock.stores.pg_writer import PgWriter

__all__ = ["PgTenants"]

# The row of the day is locked from its first statement on: of two processes the second one sees what the first spent.
_RESERVE = """insert into {s}.tenant_spend as t (tenant_id, day, usd) select $1, $2, $3::float8
where $3 <= $4::float8 and ($3 > 0 or $4 > 0)
on conflict (tenant_id, day) do update set usd = t.usd + excluded.usd
where t.usd + excluded.usd <= $4 and (excluded.usd > 0 or t.usd < $4) returning true"""
_ADJUST = """insert into {s}.tenant_spend as t (tenant_id, day, usd) values ($1, $2, greatest(0, $3::float8))
on conflict (tenant_id, day) do update set usd = greatest(0, t.usd + $3)"""

_TAKEN = "select run_id, owner from {s}.tenant_runs where tenant_id = $1"
_PLACES = "select tenant_id, owner from {s}.tenant_runs where tenant_id = any($1::text[])"
_GONE = "delete from {s}.tenant_runs where tenant_id = $1 and owner = any($2::text[])"
_ENTER = "insert into {s}.tenant_runs (tenant_id, run_id, owner) values ($1, $2, $3)"
_LEAVE = "delete from {s}.tenant_runs where tenant_id = $1 and run_id = $2"


class PgTenants:
    """Port `TenantStore`."""

    def __init__(self, writer: PgWriter, reader: PgReader, schema: str, owner: str) -> None:
        self._writer = writer
        self._reader = reader
        self._owner = owner
        self._reserve, self._adjust, self._taken, self._places, self._gone, self._enter, self._leave = (
            text.replace("{s}", schema) for text in (_RESERVE, _ADJUST, _TAKEN, _PLACES, _GONE, _ENTER, _LEAVE)
        )

    async def reserve(self, tenant_id: str, day: str, usd: float, cap_usd: float) -> bool:
        """See `TenantStore`."""

        async def work(db: Any) -> bool:
            return bool(await db.fetchval(self._reserve, write_text(tenant_id), day, usd, cap_usd))

        reserved: bool = await self._writer.submit(alone(work))
        return reserved

    def adjust_soon(self, tenant_id: str, day: str, usd: float) -> None:
        """See `TenantStore`."""

        async def work(db: Any) -> None:
            await db.execute(self._adjust, write_text(tenant_id), day, usd)

        self._writer.later(alone(work))

    async def enter(self, tenant_id: str, run_id: str, cap: int) -> bool:
        """See `TenantStore`."""
        tenant, run = write_text(tenant_id), write_text(run_id)

        async def work(db: Any) -> bool:
            # One process at a time counts a tenant's places.
            await db.execute("select pg_advisory_xact_lock(hashtextextended($1, 1))", tenant)
            taken = await db.fetch(self._taken, tenant)
            if any(other == run for other, _ in taken):
                return True
            gone = {owner for _, owner in taken if is_gone(owner)}
            await db.execute(self._gone, tenant, list(gone))
            if sum(owner not in gone for _, owner in taken) >= cap:
                return False
            await db.execute(self._enter, tenant, run, self._owner)
            return True

        entered: bool = await self._writer.submit(alone(work))
        return entered

    async def places(self, tenant_ids: Collection[str]) -> dict[str, int]:
        """See `TenantStore`."""
        rows = await self._reader.fetch(self._places, list(map(write_text, tenant_ids)))
        gone = {owner: is_gone(owner) for owner in {owner for _, owner in rows}}
        return Counter(read_text(tenant_id) for tenant_id, owner in rows if not gone[owner])

    def leave_soon(self, tenant_id: str, run_id: str) -> None:
        """See `TenantStore`."""

        async def work(db: Any) -> None:
            await db.execute(self._leave, write_text(tenant_id), write_text(run_id))

        self._writer.later(alone(work))
