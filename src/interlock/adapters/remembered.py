"""What a framework's agent is told from memory: recalled in its run, once for each question, as the user's words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from interlock.adapters.seam import Seam
from interlock.config.gate import Interlock
from interlock.core.errors import NoRun
from interlock.supervisor.run import Run

__all__ = ["Recalling", "ScopeOf", "on_its_loop", "run_of", "scope_in"]

T = TypeVar("T")

ScopeOf = Mapping[str, str | None] | Callable[[Run], Mapping[str, str | None]]
"""`{"user": …, "session": …}`, or a function of the run that returns it. The tenant is always the run's."""


def run_of(seam: Seam) -> Run:
    """Return the run that this code works in.

    Raises:
        NoRun: There is none, or it is another gate's.
    """
    run = seam.run()
    if run is None:
        raise NoRun("memory belongs to a run: use it inside gate.run, gate.open_run or the adapter's own run")
    return run


def scope_in(run: Run, scope: ScopeOf) -> Mapping[str, str | None]:
    """Return the scope that a run works in."""
    return scope(run) if callable(scope) else scope


async def on_its_loop(run: Run, verb: Callable[[], Any]) -> Any:
    """Return what a verb of the run returns, from whichever loop this is."""
    if run.bridge.is_here():
        return await verb()
    return await asyncio.to_thread(verb)


class Recalling:
    """Recalls for the question that a model is asked.

    Args:
        gate: Its runs are those in which the agent works.
        scope: Whose memory. k, max_tokens: see `run.memory.recall`.
    """

    def __init__(self, gate: Interlock, scope: ScopeOf, k: int, max_tokens: int | None) -> None:
        self._seam = Seam(gate)
        self._scope = scope
        self._k = k
        self._max_tokens = max_tokens
        self._told: WeakKeyDictionary[Run, dict[str, str]] = WeakKeyDictionary()

    async def text(self, question: str) -> str:
        """Return what to put before the question; "" where nothing is known.

        Raises:
            NoRun: This is no run of the gate.
        """
        run = run_of(self._seam)
        told = self._told.setdefault(run, {})
        if question not in told:
            words: dict[str, Any] = {"scope": scope_in(run, self._scope), "k": self._k, "max_tokens": self._max_tokens}
            recalled = await on_its_loop(run, lambda: run.memory.recall(question, **words))
            told[question] = recalled.text
        return told[question]
