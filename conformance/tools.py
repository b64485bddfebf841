"""The agents' tools: plain typed functions that act on the world over HTTP, as a team would have written them.

They know nothing of Interlock. The keyed ones take the idempotency key that their remote deduplicates on.
Annotations are real objects here, not texts: frameworks read them of functions that are made inside functions.
"""

import json
import os
import signal
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from conformance.column import Tool
from interlock.chaos.http_client import HttpClient

__all__ = ["make_tool"]

PATIENCE_S = 20.0

Post = Callable[[str, dict[str, Any], str | None], Awaitable[Any]]


def make_tool(
    name: str, url: str, *, keyed: bool = False, sync: bool = False, timeout_s: float | None = None, dies: bool = False
) -> Tool:
    """Return a tool that posts to `url/NAME`.

    Args:
        keyed: It takes an idempotency key. sync: it blocks its thread.
        timeout_s: Of the framework's own timeout. dies: the process is killed (SIGKILL) once the world has acted.
    """
    post = _poster(url, dies=dies)
    if sync:
        fn = _SYNC[name](_blocking_poster(url))
    else:
        fn = (_KEYED if keyed else _PLAIN)[name](post)
    fn.__name__ = fn.__qualname__ = name
    description = (fn.__doc__ or "").strip()
    return Tool(
        name, description, fn, _PARAMETERS[name], _EFFECTS.get(name), sync=sync, keyed=keyed, timeout_s=timeout_s
    )


def _poster(url: str, *, dies: bool) -> Post:
    client = HttpClient(url)

    async def post(name: str, args: dict[str, Any], key: str | None = None) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        reply = await client.request("POST", f"/{name}", body=args, headers=headers)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply.body

    return post


def _blocking_poster(url: str) -> Callable[[str, dict[str, Any]], Any]:
    def post(name: str, args: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{url}/{name}", json.dumps(args).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            return json.load(reply)

    return post


def _ticket(post: Post) -> Callable[..., Any]:
    async def ticket_create(title: str, description: str) -> dict[str, Any]:
        """Create a ticket and return its address."""
        return await post("ticket_create", {"title": title, "description": description}, None)

    return ticket_create


def _keyed_ticket(post: Post) -> Callable[..., Any]:
    async def ticket_create(title: str, description: str, *, idempotency_key: str) -> dict[str, Any]:
        """Create a ticket and return its address."""
        return await post("ticket_create", {"title": title, "description": description}, idempotency_key)

    return ticket_create


def _sync_ticket(post: Callable[[str, dict[str, Any]], Any]) -> Callable[..., Any]:
    def ticket_create(title: str, description: str) -> dict[str, Any]:
        """Create a ticket and return its address."""
        return post("ticket_create", {"title": title, "description": description})

    return ticket_create


def _row(post: Post) -> Callable[..., Any]:
    async def row_append(table: str, value: str) -> dict[str, Any]:
        """Append a row to a table of the database."""
        return await post("row_append", {"table": table, "value": value}, None)

    return row_append


def _keyed_row(post: Post) -> Callable[..., Any]:
    async def row_append(table: str, value: str, *, idempotency_key: str) -> dict[str, Any]:
        """Append a row to a table of the database."""
        return await post("row_append", {"table": table, "value": value}, idempotency_key)

    return row_append


def _refund(post: Post) -> Callable[..., Any]:
    async def refund_create(order_id: str, amount: int) -> dict[str, Any]:
        """Refund an order."""
        return await post("refund_create", {"order_id": order_id, "amount": amount}, None)

    return refund_create


def _keyed_refund(post: Post) -> Callable[..., Any]:
    async def refund_create(order_id: str, amount: int, *, idempotency_key: str) -> dict[str, Any]:
        """Refund an order."""
        return await post("refund_create", {"order_id": order_id, "amount": amount}, idempotency_key)

    return refund_create


def _search(post: Post) -> Callable[..., Any]:
    async def search_read(query: str) -> dict[str, Any]:
        """Search the knowledge base."""
        return await post("search_read", {"query": query}, None)

    return search_read


def _note(post: Post) -> Callable[..., Any]:
    async def note_create(text: str, urgent: bool = False) -> dict[str, Any]:
        """Leave a note for the next shift."""
        return await post("note_create", {"text": text, "urgent": urgent}, None)

    return note_create


def _stock(post: Post) -> Callable[..., Any]:
    async def stock_check(item: str) -> dict[str, Any]:
        """Check the stock of an item."""
        return await post("stock_check", {"item": item}, None)

    return stock_check


_PLAIN = {
    "ticket_create": _ticket,
    "row_append": _row,
    "refund_create": _refund,
    "note_create": _note,
    "search_read": _search,
    "stock_check": _stock,
}
# Whether a check of the stock changes anything, nobody has said.
_EFFECTS: dict[str, Literal["read", "write"]] = {
    "ticket_create": "write",
    "row_append": "write",
    "refund_create": "write",
    "note_create": "write",
    "search_read": "read",
}
_KEYED = {"ticket_create": _keyed_ticket, "row_append": _keyed_row, "refund_create": _keyed_refund}
_SYNC = {"ticket_create": _sync_ticket}


def _schema(**types: str) -> dict[str, Any]:
    properties = {name: {"type": kind} for name, kind in types.items()}
    return {"type": "object", "properties": properties, "required": list(types), "additionalProperties": False}


_PARAMETERS = {
    "ticket_create": _schema(title="string", description="string"),
    "row_append": _schema(table="string", value="string"),
    "refund_create": _schema(order_id="string", amount="integer"),
    "search_read": _schema(query="string"),
    "stock_check": _schema(item="string"),
    "note_create": {
        "type": "object",
        "properties": {"text": {"type": "string"}, "urgent": {"type": "boolean", "default": False}},
        "required": ["text"],
        "additionalProperties": False,
    },
}
