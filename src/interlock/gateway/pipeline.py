"""The funnel: every guard a call passes, in order, once.

Outermost first. Each guard is a factory (`core/calls.py`): asked once for each tool, it returns what to call
at its place, or what comes after it where it has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interlock.core.calls import Guard, Proceed, ToolSpec
from interlock.gateway.scope import RunScope

__all__ = ["Funnel"]

Layer = Guard[RunScope]


@dataclass(frozen=True, slots=True, eq=False)
class Funnel:
    """The guards, in the order in which a call meets them.

    Attributes:
        recorder: Sees everything, refusals included.
        switches: Kill and safe mode, from a fresh snapshot.
        loops: Is it getting anywhere? Counts refused calls too.
        allowlist: May this tool be used here: deny wins, then allow, else no.
        meter: Can we afford it?
        inputs: Arguments against the schema; the model may correct them.
        taint: What the run reads carries its label, answers from the record too.
        state: What may be kept of it: only what was validated. Outside `recall`, whose answers were too.
        recall: Has it been done: answer from the record; in doubt: resolve or refuse.
        approval: A human says yes; bound to effect key and policy version; single use.
        admission: Limiter and breaker, shared by all runs of the process.
        claim: The intent is durable before anything leaves; settled after.
        retry: Only what is safe to repeat; each attempt takes admission again.
        timeout: One deadline per attempt; never cuts a write of the run's account.
        outputs: Untrusted: schema, invariants, size; fails closed, never retried.
        perform: The tool itself.
    """

    recorder: Layer
    switches: Layer
    loops: Layer
    allowlist: Layer
    meter: Layer
    inputs: Layer
    taint: Layer
    state: Layer
    recall: Layer
    approval: Layer
    admission: Layer
    claim: Layer
    retry: Layer
    timeout: Layer
    outputs: Layer
    perform: Callable[[ToolSpec], Proceed[RunScope]]

    def guards(self) -> tuple[Layer, ...]:
        """Return the guards, outermost first."""
        return (
            self.recorder,
            self.switches,
            self.loops,
            self.allowlist,
            self.meter,
            self.inputs,
            self.taint,
            self.state,
            self.recall,
            self.approval,
            self.admission,
            self.claim,
            self.retry,
            self.timeout,
            self.outputs,
        )

    def fold(self, tool: ToolSpec) -> Proceed[RunScope]:
        """Return the whole funnel for one tool."""
        proceed = self.perform(tool)
        for guard in reversed(self.guards()):
            proceed = guard(tool, proceed)
        return proceed
