"""Load on a gate: many runs at once, or so many a second, with tools that take the time that real ones take.

One process, one event loop, one store, as a worker of yours has them. Bounded in runs and in seconds; when it is over,
or stopped by hand, runs under way are cut off, the store is closed, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from interlock.chaos.child import find_subject
from interlock.chaos.faults import Fault
from interlock.chaos.latencies import Latencies, LogNormal, none
from interlock.chaos.load_agent import MODEL, PRICE, LoadAgent
from interlock.chaos.load_meter import LoadMeter, MeteredClock, Taken, chance_of
from interlock.chaos.load_report import Level, LoadReport, saturation
from interlock.chaos.suite import Suite, Task
from interlock.config.gate import Interlock
from interlock.config.opening import stored_bytes
from interlock.config.sections import Settings
from interlock.config.settings import load_settings
from interlock.config.trial import standing_in
from interlock.core.clock import SYSTEM, Clock

__all__ = ["LoadOptions", "load_test"]

TOOL_DEFAULT = LogNormal(0.12, 1.5)
SAMPLE_S = 0.1
# A run that is being cut off settles what it has under way.
GRACE_S = 5.0
MOST_LEVELS = 20
PAGE_BYTES = resource.getpagesize()

Told = Callable[[Level, float], None]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What load; each level is over after `runs` runs or `seconds`, whichever comes first.

    Attributes:
        concurrency: Runs at once, one after the other (closed loop). rate_per_s: arrivals a second instead, at random.
        most_at_once: Arrivals that find so many runs under way are not begun, and counted.
        ramp: Levels of 1, 2, 4, … up to `concurrency` (or of `rate_per_s` / 2^n), until one brings hardly more.
        calls, writes: Calls of a run of the test's own agent, and share of them that write.
        tools, model: How long they take; None: log-normal of 120 ms and 1.5 s, and none.
        faults: Of tools and of the store. seed: of all chance.
        agent, gate: `module:name` of your own instead; task: what it is given. config, profile: configuration of the
            test's own agent.
        store: URL; None: a new SQLite file that is deleted at the end.
    """

    runs: int = 1_000
    seconds: float = 30.0
    concurrency: int = 50
    rate_per_s: float | None = None
    most_at_once: int = 10_000
    ramp: bool = False
    calls: int = 8
    writes: float = 0.25
    tools: Latencies | None = None
    model: Latencies | None = None
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    agent: str | None = None
    gate: str | None = None
    task: str | None = None
    config: Path | None = None
    profile: str | None = None
    store: str | None = None

    def levels(self) -> Iterator[Level]:
        """Yield the levels of the ramp, or the only one."""
        if not self.ramp:
            yield Level(None if self.rate_per_s is not None else self.concurrency, self.rate_per_s)
            return
        if self.rate_per_s is not None:
            steps = min(MOST_LEVELS, max(1, math.ceil(math.log2(max(1.0, self.rate_per_s)))))
            yield from (Level(None, self.rate_per_s / 2**step) for step in range(steps, -1, -1))
            return
        at_once = 1
        while at_once < self.concurrency:
            yield Level(at_once, None)
            at_once *= 2
        yield Level(self.concurrency, None)

    def as_json(self) -> dict[str, Any]:
        """Return what was asked for."""
        tools = self.tools or (none() if self.agent else TOOL_DEFAULT)
        return {
            "runs": self.runs,
            "seconds": self.seconds,
            "loop": "open" if self.rate_per_s is not None else "closed",
            "agent": self.agent or "built in",
            "calls_per_run": None if self.agent else self.calls,
            "writes": None if self.agent else self.writes,
            "tools": tools.as_json(),
            "model": (self.model or none()).as_json(),
            "faults": [fault.label for fault in self.faults],
            "seed": self.seed,
        }


