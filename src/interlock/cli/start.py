"""Verbs to begin with: init, check."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.configuration import CONFIG_FILE, the_settings
from interlock.cli.options import JsonOption
from interlock.cli.output import note, print_json, print_text
from interlock.config.check import warnings
from interlock.config.settings import PROFILES, Settings, json_schema, load_settings, profile_text, store_url
from interlock.core.calls import ToolSpec
from interlock.core.errors import ConfigError, InterlockError

__all__ = ["app"]

app = typer.Typer()

_ABOUT = {
    "article": "the article's safe default config: 25 steps, 60 s, $1",
    "default": "what Interlock() uses without a file, every key stated",
    "support": "answers customers, opens tickets, proposes refunds",
    "coding": "works in a workspace that it can inspect itself",
    "research": "searches, fetches and reads; changes nothing",
}


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; `-` is standard output.")] = CONFIG_FILE,
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "article",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a configuration file to begin with, commented: the article's safe default, or another profile."""
    text = profile_text(profile)
    if str(file) == "-":
        typer.echo(text, nl=False)
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise ConfigError(f"{file} is there already: --force overwrites it") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from None
    if as_json:
        print_json({"file": str(file), "profile": profile})
        return
    print_text(f"{file} written: profile {profile}, {_ABOUT[profile]}")
    print_text("next: ", (f"interlock check{'' if file == CONFIG_FILE else f' {file}'}", "cyan"))


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Configuration; else interlock.yaml.")] = None,
    profile: Annotated[str | None, typer.Option(help="Judge a profile instead of a file.")] = None,
    gate: Annotated[
        str | None,
        typer.Option("--gate", metavar="MODULE:NAME", help="Judge a gate in your code, with the tools it registers."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if there is a warning.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the configuration.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a configuration (exit 1), and warn of what a valid one leaves open."""
    if schema:
        print_json(json_schema())
        return
    if sum(named is not None for named in (file, profile, gate)) > 1:
        raise typer.BadParameter("name a file, a profile or a gate: one of them")
    try:
        name, settings, tools = _subject(file, profile, gate)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "errors": str(error).splitlines()})
        raise typer.Exit(1) from None
    findings = warnings(settings, tools)
    warned = [finding for finding in findings if finding.level == "warning"]
    if as_json:
        found = [{"level": f.level, "key": f.key, "text": f.text} for f in findings]
        print_json({"ok": True, "profile": settings.profile, "store": store_url(settings), "findings": found})
    else:
        print_text(f"{name}: ", ("valid", "green"), f"; {len(warned)} warnings; store {store_url(settings)}")
        for finding in findings:
            look = "yellow" if finding.level == "warning" else "dim"
            print_text((f"  {finding.level:<8}", look), (finding.key, "bold"), f": {finding.text}")
    if strict and warned:
        raise typer.Exit(1)


def _subject(
    file: Path | None, profile: str | None, gate: str | None
) -> tuple[str, Settings, Sequence[ToolSpec] | None]:
    """Return what is judged: how it is called, its settings, and its tools where they are known."""
    if gate is not None:
        found = _imported(gate)
        return gate, found.settings, found.tools
    if profile is not None:
        return f"profile {profile}", load_settings(profile=profile), None
    if file is None and not CONFIG_FILE.exists():
        note(f"no {CONFIG_FILE} here: these are the defaults")
        return "profile default", load_settings(None), None
    return str(file or CONFIG_FILE), the_settings(file), None


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (InterlockError, SystemExit):
        raise
    except Exception as error:
        raise ConfigError(f"--gate {name}: cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(getattr(found, "settings", None), Settings):
        raise ConfigError(f"--gate {name}: is a {type(found).__name__}, not an Interlock")
    return found
