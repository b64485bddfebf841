"""Runs tasks: a fresh gate, store, clock and seed for each repetition, the same funnel as in production."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from interlock.chaos.faults import Kind
from interlock.chaos.judging import Facts, exercised, judge, recovery_s
from interlock.chaos.scene import GUARDS, Scene, TrialClock
from interlock.chaos.suite import Suite, Task, faults_of
from interlock.config.gate import Interlock
from interlock.config.sections import Budgets, Settings
from interlock.config.settings import load_settings
from interlock.config.trial import standing_in
from interlock.core.clock import run_virtual
from interlock.core.errors import ConfigError
from interlock.core.results import RunResult

__all__ = ["Agent", "Outcome", "Repetition", "settings_of", "try_once", "try_task"]

Agent = Callable[..., Any]
Probe = Callable[[], Any]

# Threads of sync tools and agents get so many real seconds before virtual time goes on without them.
PATIENCE_S = 0.02
# So many, where a framework has started threads of its own to work in.
FOREIGN_PATIENCE_S = 0.25
REQUEST = "chaos-1"


@dataclass(frozen=True, slots=True)
class Repetition:
    """What became of one repetition.

    Attributes:
        failures: Why it failed. not_exercised: why it proves nothing, or "".
        injected: Fault to how often. requests: tool to attempts that reached it. effects: tool to effects.
    """

    seed: int
    reason: str
    failures: tuple[str, ...]
    not_exercised: str
    injected: Mapping[str, int]
    requests: Mapping[str, int]
    effects: Mapping[str, int]
    tool_calls: int
    cost_usd: float
    elapsed_s: float
    recovery_s: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task.

    Attributes:
        baseline: Stop reason of the same task without faults; "" where it has none.
        error: Why the task could not be tried (an agent that hangs, a probe that fails), or "".
    """

    name: str
    expect: str
    repetitions: tuple[Repetition, ...] = ()
    baseline: str = ""
    error: str = ""
    faults: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """`passed`, `failed`, `not exercised` or `error`."""
        if self.error or not self.repetitions:
            return "error"
        if any(each.failures for each in self.repetitions):
            return "failed"
        # With chance, one repetition may meet no fault; all of them may not.
        return "not exercised" if all(each.not_exercised for each in self.repetitions) else "passed"

    @property
    def why(self) -> str:
        """What to read first."""
        if self.error:
            return self.error
        failures = [failure for each in self.repetitions for failure in each.failures]
        return failures[0] if failures else next((e.not_exercised for e in self.repetitions if e.not_exercised), "")

    def as_json(self) -> dict[str, Any]:
        """Return plain data, verdict included."""
        return {**asdict(self), "verdict": self.verdict}


def settings_of(suite: Suite, gate: Interlock) -> Settings:
    """Return the configuration that a suite is tried with: its own, else the gate's; prices are the gate's."""
    settings = gate.settings
    if suite.profile is not None or suite.config is not None:
        own = load_settings(suite.config or {}, profile=suite.profile)
        settings = replace(own, prices=own.prices or settings.prices, prices_unknown=settings.prices_unknown)
    # A trial writes no file.
    quiet = replace(settings.logging, level="error", to="stderr")
    return replace(settings, logging=quiet, record=replace(settings.record, path=None), shutdown_grace_s=0.0)


def try_task(agent: Agent, gate: Interlock, suite: Suite, task: Task, probe: Probe | None = None) -> Outcome:
    """Try a task: without faults first, then every repetition, each with a seed of its own."""
    faults = faults_of(task)
    labels = tuple(fault.label for fault in faults)
    expect = task.expected.verdict if task.expected.verdict != "any" else "as stated"
    baseline = ""
    if faults:
        calm = replace(task, inject=None, faults=(), expect="any")
        baseline = try_once(agent, gate, suite, calm, seed=suite.seed, probe=probe).reason
    number = task.repetitions or suite.repetitions
    done = tuple(try_once(agent, gate, suite, task, seed=suite.seed + i, probe=probe) for i in range(number))
    return Outcome(task.name, expect, done, baseline, "", labels)


