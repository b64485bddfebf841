"""The store as a trial has it: it may fail before or after a change, and what was injected goes on record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from interlock.core.errors import StoreUnavailable

__all__ = ["TrialStore"]

LOST = "the store got it, and its answer was lost"

Before = Callable[[str], Awaitable[bool]]
Marked = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


class TrialStore:
    """Delegates everything; the changes that a run waits for pass `before`.

    Args:
        store: The store itself.
        before: Asked before each change by its name; raises, or returns whether the answer is lost.
        marked: Returns a run's record with what was injected into the run.
        memory, secret: In place of the store's.
    """

    away = StoreUnavailable

    def __init__(
        self, store: Any, before: Before, marked: Marked, memory: Any = None, secret: bytes | None = None
    ) -> None:
        self._store = store
        self.secret = store.secret if secret is None else secret
        self.memory = store.memory if memory is None else memory
        self._before = before
        self._marked = marked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def _change(self, name: str, *args: Any, **words: Any) -> Any:
        lost = await self._before(name)
        answer = await getattr(self._store, name)(*args, **words)
        if lost:
            raise StoreUnavailable(LOST)
        return answer

    async def claim(self, *args: Any, **words: Any) -> Any:
        """See `Journal.claim`."""
        return await self._change("claim", *args, **words)

    async def resend(self, *args: Any, **words: Any) -> Any:
        """See `Journal.resend`."""
        return await self._change("resend", *args, **words)

    async def settle(self, *args: Any, **words: Any) -> Any:
        """See `Journal.settle`."""
        return await self._change("settle", *args, **words)

    async def begin(self, *args: Any, **words: Any) -> Any:
        """See `RunStore.begin`."""
        lost = await self._before("begin")
        begun = await self._store.begin(*args, **words)
        if lost:
            if begun.fresh:  # its owner does not know; in a file the lease runs out, in memory there is none
                await self._store.leases.hand_back(begun.row.run_id, begun.row.fence, 0.0)
            raise StoreUnavailable(LOST)
        return begun

    async def end(self, run_id: str, fence: int, state: Any, reason: Any, record: Any, output: Any) -> Any:
        """See `RunStore.end`."""
        lost = await self._before("end")
        # Marked after: a fault of this very change is on the record as well.
        answer = await self._store.end(run_id, fence, state, reason, self._marked(run_id, record), output)
        if lost:
            raise StoreUnavailable(LOST)
        return answer

    def end_soon(self, run_id: str, fence: int, state: Any, reason: Any, record: Any, output: Any) -> Any:
        """See `RunStore.end_soon`."""
        return self._store.end_soon(run_id, fence, state, reason, self._marked(run_id, record), output)
