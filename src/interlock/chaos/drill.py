"""The article's incidents, made to happen without Interlock and seen not to happen with it.

Two sides, one backend process: first the agents bare, then the same agents, the same script and the same
faults behind the funnel. Effects are counted at the backend, never in our own tables.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from interlock.chaos.backend import DEFAULT_TIME_SCALE
from interlock.chaos.guarded import GuardedSide, Ledger
from interlock.chaos.http_client import HttpClient, HttpStatusError
from interlock.chaos.process import BackendProcess
from interlock.chaos.progress import show_progress
from interlock.chaos.remote import Remote
from interlock.chaos.report import Doubt, DrillReport, ScenarioReport
from interlock.chaos.scenarios import SCENARIOS
from interlock.chaos.score import Outcome, Side, judge
from interlock.chaos.sides import BareSide, Performer, fly
from interlock.core.clock import SYSTEM, Clock
from interlock.core.errors import ConfigError
from interlock.core.reasons import StopReason

__all__ = ["Drill", "DrillOptions", "run_drill"]


def _ask_on_terminal(question: str) -> bool:
    """Ask a person on the terminal; without one the answer is no."""
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """How to drill.

    Attributes:
        seed: Of faults and arrivals.
        time_scale: Real seconds of one article second, above 0, at most 1: windows, backoffs and timeouts alike.
        backend: Address of one's own server (see `backend.py` for what it answers), or None to start ours.
        yes: Write to one's own server without asking.
        store: `sqlite:///…` or a path for the guarded runs; None makes a new file in a new temporary folder.
        progress: Show it on standard error.
        ask: Asks a person a question. clock: Time, for the agents' side.
    """

    seed: int = 1
    time_scale: float = DEFAULT_TIME_SCALE
    backend: str | None = None
    yes: bool = False
    store: str | None = None
    progress: bool = True
    ask: Callable[[str], bool] = _ask_on_terminal
    clock: Clock = SYSTEM


def run_drill(options: DrillOptions) -> DrillReport:
    """Run the drill and return what it found. Must not be called from a running event loop.

    Raises:
        ConfigError: An option cannot be used, nobody said yes, or the backend does not answer.
    """
    if not 0 < options.time_scale <= 1:
        raise ConfigError("--time-scale is the real seconds of one article second: above 0, at most 1 (the real pace)")
    if options.backend is not None and not options.yes:
        question = f"The drill creates over a hundred tickets, rows and e-mails at {options.backend}. Go on?"
        if not options.ask(question):
            raise ConfigError(f"nothing was sent to {options.backend}: answer y, or pass --yes")
    backend: AbstractContextManager[str] = (
        BackendProcess(options.seed, options.time_scale) if options.backend is None else nullcontext(options.backend)
    )
    with backend as url:
        try:
            client = HttpClient(url)
        except ValueError as error:
            raise ConfigError(f"--backend: {error}") from error
        return asyncio.run(Drill(options, client).run())


class Drill:
    """One drill against a backend that is there.

    Args:
        options: `backend` and `yes` have had their say.
        client: Calls the backend.
    """

    def __init__(self, options: DrillOptions, client: HttpClient) -> None:
        self._options = options
        self._clock = options.clock
        self._client = client
        self._remote = Remote(client)
        self._nonce = self._clock.token(3)  # one's own server may remember earlier drills
        self._missions = {s.name: s.missions(options.seed) for s in SCENARIOS}

    async def run(self) -> DrillReport:
        """Run both sides and judge them."""
        options = self._options
        began_s = self._clock.monotonic()
        await self._check_backend()
        await self._check_pace()
        store = _store_address(options.store)
        async with GuardedSide(self._remote, options.time_scale, store, self._clock) as side:
            bare = await self._side("bare", BareSide(self._remote, options.time_scale))
            guarded = await self._side("interlock", side)
            ledger = await side.ledger(guarded)
        scenarios = [
            ScenarioReport(
                scenario.name,
                scenario.title,
                await self._judge(scenario.name, "bare", bare[scenario.name], None),
                await self._judge(scenario.name, "interlock", guarded[scenario.name], ledger),
                scenario.reported,
            )
            for scenario in SCENARIOS
        ]
        return DrillReport(
            options.seed,
            options.time_scale,
            tuple(scenarios),
            store,
            self._clock.monotonic() - began_s,
            doubt=await self._doubt(guarded, ledger),
            worst_run=_worst(guarded),
        )

    async def _check_backend(self) -> None:
        """Find out before the first write whether the backend is there, and can be counted at.

        Raises:
            ConfigError: It cannot.
        """
        where = self._client.base_url
        try:
            await self._remote.effects("nobody's")
        except (HttpStatusError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"the backend at {where} does not list effects at GET /effects as ours does") from error
        except OSError as error:
            raise ConfigError(f"the backend at {where} does not answer: {error}") from error

    async def _check_pace(self) -> None:
        """Refuse a backend of ours whose windows have another length than the agents' timeouts.

        Raises:
            ConfigError: Names the time scale to pass.
        """
        try:
            health = (await self._client.request("GET", "/health")).body
        except (HttpStatusError, OSError):
            return  # one's own server need not have it
        theirs = health.get("time_scale") if isinstance(health, dict) else None
        if theirs is not None and theirs != self._options.time_scale:
            raise ConfigError(f"the backend runs at time scale {theirs}: pass --time-scale {theirs}")

    def _project(self, scenario: str, side: str) -> str:
        return f"{scenario}-{side}-{self._nonce}"

    async def _side(self, side: str, performer: Performer) -> dict[str, list[Outcome]]:
        runs = sum(len(some) for some in self._missions.values())
        projects = {s.name: self._project(s.name, side) for s in SCENARIOS}
        with show_progress(side, runs, wanted=self._options.progress) as advance:
            return await fly(
                performer, self._missions, projects, self._clock, self._options.time_scale, on_ended=advance
            )

    async def _judge(self, scenario: str, side: str, outcomes: list[Outcome], ledger: Ledger | None) -> Side:
        effects = await self._remote.effects(self._project(scenario, side))
        if ledger is None:
            return judge(outcomes, effects)
        return judge(
            outcomes,
            effects,
            named_keys=ledger.named_keys,
            refused=ledger.refused[scenario],
            circuit_opens=ledger.circuit_opens[scenario],
        )

    async def _doubt(self, outcomes: Mapping[str, list[Outcome]], ledger: Ledger) -> Doubt | None:
        """Return one open doubt; rather one about a ticket that the backend has."""
        asked = {o.run_id: o.mission.name for some in outcomes.values() for o in some}
        made: dict[str, dict[str, Any]] = {}
        for scenario in SCENARIOS:
            effects = await self._remote.effects(self._project(scenario.name, "interlock"))
            made |= {e["key"]: e for e in effects if e["key"] is not None}
        doubts = [Doubt(c.key.hex(), asked[c.run_id], made.get(c.sent_key)) for c in ledger.open_doubts]
        return next((d for d in doubts if d.effect is not None), doubts[0] if doubts else None)


def _worst(outcomes: Mapping[str, list[Outcome]]) -> str | None:
    """Return the run that had cost most when it was stopped."""
    stopped = [o for some in outcomes.values() for o in some if o.reason != StopReason.SUCCESS]
    return max(stopped, key=lambda o: o.cost_usd).run_id if stopped else None


def _store_address(asked: str | None) -> str:
    if asked is None:
        return f"sqlite:///{tempfile.mkdtemp(prefix='interlock-drill-')}/drill.db"
    return asked if "://" in asked else f"sqlite:///{asked}"
