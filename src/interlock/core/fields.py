"""A field of what a library returned, whatever that is: a mapping, a pydantic model, an object.

Asking whether something is a `Mapping`, or a model for a field that it has not, costs more than reading the field, and
a reply is asked for many: so how to read is remembered for each type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["is_mapping", "read_field"]

# Types come from libraries and applications, which may make them as they go.
TYPES_KEPT = 512
_ABSENT: Any = object()


def read_field(value: Any, name: str) -> Any:
    """Return a field; None where there is none."""
    kind: Any = type(value)
    return value.get(name) if kind is dict else _reader(kind)(value, name)


def is_mapping(value: Any) -> bool:
    """Whether `value` is a `Mapping`."""
    kind: Any = type(value)
    return kind is dict or _reader(kind) is _of_mapping


@lru_cache(maxsize=TYPES_KEPT)
def _reader(kind: type) -> Callable[[Any, str], Any]:
    if issubclass(kind, Mapping):
        return _of_mapping
    asked = next((base for base in kind.__mro__ if "__getattr__" in vars(base)), kind)
    ours_to_read = hasattr(kind, "__pydantic_extra__") and asked.__module__.startswith("pydantic.")
    return _of_model if ours_to_read else _of_object


def _of_mapping(value: Any, name: str) -> Any:
    return value.get(name)


def _of_object(value: Any, name: str) -> Any:
    return getattr(value, name, None)


def _of_model(value: Any, name: str) -> Any:
    """Read the fields where pydantic keeps them; what is missing there, it would look for in three more places."""
    found = value.__dict__.get(name, _ABSENT)
    if found is not _ABSENT:
        return found
    extra = value.__pydantic_extra__
    if extra is not None and name in extra:
        return extra[name]
    kind: Any = type(value)
    return getattr(value, name, None) if _of_class(kind, name) else None


@lru_cache(maxsize=8 * TYPES_KEPT)
def _of_class(kind: type, name: str) -> bool:
    return any(name in vars(base) for base in kind.__mro__)
