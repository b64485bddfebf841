"""What must go with a fact beyond memory's own tables: the port to runs that speak of it, and to a store's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from interlock.memory.residue import Found, Region

__all__ = ["Eraser", "Ground", "Kept", "Mentions"]


class Kept(NamedTuple):
    """A run that speaks of the subject and keeps its content for now. `why`: under way, or with an open doubt."""

    run_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Mentions:
    """The runs of a tenant that speak of something.

    Attributes:
        run_ids: Of those in whose content one of the texts stands. found: where, opened where it is sealed.
        regions: What is sealed and could not be opened. looked_at: how many runs.
    """

    run_ids: tuple[str, ...] = ()
    found: tuple[Found, ...] = ()
    regions: tuple[Region, ...] = ()
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the bytes of a store lie.

    Attributes:
        paths: Files, and folders of files, that can be searched from here.
        regions: What belongs to the store and cannot. outside: what holds copies and is nobody's here to search.
    """

    paths: tuple[Path, ...] = ()
    regions: tuple[Region, ...] = ()
    outside: tuple[str, ...] = ()


class Eraser(Protocol):
    """Takes out of a store what its runs say of somebody, and then every byte of it."""

    async def mentions(self, tenant_id: str, texts: Mapping[str, str]) -> Mentions:
        """Look through the content of the tenant's runs, in the tables, for texts (by name); change nothing."""
        ...

    async def drop(self, run_ids: Sequence[str]) -> list[Kept]:
        """Drop the content of these runs, whatever their age, and return those whose content had to stay.

        As a purge does: states, counters and keys stay, so that no write is sent again; what stands beside them in
        words (evidence, reasons) is blanked.
        """
        ...

    async def rows(self, texts: Mapping[str, str]) -> list[Found]:
        """Look for texts in the tables, as stored; for stores whose files cannot always be read."""
        ...

    async def scrub(self, *, whole: bool = False) -> list[Region]:
        """Leave deleted bytes nowhere in the files of the store; return where that cannot be said.

        Args:
            whole: Rewrite every table, which holds up everybody who writes to them.
        """
        ...

    async def ground(self) -> Ground:
        """Return where the bytes of the store lie."""
        ...
