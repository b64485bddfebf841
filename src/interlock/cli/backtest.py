"""Verb `backtest`: what the funnel would have done to agents that were recorded elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.options import ConfigOption, JsonOption
from interlock.cli.output import note, print_json, print_table, print_text
from interlock.cli.records import reason_look
from interlock.core.errors import ConfigError
from interlock.forensics.funnel_report import CAUTION, FunnelReport, SetReport, backtest_funnel

__all__ = ["app"]

app = typer.Typer()

REPORT_EVERY = 250


@app.callback()
def _verbs() -> None:
    """Keep `backtest` a verb of its own although it is the only one here."""


@app.command()
def backtest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders of recorded runs.")],
    funnel: Annotated[bool, typer.Option("--funnel", help="Drive the live funnel with what was recorded.")] = False,
    profile: Annotated[str | None, typer.Option(help="Profile to judge; every recorded tool is permitted.")] = None,
    effects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the tools of each data set do; else what we know of them.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drive the funnel with recorded agents: runs by stop reason, duplicates executed, calls saved."""
    if not funnel:
        raise typer.BadParameter("say --funnel: recorded runs are driven through the live funnel")
    try:
        report = backtest_funnel(paths, config, profile=profile, effects=effects, progress=_tell)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    for unread in report.unread:
        note(f"not read: {unread.path}: {unread.why}")
    if not report.sets:
        raise ConfigError("nothing was read: no file holds recorded runs of a form that is known")


def _tell(dataset: str, runs: int) -> None:
    if runs % REPORT_EVERY == 0:
        note(f"{dataset}: {runs} runs")


def _print(report: FunnelReport) -> None:
    columns = ("data set", "runs", "stopped", "duplicates", "executed", "calls", "saved", "broken")
    rows = [_row(each) for each in report.sets]
    print_text(f"profile {report.profile}")
    print_table(columns, rows, numbers=columns[1:])
    print_text("")
    reasons = [
        (each.dataset, (reason, reason_look(reason)), str(runs))
        for each in report.sets
        for reason, runs in each.reasons.most_common()
    ]
    print_table(("data set", "stop reason", "runs"), reasons, numbers=("runs",))
    note(CAUTION)


def _row(each: SetReport) -> tuple[str, ...]:
    counts = each.counts
    return (
        each.dataset,
        str(each.runs),
        str(len(each.stopped)),
        str(counts["duplicates_recorded"]),
        str(counts["duplicates_executed"]),
        str(counts["recorded"]),
        str(counts["saved"]),
        str(len(each.broken)),
    )
