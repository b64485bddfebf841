"""Where the recorded runs lie that are not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("INTERLOCK_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of shared recorded runs; a test that needs it is skipped where it is not there."""
    if not DATA.is_dir():
        pytest.skip(f"recorded runs are not there: {DATA} (set INTERLOCK_DATA)")
    return DATA
