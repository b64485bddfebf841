"""Gates as the benchmarks use them: profile `default`, caps raised, `replay: off`, every call a log line in a file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import interlock
from benchmarks.work import ALLOW, DENY, TOOL, Found, arguments

__all__ = ["WRITE", "Agent", "make_gate", "many_globs", "read_run", "write_gate", "yielding_run"]

Agent = Callable[[interlock.Run, Any], Awaitable[str]]

MANY = 1_000_000
WRITE = "orders.create"


def many_globs(count: int) -> tuple[str, ...]:
    """Return `count` globs, of which the tool of the benchmark matches only the last."""
    kinds = ("svc{}.read", "svc{}.*", "*.tail{}", "a{}*z")
    return (*(kinds[i % 4].format(i) for i in range(count - 1)), "orders.*")


def make_gate(
    directory: Path,
    name: str,
    fn: Callable[..., Awaitable[Any]],
    *,
    allow: Sequence[str] = ALLOW,
    persist: bool = False,
    level: str = "info",
) -> interlock.Interlock:
    """Return a gate with one read tool, its store and its log in `directory`; `persist`: calls reach the store as they happen."""
    gate = interlock.Interlock(
        {
            "replay": "off",
            "agent": {
                "budgets": {"max_steps": MANY, "max_tool_calls": MANY, "max_seconds": 86_400},
            },
            "tools": {"allow": list(allow), "deny": list(DENY), "effects": {"*.read": "read"}},
            "record": {"calls": persist},
            "logging": {"level": level, "to": str(directory / f"{name}.log")},
        },
        store=f"sqlite:///{directory / name}.db",
    )
    gate.tool(TOOL, effect="read", output=Found)(fn)
    return gate


def write_gate(directory: Path, name: str, url: str) -> interlock.Interlock:
    """Return a gate with one write tool, whose results are kept, sealed; every call is a log line in a file."""
    gate = interlock.Interlock(
        {
            "agent": {"budgets": {"max_steps": MANY, "max_tool_calls": MANY, "max_seconds": 86_400}},
            "tools": {"allow": list(ALLOW), "deny": list(DENY)},
            "logging": {"level": "info", "to": str(directory / f"{name}.log")},
        },
        store=url,
    )

    @gate.tool(WRITE, effect="write", output=Found)
    async def create(
        query: str, limit: int = 10, tags: list[str] | None = None, *, idempotency_key: str
    ) -> dict[str, Any]:
        return {"ok": True, "query": query, "limit": limit}

    return gate


async def read_run(run: interlock.Run, task: Any) -> str:
    """An agent of 25 reads."""
    for i in range(25):
        await run.call(TOOL, arguments(i))
    return "done"


async def yielding_run(run: interlock.Run, task: Any) -> str:
    """The same, giving way to other runs after each read."""
    for i in range(25):
        await run.call(TOOL, arguments(i))
        await asyncio.sleep(0)
    return "done"
