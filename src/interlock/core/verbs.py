"""What a run does beside calling tools, by the names that its record and its metrics show."""

from __future__ import annotations

__all__ = ["VERBS", "WITHIN"]

# Before the name of a verb that a tool of the run has used, on the run's record: it is not answered from there, since
# the tool itself is; what it read is known by it. No tool's name has a space.
WITHIN = "within "

VERBS = frozenset(
    {
        "memory.remember",
        "memory.supersede",
        "memory.recall",
        "memory.get",
        "memory.past",
        "memory.forget",
        "memory.pin",
        "memory.verify",
        "artifacts.put",
        "artifacts.get",
    }
)
