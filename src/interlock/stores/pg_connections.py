"""Connections to one PostgreSQL server, made when they are needed and used again; none of them keeps any state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.stores.pg_address import Address
from interlock.stores.pg_errors import Fault, fault_of

__all__ = ["BEGIN", "Connections", "connect", "hang_up", "load_driver", "transaction"]


def load_driver() -> Any:
    """Import asyncpg.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        # Only those who name such a store have it installed, and it costs a fifth of our own import.
        import asyncpg  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("store: postgresql:// needs asyncpg: pip install interlock[postgres]") from error
    return asyncpg


# Of a process that was stopped or cut off in the middle of a transaction, the server lets go of what it had locked, so
# that others may take its runs. Behind a pooler the sessions are the pooler's, and this is for its configuration.
# One whose machine has vanished is found out by asking it. Nothing that was answered is forgotten in a crash.
_LET_GO = """set idle_in_transaction_session_timeout = '10s';
set tcp_keepalives_idle = 60; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3;
select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"""
# One that waits for a lock notices that its client is dead; not on every platform.
_NOTICE = "set client_connection_check_interval = '2s'"


BEGIN = "begin isolation level read committed"


async def connect(address: Address, timeout_s: float) -> Any:
    """Return a new connection; raises whatever the driver raises."""
    db = await load_driver().connect(address.dsn, timeout=timeout_s, **address.connect_words)
    if not address.pooled:
        try:
            await db.execute(_LET_GO, timeout=timeout_s)
            with contextlib.suppress(load_driver().InvalidParameterValueError):
                await db.execute(_NOTICE, timeout=timeout_s)
        except BaseException:
            hang_up(db)
            raise
    return db


def hang_up(db: Any) -> None:
    """Drop a connection without a goodbye."""
    with contextlib.suppress(Exception):
        db.terminate()


@contextlib.asynccontextmanager
async def transaction(db: Any, tenant_id: str | None, begin: str = BEGIN) -> AsyncIterator[None]:
    """One transaction, bound to the tenant if there is one; rolled back when the body raises.

    Args:
        begin: How it begins: `BEGIN`, and whatever goes to the server with it.
    """
    try:
        await db.execute(begin)
        if tenant_id is not None:
            await db.fetchval("select set_config('interlock.tenant', $1, true)", tenant_id)
        yield
        await db.execute("commit")
    except BaseException as error:
        if fault_of(error) is not Fault.CONNECTION and not isinstance(error, asyncio.CancelledError):
            with contextlib.suppress(Exception):
                await db.execute("rollback")
        raise


class Connections:
    """At most `most` connections for reads and for what people decide. For use on one event loop."""

    def __init__(self, address: Address, *, most: int, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(most)
        self._closed = False

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """Lend a connection. One that was cut, or whose borrower was cancelled, is not lent again."""
        async with self._free:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            db = self._idle_one() or await connect(self._address, self._timeout_s)
            try:
                yield db
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) or fault_of(error) is Fault.CONNECTION:
                    hang_up(db)
                raise
            finally:
                if not db.is_closed():
                    self._idle.append(db)

    async def close(self) -> None:
        """Close what is idle; what is lent is closed by the end of the loop."""
        self._closed = True
        for db in self._idle:
            with contextlib.suppress(Exception):
                await db.close(timeout=1.0)
        self._idle.clear()

    def _idle_one(self) -> Any:
        while self._idle:
            db = self._idle.pop()
            if not db.is_closed():
                return db
        return None
