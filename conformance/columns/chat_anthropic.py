"""A hand-written loop over Anthropic messages with the vendor's client; and the same with `adapters.chat`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from anthropic import AsyncAnthropic

from conformance.column import Column, Job, Nested, Tool, Wire
from conformance.columns.chat import TASK, functions_of, used
from interlock import Interlock, Run, RunResult
from interlock.adapters import chat

__all__ = ["COLUMN", "asked", "bare"]


def _offers(tools: Sequence[Tool], nested: Nested | None) -> list[Any]:
    offered = [(tool.name, tool.description, dict(tool.parameters)) for tool in tools]
    if nested is not None:
        offered.append((nested.name, nested.description, TASK))
    return [{"name": name, "description": text, "input_schema": parameters} for name, text, parameters in offered]


async def asked(client: AsyncAnthropic, *, stream: bool, **request: Any) -> Any:
    """Return the reply of one request."""
    if not stream:
        return await client.messages.create(**request)
    async with client.messages.stream(**request) as pieces:
        return await pieces.get_final_message()


async def bare(job: Job, through: Callable[..., Awaitable[Any]] = asked) -> str:
    """Run the loop: an error of a tool becomes text; `through` is what asks the model."""
    client = AsyncAnthropic(base_url=job.anthropic_url, api_key=job.api_key)

    async def answer(use: Any, tools: Sequence[Tool]) -> dict[str, Any]:
        try:
            if job.nested is not None and use.name == job.nested.name:
                text = await loop(job.nested.system, use.input["task"], job.nested.tools, None)
            else:
                tool = next(tool for tool in tools if tool.name == use.name)
                text = json.dumps(await used(tool, use.input))
        except Exception as error:
            return {"type": "tool_result", "tool_use_id": use.id, "content": f"Error: {error!r}", "is_error": True}
        return {"type": "tool_result", "tool_use_id": use.id, "content": text}

    async def loop(system: str, prompt: str, tools: Sequence[Tool], nested: Nested | None) -> str:
        messages: list[Any] = [{"role": "user", "content": prompt}]
        while True:
            request = {"model": job.model, "max_tokens": 1024, "system": system, "messages": messages}
            reply = await through(client, stream=job.stream, tools=_offers(tools, nested), **request)
            messages.append({"role": "assistant", "content": reply.content})
            uses = [block for block in reply.content if block.type == "tool_use"]
            if not uses:
                return "".join(block.text for block in reply.content if block.type == "text")
            results = await asyncio.gather(*(answer(use, tools) for use in uses))
            messages.append({"role": "user", "content": results})

    return await loop(job.system, job.prompt, job.tools, job.nested)


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same loop, with three lines of it changed."""
    client = AsyncAnthropic(base_url=job.anthropic_url, api_key=job.api_key)

    async def ask(run: Run, **request: Any) -> Any:
        if not job.stream:
            return await chat.ask(run, client.messages.create, **request)
        async with chat.stream(run, client.messages.create, **request) as pieces:
            async for _ in pieces:
                pass
        return pieces.reply

    async def loop(run: Run, system: str, prompt: str, tools: Sequence[Tool], nested: Nested | None) -> str:
        async def research(task: str) -> str:
            assert nested is not None
            async with chat.sub_agent(run, nested.name) as child:
                return await loop(child, nested.system, task, nested.tools, None)

        guarded_tools = chat.Tools(gate, functions_of(tools, None if nested is None else research))
        messages: list[Any] = [{"role": "user", "content": prompt}]
        while True:
            request = {"model": job.model, "max_tokens": 1024, "system": system, "messages": messages}
            reply = await ask(run, tools=_offers(tools, nested), **request)
            messages.append({"role": "assistant", "content": reply.content})
            if not chat.uses_of(reply):
                return chat.text_of(reply)
            messages += await guarded_tools.results(run, reply)

    async def agent(run: Run, prompt: str) -> str:
        return await loop(run, job.system, prompt, job.tools, job.nested)

    return await gate.run(agent, job.prompt, **job.options)


COLUMN = Column(
    name="chat-anthropic",
    distribution="anthropic",
    requires=("anthropic==2.12.0",),
    wire=Wire.ANTHROPIC,
    bare=bare,
    guarded=guarded,
)
