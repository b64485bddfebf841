"""How facts and artifacts stand in PostgreSQL: columns, words for the search, and the row of what is new."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import orjson

from interlock.core.trust import Trust
from interlock.memory.fact import ArtifactInfo, Fact, NewFact, Origin, State
from interlock.memory.scope import Scope
from interlock.stores.pg_text import read_text, write_text

__all__ = ["ARTIFACT_COLUMNS", "COLUMNS", "LIVE", "fact_words", "query_of", "read_fact", "read_info", "words_of"]

COLUMNS = (
    "f.fact_id, f.tenant_id, f.user_id, f.session_id, f.text, f.value, f.subject, f.key, f.tags, f.trust, f.state,"
    " f.pinned, f.created_at, f.expires_at, f.verify_by, f.verified_at, f.supersedes, f.superseded_by,"
    " f.superseded_at, f.origin, f.vector"
)
ARTIFACT_COLUMNS = (
    "f.name, f.tenant_id, f.user_id, f.session_id, length(f.data), f.created_at, f.expires_at, f.subject, f.trust,"
    " f.origin"
)
# What lives at the moment that the transaction names (`pg_reach.py`). Policies say the same of what agents read.
LIVE = "{s}.memory_lives(f.created_at, f.expires_at)"

_WORD = re.compile(r"[^\W_]+")
# What the server takes: bytes of a word, and of all words of a row.
_WORD_BYTES, _ALL_BYTES = 1_000, 400_000


def words_of(text: str) -> list[str]:
    """Return the words of a text as the index has them: runs of letters and digits, lower case, without accents."""
    folded = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    words: dict[str, None] = {}
    room = _ALL_BYTES
    for found in _WORD.finditer(plain):
        word = found[0]
        if word in words:
            continue
        size = len(word.encode())
        room -= size
        if room < 0:
            break
        if size <= _WORD_BYTES:
            words[word] = None
    return list(words)


def query_of(words: Iterable[str]) -> str | None:
    """Return the question as a `tsquery`: any of the words; None where there is none. Nothing in it is syntax."""
    plain = [word for each in words for word in words_of(each)]
    return " | ".join(f"'{word}'" for word in dict.fromkeys(plain)) or None


def fact_words(new: NewFact, scope: Scope, state: State, supersedes: str) -> tuple[Any, ...]:
    """Return the parameters of the insert."""
    return (
        new.fact_id,
        *map(write_text, scope.parts),
        new.text,
        new.value_json,
        write_text(new.subject),
        write_text(new.key),
        [write_text(tag) for tag in new.tags],
        int(new.trust),
        state.value,
        new.created_at,
        new.expires_at,
        new.verify_by,
        supersedes,
        orjson.dumps(new.origin.as_json()).decode(),
        new.vector,
        words_of(new.text),
    )


def read_fact(row: Any) -> Fact:
    """Return the fact of a row of `COLUMNS`."""
    (fact_id, tenant, user, session, text, value, subject, key, tags, trust, state, pinned, created_at, expires_at) = (
        row[:14]
    )
    verify_by, verified_at, supersedes, superseded_by, superseded_at, origin, vector = row[14:21]
    return Fact(
        fact_id=fact_id,
        scope=_scope(tenant, user, session),
        text=text,
        created_at=created_at,
        expires_at=expires_at,
        subject=read_text(subject),
        key=read_text(key),
        value_json=value,
        tags=tuple(map(read_text, tags)),
        verify_by=verify_by,
        verified_at=verified_at,
        trust=Trust(trust),
        state=State(state),
        pinned=pinned,
        origin=Origin.of_json(orjson.loads(origin)),
        supersedes=supersedes,
        superseded_by=superseded_by,
        superseded_at=superseded_at,
        vector=vector,
    )


def read_info(row: Any) -> ArtifactInfo:
    """Return the artifact of a row of `ARTIFACT_COLUMNS`."""
    name, tenant, user, session, size, created_at, expires_at, subject, trust, origin = row[:10]
    return ArtifactInfo(
        name=read_text(name),
        scope=_scope(tenant, user, session),
        size_bytes=size,
        created_at=created_at,
        expires_at=expires_at,
        subject=read_text(subject),
        trust=Trust(trust),
        origin=Origin.of_json(orjson.loads(origin)),
    )


def _scope(tenant: str, user: str, session: str) -> Scope:
    return Scope(read_text(tenant), read_text(user) or None, read_text(session) or None)
