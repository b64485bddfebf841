"""No framework: a loop written by hand over chat completions, and the same loop with `run.model` and `run.observe`.

What every framework's column is compared with, and the check of the harness itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from conformance.column import Column, Job, Nested, Tool, Wire
from interlock import Interlock, Run, RunResult

__all__ = ["COLUMN"]

Messages = list[dict[str, Any]]
Ask = Callable[[Messages, tuple[Tool, ...], Nested | None], Awaitable[dict[str, Any]]]
UseTool = Callable[[str, Any, str], Awaitable[str]]


class Client:
    """Asks the model, plain or as a stream."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._http = httpx.AsyncClient(base_url=job.openai_url, timeout=30.0)

    async def ask(self, messages: Messages, tools: tuple[Tool, ...], nested: Nested | None) -> dict[str, Any]:
        """Return the reply's message and usage."""
        offered = [_offer(t.name, t.description, t.parameters) for t in tools]
        if nested is not None:
            task = {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]}
            offered.append(_offer(nested.name, nested.description, task))
        body = {"model": self._job.model, "messages": messages, "tools": offered}
        if self._job.stream:
            return await self._stream(body | {"stream": True, "stream_options": {"include_usage": True}})
        reply = (await self._http.post("/chat/completions", json=body)).raise_for_status().json()
        return {"message": reply["choices"][0]["message"], "usage": reply["usage"]}

    async def _stream(self, body: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        usage: dict[str, Any] = {}
        async with self._http.stream("POST", "/chat/completions", json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    _grow(message, choice["delta"])
        return {"message": message, "usage": usage}

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()


def _offer(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": dict(parameters)}
    return {"type": "function", "function": function}


def _grow(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    message["content"] += delta.get("content") or ""
    for piece in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        if piece["index"] == len(calls):
            calls.append({"id": piece["id"], "type": "function", "function": dict(piece["function"])})
        else:
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


async def converse(
    ask: Ask, use: UseTool, system: str, prompt: str, tools: tuple[Tool, ...], nested: Nested | None
) -> str:
    """Ask, use the tools that the model names, all of a turn at once, tell it what came of them; to its answer."""
    messages: Messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    while True:
        message = (await ask(messages, tools, nested))["message"]
        calls = message.get("tool_calls") or []
        if not calls:
            return str(message["content"])
        texts = await asyncio.gather(*(_one(use, call) for call in calls))
        messages.append(message)
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": text}
            for call, text in zip(calls, texts, strict=True)
        ]


async def _one(use: UseTool, call: Mapping[str, Any]) -> str:
    function = call["function"]
    try:
        args = json.loads(function["arguments"])
    except ValueError:
        args = function["arguments"]  # what is not JSON fits no schema
    return await use(function["name"], args, call["id"])


async def bare(job: Job) -> str:
    """Run the loop as people write it: any error of a tool becomes text."""
    client = Client(job)

    async def use(name: str, args: Any, _call_id: str) -> str:
        if job.nested is not None and name == job.nested.name:
            nested = job.nested
            return await converse(client.ask, use, nested.system, str(args), nested.tools, None)
        try:
            tool = job.tool(name)
            if not tool.sync:
                return json.dumps(await tool.fn(**args))
            async with asyncio.timeout(tool.timeout_s):
                return json.dumps(await asyncio.to_thread(tool.fn, **args))
        except Exception as error:
            return f"{type(error).__name__}: {error}. Please try again."

    try:
        return await converse(client.ask, use, job.system, job.prompt, job.tools, job.nested)
    finally:
        await client.close()


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same loop in a run of the gate."""
    known = {spec.name for spec in gate.tools}
    for tool in job.tools:
        if tool.name not in known:
            gate.tool(tool.name, effect=tool.effect or "write", allow=True)(tool.fn)
    client = Client(job)

    async def agent(run: Run, prompt: str) -> str:
        return await converse(_asks(run), _uses(run), job.system, prompt, job.tools, job.nested)

    def _asks(run: Run) -> Ask:
        async def ask(messages: Messages, tools: tuple[Tool, ...], nested: Nested | None) -> dict[str, Any]:
            reply: dict[str, Any] = await run.model(client.ask, messages, tools, nested, model=job.model)
            return reply

        return ask

    def _uses(run: Run) -> UseTool:
        async def use(name: str, args: Any, call_id: str) -> str:
            if job.nested is not None and name == job.nested.name:
                nested = job.nested
                async with run.child(nested.name) as child:
                    return await converse(_asks(child), _uses(child), nested.system, str(args), nested.tools, None)
            seen = await run.observe(name, args, tool_call_id=call_id)
            return str(seen.for_model)

        return use

    try:
        return await gate.run(agent, job.prompt, **job.options)
    finally:
        await client.close()


COLUMN = Column(name="loop", distribution="interlock", requires=(), wire=Wire.OPENAI_CHAT, bare=bare, guarded=guarded)
