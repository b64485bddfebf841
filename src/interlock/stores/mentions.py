"""Whether what a run has kept speaks of somebody: each value is opened, and looked through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.memory.erasure import Mentions
from interlock.memory.residue import Found, Region, Standing, search_bytes
from interlock.stores.seal import Seal, Unreadable

__all__ = ["Looking"]


class Looking:
    """The texts that are looked for (by name), and what was found so far."""

    def __init__(self, texts: Mapping[str, str], seal: Seal) -> None:
        self._texts = texts
        self._seal = seal
        self._runs: dict[str, None] = {}
        self._found: list[Found] = []
        self._shut: dict[str, int] = {}
        self._looked_at: set[str] = set()

    def see(self, run_id: str, where: str, value: Any, place: bytes | None = None) -> None:
        """Look through one value of a run. `place`: what its seal is bound to; None where it is not sealed."""
        self._looked_at.add(run_id)
        if value is None or value == "":
            return
        data: bytes | None = value.encode() if isinstance(value, str) else bytes(value)
        if place is not None:
            try:
                data = self._seal.open(data, place)
            except Unreadable:
                self._shut[where] = self._shut.get(where, 0) + 1
                return
        found = search_bytes(data or b"", self._texts, f"{where} of run {run_id}")
        if found:
            self._runs[run_id] = None
            self._found += found

    def answer(self) -> Mentions:
        """Return what was found."""
        why = "sealed with a key that is neither in INTERLOCK_KEY nor in interlock.key: destroyed if that key is"
        regions = [Region(f"{where} ({n} values)", Standing.DESTROYED, why) for where, n in self._shut.items()]
        return Mentions(tuple(self._runs), tuple(self._found), tuple(regions), len(self._looked_at))
