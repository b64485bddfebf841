"""What a store says of itself when somebody asks whether records in it can be lost, or work is held up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Checkup", "ServerHealth", "Setting", "Standby", "StoreHealth", "StuckRun"]


@dataclass(frozen=True, slots=True)
class StuckRun:
    """A run that is under way by its row, and that nobody works on. `since` is Unix seconds."""

    run_id: str
    tenant_id: str
    agent: str
    since: float


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """How a SQLite file is kept, and what stands still in it.

    Attributes:
        journal_mode, synchronous: As the connection that writes has them: `wal`, and 2 (full) or 3 (extra).
        schema, known_schema: Version of the file, and the newest that this program knows.
        stuck: Oldest first.
        clock_moved_s: By how much the wall clock was set since the boot, as far as recent runs show; 0 where not.
        ahead_s: By how much the newest run lies in the future of this clock; 0 where it does not.
    """

    journal_mode: str
    synchronous: int
    schema: int
    known_schema: int
    stuck: tuple[StuckRun, ...]
    clock_moved_s: float
    ahead_s: float


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter of a server: its value, and where it was set.

    Attributes:
        source: `the server`, `database D`, `role R`, or `role R in database D`.
    """

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Standby:
    """A server that copies ours. `sync` is `sync`, `quorum`, `potential`, `async`; "" where we may not see it."""

    name: str
    sync: str


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """How a PostgreSQL server keeps a store, and what stands still in it.

    Attributes:
        version: As the server says it (`15.4`).
        standby: Whether this server itself is a copy, and only reads.
        settings: fsync, full_page_writes, synchronous_commit and synchronous_standby_names of the server; then
            wherever synchronous_commit is set for a role or a database, ours or another.
        standbys: Those that are connected.
        clock_ahead_s: The server's clock less ours, as of now.
        schema, known_schema: Version of the store, and the newest that this program knows.
        stuck: Oldest first.
        silent_writers: Processes that ended without a goodbye, or have been silent for a day; their rows go with the
            next opening.
        role: Of this connection. tenant: the one that it is bound to; None for all.
        row_security: Whether the store's tables have it. exempt: why it does not bind this role ("" where it does):
            `owner`, `superuser` or `bypassrls`.
        connections, most_connections: Of all clients of the server, and how many it lets in.
    """

    version: str
    standby: bool
    settings: tuple[Setting, ...]
    standbys: tuple[Standby, ...]
    clock_ahead_s: float
    schema: int
    known_schema: int
    stuck: tuple[StuckRun, ...]
    silent_writers: int
    role: str
    tenant: str | None
    row_security: bool
    exempt: str
    connections: int
    most_connections: int


class Checkup(Protocol):
    """Looks, and changes nothing."""

    async def health(self) -> StoreHealth | ServerHealth:
        """Return how the store is.

        Raises:
            StoreUnavailable: It cannot be read or written.
        """
        ...
