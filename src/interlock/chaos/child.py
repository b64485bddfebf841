"""Tries one task in a process of its own: `python -m interlock.chaos.child`, a job on stdin, an outcome in a file.

So an agent that hangs, forks, prints or leaves the interpreter takes nothing with it.
"""

from __future__ import annotations

import json
import pkgutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlock.chaos import golden_agent
from interlock.chaos.suite import Suite, load_suite
from interlock.chaos.trying import Outcome, try_task
from interlock.chaos.wires import wired
from interlock.config.gate import Interlock
from interlock.config.handler import Handler
from interlock.core.errors import ConfigError, InterlockError

__all__ = ["Subject", "find_subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a suite is tried on: the agent, the gate with its tools, and the probe, if there is one."""

    agent: Callable[..., Any]
    gate: Interlock
    probe: Callable[[], Any] | None


def find_subject(agent: str | None, gate: str | None, suite: Suite) -> Subject:
    """Import what is tried: `module:function` and its module's gate; without an agent, the one of the golden tasks.

    Raises:
        ConfigError: Something cannot be imported, or is not what it should be.
    """
    probe = None if suite.probe is None else _load(suite.probe, "probe")
    if agent is None:
        return Subject(golden_agent.agent, golden_agent.gate, probe)
    found = _load(agent, "--agent")
    if isinstance(found, Handler):
        found = found.agent
    if not callable(found):
        raise ConfigError(f"--agent {agent}: not a function")
    if gate is not None:
        named = _load(gate, "--gate")
        if not isinstance(named, Interlock):
            raise ConfigError(f"--gate {gate}: not a gate (interlock.Interlock)")
        return Subject(found, named, probe)
    module = sys.modules[agent.partition(":")[0]]
    return Subject(found, _only_gate(module), probe)


def _only_gate(module: types.ModuleType) -> Interlock:
    gates = {id(value): value for value in vars(module).values() if isinstance(value, Interlock)}
    if len(gates) != 1:
        raise ConfigError(f"{module.__name__} has {len(gates)} gates: name one with --gate MODULE:NAME")
    return next(iter(gates.values()))


def _load(place: str, option: str) -> Any:
    if not place.partition(":")[2]:
        raise ConfigError(f"{option} {place}: say MODULE:NAME")
    try:
        return pkgutil.resolve_name(place)
    except SystemExit as error:
        raise ConfigError(f"{option} {place}: importing it ends the interpreter ({error.code})") from error
    except Exception as error:
        raise ConfigError(f"{option} {place}: cannot be imported: {type(error).__name__}: {error}") from error


def main() -> None:
    """Do the job that stands on stdin."""
    job = json.load(sys.stdin)
    sys.path[:0] = job["path"]
    suite = load_suite(job["suite"])
    task = next(task for task in suite.tasks if task.name == job["task"])
    try:
        with wired(suite):
            subject = find_subject(job["agent"], job["gate"], suite)
            outcome = try_task(subject.agent, subject.gate, suite, task, subject.probe, told=job["told"])
    except InterlockError as error:
        outcome = Outcome(task.name, task.expected.verdict, error=str(error))
    except BaseException as error:
        outcome = Outcome(task.name, task.expected.verdict, error=f"{type(error).__name__}: {error}")
    Path(job["answer"]).write_text(json.dumps(outcome.as_json()), encoding="utf-8")


if __name__ == "__main__":
    main()
