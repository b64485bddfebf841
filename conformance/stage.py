"""Both servers, and the operator at another terminal, for as long as a matrix needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conformance.conversation import Script, Seen, Turn, agent_mark
from conformance.model import ModelServer
from conformance.scenario import Scenario
from conformance.scenarios import RESEARCHER, TRIAGE, scenario
from conformance.world import LATE_S, Plan, WorldServer
from interlock.config.opening import Store, open_store
from interlock.config.settings import load_settings
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError
from interlock.policy.approval import ApprovalState
from interlock.policy.switches import FRESH_S, SwitchKind, SwitchScope

__all__ = ["Stage"]

SWITCHES = {
    "kill": (SwitchScope.TENANT, "acme", SwitchKind.KILL),
    "safe_mode": (SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE),
}


class Stage:
    """The scripted model and the world; an async context manager.

    Args:
        work: Directory below which every guarded session has its store.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self.model = ModelServer(self._script, _is_nested, _concerns)
        self.world = WorldServer(self._plan, self._operate)

    async def __aenter__(self) -> Self:
        await self.model.start()
        await self.world.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.world.close()
        await self.model.close()

    def _script(self, session: str) -> Script:
        played = _scenario_of(session)

        def script(seen: Seen) -> Turn:
            nested = played.nested if _is_nested(seen) else None
            return (nested or played.script)(seen)

        return script

    def _plan(self, session: str, tool: str) -> Plan:
        return _scenario_of(session).plans.get(tool, Plan())

    async def _operate(self, session: str, action: str) -> None:
        """Do what a person does; in a bare session there is nobody to be told."""
        if action == "wait":
            await asyncio.sleep(LATE_S + 0.3)
        elif session.endswith(".guarded"):
            await self._in_store(session, _decide(action) if action not in SWITCHES else _switch(action))
            # Another process holds what it read at most so long; from here on everybody knows.
            await asyncio.sleep(FRESH_S + 0.1)

    async def _in_store(self, session: str, work: Callable[[Store], Awaitable[Any]]) -> None:
        store = open_store(f"sqlite:///{self._work / session}/interlock.db", load_settings(None), clock=SYSTEM)
        try:
            await work(store)
        finally:
            await asyncio.to_thread(store.close)


def _scenario_of(session: str) -> Scenario:
    return scenario(session.partition(".")[0])


def _is_nested(seen: Seen) -> bool:
    return agent_mark(RESEARCHER) in seen.told


def _concerns(seen: Seen) -> bool:
    return bool(seen.offered) or agent_mark(TRIAGE) in seen.told or _is_nested(seen)


def _switch(action: str) -> Callable[[Store], Awaitable[Any]]:
    scope, subject, kind = SWITCHES[action]

    async def work(store: Store) -> None:
        await store.switches.set(scope, subject, kind, reason="a rollout went wrong", actor="ana")

    return work


def _decide(action: str) -> Callable[[Store], Awaitable[Any]]:
    async def work(store: Store) -> None:
        pending = await store.approvals.list(tenant_id=None, state=ApprovalState.PENDING, limit=10)
        if not pending:
            raise ConfigError("nobody has asked for an approval")
        for row in pending:
            await store.approvals.decide(row.id, action == "approve", "ana", "")

    return work
