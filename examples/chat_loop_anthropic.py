"""A hand-written loop over Anthropic messages behind the gate: the three lines that changed end in `# <-`.

The remote creates the ticket and loses the answer; an obedient model asks for the ticket once more. Bare, that makes
two tickets. Here the write is sent again under the same key, and the remote keeps one. No API key: the client is the
vendor's own, and a function at its transport stands in for the API.

    python examples/chat_loop_anthropic.py        (pip install interlock anthropic)
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
from anthropic import AsyncAnthropic

import interlock
from interlock.adapters import chat

SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
TOOLS: Any = [{"name": "create_ticket", "description": "Create a ticket.", "input_schema": SCHEMA}]
ASKED: dict[str, Any] = {"model": "claude-opus-4-6", "max_tokens": 500, "tools": TOOLS}


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
    remote, client = Remote(), AsyncAnthropic(api_key="none", http_client=scripted_api())
    functions: dict[str, Callable[..., str]] = {"create_ticket": remote.create}
    messages: list[Any] = [{"role": "user", "content": "Users cannot log in"}]
    while True:
        reply = await client.messages.create(messages=messages, **ASKED)
        messages.append({"role": "assistant", "content": reply.content})
        uses = [block for block in reply.content if block.type == "tool_use"]
        if not uses:
            break
        results = []
        for use in uses:
            try:
                text = functions[use.name](**use.input)
            except Exception as error:
                text = f"Error: {error}"
            results.append({"type": "tool_result", "tool_use_id": use.id, "content": text})
        messages.append({"role": "user", "content": results})
    print("bare:   ", reply.content[0].text, "| tickets in the world:", len(remote.tickets))


CONFIG: dict[str, Any] = {
    "tools": {"allow": ["create_ticket"], "writes": {"create_ticket": {"on_unknown": "resend"}}},
    "logging": {"level": "error"},
}


async def guarded() -> None:
    """Run it behind the gate."""
    remote, client = Remote(), AsyncAnthropic(api_key="none", http_client=scripted_api())

    def create_ticket(title: str, *, idempotency_key: str) -> str:
        return remote.create(title, idempotency_key)

    async def loop(run: interlock.Run, task: str) -> str:
        messages: list[Any] = [{"role": "user", "content": task}]
        while True:
            reply = await chat.ask(run, client.messages.create, messages=messages, **ASKED)  # <-
            messages.append({"role": "assistant", "content": reply.content})
            if not chat.uses_of(reply):
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
        content: list[dict[str, Any]] = [{"type": "text", "text": "Done."}]
        if "https://" not in str(messages[-1]["content"]):
            use = {"id": f"toolu_{len(messages)}", "name": "create_ticket", "input": {"title": "Login fails"}}
            content = [{"type": "tool_use", **use}]
        head = {"id": "m", "type": "message", "role": "assistant", "model": "claude-opus-4-6"}
        end = {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 200, "output_tokens": 20}}
        return httpx2.Response(200, json={**head, "content": content, **end})

    return httpx2.AsyncClient(transport=httpx2.MockTransport(reply))


if __name__ == "__main__":
    asyncio.run(bare())
    asyncio.run(guarded())
