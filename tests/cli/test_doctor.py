"""doctor: each finding on a real file, what to do about it, and exit 1 where a record can be lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from interlock.cli import machine
from interlock.stores import sqlite as stores
from interlock.stores.owner import this_boot

HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
WRITE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("begin immediate")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def a_disk(here, monkeypatch):
    """The tests' own folder may lie in memory; the store is said to lie on a disk."""
    mounts = here / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n", encoding="utf-8")
    monkeypatch.setattr(machine, "MOUNTS", mounts)
    return mounts


@pytest.fixture
def found(typed):
    """Ask the doctor; return the exit code and the findings by subject."""

    def ask(*args):
        said = typed("doctor", "--json", *args)
        return said.code, {finding["subject"]: (finding["level"], finding["text"]) for finding in said.json["findings"]}

    return ask


@contextlib.contextmanager
def holder(program, path):
    """A process that holds a lock."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def stop(process):
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def change(path, statement, *params):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, params)


def test_a_store_that_is_well(found, store):
    code, findings = found()
    assert code == 0
    for subject in ("configuration", "disk", "sealing", "store", "journal mode", "synchronous", "schema", "stuck runs"):
        assert findings[subject][0] == "ok", subject
    assert findings["clock"][0] == "ok"
    assert findings["synchronous"][1] == "full"


# What can lose a record


@pytest.mark.parametrize("mode", ["normal", "off"])
def test_commits_that_do_not_wait_for_the_disk(found, store, monkeypatch, mode):
    connect = stores.connect

    def hasty(path, **words):
        db = connect(path, **words)
        db.execute(f"pragma synchronous = {mode}")
        return db

    monkeypatch.setattr(stores, "connect", hasty)
    code, findings = found()
    assert (code, findings["synchronous"][0]) == (1, "error")
    assert f"{mode} instead of full" in findings["synchronous"][1]


@pytest.mark.parametrize(("mode", "code", "level"), [("delete", 0, "warning"), ("memory", 1, "error")])
def test_a_journal_that_is_no_log(found, store, monkeypatch, mode, code, level):
    connect = stores.connect

    def other(path, **words):
        db = connect(path, **words)
        db.execute(f"pragma journal_mode = {mode}")
        return db

    monkeypatch.setattr(stores, "connect", other)
    left, findings = found()
    assert (left, findings["journal mode"][0]) == (code, level)
    assert f"{mode} instead of wal" in findings["journal mode"][1]


@pytest.mark.parametrize(("kind", "says"), [("nfs4", "local disk"), ("cifs", "local disk"), ("tmpfs", "use a disk")])
def test_file_systems_that_cannot_hold_a_store(found, store, here, a_disk, kind, says):
    a_disk.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {here} {kind} rw 0 0\n", encoding="utf-8")
    code, findings = found()
    assert (code, findings["file system"][0]) == (1, "error")
    assert says in findings["file system"][1]


def test_a_network_share_that_only_the_kernel_knows_of(found, store, monkeypatch):
    monkeypatch.setattr(machine, "_statfs", lambda path: 0x6969)
    code, findings = found()
    assert (code, "lies on nfs" in findings["file system"][1]) == (1, True)


def test_a_link_is_followed_to_where_the_file_lies(found, store, here, a_disk):
    there = here / "share"
    there.mkdir()
    (here / "link.db").symlink_to(store.rename(there / "interlock.db"))
    a_disk.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {there} nfs rw 0 0\n", encoding="utf-8")
    assert found("--store", "link.db")[1]["file system"][0] == "error"


def test_the_kernel_is_asked_as_stat_asks_it(here):
    asked = subprocess.run(["stat", "-f", "-c", "%t", str(here)], capture_output=True, text=True, check=True)
    assert machine._statfs(here) == int(asked.stdout, 16)
    assert machine._statfs(here / "nowhere") == 0


# What holds up work


@pytest.mark.parametrize("suffix", ["-lock", "-queue"])
def test_a_stopped_process_whose_turn_it_is(found, store, suffix):
    with holder(HOLD, f"{store}{suffix}") as process:
        assert list(machine.stopped_holders(store)) == []  # whoever runs will let it go
        stop(process)
        code, findings = found()
        assert (code, findings["writer"][0]) == (1, "error")
        assert f"process {process.pid} (" in findings["writer"][1]
        assert f"kill -CONT {process.pid}" in findings["writer"][1]
        assert "store" not in findings  # who asked for it would wait
    assert found()[0] == 0


def test_a_stopped_program_that_writes_without_waiting_its_turn(found, store):
    with holder(WRITE, store) as process:
        stop(process)
        code, findings = found()
        assert (code, f"process {process.pid}" in findings["writer"][1]) == (1, True)


def test_locks_that_nobody_can_read(found, store, monkeypatch, here):
    monkeypatch.setattr(machine, "PROC", here / "no-proc")
    assert found()[0] == 0


def test_runs_whose_process_is_gone(found, store, clock):
    assert found()[1]["stuck runs"][0] == "ok"
    clock.advance(3_600.0)
    code, findings = found()
    level, text = findings["stuck runs"]
    assert (code, level) == (0, "warning")
    assert "1 are under way and their process is gone" in text
    assert "run_now of triage for acme" in text
    assert "interlock show run_now" in text


def test_a_run_of_an_earlier_boot_is_stuck(found, store):
    change(store, "update runs set boot_id = 'before' where run_id = 'run_now'")
    assert found()[1]["stuck runs"][0] == "warning"


def test_doubts_and_their_age(found, store, clock):
    assert found()[1]["doubts"][1] == "1 open, the oldest for now: interlock doubts"
    clock.advance(3 * 86_400.0)
    level, text = found()[1]["doubts"]
    assert (level, text.startswith("1 open, the oldest for 3 d")) == ("warning", True)
    assert "1 older than tools.dedupe_window_s" in text


# Clocks


@pytest.mark.parametrize(("by_s", "level"), [(3_600.0, "warning"), (-3_600.0, "warning"), (30.0, "ok")])
def test_a_wall_clock_that_was_set(found, store, clock, by_s, level):
    clock.jump_wall(by_s)
    code, findings = found()
    assert (code, findings["clock"][0]) == (0, level)
    if level == "warning":
        assert f"{by_s:+.0f} s since the boot" in findings["clock"][1]


def test_runs_dated_ahead_by_an_earlier_boot(found, store):
    change(store, "update runs set boot_id = 'before', started_at = started_at + 7200")
    level, text = found()[1]["clock"]
    assert (level, "7200 s ahead" in text) == ("warning", True)


def test_time_asleep_is_no_jump(found, store, clock):
    clock.advance(86_400.0)
    assert found()[1]["clock"][0] == "ok"
    assert this_boot()


# Files that cannot be opened: the disk and the key are looked at all the same


def test_a_disk_with_little_room(found, store, monkeypatch):
    monkeypatch.setattr(machine, "ENOUGH_BYTES", 1 << 60)
    code, findings = found()
    assert (code, findings["disk"][0]) == (0, "warning")
    assert "interlock purge" in findings["disk"][1]


def test_a_file_of_a_newer_version(found, store):
    change(store, "pragma user_version = 99")
    code, findings = found()
    assert (code, "schema 99" in findings["store"][1], "upgrade" in findings["store"][1]) == (1, True, True)
    assert findings["disk"][0] == "ok"


def test_a_file_that_is_no_store(found, here):
    Path("interlock.db").write_bytes(b"not a database" * 500)
    code, findings = found()
    assert (code, "backup" in findings["store"][1]) == (1, True)


def test_a_missing_key(found, store):
    Path("interlock.key").unlink()
    level, text = found()[1]["sealing"]
    assert (level, "restore it" in text) == ("warning", True)
