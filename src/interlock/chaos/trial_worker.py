"""One worker of a trial with several: `python -m interlock.chaos.trial_worker FOLDER NUMBER`; see `workers`.

It runs the request as a worker in production does. What is counted goes line by line into a file, so that it
survives the process.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from interlock.chaos.delivery import deliver
from interlock.chaos.faults import REQUEST_KINDS
from interlock.chaos.scene import Injection, RealTrialClock, Scene
from interlock.chaos.suite import Task, faults_of
from interlock.config.gate import Interlock
from interlock.config.sections import Settings
from interlock.core.results import RunResult

__all__ = ["Job", "result_file", "unchangeable"]


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of one repetition is told.

    Attributes:
        agent, gate: `module:name`. path: of imports. store: `sqlite:///…`, which they share.
        began_s: On the monotonic clock of the machine. counted: the file to write to.
    """

    agent: str
    gate: str
    path: tuple[str, ...]
    task: Task
    settings: Settings
    seed: int
    off: tuple[str, ...]
    store: str
    began_s: float
    counted: str


def result_file(folder: Path, number: int) -> Path:
    """Return the file in which a worker leaves its result."""
    return folder / f"result-{number}"


def unchangeable(mapping: dict[Any, Any]) -> Mapping[Any, Any]:
    """Return a mapping that nobody may change."""
    return MappingProxyType(mapping)


def main(folder: Path, number: int) -> None:
    """Be the worker of this number."""
    job: Job = pickle.loads((folder / "job").read_bytes())  # noqa: S301 - written by the process that started this one
    sys.path[:0] = [place for place in job.path if place not in sys.path]
    agent, gate = (pkgutil.resolve_name(name) for name in (job.agent, job.gate))
    # What earlier workers met is on the run's record too, which the last one writes.
    counted = Path(job.counted)
    lines = [json.loads(line) for line in counted.read_bytes().splitlines()] if number else []
    before = [Injection(*item) for where, item in lines if where == "injections"]
    with counted.open("ab", buffering=0) as file:
        result = asyncio.run(_work(job, agent, gate, number, before, file))
    # Some entrances return a kind of their own, with the framework's objects in it.
    result = RunResult(**{each.name: getattr(result, each.name) for each in fields(RunResult)})
    try:
        left = pickle.dumps(result)
    except Exception:  # an output that no other process could read
        left = pickle.dumps(replace(result, output=repr(result.output), details={}))
    place = folder / f"partial-{number}"
    place.write_bytes(left)
    place.rename(result_file(folder, number))


async def _work(
    job: Job, agent: Any, gate: Interlock, number: int, before: Sequence[Injection], counted: BinaryIO
) -> RunResult:
    def tell(where: str, item: Any) -> None:
        counted.write(json.dumps([where, item], default=bytes.hex).encode() + b"\n")

    clock = RealTrialClock(seed=job.seed)
    scene = Scene(faults_of(job.task), seed=job.seed, clock=clock, off=job.off, worker=number, tell=tell)
    scene.began_s = job.began_s
    scene.injections += before
    async with gate.on_trial(scene.trial(), settings=job.settings, store=job.store, clock=clock) as tried:
        # A request is sent to each worker once.
        alone = replace(job.task, faults=tuple(f for f in job.task.faults if f.kind not in REQUEST_KINDS))
        return await deliver(agent, gate, [tried], scene, alone)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
