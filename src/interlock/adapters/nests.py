"""Where an agent works that starts inside a guarded tool call: a child of the run, opened when first needed.

For frameworks whose hooks do not enclose an agent's run in one block.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar, Token
from typing import Any

from interlock.adapters.seam import across
from interlock.supervisor.run import Run

__all__ = ["Nest", "nested_in"]

nested_in: ContextVar[Nest | None] = ContextVar("interlock_nest", default=None)


class Nest:
    """The place for agents inside one tool call.

    Args:
        run: The run that makes the call. name: of the tool; identifies the child across retries.
    """

    __slots__ = ("_child", "_lock", "_name", "_opened", "_run", "_token")

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self._name = name
        self._lock = threading.Lock()
        self._opened: Any = None
        self._child: Run | None = None
        self._token: Token[Nest | None] | None = None

    def enter(self) -> Nest:
        """Make this the place for whatever starts in this context."""
        self._token = nested_in.set(self)
        return self

    def leave(self) -> None:
        """Undo `enter`."""
        if self._token is not None:
            nested_in.reset(self._token)
            self._token = None

    async def run(self) -> Run:
        """Return the child, on whichever loop this is."""
        if self._child is not None:
            return self._child
        self._opened = self._run.child(self._name)
        child: Run = await across(self._run, self._opened.open())
        self._child = child
        return child

    def run_sync(self) -> Run:
        """Return the child, in a thread."""
        with self._lock:
            if self._child is None:
                self._opened = self._run.child(self._name)
                self._child = self._run.bridge.cross(self._opened.open())
            child: Run = self._child
            return child

    async def aclose(self, error: BaseException | None) -> None:
        """Record what became of the child, if there was one."""
        if self._opened is not None:
            await across(self._run, self._opened.close(error))

    def close(self, error: BaseException | None) -> None:
        """Do the same in a thread."""
        if self._opened is not None:
            self._run.bridge.cross(self._opened.close(error))
