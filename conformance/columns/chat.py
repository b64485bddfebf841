"""A hand-written loop over OpenAI chat completions, as tutorials write it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from openai import AsyncOpenAI

from conformance.column import Column, Job, Tool, Wire

__all__ = ["COLUMN"]


def _schemas(tools: Sequence[Tool]) -> list[Any]:
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


async def _use(tool: Tool, args: dict[str, Any]) -> Any:
    work = asyncio.to_thread(tool.fn, **args) if tool.sync else tool.fn(**args)
    return await asyncio.wait_for(work, tool.timeout_s)


async def _loop(job: Job, client: AsyncOpenAI, system: str, prompt: str, tools: Sequence[Tool]) -> str:
    functions = {tool.name: tool for tool in tools}

    async def answer(call: Any) -> dict[str, Any]:
        try:
            args = json.loads(call.function.arguments)
            if job.nested is not None and call.function.name == job.nested.name:
                nested = job.nested
                text = await _loop(job, client, nested.system, str(args), nested.tools)
            else:
                text = json.dumps(await _use(functions[call.function.name], args))
        except Exception as error:
            text = f"Error: {error!r}"
        return {"role": "tool", "tool_call_id": call.id, "content": text}

    schemas = _schemas(tools)
    if job.nested is not None and system == job.system:
        schemas.append(_nested_schema(job))
    messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    while True:
        reply = await client.chat.completions.create(model=job.model, messages=messages, tools=schemas)
        message = reply.choices[0].message
        messages.append(message)
        if not message.tool_calls:
            return message.content or ""
        messages += await asyncio.gather(*(answer(call) for call in message.tool_calls))
