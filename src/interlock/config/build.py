"""The only place where parts are wired together."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson

from interlock.budget.loops import LoopGuard, LoopOptions
from interlock.budget.meter import BudgetOptions, MeterGuard
from interlock.budget.prices import ModelPrice, Prices
from interlock.config.declarations import Declarations
from interlock.config.per_tool import PerTool
from interlock.config.sections import Settings
from interlock.config.settings import store_url
from interlock.config.tool_sections import ToolBudget
from interlock.core.calls import Call, ToolSpec
from interlock.core.clock import Clock
from interlock.core.errors import ConfigError
from interlock.gateway.gateway import Gateway
from interlock.gateway.pipeline import Funnel
from interlock.gateway.tools import Registry
from interlock.journal.effects import EffectOptions, Effects
from interlock.journal.inflight import InFlight
from interlock.policy.allowlist import Allowlist, Policy, PolicyOptions, TenantPolicy
from interlock.policy.approval import ApprovalOptions, Approvals
from interlock.policy.globs import GlobSet
from interlock.policy.switches import SafeModeOptions, Switches, SwitchGuard
from interlock.record.keeper import TraceKeeper
from interlock.record.lines import LineSink, LoggingOptions
from interlock.record.metrics import Metrics
from interlock.record.recorder import Recorder
from interlock.record.redact import Redactor
from interlock.record.writer import LineWriter
from interlock.resilience.admission import Admission, BreakerOptions, LimitOptions
from interlock.resilience.classify import classify
from interlock.resilience.perform import Perform
from interlock.resilience.retry import Retry, RetryOptions
from interlock.resilience.threads import ToolThreads
from interlock.resilience.timeout import Timeout
from interlock.stores.sqlite import SqliteStore
from interlock.supervisor.machinery import Machinery
from interlock.supervisor.scopes import ScopeMaker
from interlock.supervisor.secretary import RecordSink, Secretary
from interlock.supervisor.stopping import StopOptions
from interlock.supervisor.supervisor import Supervisor
from interlock.validation.inputs import Inputs
from interlock.validation.outputs import OutputOptions, Outputs, rebuild

__all__ = ["House", "build", "open_store"]

AGENT_THREADS = 1024


@dataclass(frozen=True, slots=True)
class House:
    """A wired gate: what `Interlock` hands out and closes."""

    supervisor: Supervisor
    gateway: Gateway
    store: SqliteStore
    switches: Switches
    admission: Admission
    metrics: Metrics
    inflight: InFlight
    lines: LineSink
    records: LineWriter | None
    keeper: TraceKeeper | None
    clock: Clock
    grace_s: Callable[[], float]

    async def aclose(self) -> None:
        """Stop runs, wait for writes under way, and close sinks and store."""
        await self.supervisor.aclose()
        await self.inflight.aclose(self.grace_s())
        self.close()

    def close(self) -> None:
        """Close sinks and store; writes what is queued."""
        self.lines.close()
        for background in (self.records, self.keeper):
            if background is not None:
                background.close()
        self.store.close()


def open_store(
    url: str | None, settings: Settings, *, clock: Clock, environ: Mapping[str, str] = os.environ
) -> SqliteStore:
    """Open the store that `url`, INTERLOCK_STORE or the settings name.

    Raises:
        ConfigError: The URL names no store of ours. StoreUnavailable: it cannot be opened.
    """
    address = store_url(settings, url, environ)
    if "://" in address and not address.startswith("sqlite:///"):
        scheme = address.partition("://")[0]
        raise ConfigError(f"store: {scheme}:// is not supported; use sqlite:///path/file.db or sqlite:///:memory:")
    return SqliteStore(address, clock=clock, replay=settings.replay, environ=environ)


def build(
    settings: Settings, registry: Registry, declarations: Declarations, *, store: str | None, clock: Clock
) -> House:
    """Wire everything that one gate needs.

    Raises:
        ConfigError: The settings do not fit together. StoreUnavailable: the store cannot be opened.
    """
    kept = open_store(store, settings, clock=clock)
    try:
        return _wire(settings, registry, declarations, kept, clock)
    except BaseException:
        kept.close()
        raise


def _wire(
    settings: Settings, registry: Registry, declarations: Declarations, store: SqliteStore, clock: Clock
) -> House:
    tools = settings.tools
    observing = settings.mode == "observe"
    metrics = Metrics()
    redactor = Redactor(settings.logging.redact)
    lines = LineSink(_as(LoggingOptions, settings.logging), clock)
    records = LineWriter(settings.record.path) if settings.record.path is not None else None
    keeper = TraceKeeper(store.trace_soon) if settings.record.calls else None
    policy = Policy(_policy(settings))
    switches = Switches(store.switches, clock, _as(SafeModeOptions, settings.safe_mode))
    pool = ToolThreads()
    limits = PerTool(tools.limits, key="tools.limits")
    breaker = _as(BreakerOptions, tools.circuit_breakers)
    admission = Admission(
        clock,
        lambda tool: _as(LimitOptions, limits.get(tool.name)) if limits.get(tool.name) else LimitOptions(),
        lambda _tool: breaker if breaker.enabled and not observing else None,
        pool,
        tools.max_abandoned_threads,
    )
    exempt = GlobSet(settings.agent.loop_detection.exempt, key="agent.loop_detection.exempt")
    inflight = InFlight(store)
    effects = Effects(
        store,
        clock,
        EffectOptions(dedupe_window_s=tools.dedupe_window_s, timeout_s=tools.timeouts_s["default"]),
        secret=store.secret,
        rebuild=rebuild,
        inflight=inflight,
        classify=_performed,
    )
    funnel = Funnel(
        recorder=Recorder(metrics, lines, () if keeper is None else (keeper.call,)),
        switches=SwitchGuard(switches),
        loops=LoopGuard(exempt.match),
        allowlist=Allowlist(),
        meter=MeterGuard(_max_calls(tools.budgets)),
        inputs=Inputs(),
        recall=effects.recall,
        approval=Approvals(
            store.approvals,
            clock,
            ApprovalOptions(settings.approvals.wait_s, settings.approvals.expires_s),
            required_for=lambda tool: tool.approval,
            policy_version=policy.version,
            render=_renderer(redactor),
        ),
        admission=admission,
        claim=effects.claim,
        retry=Retry(_retries(settings), admission, _before_attempt(switches, effects), switches.safe_mode),
        timeout=Timeout(_timeouts(settings)),
        outputs=Outputs(OutputOptions(settings.validation.output.fail_closed, tools.max_output_bytes)),
        perform=Perform(pool),
    )
    gateway = Gateway(
        funnel, registry, settled=declarations.settled, secret=store.secret, max_args_bytes=tools.max_args_bytes
    )
    machinery = Machinery(
        gateway=gateway,
        switches=switches,
        prices=Prices({name: _as(ModelPrice, price) for name, price in settings.prices.items()}),
        stopping=StopOptions(settings.agent.stop_on, settings.agent.max_refusals, settings.agent.on_stop == "wrap_up"),
        threads=ToolThreads(AGENT_THREADS),
        clock=clock,
        unpriced_allowed=settings.prices_unknown == "allow",
    )
    scopes = ScopeMaker(
        clock=clock,
        policy=policy,
        loops=_as(LoopOptions, settings.agent.loop_detection),
        budgets_for=_budgets(settings),
        observing=observing,
        trace_kept=2_000,
    )
    sinks: list[RecordSink] = [lines.run]
    if records is not None:
        sinks.append(records.put)
    secretary = Secretary(
        store,
        store,
        store.approvals,
        clock,
        metrics,
        redactor,
        sinks,
        {"profile": settings.profile, "mode": settings.mode},
    )
    return House(
        supervisor=Supervisor(machinery, scopes, secretary, store),
        gateway=gateway,
        store=store,
        switches=switches,
        admission=admission,
        metrics=metrics,
        inflight=inflight,
        lines=lines,
        records=records,
        keeper=keeper,
        clock=clock,
        grace_s=lambda: _grace_s(settings, registry),
    )


def _before_attempt(switches: Switches, effects: Effects) -> Callable[[Call[Any]], Awaitable[None] | None]:
    """Return what is asked before every attempt: the switches, then, for a write sent before, the journal."""

    async def both(first: Awaitable[None] | None, call: Call[Any]) -> None:
        if first is not None:
            await first
        second = effects.before_attempt(call)
        if second is not None:
            await second

    def before_attempt(call: Call[Any]) -> Awaitable[None] | None:
        first = switches.check_attempt(call)
        return None if first is None and not call.evidence else both(first, call)

    return before_attempt


def _grace_s(settings: Settings, registry: Registry) -> float:
    """Return how long closing waits for writes: as set, else as long as any attempt may last."""
    if settings.shutdown_grace_s is not None:
        return settings.shutdown_grace_s
    timeout_for = _timeouts(settings)
    return max([settings.tools.timeouts_s["default"], *(timeout_for(spec) for spec in registry)])


def _as(kind: Any, section: Any) -> Any:
    """Return a guard's options out of a section that has the same words; a section that is one already, itself."""
    if isinstance(section, kind):
        return section
    return kind(**{field.name: getattr(section, field.name) for field in fields(kind) if hasattr(section, field.name)})


