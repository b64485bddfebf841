"""Verb `diagnose`: what failed in recorded runs, where and why; whoever recorded them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from interlock.cli.output import note, print_table, print_text
from interlock.cli.progress import reading
from interlock.core.categories import Category
from interlock.core.errors import ConfigError
from interlock.forensics.diagnosis import PROMPT_ALARM_TOKENS
from interlock.forensics.html_report import html_report
from interlock.forensics.report import Report, Spent, diagnoses
from interlock.forensics.suite import load_suite, uncovered

__all__ = ["app"]

app = typer.Typer()

SHOWN = 20
_TITLES = {str(int(category)): category.title for category in Category}
_TITLES |= {"model": "model or task error, not infrastructure", "insufficient": "6: not enough recorded"}


@app.callback()
def _verbs() -> None:
    """Keep `diagnose` a verb of its own although it is the only one here."""


@app.command()
def diagnose(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders of recorded runs.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report with a waterfall an incident.")
    ] = None,
    suite: Annotated[
        Path | None, typer.Option("--suite", metavar="FILE", help="Golden tasks: say which seen failures none covers.")
    ] = None,
    prompt_alarm: Annotated[
        int, typer.Option(min=1, metavar="TOKENS", help="A prompt of so many is an incident, if it grew to that.")
    ] = PROMPT_ALARM_TOKENS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a run.")] = False,
) -> None:
    """File recorded runs under the eight categories, with the step, the tool and the arguments that say so."""
    golden = None if suite is None else load_suite(suite)
    report = Report(draw=html is not None)
    try:
        with reading(paths) as watch:
            for diagnosis in diagnoses(paths, report, prompt_alarm=prompt_alarm, watch=watch):
                if as_json:
                    # Ids that are not Unicode are somebody's too: they are written with a sign in their place.
                    line = orjson.dumps(_printable(diagnosis.to_dict()), option=orjson.OPT_APPEND_NEWLINE)
                    sys.stdout.write(line.decode())
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    if html is not None:
        _write(html, html_report(report))
    if not as_json:
        _print(report)
    for gap in () if golden is None else uncovered(report, golden):
        note(f"8: {gap}")
    _print_unread(report)
    if not report.all.runs:
        raise ConfigError("nothing was read: no file holds recorded runs of a form that is known")


def _write(html: Path, text: str) -> None:
    try:
        html.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"--html: {html} cannot be written: {error.strerror or error}") from None
    note(f"report: {html}")


def _printable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def _print(report: Report) -> None:
    rows = [_row(verdict, spent) for verdict, spent in sorted(report.by_verdict.items())]
    columns = ("verdict", "", "runs", "calls", "cost", "minutes")
    print_table(columns, rows, numbers=columns[2:])
    if report.clean:
        print_text((f"{report.clean} runs of `model` succeeded: nothing was found in them", "dim"))
    failed = report.failed
    print_text(f"failing runs: {failed.runs}, {failed.calls} calls, {_usd(failed)}, {_minutes(failed)} minutes")
    if report.worst_tools:
        print_text("")
        tools = [
            (name, str(f.calls), str(f.errors), str(f.blamed), f"{f.slowest_s:.2f} s" if f.timed else "-")
            for name, f in report.worst_tools[:SHOWN]
        ]
        print_table(("tool", "calls", "failed", "blamed", "slowest"), tools, numbers=("calls", "failed", "blamed"))
    incidents = report.incidents
    if incidents:
        print_text("")
        listed = [
            (str(i.category), i.reason, i.tool, (i.args_hash[:12], "dim"), str(i.runs), str(i.decided), i.why)
            for i in incidents[:SHOWN]
        ]
        print_table(("", "incident", "tool", "args", "runs", "decided", "why"), listed, numbers=("runs", "decided"))
        if len(incidents) > SHOWN:
            note(f"{len(incidents) - SHOWN} further incidents; --html FILE shows them")
    lacking = [f"{name} ({runs})" for name, runs in report.lacking.most_common() if runs]
    if lacking:
        note(f"not recorded, runs in brackets: {', '.join(lacking)}")


def _row(verdict: str, spent: Spent) -> tuple[str, ...]:
    title = _TITLES.get(verdict, "")
    return verdict, title, str(spent.runs), str(spent.calls), _usd(spent), _minutes(spent)


def _usd(spent: Spent) -> str:
    if spent.cost_unknown == spent.runs:
        return "unknown"
    return f"${spent.cost_usd:.2f}" + (f" + {spent.cost_unknown} unknown" if spent.cost_unknown else "")


def _minutes(spent: Spent) -> str:
    return "unknown" if spent.seconds_unknown == spent.runs else f"{spent.seconds / 60:.1f}"


def _print_unread(report: Report) -> None:
    for each in report.broken[:SHOWN]:
        note(f"broken: {each}")
    if report.broken_count:
        note(f"{report.broken_count} broken records")
    for path, why in report.unread:
        note(f"not read: {path}: {why}")
