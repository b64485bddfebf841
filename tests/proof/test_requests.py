"""One effect an intent where nobody helps: a worker stopped at the worst instant, a queue that delivers twice, a person.

The same processes as in `tests/supervisor/test_processes.py`, which has more of their stories.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_processes import CEILING_S, Place, is_stopped, outcomes

from interlock.journal.store import RunState

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

HERE = Path(__file__).parent


@pytest.fixture
def place(tmp_path, store_url, monkeypatch):
    monkeypatch.setenv("INTERLOCK_KEY", "5e" * 32)
    with contextlib.ExitStack() as stack:
        yield Place(tmp_path, stack, store_url)


@pytest.mark.parametrize(
    ("kind", "effects"), [("resend", ["a one", "a two"]), ("stop", ["a one"]), ("lookup", ["a one", "a two", "a one"])]
)
def test_a_worker_stopped_between_its_last_look_at_the_lease_and_the_send(place, kind, effects):
    """The one instant that no check of ours can cover. What the other worker may do is up to the tool.

    `resend` is deduplicated by the remote, `stop` is left to a person. A look-up says "no", which was true: `lookup`
    makes a second effect, and docs/runs.md says so.
    """
    task = {"name": "a", "kind": kind, "sending": "SIGSTOP"}
    sleeper = place.run(task)
    place.until(lambda: is_stopped(sleeper))
    [[run_id, reason, _]] = outcomes(place.run(task))
    assert reason == ("outcome_unknown" if kind == "stop" else "success")
    assert place.effects() == ([] if kind == "stop" else ["a one", "a two"])
    sleeper.send_signal(signal.SIGCONT)
    [[again, _, _]] = outcomes(sleeper)
    assert again == run_id
    # The sleeper's late result closes the doubt of `stop`, so that its run goes on.
    assert place.effects() == (["a one", "a two"] if kind == "stop" else effects)


@pytest.mark.parametrize("new_store", ["sqlite"], indirect=True)
async def test_a_doubt_is_listed_settled_and_lets_its_run_go_on_all_from_the_command_line(place):
    task = {"name": "a", "kind": "stop", "sent": "SIGKILL"}
    words = ["submit", "agent", json.dumps(task), "--request-id", "q1", "--tenant", "acme"]
    run_id = typed(place, *words).strip()
    assert typed(place, *words).strip() == run_id
    first = place.worker()
    assert first.wait(CEILING_S) == -signal.SIGKILL
    second = place.worker("--per-tenant", 1)
    await comes_to(place, run_id, RunState.PARKED)
    (doubt,) = json.loads(typed(place, "doubts", "--json"))
    said = {name: doubt[name] for name in ("tool", "tenant_id", "run_id", "request_id", "on_unknown")}
    assert said == {"tool": "stop", "tenant_id": "acme", "run_id": run_id, "request_id": "q1", "on_unknown": "stop"}
    assert doubt["sent_key"] in doubt["needs"]
    assert doubt["age_s"] > 0
    listed = typed(place, "doubts")
    for fact in (doubt["sent_key"], "acme", run_id, doubt["key"], "--not-performed"):
        assert fact in listed
    typed(place, "settle", doubt["key"], "--done", '"one"', "--by", "ana", "--reason", "found at the remote")
    await comes_to(place, run_id, RunState.ENDED)
    shown = json.loads(typed(place, "show", run_id, "--json"))
    assert shown["stop_reason"] == "success"
    attempts = shown["attempted"]
    assert [(attempt["fence"], attempt["ended_as"]) for attempt in attempts] == [
        (1, "lease_lost"),
        (2, "outcome_unknown"),
        (3, "success"),
    ]
    assert all(attempt["owner"] and attempt["started_at"] <= attempt["ended_at"] for attempt in attempts)
    (claim,) = [claim for claim in shown["claims"] if claim["settled_by"] == "ana"]
    assert (claim["state"], claim["settle_reason"]) == ("done", "found at the remote")
    assert place.effects() == ["a one", "a two"]
    assert json.loads(typed(place, "doubts", "--json")) == []
    second.send_signal(signal.SIGTERM)
    assert second.wait(CEILING_S) == 0


def test_in_a_celery_queue_that_delivers_every_message_twice_each_effect_happens_once(place):
    """Celery itself, its messages in a folder: two workers, each message twice, often to both at a time."""
    pytest.importorskip("celery")
    (place.folder / "queue").mkdir()
    place.environ["QUEUE"] = str(place.folder)
    for _ in range(2):
        place.start(HERE / "celery_queue.py", "work")
    names = [f"m{n}" for n in range(6)]
    kinds = ("stop", "resend", "lookup")
    messages = [{"id": name, "name": name, "kind": kinds[n % 3]} for n, name in enumerate(names)]
    sender = place.start(HERE / "celery_queue.py", "send", json.dumps(messages + messages[::-1]))
    assert sender.wait(CEILING_S) == 0

    def delivered():
        path = place.folder / "delivered"
        return path.read_text().splitlines() if path.exists() else []

    place.until(lambda: len(delivered()) == 2 * len(names))
    assert sorted(delivered()) == sorted(2 * [f"{name} success done" for name in names])
    assert sorted(place.effects()) == sorted(f"{name} {word}" for name in names for word in ("one", "two"))


def typed(place, *words):
    """Type `interlock …` in a process of its own, and return what it printed."""
    command = [sys.executable, "-c", "from interlock.cli.app import main; main()", *map(str, words)]
    done = subprocess.run(
        [*command, "--store", place.url],
        env=place.environ,
        capture_output=True,
        text=True,
        timeout=CEILING_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def comes_to(place, run_id, state):
    async with place.gate() as gate, asyncio.timeout(CEILING_S):
        while (await gate.house().store.run(run_id)).state is not state:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
