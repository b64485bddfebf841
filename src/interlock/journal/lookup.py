"""Asks the remote whether a write happened.

A "yes" is what the look-up returns; it closes the claim. A "no" counts only when enough time has passed since
the last send that the write can no longer arrive. Everything else, an error included, says nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from interlock.core.calls import Call, ToolSpec

__all__ = ["Found", "InThread", "Inquiry", "Verdict", "wants_key"]

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
    """

    def __init__(self, tool: ToolSpec, in_thread: InThread, timeout_s: float) -> None:
        assert tool.lookup is not None
        self._fn = tool.lookup
        self._name = tool.name
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(tool.lookup))
        self._wants_key = wants_key(tool.lookup)
        self._in_thread = in_thread
        self._timeout_s = timeout_s

    async def ask(self, call: Call[Any], settled_at: float) -> Found:
        """Ask once.

        Args:
            settled_at: Wall-clock time (Unix seconds) before which a "no" does not count.
        """
        clock = call.run.clock
        # Read before the question: the answer may describe the moment in which it was received.
        counts = clock.wall() >= settled_at
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await self._answer(call.args, call.sent_key)
        except Exception as error:
            return Found(Verdict.UNKNOWN, why=f"lookup failed: {type(error).__name__}")
        if value is not None:
            return Found(Verdict.HAPPENED, value, "lookup found it")
        if counts:
            return Found(Verdict.DID_NOT, why="lookup did not find it")
        return Found(Verdict.UNKNOWN, why="too early: lookup did not find it yet", early=True)

    async def _answer(self, args: Mapping[str, Any], key: str | None) -> Any:
        kwargs = {**args, "idempotency_key": key} if self._wants_key else dict(args)
        value = await (self._fn(**kwargs) if self._is_async else self._in_thread(self._fn, kwargs, self._name))
        return await value if inspect.isawaitable(value) else value


def wants_key(fn: Callable[..., Any]) -> bool:
    """Whether the function has a parameter `idempotency_key`."""
    try:
        return "idempotency_key" in inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return False
