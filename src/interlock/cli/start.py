"""Verbs to begin with: init, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.configuration import CONFIG_FILE, the_settings
from interlock.cli.options import JsonOption
from interlock.cli.output import note, print_json, print_text
from interlock.config.check import warnings
from interlock.config.settings import PROFILES, json_schema, load_settings, profile_text, store_url
from interlock.core.errors import ConfigError

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
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="Where to write; `-` is standard output.")
    ] = CONFIG_FILE,
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
    file: Annotated[Path | None, typer.Argument(help="Configuration; else interlock.yaml.")] = None,
    profile: Annotated[str | None, typer.Option(help="Judge a profile instead of a file.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if there is a warning.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the configuration.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a configuration (exit 1), and warn of what a valid one leaves open."""
    if schema:
        print_json(json_schema())
        return
    if file is not None and profile is not None:
        raise typer.BadParameter("name a file or a profile, not both")
    if file is None and profile is None and not CONFIG_FILE.exists():
        note(f"no {CONFIG_FILE} here: these are the defaults (profile default)")
    try:
        settings = load_settings(profile=profile) if profile else the_settings(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "errors": str(error).splitlines()})
        raise typer.Exit(1) from None
    findings = warnings(settings)
    warned = [finding for finding in findings if finding.level == "warning"]
    if as_json:
        found = [{"level": f.level, "key": f.key, "text": f.text} for f in findings]
        print_json({"ok": True, "profile": settings.profile, "store": store_url(settings), "findings": found})
    else:
        name = file or (f"profile {settings.profile}" if profile or not CONFIG_FILE.exists() else CONFIG_FILE)
        print_text(f"{name}: ", ("valid", "green"), f"; {len(warned)} warnings; store {store_url(settings)}")
        for finding in findings:
            look = "yellow" if finding.level == "warning" else "dim"
            print_text((f"  {finding.level:<8}", look), (finding.key, "bold"), f": {finding.text}")
    if strict and warned:
        raise typer.Exit(1)
