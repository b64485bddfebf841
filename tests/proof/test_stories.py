"""Each story holds, and is one history; see `schedule_telling`."""

from __future__ import annotations

import pytest
from schedule_stories import STORIES, told


@pytest.mark.parametrize("name", STORIES)
def test_a_story_holds_and_is_one_history(name):
    _, patience_s = STORIES[name]
    first = told(name)
    assert first.wrong == []
    if not patience_s:  # where threads are waited for in real time, once is enough
        assert first.lines == told(name).lines
