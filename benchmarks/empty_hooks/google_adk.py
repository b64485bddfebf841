"""Google ADK: a plugin with four callbacks, and tools with a function around them."""

from __future__ import annotations

import copy
from typing import Any

from conformance.column import Job
from conformance.columns.google_adk import runner_of, say
from google.adk.plugins.base_plugin import BasePlugin

__all__ = ["hooked"]


class _Plugin(BasePlugin):
    def __init__(self) -> None:
        super().__init__(name="empty")
        self._made: dict[int, Any] = {}

    async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:
        for name, tool in llm_request.tools_dict.items():
            llm_request.tools_dict[name] = self._made.get(id(tool)) or self._around(tool)

    async def after_model_callback(self, *, callback_context: Any, llm_response: Any) -> None:
        pass

    async def on_model_error_callback(self, *, callback_context: Any, llm_request: Any, error: Exception) -> None:
        pass

    async def before_tool_callback(self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any) -> None:
        pass

    def _around(self, tool: Any) -> Any:
        made = self._made[id(tool)] = copy.copy(tool)
        self._made[id(made)] = made

        async def run_async(*, args: dict[str, Any], tool_context: Any) -> Any:
            return await tool.run_async(args=args, tool_context=tool_context)

        made.run_async = run_async
        return made


async def hooked(job: Job) -> Any:
    """Run the agent with a plugin that passes on."""
    return await say(runner_of(job, [_Plugin()]), job)
