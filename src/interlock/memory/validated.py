"""Which values are validated outputs of a run, and of which tool: the latest as they are, older ones by their hash.

Nothing is hashed until somebody asks, or until much has gathered, so that a run which keeps nothing pays next to
nothing for it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from interlock.core.canonical import NotCanonical, canonical_json

__all__ = ["Validated"]

# The latest outputs are held as they are, up to so many and so many bytes; then they become hashes.
HELD = 64
HELD_BYTES = 1_000_000
# Outputs of one run that are known by their hash; the oldest go first.
KNOWN = 1_000


class Validated:
    """The validated outputs of one run and its children."""

    __slots__ = ("_bytes", "_hashes", "_held")

    def __init__(self) -> None:
        self._held: list[tuple[str, bytes, Any]] = []
        self._bytes = 0
        self._hashes: dict[bytes, str] = {}

    def note(self, tool: str, data: bytes, value: Any) -> None:
        """Take in an output: its canonical JSON, and the value that its caller gets."""
        self._held.append((tool, data, value))
        self._bytes += len(data)
        if self._bytes > HELD_BYTES or len(self._held) >= HELD:
            self._fold()

    def tool_of(self, data: bytes) -> str | None:
        """Return the tool of which this canonical JSON is an output, or None."""
        self._fold()
        return self._hashes.get(_hash(data))

    def _fold(self) -> None:
        hashes = self._hashes
        for tool, data, value in self._held:
            hashes[_hash(data)] = tool
            if not isinstance(value, dict | list | str | int | float | None):
                # A typed output is known by what it looks like outside its type too.
                try:
                    hashes[_hash(canonical_json(value))] = tool
                except NotCanonical:
                    continue
        self._held.clear()
        self._bytes = 0
        while len(hashes) > KNOWN:
            del hashes[next(iter(hashes))]


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
