"""The tool that every contender guards, its shapes, and the policy it is called under: the same for all."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["ALLOW", "DENY", "TOOL", "Arguments", "Found", "arguments", "search", "search_later"]

TOOL = "orders.read"
ALLOW = ("search.read", "kb.read", "crm.*", "ticket.get*", "orders.*", "web.fetch", "calendar.*", "docs.read")
DENY = ("db.write", "email.send", "payment.*")


class Arguments(BaseModel):
    """What the tool takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str
    limit: int = 10
    tags: list[str] | None = None


class Found(BaseModel):
    """What the tool returns."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ok: bool
    query: str
    limit: int


async def search(query: str, limit: int = 10, tags: list[str] | None = None) -> dict[str, Any]:
    """Return the arguments: a tool that does no work, so that what is left is overhead."""
    return {"ok": True, "query": query, "limit": limit}


async def search_later(query: str, limit: int = 10, tags: list[str] | None = None) -> dict[str, Any]:
    """The same, after giving way to other tasks once, as every tool with I/O does."""
    await asyncio.sleep(0)
    return {"ok": True, "query": query, "limit": limit}


def arguments(i: int) -> dict[str, Any]:
    """Arguments of call i of a run: all different, so that no loop detector fires."""
    return {"query": f"status of order {i}", "limit": 10, "tags": ["support", "eu"]}
