"""How a PostgreSQL server keeps a store: read from the server, as this role and this session have it."""

from __future__ import annotations

from typing import Any

from interlock.core.clock import Clock
from interlock.journal.health import ServerHealth, Setting, Standby, StuckRun
from interlock.stores.pg_address import Address
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_schema import SCHEMA_VERSION, SILENT_S
from interlock.stores.pg_takeover import EXPIRED
from interlock.stores.pg_text import read_text
from interlock.stores.pg_time import ServerTime

__all__ = ["PgCheckup"]

_NOW = "select {s}.now_s()"

# As a session has them that asks for nothing: ours asks for synchronous_commit.
_SETTINGS = """select name, reset_val from pg_settings
where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'synchronous_standby_names') order by name"""
_OF_ROLES = """select split_part(word, '=', 2), r.rolname, d.datname
from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase,
  unnest(s.setconfig) as word
where split_part(word, '=', 1) = 'synchronous_commit'
  and (s.setdatabase = 0 or d.datname = current_database()) order by r.rolname, d.datname"""
_STANDBYS = "select application_name, sync_state from pg_stat_replication order by application_name"

_STUCK = f"""select run_id, tenant_id, agent, coalesce(attempted_at, started_at) from {{s}}.runs
where running and {EXPIRED} order by id"""

_REST = """select current_setting('server_version') as version, pg_is_in_recovery() as standby,
  (select max(version) from {s}.migrations) as schema,
  (select count(*) from {s}.writers where seen_at < {s}.now_s() - $1) as silent_writers,
  (select rolname from pg_roles where rolname = current_user) as role,
  (select relrowsecurity from pg_class where oid = '{s}.journal'::regclass) as row_security,
  case when (select rolsuper from pg_roles where rolname = current_user) then 'superuser'
    when (select rolbypassrls from pg_roles where rolname = current_user) then 'bypassrls'
    when not row_security_active('{s}.journal'::regclass) then 'owner' else '' end as exempt,
  (select count(*) from pg_stat_activity where backend_type = 'client backend') as connections,
  current_setting('max_connections')::int as most_connections"""


class PgCheckup:
    """Port `Checkup`."""

    def __init__(self, reader: PgReader, address: Address, time: ServerTime, clock: Clock, ttl_s: float) -> None:
        self._reader = reader
        self._address = address
        self._time = time
        self._clock = clock
        self._now, self._stuck, self._rest = (
            text.replace("{s}", address.schema).replace("{ttl_s}", repr(float(ttl_s))) for text in (_NOW, _STUCK, _REST)
        )

    async def health(self) -> ServerHealth:
        """See `Checkup`."""
        asked_s = self._clock.wall()
        now_s = (await self._reader.fetch(self._now))[0][0]
        ahead_s = now_s - (asked_s + self._clock.wall()) / 2
        rest = dict((await self._reader.fetch(self._rest, SILENT_S))[0])
        others = [
            Setting("synchronous_commit", value, _whose(role, database))
            for value, role, database in await self._reader.fetch(_OF_ROLES)
        ]
        # Where it is set for us, that is its source, and not the server.
        said = {(setting.name, setting.value) for setting in others}
        settings = [
            Setting(name, value, "the server")
            for name, value in await self._reader.fetch(_SETTINGS)
            if (name, value) not in said
        ]
        settings += others
        standbys = await self._reader.fetch(_STANDBYS)
        return ServerHealth(
            settings=tuple(settings),
            standbys=tuple(Standby(name or "", sync or "") for name, sync in standbys),
            clock_ahead_s=ahead_s,
            known_schema=SCHEMA_VERSION,
            stuck=tuple(map(self._stuck_run, await self._reader.fetch(self._stuck))),
            tenant=self._address.tenant_id,
            **rest,
        )

    def _stuck_run(self, row: Any) -> StuckRun:
        run_id, tenant_id, agent, since = map(read_text, row)
        return StuckRun(run_id, tenant_id, agent, self._time.ours(since))


def _whose(role: str | None, database: str | None) -> str:
    where = f"database {database}" if database else ""
    if role is None:
        return where
    return f"role {role} in {where}" if where else f"role {role}"
