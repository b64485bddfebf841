"""Facts as JSON and back: how a run's record keeps what it was told, label and all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.core.trust import Trust
from interlock.memory.fact import Fact, Origin, State
from interlock.memory.scope import Scope

__all__ = ["dump_fact", "load_fact"]

_PLAIN = (
    "fact_id",
    "text",
    "created_at",
    "expires_at",
    "subject",
    "key",
    "verify_by",
    "verified_at",
    "pinned",
    "supersedes",
    "superseded_by",
    "superseded_at",
)


def dump_fact(fact: Fact) -> dict[str, Any]:
    """Return the fact as JSON, all but its vector."""
    return {name: getattr(fact, name) for name in _PLAIN} | {
        "scope": [fact.scope.tenant, fact.scope.user, fact.scope.session],
        "value": None if fact.value_json is None else fact.value_json.decode(),
        "tags": list(fact.tags),
        "trust": fact.trust.name.lower(),
        "state": str(fact.state),
        "origin": fact.origin.as_json(),
    }


def load_fact(found: Mapping[str, Any]) -> Fact:
    """Return the fact that `dump_fact` wrote."""
    value = found["value"]
    return Fact(
        **{name: found[name] for name in _PLAIN},
        scope=Scope(*found["scope"]),
        value_json=None if value is None else value.encode(),
        tags=tuple(found["tags"]),
        trust=Trust[found["trust"].upper()],
        state=State(found["state"]),
        origin=Origin.of_json(found["origin"]),
    )
