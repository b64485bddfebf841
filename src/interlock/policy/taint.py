"""What a run has read that others may have written, and whether a call has anything of it.

A value belongs to whoever said it first: the task, a trusted tool, or an untrusted one. A pure machine, fed in
the order of events; live runs, resumed runs and the backtest feed the same one.

What a run reads counts for the calls that are made after it: calls that are made at once cannot have learned from
each other's answers, whichever of them is quicker. Where a loop makes a turn's calls one after another, the later
ones count as having heard the earlier: which they have not, and so it errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interlock.core.trust import Lineage, Trust
from interlock.policy.sayings import is_said, is_written, leaves, normal, particulars, squeezed

__all__ = ["Taint", "TaintRule", "Tainted"]

# Characters kept of what one run and its children read. What is beyond is not searched, but taken for tainted.
KEPT_CHARACTERS = 4_000_000
# An argument that names more than this is not searched for each of them, but taken for tainted.
MOST_PARTICULARS = 200


@dataclass(frozen=True, slots=True)
class TaintRule:
    """What a call of a tool needs in a run that has read untrusted output.

    Attributes:
        then: `approval`: a person decides; `refuse`: it is not made.
        arguments: Only calls in which one of these arguments was first said by untrusted output; empty: every call.
    """

    then: Literal["approval", "refuse"]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tainted:
    """Why a rule applies: the sources (`tool:web.fetch`, `memory:…`), and the arguments that came from them."""

    sources: tuple[str, ...]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Something said: by whom, None for what is trusted; proposals of `run_id` up to `seq` had not heard it."""

    source: str | None
    run_id: str
    seq: int
    text: str
    letters: str


class Taint(Lineage):
    """The lineage of a run whose calls are judged by it; a run and its children share one.

    Args:
        keeps_text: Whether some rule names arguments: else nothing that was read is kept.
        task: What the caller gave, which is trusted.
    """

    __slots__ = ("_keeps_text", "_marks", "_overflow", "_pieces", "_room", "_texts")

    def __init__(self, *, keeps_text: bool = False, task: Any = None) -> None:
        super().__init__()
        self._keeps_text = keeps_text
        self._marks: dict[tuple[str, str], int] = {}
        self._pieces: list[_Piece] = []
        self._texts: set[tuple[str | None, str]] = set()
        self._room = KEPT_CHARACTERS
        self._overflow: str | None = None
        if keeps_text and task is not None:
            self._keep(None, "", 0, task)

    def read(self, source: str, trust: Trust, said: Any = None) -> None:
        """Take in something read beside calls, a memory for one; it counts for every call proposed from now on."""
        self.took_in(source, said, trusted=trust >= Trust.NORMAL)

    def took_in(self, source: str, said: Any, *, trusted: bool, run_id: str = "", seq: int = 0) -> None:
        """Take in what a call brought back.

        Args:
            source: Where it came from. said: the value. trusted: whether its source is.
            run_id: Of the run that made the call. seq: number of the last call that this run had proposed by then.
        """
        if not trusted:
            super().read(source, Trust.LOW)
            self._marks.setdefault((source, run_id), seq)
        if self._keeps_text and said is not None:
            self._keep(None if trusted else source, run_id, seq, said)

    def judge(self, rule: TaintRule, args: Mapping[str, Any], run_id: str, seq: int) -> Tainted | None:
        """Return why `rule` applies to the `seq`-th call of a run, with these arguments (JSON); None: it does not."""
        if not rule.arguments:
            found = (source for (source, where), at in self._marks.items() if not _was_proposed(run_id, seq, where, at))
            sources = tuple(dict.fromkeys(found))
            return Tainted(sources) if sources else None
        named = {
            name: source
            for name in rule.arguments
            if name in args and (source := self._source_of(args[name], run_id, seq)) is not None
        }
        return Tainted(tuple(dict.fromkeys(named.values())), tuple(named)) if named else None

    def _source_of(self, value: Any, run_id: str, seq: int) -> str | None:
        for leaf in leaves(value):
            whole = normal(leaf)
            if not whole:
                continue
            source, known = self._first(whole, run_id, seq)
            if known:
                if source is not None:
                    return source
                continue
            parts = particulars(leaf)
            if len(parts) > MOST_PARTICULARS and self.sources:
                return self.sources[0]
            for part in parts:
                source, known = self._first(part, run_id, seq)
                if source is not None:
                    return source
            if self._overflow is not None:
                return self._overflow
        return None

    def _first(self, word: str, run_id: str, seq: int) -> tuple[str | None, bool]:
        """Return who said this first (None: somebody trusted), and whether anybody did."""
        for piece in self._pieces:
            if piece.source is None:
                if is_written(word, piece.text):
                    return None, True
            elif not _was_proposed(run_id, seq, piece.run_id, piece.seq) and is_said(word, piece.text, piece.letters):
                return piece.source, True
        return None, False

    def _keep(self, source: str | None, run_id: str, seq: int, said: Any) -> None:
        text = normal("\n".join(leaves(said)))
        if not text or (source, text) in self._texts:
            return
        if len(text) > self._room:
            if source is not None:
                self._overflow = self._overflow or source
            return
        self._room -= len(text)
        self._texts.add((source, text))
        self._pieces.append(_Piece(source, run_id, seq, text, "" if source is None else squeezed(text)))


def _was_proposed(run_id: str, seq: int, where: str, at: int) -> bool:
    """Whether a call had been proposed by the time that this was read."""
    return run_id == where and seq <= at
