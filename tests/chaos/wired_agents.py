"""Agents whose tool, or model, is a real server, found in the environment; and what has happened there, asked directly."""

import os

from interlock import Interlock
from interlock.chaos.http_client import HttpClient

PRICE = {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}
gate = Interlock(
    {
        "tools": {"allow": ["*"], "retries": {"backoff_ms": [10]}},
        "prices": {"gpt-4o": PRICE},
        "logging": {"level": "error"},
    },
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


async def asks(run, task):
    async def ask(text):
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
        return (await HttpClient(os.environ["MODEL_URL"]).request("POST", "/chat/completions", body=body)).body

    reply = await run.model(ask, str(task), model="gpt-4o")
    return reply["choices"][0]["message"]["content"]


async def effects():
    reply = await HttpClient(os.environ["DIRECT_URL"]).request("GET", "/effects", query={"project": PROJECT})
    return {"ticket.create": reply.body["count"]}
