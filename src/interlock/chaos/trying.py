"""Runs tasks: a fresh gate, store, clock and seed for each repetition, the same funnel as in production."""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from interlock.chaos.account import account_of, rules_of
from interlock.chaos.delivery import Agent, deliver
from interlock.chaos.faults import WORKER_KINDS, Kind
from interlock.chaos.hearing import Hearing
from interlock.chaos.judging import Facts, duplicates_of, effects_of, exercised, judge, recovery_s
from interlock.chaos.scene import GUARDS, RealTrialClock, Scene, TrialClock
from interlock.chaos.suite import Suite, Task, faults_of
from interlock.chaos.wires import on_the_wire
from interlock.chaos.workers import work_in_processes
from interlock.config.gate import Interlock
from interlock.config.sections import Budgets, Settings
from interlock.config.settings import load_settings
from interlock.core.clock import run_virtual
from interlock.core.errors import ConfigError
from interlock.core.reasons import BUDGET_REASONS, StopReason

__all__ = ["Agent", "Outcome", "Repetition", "settings_of", "try_once", "try_task"]

# How guards end a run; other ends are the agent's, its tools' or its caller's.
_GUARDS_END = BUDGET_REASONS | {
    StopReason.LOOP_DETECTED,
    StopReason.NO_PROGRESS,
    StopReason.TOOL_DENIED,
    StopReason.TOOL_OUTPUT_INVALID,
    StopReason.INVALID_INPUT,
    StopReason.CIRCUIT_OPEN,
    StopReason.KILLED,
}

Probe = Callable[[], Any]

# Threads of sync tools and agents get so many real seconds before virtual time goes on without them.
PATIENCE_S = 0.02
# So many, where a framework has started threads of its own to work in.
FOREIGN_PATIENCE_S = 0.25


@dataclass(frozen=True, slots=True)
class Repetition:
    """What became of one repetition.

    Attributes:
        failures: Why it failed. not_exercised: why it proves nothing, or "".
        injected: Fault to how often. requests: tool to attempts that reached it. effects: tool to effects.
        duplicates: Effects that happened again. guards: guard to how often it made a difference to a call.
        account: What can be seen of it, in lines (see `account.py`), where that was asked for.
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
    duplicates: int = 0
    guards: Mapping[str, int] = field(default_factory=dict)
    account: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task.

    Attributes:
        baseline: Stop reason of the same task without faults; "" where it has none. baseline_usd: its dollars.
        false_stops: Runs that met no fault, and that a guard ended although the task does not expect it.
        error: Why the task could not be tried (an agent that hangs, a probe that fails), or "".
        rules: Configuration and tools in force, in lines, where accounts were asked for.
    """

    name: str
    expect: str
    repetitions: tuple[Repetition, ...] = ()
    baseline: str = ""
    error: str = ""
    faults: tuple[str, ...] = field(default=())
    baseline_usd: float = 0.0
    false_stops: int = 0
    rules: tuple[str, ...] = ()

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


def settings_of(suite: Suite, gate: Interlock, task: Task | None = None) -> Settings:
    """Return the configuration that a task is tried with: its own, the suite's or the gate's; prices are the gate's."""
    settings = gate.settings
    config = suite.config if task is None or task.config is None else task.config
    if suite.profile is not None or config is not None:
        own = load_settings(config or {}, profile=suite.profile if config is None or "profile" not in config else None)
        settings = replace(own, prices=own.prices or settings.prices, prices_unknown=settings.prices_unknown)
    # A trial writes no file.
    quiet = replace(settings.logging, level="error", to="stderr")
    return replace(settings, logging=quiet, record=replace(settings.record, path=None), shutdown_grace_s=0.0)


def try_task(
    agent: Agent, gate: Interlock, suite: Suite, task: Task, probe: Probe | None = None, *, told: bool = False
) -> Outcome:
    """Try a task: without faults first, then every repetition, each with a seed of its own; `told`: see `try_once`."""
    faults = faults_of(task)
    labels = (*(fault.label for fault in faults), *(fault.label for fault in task.wire))
    expect = task.expected.verdict if task.expected.verdict != "any" else "as stated"
    calm: Repetition | None = None
    if labels:
        without = replace(task, name=f"{task.name}/baseline", inject=None, faults=(), wire=(), expect="any")
        calm = try_once(agent, gate, suite, without, seed=suite.seed, probe=probe)
    number = task.repetitions or suite.repetitions
    done = tuple(try_once(agent, gate, suite, task, seed=suite.seed + i, probe=probe, told=told) for i in range(number))
    baseline, usd = ("", 0.0) if calm is None else (calm.reason, calm.cost_usd)
    stopped = [each for each in (*done, calm) if each is not None and _stopped_falsely(each, task)]
    rules = rules_of(settings_of(suite, gate, task), gate.tools) if told else ()
    return Outcome(task.name, expect, done, baseline, "", labels, usd, len(stopped), rules)


