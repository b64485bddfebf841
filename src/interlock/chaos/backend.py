"""A ticketing backend as its own process, with real sockets and faults on schedule.

    python -m interlock.chaos.backend --port 0 --seed 1 --time-scale 0.008

The first line on standard output is the port. One's own server can take its place in a drill if it answers these:

    POST /tickets   {project, title, description, idempotency_key?} -> {id, status, url}; the key may also come
                    as header `Idempotency-Key`; the same key with the same payload is the same ticket
    POST /rows      {project, table, values}      POST /emails  {project, to, text}
    GET  /search    ?project&query&page           GET /pages ?project&url        GET /articles ?project&topic
    GET  /lookup    ?key     -> the effect with that key, or 404
    GET  /effects   ?project -> {count, effects: [{id, kind, project, subject, key, at_s, url}]}: all that happened
    GET  /requests  ?project -> {count, requests: [{project, subject, number, fault, effect, at_s}]}: what was injected
    GET  /health
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from interlock.chaos import content
from interlock.chaos.http_server import HttpServer, Reply, Request, Reset, Silence
from interlock.chaos.weather import EXECUTED, Fault, Weather
from interlock.chaos.world import Effect, KeyReused, World
from interlock.core.clock import SYSTEM, Clock

__all__ = ["DEFAULT_TIME_SCALE", "Backend", "main"]

DEFAULT_TIME_SCALE = 0.008  # real seconds of one article second: thirty minutes take 14.4 seconds

# Article seconds.
LATENCY_S = {"/tickets": 0.8, "/rows": 0.3, "/emails": 0.3, "/search": 1.2, "/pages": 1.5, "/articles": 0.6}
SILENCE_S = 60.0
RETRY_AFTER_S = 2.0
MAX_TEXT = 10_000


class _Unprocessable(Exception):
    """A field is missing or has the wrong type; `args[0]` names it."""


class Backend:
    """Answers requests, executes effects, injects faults.

    Args:
        seed: Of the faults. time_scale: Real seconds of one article second.
        clock: Time.
    """

    def __init__(self, seed: int = 1, time_scale: float = DEFAULT_TIME_SCALE, clock: Clock = SYSTEM) -> None:
        self._seed = seed
        self._time_scale = time_scale
        self._clock = clock
        self._weather = Weather(seed, time_scale)
        self._world = World()
        self._requests: list[dict[str, Any]] = []
        self._server = HttpServer(self.handle, clock)
        self._reads: Mapping[str, Callable[[Request], Any]] = {
            "/effects": self._effects,
            "/requests": self._log,
            "/lookup": self._lookup,
            "/health": lambda _: {"ok": True, "seed": seed, "time_scale": time_scale},
            "/search": lambda r: content.search(_ask(r, "query"), _page(r)),
            "/pages": lambda r: content.page(_ask(r, "url")),
            "/articles": lambda r: content.article(_ask(r, "topic")),
        }
        self._writes: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
            "/tickets": ("ticket", "title", ("description",)),
            "/rows": ("row", "table", ()),
            "/emails": ("email", "to", ("text",)),
        }

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> int:
        """Listen, and return the port."""
        return await self._server.start(host, port)

    async def close(self) -> None:
        """Stop."""
        await self._server.close()

    async def handle(self, request: Request) -> Reply | Silence | Reset:
        """Answer one request, well or badly."""
        known = {"GET": self._reads, "POST": self._writes}
        if request.path not in known.get(request.method, ()):
            elsewhere = any(request.path in paths for paths in known.values())
            return _error(405 if elsewhere else 404, "no_such_route")
        try:
            await self._clock.sleep(LATENCY_S.get(request.path, 0.0) * self._time_scale)
            return self._read(request) if request.method == "GET" else self._write(request)
        except _Unprocessable as error:
            return _error(422, f"field_{error.args[0]}")
        except KeyReused:
            return _error(422, "idempotency_key_reused")

    def _read(self, request: Request) -> Reply | Silence | Reset:
        if request.path == "/articles":  # the one page that changes its shape in bad weather
            topic, project = _ask(request, "topic"), _text(request.query, "project", "default")
            fault, number, at_s = self._draw(project, topic)
            self._note(project, topic, number, fault, None, at_s)
            if fault is not Fault.NONE:
                return self._misbehave(fault, {"data": {"body": {"md": content.article(topic)["text"]}}})
        answer = self._reads[request.path](request)
        return answer if isinstance(answer, Reply) else Reply(200, answer)

    def _write(self, request: Request) -> Reply | Silence | Reset:
        kind, subject_field, texts = self._writes[request.path]
        body = request.body if isinstance(request.body, dict) else {}
        subject, project = _text(body, subject_field), _text(body, "project", "default")
        for name in texts:
            _text(body, name)
        key = _text(body, "idempotency_key", "") or request.headers.get("idempotency-key") or None
        payload = json.dumps({k: v for k, v in body.items() if k != "idempotency_key"}, sort_keys=True)
        fault, number, at_s = self._draw(project, subject)
        if fault is not Fault.NONE and fault not in EXECUTED:
            self._note(project, subject, number, fault, None, at_s)
            return self._misbehave(fault, {})
        effect, is_new = self._world.perform(kind, project, subject, payload=payload, key=key, at_s=at_s)
        self._note(project, subject, number, fault, effect, at_s)
        if fault is not Fault.NONE:
            return self._misbehave(fault, {"data": {"ticketRef": effect.id, "state": "NEW"}})
        answer = {"id": effect.id, "status": "created", "url": effect.url}
        return Reply(201, answer) if is_new else Reply(200, answer, {"Idempotent-Replayed": "true"})

    def _draw(self, project: str, subject: str) -> tuple[Fault, int, float]:
        now_s = self._clock.monotonic()
        fault, number = self._weather.next(project, subject, now_s)
        return fault, number, self._weather.article_s(project, now_s)

    def _note(self, project: str, subject: str, number: int, fault: Fault, effect: Effect | None, at_s: float) -> None:
        made = effect.id if effect else None
        entry = {"project": project, "subject": subject, "number": number, "fault": fault.value, "effect": made}
        self._requests.append(entry | {"at_s": round(at_s, 3)})

    def _misbehave(self, fault: Fault, new_shape: dict[str, Any]) -> Reply | Silence | Reset:
        match fault:
            case Fault.LOST_502 | Fault.BAD_GATEWAY:
                return _error(502, "bad_gateway")
            case Fault.LOST_RESET:
                return Reset()
            case Fault.LOST_SILENCE | Fault.SILENCE:
                return Silence(SILENCE_S * self._time_scale)
            case Fault.RATE_LIMITED:
                # Real servers send whole seconds; scaled time needs the fraction.
                wait_s = RETRY_AFTER_S * self._time_scale
                return Reply(429, {"error": {"code": "rate_limited"}}, {"Retry-After": f"{wait_s:.3f}"})
            case Fault.ERROR_200:
                return Reply(200, {"error": {"code": "upstream_unavailable", "message": "please try again"}})
            case _:
                return Reply(200, new_shape)

    def _effects(self, request: Request) -> dict[str, Any]:
        found = [e.as_json() for e in self._world.effects(request.query.get("project"))]
        return {"count": len(found), "effects": found}

    def _log(self, request: Request) -> dict[str, Any]:
        project = request.query.get("project")
        found = [r for r in self._requests if project is None or r["project"] == project]
        return {"count": len(found), "requests": found}

    def _lookup(self, request: Request) -> Reply:
        effect = self._world.find(_ask(request, "key"))
        return _error(404, "no_such_key") if effect is None else Reply(200, effect.as_json())


def _error(status: int, code: str) -> Reply:
    return Reply(status, {"error": {"code": code}})


def _ask(request: Request, name: str) -> str:
    return _text(request.query, name)


def _page(request: Request) -> int:
    page = request.query.get("page", "1")
    if not (page.isascii() and page.isdigit() and len(page) < 9):
        raise _Unprocessable("page")
    return int(page)


def _text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or len(value) > MAX_TEXT or (not value and default is None):
        raise _Unprocessable(name)
    return value


async def _serve(options: argparse.Namespace) -> None:
    backend = Backend(options.seed, options.time_scale)
    port = await backend.start(options.port, options.host)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    print(port, flush=True)  # noqa: T201 - the caller reads the port from here
    address = f"http://{options.host}:{port}"
    print(f"ticketing backend on {address}, seed {options.seed}", file=sys.stderr)  # noqa: T201
    if options.until_eof:
        # Whoever started us holds our standard input: when it ends, so do we, even if nobody could tell us.
        loop.add_reader(sys.stdin, lambda: None if os.read(0, 4096) else stop.set())
    await stop.wait()
    await backend.close()


def _scale(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("real seconds of one article second: above 0, at most 1")
    return value


def main(argv: list[str] | None = None) -> None:
    """Run the backend until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m interlock.chaos.backend",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--time-scale", type=_scale, default=DEFAULT_TIME_SCALE)
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
