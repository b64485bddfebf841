"""The only place where parts are wired together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from interlock.budget.loops import LoopGuard, LoopOptions
from interlock.budget.meter import MeterGuard
from interlock.budget.prices import Prices
from interlock.budget.tenants import TenantBudgets
from interlock.config.declarations import Declarations
from interlock.config.memories import Memories, memories
from interlock.config.opening import Store, open_store
from interlock.config.options import (
    as_options,
    breaker_for,
    budgets_for,
    grace_s,
    limits_for,
    max_calls_of,
    policy_options,
    render_with,
    retries_for,
    tenant_caps,
    timeout_for,
)
from interlock.config.sections import Settings
from interlock.config.tainting import Tainting
from interlock.config.trial import UNTRIED, Trial
from interlock.core.calls import Approval, Call, Guard, ToolSpec
from interlock.core.clock import Clock
from interlock.gateway.gateway import Gateway
from interlock.gateway.keeping import StateGuard
from interlock.gateway.pipeline import Funnel
from interlock.gateway.tools import Registry
from interlock.journal.effects import EffectOptions, Effects
from interlock.journal.inflight import InFlight
from interlock.journal.ownership import Ownership, hold_on
from interlock.journal.rounds import Rounds
from interlock.memory.hooks import MemoryHooks
from interlock.policy.allowlist import Allowlist, Policy
from interlock.policy.approval import ApprovalOptions, Approvals
from interlock.policy.globs import GlobSet
from interlock.policy.switch_guard import SwitchGuard
from interlock.policy.switches import SafeModeOptions, Switches
from interlock.policy.when_tainted import WhenTainted, described
from interlock.record.keeper import TraceKeeper
from interlock.record.lines import LineSink, LoggingOptions
from interlock.record.metrics import Metrics
from interlock.record.recorder import Recorder
from interlock.record.redact import Redactor
from interlock.record.writer import LineWriter
from interlock.resilience.admission import Admission
from interlock.resilience.classify import classify
from interlock.resilience.perform import Perform
from interlock.resilience.retry import Retry
from interlock.resilience.threads import ToolThreads
from interlock.resilience.timeout import Timeout
from interlock.supervisor.machinery import Machinery
from interlock.supervisor.scopes import ScopeMaker
from interlock.supervisor.secretary import RecordSink, Secretary
from interlock.supervisor.stopping import StopOptions
from interlock.supervisor.supervisor import Supervisor
from interlock.validation.inputs import Inputs
from interlock.validation.outputs import OutputCheck, OutputOptions, Outputs, rebuild

__all__ = ["House", "build"]

AGENT_THREADS = 1024
# Calls of a run that its record can hold; older ones are counted.
TRACE_KEPT = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class _Sinks:
    """Where calls and runs are written down, beside the store."""

    metrics: Metrics
    lines: LineSink
    records: LineWriter | None
    keeper: TraceKeeper | None

    def close(self) -> None:
        """Write what is queued, and close."""
        self.lines.close()
        for background in (self.records, self.keeper):
            if background is not None:
                background.close()


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """A wired gate: what `Interlock` hands out and closes."""

    supervisor: Supervisor
    gateway: Gateway
    store: Store
    switches: Switches
    admission: Admission
    inflight: InFlight
    rounds: Rounds
    perform: Perform
    sinks: _Sinks
    clock: Clock
    grace_s: Callable[[], float]
    declarations: Declarations

    async def aclose(self) -> None:
        """Stop runs, wait for writes under way, and close sinks and store."""
        await self.supervisor.aclose()
        await self.inflight.aclose(self.grace_s())
        self.close()

    def close(self) -> None:
        """Close sinks and store; writes what is queued."""
        self.sinks.close()
        self.store.close()


def build(
    settings: Settings,
    registry: Registry,
    declarations: Declarations,
    *,
    store: str | None,
    clock: Clock,
    trial: Trial = UNTRIED,
    hooks: MemoryHooks | None = None,
) -> House:
    """Wire everything that one gate needs; `trial` may change parts of it.

    Raises:
        ConfigError: The settings do not fit together. StoreUnavailable: the store cannot be opened.
    """
    kept = trial.store(lambda: open_store(store, settings, clock=clock))
    try:
        return _wire(settings, registry, declarations, kept, clock, trial, hooks or MemoryHooks())
    except BaseException:
        kept.close()
        raise


def _wire(
    settings: Settings,
    registry: Registry,
    declarations: Declarations,
    store: Store,
    clock: Clock,
    trial: Trial,
    hooks: MemoryHooks,
) -> House:
    redactor = Redactor(settings.logging.redact)
    sinks = _Sinks(
        metrics=Metrics(),
        lines=LineSink(as_options(LoggingOptions, settings.logging), clock),
        records=LineWriter(settings.record.path) if settings.record.path is not None else None,
        keeper=TraceKeeper(store.trace_soon) if settings.record.calls else None,
    )
    policy = Policy(policy_options(settings))
    switches = Switches(store.switches, clock, as_options(SafeModeOptions, settings.safe_mode))
    pool = ToolThreads()
    admission = Admission(
        clock, limits_for(settings), breaker_for(settings), pool, settings.tools.max_abandoned_threads
    )
    inflight, perform = InFlight(store), Perform(pool)
    effects = _effects(settings, store, clock, pool, inflight)
    tainting = declarations.tainting
    funnel = trial.funnel(
        _funnel(settings, store, clock, sinks, policy, switches, admission, effects, perform, redactor, tainting)
    )
    gateway = Gateway(
        funnel,
        registry,
        settled=declarations.settled,
        secret=store.secret,
        max_args_bytes=settings.tools.max_args_bytes,
    )
    kept = memories(settings, store, hooks, funnel, sinks.metrics, pool)
    return House(
        supervisor=_supervisor(
            settings, store, clock, sinks, policy, switches, gateway, kept, redactor, tainting, trial
        ),
        gateway=gateway,
        store=store,
        switches=switches,
        admission=admission,
        inflight=inflight,
        rounds=Rounds(effects.ledger, lambda name: _tool_of(registry, declarations, name)),
        perform=perform,
        sinks=sinks,
        clock=clock,
        grace_s=lambda: grace_s(settings, registry),
        declarations=declarations,
    )


def _effects(settings: Settings, store: Store, clock: Clock, pool: ToolThreads, inflight: InFlight) -> Effects:
    tools = settings.tools
    return Effects(
        store,
        clock,
        EffectOptions(
            dedupe_window_s=tools.dedupe_window_s,
            timeout_s=tools.timeouts_s["default"],
            lease_ttl_s=settings.lease_ttl_s,
            results_deferred=settings.results == "deferred",
        ),
        secret=store.secret,
        rebuild=rebuild,
        inflight=inflight,
        classify=_performed,
        accept=lambda tool, value: OutputCheck(tool, tools.max_output_bytes).accept(value),
        in_thread=pool.submit,
    )


def _funnel(
    settings: Settings,
    store: Store,
    clock: Clock,
    sinks: _Sinks,
    policy: Policy,
    switches: Switches,
    admission: Admission,
    effects: Effects,
    perform: Perform,
    redactor: Redactor,
    tainting: Tainting,
) -> Funnel:
    tools = settings.tools
    exempt = GlobSet(settings.agent.loop_detection.exempt, key="agent.loop_detection.exempt")
    return Funnel(
        recorder=Recorder(sinks.metrics, sinks.lines, () if sinks.keeper is None else (sinks.keeper.call,)),
        switches=SwitchGuard(switches),
        loops=LoopGuard(exempt.match),
        allowlist=Allowlist(),
        meter=MeterGuard(max_calls_of(tools.budgets)),
        inputs=Inputs(),
        taint=tainting.labels(),
        state=StateGuard(),
        recall=effects.recall,
        approval=_approval(settings, store, clock, policy, tainting, redactor),
        admission=admission,
        claim=effects.claim,
        retry=Retry(
            retries_for(settings), admission, _before_attempt(switches, effects, store.leases), switches.safe_mode
        ),
        timeout=Timeout(timeout_for(settings)),
        outputs=Outputs(OutputOptions(settings.validation.output.fail_closed, tools.max_output_bytes)),
        perform=perform,
    )


def _approval(
    settings: Settings, store: Store, clock: Clock, policy: Policy, tainting: Tainting, redactor: Redactor
) -> Guard[Any]:
    options = ApprovalOptions(settings.approvals.wait_s, settings.approvals.expires_s)
    rule_for, rendered = tainting.rule_for, render_with(redactor)

    def approvals(required_for: Callable[[ToolSpec], str | Approval | None]) -> Approvals:
        return Approvals(
            store.approvals,
            clock,
            options,
            required_for=required_for,
            policy_version=tainting.version(policy.version),
            render=lambda call: rendered(call) + described(rule_for, call),
        )

    return WhenTainted(approvals(lambda tool: tool.approval), approvals(lambda _: "required"), rule_for)


def _supervisor(
    settings: Settings,
    store: Store,
    clock: Clock,
    sinks: _Sinks,
    policy: Policy,
    switches: Switches,
    gateway: Gateway,
    kept: Memories,
    redactor: Redactor,
    tainting: Tainting,
    trial: Trial,
) -> Supervisor:
    agent = settings.agent
    machinery = Machinery(
        gateway=gateway,
        switches=switches,
        prices=Prices(settings.prices),
        stopping=StopOptions(agent.stop_on, agent.max_refusals, agent.on_stop == "wrap_up"),
        threads=ToolThreads(AGENT_THREADS),
        metrics=sinks.metrics,
        tenants=TenantBudgets(store.tenants, clock, tenant_caps(settings)),
        clock=clock,
        leases=store.leases,
        remembering=kept.remembering,
        keeping=kept.keeping,
        abandon_after=settings.abandon_after,
        orphan_after_s=settings.orphan_after_s,
        unpriced_allowed=settings.prices_unknown == "allow",
        asks=trial.asks,
    )
    scopes = ScopeMaker(
        clock=clock,
        policy=policy,
        loops=as_options(LoopOptions, agent.loop_detection),
        budgets_for=budgets_for(settings),
        observing=settings.mode == "observe",
        trace_kept=TRACE_KEPT,
        lineage=tainting.lineage,
        growth_factor=settings.memory.growth_factor,
    )
    facts = {"profile": settings.profile, "mode": settings.mode}
    receivers: list[RecordSink] = [sinks.lines.run]
    if sinks.records is not None:
        receivers.append(sinks.records.put)
    secretary = Secretary(store, store, store.approvals, clock, sinks.metrics, redactor, receivers, facts)
    return Supervisor(machinery, scopes, secretary, store, store.history)


def _before_attempt(
    switches: Switches, effects: Effects, leases: Ownership
) -> Callable[[Call[Any]], Awaitable[None] | None]:
    """Return what is asked before every attempt: switches; of a write, its lease; of one sent before, the journal."""

    async def asked(first: Awaitable[None] | None, call: Call[Any]) -> None:
        if first is not None:
            await first
        lease = call.run.lease
        if call.key is not None and lease is not None and lease.until_s <= call.run.clock.boot():
            await hold_on(leases, lease)
        second = effects.before_attempt(call)
        if second is not None:
            await second

    def before_attempt(call: Call[Any]) -> Awaitable[None] | None:
        first = switches.check_attempt(call)
        if first is None and not call.evidence:
            lease = call.run.lease
            if call.key is None or lease is None or call.run.clock.boot() < lease.until_s:
                return None
        return asked(first, call)

    return before_attempt


def _tool_of(registry: Registry, declarations: Declarations, name: str) -> ToolSpec | None:
    """Return a tool of this process, as the file sees it."""
    spec = registry.get(name)
    return None if spec is None else declarations.settled(spec)


def _performed(error: BaseException, tool: ToolSpec) -> tuple[str, str]:
    failure = classify(error, tool.outcome)
    return failure.performed, failure.kind
