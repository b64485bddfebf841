"""Verb `chaos`: golden tasks and faults, tried on an agent behind its own gate."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from interlock.chaos.accepted import RULES, changes, read_accepted, sections_of, text_of
from interlock.chaos.coverage import Production, coverage_of, lacking, production
from interlock.chaos.matrix import SuiteRun, run_suite
from interlock.chaos.scene import GUARDS
from interlock.chaos.suite import GOLDEN, load_suite, shipped
from interlock.chaos.suite_report import SuiteReport, injected_of, reasons_of
from interlock.chaos.trying import Outcome
from interlock.cli.chaos_record import record
from interlock.cli.load import load
from interlock.cli.options import JsonOption
from interlock.cli.output import Cell, note, print_json, print_table, print_text
from interlock.cli.progress import reading
from interlock.cli.proxy import proxy
from interlock.core.errors import ConfigError

__all__ = ["app", "verbs"]

_LOOKS = {"passed": "green", "failed": "red", "error": "red", "not exercised": "yellow"}

_DIFF = {"-": "red", "+": "green"}


class _Suites(TyperGroup):
    """`interlock chaos SUITE.yaml …` is `interlock chaos run SUITE.yaml …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].endswith((".yaml", ".yml")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer()
verbs = typer.Typer(cls=_Suites, no_args_is_help=True, help="Prove guards with faults, before production does.")
app.add_typer(verbs, name="chaos")
verbs.command()(proxy)
verbs.command()(load)
verbs.command()(record)


@verbs.callback()
def _verbs() -> None:
    """Prove guards with faults, before production does."""


@verbs.command()
def run(
    suite: Annotated[
        Path | None,
        typer.Argument(metavar="[SUITE.yaml|everything]", help="The suite; else the article's golden tasks."),
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="The agent; else the one that ships with the tasks.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="The gate; else the one in the module of the agent.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this task; repeat.")] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Tasks side by side, a process each.")] = 2,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page that opens from a disk.")] = None,
    cover_production: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Recorded runs: say what they show and the suite lacks; repeat."),
    ] = None,
    accept: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what every trial looked like, if all passed.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Say what is not as it was accepted; exit 1 if anything is.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try every task: once without faults, then as often as it says. Exit 1 unless every one passed."""
    source = GOLDEN if suite is None else shipped(suite)
    loaded = load_suite(source)
    unknown = sorted(set(task or ()) - {each.name for each in loaded.tasks})
    if unknown:
        raise ConfigError(f"{source}: has no task {unknown[0]}: {', '.join(each.name for each in loaded.tasks)}")
    warnings = loaded.warnings()
    for warning in warnings:
        note(f"warning: {warning}")
    for place in cover_production or ():
        if not place.exists():
            raise ConfigError(f"--cover-production: {place}: there is no such file")
    if accept is not None and (against is not None or task):
        raise ConfigError("--accept writes the record of the whole suite: leave out --against and --task")
    accepted = None if against is None else read_accepted(against)
    job = SuiteRun(source, loaded, agent, gate, tuple(task or ()), parallel, told=bool(accept or against))
    outcomes = _tried(job)
    options = [word for name, value in (("--agent", agent), ("--gate", gate)) if value for word in (name, value)]
    lacks = None if not cover_production else lacking(_recorded(cover_production), coverage_of(outcomes))
    changed = None if accepted is None else _changed(accepted, outcomes, task or [])
    report = SuiteReport(str(suite or source), tuple(options), outcomes, warnings, lacks, changed)
    if accept is not None and report.exit_code == 0:
        _write(accept, lambda: text_of(sections_of(outcomes)))
    elif accept is not None:
        note(f"{accept}: not written: a task has not passed")
    _write(junit, report.as_junit)
    _write(html, report.as_html)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    raise typer.Exit(report.exit_code)


def _tried(job: SuiteRun) -> list[Outcome]:
    total = len(job.only or job.suite.tasks)
    count = 0

    def told(outcome: Outcome) -> None:
        nonlocal count
        count += 1
        note(f"[{count}/{total}] {outcome.name}: {outcome.verdict}")

    return asyncio.run(run_suite(job, told))


def _changed(accepted: dict[str, tuple[str, ...]], outcomes: list[Outcome], only: list[str]) -> list[str]:
    if not only:
        return changes(accepted, sections_of(outcomes))
    found = sections_of(outcomes, accepted.get(RULES, ()))
    return changes({name: accepted[name] for name in only if name in accepted}, {name: found[name] for name in only})


def _recorded(paths: list[Path]) -> Production:
    with reading(paths) as watch:
        recorded = production(paths, watch)
    if not recorded.report.all.runs:
        raise ConfigError("--cover-production: no file holds recorded runs of a form that is known")
    return recorded


def _write(place: Path | None, text: Any) -> None:
    if place is None:
        return
    try:
        place.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written: {error.strerror or error}") from None


def _print(report: SuiteReport) -> None:
    rows: list[list[Cell]] = [
        [
            outcome.name,
            outcome.expect,
            (outcome.verdict, _LOOKS[outcome.verdict]),
            outcome.baseline,
            reasons_of(outcome),
            injected_of(outcome),
        ]
        for outcome in report.outcomes
    ]
    print_table(("task", "expects", "verdict", "baseline", "ended as", "injected"), rows)
    for outcome in report.outcomes:
        if outcome.verdict != "passed":
            print_text((f"\n{outcome.name}: ", "bold"), outcome.why)
            print_text("  again: ", (report.replay(outcome), "cyan"))
    _print_measures(report)
    for line in report.changes or ():
        print_text((line, "bold" if not line.startswith(" ") else _DIFF.get(line.strip()[:1], "")))
    if report.changes is not None and not report.changes:
        print_text("all is as it was accepted")
    sys.stdout.flush()


def _print_measures(report: SuiteReport) -> None:
    measured = report.measures()
    print_text("")
    if measured["recovery_rate"] is not None:
        mean_s = measured["recovery_s_mean"]
        took = "" if mean_s is None else f", {mean_s:.1f} s in the mean, {measured['recovery_s_longest']:.1f} s at most"
        print_text(f"recovered in {measured['recovery_rate']:.0%} of {measured['tries_under_faults']} tries{took}")
    score = measured["success_under_faults_over_baseline"]
    if score is not None:
        print_text(f"score under faults: {score:.2f} of what it is without")
    print_text(
        f"duplicates: {measured['duplicates']}; false stops: {measured['false_stops']}; burnt under faults: "
        f"${measured['usd_under_faults']:.4f}, without: ${measured['usd_of_baselines']:.4f}"
    )
    for name, known in report.coverage.as_json(GUARDS).items():
        done, not_done = known["exercised"], known["not_exercised"]
        rest = f"; not: {', '.join(not_done)}" if not_done else ""
        print_text((f"{name.replace('_', ' ')} exercised: {len(done)} of {len(done) + len(not_done)}{rest}", "dim"))
    for each in report.lacks or ():
        print_text(("in production, not here: ", "yellow"), each)
    if report.lacks is not None and not report.lacks:
        print_text("what production shows, this suite has")
