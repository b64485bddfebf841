"""A Microsoft Agent Framework agent behind the gate: the three lines that were added end in `# <-`.

The mail server is told to send, and the answer is lost. The framework would make a tool result of that, and an
obedient model would send again; here the run ends with the one open question. No API key: the model is a script
behind the framework's own OpenAI client.

    python examples/agent_framework_agent.py   (pip install "interlock[agent-framework]" agent-framework-openai)
"""

import asyncio
import json

import httpx
from agent_framework import Agent, tool
from agent_framework.openai import OpenAIChatCompletionClient
from openai import AsyncOpenAI

import interlock
from interlock.adapters.agent_framework import interlock_middleware  # <-

sent: list[str] = []


@tool(approval_mode="never_require")
async def send_mail(to: str) -> str:
    """Send the standard answer."""
    sent.append(to)
    raise TimeoutError("sent, but the answer was lost")


def scripted(request: httpx.Request) -> httpx.Response:
    """Ask for the mail, for ever."""
    function = {"name": "send_mail", "arguments": json.dumps({"to": "ana@example.com"})}
    call = {"id": "call_1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
    head = {"id": "r1", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    return httpx.Response(200, json={**head, "choices": [choice], "usage": usage})


async def main() -> None:
    """Run the agent."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(scripted))
    client = OpenAIChatCompletionClient("gpt-4o", async_client=AsyncOpenAI(api_key="none", http_client=http))
    gate = interlock.Interlock({"tools": {"allow": ["send_mail"]}}, store="sqlite:///:memory:")  # <-
    agent = Agent(
        client,
        "Answer users.",
        tools=[send_mail],
        middleware=interlock_middleware(gate),  # <-
    )

    async def support(_run: interlock.Run, task: str) -> str:
        return str((await agent.run(task)).text)

    result = await gate.run(support, "Answer ana", request_id="req_1")
    print(result.reason, "| parked:", result.parked, "| steps:", result.steps, f"| ${result.cost_usd:.5f}")
    print("mails sent:", len(sent), "| open doubts:", len(result.details["doubts"]))
    await gate.aclose()


if __name__ == "__main__":
    asyncio.run(main())
