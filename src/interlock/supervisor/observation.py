"""What came of a call, as an agent loop hands it to its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from interlock.core.calls import Answer
from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.reasons import StopReason

__all__ = ["Observation", "as_text"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What came of a call, refusals included; what an agent loop turns into a message.

    Attributes:
        ok: Whether there is a value. value: the validated output, or None.
        for_model: What the model may read: the value as text, or what is and is not known.
        status: As in the trace: `success`, `replayed`, `repeated`, `denied`, `timeout`, …
        reason: Stop reason of the refusal or failure, or None. error: the error itself.
    """

    ok: bool
    value: Any
    for_model: str
    status: str
    reason: StopReason | None = None
    error: Exception | None = None


def as_text(answer: Answer) -> str:
    """Return the answer as text, with what the model should know of it."""
    value = answer.value
    if isinstance(value, str):
        text = value
    else:
        try:
            text = (answer.json or canonical_json(value)).decode()
        except NotCanonical:
            text = repr(value)  # no JSON, and let through all the same: validation.output.fail_closed, mode: observe
    return text if answer.note is None else f"{answer.note}\n{text}"
