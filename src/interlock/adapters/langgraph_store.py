"""LangGraph's `BaseStore` on the gate's memory: `graph.compile(store=memory_store(gate, scope={"user": "ann"}))`.

Namespaces order what one scope remembers; they are no wall. Whose memory it is says `scope`, which the graph cannot
change, and the tenant is the run's. Items expire where the read is made, and reading them prolongs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from interlock.adapters.packages import needs, tested
from interlock.adapters.remembered import ScopeOf, on_its_loop, run_of, scope_in
from interlock.adapters.seam import Seam
from interlock.config.gate import Interlock
from interlock.core.errors import InvalidArguments
from interlock.memory.fact import Fact, Statement
from interlock.memory.recall import Why
from interlock.supervisor.run import Run

with needs("langchain"):
    from langgraph.store.base import BaseStore, GetOp, Item, ListNamespacesOp, Op, PutOp, Result, SearchItem, SearchOp

__all__ = ["MemoryStore", "memory_store"]

MOST = 100
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda found, wanted: bool(found == wanted),
    "$ne": lambda found, wanted: bool(found != wanted),
    "$gt": lambda found, wanted: bool(found > wanted),
    "$gte": lambda found, wanted: bool(found >= wanted),
    "$lt": lambda found, wanted: bool(found < wanted),
    "$lte": lambda found, wanted: bool(found <= wanted),
}


def memory_store(gate: Interlock, *, scope: ScopeOf) -> MemoryStore:
    """Return a store whose items are facts of the gate's memory.

    Args:
        gate: Its runs are those in which the graph works.
        scope: Whose memory: `{"user": …, "session": …}`, or a function of the run. The tenant is the run's.
    """
    tested("langgraph", "1.2")
    return MemoryStore(Seam(gate), scope)


class MemoryStore(BaseStore):
    """A store of items; made by `memory_store`.

    An item is a statement: its key that of the item, its subject the namespace joined by dots (erasure goes by it),
    its life the item's `ttl` (minutes), else `memory.default_ttl_s`. A search returns what fits `memory.max_tokens`.
    """

    supports_ttl = True

    def __init__(self, seam: Seam, scope: ScopeOf) -> None:
        self._seam = seam
        self._scope = scope

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what the operations say, one after the other, in a sync graph.

        Raises:
            NoRun: This is no run of the gate. RuntimeError: called in async code, which awaits `abatch`.
        """
        run = run_of(self._seam)
        if run.bridge.is_here():
            raise RuntimeError("this code is on the run's event loop: await aget, aput, asearch or adelete")
        return asyncio.run(self._all(run, ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what the operations say, one after the other.

        Raises:
            NoRun: This is no run of the gate.
        """
        return await self._all(run_of(self._seam), ops)

    async def _all(self, run: Run, ops: Iterable[Op]) -> list[Result]:
        return [await self._one(run, op) for op in ops]

    async def _one(self, run: Run, op: Op) -> Result:
        match op:
            case GetOp():
                return await self._get(run, op)
            case PutOp():
                await self._put(run, op)
                return None
            case SearchOp():
                return await self._search(run, op)
            case ListNamespacesOp():
                raise NotImplementedError("a run cannot list namespaces: `interlock memory list` shows an operator all")
        raise NotImplementedError(f"{type(op).__name__} is no operation that this store knows")

    async def _recall(self, run: Run, query: str, namespace: tuple[str, ...], **words: Any) -> Any:
        scope = scope_in(run, self._scope)
        tags = [_place(namespace)] if namespace else []
        tags += words.pop("tags", [])
        return await on_its_loop(run, lambda: run.memory.recall(query, scope=scope, tags=tags, **words))

    async def _id_of(self, run: Run, namespace: tuple[str, ...], key: str) -> str | None:
        """Return the id of an item, be it larger than what a prompt may get."""
        recalled = await self._recall(run, "", namespace, subject=_subject(namespace), tags=[_key(key)], k=1)
        if recalled.facts:
            return str(recalled.facts[0].fact_id)
        return next((dropped.fact_id for dropped in recalled.dropped if dropped.why is Why.OVER_BUDGET), None)

    async def _get(self, run: Run, op: GetOp) -> Item | None:
        fact_id = await self._id_of(run, op.namespace, op.key)
        if fact_id is None:
            return None
        scope = scope_in(run, self._scope)
        fact = await on_its_loop(run, lambda: run.memory.get(fact_id, scope=scope))
        return None if fact is None else Item(**_words(fact))

    async def _put(self, run: Run, op: PutOp) -> None:
        scope = scope_in(run, self._scope)
        if op.value is None:
            fact_id = await self._id_of(run, op.namespace, op.key)
            if fact_id is not None:
                await on_its_loop(run, lambda: run.memory.forget(fact_id, scope=scope))
            return
        above = [op.namespace[: n + 1] for n in range(len(op.namespace))]
        words: dict[str, Any] = {
            "scope": scope,
            "subject": _subject(op.namespace),
            "tags": [_key(op.key), *map(_place, above)],
            "ttl_s": None if op.ttl is None else op.ttl * 60.0,
        }
        fact = Statement(op.key, op.value)
        await on_its_loop(run, lambda: run.memory.remember(fact, **words))

    async def _search(self, run: Run, op: SearchOp) -> list[SearchItem]:
        wanted = op.limit + op.offset
        k = MOST if op.filter else min(MOST, wanted)
        recalled = await self._recall(run, op.query or "", op.namespace_prefix, k=k)
        items = [SearchItem(**_words(fact)) for fact in recalled.facts if fact.subject and fact.value_json]
        kept = [item for item in items if _fits(item.value, op.filter or {})]
        return kept[op.offset : wanted]


def _subject(namespace: tuple[str, ...]) -> str:
    # LangGraph allows no dot in a label, so that no name spells another.
    for label in namespace:
        if not label or "." in label:
            raise InvalidArguments("memory: a label of a namespace is empty or has a dot")
    return ".".join(namespace)


def _place(namespace: tuple[str, ...]) -> str:
    return f"in:{_subject(namespace)}"


def _key(key: str) -> str:
    return f"key:{key}"


def _words(fact: Fact) -> dict[str, Any]:
    at = datetime.fromtimestamp(fact.created_at, UTC)
    return {
        "namespace": tuple(fact.subject.split(".")),
        "key": fact.key,
        "value": orjson.loads(fact.value_json or b"{}"),
        "created_at": at,
        "updated_at": at,
    }


def _fits(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name in value and _compares(value[name], how) for name, how in wanted.items())


def _compares(found: Any, how: Any) -> bool:
    if not (isinstance(how, Mapping) and how and all(str(name).startswith("$") for name in how)):
        return bool(found == how)
    for name, wanted in how.items():
        if name not in _COMPARISONS:
            raise InvalidArguments(f"memory: {name} is no comparison; known are {', '.join(_COMPARISONS)}")
        try:
            if not _COMPARISONS[name](found, wanted):
                return False
        except TypeError:
            return False
    return True
