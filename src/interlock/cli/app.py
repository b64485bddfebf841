"""`interlock`: the verbs and their panels; a verb's module is imported when the verb is called, not before.

So `interlock --help` costs no pydantic, no sqlite3 and no asyncio. Exit codes: 0 done,
1 error, 2 usage, 10 to 49 stop reasons (`interlock runbook --list`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from interlock import __version__
from interlock.core.errors import InterlockError

__all__ = ["VERBS", "Verb", "load", "main"]

EXIT_ERROR = 1


class Verb(NamedTuple):
    """A verb of the command line: its panel, its name, the module that has it, and its line of help."""

    panel: str
    name: str
    module: str
    help: str


VERBS = (
    Verb("Start", "init", "start", "Write a configuration file to begin with."),
    Verb("Start", "check", "start", "Say what is wrong with a configuration, and what it leaves open."),
    Verb("Start", "drill", "drill", "See the incidents happen bare, and not happen under Interlock."),
    Verb("Look", "runs", "runs", "List runs, newest first; sum up what observing runs would have refused."),
    Verb("Look", "show", "show", "Show one run: why it ended, and its calls as a waterfall."),
    Verb("Look", "explain", "explain", "Walk the decision tree over one run, and say what to type next."),
    Verb("Look", "doctor", "doctor", "Try the store, and say what could lose a record."),
    Verb("Act", "doubts", "doubts", "List writes of which nobody knows whether they happened."),
    Verb("Act", "settle", "doubts", "Close a doubt: it happened, or it did not."),
    Verb("Act", "approvals", "approvals", "List, approve and deny what agents ask for."),
    Verb("Act", "kill", "switches", "Stop everything, a tenant, an agent, a tool or a run."),
    Verb("Act", "lift", "switches", "Lift a kill."),
    Verb("Act", "safe-mode", "switches", "Permit only the reads of safe_mode.allowed_tools."),
    Verb("Learn", "diagnose", "diagnose", "Say what failed in recorded runs, where, and why."),
    Verb("Learn", "backtest", "backtest", "Judge a configuration by recorded runs: stops, savings, false stops."),
    Verb("Learn", "calibrate", "calibrate", "Write a configuration out of your own recorded runs."),
    Verb("Prove", "chaos", "chaos", "Prove guards with faults, before production does."),
    Verb("Prove", "load", "load", "Say what guards cost under load, with tools that take their time."),
    Verb("Run", "memory", "memory", "List, release, purge and erase what agents remember."),
    Verb("Run", "purge", "purge", "Drop content, then keys, that are old enough."),
    Verb("Run", "submit", "worker", "Queue a run for the workers of the store."),
    Verb("Run", "worker", "worker", "Work on submitted runs, and on those of dead workers."),
    Verb("Run", "runbook", "runbook", "What a stop reason means, and what to do at night."),
)


class _Verbs(TyperGroup):
    """The root: knows every verb by its line of help, and loads the one that is called."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        for verb in VERBS:
            self.add_command(TyperCommand(verb.name, help=verb.help, rich_help_panel=verb.panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and load(listed.name), rest


def load(name: str | None) -> Any:
    """Return the command of this verb; imports its module."""
    verb = next(v for v in VERBS if v.name == name)
    module = importlib.import_module(f"interlock.cli.{verb.module}")
    return typer.main.get_group(module.app).commands[verb.name]


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"interlock {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Bounded runs, one effect per write, a named reason for every stop."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        app(args=args, prog_name="interlock")
    except InterlockError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_ERROR)
