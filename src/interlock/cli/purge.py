"""Verb `purge`: drops content that is old, then requests with their keys; a doubt or a run under way never."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Protocol, runtime_checkable

import typer

from interlock.cli.configuration import the_settings
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption, TenantOption
from interlock.cli.output import command, note, print_json, print_text
from interlock.config.retention import DAY_S, ages_once
from interlock.core.errors import ConfigError
from interlock.journal.retention import Ages, Purged, Retention

__all__ = ["app"]

app = typer.Typer()


@runtime_checkable
class _Forgets(Protocol):
    """A store that can be purged."""

    @property
    def retention(self) -> Retention: ...


@app.callback()
def _verbs() -> None:
    """Keep `purge` a verb of its own although it is the only one here."""


@app.command()
def purge(
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", help="In place of both ages of `retention`."),
    ] = None,
    tenant: TenantOption = None,
    content_only: Annotated[
        bool, typer.Option("--content-only", help="Keep every request and key, whatever its age.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop content and keys older than `retention` says; beside runs at work, and never an open doubt."""
    ages = ages_once(the_settings(config), older_than, content_only=content_only)

    async def forget(opened: Store) -> Purged:
        if not isinstance(opened, _Forgets):
            raise ConfigError("this store cannot be purged by this version; a SQLite store can")
        return await opened.retention.purge(ages, tenant_id=tenant, dry_run=dry_run)

    done = in_store(store, config, forget)
    if as_json:
        print_json({"dry_run": dry_run, "tenant_id": tenant, "ages": _days(ages)} | asdict(done))
    else:
        _print(done, ages, store, dry_run=dry_run)


def _days(ages: Ages) -> dict[str, float | None]:
    seconds = {"content_days": ages.content_s, "keys_days": ages.keys_s}
    return {name: None if age_s is None else age_s / DAY_S for name, age_s in seconds.items()}


def _print(done: Purged, ages: Ages, store: str | None, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    days = _days(ages)
    if ages.content_s is None:
        note("retention.content_days is null: everything is kept")
        return
    print_text(f"content older than {days['content_days']:g} days: {would}dropped of {done.content} requests")
    if ages.keys_s is not None:
        print_text(
            f"keys older than {days['keys_days']:g} days: {done.requests} requests {would}removed "
            f"with their {done.claims} claims"
        )
    if done.doubts:
        print_text((f"kept: {done.doubts} requests with an open doubt: ", "yellow"), command(store, "doubts"))
    if done.unfinished:
        listed = command(store, "runs")
        print_text((f"kept: {done.unfinished} requests that are not over: ", "yellow"), listed)
    if not dry_run:
        note(f"{done.slices} slices, each a short transaction of its own")
