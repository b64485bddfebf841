"""Verb `backtest`: what a configuration would have done to agents that were recorded elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.options import JsonOption
from interlock.cli.output import Cell, note, print_json, print_table, print_text
from interlock.cli.progress import reading
from interlock.cli.records import reason_look
from interlock.config.settings import PROFILES
from interlock.core.errors import ConfigError
from interlock.forensics.funnel_report import CAUTION, FunnelReport, Label, SetReport, backtest_funnel

__all__ = ["app"]

app = typer.Typer()

SHOWN = 20


@app.callback()
def _verbs() -> None:
    """Keep `backtest` a verb of its own although it is the only one here."""


@app.command()
def backtest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders of recorded runs.")],
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Configuration to judge; else a profile alone.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Profile to judge; every recorded tool is permitted.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Second configuration, or profile, to compare with.")
    ] = None,
    effects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the tools of each data set do; else what we know of them.")
    ] = None,
    recorded_time: Annotated[
        bool, typer.Option("--recorded-time", help="Let recorded seconds count against max_seconds.")
    ] = False,
    funnel: Annotated[bool, typer.Option("--funnel", help="Drive the whole live funnel; slower.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which recorded runs would have been stopped, where, what that saves, and which stops would be wrong."""

    def judged(configuration: Path | None, named: str | None) -> FunnelReport:
        with reading(paths) as watch:
            return backtest_funnel(
                paths,
                configuration,
                profile=named,
                effects=effects,
                recorded_time=recorded_time,
                deep=funnel,
                progress=_tell,
                watch=watch,
            )

    try:
        report = judged(config, profile)
        other = None if against is None else judged(*_second(against))
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    if as_json:
        print_json(report.to_dict() | ({} if other is None else {"against": other.to_dict()}))
    elif other is None:
        _print(report, _name(config, report))
    else:
        _compare(report, other, _name(config, report), against or "")
    _print_unread(report)
    if not report.sets:
        raise ConfigError("nothing was read: no file holds recorded runs of a form that is known")


def _second(against: str) -> tuple[Path | None, str | None]:
    return (None, against) if against in PROFILES and not Path(against).exists() else (Path(against), None)


def _name(config: Path | None, report: FunnelReport) -> str:
    return f"profile {report.profile}" if config is None else f"{config} (profile {report.profile})"


def _tell(dataset: str, runs: int) -> None:
    if runs % 2_500 == 0:
        note(f"{dataset}: {runs} runs")


def _print(report: FunnelReport, name: str) -> None:
    columns = ("data set", "runs", "failing stopped", "calls saved", "dollars", "minutes", "successful stopped", "not")
    print_text(name)
    print_table(columns, [_row(each) for each in report.sets], numbers=columns[1:])
    note("`not`: of these, neither running away (5 equal calls in a row) nor writing twice; false stops, that is")
    print_text("")
    reasons = [
        (each.dataset, (reason, reason_look(reason)), str(runs))
        for each in report.sets
        for reason, runs in each.reasons.most_common()
    ]
    print_table(("data set", "stop reason", "runs"), reasons, numbers=("runs",))
    _print_duplicates(report)
    _print_false_stops(report)
    _print_undeclared(report)
    note(CAUTION)


def _row(each: SetReport) -> tuple[str, ...]:
    failing, successful = each.failing, each.successful
    other = successful.stopped - successful.stopped_runaways
    return (
        each.dataset,
        str(each.runs),
        _share(failing.stopped, failing.runs),
        _share(failing.calls_saved, failing.calls),
        _known(failing.usd_saved, failing.usd_unknown, failing, "$"),
        _known(failing.seconds_saved / 60, failing.seconds_unknown, failing, ""),
        _share(successful.stopped, successful.runs),
        str(other),
    )


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole else "")


def _known(value: float, unknown: int, label: Label, unit: str) -> str:
    return "unknown" if unknown and unknown == label.stopped else f"{unit}{value:.2f}"


def _print_duplicates(report: FunnelReport) -> None:
    rows = [
        (each.dataset, str(counts["duplicates_recorded"]), str(counts["duplicates_executed"]), str(len(each.broken)))
        for each in report.sets
        if (counts := each.counts)["duplicates_recorded"] or each.broken
    ]
    if rows:
        print_text("")
        columns = ("data set", "equal writes recorded", "still executed", "broken records")
        print_table(columns, rows, numbers=columns[1:])


def _print_false_stops(report: FunnelReport) -> None:
    found: list[tuple[Cell, ...]] = [
        (each.dataset, stop.run_id, str(stop.step), (stop.reason, reason_look(stop.reason)), stop.why or "")
        for each in report.sets
        for stop in each.false_stops
    ]
    if found:
        print_text("")
        print_table(("data set", "stopped, though it succeeded", "step", "reason", "why"), found[:SHOWN])
        if len(found) > SHOWN:
            note(f"{len(found) - SHOWN} further false stops; --json has them")


def _print_undeclared(report: FunnelReport) -> None:
    undeclared = sorted({tool for each in report.sets for tool in each.undeclared})
    if undeclared:
        shown = ", ".join(undeclared[:SHOWN]) + (", …" if len(undeclared) > SHOWN else "")
        note(f"{len(undeclared)} tools were judged by what they brought back (say it with --effects): {shown}")


def _compare(report: FunnelReport, other: FunnelReport, name: str, second: str) -> None:
    columns = ("data set", "runs", "failing stopped", "with", "calls saved", "with", "false stops", "with")
    rows = []
    for each in report.sets:
        twin = other.set_of(each.dataset)
        mine, theirs = each.failing, twin.failing
        false, theirs_false = (s.successful.stopped - s.successful.stopped_runaways for s in (each, twin))
        rows.append(
            (
                each.dataset,
                str(each.runs),
                _share(mine.stopped, mine.runs),
                _share(theirs.stopped, theirs.runs),
                _share(mine.calls_saved, mine.calls),
                _share(theirs.calls_saved, theirs.calls),
                str(false),
                str(theirs_false),
            )
        )
    print_text(f"{name}, and beside it (`with`) {second}")
    print_table(columns, rows, numbers=columns[1:])
    _print_false_stops(report)
    note(CAUTION)


def _print_unread(report: FunnelReport) -> None:
    for broken in [where for each in report.sets for where in each.broken][:SHOWN]:
        note(f"broken: {broken}")
    for each in report.unread:
        note(f"not read: {each.path}: {each.why}")
