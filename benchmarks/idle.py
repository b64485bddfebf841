"""A worker that has nothing to do: the CPU of `interlock worker` over half a minute, as the kernel counts it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

__all__ = ["measure"]

SETTLE_S, WATCHED_S = 3.0, 30.0
MODULE = """
import interlock

gate = interlock.Interlock(store="sqlite:///interlock.db")


async def nothing(run, task):
    return None
"""


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used so far: nanoseconds of each of its threads."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def switches(pid: int) -> int:
    """Return how often its threads have gone to sleep so far."""
    lines = [
        line
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text(encoding="utf-8").splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def watched() -> tuple[float, float]:
    """Start a worker, and return its CPU seconds and how often it woke a second."""
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory:
        Path(directory, "idle_agents.py").write_text(MODULE, encoding="utf-8")
        worker = subprocess.Popen(
            [str(Path(sys.executable).with_name("interlock")), "worker", "--agent", "idle_agents:nothing"],
            cwd=directory,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": directory},
        )
        try:
            assert worker.stderr is not None
            worker.stderr.readline()
            time.sleep(SETTLE_S)
            before, slept = cpu_s(worker.pid), switches(worker.pid)
            time.sleep(WATCHED_S)
            return cpu_s(worker.pid) - before, (switches(worker.pid) - slept) / WATCHED_S
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=30)


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figure of this part; one sample is long enough, whatever `rounds` says."""
    used_s, woken = await asyncio.to_thread(watched)
    return [
        Figure(
            "An idle worker on a SQLite file",
            used_s / WATCHED_S * 100,
            "% of a processor",
            beside=f"{used_s * 1e3:.0f} ms of CPU in {WATCHED_S:.0f} s; it wakes {woken:.1f} times a second",
        )
    ], {"idle": {"cpu_s": used_s, "wakes_a_second": woken, "rounds": min(1, rounds)}}
