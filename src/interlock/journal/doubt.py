"""What to do with a write, given what the journal knows of it: a pure decision.

An unknown is never laundered. Once an attempt may have happened, only a success, a conclusive look-up or a
person closes the claim; until then it is sent again only where that is harmless, by declaration: the tool is
`natural`, or the remote deduplicates on our key and still remembers it.
"""

from __future__ import annotations

from enum import StrEnum

from interlock.core.calls import OnUnknown, ToolSpec
from interlock.journal.store import Claim, ClaimState

__all__ = ["Step", "is_remembered", "next_step", "settle_s"]


class Step(StrEnum):
    """What comes next for a write.

    SEND: nothing happened yet. ANSWER: from the record. RESEND: the same again, under the same key.
    ASK: the remote, whether it happened. TELL: the model, that nobody knows. STOP: a person decides.
    """

    SEND = "send"
    ANSWER = "answer"
    RESEND = "resend"
    ASK = "ask"
    TELL = "tell"
    STOP = "stop"


def next_step(claim: Claim | None, tool: ToolSpec, now: float, dedupe_window_s: float) -> Step:
    """Decide.

    Args:
        claim: What the journal holds, nobody being at work on it; None for nothing.
        now: Wall-clock seconds (Unix).
        dedupe_window_s: How long the remote remembers our key, counted from the first send.
    """
    if claim is None or claim.state is ClaimState.FAILED_CLEAN:
        return Step.SEND
    if claim.state is ClaimState.DONE:
        return Step.ANSWER
    word = tool.on_unknown
    if word is OnUnknown.RESEND and is_remembered(tool, claim.first_sent_at, now, dedupe_window_s):
        return Step.RESEND
    if tool.lookup is not None and word in {OnUnknown.RESEND, OnUnknown.LOOKUP}:
        return Step.ASK
    return Step.TELL if word is OnUnknown.TELL else Step.STOP


def settle_s(tool: ToolSpec, timeout_s: float, lease_ttl_s: float) -> float:
    """Return the seconds after the last send from which a look-up's "no" counts: before, the write may still arrive."""
    return tool.settle_s if tool.settle_s is not None else (tool.timeout_s or timeout_s) + lease_ttl_s


def is_remembered(tool: ToolSpec, first_sent_at: float, now: float, dedupe_window_s: float) -> bool:
    """Whether the same may be sent again under the same key: harmless, or still known to the remote.

    Args:
        first_sent_at, now: Wall-clock seconds (Unix). A clock that went back makes the key younger than it is: then
            it does not count as remembered.
    """
    return tool.natural or (tool.takes_key and 0 <= now - first_sent_at <= dedupe_window_s)
