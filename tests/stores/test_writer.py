"""One writer, group commit: order is kept, everybody hears of his own, what nobody waits for is not lost."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.clock import SYSTEM
from interlock.core.errors import StoreUnavailable
from interlock.journal.store import Refused
from interlock.stores.writer import HEAP, InlineWriter, WriterOptions, WriterThread


class NoTurns:
    """The lock of a process that is alone."""

    def acquire(self):
        pass

    def release(self):
        pass

    def close(self):
        pass


def open_db(path):
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("create table if not exists log (n integer primary key, word unique)")
    return db


@pytest.fixture
def db(path):
    return open_db(path)


@pytest.fixture
def writer(db):
    writer = WriterThread(db, NoTurns(), "test.db", SYSTEM, WriterOptions(linger_s=0.02, retry_s=0.02))
    yield writer
    writer.close()


def add(db, word):
    return db.execute("insert into log (word) values (?)", (word,)).lastrowid


def words(path):
    db = sqlite3.connect(path)
    found = [word for (word,) in db.execute("select word from log order by n")]
    db.close()
    return found


async def test_work_is_durable_when_it_is_answered(writer, path):
    assert await writer.submit(add, "a") == 1
    assert words(path) == ["a"]


async def test_the_order_of_queueing_is_the_order_of_writing(writer, path):
    expected = []
    for i in range(300):
        word = f"w{i}"
        expected.append(word)
        if i % 3:
            writer.later(add, word)
        else:
            last = writer.submit(add, word)
    await last
    assert words(path)[: len(expected) - 2] == expected[:-2]


async def test_what_waits_for_nobody_is_written_all_the_same(writer, path):
    writer.later(add, "a")
    async with asyncio.timeout(30):
        while not words(path):  # noqa: ASYNC110 - the promise is that nobody has to ask for it
            await asyncio.sleep(0.01)
    assert words(path) == ["a"]


async def test_many_share_a_commit(writer):
    await writer.submit(add, "first")
    before = writer.batches
    await asyncio.gather(*(writer.submit(add, f"w{i}") for i in range(200)))
    assert writer.batches - before < 20


async def test_more_than_one_commit_may_hold_is_written_at_once_all_the_same(db, path):
    writer = WriterThread(db, NoTurns(), "test.db", SYSTEM, WriterOptions(linger_s=3600.0, batch=3))
    await asyncio.gather(*(writer.submit(add, f"w{i}") for i in range(20)))
    assert len(words(path)) == 20
    writer.close()


async def test_what_waits_for_nobody_keeps_nobody_from_the_commit(db):
    """One commit holds what ten wait for, although nine others are queued before each of them; but not ever more."""
    writer = WriterThread(db, NoTurns(), "test.db", SYSTEM, WriterOptions(linger_s=3600.0, batch=16))
    entered, stalled = threading.Event(), threading.Event()
    first = writer.submit(lambda _: (entered.set(), stalled.wait()))
    await asyncio.to_thread(entered.wait)
    waiting = []
    for i in range(10):
        for n in range(5):
            writer.later(add, f"l{i}.{n}")
        waiting.append(writer.submit(add, f"w{i}"))
    before = writer.batches
    stalled.set()
    await asyncio.gather(first, *waiting)
    assert writer.batches - before == 2
    for i in range(HEAP * 16 + 1):
        writer.later(add, f"h{i}")
    before = writer.batches
    await writer.submit(add, "last")
    assert writer.batches - before == 2
    writer.close()


async def test_a_stalled_disk_is_told_to_those_whose_work_is_under_way_and_to_those_behind_them(db, path):
    writer = WriterThread(db, NoTurns(), "test.db", SYSTEM, WriterOptions(patience_s=0.1))
    entered, stalled = threading.Event(), threading.Event()
    under_way = writer.submit(lambda db: (entered.set(), stalled.wait(), add(db, "a")))
    await asyncio.to_thread(entered.wait)
    behind = writer.submit(add, "b")
    for waiting in (under_way, behind):
        with pytest.raises(StoreUnavailable, match="the disk is stalled"):
            await waiting
    stalled.set()
    await writer.submit(add, "c")
    # It is not known of the one whether it is durable (here it is); the other has been taken back.
    assert words(path) == ["a", "c"]
    writer.close()


async def test_one_who_refuses_leaves_the_others_alone(writer, path):
    def refuse(_db):
        raise Refused("no")

    outcomes = await asyncio.gather(
        writer.submit(add, "a"), writer.submit(refuse), writer.submit(add, "b"), return_exceptions=True
    )
    assert isinstance(outcomes[1], Refused)
    assert words(path) == ["a", "b"]


async def test_one_who_fails_is_undone_alone(writer, path):
    def spoil(db):
        add(db, "half")
        raise ZeroDivisionError

    outcomes = await asyncio.gather(
        *(writer.submit(add, word) for word in "ab"),
        writer.submit(spoil),
        writer.submit(add, "a"),
        writer.submit(add, "c"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[2], ZeroDivisionError)
    assert isinstance(outcomes[3], StoreUnavailable)
    assert words(path) == ["a", "b", "c"]


async def test_a_caller_that_is_cancelled_disturbs_nobody(writer, path):
    waiting = [asyncio.ensure_future(writer.submit(add, f"w{i}")) for i in range(10)]
    waiting[4].cancel()
    await asyncio.wait(waiting)
    assert len(words(path)) == 10


async def test_several_event_loops_use_one_writer(writer, path):
    def loop(name):
        async def main():
            return await asyncio.gather(*(writer.submit(add, f"{name}{i}") for i in range(50)))

        assert len(set(asyncio.run(main()))) == 50

    threads = [threading.Thread(target=loop, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(words(path)) == 200


async def test_a_loop_that_is_gone_disturbs_nobody(writer, path):
    async def leave():
        writer.submit(add, "left")

    await asyncio.to_thread(asyncio.run, leave())
    assert await writer.submit(add, "b") == 2
    assert words(path) == ["left", "b"]


async def test_what_nobody_waits_for_survives_a_store_that_is_away(db, path):
    writer = WriterThread(db, NoTurns(), "test.db", SYSTEM, WriterOptions(patience_s=0.05, linger_s=0.01, retry_s=0.01))
    db.execute("pragma busy_timeout = 0")
    theirs = open_db(path)
    theirs.execute("begin immediate")
    for word in ("a", "b", "c"):
        writer.later(add, word)
    with pytest.raises(StoreUnavailable):
        await writer.submit(add, "refused")
    writer.later(add, "d")
    with pytest.raises(StoreUnavailable):
        await writer.submit(add, "refused")
    theirs.execute("rollback")
    theirs.close()
    await writer.submit(add, "e")
    assert words(path) == ["a", "b", "c", "d", "e"]
    assert writer.lost == 0
    writer.close()


async def test_who_waits_behind_more_than_a_commit_holds_hears_at_once_that_the_store_is_away(db, path):
    options = WriterOptions(patience_s=3600.0, linger_s=0.01, retry_s=0.01, batch=4)
    writer = WriterThread(db, NoTurns(), "test.db", SYSTEM, options)
    db.execute("pragma busy_timeout = 0")
    theirs = open_db(path)
    theirs.execute("begin immediate")
    for i in range(50):
        writer.later(add, f"w{i}")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(writer.submit(add, "refused"), 30)
    theirs.execute("rollback")
    theirs.close()
    await writer.submit(add, "after")
    assert words(path) == [*(f"w{i}" for i in range(50)), "after"]
    assert writer.lost == 0
    writer.close()


async def test_the_backlog_is_bounded_and_what_is_lost_is_counted(db, path):
    options = WriterOptions(patience_s=0.05, linger_s=0.01, retry_s=0.01, backlog=5)
    writer = WriterThread(db, NoTurns(), "test.db", SYSTEM, options)
    db.execute("pragma busy_timeout = 0")
    theirs = open_db(path)
    theirs.execute("begin immediate")
    with pytest.raises(StoreUnavailable):
        await writer.submit(add, "refused")
    for i in range(20):
        writer.later(add, f"w{i}")
    assert writer.lost >= 10
    theirs.execute("rollback")
    theirs.close()
    await writer.submit(add, "after")
    kept = words(path)
    assert kept[-1] == "after"
    assert kept[:-1] == [f"w{i}" for i in range(len(kept) - 1)]
    assert len(kept) - 1 + writer.lost == 20
    writer.close()


async def test_a_lock_that_cannot_be_had_is_told_and_does_not_end_the_writer(db, path):
    class Broken(NoTurns):
        broken = True

        def acquire(self):
            if self.broken:
                raise OSError("no locks available")

    turn = Broken()
    writer = WriterThread(db, turn, "test.db", SYSTEM, WriterOptions(linger_s=0.01, retry_s=0.01))
    writer.later(add, "a")
    with pytest.raises(StoreUnavailable, match="no locks available"):
        await writer.submit(add, "refused")
    turn.broken = False
    for _ in range(100):  # the writer may be at its last vain try just now
        with contextlib.suppress(StoreUnavailable):
            await writer.submit(add, "b")
            break
    assert words(path) == ["a", "b"]
    writer.close()


async def test_after_closing_nothing_is_taken(writer):
    writer.later(add, "a")
    writer.close()
    with pytest.raises(StoreUnavailable):
        await writer.submit(add, "b")
    writer.later(add, "c")
    assert writer.lost == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=40))
def test_a_batch_comes_to_what_its_pieces_would_one_after_the_other(pieces):
    """Group commit is invisible: the same words are taken, and refused, as without it."""

    async def run(make):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.db"
            db = open_db(path)
            writer = make(db)
            waiting = []
            for word, soon in pieces:
                if soon:
                    writer.later(add, word)
                else:
                    waiting.append(writer.submit(add, word))
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            lost = (writer.close(), writer.lost)[1]
            db.close()
            return [isinstance(answer, StoreUnavailable) for answer in answers], lost, words(path)

    options = WriterOptions(linger_s=0.001, batch=7)
    grouped = asyncio.run(run(lambda db: WriterThread(db, NoTurns(), "test.db", SYSTEM, options)))
    single = asyncio.run(run(lambda db: InlineWriter(db, threading.Lock())))
    assert grouped == single
