"""The verbs of memory as a run uses them: who it is, what it has read and where it stands is set here.

No caller names a tenant, a run, a tool or a label. A fact's id is made of its place in the run, so that a run that
is resumed writes no second one; what a run recalled is on its record, and a resumed run is told the same.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from interlock.core.calls import Answer, Call, Effect
from interlock.core.canonical import digest
from interlock.core.errors import InvalidArguments, StoreUnavailable, ToolDenied
from interlock.core.trust import Trust
from interlock.core.verbs import WITHIN
from interlock.gateway.scope import RunScope
from interlock.gateway.verbs import Verbs
from interlock.journal.replay import History
from interlock.memory.checking import check
from interlock.memory.drafts import Proposal, draft_fact, named, tagged
from interlock.memory.embedding import Embedder, by_meaning, pack_vector
from interlock.memory.fact import Fact, NewFact, Origin, State
from interlock.memory.fact_json import dump_fact, load_fact
from interlock.memory.hooks import MemoryHooks
from interlock.memory.options import MemoryOptions
from interlock.memory.recall import Dropped, Recalled, Why, fill, words_of
from interlock.memory.scope import Scope
from interlock.memory.store import MemoryStore, Search

__all__ = ["Counting", "Places", "Remembered", "Remembering", "scope_of", "take_back"]

# Beside what words find: this many of the newest facts are compared by meaning.
NEWEST = 256
# Rows of one transaction that deletes what has expired, and how many such in a row.
SWEPT, SWEEPS = 500, 20

InThread = Callable[[Callable[..., Any], Mapping[str, Any], str], Awaitable[Any]]


class Counting(Protocol):
    """Where memory is counted; see `record/metrics.py`."""

    def memory_read(self, verb: str) -> None:
        """Count one read."""
        ...

    def memory_expired(self, rows: int) -> None:
        """Count what was deleted because its time is over."""
        ...

    def memory_rejected(self, reason: str, facts: int = 1) -> None:
        """Count facts that were found and not given to a model."""
        ...


class Places:
    """How often one run has used a verb with equal arguments in a turn: what tells equal facts of it apart."""

    __slots__ = ("_nth",)

    def __init__(self) -> None:
        self._nth: dict[tuple[int, bytes], int] = {}

    def next(self, call: Call[Any]) -> int:
        """Return the number of this use, from 1."""
        place = call.turn, call.digest
        self._nth[place] = nth = self._nth.get(place, 0) + 1
        return nth


@dataclass(frozen=True, slots=True)
class Remembered:
    """What became of a proposal.

    Attributes:
        state: QUARANTINED: no agent reads it until a person releases it. A statement may end there even where this
            says ACTIVE: if one that is pinned or better believed stands against it when it is written.
        expires_at: Unix seconds.
    """

    fact_id: str
    trust: Trust
    state: State
    expires_at: float


def scope_of(run: RunScope, scope: Scope | Mapping[str, str | None]) -> Scope:
    """Return whose memory a run may use.

    Raises:
        InvalidArguments: It is no scope. ToolDenied: it is another tenant's.
    """
    if isinstance(scope, Mapping):
        if not set(scope) <= {"user", "session"}:
            raise InvalidArguments("memory: a scope has `user` and `session`; the tenant is the run's")
        scope = Scope(run.tenant_id, scope.get("user"), scope.get("session"))
    if not isinstance(scope, Scope):
        raise InvalidArguments("memory: scope is missing: pass run.memory.scope(user=…, session=…)")
    if scope.tenant != run.tenant_id:
        raise ToolDenied(
            "memory: the scope is another tenant's than the run's: make it with run.memory.scope(…)",
            for_model="This memory is not this run's.",
            details={"policy": "memory_scope"},
        )
    return scope


class Remembering:
    """The verbs.

    Args:
        store: Where facts are.
        verbs: How a run uses a verb.
        secret: Of the store: the key of the ids.
        in_thread: Runs an embedder.
    """

    def __init__(
        self,
        store: MemoryStore,
        options: MemoryOptions,
        hooks: MemoryHooks,
        verbs: Verbs,
        *,
        secret: bytes,
        counting: Counting,
        in_thread: InThread,
    ) -> None:
        self.store = store
        self.options = options
        self.verbs = verbs
        self._hooks = hooks
        self._secret = secret
        self._counting = counting
        self._in_thread = in_thread

    async def remember(
        self,
        run: RunScope,
        places: Places,
        proposal: Proposal,
        scope: Scope,
        *,
        supersedes: str = "",
        source: str = "",
        **words: Any,
    ) -> Remembered:
        """Write a fact; one that supersedes another is waited for."""
        lineage = run.lineage
        origin = Origin(run.run_id, run.agent, "", lineage.sources, named("source", source) if source else "")
        draft = functools.partial(
            draft_fact, "", proposal, self.options, now_s=run.clock.wall(), lineage=lineage, origin=origin
        )
        new = draft(**words)
        args = {"scope": scope.parts, "text": new.text, "subject": new.subject, "key": new.key, "tags": new.tags}
        name = "memory.supersede" if supersedes else "memory.remember"
        if supersedes:
            args["supersedes"] = supersedes

        async def work(call: Call[RunScope]) -> Answer:
            fact_id = self._fact_id(run, call, places.next(call))
            found = await self._write(replace(new, fact_id=fact_id), scope, supersedes)
            said = [found.fact_id, int(found.trust), str(found.state), found.expires_at]
            return Answer(found, orjson.dumps(said))

        answer = await self.verbs.do(run, name, Effect.WRITE, args, work)
        if answer.status != "replayed":
            found: Remembered = answer.value
            return found
        fact_id, trust, state, expires_at = orjson.loads(answer.json or b"[]")
        return Remembered(fact_id, Trust(trust), State(state), expires_at)

    async def _write(self, new: NewFact, scope: Scope, supersedes: str) -> Remembered:
        embedder = self._hooks.embedder
        if embedder is not None:
            new = replace(new, vector=await self._vector(embedder, new.text))
        if not supersedes:
            # Durable with the run's next commit: nothing waits for the disk here.
            self.store.remember_soon(scope, new)
            return Remembered(new.fact_id, new.trust, new.state, new.expires_at)
        fact = await self.store.remember(scope, new, supersedes=supersedes)
        if fact is None:
            raise InvalidArguments("memory: no such fact in exactly this scope", for_model="There is no such note.")
        return Remembered(fact.fact_id, fact.trust, fact.state, fact.expires_at)

    async def recall(
        self,
        run: RunScope,
        query: str,
        scope: Scope,
        *,
        k: int = 8,
        max_tokens: int | None = None,
        tags: Sequence[str] = (),
        subject: str | None = None,
    ) -> Recalled:
        """Look for facts, and take their labels into the run's."""
        limit = self.options.max_tokens if max_tokens is None else max_tokens
        fill((), k=k, max_tokens=limit)  # says what is wrong with k and max_tokens, before anything is read
        limit = min(limit, self.options.max_tokens)
        what = Search(words=words_of(query), limit=2 * k, tags=tagged(tags), subject=subject)
        args = {"scope": scope.parts, "query": query[:10_000], "k": k, "max_tokens": limit, "tags": what.tags}

        async def work(call: Call[RunScope]) -> Answer:
            recalled = await self._look(run, scope, what, query, k, limit)
            return Answer(recalled, _dump(recalled) if call.run.tape is not None else None)

        answer = await self.verbs.do(run, "memory.recall", Effect.READ, args | {"subject": subject}, work)
        recalled: Recalled = _load(answer.json) if answer.value is None and answer.json else answer.value
        self._counting.memory_read("recall")
        for dropped in recalled.dropped:
            self._counting.memory_rejected(str(dropped.why))
        for fact in recalled.facts:
            _take_in(run, fact)
        return recalled

    async def _look(self, run: RunScope, scope: Scope, what: Search, query: str, k: int, max_tokens: int) -> Recalled:
        asked = None
        embedder = self._hooks.embedder
        if embedder is not None and query.strip():
            asked = await self._vector(embedder, query)
            what = what if asked is None else replace(what, newest=NEWEST)
        now_s = run.clock.wall()
        # A question of signs alone asks for nothing that words could find; none at all, for the newest.
        hits = await self.store.search(scope, what, now_s) if what.words or asked or not query.strip() else []
        if asked is not None:
            hits = by_meaning(hits, asked)[: what.limit]
        checks = await check((hit.fact for hit in hits), now_s, self._hooks.validator_of, self.options.unverified)
        await self._confirm(checks.confirmed, now_s)
        return fill(checks.facts, k=k, max_tokens=max_tokens, count=self._hooks.count_tokens)

    async def _confirm(self, confirmed: Sequence[tuple[Fact, float | None]], now_s: float) -> None:
        for fact, next_s in confirmed:
            with contextlib.suppress(StoreUnavailable):  # it holds all the same; it is asked for again next time
                await self.store.verify(fact.scope, fact.fact_id, Trust.HIGH, now_s, next_s)

    async def get(self, run: RunScope, fact_id: str, scope: Scope) -> Fact | None:
        """Return a fact, if it may be read and has been confirmed in time."""

        async def work(_: Call[RunScope]) -> Answer:
            now_s = run.clock.wall()
            fact = await self.store.get(scope, named("fact_id", fact_id), now_s)
            checks = await check(
                [] if fact is None else [fact], now_s, self._hooks.validator_of, self.options.unverified
            )
            await self._confirm(checks.confirmed, now_s)
            kept = [checked.fact for checked in checks.facts if checked.why is None]
            for checked in checks.facts:
                if checked.why is not None:
                    self._counting.memory_rejected(str(checked.why))
            return Answer(None, orjson.dumps([dump_fact(fact) for fact in kept]))

        self._counting.memory_read("get")
        return next(iter(await self._facts(run, "memory.get", {"scope": scope.parts, "id": fact_id}, work)), None)

    async def past(self, run: RunScope, fact_id: str, scope: Scope) -> list[Fact]:
        """Return the versions before a fact, newest first."""

        async def work(_: Call[RunScope]) -> Answer:
            facts = await self.store.past(scope, named("fact_id", fact_id), run.clock.wall())
            return Answer(None, orjson.dumps([dump_fact(fact) for fact in facts]))

        self._counting.memory_read("past")
        return await self._facts(run, "memory.past", {"scope": scope.parts, "id": fact_id}, work)

    async def _facts(
        self, run: RunScope, name: str, args: Mapping[str, Any], work: Callable[[Call[RunScope]], Awaitable[Answer]]
    ) -> list[Fact]:
        answer = await self.verbs.do(run, name, Effect.READ, args, work)
        facts = [load_fact(found) for found in orjson.loads(answer.json or b"[]")]
        for fact in facts:
            _take_in(run, fact)
        return facts

    async def change(self, run: RunScope, verb: str, fact_id: str, scope: Scope, **words: Any) -> bool:
        """Forget, pin, unpin or verify a fact of exactly this scope; whether there was one that this run may change."""
        trust = run.lineage.trust
        named("fact_id", fact_id)
        if verb == "pin" and words["pinned"] and trust < Trust.NORMAL:
            raise _untrusted(run, "pin a fact, which would come first and stand against better ones")

        async def work(_: Call[RunScope]) -> Answer:
            now_s = run.clock.wall()
            if verb == "forget":
                done = await self.store.forget(scope, fact_id, trust)
            elif verb == "pin":
                done = await self.store.pin(scope, fact_id, trust, now_s, pinned=words["pinned"])
            else:
                done = await self.store.verify(scope, fact_id, trust, now_s, words["verify_by"])
            if not done:
                await self._refuse_better(run, scope, fact_id, now_s)
                # An attempt of this run that died may have done it, and not have lived to write that down.
                done = verb == "forget" and run.fence > 1
            return Answer(None, b"true" if done else b"false")

        args = {"scope": scope.parts, "id": fact_id, **words}
        answer = await self.verbs.do(run, f"memory.{verb}", Effect.WRITE, args, work)
        return answer.json == b"true"

    async def _refuse_better(self, run: RunScope, scope: Scope, fact_id: str, now_s: float) -> None:
        """Say so, where a fact was left alone because it is better believed than this run.

        Raises:
            ToolDenied: It is there, in exactly this scope.
        """
        fact = await self.store.get(scope, fact_id, now_s)
        if fact is not None and fact.scope == scope and fact.trust > run.lineage.trust:
            raise _untrusted(run, "change a fact that is better believed")

    async def sweep(self, now_s: float) -> None:
        """Delete what has expired; nobody could read it any more."""
        for _ in range(SWEEPS):
            rows = await self.store.purge_expired(now_s, SWEPT)
            self._counting.memory_expired(rows)
            if rows < SWEPT:
                return

    def _fact_id(self, run: RunScope, call: Call[RunScope], nth: int) -> str:
        """Return the id of a fact: of the place in its run, the same in every attempt of the run."""
        where = (run.tenant_id, run.root_request_id, run.path, str(call.turn), call.tool.name, str(nth))
        packed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in where)
        return f"mem_{digest(packed + call.digest, self._secret).hex()}"

    async def _vector(self, embedder: Embedder, text: str) -> bytes | None:
        """Return the vector of a text; None where there is none to be had: words find it all the same."""
        try:
            (vector,) = await self._in_thread(functools.partial(embedder.embed, [text]), {}, "memory.embed")
            return pack_vector(vector, embedder.dims)
        except Exception:
            self._counting.memory_rejected("embedder")
            return None


