"""`interlock chaos record`: a run of a real store becomes a task that ends as it did; its content stays where it is."""

import asyncio
import json

import pytest
import yaml

import interlock
from interlock.chaos.recording import recorded
from interlock.chaos.suite import load_suite
from interlock.chaos.trying import try_task
from interlock.cli.app import main
from interlock.journal.store import RunState

SECRET = "hunter2-is-the-word"


class Scene:
    """Production: a gate on a file, and a remote that fails as `fails` says (tool to errors, in order)."""

    def __init__(self, place, **config):
        self.url = f"sqlite:///{place}/interlock.db"
        self.fails = {}
        self.effects = []
        self.gate = interlock.Interlock(
            {"tools": {"allow": ["*"], "retries": {"backoff_ms": [0]}}, "logging": {"level": "error"}, **config},
            store=self.url,
        )
        for name, effect, words in (
            ("note.read", "read", {}),
            ("note.send", "write", {}),
            ("invoice.send", "write", {"on_unknown": "stop", "allow": True}),
        ):
            self.tool(name, effect, words)

    def tool(self, name, effect, words):
        async def keyed(text: str, *, idempotency_key: str) -> dict:
            return self.answer(name, text)

        async def plain(text: str) -> dict:
            return self.answer(name, text)

        self.gate.tool(name, effect=effect, **words)(keyed if name == "note.send" else plain)

    def answer(self, name, text):
        left = self.fails.get(name)
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        self.effects.append(name)
        return {"text": f"{name}: {text}"}

    async def agent(self, run, task):
        done = 0
        for name in task["do"]:
            seen = await run.observe(name, {"text": f"{task['say']} {done}"})
            if seen.error is not None:
                raise seen.error
            done += 1
            await asyncio.sleep(0)
        return {"done": done}

    def produce(self, *names, **fails):
        self.fails = {name.replace("_", "."): list(errors) for name, errors in fails.items()}
        task = {"do": list(names), "say": SECRET, "password": SECRET}
        result = self.gate.run_sync(self.agent, task, tenant_id="acme-secret", request_id="req-secret")
        self.gate.close()
        return result


@pytest.fixture
def record(capsys, tmp_path):
    """Return a function that types `interlock chaos record`, and returns the exit code and what was printed."""

    def type_in(*words, store):
        with pytest.raises(SystemExit) as ended:
            main(["chaos", "record", *words, "--store", store])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return type_in


