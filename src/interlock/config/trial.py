"""What a trial may change of a gate before it is wired: the funnel, the store, and how the model is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interlock.config.opening import Store
from interlock.gateway.pipeline import Funnel
from interlock.supervisor.machinery import Asks

__all__ = ["UNTRIED", "Trial"]


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
