"""Whose a fact is: a tenant, perhaps one user of it, perhaps one session of that user.

Parts are compared byte for byte and never joined by a separator, so that no name of one scope can spell another.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from interlock.core.errors import InvalidArguments

__all__ = ["Scope"]

MAX_BYTES = 256


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose a fact is.

    Args:
        tenant: Set by the run, never by a model.
        user: None: shared by all users of the tenant.
        session: None: shared by all sessions of the user. Only with a user.

    Raises:
        InvalidArguments: A part is empty, blank, longer than 256 bytes, or has control characters or no UTF-8.
    """

    tenant: str
    user: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        _check("tenant", self.tenant)
        if self.user is not None:
            _check("user", self.user)
        if self.session is not None:
            if self.user is None:
                raise _refused("session", "needs a user: a session is one user's")
            _check("session", self.session)

    @property
    def parts(self) -> tuple[str, str, str]:
        """The parts as stores keep them: "" for what is shared (no part itself can be empty)."""
        return self.tenant, self.user or "", self.session or ""

    @property
    def token(self) -> str:
        """One word of 32 letters and digits that stands for this scope alone, for a search index."""
        return _token(self.parts)

    def visible(self) -> tuple[Scope, ...]:
        """Return the scopes whose facts are read from this one: itself, its user's, its tenant's."""
        scopes = [self]
        if self.session is not None:
            scopes.append(Scope(self.tenant, self.user))
        if self.user is not None:
            scopes.append(Scope(self.tenant))
        return tuple(scopes)

    def sees(self, other: Scope) -> bool:
        """Whether facts of `other` are read from here: what is shared at or above this scope, nothing beside it."""
        mine, theirs = self.parts, other.parts
        return mine[0] == theirs[0] and theirs[1] in {"", mine[1]} and theirs[2] in {"", mine[2]}

    def covers(self, other: Scope) -> bool:
        """Whether `other` is this scope or lies below it: what operators list, purge and erase."""
        return self.tenant == other.tenant and self.user in {None, other.user} and self.session in {None, other.session}


def _token(parts: tuple[str, str, str]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        hashed.update(len(data).to_bytes(4, "big") + data)
    return hashed.hexdigest()


def _check(name: str, part: object) -> None:
    if not isinstance(part, str):
        raise _refused(name, f"must be text, not {type(part).__name__}")
    if not part.strip():
        raise _refused(name, "must not be empty or blank; leave it out to share with all")
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        raise _refused(name, "is not valid UTF-8") from None
    if size > MAX_BYTES:
        raise _refused(name, f"has {size} bytes, more than {MAX_BYTES}")
    if any(unicodedata.category(c) == "Cc" for c in part):
        raise _refused(name, "has control characters")


def _refused(name: str, why: str) -> InvalidArguments:
    return InvalidArguments(f"memory scope: {name} {why}", for_model="This memory scope is not valid.")
