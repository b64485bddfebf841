"""Model turns of a hand-written loop: asked plain or as a stream, charged, recorded, and where the run stops."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from interlock.adapters.chat_formats import Format, as_object, dump, format_of, rebuild
from interlock.adapters.chat_streams import Accumulator, as_pieces, taken_apart
from interlock.adapters.pieces import in_time
from interlock.core.errors import ConfigError, RunStopped
from interlock.supervisor.bridge import Opened
from interlock.supervisor.run import Run
from interlock.supervisor.stopping import TIME_IS_UP
from interlock.supervisor.turns import ModelTurn

__all__ = ["Stream", "ask", "stream"]

# How a reply of a vendor's client is kept in the record, and comes back.
_Reply = Annotated[Any, PlainSerializer(dump), PlainValidator(rebuild)]
_TOOL_WORDS = ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call")


def ask(run: Run, create: Callable[..., Any], /, *, provider: str | None = None, **request: Any) -> Any:
    """Take one model turn: `create(**request)`; returns its reply. Awaited in async code.

    Args:
        run: The run.
        create: The client's method, `client.chat.completions.create`, `client.responses.create` or
            `client.messages.create`; sync or async.
        provider: For the price, e.g. `openai`; read off the client's package when left out.
        request: What `create` takes. Its `model` and its cap on output tokens are what the turn reserves.

    Raises:
        RunStopped: The run is over, or a budget does not allow the turn.
    """
    if request.get("stream"):
        raise ConfigError("a streamed turn is taken with `chat.stream(run, create, …)`, not with `chat.ask`")
    return run.bridge.cross(_ask(run, create, provider, request))


async def _ask(run: Run, create: Callable[..., Any], provider: str | None, request: dict[str, Any]) -> Any:
    async with _turn(run, create, provider, request) as turn:
        if not turn.replayed:
            turn.reply = await _called(create, _last(request) if turn.wrap_up else request)
            turn.charge_reply(turn.reply)
    return turn.reply


def _turn(run: Run, create: Callable[..., Any], provider: str | None, request: Mapping[str, Any]) -> ModelTurn:
    caps = (request.get(name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
    cap = next((cap for cap in caps if isinstance(cap, int)), None)
    return run.step(model=_model(create, provider, request), max_output_tokens=cap, record=_Reply)


def _model(create: Callable[..., Any], provider: str | None, request: Mapping[str, Any]) -> str | None:
    name = request.get("model")
    if not isinstance(name, str) or not name or (":" in name and provider is None):
        return name or None
    return f"{provider or _vendor(create)}:{name}"


def _vendor(create: Callable[..., Any]) -> str:
    package = str(getattr(type(getattr(create, "__self__", create)), "__module__", "")).partition(".")[0]
    return "anthropic" if package == "anthropic" else "openai"


async def _called(create: Callable[..., Any], request: Mapping[str, Any]) -> Any:
    reply = create(**request) if _is_async(create) else await asyncio.to_thread(create, **request)
    return await reply if inspect.isawaitable(reply) else reply


def _is_async(create: Callable[..., Any]) -> bool:
    # The vendors' async methods are wrapped by plain functions.
    return "Async" in type(getattr(create, "__self__", None)).__name__ or inspect.iscoroutinefunction(
        inspect.unwrap(create)
    )


def _last(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request of the turn after a stop: without tools, so that the model can only answer."""
    return {name: value for name, value in request.items() if name not in _TOOL_WORDS}


# -- streams


def stream(run: Run, create: Callable[..., Any], /, *, provider: str | None = None, **request: Any) -> Stream:
    """Open a streamed turn: `async with chat.stream(run, create, …) as pieces: async for piece in pieces: …`.

    Then `pieces.reply` is the whole reply. In a sync loop: `with`, `for`. Arguments as for `ask`; `stream=True` is
    added, and for chat completions `stream_options={"include_usage": True}`, without which nobody knows the cost.

    Raises:
        RunStopped: On entry, as `ask`; and between two pieces, when the run's time is over.
    """
    return Stream(run, create, provider, request)


class Stream(Opened["Stream"]):
    """A streamed turn, open inside its block; made by `stream`.

    Attributes:
        reply: The whole reply, once the stream is read to its end; None before, and of one that broke off.
    """

    __slots__ = ("_create", "_pieces", "_request", "_run", "_together", "_turn", "reply")

    def __init__(self, run: Run, create: Callable[..., Any], provider: str | None, request: dict[str, Any]) -> None:
        super().__init__(run.bridge)
        self._run = run
        self._create = create
        self._request = {**request, "stream": True}
        if "messages" in request and _vendor(create) != "anthropic":
            self._request.setdefault("stream_options", {"include_usage": True})
        self._turn = _turn(run, create, provider, request).uncut()
        self._together = Accumulator()
        self._pieces: Any = None
        self.reply: Any = None

    async def open(self) -> Stream:
        """Pass the stop boundary, and ask the model; or take up what was recorded."""
        turn = await self._turn.open()
        if turn.replayed:
            self.reply = turn.reply
            return self
        try:
            self._pieces = await _called(self._create, _last(self._request) if turn.wrap_up else self._request)
        except BaseException as error:
            await turn.close(error)
            raise
        return self

    def _recorded(self) -> Iterator[Any]:
        form, kept = format_of(self.reply), dump(self.reply)
        pieces = taken_apart(form, kept["reply"])
        return pieces if kept["plain"] else as_pieces(form, pieces)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._read_async()

    async def _read_async(self) -> AsyncIterator[Any]:
        if self._pieces is None:
            for piece in self._recorded():
                yield piece
            return
        async for piece in in_time(self._run, aiter(self._pieces)):
            self._together.add(piece)
            yield piece
        self._over()

    def __iter__(self) -> Iterator[Any]:
        scope = self._run.scope
        for piece in self._recorded() if self._pieces is None else self._pieces:
            if self._pieces is not None:
                self._together.add(piece)
                if scope.clock.monotonic() >= scope.deadline_s:
                    self._run.bridge.loop.call_soon_threadsafe(self._run.stop, TIME_IS_UP)
                    raise RunStopped(TIME_IS_UP.reason, TIME_IS_UP.message)
            yield piece
        if self._pieces is not None:
            self._over()

    def _over(self) -> None:
        whole = self._together.reply()
        if whole is not None:
            form = self._together.format or Format.CHAT
            self.reply = as_object(form, whole) if self._together.as_objects else whole

    async def close(self, error: BaseException | None) -> bool:
        """Charge and record the turn; close the vendor's stream."""
        turn, pieces = self._turn, self._pieces
        if pieces is not None:
            await _closed(pieces)
            if self.reply is not None:
                turn.charge_reply(self.reply)
                turn.reply = self.reply
        return await turn.close(error)


async def _closed(pieces: Any) -> None:
    """Let go of the connection of a stream, read to its end or not."""
    close = getattr(pieces, "aclose", None) or getattr(pieces, "close", None)
    if close is not None:
        done = close()
        if inspect.isawaitable(done):
            await done
