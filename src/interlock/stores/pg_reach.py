"""Names, for one transaction, whose memory may be touched: row-level security holds every statement to it.

A role that row-level security does not bind (a superuser) becomes `interlock_memory` for as long.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from typing import Any

from interlock.core.errors import ConfigError
from interlock.memory.scope import Scope
from interlock.stores.pg_address import Address
from interlock.stores.pg_connections import BEGIN, transaction
from interlock.stores.pg_text import write_text

__all__ = ["Reach", "ScopedMemory"]

_ROLE = "interlock_memory"
_NAME = """select set_config('interlock.tenant', $1, true), set_config('interlock.user', $2, true),
  set_config('interlock.session', $3, true), set_config('interlock.now', $4, true),
  set_config('interlock.reach', $5, true)"""
_BECOME = f"{_NAME}, set_config('role', '{_ROLE}', true)"
# Others may share the transaction: they go on as they were.
_LEAVE = "select set_config('interlock.reach', '', true), set_config('interlock.tenant', $1, true)"
_BE_ONESELF = f"{_LEAVE}, set_config('role', 'none', true)"


class Reach(StrEnum):
    """How far a statement means to go; the words of the policies in `sql/postgres/004_memory.sql`."""

    READ = "read"
    WRITE = "write"
    BELOW = "below"
    ALL = "all"


class ScopedMemory:
    """What every statement on memory is held to.

    Args:
        become: The role of this store is not bound by row-level security, and must become one that is.
    """

    def __init__(self, address: Address, *, become: bool) -> None:
        self._tenant_id = address.tenant_id
        self._become = become
        self._shown = address.shown

    @contextlib.asynccontextmanager
    async def alone(self, db: Any, reach: Reach, scope: Scope, now_s: float | None) -> AsyncIterator[None]:
        """Hold the statements of the body to the scope, in a transaction of their own.

        Raises:
            ConfigError: Nothing would hold them.
        """
        words = self._words(reach, scope, now_s)
        if self._tenant_id is not None:
            # Every read of such a store is in a transaction already, and that ends with it.
            await db.fetchrow(self._named, *words)
            yield
            return
        named = self._named
        for i, word in enumerate(words, start=1):
            # Beginning and naming are one message; nothing in hexadecimal is syntax.
            named = named.replace(f"${i}", f"convert_from(decode('{word.encode().hex()}', 'hex'), 'UTF8')")
        with self._explained():
            async with transaction(db, None, f"{BEGIN}; {named}"):
                yield

    @contextlib.asynccontextmanager
    async def within(self, db: Any, reach: Reach, scope: Scope | None, now_s: float | None) -> AsyncIterator[None]:
        """Hold the statements of the body, inside a transaction that others share, to the scope.

        Raises:
            ConfigError: Nothing would hold them.
        """
        with self._explained():
            await db.fetchrow(self._named, *self._words(reach, scope, now_s))
        yield
        # Not after an error: the transaction is rolled back, and this with it.
        await db.fetchrow(_BE_ONESELF if self._become else _LEAVE, self._tenant_id or "")

    @property
    def _named(self) -> str:
        return _BECOME if self._become else _NAME

    def _words(self, reach: Reach, scope: Scope | None, now_s: float | None) -> tuple[str, ...]:
        tenant, user, session = ("", "", "") if scope is None else map(write_text, scope.parts)
        if self._tenant_id is not None:
            tenant = self._tenant_id
        return tenant, user, session, "" if now_s is None else repr(float(now_s)), reach.value

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._become and f'role "{_ROLE}"' in str(error):
                raise ConfigError(
                    f"store {self._shown}: row-level security does not bind this role, and there is no role "
                    f"{_ROLE} to become: use a role without BYPASSRLS, or let a superuser make the store"
                ) from error
            raise
