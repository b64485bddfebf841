"""Opens the store that a URL, the environment or the settings name; the only place that names a store."""

from __future__ import annotations

import os
from collections.abc import Mapping

from interlock.config.sections import Settings
from interlock.config.settings import store_url
from interlock.core.clock import Clock
from interlock.core.errors import ConfigError
from interlock.stores.sqlite import SqliteStore

__all__ = ["open_store"]


def open_store(
    url: str | None, settings: Settings, *, clock: Clock, environ: Mapping[str, str] = os.environ
) -> SqliteStore:
    """Open the store that `url`, INTERLOCK_STORE or the settings name.

    Raises:
        ConfigError: The URL names no store of ours. StoreUnavailable: it cannot be opened.
    """
    address = store_url(settings, url, environ)
    if "://" in address and not address.startswith("sqlite:///"):
        scheme = address.partition("://")[0]
        raise ConfigError(f"store: {scheme}:// is not supported; use sqlite:///path/file.db or sqlite:///:memory:")
    return SqliteStore(address, clock=clock, replay=settings.replay, lease_ttl_s=settings.lease_ttl_s, environ=environ)
