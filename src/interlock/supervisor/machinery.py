"""What every run of one gate shares: the way to the tools, the switches, the prices, the rules of stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interlock.budget.prices import Prices
from interlock.budget.tenants import TenantBudgets
from interlock.core.calls import RunFacts
from interlock.core.clock import Clock
from interlock.gateway.gateway import Gateway
from interlock.gateway.keeping import Keeping
from interlock.gateway.remembering import Remembering
from interlock.journal.ownership import Ownership
from interlock.policy.switches import Switches
from interlock.record.metrics import Metrics
from interlock.resilience.threads import ToolThreads
from interlock.supervisor.stopping import StopOptions

__all__ = ["Asks", "Machinery"]

Asks = Callable[[RunFacts, Callable[..., Any]], Callable[..., Any]]
"""Returns what asks the model in place of the function that `run.model` was given."""


@dataclass(frozen=True, slots=True, eq=False)
class Machinery:
    """The parts that runs share.

    Attributes:
        threads: Where sync agents and sync model functions run; not the tools' own.
        leases: Who may act for a run. abandon_after: attempts in a row that died without recording anything new.
        orphan_after_s: How long a run whose worker died waits for another one.
        unpriced_allowed: Under a dollar cap, models of unknown price run all the same.
        wrap_up_s: Seconds that a wrap-up turn may take.
        remembering, keeping: What agents remember, and what of validated outputs they keep.
        asks: What a trial puts around the functions that ask the model; None as a rule.
    """

    gateway: Gateway
    switches: Switches
    prices: Prices
    stopping: StopOptions
    threads: ToolThreads
    metrics: Metrics
    tenants: TenantBudgets
    clock: Clock
    leases: Ownership
    remembering: Remembering
    keeping: Keeping
    abandon_after: int = 5
    orphan_after_s: float = 60.0
    unpriced_allowed: bool = False
    wrap_up_s: float = 30.0
    asks: Asks | None = None

    def asking(self, run: RunFacts, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return what asks the model for `run`, which was given `fn`."""
        return fn if self.asks is None else self.asks(run, fn)
