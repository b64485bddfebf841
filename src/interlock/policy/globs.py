"""Many globs, one question: does any of them match this tool name? Ten thousand cost what ten cost.

The grammar is two characters: `*` is any run of characters (dots too), `?` is exactly one. Matching is
case-sensitive. Exact names are a dictionary; globs with one star are found by their head and tail; the
few others by a few letters of their longest literal, and then by an expression that cannot backtrack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from interlock.core.errors import ConfigError

__all__ = ["MAX_NAME_LENGTH", "GlobSet", "valid_tool_name"]

MAX_NAME_LENGTH = 128
# Names come from a model: the memory of answers is bounded, and emptied when full.
MEMO_SIZE = 4096
# Every stretch of this many letters of a name is looked up once, however many globs there are.
MAX_GRAM = 3

_NAME = re.compile(rf"[A-Za-z0-9_.:/-]{{1,{MAX_NAME_LENGTH}}}")
_GLOB = re.compile(rf"[A-Za-z0-9_.:/*?-]{{1,{MAX_NAME_LENGTH}}}")
_LITERAL = re.compile(r"[^*?]+")
_UNSEEN = "\0"


def valid_tool_name(name: str) -> bool:
    """Whether `name` may be the name of a tool: 1 to 128 of `A-Z a-z 0-9 _ . : / -`."""
    return _NAME.fullmatch(name) is not None


class GlobSet:
    """A compiled set of globs.

    Args:
        patterns: Globs and plain names; duplicates are harmless.
        key: Configuration key they come from, named in errors.

    Raises:
        ConfigError: A pattern is empty, too long, or uses a character that no tool name has.
    """

    __slots__ = ("_everything", "_exact", "_grams", "_head_lengths", "_heads", "_memo", "_shapes", "patterns")

    def __init__(self, patterns: Iterable[str], *, key: str = "globs") -> None:
        if isinstance(patterns, str):
            # Taken letter by letter, a "*" in it would match everything.
            raise ConfigError(f"{key}: a list is needed: [{patterns!r}]")
        self.patterns = tuple(dict.fromkeys(patterns))
        self._everything: str | None = None
        self._exact: dict[str, str] = {}
        # head -> tail -> pattern, for globs with one star.
        self._heads: dict[str, _Tails] = {}
        # length -> a few letters of the longest literal -> globs, for those with more than one wildcard.
        self._grams: dict[int, dict[str, list[tuple[re.Pattern[str], str]]]] = {}
        self._shapes: list[tuple[re.Pattern[str], str]] = []
        self._memo: dict[str, str | None] = {}
        for pattern in self.patterns:
            self._add(_checked(pattern, key), pattern)
        self._head_lengths = tuple(sorted({len(head) for head in self._heads}, reverse=True))

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def match(self, name: str) -> str | None:
        """Return the pattern that matches `name`, as it was written, or None.

        Of several, the most specific: the exact name, then the longest head before a single star, then the
        longest tail after it, then globs with more wildcards, `*` last.
        """
        found = self._memo.get(name, _UNSEEN)
        if found is not _UNSEEN:
            return found
        found = self._find(name)
        if len(name) <= MAX_NAME_LENGTH:
            if len(self._memo) >= MEMO_SIZE:
                self._memo.clear()
            self._memo[name] = found
        return found

    def _add(self, glob: str, written: str) -> None:
        if glob == "*":
            self._everything = self._everything or written
        elif "?" in glob or glob.count("*") > 1:
            entry = (re.compile(_expression(glob)), written)
            literals = _LITERAL.findall(glob)
            if literals:
                self._index(max(literals, key=len), entry)
            else:
                self._shapes.append(entry)
        elif "*" in glob:
            head, tail = glob.split("*")
            self._heads.setdefault(head, _Tails()).add(tail, written)
        else:
            self._exact[glob] = written

    def _index(self, literal: str, entry: tuple[re.Pattern[str], str]) -> None:
        """File a glob under those letters of its literal that the fewest others are filed under."""
        length = min(len(literal), MAX_GRAM)
        grams = self._grams.setdefault(length, {})
        choice = (literal[start : start + length] for start in range(len(literal) - length + 1))
        grams.setdefault(min(choice, key=lambda gram: len(grams.get(gram, ()))), []).append(entry)

    def _find(self, name: str) -> str | None:
        found = self._exact.get(name)
        if found is not None:
            return found
        length = len(name)
        for head_length in self._head_lengths:
            if head_length <= length:
                tails = self._heads.get(name[:head_length])
                if tails is not None:
                    found = tails.match(name, length - head_length)
                    if found is not None:
                        return found
        return self._find_shape(name) or self._everything

    def _find_shape(self, name: str) -> str | None:
        for length, grams in self._grams.items():
            for start in range(len(name) - length + 1):
                for expression, pattern in grams.get(name[start : start + length], ()):
                    if expression.fullmatch(name):
                        return pattern
        for expression, pattern in self._shapes:
            if expression.fullmatch(name):
                return pattern
        return None


class _Tails:
    """What may follow one head: tails by length, longest first."""

    __slots__ = ("_lengths", "_patterns")

    def __init__(self) -> None:
        self._patterns: dict[str, str] = {}
        self._lengths: tuple[int, ...] = ()

    def add(self, tail: str, pattern: str) -> None:
        self._patterns.setdefault(tail, pattern)
        if len(tail) not in self._lengths:
            self._lengths = tuple(sorted({*self._lengths, len(tail)}, reverse=True))

    def match(self, name: str, room: int) -> str | None:
        for length in self._lengths:
            if length <= room:
                found = self._patterns.get(name[len(name) - length :])
                if found is not None:
                    return found
        return None


def _checked(pattern: Any, key: str) -> str:
    """Return `pattern` with runs of stars made one."""
    if not isinstance(pattern, str) or _GLOB.fullmatch(pattern) is None:
        raise ConfigError(
            f"{key}: {str(pattern)[:MAX_NAME_LENGTH]!r} is not a tool name or glob: letters, digits and _ . : / - with "
            f"* (any run) and ? (one character), at most {MAX_NAME_LENGTH} in all"
        )
    return re.sub(r"\*{2,}", "*", str(pattern))


def _expression(glob: str) -> str:
    """Translate; each star takes the shortest run to the next literal and never gives it back (atomic)."""
    head, *parts = [re.escape(part).replace(r"\?", ".") for part in glob.split("*")]
    if not parts:
        return head
    *middle, tail = parts
    return head + "".join(f"(?>.*?{part})" for part in middle) + ".*" + tail
