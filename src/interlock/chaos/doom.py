"""Faults of the worker itself: it is killed, or stands still, at a chosen moment of a chosen write. For real."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from interlock.chaos.arming import Armed, place
from interlock.chaos.faults import Fault, Kind, Moment
from interlock.core.calls import Answer, Call, Proceed, ToolSpec
from interlock.gateway.pipeline import Funnel

__all__ = ["Doom"]


class Doom:
    """What becomes of one worker; it lives in that worker's process.

    Args:
        armed: The faults of workers that concern this one.
        strikes: Told of the fault, the call and whether its tool was executed, before the process is struck.
        elapsed_s: Seconds since the trial began.
        settled: Waits until what is queued for the store is written.
    """

    def __init__(
        self,
        armed: Sequence[Armed],
        strikes: Callable[[Fault, Call[Any], bool], None],
        elapsed_s: Callable[[], float],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._armed = armed
        self._settled = settled
        self._strikes = strikes
        self._elapsed_s = elapsed_s

    def placed(self, funnel: Funnel) -> Funnel:
        """Return the funnel in which this worker meets its end."""
        funnel = place(funnel, "claim", self._claiming)
        return place(funnel, "perform", self._performing)

    def _claiming(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
        mine = self._of(tool, "claim")

        async def claiming(call: Call[Any]) -> Answer:
            await self._strike(mine, call, executed=False)
            return await proceed(call)

        return claiming if mine else proceed

    def _performing(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
        before, after = self._of(tool, "send"), self._of(tool, "answer")

        async def performing(call: Call[Any]) -> Answer:
            await self._strike(before, call, executed=False)
            answer = await proceed(call)
            await self._strike(after, call, executed=True)
            return answer

        return performing if before or after else proceed

    def _of(self, tool: ToolSpec, moment: Moment) -> list[Armed]:
        return [a for a in self._armed if a.fault.before == moment and a.globs.match(tool.name) and tool.may_write]

    async def _strike(self, armed: Sequence[Armed], call: Call[Any], *, executed: bool) -> None:
        for each in armed:
            if not each.strikes((call.run.run_id, call.seq), max(1, call.attempts), self._elapsed_s()):
                continue
            self._strikes(each.fault, call, executed)
            if each.fault.kind is Kind.WORKER_KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # the signal may take a moment to arrive
            # Every thread stands still, the one that keeps the lease too; somebody else lets it go on. Not amid a
            # commit: whoever stops there with SQLite's lock in hand stops all others with him.
            await self._settled()
            os.kill(os.getpid(), signal.SIGSTOP)
