"""Wordings looked for in long texts, quickly: a pattern is tried only where its literal stands.

Almost every answer holds none of the literals, and finding that out costs a few searches in C.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["Signs", "lowered"]


# A wording is no longer than this, before and behind its literal.
REACH = 160


class Signs:
    """Patterns, each behind literals of which at least one stands in whatever it matches; all in lower case."""

    __slots__ = ("_signs",)

    def __init__(self, signs: Iterable[tuple[tuple[str, ...], str]]) -> None:
        compiled = [(literals, re.compile(pattern, re.MULTILINE)) for literals, pattern in signs]
        self._signs = tuple((literal, pattern) for literals, pattern in compiled for literal in literals)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where in this text (in lower case) the wordings stand, in order; overlapping ones too."""
        found: list[tuple[int, int]] = []
        for literal, pattern in self._signs:
            if literal in text:
                found += _around(text, literal, pattern)
        return sorted(set(found)) if found else found

    def stand_in(self, text: str) -> bool:
        """Whether any of them stands in this text (in lower case)."""
        return bool(self.spans(text))


def _around(text: str, literal: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    at = text.find(literal)
    while at >= 0:
        match = pattern.search(text, max(0, at - REACH), at + REACH)
        if match is not None:
            yield match.span()
        at = text.find(literal, at + REACH // 2)


def lowered(text: str) -> str:
    """Return a text in lower case, every letter at its place; unchanged where that cannot be done."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text
