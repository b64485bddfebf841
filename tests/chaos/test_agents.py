"""The scripts behave as the article's agents did: helpful, obedient, tireless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from interlock.budget.prices import ModelPrice, Prices
from interlock.chaos import agents
from interlock.chaos.agents import MODEL, USD_PER_MTOK, Brain, work
from interlock.chaos.bare import BareRun
from interlock.chaos.scenarios import SCENARIOS
from interlock.core.clock import ManualClock


@dataclass
class Saw:
    ok: bool
    value: Any = None
    for_model: str = ""


def perform(script, answers):
    """Drive a script by hand; return its uses and what it says. `answers(use)` says what came of each use."""
    uses, seen = [], None
    while True:
        try:
            use = next(script) if seen is None else script.send(seen)
        except StopIteration as said:
            return uses, said.value
        uses.append(use)
        seen = answers(use, len(uses))


def test_it_tries_again_whatever_the_error_until_there_is_a_ticket():
    good = Saw(True, {"id": "T-9", "status": "created", "url": "https://x/T-9"})
    uses, said = perform(agents.reports_ticket("p", "t"), lambda _, n: good if n == 4 else Saw(False, for_model="502"))
    assert len(uses) == 4
    assert len({str(use.args) for use in uses}) == 1  # the same ticket each time
    assert (said.ticket, said.invented) == ("T-9", False)
    assert "https://x/T-9" in said.text


def test_it_gives_up_without_inventing():
    uses, said = perform(agents.reports_ticket("p", "t"), lambda *_: Saw(False))
    assert len(uses) == 8
    assert (said.ticket, said.invented) == (None, False)


@pytest.mark.parametrize("shown", [{"data": {"ticketRef": "T-1"}}, {"error": {"code": "x"}}])
def test_it_smooths_over_an_answer_that_makes_no_sense(shown):
    _, said = perform(agents.reports_ticket("p", "t"), lambda *_: Saw(True, shown))
    assert said.invented
    assert said.ticket not in {None, "T-1"}
    assert perform(agents.knowledge("p", "t"), lambda *_: Saw(True, shown))[1].invented


def test_it_obeys_what_a_page_says():
    uses, _ = perform(agents.injected("p", insists=False), lambda *_: Saw(False))
    assert [use.tool for use in uses] == ["kb.read", "db.write", "email.send"]
    uses, _ = perform(agents.injected("p", insists=True), lambda *_: Saw(False))
    assert [use.tool for use in uses].count("db.write") > 3


def test_the_runaways_run_as_long_as_the_article_s_did():
    runs = {m.name: m.script("p") for m in SCENARIOS[1].missions(1)}
    uses = {name: perform(script, lambda *_: Saw(True, {}))[0] for name, script in runs.items()}
    assert {name: len(some) for name, some in uses.items()} == {
        "research agent": 620,
        "typical runaway": 126,
        "worst runaway": 339,
    }
    different = {name: len({str(use) for use in some}) for name, some in uses.items()}
    assert different == {"research agent": 21, "typical runaway": 126, "worst runaway": 3}


@pytest.mark.parametrize(
    ("name", "steps", "usd", "seconds"),
    [("research agent", 621, 247, 2220), ("typical runaway", 127, 4.20, 227), ("worst runaway", 340, 18.50, 552)],
)
async def test_bare_they_cost_what_the_article_paid(name, steps, usd, seconds):
    clock = ManualClock()
    mission = next(m for m in SCENARIOS[1].missions(1) if m.name == name)

    async def tool(**_):
        return {}

    run = BareRun(
        dict.fromkeys(("search.read", "web.fetch", "kb.read"), tool), Prices({MODEL: ModelPrice(*USD_PER_MTOK)}), 1.0
    )
    began_s = clock.monotonic()
    await work(run, Brain(mission.script("p"), clock, 1.0, mission.turn_s, mission.growth_tokens))
    assert run.steps == steps
    assert run.cost_usd == pytest.approx(usd, rel=0.02)
    assert clock.monotonic() - began_s == pytest.approx(seconds, rel=0.02)


async def test_bare_every_error_becomes_text_for_the_model():
    async def broken(**_):
        raise ConnectionResetError("gone")

    run = BareRun({"t": broken}, Prices(), 1.0)
    seen = await run.observe("t", {})
    assert (seen.ok, seen.value, seen.for_model) == (False, None, "ConnectionResetError: gone")
    assert run.calls == 1
    assert not (await run.observe("unknown", {})).ok


async def test_the_loop_keeps_what_exists_for_the_case_that_it_is_stopped():
    async def tool(**_):
        return {"id": "T-1", "url": "u", "status": "created"}

    clock = ManualClock()
    run = BareRun({"ticket.create": tool}, Prices({MODEL: ModelPrice(1, 1)}), 1.0)
    said = await work(run, Brain(agents.reports_ticket("p", "t"), clock, 1.0, 2.0, 100))
    assert said == {"text": "Created: u", "ticket": "T-1", "invented": False}
    assert run.partial["id"] == "T-1"
