"""OpenAI Agents SDK: `Runner.run` and `Runner.run_streamed`, over the responses API."""

from __future__ import annotations

from typing import Any

from agents import Agent, RunConfig, Runner, Tool, function_tool
from agents.models.openai_provider import OpenAIProvider
from openai import AsyncOpenAI

from conformance import column
from conformance.column import Column, Job, Wire
from interlock import Interlock, RunResult
from interlock.adapters import openai_agents

__all__ = ["COLUMN", "agent_of", "config_of"]


def _tool(tool: column.Tool) -> Tool:
    # The SDK has timeouts for async functions only.
    timeout = None if tool.sync else tool.timeout_s
    return function_tool(
        tool.fn, name_override=tool.name, description_override=tool.description, timeout=timeout, strict_mode=False
    )


def agent_of(job: Job) -> Agent[Any]:
    """Return the agent."""
    tools = [_tool(tool) for tool in job.tools]
    if job.nested is not None:
        nested = job.nested
        helper: Agent[Any] = Agent(
            name=nested.name, instructions=nested.system, model=job.model, tools=[_tool(tool) for tool in nested.tools]
        )
        tools.append(helper.as_tool(tool_name=nested.name, tool_description=nested.description))
    return Agent(name="agent", instructions=job.system, model=job.model, tools=tools)


def config_of(job: Job) -> RunConfig:
    """Return where its models are."""
    client = AsyncOpenAI(base_url=job.openai_url, api_key=job.api_key)
    return RunConfig(model_provider=OpenAIProvider(openai_client=client, use_responses=True), tracing_disabled=True)


async def bare(job: Job) -> Any:
    """Run the agent with the SDK's defaults."""
    options: dict[str, Any] = {} if job.max_turns is None else {"max_turns": job.max_turns}
    if job.stream:
        streamed = Runner.run_streamed(agent_of(job), job.prompt, run_config=config_of(job), **options)
        async for _ in streamed.stream_events():
            pass
        return streamed.final_output
    return (await Runner.run(agent_of(job), job.prompt, run_config=config_of(job), **options)).final_output


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run it under the gate."""
    options: dict[str, Any] = {**job.options, "run_config": config_of(job), "max_turns": None}
    if not job.stream:
        return await openai_agents.run(gate, agent_of(job), job.prompt, **options)
    seen: list[Any] = []
    return await openai_agents.run(gate, agent_of(job), job.prompt, on_event=seen.append, **options)


COLUMN = Column(
    name="openai-agents",
    distribution="openai-agents",
    requires=("openai-agents==0.24.0",),
    wire=Wire.OPENAI_RESPONSES,
    bare=bare,
    guarded=guarded,
)
