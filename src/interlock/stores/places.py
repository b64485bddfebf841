"""What a seal is bound to: the place of a value in the store, so that one moved to another place does not open."""

from __future__ import annotations

__all__ = ["args_place", "call_place", "output_place", "task_place", "turn_place"]


def task_place(run_id: str) -> bytes:
    """Return the place of a run's task."""
    return run_id.encode() + b"/task"


def output_place(run_id: str) -> bytes:
    """Return the place of a run's output."""
    return run_id.encode()


def turn_place(run_id: str, path: str, turn: int) -> bytes:
    """Return the place of the reply of a model turn."""
    return f"{run_id}{path}/turn/{turn}".encode()


def call_place(run_id: str, path: str, turn: int, tool: str, nth: int) -> bytes:
    """Return the place of the result of a call, and of its error."""
    return f"{run_id}{path}/{turn}/{tool}/{nth}".encode()


def args_place(key: bytes) -> bytes:
    """Return the place of the arguments of a claim; that of its result is the key itself."""
    return key + b"/args"
