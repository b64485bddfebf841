"""What a step of an agent costs more in each framework, when it runs under Interlock.

A step is one model turn and one read that does no work. The framework, its HTTP client and its agent are real; the
model is the scripted one of the conformance matrix, in a process of its own, so that its work is not counted. Bare
and guarded runs of two lengths take turns in one process; a step is what the longer one costs more, so that opening
and closing a run is no part of it. CPU is that of all threads, the journal's included.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import functools
import gc
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from conformance.column import Column, Job, Tool, Wire  # noqa: E402
from conformance.conversation import Seen, Turn, Use  # noqa: E402
from conformance.model import ModelServer  # noqa: E402
from conformance.places import Place, columns  # noqa: E402
from conformance.player import load_column  # noqa: E402

import interlock  # noqa: E402 - the path is set above
from benchmarks.figures import Figure  # noqa: E402
from benchmarks.kit import calibrate  # noqa: E402

__all__ = ["measure"]

SHORT, LONG = 2, 9  # model turns of a run; openai-agents allows ten
ROUNDS = 6  # runs of each kind for each round that is asked for
MANY = 1_000_000
CAPS = {"max_steps": MANY, "max_tool_calls": MANY, "max_seconds": 86_400}
PRICE = {"input_usd_per_mtok": 0.01, "output_usd_per_mtok": 0.01}
MODELS = {Wire.ANTHROPIC: "claude-sonnet-5-5"}


class NotMeasured(Exception):
    """A guarded run did not end as it should."""


async def search_read(query: str) -> dict[str, Any]:
    """Search."""
    return {"query": query, "results": []}


PARAMETERS = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
TOOL = Tool("search_read", "Search.", search_read, PARAMETERS, "read")


def script(turns: int) -> Callable[[Seen], Turn]:
    """Return a model that searches for something else each turn, and answers at the last."""

    def say(seen: Seen) -> Turn:
        if seen.turn >= turns:
            return Turn(text="Nothing.")
        return Turn((Use("search_read", {"query": f"question {seen.turn}"}),))

    return say


# -- the model, in a process of its own


async def _serve() -> None:
    server = ModelServer(lambda session: script(int(session)), lambda _: False, lambda _: True)
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


# -- one framework


@dataclass(slots=True)
class Side:
    """One way to run the agent: CPU microseconds of short and long runs, one figure a round each."""

    run: Callable[[int], Awaitable[Any]]
    us: dict[int, list[float]] = field(default_factory=lambda: {SHORT: [], LONG: []})

    async def sample(self, turns: int, *, keep: bool = True) -> None:
        """Run once."""
        began = time.process_time()
        await self.run(turns)
        if keep:
            self.us[turns].append((time.process_time() - began) * 1e6)

    async def calls(self) -> float:
        """Return how many functions one step calls, in the main thread: a figure that no other load changes."""
        counted = []
        for turns in (SHORT, LONG):
            profile = cProfile.Profile()
            profile.enable()
            await self.run(turns)
            profile.disable()
            counted.append(sum(entry.callcount for entry in profile.getstats()))
        return (counted[1] - counted[0]) / (LONG - SHORT)

    def steps(self, speeds: Sequence[float]) -> list[float]:
        """Return what one step cost, a figure a round, scaled by how fast the core was in that round."""
        rounds = zip(self.us[SHORT], self.us[LONG], speeds, strict=True)
        return [(b - a) / (LONG - SHORT) * speed for a, b, speed in rounds]


async def sides(column: Column, url: str, directory: Path, stack: AsyncExitStack) -> dict[str, Side]:
    """Return the ways to run a framework's agent."""
    model = MODELS.get(column.wire, "gpt-4o")

    def job(turns: int, options: dict[str, Any] | None = None) -> Job:
        place = f"{url}/{turns}/1"
        system, prompt = "You are the agent called triage.", "Search."
        return Job(system, prompt, (TOOL,), f"{place}/v1", place, model, options=options or {})

    async def bare(turns: int) -> None:
        await column.bare(job(turns))

    def guarded(**settings: Any) -> Callable[[int], Awaitable[None]]:
        config: dict[str, Any] = {
            "agent": {"budgets": CAPS},
            "tools": {"allow": ["search_read"], "effects": {"*_read": "read"}},
            "prices": dict.fromkeys((model, f"openai:{model}", f"anthropic:{model}"), PRICE),
            "logging": {"level": "warning"},
        }
        gate = interlock.Interlock(config | settings, store=f"sqlite:///{directory}/{column.name}-{len(settings)}.db")
        stack.push_async_callback(gate.aclose)

        async def run(turns: int) -> None:
            result = await column.guarded(job(turns, {"tenant_id": "acme", "agent_name": "triage"}), gate)
            if not result.ok:
                raise NotMeasured(f"the run ended with {result.reason}: {result.details}")
            await gate.house().store.flush()

        return run

    return {"bare": Side(bare), "guarded": Side(guarded(replay="off")), "resumable": Side(guarded())}


