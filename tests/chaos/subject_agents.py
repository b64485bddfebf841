"""Agents that suites of the tests are tried on: good ones, and those that take their process with them."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from interlock import Interlock

gate = Interlock({"tools": {"allow": ["*"]}, "logging": {"level": "error"}}, store="sqlite:///:memory:")
SENT = []


@gate.tool("note.read", effect="read")
async def read(n: int = 1) -> dict:
    return {"text": f"note {n}", "n": n}


@gate.tool("note.send", effect="write")
async def send(n: int, *, idempotency_key: str) -> dict:
    SENT.append(idempotency_key)
    return {"id": n}


@gate.tool("invoice.send", effect="write", on_unknown="stop", allow=True)
async def invoice(n: int = 1) -> dict:
    return {"id": n}


def effects():
    return {"note.send": len(set(SENT))}


def broken_probe():
    raise RuntimeError("the backend is away")


async def reads(run, task):
    async def model(n):
        return {"tool": "note.read", "args": {"n": n}, "text": f"turn {n}"}

    texts = []
    for n in range(1, 5):
        turn = await run.model(model, n)
        seen = await run.observe(turn["tool"], turn["args"])
        texts.append(turn["text"] if seen.ok else seen.for_model)
    return texts


async def sends(run, task):
    return await run.call("note.send", {"n": 1})


async def invoices(run, task):
    return await run.call("invoice.send", {"n": 1})


async def invoices_twice(run, task):
    for _ in range(2):
        await run.observe("invoice.send", {"n": 1})


async def recalls(run, task):
    async def model(notes):
        return {"text": "noted"}

    recalled = await run.memory.recall("what does Ann want", scope={"user": "ann"})
    return await run.model(model, [recalled.text, [fact.trust.name.lower() for fact in recalled.facts]])


async def pays(run, task):
    async def model():
        return {"usage": {"input_tokens": 1_000, "output_tokens": 100}}

    await run.model(model, model="openai:gpt-4o", max_output_tokens=200)
    return (await run.observe("note.read", {"n": 1})).ok


def started(mark):
    subprocess.Popen([sys.executable, "-c", f"import time; open({mark!r}, 'w').write('x'); time.sleep(600)"])


def marked(place, text):
    Path(place).write_text(text)
    return "done"


async def hangs(run, task):
    started(task)
    while True:
        pass


def in_worker():
    return "trial_worker" in sys.argv[0]


async def hangs_in_its_worker(run, task):
    if in_worker():
        started(task)
        while True:
            pass


async def exits_in_its_worker(run, task):
    if in_worker():
        print("the worker says why", flush=True)
        os._exit(3)


async def forks(run, task):
    child = os.fork()
    if child == 0:
        signal.pause()
    return marked(task, str(child))


async def exits(run, task):
    print("something on stdout")
    os._exit(3)


async def waits(run, task):
    await asyncio.sleep(1e6)
