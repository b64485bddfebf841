"""Words in which the tests of memory are written."""

from __future__ import annotations

import itertools

from interlock.core.trust import Trust
from interlock.memory.fact import NewArtifact, NewFact, Origin
from interlock.memory.scope import Scope
from interlock.memory.store import Search

NOW = 1_700_000_000.0
ACME = Scope("acme")
ANN = Scope("acme", "ann")
CHAT = Scope("acme", "ann", "chat-1")
BOB = Scope("acme", "bob")
GLOBEX = Scope("globex")

_ids = itertools.count()


def new_fact(text="Ann prefers email", *, now=NOW, ttl_s=60.0, **words):
    words.setdefault("fact_id", f"mem_{next(_ids):032x}")
    words.setdefault("origin", Origin(run_id="run_1", agent="support", source="crm"))
    return NewFact(text=text, created_at=now, expires_at=now + ttl_s, **words)


def statement(value, *, key="quarter", subject="finance", **words):
    return new_fact(f"{key}: {value}", key=key, subject=subject, value_json=f'"{value}"'.encode(), **words)


def new_artifact(name="report", data=b'{"total":1}', *, now=NOW, ttl_s=60.0, **words):
    words.setdefault("origin", Origin(run_id="run_1", agent="support", tool="report.make"))
    return NewArtifact(name=name, data=data, created_at=now, expires_at=now + ttl_s, **words)


async def texts(memory, scope, *words, now=NOW, **limits):
    return [hit.fact.text for hit in await memory.search(scope, Search(words=words, **limits), now)]


async def held(memory, scope, fact_id, now=NOW):
    fact = await memory.get(scope, fact_id, now)
    return None if fact is None else fact.text


LOW, NORMAL, HIGH = Trust.LOW, Trust.NORMAL, Trust.HIGH
