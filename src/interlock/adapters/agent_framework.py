"""Microsoft Agent Framework: `Agent(…, middleware=interlock_middleware(gate))`, and every tool call passes the gate.

Three middlewares: around each agent run, each request to the model, each function. Put them last among yours, next
to the model and the tools.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from interlock.adapters.agents import AgentRun, Turn
from interlock.adapters.packages import needs, tested
from interlock.adapters.seam import Seam
from interlock.adapters.shelf import Schemas, code_of, own_rules
from interlock.adapters.values import ToolArguments
from interlock.budget.prices import Usage
from interlock.config.gate import Interlock
from interlock.core.calls import Schema
from interlock.core.errors import ConfigError, LeaseLost, NoRun, RunStopped
from interlock.gateway.tools import KEY, Tool, attempt_under_way
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn
from interlock.validation.schemas import compile_inputs

with needs("agent-framework"):
    from agent_framework import (
        AgentContext,
        AgentMiddleware,
        ChatContext,
        ChatMiddleware,
        ChatResponse,
        ChatResponseUpdate,
        Content,
        FunctionInvocationContext,
        FunctionMiddleware,
        FunctionTool,
        MiddlewareFailure,
        MiddlewareTermination,
        ResponseStream,
    )
    from agent_framework.exceptions import UserInputRequiredException
    from pydantic import BaseModel, create_model

__all__ = ["AgentStopped", "interlock_middleware"]

Next = Callable[[], Awaitable[None]]
NO_RUN = (
    "no run of this gate is open here: call the agent inside gate.run(agent, task) or `async with gate.open_run(task)`"
)
# Applications that make their tools anew for each request: what is known of them is bounded.
TOOLS_KEPT = 1024
# What it calls input, output, and cached input.
_COUNTS = ("input_token_count", "output_token_count", "cache_read_input_token_count")
_EFFECTS: dict[Any, Literal["read", "write"]] = {"read": "read", "write": "write"}


class AgentStopped(RunStopped, MiddlewareFailure):
    """The run is over: aborts the agent's loop as the framework's own signal does."""


class _Fenced(LeaseLost, MiddlewareFailure):
    """Another worker has the run."""


class _Unopened(NoRun, MiddlewareFailure):
    """There is no run to guard in."""


def interlock_middleware(gate: Interlock) -> list[Any]:
    """Return the middlewares that put an agent behind the gate; `middleware=[…, *interlock_middleware(gate)]`.

    Args:
        gate: Its runs are those in which the agent may work: `gate.run`, or `gate.open_run`.
    """
    tested("agent-framework-core", "1.23")
    guard = _Guard(gate)
    return [_AroundAgents(guard), _AroundModels(guard), _AroundFunctions(guard)]


class _Guard:
    """What the three share."""

    def __init__(self, gate: Interlock) -> None:
        self.seam = Seam(gate)
        self.prices = gate.settings.prices
        self._strict = gate.settings.validation.input.strict
        self._schemas = Schemas(gate)
        self._inputs: dict[int, tuple[FunctionTool, Schema]] = {}

    def run(self) -> Run:
        run = self.seam.run()
        if run is None:
            raise _Unopened(NO_RUN)
        return run

    def inputs(self, tool: FunctionTool) -> Schema:
        """Return what a call's arguments must fit; tools that are made anew share one, as long as they look alike."""
        known = self._inputs.get(id(tool))
        if known is not None and known[0] is tool:
            return known[1]
        spelled = json.dumps(tool.parameters(), sort_keys=True, default=str)
        place = (tool.name, spelled, own_rules(tool.input_model), code_of(tool.func))
        found = self._schemas.of(place, functools.partial(self._compiled, tool))
        if len(self._inputs) >= TOOLS_KEPT:
            self._inputs.clear()
        self._inputs[id(tool)] = (tool, found)
        return found

    def _compiled(self, tool: FunctionTool) -> Schema:
        model = tool.input_model
        source: Any = tool.parameters() if model is None else model
        if KEY in (tool.parameters().get("properties") or {}):
            source = _without_key(source)
        try:
            return compile_inputs(source, strict=self._strict)
        except ConfigError:  # JSON Schema without its extra: the framework's own checks remain
            return ToolArguments()


