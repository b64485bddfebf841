"""Workers that are killed, stopped and outnumbered: real processes, and effects counted where they happen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pg_server import Server

import interlock
from interlock.journal.store import RunState

pytestmark = pytest.mark.process

HERE = Path(__file__).parent
COMMAND = "from interlock.cli.app import main; main()"
CEILING_S = 60.0


class Place:
    """A store and a world, and the processes between them."""

    def __init__(self, folder, stack, url):
        self.folder = folder
        self.stack = stack
        self.url = url
        self.environ = {**os.environ, "STORE": self.url, "WORLD": str(folder), "PYTHONPATH": str(HERE)}

    def start(self, *command):
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.stack.callback(process.communicate)
        self.stack.callback(process.kill)
        return process

    def run(self, task, request_id="q1", callers=1):
        return self.start(HERE / "process_agent.py", request_id, json.dumps(task), callers)

    def worker(self, *words):
        return self.start("-c", COMMAND, "worker", "--agent", "process_agent:agent", *words)

    def effects(self):
        """Return the effects of the world: what was done for which run, without the keys."""
        path = self.folder / "effects"
        lines = path.read_text().splitlines() if path.exists() else []
        return [" ".join(line.split()[:2]) for line in lines]

    def until(self, condition):
        ceiling = time.monotonic() + CEILING_S
        while not condition():
            assert time.monotonic() < ceiling, self.effects()
            time.sleep(0.01)

    def gate(self):
        return interlock.Interlock({"lease_ttl_s": 0.5}, store=self.url)


@pytest.fixture(scope="module")
def pg_server():
    server = Server()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path, monkeypatch):
    """On one machine and its file, or as on many, with a server between them."""
    monkeypatch.setenv("INTERLOCK_KEY", "5e" * 32)
    url = f"sqlite:///{tmp_path / 'i.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("pg_server").new_url()
    with contextlib.ExitStack() as stack:
        yield Place(tmp_path, stack, url)


def outcomes(process):
    out, _ = process.communicate(timeout=CEILING_S)
    return json.loads(out)


def is_stopped(process):
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


async def test_runs_of_a_killed_worker_are_taken_over_by_another(place):
    names = [f"run{n}" for n in range(6)]
    async with place.gate() as gate:
        ids = [
            await gate.submit(
                "agent", {"name": name, "kind": "resend", "waits": True, "reworded": True}, request_id=name
            )
            for name in names
        ]
        first = place.worker("--concurrency", 6)
        place.until(lambda: sorted(place.effects()) == [f"{name} one" for name in names])
        first.send_signal(signal.SIGKILL)
        first.wait()
        (place.folder / "go").touch()
        place.worker("--concurrency", 6)
        store = gate.house().store
        for run_id in ids:
            ceiling = time.monotonic() + CEILING_S
            while (row := await store.run(run_id)).state is not RunState.ENDED:
                assert time.monotonic() < ceiling
                time.sleep(0.01)  # noqa: ASYNC251 - nothing else runs here
            assert (row.reason, row.attempts) == ("success", 2)
            attempts = await store.leases.attempts_of(run_id)
            assert [(attempt.fence, attempt.ended_as) for attempt in attempts] == [(1, "lease_lost"), (2, "success")]
            assert attempts[0].owner != attempts[1].owner
            assert attempts[0].ended_at <= attempts[1].started_at
    assert sorted(place.effects()) == sorted(f"{name} {word}" for name in names for word in ("one", "two"))


@pytest.mark.parametrize("crash", ["asked", "sending", "sent", "called", "asking", "ending"])
def test_a_request_redelivered_after_a_crash_has_each_effect_once(place, crash):
    task = {"name": "a", "kind": "resend", "reworded": True, crash: "SIGKILL"}
    assert place.run(task).wait(CEILING_S) == -signal.SIGKILL
    [[_, reason, output]] = outcomes(place.run(task))
    assert (reason, output) == ("success", "done")
    assert place.effects() == ["a one", "a two"]


@pytest.mark.parametrize(("crash", "done"), [("sending", []), ("sent", ["a one"])])
def test_a_write_that_may_not_be_sent_again_is_not_sent_again_after_a_crash(place, crash, done):
    task = {"name": "a", "kind": "stop", crash: "SIGKILL"}
    assert place.run(task).wait(CEILING_S) == -signal.SIGKILL
    [[_, reason, _]] = outcomes(place.run(task))
    assert reason == "outcome_unknown"
    assert place.effects() == done


@pytest.mark.parametrize("kind", ["stop", "resend"])
def test_a_worker_that_slept_longer_than_its_lease_sends_nothing_more(place, kind):
    task = {"name": "a", "kind": kind, "called": "SIGSTOP"}
    sleeper = place.run(task)
    place.until(lambda: is_stopped(sleeper))
    [[run_id, reason, output]] = outcomes(place.run(task))
    assert (reason, output, place.effects()) == ("success", "done", ["a one", "a two"])
    sleeper.send_signal(signal.SIGCONT)
    assert outcomes(sleeper) == [[run_id, "success", "done"]]
    assert place.effects() == ["a one", "a two"]


@pytest.mark.parametrize(("kind", "reason"), [("stop", "outcome_unknown"), ("resend", "success")])
def test_a_write_under_way_in_a_worker_that_slept_happens_once(place, kind, reason):
    """Its late result is accepted: it closes the doubt with which the other worker has parked the run."""
    task = {"name": "a", "kind": kind, "sending": "SIGSTOP"}
    sleeper = place.run(task)
    place.until(lambda: is_stopped(sleeper))
    [[run_id, there, _]] = outcomes(place.run(task))
    assert there == reason
    sleeper.send_signal(signal.SIGCONT)
    assert outcomes(sleeper) == [[run_id, "success", "done"]]
    assert place.effects() == ["a one", "a two"]


def test_64_submissions_of_one_request_over_4_processes_are_one_run(place):
    task = {"name": "a", "kind": "stop"}
    processes = [place.run(task, callers=16) for _ in range(4)]
    results = [result for process in processes for result in outcomes(process)]
    assert len(results) == 64
    assert len({run_id for run_id, _, _ in results}) == 1
    assert {(reason, output) for _, reason, output in results} == {("success", "done")}
    assert place.effects() == ["a one", "a two"]


async def test_a_tool_that_blocks_for_three_leases_loses_none(place):
    task = {"name": "a", "kind": "stop", "blocks": True}
    processes = [place.run(task), place.run(task)]
    [[[run_id, _, output]], [[other, _, _]]] = [outcomes(process) for process in processes]
    assert (run_id, output) == (other, "done")
    async with place.gate() as gate:
        assert [a.ended_as for a in await gate.house().store.leases.attempts_of(run_id)] == ["success"]
    assert place.effects() == ["a one", "a two"]


async def test_a_worker_drains_when_it_is_asked_to(place):
    async with place.gate() as gate:
        worker = place.worker()
        run_id = await gate.submit("agent", {"name": "a", "kind": "resend", "waits": True})
        place.until(lambda: place.effects() == ["a one"])
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(CEILING_S) == 0
        row = await gate.house().store.run(run_id)
        assert (row.state, row.attempts) == (RunState.QUEUED, 0)
    assert place.effects() == ["a one"]
