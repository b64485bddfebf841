"""What users write against the facade, as two type checkers must see it. Never executed."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

from pydantic import BaseModel

import interlock
from interlock import Interlock, Observation, Run, RunResult, StopReason, Tool

gate = Interlock()
Interlock("interlock.yaml")
Interlock(Path("interlock.yaml"), store="sqlite:///file.db", profile="support")
Interlock({"mode": "observe"})


class Ticket(BaseModel):
    """An output."""

    id: str


@gate.tool("ticket.create", effect="write", output=Ticket, timeout_s=15, identity=["title"], scopes=["support"])
async def create_ticket(title: str, *, idempotency_key: str) -> dict[str, str]:
    """Write with a key."""
    return {"id": f"{title} {idempotency_key}"}


def short(text: str) -> bool:
    """Say whether an output is believable."""
    return len(text) < 100


@gate.tool("kb.read", effect="read", invariants=[short, ("shorter", short)])
def read(topic: str) -> str:
    """Read."""
    return topic


def by_arguments(args: Mapping[str, Any]) -> str:
    """Say the effect of a call."""
    return "read" if args["dry_run"] else "write"


@gate.tool(effect=by_arguments, on_unknown="stop", repeat="ask", approval=lambda call: bool(call.args), allow=True)
def apply(dry_run: bool) -> None:
    """Read or write."""
    del dry_run


assert_type(create_ticket, Tool)
assert_type(read, Tool)


async def ask_model(messages: list[str], *, temperature: float = 0) -> dict[str, Any]:
    """Stand in for a provider."""
    return {"text": messages[0], "temperature": temperature}


async def agent(run: Run, task: str, *, language: str = "en") -> str:
    """Use everything that a run offers."""
    reply = await run.model(ask_model, [task], temperature=0.5, model="openai:gpt-4o", max_output_tokens=10)
    async with run.step(model="openai:gpt-4o", max_output_tokens=10) as step:
        step.charge({"input_tokens": 1, "output_tokens": 1})
    seen = await run.observe("kb.read", {"topic": language})
    assert_type(run.run_id, str)
    ticket = await run.call("ticket.create", {"title": task})
    async with run.child("helper", budgets={"max_steps": 3}, allow=["kb.*"]) as child:
        assert_type(child, Run)
    run.partial = [seen, ticket]
    return str(reply)


def sync_agent(run: Run, task: Any) -> Any:
    """Use the same from a thread."""
    with run.step() as step:
        step.charge({"input_tokens": 1, "output_tokens": 1})
    return run.call("kb.read", {"topic": str(task)})


async def main() -> None:
    """Run agents in each way."""
    result = await gate.run(agent, "task", tenant_id="acme", request_id="req_1", inputs={"language": "de"}, retry=True)
    assert_type(result, RunResult)
    assert_type(result.reason, StopReason)
    assert_type(result.ok, bool)
    async with gate.open_run("task", agent_name="loop") as run:
        run.output = 1
    async with Interlock() as other:
        await other.run(sync_agent, 1, budgets={"max_usd": 0.5}, allow=["kb.*"], scopes=["support"])
    await gate.aclose()


def observed(seen: Observation) -> str:
    """Read an observation."""
    assert_type(seen.ok, bool)
    return seen.for_model if seen.reason is StopReason.TOOL_DENIED else seen.status


def failures(error: interlock.InterlockError) -> StopReason:
    """Read errors."""
    if isinstance(error, interlock.ToolOutputInvalid):
        assert_type(error.tool, str)
    return interlock.classify_tool_error(error)


with gate:
    gate.run_sync(sync_agent, "task")
asyncio.run(main())
