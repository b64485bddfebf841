"""An agent of a framework inside a run, and its model requests as turns of that run."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self

from interlock.adapters.seam import across
from interlock.gateway.tools import attempt_under_way
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn

__all__ = ["AgentRun", "Turn"]

# Runs in which a framework's agent is at work, whichever adapter it came through.
_DRIVEN: weakref.WeakSet[Run] = weakref.WeakSet()


class AgentRun:
    """`async with AgentRun(run, "researcher") as run:` around one run of a framework's agent.

    The first agent of a run works in the run itself. One that starts inside a tool call, or beside another, works
    in a child of it, so that its turns have places of their own in the record; inside the block the child is the
    current run. Without a current run there is nothing to enter: open one first (`gate.open_run`).

    Args:
        run: The current run.
        name: Of the agent; identifies its child across retries.
    """

    __slots__ = ("_child", "_name", "_run")

    def __init__(self, run: Run, name: str | None = None) -> None:
        self._run = run
        self._name = name
        self._child: Any = None

    def _nested(self) -> bool:
        return attempt_under_way.get() is not None or self._run in _DRIVEN

    async def __aenter__(self) -> Run:
        if not self._nested():
            _DRIVEN.add(self._run)
            return self._run
        self._child = self._run.child(self._name)
        child: Run = await across(self._run, self._child.open())
        self._child.entered(child)
        return child

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is None:
            _DRIVEN.discard(self._run)
            return
        self._child.leaving()
        await across(self._run, self._child.close(error))

    def __enter__(self) -> Run:
        """Do the same for a sync agent, in its thread."""
        if not self._nested():
            _DRIVEN.add(self._run)
            return self._run
        self._child = self._run.child(self._name)
        child: Run = self._child.__enter__()
        return child

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is None:
            _DRIVEN.discard(self._run)
            return
        self._child.__exit__(kind, error, trace)


class Turn:
    """`async with Turn(run, model=…, record=Reply) as turn:` around one request of a framework to its model.

    Works from whichever event loop the framework runs on; `with` in a sync agent's thread.

    Args:
        run: The run.
        words: Of `run.step`.

    Raises:
        RunStopped: On entry: a stop is decided, or a budget does not allow the turn.
    """

    __slots__ = ("_run", "_turn")

    def __init__(self, run: Run, **words: Any) -> None:
        self._run = run
        self._turn: ModelTurn = run.step(**words)

    def uncut(self) -> Self:
        """Let the deadline not cut this turn: code of others runs inside it, as between the pieces of a stream."""
        self._turn.uncut()
        return self

    # Plain functions, that no coroutine of theirs stands between the turn and whoever waits for it.

    def __aenter__(self) -> Awaitable[ModelTurn]:
        turn = self._turn
        if self._run.bridge.is_here():
            return turn.open()
        return across(self._run, turn.uncut().open())

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Awaitable[bool]:
        return across(self._run, self._turn.close(error))

    def __enter__(self) -> ModelTurn:
        return self._turn.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.__exit__(kind, error, trace)
