"""The same agents behind the funnel: the article's safe default configuration, in scaled time, on one store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel

from interlock import Interlock, RunResult
from interlock.chaos.agents import MODEL, USD_PER_MTOK, AgentRun, work
from interlock.chaos.remote import Remote
from interlock.chaos.scenarios import SCENARIOS
from interlock.chaos.score import Outcome
from interlock.chaos.sides import Flight
from interlock.core.clock import Clock
from interlock.journal.store import Claim

__all__ = ["GuardedSide", "Ledger", "configuration"]

TENANT = "drill"


def configuration(time_scale: float) -> dict[str, Any]:
    """Return the drill's configuration: the article's safe default, its times scaled, with these differences.

    `max_seconds` is the 90 that the article gives its research agent. 502 may be retried, and five attempts are
    made, because `ticket.create` deduplicates on its key: the article left 502 out while it had none. As one
    call may now fail five times by itself, eight failures a minute open the circuit, not five.
    """
    return {
        "agent": {
            "budgets": {"max_steps": 25, "max_seconds": 90 * time_scale, "max_tool_calls": 40, "max_usd": 1.0},
            "loop_detection": {"repeated_calls_threshold": 3, "no_progress_threshold": 6},
        },
        "tools": {
            "allow": ["search.read", "kb.read", "web.fetch", "ticket.create"],
            "deny": ["db.write", "email.send", "payment.*"],
            "idempotency_required": ["ticket.create"],
            "budgets": {"ticket.create": {"max_calls": 5, "max_retries": 4}},
            "timeouts_s": {
                "default": 10 * time_scale,
                "search.read": 5 * time_scale,
                "ticket.create": 15 * time_scale,
            },
            "retries": {
                "max_attempts": 5,
                "retryable_status": [429, 500, 502, 503, 504],
                "backoff_ms": [max(1, round(ms * time_scale)) for ms in (250, 750, 2000)],
            },
            "circuit_breakers": {"enabled": True, "failure_threshold": 8, "window_seconds": 60 * time_scale},
        },
        "prices": {MODEL: dict(zip(("input_usd_per_mtok", "output_usd_per_mtok"), USD_PER_MTOK, strict=True))},
        "logging": {"level": "error"},
    }


class Ticket(BaseModel):
    """What the backend answers, as the article has it."""

    id: str
    status: Literal["created", "pending", "failed"]
    url: str


class Results(BaseModel):
    """A page of search results."""

    results: list[dict[str, Any]]
    partial: bool
    next_page: int | None


class Page(BaseModel):
    """A page of the web."""

    url: str
    text: str


class Article(BaseModel):
    """An article of the knowledge base."""

    topic: str
    text: str


def _register(gate: Interlock, remote: Remote) -> None:
    """Register the tools: the forbidden ones too, so that it is policy that refuses them."""

    @gate.tool("ticket.create", effect="write", output=Ticket)
    async def create_ticket(project: str, title: str, description: str, *, idempotency_key: str) -> Any:
        return await remote.create_ticket(project, title, description, idempotency_key)

    @gate.tool("search.read", effect="read", output=Results)
    async def search(query: str, page: int = 1) -> Any:
        return await remote.search(query, page)

    @gate.tool("web.fetch", effect="read", output=Page)
    async def fetch(url: str) -> Any:
        return await remote.fetch(url)

    @gate.tool("kb.read", effect="read", output=Article)
    async def article(project: str, topic: str) -> Any:
        return await remote.article(project, topic)

    gate.tool("db.write", effect="write")(remote.write_row)
    gate.tool("email.send", effect="write")(remote.send_email)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the store says after the runs.

    Attributes:
        open_doubts: Claims in doubt that the run they belong to has named.
        named_keys: Idempotency keys of these, and of writes whose answer could not be believed.
        refused: Scenario to the denied calls that its run records hold. circuit_opens: scenario to openings.
    """

    open_doubts: tuple[Claim, ...]
    named_keys: frozenset[str]
    refused: Mapping[str, int]
    circuit_opens: Mapping[str, int]


class GuardedSide:
    """Runs agents under Interlock, one gate a scenario, all on one store; an async context manager.

    Args:
        remote: The backend. time_scale: Real seconds of one article second.
        store: `sqlite:///…`. clock: Time.
    """

    def __init__(self, remote: Remote, time_scale: float, store: str, clock: Clock) -> None:
        settings = configuration(time_scale)
        # A breaker or a limiter belongs to one deployment: the scenarios must not open each other's circuits.
        self._gates = {s.name: Interlock(settings, store=store, clock=clock) for s in SCENARIOS}
        for gate in self._gates.values():
            _register(gate, remote)

    async def __aenter__(self) -> Self:
        for gate in self._gates.values():
            gate.house()  # opens the store: one that cannot be used must not be found out half-way
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for gate in self._gates.values():
            await gate.aclose()

    async def perform(self, flight: Flight) -> Outcome:
        """Run the mission's agent to its end, or to where Interlock ends it."""

        async def agent(run: AgentRun, _task: str) -> dict[str, Any]:
            return await work(run, flight.brain())

        began_s = flight.article_s()
        name = flight.mission.name
        result = await self._gates[flight.scenario].run(
            agent,
            name,
            tenant_id=TENANT,
            request_id=f"{flight.project}:{name}",
            retry=flight.delivery > 1,
            agent_name=flight.scenario,
        )
        return Outcome(
            flight.mission,
            result.reason.value,
            _said(result),
            result.steps,
            result.tool_calls,
            result.cost_usd,
            began_s,
            flight.article_s(),
            delivered=result.ok or result.parked,
            run_id=result.run_id,
            doubts=tuple(result.details.get("doubts", ())),
        )

    async def ledger(self, outcomes: Mapping[str, Sequence[Outcome]]) -> Ledger:
        """Read the store.

        Args:
            outcomes: Of all runs, by scenario.
        """
        doubts: list[Claim] = []
        unverified: list[Claim] = []
        refused: Counter[str] = Counter()
        opens: Counter[str] = Counter()
        for name, gate in self._gates.items():
            house = gate.house()
            ended = {o.run_id: o for o in outcomes[name]}
            ours = [c for c in await house.store.doubts(TENANT) if c.run_id in ended]
            doubts += [c for c in ours if c.key.hex() in ended[c.run_id].doubts]
            unverified += [c for c in await house.store.doubts(TENANT, unverified=True) if c.run_id in ended]
            for run_id in ended:
                row = await house.store.run(run_id)
                calls = row.record["trace"] if row is not None and row.record is not None else ()
                refused[name] += sum(call["status"] == "denied" for call in calls)
            opens[name] = sum(tool["opens"] for tool in house.admission.status())
        named = frozenset(claim.sent_key for claim in (*doubts, *unverified))
        return Ledger(tuple(doubts), named, refused, opens)


def _said(result: RunResult) -> Mapping[str, Any] | None:
    """Return what the caller was told: the answer, or what a stopped run hands over."""
    if result.ok:
        return dict(result.output)
    partial = result.details.get("partial")
    return None if not isinstance(partial, dict) else {"text": "", "ticket": partial.get("id"), "invented": False}
