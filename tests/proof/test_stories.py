"""Each story holds, and is one history; see `schedule_telling`."""

from __future__ import annotations

import pytest
from schedule_stories import STORIES, told


@pytest.mark.parametrize("name", STORIES)
def test_a_story_holds_and_is_one_history(name):
    first, second = told(name), told(name)
    assert first.wrong == []
    assert first.lines == second.lines
