"""Makes the scope of a run: who it is, what it may use, what it may spend, and until when."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from interlock.budget.loops import LoopDetector, LoopOptions
from interlock.budget.meter import BudgetOptions, Meter
from interlock.core.clock import Clock, timed_token
from interlock.core.errors import ConfigError
from interlock.core.trust import Lineage
from interlock.gateway.scope import RunScope
from interlock.journal.store import NewRun, RunRow
from interlock.memory.growth import PromptGrowth
from interlock.policy.allowlist import Policy
from interlock.record.trace import Trace
from interlock.supervisor.requests import RunRequest

__all__ = ["ScopeMaker"]

_BUDGET_KEYS = tuple(field.name for field in fields(BudgetOptions))


def _unasked(_: RunRequest) -> Lineage | None:
    return None


@dataclass(frozen=True, slots=True, eq=False)
class ScopeMaker:
    """Makes scopes.

    Attributes:
        budgets_for: Returns the caps of one tenant's runs.
        observing: `mode: observe`. trace_kept: calls kept of a run's trace.
        growth_factor: A prompt that outgrows its run's first by this is reported; None: never.
        lineage: Returns what takes in what a run reads; None where nobody asks.
    """

    clock: Clock
    policy: Policy
    loops: LoopOptions
    budgets_for: Callable[[str], BudgetOptions]
    observing: bool
    trace_kept: int
    lineage: Callable[[RunRequest], Lineage | None] = _unasked
    growth_factor: float | None = None

    def root(self, request: RunRequest) -> tuple[RunScope, NewRun]:
        """Return the scope of a new root run, and its row.

        Raises:
            NotCanonical: The payload is not JSON. ConfigError: a budget is not one.
        """
        clock = self.clock
        run_id = f"run_{timed_token(clock)}"
        request_id = request.request_id or f"req_{timed_token(clock)}"
        payload_hash = request.payload_hash() if request.request_id is not None else None
        budgets = _narrowed(self.budgets_for(request.tenant_id), request.budgets)
        now_s = clock.monotonic()
        until_s = math.inf if budgets.max_age_s is None else now_s + budgets.max_age_s
        if request.deadline is not None:
            until_s = min(until_s, now_s + request.deadline - clock.wall())
        scope = RunScope(
            run_id=run_id,
            tenant_id=request.tenant_id,
            request_id=request_id,
            request_time_ms=0,
            agent=request.agent,
            scopes=frozenset(request.scopes),
            clock=clock,
            started_s=now_s,
            deadline_s=_deadline_s(budgets, now_s, until_s),
            until_s=until_s,
            observing=self.observing,
            meter=Meter(budgets),
            loops=LoopDetector(self.loops),
            policy=self.policy.view(request.tenant_id, request.allow),
            trace=self._trace(run_id, request.tenant_id, request_id, request.agent),
            keyed=request.request_id is not None,
            retrying=request.retry is True,
            lineage=self.lineage(request),
        )
        scope.growth = PromptGrowth(self.growth_factor)
        # Nobody else can go on with a request that has no id.
        task = None if payload_hash is None else request.task_json()
        new = NewRun(run_id, request.tenant_id, request_id, request.agent, payload_hash, run_id, "", task)
        return scope, new

    @staticmethod
    def go_on(scope: RunScope, row: RunRow) -> None:
        """Count the time that earlier attempts used, and the run's age; nobody worked on it in between."""
        budgets, clock = scope.meter.options, scope.clock
        scope.started_s -= row.used_s
        if budgets.max_age_s is not None:
            scope.until_s = min(scope.until_s, clock.monotonic() + row.started_at + budgets.max_age_s - clock.wall())
        scope.deadline_s = _deadline_s(budgets, scope.started_s, scope.until_s)

    def child(
        self,
        parent: RunScope,
        name: str,
        budgets: Mapping[str, Any] | BudgetOptions | None,
        allow: Sequence[str] | None,
    ) -> tuple[RunScope, NewRun]:
        """Return the scope of a run below `parent`, and its row: its own caps, on the parent's budget."""
        run_id = f"run_{timed_token(self.clock)}"
        path = f"{parent.path}/{name}"
        own = _narrowed(BudgetOptions(None, None, None, None), budgets)
        now_s = self.clock.monotonic()
        until_s = min(parent.deadline_s, now_s + (math.inf if own.max_age_s is None else own.max_age_s))
        policy = parent.policy if allow is None else parent.policy.narrowed(allow)
        scope = RunScope(
            run_id=run_id,
            tenant_id=parent.tenant_id,
            request_id=parent.request_id,
            request_time_ms=parent.request_time_ms,
            agent=f"{parent.agent}/{name}",
            scopes=parent.scopes,
            clock=self.clock,
            started_s=now_s,
            deadline_s=_deadline_s(own, now_s, until_s),
            until_s=until_s,
            observing=parent.observing,
            retrying=parent.retrying,
            meter=Meter(own, parent.meter),
            loops=LoopDetector(self.loops),
            policy=policy,
            trace=self._trace(run_id, parent.tenant_id, parent.request_id, f"{parent.agent}/{name}"),
            fence=parent.fence,
            path=path,
            parent=parent,
        )
        scope.growth = PromptGrowth(self.growth_factor)
        if parent.tape is not None:
            scope.tape = parent.tape.child(path)
        scope.trace.fence = parent.fence
        root_id = scope.root_run_id
        new = NewRun(run_id, parent.tenant_id, parent.request_id, scope.agent, None, root_id, path, fence=parent.fence)
        return scope, new

    def _trace(self, run_id: str, tenant_id: str, request_id: str, agent: str) -> Trace:
        return Trace(run_id, tenant_id=tenant_id, request_id=request_id, agent=agent, kept=self.trace_kept)


def _deadline_s(budgets: BudgetOptions, started_s: float, until_s: float) -> float:
    return until_s if budgets.max_seconds is None else min(until_s, started_s + budgets.max_seconds)


def _narrowed(options: BudgetOptions, given: Mapping[str, Any] | BudgetOptions | None) -> BudgetOptions:
    if given is None:
        return options
    if isinstance(given, BudgetOptions):
        return given
    for key, value in given.items():
        if key not in _BUDGET_KEYS:
            raise ConfigError(f"budgets: unknown key {key!r}; known are {', '.join(_BUDGET_KEYS)}")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise ConfigError(f"budgets: {key} must be a number of at least 0, or None for unlimited")
    return replace(options, **given)
