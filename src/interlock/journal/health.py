"""What a store says of itself when somebody asks whether records in it can be lost, or work is held up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Checkup", "StoreHealth", "StuckRun"]


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


class Checkup(Protocol):
    """Looks, and changes nothing."""

    async def health(self) -> StoreHealth:
        """Return how the store is.

        Raises:
            StoreUnavailable: It cannot be read or written.
        """
        ...
