"""Settings by tool name: the exact name wins, then the glob that matches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from interlock.policy.globs import GlobSet

__all__ = ["PerTool"]

T = TypeVar("T")


class PerTool(Generic[T]):
    """A table whose keys are tool names or globs.

    Args:
        table: As the file has it.
        key: Configuration key, for errors.
    """

    __slots__ = ("_globs", "_table")

    def __init__(self, table: Mapping[str, T], *, key: str) -> None:
        self._globs = GlobSet(table, key=key)
        self._table = table

    def get(self, name: str) -> T | None:
        """Return what the table says of this tool, or None."""
        pattern = name if name in self._table else self._globs.match(name)
        return None if pattern is None else self._table[pattern]
