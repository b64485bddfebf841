"""A crew of CrewAI behind the gate: the three lines that were added end in `# <-`.

The remote creates the ticket and loses the answer. Bare, the model reads the error and asks again, and there are two
tickets. Here the write is sent again under the same key, and the remote keeps one. No API key: the model is scripted.

    python examples/crewai_agent.py        (pip install "interlock[crewai]", in an environment of its own)
"""

import asyncio
import os
from typing import Any

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}

from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool

import interlock
from interlock.adapters import crewai  # <-

USE = 'Thought: a ticket is needed.\nAction: create_ticket\nAction Input: {"title": "Login fails"}'
DONE = "Thought: I now know the final answer\nFinal Answer: Done."


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


class Scripted(BaseLLM):
    """Asks for the ticket until it reads an address, then answers."""

    def call(self, messages: Any, *_: Any, **__: Any) -> str:
        """Return the next reply."""
        return DONE if "https://tickets.example/" in str(messages) else USE


def crew(create_ticket: Any) -> Crew:
    """Return a crew of one agent with one task."""
    agent = Agent(role="support", goal="Help.", backstory="-", llm=Scripted(model="scripted"), tools=[create_ticket])
    return Crew(agents=[agent], tasks=[Task(description="Users cannot log in", expected_output="-", agent=agent)])


def bare() -> None:
    """Run the crew as it was."""
    remote = Remote()

    @tool("create_ticket")
    def create_ticket(title: str) -> str:
        """Create a ticket and return its address."""
        return remote.create(title)

    print("bare:   ", crew(create_ticket).kickoff().raw, "| tickets in the world:", len(remote.tickets))


async def guarded() -> None:
    """Run it behind the gate."""
    remote = Remote()

    @tool("create_ticket")
    def create_ticket(title: str, *, idempotency_key: str) -> str:
        """Create a ticket and return its address."""
        return remote.create(title, idempotency_key)

    config: dict[str, Any] = {
        "tools": {"allow": ["create_ticket"], "writes": {"create_ticket": {"on_unknown": "resend"}}},
        "agent": {"budgets": {"max_usd": None}},
        "logging": {"level": "error"},
    }
    gate = interlock.Interlock(config, store="sqlite:///:memory:")  # <-
    for when in ("guarded:", "again:  "):
        result = await crewai.run(gate, crew(create_ticket), request_id="req_1", payload="Users cannot log in")  # <-
        print(when, result.output, "| tickets in the world:", len(remote.tickets), "|", result.reason, result.replayed)
    await gate.aclose()


if __name__ == "__main__":
    bare()
    asyncio.run(guarded())
