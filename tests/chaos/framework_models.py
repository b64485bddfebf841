"""Faults of the model before the agents of `framework_agents`: a real model server, a fault proxy, a real backend.

What the agent is to do is one read and one write; what has happened is counted at the backend.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import asdict

from conformance.column import Job, Tool
from conformance.conversation import Turn, Use
from conformance.model import ModelServer

from interlock.chaos.backend import Backend
from interlock.chaos.http_client import HttpClient
from interlock.chaos.suite import load_suite
from interlock.chaos.trying import try_once
from interlock.chaos.wires import wired

KINDS = {
    "model_truncated": {"calls": [2]},
    "model_empty": {"calls": [2]},
    "model_malformed_arguments": {"calls": [1, 2]},
    "model_repeats": {"calls": [2, 3, 4]},
    "model_unknown_tool": {"calls": [1, 2]},
    "model_slow": {"delay_s": 0.05},
    "model_rate_limited": {"calls": [1, 2], "retry_after_s": 0.01},
}
TITLE, PROJECT, TURNS = "Users cannot log in", "modelled", 10


def script(seen):
    """Look it up, open one ticket, say so; and do not mind what went wrong before."""
    if len(seen.heard) >= TURNS or any("created" in h.text for h in seen.heard if h.tool == "ticket_create"):
        return Turn(text="The ticket is open.")
    if any("About" in h.text for h in seen.heard):
        return Turn((Use("ticket_create", {"title": TITLE}),))
    return Turn((Use("search_read", {"query": "log in"}),))


async def search_read(query: str) -> dict:
    """Search the knowledge base."""
    return {"results": [{"title": f"About {query}"}]}


async def ticket_create(title: str) -> dict:
    """Open a ticket; the backend does not know one request from another."""
    body = {"project": PROJECT, "title": title, "description": "d"}
    return (await HttpClient(os.environ["TICKETS_URL"]).request("POST", "/tickets", body=body)).body


async def effects():
    query = {"project": PROJECT}
    reply = await HttpClient(os.environ["TICKETS_URL"]).request("GET", "/effects", query=query)
    return {"ticket_create": reply.body["count"]}


def _parameters(name):
    return {
        "type": "object",
        "properties": {name: {"type": "string"}},
        "required": [name],
        "additionalProperties": False,
    }


TOOLS = (
    Tool("search_read", "Search the knowledge base.", search_read, _parameters("query"), "read"),
    Tool("ticket_create", "Open a ticket.", ticket_create, _parameters("title"), "write"),
)


def agent_of(column, model, session, *, stream, ended):
    """The column's agent, on the model that the environment names; its end goes into the list."""

    async def agent(gate, task, **options):
        # A session of its own: some frameworks keep a client, and its event loop, for each address.
        url = f"{os.environ['MODEL_URL']}/{session}/1"
        job = Job("Use the tools.", str(task), TOOLS, f"{url}/v1", url, model, stream=stream, options=options)
        result = await column.guarded(job, gate)
        ended.append({name: result.details.get(name, "") for name in ("error", "category")})
        return result

    return agent


@contextlib.contextmanager
def servers():
    """The model and the backend, on a thread of their own; yields the model's address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    backend = Backend(time_scale=0.0001)
    model = ModelServer(lambda _: script, lambda _: False, lambda seen: bool(seen.offered))

    def wait(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    os.environ["TICKETS_URL"] = f"http://127.0.0.1:{wait(backend.start())}"
    wait(model.start())
    try:
        yield model.url.removeprefix("http://")
    finally:
        wait(model.close())
        wait(backend.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


def try_all(column, gate, config, model, plan):
    """Try kinds on a column's agent; yields what came of each, as plain data.

    Args:
        plan: (kind, whether the agent streams), …
    """
    tools = {**config["tools"], "allow": ["search_read", "ticket_create"], "deny": [], "invariants": {}}
    tools |= {"effects": {"search_read": "read", "ticket_create": "write"}, "timeouts_s": {"default": 10}}
    tasks = [
        {"name": f"{kind}-{stream}", "input": TITLE, "faults": [{"kind": kind, **KINDS[kind]}], "expect": "any"}
        for kind, stream in plan
    ]
    with servers() as to:
        model_server = {"to": to, "speaks": "model", "env": "MODEL_URL"}
        config = {**config, "tools": tools}
        suite = load_suite(
            {"clock": "real", "seed": 1, "config": config, "servers": {"model": model_server}, "tasks": tasks}
        )
        with wired(suite):
            for task, (kind, stream) in zip(suite.tasks, plan, strict=True):
                ended = []
                agent = agent_of(column, model, task.name, stream=stream, ended=ended)
                tried = try_once(agent, gate, suite, task, seed=suite.seed, probe=effects)
                yield {**asdict(tried), "kind": kind, "stream": stream, **ended[-1]}