def try_once(
    agent: Agent,
    gate: Interlock,
    suite: Suite,
    task: Task,
    *,
    seed: int,
    off: Sequence[str] = (),
    probe: Probe | None = None,
    told: bool = False,
) -> Repetition:
    """Try a task once; not inside a running event loop.

    Args:
        off: Guards that are switched off, to see what then goes wrong.
        told: Give an account of it; not on real time, nor of worker processes, where no two are equal.

    Raises:
        ConfigError: The probe fails, a guard is not known, or worker processes cannot have this agent.
    """
    if any(fault.kind in WORKER_KINDS for fault in faults_of(task)):
        return _once_in_processes(agent, gate, suite, task, seed, tuple(off), probe)
    hearing = Hearing() if told and suite.clock == "virtual" else None
    main = _once(agent, gate, suite, task, seed, tuple(off), probe, hearing)
    if suite.clock == "real":
        return asyncio.run(main)
    threads = not inspect.iscoroutinefunction(agent) or any(not tool.is_async for tool in gate.tools)
    return run_virtual(main, patience_s=PATIENCE_S if threads else 0.0, foreign_patience_s=FOREIGN_PATIENCE_S)


def _stopped_falsely(tried: Repetition, task: Task) -> bool:
    reason = StopReason(tried.reason)
    return not tried.injected and reason in _GUARDS_END and reason not in task.expected.ends


async def _once(
    agent: Agent,
    gate: Interlock,
    suite: Suite,
    task: Task,
    seed: int,
    off: Sequence[str],
    probe: Probe | None,
    hearing: Hearing | None,
) -> Repetition:
    clock = RealTrialClock(seed=seed) if suite.clock == "real" else TrialClock(seed=seed)
    settings = _without(settings_of(suite, gate, task), off)
    scene = Scene(faults_of(task), seed=seed, clock=clock, off=off, hearing=hearing)
    tried = gate.on_trial(scene.trial(), settings=settings, store="sqlite:///:memory:", clock=clock)
    tools = frozenset(tool.name for tool in tried.tools)
    before = await _probed(probe)
    second: Interlock | None = None
    try:
        if any(fault.kind is Kind.TWO_WORKERS for fault in faults_of(task)):
            tried.house()  # opens the store that both share
            second = gate.on_trial(scene.trial(), settings=settings, store="sqlite:///:memory:", clock=clock)
        began_s = clock.monotonic()
        with on_the_wire(task, seed, scene.note_wire_fault):
            result = await deliver(agent, gate, [tried] if second is None else [tried, second], scene, task)
        elapsed_s = clock.monotonic() - began_s
        store = tried.house().store
        await store.flush()
        row = await store.run(result.run_id)
        record = {} if row is None or row.record is None else row.record
        after = await _probed(probe)
        gates = [tried] if second is None else [tried, second]
        account = () if hearing is None else await account_of(scene, hearing, store, gates, [result])
    finally:
        await tried.aclose()
        if second is not None:
            await second.aclose()
    effects = _since(before, after) if probe else effects_of(scene.requests)
    facts = Facts(task, result, record, scene, settings, tools, effects, suite.clock == "virtual")
    return replace(_repetition(facts, seed, elapsed_s), account=account)


def _once_in_processes(
    agent: Agent, gate: Interlock, suite: Suite, task: Task, seed: int, off: tuple[str, ...], probe: Probe | None
) -> Repetition:
    settings = _without(settings_of(suite, gate, task), off)
    tools = frozenset(tool.name for tool in gate.tools)
    before = asyncio.run(_probed(probe))
    with tempfile.TemporaryDirectory(prefix="interlock-workers-") as folder:
        worked = work_in_processes(agent, gate, task, settings, seed=seed, off=off, folder=Path(folder))
    after = asyncio.run(_probed(probe))
    effects = _since(before, after) if probe else effects_of(worked.scene.requests)
    facts = Facts(task, worked.result, worked.record, worked.scene, settings, tools, effects, virtual=False)
    return _repetition(facts, seed, worked.elapsed_s, worked.disagreed)


def _repetition(facts: Facts, seed: int, elapsed_s: float, also: tuple[str, ...] = ()) -> Repetition:
    scene, result = facts.scene, facts.result
    acted = _tally(scene.acted)
    return Repetition(
        seed=seed,
        reason=result.reason.value,
        failures=(*judge(facts), *also),
        not_exercised=exercised(facts) or "",
        injected=_tally(injection.fault for injection in scene.injections),
        requests=_tally(request.tool for request in scene.requests if request.executed),
        effects=facts.effects,
        tool_calls=result.tool_calls,
        cost_usd=result.cost_usd,
        elapsed_s=elapsed_s,
        recovery_s=recovery_s(facts),
        duplicates=duplicates_of(scene.requests),
        guards={"recorder": len(facts.rows), **acted} if facts.rows else acted,
    )


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


def _since(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items()}


def _tally(words: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))
