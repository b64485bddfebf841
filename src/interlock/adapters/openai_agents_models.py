"""The models of an OpenAI Agents SDK agent, as turns of the run: budgets, switches, stop, cost, record.

The SDK asks every model through `Model`, streaming or not, in handoffs and in agents used as tools; so this is
where a run stops, and where its steps and dollars are counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

from agents import AgentsException, Handoff, Model, ModelProvider, ModelResponse, Tool
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from agents.usage import Usage
from openai.types.responses import Response, ResponseCompletedEvent, ResponseOutputItemDoneEvent, ResponseUsage

from interlock.adapters.agents import Turn
from interlock.adapters.pieces import in_time
from interlock.budget.prices import Usage as Used
from interlock.core.errors import RunStopped
from interlock.supervisor.run import Run

__all__ = ["CallIds", "Stopped", "TurnModel", "TurnProvider", "hosted_calls"]


class Stopped(RunStopped, AgentsException):
    """The run is over: `RunStopped` in the SDK's form, so that `run_data` has what was done so far."""

    @classmethod
    def of(cls, error: RunStopped) -> Stopped:
        """Return `error` in this form."""
        return cls(error.reason, str(error), for_model=error.for_model, details=error.details)


class CallIds:
    """Gives a call an id of its own where the model uses one twice, which the SDK would end the run for."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def settle(self, items: Iterable[tuple[int, Any]], given: dict[int, str]) -> None:
        """See to the ids of one turn's calls.

        Args:
            items: Output items with their place in the turn.
            given: Ids of this turn by place; a stream names an item more than once.
        """
        for place, item in items:
            if getattr(item, "type", None) not in {"function_call", "custom_tool_call"}:
                continue
            if place not in given:
                said, n = item.call_id or "call", 1
                given[place] = item.call_id or f"call_{len(self._taken)}"
                while given[place] in self._taken:
                    n += 1
                    given[place] = f"{said}_{n}"
                self._taken.add(given[place])
            item.call_id = given[place]


# Where the current run of this gate is found, or None outside of one.
CurrentRun = Callable[[], Run | None]


class TurnModel(Model):
    """A model whose every request is a turn of the current run; outside of one it is the model itself.

    Args:
        inner: The model.
        current: Finds the run.
        name: `provider:model`, for the price.
        heard: Told of each reply, before the SDK acts on it. offered: told of the tools of each request.
        ids: Of all calls of the SDK's run.
    """

    def __init__(
        self,
        inner: Model,
        current: CurrentRun,
        name: str,
        heard: Callable[[Run, ModelResponse], None],
        offered: Callable[[list[Tool]], None],
        ids: CallIds,
    ) -> None:
        self.inner = inner
        self._ids = ids
        self._current = current
        self._name = name
        self._heard = heard
        self._offered = offered

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # a copy that is being made
            raise AttributeError(name)
        return getattr(self.inner, name)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)  # noqa: SLF001 - the SDK's own hook, passed on

    async def close(self) -> None:
        """Close the model."""
        await self.inner.close()

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Never retry a decided stop; else what the model says."""
        if isinstance(request.error, Stopped):
            return ModelRetryAdvice(suggested=False, replay_safety="unsafe", reason="the run is stopped")
        return self.inner.get_retry_advice(request)

    def _turn(self, run: Run, request: dict[str, Any]) -> Turn:
        self._offered(request["tools"])
        settings = request["model_settings"]
        return Turn(run, model=self._name, max_output_tokens=settings.max_tokens, record=ModelResponse)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Ask the model, as one turn."""
        run = self._current()
        if run is None:
            return await self.inner.get_response(*args, **kwargs)
        request = _named(args, kwargs)
        try:
            async with self._turn(run, request) as turn:
                if turn.replayed:
                    reply: ModelResponse = turn.reply
                else:
                    reply = await self.inner.get_response(**_last(request) if turn.wrap_up else request)
                    turn.charge(_used(reply.usage))
                    self._ids.settle(enumerate(reply.output), {})
                    turn.reply = reply
        except RunStopped as error:
            raise Stopped.of(error) from error
        self._heard(run, reply)
        return reply

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Ask the model, as one turn that ends with its stream."""
        run = self._current()
        if run is None:
            async for event in self.inner.stream_response(*args, **kwargs):
                yield event
            return
        request = _named(args, kwargs)
        try:
            async with self._turn(run, request).uncut() as turn:
                if turn.replayed:
                    self._heard(run, turn.reply)
                    for event in _events_of(turn.reply, self._name):
                        yield event
                    return
                said = self.inner.stream_response(**_last(request) if turn.wrap_up else request)
                given: dict[int, str] = {}
                async for event in in_time(run, aiter(said)):
                    self._ids.settle(_items(event), given)
                    reply = _finished(event)
                    if reply is not None:
                        turn.charge(_used(reply.usage))
                        turn.reply = reply
                        self._heard(run, reply)
                    yield event
        except RunStopped as error:
            raise Stopped.of(error) from error


