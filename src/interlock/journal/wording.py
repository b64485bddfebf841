"""What the journal answers: values from the record, and refusals that say what is and is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interlock.core.calls import Answer, Call, OnUnknown, ToolSpec
from interlock.core.errors import (
    ApprovalExpired,
    InterlockError,
    LeaseLost,
    OutcomeUnknown,
    RunStopped,
    ToolDenied,
    ToolFailed,
    ToolOutputInvalid,
)
from interlock.core.reasons import StopReason
from interlock.journal.store import Claim, KilledAtClaim, Refused, SpentApproval

__all__ = ["disproved", "refusal", "replayed", "unknown"]

_NOT_KEPT = "This was done before, and was not done again; its result is not kept."
_TOLD = (
    "Nobody knows whether this happened: its answer was lost. It was not repeated. Look at the present state "
    "before you decide what to do next."
)
_CLOSE_BY = {
    OnUnknown.RESEND: "it is older than tools.dedupe_window_s, or its retries ended",
    OnUnknown.LOOKUP: "its look-up could not tell",
    OnUnknown.STOP: "declare a parameter idempotency_key, natural=True or lookup= to let Interlock close such doubts",
    OnUnknown.TELL: "on_unknown is tell: the model was told",
}


def unknown(call: Call[Any], cause: str, why: str = "") -> OutcomeUnknown:
    """Return what a call raises when nobody knows whether its write happened.

    Args:
        cause: Why: a stop reason, or the state in which the claim was found.
        why: What the last look-up said.
    """
    assert call.key is not None
    tool, key = call.tool, call.key.hex()
    told = tool.on_unknown is OnUnknown.TELL
    return OutcomeUnknown(
        f"{tool.name}: it may or may not have happened ({cause}{': ' if why else ''}{why});"
        f" {_CLOSE_BY[tool.on_unknown]}. `interlock settle {key}` closes it by hand",
        for_model=_TOLD if told else None,
        details={"key": key, "tool": tool.name, "cause": cause},
        run_wide=not told,
    )


def disproved(call: Call[Any], error: BaseException) -> InterlockError:
    """Return what a call raises whose attempts failed, and of which the look-up says that nothing happened."""
    reason = error.reason if isinstance(error, InterlockError) else StopReason.TOOL_FAILED
    return ToolFailed(
        f"{call.tool.name}: {error}; its look-up says that it did not happen",
        for_model="The tool failed. It was checked: the write did not happen.",
        details={"cause": str(reason), "performed": "no"},
    )


def refusal(call: Call[Any], refused: Refused) -> InterlockError:
    """Return in words of the funnel what the store refused a claim with."""
    tool = call.tool.name
    if isinstance(refused, KilledAtClaim):
        details = {
            "policy": "safe_mode" if refused.kind == "safe_mode" else "kill_switch",
            "scope": refused.scope,
            "subject": refused.subject,
            "actor": refused.actor,
            "switch_reason": refused.reason,
        }
        text = f"{refused.kind} ({refused.scope} {refused.subject}) by {refused.actor}: {refused.reason}"
        if refused.kind == "safe_mode" or refused.scope == "tool":
            return ToolDenied(f"{tool}: {text}", details=details)
        return RunStopped(StopReason.KILLED, text, details=details)
    if isinstance(refused, SpentApproval):
        return ApprovalExpired(f"{tool}: its approval has expired or was used (approvals.expires_s)")
    return LeaseLost(f"run {call.run.root_run_id}: another worker has taken it over, or it has ended")


def replayed(call: Call[Any], claim: Claim, rebuild: Callable[[ToolSpec, bytes], Any]) -> Answer:
    """Return the answer that a done claim keeps.

    Raises:
        ToolOutputInvalid: It could not be believed then, or does not fit the tool's output any more.
    """
    if not claim.verified:
        raise ToolOutputInvalid(
            call.tool.name,
            [],
            f"{call.tool.name}: done before, with an output that was not valid; see `interlock doubts --unverified`",
            for_model="This was done before, and was not done again; its answer was not valid and is withheld.",
        )
    if claim.result is None:
        return Answer(None, None, "replayed", _NOT_KEPT)
    return Answer(rebuild(call.tool, claim.result), claim.result, "replayed")
