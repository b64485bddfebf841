"""Faults of the wire in suites: a proxy before a real server, verdicts and effects counted at that server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import wired_agents

from interlock.chaos.faults import Fault, Kind
from interlock.chaos.in_tests import Chaos, ChaosFailed
from interlock.chaos.process import BackendProcess
from interlock.chaos.suite import faults_of, load_suite
from interlock.core.errors import ConfigError

HERE = Path(__file__).parent


@pytest.fixture
def backend():
    """`HOST:PORT` of a ticketing backend in a process of its own."""
    with BackendProcess(1, 0.0001) as url:
        yield url.removeprefix("http://")


def tried(tmp_path, backend, agent, tasks, **words):
    """The outcomes of a suite of these tasks."""
    file = tmp_path / "suite.yaml"
    servers = {"tickets": {"to": backend, "speaks": "http", "env": "TICKETS_URL"}}
    suite = {"clock": "real", "servers": servers, "probe": "wired_agents:effects", "tasks": tasks, **words}
    file.write_text(json.dumps(suite))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("interlock")), "chaos", "run", file, "--agent", f"wired_agents:{agent}", "--parallel", "1", "--json"],
        cwd=HERE, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "DIRECT_URL": f"http://{backend}"},
    )  # fmt: skip
    return json.loads(done.stdout)["tasks"], done


def task(name, *wire, expect, **words):
    return {"name": name, "input": name, "wire": list(wire), "expect": expect, **words}


@pytest.mark.process
def test_a_write_whose_answer_is_lost_on_the_wire_is_one_effect(tmp_path, backend):
    one = {"verdict": "success", "effects": {"ticket.create": 1}}
    lost = {"kind": "answer_lost", "calls": [1]}
    tasks = [
        task("lost", lost, expect=one, repetitions=2),
        task("lost_502", {**lost, "status": 502, "what": "POST *"}, expect=one),
        task("cut", {"kind": "reset_mid_body", "calls": [1, 2]}, expect=one),
        task("never_met", {"kind": "reset", "what": "DELETE *"}, expect="success"),
    ]
    outcomes, done = tried(tmp_path, backend, "creates", tasks)
    assert [each["verdict"] for each in outcomes] == ["passed", "passed", "passed", "not exercised"], done.stderr
    assert [each["baseline"] for each in outcomes] == ["success"] * 4
    assert [each["injected"] for each in outcomes[0]["repetitions"]] == [{"answer_lost": 1}] * 2
    assert outcomes[1]["repetitions"][0]["injected"] == {"answer_lost_502": 1}
    assert outcomes[2]["repetitions"][0]["requests"] == {"ticket.create": 3}


@pytest.mark.process
def test_a_write_that_cannot_be_sent_again_is_a_doubt_and_one_effect(tmp_path, backend):
    expect = {"reasons": ["outcome_unknown"], "effects": {"ticket.create": 1}}
    outcomes, done = tried(tmp_path, backend, "sends", [task("lost", {"kind": "answer_lost"}, expect=expect)])
    assert [each["verdict"] for each in outcomes] == ["passed"], done.stderr


@pytest.mark.process
def test_a_suite_of_the_wire_can_fail(tmp_path, backend):
    expect = {"effects": {"ticket.create": 0}}
    outcomes, done = tried(
        tmp_path, backend, "creates", [task("lost", {"kind": "answer_lost", "calls": [1]}, expect=expect)]
    )
    assert ([each["verdict"] for each in outcomes], done.returncode) == (["failed"], 1)


@pytest.mark.process
def test_a_server_that_is_away_is_an_error(tmp_path):
    outcomes, _ = tried(tmp_path, "127.0.0.1:1", "creates", [task("lost", {"kind": "reset"}, expect="any")])
    assert outcomes[0]["error"] == "servers.tickets: --to 127.0.0.1:1: cannot be reached: connection refused"


MODEL = "servers:\n  m: {to: '127.0.0.1:1', speaks: model, env: M}\n"
SERVERS = "servers:\n  tickets: {to: '127.0.0.1:1', speaks: http, env: URL}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "tasks:\n  - name: a\n    expect: any\n    wire: [{kind: reset}]\n",
            ":4: task a: wire: this suite names no servers",
        ),
        (SERVERS + "tasks:\n  - {name: a, expect: any, wire: [{kind: reset}]}\n", "say clock: real"),
        (
            SERVERS + "clock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: reset, server: tikets}]}\n",
            "no server is called tikets; did you mean tickets?",
        ),
        (
            SERVERS + "clock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: anwser_lost}]}\n",
            "did you mean answer_lost?",
        ),
        (
            SERVERS + "clock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: reset, cals: [1]}]}\n",
            ":5: tasks.0.wire.0.cals: unknown key; did you mean calls?",
        ),
        (
            SERVERS + "clock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: drip, status: 500}]}\n",
            "wire: drip: status means nothing here",
        ),
        (
            SERVERS.replace("http", "tcp") + "clock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: http}]}\n",
            "only HTTP has a status",
        ),
        (
            SERVERS.replace("speaks", "speeks") + "tasks:\n  - {name: a, expect: any}\n",
            ":2: servers.tickets.speeks: unknown key; did you mean speaks?",
        ),
        (
            SERVERS.replace("http", "smtp") + "tasks:\n  - {name: a, expect: any}\n",
            "servers.tickets.speaks: must be one of",
        ),
        (SERVERS.replace("URL", "'1 2'") + "tasks:\n  - {name: a, expect: any}\n", "servers.tickets.env"),
        (
            SERVERS
            + "  other: {to: '127.0.0.1:2', env: OTHER}\nclock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: reset}]}\n",
            "reset: say server: one of tickets, other",
        ),
        (
            SERVERS + "clock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: model_empty}]}\n",
            ":5: task a: wire: model_empty: only a model says such things: say that the server speaks model",
        ),
        (
            MODEL + "tasks:\n  - {name: a, expect: any, inject: model_slow_50%}\n",
            ":4: task a: inject: what passes on a",
        ),
        (
            MODEL + "  b: {to: 'b:1', speaks: model, env: B}\nclock: real\ntasks:\n"
            "  - name: a\n    expect: any\n    faults: [{kind: model_empty}]\n",
            ":8: task a: faults: model_empty: say under wire before which server: m, b",
        ),
        (
            MODEL + "clock: real\ntasks:\n  - {name: a, expect: any, faults: [{kind: model_empty, delay_s: 1}]}\n",
            "model_empty: delay_s means nothing here: it belongs to",
        ),
        (
            SERVERS
            + "clock: real\ntasks:\n  - {name: a, expect: any, wire: [{kind: reset}], faults: [{kind: worker_killed}]}\n",
            "worker processes connect by themselves",
        ),
    ],
)
def test_words_that_cannot_be_used(tmp_path, text, said):
    file = tmp_path / "suite.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_suite(file)
    assert said in str(caught.value)


def test_a_suite_of_the_wire_injects_something():
    suite = {"servers": {"s": {"to": "a:1", "env": "S"}}, "clock": "real"}
    wired = load_suite({**suite, "tasks": [{"name": "a", "expect": "any", "wire": [{"kind": "reset"}]}]})
    assert wired.warnings() == []
    assert wired.servers["s"].value("127.0.0.1:5") == "127.0.0.1:5"


def test_faults_of_the_model_stand_before_the_server_that_speaks_model():
    faults = [{"kind": "reset"}, {"kind": "model_rate_limited", "calls": [2], "retry_after_s": 3}]
    task = {
        "name": "a",
        "expect": "any",
        "inject": "model_slow_50%",
        "faults": faults,
        "wire": [{"kind": "drip", "server": "t"}],
    }
    suite = {"clock": "real", "tasks": [task], "servers": {"t": {"to": "a:1", "env": "T"}}}
    (apart,) = load_suite(suite).tasks
    assert [fault.label for fault in faults_of(apart)] == ["model_slow", "reset", "model_rate_limited"]
    suite["servers"]["m"] = {"to": "b:1", "speaks": "model", "env": "M", "url": "http://{address}/v1"}
    loaded = load_suite(suite)
    (task,) = loaded.tasks
    assert [fault.label for fault in faults_of(task)] == ["reset"]
    assert [fault.as_json() for fault in task.wire] == [
        {"kind": "drip", "server": "t"},
        {"kind": "model_slow", "probability": 0.5, "server": "m"},
        {"kind": "model_rate_limited", "calls": (2,), "retry_after_s": 3.0, "server": "m"},
    ]
    assert loaded.warnings() == []


@pytest.fixture
def model(monkeypatch):
    """`HOST:PORT` of a model that says one thing, whoever asks."""
    monkeypatch.syspath_prepend(str(HERE.parents[1]))
    from conformance.conversation import Turn
    from conformance.model import ModelServer

    server = ModelServer(lambda _: lambda _: Turn(text="Restart it."), lambda _: False, lambda _: True)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
    yield server.url.removeprefix("http://")
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.process
def test_an_agent_whose_model_answers_over_http_meets_faults_of_the_model_once(tmp_path, model):
    servers = {"model": {"to": model, "speaks": "model", "env": "MODEL_URL", "url": "http://{address}/s/1/v1"}}
    tasks = [
        {"name": "empty", "inject": "model_empty", "expect": {"reasons": ["success"], "no_secret": ["Restart"]}},
        {"name": "away", "faults": [{"kind": "model_rate_limited", "calls": [1]}], "expect": {"reasons": ["tool_rate_limit"]}},
        {"name": "no_tool", "inject": "model_unknown_tool", "expect": "success"},
    ]  # fmt: skip
    outcomes, done = tried(tmp_path, "", "asks", tasks, servers=servers, probe=None)
    assert [each["verdict"] for each in outcomes] == ["passed", "passed", "not exercised"], done.stderr
    assert [each["baseline"] for each in outcomes] == ["success"] * 3
    assert [each["faults"] for each in outcomes] == [["model_empty"], ["model_rate_limited"], ["model_unknown_tool"]]
    # Not in `run.model` as well.
    assert [each["repetitions"][0]["injected"] for each in outcomes[:2]] == [
        {"model_empty": 1},
        {"model_rate_limited": 1},
    ]


def test_in_a_test_too(model):
    words = {"clock": "real", "expect": "success"}
    words["servers"] = {"model": {"to": model, "speaks": "model", "env": "MODEL_URL", "url": "http://{address}/s/1/v1"}}
    chaos = Chaos([{"kind": "model_truncated"}], words, seed=1)
    outcome = chaos(wired_agents.asks, "Log-in fails", gate=wired_agents.gate)
    assert outcome.faults == ("model_truncated",)
    assert outcome.repetitions[0].injected == {"model_truncated": 1}
    with pytest.raises(ConfigError, match="say clock='real'"):
        Chaos(["model_empty"], {**words, "clock": "virtual"}, seed=1)(wired_agents.asks, "x", gate=wired_agents.gate)
    with pytest.raises(ChaosFailed, match="no fault was injected"):
        Chaos(["model_unknown_tool"], words, seed=1)(wired_agents.asks, "x", gate=wired_agents.gate)


async def test_around_a_block_of_a_test_too(model):
    servers = {"model": {"to": model, "speaks": "model", "env": "MODEL_URL", "url": "http://{address}/s/1/v1"}}
    chaos = Chaos([Fault(Kind.MODEL_EMPTY)], {"clock": "real", "servers": servers}, seed=1)
    async with chaos.around(wired_agents.gate) as found:
        result = await wired_agents.gate.run(wired_agents.asks, "Log-in fails")
    assert (result.output, found.injected) == ("", {"model_empty": 1})
    assert found.records[0]["injected"][0]["fault"] == "model_empty"
