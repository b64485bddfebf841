"""A run as the funnel sees it: the facts, and one slot for what each guard keeps of a run."""

from __future__ import annotations

from typing import Any

from interlock.budget.loops import LoopDetector, Looped
from interlock.budget.meter import Meter
from interlock.core.calls import Stop
from interlock.core.clock import Clock
from interlock.core.reasons import StopReason
from interlock.core.trust import Lineage, Trust
from interlock.gateway.tape import Tape
from interlock.journal.effects import Journaled
from interlock.journal.ownership import Lease
from interlock.memory.growth import PromptGrowth
from interlock.memory.validated import Validated
from interlock.policy.allowlist import PolicyView, Ruled
from interlock.policy.when_tainted import Hearing
from interlock.record.trace import Recorded, Trace
from interlock.resilience.retry import Retried

__all__ = ["RunScope", "Unwatched"]


class Unwatched(Lineage):
    """The lineage of a run whose calls nobody watches: what it called may have said anything.

    Nobody has declared which outputs are untrusted, and no rule asks; so no call pays for an answer.
    """

    __slots__ = ("_meter", "_read")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._read = Lineage()

    def read(self, source: str, trust: Trust, said: Any = None) -> None:
        self._read.read(source, trust, said)

    @property
    def trust(self) -> Trust:  # type: ignore[override]
        """LOW as soon as any tool was called."""
        return Trust.LOW if self._meter.calls else self._read.trust

    @property
    def sources(self) -> tuple[str, ...]:  # type: ignore[override]
        """`tool:*` for all the tools that were called, then memories."""
        return (*(("tool:*",) if self._meter.calls else ()), *self._read.sources)


class RunScope(Looped, Ruled, Hearing, Retried, Journaled, Recorded):
    """One run in flight.

    Attributes:
        seq: Calls proposed so far. in_flight: calls under way.
        started_s: On the monotonic clock. until_s: its end there, however long it was worked on (age, `deadline=`).
        tape: What is recorded for a later attempt; None where nobody can ask for the run again.
        lease: The root's; None until it has begun.
        validated: The outputs that were validated in this run and its family.
        growth: How its prompts grow.
        keyed: Whether the caller gave a request id, so that others may ask for the outcome.
    """

    __slots__ = (
        "growth",
        "in_flight",
        "keyed",
        "lease",
        "loops",
        "meter",
        "occurrences",
        "policy",
        "proposed",
        "retries",
        "seq",
        "started_s",
        "tape",
        "trace",
        "until_s",
        "validated",
    )

    def __init__(
        self,
        *,
        run_id: str,
        tenant_id: str,
        request_id: str,
        request_time_ms: int,
        agent: str,
        scopes: frozenset[str],
        clock: Clock,
        started_s: float,
        deadline_s: float,
        until_s: float,
        observing: bool,
        meter: Meter,
        loops: LoopDetector,
        policy: PolicyView,
        trace: Trace,
        keyed: bool = False,
        retrying: bool = False,
        fence: int = 1,
        path: str = "",
        parent: RunScope | None = None,
        lineage: Lineage | None = None,
    ) -> None:
        self.run_id = run_id
        self.tenant_id = tenant_id
        self.request_id = request_id
        self.agent = agent
        self.scopes = scopes
        self.clock = clock
        self.started_s = started_s
        self.deadline_s = deadline_s
        self.until_s = until_s
        self.keyed = keyed
        self.tape: Tape | None = None
        self.lease: Lease | None = None if parent is None else parent.lease
        self.retrying = retrying
        self.observing = observing
        self.path = path
        self.turn = self.seq = self.in_flight = 0
        self.fence = fence
        self.stop: Stop | None = None
        self.meter = meter
        self.loops = loops
        self.policy = policy
        self.trace = trace
        self.retries: dict[str, int] = {}
        # Effect keys and occurrences are the root's, so that equal writes of two sub-agents are one effect.
        root = parent
        self.lineage = root.lineage if root is not None else lineage or Unwatched(meter)
        self.growth = PromptGrowth(None)
        self.validated: Validated = root.validated if root is not None else Validated()
        self.root_run_id = root.root_run_id if root is not None else run_id
        self.root_request_id = root.root_request_id if root is not None else request_id
        self.request_time_ms = root.request_time_ms if root is not None else request_time_ms
        self.occurrences: dict[bytes, int] = root.occurrences if root is not None else {}
        self.proposed: set[bytes] | None = root.proposed if root is not None else None

    def is_over(self) -> bool:
        """Whether its time is up; one that only observes notes that, and has as much as it takes."""
        return self.clock.monotonic() >= self.deadline_s and not self.spared(StopReason.TIME_BUDGET)

    def spared(self, reason: StopReason) -> bool:
        """Whether this run only observes, and so is not stopped; what would have stopped it is on its record."""
        if self.observing:
            self.trace.spare(reason.value)
        return self.observing
