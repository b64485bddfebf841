"""One side of the drill: starts every mission at its time and gathers how each ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from interlock.budget.prices import ModelPrice, Prices
from interlock.chaos.agents import MODEL, USD_PER_MTOK, Brain, work
from interlock.chaos.bare import BareRun, bare_tools
from interlock.chaos.remote import Remote
from interlock.chaos.scenarios import Mission
from interlock.chaos.score import Outcome
from interlock.core.clock import Clock

__all__ = ["BareSide", "Flight", "Performer", "fly"]


REDELIVERED_AFTER_S = 180.0  # article seconds, as a queue's visibility timeout


@dataclass(frozen=True, slots=True)
class Flight:
    """A mission under way: its scenario, the project it works in, the clock it goes by, and which delivery it is."""

    scenario: str
    mission: Mission
    project: str
    clock: Clock
    time_scale: float
    took_off_s: float
    delivery: int

    def brain(self) -> Brain:
        """Return the mission's scripted model, at the beginning."""
        script = self.mission.script(self.project)
        return Brain(script, self.clock, self.time_scale, self.mission.turn_s, self.mission.growth_tokens)

    def article_s(self) -> float:
        """Return article seconds since the side began."""
        return (self.clock.monotonic() - self.took_off_s) / self.time_scale


class Performer(Protocol):
    """How one side runs an agent."""

    async def perform(self, flight: Flight) -> Outcome:
        """Run the mission's agent to its end."""
        ...


async def fly(
    performer: Performer,
    missions: Mapping[str, Sequence[Mission]],
    projects: Mapping[str, str],
    clock: Clock,
    time_scale: float,
    on_ended: Callable[[], None],
) -> dict[str, list[Outcome]]:
    """Run every mission of every scenario at its time, all scenarios at once; deliver again what failed.

    Args:
        performer: The side.
        missions, projects: By name of the scenario.
        on_ended: Called when a mission is over.
    """
    took_off_s = clock.monotonic()

    async def one(name: str, mission: Mission) -> list[Outcome]:
        outcomes: list[Outcome] = []
        await clock.sleep(mission.starts_s * time_scale)
        for delivery in range(1, mission.deliveries + 1):
            flight = Flight(name, mission, projects[name], clock, time_scale, took_off_s, delivery)
            outcomes.append(await performer.perform(flight))
            if outcomes[-1].delivered or delivery == mission.deliveries:
                break
            await clock.sleep(REDELIVERED_AFTER_S * time_scale)
        on_ended()
        return outcomes

    async with asyncio.TaskGroup() as flights:
        tasks = {name: [flights.create_task(one(name, m)) for m in some] for name, some in missions.items()}
    return {name: [outcome for task in some for outcome in task.result()] for name, some in tasks.items()}


class BareSide:
    """Runs agents without Interlock.

    Args:
        remote: The backend. time_scale: Real seconds of one article second.
    """

    def __init__(self, remote: Remote, time_scale: float) -> None:
        self._tools = bare_tools(remote)
        self._prices = Prices({MODEL: ModelPrice(*USD_PER_MTOK)})
        self._time_scale = time_scale

    async def perform(self, flight: Flight) -> Outcome:
        """Run the mission's agent to its end: nothing else ends it."""
        run = BareRun(self._tools, self._prices, self._time_scale)
        began_s = flight.article_s()
        said = await work(run, flight.brain())
        gave_up = flight.mission.asks_for is not None and said["ticket"] is None
        return Outcome(
            flight.mission,
            "gave_up" if gave_up else "answered",
            said,
            run.steps,
            run.calls,
            run.cost_usd,
            began_s,
            flight.article_s(),
            delivered=not gave_up,
        )
