"""Where facts and artifacts are kept: the port that every store implements, and its rules.

Rules that hold for every verb, by-id ones included, and that the store itself enforces:

- **Scope.** Agents *read up*: from (tenant, user, session) they see what was written there, what that user shares
  over his sessions, and what the tenant shares; never what lies beside. They *write exactly*: a change touches only
  a fact of exactly this scope. Operators (`MemoryDesk`) act *downwards*: on this scope and all below it.
- **Time.** `now_s` is Unix seconds, the caller's clock. A read returns only facts that live by then
  (`life.is_alive`, evaluated inside the query; what cannot be read has expired), and changes nothing.
- **State.** Agents see ACTIVE facts alone.
- **Trust.** A change to a fact carries the label of whoever makes it, and does not touch a fact with a higher one.
- **Order.** A read sees everything that this store object was given before it.
- **Gone is gone.** An id that was forgotten, purged or erased is not written again (a resumed run would): a
  tombstone of the id alone remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from interlock.core.trust import Trust
from interlock.memory.fact import Artifact, ArtifactInfo, Fact, NewArtifact, NewFact, State
from interlock.memory.scope import Scope

__all__ = ["Erased", "Hit", "MemoryDesk", "MemoryStats", "MemoryStore", "PurgePolicy", "Search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for.

    Attributes:
        words: Of the question, each a run of letters and digits, lower case; a fact matches if it has any of them.
            Empty: the newest facts.
        limit: Most hits that words find. newest: beside them, this many of the newest facts (for a vector search).
        tags: A hit has all of these. subject: of whom; None for anybody. min_trust: nothing below it.
    """

    words: tuple[str, ...] = ()
    limit: int = 64
    newest: int = 0
    tags: tuple[str, ...] = ()
    subject: str | None = None
    min_trust: Trust = Trust.LOW


@dataclass(frozen=True, slots=True)
class Hit:
    """A fact that was found. `score`: the greater the better within one answer; 0.0 where no word was matched."""

    fact: Fact
    score: float


