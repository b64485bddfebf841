"""Erases a subject: facts, history, search index, runs that speak of it, and then the bytes; and proves it.

The proof goes the same way twice. A canary, a word that stands nowhere else, is remembered and recalled as a fact
of the subject, recorded by a run and logged; it must be found in the store before, and nothing of it, of the
subject and of what was known of it may be found afterwards. What cannot be looked into is listed, and so is what
lies outside.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interlock.core.canonical import canonical_json
from interlock.core.clock import Clock
from interlock.core.errors import InterlockError
from interlock.journal.replay import ReplayStore, TurnRecord
from interlock.journal.store import NewRun, RunState, RunStore
from interlock.memory.erasure import Eraser, Ground, Kept, Mentions
from interlock.memory.fact import Fact, NewFact, Origin
from interlock.memory.residue import (
    LEAST_CHARACTERS,
    Found,
    Region,
    Searched,
    Standing,
    search_files,
)
from interlock.memory.scope import Scope
from interlock.memory.store import MemoryDesk, MemoryStore, Search

__all__ = ["Attestation", "ErasableStore", "Erasure", "Proof", "erase"]

CANARY_TTL_S = 3_600.0
# An index of words may keep the beginning of a word with the word before it; what is looked for is the rest.
CANARY_BYTES, SHARED_CHARACTERS = 14, 8
# All facts of a tenant are looked through for the subject's name.
_ALL = 10_000_000


class Memory(MemoryStore, MemoryDesk, Protocol):
    """Memory of a store, for agents and operators."""


@runtime_checkable
class ErasableStore(RunStore, Protocol):
    """What an erasure needs of a store. `path`: of its file, or its URL without a password."""

    secret: bytes

    @property
    def path(self) -> str: ...
    @property
    def memory(self) -> Memory: ...
    @property
    def history(self) -> ReplayStore: ...
    @property
    def erasure(self) -> Eraser: ...
    async def flush(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased.

    Attributes:
        facts, artifacts: How many rows, older versions included. runs: whose content was dropped.
        kept: Runs that speak of it and could not be dropped yet. regions: what the store could not clean.
        texts: What is looked for afterwards, by name; shown to nobody.
    """

    facts: int
    artifacts: int
    runs: tuple[str, ...]
    kept: tuple[Kept, ...]
    regions: tuple[Region, ...]
    texts: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an erasure with proof can say.

    Attributes:
        subject_digest: Keyed with the store's secret: it can be checked by whoever has store and name, and tells nobody
            else the name.
        canary_seen: In how many places the canary stood before: at least one, else the search proves nothing.
        searched: Files, bytes and what was found in them. found: everything that was, in tables and runs too.
        outside: What holds copies and cannot be searched from here.
    """

    subject_digest: str
    erasure: Erasure
    canary_recalled: bool
    canary_seen: int
    searched: Searched
    found: tuple[Found, ...]
    regions: tuple[Region, ...]
    outside: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`erased`, `not provable` (nothing was found, but not everything could be read), or `incomplete`."""
        if self.found or self.erasure.kept:
            return "incomplete"
        blind = not self.canary_recalled or not self.canary_seen
        if blind or any(region.standing is Standing.NOT_PROVABLE for region in self.regions):
            return "not provable"
        return "erased"


@dataclass(frozen=True, slots=True)
class Proof:
    """How an erasure is proved.

    Args:
        log: Writes a text into the logs, as the configuration has what agents remember logged.
        also: Further files and folders to search: logs, caches.
        progress: Told how many bytes have been read.
    """

    log: Callable[[str], None] = lambda _: None
    also: Sequence[Path] = ()
    progress: Callable[[int], None] = lambda _: None


async def erase(
    store: ErasableStore, below: Scope, subject: str, clock: Clock, *, whole: bool = False, proof: Proof | None = None
) -> Erasure | Attestation:
    """Erase what is known of a subject below a scope, and what runs of the tenant have kept of it.

    Args:
        subject: Of the facts; also looked for as text in other facts and in runs, where it has 6 characters or more.
        whole: Rewrite every table of the store. proof: how it is proved; None: it is not.

    Raises:
        StoreUnavailable: What was done so far stays done; erasing again goes on.
    """
    if proof is None:
        return await _erase(store, below, subject, clock, {}, whole=whole)
    canary = clock.token(CANARY_BYTES)
    run_id = f"erasure-{clock.token(8)}"
    recalled = await _sing(store, below, subject, canary, run_id, clock.wall())
    proof.log(canary)
    ground = await store.erasure.ground()
    sung = {"canary": canary[SHARED_CHARACTERS:]}
    before = await _search(store, below, sung, ground, proof)
    done = await _erase(store, below, subject, clock, sung, whole=whole)
    texts = {name: text for name, text in done.texts.items() if len(text) >= LEAST_CHARACTERS}
    ground = await store.erasure.ground()
    after = await _search(store, below, texts, ground, proof)
    return Attestation(
        subject_digest=hashlib.blake2b(subject.encode(), key=store.secret, digest_size=32).hexdigest(),
        erasure=replace(done, facts=done.facts - 1, runs=tuple(other for other in done.runs if other != run_id)),
        canary_recalled=recalled,
        canary_seen=len(before.found),
        searched=after.searched,
        found=after.found,
        regions=(*done.regions, *after.regions, *_too_short(done.texts)),
        outside=ground.outside,
    )


