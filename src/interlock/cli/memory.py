"""Verb `memory`: what agents remember: looked at, set aside, released, purged and erased, within one tenant."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import typer

from interlock.cli.memory_erase import erase
from interlock.cli.memory_facts import (
    DeskOf,
    IdArgument,
    SessionOption,
    TenantOption,
    UserOption,
    artifact_facts,
    fact_facts,
    print_fact,
    print_facts,
    scope_of,
    with_memory,
)
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import note, print_json, print_table, print_text, when
from interlock.config.retention import DAY_S
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError
from interlock.core.trust import Trust
from interlock.memory.fact import State
from interlock.memory.scope import Scope
from interlock.memory.store import PurgePolicy

__all__ = ["app"]

T = TypeVar("T")

app = typer.Typer()
verbs = typer.Typer(no_args_is_help=True, help="List, set aside, release, purge and erase what agents remember.")
app.add_typer(verbs, name="memory")
verbs.command("erase")(erase)

_STATES = ", ".join(State)


@verbs.command("list")
def list_facts(
    tenant: TenantOption,
    user: UserOption = None,
    session: SessionOption = None,
    state: Annotated[str, typer.Option("--state", metavar="STATE", help=f"{_STATES}, or all.")] = "all",
    subject: Annotated[str | None, typer.Option("--subject", metavar="NAME", help="Only facts of it.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Those that no agent reads any more.")] = False,
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Artifacts in place of facts.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List facts of a scope and all below it, newest first."""
    below, wanted, now_s = scope_of(tenant, user, session), None if state == "all" else _state(state), SYSTEM.wall()
    if artifacts:
        kept = with_memory(store, config, lambda desk: desk.list_artifacts(below, now_s, limit=limit))
        if as_json:
            print_json([artifact_facts(info) for info in kept])
            return
        columns = ("name", "user", "bytes", "trust", "written", "expires")
        rows = [
            (a.name, a.scope.user or "-", str(a.size_bytes), a.trust.name, when(a.created_at), when(a.expires_at))
            for a in kept
        ]
        print_table(columns, rows, numbers=("bytes",))
        return
    found = with_memory(
        store,
        config,
        lambda desk: desk.list_facts(below, now_s, state=wanted, subject=subject, expired=expired, limit=limit),
    )
    if as_json:
        print_json([fact_facts(fact) for fact in found])
        return
    print_facts(found)
    note(f"{len(found)} facts")


@verbs.command()
def show(
    id: IdArgument,  # noqa: A002 - the word of the port
    tenant: TenantOption,
    user: UserOption = None,
    session: SessionOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a fact: where it came from, how far it is believed, and the versions before it."""
    below = scope_of(tenant, user, session)
    versions = with_memory(store, config, lambda desk: desk.show(below, id))
    if not versions:
        raise _none(id, below)
    if as_json:
        print_json([fact_facts(fact) for fact in versions])
        return
    for fact in versions:
        print_fact(fact)


@verbs.command()
def forget(
    id: IdArgument,  # noqa: A002
    tenant: TenantOption,
    user: UserOption = None,
    session: SessionOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete one fact with the versions before it. Runs keep what they said of it: see `erase`."""
    below = scope_of(tenant, user, session)
    _change(id, below, "forgotten", store, config, lambda desk: desk.drop(below, id), as_json=as_json)


@verbs.command()
def quarantine(
    id: IdArgument,  # noqa: A002
    tenant: TenantOption,
    user: UserOption = None,
    session: SessionOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a fact out of every agent's sight, until it is released or forgotten."""
    below = scope_of(tenant, user, session)
    _change(id, below, "quarantined", store, config, lambda desk: desk.quarantine(below, id), as_json=as_json)


@verbs.command()
def release(
    id: IdArgument,  # noqa: A002
    tenant: TenantOption,
    trust: Annotated[str, typer.Option("--trust", metavar="LABEL", help="low, normal, or high: you vouch for it.")],
    user: UserOption = None,
    session: SessionOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let agents read a quarantined fact, with the label that you give it."""
    below, label = scope_of(tenant, user, session), _trust(trust)
    act = _released(below, id, label)
    _change(id, below, f"released with {label.name.lower()} trust", store, config, act, as_json=as_json)


@verbs.command()
def purge(
    tenant: TenantOption,
    user: UserOption = None,
    session: SessionOption = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", help="What was written longer ago.")
    ] = None,
    keep_newest: Annotated[
        int | None,
        typer.Option("--keep-newest", metavar="N", min=0, help="All but the newest N of each scope; pinned ones stay."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only facts with it; repeatable.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All of the scope.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete what has expired, and what of the rest is named; beside agents at work."""
    below, older_than_s = scope_of(tenant, user, session), _seconds(older_than)
    policy = PurgePolicy(
        older_than_s=older_than_s, keep_newest=keep_newest, tags=tuple(tag or ()), whole=everything, dry_run=dry_run
    )
    rows = with_memory(store, config, lambda desk: desk.purge(below, policy, SYSTEM.wall()))
    if as_json:
        print_json({"rows": rows, "dry_run": dry_run, **_scope_facts(below)})
    else:
        print_text(f"{rows} facts and artifacts {'would be ' if dry_run else ''}deleted")


@verbs.command()
def stats(
    tenant: TenantOption,
    user: UserOption = None,
    session: SessionOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count what a scope and all below it hold."""
    below = scope_of(tenant, user, session)
    counts = with_memory(store, config, lambda desk: desk.stats(below, SYSTEM.wall()))
    if as_json:
        print_json({**_scope_facts(below), **asdict(counts)})
        return
    print_table(("what", "count"), [(name, str(n)) for name, n in asdict(counts).items()], numbers=("count",))


def _released(below: Scope, fact_id: str, label: Trust) -> Callable[[DeskOf], Awaitable[bool]]:
    return lambda desk: desk.release(below, fact_id, label, SYSTEM.wall())


def _change(
    fact_id: str,
    below: Scope,
    done: str,
    store: str | None,
    config: Any,
    act: Callable[[DeskOf], Awaitable[bool]],
    *,
    as_json: bool,
) -> None:
    if not with_memory(store, config, act):
        raise _none(fact_id, below)
    if as_json:
        print_json({"id": fact_id, "done": done, **_scope_facts(below)})
    else:
        print_text((fact_id, "bold"), f" is {done}")


def _scope_facts(below: Scope) -> dict[str, Any]:
    return {"tenant_id": below.tenant, "user": below.user, "session": below.session}


def _none(fact_id: str, below: Scope) -> ConfigError:
    return ConfigError(
        f"no fact {fact_id} for which this can be done in this scope (tenant {below.tenant}); nothing was changed; "
        "`interlock memory list` has them, with their states"
    )


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        raise typer.BadParameter(f"--state: one of {_STATES}, or all") from None


def _trust(text: str) -> Trust:
    try:
        return Trust[text.upper()]
    except KeyError:
        raise typer.BadParameter("--trust: one of low, normal, high") from None


def _seconds(days: float | None) -> float | None:
    if days is not None and not 0 <= days < math.inf:
        raise ConfigError("--older-than: is a number of days, at least 0")
    return None if days is None else days * DAY_S
