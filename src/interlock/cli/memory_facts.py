"""A fact as the command line shows it, and the scope without which no verb of memory works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

import orjson
import typer

from interlock.cli.opening import Store, in_store
from interlock.cli.output import print_table, print_text, when
from interlock.core.errors import ConfigError
from interlock.core.trust import Trust
from interlock.memory.fact import ArtifactInfo, Fact, State
from interlock.memory.scope import Scope
from interlock.memory.store import MemoryDesk

__all__ = [
    "DeskOf",
    "IdArgument",
    "SessionOption",
    "TenantOption",
    "UserOption",
    "artifact_facts",
    "fact_facts",
    "print_fact",
    "print_facts",
    "scope_of",
    "with_memory",
]

T = TypeVar("T")
DeskOf = MemoryDesk

IdArgument = Annotated[str, typer.Argument(metavar="FACT", help="Id of the fact; `interlock memory list` has it.")]
TenantOption = Annotated[str, typer.Option("--tenant", metavar="ID", help="Whose memory: always one tenant's.")]
UserOption = Annotated[str | None, typer.Option("--user", metavar="ID", help="Only this user's, and below.")]
SessionOption = Annotated[str | None, typer.Option("--session", metavar="ID", help="Only this session of --user.")]

_SHOWN_CHARACTERS = 80
_LOOKS = {State.QUARANTINED: "yellow", State.SUPERSEDED: "dim", State.ACTIVE: ""}


@runtime_checkable
class _Remembers(Protocol):
    """A store that keeps memory."""

    @property
    def memory(self) -> MemoryDesk: ...


def scope_of(tenant: str, user: str | None, session: str | None) -> Scope:
    """Return the scope that a verb works on, and below.

    Raises:
        InvalidArguments: A part of it is empty, or cannot be one.
    """
    return Scope(tenant, user, session)


def with_memory(store: str | None, config: Path | None, work: Callable[[MemoryDesk], Awaitable[T]]) -> T:
    """Open the store and do `work` with its memory.

    Raises:
        ConfigError: There is no such store, or it keeps no memory.
    """

    async def on_desk(opened: Store) -> T:
        if not isinstance(opened, _Remembers):
            raise ConfigError("this store keeps no memory")
        return await work(opened.memory)

    return in_store(store, config, on_desk)


def fact_facts(fact: Fact) -> dict[str, Any]:
    """Return the fact for `--json`."""
    return {
        "id": fact.fact_id,
        "tenant_id": fact.scope.tenant,
        "user": fact.scope.user,
        "session": fact.scope.session,
        "state": fact.state.value,
        "trust": fact.trust.name.lower(),
        "text": fact.text,
        "subject": fact.subject or None,
        "key": fact.key or None,
        "value": None if fact.value_json is None else orjson.loads(fact.value_json),
        "tags": list(fact.tags),
        "pinned": fact.pinned,
        "written_at": when(fact.created_at),
        "expires_at": when(fact.expires_at),
        "verify_by": when(fact.verify_by) or None,
        "verified_at": when(fact.verified_at) or None,
        "supersedes": fact.supersedes or None,
        "superseded_by": fact.superseded_by or None,
        "superseded_at": when(fact.superseded_at) or None,
        "origin": fact.origin.as_json(),
    }


def artifact_facts(info: ArtifactInfo) -> dict[str, Any]:
    """Return the artifact for `--json`, without its bytes."""
    return {
        "name": info.name,
        "tenant_id": info.scope.tenant,
        "user": info.scope.user,
        "session": info.scope.session,
        "size_bytes": info.size_bytes,
        "trust": info.trust.name.lower(),
        "subject": info.subject or None,
        "written_at": when(info.created_at),
        "expires_at": when(info.expires_at),
        "origin": info.origin.as_json(),
    }


def print_facts(facts: Sequence[Fact]) -> None:
    """Print a table of facts."""
    rows = [
        (
            fact.fact_id,
            (fact.state.value, _LOOKS[fact.state]),
            (fact.trust.name.lower(), "red" if fact.trust is Trust.LOW else ""),
            fact.scope.user or "-",
            fact.subject or "-",
            when(fact.expires_at),
            _short(fact.text),
        )
        for fact in facts
    ]
    print_table(("fact", "state", "trust", "user", "subject", "expires", "text"), rows)


def print_fact(fact: Fact) -> None:
    """Print one version of a fact in full."""
    print_text((fact.fact_id, "bold"), "  ", (fact.state.value, _LOOKS[fact.state]))
    print_text("  ", fact.text)
    for name, value in fact_facts(fact).items():
        if name not in {"id", "state", "text", "origin"} and value not in (None, [], False):
            print_text(f"  {name}: ", str(value))
    for name, value in fact.origin.as_json().items():
        if value:
            print_text(f"  from {name}: ", ", ".join(value) if isinstance(value, list) else str(value))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
