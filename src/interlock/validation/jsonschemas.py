"""JSON Schema, for tools that are not Python functions: MCP servers, remote APIs.

Such a schema comes from elsewhere. It may not fetch anything (`$ref` to a file or address is refused), and
what it rejects is described by the schema's words alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.errors import ConfigError
from interlock.validation.mismatch import MASK, MAX_ERRORS, MAX_TEXT, SchemaMismatch, explain, mask, not_among, suggest

__all__ = ["JsonSchema"]

# Where one of these stands, the properties of the top level are not all that there may be.
_OPENING = frozenset(
    {
        "$dynamicRef",
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "dependentSchemas",
        "if",
        "oneOf",
        "patternProperties",
        "unevaluatedProperties",
    }
)


class JsonSchema:
    """A compiled JSON Schema (the draft that `$schema` names, else the newest).

    Args:
        schema: The schema.
        closed: Refuse arguments that its `properties` do not name, unless it says that there may be others.

    Attributes:
        names: Names of the top-level properties. open: Whether others are accepted too.

    Raises:
        ConfigError: The schema is not valid, refers elsewhere, or `jsonschema_rs` is not installed.
    """

    __slots__ = ("_known", "_schema", "_validator", "_words", "names", "open")

    def __init__(self, schema: Mapping[str, Any], *, closed: bool) -> None:
        try:
            import jsonschema_rs  # noqa: PLC0415 - an extra, and slow to load
        except ImportError:
            raise ConfigError("JSON Schema needs an extra: pip install interlock[jsonschema]") from None
        self._schema = dict(schema)
        properties = schema.get("properties")
        self.names = tuple(properties) if isinstance(properties, Mapping) else ()
        self.open = not (closed and properties is not None and _OPENING.isdisjoint(schema))
        self._known = frozenset(self.names)
        self._words = frozenset(_words(self._schema))
        try:
            self._validator = jsonschema_rs.validator_for(self._schema, retriever=_refuse)
        except (ValueError, TypeError) as error:
            first_line = str(error).partition("\n")[0]
            raise ConfigError(f"the JSON Schema cannot be used: {first_line}") from None

    def validate(self, value: Any) -> Any:
        """Return `value` (an object: a new dict) if it fits.

        Raises:
            SchemaMismatch: What does not fit, without its content.
        """
        try:
            # First, because deep nesting would overrun the stack of the validator and end the process.
            data = canonical_json(value)
        except NotCanonical:
            raise SchemaMismatch([{"loc": [], "type": "not_json", "msg": "The value is not JSON"}]) from None
        try:
            fits = self._validator.is_valid(value)
        except (ValueError, TypeError):
            # Python values that JSON writes as something else (dates, enums, models).
            value = orjson.loads(data)
            fits = self._validator.is_valid(value)
        if not fits:
            raise self._mismatch(value)
        if not self.open and isinstance(value, Mapping) and not self._known.issuperset(value):
            raise _extra(value, self.names)
        return dict(value) if isinstance(value, Mapping) else value

    def dump(self, value: Any) -> bytes:
        """Return the canonical JSON of `value`."""
        return canonical_json(value)

    def load(self, data: bytes) -> Any:
        """Return the output that `dump` wrote. Raises `SchemaMismatch` if it does not fit the schema as it is now."""
        try:
            value = orjson.loads(data)
        except ValueError:
            raise SchemaMismatch([{"loc": [], "type": "not_json", "msg": "What was kept is not JSON"}]) from None
        return self.validate(value)

    def _mismatch(self, value: Any) -> SchemaMismatch:
        errors: list[dict[str, Any]] = []
        for fault in self._validator.iter_errors(value):
            keyword = str(fault.kind.name)
            errors.append(
                {"loc": mask(fault.instance_path, self._words), "type": keyword, "msg": self._message(keyword, fault)}
            )
            if len(errors) == MAX_ERRORS:
                break
        return SchemaMismatch(errors)

    def _message(self, keyword: str, fault: Any) -> str:
        """The rule that is broken, as the schema writes it."""
        if keyword == "required":
            return f"{fault.kind.property!r} is required"
        rule: Any = self._schema
        for part in fault.schema_path:
            try:
                rule = rule[part]
            except (LookupError, TypeError):
                return f"does not fit `{keyword}`"
        if isinstance(rule, dict) or (isinstance(rule, list) and any(isinstance(item, dict) for item in rule)):
            return f"does not fit `{keyword}`"
        return f"does not fit `{keyword}: {rule}`"[:MAX_TEXT]


def _extra(value: Mapping[str, Any], names: tuple[str, ...]) -> SchemaMismatch:
    unknown = [str(name) for name in value if name not in names][:MAX_ERRORS]
    # Their names are the model's, and stay out of `errors`.
    errors = [{"loc": [MASK], "type": "extra_forbidden", "msg": not_among(names)} for _ in unknown]
    return SchemaMismatch(errors, explain(errors) + suggest(unknown, names))


def _refuse(uri: str) -> Any:
    raise ValueError(f"a tool's schema may not refer to {uri[:MAX_TEXT]}: put the definition under $defs")


def _words(node: Any) -> set[str]:
    words: set[str] = set()
    if isinstance(node, Mapping):
        properties = node.get("properties")
        if isinstance(properties, Mapping):
            words.update(properties)
        for child in node.values():
            words |= _words(child)
    elif isinstance(node, list):
        for child in node:
            words |= _words(child)
    return words
