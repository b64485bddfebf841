"""The memory as a trial has it: before it is read, a fact that must not be believed is put where the reader looks.

The store's own clauses of scope and life, and the labels of the gate, have to keep it from the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from interlock.chaos.faults import Fault, Kind
from interlock.core.trust import Trust
from interlock.memory.fact import NewFact, Origin
from interlock.memory.scope import Scope
from interlock.memory.store import Hit, MemoryStore, Search

__all__ = ["FOREIGN", "STALE", "TrialMemory"]

STALE, FOREIGN = "chaos-has-expired", "chaos-is-another-tenants"
"""Stand in planted facts that nobody may be told."""

DAY_S = 86_400.0


class TrialMemory:
    """Delegates everything; searches are struck first, and what is kept as an artifact is told.

    Args:
        memory: The store's own. struck: asked before each search; returns the faults that strike it.
        token: Returns identifiers. kept: told when an artifact is kept.
    """

    def __init__(
        self,
        memory: MemoryStore,
        struck: Callable[[str], Awaitable[list[Fault]]],
        token: Callable[[int], str],
        kept: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._struck = struck
        self._token = token
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    async def search(self, scope: Scope, what: Search, now_s: float) -> list[Hit]:
        """See `MemoryStore.search`."""
        for fault in await self._struck("recall"):
            where, new = self._planted(fault, scope, " ".join(what.words), now_s)
            await self._memory.remember(where, new)
        return await self._memory.search(scope, what, now_s)

    def put_artifact_soon(self, scope: Scope, new: Any) -> None:
        """See `MemoryStore.put_artifact_soon`."""
        self._memory.put_artifact_soon(scope, new)
        self._kept()

    def _planted(self, fault: Fault, scope: Scope, words: str, now_s: float) -> tuple[Scope, NewFact]:
        where, text, trust, age_s, life_s = scope, fault.text, Trust.NORMAL, 60.0, DAY_S
        origin = Origin(agent="chaos", source="planted by a trial")
        if fault.kind is Kind.MEMORY_STALE:
            # It would have been right a second ago.
            text, age_s, life_s = STALE, DAY_S, -1.0
        elif fault.kind is Kind.MEMORY_FOREIGN:
            where, text = Scope(f"{scope.tenant}-other", scope.user, scope.session), FOREIGN
        else:
            # As a run leaves it that has read somebody's page.
            trust, origin = Trust.LOW, Origin(agent="chaos", lineage=("tool:web.read",), source="planted by a trial")
        fact = NewFact(
            fact_id=f"mem_{self._token(16)}",
            text=f"{words}: {text}",
            created_at=now_s - age_s,
            expires_at=now_s + life_s,
            trust=trust,
            origin=origin,
        )
        return where, fact
