"""`interlock` itself: help, panels, errors, and what a bare `--help` imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interlock.cli.app import VERBS

PANELS = ("Start", "Look", "Act", "Learn", "Prove", "Run")
INTERLOCK = Path(sys.executable).parent / "interlock"


def child(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(args, capture_output=True, text=True, timeout=60, env=os.environ | env, check=False)


@pytest.mark.parametrize("args", [["--help"], [], ["--version"]])
def test_help_imports_nothing_heavy(args):
    code = f"""
import sys
sys.argv = ["interlock", *{args!r}]
from interlock.cli.app import main
try:
    main()
except SystemExit:
    pass
print(*sorted(sys.modules), file=sys.stderr)
"""
    modules = set(child(sys.executable, "-c", code).stderr.split())
    assert "interlock.cli.app" in modules
    heavy = {"pydantic", "sqlite3", "asyncio", "yaml", "orjson", "cryptography", "httpx"}
    assert modules & heavy == set()
    assert [name for name in modules if name.startswith("interlock.cli.") and name != "interlock.cli.app"] == []


def test_every_verb_stands_in_its_panel():
    out = child(str(INTERLOCK), "--help", COLUMNS="120").stdout
    titles = [panel for panel in PANELS if f"─ {panel} ─" in out]
    assert titles == [panel for panel in PANELS if any(verb.panel == panel for verb in VERBS)]
    for verb in VERBS:
        assert f" {verb.name} " in out
        assert verb.help in out


@pytest.mark.parametrize("verb", VERBS, ids=[verb.name for verb in VERBS])
def test_every_verb_loads_and_has_json(typed, verb):
    said = typed(verb.name, "--help")
    assert said.code == 0
    if verb.name in {"approvals", "memory"}:
        said = typed(verb.name, "list", "--help")
    if verb.name == "chaos":
        said = typed(verb.name, "run", "--help")
    assert "--json" in said.out


def test_a_verb_that_is_not_there(typed):
    said = typed("chekc")
    assert said.code == 2
    assert "No such command 'chekc'" in said.err


def test_version(typed):
    assert typed("--version").out.startswith("interlock 0.")


def test_errors_are_one_line_and_exit_1(typed):
    said = typed("runs")
    assert said.code == 1
    assert said.err == "error: there is no store at interlock.db: name it with --store URL or INTERLOCK_STORE\n"
    assert said.out == ""


def test_a_reader_that_goes_away_is_no_error(here):
    done = child("bash", "-c", f"set -o pipefail; {INTERLOCK} check --schema | head -1")
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr
