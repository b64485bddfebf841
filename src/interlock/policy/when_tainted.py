"""Two guards: what a run reads is labelled on its way in, and judged when a write goes out.

`Labels` stands outside of `recall`, so that what the journal answers carries its label too. `WhenTainted` stands
inside of it, around the approvals: a write that has been done is answered, and never judged again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from interlock.core.calls import Answer, Call, Guard, Proceed, RunFacts, ToolSpec
from interlock.core.errors import ToolDenied
from interlock.policy.approval import given
from interlock.policy.taint import Taint, Tainted, TaintRule

__all__ = ["Hearing", "Labels", "WhenTainted", "described"]


RuleFor = Callable[[str], tuple[str, TaintRule] | None]
"""The glob that a tool's rule stands under, and the rule; None where there is none."""


class Hearing(RunFacts):
    """What these guards need of a run: the number of calls proposed so far."""

    __slots__ = ()
    seq: int


T = TypeVar("T", bound=Hearing)


class Labels:
    """Guard that takes in what the run reads.

    Args:
        watching: Whether anybody asks for it; else no call pays for it.
        untrusted: Whether others may have written what this tool (by name) brings back.
        keeps_text: Whether some rule names arguments, so that trusted answers matter too.
    """

    def __init__(self, *, watching: bool, untrusted: Callable[[str], object], keeps_text: bool) -> None:
        self._watching = watching
        self._untrusted = untrusted
        self._keeps_text = keeps_text

    def __call__(self, tool: ToolSpec, proceed: Proceed[T]) -> Proceed[T]:
        trusted = not self._untrusted(tool.name)
        if not self._watching or (trusted and not self._keeps_text):
            return proceed
        source, keeps_text = f"tool:{tool.name}", self._keeps_text

        async def labels(call: Call[T]) -> Answer:
            answer = await proceed(call)
            run = call.run
            if isinstance(run.lineage, Taint):
                said = _said(answer) if keeps_text else None
                run.lineage.took_in(source, said, trusted=trusted, run_id=run.run_id, seq=run.seq)
            return answer

        return labels


def _said(answer: Answer) -> Any:
    """Return what came back as JSON data; a value that is none was let through unchecked, and is searched as text."""
    if answer.json is not None:
        return orjson.loads(answer.json)
    return answer.value if isinstance(answer.value, str) else repr(answer.value)


class WhenTainted:
    """Guard around the approvals: a write of a run that has read untrusted output waits for a person, or is refused.

    A glob concerns writes; a tool that is named in full is judged whatever its effect, so that a read which can
    carry data out may be named.

    Args:
        usual: The approvals as they are asked for in any run. ask: the same, of every call.
        rule_for: The rule of a tool by its name, and the glob it stands under; None where there is none.
    """

    def __init__(
        self, usual: Guard[Any], ask: Guard[Any], rule_for: Callable[[str], tuple[str, TaintRule] | None]
    ) -> None:
        self._usual = usual
        self._ask = ask
        self._rule_for = rule_for

    def __call__(self, tool: ToolSpec, proceed: Proceed[T]) -> Proceed[T]:
        """Fold the guard; a tool without a rule pays nothing."""
        usual = self._usual(tool, proceed)
        found = self._rule_for(tool.name)
        if found is None or not (tool.may_write or found[0] == tool.name):
            return usual
        glob, rule = found
        # Who was asked by the framework has been asked; a function that decides by itself is not a person.
        asked = usual if tool.approval in ("required", given) else self._ask(tool, usual)

        async def when_tainted(call: Call[T]) -> Answer:
            if tool.may_write and not call.writes:
                return await usual(call)
            tainted = judged(rule, call)
            if tainted is None:
                return await usual(call)
            if rule.then == "approval":
                return await asked(call)
            call.refuse(_denied(call, glob, tainted))
            return await usual(call)

        return when_tainted


def judged(rule: TaintRule, call: Call[Any]) -> Tainted | None:
    """Return why a rule applies to a call, or None."""
    lineage = call.run.lineage
    if not isinstance(lineage, Taint):
        return None
    args = orjson.loads(call.args_json) if rule.arguments else {}
    return lineage.judge(rule, args, call.run.run_id, call.seq)


def described(rule_for: RuleFor, call: Call[Any]) -> str:
    """Return what a person is told of a tainted call beside what it is; "" of any other."""
    found = rule_for(call.tool.name)
    tainted = None if found is None else judged(found[1], call)
    if tainted is None:
        return ""
    sources = ", ".join(tainted.sources)
    if tainted.arguments:
        return f" ({', '.join(tainted.arguments)} was first said by untrusted output of {sources})"
    return f" (its run has read untrusted output of {sources})"


def _denied(call: Call[Any], glob: str, tainted: Tainted) -> ToolDenied:
    what = f"its argument {', '.join(tainted.arguments)} was first said by" if tainted.arguments else "its run has read"
    sources = ", ".join(tainted.sources)
    text = f"{call.tool.name} is refused by tools.when_tainted ({glob!r}): {what} untrusted output of {sources}"
    details: dict[str, Any] = {
        "policy": "when_tainted",
        "rule": glob,
        "source": "tools.when_tainted",
        "tainted_by": list(tainted.sources),
    }
    return ToolDenied(text, details=details | ({"arguments": list(tainted.arguments)} if tainted.arguments else {}))
