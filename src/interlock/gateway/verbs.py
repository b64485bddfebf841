"""What a run does beside calling tools: recorded, switched off, and answered again from its record, as calls are.

No budget, allow list or loop rule applies: these verbs are the agent's own, and their guards stand elsewhere.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from interlock.core.calls import Answer, Call, Effect, Guard, Proceed, ToolSpec
from interlock.core.canonical import canonical_json, hasher
from interlock.core.errors import InterlockError
from interlock.gateway.scope import RunScope
from interlock.gateway.tape import restored

__all__ = ["Verb", "Verbs", "inside_call"]

# The run whose tool this code is part of: what a tool does within is not on record for itself, since the tool is.
inside_call: ContextVar[RunScope | None] = ContextVar("inside_call", default=None)

Verb = Callable[[Call[RunScope]], Awaitable[Answer]]
"""Does what a verb says. `answer.json` is what a later attempt of the run is answered from."""


async def _nowhere(**_: Any) -> Any:
    raise LookupError("not a tool")


async def _do(call: Call[RunScope]) -> Answer:
    assert call.perform is not None
    return await call.perform(call)


class Verbs:
    """Verbs of runs.

    Args:
        recorder, switches: The guards that they pass.
        secret: Key of the argument digests.
    """

    def __init__(self, recorder: Guard[RunScope], switches: Guard[RunScope], secret: bytes) -> None:
        self._recorder = recorder
        self._switches = switches
        self._digest = hasher(secret)
        self._known: dict[str, tuple[ToolSpec, Proceed[RunScope]]] = {}

    async def do(self, run: RunScope, name: str, effect: Effect, args: Mapping[str, Any], verb: Verb) -> Answer:
        """Return the verb's answer; where an earlier attempt of the run has it on record, that one (`replayed`).

        Args:
            name: One of `core/verbs.py`.
            args: JSON: what tells one use of the verb from another.

        Raises:
            InterlockError: The run is stopped, a switch is on, or what the verb raises.
        """
        tool, passed = self._known.get(name) or self._fold(name, effect)
        args_json = canonical_json(args)
        run.seq = seq = run.seq + 1
        call = Call(run, tool, dict(args), args_json, self._digest(args_json), effect, seq, run.turn, run.turn or -seq)
        call.perform = verb
        tape = run.tape
        if tape is None:
            return await passed(call)
        if inside_call.get() is run:
            answer = await passed(call)
            tape.keep_within(call, answer)
            return answer
        record = tape.find(call)
        if record is not None:
            return await self._recorder(tool, _recorded(record.value, record.error))(call)
        try:
            answer = await passed(call)
        except CancelledError:
            if run.stop is None:
                tape.keep_cut(call)
            raise
        except InterlockError as error:
            tape.keep(call, None, error)
            raise
        tape.keep(call, answer, None)
        return answer

    def _fold(self, name: str, effect: Effect) -> tuple[ToolSpec, Proceed[RunScope]]:
        tool = ToolSpec(name, _nowhere, is_async=True, effect=effect)
        found = self._known[name] = tool, self._recorder(tool, self._switches(tool, _do))
        return found


def _recorded(value: bytes | None, error: bytes | None) -> Proceed[RunScope]:
    async def replayed(_: Call[RunScope]) -> Answer:
        if value is None:
            raise restored(error or b"{}")
        return Answer(None, value, "replayed")

    return replayed
