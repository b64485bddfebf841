"""What happens without each guard: `python -m interlock.chaos.guards_off` prints the tables of docs/chaos.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interlock.chaos.golden_agent import agent, gate
from interlock.chaos.suite import GOLDEN, load_suite
from interlock.chaos.trying import Repetition, try_once

__all__ = ["CATCHES", "NEXT_LAYERS", "GuardOff", "guards_off", "guards_off_table", "next_layers", "next_layers_table"]

# The guard that should catch it, and the task that fails without it.
CATCHES: Mapping[str, str] = {
    "timeout": "flaky_tool",
    "retry": "rate_limited",
    "outputs": "invalid_output",
    "allowlist": "adversarial_input",
    "meter": "loop_temptation",
}

# What one guard ends, and what is to be seen once it is gone.
NEXT_LAYERS: Mapping[str, list[dict[str, Any]]] = {
    "loops": [{"kind": "model_repeats"}],
    "admission": [{"kind": "reset"}],
    "switches": [{"kind": "kill_switch", "tool": "search.read", "calls": [1]}, {"kind": "model_slow", "delay_s": 3}],
    "timeout": [{"kind": "timeout", "delay_s": 40}],
    "meter": [{"kind": "partial_forever"}],
}


@dataclass(frozen=True, slots=True)
class GuardOff:
    """One task without one guard: what failed, how the run ended, and which effects slipped through."""

    guard: str
    task: str
    failure: str
    reason: str
    requests: Mapping[str, int]
    effects: Mapping[str, int]


def guards_off() -> list[GuardOff]:
    """Try each task without its guard."""
    suite = load_suite(GOLDEN)
    tasks = {task.name: task for task in suite.tasks}
    found = []
    for guard, name in CATCHES.items():
        tried = try_once(agent, gate, suite, tasks[name], seed=suite.seed, off=[guard])
        failure = tried.failures[0] if tried.failures else "it did not fail"
        found.append(GuardOff(guard, name, failure, tried.reason, tried.requests, tried.effects))
    return found


def next_layers() -> list[tuple[str, Repetition, Repetition]]:
    """Return, for each guard of `NEXT_LAYERS`, what the same faults come to with it and without it."""
    found = []
    for guard, faults in NEXT_LAYERS.items():
        suite = load_suite({"profile": "article", "tasks": [{"name": guard, "expect": "any", "faults": faults}]})
        task = suite.tasks[0]
        on, off = (try_once(agent, gate, suite, task, seed=suite.seed, off=words) for words in ([], [guard]))
        found.append((guard, on, off))
    return found


def next_layers_table(found: Sequence[tuple[str, Repetition, Repetition]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| guard | faults | with it | answered | without it | answered |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{guard}` | {', '.join(f'`{name}`' for name in on.injected)} | `{on.reason}` | {_counts(on.requests)} "
        f"| `{off.reason}` | {_counts(off.requests)} |"
        for guard, on, off in found
    ]
    return "\n".join(lines) + "\n"


def guards_off_table(found: Sequence[GuardOff]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| guard off | task that fails | because | the run then ends as | requests answered | effects |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.guard}` | `{row.task}` | {row.failure.replace('|', '/')} | `{row.reason}` "
        f"| {_counts(row.requests)} | {_counts(row.effects)} |"
        for row in found
    ]
    return "\n".join(lines) + "\n"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} `{name}`" for name, number in counts.items()) or "none"


if __name__ == "__main__":
    sys.stdout.write(guards_off_table(guards_off()) + "\n" + next_layers_table(next_layers()))
