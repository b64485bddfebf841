"""Guard: nothing passes a decided stop or a kill, and only listed reads pass safe mode."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from interlock.core.calls import Answer, Call, Proceed, RunFacts, ToolSpec
from interlock.core.errors import RunStopped
from interlock.policy.switches import Switches

__all__ = ["SwitchGuard"]

S = TypeVar("S", bound=RunFacts)


def _stop_if_stopped(call: Call[S]) -> None:
    stop = call.run.stop
    if stop is not None:
        raise RunStopped(stop.reason, stop.message, details=stop.details)


class SwitchGuard:
    """See the module."""

    def __init__(self, switches: Switches) -> None:
        self._switches = switches

    def __call__(self, tool: ToolSpec, proceed: Proceed[S]) -> Proceed[S]:  # noqa: ARG002 - kills concern every tool
        switches = self._switches

        async def read_first(call: Call[S]) -> Answer:
            served = await switches.refresh()
            _stop_if_stopped(call)
            switches.check(call, served=served)
            return await proceed(call)

        def switch(call: Call[S]) -> Awaitable[Answer]:
            _stop_if_stopped(call)
            if switches.idle():
                return proceed(call)
            if not switches.fresh():
                return read_first(call)
            switches.check(call)
            return proceed(call)

        return switch

    async def check_turn(self, run: RunFacts) -> None:
        """See `Switches.check_turn`."""
        await self._switches.check_turn(run)
