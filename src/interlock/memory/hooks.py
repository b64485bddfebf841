"""What a developer brings to memory: who can tell whether facts still hold, a token counter, a maker of vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from interlock.memory.checking import Validator
from interlock.memory.embedding import Embedder
from interlock.memory.fact import Fact
from interlock.memory.tokens import TokenCounter, count_tokens

__all__ = ["MemoryHooks"]

F = TypeVar("F", bound=Validator)


class MemoryHooks:
    """One gate's hooks, `gate.memory`.

    Attributes:
        embedder: Makes vectors of texts; None: facts are found by their words alone. Set it before the first run.
        count_tokens: Counts the tokens of a text as the model in use does; by default an estimate from above.
    """

    def __init__(self) -> None:
        self.embedder: Embedder | None = None
        self.count_tokens: TokenCounter = count_tokens
        self._by_key: dict[str, Validator] = {}
        self._any: Validator | None = None

    def validator(self, key: str | None = None) -> Callable[[F], F]:
        """Register a function that can tell whether a fact still holds once its `verify_by` has passed.

        It gets the `Fact` and returns True (it holds), a Unix time (it holds; ask again then), False (no longer), or
        None (cannot tell); it may be async. What it raises means None.

        Args:
            key: Of the statements that it can tell of; None: of everything that no other one is named for.
        """

        def register(fn: F) -> F:
            if key is None:
                self._any = fn
            else:
                self._by_key[key] = fn
            return fn

        return register

    def validator_of(self, fact: Fact) -> Validator | None:
        """Return who can tell whether `fact` holds, or None."""
        return self._by_key.get(fact.key, self._any) if fact.key else self._any
