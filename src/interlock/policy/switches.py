"""Kill switches and safe mode: set once, seen by every worker within a quarter of a second.

Switches live in the store. Each process holds a snapshot of them that is at most 0.25 s old before every
call and model turn; the store reads them once more inside the transaction that commits a write's intent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from interlock.core.errors import ConfigError

__all__ = [
    "SafeModeOptions",
    "Switch",
    "SwitchKind",
    "SwitchScope",
    "SwitchSnapshot",
    "SwitchStore",
    "new_switch",
]


class SwitchScope(StrEnum):
    """What a switch concerns. RUN, TENANT, AGENT and GLOBAL stop runs; TOOL refuses one tool (or a glob)."""

    GLOBAL = "global"
    TENANT = "tenant"
    AGENT = "agent"
    TOOL = "tool"
    RUN = "run"


class SwitchKind(StrEnum):
    """What a switch does: stop, or permit only the few reads of safe mode."""

    KILL = "kill"
    SAFE_MODE = "safe_mode"


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch in force.

    Attributes:
        subject: Tenant id, agent name, tool name or glob, run id (a root's covers its children); "" for GLOBAL.
        reason, actor: Why, and who; never empty. For people, not for the model.
        set_at, expires_at: Wall-clock seconds (Unix); None means until lifted.
    """

    scope: SwitchScope
    subject: str
    kind: SwitchKind
    reason: str
    actor: str
    set_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class SwitchSnapshot:
    """All switches in force at one moment, kills and safe mode, in the order in which they were set."""

    switches: tuple[Switch, ...] = ()


class SwitchStore(Protocol):
    """Where switches are kept. One row for each (scope, subject, kind); who did what stays on record."""

    async def read(self) -> SwitchSnapshot:
        """Return the switches in force: set, not lifted, not expired by the store's clock.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        ...

    async def set(
        self,
        scope: SwitchScope,
        subject: str,
        kind: SwitchKind,
        *,
        reason: str,
        actor: str,
        expires_at: float | None = None,
    ) -> Switch:
        """Set a switch (checked by `new_switch`), or replace the one that stands; durable when it returns.

        Raises:
            ConfigError: Reason or actor is empty, or the subject does not fit the scope.
            StoreUnavailable: It is not known that the switch is set.
        """
        ...

    async def lift(self, scope: SwitchScope, subject: str, kind: SwitchKind, *, reason: str, actor: str) -> bool:
        """Lift a switch; return whether one stood. Durable when it returns. Raises as `set`."""
        ...


def new_switch(
    scope: SwitchScope | str,
    subject: str,
    kind: SwitchKind | str,
    *,
    reason: str,
    actor: str,
    set_at: float,
    expires_at: float | None = None,
) -> Switch:
    """Return a switch whose words are checked; stores call it before they write.

    Raises:
        ConfigError: Which of the words is wrong.
    """
    try:
        scope, kind = SwitchScope(scope), SwitchKind(kind)
    except ValueError as error:
        raise ConfigError(f"switch: {error}") from None
    reason, actor, subject = reason.strip(), actor.strip(), subject.strip()
    if not reason or not actor:
        raise ConfigError("switch: say why (reason) and who (actor); neither may be empty")
    if (scope is SwitchScope.GLOBAL) != (not subject):
        raise ConfigError(f"switch: scope {scope} takes {'no' if scope is SwitchScope.GLOBAL else 'a'} subject")
    if kind is SwitchKind.SAFE_MODE and scope is not SwitchScope.GLOBAL:
        raise ConfigError("switch: safe mode is global; to stop one tenant, agent, tool or run use kill")
    if expires_at is not None and not expires_at > set_at:
        raise ConfigError("switch: it would have expired before it is set (expires_at, Unix seconds)")
    return Switch(scope, subject, kind, reason, actor, set_at, expires_at)


@dataclass(frozen=True, slots=True)
class SafeModeOptions:
    """Safe mode, as the file says it: reads only, and of these only `allowed_tools` (globs)."""

    enabled: bool = False
    allowed_tools: Sequence[str] = ()
