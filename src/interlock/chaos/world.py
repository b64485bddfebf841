"""What has happened in the world, counted where it happens: at the remote, never in our own tables.

Deduplicates on an idempotency key as real ticketing interfaces do: the same key with the same payload is
answered with the first effect; the same key with another payload is refused. Without a key, every request
is another effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Effect", "KeyReused", "World"]

_PREFIX = {"ticket": "T", "row": "R", "email": "E", "refund": "F", "note": "N"}


class KeyReused(Exception):
    """The idempotency key was used before, with another payload."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that happened.

    Attributes:
        id: Unique in the world. kind: `ticket`, `row`, `email`, `refund` or `note`.
        subject: The ticket's title, the row's table …
        key: The idempotency key that came with it, or None. at_s: article seconds since the project's first request.
    """

    id: str
    kind: str
    project: str
    subject: str
    key: str | None
    at_s: float

    @property
    def url(self) -> str:
        """Where a person would look at it."""
        return f"https://tickets.example/{self.id}"

    def as_json(self) -> dict[str, Any]:
        """Return it as `GET /effects` shows it."""
        return asdict(self) | {"url": self.url}


class World:
    """All effects, in order."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._by_key: dict[str, tuple[Effect, str]] = {}

    def perform(
        self, kind: str, project: str, subject: str, *, payload: str, key: str | None, at_s: float
    ) -> tuple[Effect, bool]:
        """Make the effect happen, or find the one that `key` names; return it and whether it is new.

        Raises:
            KeyReused: `key` stands for another payload.
        """
        if key is not None and key in self._by_key:
            effect, before = self._by_key[key]
            if before != payload:
                raise KeyReused(key)
            return effect, False
        effect = Effect(f"{_PREFIX[kind]}-{1001 + len(self._effects)}", kind, project, subject, key, round(at_s, 3))
        self._effects.append(effect)
        if key is not None:
            self._by_key[key] = (effect, payload)
        return effect, True

    def find(self, key: str) -> Effect | None:
        """Return the effect that `key` names."""
        found = self._by_key.get(key)
        return found[0] if found else None

    def effects(self, project: str | None = None) -> Iterable[Effect]:
        """Return every effect, oldest first; those of one project if it is named."""
        return [e for e in self._effects if project is None or e.project == project]
