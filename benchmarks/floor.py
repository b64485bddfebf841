"""The floor: the same guards, straight-line, from the cheapest blocks this interpreter has.

A yardstick, not a product: no configuration, no error texts, no extension points, one tool. It decides what
Interlock decides for a read: kill switch, loop by arguments and output, policy, budgets, argument schema,
circuit, retry, one deadline per attempt, output schema and size, trace, counters, log line.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import types
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, BinaryIO

import orjson
from pydantic import TypeAdapter

from benchmarks.work import TOOL, Arguments, Found

__all__ = ["Floor"]

EDGES = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SORTED = orjson.OPT_SORT_KEYS
LINE = orjson.OPT_APPEND_NEWLINE
MANY = 1_000_000

now = time.monotonic


class Refused(Exception):
    """Some guard said no."""


class Run:
    """What the guards keep of one run."""

    __slots__ = ("calls", "deadline", "id", "same", "seen", "trace", "usd")

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.calls = 0
        self.usd = 0.0
        self.deadline = now() + 3600
        self.seen: dict[bytes, bytes] = {}
        self.same = 0
        self.trace: deque[tuple[Any, ...]] = deque(maxlen=2_000)


@types.coroutine
def within(attempt: Coroutine[Any, Any, Any], timeout_s: float) -> Generator[Any, Any, Any]:
    """Await `attempt`; arm a timer only once it waits for something."""
    try:
        waits_for = attempt.send(None)
    except StopIteration as answered:
        return answered.value
    return (yield from bounded(attempt, waits_for, timeout_s).__await__())


async def bounded(attempt: Coroutine[Any, Any, Any], waits_for: Any, timeout_s: float) -> Any:
    async with asyncio.timeout(timeout_s):
        return await resumed(attempt, waits_for)


@types.coroutine
def resumed(attempt: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    while True:
        try:
            yield waits_for
            waits_for = attempt.send(None)
        except StopIteration as answered:
            return answered.value


class Floor:
    """One guarded tool."""

    def __init__(self, fn: Callable[..., Awaitable[Any]], log: BinaryIO) -> None:
        self.fn = fn
        self.log = log
        self.allowed = {TOOL: True}
        self.killed: dict[str, str] = {}
        self.valid_in = TypeAdapter(Arguments).validator.validate_python
        self.valid_out = TypeAdapter(Found).validator.validate_python
        self.open_until = 0.0
        self.failures = 0
        self.outcomes: dict[str, int] = {}
        self.buckets = [0] * (len(EDGES) + 1)
        self.total_s = 0.0

    async def call(self, run: Run, args: dict[str, Any]) -> Any:
        begun = now()
        digest = hashlib.blake2b(orjson.dumps(args, option=SORTED), digest_size=16).digest()
        if self.killed:
            raise Refused("killed")
        before = run.seen.get(digest)
        if self.allowed.get(TOOL) is not True:
            raise Refused("denied")
        if run.calls >= MANY or run.usd > MANY or begun > run.deadline:
            raise Refused("budget")
        run.calls += 1
        self.valid_in(args)
        if self.open_until > begun:
            raise Refused("circuit")
        for attempt in range(2):
            try:
                out = await within(self.fn(**args), min(10.0, run.deadline - begun))
                break
            except (TimeoutError, ConnectionError):
                self.failures += 1
                if attempt:
                    raise
        self.valid_out(out)
        out_json = orjson.dumps(out, option=SORTED)
        if len(out_json) > MANY:
            raise Refused("too large")
        out_digest = hashlib.blake2b(out_json, digest_size=8).digest()
        run.same = run.same + 1 if before == out_digest else 0
        if run.same > MANY:
            raise Refused("loop")
        run.seen[digest] = out_digest
        duration = now() - begun
        at = time.time()
        run.trace.append((run.calls, TOOL, digest, at, duration, "success", 1))
        self.outcomes["success"] = self.outcomes.get("success", 0) + 1
        self.buckets[bisect_left(EDGES, duration)] += 1
        self.total_s += duration
        self.log.write(
            orjson.dumps(
                {
                    "ts": at,
                    "run_id": run.id,
                    "step": run.calls,
                    "tool": TOOL,
                    "args_hash": digest.hex(),
                    "status": "success",
                    "elapsed_s": duration,
                },
                option=LINE,
            )
        )
        return out
