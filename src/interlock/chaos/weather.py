"""The same seed gives the same faults to the same request, whatever the timing.

A pure machine: the n-th request for one ticket (or page) of one project is told its fault. What a project
suffers follows from the first word of its name (`triage-bare-1f0c` has the weather `triage`). Faults are
dealt like cards: of each ten tickets the seed chooses which ones land on the sick node, and of each block of
sick tickets which one lives through which story. So every seed gives an incident of nearly the same size, at
other tickets. Tickets that carry a number (`… (report 17)`) are dealt by it, so that the same ticket meets the
same faults bare and guarded, whichever request comes first; others in order of arrival.

Times are article seconds since the project's first request; the caller divides by its `time_scale`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["CLEAR", "EXECUTED", "WEATHERS", "Fault", "Phase", "Weather", "weather_of"]


class Fault(StrEnum):
    """What goes wrong with one request."""

    NONE = "none"
    LOST_502 = "executed_then_502"
    LOST_RESET = "executed_then_reset"
    LOST_SILENCE = "executed_then_silence"
    BAD_GATEWAY = "502_before"
    SILENCE = "silence_before"
    RATE_LIMITED = "429"
    NEW_SCHEMA = "new_schema"
    ERROR_200 = "error_with_200"


# Faults after which the effect is in the world although the caller cannot know it.
EXECUTED = frozenset({Fault.LOST_502, Fault.LOST_RESET, Fault.LOST_SILENCE, Fault.NEW_SCHEMA})

_NUMBER = re.compile(r"\d{1,9}(?=\D*$)")

Story = tuple[Fault, ...]  # what the first, second … request for one ticket meets; after its end all is well


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a schedule.

    Attributes:
        until_s: Article seconds at which it ends.
        sick: Stories of tickets whose node loses answers. well: of the others.
        sick_in_ten: How many of ten new tickets land on the sick node.
        always: Overrides every story while the phase lasts.
    """

    until_s: float
    sick: tuple[Story, ...] = ((),)
    well: tuple[Story, ...] = ((),)
    sick_in_ten: int = 0
    always: Fault | None = None


_L, _R, _H = Fault.LOST_502, Fault.LOST_RESET, Fault.LOST_SILENCE
_SICK: tuple[Story, ...] = (
    (_L,),
    (_R, _L),
    (_L, _H, _R),
    (_L, Fault.RATE_LIMITED, _L, _L),
    (_L, _L, _L, _R),
    (_H, _L, Fault.BAD_GATEWAY, _L, _R),
)
_WELL: tuple[Story, ...] = (
    (),
    (Fault.BAD_GATEWAY,),
    (),
    (),
    (Fault.RATE_LIMITED,),
    (),
    (),
    (Fault.SILENCE,),
    (),
    (Fault.RATE_LIMITED, Fault.BAD_GATEWAY),
)

CLEAR: tuple[Phase, ...] = ()
WEATHERS: Mapping[str, tuple[Phase, ...]] = {
    # Thirty minutes: intermittent 502s, two minutes in which nothing works, and intermittent 502s again.
    "triage": (
        Phase(until_s=720.0, sick=_SICK, well=_WELL, sick_in_ten=3),
        Phase(until_s=840.0, always=Fault.BAD_GATEWAY),
        Phase(until_s=1800.0, sick=_SICK, well=_WELL, sick_in_ten=3),
    ),
    # A deploy changed the answer's shape, and a proxy turns errors into pages with status 200.
    "schema": (Phase(until_s=1e9, well=((Fault.NEW_SCHEMA,), (Fault.ERROR_200,))),),
}


def weather_of(project: str) -> tuple[Phase, ...]:
    """Return the schedule of a project: by the first word of its name; unknown words have clear weather."""
    return WEATHERS.get(project.partition("-")[0], CLEAR)


@dataclass(frozen=True, slots=True)
class _Ticket:
    place: int  # n-th ticket of its node, from 0
    sick: bool


@dataclass(slots=True)
class _Project:
    began_s: float
    requests: dict[str, int] = field(default_factory=dict)
    tickets: dict[str, _Ticket] = field(default_factory=dict)
    unnumbered: int = 0


class Weather:
    """Tells each request its fault.

    Args:
        seed: Of the whole backend.
        time_scale: Real seconds of one article second.
    """

    def __init__(self, seed: int, time_scale: float) -> None:
        self._seed = seed
        self._time_scale = time_scale
        self._projects: dict[str, _Project] = {}

    def article_s(self, project: str, now_s: float) -> float:
        """Return article seconds since the first request of `project`, which this call may be."""
        state = self._projects.get(project)
        if state is None:
            state = self._projects[project] = _Project(now_s)
        return (now_s - state.began_s) / self._time_scale

    def next(self, project: str, subject: str, now_s: float) -> tuple[Fault, int]:
        """Return the fault of the next request about `subject`, and the request's number, from 1."""
        at_s = self.article_s(project, now_s)
        state = self._projects[project]
        number = state.requests[subject] = state.requests.get(subject, 0) + 1
        phase = next((p for p in weather_of(project) if at_s < p.until_s), None)
        if phase is None:
            return Fault.NONE, number
        if phase.always is not None:
            return phase.always, number
        ticket = state.tickets.get(subject)
        if ticket is None:
            ticket = state.tickets[subject] = self._deal(project, state, subject, phase)
        stories = phase.sick if ticket.sick else phase.well
        story = stories[self._card(len(stories), ticket.place, "story", project, ticket.sick)]
        return (story[number - 1] if number <= len(story) else Fault.NONE), number

    def _deal(self, project: str, state: _Project, subject: str, phase: Phase) -> _Ticket:
        number = _NUMBER.search(subject)
        if number is None:
            position = state.unnumbered
            state.unnumbered += 1
        else:
            position = max(int(number.group()) - 1, 0)
        ten, nth = divmod(position, 10)
        sick = [self._card(10, 10 * ten + i, "node", project) < phase.sick_in_ten for i in range(10)]
        alike = [i for i in range(10) if sick[i] == sick[nth]]
        return _Ticket(place=ten * len(alike) + alike.index(nth), sick=sick[nth])

    def _card(self, size: int, place: int, *what: object) -> int:
        """Return the card at `place` of an endless row of decks of `size` cards, each shuffled by the seed."""
        scenario = [str(w).partition("-")[0] for w in what]  # bare and guarded meet the same cards
        label = f"{self._seed}:{place // size}:{':'.join(scenario)}"
        deck = sorted(range(size), key=lambda card: hashlib.sha256(f"{label}:{card}".encode()).digest())
        return deck[place % size]
