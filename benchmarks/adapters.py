"""What a step of an agent costs more in each framework, when it runs under Interlock.

A step is one model turn and one read that does no work. The framework, its HTTP client and its agent are real; the
model is the scripted one of the conformance matrix, in a process of its own, so that its work is not counted. Each
framework is measured in a process of its own as well: in this interpreter, or in the one that the matrix has made.

What makes it fair:

- Bare, hooked and guarded runs take turns in one process, in an order that turns with each round. All of them are warm:
  imports, clients' certificates and the first runs are not counted, and garbage is collected between the runs.
- A run has 25 steps and an answer. The tool notes the CPU of all threads whenever it is called, so each run gives 24
  whole steps; the nth of a guarded run is compared with the nth of the bare run of the same round (a framework's step
  grows with the conversation), and the median of these differences is what a step costs more.
- To that is added the 25th part of what opening and closing a run cost more, until the store has its record.
- The gate has the embedded default, one SQLite file with `replay: on`. No request id is given, so nobody can ask for
  the run again and its turns are not recorded; beside it stands what a step costs more with one, when they are.
- Beside bare and guarded runs, and in the same rounds, stands the agent with hooks in the places where ours are, that
  do nothing (`empty_hooks/`): what the framework asks of any hook. The rest of what a guarded step costs more is ours.
- CPU is scaled by a calibration loop around each round. The number of functions that a step calls stands beside it,
  in all threads but a store's: no other load changes that.

The command line of the Claude Agent SDK is a process of its own, on both sides: its work is not counted, so its bare
step is the SDK's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import functools
import gc
import importlib
import itertools
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from conformance.column import Column, Job, Tool, Wire  # noqa: E402
from conformance.conversation import Seen, Turn, Use  # noqa: E402
from conformance.model import ModelServer  # noqa: E402
from conformance.places import Place, columns, find_place  # noqa: E402
from conformance.player import load_column  # noqa: E402

import interlock  # noqa: E402 - the path is set above
from benchmarks.figures import Figure  # noqa: E402
from benchmarks.kit import calibrate  # noqa: E402

__all__ = ["measure"]

STEPS = 25
ROUNDS = 5  # for each round that is asked for
MOST_S = 120.0  # of one framework, whatever is asked for
FEWEST = 5
STUCK_S = 900.0
MANY = 1_000_000
CAPS = {"max_steps": MANY, "max_tool_calls": MANY, "max_seconds": 86_400}
PRICE = {"input_usd_per_mtok": 0.01, "output_usd_per_mtok": 0.01}
MODELS = {Wire.ANTHROPIC: "claude-sonnet-5-5"}


class NotMeasured(Exception):
    """A guarded run did not end as it should, or its framework is not here."""


# When the tool was called, in CPU seconds of all threads.
_CALLED: list[float] = []


async def search_read(query: str) -> dict[str, Any]:
    """Search."""
    _CALLED.append(time.process_time())
    return {"query": query, "results": []}


PARAMETERS = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
TOOL = Tool("search_read", "Search.", search_read, PARAMETERS, "read")


def say(seen: Seen) -> Turn:
    """Be a model that searches for something else each turn, and then answers."""
    if seen.turn > STEPS:
        return Turn(text="Nothing.")
    return Turn((Use("search_read", {"query": f"question {seen.turn}"}),))


# -- the model, in a process of its own


async def _serve() -> None:
    server = ModelServer(lambda _: say, lambda _: False, lambda _: True)
    await server.start()
    print(server.url, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until whoever started us lets go
    await server.close()


class _Model:
    """The scripted model's process, for as long as a block lasts."""

    def __enter__(self) -> str:
        words = [sys.executable, "-m", "benchmarks.adapters", "--serve"]
        self._process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


