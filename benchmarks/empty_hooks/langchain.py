"""LangChain: a middleware around tool calls and model requests, sync and async."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from conformance.column import Job
from conformance.columns.langchain import agent_of, say
from langchain.agents.middleware import AgentMiddleware
from langgraph.types import TracePolicy

__all__ = ["hooked"]

_HOOKS = ("wrap_tool_call", "awrap_tool_call", "wrap_model_call", "awrap_model_call")


def _said(hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a hook as ours are: a function that says its signature, which LangSmith reads each time."""

    def function(request: Any, handler: Any) -> Any:
        return hook(request, handler)

    function.__signature__ = inspect.signature(hook)  # type: ignore[attr-defined]
    return function


class _Middleware(AgentMiddleware[Any, Any]):
    name = "empty"
    trace_policy = TracePolicy(process_outputs=lambda _: {})

    def __init__(self) -> None:
        super().__init__()
        self.tools: list[Any] = []
        for name in _HOOKS:
            setattr(self, name, _said(getattr(self, name)))

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return self._passed(request, handler)

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return self._passed(request, handler)

    async def _passed(self, request: Any, handler: Any) -> Any:
        return await handler(request)


async def hooked(job: Job) -> Any:
    """Run the agent with a middleware that passes on."""
    return await say(agent_of(job, [_Middleware()]), job)
