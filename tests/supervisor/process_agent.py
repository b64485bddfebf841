"""A process of its own, for `test_processes.py`: one gate, its tools, and an agent that dies or stops where it is told.

What happens in the world is one line of a file each; `resend` is a remote that does nothing twice for one key.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

import interlock

WORLD = Path(os.environ.get("WORLD", "."))
gate = interlock.Interlock({"lease_ttl_s": 0.5}, store=os.environ.get("STORE"))


def happen(line, once=None):
    with (WORLD / "effects").open("a+") as effects:
        fcntl.flock(effects, fcntl.LOCK_EX)
        effects.seek(0)
        if once is None or not any(once in known for known in effects):
            effects.write(f"{line} {once or ''}\n")


def come_to(place, task):
    """Suffer what the task has in store for the first process that comes here."""
    fate = task.get(place)
    if fate:
        try:
            os.close(os.open(WORLD / f"{fate}-{place}-{task['name']}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), getattr(signal, fate))


@gate.tool("stop", effect="write", allow=True)
async def stop(task: dict, text: str) -> str:
    come_to("sending", task)
    happen(f"{task['name']} {text}")
    come_to("sent", task)
    return text


@gate.tool("resend", effect="write")
async def resend(task: dict, text: str, *, idempotency_key: str) -> str:
    come_to("sending", task)
    happen(f"{task['name']} {text}", idempotency_key)
    come_to("sent", task)
    return text


def find(task: dict, text: str, *, idempotency_key: str):
    with (WORLD / "effects").open("a+") as effects:
        effects.seek(0)
        return text if any(idempotency_key in known for known in effects) else None


@gate.tool("lookup", effect="write", on_unknown="lookup", lookup=find, settle_s=1.0)
async def lookup(task: dict, text: str, *, idempotency_key: str) -> str:
    come_to("sending", task)
    happen(f"{task['name']} {text}", f"{idempotency_key} {os.getpid()}")
    come_to("sent", task)
    return text


@gate.tool("block", effect="read")
async def block() -> int:
    time.sleep(1.5)  # noqa: ASYNC251 - this is what must cost no lease
    return 1


async def agent(run, task):
    async def ask(words):
        if words == "two":
            come_to("asking", task)
            async with asyncio.timeout(30.0):
                while task.get("waits") and not (WORLD / "go").exists():  # noqa: ASYNC110 - another process says so
                    await asyncio.sleep(0.01)
        # Other words each time: only what was recorded is the same.
        return f"{words} {os.getpid()}" if task.get("reworded") else words

    if task.get("blocks"):
        await run.call("block", {})
    first = await run.model(ask, "one")
    come_to("asked", task)
    await run.call(task["kind"], {"task": task, "text": first})
    come_to("called", task)
    second = await run.model(ask, "two")
    await run.call(task["kind"], {"task": task, "text": second})
    come_to("ending", task)
    return "done"


async def main(request_id, task, callers):
    async with gate:
        results = await asyncio.gather(
            *(gate.run(agent, json.loads(task), request_id=request_id) for _ in range(int(callers)))
        )
    sys.stdout.write(json.dumps([[result.run_id, result.reason, result.output] for result in results]) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
