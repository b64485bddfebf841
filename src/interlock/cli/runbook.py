"""Verb `runbook`: what a stop reason means, how loud it is, and what to do about it."""

from __future__ import annotations

import difflib
import sys
from importlib import resources
from typing import Annotated

import typer

from interlock.cli.options import JsonOption
from interlock.cli.output import note, print_json, print_table
from interlock.core.errors import ConfigError
from interlock.core.reasons import EXIT_CODES, SEVERITIES, StopReason

__all__ = ["app"]

app = typer.Typer()


@app.callback()
def _verbs() -> None:
    """Keep `runbook` a verb of its own although it is the only one here."""


@app.command()
def runbook(
    name: Annotated[str | None, typer.Argument(metavar="REASON", help="A stop reason, e.g. loop_detected.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List stop reasons, severities and exit codes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a stop reason means, and what to do at night."""
    if name is None or listed:
        _list(as_json=as_json)
        return
    reason = _reason(name)
    text = (resources.files("interlock") / "runbooks" / f"{reason}.md").read_text(encoding="utf-8")
    if as_json:
        print_json(_facts(reason) | {"text": text})
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - only a terminal pays for it
        from rich.markdown import Markdown  # noqa: PLC0415

        Console().print(Markdown(_body(text)))
    else:
        sys.stdout.write(_body(text))


def _list(*, as_json: bool) -> None:
    if as_json:
        print_json([_facts(reason) for reason in StopReason])
        return
    rows = [(reason.value, SEVERITIES[reason].value, str(EXIT_CODES[reason])) for reason in StopReason]
    print_table(("reason", "severity", "exit code"), rows, numbers=("exit code",))
    note("interlock runbook REASON shows one")


def _facts(reason: StopReason) -> dict[str, str | int]:
    return {"stop_reason": reason.value, "severity": SEVERITIES[reason].value, "exit_code": EXIT_CODES[reason]}


def _reason(name: str) -> StopReason:
    try:
        return StopReason(name.strip().lower().replace("-", "_"))
    except ValueError:
        near = difflib.get_close_matches(name.lower(), list(StopReason), n=1)
        hint = f"did you mean {near[0]}?" if near else "`interlock runbook --list` shows all"
        raise ConfigError(f"no stop reason is called {name!r}; {hint}") from None


def _body(text: str) -> str:
    # The front matter is for machines.
    return text.split("---\n", 2)[2].lstrip() if text.startswith("---\n") else text
