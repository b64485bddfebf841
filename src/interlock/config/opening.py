"""Opens the store that a URL, the environment or the settings name; the only place that names a store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from interlock.budget.tenants import TenantStore
from interlock.config.sections import Settings
from interlock.config.settings import store_url
from interlock.core.clock import Clock
from interlock.core.errors import ConfigError
from interlock.journal.ownership import Ownership
from interlock.journal.replay import ReplayStore
from interlock.journal.store import Journal, RunStore
from interlock.memory.store import MemoryStore
from interlock.policy.approval import ApprovalStore
from interlock.policy.switches import SwitchStore
from interlock.stores.sqlite import SqliteStore

__all__ = ["Store", "open_store", "stored_bytes"]


class Store(Journal, RunStore, Protocol):
    """An open store, as the parts are wired to it: two ports in itself, and the narrow ones beside them.

    Attributes:
        secret: 32 bytes, made once with the store: the key of every digest in it.
    """

    secret: bytes

    @property
    def switches(self) -> SwitchStore:
        """Kill switches and safe mode."""
        ...

    @property
    def approvals(self) -> ApprovalStore:
        """What people are asked."""
        ...

    @property
    def history(self) -> ReplayStore:
        """What replay answers from."""
        ...

    @property
    def leases(self) -> Ownership:
        """Who works on which run, and the queue."""
        ...

    @property
    def tenants(self) -> TenantStore:
        """What tenants use over all their runs."""
        ...

    @property
    def memory(self) -> MemoryStore:
        """What agents remember and keep."""
        ...

    def trace_soon(self, run_id: str, fence: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Queue trace rows of a run (each with its `seq`), without waiting; they are not written once it is fenced."""
        ...

    async def calls_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return the trace rows of a run, by seq."""
        ...

    async def flush(self) -> None:
        """Return when everything queued so far is durable."""
        ...

    def close(self) -> None:
        """Write what is queued, and close; blocks for as long as that takes."""
        ...


def open_store(
    url: str | None, settings: Settings, *, clock: Clock, environ: Mapping[str, str] = os.environ, make: bool = True
) -> Store:
    """Open the store that `url`, INTERLOCK_STORE or the settings name.

    Args:
        make: Make the schema on a server, or bring it up to this version. Otherwise one that is not there, or older,
            is a `ConfigError`.

    Raises:
        ConfigError: The URL names no store of ours. StoreUnavailable: it cannot be opened.
    """
    address = store_url(settings, url, environ)
    scheme = address.partition("://")[0]
    if scheme == "sqlite" and address.startswith("sqlite:///"):
        return SqliteStore(
            address, clock=clock, replay=settings.replay, lease_ttl_s=settings.lease_ttl_s, environ=environ
        )
    if scheme in {"postgresql", "postgres"}:
        # As much code as the rest of the stores, for the few processes that name one.
        from interlock.stores.postgres import PostgresStore  # noqa: PLC0415

        return PostgresStore(
            address, clock=clock, replay=settings.replay, lease_ttl_s=settings.lease_ttl_s, environ=environ, make=make
        )
    raise ConfigError(
        f"store: {scheme}:// is not supported; use sqlite:///path/file.db, sqlite:///:memory: or "
        "postgresql://user:password@host:5432/database"
    )


async def stored_bytes(url: str) -> int | None:
    """Return how many bytes a store takes on its disk, 0 where it is not there yet; None in memory.

    Raises:
        OSError: It cannot be asked. Of PostgreSQL, whatever the driver raises.
    """
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        files = [Path(path + ending) for ending in ("", "-wal")]
        return None if path in {"", ":memory:"} else sum(file.stat().st_size for file in files if file.exists())
    from interlock.stores.pg_address import parse_address  # noqa: PLC0415
    from interlock.stores.pg_connections import connect  # noqa: PLC0415

    address = parse_address(url)
    db = await connect(address, 10.0)
    try:
        asked = "select sum(pg_total_relation_size(oid)) from pg_class where relnamespace = to_regnamespace($1)"
        return int(await db.fetchval(asked + " and relkind in ('r', 'm')", address.schema) or 0)
    finally:
        await db.close()
