"""What an agent remembers and keeps: `run.memory` and `run.artifacts`.

Every method works from an async agent (await it) and from a sync one (call it); see `bridge.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interlock.gateway.keeping import Keeping
from interlock.gateway.remembering import Places, Remembering, scope_of
from interlock.gateway.scope import RunScope
from interlock.memory.drafts import Proposal
from interlock.memory.life import verify_date
from interlock.memory.scope import Scope
from interlock.supervisor.bridge import Bridge

__all__ = ["RunArtifacts", "RunMemory"]

AnyScope = Scope | Mapping[str, str | None]


class RunMemory:
    """Facts of one tenant, user or session, as one run may use them.

    Every verb takes the scope: `run.memory.scope(user="ann", session="chat-7")`, or `{"user": "ann"}`; the tenant is
    the run's. Reading, a run also sees what the user shares over his sessions and what the tenant shares; it
    changes facts of exactly the scope it names.
    """

    __slots__ = ("_bridge", "_places", "_run", "_verbs")

    def __init__(self, run: RunScope, bridge: Bridge, verbs: Remembering) -> None:
        self._run = run
        self._bridge = bridge
        self._verbs = verbs
        self._places = Places()

    def scope(self, *, user: str | None = None, session: str | None = None) -> Scope:
        """Return a scope of this run's tenant; without a user, what all of the tenant share.

        Raises:
            InvalidArguments: A part is empty, too long or has control characters; a session without a user.
        """
        return Scope(self._run.tenant_id, user, session)

    def remember(
        self,
        fact: Proposal,
        *,
        scope: AnyScope,
        ttl_s: float | None = None,
        source: str = "",
        subject: str = "",
        verify_by: float | None = None,
        tags: Sequence[str] = (),
    ) -> Any:
        """Remember a fact; returns `Remembered`. It is durable with the run's next commit, and waits for none.

        Args:
            fact: A text; or a `Statement(key, value)`, which replaces an earlier one of its subject and key.
            ttl_s: Seconds until it expires, at most `memory.max_ttl_s`; None: `memory.default_ttl_s`.
            source: Where you have it from: a note for people. What the run had read by now is noted by itself.
            subject: Of whom or what it is, e.g. a customer's id: erasure goes by this.
            verify_by: Unix seconds; from then on it is recalled only if a validator confirms it.
            tags: At most 16, for searches and purges.

        Raises:
            InvalidArguments: Empty, too large, no UTF-8, a life that is not positive or too long, …
        """
        words: dict[str, Any] = {
            "ttl_s": ttl_s,
            "source": source,
            "subject": subject,
            "verify_by": verify_by,
            "tags": tags,
        }
        return self._bridge.cross(
            self._verbs.remember(self._run, self._places, fact, scope_of(self._run, scope), **words)
        )

    def supersede(
        self,
        fact_id: str,
        fact: Proposal,
        *,
        scope: AnyScope,
        ttl_s: float | None = None,
        source: str = "",
        subject: str = "",
        verify_by: float | None = None,
        tags: Sequence[str] = (),
    ) -> Any:
        """Replace a fact of exactly this scope, which becomes history; returns `Remembered`.

        Where that one is better believed than this run, the new one is quarantined. Arguments as `remember`.

        Raises:
            InvalidArguments: There is no such fact, or as `remember`.
        """
        words: dict[str, Any] = {
            "ttl_s": ttl_s,
            "source": source,
            "subject": subject,
            "verify_by": verify_by,
            "tags": tags,
        }
        mine = scope_of(self._run, scope)
        return self._bridge.cross(
            self._verbs.remember(self._run, self._places, fact, mine, supersedes=fact_id, **words)
        )

    def recall(
        self,
        query: str,
        *,
        scope: AnyScope,
        k: int = 8,
        max_tokens: int | None = None,
        tags: Sequence[str] = (),
        subject: str | None = None,
    ) -> Any:
        """Look for facts; returns `Recalled`: `facts`, `text` to put before a model, and what was `dropped`, and why.

        The labels of the facts become the run's.

        Args:
            query: Words, any of which may match; "": the newest facts. Nothing in it is syntax.
            k: Most facts, 1 to 100.
            max_tokens: Of `text`, framing included; at most, and by default, `memory.max_tokens`.
            tags: Facts have all of these. subject: and are of this subject.
        """
        mine = scope_of(self._run, scope)
        words: dict[str, Any] = {"k": k, "max_tokens": max_tokens, "tags": tags, "subject": subject}
        return self._bridge.cross(self._verbs.recall(self._run, query, mine, **words))

    def get(self, fact_id: str, *, scope: AnyScope) -> Any:
        """Return a `Fact`, or None: not there, not yours, expired, quarantined, or not confirmed in time."""
        return self._bridge.cross(self._verbs.get(self._run, fact_id, scope_of(self._run, scope)))

    def past(self, fact_id: str, *, scope: AnyScope) -> Any:
        """Return the versions before a fact, newest first, as long as each was to live."""
        return self._bridge.cross(self._verbs.past(self._run, fact_id, scope_of(self._run, scope)))

    def forget(self, fact_id: str, *, scope: AnyScope) -> Any:
        """Delete a fact and its history; whether there was one that this run may change."""
        return self._bridge.cross(self._verbs.change(self._run, "forget", fact_id, scope_of(self._run, scope)))

    def pin(self, fact_id: str, *, scope: AnyScope, pinned: bool = True) -> Any:
        """Let a fact come first, stand against contradictions and stay when room is made; it expires all the same."""
        mine = scope_of(self._run, scope)
        return self._bridge.cross(self._verbs.change(self._run, "pin", fact_id, mine, pinned=pinned))

    def verify(self, fact_id: str, *, scope: AnyScope, verify_by: float | None = None) -> Any:
        """Say that a fact holds now, and must be confirmed again by `verify_by` (Unix seconds; None: never)."""
        mine, next_s = scope_of(self._run, scope), verify_date(verify_by)
        return self._bridge.cross(self._verbs.change(self._run, "verify", fact_id, mine, verify_by=next_s))


class RunArtifacts:
    """Validated outputs of this run's tools that are kept beyond it, by name, under the rules of memory."""

    __slots__ = ("_bridge", "_run", "_verbs")

    def __init__(self, run: RunScope, bridge: Bridge, verbs: Keeping) -> None:
        self._run = run
        self._bridge = bridge
        self._verbs = verbs

    def put(self, name: str, value: Any, *, scope: AnyScope, ttl_s: float | None = None, subject: str = "") -> Any:
        """Keep a tool's output, in place of what has this name in exactly this scope.

        Args:
            value: As the tool's call returned it, whole and unchanged.
            ttl_s: Seconds until it expires; None: `memory.default_ttl_s`. subject: of whom it is, for erasure.

        Raises:
            ToolDenied: It is not a validated output of this run. InvalidArguments: too large, or no valid name.
        """
        mine = scope_of(self._run, scope)
        return self._bridge.cross(self._verbs.put(self._run, name, value, mine, ttl_s=ttl_s, subject=subject))

    def get(self, name: str, *, scope: AnyScope) -> Any:
        """Return what was kept, as JSON values, the narrowest scope first; None where there is nothing, or expired."""
        return self._bridge.cross(self._verbs.get(self._run, name, scope_of(self._run, scope)))
