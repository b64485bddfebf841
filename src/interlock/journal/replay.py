"""What an earlier attempt of a run decided, answered again by position: no model is asked twice, no plan re-worded.

A position is (child path, model turn, tool, arguments, n-th such call in the turn); the order in which parallel
calls finished does not matter. A run that declares no turns is matched by the order of its calls. Beyond the
last recorded turn the run goes on for real; a call that the record does not know *before* that is a divergence,
and nothing is sent.

Writes are not answered from here: their claims are, by the journal, in whatever state they are by now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from interlock.core.verbs import WITHIN

__all__ = ["CUT", "PASSING", "CallRecord", "Diverged", "History", "Replay", "ReplayStore", "Reserved", "TurnRecord"]


# Status of a call that was refused because the store was away: answered again only where the run went on from it.
PASSING = "store_unavailable"
# Status of a call that the agent itself cut off: it is made anew.
CUT = "cancelled"


class Diverged(Exception):
    """The run does something else at a recorded position than it did before. `args[0]` says what and where."""


Reserved = tuple[float, int]
"""What model turns under way may cost at worst: dollars, tokens."""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One model turn. `reply` is JSON, or None where it could not be kept: the run cannot be entered again."""

    path: str
    turn: int
    reply: bytes | None
    model: str = ""
    usd: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What became of one call.

    Attributes:
        seq: n-th call of its path. nth: n-th equal call of its turn, from 1.
        status: As in the trace, or `PASSING` or `CUT`.
        writes: Whether its claim is the record of it, so that the call is made again.
        value: JSON of the answer, or None. error: JSON of the refusal or failure, or None.
    """

    path: str
    turn: int
    tool: str
    args_digest: bytes
    nth: int
    seq: int
    status: str
    writes: bool = False
    value: bytes | None = None
    error: bytes | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Everything recorded of a root run and its children."""

    turns: Sequence[TurnRecord] = ()
    calls: Sequence[CallRecord] = ()

    @property
    def complete(self) -> bool:
        """Whether every model turn can be answered again."""
        return all(turn.reply is not None for turn in self.turns)

    def covers(self, places: Iterable[tuple[str, int]]) -> bool:
        """Whether every model turn is on record, those included in which there were calls at `places`: (path, turn)."""
        recorded = {(turn.path, turn.turn) for turn in self.turns if turn.reply is not None}
        used = {*places, *((turn.path, turn.turn) for turn in self.turns)}
        used.update((call.path, call.turn) for call in self.calls)
        return all(turn == 0 or (path, turn) in recorded for path, turn in used)


class ReplayStore(Protocol):
    """Where turns and results are kept, sealed, until retention.

    Attributes:
        keeps: False with `replay: off`: nothing is kept, and no run is entered again.
    """

    keeps: bool

    def turn_soon(self, run_id: str, fence: int, record: TurnRecord, held: Reserved | None = None) -> None:
        """Queue a model turn; it is durable before, or together with, any later intent of this process.

        It is not written where the run has another fence by then. `held`: what turns still under way have reserved,
        where that has changed; durable together with the turn.
        """
        ...

    def hold_soon(self, run_id: str, fence: int, held: Reserved) -> None:
        """Write at once, without waiting, what model turns under way have reserved.

        Whoever takes the run over finds it in `RunRow.spent_usd` and `spent_tokens`, once.
        """
        ...

    def call_soon(self, run_id: str, fence: int, record: CallRecord) -> None:
        """Queue what became of a call; as `turn_soon`."""
        ...

    def forget_soon(self, run_id: str, fence: int) -> None:
        """Queue that nothing of this run is kept: it begins anew, having written nothing. Its cost stays charged."""
        ...

    async def history(self, run_id: str) -> History:
        """Return what is recorded of a root run, children included.

        Raises:
            ConfigError: It cannot be unsealed: the key has changed.
        """
        ...


class Replay:
    """The pure machine of one path: asked in the order of a new attempt, it answers from the old one.

    Args:
        turns, calls: Records of this path.
    """

    __slots__ = ("_bare", "_last", "_seen", "_turns", "_undone")

    def __init__(self, turns: Iterable[TurnRecord], calls: Iterable[CallRecord]) -> None:
        self._turns = {turn.turn: turn for turn in turns}
        self._last = max(self._turns, default=0)
        # Calls before the first turn, or of a run without turns, are matched by their order.
        ordered = sorted((call for call in calls if not call.tool.startswith(WITHIN)), key=lambda call: call.seq)
        self._bare = [call for call in ordered if call.turn == 0]
        self._undone = {(c.turn, c.tool, c.args_digest, c.nth): c for c in ordered if c.turn > 0}
        self._seen: dict[tuple[int, str, bytes], int] = {}

    def turn(self, number: int) -> TurnRecord | None:
        """Return the record of model turn `number`; None: it lies beyond the record, and the model is asked."""
        return self._turns.get(number)

    def call(self, turn: int, tool: str, args_digest: bytes) -> CallRecord | None:
        """Return the record of a call; None: it is new, and is made.

        Raises:
            Diverged: There is a record of this place, and it is of something else.
        """
        if turn == 0:
            return self._bare_call(tool, args_digest)
        nth = self._seen.get((turn, tool, args_digest), 0) + 1
        self._seen[turn, tool, args_digest] = nth
        record = self._undone.pop((turn, tool, args_digest, nth), None)
        if turn < self._last:
            if record is None:
                raise Diverged(f"{tool} was not called with these arguments in model turn {turn}, which went otherwise")
            return record
        return None if record is None or record.status == PASSING else record

    def _bare_call(self, tool: str, args_digest: bytes) -> CallRecord | None:
        if not self._bare:
            if self._last:
                raise Diverged(f"{tool} was not called before the first model turn")
            return None
        for i, record in enumerate(self._bare):
            if (record.tool, record.args_digest) == (tool, args_digest):
                del self._bare[i]
                return None if record.status == PASSING and not self._bare else record
        raise Diverged(f"{tool} was not called with these arguments where {self._bare[0].tool} was")
