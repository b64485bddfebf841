"""The recorded tools of one run: they answer what was recorded, matched by tool and arguments, in order.

Where the funnel asks again (a retry), the record's next answer to the same call is given if the one before
was a passing failure: what the recorded model had to ask for again, the gateway gets by itself. An attempt is
never given an answer older than its own place in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.forensics.effects import SetEffects
from interlock.forensics.traces import RecordedCall, RecordedRun, args_hash, text_hash

__all__ = ["TRANSIENT", "RecordedFailure", "Tape", "arguments_of", "whole_text"]

# Passing failures: asking again may bring another answer.
TRANSIENT = frozenset({429, 500, 502, 503, 504, "timeout"})

Key = tuple[str, str]


class RecordedFailure(Exception):
    """A recorded tool failed, with the HTTP status that its kind of failure stands for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Tape:
    """One run's answers.

    Attributes:
        attempts: How often a tool was really asked.
        performed: Answers given, by (tool, arguments hash): what the recorded world would have executed.
        last: The recorded call whose answer was given last; last_place: its tool, its arguments' hash, and the how
            manieth of these calls it is, from 0.
        strayed: Attempts with arguments that the record does not have; always 0, or the funnel changed them.
    """

    def __init__(self, run: RecordedRun, effects: SetEffects) -> None:
        self.attempts = 0
        self.strayed = 0
        self.last: RecordedCall | None = None
        self.last_place = ("", "", 0)
        self.performed: dict[Key, int] = {}
        self._effects = effects
        self._recorded: dict[Key, list[RecordedCall]] = {}
        self._own: dict[Key, int] = {}
        self._given: dict[Key, int] = {}
        for call in run.calls:
            self._recorded.setdefault(_key(call.tool, arguments_of(call)), []).append(call)

    def proposed(self, call: RecordedCall) -> None:
        """Take in that the recorded model has come to this call."""
        key = _key(call.tool, arguments_of(call))
        self._own[key] = self._own.get(key, -1) + 1

    def answer(self, tool: str, args: Mapping[str, Any]) -> str:
        """Return what the tool answered.

        Raises:
            RecordedFailure: It failed. TimeoutError: it timed out.
        """
        self.attempts += 1
        key = _key(tool, args)
        recorded = self._recorded.get(key)
        if recorded is None:
            self.strayed += 1
            raise LookupError(f"{tool} was never called with these arguments")
        place = self._own.get(key, 0)
        given = self._given.get(key)
        if given is not None:
            place = max(place, given + (self.comes_back_as(recorded[given]) in TRANSIENT))
        place = self._given[key] = min(place, len(recorded) - 1)
        call = self.last = recorded[place]
        self.last_place = (call.tool, call.args_hash, place)
        failure = self.comes_back_as(call)
        text = whole_text(call)
        if failure == "timeout":
            raise TimeoutError(text)
        if isinstance(failure, int):
            raise RecordedFailure(failure, text)
        self.performed[key] = self.performed.get(key, 0) + 1
        return text

    def comes_back_as(self, call: RecordedCall) -> int | str | None:
        """Return how a recorded call fails: an HTTP status, `timeout`, or None for a normal answer."""
        if call.error is None:
            return None
        failure = self._effects.errors[call.error]
        return None if failure == "output" else failure

    def would_say(self, call: RecordedCall) -> str:
        """Return the text that the tool answered this very call with."""
        return whole_text(call)

    def is_transient(self, call: RecordedCall | None) -> bool:
        """Whether this recorded call met a passing failure."""
        return call is not None and self.comes_back_as(call) in TRANSIENT


def arguments_of(call: RecordedCall) -> dict[str, Any]:
    """Return the arguments to propose; what is not an object, or not kept whole, is named by its hash or value."""
    if isinstance(call.args, dict):
        return call.args
    return {"args_sha1": call.args_hash} if call.args is None else {"args": call.args}


def _key(tool: str, args: Mapping[str, Any]) -> Key:
    return tool, args_hash(args)


def whole_text(call: RecordedCall) -> str:
    """Return an answer's text; one of which only the beginning is kept is told apart by its hash."""
    text = call.output or ""
    if call.output_hash is None or text_hash(text) == call.output_hash:
        return text
    return f"{text}… [SHA-1 {call.output_hash}]"
