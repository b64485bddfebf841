"""A fault that waits for its calls, and how a layer is put at a named point of the funnel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from interlock.chaos.faults import Fault
from interlock.core.calls import Proceed, ToolSpec
from interlock.gateway.pipeline import Funnel, Layer
from interlock.policy.globs import GlobSet

__all__ = ["Armed", "place"]


def place(funnel: Funnel, point: str, layer: Layer) -> Funnel:
    """Return the funnel with `layer` just outside what stands at `point`: a guard's name, or `perform`."""
    inner: Any = getattr(funnel, point)

    def both(tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
        return layer(tool, inner(tool, proceed))

    def last(tool: ToolSpec) -> Proceed[Any]:
        return layer(tool, inner(tool))

    changed: dict[str, Any] = {point: last if point == "perform" else both}
    return replace(funnel, **changed)


@dataclass(eq=False)
class Armed:
    """A fault of a trial: which calls it has met.

    Attributes:
        number: Of the fault in its task. seed: of the trial.
    """

    fault: Fault
    number: int
    seed: int
    numbers: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.globs = GlobSet((self.fault.tool,), key="faults.tool")

    def strikes(self, call: tuple[str, int], attempt: int, elapsed_s: float) -> bool:
        """Whether this attempt of this call (run, seq) is struck; the same for the same seed and order of calls."""
        fault = self.fault
        n = self.numbers.setdefault(call, len(self.numbers) + 1)
        if (fault.calls and n not in fault.calls) or (fault.attempts and attempt not in fault.attempts):
            return False
        if elapsed_s < fault.from_s or (fault.until_s is not None and elapsed_s >= fault.until_s):
            return False
        if fault.probability >= 1.0:
            return True
        drawn = hashlib.sha256(f"{self.seed}:{self.number}:{n}:{attempt}".encode()).digest()
        return int.from_bytes(drawn[:6], "big") / (1 << 48) < fault.probability
