"""Category 8: failures that were seen and that no golden task covers; a property of a suite, never of a run.

A suite is YAML: a list of tasks, or an object with the list under `golden_tasks` or `tasks`. Each has a `name`, what it
injects (`inject: timeout_50%`) or what is said to it (`input`), and what it expects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from interlock.core.errors import ConfigError
from interlock.forensics.report import Report

__all__ = ["load_suite", "uncovered"]

# A fault that runs met: what it is called, and the words by which a golden task injects it.
_FAULTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (fault, re.compile(words, re.IGNORECASE))
    for fault, words in (
        ("timeout", r"time.?out|slow|hang|latency"),
        ("rate_limit", r"429|rate.?limit"),
        ("server_or_network", r"50[0234]|unavailable|reset|lost|outage|network"),
        ("auth", r"40[13]|auth|forbidden|credential"),
        ("bad_arguments", r"argument|invalid.?input|bad.?input|validation"),
        ("not_found", r"404|not.?found|missing|empty"),
        ("business_or_other", r"error|reject|refus|business|4\d\d"),
    )
)
# A verdict that runs had: what it is called, and the words by which a task provokes it.
_PROVOKED: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (verdict, name, re.compile(words, re.IGNORECASE))
    for verdict, name, words in (
        ("1", "a loop", r"loop|partial.?results|forever|budget|no.?progress|repeat"),
        (
            "2",
            "an instruction out of a tool's answer, or a refusal",
            r"inject|adversar|ignore|instruction|deni|polic|kill",
        ),
        ("3", "a write sent twice or in doubt", r"duplicate|lost|in.?doubt|idempot|50[0234]|retry|twice"),
        ("4", "an answer that breaks its schema", r"schema|malformed|invalid.?output|mismatch|garbage"),
        ("5", "stale or overgrown memory", r"memory|stale|context|prompt.?growth|poison"),
        ("7", "one key from two runs", r"concurren|redeliver|two.?workers|duplicate.?delivery|restart|race"),
    )
)


def load_suite(path: Path) -> list[str]:
    """Return the golden tasks of a file, each as the words it consists of.

    Raises:
        ConfigError: The file cannot be read, or holds no list of tasks with names.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    tasks = data.get("golden_tasks", data.get("tasks")) if isinstance(data, dict) else data
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "name" in task for task in tasks):
        raise ConfigError(f"{path}: a list of tasks, each with a `name`, is expected (or that list under golden_tasks)")
    return [_words(task) for task in tasks]


def uncovered(report: Report, golden: list[str]) -> Iterator[str]:
    """Yield each failure that was seen and that no task of the suite provokes."""
    text = "\n".join(golden)
    for verdict, name, words in _PROVOKED:
        runs = report.verdicts.get(verdict, 0)
        if runs and not words.search(text):
            yield f"{runs} runs show {name} (category {verdict}), and no golden task does"
    met: dict[str, int] = {}
    for (_, fault), calls in report.seen_pairs.items():
        met[fault] = met.get(fault, 0) + calls
    for fault, words in _FAULTS:
        if met.get(fault) and not words.search(text):
            yield f"{met[fault]} calls failed with {fault}, and no golden task injects it"


def _words(task: dict[str, Any]) -> str:
    return " ".join(f"{key}: {value}" for key, value in task.items())
