"""The scripted model: one HTTP server that speaks OpenAI chat completions, OpenAI responses and Anthropic messages.

    POST /SESSION/DELIVERY/v1/chat/completions   /v1/responses   /v1/messages      plain, or as a stream

It answers by the script of the session's scenario, and keeps what the model was told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from conformance.conversation import Heard, Script, Seen, Turn, read_anthropic, read_chat, read_responses
from conformance.wires import (
    anthropic_body,
    anthropic_events,
    chat_body,
    chat_events,
    responses_body,
    responses_events,
)

__all__ = ["Asked", "ModelServer"]


@dataclass(slots=True)
class Asked:
    """What one session asked of the model.

    Attributes:
        requests: Turns that were asked for. heard: tool results sent to it, each once, in order.
    """

    requests: int = 0
    heard: dict[tuple[bool, Heard], None] = field(default_factory=dict)

    def told(self) -> list[str]:
        """Return the texts of the tool results."""
        return [heard.text for _, heard in self.heard]


Reader = Callable[[Mapping[str, Any]], Seen]
Body = Callable[[Turn, int, str], dict[str, Any]]


class ModelServer:
    """Answers on one port for all sessions.

    Args:
        script_of: The script of a session, by its name; raises LookupError for one that is not known.
        is_nested: Whether a conversation is a sub-agent's. concerns: whether it is any agent's of the scenario.
    """

    def __init__(
        self,
        script_of: Callable[[str], Script],
        is_nested: Callable[[Seen], bool],
        concerns: Callable[[Seen], bool],
    ) -> None:
        self._script_of = script_of
        self._is_nested = is_nested
        self._concerns = concerns
        self._asked: dict[str, Asked] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    def asked(self, session: str) -> Asked:
        """Return what a session has asked so far."""
        return self._asked.setdefault(session, Asked())

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_post("/{session}/{delivery}/v1/chat/completions", self._chat)
        app.router.add_post("/{session}/{delivery}/v1/responses", self._responses)
        app.router.add_post("/{session}/{delivery}/v1/messages", self._anthropic)
        app.router.add_post("/{session}/{delivery}/v1/messages/count_tokens", self._count)
        app.router.add_route("*", "/{anything:.*}", self._else)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _turn(self, request: web.Request, reader: Reader) -> tuple[Turn, int, str, Mapping[str, Any]]:
        try:
            body = await request.json()
            seen = replace(reader(body), delivery=int(request.match_info["delivery"]))
            script = self._script_of(request.match_info["session"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = json.dumps({"error": {"type": "invalid_request_error", "message": f"unreadable: {error!r}"}})
            raise web.HTTPBadRequest(text=text, content_type="application/json") from error
        except LookupError as error:
            raise web.HTTPNotFound(text=json.dumps({"error": {"message": str(error)}})) from error
        model = str(body.get("model", "scripted"))
        if not self._concerns(seen):
            return Turn(text="Outage"), 1, model, body  # a client's own question, for a title or so
        asked = self.asked(request.match_info["session"])
        asked.requests += 1
        full = {_plain(name): name for name in seen.offered}
        seen = replace(
            seen,
            heard=tuple(replace(h, tool=_plain(h.tool)) for h in seen.heard),
            offered={_plain(name): schema for name, schema in seen.offered.items()},
        )
        asked.heard.update(dict.fromkeys((self._is_nested(seen), heard) for heard in seen.heard))
        turn = script(seen)
        uses = tuple(replace(use, tool=full.get(use.tool, use.tool)) for use in turn.uses)
        return replace(turn, uses=uses), seen.turn, model, body

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        turn, number, model, body = await self._turn(request, read_chat)
        if not body.get("stream"):
            return web.json_response(chat_body(turn, number, model))
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return await _stream(request, chat_events(turn, number, model, usage=usage))

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        turn, number, model, body = await self._turn(request, read_responses)
        if not body.get("stream"):
            return web.json_response(responses_body(turn, number, model))
        return await _stream(request, responses_events(turn, number, model))

    async def _anthropic(self, request: web.Request) -> web.StreamResponse:
        turn, number, model, body = await self._turn(request, read_anthropic)
        if not body.get("stream"):
            return web.json_response(anthropic_body(turn, number, model))
        return await _stream(request, anthropic_events(turn, number, model))

    async def _else(self, _request: web.Request) -> web.Response:
        """Answer what clients ask before they begin."""
        return web.json_response({})

    async def _count(self, _request: web.Request) -> web.Response:
        return web.json_response({"input_tokens": Turn().input_tokens})


def _plain(name: str) -> str:
    """Return a tool's own name: some clients put the name of its server before it."""
    return name.rpartition("__")[2] if name.startswith("mcp__") else name


async def _stream(request: web.Request, events: Any) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for event in events:
        await response.write(event.encode())
    await response.write_eof()
    return response
