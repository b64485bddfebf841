"""Makes facts and artifacts of what a caller proposes, or says what is wrong with it; nothing is bent to fit.

Text must be valid UTF-8 without NUL characters, so that every store keeps the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.errors import InvalidArguments
from interlock.core.trust import Lineage, Trust
from interlock.memory.fact import NewArtifact, NewFact, Origin, State, Statement
from interlock.memory.life import expires_at, verify_date
from interlock.memory.options import MemoryOptions, Tainted

__all__ = ["Proposal", "draft_artifact", "draft_fact", "named", "tagged"]

NAME_BYTES = 256
MAX_TAGS = 16

Proposal = str | bytes | Statement | Mapping[str, object]
"""A text, or a statement: `Statement(key, value)`, or a mapping of exactly `key` and `value`."""


def draft_fact(
    fact_id: str,
    proposal: Proposal,
    options: MemoryOptions,
    *,
    now_s: float,
    lineage: Lineage,
    origin: Origin,
    ttl_s: float | None = None,
    subject: str = "",
    verify_by: float | None = None,
    tags: Iterable[str] = (),
) -> NewFact:
    """Return the fact that `proposal` is, labelled by what its run has read.

    Raises:
        InvalidArguments: A part of it is not valid, or too large.
    """
    key, value_json = "", None
    if isinstance(proposal, str | bytes):
        text = _text("text", proposal, options.max_fact_bytes)
    else:
        said = _statement(proposal)
        key = named("key", said.key)
        try:
            value_json = canonical_json(said.value)
        except NotCanonical as error:
            raise _refused(f"value is not JSON: {error}") from None
        text = _text("text", f"{key}: {_plain(said.value, value_json)}", options.max_fact_bytes)
    trust = min(lineage.trust, Trust.NORMAL)
    kept_aside = trust < Trust.NORMAL and options.tainted == Tainted.QUARANTINE
    return NewFact(
        fact_id=fact_id,
        text=text,
        created_at=now_s,
        expires_at=expires_at(now_s, ttl_s, default_s=options.default_ttl_s, ceiling_s=options.max_ttl_s),
        subject=named("subject", subject) if subject else "",
        key=key,
        value_json=value_json,
        tags=tagged(tags),
        verify_by=verify_date(verify_by),
        trust=trust,
        state=State.QUARANTINED if kept_aside else State.ACTIVE,
        origin=origin,
    )


def draft_artifact(
    name: str,
    data: bytes,
    options: MemoryOptions,
    *,
    now_s: float,
    trust: Trust,
    origin: Origin,
    ttl_s: float | None = None,
    subject: str = "",
) -> NewArtifact:
    """Return the artifact; `data` is the canonical JSON of a validated output.

    Raises:
        InvalidArguments: A part of it is not valid, or too large.
    """
    if len(data) > options.max_artifact_bytes:
        raise _refused(
            f"an artifact of {len(data):,} bytes (memory.max_artifact_bytes = {options.max_artifact_bytes:,})"
        )
    return NewArtifact(
        name=named("name", name),
        data=data,
        created_at=now_s,
        expires_at=expires_at(now_s, ttl_s, default_s=options.default_ttl_s, ceiling_s=options.max_ttl_s),
        subject=named("subject", subject) if subject else "",
        trust=min(trust, Trust.NORMAL),
        origin=origin,
    )


def named(what: str, name: object) -> str:
    """Return a name: text that is not blank, of at most 256 bytes.

    Raises:
        InvalidArguments: It is something else.
    """
    return _text(what, name, NAME_BYTES)


def tagged(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags, each once.

    Raises:
        InvalidArguments: More than 16, or one that is no name.
    """
    if isinstance(tags, str):
        raise _refused("tags must be a list of text, not one text")
    found = tuple(dict.fromkeys(named("tag", tag) for tag in tags))
    if len(found) > MAX_TAGS:
        raise _refused(f"{len(found)} tags are more than {MAX_TAGS}")
    return found


def _statement(proposal: object) -> Statement:
    if isinstance(proposal, Statement):
        return proposal
    if isinstance(proposal, Mapping) and set(proposal) == {"key", "value"}:
        return Statement(proposal["key"], proposal["value"])
    raise _refused("a fact is a text, a Statement(key, value), or a mapping of exactly `key` and `value`")


def _plain(value: object, value_json: bytes) -> str:
    return value if isinstance(value, str) else value_json.decode()


def _text(what: str, text: object, max_bytes: int) -> str:
    if isinstance(text, bytes):
        if len(text) > max_bytes:
            raise _too_large(what, len(text), max_bytes)
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise _refused(f"{what} is not valid UTF-8") from None
    if not isinstance(text, str):
        raise _refused(f"{what} must be text, not {type(text).__name__}")
    if len(text) > max_bytes:
        raise _too_large(what, len(text), max_bytes)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _refused(f"{what} is not valid UTF-8") from None
    if size > max_bytes:
        raise _too_large(what, size, max_bytes)
    if not text.strip():
        raise _refused(f"{what} is empty or blank")
    if "\0" in text:
        raise _refused(f"{what} has a NUL character")
    return text


def _too_large(what: str, size: int, max_bytes: int) -> InvalidArguments:
    key = " (memory.max_fact_bytes)" if what == "text" else ""
    return _refused(f"{what} of {size:,} bytes is more than {max_bytes:,}{key}")


def _refused(why: str) -> InvalidArguments:
    return InvalidArguments(f"memory: {why}", for_model="This is not valid for memory. Nothing was remembered.")