def _without_key(source: Any) -> Any:
    """Return a schema of arguments without `idempotency_key`, which the gate fills."""
    if isinstance(source, Mapping):
        properties = {name: said for name, said in (source.get("properties") or {}).items() if name != KEY}
        return {**source, "properties": properties, "required": [n for n in source.get("required") or () if n != KEY]}
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation(), field) for name, field in source.model_fields.items() if name != KEY
    }
    return create_model(source.__name__, __doc__=source.__doc__, **fields)


# -- agents


class _AroundAgents(AgentMiddleware):
    """An agent that starts inside a tool call works in a child of the run."""

    def __init__(self, guard: _Guard) -> None:
        self._guard = guard

    async def process(self, context: AgentContext, call_next: Next) -> None:
        run, name = self._guard.run(), context.agent.name or "agent"
        if context.stream:
            context.stream_consumption_context_manager_factories.append(lambda: AgentRun(run, name))
            await call_next()
            return
        async with AgentRun(run, name):
            await call_next()


# -- the model


class _AroundModels(ChatMiddleware):
    """Each request to the model is a turn of the run."""

    def __init__(self, guard: _Guard) -> None:
        self._guard = guard

    async def process(self, context: ChatContext, call_next: Next) -> None:
        run = self._guard.run()
        offered = self._prepare(context)
        turn = Turn(run, **self._words(context))
        try:
            if context.stream:
                await self._stream(run, turn.uncut(), context, call_next, offered)
                return
            async with turn as opened:
                if opened.replayed:
                    context.result = ChatResponse.from_dict(dict(opened.reply))
                else:
                    _wrap_up(opened, context)
                    await call_next()
                    _charge(run, opened, context.result)
                await self._note(run, context.result, offered)
        except RunStopped as stop:
            raise _stopped(stop) from stop
        except LeaseLost as lost:
            raise _Fenced(str(lost)) from lost

    def _words(self, context: ChatContext) -> dict[str, Any]:
        options = context.options or {}
        client: Any = context.client
        name = str(options.get("model") or getattr(client, "model", None) or type(client).__name__)
        provider = str(getattr(client, "OTEL_PROVIDER_NAME", ""))
        if name not in self._guard.prices and provider in {"openai", "anthropic"}:
            name = f"{provider}:{name}"
        cap = options.get("max_tokens")
        return {"model": name, "max_output_tokens": cap if isinstance(cap, int) else None, "record": dict}

    @staticmethod
    def _prepare(context: ChatContext) -> set[str]:
        """Hide the key from the model; return the names of the functions that it is offered."""
        options: Any = context.options
        tools = list((options or {}).get("tools") or ())
        if tools and any(isinstance(tool, FunctionTool) and _takes_key(tool) for tool in tools):
            context.options = {**options, "tools": [_shown(tool) for tool in tools]}
        return {tool.name for tool in tools if isinstance(tool, FunctionTool)}

    async def _stream(self, run: Run, turn: Turn, context: ChatContext, call_next: Next, offered: set[str]) -> None:
        opened = await turn.__aenter__()
        try:
            if opened.replayed:
                response = ChatResponse.from_dict(dict(opened.reply))
                await self._note(run, response, offered)
                inner: Any = ResponseStream(_pieces_of(response), finalizer=lambda _: response)
            else:
                _wrap_up(opened, context)
                await call_next()
                inner = context.result
        except BaseException as error:
            await turn.__aexit__(type(error), error, None)
            raise

        async def pieces() -> AsyncIterator[ChatResponseUpdate]:
            failed: BaseException | None = None
            try:
                async for piece in inner:
                    yield piece
                if not opened.replayed:
                    response = await inner.get_final_response()
                    _charge(run, opened, response)
                    await self._note(run, response, offered)
            except BaseException as error:
                failed = error
                raise
            finally:
                await turn.__aexit__(None if failed is None else type(failed), failed, None)

        async def final(_updates: Sequence[ChatResponseUpdate]) -> ChatResponse[Any]:
            response: ChatResponse[Any] = await inner.get_final_response()
            return response

        context.result = ResponseStream(pieces(), finalizer=final)

    async def _note(self, run: Run, response: Any, offered: set[str]) -> None:
        """Put calls of functions that were not offered on record; the framework itself tells the model.

        Keep what exists so far, for a run that is stopped.
        """
        run.partial = functools.partial(_so_far, response)
        for message in response.messages:
            for content in message.contents:
                if content.type == "function_call" and content.name not in offered and not content.hosted:
                    await self._guard.seam.absent(run, str(content.name), content.arguments, content.call_id)


def _so_far(response: Any) -> dict[str, Any]:
    return {"text": response.text, "messages": [message.to_dict() for message in response.messages]}


