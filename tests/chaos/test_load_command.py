"""`interlock load`: the table, the JSON, how it ends, what it says of bad words; the documentation's commands run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pages import ROOT, commands

from interlock.cli.app import main

INTERLOCK = str(Path(sys.executable).with_name("interlock"))
SHOWN = sorted({command for command in commands(ROOT / "docs/chaos-load.md") if "--" in command})
QUICK = ("--median-ms", "1", "--calls", "4", "--runs", "12", "--concurrency", "4")


@pytest.fixture
def load(capsys):
    """A function that runs the verb here, and returns its exit code and what it said."""

    def run(*given, verb=("load",)):
        with pytest.raises(SystemExit) as ended:
            main([*verb, *map(str, given)])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


@pytest.mark.parametrize("verb", [("load",), ("chaos", "load")])
def test_a_table_and_what_holds_for_the_whole(load, verb):
    code, out, err = load(*QUICK, "--fault", "reset_20% tool=kb.*", verb=verb)
    assert code == 0, err
    assert out.startswith("runs at once")
    assert "4 at once" in out
    assert "runs ended as: success 12" in out
    assert "injected: reset" in out
    assert "0 duplicates" in out
    assert "KiB a run" in out
    assert "4 at once: 0 s" in err


def test_json(load, tmp_path):
    code, out, _ = load(*QUICK, "--json", "--store", f"sqlite:///{tmp_path}/kept.db")
    assert code == 0
    report = json.loads(out)
    (level,) = report["levels"]
    assert (level["runs"], level["calls"], level["stop_reasons"]) == (12, 48, {"success": 12})
    assert set(level["overhead"]) == {"p50_ms", "p95_ms", "p99_ms", "max_ms"}
    assert level["overhead"]["p50_ms"] > 0
    assert level["of_it_store"]["p50_ms"] > 0
    assert level["tool"]["max_ms"] > 0.2
    assert level["rss_bytes"] >= 0
    assert report["memory"]["rss_bytes_before"] > 10_000_000
    assert report["store"]["bytes_after"] > report["store"]["bytes_before"]
    assert report["asked"]["tools"] == {"of": "log-normal", "median_ms": 1.0, "p99_ms": 12.5}
    # What was kept can be drawn again.
    code, out, _ = load(*QUICK[2:], "--json", "--latencies", tmp_path / "kept.db")
    assert code == 0
    again = json.loads(out)["asked"]["tools"]
    assert (again["of"], again["count"], again["tools"]) == ("calls", 48, 3)


def test_a_ramp(load):
    code, out, _ = load("--ramp", "--concurrency", "4", "--for", "2", "--runs", "8", "--calls", "2", "--median-ms", "1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:] if " at once " in line[:14]][:3] == ["1", "2", "4"]


@pytest.mark.process
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_prints_what_it_has_and_leaves_nothing(tmp_path, how):
    process = subprocess.Popen(
        [INTERLOCK, "load", "--for", "600", "--runs", "1000000", "--concurrency", "20", "--median-ms", "2", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    line = process.stderr.readline()
    assert "20 at once" in line
    deadline = time.monotonic() + 60
    while "20 at once: 5 s" not in line and time.monotonic() < deadline:
        line = process.stderr.readline()
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    report = json.loads(out)
    assert report["interrupted"]
    assert report["levels"][0]["runs"] > 0
    assert report["failures"] == []
    assert "stopping" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def shortened(command):
    """The words of a command that a page shows, on a smaller scale."""
    words = shlex.split(command)[1:]
    for option, least in (("--concurrency", "4"), ("--runs", "10"), ("--for", "2"), ("--rate", "20")):
        if option in words:
            words[words.index(option) + 1] = least
    return [*words, "--median-ms", "1", "--calls", "2"]


@pytest.mark.parametrize("command", SHOWN)
def test_what_the_page_shows_runs(command, load):
    verb, *words = shortened(command)
    code, _, err = load(*words, verb=(verb,))
    assert code == 0, err


def test_the_page_shows_something():
    assert len(SHOWN) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--fault", "timeuot_5%"), "no fault is called timeuot; did you mean timeout?"),
        (("--fault", "timeout tol=kb.*"), "tol: unknown key; did you mean tool?"),
        (("--fault", "timeout calls=[-1]"), "calls.0: -1 is out of range: write at least 1"),
        (("--fault", "kill_switch"), "a load test has faults of tools and of the store"),
        (("--latencies", "/no/such/file"), "--latencies: no such file or folder: /no/such/file"),
        (("--latencies", "redis://x"), "--latencies: no such file or folder"),
        (("--latencies", "a", "--median-ms", "1"), "have a median and a p99 of their own: keep one"),
        (("--p99-ms", "100"), "--p99-ms: say --median-ms too"),
        (("--median-ms", "100", "--p99-ms", "10"), "the p99 not below it"),
        (("--store", "redis://x"), "redis:// is not supported"),
        (("--store", "postgresql://127.0.0.1:1/none"), "postgresql://127.0.0.1:1/none"),
        (("--agent", "no_such_module:agent"), "no_such_module"),
        (("--agent", "json:loads"), "0 gates"),
        (("--gate", "a:b"), "--gate: name your --agent too"),
        (("--task", "a"), "--task: name your --agent too"),
        (("--agent", "a:b", "--profile", "article"), "an agent of your own has the configuration of its gate"),
        (("--profile", "nobody"), "nobody"),
        (("--config", "/no/such.yaml"), "/no/such.yaml"),
    ],
)
def test_words_that_cannot_be_used(load, given, said):
    code, out, err = load(*given)
    assert (code, out) == (1, "")
    assert said in err


@pytest.mark.parametrize(
    "given",
    [
        ("--runs", "0"),
        ("--runs", "-5"),
        ("--for", "0"),
        ("--for", "-1"),
        ("--concurrency", "0"),
        ("--rate", "0"),
        ("--rate", "-2"),
        ("--calls", "0"),
        ("--writes", "1.5"),
        ("--writes", "-0.1"),
        ("--median-ms", "0"),
        ("--p99-ms", "-1"),
        ("--model-ms", "-1"),
        ("--runs", "many"),
    ],
)
def test_numbers_that_cannot_be(load, given):
    code, out, err = load(*given)
    assert (code, out) == (2, "")
    assert given[0] in err


def test_a_load_in_which_nothing_ends_is_a_failure(load):
    code, _, err = load("--median-ms", "60000", "--for", "0.5", "--concurrency", "2")
    assert code == 1
    assert "failed: no run has ended" in err
