"""A Pydantic AI agent behind the gate: the three lines that were added end in `# <-`.

The remote creates the ticket and loses the answer; an obedient model asks for the ticket once more. Bare, that makes
two tickets. Here the write is sent again under the same key, and the remote keeps one. No API key: the model is
scripted.

    python examples/pydantic_ai_agent.py        (pip install "interlock[pydantic-ai]")
"""

import asyncio
from typing import Any

from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import interlock
from interlock.adapters.pydantic_ai import interlock_capability  # <-


class Remote:
    """Creates tickets, loses its first answer, and knows keys that it has seen."""

    def __init__(self) -> None:
        self.tickets: list[str] = []
        self.keys: dict[str, str] = {}
        self.lost = False

    def create(self, title: str, key: str | None) -> str:
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


def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    """Stand in for a model: ask for the ticket until there is an address, then answer."""
    returned = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
    if returned and returned[0].outcome == "success":
        return ModelResponse(parts=[TextPart(f"Done: {returned[0].content}")])
    return ModelResponse(parts=[ToolCallPart("create_ticket", {"title": "Login fails"})])


async def bare() -> None:
    """Run the agent as it was."""
    remote = Remote()

    async def create_ticket(title: str) -> str:
        """Create a ticket and return its address."""
        try:
            return remote.create(title, None)
        except TimeoutError as error:
            raise ModelRetry(str(error)) from error

    agent = Agent(FunctionModel(model), tools=[create_ticket])
    reply = await agent.run("Users cannot log in")
    print("bare:   ", reply.output, "| tickets in the world:", len(remote.tickets))


async def guarded() -> None:
    """Run it behind the gate."""
    remote = Remote()

    async def create_ticket(title: str, *, idempotency_key: str) -> str:
        """Create a ticket and return its address."""
        return remote.create(title, idempotency_key)

    config: dict[str, Any] = {
        "tools": {"allow": ["create_ticket"], "writes": {"create_ticket": {"on_unknown": "resend"}}},
        "agent": {"budgets": {"max_usd": None}},
        "logging": {"level": "error"},
    }
    gate = interlock.Interlock(config, store="sqlite:///:memory:")  # <-
    agent = Agent(FunctionModel(model), tools=[create_ticket], capabilities=[interlock_capability(gate)])  # <-

    async def support(_run: interlock.Run, task: str) -> str:
        return (await agent.run(task)).output

    result = await gate.run(support, "Users cannot log in", request_id="req_1")
    print("guarded:", result.output, "| tickets in the world:", len(remote.tickets), "|", result.reason)
    again = await gate.run(support, "Users cannot log in", request_id="req_1")
    print("again:  ", again.output, "| tickets in the world:", len(remote.tickets), "| replayed:", again.replayed)
    await gate.aclose()


if __name__ == "__main__":
    asyncio.run(bare())
    asyncio.run(guarded())
