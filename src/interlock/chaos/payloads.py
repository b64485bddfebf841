"""What faults make of a payload: the same shape gone wrong in one way; pure, and equal for equal input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

__all__ = ["REJECTED", "drifted", "emptied", "instructed", "never_complete", "oversized", "plausibly_wrong"]

REJECTED = "chaos-must-be-rejected"
"""Stands in every drifted value, so that whoever believed it can be told by it."""


def drifted(value: Any, number: int) -> Any:
    """Return the payload of a remote that has renamed a field and changed the type of another."""
    plain = _plain(value)
    if not isinstance(plain, Mapping) or not plain:
        return {"data": f"{REJECTED}-{number}"}
    first, *others = plain
    return {f"{first}_v2": f"{REJECTED}-{number}", **dict.fromkeys(others, f"{REJECTED}-{number}")}


def emptied(value: Any) -> Any:
    """Return the same shape without content."""
    plain = _plain(value)
    if isinstance(plain, Mapping):
        return {}
    return [] if isinstance(plain, list) else None


def never_complete(value: Any, number: int) -> Any:
    """Return one more page that differs from all others and is not the last."""
    plain = _plain(value)
    if not isinstance(plain, Mapping):
        return plain
    changed = dict(plain)
    for key, item in plain.items():
        if key in {"partial", "has_more", "truncated"}:
            changed[key] = True
        elif key in {"next_page", "page"}:
            changed[key] = number + 1
        elif key in {"next_cursor", "cursor"}:
            changed[key] = f"cursor-{number}"
        elif isinstance(item, list):
            changed[key] = _leaves(item, lambda leaf: f"{leaf} ({number})" if isinstance(leaf, str) else leaf)
    return changed


def plausibly_wrong(value: Any) -> Any:
    """Return the payload with its numbers ten times as large, or its first text another one: the schema still holds."""
    plain = _plain(value)
    found = _leaves(
        plain, lambda leaf: leaf * 10 if isinstance(leaf, int | float) and not isinstance(leaf, bool) else leaf
    )
    return _first_text(plain, lambda _text: "42") if found == plain else found


def instructed(value: Any, text: str) -> Any:
    """Return the payload with an instruction at the end of every text."""
    return _leaves(_plain(value), lambda leaf: f"{leaf} {text}" if isinstance(leaf, str) else leaf)


def oversized(value: Any, size_bytes: int) -> Any:
    """Return the payload with one text of `size_bytes` letters."""
    return _first_text(_plain(value), lambda _text: "x" * size_bytes)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _leaves(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_leaves(item, change) for item in value]
    return change(value)


def _first_text(value: Any, change: Callable[[str], str]) -> Any:
    done = False

    def once(leaf: Any) -> Any:
        nonlocal done
        if done or not isinstance(leaf, str):
            return leaf
        done = True
        return change(leaf)

    changed = _leaves(value, once)
    return changed if done else change("")
