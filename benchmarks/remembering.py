"""What memory costs: a recall among many facts of many tenants on both stores, and beside other stores of memory.

`python -m benchmarks memory` fills 200,000 facts of 100 tenants; INTERLOCK_BENCH_FACTS and INTERLOCK_BENCH_TENANTS
say otherwise (a million facts of a thousand tenants is the big run), INTERLOCK_BENCH_STORES leaves stores out. Facts
are a dozen words of a vocabulary in which a few are common, as in speech; a question is three such words. A tenant
shares a fifth of its facts, the rest belongs to ten users. Each recall is of another tenant and user.

LangGraph's SqliteStore and mem0's local store are measured where they are installed, with telemetry off and with the
vectors of a table, since no model comes with them: what a model takes comes on top.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import interlock
from benchmarks.durable import postgres
from benchmarks.figures import Figure
from benchmarks.rivals_of_memory import rivals
from interlock.core.clock import SYSTEM
from interlock.core.errors import StoreUnavailable
from interlock.memory.fact import NewFact
from interlock.memory.recall import words_of
from interlock.memory.scope import Scope
from interlock.memory.store import MemoryStore, Search

__all__ = ["FACTS", "TENANTS", "fill", "measure", "questions"]

FACTS = int(os.environ.get("INTERLOCK_BENCH_FACTS", "200000"))
TENANTS = int(os.environ.get("INTERLOCK_BENCH_TENANTS", "100"))
STORES = os.environ.get("INTERLOCK_BENCH_STORES", "sqlite postgres others").split()
USERS = 10
VOCABULARY = 5_000
BATCH = 500
ASKED = 300
LIFE_S = 30 * 86_400.0


class Speech:
    """Texts of a vocabulary whose n-th word is n times as rare as its first."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "bcdfghklmnprstv"
        made = random.Random(7)
        self._words = sorted(
            {
                "".join(made.choice(letters) + made.choice("aeiou") for _ in range(made.randint(2, 4)))
                for _ in range(VOCABULARY)
            }
        )
        self._weights = [1.0 / (n + 1) for n in range(len(self._words))]

    def text(self, words: int) -> str:
        return " ".join(self._random.choices(self._words, self._weights, k=words))

    def scope(self, tenants: int) -> Scope:
        tenant = f"tenant-{self._random.randrange(tenants)}"
        shared = self._random.random() < 0.2
        return Scope(tenant) if shared else Scope(tenant, f"user-{self._random.randrange(USERS)}")


async def fill(memory: MemoryStore, facts: int, tenants: int) -> None:
    """Write facts, a batch a commit."""
    speech, now_s = Speech(1), SYSTEM.wall()
    for n in range(facts):
        new = NewFact(fact_id=f"mem_{n:032x}", text=speech.text(12), created_at=now_s, expires_at=now_s + LIFE_S)
        memory.remember_soon(speech.scope(tenants), new)
        if n % BATCH == BATCH - 1:
            await _written(memory)
    await _written(memory)


async def _written(memory: MemoryStore) -> None:
    """Wait until all is written that was queued: a read sees it. On a busy disk that takes its time."""
    while True:
        try:
            await memory.get(Scope("tenant-0"), "mem_0", SYSTEM.wall())
        except StoreUnavailable:
            continue
        return


def questions(tenants: int, asked: int = ASKED) -> Iterator[tuple[Scope, str]]:
    """Yield whose memory is asked what."""
    speech, chance = Speech(2), random.Random(3)
    for _ in range(asked):
        yield Scope(f"tenant-{chance.randrange(tenants)}", f"user-{chance.randrange(USERS)}"), speech.text(3)


