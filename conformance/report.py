"""What a player reports of one cell, as JSON between processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Ended", "Played"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one delivery ended.

    Attributes:
        reason: Stop reason of a guarded run; bare: `answered`, or `raised` and what.
        died: The worker was killed, as it should be.
        error: What was raised, bare or by the adapter, or None.
    """

    reason: str
    tenant: str = ""
    output: str | None = None
    error: str | None = None
    died: bool = False
    replayed: bool = False
    steps: int = 0
    cost_usd: float = 0.0
    message: str = ""
    effects: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Played:
    """One scenario, played by one column on one side.

    Attributes:
        deliveries: One list a delivery, one ending a tenant.
        record: Rows of the runs' traces: tool, args_hash, status, reason, tenant.
        cannot: The column's own word why its framework cannot hold this, or None.
        failed: Why the cell could not be played at all, or None.
    """

    scenario: str
    column: str
    guarded: bool
    version: str
    deliveries: tuple[tuple[Ended, ...], ...] = ()
    record: tuple[tuple[str, ...], ...] = ()
    cannot: str | None = None
    failed: str | None = None
    elapsed_s: float = 0.0

    def as_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def read(line: str) -> Played:
        """Return what `as_json` wrote."""
        fields: dict[str, Any] = json.loads(line)
        deliveries = tuple(tuple(Ended(**e) for e in some) for some in fields.pop("deliveries"))
        record = tuple(tuple(row) for row in fields.pop("record"))
        return Played(deliveries=deliveries, record=record, **fields)
