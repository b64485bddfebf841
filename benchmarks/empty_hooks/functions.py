"""The thinnest wrapper of a function: for what has no hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["passing_on"]


def passing_on(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return a coroutine function around another."""

    async def through(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return through
