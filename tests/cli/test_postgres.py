"""The command line says the same of a store on PostgreSQL as of a file: one history, told twice."""

from __future__ import annotations

import asyncio
import json
import re
import shlex

import pytest
from pg_server import DatabaseClock, Server

from interlock.core.clock import ManualClock
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.sqlite import SqliteStore

NOW = 1_700_000_000.0
KEY = "5e" * 32
PLACES = ("opening", "approvals", "switches", "doctor")


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def both(server, here, monkeypatch, fill_store):
    """The URLs of two stores with the same history, and the clock of both and of the command line."""
    monkeypatch.setenv("INTERLOCK_KEY", KEY)
    url = server.new_url()
    server.make(url)
    clock = DatabaseClock()
    clock.jump_wall(NOW - clock.wall())
    clock.govern(server, parse_address(url).schema)
    for store in (
        SqliteStore(here / "interlock.db", clock=ManualClock(wall_s=NOW), environ={"INTERLOCK_KEY": KEY}),
        PostgresStore(url, clock=clock, environ={"INTERLOCK_KEY": KEY}),
    ):
        asyncio.run(fill_store(store))
        store.close()
    for module in PLACES:
        monkeypatch.setattr(f"interlock.cli.{module}.SYSTEM", clock)
    return f"sqlite:///{here}/interlock.db", url


def plain(text, urls):
    """What is said, without what differs from store to store: its address, and ids drawn by chance."""
    for url in urls:
        text = text.replace(shlex.quote(url), "STORE").replace(url, "STORE")
    return re.sub(r'"(id|owner)": "[^"]*"', r'"\1": "…"', text)


LOOKS = [
    ("runs",),
    ("runs", "--json"),
    ("runs", "--tenant", "beta", "--json"),
    ("runs", "--reason", "loop_detected", "--json"),
    ("show", "run_loop"),
    ("show", "run_loop", "--json"),
    ("show", "run_doubt", "--json"),
    ("show", "run_now", "--json"),
    ("show", "nothing"),
    ("doubts",),
    ("doubts", "--json"),
    ("doubts", "--unverified", "--json"),
    ("approvals", "list", "--json"),
    ("purge", "--dry-run", "--json"),
    ("purge", "--dry-run", "--older-than", "1", "--content-only", "--json"),
]


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_looking_says_the_same(both, typed, words):
    said = [typed(*words, "--store", url) for url in both]
    assert said[0].code == said[1].code
    assert plain(said[0].out, both) == plain(said[1].out, both)
    assert plain(said[0].err, both) == plain(said[1].err, both)
    assert said[0].out or said[0].code


def test_acting_comes_to_the_same(both, typed):
    """A doubt settled, a switch set and lifted, an approval decided, and what is left then."""
    told = []
    for url in both:
        doubt = typed("doubts", "--json", "--store", url).json[0]["key"]
        asked = typed("approvals", "list", "--json", "--store", url).json[0]["id"]
        said = [
            typed("settle", doubt, "--done", '{"id": 7}', "--by", "ada", "--reason", "seen", "--json", "--store", url),
            typed("settle", doubt, "--not-performed", "--by", "ada", "--reason", "again", "--json", "--store", url),
            typed("approvals", "approve", asked, "--by", "ada", "--json", "--store", url),
            typed("kill", "tenant", "acme", "--by", "ada", "--reason", "fire", "--json", "--store", url),
            typed("safe-mode", "on", "--by", "ada", "--reason", "fire", "--json", "--store", url),
            typed("lift", "tenant", "acme", "--by", "ada", "--reason", "out", "--json", "--store", url),
            typed("submit", "--resume", "run_doubt", "--json", "--store", url),
            typed("submit", "--resume", "run_ok", "--json", "--store", url),
            typed("purge", "--json", "--store", url),
            typed("doubts", "--json", "--store", url),
            typed("approvals", "list", "--json", "--store", url),
            typed("runs", "--json", "--store", url),
        ]
        told.append([(one.code, plain(one.out, both), plain(one.err, both)) for one in said])
    assert told[0] == told[1]
    assert [code for code, _, _ in told[0]][:6] == [0, 1, 0, 0, 0, 0]
    assert json.loads(told[0][-3][1]) == []
