"""A sub-agent's run, open inside its block: within it, it is the current run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Token
from typing import TypeVar

from interlock.gateway.tools import Caller, current_run
from interlock.supervisor.bridge import Bridge, Opened

__all__ = ["Child"]

C = TypeVar("C", bound=Caller)


class Child(Opened[C]):
    """A block around a child; made by `run.child`.

    Args:
        opens: Opens the child's run.
        closes: Ends it, with what left the block.
    """

    def __init__(
        self, bridge: Bridge, opens: Callable[[], C], closes: Callable[[C, BaseException | None], Awaitable[None]]
    ) -> None:
        super().__init__(bridge)
        self._opens = opens
        self._closes = closes
        self._run: C | None = None
        self._outer: Token[Caller | None] | None = None

    async def open(self) -> C:
        """Open the child's run."""
        run = self._run = self._opens()
        return run

    def entered(self, value: C) -> None:
        """Make the child's run the current one."""
        self._outer = current_run.set(value)

    def leaving(self) -> None:
        """Make the parent's run the current one again."""
        if self._outer is not None:
            current_run.reset(self._outer)

    async def close(self, error: BaseException | None) -> bool:
        """Record the child's outcome. Its errors are the parent's to handle."""
        if self._run is not None:
            await self._closes(self._run, error)
        return False