def _stopped(stop: RunStopped) -> AgentStopped:
    if isinstance(stop, AgentStopped):
        return stop
    return AgentStopped(stop.reason, str(stop), details=stop.details)


def _wrap_up(turn: ModelTurn, context: ChatContext) -> None:
    if turn.wrap_up:
        dropped = {"tools", "tool_choice"}
        context.options = {name: value for name, value in (context.options or {}).items() if name not in dropped}


def _charge(run: Run, turn: ModelTurn, response: Any) -> None:
    usage = response.usage_details
    if usage:
        used = Usage(*(usage.get(name) or 0 for name in _COUNTS))
        turn.charge(used, model=response.model)
    if run.scope.tape is not None:
        turn.reply = json.loads(response.to_json())


async def _pieces_of(response: ChatResponse[Any]) -> AsyncIterator[ChatResponseUpdate]:
    for message in response.messages:
        yield ChatResponseUpdate(
            role=message.role,
            contents=list(message.contents),
            message_id=message.message_id,
            response_id=response.response_id,
            model=response.model,
            finish_reason=response.finish_reason,
        )


def _takes_key(tool: FunctionTool) -> bool:
    return KEY in (tool.parameters().get("properties") or {})


def _shown(tool: Any) -> Any:
    """Return a tool as the model may see it."""
    if not isinstance(tool, FunctionTool) or not _takes_key(tool):
        return tool
    shown = copy.copy(tool)
    parameters = _without_key(tool.parameters())
    shown.parameters = lambda: parameters
    return shown


# -- functions


class _AroundFunctions(FunctionMiddleware):
    """Each function that the framework calls passes the funnel."""

    def __init__(self, guard: _Guard) -> None:
        self._guard = guard

    async def process(self, context: FunctionInvocationContext, call_next: Next) -> None:
        tool = context.function
        given = context.arguments
        args: Any = given.model_dump() if isinstance(given, BaseModel) else dict(given)
        args.pop(KEY, None)
        if args.keys() == {"raw"} and "raw" not in (tool.parameters().get("properties") or {}):
            args = args["raw"]  # what the model wrote was no JSON: that is what the funnel gets, and refuses
        use = _Use(context, call_next)
        outcome = await self._guard.seam.call(
            self._guard.run(),
            tool.name,
            args,
            use.make,
            effect=_EFFECTS.get((tool.additional_properties or {}).get("effect")),
            function=tool.func if isinstance(tool.func, Tool) else None,
            inputs=self._guard.inputs(tool),
            tool_call_id=context.metadata.get("call_id"),
            approval="given" if context.metadata.get("approval_response") is not None else None,
            passes=(MiddlewareTermination, UserInputRequiredException),
            threaded=tool.func is not None and not inspect.iscoroutinefunction(tool.func),
        )
        if use.aborted is not None:
            raise use.aborted
        if not (outcome.fresh and outcome.note is None):
            context.result = [Content.from_text(outcome.for_model)]
        if use.ended is not None:
            raise use.ended


class _Use:
    """The attempts of one call.

    Attributes:
        ended: Another middleware ended the loop after the function had answered. aborted: it aborted it.
    """

    def __init__(self, context: FunctionInvocationContext, call_next: Next) -> None:
        self._context = context
        self._call_next = call_next
        self.ended: MiddlewareTermination | None = None
        self.aborted: MiddlewareFailure | None = None

    async def make(self, args: dict[str, Any]) -> Any:
        context = self._context
        context.result = None
        if _takes_key(context.function):
            attempt = attempt_under_way.get()
            args[KEY] = "" if attempt is None or attempt.sent_key is None else attempt.sent_key
        context.arguments = args
        try:
            await self._call_next()
        except MiddlewareTermination as ended:
            if context.result is None:
                raise
            self.ended = ended
        except AgentStopped as stop:
            # An agent inside the function was stopped: this batch goes on to its end.
            raise RunStopped(stop.reason, str(stop), details=stop.details) from stop
        except MiddlewareFailure as failure:
            self.aborted = failure
            raise
        return _value(context.result)


def _value(result: Any) -> Any:
    """Return what a function returned, as JSON: the object that its only text spells, else its texts."""
    if not isinstance(result, list):
        return result
    texts = [content.text for content in result if content.type == "text"]
    if len(texts) != len(result) or len(texts) != 1:
        return [content.to_dict() for content in result]
    text = texts[0]
    if text[:1] in {"{", "["}:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
