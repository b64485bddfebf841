"""From sections of the configuration to the options of the guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import orjson

from interlock.budget.meter import BudgetOptions
from interlock.budget.tenants import TenantCaps
from interlock.config.per_tool import PerTool
from interlock.config.sections import Settings
from interlock.config.tool_sections import LimitSettings, ToolBudget
from interlock.core.calls import Call, ToolSpec
from interlock.gateway.tools import Registry
from interlock.policy.allowlist import PolicyOptions, TenantPolicy
from interlock.record.redact import Redactor
from interlock.resilience.admission import BreakerOptions, LimitOptions
from interlock.resilience.retry import RetryOptions

__all__ = [
    "as_options",
    "breaker_for",
    "budgets_for",
    "grace_s",
    "limits_for",
    "max_calls_of",
    "policy_options",
    "render_with",
    "retries_for",
    "tenant_caps",
    "timeout_for",
]


def as_options(kind: Any, section: Any) -> Any:
    """Return a guard's options out of a section that has the same words; a section that is one already, itself."""
    if isinstance(section, kind):
        return section
    return kind(**{field.name: getattr(section, field.name) for field in fields(kind) if hasattr(section, field.name)})


def breaker_for(settings: Settings) -> Callable[[ToolSpec], BreakerOptions | None]:
    """Return the breaker's options of a tool, or None where it has none."""
    breaker: BreakerOptions = as_options(BreakerOptions, settings.tools.circuit_breakers)
    return lambda _tool: breaker if breaker.enabled else None


def limits_for(settings: Settings) -> Callable[[ToolSpec], LimitOptions]:
    """Return how hard a tool may be driven."""
    table = PerTool[LimitSettings](settings.tools.limits, key="tools.limits")
    unlimited = LimitOptions()
    return lambda tool: table.get(tool.name) or unlimited


def policy_options(settings: Settings) -> PolicyOptions:
    """Return what may be used, for everyone and by tenant."""
    tenants = {
        name: TenantPolicy(rules.allow, rules.deny, None if rules.scopes is None else frozenset(rules.scopes))
        for name, rules in settings.tenants.items()
    }
    return PolicyOptions(settings.tools.allow, settings.tools.deny, tenants)


def budgets_for(settings: Settings) -> Callable[[str], BudgetOptions]:
    """Return the caps of one tenant's runs: the narrower of its own and everybody's."""
    base: BudgetOptions = as_options(BudgetOptions, settings.agent.budgets)
    narrowed = {}
    for name, rules in settings.tenants.items():
        caps = {field.name: getattr(rules.budgets, field.name, None) for field in fields(BudgetOptions)}
        narrower = {
            key: cap if getattr(base, key) is None else min(cap, getattr(base, key))
            for key, cap in caps.items()
            if cap is not None
        }
        narrowed[name] = replace(base, **narrower)
    return lambda tenant_id: narrowed.get(tenant_id, base)


def tenant_caps(settings: Settings) -> dict[str, TenantCaps]:
    """Return what each tenant may use over all its runs."""
    return {name: as_options(TenantCaps, rules.budgets) for name, rules in settings.tenants.items()}


def max_calls_of(budgets: Mapping[str, ToolBudget]) -> Callable[[str], int | None]:
    """Return the cap of one tool in one run."""
    table = PerTool(budgets, key="tools.budgets")

    def cap(name: str) -> int | None:
        budget = table.get(name)
        return None if budget is None else budget.max_calls

    return cap


def retries_for(settings: Settings) -> Callable[[ToolSpec], RetryOptions]:
    """Return when a tool is tried again."""
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


def timeout_for(settings: Settings) -> Callable[[ToolSpec], float]:
    """Return the seconds of one attempt of a tool."""
    timeouts = settings.tools.timeouts_s
    table = PerTool({name: s for name, s in timeouts.items() if name != "default"}, key="tools.timeouts_s")

    def seconds(tool: ToolSpec) -> float:
        own = table.get(tool.name)
        # The file is the law; then what the code registered; then the default.
        return own if own is not None else tool.timeout_s if tool.timeout_s is not None else timeouts["default"]

    return seconds


def grace_s(settings: Settings, registry: Registry) -> float:
    """Return how long closing waits for writes: as set, else as long as any attempt may last."""
    if settings.shutdown_grace_s is not None:
        return settings.shutdown_grace_s
    timeout_of = timeout_for(settings)
    return max([settings.tools.timeouts_s["default"], *(timeout_of(spec) for spec in registry)])


def render_with(redactor: Redactor) -> Callable[[Call[Any]], str]:
    """Return what a person reads of a call that waits for approval."""

    def render(call: Call[Any]) -> str:
        return f"{call.tool.name} {orjson.dumps(redactor.value(call.args), default=str).decode()}"

    return render