# -- one framework, in its process


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, in CPU microseconds: each step from one call of the tool to the next, and all the rest of the run."""

    steps: tuple[float, ...]
    rest: float

    def scaled(self, by: float) -> Sample:
        """Return the same on a faster core."""
        return Sample(tuple(step * by for step in self.steps), self.rest * by)


@dataclass(slots=True)
class Side:
    """One way to run the agent: its runs, one a round."""

    run: Callable[[], Awaitable[Any]]
    samples: list[Sample] = field(default_factory=list)

    async def sample(self) -> None:
        """Run once."""
        _CALLED.clear()
        gc.collect()
        gc.disable()
        began = time.process_time()
        await self.run()
        took = (time.process_time() - began) * 1e6
        gc.enable()
        steps = tuple((b - a) * 1e6 for a, b in itertools.pairwise(_CALLED))
        self.samples.append(Sample(steps, took - sum(steps)))


class Counter:
    """Counts the functions that are called in this thread, and in those that begin while it is open and do its work.

    Threads of a store work when they come to it, and wait in rounds: how often depends on what else the machine does.
    """

    def __enter__(self) -> Self:
        self._here = cProfile.Profile()
        self._profiles = [self._here]
        # Threads that have been waiting for work would not be counted.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        threading.setprofile(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)  # type: ignore[arg-type]

    def _begin(self, *_: object) -> None:
        """Take the place of Python's own hook, in the thread that has begun."""
        name = threading.current_thread().name
        if name.startswith("interlock-") and name != "interlock-tool":
            sys.setprofile(None)
            return
        profile = cProfile.Profile()
        self._profiles.append(profile)
        profile.enable()

    async def calls(self, run: Callable[[], Awaitable[Any]]) -> int:
        """Return how many functions a run calls: a figure that no other load changes."""
        before = self._so_far()
        self._here.enable()
        await run()
        self._here.disable()
        return self._so_far() - before

    def _so_far(self) -> int:
        return sum(entry.callcount for profile in self._profiles for entry in profile.getstats())


def hooked_of(column: Column) -> Callable[[Job], Awaitable[Any]] | None:
    """Return what runs a framework's agent with hooks that do nothing; a loop by hand has no place for any."""
    if column.name == "loop":
        return None
    module = importlib.import_module(f"benchmarks.empty_hooks.{column.name.replace('-', '_')}")
    found: Callable[[Job], Awaitable[Any]] = module.hooked
    return found


async def sides(column: Column, url: str, directory: Path, stack: AsyncExitStack) -> dict[str, Side]:
    """Return the ways to run a framework's agent."""
    model = MODELS.get(column.wire, "gpt-4o")
    numbers = itertools.count()

    def job(options: Mapping[str, Any]) -> Job:
        place = f"{url}/bench/1"
        system, prompt = "You are the agent called triage.", "Search."
        return Job(system, prompt, (TOOL,), f"{place}/v1", place, model, max_turns=STEPS + 1, options=options)

    config: dict[str, Any] = {
        "agent": {"budgets": CAPS},
        "tools": {"allow": ["search_read"], "effects": {"*_read": "read"}},
        "prices": dict.fromkeys((model, f"openai:{model}", f"anthropic:{model}"), PRICE),
        "logging": {"level": "warning"},
    }
    gate = interlock.Interlock(config, store=f"sqlite:///{directory}/{column.name}.db")
    stack.push_async_callback(gate.aclose)

    def guarded(*, by_id: bool) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            options = {"tenant_id": "acme", "agent_name": "triage"}
            if by_id:
                options["request_id"] = f"req-{next(numbers)}"
            result = await column.guarded(job(options), gate)
            if not result.ok or result.tool_calls != STEPS:
                raise NotMeasured(f"the run ended with {result.reason}: {result.details}")
            await gate.house().store.flush()

        return run

    hooked = hooked_of(column)
    return {
        "bare": Side(lambda: column.bare(job({}))),
        **({} if hooked is None else {"hooked": Side(lambda: hooked(job({})))}),
        "guarded": Side(guarded(by_id=False)),
        "by id": Side(guarded(by_id=True)),
    }


