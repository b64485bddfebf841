"""Verb `drill`: the incidents, bare and under Interlock, in one table."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from typing import Annotated

import typer

from interlock.chaos.drill import DrillOptions, run_drill
from interlock.chaos.table import render
from interlock.cli.options import JsonOption
from interlock.cli.output import note, print_json

__all__ = ["app"]

app = typer.Typer()

DEFAULTS = DrillOptions()


@app.callback()
def _verbs() -> None:
    """Keep `drill` a verb of its own although it is the only one here."""


@app.command()
def drill(
    seed: Annotated[int, typer.Option(help="Of faults and arrivals.")] = DEFAULTS.seed,
    time_scale: Annotated[
        float, typer.Option(help="Real seconds of one article second: windows, backoffs and timeouts alike.")
    ] = DEFAULTS.time_scale,
    backend: Annotated[
        str | None, typer.Option(metavar="URL", help="Your own server instead of ours; it is asked.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write to your own server without asking.")] = False,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Store of the guarded runs; else a new file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See the article's incidents happen without Interlock, and not happen with it. Exit 1 if one still does."""
    options = replace(DEFAULTS, seed=seed, time_scale=time_scale, backend=backend, yes=yes, store=store)
    report = run_drill(options)
    if as_json:
        print_json(report.as_json())
    else:
        width = shutil.get_terminal_size((120, 40)).columns if sys.stdout.isatty() else 120
        typer.echo(render(report, width=width, color=sys.stdout.isatty()), nl=False)
    for failure in report.failures:
        note(f"failed: {failure}")
    raise typer.Exit(report.exit_code)
