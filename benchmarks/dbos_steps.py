"""Steps of DBOS workflows, in a process of their own: `python -m benchmarks.dbos_steps URL` answers lines of two numbers.

Each line asks for so many workflows at once of so many steps each; the answer is JSON: seconds of wall and of CPU.
A step returns at once, and is one durable record; a workflow's own start and end are taken out by whoever asks, with
a line of no steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["DbosSteps", "Steps"]

PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Steps:
    """What so many steps took."""

    count: int
    wall_s: float
    cpu_s: float


class DbosSteps:
    """The process that runs DBOS; a context manager.

    Args:
        url: Of its system database: `sqlite:////path` or `postgresql://…`.
    """

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.dbos_steps", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
        if not self._answer().get("ready"):
            raise RuntimeError("DBOS did not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()

    def run(self, workflows: int, steps: int) -> Steps:
        """Run workflows at once; what no steps take is taken out."""
        empty, full = self._ask(workflows, 0), self._ask(workflows, steps)
        return Steps(
            workflows * steps,
            max(1e-9, full["wall_s"] - empty["wall_s"]),
            max(1e-9, full["cpu_s"] - empty["cpu_s"]),
        )

    def _ask(self, workflows: int, steps: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(workflows, steps, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError("the process that runs DBOS has died")


def serve(url: str) -> None:
    from dbos import DBOS

    DBOS(config={"name": "benchmark", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})

    @DBOS.step()
    async def step(number: int) -> dict[str, Any]:
        return {"ok": True, "query": f"order {number}", "limit": 10}

    @DBOS.workflow()
    async def workflow(steps: int) -> int:
        for number in range(steps):
            await step(number)
        return steps

    async def burst(workflows: int, steps: int) -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        done = await asyncio.wait_for(asyncio.gather(*(workflow(steps) for _ in range(workflows))), PATIENCE_S)
        assert done == [steps] * workflows
        return time.perf_counter() - wall, time.process_time() - cpu

    async def main() -> None:
        DBOS.launch()
        await burst(4, 4)
        print(json.dumps({"ready": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            wall_s, cpu_s = await burst(*map(int, line.split()))
            print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s}), flush=True)

    asyncio.run(main())
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
