"""What the dialects of models have in common: how texts are cut, spoilt, and handed out again piece by piece."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["UNKNOWN_TOOL", "Handed", "cut", "renamed", "spoilt"]

UNKNOWN_TOOL = "tool_that_does_not_exist"
"""No vendor takes a name with a dot."""

_IDS = {"id", "call_id", "item_id"}
_ID_PREFIX = re.compile(r"[A-Za-z]{0,10}[-_]?")


def cut(texts: Sequence[str]) -> list[str | None]:
    """Return the first half of all characters, text by text; None for a text that begins behind the cut."""
    left = sum(map(len, texts)) // 2
    kept: list[str | None] = []
    for i, text in enumerate(texts):
        kept.append(None if left <= 0 and i else text[:left])
        left -= len(text)
    return kept


def spoilt(arguments: str) -> str:
    """Return arguments that are whole, and that nobody can read as JSON."""
    return f"{arguments.rstrip()[:-1] or '{'}]"


def renamed(value: Any, number: int) -> Any:
    """Return an answer whose ids are new: a model that says the same again does not give the same ids.

    Args:
        number: Of the repetition; the same number gives the same ids.
    """
    if isinstance(value, Mapping):
        return {
            key: _new_id(item, number) if key in _IDS and isinstance(item, str) else renamed(item, number)
            for key, item in value.items()
        }
    return [renamed(item, number) for item in value] if isinstance(value, list) else value


def _new_id(old: str, number: int) -> str:
    prefix = _ID_PREFIX.match(old)
    drawn = hashlib.sha256(f"{number}:{old}".encode()).hexdigest()[:24]
    return (prefix[0] if prefix else "") + drawn


class Handed:
    """Hands out new texts in pieces as long as the old ones; with the last piece, all that is left.

    Args:
        old: Slot to its pieces, as a stream had them. new: slot to what it says now; None: it is left out.
    """

    def __init__(self, old: Mapping[Any, Sequence[str]], new: Mapping[Any, str | None]) -> None:
        self._left: dict[Any, str | None] = dict(new)
        self._pieces = {slot: len(pieces) for slot, pieces in old.items()}

    def next(self, slot: Any, piece: str) -> str | None:
        """Return what is said where `piece` was; None where the slot is left out."""
        text = self._left.get(slot)
        if text is None:
            return None
        self._pieces[slot] -= 1
        size = len(piece) if self._pieces[slot] else len(text)
        self._left[slot] = text[size:]
        return text[:size]
