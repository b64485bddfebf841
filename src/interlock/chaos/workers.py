"""A task whose workers die or stand still: real processes on one store, started one after the other.

A worker that dies is followed by the next, which takes the request over as a redelivery does. One that stands
still is let go on when its successor is done: by then it is a zombie, and must change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from interlock.chaos.delivery import Agent
from interlock.chaos.scene import Injection, RealTrialClock, Request, Scene
from interlock.chaos.suite import Task, faults_of
from interlock.chaos.trial_worker import Job, result_file, unchangeable
from interlock.config.gate import Interlock
from interlock.config.sections import Settings
from interlock.core.clock import SYSTEM, Clock
from interlock.core.errors import ConfigError
from interlock.core.results import RunResult

__all__ = ["Worked", "work_in_processes"]

LEASE_TTL_S = 1.0
LOOKS_EVERY_S = 0.01
KEPT_ERROR_CHARACTERS = 1_000


class _Pickler(pickle.Pickler):
    """Settings hold mappings that nobody may change; these are written too."""

    def reducer_override(self, thing: Any) -> Any:
        return (unchangeable, (dict(thing),)) if isinstance(thing, MappingProxyType) else NotImplemented


@dataclass(frozen=True, slots=True)
class Worked:
    """What came of it: the result that the last worker has, the record, and what was counted in all processes.

    Attributes:
        disagreed: What zombies were told that their successor was not, in words.
    """

    result: RunResult
    record: dict[str, Any]
    scene: Scene
    elapsed_s: float
    disagreed: tuple[str, ...] = ()


def work_in_processes(
    agent: Agent, gate: Interlock, task: Task, settings: Settings, *, seed: int, off: tuple[str, ...], folder: Path
) -> Worked:
    """Work on a task, in real time.

    Args:
        folder: An empty one, for the store and everything else.

    Raises:
        ConfigError: Agent or gate cannot be imported by another process, or a worker fails by itself.
    """
    job = Job(
        agent=_name_of(agent),
        gate=_gate_name(agent, gate),
        path=tuple(sys.path),
        task=task,
        # Long enough for a machine that is busy, short enough to wait for.
        settings=replace(settings, lease_ttl_s=min(settings.lease_ttl_s, LEASE_TTL_S)),
        seed=seed,
        off=off,
        store=f"sqlite:///{folder / 'trial.db'}",
        began_s=SYSTEM.monotonic(),
        counted=str(folder / "counted"),
    )
    try:
        with (folder / "job").open("wb") as file:
            _Pickler(file).dump(job)
    except Exception as error:
        raise ConfigError(f"task {task.name}: cannot be handed to another process: {error}") from error
    most = sum(fault.times for fault in faults_of(task)) + 1
    return asyncio.run(_Shift(job, folder, most).work(gate))


@dataclass(slots=True)
class _Shift:
    job: Job
    folder: Path
    most: int
    clock: Clock = SYSTEM
    still: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    alive: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def work(self, gate: Interlock) -> Worked:
        try:
            result = await self._until_done()
            late = {number: await self._let_go_on(number) for number in self.still}
            disagreed = [
                f"worker {number} was told {told.reason}, its successor {result.reason}"
                for number, told in late.items()
                # What waited for somebody to say may have been said by the zombie itself.
                if told.reason is not result.reason and not result.parked
            ]
            elapsed_s = self.clock.monotonic() - self.job.began_s
            scene = self._counted()
            return Worked(result, await self._record(gate, result), scene, elapsed_s, tuple(disagreed))
        finally:
            self._end()

    def _end(self) -> None:
        for worker in self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
                _, status = os.waitpid(worker.pid, 0)
                worker.returncode = os.waitstatus_to_exitcode(status)

    async def _until_done(self) -> RunResult:
        for number in range(self.most + 1):
            worker = self._start(number)
            status = await self._changed(worker)
            if os.WIFSTOPPED(status):
                self.still[number] = worker
                continue
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                continue
            return self._result(number, status)
        raise ConfigError(f"all {self.most + 1} workers died or stood still")

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        with (self.folder / f"errors-{number}").open("wb") as errors:
            worker = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "interlock.chaos.trial_worker", str(self.folder), str(number)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        self.alive.append(worker)
        return worker

    async def _changed(self, worker: subprocess.Popen[bytes]) -> int:
        """Return the status of a worker that has ended or stands still."""
        while True:
            pid, status = os.waitpid(worker.pid, os.WNOHANG | os.WUNTRACED)  # noqa: ASYNC222 - it does not wait
            if pid:
                if not os.WIFSTOPPED(status):
                    worker.returncode = os.waitstatus_to_exitcode(status)
                    self.alive.remove(worker)
                return status
            await self.clock.sleep(LOOKS_EVERY_S)

    async def _let_go_on(self, number: int) -> RunResult:
        worker = self.still[number]
        os.kill(worker.pid, signal.SIGCONT)
        return self._result(number, await self._changed(worker))

    def _result(self, number: int, status: int) -> RunResult:
        left = result_file(self.folder, number)
        if not left.exists():
            said = (self.folder / f"errors-{number}").read_text(errors="replace")[-KEPT_ERROR_CHARACTERS:].strip()
            raise ConfigError(f"worker {number} ended with {os.waitstatus_to_exitcode(status)} and no result: {said}")
        result: RunResult = pickle.loads(left.read_bytes())  # noqa: S301 - written by our own worker
        return result

    def _counted(self) -> Scene:
        scene = Scene((), seed=self.job.seed, clock=RealTrialClock(seed=self.job.seed), off=self.job.off)
        scene.began_s = self.job.began_s
        for line in Path(self.job.counted).read_bytes().splitlines():
            where, item = json.loads(line)
            if where == "injections":
                item = Injection(*item)
            elif where == "requests":
                item = Request(*item)
                item = item._replace(output=None if item.output is None else bytes.fromhex(str(item.output)))
            scene.note(where, tuple(item) if where == "calls" else item)
        return scene

    async def _record(self, gate: Interlock, result: RunResult) -> dict[str, Any]:
        """Return the record as whoever looks into the store finds it."""
        look = Scene((), seed=0, clock=RealTrialClock(seed=0))
        words: dict[str, Any] = {"settings": self.job.settings, "store": self.job.store, "clock": look.clock}
        async with gate.on_trial(look.trial(), **words) as reader:
            row = await reader.house().store.run(result.run_id)
        return {} if row is None or row.record is None else dict(row.record)


def _name_of(thing: Any) -> str:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if module in {None, "__main__"} or not name or "<" in name:
        raise ConfigError(
            "a worker that is killed needs an agent that another process can import: a function of a module, not "
            f"{thing!r}"
        )
    return f"{module}:{name}"


def _gate_name(agent: Any, gate: Interlock) -> str:
    for module in (sys.modules[agent.__module__], *list(sys.modules.values())):
        for name, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if value is gate and module.__name__ != "__main__":
                return f"{module.__name__}:{name}"
    raise ConfigError("a worker that is killed needs a gate that another process can import: a name in a module")
