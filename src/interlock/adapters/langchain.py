"""LangChain's `create_agent` in a run: one middleware, sync and async.

    from interlock.adapters.langchain import interlock_middleware

    agent = create_agent(model, tools, middleware=[..., interlock_middleware(gate)])
    result = await gate.run(lambda run, task: agent.ainvoke({"messages": [("user", task)]}), "…")

Put it last, next to the model and the tools: what the other middlewares retry or fall back to then passes it
each time. Tools are guarded wherever it stands.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from interlock.adapters.packages import needs, tested

with needs("langchain"):
    from langchain.agents.middleware import (
        AgentMiddleware,
        HumanInTheLoopMiddleware,
        ModelRequest,
        ModelResponse,
    )
    from langchain_core.messages import BaseMessage, ToolMessage
    from langgraph.errors import GraphInterrupt
    from langgraph.prebuilt.tool_node import ToolCallRequest
    from langgraph.types import TracePolicy

    from interlock.adapters.langchain_guard import GraphStopped, Guard, changed, through
    from interlock.adapters.langchain_models import counting, partial_of, recall, settle, words_of
    from interlock.adapters.langchain_structured import keep_structured, restore_structured

from interlock.adapters.agents import Turn
from interlock.adapters.seam import across
from interlock.config.gate import Interlock
from interlock.core.calls import Stop
from interlock.core.errors import InterlockError, NotPerformed
from interlock.core.reasons import StopReason
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn

__all__ = ["GraphStopped", "interlock_middleware"]


def interlock_middleware(
    gate: Interlock, *, approvals: Literal["store", "framework"] = "store"
) -> AgentMiddleware[Any, Any]:
    """Return the middleware that puts an agent's tool calls and model requests behind the gate.

    Args:
        gate: Its runs are those in which the agent may work: `gate.run`, or `gate.open_run`.
        approvals: Where a person decides on a tool with `approval: required`: in the store (`interlock approvals`),
            or in LangChain's own way, an interrupt as `HumanInTheLoopMiddleware` makes it. That needs a checkpointer;
            the run parks at the interrupt, and goes on under the same request id.
    """
    tested("langchain", "1.4")
    guard = Guard(gate, by_framework=approvals == "framework")
    return _AskingMiddleware(guard, gate) if guard.by_framework else _InterlockMiddleware(guard, gate)


# LangSmith's span around a hook reads its signature each time, which for a method is put together each time.
_HOOKS = ("wrap_tool_call", "awrap_tool_call", "wrap_model_call", "awrap_model_call")


def _said(hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a hook as a function that says its signature."""

    def function(request: Any, handler: Any) -> Any:
        return hook(request, handler)

    function.__signature__ = inspect.signature(hook)  # type: ignore[attr-defined]
    return function


