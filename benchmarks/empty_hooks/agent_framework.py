"""Microsoft Agent Framework: three middlewares, around agents, requests to the model, and functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agent_framework import (
    AgentContext,
    AgentMiddleware,
    ChatContext,
    ChatMiddleware,
    FunctionInvocationContext,
    FunctionMiddleware,
)
from conformance.column import Job
from conformance.columns.agent_framework import agent_of, say

__all__ = ["hooked"]

Next = Callable[[], Awaitable[None]]


class _AroundAgents(AgentMiddleware):
    async def process(self, context: AgentContext, call_next: Next) -> None:
        await call_next()


class _AroundModels(ChatMiddleware):
    async def process(self, context: ChatContext, call_next: Next) -> None:
        await call_next()


class _AroundFunctions(FunctionMiddleware):
    async def process(self, context: FunctionInvocationContext, call_next: Next) -> None:
        await call_next()


async def hooked(job: Job) -> Any:
    """Run the agent with middlewares that pass on."""
    return await say(agent_of(job, [_AroundAgents(), _AroundModels(), _AroundFunctions()]), job)
