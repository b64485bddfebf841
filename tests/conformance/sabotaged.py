"""Columns that do one thing wrong, each as a framework's adapter might: the matrix must see every one of them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from conformance.columns import loop

from interlock import Interlock, RunResult

__all__ = ["ABSENT", "BLIND", "FALLS", "LEAKS", "OWN_KEYS", "SLOPPY", "SWALLOWS"]


async def _own_keys(job, gate):
    """Send a fresh key with every attempt."""
    numbers = iter(range(100))

    def with_own_key(tool):
        async def fn(title: str, description: str, *, idempotency_key: str) -> dict:
            return await tool.fn(title=title, description=description, idempotency_key=f"k{next(numbers)}")

        return replace(tool, fn=fn) if tool.keyed else tool

    return await loop.guarded(replace(job, tools=tuple(with_own_key(tool) for tool in job.tools)), gate)


async def _past_the_gate(job, gate):
    """Run bare, and claim that it was guarded."""
    return RunResult("", "success", output=await loop.bare(job))


async def _swallows(job, gate):
    """Go on in spite of a stop: what the gate refuses is done without it."""
    result = await loop.guarded(job, gate)
    if result.ok:
        return result
    return replace(result, reason="success", output=await loop.bare(job))


class _Inviting:
    """A gate whose refusals end as some frameworks' errors do."""

    def __init__(self, gate: Interlock) -> None:
        self._gate = gate
        self.tools = gate.tools
        self.tool = gate.tool

    async def run(self, agent, task, **options):
        async def inviting(run, prompt):
            return await agent(_InvitingRun(run), prompt)

        return await self._gate.run(inviting, task, **options)


class _InvitingRun:
    def __init__(self, run) -> None:
        self._run = run
        self.model = run.model

    async def observe(self, name, args, **more):
        seen = await self._run.observe(name, args, **more)
        return seen if seen.ok else replace(seen, for_model=f"{seen.for_model} Please try again.")


async def _sloppy(job, gate):
    """Invite the model to repeat what was refused, and charge nothing for its turns."""
    result: RunResult = await loop.guarded(job, _Inviting(gate))
    return replace(result, cost_usd=0.0)


async def _falls(job, gate):
    """Raise in the first scenario, and end the whole process in the second."""
    if gate.settings.tools.deny:
        os._exit(0)
    raise RuntimeError("the adapter does not know what to do")


async def _harmless(job):
    await asyncio.sleep(0)
    return "I did nothing."


LOOP = loop.COLUMN
OWN_KEYS = replace(LOOP, name="own_keys", guarded=_own_keys)
LEAKS = replace(LOOP, name="leaks", guarded=_past_the_gate)
SWALLOWS = replace(LOOP, name="swallows", guarded=_swallows)
SLOPPY = replace(LOOP, name="sloppy", guarded=_sloppy)
FALLS = replace(LOOP, name="falls", guarded=_falls)
BLIND = replace(LOOP, name="blind", bare=_harmless, cannot={"denied_tool": "it has no hook before a tool is called"})
ABSENT = replace(LOOP, name="absent", distribution="a-package-that-is-not-installed")
