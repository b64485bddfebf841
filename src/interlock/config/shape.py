"""The shape of the configuration, read off its types: which keys exist where, and what stands under them.

It answers what pydantic does not: the nearest known key, the right place of a key that stands elsewhere,
and whether an empty key (`tools:` with every line below it commented out) is a section or a cap.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

from interlock.config.sections import Settings

__all__ = ["Shape", "keys_of", "nearest_key", "shape_at", "unknown_keys", "without_empty"]

Path = tuple[str, ...]

# What the article calls it, and what people type.
_OTHER_NAMES = {
    "max_tools": "max_tool_calls",
    "max_time": "max_seconds",
    "max_time_s": "max_seconds",
    "max_spend": "max_usd",
    "max_cost": "max_usd",
    "max_cost_usd": "max_usd",
    "timeout_s": "timeouts_s",
    "allowlist": "allow",
    "denylist": "deny",
    "circuit_breaker": "circuit_breakers",
}

_KEYS: dict[type[Any], Mapping[str, Shape]] = {}


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at one place.

    Attributes:
        kind: `section` (fixed keys), `table` (free keys), `list` or `value`.
        section: The class of a section, or of the sections in a table.
        nullable: Whether null means something here.
    """

    kind: str
    section: type[Any] | None = None
    nullable: bool = False


def keys_of(section: type[Any]) -> Mapping[str, Shape]:
    """Return the keys of a section and what stands under each."""
    known = _KEYS.get(section)
    if known is None:
        hints = typing.get_type_hints(section, include_extras=True)
        known = _KEYS[section] = {field.name: _shape(hints[field.name]) for field in fields(section)}
    return known


def shape_at(path: Path) -> Shape | None:
    """Return what may stand at `path`, or None where no key is known."""
    here = Shape("section", Settings)
    for key in path:
        if here.kind == "section" and here.section is not None:
            found = keys_of(here.section).get(key)
            if found is None:
                return None
            here = found
        elif here.kind == "table" and here.section is not None:
            here = Shape("section", here.section)
        else:
            return Shape("value")
    return here


def unknown_keys(data: Mapping[str, Any], section: type[Any] = Settings, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every key that no section knows."""
    known = keys_of(section)
    for key, value in data.items():
        shape = known.get(key)
        if shape is None:
            yield (*path, key)
        elif shape.section is not None and isinstance(value, Mapping):
            if shape.kind == "section":
                yield from unknown_keys(value, shape.section, (*path, key))
            else:
                for name, item in value.items():
                    if isinstance(item, Mapping):
                        yield from unknown_keys(item, shape.section, (*path, key, name))


def nearest_key(path: Path) -> str:
    """Say what was probably meant by the unknown key at `path`."""
    *above, key = path
    shape = shape_at(tuple(above))
    here = keys_of(shape.section) if shape is not None and shape.section is not None else {}
    other = _OTHER_NAMES.get(key, key)
    if other in here:
        return f"did you mean {other}?"
    if homes := [".".join(place) for place in _places(Settings, ()) if place[-1] == other]:
        return f"did you mean {' or '.join(homes)}?"
    if close := difflib.get_close_matches(key, here, n=1, cutoff=0.6):
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(here)}" if here else "remove it"


def without_empty(data: Mapping[str, Any], section: type[Any] = Settings) -> dict[str, Any]:
    """Return `data` without the sections, tables and lists that are empty (null): they count as left out."""
    known = keys_of(section)
    out: dict[str, Any] = {}
    for key, value in data.items():
        shape = known.get(key, Shape("value"))
        if value is None and shape.kind != "value":
            continue
        if isinstance(value, Mapping) and shape.section is not None:
            inner = shape.section
            out[key] = (
                without_empty(value, inner)
                if shape.kind == "section"
                else {n: without_empty(v, inner) if isinstance(v, Mapping) else v for n, v in value.items()}
            )
        else:
            out[key] = value
    return out


def _places(section: type[Any], path: Path) -> Iterator[Path]:
    for key, shape in keys_of(section).items():
        yield (*path, key)
        if shape.kind == "section" and shape.section is not None:
            yield from _places(shape.section, (*path, key))


def _shape(hint: Any) -> Shape:
    nullable = False
    while True:
        origin = typing.get_origin(hint)
        if origin is Annotated:
            hint = typing.get_args(hint)[0]
        elif origin in {typing.Union, types.UnionType}:
            nullable = True
            hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        else:
            break
    if is_dataclass(hint) and isinstance(hint, type):
        return Shape("section", hint, nullable)
    if origin is Mapping:
        inner = _shape(typing.get_args(hint)[1])
        return Shape("table", inner.section, nullable)
    if origin in {tuple, frozenset}:
        return Shape("list", None, nullable)
    return Shape("value", None, nullable)