class TurnProvider(ModelProvider):
    """A provider of such models."""

    def __init__(self, inner: ModelProvider, wrapped: Callable[[Model, str | None], Model]) -> None:
        self.inner = inner
        self._wrapped = wrapped

    def get_model(self, model_name: str | None) -> Model:
        """Return the model of that name, with turns."""
        return self._wrapped(self.inner.get_model(model_name), model_name)

    async def aclose(self) -> None:
        """Close the provider."""
        await self.inner.aclose()


_POSITIONAL = (
    "system_instructions",
    "input",
    "model_settings",
    "tools",
    "output_schema",
    "handoffs",
    "tracing",
)


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(_POSITIONAL, args, strict=False)), **kwargs}


def _last(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request of the turn after a stop: without tools, so that the model can only answer."""
    none: tuple[list[Tool], list[Handoff[Any, Any]]] = ([], [])
    return {**request, "tools": none[0], "handoffs": none[1]}


def _used(usage: Usage) -> Used:
    """Return what the SDK says of a reply; `run.step` can read it by itself, by asking for every name in use."""
    cached = getattr(usage.input_tokens_details, "cached_tokens", 0)
    return Used(usage.input_tokens or 0, usage.output_tokens or 0, cached or 0)


# -- streams


def _finished(event: Any) -> ModelResponse | None:
    """Return the reply that a stream has come to with this event, or None."""
    if getattr(event, "type", None) not in {"response.completed", "response.incomplete"}:
        return None
    response: Response = event.response
    used = response.usage
    usage = Usage()
    if used is not None:
        usage = Usage(
            requests=1,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            total_tokens=used.total_tokens,
            input_tokens_details=used.input_tokens_details,
            output_tokens_details=used.output_tokens_details,
        )
    return ModelResponse(output=list(response.output), usage=usage, response_id=response.id)


def _items(event: Any) -> Iterable[tuple[int, Any]]:
    """Return the output items that a stream's event carries, with their places."""
    item = getattr(event, "item", None)
    if item is not None:
        return [(event.output_index, item)]
    response = getattr(event, "response", None)
    return [] if response is None else enumerate(response.output or ())


def _events_of(reply: ModelResponse, model: str) -> list[Any]:
    """Return a stream that says a recorded reply: each item whole, then the end."""
    usage = reply.usage
    response = Response.model_construct(
        id=reply.response_id or "",
        object="response",
        created_at=0.0,
        model=model,
        status="completed",
        output=list(reply.output),
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        usage=ResponseUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            input_tokens_details=usage.input_tokens_details,
            output_tokens_details=usage.output_tokens_details,
        ),
    )
    events: list[Any] = [
        ResponseOutputItemDoneEvent.model_construct(
            type="response.output_item.done", output_index=i, item=item, sequence_number=i
        )
        for i, item in enumerate(response.output)
    ]
    end = ResponseCompletedEvent.model_construct(
        type="response.completed", response=response, sequence_number=len(events)
    )
    return [*events, end]


# -- what the provider's side executes

_OURS = frozenset({"message", "reasoning", "function_call", "custom_tool_call", "compaction"})
_LOCAL = frozenset({"computer_call", "local_shell_call", "shell_call", "apply_patch_call"})


def hosted_calls(reply: ModelResponse) -> list[tuple[str, str]]:
    """Return (name, kind) of the calls in a reply that never pass a function tool, hosted ones first of all."""
    found = []
    for item in reply.output:
        kind = cast("str | None", _field(item, "type")) or ""
        if kind.endswith("_call") and kind not in _OURS:
            name = _field(item, "name")
            label = _field(item, "server_label")
            words = [kind.removesuffix("_call"), *(str(word) for word in (label, name) if word)]
            found.append((".".join(words), "local" if kind in _LOCAL else "hosted"))
    return found


def _field(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)
