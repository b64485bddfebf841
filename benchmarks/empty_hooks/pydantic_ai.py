"""Pydantic AI: a capability around runs, model requests, the tools that a model sees, and each tool."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from conformance.column import Job
from conformance.columns.pydantic_ai import agent_of, say
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.toolsets import WrapperToolset

__all__ = ["hooked"]


@dataclass
class _Toolset(WrapperToolset[Any]):
    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
        return await self.wrapped.call_tool(name, tool_args, ctx, tool)


class _Capability(AbstractCapability[Any]):
    id = "empty"

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    async def for_run(self, ctx: Any) -> _Capability:
        return copy.copy(self)

    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
        return await handler()

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        return await handler(request_context)

    async def prepare_tools(self, ctx: Any, tool_defs: list[Any]) -> list[Any]:
        return tool_defs

    def get_wrapper_toolset(self, toolset: Any) -> Any:
        return _Toolset(toolset)

    async def wrap_tool_validate(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        return await handler(args)


async def hooked(job: Job) -> Any:
    """Run the agent with a capability that passes on."""
    return await say(agent_of(job, [_Capability()]), job)
