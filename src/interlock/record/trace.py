"""What a run did, call by call: a bounded ring of a few bytes a call, without content.

Numbers are packed into one array, names are shared between calls; both get their text only when somebody
reads. An entry holds the keyed digest of the arguments, never the arguments, so a trace may be logged and
kept as it stands. Nothing in it is an object of its own: a thousand runs of a thousand calls cost the garbage
collector nothing.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from interlock.core.calls import RunFacts

__all__ = ["NO_KEY", "Entry", "Kind", "Recorded", "Refused", "Trace", "pack", "row", "step_of", "unpack"]

KEPT = 2_000
# Old entries are let go many at a time, so that a long run pays nothing for each.
SLACK = 256

# seq, turn, attempts, ended_at, duration_s, digest, key
_NUMBERS = struct.Struct("<IIHdf16s24s")
_SIZE = _NUMBERS.size
NO_KEY = bytes(24)

unpack = _NUMBERS.unpack


def pack(
    seq: int, turn: int, attempts: int, ended_at: float, duration_s: float, digest: bytes, key: bytes | None = None
) -> bytes:
    """Return the numbers of a call (see `row`) as a run keeps them."""
    return _NUMBERS.pack(seq, turn, attempts, ended_at, duration_s, digest, key or NO_KEY)


class Refused(NamedTuple):
    """What is known of a call that was refused, or would have been; most calls have nothing of it.

    Attributes:
        reason: Stop reason of the error that the call ended with, or None.
        policy: Which rule said no (`deny`, `safe_mode`, `kill_switch`, …), or None.
        would_have: Reasons that an observing run did not refuse with.
    """

    reason: str | None
    policy: str | None
    would_have: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return what is known, by name."""
        return {name: value for name, value in zip(self._fields, self, strict=True) if value}


class Kind(NamedTuple):
    """The words of an entry; equal calls share one.

    Attributes:
        tool: Its name, as proposed.
        status: `success`, `replayed`, `repeated`, `denied`, `refused`, `timeout`, …
        effect: `read` or `write`.
        more: What only some calls have, or None.
    """

    tool: str
    status: str
    effect: str
    more: Refused | None


Entry = tuple[Kind, bytes]
"""One call as a run keeps it: its words, and its numbers as `pack` makes them."""


def row(
    kind: Kind, seq: int, turn: int, attempts: int, ended_at: float, duration_s: float, digest: bytes, key: bytes
) -> dict[str, Any]:
    """Return a call as a row of the record: five fields as operators know them, then the rest.

    Args:
        seq: Number of the call in its run, from 1. turn: model turn that proposed it, 0 before the first.
        attempts: Tries on the wire; 0 where nothing was sent.
        ended_at: Wall-clock seconds (Unix). duration_s: from the proposal to the answer, waits included.
        digest: Keyed digest of the arguments. key: of the effect; zeros for a read.
    """
    tool, status, effect, more = kind
    found: dict[str, Any] = {
        "step": step_of(seq, turn),
        "tool": tool,
        "args_hash": digest.hex(),
        "duration_ms": round(duration_s * 1e3, 3),
        "status": status,
        "seq": seq,
        "effect": effect,
        "attempts": attempts,
        "batch": turn or -seq,  # without turns every call is a batch of its own
        "ended_at": int(ended_at * 1e3) / 1e3,
    }
    if key != NO_KEY:
        found["key"] = key.hex()
    if more is not None:
        found |= more.facts()
    return found


def step_of(seq: int, turn: int) -> int:
    """Return the model turn from 0; in a run that declares no turns every call is a step."""
    return turn - 1 if turn else seq - 1


class Trace:
    """The last calls of one run, and who the run is.

    Args:
        kept: How many calls are kept; older ones are counted in `dropped`.

    Attributes:
        added: Calls seen in all. fence: of the attempt that this is of.
    """

    __slots__ = (
        "_kept",
        "_kinds",
        "_numbers",
        "_recorded",
        "_spared",
        "added",
        "agent",
        "fence",
        "request_id",
        "run_id",
        "tenant_id",
    )

    def __init__(
        self, run_id: str, *, tenant_id: str = "", request_id: str = "", agent: str = "", kept: int = KEPT
    ) -> None:
        self.run_id = run_id
        self.tenant_id = tenant_id
        self.request_id = request_id
        self.agent = agent
        self.added = 0
        self._recorded = -1
        self._spared: dict[str, None] = {}
        self.fence = 1
        self._kept = kept
        self._kinds: list[Kind] = []
        self._numbers = bytearray()

    def add(self, kind: Kind, numbers: bytes) -> None:
        """Append one call; `numbers` as `pack` makes them."""
        kinds = self._kinds
        kinds.append(kind)
        self._numbers += numbers
        self.added += 1
        if len(kinds) >= self._kept + SLACK:
            del kinds[:SLACK]
            del self._numbers[: SLACK * _SIZE]

    def recorded(self) -> None:
        """Take in that the run has ended, and that its record holds the calls that are kept."""
        if not self.dropped:
            self._recorded = self.added

    @property
    def in_record(self) -> bool:
        """Whether the record of the ended run holds every call of it; one that comes later is not in it."""
        return self._recorded == self.added

    @property
    def dropped(self) -> int:
        """How many calls are no longer kept."""
        return max(0, self.added - self._kept)

    def rows(self) -> list[dict[str, Any]]:
        """Return the calls kept as rows of the record, oldest first."""
        kinds = self._kinds[-self._kept :]
        numbers = bytes(self._numbers[-len(kinds) * _SIZE :]) if kinds else b""
        return [row(kind, *unpacked) for kind, unpacked in zip(kinds, _NUMBERS.iter_unpack(numbers), strict=True)]

    def spare(self, reason: str) -> None:
        """Take in a reason, of no call, for which an observing run was not stopped."""
        self._spared[reason] = None

    def would_have(self) -> list[str]:
        """Return the distinct reasons that an observing run did not refuse with; first those of calls, in order."""
        found: dict[str, None] = {}
        for kind in self._kinds[-self._kept :]:
            if kind.more is not None:
                found.update(dict.fromkeys(kind.more.would_have))
        return list(found | self._spared)


class Recorded(RunFacts):
    """A run whose calls are recorded."""

    __slots__ = ()

    trace: Trace