STORIES = {
    "a write whose answer was lost, sent again": (
        ["note.read", "note.send"], {"note_send": [TimeoutError(), None]},
        [{"kind": "answer_lost", "tool": "note.send", "calls": [1], "attempts": [1]}],
        {"note.send": 1},
    ),
    "a write whose outcome nobody knows": (
        ["invoice.send"], {"invoice_send": [ConnectionResetError()]},
        [{"kind": "answer_lost", "tool": "invoice.send", "calls": [1], "attempts": [1]}],
        {"invoice.send": 1},
    ),
    "a write that was never sent": (
        ["note.send", "note.send"], {"note_send": [None, *[ConnectionRefusedError()] * 3]},
        [{"kind": "connect_refused", "tool": "note.send", "calls": [2], "attempts": [n]} for n in (1, 2, 3)],
        {"note.send": 1},
    ),
    "a read that never answered": (
        ["note.read", "note.read"], {"note_read": [None, *[TimeoutError()] * 3]},
        [{"kind": "timeout", "tool": "note.read", "calls": [2]}],
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_a_recorded_run_is_a_task_that_ends_as_it_did(story, tmp_path, record):
    names, fails, faults, effects = STORIES[story]
    scene = Scene(tmp_path)
    result = scene.produce(*names, **fails)
    code, text, notes = record(result.run_id, "--content", store=scene.url)
    assert code == 0, notes
    (task,) = yaml.safe_load(text)["tasks"]
    assert task["faults"] == faults
    assert task["expect"] == {"reasons": [result.reason], **({"effects": effects} if effects else {})}
    file = tmp_path / "task.yaml"
    file.write_text(text)
    suite = load_suite(file)
    scene.fails = {}
    outcome = try_task(scene.agent, scene.gate, suite, suite.tasks[0])
    assert outcome.verdict == "passed", outcome.why
    assert outcome.baseline == "success"


def test_without_the_faults_the_task_fails(tmp_path, record):
    scene = Scene(tmp_path)
    result = scene.produce("invoice.send", invoice_send=[ConnectionResetError()])
    _, text, _ = record(result.run_id, "--content", store=scene.url)
    suite = yaml.safe_load(text)
    del suite["tasks"][0]["faults"]
    suite = load_suite(suite)
    assert try_task(scene.agent, scene.gate, suite, suite.tasks[0]).verdict == "failed"


def test_content_stays_in_the_store_unless_it_is_asked_for(tmp_path, record):
    scene = Scene(tmp_path)
    result = scene.produce("note.send", "note.read", note_send=[TimeoutError(SECRET), None])
    for words in ([], ["--json"]):
        _, text, notes = record(result.run_id, *words, store=scene.url)
        assert "secret" not in text + notes
        assert SECRET not in text + notes
        assert "input" not in (json.loads(text) if words else yaml.safe_load(text))["tasks"][0]
    _, text, _ = record(result.run_id, "--content", store=scene.url)
    (task,) = yaml.safe_load(text)["tasks"]
    assert task["input"]["say"] == SECRET
    assert task["input"]["password"] != SECRET, "what redaction names is hidden also where content is asked for"
    assert "acme-secret" not in text
    assert "req-secret" not in text


def test_content_that_was_not_kept_is_said(tmp_path, record):
    scene = Scene(tmp_path, replay="off")
    result = scene.produce("note.read")
    code, text, notes = record(result.run_id, "--content", store=scene.url)
    assert code == 0
    assert "has not kept" in notes
    assert "No call of it failed" in text
    assert "input" not in yaml.safe_load(text)["tasks"][0]


def test_what_cannot_be_recorded_is_said(tmp_path, record):
    scene = Scene(tmp_path)

    async def parent(run, task):
        async with run.child("helper") as child:
            await child.call("note.read", {"text": "x"})
            return child.run_id

    result = scene.gate.run_sync(parent, "x")
    scene.gate.close()
    code, _, said = record(result.output, store=scene.url)
    assert (code, f"is a part of {result.run_id}" in said) == (1, True)
    code, _, said = record("run_nobody", store=scene.url)
    assert (code, "no run has the id" in said) == (1, True)


class Row:
    """A run that ended for a reason that takes long to bring about."""

    run_id, agent, path, state, record = "run_1", "a", "", RunState.ENDED, None

    def __init__(self, reason):
        self.reason = reason


def call(seq, tool="note.read", **words):
    return {"seq": seq, "step": seq - 1, "tool": tool, "attempts": 1, "status": "success", "args_hash": "a", **words}


@pytest.mark.parametrize(
    ("reason", "calls", "faults"),
    [
        ("killed", [call(1), call(2, "b"), call(3)], ["kill_switch", "latency"]),
        ("store_unavailable", [call(1)], ["store_unavailable"]),
        ("loop_detected", [call(1), call(2), call(3)], ["model_repeats"]),
        ("tool_rate_limit", [call(1, reason="tool_rate_limit", status="error")], ["http"]),
        ("success", [call(1, attempts=3)], ["http"]),
        ("success", [call(1, attempts=0, status="denied", reason="tool_denied")], []),
    ],
)
def test_what_ended_a_run_is_a_fault(reason, calls, faults):
    (task,) = recorded(Row(reason), calls, []).suite["tasks"]
    assert [fault["kind"] for fault in task.get("faults", [])] == faults
    numbers = {fault["kind"]: fault.get("calls") for fault in task.get("faults", [])}
    if reason == "killed":
        assert numbers["kill_switch"] == [2], "the second of its tool"
    if reason == "loop_detected":
        assert numbers["model_repeats"] == [2, 3]
    assert task["expect"]["reasons"] == [reason]
