"""The accepted record of this project's own suites, schedules and stories: writes it, and says what differs.

    python tests/proof/accepted_record.py           what differs, in lines; exit 1 if anything does
    python tests/proof/accepted_record.py --accept  write it anew: look at the difference before you commit it
    python tests/proof/accepted_record.py --show NAME   the whole account of one section, nothing of it cut

Of most schedules the record has one line and a hash of the rest, of stories the beginnings of lines: `--show` in the
version before and in this one says what has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
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
SCHEDULES, IN_FULL, LONGEST = 200, 25, 110
# Of stories, which are many: lines in full, characters of a line, and lines behind one hash.
TOLD, SHORT, TOGETHER = 30, 72, 8

# name, account, what is wrong with it whatever was accepted
Part = tuple[str, tuple[str, ...], list[str]]


def parts(schedules: int = SCHEDULES) -> Iterator[Part]:
    """Yield everything that the record is made of, one by one; what is long is cut, and a hash stands for the rest."""
    for name, account, wrong in _parts(schedules):
        yield name, _short_story(account) if name.startswith("story ") else _cut(account, LONGEST), wrong


def _parts(schedules: int) -> Iterator[Part]:
    for name, plan in DIRECTED.items():
        lived = live(plan, told=True)
        yield f"plan {name}", lived.account, wrong_with(lived)
    for source in (GOLDEN, EVERYTHING):
        suite = load_suite(source)
        for task in suite.tasks:
            if not any(fault.kind in WORKER_KINDS for fault in faults_of(task)):  # they are in other processes
                yield _tried(suite, task)
    yield from _scheduled(range(min(schedules, IN_FULL)))
    for name in STORIES:
        story = told(name)
        yield f"story {name}", tuple(story.lines), list(story.wrong)
    yield from _scheduled(range(IN_FULL, schedules))


def _scheduled(numbers: range) -> Iterator[Part]:
    for number in numbers:
        lived = live(plan_of(number), told=True)
        account = lived.account
        if number >= IN_FULL:
            account = account[0], f"the rest: #{digits_of(repr(account[1:]))}"
        yield f"schedule {number}", account, wrong_with(lived)


def _tried(suite: Suite, task: Task) -> Part:
    subject = find_subject(task.agent or suite.agent, suite.gate, suite)
    tried = try_once(subject.agent, subject.gate, suite, task, seed=suite.seed, told=True)
    rules = rules_of(settings_of(suite, subject.gate, task), subject.gate.tools)
    outcome = Outcome(task.name, task.expected.verdict, (tried,), rules=rules)
    wrong = [*tried.failures, *([tried.not_exercised] if tried.not_exercised else [])]
    return f"task {task.name}", sections_of([outcome], SHARED.setdefault(suite.agent, rules))[task.name], wrong


SHARED: dict[str | None, tuple[str, ...]] = {}


def _cut(account: Sequence[str], longest: int) -> tuple[str, ...]:
    return tuple(shown(line, longest) for line in account)


def again(name: str) -> tuple[tuple[str, ...], list[str]]:
    """Tell a story once more: some have threads, which a crowded machine may keep waiting for too long."""
    story = told(name.removeprefix("story "))
    return _short_story(story.lines), list(story.wrong)


def _short_story(lines: Sequence[str]) -> tuple[str, ...]:
    rest = range(TOLD, len(lines), TOGETHER)
    return (
        *_cut(lines[:TOLD], SHORT),
        *(f"lines from {first + 1} on: #{digits_of(repr(lines[first : first + TOGETHER]))}" for first in rest),
    )


def whole(schedules: int = SCHEDULES) -> dict[str, tuple[str, ...]]:
    """Return the record as the code makes it now."""
    found = {name: account for name, account, _ in parts(schedules)}
    return {**whole_rules(), **found}


def whole_rules() -> dict[str, tuple[str, ...]]:
    """Return the rules that tasks of a suite have where they have no others; after its tasks were tried."""
    return {f"rules of {agent or 'the golden tasks'}": rules for agent, rules in SHARED.items()}


def in_full(name: str) -> Sequence[str]:
    """Return the account of a section, nothing of it cut."""
    if name.startswith("schedule "):
        return live(plan_of(int(name.removeprefix("schedule "))), told=True).account
    if name.startswith("story "):
        return told(name.removeprefix("story ")).lines
    return {each: account for each, account, _ in _parts(0)}[name]


def main(words: list[str]) -> int:
    """Write, compare or show."""
    if words[:1] == ["--show"]:
        print("\n".join(in_full(" ".join(words[1:]))))
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
