"""Every command that a runbook tells a tired person to type can be typed: verb, arguments and options."""

from __future__ import annotations

import re
import shlex
from importlib import resources

import pytest

from interlock.cli.app import VERBS, load
from interlock.core.reasons import StopReason

COMMAND = re.compile(r"^interlock (.+)$|`interlock ([^`\n]+)`", re.MULTILINE)


def commands(reason: StopReason) -> list[str]:
    text = (resources.files("interlock") / "runbooks" / f"{reason}.md").read_text(encoding="utf-8")
    return [a or b for a, b in COMMAND.findall(text)]


def refused(line: str) -> str | None:
    """Read a command as the command line would, without doing it; return why it cannot be."""
    name, *args = shlex.split(line, comments=True)
    if name not in {verb.name for verb in VERBS}:
        return f"no verb {name}"
    try:
        command = load(name)
        if name == "approvals":
            name = args.pop(0)
            command = command.commands[name]
        command.make_context(name, args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("reason", StopReason)
def test_what_the_runbook_says_can_be_typed(reason):
    wrong = {line: why for line in commands(reason) if (why := refused(line)) is not None}
    assert wrong == {}


@pytest.mark.parametrize("line", ["kill tool x", "elucidate RUN", "runs --reason", "approvals approve", "show --nope"])
def test_the_reader_finds_what_cannot_be_typed(line):
    assert refused(line) is not None
