"""What a model turn costs: usage read from replies, prices from `genai-prices` or the configuration.

An unknown price is a state, never zero: `cost` answers None, and under a cap on dollars the turn is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from interlock.core.fields import read_field

__all__ = ["ModelPrice", "Prices", "Usage", "read_model", "read_usage"]


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """A price the user states: dollars for a million tokens."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model turn; `input_tokens` includes cached ones. `cost_usd` where the reply states it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = None

    @property
    def tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens


class Prices:
    """Prices by model name, `provider:model` or bare.

    Args:
        overrides: The configuration's `prices`; they win.
    """

    def __init__(self, overrides: Mapping[str, ModelPrice] | None = None) -> None:
        self._overrides = dict(overrides or {})

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """Return the dollars of one turn, or None when the price of `model` is unknown."""
        if usage.cost_usd is not None:
            return usage.cost_usd
        own = self._overrides.get(model)
        if own is not None:
            return (usage.input_tokens * own.input_usd_per_mtok + usage.output_tokens * own.output_usd_per_mtok) / 1e6
        return _listed_cost_usd(
            model, usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens
        )


# What a model costs is a straight line up to here, in tokens; where tiers begin earlier, or the hour counts, it is not.
_STRAIGHT_UP_TO = 100_000
_MEGA = 1_000_000


@lru_cache(maxsize=4096)
def _listed_cost_usd(
    model: str, input_tokens: int, output_tokens: int, cache_read_tokens: int, cache_write_tokens: int
) -> float | None:
    rates = _rates(model)
    fresh = input_tokens - cache_read_tokens - cache_write_tokens
    if rates is None or fresh < 0 or max(input_tokens, output_tokens) > _STRAIGHT_UP_TO:
        return _calculated_usd(model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)
    of_input, of_output, of_read, of_write = rates
    return (
        fresh * of_input + output_tokens * of_output + cache_read_tokens * of_read + cache_write_tokens * of_write
    ) / _MEGA


@lru_cache(maxsize=512)
def _rates(model: str) -> tuple[float, float, float, float] | None:
    """Return dollars for a million tokens of input, output, cache read and cache write; None: it is no straight line.

    The list's own arithmetic costs as much as a guarded call, each turn anew.
    """
    import genai_prices  # noqa: PLC0415
    from genai_prices.types import TimeOfDateConstraint  # noqa: PLC0415

    provider, _, name = model.rpartition(":")
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1), model_ref=name, provider_id=provider or None
        )
    except LookupError:
        return None
    prices = found.model.prices
    if isinstance(prices, list) and any(isinstance(price.constraint, TimeOfDateConstraint) for price in prices):
        return None
    n = _STRAIGHT_UP_TO
    half = n // 2
    points = [
        (half, 0, 0, 0),
        (0, half, 0, 0),
        (half, 0, half, 0),
        (half, 0, 0, half),
        (n, n, n // 4, n // 5),
        (7, 5, 3, 1),
    ]
    usd = [cost for point in points if (cost := _calculated_usd(model, *point)) is not None]
    if len(usd) != len(points):
        return None
    rates = [cost / half * _MEGA for cost in usd[:4]]
    for (given, output, read, write), cost in zip(points[4:], usd[4:], strict=True):
        line = (given - read - write) * rates[0] + output * rates[1] + read * rates[2] + write * rates[3]
        if not math.isclose(line / _MEGA, cost, rel_tol=1e-9):
            return None
    return rates[0], rates[1], rates[2], rates[3]


def _calculated_usd(
    model: str, input_tokens: int, output_tokens: int, cache_read_tokens: int, cache_write_tokens: int
) -> float | None:
    # Imported on the first priced turn: the price list costs 0.2 s of CPU to load.
    import genai_prices  # noqa: PLC0415

    provider, _, name = model.rpartition(":")
    try:
        price = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cache_read_tokens=cache_read_tokens or None,
                cache_write_tokens=cache_write_tokens or None,
            ),
            model_ref=name,
            # Without a provider the list may pick another provider's tier.
            provider_id=provider or None,
        )
    except LookupError:
        return None
    return float(price.total_price)


def read_usage(reply: Any, reader: Callable[[Any], Any] | None = None) -> Usage | None:
    """Read the usage of a reply: OpenAI, Anthropic, or plain `{"usage": …}`; None when there is none.

    Args:
        reply: What the model function returned.
        reader: Returns the usage of a reply of another shape.

    Raises:
        ValueError: The usage is there and cannot be read.
    """
    raw = reader(reply) if reader is not None else read_field(reply, "usage")
    if raw is None or isinstance(raw, Usage):
        return raw
    if callable(raw):  # some libraries (pydantic-ai) offer `usage()`
        raw = raw()
    prompt = _first(raw, "input_tokens", "prompt_tokens", "request_tokens")
    output = _first(raw, "output_tokens", "completion_tokens", "response_tokens")
    cost = _number(read_field(raw, "cost_usd"), "cost_usd")
    if prompt is None and output is None:
        return None if cost is None else Usage(cost_usd=cost)
    read = _count(read_field(raw, "cache_read_input_tokens"), "cache_read_input_tokens")
    write = _count(read_field(raw, "cache_creation_input_tokens"), "cache_creation_input_tokens")
    # Anthropic counts cached tokens beside the input; everybody else inside it.
    total = (prompt or 0) + read + write
    details = read_field(raw, "prompt_tokens_details") or read_field(raw, "input_tokens_details")
    cached = _count(read_field(details, "cached_tokens"), "cached_tokens") if details is not None else 0
    return Usage(total, output or 0, read or cached, write, cost)


def read_model(reply: Any) -> str | None:
    """Read the model's name out of a reply, where it says one."""
    model = read_field(reply, "model")
    return model if isinstance(model, str) and model else None


def _first(raw: Any, *names: str) -> int | None:
    for name in names:
        value = read_field(raw, name)
        if value is not None:
            return _count(value, name)
    return None


def _count(value: Any, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"usage.{name} is not a count of tokens")
    return value


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"usage.{name} is not an amount of dollars")
    return float(value)
