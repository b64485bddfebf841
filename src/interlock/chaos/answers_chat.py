"""OpenAI chat completions: what a model's fault makes of an answer, whole or streamed; pure.

Each function returns the changed answer, or None where it has nothing that such a fault could change.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from interlock.chaos.answer_pieces import UNKNOWN_TOOL, Handed, cut, spoilt
from interlock.chaos.wire import WireKind

__all__ = ["streamed", "whole"]

_FINISH = {WireKind.MODEL_TRUNCATED: "length", WireKind.MODEL_EMPTY: "stop"}
Slot = tuple[int, int]
"""Choice, and number of its tool call; -1 is its text."""


def whole(kind: WireKind, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Change a whole answer."""
    answer = deepcopy(dict(body))
    done = [_message(kind, choice) for choice in answer.get("choices") or ()]
    return answer if any(done) else None


def _message(kind: WireKind, choice: dict[str, Any]) -> bool:
    message = choice.get("message") or {}
    text = message.get("content") or ""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    if kind is WireKind.MODEL_UNKNOWN_TOOL:
        for function in functions:
            function["name"] = UNKNOWN_TOOL
        return bool(functions)
    if kind is WireKind.MODEL_MALFORMED_ARGUMENTS:
        for function in functions:
            function["arguments"] = spoilt(function["arguments"])
        return bool(functions)
    if not text and not functions:
        return False
    first, *others = cut([text, *(function["arguments"] for function in functions)])
    if kind is WireKind.MODEL_EMPTY:
        first, others = "", [None] * len(functions)
    message["content"] = first or (None if functions and not text else "")
    kept = []
    for call, arguments in zip(message.pop("tool_calls", None) or (), others, strict=True):
        if arguments is not None:
            call["function"]["arguments"] = arguments
            kept.append(call)
    if kept:
        message["tool_calls"] = kept
    else:
        message["content"] = message["content"] or ""
    choice["finish_reason"] = _FINISH[kind]
    return True


def streamed(kind: WireKind, events: list[Any]) -> list[Any] | None:
    """Change the events of a stream; those that are no JSON are bytes, and stay."""
    old: dict[Slot, list[str]] = {}
    for event in events:
        for choice in _choices(event):
            for slot, piece in _pieces(choice):
                old.setdefault(slot, []).append(piece)
    calls = [slot for slot in old if slot[1] >= 0]
    if not (calls if kind in {WireKind.MODEL_UNKNOWN_TOOL, WireKind.MODEL_MALFORMED_ARGUMENTS} else old):
        return None
    handed = Handed(old, _new(kind, {slot: "".join(pieces) for slot, pieces in old.items()}))
    found = []
    for event in events:
        if not _choices(event):
            found.append(event)
            continue
        changed = deepcopy(event)
        said = [_choice(kind, choice, handed) for choice in changed["choices"]]
        if any(said) or changed.get("usage"):
            found.append(changed)
    return found


def _new(kind: WireKind, old: Mapping[Slot, str]) -> dict[Slot, str | None]:
    if kind is WireKind.MODEL_EMPTY:
        return dict.fromkeys(old)
    if kind is WireKind.MODEL_TRUNCATED:
        new: dict[Slot, str | None] = {}
        for number in {slot[0] for slot in old}:
            slots = sorted(slot for slot in old if slot[0] == number)
            new |= zip(slots, cut([old[slot] for slot in slots]), strict=True)
        return new
    spoils = kind is WireKind.MODEL_MALFORMED_ARGUMENTS
    return {slot: spoilt(text) if spoils and slot[1] >= 0 else text for slot, text in old.items()}


def _choices(event: Any) -> list[Any]:
    return (event.get("choices") or []) if isinstance(event, dict) else []


def _pieces(choice: Mapping[str, Any]) -> list[tuple[Slot, str]]:
    delta, number = choice.get("delta") or {}, choice.get("index", 0)
    text = [((number, -1), delta["content"])] if delta.get("content") else []
    calls = delta.get("tool_calls") or ()
    return text + [
        ((number, call.get("index", 0)), (call.get("function") or {}).get("arguments") or "") for call in calls
    ]


def _choice(kind: WireKind, choice: dict[str, Any], handed: Handed) -> bool:
    """Change a choice of one event; return whether it still says anything."""
    delta, number = choice.get("delta") or {}, choice.get("index", 0)
    if delta.get("content"):
        delta["content"] = handed.next((number, -1), delta["content"]) or ""
    kept = []
    for call in delta.pop("tool_calls", None) or ():
        function = call.setdefault("function", {})
        piece = handed.next((number, call.get("index", 0)), function.get("arguments") or "")
        if piece is None or not (piece or call.get("id")):
            continue
        function["arguments"] = piece
        if function.get("name") and kind is WireKind.MODEL_UNKNOWN_TOOL:
            function["name"] = UNKNOWN_TOOL
        kept.append(call)
    if kept:
        delta["tool_calls"] = kept
    if choice.get("finish_reason"):
        choice["finish_reason"] = _FINISH.get(kind, choice["finish_reason"])
    return bool(choice.get("finish_reason") or kept or delta.get("role") or any(delta.values()))
