"""Section `tools`: what tools may be used, and how; defaults are profile `default`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from interlock.config.quantities import AttemptSeconds, Bytes, Count, CountOrZero, Glob, Globs, Seconds, Word, nothing
from interlock.core.calls import Effect, OnUnknown, Repeat
from interlock.policy.taint import TaintRule
from interlock.resilience.admission import BreakerOptions, LimitOptions

__all__ = [
    "BreakerSettings",
    "LimitSettings",
    "RetrySettings",
    "TaintSettings",
    "ToolBudget",
    "ToolSettings",
    "WriteSettings",
]

DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """How one tool's writes are made safe; a key left out leaves what the code registered.

    Attributes:
        on_unknown: What to do when nobody knows whether the write happened: resend, lookup, stop or tell.
        natural: Repeating it is harmless, even after a later write to the same object.
        identity: Arguments that identify the effect.
        repeat: What an equal second write means: collapse, allow or ask.
        approval: `required`: a person says yes before each.
    """

    on_unknown: OnUnknown | None = None
    natural: bool | None = None
    identity: tuple[Word, ...] | None = None
    repeat: Repeat | None = None
    approval: Literal["required"] | None = None


@dataclass(frozen=True, slots=True)
class ToolBudget:
    """Caps of one tool in one run; null is unlimited.

    Attributes:
        max_calls: Calls of this tool.
        max_retries: Re-sends of this tool, over all its calls.
    """

    max_calls: CountOrZero | None = None
    max_retries: CountOrZero | None = None


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """When an attempt is tried again; the outcome class decides first, this only narrows.

    Attributes:
        max_attempts: Attempts of one call, the first included.
        retryable_status: HTTP statuses worth another attempt.
        backoff_ms: Upper bound of the n-th wait; the last holds for all further ones.
    """

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    retryable_status: frozenset[Annotated[int, Field(ge=100, le=599)]] = frozenset({429, 500, 502, 503, 504})
    backoff_ms: Annotated[tuple[Annotated[int, Field(ge=0, le=3_600_000)], ...], Field(min_length=1)] = (250, 750, 2000)


@dataclass(frozen=True, slots=True)
class BreakerSettings(BreakerOptions):
    """When a failing tool is left alone for a while.

    Attributes:
        enabled: False never opens a circuit.
        failure_threshold: Failures within the window that open it.
        window_seconds: The window, and how long it stays open before one probe.
    """

    enabled: bool = True
    failure_threshold: Count = 5
    window_seconds: Seconds = 60.0


@dataclass(frozen=True, slots=True)
class LimitSettings(LimitOptions):
    """How hard one tool may be driven by all runs of the process together; null is unlimited.

    Attributes:
        concurrency: Attempts at the same time.
        rate_per_s: Attempts a second, in the long run.
        burst: Attempts at once before the rate holds; null takes the rate, rounded up.
        max_wait_s: Seconds that a call waits for its turn before it is refused.
    """

    concurrency: Count | None = None
    rate_per_s: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    burst: Count | None = None
    max_wait_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0


@dataclass(frozen=True, slots=True)
class TaintSettings(TaintRule):
    """What a call of a tool needs in a run that has read untrusted output; `refuse` alone is short for `then: refuse`.

    Attributes:
        then: `approval`: a person says yes; `refuse`: it is not made.
        arguments: Only calls in which one of these arguments was first said by untrusted output; left out: every call.
    """

    then: Literal["approval", "refuse"]
    arguments: tuple[Word, ...] = ()


def _spelled_out(value: Any) -> Any:
    """Return a rule in full; out of JSON, so that its lists become what they are once it has been read."""
    if isinstance(value, str):
        return {"then": value}
    if isinstance(value, dict) and isinstance(value.get("arguments"), list):
        return value | {"arguments": tuple(value["arguments"])}
    return value


Rule = Annotated[
    TaintSettings,
    BeforeValidator(_spelled_out, json_schema_input_type=TaintSettings | Literal["approval", "refuse"]),
]


@dataclass(frozen=True, slots=True)
class ToolSettings:
    """What tools may be used, and how.

    Attributes:
        allow: Tools (globs) that may be used; left out: what the code registers (reads, and safe writes).
        deny: Tools (globs) that may not be used, whatever `allow` says.
        effects: Glob to `read` or `write`. A tool of unknown effect is a write.
        writes: Tool (or glob) to how its writes are made safe.
        budgets: Tool (or glob) to its caps in one run.
        idempotency_required: Tools (globs) that must be able to close an unknown outcome (`resend` or `lookup`).
        timeouts_s: Tool (or glob) to seconds of one attempt; `default` holds for the others.
        retries: When an attempt is tried again.
        circuit_breakers: When a failing tool is left alone for a while.
        limits: Tool (or glob) to concurrency and rate.
        invariants: Tool (or glob) to conditions on its output, e.g. `output.total >= 0`.
        scopes: Tool (or glob) to permissions that the run must hold.
        outcome: Tool (or glob) to its reading of HTTP statuses, e.g. {409: not_performed}.
        untrusted_output: Tools (globs) whose output others may have written; left out: every tool.
        when_tainted: Tool (or glob) to what its writes need in a run that has read untrusted output, or recalled
            memory of low trust: `approval`, `refuse`, or these for certain arguments only.
        dedupe_window_s: Seconds for which a remote remembers our idempotency key; older doubts are not re-sent.
        max_abandoned_threads: Threads of timed-out sync calls after which the tool is refused.
        max_output_bytes: Of one output, as JSON.
        max_args_bytes: Of one call's arguments, as JSON.
    """

    allow: Globs | None = None
    deny: Globs = ()
    effects: Mapping[Glob, Effect] = field(default_factory=nothing)
    writes: Mapping[Glob, WriteSettings] = field(default_factory=nothing)
    budgets: Mapping[Glob, ToolBudget] = field(default_factory=nothing)
    idempotency_required: Globs = ()
    timeouts_s: Mapping[Glob, AttemptSeconds] = field(
        default_factory=lambda: MappingProxyType({"default": DEFAULT_TIMEOUT_S})
    )
    retries: RetrySettings = RetrySettings()
    circuit_breakers: BreakerSettings = BreakerSettings()
    limits: Mapping[Glob, LimitSettings] = field(default_factory=nothing)
    invariants: Mapping[Glob, tuple[Word, ...]] = field(default_factory=nothing)
    scopes: Mapping[Glob, tuple[Word, ...]] = field(default_factory=nothing)
    outcome: Mapping[Glob, Mapping[Annotated[int, Field(ge=100, le=599)], Literal["not_performed", "unknown"]]] = field(
        default_factory=nothing
    )
    untrusted_output: Globs | None = None
    when_tainted: Mapping[Glob, Rule] = field(default_factory=nothing)
    dedupe_window_s: Annotated[float, Field(ge=0, le=366 * 86_400)] = 86_400.0
    max_abandoned_threads: Count = 8
    max_output_bytes: Bytes = 1_000_000
    max_args_bytes: Bytes = 1_000_000
