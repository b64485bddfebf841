"""Claude Agent SDK: hooks on the events that our sessions have them on, and the pieces of the model's messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from claude_agent_sdk import HookMatcher, ResultMessage, StreamEvent, create_sdk_mcp_server, query
from conformance.column import Job
from conformance.columns.claude_agent_sdk import options_of, tool_of

from benchmarks.empty_hooks.functions import passing_on
from interlock.adapters.claude_agent_sdk_session import matchers

__all__ = ["hooked"]


async def _nothing(_input: Any, _id: str | None, _context: Any) -> dict[str, Any]:
    return {}


async def hooked(job: Job) -> Any:
    """Run the session with hooks that say nothing."""
    tools = [tool_of(tool) for tool in job.tools]
    tools = [replace(tool, handler=passing_on(tool.handler)) for tool in tools]
    options = options_of(job, job.system, create_sdk_mcp_server("work", tools=tools))
    on = matchers([f"mcp__work__{tool.name}" for tool in tools])
    hooks: Any = {event: [HookMatcher(matcher, hooks=[_nothing])] for event, matcher in on.items()}
    said = None
    async for message in query(prompt=job.prompt, options=replace(options, hooks=hooks, include_partial_messages=True)):
        if not isinstance(message, StreamEvent):
            said = message.result if isinstance(message, ResultMessage) else said
    return said
