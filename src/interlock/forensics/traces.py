"""A recorded run of an agent, the same whatever wrote it down: model turns, and the calls of each, in order.

Readers (`formats/`) turn foreign records into these values; everything that judges recorded runs takes them
from here. What cannot be read is a value too (`Broken`): it is counted and named, never left out in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Broken",
    "BrokenRecord",
    "ErrorKind",
    "RecordedCall",
    "RecordedRun",
    "RecordedTurn",
    "args_hash",
    "text_hash",
]

ErrorKind = Literal[
    "bad_arguments", "not_found", "auth", "rate_limit", "timeout", "server_or_network", "business_or_other"
]


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One tool call that a recorded model made, and what came back.

    Attributes:
        tool: Name as recorded.
        args: Arguments as JSON data; None where the record keeps only a part of them.
        args_hash: SHA-1 of the whole arguments (see `args_hash`), which is there in any case.
        output: What the tool answered, or its beginning; None where the record has no answer.
        output_hash: SHA-1 of the whole answer, or None.
        error: What went wrong, by kind; None for a success.
        write: The record's own opinion whether the call changed the world; None where it has none.
        at_s: Seconds since the run began at which the model asked for it, where known.
        duration_s: From the question to the answer, where known.
        status: What the record itself calls the outcome (`denied`, `replayed`, …); "" where it has no word.
        key: Idempotency key or key of the effect, as recorded; "" where there is none.
        reason: Stop reason that the record gives for this call; "" where it gives none.
    """

    tool: str
    args: Any
    args_hash: str
    output: str | None = None
    output_hash: str | None = None
    error: ErrorKind | None = None
    write: bool | None = None
    at_s: float | None = None
    duration_s: float | None = None
    status: str = ""
    key: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """One model turn: the calls it asked for together, and what it cost (dollars; None where unknown)."""

    calls: tuple[RecordedCall, ...] = ()
    cost_usd: float | None = None
    at_s: float | None = None
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run of an agent as somebody recorded it.

    Attributes:
        dataset: Name of the set it belongs to.
        run_id: As the source names it.
        model, domain, task: As the source names them; "" where it does not.
        success: The source's own label, or None. Labels do not see duplicate side effects.
        turns: Model turns in order, those without calls included.
        cost_usd, seconds: Of the whole run, where known.
        unanswered: Calls at the end that the model asked for and nobody executed; not among the calls.
        said: What people and the application told the model, in order; () where the record has no messages.
        stop_reason: Why it ended, in the source's own word; "" where it has none.
        request_id: What the run was asked under; "" where unknown.
        ours: Whether Interlock wrote it: its stop reasons, statuses and keys mean what they say.
        doubts: Writes that the record leaves in doubt. lost: calls that it counts and does not hold.
        error: What the harness says went wrong outside of calls; "" where it says nothing.
    """

    dataset: str
    run_id: str
    model: str
    domain: str
    task: str
    success: bool | None
    turns: tuple[RecordedTurn, ...]
    cost_usd: float | None = None
    seconds: float | None = None
    unanswered: int = 0
    said: tuple[str, ...] = ()
    stop_reason: str = ""
    request_id: str = ""
    ours: bool = False
    doubts: int = 0
    lost: int = 0
    error: str = ""

    @property
    def calls(self) -> Iterator[RecordedCall]:
        """All calls, in order."""
        return (call for turn in self.turns for call in turn.calls)

    @property
    def steps(self) -> int:
        """Model turns."""
        return len(self.turns)


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that cannot be read: where it stands (line or position from 1; 0: the whole file), and why."""

    position: int
    why: str


_in_order = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


class BrokenRecord(ValueError):
    """Raised while one record is read; its text says what is missing or of the wrong shape."""


def args_hash(args: Any) -> str:
    """Return the SHA-1 that names arguments across formats: of JSON with sorted keys, `, ` and `: `, in UTF-8."""
    return text_hash(_in_order(args))


def text_hash(text: str) -> str:
    """Return the SHA-1 of a text in UTF-8; half a surrogate pair, which models do write, is no error."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
