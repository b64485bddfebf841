"""What reading recorded runs costs: calls a second through diagnose and backtest, and memory for a file of a gigabyte.

The file is one array on one line, the form that is hardest to stream; its runs are chat logs with answers of
about half a kilobyte. INTERLOCK_BENCH_MIB sets its size.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from interlock.forensics.funnel_report import backtest_funnel
from interlock.forensics.report import Report, diagnoses

__all__ = ["measure"]

MIB = int(os.environ.get("INTERLOCK_BENCH_MIB", "1024"))
CALLS_A_RUN = 10
RUNS = 2_000

PEAK = """
import sys
from interlock.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
with open("/proc/self/status") as status:
    sys.stderr.write("\\npeak " + next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def run_of(number: int) -> bytes:
    """Return one run as a chat log: reads of objects, a write, and an answer."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You serve customers. " * 20},
        {"role": "user", "content": f"Please change order {number}, and tell me when it will be here."},
    ]
    for n in range(CALLS_A_RUN):
        write = n == CALLS_A_RUN - 1
        name = "order_change" if write else "order_get"
        arguments = {"order_id": f"W{number}-{n}", "fields": ["state", "items"], "n": n}
        call = {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        items = [{"item_id": f"{number}{n}{i}", "name": "lamp, brass", "price": 12.5 + i} for i in range(7)]
        state = {"order_id": f"W{number}-{n}", "state": "changed" if write else "sent", "items": items}
        messages.append({"role": "tool", "tool_call_id": f"c{n}", "content": json.dumps(state)})
    messages.append({"role": "assistant", "content": "It is changed."})
    return json.dumps({"id": f"run_{number}", "success": True, "messages": messages}).encode()


def write_array(path: Path, mib: int) -> int:
    """Write one array of so many MiB, on one line; return how many runs are in it."""
    runs = [run_of(n) for n in range(256)]
    size, count = 0, 0
    with path.open("wb") as file:
        file.write(b"[")
        while size < mib << 20:
            data = runs[count % len(runs)]
            size += file.write(data if not count else b"," + data)
            count += 1
        file.write(b"]")
    return count


def _rate(work: Any, calls: int, rounds: int) -> list[float]:
    """Return calls a second of CPU time of this process, which has one thread at work."""
    rates = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        rates.append(calls / (time.process_time() - begin))
    return rates


def _peak_mib(*arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, check=True, text=True)
    return int(done.stderr.rsplit("peak ", 1)[1].split()[0]) / 1024


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures, and the samples behind them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.jsonl"
        path.write_bytes(b"\n".join(run_of(n) for n in range(RUNS)))
        calls = RUNS * CALLS_A_RUN
        diagnosed = _rate(lambda: list(diagnoses([path], Report())), calls, rounds)
        tested = _rate(lambda: backtest_funnel([path], deep=False, recorded_time=False), calls, rounds)
        huge = Path(folder) / "huge.json"
        runs = write_array(huge, MIB)
        peaks = {verb: _peak_mib(verb, str(huge), "--json") for verb in ("diagnose", "backtest")}
    what = f"{MIB:,} MiB, {runs:,} runs in one array on one line"
    return [
        Figure("diagnose: recorded calls a second and core", statistics.median(diagnosed), "/s", 20_000, at_most=False),
        Figure("backtest: recorded calls a second and core", statistics.median(tested), "/s", 20_000, at_most=False),
        Figure(f"diagnose: memory for {what}", peaks["diagnose"], "MiB", 300),
        Figure("backtest: memory for the same file", peaks["backtest"], "MiB", 300),
    ], {"diagnose_per_s": diagnosed, "backtest_per_s": tested, "peak_mib": peaks}
