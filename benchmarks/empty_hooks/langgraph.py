"""LangGraph: a chat model around the chat model, and the two wrappers of a tool node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conformance.column import Job
from conformance.columns.langgraph import agent_of, say
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult

__all__ = ["hooked"]


class _Model(BaseChatModel):
    inner: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return self.inner._llm_type

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return dict(self.inner._identifying_params)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return self.inner._get_ls_params(stop=stop, **kwargs)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        bound: Any = self.inner.bind_tools(tools, **kwargs)
        return self.bind(**bound.kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - the framework's word
        return await super().ainvoke(input, config, **kwargs)

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self.inner._generate(*args, **kwargs)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return await self.inner._agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)


def _wrap(request: Any, execute: Any) -> Any:
    return execute(request)


async def _awrap(request: Any, execute: Any) -> Any:
    return await execute(request)


async def hooked(job: Job) -> Any:
    """Run the graph with wrappers that pass on."""
    wrappers = {"wrap_tool_call": _wrap, "awrap_tool_call": _awrap}
    return await say(agent_of(job, lambda model: _Model(inner=model), wrappers), job)
