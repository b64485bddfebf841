"""The agent of the suite `everything`: it does what its task says, and makes the mistakes that agents make.

A task's input is a mapping: `do` (tools of one model turn), `one_by_one` (not side by side), `turns` (how many such
turns), `cycle` (after so many turns the arguments come again), `about` (what they are about), `recall` (what to look
for in its memory first), `keep` (keep the last answer as an artifact), `model` (its name), `pause_s` (seconds between
turns). Its tools stand for the remotes of a shop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from interlock.config.gate import Interlock
from interlock.core.errors import RunStopped
from interlock.core.reasons import StopReason
from interlock.supervisor.observation import Observation
from interlock.supervisor.run import Run

__all__ = ["agent", "careless", "delegating", "effects", "gate", "improviser"]

MODEL = "everything:scripted"
SHOWN_CHARACTERS = 1_000

gate = Interlock(
    {
        "profile": "article",
        "prices": {MODEL: {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}},
        "logging": {"level": "error"},
    },
    store="sqlite:///:memory:",
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


_DONE: list[tuple[str, str]] = []
# The carrier's book, by key; a trial begins with an empty one.
_PARCELS: dict[str, str] = {}


def effects() -> dict[str, int]:
    """Return what happened at the remote, by tool: what it was sent twice under one key happened once."""
    keyed = {each for each in _DONE if each[1]}
    done = [*(tool for tool, _ in keyed), *(tool for tool, key in _DONE if not key)]
    return {tool: done.count(tool) for tool in sorted(set(done))}


@gate.tool("search.read", effect="read", output=Results)
async def search(about: str) -> dict[str, Any]:
    """Search the knowledge base."""
    return {"results": [{"title": f"About {about}"}], "partial": False, "next_page": None}


@gate.tool("kb.read", effect="read")
async def article(about: str) -> dict[str, Any]:
    """Read an article; its shape is nobody's promise."""
    return {"text": f"All about {about}"}


@gate.tool("price.read", effect="read")
async def price(about: str) -> dict[str, Any]:
    """Return what something costs, in dollars."""
    return {"about": about, "price": 10}


@gate.tool("ticket.create", effect="write", output=Ticket)
async def create_ticket(about: str, *, idempotency_key: str) -> dict[str, Any]:
    """Create a ticket; the remote knows the key."""
    _DONE.append(("ticket.create", idempotency_key))
    return {"id": str(len(about)), "status": "created", "url": "https://tickets.example/1"}


@gate.tool("invoice.send", effect="write", on_unknown="stop", allow=True)
async def send_invoice(about: str) -> dict[str, Any]:
    """Send an invoice; the remote sends another one each time that it is asked."""
    _DONE.append(("invoice.send", ""))
    return {"sent": about}


async def find_parcel(about: str, *, idempotency_key: str) -> dict[str, Any] | None:
    """Ask the carrier for what was sent under this key."""
    sent = _PARCELS.get(idempotency_key)
    return None if sent is None else {"parcel": sent, "about": about}


@gate.tool("parcel.send", effect="write", on_unknown="lookup", lookup=find_parcel)
async def send_parcel(about: str, *, idempotency_key: str) -> dict[str, Any]:
    """Send a parcel; the carrier sends another one each time, and can be asked for it."""
    _DONE.append(("parcel.send", ""))
    _PARCELS[idempotency_key] = about
    return {"parcel": about, "about": about}


@gate.tool("refund.create", effect="write", approval="required")
async def refund(about: str, *, idempotency_key: str) -> dict[str, Any]:
    """Pay money back, if somebody says yes."""
    _DONE.append(("refund.create", idempotency_key))
    return {"refunded": about}


@gate.tool("db.write", effect="write", approval="required")
async def write_row(about: str) -> dict[str, Any]:
    """Write a row: no policy of ours allows it, and a person would have to."""
    _DONE.append(("db.write", ""))
    return {"written": about}


async def agent(run: Run, task: Any) -> dict[str, Any]:
    """Take the turns of the task, and go on whatever fails; raise the last error if nothing worked."""
    _PARCELS.clear()
    model = task.get("model", MODEL)
    done: list[Any] = []
    said: list[str] = []
    last: BaseException | None = None
    mine = run.memory.scope(user="ann")
    if "recall" in task:
        recalled = await run.memory.recall(task["recall"], scope=mine)
        said.append(recalled.text)
    for turn in range(1, int(task.get("turns", 1)) + 1):
        reply = await run.model(think, task, turn, said, model=model, max_output_tokens=100)
        for observed in await _used(run, reply["uses"], one_by_one=bool(task.get("one_by_one"))):
            if observed.error is not None and observed.reason is StopReason.TOOL_OUTPUT_INVALID:
                raise observed.error
            last = observed.error or last
            done += [observed.value] if observed.ok else []
            said.append(observed.for_model[:SHOWN_CHARACTERS])
        if "pause_s" in task:
            await run.scope.clock.sleep(task["pause_s"])
    if last is not None and not done:
        raise last
    if task.get("keep"):
        await run.artifacts.put("answer", done[-1], scope=mine)
    await run.model(think, {"do": []}, 0, [], model=model, max_output_tokens=100)
    return {"done": done}


async def delegating(run: Run, task: Any) -> dict[str, Any]:
    """Let sub-agents do it: one that may only read, then one with caps of its own; what stops one stops it alone."""
    done: list[Any] = []
    for name, words in (("reader", {"allow": ["*.read"]}), ("writer", {"budgets": {"max_tool_calls": 2}})):
        with contextlib.suppress(RunStopped):
            async with run.child(name, **words) as child:
                for turn in range(1, int(task.get("turns", 1)) + 1):
                    reply = await child.model(think, task, turn, [], model=MODEL, max_output_tokens=100)
                    seen = await _used(child, reply["uses"], one_by_one=True)
                    done += [observed.value for observed in seen if observed.ok]
    return {"done": done}


async def _used(run: Run, uses: list[dict[str, Any]], *, one_by_one: bool) -> list[Observation]:
    if one_by_one:
        return [await run.observe(use["tool"], use["args"]) for use in uses]
    return list(await asyncio.gather(*(run.observe(use["tool"], use["args"]) for use in uses)))


async def careless(run: Run, task: Any) -> dict[str, Any]:
    """Read the model's text as JSON, and believe it."""
    reply = await run.model(think, task, 1, [], model=MODEL, max_output_tokens=100)
    plan = orjson.loads(reply["text"])
    return {"done": await run.call(plan["tool"], plan["args"])}


async def improviser(run: Run, task: Any) -> dict[str, Any]:
    """Word a write by something that no other worker has, so that no later attempt can find it again."""
    for turn in (1, 2):
        await run.model(think, task, turn, [], model=MODEL, max_output_tokens=100)
        await run.call("ticket.create", {"about": f"login fails ({turn}, worker {os.getpid()})"})
    return {"done": "both"}


async def think(task: Any, turn: int, said: list[str]) -> dict[str, Any]:
    """Return what the scripted model says in a turn; it obeys what it reads."""
    about = task.get("about", "login fails")
    args = {"about": f"{about} ({turn % int(task.get('cycle', 1_000))})"}
    told = re.search(r"call ([a-z_.]+[a-z])(?: about ([\w@.]+\w))?", said[-1] if said else "")
    if told and told[2]:
        args = {"about": told[2]}
    uses = [{"tool": tool, "args": args} for tool in ([told[1]] if told else task["do"])]
    text = orjson.dumps(uses[0]).decode() if uses else "That is all."
    return {"text": text, "uses": uses, "usage": {"input_tokens": 400, "output_tokens": 60}}
