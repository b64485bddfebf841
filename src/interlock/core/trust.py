"""How far a text may be believed, and what a run has read: the label of a whole is that of its least part.

A label is set by the gateway, from what a run has read. Nothing that a model, a tool or a caller says about
itself raises one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

__all__ = ["Lineage", "Trust"]

SOURCES_KEPT = 32


class Trust(IntEnum):
    """How far a text may be believed.

    LOW: it comes from untrusted tool output, or was written after some was read.
    NORMAL: the agent's own words, in a run that has read nothing of the kind.
    HIGH: a person has vouched for it.
    """

    LOW = 0
    NORMAL = 1
    HIGH = 2


class Lineage:
    """What a run has read so far; a run and its children share one.

    Attributes:
        trust: The least label of all that was read; NORMAL before the first.
        sources: Where what is below NORMAL came from, in order: `tool:web.fetch`, `memory:mem_…`; the first 32.
    """

    __slots__ = ("sources", "trust")

    def __init__(self) -> None:
        self.trust = Trust.NORMAL
        self.sources: tuple[str, ...] = ()

    def read(self, source: str, trust: Trust, said: Any = None) -> None:  # noqa: ARG002 - for those who compare texts
        """Take in that the run has read something with this label: `said`. There is no way back up."""
        if trust >= Trust.NORMAL:
            return
        self.trust = min(self.trust, trust)
        if source not in self.sources and len(self.sources) < SOURCES_KEPT:
            self.sources += (source,)
