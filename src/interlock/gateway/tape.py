"""Records what a run decides, and answers a new attempt from what an earlier one recorded.

One tape a path (a root run and each of its children). Only runs whose caller gave a request id have one: nobody
else can ask for them again.
"""

from __future__ import annotations

import builtins
from typing import Any

import orjson

from interlock.core import errors
from interlock.core.calls import Answer, Call
from interlock.core.errors import (
    ApprovalPending,
    InterlockError,
    LeaseLost,
    OutcomeUnknown,
    RunStopped,
    StoreUnavailable,
    ToolFailed,
    ToolOutputInvalid,
)
from interlock.core.reasons import StopReason
from interlock.core.verbs import WITHIN
from interlock.journal.replay import (
    CUT,
    PASSING,
    CallRecord,
    Diverged,
    History,
    Replay,
    ReplayStore,
    Reserved,
    TurnRecord,
)

__all__ = ["Tape", "restored"]

# Nothing that the agent could go on from: this worker does nothing more for the run. They are never recorded.
_ENDS_HERE = (RunStopped, LeaseLost)


class Tape:
    """The record of one path.

    Args:
        store: Where it is kept.
        run_id: The root run's.
        fence: Of this attempt. history: what earlier ones recorded.
        path: Child path below the root.
    """

    __slots__ = ("_fence", "_history", "_nth", "_path", "_replay", "_run_id", "_store", "_turn")

    def __init__(self, store: ReplayStore, run_id: str, fence: int, history: History, path: str = "") -> None:
        self._store = store
        self._run_id = run_id
        self._fence = fence
        self._history = history
        self._path = path
        self._replay = Replay(
            (turn for turn in history.turns if turn.path == path),
            (call for call in history.calls if call.path == path),
        )
        self._turn = -1
        self._nth: dict[tuple[str, bytes], int] = {}

    def child(self, path: str) -> Tape:
        """Return the tape of a child."""
        return Tape(self._store, self._run_id, self._fence, self._history, path)

    # -- model turns

    def turn(self, number: int) -> TurnRecord | None:
        """Return what was recorded of model turn `number`, or None."""
        return self._replay.turn(number)

    def keep_turn(
        self, number: int, reply: bytes | None, model: str, usd: float, tokens: int, held: Reserved | None = None
    ) -> None:
        """Record a model turn; `reply` None makes the run one that cannot be entered again.

        Args:
            held: What all turns still under way hold, where this one held something.
        """
        record = TurnRecord(self._path, number, reply, model, usd, tokens)
        self._store.turn_soon(self._run_id, self._fence, record, held)

    def hold(self, held: Reserved) -> None:
        """Record what all turns under way hold: charged in full to whoever goes on, if this worker dies now."""
        self._store.hold_soon(self._run_id, self._fence, held)

    # -- calls

    def find(self, call: Call[Any]) -> CallRecord | None:
        """Return the record of this call; None: it is new. A write is answered by its claim, not from here.

        Raises:
            RunStopped: The run does something else here than it did before.
        """
        try:
            record = self._replay.call(call.turn, call.tool.name, call.digest)
        except Diverged as error:
            raise RunStopped(StopReason.REPLAY_DIVERGED, str(error), details={"turn": call.turn}) from None
        if record is None or record.writes:
            return None
        self._count(call)  # its place is taken: an equal call that is new comes after it
        return record

    def keep(self, call: Call[Any], answer: Answer | None, error: Exception | None) -> None:
        """Record what became of a call; an error may be of any kind, where the tool's own went through."""
        if isinstance(error, _ENDS_HERE):
            return
        claimed = call.key is not None and (
            call.attempts > 0 or answer is not None or isinstance(error, OutcomeUnknown | ApprovalPending)
        )
        value = None if claimed or answer is None else answer.json
        if answer is not None:
            status = answer.status
        elif isinstance(error, StoreUnavailable):
            status = PASSING
        else:
            status = error.status if isinstance(error, InterlockError) else "error"
        self._keep(call, status, claimed=claimed, value=value, error=None if claimed or error is None else _dump(error))

    def keep_cut(self, call: Call[Any]) -> None:
        """Record that the agent itself cut the call off, as a timeout of its own does: it is made anew in its place."""
        self._keep(call, CUT, claimed=True)

    def keep_within(self, call: Call[Any], answer: Answer) -> None:
        """Record what a tool of this run has read: nobody is answered from it, but its label stays known."""
        place = self._path, call.turn, WITHIN + call.tool.name, call.digest
        record = CallRecord(*place, call.seq, call.seq, answer.status, value=answer.json)
        self._store.call_soon(self._run_id, self._fence, record)

    def _keep(
        self, call: Call[Any], status: str, *, claimed: bool, value: bytes | None = None, error: bytes | None = None
    ) -> None:
        nth = self._count(call)
        record = CallRecord(
            self._path, call.turn, call.tool.name, call.digest, nth, call.seq, status, claimed, value, error
        )
        self._store.call_soon(self._run_id, self._fence, record)

    def _count(self, call: Call[Any]) -> int:
        """Return which of the equal calls of its turn this one is."""
        if call.turn != self._turn:
            self._turn = call.turn
            self._nth.clear()
        place = (call.tool.name, call.digest)
        self._nth[place] = nth = self._nth.get(place, 0) + 1
        return nth


def _dump(error: Exception) -> bytes:
    said: dict[str, Any] = {"class": type(error).__name__, "message": str(error)}
    if isinstance(error, InterlockError):
        said |= {
            "for_model": error.for_model,
            "reason": error.reason,
            "details": error.details,
            "run_wide": error.run_wide,
            "executed": error.executed,
            "tool": getattr(error, "tool", ""),
            "errors": getattr(error, "errors", []),
        }
    return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS)


def restored(data: bytes) -> Exception:
    """Return a recorded error as it was raised; one that is neither ours nor Python's own, as `ToolFailed`."""
    said = orjson.loads(data)
    name, message = said["class"], said["message"]
    if "reason" not in said:
        return _foreign(name, message)
    kind = getattr(errors, name, InterlockError)
    error: InterlockError = kind.__new__(kind)
    InterlockError.__init__(
        error, message, for_model=said["for_model"], details=said["details"], run_wide=said["run_wide"]
    )
    error.reason = StopReason(said["reason"])
    error.executed = said["executed"]
    if isinstance(error, ToolOutputInvalid):
        error.tool, error.errors = said["tool"], said["errors"]
    return error


def _foreign(name: str, message: str) -> Exception:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:
            pass  # one that is not made of a text alone
    return ToolFailed(f"{name}: {message}")