def try_once(
    agent: Agent,
    gate: Interlock,
    suite: Suite,
    task: Task,
    *,
    seed: int,
    off: Sequence[str] = (),
    probe: Probe | None = None,
) -> Repetition:
    """Try a task once; not inside a running event loop.

    Args:
        off: Guards that are switched off, to see what then goes wrong.

    Raises:
        ConfigError: The probe fails, or a guard is not known.
    """
    main = _once(agent, gate, suite, task, seed, tuple(off), probe)
    if suite.clock == "real":
        return asyncio.run(main)
    threads = not inspect.iscoroutinefunction(agent) or any(not tool.is_async for tool in gate.tools)
    return run_virtual(main, patience_s=PATIENCE_S if threads else 0.0, foreign_patience_s=FOREIGN_PATIENCE_S)


async def _once(
    agent: Agent, gate: Interlock, suite: Suite, task: Task, seed: int, off: Sequence[str], probe: Probe | None
) -> Repetition:
    clock = TrialClock(seed=seed)
    settings = _without(settings_of(suite, gate), off)
    scene = Scene(faults_of(task), seed=seed, clock=clock, off=off)
    tried = gate.on_trial(scene.trial(), settings=settings, store="sqlite:///:memory:", clock=clock)
    tools = {tool.name: tool for tool in tried.tools}
    before = await _probed(probe)
    second: Interlock | None = None
    try:
        if any(fault.kind is Kind.TWO_WORKERS for fault in faults_of(task)):
            tried.house()  # opens the store that both share
            second = gate.on_trial(scene.trial(), settings=settings, store="sqlite:///:memory:", clock=clock)
        began_s = clock.monotonic()
        result = await _requests(agent, gate, [tried] if second is None else [tried, second], scene, task)
        elapsed_s = clock.monotonic() - began_s
        store = tried.house().store
        await store.flush()
        row = await store.run(result.run_id)
        record = {} if row is None or row.record is None else row.record
        after = await _probed(probe)
    finally:
        await tried.aclose()
        if second is not None:
            await second.aclose()
    effects = {name: count - before.get(name, 0) for name, count in after.items()} if probe else _effects(scene)
    facts = Facts(task, result, record, scene, settings, tools, effects, suite.clock == "virtual")
    return Repetition(
        seed,
        result.reason.value,
        tuple(judge(facts)),
        exercised(facts) or "",
        _tally(injection.fault for injection in scene.injections),
        _tally(request.tool for request in scene.requests if request.executed),
        effects,
        result.tool_calls,
        result.cost_usd,
        elapsed_s,
        recovery_s(facts),
    )


async def _requests(agent: Agent, gate: Interlock, tried: Sequence[Interlock], scene: Scene, task: Task) -> RunResult:
    """Send the request; and once more, where its faults say so: to the last of the gates, if there are two."""

    async def deliver(to: Interlock, delay_s: float) -> RunResult:
        await scene.clock.sleep(delay_s)
        with standing_in(gate, to):
            return await to.run(agent, task.input, tenant_id="chaos", request_id=REQUEST, agent_name="chaos")

    deliveries = [deliver(tried[0], 0.0)]
    for fault in faults_of(task):
        if fault.kind in {Kind.DUPLICATE_DELIVERY, Kind.TWO_WORKERS}:
            scene.note_request_fault(fault, "request")
            to = tried[-1] if fault.kind is Kind.TWO_WORKERS else tried[0]
            deliveries.append(deliver(to, fault.delay_s or 0.0))
    return (await asyncio.gather(*deliveries))[0]


def _without(settings: Settings, off: Sequence[str]) -> Settings:
    """Return the settings for a trial without these guards: two of them have a part outside the funnel."""
    unknown = set(off) - set(GUARDS)
    if unknown:
        raise ConfigError(f"no guard is called {min(unknown)}: {', '.join(GUARDS)}")
    if "meter" in off:
        none = Budgets(None, None, None, None, None, None, None)
        settings = replace(settings, agent=replace(settings.agent, budgets=none))
    if "admission" in off:
        breaker = replace(settings.tools.circuit_breakers, enabled=False)
        settings = replace(settings, tools=replace(settings.tools, circuit_breakers=breaker))
    return settings


async def _probed(probe: Probe | None) -> dict[str, int]:
    if probe is None:
        return {}
    try:
        found = probe()
        if inspect.isawaitable(found):
            found = await found
        return {str(name): int(count) for name, count in dict(found).items()}
    except Exception as error:
        raise ConfigError(f"the probe failed: {type(error).__name__}: {error}") from error


def _effects(scene: Scene) -> dict[str, int]:
    keys = {(request.tool, request.key) for request in scene.requests if request.executed and request.key is not None}
    return _tally(tool for tool, _ in keys)


def _tally(words: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))
