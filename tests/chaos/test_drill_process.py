"""The drill over real sockets, against a backend process of its own; effects are counted at `GET /effects`."""

from __future__ import annotations

import asyncio
import json
import shlex
import socketserver
import subprocess
import sys
import threading
from collections import Counter

import pytest

from interlock.chaos.drill import DrillOptions, run_drill
from interlock.chaos.http_client import HttpClient
from interlock.chaos.process import BackendProcess
from interlock.chaos.table import render
from interlock.core.errors import ConfigError, InterlockError

# Thirty minutes take 1.8 seconds. On a loaded machine timeouts and deadlines become faults of their own: what
# must hold then is what must always hold.
SCALE = 0.001


def fetch(url: str, path: str):
    return asyncio.run(HttpClient(url).request("GET", path)).body


def options(url: str | None = None, **words) -> DrillOptions:
    return DrillOptions(**({"time_scale": SCALE, "backend": url, "yes": True, "progress": False} | words))


@pytest.mark.process
def test_effects_at_the_backend_are_what_the_drill_reports(tmp_path, capsys):
    store = tmp_path / "drill.db"
    with BackendProcess(2, SCALE) as url:
        report = run_drill(options(url, seed=2, store=str(store), progress=True))
        effects = fetch(url, "/effects")["effects"]
    assert report.failures == ()
    counts = {}
    for side in ("bare", "interlock"):
        subjects = Counter(e["subject"] for e in effects if e["project"].startswith(f"triage-{side}-"))
        counts[side] = (sum(subjects.values()), sum(n - 1 for n in subjects.values()))
    triage = report.scenarios[0]
    assert counts["bare"] == (triage.bare.effects, triage.bare.duplicates)
    assert counts["bare"][1] >= 34
    assert counts["interlock"] == (triage.guarded.effects, 0)
    assert store.exists()
    assert "interlock: 73 runs" in capsys.readouterr().err
    # What it prints can be typed: the run, and the doubt if one was left open.
    for command in filter(None, (report.show_command, report.settle_command)):
        words = shlex.split(command)
        verb = [sys.executable, "-c", "from interlock.cli.app import main; main()", *words[1:], "--json"]
        done = subprocess.run(verb, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    assert render(report).endswith("a scripted agent against a scripted backend, seed 2\n")


@pytest.mark.process
def test_one_s_own_server_is_not_written_to_without_a_yes():
    questions = []
    with BackendProcess(1, SCALE) as url:
        with pytest.raises(ConfigError, match="--yes"):
            run_drill(options(url, yes=False, ask=lambda question: bool(questions.append(question))))
        assert fetch(url, "/requests")["count"] == 0
    assert url in questions[0]


@pytest.mark.process
def test_the_time_scale_of_a_running_backend_must_be_the_agents_own():
    with BackendProcess(1, 0.01) as url, pytest.raises(ConfigError, match=r"pass --time-scale 0\.01"):
        run_drill(options(url))


@pytest.mark.process
def test_a_store_that_cannot_be_used_is_found_out_at_once(tmp_path):
    with BackendProcess(1, SCALE) as url:
        with pytest.raises(InterlockError):
            run_drill(options(url, store=str(tmp_path)))
        assert fetch(url, "/requests")["count"] == 0


@pytest.mark.process
def test_the_backend_ends_when_whoever_started_it_is_gone():
    words = [sys.executable, "-m", "interlock.chaos.backend", "--until-eof"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline().strip().isdigit()
        process.stdin.close()
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"effects":[{"a":1}]}',
    ],
)
def test_a_backend_at_which_nothing_can_be_counted_is_not_written_to(answer):
    asked = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline())
            self.wfile.write(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(ConfigError, match=r"/effects"):
                run_drill(options(f"http://127.0.0.1:{server.server_address[1]}"))
        finally:
            server.shutdown()
            thread.join()
    assert len(asked) == 1
    assert asked[0].startswith(b"GET /effects")


def test_a_backend_that_does_not_answer():
    with pytest.raises(ConfigError, match="does not answer"):
        run_drill(options("http://127.0.0.1:1"))


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan")])
def test_a_time_scale_that_makes_no_sense(scale):
    with pytest.raises(ConfigError, match="--time-scale"):
        run_drill(options(time_scale=scale))


def test_an_address_that_is_none():
    with pytest.raises(ConfigError, match="--backend"):
        run_drill(options("localhost"))