class Stopwatch:
    """Milliseconds of each question, and CPU (all threads of this process) of all of them."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.cpu_ms: list[float] = []

    async def time(self, work: Awaitable[Any]) -> None:
        begun, cpu = time.perf_counter(), time.process_time()
        await work
        self.ms.append((time.perf_counter() - begun) * 1e3)
        self.cpu_ms.append((time.process_time() - cpu) * 1e3)

    def found(self) -> dict[str, list[float]]:
        """Return both; the first tenth was for caches."""
        return {"ms": self.ms[ASKED // 10 :], "cpu_ms": self.cpu_ms[ASKED // 10 :]}


async def through_the_store(memory: MemoryStore, tenants: int) -> dict[str, list[float]]:
    """Ask the store alone."""
    watch = Stopwatch()
    for scope, question in questions(tenants):
        await watch.time(memory.search(scope, Search(words=words_of(question), limit=16), SYSTEM.wall()))
    return watch.found()


async def through_runs(gate: interlock.Interlock, tenants: int) -> dict[str, list[float]]:
    """Ask as agents do: the store, the budget, the framing, the label, the record."""
    watch = Stopwatch()
    by_tenant: dict[str, list[tuple[Scope, str]]] = {}
    for scope, question in questions(tenants):
        by_tenant.setdefault(scope.tenant, []).append((scope, question))

    async def agent(run: interlock.Run, asked: Any) -> None:
        for scope, question in by_tenant[run.tenant_id]:
            await watch.time(run.memory.recall(question, scope=scope, k=8))

    for tenant in by_tenant:
        result = await gate.run(agent, "t", tenant_id=tenant)
        assert result.ok, result
    return watch.found()


async def of_store(url: str, facts: int, tenants: int) -> dict[str, Any]:
    """Fill a store, and ask it in both ways."""
    gate = interlock.Interlock({"logging": {"level": "error"}}, store=url)
    try:
        memory = gate.house().store.memory
        begun = time.perf_counter()
        await fill(memory, facts, tenants)
        seconds = time.perf_counter() - begun
        await through_the_store(memory, tenants)  # the first time is for caches and statistics
        alone = await through_the_store(memory, tenants)
        return {"store": alone, "run": await through_runs(gate, tenants), "filled_s": seconds}
    finally:
        await gate.aclose()


def ninety_five(ms: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(ms, n=20)[-1]


def figures_of(name: str, found: dict[str, Any], goal: float, facts: int, tenants: int) -> list[Figure]:
    """Return the lines of one store."""
    run, alone = found["run"], found["store"]
    what = f"`run.memory.recall` on {name}, p50, {facts:,} facts of {tenants:,} tenants"
    beside = (
        f"p95 {ninety_five(run['ms']):.2f} ms; CPU of this process p50 {statistics.median(run['cpu_ms']):.2f} ms; the "
        f"store's search alone p50 {statistics.median(alone['ms']):.2f} ms; filled in {found['filled_s']:.0f} s"
    )
    return [Figure(what, statistics.median(run["ms"]), "ms", goal, beside=beside)]


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Measure both stores, and what is installed of others; `rounds` does not matter here."""
    # PostgreSQL keeps facts for workers of many machines, which share a key.
    os.environ.setdefault("INTERLOCK_KEY", "5e" * 32)
    figures: list[Figure] = []
    samples: dict[str, Any] = {}
    if "sqlite" in STORES:
        with tempfile.TemporaryDirectory() as directory:
            samples["sqlite"] = await of_store(f"sqlite:///{Path(directory) / 'interlock.db'}", FACTS, TENANTS)
        figures += figures_of("SQLite", samples["sqlite"], 1, FACTS, TENANTS)
    server = postgres() if "postgres" in STORES else None
    if server is not None:
        try:
            samples["postgres"] = await of_store(server.new_url(), FACTS, TENANTS)
            figures += figures_of("PostgreSQL", samples["postgres"], 5, FACTS, TENANTS)
        finally:
            await asyncio.to_thread(server.remove)
    for name, ms, facts, note in rivals(FACTS, TENANTS) if "others" in STORES else ():
        samples[name] = ms
        beside = f"p95 {ninety_five(ms):.2f} ms; {note}"
        what = f"{name}: a search, p50, {facts:,} facts of {TENANTS:,} tenants"
        figures.append(Figure(what, statistics.median(ms), "ms", None, beside=beside))
    return figures, samples
