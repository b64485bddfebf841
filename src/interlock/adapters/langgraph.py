"""Graphs of one's own: a `ToolNode` whose calls pass the funnel, a chat model whose requests are turns of the run.

from interlock.adapters.langgraph import guarded_model, tool_wrappers

model = guarded_model(ChatOpenAI(...), gate).bind_tools(tools)
graph.add_node("tools", ToolNode(tools, **tool_wrappers(gate)))
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypedDict

from interlock.adapters.packages import needs, tested

with needs("langchain"):
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable
    from langgraph.prebuilt.tool_node import ToolCallRequest

    from interlock.adapters.langchain_guard import GraphStopped, Guard, changed, through
    from interlock.adapters.langchain_models import counting, partial_of, recall, settle, words_of
    from interlock.adapters.langchain_values import corrected

from interlock.adapters.agents import Turn
from interlock.config.gate import Interlock
from interlock.core.errors import InterlockError, RunStopped
from interlock.core.reasons import StopReason
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn

__all__ = ["GraphStopped", "guarded_model", "tool_wrappers"]


# A stream under way ends for these; for every other stop it is the next request that is refused.
_CUTTING = frozenset({StopReason.TIME_BUDGET, StopReason.KILLED, StopReason.CANCELLED, StopReason.ABANDONED})


class Wrappers(TypedDict):
    """The two words of `ToolNode`."""

    wrap_tool_call: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Any]], Any]
    awrap_tool_call: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Awaitable[Any]]], Awaitable[Any]]


def tool_wrappers(gate: Interlock) -> Wrappers:
    """Return what puts a tool node behind the gate: `ToolNode(tools, **tool_wrappers(gate))`.

    Args:
        gate: Its runs are those in which the graph may work: `gate.run`, or `gate.open_run`.
    """
    tested("langgraph", "1.2")
    guard = Guard(gate)

    def wrap(request: ToolCallRequest, execute: Callable[[ToolCallRequest], Any]) -> Any:
        guard.catch_up_sync(guard.run_sync(), request.state)
        if request.tool is None:
            return guard.refused_sync(request.tool_call)
        return execute(changed(request, tool=guard.tool(request.tool)))

    async def awrap(request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        await guard.catch_up(await guard.run(), request.state)
        if request.tool is None:
            return await guard.refused(request.tool_call)
        return await execute(changed(request, tool=guard.tool(request.tool)))

    return {"wrap_tool_call": wrap, "awrap_tool_call": awrap}


def guarded_model(model: BaseChatModel, gate: Interlock) -> BaseChatModel:
    """Return the chat model, such that each request is a turn of the run: the boundary at which a run stops.

    Bind tools to what this returns: `idempotency_key` is hidden from the model on the way.
    """
    tested("langgraph", "1.2")
    return _GuardedModel(inner=counting(model), guard=Guard(gate), prices=gate.settings.prices)


class _GuardedModel(BaseChatModel):
    """A chat model in a run."""

    inner: BaseChatModel
    guard: Any
    prices: Any

    @property
    def _llm_type(self) -> str:
        kind: str = self.inner._llm_type
        return kind

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return dict(self.inner._identifying_params)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return self.inner._get_ls_params(stop=stop, **kwargs)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Bind the tools as the model may see them."""
        bound: Any = self.inner.bind_tools(self.guard.exposed(tools), **kwargs)
        return self.bind(**bound.kwargs)

    # -- whole replies

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - the framework's word
        """Ask; malformed calls are calls that the funnel refuses, also where LangChain asked for a reply in pieces."""
        return corrected(super().invoke(input, config, **kwargs))

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - the same
        """See `invoke`."""
        return corrected(await super().ainvoke(input, config, **kwargs))

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        try:
            run = self.guard.run_sync()
            self.guard.catch_up_sync(run, messages)
            with Turn(run, **words_of(self.inner, self.prices, kwargs)) as turn:
                if turn.replayed:
                    return _as_result(recall(turn))
                kwargs = _asked(turn, kwargs)
                result = self.inner._generate(messages, stop=stop, run_manager=run_manager, **kwargs)
                return _settled(run, turn, messages, result)
        except InterlockError as error:
            raise through(error) from error

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        try:
            run = await self.guard.run()
            await self.guard.catch_up(run, messages)
            async with Turn(run, **words_of(self.inner, self.prices, kwargs)) as turn:
                if turn.replayed:
                    return _as_result(recall(turn))
                kwargs = _asked(turn, kwargs)
                result = await self.inner._agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)
                return _settled(run, turn, messages, result)
        except InterlockError as error:
            raise through(error) from error

    # -- replies in pieces

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        try:
            run = self.guard.run_sync()
            self.guard.catch_up_sync(run, messages)
            with Turn(run, **words_of(self.inner, self.prices, kwargs)) as turn:
                if turn.replayed:
                    yield from _as_chunks(recall(turn))
                    return
                kwargs = _asked(turn, kwargs)
                whole: Any = None
                for piece in self._pieces(messages, stop, run_manager, kwargs):
                    _go_on(run)
                    whole = piece.message if whole is None else whole + piece.message
                    yield piece
                _streamed(run, turn, messages, whole)
        except InterlockError as error:
            raise through(error) from error

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            run = await self.guard.run()
            await self.guard.catch_up(run, messages)
            # What consumes the pieces may be another task than the one that asked.
            async with Turn(run, **words_of(self.inner, self.prices, kwargs)).uncut() as turn:
                if turn.replayed:
                    for piece in _as_chunks(recall(turn)):
                        yield piece
                    return
                kwargs = _asked(turn, kwargs)
                whole: Any = None
                async for piece in self._apieces(messages, stop, run_manager, kwargs):
                    _go_on(run)
                    whole = piece.message if whole is None else whole + piece.message
                    yield piece
                _streamed(run, turn, messages, whole)
        except InterlockError as error:
            raise through(error) from error

    def _pieces(
        self, messages: list[BaseMessage], stop: Any, run_manager: Any, kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        if type(self.inner)._stream is not BaseChatModel._stream:
            pieces: Iterator[ChatGenerationChunk] = self.inner._stream(
                messages, stop=stop, run_manager=run_manager, **kwargs
            )
            return pieces
        result = self.inner._generate(messages, stop=stop, run_manager=run_manager, **kwargs)
        return _as_chunks([generation.message for generation in result.generations])

    async def _apieces(
        self, messages: list[BaseMessage], stop: Any, run_manager: Any, kwargs: dict[str, Any]
    ) -> AsyncIterator[ChatGenerationChunk]:
        kind = type(self.inner)
        if kind._astream is not BaseChatModel._astream or kind._stream is not BaseChatModel._stream:
            async for piece in self.inner._astream(messages, stop=stop, run_manager=run_manager, **kwargs):
                yield piece
            return
        result = await self.inner._agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)
        for piece in _as_chunks([generation.message for generation in result.generations]):
            yield piece


