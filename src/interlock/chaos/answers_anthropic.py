"""Anthropic messages: what a model's fault makes of an answer, whole or streamed; pure.

Each function returns the changed answer, or None where it has nothing that such a fault could change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from interlock.chaos.answer_pieces import UNKNOWN_TOOL, Handed, cut, spoilt
from interlock.chaos.wire import WireKind

__all__ = ["streamed", "whole"]

_STOP = {WireKind.MODEL_TRUNCATED: "max_tokens", WireKind.MODEL_EMPTY: "end_turn"}
_SAID = {"text", "tool_use"}
_PIECE_OF = {"text_delta": "text", "input_json_delta": "partial_json"}


def whole(kind: WireKind, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Change a whole answer; its arguments come parsed, and malformed ones are such as no tool has."""
    answer = deepcopy(dict(body))
    blocks = answer.get("content") or []
    texts = {
        i: block["text"] if block["type"] == "text" else json.dumps(block["input"])
        for i, block in enumerate(blocks)
        if block["type"] in _SAID
    }
    uses = [block for block in blocks if block["type"] == "tool_use"]
    new = _new(kind, texts, uses={i for i in texts if blocks[i]["type"] == "tool_use"})
    if new is None:
        return None
    for i, text in new.items():
        block = blocks[i]
        if text is not None and block["type"] == "text":
            block["text"] = text
        elif text is not None and text != texts[i] and kind is WireKind.MODEL_TRUNCATED:
            block["input"] = dict(list(block["input"].items())[: len(block["input"]) // 2])
    for block in uses:
        if kind is WireKind.MODEL_UNKNOWN_TOOL:
            block["name"] = UNKNOWN_TOOL
        elif kind is WireKind.MODEL_MALFORMED_ARGUMENTS:
            block["input"] = {"not_an_argument": [1, 2]}
    last = _last(kind, new)
    answer["content"] = [block for i, block in enumerate(blocks) if i <= last and new.get(i, "") is not None]
    answer["stop_reason"] = _STOP.get(kind, answer.get("stop_reason"))
    return answer


def streamed(kind: WireKind, events: list[Any]) -> list[Any] | None:
    """Change the events of a stream; those that are no JSON are bytes, and stay."""
    old: dict[int, list[str]] = {}
    uses: set[int] = set()
    for event in events:
        if isinstance(event, dict) and event.get("type") == "content_block_start":
            if event["content_block"]["type"] in _SAID:
                old[event["index"]] = []
            if event["content_block"]["type"] == "tool_use":
                uses.add(event["index"])
        elif isinstance(event, dict) and _piece(event) is not None:
            old.setdefault(event["index"], []).append(_piece(event) or "")
    texts = {i: "".join(pieces) for i, pieces in old.items()}
    new = _new(kind, texts, uses)
    if new is None:
        return None
    last = _last(kind, new)
    handed = Handed(old, new)
    found = []
    for event in events:
        if not isinstance(event, dict):
            found.append(event)
            continue
        i = event.get("index")
        if i is not None and (i > last or new.get(i, "") is None):
            continue
        changed = _event(kind, event, handed)
        if changed is not None:
            found.append(changed)
    return found


def _event(kind: WireKind, event: dict[str, Any], handed: Handed) -> dict[str, Any] | None:
    changed = deepcopy(event)
    name = changed.get("type")
    if name == "content_block_start" and kind is WireKind.MODEL_UNKNOWN_TOOL:
        if changed["content_block"]["type"] == "tool_use":
            changed["content_block"]["name"] = UNKNOWN_TOOL
    elif name == "message_delta":
        changed["delta"]["stop_reason"] = _STOP.get(kind, changed["delta"].get("stop_reason"))
    piece = _piece(changed)
    if piece is None:
        return changed
    text = handed.next(changed["index"], piece)
    if piece and not text:
        return None
    changed["delta"][_PIECE_OF[changed["delta"]["type"]]] = text
    return changed


def _piece(event: Mapping[str, Any]) -> str | None:
    delta = event.get("delta") or {}
    name = _PIECE_OF.get(delta.get("type", "")) if event.get("type") == "content_block_delta" else None
    return None if name is None else str(delta[name])


def _new(kind: WireKind, old: Mapping[int, str], uses: set[int]) -> dict[int, str | None] | None:
    """Return what each block says now (None: it is left out), or None if nothing can be changed."""
    if kind in {WireKind.MODEL_UNKNOWN_TOOL, WireKind.MODEL_MALFORMED_ARGUMENTS}:
        if not uses:
            return None
        spoils = kind is WireKind.MODEL_MALFORMED_ARGUMENTS
        return {i: spoilt(text) if spoils and i in uses else text for i, text in old.items()}
    if not old:
        return None
    if kind is WireKind.MODEL_EMPTY:
        return dict.fromkeys(old)
    slots = sorted(old)
    return dict(zip(slots, cut([old[i] for i in slots]), strict=True))


def _last(kind: WireKind, new: Mapping[int, str | None]) -> float:
    """Return the last block that there still is; what the model thought before an empty answer is not part of it."""
    if kind is WireKind.MODEL_EMPTY:
        return -1
    if kind is WireKind.MODEL_TRUNCATED:
        return max(i for i, text in new.items() if text is not None)
    return float("inf")
