"""The stores on which the proofs are made, and the sum of what they counted."""

from __future__ import annotations

import pytest
from pg_server import Server
from proof_driver import COUNTED, total
from schedule_life import TRIED

import interlock


@pytest.fixture(scope="session")
def pg_server():
    """The server of the proofs."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def new_store(request, tmp_path_factory):
    """Return a function that names a new store, by URL."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('proof')}/interlock.db"
    server = request.getfixturevalue("pg_server")
    try:
        interlock.Interlock(store=server.new_url()).house().close()
    except interlock.errors.ConfigError as error:
        if "is not supported" in str(error):
            pytest.skip(f"a gate does not open PostgreSQL yet: {error}")
        raise
    return server.new_url


@pytest.fixture
def store_url(new_store):
    """The URL of a new store."""
    return new_store()


def pytest_terminal_summary(terminalreporter):
    """Say what all loops of this process counted together, a line for each store."""
    for figures in total(COUNTED):
        terminalreporter.write_line(f"proof: {figures.line()}")
    if TRIED:
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(TRIED.items()))
        terminalreporter.write_line(f"proof: {counts}")
