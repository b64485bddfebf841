"""A tool as the configuration sees it: what the code registered, and what the file says over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from interlock.config.per_tool import PerTool
from interlock.config.sections import Settings
from interlock.config.tainting import Tainting
from interlock.config.tool_sections import WriteSettings
from interlock.core.calls import Effect, OnUnknown, ToolSpec
from interlock.core.errors import ConfigError
from interlock.policy.globs import GlobSet
from interlock.validation.expressions import compile_expression

__all__ = ["Declarations"]

Predicate = Callable[[Any], bool]


class Declarations:
    """Applies `tools.effects`, `writes`, `scopes`, `outcome`, `invariants` and `idempotency_required`.

    Attributes:
        tainting: `tools.untrusted_output` and `tools.when_tainted`.

    Raises:
        ConfigError: A glob or an expression cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        tools = settings.tools
        self._effects = PerTool[Effect](tools.effects, key="tools.effects")
        self._writes = PerTool[WriteSettings](tools.writes, key="tools.writes")
        self._scopes = PerTool[tuple[str, ...]](tools.scopes, key="tools.scopes")
        self._outcome = PerTool[Mapping[int, str]](tools.outcome, key="tools.outcome")
        self._timeouts = PerTool[float](
            {name: s for name, s in tools.timeouts_s.items() if name != "default"}, key="tools.timeouts_s"
        )
        self._invariants = PerTool[tuple[str, ...]](tools.invariants, key="tools.invariants")
        self.tainting = Tainting(settings)
        self._required = GlobSet(tools.idempotency_required, key="tools.idempotency_required")

    def check(self, spec: ToolSpec) -> None:
        """Refuse a registration that the file does not permit.

        Raises:
            ConfigError: `idempotency_required` names a write whose unknown outcome cannot be closed; or `when_tainted`
                names an argument that the tool does not have.
        """
        tool = self.settled(spec)
        if self._required.match(spec.name) and tool.may_write and not _closable(tool):
            raise ConfigError(
                f"tool {spec.name}: tools.idempotency_required names it, so an unknown outcome must be closable: take"
                " a parameter idempotency_key on which the remote dedupes, or give lookup=, or natural=True"
            )

        self.tainting.check(spec)

    def closing(self, name: str) -> OnUnknown | None:
        """Return how the file closes an unknown outcome of this tool; None where it does not say."""
        write = self._writes.get(name)
        return None if write is None else write.on_unknown

    def settled(self, spec: ToolSpec) -> ToolSpec:
        """Return the tool with what the file says of it; the file is the law."""
        name = spec.name
        changes: dict[str, Any] = {}
        effect = self._effects.get(name)
        if effect is not None:
            changes["effect"] = effect
        write = self._writes.get(name)
        if write is not None:
            changes |= _write_changes(spec, write)
        scopes = self._scopes.get(name)
        if scopes is not None:
            changes["scopes"] = spec.scopes | frozenset(scopes)
        timeout_s = self._timeouts.get(name)
        if timeout_s is not None:
            changes["timeout_s"] = timeout_s
        outcome = self._outcome.get(name)
        if outcome is not None:
            changes["outcome"] = outcome
        expressions = self._invariants.get(name)
        if expressions is not None:
            compiled = tuple((text, _compile(name, text)) for text in expressions)
            changes["invariants"] = spec.invariants + compiled
        return replace(spec, **changes) if changes else spec


def _compile(name: str, text: str) -> Predicate:
    return compile_expression(text, key=f"tools.invariants.{name}")


def _closable(tool: ToolSpec) -> bool:
    return tool.natural or tool.on_unknown in (OnUnknown.RESEND, OnUnknown.LOOKUP)


def _write_changes(spec: ToolSpec, write: WriteSettings) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    # A tool that the file names as a write is one, whatever its registration says.
    if spec.effect is Effect.READ:
        changes["effect"] = Effect.WRITE
    if write.natural is not None:
        changes["natural"] = write.natural
        if write.on_unknown is None and write.natural:
            changes["on_unknown"] = OnUnknown.RESEND
    if write.on_unknown is not None:
        _check_on_unknown(spec, write)
        changes["on_unknown"] = write.on_unknown
    if write.identity is not None:
        changes["identity"] = write.identity
    if write.repeat is not None:
        changes["repeat"] = write.repeat
    if write.approval is not None and spec.approval is None:
        changes["approval"] = write.approval
    return changes


def _check_on_unknown(spec: ToolSpec, write: WriteSettings) -> None:
    natural = spec.natural if write.natural is None else write.natural
    if not spec.known:
        return
    if write.on_unknown is OnUnknown.LOOKUP and spec.lookup is None:
        raise ConfigError(f"tools.writes.{spec.name}: on_unknown: lookup needs lookup= where the tool is registered")
    if write.on_unknown is OnUnknown.RESEND and not (spec.takes_key or natural):
        raise ConfigError(
            f"tools.writes.{spec.name}: on_unknown: resend needs a tool with a parameter idempotency_key, or natural"
        )
