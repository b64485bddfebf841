"""Pydantic AI, over chat completions."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from pydantic_ai import Agent
from pydantic_ai import Tool as AgentTool
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from conformance.column import Column, Job, Tool, Wire
from interlock import Interlock, Run, RunResult
from interlock.adapters.pydantic_ai import interlock_capability

__all__ = ["COLUMN", "agent_of", "say"]

_DECORATED: weakref.WeakKeyDictionary[Interlock, dict[str, Any]] = weakref.WeakKeyDictionary()


def _model(job: Job) -> OpenAIChatModel:
    return OpenAIChatModel(job.model, provider=OpenAIProvider(base_url=job.openai_url, api_key=job.api_key))


def _tools(job: Job, tools: Sequence[Tool], gate: Interlock | None) -> list[AgentTool[None]]:
    made = []
    for tool in tools:
        # A keyed tool is decorated where it is written; the others are met by the adapter.
        decorated = gate is not None and tool.keyed
        fn = _decorated(gate, tool) if gate is not None and decorated else tool.fn
        retries = 3 if job.own_retries else None
        made.append(AgentTool(fn, name=tool.name, timeout=tool.timeout_s, max_retries=retries))
    return made


def _decorated(gate: Interlock, tool: Tool) -> Any:
    """Return the tool as its author decorated it, once for this gate."""
    known = _DECORATED.setdefault(gate, {})
    if tool.name not in known:
        known[tool.name] = gate.tool(tool.name, effect=tool.effect)(tool.fn)
    return known[tool.name]


def agent_of(
    job: Job, capabilities: Sequence[AbstractCapability[Any]] = (), gate: Interlock | None = None
) -> Agent[None, str]:
    """Return the agent, with these capabilities; with a gate, tools that take a key are decorated."""
    tools = _tools(job, job.tools, gate)
    if job.nested is not None:
        nested = job.nested
        inner = Agent(
            _model(job), system_prompt=nested.system, tools=_tools(job, nested.tools, gate), capabilities=capabilities
        )

        async def ask(task: str) -> str:
            return (await inner.run(task)).output

        tools.append(AgentTool(ask, name=nested.name, description=nested.description))
    return Agent(_model(job), system_prompt=job.system, tools=tools, capabilities=capabilities)


async def say(agent: Agent[None, str], job: Job) -> str:
    """Return what the agent says in the end."""
    if not job.stream:
        return (await agent.run(job.prompt)).output
    async with agent.run_stream(job.prompt) as reply:
        async for _ in reply.stream_text():
            pass
        return await reply.get_output()


async def bare(job: Job) -> str:
    """Run the agent as it is."""
    return await say(agent_of(job), job)


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same agent with one capability."""
    agent = agent_of(job, [interlock_capability(gate)], gate)

    async def work(_run: Run, _task: Any) -> str:
        return await say(agent, job)

    return await gate.run(work, job.prompt, **job.options)


COLUMN = Column(
    name="pydantic-ai",
    distribution="pydantic-ai-slim",
    requires=("pydantic-ai-slim[openai]==2.68.0",),
    wire=Wire.OPENAI_CHAT,
    bare=bare,
    guarded=guarded,
)
