"""Kill switches and safe mode: set once, seen by every worker within a quarter of a second.

Switches live in the store. Each process holds a snapshot of them that is at most 0.25 s old before every
call and model turn; the store reads them once more inside the transaction that commits a write's intent.
A snapshot older than two seconds is as good as none: writes are refused, reads go on. What was decided
under a kill is never softened, not even by `mode: observe`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Protocol, TypeVar

from interlock.core.calls import Call, RunFacts
from interlock.core.clock import Clock
from interlock.core.errors import ConfigError, RunStopped, StoreUnavailable, ToolDenied
from interlock.core.reasons import StopReason
from interlock.policy.globs import GlobSet

__all__ = [
    "FRESH_S",
    "UNREADABLE_S",
    "SafeModeOptions",
    "Switch",
    "SwitchBoard",
    "SwitchKind",
    "SwitchScope",
    "SwitchSnapshot",
    "SwitchStore",
    "Switches",
    "new_switch",
]

# A snapshot may be this old when it decides, and is read anew before; older than UNREADABLE_S it permits no write.
FRESH_S = 0.25
AHEAD_S = 0.15
UNREADABLE_S = 2.0
# How long one caller waits for a read: until the old snapshot is unreadable; less while the store is failing.
PATIENCE_S = UNREADABLE_S - FRESH_S
PATIENCE_WHILE_FAILING_S = 0.25


S = TypeVar("S", bound=RunFacts)


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
        subject: Tenant id, agent name and run id (they cover sub-agents), tool name or glob; "" for GLOBAL.
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
    if scope is SwitchScope.TOOL:
        GlobSet((subject,), key="switch")
    if expires_at is not None and not expires_at > set_at:
        raise ConfigError("switch: it would have expired before it is set (expires_at, Unix seconds)")
    return Switch(scope, subject, kind, reason, actor, set_at, expires_at)


@dataclass(frozen=True, slots=True)
class SafeModeOptions:
    """Safe mode, as the file says it: reads only, and of these only `allowed_tools` (globs)."""

    enabled: bool = False
    allowed_tools: Sequence[str] = ()


class SwitchBoard:
    """One snapshot, compiled: the pure decision that guards, backtests and stores share.

    Attributes:
        safe_mode: Whether the file or the store says so. idle: neither safe mode nor any kill.
    """

    __slots__ = ("_allowed", "_kills", "_tool_globs", "idle", "safe_mode", "snapshot")

    def __init__(self, snapshot: SwitchSnapshot, safe_mode: SafeModeOptions, allowed: GlobSet) -> None:
        kills = {(s.scope, s.subject): s for s in snapshot.switches if s.kind is SwitchKind.KILL}
        self.snapshot = snapshot
        self.safe_mode = safe_mode.enabled or any(s.kind is SwitchKind.SAFE_MODE for s in snapshot.switches)
        self.idle = not kills and not self.safe_mode
        self._allowed = allowed
        self._kills = kills
        self._tool_globs = GlobSet((subject for scope, subject in kills if scope is SwitchScope.TOOL), key="switch")

    def kill_for(self, *, tenant_id: str, agent: str, run_ids: Sequence[str], tool: str | None) -> Switch | None:
        """Return the kill that concerns this, the widest first, or None. `tool=None`: a model turn."""
        kills = self._kills
        if not kills:
            return None
        found = kills.get((SwitchScope.GLOBAL, "")) or kills.get((SwitchScope.TENANT, tenant_id))
        # A sub-agent is named below its parent: `triage/search` is of `triage`.
        for parent in accumulate(agent.split("/"), "{}/{}".format):
            found = found or kills.get((SwitchScope.AGENT, parent))
        for run_id in run_ids:
            found = found or kills.get((SwitchScope.RUN, run_id))
        if found is None and tool is not None:
            glob = self._tool_globs.match(tool)
            found = None if glob is None else kills[SwitchScope.TOOL, glob]
        return found

    def permits(self, tool: str, *, writes: bool) -> bool:
        """Whether safe mode, if it is on, lets this call through: only listed tools, and never a write."""
        return not self.safe_mode or (not writes and self._allowed.match(tool) is not None)


class Switches:
    """The snapshot of one process, shared by all its runs.

    Args:
        store: Where switches are kept.
        safe_mode: What the file says of safe mode; the store can only switch it on.
    """

    def __init__(self, store: SwitchStore, clock: Clock, safe_mode: SafeModeOptions = SafeModeOptions()) -> None:
        self._store = store
        self._clock = clock
        self._options = safe_mode
        self._allowed = GlobSet(safe_mode.allowed_tools, key="safe_mode.allowed_tools")
        self._board = SwitchBoard(SwitchSnapshot(), safe_mode, self._allowed)
        self._read_at_s = float("-inf")
        self._failed_at_s = float("-inf")
        self._failure = ""
        self._reading: asyncio.Task[None] | None = None

    def fresh(self) -> bool:
        """Whether the snapshot is young enough to decide."""
        return self._clock.monotonic() - self._read_at_s <= FRESH_S

    def idle(self) -> bool:
        """Whether the snapshot is fresh and concerns nobody: the fast path of a call.

        One that will soon be too old is read anew meanwhile, so that of many calls none waits for that.
        """
        age_s = self._clock.monotonic() - self._read_at_s
        if age_s > AHEAD_S:
            if age_s > FRESH_S:
                return False
            under_way = self._reading is not None and not self._reading.done()
            # One read under way, on whichever event loop, is enough.
            if not under_way and self._failed_at_s < self._read_at_s:
                self._read_once()
        return self._board.idle

    def readable(self) -> bool:
        """Whether writes may be decided by the snapshot."""
        return self._clock.monotonic() - self._read_at_s <= UNREADABLE_S

    def safe_mode(self) -> bool:
        """Whether safe mode is on, by the file or by the last snapshot."""
        return self._board.safe_mode

    def killed(self, run: RunFacts, tool_name: str | None = None) -> Switch | None:
        """Return the kill that the last snapshot has for this run (and tool), or None."""
        return self._board.kill_for(
            tenant_id=run.tenant_id, agent=run.agent, run_ids=(run.run_id, run.root_run_id), tool=tool_name
        )

    async def refresh(self) -> bool:
        """Read the switches, if the snapshot is not fresh. Callers of one moment share one read.

        Returns whether there is a snapshot that was fresh when this was called: it serves the caller however long a
        crowded event loop keeps him from it.

        Never raises for the store and never waits longer than `PATIENCE_S`: a store that fails or hangs
        leaves the old snapshot, which `readable` judges by its age.
        """
        asked_s = self._clock.monotonic()
        failing = self._failed_at_s > self._read_at_s
        patience_s = PATIENCE_WHILE_FAILING_S if failing else PATIENCE_S
        # A read that began too long before this call does not serve it: then a second one follows.
        while self._read_at_s < asked_s - FRESH_S and self._failed_at_s < asked_s - FRESH_S:
            left_s = asked_s + patience_s - self._clock.monotonic()
            if left_s <= 0:
                self._fail(f"no answer within {patience_s} s")
                break
            reading = self._read_once()
            await asyncio.wait((reading,), timeout=left_s)
        return self._read_at_s >= asked_s - FRESH_S

    def check(self, call: Call[S], *, served: bool = False) -> None:
        """Refuse `call` as the snapshot demands; `served`: it was read for this call.

        Raises:
            RunStopped: A kill of its run, agent, tenant or of everything.
            ToolDenied: A kill of its tool, or safe mode.
            StoreUnavailable: It writes, and the snapshot is unreadable.
        """
        name = call.tool.name
        self._stop_if_killed(call.run, name)
        if call.writes and not (served or self.readable()):
            call.refuse(self._unreadable(name))
        if not self._board.permits(name, writes=call.writes):
            call.refuse(_not_in_safe_mode(call))

    async def check_turn(self, run: RunFacts) -> None:
        """Raise `RunStopped` if a kill concerns this run; the supervisor asks before every model turn."""
        if not self.fresh():
            await self.refresh()
        self._stop_if_killed(run, None)

    def check_attempt(self, call: Call[S]) -> Awaitable[None] | None:
        """Ask again before an attempt: None when nothing is set, else an awaitable that raises as `check` does.

        Safe mode is not asked: an attempt under way stays what it was; `retry` reads `safe_mode` itself.
        """
        return None if self.idle() else self._check_attempt(call)

    async def _check_attempt(self, call: Call[S]) -> None:
        served = self.fresh() or await self.refresh()
        self._stop_if_killed(call.run, call.tool.name)
        if call.writes and not served and not self.readable():
            call.refuse(self._unreadable(call.tool.name))

    def _stop_if_killed(self, run: RunFacts, tool_name: str | None) -> None:
        kill = self.killed(run, tool_name)
        if kill is None:
            return
        where = f"{kill.scope} {kill.subject}".rstrip()
        details = {"scope": str(kill.scope), "subject": kill.subject, "actor": kill.actor, "kill_reason": kill.reason}
        text = f"killed by {kill.actor} ({where}): {kill.reason}; `interlock lift {where}` ends it"
        if kill.scope is SwitchScope.TOOL:
            raise ToolDenied(text, details={"policy": "kill_switch", "rule": kill.subject, **details})
        raise RunStopped(StopReason.KILLED, text, details=details)

    def _unreadable(self, name: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{name}: kill switches could not be read for {UNREADABLE_S:.0f} s ({self._failure or 'never read'}); "
            f"writes are refused until the store under `store` answers"
        )

    def _read_once(self) -> asyncio.Task[None]:
        """Join the read under way in this event loop, or begin one."""
        reading = self._reading
        if reading is None or reading.done() or reading.get_loop() is not asyncio.get_running_loop():
            reading = self._reading = asyncio.create_task(self._read(), name="interlock-switches")
        return reading

    async def _read(self) -> None:
        # The age counts from the question: what is set while the answer travels may be missing in it.
        began_s = self._clock.monotonic()
        try:
            snapshot = await self._store.read()
            if snapshot != self._board.snapshot:
                board = SwitchBoard(snapshot, self._options, self._allowed)
            else:
                board = self._board
        except (Exception, asyncio.CancelledError) as error:
            self._failed_at_s, self._failure = self._clock.monotonic(), str(error) or type(error).__name__
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        if began_s > self._read_at_s:
            self._board, self._read_at_s = board, began_s

    def _fail(self, why: str) -> None:
        self._failed_at_s, self._failure = self._clock.monotonic(), why
        if self._reading is not None:
            self._reading.cancel()


def _not_in_safe_mode(call: Call[S]) -> ToolDenied:
    name = call.tool.name
    text = (
        f"{name}: safe mode is on and refuses every write"
        if call.writes
        else f"{name}: safe mode is on and permits only safe_mode.allowed_tools"
    )
    return ToolDenied(
        f"{text}; `interlock safe-mode off`, or safe_mode.enabled in the file, ends it",
        for_model="Only a few reading tools are available at present. This was not executed.",
        details={"policy": "safe_mode", "rule": "writes" if call.writes else "safe_mode.allowed_tools"},
    )