def _policy(settings: Settings) -> PolicyOptions:
    tenants = {
        name: TenantPolicy(rules.allow, rules.deny, None if rules.scopes is None else frozenset(rules.scopes))
        for name, rules in settings.tenants.items()
    }
    return PolicyOptions(settings.tools.allow, settings.tools.deny, tenants)


def _budgets(settings: Settings) -> Callable[[str], BudgetOptions]:
    base: BudgetOptions = _as(BudgetOptions, settings.agent.budgets)
    narrowed = {}
    for name, rules in settings.tenants.items():
        caps = {field.name: getattr(rules.budgets, field.name) for field in fields(rules.budgets)}
        narrower = {
            key: cap if getattr(base, key) is None else min(cap, getattr(base, key))
            for key, cap in caps.items()
            if cap is not None
        }
        narrowed[name] = replace(base, **narrower)
    return lambda tenant_id: narrowed.get(tenant_id, base)


def _max_calls(budgets: Mapping[str, ToolBudget]) -> Callable[[str], int | None]:
    table = PerTool(budgets, key="tools.budgets")

    def max_calls_of(name: str) -> int | None:
        budget = table.get(name)
        return None if budget is None else budget.max_calls

    return max_calls_of


def _retries(settings: Settings) -> Callable[[ToolSpec], RetryOptions]:
    retries = settings.tools.retries
    table = PerTool(settings.tools.budgets, key="tools.budgets")

    def options_for(tool: ToolSpec) -> RetryOptions:
        budget = table.get(tool.name)
        return RetryOptions(
            max_attempts=retries.max_attempts,
            retryable_status=frozenset(retries.retryable_status),
            backoff_ms=tuple(retries.backoff_ms),
            max_retries=None if budget is None else budget.max_retries,
        )

    return options_for


def _timeouts(settings: Settings) -> Callable[[ToolSpec], float]:
    timeouts = settings.tools.timeouts_s
    table = PerTool({name: s for name, s in timeouts.items() if name != "default"}, key="tools.timeouts_s")

    def timeout_for(tool: ToolSpec) -> float:
        own = table.get(tool.name)
        # The file is the law; then what the code registered; then the default.
        return own if own is not None else tool.timeout_s if tool.timeout_s is not None else timeouts["default"]

    return timeout_for


def _renderer(redactor: Redactor) -> Callable[[Call[Any]], str]:
    def render(call: Call[Any]) -> str:
        return f"{call.tool.name} {orjson.dumps(redactor.value(call.args), default=str).decode()}"

    return render


def _performed(error: BaseException, tool: ToolSpec) -> tuple[str, str]:
    failure = classify(error, tool.outcome)
    return failure.performed, failure.kind
