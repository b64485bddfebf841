"""Several processes on one file, and processes that are killed: real ones, with SIGKILL and SIGSTOP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from scenes import DONE, Scene, new_run

from interlock.core.clock import SYSTEM
from interlock.core.errors import StoreUnavailable
from interlock.journal.store import ClaimState
from interlock.stores.owner import is_alive, this_process
from interlock.stores.sqlite import SqliteStore
from interlock.stores.writer import WriterOptions

pytestmark = pytest.mark.process

WORKER = Path(__file__).with_name("worker.py")


@contextlib.contextmanager
def worker(*args):
    process = subprocess.Popen(
        [sys.executable, WORKER, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def report(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def lines(process, count):
    return [process.stdout.readline().split() for _ in range(count)]


def test_processes_may_make_and_close_the_same_files_at_the_same_moment(tmp_path):
    """SQLite does not wait for one that changes the journal mode, or takes the log away."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(worker("open-each", tmp_path, 60)) for _ in range(4)]
        assert [report(process) for process in processes] == [[]] * 4


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(path):
    """The worker prints what was acknowledged to it; whatever was printed must be in the file."""
    acknowledged = {}
    for round_ in range(6):
        with worker("claim-for-ever", path, f"run-{round_}", 32) as process:
            for what, key in lines(process, 300 + 97 * round_):
                acknowledged.setdefault(key, set()).add(what)
            process.send_signal(signal.SIGKILL)
            # What is still in the pipe was acknowledged too.
            for line in process.stdout.read().splitlines():
                with contextlib.suppress(ValueError):
                    what, key = line.split()
                    if len(key) == 48:
                        acknowledged.setdefault(key, set()).add(what)
    db = sqlite3.connect(path)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    states = {key.hex(): state for key, state in db.execute("select key, state from journal")}
    db.close()
    assert len(acknowledged) > 1500
    assert not acknowledged.keys() - states.keys()
    wrong = {key for key, what in acknowledged.items() if "settled" in what and states[key] != "done"}
    assert not wrong


async def test_what_a_killed_worker_left_open_is_a_doubt_for_the_others(path):
    store = SqliteStore(path, environ={})
    with worker("claim-one", path, "run-1") as process:
        ((_, key),) = lines(process, 1)
        assert (await store.find(bytes.fromhex(key))).state is ClaimState.INTENT
        assert await store.doubts() == []
        process.kill()
        process.wait()
        assert [claim.key.hex() for claim in await store.doubts()] == [key]
    store.close()


