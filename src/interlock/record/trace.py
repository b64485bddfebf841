"""What a run did, call by call: a bounded ring of small tuples, without content.

A call appends one plain tuple; names and text are given to it only when somebody reads. The tuple holds
the keyed digest of the arguments, never the arguments, so a trace may be logged and kept as it stands.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from interlock.core.calls import RunFacts

__all__ = ["CallEntry", "Entry", "Recorded", "Refused", "Trace"]

KEPT = 2_000


class Refused(NamedTuple):
    """What is known of a call beside its numbers; most calls have nothing of it.

    Attributes:
        reason: Stop reason of the error that the call ended with, or None.
        policy: Which rule said no (`deny`, `safe_mode`, `kill_switch`, …), or None.
        key: Key of the effect, hexadecimal; None for a read.
        would_have: Reasons that an observing run did not refuse with.
    """

    reason: str | None
    policy: str | None
    key: str | None
    would_have: tuple[str, ...]


# Numbers and text only: the garbage collector stops looking at such tuples, however many runs keep them.
Entry = tuple[int, int, str, bytes, float, float, str, str, int, Refused | None]


class CallEntry(NamedTuple):
    """One call as it stands in the trace: `CallEntry(*entry)` puts names to the tuple that a call appends.

    Attributes:
        seq: Number of the call in its run, from 1. turn: model turn that proposed it, 0 before the first.
        tool: Its name, as proposed.
        digest: Keyed digest of the arguments.
        ended_at: Wall-clock seconds (Unix). duration_s: from the proposal to the answer, waits included.
        status: `success`, `replayed`, `repeated`, `denied`, `refused`, `timeout`, …
        effect: `read` or `write`. attempts: tries on the wire; 0 where nothing was sent.
        more: What only some calls have, or None.
    """

    seq: int
    turn: int
    tool: str
    digest: bytes
    ended_at: float
    duration_s: float
    status: str
    effect: str
    attempts: int
    more: Refused | None

    @property
    def step(self) -> int:
        """Model turn from 0; in a run that declares no turns every call is a step."""
        return self.turn - 1 if self.turn else self.seq - 1

    def row(self) -> dict[str, Any]:
        """Return the entry as a row of the record: five fields as operators know them, then the rest."""
        row: dict[str, Any] = {
            "step": self.step,
            "tool": self.tool,
            "args_hash": self.digest.hex(),
            "duration_ms": round(self.duration_s * 1e3, 3),
            "status": self.status,
            "seq": self.seq,
            "effect": self.effect,
            "attempts": self.attempts,
            "batch": self.turn or -self.seq,  # without turns every call is a batch of its own
            "ended_at": round(self.ended_at, 3),
        }
        if self.more is not None:
            row |= {name: value for name, value in self.more._asdict().items() if value}
        return row


class Trace:
    """The last calls of one run, and who the run is.

    Args:
        kept: How many calls are kept; older ones are counted in `dropped`.

    Attributes:
        entries: The calls kept, oldest first. added: calls seen in all.
    """

    __slots__ = ("added", "agent", "entries", "request_id", "run_id", "tenant_id")

    def __init__(
        self, run_id: str, *, tenant_id: str = "", request_id: str = "", agent: str = "", kept: int = KEPT
    ) -> None:
        self.run_id = run_id
        self.tenant_id = tenant_id
        self.request_id = request_id
        self.agent = agent
        self.entries: deque[Entry] = deque(maxlen=kept)
        self.added = 0

    def add(self, entry: Entry) -> None:
        """Append one call."""
        self.entries.append(entry)
        self.added += 1

    @property
    def dropped(self) -> int:
        """How many calls are no longer kept."""
        return self.added - len(self.entries)

    def calls(self) -> list[CallEntry]:
        """Return the calls kept, oldest first."""
        return [CallEntry(*entry) for entry in self.entries]

    def rows(self) -> list[dict[str, Any]]:
        """Return the calls kept as rows of the record, oldest first."""
        return [CallEntry(*entry).row() for entry in self.entries]

    def would_have(self) -> list[str]:
        """Return the distinct reasons that an observing run did not refuse with, in order of appearance."""
        found: dict[str, None] = {}
        for entry in self.entries:
            more = entry[-1]
            if more is not None:
                found.update(dict.fromkeys(more.would_have))
        return list(found)


class Recorded(RunFacts):
    """A run whose calls are recorded."""

    __slots__ = ()

    trace: Trace
