"""What an account of a trial needs beside what is counted: how each call was answered, in words and facts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from interlock.core.calls import Answer, Call, Proceed
from interlock.core.errors import InterlockError
from interlock.supervisor.observation import as_text

__all__ = ["Heard", "Hearing", "overheard"]


class Heard(NamedTuple):
    """One call, as it was answered at the outer end of the funnel.

    Attributes:
        args: Canonical JSON. began_s, ended_s: since the first thing happened.
        outcome: Status of the answer, or the class of the error. model, developer: what each may read of it.
        facts: Whatever else the answer, the error or the call says; never a value that is its default.
    """

    run_id: str
    seq: int
    tool: str
    args: str
    began_s: float
    ended_s: float
    outcome: str
    model: str
    developer: str
    facts: Mapping[str, Any]


@dataclass(slots=True)
class Hearing:
    """Calls in the order in which they were answered."""

    calls: list[Heard] = field(default_factory=list)

    def secret(self, seed: int) -> bytes:
        """Return the store's secret: equal seeds give equal keys, so that a change of how keys are made is seen."""
        return hashlib.sha256(f"interlock chaos {seed}".encode()).digest()


async def overheard(call: Call[Any], proceed: Proceed[Any], into: Hearing, elapsed_s: Callable[[], float]) -> Answer:
    """Let a call pass, and take in what came of it."""
    began_s = elapsed_s()

    def heard(outcome: str, model: str, developer: str, facts: Mapping[str, Any]) -> None:
        said = {**_facts(call), **facts}
        into.calls.append(
            Heard(
                call.run.run_id,
                call.seq,
                call.tool.name,
                call.args_json.decode(errors="replace"),
                began_s,
                elapsed_s(),
                outcome,
                model,
                developer,
                {name: value for name, value in said.items() if value},
            )
        )

    try:
        answer = await proceed(call)
    except InterlockError as error:
        details = {name: value for name, value in error.details.items() if value is not None}
        facts = {
            "reason": error.reason,
            "ended_as": error.status,
            "tried": error.executed,
            "transient": error.transient,
        }
        heard(type(error).__name__, error.for_model, str(error), {**facts, "alone": not error.run_wide, **details})
        raise
    except BaseException as error:
        heard(type(error).__name__, "", str(error), {})
        raise
    heard(answer.status, _text(answer), "", {})
    return answer


def _facts(call: Call[Any]) -> dict[str, Any]:
    """Return what the funnel has written on the call, and what turns under way hold of the run's budget."""
    held_usd, held_tokens = call.run.meter.reserved()
    return {
        "held_usd": held_usd,
        "held_tokens": held_tokens,
        "unpriced": call.run.meter.unpriced,
        "effect": "" if not call.writes else "write",
        "turn": call.turn,
        "batch": call.batch,
        "attempts": call.attempts,
        "occurrence": "" if call.occurrence == 1 else call.occurrence,
        "key": "" if call.key is None else call.key.hex(),
        "sent_key": call.sent_key,
        "unknown": call.unknown,
        "evidence": call.evidence,
        "would_have": call.would_have,
        "approval": call.approval_id,
        "holds": call.permit is not None,
        "has_read": call.run.lineage.sources,
    }


def _text(answer: Answer) -> str:
    try:
        return as_text(answer)
    except (TypeError, ValueError):
        return f"a {type(answer.value).__name__}"
