"""What a valid configuration still leaves open, by the article's three rules.

No write that can neither be repeated safely nor is approved; no run without caps; no run without a record.
Beside these, what is unlimited or loosened is said aloud.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from interlock.config.sections import Budgets, Settings
from interlock.core.calls import Effect, OnUnknown, ToolSpec
from interlock.policy.globs import GlobSet

__all__ = ["Finding", "warnings"]

T = TypeVar("T")

_CAPS = {"max_usd": "dollar", "max_steps": "step", "max_seconds": "time"}
# Doubts of these classes are closed, or were knowingly left to the model.
_ANSWERED = (OnUnknown.RESEND, OnUnknown.LOOKUP, OnUnknown.TELL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a configuration.

    Attributes:
        level: `warning`: against the article's rules; `note`: worth knowing.
        key: Where to change it.
        text: What it means and what to write.
    """

    level: Literal["warning", "note"]
    key: str
    text: str


def warnings(settings: Settings, tools: Iterable[ToolSpec] | None = None) -> list[Finding]:
    """Return what to know about these settings, warnings first.

    Args:
        settings: As loaded.
        tools: The registered tools, where they are known; else the file alone is judged, in which a tool of
            undeclared effect is a write.
    """
    found = [
        *(_unsafe_writes(settings) if tools is None else _unsafe_tools(settings, tools)),
        *_missing_caps(settings),
        *_missing_record(settings),
        *_loosened(settings),
        *_unlimited(settings),
    ]
    return sorted(found, key=lambda finding: finding.level != "warning")


def _unsafe_writes(settings: Settings) -> Iterator[Finding]:
    tools = settings.tools
    if tools.allow is None:
        yield Finding("note", "tools.allow", "left out: the tools that the code registers are the allow list")
        return
    deny, effects = GlobSet(tools.deny), GlobSet(tools.effects)
    declared = (*tools.effects, *tools.writes, *tools.idempotency_required)
    for name in tools.allow:
        if name == "*":
            yield Finding("warning", "tools.allow", "`*` allows every tool: name those that are needed")
        elif "*" in name or "?" in name:
            glob = GlobSet((name,))
            if not any(other == name or glob.match(other) for other in declared):
                yield _undeclared(name)
        elif deny.match(name) is None:
            effect = _said(effects, tools.effects, name)
            if effect is not Effect.READ and not _made_safe(settings, name):
                # A name under `writes` is said to be a write as clearly as one under `effects`.
                yield _unsafe(name) if effect or name in tools.writes else _undeclared(name)


def _unsafe_tools(settings: Settings, specs: Iterable[ToolSpec]) -> Iterator[Finding]:
    tools = settings.tools
    allow = None if tools.allow is None else GlobSet(tools.allow)
    deny, effects = GlobSet(tools.deny), GlobSet(tools.effects)
    for spec in specs:
        listed = spec.allow or _closes(spec) if allow is None else allow.match(spec.name) is not None
        if not listed or deny.match(spec.name) is not None:
            continue
        effect = _said(effects, tools.effects, spec.name) or spec.effect
        if effect is Effect.READ or _made_safe(settings, spec.name):
            continue
        if spec.approval is None and not _closes(spec):
            yield _unsafe(spec.name)


def _closes(spec: ToolSpec) -> bool:
    return spec.natural or spec.on_unknown in _ANSWERED


def _made_safe(settings: Settings, name: str) -> bool:
    """Whether the file says how an unknown outcome of this write is closed, or that a person approves it."""
    tools = settings.tools
    if GlobSet(tools.idempotency_required).match(name) is not None:
        return True
    write = _said(GlobSet(tools.writes), tools.writes, name)
    if write is None:
        return False
    return bool(write.natural) or write.approval is not None or write.on_unknown in _ANSWERED


def _said(globs: GlobSet, table: Mapping[str, T], name: str) -> T | None:
    pattern = globs.match(name)
    return None if pattern is None else table[pattern]


def _unsafe(name: str) -> Finding:
    text = (
        f"{name} is a write that can neither be repeated safely nor is approved: declare on_unknown (resend or "
        "lookup), natural: true or approval: required, or do not allow it"
    )
    return Finding("warning", f"tools.writes.{name}", text)


def _undeclared(name: str) -> Finding:
    text = (
        f"{name} is allowed and its effect is not declared here: unless the code says more it is a write that can "
        f'neither be repeated safely nor is approved; declare it (effects: {{"{name}": read}}, or tools.writes)'
    )
    return Finding("warning", "tools.effects", text)


def _missing_caps(settings: Settings) -> Iterator[Finding]:
    for cap, word in _CAPS.items():
        if getattr(settings.agent.budgets, cap) is None:
            text = f"null: no {word} cap; a run that goes wrong is not stopped by it"
            yield Finding("warning", f"agent.budgets.{cap}", text)


def _missing_record(settings: Settings) -> Iterator[Finding]:
    if settings.record.path is None and settings.store is not None and ":memory:" in settings.store:
        text = "no record sink: the store is in memory and record.path is null; a run leaves nothing behind"
        yield Finding("warning", "record.path", text)


def _loosened(settings: Settings) -> Iterator[Finding]:
    tools = settings.tools
    if settings.mode == "observe":
        yield Finding("warning", "mode", "observe: nothing but kill is refused")
    if not settings.validation.output.fail_closed:
        text = "false: outputs that do not fit their schema reach the model"
        yield Finding("warning", "validation.output.fail_closed", text)
    if not tools.circuit_breakers.enabled:
        yield Finding("warning", "tools.circuit_breakers.enabled", "false: a failing tool is called on and on")
    if settings.prices_unknown == "allow" and settings.agent.budgets.max_usd is not None:
        yield Finding("warning", "prices_unknown", "allow: models of unknown price pass the dollar cap unseen")
    if settings.replay == "plaintext":
        yield Finding("note", "replay", "plaintext: results lie unsealed in the store")
    writes = GlobSet(tools.writes)
    for name in settings.safe_mode.allowed_tools:
        if writes.match(name) is not None:
            yield Finding("note", "safe_mode.allowed_tools", f"{name} is a write: safe mode refuses it although listed")
    for name, write in tools.writes.items():
        if write.on_unknown in {OnUnknown.STOP, OnUnknown.TELL} and GlobSet(tools.idempotency_required).match(name):
            text = f"on_unknown: {write.on_unknown} contradicts tools.idempotency_required: use resend or lookup"
            yield Finding("warning", f"tools.writes.{name}", text)


def _unlimited(settings: Settings) -> Iterator[Finding]:
    for name in Budgets.__dataclass_fields__:
        if name not in _CAPS and name != "reserve_usd_per_turn" and getattr(settings.agent.budgets, name) is None:
            yield Finding("note", f"agent.budgets.{name}", "null: unlimited")
    for name in ("repeated_calls_threshold", "no_progress_threshold"):
        if getattr(settings.agent.loop_detection, name) is None:
            yield Finding("warning", f"agent.loop_detection.{name}", "null: this loop rule is off")
    if settings.agent.max_refusals is None:
        yield Finding("note", "agent.max_refusals", "null: a run of nothing but refusals goes on")
