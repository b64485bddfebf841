"""`interlock chaos proxy`: what it prints, how it ends, what it says of bad words; the documentation's commands run."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import socket
import sys
from pathlib import Path

import pytest
from pages import ROOT, commands

from interlock.chaos.backend import Backend
from interlock.chaos.http_client import AnswerLost, HttpClient
from interlock.cli.app import main

pytestmark = pytest.mark.process
INTERLOCK = str(Path(sys.executable).with_name("interlock"))
PAGE = ROOT / "docs/chaos-proxy.md"
SHOWN = [command for command in commands(PAGE) if "--to" in command]


def words(*given):
    return [INTERLOCK, "chaos", "proxy", *map(str, given)]


@pytest.fixture
def refused(capsys):
    """A function that returns how it ends with an error, and what it says."""

    def run(*given):
        with pytest.raises(SystemExit) as ended:
            main(["chaos", "proxy", *map(str, given)])
        said = capsys.readouterr()
        assert said.out == ""
        return ended.value.code, said.err

    return run


@pytest.fixture
async def server():
    backend = Backend(time_scale=0.0001)
    port = await backend.start()
    yield f"127.0.0.1:{port}"
    await backend.close()


async def started(*given):
    process = await asyncio.create_subprocess_exec(
        *words(*given), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    first = json.loads(await process.stdout.readline())
    assert first["event"] == "listening"
    return process, first


async def rest(process):
    out, err = await process.communicate()
    return [json.loads(line) for line in out.splitlines()], err.decode()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_what_it_injected_and_ends_when_it_is_told(server, how):
    process, first = await started("--to", server, "--speaks", "http", "--fault", "answer_lost what='POST *' calls=[1]")
    assert first["faults"] == [{"kind": "answer_lost", "what": "POST *", "calls": [1]}]
    client = HttpClient(f"http://{first['listen']}")
    body = {"project": "clear", "title": "t", "description": "d", "idempotency_key": "k"}
    await client.request("GET", "/health")
    with pytest.raises(AnswerLost):
        await client.request("POST", "/tickets", body=body)
    assert (await client.request("POST", "/tickets", body=body)).status == 200
    # A connection that is open does not keep it.
    _, writer = await asyncio.open_connection(*first["listen"].split(":"))
    process.send_signal(how)
    lines, _ = await rest(process)
    writer.close()
    assert process.returncode == 0
    injected, ended = lines
    assert (injected.pop("at_s") >= 0, injected) == (
        True,
        {"event": "injected", "fault": "answer_lost", "connection": 2, "request": 2, "what": "POST /tickets"},
    )
    assert (ended["event"], ended["requests"], ended["injected"]) == ("ended", 3, {"answer_lost": 1})


async def test_it_ends_after_so_long_and_says_what_the_server_did_not_take(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = unused.getsockname()[1]
        process, first = await started("--to", f"127.0.0.1:{away}", "--no-check", "--for", "2")
        with pytest.raises((AnswerLost, ConnectionResetError)):
            await HttpClient(f"http://{first['listen']}").request("GET", "/")
        lines, said = await rest(process)
    assert process.returncode == 0
    assert [line["event"] for line in lines] == ["failed", "ended"]
    assert lines[0]["why"] == f"connection 1: --to 127.0.0.1:{away}: connection refused"
    assert "warning: no --fault: everything passes" in said


async def test_it_ends_when_nobody_reads_what_it_says(server):
    process, first = await started("--to", server, "--speaks", "http", "--fault", "500_errors")
    process.stdout._transport.close()
    while process.returncode is None:
        try:
            await HttpClient(f"http://{first['listen']}").request("GET", "/")
        except Exception:
            await asyncio.sleep(0.02)
    assert process.returncode == 0
    assert b"Traceback" not in await process.stderr.read()


@pytest.mark.parametrize("command", SHOWN)
async def test_what_the_page_shows_runs(command, server):
    shown = shlex.split(command)[3:]
    shown[shown.index("--to") + 1] = server
    if "--listen" in shown:
        shown[shown.index("--listen") + 1] = "127.0.0.1:0"
    process, first = await started(*shown)
    assert len(first["faults"]) == shown.count("--fault")
    process.terminate()
    await rest(process)
    assert process.returncode == 0


def test_the_page_shows_something():
    assert len(SHOWN) == 6


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("anwser_lost", "no fault is called anwser_lost; did you mean answer_lost?"),
        ("", "no fault is called nothing"),
        ("schema_drift", "no fault is called schema_drift"),
        ("answer_lost cals=[1]", "cals: unknown key; did you mean calls?"),
        ("answer_lost calls=[0]", "calls.0: 0 is out of range: write at least 1"),
        ("answer_lost calls=3", "calls: must be a list"),
        ("answer_lost calls=[1] calls=[2]", "calls stands twice"),
        ("answer_lost calls=[1", "calls: '[1' is no value"),
        ("latency delay_s=-1", "delay_s: -1 is out of range: write at least 0"),
        ("latency delay_s=1s", "delay_s: must be a number of seconds"),
        ("latency probability=0", "probability: 0 is out of range"),
        ("bandwidth bytes_per_s=0", "bytes_per_s: 0 is out of range: write at least 1"),
        ("latency 5", "cannot be read from '5' on: write KIND key=value"),
        ("latency_0%", "the share must be 1% to 100%"),
        ("latency_101%", "the share must be 1% to 100%"),
        ("latency from_s=5 until_s=5", "until_s must be later than from_s"),
        ("reset delay_s=1", "delay_s means nothing here: it belongs to black_hole, drip, latency, model_slow, timeout"),
        ("model_empty", "only a model says such things: say that the server speaks model (--speaks model)"),
        ("model_emtpy", "did you mean model_empty?"),
        ("model_empty retry_after_s=1", "it belongs to http, model_rate_limited"),
        ("connect_refused calls=[1]", "give it a window (from_s, until_s), or use reset"),
        ("200_errors", "status: 200 is out of range"),
        ("429_errors", "only HTTP has a status"),
        ("reset what=INSERT", "bytes have no name: say --speaks http or postgres"),
    ],
)
def test_a_fault_that_is_none(fault, said, refused):
    code, text = refused("--to", "127.0.0.1:1", "--no-check", "--fault", fault)
    assert code == 1
    assert said in text
    assert text.startswith(("error: --fault", "error: http_429", "error: reset", "error: model_empty"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--to", "127.0.0.1:1"), "--to 127.0.0.1:1: cannot be reached: connection refused"),
        (("--to", "no-such-host.invalid:80"), "--to no-such-host.invalid:80: cannot be reached"),
        (("--to", "unix:/no/such/socket"), "--to unix:/no/such/socket: cannot be reached: no such file or directory"),
        (("--to", "localhost"), "--to localhost: write HOST:PORT"),
        (("--to", "localhost:0"), "--to localhost:0: a port is 1 to 65535"),
        (("--to", "localhost:65536"), "--to localhost:65536: a port is 1 to 65535"),
        (("--to", "localhost:-1"), "--to localhost:-1: write HOST:PORT"),
        (("--to", "a:1", "--listen", "9090"), "--listen 9090: write HOST:PORT"),
        (("--to", "https://a/v1", "--speaks", "model"), "write https://HOST[:PORT]: the path is what clients ask for"),
        (("--to", "https://a:0", "--speaks", "model"), "a port is 1 to 65535"),
        (("--to", "https://a"), "--to https://a: what is read there is HTTP: say --speaks http or model"),
        (("--to", "a:1", "--listen", "https://a"), "--listen https://a: write HOST:PORT"),
        (("--to", "a:1", "--speaks", "smtp"), "--speaks smtp: write one of tcp, http, postgres, model"),
    ],
)
def test_places_that_are_none(given, said, refused):
    code, text = refused(*given)
    assert code == 1
    assert said in text


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
def test_seconds_that_are_none(seconds, refused):
    code, text = refused("--to", "127.0.0.1:1", "--for", seconds)
    assert code == 2
    assert "--for" in text


def test_a_port_that_is_taken(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = refused("--to", address, "--listen", address, "--fault", "reset")
    assert code == 1
    assert f"--listen {address}: cannot be used: address already in use" in text
