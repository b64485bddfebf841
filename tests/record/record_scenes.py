"""A run, a tool and a call as the recorder sees them: our own words, no mocks."""

from __future__ import annotations

from interlock.core.calls import Answer, Call, Effect, ToolSpec
from interlock.record.trace import Recorded, Trace


class Scope(Recorded):
    __slots__ = ("trace",)

    def __init__(self, clock, *, observing=False, kept=2_000):
        self.clock = clock
        self.observing = observing
        self.run_id = "run_abc123"
        self.trace = Trace("run_abc123", tenant_id="acme", request_id="req_1", agent="triage", kept=kept)


async def _nothing(**_args):
    return None


def make_tool(name="search.read", *, effect=Effect.READ, known=True):
    return ToolSpec(name, _nothing, is_async=True, effect=effect, known=known)


def make_call(run, tool, *, seq=1, turn=1, args_json=b'{"q":"x"}'):
    digest = bytes([seq % 256]) * 16
    return Call(run, tool, {}, args_json, digest, tool.effect_of({}), seq, turn, batch=turn)


def answering(clock, *, seconds=0.0, attempts=1, status="success", value=None):
    async def proceed(call):
        clock.advance(seconds)
        call.attempts = attempts
        return Answer(value, status=status)

    return proceed


def failing(clock, error, *, seconds=0.0, attempts=0):
    async def proceed(call):
        clock.advance(seconds)
        call.attempts = attempts
        raise error

    return proceed
