"""What a trial may change of a gate before it is wired, and which gate on trial stands in for which."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from interlock.config.opening import Store
from interlock.gateway.pipeline import Funnel
from interlock.supervisor.machinery import Asks

__all__ = ["UNTRIED", "Trial", "stand_in_for", "standing_in"]

Gate = TypeVar("Gate")

# A gate, and the one on trial that stands in for it here.
_double: ContextVar[tuple[Any, Any] | None] = ContextVar("interlock_double", default=None)


def _as_it_is(funnel: Funnel) -> Funnel:
    return funnel


def _opened(opens: Callable[[], Store]) -> Store:
    return opens()


@dataclass(frozen=True, slots=True)
class Trial:
    """Changes that a trial makes; all of them are made once, while the gate is wired, so that others pay nothing.

    Attributes:
        funnel: Returns the funnel that calls pass, of the one that is configured.
        store: Opens the store, by calling what it is given; may put something around it.
        asks: Returns what `run.model` calls, of a run and the function that it was given; None changes nothing.
    """

    funnel: Callable[[Funnel], Funnel] = _as_it_is
    store: Callable[[Callable[[], Store]], Store] = _opened
    asks: Asks | None = None


UNTRIED = Trial()


@contextlib.contextmanager
def standing_in(gate: Gate, tried: Gate) -> Iterator[None]:
    """Let `tried` stand in for `gate` within the block: agents and adapters know only the gate they were made with."""
    token = _double.set((gate, tried))
    try:
        yield
    finally:
        _double.reset(token)


def stand_in_for(gate: Gate) -> Gate:
    """Return the gate on trial that stands in for this one here; as a rule, the gate itself."""
    double = _double.get()
    return gate if double is None or double[0] is not gate else double[1]