def _untrusted(run: RunScope, what: str) -> ToolDenied:
    read = ", ".join(run.lineage.sources[:3])
    return ToolDenied(
        f"memory: this run has read what may be an outsider's ({read}) and cannot {what}: do it before, or say which "
        "outputs are untrusted (tools.untrusted_output)",
        for_model="What was read here is not trusted enough for that. Nothing was changed.",
        details={"policy": "memory_trust"},
    )


def take_back(run: RunScope, history: History) -> None:
    """Take into a resumed run the labels of all that its earlier attempts had read of memory.

    A tool that is answered from the record does not read again what it read within; its answer rests on it.
    """
    for record in history.calls:
        if record.value is None:
            continue
        verb = record.tool.removeprefix(WITHIN)
        if verb == "memory.recall":
            facts = _load(record.value).facts
        elif verb in {"memory.get", "memory.past"}:
            facts = tuple(load_fact(found) for found in orjson.loads(record.value))
        elif verb == "artifacts.get":
            kept = orjson.loads(record.value)
            facts = ()
            if kept is not None:
                run.lineage.read("artifact:*", Trust(kept[0]), kept[1])
        else:
            continue
        for fact in facts:
            _take_in(run, fact)


def _take_in(run: RunScope, fact: Fact) -> None:
    run.lineage.read(f"memory:{fact.fact_id}", fact.trust, fact.text)


def _dump(recalled: Recalled) -> bytes:
    return orjson.dumps(
        {
            "facts": [dump_fact(fact) for fact in recalled.facts],
            "text": recalled.text,
            "tokens": recalled.tokens,
            "max_tokens": recalled.max_tokens,
            "dropped": [[dropped.fact_id, str(dropped.why), dropped.tokens] for dropped in recalled.dropped],
        }
    )


def _load(data: bytes) -> Recalled:
    found = orjson.loads(data)
    return Recalled(
        facts=tuple(load_fact(fact) for fact in found["facts"]),
        text=found["text"],
        tokens=found["tokens"],
        max_tokens=found["max_tokens"],
        dropped=tuple(Dropped(fact_id, Why(why), tokens) for fact_id, why, tokens in found["dropped"]),
    )
