"""What starting costs: importing everything a run needs, and what the command line's help pulls in."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from benchmarks.kit import calibrate

__all__ = ["HEAVY", "Start", "help_modules", "measure_import"]

HEAVY = ("asyncio", "pydantic", "sqlite3", "yaml", "cryptography", "orjson", "rich")

# A gate is made and its parts are wired, so that everything a run needs is imported before the process ends.
A_GATE = """
import interlock
gate = interlock.Interlock(store="sqlite:///:memory:")

@gate.tool("orders.read", effect="read")
async def search(query: str) -> dict:
    return {}

gate.house()
"""

PEAK = """
import sys
with open("/proc/self/status") as status:
    sys.stderr.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""

HELP = """
import json, sys
sys.argv = ["interlock", "--help"]
from interlock.cli.app import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """A process from its start to its end, in CPU milliseconds (normalised), and its peak memory."""

    cpu_ms: float
    peak_mib: float


def _process(code: str, environment: dict[str, str]) -> Start:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    calibration = calibrate()
    done = subprocess.run(
        [sys.executable, "-c", code + PEAK], capture_output=True, check=True, text=True, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    calibration = (calibration + calibrate()) / 2
    cpu_ms = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3
    return Start(cpu_ms / calibration, int(done.stderr.split()[-1]) / 1024)


def measure_import(rounds: int = 9) -> dict[str, Start]:
    """Return the start of Python alone, of pydantic, and of a gate that is ready for its first run."""
    programs = {"python": "", "pydantic": "from pydantic import BaseModel, TypeAdapter", "interlock": A_GATE}
    samples: dict[str, list[Start]] = {name: [] for name in programs}
    fastest = calibrate()
    with tempfile.TemporaryDirectory() as cache:
        # Modules are compiled once, as an installer does it, and not in each process.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        for code in programs.values():
            _process(code, environment)
        for _ in range(rounds):
            for name, code in programs.items():
                samples[name].append(_process(code, environment))
                fastest = min(fastest, calibrate())
    return {
        name: Start(statistics.median(s.cpu_ms for s in found) * fastest, statistics.median(s.peak_mib for s in found))
        for name, found in samples.items()
    }


def help_modules() -> list[str]:
    """Return the top-level modules that `interlock --help` imports."""
    environment = os.environ | {"TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, check=True, text=True, env=environment)
    found: list[str] = json.loads(done.stderr[done.stderr.rindex("[") :])
    return found