async def framework(column: Column, url: str, directory: Path, rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Measure one framework."""
    async with AsyncExitStack() as stack:
        found = await sides(column, url, directory, stack)
        order = [(side, turns) for side in found.values() for turns in (SHORT, LONG)]
        for side, turns in order * 2:
            await side.sample(turns, keep=False)
        gc.collect()
        gc.freeze()
        calibration_ms: list[float] = []
        for i in range(rounds * ROUNDS):
            before = calibrate()
            for side, turns in order[i % len(order) :] + order[: i % len(order)]:
                await side.sample(turns)
            calibration_ms.append((before + calibrate()) / 2)
        gc.unfreeze()
        plain, more = [await found[name].calls() for name in ("bare", "guarded")]
    speeds = [min(calibration_ms) / ms for ms in calibration_ms]
    bare, guarded, resumable = (found[name].steps(speeds) for name in ("bare", "guarded", "resumable"))
    step = statistics.median(bare)
    added = statistics.median(g - b for g, b in zip(guarded, bare, strict=True))
    kept = statistics.median(g - b for g, b in zip(resumable, bare, strict=True))
    by_hand = column.name == "loop"  # no framework: beside it stands what the funnel itself costs
    name = "a loop by hand" if by_hand else f"{column.name} {metadata.version(column.distribution)}"
    figures = [
        Figure(
            f"{name}: a guarded step over the bare one, CPU",
            added,
            "µs",
            None if by_hand else 60,
            beside=f"{kept:.0f} µs where runs can be resumed (replay: on)",
        ),
        Figure(
            f"{name}: of the bare step",
            100 * added / step,
            "%",
            None if by_hand else 4,
            beside=f"the bare step: {step:,.0f} µs; in function calls {100 * (more - plain) / plain:.1f} % of {plain:,.0f}",
        ),
    ]
    samples = {f"{name}, {kind}": {str(n): us for n, us in side.us.items()} for kind, side in found.items()}
    return figures, samples


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Measure every framework that this interpreter has."""
    figures: list[Figure] = []
    samples: dict[str, Any] = {}
    # Columns make a client for each run, and each client would read all certificates of the system, in 20 ms.
    ssl.create_default_context = functools.cache(ssl.create_default_context)
    with (
        _Model() as url,
        tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory,
        warnings.catch_warnings(action="ignore"),
    ):
        for name in columns():
            try:
                column = load_column(Place(name).column)
                metadata.version(column.distribution)
                more, cases = await framework(column, url, Path(directory), rounds)
            except (ImportError, metadata.PackageNotFoundError, NotMeasured) as error:
                print(f"{name}: not measured: {error}", file=sys.stderr)
                continue
            figures += more
            samples |= cases
            print(f"{name}: {more[0].value:.0f} µs, {more[1].value:.1f} %", file=sys.stderr, flush=True)
    return figures, samples


def main() -> None:
    """Serve the model; started by `measure`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", required=True)
    parser.parse_args()
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
