"""CrewAI: a crew of one agent and one task, over OpenAI chat completions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OTEL_SDK_DISABLED", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")

from crewai import LLM, Agent, Crew, Task
from crewai.tools import BaseTool
from crewai.tools import tool as crew_tool

from conformance import column
from conformance.column import Column, Job, Wire
from interlock import Interlock, RunResult
from interlock.adapters import crewai

__all__ = ["COLUMN", "crew_of"]


def _tool(tool: column.Tool) -> BaseTool:
    fn = tool.fn
    fn.__doc__ = tool.description
    return crew_tool(tool.name)(fn)


def _crew(job: Job, name: str, system: str, prompt: str, tools: list[BaseTool]) -> Crew:
    llm = LLM(model=f"openai/{job.model}", base_url=job.openai_url, api_key=job.api_key, stream=job.stream)
    agent = Agent(role=name, goal=system, backstory=system, llm=llm, tools=tools, max_iter=40)
    task = Task(description=prompt, expected_output="An answer.", agent=agent)
    return Crew(name=name, agents=[agent], tasks=[task], verbose=False)


def crew_of(job: Job, kickoff: Callable[[Crew], Any]) -> Crew:
    """Return the crew; `kickoff` runs the one of a tool."""
    tools = [_tool(tool) for tool in job.tools]
    if job.nested is not None:
        nested = job.nested

        def researcher(task: str) -> str:
            """Look into something."""
            inner = _crew(job, nested.name, nested.system, task, [_tool(tool) for tool in nested.tools])
            return str(kickoff(inner).raw)

        tools.append(crew_tool(nested.name)(researcher))
    return _crew(job, "agent", job.system, job.prompt, tools)


async def bare(job: Job) -> Any:
    """Run the crew with the framework's defaults."""
    return (await asyncio.to_thread(crew_of(job, Crew.kickoff).kickoff)).raw


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run it under the gate."""
    return await crewai.run(gate, crew_of(job, lambda crew: crewai.kickoff(gate, crew)), **job.options)


COLUMN = Column(
    name="crewai",
    distribution="crewai",
    requires=("crewai==1.15.30", "openai==2.54.0"),
    wire=Wire.OPENAI_CHAT,
    bare=bare,
    guarded=guarded,
)
