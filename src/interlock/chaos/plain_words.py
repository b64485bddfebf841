"""Values as words in one line: rounded, in a fixed order, without what is empty or usual; long texts are cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import orjson

__all__ = ["digits_of", "facts", "flat", "number", "plain_json", "shown", "usual"]

LONGEST = 200
DECIMALS = 6
HASH_DIGITS = 6


def number(value: float) -> str:
    """Return a number with at most six decimals."""
    text = f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text


def digits_of(text: str) -> str:
    """Return some digits that differ where texts differ."""
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def shown(text: str, longest: int | None = None) -> str:
    """Return a text in one line; of a long one its beginning, and some digits of a hash."""
    line = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    most = LONGEST if longest is None else longest
    return line if len(line) <= most else f"{line[:most]}… #{digits_of(text)}"


def usual(said: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not as expected."""
    return {name: value for name, value in said.items() if name not in expected or not _equal(value, expected[name])}


def facts(said: Mapping[str, Any]) -> str:
    """Return what is not empty, as `name value, name value`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in said.items() if not _is_empty(value))


def flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Return the leaves of nested values by their dotted paths, in order, those that are empty included."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from flat(f"{path}.{name}" if path else str(name), each)
    else:
        yield path, plain_json(value)


def plain_json(value: Any) -> str:
    """Return JSON of whatever it is: of what is not data, the name of its type."""
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS).decode()


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str | list | tuple | dict | frozenset) and not value)


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, float | int):
        return number(value) == number(expected)
    return bool(value == expected)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return shown(str(value))
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, int | float):
        return number(value)
    return _name(value) if isinstance(value, type | Callable) else shown(plain_json(value))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(number(value))
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str | Enum):
        return str(value)
    if isinstance(value, bytes):
        return f"#{digits_of(value.hex())}"
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(str(each) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    dump = getattr(value, "model_dump", None)
    return _plain(dump(mode="json")) if callable(dump) else _name(value)


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__name__))
