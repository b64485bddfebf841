"""Writes measured figures into the pages: what is printed there was seen by this program.

`python tools/figures.py drill` runs the drill with seeds 1 to 5 (three minutes), for README.md and docs/evidence.md; it
writes nothing if a drill fails. `python tools/figures.py backtest FOLDER` drives the funnel with the recorded runs of a
folder, for docs/evidence.md. The figures of `make bench` are written by `python -m benchmarks --write docs/why.md`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from interlock.chaos.drill import DrillOptions, run_drill
from interlock.chaos.report import DrillReport, ScenarioReport
from interlock.chaos.score import Outcome, Side

ROOT = Path(__file__).parents[1]
SEEDS = (1, 2, 3, 4, 5)


def readme_table(report: DrillReport) -> str:
    """Return the rows of the drill that a newcomer looks at."""
    triage, runaways, injected, schema = report.scenarios
    rows = [
        ("tickets asked for", triage, lambda s: str(s.asked)),
        ("tickets in the backend", triage, lambda s: str(s.effects)),
        ("duplicates", triage, duplicates),
        ("accepted, but lost to the agent", triage, lambda s: str(s.lost)),
        ("how runs ended", triage, reasons),
        ("the research agent", runaways, lambda s: spent(s.outcomes[0])),
        ("writes that an injected text asked for", injected, lambda s: str(s.forbidden)),
        ("values invented after a changed schema", schema, lambda s: str(s.invented)),
    ]
    lines = ["| | bare | Interlock | the article reported |", "|---|---|---|---|"]
    lines += [f"| {what} | {say(s.bare)} | {say(s.guarded)} | {said(s, what)} |" for what, s, say in rows]
    return "\n".join(lines)


def duplicates(side: Side) -> str:
    """Return duplicates with their rates."""
    if not side.duplicates:
        return "**0**"
    return f"{side.duplicates} ({side.duplicate_rate:.0%}, {side.duplicates_per_incident:.1f} an incident)"


def reasons(side: Side) -> str:
    """Return how many runs ended in which way."""
    return ", ".join(f"{n} `{reason}`" for reason, n in side.reasons.items())


def spent(outcome: Outcome) -> str:
    """Return what one run used up."""
    return f"{outcome.calls:,} calls, ${outcome.cost_usd:,.2f}, {outcome.seconds:,.0f} s: `{outcome.reason}`"


def said(scenario: ScenarioReport, what: str) -> str:
    """Return the article's own figure."""
    words = {"the research agent": "research agent"}
    return scenario.reported.get(words.get(what, what), "-")


def evidence_table(reports: list[DrillReport]) -> str:
    """Return one row for each seed, and where they were made."""
    lines = [
        "| Seed | Duplicates bare | Duplicates under Interlock | Accepted but lost to the agent |",
        "|---|---|---|---|",
    ]
    for report in reports:
        triage = report.scenarios[0]
        figures = f"{triage.bare.duplicates} | {triage.guarded.duplicates} | {triage.guarded.lost}"
        lines.append(f"| {report.seed} | {figures} |")
    return "\n".join([*lines, "", f"{place().capitalize()}."])


def write(page: Path, mark: str, table: str) -> None:
    """Put a table between the two lines of a page that carry the mark."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {mark}: [^\n]*-->\n).*?(<!-- {mark}: end -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{page}: the two lines `<!-- {mark}: … -->` are not there")
    page.write_text(pattern.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text), encoding="utf-8")


def place() -> str:
    """Return the commit and the machine, in a few words."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return f"commit {commit}, {os.cpu_count()} processors, Python {platform.python_version()}"


def backtest_table(found: dict[str, Any]) -> str:
    """Return one row for each data set."""
    heads = ("Data set", "Runs", "Successful", "of these stopped", "Failing", "of these stopped", "Calls saved")
    lines = [row(*heads, "Duplicate writes recorded", "executed"), "|---" * 9 + "|"]
    for one in found["sets"]:
        good, bad, calls, twice = one["successful"], one["failing"], one["calls"], one["duplicates"]
        lines.append(
            row(
                one["dataset"],
                f"{one['runs']:,}",
                f"{good['runs']:,}",
                stopped(good),
                f"{bad['runs']:,}",
                stopped(bad),
                f"{calls['saved']:,} of {calls['recorded']:,}",
                twice["recorded"],
                twice["executed"],
            )
        )
    return "\n".join([*lines, "", f"Profile `{found['profile']}`, {place()}."])


def stopped(runs: dict[str, Any]) -> str:
    """Return how many runs were stopped, and how many of them are marked as runaways."""
    if not runs["stopped"]:
        return "0"
    return f"{runs['stopped']} ({runs['stopped_pct']:.1f} %), {runs['stopped_runaways']} of them runaways"


def row(*cells: object) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def write_drill() -> int:
    """Run the drill with each seed and write its figures."""
    reports = []
    for seed in SEEDS:
        report = run_drill(DrillOptions(seed=seed))
        if report.failures:
            print(f"seed {seed}: {'; '.join(report.failures)}", file=sys.stderr)
            return 1
        reports.append(report)
    write(ROOT / "README.md", "drill", readme_table(reports[0]))
    write(ROOT / "docs" / "evidence.md", "drill", evidence_table(reports))
    return 0


def write_backtest(folder: str) -> int:
    """Drive the funnel with recorded runs and write what came of it."""
    command = [Path(sys.executable).with_name("interlock"), "backtest", "--funnel", "--recorded-time", folder, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    write(ROOT / "docs" / "evidence.md", "backtest", backtest_table(json.loads(done.stdout)))
    return 0


def main(arguments: list[str]) -> int:
    """Write what was asked for."""
    match arguments:
        case ["drill"]:
            return write_drill()
        case ["backtest", folder]:
            return write_backtest(folder)
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
