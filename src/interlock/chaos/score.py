"""What a side of the drill did to the world, counted at the backend and judged without mercy.

*Duplicate*: every ticket beyond the first for one thing asked for.

*Lost*: a ticket that the backend accepted and that nobody who asked can find. An accepted ticket is found if

- the answer of the run that asked for it states its id, or, if that run was stopped before it could answer, what
  the run hands over does (`details.partial`). What a tool returned to an agent that then said something else does
  not count, nor does an id that the agent made up; or
- the run that asked for it names the doubt (`details.doubts`) and the store lists it as open (`interlock doubts`),
  or the store lists that run's write as done with an answer that could not be believed (`interlock doubts
  --unverified`), which is what the agent was told. Then a person finds the ticket by its idempotency key.

A doubt is not a success: it costs a person's look, which is why the table shows the runs by reason beside it. A
doubt about a ticket that was never created loses nothing and is still shown. The bare side keeps no doubts,
so there only the answers count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interlock.chaos.scenarios import Mission

__all__ = ["Outcome", "Side", "judge"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended.

    Attributes:
        reason: Its stop reason; bare: `answered` or `gave_up`, for it has none.
        said: What the caller was told (`text`, `ticket`, `invented`), or None.
        delivered: Whether the queue has done its part: the run succeeded, or waits for a person.
        began_s, ended_s: Article seconds since the drill's side began.
        run_id, doubts: Under Interlock: the run, and the keys of the doubts it names, in hexadecimal.
    """

    mission: Mission
    reason: str
    said: Mapping[str, Any] | None
    steps: int
    calls: int
    cost_usd: float
    began_s: float
    ended_s: float
    delivered: bool = True
    run_id: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Article seconds it took."""
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Side:
    """One scenario, bare or guarded.

    Attributes:
        asked: Tickets asked for. effects: in the backend, of any kind. duplicates, lost: see above.
        incidents: Tickets that were made more than once.
        reasons: Runs by stop reason. forbidden: effects that are no ticket. invented: answers that state
            what no tool said. refused: calls that policy denied. circuit_opens: how often a breaker opened.
        seconds: Article seconds from the first run's start to the last one's end.
    """

    asked: int
    effects: int
    duplicates: int
    incidents: int
    lost: int
    reasons: Mapping[str, int]
    forbidden: int
    invented: int
    refused: int
    circuit_opens: int
    calls: int
    cost_usd: float
    seconds: float
    outcomes: tuple[Outcome, ...] = ()

    @property
    def duplicate_rate(self) -> float:
        """Share of the effects that are duplicates, 0 to 1."""
        return self.duplicates / self.effects if self.effects else 0.0

    @property
    def duplicates_per_incident(self) -> float:
        """Duplicates of one ticket, where there were any."""
        return self.duplicates / self.incidents if self.incidents else 0.0


def judge(
    outcomes: Sequence[Outcome],
    effects: Sequence[Mapping[str, Any]],
    *,
    named_keys: Iterable[str] = (),
    refused: int = 0,
    circuit_opens: int = 0,
) -> Side:
    """Judge one scenario.

    Args:
        outcomes: Of all its runs.
        effects: Of its project, from the backend's `GET /effects`.
        named_keys: Idempotency keys that the store lists as in doubt or unverified.
        refused: Calls that policy denied.
        circuit_opens: How often a breaker opened.
    """
    tickets = [e for e in effects if e["kind"] == "ticket"]
    often = Counter(e["subject"] for e in tickets)
    stated = {
        (o.mission.asks_for, o.said["ticket"]) for o in outcomes if o.said is not None and o.said["ticket"] is not None
    }
    named = frozenset(named_keys)
    return Side(
        asked=len({o.mission.asks_for for o in outcomes} - {None}),
        effects=len(effects),
        duplicates=sum(n - 1 for n in often.values()),
        incidents=sum(n > 1 for n in often.values()),
        lost=sum(not _found(e, stated, named) for e in tickets),
        reasons=dict(Counter(o.reason for o in outcomes).most_common()),
        forbidden=len(effects) - len(tickets),
        invented=sum(bool(o.said and o.said["invented"]) for o in outcomes),
        refused=refused,
        circuit_opens=circuit_opens,
        calls=sum(o.calls for o in outcomes),
        cost_usd=sum(o.cost_usd for o in outcomes),
        seconds=max((o.ended_s for o in outcomes), default=0.0) - min((o.began_s for o in outcomes), default=0.0),
        outcomes=tuple(outcomes),
    )


def _found(effect: Mapping[str, Any], stated: set[tuple[str | None, Any]], named: frozenset[str]) -> bool:
    return (effect["subject"], effect["id"]) in stated or effect["key"] in named