async def test_processes_take_turns(path):
    """Nobody starves: no caller of any process waits out of proportion."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker("claim", path, f"run-{i}", 16, 1.0, "together")) for i in range(3)]
        assert [lines(process, 1) for process in workers] == [[["ready"]]] * 3
        for process in workers:
            process.stdin.write("go\n")
            process.stdin.flush()
        reports = [report(process) for process in workers]
    counts = [one["claims"] for one in reports]
    assert min(counts) > 0.1 * max(counts)  # a busy machine shares out its processors, too
    store = SqliteStore(path, environ={})
    for i, one in enumerate(reports):
        claims = await store.claims_of(f"run-{i}")
        assert len(claims) == one["claims"]
        assert {claim.state for claim in claims} == {ClaimState.DONE}
    store.close()


async def test_one_request_submitted_by_several_processes_is_one_run(path):
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker("begin", path, f"p{i}", 16)) for i in range(3)]
        reports = [report(process) for process in workers]
    assert sum(one["fresh"] for one in reports) == 1
    assert len({run_id for one in reports for run_id in one["runs"]}) == 1


async def test_processes_that_open_a_new_file_at_once_agree_on_its_secret_and_key(path):
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker("open", path)) for _ in range(4)]
        reports = [report(process) for process in workers]
    assert len({one["secret"] for one in reports}) == 1
    assert len(list(path.parent.glob("interlock.key*"))) == 1
    store = SqliteStore(path, environ={})
    assert [(await store.run(one["run_id"])).output for one in reports] == [b'"sealed"'] * 4
    store.close()


class TestHolder:
    """Another process holds the lock of the writers."""

    OPTIONS = WriterOptions(patience_s=0.4, linger_s=0.01)

    @pytest.fixture
    async def scene(self, path, clock):
        store = SqliteStore(path, environ={}, options=self.OPTIONS)
        scene = Scene(store, clock)
        await scene.begin()
        await scene.claim("before")
        yield scene
        store.close()

    async def test_a_stopped_holder_makes_writers_wait_visibly_and_readers_not_at_all(self, path, scene):
        with worker("hold", path) as process:
            lines(process, 1)
            process.send_signal(signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(StoreUnavailable, match=r"no answer for 0\.4 s"):
                await scene.claim("refused")
            assert loop.time() - began < 5.0
            scene.store.settle_soon(scene.key("before"), DONE)
            assert (await scene.find("before")).state is ClaimState.INTENT
            with pytest.raises(StoreUnavailable):
                await scene.store.switches.set("global", "", "kill", reason="fire", actor="ada")
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        assert await scene.claim("after") is None
        assert (await scene.find("before")).state is ClaimState.DONE
        # What its caller was told had failed did not happen behind his back.
        assert await scene.find("refused") is None
        assert (await scene.store.switches.read()).switches == ()

    async def test_when_a_stopped_holder_is_gone_the_owner_keeps_its_run_though_its_lease_ran_out(self, path):
        """While nobody could write nobody could renew: who asks for the run does not profit from that."""
        ttl_s, patient = 0.5, WriterOptions(patience_s=60.0)
        owner = SqliteStore(path, environ={}, options=patient, lease_ttl_s=ttl_s)
        other = SqliteStore(path, environ={}, options=patient, lease_ttl_s=ttl_s)
        asked_s = SYSTEM.boot()
        begun = await owner.begin(new_run())
        with worker("hold", path) as process:
            lines(process, 1)
            process.send_signal(signal.SIGSTOP)
            # Begins to wait for its turn at once, and in earnest: whatever comes of it comes after the release.
            lease = owner.leases.hold("r1", begun.row.fence, asked_s)
            taking = asyncio.ensure_future(other.begin(new_run("r2"), resume=True))
            await asyncio.sleep(0)
            waited_s = SYSTEM.boot()
            while (await other.run("r1")).lease_left_s > 0 or SYSTEM.boot() - waited_s < 3 * ttl_s:
                await SYSTEM.sleep(0.05)
            assert not taking.done()
            process.kill()
            process.wait()
        taken = await taking
        assert not taken.fresh
        while lease.until_s <= SYSTEM.boot():
            await SYSTEM.sleep(0.01)
        assert not lease.lost
        row = await other.run("r1")
        assert (row.fence, row.attempts) == (1, 1)
        owner.close()
        other.close()

    async def test_a_holder_that_dies_lets_go(self, path, scene):
        with worker("hold", path) as process:
            lines(process, 1)
            claim = asyncio.ensure_future(scene.claim())
            await asyncio.sleep(0)
            process.send_signal(signal.SIGKILL)
            assert await claim is None

    async def test_closing_does_not_wait_for_ever(self, path, scene):
        with worker("hold", path) as process:
            lines(process, 1)
            scene.store.settle_soon(scene.key("before"), DONE)
            await asyncio.to_thread(scene.store.close)


class TestOwner:
    def test_we_are_alive(self):
        assert is_alive(this_process())

    def test_a_dead_process_is_not(self):
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            process.wait()
        assert not is_alive(this_process().replace(f":{this_process().split(':')[1]}:", f":{process.pid}:"))

    @pytest.mark.parametrize("name", ["", "x", "boot:notanumber:1", ":1:0", "other-boot:1:1", ":-1:"])
    def test_names_of_other_boots_or_of_nobody_are_dead(self, name):
        assert not is_alive(name)

    def test_a_number_used_again_is_another_process(self):
        boot, pid, started = this_process().split(":")
        assert not is_alive(f"{boot}:{pid}:{int(started) - 1}")


def test_a_run_begun_soon_is_kept_when_the_process_ends_without_closing(path):
    """The interpreter's exit writes what is queued: a script need not close its gate."""
    with worker("exit", path) as process:
        report(process)
    db = sqlite3.connect(path)
    assert db.execute("select state from runs").fetchall() == [("ended",)]
    db.close()
    assert new_run().run_id
