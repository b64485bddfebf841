"""A whole suite: its tasks in processes of their own, side by side; whatever they start is gone when they are done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlock.chaos.suite import Suite, Task, faults_of
from interlock.chaos.trying import Outcome, Repetition

__all__ = ["SuiteRun", "run_suite"]

KEPT_ERROR_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What is run.

    Attributes:
        source: Path of the suite's file. suite: what it says.
        agent, gate: `module:name`, before what the suite says; without any, the golden tasks' own agent, and the
            only gate of the agent's module.
        only: Names of tasks; empty is all. at_once: processes side by side. told: every trial gives an account.
    """

    source: Path
    suite: Suite
    agent: str | None = None
    gate: str | None = None
    only: tuple[str, ...] = ()
    at_once: int = 2
    told: bool = False


async def run_suite(run: SuiteRun, done: Callable[[Outcome], None]) -> list[Outcome]:
    """Try the tasks and return what became of them, in the order of the suite; `done` is told of each."""
    places = asyncio.Semaphore(run.at_once)

    async def one(task: Task) -> Outcome:
        async with places:
            outcome = await _in_child(run, task)
        done(outcome)
        return outcome

    tasks = [task for task in run.suite.tasks if not run.only or task.name in run.only]
    return list(await asyncio.gather(*(one(task) for task in tasks)))


async def _in_child(run: SuiteRun, task: Task) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="interlock-chaos-") as place:
        answer = Path(place) / "outcome.json"
        job = {
            "suite": str(run.source),
            "task": task.name,
            "agent": run.agent or task.agent or run.suite.agent,
            "gate": run.gate or run.suite.gate,
            "path": [str(Path.cwd()), ""],
            "answer": str(answer),
            "told": run.told,
        }
        with (Path(place) / "stderr").open("w+b") as errors:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "interlock.chaos.child",
                stdin=asyncio.subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                # What it leaves lying about goes with the folder, even if it is killed.
                env={**os.environ, "TMPDIR": place},
                start_new_session=True,
            )
            error = await _until_done(child, json.dumps(job).encode(), run.suite.limit_s)
            if not error and not answer.exists():
                errors.seek(0)
                said = errors.read().decode(errors="replace")[-KEPT_ERROR_CHARACTERS:].strip()
                error = f"its process ended with {child.returncode} and no outcome: {said}"
        if error:
            labels = tuple(fault.label for fault in faults_of(task))
            return Outcome(task.name, task.expected.verdict, error=error, faults=labels)
        return _outcome(json.loads(answer.read_text(encoding="utf-8")))


async def _until_done(child: asyncio.subprocess.Process, job: bytes, limit_s: float) -> str:
    """Let the child work, then end everything of its session; return what went wrong, or ""."""
    try:
        async with asyncio.timeout(limit_s):
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                child.stdin.write(job)
                await child.stdin.drain()
            child.stdin.close()
            await child.wait()
    except TimeoutError:
        return f"not done within limit_s = {limit_s:g}: the agent hangs, or the limit is too short"
    finally:
        # Of the whole session: what the agent has started must not outlive its task.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    return ""


def _outcome(data: dict[str, Any]) -> Outcome:
    data.pop("verdict")
    repetitions = tuple(
        Repetition(**{**each, "failures": tuple(each["failures"]), "account": tuple(each["account"])})
        for each in data.pop("repetitions")
    )
    lists = {"faults": tuple(data["faults"]), "rules": tuple(data["rules"])}
    return Outcome(**{**data, **lists, "repetitions": repetitions})