class _InterlockMiddleware(AgentMiddleware[Any, Any]):
    """Every tool call through the funnel, every model request a turn of the run.

    The async hooks are plain functions that return what is to be awaited. LangChain puts a span of LangSmith around
    each hook, and around an `async def` that costs four hand-overs to threads, traced or not.
    """

    name = "interlock"
    trace_policy = TracePolicy(process_outputs=lambda _: {})

    def __init__(self, guard: Guard, gate: Interlock) -> None:
        super().__init__()
        self.tools: list[Any] = []
        self._guard = guard
        self._prices = gate.settings.prices
        for name in _HOOKS:
            setattr(self, name, _said(getattr(self, name)))

    # -- tools

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Put the guarded tool in the tool's place."""
        self._guard.catch_up_sync(self._guard.run_sync(), request.state)
        if request.tool is None:
            return self._guard.refused_sync(request.tool_call)
        return handler(changed(request, tool=self._guard.tool(request.tool)))

    def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Awaitable[Any]:
        """Put the guarded tool in the tool's place."""
        return self._awrapped(request, handler)

    async def _awrapped(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        await self._guard.catch_up(await self._guard.run(), request.state)
        if request.tool is None:
            return await self._guard.refused(request.tool_call)
        return await handler(changed(request, tool=self._guard.tool(request.tool)))

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
            if run.scope.tape is not None:
                self._guard.catch_up_sync(run, request.messages)
            with Turn(run, **self._words(request)) as turn:
                if turn.replayed:
                    return _replayed(turn, request)
                return self._settled(run, turn, request, handler(self._asked(turn, request)))
        except InterlockError as error:
            raise through(error) from error

    def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Awaitable[ModelResponse[Any]]:
        """Take one turn of the run.

        Raises:
            GraphStopped: The run is over.
        """
        return self._aturn(request, handler)

    async def _aturn(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        try:
            run = await self._guard.run()
            if run.scope.tape is not None:
                await self._guard.catch_up(run, request.messages)
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
            return changed(request, model=model, tools=[], tool_choice=None)
        return changed(request, model=model, tools=self._guard.exposed(request.tools))

    def _settled(
        self, run: Run, turn: ModelTurn, request: ModelRequest[Any], response: ModelResponse[Any]
    ) -> ModelResponse[Any]:
        asked: list[Any] = [*([request.system_message] if request.system_message else ()), *request.messages]
        said = settle(run, turn, asked, response.result)
        if run.scope.tape is not None:
            keep_structured(turn.reply, response.structured_response)
        run.partial = partial_of(request.messages, said)
        return ModelResponse(result=said, structured_response=response.structured_response)


def _replayed(turn: ModelTurn, request: ModelRequest[Any]) -> ModelResponse[Any]:
    said: list[BaseMessage] = recall(turn)
    return ModelResponse(result=said, structured_response=restore_structured(turn.reply, request.response_format))


class _AskingMiddleware(_InterlockMiddleware):
    """The same, where LangGraph's interrupts ask people: after the model, before any of its calls."""

    state_schema = HumanInTheLoopMiddleware.state_schema

    def __init__(self, guard: Guard, gate: Interlock) -> None:
        super().__init__(guard, gate)
        self._edits = HumanInTheLoopMiddleware(interrupt_on={})

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Put what a person made of the call in its place, and guard that."""
        guarded = super().wrap_tool_call
        return self._edits.wrap_tool_call(request, lambda edited: guarded(edited, handler))

    def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Awaitable[Any]:
        """Put what a person made of the call in its place, and guard that."""
        guarded = super()._awrapped
        answer: Awaitable[Any] = self._edits.awrap_tool_call(request, lambda edited: guarded(edited, handler))
        return answer

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Ask for the calls that need a yes, as LangChain's own middleware does."""
        run = self._guard.run_sync()
        self._guard.catch_up_sync(run, state)
        update = self._ask(run, state, runtime)
        for call in _rejected(state, update):
            run.bridge.cross(self._refuse(run, call))
        return update

    async def aafter_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Ask for the calls that need a yes, as LangChain's own middleware does."""
        run = await self._guard.run()
        await self._guard.catch_up(run, state)
        update = self._ask(run, state, runtime)
        for call in _rejected(state, update):
            await across(run, self._refuse(run, call))
        return update

    def _ask(self, run: Run, state: Any, runtime: Any) -> dict[str, Any] | None:
        calls = getattr(state["messages"][-1], "tool_calls", ())
        needed = {call["name"]: True for call in calls if self._guard.needs_approval(call["name"])}
        if not needed:
            return None
        try:
            update: dict[str, Any] | None = HumanInTheLoopMiddleware(interrupt_on=dict(needed)).after_model(
                state, runtime
            )
        except GraphInterrupt:
            names = ", ".join(sorted(needed))
            stop = Stop(StopReason.APPROVAL_PENDING, f"{names}: the graph is interrupted until a person decides")
            run.bridge.loop.call_soon_threadsafe(run.stop, stop)
            raise
        return update

    async def _refuse(self, run: Run, call: Mapping[str, Any]) -> None:
        """Put a person's no on record; LangChain tells the model itself."""

        async def never(_args: dict[str, Any]) -> None:
            raise NotPerformed("a person has refused it")

        await self._guard.seam.call(run, call["name"], call["args"], never, tool_call_id=call["id"], approval="refused")


def _rejected(state: Any, update: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the calls that a person has refused: LangChain has answered them in the tools' place."""
    answers = [m for m in (update or {}).get("messages", ()) if isinstance(m, ToolMessage) and m.status == "error"]
    refused = {answer.tool_call_id for answer in answers}
    return [call for call in state["messages"][-1].tool_calls if call["id"] in refused]
