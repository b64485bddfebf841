"""CrewAI: its hooks swallow what they raise, so functions stand around the calls of models and of tools."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from conformance.column import Job
from conformance.columns.crewai import crew_of
from crewai import Crew
from crewai.tools import BaseTool

__all__ = ["hooked"]


class _Tool(BaseTool):
    use: Callable[[dict[str, Any]], Any]

    def _run(self, **kwargs: Any) -> Any:
        return self.use(kwargs)


def _around(tool: BaseTool) -> BaseTool:
    def use(args: dict[str, Any]) -> Any:
        made = tool._run(**args)
        return asyncio.run(made) if asyncio.iscoroutine(made) else made

    return _Tool(name=tool.name, description=tool.description, args_schema=tool.args_schema, use=use)


def _model(model: Any) -> Any:
    made = copy.copy(model)

    def call(*args: Any, **kwargs: Any) -> Any:
        return type(made).call(made, *args, **kwargs)

    object.__setattr__(made, "call", call)
    return made


async def hooked(job: Job) -> Any:
    """Run the crew with copies of its model and its tools that pass on."""
    crew = crew_of(job, Crew.kickoff)
    agent: Any = crew.agents[0]
    agent.tools = [_around(tool) for tool in agent.tools]
    agent.llm = _model(agent.llm)
    return (await asyncio.to_thread(crew.kickoff)).raw
