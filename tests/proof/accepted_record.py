"""The accepted record of this project's own suites, schedules and stories: writes it, and says what differs.

    python tests/proof/accepted_record.py           what differs, in lines; exit 1 if anything does
    python tests/proof/accepted_record.py --accept  write it anew: look at the difference before you commit it
    python tests/proof/accepted_record.py --show NAME   the whole account of one section, nothing of it cut

Of most schedules the record has one line and a hash of the rest, of stories the beginnings of lines: `--show` in the
version before and in this one says what has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from schedule_life import live, wrong_with
from schedule_plans import DIRECTED
from schedule_seeded import plan_of
from schedule_stories import STORIES, told

from interlock.chaos.accepted import changes, read_accepted, sections_of, text_of
from interlock.chaos.account import rules_of
from interlock.chaos.child import find_subject
from interlock.chaos.faults import WORKER_KINDS
from interlock.chaos.plain_words import digits_of, shown
from interlock.chaos.suite import EVERYTHING, GOLDEN, Suite, Task, faults_of, load_suite
from interlock.chaos.trying import Outcome, settings_of, try_once

FILE = Path(__file__).with_name("accepted_record.txt")
SCHEDULES, IN_FULL, LONGEST, LONGEST_PROMPT = 200, 16, 88, 48
# Of stories, which are many: lines in full, characters of a line, and hashes that stand for the rest.
TOLD, SHORT, HASHES = 8, 64, 8

SUITES = {"golden": load_suite(GOLDEN), "everything": load_suite(EVERYTHING)}

# The account, and what is wrong with it whatever was accepted.
Part = tuple[tuple[str, ...], list[str]]


def names(schedules: int = SCHEDULES) -> list[str]:
    """Return the names of all sections: plans, tasks, schedules in full, stories, further schedules; then rules."""
    tasks = [
        f"task {task.name}"
        for suite in SUITES.values()
        for task in suite.tasks
        if not any(fault.kind in WORKER_KINDS for fault in faults_of(task))  # they are in other processes
    ]
    numbered = [f"schedule {number}" for number in range(schedules)]
    stories = [f"story {name}" for name in STORIES]
    rules = [f"rules {name}" for name in SUITES]
    return [*(f"plan {name}" for name in DIRECTED), *tasks, *numbered[:IN_FULL], *stories, *numbered[IN_FULL:], *rules]


def part(name: str) -> Part:
    """Return one section, each independent of the others; what is long is cut, and a hash stands for the rest."""
    account, wrong = in_full(name)
    kind, _, of = name.partition(" ")
    if kind == "story":
        return _short_story(account), wrong
    if kind == "schedule" and int(of) >= IN_FULL:
        account = account[0], f"the rest: #{digits_of(repr(account[1:]))}"
    return _cut(account, LONGEST), wrong


def in_full(name: str) -> Part:
    """Return one section, nothing of it cut."""
    kind, _, of = name.partition(" ")
    match kind:
        case "plan" | "schedule":
            lived = live(DIRECTED[of] if kind == "plan" else plan_of(int(of)), told=True)
            return lived.account, wrong_with(lived)
        case "story":
            story = told(of)
            return tuple(story.lines), list(story.wrong)
        case "rules":
            return _rules(SUITES[of]), []
        case _:
            return _tried(*next((suite, task) for suite in SUITES.values() for task in suite.tasks if task.name == of))


def _tried(suite: Suite, task: Task) -> Part:
    subject = find_subject(task.agent or suite.agent, suite.gate, suite)
    tried = try_once(subject.agent, subject.gate, suite, task, seed=suite.seed, told=True)
    rules = rules_of(settings_of(suite, subject.gate, task), subject.gate.tools)
    outcome = Outcome(task.name, task.expected.verdict, (tried,), rules=rules)
    wrong = [*tried.failures, *([tried.not_exercised] if tried.not_exercised else [])]
    return sections_of([outcome], _rules(suite))[task.name], wrong


def _rules(suite: Suite) -> tuple[str, ...]:
    """Return the rules that a suite's tasks have where they say nothing else."""
    gate = find_subject(suite.agent, suite.gate, suite).gate
    return rules_of(settings_of(suite, gate), gate.tools)


def _cut(account: Sequence[str], longest: int) -> tuple[str, ...]:
    return tuple(shown(line, LONGEST_PROMPT if line.startswith("prompt ") else longest) for line in account)


def _short_story(lines: Sequence[str]) -> tuple[str, ...]:
    step = max(10, -(-(len(lines) - TOLD) // HASHES))
    rest = range(TOLD, len(lines), step)
    hashes = (f"from line {first + 1}: #{digits_of(repr(lines[first : first + step]))}" for first in rest)
    return (*_cut(lines[:TOLD], SHORT), *hashes)


def whole() -> dict[str, tuple[str, ...]]:
    """Return the record as the code makes it now."""
    return {name: part(name)[0] for name in names()}


def main(words: list[str]) -> int:
    """Write, compare or show."""
    if words[:1] == ["--show"]:
        print("\n".join(in_full(" ".join(words[1:]))[0]))
        return 0
    found = whole()
    if words == ["--accept"]:
        FILE.write_text(text_of(found), encoding="utf-8")
        return 0
    differing = changes(read_accepted(FILE), found)
    print("\n".join(differing))
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
