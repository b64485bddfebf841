"""The article's incidents as data: who asks for what, when, at which pace and price, and what was reported.

Sizes are chosen so that the bare side comes out near the article's figures: 18 of 60 tickets land on the sick
node and their stories hold 2.8 lost answers each; prompts grow so that 620 turns cost what the article paid.
All times are article seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from interlock.chaos import agents
from interlock.chaos.agents import Script

__all__ = ["SCENARIOS", "Mission", "Scenario"]


@dataclass(frozen=True, slots=True)
class Mission:
    """One run of one agent.

    Attributes:
        name: For people. script: Makes the agent's script for a project.
        starts_s: When it starts. turn_s: From one model turn to the next. growth_tokens: Of the prompt, each turn.
        asks_for: Title of the ticket it is asked to create, or None.
        deliveries: How often at most its request is delivered, by a queue that delivers again what did not succeed.
    """

    name: str
    script: Callable[[str], Script]
    starts_s: float = 0.0
    turn_s: float = 2.0
    growth_tokens: int = 200
    asks_for: str | None = None
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """One incident.

    Attributes:
        name: First word of its projects; chooses the backend's weather.
        title: For people. missions: Makes the runs, from the seed.
        reported: Row of the table to what the article reports.
    """

    name: str
    title: str
    missions: Callable[[int], tuple[Mission, ...]]
    reported: Mapping[str, str] = field(default_factory=dict)


TRIAGE_RUNS = 60
TRIAGE_S = 1800.0
_CITIES = ("Aarhus", "Bilbao", "Cork", "Dresden", "Espoo", "Faro", "Gdansk", "Haarlem", "Ivrea", "Jaca")


def _ticket(title: str, starts_s: float = 0.0, deliveries: int = 1) -> Mission:
    return Mission(
        title,
        lambda project: agents.reports_ticket(project, title),
        starts_s,
        growth_tokens=150,
        asks_for=title,
        deliveries=deliveries,
    )


def _triage(seed: int) -> tuple[Mission, ...]:
    every_s = TRIAGE_S / TRIAGE_RUNS
    return tuple(
        _ticket(
            f"Users in {_CITIES[i % 10]} cannot log in (report {i + 1})",
            (i + 0.5 * _chance(seed, i)) * every_s,
            deliveries=3,
        )
        for i in range(TRIAGE_RUNS)
    )


def _chance(seed: int, i: int) -> float:
    """Return a number from 0 to 1 that depends on the seed alone."""
    return hashlib.sha256(f"arrival:{seed}:{i}".encode()).digest()[0] / 255


def _runaways(_: int) -> tuple[Mission, ...]:
    # Pace and growth: 620 calls in 37 minutes for $247; 127 steps in 3m 47s for $4.20; 340 steps in 9m 12s for $18.50.
    return (
        Mission("research agent", lambda _: agents.research(620), turn_s=2220 / 621, growth_tokens=507),
        Mission("typical runaway", lambda _: agents.endless_listing(126), turn_s=227 / 127, growth_tokens=180),
        Mission("worst runaway", lambda _: agents.circles(339), turn_s=552 / 340, growth_tokens=118),
    )


def _injection(_: int) -> tuple[Mission, ...]:
    return (
        Mission("obeys once", lambda project: agents.injected(project, insists=False)),
        Mission("insists", lambda project: agents.injected(project, insists=True), starts_s=5.0),
    )


def _schema(_: int) -> tuple[Mission, ...]:
    tickets = tuple(_ticket(f"Invoice {i + 1} is missing", 5.0 * i) for i in range(6))
    return (*tickets, _question("export fails"), _question("sync stalls"))


def _question(topic: str) -> Mission:
    return Mission(f"asks why {topic}", lambda project: agents.knowledge(project, topic), starts_s=40.0)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "triage",
        "1  Ticket triage",
        _triage,
        {
            "duplicates": "34 (45 %, 2.8 an incident)",
            "runs by stop reason": "none named",
            "circuit opens": "0 a day; 3-5 a day after the fix",
            "seconds": "1,800",
        },
    ),
    Scenario(
        "runaways",
        "2  Runaway agents",
        _runaways,
        {
            "runs by stop reason": "none named",
            "calls": "620",
            "dollars": "247.00",
            "research agent": "620 calls, $247, 2,220 s",
            "typical runaway": "127 steps, $4.20, 227 s",
            "worst runaway": "340 steps, $18.50, 552 s",
        },
    ),
    Scenario("injection", "3  Injected instruction", _injection, {"forbidden writes": "happened"}),
    Scenario(
        "schema",
        "4  Changed schema",
        _schema,
        {"values invented": "happened"},
    ),
)
