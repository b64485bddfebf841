"""A run whose agent is a block of the caller's own code."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from contextvars import Token
from typing import Any

from interlock.core.errors import InterlockError, LeaseLost
from interlock.gateway.tools import Caller, current_run
from interlock.supervisor.bridge import Bridge, Opened
from interlock.supervisor.requests import RunRequest
from interlock.supervisor.run import Run
from interlock.supervisor.supervisor import Supervisor

__all__ = ["OpenRun"]


class OpenRun(Opened[Run]):
    """A run in the caller's own task, open inside its block; `RunStopped` ends the block quietly."""

    def __init__(self, supervisor: Supervisor, request: RunRequest, bridge: Bridge, wait_s: float) -> None:
        super().__init__(bridge)
        self._supervisor = supervisor
        self._request = request
        self._wait_s = wait_s
        self._run: Run | None = None
        self._exit = contextlib.ExitStack()
        self._outer: Token[Caller | None] | None = None
        self._cancelled = False

    async def open(self) -> Run:
        """Claim the request and open its run in this task."""
        run = self._run = await self._supervisor.opened(self._request, self._wait_s)
        task = asyncio.current_task()
        if task is not None:
            run.watch(functools.partial(self._cancel, task))
        self._exit.callback(self._supervisor.at_deadline(run))
        return run

    def entered(self, value: Run) -> None:
        """Make this run the current one."""
        self._outer = current_run.set(value)

    def leaving(self) -> None:
        """Make whatever was the current run so again."""
        if self._outer is not None:
            current_run.reset(self._outer)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if not self._cancelled:
            self._cancelled = True
            task.cancel()

    async def close(self, error: BaseException | None) -> bool:
        """End the run and record it."""
        self._exit.close()
        run, task = self._run, asyncio.current_task()
        if run is None:
            return False
        ours = self._cancelled and isinstance(error, asyncio.CancelledError)
        if ours and task is not None and task.uncancel() > 0:
            ours = False  # somebody else cancelled the task too: theirs goes on
        result = await self._supervisor.close(run, error)
        if result is None and not isinstance(error, LeaseLost):
            raise LeaseLost(f"run {run.run_id}: another worker has taken it over") from error
        return ours or (isinstance(error, InterlockError) and error.status == "stopped")
