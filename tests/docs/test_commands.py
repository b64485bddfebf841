"""Every command that a page or a runbook shows is run, against a store in which there is something to see."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from pages import PAGES, RUNBOOKS, commands

import interlock
from interlock.cli.app import main

# Verbs that are run elsewhere: they take long, or need files of their own.
ELSEWHERE = {
    "chaos": "tests/chaos",
    "load": "tests/chaos",
    "drill": "tests/chaos",
    "backtest": "tests/forensics",
    "diagnose": "tests/cli/test_forensics.py",
    "calibrate": "tests/cli/test_forensics.py",
    "init": "the tutorial's own blocks",
    "worker": "tests/supervisor",
}
SHOWN = sorted({command for page in (*PAGES, *RUNBOOKS) for command in commands(page)})


def takes_nothing(words: list[str]) -> bool:
    """A verb that a sentence mentions without its arguments."""
    if words[1] == "memory":
        return "--tenant" not in words
    return len(words) == 2 and words[1] in {"settle", "kill", "lift", "safe-mode", "approvals"}


RUN = [c for c in SHOWN if shlex.split(c)[1] not in ELSEWHERE and not takes_nothing(shlex.split(c))]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A store with a run, a doubt and an approval that waits; and what stands for the words in capitals."""
    place = tmp_path_factory.mktemp("store")
    (place / "interlock.yaml").write_text("approvals: {wait_s: 0}\ntools: {allow: ['*']}\nlogging: {level: error}\n")
    gate = interlock.Interlock(place / "interlock.yaml")

    @gate.tool("invoice.send", effect="write")
    def send() -> None:
        raise TimeoutError

    @gate.tool("refund.create", effect="write", approval="required", natural=True)
    def refund() -> None: ...

    doubt = gate.run_sync(lambda run, task: run.call("invoice.send"), "t", request_id="req_1", agent_name="triage")
    waits = gate.run_sync(lambda run, task: run.call("refund.create"), "t", request_id="req_2", agent_name="triage")
    fact = gate.run_sync(remember, "t", tenant_id="acme").output
    aside = gate.run_sync(remember, "u", tenant_id="acme").output
    gate.close()
    assert type_in(["memory", "quarantine", aside, "--tenant", "acme", "--config", str(place / "interlock.yaml")]) == 0
    words = {
        "FACT": fact,
        "ASIDE": aside,
        "RUN": doubt.run_id,
        "KEY": doubt.details["doubts"][0],
        "ID": waits.details["approval_id"],
        "RESULT": '"sent"',
        "REASON": "loop_detected",
        "YOU": "ana",
    }
    return place, words


async def remember(run, task):
    scope = run.memory.scope(user="ann")
    return (await run.memory.remember(f"said {task}", scope=scope, tags=["trial"])).fact_id


def filled(command: str, words: dict[str, str]) -> list[str]:
    """The words after `interlock`, with something real for each word in capitals."""
    return [words.get(word, word) for word in shlex.split(command, comments=True)[1:]]


def type_in(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", RUN)
def test_a_command_works_as_it_is_shown(command, scene, tmp_path, monkeypatch, capsys):
    place, words = scene
    for file in place.iterdir():
        if not file.name.endswith("-lock"):
            shutil.copy(file, tmp_path / file.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INTERLOCK_STORE", raising=False)
    arguments = filled(command, words)
    if arguments[0] == "lift":
        assert type_in(["kill", *arguments[1:]]) == 0
    code = type_in(arguments)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out.strip() or printed.err.strip()


def test_enough_is_shown_to_be_worth_running():
    assert len(RUN) > 30
    assert {command.split()[1] for command in RUN} >= {"runs", "show", "doubts", "settle", "approvals", "kill", "lift"}


def test_pages_exist():
    assert all(isinstance(page, Path) and page.exists() for page in PAGES)
