"""Pieces of work that share a transaction; intents, settlements and traces share statements where that changes nothing.

A statement for thirty rows costs half of what thirty statements cost, and the interpreter's lock is let go of once
instead of sixty times, so that the event loop goes on beside it. The outcome is that of one piece after the other:
what is gathered is gathered only past work that touches nothing it touches, intents and settlements never where two
name the same effect; a shared statement that did not do all of those is undone and its pieces are done one by one,
each of which then says why.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from interlock.journal.store import Refused
from interlock.stores import calls, claims

__all__ = ["Item", "Work", "aside", "carry_out"]

Work = Callable[..., Any]
Item = tuple[Work, tuple[Any, ...], "asyncio.Future[Any] | None"]

# Shared statements are undone where one piece cannot be done, and that has its price too.
_WORTH_IT = 4

_aside: set[Work] = set()


def aside(work: Work) -> Work:
    """Mark work that has nothing to do with claims, nor changes what they look at: owners of runs, switches."""
    _aside.add(work)
    return work


def carry_out(db: sqlite3.Connection, items: Sequence[Item]) -> list[Any]:
    """Do all of it inside the open transaction; return a result or a refusal for each.

    Raises:
        Exception: One piece cannot be done: the transaction is to be rolled back.
    """
    outcomes: list[Any] = [None] * len(items)
    gathered: list[int] = []
    traced: list[calls.Part] = []
    for at, (work, args, _) in enumerate(items):
        if work is claims.settle or (work is claims.claim and claims.is_plain(*args)):
            gathered.append(at)
            continue
        if work is calls.insert:
            traced += args[0]
            continue
        if work not in _aside:
            _together(db, items, gathered, outcomes)
            gathered.clear()
            calls.insert(db, traced)
            traced.clear()
        outcomes[at] = _one(db, work, args)
    _together(db, items, gathered, outcomes)
    calls.insert(db, traced)
    return outcomes


def _together(db: sqlite3.Connection, items: Sequence[Item], gathered: Sequence[int], outcomes: list[Any]) -> None:
    """Do the gathered intents and settlements, in shared statements where all are about different effects."""
    alone = gathered
    if len(gathered) >= _WORTH_IT and len({items[at][1][0][0] for at in gathered}) == len(gathered):
        alone = []
        for work, share, done in ((claims.settle, claims.settle_all, True), (claims.claim, claims.claim_all, None)):
            mine = [at for at in gathered if items[at][0] is work]
            if len(mine) >= _WORTH_IT and _shared(db, share, [items[at][1] for at in mine]):
                for at in mine:
                    outcomes[at] = done
            else:
                alone += mine
    for at in alone:
        work, args, _ = items[at]
        outcomes[at] = _one(db, work, args)


def _shared(db: sqlite3.Connection, share: Callable[..., bool], args: Sequence[tuple[Any, ...]]) -> bool:
    """Do pieces of one kind in shared statements; False: nothing is done, since not all of them could be."""
    db.execute("savepoint shared")
    done = share(db, args)
    if not done:
        db.execute("rollback to shared")
    db.execute("release shared")
    return done


def _one(db: sqlite3.Connection, work: Work, args: tuple[Any, ...]) -> Any:
    try:
        return work(db, *args)
    except Refused as refusal:
        return refusal
