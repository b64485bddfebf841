"""All stories; see `schedule_telling`."""

from __future__ import annotations

import schedule_asking_stories  # noqa: F401 - they enter themselves
import schedule_budget_stories  # noqa: F401
import schedule_edge_stories  # noqa: F401
import schedule_failing_stories  # noqa: F401
import schedule_journal_stories  # noqa: F401
import schedule_last_stories  # noqa: F401
import schedule_lease_stories  # noqa: F401
import schedule_limit_stories  # noqa: F401
import schedule_lookup_stories  # noqa: F401
import schedule_machine_stories  # noqa: F401
import schedule_policy_stories  # noqa: F401
import schedule_price_stories  # noqa: F401
import schedule_remote_stories  # noqa: F401
import schedule_return_stories  # noqa: F401
import schedule_rule_stories  # noqa: F401
import schedule_small_stories  # noqa: F401
import schedule_taint_stories  # noqa: F401
import schedule_thread_stories  # noqa: F401
import schedule_window_stories  # noqa: F401
from schedule_telling import STORIES, Told, told

__all__ = ["STORIES", "Told", "told"]
