"""A guarded read: what Interlock adds to a call, beside the bare call, the floor and the stack of libraries.

All in one process and one run, sampled in turn. What a figure includes is said where it is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import interlock
from benchmarks.floor import Floor
from benchmarks.floor import Run as FloorRun
from benchmarks.gates import Agent, make_gate, many_globs, read_run, yielding_run
from benchmarks.kit import Bench, Watch
from benchmarks.stack_of_libraries import Run as StackRun
from benchmarks.stack_of_libraries import StackOfLibraries
from benchmarks.work import ALLOW, TOOL, arguments, search, search_later
from interlock.policy.globs import GlobSet

__all__ = ["GuardedRead"]

CALLS_A_RUN = 25
CONCURRENT = 1_000
EARLY_RUNS, EARLY_SKIP, EARLY_CALLS = 200, 15, 20
LATE_SKIP = 8_000
GLOBS = 10_000

Sample = Callable[[int, Watch], Awaitable[None]]


def calls(make_run: Callable[[], Any], call: Callable[[Any, dict[str, Any]], Awaitable[Any]]) -> Sample:
    """Return a case: n calls of one fresh run."""

    async def sample(n: int, watch: Watch) -> None:
        run = make_run()
        watch.start()
        for i in range(n):
            await call(run, arguments(i))
        watch.stop(n)

    return sample


def guarded(gate: interlock.Interlock) -> Sample:
    """Return a case: n guarded reads of one fresh run; opening and closing the run are not counted."""

    async def sample(n: int, watch: Watch) -> None:
        async with gate.open_run("benchmark", tenant_id="acme") as run:
            call = run.call
            watch.start()
            for i in range(n):
                await call(TOOL, arguments(i))
            watch.stop(n)

    return sample


def early(gate: interlock.Interlock) -> Sample:
    """Return a case: calls 15 to 35 of many short runs."""

    async def sample(_: int, watch: Watch) -> None:
        watch.clock = time.thread_time  # the ends of runs are written in the background, and are not the question
        for _run in range(EARLY_RUNS):
            async with gate.open_run("benchmark", tenant_id="acme") as run:
                for i in range(EARLY_SKIP):
                    await run.call(TOOL, arguments(i))
                watch.start()
                for i in range(EARLY_SKIP, EARLY_SKIP + EARLY_CALLS):
                    await run.call(TOOL, arguments(i))
                watch.lap(EARLY_CALLS)

    return sample


def late(gate: interlock.Interlock) -> Sample:
    """Return a case: as many calls of one run, around the ten thousandth, timed in stretches of the same length."""

    async def sample(_: int, watch: Watch) -> None:
        watch.clock = time.thread_time
        async with gate.open_run("benchmark", tenant_id="acme") as run:
            for i in range(LATE_SKIP):
                await run.call(TOOL, arguments(i))
            for j in range(EARLY_RUNS):
                first = LATE_SKIP + j * EARLY_CALLS
                watch.start()
                for i in range(first, first + EARLY_CALLS):
                    await run.call(TOOL, arguments(i))
                watch.lap(EARLY_CALLS)

    return sample


def runs(gate: interlock.Interlock, agent: Agent, count: int, *, at_once: bool) -> Sample:
    """Return a case: whole runs of 25 reads, one after the other or all at once; start and end are counted."""

    async def sample(_: int, watch: Watch) -> None:
        watch.start()
        if at_once:
            results = await asyncio.gather(*(gate.run(agent, i, tenant_id="acme") for i in range(count)))
        else:
            results = [await gate.run(agent, i, tenant_id="acme") for i in range(count)]
        watch.stop(count * CALLS_A_RUN)
        assert all(result.ok and result.tool_calls == CALLS_A_RUN for result in results)

    return sample


def decisions(count: int) -> Sample:
    """Return a case: decisions on names that have not been seen before, the dearest kind."""
    globs = GlobSet(many_globs(count))
    serial = iter(range(10**9))

    async def sample(n: int, watch: Watch) -> None:
        names = [f"orders.read{next(serial)}" for _ in range(n)]
        match = globs.match
        watch.start()
        for name in names:
            match(name)
        watch.stop(n)

    return sample


class GuardedRead:
    """The cases and what is read from them.

    Args:
        directory: Where stores and logs go.
    """

    def __init__(self, directory: Path, rounds: int) -> None:
        self.bench = Bench(rounds)
        self._directory = directory
        self._gates: list[interlock.Interlock] = []

    def _gate(self, name: str, fn: Callable[..., Awaitable[Any]] = search, **options: Any) -> interlock.Interlock:
        gate = make_gate(self._directory, name, fn, **options)
        self._gates.append(gate)
        return gate

    async def run(self) -> None:
        """Measure."""
        bench, directory = self.bench, self._directory
        with (
            (directory / "floor.out").open("wb", buffering=1 << 16) as floor_log,
            (directory / "stack.out").open("wb") as stack_log,
        ):
            bench.add("bare", calls(lambda: None, lambda _, args: search(**args)))
            bench.add("floor", calls(lambda: FloorRun("run_abc123"), Floor(search, floor_log).call))
            for name, options in {
                "stack": {},
                "stack, pybreaker": {"breaker": "pybreaker"},
                "stack without spans": {"spans": False},
            }.items():
                stack = await StackOfLibraries(search, stack_log, **options).open()
                bench.add(name, calls(StackRun, stack.call))
            bench.add("interlock", guarded(self._gate("read")))
            bench.add("interlock, trace persisted", guarded(self._gate("persisted", persist=True)))
            bench.add("interlock, 10 globs", guarded(self._gate("globs10", allow=(*ALLOW, "x.*", "y.*"))))
            bench.add("interlock, 10,000 globs", guarded(self._gate("globs10000", allow=many_globs(GLOBS))))
            bench.add("bare, tool waits", calls(lambda: None, lambda _, args: search_later(**args)))
            bench.add("interlock, tool waits", guarded(self._gate("waits", search_later)))
            bench.add("decision, 10 globs", decisions(10))
            bench.add("decision, 10,000 globs", decisions(GLOBS))
            # No lines: what the line of an early call costs would be charged to a late one.
            position = self._gate("position", level="warning")
            bench.add("interlock, step 25", early(position), n=1)
            bench.add("interlock, step 10,000", late(position), n=1)
            whole = self._gate("whole")
            bench.add("runs of 25 reads", runs(whole, read_run, 200, at_once=False), n=1)
            bench.add("1,000 runs at once", runs(whole, yielding_run, CONCURRENT, at_once=True), n=1)
            await bench.run()
        for gate in self._gates:
            await gate.aclose()
