"""Proves that the checklist is needed: without a guard, or without a key, a named test fails.

In copies of the tree: each guard of `tests/requirements.py` is switched off, and one of its item's tests must fail;
so is each thing of `tests/memory/needed.py`;
each key of the configuration is forgotten, and the test with its two values must fail. Exit 1 if one does not.

`python tools/checklist.py [WORD…]` tries only what has one of the words in its name. Takes some minutes.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "checklist"), str(ROOT / "tests" / "memory")]

from keys import PROBES  # noqa: E402 - beside the tests
from needed import NEEDED  # noqa: E402

from requirements import REQUIREMENTS, Off  # noqa: E402

COPIED = (
    "src",
    "tests",
    "tools",
    "docs",
    "examples",
    "benchmarks",
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
READS_THE_FILE = Off(
    "src/interlock/config/settings.py",
    "data = without_empty(document.data)",
    'data = __import__("forgetting").forget(without_empty(document.data))',
)
FORGETTING = '''"""Forgets one key of every configuration: see tools/checklist.py."""
import os

def forget(data, path=None):
    head, *rest = path or os.environ["FORGOTTEN_KEY"].split(".")
    kept = dict(data)
    for name in [name for name in kept if head in ("*", name)]:
        if not rest:
            del kept[name]
        elif isinstance(kept[name], dict):
            kept[name] = forget(kept[name], rest)
    return kept
'''
DEADLINE_S = 120
KEY_TEST = "tests/checklist/test_keys.py::test_two_values_have_two_outcomes[{}]"


@dataclass(frozen=True)
class Trial:
    """Something that is switched off, and the tests of which one must then fail."""

    name: str
    off: Off
    tests: tuple[str, ...]
    forgotten: str = ""


def trials() -> list[Trial]:
    """Return every guard, what memory's promises rest on, and every key."""
    guards = [
        Trial(f"{r.item}{': ' + r.part if r.part else ''} [{r.guard}]", r.off, r.tests) for r in REQUIREMENTS if r.off
    ]
    memory = [Trial(each.name, each.off, each.tests) for each in NEEDED]
    return guards + memory + [Trial(f"key {key}", READS_THE_FILE, (KEY_TEST.format(key),), key) for key in PROBES]


def copy_tree(place: Path) -> Path:
    """Copy what the tests need, and return where it lies."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place / name)
    (place / "src" / "forgetting.py").write_text(FORGETTING, encoding="utf-8")
    return place


def run_tests(place: Path, tests: Sequence[str], forgotten: str = "") -> tuple[int, str]:
    """Run tests of a copy; return pytest's exit code and what it printed. A hang counts as a failure."""
    environment = os.environ | {
        "PYTHONPATH": str(place / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FORGOTTEN_KEY": forgotten or "no such key",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=line", *tests]
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "1 failed: it hung"
    return done.returncode, done.stdout + done.stderr


def switched_off(place: Path, off: Off) -> str:
    """Switch something off in the copy, and return the text that was there."""
    path = place / off.file
    before = path.read_text(encoding="utf-8")
    if off.new is None:
        path.unlink()
    else:
        assert before.count(off.old) == 1, f"{off.file}: {off.old!r} stands there {before.count(off.old)} times"
        path.write_text(before.replace(off.old, off.new), encoding="utf-8")
    return before


def attempt(trial: Trial, places: queue.Queue[Path]) -> tuple[Trial, str]:
    """Try one thing in a free copy; return what is wrong, or nothing."""
    place = places.get()
    try:
        before = switched_off(place, trial.off)
        try:
            code, printed = run_tests(place, trial.tests, trial.forgotten)
        finally:
            (place / trial.off.file).write_text(before, encoding="utf-8")
    finally:
        places.put(place)
    if code == 0:
        return trial, "no test fails without it"
    if code != 1 or not re.search(r"\b[1-9]\d* failed", printed):
        return trial, "its tests could not be run:\n" + printed[-2_000:]
    return trial, ""


def main(words: list[str]) -> int:
    """Try everything whose name has one of the words; print one line each."""
    chosen = [trial for trial in trials() if not words or any(word in trial.name for word in words)]
    workers = min(len(chosen), os.cpu_count() or 1) or 1
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="interlock-checklist-") as directory:
        places: queue.Queue[Path] = queue.Queue()
        for number in range(workers):
            places.put(copy_tree(Path(directory) / str(number)))
        whole = places.get()
        code, printed = run_tests(whole, sorted({test for trial in chosen for test in trial.tests}))
        places.put(whole)
        if code != 0:
            print(printed[-4_000:])
            print("the tests fail with everything switched on: nothing can be concluded")
            return 1
        with ThreadPoolExecutor(workers) as pool:
            for trial, fault in pool.map(lambda trial: attempt(trial, places), chosen):
                print(
                    f"{'needed' if not fault else 'WRONG ':7} {trial.name}{': ' + fault if fault else ''}", flush=True
                )
                wrong += bool(fault)
    for requirement in REQUIREMENTS:
        if requirement.not_yet and not words:
            print(f"not yet {requirement.item}: {requirement.not_yet}")
    print(f"{len(chosen) - wrong} of {len(chosen)}: each has a test that fails without it")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
