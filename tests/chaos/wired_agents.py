"""An agent whose tool calls a real server, found in the environment; and what has happened there, asked directly."""

import os

from interlock import Interlock
from interlock.chaos.http_client import HttpClient

gate = Interlock(
    {"tools": {"allow": ["*"], "retries": {"backoff_ms": [10]}}, "logging": {"level": "error"}},
    store="sqlite:///:memory:",
)
PROJECT = "wired"


@gate.tool("ticket.create", effect="write")
async def create(title: str, *, idempotency_key: str) -> dict:
    body = {"project": PROJECT, "title": title, "description": "d", "idempotency_key": idempotency_key}
    return (await HttpClient(os.environ["TICKETS_URL"]).request("POST", "/tickets", body=body)).body


@gate.tool("ticket.send", effect="write", on_unknown="stop", allow=True)
async def send(title: str) -> dict:
    body = {"project": PROJECT, "title": title, "description": "d"}
    return (await HttpClient(os.environ["TICKETS_URL"]).request("POST", "/tickets", body=body)).body


async def creates(run, task):
    return (await run.call("ticket.create", {"title": f"{task} {run.run_id}"}))["status"]


async def sends(run, task):
    return (await run.call("ticket.send", {"title": f"{task} {run.run_id}"}))["status"]


async def effects():
    reply = await HttpClient(os.environ["DIRECT_URL"]).request("GET", "/effects", query={"project": PROJECT})
    return {"ticket.create": reply.body["count"]}
