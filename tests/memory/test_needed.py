"""The list of what memory rests on is whole: everything on it can be taken away, and has tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from needed import NEEDED

from test_requirements import names_in

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_it_stands_once_and_has_tests(needed):
    text = (ROOT / needed.off.file).read_text(encoding="utf-8")
    assert text.count(needed.off.old) == 1, needed.off
    assert needed.off.new != needed.off.old
    assert needed.tests
    for node in needed.tests:
        file, _, name = node.partition("::")
        assert name.partition("[")[0] in names_in(ROOT / file), node
