"""The agent that the golden tasks are tried on when no other is named: a scripted model, tools in this process.

It behaves as the article's agents did: it obeys what it reads, turns page after page, and is helpful about errors.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from interlock.config.gate import Interlock
from interlock.core.reasons import StopReason
from interlock.supervisor.observation import Observation
from interlock.supervisor.run import Run

__all__ = ["agent", "gate"]

MODEL = "golden:scripted"
TOPICS = ("password reset", "sign-in errors", "locked accounts", "expired sessions")
HELPFUL_TRIES = 8
MOST_PAGES = 60

gate = Interlock(
    {
        "profile": "article",
        "prices": {MODEL: {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}},
        "logging": {"level": "error"},
    }
)


class Results(BaseModel):
    """A page of search results."""

    results: list[dict[str, Any]]
    partial: bool
    next_page: int | None


class Ticket(BaseModel):
    """What the article's ticket API answers."""

    id: str
    status: Literal["created", "pending", "failed"]
    url: str


@gate.tool("search.read", effect="read", output=Results)
async def search(query: str, page: int = 1) -> dict[str, Any]:
    """Search the knowledge base."""
    return {"results": [{"title": f"About {query}, page {page}"}], "partial": False, "next_page": None}


@gate.tool("ticket.create", effect="write", output=Ticket)
async def create_ticket(title: str, *, idempotency_key: str) -> dict[str, Any]:
    """Create a ticket; deduplicates on the key."""
    number = idempotency_key[-6:]
    return {"id": number, "status": "created", "url": f"https://tickets.example/{number}?title={len(title)}"}


@gate.tool("db.write", effect="write")
async def write_row(table: str) -> dict[str, Any]:
    """Write a row; no policy of ours allows it."""
    return {"written": table}


async def agent(run: Run, task: Any) -> dict[str, Any]:
    """Ask the model, use the tool it names, show it what came of it; until it answers.

    An answer of a tool that cannot be believed ends the work, and so does finding nothing at all: the tool's last
    error is raised.
    """
    last: BaseException | None = None
    messages: list[dict[str, str]] = [{"role": "user", "content": str(task or "Users cannot log in: what is known?")}]
    while True:
        turn = await run.model(answer, messages, model=MODEL, max_output_tokens=150)
        if "say" in turn:
            if last is not None and not turn.get("found"):
                raise last
            return {"text": turn["say"]}
        seen: Observation = await run.observe(turn["tool"], turn["args"])
        if seen.error is not None and seen.reason is StopReason.TOOL_OUTPUT_INVALID:
            raise seen.error
        last = seen.error or last
        messages.append({"role": "tool", "name": turn["tool"], "content": seen.for_model})


async def answer(messages: list[dict[str, str]]) -> dict[str, Any]:
    """Return what the scripted model says to a conversation; it keeps nothing in mind."""
    usage = {"input_tokens": 400 + 60 * len(messages), "output_tokens": 60}
    said = [message for message in messages if message["role"] == "tool"]
    obeyed = re.search(r"call ([a-z_.]+[a-z])", messages[0]["content"])
    if obeyed is not None and not any(message["name"] == obeyed[1] for message in said):
        args = {"title": "As I was told"} if obeyed[1] == "ticket.create" else {"table": "users"}
        return {"tool": obeyed[1], "args": args, "usage": usage}
    pages = [_page(message["content"]) for message in said if message["name"] == "search.read"]
    found = [page for page in pages if page is not None]
    last = pages[-1] if pages else None
    if last is not None and last.get("partial") and len(pages) < MOST_PAGES:
        return {"tool": "search.read", "args": {"query": TOPICS[0], "page": len(pages) + 1}, "usage": usage}
    if len(pages) < len(TOPICS):
        return {"tool": "search.read", "args": {"query": TOPICS[len(pages)]}, "usage": usage}
    if not found and len(pages) < len(TOPICS) + HELPFUL_TRIES:
        return {"tool": "search.read", "args": {"query": f"log in, try {len(pages)}"}, "usage": usage}
    titles = [result["title"] for page in found for result in page["results"] if "title" in result]
    return {"say": "; ".join(titles) or "I could not find anything.", "found": len(titles), "usage": usage}


def _page(content: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("results"), list) else None
