"""submit and worker: the queue from the command line."""

from __future__ import annotations

import asyncio
import sys

import pytest

import interlock

AGENTS = """
import interlock

gate = interlock.Interlock(store="sqlite:///q.db")

async def agent(run, task):
    return task

@gate.handler(request_id="id")
async def handle(run, message):
    return message
"""


@pytest.fixture
def agents(here, monkeypatch):
    """A module with a gate, an agent and a handler, in the folder of this test."""
    (here / "some_agents.py").write_text(AGENTS)
    monkeypatch.syspath_prepend(here)
    yield
    sys.modules.pop("some_agents", None)


def test_submit_queues_once_a_request_id_and_show_lists_attempts(typed):
    words = ("submit", "agent", '{"n": 1}', "--request-id", "q1", "--store", "sqlite:///q.db", "--json")
    run_id = typed(*words).json["run_id"]
    assert typed(*words).json == {"run_id": run_id}
    shown = typed("show", run_id, "--json", "--store", "sqlite:///q.db").json
    assert (shown["state"], shown["attempts"], shown["attempted"]) == ("queued", 0, [])

    async def work():
        async def agent(run, task):
            return task

        async with interlock.Interlock(store="sqlite:///q.db") as gate:
            return await gate.run(agent, {"n": 1}, request_id="q1")

    assert asyncio.run(work()).output == {"n": 1}
    [attempt] = typed("show", run_id, "--json", "--store", "sqlite:///q.db").json["attempted"]
    assert (attempt["fence"], attempt["ended_as"]) == (1, "success")
    assert attempt["owner"]
    assert attempt["started_at"] <= attempt["ended_at"]


def test_submit_says_what_is_wrong(typed):
    typed("submit", "agent", "x", "--request-id", "q1", "--store", "sqlite:///q.db")
    other = typed("submit", "agent", "y", "--request-id", "q1", "--store", "sqlite:///q.db")
    assert other.code == 1
    assert "another payload" in other.err
    assert typed("submit").code == 2
    assert typed("submit", "agent", "--resume", "run_1").code == 2
    unknown = typed("submit", "--resume", "run_1", "--store", "sqlite:///q.db")
    assert (unknown.code, "no run has the id" in unknown.err) == (1, True)
    run_id = typed("runs", "--json", "--store", "sqlite:///q.db").json[0]["run_id"]
    queued = typed("submit", "--resume", run_id, "--store", "sqlite:///q.db")
    assert (queued.code, "not parked" in queued.err) == (1, True)


def test_submit_resumes_a_parked_run(typed, store):
    said = typed("submit", "--resume", "run_doubt")
    assert (said.code, said.out.strip()) == (0, "run_doubt")
    assert typed("show", "run_doubt", "--json").json["state"] == "queued"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--agent", "some_agents"), "MODULE:NAME"),
        (("--agent", "some_agents:nobody"), "nobody"),
        (("--agent", "no_such_module:agent"), "no_such_module"),
        (("--agent", "some_agents:gate"), "not a function"),
        (("--agent", "some_agents:agent", "--gate", "some_agents:agent"), "not a gate"),
        (("--agent", "json:dumps"), "has 0 gates"),
    ],
)
def test_worker_says_what_is_wrong(typed, agents, words, why):
    said = typed("worker", *words)
    assert said.code == 1
    assert why in said.err
