"""A LangChain agent behind the gate: the three lines that were added end in `# <-`.

The remote creates the ticket and loses the answer. Left alone, LangChain's retry middleware would create three;
here the write is sent once more under the same key, and the remote knows it. No API key: the model is scripted.

    python examples/langchain_agent.py        (pip install "interlock[langchain]")
"""

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain.tools import tool
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import interlock
from interlock.adapters.langchain import interlock_middleware  # <-

remote: dict[str, str] = {}
requests = 0


@tool
async def create_ticket(title: str, *, idempotency_key: str) -> dict[str, str]:
    """Create a ticket and return its address."""
    global requests  # noqa: PLW0603
    requests += 1
    address = remote.setdefault(idempotency_key, f"https://tickets.example/{len(remote) + 1}: {title}")
    if requests == 1:
        raise TimeoutError("the ticket is there; its address was lost on the way")
    return {"url": address}


class Scripted(GenericFakeChatModel):
    """Stands in for a model."""

    def bind_tools(self, tools: Any, **words: Any) -> Any:  # noqa: ARG002
        return self.bind(**words)


def model() -> Scripted:
    """Ask for the ticket, and answer."""
    call = {"name": "create_ticket", "args": {"title": "Login fails"}, "id": "call_1", "type": "tool_call"}
    usage = {"input_tokens": 500, "output_tokens": 20, "total_tokens": 520}
    asks = AIMessage("", tool_calls=[call], usage_metadata=usage)
    return Scripted(messages=iter([asks, AIMessage("The ticket is open.", usage_metadata=usage)]))


async def main() -> None:
    """Run the agent."""
    config = {
        "tools": {"allow": ["create_ticket"], "writes": {"create_ticket": {"on_unknown": "resend"}}},
        "prices": {"generic-fake-chat-model": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}},
    }
    gate = interlock.Interlock(config, store="sqlite:///:memory:")  # <-
    agent = create_agent(
        model(),
        [create_ticket],
        middleware=[ToolRetryMiddleware(), interlock_middleware(gate)],  # <-
    )

    async def support(_run: interlock.Run, task: str) -> str:
        state = await agent.ainvoke({"messages": [("user", task)]})
        return state["messages"][-1].text

    result = await gate.run(support, "Users cannot log in", request_id="req_1")
    print(result.reason, "|", result.output, "| steps:", result.steps, f"| ${result.cost_usd:.4f}")
    print("requests sent:", requests, "| tickets in the world:", len(remote))
    await gate.aclose()


if __name__ == "__main__":
    asyncio.run(main())
