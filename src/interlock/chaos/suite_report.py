"""What a suite found, as a value: its measures, JSON, JUnit XML, and a page that opens from a disk."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from xml.sax.saxutils import escape as xml
from xml.sax.saxutils import quoteattr

from interlock.chaos.coverage import Coverage, coverage_of
from interlock.chaos.scene import GUARDS
from interlock.chaos.trying import Outcome, Repetition

__all__ = ["SuiteReport"]

_STYLE = """
:root{color-scheme:light dark;--line:#8884}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;
padding:0 1rem}h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;
border-bottom:1px solid var(--line);text-align:left;vertical-align:top}code{font-size:.9em;overflow-wrap:anywhere}
.passed{color:#2e8b57}.failed,.error{color:#d9534f}.not{color:#c98500}
"""


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """A suite and what became of it.

    Attributes:
        source: The suite, as named on the command line. options: further words of that command.
        lacks: What production has and the suite lacks, in sentences; None where that was not asked.
        changes: What is not as it was accepted, in lines; None where that was not asked.
    """

    source: str
    options: tuple[str, ...]
    outcomes: Sequence[Outcome]
    warnings: Sequence[str] = ()
    lacks: Sequence[str] | None = None
    changes: Sequence[str] | None = None

    @property
    def exit_code(self) -> int:
        """0 if every task passed and all is as it was accepted, else 1."""
        return 0 if not self.changes and all(outcome.verdict == "passed" for outcome in self.outcomes) else 1

    def replay(self, outcome: Outcome) -> str:
        """Return the one command that tries this task again, with the same seeds."""
        return shlex.join(("interlock", "chaos", "run", self.source, *self.options, "--task", outcome.name))

    def measures(self) -> dict[str, Any]:
        """Return what the suite measured: under faults only, where nothing else is said."""
        faulty = [each for outcome in self.outcomes if outcome.faults for each in outcome.repetitions if each.injected]
        recovered = [each.recovery_s for each in faulty if each.recovery_s is not None]
        with_baseline = [outcome for outcome in self.outcomes if outcome.baseline == "success"]
        ended_well = sum(_share_of_success(outcome.repetitions) for outcome in with_baseline)
        return {
            "repetitions": sum(len(outcome.repetitions) for outcome in self.outcomes),
            "tries_under_faults": len(faulty),
            "faults_injected": sum(sum(each.injected.values()) for each in faulty),
            "recovery_rate": None if not faulty else len(recovered) / len(faulty),
            "recovery_s_mean": None if not recovered else sum(recovered) / len(recovered),
            "recovery_s_longest": max(recovered, default=None),
            "duplicates": sum(each.duplicates for outcome in self.outcomes for each in outcome.repetitions),
            "success_under_faults_over_baseline": None if not with_baseline else ended_well / len(with_baseline),
            "false_stops": sum(outcome.false_stops for outcome in self.outcomes),
            "usd_under_faults": round(sum(each.cost_usd for each in faulty), 6),
            "usd_of_baselines": round(sum(outcome.baseline_usd for outcome in self.outcomes), 6),
            "stop_reasons": dict(Counter(e.reason for outcome in self.outcomes for e in outcome.repetitions)),
        }

    @property
    def coverage(self) -> Coverage:
        """What was exercised."""
        return coverage_of(self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "suite": self.source,
            "warnings": list(self.warnings),
            "measures": self.measures(),
            "coverage": self.coverage.as_json(GUARDS),
            "lacking": None if self.lacks is None else list(self.lacks),
            "changes": None if self.changes is None else list(self.changes),
            "tasks": [
                {**outcome.as_json(), "why": outcome.why, "replay": self.replay(outcome)} for outcome in self.outcomes
            ],
        }

    def as_junit(self) -> str:
        """Return JUnit XML: one test case a task."""
        verdicts = Counter(outcome.verdict for outcome in self.outcomes)
        failures = verdicts["failed"] + verdicts["not exercised"]
        cases = "".join(self._case(outcome) for outcome in self.outcomes)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<testsuite name={quoteattr(self.source)} tests="{len(self.outcomes)}" failures="{failures}" '
            f'errors="{verdicts["error"]}">\n{cases}</testsuite>\n'
        )

    def _case(self, outcome: Outcome) -> str:
        seconds = sum(each.elapsed_s for each in outcome.repetitions)
        opened = f'  <testcase classname="chaos" name={quoteattr(outcome.name)} time="{seconds:.3f}"'
        if outcome.verdict == "passed":
            return f"{opened}/>\n"
        what = "error" if outcome.verdict == "error" else "failure"
        message = quoteattr(f"{outcome.verdict}: {_printable(outcome.why)}")
        return f"{opened}>\n    <{what} message={message}>{xml(self.replay(outcome))}</{what}>\n  </testcase>\n"

    def as_html(self) -> str:
        """Return a page that fetches nothing and runs nothing; every text in it is escaped."""
        measured = "".join(
            f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in self.measures().items()
        )
        rows = "".join(self._row(outcome) for outcome in self.outcomes)
        heads = "".join(f"<th>{head}</th>" for head in ("task", "verdict", "baseline", "reasons", "faults", "why"))
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
            f"<title>Interlock chaos</title><style>{_STYLE}</style></head><body><h1>{escape(self.source)}</h1>"
            f"<table><tr>{heads}</tr>{rows}</table><h2>Measured</h2><table>{measured}</table>"
            f"<h2>Exercised</h2><table><tr><th></th><th>yes</th><th>no</th></tr>{self._covered()}</table>"
            f"{self._lacking()}</body></html>\n"
        )

    def _covered(self) -> str:
        return "".join(
            f"<tr><td>{escape(name)}</td>"
            + "".join(f"<td>{escape(', '.join(each))}</td>" for each in (known["exercised"], known["not_exercised"]))
            + "</tr>"
            for name, known in self.coverage.as_json(GUARDS).items()
        )

    def _lacking(self) -> str:
        if self.lacks is None:
            return ""
        items = "".join(f"<li>{escape(each)}</li>" for each in self.lacks) or "<li>nothing</li>"
        return f"<h2>In production, and not in this suite</h2><ul>{items}</ul>"

    def _row(self, outcome: Outcome) -> str:
        why = escape(outcome.why)
        if outcome.verdict != "passed":
            why += f"<br><code>{escape(self.replay(outcome))}</code>"
        style = outcome.verdict.split(" ", maxsplit=1)[0]
        cells = (
            f"<td>{escape(outcome.name)}</td><td class={style}>{escape(outcome.verdict)}</td>",
            f"<td>{escape(outcome.baseline)}</td><td>{escape(reasons_of(outcome))}</td>",
            f"<td>{escape(injected_of(outcome))}</td><td>{why}</td>",
        )
        return f"<tr>{''.join(cells)}</tr>"


def reasons_of(outcome: Outcome) -> str:
    """Return how its repetitions ended: `success 3, time_budget`."""
    return _counted(each.reason for each in outcome.repetitions)


def injected_of(outcome: Outcome) -> str:
    """Return which faults its repetitions met, and how often."""
    total: Counter[str] = Counter()
    for each in outcome.repetitions:
        total.update(each.injected)
    return ", ".join(f"{name} {number}" for name, number in sorted(total.items()))


def _counted(words: Iterable[str]) -> str:
    return ", ".join(w if n == 1 else f"{w} {n}" for w, n in sorted(Counter(words).items()))


def _share_of_success(repetitions: Sequence[Repetition]) -> float:
    return sum(each.reason == "success" for each in repetitions) / max(1, len(repetitions))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
