"""An agent of the OpenAI Agents SDK behind the gate: the three lines that were added end in `# <-`.

The remote creates the ticket and loses the answer. Bare, the SDK tells the model "Please try again", and there are two
tickets. Here the write is sent again under the same key, and the remote keeps one. No API key: the model is the SDK's
own scripted one.

    python examples/openai_agents_agent.py        (pip install "interlock[openai-agents]")
"""

import asyncio
import json
from typing import Any

from agents import Agent, RunConfig, Runner, function_tool
from agents.testing import ScriptedModel
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

import interlock
from interlock.adapters import openai_agents  # <-

QUIET = RunConfig(tracing_disabled=True)


class Remote:
    """Creates tickets, loses its first answer, and knows keys that it has seen."""

    def __init__(self) -> None:
        self.tickets: list[str] = []
        self.keys: dict[str, str] = {}
        self.lost = False

    def create(self, title: str, key: str | None = None) -> str:
        """Create a ticket, or return the one that was created under this key."""
        url = self.keys.get(key) if key else None
        if url is None:
            self.tickets.append(title)
            url = f"https://tickets.example/{len(self.tickets)}"
            if key:
                self.keys[key] = url
        if not self.lost:
            self.lost = True
            raise TimeoutError("the ticket is there; its address was lost on the way")
        return url


def use(call_id: str) -> Any:
    """Ask for the ticket."""
    args = json.dumps({"title": "Login fails"})
    return ResponseFunctionToolCall(type="function_call", call_id=call_id, name="create_ticket", arguments=args)


def answer(text: str) -> Any:
    """Answer."""
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[part])


async def bare() -> None:
    """Run the agent as it was."""
    remote = Remote()

    @function_tool
    async def create_ticket(title: str) -> str:
        """Create a ticket and return its address."""
        return remote.create(title)

    model = ScriptedModel([[use("c1")], [use("c2")], [answer("Done.")]])
    agent = Agent(name="support", model=model, tools=[create_ticket])
    result = await Runner.run(agent, "Users cannot log in", run_config=QUIET)
    print("bare:   ", result.final_output, "| tickets in the world:", len(remote.tickets))


async def guarded() -> None:
    """Run it behind the gate."""
    remote = Remote()

    @function_tool
    async def create_ticket(title: str, *, idempotency_key: str) -> str:
        """Create a ticket and return its address."""
        return remote.create(title, idempotency_key)

    config: dict[str, Any] = {
        "tools": {"allow": ["create_ticket"], "writes": {"create_ticket": {"on_unknown": "resend"}}},
        "agent": {"budgets": {"max_usd": None}},
        "logging": {"level": "error"},
    }
    model = ScriptedModel([[use("c1")], [answer("Done.")]])
    agent = Agent(name="support", model=model, tools=[create_ticket])
    gate = interlock.Interlock(config, store="sqlite:///:memory:")  # <-
    for when in ("guarded:", "again:  "):
        result = await openai_agents.run(gate, agent, "Users cannot log in", request_id="req_1", run_config=QUIET)  # <-
        print(when, result.output, "| tickets in the world:", len(remote.tickets), "|", result.reason, result.replayed)
    await gate.aclose()


if __name__ == "__main__":
    asyncio.run(bare())
    asyncio.run(guarded())
