"""Which configuration and which store a verb works on, and how it opens them.

The store is `--store`, else INTERLOCK_STORE, else the configuration's, else `interlock.db`. A verb never
makes a store, nor brings one up to another version: a kill in a file that nobody reads would stop nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from interlock.cli.configuration import the_settings
from interlock.cli.output import note
from interlock.config.opening import open_store
from interlock.config.settings import STORE_VARIABLE, load_settings, store_url
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError
from interlock.journal.ownership import Ownership
from interlock.journal.store import Journal, RunStore
from interlock.policy.approval import ApprovalStore
from interlock.policy.switches import SwitchStore

__all__ = ["Store", "in_store"]

T = TypeVar("T")

_SQLITE = "sqlite:///"


class Store(Journal, RunStore, Protocol):
    """An open store, as the command line needs it."""

    @property
    def switches(self) -> SwitchStore:
        """Kill switches and safe mode."""
        ...

    @property
    def approvals(self) -> ApprovalStore:
        """What agents have asked for."""
        ...

    @property
    def leases(self) -> Ownership:
        """Who works on runs, and the queue."""
        ...

    async def flush(self) -> None:
        """Return when everything queued so far is durable."""
        ...

    async def calls_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return the trace rows of a run."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


def in_store(store: str | None, config: Path | None, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open the store, do `work` with it, and close it.

    Raises:
        ConfigError: There is no store, or the configuration that names it cannot be read.
        StoreUnavailable: It cannot be read or written.
    """
    named = store or os.environ.get(STORE_VARIABLE)
    try:
        settings = the_settings(config)
    except ConfigError as error:
        if not named:
            raise
        # Who names a store in an emergency is not stopped by a comma in the configuration.
        note(f"warning: the configuration is ignored: {error}")
        settings = load_settings(None)
    url = store_url(settings, store)
    _require(url)
    opened: Store = open_store(url, settings, clock=SYSTEM, make=False)

    async def worked() -> T:
        return await work(opened)

    try:
        return asyncio.run(worked())
    finally:
        opened.close()


def _require(url: str) -> None:
    if not url.startswith(_SQLITE):
        return
    path = url.removeprefix(_SQLITE)
    if path in {"", ":memory:"}:
        raise ConfigError("the store is in memory: only the process that has it can look at it")
    if not Path(path).exists():
        raise ConfigError(f"there is no store at {path}: name it with --store URL or {STORE_VARIABLE}")
