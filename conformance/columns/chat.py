"""A hand-written loop over OpenAI chat completions with the vendor's client; and the same with `adapters.chat`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from openai import AsyncOpenAI

from conformance.column import Column, Job, Nested, Tool, Wire
from interlock import Interlock, Run, RunResult
from interlock.adapters import chat

__all__ = ["COLUMN", "TASK", "asked", "bare", "functions_of", "used"]

TASK = {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]}


async def used(tool: Tool, args: dict[str, Any]) -> Any:
    """Call a tool as a loop does that knows of timeouts."""
    work = asyncio.to_thread(tool.fn, **args) if tool.sync else tool.fn(**args)
    return await asyncio.wait_for(work, tool.timeout_s)


def functions_of(
    tools: Sequence[Tool], nested: Callable[[str], Awaitable[str]] | None
) -> dict[str, Callable[..., Any]]:
    """Return the dispatch table of a loop."""
    found: dict[str, Callable[..., Any]] = {tool.name: tool.fn for tool in tools}
    if nested is not None:

        async def researcher(task: str) -> str:
            return await nested(task)

        found["researcher"] = researcher
    return found


def _offers(tools: Sequence[Tool], nested: Nested | None) -> list[Any]:
    offered = [(tool.name, tool.description, dict(tool.parameters)) for tool in tools]
    if nested is not None:
        offered.append((nested.name, nested.description, TASK))
    return [
        {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}
        for name, text, parameters in offered
    ]


def _begun(system: str, prompt: str) -> list[Any]:
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


async def asked(client: AsyncOpenAI, *, stream: bool, **request: Any) -> Any:
    """Return the reply of one request."""
    if not stream:
        return await client.chat.completions.create(**request)
    async with client.chat.completions.stream(**request) as pieces:
        return await pieces.get_final_completion()


async def bare(job: Job, through: Callable[..., Awaitable[Any]] = asked) -> str:
    """Run the loop: an error of a tool becomes text; `through` is what asks the model."""
    client = AsyncOpenAI(base_url=job.openai_url, api_key=job.api_key)

    async def answer(call: Any, tools: Sequence[Tool]) -> dict[str, Any]:
        try:
            args = json.loads(call.function.arguments)
            if job.nested is not None and call.function.name == job.nested.name:
                text = await loop(job.nested.system, args["task"], job.nested.tools, None)
            else:
                tool = next(tool for tool in tools if tool.name == call.function.name)
                text = json.dumps(await used(tool, args))
        except Exception as error:
            text = f"Error: {error!r}"
        return {"role": "tool", "tool_call_id": call.id, "content": text}

    async def loop(system: str, prompt: str, tools: Sequence[Tool], nested: Nested | None) -> str:
        messages = _begun(system, prompt)
        while True:
            request = {"model": job.model, "messages": messages, "tools": _offers(tools, nested)}
            reply = await through(client, stream=job.stream, **request)
            message = reply.choices[0].message
            messages.append(message)
            if not message.tool_calls:
                return message.content or ""
            messages += await asyncio.gather(*(answer(call, tools) for call in message.tool_calls))

    return await loop(job.system, job.prompt, job.tools, job.nested)


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same loop, with three lines of it changed."""
    client = AsyncOpenAI(base_url=job.openai_url, api_key=job.api_key)

    async def ask(run: Run, **request: Any) -> Any:
        if not job.stream:
            return await chat.ask(run, client.chat.completions.create, **request)
        async with chat.stream(run, client.chat.completions.create, **request) as pieces:
            async for _ in pieces:
                pass
        return pieces.reply

    async def loop(run: Run, system: str, prompt: str, tools: Sequence[Tool], nested: Nested | None) -> str:
        async def research(task: str) -> str:
            assert nested is not None
            async with chat.sub_agent(run, nested.name) as child:
                return await loop(child, nested.system, task, nested.tools, None)

        guarded_tools = chat.Tools(gate, functions_of(tools, None if nested is None else research))
        messages = _begun(system, prompt)
        while True:
            reply = await ask(run, model=job.model, messages=messages, tools=_offers(tools, nested))
            messages.append(reply.choices[0].message)
            if not chat.uses_of(reply):
                return chat.text_of(reply)
            messages += await guarded_tools.results(run, reply)

    async def agent(run: Run, prompt: str) -> str:
        return await loop(run, job.system, prompt, job.tools, job.nested)

    return await gate.run(agent, job.prompt, **job.options)


COLUMN = Column(
    name="chat",
    distribution="openai",
    requires=("openai==3.54.0",),
    wire=Wire.OPENAI_CHAT,
    bare=bare,
    guarded=guarded,
)
