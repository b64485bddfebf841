"""The sections of the configuration file, as frozen values; their defaults are profile `default`.

Where a cap may be None, None means unlimited. Where a section is one guard's options, it *is* these options,
and adds only the ranges that a file must keep; the others are turned into options by `build.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from interlock.budget.loops import LoopOptions
from interlock.budget.meter import BudgetOptions
from interlock.budget.prices import ModelPrice
from interlock.config.quantities import (
    Bytes,
    Count,
    CountOrZero,
    Days,
    Globs,
    Lifetime,
    Seconds,
    Tokens,
    Usd,
    Word,
    nothing,
)
from interlock.config.tool_sections import ToolSettings
from interlock.core.reasons import StopReason
from interlock.memory.options import MemoryOptions
from interlock.policy.switches import SafeModeOptions
from interlock.record.lines import LoggingOptions
from interlock.record.redact import DEFAULT_KEYS
from interlock.supervisor.stopping import DEFAULT_STOP_ON

__all__ = [
    "AgentSettings",
    "ApprovalSettings",
    "Budgets",
    "InputSettings",
    "LoggingSettings",
    "LoopSettings",
    "MemorySettings",
    "NarrowBudgets",
    "OutputSettings",
    "PriceSettings",
    "RecordSettings",
    "RetentionSettings",
    "SafeModeSettings",
    "Settings",
    "TenantSettings",
    "ValidationSettings",
]


@dataclass(frozen=True, slots=True)
class Budgets(BudgetOptions):
    """Caps of one run; null is unlimited.

    Attributes:
        max_steps: Model turns.
        max_seconds: Seconds in which a worker has the run; cuts reads and model turns, never a write under way.
        max_tool_calls: Calls of tools, answered ones included.
        max_usd: Dollars; a model turn whose worst case would break it is not started.
        max_unique_calls: Calls that differ in tool or arguments.
        max_tokens: Tokens of all model turns, in and out.
        reserve_usd_per_turn: Dollars set aside for a model turn that does not declare its worst case.
        max_age_s: Seconds since the run began or was queued, those included in which no worker had it.
    """

    max_steps: Count | None = 250
    max_seconds: Seconds | None = 900.0
    max_tool_calls: CountOrZero | None = 250
    max_usd: Usd | None = 1.0
    max_unique_calls: CountOrZero | None = None
    max_tokens: Tokens | None = None
    reserve_usd_per_turn: Usd | None = None
    max_age_s: Seconds | None = None


@dataclass(frozen=True, slots=True)
class NarrowBudgets:
    """Caps that narrow those of `agent.budgets` for one tenant; a key left out narrows nothing.

    Attributes:
        max_steps: Model turns.
        max_seconds: Wall-clock seconds.
        max_tool_calls: Calls of tools.
        max_usd: Dollars.
        max_unique_calls: Calls that differ in tool or arguments.
        max_tokens: Tokens of all model turns.
        max_age_s: Seconds since the run began or was queued.
        max_usd_per_day: Dollars of all runs of this tenant together, by UTC day.
        max_concurrent_runs: Runs of this tenant at the same time; a further one waits for its turn.
    """

    max_steps: Count | None = None
    max_seconds: Seconds | None = None
    max_tool_calls: CountOrZero | None = None
    max_usd: Usd | None = None
    max_unique_calls: CountOrZero | None = None
    max_tokens: Tokens | None = None
    max_age_s: Seconds | None = None
    max_usd_per_day: Usd | None = None
    max_concurrent_runs: Count | None = None


@dataclass(frozen=True, slots=True)
class LoopSettings(LoopOptions):
    """When a run is going round in circles; null switches a rule off.

    Attributes:
        repeated_calls_threshold: Equal calls with equal outputs: this one is answered from the record; two more stop.
        no_progress_threshold: Calls in a row that brought no new result.
        exempt: Tools (globs) that may repeat, e.g. polling.
    """

    repeated_calls_threshold: Annotated[int, Field(ge=2, le=10_000)] | None = 3
    no_progress_threshold: Annotated[int, Field(ge=2, le=10_000)] | None = 6
    exempt: Globs = ()


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What a run may use up, and when it ends.

    Attributes:
        budgets: Caps of one run.
        loop_detection: When a run is going round in circles.
        max_refusals: Model turns in a row, of nothing but refusals, that end the run; null never does.
        stop_on: Stop reasons that end the run when a call meets them; others are told to the model.
        on_stop: `wrap_up` allows one last model turn without tools.
    """

    budgets: Budgets = Budgets()
    loop_detection: LoopSettings = LoopSettings()
    max_refusals: Count | None = 3
    stop_on: frozenset[StopReason] = DEFAULT_STOP_ON
    on_stop: Literal["wrap_up"] | None = None


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What one tenant may do; it narrows `tools` and `agent.budgets`, never widens them.

    Attributes:
        allow: Tools (globs) this tenant may use; null is every tool that `tools` allows.
        deny: Tools (globs) this tenant may not use.
        scopes: Permissions that this tenant's runs hold; null leaves it to the caller of `gate.run`.
        budgets: Caps that are narrower than `agent.budgets`.
    """

    allow: Globs | None = None
    deny: Globs = ()
    scopes: tuple[Word, ...] | None = None
    budgets: NarrowBudgets = NarrowBudgets()


@dataclass(frozen=True, slots=True)
class InputSettings:
    """How arguments are read.

    Attributes:
        strict: No coercion: `"5"` is not 5.
    """

    strict: bool = True


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """What happens to an output that does not fit its schema.

    Attributes:
        fail_closed: It is withheld; false lets it through and notes it on the record.
    """

    fail_closed: bool = True


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """What is believed of arguments and outputs.

    Attributes:
        input: How arguments are read.
        output: What happens to an output that does not fit.
    """

    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()


@dataclass(frozen=True, slots=True)
class ApprovalSettings:
    """How long a person's yes is waited for.

    Attributes:
        wait_s: Seconds that a call waits before its run is parked.
        expires_s: Seconds after which nobody can approve any more.
    """

    wait_s: Annotated[float, Field(ge=0, le=7 * 86_400)] = 60.0
    expires_s: Seconds = 3600.0


@dataclass(frozen=True, slots=True)
class PriceSettings(ModelPrice):
    """Price of one model, in dollars a million tokens.

    Attributes:
        input_usd_per_mtok: Of what is sent.
        output_usd_per_mtok: Of what comes back.
    """

    input_usd_per_mtok: Usd
    output_usd_per_mtok: Usd


@dataclass(frozen=True, slots=True)
class LoggingSettings(LoggingOptions):
    """Log lines: one a call and one a run.

    Attributes:
        level: `info` shows successful calls, `warning` only refusals and stops.
        structured: JSON lines; false prints the same as text.
        include: Fields of a line; null is all. The stored record is always whole.
        redact: Keys whose values are never written, at any depth, as suffix too (`access_token`).
        to: `stderr`, or the path of a file.
    """

    level: Literal["debug", "info", "warning", "error"] = "warning"
    structured: bool = True
    include: tuple[Word, ...] | None = None
    redact: tuple[Word, ...] = DEFAULT_KEYS
    to: Word = "stderr"


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What is written down of runs.

    Attributes:
        path: File of JSON lines, one a run; null writes none. The store has every record in any case.
        calls: Calls reach the store while a run is under way, in the background (a crash loses half a second
            of them); false: only with the record, when the run ends.
    """

    path: Word | None = None
    calls: bool = True


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How old what the store keeps may become before `interlock purge` drops it; null keeps it for ever.

    Attributes:
        content_days: Days after which task, output, record and results of a request go; that it was done stays known.
        keys_days: Days after which a request goes with its writes' keys: at least tools.dedupe_window_s.
    """

    content_days: Days | None = 30.0
    keys_days: Days | None = 90.0


@dataclass(frozen=True, slots=True)
class MemorySettings(MemoryOptions):
    """What agents remember (`run.memory`) and keep (`run.artifacts`).

    Attributes:
        default_ttl_s: Seconds that a fact or artifact lives for which none are asked.
        max_ttl_s: The longest life that may be asked for.
        max_tokens: Most that one recall may add to a prompt, framing included.
        max_fact_bytes: Of one fact's text.
        max_artifact_bytes: Of one artifact's JSON.
        tainted: What is written after untrusted output: trusted little (`label`), or kept from agents (`quarantine`).
        unverified: Facts past their `verify_by` that nobody confirms: not recalled (`withhold`), or marked (`label`).
        growth_factor: A prompt that has grown to this many times its run's first is reported; null never.
    """

    default_ttl_s: Lifetime = 2_592_000.0
    max_ttl_s: Lifetime = 31_536_000.0
    max_tokens: Count = 1_000
    max_fact_bytes: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    max_artifact_bytes: Bytes = 1_000_000
    tainted: Literal["label", "quarantine"] = "label"
    unverified: Literal["withhold", "label"] = "withhold"
    growth_factor: Annotated[float, Field(gt=1, le=1_000)] | None = 4.0


@dataclass(frozen=True, slots=True)
class SafeModeSettings(SafeModeOptions):
    """The narrow mode for emergencies: reads only, one attempt each.

    Attributes:
        enabled: On by this file (the store can switch it on too, while runs are under way).
        allowed_tools: Tools (globs) that may still be used; a write never is.
    """

    enabled: bool = False
    allowed_tools: Globs = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration.

    Attributes:
        profile: Named set of values that this file builds on.
        mode: `observe` refuses nothing but kill and records what it would have refused.
        store: `sqlite:///path/file.db`; null is `interlock.db` beside this file or in the working directory.
        replay: Whether results are kept for replay: `on` (sealed), `off` (hashes only) or `plaintext`.
        lease_ttl_s: Seconds after which a worker that gives no sign of life is taken for dead, and its runs taken over.
        abandon_after: Workers in a row that died over a run without recording anything new, before it is given up.
        orphan_after_s: Seconds that a run whose worker died waits for another one; then it is given up.
        results: `awaited`: a write's result is durable before the call returns; `deferred`: soon after.
        agent: What a run may use up, and when it ends.
        tools: What tools may be used, and how.
        tenants: Tenant to what it may do.
        validation: What is believed of arguments and outputs.
        approvals: How long a person's yes is waited for.
        prices: Model to its price, before the price table.
        prices_unknown: Under a dollar cap, a model of unknown price is refused (`refuse`) or runs unpriced (`allow`).
        logging: Log lines.
        record: Where run records go beside the store.
        retention: How old what the store keeps may become before `interlock purge` drops it.
        memory: What agents remember and keep.
        safe_mode: The narrow mode for emergencies.
        shutdown_grace_s: Seconds that closing waits for writes under way; null is the longest remaining timeout.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    profile: Word = "default"
    mode: Literal["enforce", "observe"] = "enforce"
    store: Word | None = None
    replay: Literal["on", "off", "plaintext"] = "on"
    lease_ttl_s: Annotated[float, Field(ge=0.1, le=86_400)] = 5.0
    abandon_after: Annotated[int, Field(ge=1)] = 5
    orphan_after_s: Seconds = 60.0
    results: Literal["awaited", "deferred"] = "awaited"
    agent: AgentSettings = AgentSettings()
    tools: ToolSettings = field(default_factory=ToolSettings)
    tenants: Mapping[Word, TenantSettings] = field(default_factory=nothing)
    validation: ValidationSettings = ValidationSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    prices: Mapping[Word, PriceSettings] = field(default_factory=nothing)
    prices_unknown: Literal["refuse", "allow"] = "refuse"
    logging: LoggingSettings = LoggingSettings()
    record: RecordSettings = RecordSettings()
    retention: RetentionSettings = RetentionSettings()
    memory: MemorySettings = MemorySettings()
    safe_mode: SafeModeSettings = SafeModeSettings()
    shutdown_grace_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
