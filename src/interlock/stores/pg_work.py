"""Pieces of work that share a transaction, and the order in which their statements may run.

Work of one kind shares a statement wherever that changes nothing: a piece of work never comes before an
earlier one of the same effect or the same run. So a batch comes to what its pieces would one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any

__all__ = [
    "Kind",
    "Work",
    "alone",
    "begin_work",
    "claim_work",
    "end_work",
    "forget_work",
    "place",
    "record_work",
    "resend_work",
    "settle_work",
    "trace_work",
]


class Kind(IntEnum):
    """What a piece of work is; the numbers are the order inside a stage, in which most batches need one stage."""

    END = 0
    BEGIN = 1
    SETTLE = 2
    RESEND = 3
    FORGET = 4
    TURN = 5
    RESULT = 6
    CLAIM = 7
    TRACE = 8
    ALONE = 9


_KINDS = 16
# Every run that a request may be standing on: which one is seen only in the database.
ANY_RUN_ENDED = "any run ended"


class Work:
    """One piece of work.

    Attributes:
        row: Parameters of its statement; of ALONE: one function `(connection) -> awaitable`.
        follows, marks: Names of what it must come after, and of what it changes or looks at.
        future: Who waits for it; None for nobody.
        outcome: What he will be told: a result, or an exception.
        size: About how many bytes it sends.
        sent: Whether it may have been carried out, by a transaction of which nobody heard again.
    """

    __slots__ = ("follows", "future", "kind", "marks", "outcome", "row", "sent", "size")

    def __init__(
        self,
        kind: Kind,
        row: tuple[Any, ...],
        follows: Sequence[str | bytes] = (),
        marks: Sequence[str | bytes] = (),
        size: int = 0,
    ) -> None:
        self.kind = kind
        self.row = row
        self.follows = follows
        self.marks = marks
        self.size = size
        self.sent = False
        self.future: asyncio.Future[Any] | None = None
        self.outcome: Any = None


def claim_work(row: tuple[Any, ...], key: bytes, run_id: str) -> Work:
    """Work that reads the run's row and writes the key's."""
    return Work(Kind.CLAIM, row, (key, "run " + run_id), (key, "reads " + run_id))


def resend_work(row: tuple[Any, ...], key: bytes, run_id: str) -> Work:
    """As `claim_work`."""
    return Work(Kind.RESEND, row, (key, "run " + run_id), (key, "reads " + run_id))


def settle_work(row: tuple[Any, ...], key: bytes, size: int) -> Work:
    """Work that writes the key's row, whoever owns the run by now."""
    return Work(Kind.SETTLE, row, (key,), (key,), size)


def begin_work(row: tuple[Any, ...], run_id: str, root_run_id: str, size: int, *, soon: bool) -> Work:
    """Work that makes the run's row. Nobody else can know a request that is begun `soon`."""
    run, reads = "run " + run_id, "reads " + run_id
    follows = [run, reads]
    if root_run_id != run_id:
        follows.append("run " + root_run_id)
    if not soon:
        follows.append(ANY_RUN_ENDED)
    return Work(Kind.BEGIN, row, follows, (run,), size)


def end_work(row: tuple[Any, ...], run_id: str, size: int) -> Work:
    """Work that closes the run's row, after all that needed it open."""
    run = "run " + run_id
    return Work(Kind.END, row, (run, "reads " + run_id), (run, ANY_RUN_ENDED), size)


def trace_work(row: tuple[Any, ...], run_id: str, size: int) -> Work:
    """Work that needs the run's row to be there."""
    return Work(Kind.TRACE, row, ("run " + run_id,), (), size)


def record_work(kind: Kind, row: tuple[Any, ...], run_id: str, size: int) -> Work:
    """Work that adds to what replay answers from (TURN or RESULT), for as long as the run is this owner's."""
    follows = ("run " + run_id, "forgot " + run_id)
    return Work(kind, row, follows, ("reads " + run_id, "recorded " + run_id), size)


def forget_work(row: tuple[Any, ...], run_id: str) -> Work:
    """Work that takes out what replay answers from."""
    return Work(Kind.FORGET, row, ("run " + run_id, "recorded " + run_id), ("forgot " + run_id,))


def alone(work: Callable[[Any], Awaitable[Any]]) -> Work:
    """Work that shares a transaction, but no statement; it comes after everything before it."""
    return Work(Kind.ALONE, (work,))


def place(batch: Iterable[Work]) -> list[tuple[Kind, list[Work]]]:
    """Return the statements of a batch: groups of one kind, in the order in which they must run."""
    last: dict[str | bytes, int] = {}
    groups: dict[int, list[Work]] = {}
    for work in batch:
        kind = int(work.kind)
        at = kind
        for name in work.follows:
            seen = last.get(name, -1)
            if at <= seen:
                stage, rank = divmod(seen, _KINDS)
                at = (stage if kind > rank else stage + 1) * _KINDS + kind
        if kind == Kind.ALONE and groups:
            at = max(at, max(groups) // _KINDS * _KINDS + kind)
        for name in work.marks:
            if last.get(name, -1) < at:
                last[name] = at
        group = groups.get(at)
        if group is None:
            groups[at] = [work]
        else:
            group.append(work)
    return [(Kind(at % _KINDS), groups[at]) for at in sorted(groups)]