async def load_test(options: LoadOptions, told: Told, over: asyncio.Event, clock: Clock = SYSTEM) -> LoadReport:
    """Put the load on, and return what was found.

    Args:
        told: Called now and then with the level under way and its seconds so far.
        over: Set from outside to end it early. clock: time.

    Raises:
        ConfigError: Agent, gate, configuration or fault cannot be used. StoreUnavailable: the store cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        url = options.store
        if url is None:
            url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='interlock-load-'))}/load.db"
        test = _Test(options, url, told, over, clock)
        return await test.run()


@dataclass(eq=False)
class _Test:
    options: LoadOptions
    url: str
    told: Told
    over: asyncio.Event
    clock: Clock
    numbers: int = field(default=0)

    def __post_init__(self) -> None:
        options = self.options
        tools = options.tools or (none() if options.agent else TOOL_DEFAULT)
        self.meter = LoadMeter(options.faults, tools, options.seed, self.clock)
        self.own: LoadAgent | None = None
        # A store that was used before must not answer from what it knows.
        self.name = SYSTEM.token(4)
        self.agent, self.known = self._subject()
        self.gate = self.known.on_trial(
            self.meter.trial(), settings=_quiet(self.known.settings), store=self.url, clock=MeteredClock(self.clock)
        )

    def _subject(self) -> tuple[Callable[..., Any], Interlock]:
        options = self.options
        if options.agent is not None:
            sys.path[:0] = [str(Path.cwd())]
            found = find_subject(options.agent, options.gate, Suite((Task("load", "any"),)))
            return found.agent, found.gate
        config: Any = options.config if options.config is not None else {}
        settings = load_settings(config, profile=options.profile)
        prices = {**settings.prices, **load_settings({"prices": {MODEL: PRICE}}).prices}
        self.own = LoadAgent(replace(settings, prices=prices), options.calls, options.writes, self._think)
        return self.own.agent, self.own.gate

    async def _think(self, run: int, turn: int) -> None:
        if self.options.model is not None:
            await self.clock.sleep(self.options.model.draw("", chance_of(self.options.seed, "model", run, turn)))

    async def run(self) -> LoadReport:
        report = LoadReport(self.options.as_json(), store=self.url.partition(":")[0])
        try:
            self.gate.house()  # a store that cannot be used must not be found out under load
            report.store_bytes_before = await stored_bytes(self.url)
            report.rss_bytes_before = rss_bytes()
            for level in self.options.levels():
                report.levels.append(level)
                await self._level(level)
                if self.over.is_set() or saturation(report.levels) is not None:
                    break
            await self.gate.house().store.flush()
        finally:
            await self.gate.aclose()
        report.interrupted = self.over.is_set()
        report.store_bytes_after = await stored_bytes(self.url)
        report.rss_bytes_after = rss_bytes()
        if self.own is not None:
            effects, requests = len(self.own.tickets), sum(self.own.requests.values())
            report.writes = {"requests": requests, "effects": effects, "duplicates": self.own.duplicates}
        return report

    async def _level(self, level: Level) -> None:
        self.meter.taken = level.taken = Taken()
        began_s = self.clock.monotonic()
        last_s = began_s
        runs: set[asyncio.Task[None]] = set()

        def ended(run: asyncio.Task[None]) -> None:
            nonlocal last_s
            last_s = self.clock.monotonic()
            runs.discard(run)

        def begin() -> asyncio.Task[None]:
            self.numbers += 1
            level.begun += 1
            run = asyncio.create_task(self._one(self.numbers, level))
            runs.add(run)
            run.add_done_callback(ended)
            level.most_at_once = max(level.most_at_once, len(runs))
            return run

        watching = asyncio.create_task(self._watch(level, began_s))
        feeding = asyncio.create_task(
            self._arrive(level, runs, begin) if level.rate_per_s else self._circle(level, begin)
        )
        stopping = asyncio.create_task(self.over.wait())
        try:
            async with asyncio.timeout(self.options.seconds):
                await asyncio.wait({feeding, stopping}, return_when=asyncio.FIRST_COMPLETED)
                while runs and not self.over.is_set():
                    await asyncio.wait({*runs, stopping}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            level.elapsed_s = max(last_s - began_s, 1e-9) if not runs else self.clock.monotonic() - began_s
            level.cut = len(runs)
            helpers = (feeding, stopping, watching)
            for task in (*helpers, *runs):
                task.cancel()
            await asyncio.gather(*helpers, *runs, return_exceptions=True)
        if not feeding.cancelled() and (error := feeding.exception()) is not None:
            raise error

    async def _circle(self, level: Level, begin: Callable[[], asyncio.Task[None]]) -> None:
        """A closed loop: who has ended, begins again."""

        async def worker() -> None:
            while level.begun < self.options.runs:
                await asyncio.wait({begin()})

        assert level.concurrency is not None
        await asyncio.gather(*(worker() for _ in range(level.concurrency)))

    async def _arrive(self, level: Level, runs: set[asyncio.Task[None]], begin: Callable[[], Any]) -> None:
        """An open loop: arrivals come when they come."""
        assert level.rate_per_s is not None
        due_s = self.clock.monotonic()
        for n in range(self.options.runs):
            due_s += -math.log(1.0 - chance_of(self.options.seed, "arrival", n)) / level.rate_per_s
            early_s = due_s - self.clock.monotonic()
            await self.clock.sleep(max(0.0, early_s))
            level.lag_s.append(max(0.0, self.clock.monotonic() - due_s))
            if len(runs) < self.options.most_at_once:
                begin()
            else:
                level.shed += 1

    async def _one(self, number: int, level: Level) -> None:
        began_s = self.clock.monotonic()
        try:
            with self.meter.run(number), standing_in(self.known, self.gate):
                result = await self.gate.run(
                    self.agent,
                    number if self.own is not None else self.options.task,
                    tenant_id="load",
                    request_id=f"load-{self.name}-{number}",
                    agent_name="load",
                )
        except Exception as error:
            level.errors[type(error).__name__] += 1
            return
        level.reasons[result.reason.value] += 1
        level.run_s.append(self.clock.monotonic() - began_s)

    async def _watch(self, level: Level, began_s: float) -> None:
        self.told(level, 0.0)
        due_s = self.clock.monotonic()
        while True:
            due_s += SAMPLE_S
            await self.clock.sleep(max(0.0, due_s - self.clock.monotonic()))
            now_s = self.clock.monotonic()
            level.lag_s.append(max(0.0, now_s - due_s))
            due_s = max(due_s, now_s)
            level.rss_bytes = max(level.rss_bytes, rss_bytes())
            self.told(level, now_s - began_s)


def _quiet(settings: Settings) -> Settings:
    """Return the settings without files and lines of log: a load test is not to fill a disk."""
    quiet = replace(settings.logging, level="error", to="stderr")
    return replace(settings, logging=quiet, record=replace(settings.record, path=None), shutdown_grace_s=GRACE_S)


def rss_bytes() -> int:
    """Return the memory of this process; where the system does not say, the most that it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