class MemoryStore(Protocol):
    """What agents do. Raises `StoreUnavailable` where the store cannot be read or written."""

    def remember_soon(self, scope: Scope, new: NewFact) -> None:
        """Queue a fact without waiting: durable together with the next commit, before anything queued later.

        When it is written: an id that is there or gone: nothing. Else, if it is a statement (`key`) and ACTIVE, every
        other ACTIVE statement of exactly this scope, subject and key is superseded by it, unless one of those is
        pinned or has a higher trust: then the new one is QUARANTINED instead. (An equal value is superseded too: it
        is newer evidence.)
        """
        ...

    async def remember(self, scope: Scope, new: NewFact, *, supersedes: str = "") -> Fact | None:
        """As `remember_soon`, and wait; return the fact as it stands, None where its id is gone.

        Args:
            supersedes: Id of the ACTIVE fact of exactly this scope that it replaces, whatever its key, pinned or not.
                Where that has a higher trust, the new one is QUARANTINED. Where there is none such: None, and nothing
                is written (but an id that is there already is returned as it stands).
        """
        ...

    async def get(self, scope: Scope, fact_id: str, now_s: float) -> Fact | None:
        """Return a fact that is seen from `scope`; None for any other, without saying why."""
        ...

    async def search(self, scope: Scope, what: Search, now_s: float) -> list[Hit]:
        """Return what is found: pinned first, then by score, then the newest. Each fact once."""
        ...

    async def past(self, scope: Scope, fact_id: str, now_s: float) -> list[Fact]:
        """Return the versions before a fact that `get` returns, newest first. They live as long as they were to."""
        ...

    async def forget(self, scope: Scope, fact_id: str, trust: Trust) -> bool:
        """Delete an ACTIVE fact of exactly this scope and the versions before it; whether there was one."""
        ...

    async def pin(self, scope: Scope, fact_id: str, trust: Trust, now_s: float, *, pinned: bool) -> bool:
        """Pin or unpin a living ACTIVE fact of exactly this scope; whether there is one."""
        ...

    async def verify(self, scope: Scope, fact_id: str, trust: Trust, now_s: float, verify_by: float | None) -> bool:
        """Take in that a living ACTIVE fact of exactly this scope holds at `now_s`, and must be confirmed by then.

        Its expiry does not move. Returns whether there is one.
        """
        ...

    def put_artifact_soon(self, scope: Scope, new: NewArtifact) -> None:
        """Queue an artifact, as `remember_soon`; it replaces the one of this name in exactly this scope.

        One of a higher trust is not replaced by one of a lower.
        """
        ...

    async def get_artifact(self, scope: Scope, name: str, now_s: float) -> Artifact | None:
        """Return the living artifact of this name that is seen from `scope`, the narrowest first."""
        ...

    async def purge_expired(self, now_s: float, limit: int = 1_000) -> int:
        """Delete what has expired, of every tenant, and old tombstones; return how many facts and artifacts.

        Not an agent's verb: for whoever sees to the store. It reads nothing out.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgePolicy:
    """What goes: everything expired by `now_s`, and of what lives, whatever a set limit names.

    Attributes:
        older_than_s: Facts and artifacts written longer ago than this.
        keep_newest: Of each exact scope, all but this many ACTIVE facts; pinned ones stay, and do not count.
        tags: Only facts that have all of these (limits `older_than_s` and `keep_newest`; alone: all of them).
        whole: Everything of the scope.
        dry_run: Count, and change nothing.
    """

    older_than_s: float | None = None
    keep_newest: int | None = None
    tags: tuple[str, ...] = ()
    whole: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure removed from the tables of memory, history and artifacts included.

    Attributes:
        fact_ids: Of what was removed. texts: what to look for afterwards, in every file (only in this answer).
        run_ids: Of the runs that wrote them.
    """

    fact_ids: tuple[str, ...] = ()
    artifacts: int = 0
    texts: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Counts of one scope and all below it. `expired` ones are still stored, and are in none of the other counts."""

    active: int = 0
    quarantined: int = 0
    superseded: int = 0
    expired: int = 0
    pinned: int = 0
    unchecked: int = 0
    artifacts: int = 0
    bytes: int = 0


class MemoryDesk(Protocol):
    """What operators do, on a scope and all below it; every verb also says which tenant."""

    async def list_facts(
        self,
        below: Scope,
        now_s: float,
        *,
        state: State | None = None,
        subject: str | None = None,
        expired: bool = False,
        limit: int = 50,
    ) -> list[Fact]:
        """Return facts, newest first; expired ones only (and all of them) where `expired`."""
        ...

    async def show(self, below: Scope, fact_id: str) -> list[Fact]:
        """Return a fact of any state, living or not, and the versions before it; empty where there is none."""
        ...

    async def drop(self, below: Scope, fact_id: str) -> bool:
        """Delete a fact of any state and the versions before it; whether there was one."""
        ...

    async def quarantine(self, below: Scope, fact_id: str) -> bool:
        """Take an ACTIVE fact out of every agent's sight; whether there was one."""
        ...

    async def release(self, below: Scope, fact_id: str, trust: Trust, now_s: float) -> bool:
        """Make a living QUARANTINED fact ACTIVE with the label that a person gives it; whether there was one.

        As a statement it supersedes those of its scope, subject and key.
        """
        ...

    async def list_artifacts(self, below: Scope, now_s: float, *, limit: int = 50) -> list[ArtifactInfo]:
        """Return living artifacts, newest first."""
        ...

    async def purge(self, below: Scope, policy: PurgePolicy, now_s: float) -> int:
        """Delete what the policy names, a bounded number of rows a transaction; return how many rows."""
        ...

    async def erase(self, below: Scope, subjects: Sequence[str]) -> Erased:
        """Delete every fact (its history too) and artifact of these subjects, of any state, from tables and index."""
        ...

    async def stats(self, below: Scope, now_s: float) -> MemoryStats:
        """Return the counts."""
        ...
