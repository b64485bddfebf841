"""Microsoft Agent Framework: `Agent.run`, over chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_framework import Agent, FunctionTool
from agent_framework.openai import OpenAIChatCompletionClient

from conformance.column import Column, Job, Tool, Wire
from interlock import Interlock, Run, RunResult
from interlock.adapters.agent_framework import interlock_middleware

__all__ = ["COLUMN", "agent_of", "say"]


def _tool(tool: Tool) -> FunctionTool:
    return FunctionTool(name=tool.name, description=tool.description, func=tool.fn)


def _client(job: Job) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(job.model, api_key=job.api_key, base_url=job.openai_url)


def agent_of(job: Job, middleware: Sequence[Any]) -> Agent[Any]:
    """Return the agent, with these middlewares."""
    tools: list[Any] = [_tool(tool) for tool in job.tools]
    if job.nested is not None:
        nested = job.nested
        inner = Agent(
            _client(job), nested.system, name=nested.name, tools=[_tool(t) for t in nested.tools], middleware=middleware
        )
        tools.append(inner.as_tool(name=nested.name, description=nested.description))
    return Agent(_client(job), job.system, name="agent", tools=tools, middleware=middleware)


async def say(agent: Agent[Any], job: Job) -> str:
    """Return what the agent says in the end."""
    if not job.stream:
        return str((await agent.run(job.prompt)).text)
    stream = agent.run(job.prompt, stream=True)
    async for _ in stream:
        pass
    return str((await stream.get_final_response()).text)


async def bare(job: Job) -> str:
    """Run the agent as it is."""
    return await say(agent_of(job, []), job)


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same agent with the gate's middlewares."""
    agent = agent_of(job, interlock_middleware(gate))

    async def work(_run: Run, _task: str) -> str:
        return await say(agent, job)

    return await gate.run(work, job.prompt, **job.options)


COLUMN = Column(
    name="agent-framework",
    distribution="agent-framework-core",
    requires=("agent-framework-core==1.23.0", "agent-framework-openai==1.17.0"),
    wire=Wire.OPENAI_CHAT,
    bare=bare,
    guarded=guarded,
)
