"""The pytest plugin: fixture `interlock_chaos` and `@pytest.mark.chaos(…)`, at no cost to tests that use neither.

Every pytest of an environment with Interlock loads this module: it imports nothing of ours before the fixture is asked
for. What the fixture is stands in `in_tests.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["interlock_chaos"]

_MARKER = (
    "chaos(*faults, expect='any', repetitions=1, seed=0, clock='virtual', profile=None, config=None, probe=None): "
    "faults that `interlock_chaos` injects (a word such as 'timeout_50%', a mapping, or a Fault), and what must hold"
)
_SEED = "--interlock-chaos-seed"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which a failure is repeated."""
    group = parser.getgroup("interlock", "faults in front of agents (Interlock)")
    group.addoption(_SEED, type=int, metavar="N", help="Try each test of `interlock_chaos` once, with this seed.")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def interlock_chaos(request: pytest.FixtureRequest) -> Any:
    """Try an agent behind its gate under the faults of `@pytest.mark.chaos`: an `interlock.chaos.in_tests.Chaos`."""
    from interlock.chaos.in_tests import Chaos  # noqa: PLC0415 - only tests that ask for it pay for it

    faults: list[Any] = []
    words: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("chaos"))):  # of the module first, then of the test
        faults += mark.args
        words |= mark.kwargs
    return Chaos(faults, words, again=request.node.nodeid, seed=request.config.getoption(_SEED))
