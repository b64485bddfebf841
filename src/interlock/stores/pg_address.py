"""Reads the URL of a PostgreSQL store: what is ours in it, and what the driver gets.

    postgresql://user:password@host:5432/database?schema=interlock&pooler=transaction&tenant=acme

`schema` (default `interlock`) holds our tables. `pooler=transaction` is for PgBouncer and its like in that mode.
`tenant` binds the store to one tenant; the role must be one that row-level security binds. All other
parameters (`sslmode`, `host` …) are the driver's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from interlock.core.errors import ConfigError

__all__ = ["EXAMPLE", "SCHEMES", "Address", "parse_address"]

SCHEMES = ("postgresql", "postgres")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SECRET = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is, and how it is reached.

    Attributes:
        dsn: For the driver. shown: the same without passwords, for people.
        schema: Of our tables; needs no quotes.
        pooled: Connections are of a pooler that lends them for one transaction each.
        tenant_id: The one tenant whose rows are seen; None for all of them.
    """

    dsn: str
    shown: str
    schema: str = "interlock"
    pooled: bool = False
    tenant_id: str | None = None

    @property
    def connect_words(self) -> dict[str, Any]:
        """What the driver's `connect` gets beside the DSN."""
        # A prepared statement lives in one session; behind such a pooler the next transaction is in another.
        cache = {"statement_cache_size": 0} if self.pooled else {"max_cached_statement_lifetime": 0}
        return {**cache, "server_settings": {"application_name": "interlock"}}


def parse_address(url: str) -> Address:
    """Return the parts of the URL.

    Raises:
        ConfigError: It is none of a PostgreSQL store; which part of it is wrong.
    """
    try:
        parts = urlsplit(url)
        words = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigError(f"store: not a URL of PostgreSQL ({error}): {EXAMPLE}") from None
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"store: {parts.scheme or 'no scheme'} is not postgresql://: {EXAMPLE}")
    ours = {name: value for name, value in words if name in {"schema", "pooler", "tenant"}}
    theirs = [(name, value) for name, value in words if name not in ours]
    schema = ours.get("schema", "interlock")
    if _SCHEMA.fullmatch(schema) is None:
        raise ConfigError("store: schema= takes lower-case letters, digits and _, at most 63 of them")
    pooler = ours.get("pooler", "session")
    if pooler not in {"session", "transaction"}:
        raise ConfigError("store: pooler= is transaction, or session (as without a pooler)")
    if ours.get("tenant") == "":
        raise ConfigError("store: tenant= names a tenant, or is left out")
    user, at, host = parts.netloc.rpartition("@")
    shown = [(name, value) for name, value in theirs if name not in _SECRET]
    return Address(
        dsn=urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(theirs), "")),
        shown=urlunsplit(("postgresql", user.partition(":")[0] + at + host, parts.path, urlencode(shown), "")),
        schema=schema,
        pooled=pooler == "transaction",
        tenant_id=ours.get("tenant"),
    )


EXAMPLE = "write postgresql://user:password@host:5432/database"
