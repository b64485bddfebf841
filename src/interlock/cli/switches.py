"""Verbs `kill`, `lift` and `safe-mode`: seen by every worker within a quarter of a second."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.opening import Store, in_store
from interlock.cli.options import ByOption, ConfigOption, JsonOption, ReasonOption, StoreOption
from interlock.cli.output import note, print_json, print_text, when
from interlock.core.clock import SYSTEM
from interlock.policy.switches import Switch, SwitchKind, SwitchScope

__all__ = ["app"]

app = typer.Typer()


class OnOff(StrEnum):
    """What becomes of safe mode."""

    ON = "on"
    OFF = "off"


_SCOPES = "|".join(SwitchScope)

WordsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="SCOPE SUBJECT", help=f"{_SCOPES}, and which one.", show_default=False)
]
ScopeOption = Annotated[
    SwitchScope | None, typer.Option("--scope", metavar="SCOPE", help=f"{_SCOPES}: another way to name the scope.")
]
ForOption = Annotated[
    float | None, typer.Option("--for-s", metavar="SECONDS", min=1, help="Ends by itself after so many seconds.")
]


@app.command()
def kill(
    by: ByOption,
    reason: ReasonOption,
    words: WordsArgument = None,
    scope: ScopeOption = None,
    for_s: ForOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop everything (global), a tenant, an agent or a run; or refuse one tool (or glob).

    Writes under way may finish; nothing new is sent.
    """
    where, subject = _place(words, scope)
    switch = _set(where, subject, SwitchKind.KILL, by, reason, for_s, store, config)
    if as_json:
        print_json(_facts(switch))
        return
    print_text(("killed", "bold red"), f": {_named(where, subject)}{_until(switch)}")
    note(f"writes under way may finish; `interlock lift {_named(where, subject)} --by … --reason …` ends it")


@app.command()
def lift(
    by: ByOption,
    reason: ReasonOption,
    words: WordsArgument = None,
    scope: ScopeOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lift a kill. Runs that it stopped stay stopped; new ones may start."""
    where, subject = _place(words, scope)
    lifted = _lift(where, subject, SwitchKind.KILL, by, reason, store, config)
    if as_json:
        print_json({"scope": where.value, "subject": subject, "kind": "kill", "lifted": lifted})
    else:
        print_text("lifted: " if lifted else "nothing was killed: ", _named(where, subject))


@app.command("safe-mode")
def safe_mode(
    state: Annotated[OnOff, typer.Argument(help="on or off.", show_default=False)],
    by: ByOption,
    reason: ReasonOption,
    for_s: ForOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Permit only the reads of safe_mode.allowed_tools, one attempt each; every write is refused."""
    if state is OnOff.ON:
        facts = _facts(_set(SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE, by, reason, for_s, store, config))
        said = "safe mode is on"
    else:
        lifted = _lift(SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE, by, reason, store, config)
        facts = {"scope": "global", "subject": "", "kind": "safe_mode", "lifted": lifted}
        said = "safe mode is off in the store" if lifted else "safe mode was not on in the store"
    if as_json:
        print_json(facts)
        return
    print_text(said)
    if state is OnOff.OFF:
        note("safe_mode.enabled in a configuration file keeps it on for the gates that read that file")


def _place(words: list[str] | None, scope: SwitchScope | None) -> tuple[SwitchScope, str]:
    """Read `tool ticket.create`, or `--scope tool ticket.create`."""
    given = list(words or ())
    if scope is None:
        if not given:
            raise typer.BadParameter(f"say what: {_SCOPES}, then which one")
        try:
            scope = SwitchScope(given.pop(0))
        except ValueError:
            raise typer.BadParameter(f"the scope is one of {_SCOPES}") from None
    if len(given) != (0 if scope is SwitchScope.GLOBAL else 1):
        wants = "no subject" if scope is SwitchScope.GLOBAL else f"one subject: which {scope.value}"
        raise typer.BadParameter(f"scope {scope.value} takes {wants}")
    return scope, given[0] if given else ""


def _set(
    scope: SwitchScope,
    subject: str,
    kind: SwitchKind,
    by: str,
    reason: str,
    for_s: float | None,
    store: str | None,
    config: Path | None,
) -> Switch:
    expires_at = None if for_s is None else SYSTEM.wall() + for_s

    async def switch(opened: Store) -> Switch:
        return await opened.switches.set(scope, subject, kind, reason=reason, actor=by, expires_at=expires_at)

    return in_store(store, config, switch)


def _lift(
    scope: SwitchScope, subject: str, kind: SwitchKind, by: str, reason: str, store: str | None, config: Path | None
) -> bool:
    async def switch(opened: Store) -> bool:
        return await opened.switches.lift(scope, subject, kind, reason=reason, actor=by)

    return in_store(store, config, switch)


def _facts(switch: Switch) -> dict[str, Any]:
    return {
        "scope": switch.scope.value,
        "subject": switch.subject,
        "kind": switch.kind.value,
        "reason": switch.reason,
        "by": switch.actor,
        "set_at": when(switch.set_at),
        "expires_at": when(switch.expires_at) or None,
    }


def _named(scope: SwitchScope, subject: str) -> str:
    return f"{scope.value} {subject}".rstrip()


def _until(switch: Switch) -> str:
    return "" if switch.expires_at is None else f", until {when(switch.expires_at)}"
