"""Code in the documentation runs as it stands, and prints what the page says it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, Block, blocks

SESSIONS = []  # each: blocks that run one after the other in one fresh directory
EXPECTED: dict[Block, Block] = {}
for page in PAGES:
    previous = None
    for block in blocks(page):
        if "runnable" in block.words:
            if "continued" in block.words:
                SESSIONS[-1].append(block)
            else:
                SESSIONS.append([block])
        elif "output" in block.words:
            assert previous is not None, f"{block.name}: output of what?"
            EXPECTED[previous] = block
        previous = block if "runnable" in block.words else None

DEADLINE_S = 60


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INTERLOCK_", "PYTEST_", "COV_"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "USER": "ana",
        "PYTHONWARNINGS": "error",
    }


def execute(block: Block, directory: Path) -> str:
    """Run a block as a file of its own would run, and return what it printed."""
    match block.language:
        case "python":
            command = [sys.executable, "-c", block.text]
        case "sh":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
        case other:
            raise AssertionError(f"{block.name}: blocks of {other!r} cannot be run")
    done = subprocess.run(
        command, cwd=directory, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, f"{block.name} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pattern(expected: str) -> re.Pattern[str]:
    """`…` stands for any text inside a line; a line of `…` alone stands for any lines."""
    lines = []
    for line in expected.rstrip("\n").splitlines():
        lines.append(r"(?:.*\n)*?" if line.strip() == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"[ ]*\n")
    return re.compile("".join(lines))


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session[0].name)
def test_a_block_runs_and_prints_what_the_page_says(session, tmp_path):
    for block in session:
        printed = execute(block, tmp_path)
        if block in EXPECTED:
            wanted = EXPECTED[block].text
            assert pattern(wanted).fullmatch(printed), f"{block.name} printed\n{printed}\nand the page says\n{wanted}"


def test_there_is_something_to_run():
    assert len(SESSIONS) >= 12


@pytest.mark.parametrize(
    ("wanted", "printed", "fits"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("run_… ended\n", "run_12ab ended\n", True),
        ("a\n…\nz\n", "a\nb\nc\nz\n", True),
        ("a\n…\nz\n", "a\nz\n", True),
        ("1.5\n", "135\n", False),
    ],
)
def test_the_comparison_is_as_strict_as_it_should_be(wanted, printed, fits):
    assert bool(pattern(wanted).fullmatch(printed)) is fits
