"""Sealed values: unreadable without the key, bound to their row, readable after a change of keys."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import DONE, Scene

from interlock.core.errors import ConfigError
from interlock.stores.seal import Replay, Seal, Unreadable, load_keys
from interlock.stores.sqlite import SqliteStore

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(max_size=200), st.binary(max_size=24))
def test_what_is_sealed_can_be_opened(value, row):
    seal = Seal(Replay.ON, (OLD,))
    stored = seal.close(value, row)
    assert seal.open(stored, row) == value
    assert value not in stored or len(value) < 4
    assert stored != seal.close(value, row)


@given(st.binary(min_size=1, max_size=60), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_value_is_not_believed(value, position, flip):
    seal = Seal(Replay.ON, (OLD,))
    stored = bytearray(seal.close(value, b"row"))
    stored[position % len(stored)] ^= flip
    if stored[0] == 0:
        return  # it says now that it was never sealed: only a file without any seals can say so
    with pytest.raises(Unreadable):
        seal.open(bytes(stored), b"row")


def test_a_value_of_another_row_is_not_believed():
    seal = Seal(Replay.ON, (OLD,))
    with pytest.raises(Unreadable):
        seal.open(seal.close(b"paid", b"row 1"), b"row 2")


@pytest.mark.parametrize("junk", [b"", b"\x01", b"\x02abc", b"\x01" + b"x" * 40])
def test_junk_is_not_believed(junk):
    with pytest.raises(Unreadable):
        Seal(Replay.ON, (OLD,)).open(junk, b"row")


def test_a_new_key_seals_and_the_old_one_still_opens():
    stored = Seal(Replay.ON, (OLD,)).close(b"x", b"row")
    rotated = Seal(Replay.ON, (NEW, OLD))
    assert rotated.open(stored, b"row") == b"x"
    assert Seal(Replay.ON, (NEW,)).open(rotated.close(b"y", b"row"), b"row") == b"y"
    with pytest.raises(Unreadable, match="INTERLOCK_KEY"):
        Seal(Replay.ON, (NEW,)).open(stored, b"row")


def test_nothing_and_plain():
    plain = Seal(Replay.PLAINTEXT)
    assert plain.open(plain.close(b"x", b"row"), b"row") == b"x"
    assert plain.close(None, b"row") is None
    assert plain.open(None, b"row") is None
    assert Seal(Replay.OFF).close(b"x", b"row") is None
    assert Seal(Replay.OFF, (OLD,)).open(Seal(Replay.ON, (OLD,)).close(b"x", b"row"), b"row") == b"x"
    with pytest.raises(ConfigError, match="INTERLOCK_KEY"):
        Seal(Replay.ON)


class TestKeys:
    def test_of_the_environment(self, path):
        environ = {"INTERLOCK_KEY": f" {'00' * 32}, {'11' * 32}"}
        assert load_keys(path, environ, make=True) == (bytes(32), b"\x11" * 32)
        assert not path.with_name("interlock.key").exists()

    @pytest.mark.parametrize("text", ["secret", "00" * 31, "zz" * 32, ","])
    def test_that_are_none_are_an_error(self, path, text):
        with pytest.raises(ConfigError, match="64 hexadecimal digits"):
            load_keys(path, {"INTERLOCK_KEY": text}, make=True)
        path.with_name("interlock.key").write_text(text)
        with pytest.raises(ConfigError, match="64 hexadecimal digits"):
            load_keys(path, {}, make=True)

    def test_beside_the_file_made_once_for_the_owner_alone(self, path):
        keys = load_keys(path, {}, make=True)
        file = path.with_name("interlock.key")
        assert file.stat().st_mode & 0o777 == 0o600
        assert load_keys(path, {}, make=True) == keys == (bytes.fromhex(file.read_text().strip()),)
        assert list(path.parent.iterdir()) == [file]

    def test_is_not_made_where_nothing_is_sealed(self, path):
        assert load_keys(path, {}, make=False) == ()
        assert not path.with_name("interlock.key").exists()

    def test_of_many_threads_at_once_is_one(self, path):
        found = []
        threads = [threading.Thread(target=lambda: found.append(load_keys(path, {}, make=True))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 16
        assert len(set(found)) == 1

    def test_a_folder_that_cannot_hold_one_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match="replay: off"):
            load_keys(tmp_path / "nowhere" / "interlock.db", {}, make=True)


async def test_no_content_is_readable_in_the_file(path, clock):
    store = SqliteStore(path, clock=clock, environ={})
    scene = Scene(store, clock)
    await scene.begin(task=b'"my password is hunter2"')
    await scene.claim()
    await scene.settle(DONE.__class__(DONE.state, b'{"card":"4111-1111"}'))
    await scene.end(output=b'"the answer is hunter2"')
    store.close()
    data = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name != "interlock.key")
    assert b"hunter2" not in data
    assert b"4111" not in data


async def test_a_store_opened_with_another_key_keeps_what_it_cannot_read(path, clock):
    scene = Scene(SqliteStore(path, clock=clock, environ={"INTERLOCK_KEY": "aa" * 32}), clock)
    await scene.begin()
    await scene.claim()
    await scene.settle(DONE)
    await scene.end()
    scene.store.close()
    scene.store = SqliteStore(path, clock=clock, environ={"INTERLOCK_KEY": "bb" * 32})
    claim, row = await scene.find(), await scene.store.run("r1")
    assert (claim.state, claim.result, claim.result_kept) == (DONE.state, None, True)
    assert (row.output, row.output_kept) == (None, True)
    scene.store.close()


async def test_a_result_moved_to_another_claim_is_not_believed(path, clock):
    scene = Scene(SqliteStore(path, clock=clock, environ={}), clock)
    await scene.begin()
    for name in ("a", "b"):
        await scene.claim(name)
        await scene.settle(DONE, name)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "update journal set result = (select result from journal where sent_key = 'il1_a') where sent_key = 'il1_b'"
        )
    claim = await scene.find("b")
    assert (claim.result, claim.result_kept) == (None, True)
    scene.store.close()
