"""A run as it is without Interlock: nothing is bounded, nothing is remembered, every error is shown to the model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from interlock.budget.prices import Prices, read_usage
from interlock.chaos.remote import Remote

__all__ = ["BareRun", "BareSeen", "bare_tools"]

TIMEOUT_S = 15.0  # article seconds, as any HTTP client has one


@dataclass(frozen=True, slots=True)
class BareSeen:
    """What came of a tool use."""

    ok: bool
    value: Any
    for_model: str


class BareRun:
    """Calls tools and models directly, and counts.

    Args:
        tools: Functions by name.
        prices: Of models.
        time_scale: Real seconds of one article second.

    Attributes:
        partial: See `AgentRun`. steps, calls, cost_usd: counted so far.
    """

    def __init__(self, tools: Mapping[str, Callable[..., Awaitable[Any]]], prices: Prices, time_scale: float) -> None:
        self._tools = tools
        self._prices = prices
        self._timeout_s = TIMEOUT_S * time_scale
        self.partial: Any = None
        self.steps = 0
        self.calls = 0
        self.cost_usd = 0.0

    async def model(self, fn: Callable[..., Any], *args: Any, model: str, max_output_tokens: int) -> Any:  # noqa: ARG002 - as Interlock's
        """Take one model turn and add up what it cost."""
        self.steps += 1
        reply = await fn(*args)
        usage = read_usage(reply)
        if usage is not None:
            self.cost_usd += self._prices.cost_usd(model, usage) or 0.0
        return reply

    async def observe(self, tool: str, args: Mapping[str, Any]) -> BareSeen:
        """Use a tool; any error becomes text."""
        self.calls += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await self._tools[tool](**args)
        except Exception as error:
            return BareSeen(False, None, f"{type(error).__name__}: {error}")
        return BareSeen(True, value, "")


def bare_tools(remote: Remote) -> dict[str, Callable[..., Awaitable[Any]]]:
    """Return the tools as the article's team shipped them: every one of them, and no idempotency key."""
    return {
        "ticket.create": remote.create_ticket,
        "search.read": remote.search,
        "web.fetch": remote.fetch,
        "kb.read": remote.article,
        "db.write": remote.write_row,
        "email.send": remote.send_email,
    }
