"""Asks the remote whether a write happened.

A "yes" is what the look-up returns; it closes the claim. A "no" counts only when enough time has passed since
the last send that the write can no longer arrive. Everything else, an error included, says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from interlock.core.calls import ToolSpec

__all__ = ["Found", "InThread", "Inquiry", "Verdict", "names_taken", "wants_key"]

InThread = Callable[[Callable[..., Any], dict[str, Any], str], Awaitable[Any]]


class Verdict(StrEnum):
    """What the remote says: it happened, it did not (and cannot any more), or nothing that counts."""

    HAPPENED = "happened"
    DID_NOT = "did_not"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: `value` is the tool's result where it happened. `why` is for evidence, without content.

    `early`: it was a "no" that does not count yet.
    """

    verdict: Verdict
    value: Any = None
    why: str = ""
    early: bool = False


class Inquiry:
    """One tool's look-up.

    Args:
        in_thread: Runs a plain function off the event loop: `in_thread(fn, kwargs, tool name)`.
        timeout_s: What one question may take.

    Attributes:
        busy: Questions that are being answered, those nobody waits for any more included.
    """

    def __init__(self, tool: ToolSpec, in_thread: InThread, timeout_s: float) -> None:
        assert tool.lookup is not None
        self.busy = 0
        self._fn = tool.lookup
        self._name = tool.name
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(tool.lookup))
        self._wants_key = wants_key(tool.lookup)
        self._takes = names_taken(tool.lookup)
        self._in_thread = in_thread
        self._timeout_s = timeout_s
        self._asked: set[asyncio.Future[Any]] = set()

    @property
    def needs_only_key(self) -> bool:
        """Whether the idempotency key says enough, without the arguments of the call."""
        if not self._wants_key:
            return False
        try:
            inspect.signature(self._fn).bind(idempotency_key="")
        except TypeError:
            return False
        return True

    async def ask(self, args: Mapping[str, Any], sent_key: str | None, *, counts: bool) -> Found:
        """Ask once.

        Args:
            args: Of the call. sent_key: the idempotency key that the remote has received.
            counts: Whether so much time has passed before the question that a "no" counts.
        """
        try:
            value = await self._in_time(self._answer(args, sent_key))
        except Exception as error:
            return Found(Verdict.UNKNOWN, why=f"lookup failed: {type(error).__name__}")
        if value is None:
            if counts:
                return Found(Verdict.DID_NOT, why="lookup did not find it")
            return Found(Verdict.UNKNOWN, why="too early: lookup did not find it yet", early=True)
        if sent_key is not None and _key_in(value) not in {None, sent_key}:
            return Found(Verdict.UNKNOWN, why="lookup answered for another idempotency key")
        return Found(Verdict.HAPPENED, value, "lookup found it")

    async def _in_time(self, answer: Coroutine[Any, Any, Any]) -> Any:
        """Wait for an answer, no longer than it may take: one that does not heed its cancellation is left behind."""
        asked = asyncio.ensure_future(answer)
        self._asked.add(asked)
        asked.add_done_callback(self._seen)
        try:
            done, _ = await asyncio.wait({asked}, timeout=self._timeout_s)
        finally:
            asked.cancel()
        if not done:
            raise TimeoutError
        if asked.cancelled():
            raise InterruptedError("the look-up was cancelled by its own code")
        return asked.result()

    def _seen(self, asked: asyncio.Future[Any]) -> None:
        self._asked.discard(asked)
        if not asked.cancelled():
            asked.exception()

    async def _answer(self, args: Mapping[str, Any], key: str | None) -> Any:
        kwargs = {**args, "idempotency_key": key} if self._wants_key else dict(args)
        if self._takes is not None:
            kwargs = {name: value for name, value in kwargs.items() if name in self._takes}
        if not self._is_async:
            value = await self._in_thread(self._in_its_thread, kwargs, self._name)
            return await value if inspect.isawaitable(value) else value
        with self._counted():
            return await self._fn(**kwargs)

    def _in_its_thread(self, **kwargs: Any) -> Any:
        with self._counted():
            return self._fn(**kwargs)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1


def _key_in(value: Any) -> Any:
    """Return the idempotency key that an answer says it is of, or None where it says nothing."""
    found = value.get("idempotency_key") if isinstance(value, Mapping) else getattr(value, "idempotency_key", None)
    return found if isinstance(found, str) else None


def names_taken(fn: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of the arguments that the function can be given; None: whatever there is."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(parameter.name for parameter in parameters if parameter.kind in named)


def wants_key(fn: Callable[..., Any]) -> bool:
    """Whether the function has a parameter `idempotency_key`."""
    try:
        return "idempotency_key" in inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return False
