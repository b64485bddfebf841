"""Tells when a run's prompt has outgrown its start: the first sign of memory that is never dropped."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Growth", "PromptGrowth"]


@dataclass(frozen=True, slots=True)
class Growth:
    """A prompt that has outgrown its run's first one. `turn`: of the model turn in which it was seen."""

    first_tokens: int
    tokens: int
    factor: float
    turn: int


class PromptGrowth:
    """One run's prompts, in the order of its model turns.

    Args:
        factor: How many times the first prompt is too much; None: never.
    """

    __slots__ = ("_factor", "_first", "alarm")

    def __init__(self, factor: float | None) -> None:
        self._factor = factor
        self._first = 0
        self.alarm: Growth | None = None

    def seen(self, tokens: int, turn: int) -> Growth | None:
        """Take in a prompt's input tokens; return the alarm, the first time that there is one."""
        if self._factor is None or self.alarm is not None or tokens <= 0:
            return None
        if not self._first:
            self._first = tokens
        elif tokens > self._first * self._factor:
            self.alarm = Growth(self._first, tokens, self._factor, turn)
            return self.alarm
        return None
