"""A hand-written loop over OpenAI chat completions behind the gate: the three lines that changed end in `# <-`.

The remote creates the ticket and loses the answer; an obedient model asks for the ticket once more. Bare, that makes
two tickets. Here the write is sent again under the same key, and the remote keeps one. No API key: the client is the
vendor's own, and a function at its transport stands in for the API.

    python examples/chat_loop_openai.py        (pip install interlock openai)
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
from openai import AsyncOpenAI

import interlock
from interlock.adapters import chat

SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
FUNCTION = {"name": "create_ticket", "description": "Create a ticket.", "parameters": SCHEMA}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]


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


async def bare() -> None:
    """Run the loop as it was."""
    remote, client = Remote(), AsyncOpenAI(api_key="none", http_client=scripted_api())
    functions: dict[str, Callable[..., str]] = {"create_ticket": remote.create}
    messages: list[Any] = [{"role": "user", "content": "Users cannot log in"}]
    while True:
        reply = await client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS)
        messages.append(reply.choices[0].message)
        if not reply.choices[0].message.tool_calls:
            break
        for call in reply.choices[0].message.tool_calls:
            try:
                text = functions[call.function.name](**json.loads(call.function.arguments))
            except Exception as error:
                text = f"Error: {error}"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
    print("bare:   ", reply.choices[0].message.content, "| tickets in the world:", len(remote.tickets))


CONFIG: dict[str, Any] = {
    "tools": {"allow": ["create_ticket"], "writes": {"create_ticket": {"on_unknown": "resend"}}},
    "logging": {"level": "error"},
}


async def guarded() -> None:
    """Run it behind the gate."""
    remote, client = Remote(), AsyncOpenAI(api_key="none", http_client=scripted_api())

    def create_ticket(title: str, *, idempotency_key: str) -> str:
        return remote.create(title, idempotency_key)

    async def loop(run: interlock.Run, task: str) -> str:
        messages: list[Any] = [{"role": "user", "content": task}]
        while True:
            ask = client.chat.completions.create
            reply = await chat.ask(run, ask, model="gpt-4o", messages=messages, tools=TOOLS)  # <-
            messages.append(reply.choices[0].message)
            if not reply.choices[0].message.tool_calls:
                return chat.text_of(reply)
            messages += await tools.results(run, reply)  # <-

    gate = interlock.Interlock(CONFIG, store="sqlite:///:memory:")
    tools = chat.Tools(gate, {"create_ticket": create_ticket})  # <-
    result = await gate.run(loop, "Users cannot log in", request_id="req_1")
    print("guarded:", result.output, "| tickets in the world:", len(remote.tickets), "|", result.reason)
    print(f"         {result.steps} model turns, ${result.cost_usd:.6f}")
    await gate.aclose()


def scripted_api() -> httpx2.AsyncClient:
    """Stand in for the API: ask for the ticket until there is an address, then answer."""

    def reply(request: httpx2.Request) -> httpx2.Response:
        messages = json.loads(request.content)["messages"]
        message: dict[str, Any] = {"role": "assistant", "content": "Done."}
        if "https://" not in str(messages[-1]["content"]):
            function = {"name": "create_ticket", "arguments": json.dumps({"title": "Login fails"})}
            call = {"id": f"call_{len(messages)}", "type": "function", "function": function}
            message |= {"content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 200, "completion_tokens": 20, "total_tokens": 220}
        head = {"id": "c", "object": "chat.completion", "created": 0, "model": "gpt-4o"}
        return httpx2.Response(200, json={**head, "choices": [choice], "usage": usage})

    return httpx2.AsyncClient(transport=httpx2.MockTransport(reply))


if __name__ == "__main__":
    asyncio.run(bare())
    asyncio.run(guarded())
