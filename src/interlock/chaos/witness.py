"""Which guards acted in a trial: refused, answered, repeated, or made something else of what came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interlock.core.calls import Answer, Call, Proceed, ToolSpec
from interlock.gateway.pipeline import Funnel, Layer

__all__ = ["watched"]


@dataclass(slots=True)
class _Passing:
    """One call at one guard: how often it was let through, and what last came back (None: an answer)."""

    entered: int = 0
    came: type[BaseException] | None = None


def watched(funnel: Funnel, guards: Sequence[str], acted: Callable[[str], None]) -> Funnel:
    """Return the funnel whose guards tell `acted` their name each time that they make a difference to a call."""
    changed: dict[str, Any] = {name: _watched(name, getattr(funnel, name), acted) for name in guards}
    return replace(funnel, **changed)


def _watched(name: str, layer: Layer, acted: Callable[[str], None]) -> Layer:
    def watched_layer(tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
        passing: dict[int, _Passing] = {}

        async def beyond(call: Call[Any]) -> Answer:
            # A write outlives the run that is cut: then nobody waits here any more.
            at = passing.get(id(call), _Passing())
            at.entered += 1
            try:
                answer = await proceed(call)
            except BaseException as error:
                at.came = type(error)
                raise
            at.came = None
            return answer

        guard = layer(tool, beyond)
        if guard is beyond:
            return proceed

        async def seen(call: Call[Any]) -> Answer:
            at = passing[id(call)] = _Passing()
            came: type[BaseException] | None = None
            believed = call.run.lineage.trust
            try:
                return await guard(call)
            except BaseException as error:
                came = type(error)
                raise
            finally:
                passing.pop(id(call), None)
                # A guard may also only take note: that what the run has read is not to be believed.
                if at.entered != 1 or at.came is not came or (name == "taint" and call.run.lineage.trust < believed):
                    acted(name)

        return seen

    return watched_layer
