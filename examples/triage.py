"""An agent to try under faults: it reads what is known, and opens one ticket.

    cd examples && interlock chaos run golden_tasks.yaml --agent triage:triage

By itself it runs once, without faults. No API key: the model is scripted.

    python examples/triage.py
"""

import json
from typing import Any, Literal

from pydantic import BaseModel

import interlock

gate = interlock.Interlock(
    {
        "profile": "article",
        "logging": {"level": "warning"},
        "agent": {"budgets": {"max_usd": None}},
        "tools": {
            "allow": ["kb.read", "ticket.create", "invoice.send"],
            "writes": {"invoice.send": {"on_unknown": "stop"}},
        },
    },
    store="sqlite:///:memory:",
)


class Article(BaseModel):
    """What the knowledge base answers."""

    text: str
    solved: bool


class Ticket(BaseModel):
    """What the ticket API answers."""

    id: int
    status: Literal["created", "pending"]


class Remote:
    """Stands for your staging backend, and counts what really happened."""

    def __init__(self) -> None:
        self.tickets: dict[str, str] = {}
        self.invoices = 0


remote = Remote()


@gate.tool("kb.read", effect="read", output=Article)
async def read(topic: str) -> dict[str, Any]:
    """Look into the knowledge base."""
    return {"text": f"{topic}: nothing is known yet", "solved": False}


@gate.tool("ticket.create", effect="write", output=Ticket)
async def create_ticket(title: str, *, idempotency_key: str) -> dict[str, Any]:
    """Create a ticket; this API knows keys that it has seen."""
    remote.tickets[idempotency_key] = title
    return {"id": list(remote.tickets).index(idempotency_key) + 1, "status": "created"}


@gate.tool("invoice.send", effect="write")
async def send_invoice(customer: str) -> dict[str, Any]:
    """Send an invoice; this API sends another one each time."""
    remote.invoices += 1
    return {"sent": customer}


def effects() -> dict[str, int]:
    """Return what happened at the remote: the probe of the suite."""
    return {"ticket.create": len(remote.tickets), "invoice.send": remote.invoices}


async def triage(run: interlock.Run, task: Any) -> dict[str, Any]:
    """Ask the model, use the tool that it names, show it what came of it; until it answers."""
    messages = [{"role": "user", "content": str(task or "Users cannot log in.")}]
    while True:
        reply = await run.model(model, messages)
        if "say" in reply:
            return {"text": reply["say"]}
        seen = await run.observe(reply["tool"], reply["args"])
        if not seen.ok and seen.reason != interlock.StopReason.TOOL_DENIED and reply["tool"] != "kb.read":
            raise seen.error  # without its write, this work is not done
        messages.append({"role": "tool", "name": reply["tool"], "content": seen.for_model})


async def model(messages: list[dict[str, str]]) -> dict[str, Any]:
    """Stand in for a model: read, then do what the task says, then answer."""
    used = [message["name"] for message in messages if message["role"] == "tool"]
    if "kb.read" not in used:
        return {"tool": "kb.read", "args": {"topic": "log in"}}
    if "invoice" in messages[0]["content"] and "invoice.send" not in used:
        return {"tool": "invoice.send", "args": {"customer": "acme"}}
    if "invoice" not in messages[0]["content"] and "ticket.create" not in used:
        return {"tool": "ticket.create", "args": {"title": "Users cannot log in"}}
    return {"say": "Done."}


if __name__ == "__main__":
    result = gate.run_sync(triage, "Users cannot log in.")
    gate.close()
    print(result.reason.value, json.dumps(result.output), json.dumps(effects()))
