"""OpenAI Agents SDK: models around models, and functions around the handlers of function tools."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

from agents import FunctionTool, Model, ModelProvider, Runner
from conformance.column import Job
from conformance.columns.openai_agents import agent_of, config_of

__all__ = ["hooked"]


class _Model(Model):
    def __init__(self, inner: Model) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # a copy that is being made
            raise AttributeError(name)
        return getattr(self.inner, name)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)

    def get_retry_advice(self, request: Any) -> Any:
        return self.inner.get_retry_advice(request)

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return self.inner.stream_response(*args, **kwargs)


class _Provider(ModelProvider):
    def __init__(self, inner: ModelProvider) -> None:
        self.inner = inner

    def get_model(self, model_name: str | None) -> Model:
        return _Model(self.inner.get_model(model_name))


class _Handler:
    def __init__(self, tool: FunctionTool) -> None:
        self._tool = tool

    async def __call__(self, ctx: Any, arguments: str) -> Any:
        return await self._tool.on_invoke_tool(ctx, arguments)


def _around(tool: Any) -> Any:
    made = copy.copy(tool)
    made.on_invoke_tool = _Handler(tool)
    return made


async def hooked(job: Job) -> Any:
    """Run the agent with wrappers that pass on."""
    agent, config = agent_of(job), config_of(job)
    agent.tools = [_around(tool) for tool in agent.tools]
    config.model_provider = _Provider(config.model_provider)
    return (await Runner.run(agent, job.prompt, run_config=config, max_turns=job.max_turns)).final_output
