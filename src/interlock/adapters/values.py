"""Arguments and outputs of tools that the gate knows only through a framework: canonical, whatever their types.

The framework has validated the arguments by its own schema; here they are only written down, as a copy that
nobody can change afterwards. An output goes to the framework as the tool returned it, and to the record as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic_core import PydanticSerializationError, to_jsonable_python

from interlock.core.canonical import NotCanonical, canonical_json
from interlock.validation.mismatch import SchemaMismatch

__all__ = ["SCALARS", "ToolArguments", "ToolValue", "Unfit", "as_json", "defaults_of", "parsed"]

SCALARS = frozenset({str, int, bool, float, type(None)})


class Unfit(dict[str, Any]):
    """Arguments that the framework's own schema refuses: refused in the funnel, and so on the record.

    Attributes:
        errors: As of a `SchemaMismatch`.
    """

    def __init__(self, args: Mapping[str, Any], errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(args)
        self.errors = list(errors) or [{"loc": [], "type": "schema", "msg": "They are not what it takes"}]


class ToolArguments:
    """Any arguments, as JSON."""

    __slots__ = ()

    def validate(self, value: Any) -> dict[str, Any]:
        """Return a copy of the arguments that is JSON through and through.

        Raises:
            SchemaMismatch: They are no JSON object. NotCanonical: a part of them is not JSON.
        """
        if isinstance(value, Unfit):
            raise SchemaMismatch(value.errors)
        if not isinstance(value, Mapping):
            raise SchemaMismatch([{"loc": [], "type": "json", "msg": "The arguments are not a JSON object"}])
        if all(type(item) in SCALARS for item in value.values()):
            return dict(value)
        plain: dict[str, Any] = as_json(dict(value))
        return plain

    def dump(self, value: Any) -> bytes:
        """Return canonical JSON."""
        return canonical_json(value)


class ToolValue:
    """Any output: handed on as it is, written down as JSON."""

    __slots__ = ()

    def validate(self, value: Any) -> Any:
        """Return `value`."""
        return value

    def dump(self, value: Any) -> bytes:
        """Return canonical JSON of what `value` means: models, dataclasses, dates, bytes (base64).

        Raises:
            NotCanonical: It is not JSON.
        """
        try:
            return canonical_json(value)
        except NotCanonical:
            return canonical_json(as_json(value))

    def load(self, data: bytes) -> Any:
        """Return the JSON value that was written down."""
        return orjson.loads(data)


def as_json(value: Any) -> Any:
    """Return `value` as JSON types, copied.

    Raises:
        NotCanonical: Some part of it has no JSON form.
    """
    try:
        return to_jsonable_python(value, bytes_mode="base64")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotCanonical(f"{type(error).__name__}: a part of it is not JSON") from None


def parsed(args: Any) -> Any:
    """Return the arguments of a model's call: JSON text read, nothing at all as `{}`; what is not JSON as it stands."""
    if args is None or args == "":
        return {}
    if not isinstance(args, str | bytes):
        return args
    try:
        return orjson.loads(args)
    except ValueError:
        return args


def defaults_of(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the defaults that a JSON Schema of arguments states."""
    properties = (schema or {}).get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: said["default"] for name, said in properties.items() if isinstance(said, Mapping) and "default" in said
    }
