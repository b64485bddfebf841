"""A process of its own, for `test_run_memory.py`: an agent that remembers, recalls, writes, and is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import interlock

WORLD = Path(os.environ.get("WORLD", "."))
KILL_AT = os.environ.get("KILL_AT", "")
gate = interlock.Interlock({"lease_ttl_s": 0.5, "prices_unknown": "allow"}, store=os.environ.get("STORE"))


def come_to(place):
    if place == KILL_AT:
        try:
            os.close(os.open(WORLD / f"killed-{place}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def note(line):
    with (WORLD / "notes").open("a") as notes:
        notes.write(json.dumps(line) + "\n")


@gate.tool("post", effect="write", natural=True)
async def post(text: str) -> str:
    note(["post", text])
    come_to("sent")
    return text


async def ask(prompt):
    return {"text": f"{prompt} {os.getpid()}", "usage": {"cost_usd": 0.0}}


async def agent(run, task):
    mine = run.memory.scope(user="ann")
    plan = await run.model(ask, "plan")
    for _ in range(2):  # equal facts of one turn are two facts
        await run.memory.remember("Ann likes tea", scope=mine, subject="ann")
    come_to("remembered")
    recalled = await run.memory.recall("tea", scope=mine)
    note(["recalled", recalled.text])
    come_to("recalled")
    written = await run.model(ask, "write")
    await run.call("post", {"text": written["text"]})
    kept = await run.memory.remember({"key": "drink", "value": "tea"}, scope=mine, subject="ann")
    new = await run.memory.supersede(kept.fact_id, {"key": "drink", "value": "milk"}, scope=mine, subject="ann")
    come_to("superseded")
    await run.model(ask, "conclude")
    assert await run.memory.forget(new.fact_id, scope=mine)
    come_to("forgotten")
    return plan["text"]


@gate.tool("note.add", effect="write", natural=True)
async def add_note(text: str) -> str:
    run = RUNS[-1]
    return (await run.memory.remember(text, scope=run.memory.scope(user="ann"))).fact_id


@gate.tool("note.find", effect="read")
async def find_note(words: str) -> list:
    run = RUNS[-1]
    return [fact.text for fact in (await run.memory.recall(words, scope=run.memory.scope(user="ann"))).facts]


RUNS = []


async def by_tools(run, task):
    """Memory as tools of the model; without declared turns if the task says so."""
    RUNS.append(run)
    found = []
    for n in range(3):
        if task != "bare":
            await run.model(ask, f"turn {n}")
        await run.call("note.add", {"text": f"tea {n}"})
        found += await run.call("note.find", {"words": "tea" if n < 2 else "nothing"})
        if n == 1:
            come_to("noted")
    note(["sources", list(run.scope.lineage.sources)])
    return sorted(found)


if __name__ == "__main__":
    agents = {"agent": agent, "by_tools": by_tools}
    chosen = agents[sys.argv[2]]
    gate.run_sync(chosen, sys.argv[3], request_id=sys.argv[1], tenant_id="acme", agent_name="agent")
    gate.close()
