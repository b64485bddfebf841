"""Verb `calibrate`: a configuration out of a team's own runs, with the evidence as comments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.options import JsonOption
from interlock.cli.output import note, print_json, print_text
from interlock.cli.progress import reading
from interlock.core.errors import ConfigError
from interlock.forensics.calibration import Calibrated, Checked, calibrate
from interlock.forensics.funnel_report import CAUTION

__all__ = ["app"]

app = typer.Typer()

SHOWN = 20


@app.callback()
def _verbs() -> None:
    """Keep `calibrate` a verb of its own although it is the only one here."""


@app.command(name="calibrate")
def propose(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files and folders of your own recorded runs.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the configuration here, not to stdout.")
    ] = None,
    margin: Annotated[float, typer.Option(min=1.0, help="Over the percentile of successful runs.")] = 1.25,
    percentile: Annotated[float, typer.Option(min=50.0, max=100.0, help="Of steps, calls, seconds, dollars.")] = 99.0,
    effects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the tools of each data set do; else what we know of them.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Propose budgets, loop thresholds, exemptions and retries, tried on runs that they were not made of."""
    try:
        with reading([*paths, *paths]) as watch:
            found = calibrate(paths, margin=margin, percentile=percentile, effects=effects, watch=watch)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    text = _yaml(found)
    if out is not None:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--out: {out} cannot be written: {error.strerror or error}") from None
        note(f"configuration: {out}")
    if as_json:
        print_json(_facts(found))
    elif out is None:
        print_text(text.rstrip("\n"))
    for each in (*found.broken[:SHOWN], *found.unread):
        note(f"not read: {each}")
    for checked in found.sets:
        note(_judged(checked))
    if found.macro_false_stop_pct is not None:
        note(f"false stops on the other half, mean over sets: {found.macro_false_stop_pct:g} %")
    note(CAUTION)


def _facts(found: Calibrated) -> dict[str, object]:
    return {
        "config": found.caps.to_config(),
        "why": dict(found.caps.why),
        "runs": found.runs,
        "healthy_runs": found.healthy,
        "cross_validated": [each.to_dict() for each in found.sets],
        "macro_false_stop_pct": found.macro_false_stop_pct,
        "broken": found.broken,
        "unread": found.unread,
        "caution": CAUTION,
    }


def _judged(each: Checked) -> str:
    facts = each.to_dict()
    mine, theirs = facts["proposed"], facts["default"]
    runaways = f", runaways stopped {each.runaways_stopped} of {each.runaways}" if each.runaways else ""
    bursts = f", bursts hidden {each.bursts - each.bursts_seen} of {each.bursts}" if each.bursts else ""
    return (
        f"{each.dataset}: on the other half, false stops {mine['false_stops']} of {mine['successful']} "
        f"(all stops of successful runs: {mine['successful_stopped']}; profile default: {theirs['false_stops']}), "
        f"failing stopped {mine['failing_stopped']} of {mine['failing']} (default: {theirs['failing_stopped']})"
        f"{runaways}{bursts}"
    )


def _yaml(found: Calibrated) -> str:
    caps = found.caps
    lines = [
        f"# Proposed by `interlock calibrate` out of {found.runs} recorded runs, {found.healthy} of them healthy.",
        "# Healthy: did not fail, as far as the record says.",
        "# Judged on the half of the tasks that it was not made of:",
        *(f"#   {_judged(each)}" for each in found.sets),
        "profile: default",
        "agent:",
        "  budgets:",
        *_keys(caps.budgets, caps.why, "    "),
        "  loop_detection:",
        *_keys(caps.loops, caps.why, "    "),
    ]
    if caps.exempt:
        lines += [f"    # {caps.why['exempt']}", f"    exempt: [{', '.join(map(_quoted, caps.exempt))}]"]
    if caps.max_attempts is not None:
        lines += ["tools:", "  retries:", f"    # {caps.why['max_attempts']}", f"    max_attempts: {caps.max_attempts}"]
    # Names of sets and tools come from files: nothing of them may begin a line of its own.
    return "\n".join(line.replace("\n", " ").replace("\r", " ") for line in lines) + "\n"


def _keys(values: object, why: object, indent: str) -> list[str]:
    assert isinstance(values, dict)
    assert isinstance(why, dict)
    lines = []
    for key, value in values.items():
        lines += [f"{indent}# {why[key]}", f"{indent}{key}: {value:g}" if value < 1e6 else f"{indent}{key}: {value}"]
    return lines or [f"{indent}{{}}"]


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
