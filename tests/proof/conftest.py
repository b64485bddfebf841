"""The stores on which the proofs are made, and the sum of what they counted."""

from __future__ import annotations

import pytest
from proof_driver import COUNTED, total


@pytest.fixture(params=["sqlite"])
def store_url(tmp_path, request):
    """The URL of a new store."""
    return f"sqlite:///{tmp_path}/interlock.db"


def pytest_terminal_summary(terminalreporter):
    """Say what all kill loops of this process counted together, a line for each store."""
    for figures in total(COUNTED):
        terminalreporter.write_line(f"proof: {figures.line()}")
