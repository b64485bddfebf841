"""How a run ended, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from interlock.core.reasons import PARKING_REASONS, StopReason

__all__ = ["RunResult"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Structured result of a run; `gate.run` always answers with one.

    Attributes:
        reason: Why the run ended.
        output: What the agent returned; None unless `reason` is success.
        steps: Model turns. tool_calls: calls, answered ones included. elapsed_s: seconds. cost_usd: dollars.
        details: Facts beside the reason: `error`, `message`, `partial` (what existed when the run stopped),
            `policy`, `would_have`, `doubts`, `unfinished_calls` (under way when the agent ended) and others.
        request_id: The idempotency key of the whole run. replayed: True when this is a stored outcome.
    """

    run_id: str
    reason: StopReason
    output: Any = None
    steps: int = 0
    tool_calls: int = 0
    cost_usd: float = 0.0
    elapsed_s: float = 0.0
    tokens: int = 0
    tenant_id: str = ""
    request_id: str = ""
    replayed: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the agent finished by itself."""
        return self.reason is StopReason.SUCCESS

    @property
    def parked(self) -> bool:
        """Whether the run waits for a person (an open doubt, an undecided approval) and can go on."""
        return self.reason in PARKING_REASONS
