"""A write with two durable records, intent and result: the journal alone, through the whole gate, and beside others.

Closed loops: each caller waits for its write before it makes the next. All in one run, sampled in turn; DBOS runs in
a process of its own, and PostgreSQL in a server of its own with its default settings.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.dbos_steps import DbosSteps
from benchmarks.figures import TIMES, Figure
from benchmarks.gates import WRITE, write_gate
from benchmarks.journals import BareTable, GatheredTable, fdatasync_s
from benchmarks.kit import Bench, Watch
from benchmarks.work import arguments
from interlock.cli.worker import calm_the_collector
from interlock.core.clock import SYSTEM, timed_token
from interlock.core.errors import StoreUnavailable
from interlock.journal.store import ClaimState, Intent, NewRun, Settlement

__all__ = ["Durable", "Latencies", "journal", "measure", "postgres"]

RESULT = b'{"limit":10,"ok":true,"query":"status of order 17"}'
# Writes of one sample, by callers: about half a second each.
SAMPLE = {1: 300, 64: 6_400, 1_024: 10_240}
WRITES_A_RUN = 25
DBOS_STEPS = 5
FIRST_TRIES = 5

Write = Callable[[int], Awaitable[None]]


class Latencies:
    """Seconds a write, and how many writes a second: one entry a sample, by case."""

    def __init__(self) -> None:
        self.p50_s: dict[str, list[float]] = {}
        self.p99_s: dict[str, list[float]] = {}
        self.most_s: dict[str, list[float]] = {}

    def add(self, name: str, took_s: list[float]) -> None:
        """Take in one sample."""
        took_s.sort()
        last = len(took_s) - 1
        for found, at in ((self.p50_s, last // 2), (self.p99_s, int(last * 0.99)), (self.most_s, last)):
            found.setdefault(name, []).append(took_s[at])

    def p50(self, name: str) -> float:
        """Return the median over the rounds, seconds."""
        return statistics.median(self.p50_s[name])

    def p99(self, name: str) -> float:
        """Return the median over the rounds, seconds."""
        return statistics.median(self.p99_s[name])

    def unfair(self, name: str) -> float:
        """Return how much longer than the median the slowest write took; the median over the rounds."""
        return statistics.median(most / p50 for most, p50 in zip(self.most_s[name], self.p50_s[name], strict=True))


async def crowd(callers: int, writes: int, write: Callable[[int, int], Awaitable[None]], watch: Watch) -> list[float]:
    """Let `callers` make `writes` in all; return how long each took."""
    took: list[float] = []

    async def caller(number: int) -> None:
        now = time.perf_counter
        for i in range(writes // callers):
            begun = now()
            await write(number, i)
            took.append(now() - begun)

    watch.start()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    watch.stop(len(took))
    return took


async def journal(store: Any, callers: int, writes: int) -> Callable[[int, int], Awaitable[None]]:
    """Return a write on a store alone: claim and settle; each caller has runs of 25 writes for `writes` of them."""
    names = [f"run_{timed_token(SYSTEM)}" for _ in range(callers * (writes // WRITES_A_RUN + 1))]
    begun = await asyncio.gather(
        *(store.begin(NewRun(run_id, "acme", run_id, "agent", "h", run_id)) for run_id in names)
    )

    async def write(caller: int, number: int) -> None:
        run = begun[number // WRITES_A_RUN * callers + caller].row
        key = run.request_time_ms.to_bytes(8, "big") + os.urandom(16)
        intent = Intent(
            key, "acme", run.request_id, run.run_id, "", "agent", WRITE, key[8:], 1, "resend", key.hex(), 1, 1, number
        )
        if await store.claim(intent) is not None:
            raise RuntimeError("claimed before")
        await store.settle(key, Settlement(ClaimState.DONE, RESULT))

    return write


async def first_write(run: Any) -> None:
    """Read switches and make connections for one, before a thousand ask at the same moment; a busy machine may be late."""
    for attempt in range(FIRST_TRIES):
        try:
            await run.call(WRITE, arguments(-1 - attempt))
        except StoreUnavailable:
            if attempt + 1 == FIRST_TRIES:
                raise
        else:
            return


@contextmanager
def as_a_worker() -> Iterator[None]:
    """Set the garbage collector as `interlock worker` does, for a while."""
    before = gc.get_threshold()
    calm_the_collector()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Durable:
    """The cases.

    Args:
        directory: Where stores and logs go.
        server: A PostgreSQL server to make stores on; None: its cases are left out.
    """

    def __init__(self, directory: Path, rounds: int, server: Any | None) -> None:
        self.bench = Bench(rounds)
        self.latencies = Latencies()
        self.fdatasync_s: list[float] = []
        self._directory = directory
        self._server = server
        self._serial = itertools.count()
        self._things: list[Any] = []

    async def run(self) -> None:
        """Measure."""
        with ExitStack() as others:
            self._beside(others)
            for name in ("SQLite", "PostgreSQL") if self._server is not None else ("SQLite",):
                for callers in SAMPLE:
                    self._journal(f"{name}, journal @{callers}", name, callers)
                for callers in SAMPLE:
                    self._gate(f"{name}, gate @{callers}", name, callers)
                    if callers > 1:
                        self._gate(f"{name}, gate, worker @{callers}", name, callers, around=as_a_worker)
                self._gate(f"{name}, gate, resumable @64", name, 64, keyed=True)
            await self.bench.run()
        for thing in self._things:
            close = thing.aclose() if hasattr(thing, "aclose") else thing.close()
            if close is not None:
                await close

    def _beside(self, others: ExitStack) -> None:
        """Add what is compared with."""

        async def disk(_: int, watch: Watch) -> None:
            watch.start()
            took = fdatasync_s(self._directory, 200)
            watch.stop(len(took))
            self.fdatasync_s.append(statistics.median(took))

        self.bench.add("fdatasync", disk, n=1)
        self._table("bare table @1", BareTable, 1)
        for callers in SAMPLE:
            self._table(f"gathered table @{callers}", GatheredTable, callers)
        urls = {"DBOS, SQLite @64": f"sqlite:///{self._directory}/dbos.sqlite"}
        if self._server is not None:
            self._server.execute("create database dbos")
            urls["DBOS, PostgreSQL @64"] = f"postgresql+psycopg://postgres@/dbos?host={self._server.folder}"
        for name, url in urls.items():
            self._dbos(name, others.enter_context(DbosSteps(url)))

    def _case(self, name: str, callers: int, opened: Callable[[], Awaitable[Callable[..., Awaitable[None]]]]) -> None:
        async def sample(_: int, watch: Watch) -> None:
            write = await opened()
            took = await crowd(callers, SAMPLE[callers], write, watch)
            self.latencies.add(name, took)

        self.bench.add(name, sample, n=1)

    def _table(self, name: str, kind: type[BareTable | GatheredTable], callers: int) -> None:
        table = kind(self._directory / f"table{next(self._serial)}.db")
        self._things.append(table)

        async def opened() -> Callable[..., Awaitable[None]]:
            # As ours: a key begins with the time of its run.
            prefixes = [(time.time_ns() + caller).to_bytes(8, "big") for caller in range(callers)]

            async def write(caller: int, _: int) -> None:
                await table.write(prefixes[caller] + os.urandom(16), RESULT)

            return write

        self._case(name, callers, opened)

    def _journal(self, name: str, kind: str, callers: int) -> None:
        store: list[Any] = []

        async def opened() -> Callable[..., Awaitable[None]]:
            if not store:
                store.append(self._store(kind))
            return await journal(store[0], callers, SAMPLE[callers] // callers)

        self._case(name, callers, opened)

    def _gate(
        self,
        name: str,
        kind: str,
        callers: int,
        *,
        keyed: bool = False,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        gate = write_gate(self._directory, f"gate{next(self._serial)}", self._url(kind))
        self._things.append(gate)

        async def sample(_: int, watch: Watch) -> None:
            async with AsyncExitStack() as stack:
                runs = []
                for _caller in range(callers):
                    request_id = f"request {next(self._serial)}" if keyed else None
                    opening = gate.open_run("benchmark", tenant_id="acme", request_id=request_id)
                    runs.append(await stack.enter_async_context(opening))

                async def write(caller: int, number: int) -> None:
                    await runs[caller].call(WRITE, arguments(number))

                await first_write(runs[0])
                with around():
                    self.latencies.add(name, await crowd(callers, SAMPLE[callers], write, watch))

        self.bench.add(name, sample, n=1)

    def _dbos(self, name: str, dbos: DbosSteps) -> None:
        async def sample(_: int, watch: Watch) -> None:
            done = await asyncio.to_thread(dbos.run, 64, DBOS_STEPS)
            watch.wall_s, watch.cpu_s, watch.calls = done.wall_s, done.cpu_s, done.count

        self.bench.add(name, sample, n=1)

    def _url(self, kind: str) -> str:
        if kind == "SQLite":
            return f"sqlite:///{self._directory}/store{next(self._serial)}.db"
        assert self._server is not None
        return str(self._server.url(f"bench_{next(self._serial)}"))

    def _store(self, kind: str) -> Any:
        from interlock.stores.postgres import PostgresStore
        from interlock.stores.sqlite import SqliteStore

        store = (SqliteStore if kind == "SQLite" else PostgresStore)(self._url(kind), environ=os.environ)
        self._things.append(store)
        return store

    # -- reading

    def rate(self, name: str) -> float:
        """Return writes a second; the median over the rounds."""
        return 1e6 / statistics.median(self.bench.cases[name].wall_us)

    def times(self, name: str, than: str) -> float:
        """Return how many times as many a second as another case makes; the median over the rounds."""
        pairs = zip(self.bench.cases[name].wall_us, self.bench.cases[than].wall_us, strict=True)
        return statistics.median(other / ours for ours, other in pairs)


def figures(found: Durable) -> list[Figure]:
    """Return what the cases say."""
    lone = statistics.median(
        p50 / disk for p50, disk in zip(found.latencies.p50_s["SQLite, gate @1"], found.fdatasync_s, strict=True)
    )
    disk_ms = statistics.median(found.fdatasync_s) * 1e3
    lines = []
    for store in ("SQLite", "PostgreSQL"):
        if f"{store}, gate @64" not in found.bench.cases:
            continue
        lines += _of_store(found, store)
    alone = _ms(found.latencies.p50("SQLite, journal @1"))
    lines.append(
        Figure(
            "A write alone, through the gate, on SQLite: median, over a bare write with fdatasync",
            lone,
            TIMES,
            5,
            beside=f"{_ms(found.latencies.p50('SQLite, gate @1'))}, journal alone {alone}, "
            f"fdatasync {disk_ms:.2f} ms, bare table {_ms(found.latencies.p50('bare table @1'))}",
        )
    )
    return lines


def _of_store(found: Durable, store: str) -> list[Figure]:
    bench, latencies = found.bench, found.latencies
    gate, journal_, dbos = f"{store}, gate", f"{store}, journal", f"DBOS, {store} @64"
    gathered = f"; a table behind a thread {bench.cpu('gathered table @64'):.0f} µs" if store == "SQLite" else ""
    return [
        Figure(
            f"A write through the gate on {store}, 64 runs at once: CPU",
            bench.cpu(f"{gate} @64"),
            "µs",
            80,
            beside=f"journal alone {bench.cpu(f'{journal_} @64'):.0f} µs; in a run that can be resumed "
            f"{bench.cpu(f'{gate}, resumable @64'):.0f} µs{gathered}; a step of DBOS {bench.cpu(dbos):,.0f} µs",
        ),
        *(
            Figure(
                f"{what} on {store}, {callers:,} at once",
                found.rate(f"{case} @{callers}"),
                "/s",
                goal,
                at_most=False,
                beside=_spread(latencies, f"{case} @{callers}"),
            )
            for what, case, callers, goal in (
                ("Writes, journal alone,", journal_, 64, 9_000),
                ("Writes through the gate", gate, 64, 9_000),
                ("The same as `interlock worker` sets the collector,", f"{gate}, worker", 64, 9_000),
                ("Writes, journal alone,", journal_, 1_024, 14_000),
                ("Writes through the gate", gate, 1_024, 14_000),
                ("The same as `interlock worker` sets the collector,", f"{gate}, worker", 1_024, 14_000),
            )
        ),
        Figure(
            f"Writes through the gate on {store}, over steps of DBOS, 64 at once",
            found.times(f"{gate} @64", dbos),
            TIMES,
            20,
            at_most=False,
            beside=f"{found.rate(dbos):,.0f} steps/s, one record each",
        ),
    ]


def _spread(latencies: Latencies, name: str) -> str:
    return (
        f"p50 {_ms(latencies.p50(name))}, p99 {_ms(latencies.p99(name))}, "
        f"slowest {latencies.unfair(name):.1f} {TIMES} the median"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"


def postgres() -> Any | None:
    """Return a PostgreSQL server of our own, or None where its binaries are not installed."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "stores"))
    try:
        from pg_server import Server

        return Server()
    except (ImportError, AttributeError, FileNotFoundError) as error:
        print(f"PostgreSQL is left out: {error}", file=sys.stderr)
        return None


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures of this part, and every case behind them."""
    # PostgreSQL keeps results only under a key that its workers share.
    os.environ.setdefault("INTERLOCK_KEY", os.urandom(32).hex())
    server = postgres()
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory:
        found = Durable(Path(directory), rounds, server)
        await found.run()
    if server is not None:
        server.remove()
    waits = {
        name: {
            "p50_ms": round(found.latencies.p50(name) * 1e3, 3),
            "p99_ms": round(found.latencies.p99(name) * 1e3, 3),
            "slowest_over_p50": round(found.latencies.unfair(name), 2),
        }
        for name in found.latencies.p50_s
    }
    return figures(found), {name: case | waits.get(name, {}) for name, case in found.bench.spread().items()}
