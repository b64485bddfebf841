"""LangChain's `create_agent` in a run: one middleware, sync and async.

    from interlock.adapters.langchain import interlock_middleware

    agent = create_agent(model, tools, middleware=[..., interlock_middleware(gate)])
    result = await gate.run(lambda run, task: agent.ainvoke({"messages": [("user", task)]}), "…")

Put it last, next to the model and the tools: what the other middlewares retry or fall back to then passes it
each time. Tools are guarded wherever it stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from interlock.adapters.packages import needs, tested

with needs("langchain"):
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain_core.messages import BaseMessage
    from langgraph.prebuilt.tool_node import ToolCallRequest

    from interlock.adapters.langchain_guard import GraphStopped, Guard, through
    from interlock.adapters.langchain_models import counting, partial_of, recall, settle, words_of
    from interlock.adapters.langchain_structured import keep_structured, restore_structured

from interlock.adapters.agents import Turn
from interlock.config.gate import Interlock
from interlock.core.errors import InterlockError
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn

__all__ = ["GraphStopped", "interlock_middleware"]


def interlock_middleware(gate: Interlock) -> AgentMiddleware[Any, Any]:
    """Return the middleware that puts an agent's tool calls and model requests behind the gate.

    Args:
        gate: Its runs are those in which the agent may work: `gate.run`, or `gate.open_run`.
    """
    tested("langchain", "1.4")
    return _InterlockMiddleware(gate)


class _InterlockMiddleware(AgentMiddleware[Any, Any]):
    """Every tool call through the funnel, every model request a turn of the run."""

    name = "interlock"

    def __init__(self, gate: Interlock) -> None:
        super().__init__()
        self.tools: list[Any] = []
        self._guard = Guard(gate)
        self._prices = gate.settings.prices

    # -- tools

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Put the guarded tool in the tool's place."""
        if request.tool is None:
            return self._guard.refused_sync(request.tool_call)
        return handler(request.override(tool=self._guard.tool(request.tool)))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """Put the guarded tool in the tool's place."""
        if request.tool is None:
            return await self._guard.refused(request.tool_call)
        return await handler(request.override(tool=self._guard.tool(request.tool)))

    # -- the model

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Take one turn of the run.

        Raises:
            GraphStopped: The run is over.
        """
        try:
            run = self._guard.run_sync()
            with Turn(run, **self._words(request)) as turn:
                if turn.replayed:
                    return _replayed(turn, request)
                return self._settled(run, turn, request, handler(self._asked(turn, request)))
        except InterlockError as error:
            raise through(error) from error

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Take one turn of the run.

        Raises:
            GraphStopped: The run is over.
        """
        try:
            run = await self._guard.run()
            async with Turn(run, **self._words(request)) as turn:
                if turn.replayed:
                    return _replayed(turn, request)
                return self._settled(run, turn, request, await handler(self._asked(turn, request)))
        except InterlockError as error:
            raise through(error) from error

    def _words(self, request: ModelRequest[Any]) -> dict[str, Any]:
        return words_of(request.model, self._prices, request.model_settings)

    def _asked(self, turn: ModelTurn, request: ModelRequest[Any]) -> ModelRequest[Any]:
        model = counting(request.model)
        if turn.wrap_up:
            return request.override(model=model, tools=[], tool_choice=None)
        return request.override(model=model, tools=self._guard.exposed(request.tools))

    def _settled(
        self, run: Run, turn: ModelTurn, request: ModelRequest[Any], response: ModelResponse[Any]
    ) -> ModelResponse[Any]:
        asked: list[Any] = [*([request.system_message] if request.system_message else ()), *request.messages]
        said = settle(turn, asked, response.result)
        keep_structured(turn.reply, response.structured_response)
        run.partial = partial_of([*request.messages, *said])
        return ModelResponse(result=said, structured_response=response.structured_response)


def _replayed(turn: ModelTurn, request: ModelRequest[Any]) -> ModelResponse[Any]:
    said: list[BaseMessage] = recall(turn)
    return ModelResponse(result=said, structured_response=restore_structured(turn.reply, request.response_format))
