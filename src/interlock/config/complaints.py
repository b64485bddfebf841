"""What is wrong with a value of the configuration, in words that say what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from interlock.config.shape import shape_at

__all__ = ["explain"]

Path = tuple[str, ...]

_NUMBERS = {"int_type": "a whole number", "float_type": "a number", "int_from_float": "a whole number"}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_CONTAINERS = {
    "dataclass_type": "keys below it, not one value",
    "dict_type": "keys below it, not one value",
    "mapping_type": "keys below it, not one value",
    "tuple_type": "a list, like [a, b]",
    "frozen_set_type": "a list, like [a, b]",
    "list_type": "a list, like [a, b]",
}


def explain(path: Path, kind: str, context: Mapping[str, Any], value: Any) -> str:
    """Say what is wrong with `value` at `path`; `kind` and `context` are pydantic's."""
    if value is None and kind != "missing":
        return "cannot be null: leave the key out for its default"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{_shown(path, value)} is out of range: write {words} {context[name]}{_or_null(path)}"
    if kind in _NUMBERS:
        unit = " of seconds" if _is_seconds(path) else ""
        return f"must be {_NUMBERS[kind]}{unit}, without quotes or unit, not {_shown(path, value)}{_or_null(path)}"
    if kind == "bool_type":
        return f"must be true or false, not {_shown(path, value)}"
    if kind == "string_type":
        return f"must be text, not {_shown(path, value)}: put it in quotes"
    if kind in {"literal_error", "enum"}:
        return _choices(str(context["expected"]), value)
    if kind in _CONTAINERS:
        return f"must be {_CONTAINERS[kind]}"
    return _explain_text(path, kind, context, value)


def _explain_text(path: Path, kind: str, context: Mapping[str, Any], value: Any) -> str:
    if kind == "string_pattern_mismatch":
        return (
            f"{_shown(path, value)} is no tool name or glob: write 1 to 128 of the characters A-Z a-z 0-9 _ . : / - "
            "with * for any run of characters and ? for one"
        )
    if kind == "int_parsing":
        return f"the key {path[-1]!r} must be a whole number"
    if kind == "missing":
        return f"the key {path[-1]!r} is missing"
    if kind in {"string_too_short", "too_short"}:
        return "must not be empty"
    if kind in {"string_too_long", "too_long"}:
        return f"is too long: at most {context.get('max_length')}"
    return f"cannot be used ({kind.replace('_', ' ')})"


def _choices(expected: str, value: Any) -> str:
    choices = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"must be one of {', '.join(choices)}{hint}"


def _or_null(path: Path) -> str:
    shape = shape_at(path)
    return ", or null for unlimited" if shape is not None and shape.nullable else ""


def _is_seconds(path: Path) -> bool:
    return any(key.endswith(("_s", "seconds")) for key in path[-2:])


def _shown(path: Path, value: Any) -> str:
    # A store's URL may hold a password.
    if path[-1:] == ("store",) or isinstance(value, Mapping | list):
        return "what stands here"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
