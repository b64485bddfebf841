"""Replies that arrive in pieces, put together again; and whole replies taken apart, to replay a stream.

A stream is only as good as its last piece: one that breaks off has no reply, and its turn is not recorded.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interlock.adapters.chat_formats import Format
from interlock.core.fields import read_field as get

__all__ = ["Accumulator", "as_pieces", "plain", "taken_apart"]


def plain(value: Any) -> Any:
    """Return a piece as plain data, its own if it is that already."""
    return value if isinstance(value, Mapping) else value.model_dump(mode="json", exclude_unset=True, warnings=False)


class Accumulator:
    """Puts the pieces of one stream together.

    Attributes:
        format: Of the stream; None before its first piece.
        as_objects: Whether the pieces were the vendor's objects.
        complete: Whether the stream has said that it is over.
    """

    def __init__(self) -> None:
        self.format: Format | None = None
        self.as_objects = False
        self.complete = False
        self._chat = _Chat()
        self._reply: dict[str, Any] | None = None
        self._blocks = _Blocks()

    def add(self, piece: Any) -> None:
        """Take in one piece."""
        self.as_objects = not isinstance(piece, Mapping)
        kind = get(piece, "type")
        if isinstance(kind, str) and kind.startswith("response."):
            self.format = Format.RESPONSES
            if kind in _RESPONSE_OVER:
                self._reply = copy.deepcopy(dict(plain(get(piece, "response"))))
                self.complete = True
        elif get(piece, "choices") is not None:
            self.format = Format.CHAT
            self.complete |= self._chat.add(plain(piece))
        elif isinstance(kind, str) and (kind == "message_start" or self.format is Format.ANTHROPIC):
            self.format = Format.ANTHROPIC
            self.complete |= self._blocks.add(plain(piece))

    def reply(self) -> dict[str, Any] | None:
        """Return the whole reply as plain data; None if the stream broke off."""
        if not self.complete:
            return None
        if self.format is Format.CHAT:
            return self._chat.reply()
        return self._reply if self.format is Format.RESPONSES else self._blocks.reply()


_RESPONSE_OVER = frozenset({"response.completed", "response.incomplete", "response.failed"})


class _Chat:
    """A `chat.completion` out of `chat.completion.chunk`s; only the first choice counts."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._calls: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._usage: Any = None

    def add(self, chunk: Mapping[str, Any]) -> bool:
        for name in ("id", "created", "model", "system_fingerprint", "service_tier"):
            if chunk.get(name) is not None:
                self._head.setdefault(name, chunk[name])
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        for choice in chunk["choices"]:
            if (choice.get("index") or 0) == 0:
                self._delta(choice.get("delta") or {})
                self._finish = choice.get("finish_reason") or self._finish
        return self._finish is not None

    def _delta(self, delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            if name == "tool_calls":
                for call in value or ():
                    self._call(call)
            elif name == "role":
                self._message["role"] = value or "assistant"
            elif isinstance(value, str):
                # Text, refusals, and what compatible servers add, such as `reasoning_content`.
                self._message[name] = (self._message.get(name) or "") + value
            elif value is not None:
                self._message[name] = value

    def _call(self, delta: Mapping[str, Any]) -> None:
        call = self._find(delta)
        for name in ("id", "type"):
            if delta.get(name):
                call[name] = delta[name]
        for part in ("function", "custom"):
            if delta.get(part):
                kept = call.setdefault(part, {})
                for name, text in delta[part].items():
                    # A name comes whole (some servers repeat it); arguments come in pieces.
                    kept[name] = (text or kept.get(name)) if name == "name" else (kept.get(name) or "") + (text or "")

    def _find(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        """Return the call that a delta continues: by index, by id where a server sends no index, else the last."""
        index, call_id = delta.get("index"), delta.get("id")
        for call in self._calls:
            if call["index"] == index if index is not None else bool(call_id) and call.get("id") == call_id:
                return call
        if index is None and not call_id and self._calls:
            return self._calls[-1]
        self._calls.append({"index": len(self._calls) if index is None else index, "type": "function"})
        return self._calls[-1]

    def reply(self) -> dict[str, Any]:
        message = dict(self._message)
        if self._calls:
            message["tool_calls"] = [
                {name: value for name, value in call.items() if name != "index"}
                for call in sorted(self._calls, key=lambda call: int(call["index"]))
            ]
        choice = {"index": 0, "message": message, "finish_reason": self._finish, "logprobs": None}
        return {"object": "chat.completion", **self._head, "choices": [choice], "usage": self._usage}


_GROWING = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
}


class _Blocks:
    """An Anthropic `message` out of its events."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._json: dict[int, str] = {}

    def add(self, event: Mapping[str, Any]) -> bool:
        kind, index = event["type"], event.get("index", 0)
        if kind == "message_start":
            self._message = dict(event["message"])
        elif kind == "content_block_start":
            self._blocks[index] = dict(event["content_block"])
        elif kind == "content_block_delta":
            self._delta(index, event["delta"])
        elif kind == "message_delta":
            self._message |= {name: value for name, value in event["delta"].items() if value is not None}
            self._message["usage"] = {**(self._message.get("usage") or {}), **_given(event.get("usage") or {})}
        return bool(kind == "message_stop")

    def _delta(self, index: int, delta: Mapping[str, Any]) -> None:
        block = self._blocks.setdefault(index, {"type": "text", "text": ""})
        kind = delta["type"]
        if kind == "input_json_delta":
            self._json[index] = self._json.get(index, "") + delta["partial_json"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        elif kind in _GROWING:
            name = _GROWING[kind]
            block[name] = (block.get(name) or "") + delta[name]

    def reply(self) -> dict[str, Any]:
        content = []
        for index, block in sorted(self._blocks.items()):
            text = self._json.get(index)
            if text:
                try:
                    block = block | {"input": json.loads(text)}  # noqa: PLW2901 - the block with its input
                except (ValueError, RecursionError):
                    block = block | {"input": text}  # noqa: PLW2901 - no JSON: refused where it is read
            content.append(block)
        return {**self._message, "content": content}


def _given(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}


# -- replay


def taken_apart(form: Format, reply: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield pieces that `Accumulator` puts together to `reply`: the fewest that carry everything."""
    match form:
        case Format.CHAT:
            yield from _chunks(reply)
        case Format.RESPONSES:
            yield from _response_events(reply)
        case Format.ANTHROPIC:
            yield from _message_events(reply)


def _chunks(reply: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    head = {**reply, "object": "chat.completion.chunk"}
    head.pop("choices", None)
    usage = head.pop("usage", None)
    for choice in reply["choices"]:
        message = dict(choice["message"])
        calls = message.get("tool_calls")
        if calls:
            message["tool_calls"] = [{**call, "index": i} for i, call in enumerate(calls)]
        yield {**head, "choices": [{"index": choice.get("index") or 0, "delta": message, "finish_reason": None}]}
        end = {"index": choice.get("index") or 0, "delta": {}, "finish_reason": choice.get("finish_reason")}
        yield {**head, "choices": [end]}
    if usage is not None:
        yield {**head, "choices": [], "usage": usage}


def _response_events(reply: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    number = 0
    for i, item in enumerate(reply.get("output") or ()):
        for j, part in enumerate(item.get("content") or () if item.get("type") == "message" else ()):
            if part.get("text"):
                at: dict[str, Any] = {
                    "item_id": item.get("id") or "",
                    "output_index": i,
                    "content_index": j,
                    "logprobs": [],
                }
                yield {"type": "response.output_text.delta", **at, "delta": part["text"], "sequence_number": number}
                number += 1
        yield {"type": "response.output_item.done", "output_index": i, "item": item, "sequence_number": number}
        number += 1
    yield {"type": f"response.{reply.get('status') or 'completed'}", "response": dict(reply), "sequence_number": number}


def _message_events(reply: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": {**reply, "content": [], "stop_reason": None}}
    for i, block in enumerate(reply["content"]):
        empty, delta = dict(block), None
        if block.get("type") == "text":
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block.get("text") or ""}
        elif block.get("type") == "tool_use":
            given = block.get("input")
            text = given if isinstance(given, str) else json.dumps(given or {})
            empty, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": text}
        yield {"type": "content_block_start", "index": i, "content_block": empty}
        if delta is not None:
            yield {"type": "content_block_delta", "index": i, "delta": delta}
        yield {"type": "content_block_stop", "index": i}
    end = {"stop_reason": reply.get("stop_reason"), "stop_sequence": reply.get("stop_sequence")}
    yield {"type": "message_delta", "delta": end, "usage": reply.get("usage") or {}}
    yield {"type": "message_stop"}


_PIECES = {
    "content_block_delta": "RawContentBlockDeltaEvent",
    "content_block_start": "RawContentBlockStartEvent",
    "content_block_stop": "RawContentBlockStopEvent",
    "message_delta": "RawMessageDeltaEvent",
    "message_start": "RawMessageStartEvent",
    "message_stop": "RawMessageStopEvent",
    "response.completed": "ResponseCompletedEvent",
    "response.failed": "ResponseFailedEvent",
    "response.incomplete": "ResponseIncompleteEvent",
    "response.output_item.done": "ResponseOutputItemDoneEvent",
    "response.output_text.delta": "ResponseTextDeltaEvent",
}


def as_pieces(form: Format, pieces: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    """Yield pieces as the vendor's own objects."""
    types = _types_of(form)
    for piece in pieces:
        name = "ChatCompletionChunk" if form is Format.CHAT else _PIECES[piece["type"]]
        yield getattr(types, name).construct(**piece)


def _types_of(form: Format) -> Any:
    match form:
        case Format.CHAT:
            from openai.types import chat as types  # noqa: PLC0415 - whichever client the loop has
        case Format.RESPONSES:
            from openai.types import responses as types  # noqa: PLC0415
        case Format.ANTHROPIC:
            from anthropic import types  # noqa: PLC0415
    return types
