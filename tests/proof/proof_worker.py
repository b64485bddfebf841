"""The worker of the proofs: an agent with a tool of every class, driven through the public face of Interlock.

Started once as a nursery, which has imported everything; each line that it reads is a worker to fork. So a
worker is a process of its own that begins within milliseconds, and its death is noticed by the system alone.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading

from proof_remote import ask

import interlock

CLASSES = ("resend", "natural", "lookup", "stop", "tell")
LEASE_TTL_S = 0.3
SETTLE_S = 0.8  # longer than the remote takes, by far
CONFIG = {
    "lease_ttl_s": LEASE_TTL_S,
    "abandon_after": 1000,  # here workers die faster than they can begin, and it is not the runs that kill them
    "agent": {"budgets": {"max_usd": None}},
    "tools": {
        "timeouts_s": {"default": 5},
        "retries": {"max_attempts": 3, "backoff_ms": [5, 10, 20]},
        "circuit_breakers": {"enabled": False},
    },
    "logging": {"level": "error"},
}


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal may take a moment to arrive


def spoken(answer):
    """The tool's reading of an answer: none is a connection reset after the request was sent."""
    if answer is None:
        raise ConnectionResetError("the connection was closed without an answer")
    if "refused" in answer:
        raise interlock.NotPerformed("the remote says no")
    return answer["ok"]


def make_gate(spec, dies=lambda _point, _name: False):
    """A gate with the five tools, and a read. `dies(point, tool)` is asked at the points inside a tool."""
    gate = interlock.Interlock(CONFIG, store=spec["store"])
    socket = spec["socket"]

    def tool_of(name):
        async def tool(meant: str, note: str, *, idempotency_key: str):
            if dies("W2", name):
                die()
            words = {"tool": name, "meant": meant, "key": idempotency_key, "value": note}
            asked = asyncio.Event()
            sent = asyncio.ensure_future(ask(socket, asked, do="write", dedupes=name == "resend", **words))
            if dies("W3", name):
                await asked.wait()
                die()
            if dies("W4", name):
                while (await ask(socket, do="find", key=idempotency_key))["ok"] is None:  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.001)
                die()
            return spoken(await sent)

        return tool

    async def find(meant, note, *, idempotency_key):
        return spoken(await ask(socket, do="find", key=idempotency_key))

    words = {
        "resend": {"on_unknown": "resend"},
        "natural": {"on_unknown": "resend", "natural": True},
        "lookup": {"on_unknown": "lookup", "lookup": find, "settle_s": SETTLE_S},
        "stop": {"on_unknown": "stop", "allow": True},
        "tell": {"on_unknown": "tell", "allow": True},
    }
    for name in CLASSES:
        gate.tool(name, effect="write", **words[name])(tool_of(name))

    @gate.tool("look", effect="read")
    async def look(meant: str):
        return spoken(await ask(socket, do="read"))

    return gate


async def think(ref, turn):
    """The model: it never words a thing the same way twice."""
    await asyncio.sleep(0.002)
    note = os.urandom(4).hex()
    plan = (
        ("look", "resend", "natural"),
        ("lookup", "look", "resend"),
        ("stop",) if int(ref[-1], 16) % 2 else ("tell",),
    )
    return {"note": note, "calls": [[tool, f"{ref}.{turn}.{tool}"] for tool in plan[turn]]}


async def agent(run, task):
    """Three model turns, each with calls in parallel; returns what the writes gave."""
    given = []
    for turn in range(3):
        reply = await run.model(think, task["ref"], turn)
        calls = [
            run.observe(tool, {"meant": meant} if tool == "look" else {"meant": meant, "note": reply["note"]})
            for tool, meant in reply["calls"]
        ]
        given += [seen.status for seen in await asyncio.gather(*calls)]
    return given


def one_write(dies):
    """The agent of the named crash points: a model turn, one write of one class, a model turn."""

    async def agent(run, task):
        reply = await run.model(think, "0", 0)
        seen = await run.observe(task["tool"], {"meant": task["ref"], "note": reply["note"]})
        if dies("W7", task["tool"]):
            die()
        await run.model(think, "0", 1)
        return seen.status

    return agent


def make_mortal(store, dies):
    """Let this process die around the commits of an intent and of a result."""
    claim, settle, tools = store.claim, store.settle, {}

    async def mortal_claim(self, intent):
        tools[intent.key] = intent.tool
        if dies("W0", intent.tool):
            die()
        answer = await claim(intent)
        if dies("W1", intent.tool):
            die()
        return answer

    async def mortal_settle(self, key, settlement):
        if dies("W5", tools.get(key)):
            die()
        answer = await settle(key, settlement)
        if dies("W6", tools.get(key)):
            die()
        return answer

    type(store).claim, type(store).settle = mortal_claim, mortal_settle


async def work(spec):
    """Run every request of the spec at once, and append a line to its file for each that returns."""
    point, tool = spec.get("die") or (None, None)

    def dies(at, name):
        return at == point and name == tool

    gate = make_gate(spec, dies)
    store = gate.house().store
    if point:
        make_mortal(store, dies)
    out = os.open(spec["out"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    acts = one_write(dies) if spec["agent"] == "one_write" else agent

    async def one(n, request_id, task):
        await asyncio.sleep(n * spec.get("every_s", 0.0))
        result = await gate.run(acts, task, request_id=request_id, agent_name="proof")
        said = {"request": request_id, "run": result.run_id, "reason": result.reason, "parked": result.parked}
        said["output"], said["details"] = result.output, repr(result.details)[:2000]
        os.write(out, json.dumps(said).encode() + b"\n")

    await asyncio.gather(*(one(n, *request) for n, request in enumerate(spec["requests"])))
    await gate.aclose()


def nursery():
    """Fork a worker for each line of standard input, and answer with its number."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody stays a zombie: who is dead is gone
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(0)
            try:
                asyncio.run(work(json.loads(line)))
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    # What a gate imports on first use, imported once.
    warm = make_gate({"store": "sqlite:///:memory:", "socket": ""})
    warm.house()
    warm.close()
    importlib.import_module("interlock.stores.postgres")
    importlib.import_module("asyncpg")
    nursery()
