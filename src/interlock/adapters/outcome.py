"""What came of a call that a framework was about to make, for its adapter to put into the framework's own form."""

from __future__ import annotations

from typing import Any, Self

from interlock.core.calls import Answer
from interlock.core.errors import InterlockError
from interlock.core.reasons import StopReason
from interlock.supervisor.observation import as_text

__all__ = ["Outcome"]


class Outcome:
    """What came of a call.

    Attributes:
        ok: Whether there is a value.
        value: What the tool returned (validated, where its output is declared); of an earlier answer, its JSON.
        fresh: `value` is the very object that the handler has just returned: its native form may go on as it is.
        status: As in the trace: `success`, `replayed`, `repeated`, `denied`, `timeout`, …
        note: What the model should read beside the value, or None.
        error: The refusal or failure, or None.
    """

    __slots__ = ("_answer", "error", "fresh", "note", "ok", "status", "value")

    def __init__(self, answer: Answer | None, error: InterlockError | None, *, fresh: bool) -> None:
        self._answer = answer
        self.ok = answer is not None
        self.value: Any = None if answer is None else answer.value
        self.note = None if answer is None else answer.note
        self.status = answer.status if answer is not None else "" if error is None else error.status
        self.fresh = fresh
        self.error = error

    @classmethod
    def answered(cls, answer: Answer, *, fresh: bool) -> Self:
        """Return the outcome of a call that has a value."""
        return cls(answer, None, fresh=fresh)

    @classmethod
    def refused(cls, error: InterlockError) -> Self:
        """Return the outcome of a call that was refused, or failed."""
        return cls(None, error, fresh=False)

    @property
    def reason(self) -> StopReason | None:
        """Why there is no value."""
        return None if self.error is None else self.error.reason

    @property
    def for_model(self) -> str:
        """All that the model may read: the value as text with what it should know of it, or what is and is not known.

        Never an invitation to try again.
        """
        if self._answer is not None:
            return as_text(self._answer)
        return "" if self.error is None else self.error.for_model

    def __repr__(self) -> str:
        return f"<Outcome {self.status}>"
