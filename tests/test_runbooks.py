"""A stop reason means the same everywhere: enum, exit codes, severities, metric label, runbook."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import yaml

from interlock.core.categories import CATEGORIES
from interlock.core.reasons import EXIT_CODES, SEVERITIES, Severity, StopReason
from interlock.record.metrics import Metrics

SHIPPED = resources.files("interlock") / "runbooks"
RUNBOOKS = {path.name.removesuffix(".md"): path for path in SHIPPED.iterdir() if path.name.endswith(".md")}
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
FRONT_MATTER_KEYS = {"stop_reason", "severity", "alert", "category"}
COMMAND = re.compile(r"^interlock .+$|`(interlock [^`\n]+)`", re.MULTILINE)


def split(reason: str) -> tuple[dict, str]:
    _, front, body = RUNBOOKS[reason].read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def alert_name(reason: str) -> str:
    return "Interlock" + "".join(word.capitalize() for word in reason.split("_"))


def metric_labels() -> set[str]:
    metrics = Metrics()
    for reason in StopReason:
        metrics.run_ended("agent", reason, 1.0)
    line = r'interlock_runs_total\{agent="agent",stop_reason="(\w+)",category="none"\} 1'
    return set(re.findall(line, metrics.render()))


def test_the_lists_are_one_list():
    reasons = {reason.value for reason in StopReason}
    assert set(RUNBOOKS) == reasons
    assert {reason.value for reason in EXIT_CODES} == reasons
    assert {reason.value for reason in SEVERITIES} == reasons
    assert metric_labels() == reasons


def test_exit_codes_are_distinct_and_leave_room_for_the_shell():
    codes = EXIT_CODES.values()
    assert len(set(codes)) == len(codes)
    assert all(10 <= code <= 49 for reason, code in EXIT_CODES.items() if reason is not StopReason.SUCCESS)
    assert EXIT_CODES[StopReason.SUCCESS] == 0


@pytest.mark.parametrize("reason", StopReason)
class TestRunbook:
    def test_front_matter_agrees_with_the_code(self, reason):
        front, _ = split(reason)
        assert set(front) <= FRONT_MATTER_KEYS
        assert front["stop_reason"] == reason
        assert front["severity"] == SEVERITIES[reason]
        assert front.get("category") == CATEGORIES.get(reason)
        expected = None if SEVERITIES[reason] is Severity.NONE else alert_name(reason)
        assert front["alert"] == expected

    def test_sections_are_the_fixed_ones(self, reason):
        _, body = split(reason)
        assert re.findall(r"^# (.+)$", body, re.MULTILINE) == [reason]
        assert re.findall(r"^## (.+)$", body, re.MULTILINE) == SECTIONS
        for text in re.split(r"^## .+$", body, flags=re.MULTILINE)[1:]:
            assert text.strip()

    def test_it_says_what_it_is_in_its_first_line(self, reason):
        _, body = split(reason)
        first = body.strip().splitlines()[2]
        assert first.endswith(".")
        assert len(first) < 120

    def test_it_can_be_read_at_night(self, reason):
        _, body = split(reason)
        assert len(body.splitlines()) < 100
        assert COMMAND.search(body)


def test_every_alert_has_one_runbook():
    alerts = [split(reason)[0]["alert"] for reason in StopReason if reason is not StopReason.SUCCESS]
    assert len(set(alerts)) == len(alerts)