async def framework(column: Column, url: str, directory: Path, rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Measure one framework."""
    calibrated: list[float] = []
    async with AsyncExitStack() as stack:
        found = await sides(column, url, directory, stack)
        order = list(found.values())
        for side in order * 2:
            await side.sample()
            side.samples.clear()
        gc.collect()
        gc.freeze()
        began_s = time.monotonic()
        for i in range(rounds * ROUNDS):
            if i >= FEWEST and time.monotonic() - began_s > MOST_S:
                break
            before = calibrate()
            turned = order[i % len(order) :] + order[: i % len(order)]
            # And backwards every other time: what a run leaves behind is not always the same side's.
            for side in reversed(turned) if i % 2 else turned:
                await side.sample()
            calibrated.append((before + calibrate()) / 2)
        gc.unfreeze()
    calls = await counted(column, url, directory)
    speeds = [min(calibrated) / ms for ms in calibrated]
    runs = {
        name: [sample.scaled(speed) for sample, speed in zip(side.samples, speeds, strict=True)]
        for name, side in found.items()
    }
    return figures(column, runs, calls), {name: [asdict(one) for one in some] for name, some in runs.items()}


async def counted(column: Column, url: str, directory: Path) -> dict[str, int]:
    """Return how many functions a run calls, by a gate whose threads are counted too."""
    async with AsyncExitStack() as stack:
        counter = stack.enter_context(Counter())
        found = await sides(column, url, directory, stack)
        for side in [*found.values()] * 2:
            await side.run()
        return {name: await counter.calls(side.run) for name, side in found.items()}


def figures(column: Column, runs: Mapping[str, Sequence[Sample]], calls: Mapping[str, int]) -> list[Figure]:
    """Return the lines of one framework."""

    def added(name: str) -> tuple[float, float]:
        """Return what a step of this side costs more, and what the rest of a run does, less the one step in it."""
        pairs = list(zip(runs[name], runs["bare"], strict=True))
        step = statistics.median(
            more - bare for one, other in pairs for more, bare in zip(one.steps, other.steps, strict=True)
        )
        return step, statistics.median(one.rest - other.rest for one, other in pairs) - step

    by_hand = column.name == "loop"  # no framework: beside it stands what the funnel itself costs
    name = "a loop by hand" if by_hand else f"{column.name} {metadata.version(column.distribution)}"
    bare = statistics.median(step for sample in runs["bare"] for step in sample.steps)
    (step, ends), by_id = added("guarded"), added("by id")[0]
    whole = step + ends / STEPS
    of_them = functions = ""
    if "hooked" in runs:
        empty = added("hooked")[0]
        of_them = f": an empty hook {empty:,.0f} µs, ours over it {step - empty:,.0f} µs"
        functions = f", of them for an empty hook {(calls['hooked'] - calls['bare']) / STEPS:,.0f}"
    return [
        Figure(
            f"{name}: a guarded step over the bare one, CPU",
            whole,
            "µs",
            None if by_hand else 60,
            beside=f"{step:,.0f} µs{of_them}; and {ends:,.0f} µs to open and close the run;"
            f" a step with a request id: {by_id:,.0f} µs",
        ),
        Figure(
            f"{name}: of the bare step",
            100 * whole / bare,
            "%",
            None if by_hand else 4,
            beside=f"the bare step: {bare:,.0f} µs; function calls:"
            f" {(calls['guarded'] - calls['bare']) / STEPS:,.0f} over {calls['bare'] / STEPS:,.0f}{functions}",
        ),
    ]


async def _one(name: str, url: str, rounds: int) -> None:
    """Measure one framework here, and print its figures as JSON."""
    # Columns make a client for each run, and each client would read all certificates of the system, in 20 ms.
    ssl.create_default_context = functools.cache(ssl.create_default_context)
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory, warnings.catch_warnings(action="ignore"):
        found, runs = await framework(load_column(Place(name).column), url, Path(directory), rounds)
    print(json.dumps({"figures": [asdict(figure) for figure in found], "runs": runs}))


def _measured(name: str, url: str, rounds: int) -> dict[str, Any]:
    """Measure one framework in a process of its own."""
    words = [find_place(name, install=False).python, "-m", "benchmarks.adapters"]
    words += ["--column", name, "--url", url, "--rounds", str(rounds)]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=STUCK_S)
    except subprocess.TimeoutExpired as stuck:
        raise NotMeasured(f"did not end within {STUCK_S:g} s") from stuck
    if done.returncode:
        raise NotMeasured(done.stderr.strip().rpartition("\n")[2])
    found: dict[str, Any] = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    return found


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Measure every framework that this interpreter has, or one that the conformance matrix has made."""
    found: list[Figure] = []
    samples: dict[str, Any] = {}
    with _Model() as url:
        for name in columns():
            try:
                measured = await asyncio.to_thread(_measured, name, url, rounds)
            except NotMeasured as error:
                print(f"{name}: not measured: {error}", file=sys.stderr)
                continue
            lines = [Figure(**figure) for figure in measured["figures"]]
            found += lines
            samples[name] = measured["runs"]
            print(f"{name}: {lines[0].value:.0f} µs, {lines[1].value:.1f} %", file=sys.stderr, flush=True)
    return found, samples


def main() -> None:
    """Serve the model, or measure one framework; started by `measure`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--column")
    parser.add_argument("--url")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    asyncio.run(_serve() if options.serve else _one(options.column, options.url, options.rounds))


if __name__ == "__main__":
    main()
