"""Tools and calls as the validation guards see them."""

from __future__ import annotations

from interlock.core.calls import Answer, Call, Effect, RunFacts, ToolSpec


class Scope(RunFacts):
    __slots__ = ()

    def __init__(self, *, observing=False):
        self.observing = observing


async def nothing(**_args):
    return None


def make_tool(name="ticket.create", *, effect=Effect.WRITE, **kw):
    return ToolSpec(name, nothing, is_async=True, effect=effect, **kw)


def make_call(tool, *, observing=False, invalid=None):
    return Call(Scope(observing=observing), tool, {}, b"{}", b"d" * 16, tool.effect_of({}), 1, 1, 1, invalid)


def answering(value):
    async def perform(call):
        return Answer(value)

    return perform
