"""Several processes on one PostgreSQL store, and processes that are killed: real ones, with SIGKILL."""

from __future__ import annotations

import contextlib
import signal

import pytest
from test_sqlite_processes import lines, report, worker

from interlock.journal.store import ClaimState
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore

pytestmark = pytest.mark.process


@pytest.fixture
def store(pg_url):
    store = PostgresStore(pg_url, replay="plaintext", environ={})
    yield store
    store.close()


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(pg_server, pg_url, store):
    """The worker prints what was acknowledged to it; whatever was printed must be in the store."""
    acknowledged = {}
    for round_ in range(3):
        with worker("claim-for-ever", pg_url, f"run-{round_}", 32) as process:
            for what, key in lines(process, 300 + 97 * round_):
                acknowledged.setdefault(key, set()).add(what)
            process.send_signal(signal.SIGKILL)
            # What is still in the pipe was acknowledged too.
            for line in process.stdout.read().splitlines():
                with contextlib.suppress(ValueError):
                    what, key = line.split()
                    if len(key) == 48:
                        acknowledged.setdefault(key, set()).add(what)
    await store.flush()
    rows = pg_server.execute(f"select key, state from {parse_address(pg_url).schema}.journal")
    states = {key.hex(): state for key, state in rows}
    assert len(acknowledged) > 500
    assert not acknowledged.keys() - states.keys()
    assert not {key for key, what in acknowledged.items() if "settled" in what and states[key] != "done"}


async def test_processes_work_side_by_side(pg_url, store):
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker("claim", pg_url, f"run-{i}", 16, 0.5)) for i in range(2)]
        reports = [report(process) for process in workers]
    for i, one in enumerate(reports):
        claims = await store.claims_of(f"run-{i}")
        assert len(claims) == one["claims"] > 0
        assert {claim.state for claim in claims} == {ClaimState.DONE}


async def test_one_request_submitted_by_several_processes_is_one_run(pg_url, store):
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker("begin", pg_url, f"p{i}", 16)) for i in range(4)]
        reports = [report(process) for process in workers]
    assert sum(one["fresh"] for one in reports) == 1
    assert len({run_id for one in reports for run_id in one["runs"]}) == 1


async def test_a_run_begun_soon_is_kept_when_the_process_ends_without_closing(pg_url, store):
    """The interpreter's exit writes what is queued: a script need not close its gate."""
    with worker("exit", pg_url) as process:
        report(process)
    assert [row.state for row in await store.runs()] == ["ended"]
