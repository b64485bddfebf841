"""What a recorded run had read when it came to a call, for the rules about tainted runs; and a tool as recorded."""

from __future__ import annotations

from interlock.config.tainting import Tainting
from interlock.core.calls import ToolSpec
from interlock.core.errors import ApprovalPending, InterlockError, ToolDenied
from interlock.forensics.effects import ToolEffect
from interlock.forensics.tape import arguments_of, whole_text
from interlock.forensics.traces import RecordedCall, RecordedRun
from interlock.policy.taint import TaintRule

__all__ = ["Hearsay", "nobodys", "spec_of"]


class Hearsay:
    """What one run has read, fed with what was recorded; what people told the model is its task."""

    def __init__(self, tainting: Tainting, run: RecordedRun) -> None:
        self._tainting = tainting
        self._taint = tainting.taint([run.task, *run.said]) if tainting.watching else None

    def hear(self, answered: RecordedCall, place: int) -> None:
        """Take in what the call at this place (from 1) brought back."""
        if self._taint is not None:
            trusted = not self._tainting.untrusted(answered.tool)
            said = whole_text(answered) if self._tainting.keeps_text else None
            self._taint.took_in(f"tool:{answered.tool}", said, trusted=trusted, seq=place)

    def refusal(self, rule: TaintRule | None, call: RecordedCall, place: int) -> InterlockError | None:
        """Return what a call at this place is kept back with; None: it is not."""
        if rule is None or self._taint is None:
            return None
        if self._taint.judge(rule, arguments_of(call), "", place) is None:
            return None
        why = f"{call.tool}: tools.when_tainted"
        return ToolDenied(why) if rule.then == "refuse" else ApprovalPending(why)


def spec_of(name: str, effect: ToolEffect) -> ToolSpec:
    """Return a tool as recorded runs used it."""
    return ToolSpec(
        name,
        _nothing,
        is_async=False,
        effect=effect.effect,
        on_unknown=effect.on_unknown,
        natural=effect.natural,
        repeat=effect.repeat,
        # The record shows neither: where the configuration counts on one, it is there.
        lookup=_nothing,
        takes_key=True,
        allow=True,
    )


def nobodys(name: str) -> ToolSpec:
    """Return what stands for a name that no tool has: models invent them, and the policy refuses them."""
    return ToolSpec(name, _nothing, is_async=False, known=False)


def _nothing() -> None:
    return None
