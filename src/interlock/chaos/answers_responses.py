"""OpenAI responses: what a model's fault makes of an answer, whole or streamed; pure.

Each function returns the changed answer, or None where it has nothing that such a fault could change.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from interlock.chaos.answer_pieces import UNKNOWN_TOOL, Handed, cut, spoilt
from interlock.chaos.wire import WireKind

__all__ = ["streamed", "whole"]

Slot = tuple[int, int]
"""Output item, and number of its part; -1 are the arguments of a call."""
Items = dict[int, dict[str, Any]]

_LAST = {"response.completed", "response.incomplete"}


def whole(kind: WireKind, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Change a whole answer."""
    items = _items(kind, dict(enumerate(body.get("output") or ())))
    return None if items is None else _body(kind, body, items)


def _body(kind: WireKind, body: Mapping[str, Any], items: Items) -> dict[str, Any]:
    answer = {**deepcopy(dict(body)), "output": list(items.values())}
    if kind is WireKind.MODEL_TRUNCATED:
        answer |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return answer


def _items(kind: WireKind, old: Mapping[int, Mapping[str, Any]]) -> Items | None:
    """Return the items that there are now, by their old numbers; or None if nothing can be changed."""
    texts = _texts(old)
    items = {i: deepcopy(dict(item)) for i, item in old.items()}
    calls = [item for item in items.values() if item.get("type") == "function_call"]
    if kind in {WireKind.MODEL_UNKNOWN_TOOL, WireKind.MODEL_MALFORMED_ARGUMENTS}:
        for call in calls:
            if kind is WireKind.MODEL_UNKNOWN_TOOL:
                call["name"] = UNKNOWN_TOOL
            else:
                call["arguments"] = spoilt(call["arguments"])
        return items if calls else None
    if not texts:
        return None
    return {} if kind is WireKind.MODEL_EMPTY else _cut_short(items, texts)


def _cut_short(items: Items, texts: Mapping[Slot, str]) -> Items:
    slots = sorted(texts)
    kept = {
        slot: text for slot, text in zip(slots, cut([texts[slot] for slot in slots]), strict=True) if text is not None
    }
    last = max(kept)
    for (i, part), text in kept.items():
        if part < 0:
            items[i]["arguments"] = text
        else:
            items[i]["content"][part]["text"] = text
    if last[1] >= 0:
        del items[last[0]]["content"][last[1] + 1 :]
    items[last[0]]["status"] = "incomplete"
    return {i: item for i, item in items.items() if i <= last[0]}


def _texts(items: Mapping[int, Mapping[str, Any]]) -> dict[Slot, str]:
    found: dict[Slot, str] = {}
    for i, item in items.items():
        if item.get("type") == "function_call":
            found[i, -1] = item["arguments"]
        elif item.get("type") == "message":
            found |= {(i, n): part["text"] for n, part in enumerate(item.get("content") or ()) if "text" in part}
    return found


def streamed(kind: WireKind, events: list[Any]) -> list[Any] | None:
    """Change the events of a stream; those that are no JSON are bytes, and stay."""
    known = [event for event in events if isinstance(event, dict)]
    old = {event["output_index"]: event["item"] for event in known if event.get("type") == "response.output_item.done"}
    items = _items(kind, old)
    if items is None or not any(event.get("type") in _LAST for event in known):
        return None
    pieces: dict[Slot, list[str]] = {}
    for event in known:
        if _slot(event) is not None:
            pieces.setdefault(_slot(event) or (0, 0), []).append(event["delta"])
    new = _texts(items)
    handed = Handed(pieces, new)
    found: list[Any] = []
    for event in events:
        changed = _event(kind, event, items, new, handed) if isinstance(event, dict) else event
        if changed is not None:
            found.append(changed)
    counted = [event for event in found if isinstance(event, dict) and "sequence_number" in event]
    for number, event in enumerate(counted):
        event["sequence_number"] = number
    return found


def _slot(event: Mapping[str, Any]) -> Slot | None:
    if event.get("type") == "response.output_text.delta":
        return event["output_index"], event["content_index"]
    return (event["output_index"], -1) if event.get("type") == "response.function_call_arguments.delta" else None


def _event(
    kind: WireKind, event: Mapping[str, Any], items: Items, new: Mapping[Slot, str], handed: Handed
) -> dict[str, Any] | None:
    changed = deepcopy(dict(event))
    name = changed.get("type")
    if name in _LAST:
        if kind is WireKind.MODEL_TRUNCATED:
            changed["type"] = "response.incomplete"
        changed["response"] = _body(kind, changed["response"], items)
        return changed
    i = changed.get("output_index")
    if i is None:
        return changed
    part = changed.get("content_index")
    if i not in items or (part is not None and (i, part) not in new and items[i].get("type") == "message"):
        return None
    slot = _slot(changed)
    if slot is not None:
        text = handed.next(slot, changed["delta"])
        changed["delta"] = text or ""
        return changed if text else None
    if name == "response.output_item.done":
        changed["item"] = items[i]
    elif name == "response.output_item.added" and "name" in changed["item"]:
        changed["item"]["name"] = items[i]["name"]
    elif name == "response.content_part.done" and (i, part) in new:
        changed["part"] = items[i]["content"][part]
    elif name == "response.output_text.done":
        changed["text"] = new[i, part or 0]
    elif name == "response.function_call_arguments.done":
        changed |= {"arguments": new[i, -1]} | ({"name": items[i]["name"]} if "name" in changed else {})
    return changed
