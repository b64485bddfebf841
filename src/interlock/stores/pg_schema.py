"""Makes the schema of a PostgreSQL store, step by numbered step, or says why it will not do.

All steps that a store lacks run in one transaction, one process at a time: a store is of one version or of
another, never of half a one. A store that looks like half a one was not made by us, and is left alone.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlock.core.errors import ConfigError
from interlock.stores.pg_address import Address

__all__ = ["SCHEMA_VERSION", "SILENT_S", "Opened", "check_server", "open_schema"]

_SQL = Path(__file__).with_name("sql") / "postgres"
_MIGRATIONS = ("001_initial.sql", "002_tenants.sql", "003_after_crashes.sql", "004_memory.sql", "005_parts.sql")
SCHEMA_VERSION = len(_MIGRATIONS)
_OLDEST_SERVER = 14
_SECRET_BYTES = 32
_TABLES = frozenset(
    {
        "meta",
        "writers",
        "requests",
        "runs",
        "attempts",
        "journal",
        "turns",
        "results",
        "calls",
        "switches",
        "switch_events",
    }
    | {"approvals", "tenant_spend", "tenant_runs"}
    | {"memory_facts", "memory_artifacts", "memory_gone"}
)

# How long a process may be silent before its row goes. One that lives on finds that out by its next write, and makes
# itself a new one, of a higher epoch: what it sent under the old one writes nothing (see `pg_writer.py`). A row that
# a statement still at work holds is left alone.
SILENT_S = 86_400.0
_SWEEP = """delete from {s}.writers where id in (
  select id from {s}.writers where seen_at < {s}.now_s() - $1 limit 1000 for update skip locked)"""

_LOOK = """
select (select array_agg(c.relname::text) from pg_class c join pg_namespace s on s.oid = c.relnamespace
  where s.nspname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f')) as tables"""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a store says of itself when it is opened. `now_s` is the server's clock, Unix seconds.

    Attributes:
        exempt: No policy of row-level security holds this role, not even those that hold the tables' owner.
    """

    secret: bytes
    now_s: float
    exempt: bool


async def open_schema(db: Any, address: Address, *, make: bool = True) -> Opened:
    """Bring the store to this version, once, and return what it says of itself.

    Args:
        make: Otherwise nothing is changed, and a store that is not there, or older, is an error.

    Raises:
        ConfigError: The server is too old, the schema is somebody else's, newer, or incomplete; or the role may
            not do what this store is opened for.
    """
    check_server(db, address)
    version = await _version(db, address)
    if version < SCHEMA_VERSION:
        if not make:
            raise _not_made(address, version)
        await _migrate(db, address)
    await _check_role(db, address)
    if make and address.tenant_id is None:
        await db.execute(_SWEEP.replace("{s}", address.schema), SILENT_S)
    schema = address.schema
    secret = await db.fetchval(f"select value from {schema}.meta where key = 'secret'")
    if secret is None or len(secret) != _SECRET_BYTES:
        raise ConfigError(f"store {address.shown}: its secret is gone: restore it from a backup")
    exempt = await db.fetchval("select not row_security_active($1::regclass)", f"{schema}.memory_facts")
    return Opened(secret, await db.fetchval(f"select {schema}.now_s()"), exempt)


def check_server(db: Any, address: Address) -> None:
    """Raise `ConfigError` if the server is too old, or its database not in UTF8."""
    version = db.get_server_version().major
    if version < _OLDEST_SERVER:
        raise ConfigError(
            f"store {address.shown}: PostgreSQL {version} is too old: {_OLDEST_SERVER} or newer is needed"
        )
    if db.get_settings().server_encoding != "UTF8":
        raise ConfigError(f"store {address.shown}: the database is not in UTF8: create one that is")


async def _version(db: Any, address: Address) -> int:
    """Return the version of what is there; 0 where nothing is."""
    schema = address.schema
    tables = set(await db.fetchval(_LOOK, schema) or ())
    if not tables:
        return 0
    if "migrations" not in tables:
        raise ConfigError(
            f"store {address.shown}: the schema {schema} holds other tables, or a part of a store: restore it from a "
            "backup, or name another with ?schema="
        )
    version: int = await db.fetchval(f"select coalesce(max(version), 0) from {schema}.migrations")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"store {address.shown}: written by a newer Interlock (schema {version}, this one knows {SCHEMA_VERSION}): "
            "upgrade interlock, or name another with ?schema="
        )
    missing = _TABLES - tables
    if missing and version == SCHEMA_VERSION:
        raise ConfigError(
            f"store {address.shown}: half a store: {', '.join(sorted(missing))} missing in the schema {schema}: "
            "restore it from a backup, or name another with ?schema="
        )
    return version


def _not_made(address: Address, version: int) -> ConfigError:
    if version == 0:
        return ConfigError(
            f"store {address.shown}: there is no store in the schema {address.schema}: name another with ?schema=, or "
            "start a worker or a gate on it, which makes it"
        )
    return ConfigError(
        f"store {address.shown}: of an older Interlock (schema {version}, this one knows {SCHEMA_VERSION}): use the "
        "version of interlock that the workers run, or start a worker of this one, which brings the store up"
    )


async def _migrate(db: Any, address: Address) -> None:
    if address.tenant_id is not None:
        raise ConfigError(
            f"store {address.shown}: not made yet, or of an older version: open it once with the role of the workers"
        )
    schema = address.schema
    async with db.transaction():
        await db.execute("select pg_advisory_xact_lock($1)", zlib.crc32(f"interlock {schema}".encode()))
        # Looked at again: another process may have migrated while we waited for the lock.
        done = await _version(db, address)
        if done == 0 and not await db.fetchval("select exists (select from pg_namespace where nspname = $1)", schema):
            await db.execute(f"create schema {schema}")
        await db.execute(f"set local search_path to {schema}, pg_temp")
        if done == 0:
            await db.execute(
                "create table migrations (version integer primary key, name text not null, "
                "applied_at timestamptz not null default now())"
            )
        for version, name in enumerate(_MIGRATIONS[done:], start=done + 1):
            await db.execute(_text(name))
            await db.execute("insert into migrations (version, name) values ($1, $2)", version, name)
        await db.execute("insert into meta values ('secret', $1) on conflict do nothing", os.urandom(_SECRET_BYTES))


async def _check_role(db: Any, address: Address) -> None:
    """A role that sees one tenant must not be taken for one that sees all, nor the other way round."""
    bound: bool = await db.fetchval("select row_security_active($1::regclass)", f"{address.schema}.journal")
    if bound and address.tenant_id is None:
        raise ConfigError(
            f"store {address.shown}: row-level security binds this role to one tenant: add ?tenant=, or use the role "
            "that made the store (the workers')"
        )
    if not bound and address.tenant_id is not None:
        raise ConfigError(
            f"store {address.shown}: ?tenant= needs a role that row-level security binds, and this one sees all "
            "tenants: let another in with `select admit('role')`"
        )


def _text(name: str) -> str:
    return (_SQL / name).read_text(encoding="utf-8")
