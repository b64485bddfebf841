"""Turns of a model as they pass an HTTP proxy: which dialect is spoken, and what faults make of an answer.

Read are OpenAI chat completions, OpenAI responses and Anthropic messages, whole and streamed. What cannot be read, and
an answer in which a fault finds nothing to change, passes as it is, and counts as no fault.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from interlock.chaos import answers_anthropic, answers_chat, answers_responses
from interlock.chaos.answer_pieces import renamed
from interlock.chaos.http_message import Message, read_message, write_message
from interlock.chaos.wire import MODEL_WIRE_KINDS, WireFault, WireKind, model_path

__all__ = ["Earlier", "Met", "Said", "Turn", "turned_away"]

MAX_BYTES = 32_000_000
"""A longer answer passes as it is."""
MAX_CONVERSATIONS = 1_000
SLOW_S = 30.0


class _Dialect(Protocol):
    def whole(self, kind: WireKind, body: Mapping[str, Any]) -> dict[str, Any] | None: ...

    def streamed(self, kind: WireKind, events: list[Any]) -> list[Any] | None: ...


_DIALECTS: Mapping[str, _Dialect] = {
    "/chat/completions": answers_chat,
    "/responses": answers_responses,
    "/messages": answers_anthropic,
}


class Met(NamedTuple):
    """A fault that a request meets.

    Attributes:
        tell: Called once, when it is injected.
    """

    fault: WireFault
    tell: Callable[[], None]


class Said(NamedTuple):
    """Bytes of an answer, and how long nothing comes before them."""

    wait_s: float
    data: bytes


@dataclass
class Earlier:
    """What a model said last in each conversation; the newest so many are kept."""

    bodies: OrderedDict[bytes, list[Any]] = field(default_factory=OrderedDict)
    repetitions: int = 0

    def keep(self, key: bytes, values: list[Any]) -> None:
        """Take in what it has said."""
        self.bodies[key] = values
        self.bodies.move_to_end(key)
        while len(self.bodies) > MAX_CONVERSATIONS:
            self.bodies.popitem(last=False)

    def again(self, key: bytes) -> list[Any] | None:
        """Return it once more, with ids that are new; None where it has said nothing yet."""
        if key not in self.bodies:
            return None
        self.repetitions += 1
        again: list[Any] = renamed(self.bodies[key], self.repetitions)
        return again


class Turn:
    """One request to a model and its answer.

    Args:
        what: Method and path. met: faults of the model. earlier: what it said before; None: nobody asks.

    Attributes:
        holds: The answer is to be changed, or spread over time: nothing of it passes until it is whole.
    """

    def __init__(self, what: str, met: Sequence[Met], earlier: Earlier | None) -> None:
        self._path = model_path(what) or ""
        self._dialect = _DIALECTS[self._path]
        self._met = [each for each in met if each.fault.kind in MODEL_WIRE_KINDS]
        self._earlier = earlier
        self._asked = bytearray()
        self._answered = bytearray()
        self.holds = bool(self._met)

    def ask(self, data: bytes) -> None:
        """Take in bytes of the request."""
        if self._earlier is not None and len(self._asked) <= MAX_BYTES:
            self._asked += data

    def answer(self, data: bytes) -> bytes:
        """Take in bytes of the answer; return those that may pass at once."""
        self._answered += data
        if not self.holds:
            return data
        if len(self._answered) <= MAX_BYTES:
            return b""
        self.holds = False
        return bytes(self._answered)

    def end(self, *, hung_up: bool = False) -> list[Said]:
        """The answer is whole: return what is held of it, as it is to be said.

        Args:
            hung_up: No more comes of it; it is whole only if nothing said how long it is.
        """
        raw = bytes(self._answered)
        held = [Said(0.0, raw)] if self.holds and raw else []
        if not raw or len(raw) > MAX_BYTES:
            return held
        message = read_message(raw)
        if message.body is None or not 200 <= message.status < 300 or (hung_up and message.is_framed):
            return held
        streams = message.fields.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        values = _events(message.body) if streams else _json(message.body)
        if not values:
            return held
        try:
            changed = self._changed(values, streams=streams)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            return held  # no answer of this dialect
        slow = [each for each in self._met if each.fault.kind is WireKind.MODEL_SLOW]
        return held if changed is values and not slow else _said(message, changed, slow, streams=streams)

    def _changed(self, values: list[Any], *, streams: bool) -> list[Any]:
        changed = values
        if self._earlier is not None:
            key = _conversation(self._path, bytes(self._asked), streams=streams)
            repeats = [each for each in self._met if each.fault.kind is WireKind.MODEL_REPEATS]
            before = self._earlier.again(key) if repeats else None
            if before is not None:
                changed = before
                repeats[0].tell()
            else:
                self._earlier.keep(key, values)
        for fault, tell in self._met:
            if fault.kind in {WireKind.MODEL_REPEATS, WireKind.MODEL_SLOW}:
                continue
            found = self._dialect.streamed(fault.kind, changed) if streams else self._whole(fault.kind, changed[0])
            if found is not None:
                changed = found
                tell()
        return changed

    def _whole(self, kind: WireKind, body: Any) -> list[Any] | None:
        changed = self._dialect.whole(kind, body)
        return None if changed is None else [changed]


def turned_away(what: str) -> bytes:
    """Return the body with which a vendor says that it is asked too often."""
    text = "Rate limit reached (injected)"
    if model_path(what) == "/messages":
        return json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": text}}).encode()
    error = {"message": text, "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    return json.dumps({"error": error}).encode()


def _said(message: Message, values: list[Any], slow: Sequence[Met], *, streams: bool) -> list[Said]:
    pieces = [_event(value) for value in values] if streams else [json.dumps(values[0]).encode()]
    for each in slow:
        each.tell()
    wait_s = sum(SLOW_S if each.fault.delay_s is None else each.fault.delay_s for each in slow) / max(1, len(pieces))
    head, *rest = write_message(message, pieces)
    # The head of a stream comes at once; of a whole answer, with it.
    said = [Said(wait_s, piece) for piece in rest]
    return [Said(0.0, head), *said] if streams else [Said(wait_s, b"".join((head, *rest)))]


def _json(body: bytes) -> list[Any] | None:
    try:
        return [json.loads(body)]
    except ValueError:
        return None


def _events(body: bytes) -> list[Any]:
    """Return the events of a stream: what is JSON as such, all else (comments, `[DONE]`) as its bytes."""
    found: list[Any] = []
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        if not block.strip():
            continue
        lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
        try:
            value = json.loads(b"\n".join(lines))
        except ValueError:
            value = None
        found.append(value if isinstance(value, dict) else block + b"\n\n")
    return found


def _event(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    name = f"event: {value['type']}\n" if isinstance(value.get("type"), str) else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()


def _conversation(path: str, asked: bytes, *, streams: bool) -> bytes:
    """Return what tells one conversation from another: how it began."""
    found = _json(read_message(asked).body or b"")
    body = found[0] if found and isinstance(found[0], dict) else {}
    messages = body.get("messages") or body.get("input") or []
    turns = [m for m in messages if isinstance(m, dict) and m.get("role") not in {"system", "developer"}]
    opening = messages if isinstance(messages, str) else turns[:1]
    told = [m for m in messages if isinstance(m, dict) and m.get("role") in {"system", "developer"}]
    begun = json.dumps([path, streams, body.get("system") or body.get("instructions"), told, opening])
    return hashlib.sha256(begun.encode()).digest()
