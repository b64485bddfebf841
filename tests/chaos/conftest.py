"""The drill on virtual time: the backend in this process, no sockets, every timer at once and in order."""

from __future__ import annotations

import pytest

from interlock.chaos.backend import Backend
from interlock.chaos.drill import Drill, DrillOptions
from interlock.chaos.http_client import AnswerLost, HttpReply, HttpStatusError
from interlock.chaos.http_server import Request, Reset, Silence
from interlock.core.clock import LoopClock, run_virtual


class InProcess:
    """Calls a backend without a wire; what a client can know is the same."""

    base_url = "in-process:"

    def __init__(self, backend: Backend, clock: LoopClock) -> None:
        self._backend = backend
        self._clock = clock

    async def request(self, method, path, *, body=None, query=None, headers=None):
        answer = await self._backend.handle(Request(method, path, query or {}, headers or {}, body))
        if isinstance(answer, Silence):
            await self._clock.sleep(answer.hold_s)
        if isinstance(answer, Silence | Reset):
            raise AnswerLost(path)
        reply = HttpReply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.body)
        if answer.status >= 400:
            raise HttpStatusError(method, path, reply)
        return reply


@pytest.fixture
def drill():
    """Return a function that drills with a seed at the article's own pace, in no time; and the backend's lists."""

    def run(seed: int):
        clock = LoopClock(seed=seed)
        backend = Backend(seed, 1.0, clock)
        client = InProcess(backend, clock)
        options = DrillOptions(seed=seed, time_scale=1.0, store="sqlite:///:memory:", progress=False, clock=clock)

        async def main():
            report = await Drill(options, client).run()
            effects = (await client.request("GET", "/effects")).body["effects"]
            return report, effects, (await client.request("GET", "/requests")).body["requests"]

        return run_virtual(main(), patience_s=0)

    return run