def _asked(turn: ModelTurn, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the words of a request; the one after the stop has no tools."""
    if not turn.wrap_up:
        return kwargs
    return {name: value for name, value in kwargs.items() if name not in {"tools", "tool_choice"}}


def _go_on(run: Run) -> None:
    """Break a stream off whose run has no time left, or was killed.

    Raises:
        RunStopped: So it is.
    """
    stop = run.scope.stop
    if stop is not None and stop.reason in _CUTTING:
        raise RunStopped(stop.reason, stop.message, details=stop.details)


def _settled(run: Run, turn: ModelTurn, asked: list[BaseMessage], result: ChatResult) -> ChatResult:
    replied = settle(run, turn, asked, [generation.message for generation in result.generations])
    run.partial = partial_of(asked, replied)
    for generation, message in zip(result.generations, replied, strict=True):
        generation.message = message
    return result


def _streamed(run: Run, turn: ModelTurn, asked: list[BaseMessage], whole: BaseMessage | None) -> None:
    if whole is not None:
        said = settle(run, turn, asked, [message_chunk_to_message(whole)])
        run.partial = partial_of(asked, said)


def _as_result(messages: Sequence[BaseMessage]) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message) for message in messages])


def _as_chunks(messages: Sequence[BaseMessage]) -> Iterator[ChatGenerationChunk]:
    """Return whole messages as streams of one piece."""
    for message in messages:
        if isinstance(message, AIMessageChunk) or not isinstance(message, AIMessage):
            continue
        chunks = [
            {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": index}
            for index, call in enumerate(message.tool_calls)
        ]
        fields = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
        yield ChatGenerationChunk(message=AIMessageChunk(**fields, tool_call_chunks=chunks))
