"""What the fixture `interlock_chaos` is: an agent tried under faults inside a test, on a gate that stands in for yours.

Your store and your log files are not touched: each repetition has a store in memory. Your tools are really called.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import pkgutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from interlock.chaos.faults import REQUEST_KINDS, Fault
from interlock.chaos.scene import Injection, Scene, TrialClock
from interlock.chaos.suite import Suite, Task, at_its_model, faults_of, load_suite
from interlock.chaos.trying import Agent, Outcome, settings_of, try_once
from interlock.chaos.wires import on_the_wire, wired
from interlock.config.gate import Interlock
from interlock.config.trial import standing_in
from interlock.core.errors import ConfigError

__all__ = ["Chaos", "ChaosFailed", "Tried"]

# Runs of one block whose records are kept.
RUNS_KEPT = 10_000
_OF_TASK = {each.name for each in fields(Task)} - {"name", "inject", "input", "faults"}
_OF_SUITE = {each.name for each in fields(Suite)} - {"tasks", "limit_s"}


class ChaosFailed(AssertionError):
    """What was expected under faults did not hold, or no fault was met."""


@dataclass(slots=True)
class Tried:
    """What became of the runs inside `around`; filled when the block ends.

    Attributes:
        injected: Fault to how often. requests: tool to attempts that reached it. effects: tool to distinct keys of
            writes that reached it.
        records: Of all runs, as a store keeps them, in the order in which they began. reasons: theirs.
    """

    injected: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    records: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """Why each run ended."""
        return [str(record.get("stop_reason")) for record in self.records]


class Chaos:
    """Tries agents under faults.

    Args:
        faults: Words as the article writes them, mappings as in a suite, or `Fault`s.
        words: Further words of a task (`expect`, `repetitions`) and of a suite (`seed`, `clock`, `config`, …).
        again: Of the test, for the command that repeats a failure.
        seed: In place of all other seeds.
    """

    def __init__(
        self, faults: Sequence[Any] = (), words: Mapping[str, Any] | None = None, *, again: str = "", seed: int | None
    ) -> None:
        self._faults = list(faults)
        self._words = dict(words or {})
        self._again = again
        self._seed = seed

    def inject(self, *faults: str | Mapping[str, Any] | Fault) -> Chaos:
        """Add faults to those of the marker, and return this."""
        self._faults += faults
        return self

    def __call__(self, agent: Agent, task: Any = None, *, gate: Interlock) -> Outcome:
        """Try an agent as often as the marker says, each time with a seed of its own, and return what became of it.

        Args:
            agent: Of any framework: what `gate.run` takes.
            task: What it is given.
            gate: Its gate; adapters may have been made with it.

        Raises:
            ChaosFailed: What the marker expects does not hold, or it names faults and none was met.
            ConfigError: The marker's words cannot be used, or an event loop runs here.
        """
        __tracebackhide__ = True
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise ConfigError(
                "interlock_chaos(…) runs an event loop of its own: call it in a plain `def` test,"
                " or write `async with interlock_chaos.around(gate):`"
            )
        suite, probe = self._suite()
        given = replace(suite.tasks[0], input=task)
        number = 1 if self._seed is not None else given.repetitions or suite.repetitions
        with wired(suite):
            done = tuple(try_once(agent, gate, suite, given, seed=suite.seed + i, probe=probe) for i in range(number))
        labels = (*(fault.label for fault in given.faults), *(fault.label for fault in given.wire))
        outcome = Outcome(given.name, given.expected.verdict, done, faults=labels)
        if outcome.verdict != "passed":
            failed = next((each for each in done if each.failures), done[0])
            raise ChaosFailed(f"{outcome.verdict}: {outcome.why} (seed {failed.seed}){self._repeat(failed.seed)}")
        return outcome

    @contextlib.asynccontextmanager
    async def around(self, gate: Interlock) -> AsyncIterator[Tried]:
        """Put the gate on trial within an `async with` block, on real time: whatever runs on it meets the faults.

        For agents that open their runs themselves, and for tests that are coroutines. Nothing is expected but that
        a fault was met: say what must hold by what it returns.

        Raises:
            ChaosFailed: Faults are named and none was met.
            ConfigError: The marker's words cannot be used.
        """
        __tracebackhide__ = True
        suite, _ = self._suite()
        task = suite.tasks[0]
        unfit = [fault.label for fault in faults_of(task) if fault.kind in REQUEST_KINDS]
        if unfit:
            raise ConfigError(f"{unfit[0]} sends the request again: around(gate) does not send it; call the fixture")
        clock = TrialClock(seed=suite.seed)
        scene = Scene(faults_of(task), seed=suite.seed, clock=clock)
        settings = settings_of(suite, gate)
        tried = gate.on_trial(scene.trial(), settings=settings, store="sqlite:///:memory:", clock=clock)
        found = Tried()
        try:
            with wired(suite), on_the_wire(task, suite.seed, scene.note_wire_fault), standing_in(gate, tried):
                yield found
            store = tried.house().store
            await store.flush()
            rows = reversed(await store.runs(limit=RUNS_KEPT))
            found.records += [row.record for row in rows if row.record is not None]
        finally:
            await tried.aclose()
        _count(found, scene)
        if (faults_of(task) or task.wire) and not scene.injections:
            raise ChaosFailed(f"not exercised: no fault was injected{self._repeat(suite.seed)}")

    def _suite(self) -> tuple[Suite, Callable[[], Any] | None]:
        words = dict(self._words)
        for name in sorted(words.keys() - _OF_TASK - _OF_SUITE):
            near = difflib.get_close_matches(name, sorted(_OF_TASK | _OF_SUITE), n=1, cutoff=0.5)
            raise ConfigError(
                f"pytest.mark.chaos: unknown word {name}" + (f"; did you mean {near[0]}?" if near else "")
            )
        probe = words.pop("probe", None)
        if isinstance(probe, str):
            probe = pkgutil.resolve_name(probe)
        if self._seed is not None:
            words["seed"] = self._seed
        task = {"name": "test", "expect": "any", **{name: words.pop(name) for name in _OF_TASK & words.keys()}}
        written = [fault for fault in self._faults if isinstance(fault, Mapping)]
        suite = load_suite({**words, "tasks": [task]})
        alone = load_suite({"tasks": [{"name": "test", "expect": "any", "faults": written}]})
        parsed = iter(alone.tasks[0].faults)
        faults: list[Fault] = []
        for fault in self._faults:
            if isinstance(fault, Fault):
                faults.append(fault)
            elif isinstance(fault, Mapping):
                faults.append(next(parsed))
            else:
                faults += faults_of(Task("test", "any", inject=str(fault)))
        placed = at_its_model(suite, replace(suite.tasks[0], faults=tuple(faults)))
        if placed.wire and suite.clock != "real":
            raise ConfigError("what passes on a wire takes its time: say clock='real'")
        return replace(suite, tasks=(placed,)), probe

    def _repeat(self, seed: int) -> str:
        return f"\nagain: pytest '{self._again}' --interlock-chaos-seed {seed}" if self._again else ""


def _count(found: Tried, scene: Scene) -> None:
    injections: list[Injection] = scene.injections
    found.injected.update(injection.fault for injection in injections)
    executed = [request for request in scene.requests if request.executed]
    found.requests.update(request.tool for request in executed)
    found.effects.update(tool for tool, _ in {(r.tool, r.key) for r in executed if r.key is not None})
