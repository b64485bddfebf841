"""A claim as the command line shows it: what, who, when, how we know, and the command that closes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.cli.output import command, when
from interlock.core.calls import OnUnknown
from interlock.journal.store import Claim, ClaimState

__all__ = ["claim_facts", "evidence_line", "needs", "settle_command"]

_OPEN = (ClaimState.IN_DOUBT, ClaimState.INTENT)


def claim_facts(claim: Claim, store: str | None) -> dict[str, Any]:
    """Return the claim for `--json`; without its result, which is content."""
    return {
        "key": claim.key.hex(),
        "state": claim.state.value,
        "tool": claim.tool,
        "args_hash": claim.args_digest.hex(),
        "tenant_id": claim.tenant_id,
        "agent": claim.agent,
        "run_id": claim.run_id,
        "request_id": claim.request_id,
        "path": claim.path,
        "turn": claim.turn,
        "seq": claim.seq,
        "occurrence": claim.occurrence,
        "on_unknown": claim.on_unknown,
        "sent_key": claim.sent_key,
        "sends": claim.sends,
        "first_sent_at": when(claim.first_sent_at),
        "last_sent_at": when(claim.last_sent_at),
        "settled_at": when(claim.settled_at) or None,
        "settled_by": claim.settled_by,
        "settle_reason": claim.settle_reason,
        "verified": claim.verified,
        "result_kept": claim.result_kept,
        "age_s": round(claim.sent_ago_s, 3),
        "evidence": [dict(entry) for entry in claim.evidence],
        "needs": needs(claim) if claim.state in _OPEN else None,
        "settle": settle_command(claim, store) if claim.state in _OPEN else None,
    }


def evidence_line(claim: Claim) -> str:
    """Return how we know what we know: one word or two an attempt."""
    said = ", ".join(_said(entry) for entry in claim.evidence)
    return said or f"sent {claim.sends} times; nothing came back"


def needs(claim: Claim) -> str:
    """Return what would close the doubt: what the remote must be asked or told, and by whom."""
    key = f"look for the idempotency key {claim.sent_key} at the remote"
    match claim.on_unknown:
        case OnUnknown.RESEND:
            return f"the same request, delivered again: it is sent once more under the same key; or {key}"
        case OnUnknown.LOOKUP:
            return f"a worker that has {claim.tool}: its look-up is asked again and again; or {key}"
        case _:
            return f"a person: {key}, or for what it would have done; no key is known there unless the tool sends it"


def settle_command(claim: Claim, store: str | None, *, done: bool = False) -> str:
    """Return the command that closes the doubt, to be completed by a person who has looked."""
    verdict = ("--done", "RESULT") if done else ("--not-performed",)
    return command(store, "settle", claim.key.hex(), *verdict, "--by", "YOU", "--reason", "WHY")


def _said(entry: Mapping[str, Any]) -> str:
    attempt = f"attempt {entry['attempt']}: " if "attempt" in entry else ""
    kind = str(entry.get("kind") or entry.get("by") or entry.get("performed") or "unknown").replace("_", " ")
    # A look-up's own words say "lookup" already.
    return attempt + (str(entry["why"]) if entry.get("by") == "lookup" and "why" in entry else kind)