async def _erase(
    store: ErasableStore, below: Scope, subject: str, clock: Clock, texts: Mapping[str, str], *, whole: bool
) -> Erasure:
    gone = await _drop_mentioning(store.memory, below, subject, clock.wall())
    erased = await store.memory.erase(below, [subject])
    said = (*(fact.text for fact in gone), *erased.texts)
    texts = {**texts, "subject": subject, **{f"text {i}": text for i, text in enumerate(said, start=1)}}
    looked_for = {name: text for name, text in texts.items() if len(text) >= LEAST_CHARACTERS}
    mentions = await store.erasure.mentions(below.tenant, looked_for)
    wrote = [*(fact.origin.run_id for fact in gone), *erased.run_ids]
    theirs = [run_id for run_id in wrote if (row := await store.run(run_id)) and row.tenant_id == below.tenant]
    run_ids = tuple(dict.fromkeys((*mentions.run_ids, *theirs)))
    kept = await store.erasure.drop(run_ids)
    regions = await store.erasure.scrub(whole=whole)
    staying = {run_id for run_id, _ in kept}
    return Erasure(
        facts=len(gone) + len(erased.fact_ids),
        artifacts=erased.artifacts,
        runs=tuple(run_id for run_id in run_ids if run_id not in staying),
        kept=tuple(kept),
        regions=tuple(regions),
        texts=texts,
    )


async def _drop_mentioning(memory: Memory, below: Scope, subject: str, now_s: float) -> list[Fact]:
    """Delete facts that speak of the subject and are another's, or nobody's; return them and their older versions."""
    if len(subject) < LEAST_CHARACTERS:
        return []
    listed = [
        *await memory.list_facts(below, now_s, limit=_ALL),
        *await memory.list_facts(below, now_s, expired=True, limit=_ALL),
    ]
    gone: dict[str, Fact] = {}
    for fact in listed:
        if fact.subject != subject and fact.fact_id not in gone and _speaks_of(fact, subject):
            gone |= {version.fact_id: version for version in await memory.show(below, fact.fact_id)}
            await memory.drop(below, fact.fact_id)
    return list(gone.values())


def _speaks_of(fact: Fact, subject: str) -> bool:
    words = (fact.text, fact.subject, fact.key, fact.origin.source, *fact.tags)
    return any(subject.casefold() in word.casefold() for word in words)


async def _sing(store: ErasableStore, below: Scope, subject: str, canary: str, run_id: str, now_s: float) -> bool:
    """Remember, recall and record the canary; return whether it was recalled."""
    text = f"the canary {canary} of an erasure"
    content = canonical_json({"said": text})
    # A root run, like any other: what replay needs is sealed, what people read is in the record.
    await store.begin(NewRun(run_id, below.tenant, run_id, "interlock.erasure", None, run_id, task=content))
    store.history.turn_soon(run_id, 1, TurnRecord("", 1, content))
    new = NewFact(
        fact_id=f"mem_{run_id}",
        text=text,
        subject=subject,
        created_at=now_s,
        expires_at=now_s + CANARY_TTL_S,
        origin=Origin(run_id=run_id, agent="interlock.erasure"),
    )
    await store.memory.remember(below, new)
    hits = await store.memory.search(below, Search(words=(canary,)), now_s)
    record: dict[str, Any] = {"run_id": run_id, "tenant_id": below.tenant, "stop_reason": "success", "steps": 1}
    record |= {"tool_calls": 0, "duration_s": 0.0, "cost_usd": 0.0, "trace": [], "details": {"said": text}}
    await store.end(run_id, 1, RunState.ENDED, "success", record, content)
    await store.flush()
    return any(hit.fact.fact_id == new.fact_id for hit in hits)


@dataclass(frozen=True, slots=True)
class _Seen:
    searched: Searched
    found: tuple[Found, ...]
    regions: tuple[Region, ...]


async def _search(store: ErasableStore, below: Scope, texts: Mapping[str, str], ground: Ground, proof: Proof) -> _Seen:
    """Look for texts in files, tables, and sealed values of runs."""
    paths = (*ground.paths, *proof.also)
    searched = await asyncio.to_thread(search_files, paths, texts, proof.progress)
    regions = [*ground.regions, *searched.regions]
    try:
        rows = await store.erasure.rows(texts)
    except InterlockError as error:
        rows = []
        regions.append(Region("tables", Standing.NOT_PROVABLE, str(error)))
    mentions: Mentions = await store.erasure.mentions(below.tenant, texts)
    return _Seen(searched, (*searched.found, *rows, *mentions.found), (*regions, *mentions.regions))


def _too_short(texts: Mapping[str, str]) -> list[Region]:
    why = f"shorter than {LEAST_CHARACTERS} characters: it stands in any file by chance, and was not looked for"
    return [Region(name, Standing.NOT_PROVABLE, why) for name, text in texts.items() if len(text) < LEAST_CHARACTERS]
