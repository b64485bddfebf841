"""Whatever shares a statement comes to what its pieces come to one after the other."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.clock import ManualClock
from interlock.journal.store import ClaimState, Intent, Refused, Settlement
from interlock.stores import calls, claims
from interlock.stores.batch import aside, carry_out
from interlock.stores.database import connect, migrate
from interlock.stores.seal import Replay, Seal

SEAL = Seal(Replay.PLAINTEXT)
# More than a shared statement takes at least, few enough that pieces meet.
KEYS = [n.to_bytes(24, "big") for n in range(1, 41)]
RUNS = ("run_1", "run_2", "gone")


def journal():
    db = connect(":memory:", patience_s=1.0)
    migrate(db, ":memory:")
    for run_id in RUNS[:2]:
        db.execute(
            "insert into runs (run_id, tenant_id, request_id, root_run_id, path, agent, request_time_ms, state, fence,"
            " attempts, started_at) values (?, 't', ?, ?, '', 'a', 0, 'running', 1, 1, 0)",
            (run_id, run_id, run_id),
        )
    return db


@pytest.fixture
def db():
    with closing(journal()) as db:
        yield db


def claim(clock, key, run_id="run_1", tool="ticket.create", *, observing=False):
    intent = Intent(key, "t", "q", run_id, "", "a", tool, key[8:], 1, "resend", "il1", 1, 1, 1, None, observing, b"{}")
    return claims.claim, (claims.claim_params(intent, "me", SEAL), clock, None, observing), None


def settle(key, state=ClaimState.DONE, fence=None):
    said = Settlement(state, b'{"ok":true}', evidence=({"kind": str(state)},), fence=fence)
    return claims.settle, (claims.settle_params(said, key, 5.0, SEAL),), None


def kill(tool):
    def work(db):
        db.execute("insert or replace into switches values ('tool', ?, 'kill', 'why', 'who', 0, null)", (tool,))

    return work, (), None


def trace(run_id, entry, fence=1):
    return calls.insert, ([(run_id, entry, fence)],), None


def fence_off(run_id):
    return lambda db: db.execute("update runs set fence = 2 where run_id = ?", (run_id,)).rowcount, (), None


@aside
def note(db):
    return "noted"


def one_by_one(db, items):
    outcomes = []
    for work, args, _ in items:
        try:
            outcomes.append(work(db, *args))
        except Refused as refusal:
            outcomes.append(refusal)
    return outcomes


def told(outcomes):
    return [(type(one), str(one)) if isinstance(one, Refused) else one for one in outcomes]


def rows(db):
    columns = [row[1] for row in db.execute("pragma table_info(journal)") if row[1] != "id"]
    parts = db.execute("select run_id, entry from calls order by id").fetchall()
    return sorted(db.execute(f"select {', '.join(columns)} from journal").fetchall(), key=repr), parts


def works(clock):
    keys = st.sampled_from(KEYS)
    return st.one_of(
        keys.map(lambda key: claim(clock, key)),
        st.builds(
            lambda key, run_id, tool, observing: claim(clock, key, run_id, tool, observing=observing),
            keys,
            st.sampled_from(RUNS),
            st.sampled_from(("ticket.create", "refund.create")),
            st.booleans(),
        ),
        keys.map(settle),
        st.builds(settle, keys, st.sampled_from(list(ClaimState)[1:]), st.sampled_from((None, 1, 2))),
        st.just((note, (), None)),
        st.sampled_from(("ticket.create", "refund.create")).map(kill),
        st.builds(trace, st.sampled_from(RUNS), st.binary(max_size=2), st.sampled_from((1, 2))),
        st.sampled_from(RUNS).map(fence_off),
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_batch_comes_to_what_its_pieces_come_to_one_by_one(data):
    clock = ManualClock()
    batches = data.draw(st.lists(st.lists(works(clock), max_size=60), min_size=1, max_size=3))
    with closing(journal()) as shared, closing(journal()) as alone:
        for items in batches:
            for db in (shared, alone):
                db.execute("begin")
            assert told(carry_out(shared, items)) == told(one_by_one(alone, items))
            for db in (shared, alone):
                db.execute("commit")
            assert rows(shared) == rows(alone)


@pytest.mark.parametrize("count", [1, 7, 8, 40])
def test_all_of_many_are_written_and_closed(db, count):
    clock = ManualClock()
    for items, outcome in (
        ([claim(clock, key) for key in KEYS[:count]], None),
        ([settle(key) for key in KEYS[:count]], True),
    ):
        db.execute("begin")
        assert carry_out(db, items) == [outcome] * count
        db.execute("commit")
    assert db.execute("select count(*) from journal where state = 'done'").fetchone() == (count,)


def test_many_share_statements(db):
    clock = ManualClock()
    said = []
    db.execute("begin")
    db.set_trace_callback(said.append)
    carry_out(db, [claim(clock, key) for key in KEYS] + [(note, (), None)])
    assert sum(text.lstrip().startswith("insert into journal") for text in said) == 2


def test_traces_of_many_runs_share_statements_and_one_that_was_taken_over_is_left_out(db):
    said = []
    db.execute("begin")
    db.set_trace_callback(said.append)
    pieces = [trace(RUNS[n % 3], b"[%d]" % n, fence=1 + n // 38) for n in range(40)]
    carry_out(db, [*pieces[:39], (note, (), None), pieces[39]])
    assert sum(text.lstrip().startswith("insert into calls") for text in said) == 2
    kept = db.execute("select entry from calls order by id").fetchall()
    assert [entry for (entry,) in kept] == [b"[%d]" % n for n in range(38) if n % 3 < 2]


def test_one_that_cannot_be_done_spoils_nothing_of_the_others(db):
    clock = ManualClock()
    items = [claim(clock, key) for key in KEYS[:20]]
    items[7] = claim(clock, KEYS[7], "gone")
    db.execute("begin")
    outcomes = carry_out(db, items)
    assert [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Refused)] == [7]
    assert db.execute("select count(*) from journal").fetchone() == (19,)


def test_an_error_of_the_database_is_the_callers(db):
    clock = ManualClock()
    db.execute("drop table journal")
    db.execute("begin")
    with pytest.raises(sqlite3.OperationalError):
        carry_out(db, [claim(clock, key) for key in KEYS])


def test_what_is_claimed_and_closed_in_one_batch_keeps_its_order(db):
    clock = ManualClock()
    db.execute("begin")
    outcomes = carry_out(db, [claim(clock, key) for key in KEYS[:10]] + [settle(key) for key in KEYS[:10]])
    assert outcomes == [None] * 10 + [True] * 10
