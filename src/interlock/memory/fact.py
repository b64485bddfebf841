"""A fact: what is said, of whom, until when, where it came from, and how far it may be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from interlock.core.trust import Trust
from interlock.memory.scope import Scope

__all__ = ["Artifact", "ArtifactInfo", "Fact", "NewArtifact", "NewFact", "Origin", "State", "Statement"]


class State(StrEnum):
    """Where a fact stands. Expiry is no state: it follows from the clock, in every read.

    ACTIVE: read by agents. QUARANTINED: kept aside until a person releases or forgets it; no agent reads it.
    SUPERSEDED: history; a newer fact stands in its place.
    """

    ACTIVE = "active"
    QUARANTINED = "quarantined"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Statement:
    """A structured fact: of `subject`, `key` has `value`. A later one of the same subject and key replaces it.

    Attributes:
        key: What is said, e.g. `current_quarter`. value: JSON.
    """

    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a fact came from, as the gateway saw it; no caller can set it.

    Attributes:
        run_id, agent: Of the run that wrote it; "" where a person did.
        tool: Whose validated output it is (artifacts), or "".
        lineage: What the run had read below NORMAL: `tool:…`, `memory:…`.
        source: What the caller named as the source: a hint for people, not evidence.
    """

    run_id: str = ""
    agent: str = ""
    tool: str = ""
    lineage: tuple[str, ...] = ()
    source: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as stores keep it."""
        return {
            "run_id": self.run_id,
            "agent": self.agent,
            "tool": self.tool,
            "lineage": list(self.lineage),
            "source": self.source,
        }

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Origin:
        """Return what `as_json` wrote."""
        return cls(found["run_id"], found["agent"], found["tool"], tuple(found["lineage"]), found["source"])


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFact:
    """A fact to be written; every part is checked by then (`drafts.py`).

    Attributes:
        fact_id: `mem_` and 32 hexadecimal digits; the same for the same place of the same run, so that a resumed run
            writes no second one.
        text: What is searched and read, valid UTF-8 without NUL. value_json: canonical JSON of a statement's value.
        subject: Of whom or what it is; "" for none. key: of a statement, else "".
        created_at, expires_at, verify_by: Unix seconds; `verify_by` None: needs no check.
        vector: Of the text, unit length, float32 little endian; None without an embedder.
    """

    fact_id: str
    text: str
    created_at: float
    expires_at: float
    subject: str = ""
    key: str = ""
    value_json: bytes | None = None
    tags: tuple[str, ...] = ()
    verify_by: float | None = None
    trust: Trust = Trust.NORMAL
    state: State = State.ACTIVE
    origin: Origin = field(default_factory=Origin)
    vector: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact as it stands in the store.

    Attributes:
        value_json, subject, key, tags, trust, state, origin: See `NewFact`.
        verified_at: When a validator or a person last confirmed it; None: never.
        pinned: Comes first in a recall, and is not purged to make room. It expires like any other.
        supersedes, superseded_by: Ids of the versions before and after, or "". superseded_at: when.
    """

    fact_id: str
    scope: Scope
    text: str
    created_at: float
    expires_at: float
    subject: str = ""
    key: str = ""
    value_json: bytes | None = None
    tags: tuple[str, ...] = ()
    verify_by: float | None = None
    verified_at: float | None = None
    trust: Trust = Trust.NORMAL
    state: State = State.ACTIVE
    pinned: bool = False
    origin: Origin = field(default_factory=Origin)
    supersedes: str = ""
    superseded_by: str = ""
    superseded_at: float | None = None
    vector: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArtifact:
    """What is kept of a validated output. One a scope and name: a later one replaces it.

    Attributes:
        name: Non-empty text of at most 256 bytes.
        data: Canonical JSON of the output.
    """

    name: str
    data: bytes
    created_at: float
    expires_at: float
    subject: str = ""
    trust: Trust = Trust.NORMAL
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInfo:
    """An artifact without its bytes, for lists."""

    name: str
    scope: Scope
    size_bytes: int
    created_at: float
    expires_at: float
    subject: str
    trust: Trust
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact: what is known of it, and its bytes (canonical JSON)."""

    info: ArtifactInfo
    data: bytes
